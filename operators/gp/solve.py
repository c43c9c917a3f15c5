"""`solve`: the posterior of u, given an equation, boundary data and, where there are some, observations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from operators.gp.closed_form import solve_on_modes
from operators.gp.kernels import Kernel, Sum
from operators.gp.problems import Problem
from operators.gp.solution import Solution

Array = NDArray[np.floating]
MODES = ("closed_form", "newton", "adam")
FAMILIES = ("gaussian", "student")
MOST_OBSERVATIONS = 5000


@dataclass(frozen=True, eq=False)
class Observations:
    """Measured values of u at scattered points.

    Attributes
    ----------
    points : ndarray
        ``(n, d)``, in the box.
    values : ndarray
        ``(n,)``.
    noise : float or ndarray
        Standard deviation of the measurements, one for all or ``(n,)``; positive.
    """

    points: Array
    values: Array
    noise: float | Array


def solve(
    problem: Problem,
    *,
    observations: Observations | tuple[Any, Any, Any] | None = None,
    unknowns: Sequence[str] | None = None,
    kernel: Kernel | str = "gaussian",
    mode: str | None = None,
) -> Solution:
    """Solve a boundary value problem with a Gaussian process prior on u.

    Parameters
    ----------
    problem : Problem
        Equation, boundary data, grid.
    observations : Observations or (points, values, noise), optional
        Measurements of u, at most 5,000.
    unknowns : sequence of str, optional
        Parameters of the problem that are inferred from the observations, starting from the problem's values.
    kernel : Kernel or str
        A kernel to take as it is, or the family "gaussian" or "student" of spectral mixtures, whose frequencies are
        chosen from the data: see `operators.gp.frequencies`. A `Sum` has no modes axis by axis, and is solved densely.
    mode : str, optional
        "closed_form" (linear problems), "newton" (all), or "adam" (what Fang et al. 2024 do); by default the first of
        these that can solve the problem.

    Returns
    -------
    Solution

    Raises
    ------
    ValueError, TypeError
        With which argument, what was expected, what was got: nodes too few for the frequencies of the data (and how
        many it takes), boundary data missing or incompatible, a kernel not smooth enough for the operator.

    Examples
    --------
    >>> from operators.gp import AllenCahn
    >>> wave = lambda p: np.sin(9 * p[:, 0]) * np.cos(7 * p[:, 1])
    >>> problem = AllenCahn([(0, 1), (0, 1)], lambda p: -131 * wave(p) + wave(p) ** 3, wave, 30)
    >>> solution = solve(problem)
    >>> between = np.random.default_rng(0).uniform(size=(100, 2))
    >>> bool(np.abs(solution(between) - wave(between)).max() < 1e-8)
    True
    """
    if not isinstance(problem, Problem):
        raise TypeError(f"problem must be a Problem, such as Poisson(domain, rhs, boundary, nodes), got {problem!r}")
    if mode is not None and mode not in MODES:
        raise ValueError(f"mode must be one of {MODES}, got {mode!r}")
    if isinstance(kernel, str) and kernel not in FAMILIES:
        raise ValueError(f"kernel must be a Kernel or one of {FAMILIES}, got {kernel!r}")
    if mode == "closed_form" and not problem.linear:
        raise ValueError("mode='closed_form' solves linear problems, and this one has a reaction: take mode='newton'")
    # The seam: each of these solves alone, and takes the same plain arguments.
    if mode == "adam":
        from operators.gp.adam import solve_adam

        return solve_adam(problem, observations=observations, unknowns=unknowns, kernel=kernel)
    if observations is not None or unknowns:
        from operators.gp.dense import solve_dense

        return solve_dense(problem, observations=observations, unknowns=unknowns or (), kernel=kernel)
    if not _on_modes(problem, kernel):
        from operators.gp.dense import solve_dense

        return solve_dense(problem, kernel=kernel)
    return solve_on_modes(problem, kernel)


def _on_modes(problem: Problem, kernel: Kernel | str) -> bool:
    """Whether the kernel has modes axis by axis: mixtures and their products, no sums."""
    return not isinstance(kernel, Sum)
