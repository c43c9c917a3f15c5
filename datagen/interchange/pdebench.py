"""PDEBench's single-file layout (arXiv 2210.07182), as its ``FNODatasetSingle`` reads it.

An evolution of one scalar in one dimension (2-D arrays named `tensor` are always taken for Darcy's):

    tensor          float32 (samples, frames, x)      frame 0 is the initial field
    x-coordinate    float32 (x,)                      t-coordinate float32 (frames + 1,), one longer, as theirs

A steady problem with one input and one output in two dimensions (their "Darcy" layout):

    tensor          float32 (samples, 1, x, y)        the solution
    nu              float32 (samples, x, y)           the input
    x-coordinate, y-coordinate                        attribute beta: the constant right-hand side, of `darcy` only

Read besides: their compressible flows, ``density``, ``pressure``, ``Vx``, ... of shape (samples, frames, *grid), and
their incompressible ones, ``velocity`` (samples, frames, *grid, channels), with ``particles`` alike, ``force``
(samples, *grid, channels) and ``t`` (samples, frames).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from datagen.interchange import hdf5
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

TITLE = "PDEBench, single file: tensor (samples, frames, x), or with nu for steady problems in 2D"
SUFFIX = ".hdf5"
AXES = ["x-coordinate", "y-coordinate", "z-coordinate"]
FLOW = ["density", "pressure", "Vx", "Vy", "Vz"]


def check_suffix(path: Path, suffix: str) -> None:
    """Their loaders tell the two layouts apart by the end of the name."""
    if path.suffix != suffix:
        raise ValueError(f"{path} must end in {suffix}: PDEBench's loaders tell their layouts apart by it")


def write(samples: Samples, path: Path, place: Path) -> None:
    """Write the file; ``place`` is where it will be named ``path``."""
    check_suffix(path, SUFFIX)
    about, axes = samples.about, len(samples.about.grid)
    inputs, outputs = named(about)
    steady = about.frame_times is None
    _, others = initial_or_other(about)
    if steady and (axes, len(inputs), len(outputs)) != (2, 1, 1):
        raise ValueError(
            "format=pdebench holds steady problems of one input and one output in two dimensions; this dataset has "
            f"{len(inputs)} inputs and {len(outputs)} outputs in {axes}. Use format=pdebench_grouped"
        )
    if not steady and (axes != 1 or len(outputs) != 1 or others):
        raise ValueError(
            "format=pdebench holds evolutions of one scalar in one dimension (its readers take other arrays for "
            f"Darcy's); this dataset has {', '.join([*others, *outputs])} in {axes}. Use format=pdebench_grouped"
        )
    with h5py.File(place, "w") as file:
        times = [0.0] if steady else trajectory_times(about)
        grid = about.mesh.shape
        tensor = file.create_dataset("tensor", (samples.count, len(times), *grid), samples.dtype)
        nu = file.create_dataset("nu", (samples.count, *grid), samples.dtype) if steady else None
        for axis in range(axes):
            file[AXES[axis]] = about.mesh.coordinates(axis).astype(np.float32)
        if not steady:
            step = times[-1] - times[-2] if len(times) > 1 else times[-1]
            file["t-coordinate"] = np.array([*times, times[-1] + step], dtype=np.float32)
        file.attrs[NOTE] = note_of(about)
        for start, stop in samples.pieces():
            if nu is not None:
                hdf5.rows(nu, samples.read(inputs[0], start, stop), start)
                hdf5.rows(tensor, samples.read(outputs[0], start, stop)[:, None], start)
            else:
                hdf5.rows(tensor, samples.trajectory(outputs[0], start, stop), start)


@contextmanager
def read(path: Path, wanted: Wanted) -> Iterator[Samples]:
    """Samples of a file of this layout."""
    with hdf5.opened(path) as file:
        if not hdf5.holds(file, "tensor"):
            yield (_incompressible if hdf5.holds(file, "velocity") else _flow)(file, path, wanted)
            return
        tensor = hdf5.array(file, "tensor")
        if tensor.ndim not in (3, 4):
            raise ValueError(f"{path}: tensor must be (samples, frames, x) or (samples, 1, x, y), got {tensor.shape}")
        count, frames, *grid = tensor.shape
        nu = hdf5.array(file, "nu") if tensor.ndim == 4 else None
        if nu is not None and (frames != 1 or nu.shape != (count, *grid)):
            raise ValueError(f"{path}: nu must be (samples, x, y) of tensor's {tensor.shape}, got {nu.shape}")
        about = _about(file, path, wanted, grid, frames, nu is not None)
        outputs = {field.name for field in about.role("output")}

        def values(name: str, start: int, stop: int) -> Array:
            if nu is not None:
                return np.asarray(tensor[start:stop, 0] if name in outputs else nu[start:stop])
            return trajectory_part(about, name, tensor[start:stop])

        dtypes = [tensor.dtype] if nu is None else [tensor.dtype, nu.dtype]
        yield Samples(about, count, stored_dtype(dtypes, path), values)


def trajectory_part(about: Imported, name: str, trajectory: Array) -> Array:
    """Of ``(n, frames, *grid)`` the stored frames of an output, or its initial field ``(n, *grid)``."""
    if name.startswith(INITIAL) and name not in {field.name for field in about.role("output")}:
        return np.asarray(trajectory[:, 0])
    return np.asarray(trajectory[:, 1:] if leads(about) else trajectory)


def _about(file: h5py.File, path: Path, wanted: Wanted, grid: list[int], frames: int, steady: bool) -> Imported:
    note = hdf5.text(file, NOTE)
    if note is not None and not wanted.names_fields:
        about = wanted.amend(read_note(note, path))
        expected = 1 if about.frame_times is None else len(trajectory_times(about))
        if about.mesh.shape != tuple(grid) or frames != expected or (about.frame_times is None) != steady:
            raise ValueError(f"{path}: its arrays do not have the shapes that its note on Southwell's fields says")
        return about
    x = _axes(file, path, grid)
    if steady:
        return wanted.describe(["nu"], ["tensor"], grid, coordinates=x)
    return wanted.describe_evolution(["tensor"], grid, _times(file, path, frames), x)


def _axes(file: h5py.File, path: Path, grid: list[int]) -> list[Array]:
    x = hdf5.coordinates(file, AXES[: len(grid)])
    if [len(values) for values in x] != list(grid):
        raise ValueError(f"{path}: its coordinates have {[len(v) for v in x]} entries, and its grid {list(grid)}")
    return x


def _times(file: h5py.File, path: Path, frames: int) -> list[float]:
    """Times of the frames, counted from the first; ``t-coordinate`` has one entry more than there are frames."""
    t = hdf5.coordinates(file, ["t-coordinate"])[0]
    if len(t) not in (frames, frames + 1) or frames < 2:
        raise ValueError(f"{path}: {frames} frames (at least 2 are needed) and {len(t)} times do not go together")
    return [float(value) for value in t[:frames] - t[0]]


def _flow(file: h5py.File, path: Path, wanted: Wanted) -> Samples:
    """Their compressible flows: one dataset a quantity, all of one shape."""
    names = [name for name in FLOW if hdf5.holds(file, name)]
    if not names:
        raise ValueError(
            f"{path} has none of tensor, {', '.join(FLOW)}: it is not in PDEBench's single-file layout "
            "(for groups 0000, 0001, ... use format=pdebench_grouped)"
        )
    arrays = [hdf5.array(file, name) for name in names]
    shape = arrays[0].shape
    if any(a.shape != shape for a in arrays) or not 3 <= len(shape) <= 5:
        raise ValueError(f"{path}: {', '.join(names)} must share one shape (samples, frames, *grid), got {shape}")
    count, frames, *grid = shape
    times, x = _times(file, path, frames), _axes(file, path, grid)
    about = wanted.describe_evolution(names, grid, times, x)
    inputs, outputs = named(about)

    def values(name: str, start: int, stop: int) -> Array:
        if name in outputs:
            return np.asarray(arrays[outputs.index(name)][start:stop])
        return np.asarray(arrays[inputs.index(name)][start:stop, 0])

    return Samples(about, count, stored_dtype([a.dtype for a in arrays], path), values)


def _incompressible(file: h5py.File, path: Path, wanted: Wanted) -> Samples:
    """Their incompressible flows: channels last, and no coordinates in space (``lengths=``: how long the box is)."""
    moving = {name: hdf5.array(file, name) for name in ("velocity", "particles") if hdf5.holds(file, name)}
    force = hdf5.array(file, "force") if hdf5.holds(file, "force") else None
    t = hdf5.array(file, "t")
    count, frames, *grid, _ = shape = moving["velocity"].shape
    alike = all(a.shape[:-1] == shape[:-1] for a in moving.values()) and t.shape == (count, frames)
    if len(shape) < 4 or frames < 2 or not alike or (force is not None and force.shape[:-1] != (count, *grid)):
        raise ValueError(
            f"{path}: velocity, particles, force and t must be on one grid and at the same times, got {shape}"
        )
    times = np.asarray(t[0], dtype=np.float64)
    places = {f"{name}_{i}": (a, i) for name, a in moving.items() for i in range(a.shape[-1])}
    pushes = {} if force is None else {f"force_{i}": (force, i) for i in range(force.shape[-1])}
    chosen = wanted if wanted.inputs else replace(wanted, inputs=tuple(pushes))
    about = chosen.describe_evolution(list(places), grid, [float(x) for x in times - times[0]], others=list(pushes))
    places = dict(zip([field.name for field in about.role("output")], places.values(), strict=True))

    def values(name: str, start: int, stop: int) -> Array:
        if not np.array_equal(t[start:stop], np.broadcast_to(times.astype(t.dtype), (stop - start, frames))):
            raise ValueError(f"{path}: samples {start} to {stop - 1} are at other times than the first")
        if name in pushes:
            array, channel = pushes[name]
            return np.asarray(array[start:stop, ..., channel])
        array, channel = places[name if name in places else name.removeprefix(INITIAL)]
        return trajectory_part(about, name, array[start:stop, ..., channel])

    arrays = [array.dtype for array, _ in [*places.values(), *pushes.values()]]
    return Samples(about, count, stored_dtype(arrays, path), values)
