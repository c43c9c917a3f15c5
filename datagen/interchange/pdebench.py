"""PDEBench's single-file layout (arXiv 2210.07182), as its ``FNODatasetSingle`` reads it.

An evolution of one scalar in one dimension (2-D arrays named `tensor` are always taken for Darcy's):

    tensor          float32 (samples, frames, x)      frame 0 is the initial field
    x-coordinate    float32 (x,)                      t-coordinate float32 (frames + 1,), one longer, as theirs

A steady problem with one input and one output in two dimensions (their "Darcy" layout):

    tensor          float32 (samples, 1, x, y)        the solution
    nu              float32 (samples, x, y)           the input
    x-coordinate, y-coordinate                        attribute beta: the constant right-hand side, of `darcy` only

Read besides: their compressible flows, ``density``, ``pressure``, ``Vx``, ... of shape (samples, frames, *grid).
"""

from collections.abc import Iterator
from contextlib import contextmanager
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
        if "tensor" not in file:
            yield _flow(file, path, wanted)
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
    names = [name for name in FLOW if name in file]
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
