"""Direct solution: factorise once, solve for many right-hand sides, refine until the true residual says so.

Dense: Cholesky for a symmetric matrix with a positive diagonal, LU otherwise (LAPACK). Sparse: SuperLU, in symmetric
mode with the ordering MMD_AT_PLUS_A for a symmetric matrix, COLAMD otherwise.

Sources: X. S. Li, An overview of SuperLU, ACM TOMS 31 (2005); N. J. Higham, Accuracy and Stability of Numerical
Algorithms, 2nd ed. (2002), chapter 12 (refinement).

Storage: the factors; for a 2D grid of n unknowns about 31 n log2(n) / 4 numbers with a good ordering, for 3D n^(4/3).
"""

from dataclasses import replace
from time import perf_counter
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
from scipy.linalg import qr
from scipy.linalg.lapack import get_lapack_funcs
from scipy.sparse.csgraph import structural_rank
from scipy.sparse.linalg import splu

from solvers.krylov.controls import Callback, Controls, right_hand_side
from solvers.krylov.driver import Correction, Outcome, run
from solvers.precondition.protocol import preconditioners
from solvers.result import Result, Status
from solvers.system import System

_ROUNDS = 10  # each halves the residual or ends the refinement; one or two is the rule


def direct(
    A: Any,
    b: Any,
    x0: Any = None,
    *,
    rtol: float = 1e-5,
    atol: float = 0.0,
    maxiter: int | None = None,
    callback: Callback | None = None,
    null_space: Any = None,
    time_limit: float | None = None,
    factors: "Factorisation | None" = None,
) -> Result:
    r"""Solve ``A x = b`` by factorisation and iterative refinement.

    One solve with the factors gives a residual near rounding; further ones follow only while the true residual misses
    :math:`\|b - A x\|_2 \le \max(\mathrm{rtol}\,\|b\|_2, \mathrm{atol})` and still falls by half.

    Parameters
    ----------
    A : array, sparse matrix or array, or StencilOperator
        Shape (n, n); its entries are needed.
    b : array, shape (n,) or (n, k)
    x0, rtol, atol, callback, time_limit
        As for `cg`; the factorisation itself is not interrupted.
    maxiter : int, optional
        Most solves with the factors for each right-hand side; default 10.
    null_space : "constant" or array of shape (n, k), optional
        Columns that span the null space of A and of its conjugate transpose. x is the solution, or for an
        inconsistent b the least-squares solution, of smallest norm.
    factors : Factorisation, optional
        Factors of this very matrix (and null space), made before; they are used and not made again. The true residual
        tells if they are those of another one.

    Returns
    -------
    Result
        ``iterations`` counts the solves with the factors. A singular matrix ends as BREAKDOWN or STAGNATED.

    Raises
    ------
    ValueError, TypeError
        If an argument has the wrong shape, type or range, or A does not show its entries.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import gallery
    >>> result = direct(gallery.helmholtz((30, 30), wavenumber=1.0), np.ones(900), rtol=1e-12)
    >>> result.converged, result.iterations <= 2
    (True, True)
    """
    controls = Controls(rtol, atol, maxiter, callback, time_limit)
    rhs = right_hand_side(b)
    system = System.of(A, size=rhs.shape[0], dtype=rhs.dtype)
    factorisation = Factorisation(null_space) if factors is None else factors
    if system.finite and (factors is None or factors.shape is None):
        factorisation.setup(system)

    def solve_once(problem: Correction) -> Outcome:
        return factorisation.correct(problem)

    result = run(
        solve_once,
        "direct",
        system,
        rhs,
        x0,
        controls,
        budget=_ROUNDS,
        null_space=null_space,
        setup_seconds=factorisation.seconds if factors is None else 0.0,
        reason=factorisation.kind,
    )
    if result.status is Status.STAGNATED and factorisation.pivot_ratio <= 10 * np.finfo(system.dtype).eps:
        hint = f"smallest over largest pivot {factorisation.pivot_ratio:.1e}: A is singular to working precision"
        return replace(result, reason=f"{result.reason}; {hint}; give its null_space")
    return result


