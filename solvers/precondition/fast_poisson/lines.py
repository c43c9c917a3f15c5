"""Tridiagonal systems along the first axis of a field, one for each point of the others, all at once.

Thomas' algorithm: Gaussian elimination without pivoting, stable for definite matrices (N. J. Higham, Accuracy and
Stability of Numerical Algorithms, 2nd ed. (2002), section 9.6). Systems that lie side by side in memory are eliminated
side by side in vector instructions, in blocks that stay in the second-level cache from the way there to the way back.
A last row that couples to the first is eliminated beforehand, as a border.
"""

import numpy as np
from numba import njit

from solvers.kronecker_sum import Tridiagonal

_BLOCK = 40_000  # numbers of a block: with the pivots 640 KB


@njit(cache=True, nogil=True, error_model="numpy")
def _pivots(diagonal, links, shifts, inverse):  # type: ignore[no-untyped-def]
    """Inverse pivots of T + shift for every shift; returns the smallest pivot of all rows but the last."""
    n = diagonal.size
    smallest = np.inf
    for i in range(n):
        row = inverse[i]
        for k in range(shifts.size):
            row[k] = diagonal[i] + shifts[k]
        if i > 0:
            above, squared = inverse[i - 1], links[i - 1] * links[i - 1]
            for k in range(shifts.size):
                row[k] -= squared * above[k]
        if i < n - 1:
            for k in range(shifts.size):
                smallest = min(smallest, row[k])
        for k in range(shifts.size):
            row[k] = 1.0 / row[k]
    return smallest


@njit(cache=True, nogil=True, fastmath={"contract"})
def _solve(u, inverse, links, border, corner):  # type: ignore[no-untyped-def]
    """Overwrite u, shape (n, lanes), with the solutions; `border` is empty unless the last row couples to the first."""
    rows, lanes = u.shape
    around = border.shape[0] > 0
    if around:
        rows -= 1
    width = max(_BLOCK // u.shape[0] // 8 * 8, 16)
    for start in range(0, lanes, width):
        stop = min(start + width, lanes)
        if around:
            last = u[rows, start:stop]
            for i in range(rows):
                w, v = border[i, start:stop], u[i, start:stop]
                for k in range(stop - start):
                    last[k] -= w[k] * v[k]
            scale, first, before = inverse[rows, start:stop], u[0, start:stop], u[rows - 1, start:stop]
            link = links[rows - 1]
            for k in range(stop - start):
                last[k] *= scale[k]
                first[k] -= corner * last[k]
                before[k] -= link * last[k]
        for i in range(rows):
            v, pivot = u[i, start:stop], inverse[i, start:stop]
            if i == 0:
                for k in range(stop - start):
                    v[k] *= pivot[k]
            else:
                link, above = links[i - 1], u[i - 1, start:stop]
                for k in range(stop - start):
                    v[k] = (v[k] - link * above[k]) * pivot[k]
        for i in range(rows - 2, -1, -1):
            v, pivot, link, below = u[i, start:stop], inverse[i, start:stop], links[i], u[i + 1, start:stop]
            for k in range(stop - start):
                v[k] -= link * pivot[k] * below[k]


class Lines:
    r"""Solves :math:`(T + \lambda_k I)\, x_k = f_k` for many k, all of them positive definite or semidefinite.

    Of a singular system the solution is :math:`x = (T + \lambda I)^+ f`, the least-squares solution of smallest norm.

    Parameters
    ----------
    T : Tridiagonal, of order n
    shifts : ndarray, shape (lanes,)
        The numbers :math:`\lambda_k`.
    dtype : numpy.dtype
        Of the fields to come; the factors are made in double precision.

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
        rows = n - 1 if T.corner else n  # of the tridiagonal part
        inverse = np.empty((n, shifts.size))
        border = np.empty((0, shifts.size))
        diagonal, links = np.ascontiguousarray(T.diagonal), np.ascontiguousarray(T.links)
        smallest = _pivots(diagonal[:rows], links[: rows - 1], shifts, inverse[:rows])
        scale = np.max(np.abs(diagonal)) + np.abs(shifts)
        if T.corner:
            smallest = min(smallest, 1.0 / np.max(inverse[rows - 1]), 1.0 / np.min(inverse[rows - 1]))
            border = np.zeros((rows, shifts.size))
            border[0], border[-1] = T.corner, links[-1]
            _solve(border, inverse[:rows], links, np.empty((0, shifts.size)), 0.0)
            last = diagonal[-1] + shifts - T.corner * border[0] - links[-1] * border[-1]
        else:
            with np.errstate(divide="ignore"):
                last = 1.0 / inverse[-1]
        # Only the last pivot of a connected semidefinite matrix can vanish; it carries the rounding of all before it.
        vanishes = np.abs(last) <= 32 * n * np.finfo(float).eps * scale
        if not (smallest > 0 and np.all(vanishes | (last > 0))):
            raise ValueError(f"a pivot is {min(smallest, np.min(last)):.3e}")
        with np.errstate(divide="ignore"):
            inverse[-1] = np.where(vanishes, 0.0, 1.0 / last)
        self.singular = np.flatnonzero(vanishes)
        self._null = np.zeros((n, self.singular.size))
        self._null[-1] = 1.0
        for i in range(n - 2, -1, -1):  # the null vector that is one at the end, by substitution
            if T.corner:
                self._null[i] = -border[i, self.singular]
            else:
                self._null[i] = -links[i] * inverse[i, self.singular] * self._null[i + 1]
        self._null = (self._null / np.linalg.norm(self._null, axis=0)).astype(dtype)
        self._inverse, self._links = inverse.astype(dtype, copy=False), links.astype(dtype, copy=False)
        self._border, self._corner = border.astype(dtype, copy=False), dtype.type(T.corner)

    def solve(self, f: np.ndarray) -> np.ndarray:
        """Overwrites f, shape (n, lanes), with x, and returns it."""
        self._project(f)
        _solve(f, self._inverse, self._links, self._border, self._corner)
        self._project(f)
        return f

    def _project(self, f: np.ndarray) -> None:
        if self.singular.size:
            part = f[:, self.singular]
            f[:, self.singular] = part - self._null * np.sum(self._null * part, axis=0)
