r"""Two triangular solves as one operator: what SSOR and incomplete factors have in common.

.. math:: M = (I + U)^{-1} S \, (I + L)^{-1}

with L strictly lower, U strictly upper, both on the pattern of one CSR matrix, and S diagonal.

What makes a substitution fast is the order inside a row: the unknown found last is used last and stays in a register,
so that the chain from row to row is one multiplication and one subtraction. The indices are unsigned, which spares the
test for negative ones.
"""

import numpy as np
import scipy.sparse as sp
from numba import njit

from solvers.system import System


@njit(cache=True, nogil=True, fastmath={"contract"})
def _forward(indptr, diagonal, indices, data, r, y):  # type: ignore[no-untyped-def]
    """y = (I + L)^-1 r."""
    one = indptr[0] + indptr.dtype.type(1)
    previous = y.dtype.type(0)  # y[i - 1]; not y[0] * 0, which may be NaN before y is written
    for i in range(indptr.dtype.type(r.size)):
        start, stop = indptr[i], diagonal[i]
        left = y.dtype.type(0)
        if stop > start and indices[stop - one] + one == i:
            stop -= one
            left = data[stop]
        value = r[i]
        for k in range(start, stop):
            value -= data[k] * y[indices[k]]
        previous = value - left * previous
        y[i] = previous


@njit(cache=True, nogil=True, fastmath={"contract"})
def _scaled_backward(indptr, diagonal, indices, data, scale, z):  # type: ignore[no-untyped-def]
    """z = (I + U)^-1 S z in place."""
    one = indptr[0] + indptr.dtype.type(1)
    following = z.dtype.type(0)  # z[i + 1]
    for j in range(indptr.dtype.type(z.size)):
        i = indptr.dtype.type(z.size) - one - j
        start, stop = diagonal[i] + one, indptr[i + one]
        right = z.dtype.type(0)
        if stop > start and indices[start] == i + one:
            right = data[start]
            start += one
        value = scale[i] * z[i]
        for k in range(start, stop):
            value -= data[k] * z[indices[k]]
        following = value - right * following
        z[i] = following


def pattern_of(system: System, name: str) -> tuple[sp.csr_array, np.ndarray, np.ndarray]:
    """A copy of A with sorted rows and without duplicates, the places of its diagonal in ``data``, and the diagonal.

    Raises
    ------
    ValueError
        If A does not show its entries, or has a zero on its diagonal; `name` is the preconditioner that needs them.
    """
    if system.matrix is None:
        raise ValueError(
            f"A: {name} needs its entries, and {type(system.original).__name__} shows none; give a matrix or a "
            "StencilOperator, or choose another preconditioner"
        )
    pattern = sp.csr_array(system.matrix, copy=True)
    pattern.sum_duplicates()
    places = np.empty(pattern.shape[0], dtype=pattern.indices.dtype)
    missing = _find_diagonal(pattern.indptr, pattern.indices, pattern.data, places)
    if missing >= 0:
        raise ValueError(
            f"A: has zeros on its diagonal, the first in row {missing}, and {name} divides by it; choose another "
            "preconditioner"
        )
    return pattern, places, pattern.data[places]


@njit(cache=True, nogil=True)
def _find_diagonal(indptr, indices, data, places):  # type: ignore[no-untyped-def]
    """Where the diagonal entries lie; the first row without one that is not zero, or -1."""
    for i in range(places.size):
        places[i] = -1
        for k in range(indptr[i], indptr[i + 1]):
            if indices[k] == i and data[k] != 0:
                places[i] = k
        if places[i] < 0:
            return i
    return -1


class TriangularPair:
    """``M = (I + U)^-1 S (I + L)^-1``.

    Parameters
    ----------
    pattern : csr_array, shape (n, n)
        Sorted rows without duplicates; its data are taken over: L below the diagonal, U above it.
    places : ndarray of int, shape (n,)
        Where the diagonal entries lie in its data; their values are not used.
    scale : ndarray, shape (n,)
        The diagonal of S.

    Examples
    --------
    >>> pattern = sp.csr_array([[1.0, 0.5], [0.25, 1.0]])
    >>> pair = TriangularPair(pattern, np.array([0, 3]), np.array([2.0, 1.0]))
    >>> pair.matvec(np.array([4.0, 3.0]))  # y = (4, 2), S y = (8, 2)
    array([7., 2.])
    """

    def __init__(self, pattern: sp.csr_array, places: np.ndarray, scale: np.ndarray) -> None:
        unsigned = np.uint32 if pattern.indices.dtype.itemsize == 4 else np.uint64
        self._pattern, self._places = pattern, places
        self._indptr, self._indices = pattern.indptr.view(unsigned), pattern.indices.view(unsigned)
        self._diagonal, self._data, self.scale = places.astype(unsigned), pattern.data, scale
        self._adjoint: TriangularPair | None = None

    @property
    def entries(self) -> int:
        """Stored numbers."""
        return int(self._data.size + self.scale.size)

    def matvec(self, r: np.ndarray) -> np.ndarray:
        """M r, shape (n,); a fresh array."""
        z = np.empty(self.scale.size, dtype=self._data.dtype)
        _forward(self._indptr, self._diagonal, self._indices, self._data, np.ascontiguousarray(r, z.dtype), z)
        _scaled_backward(self._indptr, self._diagonal, self._indices, self._data, self.scale, z)
        return z

    def rmatvec(self, r: np.ndarray) -> np.ndarray:
        """M' r, the same with L and U exchanged by transposition; made when first asked for."""
        if self._adjoint is None:
            # A transpose of sorted rows has sorted rows.
            transpose = sp.csr_array(self._pattern.conj().T)
            rows = np.repeat(np.arange(transpose.shape[0]), np.diff(transpose.indptr))
            places = np.flatnonzero(transpose.indices == rows)
            self._adjoint = TriangularPair(transpose, places, self.scale.conj())
        return self._adjoint.matvec(r)
