"""MG-TFNO on patches beside the TFNO on whole fields: test error at equal samples a step, and a step's memory.

    python -m benchmarks.patched_tfno              # on a GPU: minutes; goes on where it stopped
    python -m benchmarks.patched_tfno --scale cpu --device cpu --out benchmarks/results/patched_tfno_cpu.json
    python -m benchmarks.patched_tfno --scale cpu128 --device cpu --out benchmarks/results/patched_tfno_cpu128.json
    python -m benchmarks.patched_tfno --table      # of the results, as in docs/models.md

Vorticity on the unit torus, w_t + u . grad w = nu lap w + f with nu = 1e-3 and the forcing of Li et al. 2021 (Fourier
neural operator, section 5.3), on 128 x 128 points. What is learned is their solution operator from the initial
vorticity to the vorticity at a later time. All operators have the same channels, layers, modes and rank, see the same
samples in the same order, as many in a step, and are trained by `operators.trainer.train`; the patched ones cut them
into 4 x 4 patches (two levels, widened by 5 % of the axis) and compute a few at a time (`patches_at_once`), whose
gradients add up; once as published, once with a solution on every fourth point, which the patches correct. Errors are
those after the last epoch. Memory is the most that torch holds at a time in a forward and backward pass of a batch.

The samples are those of `datagen.pdes.navier_stokes`, integrated many at a time by torch, and compared with the
family's own integrator.
"""

import argparse
import json
import statistics
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import accumulate
from multiprocessing import get_context
from pathlib import Path
from time import process_time, strftime
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.darcy_models import write
from benchmarks.harness import RESULTS, machine
from datagen.family import seed_sequence
from datagen.interchange import Wanted, import_file
from datagen.pdes.navier_stokes import NavierStokes
from datagen.store import Store, open_store
from operators.commands.memory import keep_freed_memory
from operators.losses import relative_l2
from operators.models import models
from operators.predict import load
from operators.run_folder import LAST
from operators.trainer import train

RESULT = RESULTS / "patched_tfno.json"
WORK = Path("outputs/patched_tfno")
SEEDS = (0, 1)
COMMON: dict[str, Any] = {"final_time": 10.0, "step": 0.05, "rank": 0.42, "lr": 5e-3, "epochs": 20}
# A GPU's; one that a CPU does in minutes; the published grid on a CPU, an hour of one core; one to see whether it runs.
# `patches_at_once` of 16 patches a sample.
SCALES: dict[str, dict[str, Any]] = {
    "full": COMMON
    | {"points": 128, "train": 1000, "validation": 20, "test": 200}
    | {"hidden_channels": 32, "n_modes": [16, 16], "batch": 32, "patches_at_once": 32},
    "cpu": COMMON
    | {"points": 64, "train": 240, "validation": 10, "test": 60, "epochs": 15}
    | {"hidden_channels": 16, "n_modes": [12, 12], "batch": 8, "patches_at_once": 8},
    "cpu128": COMMON
    | {"points": 128, "train": 400, "validation": 20, "test": 100}
    | {"hidden_channels": 32, "n_modes": [16, 16], "batch": 32, "patches_at_once": 32},
    "tiny": COMMON
    | {"points": 32, "train": 8, "validation": 2, "test": 2, "epochs": 1, "final_time": 0.5}
    | {"hidden_channels": 4, "n_modes": [8, 8], "batch": 4, "patches_at_once": 8},
}
PATCHES: dict[str, Any] = {"levels": 2, "padding_fraction": 0.05, "boundary": "periodic"}
SIDES: dict[str, tuple[str, dict[str, Any]]] = {  # the first is what the others are compared with
    "TFNO": ("tfno", {}),
    "MG-TFNO, coarse solution": ("multigrid_fno", PATCHES | {"coarse_solution": True}),
    "MG-TFNO": ("multigrid_fno", PATCHES | {"coarse_solution": False}),
}
ALLOWED_ERROR, ALLOWED_MEMORY = 1.05, 0.25


