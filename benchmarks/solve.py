"""`cg` against scipy's, per iteration; `solve` on Poisson and Darcy problems against scipy and PyAMG.

python -m benchmarks.solve
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyamg
import scipy.sparse as sp
import scipy.sparse.linalg as sla

from benchmarks.harness import Answer, Entry, main
from solvers import StencilOperator, cg, gallery, solve


def relative_residual(A: sp.csr_array, b: np.ndarray) -> Callable[[np.ndarray], float]:
    """x -> ||b - A x|| / ||b||."""
    return lambda x: float(np.linalg.norm(b - A @ x) / np.linalg.norm(b))


def scipy_cg(A: sp.csr_array, b: np.ndarray, rtol: float) -> Answer:
    """scipy's cg, its iterations counted by the callback as a user would."""
    count = [0]

    def callback(_: np.ndarray) -> None:
        count[0] += 1

    x, _ = sla.cg(A, b, rtol=rtol, callback=callback)
    return Answer(x, count[0])


def pyamg_cg(A: sp.csr_matrix, b: np.ndarray, rtol: float, build: Callable[[Any], Any]) -> Answer:
    """PyAMG's hierarchy, default options, as preconditioner of its own cg."""
    residuals: list[float] = []
    x = build(A).solve(b, tol=rtol, maxiter=200, accel="cg", residuals=residuals)
    return Answer(x, len(residuals) - 1)


def overhead(shape: tuple[int, ...], rtol: float = 1e-8) -> Entry:
    """One iteration of cg, ours and scipy's, on the same CSR matrix."""
    operator = gallery.poisson(shape)
    A = operator.tocsr()
    b = np.random.default_rng(0).standard_normal(A.shape[0])

    def ours(matrix: Any) -> Answer:
        result = cg(matrix, b, rtol=rtol)
        return Answer(result.x, result.iterations)

    return Entry(
        name=f"cg, one iteration, n = {A.shape[0]}",
        problem=f"Poisson on {shape} interior nodes, Dirichlet, standard normal b, rtol {rtol:g}",
        peers={
            "southwell cg, CSR": lambda: ours(A),
            "southwell cg, StencilOperator": lambda: ours(operator),
            "scipy cg, CSR": lambda: scipy_cg(A, b, rtol),
        },
        # scipy tests the residual of its recurrence, which may be a little smaller than the true one
        error=relative_residual(A, b),
        tolerance=1.1 * rtol,
        agreement=1e-2,  # the residual is rtol, the error up to cond(A) = 4e5 times that
        facts={"unknowns": A.shape[0], "rtol": rtol},
        per_iteration=True,
    )


def whole_solve(name: str, operator: StencilOperator, problem: str, rtol: float = 1e-8) -> Entry:
    """Set-up and one solve, from the CSR matrix; ours once more from the StencilOperator."""
    A = operator.tocsr()
    matrix = sp.csr_matrix(A)
    n = A.shape[0]
    b = np.ones(n)

    def ours(given: Any) -> Answer:
        result = solve(given, b, rtol=rtol)
        return Answer(result.x, result.iterations)

    return Entry(
        name=name,
        problem=f"{problem}, b = 1, rtol {rtol:g}, set-up included",
        peers={
            "southwell solve, CSR": lambda: ours(A),
            "southwell solve, StencilOperator": lambda: ours(operator),
            "scipy spsolve": lambda: Answer(sla.spsolve(A.tocsc(), b)),
            "scipy cg": lambda: scipy_cg(A, b, rtol),
            "pyamg Ruge-Stueben + cg": lambda: pyamg_cg(matrix, b, rtol, pyamg.ruge_stuben_solver),
            "pyamg smoothed aggregation + cg": lambda: pyamg_cg(matrix, b, rtol, pyamg.smoothed_aggregation_solver),
        },
        error=relative_residual(A, b),
        tolerance=1.1 * rtol,
        agreement=1e-4,
        facts={"unknowns": n, "rtol": rtol},
    )


def entries() -> list[Entry]:
    """All entries of this file."""
    chosen = [overhead((100,)), overhead((1000,)), overhead((100, 100))]
    for size in (64, 256):
        coefficient = np.where(np.random.default_rng(1).random((size, size)) < 0.5, 3.0, 12.0)
        grid = f"{size} x {size} interior nodes, Dirichlet"
        chosen.append(whole_solve(f"Poisson {size}^2", gallery.poisson((size, size)), f"Poisson on {grid}"))
        chosen.append(
            whole_solve(
                f"Darcy {size}^2",
                gallery.diffusion(coefficient),
                f"Darcy on {grid}, coefficient 3 or 12 at random in each cell, harmonic face averages",
            )
        )
    return chosen


if __name__ == "__main__":
    main(entries, "solve")
