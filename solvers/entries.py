"""Moving the entries of a sparse matrix to the coefficient fields of a stencil, each where it belongs.

Away from the ends of a line of the last axis all rows look alike, as a rule: as many entries as the first of them, at
the same distances, each column one more than in the row before. That is checked without a branch, and the entries are
then moved a line at a time. The rows of each line are added up (see `row_sums`) while they are in the cache.
"""

import numpy as np
from numba import njit

from solvers.row_sums import gather

FITS, NO_STENCIL, NO_ROOM, NOT_SYMMETRIC = range(4)
# Called for every line: a call counts references to all of its arrays, which takes as long as a row.
_inner = njit(nogil=True, inline="always")
_compiled = njit(cache=True, nogil=True)


@_inner
def _add_line(first, indptr, indices, data, shape, slots, used, wraps, lines):  # type: ignore[no-untyped-def]
    """Add the entries of a line to `lines`, which has a row for each offset with a slot."""
    last = shape.size - 1
    width = shape[last]
    one = indices.dtype.type(1)
    begin, end = first + 1, first + width - 1
    middle = end - begin
    start = indptr[begin] if middle > 0 else 0
    count = indptr[begin + 1] - start if middle > 0 else 0
    alike = count > 0 and indptr[end] - start == count * middle
    if alike:
        different = False
        starts, ends = indptr[begin:end], indptr[begin + 1 : end + 1]
        for k in range(starts.size):
            different |= ends[k] - starts[k] != count
        before, after = indices[start : start + count * (middle - 1)], indices[start + count : indptr[end]]
        for k in range(before.size):
            different |= after[k] - before[k] != one
        alike = not different
    j = 0
    while j < width:
        span = middle if alike and j == 1 else 1  # rows that look like this one
        for k in range(indptr[first + j], indptr[first + j + 1]):
            row, column = first + j, np.int64(indices[k])
            number, wrapped, place = 0, 0, 1
            for axis in range(last, -1, -1):
                size = shape[axis]
                step = column % size - row % size
                row, column = row // size, column // size
                if step > 1 or step < -1:
                    if size > 2 and step == size - 1:
                        step = -1
                    elif size > 2 and step == 1 - size:
                        step = 1
                    else:
                        place = 0  # no step of at most one
                        break
                    wrapped |= 1 << axis
                number += (step + 1) * place
                place *= 3
            values = data[k : k + count * (span - 1) + 1]
            if place == 0 or wrapped != 0 or not used[number]:
                some = False
                for i in range(span):
                    some |= values[i * count] != 0
                if not some:
                    continue  # zeros may be stored anywhere
                if place == 0:
                    return NO_STENCIL
                if slots[number] < 0:
                    return NO_ROOM
                used[number] = True
                for axis in range(wraps.size):
                    wraps[axis] |= (wrapped >> axis) & 1
            line = lines[slots[number], j : j + span]
            for i in range(span):
                line[i] += values[i * count]
        j += span
    return FITS


@_inner
def _add_up(lines, sums, facts):  # type: ignore[no-untyped-def]
    """Gather the facts of the rows of a line."""
    sums[:] = 0
    for o in range(lines.shape[0]):
        line = lines[o]
        for j in range(sums.size):
            sums[j] += line[j]
    gather(sums, facts)


@_compiled
def collect(indptr, indices, data, shape, slots, used, wraps, fields, facts):  # type: ignore[no-untyped-def]
    """Add all entries to the coefficient fields, of which there is one for each offset with a slot."""
    width = shape[shape.size - 1]
    sums = np.empty(width, fields.dtype)
    for first in range(0, indptr.size - 1, width):
        lines = fields[:, first : first + width]
        lines[:] = 0
        outcome = _add_line(first, indptr, indices, data, shape, slots, used, wraps, lines)
        if outcome != FITS:
            return outcome
        _add_up(lines, sums, facts)
    return FITS


@_compiled
def collect_half(indptr, indices, data, shape, slots, used, wraps, shifts, fields, facts):  # type: ignore[no-untyped-def]
    """The same for a symmetric matrix without wrapped entries: only the diagonal and the links ahead are kept.

    The fields are the diagonal, then the links, which lead `shifts` ahead; slots beyond are those of the links behind
    in the same order, which are compared with the links ahead, bit by bit, as soon as they are there.
    """
    width, links = shape[shape.size - 1], shifts.size
    sums = np.empty(width, fields.dtype)
    lines = np.empty((1 + 2 * links, width), fields.dtype)
    for first in range(0, indptr.size - 1, width):
        lines[:] = 0
        outcome = _add_line(first, indptr, indices, data, shape, slots, used, wraps, lines)
        if outcome != FITS:
            return outcome
        for o in range(1 + links):
            field, line = fields[o, first : first + width], lines[o]
            for j in range(width):
                field[j] = line[j]
        for axis in range(wraps.size):
            if wraps[axis]:
                return NOT_SYMMETRIC
        for link in range(links):
            outside = min(max(shifts[link] - first, 0), width)
            ahead = fields[1 + link, first + outside - shifts[link] : first + width - shifts[link]]
            behind = lines[1 + links + link, outside:]
            different = False
            for j in range(behind.size):
                different |= ahead[j] != behind[j]
            if different:
                return NOT_SYMMETRIC
        _add_up(lines, sums, facts)
    return FITS
