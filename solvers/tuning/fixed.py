"""The same parameter for every system, and what is the best that a policy could have done."""

from typing import Any

import numpy as np

from solvers.tuning.protocol import Saved, checked_arms, checked_cost


class FixedOmega(Saved):
    """Suggests the same parameter each time.

    Parameters
    ----------
    omega : float

    Examples
    --------
    >>> FixedOmega(1.5).suggest()
    1.5
    """

    _saved = ("_open",)
    _fixed = ("_omega",)

    def __init__(self, omega: float) -> None:
        self._omega = float(checked_arms([omega])[0])
        self._open = False
        self.products = 0
        self.probabilities = np.ones(1)

    def suggest(self, context: Any = None, A: Any = None) -> float:
        """The parameter."""
        self._open = True
        return self._omega

    def update(self, cost: float) -> None:
        """There is nothing to learn."""
        checked_cost(cost, self._open)
        self._open = False


def best_fixed(costs: np.ndarray) -> tuple[int, float]:
    """The best arm in hindsight, and its total.

    Parameters
    ----------
    costs : ndarray, shape (systems, arms)
        What each system costs with each arm.

    Examples
    --------
    >>> best_fixed(np.array([[3.0, 4.0], [9.0, 5.0]]))
    (1, 9.0)
    """
    totals = _checked(costs).sum(axis=0)
    return int(totals.argmin()), float(totals.min())


def best_per_instance(costs: np.ndarray) -> float:
    """The total of the best arm for each system.

    Parameters
    ----------
    costs : ndarray, shape (systems, arms)
        What each system costs with each arm.

    Examples
    --------
    >>> best_per_instance(np.array([[3.0, 4.0], [9.0, 5.0]]))
    8.0
    """
    return float(_checked(costs).min(axis=1).sum())


def _checked(costs: Any) -> np.ndarray:
    values = np.asarray(costs, dtype=float)
    if values.ndim != 2 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"costs: expected finite numbers of shape (systems, arms), got shape {values.shape}")
    return values
