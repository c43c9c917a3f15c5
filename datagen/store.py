"""Datasets on disk: a folder of HDF5 shards.

    DATASET/
      spec.json                    what was asked for; its hash is the dataset's identity
      manifest.json                written by merge: every shard and its SHA-256, totals
      train/shard-00000.hdf5       samples, in The Well's layout plus /provenance /cost /quality
      train/shard-00000.json       sidecar: status, seeds, failed attempts, costs, measured seconds, hashes
      validation/... test/...

The HDF5 files hold nothing that depends on when, where or how fast they were made: the same spec gives the same bytes.
Measured seconds are in the sidecars, outside every hash.

A file follows the format of The Well (https://polymathic-ai.org/the_well/data_format; `datagen.well_format`): a steady
field, and the input of an evolution, is an entry of ``t0_fields`` with ``time_varying`` false; the output of an
evolution has a frame a time of ``dimensions/time``, the initial state first, and ``time_varying`` true. Readers refuse
what a data file has no business to hold: external links, object types, shapes other than those the spec implies, paths
that leave the folder.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from datagen.difficulty import check_level
from datagen.discretise import boundary_names
from datagen.family import SPLITS, Family, Field, Sample, build
from datagen.files import json_bytes, read_json, sha256, sha256_of_file
from datagen.plan import check_solver
from solvers.registry import near_names

FORMAT_VERSION = 1
DTYPES = ("float32", "float64")
MAX_SHARDS = 1_000_000
OPEN_SHARDS = 64  # kept open by a store that is read


@cache
def code_version() -> str:
    """Version of Southwell, as written into every file."""
    try:
        return version("southwell")
    except PackageNotFoundError:
        return "not installed"


@dataclass(frozen=True)
class Spec:
    """All that decides the bytes of a dataset.

    Parameters
    ----------
    pde : dict
        Registered name and parameters of the family.
    seed : int
        Root of all random numbers, 0 or more.
    samples : dict
        Samples per split: "train", "validation", "test".
    shard_size : int
        Samples a shard.
    solver : dict
        Arguments of `solvers.solve`: method, rtol, ...; ``rtol`` is the label tolerance. Method "sequence" is a
        `SequenceSolver` for each shard; for "auto", `datagen.plan` writes what it chooses under "plan".
    dtype : str
        Of stored fields.
    inputs : dict, optional
        Where input fields come from that are not drawn: ``file``, ``sha256``, ``fields`` (`datagen.draw.with_inputs`).
    level : dict, optional
        Names of the levels of difficulty, by axis, that the parameters are those of (`datagen.difficulty`).

    Raises
    ------
    ValueError
        If an entry is missing, unknown or out of range.
    """

    pde: Mapping[str, Any]
    seed: int
    samples: Mapping[str, int]
    shard_size: int
    solver: Mapping[str, Any]
    dtype: str = "float32"
    inputs: Mapping[str, Any] | None = None
    level: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        def integer(value: Any, name: str, least: int) -> int:
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
            return value

        for split in self.samples:
            if split not in SPLITS:
                raise ValueError(f"samples.{split} is not a split. {near_names(split, list(SPLITS))}")
        for split in SPLITS:
            integer(self.samples.get(split), f"samples.{split}", 1 if split == "train" else 0)
        integer(self.seed, "seed", 0)
        integer(self.shard_size, "shard.size", 1)
        if self.dtype not in DTYPES:
            raise ValueError(f"store.dtype must be {' or '.join(DTYPES)}, got {self.dtype!r}")
        if sum(self.samples.values()) > MAX_SHARDS * self.shard_size:
            raise ValueError(f"more than {MAX_SHARDS:,} shards of {self.shard_size} samples; raise shard.size")
        parameters = dict(self.pde)
        if "name" not in parameters:
            raise ValueError("pde.name is missing: it names a registered PDE family")
        # Parameters left to their defaults are part of what was asked for: a later version may have others.
        family = build(**parameters)
        if family.made_by_solving:
            self._check_solver()
        elif self.solver:
            raise ValueError(f"solver must be empty: samples of family {family.name!r} are not made by solving")
        if self.inputs is not None:
            given = {field.name for field in family.fields if field.role != "output"}
            if set(self.inputs) != {"file", "sha256", "fields"} or not set(self.inputs["fields"]) <= given:
                raise ValueError(f"inputs must be the file, sha256 and fields of arrays of inputs, got {self.inputs!r}")
            object.__setattr__(self, "inputs", _plain(dict(self.inputs)))
        if self.level is not None:
            object.__setattr__(self, "level", check_level(self.level))
        object.__setattr__(self, "pde", _plain(family.parameters()))
        object.__setattr__(self, "samples", {split: self.samples[split] for split in SPLITS})
        solver = {key: float(value) if key in ("rtol", "atol") else value for key, value in self.solver.items()}
        object.__setattr__(self, "solver", _plain(solver))
        for name, value in (*self.pde.items(), *self.solver.items()):
            if not all(math.isfinite(v) for v in (value if isinstance(value, list) else [value]) if type(v) is float):
                raise ValueError(f"{name} must be finite, got {value!r}")

    def _check_solver(self) -> None:
        rtol = self.solver.get("rtol")
        if isinstance(rtol, bool) or not isinstance(rtol, (int, float)) or not 0 < rtol < 1:
            raise ValueError(f"solver.rtol must be a number between 0 and 1, got {rtol!r}")
        check_solver(self.solver)

    @cached_property
    def family(self) -> Family:
        """The PDE family."""
        return build(**self.pde)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the spec: the identity of the dataset."""
        return sha256(json_bytes(self.as_dict()))

    @cached_property
    def shards(self) -> "tuple[Shard, ...]":
        """All shards, in order; a shard never mixes splits."""
        shards: list[Shard] = []
        for split in SPLITS:
            for number, start in enumerate(range(0, self.samples[split], self.shard_size)):
                stop = min(start + self.shard_size, self.samples[split])
                shards.append(Shard(len(shards), split, number, start, stop))
        return tuple(shards)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as in ``spec.json``."""
        values = {"format_version": FORMAT_VERSION, **asdict(self)}
        return {key: value for key, value in values.items() if value is not None or key not in ("inputs", "level")}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Spec":
        """The inverse of `as_dict`; refuses other versions of the format, and unknown keys."""
        content = dict(values)
        version = content.pop("format_version", None)
        if version != FORMAT_VERSION:
            raise ValueError(f"format_version of the dataset must be {FORMAT_VERSION}, got {version!r}")
        expected = {"pde", "seed", "samples", "shard_size", "solver", "dtype"}
        if set(content) - {"inputs", "level"} != expected:
            raise ValueError(f"the spec must have the keys {sorted(expected)}, got {sorted(content)}")
        for name in ("pde", "samples", "solver"):
            if not isinstance(content[name], Mapping):
                raise ValueError(f"{name} of the spec must hold keys and values, got {content[name]!r}")
        return cls(**content)

    def sample_bytes(self) -> int:
        """Bytes that the fields of one sample take."""
        values = sum(math.prod(self.family.stored_shape(field)) for field in self.family.fields)
        return values * np.dtype(self.dtype).itemsize


def _plain(value: Any) -> Any:
    """Tuples and numpy scalars as lists and Python numbers, so that a spec equals its JSON."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value


