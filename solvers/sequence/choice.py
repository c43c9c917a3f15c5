r"""Which strategy for the next system: the champion, and now and then a challenger, on a tight budget.

- The champion is the strategy with the smallest mean over its last costs. One cost of a solve that did succeed counts
  at most four times their median: clocks are disturbed, and factors are renewed, now and then.
- A challenger is tried where a lower bound of its cost is below the champion's mean, with a deadline of 1.25 times that
  mean: whatever is aborted there would not have been better. The champion then finishes from where it was left, and
  both are charged to the challenger.
- What all tries have cost beyond the champion's mean stays below four of its solves and 3 % of all costs so far.
- What must be made before it pays, as factors, is made as soon as it would have paid on the systems so far: the rule
  of the ski rental problem, by which the total is at most twice the best (A. Karlin, M. Manasse, L. Rudolph,
  D. Sleator, Competitive snoopy caching, Algorithmica 3 (1988)).
- After losing k times in a row a challenger waits for 8 2^k systems, or until the champion takes three times as long.

This is a bandit without chance: costs of the arms differ by factors and vary by per cents, one honest look tells them
apart, and what is dear is to finish a bad one, which no bandit with full feedback can avoid.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from math import inf, isfinite
from numbers import Real
from typing import Any, NamedTuple

_MEMORY = 9  # costs that a mean is taken of
_OUTLIER = 4.0  # times the median
_PATIENCE = 1.25  # deadline of a try, over the champion's mean
_GRANT, _SHARE = 4.0, 0.03  # for tries: solves of the champion, and the part of all costs
_UNLIKELY = 4.0  # times the champion's mean: what is expected to cost that has no part in the grant
_SURE = 2  # costs of the champion before others are compared with it
_DOUBT = 2.0  # factor by which what is expected may be wrong
_WAIT, _LONGEST = 8, 1024  # systems
_HARDER = 3.0  # times what it was is the champion's mean when those who lost need not wait


@dataclass
class _Arm:
    """What is known of one strategy."""

    costs: list[float] = field(default_factory=list)
    solved: list[bool] = field(default_factory=list)
    last: int = -1  # system for which it was played
    losses: int = 0
    due: int = 0  # from this system on it may be tried
    against: float = inf  # the champion's mean when it lost
    mean: float = inf

    def book(self, cost: float, solved: bool) -> None:
        self.costs, self.solved = [*self.costs, cost][-_MEMORY:], [*self.solved, solved][-_MEMORY:]
        ceiling = _OUTLIER * sorted(self.costs)[(len(self.costs) - 1) // 2]
        kept = [min(c, ceiling) if s else c for c, s in zip(self.costs, self.solved, strict=True)]
        # Of the first two the smaller: what is used for the first time is loaded, and takes long.
        self.mean = sum(kept) / len(kept) if len(kept) > 2 else min(kept)


class Outlook(NamedTuple):
    """What is expected of a strategy.

    Attributes
    ----------
    least, usual : float
        Cost of a solve, once what it needs has been made.
    made : float
        Cost of making that.
    serves : int or None
        Systems so far that it would have served; None for all.
    """

    least: float = 0.0
    usual: float = 0.0
    made: float = 0.0
    serves: int | None = None


class Choice:
    """Learns from costs which of a few strategies is best.

    Parameters
    ----------
    names : sequence of str
        In the order in which they are trusted to begin with.
    plays : callable, optional
        name -> how many systems in a row show what it costs: more than one for what builds something up.

    Attributes
    ----------
    systems : int
        Decided so far.
    spent, excess : float
        All costs, and what tries have cost beyond the champion's mean.

    Raises
    ------
    ValueError
        If there are no names.

    Examples
    --------
    >>> choice = Choice(["slow", "quick"])
    >>> for system in range(10):
    ...     name, budget = choice.suggest()
    ...     choice.update({"slow": 3.0, "quick": 1.0}[name])
    >>> name, choice.spent
    ('quick', 14.0)
    """

    def __init__(self, names: Sequence[str], plays: Callable[[str], int] = lambda name: 1) -> None:
        if not len(names):
            raise ValueError("names: expected at least one strategy to choose from, got none")
        self._arms = {name: _Arm() for name in names}
        self._plays = plays
        self.systems = 0
        self.spent = self.excess = 0.0
        self._playing = ""
        self._champion = ""  # of the system at hand
        self._trying, self._left = "", 0  # a try that takes several systems, and how many more
        self._next_look = 0  # no challenger is due before
        self._looked_at = 0.0  # the champion's mean at the last look for one

    @property
    def champion(self) -> str:
        """The best so far; "" before the first cost."""
        working = [name for name, arm in self._arms.items() if arm.mean < inf]
        return min(working, key=lambda name: self._arms[name].mean) if working else ""

    @property
    def names(self) -> list[str]:
        """Of the strategies that are left."""
        return list(self._arms)

    def mean(self, name: str) -> float:
        """Of the last costs of a strategy; infinite if there are none, or it failed."""
        return self._arms[name].mean

    def suggest(self, outlook: Callable[[str], Outlook] = lambda name: Outlook()) -> tuple[str, float]:
        """The strategy for the next system, and what it may cost: a deadline for challengers.

        Parameters
        ----------
        outlook : callable
            name -> what is expected of it.
        """
        self._champion = champion = self.champion
        self._playing, budget = champion, inf
        if not champion:
            self._playing = self._first_of_all()
        elif self._trying:
            self._playing, budget = self._trying, _PATIENCE * self._arms[champion].mean
        elif self.systems >= self._next_look or self._arms[champion].mean > _HARDER * self._looked_at:
            challenger, made = self._challenger(champion, outlook)
            if challenger:
                self._playing, budget = challenger, _PATIENCE * self._arms[champion].mean + made
                # what is made in the first play shows what it is worth in the second
                self._trying, self._left = challenger, max(self._plays(challenger), 2 if made else 1)
        return self._playing, budget

    def _first_of_all(self) -> str:
        """Nothing works yet: the first that was not tried, or else the one that was tried longest ago."""
        return min(self._arms, key=lambda name: self._arms[name].last)

    def _challenger(self, champion: str, outlook: Callable[[str], Outlook]) -> tuple[str, float]:
        """The most hopeful of those that are due and can be paid for, and what must be made for it."""
        mean = self._arms[champion].mean
        free = _GRANT * mean + _SHARE * self.spent - self.excess - _PATIENCE * mean
        if free < 0.0 or len(self._arms[champion].costs) < _SURE:
            return "", 0.0
        best, hope, made = "", inf, 0.0
        waiting = inf
        for name, arm in self._arms.items():
            if name == champion:
                continue
            if arm.due > self.systems and mean <= _HARDER * arm.against:
                waiting = min(waiting, arm.due)
                continue
            expected = outlook(name)
            serves = self.systems if expected.serves is None else expected.serves
            pays = expected.made <= max((mean - _DOUBT * expected.usual) * serves / 2**arm.losses, 0.0)
            likely = expected.usual < _UNLIKELY * mean or free >= _GRANT * mean
            if expected.least < mean and pays and likely and expected.usual < hope:
                best, hope, made = name, expected.usual, expected.made
        self._looked_at = mean
        if not best:  # bounds change with the champion and with what is held, so that a look now and then is needed
            self._next_look = int(min(waiting, self.systems + max(2, self.systems // 16)))
        return best, made

    def update(self, cost: float, solved: bool = True) -> None:
        """What the system cost with the strategy that was suggested, whoever finished it.

        Parameters
        ----------
        cost : float
        solved : bool
            The strategy did it by itself.

        Raises
        ------
        ValueError
            If the cost is not a finite number that is not negative.
        RuntimeError
            If nothing was suggested since the last update.
        """
        if not isinstance(cost, Real) or not isfinite(cost) or cost < 0:
            raise ValueError(f"cost: expected a finite number that is not negative, got {cost!r}")
        if not self._playing:
            raise RuntimeError("update: there is no suggestion that this cost could belong to; call suggest first")
        name, champion, cost = self._playing, self._champion, float(cost)
        arm = self._arms[name]
        usual = self._arms[champion].mean if champion else inf
        if name == champion or not champion:
            self._book(arm, cost, solved)
            if not (solved or champion):  # something else has the next turn
                self._lost(arm, usual)
        else:
            self.excess += max(cost - usual, 0.0)
            self._left -= 1
            won = solved and cost < usual
            if won or not self._left:
                self._trying = ""
                if won:
                    self._book(arm, cost, True)
                    arm.losses = 0
                else:
                    self._lost(arm, usual, cost if solved else inf)
        arm.last = self.systems
        self.spent += min(cost, _OUTLIER * usual) if champion else cost
        self.systems += 1
        self._playing = ""
        if solved and champion and self.champion != champion:
            self._wait(self._arms[champion], usual)

    def _book(self, arm: _Arm, cost: float, solved: bool) -> None:
        if arm.last < self.systems - _MEMORY:  # costs of systems long gone
            arm.costs, arm.solved = [], []
        arm.book(cost, solved)

    def _lost(self, arm: _Arm, usual: float, mean: float = inf) -> None:
        arm.costs, arm.solved, arm.mean = [], [], mean
        self._wait(arm, usual)

    def _wait(self, arm: _Arm, usual: float) -> None:
        arm.losses += 1
        arm.against = usual
        arm.due = self.systems + min(_WAIT * 2**arm.losses, _LONGEST)
        self._next_look = self.systems

    def give_up(self, name: str) -> None:
        """Ask no more for a strategy that cannot be used on these systems; the last one always stays."""
        if len(self._arms) > 1:
            self._arms.pop(name, None)
            if self._trying == name:
                self._trying, self._left = "", 0

    def state_dict(self) -> dict[str, Any]:
        """Scalars, strings and lists, from which the same choices follow."""
        return {
            "arms": {name: asdict(arm) for name, arm in self._arms.items()},
            "systems": self.systems,
            "spent": self.spent,
            "excess": self.excess,
            "trying": self._trying,
            "left": self._left,
            "next_look": self._next_look,
            "looked_at": self._looked_at,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self._arms = {name: _Arm(**arm) for name, arm in state["arms"].items()}
        for arm in self._arms.values():
            arm.costs, arm.solved = list(arm.costs), list(arm.solved)
        self.systems, self.spent, self.excess = int(state["systems"]), float(state["spent"]), float(state["excess"])
        self._trying, self._left = str(state["trying"]), int(state["left"])
        self._next_look, self._looked_at = int(state["next_look"]), float(state["looked_at"])
        self._playing = self._champion = ""
