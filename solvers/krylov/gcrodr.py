r"""GCRO-DR: GMRES with deflated restarting that takes its deflation space along to the next system.

A cycle holds U and C with :math:`A U = C`, :math:`C^H C = I`, and makes p Arnoldi steps orthogonal to C,

.. math:: A\,[U, Z_p] = [C, V_{p+1}]\, G, \qquad G = \begin{pmatrix} I & B \\ 0 & \bar H \end{pmatrix},

where :math:`Z_p = M V_p`. It minimises the residual over the span of :math:`\hat Z = [U, Z_p]`. Then the harmonic Ritz
vectors of A in that space with the smallest harmonic Ritz values become the next U.

Source: M. L. Parks, E. de Sturler, G. Mackey, D. D. Johnson and S. Maiti, Recycling Krylov subspaces for sequences of
linear systems, SIAM J. Sci. Comput. 28 (2006); with a preconditioner in the flexible form of
L. M. Carvalho, S. Gratton, R. Lago and X. Vasseur, SIAM J. Matrix Anal. Appl. 32 (2011).

Storage: restart + 4 k + 5 n-vectors, restart more with a preconditioner; 2 k remain in the recycle space. Work per
cycle: restart - k products with A and M (restart in the first without a space), one more with A to check, about
2 (restart^2 - k^2) inner products and as many updates, 3 restart k of each for the change of bases, and an eigenproblem
of size restart. Set-up for another A: k products and a QR factorisation.
"""

from dataclasses import dataclass
from math import hypot, isfinite, sqrt
from numbers import Integral
from typing import Any

import numpy as np
from scipy.linalg.lapack import get_lapack_funcs

from solvers.krylov.arnoldi import LeastSquares, orthogonalise, small_dtype
from solvers.krylov.controls import Callback, Controls
from solvers.krylov.driver import Correction, Outcome, run
from solvers.krylov.recycle import RecycleSpace, dominant_subspace
from solvers.result import Result, Status
from solvers.system import norm as euclidean_norm

_SLOW = 0.999  # a cycle that lowers the residual by less than this factor stagnates,
_PATIENCE = 3  # and so many of them in a row are too many
_DRIFT = 1e-4  # of the residual at the beginning of a cycle, by which its end may differ from what was foreseen


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
    r"""Solve ``A x = b`` for a general A by GCRO-DR, starting from what an earlier solve has learned.

    For one system it is `gmres_dr`. For a sequence it begins with the k vectors that slowed down the system before;
    that pays where they are few, and the systems alike. The test is on the true residual:

    .. math:: \|b - A x\|_2 \le \max(\mathrm{rtol}\,\|b\|_2, \mathrm{atol}).

    Parameters
    ----------
    A, b, x0, rtol, atol, M, null_space, time_limit
        As for `gmres`. M may be another one for each system, and another one in each iteration.
    restart : int
        Largest dimension of the space, the recycled vectors included.
    k : int
        Vectors to keep, 0 to restart - 2; a conjugate pair is never split, so it may be k + 1 for a real matrix.
        k = 0 is `gmres`.
    recycle : RecycleSpace, optional
        Give the same object to the solves of a sequence. It is read, filled and judged by each of them.
    maxiter : int, optional
        Most *cycles* for each right-hand side; default 10 n.
    callback : callable, optional
        Called with a fresh copy of x after each cycle; returning True stops the run.

    Returns
    -------
    Result
        As of `gmres`; ``matvecs`` holds the products of the set-up. STAGNATED also where three cycles in a row lower
        the residual by less than 0.1 %, after a fresh start without the recycled vectors.

    Notes
    -----
    The harmonic Ritz vectors are those of A, not of A M: so U is kept in solution space alone, and a changing M does it
    no harm. Without M they are those of `gmres_dr`.

    Between the first system and the last, products are saved only if the vectors spare more iterations than they are;
    the account in `RecycleSpace` sees to that.

    Examples
    --------
    >>> from solvers import RecycleSpace, gallery, gmres_dr
    >>> space, cold, recycled = RecycleSpace(), 0, 0
    >>> for A, b, _ in gallery.helmholtz_sequence(length=5, shape=(40, 40), wavenumber=12.0):
    ...     cold += gmres_dr(A, b, rtol=1e-6, restart=40, k=20).matvecs
    ...     recycled += gcrodr(A, b, rtol=1e-6, restart=40, k=20, recycle=space).matvecs
    >>> recycled < cold / 2
    True
    """
    if not isinstance(restart, Integral) or restart < 2:
        raise ValueError(f"restart: expected a whole number of at least 2, got {restart!r}")
    if not isinstance(k, Integral) or not 0 <= k <= restart - 2:
        raise ValueError(f"k: expected a whole number from 0 to restart - 2 = {restart - 2}, got {k!r}")
    if recycle is not None and not isinstance(recycle, RecycleSpace):
        raise TypeError(f"recycle: expected a RecycleSpace or None, got {type(recycle).__name__}")
    n = np.shape(b)[0] if np.ndim(b) else 1
    size = min(int(restart), n)
    few = max(min(int(k), size - 2), 0)
    controls = Controls(rtol, atol, maxiter, callback, time_limit)
    space = RecycleSpace() if recycle is None else recycle
    column: list[int] | None = None

    def iterate(problem: Correction) -> Outcome:
        nonlocal column
        if column is None:
            space.enter(problem.system, few + 1 if few else 0)
        elif column is not problem.budget and recycle is None:
            space.clear(n, problem.r.dtype)  # each right-hand side by itself
        column = problem.budget
        return _cycles(problem, size, few, space, to_be_kept=recycle is not None)

    result = run(iterate, "gcrodr", A, b, x0, controls, budget=10 * n, M=M, null_space=null_space)
    if column is not None:
        space.judge(result)
    return result


