"""What easier training samples are worth on hard test data, by number and by budget.

    python -m benchmarks.difficulty_transfer plan                 # cells, and how many commands of 90 minutes they take
    python -m benchmarks.difficulty_transfer data                 # the datasets of all classes
    python -m benchmarks.difficulty_transfer run --minutes 80     # trains what is missing; goes on where it stopped
    python -m benchmarks.difficulty_transfer document             # tables and picture of docs/difficulty.md

The experiment of Choudhary et al. 2025 (Pre-generating multi-difficulty PDE data, arXiv 2512.00564) at a size for two
cores. An operator from random weights (``experiment=difficulty_transfer``: an FNO; ``difficulty_transfer_scot``: a
small scOT) is trained on a mixture of a hard class and an easier one (`datagen.mix`) and tested on the hard one:

- alpha    N samples, of which a share is hard
- hard     n hard samples and nothing else: what a budget buys without easier samples
- ladder   a base of hard samples and n easier ones

All take the same number of optimizer steps (as nearly as whole epochs do), are validated on the same hard samples and
tested on the same hard ones, none of which is trained on. The compute ratio at equal error of a mixture with cost c and
error e is ``C(e) / c``: C(e) is the cost at which hard samples alone reach e, between two points of their curve on
logarithmic axes.

Datasets, mixtures and runs are in outputs/difficulty_transfer, results in results/difficulty_transfer: a file for each
operator, mixture and seed.
"""

import argparse
import json
import math
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_module
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from threadpoolctl import threadpool_limits

from benchmarks.harness import RESULTS, machine
from datagen.difficulty import at_level
from datagen.files import json_bytes, write_atomically
from datagen.generate import generate
from datagen.mix import by_fraction, costs, ladder, mix
from datagen.store import Spec, Store, open_store
from operators.metrics import measure
from operators.predict import load
from operators.reading import Reader
from operators.trainer import train

WORK = Path("outputs") / "difficulty_transfer"
FOLDER = RESULTS / "difficulty_transfer"
DOCS = RESULTS.parents[1] / "docs"
MODELS = {"fno": "difficulty_transfer", "scot": "difficulty_transfer_scot"}  # and their experiments
METRICS = ("relative_l1", "relative_l2")


@dataclass(frozen=True)
class Study:
    """Classes of difficulty, and the mixtures to train on.

    Parameters
    ----------
    pde : sequence of str
        Words of `southwell-generate`.
    hard : sequence of str
        Words that choose the level of the hard class.
    easier : dict of str to sequence of str
        Words of each easier class, by the name it has here.
    samples : int
        N, of the mixtures by alpha.
    alphas, alone, base, extras
        Shares of hard samples; numbers of hard samples alone; hard samples of the ladder, and easier ones beside them.
    held : (int, int)
        Samples for validation and for the test.
    measured : sequence of str
        Output fields whose errors count, together.
    steps : int
        Optimizer steps of each training.
    """

    pde: Sequence[str]
    hard: Sequence[str]
    easier: dict[str, Sequence[str]]
    samples: int
    alphas: Sequence[float]
    alone: Sequence[int]
    base: int
    extras: Sequence[int]
    held: tuple[int, int]
    measured: Sequence[str]
    steps: int

    @property
    def classes(self) -> dict[str, Sequence[str]]:
        """All of them, the hard one first."""
        return {"hard": self.hard, **self.easier}

    def mixtures(self) -> dict[str, tuple[str, list[int]]]:
        """By name: the easier class, and how many hard and easier samples; what has the same numbers is there once."""
        found = {f"hard-{n}": ("hard", [n, 0]) for n in sorted({*self.alone, self.base, self.samples})}
        for easier in self.easier:
            counts = [by_fraction(self.samples, alpha) for alpha in self.alphas]
            counts += [ladder(self.base, n) for n in self.extras]
            found |= {f"{easier}-{n}-{m}": (easier, [n, m]) for n, m in counts if m}
        return found

    def needed(self, name: str) -> int:
        """Training samples of a class."""
        place = 0 if name == "hard" else 1
        return max(counts[place] for easier, counts in self.mixtures().values() if name in ("hard", easier))


