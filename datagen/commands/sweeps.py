"""Sweeps (``-m key=a,b``): a folder of its own for each job, in the folder ``out`` of the sweep.

    southwell-train -m model.rank=0.05,0.1 seed=1,2 dataset.path=data/a out=runs/rank

trains four operators in ``runs/rank/model.rank=0.05,seed=1`` and so on, whatever launches them; a job's folder depends
on what was swept and on nothing else, so the same command resumes what is unfinished. An `out` with an interpolation
(``out='runs/${model.rank}'``), or one that is swept itself, says where each job goes and is left alone.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def swept_keys(words: Sequence[str]) -> list[str]:
    """Keys that a command line gives several values, in its order; none without ``-m``.

    Parameters
    ----------
    words : sequence of str
        Of the command line, without the program.

    Examples
    --------
    >>> swept_keys(["-m", "model.rank=0.05,0.1", "model.n_modes=[8,8]", "seed=1,2", "out=runs/rank"])
    ['model.rank', 'seed']
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if not {"-m", "--multirun"} & set(words):
        return []
    parser, keys = OverridesParser.create(), []
    for word in words:
        try:
            parsed = parser.parse_override(word) if "=" in word and not word.startswith("-") else None
        except HydraException:
            continue  # Hydra will say it
        if parsed is not None and parsed.is_sweep_override():
            keys.append(_key(word))
    return keys


def hydras_folder(words: Sequence[str], swept: Sequence[str]) -> list[str]:
    """What to add to the command line of a sweep, so that Hydra's own files lie where the jobs' folders do.

    Examples
    --------
    >>> hydras_folder(["-m", "seed=1,2", "out=runs/seeds"], ["seed"])
    ["hydra.sweep.dir='runs/seeds'", 'hydra.sweep.subdir=.']
    >>> hydras_folder(["-m", "seed=1,2", "out=runs/${seed}/a"], ["seed"])
    ["hydra.sweep.dir='runs'", 'hydra.sweep.subdir=.']
    """
    given = [word.partition("=")[2].strip("'\"") for word in words if _key(word) == "out"]
    if not swept or not given or "out" in swept or any(_key(word) == "hydra.sweep.dir" for word in words):
        return []
    fixed, interpolation, _ = given[-1].partition("${")
    folder = fixed.rpartition("/")[0] or ("/" if fixed.startswith("/") else ".") if interpolation else fixed
    quoted = folder.replace("'", "\\'")
    return [f"hydra.sweep.dir='{quoted}'", "hydra.sweep.subdir=."]


def job_folder(out: str, overrides: Sequence[str], swept: Sequence[str]) -> str:
    """The folder of one job of a sweep.

    Parameters
    ----------
    out : str
        The folder of the sweep.
    overrides : sequence of str
        The job's own ``key=value``.
    swept : sequence of str
        The keys that tell jobs apart.

    Examples
    --------
    >>> job_folder("runs", ["model=tfno", "model.rank=0.1", "dataset.path=data/a"], ["model.rank", "dataset.path"])
    'runs/model.rank=0.1,dataset.path=data_a'
    """
    values = {_key(word): word.partition("=")[2] for word in overrides}
    name = ",".join(f"{key}={values[key]}" for key in dict.fromkeys(swept) if key in values)
    return str(Path(out) / re.sub(r"[/\\\s]+", "_", re.sub(r"['\"]", "", name)))


def in_own_folder(values: dict[str, Any], raw_out: Any, swept: Sequence[str]) -> dict[str, Any]:
    """A job's configuration with `out` as its own folder, where the sweep gives them all one.

    Parameters
    ----------
    values : dict
        The configuration, as plain values.
    raw_out : any
        Its `out` before interpolation.
    swept : sequence of str
        Keys swept on the command line; those of a sweep in a configuration file (``hydra.sweeper.params``) are added.

    Raises
    ------
    ValueError
        If the sweep's folder is that of a run.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra = HydraConfig.get()
    if hydra.mode != RunMode.MULTIRUN or not isinstance(raw_out, str) or "${" in raw_out:
        return values
    keys = [*swept, *(_key(f"{key}=") for key in hydra.sweeper.get("params") or {})]
    if not keys or "out" in keys:
        return values
    if (Path(values["out"]) / "config.yaml").exists():
        raise ValueError(f"out={values['out']} is the folder of a run; a sweep needs one of its own for its runs")
    return {**values, "out": job_folder(values["out"], hydra.overrides.task, keys)}


def _key(word: str) -> str:
    """The key of an override, without Hydra's signs for adding."""
    return word.partition("=")[0].lstrip("+")
