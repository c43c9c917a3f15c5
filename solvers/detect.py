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

from solvers.entries import FITS, NO_ROOM, NO_STENCIL, collect, collect_half
from solvers.half_stencil import HalfStencil
from solvers.recognise import sides
from solvers.row_sums import RowSums
from solvers.stencil import StencilOperator

_SAMPLE = 400  # rows whose entries give the distances
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
    rows = _sampled(A.shape[0])
    distances, often = _distances(A.indptr, A.indices, A.data, rows)
    return sorted(distances[often >= _USUAL * rows.size].tolist())


@lru_cache(maxsize=64)
def _sampled(n: int) -> np.ndarray:
    """Numbers of rows, evenly spread but not regularly: that could meet the same column of the grid again and again."""
    count = min(_SAMPLE, n)
    return np.minimum(np.arange(count) * n // count + np.arange(count) % 7, n - 1)


@njit(cache=True, nogil=True)
def _distances(indptr, indices, data, rows):  # type: ignore[no-untyped-def]
    """Column minus row of the entries above the diagonal in some rows, and how often each occurs.

    There is room for several times as many as a stencil has, its seams included.
    """
    found, often, count = np.empty(200, dtype=np.int64), np.zeros(200, dtype=np.int64), 0
    for row in rows:
        for k in range(indptr[row], indptr[row + 1]):
            distance = indices[k] - row
            if distance > 0 and data[k] != 0:
                place = 0
                while place < count and found[place] != distance:
                    place += 1
                if place < found.size:
                    found[place] = distance
                    often[place] += 1
                    count = max(count, place + 1)
    return found[:count], often[:count]


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


@lru_cache(maxsize=64)
def _tables(grid: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The shape, and the same as arrays."""
    around, shifts = _neighbours(grid)
    return np.array(grid), np.array(around), np.array(shifts)


def _fill(A: Any, grid: tuple[int, ...], distances: list[int]) -> StencilOperator | None:
    """The operator on this grid, or None if an entry does not fit."""
    around, shifts = _neighbours(grid)
    if len(set(shifts)) < len(around):
        return None  # one or two points wide: what is a step and what a seam cannot be told
    if A.dtype == np.float64:
        found = _fill_half(A, grid, distances)
        if found is not None:
            return found
    matrix, n = (A.indptr, A.indices, A.data), A.shape[0]
    expected = [abs(shift) in (0, *distances) for shift in shifts]
    # If other offsets occur, which is rare, once more with room for all.
    for room in (expected, [True] * len(around)):
        slots = np.where(room, np.cumsum(room) - 1, -1)
        used, wraps = np.zeros(len(around), dtype=np.bool_), np.zeros(len(grid), dtype=np.int64)
        fields, facts = np.empty(sum(room) * n, dtype=A.dtype), np.zeros(3)
        outcome = collect(matrix, *_tables(grid), slots, used, wraps, fields, facts)
        if outcome != NO_ROOM:
            break
    if outcome == NO_STENCIL:
        return None
    if not np.array_equal(used, room):
        fields = fields.reshape(-1, n)[slots[used]]
    fields.shape = (-1, *grid)  # in place: the operator takes over what owns its memory and is frozen
    fields.flags.writeable = False
    found = StencilOperator(
        [offset for offset, is_used in zip(around, used, strict=True) if is_used],
        fields,
        shape=grid,
        spacing=1.0,
        boundary=sides(fields, wraps),
        centring="node",
    )
    found.row_sums = RowSums.from_facts(facts)  # a cached property, known already
    return found


def _fill_half(A: Any, grid: tuple[int, ...], distances: list[int]) -> StencilOperator | None:
    """The operator with half of its coefficients, if A is symmetric bit by bit and no axis is periodic."""
    around, shifts = _neighbours(grid)
    middle = len(around) // 2
    ahead = [k for k in range(middle + 1, len(around)) if shifts[k] in distances]
    if not ahead or min(shifts[k] for k in ahead) <= 0:
        return None
    n, links = A.shape[0], len(ahead)
    slots = np.full(len(around), -1)
    slots[middle] = 0
    for place, k in enumerate(ahead, start=1):
        slots[k], slots[len(around) - 1 - k] = place, place + links
    used, wraps, facts = np.zeros(len(around), dtype=np.bool_), np.zeros(len(grid), dtype=np.int64), np.zeros(3)
    fields, ahead_by = np.empty((1 + links) * n + links * grid[-1]), np.array([shifts[k] for k in ahead])
    matrix = (A.indptr, A.indices, A.data)
    outcome = collect_half(matrix, *_tables(grid), slots, used, wraps, ahead_by, fields, facts)
    if outcome != FITS or np.count_nonzero(used) < 1 + 2 * links:
        return None
    fields.flags.writeable = False
    kept = fields[: (1 + links) * n].reshape(-1, n)
    half = HalfStencil(kept, 0, {around[k]: (place, shifts[k]) for place, k in enumerate(ahead, start=1)})
    found = StencilOperator.from_half(half, grid)
    found.row_sums = RowSums.from_facts(facts)
    return found
