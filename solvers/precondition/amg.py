"""Algebraic multigrid: the hierarchy by PyAMG, the cycle by us.

Sources: K. Stueben, A review of algebraic multigrid, J. Comput. Appl. Math. 128 (2001) (Ruge-Stueben); P. Vanek,
J. Mandel, M. Brezina, Algebraic multigrid by smoothed aggregation, Computing 56 (1996); N. Bell, L. Olson, J. Schroder,
B. Southworth, PyAMG: Algebraic multigrid solvers in Python, JOSS 8 (2023).

Storage: operators of all levels, 1.3 to 3 times that of A (printed as operator complexity). Work of one application:
4 sweeps of Gauss-Seidel (2 down, 2 up) and one residual a level.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, Self, get_args

import numpy as np
import scipy.sparse as sp

from solvers.precondition.protocol import preconditioners
from solvers.system import System

Coarsening = Literal["auto", "ruge_stuben", "smoothed_aggregation"]


@preconditioners.register("amg")
class AMG:
    """One V-cycle of algebraic multigrid with symmetric Gauss-Seidel smoothing.

    Starting from zero with symmetric sweeps before and after, the cycle is a symmetric operator for a symmetric A, and
    positive definite for a positive definite one, so that `cg` may use it.

    Parameters
    ----------
    coarsening : "auto", "ruge_stuben" or "smoothed_aggregation"
        "auto" takes Ruge-Stueben for a real matrix whose off-diagonal entries are mostly not positive (scalar
        diffusion), smoothed aggregation otherwise.
    near_null_space : ndarray of shape (n, k), optional
        What the matrix nearly annihilates, for smoothed aggregation: the rigid body modes of elasticity, for example;
        the constants if None.

    Raises
    ------
    ImportError
        In `setup`, if PyAMG is not installed.
    ValueError
        In `setup`, if A has no entries to look at, or near_null_space does not fit.

    Examples
    --------
    >>> from solvers import cg, gallery
    >>> import numpy as np
    >>> A = gallery.poisson((100, 100))
    >>> result = cg(A, np.ones(10_000), rtol=1e-8, M=AMG())
    >>> result.method, result.converged, result.iterations < 15
    ('cg + AMG', True, True)
    """

    setup_applies = 15.0  # the cost of a set-up in applications, for `Lagged`

    def __init__(self, coarsening: Coarsening = "auto", near_null_space: np.ndarray | None = None) -> None:
        if coarsening not in get_args(Coarsening):
            raise ValueError(f"coarsening: expected one of {get_args(Coarsening)}, got {coarsening!r}")
        self.coarsening = coarsening
        self.near_null_space = near_null_space
        self.shape: tuple[int, int] | None = None
        self.dtype: np.dtype = np.dtype(float)
        self.symmetric = False
        self.positive = False
        self._hierarchy: Any = None

    def setup(self, A: Any) -> Self:
        """Build the hierarchy for A."""
        try:
            import pyamg
        except ImportError as error:
            raise ImportError("the AMG preconditioner needs PyAMG: pip install pyamg, or choose M='jacobi'") from error
        system = System.of(A)
        matrix = system.matrix
        if matrix is None:
            raise ValueError(
                f"A: algebraic multigrid needs the entries of A, and {type(system.original).__name__} shows none; give "
                "a sparse matrix or a StencilOperator, or choose no preconditioner"
            )
        # PyAMG works on csr_matrix in double precision; the cycle is only a preconditioner, so that is no loss.
        double = np.complex128 if system.dtype.kind == "c" else np.float64
        matrix = sp.csr_matrix(matrix, dtype=double)
        chosen = self.coarsening
        if chosen == "auto":
            chosen = "ruge_stuben" if _mostly_negative_links(matrix) else "smoothed_aggregation"
        # The pseudo-inverse on the coarsest level is what a singular (Neumann) matrix needs.
        with _same_random_numbers():
            if chosen == "ruge_stuben":
                self._hierarchy = pyamg.ruge_stuben_solver(matrix, max_coarse=_COARSEST, coarse_solver="pinv")
            else:
                self._hierarchy = pyamg.smoothed_aggregation_solver(
                    matrix,
                    B=self._candidates(system.shape[0], double),
                    symmetry="hermitian" if system.symmetric else "nonsymmetric",
                    max_coarse=_COARSEST,
                    coarse_solver="pinv",
                )
        self._kind = chosen
        self.shape, self.dtype = system.shape, np.dtype(double)
        self.symmetric = system.symmetric
        self.positive = bool(system.symmetric and system.diagonal_positive)
        return self

    def _candidates(self, n: int, dtype: Any) -> np.ndarray | None:
        if self.near_null_space is None:
            return None
        B = np.asarray(self.near_null_space, dtype=dtype)
        B = B[:, None] if B.ndim == 1 else B
        if B.ndim != 2 or B.shape[0] != n:
            raise ValueError(f"near_null_space: expected shape ({n}, k), got {np.shape(self.near_null_space)}")
        return B

    def matvec(self, r: np.ndarray) -> np.ndarray:
        """One V-cycle on ``A z = r`` from zero."""
        return self._cycle(0, np.array(r, dtype=self.dtype))

    def _cycle(self, index: int, r: np.ndarray) -> np.ndarray:
        level = self._hierarchy.levels[index]
        if index == len(self._hierarchy.levels) - 1:
            return np.asarray(self._hierarchy.coarse_solver(level.A, r)).reshape(r.shape)
        z = np.zeros_like(r)
        level.presmoother(level.A, z, r)
        z += level.P @ self._cycle(index + 1, level.R @ (r - level.A @ z))
        level.postsmoother(level.A, z, r)
        return z

    def __str__(self) -> str:
        if self.shape is None:
            return f"AMG ({self.coarsening}), not set up"
        sizes = [level.A.shape[0] for level in self._hierarchy.levels]
        return (
            f"AMG ({self._kind}) for {self.shape[0]} unknowns, {self.dtype}: {len(sizes)} levels of "
            f"{', '.join(map(str, sizes))} unknowns, operator complexity {self._hierarchy.operator_complexity():.2f}, "
            f"{'symmetric' if self.symmetric else 'nonsymmetric'}{' positive definite' if self.positive else ''}"
        )


_COARSEST = 100  # unknowns that a dense pseudo-inverse solves in microseconds


@contextmanager
def _same_random_numbers() -> Iterator[None]:
    """PyAMG starts its eigenvalue estimates from numpy's global stream; the same matrix must give the same cycle."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def _mostly_negative_links(A: sp.csr_matrix) -> bool:
    """Real, and the positive off-diagonal entries are at most a tenth of the negative ones, in sum."""
    if A.dtype.kind == "c":
        return False
    off_diagonal = A.data[A.indices != np.repeat(np.arange(A.shape[0]), np.diff(A.indptr))]
    return bool(off_diagonal[off_diagonal > 0].sum() <= -0.1 * off_diagonal[off_diagonal < 0].sum())
