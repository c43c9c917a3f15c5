"""Preconditioned conjugate gradients for symmetric (Hermitian) positive definite systems.

Source: M. R. Hestenes and E. Stiefel, Methods of conjugate gradients for solving linear systems, J. Res. Nat. Bur.
Standards 49 (1952), in the preconditioned form of Y. Saad, Iterative Methods for Sparse Linear Systems, 2nd ed. (2003),
algorithm 9.1.

Storage: 5 n-vectors (d, r, p, A p, best d), two more with a preconditioner. Work per iteration: one product with A,
one with M, 2 inner products (3 with M) and 3 vector updates.
"""

from math import isfinite, sqrt
from typing import Any

import numpy as np

from solvers.krylov.best import Best
from solvers.krylov.controls import Callback, Controls
from solvers.krylov.driver import Correction, Outcome, run
from solvers.krylov.updates import axpy, reduce_residual
from solvers.result import Result, Status
from solvers.system import norm as euclidean_norm


def cg(
    A: Any,
    b: Any,
    x0: Any = None,
    *,
    rtol: float = 1e-5,
    atol: float = 0.0,
    maxiter: int | None = None,
    M: Any = None,
    callback: Callback | None = None,
    null_space: Any = None,
    time_limit: float | None = None,
) -> Result:
    r"""Solve ``A x = b`` for symmetric (Hermitian) positive definite A by conjugate gradients.

    Ends with CONVERGED if and only if the true residual, recomputed from x, satisfies

    .. math:: \|b - A x\|_2 \le \max(\mathrm{rtol}\,\|b\|_2, \mathrm{atol}).

    The residual of the recurrence only says when to look; if it was wrong, the iteration starts again from the true
    one, and ends as STAGNATED when that no longer halves it.

    Parameters
    ----------
    A : array, sparse matrix or array, LinearOperator, StencilOperator or callable
        Shape (n, n).
    b : array, shape (n,) or (n, k)
        One or several right-hand sides, solved one after the other, with a status each.
    x0 : array of the shape of b, "Mb", or None
        First guess; zero if None. Never changed.
    rtol, atol : float
        Tolerances, see the formula above.
    maxiter : int, optional
        Most iterations for each right-hand side; default 10 n, as scipy's.
    M : array, sparse matrix, LinearOperator, preconditioner object or callable, optional
        Symmetric positive definite approximation of the *inverse* of A. A preconditioner object that has not been set
        up is set up for A; one that has been, for this or an earlier matrix, is used as it is.
    callback : callable, optional
        Called with a fresh copy of x after each iteration; returning True stops the run.
    null_space : "constant" or array of shape (n, k), optional
        Columns that span the null space of a positive semidefinite A. If b is consistent, x is the solution of
        smallest norm. If ``||Q'b|| > max(rtol ||b||, atol, 100 eps ||b||)`` for an orthonormal basis Q, no x can meet
        the tolerance: x is the least-squares solution of smallest norm and the status INCONSISTENT.
    time_limit : float, optional
        Seconds of wall time, checked once an iteration.

    Returns
    -------
    Result
        Never raises for want of convergence. On failure x is the iterate with the smallest residual. NaN or infinity
        in A, b or x0 ends as NONFINITE_INPUT with x = 0.

    Raises
    ------
    ValueError, TypeError
        If an argument has the wrong shape, type or range.

    Notes
    -----
    Before a step is taken its curvature ``p'A p`` is looked at: not positive means that A is not positive definite
    (INDEFINITE_OPERATOR), or, where A p vanishes, that A is singular and b outside its range (INCONSISTENT).
    ``r'M r`` not positive means the same for M (INDEFINITE_PRECONDITIONER).

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import cg, gallery
    >>> A = gallery.poisson((50, 50))
    >>> result = cg(A, np.ones(2500), rtol=1e-8)
    >>> result.converged, result.iterations < 100
    (True, True)
    >>> float(np.linalg.norm(np.ones(2500) - A @ result.x)) <= 1e-8 * 50
    True
    """
    controls = Controls(rtol, atol, maxiter, callback, time_limit)
    n = np.shape(b)[0] if np.ndim(b) else 1
    return run(_iterate, "cg", A, b, x0, controls, budget=10 * n, M=M, null_space=null_space, symmetric=True)


