"""The folder of a training run: who may write in it, and what lies in it.

``config.yaml`` what was asked for; ``metrics.csv`` one line an epoch; ``best.pt`` the best by validation data;
``last.pt`` the state to go on from; ``loss.png``. Every file is written whole or not at all.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from datagen.files import locked, remove_partials, write_atomically
from operators.checkpoint import load_checkpoint, save_checkpoint
from operators.plots import loss_curve, save_figure
from operators.settings import Settings

BEST, LAST, CONFIG, METRICS, LOSS = "best.pt", "last.pt", "config.yaml", "metrics.csv", "loss.png"

_HOW_NOT_WHAT = ("device", "compile", "max_minutes", "checkpoint_minutes", "loader_workers", "distributed")
MAY_DIFFER_ON_RESUME = ("out", "dataset.memory_gb", *(f"trainer.{name}" for name in _HOW_NOT_WHAT))
"""Keys that say where, how fast and how long to train, not what comes out."""


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


class RunFolder:
    """The folder of one run.

    Parameters
    ----------
    path : path
    config : mapping
        The run's configuration, plain values.
    """

    def __init__(self, path: str | Path, config: Mapping[str, Any]) -> None:
        self.path, self.config = Path(path), config

    def refuse_another_run(self) -> None:
        """Raise if the folder holds a run with another configuration, naming the keys that differ.

        Raises
        ------
        ValueError
        """
        out, path = self.path, self.path / CONFIG
        if out.exists() and not out.is_dir():
            raise ValueError(f"out={out} is a file; name a folder")
        if not path.exists():
            if out.is_dir() and any(not entry.name.startswith(".") for entry in out.iterdir()):
                raise ValueError(f"out={out} is not empty and holds no run; choose another folder")
            return
        before, now = _complete(yaml.safe_load(path.read_text()) or {}), _complete(self.config)
        ignored = {key for key in {*before, *now} if key in MAY_DIFFER_ON_RESUME or key.split(".")[0] == "logger"}
        differences = [
            f"{key} was {before.get(key, 'absent')!r}, now {now.get(key, 'absent')!r}"
            for key in sorted({*before, *now} - ignored)
            if before.get(key) != now.get(key)
        ]
        if differences:
            raise ValueError(
                f"{out} holds a run with another configuration: {'; '.join(differences)}. "
                "Choose another out, or delete the folder to start over"
            )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder's lock; a folder that this made and nothing was written to is removed again.

        Raises
        ------
        ValueError
            If another process holds it.
        """
        existed = self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        lock = self.path / ".lock"
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(lock))
            except BlockingIOError:
                raise ValueError(
                    f"another process is training in {self.path}; wait for it, or choose another out"
                ) from None
            remove_partials(self.path / name for name in (BEST, LAST, CONFIG, METRICS, LOSS))
            try:
                yield
            finally:
                if not existed and [path.name for path in self.path.iterdir()] == [lock.name]:
                    lock.unlink()
                    self.path.rmdir()

    def write_config(self) -> None:
        """Write ``config.yaml``."""
        write_atomically(self.path / CONFIG, yaml.safe_dump(dict(self.config), sort_keys=False).encode())

    def last(self) -> dict[str, Any] | None:
        """Content of ``last.pt``, if there is one."""
        path = self.path / LAST
        return load_checkpoint(path) if path.exists() else None

    def has_best(self) -> bool:
        """Whether there is a ``best.pt``."""
        return (self.path / BEST).exists()

    def write_checkpoint(self, name: str, content: Mapping[str, Any]) -> None:
        """Write ``best.pt`` or ``last.pt``."""
        save_checkpoint(self.path / name, content)

    def write_metrics(self, history: Sequence[Mapping[str, float]]) -> None:
        """Write ``metrics.csv``, whole: a resumed run has the lines of an unbroken one."""
        if not history:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "epoch": int(row["epoch"])} for row in history)
        write_atomically(self.path / METRICS, text.getvalue().encode())

    def write_loss_curve(self, history: Sequence[Mapping[str, float]]) -> None:
        """Draw ``loss.png``."""
        save_figure(loss_curve(history), self.path / LOSS)


def _complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys with what earlier versions left out."""
    trainer = {f"trainer.{key}": value for key, value in asdict(Settings.of(config["trainer"])).items()}
    return {"task.name": "static", **flatten(config), **trainer}
