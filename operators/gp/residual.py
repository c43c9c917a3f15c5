"""How well a solution satisfies its equation between the nodes, where nobody asked it to."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from operators.gp.problems import Problem, tensor_points

Array = NDArray[np.floating]


def residual_between_nodes(problem: Problem, posterior: Any, parameters: Mapping[str, float] | None = None) -> float:
    """Root mean square of ``L u + R(u) - f`` midway between the nodes, over that of its terms.

    Parameters
    ----------
    problem : Problem
    posterior : Posterior
        Whose mean is u.
    parameters : mapping, optional
        Of the problem; its own by default.
    """
    axes = [(axis[1:] + axis[:-1]) / 2 for axis in problem.axes]
    points = tensor_points(axes)
    terms = [-problem.right_hand_side(points)]
    for term in problem.operator.terms:
        coefficient = term.at(points, problem.parameters if parameters is None else parameters)
        terms.append(coefficient * posterior.mean_on_grid(axes, term.orders).ravel())
    if problem.reaction is not None:
        still = (0,) * problem.dimension
        terms.append(np.asarray(problem.reaction.value(posterior.mean_on_grid(axes, still).ravel())))
    scale = np.sqrt(sum(np.mean(term**2) for term in terms))
    return float(np.sqrt(np.mean(sum(terms) ** 2)) / scale) if scale else 0.0
