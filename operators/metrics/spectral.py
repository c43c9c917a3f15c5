r"""Errors by wavenumber: how much of the error is in long waves, how much in short ones.

A field is expanded in waves ``exp(2 pi i k . x)`` with k in cycles over the length of each axis. Along an axis that is
not periodic it is first mirrored at its upper end (`x` and then `x` backwards, the extension of the cosine transform):
the ends then meet, no jump leaks into short waves, and wavenumbers along that axis come in halves. The mean square is
the same before and after, so that by Parseval's identity

    mean_x e^2 = sum_k |e_k|^2,    e_k = 1/N sum_x e(x) exp(-2 pi i k . x),

and the squares of the errors of all bands add up to the mean squared error, on every grid and in every dimension.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from operators.metrics.fields import Periodic, defined

LOW, HIGH = 4, 12
"""Where PDEBench parts low, middle and high wavenumbers."""


def spectrum(field: Tensor, periodic: Sequence[bool] | None = None) -> Tensor:
    r"""Mean square of a field by the integer part of the wavenumber.

    .. math:: E_m = \sum_{m \le |k| < m + 1} |\hat y_k|^2, \qquad \sum_m E_m = \tfrac1N \textstyle\sum_x y(x)^2

    Parameters
    ----------
    field : Tensor, shape (samples, channels, \*grid)
    periodic : sequence of bool, optional
        One an axis; an axis that is not periodic is mirrored. None is periodic if left out.

    Returns
    -------
    Tensor, shape (samples, channels, shells)
        As many shells as there are wavenumbers on the grid, corners included: ``|k|`` up to ``sqrt(sum (n/2)^2)``.

    Examples
    --------
    >>> x = torch.arange(16) / 16
    >>> wave = 3 * torch.cos(2 * torch.pi * 2 * x)[None, None]
    >>> spectrum(wave, (True,)).round(decimals=3)  # 3^2 / 2 at k = 2
    tensor([[[0.0000, 0.0000, 4.5000, ...]]])
    """
    axes = tuple(range(2, field.ndim))
    joined = [False] * len(axes) if periodic is None else list(periodic)
    square = torch.zeros((), dtype=torch.float64, device=field.device)
    for axis, is_joined in zip(axes, joined, strict=True):
        points = field.shape[axis]
        if not is_joined:
            field = torch.cat([field, field.flip(axis)], dim=axis)
        cycles = torch.fft.fftfreq(field.shape[axis], 1 / points, dtype=torch.float64, device=field.device)
        square = square[..., None] + cycles.square()
    # Rounding must not put |k| = 5 of k = (3, 4) into shell 4.
    shell = (square.sqrt() + 1e-9).floor().long().flatten()
    energy = torch.fft.fftn(field, dim=axes, norm="forward").abs().square().flatten(2)
    shells = torch.zeros(*energy.shape[:2], int(shell.max()) + 1, dtype=energy.dtype, device=energy.device)
    return shells.index_add_(2, shell, energy)


def _band(prediction: Tensor, target: Tensor, periodic: Periodic, first: int, end: float) -> Tensor:
    shells = spectrum(prediction - target, periodic)
    return shells[..., first : min(shells.shape[-1], end) if math.isfinite(end) else None].sum(dim=-1).sqrt()


_SAYS = "sqrt(sum over {} of |p_k - y_k|^2), k in cycles a length, axes that are not periodic mirrored"


@defined("spectral_low", _SAYS.format(f"|k| < {LOW}"))
def spectral_low(prediction: Tensor, target: Tensor, periodic: Periodic = None) -> Tensor:
    r"""RMSE in wavenumbers below 4.

    .. math:: \Bigl( \sum_{|k| < 4} |\hat p_k - \hat y_k|^2 \Bigr)^{1/2}

    In the fields' units; the squares of the low, middle and high part add up to the mean squared error. PDEBench has
    the same bands, but averages over the shells of a band and, in two dimensions, sums over one quadrant: its numbers
    are others, and mostly smaller.

    Parameters
    ----------
    prediction, target : Tensor, shape (samples, channels, *grid)
    periodic : sequence of bool, optional
        Of each grid axis; none of them if left out.

    Examples
    --------
    >>> wave = torch.cos(2 * torch.pi * 3 * torch.arange(32) / 32)[None, None]
    >>> spectral_low(wave, 0 * wave, (True,)), spectral_middle(wave, 0 * wave, (True,)).round(decimals=3)
    (tensor([[0.7071]]), tensor([[0.]]))
    """
    return _band(prediction, target, periodic, 0, LOW)


@defined("spectral_middle", _SAYS.format(f"{LOW} <= |k| < {HIGH}"))
def spectral_middle(prediction: Tensor, target: Tensor, periodic: Periodic = None) -> Tensor:
    """RMSE in wavenumbers from 4 to below 12: see `spectral_low`.

    Parameters
    ----------
    prediction, target : Tensor, shape (samples, channels, *grid)
    periodic : sequence of bool, optional
        Of each grid axis; none of them if left out.
    """
    return _band(prediction, target, periodic, LOW, HIGH)


@defined("spectral_high", _SAYS.format(f"|k| >= {HIGH}"))
def spectral_high(prediction: Tensor, target: Tensor, periodic: Periodic = None) -> Tensor:
    """RMSE in wavenumbers from 12 on: see `spectral_low`. Zero on a grid that has none.

    Parameters
    ----------
    prediction, target : Tensor, shape (samples, channels, *grid)
    periodic : sequence of bool, optional
        Of each grid axis; none of them if left out.
    """
    return _band(prediction, target, periodic, HIGH, math.inf)
