r"""What all methods share: checks at the door, columns, scaling, null spaces, and the truth at the end.

A method is a kernel that solves one correction equation :math:`A d = r` from :math:`d = 0`. The driver wraps it in
rounds of iterative refinement,

.. math:: r = b - A x, \qquad x \leftarrow x + d,

and looks at the true residual after each. A method whose own, recurrently updated residual says "done" is thus
checked: if the true one meets :math:`\|b - A x\| \le \max(\mathrm{rtol}\,\|b\|, \mathrm{atol})` the answer is
CONVERGED, if it fell by half the next round goes on from the truth, and otherwise rounding allows no more: STAGNATED.

The residual is divided by a power of two near its norm before the kernel sees it, which changes no bit of the
arithmetic but keeps squares from overflow and underflow, for b of 1e-200 as for b of 1e200.

Storage: the headers of the methods count the n-vectors from x = 0. From a first guess, and in further rounds, up to two
more are there: x and its product.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import floor, inf, isfinite, log2, sqrt
from time import perf_counter
from typing import Any

import numpy as np

from solvers.krylov.controls import Controls, right_hand_side
from solvers.precondition.protocol import Lagging, Preconditioner, lags
from solvers.result import Result, Status
from solvers.system import System, norm, working_dtype


@dataclass
class Correction:
    """One correction equation ``A d = r``, as a kernel sees it.

    Attributes
    ----------
    system : System
    r : ndarray, shape (n,)
        Right-hand side, norm in [1, 2); the kernel may overwrite it.
    norm : float
        Its norm.
    target : float
        The kernel may stop as soon as its residual norm is at most this; where rounding makes the recurrence
        worthless, at eps times the initial one, the driver has set it higher than asked for.
    precondition : callable or None
        r -> M r without its part in the null space; None for the identity. What it returns must not be written to.
    record : callable
        ``record(norm)`` once an iteration: keeps the history, returns TIME_LIMIT or None.
    report : callable
        ``report(d)`` whenever there is a new d: calls the user's callback, returns USER_STOP or None.
    budget : list of one int
        Units of `maxiter` that are left; the kernel counts down.
    preconditioner : System or None
        M, if `precondition` does nothing beyond it.
    watched : bool
        There is a callback; otherwise d need not be put together for `report`.
    """

    system: System
    r: np.ndarray
    norm: float
    target: float
    precondition: Callable[[np.ndarray], np.ndarray] | None
    record: Callable[[float], Status | None]
    report: Callable[[np.ndarray], Status | None]
    budget: list[int]
    preconditioner: System | None = None
    watched: bool = False

    def precondition_and_product(self) -> Callable[[np.ndarray, float], tuple[np.ndarray, float]] | None:
        """(r, its norm) -> (z, r'z) for z = M r; at once where M has ``matvec_and_product`` and nothing is projected.

        z may then be in a lower precision, and lasts until the next call.
        """
        if self.precondition is None:
            return None
        M, precondition = self.preconditioner, self.precondition
        merged = getattr(M.original, "matvec_and_product", None) if M is not None else None
        if M is None or merged is None:

            def separately(r: np.ndarray, norm: float) -> tuple[np.ndarray, float]:
                z = precondition(r)
                return z, float(np.vdot(r, z).real)

            return separately

        def at_once(r: np.ndarray, norm: float) -> tuple[np.ndarray, float]:
            M.products += 1
            return merged(r, norm)

        return at_once


# What a kernel returns: its best d, a Status if it had to end (None: it believes to be done), and why.
Outcome = tuple[np.ndarray, Status | None, str]
Kernel = Callable[[Correction], Outcome]


# Of these a preconditioner that is too old may be the cause.
_A_FRESH_M_MAY_HELP = (
    Status.STAGNATED,
    Status.BREAKDOWN,
    Status.INDEFINITE_PRECONDITIONER,
    Status.INDEFINITE_OPERATOR,
    Status.NONFINITE_OUTPUT,
)


@dataclass
class _Column:
    """What came of one right-hand side."""

    x: np.ndarray
    status: Status
    reason: str
    residual_norm: float
    history: list[float]


def run(
    kernel: Kernel,
    method: str,
    A: Any,
    b: Any,
    x0: Any,
    controls: Controls,
    *,
    budget: int,
    M: Any = None,
    null_space: Any = None,
    symmetric: bool = False,
    setup_seconds: float = 0.0,
    reason: str = "",
) -> Result:
    """Solve ``A x = b`` for every column of b with one kernel, and tell the truth about it.

    Parameters
    ----------
    kernel : callable
        Takes a `Correction`, returns its best d, a Status or None, and a sentence or "".
    method : str
        Name for the Result.
    A, b, x0, M, null_space
        As the user gave them. A non-finite value in A, b or x0 ends in NONFINITE_INPUT for the columns it touches
        (x is zero there), it does not raise.
    controls : Controls
    budget : int
        `maxiter` of the method if the user gave none.
    symmetric : bool
        The method needs a symmetric A: if it fails, look whether A is.
    """
    started = perf_counter()
    rhs = right_hand_side(b)
    n = rhs.shape[0]
    system = System.of(A, size=n, dtype=rhs.dtype)
    if np.iscomplexobj(x0):
        system = System.of(system, dtype=np.complex64)
    dtype = system.dtype
    columns = np.ascontiguousarray(rhs.reshape(n, -1).T, dtype=dtype)
    products_before = system.products
    preconditioner = Q = None
    if system.finite:  # otherwise every column ends as NONFINITE_INPUT, and nothing should be set up for NaN
        preconditioner = None if M is None else System(_ready(M, system), size=n, dtype=dtype, name="M", exactly=True)
        Q = system.null_space_basis(null_space)
    guesses = _first_guesses(x0, columns, preconditioner, rhs.shape)
    setup_seconds += perf_counter() - started

    started = perf_counter()
    if controls.maxiter is not None:
        budget = int(controls.maxiter)
    # Overflow and its like are looked for where they matter, and end in a Status: no warnings of numpy beside it.
    with np.errstate(all="ignore"):
        results = [
            _solve_column(kernel, system, column, guess, controls, budget, preconditioner, Q)
            for column, guess in zip(columns, guesses, strict=True)
        ]
    if symmetric:
        results = _blame_asymmetry(results, system)
    status = Status.worst([column.status for column in results])
    sentences = list(dict.fromkeys(column.reason for column in results if column.reason))
    longest = max(len(column.history) for column in results)
    history = np.full((longest, len(results)), np.nan)
    for j, column in enumerate(results):
        history[: len(column.history), j] = column.history
    flat = rhs.ndim == 1
    name = method if M is None else f"{method} + {type(M).__name__ if hasattr(M, 'setup') else 'M'}"
    return Result(
        x=results[0].x if flat else np.stack([column.x for column in results], axis=1),
        status=status,
        method=name,
        reason="; ".join([reason, *sentences] if reason else sentences),
        iterations=longest - 1,
        matvecs=system.products - products_before,
        preconditioner_applies=preconditioner.products if preconditioner else 0,
        residual_norm=max(column.residual_norm for column in results),
        history=history[:, 0] if flat else history,
        setup_seconds=setup_seconds,
        solve_seconds=perf_counter() - started,
        statuses=tuple(column.status for column in results),
        residual_norms=np.array([column.residual_norm for column in results]),
    )


def _ready(M: Any, system: System) -> Any:
    """A preconditioner object that has not seen a matrix yet is set up for this one."""
    if isinstance(M, type):
        raise TypeError(f"M: got the class {M.__name__} itself; give an object, {M.__name__}()")
    if isinstance(M, str):
        raise TypeError(f"M: got the name {M!r}; names are for solve(A, b, M={M!r}), give the object here")
    # One that lags decides by itself what to do about another matrix.
    if hasattr(M, "setup") and (getattr(M, "shape", None) is None or lags(M)):
        M.setup(system)
    return M


def _first_guesses(
    x0: Any, columns: np.ndarray, preconditioner: System | None, shape: tuple[int, ...]
) -> list[np.ndarray | None]:
    """A fresh array for each column, or None for zero."""
    if x0 is None:
        return [None] * len(columns)
    if isinstance(x0, str):
        if x0 != "Mb":
            raise ValueError(f"x0: expected None, 'Mb' or an array of the shape of b, got {x0!r}")
        if preconditioner is None:
            return [column.copy() for column in columns]
        own = isinstance(preconditioner.original, Preconditioner)  # which returns a fresh array
        return [image if own else image.copy() for image in map(preconditioner.matvec, columns)]
    guess = np.asarray(x0)
    n = columns.shape[1]
    if guess.shape != shape and not (guess.size == n and len(columns) == 1):
        raise ValueError(f"x0: expected the shape of b, {shape}, got {guess.shape}")
    try:
        working_dtype(guess.dtype)
    except TypeError as error:
        raise TypeError(f"x0: {error}") from None
    return [np.array(column, dtype=columns.dtype) for column in guess.reshape(n, -1).T]


def _preconditioning(
    preconditioner: System | None, project: Callable[[np.ndarray], np.ndarray] | None
) -> Callable[[np.ndarray], np.ndarray] | None:
    """M, then the projection out of the null space: whichever there are."""
    if preconditioner is None:
        return project
    if project is None:
        return preconditioner.matvec
    return lambda v: project(preconditioner.matvec(v))


def _nonfinite(name: str, v: np.ndarray) -> str:
    bad = np.flatnonzero(~np.isfinite(v))
    return f"{name} holds {bad.size} non-finite value(s), the first at index {bad[0]} ({v[bad[0]]})"


def _solve_column(
    kernel: Kernel,
    system: System,
    b: np.ndarray,
    x: np.ndarray | None,
    controls: Controls,
    maxiter: int,
    preconditioner: System | None,
    Q: np.ndarray | None,
) -> _Column:
    """Rounds of refinement on one right-hand side, ``x`` the first guess (our own array) or None."""
    size = norm(b)
    for name, v in (("b", None if isfinite(size) else b), ("x0", x)):  # a finite norm says it without a look
        if v is not None and not np.isfinite(v).all():
            return _Column(np.zeros_like(b), Status.NONFINITE_INPUT, _nonfinite(name, v), inf, [inf])
    if not system.finite:
        return _Column(np.zeros_like(b), Status.NONFINITE_INPUT, "A holds NaN or infinity", inf, [inf])
    if size == 0.0:
        return _Column(np.zeros_like(b), Status.CONVERGED, "", 0.0, [0.0])
    if not isfinite(size):
        return _Column(np.zeros_like(b), Status.NONFINITE_INPUT, f"the norm of b overflows in {b.dtype}", inf, [inf])

    project: Callable[[np.ndarray], np.ndarray] | None = None
    tolerance = target = max(controls.rtol * size, controls.atol)
    inconsistent = ""
    if Q is not None:
        adjoint = Q.conj().T.copy()

        def project(v: np.ndarray) -> np.ndarray:
            return v - Q @ (adjoint @ v)

        out_of_range = float(np.linalg.norm(adjoint @ b))
        # No x has a residual smaller than the part of b outside the range of A. Below 100 eps ||b|| that part is
        # rounding of b itself.
        if out_of_range > max(tolerance, 100 * np.finfo(b.dtype).eps * size):
            inconsistent = (
                f"b has a part of norm {out_of_range:.3e} outside the range of A, which is as far as any residual can "
                "fall; x is the least-squares solution of smallest norm"
            )
        else:
            target = sqrt(max(tolerance**2 - out_of_range**2, 0.0)) if isfinite(tolerance**2) else tolerance
        x = None if x is None else project(x)

    precondition = _preconditioning(preconditioner, project)
    # A preconditioner of an earlier matrix may ask to be set up for this one in the middle: the method then ends with
    # what it has, and the next round goes on with a fresh one.
    lagged: Lagging | None = None
    if preconditioner is not None and lags(preconditioner.original):
        lagged = preconditioner.original

    def residual(x: np.ndarray | None) -> tuple[np.ndarray, float, float]:
        """What is left for the kernel, its norm, and the norm of the true residual."""
        r, full = b, size
        if x is not None:
            r = system.residual(b, x)
            full = norm(r)
        if project is None:
            return r, full, full
        rest = project(r)
        return rest, norm(rest), full

    if x is not None and not x.any():
        x = None  # as zero is called from here on: no memory is filled for it and nothing added
    r, left, true = residual(x)
    if x is not None and not isfinite(true):
        return _Column(x, Status.NONFINITE_OUTPUT, "A times x0 is not finite", inf, [inf])
    history = [true]
    budget = [maxiter]

    def verdict() -> Status | None:
        """CONVERGED is a matter of the true residual alone."""
        if not inconsistent:
            return Status.CONVERGED if true <= tolerance else None
        return Status.INCONSISTENT if left <= target else None

    while True:
        status = verdict()
        reason = inconsistent
        if status is None and budget[0] <= 0:
            status, reason = Status.MAX_ITERATIONS, f"maxiter = {maxiter} reached"
        if status is not None:
            return _Column(np.zeros_like(b) if x is None else x, status, reason, true, history)

        scale = 2.0 ** floor(log2(left))
        base, known = x, len(history)

        def record(estimate: float, scale: float = scale) -> Status | None:
            history.append(estimate * scale)
            if perf_counter() > controls.deadline:
                return Status.TIME_LIMIT
            return Status.USER_STOP if lagged is not None and lagged.worn_out else None

        def report(d: np.ndarray, scale: float = scale, base: np.ndarray | None = base) -> Status | None:
            if controls.callback is None:
                return None
            answer = controls.callback(scale * d if base is None else base + scale * d)
            return Status.USER_STOP if isinstance(answer, bool | np.bool_) and answer else None

        d, status, reason = kernel(
            Correction(
                system=system,
                r=np.divide(r, scale, out=None if r is b else r),
                norm=left / scale,
                target=max(target / scale, np.finfo(b.dtype).eps * left / scale),
                precondition=precondition,
                record=record,
                report=report,
                budget=budget,
                preconditioner=preconditioner if project is None else None,
                watched=controls.callback is not None,
            )
        )
        candidate = np.multiply(d, scale, out=d)
        if base is not None:
            candidate += base
        if project is not None:
            candidate = project(candidate)
        r, next_left, next_true = residual(candidate)
        # Where A has a column of zeros, x may be infinite and the residual is not.
        finite = isfinite(next_left) and (isfinite(norm(candidate)) or bool(np.isfinite(candidate).all()))
        improved = finite and next_left < left
        fell_by_half = finite and next_left <= 0.5 * left
        if improved:
            x, left, true = candidate, next_left, next_true
        if len(history) > known:
            history[-1] = true
        ending = verdict()
        if ending is not None:
            return _Column(np.zeros_like(b) if x is None else x, ending, inconsistent, true, history)
        if (
            lagged is not None
            and not lagged.fresh
            and (lagged.worn_out or status in _A_FRESH_M_MAY_HELP or not fell_by_half)
            and lagged.refresh(system)
        ):
            if not improved:
                r, left, true = residual(x)
            continue
        if status is None and not fell_by_half:
            status = Status.STAGNATED
            sentence = f"the true residual stopped at {true:.3e}, the tolerance is {tolerance:.3e}"
            reason = f"{sentence}; {reason}" if reason else sentence
        if status is not None:
            x = np.zeros_like(b) if x is None else x
            return _Column(x, status, "; ".join(filter(None, [reason, inconsistent])), true, history)


def _blame_asymmetry(results: list[_Column], system: System) -> list[_Column]:
    """If a method for symmetric matrices failed on one that is not, that is the reason."""
    excused = (Status.CONVERGED, Status.INCONSISTENT, Status.USER_STOP, Status.NONFINITE_INPUT, Status.NONFINITE_OUTPUT)
    if all(column.status in excused for column in results) or system.seems_symmetric:
        return results
    sentence = "A is not symmetric (<A x, y> differs from <x, A y>)"
    return [
        column
        if column.status in excused
        else replace(column, status=Status.INDEFINITE_OPERATOR, reason=f"{sentence}; {column.reason}")
        for column in results
    ]
