r"""The compiled cycle: one call for all levels, in any number of dimensions.

The unit of work is one row of the last axis, even or odd points, in one colour: a few contiguous segments that are
multiplied and added. What a cycle does is written in tables (see `schedule`): a list of *steps* (go down, solve the
coarsest system, go up), each a list of *phases* (relax a colour, form a residual, restrict, ...) that runs over the
*slabs* of the grid, some indices of its first axis each. A phase may follow its predecessor by a slab instead of
waiting for the whole grid; the arrays then pass through the cache once for all phases, which is what the time of the
finest level is made of.

Positions are turned into unsigned integers before the inner loops: signed ones could be negative, which numba would
check for every access, and the loops would not become vector instructions. No array is sliced there, for a similar
reason: slices are counted references. All compiled functions of the cycle are in this one file, because numba's cache
notices changes of a file only for the functions that are in it.
"""

import numpy as np
from numba import njit

# Columns of the level table: starts of fields in the arena, sizes, and starts of other tables.
(
    ITERATE,
    RIGHT_SIDE,
    RESIDUAL,
    DIAGONAL,
    LINKS,
    CORRECTION,
    SPLIT_SIZE,
    HALF_WIDTH,
    EVENS,
    ODDS,
    PLAIN_EVENS,
    SLABS,
    ROWS_PER_SLAB,
    FIRST_ROW,
    ROW_COUNT,
    FIRST_TARGET,
    TARGET_COUNT,
    TARGETS_PER_SLAB,
    FIRST_FOLD,
    FOLD_COUNT,
    FIRST_PAIR,
    PAIR_COUNT,
    FIRST_TRANSFER,
    FIRST_GHOST,
    GHOST_COUNT,
    FIRST_NATURAL_GHOST,
    NATURAL_GHOST_COUNT,
    COLUMNS,
) = range(28)

# Columns of the row table.
ROW_SPLIT, ROW_PARITY, ROW_CLASS, ROW_NATURAL, ROW_CELL, ROW_PARENT, ROW_ODD_EXISTS, ROW_COLUMNS = range(8)

# Phases. The argument of those over points is a row of the colour table: for each class of rows the sum of 1 for their
# even points, 2 for the odd ones, 4 for the last even one where that is at a seam.
(
    LOAD_INPUT,
    LOAD,
    CLEAR,
    DIVIDE,
    RELAX,
    SUBTRACT,
    RESTRICT,
    PROLONG,
    STORE,
    STORE_OUTPUT,
    LINES_WITHIN_ROWS,
    LINES_ACROSS_ROWS,
    FILL_ITERATE,
    FILL_RESIDUAL,
    FILL_CORRECTION,
    FOLD,
) = range(16)
_compiled = njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
_U = np.uint64


# -- Inner loops: `n` numbers from position `out` of the arena on, or in the buffer `acc` ---------------------------


@_compiled
def _begin(acc, n, arena, b, a, x, c, y):  # type: ignore[no-untyped-def]
    """acc = b - a x - c y"""
    b, a, x, c, y = _U(b), _U(a), _U(x), _U(c), _U(y)
    for k in range(_U(n)):
        acc[k] = arena[b + k] - arena[a + k] * arena[x + k] - arena[c + k] * arena[y + k]


@_compiled
def _go_on(acc, n, arena, a, x, c, y):  # type: ignore[no-untyped-def]
    """acc -= a x + c y"""
    a, x, c, y = _U(a), _U(x), _U(c), _U(y)
    for k in range(_U(n)):
        acc[k] -= arena[a + k] * arena[x + k] + arena[c + k] * arena[y + k]


@_compiled
def _go_on_twice(acc, n, arena, a, x, c, y, d, u, e, v):  # type: ignore[no-untyped-def]
    """acc -= a x + c y + d u + e v"""
    a, x, c, y, d, u, e, v = _U(a), _U(x), _U(c), _U(y), _U(d), _U(u), _U(e), _U(v)
    for k in range(_U(n)):
        acc[k] -= (
            arena[a + k] * arena[x + k]
            + arena[c + k] * arena[y + k]
            + arena[d + k] * arena[u + k]
            + arena[e + k] * arena[v + k]
        )


