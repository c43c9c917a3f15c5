"""Where sparse direct solution stops paying against CG + AMG: the figures behind the choice of `solve`.

python -m benchmarks.crossover
"""

import numpy as np

from benchmarks.harness import Answer, Entry, main
from benchmarks.solve import relative_residual
from solvers import AMG, cg, direct, gallery
from solvers.api import elimination_work


def crossing(shape: tuple[int, ...], rtol: float = 1e-8) -> Entry:
    """Set-up and one solve by factors and by both of PyAMG's hierarchies."""
    coefficient = np.where(np.random.default_rng(1).random(shape) < 0.5, 3.0, 12.0)
    A = gallery.diffusion(coefficient).tocsr()
    b = np.ones(A.shape[0])

    def conjugate_gradients(coarsening: str) -> Answer:
        result = cg(A, b, M=AMG(coarsening), rtol=rtol)  # type: ignore[arg-type]
        return Answer(result.x, result.iterations)

    return Entry(
        name=f"direct or AMG, {' x '.join(map(str, shape))}",
        problem=f"Darcy on {shape} interior nodes, Dirichlet, coefficient 3 or 12 at random, b = 1, rtol {rtol:g}",
        peers={
            "direct": lambda: Answer(direct(A, b, rtol=rtol).x),
            "cg + AMG, Ruge-Stueben": lambda: conjugate_gradients("ruge_stuben"),
            "cg + AMG, smoothed aggregation": lambda: conjugate_gradients("smoothed_aggregation"),
        },
        error=relative_residual(A, b),
        tolerance=rtol * (1 + 1e-6),
        agreement=1e-4,
        facts={"unknowns": A.shape[0], "rtol": rtol, "elimination_work": elimination_work(A)},
    )


def entries() -> list[Entry]:
    """2D and 3D sizes on both sides of the crossing."""
    shapes: list[tuple[int, ...]] = [(n, n) for n in (64, 96, 128, 192, 256)]
    shapes += [(n, n, n) for n in (10, 12, 14, 16, 20)]
    return [crossing(shape) for shape in shapes]


if __name__ == "__main__":
    main(entries, "crossover")
