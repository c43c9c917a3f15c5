"""Given A and b: find x, and prove it.

>>> import numpy as np
>>> from solvers import gallery, solve
>>> A = gallery.poisson((30, 30))  # or any array, sparse matrix, LinearOperator or callable
>>> b = np.ones(900)
>>> result = solve(A, b, rtol=1e-10)
>>> bool(np.linalg.norm(b - A @ result.x) <= 1e-10 * np.linalg.norm(b))
True
>>> x, info = solve(A, b)  # scipy's way

`solve` chooses the method, raises if the tolerance is missed, and says in ``print(result)`` what it did. The methods
below it, `cg`, `gmres` and `direct`, have scipy's signatures and never raise for want of convergence: look at
``result.status``.
"""

from solvers import gallery, ordering
from solvers.api import solve
from solvers.direct import Factorisation, direct
from solvers.krylov.bicgstab import bicgstab
from solvers.krylov.cg import cg
from solvers.krylov.conjugate_directions import conjugate_directions
from solvers.krylov.deflated_cg import deflated_cg, sine_modes
from solvers.krylov.flexible_cg import flexible_cg
from solvers.krylov.gcrodr import gcrodr
from solvers.krylov.gmres import gmres
from solvers.krylov.gmres_dr import gmres_dr
from solvers.krylov.minres import minres
from solvers.krylov.recycle import RecycleSpace
from solvers.precondition import (
    AMG,
    ILU,
    SSOR,
    FastPoisson,
    IncompleteCholesky,
    Jacobi,
    Lagged,
    Multigrid,
    Preconditioner,
    preconditioners,
)
from solvers.result import ConvergenceError, Result, Status
from solvers.sequence import SequenceSolver
from solvers.stationary.chebyshev import chebyshev
from solvers.stationary.gauss_seidel import gauss_seidel
from solvers.stationary.jacobi import jacobi
from solvers.stationary.sor import sor
from solvers.stationary.ssor import ssor
from solvers.stencil import StencilOperator

__all__ = [
    "AMG",
    "ILU",
    "SSOR",
    "ConvergenceError",
    "Factorisation",
    "FastPoisson",
    "IncompleteCholesky",
    "Jacobi",
    "Lagged",
    "Multigrid",
    "Preconditioner",
    "RecycleSpace",
    "Result",
    "SequenceSolver",
    "Status",
    "StencilOperator",
    "bicgstab",
    "cg",
    "chebyshev",
    "conjugate_directions",
    "deflated_cg",
    "direct",
    "flexible_cg",
    "gallery",
    "gauss_seidel",
    "gcrodr",
    "gmres",
    "gmres_dr",
    "jacobi",
    "minres",
    "ordering",
    "preconditioners",
    "sine_modes",
    "solve",
    "sor",
    "ssor",
]
