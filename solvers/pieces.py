"""Pieces of a symmetric matrix that nothing holds: unknowns coupled to each other only, whose rows sum to zero.

A domain that falls apart, cells cut off by obstacles, graphs of several components: each such piece adds a vector to
the null space of A, one on the piece and zero elsewhere. A row of zeros is a piece of one unknown.
"""

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as sla
from scipy.sparse.csgraph import connected_components

_TRIED = 4  # vectors with which a null space is looked for


def floating_pieces(A: sp.csr_array) -> list[np.ndarray]:
    """The unknowns of each piece that floats, in ascending order.

    Parameters
    ----------
    A : csr_array, shape (n, n)
        Symmetric.

    Returns
    -------
    list of ndarray of int
        Pieces whose row sums vanish to rounding, ``|sum_j a_ij| <= 100 eps max_j |a_jj|`` over the piece.

    Examples
    --------
    >>> held, floating = [[2.0, -1.0], [-1.0, 2.0]], [[1.0, -1.0], [-1.0, 1.0]]
    >>> floating_pieces(sp.csr_array(sp.block_diag([held, floating, [[0.0]]])))
    [array([2, 3]), array([4])]
    """
    coupled = sp.csr_array(A, copy=True)
    coupled.data = (coupled.data != 0).astype(np.int8)  # stored zeros couple nothing
    coupled.eliminate_zeros()
    count, label = connected_components(coupled, directed=False)
    row_sums, diagonal = np.abs(np.asarray(A.sum(axis=1))).reshape(-1), np.abs(A.diagonal())
    largest_sum, largest_diagonal = np.zeros(count), np.zeros(count)
    np.maximum.at(largest_sum, label, row_sums)
    np.maximum.at(largest_diagonal, label, diagonal)
    floats = largest_sum <= 100 * np.finfo(A.dtype).eps * largest_diagonal
    order = np.argsort(label, kind="stable")
    pieces = np.split(order, np.cumsum(np.bincount(label, minlength=count))[:-1])
    return [piece for piece, is_floating in zip(pieces, floats, strict=True) if is_floating]


def null_vectors(A: sp.csr_array) -> np.ndarray | None:
    """An orthonormal basis of the null space of a symmetric A, if it has 1 to 3 dimensions; otherwise None.

    Three steps of inverse iteration with the factors of ``A + delta I``, delta some eps of the norm of A, and the
    Rayleigh-Ritz values that come of it: those below 100 eps of the norm are zero to rounding.

    Examples
    --------
    >>> A = sp.csr_array([[1.0, -2.0, 0.0], [-2.0, 4.0, 0.0], [0.0, 0.0, 3.0]])
    >>> basis = null_vectors(A)
    >>> basis.shape, bool(np.max(np.abs(A @ basis)) < 1e-14)
    ((3, 1), True)
    """
    eps = np.finfo(A.dtype).eps
    size = float(np.max(np.abs(A).sum(axis=1)))
    tried = min(_TRIED, A.shape[0])
    basis = np.random.default_rng(0).standard_normal((A.shape[0], tried)).astype(A.dtype)
    try:
        factors = sla.splu(sp.csc_matrix(A + (10 * eps * size) * sp.eye_array(A.shape[0], format="csr")))
        for _ in range(3):
            basis, _ = np.linalg.qr(factors.solve(basis))
        values, vectors = np.linalg.eigh(basis.conj().T @ (A @ basis))
    except (RuntimeError, np.linalg.LinAlgError):  # exactly singular all the same, or overflow
        return None
    found = np.asarray(basis @ vectors[:, np.abs(values) <= 100 * eps * size])
    zero = np.linalg.norm(A @ found, axis=0) <= 100 * eps * size
    return found if 0 < found.shape[1] < _TRIED and zero.all() else None
