r"""The compiled cycle: one call for all levels, in any number of dimensions.

The unit of work is one row of the last axis, even or odd points, in one colour: a sum of products of contiguous rows
(see `rows`). What a cycle does is written in tables (see `schedule`): a list of *steps* (go down, solve the coarsest
system, go up), each a list of *phases* (relax a colour, form a residual, restrict, ...) that runs over the *slabs* of
the grid, some indices of its first axis each. A phase may follow its predecessor by a slab instead of waiting for the
whole grid; the arrays then pass through the cache once for all phases, which is what the time of the finest level is
made of.

Positions are turned into unsigned integers before inner loops: signed ones could be negative, which numba would check
for every access, and the loops would not become vector instructions. All compiled functions of the cycle are in this
file and in `rows`: numba's cache notices changes only of the file of the function that is called from Python, so after
a change of `rows` this file must be saved again.
"""

from typing import Any

import numpy as np
from numba import njit

from solvers.rows import add_products, subtract_products

# Columns of the level table: starts of fields in the arena, sizes, and starts of other tables.
(
    ITERATE,
    RIGHT_SIDE,
    RESIDUAL,
    DIAGONAL,
    LINKS,
    CORRECTION,
    BUFFER,
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
    FIRST_PRODUCT,
    PRODUCT_COUNT,
    FIRST_TRANSFER,
    FIRST_GHOST,
    GHOST_COUNT,
    FIRST_NATURAL_GHOST,
    NATURAL_GHOST_COUNT,
    COLUMNS,
) = range(29)

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
_options: dict[str, Any] = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}
compiled = njit(cache=True, **_options)
# Functions that only compiled ones call need no way in from Python, which takes longer to compile than they do.
_inner = njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **_options)
_U = np.uint64


@_inner
def _copy(arena, out, n, a):  # type: ignore[no-untyped-def]
    out, a = _U(out), _U(a)
    for k in range(_U(n)):
        arena[out + k] = arena[a + k]


@_inner
def _add(arena, out, n, a):  # type: ignore[no-untyped-def]
    out, a = _U(out), _U(a)
    for k in range(_U(n)):
        arena[out + k] += arena[a + k]


@compiled
def copy_ghosts(arena, start, copies, first, last):  # type: ignore[no-untyped-def]
    """Fill the ghosts of a field by the rows from `first` to `last` of a table of (to, from, count)."""
    for i in range(first, last):
        _copy(arena, start + copies[i, 0], copies[i, 2], start + copies[i, 1])


@_inner
def _part(level, part):  # type: ignore[no-untyped-def]
    """Where the even points (0), the odd ones (1) or the one at the seam (2) begin in a row; their number; if odd."""
    if part == 0:
        return 0, level[PLAIN_EVENS], 0
    if part == 1:
        return level[HALF_WIDTH], level[ODDS], 1
    return level[PLAIN_EVENS], level[EVENS] - level[PLAIN_EVENS], 0


# -- Phases over the rows [first, last) of a slab -------------------------------------------------------------------


@_inner
def _relax(arena, level, products, rows, active, first, last, begin, divide):  # type: ignore[no-untyped-def]
    """Of the points of one colour: their equations solved for themselves, or, undivided, their residuals.

    Products before `begin` are left out: 0 for residuals, 1 (all but the diagonal) to relax, all of them to begin
    with an iterate of zero.
    """
    d0 = level[DIAGONAL] if divide else -1
    to = level[ITERATE] if divide else level[RESIDUAL]
    b0, count = level[RIGHT_SIDE], level[PRODUCT_COUNT]
    for i in range(first, last):
        here = active[rows[i, ROW_CLASS]]
        for part in range(3):
            if (here >> part) & 1:
                start, n, odd = _part(level, part)
                at = rows[i, ROW_SPLIT] + start
                p = level[FIRST_PRODUCT] + odd * count
                d = d0 + at if divide else -1
                subtract_products(arena, arena, arena, n, to + at, b0 + at, d, products, p + begin, p + count, at, at)