@_compiled
def _end(arena, out, acc, n, d, a, x, c, y):  # type: ignore[no-untyped-def]
    """out = (acc - a x - c y) / d"""
    out, d, a, x, c, y = _U(out), _U(d), _U(a), _U(x), _U(c), _U(y)
    for k in range(_U(n)):
        arena[out + k] = (acc[k] - arena[a + k] * arena[x + k] - arena[c + k] * arena[y + k]) / arena[d + k]


@_compiled
def _copy(acc, n, arena, b):  # type: ignore[no-untyped-def]
    b = _U(b)
    for k in range(_U(n)):
        acc[k] = arena[b + k]


@_compiled
def _put(arena, out, n, acc):  # type: ignore[no-untyped-def]
    out = _U(out)
    for k in range(_U(n)):
        arena[out + k] = acc[k]


@_compiled
def _divide(arena, out, n, a, d):  # type: ignore[no-untyped-def]
    out, a, d = _U(out), _U(a), _U(d)
    for k in range(_U(n)):
        arena[out + k] = arena[a + k] / arena[d + k]


@_compiled
def _add(arena, out, n, a):  # type: ignore[no-untyped-def]
    out, a = _U(out), _U(a)
    for k in range(_U(n)):
        arena[out + k] += arena[a + k]


@_compiled
def _accumulate(acc, n, arena, a, x):  # type: ignore[no-untyped-def]
    """acc += a x"""
    a, x = _U(a), _U(x)
    for k in range(_U(n)):
        acc[k] += arena[a + k] * arena[x + k]


@_compiled
def _read(arena, out, n, natural, start, scale):  # type: ignore[no-untyped-def]
    """Every other point of a natural row: out[k] = scale * natural[start + 2 k]."""
    out, start = _U(out), _U(start)
    for k in range(_U(n)):
        arena[out + k] = scale * natural[start + k + k]


@_compiled
def _write(natural, start, arena, a, n, scale):  # type: ignore[no-untyped-def]
    """natural[start + 2 k] = scale * a[k]"""
    a, start = _U(a), _U(start)
    for k in range(_U(n)):
        natural[start + k + k] = scale * arena[a + k]


@_compiled
def copy_ghosts(arena, start, copies):  # type: ignore[no-untyped-def]
    """Fill the ghosts of a field by a table of (to, from, count)."""
    for i in range(copies.shape[0]):
        to, origin = start + copies[i, 0], start + copies[i, 1]
        for k in range(copies[i, 2]):
            arena[to + k] = arena[origin + k]


@_compiled
def _part(level, part):  # type: ignore[no-untyped-def]
    """Where the even points (0), the odd ones (1) or the one at the seam (2) begin in a row; their number; if odd."""
    if part == 0:
        return 1, level[PLAIN_EVENS], 0
    if part == 1:
        return level[HALF_WIDTH] + 1, level[ODDS], 1
    return 1 + level[PLAIN_EVENS], level[EVENS] - level[PLAIN_EVENS], 0


# -- Phases over the rows [first, last) of a slab -------------------------------------------------------------------


@_compiled
def _couple(acc, n, arena, x, link, size, pairs, p0, first, last, odd, skip):  # type: ignore[no-untyped-def]
    """acc -= what the neighbours of the links [first, last) contribute, two links at a time; `skip` is left out."""
    j = first
    while j < last:
        if j == skip:
            j += 1
            continue
        a, ahead, behind = link + j * size, pairs[p0 + j, 2 * odd], pairs[p0 + j, 2 * odd + 1]
        if j + 1 < last and j + 1 != skip:
            c, before, after = a + size, pairs[p0 + j + 1, 2 * odd], pairs[p0 + j + 1, 2 * odd + 1]
            _go_on_twice(acc, n, arena, a, x + ahead, a + behind, x + behind, c, x + before, c + after, x + after)
            j += 2
        else:
            _go_on(acc, n, arena, a, x + ahead, a + behind, x + behind)
            j += 1


