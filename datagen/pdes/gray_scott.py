"""The Gray-Scott reaction: spots that divide, worms, and mazes."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from datagen.evolve.fourier import Fourier
from datagen.evolve.spectral import Array, SpectralFamily, periodic_field
from datagen.family import Field, Sample, register
from datagen.grids import Grid

_STEP = 0.25


@register("gray_scott")
@dataclass(frozen=True)
class GrayScott(SpectralFamily):
    """The Gray-Scott reaction on a periodic box,

        a_t = diffusivity_a lap a - a b^2 + feed (1 - a)
        b_t = diffusivity_b lap b + a b^2 - (feed + kill) b,    x in [0, length)^d,

    dimensionless, at the points ``i length / grid`` of every axis; a is fed and eaten, b eats and is removed. The state
    ``(1, 0)`` is stable, and patterns grow where b is pushed far enough from it.

    Pseudo-spectral, cubic products without aliasing; the step is at most ``0.25 / max(b^2, 2 |a b|, feed + kill)`` over
    the grid, a quarter of the time of the fastest reaction (about 0.8).

    Initial fields: ``g = exp(-s^2)`` of a Gaussian field s with covariance proportional to
    ``(-Laplacian + tau^2)^(-alpha)`` and standard deviation `contrast`; ``a = 1 - g/2``, ``b = g/4``: patches along the
    zeros of s, at the values of Pearson's perturbation (1993, Science 261, p. 189: a = 1/2, b = 1/4 in a square).

    Parameters
    ----------
    feed, kill : float
        Not negative.
    diffusivity_a, diffusivity_b : float
        Positive.
    grid : int or sequence of int
        Points per axis.
    length : float
        Of every axis.
    dimension : int
        d: 1, 2 or 3.
    alpha, tau, contrast : float
        Of the initial fields; alpha is more than d/2; patches are narrower for higher contrast.
    final_time, frames : float, int
        Of a dataset: states at ``frames`` evenly spaced times from 0 on.
    step : float, optional
        Longest time step; shorter ones are taken where the rule above, or the accuracy of the frames, asks for them.

    Notes
    -----
    Good values (feed, kill): gliders (0.014, 0.054), bubbles (0.098, 0.057), maze (0.029, 0.057),
    worms (0.058, 0.065), spirals (0.018, 0.051), spots (0.03, 0.062), with the default diffusivities on a length of 2
    with 128 points, until t = 10,000 in steps of 10: the sets of The Well.
    That grid holds fronts to about two digits (8e-3 at t = 200 against twice the points); 256 points for more.

    Truth: uniform states follow ordinary differential equations; the total of a + b changes by feeding and removal
    alone; the tests compare with an independent discretisation and integrator.

    Examples
    --------
    >>> family = GrayScott(grid=32)
    >>> sample = family.sample(np.random.default_rng(7))
    >>> family.evolve(family.initial(sample), [10.0, 20.0]).shape
    (2, 2, 32, 32)
    """

    feed: float = 0.029
    kill: float = 0.057
    diffusivity_a: float = 2e-5
    diffusivity_b: float = 1e-5
    grid: int | tuple[int, ...] = 128
    length: float = 2.0
    dimension: int = 2
    alpha: float = 4.0
    tau: float = 10.0
    contrast: float = 3.0
    final_time: float = 200.0
    frames: int = 21
    step: float | None = None

    title: ClassVar[str] = "Gray-Scott, a + 2 b -> 3 b with feed and removal, periodic"
    fields: ClassVar[tuple[Field, ...]] = (
        Field("initial_a", "input", "dimensionless", "a at time 0"),
        Field("initial_b", "input", "dimensionless", "b at time 0"),
        Field("a", "output", "dimensionless", "concentration that is fed, a"),
        Field("b", "output", "dimensionless", "concentration that is removed, b"),
    )
    degree: ClassVar[int] = 3

    def __post_init__(self) -> None:
        positive = ("diffusivity_a", "diffusivity_b", "alpha", "contrast")
        self._check(self.dimension, positive=positive, finite=("feed", "kill", "tau"))
        for name in ("feed", "kill"):
            if getattr(self, name) < 0:
                raise ValueError(f"gray_scott: {name} must not be negative, got {getattr(self, name)!r}")
        self._check_field(self.alpha, self.tau)

    @property
    def mesh(self) -> Grid:
        """Points of the periodic box."""
        return self._box(self.dimension)

    def sample(self, rng: np.random.Generator) -> Sample:
        """Draw initial patches."""
        patches = np.exp(-(periodic_field(rng, self.mesh, self.alpha, self.tau, self.contrast) ** 2))
        return Sample({"initial_a": 1 - patches / 2, "initial_b": patches / 4})

    def linear(self, fourier: Fourier) -> Array:
        """``-diffusivity |kappa|^2`` less feed and removal."""
        laplacian = fourier.laplacian
        a = self.diffusivity_a * laplacian - self.feed
        return np.stack([a, self.diffusivity_b * laplacian - self.feed - self.kill])

    def nonlinear(self, fourier: Fourier) -> Callable[[Array], Array]:
        """``(feed - a b^2, a b^2)``."""
        channel = -1 - self.dimension
        mean: Any = (..., 0, *(0,) * self.dimension)

        def reaction(v: Array) -> Array:
            a, b = np.moveaxis(fourier.values(v), channel, 0)
            eaten = fourier.coefficients(a * b**2)
            change = np.stack([-eaten, eaten], axis=channel)
            change[mean] += self.feed
            return change

        return reaction

    def bounds(self, sample: Sample) -> dict[str, tuple[float, float]]:
        """Concentrations are not negative, and a exceeds neither 1 nor its first maximum.

        0.1 is left to the scheme: on 16^2 points fronts undershoot by 0.05, on 128^2 by 0.002.
        """
        most = max(1.0, self._range(self.initial(sample)[0], oversampling=2)[1])
        return {"a": (-0.1, most + 0.1), "b": (-0.1, math.inf)}

    def longest_step(self, state: Array) -> float:
        """``0.25 / max(b^2, 2 |a b|, feed + kill)``."""
        a, b = np.moveaxis(state, -1 - self.dimension, 0)
        fastest = max(float(np.max(b**2)), float(np.max(2 * np.abs(a * b))), self.feed + self.kill, 1e-12)
        return _STEP / fastest
