"""Finding a structured grid in a sparse matrix that does not say it has one.

On a grid in C order the entries of a row lie at a few fixed distances from the diagonal. In the middle of the matrix
these distances are sums of the strides of the grid, which give its shape; a pass over all entries then verifies it.
"""

from functools import lru_cache
from itertools import product
from math import prod
from typing import Any

import numpy as np
import scipy.sparse as sp
from numba import njit

from solvers.stencil import StencilOperator

_SAMPLE = 400  # rows whose entries give the distances
_inner = njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
_FITS, _NO_STENCIL, _NO_ROOM = range(3)
_USUAL = 0.3  # share of the sampled rows that have a distance which belongs to the stencil, and not to a seam


def detect(A: Any) -> StencilOperator | None:
    """The stencil that a sparse matrix holds on a grid of one, two or three dimensions in C order, or None.

    Every entry must couple points at most one step apart along each axis, around periodic axes too, and the operator
    found has exactly the entries of A; stored zeros, duplicates and any order of the columns are allowed. Spacing is
    not in a matrix: it is taken as one, sides are taken as "neumann" where their rows sum to zero, as "dirichlet"
    otherwise, and points as nodes.

    Parameters
    ----------
    A : sparse matrix or array, shape (n, n)

    Examples
    --------
    >>> from solvers import gallery
    >>> found = detect(gallery.poisson((30, 41)).tocsr())
    >>> found.grid_shape, len(found.offsets)
    ((30, 41), 5)
    >>> detect(sp.random_array((100, 100), density=0.1)) is None
    True
    """
    if not sp.issparse(A) or A.ndim != 2 or A.shape[0] != A.shape[1] or A.shape[0] == 0 or A.dtype.char not in "fdFD":
        return None
    matrix = A if A.format == "csr" else sp.csr_array(A)
    n = matrix.shape[0]
    if matrix.nnz > 27 * n:
        return None
    distances = _usual_distances(matrix)
    around = None
    for grid in _grids(distances, n):
        found = _fill(matrix, grid, distances)
        if found is not None and not any(found.periodic):
            return found
        around = around or found  # a wrong width can look like a seam
    return around


def _usual_distances(A: Any) -> list[int]:
    """Distances column minus row, above the diagonal, that a good part of the rows has."""
    n = A.shape[0]
    count = min(_SAMPLE, n)
    # Evenly spread, but not regularly: that could meet the same column of the grid again and again.
    rows = np.arange(count) * n // count
    rows = np.minimum(rows + np.arange(count) % 7, n - 1)
    found = np.sort(_distances(A.indptr, A.indices, A.data, rows))
    if found.size == 0:
        return []
    first = np.concatenate([[0], np.flatnonzero(found[1:] != found[:-1]) + 1, [found.size]])
    return [int(value) for value in found[first[:-1][first[1:] - first[:-1] >= _USUAL * count]]]


@njit(cache=True, nogil=True)
def _distances(indptr, indices, data, rows):  # type: ignore[no-untyped-def]
    """Column minus row of the entries above the diagonal in some rows."""
    found = np.empty(27 * rows.size, dtype=np.int64)
    count = 0
    for row in rows:
        for k in range(indptr[row], indptr[row + 1]):
            if indices[k] > row and data[k] != 0 and count < found.size:
                found[count] = indices[k] - row
                count += 1
    return found[:count]


