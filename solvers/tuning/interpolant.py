"""Piecewise linear interpolation in points that come one by one, which says where it can be trusted."""

from bisect import bisect_left  # for one number ten times as fast as numpy's

import numpy as np

from solvers.tuning.protocol import Saved

_STEP = 0.1  # largest difference of two neighbouring values
_WIDTH = 1.0 / 8.0  # largest distance of two neighbouring points
_NEAR = 5e-4  # points nearer than this are one


class Interpolant(Saved):
    """A function of one variable on about [-1, 1], known in points.

    Between two points it can be trusted if they are within 1/8 and their values within 0.1 of each other: for a smooth
    function the error is then well below a hundredth. Otherwise it is extrapolated from the two nearest points on one
    side, under the same conditions, by up to twice their distance and up to 0.05.

    Parameters
    ----------
    time : bool
        The variable is the number of a system: only the last two points are kept, distances do not count.

    Examples
    --------
    >>> f = Interpolant()
    >>> for x in (0.0, 0.04, 0.8):
    ...     f.add(x, 2 * x)
    >>> round(f(0.03), 12), f(0.5), round(f(-0.02), 12), f(-0.2)
    (0.06, nan, -0.04, nan)
    """

    _saved = ("_x", "_y")
    _fixed = ("_time",)

    def __init__(self, time: bool = False) -> None:
        self._time = time
        self._x, self._y = np.empty(0), np.empty(0)

    def __call__(self, x: float) -> float:
        """The value at x, NaN where it cannot be trusted."""
        i, count = bisect_left(self._x, x), self._x.size
        if 0 < i < count:
            value = self._line(i - 1, i, x)
            if value == value:
                return value
        for j in (i - 1, i):
            if 0 <= j < count and abs(self._x[j] - x) < _NEAR:
                return float(self._y[j])
        sides = [(j, j + 1) for j in (i - 2, i) if j >= 0 and j + 1 < count]
        values = [self._line(j, k, x) for j, k in sides]
        return next((value for value in values if value == value), float("nan"))

    def _line(self, i: int, j: int, x: float) -> float:
        """On the line through two points, NaN if they are too far from each other or from x, or it is too steep."""
        left, right = float(self._x[i]), float(self._x[j])
        low, high = float(self._y[i]), float(self._y[j])
        width, beyond = right - left, max(left - x, x - right, 0.0)
        slope = (high - low) / width
        near = beyond <= 2.0 * width and (self._time or width <= _WIDTH)
        steep = abs(high - low) > _STEP or abs(slope) * beyond > 0.5 * _STEP
        return float("nan") if steep or not near else low + slope * (x - left)

    def add(self, x: float, y: float) -> None:
        """Another point, or another value of one that is there."""
        i = bisect_left(self._x, x)
        for j in (i - 1, i):
            if 0 <= j < self._x.size and abs(self._x[j] - x) < _NEAR:
                self._y[j] = y  # and not its place, or points that come in a row would push a single one along
                return
        self._x, self._y = np.insert(self._x, i, x), np.insert(self._y, i, y)
        if self._time:
            self._x, self._y = self._x[-2:], self._y[-2:]
