"""`solve`: choose a method by what can be known cheaply, run it, verify, and fall back where the choice failed."""

from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from inspect import signature
from math import sqrt
from time import perf_counter
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import reverse_cuthill_mckee

from solvers.direct import direct
from solvers.krylov.bicgstab import bicgstab
from solvers.krylov.cg import cg
from solvers.krylov.controls import Callback, Controls, right_hand_side
from solvers.krylov.deflated_cg import deflated_cg
from solvers.krylov.flexible_cg import flexible_cg
from solvers.krylov.gcrodr import gcrodr
from solvers.krylov.gmres import gmres
from solvers.krylov.gmres_dr import gmres_dr
from solvers.krylov.minres import minres
from solvers.pieces import floating_pieces, null_vectors
from solvers.precondition import AMG, ILU, FastPoisson, Jacobi, Multigrid, preconditioners
from solvers.registry import Registry
from solvers.result import ConvergenceError, Result, Status
from solvers.stationary.chebyshev import chebyshev
from solvers.stationary.gauss_seidel import gauss_seidel
from solvers.stationary.jacobi import jacobi
from solvers.stationary.sor import sor
from solvers.stationary.ssor import ssor
from solvers.system import System

methods: Registry = Registry("method")
for method in (
    cg,
    flexible_cg,
    minres,
    gmres,
    gmres_dr,
    gcrodr,
    deflated_cg,
    bicgstab,
    jacobi,
    gauss_seidel,
    sor,
    ssor,
    chebyshev,
    direct,
):
    methods.register(method.__name__)(method)

# Sparse direct | the better of PyAMG's two hierarchies under our cg: set-up and one solve to rtol 1e-8, ms on one core
# (AMD EPYC; Darcy, coefficient 3 or 12 at random; benchmarks/crossover.py, benchmarks/results/crossover.json):
#     2D  64^2:  14 | 23    96^2:  22 | 31   128^2: 52 | 55   192^2: 136 | 107   256^2: 299 | 214
#     3D  10^3: 4.4 | 8.5   12^3: 8.1 | 11    14^3: 25 | 22    16^3:  42 | 27     20^3: 109 | 32
# They cross near n = 20,000 in 2D and 2,300 in 3D. Elimination in a band costs n w^2 with w the bandwidth: n^(1/2) in
# 2D, n^(2/3) in 3D or three quarters of that in the order of reverse Cuthill-McKee. That makes 4e8 and 0.4e8 to 0.7e8
# at the crossings. One number between them takes factors up to 10,000 unknowns in 2D and 3,400 in 3D, and is nowhere
# more than half slower than the better choice.
_DIRECT_PAYS = 1e8
# Black-box multigrid, where A has a grid of this many points, or more, is faster than both; on smaller ones the
# difference is a few milliseconds, for which its kernels, which compile once on a machine, are not worth waiting.
_SMALLEST_GRID = 3000
# With more right-hand sides than these the factors, made once, catch up where they pay at all.
_FACTORS_SHARED = 16
# Up to here a factorisation is affordable where nothing else works: 2D to a million unknowns, 3D to 130,000.
_DIRECT_POSSIBLE = 1e12
# An iterative method that has another one behind it gets no longer than this: with a hierarchy that fits the problem
# CG ends within some tens of iterations.
_PATIENCE = {"cg": 500, "gmres": 50}

# Systems that are not definite, seconds on the same core (benchmarks/which_solver.py). Factors of a matrix of n rows
# and bandwidth w take about 3.5e-6 n + 4e-9 w^3: ordering and bookkeeping, and elimination of the largest separator.
#     estimate | SuperLU   2D  128^2: 0.07 | 0.06   256^2: 0.30 | 0.28 to 0.49   3D  20^3: 0.28 | 0.26   30^3: 3.0 | 4.0
# Where the second term rules, as in 3D, a Krylov method without a hierarchy gets a quarter of the estimate as its
# chance (MINRES on Helmholtz 24^3: 0.03 against 0.38); one of its products takes about 2e-9 an entry of A, its vectors
# included.
_ORDERING_SECONDS, _SEPARATOR_SECONDS, _PRODUCT_SECONDS = 3.5e-6, 4e-9, 2e-9
# Of an M-matrix ILU(0) exists. BiCGSTAB with it | GMRES with AMG | factors, ms (convection-diffusion, cell Peclet
# numbers 0.01, 1 and 50, rtol 1e-8):
#      64^2:   5, 2, 1 | 7, 8, 6 | 7         128^2: 20, 8, 3 | 19, 24, 19 | 37       256^2: 149, 45, 10 | 63, 92, 69
#     512^2: 1968, 679, 79 | 312, 422, 344    20^3:  4, 2, 1 | 21, 16, 10 | 134      64^3: 516, 256, 69 | 934, 608, 363
# It wins while it takes less than some 60 iterations, which is what it gets.
_ILU_PAYS, _ILU_PATIENCE, _AMG_PAYS = 2_000, 60, 10_000

