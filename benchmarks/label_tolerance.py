"""What looser labels cost a trained operator, and what they save.

    python -m benchmarks.label_tolerance labels                # errors and costs of the labels: two minutes
    python -m benchmarks.label_tolerance train --minutes 9     # operators trained on them; goes on where it stopped
    python -m benchmarks.label_tolerance document              # tables and picture of docs/label-tolerance.md

Darcy flow, binary permeability, always the same draws. Labels are solved to a relative residual by methods whose errors
differ at one and the same residual, and compared with labels solved to 1e-10. The operator is the demo's, trained on
loose labels with loose validation labels, as it would be by whoever has no others, and measured twice: on test labels
as loose as those it was trained on, which is what that person sees, and on exact ones. Operators of one seed begin with
the same weights and see the samples in the same order, so that their differences are those of the labels.

Datasets and runs are in outputs/label_tolerance, results in results/label_tolerance: labels.json, and a file for each
method, tolerance and seed.
"""

import argparse
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter, process_time, strftime
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_module
from matplotlib.figure import Figure
from numpy.typing import NDArray
from omegaconf import OmegaConf
from threadpoolctl import threadpool_limits

from benchmarks.harness import RESULTS, machine
from datagen.family import seed_sequence
from datagen.generate import generate
from datagen.store import Spec, Store, open_store
from operators.metrics import measure
from operators.predict import load
from operators.trainer import train
from solvers import solve

FOLDER = RESULTS / "label_tolerance"
WORK = Path("outputs") / "label_tolerance"
SAMPLES = {"train": 600, "validation": 50, "test": 100}
MEASURED = 100  # of the training labels
METHODS = {"Gauss-Seidel": "gauss_seidel", "CG": "cg", "CG + multigrid": "auto"}  # auto: cg + Multigrid on this grid
TOLERANCES = (3e-1, 1e-1, 3e-2, 1e-2, 1e-3, 1e-6, 1e-8)
EXACT = ("CG + multigrid", 1e-10)
REFERENCE = ("CG + multigrid", 1e-6)
TRAINED = (  # the most telling first
    REFERENCE,
    ("Gauss-Seidel", 1e-1),
    ("CG", 1e-1),
    ("Gauss-Seidel", 3e-2),
    ("CG", 3e-1),
    ("CG + multigrid", 1e-1),
    ("CG", 3e-2),
    ("Gauss-Seidel", 1e-2),
    ("CG", 1e-2),
    ("CG", 1e-3),
)


def spec(method: str, rtol: float) -> Spec:
    """The dataset with labels of this method and tolerance; in float64, whose rounding is no error of a label."""
    darcy = {"name": "darcy", "grid": 64}
    return Spec(darcy, 7, SAMPLES, 150, {"method": METHODS[method], "rtol": rtol}, dtype="float64")


def dataset(method: str, rtol: float) -> Store:
    """That dataset, made if it is not there."""
    folder = WORK / f"{METHODS[method]}-{rtol:.0e}"
    return open_store(generate(spec(method, rtol), folder, executor="serial"))


def mean_error(prediction: NDArray[Any], truth: NDArray[Any], metric: str = "relative_l2") -> float:
    """Mean over the samples of a relative error."""
    return float(measure(prediction, truth, (False, False))[metric].mean())


# -- The labels ------------------------------------------------------------------------------------------------------


def labels() -> dict[str, Any]:
    """Every method and tolerance on the first training samples, in turns: cost, and distance from exact labels."""
    family = spec(*EXACT).family
    exact = dataset(*EXACT).read("train", "pressure", 0, MEASURED)
    pairs = [(method, rtol) for method in METHODS for rtol in TOLERANCES]
    errors = np.empty((len(pairs), *exact.shape), dtype=np.float32)
    iterations, cpu = np.empty((2, len(pairs), len(exact)))
    shuffle = np.random.default_rng(0)
    making, solvers = np.empty(len(exact)), [""] * len(pairs)
    for index, truth in enumerate(exact):
        began = process_time()
        sample = family.sample(np.random.default_rng(seed_sequence(7, family.name, "train", index, 0)))
        family.system(sample)
        making[index] = process_time() - began
        for place in shuffle.permutation(len(pairs)):  # what ran before leaves its traces in the caches
            method, rtol = pairs[place]
            system = family.system(sample)  # anew, so that nothing is remembered in it
            began = process_time()
            result = solve(system.A, system.b, METHODS[method], rtol=rtol)
            cpu[place, index] = process_time() - began
            iterations[place, index], solvers[place] = result.iterations, result.method
            errors[place, index] = system.to_field(result.x) - truth
    rows = []
    for place, (method, rtol) in enumerate(pairs):
        label = (exact + errors[place])[:, None]
        systematic = np.linalg.norm(errors[place].mean(axis=0, dtype=float)) / np.linalg.norm(exact.mean(axis=0))
        rows.append(
            {
                "method": method,
                "rtol": rtol,
                "solver": solvers[place],
                "relative_l2": mean_error(label, exact[:, None]),
                "relative_h1": mean_error(label, exact[:, None], "relative_h1"),
                "systematic": float(systematic),
                "iterations": float(iterations[place].mean()),
                "cpu_median": float(np.median(cpu[place])),
            }
        )
    return {"samples": MEASURED, "draw_and_assembly_cpu_median": float(np.median(making)), "rows": rows}


