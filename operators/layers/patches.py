"""Between fields and tokens: embedding of patches, recovery of fields, and the steps between resolutions of tokens.

Tokens are channels-last fields ``(batch, height, width, channels)``. Every layer takes the lead time ``(batch, 1)`` for
its norm. Sizes that do not divide are padded with zeros at the end of an axis on the way down and cropped on the way
up.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from operators.layers.channel_linear import ChannelLinear

Pair = tuple[int, int]
Norm = Callable[[int], nn.Module]


class PatchProjection(nn.Module):
    """Patches of a field to tokens: a convolution whose stride is its kernel.

    Parameters
    ----------
    in_channels, channels : int
    patch : pair of int
    """

    def __init__(self, in_channels: int, channels: int, patch: Pair) -> None:
        super().__init__()
        self.patch = patch
        self.projection = nn.Conv2d(in_channels, channels, kernel_size=patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, in_channels, height, width)`` to tokens."""
        over = [-n % p for n, p in zip(x.shape[2:], self.patch, strict=True)]
        if any(over):
            x = functional.pad(x, (0, over[1], 0, over[0]))
        return self.projection(x).permute(0, 2, 3, 1)


class PatchEmbedding(nn.Module):
    """Tokens of a field: projection, norm, and (where asked for) a trainable number for each place.

    Parameters
    ----------
    in_channels, channels : int
    patch : pair of int
    norm : callable
        Makes a norm of a number of channels.
    places : pair of int or None
        Tokens of each axis, if each place has trainable numbers of its own.
    dropout : float

    Examples
    --------
    >>> from operators.layers.conditional_norm import ConditionalLayerNorm
    >>> embedding = PatchEmbedding(2, 8, (4, 4), ConditionalLayerNorm)
    >>> embedding(torch.zeros(1, 2, 16, 30), torch.ones(1, 1)).shape
    torch.Size([1, 4, 8, 8])
    """

    def __init__(
        self, in_channels: int, channels: int, patch: Pair, norm: Norm, places: Pair | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.places = places
        self.patch_embeddings = PatchProjection(in_channels, channels, patch)
        if places is not None:
            self.position_embeddings = nn.Parameter(torch.zeros(1, places[0] * places[1], channels))
        self.norm = norm(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Map ``(batch, in_channels, height, width)`` to tokens."""
        tokens = self.norm(self.patch_embeddings(x), time)
        if self.places is not None:
            tokens = tokens + self.position_embeddings.unflatten(1, self.places)
        return self.dropout(tokens)


class PatchRecovery(nn.Module):
    """Tokens back to a field: each becomes a patch, and a 5 x 5 convolution mixes across their edges.

    Parameters
    ----------
    channels, out_channels : int
    patch : pair of int
    """

    def __init__(self, channels: int, out_channels: int, patch: Pair) -> None:
        super().__init__()
        self.projection = nn.ConvTranspose2d(channels, out_channels, kernel_size=patch, stride=patch)
        self.mixup = nn.Conv2d(out_channels, out_channels, kernel_size=5, padding=2, bias=False)

    def forward(self, tokens: Tensor, grid: Pair) -> Tensor:
        """Map tokens to ``(batch, out_channels, *grid)``; what the embedding padded is cropped before the mixing."""
        return self.mixup(self.projection(tokens.permute(0, 3, 1, 2))[:, :, : grid[0], : grid[1]])


class PatchMerging(nn.Module):
    """Half the resolution, twice the channels: four neighbours become one token.

    Parameters
    ----------
    channels : int
        Of the finer tokens.
    norm : callable
        Makes a norm of a number of channels.
    """

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.reduction = ChannelLinear(4 * channels, 2 * channels, bias=False)
        self.norm = norm(2 * channels)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Map ``(batch, height, width, channels)`` to ``(batch, ceil(height / 2), ceil(width / 2), 2 channels)``."""
        odd = [n % 2 for n in x.shape[1:3]]
        if any(odd):
            x = functional.pad(x, (0, 0, 0, odd[1], 0, odd[0]))
        # The first axis of the grid runs fastest among the four.
        four = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], dim=-1)
        return self.norm(self.reduction(four), time)


class PatchUnmerging(nn.Module):
    """Twice the resolution, half the channels: one token becomes four neighbours.

    Parameters
    ----------
    channels : int
        Of the coarser tokens.
    norm : callable
        Makes a norm of a number of channels.
    """

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.upsample = ChannelLinear(channels, 2 * channels, bias=False)
        self.mixup = ChannelLinear(channels // 2, channels // 2, bias=False)
        self.norm = norm(channels // 2)

    def forward(self, x: Tensor, grid: Pair, time: Tensor) -> Tensor:
        """Map ``(batch, height, width, channels)`` to ``(batch, *grid, channels / 2)``, the rest being cropped."""
        four = self.upsample(x).unflatten(3, (2, 2, -1))  # the last axis of the grid runs fastest among the four
        fine = four.transpose(2, 3).flatten(3, 4).flatten(1, 2)
        return self.mixup(self.norm(fine[:, : grid[0], : grid[1]], time))
