"""Fast Poisson solvers against scipy's sine transforms and PyAMG, and as preconditioner against multigrid.

python -m benchmarks.fast_poisson
"""

from collections.abc import Callable
from math import log2, prod
from time import perf_counter
from typing import Any

import numpy as np
import pyamg
import scipy.sparse as sp
from scipy.fft import dstn, idstn

from benchmarks.harness import Answer, Entry, main
from benchmarks.multigrid import coefficient
from benchmarks.solve import pyamg_cg, relative_residual
from solvers import FastPoisson, Multigrid, cg, gallery, solve

RTOL = 1e-8


def dgemm_flops_per_second(n: int = 420) -> float:
    """Of numpy's matrix product on one core, out of the second-level cache as here."""
    a, b, out = np.ones((n, n)), np.ones((n, n)), np.empty((n, n))
    best = float("inf")
    for _ in range(20):
        started = perf_counter()
        np.matmul(a, b, out=out)
        best = min(best, perf_counter() - started)
    return 2.0 * n**3 / best


def eigenvalues(shape: tuple[int, ...]) -> np.ndarray:
    """Of `gallery.poisson` with Dirichlet sides, in the order of the sine transform."""
    total = np.zeros((1,) * len(shape))
    for axis, n in enumerate(shape):
        line = (2.0 * np.sin(np.pi * np.arange(1, n + 1) / (2 * (n + 1)))) ** 2
        total = total + line.reshape([-1 if other == axis else 1 for other in range(len(shape))])
    return total


def floors(shape: tuple[int, ...], M: FastPoisson) -> dict[str, float]:
    """What no implementation of the same method goes below: arithmetic of the transforms at the peak of dgemm.

    A fast transform there and back has 5 N log2 N operations a line, N = n + 1, a product in halves 2 n^2. Besides, b
    is read and x is written once.
    """
    operations = 0.0
    for axis in range(1, len(shape)):
        n = shape[axis]
        products = f"eigenvectors in 2 halves along axis {axis}" in str(M)
        operations += prod(shape) / n * (2.0 * n**2 if products else 5.0 * (n + 1) * log2(n + 1))
    if "odd-even" in str(M):
        operations /= 2.0
    return {"transform_operations": operations, "least_bytes": 16.0 * prod(shape)}


def transforms(field: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The peer: there, division, and back, with as few arrays as scipy.fft allows."""
    y = dstn(field, type=1)
    y /= values
    return idstn(y, type=1, overwrite_x=True).ravel()


def poisson(shape: tuple[int, ...], count: int = 1) -> Entry:
    """Poisson with Dirichlet sides and random right-hand sides, one after the other; of several, warm."""
    operator = gallery.poisson(shape)
    A = operator.tocsr()
    matrix = sp.csr_matrix(A)
    rhs = np.random.default_rng(0).standard_normal((count, A.shape[0]))
    ready = eigenvalues(shape)
    M = FastPoisson().setup(operator)

    def each(solver: Callable[[np.ndarray], np.ndarray]) -> Callable[[], Answer]:
        def peer() -> Answer:
            for b in rhs:
                x = solver(b)
            return Answer(x)

        return peer

    peers = {
        "southwell FastPoisson, set up": each(M.matvec),
        "southwell FastPoisson, with its set-up": each(lambda b: FastPoisson().setup(operator).matvec(b)),
        "southwell solve, StencilOperator": each(lambda b: solve(operator, b, rtol=RTOL).x),
        "southwell solve, CSR": each(lambda b: solve(A, b, rtol=RTOL).x),
        "scipy dstn, eigenvalues ready": each(lambda b: transforms(b.reshape(shape), ready)),
        "scipy dstn, with the eigenvalues": each(lambda b: transforms(b.reshape(shape), eigenvalues(shape))),
    }
    if count == 1:
        peers["pyamg Ruge-Stueben + cg"] = lambda: pyamg_cg(matrix, rhs[0], RTOL, pyamg.ruge_stuben_solver)
    size = " x ".join(map(str, shape))
    several = f", {count} right-hand sides" if count > 1 else ""
    return Entry(
        name=f"Poisson {size}{several}",
        problem=f"-laplacian u = f on {size} interior nodes, u = 0 on the boundary, f standard normal{several}",
        peers=peers,
        error=relative_residual(A, rhs[-1]),
        tolerance=1.1 * RTOL,
        agreement=1e-4,  # of pyamg, which stops at 1e-8; the others agree to rounding: see "difference"
        facts={
            "unknowns": A.shape[0],
            "right_hand_sides": count,
            "rtol": RTOL,
            "way": str(M),
            "dgemm_flops_per_second": dgemm_flops_per_second(),
            **floors(shape, M),
        },
    )


def darcy(shape: tuple[int, ...]) -> Entry:
    """A smooth lognormal coefficient, where the scaled form serves."""
    operator = gallery.diffusion(coefficient("lognormal", shape))
    A = operator.tocsr()
    matrix = sp.csr_matrix(A)
    b = np.ones(A.shape[0])

    def ours(M: Any) -> Answer:
        result = cg(operator, b, rtol=RTOL, M=M)
        return Answer(result.x, result.iterations)

    size = " x ".join(map(str, shape))
    return Entry(
        name=f"Darcy lognormal {size}",
        problem=(
            f"-div(a grad u) = 1 on {size} interior nodes, u = 0 on the boundary, a = exp of a Gaussian field of "
            "standard deviation 1 with spectrum (pi^2 k^2 + 9)^-2; rtol 1e-8, set-up included"
        ),
        peers={
            "southwell FastPoisson + cg": lambda: ours(FastPoisson()),
            "southwell FastPoisson without scaling + cg": lambda: ours(FastPoisson("none")),
            "southwell multigrid + cg": lambda: ours(Multigrid()),
            "pyamg Ruge-Stueben + cg": lambda: pyamg_cg(matrix, b, RTOL, pyamg.ruge_stuben_solver),
        },
        error=relative_residual(A, b),
        tolerance=1.1 * RTOL,
        agreement=1e-4,
        facts={"unknowns": A.shape[0], "rtol": RTOL},
    )


def entries() -> list[Entry]:
    """All entries of this file."""
    shapes = [(256,) * 2, (419,) * 2, (421,) * 2, (512,) * 2, (1024,) * 2, (64,) * 3, (96,) * 3, (128,) * 3]
    warm = [poisson(shape, count=20) for shape in shapes if prod(shape) < 300_000]
    return [*warm, *map(poisson, shapes), darcy((421, 421))]


if __name__ == "__main__":
    main(entries, "fast_poisson")
