"""Products with a symmetric StencilOperator from half of its coefficients, merged with the vector updates of CG.

On large grids an iteration takes the time in which its vectors and coefficients move through memory. A symmetric
operator needs one coefficient of each pair of opposite ones, and the direction p is best multiplied while it is in the
cache, having just been updated.
"""

from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Self

import numpy as np
from numba import njit

from solvers.rows import LANES, add_products

if TYPE_CHECKING:  # a StencilOperator has a HalfStencil
    from solvers.stencil import StencilOperator

Offset = tuple[int, ...]

_BLOCK = 2048  # unknowns whose products stay in the first-level cache while all links are added

_compiled = njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
_inner = njit(nogil=True, fastmath={"contract", "reassoc"}, no_cpython_wrapper=True, no_cfunc_wrapper=True)
_U = np.uint64


@_inner
def _rest(coefficients, terms, p, q, start, stop):  # type: ignore[no-untyped-def]
    """q = A p, point by point; what lies beyond the ends of p has zero coefficients, but must not be read."""
    for i in range(start, stop):
        total = 0.0
        for t in range(terms.shape[0]):
            neighbour = i + terms[t, 1]
            if neighbour >= 0 and neighbour < p.size:
                total += coefficients[i + terms[t, 0]] * p[neighbour]
        q[i] = total


@_inner
def _product(coefficients, terms, reach, p, q, start, stop):  # type: ignore[no-untyped-def]
    """q = A p for the unknowns [start, stop); returns their part of p'q."""
    first, last = min(max(start, reach), stop), min(stop, p.size - reach)
    whole = max(last - first, 0) // LANES * LANES
    _rest(coefficients, terms, p, q, start, first)
    add_products(q, coefficients, p, whole, first, -1, -1, terms, 0, terms.shape[0], first, first)
    _rest(coefficients, terms, p, q, first + whole, stop)
    total = 0.0
    for i in range(_U(start), _U(stop)):
        total += p[i] * q[i]
    return total


@_compiled
def _multiply(coefficients, terms, reach, p, q):  # type: ignore[no-untyped-def]
    """q = A p"""
    for start in range(0, p.size, _BLOCK):
        _product(coefficients, terms, reach, p, q, start, min(start + _BLOCK, p.size))


@_compiled
def _residual(coefficients, terms, reach, b, p, r):  # type: ignore[no-untyped-def]
    """r = b - A p"""
    for start in range(0, p.size, _BLOCK):
        stop = min(start + _BLOCK, p.size)
        _product(coefficients, terms, reach, p, r, start, stop)
        for i in range(_U(start), _U(stop)):
            r[i] = b[i] - r[i]


@_compiled
def _advance(coefficients, terms, reach, z, beta, p, q):  # type: ignore[no-untyped-def]
    """p = z + beta p, q = A p; returns p'q. A product follows as soon as the p that it reads is there."""
    n = p.size
    done, curvature = 0, 0.0
    for start in range(0, n, _BLOCK):
        stop = min(start + _BLOCK, n)
        for i in range(_U(start), _U(stop)):
            p[i] = z[i] + beta * p[i]
        ready = n if stop == n else stop - reach
        while done < ready and (ready - done >= _BLOCK or stop == n):
            end = min(done + _BLOCK, ready)
            curvature += _product(coefficients, terms, reach, p, q, done, end)
            done = end
    return curvature


@njit(cache=True, nogil=True)
def _mirrored(ahead, behind, shift):  # type: ignore[no-untyped-def]
    """Whether two opposite coefficients are equal, bit by bit."""
    n = ahead.size
    first, second = ahead[: n - shift], behind[shift:]
    for start in range(0, n - shift, 4096):
        one, other = first[start : start + 4096], second[start : start + 4096]  # from zero: vector instructions
        different = False
        for i in range(one.size):
            different |= one[i] != other[i]
        if different:
            return False
    return True


def _opposite(offset: Offset) -> Offset:
    return tuple(-step for step in offset)


