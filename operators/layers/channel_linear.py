"""Linear maps over the channels of channels-last fields, by the faster of two matrix products on a CPU.

`torch.nn.functional.linear` multiplies by MKL, `torch.nn.functional.conv2d` by oneDNN. On a field with some tens of
channels, a convolution over one point of a channels-last tensor is the same product without a copy, and oneDNN has
kernels for thin matrices and for every vendor's CPU: on an AMD EPYC with AVX-512 it was measured 1.5 to 3 times as fast
forwards, towards the input's gradient and towards that of the weights.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

# Below, both take microseconds, or the output is too thin for oneDNN's blocks of channels.
FEWEST_POINTS = 256
FEWEST_CHANNELS = 8
# With one thread, torch leaves a convolution of fewer images than this to its own code, which multiplies by MKL.
FEWEST_IMAGES = 16


def _images(leading: torch.Size) -> int:
    """How many images the points of a field are taken for; what is next to what does not matter to one point."""
    lines = leading[:-1].numel()
    return lines if lines >= FEWEST_IMAGES else math.gcd(leading.numel(), 4 * FEWEST_IMAGES)


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
    leading = x.shape[:-1]
    thin = len(weight) < FEWEST_CHANNELS or leading.numel() < FEWEST_POINTS
    plain = x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu")
    if thin or plain or not torch.backends.mkldnn.is_available():
        return functional.linear(x, weight, bias)
    images = _images(leading)
    if images < FEWEST_IMAGES and torch.get_num_threads() == 1:
        return functional.linear(x, weight, bias)
    field = x.reshape(images, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)
    product = functional.conv2d(field, weight[:, :, None, None], bias)
    return product.permute(0, 2, 3, 1).reshape(*leading, len(weight))


class ChannelLinear(nn.Linear):
    """`torch.nn.Linear` on channels-last fields, by `channel_linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., in)`` to ``(..., out)``."""
        return channel_linear(x, self.weight, self.bias)
