"""A problem in the Karhunen-Loeve modes of its prior, axis by axis: what closed forms and Newton's method work on.

The process is conditioned on integrals: of its boundary values against modes of the face, and of the equation against
all functions of the prior's span that vanish where values are given. With U the tensor of coefficients of u in products
of modes, every term of the operator is one small matrix an axis, and no matrix over all unknowns is ever formed.
"""

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from operators.gp.kronecker import KroneckerSum, along, along_all
from operators.gp.modes import Modes
from operators.gp.problems import Problem, tensor_points
from operators.gp.terms import Term

Array = NDArray[np.floating]


class Axis:
    """Modes of one axis, split at the faces where values are given: ``u = K g + H y``.

    Parameters
    ----------
    modes : Modes
        Of the axis.
    ends : sequence of float
        Coordinates of its faces with data.

    Attributes
    ----------
    at_ends : ndarray
        Values of the modes there, b, ``(k, r)``.
    lift : ndarray
        ``(r, k)``, ``b K = I``: the smallest coefficients with given values.
    free : ndarray
        ``(r, r - k)``, orthonormal, ``b H = 0``.
    log_determinant : float
        Logarithm of the determinant of b, restricted to what `free` leaves out.
    """

    def __init__(self, modes: Modes, ends: Sequence[float]) -> None:
        self.modes = modes
        self.at_ends = modes.at(np.array(ends))
        k = len(ends)
        q, triangle = scipy.linalg.qr(self.at_ends.T)
        self.free = q[:, k:]
        self.lift = scipy.linalg.solve_triangular(triangle[:k], q[:, :k].T).T if k else np.zeros((len(q), 0))
        self.log_determinant = float(np.log(np.abs(np.diag(triangle[:k]))).sum())


