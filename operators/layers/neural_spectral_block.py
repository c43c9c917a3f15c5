r"""The neural spectral block of latent spectral models: a few tokens for each patch, and a sine series on each token.

A field is cut into patches, and each patch ``x`` (points by channels) is worked on by itself. For each of ``H`` heads,
which have ``c / H`` channels each, with learned tokens ``L`` [1]_:

.. math:: T &= L + \operatorname{softmax}(L K^{\mathsf T})\, V, \qquad K = x W_K + b_K,\ V = x W_V + b_V, \\
          T_i &\leftarrow T_i + \sum_{k=0}^{n-1} \bigl[ w_{i, k} \sin(\pi \tfrac kn T_i)
                 + w_{i, n + k} \cos(\pi \tfrac kn T_i) \bigr], \\
          x &\leftarrow x + \operatorname{softmax}(Q T^{\mathsf T})\, T, \qquad Q = x W_Q + b_Q.

As published, attention is not scaled by the root of the channels, frequencies are ``k / n`` and not whole numbers, and
so the first sine is zero and the first cosine constant.

Keys are never formed: ``L K^T`` is ``(L W_K^T) x^T`` up to a constant that the softmax ignores, a map of the channels
to as many as there are tokens.

References
----------
.. [1] H. Wu, T. Hu, H. Luo, J. Wang, M. Long, Solving high-dimensional PDEs with latent spectral models, ICML 2023,
   arXiv:2301.12664, section 3.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from operators.layers.by_dimension import CONVOLUTION
from operators.layers.channel_linear import channel_linear


def to_patches(x: Tensor, patch: Sequence[int]) -> Tensor:
    """Cut fields into patches.

    Parameters
    ----------
    x : Tensor, shape (batch, channels, *grid)
        Every axis a multiple of the patch's.
    patch : sequence of int
        Points of a patch along each axis.

    Returns
    -------
    Tensor, shape (batch * patches, points, channels)

    Examples
    --------
    >>> to_patches(torch.arange(8.0).reshape(1, 1, 2, 4), (2, 2))[..., 0]
    tensor([[0., 1., 4., 5.],
            [2., 3., 6., 7.]])
    """
    batch, channels, *grid = x.shape
    d = len(grid)
    split = [size for n, p in zip(grid, patch, strict=True) for size in (n // p, p)]
    x = x.movedim(1, -1).reshape(batch, *split, channels)
    x = x.permute(0, *range(1, 2 * d, 2), *range(2, 2 * d + 1, 2), 2 * d + 1)
    return x.reshape(-1, math.prod(patch), channels)


def from_patches(patches: Tensor, patch: Sequence[int], grid: Sequence[int]) -> Tensor:
    """Put the patches of `to_patches` together again; shape ``(batch, channels, *grid)``.

    Parameters
    ----------
    patches : Tensor
        As `to_patches` returns them.
    patch, grid : sequence of int
        Points per axis of a patch, and of the whole.
    """
    d, channels = len(grid), patches.shape[-1]
    x = patches.reshape(-1, *(n // p for n, p in zip(grid, patch, strict=True)), *patch, channels)
    x = x.permute(
        0, *(axis for pair in zip(range(1, d + 1), range(d + 1, 2 * d + 1), strict=True) for axis in pair), -1
    )
    return x.reshape(-1, *grid, channels).movedim(-1, 1)


class _TrigonometricSeries(torch.autograd.Function):
    """The series, its derivative and its gradient with terms made one after the other by turning the angle.

    All terms at once would be arrays of ``2 n`` times the size of the tokens; this way it is a few of their size.
    Patches are along the last axis here: weights are numbers to them, which was measured to be thirty times as fast as
    short rows of weights.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, weights: Tensor) -> Tensor:
        n = weights.shape[-1] // 2
        z = z.movedim(0, -1).contiguous()
        sines, cosines = weights[..., None, :n], weights[..., None, n:]
        value = cosines[..., 0].expand_as(z).clone()
        derivative = torch.zeros_like(z)
        for k, sine, cosine in _turns(z, n):
            value.addcmul_(sine, sines[..., k]).addcmul_(cosine, cosines[..., k])
            derivative.addcmul_(cosine, k * sines[..., k]).addcmul_(sine, k * cosines[..., k], value=-1.0)
        ctx.save_for_backward(z, derivative.mul_(math.pi / n))
        ctx.n, ctx.shape = n, weights.shape
        return value.movedim(-1, 0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        z, derivative = ctx.saved_tensors
        n = ctx.n
        gradient = gradient.movedim(0, -1).contiguous()
        by_weights = torch.zeros(ctx.shape, dtype=z.dtype, device=z.device)
        shape = ctx.shape[:-1]
        by_weights[..., n] = gradient.sum(-1).sum_to_size(shape)
        for k, sine, cosine in _turns(z, n):
            by_weights[..., k] = (gradient * sine).sum(-1).sum_to_size(shape)
            by_weights[..., n + k] = (gradient * cosine).sum(-1).sum_to_size(shape)
        return (gradient * derivative).movedim(-1, 0), by_weights


def _turns(z: Tensor, n: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """``k, sin(pi k z / n), cos(pi k z / n)`` for ``0 < k < n``."""
    angle = z * (math.pi / n)
    first_sine, first_cosine = angle.sin(), angle.cos()
    sine, cosine = first_sine, first_cosine
    for k in range(1, n):
        yield k, sine, cosine
        sine, cosine = (
            torch.addcmul(sine * first_cosine, cosine, first_sine),
            torch.addcmul(cosine * first_cosine, sine, first_sine, value=-1.0),
        )


def trigonometric_series(z: Tensor, weights: Tensor) -> Tensor:
    r"""Evaluate ``sum_k w_k sin(pi k z / n) + w_{n+k} cos(pi k z / n)``, ``0 <= k < n``, for every number.

    Parameters
    ----------
    z : Tensor, shape (patches, *shape)
    weights : Tensor, shape (*shape or 1, 2 n)

    Returns
    -------
    Tensor, shape of z

    Examples
    --------
    >>> trigonometric_series(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0, 0.0, 0.0]))  # sin(pi z / 2)
    tensor([0., 1.])
    """
    series: Tensor = _TrigonometricSeries.apply(z, weights)
    return series


class NeuralSpectralBlock(nn.Module):
    """Attention to a few tokens of each patch, a trigonometric series on them, and attention back.

    Parameters
    ----------
    dimensions : {1, 2, 3}
    channels : int
        A multiple of `n_heads`.
    n_basis : int
        Sines, and cosines, of the series.
    n_tokens : int
        Tokens of each head.
    n_heads : int

    Examples
    --------
    >>> block = NeuralSpectralBlock(2, channels=16, n_basis=12, n_tokens=4, n_heads=8)
    >>> block(torch.zeros(3, 16, 8, 12), patch=(4, 4)).shape
    torch.Size([3, 16, 8, 12])
    """

    def __init__(self, dimensions: int, channels: int, n_basis: int, n_tokens: int, n_heads: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.rand(channels, 2 * n_basis) / channels)
        self.latent = nn.Parameter(torch.rand(n_heads, n_tokens, channels // n_heads) / channels)
        self.encoder_attn = CONVOLUTION[dimensions](channels, 2 * channels, kernel_size=1)
        self.decoder_attn = CONVOLUTION[dimensions](channels, channels, kernel_size=1)

    def forward(self, x: Tensor, patch: Sequence[int]) -> Tensor:
        """Map ``(batch, channels, *grid)`` to the same shape; every axis is a multiple of the patch's."""
        heads, _, channels = self.latent.shape
        patches = to_patches(x, patch)
        tokens = self._encode(patches, len(x))
        tokens = tokens + trigonometric_series(tokens, self.weights.reshape(heads, 1, channels, -1))
        return from_patches(self._decode(patches, tokens, len(x)), patch, x.shape[2:])

    def _encode(self, x: Tensor, batch: int) -> Tensor:
        """Tokens ``(patches, heads, tokens, channels / heads)`` of patches ``(patches, points, channels)``."""
        heads, count, channels = self.latent.shape
        # Keys and values alternate among the output channels.
        key, value = self.encoder_attn.weight.reshape(heads, channels, 2, -1).unbind(2)
        assert self.encoder_attn.bias is not None
        value_bias = self.encoder_attn.bias.reshape(-1, 2)[:, 1]
        query = torch.einsum("htj,hjc->htc", self.latent, key).flatten(0, 1)
        rows = x.reshape(batch, -1, x.shape[-1])
        attention = channel_linear(rows, query).reshape(*x.shape[:2], -1).softmax(dim=1)  # over the points
        values = channel_linear(rows, value.flatten(0, 1), value_bias).reshape(x.shape)
        # Every head's attention to every head's values, of which the head's own are kept: one product is faster than
        # one for each head.
        every = torch.bmm(attention.mT, values).reshape(-1, heads, count, heads, channels)
        return self.latent + every.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)

    def _decode(self, x: Tensor, tokens: Tensor, batch: int) -> Tensor:
        heads, count, channels = self.latent.shape
        rows = x.reshape(batch, -1, x.shape[-1])
        query = channel_linear(rows, self.decoder_attn.weight.flatten(1), self.decoder_attn.bias).reshape(x.shape)
        # A head meets its own tokens only: a block diagonal matrix.
        blocks = tokens.new_zeros(len(x), heads, count, heads, channels)
        blocks = blocks.diagonal_scatter(tokens.permute(0, 2, 3, 1), dim1=1, dim2=3)
        blocks = blocks.reshape(len(x), heads * count, heads * channels)
        scores = torch.bmm(blocks, query.mT)  # (patches, heads * tokens, points)
        # With the few tokens along the last axis, torch's softmax was measured to take thirty times as long.
        attention = scores.unflatten(1, (heads, count)).softmax(dim=2).flatten(1, 2)
        return torch.baddbmm(x, attention.mT, blocks)
