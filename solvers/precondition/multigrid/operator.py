"""What multigrid wants to know of a StencilOperator: its symmetric part, in real double precision, and which way it
couples most strongly."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import frexp, gcd, prod
from typing import NoReturn

import numpy as np
from numba import njit

from solvers.precondition.multigrid.layout import Offset, forward
from solvers.stencil import StencilOperator

# Along an axis that couples this many times more strongly than the weakest one, points alone no longer smooth.
STRONG = 4.0
# Lines are relaxed along an axis that is strong at more than this share of the points.
SHARE = 0.1
_SAMPLE = 1000  # points at which to look


@dataclass(frozen=True)
class SymmetricStencil:
    """The symmetric part of an operator, as a diagonal and one link of each pair of opposite ones.

    Attributes
    ----------
    shape, periodic
        Of the grid without axes of one point.
    diagonal : ndarray, shape `shape`
        Zero outside the mask.
    links : dict of offset -> ndarray, shape `shape`
        Coefficient between a point and its neighbour at a forward offset.
    symmetric : bool
        Whether the operator is its own symmetric part, to rounding.
    smallest, largest : float
        On the diagonal, inside the mask.
    """

    shape: tuple[int, ...]
    periodic: tuple[bool, ...]
    diagonal: np.ndarray
    links: dict[Offset, np.ndarray]
    symmetric: bool
    smallest: float
    largest: float

    @property
    def scale(self) -> float:
        """A power of two by which the largest diagonal entry comes to lie in [0.5, 1)."""
        return 2.0 ** -frexp(self.largest)[1]

    @classmethod
    def of(cls, A: StencilOperator, flat_axes: bool = False) -> "SymmetricStencil":
        """Take apart a StencilOperator; axes of one point are left out, unless `flat_axes`.

        Raises
        ------
        ValueError
            If its stencil reaches further than one point, or its diagonal is not positive.
        TypeError
            If it is complex.
        """
        half = A.half
        if half is not None and min(A.grid_shape) > 1 and max(max(map(abs, offset)) for offset in half.links) == 1:
            # The usual case: nothing to take apart.
            links = {offset: link.reshape(A.grid_shape) for offset, link in half.links.items()}
            diagonal = half.diagonal.reshape(A.grid_shape)
            smallest, largest = half.diagonal_range
            if not smallest > 0:
                _refuse(diagonal, diagonal)
            return cls(A.grid_shape, A.periodic, diagonal, links, True, smallest, largest)
        if A.dtype.kind == "c":
            raise TypeError("A: multigrid works on real operators, got complex coefficients; use ILU or 'direct'")
        far = [offset for offset in A.offsets if max(map(abs, offset)) > 1]
        if far:
            raise ValueError(
                f"A: multigrid needs stencils that reach one point at most, got the offset {far[0]}; use AMG instead"
            )
        everything = tuple(range(len(A.grid_shape)))
        kept = everything if flat_axes else tuple(axis for axis in everything if A.grid_shape[axis] > 1) or (0,)
        shape, periodic, coefficients = _on_axes(A, kept)
        zero = (0,) * len(shape)
        diagonal = coefficients.get(zero, np.zeros(shape))
        largest = float(diagonal.max())
        inside = diagonal if A.mask is None else np.where(A.mask.reshape(shape), diagonal, largest)
        smallest = float(inside.min())
        if not smallest > 0:
            _refuse(diagonal, inside)
        links, symmetric = {}, True
        # Two assemblies of one entry differ by a few roundings of its largest contribution.
        tolerance = 100 * float(np.finfo(A.dtype).eps) * largest
        for offset in forward(tuple(coefficients)) or (tuple(int(k == 0) for k in range(len(shape))),):
            opposite = tuple(-step for step in offset)
            ahead = coefficients.get(offset, np.zeros(shape))
            behind = coefficients.get(opposite, np.zeros(shape))
            if any(periodic):
                behind = np.roll(behind, opposite, axis=range(len(shape)))
                difference = float(np.max(np.abs(ahead - behind)))
                shift = 0
            else:
                shift = sum(step * prod(shape[axis + 1 :]) for axis, step in enumerate(offset))
                difference = _difference(ahead.reshape(-1), behind.reshape(-1), shift)
            if difference > tolerance:
                symmetric = False
                ahead = ahead.copy()
                _average(ahead.reshape(-1), behind.reshape(-1), shift)
            links[offset] = ahead
        return cls(shape, periodic, diagonal, links, symmetric, smallest, largest)

    @cached_property
    def strong_axes(self) -> tuple[int, ...]:
        """The axes along which the coupling is so much stronger than along others that lines must be relaxed."""
        dimensions = len(self.shape)
        steps = [tuple(int(other == axis) for other in range(dimensions)) for axis in range(dimensions)]
        if dimensions == 1 or not all(step in self.links for step in steps):
            return ()
        stride = _sampling_stride(self.shape)
        shifts = tuple(prod(self.shape[axis + 1 :]) for axis in range(dimensions))
        strong = _strong_share(tuple(self.links[step].reshape(-1) for step in steps), shifts, stride, STRONG)
        return tuple(axis for axis in range(dimensions) if strong[axis] > SHARE and self.shape[axis] > 2)


@lru_cache(maxsize=64)
def _sampling_stride(shape: tuple[int, ...]) -> int:
    """A sample of points is enough; its stride shares no factor with a side, or it would miss columns."""
    stride = max(1, prod(shape) // _SAMPLE)
    while stride > 1 and any(gcd(stride, size) > 1 for size in shape):
        stride += 1
    return stride


def _refuse(diagonal: np.ndarray, inside: np.ndarray) -> NoReturn:
    """Say where the diagonal is not positive; `inside` is the same with something positive outside the mask."""
    where = tuple(int(i) for i in np.unravel_index(int(np.argmin(inside)), inside.shape))
    raise ValueError(
        f"A: multigrid needs a positive diagonal, got {diagonal[where]:.3e} at grid point {where}; if A is "
        "negative definite, solve -A x = -b; if it is indefinite, use 'direct'"
    )


def _on_axes(
    A: StencilOperator, kept: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[bool, ...], dict[Offset, np.ndarray]]:
    """Shape, periodicity and coefficients on some axes; around others, of one point, a point is its own neighbour."""
    shape = tuple(A.grid_shape[axis] for axis in kept)
    found: dict[Offset, np.ndarray] = {}
    for offset, array in zip(A.offsets, A.coefficients, strict=True):
        rest = tuple(offset[axis] for axis in kept)
        values = np.asarray(array, dtype=np.float64).reshape(shape)
        found[rest] = found[rest] + values if rest in found else values
    return shape, tuple(A.periodic[axis] and A.grid_shape[axis] > 1 for axis in kept), found


@njit(cache=True, nogil=True)
def _difference(ahead, behind, shift):  # type: ignore[no-untyped-def]
    """Largest difference between a coefficient and its mirror image."""
    n = ahead.size
    largest = 0.0
    first, last = ahead[: n - shift], behind[shift:]
    for start in range(0, n - shift, 4096):
        stop = min(start + 4096, n - shift)
        # Usually none: a test without a branch compiles to vector instructions, a maximum does not.
        different = False
        for i in range(start, stop):
            different |= first[i] != last[i]
        if different:
            for i in range(start, stop):
                largest = max(largest, abs(first[i] - last[i]))
    return largest


@njit(cache=True, nogil=True)
def _average(ahead, behind, shift):  # type: ignore[no-untyped-def]
    for i in range(ahead.size - shift):
        ahead[i] = 0.5 * (ahead[i] + behind[i + shift])


@njit(cache=True, nogil=True)
def _strong_share(links, shifts, stride, strong):  # type: ignore[no-untyped-def]
    """For each axis the share of points at which it couples more than `strong` times as strongly as the weakest."""
    dimensions, n = len(shifts), links[0].size
    counts, here = np.zeros(dimensions), np.empty(dimensions)
    for i in range(shifts[0], n, stride):
        weakest = np.inf
        for axis in range(dimensions):
            here[axis] = abs(links[axis][i]) + abs(links[axis][i - shifts[axis]])
            weakest = min(weakest, here[axis])
        for axis in range(dimensions):
            counts[axis] += here[axis] > strong * weakest
    return counts * stride / n
