r"""Black-box multigrid in torch, differentiable to the last weight: what the learned interpolation is trained through.

The same cycle as `solvers.Multigrid` with points relaxed in colours, for batches of two-dimensional systems: same
levels, same Galerkin operators, same order of colours. Fields are kept as their four colours, the points whose indices
have the same parities, each shape (batch, n / 2, m / 2) (grids of an odd number of points get one more that does not
exist, with a unit diagonal and no links): the neighbours of all points of a colour are then one shifted colour.

Sources: J. E. Dendy, Black box multigrid, J. Comput. Phys. 48 (1982) 366; see `solvers.precondition.multigrid`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce
from operator import add

import torch
import torch.nn.functional as F
from torch import Tensor

Offset = tuple[int, int]
Colour = tuple[int, int]
Fields = dict[Colour, Tensor]
Stencil = dict[Offset, Tensor]

OFFSETS: list[Offset] = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
CENTRE: Offset = (0, 0)
COLOURS: list[Colour] = [(0, 0), (1, 0), (0, 1), (1, 1)]
RED_BLACK = [[(0, 0), (1, 1)], [(1, 0), (0, 1)]]
FOUR = [[colour] for colour in COLOURS]
COARSEST = 40  # unknowns, as in `solvers.Multigrid`
_NO_ROW_SUM = 450.0  # eps, as there


def summed(terms: Iterable[Tensor]) -> Tensor:
    """Their sum; there is at least one."""
    return reduce(add, terms)


def shifted(field: Tensor, step: Offset) -> Tensor:
    """``field[I + step]``, zero beyond the grid; steps of -1, 0 and 1."""
    if step == CENTRE:
        return field
    h, w = field.shape[-2:]
    return F.pad(field, (1, 1, 1, 1))[..., 1 + step[0] : 1 + step[0] + h, 1 + step[1] : 1 + step[1] + w]


def neighbour(fields: Fields, colour: Colour, offset: Offset) -> Tensor:
    """The values of a field at the points of a colour plus an offset."""
    a, b = colour[0] + offset[0], colour[1] + offset[1]
    return shifted(fields[a % 2, b % 2], (a // 2, b // 2))


def split(field: Tensor) -> Fields:
    """The four colours of a field of even sides."""
    return {(a, b): field[..., a::2, b::2] for a, b in COLOURS}


def join(fields: Fields) -> Tensor:
    """Their field."""
    h, w = fields[CENTRE].shape[-2:]
    rows = [torch.stack([fields[a, 0], fields[a, 1]], dim=-1).flatten(-2) for a in (0, 1)]
    return torch.stack(rows, dim=-2).reshape(*fields[CENTRE].shape[:-2], 2 * h, 2 * w)


@dataclass
class Level:
    """One level: its operator by colours, its interpolation by the place of a fine point beside its coarse one.

    Attributes
    ----------
    operator : dict of colour -> dict of offset -> Tensor
    weights : dict of offset u -> Tensor, shape (batch, h, w)
        With which the fine points ``2 I + u`` take the correction of the coarse point I.
    order : list of lists of colours
        What is relaxed at once, one after the other.
    """

    operator: dict[Colour, Stencil]
    weights: Stencil
    order: list[list[Colour]]

    def relax(self, x: Fields, b: Fields, order: list[list[Colour]]) -> Fields:
        """Gauss-Seidel in the given order."""
        x = dict(x)
        for colours in order:
            # Points of one group do not see each other: all may be relaxed from the same iterate.
            x.update({q: (b[q] - self.links_times(x, q)) / self.operator[q][CENTRE] for q in colours})
        return x

    def links_times(self, x: Fields, colour: Colour) -> Tensor:
        """What the neighbours of the points of a colour contribute to their rows of A x."""
        stencil = self.operator[colour]
        return summed(stencil[o] * neighbour(x, colour, o) for o in stencil if o != CENTRE)

    def residual(self, x: Fields, b: Fields) -> Fields:
        """b - A x."""
        return {q: b[q] - self.links_times(x, q) - self.operator[q][CENTRE] * x[q] for q in x}

    def restrict(self, r: Fields) -> Tensor:
        """P' r."""
        return r[CENTRE] + summed(w * neighbour(r, CENTRE, u) for u, w in self.weights.items())

    def interpolate(self, e: Tensor) -> Fields:
        """P e."""
        fine = {CENTRE: e}
        products = {u: w * e for u, w in self.weights.items()}
        for colour in COLOURS[1:]:
            fine[colour] = summed(
                shifted(field, ((colour[0] - u[0]) // 2, (colour[1] - u[1]) // 2))
                for u, field in products.items()
                if (u[0] % 2, u[1] % 2) == colour
            )
        return fine


@dataclass
class Hierarchy:
    """All levels of a batch of systems, and the inverse of the coarsest operators, shape (batch, n, n)."""

    levels: list[Level]
    coarsest: Tensor
    shape: tuple[int, int]

    def apply(self, r: Tensor, sweeps: int = 2, visits: int = 1) -> Tensor:
        """One symmetric cycle from zero for residuals of shape (batch, \\*grid); V for one visit, W for two."""

        def cycle(level: int, b: Tensor, x: Tensor | None) -> Tensor:
            if level == len(self.levels):
                return torch.einsum("bij,bj->bi", self.coarsest, b.flatten(1)).reshape(b.shape)
            at = self.levels[level]
            n, m = b.shape[-2:]
            even = (0, m % 2, 0, n % 2)
            right = split(F.pad(b, even))
            now = {q: torch.zeros_like(v) for q, v in right.items()} if x is None else split(F.pad(x, even))
            for _ in range(sweeps):
                now = at.relax(now, right, at.order)
            coarse = at.restrict(at.residual(now, right))
            e = cycle(level + 1, coarse, None)
            for _ in range(visits - 1 if level + 1 < len(self.levels) else 0):
                e = cycle(level + 1, coarse, e)
            now = {q: now[q] + step for q, step in at.interpolate(e).items()}
            for _ in range(sweeps):
                now = at.relax(now, right, at.order[::-1])
            return join(now)[..., :n, :m]

        return cycle(0, r, None)


def hierarchy(
    stencils: Tensor,
    correct: Callable[["dict[Colour, Stencil]", Colour, Stencil], Stencil] | None = None,
    correct_operator: Callable[[Stencil], Stencil] | None = None,
    coarsest: int = COARSEST,
) -> Hierarchy:
    """Build all levels for stencils of shape (batch, 9, \\*grid), offsets in the order of `OFFSETS`.

    `correct` may change the weights of the fine points of each colour, `correct_operator` each coarse operator.
    Grids of at most `coarsest` points are solved exactly.
    """
    shape = (int(stencils.shape[-2]), int(stencils.shape[-1]))
    levels: list[Level] = []
    field = stencils
    while field.shape[-2] * field.shape[-1] > coarsest:
        n, m = field.shape[-2:]
        field = F.pad(field, (0, m % 2, 0, n % 2))
        compact = not levels and bool((field[:, [0, 2, 6, 8]] == 0).all())
        kept = [o for o in OFFSETS if not compact or 0 in o]
        operator = {q: {o: field[:, OFFSETS.index(o), q[0] :: 2, q[1] :: 2] for o in kept} for q in COLOURS}
        weights = interpolation(operator, correct)
        coarse = galerkin(operator, weights)
        if correct_operator is not None:
            coarse = correct_operator(coarse)
        for stencil in operator.values():
            d = stencil[CENTRE]
            stencil[CENTRE] = torch.where(d == 0, torch.ones_like(d), d)
        levels.append(Level(operator, weights, RED_BLACK if compact else FOUR))
        field = torch.stack([coarse[o] for o in OFFSETS], dim=1)
    return Hierarchy(levels, torch.linalg.inv(dense(field)), shape)


def dense(field: Tensor) -> Tensor:
    """The matrices of small stencils, shape (batch, n, n); points that do not exist get a unit diagonal."""
    batch, _, n, m = field.shape
    index = torch.arange(n * m).reshape(n, m)
    matrix = field.new_zeros(batch, n * m, n * m)
    for k, (i, j) in enumerate(OFFSETS):
        at = (slice(max(0, -i), n - max(0, i)), slice(max(0, -j), m - max(0, j)))
        to = (slice(max(0, i), n - max(0, -i)), slice(max(0, j), m - max(0, -j)))
        matrix[:, index[at].flatten(), index[to].flatten()] = field[(slice(None), k, *at)].flatten(1)
    empty = (torch.diagonal(matrix, dim1=1, dim2=2) == 0).to(matrix.dtype)
    return matrix + torch.diag_embed(empty)


# -- Set-up ----------------------------------------------------------------------------------------------------------


def interpolation(
    operator: dict[Colour, Stencil],
    correct: Callable[[dict[Colour, Stencil], Colour, Stencil], Stencil] | None = None,
) -> Stencil:
    """The weights of black-box multigrid, of points between two coarse ones first, then of those between four.

    The weight of the fine point ``2 I + u`` for the coarse point I, as `solvers.precondition.multigrid.galerkin` has
    it; `correct(operator, colour, sides)` may change them before they are used further.
    """
    placed: Stencil = {}
    for colour in COLOURS[1:]:
        stencil = operator[colour]
        lump = _lumped(stencil, colour)
        total, diagonal = summed(lump.values()), stencil[CENTRE]
        eps = torch.finfo(diagonal.dtype).eps
        lump = _mended(stencil, colour, lump, total, eps)
        safe = torch.where(lump[CENTRE] > _NO_ROW_SUM * eps * diagonal, lump[CENTRE], diagonal)
        divisor = torch.where(safe == 0, torch.full_like(safe, torch.inf), -safe)
        corners = [(i, j) for i in ((-1, 1) if colour[0] else (0,)) for j in ((-1, 1) if colour[1] else (0,))]
        weights: Stencil = {}  # of the coarse point at `corner`, seen from the fine point
        for corner in corners:
            top: Tensor | float = lump.get(corner, 0.0)
            for q in lump:
                if q not in (CENTRE, corner) and all(step in (0, end) for step, end in zip(q, corner, strict=True)):
                    # A neighbour between fewer coarse points, that takes its own share from this corner.
                    rest = (q[0] - corner[0], q[1] - corner[1])
                    place = ((colour[0] + corner[0]) // 2, (colour[1] + corner[1]) // 2)
                    top = top + lump[q] * shifted(placed[rest], place)
            weights[corner] = top / divisor
        if correct is not None:
            weights = correct(operator, colour, weights)
        for corner, w in weights.items():
            u = (-corner[0], -corner[1])
            # Stored with the coarse point: I = (point - u) / 2.
            placed[u] = shifted(w, (-(colour[0] - u[0]) // 2, -(colour[1] - u[1]) // 2))
    return placed


def _lumped(stencil: Stencil, colour: Colour) -> Stencil:
    """Coefficients summed up along the axes where the index of the point is even."""
    lump: Stencil = {}
    for o, a in sorted(stencil.items(), key=lambda item: item[0] != CENTRE):
        q = (o[0] * colour[0], o[1] * colour[1])
        lump[q] = lump[q] + a if q in lump else a
    return lump


def _mended(stencil: Stencil, colour: Colour, lump: Stencil, total: Tensor, eps: float) -> Stencil:
    """Next to a Dirichlet boundary along a lumped axis: the far links count more, see `galerkin`'s notes."""
    sides = [(axis, side) for axis in (0, 1) for side in (-1, 1)]
    there = {s: summed(a.detach().abs() for o, a in stencil.items() if o[s[0]] == s[1]) > 0 for s in sides}
    missing = summed((~here).to(torch.int8) for here in there.values())
    row_sum = torch.where(total.abs() > _NO_ROW_SUM * eps * stencil[CENTRE], total, torch.zeros_like(total))
    mended = dict(lump)
    for axis, side in sides:
        if colour[axis]:
            continue
        links = summed(a for o, a in stencil.items() if o[axis] == -side)
        here = (missing == 1) & ~there[axis, side] & (links < 0)
        surplus = torch.where(here, -row_sum / torch.where(here, links, torch.ones_like(total)), 0.0)
        for q in lump:
            members = [a for o, a in stencil.items() if o[axis] == -side and (o[0] * colour[0], o[1] * colour[1]) == q]
            new = mended[q] + surplus * summed(members) if members else mended[q]
            mended[q] = new if q != CENTRE else torch.where(new > 0, new, mended[q])
    return mended


def galerkin(operator: dict[Colour, Stencil], weights: Stencil) -> Stencil:
    r"""The coarse stencil :math:`P^T A P`: ``sum_u P[2I+u, I] sum_o A[2I+u, o] P[2I+u+o, I+O]``."""
    one = torch.ones_like(operator[CENTRE][CENTRE])
    everywhere = {**weights, CENTRE: one}
    # A of the points 2 I + u, seen from I.
    around = {
        u: {o: shifted(a, (u[0] // 2, u[1] // 2)) for o, a in operator[u[0] % 2, u[1] % 2].items()} for u in OFFSETS
    }
    coarse: Stencil = {}
    for big in OFFSETS:
        if big < CENTRE:
            continue
        entry: Tensor | float = 0.0
        for u, own in everywhere.items():
            part: Tensor | float = 0.0
            for o, a in around[u].items():
                v = (u[0] + o[0] - 2 * big[0], u[1] + o[1] - 2 * big[1])
                if max(map(abs, v)) <= 1:
                    part = part + (a if v == CENTRE else a * shifted(everywhere[v], big))
            entry = entry + own * part
        coarse[big] = entry  # type: ignore[assignment]
    for o in [o for o in OFFSETS if o > CENTRE]:
        back = (-o[0], -o[1])
        coarse[back] = shifted(coarse[o], back)
    return coarse
