"""Covariance functions of Gaussian processes, with analytic derivatives of every order that exists.

Stationary kernels of one coordinate, ``k(x, y) = kappa(x - y)``, are mixtures over frequencies: a spectral density that
is a sum of bumps (Wilson and Adams 2013, ICML, eq. 12; Fang et al. 2024, ICLR, arXiv 2311.04465, for PDEs). Kernels of
several coordinates are products of those, one a coordinate, and sums of products.

Derivatives never pass through ``|x - y|``: where the two points coincide, automatic differentiation of that gives zero
for derivatives that are not, and a Gram matrix of second derivatives without its diagonal.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.floating]


class Kernel(ABC):
    """A covariance function of points with d coordinates.

    Attributes
    ----------
    dimension : int
        d, the coordinates of a point.
    smoothness : float
        The highest order, per coordinate, of a derivative of ``kappa`` that is continuous at 0 (``inf`` if all are).
        The process itself has half as many derivatives, so that an operator of order m needs ``2 m``.
    """

    dimension: int

    @property
    @abstractmethod
    def smoothness(self) -> float:
        """The highest order, per coordinate, of a continuous derivative."""

    @abstractmethod
    def __call__(
        self, x: Array, y: Array, orders_x: Sequence[int] | None = None, orders_y: Sequence[int] | None = None
    ) -> Array:
        """Covariances of derivatives of the process, ``cov(d^i u(x), d^j u(y))`` with multi-indices i and j.

        Parameters
        ----------
        x, y : ndarray
            Points, of shape ``(n, d)`` and ``(m, d)``.
        orders_x, orders_y : sequence of int, optional
            Derivatives per coordinate of x and of y; none by default.

        Returns
        -------
        ndarray
            Of shape ``(n, m)``.
        """

    @abstractmethod
    def variance(self, orders: Sequence[int] | None = None) -> float:
        """Prior variance of a derivative of the process, the same at every point.

        Parameters
        ----------
        orders : sequence of int, optional
            Derivatives per coordinate; none by default.
        """


class AxisKernel(Kernel):
    """A stationary kernel of one coordinate, ``k(x, y) = kappa(x - y)``."""

    dimension = 1

    @abstractmethod
    def derivative(self, lag: Array, order: int = 0) -> Array:
        """A derivative of kappa.

        Parameters
        ----------
        lag : ndarray
            ``x - y``, of any shape.
        order : int
            Which derivative, 0 to `smoothness`.

        Returns
        -------
        ndarray
            Of the lag's shape.
        """

    @abstractmethod
    def spectrum(self, frequency: Array) -> Array:
        """The spectral density S of the process, ``kappa(z) = integral over all s of S(s) cos(2 pi s z)``.

        Parameters
        ----------
        frequency : ndarray
            s, in cycles per unit of length.

        Returns
        -------
        ndarray
            Of the frequency's shape; not negative.
        """

    @property
    @abstractmethod
    def band(self) -> float:
        """The frequency, in cycles per unit of length, above which the spectral density is negligible."""

    def matrix(self, x: Array, y: Array, order_x: int = 0, order_y: int = 0) -> Array:
        """Covariances between derivatives at coordinates of one axis.

        Parameters
        ----------
        x, y : ndarray
            Coordinates, ``(n,)`` and ``(m,)``.
        order_x, order_y : int
            Derivatives by x and by y.

        Returns
        -------
        ndarray
            ``d^i/dx^i d^j/dy^j kappa(x - y) = (-1)^j kappa^(i + j)(x - y)``, of shape ``(n, m)``.
        """
        values = self.derivative(np.subtract.outer(x, y), order_x + order_y)
        return -values if order_y % 2 else values

    def __call__(
        self, x: Array, y: Array, orders_x: Sequence[int] | None = None, orders_y: Sequence[int] | None = None
    ) -> Array:
        i, j = _orders(orders_x, 1), _orders(orders_y, 1)
        return self.matrix(_points(x, 1)[:, 0], _points(y, 1)[:, 0], i[0], j[0])

    def variance(self, orders: Sequence[int] | None = None) -> float:
        (order,) = _orders(orders, 1)
        return float((-1) ** order * self.derivative(np.zeros(1), 2 * order)[0])


@dataclass(frozen=True, eq=False)
class _Mixture(AxisKernel):
    """What the mixtures share: a sum over components of ``weight * envelope(lag) * cos(2 pi frequency lag)``."""

    weights: Array
    frequencies: Array
    inverse_lengths: Array

    def __init__(self, weights: ArrayLike, frequencies: ArrayLike = 0.0, inverse_lengths: ArrayLike = 1.0) -> None:
        arrays = np.broadcast_arrays(
            *(np.atleast_1d(np.asarray(a, float)) for a in (weights, frequencies, inverse_lengths))
        )
        for name, array in zip(("weights", "frequencies", "inverse_lengths"), arrays, strict=True):
            if array.ndim != 1 or not np.all(np.isfinite(array)):
                raise ValueError(f"{name} must be finite numbers, one a component of the mixture, got {array!r}")
            object.__setattr__(self, name, array.copy())
        if np.any(self.weights < 0) or not np.any(self.weights > 0):
            raise ValueError(f"weights are variances: none negative and one positive, got {self.weights}")
        if np.any(self.frequencies < 0) or np.any(self.inverse_lengths <= 0):
            raise ValueError("frequencies must be at least 0 and inverse_lengths positive")

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{w:.3g} at {mu:.4g} width {rho:.3g}"
            for w, mu, rho in zip(self.weights[:6], self.frequencies, self.inverse_lengths, strict=False)
        )
        more = f" and {self.weights.size - 6} more" if self.weights.size > 6 else ""
        return f"{type(self).__name__}({shown}{more})"

    def scaled(self, factor: float) -> Any:
        """The same kernel with `factor` times the variance.

        Parameters
        ----------
        factor : float
            Positive.
        """
        return type(self)(factor * self.weights, self.frequencies, self.inverse_lengths)

    @abstractmethod
    def _envelope(self, lag: Array, inverse_length: float, order: int) -> list[Array]:
        """The envelope of one component and its derivatives, up to an order."""

    def _widths(self) -> Iterator[tuple[float, Array, Array]]:
        """Each inverse length with the weights and angular frequencies of its components, which share an envelope."""
        for rho in np.unique(self.inverse_lengths):
            of_width = self.inverse_lengths == rho
            yield float(rho), self.weights[of_width], 2 * math.pi * self.frequencies[of_width]

    def derivative(self, lag: Array, order: int = 0) -> Array:
        """A derivative of kappa, by Leibniz's rule for envelope and waves.

        Parameters
        ----------
        lag : ndarray
            ``x - y``, of any shape.
        order : int
            Which derivative, 0 to `smoothness`.

        Returns
        -------
        ndarray
            Of the lag's shape.
        """
        lag = np.asarray(lag, float)
        total = np.zeros_like(lag)
        for rho, weights, angular in self._widths():
            for k, envelope in enumerate(self._envelope(lag, rho, order)):
                n = order - k
                wave = sum(w * a**n * np.cos(a * lag + n * math.pi / 2) for w, a in zip(weights, angular, strict=True))
                total += math.comb(order, k) * envelope * wave
        return total

    def matrix(self, x: Array, y: Array, order_x: int = 0, order_y: int = 0) -> Array:
        """As `AxisKernel.matrix`; the waves, ``cos a (x - y) = cos a x cos a y + sin a x sin a y``, are one product.

        Parameters
        ----------
        x, y : ndarray
            Coordinates, ``(n,)`` and ``(m,)``.
        order_x, order_y : int
            Derivatives by x and by y.

        Returns
        -------
        ndarray
            ``(n, m)``.
        """
        x, y, order = np.asarray(x, float), np.asarray(y, float), order_x + order_y
        lag = np.subtract.outer(x, y)
        total = np.zeros_like(lag)
        for rho, weights, angular in self._widths():
            right = np.outer(y, angular)
            for k, envelope in enumerate(self._envelope(lag, rho, order)):
                n = order - k
                left, scale = np.outer(x, angular) + n * math.pi / 2, math.comb(order, k) * weights * angular**n
                wave = (np.cos(left) * scale) @ np.cos(right).T + (np.sin(left) * scale) @ np.sin(right).T
                total += envelope * wave
        return -total if order_y % 2 else total


class GaussianMixture(_Mixture):
    """The Gaussian spectral mixture,

        kappa(z) = sum over q of w_q exp(-rho_q^2 z^2) cos(2 pi mu_q z),

    whose spectral density is a sum of Gaussians around the frequencies ``mu_q``, of standard deviation
    ``rho_q / (pi sqrt 2)``. Derivatives of every order are continuous. One component at frequency 0 is the squared
    exponential kernel of length scale ``1 / (rho sqrt 2)``.

    Parameters
    ----------
    weights : array_like
        ``w_q``, variances.
    frequencies : array_like
        ``mu_q``, in cycles per unit of length; at least 0.
    inverse_lengths : array_like
        ``rho_q``, positive. The three broadcast against each other.

    Raises
    ------
    ValueError
        If they are not finite, or of the wrong sign.

    Notes
    -----
    The envelope ``g = exp(-rho^2 z^2)`` has ``g' = c z g``, ``c = -2 rho^2``, and so ``g^(n+1) = c z g^(n) + n c
    g^(n-1)`` (Hermite polynomials); with the cosine by Leibniz's rule.

    Examples
    --------
    Minus the second derivative at 0 is the variance of the process's slope:

    >>> kernel = GaussianMixture(weights=2.0, frequencies=3.0, inverse_lengths=0.5)
    >>> bool(np.isclose(kernel.variance([1]), 2.0 * (2 * 0.5**2 + (2 * np.pi * 3.0) ** 2)))
    True
    """

    @property
    def smoothness(self) -> float:
        return math.inf

    def _envelope(self, lag: Array, inverse_length: float, order: int) -> list[Array]:
        c = -2 * inverse_length**2
        found = [np.exp(-((inverse_length * lag) ** 2))]
        for n in range(order):
            found.append(c * lag * found[n] + (n * c * found[n - 1] if n else 0.0))
        return found

    def spectrum(self, frequency: Array) -> Array:
        s = np.asarray(frequency, float)[..., None]
        rho, mu = self.inverse_lengths, self.frequencies
        bumps = np.exp(-((math.pi * (s - mu) / rho) ** 2)) + np.exp(-((math.pi * (s + mu) / rho) ** 2))
        return (self.weights * math.sqrt(math.pi) / (2 * rho) * bumps).sum(-1)

    @property
    def band(self) -> float:
        # exp(-(pi s / rho)^2) = 1e-32 there: features are its square root.
        return float(np.max(self.frequencies + self.inverse_lengths * math.sqrt(32 * math.log(10)) / math.pi))


class StudentMixture(_Mixture):
    """The Student-t spectral mixture with 5 degrees of freedom, whose envelope is the Matern kernel of smoothness 5/2,

        kappa(z) = sum over q of w_q (1 + s + s^2 / 3) exp(-s) cos(2 pi mu_q z),    s = sqrt(5) rho_q |z|.

    Four derivatives are continuous, no fifth: the process has two. One component at frequency 0 is Matern-5/2.

    Parameters
    ----------
    weights : array_like
        ``w_q``, variances.
    frequencies : array_like
        ``mu_q``, in cycles per unit of length; at least 0.
    inverse_lengths : array_like
        ``rho_q``, positive. The three broadcast against each other.

    Raises
    ------
    ValueError
        If they are not finite, or of the wrong sign.

    Notes
    -----
    The envelope's derivatives, with ``al = sqrt(5) rho`` and ``sgn`` the sign of z: ``-(al/3) s (1 + s) e^-s sgn``,
    ``-(al^2/3) (1 + s - s^2) e^-s``, ``(al^3/3) s (3 - s) e^-s sgn``, ``(al^4/3) (3 - 5 s + s^2) e^-s``; with the
    cosine by Leibniz's rule.

    Examples
    --------
    >>> kernel = StudentMixture(weights=1.0, frequencies=0.0, inverse_lengths=1.0)
    >>> float(kernel.derivative(np.zeros(1), 4)[0])  # al^4 = 25; not 0, though the fifth derivative jumps here
    25.0
    """

    @property
    def smoothness(self) -> float:
        return 4

    def _envelope(self, lag: Array, inverse_length: float, order: int) -> list[Array]:
        if order > 4:
            raise ValueError(f"StudentMixture has derivatives to order 4, asked for {order}; take GaussianMixture")
        al, sign = math.sqrt(5) * inverse_length, np.sign(lag)
        s = al * np.abs(lag)
        decay = np.exp(-s)
        polynomials = (
            lambda: 1 + s + s**2 / 3,
            lambda: -al / 3 * s * (1 + s) * sign,
            lambda: -(al**2) / 3 * (1 + s - s**2),
            lambda: al**3 / 3 * s * (3 - s) * sign,
            lambda: al**4 / 3 * (3 - 5 * s + s**2),
        )
        return [polynomial() * decay for polynomial in polynomials[: order + 1]]

    def spectrum(self, frequency: Array) -> Array:
        s = np.asarray(frequency, float)[..., None]
        al, mu = math.sqrt(5) * self.inverse_lengths, self.frequencies
        bumps = sum(1 / (al**2 + (2 * math.pi * (s - sign * mu)) ** 2) ** 3 for sign in (1, -1))
        return (self.weights * 8 / 3 * al**5 * bumps).sum(-1)

    @property
    def band(self) -> float:
        return math.inf


@dataclass(frozen=True, eq=False)
class Product(Kernel):
    """A product over dimensions, ``k(x, y) = kappa_1(x_1 - y_1) kappa_2(x_2 - y_2) ...``: Kronecker on tensor grids.

    Parameters
    ----------
    *factors : AxisKernel
        One a coordinate.

    Examples
    --------
    >>> plane = Product(GaussianMixture(1.0, 2.0), StudentMixture(1.0))
    >>> plane.dimension, plane.smoothness
    (2, 4)
    """

    factors: tuple[AxisKernel, ...]

    def __init__(self, *factors: AxisKernel) -> None:
        if not factors or not all(isinstance(factor, AxisKernel) for factor in factors):
            raise TypeError(f"Product takes kernels of one coordinate, one a dimension, got {factors!r}")
        object.__setattr__(self, "factors", factors)

    def __repr__(self) -> str:
        return f"Product({', '.join(map(repr, self.factors))})"

    @property
    def dimension(self) -> int:  # type: ignore[override]
        """The number of coordinates."""
        return len(self.factors)

    @property
    def smoothness(self) -> float:
        return min(factor.smoothness for factor in self.factors)

    def __call__(
        self, x: Array, y: Array, orders_x: Sequence[int] | None = None, orders_y: Sequence[int] | None = None
    ) -> Array:
        d = self.dimension
        x, y, i, j = _points(x, d), _points(y, d), _orders(orders_x, d), _orders(orders_y, d)
        total = self.factors[0].matrix(x[:, 0], y[:, 0], i[0], j[0])
        for axis in range(1, d):
            total *= self.factors[axis].matrix(x[:, axis], y[:, axis], i[axis], j[axis])
        return total

    def variance(self, orders: Sequence[int] | None = None) -> float:
        pairs = zip(self.factors, _orders(orders, self.dimension), strict=True)
        return math.prod(factor.variance([order]) for factor, order in pairs)


@dataclass(frozen=True, eq=False)
class Sum(Kernel):
    """A sum of kernels of the same points: of independent processes.

    Parameters
    ----------
    *terms : Kernel
        Of one dimension.

    Examples
    --------
    Additive in two coordinates, without interaction, up to constants:

    >>> smooth, flat = GaussianMixture(1.0, 0.0, 2.0), GaussianMixture(1.0, 0.0, 1e-6)
    >>> Sum(Product(smooth, flat), Product(flat, smooth)).dimension
    2
    """

    terms: tuple[Kernel, ...]

    def __init__(self, *terms: Kernel) -> None:
        if not terms or not all(isinstance(term, Kernel) for term in terms):
            raise TypeError(f"Sum takes kernels, got {terms!r}")
        if len({term.dimension for term in terms}) > 1:
            raise ValueError(
                f"terms of a Sum are kernels of the same points, got dimensions {[t.dimension for t in terms]}"
            )
        object.__setattr__(self, "terms", terms)

    def __repr__(self) -> str:
        return f"Sum({', '.join(map(repr, self.terms))})"

    @property
    def dimension(self) -> int:  # type: ignore[override]
        """The number of coordinates."""
        return self.terms[0].dimension

    @property
    def smoothness(self) -> float:
        return min(term.smoothness for term in self.terms)

    def __call__(
        self, x: Array, y: Array, orders_x: Sequence[int] | None = None, orders_y: Sequence[int] | None = None
    ) -> Array:
        total = self.terms[0](x, y, orders_x, orders_y)
        for term in self.terms[1:]:
            total += term(x, y, orders_x, orders_y)
        return total

    def variance(self, orders: Sequence[int] | None = None) -> float:
        return sum(term.variance(orders) for term in self.terms)


def _orders(orders: Sequence[int] | None, dimension: int) -> tuple[int, ...]:
    """A multi-index, checked."""
    if orders is None:
        return (0,) * dimension
    if len(orders) != dimension or any(order < 0 for order in orders):
        raise ValueError(f"orders must be {dimension} numbers of derivatives, one a coordinate, got {tuple(orders)}")
    return tuple(int(order) for order in orders)


def _points(x: Array, dimension: int) -> Array:
    """Points of shape ``(n, d)``, checked."""
    x = np.asarray(x, float)
    if x.ndim != 2 or x.shape[1] != dimension:
        raise ValueError(f"points must have the shape (n, {dimension}), got {x.shape}")
    return x
