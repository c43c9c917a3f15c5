"""Burgers' equation: the simplest meeting of steepening and diffusion."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from datagen.evolve.family import Conserved
from datagen.evolve.fourier import Fourier
from datagen.evolve.spectral import Array, SpectralFamily, convective_step, periodic_field
from datagen.family import Field, Sample, register
from datagen.grids import Grid

_COURANT = 0.25
_LARGEST_PECLET = 3.0  # max |u| h / nu of a grid that is not too coarse for its shocks


@register("burgers")
@dataclass(frozen=True)
class Burgers(SpectralFamily):
    """Viscous Burgers' equation on a periodic interval,

        u_t + (u^2 / 2)_x = nu u_xx,    x in [0, length),

    dimensionless, at the points ``i length / grid``. Pseudo-spectral, without aliasing; the mean of u is conserved to
    rounding. The step is at most ``0.25 h / max |u|`` (h the spacing, or ``3 nu / max |u|`` if that is less): never
    does ``|u|`` exceed its first maximum, so what is stable at first stays so. Where shocks are resolved, its error is
    of the size of the grid's or below; where they are not, it is still the step's that is below 1e-5 of ``max |u|``
    between frames.

    The initial field is Gaussian with covariance proportional to ``(-d^2/dx^2 + tau^2)^(-alpha)``. The defaults are
    those of Li et al. 2021 (Fourier Neural Operator, section 5.1), N(0, 625 (-Laplacian + 25)^-2), drawn by wavenumber;
    their nu is 0.1. Their published script (gamma = 2.5, tau = 7, sigma = 49, nu = 1e-3) makes another set than the one
    they distribute.

    Parameters
    ----------
    nu : float
        Viscosity.
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
    Good values: shocks are about ``4 nu / jump`` wide and want 8 points for eight digits, so ``grid = 4 length / nu``
    for jumps of 2: nu = 0.1 with 128 points, 0.01 with 512, 0.001 with 4096 on the unit interval differ from `exact` by
    2e-9 or less.

    Truth: `exact`, by the transformation of Cole 1951 and Hopf 1950, to 1e-10 at the sharpest shock of ``-sin(pi x)``
    with nu = 0.01/pi; closed forms of periodic waves.

    Examples
    --------
    >>> family = Burgers(nu=0.05, grid=128)
    >>> sample = family.sample(np.random.default_rng(7))
    >>> states = family.evolve(family.initial(sample), [0.5, 1.0])
    >>> states.shape
    (2, 1, 128)
    >>> bool(abs(states - family.exact(sample, [0.5, 1.0])).max() < 1e-7)
    True
    """

    nu: float = 0.01
    grid: int | tuple[int, ...] = 512
    length: float = 1.0
    alpha: float = 2.0
    tau: float = 5.0
    standard_deviation: float = 1.16
    final_time: float = 1.0
    frames: int = 21
    step: float | None = None

    title: ClassVar[str] = "Burgers' equation, u_t + (u^2/2)_x = nu u_xx, periodic"
    fields: ClassVar[tuple[Field, ...]] = (
        Field("initial_u", "input", "dimensionless", "u at time 0"),
        Field("u", "output", "dimensionless", "velocity u"),
    )

    def __post_init__(self) -> None:
        self._check(1, positive=("nu", "alpha", "standard_deviation"))
        self._check_field(self.alpha, self.tau, zero_mean=False)

    @property
    def mesh(self) -> Grid:
        """Points of the periodic interval."""
        return self._box(1)

    def sample(self, rng: np.random.Generator) -> Sample:
        """Draw an initial field."""
        field = periodic_field(rng, self.mesh, self.alpha, self.tau, self.standard_deviation, zero_mean=False)
        return Sample({"initial_u": field})

    def linear(self, fourier: Fourier) -> Array:
        """``-nu kappa^2``."""
        return self.nu * fourier.laplacian[None]

    def nonlinear(self, fourier: Fourier) -> Callable[[Array], Array]:
        """``-(u^2 / 2)_x``."""
        slope = -fourier.derivative(0) / 2
        return lambda v: slope * fourier.coefficients(fourier.values(v) ** 2)

    def longest_step(self, state: Array) -> float:
        """``0.25 h / max |u|``, h not more than ``3 nu / max |u|``."""
        fastest = float(np.max(np.abs(state)))
        peclet = fastest * self.mesh.spacing[0] / self.nu
        return convective_step(state, 1.0, self.mesh, _COURANT * min(1.0, _LARGEST_PECLET / max(peclet, 1e-300)))

    def conserved(self, states: Array, sample: Sample | None = None) -> dict[str, Conserved]:
        """u, to rounding: the flux through the periodic ends is the same."""
        return {"u": Conserved(self.channel(states, 0))}

    def bounds(self, sample: Sample) -> dict[str, tuple[float, float]]:
        """The range of the initial field: no extremum grows (maximum principle).

        One per cent of it is left to the scheme; oscillations beyond that are shocks that the grid does not resolve.
        """
        low, high = self._range(self.initial(sample), oversampling=8)
        return {"u": (low - 0.01 * (high - low), high + 0.01 * (high - low))}

    def exact(self, sample: Sample, times: Sequence[float]) -> Array:
        """The exact solution at positive times, shape ``(times, 1, *grid)``, of the initial field's polynomial.

        With the mean m of u_0, ``w = u - m`` in the frame that moves with it, and ``Phi(y)`` an integral of w_0,

            w(x, t) = integral of (x - y)/t exp(-G/(2 nu)) dy / integral of exp(-G/(2 nu)) dy,
            G = Phi(y) + (x - y)^2 / (2 t)

        (Cole 1951, Q. Appl. Math. 9; Hopf 1950, Commun. Pure Appl. Math. 3). The integrands are
        analytic and decay like Gaussians, so the trapezoidal rule converges geometrically; the exponents are taken
        relative to their largest before anything is exponentiated (Gauss-Hermite with its nodes at x overflows: the
        weight sits where ``x - y = t w_0(y)``). The rule's spacing is a quarter of the smallest width that G allows and
        an eighth of the grid's, which leaves rounding.
        """
        fourier, u = self.fourier, self.initial(sample)[0]
        v = fourier.coefficients(u)
        mean, v = float(v[0].real), np.concatenate([[0], v[1:]])
        kappa = fourier.wavenumber(0)
        potential = np.concatenate([[0], v[1:] / (1j * kappa[1:])])
        peak, steepest = float(np.max(np.abs(u - mean))), float(np.sum(2 * np.abs(kappa * v)))
        return np.stack([self._cole_hopf(t, mean, potential, peak, steepest) for t in times])[:, None]

    def _cole_hopf(self, t: float, mean: float, potential: Array, peak: float, steepest: float) -> Array:
        if not t > 0:
            raise ValueError(f"burgers: exact solutions are for positive times, got {t!r}")
        # G'' = w_0' + 1/t is at most this; exp(-G/(2 nu)) is nowhere narrower than the Gaussian it belongs to.
        narrowest = math.sqrt(2 * self.nu / (steepest + 1 / t))
        count = self.mesh.shape[0] * math.ceil(max(8, 4 * self.mesh.spacing[0] / narrowest))
        spacing = self.length / count
        phase = np.fft.irfft(np.concatenate([potential, np.zeros(count // 2 + 1 - potential.size)]), count) * count
        # Beyond |x - y| = t peak the exponent falls at least as a Gaussian does; 1e-18 is reached within this distance.
        reach = math.ceil((t * peak + math.sqrt(4 * self.nu * t * 42)) / spacing) + 1
        offset = np.arange(-reach, reach + 1)
        y = offset * spacing
        solution = np.empty(self.mesh.shape[0])
        for i, x in enumerate(self.mesh.coordinates(0) - mean * t):
            nearest = round(x / spacing)
            distance = x - (nearest * spacing + y)
            exponent = -(phase[(nearest + offset) % count] + distance**2 / (2 * t)) / (2 * self.nu)
            weight = np.exp(exponent - exponent.max())
            solution[i] = mean + (weight @ distance) / (t * weight.sum())
        return solution