@_inner
def _restrict(arena, level, coarse, rows, transfers, products, first, last):  # type: ignore[no-untyped-def]
    """Rows of the coarse right-hand side: the transposed interpolation of the residual."""
    n, r0, e0, own = level[EVENS], level[RESIDUAL], coarse[CORRECTION], level[FIRST_TRANSFER]
    begin, end, has_own = transfers[own, 0], transfers[own, 1], transfers[own, 2]
    for i in range(first, last):
        natural, parent = rows[i, ROW_NATURAL], rows[i, ROW_PARENT]
        base = r0 + parent if has_own else -1
        add_products(arena, arena, arena, n, e0 + natural, base, -1, products, begin, end, natural, parent)


@_inner
def _prolong(arena, level, coarse, rows, transfers, products, active, first, last):  # type: ignore[no-untyped-def]
    """Add the interpolated coarse correction."""
    x0, e0, half = level[ITERATE], coarse[CORRECTION], level[HALF_WIDTH]
    for i in range(first, last):
        parity, cell, here = rows[i, ROW_PARITY], rows[i, ROW_CELL], active[rows[i, ROW_CLASS]]
        x = x0 + rows[i, ROW_SPLIT]
        if here & 1:
            if parity == 0:
                _add(arena, x, level[EVENS], e0 + cell)
            else:
                own = level[FIRST_TRANSFER] + 1 + 2 * parity
                begin, end = transfers[own, 0], transfers[own, 1]
                add_products(arena, arena, arena, level[EVENS], x, x, -1, products, begin, end, cell, cell)
        if here & 2:
            x += half
            own = level[FIRST_TRANSFER] + 2 + 2 * parity
            begin, end = transfers[own, 0], transfers[own, 1]
            add_products(arena, arena, arena, level[ODDS], x, x, -1, products, begin, end, cell, cell)


@_inner
def _read_rows(arena, level, rows, natural, start, scale, first, last):  # type: ignore[no-untyped-def]
    """The right-hand side from a natural field."""
    for i in range(first, last):
        even, origin = _U(level[RIGHT_SIDE] + rows[i, ROW_SPLIT]), _U(start + rows[i, ROW_NATURAL])
        odd, odds = even + _U(level[HALF_WIDTH]), _U(level[ODDS])
        # Both in one loop: what is read is contiguous then, and the compiler takes it apart in vector instructions.
        for k in range(odds):
            arena[even + k] = scale * natural[origin + k + k]
            arena[odd + k] = scale * natural[origin + k + k + _U(1)]
        if level[EVENS] > level[ODDS]:
            arena[even + odds] = scale * natural[origin + odds + odds]


@_inner
def _write_rows(arena, level, rows, natural, start, scale, first, last):  # type: ignore[no-untyped-def]
    """The iterate to a natural field."""
    for i in range(first, last):
        even, to = _U(level[ITERATE] + rows[i, ROW_SPLIT]), _U(start + rows[i, ROW_NATURAL])
        odd, odds = even + _U(level[HALF_WIDTH]), _U(level[ODDS])
        for k in range(odds):
            natural[to + k + k] = scale * arena[even + k]
            natural[to + k + k + _U(1)] = scale * arena[odd + k]
        if level[EVENS] > level[ODDS]:
            natural[to + odds + odds] = scale * arena[even + odds]


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, nogil=True, fastmath={"contract", "reassoc"})
def _inner_product(arena, level, rows, first, last):  # type: ignore[no-untyped-def]
    """Right-hand side times iterate; slots without a point hold zeros, so that a row is one loop."""
    total = 0.0
    for i in range(first, last):
        b, x = _U(level[RIGHT_SIDE] + rows[i, ROW_SPLIT]), _U(level[ITERATE] + rows[i, ROW_SPLIT])
        for k in range(_U(level[HALF_WIDTH] + level[ODDS])):
            total += np.float64(arena[b + k]) * np.float64(arena[x + k])
    return total


# -- Lines -----------------------------------------------------------------------------------------------------------


@_inner
def _couple_lines(arena, level, products, out, at, n, odd, link):  # type: ignore[no-untyped-def]
    """Right-hand side less what the neighbours beyond the lines contribute; those along them are joined by `link`."""
    count = level[PRODUCT_COUNT]
    first = level[FIRST_PRODUCT] + odd * count
    along, b = first + 1 + 2 * link, level[RIGHT_SIDE] + at
    subtract_products(arena, arena, arena, n, out, b, -1, products, first + 1, along, at, at)
    subtract_products(arena, arena, arena, n, out, out, -1, products, along + 2, first + count, at, at)


