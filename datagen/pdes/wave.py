"""Waves in a layered medium: reflection, transmission, and sides that let them out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.fft import dct, dst, idct, idst
from scipy.special import ndtr

from datagen.discretise import Boundary, Dirichlet, Neumann, Robin
from datagen.evolve.family import Conserved
from datagen.evolve.implicit import DIRK, IMPLICIT_MIDPOINT, Array, EulerStep
from datagen.evolve.implicit_family import ImplicitFamily
from datagen.family import Field, LinearSystem, Sample, register
from datagen.fields import GaussianRandomField
from datagen.grids import Grid, as_shape
from solvers.stencil import StencilOperator

MEDIA = ("layered", "smooth")
STARTS = ("struck", "plucked")
SIDES = ("dirichlet", "neumann", "absorbing")
_MARGIN = 4.0  # pulse widths between a pulse's centre and the sides: what is cut off is below exp(-8) = 3e-4
_THINNEST = 1 / 3  # of the average thickness of a layer
# Relative change of the energy: solves leave 1e-10; rounding to single precision, of which its differences are made,
# 2e-8 of a sample with the defaults, and 4e-7 where a free box has moved on by 20 crossings.
_ENERGY = 1e-5


@dataclass(frozen=True)
class Absorbing(Robin):
    """A side that lets waves out, ``c du/dn = -u_t``: a Robin condition in u_t, with the sample's c for coefficient.

    Parameters
    ----------
    transfer, value : float or array
        As for `Robin`, of u_t: c and 0.
    """

    kind = "absorbing"


@register("wave")
@dataclass(frozen=True)
class Wave(ImplicitFamily):
    """The wave equation with a speed that varies in space,

        u_tt = div(c(x)^2 grad u)  in (0, 1)^d,    u and v = u_t given at time 0,

    dimensionless, in 1, 2 or 3 dimensions: shear waves that are polarised across the plane, in media of one density and
    of shear modulus c^2. (Sound in media of one density has ``c^2 Laplacian(p)`` instead; where c is constant they
    agree, and at interfaces the reflection coefficients have opposite signs.) This form conserves the plain energy

        E = 1/2 integral of (v^2 + c^2 |grad u|^2),

    and from a medium 1 to a medium 2 a plane wave at normal incidence is reflected by ``(c_1 - c_2) / (c_1 + c_2)`` and
    transmitted by ``2 c_1 / (c_1 + c_2)``. Each side is held ("dirichlet", u = 0), free ("neumann", c^2 du/dn = 0) or
    "absorbing", ``c du/dn = -u_t``: exact for waves at normal incidence; of one at an angle w to the normal it sends
    back ``(1 - cos w) / (1 + cos w)`` (Engquist and Majda 1977, Math. Comp. 31, p. 629; Clayton and Engquist 1977).

    On a grid of nodes, both ends of each axis among them: the balance over the cell of a node, which at a free or an
    absorbing side is half a cell, with harmonic face averages of c^2. Second order where c is smooth, and across
    interfaces half-way between two nodes. States hold u and v. In time the implicit midpoint rule, of second order: the
    discrete energy (`energy`) does not change but by what the solver's tolerance leaves, whatever the step, and with
    absorbing sides falls. The system of a step is ``(W + dt D + dt^2 K) y_v = W v - dt K u``, symmetric
    positive definite, and the same in all steps; W, D, K of mass, absorption and stiffness.

    Steps are at most ``courant h / max c``, for accuracy alone: at 0.7 the error of the step, ``(omega dt)^2 / 12`` of
    a wave's phase, is that of the grid, ``(k h)^2 / 24``; at 0.35 it is a quarter of it.

    The medium is of "layered" constants, the interfaces across the first axis at random depths (each layer at least a
    third of the average), in 2 and 3 dimensions undulating with a Gaussian field; or "smooth",
    ``c = low + (high - low) Phi(g)``, g a Gaussian field with variance 1 and Phi the normal distribution function.
    Covariances are proportional to ``(-Laplacian + tau^2)^(-alpha)``, under Neumann conditions.

    The start is a sum of Gaussian pulses ``exp(-|x - x_0|^2 / (2 pulse_width^2))`` with centres at least four widths
    from the sides: of the velocity, where the medium is "struck" at rest (a free box as a whole moves on, then), or of
    the displacement, where it is "plucked". Across an interface the flux of a smooth displacement jumps, and a pulse
    plucked there sends out jumps of v, which no grid resolves: the steps then leave 10 to 20 per cent of the maximum of
    v near the fronts, where they leave 1 after a stroke.

    Your own medium and start: put arrays of the grid's shape into a `Sample`; ``initial_displacement``,
    ``initial_velocity`` or both.

    Parameters
    ----------
    grid : int or sequence of int
        Nodes per axis.
    dimension : int
        1, 2 or 3.
    sides : str or sequence
        "dirichlet", "neumann" or "absorbing": for all sides; or per axis one name or a pair (lower side, upper side).
    medium : str
        "layered" or "smooth".
    layers : int
        How many.
    speeds : sequence of float
        Lowest and highest speed.
    undulation : float
        Standard deviation of the depth of an interface.
    alpha, tau : float
        Smoothness (more than d/2) and inverse correlation length of the Gaussian fields.
    start : str
        "struck" or "plucked".
    pulses : int
        How many.
    pulse_width : float
        At most an eighth.
    final_time : float
    frames : int
        Equally spaced times to store, from 0 to `final_time`.
    courant : float
        Longest step in units of ``h / max c``.

    Notes
    -----
    Good values: 9 nodes to a `pulse_width`, as by default. To t = 0.5 that leaves 0.3 per cent of u and 2 of v, to
    t = 1, when most has left, 5 of what there is of v (relative L2 norm, against four times as many nodes per axis); a
    quarter on twice the nodes. Where a layer is slower a pulse is narrower than where it came from, and wants more.

    Truth: `exact`, for constant speed and sides that are held or free.

    Examples
    --------
    >>> family = Wave(grid=65, sides=[["neumann", "absorbing"], "absorbing"])
    >>> sample = family.sample(np.random.default_rng(7))
    >>> states = family.evolve(family.initial(sample), [0.0, 0.5, 1.0], sample)
    >>> states.shape  # (times, (u, v), *grid)
    (3, 2, 65, 65)
    >>> bool(np.all(np.diff(family.energy(states, sample)) < 0))
    True
    """

    grid: int | tuple[int, ...] = 129
    dimension: int = 2
    sides: Any = "absorbing"
    medium: str = "layered"
    layers: int = 4
    speeds: tuple[float, ...] = (0.5, 1.5)
    undulation: float = 0.03
    alpha: float = 3.0
    tau: float = 5.0
    start: str = "struck"
    pulses: int = 1
    pulse_width: float = 0.07
    final_time: float = 1.0
    frames: int = 41
    courant: float = 0.35

    title: ClassVar[str] = "Wave equation, u_tt = div(c^2 grad u), layered or smooth speed"
    method: ClassVar[DIRK] = IMPLICIT_MIDPOINT
    integrator: ClassVar[str] = "implicit_midpoint"
    fields: ClassVar[tuple[Field, ...]] = (
        Field("speed", "input", "dimensionless", "wave speed c"),
        Field("initial_displacement", "input", "dimensionless", "u at time 0"),
        Field("initial_velocity", "input", "dimensionless", "v at time 0"),
        Field("displacement", "output", "dimensionless", "displacement u"),
        Field("velocity", "output", "dimensionless", "velocity v = u_t"),
    )

    def __post_init__(self) -> None:
        self._check(3, ("alpha", "pulse_width", "courant"), {"medium": MEDIA, "start": STARTS})
        if not isinstance(self.sides, str):
            if not isinstance(self.sides, (list, tuple)) or not all(
                isinstance(side, (str, list, tuple)) for side in self.sides
            ):
                raise ValueError(
                    f"wave: sides must be a name, or one name or pair of names per axis, got {self.sides!r}"
                )
            plain = tuple(side if isinstance(side, str) else tuple(side) for side in self.sides)
            object.__setattr__(self, "sides", plain)
        pairs = self.conditions
        if len(pairs) != self.dimension or not all(len(pair) == 2 and set(pair) <= set(SIDES) for pair in pairs):
            raise ValueError(
                f"wave: sides must be one of {', '.join(SIDES)}, or for each of the {self.dimension} axes one of them "
                f"or a pair (lower, upper), got {self.sides!r}"
            )
        speeds = tuple(float(c) for c in self.speeds)
        if len(speeds) != 2 or not (0 < speeds[0] <= speeds[1] < math.inf):
            raise ValueError(
                f"wave: speeds must be the lowest and the highest, positive and finite, got {self.speeds!r}"
            )
        object.__setattr__(self, "speeds", speeds)
        for name in ("layers", "pulses"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1000:
                raise ValueError(f"wave: {name} must be an integer from 1 to 1000, got {value!r}")
        if not (math.isfinite(self.undulation) and self.undulation >= 0):
            raise ValueError(f"wave: undulation must be finite and not negative, got {self.undulation!r}")
        if self.pulse_width > 0.5 / _MARGIN:
            raise ValueError(f"wave: pulse_width must be at most {0.5 / _MARGIN:g}, got {self.pulse_width!r}")
        self._check_step(self.courant * min(self.mesh.spacing) / speeds[1], "courant")
        self._field(self.dimension)  # checks alpha and tau
        absent = "initial_displacement" if self.start == "struck" else "initial_velocity"
        object.__setattr__(self, "fields", tuple(f for f in type(self).fields if f.name != absent))

    @property
    def conditions(self) -> tuple[tuple[str, ...], ...]:
        """Names per axis: of the lower and the upper side."""
        per_axis = (self.sides,) * self.dimension if isinstance(self.sides, str) else self.sides
        return tuple((side, side) if isinstance(side, str) else side for side in per_axis)

    @property
    def mesh(self) -> Grid:
        """Nodes of the unit box, both ends included."""
        return Grid(as_shape(self.grid, self.dimension), (1.0,) * self.dimension, "node")

    @property
    def boundary(self) -> Boundary:
        """Conditions per side."""
        known: dict[str, Any] = {"dirichlet": Dirichlet(0.0), "neumann": Neumann(0.0), "absorbing": Absorbing(0.0)}
        return tuple((known[low], known[high]) for low, high in self.conditions)

    def _field(self, dimension: int) -> GaussianRandomField:
        field = GaussianRandomField(self.alpha, self.tau, basis="neumann", lengths=(1.0,) * dimension)
        return field.with_standard_deviation(1.0)

    def sample(self, rng: np.random.Generator) -> Sample:
        """Draw a medium and the places of the pulses."""
        medium_rng, pulse_rng = rng.spawn(2)
        margin = _MARGIN * self.pulse_width
        total = np.zeros(self.mesh.shape)
        for centre in pulse_rng.uniform(margin, 1 - margin, (self.pulses, self.dimension)):
            square = sum((x - x_0) ** 2 for x, x_0 in zip(self.mesh.points(), centre, strict=True))
            total += np.exp(-square / (2 * self.pulse_width**2))
        speed = self._layered(medium_rng) if self.medium == "layered" else self._smooth(medium_rng)
        return Sample({"speed": speed, self.role("input")[1].name: total})

    def _smooth(self, rng: np.random.Generator) -> Array:
        low, high = self.speeds
        field = self._field(self.dimension).sample(rng.spawn(1)[0], self.mesh)
        return np.asarray(low + (high - low) * ndtr(field))

    def _layered(self, rng: np.random.Generator) -> Array:
        speeds = rng.uniform(self.speeds[0], self.speeds[1], self.layers)
        shares = rng.exponential(size=self.layers)  # spacings of uniform points, but for the least thickness
        thickness = (_THINNEST + (1 - _THINNEST) * self.layers * shares / shares.sum()) / self.layers
        shape = self.mesh.shape[1:]
        below = np.zeros(self.mesh.shape, dtype=int)
        for depth, own in zip(np.cumsum(thickness)[:-1], rng.spawn(self.layers - 1), strict=True):
            interface = np.full(shape, depth)
            if shape:
                field = self._field(self.dimension - 1)
                interface += self.undulation * field.sample(own, Grid(shape, (1.0,) * len(shape), "node"))
            below += self.mesh.points()[0] > interface
        return np.asarray(speeds[below])

    def initial(self, sample: Sample) -> Array:
        """u and v at time 0, shape ``(2, *grid)``, zero where the sample has none; held sides are held."""
        names = ("initial_displacement", "initial_velocity")
        if not any(name in sample.fields for name in names):
            raise ValueError(f"wave: the sample lacks {names[0]!r} and {names[1]!r}, it needs one of them")
        u, v = (self.values(sample, name) if name in sample.fields else np.zeros(self.mesh.shape) for name in names)
        state = np.zeros((2, *self.mesh.shape))
        free = (slice(None), *_free(self.conditions))
        state[free] = np.stack([u, v])[free]
        return state

    def longest_step(self, sample: Sample) -> float:
        """``courant h / max c``."""
        return self.courant * min(self.mesh.spacing) / float(self._speed(sample).max())

    def _speed(self, sample: Sample) -> Array:
        speed = self.values(sample, "speed")
        if not np.all(speed > 0):
            raise ValueError(f"wave: field 'speed' must be positive everywhere, its minimum is {speed.min():g}")
        return speed

    def euler_step(self, sample: Sample) -> EulerStep:
        """``(W + dt D + dt^2 K) y_v = W v - dt K u`` and ``y_u = u + dt y_v``, on the nodes that are not held."""
        return _Balance(self._speed(sample), self.mesh, self.conditions).euler_step

    def energy(self, state: Array, sample: Sample) -> Array:
        """``1/2 (v' W v + u' K u) h^d`` of states ``(..., 2, *grid)``, shape ``(...,)``."""
        state = np.asarray(state, dtype=float)
        flat = state.reshape(-1, 2, *self.mesh.shape)
        balance = _Balance(self._speed(sample), self.mesh, self.conditions)
        return np.array([balance.energy(one) for one in flat]).reshape(state.shape[: -1 - self.dimension])

    def conserved(self, states: Array, sample: Sample | None = None) -> dict[str, Conserved]:
        """The `energy`, where nothing is absorbed."""
        if any("absorbing" in pair for pair in self.conditions):
            return {}
        if sample is None:
            raise ValueError("wave: conserved needs the sample, which holds the speed")
        return {"energy": Conserved(self.energy(states, sample), _ENERGY)}

    def quality(self, sample: Sample, solution: Mapping[str, Array]) -> dict[str, float]:
        """Ranges; the energy at the end over that at the beginning; and how much of it a frame gained, at most."""
        channels = [np.asarray(solution[f.name], dtype=np.float64) for f in self.role("output")]
        energy = np.atleast_1d(self.energy(np.stack(channels, axis=-1 - self.dimension), sample))
        scale = float(energy[0]) or 1.0
        return {
            **super().quality(sample, solution),
            "energy_ratio": float(energy[-1]) / scale,
            "energy_gain": float(np.max(np.diff(energy), initial=0.0)) / scale,
        }

    def exact(self, sample: Sample, times: Sequence[float]) -> Array:
        """Standing waves: the exact solution of the initial fields' sums of eigenfunctions, ``(times, 2, *grid)``,

            u(x, t) = sum_j (u_j cos(w_j t) + v_j sin(w_j t) / w_j) phi_j(x),    w_j = c |kappa_j|,

        ``phi_j`` products of sines (held axes) and cosines (free ones), the sums at time 0 having the nodes' values.

        Raises
        ------
        ValueError
            If the speed varies, a side absorbs, or one side of an axis is held and the other free.
        """
        speed = self._speed(sample)
        if np.ptp(speed) > 1e-12 * speed.max() or any(
            pair not in (("dirichlet",) * 2, ("neumann",) * 2) for pair in self.conditions
        ):
            raise ValueError(
                "wave: there is an exact solution for constant speed and axes with both sides held, or free"
            )
        held = [pair[0] == "dirichlet" for pair in self.conditions]
        free = (slice(None), *_free(self.conditions))
        coefficients = self.initial(sample)[free]
        squares = np.zeros(coefficients.shape[1:])
        for axis, of_sines in enumerate(held):
            coefficients = (dst if of_sines else dct)(coefficients, 1, axis=axis + 1)
            kappa = np.pi * (np.arange(coefficients.shape[axis + 1]) + of_sines)
            squares = squares + kappa.reshape([-1 if i == axis else 1 for i in range(self.dimension)]) ** 2
        omega = float(speed.flat[0]) * np.sqrt(squares)
        u, v = coefficients
        states = np.zeros((len(times), 2, *self.mesh.shape))
        for state, t in zip(states, times, strict=True):
            cosine, sine = np.cos(omega * t), np.sin(omega * t)
            over = t * np.sinc(omega * t / np.pi)  # sin(w t) / w
            values = np.stack([u * cosine + v * over, v * cosine - omega * u * sine])
            for axis, of_sines in enumerate(held):
                values = (idst if of_sines else idct)(values, 1, axis=axis + 1)
            state[free] = values
        return states


def _free(conditions: Sequence[Sequence[str]]) -> tuple[slice, ...]:
    """The nodes that are not held, a box."""
    return tuple(slice(int(low == "dirichlet"), -1 if high == "dirichlet" else None) for low, high in conditions)


class _Balance:
    """``W v' = -K u - D v``: the balance over each node's cell, divided by ``h^d``, on the nodes that are not held."""

    def __init__(self, speed: Array, mesh: Grid, conditions: Sequence[Sequence[str]]) -> None:
        dimension, modulus = mesh.dimension, speed**2
        self._free = _free(conditions)
        self._volume = math.prod(mesh.spacing)
        halves = []  # of the cells' width along each axis
        for axis, n in enumerate(mesh.shape):
            width = np.ones(n)
            width[[0, -1]] = 0.5
            halves.append(width.reshape([-1 if i == axis else 1 for i in range(dimension)]))

        def cross_section(axis: int) -> Array:
            others = [w for i, w in enumerate(halves) if i != axis]
            return np.asarray(math.prod(others, start=np.ones((1,) * dimension)))

        W, D, diagonal = math.prod(halves) * np.ones(mesh.shape), np.zeros(mesh.shape), np.zeros(mesh.shape)
        offsets, links = [(0,) * dimension], []
        for axis, ((low, high), h) in enumerate(zip(conditions, mesh.spacing, strict=True)):
            first, last, without_first, without_last = (
                tuple(part if i == axis else slice(None) for i in range(dimension))
                for part in (slice(0, 1), slice(-1, None), slice(1, None), slice(None, -1))
            )
            face = 2 / (1 / modulus[without_last] + 1 / modulus[without_first]) * cross_section(axis) / h**2
            up, down = np.zeros(mesh.shape), np.zeros(mesh.shape)
            up[without_last], down[without_first] = face, face
            diagonal += up + down
            offsets += [
                tuple(int(i == axis) for i in range(dimension)),
                tuple(-int(i == axis) for i in range(dimension)),
            ]
            links += [-up, -down]
            for side, place in ((low, first), (high, last)):
                if side == "absorbing":
                    D[place] += (speed * cross_section(axis))[place] / h
        links = [np.array(link[self._free]) for link in links]
        for link, offset in zip(links, offsets[1:], strict=True):  # the held neighbours are zero
            axis = int(np.flatnonzero(offset)[0])
            link[tuple(slice(-1, None) if o > 0 else slice(0, 1) if o < 0 else slice(None) for o in offset)] = 0
        self._W, self._D = W[self._free], D[self._free]
        names = [["robin" if side == "absorbing" else side for side in pair] for pair in conditions]
        self._geometry = (self._W.shape, mesh.spacing, names, "node")
        self._K = StencilOperator(offsets, [diagonal[self._free], *links], *self._geometry)
        self._dt, self._A = math.nan, self._K

    def _operator(self, dt: float) -> StencilOperator:
        """``W + dt D + dt^2 K``, the same object where dt is that of the last call."""
        if dt != self._dt:
            coefficients = dt**2 * self._K.coefficients
            coefficients[0] += self._W + dt * self._D
            coefficients.flags.writeable = False
            self._dt, self._A = dt, StencilOperator(self._K.offsets, coefficients, *self._geometry)
        return self._A

    def euler_step(self, state: Array, t: float, dt: float) -> LinearSystem:
        u, v = (np.ascontiguousarray(channel[self._free]) for channel in state)

        def to_state(x: Array) -> Array:
            y = np.zeros_like(state)
            y[1][self._free] = x.reshape(v.shape)
            y[0][self._free] = u + dt * y[1][self._free]
            return y

        b = (self._W * v).ravel() - dt * (self._K @ u.ravel())
        return LinearSystem(self._operator(dt), b, to_state, lambda y: np.array(y[1][self._free]).ravel())

    def energy(self, state: Array) -> float:
        u, v = (np.ascontiguousarray(channel[self._free]) for channel in state)
        return 0.5 * self._volume * float(np.sum(self._W * v**2) + u.ravel() @ (self._K @ u.ravel()))
