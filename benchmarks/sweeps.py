"""SOR sweeps over 1024 x 1024 unknowns against PyAMG's compiled ones, and how many of them red-black order takes.

python -m benchmarks.sweeps
"""

from collections.abc import Callable
from math import pi, sin
from typing import Any

import numpy as np
import scipy.sparse as sp
from pyamg.relaxation import relaxation

from benchmarks.harness import Answer, Entry, main
from benchmarks.multigrid import coefficient
from benchmarks.solve import relative_residual
from solvers import StencilOperator, gallery, sor

OMEGA = 1.5
SWEEPS = 50
# Counted from the arrays that one sweep of a five-point operator passes over: see the headers of
# solvers/stationary/lexicographic.py and red_black.py; for PyAMG the matrix with its 32-bit indices, b, and x there and
# back.
BYTES = {"rows": 100, "varying": 48, "constant": 24, "pyamg": 88}


def ours(A: Any, b: np.ndarray, kind: str) -> Answer:
    """A fixed number of sweeps, arrangement of the matrix, norms of all residuals and the true last one included."""
    result = sor(A, b, omega=OMEGA, rtol=0.0, maxiter=SWEEPS)
    return Answer(result.x, result.iterations, float(BYTES[kind] * b.size * SWEEPS))


def pyamg_sor(A: sp.csr_matrix, b: np.ndarray, order: np.ndarray | None = None) -> Answer:
    """The same sweeps by PyAMG's C++ kernel (`amg_core.sor_gauss_seidel`), of a matrix and b in `order`."""
    x = np.zeros(b.size)
    relaxation.sor(A, x, b, omega=OMEGA, iterations=SWEEPS)
    if order is not None:
        back = np.empty_like(x)
        back[order] = x
        x = back
    return Answer(x, SWEEPS, float(BYTES["pyamg"] * b.size * SWEEPS))


def entry(name: str, problem: str, operator: StencilOperator, kind: str) -> Entry:
    """Sweeps by rows and by colours; PyAMG on the same matrix, and on that whose red points come first."""
    A = operator.tocsr()
    matrix = sp.csr_matrix(A)
    b = np.random.default_rng(3).standard_normal(A.shape[0])
    order = np.argsort(np.indices(operator.grid_shape).sum(axis=0).reshape(-1) % 2, kind="stable")
    coloured = sp.csr_matrix(A[order][:, order])
    permuted = b[order]
    if kind == "rows":
        peers: dict[str, Callable[[], Answer]] = {"southwell sor, CSR": lambda: ours(A, b, "rows")}
    else:
        peers = {
            "southwell sor, StencilOperator": lambda: ours(operator, b, kind),
            "pyamg sor, red points first": lambda: pyamg_sor(coloured, permuted, order),
        }
    if kind == "rows":
        peers["pyamg sor"] = lambda: pyamg_sor(matrix, b)
    return Entry(
        name=name,
        problem=f"{problem}, standard normal b, {SWEEPS} sweeps from zero with omega = {OMEGA}; seconds for one",
        peers=peers,
        error=relative_residual(A, b),
        tolerance=1.0,  # the iterates are compared: they are the same to rounding
        agreement=1e-12,
        facts={"unknowns": b.size, "sweeps": SWEEPS},
        per_iteration=True,
    )


def natural_order(operator: StencilOperator, name: str, problem: str) -> Entry:
    """The stencil's sweeps beside PyAMG's in the natural order, which is what a user would run: other iterates."""
    A = operator.tocsr()
    matrix = sp.csr_matrix(A)
    b = np.random.default_rng(3).standard_normal(A.shape[0])
    kind = "constant" if "constant" in name else "varying"
    return Entry(
        name=name,
        problem=f"{problem}, standard normal b, {SWEEPS} sweeps from zero with omega = {OMEGA}; seconds for one",
        peers={
            "southwell sor, StencilOperator": lambda: ours(operator, b, kind),
            "pyamg sor, natural order": lambda: pyamg_sor(matrix, b),
        },
        error=relative_residual(A, b),
        tolerance=1.0,
        agreement=1.0,  # two orders, two sequences of iterates: checked in the entry before
        facts={"unknowns": b.size, "sweeps": SWEEPS},
        per_iteration=True,
    )


def to_tolerance(size: int = 256) -> Entry:
    """SOR at Young's omega to 1e-8: red-black and natural order."""
    operator = gallery.poisson((size, size))
    A = operator.tocsr()
    b = np.random.default_rng(3).standard_normal(A.shape[0])
    omega = 2 / (1 + sin(pi / (size + 1)))

    def run(given: Any, kind: str) -> Answer:
        result = sor(given, b, omega=omega, rtol=1e-8)
        return Answer(result.x, result.iterations, float(BYTES[kind] * b.size * result.iterations))

    return Entry(
        name=f"SOR to 1e-8, Poisson {size} x {size}",
        problem="Young's omega, standard normal b; iterations are sweeps",
        peers={
            "southwell sor, StencilOperator (red-black)": lambda: run(operator, "constant"),
            "southwell sor, CSR (natural order)": lambda: run(A, "rows"),
        },
        error=relative_residual(A, b),
        tolerance=1e-8,
        agreement=1e-4,
        facts={"unknowns": b.size, "rtol": 1e-8, "omega": omega},
    )


def entries() -> list[Entry]:
    """All entries of this file."""
    shape = (1024, 1024)
    varying = gallery.diffusion(coefficient("binary", shape))
    constant = gallery.poisson(shape)
    darcy, poisson = "Darcy, binary 12/3, harmonic face averages, 1024 x 1024 nodes", "Poisson, 1024 x 1024 nodes"
    return [
        entry("sweep by rows", darcy, varying, "rows"),
        entry("red-black sweep, variable coefficients", darcy, varying, "varying"),
        entry("red-black sweep, constant coefficients", poisson, constant, "constant"),
        natural_order(varying, "variable coefficients, natural order", darcy),
        natural_order(constant, "constant coefficients, natural order", poisson),
        to_tolerance(),
    ]


if __name__ == "__main__":
    main(entries, "sweeps")
