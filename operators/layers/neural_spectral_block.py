r"""The neural spectral block of latent spectral models: a few tokens for each patch, and a sine series on each token.

A field is cut into patches, and each patch ``x`` (points by channels) is worked on by itself. For each of ``H`` heads,
which have ``c / H`` channels each, with learned tokens ``L`` [1]_:

.. math:: T &= L + \operatorname{softmax}(L K^{\mathsf T})\, V, \qquad K = x W_K + b_K,\ V = x W_V + b_V, \\
          T_i &\leftarrow T_i + \sum_{k=0}^{n-1} \bigl[ w_{i, k} \sin(\pi \tfrac kn T_i)
                 + w_{i, n + k} \cos(\pi \tfrac kn T_i) \bigr], \\
          x &\leftarrow x + \operatorname{softmax}(Q T^{\mathsf T})\, T, \qquad Q = x W_Q + b_Q.

As published, attention is not scaled by the root of the channels, frequencies are ``k / n`` and not whole numbers, and
so the first sine is zero and the first cosine constant.

Keys, values and queries are never formed: as the products associate, ``L K^T`` is ``(L W_K^T) x^T`` up to a constant
that the softmax ignores, ``A V`` is ``(A x) W_V + b_V`` as the rows of ``A`` sum to one, and ``Q T^T`` is
``x (W_Q T^T) + b_Q T^T``. Every product over the points of a patch has then ``H`` times as many columns as there are
tokens, whatever the channels.

References
----------
.. [1] H. Wu, T. Hu, H. Luo, J. Wang, M. Long, Solving high-dimensional PDEs with latent spectral models, ICML 2023,
   arXiv:2301.12664, section 3.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from operators.layers.by_dimension import CONVOLUTION


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
    """Put the patches of `to_patches` together again; shape ``(batch, channels, *grid)``."""
    d, channels = len(grid), patches.shape[-1]
    x = patches.reshape(-1, *(n // p for n, p in zip(grid, patch, strict=True)), *patch, channels)
    x = x.permute(
        0, *(axis for pair in zip(range(1, d + 1), range(d + 1, 2 * d + 1), strict=True) for axis in pair), -1
    )
    return x.reshape(-1, *grid, channels).movedim(-1, 1)


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
        patches = to_patches(x, patch)
        tokens = self._encode(patches)
        tokens = tokens + self._series(tokens)
        return from_patches(self._decode(patches, tokens), patch, x.shape[2:])

    def _encode(self, x: Tensor) -> Tensor:
        """Tokens ``(patches, heads, tokens, channels / heads)`` of patches ``(patches, points, channels)``."""
        heads, tokens, _ = self.latent.shape
        # Keys and values alternate among the output channels.
        weight = self.encoder_attn.weight.reshape(heads, -1, 2, x.shape[-1])
        key, value = weight.unbind(2)
        assert self.encoder_attn.bias is not None
        value_bias = self.encoder_attn.bias.reshape(heads, 1, -1, 2)[..., 1]
        query = torch.einsum("htj,hjc->htc", self.latent, key).flatten(0, 1)
        attention = (x @ query.T).softmax(dim=1)  # over the points
        gathered = torch.bmm(attention.mT, x).unflatten(1, (heads, tokens))
        return self.latent + value_bias + torch.einsum("phtc,hjc->phtj", gathered, value)

    def _series(self, tokens: Tensor) -> Tensor:
        heads, _, channels = self.latent.shape
        n = self.weights.shape[1] // 2
        frequencies = torch.arange(n, dtype=tokens.dtype, device=tokens.device) * (math.pi / n)
        sine, cosine = self.weights.reshape(heads, 1, channels, 2, n).unbind(3)
        angle = tokens[..., None] * frequencies
        return (angle.sin() * sine + angle.cos() * cosine).sum(dim=-1)

    def _decode(self, x: Tensor, tokens: Tensor) -> Tensor:
        heads, count, channels = self.latent.shape
        weight = self.decoder_attn.weight.reshape(heads, channels, -1)
        assert self.decoder_attn.bias is not None
        matrix = torch.einsum("phtj,hjc->phtc", tokens, weight).flatten(1, 2)
        offset = (tokens * self.decoder_attn.bias.reshape(heads, 1, channels)).sum(-1).flatten(1)[:, None]
        scores = torch.baddbmm(offset, x, matrix.mT)  # (patches, points, heads * tokens)
        attention = scores.unflatten(-1, (heads, count)).softmax(dim=-1).flatten(2)
        # A head's attention meets that head's tokens only: a block diagonal matrix, as one product is faster than many.
        own = torch.eye(heads, dtype=x.dtype, device=x.device)[:, None, :, None]
        blocks = (tokens[:, :, :, None] * own).reshape(len(x), heads * count, heads * channels)
        return torch.baddbmm(x, attention, blocks)