# With these another method may still find the solution.
_WORTH_ANOTHER = (
    Status.MAX_ITERATIONS,
    Status.STAGNATED,
    Status.BREAKDOWN,
    Status.INDEFINITE_PRECONDITIONER,
    Status.INDEFINITE_OPERATOR,
    Status.NONFINITE_OUTPUT,
)


def solve(
    A: Any,
    b: Any,
    method: str = "auto",
    *,
    x0: Any = None,
    rtol: float = 1e-5,
    atol: float = 0.0,
    maxiter: int | None = None,
    M: Any = None,
    callback: Callback | None = None,
    null_space: Any = None,
    time_limit: float | None = None,
    throw: bool = True,
) -> Result:
    r"""Solve ``A x = b`` and prove it.

    CONVERGED means that the true residual, recomputed from the x that is returned, satisfies

    .. math:: \|b - A x\|_2 \le \max(\mathrm{rtol}\,\|b\|_2, \mathrm{atol}).

    Parameters
    ----------
    A : array, sparse matrix or array, LinearOperator, StencilOperator or callable
        Shape (n, n).
    b : array, shape (n,) or (n, k)
        One or several right-hand sides.
    method : str
        "auto" or the name of a method ("cg", "minres", "gmres", "direct", ...; an unknown one lists them all), which
        then runs with its default parameters. "auto" looks at structure, symmetry, the sign of the diagonal and the
        size, says in ``reason`` what it chose and why, and tries the next best where the choice fails. It takes the
        constants as null space if A is symmetric and annihilates them.
    x0, rtol, atol, maxiter, callback, null_space, time_limit
        As for `cg`. "auto" applies maxiter to each method that it tries, and the time limit to all together.
    M : object or str, optional
        Approximate inverse of A: anything that `cg` takes, or the name of a registered preconditioner ("jacobi",
        "amg", "direct", or one from the entry points `southwell.preconditioners`).
    throw : bool
        Raise if the tolerance was not met; otherwise look at ``result.status`` yourself.

    Returns
    -------
    Result
        Products with A, seconds and iterations of all methods that were tried.

    Raises
    ------
    ConvergenceError
        If the tolerance was not met and `throw` is True; its ``result`` holds the best iterate.
    ValueError, TypeError
        If an argument has the wrong shape, type or range.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import gallery, solve
    >>> A = gallery.poisson((40, 40))
    >>> result = solve(A, np.ones(1600))
    >>> result.converged, result.method
    (True, 'direct')
    >>> solve(A, np.ones(1600), M="amg", rtol=1e-10).method
    'cg + AMG'
    """
    rhs = right_hand_side(b)
    controls = Controls(rtol, atol, maxiter, callback, time_limit)
    system = System.of(A, size=rhs.shape[0], dtype=rhs.dtype)
    if np.iscomplexobj(x0):
        system = System.of(system, dtype=np.complex64)
    if isinstance(M, str):
        M = preconditioners.build(M)
    if method == "auto":
        result = _auto(system, rhs, x0, controls, M, null_space)
    else:
        attempt = _Attempt(method, M, "")
        result = _run(attempt, system, rhs, x0, controls, null_space)
    if throw and not result.converged:
        raise ConvergenceError(result)
    return result


@dataclass
class _Attempt:
    """A method that may do, its preconditioner, and why it was chosen."""

    method: str
    M: Any
    why: str
    setup_seconds: float = 0.0  # spent on M already
    patience: int | None = None  # iterations, if it is only a try
    x0: str | None = None  # first guess where the user gives none

    @property
    def name(self) -> str:
        """As in `Result.method`."""
        return self.method if self.M is None else f"{self.method} + {type(self.M).__name__}"


