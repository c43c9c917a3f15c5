r"""Spectral convolution: a linear map of channels that is diagonal in wavenumber, in any number of dimensions."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from operators.layers.fourier import analyse, kept_wavenumbers, synthesise
from operators.layers.precision import in_single_precision
from operators.layers.spectral_weights import spectral_weight


class SpectralConvolution(nn.Module):
    r"""Convolution whose kernel is given by its low Fourier coefficients.

    .. math:: v(x) = s(x) + b + \sum_{k \in K} W_k^{\mathsf T} \hat u_k e^{2 \pi i k \cdot x}

    with ``K`` the kept wavenumbers (`operators.layers.fourier.kept_wavenumbers`), a complex matrix ``W_k`` for each,
    and a field ``s`` that the sum is accumulated onto. The same weights apply on any grid: wavenumbers a grid cannot
    represent are left out.

    Equal to neuraloperator's ``SpectralConv`` (2.0.0, ``fft_norm="forward"``) where that is sound. Two differences,
    both defects there: on axes with an odd number of points its spectrum is shifted by one wavenumber (it inverts
    ``fftshift`` by another ``fftshift``), and on axes whose kept modes exceed the points by an odd number weights meet
    the wrong wavenumbers.

    Parameters
    ----------
    in_channels, out_channels : int
    n_modes : sequence of int
        Fourier modes to keep of each axis, counted over negative and positive wavenumbers.
    factorization : {None, "tucker", "cp", "tt"}
        How the weights are stored; see `operators.layers.spectral_weights`.
    rank : float or sequence of int
        Of the factorisation: a fraction of the dense parameter count, or the ranks.
    separable : bool
        Whether ``W_k`` is diagonal: no channel meets another in the spectrum.

    Examples
    --------
    >>> convolution = SpectralConvolution(2, 3, n_modes=(4, 4))
    >>> convolution(torch.zeros(5, 8, 8, 2), onto=torch.zeros(5, 8, 8, 3)).shape
    torch.Size([5, 8, 8, 3])

    References
    ----------
    .. [1] Z. Li et al., Fourier neural operator for parametric partial differential equations, ICLR 2021,
       arXiv:2010.08895, section 4.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        n_modes: Sequence[int],
        factorization: str | None = None,
        rank: float | Sequence[int] = 1.0,
        separable: bool = False,
    ) -> None:
        super().__init__()
        if separable and in_channels != out_channels:
            raise ValueError(
                f"a separable convolution has as many outputs as inputs, got in_channels={in_channels} and "
                f"out_channels={out_channels}"
            )
        self.out_channels = out_channels
        self.separable = separable
        self.n_modes = tuple(n_modes)
        self.standard_deviation = math.sqrt(2.0 / (in_channels + out_channels))
        channels = (in_channels,) if separable else (in_channels, out_channels)
        shape = (*channels, *self.n_modes[:-1], self.n_modes[-1] // 2 + 1)
        self.weight = spectral_weight(shape, self.standard_deviation, factorization, rank)
        self.bias = nn.Parameter(self.standard_deviation * torch.randn(out_channels))

    @in_single_precision
    def forward(self, x: Tensor, onto: Tensor, overwrite: bool = False) -> Tensor:
        """Apply the convolution *without its bias* and add it to a field.

        The bias is left to the caller, who can add it in the product that makes `onto`.

        Parameters
        ----------
        x : Tensor, shape (batch, *grid, in_channels)
        onto : Tensor, shape (batch, *grid, out_channels)
        overwrite : bool
            Whether `onto` may become the result, see `synthesise`.

        Returns
        -------
        Tensor, shape (batch, *grid, out_channels)
        """
        grid = x.shape[1:-1]
        wavenumbers = kept_wavenumbers(grid, self.n_modes)
        # Stored weights start at wavenumber -(modes // 2), on the last axis at 0.
        origins = [*(m // 2 for m in self.n_modes[:-1]), 0]
        kept = [slice(k.start + origin, k.stop + origin) for k, origin in zip(wavenumbers, origins, strict=True)]

        # Transforms and products keep single precision at least: with fewer digits, large coefficients would hide the
        # small ones.
        precision = torch.promote_types(x.dtype, torch.float32)
        spectrum = analyse(x.to(precision), wavenumbers).transpose(0, 1)  # (modes, batch, in)
        if self.separable:
            spectrum = spectrum * self.weight.dense(kept).flatten(1).T[:, None]
        else:
            spectrum = self.weight(spectrum, kept)
        return synthesise(spectrum.transpose(0, 1), grid, wavenumbers, onto.to(precision), overwrite)
