"""Red-black Gauss-Seidel and SOR sweeps over a structured grid, the two colours stored apart.

A point is red if the sum of its indices is even. With couplings between direct neighbours only, red points see only
black ones: a half-sweep over one colour has no order, and compiles to vector instructions as soon as the points of a
colour lie side by side in memory. Along the last axis, the point j of colour q sits at j // 2; its neighbours in other
rows then have the same place in the other array, those in its own row the same and the one before or after.

Source: L. M. Adams and J. M. Ortega, A multi-color SOR method for parallel computation, ICPP (1982); the colours have
the eigenvalues of SOR in natural order for consistently ordered matrices (Young 1971, chapter 5).
"""

from math import prod

import numpy as np
from numba import njit

from solvers.stencil import StencilOperator

_FAST = {"contract", "reassoc", "nsz"}  # sums may be taken in any order: without that no sum is vectorised


@njit(cache=True, nogil=True, fastmath=_FAST)
def _relax(own, other, b, c, omega, row, strides, q, width, rest):  # type: ignore[no-untyped-def]
    """Relax the points of one colour in one row, coefficients varying; the squared norm of their residuals before.

    ``c[k]`` holds the coefficients of the point itself, its west and east neighbour, and of those before and after
    along each leading axis. The arrays of unknowns have a border of zeros.
    """
    u, w = own[row, 1 : width + 1], b[row]
    west, east = other[row, q : q + width], other[row, q + 1 : q + 1 + width]
    centre, c_west, c_east = c[0, row], c[1, row], c[2, row]
    before, after = other[row - strides[0], 1 : width + 1], other[row + strides[0], 1 : width + 1]
    c_before, c_after = c[3, row], c[4, row]
    total = 0.0
    if strides.size == 1:
        for k in range(width):
            r = w[k] - centre[k] * u[k] - c_west[k] * west[k] - c_east[k] * east[k]
            r -= c_before[k] * before[k] + c_after[k] * after[k]
            total += r * r
            u[k] += omega * r / centre[k]
        return total
    for k in range(width):
        r = w[k] - centre[k] * u[k] - c_west[k] * west[k] - c_east[k] * east[k]
        rest[k] = r - c_before[k] * before[k] - c_after[k] * after[k]
    for axis in range(1, strides.size):
        before, after = other[row - strides[axis], 1 : width + 1], other[row + strides[axis], 1 : width + 1]
        c_before, c_after = c[3 + 2 * axis, row], c[4 + 2 * axis, row]
        for k in range(width):
            rest[k] -= c_before[k] * before[k] + c_after[k] * after[k]
    for k in range(width):
        r = rest[k]
        total += r * r
        u[k] += omega * r / centre[k]
    return total


@njit(cache=True, nogil=True, fastmath=_FAST)
def _relax_constant(own, other, b, c, omega, row, strides, q, width, rest):  # type: ignore[no-untyped-def]
    """The same with one coefficient for all points and one for each axis; where a side has no neighbour, the border of
    zeros stands for it."""
    u, w = own[row, 1 : width + 1], b[row]
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


def _sweeps_with(relax):  # type: ignore[no-untyped-def]
    """A whole sweep: the black points of a slab follow as soon as the red ones of the next slab are done, so that all
    arrays go through the cache once."""

    @njit(cache=True, nogil=True, fastmath=_FAST)
    def sweep(red, black, b_red, b_black, c_red, c_black, omega, slabs, parity, strides, columns):  # type: ignore[no-untyped-def]
        rest = np.empty(red.shape[1], dtype=red.dtype)
        red_total, black_total = 0.0, 0.0
        for i in range(slabs.shape[0] + 1):
            if i < slabs.shape[0]:
                for row in slabs[i]:
                    q = parity[row]
                    width = (columns - q + 1) // 2
                    red_total += relax(red, black, b_red, c_red, omega, row, strides, q, width, rest)
            if i > 0:
                for row in slabs[i - 1]:
                    q = 1 - parity[row]
                    width = (columns - q + 1) // 2
                    black_total += relax(black, red, b_black, c_black, omega, row, strides, q, width, rest)
        return red_total, black_total

    return sweep