def model_of(side: str, scale: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Registered name and arguments."""
    name, arguments = SIDES[side]
    keys = ("hidden_channels", "n_modes", "rank", *(("patches_at_once",) if arguments else ()))
    return name, arguments | {key: scale[key] for key in keys}


# -- The samples -----------------------------------------------------------------------------------------------------


def vorticity(family: NavierStokes, initial: Tensor, steps: int) -> Tensor:
    """The vorticity at the family's final time, of initial ones ``(samples, n, n)``, in double precision.

    Lawson's method: with ``E = exp(nu lap dt / 2)`` on the coefficients, the classical Runge-Kutta method for
    ``E^(-2 t / dt) w``. Products by the rule of two thirds.
    """
    n, dt, device = initial.shape[-1], family.final_time / steps, initial.device
    k = 2 * torch.pi * torch.fft.fftfreq(n, 1 / n, dtype=torch.float64, device=device)
    kx, ky = k[:, None], k[: n // 2 + 1].abs()
    square = kx**2 + ky**2
    kept = (kx.abs() < 2 * torch.pi * n / 3) & (ky < 2 * torch.pi * n / 3)
    stream = torch.where(square > 0, 1 / square.clamp(min=1), 0.0)
    force = torch.fft.rfft2(torch.from_numpy(family.force()).to(initial))
    decay = torch.exp(-family.nu * square * dt / 2)

    def rate(w: Tensor) -> Tensor:
        u, v, wx, wy = (
            torch.fft.irfft2(part, s=(n, n))
            for part in (1j * ky * stream * w, -1j * kx * stream * w, 1j * kx * w, 1j * ky * w)
        )
        return kept * (force - torch.fft.rfft2(u * wx + v * wy))

    w = kept * torch.fft.rfft2(initial.double())
    for _ in range(steps):
        a = rate(w)
        b = rate(decay * (w + dt / 2 * a))
        c = rate(decay * w + dt / 2 * b)
        d = rate(decay * (decay * w + dt * c))
        w = decay * (decay * (w + dt / 6 * a) + dt / 3 * (b + c)) + dt / 6 * d
    return torch.fft.irfft2(w, s=(n, n))


def dataset(scale: dict[str, Any], device: str) -> Store:
    """Initial vorticities and those at the final time, made if they are not there."""
    folder = WORK / f"navier-stokes-{scale['points']}-{scale['train']}-{scale['final_time']:g}"
    if (folder / "manifest.json").exists():
        return open_store(folder)
    counts = {split: scale[split] for split in ("train", "validation", "test")}
    about = {"name": "navier_stokes", "grid": scale["points"], "final_time": scale["final_time"], "frames": 2}
    family = NavierStokes(**{key: value for key, value in about.items() if key != "name"})
    fields = np.stack(
        [
            family.sample(np.random.default_rng(seed_sequence(0, "navier_stokes", split, index, 0))).fields[
                "initial_vorticity"
            ]
            for split, count in counts.items()
            for index in range(count)
        ]
    )
    steps = round(family.final_time / scale["step"])
    parts = [
        vorticity(family, torch.from_numpy(part).to(device), steps).cpu()
        for part in np.array_split(fields, -(-len(fields) // 128))
    ]
    last = torch.cat(parts).numpy()
    exact = family.evolve(fields[:2, None], [family.final_time])[:, 0, 0]
    print(f"two samples differ by {np.linalg.norm(last[:2] - exact) / np.linalg.norm(exact):.1e} from the family's own")
    WORK.mkdir(parents=True, exist_ok=True)
    np.savez(WORK / "samples.npz", initial_vorticity=fields.astype("f4"), vorticity=last.astype("f4"))
    wanted = Wanted(("initial_vorticity",), ("vorticity",), sides=("periodic",), centring="periodic-node")
    import_file(
        WORK / "samples.npz",
        folder,
        "npz",
        wanted,
        train=counts["train"],
        validation=counts["validation"],
        test=counts["test"],
    )
    return open_store(folder)


# -- Errors and memory -----------------------------------------------------------------------------------------------


def trained(side: str, seed: int, scale: dict[str, Any], device: str) -> dict[str, Any]:
    """One training run's test error."""
    torch.set_num_threads(1)
    keep_freed_memory()
    store, folder = dataset(scale, device), f"{scale['points']}-{side.replace(', ', '-').replace(' ', '-')}-{seed}"
    out = WORK / "runs" / folder
    name, arguments = model_of(side, scale)
    overrides = [f"model={name}", *(f"model.{key}={value}" for key, value in arguments.items())]
    overrides += [f"optimizer.lr={scale['lr']}", f"trainer.batch_size={scale['batch']}"]
    overrides += [f"trainer.epochs={scale['epochs']}"]
    overrides += [f"seed={seed}", f"trainer.device={device}", f"dataset.path={store.path}", f"out={out}"]
    with initialize_config_module(version_base="1.3", config_module="configs"):
        config: Any = OmegaConf.to_container(compose("train", overrides), resolve=True)
    began_cpu = process_time()
    result = train(config, store)
    cpu = process_time() - began_cpu
    if not result.finished:
        raise SystemExit("stopped; the same command goes on from here")
    predictor = load(out / LAST, device)
    fields, truth = (store.read("test", name)[:, None] for name in ("initial_vorticity", "vorticity"))
    errors = relative_l2(torch.from_numpy(predictor.predict(fields)), torch.from_numpy(truth).float())
    seconds = {"wall": sum(row["seconds"] for row in result.history), "cpu": cpu}
    return {"parameters": predictor.parameter_count, "error": errors.mean().item(), **seconds}


def memory(side: str, scale: dict[str, Any], device: str) -> float:
    """The most that torch holds at a time in a forward and backward pass of a batch, in megabytes."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    name, arguments = model_of(side, scale)
    model = models.build(name, in_channels=1, out_channels=1, **arguments).to(device)
    x, y = torch.randn(2, scale["batch"], 1, scale["points"], scale["points"]).to(device)

    def step() -> None:
        model.zero_grad()
        relative_l2(model(x), y).mean().backward()

    step()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() / 1e6
    held = sum(tensor.nbytes for tensor in (x, y, *model.parameters())) * 1.0
    model.zero_grad()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    changes = [event.nbytes() for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    return (held + max(accumulate(changes))) / 1e6


def measure(out: Path, scale: dict[str, Any], device: str, processes: int) -> dict[str, Any]:
    """Whatever is missing of the results."""
    report: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    if not report:
        name = torch.cuda.get_device_name() if device == "cuda" else "cpu, one thread"
        report = {"format_version": 1, "created": strftime("%Y-%m-%dT%H:%M:%S%z"), "machine": machine()}
        report |= {"device": name, "scale": scale, "memory_mb": {}, "runs": []}
    if report["scale"] != scale:
        raise SystemExit(f"{out} holds runs of another scale; choose another --out")
    context = get_context("spawn")
    for side in SIDES:
        if side not in report["memory_mb"]:
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                report["memory_mb"][side] = pool.submit(memory, side, scale, device).result()
            write(out, report)
    dataset(scale, device)
    done = {(run["side"], run["seed"]) for run in report["runs"]}
    with ProcessPoolExecutor(processes, mp_context=context, max_tasks_per_child=1) as pool:
        wanted = [(side, seed) for side in SIDES for seed in SEEDS if (side, seed) not in done]
        running = {pool.submit(trained, *each, scale, device): each for each in wanted}
        for future in as_completed(running):
            side, seed = running[future]
            report["runs"].append({"side": side, "seed": seed, **future.result()})
            write(out, report)
            print(report["runs"][-1], flush=True)
    return report


def table(report: dict[str, Any]) -> str:
    """Markdown: errors, memory and seconds of both."""
    lines = [
        f"| {report['device']} | parameters | test errors, % | over TFNO's | memory, MB | over TFNO's | s an epoch |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    first, *_ = SIDES
    errors = {side: [100 * run["error"] for run in report["runs"] if run["side"] == side] for side in SIDES}
    for side in SIDES:
        runs = [run for run in report["runs"] if run["side"] == side]
        if not runs or not errors[first]:
            continue
        found, memory_mb = errors[side], report["memory_mb"]
        cells = [side, f"{runs[0]['parameters']:,}", ", ".join(f"{error:.3f}" for error in found)]
        cells += [f"{statistics.mean(found) / statistics.mean(errors[first]):.3f}", f"{memory_mb[side]:.0f}"]
        cells += [f"{memory_mb[side] / memory_mb[first]:.3f}"]
        cells += [f"{statistics.mean(run['wall'] for run in runs) / report['scale']['epochs']:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="MG-TFNO on patches beside the TFNO on whole fields")
    parser.add_argument("--scale", choices=list(SCALES), default="full")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--processes", type=int, default=1, help="runs at a time")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--table", action="store_true", help="of what is there, without training")
    given = parser.parse_args()
    if given.table:
        print(table(json.loads(given.out.read_text())))
    else:
        print(table(measure(given.out, SCALES[given.scale], given.device, given.processes)))


if __name__ == "__main__":
    main()
