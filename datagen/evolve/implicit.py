"""Implicit time integrators, made of implicit Euler steps, with any linear solver in them.

A family gives the system of one implicit Euler step from a state r at time t, of length d,

    y = r + d F(t + d, y).                                                                                    (*)

A diagonally implicit Runge-Kutta method is a sequence of such steps (Hairer and Wanner 1996, Solving Ordinary
Differential Equations II, section IV.6): its i-th stage starts from ``r = u + h sum_{j<i} a_ij k_j`` and has
``d = h a_ii``, the slope ``k_i = F(y_i) = (y_i - r) / d`` comes without an evaluation of F, and the new state is
``u + h sum_i b_i k_i``. So one system of a family serves every method here:

- `SDIRK2` for what decays. Of order 2 and L-stable: short waves that the step does not resolve are damped, as the
  equation has it, where Crank-Nicolson turns their sign every step and keeps them. It has the stability function of
  TR-BDF2, but needs no slope at the beginning of a step, which initial fields that do not fit the walls make huge. Two
  solves a step with one matrix; for the same number of solves its error is half of that of BDF2, which besides would
  need a start, and another start where the step changes.
- `IMPLICIT_MIDPOINT` for what oscillates. Of order 2, one solve a step, and every quadratic quantity that the equation
  conserves is conserved.
- `IMPLICIT_EULER`, of order 1, keeps the maximum principle whatever the step.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datagen.evolve.work import count
from datagen.family import LinearSystem
from solvers.api import solve
from solvers.krylov.cg import cg
from solvers.result import ConvergenceError, Result
from solvers.sequence import SequenceSolver

Array = NDArray[Any]
# (state, time, length of the step) -> the system of (*), whose `to_field` gives y as a state.
EulerStep = Callable[[Array, float, float], LinearSystem]
# Keywords for `solvers.solve`, a stream's solver, or (A, b, x0=guess) -> Result.
LinearSolver = Mapping[str, Any] | SequenceSolver | Callable[..., Result]

# The errors of the solves add up: after 10,000 of them they are some 1e-8, below the rounding of single precision. It
# costs a tenth more time than 1e-10 does.
TOLERANCE = 1e-12
_WELL_CONDITIONED = 60.0
_ROUNDING, _TINY = 16 * float(np.finfo(float).eps), float(np.finfo(float).tiny)


@dataclass(frozen=True)
class DIRK:
    """A diagonally implicit Runge-Kutta method.

    Parameters
    ----------
    name : str
    A : tuple of tuple of float
        Row i holds ``a_i1, ..., a_ii``.
    b : tuple of float
    order : int

    Examples
    --------
    >>> [round(c, 4) for c in SDIRK2.nodes]
    [0.2929, 1.0]
    """

    name: str
    A: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    order: int

    @property
    def nodes(self) -> tuple[float, ...]:
        """``c_i``, the sums of the rows."""
        return tuple(sum(row) for row in self.A)

    @property
    def ends_with_last_stage(self) -> bool:
        """Stiffly accurate: the last stage is the new state."""
        return self.A[-1] == self.b


_GAMMA = 1 - math.sqrt(0.5)
# Alexander 1977, SIAM J. Numer. Anal. 14, p. 1012.
SDIRK2 = DIRK("SDIRK2", ((_GAMMA,), (1 - _GAMMA, _GAMMA)), (1 - _GAMMA, _GAMMA), 2)
IMPLICIT_MIDPOINT = DIRK("implicit midpoint", ((0.5,),), (1.0,), 2)
IMPLICIT_EULER = DIRK("implicit Euler", ((1.0,),), (1.0,), 1)


@dataclass(frozen=True)
class Implicit:
    """An implicit integrator: method, step and linear solver.

    Parameters
    ----------
    method : DIRK, optional
        Default: the family's.
    step : float, optional
        Longest step, in units of time. Default: the family's.
    solver : mapping, SequenceSolver or callable, optional
        Of the systems: keywords for `solvers.solve` (``rtol`` is 1e-12 unless given); a `SequenceSolver`, which keeps
        what it has learned, and whose own ``rtol`` should be as small; or ``(A, b, x0=guess) -> Result``, such as
        `solvers.cg` with its arguments bound. Default: a fresh `StepSolver` for each trajectory, so that a trajectory
        does not depend on those before it.

    Notes
    -----
    An interval between two requested times is divided into equal steps, as few as the longest step allows, so the
    solution is computed *at* the requested times, without interpolation.

    A solve starts from the slope of the same stage in the last step, where the solver takes a first guess.

    Examples
    --------
    ``u' = -u`` on one unknown:

    >>> def step(state, t, d):
    ...     return LinearSystem(np.array([[1 + d]]), state.ravel(), lambda x: x.reshape(1, 1), np.ravel)
    >>> integrator = Implicit(SDIRK2, step=0.01, solver={"method": "direct"})
    >>> state = integrator.integrate(step, np.ones((1, 1)), [1.0])[0]
    >>> float(state[0, 0]), float(np.exp(-1))
    (0.367877..., 0.367879...)
    """

    method: DIRK | None = None
    step: float | None = None
    solver: LinearSolver | None = None

    def __post_init__(self) -> None:
        if self.step is not None and not (math.isfinite(self.step) and self.step > 0):
            raise ValueError(f"Implicit: step must be positive and finite, got {self.step!r}")
        if not (self.solver is None or isinstance(self.solver, (Mapping, SequenceSolver)) or callable(self.solver)):
            raise TypeError(
                "Implicit: solver must be a mapping of keywords for solvers.solve, a SequenceSolver, or a callable "
                f"(A, b, x0=guess) -> Result; got {type(self.solver).__name__}"
            )

    def integrate(self, euler_step: EulerStep, start: Array, times: Sequence[float]) -> list[Array]:
        """The states at the given times of the solution that starts with `start` at time 0.

        Arguments and errors are those of `states`, which gives them one after the other.
        """
        return list(self.states(euler_step, start, times))

    def states(self, euler_step: EulerStep, start: Array, times: Sequence[float]) -> Iterator[Array]:
        """The states of `integrate`, each as soon as it is known: those before a failure are not lost.

        Parameters
        ----------
        euler_step : callable
            ``(state, time, length) -> LinearSystem``, the system of an implicit Euler step.
        start : ndarray
        times : sequence of float
            Increasing, not negative.

        Raises
        ------
        ValueError
            If there are no times, they do not increase from 0 on, or method or step are not known.
        FloatingPointError
            If the solution stops being finite or a system cannot be solved, with the time and the step.
        """
        if len(times) == 0 or not (np.isfinite(times).all() and np.all(np.diff(times) > 0) and times[0] >= 0):
            raise ValueError(f"times must be numbers that increase, from 0 or later, got {list(times)}")
        if self.method is None or self.step is None:
            raise ValueError("Implicit: give a method and a step, or let a family's evolve supply them")
        solver = StepSolver() if self.solver is None else self.solver
        trajectory = _Trajectory(self.method, euler_step, solver)
        u, now, h = start, 0.0, 0.0
        for time in times:
            if time > now:
                steps = max(1, math.ceil((time - now) / self.step - 1e-9))
                step = (time - now) / steps
                # Differences of times that differ by the rounding of times are the same step, and the same matrix.
                if abs(step - h) > 4 * np.spacing(time):
                    h = step
                for i in range(steps):
                    u = trajectory.advance(u, now + i * h, h)
            if not np.isfinite(u).all():
                raise FloatingPointError(f"the solution is no longer finite at t = {time:g}, with steps of {h:.3g}")
            yield u
            now = time


class _Trajectory:
    """One solution on its way, with the slopes of the last step."""

    def __init__(self, method: DIRK, euler_step: EulerStep, solver: LinearSolver) -> None:
        self._method, self._euler_step, self._solver = method, euler_step, solver
        self._last: list[Array] = []

    def advance(self, u: Array, t: float, h: float) -> Array:
        """The state one step later."""
        slopes: list[Array] = []
        y = u
        for row, c in zip(self._method.A, self._method.nodes, strict=True):
            d = row[-1] * h
            r = u + sum(h * a * k for a, k in zip(row, slopes, strict=False)) if slopes else u
            guess = r + d * self._last[len(slopes)] if self._last else r
            y = self._solved(self._euler_step(r, t + c * h - d, d), guess, t, h)
            slopes.append((y - r) / d)
        self._last = slopes
        count(steps=1)
        if self._method.ends_with_last_stage:
            return y
        return u + sum(h * b * k for b, k in zip(self._method.b, slopes, strict=True))

    def _solved(self, system: LinearSystem, guess: Array, t: float, h: float) -> Array:
        try:
            result = run(self._solver, system, guess)
        except ConvergenceError as error:
            result = error.result
        passes = result.matvecs + result.preconditioner_applies
        count(evaluations=passes, solves=1, iterations=result.iterations)
        if not result.converged:
            raise FloatingPointError(
                f"the linear solve in the step of {h:.3g} from t = {t:g} ended as {result.status.name} "
                f"({result.method}) with a residual of {result.residual_norm:.2e}, the right-hand side's largest entry "
                f"being {np.max(np.abs(system.b)):.2e}: {result.status.value}; a shorter step makes the system easier"
            )
        return system.to_field(result.x)


class StepSolver:
    """The default, for symmetric positive definite matrices: CG where it is quick, lagged factors elsewhere.

    CG needs no set-up and starts from a good guess, whose error is smooth: a matrix near the identity has one
    eigenvalue for it. (Jacobi's preconditioner spoils that. Where the coefficient varies CG takes twice the iterations
    with it.) It is used where ``max_i sum_j |a_ij| / min_i (a_ii - sum_{j != i} |a_ij|)``, a bound of the condition
    number (Gershgorin), is at most 60, some 20 iterations. Where it is more, the factors or the hierarchy of an earlier
    matrix serve for as long as they pay, `SequenceSolver("lagged")`; of separable matrices the inverse is known.

    Parameters
    ----------
    rtol : float, optional
        Relative to the right-hand side. What the rounding of x leaves, ``16 eps |A| |x|``, is enough if it is more.
    **keywords
        For `solvers.solve`, which then solves all systems.

    Notes
    -----
    One serves one trajectory: what it has learned is carried on to the next.

    CPU seconds and iterations of trajectories, their first quarter at 256^2, half of heat 32^3 (``python -m
    benchmarks.time_steps``; one core of an AMD EPYC that others were busy on: between two runs seconds differ by a
    quarter, iterations do not; systems to 1e-10; heat with its defaults but for what is named; stiff: a 10 times as
    large, and its logarithm twice as varied; wave: courant 0.7, twice the default)::

                                            this            cg       solve()  SequenceSolver("auto", cost="work")
        heat  64^2, 200 solves      0.089   2945  0.081   2945  0.249    808  0.242   1312
        heat  64^2, kappa switching 0.147    789  0.082   4323  0.212    665  0.256    557
        heat 256^2,  50 solves      0.324    257  0.510   4323  0.492    216  0.541    180
        heat 256^2, kappa constant  0.228    176  0.552   4864  0.475    215  0.216    176
        heat 256^2, kappa switching 0.341    263  1.256  12636  0.532    254  0.569    188
        heat 256^2, a constant      0.196    770  0.258   1662  0.140     50  0.126      0
        heat 256^2, stiff           0.372    335  3.736  36212  0.535    267  0.574    185
        wave  64^2, 120 solves      0.033   1563  0.035   1563  0.129    275  0.048    351
        wave 256^2, 110 solves      0.298   1212  0.291   1212  1.059    238  0.405    326
        heat  32^3, 100 solves      0.241   1403  0.218   1403  0.843    460  0.875    330
        wave  33^3                  0.176   1265  0.175   1265  0.608    161  0.226    231

    Examples
    --------
    >>> A = np.diag([2.0, 3.0, 4.0])
    >>> StepSolver()(A, np.ones(3)).method
    'cg'
    """

    def __init__(self, rtol: float = TOLERANCE, **keywords: Any) -> None:
        self._rtol, self._keywords = rtol, keywords
        self._sequence: SequenceSolver | None = None
        self._A: Any = None
        self._norm = self._bound = 0.0

    def __call__(self, A: Any, b: Array, x0: Array | None = None) -> Result:
        """Solve one system."""
        if A is not self._A:
            # Beside the diagonal the matrices of diffusion have no positive entries.
            sums = A @ np.ones(b.size)
            self._norm = float(np.max(2 * A.diagonal() - sums))
            self._A, self._bound = A, self._norm / float(np.min(sums))
        # Rounding of x alone leaves a residual of its last digit times |A|; what has decayed to nothing has no digits.
        rounding = _TINY if x0 is None else _TINY + _ROUNDING * self._norm * float(np.linalg.norm(x0))
        if self._keywords:
            return solve(A, b, x0=x0, throw=False, **{"rtol": self._rtol, "atol": rounding, **self._keywords})
        if self._bound <= _WELL_CONDITIONED:
            return cg(A, b, x0, rtol=self._rtol, atol=rounding)
        if self._sequence is None:
            separable = getattr(A, "kronecker_sum", None) is not None
            methods = ["fast-poisson", "lagged"] if separable else "lagged"
            self._sequence = SequenceSolver(methods, rtol=self._rtol, cost="work")
        self._sequence.atol = rounding
        return self._sequence.solve(A, b)


def run(solver: LinearSolver, system: LinearSystem, guess: Array) -> Result:
    """Solve one system by whatever solver there is, from a state as first guess if it takes one.

    Parameters
    ----------
    solver : mapping, SequenceSolver or callable
        Keywords for `solvers.solve`, a stream's solver, or ``(A, b, x0=guess) -> Result``.
    system : LinearSystem
    guess : ndarray
        The state from which the step begins.
    """
    if isinstance(solver, SequenceSolver):  # has a first guess of its own
        return solver.solve(system.A, system.b)
    x0 = system.to_vector(guess)
    if isinstance(solver, Mapping):
        keywords = {"rtol": TOLERANCE, "null_space": system.null_space, **solver}
        return solve(system.A, system.b, x0=x0, throw=False, **keywords)
    result = solver(system.A, system.b, x0=x0)
    if not isinstance(result, Result):
        raise TypeError(f"solver must return a solvers.Result, got {type(result).__name__}")
    return result
