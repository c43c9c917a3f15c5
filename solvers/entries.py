"""Moving the entries of a sparse matrix to the coefficient fields of a stencil, each where it belongs.

Away from the ends of a line of the last axis all rows look alike, as a rule: as many entries as the first of them, at
the same distances, each column one more than in the row before. That is checked without a branch, and the entries are
then moved a line at a time. The rows of each line are added up (see `row_sums`) while they are in the cache.

Fields lie one after the other in one array, so that a position in it is all that tells where an entry goes.
"""

import numpy as np
from numba import njit

from solvers.row_sums import gather

FITS, NO_STENCIL, NO_ROOM, NOT_SYMMETRIC = range(4)
# Called for every line: a call counts references to all of its arrays, which takes as long as a row.
_inner = njit(nogil=True, inline="always")
_compiled = njit(cache=True, nogil=True)
_U = np.uint64


@_inner
def _around(row, column, shape):  # type: ignore[no-untyped-def]
    """The number of the offset from one point to another, at most one step along each axis or around it.

    And the axes around which it leads, as bits; -1 if there is no such offset.
    """
    number, wrapped, place = 0, 0, 1
    for axis in range(shape.size - 1, -1, -1):
        size = shape[axis]
        step = column % size - row % size
        row, column = row // size, column // size
        if step > 1 or step < -1:
            if size > 2 and step == size - 1:
                step = -1
            elif size > 2 and step == 1 - size:
                step = 1
            else:
                number = -1
                break
            wrapped |= 1 << axis
        number += (step + 1) * place
        place *= 3
    return number, wrapped


@_inner
def _all_alike(indptr, indices, first, middle, count):  # type: ignore[no-untyped-def]
    """Whether rows have `count` entries each, whose columns are one more in every row."""
    start = indptr[first]
    if count <= 0 or indptr[first + middle] - start != count * middle:
        return False
    different = False
    i = _U(first)
    for k in range(_U(middle)):
        different |= indptr[i + k + _U(1)] - indptr[i + k] != count
    one, before, after = indices.dtype.type(1), _U(start), _U(start + count)
    for k in range(_U(count * (middle - 1))):
        different |= indices[after + k] - indices[before + k] != one
    return not different


@_inner
def _fill_line(  # type: ignore[no-untyped-def]
    first, at, matrix, shape, steps, distances, slots, used, wraps, guesses, filled, fields, places
):
    """Fill a line of each field: `places` says where it begins in `fields`, `slots` which one an offset has.

    From line to line `guesses` and `filled` remember the offsets of the last row, and the row that each field was last
    given an entry of.
    """
    indptr, indices, data = matrix
    last = shape.size - 1
    width = shape[last]
    middle = width - 2
    count = indptr[first + 2] - indptr[first + 1] if middle > 0 else 0
    alike = middle > 0 and _all_alike(indptr, indices, first + 1, middle, count)
    j = 0
    while j < width:
        span = middle if alike and j == 1 else 1  # rows that look like this one
        row = first + j
        start = np.int64(indptr[row])
        for k in range(start, np.int64(indptr[row + 1])):
            # Usually the offset is that of the entry at the same place in the row before.
            distance, guess = np.int64(indices[k]) - row, min(k - start, guesses.size - 1)
            number, wrapped = guesses[guess], 0
            if distances[number] != distance:
                number = 0
                while number < distances.size and distances[number] != distance:
                    number += 1
            inside = number < distances.size
            if inside:
                end = j + steps[number, last]
                inside = end >= 0 and end < width
                for axis in range(last):
                    end = at[axis] + steps[number, axis]
                    inside = inside and end >= 0 and end < shape[axis]
            if inside:
                guesses[guess] = number
            else:
                number, wrapped = _around(row, np.int64(indices[k]), shape)
            origin, stride = _U(k), _U(count)
            if number < 0 or wrapped != 0 or not used[number]:
                some = False
                for i in range(_U(span)):
                    some |= data[origin + i * stride] != 0
                if not some:
                    continue  # zeros may be stored anywhere
                if number < 0:
                    return NO_STENCIL
                if slots[number] < 0:
                    return NO_ROOM
                used[number] = True
                for axis in range(wraps.size):
                    wraps[axis] |= (wrapped >> axis) & 1
            slot = slots[number]
            to = _U(places[slot] + j)
            if filled[slot] == row:  # by another entry of the same row and column
                for i in range(_U(span)):
                    fields[to + i] += data[origin + i * stride]
            else:
                filled[slot] = row
                for i in range(_U(span)):
                    fields[to + i] = data[origin + i * stride]
        for slot in range(places.size):
            if filled[slot] != row:
                to = _U(places[slot] + j)
                for i in range(_U(span)):
                    fields[to + i] = 0
        j += span
    return FITS


