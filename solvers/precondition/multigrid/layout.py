r"""Where the numbers of a multigrid hierarchy lie: one flat array for all levels, and tables of positions in it.

Everything the compiled kernels touch (operators, interpolation weights, iterates) lives in one array, the *arena*, so
that one compiled function runs the whole cycle for any number of levels and dimensions. Two layouts are used.

*Split*: fields of a level that the smoother works on. Each row of the last axis is stored as its even points, then its
odd ones, each part with a ghost at both ends; each other axis has two ghosts below and one above, as much as the
Galerkin product looks at. The neighbours of all even points of a row are then contiguous too: with the colours apart,
Gauss-Seidel in colours vectorises.

*Natural*: fields of a level that the next finer one reads and writes (the restricted residual, the correction, the
interpolation weights): plain rows with a ghost at both ends. The coarse points of a row are its even ones.

Each such run of points begins on a multiple of `LANES`, the length of a vector, its ghost before that: `LEAD` numbers
before a field are not used. Of what a row of a stencil reads, all but the left or the right neighbours then lies on
whole cache lines, and arrives up to twice as fast. Large levels of short rows (in three dimensions) do without: there
the memory that this takes would cost more.

Points that do not exist (ghosts, points outside a mask) have no links and no right-hand side, and get a unit diagonal
when the set-up is done; they stay zero without a single branch in the kernels. Ghosts of periodic axes are copies.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod

import numpy as np

from solvers.rows import LANES

Offset = tuple[int, ...]

BELOW = 2  # ghosts below index 0 of all axes but the last; one above
LEAD = LANES - 1  # numbers before a field: its first ghost, then its first point, follow
_OUTER = slice(BELOW, -1)
_SMALL = 2**16  # points of a level that stays in the cache
_WASTE = 1 / 6  # of the memory of others, at most


def _whole(count: int) -> int:
    """So many numbers, and as many more as make whole vectors."""
    return -(-count // LANES) * LANES


def neighbours(dimensions: int) -> list[Offset]:
    """The 3^d offsets of the full stencil in lexicographic order, the centre in the middle.

    >>> neighbours(1)
    [(-1,), (0,), (1,)]
    """
    return list(product((-1, 0, 1), repeat=dimensions))


def forward(offsets: Sequence[Offset]) -> tuple[Offset, ...]:
    """One of each pair of opposite offsets, the lexicographically positive one: the links of a symmetric stencil.

    >>> forward(neighbours(2))
    ((0, 1), (1, -1), (1, 0), (1, 1))
    """
    dimensions = len(offsets[0])
    zero = (0,) * dimensions
    positive = {max(offset, tuple(-step for step in offset)) for offset in offsets}
    return tuple(sorted(positive - {zero}))


# Levels on which the two even points at a seam are kept apart before they become one.
_APART = 2


def descend(shape: Sequence[int], periodic: Sequence[bool]) -> Iterator[tuple[tuple[int, ...], tuple[bool, ...]]]:
    """Shapes of the grids, finest first, without end, and the axes at whose seam two coarse points become one.

    The coarse points have even indices. The last of an odd number of points around a periodic axis is even, like its
    neighbour, the first one: the axis has a seam. If the coarse number is odd again, the two couple twice as strongly
    as other neighbours, then four times: before that hurts, they are folded into one.

    >>> from itertools import islice
    >>> list(islice(descend((9, 33), (False, True)), 4))  # doctest: +NORMALIZE_WHITESPACE
    [((9, 33), (False, False)), ((5, 17), (False, False)), ((3, 9), (False, True)), ((2, 4), (False, False))]
    """
    grid, apart = tuple(shape), [0] * len(shape)
    while True:
        folds = []
        for axis, (size, around) in enumerate(zip(grid, periodic, strict=True)):
            seam = around and size % 2 == 1
            folds.append(seam and apart[axis] == _APART)
            apart[axis] = apart[axis] + 1 if seam and not folds[axis] else 0
        yield grid, tuple(folds)
        grid = tuple(size // 2 if fold else (size + 1) // 2 for size, fold in zip(grid, folds, strict=True))


@dataclass(frozen=True)
class LevelLayout:
    """Geometry of one level and the flat positions of its points, relative to the start of a field.

    Parameters
    ----------
    shape : tuple of int
        Grid points per axis.
    periodic : tuple of bool
        Which axes wrap around.
    links : tuple of offsets
        The forward offsets that the operator of this level couples.
    folds : tuple of bool
        Along which axes two points at a seam are one on the next level.
    """

    shape: tuple[int, ...]
    periodic: tuple[bool, ...]
    links: tuple[Offset, ...]
    folds: tuple[bool, ...]

    @cached_property
    def dimensions(self) -> int:
        return len(self.shape)

    @cached_property
    def seams(self) -> tuple[bool, ...]:
        """Axes around which an odd number of points lies: their first and last points are neighbours and both even."""
        return tuple(around and size % 2 == 1 for around, size in zip(self.periodic, self.shape, strict=True))

    @cached_property
    def points(self) -> int:
        return prod(self.shape)

    def _slots(self, points: int) -> int:
        """Length of a run of points with a ghost at both ends, in whole vectors where that is worth it."""
        whole = _whole(points + 2)
        return whole if self.points <= _SMALL or whole <= (1 + _WASTE) * (points + 2) else points + 2

    @cached_property
    def half_width(self) -> int:
        """Slots of the even, and of the odd, points of a row."""
        return self._slots((self.shape[-1] + 1) // 2)

    @cached_property
    def padded_outer(self) -> tuple[int, ...]:
        """All axes but the last with their ghosts."""
        return tuple(size + BELOW + 1 for size in self.shape[:-1])

    @cached_property
    def row_strides(self) -> tuple[int, ...]:
        """Padded rows from one index to the next, along each axis but the last."""
        padded = self.padded_outer
        return tuple(prod(padded[axis + 1 :]) for axis in range(len(padded)))

    @cached_property
    def padded_rows(self) -> int:
        return prod(self.padded_outer)

    @cached_property
    def split_size(self) -> int:
        return _whole(LANES + self.padded_rows * 2 * self.half_width)

    @cached_property
    def split_shape(self) -> tuple[int, ...]:
        """A split field as an array: (padded outer axes, even or odd, slot)."""
        return (*self.padded_outer, 2, self.half_width)

    def split_array(self, values: np.ndarray) -> np.ndarray:
        """View of a split field as such an array."""
        return values[LEAD : LEAD + prod(self.split_shape)].reshape(self.split_shape)

    @cached_property
    def natural_width(self) -> int:
        return self._slots(self.shape[-1])

    @cached_property
    def natural_size(self) -> int:
        return _whole(LANES + self.padded_rows * self.natural_width)

    @cached_property
    def natural_shape(self) -> tuple[int, ...]:
        return (*self.padded_outer, self.natural_width)

    def natural_array(self, values: np.ndarray) -> np.ndarray:
        """View of natural fields, along the last axis, as arrays (..., padded outer axes, slot)."""
        return values[..., LEAD : LEAD + prod(self.natural_shape)].reshape(*values.shape[:-1], *self.natural_shape)

    @cached_property
    def inside(self) -> tuple[slice, ...]:
        """The points of a natural field without its ghosts."""
        return (*(_OUTER,) * (self.dimensions - 1), slice(1, self.shape[-1] + 1))

    @cached_property
    def row_indices(self) -> np.ndarray:
        """Indices along all axes but the last of every row, C order, shape (rows, d - 1)."""
        outer = self.shape[:-1]
        return np.indices(outer).reshape(len(outer), -1).T if outer else np.zeros((1, 0), dtype=np.int64)

    @cached_property
    def padded_row(self) -> np.ndarray:
        """Number of each row among the padded ones."""
        return (self.row_indices + BELOW) @ np.array(self.row_strides, dtype=np.int64)

    @cached_property
    def split_rows(self) -> np.ndarray:
        """Positions of the first points of all rows in split fields."""
        return LANES + self.padded_row * 2 * self.half_width

    @cached_property
    def natural_rows(self) -> np.ndarray:
        """The same in natural fields."""
        return LANES + self.padded_row * self.natural_width

    def split_position(self, offset: Sequence[int]) -> int:
        """Position of the points ``2 I + offset``, I the coarse points of a row, relative to that of the points 2 I."""
        last = offset[-1]
        half, slot = last % 2, (last - last % 2) // 2
        rows = sum(step * stride for step, stride in zip(offset, self.row_strides, strict=False))
        return (2 * rows + half) * self.half_width + slot

    def natural_position(self, offset: Sequence[int]) -> int:
        """Position of the points ``I + offset``, relative to that of the points I."""
        rows = sum(step * stride for step, stride in zip(offset, self.row_strides, strict=False))
        return rows * self.natural_width + offset[-1]

    @cached_property
    def split_copies(self) -> np.ndarray:
        """(to, from, count) of the copies that fill the ghosts of a split field on periodic axes, in this order."""
        copies: list[tuple[int, int, int]] = []
        row, half, size = 2 * self.half_width, self.half_width, self.shape[-1]
        if self.periodic[-1]:
            evens, odds = (size + 1) // 2, size // 2
            last = half + odds - 1 if size % 2 == 0 else evens - 1
            before_last = evens - 1 if size % 2 == 0 else half + odds - 1
            beyond = evens if size % 2 == 0 else half + odds
            for start in self.split_rows.tolist():
                ends = [(half - 1, last), (-1, before_last), (beyond, 0)]
                copies += [(start + ghost, start + point, 1) for ghost, point in ends]
        return np.array(copies + self._row_copies(row), dtype=np.int64).reshape(-1, 3)

    @cached_property
    def natural_copies(self) -> np.ndarray:
        """The same for a natural field."""
        copies: list[tuple[int, int, int]] = []
        width, size = self.natural_width, self.shape[-1]
        if self.periodic[-1]:
            for start in self.natural_rows.tolist():
                copies += [(start - 1, start + size - 1, 1), (start + size, start, 1)]
        return np.array(copies + self._row_copies(width), dtype=np.int64).reshape(-1, 3)

    def natural_folds(self, folds: Sequence[bool]) -> np.ndarray:
        """(to, from, count) of what to add where two points of a finer level with these `folds` are one of this one.

        The second of them lies in the ghost beyond the last point.
        """
        additions: list[tuple[int, int, int]] = []
        width = self.natural_width
        if folds[-1]:
            starts = (LANES + np.arange(self.padded_rows) * width).tolist()
            additions += [(start, start + self.shape[-1], 1) for start in starts]
        number = np.arange(self.padded_rows).reshape(self.padded_outer)
        for axis, fold in enumerate(folds[:-1]):
            if fold:
                ends = number.take(BELOW, axis).flat, number.take(self.shape[axis] + BELOW, axis).flat
                additions += [
                    (LEAD + int(to) * width, LEAD + int(origin) * width, width)
                    for to, origin in zip(*ends, strict=True)
                ]
        return np.array(additions, dtype=np.int64).reshape(-1, 3)

    def _row_copies(self, length: int) -> list[tuple[int, int, int]]:
        """Whole rows, one axis after the other, so that the corners come out right."""
        copies = []
        number = np.arange(self.padded_rows).reshape(self.padded_outer)
        for axis, size in enumerate(self.shape[:-1]):
            if self.periodic[axis]:
                for ghost, source in ((0, size), (1, size + 1), (size + 2, 2)):
                    pairs = zip(number.take(ghost, axis).flat, number.take(source, axis).flat, strict=True)
                    copies += [(LEAD + int(to) * length, LEAD + int(origin) * length, length) for to, origin in pairs]
        return copies

    # -- Between split fields and plain arrays, for set-up and inspection -------------------------------------------

    def _halves(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Views of the even and the odd points of a split field."""
        inner = self.split_array(values)[(_OUTER,) * (self.dimensions - 1)]
        evens, odds = (self.shape[-1] + 1) // 2, self.shape[-1] // 2
        return inner[..., 0, 1 : evens + 1], inner[..., 1, 1 : odds + 1]

    def join(self, values: np.ndarray) -> np.ndarray:
        """The split field `values` as a plain one, shape `shape`."""
        field = np.empty(self.shape, dtype=values.dtype)
        field[..., 0::2], field[..., 1::2] = self._halves(values)
        return field
