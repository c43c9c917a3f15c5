"""Initial data of `datagen.pdes.euler`, as functions of position: what is drawn does not depend on the grid.

Each draws from a generator and a family and returns a function of coordinates, one array per axis that broadcast with
each other, with the values ``(density, velocities, pressure)`` there, ``(rows, *shape)``. The formulas are in the
docstring of `Euler`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
State = Callable[[Sequence[Array]], Array]
_VORTEX_MODES = 96  # exp(-2 pi^2 0.01^2 96^2) = 1e-8 of the narrowest vortex is left out
_WIDTHS = (0.01, 0.1)


def _box_states(rng: np.random.Generator, family: Any) -> Array:
    """Constant states ``(rows, parts, ..., parts)``."""
    shape = (family.parts,) * family.dimension
    density, pressure = (rng.uniform(a, b, size=(1, *shape)) for a, b in (family.density, family.pressure))
    velocity = rng.uniform(-family.speed, family.speed, size=(family.dimension, *shape))
    return np.concatenate([density, velocity, pressure])


def _at(states: Array, boxes: Sequence[Array]) -> Array:
    """The states of boxes by their number along each axis."""
    index: Any = (slice(None), *np.broadcast_arrays(*boxes))
    return np.asarray(states[index])


def _waves(rng: np.random.Generator, dimension: int, modes: int) -> tuple[Array, Array, Array]:
    """Wavenumbers ``(waves, dimension)``, amplitudes and phases uniform in [0, 1] and [0, 2 pi]."""
    k = np.array(list(product(range(1, modes + 1), repeat=dimension)))
    return k, rng.uniform(size=len(k)), rng.uniform(0, 2 * np.pi, size=len(k))


def riemann(rng: np.random.Generator, family: Any) -> State:
    """Constant states in equal boxes."""
    states = _box_states(rng, family)

    def state(x: Sequence[Array]) -> Array:
        boxes = [np.minimum(np.floor(family.parts * xi / family.length).astype(int), family.parts - 1) for xi in x]
        return _at(states, boxes)

    return state


def curved_riemann(rng: np.random.Generator, family: Any) -> State:
    """Constant states in boxes between curves."""
    states = _box_states(rng, family)
    waves = [_waves(rng, family.dimension, family.modes) for _ in range(family.dimension)]

    def state(x: Sequence[Array]) -> Array:
        xi = [axis / family.length for axis in x]
        boxes = []
        for along, (wavenumbers, size, phase) in zip(xi, waves, strict=True):
            shift: Any = 0.0
            for k, a, b in zip(wavenumbers, 2 * size - 1, phase, strict=True):
                shift = shift + a * np.sin(2 * np.pi * sum(ki * xj for ki, xj in zip(k, xi, strict=True)) + b)
            fraction = np.mod(along + family.amplitude * shift, 1.0)
            boxes.append(np.minimum(np.floor(family.parts * fraction).astype(int), family.parts - 1))
        return _at(states, boxes)

    return state


def kelvin_helmholtz(rng: np.random.Generator, family: Any) -> State:
    """A layer of other density that moves the other way."""
    pressure = rng.uniform(*family.pressure)
    edges = [_waves(rng, family.dimension - 1, family.modes) for _ in range(2)]

    def state(x: Sequence[Array]) -> Array:
        *others, last = [axis / family.length for axis in x]
        heights = []
        for base, (wavenumbers, size, phase) in zip((0.25, 0.75), edges, strict=True):
            height: Any = base
            for k, a, b in zip(wavenumbers, size / size.sum(), phase, strict=True):
                angle = 2 * np.pi * sum(ki * xj for ki, xj in zip(k, others, strict=True))
                height = height + family.amplitude * a * np.cos(angle + b)
            heights.append(height)
        inside = (last > heights[0]) & (last < heights[1])
        density = np.where(inside, family.density[1], family.density[0])
        along = np.where(inside, -family.speed, family.speed)
        rest = [np.zeros_like(along)] * (family.dimension - 1)
        return np.stack([density, along, *rest, np.full_like(along, pressure)])

    return state


def gaussian(rng: np.random.Generator, family: Any) -> State:
    """Vortices of Gaussian profile, periodic by their Fourier coefficients

    ``sum of 2 pi alpha sigma exp(-2 pi^2 sigma^2 |k|^2 - 2 pi i k.c)``, k an integer vector.
    """
    density, pressure = rng.uniform(*family.density), rng.uniform(*family.pressure)
    strength = rng.uniform(-family.speed, family.speed, size=family.parts)
    width = rng.uniform(*_WIDTHS, size=family.parts)
    centre = rng.uniform(size=(2, family.parts))
    k = np.arange(-_VORTEX_MODES, _VORTEX_MODES + 1)
    along, across = (
        np.exp(-2 * (np.pi * np.outer(k, width)) ** 2 - 2j * np.pi * np.outer(k, centre[axis])) for axis in (0, 1)
    )
    vorticity = (2 * np.pi * strength * width * along) @ across.T
    kx, ky = 2j * np.pi * k[:, None], 2j * np.pi * k[None, :]
    laplacian = kx**2 + ky**2
    laplacian[_VORTEX_MODES, _VORTEX_MODES] = 1
    vorticity[_VORTEX_MODES, _VORTEX_MODES] = 0
    stream = -vorticity / laplacian
    velocity = (ky * stream, -kx * stream)

    def state(x: Sequence[Array]) -> Array:
        to_x, to_y = (np.exp(2j * np.pi * np.outer(np.ravel(xi) / family.length, k)) for xi in x)
        u, v = ((to_x @ coefficients @ to_y.T).real for coefficients in velocity)
        return np.stack([np.full_like(u, density), u, v, np.full_like(u, pressure)])

    return state


def isentropic_vortex(
    gamma: float,
    length: float,
    time: float,
    strength: float = 5.0,
    radius: float = 1.0,
    velocity: tuple[float, float] = (1.0, 1.0),
) -> State:
    """A vortex that a uniform flow carries unchanged (Shu 1998, NASA CR-97-206253, section 5.1; there length = 10).

    With r the distance from its centre, the middle of the square at time 0, in units of `radius`, ``p = rho^gamma`` and

        v = velocity + strength / (2 pi) exp((1 - r^2) / 2) (-y, x) / radius,
        p / rho = 1 - (gamma - 1) strength^2 / (8 gamma pi^2) exp(1 - r^2).

    On a periodic square it is exact up to what is left of it at its edge, ``exp(-(length / (2 radius))^2 / 2)``.
    """

    def state(x: Sequence[Array]) -> Array:
        dx, dy = ((np.mod(xi - v * time, length) - length / 2) / radius for xi, v in zip(x, velocity, strict=True))
        square = dx**2 + dy**2
        swirl = strength / (2 * np.pi) * np.exp((1 - square) / 2)
        temperature = 1 - (gamma - 1) * strength**2 / (8 * gamma * np.pi**2) * np.exp(1 - square)
        density = temperature ** (1 / (gamma - 1))
        return np.stack([density, velocity[0] - swirl * dy, velocity[1] + swirl * dx, density * temperature])

    return state


@dataclass(frozen=True)
class Setup:
    """How initial data are drawn, in which dimensions, and with which values where the user gives none.

    ``constant`` names what is the same in every sample.
    """

    draw: Callable[[np.random.Generator, Any], State]
    dimensions: tuple[int, ...]
    defaults: Mapping[str, Any]
    constant: tuple[str, ...] = ()


_RIEMANN = dict(density=(0.1, 1.0), pressure=(0.1, 1.0), speed=1.0)
SETUPS = {
    "riemann": Setup(riemann, (1, 2, 3), dict(_RIEMANN, parts=2, amplitude=0.05, modes=2)),
    "curved_riemann": Setup(curved_riemann, (1, 2, 3), dict(_RIEMANN, parts=3, amplitude=0.05, modes=2)),
    "kelvin_helmholtz": Setup(
        kelvin_helmholtz,
        (2, 3),
        dict(density=(1.0, 2.0), pressure=(1.0, 1.0), speed=0.5, parts=1, amplitude=0.05, modes=10),
        constant=("velocity_y", "velocity_z"),
    ),
    "gaussian": Setup(
        gaussian, (2,), dict(density=(0.1, 0.1), pressure=(2.5, 2.5), speed=1.0, parts=100, amplitude=0.05, modes=2)
    ),
}
