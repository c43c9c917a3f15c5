"""What the training loop costs beside the model: epochs of `operators.trainer` against bare optimizer steps.

    python -m benchmarks.training

The model and recipe are the demo's: a TFNO on 64 x 64 Darcy flow, batches of 8. Bare steps take the same batches,
normalised beforehand: forward pass, loss, backward pass, clipping, optimizer and schedule, nothing else. The loop adds
reading, normalisers, progress, signals, records and files. Both start from the same weights and are checked to end
with the same. On a machine where others work this cannot be told: with epochs of 4 to 16 steps and a load of 10 it gave
0.94 to 1.18.
"""

import tempfile
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.harness import Answer, Entry, main
from datagen.generate import generate
from datagen.plan import planned
from datagen.store import Spec, Store, open_store
from operators.commands.memory import keep_freed_memory
from operators.distributed import Ranks
from operators.loader import epoch_batches
from operators.run_folder import RunFolder
from operators.settings import Settings
from operators.trainer import _Training
from operators.training_state import TrainingState

FEW, MANY = 256, 512  # training samples: 32 steps, to compare steps; 64, to compare epochs with their end
RECIPE: dict[str, Any] = {  # configs/experiment/demo.yaml
    "seed": 0,
    "loss": "relative_l2",
    "model": {"name": "tfno", "n_modes": [12, 12], "hidden_channels": 24, "n_layers": 3, "rank": 0.2},
    "optimizer": {"name": "adamw", "lr": 1e-2, "weight_decay": 1e-4},
    "scheduler": {"name": "cosine", "warmup": 0.1},
    "trainer": {"epochs": 6, "batch_size": 8, "device": "cpu"},
}


@cache
def dataset(samples: int) -> Store:
    """Darcy flow on 64 x 64 cells."""
    folder = tempfile.mkdtemp(prefix="southwell-training-")
    counts = {"train": samples, "validation": samples // 8, "test": 0}
    spec = planned(Spec({"name": "darcy", "grid": 64}, 0, counts, 32, {"method": "auto", "rtol": 1e-6}))
    generate(spec, folder, executor="serial")
    return open_store(folder)


def fresh(out: Path, store: Store, memory_gb: float) -> TrainingState:
    """The state before the first step, the same each time."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = {**RECIPE, "out": str(out), "dataset": {"memory_gb": memory_gb}}
    settings = Settings.of(config["trainer"])
    return TrainingState(config, settings, store, Ranks(0, 1, torch.device("cpu")))


def timed(work: Callable[[], Any], state: TrainingState) -> Answer:
    """Seconds of the work, and the weights after it."""
    began, began_cpu = perf_counter(), process_time()
    work()
    seconds = perf_counter() - began, process_time() - began_cpu
    return Answer(np.concatenate([p.detach().numpy().ravel() for p in state.model.parameters()]), seconds=seconds)


def bare(samples: int, validate: bool) -> Answer:
    """An epoch of steps, and forward passes and losses of the validation data if asked for."""
    with tempfile.TemporaryDirectory() as folder:
        state = fresh(Path(folder), dataset(samples), memory_gb=4.0)
    size, operator = state.config["trainer"]["batch_size"], state.operator

    def prepared(examples: Any, order: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        batches = [examples.batch(indices) for indices in order]
        return [(operator.input_normaliser(b.inputs), operator.scale(b.targets)) for b in batches]

    steps = prepared(state.training, epoch_batches(len(state.training), size, 0, 0))
    checks = prepared(state.validation, list(torch.arange(len(state.validation)).split(2 * size))) if validate else []
    shift = operator.output_normaliser.scaled_mean(4)

    def work() -> None:
        state.model.train()
        for inputs, targets in steps:
            loss = state.loss(state.model(inputs) + shift, targets).mean()
            state.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(state.model.parameters(), 1.0)
            state.optimizer.step()
            state.scheduler.step()
        state.model.eval()
        with torch.no_grad():
            for inputs, targets in checks:
                state.loss(state.model(inputs) + shift, targets).mean()

    return timed(work, state)


def loop(samples: int, validate: bool, memory_gb: float = 4.0) -> Answer:
    """An epoch of the trainer, and its end (validation, best.pt, last.pt, metrics.csv) if asked for."""
    with tempfile.TemporaryDirectory() as folder:
        state = fresh(Path(folder), dataset(samples), memory_gb)
        settings = Settings.of(state.config["trainer"])
        training = _Training(state, settings, RunFolder(folder, state.config), perf_counter())
        training.signal, training.log = threading.Event(), lambda step, metrics: None

        def work() -> None:
            training._train_epoch()
            if validate:
                training._finish_epoch()

        return timed(work, state)


def entries() -> list[Entry]:
    """Steps alone, and whole epochs."""
    keep_freed_memory()  # as southwell-train does; otherwise the loop, which frees its batches, pays for their pages
    problem = "TFNO (12 modes, 24 channels, 3 layers, rank 0.2) on 64 x 64 Darcy flow in batches of 8"
    # No error is measured: all must end with the first peer's weights, which rounding does not touch on one thread.
    shared: dict[str, Any] = {"error": lambda x: 0.0, "tolerance": 0.0, "agreement": 0.0}
    return [
        Entry(
            "steps",
            f"{problem}: {FEW} samples",
            {
                "bare steps": lambda: bare(FEW, validate=False),
                "the loop": lambda: loop(FEW, validate=False),
                "the loop, reading from disk": lambda: loop(FEW, validate=False, memory_gb=0.0),
            },
            facts={"samples": FEW},
            **shared,
        ),
        Entry(
            "epoch",
            f"{problem}: {MANY} samples, and validation on {MANY // 8}",
            {
                "bare steps and forward passes": lambda: bare(MANY, validate=True),
                "the loop, its records and files": lambda: loop(MANY, validate=True),
            },
            facts={"samples": MANY},
            **shared,
        ),
    ]


if __name__ == "__main__":
    main(entries, "training")
