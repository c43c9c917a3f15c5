"""Predictions from file to file: a piece of the samples at a time, so that memory does not grow with their number."""

import math
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datagen.files import written_atomically
from datagen.store import open_store
from operators.predict import Predictor
from operators.reading import Reader, check_store

Fields = NDArray[np.floating]

PIECE_VALUES = 2**20
"""Grid values of one channel that are held at a time."""


@dataclass(frozen=True)
class Source:
    """Where input fields come from.

    Attributes
    ----------
    samples : int
    grid : tuple of int
    read : callable
        ``(start, stop) -> (samples, input channels, *grid)``.
    alone : bool
        One sample that came without an axis of samples, and whose prediction has none.
    """

    samples: int
    grid: tuple[int, ...]
    read: Callable[[int, int], Fields]
    alone: bool = False


def check_paths(source: str | Path, output: str | Path) -> tuple[Path, Path]:
    """The paths of input and output, after it was looked whether they can be read and written.

    Raises
    ------
    ValueError
        If there is no such input, the output is no .npy or .npz file, is the input, or has no folder.
    """
    source, output = Path(source), Path(output)
    if not source.exists():
        raise ValueError(f"input={source}: there is no such file or dataset")
    if source.is_file() and source.suffix not in (".npy", ".npz"):
        raise ValueError(f"input={source} must be a .npy or .npz file, or the folder of a dataset")
    if output.suffix not in (".npy", ".npz"):
        raise ValueError(f"output={output} must end in .npy or .npz")
    if output.exists() and output.resolve() == source.resolve():
        raise ValueError(f"output={output} is the input file; name another")
    if output.is_dir():
        raise ValueError(f"output={output} is a folder; name a file")
    if not output.resolve().parent.is_dir():
        raise ValueError(f"output={output}: its folder does not exist")
    return source, output


def predict_file(
    predictor: Predictor,
    source: Path,
    output: Path,
    *,
    split: str = "test",
    steps: int | None = None,
    lead_time: float | None = None,
    direct: bool | None = None,
    batch_size: int | None = None,
) -> str:
    """Predict the fields of a file or dataset, and write them to a file.

    Parameters
    ----------
    predictor : Predictor
    source : Path
        A .npy file of the shape that `Predictor.predict` takes (of operators with one input channel the axis of
        channels may be left out), a .npz file with an array ``([samples,] *grid)``, or a number a sample, for each
        channel, or a dataset.
    output : Path
        A .npy file for ``([samples,] [frames,] output channels, *grid)``, or a .npz file for an array ``([samples,]
        [frames,] *grid)`` a channel and the ``times`` of the frames.
    split : str
        Of a dataset.
    steps : int, optional
        Of a rollout (`Predictor.rollout`); a single prediction if left out.
    lead_time, direct, batch_size
        As for `Predictor.rollout`.

    Returns
    -------
    str
        What was written, in words.

    Raises
    ------
    ValueError
        If the input cannot be read, does not fit the operator, or an argument does not.
    """
    if steps is None and direct is not None:
        raise ValueError(f"direct={direct} says how to roll out, which steps=... asks for; leave it out, or give steps")
    lead_times = None if steps is None else predictor.steps_of(steps, lead_time)
    times = None if lead_times is None else np.concatenate([[0.0], np.cumsum(lead_times)])
    found = _dataset(predictor, source, split) if source.is_dir() else _file(predictor, source)
    frames = () if times is None else (len(times),)
    shape = (found.samples, *frames, len(predictor.outputs), *found.grid)

    def fill(result: NDArray[Any]) -> None:
        size = max(1, PIECE_VALUES // max(1, math.prod(found.grid)))
        for start in range(0, found.samples, size):
            part = slice(start, min(start + size, found.samples))
            inputs, _ = predictor.checked(found.read(part.start, part.stop), f"input={source}", part.start)
            if lead_times is None:
                result[part] = predictor.predict(inputs, lead_time, batch_size)
            else:
                result[part, 0] = predictor.initial_state(inputs)
                states = predictor.frames(inputs, lead_times, direct=direct, batch_size=batch_size)
                for number, state in enumerate(states, 1):
                    result[part, number] = state

    _write(output, shape, fill, predictor, times, found.alone)
    names = ", ".join(channel.name for channel in predictor.outputs)
    until = "" if times is None else f", times 0 to {times[-1]:g}"
    return f"{names}, shape {shape[1:] if found.alone else shape}{until}"


def _dataset(predictor: Predictor, source: Path, split: str) -> Source:
    store = open_store(source)
    store.shards(split)  # names the splits there are
    check_store(predictor, store)
    reader = Reader(store, split, predictor.inputs, predictor.outputs)
    if not len(reader):
        raise ValueError(f"dataset {store.path} has no {split} samples; it has {dict(store.sizes)}")
    return Source(len(reader), store.shape, lambda start, stop: reader.inputs(start, stop, frame=predictor.first_frame))


def _file(predictor: Predictor, source: Path) -> Source:
    try:
        loaded = np.load(source, mmap_mode="r", allow_pickle=False)  # a .npy file is mapped, not read
        arrays = None if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"input={source} could not be read as arrays of numbers: {error}") from None
    return _array(predictor, loaded, source) if arrays is None else _archive(predictor, arrays, source)


