r"""One step of cyclic reduction before the Fourier analysis, in two dimensions: half of the lines need no transform.

With constant coefficients along the first axis, and zero one spacing beyond its ends, the lines :math:`u_i` satisfy
:math:`B u_i - c (u_{i-1} + u_{i+1}) = f_i`, B = d I + K for the other axis. Multiplied by B, the equation of an even
line and those of its neighbours make one in which only even lines are left,

.. math:: (B^2 - 2 c^2)\, u_i - c^2 (u_{i-2} + u_{i+2}) = B f_i + c (f_{i-1} + f_{i+1}) ,

at the ends with one neighbour for two. It is solved by Fourier analysis, for its eigenvectors are those of K; the odd
lines are then tridiagonal systems with B. This is R. W. Hockney's method FACR(1), Methods Comput. Phys. 9 (1970) 135;
P. N. Swarztrauber, The methods of cyclic reduction, Fourier analysis and the FACR algorithm, SIAM Review 19 (1977) 490.

The product with B costs digits where K is much larger than c, and then the method is not taken; each further step would
save less and cost more digits.
"""

import numpy as np
from numba import njit

from solvers.kronecker_sum import Tridiagonal
from solvers.precondition.fast_poisson.lines import Lines
from solvers.precondition.fast_poisson.modes import Modes
from solvers.precondition.fast_poisson.transforms import Classical, Transform

_TILE = 32  # lines and points of a block that is transposed in the first-level cache


@njit(cache=True, nogil=True, fastmath={"contract"})
def _reduce(f, diagonal, links, corner, c, g):  # type: ignore[no-untyped-def]
    """g_p = B f_i + c (f_(i-1) + f_(i+1)) for i = 2 p."""
    lines, n = f.shape
    for p in range(g.shape[0]):
        i = 2 * p
        row, out = f[i], g[p]
        for k in range(n):
            out[k] = diagonal[k] * row[k]
        ahead, behind = row[1:], row[: n - 1]
        for k in range(n - 1):
            out[k] += links[k] * ahead[k]
        out = g[p, 1:]
        for k in range(n - 1):
            out[k] += links[k] * behind[k]
        out = g[p]
        if corner != 0:
            out[0] += corner * row[n - 1]
            out[n - 1] += corner * row[0]
        for neighbour in (i - 1, i + 1):
            if 0 <= neighbour < lines:
                row = f[neighbour]
                for k in range(n):
                    out[k] += c * row[k]


@njit(cache=True, nogil=True, fastmath={"contract"})
def _gather(f, u, c, turned):  # type: ignore[no-untyped-def]
    """turned[:, q] = f_i + c (u_(i-1) + u_(i+1)) for i = 2 q + 1; u holds the even lines."""
    n, count = turned.shape
    for first in range(0, n, _TILE):
        for start in range(0, count, _TILE):
            for q in range(start, min(start + _TILE, count)):
                stop = min(first + _TILE, n)
                row, before = f[2 * q + 1, first:stop], u[q, first:stop]
                if q + 1 < u.shape[0]:
                    after = u[q + 1, first:stop]
                    for k in range(stop - first):
                        turned[first + k, q] = row[k] + c * (before[k] + after[k])
                else:
                    for k in range(stop - first):
                        turned[first + k, q] = row[k] + c * before[k]


@njit(cache=True, nogil=True)
def _spread(u, turned, out):  # type: ignore[no-untyped-def]
    """Even lines from u, odd ones from the columns of `turned`."""
    n, count = turned.shape
    for first in range(0, n, _TILE):
        stop = min(first + _TILE, n)
        for start in range(0, count, _TILE):
            for q in range(start, min(start + _TILE, count)):
                row = out[2 * q + 1, first:stop]
                for k in range(stop - first):
                    row[k] = turned[first + k, q]
    for p in range(u.shape[0]):
        out[2 * p] = u[p]


class OddEven:
    """Solves ``T (x) I + I (x) K`` for a positive definite sum.

    Parameters
    ----------
    T : Classical
        Of the first axis, of the kind DST-I.
    K : Tridiagonal
        Of the second.
    transform : Transform
        That diagonalises K.
    dtype : numpy.dtype

    Raises
    ------
    ValueError
        If the sum is indefinite.
    """

    singular = np.empty(0, dtype=np.int64)

    def __init__(self, T: Classical, K: Tridiagonal, transform: Transform, dtype: np.dtype) -> None:
        lines, c, d = T.n, T.c, T.shift + 2 * T.c
        even, odd, n = (lines + 1) // 2, lines // 2, K.diagonal.size
        neighbours = np.full(even, 2.0)
        neighbours[0] -= 1.0
        neighbours[-1] -= lines % 2
        reduced = Tridiagonal(d**2 - c**2 * neighbours, np.full(even - 1, -(c**2)))
        B = K.plus(d)
        self._odd = Lines(B, np.zeros(odd), dtype)
        self._even = Modes(reduced, [K], [transform], dtype, polynomial=lambda x: x * (x + 2.0 * d))
        self._B = B.diagonal.astype(dtype), B.links.astype(dtype), dtype.type(B.corner)
        self._c = dtype.type(c)
        self._u, self._turned = np.empty((even, n), dtype=dtype), np.empty((n, odd), dtype=dtype)

    @staticmethod
    def of(T: Tridiagonal, K: Tridiagonal, transform: Transform, dtype: np.dtype) -> "OddEven | None":
        """The solver, or None if T is not of this kind, K too large, or the operator not positive definite."""
        given = Classical.of(T, dtype)
        if given is None or given.kind != "DST-I" or given.n < 5 or np.max(np.abs(K.diagonal)) > 16 * given.c:
            return None
        try:
            solver = OddEven(given, K, transform, dtype)
        except ValueError:
            return None
        return None if solver._even.singular.size or solver._odd.singular.size else solver

    def solve(self, f: np.ndarray, out: np.ndarray) -> None:
        """The solution for the right-hand side f."""
        _reduce(f, *self._B, self._c, self._u)
        self._even.solve(self._u, self._u)
        _gather(f, self._u, self._c, self._turned)
        self._odd.solve(self._turned)
        _spread(self._u, self._turned, out)
