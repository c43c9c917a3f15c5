"""Gauss-Seidel and SOR sweeps over the rows of a sparse matrix, one after the other.

Source: D. M. Young, Iterative Solution of Large Linear Systems (1971), chapter 3.

What makes the sweep fast is the order inside a row. The value of the row before is the last that is used, and never
leaves a register: the chain from row to row is one multiplication and one addition. The other entries are copied once,
those right of the diagonal first, with unsigned indices, which spares the test for negative ones.

A sweep of a five-point matrix moves 100 bytes for each unknown: three entries and their indices (36), the ends of the
row (8), b, the diagonal and the entry before it (24), x and the lower products, there and back (32).
"""

import numpy as np
import scipy.sparse as sp
from numba import njit

_compiled = njit(cache=True, nogil=True, fastmath={"contract"})


@_compiled
def _arrange(indptr, indices, data, ends, split, columns, values, diagonal, before):  # type: ignore[no-untyped-def]
    """Rows in any order, with duplicates or without, to the arrays of `Rows`."""
    place = 0
    for i in range(diagonal.size):
        for k in range(indptr[i], indptr[i + 1]):
            j = indices[k]
            if j == i:
                diagonal[i] += data[k]
            elif j == i - 1:
                before[i] += data[k]
            elif j > i:
                columns[place], values[place] = j, data[k]
                place += 1
        split[i] = place
        for k in range(indptr[i], indptr[i + 1]):
            if indices[k] < i - 1:
                columns[place], values[place] = indices[k], data[k]
                place += 1
        ends[i + 1] = place


@_compiled
def _sweep(ends, split, columns, values, diagonal, before, b, omega, x, lower):  # type: ignore[no-untyped-def]
    """One sweep in place; the squared norm of the residual of x as it was before.

    ``lower`` holds, row by row, the terms left of the diagonal with the x before the sweep, as the sweep before has
    met them: with these the residual costs nothing. It is brought up to date.
    """
    one = ends.dtype.type(1)
    total = 0.0
    previous = x.dtype.type(0)  # x[i - 1]
    for i in range(ends.dtype.type(b.size)):
        rest = b[i] - diagonal[i] * x[i]
        for k in range(ends[i], split[i]):
            rest -= values[k] * x[columns[k]]
        low = x.dtype.type(0)
        for k in range(split[i], ends[i + one]):
            low += values[k] * x[columns[k]]
        residual = rest - lower[i]
        total += residual.real * residual.real + residual.imag * residual.imag
        scale = omega / diagonal[i]
        base = x[i] + scale * (rest - low)
        lower[i] = low + before[i] * previous
        previous = base - (scale * before[i]) * previous
        x[i] = previous
    return total


class Rows:
    """A CSR matrix as the sweeps want it.

    Row i keeps its entries right of the diagonal in the places ``ends[i]`` to ``split[i]``, then those left of it to
    ``ends[i + 1]``, but for the diagonal and the entry before it, which have arrays of their own.

    Parameters
    ----------
    A : csr_array, shape (n, n)
        Its rows may be in any order and hold duplicates.

    Attributes
    ----------
    zero_row : int or None
        The first row with a zero on the diagonal, which no sweep can pass.
    """

    def __init__(self, A: sp.csr_array) -> None:
        n, entries = A.shape[0], A.indices.size
        unsigned = np.uint32 if max(n, entries) < 2**32 else np.uint64
        self.ends, self.split = np.zeros(n + 1, dtype=unsigned), np.empty(n, dtype=unsigned)
        self.columns, self.values = np.empty(entries, dtype=unsigned), np.empty(entries, dtype=A.dtype)
        self.diagonal, self.before = np.zeros(n, dtype=A.dtype), np.zeros(n, dtype=A.dtype)
        _arrange(A.indptr, A.indices, A.data, *self.arrays)
        self.zero_row = None if self.diagonal.all() else int(np.argmax(self.diagonal == 0))

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """What the kernels take."""
        return self.ends, self.split, self.columns, self.values, self.diagonal, self.before

    def start(self, b: np.ndarray) -> "RowSweeps":
        """Sweeps on ``A x = b`` from zero."""
        return RowSweeps(self, b)


class RowSweeps:
    """Sweeps of SOR on ``A x = b`` from x = 0.

    Examples
    --------
    >>> A = Rows(sp.csr_array([[2.0, 1.0], [1.0, 4.0]]))
    >>> sweeps = A.start(np.array([3.0, 5.0]))
    >>> sweeps.sweep(1.0)  # the squared norm of the residual at x = 0
    34.0
    >>> sweeps.solution()
    array([1.5  , 0.875])
    """

    def __init__(self, rows: Rows, b: np.ndarray) -> None:
        self._rows, self._b = rows, b
        self._x, self._lower = np.zeros_like(b), np.zeros_like(b)

    def sweep(self, omega: float) -> float:
        """One sweep; the squared norm of the residual before it."""
        factor = self._b.real.dtype.type(omega)
        return _sweep(*self._rows.arrays, self._b, factor, self._x, self._lower)

    def solution(self) -> np.ndarray:
        """The iterate, shape (n,)."""
        return self._x
