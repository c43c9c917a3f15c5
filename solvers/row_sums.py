"""The sums of the rows of a stencil, which tell whether A is finite, and whether it annihilates the constants."""

from dataclasses import dataclass

import numpy as np
from numba import njit

_BLOCK = 1024  # rows whose sums stay in the first-level cache


@dataclass(frozen=True)
class RowSums:
    """Facts about the row sums of an operator.

    Attributes
    ----------
    largest : float
        Of their absolute values; NaN if `finite` is False.
    total : float
        The real part of the sum of all entries.
    finite : bool
        Every row sum is finite, and so then is every entry. Sums of finite entries may overflow.
    """

    largest: float
    total: float
    finite: bool

    @classmethod
    def of(cls, coefficients: np.ndarray) -> "RowSums":
        """Of coefficients ``(offsets, points)``, in one pass over them.

        Examples
        --------
        >>> from solvers import gallery
        >>> RowSums.of(gallery.poisson((3,)).coefficients)
        RowSums(largest=1.0, total=2.0, finite=True)
        """
        facts = np.zeros(3)
        _add_up(coefficients, np.empty(_BLOCK, coefficients.dtype), facts)
        return cls.from_facts(facts)

    @classmethod
    def from_sums(cls, sums: np.ndarray) -> "RowSums":
        """Of the sums themselves, ``(n,)``."""
        facts = np.zeros(3)
        _gather_blocks(sums, facts)
        return cls.from_facts(facts)

    @classmethod
    def from_facts(cls, facts: np.ndarray) -> "RowSums":
        """From what `gather` gathered."""
        largest, total, spoiled = facts.tolist()
        return cls(largest if spoiled == 0 else np.nan, total, spoiled == 0)


# Only such liberties as leave x - x alone: it is zero for finite x, and NaN for all others.
@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def gather(sums, facts):  # type: ignore[no-untyped-def]
    """Add to the facts what some row sums say: the largest absolute one, their sum, and zero if they are finite.

    The caller may be compiled too, and gather from rows while they are in the cache.
    """
    largest, total, spoiled = facts[0], 0.0, 0.0
    larger = False
    for i in range(sums.size):
        total += sums[i].real
        size = abs(sums[i])
        spoiled += size - size
    # A maximum does not compile to vector instructions, a test without a branch does; it is seldom true.
    for i in range(sums.size):
        larger |= abs(sums[i]) > largest
    if larger:
        for i in range(sums.size):
            largest = max(largest, abs(sums[i]))
    facts[0] = largest
    facts[1] += total
    facts[2] += spoiled


@njit(cache=True, nogil=True)
def _gather_blocks(sums, facts):  # type: ignore[no-untyped-def]
    for start in range(0, sums.size, _BLOCK):
        gather(sums[start : start + _BLOCK], facts)


@njit(cache=True, nogil=True)
def _add_up(coefficients, sums, facts):  # type: ignore[no-untyped-def]
    n = coefficients.shape[1]
    for start in range(0, n, sums.size):
        here = sums[: min(sums.size, n - start)]
        here[:] = 0
        for o in range(coefficients.shape[0]):
            field = coefficients[o, start : start + here.size]
            for i in range(here.size):
                here[i] += field[i]
        gather(here, facts)