STUDIES = {
    "flow": Study(
        pde=["pde=flow", "pde.grid=64", "pde.final_time=4.0", "pde.frames=9"],
        hard=["pde.level.geometry=many", "pde.level.physics=high"],
        easier={
            "easy": ["pde.level.geometry=none", "pde.level.physics=low"],
            "medium": ["pde.level.geometry=one", "pde.level.physics=medium"],
        },
        samples=128,
        alphas=(0.0, 0.0625, 0.125, 0.25, 0.5),
        alone=(16, 64),
        base=32,
        extras=(96, 192),
        held=(16, 32),
        measured=("velocity_x", "velocity_y"),
        steps=320,
    ),
    "tiny": Study(  # to try the commands
        pde=["pde=flow", "pde.grid=16", "pde.final_time=0.5", "pde.frames=3", "pde.obstacle_size=0.125"],
        hard=["pde.level.geometry=one", "pde.level.physics=high"],
        easier={"easy": ["pde.level.geometry=none", "pde.level.physics=low"]},
        samples=8,
        alphas=(0.5,),
        alone=(4,),
        base=4,
        extras=(8,),
        held=(2, 2),
        measured=("velocity_x", "velocity_y"),
        steps=4,
    ),
    "darcy": Study(
        pde=["pde=darcy", "pde.grid=32"],
        hard=["pde.level.contrast=high", "pde.level.scale=fine"],
        easier={
            "contrast": ["pde.level.contrast=low", "pde.level.scale=fine"],
            "scale": ["pde.level.contrast=high", "pde.level.scale=coarse"],
        },
        samples=256,
        alphas=(0.0, 0.0625, 0.125, 0.25, 0.5),
        alone=(16, 32, 64, 128),
        base=64,
        extras=(128, 448),
        held=(32, 64),
        measured=("pressure",),
        steps=320,
    ),
}

# A quarter of the samples: what limits the error are then the data, not the steps.
STUDIES["flow_few"] = replace(STUDIES["flow"], samples=32, alone=(4, 16), base=8, extras=(56,))


# -- Data -------------------------------------------------------------------------------------------------------------


def composed(primary: str, words: Sequence[str]) -> dict[str, Any]:
    """A configuration, as the command of that name would get it."""
    with initialize_config_module(version_base="1.3", config_module="configs"):
        values: Any = OmegaConf.to_container(compose(primary, list(words)), resolve=True)
    return values


def spec(study: str, name: str) -> Spec:
    """The dataset of a class; every class has a seed of its own, so that no two samples share their random numbers."""
    about = STUDIES[study]
    config = composed("generate", [*about.pde, *about.classes[name], "out=x"])
    pde, level = at_level(config["pde"])
    validation, test = about.held if name == "hard" else (0, 0)
    sizes = {"train": about.needed(name), "validation": validation, "test": test}
    seed = 0 if name == "hard" else 2 + list(about.easier).index(name)
    return Spec(pde, seed, sizes, 8, config["solver"], level=level)


@cache
def dataset(study: str, name: str, workers: int = 1) -> Store:
    """That dataset, made if it is not there."""
    executor = "processes" if workers > 1 else "serial"
    return open_store(generate(spec(study, name), WORK / study / "data" / name, executor=executor, workers=workers))


def mixture(study: str, name: str) -> Store:
    """A mixture, made if it is not there."""
    easier, counts = STUDIES[study].mixtures()[name]
    stores = [dataset(study, one) for one in dict.fromkeys(("hard", easier))]
    folder = WORK / study / "mixtures" / name
    mix(stores, counts[: len(stores)], folder)
    return open_store(folder)


# -- Cells ------------------------------------------------------------------------------------------------------------


def trained(study: str, model: str, name: str, seed: int, device: str) -> dict[str, Any]:
    """An operator trained on a mixture: what its data cost, and its errors on the hard test split."""
    store, about = mixture(study, name), STUDIES[study]
    out = WORK / study / "runs" / f"{model}-{name}-{seed}"
    words = [f"experiment={MODELS[model]}", f"dataset.path={store.path}", f"out={out}", f"seed={seed}"]
    config = composed("train", [*words, f"trainer.device={device}"])
    if not store.evolves:
        config |= {"task": {"name": "static"}, "loss": "relative_l2"}
    examples = store.sizes["train"] * (len(store.times) - 1 if store.evolves else 1)
    config["trainer"]["epochs"] = max(1, round(about.steps / math.ceil(examples / config["trainer"]["batch_size"])))
    result = train(config, store)
    if not result.finished:  # SIGTERM; what is half trained is no result
        raise SystemExit(128 + signal.SIGTERM)
    predictor = load(out / "best.pt", device)
    return {
        "counts": about.mixtures()[name][1],
        "cost": {unit: float(costs(store, unit).sum()) for unit in ("work", "seconds")},
        "parameters": predictor.parameter_count,
        "epochs": config["trainer"]["epochs"],
        "training": {
            "device": torch.cuda.get_device_name() if predictor.device.type == "cuda" else "cpu",
            "seconds": sum(row["seconds"] for row in result.history),
        },
        "test": test_errors(predictor, dataset(study, "hard"), about.measured),
    }


