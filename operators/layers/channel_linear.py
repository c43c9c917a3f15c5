"""Linear maps over the channels of channels-last fields, by the faster of two matrix products on a CPU.

`torch.nn.functional.linear` multiplies by MKL, `torch.nn.functional.conv2d` by oneDNN. On a field with some tens of
channels, a convolution over one point of a channels-last tensor is the same product without a copy, and oneDNN has
kernels for thin matrices and for every vendor's CPU: on an AMD EPYC with AVX-512 it was measured 2 to 3 times as fast
forwards, and towards the input's gradient. Towards the gradient of the weights, a product over all points, MKL is as
fast or faster.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

# Below, both take microseconds, or the output is too thin for oneDNN's blocks of channels.
FEWEST_POINTS = 1024
FEWEST_CHANNELS = 8


def _by_convolution(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The product as a convolution over one point, in the layout that oneDNN has for channels that come last."""
    batch, *grid, channels = x.shape
    rows = grid[-1] if len(grid) > 1 else 1
    field = x.reshape(batch, math.prod(grid) // rows, rows, channels).permute(0, 3, 1, 2)
    product = functional.conv2d(field, weight[:, :, None, None], bias)
    return product.permute(0, 2, 3, 1).reshape(*x.shape[:-1], len(weight))


class _ConvolutionForward(torch.autograd.Function):
    """A linear map that goes forwards, and backwards to its input, by convolution, and to its weights by a product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _by_convolution(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        by_input, by_weight, by_bias = ctx.needs_input_grad
        rows = gradient.reshape(-1, len(weight))
        return (
            _by_convolution(gradient, weight.T, None) if by_input else None,
            _outer(rows, x.reshape(-1, x.shape[-1])) if by_weight else None,
            rows.sum(0) if by_bias else None,
        )


def _outer(left: Tensor, right: Tensor) -> Tensor:
    """``left.T @ right``, the thinner first: MKL was seen to take seven times as long for 64 x 3 as for 3 x 64."""
    return left.T @ right if left.shape[1] <= right.shape[1] else (right.T @ left).T


def channel_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Map the channels of every point: ``weight @ x + bias``.

    Parameters
    ----------
    x : Tensor, shape (batch, *grid, in)
    weight : Tensor, shape (out, in)
    bias : Tensor, shape (out,), optional

    Returns
    -------
    Tensor, shape (batch, *grid, out)
    """
    thin = len(weight) < FEWEST_CHANNELS or x.shape[:-1].numel() < FEWEST_POINTS
    plain = x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu")
    if thin or plain or x.ndim < 3 or not torch.backends.mkldnn.is_available():
        return functional.linear(x, weight, bias)
    return _ConvolutionForward.apply(x, weight, bias)


class ChannelLinear(nn.Linear):
    """`torch.nn.Linear` on channels-last fields, by `channel_linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, *grid, in)`` to ``(batch, *grid, out)``."""
        return channel_linear(x, self.weight, self.bias)