class HalfStencil:
    """The diagonal and the links ahead of a symmetric operator without mask and periodic axes, real, in float64.

    Parameters
    ----------
    coefficients : ndarray, shape (m, n)
        Of which half will be read.
    diagonal : int
        Its row.
    links : dict of offset -> (row, shift)
        ``coefficients[row, i]`` couples the unknowns i and ``i + shift``.

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

    def __init__(self, coefficients: np.ndarray, diagonal: int, links: dict[Offset, tuple[int, int]]) -> None:
        n = coefficients.shape[1]
        self.diagonal = coefficients[diagonal]
        self.links = {offset: coefficients[row] for offset, (row, _) in links.items()}
        self._flat = coefficients.reshape(-1)
        self._shifts = {offset: shift for offset, (_, shift) in links.items()}
        self._reach = max(self._shifts.values())
        # A link also couples i to i - shift, where it is stored.
        terms = [(diagonal * n, 0)]
        for row, shift in links.values():
            terms += [(row * n, shift), (row * n - shift, -shift)]
        self._terms = np.array(terms, dtype=np.int64)

    @cached_property
    def diagonal_range(self) -> tuple[float, float]:
        """The smallest and the largest diagonal entry; NaN if there is one."""
        return float(self.diagonal.min()), float(self.diagonal.max())

    @property
    def fields(self) -> dict[Offset, np.ndarray]:
        """The diagonal and the links ahead by their offsets, each ``(n,)``."""
        zero = (0,) * len(next(iter(self.links)))
        return {zero: self.diagonal, **self.links}

    @property
    def offsets(self) -> tuple[Offset, ...]:
        """All offsets of the operator in ascending order, those behind too."""
        ahead = sorted(self.links)
        return (*(_opposite(offset) for offset in reversed(ahead)), (0,) * len(ahead[0]), *ahead)

    def coefficients(self) -> np.ndarray:
        """The coefficients of all offsets, a fresh array ``(len(offsets), n)``."""
        middle, n = len(self.links), self.diagonal.size
        fields = np.zeros((2 * middle + 1, n))
        fields[middle] = self.diagonal
        for k, offset in enumerate(sorted(self.links), start=1):
            link, shift = self.links[offset], self._shifts[offset]
            fields[middle + k] = link
            fields[middle - k, shift:] = link[: n - shift]
        return fields

    def row(self, i: int) -> list[float]:
        """The entries of one row, in no order."""
        entries = [float(self.diagonal[i])]
        for offset, link in self.links.items():
            entries.append(float(link[i]))
            if i >= self._shifts[offset]:
                entries.append(float(link[i - self._shifts[offset]]))
        return entries

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
        behind = [_opposite(offset) for offset in ahead]
        shifts = [sum(i * s for i, s in zip(offset, strides, strict=True)) for offset in ahead]
        # On a grid a point or two wide an offset ahead may be a shift back.
        if not ahead or min(shifts) <= 0 or set(A.offsets) != {zero, *ahead, *behind}:
            return None
        for one, other, shift in zip(ahead, behind, shifts, strict=True):
            if not _mirrored(flat[index[one]], flat[index[other]], shift):
                return None
        return cls(flat, index[zero], {o: (index[o], shift) for o, shift in zip(ahead, shifts, strict=True)})

    def product(self, p: np.ndarray) -> np.ndarray:
        """A p, a fresh array."""
        q = np.empty_like(p)
        _multiply(self._flat, self._terms, self._reach, p, q)
        return q

    def residual(self, b: np.ndarray, x: np.ndarray) -> np.ndarray:
        """``b - A x`` in one pass, a fresh array."""
        r = np.empty_like(x)
        _residual(self._flat, self._terms, self._reach, b, x, r)
        return r

    def advance(self, z: np.ndarray, beta: float, p: np.ndarray, q: np.ndarray) -> float:
        """``p = z + beta p`` and ``q = A p`` in one pass; returns ``p'q``. z and p may be in single precision."""
        return float(_advance(self._flat, self._terms, self._reach, z, beta, p, q))
