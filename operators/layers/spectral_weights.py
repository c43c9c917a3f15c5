r"""Spectral weights: one complex matrix for each kept wavenumber, stored in full or as a factorised tensor.

Together the matrices are a tensor ``(in, out, modes_1, ..., modes_d)``, which is dense or one of [1]_

.. math::
    \text{Tucker:} \quad W_{i o k_1 \dots k_d} &= \sum_{a b r_1 \dots r_d}
        G_{a b r_1 \dots r_d}\, U_{i a}\, V_{o b}\, F^1_{k_1 r_1} \cdots F^d_{k_d r_d}, \\
    \text{CP:} \quad W_{i o k_1 \dots k_d} &= \sum_r \lambda_r\, U_{i r}\, V_{o r}\, F^1_{k_1 r} \cdots F^d_{k_d r}, \\
    \text{TT:} \quad W_{i o k_1 \dots k_d} &= \sum_{r_1 \dots r_{d+1}}
        U_{i r_1}\, V_{r_1 o r_2}\, F^1_{r_2 k_1 r_3} \cdots F^d_{r_{d+1} k_d}.

In each the matrix of one wavenumber is a product ``U M_k V``, by whose factors the channels can be multiplied one after
the other, without the matrix. Which is cheaper depends on the batch, and is decided by counting operations.

A *separable* weight has no axis `out`: every channel is multiplied by a number of its own for each wavenumber.

All are stored as real tensors whose last axis is (real, imaginary): gradients, optimizers and every sharding or
communication library treat those alike.

References
----------
.. [1] J. Kossaifi, N. Kovachki, K. Azizzadenesheli, A. Anandkumar, Multi-grid tensorized Fourier neural operator,
   TMLR 2024, arXiv:2310.00120, section 3.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from operators.devices import by_library
from operators.layers.recompute import recomputed
from operators.layers.tensor_ranks import cp_rank, tt_ranks, tucker_ranks


class _ModeProducts(torch.autograd.Function):
    """Products of rows and matrices that are strided in memory, each copied for the product and not kept.

    `torch.bmm` would copy them one after the other, which takes longer than the products of a small batch.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.bmm(x, weight.contiguous())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight = ctx.needs_input_grad
        return (
            torch.bmm(gradients[0], weight.contiguous().mH) if of_x else None,
            torch.bmm(x.mH, gradients[0]) if of_weight else None,
        )


def _multiply_modes(x: Tensor, dense: Tensor) -> Tensor:
    """Rows ``(modes, batch, in)`` times the matrix of each mode, of a weight ``(in, out, *modes)``."""
    weight = dense.flatten(2).permute(2, 0, 1)
    if by_library(x):
        return torch.bmm(x, weight)
    product: Tensor = _ModeProducts.apply(x, weight)
    return product


def _complex_normal(shape: Sequence[int], standard_deviation: float) -> nn.Parameter:
    """Circular complex normal numbers as a real tensor ``(*shape, 2)``; E|z|^2 = standard_deviation^2."""
    return nn.Parameter(torch.randn(*shape, 2) * (standard_deviation / math.sqrt(2.0)))


def _complex(parameters: Iterable[Tensor]) -> list[Tensor]:
    return [torch.view_as_complex(p) for p in parameters]


class DenseSpectralWeight(nn.Module):
    """One complex matrix (one number a channel, if separable) for each wavenumber, stored in full.

    Parameters
    ----------
    shape : sequence of int
        ``(in, out, modes_1, ..., modes_d)``, or ``(channels, modes_1, ..., modes_d)``.
    standard_deviation : float
        Of the initial entries.
    """

    def __init__(self, shape: Sequence[int], standard_deviation: float) -> None:
        super().__init__()
        self.tensor = _complex_normal(shape, standard_deviation)

    def dense(self, kept: Sequence[slice]) -> Tensor:
        """All entries of the kept wavenumbers.

        Parameters
        ----------
        kept : sequence of slice
            Which of the stored wavenumbers of each axis.

        Returns
        -------
        Tensor, shape (in, out, *kept) or (channels, *kept), complex
        """
        channels = [slice(None)] * (self.tensor.ndim - 1 - len(kept))
        return torch.view_as_complex(self.tensor)[*channels, *kept]

    def forward(self, x: Tensor, kept: Sequence[slice]) -> Tensor:
        """Multiply each wavenumber's channels by its matrix.

        Parameters
        ----------
        x : Tensor, shape (modes, batch, in), complex
        kept : sequence of slice
            Which of the stored wavenumbers of each axis `modes` are.

        Returns
        -------
        Tensor, shape (modes, batch, out), complex
        """
        return _multiply_modes(x, self.dense(kept))


