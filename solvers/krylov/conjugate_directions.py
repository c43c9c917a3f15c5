"""Conjugate directions that somebody else proposes: a network, an inner solver, a guess.

Source: A. Kaneda, O. Akar, J. Chen, V. A. T. Kala, D. Hyde, J. Teran, A deep conjugate direction method for iteratively
solving linear systems, ICML 2023, arXiv:2205.10763, algorithm 1; the fallback and its tests are ours.

Storage: 2 k + 6 n-vectors for a memory of k (k directions and their products, d, b, r, p, A p, best d). Work per
iteration: one proposal, two products with A (one of them for the true residual), k + 4 inner products and k + 1 vector
updates; M only where a proposal is of no use.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import isfinite, log
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

Propose = Callable[[np.ndarray], Any]

# A direction less than this along the residual, by the cosine of their angle, is of no use: with every cosine above c
# the error falls at least by the factor 1 - c^2 / cond(A) in the square of its A-norm, otherwise it need not fall.
_COSINE = 1e-3
# Proposals that do not halve the residual in this many iterations give way to the fallback for as many. Then the turns
# of the one that has lessened it more double in length.
_PATIENCE = 50


def conjugate_directions(
    A: Any,
    b: Any,
    propose: Propose,
    x0: Any = None,
    *,
    memory: int = 2,
    rtol: float = 1e-5,
    atol: float = 0.0,
    maxiter: int | None = None,
    M: Any = None,
    callback: Callback | None = None,
    null_space: Any = None,
    time_limit: float | None = None,
) -> Result:
    r"""Solve ``A x = b`` for symmetric positive definite A along directions proposed by any function of the residual.

    From the residual r comes a proposal, from which the last `memory` directions are taken out, and along what is left
    the step that makes the error least:

    .. math::
        p = q - \sum_j \frac{q^T A p_j}{p_j^T A p_j} p_j, \quad q = \mathrm{propose}(r), \qquad
        x \leftarrow x + \frac{p^T r}{p^T A p}\, p, \qquad r = b - A x.

    So the error never grows in the norm of A, whatever is proposed. The size and the sign of a proposal do not matter.
    One that is zero, not finite or all but orthogonal to the residual is replaced by ``M r``, and so are the next ones
    after a while without progress; consecutive steps of this fallback are those of `cg`, and convergence does not
    depend on the proposals. ``reason`` says how many were replaced. The test is

    .. math:: \|b - A x\|_2 \le \max(\mathrm{rtol}\,\|b\|_2, \mathrm{atol}).

    Parameters
    ----------
    A, b, x0, rtol, atol, callback, null_space, time_limit
        As for `cg`. The right-hand side is divided by a power of two, so that residuals come with norms of 2 at most.
    propose : callable
        ``propose(r)``: an approximation of ``A^-1 r`` up to a factor, shape ``(n,)``, for the residual r, which it must
        leave alone; may be nonlinear, and different each time.
    memory : int
        Directions to be A-orthogonal to, at least one. Two are published; where proposals are M r with a constant
        symmetric positive definite M, one is enough, and the method is `cg`.
    maxiter : int, optional
        Most iterations for each right-hand side; default 10 n.
    M : array, sparse matrix, LinearOperator, preconditioner object or callable, optional
        For the fallback: symmetric positive definite approximation of the inverse of A; the identity if None.

    Returns
    -------
    Result
        Never raises for want of convergence. On failure x is the iterate with the smallest residual.

    Raises
    ------
    ValueError, TypeError
        If an argument, or a proposal, has the wrong shape or type.

    Examples
    --------
    Random proposals are bad ones, but do no harm:

    >>> import numpy as np
    >>> from solvers import gallery
    >>> A, rng = gallery.poisson((20, 20)), np.random.default_rng(0)
    >>> result = conjugate_directions(A, np.ones(400), lambda r: rng.normal(size=400), rtol=1e-8)
    >>> result.converged
    True

    Good ones make it fast:

    >>> exact = np.linalg.inv(A.tocsr().toarray())
    >>> conjugate_directions(A, np.ones(400), lambda r: exact @ r, rtol=1e-8).iterations
    1
    """
    if not callable(propose):
        raise TypeError(f"propose: expected a callable that takes a residual, got {type(propose).__name__}")
    if not isinstance(memory, Integral) or memory < 1:
        raise ValueError(f"memory: expected a positive whole number of directions, got {memory!r}")
    controls = Controls(rtol, atol, maxiter, callback, time_limit)
    n = np.shape(b)[0] if np.ndim(b) else 1

    turns = _Turns()

    def iterate(problem: Correction) -> Outcome:
        return _iterate(problem, propose, int(memory), turns)

    result = run(
        iterate, "conjugate_directions", A, b, x0, controls, budget=10 * n, M=M, null_space=null_space, symmetric=True
    )
    if not turns.replaced:
        return result
    sentence = f"the fallback took {turns.replaced} of {turns.steps} steps, {turns.useless} for useless proposals"
    return replace(result, reason="; ".join(filter(None, [result.reason, sentence])))


@dataclass
class _Turns:
    """Whose turn it is, and how often it was the fallback's."""

    steps: int = 0
    replaced: int = 0
    useless: int = 0
    fallback: bool = False
    lengths: dict[bool, int] = field(default_factory=lambda: {False: _PATIENCE, True: _PATIENCE})
    gains: dict[bool, float] = field(default_factory=lambda: {False: 0.0, True: 0.0})
    since: int = 0
    norm: float = 0.0

    def start(self, norm: float) -> None:
        """A system begins with a residual of this norm, and with proposals."""
        self.fallback, self.since, self.norm = False, self.steps, norm

    def after(self, norm: float) -> None:
        """A step has led to this residual norm."""
        self.steps += 1
        self.replaced += self.fallback
        taken = self.steps - self.since
        if not self.fallback and norm <= 0.5 * self.norm:
            self.since, self.norm = self.steps, norm
        elif taken >= self.lengths[self.fallback] and norm > 0.0:
            self.gains[self.fallback] = log(self.norm / norm) / taken
            if self.fallback:
                self.lengths[self.gains[True] > self.gains[False]] *= 2
            self.fallback = not self.fallback
            self.since, self.norm = self.steps, norm


