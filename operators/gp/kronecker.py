"""Kronecker algebra: mode products, and the inverse of a sum of operators that act along one axis each."""

from collections.abc import Sequence

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

Array = NDArray[np.floating]

WELL_CONDITIONED = 1e6
"""Eigenvector matrices up to this condition number may be used; beyond, Schur vectors are."""


def along(matrix: Array, tensor: Array, axis: int) -> Array:
    """Multiply a tensor by a matrix along one axis.

    Parameters
    ----------
    matrix : ndarray
        ``(m, n)``.
    tensor : ndarray
        With n entries along `axis`.
    axis : int

    Returns
    -------
    ndarray
        With m entries along `axis`.
    """
    return np.moveaxis(np.tensordot(matrix, tensor, (1, axis)), 0, axis)


def along_all(matrices: Sequence[Array], tensor: Array) -> Array:
    """Multiply a tensor by one matrix along each axis: ``(M_1 kron M_2 kron ...) vec(tensor)``.

    Parameters
    ----------
    matrices : sequence of ndarray
    tensor : ndarray

    Returns
    -------
    ndarray
    """
    for axis, matrix in enumerate(matrices):
        tensor = along(matrix, tensor, axis)
    return tensor


class KroneckerSum:
    """``A_1 kron I kron I + I kron A_2 kron I + ... + shift``, factorised axis by axis, of one to three axes.

    Each factor is diagonalised, by an orthogonal matrix if it is symmetric (Lynch, Rice and Thomas 1964, fast
    diagonalisation); where eigenvectors are too nearly dependent, all factors are brought to triangular form by unitary
    matrices instead (Bartels and Stewart 1972). Either costs the cube of an axis, and no matrix over all unknowns.

    Parameters
    ----------
    factors : sequence of ndarray
        Square, one an axis.
    shift : float
        Added to all eigenvalues.

    Examples
    --------
    >>> A, B = np.array([[2.0, 1.0], [0.0, 3.0]]), np.array([[1.0, -1.0], [1.0, 1.0]])
    >>> X = np.arange(4.0).reshape(2, 2)
    >>> bool(np.allclose(KroneckerSum([A, B]).solve(A @ X + X @ B.T), X))
    True
    """

    def __init__(self, factors: Sequence[Array], shift: float = 0.0) -> None:
        self.shape = tuple(len(factor) for factor in factors)
        self.shift = shift
        found = [_diagonalise(factor) for factor in factors]
        self.triangular = any(each is None for each in found)
        if self.triangular:
            schur = [scipy.linalg.schur(factor, output="complex") for factor in factors]
            self.forms = [form for form, _ in schur]
            self.forward, self.backward = [q.conj().T for _, q in schur], [q for _, q in schur]
            eigenvalues = [np.diag(form) for form in self.forms]
        else:
            eigenvalues = [each[0] for each in found if each is not None]
            self.backward = [each[1] for each in found if each is not None]
            self.forward = [each[2] for each in found if each is not None]
        self.eigenvalues = sum(
            (v.reshape([-1 if a == axis else 1 for a in range(len(factors))]) for axis, v in enumerate(eigenvalues)),
            start=np.asarray(shift),
        )

    def solve(self, right: Array) -> Array:
        """X of the equation ``sum over axes of A_a X (along axis a) + shift X = right``.

        Parameters
        ----------
        right : ndarray
            Of the shape of the axes.

        Returns
        -------
        ndarray
        """
        turned = along_all(self.forward, right)
        solved = _triangular(self.forms, turned, self.shift) if self.triangular else turned / self.eigenvalues
        return along_all(self.backward, solved).real

    def solve_transposed(self, right: Array) -> Array:
        """The same with the transposed operator.

        Parameters
        ----------
        right : ndarray
        """
        turned = along_all([matrix.T for matrix in self.backward], right)
        if self.triangular:
            # A transposed upper triangle is a lower one; reversed, it is an upper one again.
            forms = [form.T[::-1, ::-1] for form in self.forms]
            solved = np.flip(_triangular(forms, np.flip(turned), self.shift))
        else:
            solved = turned / self.eigenvalues
        return along_all([matrix.T for matrix in self.forward], solved).real

    def log_determinant(self) -> float:
        """Logarithm of the absolute value of the determinant."""
        return float(np.log(np.abs(self.eigenvalues)).sum())


def _diagonalise(factor: Array) -> tuple[Array, Array, Array] | None:
    """Eigenvalues, eigenvectors and their inverse, or None where they are too nearly dependent."""
    scale = np.abs(factor).max(initial=0.0)
    if np.abs(factor - factor.T).max(initial=0.0) <= 1e-10 * scale:
        values, vectors = scipy.linalg.eigh((factor + factor.T) / 2)
        return values, vectors, vectors.T
    values, vectors = scipy.linalg.eig(factor)
    if np.linalg.cond(vectors) > WELL_CONDITIONED:
        return None
    return values, vectors, np.linalg.inv(vectors)


def _triangular(forms: Sequence[Array], right: Array, shift: complex) -> Array:
    """The equation with upper triangular factors: Sylvester's for two axes, by substitution along a third."""
    if len(forms) == 1:
        return scipy.linalg.solve_triangular(forms[0] + shift * np.eye(len(forms[0])), right)
    if len(forms) == 2:
        (trsyl,) = scipy.linalg.get_lapack_funcs(("trsyl",), (forms[0],))
        shifted = forms[0] + shift * np.eye(len(forms[0]))
        # trsyl's second factor acts from the right as it is, and ours transposed; conjugated it is the same triangle.
        solution, scale, _ = trsyl(shifted, forms[1].conj(), right, tranb="C")
        return solution / scale
    last = forms[2]
    solution = np.zeros(right.shape, complex)
    for k in reversed(range(len(last))):
        known = right[..., k] - solution[..., k + 1 :] @ last[k, k + 1 :]
        solution[..., k] = _triangular(forms[:2], known, shift + last[k, k])
    return solution
