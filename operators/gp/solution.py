"""What a solve returns: a posterior process, and what is known of how it was found."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from operators.gp.kernels import Kernel, _orders, _points
from operators.gp.problems import Problem, tensor_points

Array = NDArray[np.floating]


class Posterior(Protocol):
    """A Gaussian process, given the equation and the data: what every way to solve hands to `Solution`."""

    def mean(self, points: Array, orders: tuple[int, ...]) -> Array:
        """Mean of a derivative at points ``(n, d)``, of shape ``(n,)``.

        Parameters
        ----------
        points : ndarray
        orders : tuple of int
            Derivatives per axis.
        """

    def mean_on_grid(self, axes: Sequence[Array], orders: tuple[int, ...]) -> Array:
        """The same on a tensor grid, in its shape.

        Parameters
        ----------
        axes : sequence of ndarray
            Coordinates, axis by axis.
        orders : tuple of int
            Derivatives per axis.
        """

    def std(self, points: Array) -> Array:
        """Standard deviation of u at points ``(n, d)``, of shape ``(n,)``.

        Parameters
        ----------
        points : ndarray
        """


@dataclass(frozen=True)
class Evidence:
    """The logarithm of the marginal likelihood of the data, ``log p(f, boundary data, observations | kernel)``.

    Attributes
    ----------
    value : float
        Natural logarithm.
    method : str
        How: "exact", or the name of an estimator.
    error : float
        Standard error of the estimator; 0 where it is exact.
    """

    value: float
    method: str = "exact"
    error: float = 0.0


@dataclass(frozen=True)
class Diagnostics:
    """How a solution was found, and how far it can be trusted.

    Attributes
    ----------
    method : str
        What solved it, in words.
    kernel : Kernel
        The one in force at the end.
    residual : float
        Root mean square of ``L u + R(u) - f`` at points between the nodes, over that of f's terms: the figure to judge
        by. It includes the error on the boundary, relative to u.
    nugget : float
        Noise added to the data, relative to the largest eigenvalue of their covariance.
    nugget_raised : int
        How often it had to be raised by a factor of 10 before the factorisation held.
    iterations : int
        Newton steps, or steps of Adam; 1 for a linear problem in closed form.
    converged : bool
        Whether the iteration met its tolerance.
    seconds : float
        Wall time.
    std_method : str
        How standard deviations are computed: "exact", or the name of an estimator.
    history : sequence of dict
        What was tried on the way: kernels with their evidence and residual, Newton steps, and so on.
    notes : sequence of str
        What a user should know, in sentences.
    """

    method: str
    kernel: Kernel
    residual: float
    nugget: float = 0.0
    nugget_raised: int = 0
    iterations: int = 1
    converged: bool = True
    seconds: float = 0.0
    std_method: str = "exact"
    history: Sequence[Mapping[str, Any]] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Inferred:
    """An unknown coefficient, from the data.

    Attributes
    ----------
    value : float
        The estimate.
    std : float
        Its standard deviation.
    """

    value: float
    std: float


@dataclass(frozen=True, eq=False)
class Solution:
    """The posterior of u.

    Attributes
    ----------
    problem : Problem
        What was solved.
    posterior : Posterior
        The process.
    evidence : Evidence, callable or None
        What `log_evidence` is, or a function that computes it.
    diagnostics : Diagnostics
        How it was found.
    unknowns : mapping
        Inferred coefficients by name.

    Examples
    --------
    >>> from operators.gp import Poisson, solve
    >>> wave = lambda x: np.sin(20 * x[:, 0])
    >>> solution = solve(Poisson([(0, 1)], lambda x: -400 * wave(x), wave, 60))
    >>> x = np.linspace(0, 1, 101)[:, None]
    >>> bool(np.abs(solution(x) - wave(x)).max() < 1e-6), solution.u.shape
    (True, (60,))
    >>> bool(np.abs(solution.derivative(x, [1]) - 20 * np.cos(20 * x[:, 0])).max() < 1e-4)
    True
    """

    problem: Problem
    posterior: Posterior
    evidence: Evidence | Callable[..., Evidence] | None
    diagnostics: Diagnostics
    unknowns: Mapping[str, Inferred] = field(default_factory=dict)

    @cached_property
    def log_evidence(self) -> Evidence | None:
        """Of the kernel, computed when first asked for; None where it is not known."""
        return self.evidence() if callable(self.evidence) else self.evidence

    @property
    def axes(self) -> tuple[Array, ...]:
        """Coordinates of the nodes, axis by axis."""
        return self.problem.axes

    @property
    def u(self) -> Array:
        """Posterior mean at the nodes, of the grid's shape."""
        return self.posterior.mean_on_grid(self.axes, (0,) * self.problem.dimension)

    def __call__(self, x: Array) -> Array:
        """Posterior mean anywhere in the box.

        Parameters
        ----------
        x : ndarray
            Points ``(n, d)``.

        Returns
        -------
        ndarray
            ``(n,)``.
        """
        return self.derivative(x, (0,) * self.problem.dimension)

    def derivative(self, x: Array, orders: Sequence[int]) -> Array:
        """Posterior mean of a derivative.

        Parameters
        ----------
        x : ndarray
            Points ``(n, d)``.
        orders : sequence of int
            Derivatives per axis.

        Returns
        -------
        ndarray
            ``(n,)``.
        """
        d = self.problem.dimension
        return self.posterior.mean(self._inside(x), _orders(orders, d))

    def on_grid(self, axes: Sequence[Array], orders: Sequence[int] | None = None) -> Array:
        """Posterior mean on a tensor grid: much cheaper there than at as many single points.

        Parameters
        ----------
        axes : sequence of ndarray
            Coordinates, axis by axis.
        orders : sequence of int, optional
            Derivatives per axis.

        Returns
        -------
        ndarray
            Of the grid's shape.
        """
        return self.posterior.mean_on_grid(
            [np.asarray(a, float) for a in axes], _orders(orders, self.problem.dimension)
        )

    def std(self, x: Array) -> Array:
        """Posterior standard deviation of u.

        Parameters
        ----------
        x : ndarray
            Points ``(n, d)``.

        Returns
        -------
        ndarray
            ``(n,)``.
        """
        return self.posterior.std(self._inside(x))

    def _inside(self, x: Array) -> Array:
        """Points of the box: the process knows nothing outside."""
        x = _points(x, self.problem.dimension)
        for axis, (lo, hi) in enumerate(self.problem.domain):
            slack = 1e-9 * (hi - lo)
            if x.size and (x[:, axis].min() < lo - slack or x[:, axis].max() > hi + slack):
                raise ValueError(
                    f"x must lie in the box {self.problem.domain}: coordinate {axis} runs "
                    f"from {x[:, axis].min():.6g} to {x[:, axis].max():.6g}"
                )
        return x


class PointwisePosterior:
    """A base for posteriors that know points only: a grid is its points.

    `mean` and `std` are left to those who derive from it.
    """

    def mean(self, points: Array, orders: tuple[int, ...]) -> Array:
        """Mean of a derivative at points.

        Parameters
        ----------
        points : ndarray
        orders : tuple of int
        """
        raise NotImplementedError

    def mean_on_grid(self, axes: Sequence[Array], orders: tuple[int, ...]) -> Array:
        """The same on a tensor grid, in its shape.

        Parameters
        ----------
        axes : sequence of ndarray
        orders : tuple of int
        """
        return self.mean(tensor_points(axes), orders).reshape([len(axis) for axis in axes])
