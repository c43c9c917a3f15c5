"""Fields continued beyond their grid, in any number of dimensions: periodically, by their edge values, or by zeros."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

# What torch's convolutions call the same continuation.
PADDING_MODES: dict[str, Literal["circular", "replicate", "zeros"]] = {
    "periodic": "circular",
    "replicate": "replicate",
    "zero": "zeros",
}


def check_boundary(boundary: str) -> None:
    """Refuse an unknown name of a continuation.

    Parameters
    ----------
    boundary : str

    Raises
    ------
    ValueError
        If it is none of "periodic", "replicate" and "zero".
    """
    if boundary not in PADDING_MODES:
        raise ValueError(f"boundary must be 'periodic', 'replicate' or 'zero', got {boundary!r}")


def extend(x: Tensor, widths: Sequence[tuple[int, int]], boundary: str) -> Tensor:
    """Continue a field by a number of points before and after each axis.

    Parameters
    ----------
    x : Tensor, shape (batch, channels, *grid)
    widths : sequence of (int, int)
        Points to add before and after each axis of the grid; any number, more than the grid has too.
    boundary : {"periodic", "replicate", "zero"}

    Returns
    -------
    Tensor, shape (batch, channels, *grid + widths)

    Examples
    --------
    >>> x = torch.tensor([[[1.0, 2.0, 3.0]]])
    >>> extend(x, [(1, 4)], "periodic")
    tensor([[[3., 1., 2., 3., 1., 2., 3., 1.]]])
    >>> extend(x, [(1, 2)], "replicate")
    tensor([[[1., 1., 2., 3., 3., 3.]]])
    """
    check_boundary(boundary)
    if boundary == "zero":
        amounts = [width for pair in reversed(widths) for width in pair]  # torch counts axes from the last
        return functional.pad(x, amounts) if any(amounts) else x
    for axis, (before, after) in enumerate(widths, start=2):
        if before or after:
            points = x.shape[axis]
            index = torch.arange(-before, points + after, device=x.device)
            index = index % points if boundary == "periodic" else index.clamp(0, points - 1)
            x = x.index_select(axis, index)
    return x


def crop(x: Tensor, widths: Sequence[tuple[int, int]]) -> Tensor:
    """Remove what `extend` added.

    Parameters
    ----------
    x : Tensor, shape (batch, channels, *grid)
    widths : sequence of (int, int)
        Points below and above, for each axis.
    """
    grid = x.shape[2:]
    return x[:, :, *(slice(before, n - after) for n, (before, after) in zip(grid, widths, strict=True))]


def to_multiple(grid: Sequence[int], multiple: Sequence[int]) -> list[tuple[int, int]]:
    """Widths that make every axis a multiple of a number, shared by both sides.

    Parameters
    ----------
    grid : sequence of int
    multiple : sequence of int
        One for each axis.

    Examples
    --------
    >>> to_multiple((16, 21), (16, 8))
    [(0, 0), (1, 2)]
    """
    missing = [-n % m for n, m in zip(grid, multiple, strict=True)]
    return [(m // 2, m - m // 2) for m in missing]
