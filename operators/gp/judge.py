"""How well a solution satisfies its problem where nobody asked it to: between the nodes."""

import math

import numpy as np
from numpy.typing import NDArray

from operators.gp.problems import Problem, tensor_points
from operators.gp.solution import Posterior

Array = NDArray[np.floating]


def residual(problem: Problem, posterior: Posterior) -> float:
    """The larger of two relative residuals midway between the nodes, of the equation and of the boundary data.

    Of the equation, the root mean square of ``L u + R(u) - f`` over that of its terms; a term counts as no smaller than
    it would be if u varied once over the box, so that constants and straight lines are not judged by their rounding. Of
    the boundary data, the largest error over the largest value of u.

    Parameters
    ----------
    problem : Problem
    posterior : Posterior
        Whose mean is u.
    """
    halfway = [(axis[1:] + axis[:-1]) / 2 for axis in problem.axes]
    points = tensor_points(halfway)
    still = (0,) * problem.dimension
    u = posterior.mean_on_grid(halfway, still).ravel()
    size = float(np.sqrt(np.mean(u**2)))
    f = problem.right_hand_side(points)
    wrong, scale = -f, float(np.mean(f**2))
    for term in problem.operator.terms:
        coefficient = term.at(points, problem.parameters)
        value = coefficient * posterior.mean_on_grid(halfway, term.orders).ravel()
        sides = zip(problem.domain, term.orders, strict=True)
        least = size * math.prod((2 * math.pi / (high - low)) ** order for (low, high), order in sides)
        wrong = wrong + value
        scale += max(float(np.mean(value**2)), float(np.mean(coefficient**2)) * least**2)
    if problem.reaction is not None:
        value = np.asarray(problem.reaction.value(u), float)
        wrong, scale = wrong + value, scale + float(np.mean(value**2))
    found = math.sqrt(float(np.mean(wrong**2)) / scale) if scale > 0 else 0.0

    largest, worst = float(np.abs(u).max()), 0.0
    for face in problem.faces:
        axes = list(halfway)
        axes[face[0]] = np.array([problem.domain[face[0]][face[1]]])
        given = problem.boundary_values(face, tensor_points(axes))
        mean = posterior.mean_on_grid(axes, still).ravel()
        worst, largest = max(worst, float(np.abs(mean - given).max())), max(largest, float(np.abs(given).max()))
    return max(found, worst / largest) if largest > 0 else found
