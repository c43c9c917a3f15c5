"""MG-TFNO beside the unpatched TFNO: test error at equal samples a step, and the memory of a training step.

    python -m benchmarks.patched_tfno              # on a GPU: about seven minutes; goes on where it stopped
    python -m benchmarks.patched_tfno --only memory
    python -m benchmarks.patched_tfno --table      # of the results, as in docs/models.md

Vorticity on the unit torus, w_t + u . grad w = nu lap w + f with nu = 1e-3 and the forcing of Li et al. 2021 (Fourier
neural operator, section 5.3), on 128 x 128 points. What is learned is their solution operator from the initial vorticity
to the vorticity at a later time. Both operators have the same channels, layers, modes and rank, see the same samples in
the same order, as many in a step, and are trained by `operators.trainer.train`; the patched one cuts them into 4 x 4
patches (two levels, widened by 5 % of the axis) and computes a few at a time (`patches_at_once`), whose gradients add up.
Errors are those after the last epoch. Memory is the most that a forward and backward pass of one step takes: allocated
on the GPU, resident on a CPU.

The samples are those of `datagen.pdes.navier_stokes`. On a GPU they are integrated there, by the integrating-factor
Runge-Kutta method of order four, and compared with the family's own integrator.
"""

import argparse
import ctypes
import json
import statistics
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter, process_time, strftime
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from torch import Tensor

from benchmarks.harness import RESULTS, machine
from benchmarks.scot import resident
from datagen.family import seed_sequence
from datagen.interchange import Wanted, import_file
from datagen.pdes.navier_stokes import NavierStokes
from datagen.store import Store, open_store
from operators.losses import relative_l2
from operators.models import models
from operators.predict import load
from operators.run_folder import LAST
from operators.trainer import train

RESULT = RESULTS / "patched_tfno.json"
WORK = Path("outputs/patched_tfno")
SEEDS = (0, 1)
SIZES = {"points": 128, "train": 1000, "validation": 20, "test": 200, "final_time": 10.0, "step": 0.05}
MODEL = {"hidden_channels": 32, "n_modes": [16, 16], "rank": 0.42}
PATCHES = {"levels": 2, "padding_fraction": 0.05, "boundary": "periodic", "patches_at_once": 32}
RECIPE = {"epochs": 30, "batch_size": 20, "lr": 5e-3}
SIDES = ("unpatched", "patched")
ALLOWED_ERROR, ALLOWED_MEMORY = 1.05, 0.25


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


def dataset(sizes: dict[str, Any], device: str) -> Store:
    """Initial vorticities and those at the final time, made if they are not there."""
    folder = WORK / f"navier-stokes-{sizes['points']}-{sizes['train']}-{sizes['final_time']:g}"
    if (folder / "spec.json").exists() and (folder / "manifest.json").exists():
        return open_store(folder)
    counts = {split: sizes[split] for split in ("train", "validation", "test")}
    about = {"name": "navier_stokes", "grid": sizes["points"], "final_time": sizes["final_time"], "frames": 2}
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
    steps = round(family.final_time / sizes["step"])
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


# -- Errors ----------------------------------------------------------------------------------------------------------


def trained(
    side: str,
    seed: int,
    store: Store,
    recipe: dict[str, Any],
    model: dict[str, Any],
    patches: dict[str, Any],
    device: str,
) -> dict[str, Any]:
    """One training run's test error."""
    out = WORK / "runs" / f"{side}-{seed}"
    chosen = model | (patches if side == "patched" else {})
    overrides = [f"model={'multigrid_fno' if side == 'patched' else 'tfno'}", "loss=relative_l2", f"seed={seed}"]
    overrides += [f"model.{key}={value}" for key, value in chosen.items()]
    overrides += [f"optimizer.lr={recipe['lr']}", f"trainer.device={device}"]
    overrides += [f"trainer.{key}={recipe[key]}" for key in ("epochs", "batch_size")]
    overrides += [f"dataset.path={store.path}", f"out={out}"]
    with initialize_config_module(version_base="1.3", config_module="configs"):
        config: Any = OmegaConf.to_container(compose("train", overrides), resolve=True)
    result = train(config, store)
    if not result.finished:
        raise SystemExit("stopped; the same command goes on from here")
    predictor = load(out / LAST, device)
    fields = store.read("test", "initial_vorticity")[:, None]
    truth = torch.from_numpy(store.read("test", "vorticity", frame=-1 if store.evolves else None))[:, None].float()
    error = relative_l2(torch.from_numpy(predictor.predict(fields)), truth).mean().item()
    seconds = sum(row["seconds"] for row in result.history)
    return {"parameters": predictor.parameter_count, "error": error, "seconds": seconds}
