r"""ChebCB: the best parameter as a function of a context, found from costs alone.

The cost of each arm i is modelled as a polynomial of the context c in [a, b], in Chebyshev polynomials,

.. math:: \mathrm{cost}_i(c) - 1 \approx K N \sum_{j<m} \theta_{ij} T_j\Bigl(\frac{2 (c - a)}{b - a} - 1\Bigr), \qquad
          |\theta_{i0}| \le \frac{1}{N}, \quad |\theta_{ij}| \le \frac{2 (b - a) L}{K N j},

fitted by least squares to the costs that the arm was seen to have; the bounds are those of a function with the
Lipschitz constant L and values up to K. With :math:`s = \theta f(c)` the arm is drawn with inverse gap weighting,

.. math:: p_i = \frac{1}{d + \gamma (s_i - \min s)}, \quad i \ne \arg\min s,

and the best arm with what remains.

Source: M. Khodak, E. Chow, M.-F. Balcan and A. Talwalkar, Learning to relax, arXiv 2310.02246, algorithm 7 and the code
published with it; inverse gap weighting: D. Foster and A. Rakhlin, Beyond UCB (SquareCB), arXiv 2002.04926.
"""

from math import log, pi, sqrt
from typing import Any

import numpy as np
from numba import njit

from solvers.tuning.protocol import Draws, Saved, checked_arms, checked_cost, checked_interval, scaled_context


