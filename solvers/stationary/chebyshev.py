r"""Chebyshev semi-iteration: the best polynomial for a spectrum known to lie in an interval, without inner products.

Source: G. H. Golub and R. S. Varga, Chebyshev semi-iterative methods, Numer. Math. 3 (1961); Y. Saad, Iterative Methods
for Sparse Linear Systems, 2nd ed. (2003), algorithm 12.1. The bounds come from the Lanczos process inside conjugate
gradients, the upper one made safe by its residual: Y. Zhou and R.-C. Li, Linear Algebra Appl. 435 (2011). The lower
one follows the convergence: L. A. Hageman and D. M. Young, Applied Iterative Methods (1981), chapter 5.

Storage: 5 n-vectors (d, r, p, A p, best d), two more with a preconditioner. Work per iteration: one product with A,
one with M, one norm and 3 vector updates; 20 products and preconditioner applications before, if no bounds are given.
"""

from collections.abc import Callable
from math import acosh, cosh, exp, expm1, isfinite, log, log1p, sqrt
from typing import Any

import numpy as np
from scipy.linalg import eigh_tridiagonal

from solvers.krylov.best import Best
from solvers.krylov.controls import Callback, Controls
from solvers.krylov.driver import Correction, Outcome, run
from solvers.krylov.updates import axpy
from solvers.result import Result, Status
from solvers.system import norm as euclidean_norm

_STEPS = 20  # of the Lanczos process: the upper end is then within a few per cent, the lower one a guess
_PATIENCE = 12  # steps with one interval before convergence is held against it


def chebyshev(
    A: Any,
    b: Any,
    x0: Any = None,
    *,
    bounds: tuple[float, float] | None = None,
    rtol: float = 1e-5,
    atol: float = 0.0,
    maxiter: int | None = None,
    M: Any = None,
    callback: Callback | None = None,
    null_space: Any = None,
    time_limit: float | None = None,
) -> Result:
    r"""Solve ``A x = b``, A symmetric (Hermitian) positive definite, by the Chebyshev semi-iteration.

    If the eigenvalues of M A lie in [a, b], then after k iterations

    .. math:: \|e_k\|_A \le \frac{2 c^k}{1 + c^{2k}} \|e_0\|_A, \qquad
              c = \frac{\sqrt{b/a} - 1}{\sqrt{b/a} + 1},

    which is also the bound for conjugate gradients; those do better, where inner products cost little.

    Parameters
    ----------
    A, b, x0, rtol, atol, M, callback, null_space, time_limit
        As for `cg`.
    bounds : (float, float), optional
        a and b, positive. An a that is too large slows the convergence, a b that is too small makes it diverge.
        Default: the extreme Ritz values of 20 steps of the Lanczos process, the upper one with a margin, the lower one
        lowered whenever convergence shows that it was too large.
    maxiter : int, optional
        Most iterations for each right-hand side; default 10 n.

    Returns
    -------
    Result
        BREAKDOWN if the residual grows beyond 1/eps times the first, INDEFINITE_OPERATOR or INDEFINITE_PRECONDITIONER
        if the Lanczos process meets a wrong sign. On failure x is the best iterate.

    Raises
    ------
    ValueError
        If bounds are not two positive numbers in this order.

    Examples
    --------
    >>> from solvers import gallery
    >>> A = gallery.poisson((30, 30))
    >>> result = chebyshev(A, np.ones(900), rtol=1e-8)
    >>> result.converged, result.iterations < 250
    (True, True)
    """
    controls = Controls(rtol, atol, maxiter, callback, time_limit)
    if bounds is not None:
        low, high = (float(bound) for bound in bounds)
        if not (0 < low <= high and isfinite(high)):
            raise ValueError(f"bounds: expected two positive numbers, the smaller one first, got {bounds!r}")
        bounds = low, high
    n = np.shape(b)[0] if np.ndim(b) else 1
    kernel = _Chebyshev(bounds)
    return run(kernel, "chebyshev", A, b, x0, controls, budget=10 * n, M=M, null_space=null_space, symmetric=True)


class _Chebyshev:
    """The kernel. Without bounds it finds them at its first use, and in each solve lowers the lower one as it must."""

    def __init__(self, bounds: tuple[float, float] | None) -> None:
        self._bounds = bounds
        self._adaptive = bounds is None

    def __call__(self, problem: Correction) -> Outcome:
        if self._bounds is None:
            found = spectral_bounds(problem)
            if isinstance(found[0], Status):
                return np.zeros_like(problem.r), found[0], str(found[1])
            self._bounds = found
        assert self._bounds is not None
        matvec, precondition, r, norm = problem.system.matvec, problem.precondition, problem.r, problem.norm
        real = r.real.dtype.type
        limit = norm / float(np.finfo(r.dtype).eps)
        d, p, best = np.zeros_like(r), np.empty_like(r), Best(norm)
        steps, first, rho = 0, norm, 0.0
        low, high = self._bounds
        while problem.budget[0] > 0:
            theta, delta = (high + low) / 2, (high - low) / 2
            z = r if precondition is None else np.ascontiguousarray(precondition(r))
            if steps and delta:  # with delta = 0 one step is exact, and what is left is rounding
                rho_next = 1.0 / (2.0 * theta / delta - rho)
                p *= real(rho_next * rho)
                axpy(real(2.0 * rho_next / delta), z, p)
                rho = rho_next
            else:
                np.multiply(z, real(1 / theta), out=p)
                rho = delta / theta
            problem.budget[0] -= 1
            steps += 1
            axpy(real(-1), matvec(p), r)
            new_norm = euclidean_norm(r)
            best.before_step(d, norm, new_norm)
            axpy(real(1), p, d)
            norm = new_norm
            if not isfinite(norm) or norm > limit:
                return (
                    best.of(d, norm if isfinite(norm) else limit),
                    Status.BREAKDOWN,
                    f"the residual grew by more than {limit / problem.norm:.0e}: the upper bound {high:.3e} is below "
                    "the largest eigenvalue, or A is not positive definite",
                )
            stop = problem.record(norm) or problem.report(d)
            if norm <= problem.target:
                return d, None, ""
            if stop is not None:
                return best.of(d, norm), stop, ""
            if self._adaptive and steps >= _PATIENCE:
                lower = lower_bound(low, high, steps, norm / first)
                if lower < low:
                    low, steps, first = lower, 0, norm
        return best.of(d, norm), Status.MAX_ITERATIONS, "maxiter reached"


