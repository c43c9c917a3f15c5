"""Black-box multigrid as a preconditioner.

Sources: R. E. Alcouffe, A. Brandt, J. E. Dendy, J. W. Painter, The multi-grid method for the diffusion equation with
strongly discontinuous coefficients, SIAM J. Sci. Stat. Comput. 2 (1981) 430; J. E. Dendy, Black box multigrid,
J. Comput. Phys. 48 (1982) 366; P. M. de Zeeuw, Matrix-dependent prolongations and restrictions in a blackbox multigrid
solver, J. Comput. Appl. Math. 33 (1990) 1.

Storage per unknown, in numbers of the cycle's precision: in two dimensions 5-point operators take 3 on the finest
level, 9-point ones 5 on the others; weights 2; the workspace 3; a third more for the coarse levels: 11 in all. Work:
two passes over these, whatever the number of sweeps, which follow each other in the cache.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any, Literal, Self

import numpy as np
import scipy.sparse as sp

from solvers.detect import detect
from solvers.precondition.multigrid.colours import COLOURS, RED_BLACK, Smoother
from solvers.precondition.multigrid.hierarchy import (
    Hierarchy,
    coarsen,
    coarsest_inverse,
    done_with,
    empty_arena,
    factor,
    fill_interpolation,
    fill_operator,
    operator_stencil,
)
from solvers.precondition.multigrid.layout import Offset, descend, forward
from solvers.precondition.multigrid.operator import SymmetricStencil
from solvers.precondition.multigrid.schedule import Plan, plan
from solvers.precondition.protocol import preconditioners
from solvers.stencil import StencilOperator
from solvers.system import System

COARSEST = 40  # unknowns that a dense inverse solves in a microsecond
_SMOOTHERS = ("point", RED_BLACK, COLOURS)
_LARGEST_COARSEST = 2000  # unknowns for which it is still worth having


@preconditioners.register("multigrid")
class Multigrid:
    r"""One cycle of black-box multigrid for an operator on a structured grid.

    Interpolation follows the coefficients of A, jumps and all; the coarse operators are :math:`P^T A P`; smoothing is
    Gauss-Seidel by colours (red-black where the stencil allows it, :math:`2^d` colours elsewhere), or by lines where A
    couples one axis much more strongly. Smoothing after the correction takes the colours in the opposite order, so that
    the cycle is a symmetric positive definite operator for such an A: `cg` may use it.

    Any number of points per axis, any boundary condition, masks, one to three dimensions and more. Of a nonsymmetric A
    the symmetric part is used.

    Parameters
    ----------
    smoother : "auto", "point", or tuple of int
        "auto" looks at A: lines along the axes that couple more than 4 times as strongly as the weakest at more than a
        tenth of the points, points otherwise. A tuple names the axes along which to relax lines, one after the other.
    cycle : "V" or "W"
    presweeps, postsweeps : int, optional
        Sweeps before (at least one) and after the coarse correction. The cycle is symmetric if they are equal. Default:
        two of points, which stay in the cache for the second one, and one of lines.
    dtype : "float32" or "float64"
        Precision of the cycle. Single precision halves the memory traffic and costs no iterations: A, x and the
        residual keep their own. The set-up is in single precision too where that is known to cost nothing (no lines,
        islands of high contrast or floating constants, see `_is_easy`), otherwise in double.

    Attributes
    ----------
    shape, dtype, symmetric, positive
        See `Preconditioner`. `dtype` is that of A.
    operators : list of StencilOperator
        The operators of all levels, finest first.
    interpolations : list of csr_array
        From each level but the finest to the next finer.
    smoothers : list
        What smooths each level but the coarsest: "red-black", "colours", or the axes of lines.

    Raises
    ------
    ValueError
        For unknown parameters; in `setup`, if A is no operator on a structured grid, reaches further than one point, or
        has a diagonal that is not positive.
    TypeError
        In `setup`, if A is complex.

    Notes
    -----
    With each V(1,1)-cycle for Poisson the A-norm of the error falls to 0.25 (two dimensions) or 0.43 (three), with each
    V(2,2)-cycle to 0.08 or 0.11: on nodes with Dirichlet conditions, on cells of an odd number, and around periodic
    axes, whatever the size. On cells of an even number, where the last one has a coarse neighbour on one side only, it
    falls to 0.35 or 0.51. One dimension is solved exactly.

    The seam of a periodic axis of an odd number of points, where two even ones are neighbours, has colours of its own.
    If the coarser grids are odd too, its two points become one before they couple strongly. The rate stays that of even
    sizes.

    If in three dimensions A couples two axes strongly and the third weakly, lines along the two are relaxed in turn;
    the number of iterations then grows with the size (24 at 24^3, 43 at 40^3 for a ratio of 1000), for want of
    relaxation by planes. Masks with features a point or two wide (random holes, thin insulated channels) cost
    iterations too.

    An object holds its workspace: use one for each thread.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import cg, gallery
    >>> A = gallery.diffusion(gallery.jumps((150, 201), contrast=1e4))
    >>> M = Multigrid().setup(A)
    >>> result = cg(A, np.ones(A.shape[0]), rtol=1e-8, M=M)
    >>> result.converged, result.iterations <= 8
    (True, True)
    >>> print(M)
    Multigrid for the grid 150 x 201: V(2,2)-cycle in float32, 6 levels down to 5 x 7, red-black and 4-colour
    Gauss-Seidel, operator complexity 1.6, symmetric positive definite
    """

    setup_applies = 8.0  # the cost of a set-up in applications, for `Lagged`

    def __init__(
        self,
        smoother: Literal["auto", "point"] | Sequence[int] = "auto",
        cycle: Literal["V", "W"] = "V",
        presweeps: int | None = None,
        postsweeps: int | None = None,
        dtype: Literal["float32", "float64"] = "float32",
    ) -> None:
        if isinstance(smoother, str) and smoother not in ("auto", "point"):
            raise ValueError(f"smoother: expected 'auto', 'point' or a tuple of axes, got {smoother!r}")
        if cycle not in ("V", "W"):
            raise ValueError(f"cycle: expected 'V' or 'W', got {cycle!r}")
        if (presweeps is not None and presweeps < 1) or (postsweeps is not None and postsweeps < 0):
            raise ValueError(
                f"presweeps, postsweeps: expected at least one sweep before and none or more after the coarse "
                f"correction, got {presweeps} and {postsweeps}"
            )
        if np.dtype(dtype).char not in "fd":
            raise ValueError(f"dtype: expected 'float32' or 'float64', got {dtype!r}")
        self.smoother: str | tuple[int, ...] = smoother if isinstance(smoother, str) else tuple(smoother)
        self.cycle = cycle
        self.presweeps, self.postsweeps = presweeps, postsweeps
        self.precision = np.dtype(dtype)
        self.shape: tuple[int, int] | None = None
        self.dtype: np.dtype = np.dtype(float)
        self.symmetric = False
        self.positive = False
        self._hierarchy: Hierarchy | None = None
        self._finest: StencilOperator | None = None

    # -- Set-up -----------------------------------------------------------------------------------------------------

    def setup(self, A: Any) -> Self:
        """Build the hierarchy for A: a StencilOperator, or a sparse matrix in which one can be recognised."""
        operator = _as_stencil(A)
        if not operator.row_sums.finite and not np.isfinite(operator.coefficients).all():
            raise ValueError("A: holds NaN or infinity; look at what its coefficients were made of")
        stencil = SymmetricStencil.of(operator)
        smoother = self._smoother_for(operator, stencil)
        shapes = _shapes(stencil.shape, stencil.periodic)
        chosen = self._plan(stencil, [smoother] * (len(shapes) - 1))
        if self.precision == np.float32 and smoother == "point" and _is_easy(operator, stencil):
            arena = self._coarsen(stencil, chosen, np.dtype(np.float32))
            if isinstance(arena, np.ndarray):
                inverse, smallest, held = coarsest_inverse(chosen, arena)
                if held >= _FIRMLY:
                    return self._finish(operator, stencil, chosen, arena, inverse, smallest)
        arena = self._coarsen(stencil, chosen, np.dtype(np.float64))
        if isinstance(arena, str):
            raise ValueError(arena)
        return self._finish(operator, stencil, chosen, arena, *coarsest_inverse(chosen, arena)[:2])

    def _smoother_for(self, operator: StencilOperator, stencil: SymmetricStencil) -> Smoother:
        """What to relax: what was asked for, or what A needs."""
        return (stencil.strong_axes or "point") if self.smoother == "auto" else self.smoother

    def _coarsen(self, stencil: SymmetricStencil, chosen: Plan, dtype: np.dtype) -> np.ndarray | str:
        """An arena with the operators and weights of all levels; what is wrong with A, if it is not definite."""
        arena = empty_arena(chosen, dtype, scratch=dtype != self.precision)
        fill_operator(chosen, arena, 0, stencil.diagonal, stencil.links, stencil.scale)
        for level, layout in enumerate(chosen.layouts[1:]):
            smallest = self._next_level(chosen, arena, level)
            if not smallest > 0:
                return (
                    f"A: is not positive definite: the coarse operator on {_times(layout.shape)} points has a "
                    f"diagonal entry of {smallest / stencil.scale:.3e}; use 'direct', or GMRES with ILU"
                )
        return arena

    def _next_level(self, chosen: Plan, arena: np.ndarray, level: int) -> float:
        """Interpolation to a level and the operator of the next; its smallest diagonal entry."""
        return coarsen(chosen, arena, level)

    @classmethod
    def from_levels(
        cls,
        operators: Sequence[StencilOperator],
        interpolations: Sequence[Any],
        smoothers: Sequence[Smoother] | None = None,
        **parameters: Any,
    ) -> "Multigrid":
        """Run the same cycle on levels made elsewhere: other coarse operators, other (learned) interpolation.

        Parameters
        ----------
        operators : sequence of StencilOperator
            Finest first. The coarse points are those with even indices: each shape is half the one before, rounded up.
        interpolations : sequence of sparse matrices, shapes (n_level, n_level + 1)
            Each coarse point keeps its value, and other points take theirs from the coarse points next to them.
        smoothers : sequence, optional
            For each level but the coarsest "point", "red-black", "colours", or a tuple of axes for lines; "point"
            everywhere if None.
        **parameters
            `cycle`, `presweeps`, `postsweeps`, `dtype` of the class.

        Raises
        ------
        ValueError
            If the levels do not fit together.

        Examples
        --------
        >>> from solvers import gallery
        >>> M = Multigrid(dtype="float64").setup(gallery.poisson((40, 40)))
        >>> again = Multigrid.from_levels(M.operators, M.interpolations, M.smoothers, dtype="float64")
        >>> r = np.arange(1600.0)
        >>> bool(np.all(again.matvec(r) == M.matvec(r)))
        True
        """
        self = cls(**parameters)
        if not operators or len(interpolations) != len(operators) - 1:
            raise ValueError(
                f"interpolations: expected one between each two of the {len(operators)} operators, "
                f"got {len(interpolations)}"
            )
        # Flat axes vanish from the finest level; others may become flat on the way down, and stay.
        stencils = [SymmetricStencil.of(operator, flat_axes=level > 0) for level, operator in enumerate(operators)]
        first = stencils[0]
        for level, (stencil, (shape, _)) in enumerate(
            zip(stencils, descend(first.shape, first.periodic), strict=False)
        ):
            if stencil.shape != shape or stencil.periodic != first.periodic:
                raise ValueError(
                    f"operators: on level {level} below {_times(first.shape)} points expected {_times(shape)} with the "
                    f"same periodic axes, got {_times(stencil.shape)}"
                )
        names = ["point"] * len(interpolations) if smoothers is None else list(smoothers)
        if len(names) != len(interpolations):
            raise ValueError(
                f"smoothers: expected one for each of the {len(interpolations)} levels but the coarsest, "
                f"got {len(names)}"
            )
        chosen = self._plan(stencils[0], names)
        arena = empty_arena(chosen, np.dtype(np.float64), scratch=self.precision != np.float64)
        for level, stencil in enumerate(stencils):
            fill_operator(chosen, arena, level, stencil.diagonal, stencil.links, stencils[0].scale)
        for level, matrix in enumerate(interpolations):
            fill_interpolation(chosen, arena, level, matrix)
        return self._finish(operators[0], stencils[0], chosen, arena, *coarsest_inverse(chosen, arena)[:2])

    def _plan(self, stencil: SymmetricStencil, smoothers: Sequence[Smoother]) -> Plan:
        """The plan of this stencil's hierarchy, "point" made precise."""
        return _chosen(
            stencil.shape,
            stencil.periodic,
            tuple(stencil.links),
            tuple(smoothers),
            self.cycle,
            self.presweeps,
            self.postsweeps,
        )

    def _finish(
        self,
        operator: StencilOperator,
        stencil: SymmetricStencil,
        chosen: Plan,
        arena: np.ndarray,
        inverse: np.ndarray,
        smallest: float,
    ) -> Self:
        for level in range(len(chosen.layouts) - 1):
            factor(chosen, arena, level)
        self._z: np.ndarray | None = None
        self._hierarchy = Hierarchy.of(chosen, arena, inverse, stencil.scale, self.precision, self._hierarchy)
        done_with(chosen, arena, self.precision)
        self._finest = operator
        self.shape, self.dtype = operator.shape, operator.dtype
        self.symmetric = chosen.presweeps == chosen.postsweeps
        self.positive = self.symmetric and smallest >= 0
        # Only then are constants taken out: the cycle would leave them to the smoother, whose rounding piles them up.
        self._constants = smallest == 0 and _annihilates_constants(operator)
        return self

    # -- Use --------------------------------------------------------------------------------------------------------

    def matvec(self, r: np.ndarray) -> np.ndarray:
        """One cycle on ``A z = r`` from zero, shape ``(n,)``; a fresh array of A's dtype."""
        hierarchy, operator = self._ready()
        field = np.asarray(r, dtype=self.dtype).reshape(-1)
        if self._constants:
            field = field - field.mean()
        if operator.mask is not None:
            field = operator.to_field(field).reshape(-1)
        z = np.empty(field.size, dtype=self.precision)
        factor, _ = hierarchy.apply(np.ascontiguousarray(field, dtype=np.float64), z)
        z = z.astype(self.dtype) if factor == 1 else (factor * z.astype(np.float64)).astype(self.dtype)
        if operator.mask is not None:
            z = operator.to_vector(z.reshape(operator.grid_shape))
        if self._constants:
            z -= z.mean()
        return z

    def matvec_and_product(self, r: np.ndarray, norm: float) -> tuple[np.ndarray, float]:
        """z = M r in the precision of the cycle, to be used before the next call, and r'z: two passes less for `cg`.

        `norm` is that of r.
        """
        hierarchy, operator = self._ready()
        if operator.mask is not None or self._constants or r.dtype != np.float64:
            z = self.matvec(r)
            return z, float(np.vdot(r, z))
        if self._z is None:
            self._z = np.empty(r.size, dtype=hierarchy.arena.dtype)
        factor, product = hierarchy.apply(r, self._z, norm)
        return (self._z if factor == 1 else factor * self._z.astype(np.float64)), product

    def _ready(self) -> tuple[Hierarchy, StencilOperator]:
        if self._hierarchy is None or self._finest is None:
            raise ValueError("this Multigrid has no matrix yet: call setup(A) first")
        return self._hierarchy, self._finest

    @property
    def operators(self) -> list[StencilOperator]:
        hierarchy, finest = self._ready()
        coarse = range(1, len(hierarchy.plan.layouts))
        return [finest, *(operator_stencil(hierarchy, level, finest) for level in coarse)]

    @property
    def interpolations(self) -> list[sp.csr_array]:
        hierarchy, _ = self._ready()
        return [hierarchy.interpolation(level) for level in range(len(hierarchy.plan.layouts) - 1)]

    @property
    def smoothers(self) -> list[Smoother]:
        return list(self._ready()[0].plan.smoothers)

    def __str__(self) -> str:
        if self._hierarchy is None or self._finest is None:
            return f"Multigrid ({self.cycle}-cycle in {self.precision}, smoother {self.smoother!r}), not set up"
        chosen = self._hierarchy.plan
        kind = f"{self.cycle}({chosen.presweeps},{chosen.postsweeps})-cycle in {self.precision}"
        sizes = [layout.points for layout in chosen.layouts]
        entries = [size * (2 * len(layout.links) + 1) for size, layout in zip(sizes, chosen.layouts, strict=True)]
        names = {RED_BLACK: "red-black", COLOURS: f"{2 ** len(chosen.shape)}-colour"}
        points = [names[s] for s in dict.fromkeys(chosen.smoothers) if isinstance(s, str)]
        lines = [
            f"zebra line Gauss-Seidel along {'axis' if len(s) == 1 else 'axes'} {', '.join(map(str, s))}"
            for s in dict.fromkeys(chosen.smoothers)
            if not isinstance(s, str)
        ]
        smoothing = ([f"{' and '.join(points)} Gauss-Seidel"] if points else []) + lines
        definite = "symmetric positive definite" if self.positive else "symmetric" if self.symmetric else "nonsymmetric"
        return (
            f"Multigrid for the grid {_times(chosen.shape)}: {kind}, {len(sizes)} level{'s' * (len(sizes) > 1)} down "
            f"to {_times(chosen.layouts[-1].shape)}, {', '.join(smoothing) or 'solved directly'}, operator complexity "
            f"{sum(entries) / entries[0]:.1f}, {definite}{', constants projected out' if self._constants else ''}"
        )


