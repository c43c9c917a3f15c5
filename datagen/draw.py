"""The data of a sample: drawn from its seed, or given by a person.

A person's own input fields come as an ``.npz`` of arrays ``(n, *grid)`` by the names of the family's input fields. Its
first rows are for training, the next for validation, the next for the test. Inputs that it does not hold are drawn. The
spec has its place and its SHA-256, so that another file gives another dataset, and every worker looks before it reads.
"""

import zipfile
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from datagen.archives import Member, member, names, open_archive
from datagen.family import SPLITS, Sample, seed_sequence
from datagen.files import sha256_of_file
from datagen.store import Spec
from solvers.registry import near_names

ATTEMPTS = 10


def attempts(spec: Spec) -> range:
    """How often a sample is drawn before it is the parameters that are to blame; given inputs are what they are."""
    return range(ATTEMPTS if spec.inputs is None else 1)


def draw(spec: Spec, split: str, index: int, attempt: int = 0) -> Sample:
    """The data of one attempt at a sample, with the precision with which they are stored.

    Raises
    ------
    ValueError
        If given inputs are not there any more, are others than the spec's, or are not finite.
    """
    seeds = seed_sequence(spec.seed, spec.family.name, split, index, attempt)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # what is not finite is a failed draw
        sample = spec.family.sample(np.random.default_rng(seeds))
    if spec.inputs is not None:
        row = row_of(spec.samples, split, index)
        given = {}
        for name, values in _open(spec.inputs["file"], spec.inputs["sha256"]).items():
            given[name] = values.rows(row, row + 1)[0]
            if not np.all(np.isfinite(given[name])):
                raise ValueError(f"inputs={spec.inputs['file']}: row {row} of {name!r} is not finite")
        sample = replace(sample, fields={**sample.fields, **given})
    return sample.rounded(spec.dtype)


def row_of(samples: Mapping[str, int], split: str, index: int) -> int:
    """Row of the arrays that is a sample's: train first, then validation, then test.

    Examples
    --------
    >>> row_of({"train": 10, "validation": 2, "test": 3}, "test", 1)
    13
    """
    return sum(samples[earlier] for earlier in SPLITS[: SPLITS.index(split)]) + index


def with_inputs(spec: Spec, path: str | Path) -> Spec:
    """The same spec with input fields taken from a file.

    Parameters
    ----------
    spec : Spec
    path : path
        An ``.npz``.

    Raises
    ------
    ValueError
        If it holds other arrays than the family's inputs, of other shapes, or fewer rows than there are samples.
    """
    place = Path(path).resolve()
    if not place.is_file():
        raise ValueError(f"inputs={path}: there is no such file")
    digest = sha256_of_file(place)
    family, count = spec.family, sum(spec.samples.values())
    known = [field.name for field in family.fields if field.role != "output"]
    found = _open(str(place), digest)
    for name, values in found.items():
        if name not in known:
            raise ValueError(f"inputs={path}: {name!r} is not an input of {family.name}. {near_names(name, known)}")
        if values.dtype.kind not in "biuf" or values.shape[1:] != family.mesh.shape or not values.shape:
            raise ValueError(
                f"inputs={path}: {name!r} must be real numbers (n, {', '.join(map(str, family.mesh.shape))}), got "
                f"{values.dtype} of shape {values.shape}"
            )
        if values.shape[0] < count:
            raise ValueError(
                f"inputs={path}: {name!r} has {values.shape[0]} rows, and samples.train, samples.validation and "
                f"samples.test are {count} together"
            )
    if not found:
        raise ValueError(f"inputs={path} holds no arrays; {family.name} takes {', '.join(known)}")
    return replace(spec, inputs={"file": str(place), "sha256": digest, "fields": sorted(found)})


@lru_cache(maxsize=4)
def _open(path: str, digest: str) -> dict[str, Member]:
    """The arrays of a file, opened once a process, and only if it is the file that is meant."""
    place = Path(path)
    if not place.is_file():
        raise ValueError(f"inputs={path}: the file that the input fields come from is not there")
    if sha256_of_file(place) != digest:
        raise ValueError(f"inputs={path} is another file than the dataset was begun with: its SHA-256 differs")
    archive: zipfile.ZipFile = open_archive(place)
    return {name: member(archive, name, place) for name in names(archive)}
