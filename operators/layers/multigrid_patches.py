r"""Multigrid domain decomposition: a field cut into patches that see their surroundings, coarser the farther away.

With ``L`` levels an axis of ``N`` points is cut into ``2^L`` patches of ``p = N / 2^L``, and each patch is widened by
``w`` points on both sides. Level ``l`` shows the same number of points, ``2^l`` times as far apart, about the same
centre: patch ``i`` sees the points

.. math:: i\,p + 2^l \bigl(j - w - \lceil \tfrac12 (p - p / 2^l) \rceil \bigr), \qquad 0 \le j < p + 2 w,

of every level, as channels [1]_. Beyond the ends a field goes on periodically, by its edge values or by zeros, as the
boundary conditions of its PDE ask for. Level ``L`` shows as much as the whole axis: all of it where it is periodic;
otherwise a patch in the middle sees all, and one at an end the nearer half.

References
----------
.. [1] J. Kossaifi, N. Kovachki, K. Azizzadenesheli, A. Anandkumar, Multi-grid tensorized Fourier neural operator,
   TMLR 2024, arXiv:2310.00120, section 3.2.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from operators.layers.boundary import check_boundary


def _points(points: int, levels: int, width: int, level: int, device: torch.device) -> Tensor:
    """Places on an axis, some beyond its ends, that each patch sees at a level: (patches, points of a patch)."""
    patches = 2**levels
    size = points // patches
    offset = width + math.ceil((size - size / 2**level) / 2)
    start = torch.arange(patches, device=device) * size
    return start[:, None] + 2**level * (torch.arange(size + 2 * width, device=device) - offset)


def patch_widths(grid: Sequence[int], padding_fraction: float) -> list[int]:
    """Points by which patches are widened on both sides of each axis: a fraction of the whole axis.

    Parameters
    ----------
    grid : sequence of int
    padding_fraction : float
        Of the points of an axis.
    """
    return [round(padding_fraction * n) for n in grid]


def make_patches(x: Tensor, levels: int, widths: Sequence[int], boundary: str) -> Tensor:
    """Cut fields into patches with their surroundings.

    Parameters
    ----------
    x : Tensor, shape (batch, channels, *grid)
        Every axis a multiple of ``2**levels``.
    levels : int
    widths : sequence of int
        Points by which patches are widened, for each axis.
    boundary : {"periodic", "replicate", "zero"}
        How fields go on beyond the grid.

    Returns
    -------
    Tensor, shape (batch * patches, (levels + 1) * channels, *patch)
        Patches in C order; channels of level 0 (the patch itself) first.

    Raises
    ------
    ValueError
        If an axis is no multiple of ``2**levels``, or the boundary is unknown.

    Examples
    --------
    >>> make_patches(torch.arange(8.0).reshape(1, 1, 8), levels=1, widths=[1], boundary="periodic")
    tensor([[[7., 0., 1., 2., 3., 4.],
             [4., 6., 0., 2., 4., 6.]],
    <BLANKLINE>
            [[3., 4., 5., 6., 7., 0.],
             [0., 2., 4., 6., 0., 2.]]])
    """
    check_boundary(boundary)
    batch, channels, *grid = x.shape
    check_patches(grid, levels)
    d, patches = len(grid), 2**levels
    windows = []
    for level in range(levels + 1):
        window = x
        for axis, (n, width) in enumerate(zip(grid, widths, strict=True)):
            place = _points(n, levels, width, level, x.device)
            index = place % n if boundary == "periodic" else place.clamp(0, n - 1)
            window = window.index_select(2 + 2 * axis, index.flatten()).unflatten(2 + 2 * axis, index.shape)
            if boundary == "zero":
                outside = (place < 0) | (place >= n)
                window = window.masked_fill(outside.reshape(*outside.shape, *[1] * (d - 1 - axis)), 0.0)
        windows.append(window)
    every = torch.stack(windows, dim=1)  # (batch, levels + 1, channels, patches_1, patch_1, patches_2, patch_2, ...)
    every = every.permute(0, *range(3, 3 + 2 * d, 2), 1, 2, *range(4, 4 + 2 * d, 2))
    return every.reshape(batch * patches**d, (levels + 1) * channels, *every.shape[-d:])


def stitch_patches(patches: Tensor, levels: int, widths: Sequence[int]) -> Tensor:
    """Put patches together again, without what they were widened by.

    Parameters
    ----------
    patches : Tensor, shape (batch * patches, channels, *patch)
        In the order of `make_patches`.
    levels : int
    widths : sequence of int
        As given to `make_patches`.

    Returns
    -------
    Tensor, shape (batch, channels, *grid)

    Examples
    --------
    >>> x = torch.randn(2, 3, 8, 12)
    >>> patches = make_patches(x, levels=2, widths=[1, 2], boundary="zero")
    >>> torch.equal(stitch_patches(patches[:, :3], levels=2, widths=[1, 2]), x)
    True
    """
    d, count = patches.ndim - 2, 2**levels
    inner = patches[:, :, *(slice(w, n - w) for w, n in zip(widths, patches.shape[2:], strict=True))]
    sizes, channels = inner.shape[2:], inner.shape[1]
    inner = inner.reshape(-1, *[count] * d, channels, *sizes)
    inner = inner.permute(0, d + 1, *(axis for k in range(d) for axis in (1 + k, d + 2 + k)))
    return inner.reshape(-1, channels, *(count * n for n in sizes))


def patch_coordinates(grid: Sequence[int], levels: int, widths: Sequence[int], boundary: str, x: Tensor) -> Tensor:
    """Coordinates of the points of each patch: where they lie in the whole field, and where in their patch.

    Point ``j`` of ``n`` is at ``j / n`` in the field, and beyond the ends these go on. Where the field is periodic, the
    cosine and the sine of ``2 pi j / n`` stand for it: an operator on whole fields gets waves out of ``j / n`` by its
    Fourier transform, one on patches cannot. Point ``k`` of a patch of ``p`` is at ``k / p`` in the patch; this relates
    the levels to each other, which show the same point of the field at the same place in the middle of a patch only.

    Parameters
    ----------
    grid : sequence of int
    levels : int
    widths : sequence of int
    boundary : {"periodic", "replicate", "zero"}
        How fields go on beyond the grid.
    x : Tensor
        Whose precision and device they have.

    Returns
    -------
    Tensor, shape (patches, channels, *patch)
        `coordinate_channels` of them: those of the field first.
    """
    d, count = len(grid), 2**levels
    axes = []  # of each axis its coordinates, each (patches, points)
    for n, width in zip(grid, widths, strict=True):
        place = _points(n, levels, width, 0, x.device).to(x.dtype) / n
        angle = 2 * math.pi * place
        in_field = [angle.cos(), angle.sin()] if boundary == "periodic" else [place]
        in_patch = place * count - torch.arange(count, device=x.device)[:, None]
        axes.append([*in_field, in_patch])
    shape = [m for own in axes for m in own[0].shape]
    columns = []
    for kind in range(len(axes[0])):
        for k in range(d):
            axis = axes[k][kind]
            column = axis.reshape(*[1] * (2 * k), *axis.shape, *[1] * (2 * (d - 1 - k)))
            columns.append(column.expand(shape))
    every = torch.stack(columns).permute(*range(1, 2 * d, 2), 0, *range(2, 2 * d + 1, 2))
    return every.reshape(count**d, len(columns), *every.shape[-d:])


def coordinate_channels(dimensions: int, boundary: str) -> int:
    """How many coordinates `patch_coordinates` gives.

    Parameters
    ----------
    dimensions : int
    boundary : {"periodic", "replicate", "zero"}
    """
    return dimensions * (3 if boundary == "periodic" else 2)


def check_patches(grid: Sequence[int], levels: int) -> None:
    """Refuse a grid that cannot be cut into ``2**levels`` patches an axis.

    Parameters
    ----------
    grid : sequence of int
    levels : int

    Raises
    ------
    ValueError
        If an axis is no multiple of ``2**levels``.
    """
    if any(n % 2**levels for n in grid):
        raise ValueError(
            f"a grid of {' x '.join(map(str, grid))} points cannot be cut into {2**levels} patches an axis, as "
            f"levels={levels} asks for; every axis must be a multiple of {2**levels}"
        )
