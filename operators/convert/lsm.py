"""State dicts of the published latent spectral model."""

from collections.abc import Mapping
from typing import Any

from operators.convert.fill import fill
from operators.models import LSM, models


def lsm_arguments(state: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """Arguments of the `LSM` that a state dict belongs to.

    Parameters
    ----------
    state : mapping
        Its keys and tensors.
    **options
        Arguments of `LSM` that tensors do not say.

    Raises
    ------
    ValueError
        If it is another model's.
    """
    try:
        dimensions = state["inc.double_conv.0.weight"].ndim - 2
        heads, tokens, _ = state["process1.latent"].shape
        found = {
            "in_channels": state["fc0.weight"].shape[1] - dimensions,
            "out_channels": len(state["fc2.weight"]),
            "dimensions": dimensions,
            "width": len(state["fc0.weight"]),
            "n_tokens": tokens,
            "n_basis": state["process1.weights"].shape[1] // 2,
            "n_heads": heads,
        }
    except KeyError as error:
        raise ValueError(
            f"the state dict of a latent spectral model must have the key {error.args[0]}; its keys begin with "
            f"{sorted(state)[:5]}"
        ) from None
    return {**found, **options}


def from_lsm(state: Mapping[str, Any], **options: Any) -> LSM:
    """The `LSM` with the weights of a published latent spectral model, on a grid of one to three dimensions.

    The keys are the same; sizes are read from the tensors. What the published model takes as patch size and padding for
    one grid is chosen for each grid here, to the same effect; where a patch was not a sixteenth of the padded axis,
    give `patch_size`.

    Parameters
    ----------
    state : mapping
        ``model.state_dict()``, or what `read_weights` returns.
    **options
        Arguments of `LSM` that tensors do not say: `patch_size`.

    Returns
    -------
    LSM
        In evaluation mode, in the precision of the weights.

    Raises
    ------
    ValueError
        If keys are missing or do not fit; they are named.

    Examples
    --------
    >>> theirs = LSM(1, 1, width=16, n_tokens=2).state_dict()
    >>> from_lsm(theirs).process1.latent.shape
    torch.Size([8, 2, 2])
    """
    model: LSM = models.build("lsm", **lsm_arguments(state, **options))
    model.to(state["fc0.weight"].dtype)
    fill(model, {key: (key, value) for key, value in state.items()})
    return model.eval()
