"""Flexible conjugate gradients, for preconditioners that change from one iteration to the next.

Source: Y. Notay, Flexible conjugate gradients, SIAM J. Sci. Comput. 22 (2000), algorithm FCG(m) with the truncation of
section 5: iteration i keeps max(1, i mod (m + 1)) directions.

Storage: 2 m + 5 n-vectors (m directions and their products, d, r, p, A p, best d), one more with a preconditioner.
Work per iteration: one product with A, one with M, up to m + 3 inner products and m + 2 vector updates.
"""

from math import isfinite
from numbers import Integral
from typing import Any

import numpy as np

from solvers.krylov.best import Best
from solvers.krylov.cg import wrong_curvature
from solvers.krylov.controls import Callback, Controls
from solvers.krylov.driver import Correction, Outcome, run
from solvers.krylov.updates import axpy
from solvers.result import Result, Status
from solvers.system import norm as euclidean_norm


def flexible_cg(
    A: Any,
    b: Any,
    x0: Any = None,
    *,
    m: int = 5,
    rtol: float = 1e-5,
    atol: float = 0.0,
    maxiter: int | None = None,
    M: Any = None,
    callback: Callback | None = None,
    null_space: Any = None,
    time_limit: float | None = None,
) -> Result:
    r"""Solve ``A x = b`` for symmetric (Hermitian) positive definite A with a preconditioner that may vary.

    Each direction is made A-orthogonal to the last ones explicitly, not by a recurrence that holds only for a constant
    M: an inner iteration, a learned search direction, or a cycle in single precision may serve as M. The test is

    .. math:: \|b - A x\|_2 \le \max(\mathrm{rtol}\,\|b\|_2, \mathrm{atol}).

    Parameters
    ----------
    A, b, x0, rtol, atol, callback, null_space, time_limit
        As for `cg`.
    m : int
        Directions to be A-orthogonal to; m = 1 with a constant M is `cg`.
    maxiter : int, optional
        Most iterations for each right-hand side; default 10 n.
    M : array, sparse matrix, LinearOperator, preconditioner object or callable, optional
        Approximates the inverse of A; may be nonlinear and different in each call, but must point downhill:
        ``r'M(r) > 0``.

    Returns
    -------
    Result

    Examples
    --------
    A preconditioner that is itself a few iterations of cg:

    >>> import numpy as np
    >>> from solvers import cg, gallery
    >>> A = gallery.poisson((40, 40))
    >>> def inner(r):
    ...     return cg(A, r, rtol=0.1).x
    >>> result = flexible_cg(A, np.ones(1600), M=inner, rtol=1e-8)
    >>> result.converged, result.iterations < 15
    (True, True)
    """
    if not isinstance(m, Integral) or m < 1:
        raise ValueError(f"m: expected a positive whole number of directions, got {m!r}")
    controls = Controls(rtol, atol, maxiter, callback, time_limit)
    n = np.shape(b)[0] if np.ndim(b) else 1

    def iterate(problem: Correction) -> Outcome:
        return _iterate(problem, int(m))

    return run(iterate, "flexible_cg", A, b, x0, controls, budget=10 * n, M=M, null_space=null_space, symmetric=True)


def _iterate(problem: Correction, m: int) -> Outcome:
    """Notay's FCG(m) from d = 0, keeping the best d."""
    matvec, precondition, budget = problem.system.matvec, problem.precondition, problem.budget
    r, norm, target, start = problem.r, problem.norm, problem.target, problem.norm
    eps = float(np.finfo(r.dtype).eps)
    d = np.zeros_like(r)
    best = Best(norm)
    directions: list[tuple[np.ndarray, np.ndarray, float]] = []  # p, A p, p'A p, the newest last
    largest_curvature = 0.0
    iteration = 0
    while budget[0] > 0:
        budget[0] -= 1
        z = r if precondition is None else precondition(r)
        rz = float(np.vdot(r, z).real)
        if not isfinite(rz):
            return best.of(d, norm), Status.NONFINITE_OUTPUT, "M returned NaN or infinity"
        if not rz > 0.0:
            reason = f"r'M r = {rz:.3e} for a residual r that is not zero"
            return best.of(d, norm), Status.INDEFINITE_PRECONDITIONER, reason
        p = z.copy()
        for old, A_old, old_curvature in directions[-max(1, iteration % (m + 1)) :]:
            axpy(p.dtype.type(-np.vdot(A_old, z) / old_curvature), old, p)
        q = np.array(matvec(p))
        curvature = float(np.vdot(p, q).real)
        p_square = float(np.vdot(p, p).real)
        # A Rayleigh quotient of A: at eps of the largest seen it is zero to rounding, and tried only if it helps.
        doubtful = curvature <= eps * largest_curvature * p_square
        if not curvature > 0.0:
            return best.of(d, norm), *wrong_curvature(p, q, curvature, largest_curvature * p_square)
        if p_square > 0.0:  # it may underflow where M is tiny
            largest_curvature = max(largest_curvature, curvature / p_square)
        alpha = p.dtype.type(np.vdot(p, r) / curvature)
        axpy(-alpha, q, r)
        new_norm = euclidean_norm(r)
        if doubtful and not new_norm < norm:
            return best.of(d, norm), *wrong_curvature(p, q, curvature, largest_curvature * p_square)
        best.before_step(d, norm, new_norm)
        axpy(alpha, p, d)
        norm = new_norm
        if not isfinite(norm):
            return best.of(d, norm), Status.NONFINITE_OUTPUT, "the product with A overflowed"
        directions = [*directions, (p, q, curvature)][-m:]
        iteration += 1
        stop = problem.record(norm) or problem.report(d)
        if norm <= target:
            return d, None, ""
        if stop is not None:
            return best.of(d, norm), stop, ""
        if norm > start / eps:
            return best.of(d, norm), Status.BREAKDOWN, f"the residual grew by more than 1/eps = {1 / eps:.0e}"
    return best.of(d, norm), Status.MAX_ITERATIONS, "maxiter reached"
