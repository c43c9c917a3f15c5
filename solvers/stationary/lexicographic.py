"""Gauss-Seidel and SOR sweeps over the rows of a sparse matrix, one after the other.

Source: D. M. Young, Iterative Solution of Large Linear Systems (1971), chapter 3.

What makes the sweep fast is the order inside a row. The value of the row before is the last that is used, and never
leaves a register: the chain from row to row is one multiplication and one addition. The indices are unsigned, which
spares the test for negative ones.
"""

import numpy as np
import scipy.sparse as sp
from numba import njit


@njit(cache=True, nogil=True, fastmath={"contract"})
def _sweep(indptr, diagonal, indices, data, b, omega, x, lower):  # type: ignore[no-untyped-def]
    """One sweep in place; the squared norm of the residual of x as it was before.

    ``lower`` holds, row by row, the terms left of the diagonal with the x before the sweep, as the sweep before has
    met them: with these the residual costs nothing. It is brought up to date.
    """
    one = indptr[0] + indptr.dtype.type(1)
    total = 0.0
    previous = x[0] * 0  # x[i - 1]
    for i in range(indptr.dtype.type(b.size)):
        start, pivot = indptr[i], diagonal[i]
        rest = b[i]
        for k in range(pivot + one, indptr[i + one]):
            rest -= data[k] * x[indices[k]]
        rest -= data[pivot] * x[i]
        residual = rest - lower[i]
        total += residual.real * residual.real + residual.imag * residual.imag
        stop = pivot
        left = previous * 0
        if pivot > start and indices[pivot - one] + one == i:
            stop = pivot - one
            left = data[stop]
        low = previous * 0
        for k in range(start, stop):
            low += data[k] * x[indices[k]]
        scale = omega / data[pivot]
        base = x[i] + scale * (rest - low)
        lower[i] = low + left * previous
        previous = base - (scale * left) * previous
        x[i] = previous
    return total


class SortedRows:
    """A CSR matrix as the sweeps want it: sorted rows without duplicates, unsigned indices, the place of each diagonal.

    Parameters
    ----------
    A : csr_array, shape (n, n)

    Attributes
    ----------
    zero_row : int or None
        The first row without a nonzero diagonal entry, which no sweep can pass.
    """

    def __init__(self, A: sp.csr_array) -> None:
        matrix = sp.csr_array(A)
        if not matrix.has_canonical_format:
            matrix = matrix.copy()
            matrix.sum_duplicates()
        rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
        position = np.flatnonzero((matrix.indices == rows) & (matrix.data != 0))
        missing = np.ones(matrix.shape[0], dtype=bool)
        missing[rows[position]] = False
        self.zero_row = int(np.argmax(missing)) if missing.any() else None
        unsigned = np.uint32 if matrix.indices.dtype.itemsize == 4 else np.uint64
        self.indptr = matrix.indptr.view(unsigned)
        self.indices = matrix.indices.view(unsigned)
        self.diagonal = position.astype(unsigned)
        self.data = matrix.data

    def start(self, b: np.ndarray) -> "LexicographicSweeps":
        """Sweeps on ``A x = b`` from zero."""
        return LexicographicSweeps(self, b)


class LexicographicSweeps:
    """Sweeps of SOR on ``A x = b`` from x = 0.

    Examples
    --------
    >>> A = SortedRows(sp.csr_array([[2.0, 1.0], [1.0, 4.0]]))
    >>> sweeps = A.start(np.array([3.0, 5.0]))
    >>> sweeps.sweep(1.0)  # the squared norm of the residual at x = 0
    34.0
    >>> sweeps.solution()
    array([1.5  , 0.875])
    """

    def __init__(self, rows: SortedRows, b: np.ndarray) -> None:
        self._rows, self._b = rows, b
        self._x, self._lower = np.zeros_like(b), np.zeros_like(b)

    def sweep(self, omega: float) -> float:
        """One sweep; the squared norm of the residual before it."""
        rows = self._rows
        omega = self._b.real.dtype.type(omega)
        return _sweep(rows.indptr, rows.diagonal, rows.indices, rows.data, self._b, omega, self._x, self._lower)

    def solution(self) -> np.ndarray:
        """The iterate, shape (n,)."""
        return self._x
