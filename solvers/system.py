"""What is known of A, gathered in one object whatever form A comes in.

A may be an array, a sparse matrix or array, a `StencilOperator`, a `LinearOperator` (or anything with ``shape`` and
``matvec``), or a plain callable. The solvers see a `System`: a counted product, and facts that are worked out at most
once, when somebody asks.
"""

from collections.abc import Callable
from functools import cached_property
from math import frexp, inf, ldexp, sqrt
from typing import Any

import numpy as np
import scipy.sparse as sp

from solvers import aligned
from solvers.csr import Product
from solvers.detect import detect
from solvers.half_stencil import HalfStencil
from solvers.kronecker_sum import KroneckerSum
from solvers.krylov.updates import xpay
from solvers.stencil import StencilOperator
from solvers.stencil_facts import asymmetry, entries_are_apart

NUMBER_TYPES = "float32, float64, complex64 or complex128"


def working_dtype(*dtypes: Any) -> np.dtype:
    """Common dtype of some; whole numbers become float64.

    Raises
    ------
    TypeError
        If it is not one of float32, float64, complex64 and complex128.

    Examples
    --------
    >>> working_dtype(np.float32, np.complex64), working_dtype(np.int8)
    (dtype('complex64'), dtype('float64'))
    """
    dtype = np.result_type(*dtypes)
    if dtype.kind in "iub":
        return np.dtype(np.float64)
    if dtype.char not in "fdFD":
        raise TypeError(f"expected numbers of type {NUMBER_TYPES}, got {dtype}; convert them first")
    return dtype


def norm(v: np.ndarray) -> float:
    """Euclidean norm of a vector, safe where squares of its entries would overflow or underflow.

    Parameters
    ----------
    v : ndarray, shape (n,)
        Real or complex.

    Examples
    --------
    >>> norm(np.array([5e200, 0.0])), norm(np.array([3e-320, 0.0])) > 0, norm(np.array([np.inf, 1.0]))
    (5e+200, True, inf)
    """
    # BLAS's own nrm2, safe too, takes ten times as long as the inner product.
    square = float(np.vdot(v, v).real)
    if v.dtype.char in "dD" and 1e-280 < square < 1e280:
        return sqrt(square)
    largest = float(np.max(np.abs(v)))
    if not 0.0 < largest < inf:
        return largest
    # Division by a power of two changes no bit, so that norms of multiples by one are multiples.
    exponent = frexp(largest)[1]
    scaled = np.ldexp(v.view(v.real.dtype).astype(np.float64), -exponent)
    return ldexp(sqrt(float(np.dot(scaled, scaled))), exponent)


