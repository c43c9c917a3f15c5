"""What the solvers want to know of a StencilOperator, from its coefficients: no matrix is made for it."""

from dataclasses import dataclass

import numpy as np
from numba import njit

from solvers.stencil import StencilOperator

_BLOCK = 1024  # rows whose sums stay in the first-level cache


@dataclass(frozen=True)
class RowSums:
    """The sums of the rows of an operator.

    Attributes
    ----------
    largest : float
        Of their absolute values; NaN if `finite` is False.
    total : complex or float
        The sum of all entries.
    finite : bool
        Every row sum is finite, and so then is every entry. Sums of finite entries may overflow.
    """

    largest: float
    total: complex
    finite: bool


def row_sums(A: StencilOperator) -> RowSums:
    """Facts about the row sums of A, in one pass over its coefficients.

    Examples
    --------
    >>> from solvers import gallery
    >>> row_sums(gallery.poisson((3,)))
    RowSums(largest=1.0, total=2.0, finite=True)
    """
    coefficients = A.coefficients.reshape(len(A.offsets), -1)
    square, total, spoiled = _row_sums(coefficients, np.empty(_BLOCK, dtype=A.dtype))
    return RowSums(float(square), total, spoiled == 0)


# Only such liberties as leave x - x alone: it is zero for finite x, and NaN for all others.
@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def _row_sums(coefficients, sums):  # type: ignore[no-untyped-def]
    """Largest absolute row sum, sum of all rows, and a number that is zero if all rows are finite."""
    n = coefficients.shape[1]
    largest, total, spoiled = 0.0, sums.dtype.type(0), 0.0
    for start in range(0, n, sums.size):
        count = min(sums.size, n - start)
        sums[:count] = 0
        for o in range(coefficients.shape[0]):
            field = coefficients[o, start : start + count]
            for i in range(count):
                sums[i] += field[i]
        for i in range(count):
            total += sums[i]
            size = abs(sums[i])
            spoiled += size - size
            largest = size if size > largest else largest
    return largest, total, spoiled


def asymmetry(A: StencilOperator) -> float:
    """The largest ``|a_ij - conj(a_ji)|``. Where an axis wraps around 1 or 2 points, offsets must not share entries.

    Raises
    ------
    ValueError
        If they may.

    Examples
    --------
    >>> from solvers import gallery
    >>> asymmetry(gallery.poisson((5, 6))), asymmetry(gallery.convection_diffusion((5, 6), [1.0, 0.0])) > 0
    (0.0, True)
    """
    if not entries_are_apart(A):
        raise ValueError(f"A: on the grid {A.grid_shape} one entry of A may be the sum of several coefficients")
    if A.half is not None:
        return 0.0
    largest, index = 0.0, {offset: k for k, offset in enumerate(A.offsets)}
    axes = range(len(A.grid_shape))
    for offset, ahead in zip(A.offsets, A.coefficients, strict=True):
        opposite = tuple(-step for step in offset)
        if opposite not in index:
            difference = ahead
        elif opposite <= offset:
            difference = ahead - np.roll(A.coefficients[index[opposite]], opposite, axis=axes).conj()
        else:
            continue
        largest = max(largest, float(np.max(np.abs(difference))))
    return largest


def entries_are_apart(A: StencilOperator) -> bool:
    """Whether no two offsets couple the same two points, as they may around an axis that is short."""
    reach = [max(abs(offset[axis]) for offset in A.offsets) for axis in range(len(A.grid_shape))]
    return all(size > 2 * steps for size, steps, around in zip(A.grid_shape, reach, A.periodic, strict=True) if around)
