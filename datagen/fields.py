"""Gaussian random fields, drawn by wavenumber.

A field is a sum of the Laplacian's eigenfunctions on the box with independent normal coefficients,

    u(x) = sum_j  sqrt(lambda_j) xi_j phi_j(x),     lambda_j = sigma^2 (|kappa_j|^2 + tau^2)^(-alpha),

so its covariance is the operator ``sigma^2 (-Laplacian + tau^2)^(-alpha)`` with the boundary condition of the basis
(Lindgren, Rue and Lindstroem 2011, J. R. Stat. Soc. B 73, eq. 2; away from the boundary it is the Matern covariance of
smoothness ``nu = alpha - d/2`` and inverse length ``tau``).

The numbers ``xi_j`` are drawn in shells of growing ``max_i j_i``. A finer grid draws further shells and leaves the
earlier ones as they are: every resolution gets the same coefficients for the wavenumbers it shares, which the published
generators (normals of the shape of the grid) do not give.

The sum is a matrix product along each axis. On large grids only the first modes, which hold nearly all of a field, are
summed in double precision, and the many others in single: that takes half the time, and errs by 1e-9 to 1e-7 of the
standard deviation, the more the rougher the field is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datagen.grids import Grid

BASES = ("periodic", "neumann", "dirichlet")
# Modes per axis over which `with_standard_deviation` sums: fixed, so that sigma does not depend on the grid.
_NORMALISATION_MODES = {1: 65536, 2: 1024, 3: 128}
# Modes per axis that are summed in double precision where the others are not, and how many there must be for that.
_IN_DOUBLE, _MANY = 64, 128**2


def wavenumbers(basis: str, modes: int, length: float) -> NDArray[np.float64]:
    """Angular wavenumbers ``kappa_j`` of the first modes of a basis on ``[0, length]``, shape ``(modes,)``.

    periodic: ``0, 2 pi/L, 2 pi/L, 4 pi/L, 4 pi/L, ...`` (constant, cosine, sine, cosine, sine, ...);
    neumann: ``j pi/L`` from j = 0; dirichlet: ``j pi/L`` from j = 1.

    Parameters
    ----------
    basis : {"periodic", "neumann", "dirichlet"}
    modes : int
    length : float
        L.
    """
    index = np.arange(modes)
    if basis == "periodic":
        return np.asarray((index + 1) // 2 * (2 * np.pi / length))
    return np.asarray((index + (basis == "dirichlet")) * (np.pi / length))


@lru_cache(maxsize=32)
def _basis_matrix(basis: str, modes: int, grid: Grid, axis: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Orthonormal eigenfunctions at the points of an axis, shape ``(points, modes)``."""
    length = grid.lengths[axis]
    phase = np.outer(grid.coordinates(axis), wavenumbers(basis, modes, length))
    if basis == "dirichlet":
        matrix = np.sqrt(2 / length) * np.sin(phase)
    else:
        matrix = np.sqrt(2 / length) * np.cos(phase)
        if basis == "periodic":
            matrix[:, 2::2] = np.sqrt(2 / length) * np.sin(phase[:, 2::2])
        matrix[:, 0] = np.sqrt(1 / length)
    matrix = matrix.astype(dtype)
    matrix.flags.writeable = False
    return matrix


