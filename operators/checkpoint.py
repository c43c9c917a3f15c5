"""Checkpoints: one file that rebuilds a trained operator by itself.

A checkpoint is a ``torch.save`` dictionary of tensors and plain values, read with ``weights_only=True``: loading one
cannot run code. Its keys:

========================  ======================================================================================
``format_version``        `FORMAT_VERSION` of the writer
``model``                 registry ``name``, complete ``arguments``, ``state`` (the state dict); of adapters, the state
                          holds what was learned, and ``adapter``, ``base`` and ``frozen`` say beside what
``task``                  registered ``name`` and ``arguments``; the static task where a file has none
``time``                  of steps in time: ``conditioned`` on lead times, ``step``, ``scale`` and the range of
                          ``lead_times`` trained on (physical); else None
``mixture``               of mixtures: for each dataset its own time, task, normalisers, channels and dataset; else None
``normalisers``           ``inputs`` and ``outputs``, each a state dict of `operators.data.GaussianNormaliser`
``channels``              ``inputs`` and ``outputs``, each a list of name, units, description
``dataset``               ``path``, ``spec`` (JSON text), ``grid`` trained on, ``sizes`` of its splits
``config``                the run's configuration, plain YAML text
``history``               one dictionary an epoch: losses, learning rate, seconds
``training``              optimizer, scheduler and random states, to resume from; empty in ``best.pt``
========================  ======================================================================================
"""

import inspect
import io
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from datagen.files import write_atomically
from operators.data import GaussianNormaliser
from operators.mixture import PartOfMixture
from operators.models import models
from operators.operator import Operator

FORMAT_VERSION = 1

# What zip archive and restricted unpickler raise on bytes that make no sense to them.
_UNREADABLE = (
    zipfile.BadZipFile,
    pickle.UnpicklingError,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    EOFError,
    OSError,
)


def complete_arguments(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A model's arguments with its defaults filled in, as plain values, so that later defaults do not change it.

    Parameters
    ----------
    name : str
        Registered name.
    arguments : mapping
        Those given. They must be accepted by the model.

    Examples
    --------
    >>> given = {"n_modes": (4, 4), "in_channels": 1, "out_channels": 1, "hidden_channels": 8}
    >>> complete_arguments("tfno", given)["rank"]
    0.1
    """
    bound = inspect.signature(models[name]).bind(**arguments)
    bound.apply_defaults()
    complete: dict[str, Any] = {}
    for key, value in bound.arguments.items():
        if inspect.signature(models[name]).parameters[key].kind is inspect.Parameter.VAR_KEYWORD:
            complete.update(value)
        else:
            complete[key] = value
    return {key: list(v) if isinstance(v, Sequence) and not isinstance(v, str) else v for key, v in complete.items()}


def save_checkpoint(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically.

    Parameters
    ----------
    path : path
    content : mapping
        The keys of the module's table, without ``format_version``.
    """
    buffer = io.BytesIO()
    torch.save({"format_version": FORMAT_VERSION, **content}, buffer)
    write_atomically(Path(path), buffer.getvalue())


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Parameters
    ----------
    path : path

    Raises
    ------
    ValueError
        If there is no such file, it is damaged, not a Southwell checkpoint, or of a later format.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no checkpoint at {path}; southwell-train leaves best.pt and last.pt in its out folder")
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load does not look at the checksums
            damaged = archive.testzip()
        if damaged:
            raise ValueError(f"the checksum of {damaged} is wrong")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise ValueError(
            f"{path} cannot be read as a checkpoint: it is damaged, or holds more than tensors and plain values "
            f"({(str(error) or type(error).__name__).splitlines()[0]})"
        ) from None
    if not isinstance(content, dict) or "format_version" not in content:
        raise ValueError(f"{path} is a torch file but not a Southwell checkpoint (it has no format_version)")
    version = content["format_version"]
    if not isinstance(version, int) or version < 1:
        raise ValueError(f"{path} has format_version {version!r}, which no version of southwell writes")
    if version > FORMAT_VERSION:
        raise ValueError(
            f"{path} has checkpoint format {version}; this version reads up to {FORMAT_VERSION}: upgrade southwell"
        )
    content.setdefault("task", {"name": "static", "arguments": {}})
    return content


def rebuild_model(content: Mapping[str, Any]) -> nn.Module:
    """The trained model of a checkpoint, in evaluation mode.

    Parameters
    ----------
    content : mapping
        As `load_checkpoint` returns it.

    Raises
    ------
    ValueError
        If its model is not registered here, takes other arguments, or has other weights.
    """
    missing = {"model", "normalisers", "channels"} - content.keys()
    if missing:
        raise ValueError(f"the checkpoint holds no operator: it lacks {', '.join(sorted(missing))}")
    entry = content["model"]
    if entry.get("adapter"):
        return _with_adapter(entry)
    model: nn.Module = models.build(entry["name"], **entry["arguments"])
    try:
        model.load_state_dict(entry["state"])
    except RuntimeError as error:
        reasons = " ".join(line.strip() for line in str(error).splitlines()[1:3])
        raise ValueError(
            f"the checkpoint's weights are not those of model {entry['name']!r} as it is here: {reasons} It was "
            "written with another version of that model, or is damaged"
        ) from None
    return model.eval()


def _with_adapter(entry: Mapping[str, Any]) -> nn.Module:
    """A model of which the checkpoint holds an adapter alone; what it does is put into its frozen weights."""
    from operators.adapters import adapt, load_learned

    base = entry["base"]
    try:
        with torch.random.fork_rng(devices=[]):  # layers that are new are drawn, before what was learned replaces them
            model: nn.Module = models.build(base["name"], **base["arguments"])
            adapt(model, entry["adapter"])
    except ValueError as error:
        raise ValueError(
            f"the checkpoint holds an adapter ({entry['adapter']['name']}) beside the weights at "
            f"{base['arguments'].get('path')}, which cannot be had: {error}"
        ) from None
    load_learned(model, entry)
    return model.eval()


def stored_normalisers(content: Mapping[str, Any]) -> tuple[GaussianNormaliser, GaussianNormaliser]:
    """The normalisers of inputs and outputs that a checkpoint holds.

    Parameters
    ----------
    content : mapping
        As `load_checkpoint` returns it.
    """
    inputs, outputs = (GaussianNormaliser(**content["normalisers"][side]) for side in ("inputs", "outputs"))
    return inputs, outputs


def rebuild_operator(content: Mapping[str, Any]) -> Operator:
    """The trained operator of a checkpoint, from physical units to physical units, in evaluation mode.

    Parameters
    ----------
    content : mapping
        As `load_checkpoint` returns it.
    """
    model = rebuild_model(content)
    if content.get("part"):  # of a mixture (`operators.mixture.of_part`)
        model = PartOfMixture(model, **content["part"]).eval()
    return Operator(model, *stored_normalisers(content)).eval()
