"""The layout of Poseidon's datasets (camlab-ethz, arXiv 2405.19101): NetCDF 4, which is HDF5.

An evolution:

    solution        float32 (samples, time, channels, x, y)   outputs; frame 0 is their initial fields;
                                                              ``velocity`` if all outputs are called velocity_...
    <input>         float32 (samples, x, y)                   every other input, as ``c`` in their wave datasets

A steady problem, as their airfoil's:

    solution        float32 (samples, channels, x, y)         inputs, then outputs

Dimensions are written as dimension scales (sample, time, channel, x, y), with coordinates, so that readers of NetCDF
find them by name. Read besides: ``data``, ``solution`` without channels (their waves; ``inputs=c`` for the speed), and
``source`` with ``solution`` (their Poisson set).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from datagen.interchange import hdf5
from datagen.interchange.pdebench import trajectory_part
from datagen.interchange.samples import (
    INITIAL,
    NOTE,
    Array,
    Samples,
    Wanted,
    initial_or_other,
    leads,
    named,
    note_of,
    read_note,
    stored_dtype,
    trajectory_times,
)
from datagen.pdes.imported import Imported

TITLE = "Poseidon's NetCDF: solution or velocity (samples, time, channels, x, y)"
SUFFIX = ".nc"
VARIABLES = ("velocity", "solution", "data")


def _variable(about: Imported) -> str:
    velocity = about.frame_times is not None and all(f.name.startswith("velocity") for f in about.role("output"))
    return "velocity" if velocity else "solution"


def write(samples: Samples, path: Path, place: Path) -> None:
    """Write the file; ``place`` is where it will be named ``path``."""
    about = samples.about
    inputs, outputs = named(about)
    others = [] if about.frame_times is None else initial_or_other(about)[1]
    axes = about.mesh.axis_names
    clashes = {*others} & {*axes, "sample", "time", "channel", *VARIABLES}
    if clashes:
        raise ValueError(f"format=poseidon has another use for the variable name {min(clashes)!r}")
    # NetCDF wants the order in which things were made.
    with h5py.File(place, "w", track_order=True) as file:
        times = None if about.frame_times is None else np.array(trajectory_times(about))
        width = len(outputs) if times is not None else len(inputs) + len(outputs)
        scales: dict[str, Array] = {"sample": np.arange(samples.count), "channel": np.arange(width)}
        scales |= {} if times is None else {"time": times}
        scales |= {name: about.mesh.coordinates(axis) for axis, name in enumerate(axes)}
        for name, values in scales.items():
            file[name] = values
            file[name].make_scale(name)

        def variable(name: str, dimensions: tuple[str, ...]) -> h5py.Dataset:
            shape = tuple(len(scales[dimension]) for dimension in dimensions)
            dataset = file.create_dataset(name, shape, samples.dtype)
            for position, dimension in enumerate(dimensions):
                dataset.dims[position].attach_scale(file[dimension])
            return dataset

        frames = () if times is None else ("time",)
        solution = variable(_variable(about), ("sample", *frames, "channel", *axes))
        beside = {name: variable(name, ("sample", *axes)) for name in others}
        file.attrs[NOTE] = note_of(about)
        for start, stop in samples.pieces():
            if times is None:
                values = samples.stacked([*inputs, *outputs], start, stop, axis=1)
            else:
                values = np.stack([samples.trajectory(name, start, stop) for name in outputs], axis=2)
            hdf5.rows(solution, values, start)
            for name, dataset in beside.items():
                hdf5.rows(dataset, samples.read(name, start, stop), start)


@contextmanager
def read(path: Path, wanted: Wanted) -> Iterator[Samples]:
    """Samples of a file of this layout."""
    with hdf5.opened(path) as file:
        name = next((name for name in VARIABLES if hdf5.holds(file, name)), None)
        if name is None:
            raise ValueError(f"{path} has none of the variables {', '.join(VARIABLES)}: it is not in Poseidon's layout")
        solution = hdf5.array(file, name)
        note = hdf5.text(file, NOTE)
        if note is not None and not wanted.names_fields:
            about = wanted.amend(read_note(note, path))
            yield _of(file, path, solution, about, None)
        elif hdf5.holds(file, "source"):
            source = hdf5.array(file, "source")
            if source.shape != solution.shape or source.ndim < 2:
                raise ValueError(f"{path}: source {source.shape} and {name} {solution.shape} must be (samples, *grid)")
            about = wanted.describe(["source"], [name], source.shape[1:])
            yield _of(file, path, solution, about, source)
        else:
            yield _of(file, path, solution, _foreign(file, path, wanted, name, solution), None)


def _foreign(file: h5py.File, path: Path, wanted: Wanted, name: str, solution: h5py.Dataset) -> Imported:
    """Their evolutions, whose frames lie at equal steps of the unit time, and their airfoil."""
    if solution.ndim == 4 and solution.shape[1] == 2:
        return wanted.describe(["input"], ["output"], solution.shape[2:])
    if solution.ndim not in (4, 5) or solution.shape[1] < 2:
        raise ValueError(
            f"{path}: {name} must be (samples, time, x, y) or (samples, time, channels, x, y) with two or more times, "
            f"or (samples, 2, x, y) for a steady input and output, got shape {solution.shape}"
        )
    grid = solution.shape[-2:]
    channels = [name] if solution.ndim == 4 else [f"{name}_{number}" for number in range(solution.shape[2])]
    others = [key for key in file if key != name and hdf5.holds(file, key) and isinstance(file[key], h5py.Dataset)]
    others = [key for key in others if file[key].shape == (len(solution), *grid)]
    times = np.arange(solution.shape[1]) / (solution.shape[1] - 1)
    return wanted.describe_evolution(channels, grid, [float(t) for t in times], others=others)


def _of(file: h5py.File, path: Path, solution: h5py.Dataset, about: Imported, source: h5py.Dataset | None) -> Samples:
    inputs, outputs = named(about)
    others = [] if about.frame_times is None else initial_or_other(about)[1]
    beside = {name: hdf5.array(file, name) for name in others}
    grid = about.mesh.shape
    if source is not None:
        expected: tuple[int, ...] = grid
    elif about.frame_times is None:
        expected = (len(inputs) + len(outputs), *grid)
    elif len(outputs) == 1 and solution.ndim == len(grid) + 2:  # their scalars have no axis of channels
        expected = (len(trajectory_times(about)), *grid)
    else:
        expected = (len(trajectory_times(about)), len(outputs), *grid)
    wrong = [a for a in beside.values() if a.shape != (len(solution), *grid)]
    if solution.shape[1:] != expected or wrong:
        raise ValueError(
            f"{path}: {solution.name[1:]} must be {(len(solution), *expected)} for its fields, got {solution.shape}"
            + "".join(f"; {a.name[1:]} must be {(len(solution), *grid)}, got {a.shape}" for a in wrong)
        )

    def values(name: str, start: int, stop: int) -> Array:
        if name in beside:
            return np.asarray(beside[name][start:stop])
        if source is not None:
            return np.asarray((solution if name in outputs else source)[start:stop])
        if about.frame_times is None:
            return np.asarray(solution[start:stop, [*inputs, *outputs].index(name)])
        frames = slice(None) if name in outputs or leads(about) else slice(0, 1)
        channel = outputs.index(name if name in outputs else name.removeprefix(INITIAL))
        part = (slice(start, stop), frames) if len(expected) == len(grid) + 1 else (slice(start, stop), frames, channel)
        return trajectory_part(about, name, solution[part])

    arrays = [solution, *beside.values(), *([] if source is None else [source])]
    return Samples(about, len(solution), stored_dtype([a.dtype for a in arrays], path), values)
