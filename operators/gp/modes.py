"""Square roots of kernels on an interval: harmonic features, and the Karhunen-Loeve modes made of them.

A Gram matrix of a smooth kernel has a condition number beyond 1e16, and its Cholesky factorisation loses half of all
digits. Nothing here ever forms one. A Gaussian spectral mixture is, to rounding, a Fourier series with random
coefficients on an interval somewhat longer than the domain,

    u(x) = sum over m of z_m sqrt(v_m) (cos or sin)(2 pi s_m x),    z ~ N(0, I),

so that ``B`` with these features as columns is a square root of the Gram matrix, ``K = B B^T``, whose condition number
is the root of K's. All later factorisations are orthogonal ones of B.
"""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from operators.gp.kernels import AxisKernel, GaussianMixture, StudentMixture

Array = NDArray[np.floating]

KEPT = 1e-13
"""Modes with a smaller prior deviation, relative to the largest, are dropped: rounding drowns them."""

KEPT_OF_GRAM = 1e-6
"""The same where the modes come from a Gram matrix, whose rounding is that of variances."""

MARGIN = 40
"""Polynomials beyond those that a band needs: a wave of frequency s has ``pi s L`` and a short tail."""

MOST_FEATURES = 20_000


@dataclass(frozen=True, eq=False)
class HarmonicFeatures:
    """A Gaussian mixture on an interval as a finite series, ``kappa(x - y) = sum over m of b_m(x) b_m(y)``.

    Attributes
    ----------
    origin : float
        Where phases start, the middle of the interval.
    frequencies : ndarray
        ``s_m``, in cycles per unit of length, ``(m,)``.
    deviations : ndarray
        ``sqrt(v_m)``, ``(m,)``.
    """

    origin: float
    frequencies: Array
    deviations: Array

    def at(self, x: Array, order: int = 0) -> Array:
        """Derivatives of the features.

        Parameters
        ----------
        x : ndarray
            Coordinates ``(n,)``.
        order : int
            Which derivative.

        Returns
        -------
        ndarray
            ``(n, 2 m)``: the cosines, then the sines.
        """
        angular = 2 * math.pi * self.frequencies
        phase = np.outer(np.asarray(x, float) - self.origin, angular)
        scale = self.deviations * angular**order
        turn = order % 4
        cosine, sine = np.cos(phase), np.sin(phase)
        first = (cosine, -sine, -cosine, sine)[turn]
        second = (sine, cosine, -sine, -cosine)[turn]
        return np.hstack([first * scale, second * scale])


def harmonic_features(kernel: GaussianMixture, low: float, high: float) -> HarmonicFeatures:
    """The features of a kernel on an interval.

    By Poisson's summation, sampling the spectral density at multiples of 1/T repeats the kernel with period T, so that
    it is exact on the interval where ``kappa(T - L)`` is below rounding. Components of one width share one T.

    Parameters
    ----------
    kernel : GaussianMixture
    low, high : float
        The interval.

    Returns
    -------
    HarmonicFeatures
    """
    found = []
    for rho in np.unique(kernel.inverse_lengths):
        of_width = kernel.inverse_lengths == rho
        part = GaussianMixture(kernel.weights[of_width], kernel.frequencies[of_width], rho)
        period = (high - low) + math.sqrt(16 * math.log(10)) / rho
        if part.band * period > MOST_FEATURES:
            raise ValueError(
                f"the kernel needs {part.band * period:.0f} harmonics on [{low:.4g}, {high:.4g}], more than "
                f"{MOST_FEATURES}: give components of low and of high frequency inverse_lengths of their own"
            )
        frequencies = np.arange(math.ceil(part.band * period) + 1) / period
        variances = part.spectrum(frequencies) / period
        variances[1:] *= 2  # the density is two-sided
        kept = variances > 1e-32 * variances.max()
        found.append((frequencies[kept], np.sqrt(variances[kept])))
    frequencies, deviations = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return HarmonicFeatures((low + high) / 2, frequencies, deviations)


@dataclass(frozen=True, eq=False)
class Modes:
    """Karhunen-Loeve modes of a process on an interval: orthonormal functions with independent coefficients,

        u(x) = sum over j of c_j phi_j(x),    c_j ~ N(0, deviation_j^2),    integral of phi_i phi_j = delta_ij.

    They are stored as Legendre series. As combinations of the features, the last ones would have coefficients of 1e13
    that cancel; as series they are orthonormal, and their derivatives right, to rounding.

    Attributes
    ----------
    low, high : float
        The interval.
    deviations : ndarray
        Standard deviations of the coefficients, falling, ``(r,)``.
    series : ndarray
        Coefficients of the modes in normalised Legendre polynomials, orthonormal columns, ``(n, r)``.
    """

    low: float
    high: float
    deviations: Array
    series: Array

    @property
    def count(self) -> int:
        """How many modes there are, r."""
        return self.deviations.size

    def at(self, x: Array, order: int = 0) -> Array:
        """Derivatives of the modes.

        Parameters
        ----------
        x : ndarray
            Coordinates ``(n,)``.
        order : int
            Which derivative.

        Returns
        -------
        ndarray
            ``(n, r)``.
        """
        unit = (2 * np.asarray(x, float) - (self.low + self.high)) / (self.high - self.low)
        return legendre(unit, len(self.series)) @ self._differentiated(order) * math.sqrt(2 / (self.high - self.low))

    def galerkin(self, order: int) -> Array:
        """The matrix of ``integral of phi_i phi_j^(order)``.

        Parameters
        ----------
        order : int

        Returns
        -------
        ndarray
            ``(r, r)``.
        """
        return self.series.T @ self._differentiated(order)

    @cached_property
    def rule(self) -> tuple[Array, Array]:
        """Points and weights of a Gauss-Legendre rule that is exact for products of two modes."""
        return gauss_legendre(len(self.series) + 10, self.low, self.high)

    @cached_property
    def values(self) -> Array:
        """The modes at the points of the rule, ``(q, r)``."""
        return self.at(self.rule[0])

    @cached_property
    def test(self) -> Array:
        """Weights times modes at the points, ``(q, r)``: its transpose turns values into coefficients."""
        return self.rule[1][:, None] * self.values

    def _differentiated(self, order: int) -> Array:
        """The series of derivatives."""
        series = self.series
        for _ in range(order):
            series = differentiate_series(series) * (2 / (self.high - self.low))
        return series


