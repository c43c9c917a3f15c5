"""Symmetric Toeplitz matrices: Gram matrices of stationary kernels on equally spaced nodes, for torch.

The inverse costs ``O(n^2)`` operations instead of ``O(n^3)``, and what has to be differentiated is one column. All that
follows is in terms of ``column``, the first column of T.
"""

import math
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray


@numba.njit(cache=True, nogil=True)
def inverse(column: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """The inverse and the logarithm of the determinant, by Durbin's recursion and Trench's formula.

    G. H. Golub and C. F. Van Loan, Matrix Computations, 4th edition, algorithms 4.7.1 and 4.7.3.

    Parameters
    ----------
    column : ndarray
        ``(n,)``, of a positive definite matrix; at least 2.

    Returns
    -------
    inverse : ndarray
        ``(n, n)``; of no entries if the matrix is not positive definite.
    log_determinant : float
        Not a number then.

    Examples
    --------
    >>> matrix, log_determinant = inverse(np.array([2.0, 1.0]))
    >>> np.round(3 * matrix), round(float(np.exp(log_determinant)), 12)
    (array([[ 2., -1.],
           [-1.,  2.]]), 3.0)
    """
    n = column.size
    r = column[1:] / column[0]
    y, z = np.empty(n - 1), np.empty(n - 1)
    y[0] = alpha = -r[0]
    beta = 1.0 - alpha * alpha
    log_determinant = n * math.log(column[0])
    for k in range(1, n):
        if not beta > 0.0:
            return np.empty((0, 0)), np.nan
        log_determinant += math.log(beta)
        if k == n - 1:
            break
        total = r[k]
        for i in range(k):
            total += r[k - 1 - i] * y[i]
        alpha = -total / beta
        for i in range(k):
            z[i] = y[i] + alpha * y[k - 1 - i]
        for i in range(k):
            y[i] = z[i]
        y[k] = alpha
        beta *= 1.0 - alpha * alpha

    whole = np.empty((n, n))
    whole[0, 0] = 1.0 / (beta * column[0])
    for i in range(1, n):
        whole[0, i] = whole[i, 0] = y[i - 1] * whole[0, 0]
    first = whole[0]
    for i in range(1, n):
        for j in range(1, n):
            whole[i, j] = whole[i - 1, j - 1] + (first[i] * first[j] - first[n - i] * first[n - j]) / first[0]
    return whole, log_determinant


class InverseTimes(torch.autograd.Function):
    """``T^-1 B`` and ``log det T``, differentiable in the column of T and in B."""

    @staticmethod
    def forward(ctx: Any, column: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both.

        Parameters
        ----------
        ctx : context
        column : tensor
            ``(n,)``.
        b : tensor
            ``(n, m)``.
        """
        matrix, log_determinant = inverse(column.detach().numpy())
        if not len(matrix):
            raise FloatingPointError("the Gram matrix is not positive definite: the nodes are too dense for the kernel")
        inverted = torch.from_numpy(matrix)
        x = inverted @ b
        ctx.save_for_backward(inverted, x)
        return x, b.new_tensor(log_determinant)

    @staticmethod
    def backward(ctx: Any, of_x: torch.Tensor, of_log_determinant: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``dB = T^-1 dX`` and ``dT = -dB X^T + d(log det) T^-1``, of which a column wants sums along diagonals.

        Parameters
        ----------
        ctx : context
        of_x, of_log_determinant : tensor
        """
        inverted, x = ctx.saved_tensors
        of_b = inverted @ of_x
        n = len(x)
        lags = torch.arange(n)
        # T[i, j] = column[|i - j|]: a correlation of rows, and the same of the inverse by its displacement structure.
        over = _correlation(of_b, x)
        first = inverted[:, :1]
        weighted = first * (2 * lags[:, None])
        diagonals = ((n - lags) * _correlation(first, first)[:n] - _correlation(weighted, first)[:n]) / first[0]
        both_sides = torch.where(lags == 0, 1.0, 2.0)
        mirrored = torch.cat([torch.zeros_like(over[:1]), over.flip(0)[: n - 1]])
        return of_log_determinant * both_sides * diagonals - over[:n] - mirrored, of_b


def multiply(column: torch.Tensor, x: torch.Tensor, sign: int = 1) -> torch.Tensor:
    """``T x`` by a fast Fourier transform, differentiable; of a skew T with ``sign = -1``.

    Parameters
    ----------
    column : tensor
        ``(n,)``, the first column.
    x : tensor
        ``(n, m)``.
    sign : int
        The first row is ``sign`` times the column.

    Returns
    -------
    tensor
        ``(n, m)``.
    """
    n = len(column)
    around = torch.cat([column, torch.zeros_like(column[:1]), sign * column[1:].flip(0)])
    return torch.fft.irfft(torch.fft.rfft(around)[:, None] * torch.fft.rfft(x, 2 * n, 0), 2 * n, 0)[:n]


def _correlation(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """``sum over i and m of a[i, m] b[i + lag, m]``, lags 0 to n - 1, then from -n to -1."""
    n = len(a)
    spectrum = (torch.fft.rfft(a, 2 * n, 0).conj() * torch.fft.rfft(b, 2 * n, 0)).sum(1)
    return torch.fft.irfft(spectrum, 2 * n)
