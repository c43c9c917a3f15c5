r"""Diagonalisation along one axis: by a fast transform, or by the matrix of eigenvectors.

For constant coefficients c the matrix of an axis is :math:`T = s I + c K`, with K = tridiag(-1, 2, -1) but for its
first and last entry. Where these stand for one of the classical conditions, the eigenvectors are sines or cosines
(G. Strang, The discrete cosine transform, SIAM Review 41 (1999) 135), with the eigenvalues
:math:`s + 4 c \sin^2(\theta_k/2)`:

========  ============  ============================  ====================  =========================
kind      ends of K     condition                     eigenvector, at j     :math:`\theta_k`, k = 0, 1, ..
========  ============  ============================  ====================  =========================
DST-I     2, 2          zero one spacing away         sin(j + 1) theta      pi (k + 1) / (n + 1)
DST-II    3, 3          zero half a spacing away      sin(j + 1/2) theta    pi (k + 1) / n
DCT-II    1, 1          no flux half a spacing away   cos(j + 1/2) theta    pi k / n
DST-IV    3, 1          zero, no flux                 sin(j + 1/2) theta    pi (k + 1/2) / n
DCT-IV    1, 3          no flux, zero                 cos(j + 1/2) theta    pi (k + 1/2) / n
FFT       corners -1    periodic                      both of the last two  2 pi k / n
========  ============  ============================  ====================  =========================

All others have eigenvectors too, which LAPACK finds. If T is symmetric under reflection they are even or odd, and the
two halves of a line, added and subtracted, are multiplied by matrices of half the size: half the work.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import scipy.fft
from numba import njit
from scipy.linalg import eigh, eigh_tridiagonal, eigvalsh_tridiagonal

from solvers.kronecker_sum import Tridiagonal

# What the first and the last diagonal entry exceed those between by, in units of c.
_ENDS = {(0, 0): "DST-I", (1, 1): "DST-II", (-1, -1): "DCT-II", (1, -1): "DST-IV", (-1, 1): "DCT-IV"}
_LARGEST_MATRIX = 2500  # order up to which LAPACK finds the eigenvectors within some seconds

# Seconds on one core (AMD EPYC, 4.5 GHz, scipy's pocketfft in vectors of two, OpenBLAS at 60 Gflop/s). The ratios
# choose between transforms, so that the choice is the same each time.
_FLOP = 1 / 60e9
_BUTTERFLY = 0.09e-9  # unit of pocketfft's own estimate
_PASS = 0.5e-9  # one more way through the field, for each number


@dataclass(frozen=True)
class Classical:
    """T = shift + c K with ends of one of the classical kinds."""

    kind: str
    n: int
    c: float
    shift: float

    @classmethod
    def of(cls, T: Tridiagonal, dtype: np.dtype) -> "Classical | None":
        """That of T to the rounding of a dtype."""
        n = T.diagonal.size
        if n < 3:
            return None
        c, between = -T.links[0], T.diagonal[1]
        rounding = 64 * float(np.finfo(dtype).eps) * max(abs(between), abs(c))
        alike = np.max(np.abs(T.links + c)) <= rounding and np.max(np.abs(T.diagonal[1:-1] - between)) <= rounding
        if not alike or not c > 0:
            return None
        excess = (T.diagonal[[0, -1]] - between) / c
        ends = tuple(np.round(excess).astype(int).tolist())
        if np.max(np.abs(excess - ends)) * c > rounding:
            return None
        if T.corner:
            kind = "FFT" if ends == (0, 0) and abs(T.corner + c) <= rounding else None
        else:
            kind = _ENDS.get(ends)
        return None if kind is None else cls(kind, n, float(c), float(between - 2 * c))

    @property
    def eigenvalues(self) -> np.ndarray:
        """In the order of the fast transform: shape (n,), or (n // 2 + 1,) of the FFT."""
        k = np.arange(self.n // 2 + 1 if self.kind == "FFT" else self.n)
        half = {
            "DST-I": (k + 1) / (2 * (self.n + 1)),
            "DST-II": (k + 1) / (2 * self.n),
            "DCT-II": k / (2 * self.n),
            "DST-IV": (2 * k + 1) / (4 * self.n),
            "DCT-IV": (2 * k + 1) / (4 * self.n),
            "FFT": k / self.n,
        }[self.kind]
        return self.shift + 4 * self.c * np.sin(np.pi * half) ** 2


def butterflies(length: int) -> float:
    """Pocketfft's estimate of its work on a real transform: the length times the sum of its prime factors.

    Large factors cost a little more than their size, and where it is cheaper Bluestein's algorithm takes two complex
    transforms of more than twice the length.

    Examples
    --------
    >>> butterflies(840)  # 8 * 3 * 5 * 7
    17640.0
    >>> butterflies(514) > 3 * butterflies(512)  # 2 * 257
    True
    """
    direct = _sum_of_factors(length) * length
    if direct < 50 * length:
        return direct
    padded = scipy.fft.next_fast_len(2 * length - 1)
    return min(direct, 3.0 * _sum_of_factors(padded) * padded)


def _sum_of_factors(length: int) -> float:
    total, factor = 0.0, 2
    while factor * factor <= length:
        while length % factor == 0:
            total += factor if factor <= 5 else 1.1 * factor if factor > 7 else factor
            length //= factor
        factor += 1
    return total + (length if 1 < length <= 7 else 1.1 * length if length > 1 else 0.0)


class Transform(Protocol):
    """A change of basis along the middle axis of fields (before, n, after), in which T is diagonal.

    Attributes
    ----------
    name : str
    eigenvalues : ndarray, shape (modes,)
    pieces : int
        How many numbers a mode has at each point of the other axes: real fields come out as (before, modes,
        after * pieces).
    """

    name: str
    eigenvalues: np.ndarray
    pieces: int

    def forward(self, x: np.ndarray, out: np.ndarray) -> None:
        """Coefficients of the modes into `out`, which may be x."""

    def inverse(self, y: np.ndarray, out: np.ndarray) -> None:
        """The field from its coefficients into `out`, which may be y."""


class Fast:
    """A sine or cosine transform of scipy.fft."""

    pieces = 1

    def __init__(self, given: Classical) -> None:
        self.name = given.kind
        self.eigenvalues = given.eigenvalues
        family, kind = given.kind.split("-")
        self._type = ("I", "II", "III", "IV").index(kind) + 1
        self._there: Callable[..., np.ndarray] = getattr(scipy.fft, family.lower())
        self._back: Callable[..., np.ndarray] = getattr(scipy.fft, "i" + family.lower())

    def forward(self, x: np.ndarray, out: np.ndarray) -> None:
        """Coefficients of the modes into `out`, which may be x."""
        self._in_place(self._there, x, out)

    def inverse(self, y: np.ndarray, out: np.ndarray) -> None:
        """The field from its coefficients into `out`, which may be y."""
        self._in_place(self._back, y, out)

    def _in_place(self, transform: Callable[..., np.ndarray], x: np.ndarray, out: np.ndarray) -> None:
        """Without an array of its own: getting fresh memory costs as much as a transform."""
        if out.ctypes.data != x.ctypes.data:
            np.copyto(out, x)
        result = transform(out, type=self._type, axis=1, overwrite_x=True)
        if not np.may_share_memory(result, out):
            np.copyto(out, result)


class Periodic:
    """The real FFT of scipy.fft; real and imaginary parts of a mode are two real numbers with one eigenvalue."""

    pieces = 2

    def __init__(self, given: Classical) -> None:
        self.name = given.kind
        self.eigenvalues = given.eigenvalues
        self._n = given.n

    def forward(self, x: np.ndarray, out: np.ndarray) -> None:
        """Coefficients of the modes into `out`, which may be x."""
        np.copyto(out, scipy.fft.rfft(x, axis=1).view(x.dtype))

    def inverse(self, y: np.ndarray, out: np.ndarray) -> None:
        """The field from its coefficients into `out`, which may be y."""
        modes = y.view(np.result_type(y.dtype, np.complex64))
        np.copyto(out, scipy.fft.irfft(modes, n=self._n, axis=1, overwrite_x=True))


class Eigenvectors:
    """Matrix products with orthonormal eigenvectors: one matrix, or one for the even and one for the odd ones."""

    pieces = 1

    def __init__(self, eigenvalues: np.ndarray, bases: tuple[np.ndarray, ...], dtype: np.dtype) -> None:
        self.eigenvalues = eigenvalues
        self.name = f"eigenvectors in {len(bases)} halves" if len(bases) > 1 else "eigenvectors"
        self._bases = tuple(basis.astype(dtype, copy=False) for basis in bases)
        self._work = np.empty(0, dtype=dtype)

    def forward(self, x: np.ndarray, out: np.ndarray) -> None:
        """Coefficients of the modes into `out`, which may be x."""
        folded = self._workspace(x)
        if len(self._bases) == 1:
            np.copyto(folded, x)
        else:
            _fold(x, folded)
        self._multiply(folded, out, transposed=True)

    def inverse(self, y: np.ndarray, out: np.ndarray) -> None:
        """The field from its coefficients into `out`, which may be y."""
        folded = self._workspace(y)
        self._multiply(y, folded, transposed=False)
        if len(self._bases) == 1:
            np.copyto(out, folded)
        else:
            _unfold(folded, out)

    def _workspace(self, like: np.ndarray) -> np.ndarray:
        if self._work.shape != like.shape:
            self._work = np.empty(like.shape, dtype=like.dtype)
        return self._work

    def _multiply(self, x: np.ndarray, out: np.ndarray, transposed: bool) -> None:
        start = 0
        for basis in self._bases:
            half = slice(start, start + len(basis))
            start += len(basis)
            if x.shape[2] == 1:  # one product for all lines
                np.matmul(x[:, half, 0], basis if transposed else basis.T, out=out[:, half, 0])
            else:
                np.matmul(basis.T if transposed else basis, x[:, half], out=out[:, half])


@njit(cache=True, nogil=True)
def _fold(x, out):  # type: ignore[no-untyped-def]
    """Sums of opposite points along the middle axis, the point in the middle, and their differences."""
    before, n, after = x.shape
    half, middle = n // 2, n % 2
    for b in range(before):
        if after == 1:
            for j in range(half):
                out[b, j, 0] = x[b, j, 0] + x[b, n - 1 - j, 0]
            for j in range(half):
                out[b, half + middle + j, 0] = x[b, j, 0] - x[b, n - 1 - j, 0]
        else:
            for j in range(half):
                for k in range(after):
                    out[b, j, k] = x[b, j, k] + x[b, n - 1 - j, k]
                    out[b, half + middle + j, k] = x[b, j, k] - x[b, n - 1 - j, k]
        if middle:
            out[b, half] = x[b, half]


@njit(cache=True, nogil=True)
def _unfold(y, out):  # type: ignore[no-untyped-def]
    """The line whose even and odd parts have these first halves."""
    before, n, after = y.shape
    half, middle = n // 2, n % 2
    for b in range(before):
        if after == 1:
            for j in range(half):
                out[b, j, 0] = y[b, j, 0] + y[b, half + middle + j, 0]
            for j in range(half):
                out[b, n - 1 - j, 0] = y[b, j, 0] - y[b, half + middle + j, 0]
        else:
            for j in range(half):
                for k in range(after):
                    out[b, j, k] = y[b, j, k] + y[b, half + middle + j, k]
                    out[b, n - 1 - j, k] = y[b, j, k] - y[b, half + middle + j, k]
        if middle:
            out[b, half] = y[b, half]


def seconds(T: Tridiagonal, dtype: np.dtype) -> float:
    """What a transform along the axis of T takes for each point of the field: the estimate behind `transform`."""
    given = Classical.of(T, dtype)
    return min(_by_fast_transform(given), _by_product(T, given)) / T.diagonal.size


def transform(T: Tridiagonal, dtype: np.dtype) -> Transform:
    """The faster of a fast transform, if there is one, and the product with eigenvectors."""
    given = Classical.of(T, dtype)
    if given is None:
        return Eigenvectors(*_by_lapack(T), dtype)
    if _by_fast_transform(given) < _by_product(T, given):
        return Periodic(given) if given.kind == "FFT" else Fast(given)
    squares, bases = _waves(given.kind, given.n)
    return Eigenvectors(given.shift + 4 * given.c * squares, bases, dtype)


def _by_fast_transform(given: Classical | None) -> float:
    """Seconds for one line."""
    if given is None:
        return np.inf
    length = 2 * (given.n + 1) if given.kind == "DST-I" else given.n
    return _BUTTERFLY * butterflies(length) + _PASS * given.n


def _by_product(T: Tridiagonal, given: Classical | None) -> float:
    """Seconds for one line."""
    n = T.diagonal.size
    if n > _LARGEST_MATRIX:
        return np.inf
    halves = _reflects(T) if given is None else not given.kind.endswith("IV")
    return 2 * _FLOP * n**2 / (2 if halves else 1) + 2 * _PASS * n


def _reflects(T: Tridiagonal) -> bool:
    """Whether T looks the same from both ends, to the last bit."""
    palindromes = all(np.array_equal(line, line[::-1]) for line in (T.diagonal, T.links))
    return palindromes and T.diagonal.size > 1 and not T.corner


@lru_cache(maxsize=32)
def _waves(kind: str, n: int) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    r""":math:`\sin^2(\theta_k/2)`, and orthonormal eigenvectors as columns: first halves of the even, of the odd ones.

    Those of DST-IV and DCT-IV are neither, and whole. All angles are multiples of one, whose sines are in a table.
    Around a periodic axis the eigenvectors are cosines and sines about the middle of the line.
    """
    k = np.arange(n)
    # Entries are sines or cosines of pi position wave / whole, with theta / 2 = pi wave / whole.
    position, wave, whole, sine = {
        "DST-I": (2 * k + 2, k + 1, 2 * n + 2, k >= 0),
        "DST-II": (2 * k + 1, k + 1, 2 * n, k >= 0),
        "DCT-II": (2 * k + 1, k, 2 * n, k < 0),
        "DST-IV": (2 * k + 1, 2 * k + 1, 4 * n, k >= 0),
        "DCT-IV": (2 * k + 1, 2 * k + 1, 4 * n, k < 0),
        # the constant, and a sine and a cosine of each wavenumber; of the last one of an even n the sine alone
        "FFT": (2 * k + 1, 2 * ((k + 1) // 2), 2 * n, k % 2 == 1),
    }[kind]
    table = np.sin(np.pi * np.arange(2 * whole) / whole)
    squares = np.sin(np.pi * wave / whole) ** 2
    phase = np.where(sine, 0, whole // 2)

    def columns(rows: slice, which: slice) -> np.ndarray:
        return table[(np.outer(position[rows], wave[which]) + phase[which]) % (2 * whole)]

    if kind.endswith("IV"):
        return squares, (columns(slice(n), slice(n)) * np.sqrt(2 / n),)
    even, odd = columns(slice((n + 1) // 2), slice(0, n, 2)), columns(slice(n // 2), slice(1, n, 2))
    for basis in (even, odd):
        twice = 2 * np.sum(basis[: n // 2] ** 2, axis=0) + np.sum(basis[n // 2 :] ** 2, axis=0)
        basis /= np.sqrt(twice)
        basis.flags.writeable = False
    return np.concatenate([squares[::2], squares[1::2]]), (even, odd)


def _by_lapack(T: Tridiagonal) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Eigenvalues and orthonormal eigenvectors, as first halves of even and odd ones where T is symmetric so."""
    if T.corner:
        eigenvalues, vectors = eigh(T.toarray())
        return eigenvalues, (vectors,)
    if not _reflects(T):
        eigenvalues, vectors = eigh_tridiagonal(T.diagonal, T.links)
        return eigenvalues, (vectors,)
    n = T.diagonal.size
    half = n // 2
    # T on even lines, in coordinates of their first half times sqrt(2), and the point in the middle if there is one.
    even, odd = T.diagonal[: n - half].copy(), T.diagonal[:half].copy()
    links = T.links[: n - half - 1].copy()
    if n % 2:
        links[-1] *= np.sqrt(2.0)
    else:
        even[-1] += T.links[half - 1]
        odd[-1] -= T.links[half - 1]
    even_values, even_vectors = eigh_tridiagonal(even, links)
    odd_values, odd_vectors = eigh_tridiagonal(odd, T.links[: half - 1])
    even_vectors[:half] *= np.sqrt(0.5)
    return np.concatenate([even_values, odd_values]), (even_vectors, odd_vectors * np.sqrt(0.5))


def smallest_eigenvalues(T: Tridiagonal, dtype: np.dtype) -> np.ndarray:
    """The two smallest of T, or the one of a 1 x 1 matrix."""
    given = Classical.of(T, dtype)
    if given is not None:
        return np.sort(given.eigenvalues)[:2]
    if T.corner:
        return np.linalg.eigvalsh(T.toarray())[:2]
    last = min(1, T.diagonal.size - 1)
    return np.asarray(eigvalsh_tridiagonal(T.diagonal, T.links, select="i", select_range=(0, last)))
