r"""Incomplete factors: ILU(0) and IC(0) on the pattern of A, and SuperLU's threshold ILU.

ILU(0) computes :math:`(I + L)(D + U)` with L and U on the pattern of A such that its entries there are those of A. For
a Hermitian A then :math:`U = D L^H`, which is incomplete Cholesky without square roots.

Source: J. A. Meijerink and H. A. van der Vorst, Math. Comp. 31 (1977): for M-matrices all pivots are positive;
Y. Saad, Iterative Methods for Sparse Linear Systems, 2nd ed. (2003), algorithm 10.4; T. A. Manteuffel, Math. Comp. 34
(1980) for the shift of IC(0); X. S. Li and M. Shao, ACM TOMS 37 (2011) for SuperLU's ILU.

Storage: A once more and 1 n-vector; with a drop tolerance up to `fill_factor` times A. Work of one application: one
pass over the factors.
"""

from typing import Any, Self

import numpy as np
import scipy.sparse as sp
from numba import njit
from scipy.sparse.linalg import spilu

from solvers.precondition.protocol import preconditioners
from solvers.precondition.triangular import TriangularPair, pattern_of
from solvers.system import System

_FIRST_SHIFT = 1e-3
_SHIFTS = 20  # doublings: from a thousandth of the diagonal to a thousand times


@njit(cache=True, nogil=True)
def _factorise(indptr, indices, data, diagonal):  # type: ignore[no-untyped-def]
    """ILU(0) in place, row by row: L below the diagonal, D on it, D U above it; the row of a zero pivot, or -1."""
    n = diagonal.size
    place = np.full(n, -1, dtype=np.int64)
    for i in range(n):
        for k in range(indptr[i], indptr[i + 1]):
            place[indices[k]] = k
        for k in range(indptr[i], diagonal[i]):
            j = indices[k]
            data[k] /= data[diagonal[j]]
            factor = data[k]
            for m in range(diagonal[j] + 1, indptr[j + 1]):
                at = place[indices[m]]
                if at >= 0:
                    data[at] -= factor * data[m]
        for k in range(indptr[i], indptr[i + 1]):
            place[indices[k]] = -1
        pivot = data[diagonal[i]]
        if pivot == 0 or not np.isfinite(pivot):
            return i
    return -1


@njit(cache=True, nogil=True)
def _divide_rows(indptr, data, diagonal):  # type: ignore[no-untyped-def]
    """D U to U."""
    for i in range(diagonal.size):
        for k in range(diagonal[i] + 1, indptr[i + 1]):
            data[k] /= data[diagonal[i]]


def _pair(pattern: sp.csr_array, places: np.ndarray) -> TriangularPair:
    """The factors that `_factorise` left in the data of `pattern`, for application."""
    _divide_rows(pattern.indptr, pattern.data, places)
    return TriangularPair(pattern, places, 1.0 / pattern.data[places])


@preconditioners.register("ilu")
class ILU:
    """Incomplete LU factors.

    Parameters
    ----------
    drop_tol : float, optional
        None: ILU(0), the pattern of A. Otherwise SuperLU's threshold ILU, which drops what is smaller than this
        relative to its column, and may fill in.
    fill_factor : float
        Most entries relative to A, with a drop tolerance.

    Examples
    --------
    >>> from solvers import gallery, gmres
    >>> A = gallery.convection_diffusion((40, 40), velocity=(1.0, 0.5))
    >>> plain, better = gmres(A, np.ones(1600)), gmres(A, np.ones(1600), M=ILU())
    >>> better.iterations < plain.iterations / 3
    True
    """

    setup_applies = 20.0  # the cost of a set-up in applications, for `Lagged`

    def __init__(self, drop_tol: float | None = None, fill_factor: float = 10.0) -> None:
        if drop_tol is not None and not 0 <= drop_tol < 1:
            raise ValueError(f"drop_tol: expected None or a number from 0 to 1, got {drop_tol!r}")
        if not fill_factor >= 1:
            raise ValueError(f"fill_factor: expected at least 1, got {fill_factor!r}")
        self.drop_tol, self.fill_factor = drop_tol, fill_factor
        self.shape: tuple[int, int] | None = None
        self.dtype = np.dtype(float)
        self.symmetric = False
        self.positive = False

    def setup(self, A: Any) -> Self:
        """Factorise A incompletely.

        Raises
        ------
        ValueError
            If A does not show its entries, has a zero on its diagonal, or a pivot vanishes.
        """
        system = System.of(A)
        self.symmetric = self.positive = False  # the threshold kind is neither
        if self.drop_tol is None:
            pattern, places, _ = pattern_of(system, "ILU(0)")
            with np.errstate(all="ignore"):
                row = _factorise(pattern.indptr, pattern.indices, pattern.data, places)
            if row >= 0:
                raise ValueError(
                    f"A: the pivot of ILU(0) in row {row} is zero or not finite; give a drop_tol, so that there are "
                    "other pivots, or choose another preconditioner"
                )
            pair = _pair(pattern, places)
            self._apply, self._apply_adjoint, self._entries = pair.matvec, pair.rmatvec, pair.entries
            self.symmetric = system.symmetric
            self.positive = bool(self.symmetric and np.all(pair.scale.real > 0))
        else:
            if system.matrix is None:
                pattern_of(system, "ILU")
            try:
                factors = spilu(sp.csc_array(system.matrix), drop_tol=self.drop_tol, fill_factor=self.fill_factor)
            except RuntimeError:
                raise ValueError(
                    "A: SuperLU found its incomplete factors singular; lower drop_tol, raise fill_factor, or choose "
                    "another preconditioner"
                ) from None
            self._apply = factors.solve
            self._apply_adjoint = lambda r: factors.solve(r, trans="H")
            self._entries = factors.nnz
        self.shape, self.dtype = system.shape, system.dtype
        return self

    def matvec(self, r: np.ndarray) -> np.ndarray:
        """Both substitutions with the incomplete factors."""
        return np.asarray(self._apply(np.ascontiguousarray(r, dtype=self.dtype)))

    def rmatvec(self, r: np.ndarray) -> np.ndarray:
        """The adjoint of `matvec`."""
        return np.asarray(self._apply_adjoint(np.ascontiguousarray(r, dtype=self.dtype)))

    def __str__(self) -> str:
        name = "ILU(0)" if self.drop_tol is None else f"ILU (drop_tol {self.drop_tol:g}, fill {self.fill_factor:g})"
        if self.shape is None:
            return f"{name}, not set up"
        kind = "symmetric positive definite" if self.positive else "symmetric" if self.symmetric else "not symmetric"
        return f"{name} for {self.shape[0]} unknowns, {self.dtype}: {kind}, {self._entries:,} stored numbers"


