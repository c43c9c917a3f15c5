"""Many runs side by side: what each was asked for, and what came of it, as one table."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from operators.run_folder import CONFIG, METRICS, flatten

Row = dict[str, str | float | int | None]

# Where and how a run is written says nothing about its result.
_SAYS_NOTHING = ("out", "logger")


@dataclass(frozen=True)
class Run:
    """One run's folder, as read.

    Attributes
    ----------
    path : Path
    config : dict
        Its configuration, with dotted keys.
    history : list of dict
        The rows of its ``metrics.csv``.
    """

    path: Path
    config: dict[str, Any]
    history: list[dict[str, float]]

    @classmethod
    def read(cls, path: Path) -> "Run":
        """Read ``config.yaml`` and ``metrics.csv`` (there is none before the first epoch's end).

        Raises
        ------
        ValueError
            If one of them does not make sense.
        """
        metrics = path / METRICS
        try:
            config = yaml.safe_load((path / CONFIG).read_text())
            rows = list(csv.DictReader(metrics.read_text().splitlines())) if metrics.exists() else []
            history = [{name: float(value) for name, value in row.items()} for row in rows]
            return cls(path, flatten(config), history)
        except (yaml.YAMLError, UnicodeDecodeError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} holds no readable run ({error}); move it elsewhere") from None

    @property
    def epochs(self) -> int:
        """Epochs that are done."""
        return len(self.history)

    @property
    def finished(self) -> bool:
        """Whether all its epochs are done, or training stopped early because ``trainer.patience`` says so."""
        if self.epochs >= self.config["trainer.epochs"]:
            return True
        patience = self.config.get("trainer.patience")
        losses = [row["validation_loss"] for row in self.history]
        return patience is not None and bool(losses) and len(losses) - 1 - losses.index(min(losses)) >= patience

    @property
    def best(self) -> dict[str, float]:
        """The epoch of least validation loss; empty before the first is done."""
        return min(self.history, key=lambda row: row["validation_loss"], default={})


def find_runs(folder: str | Path) -> list[Run]:
    """All runs in a folder and the folders within it, by path.

    Parameters
    ----------
    folder : path
        Of a sweep, or of several.

    Raises
    ------
    ValueError
        If there is no run, or one cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; name that of a sweep, the out of southwell-train -m")
    # wandb keeps a config.yaml of its own; a run lies in no folder of another.
    places = [path.parent for path in sorted(folder.rglob(CONFIG))]
    places = [place for place in places if not any(parent in places for parent in place.parents)]
    runs = [run for run in map(Run.read, places) if "trainer.epochs" in run.config]
    if not runs:
        raise ValueError(f"{folder} holds no runs: no config.yaml of one in it or in the folders within")
    return runs


def summarise(folder: str | Path) -> list[Row]:
    """One row a run, best first: its folder, the keys in which runs differ, and what came of it.

    Parameters
    ----------
    folder : path

    Returns
    -------
    list of dict
        ``run``; the keys that differ; ``best validation_...`` for every such column of ``metrics.csv``, in the epoch
        of least validation loss; ``best epoch``; ``epochs`` done; ``seconds``, of all epochs; ``finished``. Ordered by
        that loss where all runs have the same ``loss``, else by their relative L2; runs without an epoch come last.
    """
    runs = find_runs(folder)
    keys = list(dict.fromkeys(key for run in runs for key in run.config))
    differing = [
        key
        for key in keys
        if key.split(".")[0] not in _SAYS_NOTHING and len({repr(run.config.get(key)) for run in runs}) > 1
    ]
    measures = list(dict.fromkeys(name for run in runs for name in run.best if name.startswith("validation_")))
    order = "validation_relative_l2" if "loss" in differing else "validation_loss"
    runs.sort(key=lambda run: (run.best.get(order, math.inf), str(run.path)))
    rows: list[Row] = []
    for run in runs:
        name = run.path.relative_to(folder).as_posix()
        asked = {key: _text(run.config[key]) if key in run.config else None for key in differing}
        best = {f"best {measure}": run.best.get(measure) for measure in measures}
        rows.append(
            {
                "run": name if name != "." else run.path.resolve().name,
                **asked,
                **best,
                "best epoch": int(run.best["epoch"]) if run.best else None,
                "epochs": run.epochs,
                "seconds": sum(row["seconds"] for row in run.history),
                "finished": "yes" if run.finished else "no",
            }
        )
    return rows


def _text(value: Any) -> Any:
    return (
        value
        if isinstance(value, (int, float, str)) and not isinstance(value, bool)
        else yaml.safe_dump(value, default_flow_style=True).splitlines()[0]
    )


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as CSV, in full precision.

    Parameters
    ----------
    rows : sequence of mapping
        As `summarise` returns them.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a Markdown table.

    Parameters
    ----------
    rows : sequence of mapping
        As `summarise` returns them.

    Examples
    --------
    >>> print(as_markdown([{"run": "a", "seed": 1, "seconds": 12.3456}]), end="")
    | run | seed | seconds |
    |---|---:|---:|
    | a | 1 | 12.35 |
    """

    def cell(value: Any) -> str:
        if value is None:
            return ""
        return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")

    columns = list(rows[0])
    numeric = {c: all(isinstance(row[c], (int, float, type(None))) for row in rows) for c in columns}
    lines = [columns, [("---:" if numeric[c] else "---") for c in columns]]
    lines += [[cell(row[column]) for column in columns] for row in rows]
    return "".join(
        "|" + ("|".join(line) if number == 1 else f" {' | '.join(line)} ") + "|\n" for number, line in enumerate(lines)
    )
