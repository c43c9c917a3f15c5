"""Black-box multigrid: Darcy problems in two and three dimensions against scipy and PyAMG, and many small systems.

python -m benchmarks.multigrid    # CHOLMOD and hypre take part where scikit-sparse and Debian's petsc4py are installed
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyamg
import scipy.sparse as sp
import scipy.sparse.linalg as sla
from scipy.fft import idctn

from benchmarks.harness import Answer, Entry, main
from benchmarks.petsc import OPTIONS, Petsc, available, reference_seconds
from benchmarks.solve import pyamg_cg, relative_residual
from solvers import Multigrid, StencilOperator, gallery, solve

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


def bytes_moved(operator: StencilOperator) -> float:
    """What an iteration of cg with multigrid moves: each array once for each pass over it, writes counted once.

    A V(1,1)-cycle goes down and up the levels. Down, a level reads its diagonal, its links, its weights and its right
    side (the finest one the residual in double precision, which it writes down in single) and writes its iterate; up,
    the same without the writing down, and the iterate is read and written. The rest of an iteration in double
    precision: p = z + beta p and A p with half of the matrix, the residual and its norm, x.
    """
    chosen = Multigrid().setup(operator)._ready()[0].plan
    single = 0.0
    for level, layout in enumerate(chosen.layouts[:-1]):
        weights = 3 ** len(chosen.shape) - 1
        coefficients = layout.points * (1 + len(layout.links)) + chosen.layouts[level + 1].points * weights
        single += 2 * coefficients + layout.points * (3 + 3)
    n = operator.shape[0]
    half = (len(operator.offsets) + 1) // 2
    double = n * (1 + (half + 3) + 3 + 3)
    return 4.0 * single + 8.0 * double


def ours(A: Any, b: np.ndarray, traffic: float) -> Answer:
    """What a user does: solve() chooses, recognises the grid in a CSR matrix, sets up, solves and checks."""
    result = solve(A, b, rtol=RTOL)
    return Answer(result.x, result.iterations, bytes_moved=traffic * result.iterations)


def amg_options() -> dict[str, Callable[[Any], Any]]:
    """PyAMG's hierarchies: both defaults, and the best that other options gave."""
    return {
        "pyamg Ruge-Stueben + cg": pyamg.ruge_stuben_solver,
        "pyamg Ruge-Stueben, direct interpolation + cg": lambda A: pyamg.ruge_stuben_solver(
            A, CF=("RS", {"second_pass": False}), interpolation="direct"
        ),
        "pyamg Ruge-Stueben, PMIS + cg": lambda A: pyamg.ruge_stuben_solver(A, CF="PMIS"),
        "pyamg smoothed aggregation + cg": pyamg.smoothed_aggregation_solver,
    }


def cholmod(A: sp.csr_array, b: np.ndarray) -> dict[str, Callable[[], Answer]]:
    """Numerical factorisation and solve, the symbolic analysis made before; none without scikit-sparse."""
    try:
        from sksparse.cholmod import analyze
    except ImportError:
        return {}
    matrix = sp.csc_matrix(A)

    def peer(**options: str) -> Callable[[], Answer]:
        symbolic = analyze(matrix, **options)
        return lambda: Answer(symbolic.cholesky(matrix)(b))

    return {
        "CHOLMOD, symbolic analysis reused": peer(),
        "CHOLMOD, supernodal, nested dissection, reused": peer(mode="supernodal", ordering_method="nesdis"),
    }


def hypre(A: sp.csr_array, b: np.ndarray, names: list[str]) -> tuple[dict[str, Callable[[], Answer]], dict[str, Any]]:
    """BoomerAMG with cg in a process of its own, and the facts of that process; none without Debian's petsc4py."""
    if not available():
        return {}, {}
    process = Petsc(A, b)

    def peer(options: dict[str, str]) -> Callable[[], Answer]:
        def run() -> Answer:
            answer = process.solve(options, RTOL)
            return Answer(answer["x"], answer["iterations"], seconds=tuple(answer["seconds"]))

        return run

    facts = {"petsc process": process.facts, "reference_seconds": reference_seconds()}
    return {name: peer(OPTIONS[name]) for name in names}, facts


def darcy(kind: str, shape: tuple[int, ...], direct: bool = False, every_peer: bool = False) -> Entry:
    """One Darcy problem, set-up and solve to 1e-8."""
    operator = gallery.diffusion(coefficient(kind, shape))
    A = operator.tocsr()
    matrix = sp.csr_matrix(A)
    b = np.ones(A.shape[0])
    traffic = bytes_moved(operator)  # here: it takes a set-up, which is not to be timed
    peers: dict[str, Callable[[], Answer]] = {
        "southwell solve, CSR": lambda: ours(A, b, traffic),
        "southwell solve, StencilOperator": lambda: ours(operator, b, traffic),
    }
    builders = amg_options() if every_peer else {"pyamg Ruge-Stueben + cg": pyamg.ruge_stuben_solver}
    for name, build in builders.items():
        peers[name] = lambda build=build: pyamg_cg(matrix, b, RTOL, build)  # type: ignore[misc]
    facts: dict[str, Any] = {}
    if every_peer:
        boomer, facts = hypre(A, b, list(OPTIONS))
        peers |= boomer | cholmod(A, b)
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
        facts={"unknowns": A.shape[0], "rtol": RTOL, "centring": "node", **facts},
    )


def many(count: int = 100) -> Entry:
    """A loop over small systems, each with its own coefficient."""
    operators = [gallery.diffusion(np.exp(gaussian_field((64, 64), seed))) for seed in range(count)]
    matrices = [operator.tocsr() for operator in operators]
    b = np.ones(operators[0].shape[0])

    def each(given: list[Any]) -> Answer:
        results = [solve(A, b, rtol=RTOL) for A in given]
        return Answer(np.concatenate([result.x for result in results]), results[0].iterations)

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
        peers={
            "southwell solve, CSR": lambda: each(matrices),
            "southwell solve, StencilOperator": lambda: each(operators),
            "scipy splu": direct,
        },
        error=error,
        tolerance=1.1 * RTOL,
        agreement=1e-4,
        facts={"unknowns": b.size, "systems": count, "rtol": RTOL},
    )


def entries() -> list[Entry]:
    """All entries of this file."""
    chosen = [many()]
    for kind in ("binary", "lognormal"):
        chosen += [darcy(kind, (n, n), direct=n <= 421, every_peer=n == 421) for n in (64, 128, 256, 421, 1024)]
        chosen += [darcy(kind, (n, n, n)) for n in (32, 64)]
    return [*chosen, darcy("binary", (128, 128, 128)), darcy("lognormal", (128, 128, 128))]


if __name__ == "__main__":
    main(entries, "multigrid")
