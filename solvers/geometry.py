"""The geometry of a structured grid, as its users write it, checked and brought to one form."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

Boundary = Literal["dirichlet", "neumann", "robin", "periodic"]
Centring = Literal["cell", "node"]


def checked_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Points per axis, as a tuple; a single number means one axis."""
    grid = tuple(int(size) for size in np.atleast_1d(np.asarray(shape)))
    if not grid or any(size < 1 for size in grid):
        raise ValueError(f"shape: expected a positive number of grid points per axis, got {shape}")
    return grid


def checked_spacing(spacing: float | Sequence[float], dimensions: int) -> tuple[float, ...]:
    """Grid spacing per axis; a single number stands for all axes."""
    steps = np.asarray(spacing, dtype=float)
    if steps.ndim == 0:
        steps = np.full(dimensions, steps)
    if steps.shape != (dimensions,) or not np.all(np.isfinite(steps)) or np.any(steps <= 0):
        raise ValueError(f"spacing: expected {dimensions} positive numbers, one for each axis, got {spacing}")
    return tuple(float(step) for step in steps)


def checked_boundary(boundary: str | Sequence[Sequence[str]], dimensions: int) -> tuple[tuple[str, str], ...]:
    """A (low, high) pair of names per axis; one name stands for all sides."""
    pairs = [(boundary, boundary)] * dimensions if isinstance(boundary, str) else [tuple(pair) for pair in boundary]
    known = get_args(Boundary)
    if len(pairs) != dimensions or any(len(pair) != 2 or not set(pair) <= set(known) for pair in pairs):
        raise ValueError(
            f"boundary: expected a (low, high) pair of names out of {known} for each of the {dimensions} axes, "
            f"got {boundary}"
        )
    for axis, pair in enumerate(pairs):
        if "periodic" in pair and pair[0] != pair[1]:
            raise ValueError(f"boundary: axis {axis} is periodic on one side only ({pair}); name it on both")
    return tuple((str(low), str(high)) for low, high in pairs)


def checked_centring(centring: str | Sequence[str], dimensions: int) -> tuple[str, ...]:
    """A name per axis; one name stands for all axes."""
    names = (centring,) * dimensions if isinstance(centring, str) else tuple(centring)
    if len(names) != dimensions or not set(names) <= set(get_args(Centring)):
        raise ValueError(f"centring: expected 'cell' or 'node' for each of the {dimensions} axes, got {centring!r}")
    return names


def checked_offsets(offsets: Sequence[Sequence[int]], dimensions: int) -> tuple[tuple[int, ...], ...]:
    """Tuples of integers, all different."""
    tuples = tuple(tuple(int(step) for step in offset) for offset in offsets)
    if not tuples or any(len(offset) != dimensions for offset in tuples):
        raise ValueError(f"offsets: expected tuples of {dimensions} integers, one for each axis, got {offsets}")
    if len(set(tuples)) != len(tuples):
        raise ValueError(f"offsets: each may be there only once, got {offsets}")
    return tuples


def checked_mask(mask: np.ndarray | None, grid: tuple[int, ...]) -> np.ndarray | None:
    """A read-only copy of the mask, or None."""
    if mask is None:
        return None
    array = np.array(mask)
    if array.shape != grid or array.dtype != bool:
        raise ValueError(
            f"mask: expected a bool array of the grid's shape {grid}, got {array.dtype} of shape {array.shape}"
        )
    if not array.any():
        raise ValueError("mask: no point is an unknown; at least one must be True")
    array.flags.writeable = False
    return array
