"""A way to solve the systems of a sequence: a Krylov method, its preconditioner, what it keeps, and what it costs."""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from math import inf, sqrt
from time import perf_counter
from typing import Any, ClassVar

import numpy as np

from solvers.krylov.bicgstab import bicgstab
from solvers.krylov.cg import cg
from solvers.krylov.deflated_cg import deflated_cg
from solvers.krylov.gcrodr import gcrodr
from solvers.krylov.gmres import gmres
from solvers.krylov.minres import minres
from solvers.precondition import preconditioners
from solvers.result import Result, Status
from solvers.sequence.choice import Outlook
from solvers.sequence.family import SOLVE, Family, pyamg_is_there
from solvers.system import System, norm

RESTART, RECYCLED, DEFLATED = 40, 20, 10


@dataclass
class Task:
    """One system, as a strategy sees it.

    Attributes
    ----------
    system : System
    b : ndarray
    family : Family
    generation : int
        A number that changes when A does.
    rtol, atol : float
    x0 : ndarray or None
    time_limit : float or None
        Seconds, of the solve after the set-up.
    work : float
        Most work, infinite if that does not matter.
    """

    system: System
    b: np.ndarray
    family: Family
    generation: int
    rtol: float
    atol: float
    x0: np.ndarray | None = None
    time_limit: float | None = None
    work: float = inf


@dataclass(frozen=True)
class Kind:
    """A Krylov method with a preconditioner, and what is expected of it.

    Attributes
    ----------
    method : callable
    preconditioner : str
        "" for none.
    passes : float
        Vectors moved in an iteration, beyond products and applications.
    fewest : int
        Iterations that no system takes less than.
    growth : float
        Iterations usual for an elliptic system, over the points along an axis; 0 if they do not grow.
    products : int
        In an iteration, and as many applications.
    restart : int
        Of methods whose `maxiter` counts cycles; 0 for others.
    """

    method: Callable[..., Result]
    preconditioner: str
    passes: float
    fewest: int
    growth: float = 0.0
    products: int = 1
    restart: int = 0

    def usual(self, family: Family) -> float:
        """Iterations to expect; indefinite systems take several times as many."""
        along = sqrt(family.n) if family.bandwidth >= sqrt(family.n) / 2 else family.n / max(family.bandwidth, 1.0)
        hard = 1.0 if family.definite or family.m_matrix else 4.0
        return 2.0 * self.fewest + hard * self.growth * along


KINDS = {
    "multigrid": Kind(cg, "multigrid", 6, 3),
    "amg": Kind(cg, "amg", 6, 3),
    "fast-poisson": Kind(cg, "fast-poisson", 6, 3, growth=0.1),
    "cg": Kind(cg, "jacobi", 8, 15, growth=4.0),
    "ssor-cg": Kind(cg, "ssor", 6, 10, growth=0.3),
    "deflated-cg": Kind(deflated_cg, "ic", 6 + 3.5 * DEFLATED, 15, growth=0.5),
    "minres": Kind(minres, "jacobi", 14, 15, growth=4.0),
    "bicgstab": Kind(bicgstab, "ilu", 20, 5, growth=0.5, products=2),
    "gmres": Kind(gmres, "ilu", 2.3 * RESTART, 8, growth=1.5, restart=RESTART),
    "gcrodr": Kind(gcrodr, "ilu", 4.8 * RESTART, 8, growth=0.5, restart=RESTART),
}


