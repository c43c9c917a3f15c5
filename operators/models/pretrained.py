"""Any operator that was trained here as the start of another training: ``model=pretrained model.path=run/best.pt``."""

import logging
from pathlib import Path
from typing import Any

from torch import nn

logger = logging.getLogger(__name__)


def pretrained(path: str, in_channels: int, out_channels: int) -> nn.Module:
    """The registered model ``pretrained``: the network of a checkpoint, for the channels of a dataset.

    Tensors whose shape depends on the number of channels (of embedding and recovery in scOT, of lifting and projection
    in FNO) are drawn anew where that changes, and everything else is kept; where the number stays they are kept too,
    whatever the channels mean. A checkpoint of this training holds the model as it was first asked for, and does not
    need the old file any more.

    Parameters
    ----------
    path : str
        ``best.pt`` or ``last.pt`` of a run, of one dataset or of a mixture.
    in_channels, out_channels : int

    Raises
    ------
    ValueError
        If there is no such checkpoint, or it holds other weights than its model has.

    Examples
    --------
    >>> pretrained("runs/none/best.pt", in_channels=1, out_channels=1)
    Traceback (most recent call last):
        ...
    ValueError: no checkpoint at runs/none/best.pt; southwell-train leaves best.pt and last.pt in its out folder
    """
    from operators.checkpoint import load_checkpoint, rebuild_model
    from operators.models import models

    content = load_checkpoint(path)
    entry = content["model"]
    before = entry["arguments"]
    arguments = before | {"in_channels": in_channels, "out_channels": out_channels}
    model: nn.Module = models.build(entry["name"], **arguments)
    state = rebuild_model(content).state_dict()
    drawn = model.state_dict()
    other = sorted(name for name in drawn if name in state and drawn[name].shape != state[name].shape)
    if drawn.keys() != state.keys():
        raise ValueError(f"{path}: model {entry['name']!r} has other weights for other channels; it cannot be taken on")
    if other:
        logger.info(
            "%s: new initial weights for %s (%d and %d channels in and out instead of %d and %d)",
            path,
            ", ".join(other),
            in_channels,
            out_channels,
            before["in_channels"],
            before["out_channels"],
        )
    model.load_state_dict({name: drawn[name] if name in other else value for name, value in state.items()})
    model.rebuilt_as = (entry["name"], arguments)  # type: ignore[assignment]
    return model


def _conditioned_on_time(path: str, **others: Any) -> bool:
    """Whether the network of a checkpoint takes a lead time by itself."""
    from operators.checkpoint import load_checkpoint
    from operators.models import models

    entry = models[load_checkpoint(Path(path))["model"]["name"]]
    return bool(getattr(getattr(entry, "func", entry), "conditioned_on_time", False))


pretrained.conditioned_on_time = _conditioned_on_time  # type: ignore[attr-defined]
