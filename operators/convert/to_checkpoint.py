"""A file of published weights to a checkpoint of ours."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from operators.checkpoint import complete_arguments, save_checkpoint
from operators.convert.lsm import from_lsm, lsm_arguments
from operators.convert.neuraloperator import from_neuraloperator, neuraloperator_arguments
from operators.convert.weights_file import read_weights
from operators.data import Channel, GaussianNormaliser

# Name of our model, its arguments by its state dict, and the model with those weights.
_SOURCES: dict[str, tuple[str, Callable[..., dict[str, Any]], Callable[..., nn.Module]]] = {
    "neuraloperator": ("fno", neuraloperator_arguments, from_neuraloperator),
    "lsm": ("lsm", lsm_arguments, from_lsm),
}


def convert(source: str, path: str | Path, output: str | Path, options: Mapping[str, Any]) -> str:
    """Convert a file of published weights to a checkpoint, which `operators.predict.load` takes.

    A state dict knows nothing of the data it was trained on: channels are named by their numbers, and fields are passed
    to the model as they are. Where the published code normalises fields, so must the caller.

    Parameters
    ----------
    source : {"neuraloperator", "lsm"}
    path : path
        See `read_weights`.
    output : path
        Checkpoint to write.
    options : mapping
        Arguments of the model that its weights do not say.

    Returns
    -------
    str
        A sentence on what was written.

    Raises
    ------
    ValueError
        As `read_weights`, `from_neuraloperator` and `from_lsm` do.
    """
    if source not in _SOURCES:
        raise ValueError(f"source must be {' or '.join(map(repr, _SOURCES))}, got {source!r}")
    name, arguments_of, filled = _SOURCES[source]
    state = read_weights(path)
    arguments = arguments_of(state, **options)
    model = filled(state, **options)
    sides = {
        "inputs": [Channel(f"input_{i}") for i in range(arguments["in_channels"])],
        "outputs": [Channel(f"output_{i}") for i in range(arguments["out_channels"])],
    }
    dimensions = len(arguments["n_modes"]) if name == "fno" else arguments["dimensions"]
    save_checkpoint(
        output,
        {
            "model": {"name": name, "arguments": complete_arguments(name, arguments), "state": model.state_dict()},
            "normalisers": {
                side: GaussianNormaliser(torch.zeros(len(listed)), torch.ones(len(listed))).state_dict()
                for side, listed in sides.items()
            },
            "channels": {side: [channel.to_dict() for channel in listed] for side, listed in sides.items()},
            "dataset": {"path": "", "spec": "{}", "grid": [0] * dimensions, "sizes": {}},
            "config": f"converted from {source} weights in {Path(path).name}\n",
            "history": [],
            "training": {},
        },
    )
    parameters = sum(p.numel() for p in model.parameters())
    return f"{output}: {name} with {parameters:,} parameters, {', '.join(f'{k}={v}' for k, v in arguments.items())}"
