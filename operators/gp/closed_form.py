"""Solve a problem on its grid: a kernel from the data, modes, one projected solve, and a judge between the nodes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from operators.gp.evidence_of_modes import log_evidence
from operators.gp.frequencies import check_nyquist, guess_bands, mixture, nyquist, spectrum
from operators.gp.galerkin import Galerkin
from operators.gp.judge import residual
from operators.gp.kernels import AxisKernel, Kernel, Product
from operators.gp.modes import modes
from operators.gp.modes_posterior import ModesPosterior
from operators.gp.newton import Solved, solve_projected
from operators.gp.problems import Problem
from operators.gp.solution import Diagnostics, Solution

Array = NDArray[np.floating]

GOOD_ENOUGH = 1e-9
"""A smaller residual between the nodes is rounding's: nothing is tried any more."""

WIDER = 1.4
MOST_TRIALS = 12

TAIL = 1e-9
"""Coefficients of the last tenth of the modes, relative to the largest: with more than this a band is too narrow."""


@dataclass(frozen=True, eq=False)
class Trial:
    """A kernel, the solution with it, and its residual between the nodes.

    Attributes
    ----------
    kernel : Product
        The prior.
    system : Galerkin
        The projected problem.
    solved : Solved
        Coefficients.
    residual : float
        Of equation and boundary data, between the nodes, see `operators.gp.judge`.
    """

    kernel: Product
    system: Galerkin
    solved: Solved
    residual: float

    @classmethod
    def of(cls, problem: Problem, kernel: Product) -> "Trial":
        """Solve with a kernel and judge.

        Parameters
        ----------
        problem : Problem
        kernel : Product
        """
        pieces = zip(kernel.factors, problem.domain, problem.nodes, strict=True)
        system = Galerkin(problem, [modes(factor, low, high, n) for factor, (low, high), n in pieces])
        solved = solve_projected(system)
        return cls(kernel, system, solved, residual(problem, ModesPosterior(system.modes, solved.coefficients)))

    def narrow_axes(self) -> list[int]:
        """Axes along which the last modes still matter."""
        size = np.abs(self.solved.coefficients)
        found = []
        for axis, count in enumerate(size.shape):
            others = tuple(a for a in range(size.ndim) if a != axis)
            along = size.max(axis=others) if others else size
            if along[-max(count // 10, 2) :].max() > TAIL * along.max():
                found.append(axis)
        return found


def solve_on_modes(problem: Problem, kernel: Kernel | str = "gaussian") -> Solution:
    """The posterior of u given the equation and its boundary data, axis by axis.

    A given kernel is taken as it is. Otherwise the bands that the data suggest are widened while that lowers the
    residual between the nodes; what has the smallest is taken. Nothing here knows the exact solution.

    Parameters
    ----------
    problem : Problem
        Each axis needs as many faces with data as the operator takes derivatives along it.
    kernel : Kernel or str
        A kernel of one coordinate or a product of those, or "gaussian" or "student".

    Returns
    -------
    Solution
    """
    began = time.perf_counter()
    check_faces(problem)
    if kernel == "student" and (order := max(map(problem.operator.order_along, range(problem.dimension)))) > 2:
        raise ValueError(f"kernel='student' is not smooth enough for {order} derivatives: take 'gaussian'")
    history: list[dict[str, Any]] = []
    if isinstance(kernel, str):
        trial = _search(problem, kernel, history)
    else:
        product = as_product(problem, kernel)
        trial = Trial.of(problem, product)
    coefficients, system = trial.solved.coefficients, trial.system
    volume = np.prod([high - low for low, high in problem.domain])
    size = float(np.linalg.norm(coefficients)) / np.sqrt(volume)
    amplitude = None if isinstance(kernel, str) else 1.0
    posterior = ModesPosterior(system.modes, coefficients, min(trial.residual, 1.0) * size, amplitude)
    shape = " x ".join(str(n) for n in system.shape)
    how = "closed form" if problem.linear else "Newton"
    inner = trial.solved.linearised
    solver = "fast diagonalisation" if inner.exact and not inner.near.triangular else "Bartels-Stewart"
    diagnostics = Diagnostics(
        method=f"{how} in {shape} modes, " + (solver if inner.exact else "GMRES with a Kronecker sum"),
        kernel=trial.kernel,
        residual=trial.residual,
        nugget=posterior.relative_noise / float(posterior.prior.max()),
        iterations=trial.solved.steps,
        converged=trial.solved.converged,
        seconds=time.perf_counter() - began,
        history=[*history, *trial.solved.history],
        notes=_notes(trial),
    )
    return Solution(problem, posterior, lambda: log_evidence(posterior, system, inner), diagnostics)


def check_faces(problem: Problem) -> None:
    """Refuse data on more or fewer faces than the equation takes.

    Parameters
    ----------
    problem : Problem
    """
    for axis in range(problem.dimension):
        order = problem.operator.order_along(axis)
        given = [face for face in problem.faces if face[0] == axis]
        if len(given) != order:
            raise ValueError(
                f"boundary data are {'missing' if len(given) < order else 'incompatible'}: the operator takes {order} "
                f"derivatives along axis {axis}, so that it needs values on as many of its faces, and faces has {given}"
            )


def as_product(problem: Problem, kernel: Kernel) -> Product:
    """A given kernel as one factor an axis, checked against equation and nodes.

    Parameters
    ----------
    problem : Problem
    kernel : Kernel
    """
    product = Product(kernel) if isinstance(kernel, AxisKernel) else kernel
    if not isinstance(product, Product):
        raise TypeError(f"kernel must be a Product of one factor an axis, got {kernel!r}")
    if product.dimension != problem.dimension:
        raise ValueError(f"kernel is of {product.dimension} coordinates, and domain has {problem.dimension}")
    for axis, factor in enumerate(product.factors):
        order = problem.operator.order_along(axis)
        if factor.smoothness < 2 * order:
            raise ValueError(
                f"kernel is not smooth enough: the operator takes {order} derivatives along axis {axis}, which needs "
                f"{2 * order} of the kernel, and it has {factor.smoothness:g}; take GaussianMixture"
            )
    check_nyquist(problem, product)
    return product


def _search(problem: Problem, family: str, history: list[dict[str, Any]]) -> Trial:
    """Widen bands while the residual falls or the last modes still matter, up to what the nodes hold."""
    spectra = [spectrum(problem, axis) for axis in range(problem.dimension)]
    limits = [nyquist(problem, axis) for axis in range(problem.dimension)]
    bands: Sequence[float] = guess_bands(problem, spectra)
    best, idle = None, 0
    for _ in range(MOST_TRIALS):
        trial = Trial.of(problem, mixture(problem, family, bands, spectra))
        history.append({"bands": list(bands), "modes": list(trial.system.shape), "residual": trial.residual})
        idle = 0 if best is None or trial.residual < 0.5 * best.residual else idle + 1
        if best is None or trial.residual < best.residual:
            best = trial
        narrow = trial.narrow_axes()
        factor = 2.0 if trial.residual > 1e-2 else WIDER
        among = narrow or range(problem.dimension)
        wider = [min(factor * b, limits[a]) if a in among else b for a, b in enumerate(bands)]
        # A residual that does not fall may still do so once a band is wide enough: 0.4 is no worse than 0.9.
        if best.residual < GOOD_ENOUGH or wider == list(bands) or (idle >= 2 and best.residual < 1e-2) or idle >= 5:
            break
        bands = wider
    assert best is not None
    return best


def _notes(trial: Trial) -> list[str]:
    """What a user should know."""
    notes = []
    if not trial.solved.converged:
        notes.append("Newton's method did not converge: the solution is its last iterate")
    if trial.residual > 1e-3:
        notes.append(
            f"the residual between the nodes is {trial.residual:.1e}: u is not resolved. Take more nodes, or a kernel "
            "with the right frequencies"
        )
    return notes
