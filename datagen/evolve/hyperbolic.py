"""Families of hyperbolic conservation laws, integrated by `FiniteVolume` on cell averages.

A family gives its law, its initial data and what it conserves; everything else is here, once for all dimensions.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from itertools import product
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from datagen.discretise import PERIODIC, Boundary
from datagen.evolve.family import EvolvingFamily
from datagen.evolve.finite_volume import COURANT_LIMIT, ConservationLaw, FiniteVolume, Outflow, Wall
from datagen.family import Sample
from datagen.grids import Grid, as_shape

Array = NDArray[Any]
SIDES: dict[str, Any] = {"periodic": PERIODIC, "outflow": (Outflow(), Outflow()), "wall": (Wall(), Wall())}
VELOCITIES = ("velocity_x", "velocity_y", "velocity_z")
_SUBCELLS = 4


class HyperbolicFamily(EvolvingFamily):
    """Base of families ``u_t + div f(u) = s``; subclasses are frozen dataclasses.

    States have the shape ``(channels, *grid)``: density or depth, the velocities, and the pressure if there is one, of
    the averages of conserved quantities over the cells.
    """

    integrator: ClassVar[str] = "finite_volume"
    accuracy: ClassVar[float] = 1e-9  # the independent code repeats the steps: only rounding is between them
    grid: Any
    dimension: int
    length: float
    courant: float
    sides: str | tuple[str, ...]

    @property
    @abstractmethod
    def law(self) -> ConservationLaw:
        """The equation, as `FiniteVolume` takes it."""

    def _complete(self, state: Array, sample: Sample | None) -> Array:
        """The state with what its law needs besides, ``(rows, *grid)``: nothing by default."""
        return state

    @property
    def mesh(self) -> Grid:
        """Cells of the box."""
        return Grid(as_shape(self.grid, self.dimension), (self.length,) * self.dimension)

    @property
    def boundary(self) -> Boundary:
        """Per axis periodic, or the conditions of both sides."""
        return tuple(SIDES[name] for name in self._side_names())

    def _side_names(self) -> tuple[str, ...]:
        return (self.sides,) * self.dimension if isinstance(self.sides, str) else tuple(self.sides)

    def initial(self, sample: Sample) -> Array:
        """The state at time 0, shape ``(channels, *grid)``."""
        return np.stack([self.values(sample, f"initial_{f.name}") for f in self.role("output")])

    def evolve(
        self, state: Array, times: Sequence[float], sample: Sample | None = None, solver: FiniteVolume | None = None
    ) -> Array:
        """The states at the given times of the solution that starts at time 0.

        Parameters
        ----------
        state : ndarray, shape ``([batch,] channels, *grid)``
            At time 0.
        times : sequence of float
            Increasing, not negative.
        sample : Sample, optional
            Where the equation has coefficients of its own; one for the whole batch.
        solver : FiniteVolume, optional
            With a Courant number or a step of its own. Each member of a batch takes its own steps.

        Returns
        -------
        ndarray, shape ``([batch,] times, channels, *grid)``

        Raises
        ------
        ValueError
            If the state is not finite, not positive in density (depth) and pressure, or of another shape, if the times
            do not increase, or the solver's step is unstable.
        FloatingPointError
            If the solution stops being finite or positive.
        """
        state = np.asarray(state, dtype=float)
        expected = (len(self.role("output")), *self.mesh.shape)
        if state.shape[-len(expected) :] != expected or state.ndim > len(expected) + 1:
            raise ValueError(
                f"{self.name}: state must have the shape {expected} (channels, *grid), or that with a batch axis in "
                f"front, got {state.shape}"
            )
        if state.ndim > len(expected):
            return np.stack([self.evolve(member, times, sample, solver) for member in state])
        self._refuse(state)
        law, complete = self.law, self._complete(state, sample)
        solutions = (solver or FiniteVolume(self.courant)).integrate(
            law, law.conserved(complete), times, self.mesh.spacing, self.boundary
        )
        states = np.stack([law.recovered(u)[: len(state)] for u in solutions])
        if times[0] == 0:
            states[0] = state
        return states

    def rhs(self, state: Array, t: float = 0.0, sample: Sample | None = None) -> Array:
        """The time derivative of a state ``(channels, *grid)``, as the finite volumes have it; t plays no part."""
        self._refuse(state)
        law, complete = self.law, self._complete(np.asarray(state, dtype=float), sample)
        rate = FiniteVolume().rate(law, law.conserved(complete), self.mesh.spacing, self.boundary)
        return law.recovered_rate(complete, rate)[: len(state)]

    def bounds(self, sample: Sample) -> dict[str, tuple[float, float]]:
        """Densities, depths and pressures are positive."""
        return {f.name: (0.0, math.inf) for f in self.role("output") if not f.name.startswith("velocity")}

    def _refuse(self, state: Array) -> None:
        """Refuse states that are not finite or not positive, by channel."""
        for field, values in zip(self.role("output"), state, strict=True):
            if not np.isfinite(values).all():
                raise ValueError(f"{self.name}: channel {field.name!r} of the state holds values that are not finite")
            if not field.name.startswith("velocity") and not (values > 0).all():
                raise ValueError(
                    f"{self.name}: channel {field.name!r} of the state must be positive everywhere, its lowest value "
                    f"is {values.min():g}"
                )

    def _averages(self, function: Any) -> Array:
        """Cell averages of a function of coordinates that gives states, by the midpoint rule on 4 subcells per axis.

        The conserved quantities are averaged, so that their totals hardly depend on the grid, whatever is not smooth.
        """
        law, total = self.law, np.zeros(())
        for offsets in product(range(_SUBCELLS), repeat=self.dimension):
            axes = [
                (np.arange(n) + (offset + 0.5) / _SUBCELLS) * h
                for n, h, offset in zip(self.mesh.shape, self.mesh.spacing, offsets, strict=True)
            ]
            total = total + law.conserved(function(np.meshgrid(*axes, indexing="ij", sparse=True)))
        return law.recovered(total / _SUBCELLS**self.dimension)

    def _check(self, positive: Sequence[str]) -> None:
        """Refuse parameters that do not fit, by name, and keep the grid and the sides as plain values."""
        if self.dimension not in (1, 2, 3):
            raise ValueError(f"{self.name}: dimension must be 1, 2 or 3, got {self.dimension!r}")
        shape = as_shape(self.grid, self.dimension, f"{self.name}: grid")
        if not isinstance(self.grid, int):
            object.__setattr__(self, "grid", shape)
        if not isinstance(self.sides, str):
            object.__setattr__(self, "sides", tuple(self.sides))
        names = self._side_names()
        if len(names) != self.dimension or any(name not in SIDES for name in names):
            raise ValueError(
                f"{self.name}: sides must be one of {', '.join(SIDES)}, or one of them per axis, got {self.sides!r}"
            )
        self._check_times()
        if not 0 < self.courant <= COURANT_LIMIT:
            raise ValueError(
                f"{self.name}: courant must be more than 0 and at most {COURANT_LIMIT:g}, beyond which the scheme is "
                f"unstable, got {self.courant!r}"
            )
        for name in ("length", *positive):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{self.name}: {name} must be positive and finite, got {value!r}")