def lower_bound(low: float, high: float, steps: int, fall: float) -> float:
    r"""The smallest eigenvalue that a fall of the residual shows, `low` if that is no lower.

    With the interval [low, high], centre theta and half width delta, a residual along an eigenvector of the value
    lambda below it falls in k steps by :math:`T_k((\theta - \lambda)/\delta) / T_k(\theta/\delta)`, all others by more.
    Convergence as slow as the 3/4 power of what the interval promises is put down to the interval (Hageman and Young
    1981, section 5.4).

    Examples
    --------
    >>> promised = 1 / np.cosh(10 * np.arccosh(1.1 / 0.9))
    >>> lower_bound(0.2, 2.0, 10, promised)
    0.2
    >>> fall = np.cosh(10 * np.arccosh(1.05 / 0.9)) * promised  # of an eigenvector of the value 0.05
    >>> round(lower_bound(0.2, 2.0, 10, fall), 12)
    0.05
    """
    theta, delta = (high + low) / 2, (high - low) / 2
    if not delta:
        return low
    # Logarithms, for T_k(x) = cosh(k acosh x) overflows.
    argument = steps * acosh(theta / delta)
    promised = argument + log1p(exp(-2 * argument)) - log(2)
    if log(fall) <= -0.75 * promised:
        return low
    value = max(log(fall) + promised, 0.0)
    along = (value + log1p(sqrt(-expm1(-2 * value)))) / steps  # acosh of exp(value)
    eigenvalue = theta - delta * cosh(along)
    return min(low, max(eigenvalue, low / 10))


def spectral_bounds(problem: Correction) -> tuple[float, float] | tuple[Status, str]:
    """Bounds of the spectrum of M A by conjugate gradients on a random vector; or what is wrong with A or M.

    From the coefficients alpha and beta the Lanczos matrix T has the diagonal ``1/alpha_j + beta_{j-1}/alpha_{j-1}``
    and beside it ``sqrt(beta_j)/alpha_j``. The largest Ritz value lies below the largest eigenvalue by at most the
    coefficient that couples T to what comes next.
    """
    matvec, precondition = problem.system.matvec, problem.precondition
    # Not from the right-hand side, from which eigenvectors may be missing; and so they are the same for all.
    r = np.random.default_rng(0).standard_normal(problem.r.size).astype(problem.r.dtype)
    real = r.real.dtype.type
    diagonal: list[float] = []
    beside: list[float] = []
    p = np.zeros_like(r)
    z, rz, fault = _measured(r, precondition)
    if fault is not None:
        return fault
    beta, alpha, first = 0.0, 1.0, rz
    while len(diagonal) < min(_STEPS, r.size) and rz > np.finfo(r.dtype).eps ** 2 * first:
        p *= real(beta)
        p += z
        q = matvec(p)
        curvature = float(np.vdot(p, q).real)
        if not isfinite(curvature):
            return Status.NONFINITE_OUTPUT, "A returned NaN or infinity"
        if curvature <= 0.0:
            return Status.INDEFINITE_OPERATOR, f"met a direction p with p'A p = {curvature:.1e}, not positive"
        diagonal.append(curvature / rz + (beta / alpha if diagonal else 0.0))
        alpha = rz / curvature
        axpy(real(-alpha), q, r)
        z, rz_next, fault = _measured(r, precondition)
        if fault is not None:
            return fault
        beta, rz = rz_next / rz, rz_next
        beside.append(sqrt(beta) / alpha)
    values, vectors = eigh_tridiagonal(np.array(diagonal), np.array(beside[:-1]))
    return float(values[0]), float(values[-1] + beside[-1] * abs(vectors[-1, -1])) * (1 + 1e-3)


def _measured(
    r: np.ndarray, precondition: Callable[[np.ndarray], np.ndarray] | None
) -> tuple[np.ndarray, float, tuple[Status, str] | None]:
    """M r and r'M r, and what is wrong with it."""
    z = r if precondition is None else precondition(r)
    rz = float(np.vdot(r, z).real)
    if not isfinite(rz):
        return z, rz, (Status.NONFINITE_OUTPUT, "A or M returned NaN or infinity")
    if rz < 0.0:
        return z, rz, (Status.INDEFINITE_PRECONDITIONER, f"r'M r = {rz:.3e} for a residual r that is not zero")
    return z, rz, None
