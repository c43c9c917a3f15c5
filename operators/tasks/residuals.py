"""Residuals to learn search directions from: what a solver of symmetric positive definite systems meets."""

import math

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from datagen.family import LinearSystem
from solvers import Status, cg

Array = NDArray[np.float64]
LOW_WEIGHT = 9.0
"""Weight of the lower Ritz vectors against the upper ones, as published."""


def cg_residuals(system: LinearSystem, count: int, depth: int, rng: np.random.Generator) -> Array:
    r"""Residuals of conjugate gradients, each after a number of iterations drawn from 0 to `depth`.

    The first run starts from the system's own right-hand side, the others from white noise. Early residuals hold all
    waves, later ones what conjugate gradients are slow to remove: what a direction has to be good at (Rudikov et al.,
    Neural operators meet conjugate gradients, ICML 2024, find training on them essential).

    Parameters
    ----------
    system : LinearSystem
        Symmetric positive definite (or semi-definite with its null space).
    count, depth : int
    rng : Generator

    Returns
    -------
    ndarray, shape (count, n)
        None of them zero.

    Raises
    ------
    ValueError
        If conjugate gradients find that the matrix is not positive definite.
    """
    n = len(system.b)
    residuals = np.empty((count, n))
    for number in range(count):
        own = number == 0 and bool(np.any(system.b))
        b = system.b if own else rng.standard_normal(n)
        if not own and system.null_space is not None:
            b = system.A @ b  # in the range
        found = cg(system.A, b, rtol=1e-6, maxiter=int(rng.integers(depth + 1)), null_space=system.null_space)
        if found.status in (Status.INDEFINITE_OPERATOR, Status.BREAKDOWN, Status.NONFINITE_OUTPUT):
            raise ValueError(
                "the systems of this dataset are not symmetric positive definite (conjugate gradients end with "
                f"{found.status.name}), and directions are learned for such systems only"
            )
        residual = b - system.A @ found.x
        residuals[number] = residual if np.any(residual) else b  # solved to the last bit: nothing left to learn from
    return residuals


def ritz_residuals(system: LinearSystem, count: int, vectors: int, rng: np.random.Generator) -> Array:
    r"""Random combinations of Ritz vectors with more weight on the lower ones: the published training data.

    `vectors` steps of the Lanczos process, with full reorthogonalisation, from ``A g``, ``g`` standard normal, give the
    tridiagonal matrix whose eigenvectors make the Ritz vectors :math:`q_1, q_2, \dots` by rising Ritz value; each
    residual is

    .. math:: b = \sum_i c_i q_i, \qquad c_i \sim 9 \, N(0, 1) \text{ for } i < m / 2 + m / 20, \quad N(0, 1)
              \text{ above.}

    (The released code has m = 10,000 for 262,144 unknowns, and 500 in place of m / 20: the same share.)

    Parameters
    ----------
    system : LinearSystem
    count, vectors : int
    rng : Generator

    Returns
    -------
    ndarray, shape (count, n)

    References
    ----------
    Kaneda et al., A deep conjugate direction method for iteratively solving linear systems, ICML 2023, section 4.
    """
    A, n = system.A, len(system.b)
    q = np.zeros((min(vectors, n), n))
    diagonal, beside = np.zeros(len(q)), np.zeros(len(q))
    q[0] = A @ rng.standard_normal(n)
    q[0] /= np.linalg.norm(q[0])
    m = len(q)
    for k in range(m):
        w = A @ q[k]
        diagonal[k] = q[k] @ w
        for _ in range(2):  # twice is enough (Giraud, Langou and Rozloznik 2005)
            w -= q[: k + 1].T @ (q[: k + 1] @ w)
        beside[k] = np.linalg.norm(w)
        if k + 1 == m or beside[k] <= 1e-12 * np.abs(diagonal[: k + 1]).max():  # an invariant subspace: all there is
            m = k + 1
            break
        q[k + 1] = w / beside[k]
    values, eigenvectors = scipy.linalg.eigh_tridiagonal(diagonal[:m], beside[: m - 1])
    if values[0] < -1e-8 * values[-1]:
        raise ValueError(
            f"the systems of this dataset are not symmetric positive definite (a Ritz value is {values[0]:.3g}), and "
            "directions are learned for such systems only"
        )
    kept = values > 1e-8 * values[-1]
    m = int(kept.sum())
    weights = np.where(np.arange(m) < m / 2 + math.ceil(m / 20), LOW_WEIGHT, 1.0)
    coefficients = weights * rng.standard_normal((count, m))
    return (coefficients @ eigenvectors[:, kept].T) @ q[: len(values)]