@_compiled
def _relax(arena, acc, level, pairs, rows, active, first, last):  # type: ignore[no-untyped-def]
    """Solve the equations of one colour for its own unknowns."""
    x0, b0, d0, l0 = level[ITERATE], level[RIGHT_SIDE], level[DIAGONAL], level[LINKS]
    size, p0, count = level[SPLIT_SIZE], level[FIRST_PAIR], level[PAIR_COUNT]
    for i in range(first, last):
        here = active[rows[i, ROW_CLASS]]
        for part in range(3):
            if not (here >> part) & 1:
                continue
            start, n, odd = _part(level, part)
            at = rows[i, ROW_SPLIT] + start
            if count == 1:
                _copy(acc, n, arena, b0 + at)
            link, x = l0 + at, x0 + at
            if count > 1:
                ahead, behind = pairs[p0, 2 * odd], pairs[p0, 2 * odd + 1]
                _begin(acc, n, arena, b0 + at, link, x + ahead, link + behind, x + behind)
            _couple(acc, n, arena, x, link, size, pairs, p0, 1, count - 1, odd, -1)
            link += (count - 1) * size
            ahead, behind = pairs[p0 + count - 1, 2 * odd], pairs[p0 + count - 1, 2 * odd + 1]
            _end(arena, x, acc, n, d0 + at, link, x + ahead, link + behind, x + behind)


@_compiled
def _subtract(arena, acc, level, pairs, rows, active, first, last):  # type: ignore[no-untyped-def]
    """Residuals."""
    x0, b0, d0, l0, r0 = level[ITERATE], level[RIGHT_SIDE], level[DIAGONAL], level[LINKS], level[RESIDUAL]
    size, half, p0, count = level[SPLIT_SIZE], level[HALF_WIDTH], level[FIRST_PAIR], level[PAIR_COUNT]
    for i in range(first, last):
        here = active[rows[i, ROW_CLASS]]
        for odd in range(2):
            if not (here >> odd) & 1:
                continue
            n = level[ODDS] if odd else level[EVENS]
            at = rows[i, ROW_SPLIT] + odd * half + 1
            x, r, d, b = _U(x0 + at), _U(r0 + at), _U(d0 + at), _U(b0 + at)
            for k in range(_U(n)):
                acc[k] = arena[b + k] - arena[d + k] * arena[x + k]
            _couple(acc, n, arena, x0 + at, l0 + at, size, pairs, p0, 0, count, odd, -1)
            _put(arena, r, n, acc)


@_compiled
def _restrict(arena, acc, level, coarse, rows, transfers, terms, first, last):  # type: ignore[no-untyped-def]
    """Rows of the coarse right-hand side: the transposed interpolation of the residual."""
    n, r0, e0, own = level[EVENS], level[RESIDUAL], coarse[CORRECTION], level[FIRST_TRANSFER]
    for i in range(first, last):
        natural, r = rows[i, ROW_NATURAL], r0 + rows[i, ROW_PARENT]
        if transfers[own, 2]:
            _copy(acc, n, arena, r + 1)
        else:
            acc[:n] = 0
        for t in range(transfers[own, 0], transfers[own, 1]):
            _accumulate(acc, n, arena, terms[t, 0] + natural, r + terms[t, 1])
        _put(arena, e0 + natural + 1, n, acc)


@_compiled
def _prolong(arena, acc, level, coarse, rows, transfers, terms, active, first, last):  # type: ignore[no-untyped-def]
    """Add the interpolated coarse correction."""
    x0, e0, half = level[ITERATE], coarse[CORRECTION], level[HALF_WIDTH]
    for i in range(first, last):
        parity, cell = rows[i, ROW_PARITY], rows[i, ROW_CELL]
        for odd in range(2):
            if not (active[rows[i, ROW_CLASS]] >> odd) & 1:
                continue
            n = level[ODDS] if odd else level[EVENS]
            x = x0 + rows[i, ROW_SPLIT] + odd * half + 1
            if parity == 0 and odd == 0:
                _add(arena, x, n, e0 + cell + 1)
                continue
            own = level[FIRST_TRANSFER] + 1 + 2 * parity + odd
            _copy(acc, n, arena, x)
            for t in range(transfers[own, 0], transfers[own, 1]):
                _accumulate(acc, n, arena, terms[t, 0] + cell, e0 + cell + terms[t, 1])
            _put(arena, x, n, acc)


