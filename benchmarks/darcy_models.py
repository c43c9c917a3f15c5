"""U-Net, FNO, TFNO at three ranks and LSM on Darcy flow: error against seconds and parameters, at equal training time.

    python -m benchmarks.darcy_models --minutes 80     # goes on where it stopped, writes results/darcy_models.json
    python -m benchmarks.darcy_models --seconds 600 --models FNO LSM    # at another budget, into the same file
    python -m benchmarks.darcy_models --device cuda --seconds 30 --out benchmarks/results/darcy_models_gpu.json
    python -m benchmarks.darcy_models --table          # of the results, as in docs/models.md

Darcy flow of `datagen.pdes.darcy` (binary permeability, 64 x 64 cells). First the time of a training step of each
model is measured, in turns: CPU time of one thread, or the clock's on a GPU. From it follows how many epochs each can
make in the budget; all then train that long by `operators.trainer.train`, a cosine over exactly their own steps.
Counting time this way, a busy machine slows a run down and does not change its result. Errors are the mean over the
test samples of the relative L2 error, of the weights after the last epoch.
"""

import argparse
import json
import statistics
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter, process_time, sleep, strftime
from typing import Any

import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from benchmarks.harness import RESULTS, machine
from datagen.generate import generate
from datagen.store import Spec, Store, open_store
from operators.commands.memory import keep_freed_memory
from operators.losses import relative_l2
from operators.models import models
from operators.optimizers import build_optimizer
from operators.predict import load
from operators.run_folder import LAST
from operators.trainer import train

RESULT = RESULTS / "darcy_models.json"
WORK = Path("outputs/darcy_models")
SAMPLES = {"train": 1000, "validation": 50, "test": 200}
BATCH = 16
SEEDS = (0, 1, 2)
SECONDS = 120.0
FOURIER = {"n_modes": [16, 16], "hidden_channels": 32}
# Name, arguments and learning rate.
MODELS: dict[str, tuple[str, dict[str, Any], float]] = {
    "U-Net": ("unet", {"width": 16}, 2e-3),
    "FNO": ("fno", FOURIER, 5e-3),
    "TFNO, rank 0.42": ("tfno", FOURIER | {"rank": 0.42}, 5e-3),
    "TFNO, rank 0.1": ("tfno", FOURIER | {"rank": 0.1}, 5e-3),
    "TFNO, rank 0.05": ("tfno", FOURIER | {"rank": 0.05}, 5e-3),
    "LSM": ("lsm", {"width": 16}, 2e-3),
}


def dataset() -> Store:
    """The samples, made if they are not there: ``southwell-generate pde=darcy`` with these numbers."""
    spec = Spec({"name": "darcy", "grid": 64}, 13, SAMPLES, 125, {"method": "auto", "rtol": 1e-6})
    return open_store(generate(spec, WORK / "dataset", executor="serial"))


def clock(device: str) -> float:
    """Seconds of work done so far."""
    if device == "cpu":
        return process_time()
    torch.cuda.synchronize()
    return perf_counter()


def costs(device: str) -> dict[str, float]:
    """Median seconds of a training step of each model."""
    x, y = torch.randn(2, BATCH, 1, 64, 64, generator=torch.Generator().manual_seed(0)).to(device)
    ready = {}
    for label, (name, arguments, _) in MODELS.items():
        network = models.build(name, in_channels=1, out_channels=1, **arguments).to(device)
        ready[label] = network, build_optimizer(network, name="adamw", lr=1e-4)

    def steps(label: str, count: int) -> float:
        network, optimizer = ready[label]
        began = clock(device)
        for _ in range(count):
            optimizer.zero_grad()
            relative_l2(network(x), y).mean().backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
        return (clock(device) - began) / count

    for label in MODELS:
        steps(label, 2)
    measured: dict[str, list[float]] = {label: [] for label in MODELS}
    for _ in range(9):
        for label in MODELS:
            measured[label].append(steps(label, 3))
    return {label: statistics.median(times) for label, times in measured.items()}


