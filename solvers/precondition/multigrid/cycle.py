r"""The compiled cycle: one call for all levels, in any number of dimensions.

The unit of work is one row of the last axis, even or odd points, in one colour: a few contiguous segments that are
multiplied and added. What a cycle does is written in tables (see `schedule`): a list of *steps* (go down, solve the
coarsest system, go up), each a list of *phases* (relax a colour, form a residual, restrict, ...) that runs over the
*slabs* of the grid, the indices of its first axis. A phase may follow its predecessor by a slab or so instead of
waiting for the whole grid; the arrays then pass through the cache once for all phases, which is what the time of the
finest level is made of.
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
    NATURAL_WIDTH,
    EVENS,
    ODDS,
    SLABS,
    ROWS_PER_SLAB,
    FIRST_ROW,
    FIRST_PAIR,
    PAIR_COUNT,
    FIRST_TRANSFER,
    FIRST_GHOST,
    GHOST_COUNT,
    FIRST_NATURAL_GHOST,
    NATURAL_GHOST_COUNT,
    COARSE_SIZE,
    COLUMNS,
) = range(23)

# Columns of the row table.
ROW_SPLIT, ROW_PARITY, ROW_NATURAL, ROW_CELL, ROW_PARENT, ROW_ODD_EXISTS, ROW_COLUMNS = range(7)

# Phases. The argument of those over points is a row of the colour table: for each parity of the outer axes, 1 for the
# even points of a row, 2 for the odd ones, 3 for both.
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
) = range(15)
_compiled = njit(cache=True, nogil=True, fastmath={"contract"})


@_compiled
def _subtract_pair(acc, a, x, b, y):  # type: ignore[no-untyped-def]
    for k in range(acc.size):
        acc[k] -= a[k] * x[k] + b[k] * y[k]


@_compiled
def _subtract_product(acc, a, x):  # type: ignore[no-untyped-def]
    for k in range(acc.size):
        acc[k] -= a[k] * x[k]


@_compiled
def _add_product(acc, a, x):  # type: ignore[no-untyped-def]
    for k in range(acc.size):
        acc[k] += a[k] * x[k]


@_compiled
def _divide(out, a, d):  # type: ignore[no-untyped-def]
    for k in range(out.size):
        out[k] = a[k] / d[k]


@_compiled
def _copy(out, a):  # type: ignore[no-untyped-def]
    for k in range(out.size):
        out[k] = a[k]


@_compiled
def _load(out, natural, scale):  # type: ignore[no-untyped-def]
    """Every other point of a natural row: out[k] = scale * natural[2 k]."""
    for k in range(out.size):
        out[k] = scale * natural[2 * k]


@_compiled
def _store(natural, a, scale):  # type: ignore[no-untyped-def]
    """natural[2 k] = scale * a[k]"""
    for k in range(a.size):
        natural[2 * k] = scale * a[k]


@_compiled
def copy_ghosts(arena, start, copies):  # type: ignore[no-untyped-def]
    for c in range(copies.shape[0]):
        to, origin = start + copies[c, 0], start + copies[c, 1]
        for k in range(copies[c, 2]):
            arena[to + k] = arena[origin + k]


@_compiled
def _off_diagonal(arena, acc, level, pairs, at, odd, count, skip):  # type: ignore[no-untyped-def]
    """acc -= the sum over all neighbours of coefficient times iterate; the pair `skip` is left out."""
    first = level[FIRST_PAIR]
    for j in range(level[PAIR_COUNT]):
        if j == skip:
            continue
        link = level[LINKS] + j * level[SPLIT_SIZE] + at
        ahead, behind = pairs[first + j, 2 * odd], pairs[first + j, 2 * odd + 1]
        x = level[ITERATE] + at
        _subtract_pair(
            acc,
            arena[link : link + count],
            arena[x + ahead : x + ahead + count],
            arena[link + behind : link + behind + count],
            arena[x + behind : x + behind + count],
        )


@_compiled
def _relax(arena, acc, level, pairs, at, odd, count):  # type: ignore[no-untyped-def]
    """Solve the equations of one colour in one row for its own unknowns."""
    b, d, x = level[RIGHT_SIDE] + at, level[DIAGONAL] + at, level[ITERATE] + at
    acc = acc[:count]
    _copy(acc, arena[b : b + count])
    _off_diagonal(arena, acc, level, pairs, at, odd, count, -1)
    _divide(arena[x : x + count], acc, arena[d : d + count])


@_compiled
def _residual(arena, acc, level, pairs, at, odd, count):  # type: ignore[no-untyped-def]
    b, d, x, r = level[RIGHT_SIDE] + at, level[DIAGONAL] + at, level[ITERATE] + at, level[RESIDUAL] + at
    acc = acc[:count]
    _copy(acc, arena[b : b + count])
    _off_diagonal(arena, acc, level, pairs, at, odd, count, -1)
    _subtract_product(acc, arena[d : d + count], arena[x : x + count])
    _copy(arena[r : r + count], acc)


@_compiled
def _restrict(arena, level, coarse, row, transfers, terms):  # type: ignore[no-untyped-def]
    """Row of the coarse right-hand side: the transposed interpolation of the residual."""
    count = level[EVENS]
    to = coarse[CORRECTION] + row[ROW_NATURAL] + 1
    origin = level[RESIDUAL] + row[ROW_PARENT]
    out = arena[to : to + count]
    first, last = transfers[level[FIRST_TRANSFER], 0], transfers[level[FIRST_TRANSFER], 1]
    if transfers[level[FIRST_TRANSFER], 2]:
        _copy(out, arena[origin + 1 : origin + 1 + count])
    else:
        out[:] = 0
    for t in range(first, last):
        weight, r = terms[t, 0] + row[ROW_NATURAL], origin + terms[t, 1]
        _add_product(out, arena[weight : weight + count], arena[r : r + count])


@_compiled
def _prolong(arena, level, coarse, row, odd, at, count, transfers, terms):  # type: ignore[no-untyped-def]
    """Add the interpolated coarse correction to one row, even or odd points."""
    which = level[FIRST_TRANSFER] + 1 + 2 * row[ROW_PARITY] + odd
    x = level[ITERATE] + at
    out = arena[x : x + count]
    e = coarse[CORRECTION] + row[ROW_CELL]
    if row[ROW_PARITY] == 0 and odd == 0:
        e += 1
        for k in range(count):
            out[k] += arena[e + k]
        return
    for t in range(transfers[which, 0], transfers[which, 1]):
        weight, correction = terms[t, 0] + row[ROW_CELL], e + terms[t, 1]
        _add_product(out, arena[weight : weight + count], arena[correction : correction + count])


@_compiled
def _lines_within_row(arena, acc, level, pairs, pivots, link, row):  # type: ignore[no-untyped-def]
    """Solve the tridiagonal system that one row of the last axis is, its neighbour rows given."""
    half = level[HALF_WIDTH]
    x = level[ITERATE] + row + 1
    for odd in range(2):
        count = level[ODDS] if odd else level[EVENS]
        at = row + odd * half + 1
        b = level[RIGHT_SIDE] + at
        part = acc[odd * half : odd * half + count]
        _copy(part, arena[b : b + count])
        _off_diagonal(arena, part, level, pairs, at, odd, count, link)
    size = level[EVENS] + level[ODDS]
    c = level[LINKS] + link * level[SPLIT_SIZE] + row + 1
    g = pivots + row + 1
    # Forward: y_i = acc_i - (c_{i-1} / pivot_{i-1}) y_{i-1}. Point i of the row lies in slot i // 2 of its half.
    y = acc[0]
    for i in range(1, size):
        here, before = (i % 2) * half + i // 2, ((i - 1) % 2) * half + (i - 1) // 2
        y = acc[here] - arena[c + before] * arena[g + before] * y
        acc[here] = y
    last = ((size - 1) % 2) * half + (size - 1) // 2
    z = acc[last] * arena[g + last]
    arena[x + last] = z
    for i in range(size - 2, -1, -1):
        here = (i % 2) * half + i // 2
        z = arena[g + here] * (acc[here] - arena[c + here] * z)
        arena[x + here] = z


@_compiled
def _lines_across_rows(arena, acc, level, pairs, pivots, link, stride, length, row, odd):  # type: ignore[no-untyped-def]
    """Solve the tridiagonal systems along an outer axis that start at the points of one row, all at once."""
    half = level[HALF_WIDTH]
    count = level[ODDS] if odd else level[EVENS]
    first = row + odd * half + 1
    c = level[LINKS] + link * level[SPLIT_SIZE]
    acc = acc[:count]
    for i in range(length):
        at = first + i * stride
        b, x = level[RIGHT_SIDE] + at, level[ITERATE] + at
        _copy(acc, arena[b : b + count])
        _off_diagonal(arena, acc, level, pairs, at, odd, count, link)
        if i > 0:
            for k in range(count):
                acc[k] -= arena[c + at - stride + k] * arena[pivots + at - stride + k] * arena[x - stride + k]
        _copy(arena[x : x + count], acc)
    for i in range(length - 1, -1, -1):
        at = first + i * stride
        x = level[ITERATE] + at
        if i < length - 1:
            for k in range(count):
                acc[k] = arena[x + k] - arena[c + at + k] * arena[x + stride + k]
        else:
            _copy(acc, arena[x : x + count])
        for k in range(count):
            arena[x + k] = acc[k] * arena[pivots + at + k]


@_compiled
def _relax_lines(arena, acc, level, pairs, phase, rows, line_rows, colours):  # type: ignore[no-untyped-def]
    """One colour of lines, all of them. Phase: kind, colour, delay, pivots, link, stride, length, first row, rows."""
    kind, colour, pivots, link = phase[0], phase[1], phase[3], phase[4]
    for k in range(phase[8]):
        row = rows[level[FIRST_ROW] + line_rows[phase[7] + k]]
        active = colours[colour, row[ROW_PARITY]]
        if kind == LINES_WITHIN_ROWS:
            if active:
                _lines_within_row(arena, acc, level, pairs, pivots, link, row[ROW_SPLIT])
            continue
        for odd in range(2):
            if (active >> odd) & 1:
                stride, length = phase[5], phase[6]
                _lines_across_rows(arena, acc, level, pairs, pivots, link, stride, length, row[ROW_SPLIT], odd)


@_compiled
def _run_slab(  # type: ignore[no-untyped-def]
    arena, acc, level, coarse, kind, colour, slab, rows, pairs, colours, transfers, terms, source, target, scale
):
    """One phase over the rows of one slab."""
    per_slab, half = level[ROWS_PER_SLAB], level[HALF_WIDTH]
    if kind == RESTRICT:
        # Coarse slab I needs the residual of the slabs 2 I - 1, 2 I and 2 I + 1.
        if slab % 2 == 1 or slab == level[SLABS] - 1:
            for k in range(coarse[ROWS_PER_SLAB]):
                row = rows[coarse[FIRST_ROW] + (slab // 2) * coarse[ROWS_PER_SLAB] + k]
                _restrict(arena, level, coarse, row, transfers, terms)
        return
    for k in range(per_slab):
        row = rows[level[FIRST_ROW] + slab * per_slab + k]
        base, natural = row[ROW_SPLIT], row[ROW_NATURAL]
        if kind == CLEAR:
            x = level[ITERATE] + base
            arena[x : x + 2 * half] = 0
            continue
        active = colours[colour, row[ROW_PARITY]]
        for odd in range(2):
            if not (active >> odd) & 1:
                continue
            count = level[ODDS] if odd else level[EVENS]
            at = base + odd * half + 1
            b, d, x = level[RIGHT_SIDE] + at, level[DIAGONAL] + at, level[ITERATE] + at
            e = level[CORRECTION] + natural + 1 + odd
            if kind == RELAX:
                _relax(arena, acc, level, pairs, at, odd, count)
            elif kind == SUBTRACT:
                _residual(arena, acc, level, pairs, at, odd, count)
            elif kind == DIVIDE:
                _divide(arena[x : x + count], arena[b : b + count], arena[d : d + count])
            elif kind == PROLONG:
                _prolong(arena, level, coarse, row, odd, at, count, transfers, terms)
            elif kind == LOAD_INPUT:
                _load(arena[b : b + count], source[natural + odd :], scale)
            elif kind == STORE_OUTPUT:
                _store(target[natural + odd :], arena[x : x + count], scale)
            elif kind == LOAD:
                _load(arena[b : b + count], arena[e:], 1)
            elif kind == STORE:
                _store(arena[e:], arena[x : x + count], 1)


@_compiled
def _run_phases(  # type: ignore[no-untyped-def]
    arena,
    acc,
    level,
    coarse,
    phases,
    rows,
    pairs,
    colours,
    transfers,
    terms,
    ghosts,
    line_rows,
    source,
    target,
    scale_in,
    scale_out,
):
    slabs = level[SLABS]
    for time in range(slabs + phases[phases.shape[0] - 1, 2]):
        for p in range(phases.shape[0]):
            kind, slab = phases[p, 0], time - phases[p, 2]
            if slab < 0 or slab >= slabs:
                continue
            if kind < LINES_WITHIN_ROWS:
                scale = scale_in if kind == LOAD_INPUT else scale_out
                _run_slab(
                    arena,
                    acc,
                    level,
                    coarse,
                    kind,
                    phases[p, 1],
                    slab,
                    rows,
                    pairs,
                    colours,
                    transfers,
                    terms,
                    source,
                    target,
                    scale,
                )
            elif slab > 0:
                continue  # what follows is done for all slabs at once
            elif kind == LINES_WITHIN_ROWS or kind == LINES_ACROSS_ROWS:
                _relax_lines(arena, acc, level, pairs, phases[p], rows, line_rows, colours)
            elif kind == FILL_CORRECTION:
                first = coarse[FIRST_NATURAL_GHOST]
                copy_ghosts(arena, coarse[CORRECTION], ghosts[first : first + coarse[NATURAL_GHOST_COUNT]])
            else:
                first = level[FIRST_GHOST]
                start = level[ITERATE] if kind == FILL_ITERATE else level[RESIDUAL]
                copy_ghosts(arena, start, ghosts[first : first + level[GHOST_COUNT]])


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
    arena,
    acc,
    levels,
    steps,
    phases,
    rows,
    pairs,
    colours,
    transfers,
    terms,
    ghosts,
    line_rows,
    inverse,
    positions,
    source,
    target,
    scale_in,
    scale_out,
):
    """target = scale_out * cycle(scale_in * source), one application of the whole cycle from a zero first guess.

    `source` and `target` are fields of the finest grid in C order, of any precision.
    """
    for s in range(steps.shape[0]):
        number = steps[s, 0]
        level = levels[number]
        if steps[s, 1] == steps[s, 2]:
            _solve_coarsest(arena, level, inverse, positions, acc)
            continue
        _run_phases(
            arena,
            acc,
            level,
            levels[number + 1],
            phases[steps[s, 1] : steps[s, 2]],
            rows,
            pairs,
            colours,
            transfers,
            terms,
            ghosts,
            line_rows,
            source,
            target,
            scale_in,
            scale_out,
        )
