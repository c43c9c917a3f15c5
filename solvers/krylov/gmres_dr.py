"""GMRES with deflated restarting: each cycle begins with what slowed down the one before.

Source: R. B. Morgan, GMRES with deflated restarting, SIAM J. Sci. Comput. 24 (2002), algorithm of section 2.4,
right-preconditioned.

Storage: restart + k + 6 n-vectors. Work per cycle: restart products with A and M in the first, restart - k in each
later one, one product with A more to check; restart^2 inner products and updates, restart k more for the change of
basis, and an eigenproblem of size restart.
"""

from numbers import Integral
from typing import Any

import numpy as np
from scipy.linalg import eig

from solvers.krylov.arnoldi import LeastSquares, orthogonalise, small_dtype
from solvers.krylov.controls import Callback, Controls
from solvers.krylov.driver import Correction, Outcome, run
from solvers.krylov.gmres import extend
from solvers.result import Result, Status
from solvers.system import norm as euclidean_norm


def gmres_dr(
    A: Any,
    b: Any,
    x0: Any = None,
    *,
    rtol: float = 1e-5,
    atol: float = 0.0,
    restart: int = 30,
    k: int = 10,
    maxiter: int | None = None,
    M: Any = None,
    callback: Callback | None = None,
    null_space: Any = None,
    time_limit: float | None = None,
) -> Result:
    r"""Solve ``A x = b`` for a general A by GMRES with deflated restarting.

    A restart keeps the k harmonic Ritz vectors with the smallest harmonic Ritz values beside the residual, so that
    eigenvalues near zero slow down the first cycles only. The test is on the true residual:

    .. math:: \|b - A x\|_2 \le \max(\mathrm{rtol}\,\|b\|_2, \mathrm{atol}).

    Parameters
    ----------
    A, b, x0, rtol, atol, M, null_space, time_limit
        As for `gmres`.
    restart : int
        Largest dimension of the space, the kept vectors included.
    k : int
        Vectors to keep, 0 to restart - 2; a conjugate pair is never split, so it may be k + 1 for a real matrix.
        k = 0 is `gmres`.
    maxiter : int, optional
        Most *cycles* for each right-hand side; default 10 n.
    callback : callable, optional
        Called with a fresh copy of x after each cycle; returning True stops the run.

    Returns
    -------
    Result
        As of `gmres`.

    Examples
    --------
    Ten small eigenvalues; plain GMRES forgets them at each restart:

    >>> import numpy as np
    >>> from solvers import gmres
    >>> A = np.diag(np.r_[np.arange(1, 11) / 100, np.arange(11, 301)])
    >>> gmres_dr(A, np.ones(300), rtol=1e-8, restart=30, k=10).iterations < 250
    True
    >>> gmres(A, np.ones(300), rtol=1e-8, restart=30, maxiter=30).converged
    False
    """
    if not isinstance(restart, Integral) or restart < 2:
        raise ValueError(f"restart: expected a whole number of at least 2, got {restart!r}")
    if not isinstance(k, Integral) or not 0 <= k <= restart - 2:
        raise ValueError(f"k: expected a whole number from 0 to restart - 2 = {restart - 2}, got {k!r}")
    n = np.shape(b)[0] if np.ndim(b) else 1
    controls = Controls(rtol, atol, maxiter, callback, time_limit)

    def iterate(problem: Correction) -> Outcome:
        size = min(int(restart), n)
        return _cycles(problem, size, max(min(int(k), size - 2), 0))

    return run(iterate, "gmres_dr", A, b, x0, controls, budget=10 * n, M=M, null_space=null_space)