def modes(kernel: AxisKernel, low: float, high: float, nodes: int) -> Modes:
    """The modes of a kernel on an interval.

    Those of a Gaussian mixture are left singular vectors of its features (prolate spheroidal functions, where the
    spectral density is flat). Those of a Student mixture, whose density falls too slowly for a series, are eigenvectors
    of its covariance among polynomials; that matrix is far better conditioned.

    Parameters
    ----------
    kernel : AxisKernel
    low, high : float
        The interval.
    nodes : int
        Polynomials to take at least, where the kernel's band does not say how many there must be.

    Returns
    -------
    Modes
    """
    if isinstance(kernel, GaussianMixture):
        size = math.ceil(math.pi * kernel.band * (high - low)) + MARGIN
        points, weights = gauss_legendre(size + 10, low, high)
        features = harmonic_features(kernel, low, high).at(points)
        series, deviations, _ = scipy.linalg.svd(
            _to_series(points, weights, size).T @ features, full_matrices=False, check_finite=False
        )
        kept = deviations > KEPT * deviations[0]
        return Modes(low, high, deviations[kept], series[:, kept])
    if isinstance(kernel, StudentMixture):
        size = max(nodes, math.ceil(math.pi * kernel.frequencies.max() * (high - low)) + MARGIN)
        points, weights = gauss_legendre(2 * size, low, high)
        to_series = _to_series(points, weights, size)
        covariance = to_series.T @ kernel.matrix(points, points) @ to_series
        variances, vectors = scipy.linalg.eigh((covariance + covariance.T) / 2, check_finite=False)
        kept = variances > KEPT_OF_GRAM**2 * variances[-1]
        return Modes(low, high, np.sqrt(variances[kept][::-1]), vectors[:, kept][:, ::-1])
    raise TypeError(f"modes are known of GaussianMixture and StudentMixture, got {kernel!r}")


# -- Legendre polynomials, normalised on [-1, 1] ---------------------------------------------------------------------


def legendre(unit: Array, size: int) -> Array:
    """Values of the first normalised Legendre polynomials, ``sqrt(k + 1/2) P_k``.

    Parameters
    ----------
    unit : ndarray
        Coordinates in [-1, 1], ``(n,)``.
    size : int
        How many polynomials.

    Returns
    -------
    ndarray
        ``(n, size)``.
    """
    values = np.empty((size, len(unit)))
    values[0] = 1.0
    if size > 1:
        values[1] = unit
    for k in range(1, size - 1):
        values[k + 1] = ((2 * k + 1) * unit * values[k] - k * values[k - 1]) / (k + 1)
    return values.T * np.sqrt(np.arange(size) + 0.5)


def differentiate_series(series: Array) -> Array:
    """Derivatives of normalised Legendre series, column by column.

    ``P_k' = sum over j < k, k - j odd, of (2 j + 1) P_j``: two running sums from the end, one for each parity.

    Parameters
    ----------
    series : ndarray
        ``(n, r)``.

    Returns
    -------
    ndarray
        ``(n, r)``, the last row zero.
    """
    norms = np.sqrt(2 * np.arange(len(series)) + 1.0)[:, None]
    scaled, slopes = norms * series, np.zeros_like(series)
    slopes[-2::-2] = np.cumsum(scaled[-1:0:-2], axis=0)
    slopes[-3::-2] = np.cumsum(scaled[-2:0:-2], axis=0)
    return norms * slopes


def gauss_legendre(count: int, low: float, high: float) -> tuple[Array, Array]:
    """Points and weights of a Gauss-Legendre rule on an interval.

    Parameters
    ----------
    count : int
    low, high : float
    """
    unit, weights = _unit_rule(count)
    return (low + high) / 2 + (high - low) / 2 * unit, (high - low) / 2 * weights


@lru_cache(maxsize=32)
def _unit_rule(count: int) -> tuple[Array, Array]:
    """The rule on [-1, 1], by Newton's method in extended precision.

    Those of numpy and scipy are off in the fourteenth digit at 200 points, which costs modes near the band's edge, with
    their second derivatives, five more.
    """
    k = np.arange(count, 0, -1, dtype=np.longdouble)
    x = np.cos(np.pi * (k - 0.25) / (count + 0.5))
    for _ in range(5):
        before, value = np.ones_like(x), x.copy()
        for degree in range(1, count):
            before, value = value, ((2 * degree + 1) * x * value - degree * before) / (degree + 1)
        slope = count * (before - x * value) / (1 - x**2)
        x = x - value / slope
    # The slope is of the last point but one; Newton has converged by then.
    return x.astype(float), (2 / ((1 - x**2) * slope**2)).astype(float)


def _to_series(points: Array, weights: Array, size: int) -> Array:
    """Weights times normalised polynomials of the interval, ``(q, size)``."""
    low, high = points[0] + points[-1], weights.sum()  # the middle, twice, and the length
    unit = (2 * points - low) / high
    return weights[:, None] * legendre(unit, size) * math.sqrt(2 / high)