def _proposal(propose: Propose, r: np.ndarray) -> np.ndarray:
    """A fresh array of r's type, near one in norm if it is not zero."""
    shown = r.view()
    shown.flags.writeable = False
    q = np.asarray(propose(shown))
    if q.size != r.size:
        raise ValueError(f"propose: expected a direction of shape {r.shape}, got {q.shape}")
    if q.dtype.kind not in "fiub" and not (q.dtype.kind == "c" and r.dtype.kind == "c"):
        raise TypeError(f"propose: expected {r.dtype} numbers, got {q.dtype}")
    p = np.array(q.reshape(-1), dtype=r.dtype)
    size = euclidean_norm(p)
    return p / size if isfinite(size) and size > 0.0 else p


def _iterate(problem: Correction, propose: Propose, memory: int, turns: _Turns) -> Outcome:
    """Algorithm 1 from d = 0, with a fallback, keeping the best d."""
    system, precondition, budget = problem.system, problem.precondition, problem.budget
    rhs, r, norm, target, start = problem.r.copy(), problem.r, problem.norm, problem.target, problem.norm
    eps = float(np.finfo(r.dtype).eps)
    d = np.zeros_like(r)
    best = Best(norm)
    directions: list[tuple[np.ndarray, np.ndarray, float]] = []  # p, A p, p'A p, the newest last
    largest_curvature = 0.0
    turns.start(norm)
    while budget[0] > 0:
        budget[0] -= 1
        p = None
        if not turns.fallback:
            p = _orthogonal(_proposal(propose, r), directions)
            along, size = abs(np.vdot(p, r)), euclidean_norm(p)
            if not (isfinite(size) and size > 0.0 and along > _COSINE * size * norm):
                p = None
                turns.useless += 1
                turns.replaced += 1
        if p is None:
            z = r if precondition is None else precondition(r)
            rz = np.vdot(r, z).real
            if not rz > 0.0:
                reason = f"r'M r = {rz:.3e} for a residual r that is not zero"
                return best.of(d, norm), Status.INDEFINITE_PRECONDITIONER, reason
            p = _orthogonal(np.array(z), directions)
        q = np.array(system.matvec(p))
        curvature, square = float(np.vdot(p, q).real), float(np.vdot(p, p).real)
        # A Rayleigh quotient of A: at eps of the largest seen it is zero to rounding, and tried only if it helps.
        doubtful = curvature <= eps * largest_curvature * square
        if not curvature > 0.0:
            return best.of(d, norm), *wrong_curvature(p, q, curvature, largest_curvature * square)
        if square > 0.0:  # it may underflow
            largest_curvature = max(largest_curvature, curvature / square)
        alpha = p.dtype.type(np.vdot(p, r) / curvature)
        ahead = d + alpha * p
        r = system.residual(rhs, ahead)
        new_norm = euclidean_norm(r)
        if doubtful and not new_norm < norm:
            return best.of(d, norm), *wrong_curvature(p, q, curvature, largest_curvature * square)
        best.before_step(d, norm, new_norm)
        d, norm = ahead, new_norm
        if not isfinite(norm):
            return best.of(d, norm), Status.NONFINITE_OUTPUT, "the product with A overflowed"
        directions = [*directions, (p, q, curvature)][-memory:]
        turns.after(norm)
        stop = problem.record(norm) or problem.report(d)
        if norm <= target:
            return d, None, ""
        if stop is not None:
            return best.of(d, norm), stop, ""
        if norm > start / eps:
            return best.of(d, norm), Status.BREAKDOWN, f"the residual grew by more than 1/eps = {1 / eps:.0e}"
    return best.of(d, norm), Status.MAX_ITERATIONS, "maxiter reached"


def _orthogonal(p: np.ndarray, directions: list[tuple[np.ndarray, np.ndarray, float]]) -> np.ndarray:
    """What is left of p, in place, without its parts along the directions in the inner product of A."""
    for old, A_old, curvature in directions:
        axpy(p.dtype.type(-np.vdot(A_old, p) / curvature), old, p)
    return p
