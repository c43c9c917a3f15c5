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


# ------------------------------------------------------------ evolutions whose solution operator is known exactly

POINTS = 32
SHIFT = 2  # points that a wave moves from a frame to the next


@dataclass
class WaveStore:
    """One wave a sample on a periodic line, moved by `SHIFT` points a frame; the store's interface, in memory.

    ``u(x, t) = A cos(2 pi k x / POINTS + phase)``, with a ``fixed`` field that does not evolve where `forced`.
    """

    sizes: dict[str, int] = field(default_factory=lambda: {"train": 4, "validation": 2, "test": 7})
    path: str = "waves"
    frames: int = 11
    spacing: float = 0.25
    wavenumber: int = 2
    shape: tuple[int, ...] = (POINTS,)
    forced: bool = False
    later: bool = False  # whether stored frames begin after time 0
    evolves: bool = True
    largest_read: int = 10**9

    def __post_init__(self):
        self.spec = {"pde": {"name": "waves"}}
        self.times = self.spacing * (np.arange(self.frames) + self.later)
        fixed = (MemoryField("fixed", "input"),) if self.forced else ()
        self.fields = (MemoryField("initial_u", "input"), *fixed, MemoryField("u", "output"))
        self.boundary = (("periodic", "periodic"),)

    def record_names(self, group):
        return []

    def _all(self, split):
        generator = np.random.default_rng([3, list(self.sizes).index(split)])
        count = self.sizes[split]
        return generator.uniform(1, 2, (count, 1, 1)), generator.uniform(0, 2 * np.pi, (count, 1, 1))

    def read(self, split, name, start=0, stop=None, frame=None):
        stop = self.sizes[split] if stop is None else stop
        assert stop - start <= self.largest_read, f"{stop - start} samples are read at once"
        amplitude, phase = (each[start:stop] for each in self._all(split))
        x = np.arange(POINTS)[None, None]
        moved = SHIFT * (np.arange(self.frames) + self.later)[None, :, None]
        if name == "initial_u":
            moved = np.zeros((1, 1, 1))
        if name == "fixed":
            return np.ones((stop - start, POINTS), np.float32) * np.arange(start, stop)[:, None]
        states = (amplitude * np.cos(2 * np.pi * self.wavenumber * (x - moved) / POINTS + phase)).astype(np.float32)
        return states[:, 0] if name == "initial_u" else states if frame is None else states[:, frame]


@pytest.fixture
def make_waves():
    return WaveStore


class Shift(torch.nn.Module):
    """Moves every channel by a number of points of a periodic line, exactly for waves."""

    def __init__(self, in_channels: int, out_channels: int, points: float = SHIFT, growth: float = 1.0):
        super().__init__()
        self.points, self.growth, self.out_channels = points, growth, out_channels

    def forward(self, fields):
        return self.growth * self.moved(fields[:, : self.out_channels], self.points)

    def moved(self, fields, points):
        frequencies = torch.fft.rfftfreq(fields.shape[-1]) * torch.as_tensor(points)
        turned = torch.fft.rfft(fields) * torch.exp(-2j * torch.pi * frequencies)
        return torch.fft.irfft(turned, n=fields.shape[-1]).to(fields.dtype)


class TimedShift(Shift):
    """Moves by `points` in one unit of the lead time."""

    conditioned_on_time = True

    def forward(self, fields, time):
        return self.growth * self.moved(fields[:, : self.out_channels], self.points * time.reshape(-1, 1, 1))


class Adding(torch.nn.Module):
    """The first channel and the last."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()

    def forward(self, fields):
        return fields[:, :1] + fields[:, -1:]


@pytest.fixture
def make_checkpoint(tmp_path, monkeypatch):
    """A checkpoint of one of the models above, or of the identity, as the trainer would leave it."""
    from operators.checkpoint import complete_arguments, save_checkpoint
    from operators.models import models

    monkeypatch.setattr(models, "_entries", dict(models._entries))
    for name, model in {"shift": Shift, "timed_shift": TimedShift, "adding": Adding}.items():
        models.register(name)(model)

    def make(
        model="shift",
        arguments=None,
        inputs=("u",),
        outputs=("u",),
        task="time_pairs",
        time=None,
        task_arguments=None,
        grid=(POINTS,),
        mean=0.0,
        deviation=1.0,
        run="run",
    ):
        given = {"in_channels": len(inputs), "out_channels": len(outputs), **(arguments or {})}
        built = models.build(model, **given)
        if task == "time_pairs" and time is None:
            time = {"conditioned": model == "timed_shift", "step": 0.25, "scale": 0.25}

        def normaliser(count):
            return {"mean": torch.full((count,), mean), "standard_deviation": torch.full((count,), deviation)}

        def described(names):
            return [{"name": name, "units": "", "description": ""} for name in names]

        (tmp_path / run).mkdir(exist_ok=True)
        content = {
            "model": {"name": model, "arguments": complete_arguments(model, given), "state": built.state_dict()},
            "task": {"name": task, "arguments": task_arguments or {}},
            "time": time,
            "normalisers": {"inputs": normaliser(len(inputs)), "outputs": normaliser(len(outputs))},
            "channels": {"inputs": described(inputs), "outputs": described(outputs)},
            "dataset": {"path": "waves", "spec": '{"pde": {"name": "waves"}}', "grid": list(grid), "sizes": {}},
            "config": "seed: 0\n",
            "history": [
                {"epoch": 1.0, "train_loss": 1.0, "validation_loss": 0.5, "validation_relative_l2": 0.5, "seconds": 2.0}
            ],
            "training": {},
        }
        save_checkpoint(tmp_path / run / "best.pt", content)
        return tmp_path / run / "best.pt"

    return make
