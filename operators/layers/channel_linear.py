"""Linear maps over the channels of channels-last fields, by the faster of two matrix products on a CPU.

`torch.nn.functional.linear` multiplies by MKL, which on an AMD EPYC with AVX-512 was measured to reach 107 GFlop/s on
one core, whatever the shape. oneDNN, which torch holds too, reaches 160 to 250 on the same matrices, as they lie in
memory and from 16 points on; so it multiplies here, forwards and for both gradients. Its product has no function of its
own in torch but the operator that torch's compiler uses, ``mkldnn::_linear_pointwise``; where that is missing or
differs from `linear`, as in a torch that was built without oneDNN, all of this is `linear`.
"""

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

# Multiplications below which Python's way to the operator takes longer than it saves.
FEWEST_PRODUCTS = 2**20
# Points over which oneDNN's convolutions, a point wide, sum a weight's gradient faster than its products; they need
# some images (torch leaves fewer to its own code on one thread) and channels.
_MANY_POINTS, _FEWEST_IMAGES, _FEWEST_CHANNELS = 1024, 16, 8


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias`` over the last axis."""
    bias = None if bias is None else bias.contiguous()  # its stride is not looked at
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, dense(weight), bias, "none", [], "")
    return result


def dense(matrix: Tensor) -> Tensor:
    """The matrix, copied unless it or its transpose is contiguous.

    For other strides oneDNN has its reference code, which was measured to take a thousand times as long.

    Parameters
    ----------
    matrix : Tensor, shape (m, n)
    """
    return matrix if matrix.is_contiguous() or matrix.t().is_contiguous() else matrix.contiguous()


@cache
def _is_there() -> bool:
    """Whether torch has the operator, and it is what it is taken for."""
    x, weight, bias = torch.arange(6.0).view(2, 3), torch.arange(12.0).view(3, 4).t(), torch.arange(4.0)
    try:
        with torch.inference_mode(False), torch.no_grad():
            return torch.backends.mkldnn.is_available() and torch.equal(
                _product(x, weight, bias), functional.linear(x, weight, bias)
            )
    except (RuntimeError, AttributeError, NotImplementedError, TypeError):
        return False


def _weight_gradient(gradient: Tensor, x: Tensor) -> Tensor:
    """``gradient.T @ x``: sums over all points, the wider of the two matrices last."""
    (points, channels), out = x.shape, gradient.shape[1]
    images = math.gcd(points, 4 * _FEWEST_IMAGES)
    if points >= _MANY_POINTS and images >= _FEWEST_IMAGES and min(channels, out) >= _FEWEST_CHANNELS:
        of_output, field = (t.view(images, -1, 1, t.shape[1]).permute(0, 3, 1, 2) for t in (gradient, x))
        kernel = x.new_empty(out, channels, 1, 1)
        geometry: Any = [1, 1], [0, 0], [1, 1], False, [0, 0], 1
        found = torch.ops.aten.convolution_backward(of_output, field, kernel, None, *geometry, [False, True, False])[1]
        return found.view(out, channels)
    return _product(x.t(), gradient.t()).t() if out > channels else _product(gradient.t(), x.t())


class _ChannelLinear(torch.autograd.Function):
    """The map of contiguous points, and its gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        result = _product(x.view(-1, x.shape[-1]), weight, bias)
        # No view to autograd, so that the result may be written to in place.
        unfolded: Tensor = torch.ops.aten._unsafe_view(result, [*x.shape[:-1], len(weight)])
        return unfolded

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient = gradients[0].contiguous()
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        rows, points = gradient.view(-1, gradient.shape[-1]), x.view(-1, x.shape[-1])
        again = torch.is_grad_enabled()  # gradients of gradients: by what autograd knows
        found_x = found_weight = None
        if of_x:
            found_x = gradient @ weight if again else _product(gradient, weight.t())
        if of_weight:
            found_weight = rows.t() @ points if again else _weight_gradient(rows, points)
        return found_x, found_weight, rows.sum(0) if of_bias else None


def channel_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Map the channels of every point: ``weight @ x + bias``.

    Parameters
    ----------
    x : Tensor, shape (..., in)
    weight : Tensor, shape (out, in)
    bias : Tensor, shape (out,), optional

    Returns
    -------
    Tensor, shape (..., out)

    Examples
    --------
    >>> channel_linear(torch.ones(2, 32, 32, 3), torch.ones(8, 3)).shape
    torch.Size([2, 32, 32, 8])
    """
    plain = x.device.type != "cpu" or x.dtype != torch.float32 or weight.dtype != torch.float32 or x.ndim < 2
    if plain or x.numel() * len(weight) < FEWEST_PRODUCTS or torch.is_autocast_enabled("cpu"):
        return functional.linear(x, weight, bias)
    if torch.compiler.is_compiling() or not _is_there():
        return functional.linear(x, weight, bias)
    x = x.contiguous()
    differentiable = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias))
    result: Tensor = (_ChannelLinear.apply if differentiable else _product)(x, weight, bias)
    return result


class ChannelLinear(nn.Linear):
    """`torch.nn.Linear` on channels-last fields, by `channel_linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., in)`` to ``(..., out)``."""
        return channel_linear(x, self.weight, self.bias)
