"""BiCGStab for general systems: short recurrences, two products with A an iteration.

Source: H. A. van der Vorst, Bi-CGSTAB: a fast and smoothly converging variant of Bi-CG for the solution of nonsymmetric
linear systems, SIAM J. Sci. Stat. Comput. 13 (1992), right-preconditioned.

Storage: 11 n-vectors (d, r, shadow residual, p, M p, A p, M s, A s, best d, two temporaries). Work per iteration: 2
products with A, 2 with M, 6 inner products and 6 vector updates.
"""

from math import isfinite
from typing import Any

import numpy as np

from solvers.krylov.best import Best
from solvers.krylov.controls import Callback, Controls
from solvers.krylov.driver import Correction, Outcome, run
from solvers.krylov.updates import axpy
from solvers.result import Result, Status
from solvers.system import norm as euclidean_norm


def bicgstab(
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
    r"""Solve ``A x = b`` for a general A by BiCGStab.

    Right preconditioning leaves the residual what it is, so that the test is on the true one:

    .. math:: \|b - A x\|_2 \le \max(\mathrm{rtol}\,\|b\|_2, \mathrm{atol}).

    Parameters
    ----------
    A, b, x0, rtol, atol, M, callback, null_space, time_limit
        As for `cg`; A and M need not be symmetric. A null space must be that of the conjugate transpose of A too.
    maxiter : int, optional
        Most iterations for each right-hand side; default 10 n, as scipy's.

    Returns
    -------
    Result
        The residual goes up and down; on failure x is the iterate with the smallest. A breakdown after the residual
        has fallen by half starts again from there with a new shadow residual; otherwise the status is BREAKDOWN, and
        `reason` names which of three it was: the shadow residual orthogonal to the residual (``rho``), to the new
        direction (``r0'A p``), or ``A s`` orthogonal to s (``omega``).

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import gallery
    >>> A = gallery.convection_diffusion((20, 20), velocity=[1.0, 0.5])
    >>> bicgstab(A, np.ones(400), rtol=1e-8).converged
    True
    >>> rotation = np.array([[0.0, 1.0], [-1.0, 0.0]])  # A p is orthogonal to every p
    >>> bicgstab(rotation, np.array([1.0, 0.0])).status.name
    'BREAKDOWN'
    """
    controls = Controls(rtol, atol, maxiter, callback, time_limit)
    n = np.shape(b)[0] if np.ndim(b) else 1
    return run(_iterate, "bicgstab", A, b, x0, controls, budget=10 * n, M=M, null_space=null_space)


def _iterate(problem: Correction) -> Outcome:
    """Van der Vorst's algorithm from d = 0 with the first residual as shadow."""
    matvec, precondition, budget = problem.system.matvec, problem.precondition, problem.budget
    eps = float(np.finfo(problem.r.dtype).eps)
    r, norm, target, start = problem.r, problem.norm, problem.target, problem.norm
    d = np.zeros_like(r)
    best = Best(norm)
    shadow, shadow_norm = r.copy(), norm
    p, q = np.zeros_like(r), np.zeros_like(r)
    rho_old = alpha = omega = r.dtype.type(1.0)

    def broken(which: str) -> Outcome:
        if min(norm, best.norm) <= 0.5 * start:
            return best.of(d, norm), None, f"breakdown: {which}"
        return best.of(d, norm), Status.BREAKDOWN, which

    while budget[0] > 0:
        budget[0] -= 1
        rho = np.vdot(shadow, r)[()]
        # An inner product that is eps of its factors is rounding, and nothing but rounding would be divided by it.
        if abs(rho) <= eps * shadow_norm * norm:
            return broken("rho = 0, the shadow residual has become orthogonal to the residual")
        beta = (rho / rho_old) * (alpha / omega)
        axpy(-omega, q, p)
        p *= beta
        p += r
        p_hat = p if precondition is None else precondition(p)
        q = np.array(matvec(p_hat))
        sigma = np.vdot(shadow, q)[()]
        size = euclidean_norm(q)
        if not isfinite(size):
            return best.of(d, norm), Status.NONFINITE_OUTPUT, "A or M returned NaN or infinity"
        if abs(sigma) <= eps * shadow_norm * size:
            return broken("r0'A p = 0, the shadow residual is orthogonal to the new direction")
        alpha = rho / sigma
        axpy(-alpha, q, r)
        half_norm = euclidean_norm(r)
        best.before_step(d, norm, half_norm)
        axpy(alpha, p_hat, d)
        norm, rho_old = half_norm, rho
        if norm <= target:
            problem.record(norm)
            problem.report(d)
            return d, None, ""
        s_hat = r if precondition is None else precondition(r)
        t = matvec(s_hat)
        t_norm, ts = euclidean_norm(np.ascontiguousarray(t)), np.vdot(t, r)[()]
        if not isfinite(t_norm):
            return best.of(d, norm), Status.NONFINITE_OUTPUT, "A or M returned NaN or infinity"
        if abs(ts) <= eps * t_norm * norm:
            problem.record(norm)
            return broken("omega = 0, A s is orthogonal to s (A is skew, or M is no help)")
        omega = ts / r.real.dtype.type(t_norm) / r.real.dtype.type(t_norm)  # its square might overflow
        r_next = r - omega * t
        new_norm = euclidean_norm(r_next)
        best.before_step(d, norm, new_norm)
        axpy(omega, s_hat, d)
        r, norm = r_next, new_norm
        stop = problem.record(norm) or problem.report(d)
        if norm <= target:
            return d, None, ""
        if stop is not None:
            return best.of(d, norm), stop, ""
        if not norm <= start / eps:
            return best.of(d, norm), Status.BREAKDOWN, f"the residual grew by more than 1/eps = {1 / eps:.0e}"
    return best.of(d, norm), Status.MAX_ITERATIONS, "maxiter reached"
