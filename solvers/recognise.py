"""Seeing a stencil in a sparse matrix."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp

Recognised = tuple[list[tuple[int, ...]], np.ndarray, list[tuple[str, str]]]


def recognise(A: Any, grid: tuple[int, ...], reach: int = 1) -> Recognised:
    """Offsets, coefficients and sides of the stencil that a sparse matrix holds on a grid in C order.

    Parameters
    ----------
    A : sparse matrix or array, shape (n, n)
    grid : tuple of int
        Points per axis; their product is n.
    reach : int
        Largest offset along an axis that counts as a stencil.

    Returns
    -------
    offsets : list of tuple of int
    coefficients : ndarray, shape (len(offsets), *grid)
    sides : list of (low, high) names
        "periodic" where entries couple the two ends of an axis of at least ``2 * reach + 1`` points; "neumann" where
        the rows of a side, its edges left out, sum to zero; "dirichlet" otherwise: the matrix does not say more.

    Raises
    ------
    ValueError
        If A is no stencil of this reach on this grid; the sentence names the first entry that is not.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> offsets, coefficients, sides = recognise(sp.diags_array([[-1.0, -1], [1.0, 2, 1], [-1.0, -1]],
    ...                                                         offsets=[-1, 0, 1]), (3,))
    >>> offsets, sides
    ([(-1,), (0,), (1,)], [('neumann', 'neumann')])
    >>> coefficients
    array([[ 0., -1., -1.],
           [ 1.,  2.,  1.],
           [-1., -1.,  0.]])
    """
    n = int(np.prod(grid))
    if not sp.issparse(A) or A.shape != (n, n):
        what = f"shape {A.shape}" if hasattr(A, "shape") else type(A).__name__
        raise ValueError(f"A: expected a sparse matrix of shape ({n}, {n}) for the grid {grid}, got {what}")
    entries = sp.coo_array(A, copy=True)
    entries.sum_duplicates()
    stored = entries.data != 0
    row, column, data = entries.row[stored], entries.col[stored], entries.data[stored]
    steps = np.stack(np.unravel_index(column, grid)).astype(np.int64) - np.stack(np.unravel_index(row, grid))
    wraps = []
    for axis, size in enumerate(grid):
        around = np.abs(steps[axis]) >= size - reach
        wraps.append(bool(size >= 2 * reach + 1 and around.any()))
        if wraps[-1]:
            steps[axis][around] -= np.sign(steps[axis][around]) * size
    far = np.flatnonzero((np.abs(steps) > reach).any(axis=0))
    if far.size:
        i, j = int(row[far[0]]), int(column[far[0]])
        raise ValueError(
            f"A: entry ({i}, {j}) couples grid points {tuple(map(int, np.unravel_index(i, grid)))} and "
            f"{tuple(map(int, np.unravel_index(j, grid)))}, further apart than {reach} on the grid {grid}: "
            "this is no stencil of that reach (check the shape and its order, or raise reach)"
        )
    # One number for each offset, so that a one-dimensional unique finds them all.
    box = (2 * reach + 1,) * len(grid)
    codes, which = np.unique(np.ravel_multi_index(tuple(steps + reach), box), return_inverse=True)
    coefficients = np.zeros((codes.size, n), dtype=entries.dtype)
    coefficients[which, row] = data
    offsets = [tuple(int(i) - reach for i in np.unravel_index(code, box)) for code in codes]
    coefficients = coefficients.reshape(-1, *grid)
    return offsets, coefficients, sides(coefficients, wraps)


def sides(coefficients: np.ndarray, wraps: Sequence[bool] | np.ndarray) -> list[tuple[str, str]]:
    """Names of the sides by the sums of their rows."""
    dtype: np.dtype = coefficients.dtype if coefficients.dtype.kind in "fc" else np.dtype(float)
    # The rounding of a row sum is a few eps times its largest entry.
    largest = np.max(np.abs(coefficients), axis=0, initial=0.0)
    vanishes = np.abs(coefficients.sum(axis=0)) <= 100 * np.finfo(dtype).eps * largest
    names = []
    for axis, wrapped in enumerate(wraps):
        if wrapped:
            names.append(("periodic", "periodic"))
            continue
        # Rows at an edge feel the conditions of two sides; look at the others where there are any.
        inner = tuple(
            slice(None) if other == axis or size < 3 or wraps[other] else slice(1, -1)
            for other, size in enumerate(vanishes.shape)
        )
        low, high = ("neumann" if np.take(vanishes[inner], end, axis=axis).all() else "dirichlet" for end in (0, -1))
        names.append((low, high))
    return names
