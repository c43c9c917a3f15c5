r"""The order in which similar systems are solved: a short tour through their parameters.

Recycled spaces, lagged factors and first guesses serve a system the better the nearer it is to the one before. The tour
is greedy: from each system on to the nearest that has not been visited. That takes all N^2 distances; of more than
10,000 systems the order along a space-filling curve comes first, and the greedy one holds inside its cells:

- fields are reduced to their lowest Fourier modes, whose distances are those of the smoothed fields (Parseval),
- these to their principal components, the directions in which the systems differ most,
- and these to their place on Hilbert's curve, which has no jumps, so that a cell, a run of 1,000 systems along it, is a
  compact set and begins where the one before ends. (Morton's order is simpler, and jumps across the whole cube.)

Source: H. Wang et al., Accelerating data generation for neural operators via Krylov subspace recycling, ICLR 2024
(arXiv 2401.09516), algorithm 1 (greedy) and appendix (Fourier reduction and fractal division for many systems; their
code has 2^7 half-cubes in a reflected binary order where we have a curve). J. Skilling, Programming the Hilbert curve,
AIP Conf. Proc. 707 (2004), for the curve in any dimension.

Among independent random fields of many modes the nearest is hardly nearer than any other, and recycled spaces gain a
few per cent at most. The order pays where systems come in families, or where their parameters are few.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numba import njit

_ALL_PAIRS = 10_000  # systems up to which all distances are looked at: 400 MB of them
_CELL = 1_000  # systems of a cell of the curve
_BLOCK = 2_000_000  # numbers that are converted to double precision at a time
_AS_THEY_ARE = 256  # numbers of a system up to which it is not reduced
_MODES = {1: 32, 2: 6, 3: 2}  # highest wavenumber kept per axis, by dimension of the field; 1 for more
_AXES = 4  # principal components that the curve goes through
_BITS = 12  # of each of them


def order(parameters: Any, distance: str = "euclidean") -> np.ndarray:
    r"""A permutation that puts similar systems next to each other.

    Parameters
    ----------
    parameters : array of shape (N, ...), or a tuple of such arrays
        What distinguishes the systems: fields ``(N, *grid)``, coefficients ``(N, k)``, numbers ``(N,)``. Of several
        arrays the distances are added, so scale them against each other. May be memory maps: they are read in blocks,
        and never copied as a whole.
    distance : {"euclidean", "manhattan", "chebyshev"}
        Of two arrays a and b, over all entries: :math:`(\sum |a - b|^2)^{1/2}` (Frobenius), :math:`\sum |a - b|`,
        :math:`\max |a - b|`.

    Returns
    -------
    ndarray of int, shape (N,)
        Begins with 0 for up to 10,000 systems. Its tour is never longer than that of the given order: where the greedy
        one would be, as it may for a sequence that drifts already, the identity is returned. The same on every run.

    Raises
    ------
    ValueError, TypeError
        If an array is empty, holds NaN or infinity, or does not fit the others; if the distance is not known.

    Notes
    -----
    100,000 fields of 64 x 64 in single precision take half a minute and 0.3 GB beside themselves.

    Greedy tours are within a factor of :math:`(\lceil \log_2 N \rceil + 1) / 2` of the shortest one
    (D. Rosenkrantz, R. Stearns, P. Lewis, SIAM J. Comput. 6 (1977), theorem 1).

    Examples
    --------
    >>> order(np.array([0.0, 10.0, 1.0, 11.0, 2.0]))
    array([0, 2, 4, 1, 3])
    >>> order((np.zeros((3, 8, 8)), np.array([5.0, 1.0, 4.0])))
    array([0, 2, 1])
    """
    parts = _checked(parameters, distance)
    n = len(parts[0])
    tour = _greedy(_distances(parts, np.arange(n), distance)) if n <= _ALL_PAIRS else _along_the_curve(parts, distance)
    given = np.arange(n)
    return tour if _length(parts, tour, distance) < _length(parts, given, distance) else given


def tour_length(parameters: Any, permutation: Any = None, distance: str = "euclidean") -> float:
    """Sum of the distances from each system to the next, in the order of a permutation or in the given one.

    Arguments and errors are those of `order`.

    Parameters
    ----------
    parameters, distance
        As for `order`.
    permutation : array of int, shape (N,), optional
        Left out, the systems are taken as they come.

    Examples
    --------
    >>> tour_length(np.array([0.0, 10.0, 1.0])), tour_length(np.array([0.0, 10.0, 1.0]), [0, 2, 1])
    (19.0, 10.0)
    """
    parts = _checked(parameters, distance)
    n = len(parts[0])
    tour = np.arange(n) if permutation is None else np.asarray(permutation)
    if tour.shape != (n,) or not np.array_equal(np.sort(tour), np.arange(n)):
        raise ValueError(f"permutation: expected each of 0 to {n - 1} once, got {permutation!r}")
    return _length(parts, tour, distance)


def _checked(parameters: Any, distance: str) -> list[np.ndarray]:
    """The arrays, each of real finite numbers and at least two-dimensional."""
    if distance not in ("euclidean", "manhattan", "chebyshev"):
        raise ValueError(f"distance: expected 'euclidean', 'manhattan' or 'chebyshev', got {distance!r}")
    parts = [np.asarray(part) for part in (parameters if isinstance(parameters, tuple) else (parameters,))]
    if not parts:
        raise ValueError("parameters: expected at least one array, got an empty tuple")
    for i, part in enumerate(parts):
        name = f"parameters[{i}]" if isinstance(parameters, tuple) else "parameters"
        if part.dtype.kind not in "fiub":
            raise TypeError(
                f"{name}: expected real numbers, got {part.dtype}; give real and imaginary parts as a tuple"
            )
        if part.ndim == 0 or part.size == 0:
            raise ValueError(f"{name}: expected an array with a system in each row, got shape {part.shape}")
        if len(part) != len(parts[0]):
            raise ValueError(f"{name}: expected {len(parts[0])} systems, as the first array has, got {len(part)}")
        for rows in _blocks(part):
            bad = ~np.isfinite(part[rows]).reshape(rows.stop - rows.start, -1).all(axis=1)
            if bad.any():
                raise ValueError(f"{name}: holds NaN or infinity, the first in system {rows.start + np.argmax(bad)}")
    return [part.reshape(len(part), -1) if part.ndim == 1 else part for part in parts]


def _blocks(part: np.ndarray) -> Iterator[slice]:
    """Runs of rows with about `_BLOCK` numbers."""
    rows = max(_BLOCK * len(part) // part.size, 1)
    for start in range(0, len(part), rows):
        yield slice(start, min(start + rows, len(part)))


def _length(parts: list[np.ndarray], tour: np.ndarray, distance: str) -> float:
    """What `tour_length` returns."""
    norm = {"euclidean": 2, "manhattan": 1, "chebyshev": np.inf}[distance]
    total = 0.0
    for part in parts:
        for rows in _blocks(part):
            both = part[tour[rows.start : rows.stop + 1]]
            steps = np.diff(both.reshape(len(both), -1).astype(np.float64), axis=0)
            total += float(np.linalg.norm(steps, ord=norm, axis=1).sum())
    return total


# -- All pairs ---------------------------------------------------------------------------------------------------------


def _greedy(D: np.ndarray) -> np.ndarray:
    """From place 0 always on to the nearest that is left, the first of equally near ones."""
    tour = np.zeros(len(D), dtype=np.int64)
    been = np.zeros(len(D), dtype=D.dtype)
    for i in range(1, len(D)):
        been[tour[i - 1]] = np.inf
        tour[i] = np.argmin(D[tour[i - 1]] + been)
    return tour


def _distances(parts: list[np.ndarray], chosen: np.ndarray, distance: str) -> np.ndarray:
    """Distances between all chosen systems, in single precision, from arithmetic in double."""
    D = np.zeros((len(chosen), len(chosen)), dtype=np.float32)
    for part in parts:
        rows = part[chosen].reshape(len(chosen), -1)
        if distance == "euclidean":
            D += np.sqrt(_squared_distances(rows))
        else:
            rows = rows if rows.dtype in (np.float32, np.float64) else rows.astype(np.float64)
            _add_distances(rows, distance == "chebyshev", D)
    return D


def _squared_distances(X: np.ndarray) -> np.ndarray:
    """``|x|^2 + |y|^2 - 2 x'y`` of the rows, by matrix products.

    X is centred, so that the cancellation costs no more digits than the spread of the data, and goes through in blocks
    of columns, so that a copy in double precision is never larger than a few blocks.
    """
    n = len(X)
    squares = np.zeros((n, n), dtype=np.float32)
    width = max(4 * _BLOCK // n, 1)
    for start in range(0, X.shape[1], width):
        Y = X[:, start : start + width].astype(np.float64)
        Y -= Y.mean(axis=0)
        norms = np.einsum("ij,ij->i", Y, Y)
        for first in range(0, n, 500):
            tile = slice(first, first + 500)
            product = Y[tile] @ Y[first:].T
            np.multiply(product, -2.0, out=product)
            product += norms[tile, None]
            product += norms[first:]
            squares[tile, first:] += product
    np.maximum(squares, 0.0, out=squares)
    for first in range(0, n, 500):
        squares[first + 500 :, first : first + 500] = squares[first : first + 500, first + 500 :].T
    return squares


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nnan", "nsz"})
def _add_distances(X, chebyshev, D):  # type: ignore[no-untyped-def]
    """Add the distances of all pairs of rows, tile by tile, so that both rows of a pair are in the cache.

    A sum becomes vector instructions by itself; a maximum only where its lanes are kept apart.
    """
    n, width, tile = X.shape[0], X.shape[1], 16
    whole = width - width % 16
    for first in range(0, n, tile):
        for second in range(first, n, tile):
            for i in range(first, min(first + tile, n)):
                for j in range(max(second, i + 1), min(second + tile, n)):
                    total = X[i, 0] * 0
                    if chebyshev:
                        lanes = np.zeros(16, dtype=X.dtype)
                        for k in range(0, whole, 16):
                            for lane in range(16):
                                step = abs(X[i, k + lane] - X[j, k + lane])
                                lanes[lane] = step if step > lanes[lane] else lanes[lane]
                        total = lanes.max()
                        for k in range(whole, width):
                            total = max(total, abs(X[i, k] - X[j, k]))
                    else:
                        for k in range(width):
                            total += abs(X[i, k] - X[j, k])
                    D[i, j] += total
                    D[j, i] += total


# -- Along a curve -----------------------------------------------------------------------------------------------------


def _along_the_curve(parts: list[np.ndarray], distance: str) -> np.ndarray:
    """Greedy inside runs of the Hilbert curve, each from the system that is nearest to the end of the run before."""
    features = np.concatenate([_features(part) for part in parts], axis=1)
    along = np.argsort(_hilbert(_grid_points(features)), kind="stable")
    tour = np.zeros(0, dtype=np.int64)
    for start in range(0, len(along), _CELL):
        cell = np.concatenate([tour[-1:], along[start : start + _CELL]])
        inside = _greedy(_distances(parts, cell, distance))
        tour = np.concatenate([tour, cell[inside[min(start, 1) :]]])
    return tour


def _features(part: np.ndarray) -> np.ndarray:
    """The numbers of a system as they are, or its coefficients in the lowest modes of an orthonormal Fourier basis."""
    grid = part.shape[1:]
    if np.prod(grid) <= _AS_THEY_ARE:
        return part.reshape(len(part), -1).astype(np.float64)
    bases = [_fourier(points, _MODES.get(len(grid), 1)) for points in grid]
    features = np.empty((len(part), int(np.prod([basis.shape[1] for basis in bases]))))
    for rows in _blocks(part):
        block = part[rows].astype(np.float64)
        for basis in bases:  # sums over the first axis of the grid, and puts the modes last: after all, in order again
            block = np.tensordot(block, basis, axes=(1, 0))
        features[rows] = block.reshape(len(block), -1)
    return features


def _fourier(points: int, modes: int) -> np.ndarray:
    """Columns 1, cos and sin of the lowest wavenumbers on a periodic axis, orthonormal."""
    x = 2.0 * np.pi * np.arange(points) / points
    k = np.arange(1, min(modes, (points - 1) // 2) + 1)
    waves = np.column_stack([np.ones(points), np.cos(np.outer(x, k)), np.sin(np.outer(x, k))])
    return np.asarray(waves / np.linalg.norm(waves, axis=0))


def _grid_points(features: np.ndarray) -> np.ndarray:
    """Whole-number coordinates along the first principal components, shape (axes, N), of one scale, 0 to 2^bits - 1."""
    centred = features - features.mean(axis=0)
    vectors = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :_AXES]
    y = (centred @ vectors).T
    y -= y.min(axis=1, keepdims=True)
    y /= y.max() or 1.0
    return np.asarray((2**_BITS - 1) * y).astype(np.int64)


def _hilbert(points: np.ndarray, bits: int = _BITS) -> np.ndarray:
    """Place along Hilbert's curve of points with whole-number coordinates below 2^bits.

    Skilling's transformation: from the highest bit down, each sub-cube is reflected or has its axes exchanged as the
    curve runs through it; a Gray code then puts the sub-cubes in order.

    Parameters
    ----------
    points : ndarray of int, shape (axes, N)

    Examples
    --------
    >>> _hilbert(np.array([[0, 0, 1, 1], [0, 1, 1, 0]]), bits=1)  # around the unit square
    array([0, 1, 2, 3])
    """
    x = points.copy()
    for bit in range(bits - 1, 0, -1):
        low = (1 << bit) - 1
        for axis in range(len(x)):
            reflect = (x[axis] >> bit & 1).astype(bool)
            exchange = np.where(reflect, 0, (x[0] ^ x[axis]) & low)
            x[0] ^= np.where(reflect, low, exchange)
            x[axis] ^= exchange
    for axis in range(1, len(x)):
        x[axis] ^= x[axis - 1]
    flip = np.zeros_like(x[0])
    for bit in range(bits - 1, 0, -1):
        flip ^= np.where(x[-1] >> bit & 1, (1 << bit) - 1, 0)
    x ^= flip
    index = np.zeros_like(x[0])
    for bit in range(bits - 1, -1, -1):
        for axis in x:
            index = index << 1 | (axis >> bit & 1)
    return index
