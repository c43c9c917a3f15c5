"""Restarted, right-preconditioned GMRES for general systems.

Source: Y. Saad and M. H. Schultz, GMRES: a generalized minimal residual algorithm for solving nonsymmetric linear
systems, SIAM J. Sci. Stat. Comput. 7 (1986); right preconditioning after Y. Saad, Iterative Methods for Sparse Linear
Systems, 2nd ed. (2003), algorithm 9.5.

Storage: restart + 4 n-vectors. Work per iteration: one product with A, one with M, and on average `restart` inner
products and updates; one product with A more for each cycle.
"""

from math import hypot, isfinite
from numbers import Integral
from typing import Any

import numpy as np

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
    """Arnoldi with Givens rotations: the step, and why the cycle ended early, if it did.

    Row j of V is the j-th basis vector; R and g are the triangular factor and right-hand side of the small
    least-squares problem ``min || size e_1 - H y ||``.
    """
    matvec, precondition = problem.system.matvec, problem.precondition
    eps = float(np.finfo(r.dtype).eps)
    # float64 for the small problem, whatever the dtype of the vectors
    small = np.complex128 if r.dtype.kind == "c" else np.float64
    V = np.empty((restart + 1, r.size), dtype=r.dtype)
    R = np.zeros((restart, restart), dtype=small)
    g = np.zeros(restart + 1, dtype=small)
    rotations: list[tuple[float, complex]] = []
    V[0] = r / size
    g[0] = size
    status, reason, steps = None, "", 0
    for j in range(restart):
        w = np.array(matvec(V[j] if precondition is None else precondition(V[j])))
        length = euclidean_norm(w)
        if not isfinite(length):
            status, reason = Status.NONFINITE_OUTPUT, "A or M returned NaN or infinity"
            break
        # Classical Gram-Schmidt, twice: as orthogonal as Householder's, and two matrix products instead of j vectors.
        h = np.zeros(j + 2, dtype=small)
        for _ in range(2):
            share = V[: j + 1].conj() @ w
            w -= share @ V[: j + 1]
            h[: j + 1] += share
        rest = euclidean_norm(w)
        h[j + 1] = rest
        for i, (c, s) in enumerate(rotations):
            h[i], h[i + 1] = c * h[i] + s * h[i + 1], -np.conj(s) * h[i] + c * h[i + 1]
        radius = hypot(abs(h[j]), rest)
        c, s = (abs(h[j]) / radius, (h[j] / abs(h[j]) if h[j] else 1.0) * rest / radius) if radius else (1.0, 0.0)
        rotations.append((c, s))
        R[:j, j] = h[:j]
        R[j, j] = c * h[j] + s * rest
        g[j], g[j + 1] = c * g[j], -np.conj(s) * g[j]
        steps = j + 1
        estimate = float(abs(g[steps]))
        status = problem.record(estimate)
        if rest <= eps * length:
            # The Krylov space is complete: it holds the solution, unless A or M is singular on it.
            status = status or Status.BREAKDOWN
            reason = "the Krylov space is complete without a solution in it: A or M is singular"
            break
        if status is not None or estimate <= problem.target:
            break
        V[steps] = w / rest
    # Least squares instead of back substitution: a singular R gives the shortest y, not infinity.
    y = np.linalg.lstsq(R[:steps, :steps], g[:steps], rcond=None)[0] if steps else np.zeros(0)
    step = y.astype(r.dtype) @ V[:steps] if steps else np.zeros_like(r)
    if precondition is not None and steps:
        step = precondition(step)
    return step, status, reason