def _run(
    attempt: _Attempt, system: System, b: np.ndarray, x0: Any, controls: Controls, null_space: Any, last: bool = True
) -> Result:
    maxiter = controls.maxiter
    if maxiter is None and not last:
        maxiter = attempt.patience or _PATIENCE.get(attempt.method)
    left = None if controls.time_limit is None else max(controls.deadline - perf_counter(), 1e-9)
    arguments: dict[str, Any] = {
        "rtol": controls.rtol,
        "atol": controls.atol,
        "maxiter": maxiter,
        "callback": controls.callback,
        "null_space": null_space,
        "time_limit": left,
    }
    run = methods[attempt.method]
    if _takes_preconditioner(run):
        arguments["M"] = attempt.M
    elif attempt.M is not None:
        raise ValueError(
            f"M: method={attempt.method!r} takes no preconditioner; leave M out, or choose 'cg' or 'gmres'"
        )
    return run(system, b, x0, **arguments)


@cache
def _takes_preconditioner(method: Any) -> bool:
    return "M" in signature(method).parameters


def _auto(
    system: System, b: np.ndarray, x0: Any, controls: Controls, M: Any, null_space: Any, whole: bool = False
) -> Result:
    """Try the methods of the plan in turn, each from the best iterate of those before it.

    If the first one fails, and A is not known to be `whole`, it is looked whether A has pieces that float.
    """
    result: Result | None
    reasons = []
    before = system.products
    no_pieces = whole or M is not None or null_space is not None
    if system.shape[0] >= _SMALLEST_GRID:
        system.look_for_grid()
    if not system.finite:
        attempts = [_Attempt("gmres", None, "A is not finite")]  # which names the fault without a computation
    elif M is None and system.maybe_negative_definite:
        result = _auto(system.negated(), -b, x0, controls, None, null_space)
        return replace(result, reason=f"A is symmetric with a negative diagonal, so -A x = -b; {result.reason}")
    else:
        if null_space is None and system.annihilates_constants and system.symmetric:
            null_space = "constant"
            reasons.append("A is symmetric and annihilates the constants, so they are its null_space")
        attempts = plan(system, 1 if b.ndim == 1 else b.shape[1], M)
    result = None
    setup_seconds = 0.0
    for position, attempt in enumerate(attempts):
        guess = attempt.x0 if x0 is None else x0
        current = _run(attempt, system, b, guess, controls, null_space, last=position == len(attempts) - 1)
        setup_seconds += attempt.setup_seconds
        reasons.append(f"{attempt.name}: {attempt.why}" + (f" [{current.reason}]" if current.reason else ""))
        result = current if result is None else joined(result, current)
        if result.status not in _WORTH_ANOTHER or perf_counter() > controls.deadline:
            break
        if result.status is Status.MAX_ITERATIONS and controls.maxiter is not None:
            break
        reasons.append(f"that ended as {result.status.name}")
        if position == 0 and not no_pieces:
            again = _in_pieces(system, b, x0, controls)
            if again is None and attempt.method == "direct":
                again = _without_null_vectors(system, b, x0, controls)
            if again is not None:
                reasons.append(again.reason)
                result = joined(result, again)
                break
        x0 = result.x
    assert result is not None  # every plan has an attempt
    return replace(
        result,
        reason="; ".join(reasons),
        matvecs=system.products - before,
        setup_seconds=result.setup_seconds + setup_seconds,
    )


_MOST_PIECES = 64  # that float and have more than one unknown: the null space is a dense array


def _in_pieces(system: System, b: np.ndarray, x0: Any, controls: Controls) -> Result | None:
    """Solve with the null space that the floating pieces of A span; None if there are none, or only A itself.

    Rows of zeros are left out: their unknowns are zero, and b there is outside the range of A.
    """
    A = system.matrix
    if not isinstance(A, sp.csr_array) or not system.finite or not system.symmetric:
        return None
    pieces = floating_pieces(A)
    zeros = np.array([piece[0] for piece in pieces if piece.size == 1], dtype=np.int64)
    larger = [piece for piece in pieces if piece.size > 1]
    if not pieces or len(larger) > _MOST_PIECES or pieces[0].size == A.shape[0]:
        return None
    null_space = np.zeros((A.shape[0], len(larger)))
    for column, piece in enumerate(larger):
        null_space[piece, column] = 1.0
    held, rest = np.zeros(A.shape[0]), b.copy()
    held[zeros], rest[zeros] = 1.0, 0
    guess = None if x0 is None else np.array(x0)
    if guess is not None:
        guess.reshape(A.shape[0], -1)[zeros] = 0
    without = System(sp.csr_array(A + sp.diags_array(held))) if zeros.size else system
    result = _auto(without, rest, guess, controls, None, null_space if larger else None, whole=True)
    reason = (
        f"A falls apart, and {len(pieces)} of its pieces float (symmetric, rows sum to zero, {zeros.size} of them rows "
        f"of zeros), which tells its null space; {result.reason}"
    )
    lost = np.linalg.norm(b.reshape(A.shape[0], -1)[zeros], axis=0)
    if not lost.any():
        return replace(result, reason=reason)
    # Each right-hand side by itself: what it has on rows of zeros, no x can reach.
    size = np.linalg.norm(b.reshape(A.shape[0], -1), axis=0)
    norms = np.hypot(result.residual_norms, lost)
    missed = lost > np.maximum(controls.rtol * size, controls.atol)
    statuses = tuple(
        Status.INCONSISTENT if is_missed and status is Status.CONVERGED else status
        for status, is_missed in zip(result.statuses, missed, strict=True)
    )
    return replace(
        result,
        status=Status.worst(list(statuses)),
        reason=f"{reason}; b is not zero on rows of zeros",
        statuses=statuses,
        residual_norms=norms,
        residual_norm=float(norms.max()),
    )


