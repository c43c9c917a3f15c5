"""Strategies with factors: of every matrix, or of an earlier one for as long as they pay."""

from math import inf
from typing import Any, ClassVar

from solvers.direct import Factorisation, direct
from solvers.krylov.cg import cg
from solvers.krylov.gmres import gmres
from solvers.precondition import Lagged
from solvers.result import Result
from solvers.sequence.choice import Outlook
from solvers.sequence.family import SOLVE, Family, pyamg_is_there
from solvers.sequence.strategy import Strategy, Task, refused
from solvers.system import System

_FACTORS_PAY = 1e8  # n w^2 up to which a definite system is factorised rather than given a hierarchy, as `solve` does
_FACTORS_POSSIBLE = 1e12


class Direct(Strategy):
    """Factors of every matrix, kept as long as it stays what it is."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.exact = True
        self._matrix: Any = None

    def fits(self, family: Family) -> bool:
        possible = family.n * family.bandwidth**2 <= _FACTORS_POSSIBLE
        return family.storage == "dense" or (family.explicit and possible)

    def outlook(self, family: Family, generation: int, repeats: int) -> Outlook:
        solve = self._solve_work(family)
        return self._with_setup(solve, solve, family.factorisation, generation, repeats)

    @staticmethod
    def _solve_work(family: Family) -> float:
        return family.columns * (family.application("direct") + family.product)

    def solve(self, task: Task) -> Result:
        known = self.holds(task.generation)
        if not known:
            self._M, self._generation = Factorisation(task.family.null_space), task.generation
            self._matrix = task.system.original
        result = self._run(task)
        if known and not result.converged:  # A is not what it was taken for
            self._M = Factorisation(task.family.null_space)
            known, result = False, self._run(task)
        self.work = SOLVE + (0.0 if known else task.family.factorisation)
        self.work += max(result.iterations, 1) * self._solve_work(task.family)
        return result

    def _run(self, task: Task) -> Result:
        return direct(
            task.system,
            task.b,
            rtol=task.rtol,
            atol=task.atol,
            null_space=task.family.null_space,
            time_limit=task.time_limit,
            factors=self._M,
        )

    def factors_of(self, generation: int) -> tuple[Factorisation, Any, float] | None:
        """The factors of this matrix, the matrix, and the seconds they took; None if it does not hold them."""
        if not self.holds(generation) or self._M.singular:
            return None
        return self._M, self._matrix, self._M.seconds

    def _remake(self, system: System, family: Family) -> None:
        self._M, self._matrix = Factorisation(family.null_space).setup(system), system.original


class LaggedFactors(Strategy):
    """Factors, or a hierarchy where these are cheaper, of an earlier matrix as the preconditioner.

    Factors that `direct` has made are taken over, so that to find out whether they may lag costs one solve.
    """

    plays: ClassVar[int] = 2

    def __init__(self, name: str, direct_strategy: Direct, cost: str) -> None:
        super().__init__(name)
        self._direct = direct_strategy
        self._cost = cost
        self._M: Lagged | None = None

    @property
    def preconditioner(self) -> str:
        return "direct"

    def fits(self, family: Family) -> bool:
        return family.explicit and family.null_space is None and bool(self._inner(family))

    def _inner(self, family: Family) -> str:
        work = family.n * family.bandwidth**2
        if work > _FACTORS_PAY and family.definite:
            return "multigrid" if family.grid and family.real else "amg" if pyamg_is_there() else ""
        return "direct" if work <= _FACTORS_POSSIBLE else ""

    def _iteration(self, family: Family) -> float:
        passes = 6.0 if family.definite else 20.0
        return family.product + family.application(self._inner(family)) + family.iteration(passes)

    def _at_hand(self, generation: int) -> bool:
        return self._M is not None or any(self._direct.holds(g) for g in (generation, generation - 1))

    def outlook(self, family: Family, generation: int, repeats: int) -> Outlook:
        each = family.columns * self._iteration(family)
        made = 0.0 if self._at_hand(generation) else family.setup(self._inner(family))
        return Outlook(SOLVE + 2 * each, SOLVE + 6 * each, made)

    def solve(self, task: Task) -> Result:
        family = task.family
        inner = self._inner(family)
        if self._M is None:
            self._M = Lagged(inner, self._cost)
        offered = [self._direct.factors_of(g) for g in (task.generation, task.generation - 1)]
        factors = next((f for f in offered if f is not None), None)
        if inner == "direct" and factors is not None and self._generation < task.generation - 1:
            self._M.adopt(*factors)
        self._generation = task.generation
        if family.grid and inner == "multigrid":
            task.system.look_for_grid()
        before = self._M.refreshes
        each = self._iteration(family)
        # The way out of a solve with old factors is to make new ones, so that only what follows is bounded.
        maxiter = None if task.work == inf else max(int(task.work / each), 1)
        method = cg if family.definite else gmres
        extra: dict[str, Any] = {} if family.definite else {"restart": 20}
        if method is gmres and maxiter is not None:
            maxiter = max(maxiter // 20, 1)
        try:
            result = method(
                task.system,
                task.b,
                task.x0,
                rtol=task.rtol,
                atol=task.atol,
                maxiter=maxiter,
                M=self._M,
                time_limit=task.time_limit,
                **extra,
            )
        except (ValueError, TypeError) as error:
            self.work = family.setup(inner)
            return refused(task, self.name, str(error))
        self.exact = result.iterations <= 1
        self.work = SOLVE + (self._M.refreshes - before) * family.setup(inner)
        self.work += result.matvecs * family.product + result.preconditioner_applies * family.application(inner)
        self.work += result.iterations * family.iteration(6.0 if family.definite else 20.0)
        return result

    def state_dict(self) -> dict[str, Any]:
        lagged = None if self._M is None else self._M.state_dict()
        return {"generation": self._generation, "exact": self.exact, "lagged": lagged}

    def load_state_dict(self, state: dict[str, Any], system: System | None, family: Family | None, now: int) -> None:
        self._M, self._generation, self.exact = None, int(state["generation"]), bool(state["exact"])
        if state["lagged"] is not None and family is not None:
            self._M = Lagged(self._inner(family), self._cost)
            self._M.load_state_dict(state["lagged"])
