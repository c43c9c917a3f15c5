"""Normalisation of channels-last fields ``(batch, *grid, channels)``, in any number of dimensions.

Mean and (biased) variance are taken over the grid points of each sample, together with

======================  =============================================  =========================
kind                    what shares them                               learned scale and shift
======================  =============================================  =========================
``"instance_norm"``     nothing: each sample and channel has its own   none
``"group_norm"``        all channels of a sample                       one of each a channel
``"batch_norm"``        all samples of a batch                         one of each a channel
======================  =============================================  =========================

and a field becomes ``(x - mean) / sqrt(variance + 1e-5)``. Batch norm uses running averages in evaluation.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

EPSILON = 1e-5


class InstanceNorm(nn.Module):
    """Mean 0 and variance 1 for each sample and channel."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, *grid, channels)`` to the same shape."""
        over = tuple(range(1, x.ndim - 1))
        variance, mean = torch.var_mean(x, dim=over, correction=0, keepdim=True)
        return (x - mean) * torch.rsqrt(variance + EPSILON)


class GroupNorm(nn.Module):
    """Mean 0 and variance 1 for each sample over all its channels, then a scale and a shift for each channel.

    Parameters
    ----------
    channels : int
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, *grid, channels)`` to the same shape."""
        return torch.addcmul(self.bias, functional.layer_norm(x, x.shape[1:], eps=EPSILON), self.weight)


class BatchNorm(nn.BatchNorm1d):
    """Mean 0 and variance 1 for each channel over the batch, then a scale and a shift for each channel."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, *grid, channels)`` to the same shape."""
        return super().forward(x.flatten(0, -2)).reshape(x.shape)


def make_norm(kind: str | None, channels: int) -> nn.Module:
    """Norm of a kind; None gives the identity.

    Parameters
    ----------
    kind : {"instance_norm", "group_norm", "batch_norm", None}
    channels : int

    Raises
    ------
    ValueError
        If the kind is unknown.

    Examples
    --------
    >>> x = 5 + 3 * torch.randn(2, 16, 16, 4)
    >>> y = make_norm("instance_norm", 4)(x)
    >>> bool(y.mean((1, 2)).abs().max() < 1e-6)
    True
    """
    match kind:
        case None:
            return nn.Identity()
        case "instance_norm":
            return InstanceNorm()
        case "group_norm":
            return GroupNorm(channels)
        case "batch_norm":
            return BatchNorm(channels)
    raise ValueError(f"norm must be 'instance_norm', 'group_norm', 'batch_norm' or null, got {kind!r}")
