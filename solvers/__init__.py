"""Given A and b: find x, and prove it."""

from solvers import gallery
from solvers.direct import Factorisation, direct
from solvers.krylov.cg import cg
from solvers.krylov.gmres import gmres
from solvers.precondition import AMG, Jacobi, Multigrid, Preconditioner, preconditioners
from solvers.result import ConvergenceError, Result, Status
from solvers.stencil import StencilOperator

__all__ = [
    "AMG",
    "ConvergenceError",
    "Factorisation",
    "Jacobi",
    "Multigrid",
    "Preconditioner",
    "Result",
    "Status",
    "StencilOperator",
    "cg",
    "direct",
    "gallery",
    "gmres",
    "preconditioners",
]
