"""neuraloperator's ``.pt``: a dictionary of two tensors, as its ``PTDataset`` reads it (``torch.load`` without code).

    x    float32 (samples, *grid)      where there is one input and one output (its ``channels_squeezed=True``)
    y    float32 (samples, *grid)
    x    float32 (samples, input channels, *grid)             otherwise (``channels_squeezed=False``)
    y    float32 (samples, output channels, *grid)            of an evolution: (samples, channels, frames, *grid)

The file is one pickle of tensors, so that a split has to be in memory while it is written; it is read by mapping.
"""

import pickle
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from datagen.interchange.samples import NOTE, Array, Samples, Wanted, named, note_of, read_note, stored_dtype
from datagen.pdes.imported import Imported

TITLE = "neuraloperator's .pt: a dictionary of tensors x and y"
SUFFIX = ".pt"


def _squeezed(about: Imported) -> bool:
    return about.frame_times is None and [len(names) for names in named(about)] == [1, 1]


def write(samples: Samples, path: Path, place: Path) -> None:
    """Write the file; ``place`` is where it will be named ``path``."""
    import torch  # seconds; only this format needs it

    tensors = {}
    for key, names in zip("xy", named(samples.about), strict=True):
        values = samples.stacked(names, 0, samples.count, axis=1)
        tensors[key] = torch.from_numpy(values[:, 0] if _squeezed(samples.about) else values)
    # Tensors alone would do for their reader, which looks at x and y only.
    torch.save({**tensors, NOTE: note_of(samples.about)}, place)


@contextmanager
def read(path: Path, wanted: Wanted) -> Iterator[Samples]:
    """Samples of such a file."""
    content = _load(path)
    x, y = (_tensor(content, key, path) for key in ("x", "y"))
    if x.shape[0] != y.shape[0]:
        raise ValueError(f"{path}: x has {x.shape[0]} samples and y has {y.shape[0]}")
    note = content.get(NOTE)
    if note is not None and not wanted.names_fields:
        about = wanted.amend(read_note(note, path))
        squeezed = _squeezed(about) and x.ndim == len(about.grid) + 1
    else:
        about, squeezed = _foreign(path, wanted, x, y)
    inputs, outputs = named(about)
    for key, tensor, names in (("x", x, inputs), ("y", y, outputs)):
        expected = (len(x), *(() if squeezed else (len(names),)), *about.shape(names[0]))
        if tensor.shape != expected:
            raise ValueError(f"{path}: {key} must have shape {expected} for its fields, got {tensor.shape}")

    def values(name: str, start: int, stop: int) -> Array:
        tensor, names = (x, inputs) if name in inputs else (y, outputs)
        return np.array(tensor[start:stop] if squeezed else tensor[start:stop, names.index(name)])

    yield Samples(about, len(x), stored_dtype([x.dtype, y.dtype], path), values)


def _load(path: Path) -> dict[Any, Any]:
    import torch

    try:
        # Files of torch before 1.6 are no archives, and cannot be mapped.
        with warnings.catch_warnings(action="ignore"):  # on pickle protocols, of files that are refused anyway
            content = torch.load(path, weights_only=True, map_location="cpu", mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds pickled objects, which could run code when loaded; only tensors are read ({_first(error)}). "
            "Load it where you trust it, and save a plain dictionary of tensors x and y"
        ) from None
    except (
        RuntimeError,
        ValueError,
        EOFError,
        OSError,
        LookupError,
        TypeError,
        AttributeError,
        zipfile.BadZipFile,
    ) as error:
        raise ValueError(
            f"{path} is not a file that torch.save has written, or is truncated: {_first(error)}"
        ) from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a dictionary of tensors x and y, got {type(content).__name__}")
    return content


def _first(error: Exception) -> str:
    """The first sentence: torch goes on with advice to switch its safety off."""
    return str(error).split("\n")[0].split(". ")[0][:200]


def _tensor(content: dict[Any, Any], key: str, path: Path) -> Array:
    import torch

    value = content.get(key)
    if not isinstance(value, torch.Tensor):
        held = ", ".join(str(k) for k in list(content)[:20])
        raise ValueError(f"{path} must hold tensors x and y; {key} is missing or no tensor (it holds {held})")
    if value.layout is not torch.strided or value.is_quantized or value.dtype is torch.bfloat16:
        raise ValueError(f"{path}: {key} must be a plain tensor, got {value.dtype}, {value.layout}")
    if not 2 <= value.ndim <= 6:
        raise ValueError(
            f"{path}: {key} must be (samples, *grid) or (samples, channels, *grid), got {tuple(value.shape)}"
        )
    return np.asarray(value.detach().numpy())


def _foreign(path: Path, wanted: Wanted, x: Array, y: Array) -> tuple[Imported, bool]:
    """Without a note: a second axis is the channels where `wanted` says so, or where it can hardly be the grid's."""
    same = x.ndim == y.ndim and x.shape[2:] == y.shape[2:]
    if not same:
        raise ValueError(f"{path}: x {x.shape} and y {y.shape} must be on one grid")
    differ = x.ndim > 2 and (x.shape[1] != y.shape[1] or x.shape[1] == 1)
    axes = wanted.dimension or (x.ndim - 2 if differ or x.ndim > 4 else x.ndim - 1)
    if axes not in (x.ndim - 1, x.ndim - 2):
        raise ValueError(f"{path}: dimension={axes} does not fit x of shape {x.shape}")
    if axes == x.ndim - 1:
        return wanted.describe(["x"], ["y"], x.shape[1:]), True

    def channels(key: str, width: int) -> list[str]:
        return [key] if width == 1 else [f"{key}_{number}" for number in range(width)]

    return wanted.describe(channels("x", x.shape[1]), channels("y", y.shape[1]), x.shape[2:]), False