def _without_null_vectors(system: System, b: np.ndarray, x0: Any, controls: Controls) -> Result | None:
    """Solve with the null space that the factors of A show; None if they show none."""
    A = system.matrix
    if not isinstance(A, sp.csr_array) or not system.finite or not system.symmetric:
        return None
    basis = null_vectors(A)
    if basis is None:
        return None
    result = _auto(system, b, x0, controls, None, basis, whole=True)
    dimensions = f"{basis.shape[1]} dimension{'s' * (basis.shape[1] > 1)}"
    return replace(result, reason=f"inverse iteration shows a null space of {dimensions}; {result.reason}")


def joined(first: Result, second: Result) -> Result:
    """The second attempt, which began where the first one ended, with the work of both."""
    return replace(
        second,
        iterations=first.iterations + second.iterations,
        preconditioner_applies=first.preconditioner_applies + second.preconditioner_applies,
        history=np.concatenate([first.history, second.history[1:]]),
        setup_seconds=first.setup_seconds + second.setup_seconds,
        solve_seconds=first.solve_seconds + second.solve_seconds,
    )


def plan(system: System, columns: int, M: Any) -> list[_Attempt]:
    """What to try, best first."""
    n = system.shape[0]
    symmetric = system.symmetric
    kind = "symmetric" if symmetric else "not symmetric"
    if M is not None:
        why = f"M is given and A is {kind}"
        return ([_Attempt("cg", M, why)] if symmetric else []) + [_Attempt("gmres", M, why)]
    stencil = system.stencil
    exact = _exactly(system)
    if exact is not None:
        return [exact, _Attempt("gmres", exact.M, "needs no definiteness")]
    A = system.matrix if stencil is None else None
    if A is None and stencil is None:
        if not symmetric:
            return [_Attempt("gmres", None, "A is not symmetric and shows no entries")]
        why = "A is symmetric in a random product and shows no entries"
        return [_Attempt("cg", None, why), _Attempt("minres", None, "needs no definiteness")]
    if isinstance(A, np.ndarray):
        positive = "with a positive diagonal" if system.diagonal_positive else ""
        factors = _Attempt("direct", None, f"A is a dense array, {kind} {positive}".rstrip())
        return [factors, _Attempt("cg" if symmetric else "gmres", None, "needs no factors")]

    work = elimination_work(A) if stencil is None else float(n) * (n // max(stencil.grid_shape)) ** 2
    size = f"n = {n}, elimination in a band about {work:.0e} operations"
    factors = _Attempt("direct", None, f"A is sparse and {kind}; {size}")
    definite = system.maybe_definite
    if definite:
        iterative = _Attempt("cg", _hierarchy(), f"A is symmetric with a positive diagonal; {size}")
        # each further right-hand side costs the iteration a solve, the factors next to nothing
        quick = work <= _DIRECT_PAYS * columns
        on_grid = n >= _SMALLEST_GRID and (not quick or columns <= _FACTORS_SHARED)
        multigrid = _on_grid(system, size) if on_grid else None
        if quick:
            further = _Attempt("gmres", None, "needs no factors and no definiteness")
            return [attempt for attempt in (multigrid, factors, iterative, further) if attempt]
        first = [attempt for attempt in (multigrid, iterative) if attempt]
    else:
        first = []
    first += _worth_a_try(system, work, size)
    has_diagonal = system.diagonal is not None and bool(np.all(system.diagonal))
    preconditioner = (_hierarchy() if definite or not symmetric else Jacobi()) if has_diagonal else None
    last = _Attempt("gmres", preconditioner, f"A is {kind}; {size}")
    return [*first, *([factors] if work <= _DIRECT_POSSIBLE else []), last]


def _worth_a_try(system: System, work: float, size: str) -> list[_Attempt]:
    """What may be much faster than factors where A is not definite, and costs little where it is of no use."""
    n = system.shape[0]
    if not system.symmetric and n >= _ILU_PAYS and system.m_matrix:
        why = f"A is not symmetric, but an M-matrix; {size}"
        tries = [_Attempt("bicgstab", ILU(), why, patience=_ILU_PATIENCE)]
        return [*tries, _Attempt("gmres", AMG(), why)] if n >= _AMG_PAYS and _has_pyamg() else tries
    ordering, separator = _ORDERING_SECONDS * n, _SEPARATOR_SECONDS * sqrt(work / n) ** 3
    if separator < 2 * ordering:
        return []
    method, products = ("minres", 1) if system.symmetric else ("bicgstab", 2)
    patience = int((ordering + separator) / 4 / (products * _PRODUCT_SECONDS * max(system.entries, n)))
    positive = system.diagonal is not None and bool(np.all(system.diagonal.real > 0))
    why = f"needs no {'definiteness' if system.symmetric else 'symmetry'}; {size}, so it gets a chance"
    return [_Attempt(method, Jacobi() if positive else None, why, patience=patience)] if patience else []


def _exactly(system: System) -> _Attempt | None:
    """CG with the exact inverse, if A is a definite Kronecker sum on a grid, known as one or recognised.

    The inverse is the first guess as well: where rounding allows it, no iteration follows.
    """
    stencil = system.stencil
    if system.shape[0] < _SMALLEST_GRID or stencil is None or stencil.kronecker_sum is None:
        return None
    started = perf_counter()
    try:
        M = FastPoisson().setup(stencil)
    except ValueError:  # indefinite, or large and neither of constant coefficients
        return None
    why = f"A has constant or separable coefficients on {_grid(system)}, so one application of M solves"
    return _Attempt("cg", M, why, perf_counter() - started, x0="Mb")


def _grid(system: System) -> str:
    assert system.stencil is not None
    shape = " x ".join(str(points) for points in system.stencil.grid_shape)
    return f"a grid of {shape} points{'' if system.original is system.stencil else ', recognised in its entries'}"


def _on_grid(system: System, size: str) -> _Attempt | None:
    """CG with black-box multigrid, if A is a stencil on a grid, known as one or recognised, that it can coarsen."""
    started = perf_counter()
    stencil = system.stencil
    if stencil is None or stencil.dtype.kind == "c":
        return None
    try:
        hierarchy = Multigrid().setup(stencil)
    except ValueError:  # a coarse operator is not definite
        return None
    why = f"A is a symmetric stencil on {_grid(system)}; {size}"
    return _Attempt("cg", hierarchy, why, perf_counter() - started)


def _hierarchy() -> Any:
    """AMG if PyAMG is there, otherwise Jacobi."""
    return AMG() if _has_pyamg() else Jacobi()


@cache  # a look at the disk, which small systems would feel
def _has_pyamg() -> bool:
    return find_spec("pyamg") is not None


def elimination_work(A: sp.csr_array) -> float:
    """``n w^2`` with w the bandwidth of A in its own order or in that of reverse Cuthill-McKee, whichever is smaller.

    A measure of how hard a sparse matrix is to factorise: n^2 on a 2D grid, n^(7/3) on a 3D one. For symmetric
    structures; of others the structure of A + A' counts.

    Examples
    --------
    >>> from solvers import gallery
    >>> elimination_work(gallery.poisson((10, 10)).tocsr())
    10000.0
    """
    n = A.shape[0]
    rows = np.repeat(np.arange(n), np.diff(A.indptr))
    width = int(np.max(np.abs(rows - A.indices), initial=1))
    if n * width**2 > _DIRECT_PAYS:
        place = np.empty(n, dtype=np.int64)
        place[reverse_cuthill_mckee(sp.csr_matrix(A), symmetric_mode=True)] = np.arange(n)
        width = min(width, int(np.max(np.abs(place[rows] - place[A.indices]), initial=1)))
    return float(n) * width**2
