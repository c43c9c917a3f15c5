"""Strategies that learn: subspaces that go from one system to the next, and a relaxation factor."""

from typing import Any, ClassVar

from solvers.krylov.recycle import RecycleSpace
from solvers.precondition import SSOR
from solvers.result import Result
from solvers.sequence.choice import Outlook
from solvers.sequence.family import Family
from solvers.sequence.strategy import DEFLATED, RECYCLED, Strategy, Task
from solvers.system import System
from solvers.tuning import LearnedOmega


class Recycling(Strategy):
    """GCRO-DR or deflated CG with their subspace."""

    plays: ClassVar[int] = 2

    def __init__(self, name: str, M: Any = None) -> None:
        super().__init__(name, M)
        self._space = RecycleSpace()

    def _arguments(self) -> dict[str, Any]:
        if self.name == "gcrodr":
            return {"recycle": self._space, "k": RECYCLED}
        return {"deflation": self._space, "k": DEFLATED}

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"space": self._space.state_dict()}

    def load_state_dict(self, state: dict[str, Any], system: System | None, family: Family | None, now: int) -> None:
        super().load_state_dict(state, system, family, now)
        self._space.load_state_dict(state["space"])


class Relaxation(Strategy):
    """CG with SSOR, whose factor is learned.

    A context that is one number tells the policy where it is; without one it goes by the time.
    """

    plays: ClassVar[int] = 2

    def __init__(self, name: str, M: Any = None, seed: int = 0) -> None:
        super().__init__(name, M)
        self._seed = seed
        self.context: float | None = None  # of the next system
        self._policy: LearnedOmega | None = None
        self._interval: tuple[float, float] | None = None
        self._omega = 1.0

    def outlook(self, family: Family, generation: int, repeats: int) -> Outlook:
        """With the first look at a spectrum: a Lanczos process of some 160 steps."""
        look = 0.0 if self._policy is not None else 160 * (family.product + 90.0 * family.n)
        return super().outlook(family, generation, repeats)._replace(made=look)

    def _prepare(self, task: Task) -> tuple[Any, float]:
        if self._policy is None:
            self._start()
        assert self._policy is not None
        before = self._policy.products
        self._omega = self._policy.suggest(self.context, task.system)
        looks = self._policy.products - before
        work = looks * (task.family.product + 90.0 * task.family.n)
        self._M, self._generation = SSOR(self._omega).setup(task.system), task.generation
        return self._M, work + task.family.setup("ssor")

    def _start(self) -> None:
        if self.context is not None and self._interval is None:
            width = max(abs(self.context), 1e-3)
            self._interval = (self.context - width, self.context + width)
        self._policy = LearnedOmega(self._interval, seed=self._seed)

    def _learn(self, result: Result) -> None:
        assert self._policy is not None
        self._policy.update(float(max(result.iterations, 1)))

    def state_dict(self) -> dict[str, Any]:
        policy = None if self._policy is None else self._policy.state_dict()
        return super().state_dict() | {"omega": self._omega, "interval": self._interval, "policy": policy}

    def load_state_dict(self, state: dict[str, Any], system: System | None, family: Family | None, now: int) -> None:
        self._omega, self._policy = float(state["omega"]), None
        self._interval = None if state["interval"] is None else (state["interval"][0], state["interval"][1])
        super().load_state_dict(state, system, family, now)
        if state["policy"] is not None:
            self._policy = LearnedOmega(self._interval, seed=self._seed)
            self._policy.load_state_dict(state["policy"])

    def _remake(self, system: System, family: Family) -> None:
        self._M = SSOR(self._omega).setup(system)
