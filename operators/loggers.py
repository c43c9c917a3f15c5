"""Where a run's metrics go beside ``metrics.csv``, which the trainer always writes: TensorBoard, Weights & Biases.

A logger is built as ``loggers.build(name, out, config, **arguments)`` and gets each epoch's metrics by ``log``. What
it wrote before it knows from its own files in the run's folder: the trainer hands a resumed run's whole history over
again, and the logger takes up what is missing and leaves the rest, so no step is lost or written twice.

Other distributions add loggers through the entry-point group ``southwell.loggers``.
"""

import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

import yaml

from datagen.files import write_atomically
from solvers.registry import Registry

loggers: Registry = Registry("logger", group="southwell.loggers")

Metrics = Mapping[str, float]


class Logger(Protocol):
    """What the trainer asks of a logger."""

    def log(self, step: int, metrics: Metrics) -> None:
        """Write the metrics of one step (an epoch), unless it was written before; steps come in rising order."""

    def close(self) -> None:
        """Write what is left and release what is held."""


@contextmanager
def open_loggers(
    chosen: Mapping[str, Mapping[str, Any] | None], out: Path, config: Mapping[str, Any]
) -> Iterator[Callable[[int, Metrics], None]]:
    """Several loggers as one, closed at the end.

    Parameters
    ----------
    chosen : mapping
        Arguments of each logger, by its registered name.
    out : path
        The run's folder.
    config : mapping
        The run's configuration, for the record.

    Yields
    ------
    callable
        ``log(step, metrics)``.

    Raises
    ------
    ValueError
        If a name or argument is unknown, or the logger's library is not installed.
    """
    with ExitStack() as stack:
        opened: list[Logger] = []
        for name, arguments in chosen.items():
            opened.append(stack.enter_context(closing(loggers.build(name, out, config, **(arguments or {})))))

        def log(step: int, metrics: Metrics) -> None:
            for each in opened:
                each.log(step, metrics)

        yield log


def _not_installed(name: str, library: str) -> ValueError:
    return ValueError(
        f'logger={name} needs {library}, which is not installed; pip install "southwell[loggers]", or choose logger=csv'
    )


@loggers.register("tensorboard")
class TensorBoardLogger:
    """Event files in ``out/tensorboard``, for ``tensorboard --logdir``. A resumed run adds a file to the folder.

    Parameters
    ----------
    out : path
    config : mapping
        Becomes the text "config".
    """

    def __init__(self, out: Path, config: Mapping[str, Any]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError:
            raise _not_installed("tensorboard", "tensorboard") from None
        folder = Path(out) / "tensorboard"
        self.last_step = max(self._steps(folder), default=-1)
        self._writer = SummaryWriter(str(folder))
        if self.last_step < 0:
            text = yaml.safe_dump(dict(config), sort_keys=False)
            self._writer.add_text("config", "\n".join(f"    {line}" for line in text.splitlines()))

    @staticmethod
    def _steps(folder: Path) -> Iterator[int]:
        """Steps of all scalars in the folder's event files. What a kill cut off at a file's end is passed over."""
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

        for path in sorted(folder.glob("events.out.tfevents.*")):
            for event in EventFileLoader(str(path)).Load():
                if any(value.tag != "config/text_summary" for value in event.summary.value):
                    yield event.step

    def log(self, step: int, metrics: Metrics) -> None:
        """Write one scalar a metric."""
        if step <= self.last_step:
            return
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()
        self.last_step = step

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


@loggers.register("wandb")
class WandbLogger:
    """Weights & Biases: a run in ``out/wandb``, offline unless asked otherwise.

    ``out/wandb/southwell.json`` holds the run's id and its last step. A resumed run adds a folder with the same id and
    the steps that follow; ``wandb sync --append out/wandb/offline-run-*`` uploads them as one run.

    Parameters
    ----------
    out : path
    config : mapping
        Becomes the run's config.
    project : str
    name : str, optional
        The name of the folder `out` if not given.
    mode : {"offline", "online"}
        Offline needs no account and no network.
    """

    def __init__(
        self,
        out: Path,
        config: Mapping[str, Any],
        project: str = "southwell",
        name: str | None = None,
        mode: str = "offline",
    ) -> None:
        if mode not in ("offline", "online"):
            raise ValueError(f"logger.wandb.mode must be 'offline' or 'online', got {mode!r}")
        try:
            import wandb
        except ModuleNotFoundError:
            raise _not_installed("wandb", "wandb") from None
        (Path(out) / "wandb").mkdir(parents=True, exist_ok=True)
        self._record = Path(out) / "wandb" / "southwell.json"
        record = json.loads(self._record.read_text()) if self._record.exists() else {}
        self.id, self.last_step = record.get("id", secrets.token_hex(4)), record.get("last_step", -1)
        self._remember()
        try:
            self._run = wandb.init(
                project=project,
                name=name or Path(out).resolve().name,
                id=self.id,
                resume="allow",
                mode=mode,  # type: ignore[arg-type]
                dir=str(out),
                config=dict(config),
                reinit="create_new",  # several runs of a sweep share this process
                settings=wandb.Settings(console="off", silent=True, x_disable_stats=True),
            )
        except wandb.Error as error:
            raise ValueError(f"logger=wandb: {error}; logger.wandb.mode=offline needs no network or account") from error

    def _remember(self) -> None:
        write_atomically(self._record, json.dumps({"id": self.id, "last_step": self.last_step}).encode())

    def log(self, step: int, metrics: Metrics) -> None:
        """Hand the metrics over to wandb's own process."""
        if step <= self.last_step:
            return
        self._run.log(dict(metrics), step=step)
        self.last_step = step
        self._remember()

    def close(self) -> None:
        """Leave the rest to wandb's own process, which writes it at once, whatever becomes of this one."""
        self._run.finish()
