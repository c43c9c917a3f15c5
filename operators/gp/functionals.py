"""Linear functionals of a Gaussian process at points, and their covariances.

An observation of u, of its slope, or of ``L u`` at a point is a sum of derivatives there. All of them are jointly
Gaussian, and what they covary is the kernel, differentiated on either side:

    cov(sum_s a_s d^s u(x), sum_t b_t d^t u(y)) = sum_s sum_t a_s b_t d_x^s d_y^t k(x, y).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from operators.gp.kernels import AxisKernel, Kernel, Product, Sum
from operators.gp.terms import LinearOperator

Array = NDArray[np.floating]
Orders = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Functionals:
    """One linear functional of u at each of n points, ``sum_t c_t(x) d^t u(x)``.

    Attributes
    ----------
    points : ndarray
        ``(n, d)``.
    terms : tuple of (orders, coefficients)
        Derivatives per axis, and their coefficient at each point, ``(n,)``.

    Examples
    --------
    Slope and value of a process at one point are independent:

    >>> from operators.gp import GaussianMixture
    >>> x = np.zeros((1, 1))
    >>> slope, value = Functionals(x, (((1,), np.ones(1)),)), at(x)
    >>> float(abs(covariance(GaussianMixture(1.0), slope, value))[0, 0])
    0.0
    """

    points: Array
    terms: tuple[tuple[Orders, Array], ...]

    def __len__(self) -> int:
        return len(self.points)

    def variance(self, kernel: Kernel) -> Array:
        """Prior variances, ``(n,)``.

        Parameters
        ----------
        kernel : Kernel
            Stationary, so that one point tells of all.
        """
        origin = np.zeros((1, self.points.shape[1]))
        total = np.zeros(len(self))
        for i, a in self.terms:
            for j, b in self.terms:
                total += a * b * kernel(origin, origin, i, j)[0, 0]
        return total


def at(points: Array, orders: Sequence[int] | None = None) -> Functionals:
    """Values of u, or of one derivative.

    Parameters
    ----------
    points : ndarray
        ``(n, d)``.
    orders : sequence of int, optional
        Derivatives per axis; none by default.
    """
    chosen = (0,) * points.shape[1] if orders is None else tuple(orders)
    return Functionals(points, ((chosen, np.ones(len(points))),))


def image(
    operator: LinearOperator, points: Array, parameters: Mapping[str, float], slope: Array | None = None
) -> Functionals:
    """Values of ``L u``, or of a linearised equation's ``L u + R'(u0) u``.

    Parameters
    ----------
    operator : LinearOperator
        L.
    points : ndarray
        ``(n, d)``.
    parameters : mapping
        Numbers that L names.
    slope : ndarray, optional
        ``R'(u0)`` at the points, ``(n,)``.
    """
    coefficients: dict[Orders, Array] = {}
    for term in operator.terms:
        coefficients[term.orders] = coefficients.get(term.orders, 0.0) + term.at(points, parameters)
    if slope is not None:
        still = (0,) * operator.dimension
        coefficients[still] = coefficients.get(still, 0.0) + slope
    return Functionals(points, tuple(coefficients.items()))


def covariance(kernel: Kernel, a: Functionals, b: Functionals) -> Array:
    """Prior covariances, ``(len(a), len(b))``.

    Parameters
    ----------
    kernel : Kernel
    a, b : Functionals
    """
    total = np.zeros((len(a), len(b)))
    for i, left in a.terms:
        for j, right in b.terms:
            block = _derivatives(kernel, a.points, b.points, i, j)
            block *= left[:, None]
            block *= right
            total += block
    return total


def joint_covariance(kernel: Kernel, groups: Sequence[Functionals]) -> Array:
    """Prior covariances of several groups, one after the other.

    Parameters
    ----------
    kernel : Kernel
    groups : sequence of Functionals
    """
    ends = np.cumsum([0, *map(len, groups)])
    whole = np.empty((ends[-1], ends[-1]))
    for p, a in enumerate(groups):
        for q, b in enumerate(groups[: p + 1]):
            block = covariance(kernel, a, b)
            whole[ends[p] : ends[p + 1], ends[q] : ends[q + 1]] = block
            whole[ends[q] : ends[q + 1], ends[p] : ends[p + 1]] = block.T
    return whole


def _derivatives(kernel: Kernel, x: Array, y: Array, i: Orders, j: Orders) -> Array:
    """``d_x^i d_y^j k(x, y)``; points of a grid share coordinates, and the kernel is asked once for each pair."""
    if isinstance(kernel, Sum):
        total = _derivatives(kernel.terms[0], x, y, i, j)
        for term in kernel.terms[1:]:
            total += _derivatives(term, x, y, i, j)
        return total
    factors = kernel.factors if isinstance(kernel, Product) else (kernel,) if isinstance(kernel, AxisKernel) else None
    if factors is None:
        return np.array(kernel(x, y, i, j))
    product = _along(factors[0], x[:, 0], y[:, 0], i[0], j[0])
    for axis in range(1, len(factors)):
        product *= _along(factors[axis], x[:, axis], y[:, axis], i[axis], j[axis])
    return product


def _along(factor: AxisKernel, x: Array, y: Array, i: int, j: int) -> Array:
    """The kernel of one axis, from a table of the coordinates that differ."""
    (x_alone, x_place), (y_alone, y_place) = np.unique(x, return_inverse=True), np.unique(y, return_inverse=True)
    if 2 * len(x_alone) * len(y_alone) > len(x) * len(y):
        return factor.matrix(x, y, i, j)
    return factor.matrix(x_alone, y_alone, i, j)[x_place[:, None], y_place]
