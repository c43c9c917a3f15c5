"""Convolution blocks on channels-last fields, ``x + f(x)``: what a skip connection passes through on its way.

Both keep the shape ``(batch, height, width, channels)`` and take the lead time ``(batch, 1)``.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from operators.layers.channel_linear import ChannelLinear


class ConvNeXtBlock(nn.Module):
    r"""A wide depthwise convolution, then a perceptron of each token [1]_.

    .. math:: y = x + \gamma \odot W_2\, \mathrm{gelu}(W_1\, \mathrm{norm}(\mathrm{conv}_{7 \times 7}(x)))

    Parameters
    ----------
    channels : int
    norm : callable
        Makes a norm of a number of channels.

    References
    ----------
    .. [1] Z. Liu et al., A ConvNet for the 2020s, CVPR 2022, arXiv:2201.03545, figure 4.
    """

    def __init__(self, channels: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, kernel_size=7, padding=3, groups=channels)
        self.norm = norm(channels)
        self.pwconv1 = ChannelLinear(channels, 4 * channels)
        self.pwconv2 = ChannelLinear(4 * channels, channels)
        self.weight = nn.Parameter(torch.full((channels,), 1e-6))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Apply the block."""
        y = self.dwconv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        y = self.pwconv2(functional.gelu(self.pwconv1(self.norm(y, time))))
        return torch.addcmul(x, self.weight, y)


class ResNetBlock(nn.Module):
    r"""Two convolutions with batch normalisation, :math:`y = x + B_2 C_2\, \mathrm{lrelu}(B_1 C_1 x)`.

    Parameters
    ----------
    channels : int
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Apply the block; the time is not looked at."""
        y = functional.leaky_relu(self.bn1(self.conv1(x.permute(0, 3, 1, 2))))
        return x + self.bn2(self.conv2(y)).permute(0, 2, 3, 1)