def _grids(distances: list[int], n: int) -> list[tuple[int, ...]]:
    """Shapes of up to three axes that could have these distances, most likely first."""
    beyond = [distance for distance in distances if distance > 1]
    if not beyond:
        return [(n,)] if distances else []
    shapes: list[tuple[int, ...]] = []
    # The smallest distance to the next row is that of the point straight ahead, or of the one diagonally before it.
    for width in _straight_ahead(beyond, 1):
        if width < 2 or n % width:
            continue
        rest = [distance for distance in beyond if distance > width + 1]
        if not rest:
            shapes.append((n // width, width))
            continue
        for plane in (p for row in _straight_ahead(rest, width) for p in _straight_ahead([row, *rest], 1)):
            if plane % width == 0 and n % plane == 0:
                shapes.append((n // plane, plane // width, width))
    return [shape for shape in dict.fromkeys(shapes) if _explains(shape, distances)]


def _straight_ahead(distances: list[int], stride: int) -> tuple[int, ...]:
    """What the first distance says of a larger stride: itself or one smaller stride more, the likelier first."""
    first = distances[0]
    diagonal = first + stride in distances and first + 2 * stride in distances
    return (first + stride, first) if diagonal else (first, first + stride)


def _explains(shape: tuple[int, ...], distances: list[int]) -> bool:
    """Whether every distance is that of a step of at most one along each axis."""
    return set(distances) <= set(_neighbours(shape)[1])


@lru_cache(maxsize=64)
def _neighbours(grid: tuple[int, ...]) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]:
    """Offsets of at most one step along each axis, and how far they are in the order of the unknowns."""
    around = tuple(product((-1, 0, 1), repeat=len(grid)))
    strides = [prod(grid[axis + 1 :]) for axis in range(len(grid))]
    return around, tuple(sum(i * s for i, s in zip(offset, strides, strict=True)) for offset in around)


def _fill(A: Any, grid: tuple[int, ...], distances: list[int]) -> StencilOperator | None:
    """The operator on this grid, or None if an entry does not fit."""
    around, shifts = _neighbours(grid)
    shape = np.array(grid, dtype=np.int64)
    if len(set(shifts)) < len(around):
        return None  # one or two points wide: what is a step and what a seam cannot be told
    expected = [abs(shift) in (0, *distances) for shift in shifts]
    # If other offsets occur, which is rare, once more with room for all.
    for room in (expected, [True] * len(around)):
        slots = np.where(room, np.cumsum(room) - 1, -1)
        used, wraps = np.zeros(len(around), dtype=np.bool_), np.zeros(len(grid), dtype=np.int64)
        fields = np.empty((sum(room), A.shape[0]), dtype=A.dtype)
        outcome = _collect(A.indptr, A.indices, A.data, shape, slots, used, wraps, fields)
        if outcome != _NO_ROOM:
            break
    if outcome == _NO_STENCIL:
        return None
    if not np.array_equal(used, room):
        fields = fields[slots[used]]
    fields.shape = (len(fields), *grid)  # in place: the operator takes over what owns its memory and is frozen
    fields.flags.writeable = False
    return StencilOperator(
        [offset for offset, is_used in zip(around, used, strict=True) if is_used],
        fields,
        shape=grid,
        spacing=1.0,
        boundary=[
            ("periodic", "periodic") if wraps[axis] else tuple(_side(fields, axis, end) for end in (0, -1))
            for axis in range(len(grid))
        ],
        centring="node",
    )


def _side(coefficients: np.ndarray, axis: int, end: int) -> str:
    """Name of a side by the sums of its rows; edges, which feel another side too, are left out where they can be."""
    inner = [slice(1, -1) if size > 2 else slice(None) for size in coefficients.shape[1:]]
    inner[axis] = end  # type: ignore[call-overload]
    rows = coefficients[(slice(None), *inner)]
    tolerance = 100 * float(np.finfo(rows.dtype).eps)
    first = rows.reshape(len(rows), -1)[:, 0]
    for some in (first, rows):  # most often the first row decides
        if not (np.abs(some.sum(axis=0)) <= tolerance * np.abs(some).max(axis=0)).all():
            return "dirichlet"
    return "neumann"


@_inner
def _slot(row, column, shape):  # type: ignore[no-untyped-def]
    """Number of an entry's offset, and bits for the axes around which it wraps; -1 if it is no step of at most one."""
    number, wrapped = 0, 0
    for axis in range(shape.size - 1, -1, -1):
        size = shape[axis]
        step = column % size - row % size
        row, column = row // size, column // size
        if step > 1 or step < -1:
            if size > 2 and step == size - 1:
                step = -1
            elif size > 2 and step == 1 - size:
                step = 1
            else:
                return -1, 0
            wrapped |= 1 << axis
        number += (step + 1) * 3 ** (shape.size - 1 - axis)
    return number, wrapped


@_inner
def _add_row(row, indptr, indices, data, shape, slots, used, wraps, fields):  # type: ignore[no-untyped-def]
    """Add the entries of one row to the fields, each on its own."""
    for k in range(indptr[row], indptr[row + 1]):
        if data[k] != 0:
            number, wrapped = _slot(row, np.int64(indices[k]), shape)
            if number < 0:
                return _NO_STENCIL
            if slots[number] < 0:
                return _NO_ROOM
            used[number] = True
            fields[slots[number], row] += data[k]
            for axis in range(shape.size):
                wraps[axis] |= (wrapped >> axis) & 1
    return _FITS


@njit(cache=True, nogil=True)
def _collect(indptr, indices, data, shape, slots, used, wraps, fields):  # type: ignore[no-untyped-def]
    """Add all entries to the coefficient fields, of which there is one for each offset with a slot.

    Away from the ends of a line of the last axis all rows look alike, as a rule: entries at the distances of the first
    of them, each column one more than in the row before. That is checked without a branch, and the entries are then
    moved a line at a time.
    """
    width = shape[shape.size - 1]
    one = indices.dtype.type(1)
    for first in range(0, indptr.size - 1, width):
        begin, end = first + 1, first + width - 1
        middle = end - begin
        start = indptr[begin] if middle > 0 else 0
        count = indptr[begin + 1] - start if middle > 0 else 0
        alike = count > 0 and indptr[end] - start == count * middle
        if alike:
            before, after = indices[start : start + count * (middle - 1)], indices[start + count : indptr[end]]
            different = False
            for k in range(before.size):
                different |= after[k] - before[k] != one
            alike = not different
        for slot in range(fields.shape[0]):
            fields[slot, first : first + width] = 0
        for j in range(width):
            if not (alike and 0 < j < width - 1):
                outcome = _add_row(first + j, indptr, indices, data, shape, slots, used, wraps, fields)
                if outcome != _FITS:
                    return outcome
        if not alike:
            continue
        for m in range(count):
            number, wrapped = _slot(begin, np.int64(indices[start + m]), shape)
            values = data[start + m : start + count * middle]
            if number < 0 or wrapped != 0 or not used[number]:
                some = False
                for j in range(middle):
                    some |= values[j * count] != 0
                if not some:
                    continue  # zeros may be stored anywhere
                if number < 0:
                    return _NO_STENCIL
                if slots[number] < 0:
                    return _NO_ROOM
                used[number] = True
                for axis in range(shape.size):
                    wraps[axis] |= (wrapped >> axis) & 1
            field = fields[slots[number], begin:end]
            for j in range(middle):
                field[j] += values[j * count]
    return _FITS
