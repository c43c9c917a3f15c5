"""A hierarchy: a plan, and an arena filled with the operators, weights and line factors of one matrix."""

import threading
import weakref
from dataclasses import dataclass
from math import frexp, inf, sqrt
from typing import Any

import numpy as np
import scipy.sparse as sp

from solvers import aligned
from solvers.precondition.multigrid import cycle as c
from solvers.precondition.multigrid.colours import COLOURS
from solvers.precondition.multigrid.galerkin import (
    clear,
    factor_lines,
    fill_zeros,
    galerkin,
    interpolate,
    invert,
    setup_tables,
    split,
    workspace_size,
)
from solvers.precondition.multigrid.layout import BELOW, Offset
from solvers.precondition.multigrid.schedule import Plan
from solvers.precondition.multigrid.schedule import plan as make_plan
from solvers.stencil import StencilOperator

# Eigenvalues of the coarsest operator below this, relative to the largest, are taken for zero: far above rounding of
# the Galerkin products (1e-15), far below the smallest of a few dozen coupled points (1e-3) unless they float. From
# products in single precision they say that double is needed.
_SINGULAR = {"d": 1e-10, "f": 1e-5}


@dataclass
class Hierarchy:
    """Coefficients of all levels in one array, and the inverse of the coarsest operator.

    Attributes
    ----------
    plan : Plan
    arena : ndarray, shape (plan.arena_size,)
        Coefficients first, then the workspace of the cycle, in the precision of the cycle.
    inverse : ndarray, shape (n, n)
        (Pseudo-)inverse of the coarsest operator.
    scale : float
        The arena holds `scale` times A, lest single precision overflow.
    """

    plan: Plan
    arena: np.ndarray
    inverse: np.ndarray
    scale: float

    @classmethod
    def of(
        cls,
        plan: Plan,
        arena: np.ndarray,
        inverse: np.ndarray,
        scale: float,
        dtype: np.dtype,
        before: "Hierarchy | None" = None,
    ) -> "Hierarchy":
        """From coefficients; those are taken over where `dtype` is theirs.

        Otherwise the memory of the hierarchy `before` is used again if it has the same plan.
        """
        if dtype != arena.dtype:
            single = before.arena if before is not None and before.plan is plan else _kept(plan, "single")
            if single is None:
                single = aligned.zeros(plan.arena_size + workspace_size(plan), dtype)
            single[: plan.coefficient_size] = arena[: plan.coefficient_size]
            arena = single
        fill_voids(plan, arena)
        return cls(plan, arena, inverse.astype(dtype), scale)

    def __post_init__(self) -> None:
        names = ("levels", "steps", "phases", "rows", "products", "colours", "transfers", "ghosts", "line_rows")
        tables = (self.plan.tables[name] for name in names)
        self._arguments = (self.arena, *tables, self.inverse, self.plan.coarsest_positions)
        if self.arena.dtype == np.float32:
            weakref.finalize(self, _keep, self.plan, "single", self.arena).atexit = False

    def apply(self, r: np.ndarray, z: np.ndarray, norm: float | None = None) -> tuple[float, float]:
        """The cycle on ``A z = r`` from zero: returns a factor by which z is still to be multiplied, and r'z.

        Both are flat fields of the finest grid in C order, r in double precision, z in that of the cycle; `norm` is
        that of r, if known. The factor is 1 unless single precision could not hold the result.
        """
        scale_in = _normalising(r, norm)
        scale_out = self.scale / scale_in
        inside = scale_out if 1e-15 < scale_out < 1e15 else 1.0
        if len(self.plan.layouts) == 1:
            np.copyto(z, self.inverse @ (scale_in * r) * inside, casting="same_kind")
            product = float(np.dot(r, z)) * scale_in / inside
        else:
            product = float(c.run_cycle(*self._arguments, r, z, scale_in, inside))
        return scale_out / inside, product / scale_in * scale_out

    def interpolation(self, level: int) -> sp.csr_array:
        """Interpolation from level + 1 to level as a sparse matrix."""
        return interpolation_matrix(self.plan, self.arena, level)


