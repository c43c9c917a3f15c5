"""Which optimizer reaches the least error in equal time.

    python -m benchmarks.optimizers --minutes 9    # goes on where it stopped, writes results/optimizers.json
    python -m benchmarks.optimizers --table        # of the results, as in docs/optimizers.md

An FNO on Darcy flow (binary permeability, 32 x 32, 512 training samples). First the CPU time of a step of each is
measured, in turns, on one thread. From it follows how many epochs each can make in what `EPOCHS` of AdamW's take;
all then train that long by `operators.trainer.train`, a cosine over exactly their own steps, from the same weights and
with the same batches. Counting time this way, a busy machine slows a run down and does not change its result. Each
optimizer has the options of its configs/optimizer/*.yaml but for the learning rate: three of them a factor of 3 apart,
and more until the best is not at an end. The rate is chosen by validation error; the error reported is of test data.
"""

import argparse
import json
import math
import statistics
from pathlib import Path
from time import perf_counter, process_time, strftime
from typing import Any

import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from torch import nn

from benchmarks.harness import RESULTS, machine
from datagen.generate import generate
from datagen.store import Spec, Store, open_store
from operators.losses import relative_l2
from operators.models import models
from operators.optimizers import attention_for, backward, build_optimizer
from operators.predict import load
from operators.trainer import TrainingDiverged, train

WORK = Path("outputs/optimizers")
RESULT = RESULTS / "optimizers.json"
SAMPLES = {"train": 512, "validation": 128, "test": 128}
EPOCHS = 15  # of AdamW
BATCH = 8
MODEL = {"n_modes": [12, 12], "hidden_channels": 16, "n_layers": 3}

# The middle of the first three learning rates.
RATES = {
    "adamw": 1e-2,
    "adam": 1e-2,
    "sgd": 1e-1,
    "complex_adamw": 1e-2,
    "soap": 1e-2,
    "muon": 1e-2,
    "adahessian": 1e-1,
    "adamp": 1e-2,
    "shampoo": 1e-1,
}
MOST_RATES = 5


def dataset() -> Store:
    """The samples, made if they are not there."""
    spec = Spec({"name": "darcy", "grid": 32}, 11, SAMPLES, 128, {"method": "auto", "rtol": 1e-6})
    return open_store(generate(spec, WORK / "dataset", executor="serial"))


def config(name: str, lr: float, epochs: int) -> dict[str, Any]:
    """The configuration of one run."""
    overrides = [f"optimizer={name}", f"optimizer.lr={lr}", f"dataset.path={WORK / 'dataset'}"]
    overrides += ["model=fno", f"trainer.epochs={epochs}", f"trainer.batch_size={BATCH}", "trainer.device=cpu"]
    overrides += [f"model.{key}={value}" for key, value in MODEL.items()]
    overrides += [f"out={WORK / 'runs' / f'{name}-{lr:g}'}"]
    with initialize_config_module(version_base="1.3", config_module="configs"):
        composed: Any = OmegaConf.to_container(compose("train", overrides), resolve=True)
    return composed


