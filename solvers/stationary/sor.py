"""Successive over-relaxation.

Source: D. M. Young, Iterative methods for solving partial differential equations of elliptic type, Trans. Amer. Math.
Soc. 76 (1954); L. F. Richardson's and R. V. Southwell's relaxation, made systematic.

Storage: 4 n-vectors (d, right-hand side, the lower products that make the residual free, one at the end). For a CSR
matrix besides A once more and 2.5 n-vectors; for a stencil its diagonal and its links once more, nothing where they are
constant. Work per iteration: one product with A, and 2 n operations.
"""

from math import isfinite, sqrt
from numbers import Real
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp

from solvers.krylov.controls import Callback, Controls
from solvers.krylov.driver import Correction, Outcome, run
from solvers.result import Result, Status
from solvers.stationary.lexicographic import Rows
from solvers.stationary.red_black import RedBlack, is_two_coloured
from solvers.system import System


def sor(
    A: Any,
    b: Any,
    x0: Any = None,
    *,
    omega: float = 1.5,
    rtol: float = 1e-5,
    atol: float = 0.0,
    maxiter: int | None = None,
    callback: Callback | None = None,
    null_space: Any = None,
    time_limit: float | None = None,
) -> Result:
    r"""Solve ``A x = b`` by successive over-relaxation,

    .. math:: x_i \leftarrow x_i + \frac{\omega}{a_{ii}} \Bigl(b_i - \sum_j a_{ij} x_j\Bigr),

    point after point with the newest values: in the order of the unknowns for a matrix, first all red and then all
    black points of the chequerboard for a StencilOperator that couples direct neighbours (not periodic, no mask).
    Converges for every positive definite A and 0 < omega < 2. The test, after each sweep, is

    .. math:: \|b - A x\|_2 \le \max(\mathrm{rtol}\,\|b\|_2, \mathrm{atol}).

    It costs no product: what a sweep meets on its way is the residual of the iterate before it. So a sweep more is
    done than was needed.

    Parameters
    ----------
    A : array, sparse matrix or array, or StencilOperator
        Shape (n, n); its entries are needed, none of the diagonal may vanish.
    b, x0, rtol, atol, callback, time_limit
        As for `cg`.
    omega : float
        Relaxation factor, between 0 and 2. The best is :math:`2 / (1 + (1 - \mu^2)^{1/2})` for a consistently ordered
        A whose Jacobi iteration has the spectral radius mu (Young 1954): for Poisson on n points a side
        :math:`2 / (1 + \sin(\pi / (n + 1)))`.
    maxiter : int, optional
        Most sweeps for each right-hand side; default 10 n.
    null_space : "constant" or array of shape (n, k), optional
        As for `cg`, for a symmetric positive semidefinite A.

    Returns
    -------
    Result
        BREAKDOWN if the residual grows beyond 1/eps times the first, or a diagonal entry is zero. On failure x is the
        last iterate, or the first guess where that has the smaller residual.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import gallery
    >>> A = gallery.poisson((31, 31))
    >>> best = 2 / (1 + np.sin(np.pi / 32))
    >>> sor(A, np.ones(961), omega=best, rtol=1e-8).iterations < 140
    True
    >>> sor(A, np.ones(961), omega=1.0, rtol=1e-8).iterations > 1000  # Gauss-Seidel
    True
    """
    return relaxation("sor", A, b, x0, Controls(rtol, atol, maxiter, callback, time_limit), omega, null_space)


def relaxation(method: str, A: Any, b: Any, x0: Any, controls: Controls, omega: float, null_space: Any) -> Result:
    """`sor` under the name of a method that is a case of it."""
    checked_omega(omega)
    n = np.shape(b)[0] if np.ndim(b) else 1
    return run(Relaxation(float(omega)), method, A, b, x0, controls, budget=10 * n, null_space=null_space)


def checked_omega(omega: Any) -> None:
    """Refuse relaxation factors with which no sweep converges (Kahan's theorem)."""
    if not isinstance(omega, Real) or not 0.0 < float(omega) < 2.0:
        raise ValueError(f"omega: expected a number between 0 and 2, both excluded, got {omega!r}")


class Sweeps(Protocol):
    """Sweeps on one system from x = 0."""

    def sweep(self, omega: float) -> float:
        """One sweep; the squared norm of the residual before it."""

    def solution(self) -> np.ndarray:
        """The iterate, shape (n,)."""


def arranged_rows(system: System) -> Rows:
    """The matrix of a system for sweeps in the order of its unknowns.

    Raises
    ------
    ValueError
        If it shows no entries.
    """
    matrix = system.matrix
    if matrix is None:
        raise ValueError(
            f"A: relaxation needs its entries, and {type(system.original).__name__} shows none; give a matrix or a "
            "StencilOperator, or use a Krylov method"
        )
    return Rows(sp.csr_array(matrix))


class Relaxation:
    """SOR as a kernel of `solvers.krylov.driver.run`; arranges the matrix at its first use and keeps it.

    Parameters
    ----------
    omega : float
    """

    def __init__(self, omega: float) -> None:
        self.omega = omega
        self._arranged: Rows | RedBlack | None = None

    def __call__(self, problem: Correction) -> Outcome:
        """Sweep on ``A d = r`` from d = 0."""
        if self._arranged is None:
            stencil = problem.system.stencil
            coloured = stencil is not None and stencil.dtype == problem.r.dtype and is_two_coloured(stencil)
            self._arranged = RedBlack(stencil) if stencil is not None and coloured else arranged_rows(problem.system)
        arranged = self._arranged
        if arranged.zero_row is not None:
            reason = f"row {arranged.zero_row} has a zero on the diagonal, which relaxation divides by"
            return np.zeros_like(problem.r), Status.BREAKDOWN, reason
        return _sweep_until_done(problem, arranged.start(problem.r), self.omega)


def _sweep_until_done(problem: Correction, sweeps: Sweeps, omega: float) -> Outcome:
    """Sweeps until one of them finds the residual of the iterate before it small enough.

    The norm that the k-th sweep finds belongs to iterate k - 1, so the history is written one sweep late; the driver
    puts the true residual in its last place.
    """
    limit = problem.norm / float(np.finfo(problem.r.dtype).eps)
    before = problem.norm
    status: Status | None = None
    sweep = 0
    while problem.budget[0] > 0 and status is None:
        problem.budget[0] -= 1
        sweep += 1
        square = sweeps.sweep(omega)
        if sweep > 1:
            before = sqrt(square) if isfinite(square) else limit
            status = problem.record(before)
        if problem.watched:
            status = status or problem.report(sweeps.solution().copy())
        if before >= limit:
            problem.record(before)
            reason = f"the residual grew by more than {limit / problem.norm:.0e}: the sweeps diverge for this A"
            return np.zeros_like(problem.r), Status.BREAKDOWN, reason
        if before <= problem.target:
            problem.record(before)
            return sweeps.solution(), None, ""
    problem.record(before)
    return sweeps.solution(), status or Status.MAX_ITERATIONS, "" if status else "maxiter reached"
