r"""The relaxation factor from the spectrum: Young's formula, and the Lanczos process for what it needs.

For a consistently ordered A whose Jacobi iteration :math:`I - D^{-1} A` has the spectral radius :math:`\mu < 1`, SOR
converges fastest, asymptotically, with

.. math:: \omega^* = 1 + \Bigl(\frac{\mu}{1 + \sqrt{1 - \mu^2}}\Bigr)^2 = \frac{2}{1 + \sqrt{1 - \mu^2}}.

Source: D. M. Young, Iterative methods for solving partial differential equations of elliptic type, Trans. Amer. Math.
Soc. 76 (1954), theorem 3.1; bounds of Ritz values: B. N. Parlett, The Symmetric Eigenvalue Problem (1998), theorem
11.7.1.

Storage: 60 n-vectors while the Lanczos process runs, one between two matrices.
"""

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
from scipy.linalg import eigh_tridiagonal

from solvers.system import System
from solvers.tuning.protocol import Saved, checked_cost

_BASIS = 60  # vectors of a Lanczos process; then it starts again from the best of their combinations
_RESTARTS = 10
_ACCURACY = 5e-3  # of 1 - mu, thus 2.5e-3 of 2 - omega


def young_omega(radius: float) -> float:
    """Young's factor for a Jacobi radius.

    Parameters
    ----------
    radius : float
        Spectral radius of Jacobi's iteration matrix; what is above 1 counts as 1.

    Examples
    --------
    >>> n = 31  # Poisson on n points a side
    >>> bool(np.isclose(young_omega(np.cos(np.pi / (n + 1))), 2 / (1 + np.sin(np.pi / (n + 1)))))
    True
    """
    return 2.0 / (1.0 + sqrt(max(1.0 - radius * radius, 0.0)))


class JacobiRadius(Saved):
    r"""The largest eigenvalue :math:`\mu` of :math:`I - D^{-1} A`, for one symmetric A after another.

    The Lanczos process on :math:`J = I - D^{-1/2} A D^{-1/2}` runs until its largest Ritz value :math:`\theta` with the
    residual :math:`\rho = \|J v - \theta v\|` satisfies

    .. math:: e = \min\Bigl(\rho, \frac{\rho^2}{(1 - \theta) / 2}\Bigr) \le 0.005\,(1 - \theta).

    An eigenvalue is within :math:`\rho` of :math:`\theta`, and within e where the others are further away than half of
    :math:`1 - \theta`, as for all elliptic problems. The Ritz values themselves would show a distance that is too large
    until they have converged. What is returned is :math:`\theta + e`: a factor a little too large costs SOR less than
    one a little too small. For the next A one product with the v of the last tells how good it still is; for a shifted
    A, whose eigenvectors are the same, little else is needed.

    Attributes
    ----------
    products : int
        Products with a matrix so far.

    Examples
    --------
    >>> from solvers import gallery
    >>> radius = JacobiRadius()
    >>> A = gallery.poisson((20, 20))
    >>> bool(abs(1 - radius(A) - (1 - np.cos(np.pi / 21))) < 0.005 * (1 - np.cos(np.pi / 21)))
    True
    >>> before = radius.products
    >>> for shift in (0.1, 0.2):
    ...     _ = radius(A.tocsr() + shift * np.eye(400))
    >>> radius.products - before
    2
    """

    _saved = ("products", "_vector")

    def __init__(self) -> None:
        self.products = 0
        self._vector = np.empty(0)

    def __call__(self, A: Any) -> float:
        """An upper bound of mu that is as sharp as the class says.

        Raises
        ------
        ValueError
            If A shows no diagonal, or it is not positive.
        """
        system = System.of(A)
        diagonal = system.diagonal
        if diagonal is None or not (diagonal.real > 0.0).all():
            raise ValueError(
                "A: a spectral estimate of omega needs a symmetric matrix with a positive diagonal, and "
                + ("shows none" if diagonal is None else "some of it is not positive")
            )
        root = 1.0 / np.sqrt(diagonal.real)

        def product(v: np.ndarray) -> np.ndarray:
            self.products += 1
            return v - root * np.asarray(system.matvec(np.ascontiguousarray(root * v)))

        if self._vector.size == root.size:
            start = self._vector
        else:
            # Smooth, as the slowest error is, and a random part, so that no eigenvector is missing.
            start = (1.0 + 0.1 * np.random.default_rng(0).standard_normal(root.size)) / root
        start = start / np.linalg.norm(start)
        image = product(start)
        value = float(start @ image)
        error = _error(float(np.linalg.norm(image - value * start)), value)
        for _ in range(_RESTARTS):
            if error <= _ACCURACY * (1.0 - value):
                break
            value, error, start = _lanczos(product, start, image)
            if error > _ACCURACY * (1.0 - value):
                image = product(start)
        self._vector = start
        return min(value + error, 0.5 * (1.0 + value)) if value < 1.0 else value


