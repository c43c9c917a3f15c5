"""Linear advection: whatever there is moves on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from datagen.evolve.family import Conserved
from datagen.evolve.fourier import Fourier
from datagen.evolve.spectral import Array, SpectralFamily, periodic_field
from datagen.family import Field, Sample, register
from datagen.grids import Grid


@register("advection")
@dataclass(frozen=True)
class Advection(SpectralFamily):
    """Advection with constant velocity on a periodic box,

        u_t + c . grad u = 0,    x in [0, length)^d,    u(x, t) = u_0(x - c t),

    dimensionless, at the points ``i length / grid`` of every axis. The Fourier coefficients turn, ``c_k(t) = c_k(0)
    exp(-i kappa . c t)``, so every requested time is exact whatever the others are; no step is taken. (PDEBench's files
    of this equation, Takamoto et al. 2022, arXiv 2210.07182, come from a limited second-order scheme and differ from
    the exact solution where that smears.)

    The initial field is Gaussian with covariance proportional to ``(-Laplacian + tau^2)^(-alpha)``.

    Parameters
    ----------
    velocity : float or tuple of float
        c, the same along all axes or one entry each.
    grid : int or sequence of int
        Points per axis.
    length : float
        Of every axis.
    dimension : int
        d: 1, 2 or 3.
    alpha, tau, standard_deviation : float
        Of the initial field; alpha is more than d/2.
    final_time, frames : float, int
        Of a dataset: states at ``frames`` evenly spaced times from 0 on.

    Notes
    -----
    Good values: the defaults; PDEBench has speeds 0.1 to 7 on the unit interval until t = 2.

    Truth: `exact`, the initial field moved by c t, in 1 to 3 dimensions.

    Examples
    --------
    >>> family = Advection(velocity=0.25, grid=8)
    >>> x = family.mesh.coordinates(0)
    >>> states = family.evolve(np.sin(2 * np.pi * x)[None], [0.0, 1.0])
    >>> bool(np.allclose(states[1, 0], np.sin(2 * np.pi * (x - 0.25))))
    True
    """

    velocity: float | tuple[float, ...] = 1.0
    grid: int | tuple[int, ...] = 256
    length: float = 1.0
    dimension: int = 1
    alpha: float = 3.0
    tau: float = 10.0
    standard_deviation: float = 1.0
    final_time: float = 0.5
    frames: int = 21

    title: ClassVar[str] = "advection, u_t + c . grad u = 0, periodic"
    fields: ClassVar[tuple[Field, ...]] = (
        Field("initial_u", "input", "dimensionless", "u at time 0"),
        Field("u", "output", "dimensionless", "what is carried, u"),
    )

    def __post_init__(self) -> None:
        self._check(self.dimension, positive=("alpha", "standard_deviation"), finite=("tau",))
        if not isinstance(self.velocity, (int, float)):
            object.__setattr__(self, "velocity", tuple(float(c) for c in self.velocity))
        if len(self.velocities) != self.dimension or not np.isfinite(self.velocities).all():
            raise ValueError(
                f"advection: velocity must be one finite number or {self.dimension} of them (one per axis), "
                f"got {self.velocity!r}"
            )
        self._check_field(self.alpha, self.tau)

    @property
    def velocities(self) -> tuple[float, ...]:
        """c, one entry per axis."""
        return (self.velocity,) * self.dimension if isinstance(self.velocity, (int, float)) else self.velocity

    @property
    def mesh(self) -> Grid:
        """Points of the periodic box."""
        return self._box(self.dimension)

    def sample(self, rng: np.random.Generator) -> Sample:
        """Draw an initial field."""
        return Sample({"initial_u": periodic_field(rng, self.mesh, self.alpha, self.tau, self.standard_deviation)})

    def linear(self, fourier: Fourier) -> Array:
        """``-i kappa . c``."""
        turning = [-c * fourier.derivative(axis) for axis, c in enumerate(self.velocities)]
        return np.sum(np.broadcast_arrays(*turning), axis=0)[None]

    def conserved(self, states: Array, sample: Sample | None = None) -> dict[str, Conserved]:
        """u and u^2, to rounding: no amplitude changes."""
        u = self.channel(states, 0)
        return {"u": Conserved(u), "u_squared": Conserved(u**2)}

    def exact(self, sample: Sample, times: Sequence[float]) -> Array:
        """The exact solution, shape ``(times, 1, *grid)``: what `evolve` computes."""
        return self.evolve(self.initial(sample), times)
