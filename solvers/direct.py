"""Direct solution: factorise once, solve for many right-hand sides, refine until the true residual says so.

Dense: Cholesky for a symmetric matrix with a positive diagonal, LU otherwise (LAPACK). Sparse: SuperLU, in symmetric
mode with the ordering MMD_AT_PLUS_A for a symmetric matrix, COLAMD otherwise.

Sources: X. S. Li, An overview of SuperLU, ACM TOMS 31 (2005); N. J. Higham, Accuracy and Stability of Numerical
Algorithms, 2nd ed. (2002), chapter 12 (refinement).

Storage: the factors; for a 2D grid of n unknowns about 31 n log2(n) / 4 numbers with a good ordering, for 3D n^(4/3).
"""

from time import perf_counter
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
from scipy.linalg.lapack import get_lapack_funcs
from scipy.sparse.linalg import splu

from solvers.krylov.driver import Callback, Controls, Correction, Outcome, right_hand_side, run
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
        Columns that span the null space of A and of its conjugate transpose. The bordered matrix
        ``[[A, Q], [Q', 0]]`` is factorised instead: x is the solution, or for an inconsistent b the least-squares
        solution, of smallest norm.

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
    factorisation = Factorisation(null_space)
    if system.finite:
        factorisation.setup(system)

    def solve_once(problem: Correction) -> Outcome:
        return factorisation.correct(problem)

    return run(
        solve_once,
        "direct",
        system,
        rhs,
        x0,
        controls,
        budget=_ROUNDS,
        null_space=null_space,
        setup_seconds=factorisation.seconds,
        reason=factorisation.kind,
    )


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
        Smallest over largest pivot of LU: near eps or below it A is singular to working precision.
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
        self.pivot_ratio = 1.0
        self.seconds = 0.0

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
        self.singular, self.pivot_ratio = False, 1.0
        Q = system.null_space_basis(self.null_space)
        self._border = 0 if Q is None else Q.shape[1]
        if Q is not None:
            matrix = _bordered(matrix, Q, system)
        if isinstance(matrix, np.ndarray):
            self._factorise_dense(matrix)
        else:
            self._factorise_sparse(matrix)
        self.shape = system.shape
        self.seconds = perf_counter() - started
        return self

    def _factorise_dense(self, A: np.ndarray) -> None:
        potrf, potrs, getrf, getrs = get_lapack_funcs(("potrf", "potrs", "getrf", "getrs"), dtype=A.dtype)
        if self.positive and not self._border:
            factor, info = potrf(A, lower=True)
            if info == 0:
                self.kind = "dense Cholesky"
                self._solve = lambda r: potrs(factor, r, lower=True)[0]
                return
            self.positive = False
        self.kind = "dense LU" + (", bordered by the null space" if self._border else "")
        lu, pivots, info = getrf(A)
        self._note_pivots(np.diag(lu))
        self.singular = info > 0
        self._solve = lambda r: getrs(lu, pivots, r)[0]

    def _factorise_sparse(self, A: sp.csr_array) -> None:
        self.kind = "sparse LU" + (", bordered by the null space" if self._border else "")
        # Without pivoting the fill is that of the ordering, and a positive definite matrix needs none; for others a
        # small threshold keeps the multipliers in bounds, and refinement mends what is lost.
        options: dict[str, Any] = {"permc_spec": "COLAMD"}
        if self.symmetric:
            threshold = 0.0 if self.positive else 0.01
            options = {
                "permc_spec": "MMD_AT_PLUS_A",
                "diag_pivot_thresh": threshold,
                "options": {"SymmetricMode": True},
            }
            self.kind += ", symmetric ordering"
        try:
            factors = splu(sp.csc_array(A), **options)
        except RuntimeError as error:
            if "singular" not in str(error):
                raise
            self.singular = True
            return
        self._note_pivots(factors.U.diagonal())
        self._solve = factors.solve

    def _note_pivots(self, pivots: np.ndarray) -> None:
        sizes = np.abs(pivots)
        self.pivot_ratio = float(sizes.min() / sizes.max()) if sizes.max() > 0 else 0.0

    def solve(self, b: np.ndarray) -> np.ndarray:
        """Solution of ``A x = b``, shape ``(n,)`` or ``(n, k)``, by the factors alone; NaN if A is singular."""
        b = np.asarray(b, dtype=self.dtype)
        if self.singular:
            return np.full_like(b, np.nan)
        if self._border:
            b = np.concatenate([b, np.zeros((self._border, *b.shape[1:]), dtype=b.dtype)])
        # potrs and SuperLU do not say so when a tiny pivot overflows; the caller sees it in the residual.
        with np.errstate(all="ignore"):
            x = np.asarray(self._solve(b)).reshape(b.shape)
        return x[: len(x) - self._border] if self._border else x

    matvec = solve

    def correct(self, problem: Correction) -> Outcome:
        """One solve with the factors, as a kernel of `solvers.krylov.driver.run`."""
        problem.budget[0] -= 1
        nothing = np.zeros_like(problem.r)
        if self.singular:
            return nothing, Status.BREAKDOWN, "a pivot of the factorisation is zero, so A is singular"
        d = self.solve(problem.r)
        hint = f"smallest over largest pivot {self.pivot_ratio:.1e}"
        if not np.isfinite(d).all():
            return nothing, Status.BREAKDOWN, f"the factors overflow, so A is singular to working precision ({hint})"
        singular = self.pivot_ratio <= 10 * np.finfo(self.dtype).eps
        reason = f"A is singular to working precision ({hint}); give its null_space" if singular else ""
        return d, problem.record(problem.norm) or problem.report(d), reason

    def __str__(self) -> str:
        if self.shape is None:
            return "Factorisation, not set up"
        state = "singular" if self.singular else f"smallest over largest pivot {self.pivot_ratio:.1e}"
        return f"Factorisation ({self.kind}) of {self.shape[0]} unknowns, {self.dtype}: {state}, {self.seconds:.3g} s"


def _bordered(A: Any, Q: np.ndarray, system: System) -> Any:
    """``[[A, s Q], [s Q', 0]]``, nonsingular if Q spans the null spaces of A and A'; s the size of A's entries."""
    if isinstance(A, np.ndarray):
        size = np.max(np.abs(A)) or 1.0
        return np.block([[A, size * Q], [size * Q.conj().T, np.zeros((Q.shape[1],) * 2, dtype=A.dtype)]])
    size = np.max(np.abs(A.data), initial=0.0) or 1.0
    border = sp.csr_array((size * Q).astype(system.dtype))
    return sp.csr_array(sp.block_array([[A, border], [border.conj().T, None]]))