class Strategy:
    """A Krylov method with a preconditioner, which is kept as long as A stays what it is.

    Parameters
    ----------
    name : str
    M : object, optional
        The user's preconditioner, instead of the usual one.

    Attributes
    ----------
    work : float
        Of the last solve.
    exact : bool
        It solves at once, so that a first guess spares nothing.
    """

    plays: ClassVar[int] = 1  # in a row that show what it is worth

    def __init__(self, name: str, M: Any = None) -> None:
        self.name = name
        self.kind = KINDS.get(name)
        self.work = 0.0
        self.exact = False
        self._given = M
        self._M: Any = None
        self._generation = -1  # of the A that M was set up for

    # -- What can be said without a solve -----------------------------------------------------------------------------

    @property
    def preconditioner(self) -> str:
        """Name of the usual one, for what it costs."""
        assert self.kind is not None
        return "given" if self._given is not None else self.kind.preconditioner

    def fits(self, family: Family) -> bool:
        """Whether it may work on these systems."""
        assert self.kind is not None
        if self.kind.method in (cg, deflated_cg) and not (family.definite or self.name == "amg"):
            return False
        if self.kind.method is minres and not family.symmetric:
            return False
        if self._given is not None:
            return True
        needs: dict[str, bool] = {
            "multigrid": family.grid and family.real,
            "fast-poisson": family.grid and family.real,
            "amg": family.explicit and pyamg_is_there() and (family.definite or family.m_matrix),
            "ssor-cg": family.explicit and family.has_diagonal and family.real and family.null_space is None,
            "bicgstab": not family.symmetric,
        }
        return needs.get(self.name, True)

    def holds(self, generation: int) -> bool:
        """Whether what it has set up is for this A."""
        return self._M is not None and self._generation == generation

    def outlook(self, family: Family, generation: int, repeats: int) -> Outlook:
        """What work is to be expected of a system with the same A as the last `repeats` - 1."""
        assert self.kind is not None
        exact = self.name == "fast-poisson" and family.separable
        each = family.columns * self._iteration(family)
        fewest, usual = (1.0, 1.0) if exact else (float(self.kind.fewest), self.kind.usual(family))
        return self._with_setup(fewest * each, usual * each, family.setup(self.preconditioner), generation, repeats)

    def _with_setup(self, least: float, usual: float, setup: float, generation: int, repeats: int) -> Outlook:
        """What is set up for each system is part of its cost; for an A that comes again it is made once."""
        if self.holds(generation):
            return Outlook(SOLVE + least, SOLVE + usual)
        if repeats > 1:
            return Outlook(SOLVE + least, SOLVE + usual, setup, repeats)
        return Outlook(SOLVE + setup + least, SOLVE + setup + usual)

    def _iteration(self, family: Family) -> float:
        assert self.kind is not None
        step = family.product + family.application(self._with(family))
        return self.kind.products * step + family.iteration(self.kind.passes)

    def _with(self, family: Family) -> str:
        """The preconditioner that these systems allow."""
        chosen = self.preconditioner
        if chosen in ("ilu", "ic") and not (family.explicit and family.has_diagonal):
            return "jacobi" if family.has_diagonal else ""
        return "" if chosen == "jacobi" and not family.has_diagonal else chosen

    # -- A solve ------------------------------------------------------------------------------------------------------

    def solve(self, task: Task) -> Result:
        """Solve as far as the limits allow; what cannot be set up ends as BREAKDOWN."""
        assert self.kind is not None
        family, started = task.family, perf_counter()
        try:
            M, self.work = self._prepare(task)
        except (ValueError, TypeError) as error:
            self.work = family.setup(self.preconditioner)
            return refused(task, self.name, str(error))
        setup_seconds = perf_counter() - started
        self.exact = bool(getattr(M, "exact", False))
        method = gmres if self.name == "amg" and not family.symmetric else self.kind.method
        restart = RESTART if method is gmres else self.kind.restart
        each = self._iteration(family)
        arguments = self._arguments()
        maxiter = None
        if task.work < inf:
            maxiter = max(int((task.work - self.work) / each), 1)
        if restart:
            restart = restart if maxiter is None else max(min(restart, maxiter), 4)
            maxiter = None if maxiter is None else max(maxiter // restart, 1)
            arguments["restart"] = restart
            if "k" in arguments:
                arguments["k"] = min(arguments["k"], restart - 2)
        result = method(
            task.system,
            task.b,
            "Mb" if self.exact else task.x0,
            rtol=task.rtol,
            atol=task.atol,
            maxiter=maxiter,
            M=M,
            null_space=family.null_space,
            time_limit=task.time_limit,
            **arguments,
        )
        self.work += SOLVE + result.matvecs * family.product + result.iterations * family.iteration(self.kind.passes)
        self.work += result.preconditioner_applies * family.application(self._with(family))
        self._learn(result)
        return replace(result, setup_seconds=result.setup_seconds + setup_seconds)

    def _prepare(self, task: Task) -> tuple[Any, float]:
        """M for this system, and the work of setting it up."""
        family = task.family
        if self._given is not None and not (isinstance(self._given, str) or _is_template(self._given)):
            return self._given, 0.0
        chosen = self._with(family)
        if not chosen:
            return None, 0.0
        if self.holds(task.generation):
            return self._M, 0.0
        if family.grid and chosen in ("multigrid", "fast-poisson"):
            task.system.look_for_grid()
        self._M = None
        self._M = self._fresh(chosen).setup(task.system)
        self._generation = task.generation
        return self._M, family.setup(chosen)

    def _fresh(self, chosen: str) -> Any:
        if self._given is not None:
            return preconditioners.build(self._given) if isinstance(self._given, str) else copy(self._given)
        return preconditioners[chosen]()  # `build` looks at signatures, which takes as long as a small set-up

    def _arguments(self) -> dict[str, Any]:
        return {}

    def _learn(self, result: Result) -> None:
        """After a solve."""

    # -- To save ------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Arrays and scalars; the preconditioner is made again from A."""
        return {"generation": self._generation if self._M is not None else -1, "exact": self.exact}

    def load_state_dict(self, state: dict[str, Any], system: System | None, family: Family | None, now: int) -> None:
        """Go on from `state_dict`; system, family and generation are those of the last solve."""
        self._M, self._generation, self.exact = None, int(state["generation"]), bool(state["exact"])
        if system is not None and family is not None and self._generation == now:
            self._remake(system, family)

    def _remake(self, system: System, family: Family) -> None:
        if family.grid:
            system.look_for_grid()
        self._M = self._fresh(self._with(family)).setup(system)


def refused(task: Task, name: str, reason: str) -> Result:
    """The Result of a method that cannot take this matrix."""
    x = np.zeros(task.b.shape, dtype=task.system.dtype) if task.x0 is None else task.x0.copy()
    r = task.b.reshape(len(task.b), -1) - np.stack(
        [task.system.matvec(np.ascontiguousarray(c)) for c in x.reshape(len(x), -1).T], axis=1
    )
    size = max(norm(np.ascontiguousarray(column)) for column in r.T)
    return Result(x, Status.BREAKDOWN, name, reason, 0, 1, 0, size, np.array([size]), 0.0, 0.0)


def _is_template(M: Any) -> bool:
    """A preconditioner object that has not been set up."""
    return hasattr(M, "setup") and getattr(M, "shape", None) is None and not hasattr(M, "refresh")
