"""Flux-form finite volumes in any number of dimensions: on cells, of a masked box too, and on interior nodes.

For ``-div(a grad u) + c u = f`` on a box, integrated over a cell and divided by its volume,

    sum over the cell's faces of  k_F (u_cell - u_neighbour)  +  c u_cell  =  f_cell,

with ``k_F = a_F / h^2`` between two cells, ``a_F`` the harmonic mean of the two coefficients: the exact flux of a
piecewise constant coefficient in one dimension (Patankar 1980, Numerical Heat Transfer and Fluid Flow, section 4.2-3).
At a boundary face the half cell has conductance ``c_F = 2 a / h`` and the condition is eliminated exactly.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from datagen.grids import Grid
from solvers import aligned
from solvers.half_stencil import HalfStencil
from solvers.row_sums import RowSums
from solvers.stencil import StencilOperator

_BLOCK = 2048  # cells whose faces stay in the first-level cache
_U = np.uint64  # positions that cannot be negative: the loops become vector instructions


@dataclass(frozen=True)
class Dirichlet:
    """``u = value`` on a side; value is a number or an array of the side's shape.

    Parameters
    ----------
    value : float or array
        A number, or an array of the side's shape.
    """

    value: ArrayLike = 0.0
    kind = "dirichlet"

    def eliminate(self, conductance: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Diagonal and right-hand side of the half cell, per unit of face area."""
        return conductance, conductance * np.asarray(self.value)


