r"""Minimum residuals for symmetric (Hermitian) systems that need not be definite.

Source: C. C. Paige and M. A. Saunders, Solution of sparse indefinite systems of linear equations, SIAM J. Numer. Anal.
12 (1975); with a preconditioner as in H. C. Elman, D. J. Silvester, A. J. Wathen, Finite Elements and Fast Iterative
Solvers, 2nd ed. (2014), algorithm 4.1; the least-squares test after C. C. Paige, S.-C. T. Choi, M. A. Saunders,
MINRES-QLP, SIAM J. Sci. Comput. 33 (2011), section 5.

Storage: 8 n-vectors (d, best d, 3 Lanczos vectors, 2 directions, A z), four more with a preconditioner (2 images
under M, the residual, a temporary). Work per iteration: one product with A, one with M, 2 inner products (3 with M),
5 vector updates (7 with M).
"""

from collections.abc import Callable
from math import hypot, isfinite, sqrt
from typing import Any

import numpy as np

from solvers.krylov.best import Best
from solvers.krylov.controls import Callback, Controls
from solvers.krylov.driver import Correction, Outcome, run
from solvers.krylov.updates import axpy
from solvers.result import Result, Status
from solvers.system import norm as euclidean_norm


def minres(
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
    r"""Solve ``A x = b`` for symmetric (Hermitian) A, definite or not, by minimum residuals.

    Each iterate has the smallest residual over the Krylov space, in the 2-norm, or with a preconditioner in the norm
    :math:`(r^* M r)^{1/2}`. The test is on the true residual in either case:

    .. math:: \|b - A x\|_2 \le \max(\mathrm{rtol}\,\|b\|_2, \mathrm{atol}).

    Parameters
    ----------
    A, b, x0, rtol, atol, callback, null_space, time_limit
        As for `cg`; A need not be definite.
    M : array, sparse matrix, LinearOperator, preconditioner object or callable, optional
        Approximates the inverse of A; must itself be symmetric positive *definite*, although A is not.
    maxiter : int, optional
        Most iterations for each right-hand side; default 5 n, as scipy's.

    Returns
    -------
    Result
        For a singular A and a b outside its range the status is INCONSISTENT and x a least-squares
        solution in the norm above.
        INDEFINITE_OPERATOR says that A is not symmetric.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import gallery
    >>> A = gallery.helmholtz((20, 20), wavenumber=0.5)  # indefinite
    >>> result = minres(A, np.ones(400), rtol=1e-8)
    >>> result.converged, bool(np.all(np.diff(result.history) <= 0))
    (True, True)
    """
    controls = Controls(rtol, atol, maxiter, callback, time_limit)
    n = np.shape(b)[0] if np.ndim(b) else 1
    return run(_iterate, "minres", A, b, x0, controls, budget=5 * n, M=M, null_space=null_space, symmetric=True)


def _iterate(problem: Correction) -> Outcome:
    r"""Lanczos on A in the inner product of M, and one new Givens rotation a step.

    With :math:`v_j` the Lanczos vectors, orthonormal in the inner product of M, and :math:`z_j = M v_j`,

    .. math:: A z_j = \gamma_j v_{j-1} + \delta_j v_j + \gamma_{j+1} v_{j+1}.

    The j-th rotation eliminates :math:`\gamma_{j+1}` and leaves :math:`|\eta_j| = s_1 \cdots s_j |\eta_0|`, the norm
    of the residual that is minimised. The residual itself, whose 2-norm is wanted where there is an M, follows from
    :math:`r_j = s_j^2 r_{j-1} + c_j \eta_j v_{j+1}`.
    """
    matvec, precondition, budget = problem.system.matvec, problem.precondition, problem.budget
    real = problem.r.real.dtype.type
    eps = float(np.finfo(real).eps)
    target, norm = problem.target, problem.norm
    d = np.zeros_like(problem.r)
    best = Best(norm)
    residual = None if precondition is None else problem.r.copy()
    v, v_old = problem.r, np.zeros_like(d)
    w, w_old = np.zeros_like(d), np.zeros_like(d)
    z, eta, fault = _length(v, precondition, 0.0)
    if fault is not None or eta == 0.0:
        return d, *(fault or (Status.INDEFINITE_PRECONDITIONER, "r'M r = 0 for a residual r that is not zero"))
    v, z = _divided(v, z, eta)
    gamma, size = 0.0, 0.0  # gamma_1 has no v_0 to go with; `size` follows the norm of A in the inner product of M
    c, c_old, s, s_old = 1.0, 1.0, 0.0, 0.0
    least_squares: np.ndarray | None = None
    smallest_normal, least_norm, A_norm = 1.0, norm, 0.0
    while budget[0] > 0:
        budget[0] -= 1
        q = np.array(matvec(z))
        if least_squares is not None:
            A_norm = max(A_norm, euclidean_norm(q) / euclidean_norm(z))
        delta = float(np.vdot(z, q).real)
        if not isfinite(delta):
            return best.of(d, norm), Status.NONFINITE_OUTPUT, "A returned NaN or infinity"
        axpy(real(-delta), v, q)
        axpy(real(-gamma), v_old, q)
        y, gamma_next, fault = _length(q, precondition, 10 * eps * max(size, abs(delta)))
        if fault is not None:
            return best.of(d, norm), *fault
        size = max(size, hypot(gamma, delta, gamma_next))
        if size == 0.0:
            return d, Status.INCONSISTENT, "A z = 0 for the first direction z, on which b is not zero"
        diagonal = c * delta - c_old * s * gamma
        # eta times this length is || M^(1/2) A r || for the residual r before the step: where it falls to sqrt(eps), d
        # is a least-squares solution if A is singular, and something to step over if A is only badly conditioned.
        normal = hypot(diagonal, c * gamma_next) / size
        if normal <= 10 * sqrt(eps) and normal < 0.5 * smallest_normal:
            smallest_normal, least_squares, least_norm = normal, d.copy(), norm
        # A singular A makes d grow until the rounding of A d is as large as the residual.
        if gamma_next == 0.0 and abs(diagonal) <= 10 * eps * size:
            return d, Status.INCONSISTENT, "A is singular on the Krylov space, which is complete"
        if least_squares is not None and 100 * eps * A_norm * euclidean_norm(d) > least_norm:
            return (
                least_squares,
                Status.INCONSISTENT,
                (
                    "the residual became orthogonal to the range of A to rounding, and then x grew without bound: A is "
                    "singular and x is a least-squares solution; give its null_space for the smallest one"
                ),
            )
        radius = hypot(diagonal, gamma_next)
        above, far_above = s * delta + c_old * c * gamma, s_old * gamma
        c_old, s_old, c, s = c, s, diagonal / radius, gamma_next / radius
        # w_next = (z - far_above w_old - above w) / radius, in the place of w_old
        w_old *= real(-far_above / radius)
        axpy(real(-above / radius), w, w_old)
        axpy(real(1.0 / radius), z, w_old)
        w, w_old = w_old, w
        step, eta = c * eta, -s * eta
        v_old = v
        if gamma_next > 0.0:
            v, z = _divided(q, y, gamma_next)
        gamma = gamma_next
        if residual is None:
            new_norm = abs(eta)
        else:
            residual *= real(s * s)
            axpy(real(c * eta), v, residual)
            new_norm = euclidean_norm(residual)
        best.before_step(d, norm, new_norm)
        axpy(real(step), w, d)
        norm = new_norm
        stop = problem.record(norm) or problem.report(d)
        if norm <= target or gamma == 0.0:  # the Krylov space is complete: the next round, if any, has a new one
            return best.of(d, norm), None, ""
        if stop is not None:
            return best.of(d, norm), stop, ""
    return best.of(d, norm), Status.MAX_ITERATIONS, "maxiter reached"


def _length(
    v: np.ndarray, precondition: Callable[[np.ndarray], np.ndarray] | None, negligible: float
) -> tuple[np.ndarray, float, tuple[Status, str] | None]:
    """``M v`` and ``(v' M v)^(1/2)``, zero where that is rounding; or what is wrong with M."""
    if precondition is None:
        length = euclidean_norm(v)
        if not isfinite(length):
            return v, 0.0, (Status.NONFINITE_OUTPUT, "A returned NaN or infinity")
        return v, length if length > negligible else 0.0, None
    z = precondition(v)
    square = float(np.vdot(v, z).real)
    if not isfinite(square):
        return z, 0.0, (Status.NONFINITE_OUTPUT, "M returned NaN or infinity")
    if square <= negligible**2 and square >= -(negligible**2):
        return z, 0.0, None
    if square < 0.0:
        return z, 0.0, (Status.INDEFINITE_PRECONDITIONER, f"v'M v = {square:.3e} for a vector v that is not zero")
    return z, sqrt(square), None


def _divided(v: np.ndarray, z: np.ndarray, by: float) -> tuple[np.ndarray, np.ndarray]:
    """Both vectors over a number, the first in place; one array if they are one."""
    factor = v.real.dtype.type(1.0 / by)
    if z is v:
        v *= factor
        return v, v
    z = z * factor  # what M returned is not to be written to, and may even be v
    v *= factor
    return v, z
