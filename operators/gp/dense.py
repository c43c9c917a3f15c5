"""Scattered noisy observations fused with an equation, and coefficients of the equation that nobody knows.

Parameters theta of the kernel, and unknown coefficients, are those of the largest evidence ``log p(data | theta)``.
The width of its peak (Laplace) is their uncertainty, and goes into that of u, ``var(x) = E var(x | theta) + var E(x |
theta)``.

Nonlinear equations are linearised at the mean and solved again until it stays (Gauss and Newton; Chen et al. 2021,
arXiv 2103.12959, section 3).
"""

import copy
import math
import time
from collections.abc import Sequence
from typing import Any

from operators.gp.conditioning import FIRST_NUGGET
from operators.gp.judge import residual
from operators.gp.kernels import Kernel
from operators.gp.knowledge import Knowledge, as_observations
from operators.gp.problems import Problem
from operators.gp.search import Search
from operators.gp.solution import Diagnostics, Evidence, Inferred, Solution

MOST_ROWS = 10_000
"""Nodes and observations; the covariance of so many takes 0.8 GB."""
NEWTON_STEPS, NEWTON_RTOL = 30, 1e-5


def solve_dense(
    problem: Problem, *, observations: Any = None, unknowns: Sequence[str] = (), kernel: Kernel | str = "gaussian"
) -> Solution:
    """The exact posterior of u, given a problem and scattered observations.

    Parameters
    ----------
    problem : Problem
        Its nodes and the observations are at most 10,000.
    observations : Observations or (points, values, noise), optional
        At most 5,000; the noise is a standard deviation, one or ``(n,)``, or None: it is inferred then.
    unknowns : sequence of str
        Parameters of the problem to infer; their values in the problem are where the search begins, and their signs
        stay.
    kernel : Kernel or str
        A kernel, taken as it is, or the family "gaussian" or "student": one component an axis (squared exponential,
        Matern-5/2), or a comb of frequencies that f and boundary data have, whichever foresees the data better.

    Returns
    -------
    Solution

    Raises
    ------
    ValueError, TypeError
        If something does not fit: with which argument, what was expected, what was got.

    Examples
    --------
    A string under a known load, its ends unknown, and its tension inferred from thirty noisy readings of its shape:

    >>> import numpy as np
    >>> from operators.gp import partial
    >>> load = lambda x: -np.sin(3 * x[:, 0])
    >>> tension = partial(2).named("tension")
    >>> problem = Problem([(0, 2)], tension, load, 0.0, 20, faces=[], parameters={"tension": 1.0})
    >>> x = np.linspace(0, 2, 30)[:, None]
    >>> shape = np.sin(3 * x[:, 0]) / (9 * 0.25)
    >>> noise = 0.01 * np.random.default_rng(0).standard_normal(30)
    >>> solution = solve_dense(problem, observations=(x, shape + noise, 0.01), unknowns=["tension"])
    >>> tension = solution.unknowns["tension"]
    >>> bool(abs(tension.value - 0.25) < 3 * tension.std), bool(tension.std < 0.01)
    (True, True)
    """
    began = time.perf_counter()
    known = Knowledge.of(problem, as_observations(problem, observations))
    if len(known) > MOST_ROWS:
        raise ValueError(
            f"nodes and observations together must be at most {MOST_ROWS} here, got {len(known)}: take fewer nodes, "
            "no more than it takes to resolve u"
        )
    if isinstance(kernel, Kernel):
        require_smooth(kernel, problem)
    search = Search(known, _as_unknowns(problem, unknowns, len(known.values)), kernel)
    peak = search.run()
    posterior, steps, converged = search.settle(known, peak.position, NEWTON_RTOL, NEWTON_STEPS)
    kernel_now, parameters, noise = search.setting(peak.position)
    found = copy.copy(problem)
    found.parameters = parameters
    notes = search.notes + (
        [] if known.noise is not None else [f"the noise's standard deviation, {noise:.4g}, was inferred"]
    )
    if not converged:
        notes.append("Newton's method did not converge: the mean is its last iterate")
    inferred = {}
    for name, place in search.places.items():
        inferred[name] = Inferred(parameters[name], search.deviation(peak, place))
        if not peak.bounded[place]:
            notes.append(f"{name} is not bounded on both sides by the data: its standard deviation is infinite")
    diagnostics = Diagnostics(
        method="dense Gaussian process, conditioned on equation, boundary data and observations",
        kernel=kernel_now,
        residual=residual(found, posterior),
        nugget=posterior.nugget,
        nugget_raised=round(math.log10(posterior.nugget / FIRST_NUGGET)),
        iterations=steps,
        converged=converged,
        seconds=time.perf_counter() - began,
        history=search.history,
        notes=notes,
    )
    return Solution(problem, search.mixed(posterior, peak), Evidence(posterior.log_evidence), diagnostics, inferred)


def require_smooth(kernel: Kernel, problem: Problem) -> None:
    """Refuse a kernel whose process has fewer derivatives than the operator takes.

    Parameters
    ----------
    kernel : Kernel
    problem : Problem
    """
    if kernel.dimension != problem.dimension:
        raise ValueError(f"kernel is of {kernel.dimension} coordinates, and the domain has {problem.dimension}")
    order = max(problem.operator.order_along(axis) for axis in range(problem.dimension))
    if 2 * order > kernel.smoothness:
        raise ValueError(
            f"kernel is not smooth enough: the operator takes {order} derivatives along an axis, so that it needs "
            f"{2 * order} continuous ones, and has {kernel.smoothness:g}; take GaussianMixture"
        )


def _as_unknowns(problem: Problem, unknowns: Sequence[str], observed: int) -> tuple[str, ...]:
    """Names of parameters of the problem, checked."""
    names = (unknowns,) if isinstance(unknowns, str) else tuple(dict.fromkeys(unknowns))
    if not names:
        return ()
    if strange := [name for name in names if name not in problem.parameters]:
        raise ValueError(
            f"unknowns must be names of the problem's parameters, {sorted(problem.parameters)}, got {strange}; "
            "operator.named(name) makes a coefficient one"
        )
    if zero := [name for name in names if problem.parameters[name] == 0]:
        raise ValueError(
            f"unknowns are searched by their logarithm: the problem must give {zero} a value that is not 0"
        )
    if not observed:
        raise ValueError(f"unknowns {list(names)} cannot be inferred without observations: give some")
    return names