def costs(store: Store) -> dict[str, dict[str, float]]:
    """Median CPU seconds of a step of each optimizer, and the numbers it keeps for each weight."""
    inputs = torch.from_numpy(store.read("train", "coefficient", 0, BATCH))[:, None].float()
    targets = torch.from_numpy(store.read("train", "pressure", 0, BATCH))[:, None].float()
    inputs, targets = ((field - field.mean()) / field.std() for field in (inputs, targets))
    ready = {}
    for name in RATES:
        torch.manual_seed(0)
        model: nn.Module = models.build("fno", in_channels=1, out_channels=1, **MODEL)
        ready[name] = model, build_optimizer(model, **config(name, 1e-4, 1)["optimizer"])

    def steps(name: str, count: int) -> float:
        model, optimizer = ready[name]
        began = process_time()
        for _ in range(count):
            with attention_for(optimizer):
                loss = relative_l2(model(inputs), targets).mean()
            optimizer.zero_grad()
            backward(loss, optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        return (process_time() - began) / count

    for name in RATES:
        steps(name, 3)
    measured: dict[str, list[float]] = {name: [] for name in RATES}
    for turn in range(7):
        names = list(RATES)
        for name in names[turn:] + names[:turn]:
            measured[name].append(steps(name, 10))  # SOAP renews its basis every 10 steps
    found = {}
    for name, (model, optimizer) in ready.items():
        weights = sum(p.numel() for p in model.parameters())
        kept = sum(numbers(state) for state in optimizer.state.values())
        found[name] = {"cpu_seconds": statistics.median(measured[name]), "numbers_a_weight": kept / weights}
    return found


def numbers(state: Any) -> int:
    """How many numbers a state's tensors hold."""
    if isinstance(state, torch.Tensor):
        return state.numel()
    if isinstance(state, dict):
        return sum(map(numbers, state.values()))
    return sum(map(numbers, state)) if isinstance(state, (list, tuple)) else 0


def trained(name: str, lr: float, epochs: int, store: Store) -> dict[str, Any] | None:
    """One run's errors; None if it was stopped before its end."""
    began = process_time()
    run = {"optimizer": name, "lr": lr, "epochs": epochs}
    try:
        result = train(config(name, lr, epochs), store)
    except TrainingDiverged as error:
        return {**run, "validation": math.inf, "test": math.inf, "said": str(error).split(". Try")[0]}
    if not result.finished:
        return None
    predictor = load(result.out / "best.pt", "cpu")
    fields = torch.from_numpy(store.read("test", "coefficient"))[:, None].float()
    truth = torch.from_numpy(store.read("test", "pressure"))[:, None].float()
    error = relative_l2(torch.from_numpy(predictor.predict(fields.numpy())), truth).mean().item()
    return {
        **run,
        "validation": result.best["validation_relative_l2"],
        "test": error,
        "cpu_seconds": process_time() - began,
    }


def next_rate(runs: dict[float, float], middle: float) -> float | None:
    """The next learning rate to try, given the validation errors so far; None when the best has both neighbours."""
    for rate in (middle, middle / 3, middle * 3):
        if rate not in runs:
            return rate
    best = min(runs, key=lambda rate: runs[rate])
    if len(runs) < MOST_RATES and best in (min(runs), max(runs)):
        return best / 3 if best == min(runs) else best * 3
    return None


def measure(minutes: float) -> dict[str, Any]:
    """Whatever is missing of the results, as far as the time goes."""
    torch.set_num_threads(1)
    began, store = perf_counter(), dataset()
    report: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    if not report:
        report = {"format_version": 1, "created": strftime("%Y-%m-%dT%H:%M:%S%z"), "machine": machine()}
        report |= {"samples": SAMPLES, "model": MODEL, "batch": BATCH, "costs": costs(store), "runs": []}
    while perf_counter() - began < 60 * minutes:
        tried: dict[str, dict[float, float]] = {name: {} for name in RATES}
        for run in report["runs"]:
            tried[run["optimizer"]][run["lr"]] = run["validation"]
        left = [name for name in RATES if next_rate(tried[name], RATES[name]) is not None]
        if not left:
            break
        name = min(left, key=lambda name: len(tried[name]))  # whenever it is stopped, all have had about as many rates
        lr = next_rate(tried[name], RATES[name])
        assert lr is not None
        seconds = {each: cost["cpu_seconds"] for each, cost in report["costs"].items()}
        run = trained(name, lr, round(EPOCHS * seconds["adamw"] / seconds[name]), store)
        if run is None:
            break
        report["runs"].append(run)
        print(f"{name} at {lr:.2g}: {run['epochs']} epochs, validation {run['validation']:.4f}", flush=True)
        RESULT.write_text(json.dumps(report, indent=1) + "\n")
    return report


def table(report: dict[str, Any]) -> str:
    """Markdown table, least test error first."""
    rows = []
    for name, cost in report["costs"].items():
        runs = sorted((run for run in report["runs"] if run["optimizer"] == name), key=lambda run: run["lr"])
        if runs:
            best = min(runs, key=lambda run: run["validation"])
            others = ", ".join(
                f"{run['lr']:.1g}: {100 * run['validation']:.2f}"
                if run["validation"] < math.inf
                else f"{run['lr']:.1g}: —"
                for run in runs
            )
            relative = cost["cpu_seconds"] / report["costs"]["adamw"]["cpu_seconds"]
            cells = [f"`{name}`", f"{100 * best['test']:.2f}", f"{best['lr']:.1g}", str(best["epochs"])]
            cells += [f"{relative:.2f}", f"{cost['numbers_a_weight']:.1f}", others]
            rows.append((best["test"], f"| {' | '.join(cells)} |"))
    head = (
        "| optimizer | test error, % | at rate | epochs | time a step | kept a weight | validation error, %, by rate |"
    )
    return "\n".join([head, "|---|---:|---:|---:|---:|---:|---|", *(line for _, line in sorted(rows))])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="error of each optimizer in equal time")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--table", action="store_true", help="of what is there, without measuring")
    arguments = parser.parse_args()
    print(table(json.loads(RESULT.read_text()) if arguments.table else measure(arguments.minutes)))
