"""MATLAB's files of version 5: numeric arrays and strings, read by mapping.

`scipy.io` reads more of the format, and crashes on files that are damaged in the wrong place. We need arrays alone, of
files that others send; so every length is compared with what is there before it is believed.

A file is 128 bytes of header and a list of elements: a tag (type and length, 4 bytes each; or, where at most four bytes
follow, two each), the bytes, and padding to a multiple of 8. A variable is an element of elements: flags, shape, name,
values in column-major order; or the same behind zlib. (MathWorks, MAT-File Format, chapter 1.)
"""

import mmap
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MATRIX, _COMPRESSED = 14, 15
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXT = {1: "ascii", 2: "ascii", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_NUMBERS = dict(zip(range(6, 16), ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"], strict=True))
_OTHERS = {1: "cell", 2: "struct", 3: "object", 5: "sparse array", 16: "function", 17: "object"}
_CHAR, _COMPLEX = 4, 0x0800
_MOST = 1100  # zlib never does better than 1032 to 1
_HEAD = 4096  # bytes in which flags, shape and name of a variable lie


class Damaged(ValueError):
    """The bytes do not make sense."""


@dataclass(frozen=True)
class Variable:
    """A variable of a file; values are read when they are asked for.

    Attributes
    ----------
    kind : str
        "numbers", "text", or what else MATLAB calls it.
    shape : tuple of int
    dtype : numpy dtype
        Of its MATLAB class; it may be stored in fewer bytes.
    """

    kind: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    _content: memoryview
    _compressed: bool
    _order: str

    def array(self) -> NDArray[Any]:
        """The values: a map of the file where they are neither compressed nor stored in fewer bytes."""
        kind, data = self._values()
        if kind not in _STORED:
            raise Damaged(f"values of type {kind}")
        stored = np.dtype(self._order + _STORED[kind])
        if len(data) != int(np.prod(self.shape, dtype=object)) * stored.itemsize:
            raise Damaged(f"{len(data):,} bytes for an array of shape {self.shape}")
        values = np.frombuffer(data, stored).reshape(self.shape, order="F")
        return values if stored.newbyteorder("=") == self.dtype else values.astype(self.dtype)

    def text(self) -> str:
        """A string of one row."""
        kind, data = self._values()
        if self.kind != "text" or kind not in _TEXT:
            raise Damaged("a string is expected")
        encoding = _TEXT[kind] + (("-le" if self._order == "<" else "-be") if kind in (4, 17, 18) else "")
        try:
            return bytes(data).decode(encoding)
        except UnicodeDecodeError as error:
            raise Damaged(f"a string: {error}") from None

    def _values(self) -> tuple[int, memoryview]:
        content = self._content
        if self._compressed:
            inside = list(_elements(memoryview(_inflate(content, None)), self._order))
            if len(inside) != 1:
                raise Damaged(f"compressed values that hold {len(inside)} variables")
            content = inside[0][1]
        parts = _elements(content, self._order)
        for _ in range(3):
            next(parts)
        try:
            return next(parts)
        except StopIteration:
            raise Damaged("no values") from None


def variables(path: Path) -> dict[str, Variable]:
    """All variables of a file, of which only the heads are read.

    Raises
    ------
    Damaged
        If it is no such file, or is truncated.
    """
    with open(path, "rb") as stream:
        header = stream.read(128)
        if len(header) < 128 or header[126:] not in (b"IM", b"MI"):
            raise Damaged("no header of MATLAB's version 5")
        content = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    order = "<" if header[126:] == b"IM" else ">"
    if struct.unpack(order + "H", header[124:126])[0] != 0x0100:
        raise Damaged("another version than 5")
    found = {}
    for kind, data in _elements(content[128:], order):
        if kind == _COMPRESSED:
            head = _inflate(data, _HEAD)
            if len(head) < 8:
                raise Damaged("an empty variable")
            kind, size = struct.unpack(order + "II", head[:8])
            if size > _MOST * len(data):
                raise Damaged(f"a variable that claims {size:,} bytes out of {len(data):,}")
            name, variable = _variable(memoryview(head)[8:], data, True, order)
        elif kind == _MATRIX:
            name, variable = _variable(data, data, False, order)
        else:
            raise Damaged(f"an element of type {kind} where a variable is expected")
        if kind != _MATRIX:
            raise Damaged(f"an element of type {kind} where a variable is expected")
        if name:  # MATLAB keeps its own things under no name
            found[name] = variable
    return found


def _variable(head: memoryview, content: memoryview, compressed: bool, order: str) -> tuple[str, Variable]:
    parts = _elements(head, order)
    try:
        (_, flags), (_, dimensions), (_, name) = next(parts), next(parts), next(parts)
    except StopIteration:
        raise Damaged("a variable without shape or name") from None
    if len(flags) < 4 or len(dimensions) % 4 or not 8 <= len(dimensions) <= 4 * 32:
        raise Damaged("a variable without flags or shape")
    flag = struct.unpack(order + "I", flags[:4])[0]
    shape = tuple(int(n) for n in np.frombuffer(dimensions, order + "i4"))
    if min(shape) < 0:
        raise Damaged(f"a variable of shape {shape}")
    number = flag & 0xFF
    if number in _NUMBERS:
        kind = "complex array" if flag & _COMPLEX else "numbers"
    else:
        kind = "text" if number == _CHAR else _OTHERS.get(number, f"class {number}")
    dtype = np.dtype(_NUMBERS.get(number, "u1"))
    return bytes(name).decode("ascii", "replace"), Variable(kind, shape, dtype, content, compressed, order)


def _elements(content: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Type and bytes of each element, one after the other."""
    place = 0
    while place + 8 <= len(content):
        kind, size = struct.unpack(order + "II", content[place : place + 8])
        if kind >> 16:  # a short one: length and type in two bytes each, four bytes of values
            kind, size, start = kind & 0xFFFF, kind >> 16, place + 4
            following = place + 8
            if size > 4:
                raise Damaged(f"a short element of {size} bytes")
        else:
            start = place + 8
            following = start + size + (0 if kind == _COMPRESSED else -size % 8)
        if start + size > len(content):
            raise Damaged(f"an element of {size:,} bytes where {len(content) - start:,} are left")
        yield kind, content[start : start + size]
        place = following


def _inflate(content: memoryview, limit: int | None) -> bytes:
    """What was compressed: its first bytes, or all of it."""
    try:
        stream = zlib.decompressobj()
        values = stream.decompress(content, _MOST * len(content) + 64 if limit is None else limit)
    except zlib.error as error:
        raise Damaged(f"compressed values: {error}") from None
    if limit is None and not stream.eof:  # the end is where its checksum is
        raise Damaged("compressed values that end too early")
    return values
