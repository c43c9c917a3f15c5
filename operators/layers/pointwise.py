"""Layers that act on each grid point by itself, on channels-last fields ``(batch, *grid, channels)``.

Channels come last because a pointwise layer is then one plain matrix product; with channels first, torch's 1x1
convolutions were measured to take half of an FNO's CPU time.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from operators.layers.channel_linear import ChannelLinear
from operators.layers.slabs import by_slabs

ACTIVATION: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,  # in its exact form, by the error function, which is also the faster one on CPUs
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
}


def make_activation(name: str, argument: str = "activation") -> nn.Module:
    """Activation of a name.

    Parameters
    ----------
    name : str
    argument : str
        What the message calls it.

    Raises
    ------
    ValueError
        If it is none of `ACTIVATION`; `argument` is named.
    """
    if name not in ACTIVATION:
        raise ValueError(f"{argument} must be one of {', '.join(ACTIVATION)}, got {name!r}")
    return ACTIVATION[name]()


# Numbers whose products stay in the cache until they are summed.
_GATE_SLAB = 2**17


class ChannelMLP(nn.Module):
    """Two-layer perceptron over the channels: linear, activation, linear.

    Parameters
    ----------
    in_channels, out_channels, hidden_channels : int
    activation : str
        See `ACTIVATION`.

    Examples
    --------
    >>> ChannelMLP(3, 1, 8)(torch.zeros(2, 16, 16, 3)).shape
    torch.Size([2, 16, 16, 1])
    """

    def __init__(self, in_channels: int, out_channels: int, hidden_channels: int, activation: str = "gelu") -> None:
        super().__init__()
        self.widens = hidden_channels > max(in_channels, out_channels)
        self.first = ChannelLinear(in_channels, hidden_channels)
        self.activation = make_activation(activation)
        self.second = ChannelLinear(hidden_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., in_channels)`` to ``(..., out_channels)``."""
        return by_slabs(self._chain, self.parameters(), self.first.out_features, x) if self.widens else self._chain(x)

    def _chain(self, x: Tensor) -> Tensor:
        return self.second(self.activation(self.first(x)))


class SoftGate(nn.Module):
    """One trainable factor a channel, all 1 at the start.

    Parameters
    ----------
    channels : int
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Scale ``(..., channels)``."""
        return self.weight * x


class _GatedSum(torch.autograd.Function):
    """``y + gate * x``; the gate's gradient is summed while a slab of its products is in the cache."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, gate: Tensor, x: Tensor, overwrite: bool) -> Tensor:
        ctx.save_for_backward(gate, x)
        if overwrite:
            ctx.mark_dirty(y)
            return y.addcmul_(gate, x)
        return torch.addcmul(y, gate, x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        gradient = gradients[0]
        gate, x = ctx.saved_tensors
        channels = x.shape[-1]
        if torch.is_grad_enabled() or x.device.type != "cpu":
            return gradient, (gradient * x).reshape(-1, channels).sum(0), gradient * gate, None
        rows = max(_GATE_SLAB // channels, 1)
        total = torch.zeros_like(gate)
        for one, other in zip(
            gradient.reshape(-1, channels).split(rows), x.reshape(-1, channels).split(rows), strict=True
        ):
            total += (one * other).sum(0)
        return gradient, total, gradient * gate, None


def gated_sum(y: Tensor, gate: Tensor, x: Tensor, overwrite: bool = False) -> Tensor:
    """``y + gate * x`` of fields with channels last: `torch.addcmul`, whose gradients take two passes more.

    Parameters
    ----------
    y, x : Tensor, shape (..., channels)
    gate : Tensor, shape (channels,)
    overwrite : bool
        Whether `y` may become the result, if nobody needs it.

    Examples
    --------
    >>> gated_sum(torch.ones(2, 3), torch.tensor([1.0, 2.0, 3.0]), torch.ones(2, 3))[0]
    tensor([2., 3., 4.])
    """
    if torch.compiler.is_compiling() or torch.is_autocast_enabled(y.device.type):
        return torch.addcmul(y, gate, x)
    # What is a view, or might belong to a caller who asks for its gradient, autograd would have to copy, or refuse.
    overwrite = overwrite and not y._is_view() and not (y.is_leaf and y.requires_grad)
    result: Tensor = _GatedSum.apply(y, gate, x, overwrite)
    return result


def append_coordinates(x: Tensor, endpoint: bool = False) -> Tensor:
    """Append the coordinates of the grid points as channels.

    Parameters
    ----------
    x : Tensor, shape (batch, *grid, channels)
    endpoint : bool
        Whether the last of ``n`` points is at 1, so that point ``j`` is at ``j / (n - 1)``. Otherwise it is at
        ``j / n`` (neuraloperator's "grid" embedding), and a periodic grid and its refinement agree on the points they
        share.

    Returns
    -------
    Tensor, shape (batch, *grid, channels + dimensions)

    Examples
    --------
    >>> append_coordinates(torch.zeros(1, 4, 1))[0, :, 1]
    tensor([0.0000, 0.2500, 0.5000, 0.7500])
    """
    batch, *grid, _ = x.shape
    axes = [
        torch.linspace(0, 1, n, dtype=x.dtype, device=x.device)
        if endpoint
        else torch.arange(n, dtype=x.dtype, device=x.device) / n
        for n in grid
    ]
    coordinates = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    return torch.cat([x, coordinates.expand(batch, *coordinates.shape)], dim=-1)


def pad_domain(x: Tensor, widths: Sequence[int]) -> Tensor:
    """Surround a field with zeros, ``widths[axis]`` points on both sides of each axis.

    Parameters
    ----------
    x : Tensor, shape (batch, *grid, channels)
    widths : sequence of int
    """
    amounts = [0, 0]  # torch counts axes from the last, which is the channels
    for width in reversed(widths):
        amounts += [width, width]
    return functional.pad(x, amounts)


def crop_domain(x: Tensor, widths: Sequence[int]) -> Tensor:
    """Remove what `pad_domain` added.

    Parameters
    ----------
    x : Tensor, shape (batch, *grid, channels)
    widths : sequence of int
        Points on both sides of each axis.
    """
    return x[:, *(slice(w, n - w) for w, n in zip(widths, x.shape[1:-1], strict=True))]
