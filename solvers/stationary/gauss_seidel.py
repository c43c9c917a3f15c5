"""Gauss-Seidel: relaxation with omega = 1.

Source: Y. Saad, Iterative Methods for Sparse Linear Systems, 2nd ed. (2003), section 4.1.

Storage and work: as of `sor`.
"""

from typing import Any

from solvers.krylov.controls import Callback, Controls
from solvers.result import Result
from solvers.stationary.sor import relaxation


def gauss_seidel(
    A: Any,
    b: Any,
    x0: Any = None,
    *,
    rtol: float = 1e-5,
    atol: float = 0.0,
    maxiter: int | None = None,
    callback: Callback | None = None,
    null_space: Any = None,
    time_limit: float | None = None,
) -> Result:
    """Solve ``A x = b`` by Gauss-Seidel sweeps: `sor` with omega = 1.

    Converges for positive definite and for diagonally dominant A, slowly: the error of the smoothest mode falls by
    the square of what a Jacobi iteration does to it.

    Parameters
    ----------
    A, b, x0, rtol, atol, maxiter, callback, null_space, time_limit
        As for `sor`.

    Returns
    -------
    Result

    Examples
    --------
    >>> import numpy as np
    >>> result = gauss_seidel(np.array([[4.0, 1.0], [1.0, 3.0]]), np.array([5.0, 4.0]), rtol=1e-10)
    >>> result.converged, result.x.round(9)
    (True, array([1., 1.]))
    """
    return relaxation("gauss_seidel", A, b, x0, Controls(rtol, atol, maxiter, callback, time_limit), 1.0, null_space)
