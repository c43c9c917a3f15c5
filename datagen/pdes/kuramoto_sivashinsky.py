"""The Kuramoto-Sivashinsky equation: chaos in one dimension."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from datagen.evolve.family import Conserved
from datagen.evolve.fourier import Fourier
from datagen.evolve.spectral import Array, SpectralFamily, convective_step, periodic_field
from datagen.family import Field, Sample, register
from datagen.grids import Grid

_COURANT = 0.125


@register("kuramoto_sivashinsky")
@dataclass(frozen=True)
class KuramotoSivashinsky(SpectralFamily):
    """The Kuramoto-Sivashinsky equation on a periodic interval,

        u_t + u u_x + u_xx + u_xxxx = 0,    x in [0, length),

    dimensionless, at the points ``i length / grid``. Long waves (kappa < 1) are unstable and feed short ones; the state
    is chaotic from lengths of about 22 on, with ``|u| <= 4`` and a largest Lyapunov exponent of about 0.09, so errors
    grow tenfold in 25 units of time: no method follows one trajectory for hundreds of units, and longer data are
    statistics. The mean of u is conserved to rounding.

    Pseudo-spectral without aliasing; the step is at most ``0.125 h / max |u|`` (h the spacing) and 1/32: an error of
    the step of about 1e-6 at t = 20. Follows Kassam and Trefethen 2005 (SIAM J. Sci. Comput. 26, p. 1214: steps of 1/4,
    128 points of [0, 32 pi)), but for aliasing and step. The initial field is Gaussian with covariance proportional to
    ``(-d^2/dx^2 + tau^2)^(-alpha)``, without its mean.

    Parameters
    ----------
    grid : int
        Points.
    length : float
        Of the interval.
    alpha, tau, standard_deviation : float
        Of the initial field.
    final_time, frames : float, int
        Of a dataset: states at ``frames`` evenly spaced times from 0 on.
    step : float, optional
        Longest time step; shorter ones are taken where the rule above, or the accuracy of the frames, asks for them.

    Notes
    -----
    Good values: two points a unit of length (``grid = 2 length``) resolve u: what is left at t = 20, 1e-6, is the error
    of the step. Leave the first 100 units of time out if the data are to be from the attractor.

    Truth: no chaotic solution is known in closed form; the tests compare with an independent discretisation and
    integrator, and with the growth rates ``kappa^2 - kappa^4`` of small waves.

    Examples
    --------
    >>> family = KuramotoSivashinsky(grid=64, length=32.0)
    >>> sample = family.sample(np.random.default_rng(7))
    >>> family.evolve(family.initial(sample), [1.0, 2.0]).shape
    (2, 1, 64)
    """

    grid: int | tuple[int, ...] = 256
    length: float = 32 * np.pi
    alpha: float = 3.0
    tau: float = 0.5
    standard_deviation: float = 1.0
    final_time: float = 20.0
    frames: int = 21
    step: float | None = None

    title: ClassVar[str] = "Kuramoto-Sivashinsky, u_t + u u_x + u_xx + u_xxxx = 0, periodic"
    fields: ClassVar[tuple[Field, ...]] = (
        Field("initial_u", "input", "dimensionless", "u at time 0"),
        Field("u", "output", "dimensionless", "slope u of a flame front"),
    )

    def __post_init__(self) -> None:
        self._check(1, positive=("alpha", "standard_deviation"), finite=("tau",))
        self._check_field(self.alpha, self.tau)

    @property
    def mesh(self) -> Grid:
        """Points of the periodic interval."""
        return self._box(1)

    def sample(self, rng: np.random.Generator) -> Sample:
        """Draw an initial field."""
        return Sample({"initial_u": periodic_field(rng, self.mesh, self.alpha, self.tau, self.standard_deviation)})

    def linear(self, fourier: Fourier) -> Array:
        """``kappa^2 - kappa^4``."""
        return -(fourier.laplacian + fourier.laplacian**2)[None]

    def nonlinear(self, fourier: Fourier) -> Callable[[Array], Array]:
        """``-(u^2 / 2)_x``."""
        slope = -fourier.derivative(0) / 2
        return lambda v: slope * fourier.coefficients(fourier.values(v) ** 2)

    def conserved(self, states: Array, sample: Sample | None = None) -> dict[str, Conserved]:
        """u, to rounding."""
        return {"u": Conserved(self.channel(states, 0))}

    def longest_step(self, state: Array) -> float:
        """``min(0.125 h / max |u|, 1/32)``."""
        return min(convective_step(state, 1.0, self.mesh, _COURANT), 1 / 32)
