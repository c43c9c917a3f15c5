"""Products with a symmetric StencilOperator from half of its coefficients, merged with the vector updates of CG.

On large grids an iteration takes the time in which its vectors and coefficients move through memory. A symmetric
operator needs one coefficient of each pair of opposite ones, and the direction p is best multiplied while it is in the
cache, having just been updated.
"""

from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Self

import numpy as np
from numba import njit

if TYPE_CHECKING:  # a StencilOperator has a HalfStencil
    from solvers.stencil import StencilOperator

_BLOCK = 2048  # unknowns whose products stay in the first-level cache while all links are added

_compiled = njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})


@_compiled
def _product(diagonal, links, shifts, p, q, start, stop):  # type: ignore[no-untyped-def]
    """q = A p for the unknowns [start, stop); returns their part of p'q."""
    n = p.size
    d, v, w = diagonal[start:stop], p[start:stop], q[start:stop]
    for i in range(w.size):
        w[i] = d[i] * v[i]
    for k in range(shifts.size):
        # Links beyond the ends of the vector are zero, but must not be read.
        shift = shifts[k]
        first, last = max(start, shift), min(stop, n - shift)
        if last > start:
            c, u, out = links[k, start:last], p[start + shift : last + shift], q[start:last]
            for i in range(out.size):
                out[i] += c[i] * u[i]
        if stop > first:
            c, u, out = links[k, first - shift : stop - shift], p[first - shift : stop - shift], q[first:stop]
            for i in range(out.size):
                out[i] += c[i] * u[i]
    total = 0.0
    for i in range(w.size):
        total += v[i] * w[i]
    return total


@_compiled
def _advance(diagonal, links, shifts, z, beta, p, q):  # type: ignore[no-untyped-def]
    """p = z + beta p, q = A p; returns p'q. A product follows as soon as the p that it reads is there."""
    n, reach = p.size, shifts.max()
    done, curvature = 0, 0.0
    for start in range(0, n, _BLOCK):
        stop = min(start + _BLOCK, n)
        y, v = z[start:stop], p[start:stop]
        for i in range(v.size):
            v[i] = y[i] + beta * v[i]
        ready = n if stop == n else stop - reach
        while done < ready and (ready - done >= _BLOCK or stop == n):
            end = min(done + _BLOCK, ready)
            curvature += _product(diagonal, links, shifts, p, q, done, end)
            done = end
    return curvature


@njit(cache=True, nogil=True)
def _mirrored(ahead, behind, shift):  # type: ignore[no-untyped-def]
    """Whether two opposite coefficients are equal, bit by bit."""
    n = ahead.size
    first, second = ahead[: n - shift], behind[shift:]
    for start in range(0, n - shift, 4096):
        different = False
        for i in range(start, min(start + 4096, n - shift)):
            different |= first[i] != second[i]
        if different:
            return False
    return True


class HalfStencil:
    """The diagonal and the links ahead of a symmetric operator without mask and periodic axes, real, in float64.

    Parameters
    ----------
    diagonal : ndarray, shape (n,)
    links : ndarray, shape (k, n)
    shifts : ndarray of int, shape (k,)
        ``links[k, i]`` couples the unknowns i and ``i + shifts[k]``.
    offsets : tuple of tuple of int
        The same steps on the grid.

    Examples
    --------
    >>> from solvers import gallery
    >>> half = HalfStencil.of(gallery.poisson((3,)))
    >>> p, q = np.array([1.0, 0.0, 0.0]), np.empty(3)
    >>> half.advance(np.array([1.0, 2.0, 4.0]), 0.0, p, q)
    22.0
    >>> p, q
    (array([1., 2., 4.]), array([ 0., -1.,  6.]))
    """

    def __init__(
        self, diagonal: np.ndarray, links: np.ndarray, shifts: np.ndarray, offsets: tuple[tuple[int, ...], ...]
    ) -> None:
        self.diagonal, self.links, self.shifts, self.offsets = diagonal, links, shifts, offsets

    @classmethod
    def of(cls, A: "StencilOperator") -> Self | None:
        """From a StencilOperator; None if it is not of this kind. Costs one pass over the coefficients."""
        zero = (0,) * len(A.grid_shape)
        if A.dtype != np.float64 or A.mask is not None or any(A.periodic) or zero not in A.offsets:
            return None
        flat = A.coefficients.reshape(len(A.offsets), -1)
        strides = [prod(A.grid_shape[axis + 1 :]) for axis in range(len(A.grid_shape))]
        index = {offset: k for k, offset in enumerate(A.offsets)}
        ahead = [offset for offset in A.offsets if offset > zero]
        behind = [tuple(-step for step in offset) for offset in ahead]
        shifts = [sum(i * s for i, s in zip(offset, strides, strict=True)) for offset in ahead]
        # On a grid a point or two wide an offset ahead may be a shift back.
        if not ahead or min(shifts) <= 0 or set(A.offsets) != {zero, *ahead, *behind}:
            return None
        for one, other, shift in zip(ahead, behind, shifts, strict=True):
            if not _mirrored(flat[index[one]], flat[index[other]], shift):
                return None
        chosen = [index[offset] for offset in ahead]
        steps = {after - before for before, after in pairwise(chosen)}
        if len(steps) <= 1:
            # Evenly spaced among all offsets: a view.
            links = flat[chosen[0] :: steps.pop() if steps else 1][: len(chosen)]
        else:
            links = flat[chosen]
        return cls(flat[index[zero]], links, np.array(shifts, dtype=np.int64), tuple(ahead))

    def advance(self, z: np.ndarray, beta: float, p: np.ndarray, q: np.ndarray) -> float:
        """``p = z + beta p`` and ``q = A p`` in one pass; returns ``p'q``. z may be in single precision."""
        return float(_advance(self.diagonal, self.links, self.shifts, z, beta, p, q))
