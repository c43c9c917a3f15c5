"""State dicts in files. No code of a file is run.

neuraloperator's state dicts hold ``_metadata``, a pickled dictionary with functions and classes in it. An allow-list of
them is read as plain names; a file that names anything else is refused.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

# Functions and classes that a neuraloperator file may name, by what they are read as.
_NAMES_IN_METADATA = {
    "torch._C._nn.gelu": "gelu",
    **{f"torch.nn.functional.{name}": name for name in ("gelu", "relu", "silu", "tanh", "elu", "leaky_relu")},
    "neuralop.layers.spectral_convolution.SpectralConv": "SpectralConv",
}


def read_weights(path: str | Path) -> dict[str, Any]:
    """Read a state dict from a ``.safetensors`` or a torch file, onto the CPU.

    Parameters
    ----------
    path : path

    Returns
    -------
    dict
        Tensors by key; under ``_metadata``, where the file has it, plain values, with functions and classes by name.

    Raises
    ------
    ValueError
        If there is no such file, it cannot be read, or it holds more than tensors, plain values and what the
        allow-list names.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return dict(load_file(path))
        except SafetensorError as error:
            raise ValueError(f"{path} cannot be read as safetensors: {error}") from None
    # Names are read as plain strings, which no pickle can call.
    allowed: list[Any] = [(name, place) for place, name in _NAMES_IN_METADATA.items()]
    try:
        with torch.serialization.safe_globals(allowed):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        code = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it names {code[1]}, which could run code" if code else str(error).splitlines()[0]
        raise ValueError(
            f"{path} is refused: {reason}. A state dict holds tensors only, and neuraloperator's also the options of "
            "its model; save model.state_dict(), not the model"
        ) from None
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a state dict")
    for wrapper in ("state_dict", "model_state_dict", "model"):
        if isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    return dict(content)
