"""Differential operators, composed of derivative terms.

A linear operator is a sum of terms ``coefficient * d^orders``, orders a number of derivatives per axis:

>>> wave = partial(0, 2) - 4.0 * partial(2, 0)
>>> stretched = (lambda points: 1 + points[:, 0]) * partial(2, 0) + laplacian(2)
>>> wave.order, len(stretched.terms)
(2, 3)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
PointFunction = Callable[[Array], Array]


@dataclass(frozen=True)
class Term:
    """One term of an operator, ``coefficient(x) * parameters[parameter]^power * d^orders u``.

    Attributes
    ----------
    orders : tuple of int
        Derivatives per axis.
    coefficient : float or callable
        A number, or a function of points ``(n, d)`` that returns ``(n,)``.
    parameter : str, optional
        The name of a number of the problem that multiplies the term, and that `operators.gp.solve` can infer.
    power : int
        The power of the parameter.
    """

    orders: tuple[int, ...]
    coefficient: float | PointFunction = 1.0
    parameter: str | None = None
    power: int = 1

    @property
    def constant(self) -> bool:
        """Whether the coefficient is one number."""
        return not callable(self.coefficient)

    def at(self, points: Array, parameters: Mapping[str, float]) -> Array:
        """Values of the whole coefficient.

        Parameters
        ----------
        points : ndarray
            ``(n, d)``.
        parameters : mapping
            Numbers of the problem by name.

        Returns
        -------
        ndarray
            ``(n,)``.
        """
        factor = 1.0 if self.parameter is None else parameters[self.parameter] ** self.power
        if not callable(self.coefficient):
            return np.full(len(points), factor * self.coefficient)
        return factor * checked_values(self.coefficient, points, f"the coefficient of the derivative {self.orders}")


@dataclass(frozen=True)
class LinearOperator:
    """A sum of derivative terms; added, and multiplied by numbers and functions of points.

    Attributes
    ----------
    terms : tuple of Term
        All with orders for the same number of axes.
    """

    terms: tuple[Term, ...]

    def __post_init__(self) -> None:
        if not self.terms or len({len(term.orders) for term in self.terms}) != 1:
            raise ValueError(
                f"an operator needs terms with orders for the same axes, got {[t.orders for t in self.terms]}"
            )

    @property
    def dimension(self) -> int:
        """The number of axes."""
        return len(self.terms[0].orders)

    @property
    def order(self) -> int:
        """The highest number of derivatives of a term, all axes together."""
        return max(sum(term.orders) for term in self.terms)

    def order_along(self, axis: int) -> int:
        """The highest number of derivatives along one axis.

        Parameters
        ----------
        axis : int
        """
        return max(term.orders[axis] for term in self.terms)

    @property
    def constant(self) -> bool:
        """Whether all coefficients are numbers."""
        return all(term.constant for term in self.terms)

    @property
    def parameters(self) -> frozenset[str]:
        """Names of the parameters of the terms."""
        return frozenset(term.parameter for term in self.terms if term.parameter is not None)

    def named(self, parameter: str, power: int = 1) -> "LinearOperator":
        """The operator times ``parameter^power``, a number that can be inferred.

        Parameters
        ----------
        parameter : str
            Its name.
        power : int
            Its power.
        """
        if self.parameters:
            raise ValueError(f"a term has one parameter; it has {sorted(self.parameters)} already")
        return LinearOperator(tuple(replace(term, parameter=parameter, power=power) for term in self.terms))

    def __add__(self, other: "LinearOperator") -> "LinearOperator":
        return LinearOperator(self.terms + other.terms)

    def __sub__(self, other: "LinearOperator") -> "LinearOperator":
        return self + -1.0 * other

    def __neg__(self) -> "LinearOperator":
        return -1.0 * self

    def __rmul__(self, factor: float | PointFunction) -> "LinearOperator":
        return LinearOperator(
            tuple(replace(term, coefficient=_product(factor, term.coefficient)) for term in self.terms)
        )


def partial(*orders: int) -> LinearOperator:
    """A derivative: ``partial(2, 0)`` is ``d^2/dx^2``, ``partial(0, 0)`` the identity, in two coordinates.

    Parameters
    ----------
    *orders : int
        Derivatives per axis.
    """
    if not orders or any(not isinstance(order, int) or order < 0 for order in orders):
        raise ValueError(f"orders must be numbers of derivatives, one an axis, got {orders}")
    return LinearOperator((Term(orders),))


def laplacian(dimension: int, axes: int | None = None) -> LinearOperator:
    """The sum of second derivatives.

    Parameters
    ----------
    dimension : int
        The number of axes.
    axes : int, optional
        Only the first so many (those of space, say, where the last is time); all by default.
    """
    count = dimension if axes is None else axes
    return LinearOperator(tuple(Term(tuple(2 * (a == axis) for a in range(dimension))) for axis in range(count)))


def checked_values(function: float | PointFunction, points: Array, name: str) -> Array:
    """Values of a number or function of points, of shape ``(n,)`` and finite.

    Parameters
    ----------
    function : float or callable
    points : ndarray
        ``(n, d)``.
    name : str
        What it is, for the message.

    Raises
    ------
    ValueError
        If it returns another shape or values that are not finite.
    """
    if not callable(function):
        values = np.full(len(points), float(function))
    else:
        values = np.asarray(function(points), float)
        if values.shape != (len(points),):
            raise ValueError(
                f"{name} must be a function of points (n, d) that returns (n,): "
                f"for {points.shape} it returned {values.shape}"
            )
    if not np.all(np.isfinite(values)):
        where = points[np.flatnonzero(~np.isfinite(values))[0]]
        raise ValueError(f"{name} must be finite, got {values[~np.isfinite(values)][0]} at {where}")
    return values


def _product(factor: float | PointFunction, coefficient: float | PointFunction) -> float | PointFunction:
    """The product of two numbers or functions of points."""
    if not callable(factor) and not callable(coefficient):
        return float(factor) * float(coefficient)

    def value(points: Array) -> Array:
        left = factor(points) if callable(factor) else factor
        return np.asarray(left * (coefficient(points) if callable(coefficient) else coefficient))

    return value
