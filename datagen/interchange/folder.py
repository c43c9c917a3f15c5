"""Between Southwell's folders and `Samples`: a stored split as samples, and samples as a folder."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datagen.files import json_bytes, remove_partials, sha256_of_file, write_atomically
from datagen.folder import merge, prepare_folder, shard_defect, shard_locks
from datagen.interchange.samples import Array, Samples
from datagen.pdes.imported import Imported
from datagen.shard_file import write_as_filled
from datagen.shard_image import ShardImage
from datagen.store import FORMAT_VERSION, Shard, Spec, Store, code_version


def stored(store: Store, split: str) -> Samples:
    """One split of a dataset; scalars become inputs that are the same at every point, since no format has a place.

    Raises
    ------
    ValueError
        If there is no such split, or it is empty.
    """
    store.shards(split)  # names the splits there are
    if not store.sizes[split]:
        raise ValueError(f"the dataset at {store.path} has no samples in split {split!r}; it has {store.sizes}")

    about, dtype, scalars = Imported.of(store.family), store.spec["dtype"], store.record_names("scalars")
    if scalars:
        described = [
            {"name": name, "role": "input", "description": "one number a sample, at every point"} for name in scalars
        ]
        about = dataclasses.replace(about, declared=[*described, *about.declared])

    def read(name: str, start: int, stop: int) -> Array:
        if name in scalars:
            values = store.record(split, f"scalars/{name}", start, stop).astype(dtype)
            return np.broadcast_to(values.reshape(-1, *[1] * len(store.shape)), (stop - start, *store.shape))
        return store.read(split, name, start, stop)

    return Samples(about, store.sizes[split], dtype, read)


def split_sizes(count: int, train: int | None, validation: int, test: int) -> dict[str, int]:
    """Samples per split, in the file's order: the first train, then validation, then test.

    Examples
    --------
    >>> split_sizes(100, None, 10, 20)
    {'train': 70, 'validation': 10, 'test': 20}
    """
    left = count - validation - test if train is None else train
    if min(left, validation, test) < 0 or left < 1 or left + validation + test > count:
        raise ValueError(
            f"samples.train={'the rest' if train is None else train} samples.validation={validation} "
            f"samples.test={test} cannot be cut from a file of {count} samples (train takes the first, at least one; "
            "then validation, then test)"
        )
    return {"train": left, "validation": validation, "test": test}


def followed_by(first: Samples, count: int, second: Samples, path: Path) -> Samples:
    """The first ``count`` samples of one file, then all of another of the same kind.

    Raises
    ------
    ValueError
        If the other file's fields, grid or times are others.
    """
    if second.about != first.about:
        ours, others = first.about.parameters(), second.about.parameters()
        differing = [f"{key} is {others[key]} and not {ours[key]}" for key in ours if others[key] != ours[key]]
        raise ValueError(f"{path} holds other samples than the first file: {'; '.join(differing)}")

    def read(name: str, start: int, stop: int) -> Array:
        if stop <= count:
            return first.read(name, start, stop)
        after = second.read(name, max(start, count) - count, stop - count)
        return after if start >= count else np.concatenate([first.read(name, start, count), after])

    dtype = str(np.promote_types(first.dtype, second.dtype))
    return Samples(first.about, count + second.count, dtype, read)


def write_folder(
    samples: Samples,
    folder: Path,
    sizes: Mapping[str, int],
    shard_size: int,
    dtype: str,
    on_shard: Callable[[int], None] = lambda count: None,
) -> Spec:
    """Samples as an ordinary dataset: spec, shards with sidecars, manifest. The same call completes an interrupted one.

    Raises
    ------
    ValueError
        If the folder holds something else, or a value is not finite.
    """
    spec = Spec(samples.about.parameters(), 0, sizes, shard_size, {}, dtype)
    if not np.can_cast(samples.dtype, dtype):
        raise ValueError(f"dtype={dtype} would round the file's {samples.dtype} values; leave it out")
    prepare_folder(spec, folder)
    first = dict(zip(sizes, np.cumsum([0, *sizes.values()]), strict=False))
    pending = [shard for shard in spec.shards if shard_defect(spec, shard, folder) is not None]
    with shard_locks(folder, pending):
        remove_partials(folder / name for shard in pending for name in (shard.file, shard.sidecar))
        for shard in pending:
            _write_shard(samples, spec, shard, int(first[shard.split]), folder)
            on_shard(shard.stop - shard.start)
    merge(folder)
    return spec


def _write_shard(samples: Samples, spec: Spec, shard: Shard, first: int, folder: Path) -> None:
    start, stop = first + shard.start, first + shard.stop
    fields = {field.name: samples.read(field.name, start, stop) for field in spec.family.fields}
    for name, values in fields.items():
        if values.shape != (stop - start, *samples.about.shape(name)):
            raise ValueError(f"field {name!r} of the file does not have the shape that its note says")
        bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
        if bad.size:
            raise ValueError(f"sample {start + bad[0]} of the file has values of {name!r} that are not finite")
    outputs = {field.name: fields[field.name].reshape(stop - start, -1) for field in spec.family.role("output")}
    records: dict[str, dict[str, Array]] = {
        "scalars": {},
        "provenance": {"sample": np.arange(shard.start, shard.stop), "row": np.arange(start, stop)},
        "cost": {},
        "quality": {
            f"{name}_{word}": extreme(values, axis=1).astype(np.float64)
            for name, values in outputs.items()
            for word, extreme in (("minimum", np.min), ("maximum", np.max))
        },
    }
    for place, column in samples.columns.items():
        group, name = place.split("/")
        records[group].setdefault(name, column[start:stop])
    seconds = [] if samples.seconds is None else [float(s) for s in samples.seconds[start:stop]]
    scalars = records.pop("scalars")
    types = {group: {name: column.dtype for name, column in columns.items()} for group, columns in records.items()}
    image = ShardImage(spec, shard, {name: column.dtype for name, column in scalars.items()}, types)
    image.fill(scalars, records)
    for name, values in fields.items():
        image.fields[name][:] = values
    (folder / shard.split).mkdir(exist_ok=True)
    digest, _ = write_as_filled(folder / shard.file, image, [stop - start])
    sidecar: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "status": "complete",
        "spec_sha256": spec.digest,
        "shard": shard.index,
        "split": shard.split,
        "samples": [shard.start, shard.stop],
        "rows": [start, stop],
        "failed_attempts": {},
        "totals": {name: int(values.sum()) for name, values in records["cost"].items()},
        "bytes": image.size,
        "sha256": digest,
        "code_version": code_version(),
        "seconds": {"total": sum(seconds), "samples": seconds},
    }
    write_atomically(folder / shard.sidecar, json_bytes(sidecar))


def provenance(about: Imported, paths: Sequence[Path], layout: str) -> Imported:
    """The family with the file it came from, or with the two."""
    names, digests = [path.name for path in paths], [sha256_of_file(path) for path in paths]
    return dataclasses.replace(about, source=", ".join(names), sha256=", ".join(digests), layout=layout)
