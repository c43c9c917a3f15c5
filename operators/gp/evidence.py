"""Maxima of a log density that is known pointwise and costly, and the Gaussian that fits it there (Laplace 1774).

Steps are measured in the density's own widths: where a parameter moves by one standard deviation, the logarithm falls
by 1/2, which is far above its rounding. So differences of values are enough, and no scale has to be known.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

Array = NDArray[np.floating]

EVALUATIONS = 40
"""Of the simplex, at most, for each parameter."""


@dataclass(frozen=True, eq=False)
class Peak:
    """A maximum and its width.

    Attributes
    ----------
    position : ndarray
        ``(p,)``.
    value : float
        The log density there.
    covariance : ndarray
        ``(p, p)``, minus the inverse Hessian; zero in directions that the density does not bound.
    bounded : ndarray of bool
        ``(p,)``, whether the density falls on both sides.
    evaluations : int
        How many values it took.
    """

    position: Array
    value: float
    covariance: Array
    bounded: NDArray[np.bool_]
    evaluations: int


def climb(
    log_density: Callable[[Array], float], start: Array, steps: Array, *, simplex: bool = True, newton: bool = True
) -> Peak:
    """Climb by Nelder and Mead's simplex, then by Newton steps whose derivatives are differences over one width.

    Parameters
    ----------
    log_density : callable
        Of ``(p,)``; minus infinity where it is not defined.
    start : ndarray
        ``(p,)``.
    steps : ndarray
        First moves of each parameter, ``(p,)``.
    simplex : bool
        Whether to begin so: not where the start is near the peak.
    newton : bool
        Whether to end so; there is no covariance otherwise.

    Returns
    -------
    Peak

    Examples
    --------
    >>> peak = climb(lambda v: -50 * (v[0] - 3) ** 2 - 2 * (v[1] + v[0]) ** 2, np.zeros(2), np.ones(2))
    >>> np.round(peak.position, 2), np.round(np.sqrt(np.diag(peak.covariance)), 2)
    (array([ 3., -3.]), array([0.1 , 0.51]))
    """
    count = 0

    def loss(v: Array) -> float:
        nonlocal count
        count += 1
        value = log_density(v)
        return -value if np.isfinite(value) else 1e300

    at = np.asarray(start, float)
    if simplex:
        corners = np.vstack([at, at + np.diag(steps)])
        options = dict(initial_simplex=corners, xatol=1e-3, fatol=1e-2, maxfev=EVALUATIONS * len(at))
        at = np.asarray(minimize(loss, at, method="Nelder-Mead", options=options).x)
    if not newton:
        nothing = np.zeros((len(at), len(at)))
        return Peak(at, -loss(at), nothing, np.zeros(len(at), bool), count)
    widths = np.abs(np.asarray(steps, float)) / 8
    for _ in range(4):
        at, value, covariance, bounded, widths, gain = _newton(loss, at, widths)
        if gain < 1e-3:
            break
    return Peak(at, -value, covariance, bounded, count)


def _newton(
    loss: Callable[[Array], float], at: Array, widths: Array
) -> tuple[Array, float, Array, NDArray[np.bool_], Array, float]:
    """One step: where to, the loss there, the inverse Hessian, which parameters are bounded, widths, the gain."""
    p = len(at)
    centre = loss(at)
    widths = widths.copy()
    up, down = np.empty(p), np.empty(p)
    for k in range(p):
        for _ in range(12):
            move = np.zeros(p)
            move[k] = widths[k]
            up[k], down[k] = loss(at + move) - centre, loss(at - move) - centre
            bend = up[k] + down[k]
            if 0.2 < bend < 5:
                break
            widths[k] *= np.clip(1 / np.sqrt(bend), 0.1, 4) if bend > 0 else 4
            if widths[k] > 8:
                break
    bounded = (up + down > 0.05) & (widths < 8)
    keep = np.flatnonzero(bounded)
    hessian = np.diag((up + down)[keep])
    for a, i in enumerate(keep):
        for b, j in enumerate(keep[:a]):
            # Over both diagonals, so that third derivatives cancel.
            move = np.zeros(p)
            move[[i, j]] = widths[[i, j]]
            same = loss(at + move) + loss(at - move) - 2 * centre
            hessian[a, b] = hessian[b, a] = (same - (up + down)[i] - (up + down)[j]) / 2
    covariance = np.zeros((p, p))
    if not len(keep):
        return at, centre, covariance, bounded, widths, 0.0
    values, vectors = np.linalg.eigh(hessian)
    inverse = (vectors / np.maximum(values, 0.02)) @ vectors.T
    covariance[np.ix_(keep, keep)] = inverse * np.outer(widths[keep], widths[keep])
    step = np.zeros(p)
    step[keep] = -widths[keep] * (inverse @ (up - down)[keep] / 2)
    for _ in range(6):
        value = loss(at + step)
        if value <= centre:
            return at + step, value, covariance, bounded, widths, centre - value
        step /= 2
    return at, centre, covariance, bounded, widths, 0.0