class System:
    """A square operator with counted products and the cheap facts about it.

    Parameters
    ----------
    A : array, sparse matrix or array, StencilOperator, LinearOperator or callable
        A callable takes a vector ``(n,)`` and returns one.
    size : int, optional
        Number of unknowns; needed for a callable, checked otherwise.
    dtype : dtype, optional
        Working dtype, at least that of A; default A's own (float64 for whole numbers).
    name : str
        What messages call it.
    exactly : bool
        Work in `dtype` even where A's own is wider, as a preconditioner does for the method it serves.

    Attributes
    ----------
    shape : tuple
        ``(n, n)``.
    dtype : numpy.dtype
    products : int
        Applications to one vector so far.
    stencil : StencilOperator or None
        A itself if it is one, or what `look_for_grid` found.

    Raises
    ------
    ValueError
        If A is empty, not square, or does not have `size` rows.
    TypeError
        If A is none of the above, or does not hold numbers.

    Examples
    --------
    >>> system = System(np.array([[2, 1], [1, 3]]))
    >>> system.matvec(np.ones(2)), system.products
    (array([3., 4.]), 1)
    >>> system.symmetric, system.diagonal
    (True, array([2., 3.]))
    """

    def __init__(
        self, A: Any, size: int | None = None, dtype: Any = None, name: str = "A", exactly: bool = False
    ) -> None:
        self.name = name
        self.products = 0
        self.original = A
        self.stencil = A if isinstance(A, StencilOperator) else None
        if isinstance(A, list | tuple | np.matrix):
            A = np.asarray(A)
        explicit = isinstance(A, np.ndarray) or sp.issparse(A)
        if explicit or hasattr(A, "matvec"):
            self.shape = _checked_shape(A.shape, size, name)
        elif callable(A) and size is not None:
            self.shape = (size, size)
        else:
            raise TypeError(
                f"{name}: expected an array, a sparse matrix, a LinearOperator or a callable, got {type(A).__name__}"
                + ("; give x0 or b so that its size is known" if callable(A) else "")
            )
        self.dtype = self._working_dtype(getattr(A, "dtype", None), dtype, exactly)
        self._explicit: np.ndarray | sp.csr_array | None = None
        if explicit:
            self._explicit = self._as_matrix(A)
            matrix = self._explicit
            self._product: Callable[[np.ndarray], np.ndarray] | None = (
                matrix.dot if isinstance(matrix, np.ndarray) else Product(matrix)
            )
        elif self.stencil is not None and self.stencil.dtype == self.dtype:
            self._product = self.stencil._matvec  # the kernel itself: what LinearOperator.matvec checks, we know
        else:
            self._black_box = A.matvec if hasattr(A, "matvec") else A
            # Not a method of its own: an object that holds itself lives on, with its memory, until the collector runs.
            self._product = None

    def _working_dtype(self, own: Any, asked: Any, exactly: bool) -> np.dtype:
        try:
            dtype = working_dtype(*(d for d in (own, asked) if d is not None)) if own or asked else np.dtype(float)
        except TypeError as error:
            raise TypeError(f"{self.name}: {error}") from None
        if not exactly:
            return dtype
        if dtype.kind != np.dtype(asked).kind:
            raise ValueError(f"{self.name}: is complex while A and b are real; make b complex to work with it")
        return np.dtype(asked)

    @classmethod
    def of(cls, A: Any, size: int | None = None, dtype: Any = None, name: str = "A") -> "System":
        """A itself if it is a System of that dtype already, so that facts and counts are kept; otherwise a new one."""
        if isinstance(A, System):
            if size not in (None, A.shape[0]):
                _checked_shape(A.shape, size, name)
            if dtype is None or working_dtype(A.dtype, dtype) == A.dtype:
                return A
            A = A.original
        return cls(A, size, dtype, name)

    def _as_matrix(self, A: Any) -> "np.ndarray | sp.csr_array":
        if sp.issparse(A):
            # csr_array of a csr_matrix shares its data; astype copies only where the dtype changes
            return A if isinstance(A, sp.csr_array) and A.dtype == self.dtype else sp.csr_array(A, dtype=self.dtype)
        return np.asarray(A, dtype=self.dtype)

    def look_for_grid(self) -> StencilOperator | None:
        """A as a stencil, recognised in a sparse matrix if need be; products and facts then come from there, faster."""
        if self.stencil is None and isinstance(self._explicit, sp.csr_array):
            self.stencil = detect(self._explicit)
            if self.stencil is not None:
                self._product = self.stencil._matvec
        return self.stencil

    def negated(self) -> "System":
        """The system of -A, for an A that shows its entries."""
        A = self.stencil
        if A is None:
            return System(-self._explicit, dtype=self.dtype)  # type: ignore[operator]
        coefficients = -A.coefficients
        coefficients.flags.writeable = False
        return System(
            StencilOperator(A.offsets, coefficients, A.grid_shape, A.spacing, A.boundary, A.centring, A.mask),
            dtype=self.dtype,
        )

    # -- Products ---------------------------------------------------------------------------------------------------

    def matvec(self, x: np.ndarray) -> np.ndarray:
        """A x for a vector ``(n,)``. What comes back may be the operator's own buffer: read it, do not write to it."""
        self.products += 1
        return self._checked_product(x) if self._product is None else self._product(x)

    def residual(self, b: np.ndarray, x: np.ndarray) -> np.ndarray:
        """``b - A x``, a fresh array; in the memory of the product where that is nobody else's."""
        if self._half is not None:
            self.products += 1
            return self._half.residual(b, x)
        Ax = self.matvec(x)
        return b - Ax if self._product is None else np.subtract(b, Ax, out=Ax)

    def advance(self, z: np.ndarray, beta: float, p: np.ndarray) -> tuple[np.ndarray, float]:
        """``p = z + beta p`` in place; returns A p, to be read before the next product only, and ``p'A p``.

        p comes from `direction`.
        """
        if self._half is None:
            xpay(z, p.real.dtype.type(beta), p)
            q = self.matvec(p)
            return q, float(np.vdot(p, q).real)
        self.products += 1
        return self._image, self._half.advance(z, beta, p, self._image)

    def direction(self, z: np.ndarray, p: np.ndarray | None = None) -> np.ndarray:
        """p, or zeros, as `advance` takes it with this z: symmetric stencils multiply single precision as well."""
        dtype = z.dtype if self._half is not None else self.dtype
        return aligned.zeros(z.shape, dtype) if p is None else p.astype(dtype, copy=False)

    @cached_property
    def _half(self) -> HalfStencil | None:
        """Half of a symmetric stencil."""
        if self.stencil is None or self.stencil.dtype != self.dtype:
            return None
        return self.stencil.half

    @cached_property
    def _image(self) -> np.ndarray:
        return aligned.empty(self.shape[0], self.dtype)

    def _checked_product(self, x: np.ndarray) -> np.ndarray:
        y = np.asarray(self._black_box(x))
        if y.size != x.size or y.ndim > 2:
            raise ValueError(f"{self.name}: expected a product of shape {x.shape}, got {y.shape}")
        if y.dtype != self.dtype:
            if y.dtype.kind == "c" and self.dtype.kind != "c":
                raise ValueError(
                    f"{self.name}: returned complex numbers for a real vector; make b complex to work with them"
                )
            y = y.astype(self.dtype)
        return y.reshape(-1)

    @cached_property
    def matrix(self) -> "np.ndarray | sp.csr_array | None":
        """The explicit matrix: an ndarray, a CSR array (of a StencilOperator too), or None."""
        if self._explicit is None and self.stencil is not None:
            return self._as_matrix(self.stencil.tocsr())
        return self._explicit

    # -- Facts ------------------------------------------------------------------------------------------------------

    @cached_property
    def finite(self) -> bool:
        """No NaN or infinity among the stored entries; True where there are none to look at."""
        if self._separable is not None:
            return True
        if self.stencil is not None:
            return self.stencil.row_sums.finite or bool(np.isfinite(self.stencil.coefficients).all())
        if self._explicit is None:
            return True
        return bool(np.isfinite(self._explicit.data if sp.issparse(self._explicit) else self._explicit).all())

    @cached_property
    def diagonal(self) -> np.ndarray | None:
        """The diagonal ``(n,)``, or None where it cannot be had."""
        if self._half is not None:
            return self._half.diagonal
        if self._explicit is not None and self.stencil is None:
            return np.asarray(self._explicit.diagonal())
        diagonal = getattr(self.stencil if self.stencil is not None else self.original, "diagonal", None)
        return np.asarray(diagonal(), dtype=self.dtype) if callable(diagonal) else None

    @cached_property
    def _diagonal_range(self) -> tuple[float, float]:
        """Smallest and largest real part on the diagonal; NaN if it holds one."""
        if self._half is not None:
            return self._half.diagonal_range
        d = self.diagonal
        return (0.0, 0.0) if d is None else (float(d.real.min()), float(d.real.max()))

    @property
    def diagonal_positive(self) -> bool | None:
        """Every diagonal entry is real and positive: necessary for a positive definite A. None if unknown."""
        d = self.diagonal
        if d is None:
            return None
        return self._diagonal_range[0] > 0 and not (d.dtype.kind == "c" and np.any(d.imag))

    @property
    def maybe_negative_definite(self) -> bool:
        """It shows its entries, is symmetric, and its diagonal negative: as of a Laplacian that nobody has negated."""
        if self.stencil is None and self._explicit is None:
            return False
        d = self.diagonal
        return d is not None and bool(d[0].real < 0) and self._diagonal_range[1] < 0 and self.symmetric

    @cached_property
    def symmetric(self) -> bool:
        """A equals its conjugate transpose to rounding: entry by entry, or, without entries, in two random products.

        Two assemblies of the same entry differ by a few roundings of its largest contribution: 100 eps of the largest
        entry is far above that, and far below any convection worth the name.
        """
        if self._separable is not None or self._half is not None:  # a half is there if it is symmetric bit by bit
            return True
        if self.stencil is not None and entries_are_apart(self.stencil):
            largest = np.max(np.abs(self.stencil.coefficients))
            return bool(asymmetry(self.stencil) <= 100 * np.finfo(self.dtype).eps * largest)
        A = self.matrix
        if A is None:
            return self.seems_symmetric
        if isinstance(A, sp.csr_array):
            largest = np.max(np.abs(A.data), initial=0.0)
            difference = np.max(np.abs((A - sp.csr_array(A.conj().T)).data), initial=0.0)
        else:
            largest, difference = np.max(np.abs(A)), np.max(np.abs(A - A.conj().T))
        return bool(difference <= 100 * np.finfo(self.dtype).eps * largest)

    @property
    def seems_symmetric(self) -> bool:
        """Symmetric in two random products, which are cheaper than a look at all entries."""
        return self.asymmetry() <= _rounding(self.dtype)

    def asymmetry(self) -> float:
        """``|<A x, y> - <x, A y>|`` over ``|A x| |y| + |x| |A y|`` for two random vectors x and y.

        Zero to rounding for a symmetric A; for a nonsymmetric A so only with probability zero. Costs two products.
        """
        x, y = self._random_vectors(2)
        Ax, Ay = np.array(self.matvec(x)), self.matvec(y)
        size = norm(Ax) * norm(y) + norm(x) * norm(np.asarray(Ay))
        return float(abs(np.vdot(y, Ax) - np.vdot(Ay, x)) / size) if size > 0 else 0.0

    @property
    def maybe_definite(self) -> bool:
        """Symmetric, and neither its diagonal nor the sum of its entries shows that it is not positive (semi)definite.

        The diagonal entries are ``e_i' A e_i``, the sum is ``1' A 1``: all must be positive, the last may vanish.
        """
        if not (self.symmetric and self.diagonal_positive):
            return False
        if self.stencil is not None:
            return self.annihilates_constants or self.stencil.row_sums.total > 0
        return self.matrix is None or self.annihilates_constants or bool(self.matrix.sum().real > 0)

    @property
    def _separable(self) -> KroneckerSum | None:
        """The stencil as a Kronecker sum, if it is one: a few numbers for each axis tell all about it."""
        return None if self.stencil is None else self.stencil.kronecker_sum

    @property
    def entries(self) -> int:
        """Stored entries of A; 0 where they cannot be seen."""
        if self.stencil is not None:
            return int(self.stencil.coefficients.size)
        return 0 if self._explicit is None else int(self._explicit.size)

    @cached_property
    def m_matrix(self) -> bool:
        """Positive diagonal, no positive entry beside it, and no negative row sum, to rounding: a sufficient sign."""
        A = self.matrix
        if A is None or self.dtype.kind == "c" or not self.diagonal_positive:
            return False
        if isinstance(A, sp.csr_array) and not A.has_canonical_format:
            A = A.copy()
            A.sum_duplicates()
        values = A.data if isinstance(A, sp.csr_array) else A
        diagonal = np.asarray(A.diagonal())
        if np.count_nonzero(values > 0) != diagonal.size:
            return False
        sums = np.asarray(A.sum(axis=1))
        return bool(np.all(sums >= -100 * np.finfo(self.dtype).eps * np.max(diagonal)))

    @cached_property
    def annihilates_constants(self) -> bool:
        """A times the vector of ones vanishes to rounding, as for pure Neumann and periodic problems."""
        if self._separable is not None:
            return self._separable.annihilates_constants
        if self.stencil is not None:
            row_sum = self.stencil.row_sums.largest
        elif self.matrix is not None:
            row_sum = float(np.max(np.abs(np.asarray(self.matrix.sum(axis=1)))))
        else:
            return False
        smallest, largest = self._diagonal_range
        return bool(row_sum <= 100 * np.finfo(self.dtype).eps * max(largest, -smallest))

    def _random_vectors(self, count: int) -> np.ndarray:
        """The same `count` standard normal vectors each time, so that every run of a program is alike."""
        rng = np.random.default_rng(0)
        v = rng.standard_normal((count, self.shape[0]))
        if self.dtype.kind == "c":
            v = v + 1j * rng.standard_normal(v.shape)
        return v.astype(self.dtype)

    # -- Null space -------------------------------------------------------------------------------------------------

    def null_space_basis(self, null_space: Any) -> np.ndarray | None:
        r"""Orthonormal basis Q of the null space, verified against A.

        Parameters
        ----------
        null_space : None, "constant", or ndarray of shape (n,) or (n, k)
            Columns that span it.

        Returns
        -------
        ndarray, shape (n, k), or None

        Raises
        ------
        ValueError
            If the array does not fit, its columns are dependent, or ``A Q`` does not vanish; nor, for what the
            solvers assume of singular systems, ``A' Q`` (A and its transpose must share their null space, as every
            symmetric A does).
        """
        if null_space is None:
            return None
        n = self.shape[0]
        if isinstance(null_space, str):
            if null_space != "constant":
                raise ValueError(f"null_space: expected 'constant' or an array of shape ({n}, k), got {null_space!r}")
            basis = np.ones((n, 1))
        else:
            basis = np.asarray(null_space)
            basis = basis[:, None] if basis.ndim == 1 else basis
            if basis.ndim != 2 or basis.shape[0] != n or not 0 < basis.shape[1] < n:
                raise ValueError(
                    f"null_space: expected 'constant' or an array of shape ({n}, k) with 0 < k < {n}, "
                    f"got shape {np.shape(null_space)}"
                )
            if not np.isfinite(basis).all():
                raise ValueError("null_space: holds NaN or infinity")
        largest = np.max(np.abs(basis), axis=0)
        if not np.all(largest > 0):
            raise ValueError("null_space: a column is zero")
        basis = basis / largest
        Q, R = np.linalg.qr(
            (basis / np.linalg.norm(basis, axis=0)).astype(np.result_type(self.dtype, working_dtype(basis.dtype)))
        )
        if np.min(np.abs(np.diag(R))) < _rounding(self.dtype):
            raise ValueError("null_space: its columns are linearly dependent; leave out those that the others span")
        if Q.dtype.kind == "c" and self.dtype.kind != "c":
            raise ValueError("null_space: is complex while A and b are real; give a real basis")
        Q = Q.astype(self.dtype)
        (v,) = self._random_vectors(1)
        Av = np.array(self.matvec(v))
        size = norm(Av) / norm(v)
        for column in Q.T:
            image = norm(np.asarray(self.matvec(np.ascontiguousarray(column))))
            if not image <= _rounding(self.dtype) * size:
                raise ValueError(
                    f"null_space: A does not annihilate it: ||A q|| = {image:.1e} for a unit vector q, where ||A|| is "
                    f"about {size:.1e}; check the boundary conditions and the order of the unknowns"
                )
        # q' A v vanishes for a random v only if A' q does.
        left = np.abs(Q.conj().T @ Av)
        if not np.max(left) <= _rounding(self.dtype) * norm(Av) * np.sqrt(n):
            raise ValueError(
                "null_space: A annihilates it but A' does not, so A is not symmetric and its range is not the "
                "orthogonal complement of this null space; scale the rows so that both share it, or solve "
                "a least-squares problem"
            )
        return Q

    def __repr__(self) -> str:
        return f"<System {self.shape} {self.dtype} of {type(self.original).__name__}>"


def _rounding(dtype: np.dtype) -> float:
    """eps^(3/4): far above what a few hundred roundings make (eps), far below a vector that is wrong (1e-4 and up)."""
    return float(np.finfo(dtype).eps ** 0.75)


def _checked_shape(shape: tuple[int, ...], size: int | None, name: str) -> tuple[int, int]:
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(f"{name}: expected a square matrix, got shape {tuple(shape)}")
    if shape[0] == 0:
        raise ValueError(f"{name}: is empty; a system needs at least one unknown")
    if size is not None and shape[0] != size:
        raise ValueError(f"{name}: has shape {tuple(shape)}, which does not fit the {size} rows of b")
    return int(shape[0]), int(shape[1])
