"""What a trained operator is worth to a solver of Darcy flow, from the first sample to the certified solution.

    python -m benchmarks.closing_the_loop                # ten minutes on two cores; goes on where it stopped
    python -m benchmarks.closing_the_loop --quick        # a tiny one
    python -m benchmarks.closing_the_loop --epochs 40    # where there is a GPU
    python -m benchmarks.closing_the_loop --table        # of the results, as in docs/closing-the-loop.md

A TFNO learns Darcy flow (binary permeability 3 and 12, 64 x 64 cells) from 1,000 samples, by the recipe of
``experiment=demo``. Its predictions of 20 test samples then are first guesses, for Jacobi-CG and multigrid-CG, at
tolerances from 1e-2 to 1e-8, beside the same solvers from zero and what `solvers.solve` chooses
(`operators.breakeven`). Seconds are those of this machine, of data, training, prediction and solve alike; the picture
shows where the error of a prediction is, and how it falls.
"""

import argparse
import json
import tempfile
from pathlib import Path
from time import strftime
from typing import Any

import matplotlib
import numpy as np
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from threadpoolctl import threadpool_limits

from benchmarks.harness import RESULTS, machine
from datagen.generate import generate
from datagen.plan import planned
from datagen.store import Spec, Store, open_store
from operators import breakeven
from operators.hybrid import Certified, certify
from operators.predict import Predictor, load
from operators.trainer import train

matplotlib.use("Agg")
RESULT = RESULTS / "closing_the_loop.json"
PICTURE = Path("docs/images/closing-the-loop.png")
SAMPLES = {"train": 1000, "validation": 100, "test": 100}


def dataset(folder: Path, quick: bool) -> Store:
    """The samples, made if they are not there."""
    counts = {"train": 64, "validation": 16, "test": 16} if quick else SAMPLES
    spec = Spec({"name": "darcy", "grid": 32 if quick else 64}, 7, counts, 100, {"method": "auto", "rtol": 1e-6})
    generate(planned(spec), folder, executor="serial")
    return open_store(folder)


def trained(folder: Path, store: Store, epochs: int | None, device: str) -> Path:
    """The checkpoint of the demo's recipe, trained if it is not there."""
    asked = ["experiment=demo", f"dataset.path={store.path}", f"out={folder}", f"trainer.device={device}"]
    if epochs is not None:
        asked.append(f"trainer.epochs={epochs}")
    with initialize_config_module("configs", version_base="1.3"):
        config: Any = OmegaConf.to_container(compose("train", overrides=asked), resolve=True)
    return train(config, store).out / "best.pt"


def histories(model: Predictor, store: Store) -> dict[str, Any]:
    """Relative residuals of a test sample by iteration, from the prediction and from zero, by both solvers."""
    sample = store.sample("test", 0)
    b = float(np.linalg.norm(store.family.system(sample).b))
    found: dict[str, Any] = {}
    for M in ("jacobi", "multigrid"):
        done = certify(model, store.family, sample, 1e-8, M=M)
        assert isinstance(done, Certified)
        found[M] = {"with": (done.result.history / b).tolist(), "without": (done.from_zero.history / b).tolist()}
        found["prediction_error"], found["energy_error"] = done.prediction_error, done.energy_error
        found["prediction_residual"] = done.prediction_residual
    return found


def draw(model: Predictor, store: Store, content: dict[str, Any], path: Path) -> None:
    """The solution, the error of its prediction, and the histories."""
    from matplotlib import pyplot as plt

    done = certify(model, store.family, store.sample("test", 0), 1e-8)
    assert isinstance(done, Certified)
    (solution,), (prediction,) = done.solution.values(), done.prediction.values()
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.2), constrained_layout=True)
    for axes, values, title in (
        (left, solution, "certified pressure"),
        (middle, prediction - solution, f"prediction - solution ({100 * done.prediction_error:.1f} %)"),
    ):
        limit = np.abs(values).max()
        shown = {"cmap": "viridis"} if axes is left else {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
        figure.colorbar(axes.imshow(values.T, origin="lower", **shown), ax=axes, shrink=0.8)
        axes.set(title=title, xticks=[], yticks=[])
    for (M, colour), (word, style) in (
        (solver, start)
        for solver in (("jacobi", "C0"), ("multigrid", "C1"))
        for start in (("without", "--"), ("with", "-"))
    ):
        start = "prediction" if word == "with" else "zero"
        right.semilogy(content["histories"][M][word], style, color=colour, label=f"{M}-CG from {start}")
    right.set(xlabel="iteration", ylabel="relative residual", title="to a certificate")
    right.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="what a trained operator is worth to a solver")
    parser.add_argument("--work", type=Path, default=Path("outputs/closing_the_loop"))
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    arguments = parser.parse_args()
    if arguments.table:
        for device, measured in json.loads(arguments.out.read_text())["measured"].items():
            print(f"predictions on {device}\n", *breakeven.section(measured), sep="\n")
        return
    if arguments.quick:
        arguments.work = Path(tempfile.mkdtemp(prefix="closing-the-loop-"))
    with threadpool_limits(1):
        store = dataset(arguments.work / "darcy", arguments.quick)
    checkpoint = trained(arguments.work / "tfno", store, 1 if arguments.quick else arguments.epochs, arguments.device)
    torch.set_num_threads(1)  # of what is measured, as of the solvers
    content: dict[str, Any] = {"format_version": 1, "created": strftime("%Y-%m-%dT%H:%M:%S%z"), "measured": {}}
    with threadpool_limits(1):
        content["machine"] = machine()
        for device in dict.fromkeys(("cpu", arguments.device)):
            model = load(checkpoint, device)
            content["measured"][str(model.device)] = breakeven.measure(model, store, 20)
        content["validation_relative_l2"] = min(row["validation_relative_l2"] for row in model.history)
        content["histories"] = histories(model, store)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(content, indent=1) + "\n")
    draw(model, store, content, arguments.picture)
    print(*breakeven.section(content["measured"]["cpu"]), sep="\n")


if __name__ == "__main__":
    main()
