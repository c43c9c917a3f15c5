"""Tsallis-INF for each of a few ranges of the context.

Source: M. Khodak, E. Chow, M.-F. Balcan and A. Talwalkar, Learning to relax, arXiv 2310.02246, theorem 2.2 and appendix
B.4; there it is called Tsallis-INF-CB.
"""

from typing import Any

import numpy as np

from solvers.tuning.protocol import Draws, Saved, checked_arms, checked_cost, checked_interval, scaled_context
from solvers.tuning.tsallis_inf import TsallisINF


class BinnedTsallisINF(Saved):
    """The interval of contexts in equal parts, each with its own `TsallisINF`.

    Parameters
    ----------
    arms : sequence of float
    interval : (float, float)
        Where the contexts lie; those beyond belong to the parts at the ends.
    bins : int
    seed : int

    Raises
    ------
    ValueError
        If there are no arms, the interval is empty, or a context is not one finite number.

    Examples
    --------
    >>> policy = BinnedTsallisINF([1.2, 1.8], (0.0, 1.0), bins=2)
    >>> for context in np.random.default_rng(0).random(200):
    ...     policy.update(50.0 if (policy.suggest(context) > 1.5) == (context > 0.5) else 100.0)
    >>> [float(part.probabilities.argmax()) for part in policy.parts]
    [0.0, 1.0]
    """

    _fixed = ("_arms", "_interval", "_seed")

    def __init__(self, arms: Any, interval: Any, *, bins: int = 5, seed: int = 0) -> None:
        self._arms = checked_arms(arms)
        self._interval = checked_interval(interval)
        if not isinstance(bins, int) or bins < 1:
            raise ValueError(f"bins: expected a positive whole number, got {bins!r}")
        self._seed = Draws(seed).seed
        seeds = np.random.SeedSequence(self._seed).generate_state(bins, np.uint32)
        self.parts = [TsallisINF(self._arms, seed=int(number)) for number in seeds]
        self._at = -1  # the part that made the last suggestion
        self.products = 0
        self.probabilities = self.parts[0].probabilities

    def suggest(self, context: Any = None, A: Any = None) -> float:
        """Draw an arm as the part that the context belongs to does."""
        place = (scaled_context(context, self._interval) + 1.0) / 2.0
        self._at = min(max(int(place * len(self.parts)), 0), len(self.parts) - 1)
        part = self.parts[self._at]
        omega = part.suggest()
        self.probabilities = part.probabilities
        return omega

    def update(self, cost: float) -> None:
        """Tell the part that made the suggestion."""
        checked_cost(cost, self._at >= 0)
        self.parts[self._at].update(cost)
        self._at = -1

    def state_dict(self) -> dict[str, Any]:
        """Arrays and scalars from which `load_state_dict` goes on with the same choices."""
        state = super().state_dict() | {"at": self._at}
        for number, part in enumerate(self.parts):
            state |= {f"{number}/{key}": value for key, value in part.state_dict().items()}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Raises
        ------
        ValueError
            If the state is not that of a policy made with the same arguments.
        """
        super().load_state_dict(state)
        self._at = int(state["at"])
        for number, part in enumerate(self.parts):
            start = f"{number}/"
            part.load_state_dict({key[len(start) :]: value for key, value in state.items() if key.startswith(start)})
        if self._at >= 0:
            self.probabilities = self.parts[self._at].probabilities