@njit(cache=True, nogil=True)
def _split(field, rows, parity, red, black):  # type: ignore[no-untyped-def]
    """Copy the points of each colour side by side; row i of the field goes to row ``rows[i]``."""
    for i in range(rows.size):
        row = rows[i]
        q = parity[row]
        for k in range((field.shape[1] - q + 1) // 2):
            red[row, k] = field[i, 2 * k + q]
        for k in range((field.shape[1] + q) // 2):
            black[row, k] = field[i, 2 * k + 1 - q]


@njit(cache=True, nogil=True)
def _merge(field, rows, parity, red, black):  # type: ignore[no-untyped-def]
    """The inverse of `_split`, for arrays with a border."""
    for i in range(rows.size):
        row = rows[i]
        q = parity[row]
        for k in range((field.shape[1] - q + 1) // 2):
            field[i, 2 * k + q] = red[row, k + 1]
        for k in range((field.shape[1] + q) // 2):
            field[i, 2 * k + 1 - q] = black[row, k + 1]


_sweep_varying = _sweeps_with(_relax)
_sweep_constant = _sweeps_with(_relax_constant)


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
    constant : bool
        All coefficients are constant over the grid, and equal on both sides of a point: d + 1 numbers are kept.
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
        fields = self._in_order(A)
        flat = fields[0].reshape(-1)
        self.zero_row = None if flat.all() else int(np.argmin(flat != 0))
        values = [self._constant_value(field, k) for k, field in enumerate(fields)]
        self.constant = None not in values and values[1::2] == values[2::2]
        if self.constant:
            self.red = self.black = np.array(values[:1] + values[1::2], dtype=A.dtype)
        else:
            self.red, self.black = (np.stack(parts) for parts in zip(*map(self.split, fields), strict=True))

    def _in_order(self, A: StencilOperator) -> list[np.ndarray]:
        """Coefficient fields of the point, its west and east neighbours, and those along each leading axis."""
        axes = len(A.grid_shape)
        units = [tuple(step * (axis == other) for other in range(axes)) for axis in range(axes) for step in (-1, 1)]
        order = [(0,) * axes, *units[-2:], *units[:-2]]
        known = dict(zip(A.offsets, A.coefficients, strict=True))
        nothing = np.zeros(A.grid_shape, dtype=A.dtype)
        fields = [known.get(offset, nothing).reshape(self.grid_shape) for offset in order]
        return fields + [nothing.reshape(self.grid_shape)] * (2 if axes == 1 else 0)

    def _constant_value(self, field: np.ndarray, k: int) -> float | None:
        """The one value of a coefficient where its neighbour is on the grid; None if there are several."""
        inside = [slice(None)] * field.ndim
        if k:
            axis = field.ndim - 1 if k < 3 else (k - 3) // 2
            inside[axis] = slice(1, None) if k % 2 else slice(None, -1)
        values = field[tuple(inside)]
        if not values.size:
            return 0.0
        return float(values.flat[0]) if np.all(values == values.flat[0]) else None

    def split(self, field: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The red and the black points of a field, each (padded rows, half of the columns); zero where none is."""
        red, black = np.zeros((2, self.parity.size, (self.grid_shape[-1] + 1) // 2), dtype=field.dtype)
        rows = np.ascontiguousarray(field).reshape(-1, self.grid_shape[-1])
        _split(rows, self.slabs.reshape(-1), self.parity, red, black)
        return red, black

    def merge(self, red: np.ndarray, black: np.ndarray) -> np.ndarray:
        """The vector ``(n,)`` whose colours are these, each with its border."""
        field = np.empty((self.slabs.size, self.grid_shape[-1]), dtype=red.dtype)
        _merge(field, self.slabs.reshape(-1), self.parity, red, black)
        return field.reshape(-1)

    def start(self, b: np.ndarray) -> "RedBlackSweeps":
        """Sweeps on ``A x = b`` from zero."""
        return RedBlackSweeps(self, b)


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
        rows, width = self._b[0].shape
        self._red, self._black = (np.zeros((rows, width + 2), dtype=b.dtype) for _ in range(2))
        self._left_black = float(np.sum(np.abs(self._b[1]) ** 2))

    def sweep(self, omega: float) -> float:
        """One sweep; the squared norm of the residual before it.

        The residuals of the red points are those that the sweep itself meets. Those of the black ones were left by the
        sweep before, at 1 - omega times what it met, since no red point has changed between.
        """
        grid = self._grid
        run = _sweep_constant if grid.constant else _sweep_varying
        factor = self._red.real.dtype.type(omega)
        red, black = run(
            self._red, self._black, *self._b, grid.red, grid.black, factor,
            grid.slabs, grid.parity, grid.strides, grid.grid_shape[-1],
        )  # fmt: skip
        before = red + self._left_black
        self._left_black = (1.0 - omega) ** 2 * black
        return before

    def solution(self) -> np.ndarray:
        """The iterate, shape (n,)."""
        return self._grid.merge(self._red, self._black)
