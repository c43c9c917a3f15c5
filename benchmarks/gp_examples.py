"""The worked examples of docs/gp.md: their figures and pictures.

    python -m benchmarks.gp_examples                      # all: about two minutes of one core
    python -m benchmarks.gp_examples --only calibration   # fusion, coefficient, calibration
    python -m benchmarks.gp_examples --quick              # 5 draws instead of 100, pictures in a temporary folder

Results are in results/gp_examples.json, pictures in docs/images. The draws of the calibration are kept as they come, in
results/gp_examples/; the same command goes on from them.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from scipy.special import erfinv
from threadpoolctl import threadpool_limits

from benchmarks.harness import RESULTS
from operators.gp import Problem, laplacian, partial, solve
from operators.gp.conditioning import DensePosterior
from operators.gp.functionals import at
from operators.gp.problems import tensor_points

IMAGES = Path(__file__).parents[1] / "docs" / "images"
LEVELS = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99])
UNIT_SQUARE = [(0.0, 1.0), (0.0, 1.0)]


# -- The examples ----------------------------------------------------------------------------------------------------


def temperature(p: np.ndarray) -> np.ndarray:
    """The truth in a plate: no draw from any prior, with a part that its sources do not explain."""
    x, y = p.T
    return np.sin(3 * x) * np.cos(2 * y) + 0.3 * (x**2 - y**2)


def sources(p: np.ndarray) -> np.ndarray:
    """Its Laplacian."""
    return -13 * np.sin(3 * p[:, 0]) * np.cos(2 * p[:, 1])


def wave(p: np.ndarray) -> np.ndarray:
    """Two harmonics that travel at 0.7."""
    phase = 2 * np.pi * (p[:, 0] - 0.7 * p[:, 1])
    return np.sin(phase) + 0.5 * np.cos(2 * phase)


def plate() -> Problem:
    """Known sources, and nothing known on the sides."""
    return Problem(UNIT_SQUARE, laplacian(2), sources, 0.0, 10, faces=[])


def channel() -> Problem:
    """u_t + c u_x = 0 in (x, t), nothing known at first or where the flow enters, and c guessed."""
    operator = partial(0, 1) + partial(1, 0).named("speed")
    return Problem(UNIT_SQUARE, operator, 0.0, 0.0, 12, faces=[], parameters={"speed": 0.3})


def string() -> Problem:
    """A string under a known load: T u'' = -sin 3x, ends and tension unknown."""
    load = lambda p: -np.sin(3 * p[:, 0])  # noqa: E731
    return Problem([(0, 2)], partial(2).named("tension"), load, 0.0, 16, faces=[], parameters={"tension": 1.0})


def shape(p: np.ndarray) -> np.ndarray:
    """The string's, under a tension of 0.25."""
    return np.sin(3 * p[:, 0]) / (9 * 0.25)


def fusion(images: Path) -> dict[str, Any]:
    """Sixty noisy thermometers in a plate, with and without the equation."""
    rng = np.random.default_rng(0)
    x, noise = rng.random((60, 2)), 0.05
    readings = temperature(x) + noise * rng.standard_normal(60)
    solution = solve(plate(), observations=(x, readings, noise))
    alone = DensePosterior(solution.diagnostics.kernel, [at(x)], readings, np.full(60, noise))
    axis = np.linspace(0, 1, 61)
    grid = tensor_points([axis, axis])
    truth, mean, std = temperature(grid), solution(grid), solution.std(grid)
    without = alone.mean(grid, (0, 0))

    figure, panels = plt.subplots(1, 4, figsize=(13, 3.2), layout="constrained")
    shown = [
        (truth, "truth, and where it was read", "viridis"),
        (mean, "mean, equation and readings", "viridis"),
        (np.abs(without - truth), "error of the readings alone", "magma"),
        (np.abs(mean - truth), "error with the equation", "magma"),
    ]
    limit = np.abs(without - truth).max()
    for panel, (values, title, colours) in zip(panels, shown, strict=True):
        limits = dict(vmin=truth.min(), vmax=truth.max()) if colours == "viridis" else dict(vmin=0, vmax=limit)
        image = panel.imshow(values.reshape(61, 61).T, origin="lower", extent=(0, 1, 0, 1), cmap=colours, **limits)
        panel.set_title(title, fontsize=9)
        figure.colorbar(image, ax=panel, shrink=0.8)
    panels[0].plot(*x.T, "w.", markersize=4)
    figure.savefig(images / "gp-fusion.png", dpi=110)
    plt.close(figure)

    def size(error: np.ndarray) -> float:
        return float(np.sqrt(np.mean(error**2)))

    return {
        "noise": noise,
        "rmse_readings_alone": size(without - truth),
        "rmse_with_equation": size(mean - truth),
        "mean_std": float(std.mean()),
        "inside_95": float(np.mean(np.abs(mean - truth) < 1.96 * std)),
        "residual_between_nodes": solution.diagnostics.residual,
        "seconds": solution.diagnostics.seconds,
    }