# -- The operators ---------------------------------------------------------------------------------------------------


def trained(method: str, rtol: float, seed: int) -> dict[str, Any]:
    """The demo's operator, trained on these labels, and its errors by loose and by exact test labels."""
    store, exact = dataset(method, rtol), dataset(*EXACT)
    for split in SAMPLES:  # a label that had failed would have been another draw's
        np.testing.assert_array_equal(store.read(split, "coefficient"), exact.read(split, "coefficient"))
    out = WORK / "runs" / f"{store.path.name}-{seed}"
    overrides = ["experiment=demo", f"dataset.path={store.path}", f"out={out}", f"seed={seed}", "trainer.device=cpu"]
    with initialize_config_module(version_base="1.3", config_module="configs"):
        config: Any = OmegaConf.to_container(compose("train", overrides), resolve=True)
    began = process_time()
    result = train(config, store)
    cpu = process_time() - began
    if not result.finished:  # SIGTERM; what is half trained is no result
        raise SystemExit(128 + signal.SIGTERM)
    predictor = load(out / "best.pt", "cpu")
    prediction = predictor.predict(exact.read("test", "coefficient")[:, None])
    return {
        "parameters": predictor.parameter_count,
        "epochs": len(result.history),
        "cpu_seconds_of_last_call": cpu,  # which may have resumed
        "test_relative_l2": mean_error(prediction, exact.read("test", "pressure")[:, None]),
        "test_relative_l2_by_own_labels": mean_error(prediction, store.read("test", "pressure")[:, None]),
    }


# -- Cells -----------------------------------------------------------------------------------------------------------