@preconditioners.register("ic")
class IncompleteCholesky:
    """IC(0) of a Hermitian matrix with a positive diagonal.

    For M-matrices the pivots are positive. For others the diagonal is multiplied by 1 + alpha, with alpha from 0.001
    doubling, until they are.

    Attributes
    ----------
    shift : float
        That alpha, 0 if none was needed.

    Examples
    --------
    >>> from solvers import cg, gallery
    >>> A = gallery.poisson((60, 60))
    >>> plain, better = cg(A, np.ones(3600)), cg(A, np.ones(3600), M=IncompleteCholesky())
    >>> better.iterations < plain.iterations / 2
    True
    """

    setup_applies = 20.0  # the cost of a set-up in applications, for `Lagged`

    def __init__(self) -> None:
        self.shape: tuple[int, int] | None = None
        self.dtype = np.dtype(float)
        self.symmetric = True
        self.positive = False
        self.shift = 0.0

    def setup(self, A: Any) -> Self:
        """Factorise A incompletely.

        Raises
        ------
        ValueError
            If A does not show its entries, is not symmetric, or has a diagonal entry that is not positive.
        """
        system = System.of(A)
        pattern, places, diagonal = pattern_of(system, "IC(0)")
        if not system.symmetric:
            raise ValueError("A: IC(0) needs a symmetric (Hermitian) matrix, and this one is not; choose 'ilu'")
        if not system.diagonal_positive:
            raise ValueError("A: IC(0) needs a positive diagonal, and a diagonal entry is not; choose 'ilu'")
        original = pattern.data.copy()
        for shift in [0.0] + [_FIRST_SHIFT * 2.0**k for k in range(_SHIFTS)]:
            np.copyto(pattern.data, original)
            pattern.data[places] = diagonal * diagonal.dtype.type(1 + shift)
            with np.errstate(all="ignore"):
                row = _factorise(pattern.indptr, pattern.indices, pattern.data, places)
            # A pivot that is rounding of its diagonal entry would make M unbounded.
            tiny = np.finfo(system.dtype).eps * diagonal.real
            if row < 0 and np.all(pattern.data[places].real > tiny):
                break
        else:
            raise ValueError("A: no shift of the diagonal makes the pivots of IC(0) positive; check its entries")
        # Rounding may leave an imaginary part on the pivots of a Hermitian matrix.
        pattern.data[places] = pattern.data[places].real
        self._pair = _pair(pattern, places)
        self.shift, self.positive = shift, True
        self.shape, self.dtype = system.shape, system.dtype
        return self

    def matvec(self, r: np.ndarray) -> np.ndarray:
        """Both substitutions with the incomplete factor."""
        return self._pair.matvec(r)

    def __str__(self) -> str:
        if self.shape is None:
            return "IC(0), not set up"
        shift = f"diagonal raised by {100 * self.shift:g} %" if self.shift else "no shift"
        return f"IC(0) for {self.shape[0]} unknowns, {self.dtype}: {shift}, {self._pair.entries:,} stored numbers"
