"""What is known of all systems of a sequence, looked at once, and what work on them costs.

Work is counted in numbers read or written, as far as a method has to; what one thread needs for one was measured to be
0.17 ns (microseconds, n = 2,500 | 10,000 | 40,000, 5-point Darcy; AMD EPYC):

    product, stencil            3.1 |   8.5 |   34        multigrid               23 |    60 |    195
    product, CSR                7.7 |    23 |   85        its set-up             168 |   340 |   1015
    iteration of cg             7.7 |    18 |  105        fast Poisson            22 |    68 |    287
    of minres                    12 |    28 |  139        its set-up             385 |   534 |    999
    of bicgstab, 2 products      20 |    52 |  240        ILU, SSOR              7.2 |    24 |    105
    of gmres(40)                 31 |   163 |  601        set-up of ILU          261 |   643 |   2371
    of gcrodr(40, 20)            86 |   333 | 1320        set-up of SSOR         169 |   352 |   1128
    of deflated_cg, k = 20       28 |   134 |  602        AMG (PyAMG)            227 |   724 |   2718
    factors (SuperLU)            69 |   284 | 1800        its set-up            2887 |  9641 |  34526
    their making               2858 | 16381 | 123636
"""

from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from math import sqrt

import numpy as np
import scipy.sparse as sp

from solvers.api import elimination_work
from solvers.krylov.cg import cg
from solvers.precondition import FastPoisson
from solvers.result import Status
from solvers.system import System

_CALL = 1e4  # of a product, an application or an iteration, beyond the numbers it moves: 2 microseconds
SOLVE = 3e5  # of a solve: 50 microseconds
_SMALLEST_GRID = 400  # unknowns on which a grid is looked for in a sparse matrix
_STEPS = 60  # of CG, in which a matrix may show that it is not definite


@dataclass(frozen=True)
class Family:
    """Facts of a system that its successors are taken to share, until a method fails.

    Attributes
    ----------
    n, columns : int
        Unknowns and right-hand sides.
    storage : str
        "stencil", "sparse", "dense" or "operator".
    grid : bool
        A is a stencil on a grid, or one was recognised.
    real, symmetric, definite : bool
        `definite` as far as the diagonal and the sum of the entries tell.
    negative : bool
        -A may be definite; then all the rest is said of -A.
    separable : bool
        A is a Kronecker sum, which one application of fast Poisson inverts.
    m_matrix : bool
        Asked of a nonsymmetric matrix only.
    has_diagonal : bool
        And no zero on it.
    null_space : "constant" or None
    entries : int
        Stored numbers of A.
    bandwidth : float
        In the better of its own order and reverse Cuthill-McKee; of a grid the points of a layer.
    """

    n: int
    columns: int
    storage: str
    grid: bool
    real: bool
    symmetric: bool
    definite: bool
    negative: bool
    separable: bool
    m_matrix: bool
    has_diagonal: bool
    null_space: str | None
    entries: int
    bandwidth: float

    @classmethod
    def of(cls, system: System, columns: int) -> "Family":
        """Look at a system. Costs a few passes over A."""
        if system.maybe_negative_definite:
            facts = cls.of(system.negated(), columns)
            return cls(**(facts.__dict__ | {"negative": True}))
        n, symmetric = system.shape[0], system.symmetric
        stencil = system.stencil
        if stencil is None and sp.issparse(system.matrix) and n >= _SMALLEST_GRID:
            stencil = system.look_for_grid()
        matrix = None if system.stencil is not None else system.matrix
        storage = "sparse" if sp.issparse(matrix) else "operator" if matrix is None else "dense"
        bandwidth = float(n)
        if stencil is not None:
            bandwidth = n / max(stencil.grid_shape)
        elif storage == "sparse":
            bandwidth = sqrt(elimination_work(system.matrix) / n)
        diagonal = system.diagonal
        return cls(
            n=n,
            columns=columns,
            storage="stencil" if stencil is not None else storage,
            grid=stencil is not None,
            real=system.dtype.kind != "c",
            symmetric=symmetric,
            definite=symmetric and _seems_definite(system, storage != "operator" or stencil is not None),
            negative=False,
            separable=stencil is not None and stencil.kronecker_sum is not None,
            m_matrix=not symmetric and system.m_matrix,
            has_diagonal=diagonal is not None and bool(np.all(diagonal)),
            null_space="constant" if symmetric and system.annihilates_constants else None,
            entries=system.entries,
            bandwidth=bandwidth,
        )

    @property
    def explicit(self) -> bool:
        """A shows its entries, and is sparse."""
        return self.storage in ("stencil", "sparse")

    @cached_property
    def product(self) -> float:
        """Work of a product."""
        moved = {"stencil": self.entries, "sparse": 2.7 * self.entries, "dense": self.entries, "operator": 5 * self.n}
        return _CALL + moved[self.storage]

    @cached_property
    def factorisation(self) -> float:
        """Work of making factors: ordering and bookkeeping, and the elimination of the largest separator."""
        if self.storage == "dense":
            return SOLVE + self.n**3 / 15.0
        return SOLVE + 1e4 * self.n + 12.0 * self.bandwidth**3

    def setup(self, preconditioner: str) -> float:
        """Work of a set-up."""
        if preconditioner == "direct":
            return self.factorisation
        each = {"multigrid": 200, "fast-poisson": 150, "ilu": 380, "ic": 380, "ssor": 206, "amg": 5600, "jacobi": 2}
        return SOLVE + each.get(preconditioner, 0) * self.n

    def application(self, preconditioner: str) -> float:
        """Work of an application."""
        if preconditioner == "direct":
            return _CALL + (self.n**2 if self.storage == "dense" else self.factorisation / 50)
        each = {"multigrid": 35, "fast-poisson": 40, "ilu": 14, "ic": 14, "ssor": 14, "amg": 430, "jacobi": 2, "": 0}
        return _CALL + each.get(preconditioner, 15) * self.n

    def iteration(self, passes: float) -> float:
        """Work of the vector operations of an iteration that moves `passes` vectors."""
        return _CALL + passes * self.n


def _seems_definite(system: System, explicit: bool) -> bool:
    """Neither its entries show that a symmetric A is not positive definite, nor do some steps of CG.

    CG is the quickest to come upon a direction of negative curvature, if the Krylov space of a smooth vector has one.
    """
    if explicit and not system.maybe_definite:
        return False
    if system.stencil is not None and system.stencil.kronecker_sum is not None:
        try:
            FastPoisson().setup(system.stencil)
        except ValueError:
            return False
        return True
    result = cg(system, np.ones(system.shape[0], dtype=system.dtype), rtol=1e-8, maxiter=_STEPS)
    return result.status is not Status.INDEFINITE_OPERATOR


@cache
def pyamg_is_there() -> bool:
    """Whether algebraic multigrid can be had."""
    return find_spec("pyamg") is not None
