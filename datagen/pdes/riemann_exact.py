"""The exact solution of Riemann's problem for an ideal gas (Toro 2009, Riemann Solvers, chapter 4)."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

_Side = tuple[float, float, float]


def _jump(p: float, side: _Side, gamma: float) -> float:
    """By how much the velocity changes across the wave on one side if the pressure behind it is p (eq. 4.6-4.7)."""
    rho, _, p_side = side
    if p > p_side:  # a shock
        return (p - p_side) * math.sqrt(2 / rho / ((gamma + 1) * p + (gamma - 1) * p_side))
    sound = math.sqrt(gamma * p_side / rho)
    return 2 * sound / (gamma - 1) * ((p / p_side) ** ((gamma - 1) / (2 * gamma)) - 1)


def star_state(left: _Side, right: _Side, gamma: float = 1.4) -> tuple[float, float]:
    """Pressure and velocity between the two outer waves.

    Parameters
    ----------
    left, right : (density, velocity, pressure)
    gamma : float
        Ratio of specific heats.

    Raises
    ------
    ValueError
        If the gases part so fast that a vacuum opens (eq. 4.82).
    """
    difference = right[1] - left[1]

    def mismatch(p: float) -> float:
        return _jump(p, left, gamma) + _jump(p, right, gamma) + difference

    if mismatch(0.0) >= 0:
        raise ValueError(f"riemann_exact: a vacuum opens between left {left} and right {right}")
    upper = max(left[2], right[2])
    while mismatch(upper) < 0:
        upper *= 2
    p = float(brentq(mismatch, 0.0, upper, xtol=1e-300, rtol=1e-14, maxiter=500))
    return p, (left[1] + right[1] + _jump(p, right, gamma) - _jump(p, left, gamma)) / 2


def riemann_exact(left: _Side, right: _Side, speeds: ArrayLike, gamma: float = 1.4) -> NDArray[np.float64]:
    """Density, velocity and pressure along the rays ``x / t``, shape ``(3, *speeds.shape)``.

    Parameters
    ----------
    left, right : tuple of float
        Density, velocity and pressure to both sides of x = 0 at time 0.
    speeds : array_like
        ``x / t``.
    gamma : float

    Examples
    --------
    Sod's shock tube (1978, J. Comput. Phys. 27, p. 1): on both sides of the contact,

    >>> riemann_exact((1, 0, 1), (0.125, 0, 0.1), [0.9, 0.95]).round(4)
    array([[0.4263, 0.2656], [0.9275, 0.9275], [0.3031, 0.3031]])
    """
    xi = np.asarray(speeds, dtype=float)
    p_star, u_star = star_state(left, right, gamma)
    # The right half of the solution is the mirror image of a left half.
    mirrored = (right[0], -right[1], right[2])
    lower = _left_half(xi, left, p_star, u_star, gamma)
    upper = _left_half(-xi, mirrored, p_star, -u_star, gamma)
    upper[1] *= -1
    return np.where(xi < u_star, lower, upper)


def _left_half(xi: NDArray[Any], side: _Side, p_star: float, u_star: float, gamma: float) -> NDArray[np.float64]:
    """The solution to the left of the contact (eq. 4.50-4.56)."""
    rho, u, p = side
    sound, ratio, a = math.sqrt(gamma * p / rho), p_star / p, (gamma - 1) / (gamma + 1)
    if p_star > p:
        speed = u - sound * math.sqrt((gamma + 1) / (2 * gamma) * ratio + (gamma - 1) / (2 * gamma))
        behind = rho * (ratio + a) / (a * ratio + 1)
        before = (xi < speed)[None]
        return np.where(before, _column(side, xi), _column((behind, u_star, p_star), xi))
    star_sound = sound * ratio ** ((gamma - 1) / (2 * gamma))
    fan_sound = 2 / (gamma + 1) * sound + a * (u - xi)  # meant within the fan
    share = np.clip(fan_sound / sound, 1e-300, None)
    fan = np.stack(
        [
            rho * share ** (2 / (gamma - 1)),
            2 / (gamma + 1) * (sound + (gamma - 1) / 2 * u + xi),
            p * share ** (2 * gamma / (gamma - 1)),
        ]
    )
    behind = rho * ratio ** (1 / gamma)
    states = np.where(xi < u_star - star_sound, fan, _column((behind, u_star, p_star), xi))
    return np.where(xi < u - sound, _column(side, xi), states)


def _column(values: _Side, xi: NDArray[Any]) -> NDArray[np.float64]:
    return np.stack([np.full(xi.shape, value) for value in values])