@_compiled
def _divide_rows(arena, level, rows, active, first, last):  # type: ignore[no-untyped-def]
    """The first colour from a zero iterate: the right-hand side over the diagonal."""
    for i in range(first, last):
        here = active[rows[i, ROW_CLASS]]
        for part in range(3):
            if (here >> part) & 1:
                start, n, _ = _part(level, part)
                at = rows[i, ROW_SPLIT] + start
                _divide(arena, level[ITERATE] + at, n, level[RIGHT_SIDE] + at, level[DIAGONAL] + at)


@_compiled
def _read_rows(arena, level, rows, natural, start, scale, first, last):  # type: ignore[no-untyped-def]
    """The right-hand side from a natural field."""
    b0, half = level[RIGHT_SIDE] + 1, level[HALF_WIDTH]
    for i in range(first, last):
        b, origin = b0 + rows[i, ROW_SPLIT], start + rows[i, ROW_NATURAL]
        _read(arena, b, level[EVENS], natural, origin, scale)
        _read(arena, b + half, level[ODDS], natural, origin + 1, scale)


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def _dot(arena, a, b, n):  # type: ignore[no-untyped-def]
    a, b = _U(a), _U(b)
    total = 0.0
    for k in range(_U(n)):
        total += np.float64(arena[a + k]) * np.float64(arena[b + k])
    return total


@_compiled
def _inner_product(arena, level, rows, first, last):  # type: ignore[no-untyped-def]
    """Right-hand side times iterate."""
    total = 0.0
    for i in range(first, last):
        at = rows[i, ROW_SPLIT] + 1
        b, x = level[RIGHT_SIDE] + at, level[ITERATE] + at
        total += _dot(arena, b, x, level[EVENS])
        total += _dot(arena, b + level[HALF_WIDTH], x + level[HALF_WIDTH], level[ODDS])
    return total


@_compiled
def _write_rows(arena, level, rows, natural, start, scale, first, last):  # type: ignore[no-untyped-def]
    """The iterate to a natural field."""
    x0, half = level[ITERATE] + 1, level[HALF_WIDTH]
    for i in range(first, last):
        x, to = x0 + rows[i, ROW_SPLIT], start + rows[i, ROW_NATURAL]
        _write(natural, to, arena, x, level[EVENS], scale)
        _write(natural, to + 1, arena, x + half, level[ODDS], scale)


# -- Lines -----------------------------------------------------------------------------------------------------------


@_compiled
def _line_within_row(arena, acc, level, pairs, pivots, closure, link, row):  # type: ignore[no-untyped-def]
    """Solve the tridiagonal system that one row of the last axis is, its neighbour rows given."""
    half, size = level[HALF_WIDTH], level[SPLIT_SIZE]
    x = level[ITERATE] + row + 1
    for odd in range(2):
        n = level[ODDS] if odd else level[EVENS]
        at = row + odd * half + 1
        part = acc[odd * half :]
        _copy(part, n, arena, level[RIGHT_SIDE] + at)
        first, count = level[FIRST_PAIR], level[PAIR_COUNT]
        _couple(part, n, arena, level[ITERATE] + at, level[LINKS] + at, size, pairs, first, 0, count, odd, link)
    points = level[EVENS] + level[ODDS]
    coupling, pivot = level[LINKS] + link * size + row + 1, pivots + row + 1
    # Point i of the row lies in slot i // 2 of its half.
    y = acc[0]
    for i in range(1, points):
        here, before = (i % 2) * half + i // 2, ((i - 1) % 2) * half + (i - 1) // 2
        y = acc[here] - arena[coupling + before] * arena[pivot + before] * y
        acc[here] = y
    last = ((points - 1) % 2) * half + (points - 1) // 2
    z = acc[last] * arena[pivot + last]
    arena[x + last] = z
    for i in range(points - 2, -1, -1):
        here = (i % 2) * half + i // 2
        z = arena[pivot + here] * (acc[here] - arena[coupling + here] * z)
        arena[x + here] = z
    if closure:
        d = level[DIAGONAL] + row + 1
        surplus = arena[x] - arena[coupling + last] / arena[d] * arena[x + last]
        for i in range(points):
            here = (i % 2) * half + i // 2
            arena[x + here] -= surplus * arena[closure + row + 1 + here]


