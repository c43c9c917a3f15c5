"""Heat conduction with a conductivity that varies in space and in time."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.fft import dct, dst, fft, idct, idst, ifft

from datagen.discretise import PERIODIC, Boundary, Dirichlet, Neumann, Side, diffusion
from datagen.evolve.family import Conserved
from datagen.evolve.implicit import DIRK, SDIRK2, Array, EulerStep
from datagen.evolve.implicit_family import ImplicitFamily
from datagen.family import Field, LinearSystem, Sample, register
from datagen.fields import GaussianRandomField, wavenumbers
from datagen.grids import Grid, as_shape
from solvers.stencil import StencilOperator

COEFFICIENTS = ("lognormal", "constant")
KAPPAS = ("random", "switching", "constant")
SIDES = ("dirichlet", "neumann", PERIODIC)
_HARMONICS = 3
# From values at the cells to coefficients of the sides' eigenfunctions, and back.
_TRANSFORMS: dict[str, tuple[Any, Any]] = {
    "dirichlet": (lambda u, axis: dst(u, 2, axis=axis), lambda c, axis: idst(c, 2, axis=axis)),
    "neumann": (lambda u, axis: dct(u, 2, axis=axis), lambda c, axis: idct(c, 2, axis=axis)),
    PERIODIC: (lambda u, axis: fft(u, axis=axis), lambda c, axis: ifft(c, axis=axis)),
}


@register("heat")
@dataclass(frozen=True)
class Heat(ImplicitFamily):
    """The heat equation with a diffusivity that varies in space and, by a common factor, in time,

        u_t = div(kappa(t) a(x) grad u) + f(x)  in (0, 1)^d,

    dimensionless, in 1, 2 or 3 dimensions; along each axis both sides have a given temperature ("dirichlet"), are
    insulated ("neumann"), or are one ("periodic"). On a cell-centred grid (values at ``(i + 1/2) / n``); flux-form
    finite volumes (`datagen.discretise.diffusion`), second order where a is smooth; in time `SDIRK2`, second order and
    L-stable, with any linear solver.

    The factor kappa is one of

    - "random": ``log kappa(t) = sum_{k=1..3} c_k cos(2 pi k t / period) + s_k sin(2 pi k t / period)`` with independent
      normal coefficients of standard deviations proportional to 1/k, and ``kappa_deviation^2`` the variance of
      ``log kappa(t)``. The sample's scalars ``kappa_cos_k`` and ``kappa_sin_k`` are the coefficients.
    - "switching": ``kappa(t) = max(0.1 sin p, -10 sin p)``, ``p = 2 pi t / period + phase``, that of the heat
      experiment of Khodak et al. 2024 (Learning to Relax, ICLR, arXiv 2310.02246; their published code, the paper has
      0.01). The phase (theirs is 0) is drawn from U(0, 2 pi): scalar ``kappa_phase``.
    - "constant": 1, and no scalars.

    The coefficient a is ``diffusivity`` or lognormal about it. The source, a Gaussian field which rests, is there if
    ``source_deviation`` is not 0 (in their experiment it moves). Wall temperatures, one for each Dirichlet side, are
    drawn from ``U(walls)``: scalars ``wall_x_low``, ``wall_x_high``, ``wall_y_low``, ...; where the two numbers are
    equal all walls have that temperature and there are no scalars. All Gaussian fields have covariances proportional to
    ``(-Laplacian + tau^2)^(-alpha)``, a and f under Neumann conditions, the initial temperature under those of the
    sides.

    What holds exactly, of the scheme as it is solved:

    - without Dirichlet sides the mean of u grows by the mean of f, and is conserved without f: to rounding, since the
      mean of each new state is set, whatever tolerance the solver has;
    - the maximum principle (without f, u stays between the extremes of its start and its walls) holds for steps up to
      ``(1 + sqrt 2) / max diagonal``, the diagonal that of ``-div(kappa a grad)``: ``1.2 h^2 / (d kappa a)``, or 0.8
      beside given walls; methods of order 2 have such bounds. Longer steps keep it for fields that they resolve, and
      may overshoot where the start jumps, as at a wall of another temperature; `quality` says by how much.
      ``solver=Implicit(IMPLICIT_EULER)`` keeps it with any step, at first order.

    Your own fields: put arrays of the grid's shape, and scalars, into a `Sample`.

    Parameters
    ----------
    grid : int or sequence of int
        Cells per axis.
    dimension : int
        1, 2 or 3.
    sides : str or sequence of str
        "dirichlet", "neumann" or "periodic", for all axes or one per axis.
    coefficient : str
        "lognormal" or "constant".
    diffusivity : float
        a where it is constant, its median otherwise.
    log_standard_deviation, alpha, tau : float
        Of ``log a``, and of the source's smoothness.
    kappa : str
        "random", "switching" or "constant".
    kappa_deviation : float
        Standard deviation of ``log kappa(t)`` ("random" only).
    period : float
        Of kappa.
    source_deviation : float
        Standard deviation of f; 0 for none.
    walls : sequence of float
        Lowest and highest wall temperature.
    initial_alpha, initial_tau, initial_deviation : float
        Of the initial temperature.
    final_time : float
    frames : int
        Equally spaced times to store, from 0 to `final_time`.
    step : float
        Longest time step.

    Notes
    -----
    Good values: the defaults, with which the first mode's amplitude falls to about a half; their steps leave an error
    of about 1e-4, below the grid's 1e-3.

    Truth: `exact`, for constant a without a source and walls of one temperature.

    Examples
    --------
    >>> family = Heat(grid=32, coefficient="constant")
    >>> sample = family.sample(np.random.default_rng(7))
    >>> states = family.evolve(family.initial(sample), family.times, sample)
    >>> states.shape
    (21, 1, 32, 32)
    >>> bool(abs(states - family.exact(sample, family.times)).max() < 1e-2)
    True
    """

    grid: int | tuple[int, ...] = 64
    dimension: int = 2
    sides: str | tuple[str, ...] = "dirichlet"
    coefficient: str = "lognormal"
    diffusivity: float = 0.01
    log_standard_deviation: float = 0.5
    alpha: float = 3.0
    tau: float = 5.0
    kappa: str = "random"
    kappa_deviation: float = 0.5
    period: float = 2.0
    source_deviation: float = 0.0
    walls: tuple[float, ...] = (0.0, 0.0)
    initial_alpha: float = 3.0
    initial_tau: float = 5.0
    initial_deviation: float = 1.0
    final_time: float = 4.0
    frames: int = 21
    step: float = 0.04

    title: ClassVar[str] = "Heat equation, u_t = div(kappa(t) a grad u) + f"
    method: ClassVar[DIRK] = SDIRK2
    integrator: ClassVar[str] = "sdirk2"
    fields: ClassVar[tuple[Field, ...]] = (
        Field("diffusivity", "input", "dimensionless", "coefficient a"),
        Field("source", "input", "dimensionless", "source f"),
        Field("initial_temperature", "input", "dimensionless", "u at time 0"),
        Field("temperature", "output", "dimensionless", "temperature u"),
    )

    def __post_init__(self) -> None:
        positive = (
            *("diffusivity", "log_standard_deviation", "kappa_deviation", "period", "step"),
            *("alpha", "initial_alpha", "initial_deviation"),
        )
        self._check(2, positive, {"coefficient": COEFFICIENTS, "kappa": KAPPAS})
        if self.kappa_deviation > 20:
            raise ValueError(f"heat: kappa_deviation, of a logarithm, must be at most 20, got {self.kappa_deviation!r}")
        if not isinstance(self.sides, str):
            object.__setattr__(self, "sides", tuple(self.sides))
        if len(self.conditions) != self.dimension or not set(self.conditions) <= set(SIDES):
            raise ValueError(
                f"heat: sides must be one of {', '.join(SIDES)}, or {self.dimension} of them (one per axis), "
                f"got {self.sides!r}"
            )
        if not (math.isfinite(self.source_deviation) and self.source_deviation >= 0):
            raise ValueError(f"heat: source_deviation must be finite and not negative, got {self.source_deviation!r}")
        walls = tuple(float(value) for value in self.walls)
        if len(walls) != 2 or not (math.isfinite(walls[0]) and math.isfinite(walls[1]) and walls[0] <= walls[1]):
            raise ValueError(f"heat: walls must be the lowest and the highest temperature, got {self.walls!r}")
        object.__setattr__(self, "walls", walls)
        self._check_step(self.step, "step")
        self._field(self.alpha, self.tau, 1.0, "neumann")  # check alpha and tau
        self._field(self.initial_alpha, self.initial_tau, 1.0, self.conditions)
        absent = {
            "diffusivity": self.coefficient == "constant",
            "source": self.source_deviation == 0,
        }
        object.__setattr__(self, "fields", tuple(f for f in type(self).fields if not absent.get(f.name)))

    @property
    def conditions(self) -> tuple[str, ...]:
        """The condition of each axis."""
        return (self.sides,) * self.dimension if isinstance(self.sides, str) else self.sides

    @property
    def mesh(self) -> Grid:
        """Cells of the unit box."""
        return Grid(as_shape(self.grid, self.dimension), (1.0,) * self.dimension)

    @property
    def boundary(self) -> Boundary:
        """Conditions per axis; wall temperatures that are drawn are the sample's."""
        return self._boundary(dict.fromkeys(self._wall_names, self.walls[0]))

    def _boundary(self, walls: Mapping[str, float]) -> Boundary:
        def pair(axis: str, condition: str) -> tuple[Side, Side] | str:
            if condition == PERIODIC:
                return PERIODIC
            if condition == "neumann":
                return Neumann(0.0), Neumann(0.0)
            return Dirichlet(walls[f"wall_{axis}_low"]), Dirichlet(walls[f"wall_{axis}_high"])

        return tuple(pair(axis, side) for axis, side in zip(self.mesh.axis_names, self.conditions, strict=True))

    @property
    def _wall_names(self) -> list[str]:
        """Of the sides with a given temperature."""
        pairs = zip(self.mesh.axis_names, self.conditions, strict=True)
        return [f"wall_{axis}_{end}" for axis, side in pairs if side == "dirichlet" for end in ("low", "high")]

    def _walls(self, sample: Sample) -> dict[str, float]:
        """Temperatures of the sides that have one, drawn or fixed."""
        fixed = self.walls[0] == self.walls[1]
        return {name: self.walls[0] if fixed else self.scalar(sample, name) for name in self._wall_names}

    def _field(self, alpha: float, tau: float, deviation: float, basis: str | tuple[str, ...]) -> GaussianRandomField:
        try:
            field = GaussianRandomField(alpha, tau, basis=basis, lengths=self.mesh.lengths)
            return field.with_standard_deviation(deviation)
        except ValueError as error:
            which = "initial_" if (alpha, tau) == (self.initial_alpha, self.initial_tau) else ""
            raise ValueError(f"heat: {which}{error}") from None

    def sample(self, rng: np.random.Generator) -> Sample:
        """Draw an initial temperature and whatever else varies."""
        start_rng, coefficient_rng, source_rng = rng.spawn(3)
        mesh, scalars = self.mesh, {}
        initial = self._field(self.initial_alpha, self.initial_tau, self.initial_deviation, self.conditions)
        fields = {"initial_temperature": initial.sample(start_rng, mesh)}
        if self.coefficient == "lognormal":
            log_a = self._field(self.alpha, self.tau, self.log_standard_deviation, "neumann")
            fields["diffusivity"] = self.diffusivity * np.exp(log_a.sample(coefficient_rng, mesh))
        if self.source_deviation:
            source = self._field(self.alpha, self.tau, self.source_deviation, "neumann")
            fields["source"] = source.sample(source_rng, mesh)
        if self.kappa == "random":
            deviation = 1 / np.arange(1, _HARMONICS + 1)
            deviation *= self.kappa_deviation / math.sqrt(np.sum(deviation**2))
            for word in ("cos", "sin"):
                for k, c in enumerate(deviation * rng.standard_normal(_HARMONICS), 1):
                    scalars[f"kappa_{word}_{k}"] = float(c)
        elif self.kappa == "switching":
            scalars["kappa_phase"] = float(rng.uniform(0, 2 * np.pi))
        if self.walls[0] < self.walls[1]:
            scalars |= {name: float(rng.uniform(self.walls[0], self.walls[1])) for name in self._wall_names}
        return Sample(fields, scalars)

    def kappa_at(self, sample: Sample, times: Sequence[float] | float) -> Array:
        """``kappa(t)`` of a sample, of the shape of the times."""
        t = np.asarray(times, dtype=float)
        angle = 2 * np.pi / self.period * t
        if self.kappa == "constant":
            return np.ones_like(t)
        if self.kappa == "switching":
            wave = np.sin(angle + self.scalar(sample, "kappa_phase"))
            return np.maximum(0.1 * wave, -10 * wave)
        logarithm = np.zeros_like(t)
        for k in range(1, _HARMONICS + 1):
            logarithm += self.scalar(sample, f"kappa_cos_{k}") * np.cos(k * angle)
            logarithm += self.scalar(sample, f"kappa_sin_{k}") * np.sin(k * angle)
        return np.asarray(np.exp(logarithm))

    def kappa_integral(self, sample: Sample, times: Sequence[float]) -> Array:
        """``integral of kappa from 0 to t``: in closed form, or ("random") by Gauss's rule, to rounding."""
        t = np.asarray(times, dtype=float)
        if self.kappa == "constant":
            return t
        if self.kappa == "switching":
            phase = self.scalar(sample, "kappa_phase")

            def antiderivative(p: Array) -> Array:  # of max(0.1 sin, -10 sin), from 0
                turns, rest = np.floor(p / (2 * np.pi)), p % (2 * np.pi)
                first = np.minimum(rest, np.pi)
                second = np.maximum(rest, np.pi)
                return np.asarray(20.2 * turns + 0.1 * (1 - np.cos(first)) + 10 * (np.cos(second) + 1))

            rate = 2 * np.pi / self.period
            return np.asarray((antiderivative(rate * t + phase) - antiderivative(np.asarray(phase))) / rate)
        nodes, weights = np.polynomial.legendre.leggauss(20)
        panels = np.maximum(np.ceil(8 * t / self.period), 1).astype(int)
        totals = []
        for end, count in zip(np.atleast_1d(t), np.atleast_1d(panels), strict=True):
            width = end / count
            points = width * (np.arange(count)[:, None] + (nodes + 1) / 2)
            totals.append(width / 2 * float(np.sum(self.kappa_at(sample, points) * weights)))
        return np.reshape(totals, t.shape)

    def initial(self, sample: Sample) -> Array:
        """The initial temperature, shape ``(1, *grid)``."""
        return self.values(sample, "initial_temperature")[None]

    def longest_step(self, sample: Sample) -> float:
        """``step``."""
        return self.step

    def euler_step(self, sample: Sample) -> EulerStep:
        """``(I + dt kappa L) y = state + dt (f + kappa g)``, kappa at t + dt, L for ``-div(a grad)``, g the walls'."""
        mesh = self.mesh
        if self.coefficient == "lognormal":
            a = self.values(sample, "diffusivity")
        else:
            a = np.full(mesh.shape, self.diffusivity)
        operator, load = diffusion(a, mesh, self._boundary(self._walls(sample)))
        source = self.values(sample, "source") if self.source_deviation else None
        shifted = _Shifted(operator)
        insulated = "dirichlet" not in self.conditions

        def step(state: Array, t: float, dt: float) -> LinearSystem:
            kappa = float(self.kappa_at(sample, t + dt))
            b = (state[0] + dt * kappa * load).ravel()
            if source is not None:
                b += dt * source.ravel()
            mean = b.mean()

            def to_state(x: Array) -> Array:
                # The columns of L have sum zero: that mean(y) = mean(b) is known without solving.
                y = x + (mean - x.mean()) if insulated else x
                return y.reshape(1, *mesh.shape)

            return LinearSystem(shifted.times(dt * kappa), b, to_state)

        return step

    def extremes(self, sample: Sample) -> tuple[float, float]:
        """Of the initial temperature and the walls: without a source u stays between them (maximum principle)."""
        start, walls = self.values(sample, "initial_temperature"), self._walls(sample).values()
        return min([float(start.min()), *walls]), max([float(start.max()), *walls])

    def bounds(self, sample: Sample) -> dict[str, tuple[float, float]]:
        """What the temperature may not leave, by the field's name: its extremes and half of their distance.

        Long steps overshoot where the start jumps: a step turns the sign of what decays much faster, and leaves up to
        0.21 of a mode's amplitude. In all a quarter of the distance was seen. None with a source.
        """
        if self.source_deviation:
            return {}
        low, high = self.extremes(sample)
        return {"temperature": (low - (high - low) / 2, high + (high - low) / 2)}

    def conserved(self, states: Array, sample: Sample | None = None) -> dict[str, Conserved]:
        """The temperature itself, where no heat flows in or out or is made; of states ``(..., 1, *grid)``."""
        if "dirichlet" in self.conditions or self.source_deviation:
            return {}
        return {"heat": Conserved(self.channel(states, 0))}

    def quality(self, sample: Sample, solution: Mapping[str, Array]) -> dict[str, float]:
        """Range of the temperature; without a source also by how much it leaves the extremes of start and walls."""
        numbers = super().quality(sample, solution)
        if not self.source_deviation:
            low, high = self.extremes(sample)
            beyond = low - numbers["temperature_minimum"], numbers["temperature_maximum"] - high
            numbers["overshoot"] = max(*beyond, 0.0)
        return numbers

    def exact(self, sample: Sample, times: Sequence[float]) -> Array:
        """The exact solution of the initial field's sum of eigenfunctions, shape ``(times, 1, *grid)``,

            u(x, t) = w + sum_j c_j exp(-lambda_j K(t)) phi_j(x),    K(t) = a * integral of kappa from 0 to t,

        w the temperature of the walls, ``phi_j`` products of sines, cosines or both according to the sides, the sum at
        time 0 having the cells' values.

        Raises
        ------
        ValueError
            If a varies, there is a source, or the walls have different temperatures.
        """
        if self.coefficient != "constant" or self.source_deviation:
            raise ValueError("heat: there is an exact solution for coefficient='constant' and source_deviation=0 only")
        walls = set(self._walls(sample).values()) or {0.0}
        if len(walls) > 1:
            raise ValueError(f"heat: there is an exact solution for equal walls only, got {sorted(walls)}")
        wall = walls.pop()
        coefficients: Array = self.initial(sample)[0] - wall
        decay = np.zeros(self.mesh.shape)
        for axis, (side, n) in enumerate(zip(self.conditions, self.mesh.shape, strict=True)):
            coefficients = _TRANSFORMS[side][0](coefficients, axis)
            kappa = 2 * np.pi * n * np.fft.fftfreq(n) if side == PERIODIC else wavenumbers(side, n, 1.0)
            decay = decay + kappa.reshape([-1 if i == axis else 1 for i in range(self.dimension)]) ** 2
        states = []
        for K in self.diffusivity * self.kappa_integral(sample, times):
            values = coefficients * np.exp(-decay * K)
            for axis, side in enumerate(self.conditions):
                values = _TRANSFORMS[side][1](values, axis)
            states.append(wall + values.real)
        return np.stack(states)[:, None]


class _Shifted:
    """``I + s L`` for changing s; the same object where s is that of the last call."""

    def __init__(self, operator: StencilOperator) -> None:
        self._operator = operator
        self._centre = operator.offsets.index((0,) * len(operator.grid_shape))
        self._s = math.nan
        self._last = operator

    def times(self, s: float) -> StencilOperator:
        if s != self._s:
            L = self._operator
            coefficients = s * L.coefficients
            coefficients[self._centre] += 1
            coefficients.flags.writeable = False
            self._last = StencilOperator(L.offsets, coefficients, L.grid_shape, L.spacing, L.boundary, L.centring)
            self._s = s
        return self._last