class ChebyshevContextual(Saved):
    r"""Learns the best of a few parameters as a function of a context: ChebCB.

    K is the largest cost so far, :math:`N = 2 + 4 (b - a) L / K\,(1 + \log m)`.

    Parameters
    ----------
    arms : sequence of float
        The parameters to choose from.
    interval : (float, float)
        Where the contexts lie; those beyond are taken for its ends.
    constants : {"published", "theory"}
        With ``"published"``, as in the published code, :math:`L = K / (b - a)`, whatever the smallest cost, and
        :math:`\gamma_t = 2 t \sqrt{d t / (R + 2 \alpha^2 t)}` grows like t. With ``"theory"``, as in theorem 3.2 of the
        source but for any number of systems, L comes from the largest and the smallest cost,
        :math:`\gamma_t = 2 \sqrt{d t / (R + 2 \alpha^2 t)}`, and the regret R of the regression is against the best fit
        in hindsight of all arms.
    degrees : int
        m, the number of Chebyshev polynomials.
    seed : int

    Attributes
    ----------
    probabilities : ndarray, shape (arms,)

    Raises
    ------
    ValueError
        If there are no arms, the interval is empty, or a context is not one finite number.

    Examples
    --------
    >>> policy = ChebyshevContextual(np.linspace(1.0, 1.95, 20), (0.0, 1.0), seed=3)
    >>> for context in np.random.default_rng(0).random(2000):
    ...     omega = policy.suggest(context)
    ...     policy.update(20.0 + 100.0 * abs(omega - (1.2 + 0.6 * context)))
    >>> bool(abs(policy.suggest(0.25) - 1.35) < 0.11)
    True
    """

    _saved = (
        *("_grams", "_moments", "_squares", "_coefficients", "_misfit", "_features", "_rounds", "_largest"),
        *("_smallest", "_predictions", "_products_seen", "_costs", "_played", "_predicted", "_gamma", "probabilities"),
    )
    _fixed = ("_arms", "_interval", "_seed", "_published")

    def __init__(
        self, arms: Any, interval: Any, *, constants: str = "published", degrees: int = 6, seed: int = 0
    ) -> None:
        self._arms = checked_arms(arms)
        self._interval = checked_interval(interval)
        if constants not in ("published", "theory"):
            raise ValueError(f"constants: expected 'published' or 'theory', got {constants!r}")
        if not isinstance(degrees, int) or degrees < 1:
            raise ValueError(f"degrees: expected a positive whole number of Chebyshev polynomials, got {degrees!r}")
        self._published = constants == "published"
        self._draws = Draws(seed)
        self._seed = self._draws.seed
        d = self._arms.size
        # Per arm: features' products f f', f (cost - 1), (cost - 1)^2, the coefficients in units of cost, the misfit.
        self._grams, self._moments = np.zeros((d, degrees, degrees)), np.zeros((d, degrees))
        self._squares, self._coefficients, self._misfit = np.zeros(d), np.zeros((d, degrees)), np.zeros(d)
        self._features = np.zeros(degrees)
        self._decay = 2.0 / np.maximum(np.arange(degrees), 1)
        self._rounds, self._played = 0, -1
        self._largest, self._smallest = 0.0, np.inf
        self._predicted = 0.0  # of the suggestion, in units of K N
        # Sums over all rounds of prediction^2, prediction cost, cost^2 (published), or of the squared errors (theory).
        self._predictions = self._products_seen = self._costs = 0.0
        self._gamma = 0.0
        self.products = 0
        self.probabilities = np.full(d, 1.0 / d)

    def suggest(self, context: Any = None, A: Any = None) -> float:
        """Draw an arm for this context; A is not used."""
        x = min(max(scaled_context(context, self._interval), -1.0), 1.0)
        self._features = chebyshev_polynomials(x, self._features.size)
        scores = self._coefficients @ self._features / self._scale
        self.probabilities = inverse_gap_weights(scores, self._gamma)
        self._played = self._draws.choice(self._rounds, self.probabilities)
        self._predicted = float(scores[self._played])
        return float(self._arms[self._played])

    def update(self, cost: float) -> None:
        """Fit the arm that was played again, and all of them if the largest cost so far has changed."""
        cost = checked_cost(cost, self._played >= 0)
        f, arm, loss = self._features, self._played, cost - 1.0
        old = self._scale
        self._rounds += 1
        self._largest, self._smallest = max(self._largest, cost), min(self._smallest, cost)
        self._grams[arm] += f * f[:, None]
        self._moments[arm] += loss * f
        self._squares[arm] += loss * loss
        bounds = self._bounds
        bounded_misfit = 0.0
        for i in range(self._arms.size) if self._scale != old else (arm,):
            if self._grams[i, 0, 0] > 0:
                bounded, explained = _bounded(self._grams[i], self._moments[i], bounds, self._coefficients[i])
                self._misfit[i] = max(self._squares[i] - explained, 0.0)
                bounded_misfit = float(self._misfit[i]) if bounded else bounded_misfit
        self._gamma = self._learning_rate(cost, old, bounded_misfit)
        self._played = -1

    @property
    def _range(self) -> float:
        """(b - a) L."""
        if self._published:
            return self._largest
        return self._largest - (self._smallest if self._rounds else 0.0)

    @property
    def _scale(self) -> float:
        """K N."""
        m = self._features.size
        return (2.0 * self._largest + 4.0 * self._range * (1.0 + log(m))) or 1.0

    @property
    def _bounds(self) -> np.ndarray:
        """Of the coefficients, in units of cost."""
        bounds = self._decay * self._range
        bounds[0] = self._largest
        return bounds

    def _learning_rate(self, cost: float, old_scale: float, bounded_misfit: float) -> float:
        """gamma for the next system."""
        t, m, scale = self._rounds, self._features.size, self._scale
        alpha = (pi + 2.0 / pi * log(2.0 * m + 1.0)) / (2.0 * scale * (m + 1.0)) * self._range
        if self._published:
            self._predictions += self._predicted**2
            self._products_seen += self._predicted * cost
            self._costs += cost * cost
            regret = self._predictions - 2.0 * self._products_seen / scale + self._costs / scale**2
            regret -= bounded_misfit / scale**2
        else:
            self._predictions += (self._predicted * old_scale - (cost - 1.0)) ** 2
            regret = max(self._predictions - float(self._misfit.sum()), 0.0) / scale**2
        below = regret + 2.0 * alpha**2 * t
        rate = 2.0 * sqrt(self._arms.size * t / below) if below > 0.0 else 0.0
        return rate * t if self._published else rate


def chebyshev_polynomials(x: float, count: int) -> np.ndarray:
    r"""T_0(x), ..., T_{count-1}(x), shape (count,).

    Examples
    --------
    >>> chebyshev_polynomials(0.5, 4)
    array([ 1. ,  0.5, -0.5, -1. ])
    """
    values = np.ones(count)
    if count > 1:
        values[1] = x
    for j in range(2, count):
        values[j] = 2.0 * x * values[j - 1] - values[j - 2]
    return values