@_compiled
def _lines_across_rows(arena, acc, level, pairs, pivots, closure, link, stride, length, row, part):  # type: ignore[no-untyped-def]
    """Solve the tridiagonal systems along an outer axis that start at the points of one row, all at once."""
    start, n, odd = _part(level, part)
    first = row + start
    size = level[SPLIT_SIZE]
    coupling = level[LINKS] + link * size
    for i in range(length):
        at = first + i * stride
        x, p0, count = level[ITERATE] + at, level[FIRST_PAIR], level[PAIR_COUNT]
        _copy(acc, n, arena, level[RIGHT_SIDE] + at)
        _couple(acc, n, arena, x, level[LINKS] + at, size, pairs, p0, 0, count, odd, link)
        if i > 0:
            c, p, y = _U(coupling + at - stride), _U(pivots + at - stride), _U(x - stride)
            for k in range(_U(n)):
                acc[k] -= arena[c + k] * arena[p + k] * arena[y + k]
        _put(arena, x, n, acc)
    for i in range(length - 1, -1, -1):
        at = first + i * stride
        x, c, p, y = _U(level[ITERATE] + at), _U(coupling + at), _U(pivots + at), _U(level[ITERATE] + at + stride)
        if i == length - 1:
            for k in range(_U(n)):
                arena[x + k] *= arena[p + k]
        else:
            for k in range(_U(n)):
                arena[x + k] = arena[p + k] * (arena[x + k] - arena[c + k] * arena[y + k])
    if closure:
        end = first + (length - 1) * stride
        x, y = _U(level[ITERATE] + first), _U(level[ITERATE] + end)
        c, d = _U(coupling + end), _U(level[DIAGONAL] + first)
        for k in range(_U(n)):
            acc[k] = arena[x + k] - arena[c + k] / arena[d + k] * arena[y + k]
        for i in range(length):
            x, z = _U(level[ITERATE] + first + i * stride), _U(closure + first + i * stride)
            for k in range(_U(n)):
                arena[x + k] -= acc[k] * arena[z + k]


@_compiled
def _relax_lines(arena, acc, level, pairs, phase, rows, line_rows, colours):  # type: ignore[no-untyped-def]
    """One colour of lines, all of them. The columns of a phase are in `schedule._PHASE_COLUMNS`."""
    pivots, link, closure = phase[3], phase[4], phase[9]
    for k in range(phase[8]):
        i = level[FIRST_ROW] + line_rows[phase[7] + k]
        row, active = rows[i, ROW_SPLIT], colours[phase[1], rows[i, ROW_CLASS]]
        if phase[0] == LINES_WITHIN_ROWS:
            if active:
                _line_within_row(arena, acc, level, pairs, pivots, closure, link, row)
            continue
        for part in range(3):
            if (active >> part) & 1:
                stride, length = phase[5], phase[6]
                _lines_across_rows(arena, acc, level, pairs, pivots, closure, link, stride, length, row, part)


# -- The whole -------------------------------------------------------------------------------------------------------