def _normalising(r: np.ndarray, norm: float | None) -> float:
    """A power of two that brings `r` to a norm near one, so that its squares and small parts fit single precision."""
    size = sqrt(float(np.dot(r, r))) if norm is None else norm
    if not 1e-140 < size < 1e140:  # the square may have left double precision
        size = float(np.max(np.abs(r), initial=0.0))
    return 2.0 ** -frexp(size)[1] if 0.0 < size < inf else 1.0


# -- Reading an arena -------------------------------------------------------------------------------------------------


def _field(arena: np.ndarray, start: int, size: int) -> np.ndarray:
    return arena[start : start + size]


def operator_field(plan: Plan, arena: np.ndarray, level: int, offset: Offset) -> np.ndarray:
    """Coefficients with which the points of a level take their neighbours at `offset`, shape of the level."""
    layout, places = plan.layouts[level], plan.places[level]
    if not any(offset):
        return layout.join(_field(arena, places["diagonal"], layout.split_size))
    opposite = tuple(-step for step in offset)
    stored = offset if offset in layout.links else opposite
    start = places["links"] + layout.links.index(stored) * layout.split_size
    field = layout.join(_field(arena, start, layout.split_size))
    # Half of the links are stored with the neighbour.
    return field if stored == offset else np.roll(field, stored, axis=range(layout.dimensions))


def operator_stencil(hierarchy: Hierarchy, level: int, finest: StencilOperator) -> StencilOperator:
    """The operator of a coarse level, with the boundary conditions of the finest one."""
    plan = hierarchy.plan
    kept = [axis for axis, size in enumerate(finest.grid_shape) if size > 1]
    layout, stencil = plan.layouts[level], plan.stencil(level)
    return StencilOperator(
        stencil,
        [operator_field(plan, hierarchy.arena, level, offset) / hierarchy.scale for offset in stencil],
        layout.shape,
        [finest.spacing[axis] * 2**level for axis in kept],
        boundary=[finest.boundary[axis] for axis in kept],
        centring=[finest.centring[axis] for axis in kept],
    )


def _weights(plan: Plan, arena: np.ndarray, level: int, u: Offset) -> np.ndarray:
    """The natural field of the weights of points ``2 I + u``, with ghosts."""
    coarse = plan.layouts[level + 1]
    return coarse.natural_array(_field(arena, plan.weight_place(level, u), coarse.natural_size))


