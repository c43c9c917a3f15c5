"""How well the residual between the nodes predicts the error: many kernels, good and bad, on each problem.

    python -m benchmarks.gp_residual            # a minute of one core
    python -m benchmarks.gp_residual --quick    # three problems

For every problem in one dimension of benchmarks.gp, and one in two, the prior's band of frequencies is taken from 0.3
to 3 times what `operators.gp.solve` chooses, so that some solutions are right to rounding and some are nonsense. The
residual knows nothing of the exact solution. Results are in results/gp_residual.json, the picture in docs/images.
"""

import argparse
import json
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import spearmanr
from threadpoolctl import threadpool_limits

from benchmarks.gp import Row, difference, rows, test_axes
from benchmarks.gp_examples import IMAGES
from benchmarks.harness import RESULTS
from operators.gp import Poisson, solve
from operators.gp.frequencies import guess_bands, mixture, nyquist, spectrum
from operators.gp.problems import tensor_points

FACTORS = (0.3, 0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 3.0)


def plane(p: np.ndarray) -> np.ndarray:
    """sin 6x cos 20x + sin 6y cos 20y."""
    return (np.sin(6 * p) * np.cos(20 * p)).sum(1)


def plane_source(p: np.ndarray) -> np.ndarray:
    """Its Laplacian."""
    return (-(6**2 + 20**2) * np.sin(6 * p) * np.cos(20 * p) - 240 * np.cos(6 * p) * np.sin(20 * p)).sum(1)


def pairs(row: Row) -> list[tuple[float, float]]:
    """Residual and error of each band."""
    problem = row.make()
    spectra = [spectrum(problem, axis) for axis in range(problem.dimension)]
    bands = guess_bands(problem, spectra)
    axes = test_axes(problem)
    exact = row.exact(tensor_points(axes))
    found = []
    for factor in FACTORS:
        scaled = [min(factor * band, nyquist(problem, axis)) for axis, band in enumerate(bands)]
        solution = solve(problem, kernel=mixture(problem, "gaussian", scaled, spectra))
        found.append((solution.diagnostics.residual, difference(solution.on_grid(axes), exact)))
    return found


def main() -> None:
    """Measure, draw and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    two = Row(
        "2D sin 6x cos 20x + sin 6y cos 20y",
        lambda: Poisson([(0, 2 * np.pi)] * 2, plane_source, plane, 140),
        plane,
        "",
        1e-4,
        1e-6,
        20,
    )
    chosen = [row for row in rows() if row.make().dimension == 1] + [two]
    result: dict[str, Any] = {}
    figure, panel = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    ends = np.array([1e-13, 10.0])
    panel.plot(ends, ends, "k", linewidth=0.8)
    panel.set(xlabel="residual between the nodes", ylabel="relative L2 error")
    with threadpool_limits(1):
        for row in chosen[:3] if options.quick else chosen:
            found = np.array(pairs(row))
            rank = float(spearmanr(found[:, 0], found[:, 1]).statistic)
            result[row.name] = {"residual": found[:, 0].tolist(), "error": found[:, 1].tolist(), "spearman": rank}
            print(f"{row.name}: rank correlation {rank:.2f}", flush=True)
            panel.loglog(*np.maximum(found.T, 1e-16), "o", markersize=4, label=row.name)
            panel.legend(fontsize=6)
            if not options.quick:  # after every row, so that nothing is lost
                figure.savefig(IMAGES / "gp-residual.png", dpi=110)
                (RESULTS / "gp_residual.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
