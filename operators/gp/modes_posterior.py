"""The posterior of u in Karhunen-Loeve modes: coefficients that the data have fixed, up to a little noise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.optimize
from numpy.typing import NDArray

from operators.gp.kronecker import along_all
from operators.gp.modes import Modes

Array = NDArray[np.floating]

CHUNK = 4_000_000
"""Numbers in memory at a time when values at scattered points are summed."""

LEAST_NOISE = 1e-13
"""Standard deviation of the noise, relative to u: rounding."""


@dataclass(frozen=True, eq=False)
class ModesPosterior:
    """Independent coefficients ``c_ij.. ~ N(0, s^2 v_ij..)``, known up to noise of variance ``s^2 n``,

        var c = s^2 v n / (v + n).

    Boundary data and projected equation are as many as the coefficients and in one-to-one correspondence with them:
    what is known of the one is known of the other. The mean is that of exact data, which satisfies them.

    Parameters
    ----------
    modes : sequence of Modes
        One an axis.
    found : ndarray
        Coefficients that satisfy the data, of the shape of the modes.
    noise : float
        Root mean square, over the box, of the noise's share in u.
    amplitude : float, optional
        s; by default the one of the largest evidence, ``s^2 = mean of found^2 / (v + n)``.
    """

    modes: Sequence[Modes]
    found: Array
    noise: float = 0.0
    amplitude: float | None = None

    @cached_property
    def prior(self) -> Array:
        """Prior variances v, before the amplitude."""
        variances = self.modes[0].deviations ** 2
        for m in self.modes[1:]:
            variances = np.multiply.outer(variances, m.deviations**2)
        return variances

    @cached_property
    def relative_noise(self) -> float:
        """n, in units of the prior's variances.

        With a profiled amplitude ``s^2 n`` is the given noise for one n alone: ``mean of found^2 n / (v + n)`` grows
        with n, from 0 to the mean of ``found^2``.
        """
        if self.amplitude is not None:
            return self._share / self.amplitude**2
        square, v = self.found**2, self.prior

        def excess(log_n: float) -> float:
            mean = float(np.mean(square / (1 + v / math.exp(log_n))))
            return math.log(max(mean, 1e-300) / self._share)

        top = math.log(v.max())
        low, high = top - 120.0, top + 120.0
        if not square.any():
            return v.max()  # nothing is there: the prior has no amplitude, and the noise no meaning
        if excess(low) > 0 or excess(high) < 0:
            return math.exp(low)
        return math.exp(scipy.optimize.brentq(excess, low, high, xtol=1e-3))

    @cached_property
    def variance_scale(self) -> float:
        """s^2, by which the prior's variances are multiplied."""
        if self.amplitude is not None:
            return self.amplitude**2
        return max(float(np.mean(self.found**2 / (self.prior + self.relative_noise))), 1e-300)

    @property
    def _share(self) -> float:
        """The noise's variance of a single coefficient: modes are orthonormal on the box."""
        volume = math.prod(m.high - m.low for m in self.modes)
        rounding = LEAST_NOISE**2 * float(np.mean(self.found**2))
        return max(self.noise**2 * volume / self.found.size, rounding, 1e-300)

    @cached_property
    def variances(self) -> Array:
        """Posterior variances of the coefficients."""
        return self.variance_scale * self.prior * self.relative_noise / (self.prior + self.relative_noise)

    def log_density(self) -> float:
        """Logarithm of the density of the coefficients that were found, under prior and noise."""
        spread = self.variance_scale * (self.prior + self.relative_noise)
        return float(-0.5 * (self.found**2 / spread + np.log(2 * math.pi * spread)).sum())

    def mean(self, points: Array, orders: tuple[int, ...]) -> Array:
        """Mean of a derivative at points, ``(n,)``.

        Parameters
        ----------
        points : ndarray
            ``(n, d)``.
        orders : tuple of int
            Derivatives per axis.
        """
        return self._at(self.found, points, orders, squared=False)

    def mean_on_grid(self, axes: Sequence[Array], orders: tuple[int, ...]) -> Array:
        """The same on a tensor grid, in its shape.

        Parameters
        ----------
        axes : sequence of ndarray
        orders : tuple of int
        """
        return along_all([m.at(x, i) for m, x, i in zip(self.modes, axes, orders, strict=True)], self.found)

    def std(self, points: Array) -> Array:
        """Standard deviation of u at points, ``(n,)``.

        Parameters
        ----------
        points : ndarray
            ``(n, d)``.
        """
        return np.sqrt(self._at(self.variances, points, (0,) * points.shape[1], squared=True))

    def _at(self, coefficients: Array, points: Array, orders: Sequence[int], squared: bool) -> Array:
        """``sum of c_ij.. phi_i(x_1) phi_j(x_2) ..`` at points, of the functions or of their squares."""
        values = np.empty(len(points))
        step = max(CHUNK // coefficients[0].size, 1) if coefficients.ndim > 1 else CHUNK // 1000
        for start in range(0, len(points), step):
            cut = slice(start, start + step)
            tables = [m.at(points[cut, a], orders[a]) for a, m in enumerate(self.modes)]
            if squared:
                tables = [table**2 for table in tables]
            total = np.tensordot(tables[0], coefficients, (1, 0))
            for table in tables[1:]:
                total = np.einsum("nj,nj...->n...", table, total)
            values[cut] = total
        return values
