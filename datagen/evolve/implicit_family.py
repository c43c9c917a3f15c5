"""Families integrated by `Implicit`: a family gives the system of an implicit Euler step, everything else is here."""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from datagen.evolve.family import EvolvingFamily
from datagen.evolve.implicit import DIRK, TOLERANCE, Array, EulerStep, Implicit, LinearSolver, StepSolver
from datagen.family import LinearSystem, Sample
from datagen.grids import as_shape


class ImplicitFamily(EvolvingFamily):
    """Base of linear families with an implicit scheme; subclasses are frozen dataclasses.

    Class attribute ``method`` is the Runge-Kutta method of the family. Every subclass has the fields ``grid`` and
    ``dimension``.
    """

    # The independent code repeats the steps and solves to rounding. Of 10,000 solves to 1e-12 is left 1e-8, of the
    # stiffest by rounding 2e-8; of a sample with the defaults 1e-11 (heat) and 1e-10 (waves).
    accuracy: ClassVar[float] = 1e-7
    method: ClassVar[DIRK]
    grid: Any
    dimension: int

    @abstractmethod
    def longest_step(self, sample: Sample) -> float:
        """The longest step for a sample; the rule is in the family's docstring."""

    @abstractmethod
    def euler_step(self, sample: Sample) -> EulerStep:
        """``(state, t, dt) -> LinearSystem``, with what does not change in time prepared once."""

    def solver(self, arguments: Mapping[str, Any]) -> LinearSolver:
        """Who solves the systems of a trajectory's steps, from the `solver` entries of a spec.

        `StepSolver`: by its own choice for "auto" and a tolerance, with `solvers.solve` for anything else. No ``rtol``
        is above 1e-12: it is that of a spec's labels, and the errors of the steps add up.
        """
        keywords = {name: value for name, value in arguments.items() if name != "rtol"}
        own = keywords in ({}, {"method": "auto"})
        return StepSolver(min(arguments.get("rtol", TOLERANCE), TOLERANCE), **({} if own else keywords))

    def step_system(self, state: Array, t: float, dt: float, sample: Sample) -> LinearSystem:
        """The system of an implicit Euler step ``y = state + dt F(t + dt, y)``; symmetric positive definite.

        ``to_field`` gives y with all its channels, of shape ``(channels, *grid)``; ``to_vector`` takes a state to its
        unknowns. Methods of higher order are made of these steps: `datagen.evolve.implicit`.

        Raises
        ------
        ValueError
            If the state has another shape, or dt is not positive.
        """
        if not (math.isfinite(dt) and dt > 0):
            raise ValueError(f"{self.name}: dt must be positive and finite, got {dt!r}")
        return self.euler_step(sample)(self._state(state, batch=False), t, dt)

    def evolve(
        self,
        state: Array,
        times: Sequence[float],
        sample: Sample | None = None,
        solver: Implicit | LinearSolver | None = None,
    ) -> Array:
        """The states at the given times of the solution that starts at time 0.

        Parameters
        ----------
        state : ndarray, shape ``([batch,] channels, *grid)``
            At time 0.
        times : sequence of float
            Increasing, not negative.
        sample : Sample
            With the coefficients; its initial fields are not looked at.
        solver : optional
            Of the linear systems, as `Implicit` takes it, or an `Implicit`, which may have a step and a method of its
            own.

        Returns
        -------
        ndarray, shape ``([batch,] times, channels, *grid)``

        Raises
        ------
        ValueError
            If the state is not finite or of another shape, the times do not increase, or the sample is missing or does
            not fit.
        FloatingPointError
            If the solution stops being finite, or a system cannot be solved.
        """
        if sample is None:
            raise ValueError(f"{self.name}: evolve needs the sample, which holds the coefficients")
        state = self._state(state, batch=True)
        given = solver if isinstance(solver, Implicit) else Implicit(solver=solver)
        step = self.longest_step(sample) if given.step is None else given.step
        integrator = Implicit(given.method or self.method, step, given.solver)
        euler_step = self.euler_step(sample)
        if state.ndim == 1 + self.dimension:
            return np.stack(integrator.integrate(euler_step, state, times))
        return np.stack([np.stack(integrator.integrate(euler_step, member, times)) for member in state])

    def scalar(self, sample: Sample, name: str) -> float:
        """A scalar of a sample, which must be there and finite."""
        if name not in sample.scalars:
            known = ", ".join(sorted(sample.scalars)) or "none"
            raise ValueError(f"{self.name}: the sample lacks scalar {name!r}, it has {known}")
        value = float(sample.scalars[name])
        if not math.isfinite(value):
            raise ValueError(f"{self.name}: scalar {name!r} must be finite, got {value!r}")
        return value

    def _state(self, state: Array, batch: bool) -> Array:
        state = np.asarray(state, dtype=float)
        expected = (len(self.role("output")), *self.mesh.shape)
        if state.shape[-len(expected) :] != expected or state.ndim > len(expected) + batch:
            also = ", or that with a batch axis in front" if batch else ""
            raise ValueError(
                f"{self.name}: state must have the shape {expected} (channels, *grid){also}, got {state.shape}"
            )
        if not np.isfinite(state).all():
            raise ValueError(f"{self.name}: state holds values that are not finite")
        return state

    def _check(self, least_points: int, positive: Sequence[str], choices: Mapping[str, Sequence[str]]) -> None:
        """Refuse parameters that do not fit, by name, and keep the grid as an integer or a tuple."""
        if self.dimension not in (1, 2, 3):
            raise ValueError(f"{self.name}: dimension must be 1, 2 or 3, got {self.dimension!r}")
        shape = as_shape(self.grid, self.dimension, f"{self.name}: grid")
        if min(shape) < least_points:
            raise ValueError(f"{self.name}: grid must be at least {least_points} along every axis, got {self.grid!r}")
        if not isinstance(self.grid, int):
            object.__setattr__(self, "grid", shape)
        self._check_times()
        for name in positive:
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{self.name}: {name} must be positive and finite, got {value!r}")
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{self.name}: {name} must be {' or '.join(known)}, got {getattr(self, name)!r}")