def test_errors(predictor: Any, store: Store, measured: Sequence[str]) -> dict[str, float]:
    """Relative errors of some outputs together; means over samples and, in time, all steps from a frame to the next."""
    channels = [number for number, channel in enumerate(predictor.outputs) if channel.name in measured]
    reader = Reader(store, "test", predictor.inputs, predictor.outputs)
    pairs = [(frame, frame + 1) for frame in range(len(store.times) - 1)] if store.evolves else [(0, -1)]
    found: dict[str, list[float]] = {name: [] for name in METRICS}
    for before, after in pairs:
        prediction = predictor.predict(reader.inputs(0, len(reader), before))
        truth = reader.outputs(0, len(reader), after)
        together = [fields[:, channels].reshape(len(fields), 1, -1, fields.shape[-1]) for fields in (prediction, truth)]
        errors = measure(*together, None, METRICS)
        for name in METRICS:
            found[name].append(float(errors[name].mean()))
    return {name: float(np.mean(values)) for name, values in found.items()}


def missing(study: str, seeds: Sequence[int], folder: Path, part: tuple[int, int] = (0, 1)) -> Iterator[Any]:
    """Cells without a result: one seed after the other, all mixtures of it; of several processes, those of one."""
    mine = list(STUDIES[study].mixtures())[part[0] :: part[1]]
    for seed in seeds:
        for name in mine:
            for model in MODELS:
                path = folder / study / f"{model}-{name}-{seed}.json"
                if not path.exists():
                    yield path, model, name, seed


def run_missing(
    study: str, seeds: Sequence[int], minutes: float, device: str, part: tuple[int, int], folder: Path = FOLDER
) -> None:
    """Train what is missing; begin nothing after so many minutes."""
    began = perf_counter()
    for path, model, name, seed in missing(study, seeds, folder, part):
        if perf_counter() - began > 60 * minutes:
            print("time is up; the same command goes on from here")
            return
        started = perf_counter()
        cell = {"study": study, "model": model, "mixture": name, "seed": seed}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json_bytes(cell | trained(study, model, name, seed, device)))
        print(f"{path.stem}: {perf_counter() - started:.0f} s", flush=True)


# -- What follows -----------------------------------------------------------------------------------------------------


def equal_error_cost(costs: Sequence[float], errors: Sequence[float], error: float) -> float | None:
    """The cost at which a curve of falling errors reaches an error, between its points on logarithmic axes.

    None where it does not: the error is above that of the first point, or below that of the last. A point that is worse
    than a cheaper one is passed over: nobody has to buy it.

    Examples
    --------
    >>> equal_error_cost([1, 10, 100], [0.4, 0.2, 0.1], 0.2)
    10.0
    >>> round(equal_error_cost([1, 100], [0.4, 0.1], 0.2), 9)
    10.0
    >>> equal_error_cost([1, 100], [0.4, 0.1], 0.09)
    """
    order = np.argsort(costs)
    x, y = np.asarray(costs, dtype=float)[order], np.asarray(errors, dtype=float)[order]
    better = [0, *(i for i in range(1, len(y)) if y[i] < y[:i].min())]
    x, y = x[better], y[better]
    if not y[-1] <= error <= y[0]:
        return None
    return float(np.exp(np.interp(-np.log(error), -np.log(y), np.log(x))))


def published_ratio(hard: float, easy: float, alpha: float) -> float:
    """How much cheaper a set is of which only a share alpha is hard: ``hard / (alpha hard + (1 - alpha) easy)``.

    Examples
    --------
    The table of the paper's site, in seconds: many obstacles at a high Reynolds number, and none at a low one.

    >>> round(published_ratio(1653.3, 170.7, 0.1), 1)
    5.2
    """
    return hard / (alpha * hard + (1 - alpha) * easy)


def results(study: str, folder: Path = FOLDER) -> dict[tuple[str, str], dict[int, dict[str, Any]]]:
    """Cells by operator and mixture, and by seed."""
    found: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for path in sorted((folder / study).glob("*.json")):
        cell = json.loads(path.read_text())
        if "mixture" in cell:
            found.setdefault((cell["model"], cell["mixture"]), {})[cell["seed"]] = cell
    return found