@dataclass
class _Cycle:
    """What a cycle has found: its step, the residual norm foreseen for it, G in two parts, and why it ended early."""

    step: np.ndarray
    estimate: float
    Z: np.ndarray
    B: np.ndarray
    H: np.ndarray
    status: Status | None = None
    reason: str = ""


def _cycles(problem: Correction, restart: int, k: int, space: RecycleSpace, to_be_kept: bool) -> Outcome:
    """Cycles on ``A d = r`` from d = 0; the rows of W are C and then V."""
    d, r, size = np.zeros_like(problem.r), problem.r, problem.norm
    W = np.empty((restart + 1, r.size), dtype=r.dtype)
    Z = None if problem.precondition is None else np.empty((restart, r.size), dtype=r.dtype)
    slow, dropped, renewed = 0, False, False
    while problem.budget[0] > 0:
        problem.budget[0] -= 1
        kept = len(space.U)
        cycle = _one_cycle(problem, r, space, W, Z)
        candidate = d + cycle.step
        rest = problem.r - problem.system.matvec(candidate)
        new_size = euclidean_norm(rest)
        # Where the truth is not what was foreseen, A U is no longer C; which is mended at most every second cycle.
        renew = kept > 0 and not renewed and not abs(new_size - cycle.estimate) <= _DRIFT * size
        if not new_size < size and not renew:
            reason = "a whole cycle did not lower the residual; a larger restart or k, or a preconditioner M may help"
            return d, cycle.status or Status.STAGNATED, cycle.reason or reason
        if new_size < size:
            slow = slow + 1 if new_size > _SLOW * size else 0
            d, r, size = candidate, rest, new_size
            stop = problem.report(d)
            over = size <= problem.target or cycle.status not in (None, Status.BREAKDOWN) or stop is not None
            # From a part of a cycle only the first space is made: the old one is better than few new vectors.
            full = kept + cycle.B.shape[1] == restart
            if k and not (over and not to_be_kept) and (full or not kept) and not renew:
                _update(space, W, cycle, k, flexible=Z is not None)
            if over:
                return d, None if size <= problem.target else cycle.status or stop, cycle.reason
        if renew:
            space.renew(problem.system)
        renewed = renew
        if slow == _PATIENCE:
            if dropped or not len(space.U):
                return d, Status.STAGNATED, f"{_PATIENCE} cycles in a row lowered the residual by less than 0.1 %"
            space.clear(r.size, r.dtype)
            slow, dropped = 0, True
    return d, Status.MAX_ITERATIONS, "maxiter reached"


