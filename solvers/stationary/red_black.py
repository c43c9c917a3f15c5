"""Red-black Gauss-Seidel and SOR sweeps over a structured grid, the two colours stored apart.

A point is red if the sum of its indices is even. With couplings between direct neighbours only, red points see only
black ones: a half-sweep over one colour has no order, and compiles to vector instructions as soon as the points of a
colour lie side by side in memory. Along the last axis, the point j of colour q sits at j // 2; its neighbours in other
rows then have the same place in the other array, those in its own row the same and the one before or after.

A coefficient that couples a point to the one behind it is stored with the latter, which has the other colour. Of a
symmetric operator that is the array of the couplings ahead of that colour: one array serves both, and a sweep moves the
diagonal and d links, b, and the unknowns there and back, 8 (d + 4) bytes a point; with 2 d links 8 (2 d + 4).

Source: L. M. Adams and J. M. Ortega, A multi-color SOR method for parallel computation, ICPP (1982); the colours have
the eigenvalues of SOR in natural order for consistently ordered matrices (Young 1971, chapter 5).
"""

from math import prod

import numpy as np
from numba import njit

from solvers.stencil import StencilOperator

_FAST = {"contract", "reassoc", "nsz"}  # sums may be taken in any order: without that no sum is vectorised


@njit(cache=True, nogil=True, fastmath=_FAST)
def _relax(own, other, b, centre, ahead, behind, omega, row, strides, q, width, rest):  # type: ignore[no-untyped-def]
    """Relax the points of one colour in one row, coefficients varying; the squared norm of their residuals before.

    ``ahead[a]`` lies with these points, ``behind[a]`` with their neighbours; a = 0 is the last axis, then come the
    leading ones. All arrays have a border of zeros.
    """
    u, w, diagonal = own[row, 1 : width + 1], b[row, 1 : width + 1], centre[row, 1 : width + 1]
    west, east = other[row, q : q + width], other[row, q + 1 : q + 1 + width]
    to_west, to_east = behind[0, row, q : q + width], ahead[0, row, 1 : width + 1]
    up, down = row - strides[0], row + strides[0]
    before, after = other[up, 1 : width + 1], other[down, 1 : width + 1]
    to_before, to_after = behind[1, up, 1 : width + 1], ahead[1, row, 1 : width + 1]
    total = 0.0
    if strides.size == 1:
        for k in range(width):
            r = w[k] - diagonal[k] * u[k] - to_west[k] * west[k] - to_east[k] * east[k]
            r -= to_before[k] * before[k] + to_after[k] * after[k]
            total += r * r
            u[k] += omega * r / diagonal[k]
        return total
    for k in range(width):
        r = w[k] - diagonal[k] * u[k] - to_west[k] * west[k] - to_east[k] * east[k]
        rest[k] = r - to_before[k] * before[k] - to_after[k] * after[k]
    for axis in range(1, strides.size):
        up, down = row - strides[axis], row + strides[axis]
        before, after = other[up, 1 : width + 1], other[down, 1 : width + 1]
        to_before, to_after = behind[axis + 1, up, 1 : width + 1], ahead[axis + 1, row, 1 : width + 1]
        for k in range(width):
            rest[k] -= to_before[k] * before[k] + to_after[k] * after[k]
    for k in range(width):
        r = rest[k]
        total += r * r
        u[k] += omega * r / diagonal[k]
    return total


@njit(cache=True, nogil=True, fastmath=_FAST)
def _relax_constant(own, other, b, c, omega, row, strides, q, width, rest):  # type: ignore[no-untyped-def]
    """The same with one coefficient for all points and one for each axis; where a side has no neighbour, the border of
    zeros stands for it."""
    u, w = own[row, 1 : width + 1], b[row, 1 : width + 1]
    west, east = other[row, q : q + width], other[row, q + 1 : q + 1 + width]
    centre, along, across = c[0], c[1], c[2]
    before, after = other[row - strides[0], 1 : width + 1], other[row + strides[0], 1 : width + 1]
    scale = omega / centre
    total = 0.0
    if strides.size == 1:
        for k in range(width):
            r = w[k] - centre * u[k] - along * (west[k] + east[k]) - across * (before[k] + after[k])
            total += r * r
            u[k] += scale * r
        return total
    for k in range(width):
        rest[k] = w[k] - centre * u[k] - along * (west[k] + east[k]) - across * (before[k] + after[k])
    for axis in range(1, strides.size):
        before, after = other[row - strides[axis], 1 : width + 1], other[row + strides[axis], 1 : width + 1]
        for k in range(width):
            rest[k] -= c[2 + axis] * (before[k] + after[k])
    for k in range(width):
        r = rest[k]
        total += r * r
        u[k] += scale * r
    return total


