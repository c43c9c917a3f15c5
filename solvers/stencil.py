"""A matrix-free operator on a structured grid, that knows its geometry.

The operator is a sum of shifts with a coefficient field each,

    (A u)[i] = sum_o c_o[i] u[i + o],

which is what finite differences and finite volumes make of a linear PDE. Keeping it in this form instead of in a
general sparse matrix saves the column indices and, above all, keeps what multigrid wants to know: grid shape, spacing,
boundary conditions, centring.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
from numba import njit
from scipy.sparse.linalg import LinearOperator

from solvers.geometry import (
    Boundary,
    Centring,
    checked_boundary,
    checked_centring,
    checked_mask,
    checked_offsets,
    checked_shape,
    checked_spacing,
)
from solvers.half_stencil import HalfStencil
from solvers.kronecker_sum import KroneckerSum
from solvers.recognise import recognise, sides
from solvers.row_sums import RowSums

_BLOCK = 2048  # unknowns whose results stay in the first-level cache while all the shifts are added to them


@njit(cache=True, nogil=True)
def _apply(coefficients, shifts, u, out):  # type: ignore[no-untyped-def]
    """out[i] = sum_o coefficients[o, i] * u[i + shifts[o]], terms outside of u left out."""
    n = out.size
    for start in range(0, n, _BLOCK):
        stop = min(start + _BLOCK, n)
        out[start:stop] = 0
        for o in range(shifts.size):
            first = max(start, -shifts[o])
            last = min(stop, n - shifts[o])
            if first < last:
                # Slices, so that the inner loop counts from zero: it compiles to vector instructions.
                c = coefficients[o, first:last]
                v = u[first + shifts[o] : last + shifts[o]]
                w = out[first:last]
                for i in range(last - first):
                    w[i] += c[i] * v[i]


@njit(cache=True, nogil=True)
def _add_seam(rows, columns, values, u, out):  # type: ignore[no-untyped-def]
    """Add the terms that wrap around a periodic axis."""
    for k in range(rows.size):
        out[rows[k]] += values[k] * u[columns[k]]


@njit(cache=True, nogil=True)
def _fill_csr(coefficients, shifts, indptr, indices, data):  # type: ignore[no-untyped-def]
    """Write the nonzero coefficients row by row; shifts ascend, so the columns of a row do too."""
    position = 0
    for i in range(coefficients.shape[1]):
        for o in range(shifts.size):
            if coefficients[o, i] != 0:
                indices[position] = i + shifts[o]
                data[position] = coefficients[o, i]
                position += 1
        indptr[i + 1] = position


class StencilOperator(LinearOperator):
    r"""Linear operator :math:`(A u)_i = \sum_o c_o(i)\, u_{i+o}` on a structured grid of any dimension.

    Vectors are fields flattened in C order. With a mask, only the points where it is True are unknowns: vectors hold
    these points alone, in C order, and ``n`` is their number (`to_field` and `to_vector` go between the two).

    Parameters
    ----------
    offsets : sequence of integer tuples
        One tuple ``(o_0, ..., o_{d-1})`` for each term; all different.
    coefficients : sequence of ndarray, each of shape `shape`
        ``coefficients[k][i]`` multiplies ``u[i + offsets[k]]`` in row ``i``. Where ``i + o`` leaves the grid through a
        side that is not periodic, or meets a point outside the mask, the coefficient must be zero.
    shape : tuple of int
        Grid points per axis.
    spacing : float or sequence of float
        Grid spacing per axis, in the unit of length of the problem.
    boundary : name or sequence of (low, high) pairs of names
        "dirichlet", "neumann", "robin" or "periodic" per side; one name stands for all sides. The conditions are in
        the coefficients already; the names tell the solvers what they are, and "periodic" makes offsets wrap.
    centring : name or sequence of names
        "cell" or "node" per axis; one name stands for all axes.
    mask : ndarray of bool, shape `shape`, optional
        True where an unknown exists. Rows elsewhere are ignored.

    Attributes
    ----------
    offsets : tuple of tuple of int
    coefficients : ndarray, shape (len(offsets), *shape), read-only
    grid_shape, spacing, boundary, centring, mask
        As given, in full; `shape` is the pair ``(n, n)``, as for every LinearOperator.

    Raises
    ------
    ValueError
        If shapes do not fit, a name is unknown, or a coefficient points outside the grid or the mask.
    TypeError
        If the coefficients are not numbers of single or double precision.

    Examples
    --------
    The second derivative on three interior nodes, zero at both ends:

    >>> import numpy as np
    >>> left, right = np.array([0.0, -1, -1]), np.array([-1.0, -1, 0])
    >>> A = StencilOperator([(-1,), (0,), (1,)], [left, np.full(3, 2.0), right], shape=(3,), spacing=1.0,
    ...                     boundary="dirichlet", centring="node")
    >>> A @ np.array([1.0, 2.0, 4.0])
    array([ 0., -1.,  6.])
    >>> A.tocsr().toarray()
    array([[ 2., -1.,  0.],
           [-1.,  2., -1.],
           [ 0., -1.,  2.]])
    """

    def __init__(
        self,
        offsets: Sequence[Sequence[int]],
        coefficients: Sequence[np.ndarray] | np.ndarray,
        shape: Sequence[int],
        spacing: float | Sequence[float],
        boundary: Boundary | Sequence[Sequence[str]] = "dirichlet",
        centring: Centring | Sequence[str] = "cell",
        mask: np.ndarray | None = None,
    ) -> None:
        self.grid_shape = checked_shape(shape)
        dimensions = len(self.grid_shape)
        self.spacing = checked_spacing(spacing, dimensions)
        self.boundary = checked_boundary(boundary, dimensions)
        self.centring = checked_centring(centring, dimensions)
        self.offsets = checked_offsets(offsets, dimensions)
        self.mask = checked_mask(mask, self.grid_shape)
        self.coefficients = self._checked_coefficients(coefficients)
        n = int(np.prod(self.grid_shape)) if self.mask is None else int(np.count_nonzero(self.mask))
        super().__init__(self.coefficients.dtype, (n, n))

    @classmethod
    def from_half(cls, half: HalfStencil, shape: tuple[int, ...]) -> Self:
        """A symmetric operator with spacing 1 at nodes, from its diagonal and links ahead, which are not checked.

        Its other coefficients, and the names of its sides by their row sums, are there when somebody asks.
        """
        self = cls.__new__(cls)
        self.grid_shape, self.spacing = shape, (1.0,) * len(shape)
        self.centring = ("node",) * len(shape)
        self.periodic = (False,) * len(shape)
        self.offsets, self.mask, self.half = half.offsets, None, half
        LinearOperator.__init__(self, half.diagonal.dtype, (half.diagonal.size,) * 2)
        return self

    @cached_property
    def coefficients(self) -> np.ndarray:
        """One field an offset, shape (len(offsets), *shape), read-only."""
        assert self.half is not None  # otherwise they were given
        coefficients = self.half.coefficients().reshape(len(self.offsets), *self.grid_shape)
        coefficients.flags.writeable = False
        return coefficients

    @cached_property
    def boundary(self) -> tuple[tuple[str, str], ...]:
        """Names of the conditions at both ends of each axis."""
        return tuple(sides(self.coefficients, self.periodic))

    def _checked_coefficients(self, coefficients: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """One frozen array of all coefficients; refuses those that point outside."""
        if len(coefficients) != len(self.offsets):
            raise ValueError(
                f"coefficients: expected one array for each of the {len(self.offsets)} offsets, got {len(coefficients)}"
            )
        arrays = [np.asarray(c) for c in coefficients]
        for offset, array in zip(self.offsets, arrays, strict=True):
            if array.shape != self.grid_shape:
                raise ValueError(
                    f"coefficients: the array of offset {offset} has shape {array.shape}, "
                    f"expected the grid's {self.grid_shape}"
                )
        dtype = np.result_type(*arrays)
        if dtype.kind in "iub":
            dtype = np.dtype(np.float64)
        if dtype.char not in "fdFD":
            raise TypeError(
                f"coefficients: expected float32, float64, complex64 or complex128, got {dtype}; convert them first"
            )
        whole = coefficients if isinstance(coefficients, np.ndarray) and self.mask is None else None
        if whole is not None and whole.flags.owndata and not whole.flags.writeable and whole.dtype == dtype:
            stacked = whole  # frozen by its owner: nobody can change it behind the operator
        else:
            stacked = np.array(arrays, dtype=dtype)
        if self.mask is not None:
            stacked[:, ~self.mask] = 0
        for offset, array in zip(self.offsets, stacked, strict=True):
            if self._points_outside(offset, array):
                outside = self._outside(offset)
                where = tuple(int(i[0]) for i in np.nonzero(outside & (array != 0)))
                raise ValueError(
                    f"coefficients: offset {offset} at grid point {where} points outside the grid or the mask; "
                    "such a coefficient must be zero (put the boundary condition into the diagonal and b)"
                )
        stacked.flags.writeable = False
        return stacked

    def _points_outside(self, offset: tuple[int, ...], array: np.ndarray) -> bool:
        """Whether a coefficient at this offset is not zero though its neighbour is no unknown."""
        if self.mask is not None:
            return bool(np.any(array[self._outside(offset)]))
        return any(bool(array[(slice(None),) * axis + (beyond,)].any()) for axis, beyond in self._sides_beyond(offset))

    def _sides_beyond(self, offset: tuple[int, ...]) -> Iterator[tuple[int, slice]]:
        """Axes, and the points along them, from which an offset leaves the grid."""
        for axis, step in enumerate(offset):
            if step and not self.periodic[axis]:
                yield axis, slice(max(self.grid_shape[axis] - step, 0), None) if step > 0 else slice(0, -step)

    def _outside(self, offset: tuple[int, ...]) -> np.ndarray:
        """Points whose neighbour at this offset is no unknown: shape `grid_shape`, bool."""
        outside = np.zeros(self.grid_shape, dtype=bool)
        for axis, beyond in self._sides_beyond(offset):
            outside[(slice(None),) * axis + (beyond,)] = True
        if self.mask is not None:
            outside |= self.mask & ~np.roll(self.mask, [-step for step in offset], axis=range(len(offset)))
        return outside

    @cached_property
    def periodic(self) -> tuple[bool, ...]:
        """Which axes wrap around."""
        return tuple(low == "periodic" for low, _ in self.boundary)

    # -- Going between fields and vectors ---------------------------------------------------------------------------

    def to_field(self, x: np.ndarray) -> np.ndarray:
        """Vector ``(n,)`` as a field of shape `grid_shape`; zero outside the mask."""
        if self.mask is None:
            return np.array(x).reshape(self.grid_shape)
        field = np.zeros(self.grid_shape, dtype=np.asarray(x).dtype)
        field[self.mask] = np.ravel(x)
        return field

    def to_vector(self, field: np.ndarray) -> np.ndarray:
        """Field of shape `grid_shape` as the vector ``(n,)`` of its unknowns."""
        return np.array(field if self.mask is None else np.asarray(field)[self.mask]).reshape(-1)

    # -- Applying the operator --------------------------------------------------------------------------------------

    @cached_property
    def _parts(self) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Coefficients `(offsets, points)` and flat shifts in ascending order, and the terms that wrap, as triplets.

        In C order an offset is one shift of the flat index, whatever the dimension, as long as it does not wrap:
        coefficients that would run over the end of a row are zero. The few terms that do wrap are listed apart.
        """
        strides = np.array([int(np.prod(self.grid_shape[axis + 1 :])) for axis in range(len(self.grid_shape))])
        shifts = np.array([int(np.dot(offset, strides)) for offset in self.offsets], dtype=np.int64)
        order = np.argsort(shifts, kind="stable")
        flat = self.coefficients.reshape(len(shifts), -1)
        if np.any(np.diff(order) < 0) or any(self.periodic):
            flat = flat[order]  # a copy, in which what wraps is set to zero
        if not any(self.periodic):
            nothing = np.empty(0, np.int64)
            return flat, shifts[order], (nothing, nothing, np.empty(0, self.dtype))
        index = np.arange(flat.shape[1]).reshape(self.grid_shape)
        rows, columns, values = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0, self.dtype)]
        for position, k in enumerate(order):
            wraps = np.zeros(self.grid_shape, dtype=bool)
            for axis, step in enumerate(self.offsets[k]):
                if step and self.periodic[axis]:
                    size = self.grid_shape[axis]
                    beyond = slice(max(size - step, 0), None) if step > 0 else slice(0, min(-step, size))
                    wraps[(slice(None),) * axis + (beyond,)] = True
            row = index[wraps]
            if row.size:
                neighbour = np.roll(index, [-step for step in self.offsets[k]], axis=range(index.ndim))
                rows.append(row)
                columns.append(neighbour[wraps])
                values.append(flat[position, row])
                flat[position, row] = 0
        return flat, shifts[order], (np.concatenate(rows), np.concatenate(columns), np.concatenate(values))

    @cached_property
    def half(self) -> HalfStencil | None:
        """The diagonal and one of each pair of opposite links, for merged passes; None if there is no such half."""
        return HalfStencil.of(self)

    @cached_property
    def row_sums(self) -> RowSums:
        """Facts about the sums of the rows."""
        return RowSums.of(self.coefficients.reshape(len(self.offsets), -1))

    @cached_property
    def kronecker_sum(self) -> KroneckerSum | None:
        """One tridiagonal matrix for each axis, if the operator is separable (constant coefficients); None if not."""
        return KroneckerSum.of(self)

    def _apply_flat(self, u: np.ndarray, out: np.ndarray) -> np.ndarray:
        coefficients, shifts, seam = self._parts
        _apply(coefficients, shifts, u, out)
        if seam[0].size:
            _add_seam(*seam, u, out)
        return out

    def _matvec(self, x: np.ndarray) -> np.ndarray:
        dtype = np.result_type(self.dtype, x.dtype)
        if self.mask is None:
            u = np.ascontiguousarray(x, dtype=dtype).reshape(-1)
            if dtype == self.dtype and self.half is not None:
                return self.half.product(u)
            return self._apply_flat(u, np.empty(u.size, dtype=dtype))
        u = np.zeros(self.mask.size, dtype=dtype)
        u[self._unknowns] = np.ravel(x)
        return self._apply_flat(u, np.empty(u.size, dtype=dtype))[self._unknowns]

    def _matmat(self, X: np.ndarray) -> np.ndarray:
        out = np.empty(X.shape, dtype=np.result_type(self.dtype, X.dtype))
        for column in range(X.shape[1]):
            out[:, column] = self._matvec(X[:, column])
        return out

    @cached_property
    def _unknowns(self) -> np.ndarray:
        """Flat indices of the points inside the mask."""
        return np.arange(self.shape[0]) if self.mask is None else np.flatnonzero(self.mask)

    # -- The transposed operator is a stencil again -----------------------------------------------------------------

    def _transpose(self) -> "StencilOperator":
        """Row i + o of the transpose takes the coefficient of row i: roll the field, turn the offset."""
        axes = range(len(self.grid_shape))
        return StencilOperator(
            [tuple(-step for step in offset) for offset in self.offsets],
            [np.roll(c, offset, axis=axes) for offset, c in zip(self.offsets, self.coefficients, strict=True)],
            shape=self.grid_shape,
            spacing=self.spacing,
            boundary=self.boundary,
            centring=self.centring,
            mask=self.mask,
        )

    def _adjoint(self) -> "StencilOperator":
        return self._adjoint_operator

    @cached_property
    def _adjoint_operator(self) -> "StencilOperator":
        transposed = self._transpose()
        if self.dtype.kind == "c":
            transposed.coefficients = transposed.coefficients.conj()
            transposed.coefficients.flags.writeable = False
        return transposed

    def _rmatvec(self, x: np.ndarray) -> np.ndarray:
        return self._adjoint_operator._matvec(x)

    # -- Other forms ------------------------------------------------------------------------------------------------

    def diagonal(self) -> np.ndarray:
        """The coefficients of the unknowns themselves, shape ``(n,)``.

        An offset that wraps all the way round a short periodic axis counts too.
        """
        total = np.zeros(self.grid_shape, dtype=self.dtype)
        for offset, array in zip(self.offsets, self.coefficients, strict=True):
            wrapped = [
                step % size if periodic else step
                for step, size, periodic in zip(offset, self.grid_shape, self.periodic, strict=True)
            ]
            if not any(wrapped):
                total += array
        return self.to_vector(total)

    def tocsr(self) -> sp.csr_array:
        """The same operator as a sparse array in CSR format; zero coefficients are not stored."""
        coefficients, shifts, (rows, columns, values) = self._parts
        points = coefficients.shape[1]
        stored = int(np.count_nonzero(coefficients))
        integer = np.int32 if max(stored + rows.size, points) < np.iinfo(np.int32).max else np.int64
        indptr, indices = np.zeros(points + 1, dtype=integer), np.empty(stored, dtype=integer)
        data = np.empty(stored, dtype=self.dtype)
        _fill_csr(coefficients, shifts, indptr, indices, data)
        matrix = sp.csr_array((data, indices, indptr), shape=(points, points))
        # Two offsets may be the same shift on grids a point or two wide, but never in the same row.
        if rows.size:
            used = values != 0
            matrix = matrix + sp.csr_array((values[used], (rows[used], columns[used])), shape=(points, points))
        if self.mask is not None:
            matrix = matrix[self._unknowns][:, self._unknowns]
        return sp.csr_array(matrix)

    @classmethod
    def from_csr(
        cls,
        A: Any,
        shape: Sequence[int],
        *,
        spacing: float | Sequence[float] = 1.0,
        centring: Centring | Sequence[str] = "cell",
        reach: int = 1,
    ) -> "StencilOperator":
        """Recognise the stencil in a sparse matrix whose unknowns are the points of a grid in C order.

        What the matrix says of the sides, and what it does not, is in `solvers.recognise.recognise`.

        Parameters
        ----------
        A : sparse matrix or array, shape (n, n)
        shape : tuple of int
            Grid points per axis; their product is n.
        spacing, centring
            As for the class; not to be had from the matrix.
        reach : int
            Largest offset along an axis that counts as a stencil.

        Raises
        ------
        ValueError
            If A is no stencil of this reach on this grid; the sentence names the first entry that is not.

        Examples
        --------
        >>> from solvers import gallery
        >>> A = gallery.poisson((4, 5))
        >>> again = StencilOperator.from_csr(A.tocsr(), (4, 5))
        >>> sorted(again.offsets) == sorted(A.offsets), again.boundary[0]
        (True, ('dirichlet', 'dirichlet'))
        """
        offsets, coefficients, sides = recognise(A, checked_shape(shape), reach)
        return cls(offsets, coefficients, shape=shape, spacing=spacing, boundary=sides, centring=centring)

    def __repr__(self) -> str:
        return (
            f"<StencilOperator of {len(self.offsets)} points on the grid {self.grid_shape}, {self.dtype}, "
            f"boundary {self.boundary}>"
        )
