"""Incompressible flow past obstacles: channel, lid-driven cavity and periodic box, by velocity and pressure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from datagen.discretise import PERIODIC, Boundary, Dirichlet
from datagen.evolve.family import Conserved, EvolvingFamily
from datagen.evolve.finite_volume import Outflow
from datagen.evolve.projection import COURANT_LIMIT, TOLERANCE, LinearSolver, Projection
from datagen.evolve.spectral import periodic_field
from datagen.evolve.staggered import Array, Staggered
from datagen.family import Field, Sample, register
from datagen.grids import Grid, as_shape
from datagen.obstacles import mask_fault, most, places, squares

PROBLEMS = ("channel", "cavity", "periodic")
_START = {"rtol": 1e-11}  # of the pressure systems of initial states
_FOREIGN = (
    1e-4  # divergence times h over speed of means that no velocity of the scheme has; single precision leaves 1e-6
)
_MOST_OBSTACLES = 10_000
_FEWEST_CELLS = 2  # along a square


@dataclass(frozen=True)
class NoSlip(Dirichlet):
    """A wall, and the speed along it of the fluid beside it.

    Parameters
    ----------
    value : float
        0, and 1 for a lid.
    """

    kind = "no-slip"


@dataclass(frozen=True)
class Inflow(Dirichlet):
    """A side through which fluid enters with a given velocity.

    Parameters
    ----------
    value : float or array
        Normal velocity.
    """

    kind = "inflow"


@register("flow")
@dataclass(frozen=True)
class Flow(EvolvingFamily):
    """The incompressible Navier-Stokes equations past obstacles in two dimensions,

        u_t + div(u u) = -grad p + lap u / Re,    div u = 0,

    dimensionless, in a box of height 1 and length ``nx / ny`` with square cells. Speeds are in units of the largest one
    of the inlet, of the lid, or of the initial root mean square; Re is that times the height over the viscosity.

    - "channel": the fluid enters on the left by a parabola, ``u = 4 y (1 - y)``, and leaves on the right by
      ``u_t + U u_x = 0``, U its mean velocity; walls below and above. At time 0 it is set in motion at once (potential
      flow).
    - "cavity": walls all around, the upper one moving to the right with speed 1; at rest at time 0.
    - "periodic": around both axes, without obstacles. The initial velocity has a random stream function with covariance
      proportional to ``(-lap + tau^2)^(-alpha)``.

    Obstacles are solid cells on whose surface the fluid is at rest. Drawn ones are squares at random places, half a
    side from walls and from each other, and a side from inlet and outlet. Your own, of any shape: arrays of the grid's
    shape named ``obstacle``, 1 in solid cells and 0 elsewhere, in a `Sample` or a file (``inputs=mine.npz``). What
    blocks the channel, overlaps the inlet or shuts in a part of the fluid is refused.

    On a staggered, cell-centred grid (`datagen.evolve.staggered`; Harlow and Welch 1965), second order in space:
    convection in conservation form with third-order upwind values at the faces of the momentum's cells, without limiter
    (the kappa = 1/3 scheme, van Leer 1985; its leading error is a fourth difference, which damps what the grid does not
    resolve at high Re), viscosity by central differences. In time three Runge-Kutta stages and one pressure system a
    step, second order (`datagen.evolve.projection`), with steps by the CFL condition. The pressure systems, singular
    and, with obstacles, of another shape in every sample, are solved by CG with multigrid, in empty boxes with a fast
    Poisson solver; or by any other of Southwell's solvers, by its name: ``solver=direct``, ``solver=amg``. After each
    step the root mean square of the divergence is at most ``solver.rtol`` (or that part of what it was before).

    Stored are the means of the velocity over the two faces of each cell, from which the velocities on all faces can be
    had again (`faces`), and the pressure, whose mean is zero; both are zero in obstacles.

    Follows Choudhary et al. 2025 (arXiv 2512.00564), whose published generator runs OpenFOAM's icoFoam: their channel
    and cavity, their squares of a sixteenth of the height, their levels of obstacles and of Reynolds numbers. Their
    time step is longer the easier the sample, ours follows from the flow.

    Parameters
    ----------
    problem : str
        "channel", "cavity" or "periodic".
    grid : int or sequence of int
        Cells per axis.
    reynolds : sequence of float
        Lowest and highest Reynolds number, drawn evenly.
    obstacles : sequence of int
        Fewest and most squares, drawn evenly.
    obstacle_size : float
        Side of a square, at least two cells.
    alpha, tau : float
        Of the initial stream function of a periodic box; alpha is more than 2.
    final_time : float
        In heights per speed.
    frames : int
        Equally spaced times to store, from 0 to `final_time`.
    courant : float
        Of the steps, at most 1.2.

    Notes
    -----
    Good values: 128^2 cells, 8 of them along an obstacle, for Re of 100 to 10,000: there the boundary layers are
    resolved up to about Re = 1000, beyond which flow of this grid is what one gets, as in the published set.

    Truth: Taylor-Green vortices, carried along, show order 2 in space and time; the cavity agrees with the tables of
    Ghia et al. 1982 (J. Comput. Phys. 48, p. 387); the wake of a square with Breuer et al. 2000 (``python -m
    benchmarks.flow``); an independent code of the same scheme (`datagen.flow_checks`).

    Examples
    --------
    >>> family = Flow(grid=32, obstacle_size=0.125, final_time=0.5, frames=3)
    >>> sample = family.sample(np.random.default_rng(7))
    >>> states = family.evolve(family.initial(sample), [0.25, 0.5], sample)
    >>> states.shape  # (times, (u, v, p), *grid)
    (2, 3, 32, 32)
    """

    problem: str = "channel"
    grid: int | tuple[int, ...] = 128
    reynolds: tuple[float, float] = (100.0, 10000.0)
    obstacles: tuple[int, int] = (1, 1)
    obstacle_size: float = 0.0625
    alpha: float = 4.5
    tau: float = 7.0
    final_time: float = 10.0
    frames: int = 21
    courant: float = 1.0

    # The independent code repeats the steps, with pressures to rounding: the tolerance leaves 1e-7 to 1e-6.
    accuracy: ClassVar[float] = 1e-4
    title: ClassVar[str] = "Incompressible flow past obstacles: channel, cavity, periodic box"
    integrator: ClassVar[str] = "projection"
    fields: ClassVar[tuple[Field, ...]] = (
        Field("obstacle", "input", "dimensionless", "1 in solid cells, 0 in the fluid"),
        Field("initial_stream_function", "input", "dimensionless", "psi at the lower corner of each cell at time 0"),
        Field("velocity_x", "output", "dimensionless", "velocity u, mean of the left and the right face of a cell"),
        Field("velocity_y", "output", "dimensionless", "velocity v, mean of the lower and the upper face of a cell"),
        Field("pressure", "output", "dimensionless", "pressure p over density, its mean over the fluid zero"),
    )

    def __post_init__(self) -> None:
        if self.problem not in PROBLEMS:
            raise ValueError(f"flow: problem must be {', '.join(PROBLEMS)}, got {self.problem!r}")
        shape = as_shape(self.grid, 2, "flow: grid")
        if min(shape) < 8:
            raise ValueError(f"flow: grid must be at least 8 along every axis, got {self.grid!r}")
        if not isinstance(self.grid, int):
            object.__setattr__(self, "grid", shape)
        self._check_times()
        low, high = (float(value) for value in self.reynolds)
        if not 0 < low <= high < math.inf:
            raise ValueError(f"flow: reynolds must be the lowest and the highest, positive, got {self.reynolds!r}")
        object.__setattr__(self, "reynolds", (low, high))
        if not 0 < self.courant <= COURANT_LIMIT:
            raise ValueError(f"flow: courant must be more than 0 and at most {COURANT_LIMIT:g}, got {self.courant!r}")
        h = self.mesh.spacing[1]
        self._check_step(1 / (1 / (self.courant * h) + 8 / (low * h**2)), "courant")
        self._check_obstacles(shape)
        if not (self.alpha > 2 and math.isfinite(self.alpha + self.tau) and self.tau > 0):
            raise ValueError(
                f"flow: alpha must be more than 2 and tau positive, or the initial velocity is not continuous; got "
                f"{self.alpha!r} and {self.tau!r}"
            )
        absent = "obstacle" if self.problem == "periodic" else "initial_stream_function"
        object.__setattr__(self, "fields", tuple(f for f in type(self).fields if f.name != absent))

    def _check_obstacles(self, shape: tuple[int, ...]) -> None:
        """Refuse numbers and sizes of obstacles of which a draw might not find a place for all."""
        fewest, many = self.obstacles
        if not 0 <= fewest <= many <= _MOST_OBSTACLES:
            raise ValueError(
                f"flow: obstacles must be the fewest and the most, integers from 0 to {_MOST_OBSTACLES:,}, got "
                f"{str(self.obstacles)[:40]}"
            )
        if not 0 < self.obstacle_size < math.inf:
            raise ValueError(f"flow: obstacle_size must be positive and finite, got {self.obstacle_size!r}")
        object.__setattr__(self, "obstacles", (int(fewest), int(many)))
        if not many:
            return
        if self.problem == "periodic":
            raise ValueError(f"flow: a periodic box has no obstacles, got obstacles={self.obstacles!r}; leave [0, 0]")
        cells = self.obstacle_size * shape[1]
        if not round(cells) >= _FEWEST_CELLS:
            raise ValueError(
                f"flow: obstacle_size={self.obstacle_size!r} is {cells:.3g} cells of this grid, and at least "
                f"{_FEWEST_CELLS} are needed; give a finer grid or larger obstacles"
            )
        inflow = self.problem == "channel"
        if not (self.obstacle_size < 1 and min(places(self.obstacle_size, shape, inflow)) > 0):
            raise ValueError(
                f"flow: an obstacle of size {self.obstacle_size!r} does not fit into a box of "
                f"{self.mesh.lengths[0]:g} x 1, half a size from the walls and a size from inlet and outlet"
            )
        sure = most(self.obstacle_size, shape, inflow)
        if many > sure:
            raise ValueError(
                f"flow: of obstacles of size {self.obstacle_size!r} no more than {sure} are sure to find a place each, "
                f"got obstacles={self.obstacles!r}; give fewer, or smaller ones"
            )

    @property
    def mesh(self) -> Grid:
        """Square cells."""
        shape = as_shape(self.grid, 2)
        return Grid(shape, (shape[0] / shape[1], 1.0))

    @property
    def boundary(self) -> Boundary:
        """Conditions of the velocity."""
        if self.problem == "periodic":
            return (PERIODIC, PERIODIC)
        wall = NoSlip()
        if self.problem == "cavity":
            return ((wall, wall), (wall, NoSlip(1.0)))
        return ((Inflow(self._inlet()), Outflow()), (wall, wall))

    @property
    def fixed(self) -> tuple[str, ...]:
        """The mask where no obstacle is drawn, and a Reynolds number that is given."""
        names = {"obstacle": not self.obstacles[1], "reynolds": self.reynolds[0] == self.reynolds[1]}
        return tuple(name for name, is_fixed in names.items() if is_fixed)

    def _inlet(self) -> Array:
        y = self.mesh.coordinates(1)
        return 4 * y * (1 - y)

    def sample(self, rng: np.random.Generator) -> Sample:
        """Draw a Reynolds number, and obstacles or a stream function."""
        scalars = {"reynolds": float(rng.uniform(*self.reynolds))}
        if self.problem == "periodic":
            psi = periodic_field(rng, self.mesh, self.alpha, self.tau, 1.0)
            speeds = np.diff(psi, axis=1, append=psi[:, :1]) ** 2 + np.diff(psi, axis=0, append=psi[:1]) ** 2
            return Sample({"initial_stream_function": psi * self.mesh.spacing[1] / np.sqrt(np.mean(speeds))}, scalars)
        count = int(rng.integers(self.obstacles[0], self.obstacles[1] + 1))
        mask = squares(rng, count, self.obstacle_size, as_shape(self.grid, 2), self.problem == "channel")
        return Sample({"obstacle": mask.astype(float)}, scalars)

    def flow(self, sample: Sample) -> Staggered:
        """The staggered grid of a sample with its sides, its obstacles and its viscosity.

        Raises
        ------
        ValueError
            If the obstacles leave no flow, or the Reynolds number is not positive.
        """
        reynolds = float(sample.scalars.get("reynolds", math.nan))
        if not 0 < reynolds < math.inf:
            raise ValueError(f"flow: the sample's scalar 'reynolds' must be positive and finite, got {reynolds!r}")
        fluid, h = np.ones(self.mesh.shape, dtype=bool), self.mesh.spacing[1]
        if self.problem == "periodic":
            return Staggered(fluid, h, 1 / reynolds, periodic=True)
        obstacle = self.values(sample, "obstacle")
        fault = mask_fault(obstacle, self.problem == "channel")
        if fault:
            raise ValueError(f"flow: {fault}")
        if self.problem == "cavity":
            return Staggered(obstacle == 0, h, 1 / reynolds, lid=1.0)
        return Staggered(obstacle == 0, h, 1 / reynolds, inlet=self._inlet())

    def initial(self, sample: Sample) -> Array:
        """The state at time 0, shape ``(3, *grid)``: velocity means and pressure."""
        flow = self.flow(sample)
        w = flow.rest()
        if self.problem == "periodic":
            psi = self.values(sample, "initial_stream_function")
            w[0][flow.cells] = np.diff(psi, axis=1, append=psi[:, :1]) / flow.h
            w[1][flow.cells] = -np.diff(psi, axis=0, append=psi[:1]) / flow.h
            w = flow.with_ghosts(w)
        return self._state(flow, *Projection(solver=_START).integrate(flow, w, [0.0])[0])

    def evolve(
        self,
        state: Array,
        times: Sequence[float],
        sample: Sample | None = None,
        solver: Projection | LinearSolver | None = None,
    ) -> Array:
        """The states at the given times of the solution that starts at time 0.

        Parameters
        ----------
        state : ndarray, shape ``([batch,] 3, *grid)``
            At time 0; the pressure follows from the velocity and is not looked at.
        times : sequence of float
            Increasing, not negative.
        sample : Sample
            With the obstacles and the Reynolds number; its initial fields are not looked at.
        solver : optional
            Of the pressure systems, as `datagen.evolve.projection.Pressure` takes it, or a `Projection`, which may have
            a step of its own.

        Returns
        -------
        ndarray, shape ``([batch,] times, 3, *grid)``

        Raises
        ------
        ValueError
            If the state is not finite or of another shape, the times do not increase, or the sample is missing or does
            not fit.
        FloatingPointError
            If the flow runs away, or a system cannot be solved.
        """
        if sample is None:
            raise ValueError("flow: evolve needs the sample, which holds the obstacles and the Reynolds number")
        state = np.asarray(state, dtype=float)
        expected = (3, *self.mesh.shape)
        if state.shape[-3:] != expected or state.ndim > 4:
            raise ValueError(
                f"flow: state must have the shape {expected} (channels, *grid), or that with a batch axis in front, "
                f"got {state.shape}"
            )
        if not np.isfinite(state).all():
            raise ValueError("flow: state holds values that are not finite")
        if state.ndim == 4:
            return np.stack([self.evolve(member, times, sample, solver) for member in state])
        flow = self.flow(sample)
        integrator = solver if isinstance(solver, Projection) else Projection(self.courant, solver=solver)
        found = integrator.integrate(flow, self.faces(flow, state), times)
        states = np.stack([self._state(flow, *velocity_and_pressure) for velocity_and_pressure in found])
        if times[0] == 0:
            states[0] = state
        return states

    def solver(self, arguments: Mapping[str, Any]) -> LinearSolver:
        """The `solver` entries of a spec, for the pressure systems; no ``rtol`` is above 1e-6."""
        return {**arguments, "rtol": min(arguments.get("rtol", TOLERANCE), TOLERANCE)}

    def faces(self, flow: Staggered, state: Array) -> Array:
        """The velocities on the faces of a state, as `Staggered` keeps them.

        Exact for the states of this scheme. Of others, which are told by the divergence that they would have, the faces
        take the means of their two cells.
        """
        w = flow.from_cell_means(state[:2])
        residue = math.sqrt(np.mean(flow.divergence(w)[flow.fluid] ** 2)) * flow.h
        return w if residue <= _FOREIGN * (1 + np.max(np.abs(state[:2]))) else flow.interpolated(state[:2])

    @staticmethod
    def _state(flow: Staggered, velocity: Array, pressure: Array) -> Array:
        return np.concatenate([flow.cell_means(velocity), pressure[None]])

    def conserved(self, states: Array, sample: Sample | None = None) -> dict[str, Conserved]:
        """The mean velocity: that of the inlet along a channel, zero in a cavity, the momentum in a periodic box."""
        names = ("flow_rate",) if self.problem == "channel" else ("flow_x", "flow_y")
        return {name: Conserved(self.channel(states, i), tolerance=1e-5) for i, name in enumerate(names)}

    def quality(self, sample: Sample, solution: Mapping[str, Array]) -> dict[str, float]:
        """Ranges, drifts, and the largest root mean square of the divergence of a frame."""
        flow = self.flow(sample)
        means = np.stack([np.asarray(solution[name], dtype=float) for name in ("velocity_x", "velocity_y")], axis=1)
        squares = [np.mean(flow.divergence(flow.from_cell_means(frame))[flow.fluid] ** 2) for frame in means]
        return {**super().quality(sample, solution), "divergence": math.sqrt(max(squares))}