@dataclass(frozen=True)
class Shard:
    """A run of samples that one worker makes and one file holds.

    Attributes
    ----------
    index : int
        Place among all shards of the dataset.
    split : str
    number : int
        Place among the shards of its split.
    start, stop : int
        Its samples within the split.
    """

    index: int
    split: str
    number: int
    start: int
    stop: int

    @property
    def file(self) -> str:
        """Path within the dataset."""
        return f"{self.split}/shard-{self.number:05d}.hdf5"

    @property
    def sidecar(self) -> str:
        """Path of its sidecar within the dataset."""
        return f"{self.split}/shard-{self.number:05d}.json"


class DamagedShard(ValueError):
    """A shard's file is not what its sidecar, its spec or the format says."""


# What h5py raises when the bytes of a file do not make sense.
_HDF5_ERRORS = (KeyError, OSError, RuntimeError)


def open_shard(path: Path, inspected: bool = False) -> h5py.File:
    """Open a shard for reading, refusing links out of the file and object types before any value is read.

    Parameters
    ----------
    path : Path
    inspected : bool
        Whether that was done before, of a file that is not expected to change: it takes ten times as long as opening.

    Raises
    ------
    DamagedShard
        Naming the file and what is wrong with it.
    """
    if path.is_symlink():
        raise DamagedShard(f"{path} is a symbolic link; a shard must be a file within its dataset")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DamagedShard(f"{path} is not a readable HDF5 file: {error}") from None
    if inspected:
        return file
    try:
        _refuse_foreign(file, file, path)
    except _HDF5_ERRORS as error:
        file.close()
        raise DamagedShard(f"{path} is damaged: {error}") from None
    except DamagedShard:
        file.close()
        raise
    return file


