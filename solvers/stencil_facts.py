"""What the solvers want to know of a StencilOperator, from its coefficients: no matrix is made for it."""

import numpy as np

from solvers.stencil import StencilOperator


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
