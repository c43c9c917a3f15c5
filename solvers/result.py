"""What a solver hands back: the solution, the truth about it, and what it cost.

Every method in this package returns a `Result`. Its `residual_norm` is the true ``||b - A x||``, recomputed from the
`x` that is handed back, and its `status` is CONVERGED only if that number meets the tolerance.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np


class Status(Enum):
    """How a solve ended, from best to worst; the value is the sentence that says what to try.

    The order counts: the status of a solve with several right-hand sides is the worst of its columns.

    Examples
    --------
    >>> Status.MAX_ITERATIONS.value
    'the iteration limit came before the tolerance: raise maxiter, loosen rtol, or give a preconditioner M'
    >>> Status.worst([Status.CONVERGED, Status.BREAKDOWN]).name
    'BREAKDOWN'
    """

    CONVERGED = "the true residual meets the tolerance"
    USER_STOP = "the callback asked to stop: the best iterate so far is in x"
    TIME_LIMIT = "the time limit came before the tolerance: raise time_limit, or give a preconditioner M"
    MAX_ITERATIONS = (
        "the iteration limit came before the tolerance: raise maxiter, loosen rtol, or give a preconditioner M"
    )
    STAGNATED = (
        "the true residual stopped falling before the tolerance, at what rounding allows for this matrix and dtype: "
        "loosen rtol, use float64, or improve the conditioning with a preconditioner M"
    )
    INCONSISTENT = (
        "A is singular and b is not in its range, so no x has a residual of zero: make b orthogonal to the null space "
        "of A', or take x as the least-squares solution where null_space was given"
    )
    BREAKDOWN = (
        "the method met a division by zero that it cannot step over: try another method, or method='direct'; "
        "if A is singular, give its null_space"
    )
    INDEFINITE_PRECONDITIONER = (
        "M is not symmetric positive definite, which this method needs: use a symmetric preconditioner "
        "(Jacobi, symmetric AMG), or method='gmres'"
    )
    INDEFINITE_OPERATOR = (
        "A is not symmetric positive definite, which this method needs: use method='direct' or 'gmres'; "
        "if A is negative definite, solve -A x = -b"
    )
    NONFINITE_OUTPUT = (
        "A or M returned NaN or infinity for a finite vector: check the operator, and the scale of its entries"
    )
    NONFINITE_INPUT = "A, b or x0 holds NaN or infinity: mend the input"

    @classmethod
    def worst(cls, statuses: "list[Status]") -> "Status":
        """The one that is defined last in this class."""
        order = list(cls)
        return max(statuses, key=order.index)


# scipy's convention: 0 is success, a positive number is the count of iterations of a run that was going well but ended
# early, a negative one is a breakdown or bad input.
_NEGATIVE_INFO = {
    Status.INCONSISTENT: -9,
    Status.BREAKDOWN: -10,
    Status.INDEFINITE_PRECONDITIONER: -11,
    Status.INDEFINITE_OPERATOR: -12,
    Status.NONFINITE_OUTPUT: -13,
    Status.NONFINITE_INPUT: -14,
}


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """Solution of ``A x = b`` with the truth about it.

    A Result also unpacks and indexes as scipy's pair: ``x, info = cg(A, b)``.

    Attributes
    ----------
    x : ndarray, shape (n,) or (n, k)
        The solution, or on failure the best iterate (smallest residual). Never holds NaN or infinity.
    status : Status
        How the solve ended; for several right-hand sides the worst.
    method : str
        Name of the method, with its preconditioner: ``"cg + AMG"``.
    reason : str
        Why this method, what went on, and on failure what exactly went wrong.
    iterations : int
        Iterations of the method; for several right-hand sides the largest number that one of them took.
    matvecs, preconditioner_applies : int
        Applications of A and of M to one vector, all right-hand sides and the final check included.
    residual_norm : float
        True ``||b - A x||_2``, recomputed at exit; for several right-hand sides the largest. Infinite if b or A is
        not finite.
    history : ndarray, shape (iterations + 1,) or (iterations + 1, k)
        Residual norms; entry 0 is the initial one, the last one is the true final one. With several right-hand sides
        a column is NaN after its own end.
    setup_seconds, solve_seconds : float
        Wall time of preparing (checks, factorisation, hierarchy) and of solving.
    statuses : tuple of Status, length k
        One for each right-hand side.
    residual_norms : ndarray, shape (k,)
        True residual norm of each right-hand side.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import cg
    >>> x, info = cg(np.diag([1.0, 2.0]), np.array([1.0, 4.0]))
    >>> x.round(8), info
    (array([1., 2.]), 0)
    """

    x: np.ndarray
    status: Status
    method: str
    reason: str
    iterations: int
    matvecs: int
    preconditioner_applies: int
    residual_norm: float
    history: np.ndarray
    setup_seconds: float
    solve_seconds: float
    statuses: tuple[Status, ...] = field(default=())
    residual_norms: np.ndarray = field(default_factory=lambda: np.empty(0))

    def __post_init__(self) -> None:
        if not self.statuses:
            object.__setattr__(self, "statuses", (self.status,))
            object.__setattr__(self, "residual_norms", np.array([self.residual_norm]))

    @property
    def converged(self) -> bool:
        """True if every right-hand side meets the tolerance."""
        return self.status is Status.CONVERGED

    @property
    def info(self) -> int:
        """scipy's integer: 0 converged, > 0 iterations of an unfinished run, < 0 breakdown or bad input."""
        if self.converged:
            return 0
        # maxiter=0 ends without an iteration, and is still no success
        return _NEGATIVE_INFO.get(self.status, max(self.iterations, 1))

    def __iter__(self) -> Iterator[Any]:
        yield self.x
        yield self.info

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int | slice) -> Any:
        return (self.x, self.info)[index]

    def __repr__(self) -> str:
        return f"<Result {self.status.name}: {self.method}, {self.iterations} iterations, x {self.x.shape}>"

    def __str__(self) -> str:
        many = len(self.statuses) > 1
        initial = float(np.linalg.norm(np.atleast_2d(self.history.T)[:, 0], np.inf)) if self.history.size else np.nan
        lines = [
            f"{self.status.name}: {self.status.value}",
            f"  method     {self.method}, x of shape {self.x.shape} and dtype {self.x.dtype}",
            f"  residual   {self.residual_norm:.3e} (true ||b - A x||{', largest' if many else ''}; "
            f"initial {initial:.3e})",
            f"  work       {self.iterations} iterations, {self.matvecs} products with A, "
            f"{self.preconditioner_applies} with M",
            f"  time       {self.setup_seconds:.3g} s set-up, {self.solve_seconds:.3g} s solve",
        ]
        if many:
            counts = {s: self.statuses.count(s) for s in Status if s in self.statuses}
            lines.insert(2, "  columns    " + ", ".join(f"{count} {s.name}" for s, count in counts.items()))
        if self.reason:
            lines.append(f"  reason     {self.reason}")
        return "\n".join(lines)


class ConvergenceError(RuntimeError):
    """Raised by `solvers.solve` when the tolerance was not met.

    Attributes
    ----------
    result : Result
        Everything that was found, the best iterate in ``result.x``.
    """

    def __init__(self, result: Result) -> None:
        super().__init__(f"{result}\n  (the best iterate is in .result.x; throw=False returns it instead of raising)")
        self.result = result