def _refuse_foreign(file: h5py.File, group: h5py.Group, path: Path) -> None:
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise DamagedShard(f"{path}: {group.name}/{name} is a link; only datasets and groups of the file are read")
        entry = group[name]
        if isinstance(entry, h5py.Group):
            if entry.name.count("/") > 8:
                raise DamagedShard(f"{path}: groups are nested too deep at {entry.name}")
            _refuse_foreign(file, entry, path)
        elif not isinstance(entry, h5py.Dataset) or entry.dtype.kind not in "biufcS" or _elsewhere(entry):
            raise DamagedShard(f"{path}: {group.name}/{name} has a type that data files must not hold")


def _elsewhere(entry: h5py.Dataset) -> bool:
    """Whether a dataset's values are in other files."""
    return bool(entry.external or entry.is_virtual)


class Store:
    """A finished dataset, opened for reading.

    Attributes
    ----------
    path : Path
    spec : dict
        What was asked for, as in ``spec.json``.
    family : Family
    fields : tuple of Field
    shape : tuple of int
        The grid.
    boundary : tuple of pairs of str
        Names of the conditions per axis.
    evolves : bool
        Whether output fields have a frame a time.
    times : ndarray, shape (frames,)
        Of the frames of output fields; one, 0, for steady families.
    sizes : dict
        Samples per split.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise ValueError(f"no dataset at {self.path}: there is no such folder")
        if not (self.path / "spec.json").exists():
            raise ValueError(f"{self.path} is not a Southwell dataset: it has no spec.json")
        self._spec = Spec.from_dict(read_json(self.path / "spec.json"))
        if not (self.path / "manifest.json").exists():
            raise ValueError(
                f"the dataset at {self.path} is not finished: repeat the command that makes it, or, where all of its "
                f"jobs are done, run `southwell-data merge out={self.path}`"
            )
        self.manifest: dict[str, Any] = read_json(self.path / "manifest.json")
        listed = self.manifest.get("shards")
        if not isinstance(listed, list) or not all(isinstance(shard, dict) and "file" in shard for shard in listed):
            raise ValueError(
                f"{self.path}: manifest.json does not list shards: it is damaged. Write it anew with "
                f"`southwell-data merge out={self.path}`"
            )
        if self.manifest.get("spec_sha256") != self._spec.digest:
            raise ValueError(f"{self.path}: manifest.json belongs to another spec.json; generate the dataset anew")
        self.spec = self._spec.as_dict()
        self.family = self._spec.family
        self.fields: tuple[Field, ...] = self.family.fields
        self.shape = self.family.mesh.shape
        self.boundary = boundary_names(self.family.boundary)
        self.evolves = self.family.evolves
        self.times = self.family.times
        self.sizes: dict[str, int] = dict(self._spec.samples)
        self._verified: set[Shard] = set()
        self._open: dict[tuple[int, Shard], h5py.File] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}  # open files stay with their process

    def shards(self, split: str) -> list[Shard]:
        """The shards of one split."""
        if split not in self.sizes:
            raise ValueError(f"the dataset at {self.path} has no split {split!r}. {near_names(split, list(SPLITS))}")
        return [shard for shard in self._spec.shards if shard.split == split]

    def read(
        self, split: str, name: str, start: int = 0, stop: int | None = None, frame: int | None = None
    ) -> NDArray[Any]:
        """Values of one field, in the stored dtype.

        Parameters
        ----------
        split, name : str
        start, stop : int
            Samples within the split.
        frame : int, optional
            One frame of a field that varies in time (-1: the last); only that is read.

        Returns
        -------
        ndarray
            ``(stop - start, *grid)``, or, for all frames of an output of an evolution, ``(stop - start, frames,
            *grid)``.

        Raises
        ------
        ValueError
            If there is no such split, field, sample or frame.
        DamagedShard
            If a file is not what the manifest says.
        """
        field = next((f for f in self.fields if f.name == name), None)
        if field is None:
            raise ValueError(f"the dataset has no field {name!r}. {near_names(name, [f.name for f in self.fields])}")
        shape = self.family.stored_shape(field)
        if frame is not None:
            if not self.family.varies_in_time(field):
                raise ValueError(f"field {name!r} does not vary in time: it has no frame {frame}")
            if not -len(self.times) <= frame < len(self.times):
                raise ValueError(f"frame {frame} is out of range: the dataset has {len(self.times)}")
            frame %= len(self.times)
        return self._gather(split, f"t0_fields/{name}", start, stop, shape, frame)

    def record(self, split: str, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """One number a sample: "quality/relative_residual", "cost/iterations", ... of shape ``(stop - start,)``."""
        return self._gather(split, name, start, stop, ())

    def record_names(self, group: str) -> list[str]:
        """What "provenance", "cost", "quality" or "scalars" hold: the names after the group's that `record` takes."""
        shard = self.shards("train")[0]
        self._verify(shard)
        with open_shard(self.path / shard.file) as file:
            if not isinstance(file.get(group), h5py.Group):
                raise DamagedShard(f"{self.path / shard.file} lacks {group}")
            return sorted(file[group])

    def _verify(self, shard: Shard) -> None:
        """Compare a shard with the manifest before its first use: nobody should train on flipped bits.

        Raises
        ------
        DamagedShard
        """
        if shard in self._verified:
            return
        path = self.path / shard.file
        listed = {entry["file"]: entry["sha256"] for entry in self.manifest["shards"]}
        if not path.exists():
            raise DamagedShard(f"{path} is missing; repeat the command that made the dataset")
        if sha256_of_file(path) != listed.get(shard.file):
            raise DamagedShard(
                f"{path} does not have the SHA-256 in the manifest: it is corrupted. Repeat the command that made the "
                "dataset, which makes this shard again"
            )
        open_shard(path).close()  # looked through once; reading a frame here and a frame there is quick then
        self._verified.add(shard)

    def sample(self, split: str, index: int) -> Sample:
        """The inputs of one sample, as the family's `system`, or `initial` and `evolve`, take them."""
        names = [f.name for f in self.fields if f.role != "output"]
        fields = {name: self.read(split, name, index, index + 1)[0] for name in names}
        scalars = self.record_names("scalars")
        return Sample(
            fields, {name: float(self.record(split, f"scalars/{name}", index, index + 1)[0]) for name in scalars}
        )

    def _file(self, shard: Shard) -> h5py.File:
        """A shard, verified and open. The last ones stay open: reading samples in random order comes back to them."""
        key = os.getpid(), shard  # HDF5 must not use a file that was open when the process forked
        if key not in self._open:
            self._verify(shard)
            if len(self._open) >= OPEN_SHARDS:
                oldest = next(iter(self._open))
                file = self._open.pop(oldest)
                if oldest[0] == key[0]:
                    file.close()
            self._open[key] = open_shard(self.path / shard.file, inspected=True)
        return self._open[key]

    def _gather(
        self, split: str, name: str, start: int, stop: int | None, shape: Sequence[int], frame: int | None = None
    ) -> NDArray[Any]:
        shards = self.shards(split)
        stop = self.sizes[split] if stop is None else stop
        if not 0 <= start <= stop <= self.sizes[split]:
            raise ValueError(f"samples {start} to {stop} are out of range: split {split!r} has {self.sizes[split]}")
        pieces = []
        for shard in shards:
            first, last = max(start, shard.start), min(stop, shard.stop)
            if first < last:
                path, rows = self.path / shard.file, slice(first - shard.start, last - shard.start)
                part = rows if frame is None else (rows, frame)
                pieces.append(read_array(self._file(shard), name, (shard.stop - shard.start, *shape), path, part))
        if not pieces:
            return np.zeros((0, *(shape if frame is None else shape[1:])), dtype=self.spec["dtype"])
        return np.concatenate(pieces)