# A set-up in single precision errs by some 1e-6 of the diagonal in the energy of what is smooth, or constant on an
# island. It serves where these energies are well above that: where no diagonal entry is this many times another,
_CONTRAST = 1e4
# and the constants are held by the sides or by a reaction: their energy is at least this part of the trace.
_HELD = 1e-4
# A block held by the sides may make up for an island in that sum. An island shows on the coarsest grid, where less than
# this part of its diagonal is not balanced by its neighbours: 0.3 to 0.8 without islands, below 0.01 where their energy
# had come out up to 70 % wrong and cost two iterations.
_FIRMLY = 0.02
# In one dimension, which a set-up in double precision solves but for the rounding of the cycle, it would cost one or
# two iterations of three.


def _is_easy(A: StencilOperator, stencil: SymmetricStencil) -> bool:
    """Whether a set-up in single precision, which takes half the time, makes as good a hierarchy."""
    if A.mask is not None or not stencil.symmetric or any(A.periodic) or not A.row_sums.finite:
        return False
    if len(stencil.shape) == 1:
        return False
    diagonal = stencil.diagonal
    trace = float(diagonal.sum())
    return stencil.largest <= _CONTRAST * stencil.smallest and A.row_sums.total >= _HELD * trace


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _as_stencil(A: Any) -> StencilOperator:
    """A as a StencilOperator, recognised in a sparse matrix where need be."""
    if isinstance(A, StencilOperator):
        return A
    system = System.of(A)
    if system.stencil is not None:
        return system.stencil
    found = detect(system.matrix) if sp.issparse(system.matrix) else None
    if found is None:
        raise ValueError(
            "A: multigrid needs an operator on a structured grid, and none was recognised in "
            f"{type(system.original).__name__} of shape {system.shape}; make it a StencilOperator "
            "(StencilOperator.from_csr, if you know the shape of the grid), or choose M='amg'"
        )
    return found


