"""The published algorithm of GP-HM, run as its authors run it, beside the errors in their logs.

    python -m benchmarks.gp_adam                    # sin 100x with both kernels: about 10 minutes
    python -m benchmarks.gp_adam --rows sin100-gaussian --quick
    python -m benchmarks.gp_adam --rows sin6cos100-gaussian x-sin200-student

A run is written down twenty times, and the same command goes on from there; results are in results/gp_adam.json.
The authors give the smallest error of twenty checkpoints, judged by the true solution; both that and the last one,
which is what a user has, are written down. The solver itself never sees the solution. Errors are relative, in L2, on
300 equally spaced points, as theirs.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.harness import RESULTS
from operators.gp import AllenCahn, Poisson, Problem, Solution
from operators.gp.adam import solve_adam


@dataclass(frozen=True)
class Row:
    """A line of the authors' logs: solution, its f, kernel, F, nodes, steps; their error and seconds."""

    exact: Callable[[np.ndarray], np.ndarray]
    rhs: Callable[[np.ndarray], np.ndarray]
    kernel: str
    max_frequency: float
    nodes: int
    error: float
    seconds: float
    equation: type[Problem] = Poisson
    iterations: int = 100_000


def product(x: np.ndarray) -> np.ndarray:
    """sin 6x cos 100x, as a sum of two sines."""
    return (np.sin(106 * x) - np.sin(94 * x)) / 2


ROWS = {
    "sin100-gaussian": Row(
        lambda x: np.sin(100 * x), lambda x: -1e4 * np.sin(100 * x), "gaussian", 30, 400, 4.0e-7, 1329
    ),
    "sin100-student": Row(
        lambda x: np.sin(100 * x), lambda x: -1e4 * np.sin(100 * x), "student", 30, 400, 6.5e-7, 1665
    ),
    "sin6cos100-gaussian": Row(
        product,
        lambda x: (94**2 * np.sin(94 * x) - 106**2 * np.sin(106 * x)) / 2,
        "gaussian",
        30,
        400,
        1.5e-6,
        1329,
    ),
    "x-sin200-student": Row(
        lambda x: x * np.sin(200 * x),
        lambda x: 400 * np.cos(200 * x) - 4e4 * x * np.sin(200 * x),
        "student",
        50,
        900,
        9.0e-7,
        7451,
    ),
    "allen-cahn-sin100-gaussian": Row(
        lambda x: np.sin(100 * x),
        lambda x: -1e4 * np.sin(100 * x) + np.sin(100 * x) * (np.sin(100 * x) ** 2 - 1),
        "gaussian",
        20,
        400,
        7.7e-7,
        1998,
        AllenCahn,
    ),
}


def run(name: str, iterations: int, folder: Path) -> dict[str, Any]:
    """One row, from wherever an earlier run of it ended."""
    row = ROWS[name]
    problem = row.equation([(0, 2 * np.pi)], lambda p: row.rhs(p[:, 0]), lambda p: row.exact(p[:, 0]), row.nodes)  # type: ignore[call-arg]
    x = np.linspace(0, 2 * np.pi, 300)[:, None]
    truth = row.exact(x[:, 0])
    # One line a checkpoint, so that a killed run keeps those before.
    log = folder / f"{name}-{iterations}.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    clock = [time.process_time()]

    def told(step: int, solution: Solution) -> None:
        error = float(np.linalg.norm(solution(x) - truth) / np.linalg.norm(truth))
        now = time.process_time()
        line = {"step": step, "error": error, "residual": solution.diagnostics.residual, "cpu": now - clock[0]}
        clock[0] = now
        with log.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(name, line, flush=True)

    with threadpool_limits(1):
        solve_adam(
            problem,
            kernel=row.kernel,
            max_frequency=row.max_frequency,
            iterations=iterations,
            checkpoint=log.with_suffix(".pt"),
            callback=told,
        )
    return summary(name, iterations, folder)


def summary(name: str, iterations: int, folder: Path) -> dict[str, Any]:
    """What a run has come to, ended or not."""
    row = ROWS[name]
    log = folder / f"{name}-{iterations}.jsonl"
    steps = {line["step"]: line for line in map(json.loads, log.read_text().splitlines())}
    lines = [steps[step] for step in sorted(steps)]
    return {
        "name": name,
        "iterations": iterations,
        "smallest_error": min(line["error"] for line in lines),
        "last_error": lines[-1]["error"],
        "last_residual": lines[-1]["residual"],
        "cpu_seconds": sum(line["cpu"] for line in lines),
        "authors_smallest_error": row.error,
        "authors_seconds": row.seconds,
        "times_authors_error": min(line["error"] for line in lines) / row.error,
        "checkpoints": lines,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=["sin100-gaussian", "sin100-student"], choices=sorted(ROWS))
    parser.add_argument("--quick", action="store_true", help="a hundredth of the steps, to see that it runs")
    parser.add_argument("--report", action="store_true", help="only write down what earlier runs have come to")
    parser.add_argument("--out", type=Path, default=RESULTS / "gp_adam.json")
    options = parser.parse_args()
    found = json.loads(options.out.read_text()) if options.out.exists() and not options.quick else {}
    for name in options.rows:
        iterations = ROWS[name].iterations // (100 if options.quick else 1)
        found[name] = (summary if options.report else run)(name, iterations, options.out.with_suffix(""))
        print(json.dumps({key: value for key, value in found[name].items() if key != "checkpoints"}, indent=2))
        if not options.quick:
            options.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
