"""A small dataset in memory with the store's interface, whose solution operator is known exactly."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch


@dataclass(frozen=True)
class MemoryField:
    name: str
    role: str
    units: str = "dimensionless"
    description: str = ""


@dataclass
class MemoryStore:
    """Periodic fields ``f`` of low wavenumbers and ``u`` with ``u - 0.01 Laplacian u = 5 + f`` on the unit cube."""

    shape: tuple[int, ...] = (16, 16)
    sizes: dict[str, int] = field(default_factory=lambda: {"train": 24, "validation": 8, "test": 6})
    path: str = "memory"
    seed: int = 0
    forbidden: tuple[str, ...] = ()
    evolves: bool = False

    def __post_init__(self):
        self.spec = {"pde": {"name": "screened_poisson", "grid": list(self.shape)}, "seed": self.seed}
        self.fields = (
            MemoryField("source", "input", "1/m"),
            MemoryField("mask", "constant"),
            MemoryField("solution", "output", "m"),
        )
        self.boundary = (("periodic", "periodic"),) * len(self.shape)
        self.arrays = {}
        for number, (split, count) in enumerate(self.sizes.items()):
            generator = np.random.default_rng([self.seed, number])
            wavenumbers = np.meshgrid(*[np.fft.fftfreq(n, 1 / n) for n in self.shape], indexing="ij")
            square = sum(k**2 for k in wavenumbers)
            # The same wavenumbers at every resolution, drawn in one fixed order.
            source = np.zeros((count, *self.shape))
            axes = np.meshgrid(*[np.arange(n) / n for n in self.shape], indexing="ij")
            for sample in source:
                for _ in range(8):
                    k = generator.integers(-3, 4, size=len(self.shape))
                    phase = sum(ki * x for ki, x in zip(k, axes, strict=True)) + generator.uniform()
                    sample += generator.normal() * np.cos(2 * np.pi * phase)
            axes_of_grid = tuple(range(1, source.ndim))
            transformed = np.fft.fftn(5 + source, axes=axes_of_grid) / (1 + 0.01 * (2 * np.pi) ** 2 * square)
            solution = np.fft.ifftn(transformed, axes=axes_of_grid).real
            self.arrays[split] = {
                "source": source.astype(np.float32),
                "solution": solution.astype(np.float32),
                "mask": np.ones((count, *self.shape), np.float32),
            }

    def read(self, split, name, start=0, stop=None, frame=None):
        assert split not in self.forbidden, f"the {split} split must not be read here"
        return self.arrays[split][name][start:stop]


@pytest.fixture
def make_store():
    return MemoryStore


@pytest.fixture
def make_config(tmp_path):
    """A complete training configuration; keyword arguments replace top-level entries, or update groups."""

    def make(**changes):
        config = {
            "seed": 0,
            "loss": "relative_l2",
            "out": str(tmp_path / "run"),
            "dataset": {"path": "memory"},
            "model": {"name": "tfno", "n_modes": [6, 6], "hidden_channels": 8, "n_layers": 2, "rank": 0.5},
            "optimizer": {"name": "adamw", "lr": 1e-2, "weight_decay": 1e-4},
            "scheduler": {"name": "cosine", "warmup": 0.1},
            "trainer": {"epochs": 5, "batch_size": 5, "gradient_clip": 1.0, "device": "cpu"},
        }
        for key, value in changes.items():
            config[key] = {**config.get(key, {}), **value} if isinstance(value, dict) and "name" not in value else value
        return config

    return make


@pytest.fixture(autouse=True)
def _one_thread():
    # Small tensors: threads only cost. Bits are compared between runs of one thread count, as on one machine.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
