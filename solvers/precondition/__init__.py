"""Preconditioners: approximate inverses, set up once for each matrix and applied many times.

>>> from solvers import preconditioners
>>> [name for name in ("amg", "direct", "jacobi") if name in preconditioners]
['amg', 'direct', 'jacobi']
"""

from solvers.precondition.amg import AMG
from solvers.precondition.fast_poisson import FastPoisson
from solvers.precondition.ilu import ILU, IncompleteCholesky
from solvers.precondition.jacobi import Jacobi
from solvers.precondition.lagged import Lagged
from solvers.precondition.multigrid import Multigrid
from solvers.precondition.protocol import Preconditioner, preconditioners
from solvers.precondition.ssor import SSOR

__all__ = [
    "AMG",
    "ILU",
    "SSOR",
    "FastPoisson",
    "IncompleteCholesky",
    "Jacobi",
    "Lagged",
    "Multigrid",
    "Preconditioner",
    "preconditioners",
]