@dataclass(frozen=True)
class Neumann:
    """``a du/dn = value`` on a side, n pointing outwards: value is the flux that enters the box.

    Parameters
    ----------
    value : float or array
        A number, or an array of the side's shape; the flux that enters.
    """

    value: ArrayLike = 0.0
    kind = "neumann"

    def eliminate(self, conductance: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Diagonal and right-hand side of the half cell, per unit of face area."""
        return np.zeros_like(conductance), np.broadcast_to(np.asarray(self.value, float), conductance.shape)


@dataclass(frozen=True)
class Robin:
    """``transfer u + a du/dn = value`` on a side, n pointing outwards, transfer not negative.

    Parameters
    ----------
    transfer, value : float or array
        Numbers, or arrays of the side's shape.
    """

    transfer: ArrayLike
    value: ArrayLike = 0.0
    kind = "robin"

    def eliminate(self, conductance: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Diagonal and right-hand side of the half cell, per unit of face area.

        Without the face value ``u_F = (value + c u) / (transfer + c)`` the flux out of the cell,
        ``transfer u_F - value``, is ``c (transfer u - value) / (transfer + c)``, c the half cell's conductance.
        """
        transfer = np.asarray(self.transfer, float)
        if not np.all(transfer >= 0):
            raise ValueError(f"Robin: transfer must not be negative, or the operator is not definite; got {transfer}")
        share = conductance / (transfer + conductance)
        return share * transfer, share * np.asarray(self.value)


Side = Dirichlet | Neumann | Robin
PERIODIC = "periodic"
# Per axis: the conditions of its lower and upper side, or PERIODIC.
Boundary = Sequence[tuple[Side, Side] | str]


def boundary_names(boundary: Boundary) -> tuple[tuple[str, str], ...]:
    """Names of the conditions per axis and side, as `StencilOperator` and the data files hold them.

    Parameters
    ----------
    boundary : sequence
        One entry an axis, as `diffusion` takes it.
    """
    return tuple((PERIODIC, PERIODIC) if isinstance(b, str) else (b[0].kind, b[1].kind) for b in boundary)


def is_singular(boundary: Boundary, reaction: ArrayLike = 0.0) -> bool:
    """Whether constants are in the null space: only Neumann and periodic sides, and no reaction.

    Parameters
    ----------
    boundary : sequence
        One entry an axis, as `diffusion` takes it.
    reaction : float or array
        The coefficient of u.
    """
    names = {name for pair in boundary_names(boundary) for name in pair}
    return names <= {"neumann", PERIODIC} and not np.any(reaction)


@njit(cache=True, nogil=True, error_model="numpy")
def _join(resistance, conductance, lines, step, around, diagonal, above):  # type: ignore[no-untyped-def]
    """Join all cells to their upper neighbours along an axis, by faces ``k = conductance / (r + r')``.

    The fields are flat, of so many lines of cells with the neighbours `step` further on; ``around``: the last of a line
    are joined to the first. Adds k to the diagonal of both, and writes -k above; the last cells' is left as it is.
    """
    length = resistance.size // lines
    for line in range(lines):
        end = (line + 1) * length - step
        for first in range(line * length, end, _BLOCK):
            start, stop, ahead = _U(first), _U(min(first + _BLOCK, end)), _U(step)
            for i in range(start, stop):
                above[i] = -conductance / (resistance[i] + resistance[i + ahead])
            for i in range(start, stop):
                diagonal[i] -= above[i]
            for i in range(start, stop):
                diagonal[i + ahead] -= above[i]
        if around:
            for i in range(end, end + step):
                neighbour = i + step - length
                above[i] = -conductance / (resistance[i] + resistance[neighbour])
                diagonal[i] -= above[i]
                diagonal[neighbour] -= above[i]


def diffusion(
    coefficient: ArrayLike,
    grid: Grid,
    boundary: Boundary,
    *,
    reaction: ArrayLike = 0.0,
    mask: NDArray[np.bool_] | None = None,
) -> tuple[StencilOperator, NDArray[np.float64]]:
    """The operator of ``-div(a grad u) + c u`` and what the boundary adds to the right-hand side.

    Second order accurate for smooth coefficients; symmetric; an M-matrix, so ``f >= 0`` gives ``u >= 0`` under
    homogeneous conditions.

    Parameters
    ----------
    coefficient : array_like, shape grid.shape
        Positive cell values of a.
    grid : Grid
        Cell-centred.
    boundary : sequence
        Per axis a pair of `Dirichlet`, `Neumann` or `Robin` (lower side, upper side), or "periodic".
    reaction : array_like
        Cell values of c, not negative; a number or an array of ``grid.shape``.
    mask : ndarray of bool, shape grid.shape, optional
        Cells that are there; faces between them and the others are insulated. Coefficients elsewhere do not matter.

    Returns
    -------
    operator : StencilOperator
        A, over the cells of the mask, with ``A u = f + g`` the discrete equation; entries in units of
        coefficient / length^2.
    boundary_load : ndarray, shape grid.shape
        g.

    Raises
    ------
    ValueError
        If a shape does not fit, the coefficient is not positive, or the grid is not cell-centred.

    Examples
    --------
    Linear pressure between u = 0 and u = 1 is reproduced exactly, jumps of the coefficient along the other axis or not:

    >>> grid = Grid((4, 3), (1.0, 1.0))
    >>> a = np.ones((4, 1)) * [[1.0, 100.0, 7.0]]
    >>> A, g = diffusion(a, grid, [(Dirichlet(0.0), Dirichlet(1.0)), (Neumann(), Neumann())])
    >>> u = grid.points()[0]
    >>> bool(np.allclose(A @ u.ravel(), g.ravel()))
    True
    """
    if grid.centring != "cell":
        raise ValueError(f"grid must be cell-centred, got centring {grid.centring!r}")
    if len(boundary) != grid.dimension:
        raise ValueError(f"boundary must have one entry per axis ({grid.dimension}), got {len(boundary)}")
    a = np.asarray(coefficient, dtype=np.float64)
    if a.shape != grid.shape:
        raise ValueError(f"coefficient must have the grid's shape {grid.shape}, got {a.shape}")
    if mask is not None:
        if mask.shape != grid.shape or mask.dtype != bool:
            raise ValueError(
                f"mask must be booleans of the grid's shape {grid.shape}, got {mask.dtype} of shape {mask.shape}"
            )
        a = np.where(mask, a, 1.0)
    if not 0 < a.min() <= a.max() < np.inf:
        raise ValueError("coefficient must be positive and finite in every cell")
    reaction = np.asarray(reaction, dtype=np.float64)
    if not np.all(reaction >= 0):
        raise ValueError("reaction must not be negative, or the operator may be indefinite")

    dimension = grid.dimension
    # One array for the whole stencil, which StencilOperator takes over as it is: centre, above per axis, and below per
    # axis, unless that is but a mirror of above.
    half = mask is None and not any(isinstance(sides, str) for sides in boundary) and min(grid.shape) > 1
    steps = [tuple(int(i == axis) for i in range(dimension)) for axis in range(dimension)]
    offsets = [(0,) * dimension, *steps, *(tuple(-s for s in step) for step in steps if not half)]
    stencil = aligned.empty((len(offsets), *grid.shape))
    stencil[0] = reaction
    load = np.zeros(grid.shape)
    for axis, (sides, h) in enumerate(zip(boundary, grid.spacing, strict=True)):
        if isinstance(sides, str):
            if sides != PERIODIC:
                raise ValueError(f"boundary of axis {axis} must be a pair of conditions or 'periodic', got {sides!r}")
            continue
        for place, side in zip((0, -1), sides, strict=True):
            cells = (slice(None),) * axis + (place,)
            half_diagonal, half_load = side.eliminate(2 * a[cells] / h)
            stencil[0][cells] += half_diagonal / h
            load[cells] += half_load / h
    # Between cells only differences count: what is on the diagonal now is what the rows will sum to, in exact
    # arithmetic and where no conductance overflows.
    row_sums = RowSums.from_sums(stencil[0].reshape(-1))
    # Faces to cells that are not there resist without end.
    resistance = 1 / a if mask is None else np.where(mask, 1 / a, np.inf)
    for axis, (sides, h) in enumerate(zip(boundary, grid.spacing, strict=True)):
        around = isinstance(sides, str)
        above = stencil[1 + axis]
        if not around:
            above[(slice(None),) * axis + (-1,)] = 0
        lines, step = math.prod(grid.shape[:axis]), math.prod(grid.shape[axis + 1 :])
        fields = resistance.reshape(-1), stencil[0].reshape(-1), above.reshape(-1)
        _join(fields[0], 2 / h**2, lines, step, around, *fields[1:])
        if not half:
            stencil[1 + dimension + axis] = np.roll(above, 1, axis)
    stencil.flags.writeable = False
    if half:
        ahead = {step: (1 + axis, math.prod(grid.shape[axis + 1 :])) for axis, step in enumerate(steps)}
        links = HalfStencil(stencil.reshape(len(offsets), -1), 0, ahead)
        operator = StencilOperator.from_half(links, grid.shape, grid.spacing, boundary_names(boundary), "cell")
        if np.isfinite(2 * dimension * a.max() / min(grid.spacing) ** 2):
            operator.row_sums = row_sums
        return operator, load
    operator = StencilOperator(
        offsets=offsets,
        coefficients=stencil,
        shape=grid.shape,
        spacing=grid.spacing,
        boundary=boundary_names(boundary),
        centring=("cell",) * dimension,
        mask=mask,
    )
    return operator, load if mask is None else np.where(mask, load, 0.0)


def diffusion_on_nodes(
    coefficient: ArrayLike, grid: Grid, boundary_values: ArrayLike, *, arithmetic: bool = False
) -> tuple[StencilOperator, NDArray[np.float64]]:
    """The operator of ``-div(a grad u)`` on the interior nodes, u given on the boundary nodes.

    The balance over the cell of a node has the same form as in `diffusion`, with no half cells: boundary values enter
    where a neighbour lies on the boundary. Second order accurate for smooth coefficients; symmetric; an M-matrix, so
    without a source u stays between the extremes of its boundary values.

    Parameters
    ----------
    coefficient : array_like, shape grid.shape
        Positive nodal values of a.
    grid : Grid
        Node-centred, at least 3 nodes per axis.
    boundary_values : array_like, shape grid.shape
        u on the boundary nodes; interior entries do not matter, nor do those where two sides meet.
    arithmetic : bool
        Arithmetic face averages instead of harmonic ones, for published schemes that have them; then the coefficient
        may be of any sign, and the operator indefinite.

    Returns
    -------
    operator : StencilOperator
        A, over the interior nodes.
    boundary_load : ndarray, shape of the interior
        g, with ``A u = f + g`` the discrete equation.

    Raises
    ------
    ValueError
        If a shape does not fit, the coefficient is not positive, or the grid is not node-centred.

    Examples
    --------
    The harmonic function ``x^2 - y^2`` has no truncation error:

    >>> grid = Grid((5, 5), (1.0, 1.0), "node")
    >>> x, y = grid.points()
    >>> A, g = diffusion_on_nodes(np.ones((5, 5)), grid, x**2 - y**2)
    >>> bool(np.allclose(A @ (x**2 - y**2)[1:-1, 1:-1].ravel(), g.ravel()))
    True
    """
    if grid.centring != "node" or min(grid.shape) < 3:
        raise ValueError(
            f"grid must be node-centred with at least 3 nodes per axis, got {grid.shape} nodes, "
            f"centring {grid.centring!r}"
        )
    a, values = np.asarray(coefficient, dtype=np.float64), np.asarray(boundary_values, dtype=np.float64)
    for name, array in (("coefficient", a), ("boundary_values", values)):
        if array.shape != grid.shape:
            raise ValueError(f"{name} must have the grid's shape {grid.shape}, got {array.shape}")
    if not (np.all(np.isfinite(a)) and (arithmetic or np.all(a > 0))):
        raise ValueError("coefficient must be positive and finite at every node")

    dimension = grid.dimension
    interior = (slice(1, -1),) * dimension
    shape = a[interior].shape
    diagonal, load = np.zeros(shape), np.zeros(shape)
    offsets: list[tuple[int, ...]] = [(0,) * dimension]
    coefficients: list[NDArray[np.float64]] = [diagonal]
    for axis, h in enumerate(grid.spacing):
        for step in (-1, 1):
            moved = slice(1 + step, grid.shape[axis] - 1 + step)
            neighbours = tuple(moved if i == axis else slice(1, -1) for i in range(dimension))
            edge = slice(0, 1) if step < 0 else slice(-1, None)
            at_edge = tuple(edge if i == axis else slice(None) for i in range(dimension))
            here, there = a[interior], a[neighbours]
            face = ((here + there) / 2 if arithmetic else 2 / (1 / here + 1 / there)) / h**2
            diagonal += face
            load[at_edge] += (face * values[neighbours])[at_edge]
            face[at_edge] = 0
            offsets.append(tuple(step if i == axis else 0 for i in range(dimension)))
            coefficients.append(-face)
    operator = StencilOperator(
        offsets=tuple(offsets),
        coefficients=tuple(coefficients),
        shape=shape,
        spacing=grid.spacing,
        boundary="dirichlet",
        centring="node",
    )
    return operator, load
