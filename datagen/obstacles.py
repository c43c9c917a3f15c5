"""Obstacles in a flow: squares at random places, and whether a mask of obstacles leaves a flow at all."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

_LATTICE = 8  # places are multiples of an eighth of a square's side, whatever the grid
_GAP = 4  # and squares keep half a side from each other and from walls


def squares(
    rng: np.random.Generator, count: int, side: float, shape: tuple[int, ...], inflow: bool
) -> NDArray[np.bool_]:
    """Where the obstacles are: a mask of the cells of a box of height 1.

    One square after the other is put at a place drawn evenly from all those that are left on a lattice of an eighth of
    a side: half a side from walls and from the squares before it, and with an inflow a side from it and from the
    outflow. That is the law of drawing places until one fits, but it ends. The lattice does not depend on the grid, to
    whose faces the squares are moved.

    Parameters
    ----------
    rng : Generator
    count : int
    side : float
        In heights of the box.
    shape : tuple of int
        Cells per axis.
    inflow : bool
        Along the first axis.

    Raises
    ------
    ValueError
        If no place is left.

    Examples
    --------
    >>> mask = squares(np.random.default_rng(7), 2, 0.25, (16, 16), inflow=False)
    >>> int(mask.sum()) == 2 * 4 * 4
    True
    """
    mask = np.zeros(shape, dtype=bool)
    cells = round(side * shape[1])
    free = np.ones(places(side, shape, inflow), dtype=bool)
    for number in range(count):
        left = np.flatnonzero(free)
        if not left.size:
            raise ValueError(
                f"there is no place left for square {number + 1} of {count}: fewer obstacles, or smaller ones"
            )
        place = np.unravel_index(rng.choice(left), free.shape)
        reach = tuple(slice(max(p - _LATTICE - _GAP + 1, 0), p + _LATTICE + _GAP) for p in place)
        free[reach] = False
        margins = (_LATTICE if inflow else _GAP, _GAP)
        low = [
            round((p + margin) * side / _LATTICE * shape[1] - 1e-9) for p, margin in zip(place, margins, strict=True)
        ]
        mask[low[0] : low[0] + cells, low[1] : low[1] + cells] = True
    return mask


def places(side: float, shape: tuple[int, ...], inflow: bool) -> tuple[int, int]:
    """How many places along each axis the lattice has for one square; zero or less if it does not fit.

    Parameters
    ----------
    side, shape, inflow
        As for `squares`.
    """
    length, unit = shape[0] / shape[1], side / _LATTICE
    margins = (2 * _LATTICE if inflow else 2 * _GAP), 2 * _GAP
    first, second = (
        int(np.floor(extent / unit + 1e-9)) - _LATTICE - margin + 1
        for extent, margin in zip((length, 1.0), margins, strict=True)
    )
    return first, second


def most(side: float, shape: tuple[int, ...], inflow: bool) -> int:
    """Of so many squares all are sure to find a place, whatever those before them: each takes at most 23^2 places.

    Parameters
    ----------
    side, shape, inflow
        As for `squares`.
    """
    taken = 2 * (_LATTICE + _GAP) - 1
    along = places(side, shape, inflow)
    return max(0, -(-max(along[0], 0) * max(along[1], 0) // taken**2)) if min(along) > 0 else 0


def mask_fault(obstacle: NDArray[Any], inflow: bool) -> str:
    """What is wrong with a mask of obstacles, 1 in solid cells and 0 in fluid; "" if nothing.

    Parameters
    ----------
    obstacle : ndarray, shape (nx, ny)
    inflow : bool
        The fluid comes in at the lower end of the first axis and goes out at its upper end.

    Examples
    --------
    >>> wall = np.zeros((8, 8))
    >>> wall[4] = 1
    >>> mask_fault(wall, inflow=True)
    'the obstacles block the channel: no way leads through the fluid from the inlet to the outlet'
    """
    if not np.isin(obstacle, (0, 1)).all():
        return "the obstacle must be 1 in solid cells and 0 in fluid ones"
    fluid = obstacle == 0
    if not fluid.any():
        return "there is no fluid: all cells are obstacles"
    if inflow:
        for name, ends in (("inlet", fluid[:2]), ("outlet", fluid[-2:])):
            if not ends.all():
                return f"an obstacle overlaps the {name}: the two columns of cells beside it must be fluid"
    pieces, number = label(fluid)
    if inflow and pieces[0, 0] != pieces[-1, 0]:
        return "the obstacles block the channel: no way leads through the fluid from the inlet to the outlet"
    if number > 1:
        largest = np.bincount(pieces[fluid]).max()
        return f"{int(fluid.sum() - largest)} cells of fluid are shut in by obstacles: make them obstacles too"
    return ""