@_inner
def _line_within_row(arena, level, products, pivots, closure, link, row):  # type: ignore[no-untyped-def]
    """Solve the tridiagonal system that one row of the last axis is, its neighbour rows given."""
    half, size, buffer = level[HALF_WIDTH], level[SPLIT_SIZE], level[BUFFER]
    x = level[ITERATE] + row
    for odd in range(2):
        n = level[ODDS] if odd else level[EVENS]
        _couple_lines(arena, level, products, buffer + odd * half, row + odd * half, n, odd, link)
    points = level[EVENS] + level[ODDS]
    coupling, pivot = level[LINKS] + link * size + row, pivots + row
    # Point i of the row lies in slot i // 2 of its half.
    y = arena[buffer]
    for i in range(1, points):
        here, before = (i % 2) * half + i // 2, ((i - 1) % 2) * half + (i - 1) // 2
        y = arena[buffer + here] - arena[coupling + before] * arena[pivot + before] * y
        arena[buffer + here] = y
    last = ((points - 1) % 2) * half + (points - 1) // 2
    z = arena[buffer + last] * arena[pivot + last]
    arena[x + last] = z
    for i in range(points - 2, -1, -1):
        here = (i % 2) * half + i // 2
        z = arena[pivot + here] * (arena[buffer + here] - arena[coupling + here] * z)
        arena[x + here] = z
    if closure:
        d = level[DIAGONAL] + row
        surplus = arena[x] - arena[coupling + last] / arena[d] * arena[x + last]
        for i in range(points):
            here = (i % 2) * half + i // 2
            arena[x + here] -= surplus * arena[closure + row + here]


@_inner
def _lines_across_rows(arena, level, products, pivots, closure, link, stride, length, row, part):  # type: ignore[no-untyped-def]
    """Solve the tridiagonal systems along an outer axis that start at the points of one row, all at once."""
    start, n, odd = _part(level, part)
    first = row + start
    coupling = level[LINKS] + link * level[SPLIT_SIZE]
    for i in range(length):
        at = first + i * stride
        _couple_lines(arena, level, products, level[ITERATE] + at, at, n, odd, link)
        if i > 0:
            x, c, p = _U(level[ITERATE] + at), _U(coupling + at - stride), _U(pivots + at - stride)
            y = x - _U(stride)
            for k in range(_U(n)):
                arena[x + k] -= arena[c + k] * arena[p + k] * arena[y + k]
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
        x, y, s = _U(level[ITERATE] + first), _U(level[ITERATE] + end), _U(level[BUFFER])
        c, d = _U(coupling + end), _U(level[DIAGONAL] + first)
        for k in range(_U(n)):
            arena[s + k] = arena[x + k] - arena[c + k] / arena[d + k] * arena[y + k]
        for i in range(length):
            x, z = _U(level[ITERATE] + first + i * stride), _U(closure + first + i * stride)
            for k in range(_U(n)):
                arena[x + k] -= arena[s + k] * arena[z + k]


@_inner
def _relax_lines(arena, level, products, phase, rows, line_rows, colours):  # type: ignore[no-untyped-def]
    """One colour of lines, all of them. The columns of a phase are in `schedule._PHASE_COLUMNS`."""
    pivots, link, closure = phase[3], phase[4], phase[9]
    for k in range(phase[8]):
        i = level[FIRST_ROW] + line_rows[phase[7] + k]
        row, active = rows[i, ROW_SPLIT], colours[phase[1], rows[i, ROW_CLASS]]
        if phase[0] == LINES_WITHIN_ROWS:
            if active:
                _line_within_row(arena, level, products, pivots, closure, link, row)
            continue
        for part in range(3):
            if (active >> part) & 1:
                _lines_across_rows(arena, level, products, pivots, closure, link, phase[5], phase[6], row, part)


# -- The whole -------------------------------------------------------------------------------------------------------


