"""The iterate with the smallest residual, for methods whose residual goes up and down."""

import numpy as np


class Best:
    """Keeps a copy of the iterate at local minima of the residual, which is all that has to be kept.

    Parameters
    ----------
    norm : float
        Residual norm of the start, d = 0.

    Examples
    --------
    >>> best, d = Best(norm=1.0), np.array([0.0])
    >>> for norm, next_norm in [(1.0, 0.5), (0.5, 2.0)]:
    ...     best.before_step(d, norm, next_norm)
    ...     d += 1.0
    >>> best.of(d, 2.0)
    array([1.])
    """

    def __init__(self, norm: float) -> None:
        self.norm = norm
        self._d: np.ndarray | None = None  # None: the start

    def before_step(self, d: np.ndarray, norm: float, next_norm: float) -> None:
        """Copy d, of residual `norm`, if the step that comes makes it worse and no earlier one was better."""
        if next_norm > norm and norm < self.norm:
            self.norm = norm
            if self._d is None:
                self._d = d.copy()
            else:
                np.copyto(self._d, d)

    def of(self, d: np.ndarray, norm: float) -> np.ndarray:
        """The better one of d, of residual `norm`, and what was kept."""
        if norm <= self.norm:
            return d
        return np.zeros_like(d) if self._d is None else self._d
