"""Every model on a GPU for a few steps: the same numbers as on the CPU, and how fast. ``make gpu-smoke``.

    python -m benchmarks.gpu_smoke               # skips with a sentence where torch sees no GPU
    python -m benchmarks.gpu_smoke --device cpu  # the script itself, tried where there is none

Each option of ``configs/model`` but `LEFT_OUT` is trained by `operators.trainer.train` for two epochs of eight steps on
made-up 64 x 64 fields: on the CPU and on the device in 32 bits, which must agree, and on the device in half precision,
where the loss must come near. Samples per second are those of the second epoch, reading and validation included. A loss
hardly sees what a few weights do, so the gradient of each parameter in one step is compared as well, and the parameter
that is furthest apart is named.
"""

import argparse
import logging
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

import configs
from operators.predict import load
from operators.run_folder import LAST
from operators.trainer import TrainingResult, train

BATCH, STEPS = 16, 8
# SGD: Adam divides by the gradient, and would show rounding where that is nearly zero.
OVERRIDES = ["optimizer=sgd", "optimizer.lr=1e-3", "scheduler=constant", "dataset.path=made-up", "out=unused"]
AGREE = 1e-3  # of losses after 16 steps in 32 bits, which each round to 6e-8
# They need files, are `scot` in sizes that the CPU would train for hours, or want the stencils of linear systems.
LEFT_OUT = ("poseidon", "pretrained", "scot_t", "scot_s", "scot_b", "scot_l", "learned_multigrid")
NEAR = 0.05  # of losses in half precision: bfloat16 has 8 bits
# Of gradients, over their size or a hundredth of that of the network's largest: they are read off weights, which a step
# of size 1 changed, and are right to the last digits of those.
GRADIENTS_AGREE = 1e-2


@dataclass(frozen=True)
class Quantity:
    """A field as stores declare them."""

    name: str
    role: str
    units: str = "dimensionless"
    description: str = ""


@dataclass
class MadeUp:
    """A store in memory: smooth random inputs, and outputs that a convolution makes of them."""

    shape: tuple[int, ...] = (64, 64)
    sizes: dict[str, int] = field(default_factory=lambda: {"train": BATCH * STEPS, "validation": BATCH, "test": 1})
    path: str = "made-up"
    evolves: bool = False
    fields: tuple[Quantity, ...] = (Quantity("source", "input"), Quantity("solution", "output"))

    def __post_init__(self) -> None:
        self.spec = {"pde": {"name": "made-up"}}
        self.boundary = (("periodic", "periodic"),) * len(self.shape)
        square = sum(k**2 for k in np.meshgrid(*[np.fft.fftfreq(n, 1 / n) for n in self.shape], indexing="ij"))
        self.arrays = {}
        for number, (split, count) in enumerate(self.sizes.items()):
            noise = np.random.default_rng([7, number]).normal(size=(count, *self.shape))
            source = np.fft.fftn(noise, axes=(1, 2)) / (1 + square)
            solution = np.fft.ifftn(source / (1 + 0.1 * square), axes=(1, 2)).real
            source = np.fft.ifftn(source, axes=(1, 2)).real
            self.arrays[split] = {"source": source.astype(np.float32), "solution": solution.astype(np.float32)}

    def read(self, split: str, name: str, start: int = 0, stop: int | None = None, frame: int | None = None) -> Any:
        """Samples of a field."""
        return self.arrays[split][name][start:stop]


def configuration(model: str, device: str, precision: int | str, *more: str) -> dict[str, Any]:
    """Of a training of a model, without its folder."""
    with initialize_config_module("configs", version_base="1.3"):
        composed = compose("train", [*OVERRIDES, f"model={model}", f"trainer.batch_size={BATCH}", *more])
    config: Any = OmegaConf.to_container(composed, resolve=True)
    config["trainer"] |= {"device": device, "precision": precision}
    return dict(config)


def trained(model: str, device: str, precision: int | str) -> TrainingResult:
    """Two epochs of a model."""
    config = configuration(model, device, precision, "trainer.epochs=2")
    with tempfile.TemporaryDirectory() as folder:
        return train({**config, "out": folder}, MadeUp())  # type: ignore[arg-type]


def gradients(model: str, device: str) -> dict[str, torch.Tensor]:
    """Of the first step's loss, by each parameter: what a step of size 1 takes off the weights."""
    weights = []
    for rate in (0, 1):
        one_step = ("trainer.epochs=1", f"optimizer.lr={rate}", "optimizer.momentum=0", "optimizer.nesterov=false")
        config = configuration(model, device, 32, *one_step)
        store = MadeUp(sizes={"train": BATCH, "validation": BATCH, "test": 1})
        with tempfile.TemporaryDirectory() as folder:
            train({**config, "out": folder}, store)  # type: ignore[arg-type]
            weights.append(dict(load(Path(folder) / LAST, "cpu").operator.named_parameters()))
    before, after = weights
    return {name: (before[name] - after[name]).detach() for name in before}


def apart_in_gradients(model: str, device: str) -> tuple[float, str]:
    """The largest difference between a parameter's gradients on the CPU and on the device, and whose it is."""
    here, there = gradients(model, "cpu"), gradients(model, device)
    largest = max(gradient.norm().item() for gradient in here.values())
    apart = {
        name: ((here[name] - there[name]).norm() / here[name].norm().clamp(min=largest / 100)).item() for name in here
    }
    worst = max(apart, key=lambda name: apart[name])
    return apart[worst], worst


def smoke(model: str, device: str) -> tuple[str, bool]:
    """A line of the table, and whether all was well."""
    reference = trained(model, "cpu", 32)
    cells, well = [f"{model:24}"], True
    for precision in (32, "bf16", 16):
        if precision == 16 and device == "cpu":
            continue
        result = trained(model, device, precision)
        keys = ("train_loss", "validation_loss")
        apart = max(abs(result.history[-1][key] / reference.history[-1][key] - 1) for key in keys)
        good = apart <= (AGREE if precision == 32 else NEAR)
        rate = BATCH * STEPS / result.history[-1]["seconds"]
        cells.append(f"{precision!s:>4}: {rate:8.0f} samples/s, {apart:.0e} apart{'' if good else ' (TOO FAR)'}")
        well &= good
    apart, worst = apart_in_gradients(model, device)
    good = apart <= GRADIENTS_AGREE
    cells.append(f"gradients {apart:.0e} apart, {worst}{'' if good else ' (TOO FAR)'}")
    return "  ".join(cells), well and good


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="train every model on a GPU for a few steps")
    parser.add_argument("--device", default="cuda")
    device = parser.parse_args().device
    if device == "cuda" and not torch.cuda.is_available():
        print("gpu-smoke is skipped: torch sees no GPU here, so nothing was run and nothing is claimed")
        return 0
    logging.basicConfig(level=logging.WARNING)
    name = torch.cuda.get_device_name() if device == "cuda" else "the CPU itself"
    print(f"64 x 64 fields, batches of {BATCH}; apart: relative difference of losses from the CPU's, on {name}")
    models = sorted(path.stem for path in (Path(configs.__file__).parent / "model").glob("*.yaml"))
    models = [model for model in models if model not in LEFT_OUT]
    ends = []
    for model in models:
        line, well = smoke(model, device)
        print(line, flush=True)
        ends.append(well)
    return 0 if all(ends) else 1


if __name__ == "__main__":
    sys.exit(main())
