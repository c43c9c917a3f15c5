"""Published weights of Poseidon, as a `ScOT`: from a folder, or from the hub where there is a network.

A checkpoint is two files: ``config.json`` with the sizes and ``model.safetensors`` with the weights. Nothing else is
read, and nothing in them is executed. The networks were trained with lead times of 0 to 1 (in units of 20 snapshots),
on 128 x 128 points, and on four normalised channels: density, two velocities, pressure.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from operators.models.scot import ScOT

logger = logging.getLogger(__name__)

LEAD_TIMES = (0.0, 1.0)

# Their names in config.json, where they are not ours; the rest of `ScOT`'s arguments have the same.
RENAMED = {"in_channels": "num_channels", "out_channels": "num_out_channels"}
NEEDED = [
    "image_size",
    "patch_size",
    "num_channels",
    "num_out_channels",
    "embed_dim",
    "depths",
    "num_heads",
    "skip_connections",
    "window_size",
    "mlp_ratio",
    "use_conditioning",
    "residual_model",
]
OPTIONAL = [
    "qkv_bias",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "drop_path_rate",
    "use_absolute_embeddings",
    "initializer_range",
    "layer_norm_eps",
    "learn_residual",
]

# Tensors whose shape depends on the number of channels; all others stay when that changes.
EMBEDDING = ("embeddings.patch_embeddings.projection.weight",)
RECOVERY = ("patch_recovery.projection.weight", "patch_recovery.projection.bias", "patch_recovery.mixup.weight")


def load_poseidon(
    path_or_hub_name: str | Path,
    revision: str | None = None,
    *,
    in_channels: int | None = None,
    out_channels: int | None = None,
    checkpointing: bool = False,
) -> ScOT:
    """A published Poseidon network, or one fine-tuned by the authors' code, in evaluation mode.

    Parameters
    ----------
    path_or_hub_name : path or str
        A folder with ``config.json`` and ``model.safetensors``, or a name on the Hugging Face hub such as
        ``camlab-ethz/Poseidon-T`` (this needs the extra ``southwell[hub]`` and a network).
    revision : str, optional
        Branch, tag or commit on the hub.
    in_channels, out_channels : int, optional
        Channels of the fields to fine-tune on. Where they are not those of the weights, the kernels of embedding or
        recovery that depend on them are drawn anew, and everything else stays.
    checkpointing : bool
        See `ScOT`.

    Returns
    -------
    ScOT
        With ``lead_times`` set to what the weights were trained on: others warn.

    Raises
    ------
    ValueError
        If there is no such checkpoint, it is of another model, keys are missing or too many, shapes do not fit the
        configuration, or the file is damaged.

    Examples
    --------
    >>> load_poseidon("no/such/folder/here")
    Traceback (most recent call last):
        ...
    ValueError: there is no folder no/such/folder/here, and that is no name on the hub ('owner/name') either

    References
    ----------
    .. [1] M. Herde et al., Poseidon: efficient foundation models for PDEs, NeurIPS 2024, arXiv:2405.19101.
    """
    folder = _folder(path_or_hub_name, revision)
    published = _arguments(folder / "config.json")
    arguments = published | {"checkpointing": checkpointing}
    for name, wanted in (("in_channels", in_channels), ("out_channels", out_channels)):
        if wanted is not None:
            arguments[name] = wanted
    with torch.device("meta"):
        expected, model = ScOT(**published), ScOT(**arguments)
    state = _weights(folder / "model.safetensors", expected)

    replaced = []
    # A network of one block has the same first and last layers, with their initial weights.
    drawn = ScOT(**(arguments | {"depths": [1], "num_heads": [1], "skip_connections": [0]})).state_dict()
    for argument, names in (("in_channels", EMBEDDING), ("out_channels", RECOVERY)):
        if arguments[argument] != published[argument]:
            state |= {name: drawn[name] for name in names}
            replaced.append(f"{', '.join(names)} (for {arguments[argument]} channels instead of {published[argument]})")
    if replaced:
        logger.info("%s: new initial weights for %s", folder, "; ".join(replaced))
    model.load_state_dict(state, assign=True)
    model.lead_times = LEAD_TIMES
    model.rebuilt_as = ("scot", arguments)
    return model.eval()


def poseidon(
    path: str,
    in_channels: int,
    out_channels: int,
    revision: str | None = None,
    checkpointing: bool = False,
) -> ScOT:
    """The registered model ``poseidon``: published weights to start from, for the channels of a dataset.

    A checkpoint of its training holds a ``scot`` and does not need the published files any more.

    Parameters
    ----------
    path : str
        See `load_poseidon`.
    in_channels, out_channels : int
    revision : str, optional
    checkpointing : bool
    """
    return load_poseidon(
        path, revision, in_channels=in_channels, out_channels=out_channels, checkpointing=checkpointing
    )


poseidon.conditioned_on_time = True  # type: ignore[attr-defined]


def _folder(name: str | Path, revision: str | None) -> Path:
    """The folder that holds the two files, downloaded first if it is on the hub."""
    folder = Path(name)
    if folder.exists():
        if revision is not None:
            raise ValueError(f"revision={revision!r} is for names on the hub, but {name} is a file or folder here")
        return folder if folder.is_dir() else folder.parent
    parts = str(name).split("/")
    if len(parts) != 2 or not all(parts) or str(name).startswith((".", "~")):
        raise ValueError(f"there is no folder {name}, and that is no name on the hub ('owner/name') either")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ValueError(
            f"there is no folder {name}; to fetch it from the hub, pip install 'southwell[hub]', or download "
            f"config.json and model.safetensors from https://huggingface.co/{name} into a folder and give its path"
        ) from None
    try:
        return Path(
            snapshot_download(str(name), revision=revision, allow_patterns=["config.json", "model.safetensors"])
        )
    except Exception as error:  # its own exceptions, and those of whatever carries its requests
        raise ValueError(
            f"{name} could not be fetched from the hub ({type(error).__name__}: {str(error).splitlines()[0]}). Without "
            f"a network, download config.json and model.safetensors from https://huggingface.co/{name} elsewhere"
        ) from error


def _arguments(path: Path) -> dict[str, Any]:
    """`ScOT`'s arguments from a ``config.json``."""
    if not path.is_file():
        raise ValueError(f"{path.parent} has no config.json: a Poseidon checkpoint is that and model.safetensors")
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as JSON ({error})") from None
    missing = [name for name in NEEDED if not isinstance(config, Mapping) or name not in config]
    if missing:
        kind = config.get("model_type") if isinstance(config, Mapping) else None
        raise ValueError(
            f"{path} describes another model (model_type {kind!r}) than scOT: it has no {', '.join(missing)}"
        )
    unsupported = {"hidden_act": "gelu", "pretrained_window_sizes": [0, 0, 0, 0]}
    for name, only in unsupported.items():
        if config.get(name, only) != only:
            raise ValueError(f"{path} has {name}={config[name]!r}; scOT here has {only!r} only")
    arguments = {name: config[name] for name in (*NEEDED, *OPTIONAL) if name in config}
    for ours, theirs in RENAMED.items():
        arguments[ours] = arguments.pop(theirs)
    # The authors' default is [True, True, True]: one block each.
    arguments["skip_connections"] = [int(count) for count in arguments["skip_connections"]]
    return arguments


def _weights(path: Path, expected: ScOT) -> dict[str, Tensor]:
    """The tensors of a file in single precision, if they are those that the configuration asks for."""
    if not path.is_file():
        raise ValueError(f"{path.parent} has no model.safetensors; pickled weights (.bin, .pt) are not read")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged or cut off: fetch it again ({str(error).splitlines()[0]})") from None
    shapes = {name: tensor.shape for name, tensor in expected.state_dict().items()}
    missing, extra = sorted(shapes.keys() - tensors.keys()), sorted(tensors.keys() - shapes.keys())
    if missing or extra:
        raise ValueError(
            f"{path} does not hold the scOT that its config.json describes: {_some(missing)} missing, {_some(extra)} "
            "not known"
        )
    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            kernels = {*EMBEDDING, *RECOVERY}
            hint = ", so it has another number of channels" if name in kernels else ""
            raise ValueError(
                f"{path}: {name} has shape {tuple(tensors[name].shape)}{hint}, but config.json asks for {tuple(shape)}"
            )
    # Copies: the file is mapped into memory, and training must not depend on it.
    return {name: t.to(torch.float32 if t.is_floating_point() else t.dtype, copy=True) for name, t in tensors.items()}


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") if names else "none"