def errors_of(cells: dict[int, dict[str, Any]], metric: str = "relative_l2") -> np.ndarray:
    """Test errors of one operator and mixture, over the seeds."""
    return np.array([cells[seed]["test"][metric] for seed in sorted(cells)])


def price(cells: dict[int, dict[str, Any]], unit: str) -> float:
    """What a mixture costs: in counted work, or in its number of samples."""
    one = next(iter(cells.values()))
    return float(sum(one["counts"]) if unit == "samples" else one["cost"][unit])


def hard_curve(study: str, model: str, unit: str, folder: Path = FOLDER) -> tuple[list[float], list[float]]:
    """Costs of hard samples alone, and the mean error that they reach."""
    found = results(study, folder)
    names = [name for (who, name) in found if who == model and name.startswith("hard-")]
    cells = sorted((found[model, name] for name in names), key=lambda c: price(c, unit))
    return [price(c, unit) for c in cells], [float(errors_of(c).mean()) for c in cells]


def ratio(study: str, model: str, cells: dict[int, dict[str, Any]], unit: str, folder: Path = FOLDER) -> str:
    """What hard samples alone cost at the error of a mixture, over what the mixture costs; or a bound of that."""
    paid, reached = hard_curve(study, model, unit, folder)
    cost, error = price(cells, unit), float(errors_of(cells).mean())
    equal = equal_error_cost(paid, reached, error)
    if equal is not None:
        return f"{equal / cost:.2f}"
    return f"< {paid[0] / cost:.2f}" if error > max(reached) else f"> {paid[-1] / cost:.2f}"


def worth(study: str, model: str, cells: dict[int, dict[str, Any]], folder: Path = FOLDER) -> str:
    """How many hard samples each easier one of a mixture stood for; cheaper than that, it was the better buy.

    ``(N - n) / m`` for n hard samples, m easier ones, and N hard samples that alone reach their error.
    """
    hard, easier = next(iter(cells.values()))["counts"]
    equal = equal_error_cost(*hard_curve(study, model, "samples", folder), float(errors_of(cells).mean()))
    return "-" if equal is None else f"{(equal - hard) / easier:.2f}"