def _array(predictor: Predictor, array: NDArray[Any], source: Path) -> Source:
    axes = len(predictor.grid)
    if len(predictor.inputs) == 1 and array.ndim <= axes + 1:
        array = np.expand_dims(array, array.ndim - axes if array.ndim >= axes else 0)  # the axis of channels
    alone = predictor.check_shape(array, f"input={source}")
    whole = array[None] if alone else array
    return Source(len(whole), whole.shape[2:], lambda start, stop: whole[start:stop], alone)


def _archive(predictor: Predictor, arrays: dict[str, NDArray[Any]], source: Path) -> Source:
    names = [channel.name for channel in predictor.inputs]
    if not set(names) <= set(arrays):
        if len(arrays) == 1:
            return _array(predictor, next(iter(arrays.values())), source)
        raise ValueError(
            f"input={source} must hold an array for each input channel ({', '.join(names)}), or one array of all; it "
            f"holds {', '.join(arrays) or 'none'}"
        )
    shapes = {name: arrays[name].shape for name in names}
    whole = max(shapes.values(), key=len)
    leading = max(len(whole) - len(predictor.grid), 0)  # axes before the grid's: one of samples, or none
    parts = []
    for name, shape in shapes.items():
        if shape not in (whole, whole[:leading]):
            raise ValueError(
                f"input={source}: channels must have one shape {whole}, or be a number a sample of shape "
                f"{whole[:leading]}; got {', '.join(f'{n} {s}' for n, s in shapes.items())}"
            )
        numbers = arrays[name].reshape(*shape, *[1] * (len(whole) - len(shape)))
        parts.append(np.broadcast_to(numbers, whole))
    return _array(predictor, np.stack(parts, axis=leading), source)


def _write(
    output: Path,
    shape: tuple[int, ...],
    fill: Callable[[NDArray[Any]], None],
    predictor: Predictor,
    times: NDArray[np.float64] | None,
    alone: bool,
) -> None:
    """Let a file be filled piece by piece, and put it in its place when it is whole."""
    kept = shape[1:] if alone else shape
    with written_atomically(output) as partial:
        if output.suffix == ".npy":
            fill(_mapped(partial, kept).reshape(shape))
            return
        with tempfile.TemporaryDirectory(dir=output.resolve().parent, prefix=f".{output.name}.") as folder:
            whole = _mapped(Path(folder) / "whole.npy", kept)
            fill(whole.reshape(shape))
            by_channel = np.moveaxis(whole, whole.ndim - len(predictor.grid) - 1, 0)
            arrays: dict[str, Any] = {channel.name: by_channel[n] for n, channel in enumerate(predictor.outputs)}
            if times is not None:
                arrays["times"] = times
            with open(partial, "wb") as stream:
                np.savez(stream, **arrays)


def _mapped(path: Path, shape: tuple[int, ...]) -> Fields:
    """A new .npy file as an array; what is written to it is on its way to the disk."""
    if math.prod(shape):
        return np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    empty = np.empty(shape, dtype=np.float32)  # which cannot be mapped
    with open(path, "wb") as stream:
        np.save(stream, empty)
    return empty
