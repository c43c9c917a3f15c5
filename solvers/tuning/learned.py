r"""LearnedOmega: Young's factor from few looks at the matrices, corrected by costs.

Two things are put together.

1. The spectrum of a matrix says most of what there is to know, and a context says what the spectrum is: `RadiusModel`
   knows :math:`g = \log\sqrt{1 - \mu^2}`, :math:`\mu` the Jacobi radius, and with it Young's :math:`\omega^*`.
2. At a finite tolerance, for matrices that are not consistently ordered, and for SSOR as a preconditioner, Young's
   factor is near the best but not the best. Candidates :math:`2 - \omega = (2 - \omega^*)\,e^{w z}`, with the weight
   :math:`w = \omega^* - 1`, because the factor matters little for easy systems, are compared by costs,

   .. math:: \log \mathrm{cost} \approx \sum_{j<4} a_j g^j + w \beta_z, \qquad \beta_0 = 0,

   fitted by recursive least squares in which a cost k has the variance :math:`0.03^2 + 0.1 / k^2`: a few per cent, and
   the rounding to whole iterations. They are drawn with inverse gap weighting, as in `ChebyshevContextual`, from those
   that are within two standard deviations of the best.

Where no matrix is shown it learns from costs alone: `ChebyshevContextual` with a context, `TsallisINF` without.
"""

from math import exp, sqrt
from typing import Any

import numpy as np
from numba import njit

from solvers.tuning.chebyshev_contextual import ChebyshevContextual
from solvers.tuning.protocol import Draws, Saved, checked_cost, checked_interval, scaled_context
from solvers.tuning.radius_model import RadiusModel
from solvers.tuning.tsallis_inf import TsallisINF

OFFSETS = np.array([0.0, -0.5, -0.2, -0.08, -0.03, 0.03, 0.08, 0.2, 0.5])  # z
_ORDER = np.argsort(OFFSETS)
_POWERS = 4  # of g in the model of the cost
_PRIOR = np.abs(OFFSETS[1:])  # beyond omega* the sweeps grow like 1 / (2 - omega); below faster
_SURPRISE = 5.0  # standard deviations of a cost
_LARGEST = 1.995
_GRID = np.linspace(1.0, 1.95, 20)  # for streams without matrices