@lru_cache(maxsize=64)
def _shapes(grid: tuple[int, ...], periodic: tuple[bool, ...]) -> list[tuple[int, ...]]:
    """Shapes of all levels, finest first. A periodic axis keeps two points, or they would be their own neighbours."""
    shapes: list[tuple[int, ...]] = []
    for shape, _ in descend(grid, periodic):
        if any(around and size < 2 for around, size in zip(periodic, shape, strict=True)):
            break
        shapes.append(shape)
        if prod(shape) <= COARSEST:
            break
    if prod(shapes[-1]) > _LARGEST_COARSEST:
        raise ValueError(
            f"A: the grid {_times(grid)} is too thin to coarsen: {_times(shapes[-1])} points are left when "
            "its periodic axis has two; choose M='amg'"
        )
    return shapes


@lru_cache(maxsize=64)
def _chosen(
    shape: tuple[int, ...],
    periodic: tuple[bool, ...],
    offsets: tuple[Offset, ...],
    smoothers: tuple[Smoother, ...],
    cycle: Literal["V", "W"],
    presweeps: int | None,
    postsweeps: int | None,
) -> Plan:
    """See `Multigrid._plan`."""
    links: tuple[Offset, ...] = forward(offsets)
    compact = all(sum(map(abs, offset)) == 1 for offset in links)
    precise: list[Smoother] = []
    for level, smoother in enumerate(smoothers):
        five_point = compact and level == 0
        precise.append((RED_BLACK if five_point else COLOURS) if smoother == "point" else smoother)
        axes = () if isinstance(smoother, str) else smoother
        if not set(axes) <= set(range(len(shape))) or (not axes and smoother not in _SMOOTHERS):
            raise ValueError(
                f"smoother: expected one of {_SMOOTHERS} or a tuple of axes between 0 and {len(shape) - 1}, "
                f"got {smoother!r}"
            )
        if precise[-1] == RED_BLACK and not five_point:
            raise ValueError(
                f"smoothers: level {level} couples diagonal neighbours, which red-black relaxation gives the same "
                "colour; use 'point' or 'colours'"
            )
    usual = 2 if all(isinstance(smoother, str) for smoother in precise) else 1
    before, after = (usual if sweeps is None else int(sweeps) for sweeps in (presweeps, postsweeps))
    return plan(shape, periodic, links, tuple(precise), cycle, before, after)


def _annihilates_constants(A: StencilOperator) -> bool:
    image = A @ np.ones(A.shape[1], dtype=A.dtype)
    return bool(np.max(np.abs(image)) <= 100 * np.finfo(A.dtype).eps * np.max(np.abs(A.coefficients)))
