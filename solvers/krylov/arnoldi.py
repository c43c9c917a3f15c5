"""What GMRES and its relatives share: orthogonalisation, and the small least-squares problem of a cycle."""

from math import hypot

import numpy as np
from numba import njit
from scipy.linalg.lapack import get_lapack_funcs

from solvers.system import norm as euclidean_norm


def small_dtype(dtype: np.dtype) -> np.dtype:
    """Double precision for the small matrices of a cycle, whatever the dtype of the vectors."""
    return np.dtype(np.complex128 if dtype.kind == "c" else np.float64)


def orthogonalise(w: np.ndarray, V: np.ndarray) -> tuple[np.ndarray, float]:
    """Make w orthogonal to the rows of V in place; the coefficients, and the norm of what is left.

    Classical Gram-Schmidt, twice: as orthogonal as Householder's, and two matrix products instead of j vectors.

    Examples
    --------
    >>> w = np.array([3.0, 4.0])
    >>> orthogonalise(w, np.array([[1.0, 0.0]]))
    (array([3.]), 4.0)
    >>> w
    array([0., 4.])
    """
    first = _project_out(w, V)
    again = _project_out(w, V)
    return np.add(first, again, dtype=small_dtype(w.dtype)), euclidean_norm(w)


def _project_out(w: np.ndarray, V: np.ndarray) -> np.ndarray:
    """One pass of it; a complex V is not conjugated, which would copy it, but w is."""
    h = V @ w if w.dtype.kind == "f" else (V @ w.conj()).conj()
    w -= h @ V
    return h


class LeastSquares:
    r"""The problem :math:`\min_y \|g - \bar H y\|_2` of one cycle, its columns arriving one by one.

    Column j of :math:`\bar H` has j + 2 entries, except that the first k columns may be full to row k (the block that
    a deflated restart begins with). That block is made triangular by a QR factorisation, each later column by the
    rotations of those before it and one more.

    Parameters
    ----------
    g : ndarray, shape (columns + 1,)
        Right-hand side.
    block : ndarray, shape (k + 1, k), optional
        The first k columns.

    Attributes
    ----------
    H : ndarray, shape (columns + 1, columns)
        What has been added so far.
    count : int
        Columns so far.

    Examples
    --------
    >>> problem = LeastSquares(np.array([2.0, 0.0, 0.0]))
    >>> problem.add(np.array([1.0]), 1.0)  # the norm of what the first column leaves of g
    1.414...
    >>> problem.add(np.array([0.0, 1.0]), 1.0)
    1.154...
    >>> np.linalg.norm(np.array([2.0, 0, 0]) - problem.H @ problem.solution())
    np.float64(1.154...)
    """

    def __init__(self, g: np.ndarray, block: np.ndarray | None = None) -> None:
        columns = len(g) - 1
        self.H = np.zeros((columns + 1, columns), dtype=g.dtype)
        self._R = np.zeros((columns, columns), dtype=g.dtype)
        self._g = g.copy()
        self._cosines, self._sines = np.zeros(columns), np.zeros(columns, dtype=g.dtype)
        self._first = self.count = 0 if block is None else block.shape[1]
        if block is not None:
            k = self._first
            self._Q = np.linalg.qr(block, mode="complete")[0]
            self.H[: k + 1, :k] = block
            self._R[:k, :k] = (self._Q.conj().T @ block)[:k]
            self._g[: k + 1] = self._Q.conj().T @ self._g[: k + 1]

    def add(self, h: np.ndarray, rest: float) -> float:
        """Append the column ``(h, rest)``; the norm of the residual that is left."""
        j, k = self.count, self._first
        column = np.empty(j + 2, dtype=self.H.dtype)
        column[:-1], column[-1] = h, rest
        self.H[: j + 2, j] = column
        if k:
            column[: k + 1] = self._Q.conj().T @ column[: k + 1]
        self.count = j + 1
        return float(_append(column, self._R, self._g, self._cosines, self._sines, k, j))

    def solution(self) -> np.ndarray:
        """The minimiser y, shape (count,); the shortest one where the columns are dependent."""
        if not self.count:
            return np.zeros(0, dtype=self._g.dtype)
        R, g = self._R[: self.count, : self.count], self._g[: self.count]
        trcon, trtrs = get_lapack_funcs(("trcon", "trtrs"), (R,))
        if trcon(R)[0] > self.count * np.finfo(R.dtype).eps:
            return trtrs(R, g)[0]
        # Least squares where R is singular: the shortest y, not infinity.
        return np.linalg.lstsq(R, g, rcond=None)[0]


@njit(cache=True, nogil=True)
def _append(column, R, g, cosines, sines, first, j):  # type: ignore[no-untyped-def]
    """Givens rotations first to j - 1 on a new column, and one more that makes it triangular; what is left of g."""
    for i in range(first, j):
        c, s, upper, lower = cosines[i], sines[i], column[i], column[i + 1]
        column[i] = c * upper + s * lower
        column[i + 1] = c * lower - np.conj(s) * upper
    pivot, size, rest = column[j], abs(column[j]), abs(column[j + 1])
    radius = hypot(size, rest)
    c, s = 1.0, pivot * 0
    if radius > 0:
        c, s = size / radius, (pivot / size if size > 0 else pivot * 0 + 1) * (rest / radius)
    cosines[j], sines[j] = c, s
    for i in range(j):
        R[i, j] = column[i]
    R[j, j] = c * pivot + s * rest
    g[j], g[j + 1] = c * g[j], -np.conj(s) * g[j]
    return abs(g[j + 1])
