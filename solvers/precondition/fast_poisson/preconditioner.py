r"""Fast Poisson solvers: exact for constant coefficients, a preconditioner for variable ones.

Sources: R. W. Hockney, A fast direct solution of Poisson's equation using Fourier analysis, J. ACM 12 (1965) 95;
B. L. Buzbee, G. H. Golub, C. W. Nielson, On direct methods for solving Poisson's equations, SIAM J. Numer. Anal. 7
(1970) 627; P. Concus, G. H. Golub, Use of fast direct methods for the efficient numerical solution of nonseparable
elliptic equations, SIAM J. Numer. Anal. 10 (1973) 1103.

Storage: one n-vector with products or in two dimensions, and the matrices of eigenvectors. Work: two transforms along
each axis but one, of half of the lines in two dimensions, and some passes.
"""

from math import prod
from typing import Any, Literal, Self

import numpy as np

from solvers.kronecker_sum import KroneckerSum
from solvers.precondition.fast_poisson.average import average, roughness
from solvers.precondition.fast_poisson.modes import Modes
from solvers.precondition.fast_poisson.odd_even import OddEven
from solvers.precondition.fast_poisson.transforms import seconds, transform
from solvers.precondition.protocol import preconditioners
from solvers.stencil import StencilOperator
from solvers.system import System

_REDUCTION_PAYS = 10_000  # points
_TRANSPOSITION = 2e-9  # seconds for a point, there and back: see the estimates in transforms.py