def write(path: Path, content: dict[str, Any]) -> None:
    """A result beside its place, then in it: what is there is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {"format_version": 1, "created": strftime("%Y-%m-%dT%H:%M:%S%z"), "machine": machine()}
    partly = path.with_suffix(".partial")
    partly.write_text(json.dumps(facts | content, indent=1) + "\n")
    partly.replace(path)


def missing(seeds: list[int], folder: Path = FOLDER) -> Iterator[tuple[Path, str, float, int]]:
    """Operators that are not trained yet, one seed after the other."""
    for seed in seeds:
        for method, rtol in TRAINED:
            path = folder / f"{METHODS[method]}-{rtol:.0e}-{seed}.json"
            if not path.exists():
                yield path, method, rtol, seed


def train_missing(seeds: list[int], minutes: float, folder: Path = FOLDER) -> None:
    """Train what is missing; begin nothing after so many minutes."""
    began = perf_counter()
    for path, method, rtol, seed in missing(seeds, folder):
        if perf_counter() - began > 60 * minutes:
            print("time is up; the same command goes on from here")
            return
        started = perf_counter()
        write(path, {"method": method, "rtol": rtol, "seed": seed, "samples": SAMPLES} | trained(method, rtol, seed))
        print(f"{path.stem}: {perf_counter() - started:.0f} s", flush=True)


# -- Tables and picture ----------------------------------------------------------------------------------------------


def results(folder: Path = FOLDER) -> tuple[dict[tuple[str, float], dict[str, Any]], dict[tuple[str, float], Any]]:
    """Rows of labels.json, and of each pair trained on the errors (seed: by exact labels, by own labels)."""
    rows = json.loads((folder / "labels.json").read_text())["rows"]
    errors: dict[tuple[str, float], dict[int, tuple[float, float]]] = {}
    for path in sorted(folder.glob("*-*-[0-9]*.json")):
        cell = json.loads(path.read_text())
        errors.setdefault((cell["method"], cell["rtol"]), {})[cell["seed"]] = (
            cell["test_relative_l2"],
            cell["test_relative_l2_by_own_labels"],
        )
    return {(row["method"], row["rtol"]): row for row in rows}, errors


def label_table(folder: Path = FOLDER) -> str:
    """Markdown: what the labels are, and what they cost."""
    lines = [
        "| method | rtol | error of the labels, L2 | H1 | systematic part | iterations | CPU ms a solve |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for (method, rtol), row in results(folder)[0].items():
        errors = (f"{row[name]:.1e}" for name in ("relative_l2", "relative_h1", "systematic"))
        cost = f"{row['iterations']:.0f} | {1e3 * row['cpu_median']:.2f}"
        lines.append(f"| {method} | {rtol:.0e} | {' | '.join(errors)} | {cost} |")
    return "\n".join(lines)


def operator_table(folder: Path = FOLDER) -> str:
    """Markdown: operators on exact and on their own test labels; means and standard deviations over seeds."""
    rows, errors = results(folder)
    order = sorted(errors, key=lambda pair: -rows[pair]["relative_l2"])
    lines = [
        "| trained on labels by | rtol | error of the labels | test error, exact labels | by its own labels "
        "| more than with 1e-6, paired | seeds |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for pair in order:
        seeds = sorted(errors[pair])
        exact, own = np.array([errors[pair][seed] for seed in seeds]).T
        paired = [errors[pair][seed][0] - errors[REFERENCE][seed][0] for seed in seeds if seed in errors[REFERENCE]]
        difference = "" if pair == REFERENCE else f"{100 * np.mean(paired):+.2f}{_spread(paired)}"
        cells = [
            f"{100 * rows[pair]['relative_l2']:.2g} %",
            f"{100 * exact.mean():.2f}{_spread(exact)} %",
            f"{100 * own.mean():.2f}{_spread(own)} %",
            difference,
            str(len(seeds)),
        ]
        lines.append(f"| {pair[0]} | {pair[1]:.0e} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: Any) -> str:
    return f" (sd {100 * np.std(values, ddof=1):.2f})" if len(values) > 1 else ""


def picture(folder: Path = FOLDER) -> Figure:
    """Left, what label errors add to the test error, seed by seed; right, the error of one label by three methods."""
    rows, errors = results(folder)
    figure = Figure(figsize=(11, 4), layout="constrained")
    axes, *maps = figure.subplots(1, 4, width_ratios=(2.2, 1, 1, 1))
    for method, marker, colour in zip(METHODS, "soD", ("C1", "C0", "C2"), strict=True):
        points = [
            (100 * rows[pair]["relative_l2"], 100 * (exact - errors[REFERENCE][seed][0]), 100 * (own - exact))
            for pair, seeds in errors.items()
            for seed, (exact, own) in seeds.items()
            if pair[0] == method and pair != REFERENCE and seed in errors[REFERENCE]
        ]
        label, more, seen = np.array(points).T
        axes.plot(label, more, marker, color=colour, label=method)
        axes.plot(label, more + seen, marker, color=colour, markerfacecolor="none")
    axes.axhline(0.0, color="0.5", linewidth=1)
    axes.set(xscale="log", xlabel="error of the training labels, relative L2 in %")
    axes.set_ylabel("test error above that with 1e-6, points of %")
    axes.set_title("filled: by exact test labels, hollow: by its own", fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    for panel, method in zip(maps, METHODS, strict=True):
        family = spec(*EXACT).family
        system = family.system(family.sample(np.random.default_rng(seed_sequence(7, family.name, "train", 0, 0))))
        truth = solve(system.A, system.b, rtol=1e-12).x
        error = solve(system.A, system.b, METHODS[method], rtol=1e-1).x - truth
        bound = float(np.abs(error).max())
        panel.imshow(system.to_field(error), cmap="RdBu_r", vmin=-bound, vmax=bound)
        relative = 100 * np.linalg.norm(error) / np.linalg.norm(truth)
        panel.set_title(f"{method}, rtol 1e-1:\nerror {relative:.2g} %", fontsize=9)
        panel.set(xticks=[], yticks=[])
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="what looser labels cost a trained operator")
    parser.add_argument("part", choices=("labels", "train", "document"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=50.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        if arguments.part == "labels":
            write(FOLDER / "labels.json", labels())
            print(label_table())
        elif arguments.part == "train":
            train_missing(arguments.seeds, arguments.minutes)
        else:
            picture().savefig(RESULTS.parents[1] / "docs" / "images" / "label-tolerance.png", dpi=110)
            print(label_table(), operator_table(), sep="\n\n")