@_inner
def _solve_coarsest(arena, level, inverse, positions):  # type: ignore[no-untyped-def]
    """Product with the dense (pseudo-)inverse, in place of the right-hand side."""
    n = positions.size
    start, buffer = level[CORRECTION], level[BUFFER]
    for i in range(n):
        arena[buffer + i] = 0
        for j in range(n):
            arena[buffer + i] += inverse[i, j] * arena[start + positions[j]]
    for i in range(n):
        arena[start + positions[i]] = arena[buffer + i]


@compiled
def run_cycle(  # type: ignore[no-untyped-def]
    arena,
    levels,
    steps,
    phases,
    rows,
    products,
    colours,
    transfers,
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

    `source` and `target` are fields of the finest grid in C order, of any precision; `line_rows` is None where no
    level relaxes lines: what that needs is then not even compiled. Returns the inner product of ``scale_in * source``
    and the cycle's result before it is scaled.
    """
    one = arena.dtype.type(1)
    product = 0.0
    for s in range(steps.shape[0]):
        level, first_phase, last_phase = levels[steps[s, 0]], steps[s, 1], steps[s, 2]
        if first_phase == last_phase:
            _solve_coarsest(arena, level, inverse, positions)
            continue
        coarse = levels[steps[s, 0] + 1]
        slabs, per_slab = level[SLABS], level[ROWS_PER_SLAB]
        first_row, end_row = level[FIRST_ROW], level[FIRST_ROW] + level[ROW_COUNT]
        for time in range(slabs + phases[last_phase - 1, 2]):
            for p in range(first_phase, last_phase):
                kind, slab = phases[p, 0], time - phases[p, 2]
                if slab < 0 or slab >= slabs:
                    continue
                active = colours[phases[p, 1]]
                first = first_row + slab * per_slab
                last = min(first + per_slab, end_row)
                if kind <= SUBTRACT and kind >= DIVIDE:
                    begin = 0 if kind == SUBTRACT else 1 if kind == RELAX else level[PRODUCT_COUNT]
                    _relax(arena, level, products, rows, active, first, last, begin, kind != SUBTRACT)
                elif kind == RESTRICT:
                    # A slab is an even number of indices: coarse slab I needs the residuals up to 2 I + 1.
                    own = level[FIRST_TARGET] + slab * level[TARGETS_PER_SLAB]
                    end = min(own + level[TARGETS_PER_SLAB], level[FIRST_TARGET] + level[TARGET_COUNT])
                    _restrict(arena, level, coarse, rows, transfers, products, own, end)
                elif kind == PROLONG:
                    _prolong(arena, level, coarse, rows, transfers, products, active, first, last)
                elif kind == LOAD_INPUT:
                    _read_rows(arena, level, rows, source, 0, scale_in, first, last)
                elif kind == STORE_OUTPUT:
                    _write_rows(arena, level, rows, target, 0, scale_out, first, last)
                    product += _inner_product(arena, level, rows, first, last)
                elif kind == LOAD:
                    _read_rows(arena, level, rows, arena, level[CORRECTION], one, first, last)
                elif kind == STORE:
                    _write_rows(arena, level, rows, arena, level[CORRECTION], one, first, last)
                elif kind == CLEAR:
                    for i in range(first, last):
                        x = _U(level[ITERATE] + rows[i, ROW_SPLIT])
                        for k in range(_U(level[HALF_WIDTH] + level[ODDS])):
                            arena[x + k] = 0
                elif slab > 0:
                    continue  # what follows is done for all slabs at once
                elif kind == FOLD:
                    for g in range(level[FIRST_FOLD], level[FIRST_FOLD] + level[FOLD_COUNT]):
                        _add(arena, coarse[CORRECTION] + ghosts[g, 0], ghosts[g, 2], coarse[CORRECTION] + ghosts[g, 1])
                elif kind == FILL_CORRECTION:
                    g = coarse[FIRST_NATURAL_GHOST]
                    copy_ghosts(arena, coarse[CORRECTION], ghosts, g, g + coarse[NATURAL_GHOST_COUNT])
                elif kind in (FILL_ITERATE, FILL_RESIDUAL):
                    g = level[FIRST_GHOST]
                    field = level[ITERATE] if kind == FILL_ITERATE else level[RESIDUAL]
                    copy_ghosts(arena, field, ghosts, g, g + level[GHOST_COUNT])
                elif line_rows is not None:
                    _relax_lines(arena, level, products, phases[p], rows, line_rows, colours)
    return product
