"""Reading HDF5 files of others: only plain arrays that are in the file itself, and no larger than what it stores."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

# zlib never does better than 1032 to 1; nor does LZF.
MAX_COMPRESSION = 1100


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file, for reading; what h5py raises on damaged bytes becomes a sentence.

    Raises
    ------
    ValueError
    """
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path} is not a readable HDF5 file (truncated, or of another format): {error}") from None
    with file:
        try:
            yield file
        except (KeyError, OSError, RuntimeError) as error:
            if isinstance(error, OSError) and error.errno not in (None, errno.EIO):
                raise  # of the system, about what is written meanwhile; HDF5's own have no number
            raise ValueError(f"{path} is damaged: {error}") from None


def array(file: h5py.File, name: str) -> h5py.Dataset:
    """A dataset of real numbers by its path within the file, not read yet.

    Raises
    ------
    ValueError
        If it is missing, reached through a link, not of real numbers, stored elsewhere, or larger than it can be.
    """
    place, path = file, Path(file.filename)
    for part in name.split("/"):
        if not isinstance(place, h5py.Group) or not place.id.links.exists(part.encode()):
            listed = [key for _, key in zip(range(20), file, strict=False)]
            raise ValueError(f"{path} has no {name!r}; it holds {', '.join(listed)}")
        if not holds(place, part):
            raise ValueError(f"{path}: {name!r} is a link; only what is in the file itself is read")
        place = place[part]
    if not isinstance(place, h5py.Dataset):
        raise ValueError(f"{path}: {name!r} is a group, and an array is expected there")
    if place.external or place.is_virtual:
        raise ValueError(f"{path}: the values of {name!r} are in other files; only what is in the file itself is read")
    if place.dtype.kind not in "biuf":
        raise ValueError(f"{path}: {name!r} must be an array of real numbers, got type {place.dtype}")
    if place.nbytes > MAX_COMPRESSION * place.id.get_storage_size() + 1024:
        raise ValueError(
            f"{path}: {name!r} is declared as {place.nbytes:,} bytes (shape {place.shape}), but the file holds "
            f"{place.id.get_storage_size():,} of them"
        )
    return place


def holds(group: h5py.Group, name: str) -> bool:
    """Whether a group has an entry of its own by a name; unlike ``name in group``, no link is followed to find out."""
    links, key = group.id.links, name.encode()
    return bool(links.exists(key) and links.get_info(key).type == h5py.h5l.TYPE_HARD)


def text(file: Any, name: str) -> str | None:
    """A string attribute, or None."""
    value = file.attrs.get(name)
    return value.decode() if isinstance(value, bytes) else value if isinstance(value, str) else None


def rows(dataset: h5py.Dataset, values: Any, start: int) -> None:
    """Write rows into a dataset made for all of them."""
    dataset[start : start + len(values)] = values


def coordinates(file: h5py.File, names: list[str]) -> list[Any]:
    """One-dimensional arrays, read."""
    found = []
    for name in names:
        values = array(file, name)
        if values.ndim != 1 or values.size > 10_000_000:
            raise ValueError(f"{file.filename}: {name!r} must be a list of coordinates, got shape {values.shape}")
        found.append(np.asarray(values[:], dtype=np.float64))
    return found
