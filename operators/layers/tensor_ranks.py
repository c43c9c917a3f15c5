r"""Ranks of factorised tensors that hold a given fraction of the dense number of parameters.

The rules are those of TensorLy [1]_, and so of every published tensorised Fourier neural operator: a model of rank 0.1
has the parameters that its paper counts.

References
----------
.. [1] J. Kossaifi, Y. Panagakis, A. Anandkumar, M. Pantic, TensorLy: tensor learning in Python, JMLR 20 (2019),
   arXiv:1610.09555.
"""

import itertools
import math
from collections.abc import Sequence

from scipy.optimize import brentq


def _check_fraction(rank: float) -> None:
    if not 0.0 < rank <= 1.0:
        raise ValueError(f"rank must be a fraction of the dense parameter count in (0, 1], or the ranks, got {rank}")


def tucker_ranks(shape: Sequence[int], rank: float | Sequence[int]) -> tuple[int, ...]:
    r"""Rank of each axis of a Tucker tensor.

    All ranks are the same fraction ``c`` of their axis, rounded and at least 1, with

    .. math:: c^n \prod_k I_k + c \sum_k I_k^2 = \mathrm{rank} \prod_k I_k.

    Parameters
    ----------
    shape : sequence of int
        The dense tensor's shape ``I``.
    rank : float in (0, 1], or sequence of int
        Fraction of the dense parameter count, or the rank of each axis.

    Raises
    ------
    ValueError
        If the fraction is outside (0, 1], or ranks do not fit the shape.

    Examples
    --------
    >>> tucker_ranks((32, 32, 16, 9), 0.1)
    (18, 18, 9, 5)
    """
    if isinstance(rank, Sequence):
        if len(rank) != len(shape) or any(not 1 <= r <= i for r, i in zip(rank, shape, strict=True)):
            raise ValueError(
                f"rank={list(rank)} does not fit the weight's shape {tuple(shape)}: for Tucker give one rank an axis, "
                "between 1 and its length, or one fraction in (0, 1]"
            )
        return tuple(int(r) for r in rank)
    _check_fraction(rank)
    dense = math.prod(shape)
    factors = sum(i**2 for i in shape)
    fraction = brentq(lambda c: c ** len(shape) * dense + c * factors - rank * dense, 0.0, 1.0)
    return tuple(max(1, round(fraction * i)) for i in shape)


def cp_rank(shape: Sequence[int], rank: float | Sequence[int]) -> int:
    r"""Number of rank-one terms of a CP tensor: ``rank * prod(I) / sum(I)``, rounded and at least 1.

    Parameters
    ----------
    shape : sequence of int
    rank : float in (0, 1], or sequence of one int
        Fraction of the dense parameter count, or the number of terms.

    Raises
    ------
    ValueError
        If the fraction is outside (0, 1], or what is given is no list of one positive number.

    Examples
    --------
    >>> cp_rank((32, 32, 16, 9), 0.1)
    166
    """
    if isinstance(rank, Sequence):
        if len(rank) != 1 or rank[0] < 1:
            raise ValueError(
                f"rank={list(rank)} does not fit: for CP give a list of one number of terms, at least 1, or one "
                "fraction in (0, 1]"
            )
        return int(rank[0])
    _check_fraction(rank)
    return max(1, round(rank * math.prod(shape) / sum(shape)))


def tt_ranks(shape: Sequence[int], rank: float | Sequence[int]) -> tuple[int, ...]:
    r"""Ranks of a tensor train, those of its ends (1) included.

    The rank between two axes is the same fraction ``c`` of the mean ``m`` of their lengths, rounded and at least 1:

    .. math:: c^2 \sum_{k=2}^{n-1} m_{k-1} I_k m_k + c\, (I_1 m_1 + m_{n-1} I_n) = \mathrm{rank} \prod_k I_k,
              \qquad m_k = \tfrac12 (I_k + I_{k+1}).

    Parameters
    ----------
    shape : sequence of int
        At least two axes.
    rank : float in (0, 1], or sequence of int
        Fraction of the dense parameter count, or ``len(shape) + 1`` ranks, the first and last of them 1.

    Raises
    ------
    ValueError
        If the fraction is outside (0, 1], or ranks do not fit the shape.

    Examples
    --------
    >>> tt_ranks((32, 32, 16, 9), 0.1)
    (1, 22, 17, 9, 1)
    """
    if isinstance(rank, Sequence):
        if len(rank) != len(shape) + 1 or min(rank) < 1 or rank[0] != 1 or rank[-1] != 1:
            raise ValueError(
                f"rank={list(rank)} does not fit the weight's shape {tuple(shape)}: for TT give {len(shape) + 1} "
                "ranks, the first and last of them 1, or one fraction in (0, 1]"
            )
        return tuple(int(r) for r in rank)
    _check_fraction(rank)
    means = [(left + right) / 2 for left, right in itertools.pairwise(shape)]
    ends = shape[0] * means[0] + means[-1] * shape[-1]
    if len(shape) == 2:  # TensorLy's rule for a matrix, which has no inner axis
        inner = means[0] ** 2 * shape[0]
    else:
        inner = sum(m * i * n for m, i, n in zip(means[:-1], shape[1:-1], means[1:], strict=True))
    fraction = (-ends + math.sqrt(ends**2 + 4 * inner * rank * math.prod(shape))) / (2 * inner)
    return (1, *(max(1, round(fraction * m)) for m in means), 1)