@preconditioners.register("fast-poisson")
class FastPoisson:
    r"""The exact inverse of an operator with constant coefficients: A itself, or one near it.

    With :math:`A_0 = \sum_a T_a` the Kronecker sum of a tridiagonal matrix for each axis, and :math:`Q` the product of
    the eigenvectors of all axes but one,

    .. math:: A_0^{-1} = Q\, (T_0 \otimes I + I \otimes \Lambda)^{-1} Q^T ,

    where the matrix in the middle is a tridiagonal system along the remaining axis for each mode of the others. Q is
    applied by fast sine, cosine or Fourier transforms, or by matrix products, whichever an estimate finds faster:
    products win on short axes, and where a transform would have a large prime factor. The remaining axis is the one
    whose transform would cost most. In two dimensions, where its sides are zero one spacing away, one step of cyclic
    reduction leaves half of the lines to be transformed.

    If A is such a sum (constant coefficients, any conditions on the sides, one-dimensional or separable variable
    coefficients), one application solves. For other A, of the kind :math:`-\nabla\cdot(a\nabla u)`, the constants are
    geometric means of the coefficients along each axis, and the condition number of the preconditioned A is at most the
    contrast of a, whatever the grid. With :math:`D` the ratio of the diagonals of A and :math:`A_0` (which is a, but
    for a factor), :math:`D^{-1/2} A_0^{-1} D^{-1/2}` is much better where a is smooth, and worse where it jumps.

    Parameters
    ----------
    scaling : "auto", "sqrt" or "none"
        Whether to scale by :math:`D^{-1/2}`. "auto" does if :math:`(1 + E)^2` is below the contrast, with E the energy
        of :math:`D^{1/2}` in units of that of the smoothest mode. It plays no role where A is a Kronecker sum.

    Attributes
    ----------
    shape, dtype, symmetric, positive
        See `Preconditioner`. If A annihilates the constants, M does so too, and is positive on all others.
    exact : bool
        One application solves, to rounding.
    scaled : bool
        Whether D is used.
    contrast : float
        Of the coefficients that were replaced by constants; 1 if A is a Kronecker sum.

    Raises
    ------
    ValueError
        For unknown parameters; in `setup`, if A is no operator on a full grid, if neighbours couple with the wrong
        sign, if A is indefinite, or if two axes or more have neither a fast transform nor less than 2500 points.
    TypeError
        In `setup`, if A is complex.

    Notes
    -----
    An object holds its workspace: use one for each thread.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import FastPoisson, cg, gallery
    >>> A = gallery.poisson((150, 256))
    >>> M = FastPoisson().setup(A)
    >>> b = np.random.default_rng(0).standard_normal(A.shape[0])
    >>> bool(np.linalg.norm(b - A @ M.matvec(b)) < 1e-12 * np.linalg.norm(b))
    True
    >>> print(M)
    FastPoisson for the grid 150 x 256, float64: odd-even reduction and tridiagonal along axis 0,
    eigenvectors in 2 halves along axis 1, exact, symmetric positive definite
    >>> a = np.exp(np.sin(np.arange(150.0) / 40)[:, None] * np.cos(np.arange(256.0) / 50))
    >>> cg(gallery.diffusion(a), b, rtol=1e-8, M=FastPoisson()).iterations < 10
    True
    """

    setup_applies = 3.0  # the cost of a set-up in applications, for `Lagged`: 2 to 5 for variable coefficients

    def __init__(self, scaling: Literal["auto", "sqrt", "none"] = "auto") -> None:
        if scaling not in ("auto", "sqrt", "none"):
            raise ValueError(f"scaling: expected 'auto', 'sqrt' or 'none', got {scaling!r}")
        self.scaling = scaling
        self.shape: tuple[int, int] | None = None
        self.dtype: np.dtype = np.dtype(float)
        self.symmetric = True
        self.positive = False
        self.exact = False
        self.scaled = False
        self.contrast = 1.0

    # -- Set-up -----------------------------------------------------------------------------------------------------

    def setup(self, A: Any) -> Self:
        """Prepare for A: a StencilOperator, or a sparse matrix in which one can be recognised."""
        stencil = _stencil(A)
        total = stencil.kronecker_sum
        exact, contrast = total is not None, 1.0
        if total is None:
            replaced = average(stencil)
            total, contrast = replaced.operator, replaced.contrast
        root = None
        if not exact and self.scaling != "none":
            D = stencil.coefficients[stencil.offsets.index((0,) * len(total.shape))] / total.diagonal()
            if not np.all(D > 0):
                raise ValueError("A: fast Poisson needs a positive diagonal; choose another preconditioner")
            if self.scaling == "sqrt" or (1 + roughness(D, total, stencil.dtype)) ** 2 < contrast:
                root = np.sqrt(1 / D).astype(stencil.dtype)
        self._prepare(total, stencil.dtype)
        self._root = root
        self.shape, self.dtype = stencil.shape, stencil.dtype
        self.positive, self.exact, self.contrast, self.scaled = True, exact, contrast, root is not None
        return self

    def _prepare(self, total: KroneckerSum, dtype: np.dtype) -> None:
        """Choose the axis of the tridiagonal systems, and make transforms and factors."""
        costs = [seconds(T, dtype) for T in total.axes]
        together = [
            sum(costs[:axis] + costs[axis + 1 :]) + (_TRANSPOSITION if axis else 0.0) for axis in range(len(costs))
        ]
        line = int(np.argmin(together))
        if not np.isfinite(together[line]):
            raise ValueError(
                f"A: on the grid {total.shape} more than one axis has neither constant coefficients with a fast "
                "transform nor less than 2500 points; choose M='multigrid'"
            )
        others = [axis for axis in range(len(costs)) if axis != line]
        transforms = {axis: transform(total.axes[axis], dtype) for axis in others}
        along, across = total.axes[line], [total.axes[axis] for axis in others]
        solver: Modes | OddEven | None = None
        if len(others) == 1 and prod(total.shape) >= _REDUCTION_PAYS:
            solver = OddEven.of(along, across[0], transforms[others[0]], dtype)
        try:
            self._solver = solver or Modes(along, across, list(transforms.values()), dtype)
        except ValueError as error:
            raise ValueError(
                f"A: fast Poisson needs a positive definite operator, or a semidefinite one, and {error}; "
                "use 'direct', or minres without a preconditioner"
            ) from None
        self._grid, self._line = total.shape, line
        shape = [total.shape[axis] for axis in (line, *others)]
        self._moved = None if line == 0 else (np.empty(shape, dtype=dtype), np.empty(shape, dtype=dtype))
        self._names = [f"{transforms[axis].name} along axis {axis}" for axis in others]

    # -- Use --------------------------------------------------------------------------------------------------------

    def matvec(self, r: np.ndarray) -> np.ndarray:
        """The solution z of ``A_0 z = r`` (of ``D^(1/2) A_0 D^(1/2) z = r`` if scaled), shape ``(n,)``; fresh."""
        if self.shape is None:
            raise ValueError("this FastPoisson has no matrix yet: call setup(A) first")
        field = np.ascontiguousarray(r, dtype=self.dtype).reshape(self._grid)
        if self._root is not None:
            field = field * self._root
        z = np.empty(self._grid, dtype=self.dtype)
        if self._moved is None:
            self._solver.solve(field, z)
        else:
            source, target = self._moved
            np.copyto(source, np.moveaxis(field, self._line, 0))
            self._solver.solve(source, target)
            np.copyto(np.moveaxis(z, self._line, 0), target)
        if self._root is not None:
            z *= self._root
        return z.reshape(-1)

    def __str__(self) -> str:
        if self.shape is None:
            return f"FastPoisson (scaling {self.scaling!r}), not set up"
        grid = " x ".join(map(str, self._grid))
        way = "tridiagonal" if isinstance(self._solver, Modes) else "odd-even reduction and tridiagonal"
        kind = "exact" if self.exact else f"constants for coefficients of contrast {self.contrast:.3g}"
        scaled = ", scaled by the root of the diagonal" if self.scaled else ""
        definite = "semidefinite, constants projected out" if self._solver.singular.size else "definite"
        return (
            f"FastPoisson for the grid {grid}, {self.dtype}: "
            f"{', '.join([f'{way} along axis {self._line}', *self._names])}, {kind}{scaled}, "
            f"symmetric positive {definite}"
        )


def _stencil(A: Any) -> StencilOperator:
    """A as a real operator on a full grid, recognised in a sparse matrix where need be."""
    system = System.of(A)
    stencil = system.look_for_grid()
    if stencil is None:
        raise ValueError(
            "A: fast Poisson needs an operator on a structured grid, and none was recognised in "
            f"{type(system.original).__name__} of shape {system.shape}; make it a StencilOperator "
            "(StencilOperator.from_csr, if you know the shape of the grid), or choose M='amg'"
        )
    if stencil.mask is not None:
        raise ValueError(
            "A: fast Poisson needs all points of its grid, and this one has a mask; choose M='multigrid', which knows "
            "masks"
        )
    if stencil.dtype.kind == "c":
        raise TypeError(f"A: fast Poisson is for real operators, got {stencil.dtype}; choose M='direct'")
    if (0,) * len(stencil.grid_shape) not in stencil.offsets:
        raise ValueError("A: fast Poisson needs a positive diagonal, and A has none; choose another method")
    return stencil