@preconditioners.register("direct")
class Factorisation:
    """Factors of a matrix: `setup` once, `solve` many times; also the exact preconditioner.

    Parameters
    ----------
    null_space : "constant" or array of shape (n, k), optional
        As for `direct`.

    Attributes
    ----------
    kind : str
        Which factorisation was chosen.
    singular : bool
        A pivot was exactly zero: there are no factors, and `solve` returns NaN.
    pivot_ratio : float
        Smallest over largest pivot: near eps or below it A is singular to working precision.
    seconds : float
        Wall time of the last `setup`.

    Examples
    --------
    >>> import numpy as np
    >>> factors = Factorisation().setup(np.array([[4.0, 1.0], [1.0, 3.0]]))
    >>> factors.solve(np.array([5.0, 4.0]))
    array([1., 1.])
    >>> factors.kind
    'dense Cholesky'
    """

    def __init__(self, null_space: Any = None) -> None:
        self.null_space = null_space
        self.shape: tuple[int, int] | None = None
        self.dtype: np.dtype = np.dtype(float)
        self.symmetric = False
        self.positive = False
        self.kind = ""
        self.singular = False
        self.seconds = 0.0
        self._fill = 0

    def setup(self, A: Any) -> Self:
        """Factorise A.

        Raises
        ------
        ValueError
            If A does not show its entries, or `null_space` is not one of A.
        """
        started = perf_counter()
        system = System.of(A)
        matrix = system.matrix
        if matrix is None:
            raise ValueError(
                f"A: a direct solution needs its entries, and {type(system.original).__name__} shows none; give a "
                "matrix or a StencilOperator, or use an iterative method"
            )
        self.symmetric, self.dtype = system.symmetric, system.dtype
        self.positive = bool(system.symmetric and system.diagonal_positive)
        self.singular = False
        self._fill = 0
        self._Q = system.null_space_basis(self.null_space)
        if self._Q is not None:
            self._kept = _without_null_space(self._Q)
            matrix = matrix[self._kept][:, self._kept]
        if not matrix.shape[0]:  # the null space is all there is
            self.kind, self._solve, self._pivots = "nothing to factorise", lambda r, adjoint: r, lambda: np.ones(1)
        elif isinstance(matrix, np.ndarray):
            self._factorise_dense(matrix)
        else:
            self._factorise_sparse(matrix)
        self.shape = system.shape
        self.seconds = perf_counter() - started
        return self

    def _factorise_dense(self, A: np.ndarray) -> None:
        potrf, potrs, getrf, getrs = get_lapack_funcs(("potrf", "potrs", "getrf", "getrs"), dtype=A.dtype)
        if self.positive:
            factor, info = potrf(A, lower=True)
            if info == 0:
                self.kind = "dense Cholesky"
                self._solve = lambda r, adjoint: potrs(factor, r, lower=True)[0]
                self._pivots = lambda: np.diag(factor) ** 2
                return
            self.positive = False
        self.kind = "dense LU"
        lu, pivots, info = getrf(A)
        self._pivots = lambda: np.diag(lu)
        self.singular = info > 0
        self._solve = lambda r, adjoint: getrs(lu, pivots, r, trans=2 if adjoint else 0)[0]

    def _factorise_sparse(self, A: sp.csr_array) -> None:
        self.kind = "sparse LU"
        options: dict[str, Any] = {"permc_spec": "COLAMD"}
        if self.symmetric:
            # The fill is that of the ordering as long as pivots stay on the diagonal, where a definite matrix needs
            # no other. That a positive diagonal belongs to one is not known before: a pivot below a hundredth of its
            # column is exchanged, and refinement mends what multipliers of up to a hundred lose.
            options = {
                "permc_spec": "MMD_AT_PLUS_A",
                "diag_pivot_thresh": 0.01,
                "options": {"SymmetricMode": True},
            }
            self.kind += ", symmetric ordering"
        # SuperLU reads outside its arrays on matrices that are singular by structure, and says so only sometimes.
        if not np.all(A.diagonal()) and structural_rank(A) < A.shape[0]:
            self.singular = True
            return
        try:
            factors = splu(sp.csc_array(A), **options)
        except RuntimeError:  # a pivot that is zero, or what comes of one
            self.singular = True
            return
        self._fill = factors.nnz
        self._solve = lambda r, adjoint: factors.solve(r, trans="H" if adjoint else "N")
        self._pivots = lambda: factors.U.diagonal()  # copies all of U: only when asked for

    @property
    def setup_applies(self) -> float:
        """The cost of a set-up in applications, for `Lagged`.

        Sparse: 20 and an eighth of the fill in each row, which fits what was measured with SuperLU on one core (AMD
        EPYC): 27 to 46 in 2D up to 300^2, 40 to 120 in 3D up to 26^3. Dense: n^3/3 against 2 n^2 operations, at ten
        times their rate.
        """
        n = self.shape[0] if self.shape else 1
        return 20.0 + self._fill / (8.0 * n) if self._fill else 1.0 + n / 60.0

    @property
    def pivot_ratio(self) -> float:
        """Smallest over largest pivot in absolute value; zero if there are no factors."""
        if self.singular:
            return 0.0
        sizes = np.abs(self._pivots())
        return float(sizes.min() / sizes.max())

    def solve(self, b: np.ndarray) -> np.ndarray:
        """Solution of ``A x = b``, shape ``(n,)`` or ``(n, k)``, by the factors alone; NaN if A is singular."""
        return self._solve_with(b, adjoint=False)

    matvec = solve

    def rmatvec(self, b: np.ndarray) -> np.ndarray:
        """Solution with the conjugate transpose, ``A' x = b``, by the same factors."""
        return self._solve_with(b, adjoint=True)

    def _solve_with(self, b: np.ndarray, adjoint: bool) -> np.ndarray:
        b = np.asarray(b, dtype=self.dtype)
        if self.singular:
            return np.full_like(b, np.nan)
        Q = self._Q
        if Q is None:
            return self._solve_factors(b, adjoint)
        x = np.zeros_like(b)
        x[self._kept] = self._solve_factors((b - Q @ (Q.conj().T @ b))[self._kept], adjoint)
        return x - Q @ (Q.conj().T @ x)

    def _solve_factors(self, b: np.ndarray, adjoint: bool) -> np.ndarray:
        # LAPACK and SuperLU do not say so when a tiny pivot overflows; the caller sees it in the residual.
        with np.errstate(all="ignore"):
            return np.asarray(self._solve(b, adjoint)).reshape(b.shape)

    def correct(self, problem: Correction) -> Outcome:
        """One solve with the factors, as a kernel of `solvers.krylov.driver.run`."""
        problem.budget[0] -= 1
        nothing = np.zeros_like(problem.r)
        if self.singular:
            return nothing, Status.BREAKDOWN, "a pivot of the factorisation is zero, so A is singular"
        d = self.solve(problem.r)
        if not np.isfinite(d).all():
            return nothing, Status.BREAKDOWN, "the factors overflow, so A is singular to working precision"
        return d, problem.record(problem.norm) or problem.report(d), ""

    def __str__(self) -> str:
        if self.shape is None:
            return "Factorisation, not set up"
        state = "singular" if self.singular else f"smallest over largest pivot {self.pivot_ratio:.1e}"
        return f"Factorisation ({self.kind}) of {self.shape[0]} unknowns, {self.dtype}: {state}, {self.seconds:.3g} s"


def _without_null_space(Q: np.ndarray) -> np.ndarray:
    """Indices that are left when as many unknowns as Q has columns are set to zero, so that A becomes nonsingular.

    If ``A y = (0, w)`` for a y that is zero at the dropped unknowns, then ``Q' A = 0`` makes w orthogonal to the
    dropped rows of Q; where these are independent w is zero, so y lies in the null space, so y is zero. Pivoted QR
    picks the rows that are most so. Against the bordered matrix ``[[A, Q], [Q', 0]]`` this stays definite and sparse:
    on a Neumann grid of 192^2 it was six times as fast to factorise, with a third less fill, and the same residual.
    """
    pivots = qr(Q.conj().T, mode="r", pivoting=True)[1]
    kept = np.ones(Q.shape[0], dtype=bool)
    kept[pivots[: Q.shape[1]]] = False
    return np.flatnonzero(kept)