class LearnedOmega(Saved):
    r"""Relaxation factors for a stream of systems, from few looks at the matrices and from costs.

    Parameters
    ----------
    interval : (float, float) or None
        Where the contexts lie, roughly: contexts beyond are taken as they are. None for a stream without.
    seed : int

    Attributes
    ----------
    probabilities : ndarray, shape (9,)
        With which the last correction of Young's factor was drawn.
    products : int
        Products with matrices so far, to be charged.

    Raises
    ------
    ValueError
        If a context is not one finite number, or comes although there is no interval, or the matrix has no positive
        diagonal.

    Examples
    --------
    >>> from solvers import gallery, sor
    >>> A = gallery.poisson((15, 15)).tocsr()
    >>> policy = LearnedOmega((0.0, 0.5), seed=1)
    >>> rng = np.random.default_rng(1)
    >>> for shift in 0.5 * rng.random(100):
    ...     shifted = A + shift * np.eye(225)
    ...     omega = policy.suggest(shift, shifted)
    ...     policy.update(sor(shifted, np.ones(225), omega=omega, rtol=1e-8).iterations)
    >>> policy.products < 100
    True
    """

    _saved = (
        *("_model", "_blind", "_theta", "_covariance", "_variance", "_rounds"),
        *("_played", "_g", "_weight", "probabilities"),
    )
    _fixed = ("_interval", "_seed")

    def __init__(self, interval: Any, *, seed: int = 0) -> None:
        self._limits = None if interval is None else checked_interval(interval)
        self._interval = self._limits or ()
        self._draws = Draws(seed)
        self._seed = self._draws.seed
        self._model = RadiusModel(time=self._limits is None)
        self._blind: ChebyshevContextual | TsallisINF
        if self._limits is None:
            self._blind = TsallisINF(_GRID, reduced_variance=True, seed=seed)
        else:
            self._blind = ChebyshevContextual(_GRID, self._limits, seed=seed)
        self._theta = np.concatenate([np.zeros(_POWERS), _PRIOR])
        # Nothing is known of the powers, and the corrections may be off by a factor of 2.
        self._covariance = np.diag(np.concatenate([np.full(_POWERS, 1e4), np.full(_PRIOR.size, 4.0)]))
        self._variance = 1.0  # of a cost, in units of what is said above
        self._rounds = 0
        self._played = -1  # the place in OFFSETS; beyond them if the blind policy was asked
        self._g, self._weight = 0.0, 0.0
        self.probabilities = np.full(OFFSETS.size, 1.0 / OFFSETS.size)

    @property
    def products(self) -> int:
        return self._model.products

    def suggest(self, context: Any = None, A: Any = None) -> float:
        """A factor for the system with this context and this matrix."""
        if self._limits is not None:
            place = scaled_context(context, self._limits)
        elif context is None:
            place = float(self._rounds)
        else:
            raise ValueError("context: LearnedOmega(None) was made for a stream without; give it an interval")
        if A is None:
            self._played = OFFSETS.size
            omega = self._blind.suggest(context)
            self.probabilities = self._blind.probabilities
            return omega
        self._g = self._model(place, A, self._loss)
        short = 2.0 / (1.0 + exp(-self._g))  # 2 - omega*
        self._weight = 1.0 - short
        gamma = 4.0 * sqrt((self._rounds + 1.0) / self._variance)
        self.probabilities = _probabilities(self._theta, self._covariance, self._weight, self._variance, gamma)
        self._played = self._draws.choice(self._rounds, self.probabilities)
        return min(max(2.0 - short * exp(self._weight * OFFSETS[self._played]), 1.0), _LARGEST)

    def update(self, cost: float) -> None:
        """Learn from what the system cost."""
        cost = checked_cost(cost, self._played >= 0)
        surprising = False
        if self._played == OFFSETS.size:
            self._blind.update(cost)
        else:
            error = _learn(self._theta, self._covariance, self._g, self._weight, self._played, max(cost, 0.5))
            surprising = error * error > _SURPRISE**2 * self._variance
            self._variance += (min(error * error, 10.0) - self._variance) / (self._rounds + 2.0)
        self._model.charge(cost, surprising)
        self._rounds += 1
        self._played = -1

    def _loss(self, used: float, g: float) -> float:
        """By what part the cost grows, as far as is known, if the factor for `used` is taken where g is right."""
        weight = -np.tanh(g / 2.0)
        if weight <= 0.0:
            return 0.0
        z = (used - g) / (1.0 + exp(g)) / weight  # log(2 - omega*) grows by a 1 / (1 + e^g) of what g does
        effects = np.concatenate([[0.0], self._theta[_POWERS:]])[_ORDER]
        inside = float(np.interp(z, OFFSETS[_ORDER], effects))
        return max(weight * inside * max(abs(z) / OFFSETS.max(), 1.0), 0.0)


@njit(cache=True, nogil=True)
def _probabilities(theta, covariance, weight, variance, gamma):  # type: ignore[no-untyped-def]
    """Inverse gap weighting over the candidates that may be the best, those that cannot have probability zero."""
    d = theta.size - _POWERS + 1
    best, lowest = 0, 0.0
    for i in range(1, d):
        if theta[_POWERS + i - 1] < lowest:
            best, lowest = i, theta[_POWERS + i - 1]
    b = best + _POWERS - 1
    p = np.zeros(d)
    rest = 1.0
    for i in range(d):
        k = i + _POWERS - 1
        gap = (theta[k] if i else 0.0) - lowest
        spread = covariance[k, k] if i else 0.0
        if best:
            spread += covariance[b, b] - (2.0 * covariance[k, b] if i else 0.0)
        if i != best and gap < 2.0 * np.sqrt(variance * spread):
            p[i] = 1.0 / (d + gamma * weight * gap)
            rest -= p[i]
    p[best] = rest
    return p


@njit(cache=True, nogil=True)
def _learn(theta, covariance, g, weight, played, cost):  # type: ignore[no-untyped-def]
    """One step of recursive least squares in place; the error of the prediction, in its standard deviations."""
    features = np.zeros(theta.size)
    features[0] = 1.0
    for j in range(1, _POWERS):
        features[j] = features[j - 1] * g
    if played:
        features[_POWERS + played - 1] = weight
    gain = np.zeros(theta.size)  # loops: BLAS would take longer to call than this to do
    predicted = spread = 0.0
    for i in range(theta.size):
        for j in range(theta.size):
            gain[i] += covariance[i, j] * features[j]
        predicted += theta[i] * features[i]
        spread += gain[i] * features[i]
    spread += 0.03**2 + 0.1 / np.exp(2.0 * min(max(predicted, 0.0), 20.0))
    error = np.log(cost) - predicted
    for i in range(theta.size):
        theta[i] += gain[i] * error / spread
        for j in range(theta.size):
            covariance[i, j] -= gain[i] * gain[j] / spread
    return error / np.sqrt(spread)