@_inner
def _add_up(fields, places, sums, facts):  # type: ignore[no-untyped-def]
    """Gather the facts of the rows of a line."""
    width = _U(sums.size)
    first = _U(places[0])
    for k in range(width):
        sums[k] = fields[first + k]
    for slot in range(1, places.size):
        origin = _U(places[slot])
        for k in range(width):
            sums[k] += fields[origin + k]
    gather(sums, facts)


@_inner
def _next_line(at, shape):  # type: ignore[no-untyped-def]
    """Indices of the next line along all axes but the last."""
    axis = shape.size - 2
    while axis >= 0:
        at[axis] += 1
        if at[axis] < shape[axis]:
            break
        at[axis] = 0
        axis -= 1


@_compiled
def collect(matrix, shape, steps, distances, slots, used, wraps, fields, facts):  # type: ignore[no-untyped-def]
    """Add all entries to the coefficient fields, of which there is one for each offset with a slot.

    ``matrix``: indptr, indices and data; ``steps``, ``distances``: those of all offsets; ``fields``: one after the
    other, flat.
    """
    n, width = matrix[0].size - 1, shape[shape.size - 1]
    sums, places = np.empty(width, fields.dtype), np.arange(fields.size // n) * n
    at, guesses, filled = np.zeros(shape.size, np.int64), np.zeros(32, np.int64), np.full(places.size, -1)
    for first in range(0, n, width):
        outcome = _fill_line(
            first, at, matrix, shape, steps, distances, slots, used, wraps, guesses, filled, fields, places
        )  # fmt: skip
        if outcome != FITS:
            return outcome
        _add_up(fields, places, sums, facts)
        places += width
        _next_line(at, shape)
    return FITS


@_compiled
def collect_half(matrix, shape, steps, distances, slots, used, wraps, shifts, fields, facts):  # type: ignore[no-untyped-def]
    """The same for a symmetric matrix without wrapped entries: only the diagonal and the links ahead are kept.

    The fields are the diagonal, then the links, which lead `shifts` ahead; slots beyond are those of the links behind
    in the same order, one line each, which are compared with the links ahead, bit by bit, as soon as they are there.
    """
    n, width, links = matrix[0].size - 1, shape[shape.size - 1], shifts.size
    sums, places = np.empty(width, fields.dtype), np.arange(1 + 2 * links) * n
    places[1 + links :] = (1 + links) * n + np.arange(links) * width
    at, guesses, filled = np.zeros(shape.size, np.int64), np.zeros(32, np.int64), np.full(places.size, -1)
    for first in range(0, n, width):
        outcome = _fill_line(
            first, at, matrix, shape, steps, distances, slots, used, wraps, guesses, filled, fields, places
        )  # fmt: skip
        if outcome != FITS:
            return outcome
        for axis in range(wraps.size):
            if wraps[axis]:
                return NOT_SYMMETRIC
        for link in range(links):
            outside = min(max(shifts[link] - first, 0), width)
            ahead = _U(places[1 + link] + outside - shifts[link])
            behind = _U(places[1 + links + link] + outside)
            different = False
            for k in range(_U(width - outside)):
                different |= fields[ahead + k] != fields[behind + k]
            if different:
                return NOT_SYMMETRIC
        _add_up(fields, places, sums, facts)
        places[: 1 + links] += width
        _next_line(at, shape)
    return FITS
