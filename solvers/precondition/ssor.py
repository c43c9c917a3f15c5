r"""Symmetric SOR as a preconditioner: a forward and a backward sweep from zero.

.. math:: M = \omega (2 - \omega)\, (D + \omega U)^{-1} D \, (D + \omega L)^{-1}, \qquad A = L + D + U,

symmetric positive definite for every symmetric A with a positive diagonal and :math:`0 < \omega < 2`.

Source: D. M. Young, Iterative Solution of Large Linear Systems (1971), section 15.1; O. Axelsson, Iterative Solution
Methods (1994), section 7.4: with a good omega the condition number falls to its square root on model problems.

Storage: A once more and 2 n-vectors. Work: one pass over A, half forward and half backward. Eisenstat's trick, which
saves the product with A beside it, is left out: it needs a method of its own, and multigrid beats what it gains.
"""

from typing import Any, Self

import numpy as np
from numba import njit

from solvers.precondition.protocol import preconditioners
from solvers.precondition.triangular import TriangularPair, pattern_of
from solvers.system import System


@njit(cache=True, nogil=True)
def _divide(indptr, indices, data, factors):  # type: ignore[no-untyped-def]
    """Columns below the diagonal times omega / d_j, rows above it times omega / d_i."""
    for i in range(factors.size):
        for k in range(indptr[i], indptr[i + 1]):
            j = indices[k]
            data[k] *= factors[min(i, j)]


@preconditioners.register("ssor")
class SSOR:
    """One symmetric SOR sweep from zero.

    Parameters
    ----------
    omega : float
        Relaxation parameter, between 0 and 2; 1 is symmetric Gauss-Seidel. For the n-point Laplacian the best is near
        ``2 / (1 + 2 sin(pi / (2 n + 2)))``, with little loss around it.

    Raises
    ------
    ValueError
        If omega is out of range.

    Examples
    --------
    >>> from solvers import cg, gallery
    >>> A = gallery.poisson((60, 60))
    >>> plain, swept = cg(A, np.ones(3600)), cg(A, np.ones(3600), M=SSOR(1.9))
    >>> swept.iterations < plain.iterations / 3
    True
    """

    setup_applies = 20.0  # the cost of a set-up in applications, for `Lagged`

    def __init__(self, omega: float = 1.0) -> None:
        if not 0 < omega < 2:
            raise ValueError(f"omega: expected a number between 0 and 2, got {omega!r}; beyond them no sweep converges")
        self.omega = float(omega)
        self.shape: tuple[int, int] | None = None
        self.dtype = np.dtype(float)
        self.symmetric = False
        self.positive = False

    def setup(self, A: Any) -> Self:
        """Scale the rows and columns of A.

        Raises
        ------
        ValueError
            If A does not show its entries, or has a zero on its diagonal.
        """
        system = System.of(A)
        pattern, places, diagonal = pattern_of(system, "SSOR")
        _divide(pattern.indptr, pattern.indices, pattern.data, pattern.dtype.type(self.omega) / diagonal)
        scale = pattern.dtype.type(self.omega * (2 - self.omega)) / diagonal
        self._pair = TriangularPair(pattern, places, scale)
        self.symmetric = system.symmetric
        self.positive = bool(self.symmetric and system.diagonal_positive)
        self.shape, self.dtype = system.shape, system.dtype
        return self

    def matvec(self, r: np.ndarray) -> np.ndarray:
        """A forward and a backward sweep on ``A z = r`` from zero."""
        return self._pair.matvec(r)

    def rmatvec(self, r: np.ndarray) -> np.ndarray:
        """The adjoint of `matvec`."""
        return self._pair.rmatvec(r)

    def __str__(self) -> str:
        if self.shape is None:
            return f"SSOR (omega {self.omega:g}), not set up"
        kind = "symmetric positive definite" if self.positive else "symmetric" if self.symmetric else "not symmetric"
        return (
            f"SSOR (omega {self.omega:g}) for {self.shape[0]} unknowns, {self.dtype}: {kind}, "
            f"{self._pair.entries:,} stored numbers"
        )
