"""Which method for which problem: what `docs/which-solver.md` says, measured, and what auto's choice costs beside it.

python -m benchmarks.which_solver
python -m benchmarks.which_solver --table    # of the results, as in docs/which-solver.md
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.spatial import Delaunay

import solvers
from benchmarks.harness import RESULTS, Answer, Entry, main
from benchmarks.multigrid import coefficient
from benchmarks.solve import relative_residual
from solvers import gallery, preconditioners, solve
from solvers.system import System

RTOL = 1e-8


def peer(A: Any, b: np.ndarray, method: str, M: str | None, null_space: str | None) -> Callable[[], Answer]:
    """One method with a preconditioner by name, set-up included. auto has to see a null space by itself."""

    def run() -> Answer:
        if method == "auto":
            result = solve(A, b, rtol=RTOL)
            return Answer(result.x, result.iterations, method=result.method)
        options = {} if M is None else {"M": preconditioners.build(M)}
        result = getattr(solvers, method)(A, b, rtol=RTOL, null_space=null_space, **options)
        return Answer(result.x, result.iterations)

    return run


def triangulation(n: int, seed: int = 0) -> sp.csr_array:
    """Graph Laplacian plus a small shift of a Delaunay triangulation of random points: definite, on no grid."""
    points = np.random.default_rng(seed).random((n, 2))
    corners = Delaunay(points).simplices
    edges = np.unique(np.sort(np.vstack([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]]), axis=1), axis=0)
    weights = 1 / np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1)
    graph = sp.coo_array((weights, edges.T), (n, n)).tocsr()
    graph = graph + graph.T
    return sp.csr_array(sp.diags_array(graph.sum(axis=1) + 1e-3) - graph)


def entry(name: str, problem: str, A: Any, candidates: list[str], columns: int = 1) -> Entry:
    """A problem and the methods to be tried on it, each as "method" or "method + preconditioner"."""
    matrix = A.tocsr() if hasattr(A, "tocsr") else A
    n = matrix.shape[0]
    rng = np.random.default_rng(5)
    b = rng.standard_normal((n, columns) if columns > 1 else n)
    null_space = "constant" if System(matrix).annihilates_constants else None
    if null_space:
        b -= b.mean(axis=0)
    peers = {}
    for label in ["auto", *candidates]:
        method, _, M = label.partition(" + ")
        peers[label] = peer(A, b, method, M or None, null_space)
    measure = relative_residual(matrix, b)
    return Entry(
        name=name,
        problem=f"{problem}; {n} unknowns, standard normal right-hand side{'s' if columns > 1 else ''}, rtol 1e-8",
        peers=peers,
        error=measure if columns == 1 else lambda x: float(np.linalg.norm(b - matrix @ x) / np.linalg.norm(b)),
        tolerance=1.1 * RTOL,
        agreement=1e-3,  # residuals of 1e-8, condition numbers up to 1e5
        facts={"unknowns": n, "rtol": RTOL, "columns": columns},
    )


def entries() -> list[Entry]:
    """All problem classes."""
    darcy = gallery.diffusion(coefficient("lognormal", (256, 256)))
    space = gallery.diffusion(coefficient("lognormal", (40, 40, 40)))
    small = gallery.diffusion(coefficient("binary", (64, 64)))
    definite = ["cg", "cg + jacobi", "cg + ic", "cg + amg", "direct"]
    grid = [*definite, "cg + multigrid"]
    general = ["gmres", "gmres + ilu", "gmres + amg", "gmres_dr + ilu", "bicgstab", "bicgstab + ilu", "direct"]
    return [
        entry("definite, 2D grid", "Darcy, lognormal, 256 x 256, StencilOperator", darcy, grid),
        entry("definite, 2D grid, CSR", "the same as a CSR matrix", darcy.tocsr(), grid),
        entry("definite, 3D grid", "Darcy, lognormal, 40 x 40 x 40", space, grid),
        entry("definite, small", "Darcy, binary 12/3, 64 x 64", small, grid),
        entry("constant coefficients", "Poisson, 256 x 256", gallery.poisson((256, 256)), [*grid]),
        entry("anisotropic", "1000 : 1, 256 x 256", gallery.anisotropic((256, 256), 1000.0), grid),
        entry("definite, no grid", "graph Laplacian of a triangulation", triangulation(40_000), definite),
        entry(
            "singular",
            "Poisson, Neumann, 128 x 128",
            gallery.poisson((128, 128), boundary="neumann"),
            ["cg", "cg + amg", "cg + multigrid", "direct"],
        ),
        entry("many right-hand sides", "Darcy, binary 12/3, 64 x 64", small, ["direct", "cg + multigrid"], columns=20),
        entry(
            "symmetric indefinite",
            "Helmholtz, 64 x 64, k h = 0.3",
            gallery.helmholtz((64, 64), wavenumber=0.3),
            ["minres", "direct"],
        ),
        entry(
            "symmetric indefinite, 3D",
            "Helmholtz, 24 x 24 x 24, k h = 0.5",
            gallery.helmholtz((24, 24, 24), wavenumber=0.5),
            ["minres", "minres + jacobi", "direct"],
        ),
        entry(
            "nonsymmetric",
            "convection-diffusion, 100 x 100, cell Peclet number 1",
            gallery.convection_diffusion((100, 100), velocity=(1.0, 0.5)),
            general,
        ),
        entry(
            "nonsymmetric, 3D",
            "convection-diffusion, 30 x 30 x 30, cell Peclet number 1",
            gallery.convection_diffusion((30, 30, 30), velocity=(1.0, 0.5, 0.25)),
            general,
        ),
    ]


def _short(milliseconds: float) -> str:
    return f"{milliseconds:,.0f}" if milliseconds >= 100 else f"{milliseconds:.2g}"


def table(report: dict[str, Any]) -> str:
    """One line for each problem class: what auto chose, and the others from the fastest on, with their milliseconds."""
    lines = ["| problem | unknowns | auto | others, fastest first |", "|---|---:|---|---|"]
    for entry in report["entries"]:
        peers = dict(entry["peers"])
        auto = peers.pop("auto")
        others = sorted((1e3 * peer["cpu_median"], name) for name, peer in peers.items())
        chosen = f"{auto['method']} {_short(1e3 * auto['cpu_median'])}"
        lines.append(
            f"| {entry['name']} | {entry['facts']['unknowns']:,} | {chosen} | "
            + ", ".join(f"{name} {_short(milliseconds)}" for milliseconds, name in others)
            + " |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    if "--table" in sys.argv:
        print(table(json.loads((RESULTS / "which_solver.json").read_text())))
    else:
        main(entries, "which_solver")
