"""Families on a periodic box, integrated by `ETDRK4` on their Fourier coefficients.

A family gives the linear part of its equation as a symbol, the nonlinear part as a function of coefficients, and the
rule of its step; everything else is here, once for all dimensions and any number of channels.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from datagen.discretise import PERIODIC, Boundary
from datagen.evolve.etdrk import ETDRK4
from datagen.evolve.family import EvolvingFamily
from datagen.evolve.fourier import Fourier
from datagen.family import Sample
from datagen.fields import GaussianRandomField
from datagen.grids import Grid, as_shape

Array = NDArray[Any]
_ALLOWED = 0.5  # of the accuracy: what the steps may leave by their own estimate


class SpectralFamily(EvolvingFamily):
    """Base of families ``u_t = L u + N(u)`` on a periodic box with a diagonal L; subclasses are frozen dataclasses.

    States have the shape ``(channels, *grid)``, one channel an output field in the order declared, at the points
    ``i L / n``: the left end of an axis is on the grid, the right one is not. The input fields are the channels'
    initial values.

    ``degree`` is the number of factors in the longest product of `nonlinear`: products of so many are formed without
    aliasing (`Fourier.product_shape`).
    """

    degree: ClassVar[int] = 2
    integrator: ClassVar[str] = "etdrk4"
    grid: Any
    length: float
    step: float | None = None  # the longest, where a family lets it be given

    @abstractmethod
    def linear(self, fourier: Fourier) -> Array:
        """Symbol of L, of shape ``(channels or 1, *modes)``."""

    def nonlinear(self, fourier: Fourier) -> Callable[[Array], Array] | None:
        """N as a function of coefficients ``(..., channels, *modes)``; None for linear equations."""
        return None

    def longest_step(self, state: Array) -> float:
        """The longest step from a state ``(..., channels, *grid)``; the rule is in the family's docstring."""
        return math.inf

    @property
    def fourier(self) -> Fourier:
        """The trigonometric polynomials on the family's grid."""
        return Fourier(self.mesh, self.degree)

    @property
    def boundary(self) -> Boundary:
        """Periodic along every axis."""
        return (PERIODIC,) * self.mesh.dimension

    def initial(self, sample: Sample) -> Array:
        """The state at time 0, shape ``(channels, *grid)``."""
        return np.stack([np.asarray(sample.fields[f.name], dtype=float) for f in self.role("input")])

    def evolve(
        self, state: Array, times: Sequence[float], sample: Sample | None = None, solver: ETDRK4 | None = None
    ) -> Array:
        """The states at the given times, as `EvolvingFamily.evolve` says; the Nyquist mode of an even grid is dropped.

        With `ETDRK4` as the solver, a step of its own; by default steps are at most `step` and as `longest_step` rules,
        and so short that from one time to the next they leave half of `accuracy` by their own estimate. A batch takes
        the step of its fastest member. The sample is not used: the parameters are the same in all samples.
        """
        mesh, fourier, channels = self.mesh, self.fourier, len(self.role("output"))
        state = np.asarray(state, dtype=float)
        expected = (channels, *mesh.shape)
        if state.shape[-len(expected) :] != expected or state.ndim > len(expected) + 1:
            raise ValueError(
                f"{self.name}: state must have the shape {expected} (channels, *grid), or that with a batch axis in "
                f"front, got {state.shape}"
            )
        if not np.isfinite(state).all():
            raise ValueError(f"{self.name}: state holds values that are not finite")
        states = (solver or ETDRK4()).integrate(
            self.linear(fourier),
            self.nonlinear(fourier),
            fourier.coefficients(state),
            times,
            rule=lambda v: min(self.step or math.inf, self.longest_step(fourier.values(v, mesh.shape))),
            project=fourier.hermitian,
            measure=None if solver is not None else self._measure(fourier),
        )
        return np.stack([fourier.values(v, mesh.shape) for v in states], axis=-len(expected) - 1)

    def resolved(self, state: Array) -> Array:
        """The state without the Nyquist modes of even grids, which have no partner."""
        return self.fourier.values(self.fourier.coefficients(state), self.mesh.shape)

    def _measure(self, fourier: Fourier) -> Callable[[Array, Array], float]:
        """The largest difference of two states, relative to the largest value of its channel, over `accuracy`."""
        over_grid = tuple(range(-self.mesh.dimension, 0))

        def measure(v: Array, w: Array) -> float:
            difference, size = (np.max(abs(fourier.values(c, self.mesh.shape)), axis=over_grid) for c in (v - w, w))
            return float(np.max(difference / (size + np.finfo(float).tiny))) / (_ALLOWED * self.accuracy)

        return measure

    def _range(self, state: Array, oversampling: int) -> tuple[float, float]:
        """Lowest and highest value of a state's polynomials, on a grid so many times finer."""
        values = self.fourier.values(self.fourier.coefficients(state), [oversampling * n for n in self.mesh.shape])
        return float(values.min()), float(values.max())

    def _check(self, dimension: int, positive: Sequence[str] = (), finite: Sequence[str] = ()) -> None:
        """Refuse parameters that do not fit, by name, and keep the grid as an integer or a tuple."""
        if dimension not in (1, 2, 3):
            raise ValueError(f"{self.name}: dimension must be 1, 2 or 3, got {dimension!r}")
        shape = as_shape(self.grid, dimension, f"{self.name}: grid")
        if not isinstance(self.grid, int):
            object.__setattr__(self, "grid", shape)
        for name in ("length", *positive):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{self.name}: {name} must be positive and finite, got {value!r}")
        for name in finite:
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{self.name}: {name} must be finite, got {getattr(self, name)!r}")
        if self.step is not None and not (math.isfinite(self.step) and self.step > 0):
            raise ValueError(f"{self.name}: step must be positive and finite, or null, got {self.step!r}")
        self._check_times()
        if self.step is not None:
            self._check_step(self.step, "step")

    def _check_field(self, alpha: float, tau: float, zero_mean: bool = True) -> None:
        """Refuse what `periodic_field` could not draw."""
        mesh = self.mesh
        try:
            field = GaussianRandomField(alpha, tau, basis="periodic", lengths=mesh.lengths, zero_mean=zero_mean)
            field.with_standard_deviation(1.0)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from None

    def _box(self, dimension: int) -> Grid:
        return Grid(as_shape(self.grid, dimension), (self.length,) * dimension, "periodic-node")


def convective_step(state: Array, speed: float, mesh: Grid, courant: float) -> float:
    """``courant * h / max |speed * state|``, h the smallest spacing; infinite for the zero state.

    Parameters
    ----------
    state : ndarray
    speed : float
        By which the state is multiplied to give the speed of its waves.
    mesh : Grid
    courant : float
        The Courant number asked for.
    """
    fastest = abs(speed) * float(np.max(np.abs(state)))
    return courant * min(mesh.spacing) / fastest if fastest > 0 else math.inf


def periodic_field(
    rng: np.random.Generator, mesh: Grid, alpha: float, tau: float, standard_deviation: float, zero_mean: bool = True
) -> Array:
    """A periodic Gaussian field on the mesh, of covariance proportional to ``(-Laplacian + tau^2)^(-alpha)``.

    Parameters
    ----------
    rng : numpy.random.Generator
    mesh : Grid
    alpha, tau : float
    standard_deviation : float
        Over the ensemble.
    zero_mean : bool
        Leave the constant mode out.
    """
    field = GaussianRandomField(alpha, tau, basis="periodic", lengths=mesh.lengths, zero_mean=zero_mean)
    return field.with_standard_deviation(standard_deviation).sample(rng.spawn(1)[0], mesh)