def _cycles(problem: Correction, restart: int, k: int) -> Outcome:
    """Cycles on ``A d = r`` from d = 0; row j of V is the j-th basis vector, `block` the first part of its Hessenberg
    matrix where a restart has kept vectors."""
    d = np.zeros_like(problem.r)
    r, size = problem.r, problem.norm
    V = np.empty((restart + 1, r.size), dtype=r.dtype)
    block: np.ndarray | None = None
    while problem.budget[0] > 0:
        problem.budget[0] -= 1
        g = np.zeros(restart + 1, dtype=small_dtype(r.dtype))
        if block is None:
            V[0] = r / size
            g[0] = size
        else:
            g[: len(block)] = V[: len(block)].conj() @ r
        small = LeastSquares(g, block)
        status, reason = extend(problem, V, small)
        y = small.solution()
        step = y.astype(r.dtype) @ V[: small.count]
        candidate = d + (step if problem.precondition is None else problem.precondition(step))
        r = problem.r - problem.system.matvec(candidate)
        new_size = euclidean_norm(r)
        if not new_size < size:
            reason = reason or "a whole cycle did not lower the residual; a larger restart or k, or a preconditioner M"
            return d, status or Status.STAGNATED, reason
        d, size = candidate, new_size
        stop = problem.report(d)
        if size <= problem.target:
            return d, None, ""
        if status not in (None, Status.BREAKDOWN) or stop is not None:
            return d, status or stop, reason
        block = None
        if k and status is None and small.count == restart:
            block = _deflate(V, small.H, g - small.H @ y, k)
            kept = V[: len(block)]
            # The kept space holds the residual, up to what rounding has done to the recurrence.
            if euclidean_norm(r - (kept.conj() @ r) @ kept) > 1e-4 * size:
                block = None
    return d, Status.MAX_ITERATIONS, "maxiter reached"


def _deflate(V: np.ndarray, H: np.ndarray, rest: np.ndarray, k: int) -> np.ndarray:
    """Put an orthonormal basis of harmonic Ritz vectors and residual first in V; what A M does to them, (k + 1, k).

    `rest` is the residual in the old basis. All harmonic residuals are parallel to it (Morgan 2002, section 2.2), which
    is why the new space is closed: A M maps the Ritz vectors into themselves and the residual.
    """
    P = harmonic_ritz_basis(H, k)
    kept = P.shape[1]
    P = np.vstack([P, np.zeros((1, kept))])
    P = np.linalg.qr(np.column_stack([P, rest]))[0]
    block = P.conj().T @ (H @ P[:-1, :kept])
    V[: kept + 1] = P.astype(V.dtype).T @ V
    last = V[kept]
    orthogonalise(last, V[:kept])
    last /= last.real.dtype.type(euclidean_norm(last))
    return block


def harmonic_ritz_basis(H: np.ndarray, k: int) -> np.ndarray:
    r"""Basis of the harmonic Ritz vectors with the k smallest harmonic Ritz values.

    They solve :math:`\bar H^* \bar H z = \theta H^* z` with H the square part of :math:`\bar H`. With
    :math:`\bar H = Q R` that is :math:`Q_1^* z = \theta^{-1} R z`, where nothing is squared and a singular R does no
    harm.

    Parameters
    ----------
    H : ndarray, shape (m + 1, m)
    k : int

    Returns
    -------
    ndarray, shape (m, k) or, where k would split a conjugate pair of a real matrix, (m, k + 1)
        Real for a real H: real and imaginary parts stand for a pair.

    Examples
    --------
    >>> harmonic_ritz_basis(np.array([[1.0, 0.0], [0.0, 3.0], [0.0, 0.0]]), 1)
    array([[1.],
           [0.]])
    """
    Q, R = np.linalg.qr(H)
    inverse_values, vectors = eig(Q[:-1].conj().T, R)
    size = np.nan_to_num(np.abs(inverse_values), nan=0.0, posinf=np.inf)
    columns: list[np.ndarray] = []
    for i in np.argsort(-size, kind="stable"):
        if len(columns) >= k:
            break
        z = vectors[:, i]
        if H.dtype.kind == "c":
            columns.append(z)
        elif inverse_values[i].imag > 0:
            columns += [z.real, z.imag]
        elif inverse_values[i].imag == 0 or not np.isfinite(inverse_values[i]):
            columns.append(z.real)
    return np.column_stack(columns)
