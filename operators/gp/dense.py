"""Scattered noisy observations fused with an equation, and coefficients of the equation that nobody knows.

Parameters theta of the kernel, and unknown coefficients, are those of the largest evidence ``log p(data | theta)``.
The width of its peak (Laplace) is their uncertainty, and goes into that of u, ``var(x) = E var(x | theta) + var E(x |
theta)``.

Nonlinear equations are linearised at the mean and solved again until it stays (Gauss and Newton; Chen et al. 2021,
arXiv 2103.12959, section 3).
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from operators.gp.conditioning import FIRST_NUGGET, DensePosterior
from operators.gp.evidence import Peak, climb
from operators.gp.kernels import GaussianMixture, Kernel, Product, StudentMixture
from operators.gp.knowledge import Knowledge, as_observations
from operators.gp.problems import Problem
from operators.gp.residual import residual_between_nodes
from operators.gp.solution import Diagnostics, Evidence, Inferred, PointwisePosterior, Solution

Array = NDArray[np.floating]
FAMILY = {"gaussian": GaussianMixture, "student": StudentMixture}
MOST_ROWS = 10_000
"""Nodes and observations; the covariance of so many takes 0.8 GB."""
CHOOSING_ROWS = 400
"""Kernel parameters are chosen on a coarser grid and fewer observations, if there are more rows than this."""
NEWTON_STEPS = 20
VARIANCE_KNOWN = math.log(2)
"""Standard deviation of the logarithm of u's prior deviation around the value that all data favour, before the
observations are asked: they may have nothing to say."""


def solve_dense(
    problem: Problem, *, observations: Any = None, unknowns: Sequence[str] = (), kernel: Kernel | str = "gaussian"
) -> Solution:
    """The exact posterior of u, given a problem and scattered observations.

    Parameters
    ----------
    problem : Problem
        Its nodes and the observations are at most 10,000.
    observations : Observations or (points, values, noise), optional
        At most 5,000; the noise is a standard deviation, one or ``(n,)``, or None: it is inferred then.
    unknowns : sequence of str
        Parameters of the problem to infer; their values in the problem are where the search begins, and their signs
        stay.
    kernel : Kernel or str
        A kernel, taken as it is, or "gaussian" or "student": one component an axis (squared exponential, Matern-5/2),
        whose variance and lengths have the largest evidence.

    Returns
    -------
    Solution

    Raises
    ------
    ValueError, TypeError
        If something does not fit: with which argument, what was expected, what was got.

    Examples
    --------
    A string under a known load, its ends unknown, and its tension inferred from thirty noisy readings of its shape:

    >>> from operators.gp import partial
    >>> load = lambda x: -np.sin(3 * x[:, 0])
    >>> tension = partial(2).named("tension")
    >>> problem = Problem([(0, 2)], tension, load, 0.0, 20, faces=[], parameters={"tension": 1.0})
    >>> x = np.linspace(0, 2, 30)[:, None]
    >>> shape = np.sin(3 * x[:, 0]) / (9 * 0.25)
    >>> noise = 0.01 * np.random.default_rng(0).standard_normal(30)
    >>> solution = solve_dense(problem, observations=(x, shape + noise, 0.01), unknowns=["tension"])
    >>> tension = solution.unknowns["tension"]
    >>> bool(abs(tension.value - 0.25) < 3 * tension.std), bool(tension.std < 0.01)
    (True, True)
    """
    began = time.perf_counter()
    known = Knowledge.of(problem, as_observations(problem, observations))
    if len(known) > MOST_ROWS:
        raise ValueError(
            f"nodes and observations together must be at most {MOST_ROWS} here, got {len(known)}: take fewer nodes, "
            "no more than it takes to resolve u"
        )
    search = _Search(known, _as_unknowns(problem, unknowns, len(known.values)), kernel)
    history: list[dict[str, Any]] = []
    posterior: DensePosterior | None = None
    peak = search.begin(history)
    steps, converged = 0, False
    for _ in range(1 if problem.linear else 3):
        peak = search.improve(peak, posterior, history)
        posterior, more, converged = search.condition(peak.position, posterior)
        steps += more
    assert posterior is not None
    kernel_now, parameters, noise = search.setting(peak.position)
    widened = search.widen(posterior, peak)
    notes = [] if known.noise is not None else [f"the noise's standard deviation, {noise:.4g}, was inferred"]
    inferred = {}
    for name, place in search.places.items():
        inferred[name] = Inferred(parameters[name], search.deviation(peak, place))
        if not peak.bounded[place]:
            notes.append(f"{name} is not bounded on both sides by the data: its standard deviation is infinite")
    diagnostics = Diagnostics(
        method="dense Gaussian process, conditioned on equation, boundary data and observations",
        kernel=kernel_now,
        residual=residual_between_nodes(problem, posterior, parameters),
        nugget=posterior.nugget,
        nugget_raised=round(math.log10(posterior.nugget / FIRST_NUGGET)),
        iterations=steps,
        converged=converged,
        seconds=time.perf_counter() - began,
        history=history,
        notes=notes,
    )
    return Solution(problem, widened, Evidence(posterior.log_evidence), diagnostics, inferred)


class _Search:
    """The search for kernel parameters, noise and unknown coefficients: logarithms of them, in one vector."""

    def __init__(self, known: Knowledge, names: Sequence[str], kernel: Kernel | str) -> None:
        self.known, self.kernel = known, kernel
        self.small = known.thinned(CHOOSING_ROWS)
        self.nugget = FIRST_NUGGET
        problem = known.problem
        self.spans = np.array([hi - lo for lo, hi in problem.domain])
        self.free = 0 if isinstance(kernel, Kernel) else 1 + problem.dimension
        if isinstance(kernel, Kernel):
            require_smooth(kernel, problem)
        self.places = {name: self.free + (known.noise is None) + k for k, name in enumerate(names)}

    def setting(self, v: Array) -> tuple[Kernel, dict[str, float], float]:
        """Kernel, the problem's parameters, and the noise's standard deviation."""
        parameters = dict(self.known.problem.parameters)
        for name, place in self.places.items():
            parameters[name] = math.copysign(math.exp(v[place]), parameters[name])
        noise = math.exp(v[self.free]) if self.known.noise is None else 0.0
        if isinstance(self.kernel, Kernel):
            return self.kernel, parameters, noise
        mixture = FAMILY[self.kernel]
        factors = [mixture(math.exp(2 * v[0]) if a == 0 else 1.0, 0.0, math.exp(r)) for a, r in enumerate(v[1 : self.free])]
        return factors[0] if len(factors) == 1 else Product(*factors), parameters, noise

    def log_evidence(self, known: Knowledge, v: Array, around: DensePosterior | None, given: bool = False) -> float:
        """Of all data, or of the observations `given` the equation and the boundary data."""
        if np.any(np.abs(v) > 60):
            return -math.inf
        try:
            found = known.posterior(*self.setting(v), around, self.nugget)
        except ValueError:
            return -math.inf
        self.nugget = max(self.nugget, found.nugget)
        return float(found.log_densities[len(known) - len(known.values) if given else 0 :].sum())

    def begin(self, history: list[dict[str, Any]]) -> Peak:
        """The best of a coarse table of variances and lengths, then of each unknown coefficient."""
        problem, values = self.known.problem, self.known.values
        v = np.zeros(self.free + (self.known.noise is None) + len(self.places))
        size = self.known.size()
        if self.known.noise is None:
            v[self.free] = math.log(0.1 * (values.std() or size))
        for name, place in self.places.items():
            v[place] = math.log(abs(problem.parameters[name]))
        best = -math.inf
        if self.free:
            widths = np.min(problem.nodes) / 2
            for width in 2.0 ** np.arange(math.log2(widths) + 1):
                for variance in (1.0, 10.0):
                    trial = v.copy()
                    trial[: self.free] = [math.log(variance * size), *np.log(width / self.spans)]
                    value = self.log_evidence(self.small, trial, None)
                    history.append({"kernel": repr(self.setting(trial)[0]), "log_evidence": value})
                    if value > best:
                        best, chosen = value, trial
            v = chosen
        for place in self.places.values():
            trials = [v + shift * np.eye(len(v))[place] for shift in np.log(2.0) * np.arange(-4, 5)]
            v = max(trials, key=lambda trial: self.log_evidence(self.small, trial, None))
        return Peak(v, best, np.zeros((len(v), len(v))), np.zeros(len(v), bool), 0)

    def improve(self, peak: Peak, around: DensePosterior | None, history: list[dict[str, Any]]) -> Peak:
        """Lengths by the evidence of all data; all else by that of the observations, given equation and boundary.

        Exact values of a smooth f at many nodes tell how smooth u is, but are so much evidence that they would decide
        on the variance too, of which they know nothing where the equation leaves u open.
        """
        v, p = peak.position, len(peak.position)
        if not p:
            return peak
        if self.free:
            peak = climb(lambda w: self.log_evidence(self.small, w, around), v, np.full(p, 0.5), newton=False)
            history.append(self.line("log_evidence", peak, self.small))
        if not len(self.known.values):
            return peak
        places = [*range(min(self.free, 1)), *range(self.free, p)]
        peak = self.climb_some(self.small, peak.position, places, np.full(len(places), 0.5), around)
        history.append(self.line("log_evidence_of_observations", peak, self.small))
        if self.small is self.known or self.free == p:
            return peak
        places = places[min(self.free, 1) :]
        widths = np.sqrt(np.maximum(peak.covariance.diagonal()[places], 1e-12))
        peak = self.climb_some(self.known, peak.position, places, widths, around, simplex=False)
        history.append(self.line("log_evidence_of_observations", peak, self.known))
        return peak

    def climb_some(
        self,
        known: Knowledge,
        v: Array,
        places: Sequence[int],
        steps: Array,
        around: DensePosterior | None,
        simplex: bool = True,
    ) -> Peak:
        """The peak of the observations' evidence in some of the parameters; the others count as certain."""

        def given(some: Array) -> float:
            moved = v.copy()
            moved[places] = some
            away = (moved[0] - v[0]) / VARIANCE_KNOWN if places[0] == 0 and self.free else 0.0
            return self.log_evidence(known, moved, around, given=True) - 0.5 * away**2

        found = climb(given, v[places], steps, simplex=simplex)
        position, covariance, bounded = v.copy(), np.zeros((len(v), len(v))), np.zeros(len(v), bool)
        position[places], bounded[places] = found.position, found.bounded
        covariance[np.ix_(places, places)] = found.covariance
        return Peak(position, found.value, covariance, bounded, found.evaluations)

    def line(self, what: str, peak: Peak, known: Knowledge) -> dict[str, Any]:
        """A line of the history."""
        kernel, parameters, _ = self.setting(peak.position)
        found = {name: parameters[name] for name in self.places}
        return {"kernel": repr(kernel), what: peak.value, "rows": len(known), "evaluations": peak.evaluations, **found}

    def condition(self, v: Array, posterior: DensePosterior | None) -> tuple[DensePosterior, int, bool]:
        """The posterior; of a nonlinear equation after Newton steps, whose number and success stand beside it."""
        setting = self.setting(v)
        if self.known.problem.linear:
            return self.known.posterior(*setting, None, self.nugget), 1, True
        still = (0,) * self.known.problem.dimension
        before = np.zeros(len(self.known.inner)) if posterior is None else posterior.mean(self.known.inner, still)
        for step in range(1, NEWTON_STEPS + 1):
            posterior = self.known.posterior(*setting, posterior, self.nugget)
            now = posterior.mean(self.known.inner, still)
            if np.linalg.norm(now - before) <= 1e-8 * np.linalg.norm(now):
                return posterior, step, True
            before = now
        assert posterior is not None
        return posterior, NEWTON_STEPS, False

    def deviation(self, peak: Peak, place: int) -> float:
        """A coefficient's standard deviation, from that of its logarithm."""
        if not peak.bounded[place]:
            return math.inf
        return math.exp(peak.position[place]) * math.sqrt(peak.covariance[place, place])

    def widen(self, posterior: DensePosterior, peak: Peak) -> PointwisePosterior:
        """The posterior, averaged over what the search has found as far as the data leave it open.

        By the cubature rule of degree 3: 2 p equally likely points, sqrt(p) standard deviations away along the
        principal axes. Lengths count as certain, and the variance too where there are many data.
        """
        places = [k for k in range(len(peak.position)) if peak.bounded[k] and peak.covariance[k, k] > 0]
        if not places:
            return posterior
        values, vectors = np.linalg.eigh(peak.covariance[np.ix_(places, places)])
        ways = []
        for value, vector in zip(values, vectors.T, strict=True):
            move = np.zeros(len(peak.position))
            move[places] = math.sqrt(len(places) * max(value, 0.0)) * vector
            for v in (peak.position + move, peak.position - move):
                ways.append(self.known.posterior(*self.setting(v), posterior, self.nugget))
                if self.small is not self.known:
                    ways[-1].forget_deviations()
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


