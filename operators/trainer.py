"""Training: from a dataset and a configuration to a folder with a trained operator.

The folder holds ``config.yaml``, ``metrics.csv``, ``best.pt`` (by validation data), ``last.pt`` (to resume from) and
``loss.png``. The same call on an unfinished folder goes on where ``last.pt`` ended, and on a CPU ends with the same
bits as an unbroken run; on a finished one it does nothing.
"""

import csv
import io
import json
import logging
import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from datagen.files import locked, write_atomically
from datagen.store import Store
from operators.checkpoint import complete_arguments, load_checkpoint, save_checkpoint
from operators.data import Batch, epoch_batches, periodic_axes
from operators.devices import choose_device
from operators.losses import configured, losses
from operators.models import models
from operators.operator import Operator, input_channels
from operators.optimizers import optimizers, schedulers
from operators.plots import loss_curve, save_figure
from operators.tasks import Task, tasks
from solvers.registry import fits

logger = logging.getLogger(__name__)

LOG_EVERY_SECONDS = 30.0
MAY_DIFFER_ON_RESUME = ("out", "trainer.device", "dataset.memory_gb")
MEMORY_GB = 4.0  # where the configuration does not say


class TrainingDiverged(FloatingPointError):
    """The loss or its gradient stopped being finite; the message says where and what to try."""


@dataclass(frozen=True)
class TrainingResult:
    """What a call of `train` came to.

    Attributes
    ----------
    out : Path
        The run's folder.
    finished : bool
        False if SIGTERM ended it early; the same call resumes.
    history : list of dict
        One entry an epoch, as in ``metrics.csv``.
    """

    out: Path
    finished: bool
    history: list[dict[str, float]]

    @property
    def best(self) -> dict[str, float]:
        """The epoch with the least validation loss."""
        return min(self.history, key=lambda row: row["validation_loss"])


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested configuration as dotted keys.

    Examples
    --------
    >>> flatten({"model": {"name": "tfno", "rank": 0.1}, "seed": 0})
    {'model.name': 'tfno', 'model.rank': 0.1, 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def refuse_another_run(out: Path, config: Mapping[str, Any]) -> None:
    """Raise if the folder holds a run with another configuration, naming the keys that differ.

    Raises
    ------
    ValueError
    """
    path = out / "config.yaml"
    if out.exists() and not out.is_dir():
        raise ValueError(f"out={out} is a file; name a folder")
    if not path.exists():
        if out.is_dir() and any(not entry.name.startswith(".") for entry in out.iterdir()):
            raise ValueError(f"out={out} is not empty and holds no run; choose another folder")
        return
    before, now = ({"task.name": "static", **flatten(c)} for c in (yaml.safe_load(path.read_text()) or {}, config))
    keys = sorted({*before, *now} - set(MAY_DIFFER_ON_RESUME))
    differences = [
        f"{key} was {before.get(key, 'absent')!r}, now {now.get(key, 'absent')!r}"
        for key in keys
        if before.get(key) != now.get(key)
    ]
    if differences:
        raise ValueError(
            f"{out} holds a run with another configuration: {'; '.join(differences)}. "
            "Choose another out, or delete the folder to start over"
        )


def train(config: Mapping[str, Any], store: Store) -> TrainingResult:
    """Train an operator, or resume its training.

    Parameters
    ----------
    config : mapping
        Plain values: ``out``; ``seed``; ``loss`` (a registered name); ``task`` (static if left out), ``model``,
        ``optimizer`` and ``scheduler``, each a registered ``name`` and its arguments (channel counts come from the
        task); ``trainer`` with ``epochs``, ``batch_size``, ``gradient_clip`` (largest gradient norm, or None) and
        ``device``; ``dataset`` with ``memory_gb``. ``configs/train.yaml`` is the full example.
    store : Store
        The dataset: inputs and outputs are its fields of those roles.

    Returns
    -------
    TrainingResult

    Raises
    ------
    ValueError
        If a name, argument or the dataset does not fit, or ``out`` holds a run with another configuration.
    TrainingDiverged
        If a loss or gradient is not finite.

    Notes
    -----
    The model learns in normalised channels, but losses compare fields in units of the training data's standard
    deviation, *not* shifted: relative losses are then those in physical units, and channels of different units weigh
    the same.
    """
    out = Path(config["out"])
    refuse_another_run(out, config)
    # The caller's random state is left as it was; CUDA's only where CUDA is used.
    device = choose_device(config["trainer"]["device"])
    with _only_trainer(out), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config["seed"])
        return _Training(config, store, out, device).run()