def table(study: str, folder: Path = FOLDER) -> str:
    """Markdown: every operator and mixture; means and standard deviations over seeds, and the ratios at equal error."""
    lines = [
        "| operator | easier class | hard | easier | work, 1e9 | test error (relative L2) | relative L1 "
        "| work ratio at equal error | an easier one in hard ones | seeds |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    found = results(study, folder)
    order = list(STUDIES[study].mixtures())
    for model, name in sorted(found, key=lambda key: (key[0], order.index(key[1]))):
        cells = found[model, name]
        one = next(iter(cells.values()))
        easier = STUDIES[study].mixtures()[name][0]
        lines.append(
            f"| {model} | {'' if easier == 'hard' else easier} | {one['counts'][0]} | {one['counts'][1]} "
            f"| {one['cost']['work'] / 1e9:.3g} | {_spread(errors_of(cells))} "
            f"| {_spread(errors_of(cells, 'relative_l1'))} "
            f"| {'' if easier == 'hard' else ratio(study, model, cells, 'work', folder)} "
            f"| {'' if easier == 'hard' else worth(study, model, cells, folder)} | {len(cells)} |"
        )
    return "\n".join(lines)


def _spread(values: np.ndarray) -> str:
    deviation = f" (sd {100 * np.std(values, ddof=1):.2f})" if len(values) > 1 else ""
    return f"{100 * values.mean():.2f}{deviation} %"


def class_costs(study: str, workers: int) -> dict[str, Any]:
    """What a sample of each class cost, of the datasets, which are made if they are not there."""
    found = {}
    for name in STUDIES[study].classes:
        store = dataset(study, name, workers)
        seconds = costs(store, "seconds")  # the first of a shard may have compiled
        found[name] = {
            "level": store.spec["level"],
            "samples": store.sizes,
            "work": float(costs(store).mean()),
            "seconds_mean": float(seconds.mean()),
            "seconds_median": float(np.median(seconds)),
        }
        print(name, found[name], flush=True)
    return found


def cost_table(study: str, folder: Path = FOLDER) -> str:
    """Markdown: what a sample of each class costs."""
    lines = [
        "| class | level | work a sample, 1e6 | seconds a sample, median | work of a hard one over it |",
        "|---|---|---:|---:|---:|",
    ]
    classes = json.loads((folder / study / "data.json").read_text())["classes"]
    for name, one in classes.items():
        level = ", ".join(f"{axis} {chosen}" for axis, chosen in one["level"].items())
        lines.append(
            f"| {name} | {level} | {one['work'] / 1e6:.3g} | {one['seconds_median']:.2g} "
            f"| {classes['hard']['work'] / one['work']:.2f} |"
        )
    return "\n".join(lines)


def picture(study: str, folder: Path = FOLDER) -> Figure:
    """A row an operator: error against the share of hard samples, and against the work of the training data."""
    found, about = results(study, folder), STUDIES[study]
    models = [model for model in MODELS if any(who == model for who, _ in found)]
    figure = Figure(figsize=(10, 3.6 * len(models)), layout="constrained")
    rows = figure.subplots(len(models), 2, squeeze=False)
    for (left, right), model in zip(rows, models, strict=True):
        for number, easier in enumerate(about.easier):
            names = [f"{easier}-{n}-{m}" for n, m in (by_fraction(about.samples, a) for a in about.alphas)]
            names = [name for name in [*names, f"hard-{about.samples}"] if (model, name) in found]
            cells = [found[model, name] for name in names]
            _line(left, [next(iter(c.values()))["counts"][0] / about.samples for c in cells], cells, number, easier)
            steps = [f"hard-{about.base}", *(f"{easier}-{about.base}-{n}" for n in about.extras)]
            cells = [found[model, name] for name in steps if (model, name) in found]
            label = f"{about.base} hard + n {easier}"
            _line(right, [next(iter(c.values()))["cost"]["work"] for c in cells], cells, number, label)
        names = [f"hard-{n}" for n in sorted({*about.alone, about.base, about.samples})]
        cells = [found[model, name] for name in names if (model, name) in found]
        _line(right, [next(iter(c.values()))["cost"]["work"] for c in cells], cells, "black", "hard alone")
        left.set(xlabel=f"share of hard samples among {about.samples}", ylabel=f"{model}: error on hard test data, %")
        right.set(xlabel="work of the training data, passes over unknowns", xscale="log")
        for axes in (left, right):
            axes.set_yscale("log")
            axes.grid(alpha=0.3, which="both")
            axes.legend(fontsize=8)
    return figure


def _line(axes: Any, x: Sequence[float], cells: Sequence[dict[int, Any]], colour: int | str, label: str) -> None:
    errors = [100 * errors_of(c) for c in cells]
    spread = [np.std(e, ddof=1) if len(e) > 1 else 0.0 for e in errors]
    colour = f"C{colour}" if isinstance(colour, int) else colour
    axes.errorbar(x, [e.mean() for e in errors], spread, marker="o", color=colour, capsize=3, label=label)


def plan(study: str, seeds: Sequence[int], seconds: float) -> str:
    """What is to be done, and in how many commands."""
    about, cells = STUDIES[study], len(list(missing(study, seeds, FOLDER)))
    samples = sum(map(about.needed, about.classes)) + sum(about.held)
    commands = math.ceil(cells * seconds / 3600 / 1.5)
    return (
        f"{study}: {samples} samples of {len(about.classes)} classes, one command. {len(about.mixtures())} mixtures, "
        f"{len(MODELS)} operators, {len(seeds)} seeds: {cells} trainings are missing; with {seconds:g} s for each "
        f"{commands} commands of at most 90 minutes"
    )


def main() -> None:
    """Console entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("plan", "data", "run", "document"))
    parser.add_argument("--study", choices=STUDIES, default="flow")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=80.0)
    parser.add_argument("--seconds", type=float, default=30.0, help="of one training, for the plan")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1, help="processes that generate")
    parser.add_argument("--part", type=int, nargs=2, default=[0, 1], metavar=("I", "N"), help="of several processes")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        if given.what == "plan":
            print(plan(given.study, given.seeds, given.seconds))
        elif given.what == "data":
            found = {"machine": machine(), "classes": class_costs(given.study, given.workers)}
            path = FOLDER / given.study / "data.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json_bytes(found))
        elif given.what == "run":
            run_missing(given.study, given.seeds, given.minutes, given.device, tuple(given.part))
        else:
            picture(given.study).savefig(DOCS / "images" / f"difficulty-{given.study}.png", dpi=110)
            print(cost_table(given.study), table(given.study), sep="\n\n")


if __name__ == "__main__":
    main()
