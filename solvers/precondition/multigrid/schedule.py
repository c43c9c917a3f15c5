r"""What a cycle does, in tables: made once for each shape of grid and kind of cycle, used by every matrix on it.

The names of the tables' columns are those of `cycle`, which runs them.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice, product
from typing import Any, Literal

import numpy as np

from solvers.precondition.multigrid import cycle as c
from solvers.precondition.multigrid.colours import RED_BLACK, SEAM, Colour, Smoother, colours_of
from solvers.precondition.multigrid.layout import BELOW, LevelLayout, Offset, descend, forward, neighbours
from solvers.rows import LANES

EVERYWHERE = 0  # row of the colour table: all points
_SLAB_POINTS = 4096
_PHASE_COLUMNS = 10  # kind, colour, delay; for lines pivots, link, stride, length, first row, rows, closure


@dataclass(frozen=True, eq=False)  # one object for each plan, compared and hashed as such
class Plan:
    """All that is known of a hierarchy before its matrix: layouts, places in the arena, and tables for the kernels.

    Parameters
    ----------
    shape, periodic
        Of the finest grid.
    links : tuple of offsets
        Forward offsets of the finest operator.
    smoothers : tuple
        One for each level but the coarsest.
    cycle : "V" or "W"
    presweeps, postsweeps : int
    folded : bool
        Whether the two even points at a seam may become one on the next level; set-up has them apart in passing.
    """

    shape: tuple[int, ...]
    periodic: tuple[bool, ...]
    links: tuple[Offset, ...]
    smoothers: tuple[Smoother, ...]
    cycle: Literal["V", "W"]
    presweeps: int
    postsweeps: int
    folded: bool = True

    @cached_property
    def layouts(self) -> tuple[LevelLayout, ...]:
        """Finest first."""
        full = forward(neighbours(len(self.shape)))
        around = self.periodic if self.folded else (False,) * len(self.shape)
        grids = islice(descend(self.shape, around), len(self.smoothers) + 1)
        return tuple(
            LevelLayout(shape, self.periodic, full if level else self.links, folds)
            for level, (shape, folds) in enumerate(grids)
        )

    @property
    def weights(self) -> list[Offset]:
        """Where around a coarse point the weights of interpolation are stored; the coarse point itself has weight 1."""
        return [offset for offset in neighbours(len(self.shape)) if any(offset)]

    # -- Places in the arena ----------------------------------------------------------------------------------------

    @cached_property
    def _places(self) -> tuple[list[dict[str, int]], list[int], int, int]:
        """Start of the fields of each level, end of its coefficients, end of all coefficients, size of the arena."""
        end = 0
        places: list[dict[str, int]] = []
        ends: list[int] = []

        def take(level: int, name: str, size: int) -> None:
            nonlocal end
            places[level][name] = end
            end += size

        for number, layout in enumerate(self.layouts):
            places.append({})
            take(number, "diagonal", layout.split_size)
            take(number, "links", layout.split_size * len(layout.links))
            if number + 1 < len(self.layouts):
                take(number, "weights", self.layouts[number + 1].natural_size * len(self.weights))
                places[number]["pivots"] = end
                for axis in self.line_axes(number):
                    take(number, f"pivots {axis}", layout.split_size)
                    if layout.periodic[axis]:
                        take(number, f"closure {axis}", layout.split_size)
            ends.append(end)
        coefficients = end
        for number, layout in enumerate(self.layouts):
            if number > 0:
                take(number, "correction", layout.natural_size)
            if number + 1 < len(self.layouts):
                for name in ("iterate", "right side", "residual"):
                    take(number, name, layout.split_size)
        widest = max(2 * layout.half_width for layout in self.layouts)
        take(0, "buffer", (max(widest, self.layouts[-1].points) // LANES + 2) * LANES)
        return places, ends, coefficients, end

    @property
    def places(self) -> list[dict[str, int]]:
        """Of each level, where its arrays start in the arena, by name."""
        return self._places[0]

    @cached_property
    def diagonals(self) -> np.ndarray:
        """Start and size of the diagonal of each level."""
        pairs = zip(self.places, self.layouts, strict=True)
        return np.array([(places["diagonal"], layout.split_size) for places, layout in pairs])

    @property
    def coefficient_size(self) -> int:
        """Numbers at the start of the arena that depend on the matrix; the rest is workspace."""
        return self._places[2]

    @property
    def level_ends(self) -> list[int]:
        """Where the coefficients of each level end."""
        return self._places[1]

    @property
    def arena_size(self) -> int:
        """Numbers in the arena, workspace included."""
        return self._places[3]

    def line_axes(self, level: int) -> tuple[int, ...]:
        """Axes along which a level smooths by lines; none where it smooths by points."""
        smoother = self.smoothers[level]
        return () if isinstance(smoother, str) else smoother

    def weight_place(self, level: int, offset: Offset) -> int:
        """Start of the weights with which points ``2 I + offset`` of a level take the correction of coarse point I."""
        return self.places[level]["weights"] + self.weights.index(offset) * self.layouts[level + 1].natural_size

    def coefficient_place(self, level: int, point: Offset, offset: Offset) -> int:
        """Position of the coefficient that couples point ``2 I + point`` to its neighbour at `offset`.

        Relative to that of the points ``2 I``. Half of the links are stored with the neighbour.
        """
        layout, places = self.layouts[level], self.places[level]
        if not any(offset):
            return places["diagonal"] + layout.split_position(point)
        if offset in layout.links:
            return places["links"] + layout.links.index(offset) * layout.split_size + layout.split_position(point)
        opposite = tuple(-step for step in offset)
        neighbour = tuple(i + step for i, step in zip(point, offset, strict=True))
        return places["links"] + layout.links.index(opposite) * layout.split_size + layout.split_position(neighbour)

    def stencil(self, level: int) -> list[Offset]:
        """All offsets of a level's operator."""
        links = self.layouts[level].links
        return [(0,) * len(self.shape), *links, *(tuple(-step for step in offset) for offset in links)]

    # -- Tables -----------------------------------------------------------------------------------------------------

    @cached_property
    def tables(self) -> dict[str, Any]:
        """The integer tables of `cycle.run_cycle`, by the names of its arguments; `line_rows` is None without lines."""
        depth, dimensions = len(self.layouts), len(self.shape)
        levels = np.zeros((depth, c.COLUMNS), dtype=np.int64)
        rows: list[np.ndarray] = []
        products: list[tuple[int, int]] = []
        colours: list[tuple[int, ...]] = [(7,) * 3 ** (dimensions - 1)]
        transfers: list[tuple[int, int, int]] = []
        ghosts: list[np.ndarray] = []
        line_rows: list[np.ndarray] = []
        phases: list[tuple[int, ...]] = []
        programs: list[dict[str, tuple[int, int]]] = []
        for number, layout in enumerate(self.layouts):
            places, level = self.places[number], levels[number]
            level[c.ITERATE] = places.get("iterate", 0)
            level[c.RIGHT_SIDE] = places.get("right side", 0)
            level[c.RESIDUAL] = places.get("residual", 0)
            level[c.CORRECTION] = places.get("correction", 0)
            level[c.BUFFER] = self.places[0]["buffer"]
            level[c.DIAGONAL], level[c.LINKS] = places["diagonal"], places["links"]
            level[c.SPLIT_SIZE], level[c.HALF_WIDTH] = layout.split_size, layout.half_width
            level[c.EVENS], level[c.ODDS] = (layout.shape[-1] + 1) // 2, layout.shape[-1] // 2
            level[c.PLAIN_EVENS] = level[c.EVENS] - layout.seams[-1]
            level[c.FIRST_ROW], level[c.ROW_COUNT] = sum(map(len, rows)), len(layout.row_indices)
            rows.append(self._rows(number))
            level[c.FIRST_PRODUCT], level[c.PRODUCT_COUNT] = len(products), 1 + 2 * len(layout.links)
            products += self._products(number)
            level[c.FIRST_GHOST], level[c.GHOST_COUNT] = sum(map(len, ghosts)), len(layout.split_copies)
            ghosts.append(layout.split_copies)
            level[c.FIRST_NATURAL_GHOST] = sum(map(len, ghosts))
            level[c.NATURAL_GHOST_COUNT] = len(layout.natural_copies)
            ghosts.append(layout.natural_copies)
            if number + 1 == depth:
                continue
            # Rows to restrict to: those that lie in a slab are half as many as its own along the first axis.
            level[c.FIRST_TARGET] = sum(map(len, rows))
            rows.append(self._targets(number))
            level[c.TARGET_COUNT] = len(rows[-1])
            thickness, level[c.SLABS] = _slabs(layout)
            level[c.ROWS_PER_SLAB] = thickness * math.prod(layout.shape[1:-1])
            level[c.TARGETS_PER_SLAB] = thickness // 2 * math.prod((size + 1) // 2 for size in layout.shape[1:-1])
            folds = self.layouts[number + 1].natural_folds(layout.folds)
            level[c.FIRST_FOLD], level[c.FOLD_COUNT] = sum(map(len, ghosts)), len(folds)
            ghosts.append(folds)
            own = colours_of(self.smoothers[number], layout.seams)
            # What has just been relaxed has no residual, and is relaxed first after the correction: neither is formed
            # nor corrected. Only red-black relaxation at a seam mixes such points with others of their parity.
            exact = not (self.smoothers[number] == RED_BLACK and any(layout.seams))
            relaxed = own[-1].active if exact else (0,) * len(own[-1].active)
            level[c.FIRST_TRANSFER] = len(transfers)
            self._add_transfers(number, relaxed, transfers, products)
            first_colour = len(colours)
            colours += [colour.active for colour in own]
            colours.append(tuple(7 & ~active for active in relaxed))
            first_line_row = [sum(map(len, line_rows)) + 0 for _ in range(dimensions)]
            for axis in self.line_axes(number):
                first_line_row[axis] = sum(map(len, line_rows))
                line_rows.append(_line_starts(layout, axis))
            programs.append(self._programs(number, own, exact, first_colour, first_line_row, phases))
        return {
            "levels": levels,
            "steps": np.array(list(self._steps(programs)), dtype=np.int64).reshape(-1, 3),
            "phases": np.array(phases, dtype=np.int64).reshape(-1, _PHASE_COLUMNS),
            "rows": np.concatenate(rows),
            "products": np.array(products, dtype=np.int64).reshape(-1, 2),
            "colours": np.array(colours, dtype=np.int64),
            "transfers": np.array(transfers, dtype=np.int64).reshape(-1, 3),
            "ghosts": np.concatenate(ghosts),
            "line_rows": np.concatenate(line_rows) if line_rows else None,
        }

    def _rows(self, number: int) -> np.ndarray:
        layout, index = self.layouts[number], self.layouts[number].row_indices
        table = np.zeros((len(index), c.ROW_COLUMNS), dtype=np.int64)
        bits = 1 << np.arange(index.shape[1])
        table[:, c.ROW_SPLIT] = layout.split_rows
        table[:, c.ROW_PARITY] = (index % 2) @ bits
        at_seam = (index == np.array(layout.shape[:-1]) - 1) & np.array(layout.seams[:-1], dtype=bool)
        table[:, c.ROW_CLASS] = np.where(at_seam, SEAM, index % 2) @ 3 ** np.arange(index.shape[1])
        if number == 0:
            # Fields come from the user without ghosts.
            table[:, c.ROW_NATURAL] = np.arange(len(index)) * layout.shape[-1]
        else:
            table[:, c.ROW_NATURAL] = layout.natural_rows
        if number + 1 < len(self.layouts):
            coarser = self.layouts[number + 1]
            strides = np.array(coarser.row_strides, dtype=np.int64)
            table[:, c.ROW_CELL] = LANES + (index // 2 + BELOW) @ strides * coarser.natural_width
        return table

    def _targets(self, number: int) -> np.ndarray:
        """The rows of even points of a level, seen from the next coarser one; those at a seam are ghosts there."""
        finer, coarser = self.layouts[number], self.layouts[number + 1]
        outer = tuple((size + 1) // 2 for size in finer.shape[:-1])
        index = np.indices(outer).reshape(len(outer), -1).T if outer else np.zeros((1, 0), dtype=np.int64)
        table = np.zeros((len(index), c.ROW_COLUMNS), dtype=np.int64)
        strides = np.array(coarser.row_strides, dtype=np.int64)
        table[:, c.ROW_NATURAL] = LANES + (index + BELOW) @ strides * coarser.natural_width
        strides = np.array(finer.row_strides, dtype=np.int64)
        table[:, c.ROW_PARENT] = LANES + (2 * index + BELOW) @ strides * 2 * finer.half_width
        bits = 1 << np.arange(index.shape[1])
        table[:, c.ROW_ODD_EXISTS] = (2 * index + 1 < np.array(finer.shape[:-1], dtype=np.int64)) @ bits
        return table

    def _products(self, number: int) -> Iterator[tuple[int, int]]:
        """Where coefficients and iterates lie whose products make up a row of A x, relative to the row's own places.

        First of even points, then of odd ones: the diagonal, then both neighbours along each link.
        """
        layout, places = self.layouts[number], self.places[number]
        iterate = places.get("iterate", 0)
        for odd in (0, 1):
            yield places["diagonal"], iterate
            for index, offset in enumerate(layout.links):
                point = (0,) * (layout.dimensions - 1) + (odd,)
                ahead, behind = (
                    layout.split_position([i + sign * step for i, step in zip(point, offset, strict=True)])
                    - layout.split_position(point)
                    for sign in (1, -1)
                )
                link = places["links"] + index * layout.split_size
                yield link, iterate + ahead
                yield link + behind, iterate + behind

    def _add_transfers(
        self,
        number: int,
        relaxed: Sequence[int],
        transfers: list[tuple[int, int, int]],
        products: list[tuple[int, int]],
    ) -> None:
        """Restriction, then interpolation to each kind of point: what is multiplied, and where it lies."""
        layout, coarser, dimensions = self.layouts[number], self.layouts[number + 1], len(self.shape)
        residual, correction = self.places[number]["residual"], self.places[number + 1]["correction"]

        def has_residual(offset: Offset) -> bool:
            row = sum((step % 2) * 3**axis for axis, step in enumerate(offset[:-1]))
            return not (relaxed[row] >> offset[-1] % 2) & 1

        first = len(products)
        zero = (0,) * dimensions
        for u in self.weights:
            if has_residual(u):
                products.append((self.weight_place(number, u), residual + layout.split_position(u)))
        transfers.append((first, len(products), int(has_residual(zero))))
        for bits in range(2 ** (dimensions - 1)):
            for odd in (0, 1):
                first = len(products)
                between = [axis for axis in range(dimensions - 1) if (bits >> axis) & 1] + [dimensions - 1] * odd
                for corner in product((0, 1), repeat=len(between)):
                    # From coarse point I + corner the fine point lies at +1 or -1.
                    offset, coarse = [0] * dimensions, [0] * dimensions
                    for axis, side in zip(between, corner, strict=True):
                        offset[axis], coarse[axis] = 1 - 2 * side, side
                    if between:
                        position = coarser.natural_position(coarse)
                        products.append((self.weight_place(number, tuple(offset)) + position, correction + position))
                transfers.append((first, len(products), 0))

    def _programs(
        self,
        number: int,
        own: list[Colour],
        exact: bool,
        first_colour: int,
        first_line_row: list[int],
        phases: list[tuple[int, ...]],
    ) -> dict[str, tuple[int, int]]:
        """Phases of going down from zero, going down from what is there, and going up."""
        layout = self.layouts[number]
        rest = first_colour + len(own)
        finest = number == 0
        around = any(layout.periodic)
        in_order = around or any(colour.axis is not None for colour in own)

        def relax(k: int) -> list[tuple[int, ...]]:
            axis = own[k].axis
            fill = [(c.FILL_ITERATE, EVERYWHERE)] if around else []
            if axis is None:
                return [(c.RELAX, first_colour + k), *fill]
            step = tuple(int(other == axis) for other in range(layout.dimensions))
            within = axis == layout.dimensions - 1
            line = (
                c.LINES_WITHIN_ROWS if within else c.LINES_ACROSS_ROWS,
                first_colour + k,
                0,
                self.places[number][f"pivots {axis}"],
                layout.links.index(step),
                0 if within else layout.row_strides[axis] * 2 * layout.half_width,
                layout.shape[axis],
                first_line_row[axis],
                len(_line_starts(layout, axis)),
                self.places[number].get(f"closure {axis}", 0),
            )
            return [line, *fill]

        def sweeps(count: int, order: range) -> list[tuple[int, ...]]:
            return [phase for _ in range(count) for k in order for phase in relax(k)]

        colours = range(len(own))
        residual = [(c.SUBTRACT, rest), *([(c.FILL_RESIDUAL, EVERYWHERE)] if around else []), (c.RESTRICT, EVERYWHERE)]
        if any(layout.folds):
            residual.append((c.FOLD, EVERYWHERE))
        pre = sweeps(self.presweeps, colours)
        start: list[tuple[int, ...]] = [(c.LOAD_INPUT if finest else c.LOAD, EVERYWHERE)]
        # The black points of a red-black sweep look at red ones alone, so nothing needs to be zero before it.
        if not exact or self.smoothers[number] != RED_BLACK:
            start.append((c.CLEAR, EVERYWHERE))
            if around:
                start.append((c.FILL_ITERATE, EVERYWHERE))
        if own[0].axis is None:
            start.append((c.DIVIDE, first_colour))
            pre_from_zero = ([(c.FILL_ITERATE, EVERYWHERE)] if around else []) + pre[len(relax(0)) :]
        else:
            pre_from_zero = pre
        interpolate = [(c.FILL_CORRECTION, EVERYWHERE)] if around else []
        interpolate.append((c.PROLONG, rest if self.postsweeps else EVERYWHERE))
        if around:
            interpolate.append((c.FILL_ITERATE, EVERYWHERE))
        store = (c.STORE_OUTPUT if finest else c.STORE, EVERYWHERE)
        lists = {
            "down from zero": [*start, *pre_from_zero, *residual],
            "down": [*pre, *residual],
            "up": [*interpolate, *sweeps(self.postsweeps, colours[::-1]), store],
        }
        spans = {}
        _, slabs = _slabs(layout)
        for name, listed in lists.items():
            first, delay = len(phases), 0
            for index, phase in enumerate(listed):
                if index:
                    if in_order:
                        delay += slabs
                    elif phase[0] in (c.RELAX, c.SUBTRACT):
                        delay += 1  # needs the next slab of its predecessor
                row = (*phase, *(0,) * (_PHASE_COLUMNS - len(phase)))
                phases.append((row[0], row[1], delay, *row[3:]))
            spans[name] = (first, len(phases))
        return spans

    def _steps(self, programs: list[dict[str, tuple[int, int]]]) -> Iterator[tuple[int, int, int]]:
        """(level, first phase, end of phases) in order; no phases for the coarsest solve."""
        coarsest = len(self.layouts) - 1

        def visit(level: int, name: str) -> Iterator[tuple[int, int, int]]:
            if level == coarsest:
                yield (level, 0, 0)
                return
            yield (level, *programs[level][name])
            yield from visit(level + 1, "down from zero")
            if self.cycle == "W" and level + 1 < coarsest:
                yield from visit(level + 1, "down")
            yield (level, *programs[level]["up"])

        yield from visit(0, "down from zero")

    @cached_property
    def coarsest_positions(self) -> np.ndarray:
        """Positions of the coarsest points in their natural field, C order."""
        layout = self.layouts[-1]
        if len(self.layouts) == 1:
            return np.arange(layout.points)
        return layout.natural_array(np.arange(layout.natural_size))[layout.inside].ravel()

    @cached_property
    def coarsest_entries(self) -> tuple[np.ndarray, np.ndarray]:
        """Flat indices of the entries of the coarsest operator as a dense matrix, and their positions in the arena."""
        level = len(self.layouts) - 1
        layout = self.layouts[level]
        index = np.arange(layout.points).reshape(layout.shape)
        place = layout.join(np.arange(layout.split_size))
        entries, positions = [], []
        axes = range(layout.dimensions)
        for field, offset in enumerate([(0,) * layout.dimensions, *layout.links]):
            neighbour = np.roll(index, [-step for step in offset], axis=axes)
            position = (self.places[level]["diagonal"] + field * layout.split_size + place).ravel()
            entries.append(index.ravel() * layout.points + neighbour.ravel())
            positions.append(position)
            if field:
                entries.append(neighbour.ravel() * layout.points + index.ravel())
                positions.append(position)
        return np.concatenate(entries), np.concatenate(positions)


def _slabs(layout: LevelLayout) -> tuple[int, int]:
    """Indices of the first axis in a slab, an even number, and the number of slabs.

    Five to ten fields of a few slabs should fit into the second-level cache, half a megabyte or more.
    """
    if layout.dimensions == 1:
        return 2, 1
    thickness = max(2, 2 * round(_SLAB_POINTS / (2 * math.prod(layout.shape[1:]))))
    return thickness, -(-layout.shape[0] // thickness)


def _line_starts(layout: LevelLayout, axis: int) -> np.ndarray:
    """The rows with which lines along an axis begin."""
    if axis == layout.dimensions - 1:
        return np.arange(len(layout.row_indices))
    return np.flatnonzero(layout.row_indices[:, axis] == 0)


@lru_cache(maxsize=32)
def plan(
    shape: tuple[int, ...],
    periodic: tuple[bool, ...],
    links: tuple[Offset, ...],
    smoothers: tuple[Smoother, ...],
    cycle: Literal["V", "W"],
    presweeps: int,
    postsweeps: int,
    folded: bool = True,
) -> Plan:
    """The plan for these parameters; systems of one kind share it."""
    return Plan(shape, periodic, links, smoothers, cycle, presweeps, postsweeps, folded)
