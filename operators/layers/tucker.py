r"""Spectral weights: dense, and factorised after Tucker.

A spectral convolution has one complex matrix for each kept wavenumber: a tensor ``(in, out, modes_1, ..., modes_d)``.
Tucker's form [1]_ writes it as a small core multiplied along every axis by a thin matrix,

.. math:: W_{i o k_1 \dots k_d} = \sum_{a b r_1 \dots r_d}
          G_{a b r_1 \dots r_d}\, U_{i a}\, V_{o b}\, F^1_{k_1 r_1} \cdots F^d_{k_d r_d}.

All are stored as real tensors whose last axis is (real, imaginary): gradients, optimizers and every sharding or
communication library treat those alike.

References
----------
.. [1] J. Kossaifi, N. Kovachki, K. Azizzadenesheli, A. Anandkumar, Multi-grid tensorized Fourier neural operator,
   TMLR 2024, arXiv:2310.00120, section 3.
"""

import math
from collections.abc import Sequence

import torch
from scipy.optimize import brentq
from torch import Tensor, nn


def tucker_ranks(shape: Sequence[int], rank: float | Sequence[int]) -> tuple[int, ...]:
    r"""Rank of each axis such that the factorised tensor has about ``rank`` times the dense number of parameters.

    All ranks are the same fraction ``c`` of their axis, with (tensorly's rule)

    .. math:: c^n \prod_k I_k + c \sum_k I_k^2 = \mathrm{rank} \prod_k I_k,

    rounded, and at least 1.

    Parameters
    ----------
    shape : sequence of int
        The dense tensor's shape ``I``.
    rank : float in (0, 1], or sequence of int
        Fraction of the dense parameter count, or the ranks themselves.

    Raises
    ------
    ValueError
        If the fraction is outside (0, 1], or ranks do not fit the shape.

    Examples
    --------
    >>> tucker_ranks((32, 32, 16, 9), 0.1)
    (18, 18, 9, 5)
    """
    if isinstance(rank, Sequence):
        if len(rank) != len(shape) or any(not 1 <= r <= i for r, i in zip(rank, shape, strict=False)):
            raise ValueError(
                f"rank={list(rank)} does not fit the weight's shape {tuple(shape)}: give one rank an axis, "
                "between 1 and its length, or one fraction in (0, 1]"
            )
        return tuple(int(r) for r in rank)
    if not 0.0 < rank <= 1.0:
        raise ValueError(f"rank must be a fraction of the dense parameter count in (0, 1], got {rank}")
    dense = math.prod(shape)
    factors = sum(i**2 for i in shape)
    fraction = brentq(lambda c: c ** len(shape) * dense + c * factors - rank * dense, 0.0, 1.0)
    return tuple(max(1, round(fraction * i)) for i in shape)


def multiplication_blocks(weight: Tensor) -> Tensor:
    """Complex matrices as real ones that multiply rows (real parts, imaginary parts) from the right.

    A homomorphism: the block of a product is the product of the blocks.

    Parameters
    ----------
    weight : Tensor, shape (..., in, out), complex

    Returns
    -------
    Tensor, shape (..., 2 in, 2 out), real
    """
    real, imaginary = weight.real, weight.imag
    return torch.cat([torch.cat([real, imaginary], dim=-1), torch.cat([-imaginary, real], dim=-1)], dim=-2)


def _complex_normal(shape: Sequence[int], standard_deviation: float) -> nn.Parameter:
    """Circular complex normal numbers as a real tensor ``(*shape, 2)``; E|z|^2 = standard_deviation^2."""
    return nn.Parameter(torch.randn(*shape, 2) * (standard_deviation / math.sqrt(2.0)))


class DenseSpectralWeight(nn.Module):
    """One complex matrix for each wavenumber, stored in full.

    Parameters
    ----------
    shape : sequence of int
        ``(in, out, modes_1, ..., modes_d)``.
    standard_deviation : float
        Of the initial entries.
    """

    def __init__(self, shape: Sequence[int], standard_deviation: float) -> None:
        super().__init__()
        self.tensor = _complex_normal(shape, standard_deviation)

    def forward(self, x: Tensor, kept: Sequence[slice]) -> Tensor:
        """Multiply each wavenumber's channels by its matrix.

        Parameters
        ----------
        x : Tensor, shape (modes, batch, 2 in)
            Real parts, then imaginary parts.
        kept : sequence of slice
            Which of the stored wavenumbers of each axis `modes` are.

        Returns
        -------
        Tensor, shape (modes, batch, 2 out)
        """
        weight = torch.view_as_complex(self.tensor)[:, :, *kept]
        return torch.bmm(x, multiplication_blocks(weight.flatten(2).permute(2, 0, 1)))


class TuckerSpectralWeight(nn.Module):
    """One complex matrix for each wavenumber, in Tucker form.

    Parameters
    ----------
    shape : sequence of int
        ``(in, out, modes_1, ..., modes_d)`` of the dense tensor it stands for.
    standard_deviation : float
        Of the initial dense entries: core and factors are drawn so that their product has it.
    rank : float or sequence of int
        See `tucker_ranks`.

    Examples
    --------
    >>> weight = TuckerSpectralWeight((32, 32, 16, 9), 1.0, rank=0.1)
    >>> sum(p.numel() for p in weight.parameters()), 2 * 32 * 32 * 16 * 9
    (31842, 294912)
    """

    def __init__(self, shape: Sequence[int], standard_deviation: float, rank: float | Sequence[int]) -> None:
        super().__init__()
        ranks = tucker_ranks(shape, rank)
        # A dense entry is a sum of prod(ranks) products of order + 1 independent numbers.
        each = (standard_deviation / math.sqrt(math.prod(ranks))) ** (1.0 / (len(shape) + 1))
        self.core = _complex_normal(ranks, each)
        self.factors = nn.ParameterList(_complex_normal((i, r), each) for i, r in zip(shape, ranks, strict=True))

    def forward(self, x: Tensor, kept: Sequence[slice]) -> Tensor:
        """Multiply each wavenumber's channels by its matrix; see `DenseSpectralWeight.forward`."""
        into, out, *modes = (torch.view_as_complex(factor) for factor in self.factors)
        core = torch.view_as_complex(self.core)
        for factor, chosen in zip(modes, kept, strict=True):
            core = torch.tensordot(core, factor[chosen], dims=([2], [1]))  # (in rank, out rank, ..., wavenumbers)
        rank_in, rank_out, channels_in, channels_out = into.shape[1], out.shape[1], len(into), len(out)
        encode = multiplication_blocks(into)
        mix = multiplication_blocks(core.flatten(2).permute(2, 0, 1))
        decode = multiplication_blocks(out.T)
        # The same product in either order; a large batch pays for multiplying the weights out first.
        batch = x.shape[1]
        factor_by_factor = batch * (channels_in * rank_in + rank_in * rank_out + rank_out * channels_out)
        reconstructed = channels_in * rank_out * (rank_in + channels_out) + batch * channels_in * channels_out
        if factor_by_factor <= reconstructed:
            return torch.bmm(x @ encode, mix) @ decode
        return torch.bmm(x, encode @ mix @ decode)
