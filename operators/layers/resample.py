r"""Band-limited resampling of periodic fields.

A field on ``n`` points is the trigonometric polynomial :math:`\sum_k \hat u_k e^{2 \pi i k x}` with
:math:`-\lfloor n / 2 \rfloor \le k < \lceil n / 2 \rceil`; on ``m`` points it is that polynomial at the new points,
without the wavenumbers that ``m`` points cannot represent.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def fourier_resample(x: Tensor, grid: Sequence[int]) -> Tensor:
    """Resample the last axes of real fields to another number of points.

    Each axis may become finer or coarser by itself. For even numbers of points this is the function of the official
    scOT (which has only square grids, and for odd numbers drops or shifts wavenumbers).

    Parameters
    ----------
    x : Tensor, shape (..., *points)
        Samples at ``j / n`` of each axis.
    grid : sequence of int
        Points of each of the last axes.

    Returns
    -------
    Tensor, shape (..., *grid)

    Examples
    --------
    >>> x = torch.arange(8) / 8
    >>> wave = torch.sin(2 * torch.pi * x)
    >>> torch.allclose(fourier_resample(wave, [4]), wave[::2], atol=1e-6)
    True
    """
    axes = range(-len(grid), 0)
    if tuple(x.shape[-len(grid) :]) == tuple(grid):
        return x
    # Half precision has no transforms.
    spectrum = torch.fft.fftn(x if x.dtype == torch.float64 else x.float(), dim=tuple(axes), norm="forward")
    for axis, m in zip(axes, grid, strict=True):
        n = spectrum.shape[axis]
        kept = min(n, m)
        low, high = spectrum.narrow(axis, 0, (kept + 1) // 2), spectrum.narrow(axis, n - kept // 2, kept // 2)
        shape = list(spectrum.shape)
        shape[axis] = m - kept
        spectrum = torch.cat([low, spectrum.new_zeros(shape), high], dim=axis)
    return torch.fft.ifftn(spectrum, dim=tuple(axes), norm="forward").real.to(x.dtype)
