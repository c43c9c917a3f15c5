"""The search for what a dense solve does not know: kernel parameters, noise, coefficients of the equation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from operators.gp.conditioning import FIRST_NUGGET, DensePosterior
from operators.gp.evidence import Peak, climb
from operators.gp.frequencies import choose_kernel
from operators.gp.kernels import GaussianMixture, Kernel, Product, StudentMixture
from operators.gp.knowledge import Knowledge
from operators.gp.solution import PointwisePosterior, Posterior

Array = NDArray[np.floating]
FAMILY: dict[str, Any] = {"gaussian": GaussianMixture, "student": StudentMixture}
CHOOSING_ROWS = 500
"""Kernel parameters are chosen on a coarser grid and fewer observations, if there are more rows than this."""
SIZE_KNOWN = math.log(2)
"""Standard deviation of the logarithm of u's prior deviation, around twice the root mean square of its known values."""
CLEARLY = 3.0
"""By so much must a comb be better: twenty times as likely."""
LARGEST = 60.0
"""A logarithm beyond this is no number to compute with."""


class Search:
    """The search, in one vector of logarithms: prior deviation and inverse lengths, noise, coefficients.

    What is maximised is ``log p(observations | f, boundary data) + log p(f, boundary data) / n``, n the number of the
    latter: the nodes are ours, and how many we take must not decide how sure we are. (All evidence is no guide: where
    f = 0, it grows without bound as the prior makes u constant.) The first part alone then decides on prior deviation,
    noise and coefficients, and on how uncertain they are. Without observations, boundary data take their part. The
    prior deviation of u is thought to be about twice the root mean square of its known values, within a factor of two.

    Parameters
    ----------
    known : Knowledge
        All data.
    names : sequence of str
        Unknown parameters of the problem.
    kernel : Kernel or str
        Given, or the family to choose from.

    Attributes
    ----------
    history : list of dict
        What was found on the way.
    notes : list of str
        What a user should know.
    """

    def __init__(self, known: Knowledge, names: Sequence[str], kernel: Kernel | str) -> None:
        self.known, self.kernel = known, kernel
        self.small = known.thinned(CHOOSING_ROWS)
        self.nugget = FIRST_NUGGET
        self.around: DensePosterior | None = None
        self.history: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.scale = known.size()
        self.shape = self.plain = [] if isinstance(kernel, Kernel) else [FAMILY[kernel](1.0)] * known.problem.dimension
        self.free = 0 if isinstance(kernel, Kernel) else 1 + known.problem.dimension
        self.places = {name: self.free + (known.noise is None) + k for k, name in enumerate(names)}
        self.size = self.free + (known.noise is None) + len(names)

    def setting(self, v: Array) -> tuple[Kernel, dict[str, float], float]:
        """Kernel, the problem's parameters, and the noise's standard deviation.

        Parameters
        ----------
        v : ndarray
            Logarithms.
        """
        parameters = dict(self.known.problem.parameters)
        for name, place in self.places.items():
            parameters[name] = math.copysign(math.exp(v[place]), parameters[name])
        noise = math.exp(v[self.free]) if self.known.noise is None else 0.0
        if isinstance(self.kernel, Kernel):
            return self.kernel, parameters, noise
        factors = []
        for axis, shape in enumerate(self.shape):
            variance = math.exp(2 * v[0]) if axis == 0 else 1.0
            rho = math.exp(v[1 + axis]) * shape.inverse_lengths
            factors.append(type(shape)(variance * shape.weights, shape.frequencies, rho))
        return factors[0] if len(factors) == 1 else Product(*factors), parameters, noise

    def settle(self, known: Knowledge, v: Array, rtol: float, most: int) -> tuple[DensePosterior, int, bool]:
        """The posterior; of a nonlinear equation after Newton steps, with their number and success beside it.

        Parameters
        ----------
        known : Knowledge
            The data, or a part.
        v : ndarray
            Logarithms.
        rtol : float
            A relative change of the mean below this ends it.
        most : int
            The most steps.
        """
        setting, around = self.setting(v), self.around
        if known.problem.linear or around is None:
            return known.posterior(*setting, None, self.nugget), 1, True
        still = (0,) * known.problem.dimension
        before = around.mean(known.inner, still)
        for step in range(1, most + 1):
            around = known.posterior(*setting, around, self.nugget)
            now = around.mean(known.inner, still)
            if np.linalg.norm(now - before) <= rtol * np.linalg.norm(now):
                return around, step, True
            before = now
        return around, most, False

    def criterion(self, known: Knowledge, v: Array, given: bool = False) -> float:
        """What is maximised, or its first part alone.

        Parameters
        ----------
        known : Knowledge
            The data, or a part.
        v : ndarray
            Logarithms.
        given : bool
            The first part alone: of the observations, given the rest.
        """
        if np.any(np.abs(v) > LARGEST):
            return -math.inf
        try:
            found, _, converged = self.settle(known, v, 1e-3, 8)
        except ValueError:
            return -math.inf
        self.nugget = max(self.nugget, found.nugget)
        # Far from the solution Newton may wander: where it has not ended, there is no evidence.
        if not converged:
            return -math.inf
        first = len(known.inner) + (len(known.outer) if len(known.values) else 0)
        ours, theirs = found.log_densities[:first], found.log_densities[first:]
        away = (v[0] - math.log(2 * self.scale)) / SIZE_KNOWN if self.free else 0.0
        return float(theirs.sum() - 0.5 * away**2 + (0.0 if given or not first else ours.mean()))

    def run(self) -> Peak:
        """Search."""
        v = self.start()
        if not self.known.problem.linear:
            # The equation is linearised at what the values alone say first, and then at what it says itself.
            values = self.small.without_equation()
            if self.free:
                v = self.table(values, v)
            self.around = values.posterior(*self.setting(v), None, self.nugget)
        if not self.size:
            return Peak(v, math.nan, np.zeros((0, 0)), np.zeros(0, bool), 0)
        for _ in range(1 if self.known.problem.linear else 2):
            v = self.scan(v)
            peak = self.improve(v)
            v = peak.position
            if not self.known.problem.linear:
                self.around, _, _ = self.settle(self.small, v, 1e-5, 20)
        return peak

    def start(self) -> Array:
        """Where it begins: coefficients as the problem has them."""
        v = np.zeros(self.size)
        v[: self.free] = math.log(self.scale)
        if self.known.noise is None:
            v[self.free] = math.log(0.1 * (float(self.known.values.std()) or self.scale))
        for name, place in self.places.items():
            v[place] = math.log(abs(self.known.problem.parameters[name]))
        return v

    def scan(self, v: Array) -> Array:
        """The best start: one component an axis or a comb of those that f and boundary data have, with their lengths.

        Each coefficient is tried from a sixteenth to sixteen times its value.

        Parameters
        ----------
        v : ndarray
            Logarithms.
        """
        combs = self.combs() if self.free else []
        if combs:
            chosen = self.table(self.small, v)
            value = self._of_small(chosen)
            self.shape = combs
            if not self._of_small(self.table(self.small, v)) > value + CLEARLY:
                self.shape = self.plain
        for place in self.places.values():
            starts = [v + move * np.eye(self.size)[place] for move in math.log(2.0) * np.arange(-4, 5)]
            if self.free:
                starts = [self.table(self.small, start) for start in starts]
            v = max(starts, key=self._of_small)
        return v if self.places or not self.free else self.table(self.small, v)

    def combs(self) -> list[Any]:
        """Components at the frequencies that f and boundary data show, per axis; none if they show none."""
        if not (np.any(self.known.problem.right_hand_side(self.known.inner)) or np.any(self.known.outer_values)):
            return []
        try:
            found = choose_kernel(self.known.problem, str(self.kernel))
        except ValueError as error:  # too few nodes for what f holds: the equation says less than it could
            self.notes.append(str(error))
            return []
        return list(found.factors)

    def table(self, known: Knowledge, v: Array) -> Array:
        """The best of some prior deviations and lengths, from the box's to that between nodes.

        Parameters
        ----------
        known : Knowledge
            The data, or a part.
        v : ndarray
            Logarithms.
        """
        problem, best, chosen = known.problem, -math.inf, v
        spans = np.array([hi - lo for lo, hi in problem.domain])
        widths = 2.0 ** np.arange(math.log2(2 * min(problem.nodes)))
        if self.shape is not self.plain:  # a comb knows its own
            widths, spans = np.array([0.5, 1.0, 2.0]), np.ones(len(spans))
        for width in widths:
            for factor in (1.0, 4.0):
                trial = v.copy()
                trial[: self.free] = [math.log(factor * self.scale), *np.log(width / spans)]
                value = self.criterion(known, trial)
                self.history.append({"kernel": repr(self.setting(trial)[0]), "criterion": value})
                if value > best:
                    best, chosen = value, trial
        return chosen

    def _of_small(self, v: Array) -> float:
        return self.criterion(self.small, v)

    def improve(self, v: Array) -> Peak:
        """Climb: the lengths on the smaller data, then all else; noise and coefficients at last on all data.

        Parameters
        ----------
        v : ndarray
            Logarithms.
        """
        peak = Peak(v, math.nan, np.zeros((self.size, self.size)), np.zeros(self.size, bool), 0)
        if self.free:
            peak = climb(self._of_small, v, np.full(self.size, 0.5), newton=False)
            self._note("criterion", peak, self.small)
        if not len(self.known.values):
            return peak
        variance, rest = [0][: self.free], list(range(self.free, self.size))
        peak = self.climb_given(self.small, peak.position, variance + rest, np.full(len(variance + rest), 0.5))
        if self.small is self.known or not rest:
            return peak
        widths = np.sqrt(np.maximum(peak.covariance.diagonal()[rest], 1e-12))
        return self.climb_given(self.known, peak.position, rest, widths, simplex=False)

    def climb_given(
        self, known: Knowledge, v: Array, places: Sequence[int], steps: Array, simplex: bool = True
    ) -> Peak:
        """The peak of the observations' evidence in some of the parameters; the others count as certain.

        Parameters
        ----------
        known : Knowledge
            The data, or a part.
        v : ndarray
            Logarithms.
        places : sequence of int
            Which of them move.
        steps : ndarray
            How far at first.
        simplex : bool
            See `operators.gp.evidence.climb`.
        """

        def given(some: Array) -> float:
            moved = v.copy()
            moved[places] = some
            return self.criterion(known, moved, given=True)

        found = climb(given, v[places], steps, simplex=simplex)
        position, covariance, bounded = v.copy(), np.zeros((self.size, self.size)), np.zeros(self.size, bool)
        position[places], bounded[places] = found.position, found.bounded
        covariance[np.ix_(places, places)] = found.covariance
        peak = Peak(position, found.value, covariance, bounded, found.evaluations)
        self._note("log_evidence_of_observations", peak, known)
        return peak

    def _note(self, what: str, peak: Peak, known: Knowledge) -> None:
        """A line of the history."""
        kernel, parameters, _ = self.setting(peak.position)
        found = {name: parameters[name] for name in self.places}
        self.history.append(
            {"kernel": repr(kernel), what: peak.value, "rows": len(known), "evaluations": peak.evaluations, **found}
        )

    def deviation(self, peak: Peak, place: int) -> float:
        """A coefficient's standard deviation, from that of its logarithm; infinite if the data do not bound it.

        Parameters
        ----------
        peak : Peak
        place : int
        """
        if not peak.bounded[place]:
            return math.inf
        return math.exp(peak.position[place]) * math.sqrt(peak.covariance[place, place])

    def mixed(self, posterior: DensePosterior, peak: Peak) -> Posterior:
        """The posterior, averaged over what the search has found as far as the data leave it open.

        By the cubature rule of degree 3: 2 p equally likely points, sqrt(p) standard deviations away along the
        principal axes. Lengths count as certain, and the variance too where there are many data.

        Parameters
        ----------
        posterior : DensePosterior
            At the peak.
        peak : Peak
        """
        places = np.flatnonzero(peak.bounded)
        if not len(places):
            return posterior
        self.around = None if self.known.problem.linear else posterior
        values, vectors = np.linalg.eigh(peak.covariance[np.ix_(places, places)])
        ways = []
        for value, vector in zip(values, vectors.T, strict=True):
            move = np.zeros(self.size)
            move[places] = math.sqrt(len(places) * max(value, 0.0)) * vector
            for v in (peak.position + move, peak.position - move):
                way, _, _ = self.settle(self.known, v, 1e-5, 20)
                if self.small is not self.known:
                    way.forget_deviations()
                ways.append(way)
        return _Mixed(posterior, ways)


@dataclass(frozen=True, eq=False)
class _Mixed(PointwisePosterior):
    """A posterior whose kernel and coefficients are uncertain themselves: some ways they may be, equally likely."""

    central: DensePosterior
    ways: Sequence[DensePosterior]

    def mean(self, points: Array, orders: tuple[int, ...]) -> Array:
        return self.central.mean(points, orders)

    def std(self, points: Array) -> Array:
        still = (0,) * points.shape[1]
        middle = self.central.mean(points, still)
        within = [way.std(points) ** 2 for way in self.ways if way.deviates] or [self.central.std(points) ** 2]
        between = [(way.mean(points, still) - middle) ** 2 for way in self.ways]
        return np.sqrt(np.mean(within, axis=0) + np.mean(between, axis=0))
