"""Frequencies of the prior, from what the problem says of its solution: nobody has to know u.

Along each axis u's spectrum is bounded by those of boundary data (which are u) and of f divided by the operator's
symbol, both sampled far more finely than the nodes; where a coefficient varies, by that of its reciprocal too, as
slopes have; and the equation has scales of its own, those of waves and layers without a source. A nonlinear term or a
variable coefficient may add frequencies that f does not show: such problems begin with a coarser guess, and
`operators.gp.closed_form` widens bands while the residual between the nodes falls.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from operators.gp.kernels import AxisKernel, GaussianMixture, Product, StudentMixture
from operators.gp.problems import Problem

Array = NDArray[np.floating]

MIXTURES: dict[str, Callable[..., AxisKernel]] = {"gaussian": GaussianMixture, "student": StudentMixture}

LINES = 16
"""Lines through the box along each axis, at scattered places, on which spectra are taken."""

KAISER = 24.0
"""The window's parameter: side lobes of 1e-11, and a main lobe of 7.7 periods on either side."""
MAIN_LOBE = 7.7

TRUSTED, GUESSED = 1e-8, 1e-4
"""Amplitudes relative to the largest that count, if the equation is linear with constant coefficients, and if not."""

UNRESOLVED = 1e-3
"""With a larger relative amplitude beyond the nodes' Nyquist frequency a problem is refused."""


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Amplitudes of u along one axis, as far as the data show them.

    Attributes
    ----------
    frequencies : ndarray
        In cycles per unit of length, from 0, equally spaced.
    amplitudes : ndarray
        The largest over all lines.
    """

    frequencies: Array
    amplitudes: Array

    def band(self, level: float) -> float:
        """The highest frequency whose amplitude is above a part of the largest; the window's width is taken off.

        Parameters
        ----------
        level : float
        """
        period = 1 / self.frequencies[1]
        counted = self.frequencies[self.amplitudes > level * self.amplitudes.max(initial=0.0)]
        # The main lobe ends at 7.7 periods; two of them stay as a margin.
        return max(counted.max(initial=0.0) - (MAIN_LOBE - 2) / period, 2 / period)

    def highest_peak(self, level: float) -> float:
        """The highest frequency of a local maximum above a part of the largest amplitude.

        Parameters
        ----------
        level : float
        """
        a = np.concatenate([[0.0], self.amplitudes, [0.0]])
        peaks = (a[1:-1] > a[:-2]) & (a[1:-1] >= a[2:]) & (a[1:-1] > level * a.max())
        return float(self.frequencies[peaks].max(initial=0.0))


def spectrum(problem: Problem, axis: int) -> Spectrum:
    """What the data say of u's frequencies along an axis.

    Parameters
    ----------
    problem : Problem
    axis : int
    """
    low, high = problem.domain[axis]
    count = int(min(max(8 * problem.nodes[axis], 512), 8192))
    coordinates = np.linspace(low, high, count, endpoint=False)
    window = np.kaiser(count, KAISER)
    window /= window.sum()
    frequencies = np.arange(count // 2 + 1) / (high - low)

    def amplitudes(values: Array) -> Array:
        return 2 * np.abs(np.fft.rfft(values.reshape(-1, count) * window, axis=1)).max(axis=0)

    angular = 2 * math.pi * np.maximum(frequencies, 1 / (high - low))
    inside = _lines(problem, axis, coordinates, None)
    symbol, variable = np.zeros_like(angular), []
    for term in problem.operator.terms:
        if np.count_nonzero(term.orders) <= 1 and (term.orders[axis] or not any(term.orders)):
            values = term.at(inside, problem.parameters)
            if term.orders[axis]:
                symbol = np.maximum(symbol, np.abs(values).max() * angular ** term.orders[axis])
            if not term.constant and term.orders[axis] == problem.operator.order_along(axis):
                variable.append(values)
    found = np.zeros_like(angular)
    if symbol.any():
        found = amplitudes(problem.right_hand_side(inside)) / symbol
    for face in problem.faces:
        if face[0] != axis:
            on_face = _lines(problem, axis, coordinates, face)
            found = np.maximum(found, amplitudes(problem.boundary_values(face, on_face)))
    for values in variable:
        reciprocal = amplitudes(1 / values)
        found = np.maximum(found, found.max() * reciprocal / reciprocal.max() / (angular * (high - low)))
    return Spectrum(frequencies, found)


def guess_bands(problem: Problem, spectra: Sequence[Spectrum]) -> list[float]:
    """The highest frequency of the prior, per axis, in cycles per unit of length.

    Parameters
    ----------
    problem : Problem
    spectra : sequence of Spectrum
        One an axis.

    Raises
    ------
    ValueError
        If the data hold frequencies that the nodes cannot: with how many nodes it takes.
    """
    level = TRUSTED if problem.linear and problem.operator.constant else GUESSED
    bands = []
    for axis, found in enumerate(spectra):
        highest, seen = nyquist(problem, axis), found.highest_peak(UNRESOLVED)
        if seen > highest:
            low, high = problem.domain[axis]
            raise ValueError(
                f"nodes={problem.nodes} are too few: along axis {axis} the data have frequencies up to {seen:.4g} "
                f"cycles per unit of length, and {problem.nodes[axis]} nodes resolve {highest:.4g}; it takes at least "
                f"{math.ceil(2 * (high - low) * seen) + 2} (two a period), and some more for accuracy"
            )
        bands.append(min(max(found.band(level), own_frequency(problem, axis)), highest))
    return bands


def own_frequency(problem: Problem, axis: int) -> float:
    """A frequency of the equation itself, such as that of the waves of ``u_xx + k^2 u`` or a layer of ``e u_xx + u_x``.

    Of ``c_m d^m + ... + c_j d^j`` the largest ``(|c_j| / |c_m|)^(1 / (m - j))``, m the highest order along the axis.

    Parameters
    ----------
    problem : Problem
    axis : int
    """
    middle = np.array([[(low + high) / 2 for low, high in problem.domain]])
    sizes: dict[int, float] = {}
    for term in problem.operator.terms:
        if sum(term.orders) == term.orders[axis]:
            size = abs(float(term.at(middle, problem.parameters)[0]))
            sizes[term.orders[axis]] = sizes.get(term.orders[axis], 0.0) + size
    order = max(sizes, default=0)
    ratios = [(size / sizes[order]) ** (1 / (order - j)) for j, size in sizes.items() if j < order and sizes[order] > 0]
    # Half as much again: spectra of waves in a box are wider than a line.
    return 1.5 * max(ratios, default=0.0) / (2 * math.pi)


def nyquist(problem: Problem, axis: int) -> float:
    """The highest frequency that the nodes of an axis resolve, two nodes a period.

    Parameters
    ----------
    problem : Problem
    axis : int
    """
    low, high = problem.domain[axis]
    return (problem.nodes[axis] - 1) / (2 * (high - low))


def comb(family: str, band: float, length: float, found: Spectrum | None = None) -> AxisKernel:
    """A spectral mixture that covers all frequencies up to a band, weighted as a spectrum is.

    Up to 64 components, two thirds of their distance wide. None is weighted with less than 1e-6 of the largest: what
    the data do not show may still be there.

    Parameters
    ----------
    family : str
        "gaussian" or "student".
    band : float
        The highest frequency.
    length : float
        Of the axis.
    found : Spectrum, optional
        Of u; all weigh the same without it.

    Returns
    -------
    AxisKernel
        Of variance 1.
    """
    count = int(np.clip(math.ceil(2 * band * length), 3, 64))
    frequencies, distance = np.linspace(0, band, count, retstep=True)
    weights = np.ones(count)
    if found is not None and found.amplitudes.any():
        near = np.abs(found.frequencies[:, None] - frequencies) <= max(distance, found.frequencies[1])
        power = np.where(near, found.amplitudes[:, None], 0.0).max(axis=0) ** 2
        weights = np.maximum(power / power.max(), 1e-6)
    return MIXTURES[family](weights / weights.sum(), frequencies, math.pi * math.sqrt(2) * 0.7 * distance)


def mixture(problem: Problem, family: str, bands: Sequence[float], spectra: Sequence[Spectrum]) -> Product:
    """The prior: a product over axes of combs.

    Parameters
    ----------
    problem : Problem
    family : str
        "gaussian" or "student".
    bands : sequence of float
        The highest frequency, per axis.
    spectra : sequence of Spectrum
        Of u, per axis.
    """
    lengths = [high - low for low, high in problem.domain]
    return Product(*(comb(family, b, length, s) for b, length, s in zip(bands, lengths, spectra, strict=True)))


def choose_kernel(problem: Problem, family: str = "gaussian") -> Product:
    """The prior that the data suggest, before any solve.

    Parameters
    ----------
    problem : Problem
    family : str
        "gaussian" or "student".

    Examples
    --------
    >>> from operators.gp import Poisson
    >>> wave = lambda x: np.sin(100 * x[:, 0])
    >>> kernel = choose_kernel(Poisson([(0, 6)], lambda x: -1e4 * wave(x), wave, 400))
    >>> bool(100 / (2 * np.pi) < kernel.factors[0].frequencies.max() < 18)
    True
    """
    spectra = [spectrum(problem, axis) for axis in range(problem.dimension)]
    return mixture(problem, family, guess_bands(problem, spectra), spectra)


def check_nyquist(problem: Problem, kernel: Product) -> None:
    """Refuse a given kernel whose frequencies the nodes cannot hold.

    Parameters
    ----------
    problem : Problem
    kernel : Product
    """
    for axis, factor in enumerate(kernel.factors):
        highest = float(np.max(getattr(factor, "frequencies", 0.0)))
        if highest > nyquist(problem, axis):
            low, high = problem.domain[axis]
            needed = math.ceil(2 * (high - low) * highest) + 1
            raise ValueError(
                f"nodes={problem.nodes} are too few for the kernel: its frequencies along axis {axis} reach "
                f"{highest:.4g} cycles per unit of length, which takes at least {needed} nodes"
            )


def _lines(problem: Problem, axis: int, coordinates: Array, face: tuple[int, int] | None) -> Array:
    """Points on parallel lines along an axis, ``(lines * count, d)``, through the box or on a face."""
    others = [a for a in range(problem.dimension) if a != axis and (face is None or a != face[0])]
    lines = LINES if others else 1
    points = np.empty((lines, len(coordinates), problem.dimension))
    points[..., axis] = coordinates
    if face is not None:
        points[..., face[0]] = problem.domain[face[0]][face[1]]
    for other, places in zip(others, _scattered(lines, len(others)), strict=True):
        low, high = problem.domain[other]
        points[..., other] = (low + (high - low) * places)[:, None]
    return points.reshape(-1, problem.dimension)


def _scattered(count: int, dimension: int) -> Iterator[Array]:
    """Evenly scattered numbers in (0, 1), for each dimension: multiples of the powers of a generalised golden ratio."""
    ratio = 2.0
    for _ in range(40):
        ratio = (1 + ratio) ** (1 / (dimension + 1))
    for k in range(1, dimension + 1):
        yield (0.5 + np.arange(count) * ratio**-k) % 1