def trained(label: str, seed: int, epochs: int, device: str, out: Path) -> dict[str, Any]:
    """One run, in this process, on one thread."""
    torch.set_num_threads(1)
    keep_freed_memory()
    store = open_store(WORK / "dataset")
    name, arguments, lr = MODELS[label]
    overrides = [f"model={name}", *(f"model.{key}={value}" for key, value in arguments.items())]
    overrides += [f"optimizer.lr={lr}", f"trainer.batch_size={BATCH}", f"trainer.epochs={epochs}", f"seed={seed}"]
    overrides += [f"trainer.device={device}", f"dataset.path={store.path}", f"out={out}"]
    with initialize_config_module(version_base="1.3", config_module="configs"):
        config: Any = OmegaConf.to_container(compose("train", overrides), resolve=True)
    began, began_cpu = perf_counter(), process_time()
    result = train(config, store)
    wall, cpu = perf_counter() - began, process_time() - began_cpu
    if not result.finished:
        raise SystemExit("stopped; the same command goes on from here")
    predictor = load(out / LAST, device)
    fields, truth = (store.read("test", field)[:, None] for field in ("coefficient", "pressure"))
    error = relative_l2(torch.from_numpy(predictor.predict(fields)), torch.from_numpy(truth).float()).mean().item()
    return {"parameters": predictor.parameter_count, "error": error, "wall": wall, "cpu": cpu}


def missing(report: dict[str, Any], seconds: float, chosen: list[str]) -> list[tuple[str, int, int]]:
    """Model, seed and epochs of the runs of a budget that are not there yet, one seed after the other."""
    done = {(run["model"], run["seed"], run["budget"]) for run in report["runs"]}
    steps = -(-report["samples"]["train"] // report["batch"])
    epochs = {label: max(1, round(seconds / (steps * report["step_seconds"][label]))) for label in chosen}
    pairs = [(label, seed) for seed in SEEDS for label in chosen]
    return [(label, seed, epochs[label]) for label, seed in pairs if (label, seed, seconds) not in done]


def measure(
    out: Path, seconds: float, chosen: list[str], device: str, minutes: float, processes: int
) -> dict[str, Any]:
    """Whatever is missing of the results; begins no run after so many minutes."""
    began = perf_counter()
    dataset()
    report: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    if not report:
        report = {"format_version": 1, "created": strftime("%Y-%m-%dT%H:%M:%S%z"), "machine": machine()}
        report |= {"device": torch.cuda.get_device_name() if device == "cuda" else "cpu, one thread"}
        report |= {"samples": SAMPLES, "batch": BATCH, "step_seconds": costs(device), "runs": []}
        write(out, report)
    left = missing(report, seconds, chosen)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        running: dict[Any, tuple[str, int, int]] = {}
        while left or running:
            while left and len(running) < processes and perf_counter() - began < 60 * minutes:
                label, seed, epochs = left.pop(0)
                folder = WORK / "runs" / f"{device}-{seconds:g}-{label.replace(', ', '-').replace(' ', '-')}-{seed}"
                running[pool.submit(trained, label, seed, epochs, device, folder)] = label, seed, epochs
            if not running:
                print("time is up; the same command goes on from here")
                break
            for future in [each for each in running if each.done()]:
                label, seed, epochs = running.pop(future)
                run = {"model": label, "seed": seed, "budget": seconds, "epochs": epochs, **future.result()}
                report["runs"].append(run)
                write(out, report)
                print(f"{label}, seed {seed}: {epochs} epochs, error {100 * run['error']:.2f} %", flush=True)
            sleep(0.2)
    return report


def write(out: Path, report: dict[str, Any]) -> None:
    """Beside its place, then in it: what is there is whole."""
    partly = out.with_suffix(".partial")
    partly.write_text(json.dumps(report, indent=1) + "\n")
    partly.replace(out)


def table(report: dict[str, Any]) -> str:
    """Markdown: errors, seconds and parameters of every model, budget by budget."""
    lines = []
    for budget in sorted({run["budget"] for run in report["runs"]}):
        lines += [
            f"| {budget:g} s of training | parameters | ms a step | epochs | test error, % | seeds |",
            "|---|---:|---:|---:|---:|---:|",
        ]
        for label in MODELS:
            runs = [run for run in report["runs"] if (run["model"], run["budget"]) == (label, budget)]
            if not runs:
                continue
            found = [100 * run["error"] for run in runs]
            spread = f" ({min(found):.2f} to {max(found):.2f})" if len(found) > 1 else ""
            cells = [label, f"{runs[0]['parameters']:,}", f"{1e3 * report['step_seconds'][label]:.3g}"]
            cells += [str(runs[0]["epochs"]), f"{statistics.mean(found):.2f}{spread}", str(len(found))]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines).strip()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="error of each model on Darcy flow in equal training time")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="training time of a run")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--minutes", type=float, default=80.0, help="begin no run after so many")
    parser.add_argument("--processes", type=int, default=1, help="runs at a time, each on one thread")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--table", action="store_true", help="of what is there, without training")
    given = parser.parse_args()
    if given.table:
        print(table(json.loads(given.out.read_text())))
    else:
        print(table(measure(given.out, given.seconds, given.models, given.device, given.minutes, given.processes)))


if __name__ == "__main__":
    main()
