"""Training: from a dataset and a configuration to a folder with a trained operator (`operators.run_folder`).

The same call on an unfinished folder goes on where its ``last.pt`` ended, and on a CPU ends with the same bits as an
unbroken run; on a finished one it does nothing. Under ``torchrun`` every process calls `train` alike, each computes its
share of every batch, and the first one writes (`operators.distributed`).
"""

import logging
import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from datagen.store import Store
from operators.data import Batch
from operators.distributed import averaging, keeping_gradients_local, set_idle, started, whole
from operators.loader import Loader, epoch_batches
from operators.loggers import open_loggers
from operators.mixture import Mixture
from operators.operator import Operator
from operators.optimizers import Plateau, attention_for, backward
from operators.run_folder import BEST, LAST, RunFolder
from operators.settings import Settings
from operators.tasks import Loss, Task
from operators.training_state import Progress, TrainingState
from solvers.registry import fits

logger = logging.getLogger(__name__)

LOG_EVERY_SECONDS = 30.0


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
        False if it was stopped before its end; the same call goes on.
    history : list of dict
        One entry an epoch, as in ``metrics.csv``.
    stopped : str
        Why it stopped before its end: "SIGTERM", "time", or nothing.
    """

    out: Path
    finished: bool
    history: list[dict[str, float]]
    stopped: str = ""

    @property
    def best(self) -> dict[str, float]:
        """The epoch with the least validation loss."""
        return min(self.history, key=lambda row: row["validation_loss"])


def train(config: Mapping[str, Any], store: Store | Mixture) -> TrainingResult:
    """Train an operator, or resume its training.

    Parameters
    ----------
    config : mapping
        Plain values: ``out``; ``seed``; ``loss`` (a registered name); ``task`` (static if left out), ``model``,
        ``optimizer`` and ``scheduler``, each a registered ``name`` and its arguments (channel counts come from the
        task); ``trainer``, see `operators.settings.Settings`; ``dataset`` with ``memory_gb``; ``logger``, arguments by
        registered name. ``configs/train.yaml`` is the full example.
    store : Store or Mixture
        The dataset, or several that are learned together.

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
    began = time.monotonic()
    settings, seed = Settings.of(config["trainer"]), config["seed"]
    if not fits(seed, int) or seed < 0:
        raise ValueError(f"seed must be a whole number that is not negative, got {seed!r}")
    folder = RunFolder(config["out"], config)
    with started(settings.device) as ranks, ExitStack() as stack:
        ranks.first_does(folder.refuse_another_run)
        ranks.first_does(lambda: stack.enter_context(folder.held()))
        # The caller's random state is left as it was; CUDA's only where CUDA is used.
        stack.enter_context(torch.random.fork_rng(devices=[ranks.device] if ranks.device.type == "cuda" else []))
        torch.manual_seed(seed)
        return _Training(TrainingState(config, settings, store, ranks, folder.last()), settings, folder, began).run()


class _Part(NamedTuple):
    """Samples that are computed together, and how many of them count (none, where they only fill an empty share)."""

    indices: Tensor
    counted: int


class _Wishes(NamedTuple):
    """What is to be done after a step."""

    sigterm: bool
    time: bool
    keep: bool


class _Cost(nn.Module):
    """A batch's mean cost as one module: however often a task calls the operator, DDP sees one forward pass a step."""

    def __init__(self, operator: Operator, task: Task, loss: Loss) -> None:
        super().__init__()
        self.operator, self.task, self.loss = operator, task, loss

    def forward(self, batch: Batch) -> Tensor:
        return self.task.loss(self.operator, batch, self.loss).mean()


