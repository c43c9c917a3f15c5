"""The networks of `interpolation_network` for the suite's compiled multigrid: the same formulas, row by row.

Everything is done for rows of points at a time, in buffers that stay in the first-level cache: features, then one
hidden unit after the other for all points of the row, which compiles to vector instructions.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit

from solvers.precondition.multigrid.galerkin import setup_tables
from solvers.precondition.multigrid.layout import neighbours
from solvers.precondition.multigrid.schedule import Plan

FEATURES = 6
SHARE = (-0.5, 1.25)  # of the average in the weights
TWIST = 0.5  # of the couplings along diagonals
DIAGONAL = (-0.5, 0.9)  # of a negative coupling along a diagonal
TINY = 1e-30
SLOPE = 0.1  # of the activation below zero

_compiled = njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
_inner = njit(nogil=True, fastmath={"contract"}, error_model="numpy", inline="always")
_U = np.uint64  # signed positions could be negative, which would be checked, and not in vector instructions
_LEAST, _MOST = SHARE
_FLATTEST, _STEEPEST = DIAGONAL


@_inner
def _perceptron(features, n, hidden, out, unit, result):  # type: ignore[no-untyped-def]
    """``result[j] = out[-1, j] + sum_h out[h, j] leaky(hidden[-1, h] + sum_i hidden[i, h] features[i])``."""
    units = hidden.shape[1]
    slope = hidden.dtype.type(SLOPE)
    for j in range(out.shape[1]):
        for k in range(n):
            result[j, k] = out[units, j]
    for h in range(units):
        w0, w1, w2, w3, w4, w5 = hidden[0, h], hidden[1, h], hidden[2, h], hidden[3, h], hidden[4, h], hidden[5, h]
        bias = hidden[6, h]
        for k in range(n):
            s = bias + w0 * features[0, k] + w1 * features[1, k] + w2 * features[2, k]
            s += w3 * features[3, k] + w4 * features[4, k] + w5 * features[5, k]
            unit[k] = max(s, slope * s)
        for j in range(out.shape[1]):
            w = out[h, j]
            for k in range(n):
                result[j, k] += w * unit[k]


@_compiled
def correct_weights(arena, parents, cells, odd_exists, parity, count, places, above, outs, axis, hidden, out):  # type: ignore[no-untyped-def]
    """Change the black-box weights of the fine points of one class.

    ``places``: of the nine coefficients of the stencil relative to the row of ``2 I``, -1 where there is none;
    ``above``: of the diagonals of the coarse points around; ``outs``: of the weights for these, relative to the row of
    I; both by rising offset of the coarse point. ``axis``: the one on which points lie between two coarse ones, or -1.
    """
    one, zero, tiny = arena.dtype.type(1), arena.dtype.type(0), arena.dtype.type(TINY)
    least, most, bound = arena.dtype.type(_LEAST), arena.dtype.type(_MOST), arena.dtype.type(TWIST)
    a = np.empty((9, count), dtype=arena.dtype)
    features = np.empty((FEATURES, count), dtype=arena.dtype)
    twist, mean, unit = np.empty_like(a[0]), np.empty_like(a[0]), np.empty_like(a[0])
    total, kept, inverse = np.empty_like(a[0]), np.empty_like(a[0]), np.empty_like(a[0])
    result = np.zeros((2, count), dtype=arena.dtype)
    number = outs.size
    points = _U(count)
    share = one / arena.dtype.type(number)
    for r in range(cells.size):
        if odd_exists[r] & parity != parity:
            continue
        base, cell = parents[r], cells[r]
        d = _U(base + places[4])
        for k in range(points):
            diagonal = arena[d + k]
            inverse[k] = -one / (diagonal if diagonal != zero else one)
        for o in range(9):
            if places[o] < 0:
                a[o, :] = zero
            elif o != 4:
                at = _U(base + places[o])
                for k in range(points):
                    a[o, k] = arena[at + k] * inverse[k]
        mean[:] = zero
        for c in range(number):
            at = _U(base + above[c])
            for k in range(points):
                mean[k] += share * arena[at + k]
        for k in range(points):
            diagonal = arena[d + k] if arena[d + k] != zero else one
            twist[k] = a[8, k] + a[0, k] - a[6, k] - a[2, k]
            features[2, k] = abs(a[0, k]) + abs(a[2, k]) + abs(a[6, k]) + abs(a[8, k])
            features[3, k] = abs(twist[k])
            features[5, k] = mean[k] / (mean[k] + diagonal)
        if axis >= 0:
            for k in range(points):
                if axis == 0:
                    ahead, behind = a[6, k] + a[7, k] + a[8, k], a[0, k] + a[1, k] + a[2, k]
                    across = a[3, k] + a[5, k]
                else:
                    ahead, behind = a[2, k] + a[5, k] + a[8, k], a[0, k] + a[3, k] + a[6, k]
                    across = a[1, k] + a[7, k]
                features[0, k] = ahead + behind
                features[1, k] = across
                features[4, k] = abs(ahead - behind) / (abs(ahead) + abs(behind) + tiny)
        else:
            for k in range(points):
                x, y = a[1, k] + a[7, k], a[3, k] + a[5, k]
                features[0, k] = x + y
                features[1, k] = abs(x - y)
                uneven = abs(a[8, k] - a[0, k]) + abs(a[6, k] - a[2, k])
                features[4, k] = uneven + abs(a[7, k] - a[1, k]) + abs(a[5, k] - a[3, k])
        _perceptron(features, points, hidden, out, unit, result)
        # Where a weight is zero, as beside a boundary, black-box interpolation is kept.
        total[:], kept[:] = zero, one
        for c in range(number):
            at = _U(cell + outs[c])
            for k in range(points):
                total[k] += arena[at + k]
                kept[k] = kept[k] if arena[at + k] != zero else zero
        for k in range(points):
            mean[k] = kept[k] * min(max(result[0, k], least), most)
            twist[k] *= kept[k] * min(max(result[1, k], -bound), bound) * total[k] if axis < 0 else zero
        for c in range(number):
            at = _U(cell + outs[c])
            sign = one if c == 0 or c == 3 else -one
            for k in range(points):
                w = arena[at + k]
                arena[at + k] = w + (mean[k] * (share * total[k] - w) + sign * twist[k])


@_compiled
def take_off_twist(arena, rows, half, width, diagonal, links, size, hidden, out):  # type: ignore[no-untyped-def]
    """Take a share of the twist off a coarse operator: all squares of four points.

    ``rows``: of the split field; its links are those of `forward`: (0, 1), (1, -1), (1, 0), (1, 1).
    """
    one, zero, tiny = arena.dtype.type(1), arena.dtype.type(0), arena.dtype.type(TINY)
    flattest, steepest = arena.dtype.type(_FLATTEST), arena.dtype.type(_STEEPEST)
    n = width - 1
    # Links of a row of points in their order: along the row here and above, and ahead in three directions.
    field = np.zeros((5, width), dtype=arena.dtype)
    features = np.empty((FEATURES, n), dtype=arena.dtype)
    unit, result = np.empty(n, dtype=arena.dtype), np.zeros((1, n), dtype=arena.dtype)
    bound, before = np.empty(n, dtype=arena.dtype), np.zeros(n, dtype=arena.dtype)
    for i in range(rows.size):
        last = i + 1 == rows.size
        if not last:
            for f in range(5):
                start = links + (f if f < 4 else 0) * size + rows[i if f < 4 else i + 1]
                for k in range(width):
                    field[f, k] = -arena[start + (k % 2) * half + k // 2]
        some = False
        if not last:
            for k in range(n):
                up, down = field[3, k], field[1, k + 1]
                x0, x1, y0, y1 = field[2, k], field[2, k + 1], field[0, k], field[4, k]
                negative = max(zero, -min(up, down))
                room = max(zero, min(min(x0, x1), min(y0, y1))) / (one + one)
                total = abs(x0) + abs(x1) + abs(y0) + abs(y1) + abs(up) + abs(down) + tiny
                bound[k] = min(negative, room)
                some |= bound[k] > zero
                features[0, k] = (x0 + x1 + y0 + y1) / total
                features[1, k] = abs(x0 + x1 - y0 - y1) / total
                features[2, k] = max(up, down) / total
                features[3, k] = negative / total
                features[4, k] = (abs(x0 - x1) + abs(y0 - y1)) / total
                features[5, k] = room / total
        if some:
            _perceptron(features, _U(n), hidden, out, unit, result)
            for k in range(n):
                bound[k] *= min(max(result[0, k], flattest), steepest)
        else:
            bound[:] = zero
        for k in range(n):
            g, both = bound[k], bound[k] + before[k]
            if both == zero and g == zero:
                continue
            at, ahead = rows[i] + (k % 2) * half + k // 2, rows[i] + ((k + 1) % 2) * half + (k + 1) // 2
            arena[diagonal + at] -= both
            arena[diagonal + ahead] -= both
            arena[links + at] += both
            arena[links + size + ahead] -= g
            arena[links + 2 * size + at] += g
            arena[links + 2 * size + ahead] += g
            arena[links + 3 * size + at] -= g
        before[:] = bound


@lru_cache(maxsize=64)
def weight_tables(plan: Plan, level: int) -> list[tuple[Any, ...]]:
    """Arguments of `interpolate` and `correct_weights` for a level, for one class of fine points after the other.

    Those between two coarse points come first: points between four take part of theirs from them.
    """
    found: list[tuple[Any, ...]] = []
    offsets = neighbours(2)
    known = set(plan.stencil(level))
    coarser = plan.layouts[level + 1]
    for point in ((1, 0), (0, 1), (1, 1)):
        corners = [(i, j) for i in ((-1, 1) if point[0] else (0,)) for j in ((-1, 1) if point[1] else (0,))]
        places = [plan.coefficient_place(level, point, o) if o in known else -1 for o in offsets]
        above, outs = [], []
        for corner in corners:
            parent = (point[0] + corner[0], point[1] + corner[1])
            above.append(plan.coefficient_place(level, parent, (0, 0)))
            coarse = (parent[0] // 2, parent[1] // 2)
            outs.append(plan.weight_place(level, (-corner[0], -corner[1])) + coarser.natural_position(coarse))
        for arguments in setup_tables(plan, level).interpolation:
            classes = arguments[6]
            # A class: the parity of its rows, that of its points within them.
            own = classes[(classes[:, 0] == point[0]) & (classes[:, 1] == point[1])]
            if not len(own):
                continue
            parents, cells, odd_exists, odds, evens = arguments[1:6]
            axis = -1 if point == (1, 1) else point.index(1)
            ours = (
                parents,
                cells,
                odd_exists,
                point[0],
                odds if point[1] else evens,
                *(np.array(numbers, dtype=np.int64) for numbers in (places, above, outs)),
                axis,
            )
            found.append(((*arguments[:6], own, *arguments[7:]), ours))
    return found