class Galerkin:
    """The equation, projected.

    Parameters
    ----------
    problem : Problem
        What is to be solved.
    modes : sequence of Modes
        One an axis.

    Attributes
    ----------
    shape : tuple of int
        Free coefficients per axis: the unknowns.
    """

    def __init__(self, problem: Problem, modes: Sequence[Modes]) -> None:
        self.problem, self.modes = problem, tuple(modes)
        self.axes = [
            Axis(m, [problem.domain[axis][side] for a, side in problem.faces if a == axis])
            for axis, m in enumerate(modes)
        ]
        self.shape = tuple(axis.free.shape[1] for axis in self.axes)
        if min(self.shape) < 1:
            raise ValueError(f"the kernel has {[m.count for m in modes]} modes per axis: too few for the boundary data")
        self.terms = problem.operator.terms

    # -- Grids and projections ---------------------------------------------------------------------------------------

    @cached_property
    def quadrature_points(self) -> Array:
        """Points of the tensor rule, ``(Q, d)``."""
        return tensor_points([m.rule[0] for m in self.modes])

    @property
    def quadrature_shape(self) -> tuple[int, ...]:
        """Of the tensor rule."""
        return tuple(len(m.rule[0]) for m in self.modes)

    def values(self, coefficients: Array, orders: Sequence[int] | None = None) -> Array:
        """A derivative of u at the points of the rule, from coefficients.

        Parameters
        ----------
        coefficients : ndarray
            U.
        orders : sequence of int, optional
            Derivatives per axis.
        """
        matrices = [self._at_points(a, 0 if orders is None else orders[a]) for a in range(len(self.modes))]
        return along_all(matrices, coefficients)

    def project(self, values: Array) -> Array:
        """Integrals against all free functions, from values at the points of the rule.

        Parameters
        ----------
        values : ndarray
        """
        return along_all([(m.test @ axis.free).T for m, axis in zip(self.modes, self.axes, strict=True)], values)

    def expand(self, free: Array) -> Array:
        """Coefficients of a combination of free functions.

        Parameters
        ----------
        free : ndarray
            Y, of the shape of the unknowns.
        """
        return along_all([axis.free for axis in self.axes], free)

    def _at_points(self, axis: int, order: int) -> Array:
        key = (axis, order)
        if key not in self._tables:
            m = self.modes[axis]
            self._tables[key] = m.values if order == 0 else m.at(m.rule[0], order)
        return self._tables[key]

    @cached_property
    def _tables(self) -> dict[tuple[int, int], Array]:
        return {}

    # -- The operator ------------------------------------------------------------------------------------------------

    def _constant(self, term: Term) -> float:
        return float(term.at(np.zeros((1, len(self.modes))), self.problem.parameters)[0])

    @cached_property
    def _coefficients(self) -> list[float | Array]:
        """Numbers, or values at the points of the rule, of the terms' coefficients."""
        return [
            self._constant(term)
            if term.constant
            else term.at(self.quadrature_points, self.problem.parameters).reshape(self.quadrature_shape)
            for term in self.terms
        ]

    @cached_property
    def _matrices(self) -> list[list[Array]]:
        """Of each constant term, one matrix an axis: from all coefficients to free functions."""
        return [
            [axis.free.T @ m.galerkin(order) for axis, m, order in zip(self.axes, self.modes, term.orders, strict=True)]
            for term in self.terms
        ]

    def apply(self, coefficients: Array) -> Array:
        """L u, projected on the free functions.

        Parameters
        ----------
        coefficients : ndarray
            U.
        """
        total, on_grid = np.zeros(self.shape), None
        for term, factor, matrices in zip(self.terms, self._coefficients, self._matrices, strict=True):
            if term.constant:
                total += factor * along_all(matrices, coefficients)
            else:
                values = factor * self.values(coefficients, term.orders)
                on_grid = values if on_grid is None else on_grid + values
        return total if on_grid is None else total + self.project(on_grid)

    def right_hand_side(self) -> Array:
        """f at the points of the rule."""
        return self.problem.right_hand_side(self.quadrature_points).reshape(self.quadrature_shape)

    # -- Boundary data -----------------------------------------------------------------------------------------------

    def lifted_boundary(self) -> Array:
        """Coefficients of a function with the given boundary values: axis by axis, what is still missing (Coons)."""
        total = np.zeros([m.count for m in self.modes])
        for axis in range(len(self.modes)):
            faces = [face for face in self.problem.faces if face[0] == axis]
            if not faces:
                continue
            given = np.stack([self._face_coefficients(face) for face in faces], axis=axis)
            missing = given - along(self.axes[axis].at_ends, total, axis)
            total += along(self.axes[axis].lift, missing, axis)
        return total

    def _face_coefficients(self, face: tuple[int, int]) -> Array:
        """Boundary data in the modes of a face."""
        others = [m for axis, m in enumerate(self.modes) if axis != face[0]]
        points = self.problem.face_points(face, [m.rule[0] for m in self.modes])
        values = self.problem.boundary_values(face, points).reshape([len(m.rule[0]) for m in others])
        return along_all([m.test.T for m in others], values)

    # -- What can be inverted ----------------------------------------------------------------------------------------

    @property
    def separable(self) -> bool:
        """Whether L is a Kronecker sum: constant coefficients, each term along one axis."""
        return all(term.constant and np.count_nonzero(term.orders) <= 1 for term in self.terms)

    def kronecker_sum(self, shift: float = 0.0) -> KroneckerSum:
        """L itself where it is separable, and otherwise a Kronecker sum near it.

        Variable coefficients are averaged over all axes but the term's own, and mixed derivatives are left out.

        Parameters
        ----------
        shift : float
            Added to L.
        """
        factors = [np.zeros((n, n)) for n in self.shape]
        weights = [m.rule[1] / m.rule[1].sum() for m in self.modes]
        for term, given in zip(self.terms, self._coefficients, strict=True):
            acting = [axis for axis, order in enumerate(term.orders) if order]
            if len(acting) > 1:
                continue
            coefficient = np.broadcast_to(given, self.quadrature_shape)
            if not acting:
                shift += float(given) if term.constant else along_all([w[None] for w in weights], coefficient).item()
                continue
            (axis,) = acting
            m, free, order = self.modes[axis], self.axes[axis].free, term.orders[axis]
            if term.constant:
                factors[axis] += given * (free.T @ m.galerkin(order) @ free)
                continue
            profile = coefficient
            for other in range(len(self.modes)):
                if other != axis:
                    profile = along(weights[other][None], profile, other)
            factors[axis] += free.T @ (m.test.T @ (profile.reshape(-1, 1) * self._at_points(axis, order))) @ free
        return KroneckerSum(factors, shift)

    def unknowns(self) -> int:
        """How many free coefficients there are."""
        return math.prod(self.shape)
