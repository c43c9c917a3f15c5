"""The FitzHugh-Nagumo equations: an activator, an inhibitor, and the patterns of Turing."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from datagen.evolve.fourier import Fourier
from datagen.evolve.spectral import Array, SpectralFamily, periodic_field
from datagen.family import Field, Sample, register
from datagen.grids import Grid

_STEP = 0.1


@register("fitzhugh_nagumo")
@dataclass(frozen=True)
class FitzHughNagumo(SpectralFamily):
    """The FitzHugh-Nagumo equations on a periodic box,

        u_t = diffusivity_u lap u + u - u^3 - k - v
        v_t = diffusivity_v lap v + u - v,    x in [0, length)^d,

    dimensionless, at the points ``i length / grid`` of every axis. u is the activator, v the inhibitor.

    The reaction is that of PDEBench (Takamoto et al. 2022, arXiv 2210.07182, its 2D diffusion-reaction: k = 5e-3,
    diffusivities 1e-3 and 5e-3, [-1, 1]^2 on 128^2, until t = 5, 101 frames), with two differences: their boundary is
    closed (Neumann), ours periodic; and their initial fields are white noise, which has no meaning without a grid, ours
    Gaussian with covariance proportional to ``(-Laplacian + tau^2)^(-alpha)``, drawn by wavenumber.

    Pseudo-spectral, cubic products without aliasing; the step is at most ``0.1 / max(1, max u^2)``.

    Parameters
    ----------
    threshold : float
        k.
    diffusivity_u, diffusivity_v : float
        Positive.
    grid : int or sequence of int
        Points per axis.
    length : float
        Of every axis.
    dimension : int
        d: 1, 2 or 3.
    alpha, tau, standard_deviation : float
        Of both initial fields; alpha is more than d/2.
    final_time, frames : float, int
        Of a dataset: states at ``frames`` evenly spaced times from 0 on.
    step : float, optional
        Longest time step; shorter ones are taken where the rule above, or the accuracy of the frames, asks for them.

    Notes
    -----
    Good values: the defaults; at t = 5 they agree with twice the points and half the step to 2e-7, 64^2 points to 1e-4.

    Truth: uniform states follow ordinary differential equations; the tests compare with an independent discretisation
    and integrator.

    Examples
    --------
    >>> family = FitzHughNagumo(grid=32)
    >>> sample = family.sample(np.random.default_rng(7))
    >>> family.evolve(family.initial(sample), [1.0, 2.0]).shape
    (2, 2, 32, 32)
    """

    threshold: float = 5e-3
    diffusivity_u: float = 1e-3
    diffusivity_v: float = 5e-3
    grid: int | tuple[int, ...] = 128
    length: float = 2.0
    dimension: int = 2
    alpha: float = 3.0
    tau: float = 15.0
    standard_deviation: float = 1.0
    final_time: float = 5.0
    frames: int = 21
    step: float | None = None

    title: ClassVar[str] = "FitzHugh-Nagumo, an activator and an inhibitor, periodic"
    fields: ClassVar[tuple[Field, ...]] = (
        Field("initial_u", "input", "dimensionless", "u at time 0"),
        Field("initial_v", "input", "dimensionless", "v at time 0"),
        Field("u", "output", "dimensionless", "activator u"),
        Field("v", "output", "dimensionless", "inhibitor v"),
    )
    degree: ClassVar[int] = 3

    def __post_init__(self) -> None:
        positive = ("diffusivity_u", "diffusivity_v", "alpha", "standard_deviation")
        self._check(self.dimension, positive=positive, finite=("threshold", "tau"))
        self._check_field(self.alpha, self.tau)

    @property
    def mesh(self) -> Grid:
        """Points of the periodic box."""
        return self._box(self.dimension)

    def sample(self, rng: np.random.Generator) -> Sample:
        """Draw two independent initial fields."""
        u, v = (periodic_field(rng, self.mesh, self.alpha, self.tau, self.standard_deviation) for _ in range(2))
        return Sample({"initial_u": u, "initial_v": v})

    def linear(self, fourier: Fourier) -> Array:
        """``-diffusivity |kappa|^2`` plus 1 for u, less 1 for v."""
        laplacian = fourier.laplacian
        return np.stack([self.diffusivity_u * laplacian + 1, self.diffusivity_v * laplacian - 1])

    def nonlinear(self, fourier: Fourier) -> Callable[[Array], Array]:
        """``(-u^3 - k - v, u)``; the coupling, which is not diagonal, is here."""
        channel = -1 - self.dimension
        mean: Any = (..., 0, *(0,) * self.dimension)

        def reaction(coefficients: Array) -> Array:
            u, v = np.moveaxis(coefficients, channel, 0)
            change = np.stack([-fourier.coefficients(fourier.values(u) ** 3) - v, u], axis=channel)
            change[mean] -= self.threshold
            return change

        return reaction

    def longest_step(self, state: Array) -> float:
        """``0.1 / max(1, max u^2)``."""
        u = np.moveaxis(state, -1 - self.dimension, 0)[0]
        return _STEP / max(1.0, float(np.max(u**2)))
