"""Black-box multigrid: Darcy problems in two and three dimensions against scipy and PyAMG, and many small systems.

python -m benchmarks.multigrid
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyamg
import scipy.sparse as sp
import scipy.sparse.linalg as sla
from scipy.fft import idctn

from benchmarks.harness import Answer, Entry, main
from benchmarks.solve import pyamg_cg, relative_residual
from solvers import Multigrid, StencilOperator, cg, gallery
from solvers.detect import detect

RTOL = 1e-8


def gaussian_field(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Zero mean, standard deviation 1, spectrum (pi^2 k^2 + 9)^-2 in cosines: the usual field of Darcy data."""
    wavenumber = np.pi**2 * sum(index.astype(float) ** 2 for index in np.indices(shape))
    amplitude = np.random.default_rng(seed).standard_normal(shape) / (wavenumber + 9)
    amplitude.flat[0] = 0
    field = idctn(amplitude, norm="ortho")
    return np.asarray(field / field.std())


def coefficient(kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Binary: 12 where a Gaussian field is positive, 3 elsewhere; lognormal: its exponential."""
    field = gaussian_field(shape, seed=1)
    return np.where(field > 0, 12.0, 3.0) if kind == "binary" else np.exp(field)


def with_multigrid(operator: StencilOperator, b: np.ndarray) -> Answer:
    """Set-up and solve from the StencilOperator."""
    result = cg(operator, b, rtol=RTOL, M=Multigrid())
    return Answer(result.x, result.iterations)


def from_csr(A: sp.csr_array, b: np.ndarray) -> Answer:
    """Recognition of the grid, set-up and solve."""
    operator = detect(A)
    assert operator is not None
    return with_multigrid(operator, b)


def darcy(kind: str, shape: tuple[int, ...], direct: bool, every_amg: bool) -> Entry:
    """One Darcy problem, set-up and solve to 1e-8."""
    operator = gallery.diffusion(coefficient(kind, shape))
    A = operator.tocsr()
    matrix = sp.csr_matrix(A)
    b = np.ones(A.shape[0])
    peers: dict[str, Callable[[], Answer]] = {
        "southwell multigrid + cg, CSR": lambda: from_csr(A, b),
        "southwell multigrid + cg, StencilOperator": lambda: with_multigrid(operator, b),
        "pyamg Ruge-Stueben + cg": lambda: pyamg_cg(matrix, b, RTOL, pyamg.ruge_stuben_solver),
    }
    if every_amg:

        def without_second_pass(given: Any) -> Any:
            return pyamg.ruge_stuben_solver(given, CF=("RS", {"second_pass": False}), interpolation="direct")

        peers["pyamg Ruge-Stueben, direct interpolation + cg"] = lambda: pyamg_cg(matrix, b, RTOL, without_second_pass)
        peers["pyamg smoothed aggregation + cg"] = lambda: pyamg_cg(matrix, b, RTOL, pyamg.smoothed_aggregation_solver)
    if direct:
        peers["scipy spsolve"] = lambda: Answer(sla.spsolve(A.tocsc(), b))
    size = " x ".join(map(str, shape))
    return Entry(
        name=f"Darcy {kind} {size}",
        problem=(
            f"-div(a grad u) = 1 on {size} nodes inside the unit box, u = 0 on its boundary, harmonic face averages; a "
            + ("is 12 or 3 by the sign of" if kind == "binary" else "is exp of")
            + " a Gaussian field of standard deviation 1 with spectrum (pi^2 k^2 + 9)^-2; rtol 1e-8, set-up included"
        ),
        peers=peers,
        error=relative_residual(A, b),
        tolerance=1.1 * RTOL,
        agreement=1e-4,  # the residual is 1e-8, the condition number up to 1e6
        facts={"unknowns": A.shape[0], "rtol": RTOL, "centring": "node"},
    )


def many(count: int = 20) -> Entry:
    """A loop over small systems, each with its own coefficient."""
    operators = [gallery.diffusion(np.exp(gaussian_field((64, 64), seed))) for seed in range(count)]
    matrices = [operator.tocsr() for operator in operators]
    b = np.ones(operators[0].shape[0])

    def ours() -> Answer:
        answers = [with_multigrid(operator, b) for operator in operators]
        return Answer(np.concatenate([answer.x for answer in answers]), answers[0].iterations)

    def direct() -> Answer:
        return Answer(np.concatenate([sla.splu(A.tocsc()).solve(b) for A in matrices]))

    def error(x: np.ndarray) -> float:
        parts = x.reshape(count, -1)
        return max(
            float(np.linalg.norm(b - A @ part) / np.linalg.norm(b)) for A, part in zip(matrices, parts, strict=True)
        )

    return Entry(
        name=f"{count} Darcy systems 64 x 64",
        problem="lognormal coefficients as above, one after the other, set-up included, rtol 1e-8",
        peers={"southwell multigrid + cg, StencilOperator": ours, "scipy splu": direct},
        error=error,
        tolerance=1.1 * RTOL,
        agreement=1e-4,
        facts={"unknowns": b.size, "systems": count, "rtol": RTOL},
    )


def entries() -> list[Entry]:
    """All entries of this file."""
    chosen = [many()]
    for kind in ("binary", "lognormal"):
        chosen += [darcy(kind, (n, n), direct=n <= 421, every_amg=n == 421) for n in (64, 128, 256, 421, 1024)]
        chosen += [darcy(kind, (n, n, n), direct=False, every_amg=False) for n in (32, 64)]
    chosen.append(darcy("lognormal", (128, 128, 128), direct=False, every_amg=False))
    return chosen


if __name__ == "__main__":
    main(entries, "multigrid")