@contextmanager
def _only_trainer(out: Path) -> Iterator[None]:
    """Hold the lock of a run's folder while training in it; a folder left empty is removed again."""
    existed = out.exists()
    out.mkdir(parents=True, exist_ok=True)
    lock = out / ".lock"
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(lock))
        except BlockingIOError:
            raise ValueError(f"another process is training in {out}; wait for it, or choose another out") from None
        try:
            yield
        finally:
            if not existed and [path.name for path in out.iterdir()] == [lock.name]:
                lock.unlink()
                out.rmdir()


class _Training:
    """One run: everything a step needs, built in the order in which random numbers are drawn."""

    def __init__(self, config: Mapping[str, Any], store: Store, out: Path, device: torch.device) -> None:
        self.config, self.store, self.out, self.device = config, store, out, device
        settings = config["trainer"]
        self.epochs, self.batch_size, self.clip = settings["epochs"], settings["batch_size"], settings["gradient_clip"]
        for name, value in (("epochs", self.epochs), ("batch_size", self.batch_size)):
            if not fits(value, int) or value < 1:
                raise ValueError(f"trainer.{name} must be a whole number of at least 1, got {value!r}")
        if not fits(config["seed"], int) or config["seed"] < 0:
            raise ValueError(f"seed must be a whole number that is not negative, got {config['seed']!r}")
        if self.clip is not None and not (fits(self.clip, float) and self.clip > 0):
            raise ValueError(f"trainer.gradient_clip must be a positive norm, or null for none, got {self.clip!r}")
        periodic = periodic_axes(store)
        self.loss = partial(configured(config["loss"]), periodic=periodic)
        self.relative_l2 = partial(losses["relative_l2"], periodic=periodic)
        chosen = dict(config.get("task", {"name": "static"}))
        self.task_name, self.task_arguments = chosen.pop("name"), chosen
        memory_gb = config["dataset"].get("memory_gb", MEMORY_GB)
        self.task: Task = tasks.build(self.task_name, store, memory_gb=memory_gb, **chosen)
        given = dict(config["model"])
        self.model_name = given.pop("name")
        given["in_channels"] = input_channels(self.model_name, len(self.task.inputs), self.task.conditioned_on_time)
        given["out_channels"] = len(self.task.outputs)
        self.model: nn.Module = models.build(self.model_name, **given).to(device)
        self.arguments = complete_arguments(self.model_name, given)
        self._check_model_fits(store.shape, given["in_channels"])

        self.operator = Operator(self.model, *self.task.normalisers()).to(device)
        self.training, self.validation = self.task.examples("train"), self.task.examples("validation")
        self.batches = math.ceil(len(self.training) / self.batch_size)
        chosen = dict(config["optimizer"])
        self.optimizer = optimizers.build(chosen.pop("name"), self.model.parameters(), **chosen)
        chosen = dict(config["scheduler"])
        self.scheduler = schedulers.build(chosen.pop("name"), self.optimizer, self.epochs * self.batches, **chosen)
        self.history: list[dict[str, float]] = []

    def _check_model_fits(self, grid: tuple[int, ...], in_channels: int) -> None:
        """One sample of zeros, before the data is read: a misfit is a sentence at once."""
        sample = torch.zeros(1, in_channels, *grid, device=self.device)
        time = [torch.ones(1, device=self.device)] if getattr(self.model, "conditioned_on_time", False) else []
        with torch.no_grad():
            shape = tuple(self.model.eval()(sample, *time).shape)
        expected = (1, len(self.task.outputs), *grid)
        if shape != expected:
            raise ValueError(
                f"model {self.model_name!r} maps {tuple(sample.shape)} to {shape}, but the dataset's outputs need "
                f"{expected}"
            )

    def run(self) -> TrainingResult:
        self._resume()
        if len(self.history) == self.epochs:
            logger.info("%s is finished (%d epochs): nothing to do", self.out, self.epochs)
            return TrainingResult(self.out, True, self.history)
        self.out.mkdir(parents=True, exist_ok=True)
        write_atomically(self.out / "config.yaml", yaml.safe_dump(dict(self.config), sort_keys=False).encode())
        logger.info(
            "%s: %s with %s parameters, %d training samples of shape %s, on %s",
            self.out,
            self.model_name,
            f"{sum(p.numel() for p in self.model.parameters()):,}",
            len(self.training),
            "x".join(map(str, self.store.shape)),
            self.device,
        )
        with logging_redirect_tqdm(), _stop_on_sigterm() as stop:
            for epoch in range(len(self.history), self.epochs):
                started = time.monotonic()
                train_loss = self._train_epoch(epoch, stop)
                if train_loss is None:
                    logger.warning(
                        "SIGTERM: stopped in epoch %d, whose batches are dropped; the same command resumes after "
                        "epoch %d",
                        epoch + 1,
                        epoch,
                    )
                    return TrainingResult(self.out, False, self.history)
                self._finish_epoch(epoch, train_loss, started)
        save_figure(loss_curve(self.history), self.out / "loss.png")
        return TrainingResult(self.out, True, self.history)

    def _train_epoch(self, epoch: int, stop: threading.Event) -> float | None:
        """Mean training loss of one epoch, or None if a signal ended it."""
        self.model.train()
        total, seen, spoke = 0.0, 0, time.monotonic()
        order = epoch_batches(len(self.training), self.batch_size, self.config["seed"], epoch)
        progress = tqdm(order, desc=f"epoch {epoch + 1}/{self.epochs}", unit="batch", leave=False, disable=None)
        for number, indices in enumerate(progress):
            if stop.is_set():
                progress.close()
                return None
            loss = self._step(indices, epoch, number)
            total, seen = total + loss * len(indices), seen + len(indices)
            progress.set_postfix_str(f"loss {total / seen:.4f}", refresh=False)
            if progress.disable and time.monotonic() - spoke > LOG_EVERY_SECONDS:
                spoke = time.monotonic()
                logger.info(
                    "epoch %d/%d, batch %d/%d: loss %.4f", epoch + 1, self.epochs, number + 1, len(order), total / seen
                )
        return total / seen

    def _step(self, indices: Tensor, epoch: int, number: int) -> float:
        batch: Batch = self.training.batch(indices).to(self.device)
        loss = self.task.loss(self.operator, batch, self.loss).mean()
        value = loss.item()
        self.optimizer.zero_grad()
        loss.backward()
        largest = math.inf if self.clip is None else self.clip
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), largest).item()
        if not (math.isfinite(value) and math.isfinite(norm)):
            raise TrainingDiverged(
                f"the training loss is {value} (gradient norm {norm}) in epoch {epoch + 1}, batch {number + 1}, at "
                f"learning rate {self.scheduler.get_last_lr()[0]:.3g}. Try a smaller optimizer.lr, a longer "
                "scheduler.warmup or a smaller trainer.gradient_clip, and check the data with southwell-data validate. "
                f"Delete {self.out} first if you keep that name"
            )
        self.optimizer.step()
        self.scheduler.step()
        return value

    def _finish_epoch(self, epoch: int, train_loss: float, started: float) -> None:
        """Validate, record, and write best.pt before last.pt: a crash between them repeats the epoch and its best."""
        row = {"epoch": float(epoch + 1), "train_loss": train_loss, **self._validate()}
        if not math.isfinite(row["validation_loss"]):
            raise TrainingDiverged(
                f"the validation loss after epoch {epoch + 1} is {row['validation_loss']}; try a smaller optimizer.lr"
            )
        row |= {"learning_rate": self.scheduler.get_last_lr()[0], "seconds": time.monotonic() - started}
        best_before = min((r["validation_loss"] for r in self.history), default=math.inf)
        self.history.append(row)
        if row["validation_loss"] < best_before:
            save_checkpoint(self.out / "best.pt", self._content(training={}))
        random = {"torch": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        training = {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "random": random,
        }
        save_checkpoint(self.out / "last.pt", self._content(training))
        self._write_metrics()
        logger.info(
            "epoch %d/%d: training loss %.4f, validation relative L2 %.4f, %.1f s",
            epoch + 1,
            self.epochs,
            train_loss,
            row["validation_relative_l2"],
            row["seconds"],
        )

    def _validate(self) -> dict[str, float]:
        self.model.eval()
        values: dict[str, list[float]] = {"validation_loss": [], "validation_relative_l2": []}
        with torch.no_grad():
            for indices in torch.arange(len(self.validation)).split(2 * self.batch_size):
                batch: Batch = self.validation.batch(indices).to(self.device)
                prediction, target = self.task.predict(self.operator, batch), self.operator.scale(batch.targets)
                for name, loss in (("validation_loss", self.loss), ("validation_relative_l2", self.relative_l2)):
                    values[name].extend(loss(prediction, target).mean(dim=1).tolist())
        return {name: float(np.mean(each)) for name, each in values.items()}

    def _content(self, training: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "model": {"name": self.model_name, "arguments": self.arguments, "state": self.model.state_dict()},
            "task": {"name": self.task_name, "arguments": self.task_arguments},
            "time": getattr(self.task, "time", None),  # of tasks that step in time: what a rollout needs to know
            "normalisers": {
                "inputs": self.operator.input_normaliser.state_dict(),
                "outputs": self.operator.output_normaliser.state_dict(),
            },
            "channels": {
                "inputs": [channel.to_dict() for channel in self.task.inputs],
                "outputs": [channel.to_dict() for channel in self.task.outputs],
            },
            "dataset": {
                "path": str(self.store.path),
                "spec": json.dumps(self.store.spec, sort_keys=True, default=str),
                "grid": list(self.store.shape),
                "sizes": dict(self.store.sizes),
            },
            "config": yaml.safe_dump(dict(self.config), sort_keys=False),
            "history": self.history,
            "training": dict(training),
        }

    def _resume(self) -> None:
        """Take up the state after the last whole epoch, if there is one."""
        path = self.out / "last.pt"
        if not path.exists():
            return
        content = load_checkpoint(path)
        if content["dataset"]["spec"] != json.dumps(self.store.spec, sort_keys=True, default=str):
            raise ValueError(
                f"{self.out} was trained on another dataset than what is now at {self.store.path} (their specs "
                "differ). Choose another out, or delete the folder to start over"
            )
        self.model.load_state_dict(content["model"]["state"])
        self.history = content["history"]
        training = content["training"]
        self.optimizer.load_state_dict(training["optimizer"])
        self.scheduler.load_state_dict(training["scheduler"])
        torch.set_rng_state(training["random"]["torch"])
        if self.device.type == "cuda" and "cuda" in training["random"]:
            torch.cuda.set_rng_state(training["random"]["cuda"], self.device)
        self._write_metrics()  # a crash may have come between last.pt and its line
        if len(self.history) < self.epochs:
            logger.info("%s: resuming after epoch %d of %d", self.out, len(self.history), self.epochs)

    def _write_metrics(self) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(self.history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "epoch": int(row["epoch"])} for row in self.history)
        write_atomically(self.out / "metrics.csv", text.getvalue().encode())


@contextmanager
def _stop_on_sigterm() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, in place of ending the process; schedulers send it before they kill."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # Python handles signals there only
        yield stop
        return

    def set_stop(number: int, frame: FrameType | None) -> None:
        stop.set()

    previous = signal.signal(signal.SIGTERM, set_stop)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, previous)
