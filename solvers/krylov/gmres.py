"""Restarted, right-preconditioned GMRES for general systems.

Source: Y. Saad and M. H. Schultz, GMRES: a generalized minimal residual algorithm for solving nonsymmetric linear
systems, SIAM J. Sci. Stat. Comput. 7 (1986); right preconditioning after Y. Saad, Iterative Methods for Sparse Linear
Systems, 2nd ed. (2003), algorithm 9.5.

Storage: restart + 8 n-vectors. Work per iteration: one product with A, one with M, and on average `restart` inner
products and updates; one product with A more for each cycle.
"""

from math import isfinite
from numbers import Integral
from typing import Any

import numpy as np

from solvers.krylov.arnoldi import LeastSquares, orthogonalise, small_dtype
from solvers.krylov.controls import Callback, Controls
from solvers.krylov.driver import Correction, Outcome, run
from solvers.result import Result, Status
from solvers.system import norm as euclidean_norm


def gmres(
    A: Any,
    b: Any,
    x0: Any = None,
    *,
    rtol: float = 1e-5,
    atol: float = 0.0,
    restart: int = 20,
    maxiter: int | None = None,
    M: Any = None,
    callback: Callback | None = None,
    null_space: Any = None,
    time_limit: float | None = None,
) -> Result:
    r"""Solve ``A x = b`` for a general A by restarted GMRES.

    Within a cycle x minimises the residual over the Krylov space of ``A M``; between cycles the residual is recomputed.
    Right preconditioning leaves the residual what it is, so that the test is on the true one:

    .. math:: \|b - A x\|_2 \le \max(\mathrm{rtol}\,\|b\|_2, \mathrm{atol}).

    Parameters
    ----------
    A, b, x0, rtol, atol, M, null_space, time_limit
        As for `cg`; A and M need not be symmetric. A null space must be that of the conjugate transpose of A too.
    restart : int
        Iterations in a cycle.
    maxiter : int, optional
        Most *cycles* for each right-hand side, as scipy counts; default 10 n.
    callback : callable, optional
        Called with a fresh copy of x after each cycle; returning True stops the run.

    Returns
    -------
    Result
        ``iterations`` and ``history`` count single iterations, not cycles. STAGNATED if a whole cycle does not lower
        the residual, BREAKDOWN if the Krylov space ends without a solution (A or M singular).

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import gallery
    >>> A = gallery.convection_diffusion((20, 20), velocity=[1.0, 0.5])
    >>> result = gmres(A, np.ones(400), rtol=1e-8)
    >>> result.converged, bool(np.all(np.diff(result.history[:-1]) <= 0))
    (True, True)
    """
    if not isinstance(restart, Integral) or restart < 1:
        raise ValueError(f"restart: expected a positive whole number of iterations in a cycle, got {restart!r}")
    n = np.shape(b)[0] if np.ndim(b) else 1
    user = Controls(rtol, atol, maxiter, callback, time_limit)

    def iterate(problem: Correction) -> Outcome:
        return _cycles(problem, min(int(restart), n))

    return run(iterate, "gmres", A, b, x0, user, budget=10 * n, M=M, null_space=null_space)


def _cycles(problem: Correction, restart: int) -> Outcome:
    """Cycles on ``A d = r`` from d = 0 until the residual, recomputed after each, meets the target."""
    d = np.zeros_like(problem.r)
    r, size = problem.r, problem.norm
    while problem.budget[0] > 0:
        problem.budget[0] -= 1
        step, status, reason = _one_cycle(problem, r, size, restart)
        candidate = d + step
        r = problem.r - problem.system.matvec(candidate)
        new_size = euclidean_norm(r)
        if not new_size < size:
            reason = reason or "a whole cycle did not lower the residual; a larger restart or a preconditioner may help"
            return d, status or Status.STAGNATED, reason
        d, size = candidate, new_size
        stop = problem.report(d)
        if size <= problem.target:
            return d, None, ""
        if status not in (None, Status.BREAKDOWN) or stop is not None:
            return d, status or stop, reason
    return d, Status.MAX_ITERATIONS, "maxiter reached"


def _one_cycle(problem: Correction, r: np.ndarray, size: float, restart: int) -> tuple[np.ndarray, Status | None, str]:
    """One Arnoldi process: the step, and why the cycle ended early, if it did. Row j of V is the j-th basis vector."""
    V = np.empty((restart + 1, r.size), dtype=r.dtype)
    V[0] = r / size
    g = np.zeros(restart + 1, dtype=small_dtype(r.dtype))
    g[0] = size
    small = LeastSquares(g)
    status, reason = extend(problem, V, small)
    step = small.solution().astype(r.dtype) @ V[: small.count]
    if problem.precondition is not None and small.count:
        step = problem.precondition(step)
    return step, status, reason


def extend(problem: Correction, V: np.ndarray, small: LeastSquares) -> tuple[Status | None, str]:
    """Arnoldi steps on ``A M`` from the last vector that V holds, until V is full or the residual small enough."""
    matvec, precondition = problem.system.matvec, problem.precondition
    eps = float(np.finfo(V.dtype).eps)
    while small.count < len(V) - 1:
        j = small.count
        w = np.array(matvec(V[j] if precondition is None else precondition(V[j])))
        length = euclidean_norm(w)
        if not isfinite(length):
            return Status.NONFINITE_OUTPUT, "A or M returned NaN or infinity"
        h, rest = orthogonalise(w, V[: j + 1])
        estimate = small.add(h, rest)
        status = problem.record(estimate)
        if rest <= eps * length:
            # The Krylov space is complete: it holds the solution, unless A or M is singular on it.
            reason = "the Krylov space is complete without a solution in it: A or M is singular"
            return status or Status.BREAKDOWN, reason
        V[j + 1] = w / rest
        if status is not None or estimate <= problem.target:
            return status, ""
    return None, ""
