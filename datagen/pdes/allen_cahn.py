"""The Allen-Cahn equation: two phases and the interfaces between them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from datagen.evolve.fourier import Fourier
from datagen.evolve.spectral import Array, SpectralFamily, periodic_field
from datagen.family import Field, Sample, register
from datagen.grids import Grid

_STEP = 0.1


@register("allen_cahn")
@dataclass(frozen=True)
class AllenCahn(SpectralFamily):
    """The Allen-Cahn equation on a periodic box,

        u_t = diffusivity lap u + rate (u - u^3),    x in [0, length)^d,

    dimensionless, at the points ``i length / grid`` of every axis. It is the gradient flow of the energy
    ``integral of diffusivity |grad u|^2 / 2 + rate (1 - u^2)^2 / 4``, which therefore never grows; values between -1
    and 1 stay there. Interfaces are about ``2 sqrt(2 diffusivity / rate)`` wide and move by their curvature.

    Pseudo-spectral, cubic products without aliasing; the step is at most ``0.1 / (rate max(1, max u^2))``.
    The initial field is Gaussian with covariance proportional to ``(-Laplacian + tau^2)^(-alpha)``; the usual datasets
    draw it small (0.1), so that both phases appear out of it. After Allen and Cahn 1979, Acta Metall. 27, p. 1085.

    Parameters
    ----------
    diffusivity, rate : float
        Positive.
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
    step : float, optional
        Longest time step; shorter ones are taken where the rule above, or the accuracy of the frames, asks for them.

    Notes
    -----
    Good values: 4 points in the width of an interface give five digits, 8 give ten; the step of the rule has 2e-6. The
    defaults until t = 10; the one-dimensional benchmark of physics-informed networks is diffusivity 1e-4, rate 5,
    length 2, 512 points.

    Truth: uniform states follow an ordinary differential equation with a closed form; in one dimension there are steady
    states by Jacobi's sn; the energy never grows; an independent discretisation and integrator.

    Examples
    --------
    >>> family = AllenCahn(grid=32, dimension=2)
    >>> sample = family.sample(np.random.default_rng(7))
    >>> states = family.evolve(family.initial(sample), [1.0, 2.0])
    >>> bool(abs(states).max() < 1.0)
    True
    """

    diffusivity: float = 1e-3
    rate: float = 1.0
    grid: int | tuple[int, ...] = 128
    length: float = 1.0
    dimension: int = 2
    alpha: float = 3.0
    tau: float = 15.0
    standard_deviation: float = 0.1
    final_time: float = 10.0
    frames: int = 21
    step: float | None = None

    title: ClassVar[str] = "Allen-Cahn, u_t = diffusivity lap u + rate (u - u^3), periodic"
    fields: ClassVar[tuple[Field, ...]] = (
        Field("initial_u", "input", "dimensionless", "u at time 0"),
        Field("u", "output", "dimensionless", "order parameter u"),
    )
    degree: ClassVar[int] = 3

    def __post_init__(self) -> None:
        positive = ("diffusivity", "rate", "alpha", "standard_deviation")
        self._check(self.dimension, positive=positive, finite=("tau",))
        self._check_field(self.alpha, self.tau)

    @property
    def mesh(self) -> Grid:
        """Points of the periodic box."""
        return self._box(self.dimension)

    def sample(self, rng: np.random.Generator) -> Sample:
        """Draw an initial field."""
        return Sample({"initial_u": periodic_field(rng, self.mesh, self.alpha, self.tau, self.standard_deviation)})

    def linear(self, fourier: Fourier) -> Array:
        """``-diffusivity |kappa|^2 + rate``."""
        return (self.diffusivity * fourier.laplacian + self.rate)[None]

    def nonlinear(self, fourier: Fourier) -> Callable[[Array], Array]:
        """``-rate u^3``."""
        return lambda v: -self.rate * fourier.coefficients(fourier.values(v) ** 3)

    def bounds(self, sample: Sample) -> dict[str, tuple[float, float]]:
        """The largest initial ``|u|`` or 1, whichever is more, and five per cent that are left to the scheme.

        On 16^2 points interfaces overshoot by 3 %, on 32^2 by less than 1 %.
        """
        most = 1.05 * max(1.0, *map(abs, self._range(self.initial(sample), oversampling=2)))
        return {"u": (-most, most)}

    def longest_step(self, state: Array) -> float:
        """``0.1 / (rate max(1, max u^2))``."""
        return _STEP / (self.rate * max(1.0, float(np.max(state**2))))
