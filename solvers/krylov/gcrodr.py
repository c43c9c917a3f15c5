r"""GCRO-DR: GMRES with deflated restarting that takes its deflation space along to the next system.

A cycle holds U and C with :math:`A U = C`, :math:`C^H C = I`, and p Arnoldi steps orthogonal to C,

.. math:: A\,[U, Z_p] = [C, V_{p+1}]\, G, \qquad G = \begin{pmatrix} I & B \\ 0 & \bar H \end{pmatrix},

where :math:`Z_p = M V_p`. It minimises the residual over :math:`[U, Z_p]`; then the harmonic Ritz vectors with the
smallest harmonic Ritz values become the next U.

Source: M. L. Parks, E. de Sturler, G. Mackey, D. D. Johnson and S. Maiti, SIAM J. Sci. Comput. 28 (2006), section 3 and
the appendix; with a preconditioner, the flexible form of L. M. Carvalho, S. Gratton, R. Lago and X. Vasseur, SIAM J.
Matrix Anal. Appl. 32 (2011).

Storage: restart + 2 k + 9 n-vectors, 2 k more to be kept, restart - k more with a preconditioner. Work per cycle:
restart - k products with A and M, one more with A to check, 2 (restart^2 - k^2) inner products and as many updates, and
about 3 restart k for the change of bases; a QR factorisation and an eigenproblem of size restart. Set-up for another A:
k products.
"""

from numbers import Integral
from math import isfinite
from typing import Any

import numpy as np
from scipy.linalg.lapack import get_lapack_funcs

from solvers.krylov.arnoldi import LeastSquares, orthogonalise, small_dtype
from solvers.krylov.controls import Callback, Controls
from solvers.krylov.driver import Correction, Outcome, run
from solvers.krylov.recycle import RecycleSpace, dominant_subspace
from solvers.result import Result, Status
from solvers.system import norm as euclidean_norm

_SLOW = 0.999  # a cycle that lowers the residual by less stagnates
_PATIENCE = 3  # of these in a row are too many


def gcrodr(
    A: Any,
    b: Any,
    x0: Any = None,
    *,
    rtol: float = 1e-5,
    atol: float = 0.0,
    restart: int = 40,
    k: int = 20,
    recycle: RecycleSpace | None = None,
    maxiter: int | None = None,
    M: Any = None,
    callback: Callback | None = None,
    null_space: Any = None,
    time_limit: float | None = None,
) -> Result:
    n = np.shape(b)[0] if np.ndim(b) else 1
    space = RecycleSpace() if recycle is None else recycle
    entered = False

    def iterate(problem: Correction) -> Outcome:
        nonlocal entered
        size = min(int(restart), n)
        few = max(min(int(k), size - 2), 0)
        if not entered:
            space.enter(problem.system, min(few + 1, size - 1) if few else 0)
            entered = True
        return _cycles(problem, size, few, space, last=recycle is not None)

    result = run(iterate, "gcrodr", A, b, x0, Controls(rtol, atol, maxiter, callback, time_limit), budget=10 * n, M=M, null_space=null_space)
    if entered:
        space.judge(result)
    return result