@_compiled
def _run_phases(arena, acc, level, coarse, phases, tables, source, target, scale_in, scale_out):  # type: ignore[no-untyped-def]
    """All phases of one step, slab by slab; returns right-hand side times iterate if the result was stored."""
    rows, pairs, colours, transfers, terms, ghosts, line_rows = tables
    slabs, per_slab = level[SLABS], level[ROWS_PER_SLAB]
    first_row, end_row = level[FIRST_ROW], level[FIRST_ROW] + level[ROW_COUNT]
    one = arena.dtype.type(1)
    product = 0.0
    for time in range(slabs + phases[phases.shape[0] - 1, 2]):
        for p in range(phases.shape[0]):
            kind, slab = phases[p, 0], time - phases[p, 2]
            if slab < 0 or slab >= slabs:
                continue
            active = colours[phases[p, 1]]
            first = first_row + slab * per_slab
            last = min(first + per_slab, end_row)
            if kind == RELAX:
                _relax(arena, acc, level, pairs, rows, active, first, last)
            elif kind == SUBTRACT:
                _subtract(arena, acc, level, pairs, rows, active, first, last)
            elif kind == DIVIDE:
                _divide_rows(arena, level, rows, active, first, last)
            elif kind == RESTRICT:
                # A slab is an even number of indices: coarse slab I needs the residuals up to 2 I + 1.
                own = level[FIRST_TARGET] + slab * level[TARGETS_PER_SLAB]
                end = min(own + level[TARGETS_PER_SLAB], level[FIRST_TARGET] + level[TARGET_COUNT])
                _restrict(arena, acc, level, coarse, rows, transfers, terms, own, end)
            elif kind == PROLONG:
                _prolong(arena, acc, level, coarse, rows, transfers, terms, active, first, last)
            elif kind == LOAD_INPUT:
                _read_rows(arena, level, rows, source, 0, scale_in, first, last)
            elif kind == STORE_OUTPUT:
                _write_rows(arena, level, rows, target, 0, scale_out, first, last)
                product += _inner_product(arena, level, rows, first, last)
            elif kind == LOAD:
                _read_rows(arena, level, rows, arena, level[CORRECTION] + 1, one, first, last)
            elif kind == STORE:
                _write_rows(arena, level, rows, arena, level[CORRECTION] + 1, one, first, last)
            elif kind == CLEAR:
                x = level[ITERATE]
                width = 2 * level[HALF_WIDTH]
                for i in range(first, last):
                    arena[x + rows[i, ROW_SPLIT] : x + rows[i, ROW_SPLIT] + width] = 0
            elif slab > 0:
                continue  # what follows is done for all slabs at once
            elif kind in (LINES_WITHIN_ROWS, LINES_ACROSS_ROWS):
                _relax_lines(arena, acc, level, pairs, phases[p], rows, line_rows, colours)
            elif kind == FOLD:
                for g in range(level[FIRST_FOLD], level[FIRST_FOLD] + level[FOLD_COUNT]):
                    _add(arena, coarse[CORRECTION] + ghosts[g, 0], ghosts[g, 2], coarse[CORRECTION] + ghosts[g, 1])
            elif kind == FILL_CORRECTION:
                g = coarse[FIRST_NATURAL_GHOST]
                copy_ghosts(arena, coarse[CORRECTION], ghosts[g : g + coarse[NATURAL_GHOST_COUNT]])
            else:
                g = level[FIRST_GHOST]
                field = level[ITERATE] if kind == FILL_ITERATE else level[RESIDUAL]
                copy_ghosts(arena, field, ghosts[g : g + level[GHOST_COUNT]])
    return product


@_compiled
def _solve_coarsest(arena, level, inverse, positions, acc):  # type: ignore[no-untyped-def]
    """Product with the dense (pseudo-)inverse, in place of the right-hand side."""
    n = positions.size
    start = level[CORRECTION]
    for i in range(n):
        total = inverse[i, 0] * arena[start + positions[0]]
        for j in range(1, n):
            total += inverse[i, j] * arena[start + positions[j]]
        acc[i] = total
    for i in range(n):
        arena[start + positions[i]] = acc[i]


@_compiled
def run_cycle(  # type: ignore[no-untyped-def]
    arena, acc, levels, steps, phases, tables, inverse, positions, source, target, scale_in, scale_out
):
    """target = scale_out * cycle(scale_in * source), one application of the whole cycle from a zero first guess.

    `source` and `target` are fields of the finest grid in C order, of any precision. Returns the inner product of
    ``scale_in * source`` and the cycle's result before it is scaled.
    """
    product = 0.0
    for s in range(steps.shape[0]):
        number, first, last = steps[s]
        level = levels[number]
        if first == last:
            _solve_coarsest(arena, level, inverse, positions, acc)
            continue
        coarse, own = levels[number + 1], phases[first:last]
        product = _run_phases(arena, acc, level, coarse, own, tables, source, target, scale_in, scale_out)
    return product
