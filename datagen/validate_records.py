"""Checks of what a dataset says of itself, for `datagen.validate`: attributes, coordinates, records, sidecars.

Each number is in more than one place: a sample's place in its file and in the file's name, its attempt and its failed
draws in the sidecar, costs in files, sidecars and manifest, extremes among the values themselves. All have to agree.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from datagen.difficulty import label
from datagen.family import Sample
from datagen.files import json_bytes
from datagen.shard_image import well_boundaries
from datagen.store import DamagedShard, Shard, Spec, Store, read_array


def file_faults(
    store: Store, spec: Spec, shard: Shard, file: h5py.File, sidecar: Mapping[str, Any] | None
) -> Iterator[str]:
    """Where an open shard and its sidecar (None: it is damaged) disagree with the spec, or with each other.

    Raises
    ------
    DamagedShard
        If what is to be compared is not there.
    """
    path, family, count = store.path / shard.file, spec.family, shard.stop - shard.start
    attributes = [
        ("/", "dataset_name", family.name),
        ("/", "n_trajectories", count),
        ("/provenance", "split", shard.split),
        ("/provenance", "spec", json_bytes(spec.as_dict()).decode()),
        *((f"/t0_fields/{f.name}", "units", f.units) for f in family.fields),
    ]
    for place, name, expected in attributes:
        if place not in file:
            raise DamagedShard(f"{path} lacks {place[1:]}")
        if file[place].attrs.get(name) != expected:
            yield f"{path}: attribute {name!r} of {place} is not what spec.json says"
    for axis, name in enumerate(family.mesh.axis_names):
        found = read_array(file, f"dimensions/{name}", (family.mesh.shape[axis],), path)
        if not np.array_equal(found, family.mesh.coordinates(axis).astype(np.float32)):
            yield f"{path}: dimensions/{name} does not hold the coordinates of the grid"
    places = []
    for place, kind, mask, values in well_boundaries(family):
        places.append(place)
        if place not in file or file[place].attrs.get("bc_type") != kind:
            yield f"{path}: {place} is missing, or is of another type than {kind}"
            continue
        for name, expected in (("mask", mask), ("values", values)):
            if not np.array_equal(read_array(file, f"{place}/{name}", expected.shape, path), expected):
                yield f"{path}: {place}/{name} is not that of the family's sides"
    for name in set(file.get("boundary_conditions", ())) - {place.split("/")[1] for place in places}:
        yield f"{path}: boundary_conditions/{name} is a condition that the family does not have"
    if not np.array_equal(read_array(file, "provenance/sample", (count,), path), np.arange(shard.start, shard.stop)):
        yield f"{path}: provenance/sample must be {shard.start} to {shard.stop - 1}"
    if spec.level is not None:
        levels = read_array(file, "provenance/level", (count,), path)
        if not np.all(levels == label(spec.level).encode()):
            yield f"{path}: provenance/level must be {label(spec.level)} of every sample"
    if sidecar is None:
        return
    totals = {name: int(read_array(file, f"cost/{name}", (count,), path).sum()) for name in file.get("cost", ())}
    if totals != sidecar["totals"]:
        yield f"{path}: the sums of its costs are {totals}, and those in its sidecar {sidecar['totals']}"
    if family.made_by_solving:
        read_array(file, "provenance/solver", (count,), path)
        failed = np.zeros(count, dtype=np.int64)
        for index, reasons in sidecar["failed_attempts"].items():
            if not index.isdigit() or not shard.start <= int(index) < shard.stop or not isinstance(reasons, list):
                yield f"{store.path / shard.sidecar}: failed_attempts names {index!r}, which is not one of its samples"
                return
            failed[int(index) - shard.start] = len(reasons)
        if not np.array_equal(read_array(file, "provenance/attempt", (count,), path), failed):
            yield f"{path}: provenance/attempt does not count the failed draws that are in its sidecar"


def lacking_records(
    spec: Spec, sample: Sample, solution: Mapping[str, NDArray[Any]], found: Mapping[str, float]
) -> str:
    """Names of the records of quality that a sample of this family has and this one has not, with commas."""
    try:
        with np.errstate(all="ignore"):
            expected = set(spec.family.quality(sample, solution))
    except (ValueError, ArithmeticError):
        return ""  # its values make no sense, which is said elsewhere
    if spec.family.made_by_solving and not spec.family.evolves:
        expected.add("relative_residual")
    return ", ".join(sorted(name for name in expected if f"quality/{name}" not in found))


def extreme_faults(spec: Spec, solution: Mapping[str, NDArray[Any]], records: Mapping[str, float]) -> Iterator[str]:
    """Recorded extremes of output fields that are not those of the stored values."""
    for name, values in solution.items():
        found = float(values.min()), float(values.max())
        slack = float(np.finfo(spec.dtype).eps) * max(abs(found[0]), abs(found[1]))
        for word, value in zip(("minimum", "maximum"), found, strict=True):
            recorded = records.get(f"quality/{name}_{word}", value)
            if not abs(recorded - value) <= slack:
                yield f"its recorded {word} of {name!r} is {recorded:.6g}, and that of its values {value:.6g}"


def manifest_faults(store: Store, spec: Spec, sidecars: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Where manifest.json disagrees with spec.json and with the sidecars, of which only the sound ones are given."""
    manifest = store.manifest
    listed = {shard.get("file"): shard for shard in manifest["shards"]}
    if set(listed) != {shard.file for shard in spec.shards} or len(listed) != len(manifest["shards"]):
        yield "manifest.json does not list the shards that spec.json implies"
        return
    for shard in spec.shards:
        entry = listed[shard.file]
        if (entry.get("split"), entry.get("samples")) != (shard.split, [shard.start, shard.stop]):
            yield f"manifest.json does not give {shard.file} the samples that spec.json implies"
    if len(sidecars) < len(spec.shards):
        return
    totals = {name: sum(sidecar["totals"].get(name, 0) for sidecar in sidecars) for name in sidecars[0]["totals"]}
    if manifest.get("totals") != totals:
        yield f"manifest.json has the totals {manifest.get('totals')}, and the sidecars add up to {totals}"
    failed = sum(len(reasons) for sidecar in sidecars for reasons in sidecar["failed_attempts"].values())
    if manifest.get("failed_attempts") != failed:
        yield f"manifest.json counts {manifest.get('failed_attempts')} failed draws, and the sidecars have {failed}"