# A whole sweep: the black points of a slab follow as soon as the red ones of the next slab are done, so that all arrays
# go through the cache once.


@njit(cache=True, nogil=True, fastmath=_FAST)
def _sweep_varying(red, black, b, centre, ahead, behind, omega, slabs, parity, strides, columns):  # type: ignore[no-untyped-def]
    rest = np.empty(red.shape[1], dtype=red.dtype)
    of_red, of_black = 0.0, 0.0
    for i in range(slabs.shape[0] + 1):
        if i < slabs.shape[0]:
            for row in slabs[i]:
                q = parity[row]
                n = (columns - q + 1) // 2
                of_red += _relax(
                    red, black, b[0], centre[0], ahead[0], behind[1], omega, row, strides, q, n, rest
                )  # fmt: skip
        if i > 0:
            for row in slabs[i - 1]:
                q = 1 - parity[row]
                n = (columns - q + 1) // 2
                of_black += _relax(
                    black, red, b[1], centre[1], ahead[1], behind[0], omega, row, strides, q, n, rest
                )  # fmt: skip
    return of_red, of_black


@njit(cache=True, nogil=True, fastmath=_FAST)
def _sweep_constant(red, black, b, c, omega, slabs, parity, strides, columns):  # type: ignore[no-untyped-def]
    rest = np.empty(red.shape[1], dtype=red.dtype)
    of_red, of_black = 0.0, 0.0
    for i in range(slabs.shape[0] + 1):
        if i < slabs.shape[0]:
            for row in slabs[i]:
                q = parity[row]
                of_red += _relax_constant(red, black, b[0], c, omega, row, strides, q, (columns - q + 1) // 2, rest)
        if i > 0:
            for row in slabs[i - 1]:
                q = 1 - parity[row]
                of_black += _relax_constant(black, red, b[1], c, omega, row, strides, q, (columns - q + 1) // 2, rest)
    return of_red, of_black


@njit(cache=True, nogil=True)
def _split(field, rows, parity, colours):  # type: ignore[no-untyped-def]
    """Copy the points of each colour side by side, inside the border; row i of the field goes to row ``rows[i]``."""
    for i in range(rows.size):
        row = rows[i]
        q = parity[row]
        red, black = colours[0, row], colours[1, row]
        for k in range((field.shape[1] - q + 1) // 2):
            red[k + 1] = field[i, 2 * k + q]
        for k in range((field.shape[1] + q) // 2):
            black[k + 1] = field[i, 2 * k + 1 - q]


@njit(cache=True, nogil=True)
def _merge(field, rows, parity, colours):  # type: ignore[no-untyped-def]
    """The inverse of `_split`."""
    for i in range(rows.size):
        row = rows[i]
        q = parity[row]
        red, black = colours[0, row], colours[1, row]
        for k in range((field.shape[1] - q + 1) // 2):
            field[i, 2 * k + q] = red[k + 1]
        for k in range((field.shape[1] + q) // 2):
            field[i, 2 * k + 1 - q] = black[k + 1]


def is_two_coloured(A: StencilOperator) -> bool:
    """Real, every coupling is between direct neighbours, all points are unknowns, and no axis wraps around."""
    direct = all(sum(abs(step) for step in offset) <= 1 for offset in A.offsets)
    return direct and A.dtype.kind == "f" and A.mask is None and not any(A.periodic)


class RedBlack:
    """A stencil with the coefficients of the two colours stored apart.

    Parameters
    ----------
    A : StencilOperator
        For which `is_two_coloured` holds.

    Attributes
    ----------
    constant : ndarray, shape (d + 1,), or None
        The coefficient of a point itself and those of its neighbours along the last and then the leading axes, if they
        are constant over the grid and equal on both sides.
    zero_row : int or None
        The first row with a zero on the diagonal.
    """

    def __init__(self, A: StencilOperator) -> None:
        # A grid of one axis is one row of a grid of two.
        self.grid_shape = A.grid_shape if len(A.grid_shape) > 1 else (1, *A.grid_shape)
        leading = self.grid_shape[:-1]
        padded = tuple(size + 2 for size in leading)
        rows = np.arange(prod(padded)).reshape(padded)
        self.slabs = np.ascontiguousarray(rows[(slice(1, -1),) * len(leading)].reshape(leading[0], -1))
        inner = np.indices(padded).sum(axis=0) - len(leading)  # the index sum of the points inside, border taken off
        self.parity = (inner % 2).reshape(-1).astype(np.int64)
        self.strides = np.array([prod(padded[axis + 1 :]) for axis in range(len(leading))], dtype=np.int64)
        dimensions = len(A.grid_shape)
        known = dict(zip(A.offsets, A.coefficients, strict=True))
        nothing = np.zeros(1, dtype=A.dtype)

        def field(axis: int, step: int) -> np.ndarray:
            offset = tuple(step * (axis == other) for other in range(dimensions))
            return np.broadcast_to(known.get(offset, nothing), A.grid_shape)

        axes = [dimensions - 1, *range(dimensions - 1)]
        diagonal = field(0, 0)
        self.zero_row = None if diagonal.all() else int(np.argmin(diagonal.reshape(-1) != 0))
        values = [_constant_value(diagonal)]
        for axis in axes:
            if values[-1] is not None:
                sides = [_constant_value(np.moveaxis(field(axis, step), axis, 0)[_INSIDE[step]]) for step in (-1, 1)]
                values.append(sides[0] if sides[0] == sides[1] else None)
        self.constant: np.ndarray | None = None
        if values[-1] is not None:
            self.constant = np.array(values + [0.0] * (dimensions == 1), dtype=A.dtype)
            return
        self._centre = self.split(diagonal)
        # One for each colour and axis, a second leading axis where there is only one
        self._ahead = np.zeros((2, max(dimensions, 2), *self._centre.shape[1:]), dtype=A.dtype)
        self._behind = self._ahead if A.half is not None else np.zeros_like(self._ahead)
        for place, axis in enumerate(axes):
            self.split(field(axis, 1), self._ahead[:, place])
            if self._behind is not self._ahead:
                moved = np.zeros(A.grid_shape, dtype=A.dtype)
                np.moveaxis(moved, axis, 0)[:-1] = np.moveaxis(field(axis, -1), axis, 0)[1:]
                self.split(moved, self._behind[:, place])

    def split(self, field: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """The red and the black points of a field: (2, padded rows, half of the columns and a border of zeros)."""
        columns = self.grid_shape[-1]
        if out is None:
            out = np.zeros((2, self.parity.size, (columns + 1) // 2 + 2), dtype=field.dtype)
        _split(np.ascontiguousarray(field).reshape(-1, columns), self.slabs.reshape(-1), self.parity, out)
        return out

    def merge(self, colours: np.ndarray) -> np.ndarray:
        """The vector ``(n,)`` whose colours these are."""
        field = np.empty((self.slabs.size, self.grid_shape[-1]), dtype=colours.dtype)
        _merge(field, self.slabs.reshape(-1), self.parity, colours)
        return field.reshape(-1)

    def sweep(self, x: np.ndarray, b: np.ndarray, omega: float) -> tuple[float, float]:
        """Relax x in place; the squared norms of the residuals that were met, of the red and of the black points."""
        factor = x.dtype.type(omega)
        grid = (self.slabs, self.parity, self.strides, self.grid_shape[-1])
        if self.constant is not None:
            return _sweep_constant(x[0], x[1], b, self.constant, factor, *grid)
        return _sweep_varying(x[0], x[1], b, self._centre, self._ahead, self._behind, factor, *grid)

    def start(self, b: np.ndarray) -> "RedBlackSweeps":
        """Sweeps on ``A x = b`` from zero."""
        return RedBlackSweeps(self, b)


_INSIDE = {-1: slice(1, None), 1: slice(None, -1)}  # the points that have a neighbour on this side


def _constant_value(values: np.ndarray) -> float | None:
    """The one value of an array; None if there are several."""
    if not values.size:
        return 0.0
    first = values.flat[0]
    # most often the first points decide
    return float(first) if (values[:1] == first).all() and (values == first).all() else None


class RedBlackSweeps:
    """Sweeps of red-black SOR on ``A x = b`` from x = 0.

    Examples
    --------
    >>> from solvers import gallery
    >>> sweeps = RedBlack(gallery.poisson((3,))).start(np.ones(3))
    >>> sweeps.sweep(1.0)  # the squared norm of the residual at x = 0
    3.0
    >>> sweeps.solution()  # the ends are red and come first
    array([0.5, 1. , 0.5])
    """

    def __init__(self, grid: RedBlack, b: np.ndarray) -> None:
        self._grid = grid
        self._b = grid.split(b.reshape(grid.grid_shape))
        self._x = np.zeros_like(self._b)
        self._left_black = float(np.sum(np.abs(self._b[1]) ** 2))

    def sweep(self, omega: float) -> float:
        """One sweep; the squared norm of the residual before it.

        The residuals of the red points are those that the sweep itself meets. Those of the black ones were left by the
        sweep before, at 1 - omega times what it met, since no red point has changed between.
        """
        red, black = self._grid.sweep(self._x, self._b, omega)
        before = red + self._left_black
        self._left_black = (1.0 - omega) ** 2 * black
        return before

    def solution(self) -> np.ndarray:
        """The iterate, shape (n,)."""
        return self._grid.merge(self._x)
