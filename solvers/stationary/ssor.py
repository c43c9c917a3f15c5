"""Symmetric successive over-relaxation: a forward and a backward sweep.

Source: D. M. Young, Iterative Solution of Large Linear Systems (1971), chapter 15.

Storage: 5 n-vectors (those of `richardson`) and A once more, scaled; twice more while its symmetry is looked at. Work
per iteration: one product with A, and both sweeps, which together are one pass over A.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from solvers.krylov.controls import Callback, Controls
from solvers.krylov.driver import run
from solvers.precondition.ssor import SSOR
from solvers.result import Result
from solvers.stationary.richardson import richardson
from solvers.stationary.sor import checked_omega


def ssor(
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
    r"""Solve ``A x = b`` by symmetric SOR: `sor` in the order of the unknowns, and then in the reverse order.

    .. math:: x \leftarrow x + \omega (2 - \omega)\, (D + \omega U)^{-1} D\, (D + \omega L)^{-1} (b - A x)

    Converges for every symmetric positive definite A and 0 < omega < 2; the error falls monotonically in the norm of A.
    As an iteration it is seldom worth its price; as a preconditioner (`SSOR`) it is.

    Parameters
    ----------
    A : array, sparse matrix or array, or StencilOperator
        Shape (n, n); its entries are needed, none of the diagonal may vanish.
    b, x0, rtol, atol, callback, null_space, time_limit
        As for `cg`.
    omega : float
        Relaxation factor, between 0 and 2.
    maxiter : int, optional
        Most iterations for each right-hand side; default 10 n.

    Returns
    -------
    Result
        BREAKDOWN if the residual grows beyond 1/eps times the first. On failure x is the best iterate.

    Raises
    ------
    ValueError
        If omega is out of range, or the diagonal has a zero or A shows no entries.

    Examples
    --------
    >>> result = ssor(np.array([[4.0, 1.0], [1.0, 3.0]]), np.array([5.0, 4.0]), omega=1.0, rtol=1e-10)
    >>> result.converged, result.x.round(9)
    (True, array([1., 1.]))
    """
    checked_omega(omega)
    controls = Controls(rtol, atol, maxiter, callback, time_limit)
    n = np.shape(b)[0] if np.ndim(b) else 1
    M = SSOR(float(omega))
    result = run(richardson, "ssor", A, b, x0, controls, budget=10 * n, M=M, null_space=null_space)
    return replace(result, method="ssor")  # M is the method
