"""The order in which points and lines are relaxed: in colours, no two neighbours of one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

from solvers.precondition.multigrid.layout import Offset

RED_BLACK = "red-black"
COLOURS = "colours"
# Point smoothers by name; lines by the axes along which they run, one after the other.
Smoother = str | tuple[int, ...]


@dataclass(frozen=True)
class Colour:
    """Points or lines that are relaxed at once.

    Attributes
    ----------
    active : tuple of int
        For each class of rows the sum of 1 for their even points, 2 for the odd ones, and 4 for the seam.
    axis : int or None
        The axis along which lines run; None for points.
    """

    active: tuple[int, ...]
    axis: int | None = None


# Along an axis a point is even, odd, or at the seam: the last one of an odd number around a periodic axis, which is
# even like its neighbour, the first one. Digits of the class of a row, axis 0 the lowest; the last axis has a bit each.
_EVEN, _ODD, SEAM = 0, 1, 2
_RANK = {_EVEN: 0, SEAM: 1, _ODD: 2}  # odd points come last: they are no coarse points


def colours_of(smoother: Smoother, seams: Sequence[bool]) -> list[Colour]:
    """The colours of a smoother in the order in which they are relaxed; no two neighbours share one.

    Parameters
    ----------
    smoother : str or tuple of int
    seams : sequence of bool
        Which axes are periodic and of odd size.

    Examples
    --------
    >>> [colour.active[:2] for colour in colours_of("red-black", (False, False))]
    [(1, 2), (2, 1)]
    >>> [len(colours_of(kind, (False, False, True))) for kind in ("red-black", "colours", (0,))]
    [4, 12, 6]
    """
    dimensions = len(seams)
    digits = [(_EVEN, _ODD, SEAM) if seam else (_EVEN, _ODD) for seam in seams]
    if smoother == RED_BLACK:

        def red_black(point: Offset) -> tuple[int, ...]:
            return (*(-(digit == SEAM) for digit in point), sum(digit == _ODD for digit in point) % 2)

        return _by_key(digits, red_black, None)
    if smoother == COLOURS:
        return _by_key(digits, lambda point: tuple(_RANK[digit] for digit in reversed(point)), None)
    found = []
    for axis in smoother:

        def zebra(point: Offset, axis: int = int(axis)) -> tuple[int, ...]:
            return tuple(_RANK[point[other]] for other in reversed(range(dimensions)) if other != axis)

        found += _by_key(digits, zebra, int(axis))
    return found


def _by_key(
    digits: Sequence[tuple[int, ...]], key: Callable[[Offset], tuple[int, ...]], axis: int | None
) -> list[Colour]:
    """One colour for each value of a key, in ascending order."""
    active: dict[tuple[int, ...], list[int]] = {}
    for point in product(*digits):
        row = sum(digit * 3**outer for outer, digit in enumerate(point[:-1]))
        active.setdefault(key(point), [0] * 3 ** (len(digits) - 1))[row] |= 1 << point[-1]
    return [Colour(tuple(active[value]), axis) for value in sorted(active)]
