"""The one protocol of preconditioners, and the registry through which they are named."""

from typing import Any, Protocol, Self, runtime_checkable

import numpy as np

from solvers.registry import Registry

preconditioners: Registry = Registry("preconditioner", "southwell.preconditioners")


@runtime_checkable
class Preconditioner(Protocol):
    """Approximate inverse of a matrix: set up once for each matrix, applied many times.

    A preconditioner can be given as `M` to every method here, and to scipy's, as soon as it is set up; one that is
    not is set up by the method it is given to.

    Attributes
    ----------
    shape : (n, n), or None before `setup`
    dtype : numpy.dtype
    symmetric, positive : bool
        Whether `matvec` is a symmetric (Hermitian) and a positive definite operator, as far as the matrix shows: both
        are needed by `cg`.

    Notes
    -----
    Optional: ``rmatvec``, the adjoint of `matvec`, for the adjoint solves of `solvers.autograd`; ``setup_applies``,
    what a set-up costs in applications, for `Lagged`.
    """

    shape: tuple[int, int] | None
    dtype: np.dtype
    symmetric: bool
    positive: bool

    def setup(self, A: Any) -> Self:
        """Prepare for the matrix A (anything that `solvers.cg` takes and that has the entries needed here)."""

    def matvec(self, r: np.ndarray) -> np.ndarray:
        """Approximation of the solution z of ``A z = r``, shape ``(n,)``; a fresh array."""


class Lagging(Protocol):
    """A preconditioner that may be that of an earlier matrix, and can be renewed in the middle of a solve.

    Attributes
    ----------
    fresh : bool
        It was set up for the matrix at hand, or cannot be.
    worn_out : bool
        It was not, and the solve would by now have been cheaper if it had.
    """

    fresh: bool

    @property
    def worn_out(self) -> bool: ...

    def refresh(self, A: Any) -> bool:
        """Set up for A; False if that is impossible, and nothing is changed."""


def lags(M: Any) -> bool:
    """Whether M is `Lagging`: much quicker than Python's own check of a protocol, which every solve would pay."""
    return hasattr(M, "refresh") and hasattr(M, "fresh")