def _one_cycle(problem: Correction, r: np.ndarray, space: RecycleSpace, W: np.ndarray, Z: np.ndarray | None) -> _Cycle:
    """Minimise the residual over U and the Arnoldi vectors of A M made orthogonal to C, until W is full or it is small.

    After the first line r is orthogonal to C, so that the least-squares problem with G falls apart: the Hessenberg part
    gives y, and the vectors of U take away what ``Z y`` brings into C.
    """
    matvec, precondition = problem.system.matvec, problem.precondition
    U, kept = space.U, len(space.U)
    most = len(W) - 1 - kept
    W[:kept] = space.C
    V = W[kept:]
    V[0] = r
    share, size = orthogonalise(V[0], W[:kept])
    B = np.zeros((kept, most), dtype=small_dtype(r.dtype))
    Z = V if Z is None else Z
    g = np.zeros(most + 1, dtype=B.dtype)
    g[0] = size
    small = LeastSquares(g)
    cycle = _Cycle(share.astype(r.dtype) @ U, size, Z[:0], B[:, :0], small.H)
    if size <= problem.target:
        return cycle
    V[0] /= size
    eps = float(np.finfo(r.dtype).eps)
    while small.count < most:
        i = small.count
        if precondition is not None:
            Z[i] = precondition(V[i])
        h, rest = orthogonalise(w := np.array(matvec(Z[i])), W[: kept + i + 1])
        length = hypot(euclidean_norm(h), rest)  # of w before
        if not isfinite(length):
            cycle.status, cycle.reason = Status.NONFINITE_OUTPUT, "A or M returned NaN or infinity"
            break
        B[:, i] = h[:kept]
        cycle.estimate = small.add(h[kept:], rest)
        cycle.status = problem.record(cycle.estimate)
        if rest <= eps * length:
            # The Krylov space is complete: with U it holds the solution, unless A or M is singular on it.
            V[i + 1] = 0
            cycle.reason = "the Krylov space is complete without a solution in it: A or M is singular"
            cycle.status = cycle.status or Status.BREAKDOWN
            break
        np.divide(w, rest, out=V[i + 1])
        if cycle.status is not None or cycle.estimate <= problem.target:
            break
    p = small.count
    y = small.solution()
    cycle.Z, cycle.B, cycle.H = Z[:p], B[:, :p], small.H[: p + 1, :p]
    cycle.step += y.astype(r.dtype) @ cycle.Z - (cycle.B @ y).astype(r.dtype) @ U
    return cycle


def _update(space: RecycleSpace, W: np.ndarray, cycle: _Cycle, k: int, flexible: bool) -> None:
    r"""Put the harmonic Ritz vectors with the k smallest harmonic Ritz values into the space.

    They solve :math:`G^H G z = \theta\, G^H W^H \hat Z z`. With :math:`G = Q R` and :math:`t = R z` that is
    :math:`S t = \theta^{-1} t`, :math:`S = Q^H W^H \hat Z R^{-1}`, where nothing is squared, and which is Hermitian if
    A is, whatever M. An orthonormal basis X of the invariant subspace gives :math:`U = \hat Z R^{-1} X` and
    :math:`C = W Q X` with orthonormal columns and :math:`A U = C` at once.

    Scaling U to unit columns, as Parks et al. do, changes neither Q nor the result: R and Householder's Q follow.
    """
    kept, p = cycle.B.shape
    m = kept + p
    W = W[: m + 1]
    G = np.zeros((m + 1, m), dtype=cycle.B.dtype)
    G[range(kept), range(kept)] = 1
    G[:kept, kept:], G[kept:, kept:] = cycle.B, cycle.H
    Q, R = np.linalg.qr(G)
    trcon, trtrs = get_lapack_funcs(("trcon", "trtrs"), (R,))
    eps = float(np.finfo(W.dtype).eps)
    if not trcon(R)[0] > m * eps:
        return  # A is singular on the space, to rounding
    inner = np.zeros_like(G)
    inner[:, :kept] = (W @ space.U.conj().T).conj()
    if flexible:
        inner[:, kept:] = (W @ cycle.Z.conj().T).conj()
    else:
        inner[range(kept, m), range(kept, m)] = 1  # Z is V
    S = trtrs(R, (Q.conj().T @ inner).T, trans=1)[0].T
    X = dominant_subspace(S, k, sqrt(eps))
    P = trtrs(R, X)[0].astype(W.dtype)
    U = P[kept:].T @ cycle.Z
    if kept:
        U += P[:kept].T @ space.U
    space.U, space.C = U, (Q @ X).astype(W.dtype).T @ W