def _by_factors(x: Tensor, factor_by_factor: int, reconstructed: int) -> bool:
    """Whether to send `x` through one factor after the other, which take so many multiplications, or both ways do.

    Elsewhere than on a CPU it is launches that count, and the weights are multiplied out. There is another reason: on
    an H200 with torch 2.11 a TFNO that went through its factors trained otherwise than on a CPU (losses 2e-3 apart in
    `benchmarks.gpu_smoke`), and an MG-TFNO, whose weights were multiplied out, did not. The cause was not found.
    """
    return x.device.type == "cpu" and factor_by_factor <= reconstructed


def _along_modes(core: Tensor, *factors: Tensor) -> Tensor:
    """Multiply a Tucker core by the factors of its modes; shape (wavenumbers, in rank, out rank)."""
    for factor in reversed(factors):  # each takes the last axis and puts its own first
        core = torch.tensordot(factor, core, dims=([1], [-1]))
    return core.flatten(0, -3)


class TuckerSpectralWeight(nn.Module):
    """A spectral weight in Tucker form: a small core, multiplied along every axis by a thin matrix.

    Parameters
    ----------
    shape : sequence of int
        Of the dense tensor it stands for; see `DenseSpectralWeight`.
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

    def dense(self, kept: Sequence[slice]) -> Tensor:
        """All entries of the kept wavenumbers; see `DenseSpectralWeight.dense`."""
        tensor = torch.view_as_complex(self.core)
        factors = _complex(self.factors)
        chosen = [slice(None)] * (len(factors) - len(kept)) + list(kept)
        for factor, rows in zip(factors, chosen, strict=True):  # each takes the first axis and puts its own last
            tensor = torch.tensordot(tensor, factor[rows], dims=([0], [1]))
        return tensor

    def forward(self, x: Tensor, kept: Sequence[slice]) -> Tensor:
        """Multiply each wavenumber's channels by its matrix; see `DenseSpectralWeight.forward`."""
        into, out, *modes = _complex(self.factors)
        modes = [factor[chosen] for factor, chosen in zip(modes, kept, strict=True)]
        core = torch.view_as_complex(self.core)
        # What is between core and result would be a third of the weight's memory.
        mix: Tensor = _along_modes(core, *modes) if by_library(x) else recomputed(_along_modes, core, *modes)
        rank_in, rank_out, channels_in, channels_out = into.shape[1], out.shape[1], len(into), len(out)
        # The same product in either order; a large batch pays for multiplying the weights out first.
        batch = x.shape[1]
        factor_by_factor = batch * (channels_in * rank_in + rank_in * rank_out + rank_out * channels_out)
        reconstructed = channels_in * rank_out * (rank_in + channels_out) + batch * channels_in * channels_out
        if _by_factors(x, factor_by_factor, reconstructed):
            return torch.bmm(x @ into, mix) @ out.T
        return torch.bmm(x, into @ mix @ out.T)


class CPSpectralWeight(nn.Module):
    """A spectral weight in CP form: a sum of outer products of one vector an axis.

    Parameters
    ----------
    shape : sequence of int
        Of the dense tensor it stands for; see `DenseSpectralWeight`.
    standard_deviation : float
        Of the initial dense entries.
    rank : float or sequence of one int
        See `cp_rank`.

    Examples
    --------
    >>> weight = CPSpectralWeight((32, 32, 16, 9), 1.0, rank=0.1)
    >>> sum(p.numel() for p in weight.parameters())
    29880
    """

    def __init__(self, shape: Sequence[int], standard_deviation: float, rank: float | Sequence[int]) -> None:
        super().__init__()
        terms = cp_rank(shape, rank)
        each = (standard_deviation / math.sqrt(terms)) ** (1.0 / len(shape))
        self.weights = nn.Parameter(torch.tensor([1.0, 0.0]).repeat(terms, 1))
        self.factors = nn.ParameterList(_complex_normal((i, terms), each) for i in shape)

    def _wavenumbers(self, kept: Sequence[slice]) -> Tensor:
        """Each term's number at each kept wavenumber, times its weight, ``(modes, terms)``."""
        product = torch.view_as_complex(self.weights)
        for factor, rows in zip(_complex(self.factors)[-len(kept) :], kept, strict=True):
            product = product[..., None, :] * factor[rows]
        return product.flatten(0, -2)

    def dense(self, kept: Sequence[slice]) -> Tensor:
        """All entries of the kept wavenumbers; see `DenseSpectralWeight.dense`."""
        first, *rest = _complex(self.factors)
        channels = first
        for factor in rest[: len(self.factors) - 1 - len(kept)]:
            channels = channels[..., None, :] * factor
        lengths = [len(range(*rows.indices(len(f)))) for f, rows in zip(rest[-len(kept) :], kept, strict=True)]
        return (channels @ self._wavenumbers(kept).T).unflatten(-1, lengths)

    def forward(self, x: Tensor, kept: Sequence[slice]) -> Tensor:
        """Multiply each wavenumber's channels by its matrix; see `DenseSpectralWeight.forward`."""
        into, out, *_ = _complex(self.factors)
        (channels_in, terms), channels_out, batch = into.shape, len(out), x.shape[1]
        factor_by_factor = batch * (channels_in + 1 + channels_out) * terms
        reconstructed = channels_in * channels_out * terms + batch * channels_in * channels_out
        if _by_factors(x, factor_by_factor, reconstructed):
            return (x @ into) * self._wavenumbers(kept)[:, None] @ out.T
        return _multiply_modes(x, self.dense(kept))


