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
to as many as there are tokens. The bias of the values is that of the tokens, as weights of attention add up to 1.

Patches are along the last axis throughout, ``(heads, ..., points of a patch, patches)``: a patch's matrices are 4 x 16
numbers or so, for which no library multiplies fast, but a multiplication of one of their entries is one of thousands.

References
----------
.. [1] H. Wu, T. Hu, H. Luo, J. Wang, M. Long, Solving high-dimensional PDEs with latent spectral models, ICML 2023,
   arXiv:2301.12664, section 3.
"""

import math
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from operators.devices import by_library
from operators.layers.by_dimension import CONVOLUTION
from operators.layers.channel_linear import channel_linear

# Below, torch's products of one small matrix after the other are as fast.
_FEWEST_MATRICES = 8
# From here on a product by oneDNN and a transposition are faster than MKL's product of transposed rows.
_MANY_CHANNELS = 64


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
    Tensor, shape (points, patches, channels)
        Points of a patch, and the patches of all fields.

    Examples
    --------
    >>> to_patches(torch.arange(8.0).reshape(1, 1, 2, 4), (2, 2))[..., 0].T
    tensor([[0., 1., 4., 5.],
            [2., 3., 6., 7.]])
    """
    batch, channels, *grid = x.shape
    d = len(grid)
    split = [size for n, p in zip(grid, patch, strict=True) for size in (n // p, p)]
    x = x.movedim(1, -1).reshape(batch, *split, channels)
    x = x.permute(*range(2, 2 * d + 1, 2), 0, *range(1, 2 * d, 2), 2 * d + 1)
    return x.reshape(math.prod(patch), -1, channels)


def from_patches(patches: Tensor, patch: Sequence[int], grid: Sequence[int]) -> Tensor:
    """Put the patches of `to_patches` together again; shape ``(batch, channels, *grid)``.

    Parameters
    ----------
    patches : Tensor, shape (points, patches, channels) or (points * patches, channels)
        As `to_patches` returns them.
    patch, grid : sequence of int
        Points per axis of a patch, and of the whole.
    """
    d, channels = len(grid), patches.shape[-1]
    x = patches.reshape(*patch, -1, *(n // p for n, p in zip(grid, patch, strict=True)), channels)
    x = x.permute(d, *(axis for pair in zip(range(d + 1, 2 * d + 1), range(d), strict=True) for axis in pair), -1)
    return x.reshape(-1, *grid, channels).movedim(-1, 1)


class _Projections(torch.autograd.Function):
    """Several maps of the same rows; their gradients are added up in one array."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(rows, *weights)
        return tuple(channel_linear(weight, rows) for weight in weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, *weights = ctx.saved_tensors
        if rows.shape[1] < _MANY_CHANNELS:
            by_rows = gradients[0].t() @ weights[0]
            for gradient, weight in zip(gradients[1:], weights[1:], strict=True):
                by_rows.addmm_(gradient.t(), weight)
        else:
            products = (channel_linear(w.t(), g.t()) for g, w in zip(gradients, weights, strict=True))
            by_rows = reduce(Tensor.add_, products).t().contiguous()
        return by_rows, *(channel_linear(gradient, rows.t()) for gradient in gradients)


def project(rows: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
    """Map the channels of rows by several matrices.

    Parameters
    ----------
    rows : Tensor, shape (n, channels)
    *weights : Tensor, shape (m_i, channels)

    Returns
    -------
    tuple of Tensor, shape (m_i, n)
        ``weights[i] @ rows.T``.

    Examples
    --------
    >>> project(torch.ones(5, 2), torch.eye(2), torch.ones(3, 2))[1].shape
    torch.Size([3, 5])
    """
    if by_library(rows):
        return tuple(weight @ rows.t() for weight in weights)
    result: tuple[Tensor, ...] = _Projections.apply(rows, *weights)
    return result


class _Products(torch.autograd.Function):
    """Products of many small matrices, an entry of all at a time."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, onto: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.shape = onto.shape
        product = torch.addcmul(onto, a[:, :, 0, None], b[:, None, 0])
        for k in range(1, a.shape[2]):
            product.addcmul_(a[:, :, k, None], b[:, None, k])
        return product

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        a, b = ctx.saved_tensors
        of_a, of_b, of_onto = ctx.needs_input_grad
        return (
            _product_laid_as(a, gradient, b.transpose(1, 2)) if of_a else None,
            _product_laid_as(b, a.transpose(1, 2), gradient) if of_b else None,
            gradient.sum_to_size(ctx.shape) if of_onto else None,
        )


def _product_laid_as(like: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Their product, transposed in memory where `like` is: a gradient of another layout would have to be copied."""
    if like.stride(1) < like.stride(2):
        return multiply_last(b.transpose(1, 2), a.transpose(1, 2)).transpose(1, 2)
    return multiply_last(a, b)


def multiply_last(a: Tensor, b: Tensor, onto: Tensor | None = None) -> Tensor:
    """Multiply matrices that lie beside each other on the last axis, and add.

    Parameters
    ----------
    a : Tensor, shape (heads, i, k, n)
    b : Tensor, shape (heads, k, j, n)
    onto : Tensor, broadcast to the result; optional

    Returns
    -------
    Tensor, shape (heads, i, j, n)

    Examples
    --------
    >>> multiply_last(torch.ones(2, 3, 4, 5), torch.ones(2, 4, 1, 5)).shape
    torch.Size([2, 3, 1, 5])
    """
    if by_library(a) or a.shape[-1] < _FEWEST_MATRICES:
        product = torch.einsum("hikn,hkjn->hijn", a, b)
        return product if onto is None else product + onto
    result: Tensor = _Products.apply(a, b, a.new_zeros(()) if onto is None else onto)
    return result


class _AddTransposed(torch.autograd.Function):
    """``rows + columns.T`` by a product with the identity, which takes a third of torch's time for such a sum."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, columns: Tensor) -> Tensor:
        return torch.addmm(rows, columns.t(), torch.eye(len(columns), dtype=rows.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        gradient = gradients[0].contiguous()
        return gradient, channel_linear(torch.eye(gradient.shape[1], dtype=gradient.dtype), gradient)


def _add_transposed(rows: Tensor, columns: Tensor) -> Tensor:
    if by_library(rows):
        return rows + columns.t()
    result: Tensor = _AddTransposed.apply(rows, columns)
    return result


class _TrigonometricSeries(torch.autograd.Function):
    """The series, its derivative and its gradient with terms made one after the other by turning the angle.

    All terms at once would be arrays of ``2 n`` times the size of the tokens; this way it is a few of their size.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, weights: Tensor) -> Tensor:
        n = weights.shape[-1] // 2
        sines, cosines = weights[..., None, :n], weights[..., None, n:]
        value = cosines[..., 0].expand_as(z).clone()
        derivative = torch.zeros_like(z)
        for k, sine, cosine in _turns(z, n):
            value.addcmul_(sine, sines[..., k]).addcmul_(cosine, cosines[..., k])
            derivative.addcmul_(cosine, k * sines[..., k]).addcmul_(sine, k * cosines[..., k], value=-1.0)
        ctx.save_for_backward(z, derivative.mul_(math.pi / n))
        ctx.n, ctx.shape = n, weights.shape
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        z, derivative = ctx.saved_tensors
        n = ctx.n
        by_weights = torch.zeros(ctx.shape, dtype=z.dtype, device=z.device)
        shape = ctx.shape[:-1]
        by_weights[..., n] = gradient.sum(-1).sum_to_size(shape)
        for k, sine, cosine in _turns(z, n):
            by_weights[..., k] = (gradient * sine).sum(-1).sum_to_size(shape)
            by_weights[..., n + k] = (gradient * cosine).sum(-1).sum_to_size(shape)
        return gradient * derivative, by_weights


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
    z : Tensor, shape (*shape, patches)
    weights : Tensor, shape (*shape or 1, 2 n)

    Returns
    -------
    Tensor, shape of z

    Examples
    --------
    >>> trigonometric_series(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 1.0, 0.0, 0.0]]))  # sin(pi z / 2)
    tensor([[0., 1.]])
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
        points, number, width = patches.shape
        rows = patches.reshape(-1, width)
        # Keys and values alternate among the output channels.
        key, value = self.encoder_attn.weight.reshape(heads, channels, 2, -1).unbind(2)
        assert self.encoder_attn.bias is not None
        assert self.decoder_attn.bias is not None
        value_bias = self.encoder_attn.bias.reshape(heads, channels, 2)[..., 1]
        latent_keys = torch.einsum("htj,hjc->htc", self.latent, key).flatten(0, 1)
        weights = latent_keys, value.flatten(0, 1), self.decoder_attn.weight.flatten(1)
        logits, values, queries = (
            each.view(heads, -1, points, number) for each in project(rows, *weights)
        )  # of (tokens | channels | channels) of each head

        attention = logits.softmax(dim=2)  # over the points
        tokens = multiply_last(attention, values.transpose(1, 2), (self.latent + value_bias[:, None])[..., None])
        tokens = tokens + trigonometric_series(tokens, self.weights.reshape(heads, 1, channels, -1))

        query_bias = self.decoder_attn.bias.view(heads, 1, channels, 1)
        attention = multiply_last(tokens, queries, (tokens * query_bias).sum(2, keepdim=True)).softmax(dim=1)  # tokens
        back = multiply_last(tokens.transpose(1, 2), attention).reshape(width, -1)
        return from_patches(_add_transposed(rows, back), patch, x.shape[2:])
