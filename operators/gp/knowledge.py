"""What is known of u: the equation at nodes, values on faces, observations; as functionals with data and noise."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from operators.gp.conditioning import DensePosterior
from operators.gp.functionals import at, image
from operators.gp.kernels import Kernel
from operators.gp.problems import Problem, tensor_points

Array = NDArray[np.floating]
MOST_OBSERVATIONS = 5_000


@dataclass(frozen=True, eq=False)
class Knowledge:
    """The data of a problem and its observations.

    Attributes
    ----------
    problem : Problem
        Equation and parameters.
    inner : ndarray
        Nodes where the equation holds, ``(n, d)``: all but those on faces with data.
    outer, outer_values : ndarray
        Nodes on faces with data, ``(m, d)``, and the data, ``(m,)``.
    points, values : ndarray
        Observations, ``(k, d)`` and ``(k,)``.
    noise : ndarray or None
        Standard deviations of the observations, ``(k,)``; None if nobody knows.
    """

    problem: Problem
    inner: Array
    outer: Array
    outer_values: Array
    points: Array
    values: Array
    noise: Array | None

    @classmethod
    def of(cls, problem: Problem, observations: tuple[Array, Array, Array | None], stride: int = 1) -> "Knowledge":
        """All of it, or every so many-th node an axis.

        Parameters
        ----------
        problem : Problem
        observations : tuple
            Checked, see `as_observations`.
        stride : int
            Of the nodes; both ends stay.
        """
        axes = [axis[np.unique(np.r_[0 : len(axis) : stride, len(axis) - 1])] for axis in problem.axes]
        shape = tuple(len(axis) for axis in axes)
        nodes = tensor_points(axes).reshape(*shape, problem.dimension)
        given = np.zeros(shape, bool)
        values = np.zeros(shape)
        for axis, side in problem.faces:
            face: list[Any] = [slice(None)] * problem.dimension
            face[axis] = -side
            there = nodes[tuple(face)].reshape(-1, problem.dimension)
            values[tuple(face)] = problem.boundary_values((axis, side), there).reshape(values[tuple(face)].shape)
            given[tuple(face)] = True
        return cls(problem, nodes[~given], nodes[given], values[given], *observations)

    def __len__(self) -> int:
        return len(self.inner) + len(self.outer) + len(self.points)

    def thinned(self, rows: int) -> "Knowledge":
        """About so many of the rows, of each kind about the same part; the same object if there are no more.

        Parameters
        ----------
        rows : int
        """
        if len(self) <= rows:
            return self
        share = min(max(rows / 2, rows - len(self.points)), len(self.inner) + len(self.outer))
        stride = 1
        while (
            np.prod([(n - 2) // stride + 2 for n in self.problem.nodes]) > share
            and stride < min(self.problem.nodes) // 4
        ):
            stride += 1
        fewer = Knowledge.of(self.problem, (self.points, self.values, self.noise), stride)
        left = max(rows - len(fewer.inner) - len(fewer.outer), rows // 4)
        # Equal steps through a fixed shuffle: observations may come in any order, along lines say.
        kept = np.sort(np.random.default_rng(0).permutation(len(self.points))[:left])
        noise = None if self.noise is None else self.noise[kept]
        return replace(fewer, points=self.points[kept], values=self.values[kept], noise=noise)

    def without_equation(self) -> "Knowledge":
        """Boundary values and observations alone."""
        return replace(self, inner=self.inner[:0])

    def size(self) -> float:
        """A guess of u's standard deviation: of its known values, or else of what the right-hand side makes of it."""
        known = np.concatenate([self.outer_values, self.values])
        if np.any(known != 0):
            return float(np.sqrt(np.mean(known**2)))
        f = self.problem.right_hand_side(self.problem.points())
        span = max(hi - lo for lo, hi in self.problem.domain)
        return float(np.sqrt(np.mean(f**2))) * (span / np.pi) ** self.problem.operator.order or 1.0

    def posterior(
        self,
        kernel: Kernel,
        parameters: dict[str, float],
        noise: float = 0.0,
        around: DensePosterior | None = None,
        nugget: float = 1e-13,
    ) -> DensePosterior:
        """Condition a process on it.

        Parameters
        ----------
        kernel : Kernel
            Prior covariance.
        parameters : dict
            Of the problem.
        noise : float
            Standard deviation of the observations, where it is not known.
        around : DensePosterior, optional
            At whose mean a nonlinear equation is linearised: ``L u + R'(u0) u = f - R(u0) + R'(u0) u0``; at 0 by
            default.
        nugget : float
            The first to try.
        """
        f, slope = self.problem.right_hand_side(self.inner), None
        if self.problem.reaction is not None:
            u0 = np.zeros(len(f)) if around is None else around.mean(self.inner, (0,) * self.problem.dimension)
            slope = np.broadcast_to(self.problem.reaction.slope(u0), u0.shape)
            f = f - self.problem.reaction.value(u0) + slope * u0
        groups = [image(self.problem.operator, self.inner, parameters, slope), at(self.outer), at(self.points)]
        exact = np.zeros(len(self.inner) + len(self.outer))
        measured = np.full(len(self.points), noise) if self.noise is None else self.noise
        data = np.concatenate([f, self.outer_values, self.values])
        return DensePosterior(kernel, [g for g in groups if len(g)], data, np.concatenate([exact, measured]), nugget)


def as_observations(problem: Problem, observations: Any) -> tuple[Array, Array, Array | None]:
    """Points, values and noise, checked; none of them by default.

    Parameters
    ----------
    problem : Problem
    observations : Observations or (points, values, noise), optional
    """
    d = problem.dimension
    if observations is None:
        return np.zeros((0, d)), np.zeros(0), np.zeros(0)
    if not isinstance(observations, tuple):
        observations = (observations.points, observations.values, observations.noise)
    if len(observations) != 3:
        raise ValueError(f"observations must be (points, values, noise), got {len(observations)} things")
    points, values = np.asarray(observations[0], float), np.asarray(observations[1], float)
    if points.ndim != 2 or points.shape[1] != d or len(points) == 0:
        raise ValueError(f"observations must have points of shape (n, {d}), got {points.shape}")
    if values.shape != (len(points),):
        raise ValueError(f"observations must have a value for each of the {len(points)} points, got {values.shape}")
    if len(points) > MOST_OBSERVATIONS:
        raise ValueError(
            f"observations must be at most {MOST_OBSERVATIONS}, which are solved densely, got {len(points)}"
        )
    if not (np.all(np.isfinite(points)) and np.all(np.isfinite(values))):
        raise ValueError("observations must have finite points and values")
    for axis, (lo, hi) in enumerate(problem.domain):
        outside = (points[:, axis] < lo) | (points[:, axis] > hi)
        if outside.any():
            raise ValueError(
                f"observations must lie in the box {problem.domain}, got {points[outside][0]} and "
                f"{outside.sum() - 1} more outside"
            )
    if observations[2] is None:
        return points, values, None
    noise = np.asarray(observations[2], float)
    if noise.shape not in ((), values.shape) or not np.all(np.isfinite(noise)) or np.any(noise <= 0):
        raise ValueError(
            "the noise of observations is its standard deviation, one for all or one for each, positive, or None to "
            f"infer one; got {observations[2]!r}"
        )
    return points, values, np.broadcast_to(noise, values.shape)
