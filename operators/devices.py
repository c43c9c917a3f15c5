"""Where tensors live, and in which arithmetic models compute."""

import torch


def choose_device(name: str) -> torch.device:
    """Where to compute.

    Parameters
    ----------
    name : str
        "auto" (a GPU if torch sees one), "cpu", "cuda", "cuda:1".

    Raises
    ------
    ValueError
        If it is a GPU and torch sees none, or there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device={name} was asked for, but torch sees no GPU; use device=cpu or auto")
    try:
        return torch.device(name)
    except RuntimeError:
        raise ValueError(f"device must be auto, cpu or cuda, got {name!r}") from None


def autocast_type(precision: int | str, device: torch.device) -> torch.dtype | None:
    """The type of half precision that a model computes in, or None for float32.

    Parameters
    ----------
    precision : {32, "bf16", 16}
    device : torch.device

    Raises
    ------
    ValueError
        If the device does not have it.
    """
    if precision == 32:
        return None
    if precision == 16:
        if device.type == "cpu":
            raise ValueError("trainer.precision=16 is for GPUs; on a CPU use trainer.precision=bf16 or 32")
        return torch.float16
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ValueError(f"trainer.precision=bf16: {torch.cuda.get_device_name(device)} lacks it; use 16 or 32")
    return torch.bfloat16


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """State of torch's random numbers on the CPU and, where that is another, on a device.

    Parameters
    ----------
    device : torch.device
    """
    state = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """The inverse of `random_state`.

    Parameters
    ----------
    state : dict of Tensor
    device : torch.device
    """
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def by_library(x: torch.Tensor) -> bool:
    """Whether torch's own operations serve, where we have others for the CPU.

    Autocast and compilers know those, and other devices want few of them.

    Parameters
    ----------
    x : Tensor
        What is worked on.
    """
    return x.device.type != "cpu" or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling()
