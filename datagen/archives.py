"""Reading ``.npz`` archives row by row, as data only: what `numpy.load` reads whole, and without its pickles."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

MAX_COMPRESSION = 1100  # zlib never does better than 1032 to 1
_DAMAGED = (zipfile.BadZipFile, OSError, EOFError, ValueError, KeyError, SyntaxError, NotImplementedError, RuntimeError)


@dataclass
class Member:
    """An array of an archive, in C order, read forwards a few rows at a time."""

    stream: IO[bytes]
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start`` to ``stop``."""
        count = int(np.prod(self.shape[1:], dtype=np.int64))
        self.stream.seek(self.offset + start * count * self.dtype.itemsize)
        content = self.stream.read((stop - start) * count * self.dtype.itemsize)
        return np.frombuffer(content, self.dtype).reshape(stop - start, *self.shape[1:])


def names(archive: zipfile.ZipFile) -> list[str]:
    """Names of the arrays of an archive."""
    return [entry.removesuffix(".npy") for entry in archive.namelist()]


def member(archive: zipfile.ZipFile, name: str, path: Path) -> Member:
    """Open an array of an archive and look at its header; nothing is unpickled.

    Raises
    ------
    ValueError
        If it is not there, holds objects, or its header does not fit its size.
    """
    known = names(archive)
    if name not in known:
        raise ValueError(f"{path} has no array {name!r}; it holds {', '.join(known[:20])}")
    info = archive.getinfo(f"{name}.npy" if f"{name}.npy" in archive.namelist() else name)
    try:
        stream = archive.open(info)
        version = npy.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version} of the .npy format")
        shape, fortran, dtype = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(stream)
        offset = stream.tell()
    except _DAMAGED as error:
        raise ValueError(f"{path}: array {name!r} is damaged or not an array: {error}") from None
    if dtype.hasobject:
        raise ValueError(f"{path}: array {name!r} holds pickled Python objects, which could run code; not read")
    if int(np.prod(shape, dtype=object)) * dtype.itemsize != info.file_size - offset:
        raise ValueError(f"{path}: array {name!r} is declared as {dtype} of shape {shape}, which its size does not fit")
    if info.file_size > MAX_COMPRESSION * info.compress_size + 1024:
        raise ValueError(f"{path}: array {name!r} claims {info.file_size:,} bytes out of {info.compress_size:,}")
    if fortran and len(shape) > 1:
        raise ValueError(f"{path}: array {name!r} is in Fortran order; save numpy.ascontiguousarray of it")
    return Member(stream, dtype, tuple(shape), offset)


def open_archive(path: Path) -> zipfile.ZipFile:
    """The archive, opened.

    Raises
    ------
    ValueError
        If it is none.
    """
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ValueError(f"{path} is not an .npz archive, or is truncated: {error}") from None
