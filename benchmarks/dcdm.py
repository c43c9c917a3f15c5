"""The deep conjugate direction method as published: iterations to 1e-4 at the size it was trained on, and beyond.

    python -m benchmarks.dcdm runs/dcdm_2d/best.pt runs/dcdm_3d/best.pt --minutes 9    # goes on where it stopped
    python -m benchmarks.dcdm runs/dcdm_2d/best.pt --quick     # the trained size alone
    python -m benchmarks.dcdm --table                          # of the results, as in docs/closing-the-loop.md

Checkpoints come from ``experiment=dcdm_2d`` and ``dcdm_3d``. The matrix is the Poisson equation's with Dirichlet sides,
at the trained size the one of the training data; "jumps" has coefficients of 1 and 4 in blocks, which no network here
has seen. `conjugate_directions` remembers two directions, as published, and is left to its fallback (a gradient); how
many steps that took is counted. Beside it: CG, which needs no training; multigrid-CG; and on the box the sine transform
(`FastPoisson`), which is exact. All on one thread in the same process, one round: iterations are what is compared,
seconds are hints. The network computes in single precision on the CPU.
"""

import argparse
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from benchmarks.harness import RESULTS, machine
from operators.directions import Directions
from operators.predict import Predictor, load
from solvers import FastPoisson, Multigrid, Result, StencilOperator, cg, conjugate_directions, gallery

RESULT = RESULTS / "dcdm.json"
RTOL, MOST = 1e-4, 300
SIZES = {1: (64, 256), 2: (64, 128, 256, 512), 3: (32, 64, 96)}
FAMILIES = ("box", "jumps")


def right_hand_sides(A: StencilOperator) -> dict[str, np.ndarray]:
    """Sources by name: a plume's pair of bumps, ones, white noise, and A times noise, as training data begin."""
    rng = np.random.default_rng(0)
    axes = [np.arange(n) / n for n in A.grid_shape]
    points = np.meshgrid(*axes, indexing="ij")
    bumps = np.zeros(A.grid_shape)
    for sign, centre in ((1, 0.3), (-1, 0.65)):
        bumps += sign * np.exp(-sum((x - centre) ** 2 for x in points) / 0.005)
    noise = rng.standard_normal(A.shape[0])
    return {"plume": bumps.ravel(), "ones": np.ones(A.shape[0]), "noise": noise, "A noise": A @ noise}


def matrix(family: str, shape: tuple[int, ...]) -> StencilOperator:
    """The Poisson matrix of a box, or with coefficients of 1 and 4 in blocks."""
    return gallery.poisson(shape) if family == "box" else gallery.diffusion(gallery.jumps(shape))


def solvers(model: Predictor, A: StencilOperator, family: str) -> dict[str, Callable[[np.ndarray], Result]]:
    """Who takes part."""
    found: dict[str, Callable[[np.ndarray], Result]] = {
        "dcdm": lambda b: conjugate_directions(A, b, Directions(model, A), rtol=RTOL, maxiter=MOST),
        "cg": lambda b: cg(A, b, rtol=RTOL),
        "cg + multigrid": lambda b: cg(A, b, rtol=RTOL, M=Multigrid()),
    }
    if family == "box":
        found["sine transform"] = lambda b: cg(A, b, rtol=RTOL, M=FastPoisson())
    return found


def measure(model: Predictor, family: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """Iterations, replaced proposals and seconds of every solver on every right-hand side."""
    A = matrix(family, shape)
    runs: dict[str, Any] = {}
    for name, run in solvers(model, A, family).items():
        runs[name] = {}
        for source, b in right_hand_sides(A).items():
            if not runs[name] and name != "dcdm":
                run(b)  # compiles what compiles
            began, began_cpu = perf_counter(), process_time()
            result = run(b)
            replaced = re.search(r"the fallback took (\d+)", result.reason)
            runs[name][source] = {
                "status": result.status.name,
                "iterations": result.iterations,
                "replaced": int(replaced[1]) if replaced else 0,
                "relative_residual": result.residual_norm / float(np.linalg.norm(b)),
                "wall": perf_counter() - began,
                "cpu": process_time() - began_cpu,
            }
    return runs


def table(report: dict[str, Any]) -> str:
    """Iterations to 1e-4, a row a size, with those of the fallback in brackets."""
    lines = [
        "| trained on | solved on | source | DCDM | CG | multigrid-CG | seconds: DCDM | CG | multigrid-CG |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in report["rows"]:
        for source, run in row["runs"]["dcdm"].items():
            shown = f"{run['iterations']}" + (f" ({run['replaced']})" if run["replaced"] else "")
            if run["status"] != "CONVERGED":
                shown = f"> {run['iterations']}, {run['relative_residual']:.0e}"
            others = [row["runs"][name][source] for name in ("cg", "cg + multigrid")]
            cells = [" x ".join(map(str, row["trained"])), f"{row['family']} {' x '.join(map(str, row['shape']))}"]
            cells += [source, shown, *(str(other["iterations"]) for other in others)]
            cells += [f"{each['cpu']:.3g}" for each in (run, *others)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="iterations of the deep conjugate direction method")
    parser.add_argument("checkpoints", nargs="*", type=Path)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    report: dict[str, Any] = {"rows": []}
    if arguments.out.exists():
        report = json.loads(arguments.out.read_text())
    if arguments.table:
        print(table(report))
        return
    until = perf_counter() + 60 * arguments.minutes
    torch.set_num_threads(1)
    with threadpool_limits(1):
        report["machine"] = machine()
        for path in arguments.checkpoints:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
            model = load(path, "cpu")
            dimensions = len(model.grid)
            trained = [n - 2 for n in model.grid]  # nodes with both ends included, where u is given
            # Results of other weights for the same size are of the past.
            report["rows"] = [r for r in report["rows"] if r["trained"] != trained or r["checkpoint"] == digest]
            for size in SIZES[dimensions][: 1 if arguments.quick else None]:
                for family in FAMILIES:
                    shape = (size,) * dimensions
                    key = {"checkpoint": digest, "trained": trained, "family": family, "shape": list(shape)}
                    if any(all(row[k] == v for k, v in key.items()) for row in report["rows"]):
                        continue
                    if perf_counter() > until:
                        print("time is up; the same command goes on")
                        return
                    facts = {"parameters": model.parameter_count, "epochs": len(model.history)}
                    facts["training_seconds"] = sum(row["seconds"] for row in model.history)
                    facts["validation_loss"] = min((row["validation_loss"] for row in model.history), default=None)
                    report["rows"].append({**key, **facts, "runs": measure(model, family, shape)})
                    arguments.out.parent.mkdir(parents=True, exist_ok=True)
                    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print(table(report))


if __name__ == "__main__":
    main()
