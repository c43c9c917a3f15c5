"""The coefficients that solve a projected problem: one linear solve in closed form, or Newton's method."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator

from operators.gp.galerkin import Galerkin
from operators.gp.kronecker import KroneckerSum
from solvers import gmres

Array = NDArray[np.floating]

RTOL = 1e-13
MOST_STEPS = 20

RESTART, CYCLES = 100, 3
"""Of GMRES. A Kronecker sum that is near the operator takes a few dozen steps; what takes hundreds is hopeless."""


@dataclass(eq=False)
class Linearised:
    """The projected operator ``L + R'(u)``, and its inverse.

    Attributes
    ----------
    system : Galerkin
        The projected problem.
    slope : ndarray or None
        ``R'(u)`` at the points of the rule.
    near : KroneckerSum
        The operator where it is separable, and what preconditions it elsewhere.
    exact : bool
        Whether `near` is the operator.
    iterations : int
        Of GMRES, all solves together.
    """

    system: Galerkin
    slope: Array | None
    near: KroneckerSum = field(init=False)
    exact: bool = field(init=False)
    iterations: int = 0

    def __post_init__(self) -> None:
        shift = 0.0
        if self.slope is not None:
            weights = [m.rule[1] / m.rule[1].sum() for m in self.system.modes]
            mean = self.slope
            for w in weights:
                mean = np.tensordot(w, mean, (0, 0))
            shift = float(mean)
        self.exact = self.system.separable and self.slope is None
        self.near = self.system.kronecker_sum(shift)

    def apply(self, free: Array) -> Array:
        """The operator on a combination of free functions, projected.

        Parameters
        ----------
        free : ndarray
        """
        coefficients = self.system.expand(free)
        image = self.system.apply(coefficients)
        if self.slope is None:
            return image
        return image + self.system.project(self.slope * self.system.values(coefficients))

    def solve(self, right: Array, rtol: float = RTOL) -> Array:
        """Its inverse: exact, or by GMRES to a relative residual.

        Parameters
        ----------
        right : ndarray
        rtol : float
        """
        if self.exact:
            return self.near.solve(right)
        shape, size = right.shape, right.size

        # Preconditioned from the left: the residual is then that of u rather than of its second derivatives, whose
        # rounding alone would be above the tolerance.
        def image(vector: Array) -> Array:
            return self.near.solve(self.apply(vector.reshape(shape))).ravel()

        operator = LinearOperator((size, size), matvec=image, dtype=float)
        result = gmres(operator, self.near.solve(right).ravel(), rtol=rtol, restart=RESTART, maxiter=CYCLES)
        self.iterations += result.iterations
        return result.x.reshape(shape)


@dataclass(frozen=True, eq=False)
class Solved:
    """Coefficients, and how they were found.

    Attributes
    ----------
    coefficients : ndarray
        U.
    linearised : Linearised
        The operator at the solution.
    steps : int
        Of Newton's method; 1 for a linear problem.
    converged : bool
        Whether the last step was below the tolerance.
    history : list of dict
        Size of every step, relative to u.
    """

    coefficients: Array
    linearised: Linearised
    steps: int
    converged: bool
    history: list[dict[str, Any]]


def solve_projected(system: Galerkin, start: Array | None = None) -> Solved:
    """Solve ``P (L u + R(u) - f) = 0`` with the given boundary values.

    Newton's method with backtracking, from `start` or else from the solution without the reaction. A step is accepted
    if the residual falls, halved up to ten times otherwise.

    Parameters
    ----------
    system : Galerkin
    start : ndarray, optional
        Coefficients to begin with.

    Returns
    -------
    Solved
    """
    boundary = system.lifted_boundary()
    f = system.project(system.right_hand_side())
    reaction = system.problem.reaction
    linear = Linearised(system, None)
    free = linear.solve(f - system.apply(boundary))
    if reaction is None:
        return Solved(boundary + system.expand(free), linear, 1, True, [])

    def residual(free: Array) -> tuple[Array, Array]:
        coefficients = boundary + system.expand(free)
        values = system.values(coefficients)
        return system.apply(coefficients) + system.project(reaction.value(values)) - f, values

    if start is not None:
        free = _restrict(system, start - boundary)
    now, values = residual(free)
    history: list[dict[str, Any]] = []
    for step in range(1, MOST_STEPS + 1):
        # Far from the solution an exact step is no better than one to a few digits.
        linearised = Linearised(system, reaction.slope(values))
        change = linearised.solve(now, 1e-10)
        scale, length = np.linalg.norm(free) + np.linalg.norm(boundary), 1.0
        for _ in range(10):
            trial = free - length * change
            then, values_then = residual(trial)
            if np.linalg.norm(linearised.near.solve(then)) < np.linalg.norm(linearised.near.solve(now)):
                break
            length /= 2
        size = length * float(np.linalg.norm(change) / max(scale, np.finfo(float).tiny))
        history.append({"newton_step": step, "size": size, "length": length, "gmres": linearised.iterations})
        if size > 1e-11 or length == 1.0:
            free, now, values = trial, then, values_then
        if size < 1e-11:
            return Solved(boundary + system.expand(free), linearised, step, True, history)
        if not math.isfinite(size):
            break
    return Solved(boundary + system.expand(free), linearised, step, False, history)


def _restrict(system: Galerkin, coefficients: Array) -> Array:
    """Free coefficients of a function that vanishes where values are given."""
    for axis, part in enumerate(system.axes):
        coefficients = np.moveaxis(np.tensordot(part.free.T, coefficients, (1, axis)), 0, axis)
    return coefficients