def coefficient(images: Path) -> dict[str, Any]:
    """The speed of a wave, from fifty noisy readings in space and time."""
    rng = np.random.default_rng(1)
    x, noise = rng.random((50, 2)), 0.2
    readings = wave(x) + noise * rng.standard_normal(50)
    solution = solve(channel(), observations=(x, readings, noise), unknowns=["speed"])
    speed = solution.unknowns["speed"]
    axis = np.linspace(0, 1, 61)
    grid = tensor_points([axis, axis])
    mean, std = solution(grid).reshape(61, 61), solution.std(grid).reshape(61, 61)
    truth = wave(grid).reshape(61, 61)

    figure, panels = plt.subplots(1, 4, figsize=(13, 3.2), layout="constrained")
    for panel, values, title in (
        (panels[0], truth, "truth, and where it was read"),
        (panels[1], mean, "mean"),
        (panels[2], std, "standard deviation"),
    ):
        image = panel.imshow(values.T, origin="lower", extent=(0, 1, 0, 1), cmap="viridis")
        panel.set(title=title, xlabel="x", ylabel="t")
        figure.colorbar(image, ax=panel, shrink=0.8)
    panels[0].plot(*x.T, "w.", markersize=4)
    c = np.linspace(speed.value - 4 * speed.std, speed.value + 4 * speed.std, 200)
    panels[3].fill_between(c, np.exp(-0.5 * ((c - speed.value) / speed.std) ** 2), alpha=0.4)
    panels[3].axvline(0.7, color="k", linewidth=1)
    panels[3].set(title="speed: posterior, and truth", xlabel="c", yticks=[])
    figure.savefig(images / "gp-coefficient.png", dpi=110)
    plt.close(figure)
    return {
        "truth": 0.7,
        "first_guess": 0.3,
        "value": speed.value,
        "std": speed.std,
        "noise": noise,
        "rmse": float(np.sqrt(np.mean((mean - truth) ** 2))),
        "seconds": solution.diagnostics.seconds,
    }


# -- Calibration -----------------------------------------------------------------------------------------------------

Draw = Callable[[int], dict[str, Any]]


def scores(problem: Problem, truth: Callable, places: np.ndarray, noise: float, seed: int, unknowns: list[str]) -> Any:
    """|error| over standard deviation at 300 points, from one draw of the noise; the solution too."""
    d = problem.dimension
    low, high = np.array(problem.domain).T
    wanted = low + (high - low) * np.random.default_rng(1).random((300, d))
    readings = truth(places) + noise * np.random.default_rng(seed).standard_normal(len(places))
    solution = solve(problem, observations=(places, readings, noise), unknowns=unknowns)
    return np.abs(solution(wanted) - truth(wanted)) / solution.std(wanted), solution


def draw_plate(seed: int) -> dict[str, Any]:
    """The plate of the first example."""
    score, _ = scores(plate(), temperature, np.random.default_rng(0).random((60, 2)), 0.05, seed, [])
    return {"scores": score.tolist()}


def draw_string(seed: int) -> dict[str, Any]:
    """The string, with its tension."""
    score, solution = scores(string(), shape, np.linspace(0, 2, 30)[:, None], 0.01, seed, ["tension"])
    found = solution.unknowns["tension"]
    return {"scores": score.tolist(), "coefficient": abs(found.value - 0.25) / found.std}


def draw_channel(seed: int) -> dict[str, Any]:
    """The wave of the second example, with its speed."""
    score, solution = scores(channel(), wave, np.random.default_rng(1).random((50, 2)), 0.2, seed, ["speed"])
    found = solution.unknowns["speed"]
    return {"scores": score.tolist(), "coefficient": abs(found.value - 0.7) / found.std}


CASES: dict[str, Draw] = {"plate": draw_plate, "string": draw_string, "wave": draw_channel}


def calibration(images: Path, draws: int, folder: Path, report: bool = False) -> dict[str, Any]:
    """How often bands hold the truth, over draws of the noise; kernel parameters are chosen anew from each.

    A report is of the draws that there are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    figure, panel = plt.subplots(figsize=(4.5, 4.2), layout="constrained")
    panel.plot([0, 1], [0, 1], "k", linewidth=0.8)
    widths = np.sqrt(2) * erfinv(LEVELS)
    for name, draw in CASES.items():
        log = folder / f"{name}.jsonl"
        done = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        with log.open("a") as file:
            for seed in range(len(done), 0 if report else draws):
                done.append(draw(seed))
                file.write(json.dumps(done[-1]) + "\n")
                file.flush()
        score = np.array([one["scores"] for one in done[:draws]])
        coverage = (score[..., None] < widths).mean((0, 1))
        found[name] = {
            "draws": len(score),
            "coverage_of_95": float((score < 1.96).mean()),
            "levels": LEVELS.tolist(),
            "coverage": coverage.tolist(),
        }
        if "coefficient" in done[0]:
            inside = [one["coefficient"] < 1.96 for one in done[:draws]]
            found[name]["coverage_of_95_of_the_coefficient"] = float(np.mean(inside))
        panel.plot(LEVELS, coverage, "o-", markersize=4, label=name)
    panel.set(xlabel="what the band claims", ylabel="how often it holds the truth", xlim=(0, 1), ylim=(0, 1))
    panel.legend()
    figure.savefig(images / "gp-calibration.png", dpi=110)
    plt.close(figure)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=["fusion", "coefficient", "calibration"])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--report", action="store_true", help="calibration from the draws that there are")
    parser.add_argument("--out", type=Path, default=RESULTS / "gp_examples.json")
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp()) if options.quick else None
    images = scratch or IMAGES
    out = scratch / "gp_examples.json" if scratch else options.out
    results = json.loads(out.read_text()) if out.exists() else {}
    chosen = options.only or ["fusion", "coefficient", "calibration"]
    with threadpool_limits(1):
        for name in chosen:
            began = time.process_time()
            if name == "fusion":
                results[name] = fusion(images)
            elif name == "coefficient":
                results[name] = coefficient(images)
            else:
                results[name] = calibration(images, 5 if scratch else 100, out.with_suffix(""), options.report)
            print(name, json.dumps(results[name]), f"{time.process_time() - began:.1f} s CPU")
            out.write_text(json.dumps(results, indent=2) + "\n")
    if scratch:
        print("pictures and results are in", scratch)


if __name__ == "__main__":
    main()
