r"""Tsallis-INF: the best of a few parameters, found from costs alone, whether they are drawn at random or chosen by an
adversary.

With cumulative estimates k of the losses, the next probabilities are

.. math:: p = \arg\min_{p \in \Delta} \langle k, p \rangle - \frac{4}{\eta} \sum_i \sqrt{p_i}
          \quad\Longleftrightarrow\quad p_i = \frac{4}{(\eta (k_i - x))^2}, \; x < \min k, \; \sum_i p_i = 1,

with :math:`\eta_t = 2/\sqrt t`, and only the k of the arm that is played is raised, by its loss over its probability,
which makes k unbiased.

Source: J. Zimmert and Y. Seldin, Tsallis-INF: an optimal algorithm for stochastic and adversarial bandits, J. Mach.
Learn. Res. 22 (2021), algorithm 1 and, for the reduced variance, section 5; used for relaxation factors by M. Khodak,
E. Chow, M.-F. Balcan and A. Talwalkar, Learning to relax, arXiv 2310.02246, algorithm 4. Losses are costs less one,
divided by their mean so far, as in their experiments.

The published code starts Newton's iteration for x at -1 in every round. Where all k are large, that lies far left of
the root, and the iteration jumps over the pole at min k. Here it starts at :math:`\min k - 2/\eta`: there the sum is at
least 1, it is increasing and convex left of the pole, and the iteration falls monotonically to the root.
"""

from typing import Any

import numpy as np
from numba import njit

from solvers.tuning.protocol import Draws, Saved, checked_arms, checked_cost

_STEPS = 100  # of Newton's iteration; 10 are usual
_FROM = 16  # rounds, and expected plays of an arm, from which the reduced variance is used


@njit(cache=True, nogil=True)
def _newton(losses, eta, p):  # type: ignore[no-untyped-def]
    """Fill p with the probabilities; what their sum misses of 1."""
    lowest = losses.min()
    below = 2.0 / eta  # min k - x; differences to min k, so that large k cancel nothing
    for _ in range(_STEPS):
        total = slope = 0.0
        for i in range(p.size):
            root = 2.0 / (eta * (losses[i] - lowest + below))
            p[i] = root * root
            total += p[i]
            slope += p[i] * root
        step = (total - 1.0) / (eta * slope)
        if step <= 1e-15 * below:
            break
        below += step
    return total - 1.0


def tsallis_probabilities(losses: np.ndarray, eta: float) -> np.ndarray:
    r"""The minimiser of :math:`\langle k, p \rangle - (4/\eta) \sum_i \sqrt{p_i}` over the simplex.

    Parameters
    ----------
    losses : ndarray, shape (arms,)
        k.
    eta : float
        Positive.

    Raises
    ------
    ArithmeticError
        If they do not sum to 1 within 1e-9, which finite losses cannot bring about.

    Examples
    --------
    >>> tsallis_probabilities(np.zeros(4), 1.0)
    array([0.25, 0.25, 0.25, 0.25])
    """
    p = np.empty(losses.size)
    missing = _newton(losses, eta, p)
    if not abs(missing) < 1e-9:
        raise ArithmeticError(f"the probabilities of Tsallis-INF sum to 1 + {missing:.1e}: losses {losses}, eta {eta}")
    return p


class TsallisINF(Saved):
    r"""Learns the best of a few parameters from costs.

    The expected total of K-bounded losses exceeds that of the best arm by at most :math:`4 K \sqrt{d T} + 1` (theorem 1
    of the source), for d arms after T systems.

    Parameters
    ----------
    arms : sequence of float
        The parameters to choose from.
    reduced_variance : bool
        Estimate losses by their difference from 1/2 where an arm is likely enough (t p >= 16), with the step
        :math:`\eta_t = 4/\sqrt t`: unbiased too, with less variance.
    seed : int

    Attributes
    ----------
    estimates : ndarray, shape (arms,)
        The cumulative losses k in units of the mean loss.
    probabilities : ndarray, shape (arms,)

    Raises
    ------
    ValueError
        If there are no arms.

    Examples
    --------
    >>> policy = TsallisINF(np.linspace(1.0, 1.95, 20), seed=1)
    >>> policy.suggest() in np.linspace(1.0, 1.95, 20)
    True
    >>> policy.update(cost=120)
    """

    _saved = ("_sums", "_weights", "_shifts", "_rounds", "_total", "_smallest", "_played", "probabilities")
    _fixed = ("_arms", "_seed", "_reduced_variance")

    def __init__(self, arms: Any, *, reduced_variance: bool = False, seed: int = 0) -> None:
        self._arms = checked_arms(arms)
        self._draws = Draws(seed)
        self._seed = self._draws.seed
        self._reduced_variance = bool(reduced_variance)
        d = self._arms.size
        self._sums = np.zeros(d)  # of cost / p where played
        self._weights = np.zeros(d)  # of 1 / p where played
        self._shifts = np.zeros(d)
        self._rounds = 0
        self._total, self._smallest = 0.0, 1.0
        self._played = -1
        self.products = 0
        self.probabilities = np.full(d, 1.0 / d)

    @property
    def estimates(self) -> np.ndarray:
        # Costs in iterations are at least one, and what all arms cost is no loss. Of seconds the same cannot be said.
        least = 1.0 if self._smallest >= 1.0 else 0.0
        scale = self._total / self._rounds - least if self._rounds else 1.0
        return (self._sums - least * self._weights) / (scale if scale > 0.0 else 1.0) + self._shifts

    def suggest(self, context: Any = None, A: Any = None) -> float:
        """Draw an arm; context and A are not used."""
        eta = (4.0 if self._reduced_variance else 2.0) / np.sqrt(self._rounds + 1.0)
        self.probabilities = tsallis_probabilities(self.estimates, eta)
        self._played = self._draws.choice(self._rounds, self.probabilities)
        return float(self._arms[self._played])

    def update(self, cost: float) -> None:
        """Raise the estimate of the arm that was played."""
        cost = checked_cost(cost, self._played >= 0)
        chance = self.probabilities[self._played]
        self._rounds += 1
        self._total += cost
        self._smallest = min(self._smallest, cost)
        if self._reduced_variance and self._rounds >= _FROM:
            likely = self._rounds * self.probabilities >= _FROM
            self._shifts[likely] += 0.5
            if likely[self._played]:
                self._shifts[self._played] -= 0.5 / chance
        self._sums[self._played] += cost / chance
        self._weights[self._played] += 1.0 / chance
        self._played = -1
