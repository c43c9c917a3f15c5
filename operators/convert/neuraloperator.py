"""State dicts of neuraloperator's FNO and TFNO, of versions 1 and 2."""

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from operators.convert.fill import fill
from operators.layers.pointwise import ACTIVATION
from operators.models import FNO, models

# Where each part of a Fourier layer is in neuraloperator's state dict, and in ours.
_PARTS_OF_A_LAYER = {
    "convs": "convolution",
    "fno_skips": "skip",
    "channel_mlp": "mlp",
    "channel_mlp_skips": "mlp_skip",
}

# Options of neuraloperator that change what is computed, and that a Southwell model does not have.
_ONLY_VALUE = {
    "complex_data": False,
    "resolution_scaling_factor": None,
    "max_n_modes": None,
    "conv_module": "SpectralConv",
}


def _ratio(hidden: int, channels: int) -> float:
    """A ratio of which ``int(ratio * channels)`` is exactly ``hidden``."""
    ratio = hidden / channels
    return ratio if int(ratio * channels) == hidden else math.nextafter(ratio, math.inf)


def _described(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the model that neuraloperator's metadata gives, refusing those that cannot be followed."""
    metadata = dict(metadata)
    positional = ("n_modes", "in_channels", "out_channels", "hidden_channels", "n_layers")
    metadata |= dict(zip(positional, metadata.get("args", ()), strict=False))
    if list(metadata.get("max_n_modes") or ()) == list(metadata.get("n_modes") or ()):
        metadata["max_n_modes"] = None
    for option, only in _ONLY_VALUE.items():
        value = metadata.get(option, only)
        if getattr(value, "__name__", value) != only:
            raise ValueError(f"a model with {option}={value!r} has no counterpart here (only {only!r} has)")
    activation = metadata.get("non_linearity", "gelu")
    activation = getattr(activation, "__name__", activation)
    if activation not in ACTIVATION:
        raise ValueError(f"non_linearity={activation!r} has no counterpart here; known: {', '.join(ACTIVATION)}")
    if metadata.get("positional_embedding", "grid") not in ("grid", None):
        raise ValueError(f"positional_embedding={metadata['positional_embedding']!r} has no counterpart here")
    if "domain_padding_mode" in metadata:  # neuraloperator 1
        if metadata.get("domain_padding") and metadata["domain_padding_mode"] != "symmetric":
            raise ValueError(
                f"a model with domain_padding={metadata['domain_padding']} on one side of each axis, as "
                "neuraloperator 1 has it, has no counterpart here: here both sides are padded"
            )
        odd = [m for m in list(metadata.get("n_modes") or ())[:-1] if m % 2]
        if odd:
            raise ValueError(
                f"n_modes={metadata['n_modes']}: neuraloperator 1 keeps other wavenumbers than later versions where "
                "a leading number of modes is odd; such a model has no counterpart here"
            )
    options = ("positional_embedding", "norm", "channel_mlp_skip", "fno_skip", "domain_padding", "stabilizer")
    described = {option: metadata[option] for option in (*options, "preactivation") if option in metadata}
    return {**described, "non_linearity": activation}


def _spectral_shape(state: Mapping[str, Any]) -> tuple[str | None, list[int], list[int]]:
    """Factorisation, dense shape and ranks of the first layer's spectral weight."""
    prefix = "fno_blocks.convs.0.weight."
    factors = [state[key].shape for key in sorted(state, key=_numerically) if key.startswith(f"{prefix}factors.")]
    if f"{prefix}tensor" in state:
        return None, list(state[f"{prefix}tensor"].shape), []
    if f"{prefix}core" in state:
        return "tucker", [shape[0] for shape in factors], list(state[f"{prefix}core"].shape)
    if f"{prefix}weights" in state:
        return "cp", [shape[0] for shape in factors], list(state[f"{prefix}weights"].shape)
    if factors:
        return "tt", [shape[1] for shape in factors], [*(shape[0] for shape in factors), 1]
    raise ValueError(
        "this is no state dict of a neuraloperator FNO of version 1 or 2: it has no spectral weights "
        f"{prefix}tensor (nor core, weights or factors). Its keys begin with {sorted(state)[:5]}"
    )


def _numerically(key: str) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", key)]


def neuraloperator_arguments(state: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """Arguments of the `FNO` that a neuraloperator state dict belongs to.

    Parameters
    ----------
    state : mapping
        Its keys and tensors, with or without ``_metadata``.
    **options
        Arguments of `FNO` that tensors and metadata do not say.

    Raises
    ------
    ValueError
        If it is another model's, or has options without a counterpart here.
    """
    described = _described(state.get("_metadata") or {})
    factorization, shape, ranks = _spectral_shape(state)
    dimensions = state["fno_blocks.convs.0.bias"].ndim - 1
    separable = len(shape) == dimensions + 1
    hidden = shape[0]
    found: dict[str, Any] = {
        # Modes 2 m and 2 m + 1 of the last axis keep the same wavenumbers.
        "n_modes": [*shape[-dimensions:-1], max(1, 2 * (shape[-1] - 1))],
        "hidden_channels": hidden,
        "n_layers": 1 + max(int(k.split(".")[2]) for k in state if re.match(r"fno_blocks\.convs\.\d+\.bias", k)),
        "separable": separable,
        "factorization": factorization,
        "rank": ranks or 1.0,
    }
    embedding = {"positional_embedding": "grid", **described, **options}["positional_embedding"]
    found["in_channels"] = state["lifting.fcs.0.weight"].shape[1] - (dimensions if embedding else 0)
    linear = "lifting.fcs.1.weight" not in state
    found["lifting_channel_ratio"] = 0 if linear else _ratio(len(state["lifting.fcs.0.weight"]), hidden)
    found["projection_channel_ratio"] = _ratio(len(state["projection.fcs.0.weight"]), hidden)
    found["out_channels"] = len(state["projection.fcs.1.weight"])
    for argument, part in (("fno_skip", "fno_skips"), ("channel_mlp_skip", "channel_mlp_skips")):
        if f"fno_blocks.{part}.0.conv.weight" in state:
            found[argument] = "linear"
        elif f"fno_blocks.{part}.0.weight" in state:
            found[argument] = "soft-gating"
        else:
            described.setdefault(argument, "identity")
    found["use_channel_mlp"] = "fno_blocks.channel_mlp.0.fcs.0.weight" in state
    if found["use_channel_mlp"]:
        found["channel_mlp_expansion"] = len(state["fno_blocks.channel_mlp.0.fcs.0.weight"]) / hidden
    if "fno_blocks.norm.0.norm.weight" in state:
        found["norm"] = "batch_norm"
    elif "fno_blocks.norm.0.weight" in state:
        found["norm"] = "group_norm"
    return {**described, **found, **options}


def _our_name(key: str) -> str:
    """Our name of a neuraloperator key."""
    name = key.replace(".conv.weight", ".weight").replace("factors.factor_", "factors.")
    if match := re.fullmatch(r"fno_blocks\.norm\.(\d+)\.(?:norm\.)?(.+)", name):
        layer, which = divmod(int(match[1]), 2)
        name = f"blocks.{layer}.norms.{which}.{match[2]}"
    elif match := re.fullmatch(r"fno_blocks\.(\w+)\.(\d+)\.(.+)", name):
        name = f"blocks.{match[2]}.{_PARTS_OF_A_LAYER.get(match[1], match[1])}.{match[3]}"
    return name.replace("fcs.0.", "first.").replace("fcs.1.", "second.")


def from_neuraloperator(state: Mapping[str, Any], **options: Any) -> FNO:
    """The `FNO` with the weights of a neuraloperator ``FNO`` or ``TFNO``, of version 1 or 2.

    Outputs are those of neuraloperator 2.0.0 to rounding, on grids with an even number of points along every axis but
    the last. Where that is odd, its wheel moves the spectrum by one wavenumber (it undoes ``fftshift`` by another
    ``fftshift``); this follows the formula, as neuraloperator's repository has done since.

    Parameters
    ----------
    state : mapping
        ``model.state_dict()``, or what `read_weights` returns.
    **options
        Arguments of `FNO` that tensors do not say, where the state dict has no ``_metadata``: `positional_embedding`
        ("grid"), `non_linearity` ("gelu"), `norm` of "instance_norm" (None), `domain_padding`, `stabilizer`,
        `preactivation`, and skips that are None ("identity").

    Returns
    -------
    FNO
        In evaluation mode, in the precision of the weights.

    Raises
    ------
    ValueError
        If it is another model's, has options without a counterpart, or keys that do not fit; they are named.

    Examples
    --------
    A neuraloperator state dict has an entry for each tensor; `read_weights` reads it from a file.

    >>> import torch
    >>> from_neuraloperator({"mlp.0.weight": torch.zeros(3, 3)})
    Traceback (most recent call last):
        ...
    ValueError: this is no state dict of a neuraloperator FNO of version 1 or 2: it has no spectral weights ...
    """
    try:
        arguments = neuraloperator_arguments(state, **options)
    except KeyError as error:
        raise ValueError(f"the state dict of a neuraloperator FNO must have the key {error.args[0]}") from None
    model: FNO = models.build("fno", **arguments)
    linear = isinstance(model.lifting, nn.Linear)
    weights = {}
    for key, value in state.items():
        if key != "_metadata":
            name = key.replace("lifting.fcs.0.", "lifting.") if linear else key
            weights[_our_name(name)] = (key, value)
    model.to(state["projection.fcs.1.weight"].dtype)
    fill(model, weights)
    return model.eval()