def _error(residual: float, value: float) -> float:
    return min(residual, 2.0 * residual * residual / (1.0 - value)) if value < 1.0 else residual


def _lanczos(
    product: Callable[[np.ndarray], np.ndarray], start: np.ndarray, image: np.ndarray
) -> tuple[float, float, np.ndarray]:
    """Largest Ritz value, its error, its vector; `image` is the product with `start`, a unit vector."""
    basis = np.empty((min(_BASIS, start.size), start.size))
    diagonal: list[float] = []
    beside: list[float] = []
    v, w = start, image
    while True:
        k = len(diagonal)
        basis[k] = v
        diagonal.append(float(v @ w))
        w = w - basis[: k + 1].T @ (basis[: k + 1] @ w)  # against all: copies of the largest Ritz value would mislead
        beta = float(np.linalg.norm(w))
        values, vectors = eigh_tridiagonal(np.array(diagonal), np.array(beside))
        value, s = float(values[-1]), vectors[:, -1]
        error = _error(beta * abs(float(s[-1])), value)
        if error <= _ACCURACY * (1.0 - value) or beta <= 1e-14 or k + 1 == len(basis):
            vector = basis[: k + 1].T @ s
            return value, error, vector / np.linalg.norm(vector)
        beside.append(beta)
        v = w / beta
        w = product(v)


class SpectralOmega(Saved):
    r"""Young's :math:`\omega^*` for each system, from the `JacobiRadius` of its matrix.

    Parameters
    ----------
    A : array, sparse matrix or array, or StencilOperator, optional
        The matrix of all systems that come without one.

    Attributes
    ----------
    products : int
        Products with matrices so far: a few dozen for the first, then one for a matrix with nearly the same eigenvector
        and none where the matrix is the same object.

    Raises
    ------
    ValueError
        If there is no matrix, or it has no positive diagonal.

    Examples
    --------
    >>> from solvers import gallery
    >>> policy = SpectralOmega(gallery.poisson((31, 31)))
    >>> bool(abs(policy.suggest() - 2 / (1 + np.sin(np.pi / 32))) < 1e-3)
    True
    """

    _saved = ("_radius", "_omega", "_open")

    def __init__(self, A: Any = None) -> None:
        self._radius = JacobiRadius()
        self._seen: Any = None
        self._omega = 0.0
        self._open = False
        self.probabilities = np.ones(1)
        if A is not None:
            self.suggest(A=A)
            self._open = False

    @property
    def products(self) -> int:
        return self._radius.products

    def suggest(self, context: Any = None, A: Any = None) -> float:
        """Young's factor for A, or that of the last A; the context is not used."""
        if A is not None and A is not self._seen:
            self._omega = young_omega(self._radius(A))
            self._seen = A
        if not self._omega:
            raise ValueError("A: SpectralOmega has seen no matrix yet; give suggest(A=...) one")
        self._open = True
        return self._omega

    def update(self, cost: float) -> None:
        """There is nothing to learn."""
        checked_cost(cost, self._open)
        self._open = False
