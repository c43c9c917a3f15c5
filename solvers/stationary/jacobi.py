"""Damped Jacobi iteration.

Source: C. G. J. Jacobi, Astronomische Nachrichten 22 (1845); Y. Saad, Iterative Methods for Sparse Linear Systems, 2nd
ed. (2003), section 4.1.

Storage: 7 n-vectors (those of `richardson`, the diagonal and its inverse). Work per iteration: one product with A and n
multiplications.
"""

from dataclasses import replace
from typing import Any, Self

import numpy as np

from solvers.krylov.controls import Callback, Controls
from solvers.krylov.driver import run
from solvers.precondition.jacobi import Jacobi
from solvers.result import Result
from solvers.stationary.richardson import richardson
from solvers.stationary.sor import checked_omega


def jacobi(
    A: Any,
    b: Any,
    x0: Any = None,
    *,
    omega: float = 1.0,
    rtol: float = 1e-5,
    atol: float = 0.0,
    maxiter: int | None = None,
    callback: Callback | None = None,
    null_space: Any = None,
    time_limit: float | None = None,
) -> Result:
    r"""Solve ``A x = b`` by the Jacobi iteration,

    .. math:: x \leftarrow x + \omega D^{-1} (b - A x), \qquad D = \mathrm{diag}(A).

    Converges if and only if the spectral radius of :math:`I - \omega D^{-1} A` is below 1: for a strictly diagonally
    dominant A with omega = 1, for a symmetric positive definite one with
    :math:`0 < \omega < 2 / \lambda_{\max}(D^{-1} A)`.

    Parameters
    ----------
    A : array, sparse matrix or array, StencilOperator, or an operator with a method ``diagonal``
        Shape (n, n); no entry of the diagonal may vanish.
    b, x0, rtol, atol, callback, null_space, time_limit
        As for `cg`.
    omega : float
        Damping, between 0 and 2; 1 is Jacobi's own method.
    maxiter : int, optional
        Most iterations for each right-hand side; default 10 n.

    Returns
    -------
    Result
        BREAKDOWN if the residual grows beyond 1/eps times the first. On failure x is the best iterate.

    Raises
    ------
    ValueError
        If omega is out of range, or the diagonal has a zero or cannot be seen.

    Examples
    --------
    >>> result = jacobi(np.array([[4.0, 1.0], [1.0, 3.0]]), np.array([5.0, 4.0]), rtol=1e-10)
    >>> result.converged, result.x.round(9)
    (True, array([1., 1.]))
    """
    checked_omega(omega)
    controls = Controls(rtol, atol, maxiter, callback, time_limit)
    n = np.shape(b)[0] if np.ndim(b) else 1
    M = _Damped(float(omega))
    result = run(richardson, "jacobi", A, b, x0, controls, budget=10 * n, M=M, null_space=null_space)
    return replace(result, method="jacobi")  # M is the method


class _Damped(Jacobi):
    """omega times the inverse diagonal."""

    def __init__(self, omega: float) -> None:
        super().__init__()
        self._omega = omega

    def setup(self, A: Any) -> Self:
        super().setup(A)
        self._inverse = self._inverse * self._inverse.real.dtype.type(self._omega)
        return self
