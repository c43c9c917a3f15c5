"""Tridiagonal systems along the first axis of a field, one for each point of the others, all at once.

Thomas' algorithm: Gaussian elimination without pivoting, stable for definite matrices (N. J. Higham, Accuracy and
Stability of Numerical Algorithms, 2nd ed. (2002), section 9.6). Systems that lie side by side in memory are eliminated
side by side in vector instructions, in blocks that stay in the second-level cache from the way there to the way back.
Pivots are made anew each time, in a block's time in the cache: that is cheaper than to fetch them from memory, where
they would fill a field of their own. A last row that couples to the first is eliminated beforehand, as a border.
"""

import numpy as np
from numba import njit

from solvers.kronecker_sum import Tridiagonal

_BLOCK = 32_768  # numbers of a block: with its pivots 512 KB

_inner = njit(nogil=True, error_model="numpy", fastmath={"contract"}, no_cpython_wrapper=True, no_cfunc_wrapper=True)


@_inner
def _eliminate(diagonal, links, rows, shifts, inverse):  # type: ignore[no-untyped-def]
    """Inverse pivots of T + shift, for each shift a column."""
    for k in range(shifts.size):
        inverse[0, k] = 1.0 / (diagonal[0] + shifts[k])
    for i in range(1, rows):
        row, above, entry, squared = inverse[i], inverse[i - 1], diagonal[i], links[i - 1] * links[i - 1]
        for k in range(shifts.size):
            row[k] = 1.0 / (entry + shifts[k] - squared * above[k])


@_inner
def _substitute(u, inverse, links, rows, lanes):  # type: ignore[no-untyped-def]
    """Forward and back substitution in the first rows and lanes of u."""
    v, pivot = u[0], inverse[0]
    for k in range(lanes):
        v[k] *= pivot[k]
    for i in range(1, rows):
        v, above, pivot, link = u[i], u[i - 1], inverse[i], links[i - 1]
        for k in range(lanes):
            v[k] = (v[k] - link * above[k]) * pivot[k]
    for i in range(rows - 2, -1, -1):
        v, below, pivot, link = u[i], u[i + 1], inverse[i], links[i]
        for k in range(lanes):
            v[k] -= link * pivot[k] * below[k]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _solve(u, diagonal, links, corner, shifts, singular, inverse, border):  # type: ignore[no-untyped-def]
    """Overwrite u, shape (n, lanes), with the solutions; `inverse` and `border` are scratch, shape (n, width)."""
    n, all_lanes = u.shape
    rows = n - 1 if corner != 0 else n  # of the tridiagonal part
    width = inverse.shape[1]
    for start in range(0, all_lanes, width):
        lanes = min(width, all_lanes - start)
        v, last = u[:, start : start + lanes], inverse[n - 1, :lanes]
        _eliminate(diagonal, links, rows, shifts[start : start + lanes], inverse)
        if corner != 0:
            border[:rows, :lanes] = 0
            border[0, :lanes] = corner
            border[rows - 1, :lanes] = links[rows - 1]
            _substitute(border, inverse, links, rows, lanes)
            bottom, link = v[rows], links[rows - 1]
            for i in range(rows):
                w, x = border[i], v[i]
                for k in range(lanes):
                    bottom[k] -= w[k] * x[k]
            for k in range(lanes):
                schur = diagonal[rows] + shifts[start + k] - corner * border[0, k] - link * border[rows - 1, k]
                last[k] = 1.0 / schur
        for j in singular:
            if start <= j < start + lanes:
                last[j - start] = 0.0
        if corner != 0:
            for k in range(lanes):
                bottom[k] *= last[k]
                v[0, k] -= corner * bottom[k]
                v[rows - 1, k] -= link * bottom[k]
        _substitute(v, inverse, links, rows, lanes)


@njit(cache=True, nogil=True, error_model="numpy")
def _pivots(diagonal, links, corner):  # type: ignore[no-untyped-def]
    """The pivots of one matrix, and what is its null vector if the last of them is zero."""
    n = diagonal.size
    rows = n - 1 if corner != 0 else n
    pivots, border, null = diagonal.copy(), np.zeros(n), np.ones(n)
    if corner != 0:  # the last column, down to its own row
        border[0] = corner
        border[rows - 1] += links[rows - 1]
    for i in range(1, rows):
        factor = links[i - 1] / pivots[i - 1]
        pivots[i] -= factor * links[i - 1]
        border[i] -= factor * border[i - 1]
    if corner != 0:
        pivots[rows] -= np.sum(border[:rows] ** 2 / pivots[:rows])
    for i in range(n - 2, -1, -1):
        ahead = border[i]
        if i + 1 < rows:
            ahead += links[i] * null[i + 1]
        null[i] = -ahead / pivots[i]
    return pivots, null


class Lines:
    r"""Solves :math:`(T + \lambda_k I)\, x_k = f_k` for many k, all of them positive definite or semidefinite.

    Of a singular system the solution is :math:`x = (T + \lambda I)^+ f`, the least-squares solution of smallest norm.

    Parameters
    ----------
    T : Tridiagonal, of order n
    shifts : ndarray, shape (lanes,)
        The numbers :math:`\lambda_k`.
    dtype : numpy.dtype
        Of the fields to come; pivots are in double precision.

    Attributes
    ----------
    singular : ndarray of int
        The k of singular systems.

    Raises
    ------
    ValueError
        If one is indefinite.

    Examples
    --------
    >>> T = Tridiagonal(np.array([1.0, 2.0, 1.0]), np.array([-1.0, -1.0]))
    >>> f = np.array([[1.0, 1.0], [0.0, 0.0], [2.0, -1.0]])
    >>> x = Lines(T, np.array([0.5, 0.0]), np.dtype(float)).solve(f.copy())
    >>> (T.toarray() @ x + x * [0.5, 0.0] - f).round(14) + 0.0
    array([[0., 0.],
           [0., 0.],
           [0., 0.]])
    """

    def __init__(self, T: Tridiagonal, shifts: np.ndarray, dtype: np.dtype) -> None:
        n = T.diagonal.size
        self._T = (np.ascontiguousarray(T.diagonal), np.ascontiguousarray(T.links), T.corner)
        self._shifts = shifts
        width = min(max(_BLOCK // n // 8 * 8, 16), shifts.size)
        self._scratch = np.empty((n, width)), np.empty((n if T.corner else 1, width))
        self.singular = np.empty(0, dtype=np.int64)
        # The smallest shift decides. Its last pivot alone may vanish, and carries the rounding of all before it.
        smallest = float(shifts.min())
        pivots, null = _pivots(self._T[0] + smallest, *self._T[1:])
        rounding = 32 * n * np.finfo(float).eps * (float(np.max(np.abs(T.diagonal))) + abs(smallest))
        if not (np.all(pivots[:-1] > 0) and pivots[-1] >= -rounding):
            raise ValueError(f"a pivot is {pivots.min():.3e}")
        self._null = (null / np.linalg.norm(null))[:, None].astype(dtype)
        if pivots[-1] <= rounding:
            self.singular = np.flatnonzero(shifts <= smallest + rounding / n)

    def solve(self, f: np.ndarray) -> np.ndarray:
        """Overwrites f, shape (n, lanes), with x, and returns it."""
        self._project(f)
        _solve(f, *self._T, self._shifts, self.singular, *self._scratch)
        self._project(f)
        return f

    def _project(self, f: np.ndarray) -> None:
        if self.singular.size:
            part = f[:, self.singular]
            f[:, self.singular] = part - self._null * np.sum(self._null * part, axis=0)