@lru_cache(maxsize=32)
def _half_matrices(
    basis: str, modes: int, grid: Grid, axis: int, dtype: np.dtype[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Transposed `_basis_matrix` of the even and of the odd modes at the first half of the points, with the middle."""
    matrix = _basis_matrix(basis, modes, grid, axis, dtype)
    half = (matrix.shape[0] + 1) // 2
    return np.ascontiguousarray(matrix[:half, 0::2].T), np.ascontiguousarray(matrix[:half, 1::2].T)


def _expand_first(coefficients: NDArray[Any], basis: str, grid: Grid, axis: int) -> NDArray[Any]:
    """``coefficients.T @ matrix.T``, shape ``(rest, points)``, of coefficients ``(modes, rest)`` of an axis.

    Cosines and sines of a box are even or odd about its middle, ``phi_j(L - x) = (-1)^j phi_j(x)``, and so are the
    grid's points. Half of the points from even and odd modes apart, and the other half from their difference, take half
    the multiplications; they beat an FFT too where the length is prime, as the 421 of the published Darcy data.
    """
    modes, rest = coefficients.shape
    if basis == "periodic":
        return np.asarray(coefficients.T @ _basis_matrix(basis, modes, grid, axis, coefficients.dtype).T)
    even_matrix, odd_matrix = _half_matrices(basis, modes, grid, axis, coefficients.dtype)
    even, odd = coefficients[0::2].T @ even_matrix, coefficients[1::2].T @ odd_matrix
    half = even.shape[1]
    values = np.empty((rest, grid.shape[axis]), coefficients.dtype)
    np.subtract(even, odd, out=values[:, ::-1][:, :half])
    np.add(even, odd, out=values[:, :half])
    return values


@lru_cache(maxsize=8)
def _shell_rank(modes: int, dimension: int) -> NDArray[np.int64]:
    """Place in the stream of normals of each mode of the cube ``[0, modes)^d``: shells of max-norm, then C order.

    The cube of any smaller number of modes takes the first places, in the same order.
    """
    index = np.indices((modes,) * dimension).reshape(dimension, -1)
    order = np.lexsort((*index[::-1], index.max(axis=0)))
    rank = np.empty(modes**dimension, dtype=np.int64)
    rank[order] = np.arange(order.size)
    rank.flags.writeable = False
    return rank.reshape((modes,) * dimension)


def resolved_modes(basis: str, points: int, centring: str) -> int:
    """How many modes of a basis a grid tells apart; higher ones would alias.

    The Nyquist cosine of an even periodic grid is left out, since its sine partner vanishes on the grid.

    Parameters
    ----------
    basis : {"periodic", "neumann", "dirichlet"}
    points : int
    centring : {"cell", "node", "periodic-node"}
        Where the grid has its points.
    """
    if basis == "periodic":
        return 2 * ((points - 1) // 2) + 1
    if basis == "dirichlet" and centring == "node":
        return max(points - 2, 0)
    return points


@dataclass(frozen=True)
class GaussianRandomField:
    """Gaussian field with covariance ``sigma^2 (-Laplacian + tau^2)^(-alpha)`` on a box, in any dimension.

    Parameters
    ----------
    alpha : float
        Smoothness, more than d/2 (otherwise the variance is infinite).
    tau : float
        Inverse correlation length (1/length), not negative; 0 needs `zero_mean` unless all bases are "dirichlet".
    sigma : float
        Amplitude; the pointwise variance is about ``sigma^2 Gamma(nu) / (Gamma(alpha) (4 pi)^(d/2)) tau^(-2 nu)``
        with ``nu = alpha - d/2``; `with_standard_deviation` chooses it for a wanted one.
    basis : str or tuple of str
        "periodic", "neumann" or "dirichlet" for all axes, or one per axis.
    lengths : tuple of float
        The box; its number of entries is the dimension d.
    zero_mean : bool
        Leave the constant mode out, as the FNO authors' generators do.
    modes : int, optional
        Band limit: modes per axis. Default: all that the grid resolves.

    Examples
    --------
    >>> field = GaussianRandomField(alpha=2.0, tau=3.0, lengths=(1.0, 1.0), modes=8)
    >>> coarse = field.sample(np.random.default_rng(5), Grid((16, 16), (1.0, 1.0), "node"))
    >>> fine = field.sample(np.random.default_rng(5), Grid((31, 31), (1.0, 1.0), "node"))
    >>> bool(np.allclose(coarse, fine[::2, ::2]))
    True
    """

    alpha: float
    tau: float
    sigma: float = 1.0
    basis: str | tuple[str, ...] = "neumann"
    lengths: tuple[float, ...] = (1.0, 1.0)
    zero_mean: bool = False
    modes: int | None = None

    def __post_init__(self) -> None:
        dimension = len(self.lengths)
        if not (math.isfinite(self.alpha) and self.alpha > dimension / 2):
            raise ValueError(
                f"alpha must be more than half the dimension ({dimension / 2:g} here), or the field has infinite "
                f"variance; got {self.alpha}"
            )
        if not (math.isfinite(self.tau) and self.tau >= 0):
            raise ValueError(f"tau must be finite and not negative, got {self.tau}")
        if not (math.isfinite(self.sigma) and self.sigma > 0):
            raise ValueError(f"sigma must be positive and finite, got {self.sigma}")
        for name in self.bases:
            if name not in BASES:
                raise ValueError(f"basis must be one of {', '.join(BASES)}, got {name!r}")
        if len(self.bases) != dimension:
            raise ValueError(f"basis must be one name or {dimension} of them (one per axis), got {self.basis!r}")
        if self.tau == 0 and not self.zero_mean and "dirichlet" not in self.bases:
            raise ValueError("tau = 0 gives the constant mode infinite variance; set zero_mean=True or tau > 0")

    @property
    def bases(self) -> tuple[str, ...]:
        """The basis of each axis."""
        return (self.basis,) * len(self.lengths) if isinstance(self.basis, str) else tuple(self.basis)

    def eigenvalues(self, modes: Sequence[int]) -> NDArray[np.float64]:
        """``lambda_j`` of the covariance for the first modes of each axis, shape ``modes``."""
        squares = np.zeros(tuple(modes))
        for axis, (basis, count, length) in enumerate(zip(self.bases, modes, self.lengths, strict=True)):
            along = [1] * len(self.lengths)
            along[axis] = count
            squares = squares + (wavenumbers(basis, count, length) ** 2).reshape(along)
        values = np.zeros_like(squares)
        constant = (squares == 0) if self.zero_mean else np.zeros_like(squares, dtype=bool)
        np.power(squares + self.tau**2, -self.alpha, out=values, where=~constant)
        return self.sigma**2 * values

    def with_standard_deviation(self, standard_deviation: float) -> "GaussianRandomField":
        """The same field with sigma such that the variance, averaged over the box, is the square of this number.

        The average is ``sum_j lambda_j / volume`` over a fixed number of modes, whatever grid the field is drawn on.
        """
        variance = _average_variance(replace(self, sigma=1.0))
        if not 0 < variance < math.inf:
            raise ValueError(
                f"alpha={self.alpha:g} and tau={self.tau:g} on a box of {self.lengths} give a field of variance "
                f"{variance:g}, which double precision cannot hold; choose a smaller alpha, or tau nearer to 1 / length"
            )
        return replace(self, sigma=standard_deviation / math.sqrt(variance))

    def _modes(self, grid: Grid) -> tuple[int, ...]:
        resolved = [resolved_modes(b, n, grid.centring) for b, n in zip(self.bases, grid.shape, strict=True)]
        return tuple(resolved) if self.modes is None else tuple(min(n, self.modes) for n in resolved)

    def _expand(self, coefficients: NDArray[Any], grid: Grid) -> NDArray[Any]:
        """``sum_j c_j prod_i phi_{j_i}(x_i)`` at the grid's points, in the precision of the coefficients."""
        field = coefficients
        for axis, basis in enumerate(self.bases):
            # The axis that is expanded moves to the end, so d of them bring the axes back into order.
            rest = field.shape[1:]
            field = _expand_first(field.reshape(field.shape[0], -1), basis, grid, axis).reshape(*rest, grid.shape[axis])
        return field

    def sample(self, rng: np.random.Generator, grid: Grid) -> NDArray[np.float64]:
        """Draw one field, shape ``grid.shape``.

        How far the generator is advanced depends on the grid: give each field its own, with ``rng.spawn(1)[0]``.

        Raises
        ------
        ValueError
            If the grid's box is not the field's.
        """
        if grid.lengths != self.lengths:
            raise ValueError(f"grid covers a box of lengths {grid.lengths}, the field one of {self.lengths}")
        modes = self._modes(grid)
        if min(modes) == 0:
            return np.zeros(grid.shape)
        cube = max(modes)
        normals = rng.standard_normal(cube ** len(modes))
        rank = _shell_rank(cube, len(modes))[tuple(slice(n) for n in modes)]
        deviations, small, unit = _standard_deviations(self, modes)
        first = tuple(slice(n) for n in deviations.shape)
        field = self._expand(deviations * normals[rank[first]], grid)
        if small is not None:
            rest = small * normals.astype(np.float32)[rank]
            field += np.multiply(unit, self._expand(rest, grid), dtype=np.float64)
        return field

    def variance(self, grid: Grid) -> NDArray[np.float64]:
        """Pointwise variance ``sum_j lambda_j phi_j(x)^2`` over the modes that `sample` draws, shape ``grid.shape``."""
        variance = self.eigenvalues(self._modes(grid))
        for axis, basis in enumerate(self.bases):
            matrix = _basis_matrix(basis, variance.shape[0], grid, axis, variance.dtype)
            variance = np.tensordot(variance, matrix**2, axes=(0, 1))
        return np.ascontiguousarray(variance)


@lru_cache(maxsize=4)
def _standard_deviations(
    field: GaussianRandomField, modes: tuple[int, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float32] | None, float]:
    """``sqrt(lambda_j)``; the same for every sample of a family, hence remembered.

    Of the modes that are summed in double precision; of all, with zeros for those, where the others are summed in
    single, divided by a power of two, lest they overflow; and that power.
    """
    values = np.sqrt(field.eigenvalues(modes))
    if len(modes) == 1 or max(modes) <= _IN_DOUBLE or values.size < _MANY:
        values.flags.writeable = False
        return values, None, 1.0
    first = (slice(_IN_DOUBLE),) * len(modes)
    unit = 2.0 ** math.frexp(float(values.max()))[1]
    small = (values / unit).astype(np.float32)
    small[first] = 0
    large = values[first].copy()
    large.flags.writeable = small.flags.writeable = False
    return large, small, unit


@lru_cache(maxsize=32)
def _average_variance(field: GaussianRandomField) -> float:
    """Variance averaged over the box; the same for every sample of a family, hence remembered."""
    dimension = len(field.lengths)
    count = _NORMALISATION_MODES.get(dimension, 32)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        return float(field.eigenvalues((count,) * dimension).sum()) / math.prod(field.lengths)
