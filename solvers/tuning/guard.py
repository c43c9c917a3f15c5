"""A limit for solves with a parameter that is still being learned: stopped, finished by a safe method, both charged.

The limit is that of the ski rental problem: who stops at a fixed multiple of what others paid, and then pays for a safe
method, pays at most that multiple more.
"""

from collections.abc import Callable

import numpy as np

from solvers.tuning.protocol import Saved

_FIRST = 8  # solves before there is a limit


class Guard(Saved):
    """Stops solves that run far past the cost of those before.

    The limit is `factor` times the cost that nine in ten of the last `window` solves did not exceed.

    Parameters
    ----------
    factor : float
        Above 1.
    window : int

    Attributes
    ----------
    stopped : int
        Solves that were stopped so far.

    Raises
    ------
    ValueError
        If one of them is too small.

    Examples
    --------
    >>> guard = Guard(factor=3.0)
    >>> for solve in range(20):
    ...     charged = guard.run(lambda limit: (10.0, True), lambda: 25.0)
    >>> guard.limit
    30.0
    >>> guard.run(lambda limit: (limit, False), lambda: 25.0)  # stopped at 30, finished at 25
    55.0
    """

    _saved = ("_costs", "_place", "stopped")
    _fixed = ("_factor", "_window")

    def __init__(self, factor: float = 4.0, window: int = 32) -> None:
        if not factor > 1.0:
            raise ValueError(f"factor: expected a number above 1, got {factor!r}")
        if not isinstance(window, int) or window < _FIRST:
            raise ValueError(f"window: expected a whole number of at least {_FIRST}, got {window!r}")
        self._factor, self._window = float(factor), window
        self._costs = np.empty(0)
        self._place = 0
        self.stopped = 0

    @property
    def limit(self) -> float:
        """What the next solve may cost; infinite for the first few."""
        if self._costs.size < _FIRST:
            return float("inf")
        # The order statistic itself, not numpy's quantile, which takes longer than all the rest of a policy.
        place = int(0.9 * (self._costs.size - 1))
        return self._factor * float(np.partition(self._costs, place)[place])

    def run(self, attempt: Callable[[float], tuple[float, bool]], rescue: Callable[[], float]) -> float:
        """One solve, and what it cost in all.

        Parameters
        ----------
        attempt : callable
            ``attempt(limit)`` solves with the parameter at hand, stops at the cost `limit`, and returns its cost and
            whether it got to the end.
        rescue : callable
            Called if it did not: solves by a method that surely does, and returns the cost.
        """
        cost, done = attempt(self.limit)
        if not done:
            self.stopped += 1
            cost += rescue()
        self.record(cost)
        return cost

    def record(self, cost: float) -> None:
        """Take a cost into account that came about elsewhere."""
        if self._costs.size < self._window:
            self._costs = np.append(self._costs, cost)
        else:
            self._costs[self._place] = cost
            self._place = (self._place + 1) % self._window