class TTSpectralWeight(nn.Module):
    """A spectral weight as a tensor train: a chain of one matrix for each index of each axis.

    Parameters
    ----------
    shape : sequence of int
        Of the dense tensor it stands for; see `DenseSpectralWeight`.
    standard_deviation : float
        As published, the initial dense entries have it divided by the root of the ranks' product.
    rank : float or sequence of int
        See `tt_ranks`.

    Examples
    --------
    >>> weight = TTSpectralWeight((32, 32, 16, 9), 1.0, rank=0.1)
    >>> sum(p.numel() for p in weight.parameters())
    30402
    """

    def __init__(self, shape: Sequence[int], standard_deviation: float, rank: float | Sequence[int]) -> None:
        super().__init__()
        ranks = tt_ranks(shape, rank)
        each = (standard_deviation / math.prod(ranks)) ** (1.0 / len(shape))
        self.factors = nn.ParameterList(
            _complex_normal((left, i, right), each) for left, i, right in zip(ranks[:-1], shape, ranks[1:], strict=True)
        )

    def _chain(self, kept: Sequence[slice], first: int) -> Tensor:
        """Product of the factors from one of them to the last; shape (rank before it, *axes)."""
        factors = _complex(self.factors)
        rows = [slice(None)] * (len(factors) - len(kept)) + list(kept)
        chain = torch.ones(1, dtype=factors[0].dtype, device=factors[0].device)
        for factor, chosen in reversed(list(zip(factors, rows, strict=True))[first:]):
            chain = torch.tensordot(factor[:, chosen], chain, dims=([2], [0]))
        return chain

    def dense(self, kept: Sequence[slice]) -> Tensor:
        """All entries of the kept wavenumbers; see `DenseSpectralWeight.dense`."""
        return self._chain(kept, 0)[0]

    def forward(self, x: Tensor, kept: Sequence[slice]) -> Tensor:
        """Multiply each wavenumber's channels by its matrix; see `DenseSpectralWeight.forward`."""
        into = torch.view_as_complex(self.factors[0])[0]
        mixed = self._chain(kept, 1)  # (rank, out, wavenumbers)
        (channels_in, rank), channels_out, batch = into.shape, mixed.shape[1], x.shape[1]
        mix = mixed.flatten(2).permute(2, 0, 1).contiguous()
        factor_by_factor = batch * (channels_in + channels_out) * rank
        reconstructed = channels_in * rank * channels_out + batch * channels_in * channels_out
        if _by_factors(x, factor_by_factor, reconstructed):
            return torch.bmm(x @ into, mix)
        return torch.bmm(x, into @ mix)


SpectralWeight = DenseSpectralWeight | TuckerSpectralWeight | CPSpectralWeight | TTSpectralWeight


def spectral_weight(
    shape: Sequence[int], standard_deviation: float, factorization: str | None, rank: float | Sequence[int]
) -> SpectralWeight:
    """Spectral weight of a named form.

    Parameters
    ----------
    shape : sequence of int
        ``(in, out, modes_1, ..., modes_d)``, or ``(channels, modes_1, ..., modes_d)`` for a separable one.
    standard_deviation : float
        Of the initial entries.
    factorization : {None, "dense", "tucker", "cp", "tt"}
        In capitals or not.
    rank : float or sequence of int
        Of the factorisation: a fraction of the dense parameter count, or the ranks.

    Raises
    ------
    ValueError
        If the form is unknown or the rank does not fit.
    """
    match (factorization or "dense").lower():
        case "dense":
            return DenseSpectralWeight(shape, standard_deviation)
        case "tucker":
            return TuckerSpectralWeight(shape, standard_deviation, rank)
        case "cp":
            return CPSpectralWeight(shape, standard_deviation, rank)
        case "tt":
            return TTSpectralWeight(shape, standard_deviation, rank)
    raise ValueError(f"factorization must be null, 'dense', 'tucker', 'cp' or 'tt', got {factorization!r}")
