r"""Constants in the place of variable coefficients.

Every symmetric operator with couplings :math:`-w_{ij} \le 0` between neighbours is a sum over its links and its row
sums :math:`s_i`,

.. math:: u^T A u = \sum_{i<j} w_{ij} (u_i - u_j)^2 + \sum_i s_i u_i^2 ,

so that an operator with other, constant :math:`\bar w_a, \bar s` of the same places differs from A by at most the
ratios of the two: the condition number of one preconditioned with the other is at most the largest of these ratios over
the smallest. In the place of the links along an axis comes their geometric mean. It lies in the middle of the ratios,
and in two dimensions is the effective coefficient of media like a and 1/a (A. M. Dykhne, Sov. Phys. JETP 32 (1971) 63).
"""

from dataclasses import dataclass

import numpy as np

from solvers.kronecker_sum import KroneckerSum, Tridiagonal
from solvers.precondition.fast_poisson.transforms import smallest_eigenvalues
from solvers.stencil import StencilOperator


@dataclass(frozen=True, eq=False)
class Average:
    """An operator with constant coefficients near A.

    Attributes
    ----------
    operator : KroneckerSum
    contrast : float
        Of the links of A: the largest over the smallest, each in units of the constant of its axis.
    """

    operator: KroneckerSum
    contrast: float


def average(A: StencilOperator) -> Average:
    """Constants for the links along each axis, the reaction term and each side.

    A coupling across the corner of a cell counts for both axes, as it does for smooth fields. Of a nonsymmetric A the
    mean of opposite couplings counts.

    Raises
    ------
    ValueError
        If neighbours couple with the wrong sign.
    """
    sums = A.coefficients.sum(axis=0, dtype=np.float64)
    rounding = 100 * float(np.finfo(A.dtype).eps) * float(np.max(np.abs(A.coefficients)))
    sums[np.abs(sums) <= rounding] = 0.0
    singular = not sums.any()
    inner = tuple(
        slice(1, -1) if size > 2 and not around else slice(None)
        for size, around in zip(A.grid_shape, A.periodic, strict=True)
    )
    reaction = max(float(np.median(sums[inner])), 0.0) if all(n > 2 for n in A.grid_shape) else 0.0
    sums -= reaction

    axes, least, most = [], np.inf, 0.0
    for axis, (size, around) in enumerate(zip(A.grid_shape, A.periodic, strict=True)):
        link, low, high = _links(A, axis)
        if size > 1 and not link > 0:
            raise ValueError(
                f"A: fast Poisson needs neighbours that couple with a negative sign, as in -div(a grad u); along axis "
                f"{axis} the mean of the couplings is {-link:.3e} (is A the negative of such an operator?)"
            )
        least, most = min(least, low), max(most, high)
        diagonal = np.full(size, 2 * link)
        if not around or size < 3:
            diagonal[0] -= link
            diagonal[-1] -= link
            for end, step in ((0, 1), (-1, -1)):
                diagonal[end] += link * _beyond(A, axis, end, step, sums, inner)
        links = np.full(max(size - 1, 0), -link)
        axes.append(Tridiagonal(diagonal, links, -link if around and size > 2 else 0.0))
    axes[0] = axes[0].plus(reaction)
    operator = KroneckerSum.from_axes(axes, rounding)
    if operator.annihilates_constants and not singular:
        # Something holds A, though no side as a whole: give the constants the energy that they have in A.
        axes[0] = axes[0].plus(max(float(sums.mean()), rounding))
        operator = KroneckerSum.from_axes(axes, 0.0)
    return Average(operator, most / least if most > 0 else 1.0)


def _links(A: StencilOperator, axis: int) -> tuple[float, float, float]:
    """The constant of the links along an axis, and the smallest and the largest in its units."""
    constant, least, most = 0.0, np.inf, 0.0
    for offset, field in zip(A.offsets, A.coefficients, strict=True):
        if offset[axis] == 0:
            continue
        inside = tuple(
            slice(None) if around else slice(max(-step, 0), size - max(step, 0))
            for step, size, around in zip(offset, A.grid_shape, A.periodic, strict=True)
        )
        links = -field[inside].astype(np.float64)
        if links.size == 0:
            continue
        smallest, largest = float(links.min()), float(links.max())
        mean = float(np.exp(np.mean(np.log(links)))) if smallest > 0 else float(np.mean(links))
        constant += offset[axis] ** 2 * mean / 2
        if mean > 0:
            least, most = min(least, smallest / mean), max(most, largest / mean)
    return constant, max(least, np.finfo(float).tiny), most


def _beyond(A: StencilOperator, axis: int, end: int, step: int, sums: np.ndarray, inner: tuple[slice, ...]) -> float:
    """How strongly a side is held, in units of the links before it: the median ratio of row sum and link.

    Near 1 and 2, the values of a boundary value one and half a spacing away, it is taken as these, which the fast
    transforms know.
    """
    where: list[int | slice] = list(inner)
    where[axis] = end
    side = sums[tuple(where)]
    links = sum(
        -field[tuple(where)].astype(np.float64)
        for offset, field in zip(A.offsets, A.coefficients, strict=True)
        if offset[axis] * step > 0
    )
    if not side.any():
        return 0.0
    if A.grid_shape[axis] == 1:  # no link to compare with: two sides of one point share what holds it
        return float(np.median(side)) / 2
    ratio = max(float(np.median(side / np.maximum(links, np.finfo(float).tiny))), 0.0)
    return float(round(ratio)) if abs(ratio - round(ratio)) <= 0.2 and round(ratio) in (1, 2) else ratio


def roughness(D: np.ndarray, average: KroneckerSum, dtype: np.dtype) -> float:
    r"""How far the equation for :math:`v = D^{1/2} u` is from one with constant coefficients.

    With :math:`g = D^{1/2}`, :math:`-\nabla\cdot(D\nabla u) = f` becomes :math:`(-\Delta + \Delta g / g)\, v = f / g`
    (P. Concus and G. H. Golub, SIAM J. Numer. Anal. 10 (1973) 1103). Returned is the energy of g in units of that of
    the smoothest mode,

    .. math:: E = \frac{g^T L g}{\lambda_{\min}\, g^T g} ,

    with L the links of the average and :math:`\lambda_{\min}` its smallest positive eigenvalue: bounded for smooth D,
    whatever the grid, and growing with the number of points along an axis where D jumps. That a Rayleigh quotient is
    1 + E suggests a condition number near :math:`(1 + E)^2`, for 1 / D has as large a one at the other end. So it was:
    on 68 fields, smooth, binary and white, this and the contrast told which of the two takes fewer iterations, or one
    that takes a few more.
    """
    g = np.sqrt(D)
    energy = 0.0
    for axis, T in enumerate(average.axes):
        if T.links.size:
            energy += float(np.max(np.abs(T.links))) * float(np.sum(np.diff(g, axis=axis) ** 2))
    lowest = [smallest_eigenvalues(T, dtype) for T in average.axes]
    smallest = sum(values[0] for values in lowest)
    if average.annihilates_constants:
        smallest = min(values[1] - values[0] for values in lowest if values.size > 1)
    return energy / (float(smallest) * float(np.sum(D)))