def _iterate(problem: Correction) -> Outcome:
    """Algorithm 9.1 of Saad from d = 0, keeping the best d, until the recurrence says done or a sign is wrong."""
    precondition, budget = problem.precondition_and_product(), problem.budget
    r, norm, target = problem.r, problem.norm, problem.target
    real = r.real.dtype.type
    eps = float(np.finfo(real).eps)
    d = np.zeros_like(r)
    best = Best(norm)
    start, rr = norm, float(np.vdot(r, r).real) if precondition is None else norm * norm

    p: np.ndarray | None = None
    rz_old, p_size, largest_curvature = 1.0, 0.0, 0.0
    while budget[0] > 0:
        budget[0] -= 1
        z, rz = (r, rr) if precondition is None else precondition(r, norm)
        if not rz > 0.0:
            if not isfinite(rz):
                return best.of(d, norm), Status.NONFINITE_OUTPUT, "M returned NaN or infinity"
            reason = f"r'M r = {rz:.3e} for a residual r that is not zero"
            return best.of(d, norm), Status.INDEFINITE_PRECONDITIONER, reason
        if p is None or p.dtype != z.dtype:
            # Any direction serves that A multiplies exactly: one of an M in single precision may be single as well.
            p = problem.system.direction(z, p)
        beta = rz / rz_old
        # The square of p's norm in the inner product of M's inverse: z and the old p are orthogonal in it.
        p_size = rz + beta * beta * p_size
        q, curvature = problem.system.advance(z, beta, p)
        # A Rayleigh quotient of M A. One that is eps of the largest seen, or less, is zero to rounding: the step is
        # taken only if it lowers the residual all the same.
        relative = curvature / p_size
        doubtful = relative <= eps * largest_curvature
        if not curvature > 0.0:
            return best.of(d, norm), *wrong_curvature(p, q, curvature, largest_curvature * p_size)
        largest_curvature = max(largest_curvature, relative)
        alpha = rz / curvature
        rr = float(reduce_residual(real(alpha), q, r))
        new_norm = sqrt(rr)
        if doubtful and not new_norm < norm:
            return best.of(d, norm), *wrong_curvature(p, q, curvature, largest_curvature * p_size)
        best.before_step(d, norm, new_norm)
        axpy(real(alpha), p, d)
        norm, rz_old = new_norm, rz
        if not isfinite(norm):
            return best.of(d, norm), Status.NONFINITE_OUTPUT, "the product with A overflowed"
        stop = problem.record(norm) or problem.report(d)
        if norm <= target:
            return d, None, ""
        if stop is not None:
            return best.of(d, norm), stop, ""
        if norm > start / eps:
            # In exact arithmetic the residual stays below sqrt(cond(A)) times the first one.
            reason = f"the residual grew by more than 1/eps = {1 / eps:.0e}"
            return best.of(d, norm), Status.BREAKDOWN, reason
    return best.of(d, norm), Status.MAX_ITERATIONS, "maxiter reached"


def wrong_curvature(p: np.ndarray, q: np.ndarray, curvature: float, largest: float) -> tuple[Status, str]:
    """What a curvature p'A p that is not positive says of A."""
    if not isfinite(curvature):
        return Status.NONFINITE_OUTPUT, "A returned NaN or infinity"
    eps = float(np.finfo(p.dtype).eps)
    p_norm, q_norm = euclidean_norm(p), euclidean_norm(np.ascontiguousarray(q))
    # sqrt(eps): A p of a null vector is rounding, eps times the norm of A; that of an indefinite direction is not.
    if q_norm == 0.0 or (abs(curvature) <= eps * largest and q_norm * p_norm <= sqrt(eps) * largest):
        return Status.INCONSISTENT, (
            f"met a direction p with A p = 0 to rounding (|p'A p| = {abs(curvature):.1e}) on which b is not zero: "
            "A is singular; give its null_space ('constant' for pure Neumann or periodic problems)"
        )
    return Status.INDEFINITE_OPERATOR, f"met a direction p with p'A p = {curvature:.1e}, not positive to rounding"
