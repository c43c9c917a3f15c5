r"""Set-up: interpolation that follows the operator, and Galerkin coarse operators, in any number of dimensions.

A fine point lies between coarse points along the axes where its index is odd. Along the other axes its stencil is
summed up (lumped); what remains is an equation in those odd directions alone,

.. math:: \tilde a_0 e_i = -\sum_{q \ne 0} \tilde a_q e_{i+q}, \qquad
          \tilde a_q = \sum_{o:\ o_a = q_a \text{ on the odd axes}} a_o ,

whose neighbours lie on fewer odd axes and have their weights already (J. E. Dendy, Black box multigrid, J. Comput.
Phys. 48 (1982) 366, equations 2.5 to 2.9 for two dimensions; P. M. de Zeeuw, J. Comput. Appl. Math. 33 (1990) 1). The
fluxes across jumps of the coefficient are thus interpolated, not the values.

Lumping takes :math:`e` to be constant across the other axes. That is right where A annihilates constants, but not
next to a Dirichlet boundary, where :math:`e` falls to zero: there the far neighbours count :math:`1 + s / |t|` times,
s the row sum and t the sum of the links to the far side of that axis, so that what is summed up is zero again (the
linear function for Poisson). Without this the interpolation along a boundary is wrong from the first coarse level on,
and the V(2,2)-cycle for Poisson contracts by 0.12 instead of 0.08. In corners and along edges, where links are missing
on several sides, which row sum belongs to which side cannot be told, and nothing is done.

The coarse operator is :math:`P^T A P` (A. Brandt, Math. Comp. 31 (1977); R. E. Alcouffe, A. Brandt, J. E. Dendy,
J. W. Painter, SIAM J. Sci. Stat. Comput. 2 (1981) 430), computed row by row from a table of all products of three
coefficients that make up an entry.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
from numba import njit

from solvers.precondition.multigrid import cycle as c
from solvers.precondition.multigrid.layout import Offset, forward, neighbours
from solvers.precondition.multigrid.schedule import Plan
from solvers.rows import LANES, add_products

# Row sums below this many eps, relative to the diagonal, are rounding of a sum that is zero: 1e-13 in double precision.
_NO_ROW_SUM = 450.0
# Pivots below this, relative to the diagonal, mean a line that is singular: rounding leaves 1e-15 or so.
_NO_PIVOT = 1e-10

_compiled = njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
# Called for single points: a call would count references to all of its arrays, which takes longer than its work.
_inner = njit(nogil=True, fastmath={"contract"}, error_model="numpy", inline="always")
_U = np.uint64

# Rows of the workspace: ones, a sum, what to divide by, then lumped coefficients or partial products.
_ONES, _TOTAL, _DIVISOR, _PARTS = range(4)


@lru_cache(maxsize=64)
def workspace_size(plan: Plan) -> int:
    """Numbers that the set-up needs at the end of the arena: three rows, and one for each neighbour."""
    return (_PARTS + 3 ** len(plan.shape)) * _row_length(plan, 0)


def _row_length(plan: Plan, number: int) -> int:
    """Of a row of the workspace while level `number` is coarsened."""
    return ((plan.layouts[number].shape[-1] + 1) // 2 // LANES + 1) * LANES


@_inner
def _lump_near_boundary(arena, at, row_sum, lumps, sides, side_terms, parts, length):  # type: ignore[no-untyped-def]
    """Mend the lumped coefficients of a point that has a row sum, if it lacks the links of just one lumped side.

    ``at``: position of the point's row plus its place in it; ``parts``: position of its first lumped coefficient, the
    next ones `length` further each. ``sides``: per axis and side where among the terms the links to that side begin
    that belong to each lump, where they end, and whether the axis is an odd one.
    """
    far, missing = -1, 0
    for s in range(sides.shape[0]):
        total = 0.0
        for t in range(sides[s, 0], sides[s, lumps]):
            total += abs(arena[at + side_terms[t]])  # links of both signs may cancel, and are there all the same
        if total == 0:
            missing += 1
            far = -1 if sides[s, lumps + 1] else s ^ 1
    if missing != 1 or far < 0:
        return
    total = 0.0
    for t in range(sides[far, 0], sides[far, lumps]):
        total += arena[at + side_terms[t]]
    if not total < 0:
        return
    surplus = -row_sum / total
    for q in range(lumps - 1, -1, -1):
        lump = 0.0
        for t in range(sides[far, q], sides[far, q + 1]):
            lump += arena[at + side_terms[t]]
        lump = arena[parts + q * length] + surplus * lump
        if q > 0 or lump > 0:
            arena[parts + q * length] = lump


@_compiled
def interpolate(  # type: ignore[no-untyped-def]
    arena,
    workspace,
    length,
    parents,
    cells,
    odd_exists,
    odds,
    evens,
    classes,
    lumps,
    sums,
    corners,
    corner_terms,
    sides,
    side_terms,
):
    """Weights of all fine points of one level, class by class (which axes are odd), few odd axes first.

    ``workspace``: position in the arena of rows of `length` numbers.
    """
    total, divisor, parts = workspace + length, workspace + 2 * length, workspace + 3 * length
    rounding = _NO_ROW_SUM * np.finfo(arena.dtype).eps
    for k in range(length):
        arena[workspace + k] = 1
    for kind in range(classes.shape[0]):
        parity = classes[kind, 0]
        count = odds if classes[kind, 1] else evens
        first_lump, last_lump = classes[kind, 2], classes[kind, 3]
        own_lumps = lumps[first_lump:last_lump]
        own_sides = sides[classes[kind, 6] : classes[kind, 7]]
        # The first lump is the diagonal with what lies across, and the first term of that the diagonal.
        diagonal = sums[own_lumps[0, 0], 0]
        for r in range(cells.size):
            if odd_exists[r] & parity != parity or count == 0:
                continue
            base, cell = parents[r], cells[r]
            for q in range(own_lumps.shape[0]):
                first, last = own_lumps[q, 0], own_lumps[q, 1]
                add_products(arena, arena, arena, count, parts + q * length, -1, -1, sums, first, last, base, workspace)
            some = False
            t, s, a = _U(total), _U(divisor), _U(base + diagonal)
            for k in range(_U(count)):
                arena[t + k] = 0
            for q in range(own_lumps.shape[0]):
                p = _U(parts + q * length)
                for k in range(_U(count)):
                    arena[t + k] += arena[p + k]
            for k in range(_U(count)):
                some |= abs(arena[t + k]) > rounding * arena[a + k]
            if some:
                for k in range(count):
                    row_sum = arena[total + k]
                    if abs(row_sum) > rounding * arena[base + diagonal + k]:
                        count_of = own_lumps.shape[0]
                        _lump_near_boundary(
                            arena, base + k, row_sum, count_of, own_sides, side_terms, parts + k, length
                        )
            # Positive links can cancel the sum; the diagonal alone is then the safe scale. Where there is none, at
            # points that do not exist, weights are zero.
            p = _U(parts)
            for k in range(_U(count)):
                safe = arena[p + k] if arena[p + k] > rounding * arena[a + k] else arena[a + k]
                arena[s + k] = -safe if safe != 0 else np.inf
            for w in range(classes[kind, 4], classes[kind, 5]):
                straight = parts + corners[w, 3] * length if corners[w, 3] >= 0 else -1
                first, last = corners[w, 1], corners[w, 2]
                out = cell + corners[w, 0]
                add_products(arena, arena, arena, count, out, straight, divisor, corner_terms, first, last, cell, parts)


@_inner
def _take_apart(arena, field, out, half, start, width, scale):  # type: ignore[no-untyped-def]
    """A row times `scale`, even points first, odd ones `half` further on."""
    even, odd, origin, odds = _U(out), _U(out + half), _U(start), _U(width // 2)
    for k in range(odds):
        arena[even + k] = scale * field[origin + k + k]
        arena[odd + k] = scale * field[origin + k + k + _U(1)]
    if width % 2:
        arena[even + odds] = scale * field[origin + odds + odds]


@_compiled
def galerkin(arena, workspace, length, parents, cells, rows, count, half, entries, groups, products, last_products):  # type: ignore[no-untyped-def]
    """The coarse operator P'AP of one level; returns its smallest diagonal entry.

    Coarse points that serve no fine one have empty rows, which are not counted.
    """
    smallest = np.inf
    total, parts = workspace + length, workspace + 3 * length
    for r in range(cells.size):
        base, cell = parents[r], cells[r]
        for e in range(entries.shape[0]):
            for g in range(entries[e, 1], entries[e, 2]):
                part, first, last = parts + (g - entries[e, 1]) * length, groups[g, 1], groups[g, 2]
                own = base + groups[g, 0] if groups[g, 0] >= 0 else -1
                add_products(arena, arena, arena, count, part, own, -1, products, first, last, base, cell)
            # The first group is that of the coarse point itself, whose weight is one.
            first, last = entries[e, 3], entries[e, 4]
            add_products(arena, arena, arena, count, total, parts, -1, last_products, first, last, cell, parts)
            out = entries[e, 0] + rows[r]
            _take_apart(arena, arena, out, half, total, count, 1)
            if e == 0:
                for k in range(count):
                    if arena[total + k] != 0:
                        smallest = min(smallest, arena[total + k])
    return smallest


@_compiled
def factor_lines(arena, starts, steps, diagonal, link, pivots, closure):  # type: ignore[no-untyped-def]
    """Inverse pivots of the tridiagonal systems along one axis: 1 / (d_i - c_{i-1}^2 pivot_{i-1}).

    ``starts``: first points of the lines; ``steps``: from there to each point of a line. A line around a periodic axis
    (``closure`` not 0) is T + u v' with u = (-d_0, 0, ..., 0, c), v = (1, 0, ..., 0, -c / d_0), c the link of its last
    point to the first, and T the tridiagonal matrix that gets pivots. Its solution is y - v'y z, y that of T, by the
    formula of Sherman and Morrison with z = T^-1 u / (1 + v' T^-1 u), the closure.
    """
    length = steps.size
    y = np.empty(length)
    for n in range(starts.size):
        first, last = starts[n], starts[n] + steps[length - 1]
        corner, d0 = arena[link + last], arena[diagonal + first]
        g = 0.0
        for i in range(length):
            at = first + steps[i]
            d = arena[diagonal + at]
            if closure:
                if i == 0:
                    d += d0
                if i == length - 1:
                    d += corner * corner / d0
            coupling = arena[link + first + steps[i - 1]] if i > 0 else 0.0
            u = 0.0
            if i == 0:
                u -= d0
            if i == length - 1:
                u += corner
            y[i] = u - (coupling * g * y[i - 1] if i > 0 else 0.0)
            pivot = d - coupling * coupling * g
            # A line that nothing holds is singular, which shows in its last pivot: its last point then stays at zero.
            # Points that do not exist have no diagonal, and stay at zero too.
            g = 1.0 / pivot if pivot > _NO_PIVOT * d else 0.0
            arena[pivots + at] = g
        if closure:
            for i in range(length - 1, -1, -1):
                at = first + steps[i]
                ahead = arena[link + at] * y[i + 1] if i < length - 1 else 0.0
                y[i] = arena[pivots + at] * (y[i] - ahead)
            rest = 1 + y[0] - corner / d0 * y[length - 1]
            # Such a line around a periodic axis stays cut open.
            scale = 1 / rest if abs(rest) > _NO_PIVOT else 0.0
            for i in range(length):
                arena[closure + first + steps[i]] = scale * y[i]


@_compiled
def split(arena, start, rows, half, width, field, scale):  # type: ignore[no-untyped-def]
    """Write a plain field times `scale` as the split field that begins at `start`."""
    for r in range(rows.size):
        _take_apart(arena, field, start + rows[r], half, r * width, width, scale)


@_compiled
def clear(arena, fields):  # type: ignore[no-untyped-def]
    """Zeros in fields, given by their starts and sizes."""
    for row in range(fields.shape[0]):
        start = _U(fields[row, 0])
        for k in range(_U(fields[row, 1])):
            arena[start + k] = 0


@_compiled
def fill_zeros(arena, fields):  # type: ignore[no-untyped-def]
    """Ones for the zeros of the same."""
    one = arena.dtype.type(1)
    for row in range(fields.shape[0]):
        start = _U(fields[row, 0])
        for k in range(_U(fields[row, 1])):
            arena[start + k] = one if arena[start + k] == 0 else arena[start + k]


@_compiled
def invert(matrix, inverse, smallest):  # type: ignore[no-untyped-def]
    """Inverse of a small symmetric positive definite matrix by its Cholesky factor L.

    Returns its least pivot, relatively, and the least ``1 / (a_ii (A^-1)_ii)``. Zeros if a pivot is not above
    `smallest` times the largest diagonal entry: the inverse is not there then.
    """
    n = matrix.shape[0]
    factor = np.zeros((n, n))
    largest = 0.0
    for i in range(n):
        largest = max(largest, matrix[i, i])
    least = largest
    for i in range(n):
        for j in range(i + 1):
            total = matrix[i, j]
            for k in range(j):
                total -= factor[i, k] * factor[j, k]
            if i > j:
                factor[i, j] = total / factor[j, j]
            elif total > smallest * largest:
                factor[i, i] = np.sqrt(total)
                least = min(least, total)
            else:
                return 0.0, 0.0
    # Rows of L^-1 in place of those of L, then L^-T L^-1.
    for j in range(n):
        factor[j, j] = 1 / factor[j, j]
        for i in range(j + 1, n):
            total = 0.0
            for k in range(j, i):
                total -= factor[i, k] * factor[k, j]
            factor[i, j] = total / factor[i, i]
    for i in range(n):
        for j in range(i + 1):
            total = 0.0
            for k in range(i, n):
                total += factor[k, i] * factor[k, j]
            inverse[i, j] = inverse[j, i] = total
    held = 1.0
    for i in range(n):
        held = min(held, 1 / (matrix[i, i] * inverse[i, i]))
    return least / largest, held


# -- Tables of the kernels ------------------------------------------------------------------------------------------


@lru_cache(maxsize=16)
def _galerkin_terms(
    offsets: tuple[Offset, ...],
) -> list[tuple[Offset, list[tuple[Offset, list[tuple[Offset, Offset]]]]]]:
    """For each coarse offset O: for each fine point u around I: the pairs (o, v) of A's offset and P's place.

    The entry is ``sum_u P[2I+u, I] sum_o A[2I+u, 2I+u+o] P[2I+u+o, I+O]``, and 2I+u+o lies at v = u + o - 2 O from
    the coarse point I+O.
    """
    around = neighbours(len(offsets[0]))
    zero = (0,) * len(offsets[0])
    found = []
    for coarse in (zero, *forward(around)):
        groups = []
        for u in around:
            pairs = []
            for o in offsets:
                v = tuple(i + step - 2 * big for i, step, big in zip(u, o, coarse, strict=True))
                if max(map(abs, v)) <= 1:
                    pairs.append((o, v))
            if pairs or u == zero:
                groups.append((u, pairs))
        found.append((coarse, groups))
    return found


@dataclass(frozen=True)
class SetupTables:
    """What the kernels above need for one level.

    Attributes
    ----------
    interpolation : list of tuples
        Arguments of `interpolate` after the first two, a tuple for each time it is to be called.
    galerkin : tuple
        The same for `galerkin`.
    """

    interpolation: list[tuple[Any, ...]]
    galerkin: tuple[Any, ...]


@lru_cache(maxsize=64)
def setup_tables(plan: Plan, number: int) -> SetupTables:
    """Tables for interpolation from level `number` + 1 and the Galerkin operator there."""
    level, table = plan.tables["levels"][number], plan.tables["rows"]
    targets = table[level[c.FIRST_TARGET] :][: level[c.TARGET_COUNT]]
    fine, coarse = plan.layouts[number], plan.layouts[number + 1]
    # Columns by value, not by name inside the kernels: numba does not see when a name of another file changes.
    # Of the coarse rows: positions of the points 2 I in fine split fields, and of the points I in coarse natural ones;
    # bits for the outer axes along which there is a point 2 I + 1.
    parents, cells, odd_exists = (targets[:, k].copy() for k in (c.ROW_PARENT, c.ROW_NATURAL, c.ROW_ODD_EXISTS))
    rows = coarse.split_rows
    length = _row_length(plan, number)
    classes, *others = _interpolation_tables(plan, number, length)
    odds, evens = fine.shape[-1] // 2, (fine.shape[-1] + 1) // 2
    batches = [classes]
    if any(fine.periodic):
        # Points between many coarse ones need the weights of those between fewer, across the seam too.
        between = np.array([int(parity).bit_count() + int(odd) for parity, odd in classes[:, :2]])
        batches = [classes[between == count] for count in range(1, fine.dimensions + 1)]
    return SetupTables(
        [(length, parents, cells, odd_exists, odds, evens, batch, *others) for batch in batches],
        (length, parents, cells, rows, coarse.shape[-1], coarse.half_width, *_galerkin_tables(plan, number, length)),
    )


def _table(rows: Sequence[tuple[int, ...]], columns: int) -> np.ndarray:
    return np.array(rows, dtype=np.int64).reshape(-1, columns)


def _interpolation_tables(plan: Plan, number: int, length: int) -> tuple[np.ndarray, ...]:
    coarser, stencil, dimensions = plan.layouts[number + 1], plan.stencil(number), len(plan.shape)
    classes: list[tuple[int, ...]] = []
    lumps: list[tuple[int, ...]] = []
    sums: list[tuple[int, int]] = []
    corners: list[tuple[int, ...]] = []
    corner_terms: list[tuple[int, ...]] = []
    sides: list[tuple[int, ...]] = []
    side_terms: list[int] = []
    zero = (0,) * dimensions
    for point in sorted(product((0, 1), repeat=dimensions), key=sum)[1:]:
        odd = [axis for axis in range(dimensions) if point[axis]]
        directions = [
            q
            for q in product(*[(-1, 0, 1) if i else (0,) for i in point])
            if any(all(o[axis] == q[axis] for axis in odd) for o in stencil)
        ]
        directions.sort(key=lambda q: any(q))  # the centre first
        first_lump, first_corner, first_side = len(lumps), len(corners), len(sides)
        for q in directions:
            first = len(sums)
            members = [o for o in stencil if all(o[axis] == q[axis] for axis in odd)]
            members.sort(key=lambda o: any(o))  # the diagonal first
            for o in members:
                sums.append((plan.coefficient_place(number, point, o), 0))
            lumps.append((first, len(sums)))
        for corner in product(*[(-1, 1) if i else (0,) for i in point]):
            coarse = tuple((step + 1) // 2 if i else 0 for step, i in zip(corner, point, strict=True))
            position = coarser.natural_position(coarse)
            first, straight = len(corner_terms), -1
            for index, q in enumerate(directions):
                if any(q) and all(step in (0, end) for step, end in zip(q, corner, strict=True)):
                    rest = tuple(step - end for step, end in zip(q, corner, strict=True))
                    if rest == zero:
                        straight = index
                    else:
                        corner_terms.append((plan.weight_place(number, rest) + position, index * length))
            opposite = tuple(-step for step in corner)
            corners.append((plan.weight_place(number, opposite) + position, first, len(corner_terms), straight))
        for axis in range(dimensions):
            for side in (-1, 1):
                spans_of_lumps = [len(side_terms)]
                for q in directions:
                    members = [o for o in stencil if all(o[a] == q[a] for a in odd) and o[axis] == side]
                    side_terms += [plan.coefficient_place(number, point, o) for o in members]
                    spans_of_lumps.append(len(side_terms))
                unused = [0] * (3**dimensions - len(directions))
                sides.append((*spans_of_lumps, point[axis], *unused))
        parity = sum(i << axis for axis, i in enumerate(point[:-1]))
        spans = (first_lump, len(lumps), first_corner, len(corners), first_side, len(sides))
        classes.append((parity, point[-1], *spans))
    return (
        _table(classes, 8),
        _table(lumps, 2),
        _table(sums, 2),
        _table(corners, 4),
        _table(corner_terms, 2),
        _table(sides, 3**dimensions + 2),
        np.array(side_terms, dtype=np.int64),
    )


def _galerkin_tables(plan: Plan, number: int, length: int) -> tuple[np.ndarray, ...]:
    coarser = plan.layouts[number + 1]
    places = plan.places[number + 1]
    zero = (0,) * len(plan.shape)
    coefficient = {
        (u, o): plan.coefficient_place(number, u, o) for u in neighbours(len(zero)) for o in plan.stencil(number)
    }
    weight = {v: plan.weight_place(number, v) for v in plan.weights}
    entries: list[tuple[int, ...]] = []
    groups: list[tuple[int, ...]] = []
    products: list[tuple[int, ...]] = []
    last_products: list[tuple[int, ...]] = []
    for index, (coarse, terms) in enumerate(_galerkin_terms(tuple(plan.stencil(number)))):
        position = coarser.natural_position(coarse)
        first_group, first_last = len(groups), len(last_products)
        # The coarse point itself first; its group is there for every entry, if need be without a product.
        for number_of, (u, pairs) in enumerate(sorted(terms, key=lambda group: any(group[0]))):
            first, own = len(products), -1
            for o, v in pairs:
                if v == zero:
                    own = coefficient[u, o]  # at most one product has P = 1 for a factor
                else:
                    products.append((coefficient[u, o], weight[v] + position))
            groups.append((own, first, len(products)))
            if number_of:
                last_products.append((weight[u], number_of * length))
        start = places["diagonal"] if index == 0 else places["links"] + (index - 1) * coarser.split_size
        entries.append((start, first_group, len(groups), first_last, len(last_products)))
    return _table(entries, 5), _table(groups, 3), _table(products, 2), _table(last_products, 2)
