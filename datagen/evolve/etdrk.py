"""Exponential time differencing of fourth order, for ``v' = L v + N(v)`` with a diagonal L.

The linear part, however stiff, is integrated exactly; the nonlinear one by a Runge-Kutta method of four stages, ETDRK4
of Cox and Matthews 2002 (J. Comput. Phys. 176, p. 430) in the form of Kassam and Trefethen 2005 (SIAM J. Sci. Comput.
26, p. 1214). The latter remove the cancellation in its coefficients by contour integrals; here the functions

    phi_0(z) = exp z,    phi_{j+1}(z) = (phi_j(z) - 1/j!) / z,

come from their Taylor series where ``|z| < 1`` and from the recurrence elsewhere, where it divides by no small number:
both are exact to a few units of rounding, for complex z as for real.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datagen.evolve.family import UnstableStep
from datagen.evolve.work import count

Array = NDArray[Any]
_TAYLOR_TERMS = 18  # 1/21! = 2e-20 is the first term of phi_3 left out at |z| = 1
_CHECK_EVERY = 16  # steps between two looks at the rule of the step
_MOST_STEPS = 10_000_000  # between two times: more is a solution that runs away, or a request by mistake
_SHRINK = 0.8  # of the current step: when the rule falls below, the rest of the interval is divided anew


def phi_functions(z: Array) -> tuple[Array, Array, Array]:
    """``phi_1, phi_2, phi_3`` of real or complex arguments.

    Parameters
    ----------
    z : array
        Of any shape; the results have the same.

    Examples
    --------
    >>> [float(phi) for phi in phi_functions(np.array(0.0))]      # 1/1!, 1/2!, 1/3!
    [1.0, 0.5, 0.16666666666666666]
    """
    z = np.asarray(z)
    small = np.abs(z) < 1
    near, far = np.where(small, z, 0), np.where(small, 1, z)
    third = np.zeros_like(near)
    for j in reversed(range(_TAYLOR_TERMS)):
        third = third * near + 1 / math.factorial(j + 3)
    second = third * near + 1 / 2
    first = second * near + 1
    first_far = np.expm1(far) / far
    second_far = (first_far - 1) / far
    third_far = (second_far - 1 / 2) / far
    return np.where(small, first, first_far), np.where(small, second, second_far), np.where(small, third, third_far)


@dataclass(frozen=True)
class _Weights:
    """What one step of a length needs, each of the shape of L."""

    step: float
    whole: Array  # exp(h L)
    half: Array  # exp(h L / 2)
    stage: Array  # (h/2) phi_1(h L / 2)
    first: Array  # weights of N at the beginning, the two midpoints and the end
    middle: Array
    last: Array

    @classmethod
    def of(cls, linear: Array, step: float) -> "_Weights":
        z = step * linear
        one, two, three = phi_functions(z)
        return cls(
            step=step,
            whole=np.exp(z),
            half=np.exp(z / 2),
            stage=step / 2 * phi_functions(z / 2)[0],
            first=step * (one - 3 * two + 4 * three),
            middle=step * (2 * two - 4 * three),
            last=step * (4 * three - two),
        )


def _step(v: Array, w: _Weights, nonlinear: Callable[[Array], Array]) -> Array:
    n_v = nonlinear(v)
    half = w.half * v
    a = half + w.stage * n_v
    n_a = nonlinear(a)
    n_b = nonlinear(half + w.stage * n_a)
    n_c = nonlinear(w.half * a + w.stage * (2 * n_b - n_v))
    return w.whole * v + w.first * n_v + w.middle * (n_a + n_b) + w.last * n_c


class _Control:
    """The step that leaves what may be left, found by doing some steps in two halves as well.

    The difference is the error of one step (the halves leave a sixteenth of it), and an interval has so many of them.
    Trials are close together at first, and where a step leaves much; where it leaves little, one step in 64 is tried.

    Attributes
    ----------
    longest : float
        No step is to be longer; infinite until one has left too much.
    """

    def __init__(
        self, linear: Array, nonlinear: Callable[[Array], Array], measure: Callable[[Array, Array], float]
    ) -> None:
        self._linear, self._nonlinear, self._measure = linear, nonlinear, measure
        self.longest, self._tried, self._wait, self._taken = math.inf, 0.0, 0, 0

    def is_due(self, step: float) -> bool:
        """Whether a step must be tried before it is taken: after some steps, and where it is longer than the last."""
        return self._wait <= 0 or step > 1.01 * self._tried

    def frees(self, step: float, wanted: float) -> bool:
        """Whether a step that was kept short by what it leaves may be a longer one now."""
        return step < self.longest < math.inf and wanted > 1.2 * step

    def first_step(self, v: Array, weights: _Weights, number: float) -> Array | None:
        """The state after one step, or None if so many of them leave too much; `longest` follows from it."""
        halves = _Weights.of(self._linear, weights.step / 2)
        with np.errstate(over="ignore", invalid="ignore"):
            one = _step(v, weights, self._nonlinear)
            two = _step(_step(v, halves, self._nonlinear), halves, self._nonlinear)
            left = 16 / 15 * self._measure(one, two) * number
        count(evaluations=8)
        fitting = weights.step * (0.9 * max(left, 1e-9) ** -0.25 if math.isfinite(left) else 0.25)  # by fourth order
        if not left <= 1:
            self.longest, self._taken = fitting, 0
            count(evaluations=4)
            return None
        if self.longest < math.inf:
            self.longest = min(max(fitting, weights.step), 4 * weights.step)
        self._tried, self._wait = weights.step, min(2 * self._taken + 1, 64 if left < 0.02 else 16)
        return one

    def burst(self, most: int) -> int:
        """How many of the next steps to take now."""
        number = min(most, self._wait)
        self._wait -= number
        self._taken += number
        return number


@dataclass(frozen=True)
class ETDRK4:
    """The integrator with its step.

    Parameters
    ----------
    step : float, optional
        Longest step, in units of time. Default: the rule of the family.

    Notes
    -----
    An interval between two requested times is divided into equal steps, as few as the longest step allows, so the
    solution is computed *at* the requested times, without interpolation. Where the step comes from a rule, the rule is
    asked again every 16 steps, and the rest of the interval is divided anew when it has fallen below 0.8 of the step in
    use: the rules have more than that in reserve.

    A rule knows what is stable, and what is accurate where the grid resolves the solution. Where a measure of what may
    be left is given too, one step in 16 to 64 is also done in two halves: the difference is the error of a step. One of
    which the number in an interval leave too much is not taken, but a shorter one that by fourth order does not.

    Order 4 in the step for smooth solutions. In general its stiff order is lower (Hochbruck and Ostermann 2005, SIAM J.
    Numer. Anal. 43, p. 1069); on periodic boxes that is seen only while waves matter that L turns or damps by much in
    a step: rough initial fields.

    Examples
    --------
    >>> decay = ETDRK4(step=0.1).integrate(np.array([-1.0]), lambda v: -(v**2), np.array([1.0]), [1.0])
    >>> float(decay[0][0]), 1 / (2 * np.e - 1)      # of v' = -v - v^2
    (0.22539..., 0.22539...)
    """

    step: float | None = None

    def __post_init__(self) -> None:
        if self.step is not None and not (math.isfinite(self.step) and self.step > 0):
            raise ValueError(f"ETDRK4: step must be positive and finite, got {self.step!r}")

    def integrate(
        self,
        linear: Array,
        nonlinear: Callable[[Array], Array] | None,
        start: Array,
        times: Sequence[float],
        rule: Callable[[Array], float] | None = None,
        project: Callable[[Array], Array] = lambda v: v,
        measure: Callable[[Array, Array], float] | None = None,
    ) -> list[Array]:
        """The states at the given times of the solution that starts with `start` at time 0.

        Parameters
        ----------
        linear : ndarray
            The diagonal of L; broadcasts with the state.
        nonlinear : callable or None
            N; without it the solution is exact in one step whatever its length.
        start : ndarray
        times : sequence of float
            Increasing, not negative.
        rule : callable, optional
            The longest step allowed from a state, where `step` is not given.
        project : callable
            Applied to the state after each step.
        measure : callable, optional
            The difference of two states, in units of what the steps may leave from one time to the next. It is not
            asked where `step` is given.

        Raises
        ------
        ValueError
            If there are no times, they do not increase from 0 on, or there is neither a step nor a rule.
        UnstableStep
            If a rule, or what may be left, asks for more than ten million steps to the next time.
        FloatingPointError
            If the solution stops being finite, with the time and the step.
        """
        if len(times) == 0 or not (np.isfinite(times).all() and np.all(np.diff(times) > 0) and times[0] >= 0):
            raise ValueError(f"times must be numbers that increase, from 0 or later, got {list(times)}")
        if nonlinear is None:
            count(steps=len(times), evaluations=len(times))
            return [np.exp(time * linear) * start for time in times]
        if self.step is None and rule is None:
            raise ValueError("ETDRK4: give a step, or a rule for it")

        def longest(v: Array) -> float:
            return self.step if self.step is not None else rule(v)  # type: ignore[misc]

        control = None if measure is None or self.step is not None else _Control(linear, nonlinear, measure)
        states, v, now, steps, weights = [], start, 0.0, 0, _Weights.of(linear, 0.0)
        for before, time in pairwise([0.0, *times]):
            while now < time:
                wanted = longest(v) if control is None else min(longest(v), control.longest)
                if not wanted * _MOST_STEPS >= time - now:
                    raise UnstableStep(
                        f"ETDRK4: from t = {now:g} to {time:g} the step would have to be {wanted:.3g}, more than "
                        f"{_MOST_STEPS:,} steps: the solution runs away, or it moves too fast for this grid"
                    )
                if steps == 0 or wanted < _SHRINK * weights.step or (control and control.frees(weights.step, wanted)):
                    steps = max(1, math.ceil((time - now) / wanted - 1e-9))
                    step = (time - now) / steps
                    # Differences of times that differ by the rounding of times are the same step.
                    if abs(step - weights.step) > 4 * np.spacing(time):
                        weights = _Weights.of(linear, step)
                burst, first = min(steps, _CHECK_EVERY), None
                if control is not None:
                    if control.is_due(weights.step):
                        first = control.first_step(v, weights, (time - before) / weights.step)
                        if first is None:
                            steps = 0
                            continue
                    burst = control.burst(burst)
                with np.errstate(over="ignore", invalid="ignore"):
                    for _ in range(burst):
                        v = project(_step(v, weights, nonlinear) if first is None else first)
                        first = None
                count(steps=burst, evaluations=4 * burst)
                if not np.isfinite(v).all():
                    raise FloatingPointError(
                        f"the solution is no longer finite soon after t = {now:g}, with steps of {weights.step:.3g}: "
                        "give a shorter one, solver=ETDRK4(step=...), or a finer grid"
                    )
                steps -= burst
                now = time if steps == 0 else now + burst * weights.step
            states.append(v)
        return states
