"""Incompressible flow in time: an explicit Runge-Kutta method with one pressure system a step.

With F the convection and the viscosity of `Staggered` and p the pressure of the step before, a step of length h is

    w1 = u + h (F(u) - grad p)
    w2 = 3/4 u + 1/4 (w1 + h (F(w1) - grad p))
    w3 = 1/3 u + 2/3 (w2 + h (F(w2) - grad p))
    -div grad q = -div w3 / h,      u_new = w3 - h grad q,      p_new = p + q,

the method of Shu and Osher (1988, J. Comput. Phys. 77, p. 439) under the incremental pressure correction of Goda (1979,
J. Comput. Phys. 30, p. 76) and van Kan (1986, SIAM J. Sci. Stat. Comput. 7, p. 870). Within a step p is known to O(h),
so the stages are divergence-free to O(h^2), which leaves the velocity of second order in time; the pressure itself is
solved for where a state is asked for, ``div grad p = div F(u)``. No step needs to know those before it, but for that
first p: a trajectory can be taken up again at every frame.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datagen.evolve.family import MAX_STEPS, UnstableStep
from datagen.evolve.staggered import Staggered
from datagen.evolve.work import count
from solvers.api import solve
from solvers.direct import Factorisation, direct
from solvers.krylov.cg import cg
from solvers.precondition import FastPoisson, Multigrid, preconditioners
from solvers.result import ConvergenceError, Result
from solvers.sequence import SequenceSolver

Array = NDArray[Any]
# Keywords for `solvers.solve`, a stream's solver, or (A, b, x0=guess) -> Result.
LinearSolver = Mapping[str, Any] | SequenceSolver | Callable[..., Result]

TOLERANCE = 1e-6
COURANT_LIMIT = 1.2
_VISCOUS = 2.4  # of the real axis, where the method is stable up to 2.51
_RUNAWAY = 10.0  # times the largest speed at the start


class Pressure:
    """The pressure systems of one trajectory: one matrix, many right-hand sides.

    Parameters
    ----------
    flow : Staggered
    solver : mapping, SequenceSolver, callable or None
        By default `FastPoisson` in boxes without obstacles, which is exact, and CG with `Multigrid` where there are
        obstacles. Keywords for `solvers.solve` (method, M by its name, rtol, ...) are for the system of the cells of
        fluid, the constants its null space; M, or factors for the method "direct", are set up once.

    Notes
    -----
    Solved to ``||div u|| <= max(rtol ||div w3||, rtol sqrt(n))``, n cells of fluid, speed and length 1: the root mean
    square of the divergence is at most rtol, or rtol of what it was before the projection.
    """

    def __init__(self, flow: Staggered, solver: LinearSolver | None = None) -> None:
        self.flow = flow
        keywords = dict(solver) if isinstance(solver, Mapping) else {}
        self.rtol = float(keywords.pop("rtol", TOLERANCE))
        self._solver = None if keywords in ({}, {"method": "auto"}) and isinstance(solver, Mapping) else solver
        self.A = flow.pressure_operator(masked=self._solver is not None)
        self._fluid = flow.fluid.ravel()
        self.cells = int(self._fluid.sum())
        self._last: Array | None = None
        if self._solver is None:
            M = FastPoisson() if flow.fluid.all() else Multigrid()
            self._run: Callable[..., Result] = self._cg(M.setup(self.A))
        elif isinstance(solver, SequenceSolver):
            self._run = lambda b, x0, atol: solver.solve(self.A, b)
        elif isinstance(solver, Mapping):
            self._run = self._named(keywords)
        else:
            self._run = lambda b, x0, atol: solver(self.A, b, x0=x0)  # type: ignore[misc]

    def _cg(self, M: Any) -> Callable[..., Result]:
        # b has no part in the null space, so neither have the iterates: it need not be projected out of them, which
        # takes as long as the iteration.
        return lambda b, x0, atol: cg(self.A, b, x0, rtol=self.rtol, atol=atol, M=M, maxiter=500)

    def _named(self, keywords: dict[str, Any]) -> Callable[..., Result]:
        if keywords.get("method") == "direct":
            factors = Factorisation("constant").setup(self.A)
            return lambda b, x0, atol: direct(
                self.A, b, x0, rtol=self.rtol, atol=atol, null_space="constant", factors=factors
            )
        if keywords.get("method") == "sequence":
            sequence = SequenceSolver(rtol=self.rtol, cost="work")
            return lambda b, x0, atol: sequence.solve(self.A, b)
        arguments = {"null_space": "constant", "throw": False, "rtol": self.rtol, **keywords}
        if isinstance(arguments.get("M"), str):
            arguments["M"] = preconditioners.build(arguments["M"]).setup(self.A)
        return lambda b, x0, atol: solve(self.A, b, x0=x0, **{"atol": atol, **arguments})

    def solve(self, divergence: Array, scale: float) -> Array:
        """q of ``-div grad q = -scale divergence``, its mean zero, shape (nx, ny), zero in obstacles.

        Raises
        ------
        FloatingPointError
            If the solver fails.
        """
        b = -scale * divergence.ravel()[self._fluid]
        b -= b.mean()
        if self.A.shape[0] > b.size:
            whole = np.zeros(self._fluid.size)
            whole[self._fluid], b = b, whole
        try:
            result = self._run(b, None, self.rtol * math.sqrt(self.cells) * scale)
        except ConvergenceError as error:
            result = error.result
        if not isinstance(result, Result):
            raise TypeError(f"solver must return a solvers.Result, got {type(result).__name__}")
        products = result.matvecs + result.preconditioner_applies
        count(solves=1, iterations=result.iterations, products=result.matvecs, values=products * self.cells)
        if not result.converged:
            raise FloatingPointError(
                f"a pressure system ended as {result.status.name} ({result.method}) with a residual of "
                f"{result.residual_norm:.2e}: {result.status.value}"
            )
        q = np.zeros(self._fluid.size)
        x = result.x[self._fluid] if result.x.size > self.cells else result.x
        q[self._fluid] = x - x.mean()
        return q.reshape(self.flow.shape)


@dataclass(frozen=True)
class Projection:
    """The integrator with its step and its solver of the pressure.

    Parameters
    ----------
    courant : float
        Of the longest step h, ``1 / h = max (|u| + |v|) / (courant dx) + 8 nu / (2.4 dx^2)``, at most 1.2: the first
        term keeps convection stable, the second viscosity, together both (the method is stable to 1.7 on the imaginary
        axis and 2.5 on the real one).
    step : float, optional
        Longest step instead of that rule; a step longer than twice the rule's is refused as it is met.
    solver : optional
        Of the pressure, as `Pressure` takes it.
    """

    courant: float = 1.0
    step: float | None = None
    solver: LinearSolver | None = None

    def __post_init__(self) -> None:
        if not 0 < self.courant <= COURANT_LIMIT:
            raise ValueError(f"Projection: courant must lie in (0, {COURANT_LIMIT:g}], got {self.courant!r}")
        if self.step is not None and not (math.isfinite(self.step) and self.step > 0):
            raise ValueError(f"Projection: step must be positive and finite, got {self.step!r}")

    def integrate(self, flow: Staggered, start: Array, times: Sequence[float]) -> list[tuple[Array, Array]]:
        """Velocity ``(2, nx + 5, ny + 5)`` and pressure (nx, ny), its mean zero, at each of the given times.

        An interval between two times is divided into equal steps, anew after each of them, so that the solution is
        computed *at* the times asked for.

        Parameters
        ----------
        flow : Staggered
        start : ndarray, shape (2, nx + 5, ny + 5)
            Velocity at time 0; what of it is not divergence-free is projected out.
        times : sequence of float
            Increasing, not negative.

        Raises
        ------
        ValueError
            If the times do not increase from 0 on.
        FloatingPointError
            If the solution runs away: ten times the largest speed at the start, and no longer finite. `UnstableStep` if
            the steps would be too many.
        """
        if len(times) == 0 or not (np.isfinite(times).all() and np.all(np.diff(times) > 0) and times[0] >= 0):
            raise ValueError(f"times must be numbers that increase, from 0 or later, got {list(times)}")
        march = _March(flow, start, Pressure(flow, self.solver))
        limit = _RUNAWAY * max(march.speed, 1.0)
        states, now = [], 0.0
        for time in times:
            while now < time:
                longest = self.longest_step(flow, march.speed) if self.step is None else self.step
                if march.speed > limit:
                    raise FloatingPointError(
                        f"the flow has run away at t = {now:.4g}: its speed is {march.speed:.3g}, and was "
                        f"{limit / _RUNAWAY:.3g} at the start; the grid does not resolve it"
                    )
                if self.step is not None and longest > 2 * self.longest_step(flow, march.speed):
                    raise UnstableStep(
                        f"Projection: a step of {longest:.3g} is unstable at t = {now:.4g}, where the rule gives "
                        f"{self.longest_step(flow, march.speed):.3g}"
                    )
                if longest * MAX_STEPS < time - now:
                    raise UnstableStep(f"Projection: steps of {longest:.3g} at t = {now:.4g} lead nowhere")
                steps = max(1, math.ceil((time - now) / longest - 1e-9))
                march.step((time - now) / steps)
                now = time if steps == 1 else now + (time - now) / steps
            states.append(march.state())
        return states

    def longest_step(self, flow: Staggered, speed: float) -> float:
        """By the rule above, for the largest ``|u| + |v|``."""
        return 1 / (speed / (self.courant * flow.h) + 8 * flow.viscosity / (_VISCOUS * flow.h**2))


class _March:
    """One trajectory on its way."""

    def __init__(self, flow: Staggered, start: Array, pressure: Pressure) -> None:
        self.flow, self.pressure = flow, pressure
        self.u = start.copy()
        flow.subtract_gradient(self.u, pressure.solve(flow.divergence(self.u), 1.0), 1.0)
        self.p = self._instantaneous()
        self._other, self._third = self.u.copy(), self.u.copy()
        self.speed = flow.fastest(self.u)

    def _instantaneous(self) -> Array:
        """p of ``div grad p = div F(u)``."""
        count(evaluations=1, values=2 * self.pressure.cells)
        # -div grad p = -div F
        return self.pressure.solve(self.flow.divergence(self.flow.rate(self.u)), 1.0)

    def step(self, dt: float) -> None:
        """One step, as at the top of this file."""
        flow, u, p = self.flow, self.u, self.p
        first = flow.stage(u, u, p, dt, 0.0, self._other)
        second = flow.stage(first, u, p, dt, 0.75, self._third)
        third = flow.stage(second, u, p, dt, 1 / 3, first)
        count(steps=1, evaluations=3, values=6 * self.pressure.cells)
        q = self.pressure.solve(flow.divergence(third), 1 / dt)
        self._other, self.u = u, flow.subtract_gradient(third, q, dt)
        self.p = p + q
        self.speed = flow.fastest(self.u)

    def state(self) -> tuple[Array, Array]:
        """Velocity and pressure; the next step begins with this pressure."""
        self.p = self._instantaneous()
        return self.u.copy(), self.p