def require_smooth(kernel: Kernel, problem: Problem) -> None:
    """Refuse a kernel whose process has fewer derivatives than the operator takes.

    Parameters
    ----------
    kernel : Kernel
    problem : Problem
    """
    if kernel.dimension != problem.dimension:
        raise ValueError(f"kernel is of {kernel.dimension} coordinates, and the domain has {problem.dimension}")
    order = max(problem.operator.order_along(axis) for axis in range(problem.dimension))
    if 2 * order > kernel.smoothness:
        raise ValueError(
            f"kernel is not smooth enough: the operator takes {order} derivatives along an axis, so that it needs "
            f"{2 * order} continuous ones, and has {kernel.smoothness:g}; take GaussianMixture"
        )


def _as_unknowns(problem: Problem, unknowns: Sequence[str], observed: int) -> tuple[str, ...]:
    """Names of parameters of the problem, checked."""
    names = (unknowns,) if isinstance(unknowns, str) else tuple(dict.fromkeys(unknowns))
    if not names:
        return ()
    if strange := [name for name in names if name not in problem.parameters]:
        raise ValueError(
            f"unknowns must be names of the problem's parameters, {sorted(problem.parameters)}, got {strange}; "
            "operator.named(name) makes a coefficient one"
        )
    if zero := [name for name in names if problem.parameters[name] == 0]:
        raise ValueError(f"unknowns are searched by their logarithm: the problem must give {zero} a value that is not 0")
    if not observed:
        raise ValueError(f"unknowns {list(names)} cannot be inferred without observations: give some")
    return names
