"""Trigonometric polynomials on a periodic box, in any dimension.

A field on a periodic grid of n points is taken for the polynomial

    u(x) = sum over |k_i| <= h_i of  c_k exp(i kappa_k . x),    h_i = (n_i - 1) // 2,    kappa_i = 2 pi k_i / L_i,

that has its values; the unpaired Nyquist mode of an even n is left out. The coefficients do not depend on the grid on
which values are given or wanted, so going to another grid is exact interpolation, and a product of p factors is
projected back *exactly* when it is formed on ``m_i >= (p + 1) h_i + 1`` points: zero padding. For p = 2 that is the
rule of two thirds (Orszag 1971, J. Atmos. Sci. 28, p. 1074), which says the same of the modes to keep on a grid.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import fft, ifft, irfft, next_fast_len, rfft

from datagen.grids import Grid


class Fourier:
    """The transforms between values and coefficients of real fields, and the symbols of derivatives.

    Coefficients have the shape ``(..., *modes)``: all wavenumbers ``0, ..., h, -h, ..., -1`` along every axis but the
    last, ``0, ..., h`` along the last. Whatever axes lead (batch, channels) are carried along.

    Parameters
    ----------
    grid : Grid
        With centring "periodic-node".
    degree : int
        The largest number of factors of a product that `product_shape` must hold without aliasing.

    Examples
    --------
    >>> fourier = Fourier(Grid((8,), (2 * np.pi,), "periodic-node"))
    >>> x = fourier.grid.coordinates(0)
    >>> c = fourier.coefficients(np.sin(x))
    >>> square = fourier.coefficients(fourier.values(c) ** 2)      # (1 - cos 2x) / 2
    >>> np.round(square.real, 12) + 0.0
    array([ 0.5 ,  0.  , -0.25,  0.  ])
    """

    def __init__(self, grid: Grid, degree: int = 1) -> None:
        if grid.centring != "periodic-node":
            raise ValueError(f"Fourier: grid must be centred as 'periodic-node', got {grid.centring!r}")
        self.grid = grid
        self.highest = tuple((n - 1) // 2 for n in grid.shape)
        self.modes = (*(2 * h + 1 for h in self.highest[:-1]), self.highest[-1] + 1)
        self.product_shape = tuple(next_fast_len((max(degree, 2) + 1) * h + 1, real=True) for h in self.highest)

    def wavenumber(self, axis: int) -> NDArray[np.float64]:
        """``kappa`` along an axis, in angular units per length, shaped to broadcast with the coefficients."""
        h, last = self.highest[axis], axis == self.grid.dimension - 1
        k = np.arange(h + 1) if last else np.concatenate([np.arange(h + 1), np.arange(-h, 0)])
        shape = [-1 if other == axis else 1 for other in range(self.grid.dimension)]
        return np.asarray(2 * np.pi / self.grid.lengths[axis] * k, dtype=np.float64).reshape(shape)

    def derivative(self, axis: int) -> NDArray[np.complex128]:
        """Symbol ``i kappa`` of the derivative along an axis."""
        return np.asarray(1j * self.wavenumber(axis), dtype=np.complex128)

    @property
    def laplacian(self) -> NDArray[np.float64]:
        """Symbol ``-|kappa|^2`` of the Laplacian, of shape ``modes``."""
        squares = [self.wavenumber(axis) ** 2 for axis in range(self.grid.dimension)]
        return -np.sum(np.broadcast_arrays(*squares), axis=0)

    def coefficients(self, values: NDArray[Any]) -> NDArray[np.complex128]:
        """Coefficients of values on any grid of at least ``2 h + 1`` points an axis, ``(..., *points)``."""
        c = rfft(values, axis=-1, norm="forward")[..., : self.modes[-1]]
        for axis in range(-2, -self.grid.dimension - 1, -1):
            c = self._truncate(fft(c, axis=axis, norm="forward"), axis)
        return np.ascontiguousarray(c)

    def values(self, coefficients: NDArray[Any], shape: Sequence[int] | None = None) -> NDArray[np.float64]:
        """Values on a grid of the given shape (default: `product_shape`), ``(..., *shape)``."""
        shape = self.product_shape if shape is None else shape
        c = coefficients
        for axis in range(-self.grid.dimension, -1):  # the short axis last is padded last: fewer lines to transform
            c = ifft(self._pad(c, axis, shape[axis]), axis=axis, norm="forward", overwrite_x=True)
        return np.asarray(irfft(c, n=shape[-1], axis=-1, norm="forward"))

    def hermitian(self, coefficients: NDArray[np.complex128]) -> NDArray[np.complex128]:
        """The coefficients with ``c_{-k} = conj(c_k)`` restored in the plane where both are stored; in place.

        `values` does not see what breaks the symmetry, so nothing nonlinear would ever stop rounding errors there from
        growing where the linear part is unstable.
        """
        plane = coefficients[..., 0]
        mirror = plane
        for axis in range(1 - self.grid.dimension, 0):
            mirror = np.roll(np.flip(mirror, axis), 1, axis)
        coefficients[..., 0] = (plane + mirror.conj()) / 2
        return coefficients

    def _ends(self, axis: int, points: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Where the wavenumbers ``0, ..., h`` and ``-h, ..., -1`` stand among those of a transform of some points."""
        h, after = self.highest[axis], (slice(None),) * (-axis - 1)
        return (..., slice(0, h + 1), *after), (..., slice(points - h, points), *after)

    def _truncate(self, c: NDArray[Any], axis: int) -> NDArray[Any]:
        low, high = self._ends(axis, c.shape[axis])
        return np.concatenate((c[low], c[high]), axis=axis)

    def _pad(self, c: NDArray[Any], axis: int, points: int) -> NDArray[np.complex128]:
        padded = np.zeros((*c.shape[:axis], points, *c.shape[axis + 1 :]), dtype=complex)
        for there, here in zip(self._ends(axis, points), self._ends(axis, c.shape[axis]), strict=True):
            padded[there] = c[here]
        return padded
