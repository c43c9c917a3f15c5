"""Shallow water: dams that break, and waves over a bottom."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from datagen.evolve.family import Conserved
from datagen.evolve.hllc import ShallowWaterLaw
from datagen.evolve.hyperbolic import VELOCITIES, Array, HyperbolicFamily
from datagen.evolve.spectral import periodic_field
from datagen.family import Field, Sample, register

SETUPS = ("radial_dam_break", "smooth")


@register("shallow_water")
@dataclass(frozen=True)
class ShallowWater(HyperbolicFamily):
    """The shallow water equations over a bottom b,

        h_t + div(h v) = 0
        (h v)_t + div(h v v) + grad(gravity h^2 / 2) = -gravity h grad b,    x in [0, length]^d,

    dimensionless, by averages over cells: depth h and velocity v; the surface is ``h + b``.

    Second-order finite volumes with limited slopes, HLLC and Heun's method at a Courant number of 1/2
    (`datagen.evolve.hllc`, `datagen.evolve.finite_volume`); the bottom by hydrostatic reconstruction, which keeps a
    lake at rest to rounding. Depths stay positive; dry beds are refused.

    Initial data, at rest but for what is said, drawn independently of the grid:

        radial_dam_break  depth `inner` within a radius uniform in the range `radius` about the middle of the box,
                          `outer` outside, averaged over the cells (midpoint rule on 4 subcells per axis): the set of
                          PDEBench (Takamoto et al. 2022, arXiv 2210.07182, appendix D.4), there on [-2.5, 2.5]^2,
                          101 frames until time 1, of which it keeps the depth; its solver is PyClaw's with Roe's fluxes
        smooth            ``h = (outer - b) exp(standard_deviation g)``, g a periodic Gaussian field of variance 1 with
                          covariance proportional to ``(-Laplacian + tau^2)^(-alpha)``

    The bottom is flat, or ``b = bottom_height / (1 + exp(-g'))``, g' another such field; in a radial dam break it is
    taken off the depth. A sample whose field "bottom" is an array of one's own is solved over that.

    Parameters
    ----------
    setup : str
        "radial_dam_break" or "smooth".
    gravity : float
    inner, outer : float
        Depths where the bottom is zero.
    radius : pair of float
        Range of the dam's radius.
    grid : int or sequence of int
        Cells per axis.
    dimension : int
        d: 1 or 2.
    length : float
        Of every axis.
    sides : str or sequence of str
        "periodic", "outflow" (zero gradient) or "wall" (reflecting), one for all axes or one per axis.
    bottom_height : float
        Below `outer`; 0 for a flat bottom.
    standard_deviation, alpha, tau : float
        Of the smooth fields; alpha is more than d/2, tau in units of 1 over length.
    final_time, frames : float, int
        Of a dataset: states at `frames` evenly spaced times from 0 on.
    courant : float
        Courant number of the steps, at most 1 (`FiniteVolume`); positivity is sure up to 1/2.

    Notes
    -----
    Good values: the defaults are PDEBench's; ``setup="smooth", sides="periodic", bottom_height=0.5`` has waves over a
    bottom which are smooth until time 2 at least: then depths on 128^2 cells and on 256^2 differ by 2e-4 on average.

    Truth: the broken dam of Stoker 1957 (Water Waves, section 10.8), lakes at rest, conservation, order 2 over a smooth
    bottom, an independent code of the same scheme (`datagen.finite_volume_checks`).

    Examples
    --------
    >>> family = ShallowWater(grid=32)
    >>> sample = family.sample(np.random.default_rng(7))
    >>> states = family.evolve(family.initial(sample), [0.5, 1.0], sample)
    >>> states.shape
    (2, 3, 32, 32)
    """

    setup: str = "radial_dam_break"
    gravity: float = 1.0
    inner: float = 2.0
    outer: float = 1.0
    radius: tuple[float, float] = (0.3, 0.7)
    grid: int | tuple[int, ...] = 128
    dimension: int = 2
    length: float = 5.0
    sides: str | tuple[str, ...] = "outflow"
    bottom_height: float = 0.0
    standard_deviation: float = 0.1
    alpha: float = 4.0
    tau: float = 10.0
    final_time: float = 1.0
    frames: int = 101
    courant: float = 0.5

    title: ClassVar[str] = "Shallow water over a flat or a given bottom, one or two dimensions"
    fields: ClassVar[tuple[Field, ...]] = ()  # by dimension and bottom, below

    def __post_init__(self) -> None:
        if self.setup not in SETUPS:
            raise ValueError(f"shallow_water: setup must be one of {', '.join(SETUPS)}, got {self.setup!r}")
        self._check(positive=("gravity", "inner", "outer", "standard_deviation", "alpha", "tau"))
        if self.dimension == 3:
            raise ValueError("shallow_water: dimension must be 1 or 2, got 3")
        if not 0 <= self.bottom_height < min(self.inner, self.outer):
            raise ValueError(
                f"shallow_water: bottom_height must lie in [0, {min(self.inner, self.outer):g}), below the surface, "
                f"got {self.bottom_height!r}"
            )
        low, high = (float(value) for value in self.radius)
        if not 0 < low <= high < np.inf:
            raise ValueError(f"shallow_water: radius must be two positive numbers that increase, got {self.radius!r}")
        object.__setattr__(self, "radius", (low, high))
        names = {"depth": "depth h", **{v: f"velocity along {v[-1]}" for v in VELOCITIES[: self.dimension]}}
        initial = [  # at rest
            Field(f"initial_{n}", "input" if n == "depth" else "constant", "dimensionless", f"{says} at time 0")
            for n, says in names.items()
        ]
        bottom = [Field("bottom", "input", "dimensionless", "height of the bottom b")] if self.bottom_height > 0 else []
        outputs = [Field(n, "output", "dimensionless", says) for n, says in names.items()]
        object.__setattr__(self, "fields", (*initial, *bottom, *outputs))

    @property
    def law(self) -> ShallowWaterLaw:
        """Depth and momenta over a bottom, with HLLC."""
        return ShallowWaterLaw(self.dimension, self.gravity)

    def _complete(self, state: Array, sample: Sample | None) -> Array:
        given = sample is not None and "bottom" in sample.fields
        bottom = self.values(sample, "bottom") if sample is not None and given else np.zeros(self.mesh.shape)
        return np.concatenate([state, bottom[None]])

    def sample(self, rng: np.random.Generator) -> Sample:
        """Draw a surface, and a bottom where it is not flat."""
        bottom_rng, surface_rng = rng.spawn(2)
        bottom = np.zeros(self.mesh.shape)
        if self.bottom_height > 0:
            bottom = self.bottom_height / (1 + np.exp(-self._smooth(bottom_rng, 1.0)))
        if self.setup == "smooth":
            depth = (self.outer - bottom) * np.exp(self._smooth(surface_rng, self.standard_deviation))
        else:
            depth = self.dam(float(surface_rng.uniform(*self.radius))) - bottom
        fields = {"initial_depth": depth}
        for name in VELOCITIES[: self.dimension]:
            fields[f"initial_{name}"] = np.zeros(self.mesh.shape)
        return Sample({**fields, "bottom": bottom} if self.bottom_height > 0 else fields)

    def dam(self, radius: float) -> Array:
        """Cell averages of `inner` within a radius about the middle of the box and `outer` outside."""

        def levels(x: Sequence[Array]) -> Array:
            square = sum((xi - self.length / 2) ** 2 for xi in x)
            level = np.where(square < radius**2, self.inner, self.outer)
            return np.stack([level, *[np.zeros_like(level)] * (self.dimension + 1)])

        return np.asarray(self._averages(levels)[0])

    def conserved(self, states: Array, sample: Sample | None = None) -> dict[str, Conserved]:
        """Densities ``(..., *grid)`` whose means do not change, of states ``(..., channels, *grid)``.

        The depth between walls or in a periodic box, and momenta in a periodic box with a flat bottom.
        """
        if "outflow" in self._side_names():
            return {}
        depth, *velocity = np.moveaxis(states, -1 - self.dimension, 0)
        flat = sample is None or not np.any(sample.fields.get("bottom", 0.0))
        if self.bottom_height > 0 or not flat or "wall" in self._side_names():
            return {"mass": Conserved(depth)}
        momenta = {
            name.replace("velocity", "momentum"): Conserved(depth * v)
            for name, v in zip(VELOCITIES, velocity, strict=False)
        }
        return {"mass": Conserved(depth), **momenta}

    def _smooth(self, rng: np.random.Generator, standard_deviation: float) -> Array:
        return periodic_field(rng, self.mesh, self.alpha, self.tau / self.length, standard_deviation)
