r"""Separable operators: Kronecker sums of tridiagonal matrices, seen in the coefficients of a stencil.

.. math:: A = T_0 \otimes I \otimes \dots \otimes I + I \otimes T_1 \otimes \dots \otimes I + \dots

Every Laplacian with constant coefficients on a box is one, whatever the conditions on its sides, with a constant
reaction term or without, on stretched grids too where the scaling is symmetric. The eigenvectors of such an operator
are products of those of its axes, which is what fast Poisson solvers live on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Self

import numpy as np
from numba import njit

if TYPE_CHECKING:  # a StencilOperator has a KroneckerSum
    from solvers.stencil import StencilOperator


@dataclass(frozen=True, eq=False)
class Tridiagonal:
    """A symmetric tridiagonal matrix of order n, whose last row may couple to the first.

    Attributes
    ----------
    diagonal : ndarray, shape (n,), float64
    links : ndarray, shape (n - 1,), float64
        Beside the diagonal.
    corner : float
        Couples the first and the last row; zero if n < 3, where it would be one of the links.

    Examples
    --------
    >>> Tridiagonal(np.full(3, 2.0), np.full(2, -1.0)).toarray()
    array([[ 2., -1.,  0.],
           [-1.,  2., -1.],
           [ 0., -1.,  2.]])
    """

    diagonal: np.ndarray
    links: np.ndarray
    corner: float = 0.0

    @property
    def row_sums(self) -> np.ndarray:
        """Of each row: zero where constants are annihilated."""
        sums = self.diagonal.copy()
        sums[:-1] += self.links
        sums[1:] += self.links
        sums[0] += self.corner
        sums[-1] += self.corner
        return sums

    def plus(self, shift: float | np.ndarray) -> "Tridiagonal":
        """With `shift` added to the diagonal."""
        return replace(self, diagonal=self.diagonal + shift)

    def toarray(self) -> np.ndarray:
        """The dense matrix."""
        matrix = np.diag(self.diagonal) + np.diag(self.links, 1) + np.diag(self.links, -1)
        matrix[0, -1] += self.corner
        matrix[-1, 0] += self.corner
        return matrix


@dataclass(frozen=True, eq=False)
class KroneckerSum:
    """The tridiagonal matrices of the axes, and whether the constants are in the null space of their Kronecker sum.

    Constants can be moved between the axes; here the smallest row sum is zero along each axis but the first.

    Examples
    --------
    >>> from solvers import gallery
    >>> A = gallery.poisson((20, 30), boundary=[("neumann", "dirichlet"), ("periodic", "periodic")])
    >>> first, second = KroneckerSum.of(A).axes
    >>> first.diagonal[[0, 1, -1]], second.corner
    (array([1., 2., 3.]), -1.0)
    >>> KroneckerSum.of(gallery.diffusion(gallery.jumps((20, 30)))) is None
    True
    """

    axes: tuple[Tridiagonal, ...]
    annihilates_constants: bool

    @classmethod
    def from_axes(cls, axes: Sequence[Tridiagonal], rounding: float) -> Self:
        """Brought to the form described above; row sums below `rounding` are zero."""
        shifts = [T.row_sums.min() for T in axes[1:]]
        axes = [axes[0].plus(sum(shifts)), *(T.plus(-shift) for T, shift in zip(axes[1:], shifts, strict=True))]
        constants = all(np.max(np.abs(T.row_sums)) <= rounding for T in axes)
        if constants:  # exactly, so that what is singular looks so
            axes = [T.plus(-T.row_sums) for T in axes]
        return cls(tuple(axes), constants)

    @classmethod
    def of(cls, A: "StencilOperator") -> Self | None:
        """That of A, if A is real, without mask, and separable to rounding (16 eps of its diagonal).

        One pass over the coefficients of A, which ends at the first row of the grid that differs.
        """
        dimensions = len(A.grid_shape)
        zero = (0,) * dimensions
        half = A.half  # whose links behind are those ahead, mirrored
        if half is not None and _differs_in_the_middle(half.diagonal.reshape(A.grid_shape)):
            return None
        if A.dtype.kind == "c" or A.mask is not None or zero not in A.offsets:
            return None
        if any(sum(map(abs, offset)) > 1 for offset in A.offsets):
            return None
        if half is None:
            fields = dict(zip(A.offsets, A.coefficients, strict=True))
        else:
            fields = {offset: field.reshape(A.grid_shape) for offset, field in half.fields.items()}
        origin = float(fields[zero][zero])
        if not np.isfinite(origin) or _differs_in_the_middle(fields[zero]):
            return None
        diagonals = [_line(fields[zero], axis) - (origin if axis else 0.0) for axis in range(dimensions)]
        scale = abs(origin) + max(float(np.max(np.abs(line))) for line in diagonals)
        rounding = 16 * float(np.finfo(A.dtype).eps) * scale
        if not (np.isfinite(scale) and _is_sum_of_lines(fields[zero], diagonals, rounding)):
            return None
        axes = []
        for axis, diagonal in enumerate(diagonals):
            lines: list[np.ndarray] = []
            for step in (1, -1):
                if half is not None and step == -1:
                    lines.append(np.roll(lines[0], 1))
                    continue
                offset = tuple(step * (other == axis) for other in range(dimensions))
                lines.append(np.zeros(diagonal.size))
                if offset in fields:
                    lines[-1] = _line(fields[offset], axis)
                    parts = [lines[-1] if other == axis else np.zeros(n) for other, n in enumerate(A.grid_shape)]
                    if not _is_sum_of_lines(fields[offset], parts, rounding):
                        return None
            ahead, behind = lines
            if not np.max(np.abs(ahead - np.roll(behind, -1))) <= rounding:
                return None  # not symmetric
            axes.append(_tridiagonal(diagonal, ahead, behind))
        return cls.from_axes(axes, 6 * rounding)

    @property
    def shape(self) -> tuple[int, ...]:
        """Points per axis."""
        return tuple(T.diagonal.size for T in self.axes)

    def diagonal(self) -> np.ndarray:
        """The diagonal of the sum as a field, shape `shape`."""
        return _outer_sum([T.diagonal for T in self.axes])


def _tridiagonal(diagonal: np.ndarray, ahead: np.ndarray, behind: np.ndarray) -> Tridiagonal:
    """From the coefficients of the three offsets along a line; around one or two points several are one entry."""
    if diagonal.size == 1:
        return Tridiagonal(diagonal + ahead + behind, np.empty(0))
    if diagonal.size == 2:
        return Tridiagonal(diagonal, ahead[:1] + behind[:1])
    return Tridiagonal(diagonal, ahead[:-1], float(ahead[-1]))


def _differs_in_the_middle(field: np.ndarray) -> bool:
    """Whether a point in the middle shows that a field is no sum of lines, by far: most fields that are none do."""
    middle = tuple(size // 2 for size in field.shape)
    origin, value = field.item(0), field[middle].item()
    ends = sum(field[(0,) * axis + (m,) + (0,) * (field.ndim - 1 - axis)].item() for axis, m in enumerate(middle))
    return bool(abs(value - ends + (field.ndim - 1) * origin) > 1e-3 * (abs(value) + abs(origin)))


def _line(field: np.ndarray, axis: int) -> np.ndarray:
    """The values along an axis through the first point, as float64."""
    return field[tuple(slice(None) if other == axis else 0 for other in range(field.ndim))].astype(np.float64)


def _outer_sum(lines: Sequence[np.ndarray]) -> np.ndarray:
    """``sum_a lines[a][i_a]``, a number for no lines."""
    total = np.zeros((1,) * len(lines))
    for axis, line in enumerate(lines):
        total = total + line.reshape([-1 if other == axis else 1 for other in range(len(lines))])
    return total


def _is_sum_of_lines(field: np.ndarray, lines: Sequence[np.ndarray], tolerance: float) -> bool:
    rows = prod(field.shape[:-1])
    return bool(_is_sum(field.reshape(rows, -1), _outer_sum(lines[:-1]).reshape(rows), lines[-1], tolerance))


@njit(cache=True, nogil=True)
def _is_sum(field, base, line, tolerance):  # type: ignore[no-untyped-def]
    """Whether ``field[r, k] = base[r] + line[k]`` everywhere; NaN equals nothing."""
    for r in range(field.shape[0]):
        row, start = field[r], base[r]
        different = False
        for k in range(line.size):
            different |= not (abs(row[k] - start - line[k]) <= tolerance)
        if different:
            return False
    return True
