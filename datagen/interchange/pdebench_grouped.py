"""PDEBench's layout of one group a sample, as its ``FNODatasetMult`` reads it.

    0000/data       float32 (frames, *grid, channels), LZF     0001/data ...    four digits, or as many as are needed
    0000/grid/x     float32 (x,)      grid/y, grid/z            0000/grid/t     float32 (frames,)
    0000            attribute config: YAML (JSON, of which YAML is a superset)

An evolution: channels are the outputs, frame 0 their initial fields; other inputs are further channels, the same in
every frame. A steady problem: two frames, the inputs and then the outputs, at times 0 and 1, so that one step of their
training loop learns the map; where there are fewer of the one than of the other, the channels left over are zero.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from datagen.interchange import hdf5
from datagen.interchange.pdebench import check_suffix
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

TITLE = "PDEBench, one group a sample: 0000/data (frames, *grid, channels)"
SUFFIX = ".h5"


def write(samples: Samples, path: Path, place: Path) -> None:
    """Write the file; ``place`` is where it will be named ``path``."""
    check_suffix(path, SUFFIX)
    about = samples.about
    if len(about.grid) > 3:
        raise ValueError(f"format=pdebench_grouped knows the axes x, y and z, and this dataset has {len(about.grid)}")
    digits = max(4, len(str(samples.count - 1)))
    times = [0.0, 1.0] if about.frame_times is None else trajectory_times(about)
    config = json.dumps({NOTE: json.loads(note_of(about)), "channels": _channels(about)})
    with h5py.File(place, "w") as file:
        for start, stop in samples.pieces():
            for number, data in enumerate(_data(samples, start, stop), start):
                group = file.create_group(f"{number:0{digits}d}")
                group.attrs["config"] = config
                group.create_dataset("data", data=data, compression="lzf")
                for axis, name in enumerate(about.mesh.axis_names):
                    group[f"grid/{name}"] = about.mesh.coordinates(axis).astype(np.float32)
                group["grid/t"] = np.array(times, dtype=np.float32)


def _channels(about: Imported) -> dict[str, Any]:
    """Which field is in which channel, for people."""
    inputs, outputs = named(about)
    if about.frame_times is None:
        return {"frame 0": inputs, "frame 1": outputs}
    return {"every frame": [*outputs, *initial_or_other(about)[1]]}


def _data(samples: Samples, start: int, stop: int) -> Array:
    """``(n, frames, *grid, channels)``."""
    about = samples.about
    inputs, outputs = named(about)
    if about.frame_times is None:
        width, shape = max(len(inputs), len(outputs)), (stop - start, *about.mesh.shape)
        data = np.zeros((shape[0], 2, *shape[1:], width), dtype=samples.dtype)
        for frame, names in enumerate((inputs, outputs)):
            data[:, frame, ..., : len(names)] = samples.stacked(names, start, stop, axis=-1)
        return data
    channels = [samples.trajectory(name, start, stop) for name in outputs]
    for name in initial_or_other(about)[1]:
        values = samples.read(name, start, stop)
        channels.append(np.broadcast_to(values[:, None], channels[0].shape))
    return np.stack(channels, axis=-1)


@contextmanager
def read(path: Path, wanted: Wanted) -> Iterator[Samples]:
    """Samples of a file of this layout."""
    with hdf5.opened(path) as file:
        groups = sorted(name for name in file if name.isdigit())
        if not groups:
            raise ValueError(f"{path} has no groups 0000, 0001, ...: it is not in PDEBench's grouped layout")
        first = hdf5.array(file, f"{groups[0]}/data")
        if not 3 <= first.ndim <= 5:
            raise ValueError(f"{path}: {groups[0]}/data must be (frames, *grid, channels), got shape {first.shape}")
        about = _about(file, groups[0], path, wanted, first.shape)
        inputs, outputs = named(about)
        others = initial_or_other(about)[1]

        def sample(number: int) -> Array:
            data = hdf5.array(file, f"{groups[number]}/data")
            if data.shape != first.shape or data.dtype != first.dtype:
                raise ValueError(
                    f"{path}: {groups[number]}/data is {data.dtype} of shape {data.shape}, and {groups[0]}/data "
                    f"{first.dtype} of {first.shape}; samples must be alike"
                )
            return np.asarray(data[...])

        def values(name: str, start: int, stop: int) -> Array:
            found = []
            for number in range(start, stop):
                data = sample(number)
                if about.frame_times is None:
                    place = outputs.index(name) if name in outputs else inputs.index(name)
                    found.append(data[1 if name in outputs else 0, ..., place])
                elif name in outputs:
                    found.append(data[1 if leads(about) else 0 :, ..., outputs.index(name)])
                elif name in others:
                    found.append(data[0, ..., len(outputs) + others.index(name)])
                else:
                    found.append(data[0, ..., outputs.index(name.removeprefix(INITIAL))])
            return np.stack(found)

        yield Samples(about, len(groups), stored_dtype([first.dtype], path), values)


def _about(file: h5py.File, group: str, path: Path, wanted: Wanted, shape: tuple[int, ...]) -> Imported:
    frames, *grid, width = shape
    try:
        note = json.loads(hdf5.text(file[group], "config") or "{}")
    except (json.JSONDecodeError, RecursionError):  # their own configs are YAML that we do not need
        note = {}
    if isinstance(note, dict) and NOTE in note and not wanted.names_fields:
        about = wanted.amend(read_note(json.dumps(note[NOTE]), path))
        channels = [len(names) for names in _channels(about).values()]
        expected = 2 if about.frame_times is None else len(trajectory_times(about))
        if about.mesh.shape != tuple(grid) or (frames, width) != (expected, max(channels)):
            raise ValueError(f"{path}: its arrays do not have the shapes that its note on Southwell's fields says")
        return about
    x = hdf5.coordinates(file, [f"{group}/grid/{name}" for name in "xyz"[: len(grid)]])
    t = hdf5.coordinates(file, [f"{group}/grid/t"])[0]
    if [len(values) for values in x] != list(grid) or len(t) != frames or frames < 2:
        raise ValueError(f"{path}: {group}/grid does not fit its data of shape {shape}, of at least 2 frames")
    names = [f"channel_{number}" for number in range(width)]
    return wanted.describe_evolution(names, grid, [float(value) for value in t - t[0]], x)
