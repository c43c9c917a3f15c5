"""Piecewise linear interpolation in points that come one by one, which says where it can be trusted."""

import numpy as np

from solvers.tuning.protocol import Saved

_STEP = 0.1  # largest difference of two neighbouring values
_WIDTH = 1.0 / 8.0  # largest distance of two neighbouring points


class Interpolant(Saved):
    """A function of one variable on about [-1, 1], known in points.

    Between two points it can be trusted if they are within 1/8 and their values within 0.1 of each other: for a smooth
    function the error is then well below a hundredth. Beyond the last point at an end it is extrapolated from two, by
    up to twice their distance and up to 0.1.

    Parameters
    ----------
    keep : int
        Points to keep: the last ones if there are few (2, for extrapolation in time), otherwise none nearer to each
        other than 2 / keep.

    Examples
    --------
    >>> f = Interpolant()
    >>> for x in (0.0, 0.04, 0.8):
    ...     f.add(x, 2 * x)
    >>> round(f(0.03), 12), f(0.5), round(f(-0.05), 12), f(-0.2)
    (0.06, nan, -0.1, nan)
    """

    _saved = ("_x", "_y")
    _fixed = ("_keep",)

    def __init__(self, keep: int = 4096) -> None:
        self._keep = keep
        self._x, self._y = np.empty(0), np.empty(0)

    def __call__(self, x: float) -> float:
        """The value at x, NaN where it cannot be trusted."""
        count = self._x.size
        if count < 2:
            return float("nan")
        i = int(np.searchsorted(self._x, x))
        beyond = i in (0, count)
        i = min(max(i, 1), count - 1)
        left, right = float(self._x[i - 1]), float(self._x[i])
        low, high = float(self._y[i - 1]), float(self._y[i])
        slope = (high - low) / (right - left)
        if beyond:
            distance = max(left - x, x - right)
            near = distance <= 2.0 * (right - left) and (self._keep == 2 or right - left <= _WIDTH)
            trusted = near and abs(slope * distance) <= _STEP
        else:
            trusted = right - left <= _WIDTH and abs(high - low) <= _STEP
        return low + slope * (x - left) if trusted else float("nan")

    def add(self, x: float, y: float) -> None:
        """Another point; it takes the place of one that is very near."""
        i = int(np.searchsorted(self._x, x))
        if self._keep > 2:
            for j in (i - 1, i):
                if 0 <= j < self._x.size and abs(self._x[j] - x) < 2.0 / self._keep:
                    self._x[j], self._y[j] = x, y
                    return
        self._x, self._y = np.insert(self._x, i, x), np.insert(self._y, i, y)
        if self._keep == 2:
            self._x, self._y = self._x[-2:], self._y[-2:]
