r"""Self-attention within the windows of a grid, with cosine similarity and a continuous relative bias (Swin V2).

The grid of tokens is cut into windows of :math:`w_1 \times w_2` tokens; each attends to those of its own window. With
queries, keys and values :math:`q_i, k_j, v_j` of one head, and :math:`x_i` the place of token ``i``,

.. math:: y_i = \sum_j \mathrm{softmax}_j\Bigl(
          \min(e^{\tau}, 100) \frac{q_i \cdot k_j}{\|q_i\| \|k_j\|} + 16\, \mathrm{sigmoid}\, g(x_i - x_j)
          + m_{ij} \Bigr) v_j

where the bias ``g`` is a small perceptron of the logarithmic offset, so that weights apply to windows of any size. In
every second block the windows are shifted by half their size, cyclically: ``m`` is 0 between tokens that are
neighbours on the grid too, and -200 between those that only the cyclic shift brought together.

References
----------
.. [1] Z. Liu et al., Swin Transformer V2: scaling up capacity and resolution, CVPR 2022, arXiv:2111.09883, section 3.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from operators.layers.channel_linear import ChannelLinear

Pair = tuple[int, int]

# Hugging Face's Swin V2 adds its mask of -100 twice; scOT's weights were trained with that.
MASKED = -200.0


def window_partition(x: Tensor, window: Pair) -> Tensor:
    """Cut a grid into windows.

    Parameters
    ----------
    x : Tensor, shape (batch, height, width, channels)
        Height and width are multiples of the window's.
    window : pair of int

    Returns
    -------
    Tensor, shape (batch, windows, tokens, channels)

    Examples
    --------
    >>> window_partition(torch.arange(16.0).view(1, 4, 4, 1), (2, 2))[0, :, :, 0]
    tensor([[ 0.,  1.,  4.,  5.],
            [ 2.,  3.,  6.,  7.],
            [ 8.,  9., 12., 13.],
            [10., 11., 14., 15.]])
    """
    batch, height, width, channels = x.shape
    x = x.view(batch, height // window[0], window[0], width // window[1], window[1], channels)
    return x.transpose(2, 3).reshape(batch, -1, window[0] * window[1], channels)


def window_merge(x: Tensor, window: Pair, grid: Pair) -> Tensor:
    """Put the windows of `window_partition` back into a grid ``(batch, height, width, channels)``.

    Parameters
    ----------
    x : Tensor
        As `window_partition` returns it.
    window, grid : (int, int)
        Points of a window, and of the grid.
    """
    x = x.view(len(x), grid[0] // window[0], grid[1] // window[1], *window, x.shape[-1])
    return x.transpose(2, 3).reshape(len(x), *grid, x.shape[-1])


@lru_cache(maxsize=64)
def shift_mask(grid: Pair, window: Pair, shift: Pair, device: torch.device) -> Tensor:
    """What is added to the logits of cyclically shifted windows.

    On an axis that is shifted by ``s``, the last window holds tokens from both ends of the grid: its last ``s`` came
    around. Tokens of one window attend to each other freely where they came from the same side on both axes.

    Parameters
    ----------
    grid, window : pair of int
    shift : pair of int
        0 on an axis that is not shifted.
    device : torch.device

    Returns
    -------
    Tensor, shape (windows, tokens, tokens)
        0 or `MASKED`.
    """
    with torch.inference_mode(False):  # an inference tensor in the cache could never take part in training again
        around = [torch.arange(n, device=device) >= n - s for n, s in zip(grid, shift, strict=True)]
        region = 2 * around[0][:, None] + around[1]
        tokens = window_partition(region[None, :, :, None], window)[0, :, :, 0]
        return torch.where(tokens[:, :, None] == tokens[:, None, :], 0.0, MASKED)


@lru_cache(maxsize=64)
def relative_offsets(window: Pair, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    r"""Offsets between the tokens of a window, on a logarithmic scale, and which pair of tokens has which.

    Offsets :math:`\Delta \in \{1 - w, \dots, w - 1\}` of each axis become
    :math:`\mathrm{sign}(\Delta) \log_8 (1 + 8 |\Delta| / (w - 1))`, in [-1.06, 1.06] whatever the window.

    Parameters
    ----------
    window : pair of int
    dtype : torch.dtype
        Of the offsets, which are computed in double precision.
    device : torch.device

    Returns
    -------
    offsets : Tensor, shape (2, (2 height - 1) (2 width - 1))
    index : Tensor of int, shape (tokens * tokens)
        Column of `offsets` for query ``i`` and key ``j``, at ``i * tokens + j``.
    """
    with torch.inference_mode(False):
        axes = []
        for w in window:
            # A window of one token has only the offset 0; transformers before 4.30 divides it by 0.
            relative = 8.0 * torch.arange(1 - w, w, dtype=torch.float64) / max(w - 1, 1)
            axes.append(relative.sign() * torch.log2(relative.abs() + 1.0) / math.log2(8.0))
        offsets = torch.stack([axis.flatten() for axis in torch.meshgrid(*axes, indexing="ij")])
        place = torch.cartesian_prod(*(torch.arange(w) for w in window))
        difference = place[:, None] - place[None, :] + torch.tensor(window) - 1
        index = difference[..., 0] * (2 * window[1] - 1) + difference[..., 1]
        return offsets.to(device, dtype), index.flatten().to(device)


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, dropout: float) -> Tensor:
    """Attention of every window, ``softmax(q k^T + bias) v``.

    Torch's fused kernels serve except where the CPU needs the bias's gradient, for which they have none: torch would
    then take a general form that is slower than the one here.

    Parameters
    ----------
    q, k, v : Tensor, shape (batch, windows, heads, tokens, channels)
    bias : Tensor, shape (heads, tokens, tokens) or (windows, heads, tokens, tokens)
    dropout : float

    Returns
    -------
    Tensor, shape (batch, windows, heads, tokens, channels)
    """
    if not q.is_cuda and torch.is_grad_enabled():
        logits = (q @ k.transpose(3, 4)).add_(bias)
        return functional.dropout(logits.softmax(dim=-1), dropout) @ v
    # The kernels know a batch and heads. Windows that share a bias join the batch, others are further heads.
    start = 0 if bias.ndim == 3 else 1
    bias = bias.flatten(0, -3)[None]
    shape = q.shape
    q, k, v = (each.flatten(start, start + 1) for each in (q, k, v))
    y = functional.scaled_dot_product_attention(q, k, v, bias.to(q.dtype), dropout_p=dropout, scale=1.0)
    return y.view(shape)


def _unit(x: Tensor, length: Tensor | float) -> Tensor:
    """Vectors of a given length, or 0 where they were: zero tokens pad a grid."""
    return x * (length / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(1e-12))


@dataclass(frozen=True)
class _KeptBias:
    """A bias, and the shape and weights that it came from: it is used again only for the same values of both.

    Values are compared, not versions of tensors: weights can be written past autograd. On a GPU the comparison would
    wait for the device, and nothing is kept.
    """

    shape: tuple[Pair, Pair, Pair]
    weights: Sequence[Tensor]
    bias: Tensor

    def holds(self, shape: tuple[Pair, Pair, Pair], weights: Sequence[Tensor]) -> bool:
        return shape == self.shape and all(
            now.device == then.device and now.dtype == then.dtype and torch.equal(now, then)
            for now, then in zip(weights, self.weights, strict=True)
        )


class WindowAttention(nn.Module):
    """Multi-head self-attention of Swin V2 in the windows of a grid, without the projection of its output.

    Windows are cut down to the grid on axes that have fewer tokens, and such axes are not shifted. Grids that windows
    do not divide are padded with zero tokens at the end of each axis, which (as in the published code) are attended to.

    Parameters
    ----------
    channels : int
    heads : int
        Divides `channels`.
    window : pair of int
        Tokens of a window.
    bias : bool
        Whether queries and values have a bias; keys have none.
    dropout : float
        Of attention weights, in training.

    Examples
    --------
    >>> WindowAttention(8, heads=2, window=(4, 4))(torch.randn(3, 8, 12, 8), shifted=True).shape
    torch.Size([3, 8, 12, 8])
    """

    def __init__(self, channels: int, heads: int, window: Pair, bias: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(
                f"num_heads must divide the channels of its stage, got {heads} heads and {channels} channels"
            )
        self.heads = heads
        self.window = window
        self.dropout = dropout
        self.logit_scale = nn.Parameter(torch.full((heads, 1, 1), math.log(10.0)))
        self.continuous_position_bias_mlp = nn.Sequential(
            nn.Linear(2, 512), nn.ReLU(), nn.Linear(512, heads, bias=False)
        )
        self.query = ChannelLinear(channels, channels, bias=bias)
        self.key = ChannelLinear(channels, channels, bias=False)
        self.value = ChannelLinear(channels, channels, bias=bias)
        self._kept: _KeptBias | None = None

    def bias(self, grid: Pair, window: Pair, shift: Pair) -> Tensor:
        """Bias of the logits: of positions and, in shifted windows, of `shift_mask`.

        Parameters
        ----------
        grid, window, shift : pair of int
            As `shift_mask` takes them; a shift of 0 on both axes is none.

        Returns
        -------
        Tensor, shape (heads, tokens, tokens) or (windows, heads, tokens, tokens)
        """
        first, last = (cast(nn.Linear, self.continuous_position_bias_mlp[layer]) for layer in (0, 2))
        weights = (first.weight, first.bias, last.weight)
        keep = not (torch.is_grad_enabled() or first.weight.is_cuda)
        shape = (grid, window, shift)
        if keep and self._kept is not None and self._kept.holds(shape, weights):
            return self._kept.bias
        offsets, index = relative_offsets(window, first.weight.dtype, first.weight.device)
        # With the offsets as columns: linear layers would first copy the bias to every row of a large matrix.
        hidden = torch.addmm(first.bias[:, None], first.weight, offsets).relu_()
        table = 16.0 * torch.sigmoid(last.weight @ hidden)
        bias = table.index_select(1, index).view(self.heads, math.prod(window), -1)
        if any(shift):
            bias = bias + shift_mask(grid, window, shift, bias.device)[:, None]
        self._kept = _KeptBias(shape, [weight.detach().clone() for weight in weights], bias) if keep else None
        return bias

    def forward(self, x: Tensor, shifted: bool) -> Tensor:
        """Attend.

        Parameters
        ----------
        x : Tensor, shape (batch, height, width, channels)
        shifted : bool
            Whether the windows are shifted by half their size, on axes that have more than one.

        Returns
        -------
        Tensor, shape (batch, height, width, channels)
        """
        height, width = x.shape[1:3]
        window = (min(self.window[0], height), min(self.window[1], width))
        padded = (height + -height % window[0], width + -width % window[1])
        halves = [w // 2 if shifted and n > w else 0 for w, n in zip(window, (height, width), strict=True)]
        shift = (halves[0], halves[1])
        if padded != (height, width):
            x = functional.pad(x, (0, 0, 0, padded[1] - width, 0, padded[0] - height))
        if any(shift):
            x = x.roll((-shift[0], -shift[1]), (1, 2))
        x = window_partition(x, window)

        by_head = (*x.shape[:3], self.heads, -1)
        q, k, v = (linear(x).view(by_head) for linear in (self.query, self.key, self.value))
        q, k = _unit(q, self.logit_scale[:, 0].clamp(max=math.log(100.0)).exp()), _unit(k, 1.0)
        q, k, v = (each.transpose(2, 3) for each in (q, k, v))
        y = attention(q, k, v, self.bias(padded, window, shift), self.dropout if self.training else 0.0)

        y = y.transpose(2, 3).flatten(3)
        y = window_merge(y, window, padded)
        if any(shift):
            y = y.roll(shift, (1, 2))
        return y[:, :height, :width]
