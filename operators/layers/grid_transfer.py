"""Between a grid and one with every so many of its points, in any number of dimensions: multigrid's transfers."""

from collections.abc import Sequence

import torch
from torch import Tensor

from operators.layers.boundary import check_boundary
from operators.layers.resample import fourier_resample


def restrict(x: Tensor, factor: int, boundary: str) -> Tensor:
    """Fields on a grid that has every ``factor``-th point of each axis.

    Periodic fields lose the waves that the coarse grid cannot carry first; others are sampled as they are.

    Parameters
    ----------
    x : Tensor, shape (batch, channels, *grid)
        Every axis a multiple of `factor`.
    factor : int
    boundary : {"periodic", "replicate", "zero"}
        How fields go on beyond the grid.

    Returns
    -------
    Tensor, shape (batch, channels, *grid / factor)

    Examples
    --------
    >>> restrict(torch.arange(8.0).reshape(1, 1, 8), 4, "replicate")
    tensor([[[0., 4.]]])
    """
    check_boundary(boundary)
    if boundary == "periodic":
        return fourier_resample(x, [n // factor for n in x.shape[2:]])
    return x[:, :, *(slice(None, None, factor) for _ in x.shape[2:])]


def prolong(x: Tensor, grid: Sequence[int], boundary: str) -> Tensor:
    """Fields of a grid that `restrict` made, back on the finer one: by their waves, or linearly along each axis.

    Parameters
    ----------
    x : Tensor, shape (batch, channels, *coarse grid)
    grid : sequence of int
        The finer one, a multiple of the coarse one in every axis.
    boundary : {"periodic", "replicate", "zero"}
        Beyond the last coarse point the field goes on by its value there ("replicate"), or falls to zero by the next
        ("zero").

    Returns
    -------
    Tensor, shape (batch, channels, *grid)

    Examples
    --------
    >>> prolong(torch.tensor([[[0.0, 4.0]]]), [8], "replicate")
    tensor([[[0., 1., 2., 3., 4., 4., 4., 4.]]])
    """
    check_boundary(boundary)
    if boundary == "periodic":
        return fourier_resample(x, grid)
    for axis, n in enumerate(grid, start=2):
        coarse = x.shape[axis]
        place = torch.arange(n, device=x.device) * coarse / n
        left = place.floor().long()
        weight = (place - left).to(x.dtype).reshape(-1, *[1] * (x.ndim - 1 - axis))
        last = torch.zeros_like(x.narrow(axis, 0, 1)) if boundary == "zero" else x.narrow(axis, coarse - 1, 1)
        x = torch.cat([x, last], dim=axis)
        x = torch.lerp(x.index_select(axis, left), x.index_select(axis, left + 1), weight)
    return x
