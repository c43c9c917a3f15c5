"""Derivatives of given functions, for coefficients whose gradient nobody wrote down."""

import numpy as np
from numpy.typing import NDArray

from operators.gp.terms import PointFunction, checked_values

Array = NDArray[np.floating]

REACH = 4
"""Points of the stencil on either side: nine points, eighth order."""


def gradient(function: PointFunction, domain: tuple[tuple[float, float], ...], axis: int, step: float) -> PointFunction:
    """A derivative along an axis, by the polynomial through nine equally spaced points, none outside the box.

    Parameters
    ----------
    function : callable
        Of points ``(n, d)``, returning ``(n,)``; smooth.
    domain : tuple of (float, float)
        The box.
    axis : int
        Along which axis.
    step : float
        Between the points. With frequencies k of the function, the error is near ``(k step)^8 / 630`` in the middle of
        the box, and rounding's near ``1e-16 / (k step)``, relative to the derivative.

    Returns
    -------
    callable
        Of points ``(n, d)``, returning ``(n,)``.

    Examples
    --------
    >>> wave = gradient(lambda x: np.sin(20 * x[:, 0]), ((0.0, 1.0),), 0, 1e-3)
    >>> x = np.linspace(0, 1, 7)[:, None]
    >>> bool(np.allclose(wave(x), 20 * np.cos(20 * x[:, 0]), rtol=0, atol=1e-9))
    True
    """
    low, high = domain[axis]
    step = min(step, (high - low) / (2 * REACH))
    offsets = np.arange(-REACH, REACH + 1.0)

    def value(points: Array) -> Array:
        points = np.asarray(points, float)
        centre = np.clip(points[:, axis], low + REACH * step, high - REACH * step)
        weights = _slopes_of_lagrange(offsets, (points[:, axis] - centre) / step)
        total = np.zeros(len(points))
        moved = points.copy()
        for j, offset in enumerate(offsets):
            moved[:, axis] = np.clip(centre + offset * step, low, high)
            total += weights[:, j] * checked_values(function, moved, "coefficient")
        return total / step

    return value


def _slopes_of_lagrange(nodes: Array, x: Array) -> Array:
    """Slopes at x of the Lagrange polynomials of the nodes, ``(len(x), len(nodes))``."""
    slopes = np.zeros((len(x), len(nodes)))
    for j, node in enumerate(nodes):
        others = np.delete(nodes, j)
        for k in range(len(others)):
            rest = np.delete(others, k)
            slopes[:, j] += np.prod(x[:, None] - rest, axis=1) / np.prod(node - others)
    return slopes