def _cycles(problem: Correction, restart: int, k: int, space: RecycleSpace, last: bool) -> Outcome:
    """Cycles on ``A d = r`` from d = 0; the rows of W are C and then V."""
    d, r, size = np.zeros_like(problem.r), problem.r, problem.norm
    W = np.empty((restart + 1, r.size), dtype=r.dtype)
    slow, dropped, renewed = 0, False, False
    while problem.budget[0] > 0:
        problem.budget[0] -= 1
        kept = len(space.U)
        step, rest, estimate = _project(r, space)
        W[:kept] = space.C
        B = np.zeros((kept, restart - kept), dtype=small_dtype(r.dtype))
        g = np.zeros(restart - kept + 1, dtype=B.dtype)
        g[0] = estimate
        small = LeastSquares(g)
        Z = W[kept:-1] if problem.precondition is None else np.empty((restart - kept, r.size), dtype=r.dtype)
        status, reason = None, ""
        if estimate > problem.target:
            W[kept] = rest / rest.real.dtype.type(estimate)
            status, reason, estimate = _extend(problem, W, Z, kept, small, B)
            p = small.count
            y = small.solution()
            step += y.astype(r.dtype) @ Z[:p]
            if kept:
                step -= (B[:, :p] @ y).astype(r.dtype) @ space.U
        candidate = d + step
        rest = problem.r - problem.system.matvec(candidate)
        new_size = euclidean_norm(rest)
        # The recurrence and the truth differ by more than a share of this cycle: A U is no longer C.
        drifted = kept > 0 and not abs(new_size - estimate) <= 1e-4 * size
        if not new_size < size:
            if drifted and not renewed:
                space.renew(problem.system)
                renewed = True
                continue
            reason = reason or "a whole cycle did not lower the residual; a larger restart or k, or a preconditioner M"
            return d, status or Status.STAGNATED, reason
        slow = slow + 1 if new_size > _SLOW * size else 0
        d, r, size = candidate, rest, new_size
        stop = problem.report(d)
        done = size <= problem.target
        over = done or status not in (None, Status.BREAKDOWN) or stop is not None
        if k and small.count and (last or not over):
            _update(space, W[: kept + small.count + 1], Z[: small.count], B[:, : small.count], small.H, k, problem.precondition is None)
        if done:
            return d, None, ""
        if over:
            return d, status or stop, reason
        if drifted and not renewed:
            space.renew(problem.system)
        renewed = drifted and not renewed
        if slow == _PATIENCE:
            if dropped or not len(space.U):
                return d, Status.STAGNATED, "stag"
            space.clear(r.size, r.dtype)
            slow, dropped = 0, True
    return d, Status.MAX_ITERATIONS, "maxiter reached"


def _project(r: np.ndarray, space: RecycleSpace) -> tuple[np.ndarray, np.ndarray, float]:
    """The step in U that makes the residual orthogonal to C, that residual, and its norm."""
    share, size = orthogonalise(r := r.copy(), space.C)
    return share.astype(r.dtype) @ space.U, r, size


def _extend(
    problem: Correction, W: np.ndarray, Z: np.ndarray, kept: int, small: LeastSquares, B: np.ndarray
) -> tuple[Status | None, str, float]:
    """Arnoldi steps on A M, orthogonal to C too, until W is full or the residual small enough; and its estimate."""
    matvec, precondition = problem.system.matvec, problem.precondition
    eps = float(np.finfo(W.dtype).eps)
    estimate = 0.0
    while kept + small.count < len(W) - 1:
        i = small.count
        v = W[kept + i]
        if precondition is not None:
            Z[i] = precondition(v)
        w = np.array(matvec(Z[i]))
        length = euclidean_norm(w)
        if not isfinite(length):
            return Status.NONFINITE_OUTPUT, "A or M returned NaN or infinity", estimate
        h, rest = orthogonalise(w, W[: kept + i + 1])
        B[:, i] = h[:kept]
        estimate = small.add(h[kept:], rest)
        status = problem.record(estimate)
        if rest <= eps * length:
            W[kept + i + 1] = 0
            reason = "the Krylov space is complete without a solution in it: A or M is singular"
            return status or Status.BREAKDOWN, reason, estimate
        W[kept + i + 1] = w / w.real.dtype.type(rest)
        if status is not None or estimate <= problem.target:
            return status, "", estimate
    return None, "", estimate


def _update(space, W, Z, B, H, k, plain):
    kept, p = B.shape
    m = kept + p
    G = np.zeros((m + 1, m), dtype=B.dtype)
    G[:kept, :kept] = np.eye(kept)
    G[:kept, kept:] = B
    G[kept:, kept:] = H[: p + 1, :p]
    Q, R = np.linalg.qr(G)
    trcon, trtrs = get_lapack_funcs(("trcon", "trtrs"), (R,))
    if not trcon(R)[0] > m * np.finfo(W.dtype).eps:
        return
    inner = np.zeros_like(G)
    inner[:, :kept] = W.conj() @ space.U.T
    if plain:
        inner[kept:m, kept:] = np.eye(p)
    else:
        inner[:, kept:] = W.conj() @ Z.T
    S = trtrs(R, (Q.conj().T @ inner).T, trans=1)[0].T
    X = dominant_subspace(S, k, float(np.sqrt(np.finfo(W.dtype).eps)))
    P = trtrs(R, X)[0].astype(W.dtype)
    U = P[kept:].T @ Z
    if kept:
        U += P[:kept].T @ space.U
    space.U, space.C = U, (Q @ X).astype(W.dtype).T @ W
