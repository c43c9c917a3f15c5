"""Jacobi preconditioning: divide by the diagonal.

Source: Y. Saad, Iterative Methods for Sparse Linear Systems, 2nd ed. (2003), section 10.2.

Storage: 1 n-vector. Work: n multiplications.
"""

from typing import Any, Self

import numpy as np

from solvers.precondition.protocol import preconditioners
from solvers.system import System


@preconditioners.register("jacobi")
class Jacobi:
    """``M = D^-1`` with D the diagonal of A: pays where the diagonal varies, does nothing where it is constant.

    Raises
    ------
    ValueError
        In `setup`, if the diagonal of A cannot be had, or has a zero in it.

    Examples
    --------
    >>> import numpy as np
    >>> M = Jacobi().setup(np.array([[2.0, 1.0], [1.0, 4.0]]))
    >>> M.matvec(np.array([2.0, 2.0]))
    array([1. , 0.5])
    >>> print(M)
    Jacobi for 2 unknowns, float64: diagonal 2 to 4, symmetric positive definite
    """

    setup_applies = 20.0  # the cost of a set-up in applications, for `Lagged`

    def __init__(self) -> None:
        self.shape: tuple[int, int] | None = None
        self.dtype = np.dtype(float)
        self.symmetric = True
        self.positive = False
        self._inverse = np.empty(0)

    def setup(self, A: Any) -> Self:
        """Take the diagonal of A."""
        system = System.of(A)
        diagonal = system.diagonal
        if diagonal is None:
            raise ValueError(
                f"A: the Jacobi preconditioner needs its diagonal, and {type(system.original).__name__} shows none; "
                "give a matrix or a StencilOperator, or choose no preconditioner"
            )
        zero = np.flatnonzero(diagonal == 0)
        if zero.size:
            raise ValueError(
                f"A: has {zero.size} zeros on its diagonal, the first in row {zero[0]}, so Jacobi cannot divide by it; "
                "choose another preconditioner"
            )
        with np.errstate(over="ignore"):  # the method finds the infinity
            self._inverse = 1.0 / diagonal
        self.shape, self.dtype = system.shape, system.dtype
        self.symmetric = not np.any(diagonal.imag)
        self.positive = bool(self.symmetric and np.all(diagonal.real > 0))
        return self

    def matvec(self, r: np.ndarray) -> np.ndarray:
        """r divided by the diagonal."""
        return self._inverse * r

    def rmatvec(self, r: np.ndarray) -> np.ndarray:
        """r divided by the conjugate diagonal: the adjoint of `matvec`."""
        return self._inverse.conj() * r

    def __str__(self) -> str:
        if self.shape is None:
            return "Jacobi, not set up"
        size = 1 / np.abs(self._inverse)
        kind = ("symmetric positive definite" if self.positive else "indefinite") if self.symmetric else "complex"
        return f"Jacobi for {self.shape[0]} unknowns, {self.dtype}: diagonal {size.min():g} to {size.max():g}, {kind}"