def inverse_gap_weights(scores: np.ndarray, gamma: float) -> np.ndarray:
    """Probabilities 1 / (d + gamma (s_i - min s)), the best score with what remains.

    Examples
    --------
    >>> inverse_gap_weights(np.array([1.0, 0.0]), 2.0)
    array([0.25, 0.75])
    """
    best = int(scores.argmin())
    p = 1.0 / (scores.size + gamma * (scores - scores[best]))
    p[best] = 0.0
    p[best] = 1.0 - p.sum()
    return p


@njit(cache=True, nogil=True)
def _solve_free(gram, moment, theta, fixed, ridge, trial):  # type: ignore[no-untyped-def]
    """Least squares over what is not fixed, by Cholesky."""
    m = moment.size
    places = np.empty(m, dtype=np.int64)
    count = 0
    for j in range(m):
        trial[j] = theta[j]
        if fixed[j] == 0:
            places[count] = j
            count += 1
    L = np.zeros((count, count))
    y = np.empty(count)
    for a in range(count):
        i = places[a]
        y[a] = moment[i]
        for j in range(m):
            if fixed[j] != 0:
                y[a] -= gram[i, j] * theta[j]
        for b in range(a + 1):
            value = gram[i, places[b]] + (ridge if a == b else 0.0)
            for k in range(b):
                value -= L[a, k] * L[b, k]
            L[a, b] = np.sqrt(max(value, ridge)) if a == b else value / L[b, b]
        for k in range(a):
            y[a] -= L[a, k] * y[k]
        y[a] /= L[a, a]
    for a in range(count - 1, -1, -1):
        for k in range(a + 1, count):
            y[a] -= L[k, a] * y[k]
        y[a] /= L[a, a]
        trial[places[a]] = y[a]


@njit(cache=True, nogil=True)
def _bounded(gram, moment, bounds, theta):  # type: ignore[no-untyped-def]
    """The active-set method of Stark and Parker; whether a bound was met, and by how much ||y||^2 is reduced."""
    m = moment.size
    ridge = 1e-12 * np.trace(gram)
    fixed = np.zeros(m, dtype=np.int64)
    trial = np.empty(m)
    theta[:] = 0.0
    met = False
    for _ in range(20 * m):
        _solve_free(gram, moment, theta, fixed, ridge, trial)
        step, at = 1.0, -1
        for j in range(m):
            if fixed[j] == 0 and abs(trial[j]) > bounds[j]:
                limit = bounds[j] if trial[j] > 0 else -bounds[j]
                share = (limit - theta[j]) / (trial[j] - theta[j])
                if share < step:
                    step, at = share, j
        for j in range(m):
            if fixed[j] == 0:
                theta[j] += step * (trial[j] - theta[j])
        if at >= 0:
            met = True
            fixed[at] = 1 if trial[at] > 0 else -1
            theta[at] = fixed[at] * bounds[at]
            continue
        worst, release = 0.0, -1
        for j in range(m):
            if fixed[j] != 0:
                slope = -moment[j]
                size = abs(moment[j])
                for k in range(m):
                    slope += gram[j, k] * theta[k]
                    size += abs(gram[j, k] * theta[k])
                if slope * fixed[j] > max(worst, 1e-12 * size):  # it would rather be inside
                    worst, release = slope * fixed[j], j
        if release < 0:
            break
        fixed[release] = 0
    reduction = 0.0
    for j in range(m):
        reduction += 2.0 * theta[j] * moment[j]
        for k in range(m):
            reduction -= theta[j] * gram[j, k] * theta[k]
    return met, reduction


def bounded_least_squares(gram: np.ndarray, moment: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, bool]:
    r"""The :math:`\theta` with :math:`|\theta_j| \le \mathrm{bounds}_j` that minimises :math:`\|F \theta - y\|`.

    Where F has dependent columns it is the shortest one, as far as the bounds allow, to a ridge of 1e-12 of the trace.

    Parameters
    ----------
    gram : ndarray, shape (m, m)
        F'F.
    moment : ndarray, shape (m,)
        F'y.
    bounds : ndarray, shape (m,)

    Returns
    -------
    ndarray, shape (m,)
    bool
        Whether a bound mattered.

    References
    ----------
    P. Stark and R. Parker, Bounded-variable least-squares, Comput. Statist. 10 (1995).

    Examples
    --------
    >>> bounded_least_squares(np.eye(2), np.array([3.0, 0.5]), np.ones(2))
    (array([1. , 0.5]), True)
    """
    theta = np.empty(moment.size)
    met, _ = _bounded(gram, moment, bounds, theta)
    return theta, bool(met)
