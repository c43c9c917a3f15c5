"""Chebyshev collocation of the problems of `operators.gp`: the classical tool that `benchmarks.gp` compares with.

Differentiation matrices at Chebyshev points (Trefethen 2000, Spectral Methods in MATLAB, ch. 6), rows of nodes with
given values removed; one dense solve in one dimension, a Kronecker sum in more, Newton's method with GMRES where there
is a reaction.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator

from operators.gp.kronecker import KroneckerSum, along, along_all
from operators.gp.problems import Problem, tensor_points
from solvers import gmres

Array = NDArray[np.floating]


class Collocation:
    """Values at Chebyshev points that satisfy a problem there, and their interpolant.

    Parameters
    ----------
    problem : Problem
        Of separable terms with constant coefficients in more than one dimension.
    nodes : sequence of int, optional
        Points per axis; as many as the problem has by default.
    """

    def __init__(self, problem: Problem, nodes: Sequence[int] | None = None) -> None:
        self.problem = problem
        counts = problem.nodes if nodes is None else nodes
        grids = [chebyshev(n, lo, hi) for n, (lo, hi) in zip(counts, problem.domain, strict=True)]
        self.axes, slopes = [x for x, _ in grids], [d for _, d in grids]
        self.inner = [
            slice(int((a, 0) in problem.faces), len(x) - int((a, 1) in problem.faces)) for a, x in enumerate(self.axes)
        ]
        self.points = tensor_points(self.axes)
        shape = tuple(len(x) for x in self.axes)
        u = np.zeros(shape)
        for face in problem.faces:
            place = [slice(None)] * len(shape)
            place[face[0]] = -face[1]
            u[tuple(place)] = problem.boundary_values(face, problem.face_points(face, self.axes)).reshape(
                u[tuple(place)].shape
            )
        f = problem.right_hand_side(self.points).reshape(shape)
        terms = [(t.at(self.points, problem.parameters).reshape(shape), t) for t in problem.operator.terms]
        powers = {
            order: [np.linalg.matrix_power(d, order) for d in slopes] for order in range(problem.operator.order + 1)
        }

        def apply(v: Array) -> Array:
            total = np.zeros(shape)
            for c, t in terms:
                value = v
                for axis, order in enumerate(t.orders):
                    value = along(powers[order][axis], value, axis) if order else value
                total += c * value
            return total

        cut = tuple(self.inner)
        if len(shape) == 1:
            whole = sum(c[:, None] * powers[t.orders[0]][0] for c, t in terms)
            near = None
        else:
            factors = [np.zeros((len(x[i]), len(x[i]))) for x, i in zip(self.axes, self.inner, strict=True)]
            shift = 0.0
            for c, t in terms:
                acting = np.flatnonzero(t.orders)
                if len(acting) > 1 or not t.constant:
                    raise ValueError("in more than one dimension only separable terms with constant coefficients")
                if len(acting):
                    i = self.inner[acting[0]]
                    factors[acting[0]] += c.flat[0] * powers[t.orders[acting[0]]][acting[0]][i, i]
                else:
                    shift += c.flat[0]
            near = KroneckerSum(factors, shift)

        def solve(r: Array, slope: Array | None) -> Array:
            if near is None:
                matrix = whole + (0 if slope is None else np.diag(slope))
                return np.linalg.solve(matrix[cut[0], cut[0]], r)
            if slope is None:
                return near.solve(r)

            def image(v: Array) -> Array:
                padded = np.zeros(shape)
                padded[cut] = v.reshape(r.shape)
                return near.solve((apply(padded) + slope * padded)[cut]).ravel()

            operator = LinearOperator((r.size, r.size), matvec=image, dtype=float)
            return gmres(operator, near.solve(r).ravel(), rtol=1e-12, restart=60).x.reshape(r.shape)

        u[cut] += solve((f - apply(u))[cut], None)
        for _ in range(10 if problem.reaction else 0):
            wrong = apply(u) + problem.reaction.value(u) - f
            step = solve(wrong[cut], problem.reaction.slope(u))
            u[cut] -= step
            if np.linalg.norm(step) < 1e-12 * np.linalg.norm(u):
                break
        self.u = u

    def on_grid(self, axes: Sequence[Array]) -> Array:
        """Values on another tensor grid.

        Parameters
        ----------
        axes : sequence of ndarray
        """
        return along_all([barycentric(x, y) for x, y in zip(self.axes, axes, strict=True)], self.u)


def chebyshev(count: int, low: float, high: float) -> tuple[Array, Array]:
    """Chebyshev points from low to high, and the differentiation matrix there.

    Parameters
    ----------
    count : int
    low, high : float
    """
    angle = np.pi * np.arange(count) / (count - 1)
    weights = np.where(np.arange(count) % 2, -1.0, 1.0)
    weights[[0, -1]] *= 2
    # Differences of cosines by a product of sines: they cancel otherwise.
    difference = 2 * np.sin(np.add.outer(angle, angle) / 2) * np.sin(np.subtract.outer(angle, angle) / 2)
    np.fill_diagonal(difference, 1.0)
    slopes = np.outer(weights, 1 / weights) / difference
    np.fill_diagonal(slopes, 0.0)
    np.fill_diagonal(slopes, -slopes.sum(axis=1))
    return low + (high - low) * np.sin(angle / 2) ** 2, slopes * 2 / (high - low)


def barycentric(nodes: Array, x: Array) -> Array:
    """The matrix that interpolates from Chebyshev points, ``(len(x), len(nodes))``.

    Parameters
    ----------
    nodes, x : ndarray
    """
    weights = np.where(np.arange(len(nodes)) % 2, -1.0, 1.0)
    weights[[0, -1]] /= 2
    gap = np.subtract.outer(x, nodes)
    hit = gap == 0
    gap[hit] = 1.0
    matrix = weights / gap
    matrix[hit.any(axis=1)] = hit[hit.any(axis=1)]
    return matrix / matrix.sum(axis=1, keepdims=True)