class _Training:
    """The loop: steps, epochs, validation, and when to stop."""

    def __init__(self, state: TrainingState, settings: Settings, folder: RunFolder, began: float) -> None:
        self.state, self.settings, self.folder = state, settings, folder
        self.began = self.kept = began
        self.ranks, self.device = state.ranks, state.device
        self.loader = Loader(state.training, settings.loader_workers, pin_memory=self.device.type == "cuda")
        self.cost = averaging(_Cost(state.operator, state.task, state.loss), settings.distributed, self.ranks)

    def run(self) -> TrainingResult:
        state, folder, out = self.state, self.folder, self.folder.path
        if self._finished():
            self._say("%s is finished (%d epochs): nothing to do", out, len(state.history))
            self.ranks.first_does(lambda: folder.write_metrics(state.history))  # a crash may have come before it
            return TrainingResult(out, True, state.history)
        self.ranks.first_does(folder.write_config)
        self._say(
            "%s: %s with %s parameters, %d training examples of shape %s, on %s",
            out,
            state.model_name,
            f"{state.parameters:,}",
            len(state.training),
            "x".join(map(str, state.store.shape)),
            self.device if self.ranks.size == 1 else f"{self.ranks.size} ranks ({self.device.type})",
        )
        if state.history or state.progress.batches:
            self._say("%s: going on after epoch %d, batch %d", out, len(state.history), state.progress.batches)
        chosen = (state.config.get("logger") or {}) if self.ranks.first else {}
        with (
            logging_redirect_tqdm(),
            open_loggers(chosen, out, state.config) as self.log,
            _signalled() as self.signal,
        ):
            for row in state.history:
                self._log(row)  # for loggers new to this run; others have it
            while not self._finished():
                stopped = self._train_epoch()
                if stopped:
                    return self._stop(stopped)
                self._finish_epoch()
        if len(state.history) < self.settings.epochs:
            self._say("stopped early: no better validation loss in %d epochs", self.settings.patience)
        self.ranks.first_does(lambda: folder.write_loss_curve(state.history))
        return TrainingResult(out, True, state.history)

    def _finished(self) -> bool:
        """Whether all epochs are done, or the last ones of patience brought no better validation loss."""
        validation = [row["validation_loss"] for row in self.state.history]
        if not validation or self.settings.patience is None:
            return len(validation) >= self.settings.epochs
        waited = len(validation) - 1 - validation.index(min(validation))
        return waited >= self.settings.patience or len(validation) >= self.settings.epochs

    def _train_epoch(self) -> str:
        """The rest of the epoch under way. Returns why it was stopped: "SIGTERM", "time", or nothing."""
        state, progress, epochs = self.state, self.state.progress, self.settings.epochs
        state.operator.train()
        epoch = len(state.history)
        order = epoch_batches(state.training, self.settings.batch_size, state.config["seed"], epoch)
        steps = [self._parts(indices) for indices in order]
        ahead = self.loader.batches([part.indices for parts in steps[progress.batches :] for part in parts])
        self.kept = clock = spoke = time.monotonic()
        with tqdm(
            desc=f"epoch {epoch + 1}/{epochs}",
            total=len(order),
            initial=progress.batches,
            unit="batch",
            leave=False,
            disable=None if self.ranks.first else True,
        ) as bar:
            for indices, parts in list(zip(order, steps, strict=True))[progress.batches :]:
                loss, wishes = self._step([(next(ahead), part.counted) for part in parts], len(indices))
                now = time.monotonic()
                progress.add(loss, len(indices), now - clock)
                clock = now
                if wishes.sigterm or wishes.time:
                    return "SIGTERM" if wishes.sigterm else "time"
                if wishes.keep and progress.batches < len(order):
                    self._write(LAST, state.content(resumable=True))
                    self.kept = time.monotonic()
                bar.update()
                bar.set_postfix_str(f"loss {progress.mean_loss:.4f}", refresh=False)
                if bar.disable and now - spoke > LOG_EVERY_SECONDS:
                    spoke = now
                    where = epoch + 1, epochs, progress.batches, len(order)
                    self._say("epoch %d/%d, batch %d/%d: loss %.4f", *where, progress.mean_loss)
        return ""

    def _parts(self, batch: Tensor) -> list[_Part]:
        """This rank's share of a batch in the parts in which it is computed; every rank has as many parts."""
        largest_share = -(-len(batch) // self.ranks.size)
        parts = self.ranks.share(batch).tensor_split(min(self.settings.accumulate, largest_share))
        return [_Part(part, len(part)) if len(part) else _Part(batch[:1], 0) for part in parts]

    def _step(self, parts: Sequence[tuple[Batch, int]], size: int) -> tuple[float, _Wishes]:
        """One optimizer step on a batch of a size. Returns the batch's mean loss, and what is to be done next."""
        state, optimizer, scaler = self.state, self.state.optimizer, self.state.scaler
        total = torch.zeros((), device=self.device)
        optimizer.zero_grad()
        for number, (batch, counted) in enumerate(parts, start=1):
            set_idle(state.model, counted == 0, self.ranks)
            with nullcontext() if number == len(parts) else keeping_gradients_local(self.cost, state.model):
                with attention_for(optimizer):
                    loss = self.cost(batch.to(self.device)) * (counted / size)
                backward(scaler.scale(loss * self.ranks.size), optimizer)
            total += loss.detach()
        scaler.unscale_(optimizer)
        clip = math.inf if self.settings.gradient_clip is None else self.settings.gradient_clip
        norm = whole(nn.utils.clip_grad_norm_(state.model.parameters(), clip)).to(self.device)
        shared = self.ranks.sum_(torch.cat([total.reshape(1), torch.tensor(self._wishes(), device=self.device)]))
        value, *wishes, length = torch.cat([shared, norm.reshape(1)]).tolist()  # one copy from the device a step
        self._refuse_divergence(value, length)
        scaler.step(optimizer)
        scaler.update()
        state.scheduler.step()
        if state.average is not None:
            state.average.update()
        return value, _Wishes(*map(bool, wishes))

    def _wishes(self) -> tuple[float, float, float]:
        """SIGTERM may reach any rank at any step; the first rank's clock holds for all."""
        now, settings, first = time.monotonic(), self.settings, self.ranks.first
        late = settings.max_minutes is not None and now - self.began >= 60.0 * settings.max_minutes
        due = now - self.kept >= 60.0 * settings.checkpoint_minutes
        return float(self.signal.is_set()), float(late and first), float(due and first)

    def _refuse_divergence(self, loss: float, gradient_norm: float) -> None:
        """Raise before a step that would spoil the weights."""
        if math.isfinite(loss) and math.isfinite(gradient_norm):
            return
        state, out = self.state, self.folder.path
        # In 16 bits gradients overflow now and then: the scaler leaves out the step and scales less.
        if math.isfinite(loss) and state.scaler.is_enabled() and state.scaler.get_scale() >= 1.0:
            return
        epoch, batch = len(state.history), state.progress.batches
        step = epoch * state.steps_per_epoch + batch + 1
        kept = f" {out / LAST} holds the last state that was kept." if (out / LAST).exists() else ""
        raise TrainingDiverged(
            f"the training loss is {loss} (gradient norm {gradient_norm}) in epoch {epoch + 1}, batch {batch + 1}, at "
            f"learning rate {state.scheduler.get_last_lr()[0]:.3g} (step {step}). Try a smaller "
            "optimizer.lr, a longer scheduler.warmup or a smaller trainer.gradient_clip, and check the data "
            f"with southwell-data validate. Delete {out} first if you keep that name.{kept}"
        )

    def _finish_epoch(self) -> None:
        """Validate, record, and write best.pt before last.pt: a crash between them repeats the epoch's end."""
        state = self.state
        row = self._row()
        if not math.isfinite(row["validation_loss"]):
            raise TrainingDiverged(
                f"the validation loss after epoch {len(state.history) + 1} is {row['validation_loss']}; try a smaller "
                "optimizer.lr"
            )
        best_before = min((r["validation_loss"] for r in state.history), default=math.inf)
        state.history.append(row)
        state.progress = Progress()
        if isinstance(state.scheduler, Plateau):
            state.scheduler.observe(row["validation_loss"])
        if row["validation_loss"] < best_before:
            self._write(BEST, state.content(resumable=False))
        self._log(row)  # before last.pt: an epoch that a crash repeats is known to the loggers, one it skips is not
        self._write(LAST, state.content(resumable=True))
        self.ranks.first_does(lambda: self.folder.write_metrics(state.history))
        self._say(
            "epoch %d/%d: training loss %.4f, validation relative L2 %.4f, %.1f s",
            len(state.history),
            self.settings.epochs,
            row["train_loss"],
            row["validation_relative_l2"],
            row["seconds"],
        )

    def _row(self) -> dict[str, float]:
        """An entry of the history: what the epoch under way came to, and the validation losses now."""
        state, began = self.state, time.monotonic()
        return {
            "epoch": float(len(state.history) + 1),
            "train_loss": state.progress.mean_loss,
            **self._validate(),
            "learning_rate": state.scheduler.get_last_lr()[0],
            "seconds": state.progress.seconds + time.monotonic() - began,
        }

    def _validate(self) -> dict[str, float]:
        """Mean losses of the validation data, in single precision, with averaged weights where they are averaged."""
        state, operator, examples = self.state, self.state.operator, self.state.validation
        measures = {"validation_loss": state.loss, "validation_relative_l2": state.relative_l2}
        sums = torch.zeros(len(measures), dtype=torch.float64, device=self.device)
        operator.eval()
        with torch.no_grad(), state.averaged():
            for indices in torch.arange(len(examples)).split(2 * self.settings.batch_size):
                for part in self._parts(indices):
                    set_idle(state.model, part.counted == 0, self.ranks)
                    batch: Batch = examples.batch(part.indices).to(self.device)
                    prediction, target = state.task.predict(operator, batch), operator.scale(batch.targets)
                    means = [batch.average(loss(prediction, target)) for loss in measures.values()]
                    sums += torch.stack(means) * part.counted
        return dict(zip(measures, (self.ranks.sum_(sums) / len(examples)).tolist(), strict=True))

    def _stop(self, reason: str) -> TrainingResult:
        """Keep the state in the middle of an epoch; where time is up and there is no best.pt yet, write one."""
        state = self.state
        if reason == "time" and not state.history:
            row = self._row()
            self._write(BEST, {**state.content(resumable=False), "history": [row]})
        self._write(LAST, state.content(resumable=True))
        why = reason if reason == "SIGTERM" else f"trainer.max_minutes={self.settings.max_minutes}"
        where = state.progress.batches, len(state.history) + 1
        self._say("%s: stopped after batch %d of epoch %d; the same command goes on from there", why, *where)
        return TrainingResult(self.folder.path, False, state.history, reason)

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        self.ranks.first_does(lambda: self.folder.write_checkpoint(name, content))

    def _log(self, row: Mapping[str, float]) -> None:
        self.log(int(row["epoch"]), {name: value for name, value in row.items() if name != "epoch"})

    def _say(self, text: str, *values: Any) -> None:
        if self.ranks.first:
            logger.info(text, *values)


@contextmanager
def _signalled() -> Iterator[threading.Event]:
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
