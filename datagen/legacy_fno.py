"""The scheme of the published Darcy data, with its interpolations: for comparison, not for new data.

The script ``solve_gwf.m`` of the Fourier Neural Operator (Li et al. 2021) keeps fields on the centres of K x K cells,
``(i + 1/2) / K``, and solves on K x K nodes, ``i / (K - 1)``, between which it goes by cubic splines with not-a-knot
ends in each direction (MATLAB's ``interp2(..., 'spline')``):

    a_nodes = S a S',    A(a_nodes) u_nodes = f on interior nodes, 0 on the others,    u = R u_nodes R',

A the five-point scheme with arithmetic face averages. S overshoots where the coefficient jumps, most where it
extrapolates to the boundary nodes: of 200 draws on 64 x 64, 59 % (12 and 3) and 24 % (12 and 4) have a face whose
average is negative, and 6 % and 2 % have labels that are negative somewhere, which no solution of the equation is.
Lognormal coefficients as smooth as the script's show neither.

u on the outermost cells is that of half a cell inside: not zero.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from datagen.discretise import diffusion_on_nodes
from datagen.family import LinearSystem
from datagen.grids import Grid


@lru_cache(maxsize=8)
def _interpolation(points: int, source: str, target: str) -> NDArray[np.float64]:
    """The matrix of spline interpolation along one axis, from "cell" to "node" or back, shape ``(points, points)``."""
    x, y = (Grid((points,), (1.0,), centring).coordinates(0) for centring in (source, target))
    matrix: NDArray[np.float64] = CubicSpline(x, np.eye(points), bc_type="not-a-knot")(y)
    matrix.flags.writeable = False
    return matrix


@lru_cache(maxsize=8)
def _from_cells(points: int) -> NDArray[np.float64]:
    """Inverse of R: the nodal values whose spline has given values on the cells."""
    return np.asarray(np.linalg.inv(_interpolation(points, "node", "cell")), dtype=np.float64)


def darcy_system(coefficient: NDArray[np.float64], source: float) -> LinearSystem:
    """The system of ``-div(a grad u) = source``, u = 0 on the boundary of the unit square, as the script has it.

    Symmetric, with one unknown for each interior node; definite where all face averages are positive.

    Parameters
    ----------
    coefficient : ndarray, shape (K, K)
        a on cells, K at least 4.
    source : float
        f.

    Examples
    --------
    >>> system = darcy_system(np.ones((16, 16)), 1.0)
    >>> system.A.shape, system.to_field(system.b).shape
    ((196, 196), (16, 16))
    """
    K = len(coefficient)
    S, R = _interpolation(K, "cell", "node"), _interpolation(K, "node", "cell")
    mesh = Grid((K, K), (1.0, 1.0), "node")
    operator, load = diffusion_on_nodes(S @ coefficient @ S.T, mesh, np.zeros((K, K)), arithmetic=True)

    def to_field(x: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(R @ np.pad(x.reshape(K - 2, K - 2), 1) @ R.T)

    def to_vector(field: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(_from_cells(K) @ field @ _from_cells(K).T)[1:-1, 1:-1].ravel()

    return LinearSystem(operator, (source + load).ravel(), to_field, to_vector)
