"""Two-dimensional incompressible flow, by its vorticity."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from datagen.evolve.family import Conserved
from datagen.evolve.fourier import Fourier
from datagen.evolve.spectral import Array, SpectralFamily, convective_step, periodic_field
from datagen.family import Field, Sample, register
from datagen.grids import Grid

FORCINGS = ("fno", "kolmogorov", "none")
_COURANT = 0.25


@register("navier_stokes")
@dataclass(frozen=True)
class NavierStokes(SpectralFamily):
    """The incompressible Navier-Stokes equations on a periodic square, in vorticity form,

        w_t + u . grad w = nu lap w - drag w + f,    u = (psi_y, -psi_x),    -lap psi = w,    x in [0, length)^2,

    dimensionless, at the points ``i length / grid`` of both axes; the mean velocity and the mean vorticity are zero.
    The forcing f is

        fno         a (sin 2 pi (x + y)/length + cos 2 pi (x + y)/length)     (Li et al. 2021, a = 0.1)
        kolmogorov  -a kappa cos(kappa y), the curl of (a sin(kappa y), 0), kappa = 2 pi waves / length
                    (Kochkov et al. 2021, PNAS 118: a = 1, waves 4, drag 0.1, length 2 pi)
        none        0

    Convection is computed as ``(d_xx - d_yy)(u v) + d_x d_y (v^2 - u^2)`` (Basdevant 1983, J. Comput. Phys. 50, p. 209:
    four transforms instead of five), pseudo-spectral without aliasing: with nu = drag = 0 and no forcing, energy and
    enstrophy are conserved up to the error of the step (order 4 or better). The step is at most
    ``0.25 h / max |u|`` (h the spacing, u the current velocity), and shorter where the grid does not resolve the flow:
    from frame to frame steps leave at most 2e-5 of the largest vorticity.

    The initial vorticity is Gaussian with covariance proportional to ``(-lap + tau^2)^(-alpha)``. The defaults are
    those of Li et al. 2021 (Fourier Neural Operator, section 5.3), N(0, 7^(3/2) (-lap + 49)^-2.5) on the unit square,
    with the factor of their published script, 7^3, which gives the standard deviation 0.185 (the paper's gives 0.043).
    Two differences: fields are drawn by wavenumber, and the time integrator is of fourth order where theirs
    (Crank-Nicolson and explicit Euler, steps of 1e-4) is of first.

    Parameters
    ----------
    nu : float
        Viscosity, 0 or more.
    forcing : str
        "fno", "kolmogorov" or "none".
    amplitude : float
        a.
    waves : int
        Of the Kolmogorov forcing along y.
    drag : float
        Linear friction, 0 or more.
    grid : int or sequence of int
        Points per axis.
    length : float
        Of both axes.
    alpha, tau, standard_deviation : float
        Of the initial vorticity; alpha is more than 1.
    final_time, frames : float, int
        Of a dataset: states at ``frames`` evenly spaced times from 0 on.
    step : float, optional
        Longest time step; shorter ones are taken where the rule above, or the accuracy of the frames, asks for them.

    Notes
    -----
    Good values: nu = 1e-3 on 64^2 until t = 50, 1e-4 on 128^2 until 30, 1e-5 on 256^2 until 20 (Li et al. generate
    all on 256^2).

    Accuracy: with the defaults, samples at t = 10 and 50 agree with runs of twice the resolution and half the step to
    4e-9, relative in l2, all of it the error of the step.

    Truth: Taylor-Green vortices and every other sum of waves with one ``|kappa|`` decay without interaction; an
    independent velocity-flux discretisation with scipy's integrator; runs at twice the resolution.

    Examples
    --------
    >>> family = NavierStokes(nu=1e-2, grid=32)
    >>> sample = family.sample(np.random.default_rng(7))
    >>> states = family.evolve(family.initial(sample), [0.5, 1.0])
    >>> states.shape
    (2, 1, 32, 32)
    >>> family.velocity(states).shape
    (2, 2, 32, 32)
    """

    nu: float = 1e-3
    forcing: str = "fno"
    amplitude: float = 0.1
    waves: int = 4
    drag: float = 0.0
    grid: int | tuple[int, ...] = 64
    length: float = 1.0
    alpha: float = 2.5
    tau: float = 7.0
    standard_deviation: float = 0.185
    final_time: float = 50.0
    frames: int = 51
    step: float | None = None

    accuracy: ClassVar[float] = 2e-5  # what the steps leave grows within an interval, most in flows no grid resolves
    title: ClassVar[str] = "Navier-Stokes, w_t + u . grad w = nu lap w - drag w + f, periodic, two dimensions"
    fields: ClassVar[tuple[Field, ...]] = (
        Field("initial_vorticity", "input", "dimensionless", "vorticity at time 0"),
        Field("vorticity", "output", "dimensionless", "vorticity w"),
    )

    def __post_init__(self) -> None:
        self._check(2, positive=("alpha", "standard_deviation"), finite=("nu", "drag", "amplitude", "tau"))
        for name in ("nu", "drag"):
            if getattr(self, name) < 0:
                raise ValueError(f"navier_stokes: {name} must not be negative, got {getattr(self, name)!r}")
        if self.forcing not in FORCINGS:
            raise ValueError(f"navier_stokes: forcing must be one of {', '.join(FORCINGS)}, got {self.forcing!r}")
        if self.waves < 1:
            raise ValueError(f"navier_stokes: waves must be at least 1, got {self.waves!r}")
        self._check_field(self.alpha, self.tau)

    @property
    def mesh(self) -> Grid:
        """Points of the periodic square."""
        return self._box(2)

    def sample(self, rng: np.random.Generator) -> Sample:
        """Draw an initial vorticity."""
        field = periodic_field(rng, self.mesh, self.alpha, self.tau, self.standard_deviation)
        return Sample({"initial_vorticity": field})

    def force(self) -> Array:
        """f at the points of the grid."""
        x, y = self.mesh.points()
        if self.forcing == "fno":
            phase = 2 * math.pi * (x + y) / self.length
            return self.amplitude * (np.sin(phase) + np.cos(phase))
        if self.forcing == "kolmogorov":
            kappa = 2 * math.pi * self.waves / self.length
            return -self.amplitude * kappa * np.cos(kappa * y)
        return np.zeros(self.mesh.shape)

    def linear(self, fourier: Fourier) -> Array:
        """``-nu |kappa|^2 - drag``."""
        return (self.nu * fourier.laplacian - self.drag)[None]

    def nonlinear(self, fourier: Fourier) -> Callable[[Array], Array]:
        """``-(d_xx - d_yy)(u v) - d_x d_y (v^2 - u^2) + f``."""
        to_velocity = self._velocity_symbol(fourier)
        dx, dy = fourier.derivative(0), fourier.derivative(1)
        shear, stretch = -(dx**2 - dy**2), -dx * dy
        f = fourier.coefficients(self.force())

        def convection(w: Array) -> Array:
            velocity = fourier.values(to_velocity * w)
            u, v = velocity[..., 0, :, :], velocity[..., 1, :, :]
            products = fourier.coefficients(np.stack([u * v, (v - u) * (v + u)], axis=-3))
            return (shear * products[..., 0, :, :] + stretch * products[..., 1, :, :] + f)[..., None, :, :]

        return convection

    @staticmethod
    def _velocity_symbol(fourier: Fourier) -> Array:
        """``(d_y, -d_x) (-lap)^-1``, zero for the mean; shape ``(2, *modes)``."""
        square = -fourier.laplacian
        square[0, 0] = 1
        return np.stack(np.broadcast_arrays(fourier.derivative(1), -fourier.derivative(0))) / square

    def velocity(self, vorticity: Array) -> Array:
        """Velocities ``(..., 2, *grid)`` of vorticities ``(..., 1, *grid)``."""
        fourier = self.fourier
        symbol = self._velocity_symbol(fourier)
        return fourier.values(symbol * fourier.coefficients(vorticity), self.mesh.shape)

    def conserved(self, states: Array, sample: Sample | None = None) -> dict[str, Conserved]:
        """The vorticity, to rounding, where there is no drag; without viscosity and forcing its square too."""
        if self.drag > 0:
            return {}
        w = self.channel(states, 0)
        if self.nu > 0 or self.forcing != "none":
            return {"vorticity": Conserved(w)}
        return {"vorticity": Conserved(w), "enstrophy": Conserved(w**2, tolerance=1e-3)}

    def longest_step(self, state: Array) -> float:
        """``0.25 h / max |u|``, the larger component of the velocity."""
        return convective_step(self.velocity(state), 1.0, self.mesh, _COURANT)
