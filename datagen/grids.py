"""Structured grids: where the values of a field live.

A cell-centred axis of length L with n cells has its values at ``(i + 1/2) L / n``; a node-centred axis has them at
``i L / (n - 1)``, both ends included, or, where it is periodic, at ``i L / n``, the right end left out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CENTRINGS = ("cell", "node", "periodic-node")
AXIS_NAMES = "xyz"
MAX_VALUES = 2**36  # of one field: half a terabyte


@dataclass(frozen=True)
class Grid:
    """A uniform grid on the box ``[0, L_1] x ... x [0, L_d]``.

    Parameters
    ----------
    shape : tuple of int
        Values per axis.
    lengths : tuple of float
        Length of the box per axis, in the unit of length of the family that uses it.
    centring : str
        "cell", "node" (both ends included) or "periodic-node" (the right end left out).

    Examples
    --------
    >>> grid = Grid((4, 2), (1.0, 1.0))
    >>> grid.spacing
    (0.25, 0.5)
    >>> grid.coordinates(0)
    array([0.125, 0.375, 0.625, 0.875])
    """

    shape: tuple[int, ...]
    lengths: tuple[float, ...]
    centring: str = "cell"

    def __post_init__(self) -> None:
        if len(self.shape) != len(self.lengths):
            raise ValueError(f"Grid: lengths must have one entry per axis of shape {self.shape}, got {self.lengths}")
        if any(n < 1 for n in self.shape):
            raise ValueError(f"Grid: shape must hold positive integers, got {self.shape}")
        if any(not (math.isfinite(length) and length > 0) for length in self.lengths):
            raise ValueError(f"Grid: lengths must be positive and finite, got {self.lengths}")
        if self.centring not in CENTRINGS:
            raise ValueError(f"Grid: centring must be one of {', '.join(CENTRINGS)}, got {self.centring!r}")

    @property
    def dimension(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance of neighbouring values, per axis."""
        intervals = [max(n - 1, 1) if self.centring == "node" else n for n in self.shape]
        return tuple(length / n for length, n in zip(self.lengths, intervals, strict=True))

    @property
    def axis_names(self) -> tuple[str, ...]:
        """Names of the axes: x, y, z, and x3, x4, ... beyond."""
        return tuple(AXIS_NAMES[i] if i < len(AXIS_NAMES) else f"x{i}" for i in range(self.dimension))

    def coordinates(self, axis: int) -> NDArray[np.float64]:
        """Coordinates of the values along one axis, shape ``(shape[axis],)``."""
        shift = 0.5 if self.centring == "cell" else 0.0
        return np.asarray((np.arange(self.shape[axis]) + shift) * self.spacing[axis])

    def points(self) -> tuple[NDArray[np.float64], ...]:
        """Coordinates of every value, one array of ``shape`` per axis."""
        return tuple(np.meshgrid(*(self.coordinates(axis) for axis in range(self.dimension)), indexing="ij"))


def as_shape(grid: int | Sequence[int], dimension: int, name: str = "grid") -> tuple[int, ...]:
    """One integer for all axes, or one integer per axis, as a shape.

    Parameters
    ----------
    grid : int or sequence of int
    dimension : int
        Axes.
    name : str
        Of the argument, for messages.

    Examples
    --------
    >>> as_shape(64, 2)
    (64, 64)
    >>> as_shape([32, 64], 2)
    (32, 64)
    """
    entries = (grid,) * dimension if isinstance(grid, (int, np.integer)) else tuple(grid)
    if any(isinstance(n, bool) or not isinstance(n, (int, np.integer)) for n in entries):
        raise ValueError(f"{name} must be an integer or a list of integers, got {grid!r}")
    if len(entries) != dimension:
        raise ValueError(f"{name} must be one integer or {dimension} of them (one per axis), got {grid!r}")
    if any(n < 2 for n in entries):
        raise ValueError(f"{name} must be at least 2 along every axis, got {grid!r}")
    values = math.prod(entries)
    if values > MAX_VALUES:
        raise ValueError(
            f"{name} must have at most {MAX_VALUES:.2g} points in all, got {' x '.join(f'{n:.4g}' for n in entries)}: "
            f"one field of them takes {8 * values / 1e9:.3g} GB of memory"
        )
    return tuple(int(n) for n in entries)
