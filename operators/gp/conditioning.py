"""A Gaussian process conditioned on an equation, boundary data and scattered noisy observations: dense and exact.

Data y are linear functionals of u with independent noise: ``f`` at the inner nodes, boundary values at the outer ones,
and observations anywhere. With C their prior covariance and N that of the noise,

    mean(x) = c(x)^T (C + N)^-1 y,    var(x) = k(x, x) - c(x)^T (C + N)^-1 c(x),
    log p(y) = -1/2 y^T (C + N)^-1 y - 1/2 log det (C + N) - n/2 log 2 pi,

c(x) what u(x) and the data covary (Rasmussen and Williams 2006, eq. 2.25 to 2.30, with functionals for values as in
Pförtner et al. 2022, arXiv 2212.12474). Rows are scaled to unit prior variance before a Cholesky factorisation, which
costs ``n^3 / 3`` operations.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cholesky, solve_triangular

from operators.gp.functionals import Functionals, at, covariance, joint_covariance
from operators.gp.kernels import Kernel
from operators.gp.solution import PointwisePosterior

Array = NDArray[np.floating]

FIRST_NUGGET = 1e-13
"""Variance of the noise that every row gets, relative to its prior variance; the first that is tried."""
LAST_NUGGET = 1e-4
CHUNK = 2_000
"""Points whose covariances with the data are in memory at a time."""


class DensePosterior(PointwisePosterior):
    """The posterior of u, given noisy linear functionals of it.

    Parameters
    ----------
    kernel : Kernel
        Prior covariance of u, whose prior mean is 0.
    groups : sequence of Functionals
        What is known: n in all.
    data : ndarray
        Their values, ``(n,)``.
    noise : ndarray
        Standard deviations of the noise, ``(n,)``; zero where data are exact.
    nugget : float
        The first to try.

    Attributes
    ----------
    nugget : float
        In force: tenfold after every factorisation that failed.
    nugget_raised : int
        How often.
    log_densities : ndarray
        ``(n,)``, ``log p(y_i | y_1, ..., y_(i-1))``, with noise and nugget.
    log_evidence : float
        ``log p(y)``, their sum.

    Raises
    ------
    ValueError
        If the covariance is not finite, or not positive definite with any nugget.

    Examples
    --------
    Values at both ends and a curvature between them; the parabola is ``x (1 - x)``:

    >>> from operators.gp import GaussianMixture
    >>> curvature = Functionals(np.linspace(0, 1, 9)[:, None], (((2,), np.ones(9)),))
    >>> ends = at(np.array([[0.0], [1.0]]))
    >>> posterior = DensePosterior(GaussianMixture(1.0), [curvature, ends], np.r_[np.full(9, -2.0), 0, 0], np.zeros(11))
    >>> np.round(posterior.mean(np.array([[0.5], [0.75]]), (0,)), 4)
    array([0.25  , 0.1875])
    """

    def __init__(
        self, kernel: Kernel, groups: Sequence[Functionals], data: Array, noise: Array, nugget: float = FIRST_NUGGET
    ) -> None:
        self.kernel, self.groups = kernel, tuple(groups)
        prior = np.concatenate([group.variance(kernel) for group in groups])
        if not np.all(np.isfinite(prior)) or np.any(prior <= 0):
            raise ValueError(
                f"kernel gives prior variances from {prior.min():.3g} to {prior.max():.3g} to what is known of u: they "
                "must be positive and finite"
            )
        self._scale = np.sqrt(prior)
        whole = joint_covariance(kernel, groups)
        whole /= self._scale[:, None]
        whole /= self._scale
        relative_noise = (noise / self._scale) ** 2
        self._factor, self.nugget, self.nugget_raised = factorise(whole, relative_noise, nugget)
        white = solve_triangular(self._factor, data / self._scale, lower=True)
        self._weights = solve_triangular(self._factor, white, lower=True, trans="T") / self._scale
        # The factor is triangular: white[i] is what the rows before did not foresee of row i.
        self.log_densities = -0.5 * (white**2 + np.log(2 * np.pi)) - np.log(self._factor.diagonal() * self._scale)
        self.log_evidence = float(self.log_densities.sum())

    def mean(self, points: Array, orders: tuple[int, ...]) -> Array:
        """Mean of a derivative at points, ``(n,)``.

        Parameters
        ----------
        points : ndarray
            ``(n, d)``.
        orders : tuple of int
            Derivatives per axis.
        """
        return self._apply(at(points, orders), lambda wanted, covariances: covariances @ self._weights)

    def std(self, points: Array) -> Array:
        """Standard deviation of u at points, ``(n,)``.

        What is left of the prior after subtraction is rounded at about 1e-7 of the prior's standard deviation.

        Parameters
        ----------
        points : ndarray
            ``(n, d)``.
        """
        return self._apply(at(points), self._std)

    @property
    def deviates(self) -> bool:
        """Whether it knows standard deviations still."""
        return self._factor.size > 0

    def forget_deviations(self) -> None:
        """Give the factor's memory back: only means are left."""
        self._factor = np.zeros((0, 0))

    def _std(self, wanted: Functionals, covariances: Array) -> Array:
        explained = solve_triangular(self._factor, (covariances / self._scale).T, lower=True)
        return np.sqrt(np.maximum(wanted.variance(self.kernel) - (explained**2).sum(0), 0.0))

    def _apply(self, wanted: Functionals, function: Any) -> Array:
        """A function of what is wanted and its covariances with the data, some points at a time."""
        parts = [np.zeros(0)]
        for start in range(0, len(wanted), CHUNK):
            cut = slice(start, start + CHUNK)
            some = Functionals(wanted.points[cut], tuple((orders, c[cut]) for orders, c in wanted.terms))
            covariances = np.hstack([covariance(self.kernel, some, group) for group in self.groups])
            parts.append(function(some, covariances))
        return np.concatenate(parts)


def factorise(covariances: Array, noise: Array, nugget: float = FIRST_NUGGET) -> tuple[Array, float, int]:
    """The Cholesky factor of ``C + diag(noise) + nugget I``, the nugget tenfold until there is one.

    Parameters
    ----------
    covariances : ndarray
        C, ``(n, n)``, of unit diagonal; its diagonal is changed.
    noise : ndarray
        Variances, ``(n,)``.
    nugget : float
        The first to try.

    Returns
    -------
    factor : ndarray
        Lower triangular.
    nugget : float
        In force.
    raised : int
        How often.
    """
    if not np.all(np.isfinite(covariances)):
        raise ValueError("the covariance of the data is not finite: the kernel's parameters are too large or small")
    diagonal = covariances.diagonal().copy()
    for raised in range(20):
        np.fill_diagonal(covariances, diagonal + noise + nugget)
        try:
            return cholesky(covariances, lower=True, check_finite=False), nugget, raised
        except LinAlgError:
            if nugget >= LAST_NUGGET:
                break
            nugget *= 10
    raise ValueError(
        f"the covariance of the data is not positive definite, even with a nugget of {nugget:.0e} of its diagonal: the "
        "kernel is not a covariance, or far too smooth for the data"
    )
