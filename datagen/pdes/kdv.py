"""The Korteweg-de Vries equation: solitons, which pass through each other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import ellipj, ellipk

from datagen.evolve.family import Conserved
from datagen.evolve.fourier import Fourier
from datagen.evolve.spectral import Array, SpectralFamily, convective_step, periodic_field
from datagen.family import Field, Sample, register
from datagen.grids import Grid

_COURANT = 0.05


@register("kdv")
@dataclass(frozen=True)
class KdV(SpectralFamily):
    """The Korteweg-de Vries equation on a periodic interval,

        u_t + c u u_x + d u_xxx = 0,    x in [0, length),    c = convection, d = dispersion,

    dimensionless, at the points ``i length / grid``. Pseudo-spectral, without aliasing: of the integrals of u, u^2 and
    ``d u_x^2 / 2 - c u^3 / 6`` the first is conserved to rounding, the others to the error of the step.
    The dispersion is integrated exactly; the step is at most ``0.05 h / max |c u|``, from the current state, since
    solitons grow out of smooth fields to about three times their height. At t = 5 of the defaults that leaves an error
    of the step of about 1e-6. Rough initial fields (alpha = 3) lose the order, as the dispersion turns their short
    waves by many radians in a step; they take shorter ones, which leave 1e-5 of max |u| from frame to frame.

    Follows Kassam and Trefethen 2005 (SIAM J. Sci. Comput. 26, p. 1214), but for the aliasing, which theirs has. The
    initial field is Gaussian with covariance proportional to ``(-d^2/dx^2 + tau^2)^(-alpha)``, without its mean.

    Parameters
    ----------
    convection, dispersion : float
        c and d; (6, 1) is the equation of most textbooks, (1, 0.022^2) that of Zabusky and Kruskal 1965 (Phys. Rev.
        Lett. 15, eq. 1: length 2, u_0 = cos(pi x)), (1, 1) that of Kassam and Trefethen.
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
    Good values: a soliton of height a is about ``sqrt(12 d / (c a))`` wide (1 / its decay) and wants 6 points in that
    width for eight digits. The defaults give a handful of solitons on 256 points.

    Truth: `cnoidal_wave`, to 1e-8; invariants; an independent discretisation and integrator. There is no closed form
    for a drawn sample.

    Examples
    --------
    >>> family = KdV(grid=128, length=20.0)
    >>> wave = family.cnoidal_wave([0.0, 1.0], modulus=0.9, waves=2)
    >>> states = family.evolve(wave[0], [1.0])
    >>> bool(abs(states[0] - wave[1]).max() < 1e-8)
    True
    """

    convection: float = 6.0
    dispersion: float = 1.0
    grid: int | tuple[int, ...] = 256
    length: float = 50.0
    alpha: float = 6.0
    tau: float = 1.0
    standard_deviation: float = 0.5
    final_time: float = 5.0
    frames: int = 21
    step: float | None = None

    title: ClassVar[str] = "Korteweg-de Vries, u_t + c u u_x + d u_xxx = 0, periodic"
    fields: ClassVar[tuple[Field, ...]] = (
        Field("initial_u", "input", "dimensionless", "u at time 0"),
        Field("u", "output", "dimensionless", "elevation u"),
    )

    def __post_init__(self) -> None:
        self._check(1, positive=("alpha", "standard_deviation"), finite=("convection", "dispersion", "tau"))
        if self.convection == 0 or self.dispersion == 0:
            raise ValueError("kdv: convection and dispersion must not be zero (see Advection and Burgers)")
        self._check_field(self.alpha, self.tau)

    @property
    def mesh(self) -> Grid:
        """Points of the periodic interval."""
        return self._box(1)

    def sample(self, rng: np.random.Generator) -> Sample:
        """Draw an initial field."""
        return Sample({"initial_u": periodic_field(rng, self.mesh, self.alpha, self.tau, self.standard_deviation)})

    def linear(self, fourier: Fourier) -> Array:
        """``-d (i kappa)^3``."""
        return -self.dispersion * fourier.derivative(0)[None] ** 3

    def nonlinear(self, fourier: Fourier) -> Callable[[Array], Array]:
        """``-c (u^2 / 2)_x``."""
        slope = -self.convection / 2 * fourier.derivative(0)
        return lambda v: slope * fourier.coefficients(fourier.values(v) ** 2)

    def longest_step(self, state: Array) -> float:
        """``0.05 h / max |c u|``."""
        return convective_step(state, self.convection, self.mesh, _COURANT)

    def conserved(self, states: Array, sample: Sample | None = None) -> dict[str, Conserved]:
        """u, to rounding, and u^2, to the error of the step."""
        u = self.channel(states, 0)
        return {"u": Conserved(u), "u_squared": Conserved(u**2, tolerance=1e-3)}

    def cnoidal_wave(
        self, times: Sequence[float], *, modulus: float, waves: int = 1, trough: float = 0.0, shift: float = 0.0
    ) -> Array:
        """The periodic travelling wave of Korteweg and de Vries (1895), exact, shape ``(times, 1, *grid)``,

            u = trough + (12 d m k^2 / c) cn^2(k (x - shift - V t) | m),
            V = c trough + 4 d k^2 (2 m - 1),    k = 2 K(m) waves / length,    m = modulus^2.

        Parameters
        ----------
        times : sequence of float
        modulus : float
            Between 0 (a cosine of no height) and 1 (a soliton).
        waves : int
            Crests on the interval.
        trough : float
            u between the crests (below them where ``c d > 0``).
        shift : float
            Where a crest is at time 0.
        """
        if not 0 < modulus < 1:
            raise ValueError(f"kdv: modulus must lie between 0 and 1, got {modulus!r}")
        m = modulus**2
        k = 2 * float(ellipk(m)) * waves / self.length
        speed = self.convection * trough + 4 * self.dispersion * k**2 * (2 * m - 1)
        height = 12 * self.dispersion * m * k**2 / self.convection
        x = self.mesh.coordinates(0) - shift
        phase = k * (x - speed * np.asarray(times, dtype=float)[:, None])
        # Within one period of cn^2, where the elliptic functions are most accurate.
        period = 2 * float(ellipk(m))
        crest = ellipj(phase - period * np.round(phase / period), m)[1]
        return (trough + height * crest**2)[:, None]
