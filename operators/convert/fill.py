"""Weights under published names into a model of ours."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def fill(model: nn.Module, weights: Mapping[str, tuple[str, Tensor]]) -> None:
    """Copy weights, each under our name with the key it came from, into a model; all must fit, and none may miss.

    1x1 convolutions carry axes of length 1 that ours do not, and complex numbers a last axis of length 2 that theirs do
    not.

    Parameters
    ----------
    model : Module
    weights : mapping of str to (str, Tensor)
        By our names: the key that it came from, and the weight.
    """
    ours = model.state_dict()
    misfits = [key for name, (key, _) in weights.items() if name not in ours]
    missing = [name for name in ours if name not in weights and not name.endswith("num_batches_tracked")]
    filled = {}
    for name, (key, value) in weights.items():
        if name not in ours:
            continue
        value = torch.view_as_real(value.resolve_conj()) if value.is_complex() else value
        if [n for n in value.shape if n > 1] != [n for n in ours[name].shape if n > 1]:
            misfits.append(f"{key} (shape {tuple(value.shape)}, expected {tuple(ours[name].shape)})")
        else:
            filled[name] = value.reshape(ours[name].shape)
    if misfits or missing:
        parts = [f"keys without a place: {', '.join(misfits)}"] if misfits else []
        parts += [f"weights without a key: {', '.join(missing)}"] if missing else []
        raise ValueError(f"the state dict does not fit {type(model).__name__}: {'; '.join(parts)}")
    model.load_state_dict(filled, strict=False)
