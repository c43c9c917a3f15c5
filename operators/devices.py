"""Where tensors live."""

import torch


def choose_device(name: str) -> torch.device:
    """Device of the names "auto" (a GPU if torch sees one), "cpu", "cuda", "cuda:1".

    Raises
    ------
    ValueError
        If it is a GPU and torch sees none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device={name} was asked for, but torch sees no GPU; use device=cpu or auto")
    return torch.device(name)