def _even_points(plan: Plan, level: int) -> tuple[slice, ...]:
    """Where the even points of a level lie in natural fields of the next."""
    starts = [BELOW] * (len(plan.shape) - 1) + [1]
    even = [(size + 1) // 2 for size in plan.layouts[level].shape]
    return tuple(slice(start, start + size) for start, size in zip(starts, even, strict=True))


def interpolation_matrix(plan: Plan, arena: np.ndarray, level: int) -> sp.csr_array:
    """See `Hierarchy.interpolation`."""
    fine, coarse = plan.layouts[level], plan.layouts[level + 1]
    even = tuple((size + 1) // 2 for size in fine.shape)
    place = np.indices(even)
    # At a seam the last even point is the ghost beyond the last coarse one, which is the first.
    coarse_index = np.ravel_multi_index([i % size for i, size in zip(place, coarse.shape, strict=True)], coarse.shape)
    rows, columns, values = [], [], []
    for u in [(0,) * fine.dimensions, *plan.weights]:
        weight = np.ones(even, dtype=arena.dtype)
        if any(u):
            weight = _weights(plan, arena, level, u)[_even_points(plan, level)]
        used = weight != 0
        points = []
        for axis, step in enumerate(u):
            point = 2 * place[axis] + step
            if fine.periodic[axis]:
                point = point % fine.shape[axis]
            points.append(point[used])
        rows.append(np.ravel_multi_index(points, fine.shape))
        columns.append(coarse_index[used])
        values.append(weight[used])
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return sp.csr_array(entries, shape=(fine.points, coarse.points))


# -- Filling one ------------------------------------------------------------------------------------------------------


_KEPT = 64 * 2**20  # bytes of an arena that are kept for the next matrix
_arenas = threading.local()


def _keep(plan: Plan, use: str, arena: np.ndarray) -> None:
    """Keep an arena that is no longer needed, for the next matrix on the same grid in this thread.

    Fresh memory is handed out page by page, which takes as long as to work on it.
    """
    if arena.nbytes <= _KEPT:
        setattr(_arenas, use, (plan, arena))


def _kept(plan: Plan, use: str) -> np.ndarray | None:
    """The arena that was kept for this plan, now the caller's, or None."""
    kept = getattr(_arenas, use, None)
    if kept is None or kept[0] is not plan:
        return None
    setattr(_arenas, use, None)
    return np.asarray(kept[1])


def empty_arena(plan: Plan, dtype: np.dtype, scratch: bool) -> np.ndarray:
    """Room for the coefficients and the set-up's workspace; for the workspace of the cycle too, if it is no scratch.

    An arena in single precision, and scratch, are kept for the next matrix on the same grid. What a set-up does not
    overwrite stays zero, but for the ghosts of periodic axes, some of which are read before they are written, and the
    voids that `fill_voids` fills.
    """
    size = (plan.coefficient_size if scratch else plan.arena_size) + workspace_size(plan)
    if dtype == np.float64 and not scratch:
        return aligned.zeros(size, dtype)
    arena = _kept(plan, "double" if scratch else "single")
    if arena is None:
        return aligned.zeros(size, dtype)
    if any(plan.periodic):
        arena[:] = 0
    elif not scratch:
        clear(arena, plan.diagonals)
    return arena


def done_with(plan: Plan, arena: np.ndarray, dtype: np.dtype) -> None:
    """The other end of `empty_arena`: scratch is kept."""
    if dtype != arena.dtype:
        _keep(plan, "double", arena)


def fill_voids(plan: Plan, arena: np.ndarray) -> None:
    """Give points that do not exist a unit diagonal, so that they can be relaxed like others; they stay zero.

    Only when all levels are there: a coarse point may exist where its fine point does not, if it serves others.
    """
    fill_zeros(arena, plan.diagonals)


def fill_operator(
    plan: Plan,
    arena: np.ndarray,
    level: int,
    diagonal: np.ndarray,
    links: dict[Offset, np.ndarray],
    scale: float = 1.0,
) -> None:
    """Write an operator, given by its diagonal and its forward links, into its level, times `scale`."""
    layout, places = plan.layouts[level], plan.places[level]
    rows, points = layout.split_rows, layout.shape[-1]
    for index, field in enumerate([diagonal, *(links.get(offset) for offset in layout.links)]):
        start = places["diagonal"] + index * layout.split_size
        if field is None:
            _field(arena, start, layout.split_size)[:] = 0
        else:
            split(arena, start, rows, layout.half_width, points, field.reshape(-1), scale)
    fill_operator_ghosts(plan, arena, level)


def fill_operator_ghosts(plan: Plan, arena: np.ndarray, level: int) -> None:
    """Copies around periodic axes."""
    layout, places = plan.layouts[level], plan.places[level]
    if any(layout.periodic):
        for field in range(len(layout.links) + 1):
            c.copy_ghosts(
                arena, places["diagonal"] + field * layout.split_size, layout.split_copies, 0, len(layout.split_copies)
            )


def coarsen(plan: Plan, arena: np.ndarray, level: int) -> float:
    """Interpolation to a level and the Galerkin operator of the next; returns the latter's smallest diagonal entry."""
    if any(plan.layouts[level].folds):
        return _coarsen_and_fold(plan, arena, level)
    workspace = arena.size - workspace_size(plan)
    for arguments in setup_tables(plan, level).interpolation:
        interpolate(arena, workspace, *arguments)
        fill_weight_ghosts(plan, arena, level)
    return galerkin_operator(plan, arena, level)


def _coarsen_and_fold(plan: Plan, arena: np.ndarray, level: int) -> float:
    """The same at a seam: first with its two even points apart, then with them as one."""
    fine = plan.layouts[level]
    apart = make_plan(fine.shape, fine.periodic, fine.links, (COLOURS,), "V", 1, 1, False)
    passing = np.zeros(apart.coefficient_size + workspace_size(apart))
    size = fine.split_size * (1 + len(fine.links))
    passing[:size] = _field(arena, plan.places[level]["diagonal"], size)
    smallest = coarsen(apart, passing, 0)
    for u in plan.weights:
        _weights(plan, arena, level, u)[_even_points(plan, level)] = _weights(apart, passing, 0, u)[
            _even_points(apart, 0)
        ]
    # On other periodic axes the weights beyond the last point are in the ghost; at a seam it has its own already.
    for axis, around in enumerate(fine.periodic):
        if around and not fine.folds[axis]:
            for u in plan.weights:
                turned = np.moveaxis(_weights(plan, arena, level, u), axis, 0)
                first = BELOW if axis < fine.dimensions - 1 else 1
                turned[first + plan.layouts[level + 1].shape[axis]] = turned[first]
    coefficients = {offset: operator_field(apart, passing, 1, offset) for offset in apart.stencil(1)}
    for axis, fold in enumerate(fine.folds):
        if fold:
            coefficients = _fold(coefficients, axis)
    zero = (0,) * fine.dimensions
    fill_operator(plan, arena, level + 1, coefficients[zero], coefficients)
    return smallest


def _fold(coefficients: dict[Offset, np.ndarray], axis: int) -> dict[Offset, np.ndarray]:
    """Make one point of the first and the last around a periodic axis: add their rows, and their columns."""

    def at(index: int) -> tuple[slice | int, ...]:
        return (slice(None),) * axis + (index,)

    def turned(offset: Offset, step: int) -> Offset:
        return (*offset[:axis], step, *offset[axis + 1 :])

    folded = {}
    for offset, field in coefficients.items():
        new = np.delete(field, -1, axis=axis)
        if offset[axis] == -1:
            new[at(0)] = field[at(-1)]
        elif offset[axis] == 0:
            inward = coefficients[turned(offset, -1)][at(0)] + coefficients[turned(offset, 1)][at(-1)]
            new[at(0)] += field[at(-1)] + inward
        folded[offset] = new
    return folded


def galerkin_operator(plan: Plan, arena: np.ndarray, level: int) -> float:
    """The operator of level + 1 from that of `level` and its weights; returns its smallest diagonal entry."""
    smallest = galerkin(arena, arena.size - workspace_size(plan), *setup_tables(plan, level).galerkin)
    fill_operator_ghosts(plan, arena, level + 1)
    return float(smallest)


def factor(plan: Plan, arena: np.ndarray, level: int) -> None:
    """Factors of the lines that the smoother of a level solves."""
    layout, places = plan.layouts[level], plan.places[level]
    for axis in plan.line_axes(level):
        step = tuple(int(other == axis) for other in range(layout.dimensions))
        link = places["links"] + layout.links.index(step) * layout.split_size
        position = np.empty(layout.shape, dtype=np.int64)
        position[...] = layout.join(np.arange(layout.split_size))
        lines = np.moveaxis(position, axis, 0).reshape(layout.shape[axis], -1)
        steps = lines[:, 0] - lines[0, 0]
        pivots, closure = places[f"pivots {axis}"], places.get(f"closure {axis}", 0)
        factor_lines(arena, lines[0].copy(), steps.copy(), places["diagonal"], link, pivots, closure)


def fill_interpolation(plan: Plan, arena: np.ndarray, level: int, matrix: Any) -> None:
    """Take the weights between level + 1 and `level` from a sparse matrix.

    Raises
    ------
    ValueError
        If it is no interpolation between these grids, as `Multigrid.from_levels` describes it.
    """
    fine, coarse = plan.layouts[level], plan.layouts[level + 1]
    if np.shape(matrix) != (fine.points, coarse.points):
        raise ValueError(
            f"interpolations: between level {level + 1} and {level} expected shape {(fine.points, coarse.points)}, "
            f"got {np.shape(matrix)}"
        )
    entries = sp.coo_array(matrix)
    entries.sum_duplicates()
    place = np.stack(np.unravel_index(entries.col, coarse.shape)).astype(np.int64)
    u = np.stack(np.unravel_index(entries.row, fine.shape)) - 2 * place
    for axis, around in enumerate(fine.periodic):
        if around:
            # Far from the first coarse point, near to its ghost beyond the last.
            beyond = u[axis] > 1
            place[axis] += np.where(beyond, coarse.shape[axis], 0)
            u[axis] -= np.where(beyond, 2 * coarse.shape[axis], 0)
    outside = np.abs(u).max(axis=0) > 1
    own = ~u.any(axis=0)
    even = int(np.prod([(size + 1) // 2 for size in fine.shape]))
    if (outside & (entries.data != 0)).any() or own.sum() != even or not np.all(entries.data[own] == 1):
        raise ValueError(
            f"interpolations: from level {level + 1} to {level}, each coarse point must keep its value (a weight of "
            "1 at the fine point of twice its index) and other points take theirs from coarse points next to them"
        )
    starts = np.array([BELOW] * (fine.dimensions - 1) + [1])[:, None]
    for offset in plan.weights:
        here = (u == np.array(offset)[:, None]).all(axis=0) & ~outside
        field = _weights(plan, arena, level, offset)
        field[...] = 0
        field[tuple(place[:, here] + starts)] = entries.data[here]
        for axis, around in enumerate(fine.periodic):
            if around and not fine.folds[axis] and offset[axis] == -1:
                turned = np.moveaxis(field, axis, 0)
                first = BELOW if axis < fine.dimensions - 1 else 1
                turned[first] = turned[first + coarse.shape[axis]]


def fill_weight_ghosts(plan: Plan, arena: np.ndarray, level: int) -> None:
    """Weights around periodic axes.

    The last fine point of an even axis lies between the last coarse point and the first: its weight for the latter
    was left in the ghost. On an odd axis the first and the last fine points are both coarse, and neighbours; seen from
    either, the other lies where a fine point between two coarse ones would, and takes its correction unchanged.
    """
    fine, coarse = plan.layouts[level], plan.layouts[level + 1]
    around = [axis for axis, wraps in enumerate(fine.periodic) if wraps]
    if not around:
        return
    start, size = plan.places[level]["weights"], coarse.natural_size
    fields = coarse.natural_array(_field(arena, start, size * len(plan.weights)).reshape(-1, size))
    weights = {u: fields[index] for index, u in enumerate(plan.weights)}

    def at(axis: int, index: int) -> tuple[slice | int, ...]:
        """Coarse points with one index along an axis; -1 and the size are ghosts."""
        return (slice(None),) * axis + (index + (BELOW if axis < fine.dimensions - 1 else 1),)

    for axis in around:
        for u, weight in weights.items():
            if u[axis] == -1 and fine.shape[axis] % 2 == 0:
                weight[at(axis, 0)] = weight[at(axis, coarse.shape[axis])]
    for axis in around:
        size = coarse.shape[axis]
        seam = fine.shape[axis] % 2 == 1
        for u, weight in weights.items():
            weight[at(axis, -1)] = weight[at(axis, size - 1)]
            weight[at(axis, size)] = weight[at(axis, 0)]
            if seam and u[axis] != 0:
                own = tuple(0 if other == axis else step for other, step in enumerate(u))
                ghost, neighbour = (-1, size - 1) if u[axis] == 1 else (size, 0)
                weight[at(axis, ghost)] = weights[own][at(axis, neighbour)] if any(own) else 1.0


def coarsest_inverse(plan: Plan, arena: np.ndarray) -> tuple[np.ndarray, float, float]:
    """(Pseudo-)inverse of the coarsest operator, how definite that is, and how firmly its points are held.

    The second number is positive if it is positive definite, zero if it is singular, negative if indefinite. The third
    is the smallest share of a diagonal entry that is left where all other points follow, ``1 / (a_ii (A^-1)_ii)``, a
    Schur complement: about one for points that are held by the sides around them, next to nothing for an island, which
    is held by weak links only. 0 if the operator is not positive definite.
    """
    entries, positions = plan.coarsest_entries
    points = plan.layouts[-1].points
    matrix = np.bincount(entries, weights=arena[positions], minlength=points * points).reshape(points, points)
    inverse = np.empty_like(matrix)
    singular = _SINGULAR[arena.dtype.char]
    smallest, held = invert(matrix, inverse, singular)
    if smallest > 0:
        return inverse, smallest, held
    values, vectors = np.linalg.eigh(matrix)
    largest = float(np.max(np.abs(values)))
    floating = np.abs(values) <= singular * largest
    reciprocal = np.where(floating, 0.0, 1.0 / np.where(floating, 1.0, values))
    smallest = 0.0 if floating.any() and values[0] > -singular * largest else float(values[0]) / largest
    return (vectors * reciprocal) @ vectors.T, smallest, 0.0