def read_array(
    file: h5py.File,
    name: str,
    shape: tuple[int, ...],
    path: Path,
    part: slice | tuple[slice | int, ...] = slice(None),
) -> NDArray[Any]:
    """Values of a dataset of a shard (a part of it), after its shape was compared with what the spec implies.

    Parameters
    ----------
    file : h5py.File
        As `open_shard` gives it.
    name : str
        Path within the file.
    shape : tuple of int
        What the spec implies.
    path : Path
        Of the file, for messages.
    part : slice or tuple of slices and int
        What to read; all by default.

    Raises
    ------
    DamagedShard
        If it is missing, of another shape, or cannot be read.
    """
    try:
        if name not in file:
            raise DamagedShard(f"{path} lacks {name}")
        entry = file[name]
        if not isinstance(entry, h5py.Dataset) or entry.shape != shape:
            raise DamagedShard(f"{path}: {name} must be an array of shape {shape}, got {entry}")
        values: NDArray[Any] = entry[part]
    except _HDF5_ERRORS as error:
        raise DamagedShard(f"{path}: {name} cannot be read: {error}") from None
    return values


def open_store(path: str | Path) -> Store:
    """Open a finished dataset for reading.

    Parameters
    ----------
    path : path
        The dataset's folder.

    Raises
    ------
    ValueError
        If there is none, it is not finished, or it is of another format version.
    """
    return Store(path)


def estimated_bytes(spec: Spec) -> int:
    """Bytes of the finished dataset: fields, and about 200 bytes of records a sample and 24 kB a shard.

    Parameters
    ----------
    spec : Spec
    """
    samples = sum(spec.samples.values())
    return samples * (spec.sample_bytes() + 200) + math.ceil(samples / spec.shard_size) * 24_000
