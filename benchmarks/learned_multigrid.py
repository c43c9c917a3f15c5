"""The learned multigrid against everything classical: all families of systems, won or lost, 64^2 to 1024^2, to 1e-8.

python -m benchmarks.learned_multigrid            # 15 minutes on a quiet core; run it again after an interruption
python -m benchmarks.learned_multigrid --quick    # 64^2 to 256^2, a few minutes
python -m benchmarks.learned_multigrid --table    # of what is measured so far

The classical multigrid is tuned: for each family every smoother (points, lines along either axis, along both) with
either cycle (V, W) and one or two sweeps solves systems of other seeds at 128^2, and the fastest is taken, measured as
here, set-up included. ``same cost`` is the one of these with the fewest iterations among those whose cycle, measured on
the very system, takes at most 1.05 times what the learned one's takes.

Seconds are CPU time of one thread, set-up included, the least of several rounds in which the methods take turns; every
round begins with another of them, and each runs twice in its turn, since what ran before decides whose memory is warm.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from safetensors import safe_open
from threadpoolctl import threadpool_limits

from benchmarks.harness import RESULTS, machine
from operators.models.deep_conjugate_directions import DEFAULT, LearnedMultigrid
from operators.models.preconditioner_systems import families
from solvers import AMG, FastPoisson, IncompleteCholesky, Multigrid, StencilOperator, cg

SIZES = (64, 128, 256, 512, 1024)
SEEDS = {64: (0, 1, 2), 128: (0, 1, 2), 256: (0, 1), 512: (0, 1), 1024: (0,)}
TUNING_SEEDS, TUNING_SIZE = (100, 101), 128
SETTINGS = list(product(("point", (0,), (1,), (0, 1)), ("V", "W"), (1, 2)))
RTOL = 1e-8
# Beyond this many unknowns the methods that grow with the grid take minutes, and say nothing new.
SLOW = {"ic": 300_000, "cg": 300_000, "fast-poisson": 300_000, "amg": 300_000}
Build = Callable[[], Any]


def classical(setting: tuple[Any, ...]) -> Multigrid:
    """Multigrid with a setting: smoother, cycle, sweeps."""
    smoother, cycle, sweeps = setting
    return Multigrid(tuple(smoother) if isinstance(smoother, list) else smoother, cycle, sweeps, sweeps)


def solve(build: Build, A: StencilOperator, b: np.ndarray) -> tuple[float, int, str]:
    """Seconds of set-up and solve, iterations, status; the true residual is what the solver certifies."""
    began = process_time()
    try:
        M = build()
        result = cg(A, b, rtol=RTOL, M=M.setup(A) if M is not None else None, maxiter=20_000)
    except ValueError as error:  # fast Poisson does not take masks
        return float("nan"), 0, str(error)
    return process_time() - began, result.iterations, result.status.name


def system(family: str, n: int, seed: int) -> tuple[StencilOperator, np.ndarray]:
    """A system, and a white right-hand side."""
    A = families[family](n, np.random.default_rng([n, seed]))
    return A, np.random.default_rng(seed).standard_normal(A.shape[0])


def tune(family: str) -> list[tuple[float, tuple[Any, ...]]]:
    """All settings by the seconds that they take for the tuning systems, the fastest first."""
    systems = [system(family, TUNING_SIZE, seed) for seed in TUNING_SEEDS]
    for setting in SETTINGS:
        solve(lambda setting=setting: classical(setting), *systems[0])
    seconds = dict.fromkeys(SETTINGS, 0.0)
    for setting in SETTINGS:
        for A, b in systems:
            seconds[setting] += min(solve(lambda: classical(setting), A, b)[0] for _ in range(3))  # noqa: B023
    return sorted((spent, setting) for setting, spent in seconds.items())


def methods(tuned: tuple[Any, ...], n: int) -> dict[str, Build]:
    every: dict[str, Build] = {
        "learned": LearnedMultigrid,
        "multigrid tuned": lambda: classical(tuned),
        "multigrid auto": Multigrid,
        "fast-poisson": FastPoisson,
        "amg": AMG,
        "ic": IncompleteCholesky,
        "cg": lambda: None,
    }
    return {name: build for name, build in every.items() if n * n <= SLOW.get(name, 10**9)}


def measure(family: str, n: int, seed: int, tuned: tuple[Any, ...], rounds: int) -> Iterator[dict[str, Any]]:
    """One row for each method."""
    A, b = system(family, n, seed)
    builds = methods(tuned, n)
    found: dict[str, list[tuple[float, int, str]]] = {name: [] for name in builds}
    for turn in range(rounds):
        names = list(builds)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            if found[name] and (name in SLOW or found[name][0][2] != "CONVERGED"):
                continue
            found[name].append(solve(builds[name], A, b))
            if name not in SLOW:  # again, with its memory warm
                found[name].append(solve(builds[name], A, b))
    for name, runs in found.items():
        seconds, iterations, status = min(runs)
        row = {"family": family, "n": n, "seed": seed, "unknowns": A.shape[0], "method": name}
        row |= {"iterations": iterations, "seconds": seconds, "status": status}
        if name == "learned":
            M = LearnedMultigrid().setup(A)
            row |= {"learned": M.learned, "cycle": str(M)}
            if M.learned:
                row["same cost"] = min(same_cost(M, A, b))
        yield row


def same_cost(M: Multigrid, A: StencilOperator, b: np.ndarray) -> Iterator[tuple[int, str]]:
    """Iterations and setting of every classical cycle that costs what that of M does, or less."""
    budget = 1.05 * cycle_seconds(M, b)
    for setting in SETTINGS:
        other = classical(setting).setup(A)
        if cycle_seconds(other, b) <= budget:
            _, iterations, status = solve(lambda setting=setting: classical(setting), A, b)
            if status == "CONVERGED":
                yield iterations, str(setting)


def cycle_seconds(M: Multigrid, b: np.ndarray) -> float:
    """CPU time of one cycle, the least of several."""
    times = []
    for _ in range(9):
        began = process_time()
        M.matvec(b)
        times.append(process_time() - began)
    return min(times[1:])


def run(out: Path, sizes: tuple[int, ...], rounds: int) -> dict[str, Any]:
    """Measure what the file does not hold yet."""
    record: dict[str, Any] = {"tuned": {}, "rows": []}
    if out.exists():
        record = json.loads(out.read_text())
    record.setdefault("machines", []).append(machine())
    with safe_open(DEFAULT, "numpy") as file:
        record["checkpoint"] = file.metadata()

    def save() -> None:
        beside = out.with_suffix(".part")
        beside.write_text(json.dumps(record, indent=1))
        beside.replace(out)

    done = {(row["family"], row["n"], row["seed"]) for row in record["rows"]}
    with threadpool_limits(1):
        for family in families:
            if family not in record["tuned"]:
                record["tuned"][family] = [[spent, list(setting)] for spent, setting in tune(family)]
                save()
        for n in sizes:
            for family in families:
                for seed in SEEDS[n]:
                    if (family, n, seed) not in done:
                        tuned = record["tuned"][family][0][1]
                        record["rows"] += measure(family, n, seed, tuned, rounds)
                        save()
                print(table(record, only=(family, n)), flush=True)
    return record


def table(record: dict[str, Any], only: tuple[str, int] | None = None) -> str:
    """Iterations / milliseconds of every method, means over the seeds, and what the learned one gains."""
    names = ["learned", "multigrid tuned", "multigrid auto", "fast-poisson", "amg", "ic", "cg"]
    lines = (
        []
        if only
        else ["| system | n | " + " | ".join(names) + " | tuned setting | its/same cost | seconds/tuned | break-even |"]
    )
    lines += [] if only else ["|---" * (len(names) + 6) + "|"]
    training = float((record.get("checkpoint") or {}).get("seconds", "nan"))
    for family, n in dict.fromkeys((row["family"], row["n"]) for row in record["rows"]):
        if only and (family, n) != only:
            continue
        rows = [row for row in record["rows"] if (row["family"], row["n"]) == (family, n)]
        cells, seconds, iterations = [], {}, {}
        for name in names:
            own = [row for row in rows if row["method"] == name]
            good = [row for row in own if row["status"] == "CONVERGED"]
            if not own or len(good) < len(own):
                cells.append("-")
                continue
            iterations[name] = float(np.mean([row["iterations"] for row in good]))
            seconds[name] = float(np.mean([row["seconds"] for row in good]))
            cells.append(f"{iterations[name]:.3g} / {1e3 * seconds[name]:.3g} ms")
        same = [row["same cost"][0] for row in rows if "same cost" in row]
        smoother, cycle, sweeps = record["tuned"][family][0][1]
        gain = seconds["multigrid tuned"] - seconds["learned"]
        is_learned = any(row.get("learned") for row in rows)
        even = f"{training / gain:,.0f}" if is_learned and gain > 0 else "never" if is_learned else "not learned"
        fewer = f"{iterations['learned'] / np.mean(same):.2f}" if same else "-"
        cells += [f"{smoother} {cycle}({sweeps},{sweeps})", fewer]
        cells += [f"{seconds['learned'] / seconds['multigrid tuned']:.2f}", even]
        lines.append(f"| {family} | {n} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="up to 256^2")
    parser.add_argument("--table", action="store_true", help="of what is measured so far; measure nothing")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "learned_multigrid.json")
    chosen = parser.parse_args()
    if not chosen.table:
        run(chosen.out, SIZES[:3] if chosen.quick else SIZES, chosen.rounds)
    print(table(json.loads(chosen.out.read_text())))


if __name__ == "__main__":
    main()
