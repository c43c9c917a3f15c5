"""SequenceSolver: a stream of systems, and what was learned from those before."""

from collections import deque
from collections.abc import Sequence
from copy import copy
from dataclasses import asdict, replace
from math import inf, log
from time import perf_counter
from typing import Any

import numpy as np

from solvers.api import joined, solve
from solvers.krylov.controls import Controls, right_hand_side
from solvers.krylov.gmres import gmres
from solvers.registry import near_names
from solvers.result import Result, Status
from solvers.sequence.adaptive import Relaxation
from solvers.sequence.choice import Choice, Outlook
from solvers.sequence.family import SOLVE, Family
from solvers.sequence.strategies import NAMES, strategies
from solvers.sequence.strategy import Strategy, Task
from solvers.sequence.stream import Stream
from solvers.sequence.warm_start import WarmStart

_TOO_LONG = 10.0  # times its mean, after which the champion is taken to have failed
# After these another strategy would find the same.
_SETTLED = (Status.CONVERGED, Status.NONFINITE_INPUT, Status.INCONSISTENT)
_REFUSED = (Status.BREAKDOWN, Status.INDEFINITE_OPERATOR, Status.INDEFINITE_PRECONDITIONER)


class SequenceSolver:
    r"""Solves similar systems one after the other, and gets better at it.

    It keeps what an earlier system has left: solutions, for a first guess by Galerkin projection; the subspace that
    slowed down a Krylov method; factors or a hierarchy; a relaxation factor. And it finds out which method is best for
    this sequence: see `solvers.sequence.choice`. The answer to each system depends on none of that, since

    .. math:: \|b - A x\|_2 \le \max(\mathrm{rtol}\,\|b\|_2, \mathrm{atol})

    is tested with the true residual.

    Parameters
    ----------
    method : str or sequence of str
        "auto" chooses between all that may work; a sequence of names between these; one name is that method alone:

        ============== ================================================================================================
        "multigrid"    CG with black-box multigrid, set up for each new matrix
        "amg"          CG, or GMRES for a nonsymmetric A, with algebraic multigrid
        "fast-poisson" CG with the inverse of an operator with constant coefficients
        "direct"       factors of each new matrix
        "lagged"       CG or GMRES with the factors (or hierarchy) of an earlier matrix, for as long as they pay
        "gmres"        GMRES(40) with ILU(0)
        "gcrodr"       GCRO-DR(40, 20) with ILU(0), recycled
        "deflated-cg"  deflated CG with incomplete Cholesky, recycled
        "ssor-cg"      CG with SSOR and a learned factor
        "cg", "minres" with Jacobi
        "bicgstab"     with ILU(0)
        ============== ================================================================================================

    rtol, atol : float
    M : object or str, optional
        Approximate inverse to be used instead of the usual one, by the methods that take one: "cg", "minres",
        "bicgstab", "gmres", "gcrodr" and "deflated-cg". A name, or a preconditioner that has not been set up, is set up
        for each new matrix; anything else is used as it is.
    cost : {"seconds", "work"}
        What is to be small: wall time, or the numbers that are read and written by a model of each method. With "work"
        the choices depend on the systems alone, and are the same on every machine.
    warm_start : bool
        Whether earlier solutions are used for first guesses; where they do not pay they are not.
    seed : int
        Of the learned relaxation factor.
    time_limit : float, optional
        Seconds for each system.

    Attributes
    ----------
    method : str
        The best so far, "" before the first system.
    systems : int
        Solved so far.
    last_cost : float
        Of the last system, in seconds or in work, all that was tried included.

    Raises
    ------
    ValueError
        If a name is unknown, there is none, or another argument is out of range.
    TypeError
        If M is a class.

    Examples
    --------
    >>> from solvers import SequenceSolver, gallery
    >>> solver = SequenceSolver(rtol=1e-7, cost="work")
    >>> for A, b, context in gallery.helmholtz_sequence(length=12, shape=(40, 40)):
    ...     result = solver.solve(A, b, context)
    ...     assert result.converged
    >>> solver.method  # the factors of one system serve the next
    'lagged'
    """

    def __init__(
        self,
        method: str | Sequence[str] = "auto",
        *,
        rtol: float = 1e-5,
        atol: float = 0.0,
        M: Any = None,
        cost: str = "seconds",
        warm_start: bool = True,
        seed: int = 0,
        time_limit: float | None = None,
    ) -> None:
        Controls(rtol, atol, None, None, time_limit)  # checks them
        if cost not in ("seconds", "work"):
            raise ValueError(f"cost: expected 'seconds' or 'work', got {cost!r}")
        if isinstance(M, type):
            raise TypeError(f"M: got the class {M.__name__} itself; give an object, {M.__name__}()")
        if not isinstance(seed, int | np.integer) or seed < 0:
            raise ValueError(f"seed: expected a whole number that is not negative, got {seed!r}")
        available = strategies(M, cost, int(seed))
        names = list(available) if method == "auto" else [method] if isinstance(method, str) else list(method)
        if not names:
            raise ValueError("method: expected 'auto' or at least one name, got an empty sequence")
        for name in names:
            if name not in NAMES:
                raise ValueError(f"unknown method {name!r}. {near_names(str(name), ['auto', *NAMES])}")
            if name not in available:
                raise ValueError(f"M: method {name!r} takes no preconditioner; leave M out")
        self._names = list(dict.fromkeys(names))
        self._single = self._names[0] if len(self._names) == 1 else ""
        self.rtol, self.atol, self.time_limit = rtol, atol, time_limit
        self._M, self._cost, self._seed = M, cost, int(seed)
        self._warm: WarmStart | None = WarmStart() if warm_start else None
        self.systems = 0
        self.last_cost = 0.0
        self._context_size: int | None = None
        self._stream = Stream()
        self._start(available)

    def _start(self, available: dict[str, Strategy] | None = None) -> None:
        """Nothing is known."""
        self._strategies = available or strategies(self._M, self._cost, self._seed)
        self._family: Family | None = None
        self._choice: Choice | None = None
        self._suspicious = False  # of the facts of the family, since a champion has failed
        self._prices: deque[float] = deque(maxlen=9)  # seconds for a unit of work, of the last solves
        if self._warm is not None:
            self._warm = WarmStart()

    @property
    def method(self) -> str:
        """The best so far."""
        return self._single or (self._choice.champion if self._choice else "")

    # -- One system ---------------------------------------------------------------------------------------------------

    def solve(self, A: Any, b: Any, context: Any = None) -> Result:
        """Solve the next system of the sequence.

        Parameters
        ----------
        A : array, sparse matrix or array, StencilOperator, LinearOperator or callable
            Shape (n, n).
        b : array, shape (n,) or (n, k)
        context : float or array of shape (d,), optional
            What distinguishes the system from the others; of the same length for all of a sequence. One number tells
            "ssor-cg" what is known of its factor.

        Returns
        -------
        Result
            With the products, iterations and seconds of all that was tried; its ``reason`` says what that was. Never
            raises for want of convergence.

        Raises
        ------
        ValueError, TypeError
            If A or b has the wrong shape or type, or the context another length than before.
        """
        started = perf_counter()
        rhs = right_hand_side(b)
        place = self._checked_context(context)
        news = self._stream.meet(A, rhs)
        if news:
            self._start()
        system = self._stream.system
        if self._warm is not None and self._stream.repeats == 1:
            self._warm.another_matrix()
        if not (system.finite and np.isfinite(rhs).all()):
            return gmres(system, rhs, rtol=self.rtol, atol=self.atol)  # which names the fault
        if self._family is None or self._suspicious:
            self._look(1 if rhs.ndim == 1 else rhs.shape[1])
        family = self._family
        assert family is not None
        if family.negative:
            system, rhs = self._stream.negated, -rhs
        relaxation = self._strategies.get("ssor-cg")
        if isinstance(relaxation, Relaxation):
            relaxation.context = place
        task = Task(system, rhs, family, self._stream.generation, self.rtol, self.atol)
        before = system.products
        result = self._alone(task, started) if self._single else self._compete(task, started)
        if self._warm is not None and result.converged:
            self._warm.learn(result.x, rhs)
        self.systems += 1
        return replace(
            result,
            reason="; ".join(filter(None, [news, result.reason])),
            matvecs=system.products - before,
        )

    def _checked_context(self, context: Any) -> float | None:
        """Its one number, if it is one."""
        if context is None:
            size = 0
        else:
            values = np.asarray(context)
            if values.dtype.kind not in "fiub" or values.ndim > 1 or not np.isfinite(values).all():
                raise ValueError(
                    f"context: expected a finite number or a vector of such, got {values.dtype} of shape {values.shape}"
                )
            size = values.size
        if self._context_size is not None and size != self._context_size:
            raise ValueError(
                f"context: has length {size}, the systems before had {self._context_size}; give all systems of a "
                "sequence contexts of one length, or start another SequenceSolver"
            )
        self._context_size = size
        return float(values.reshape(-1)[0]) if size == 1 else None

    def _look(self, columns: int) -> None:
        """Facts of the family, and the strategies that fit it, those first that are expected to be quickest."""
        family = Family.of(self._stream.system, columns)
        self._suspicious = False
        if family == self._family:
            return
        fitting = [name for name in self._names if self._strategies[name].fits(family)] or self._names
        self._family = family
        fitting.sort(key=lambda name: sum(self._outlook(name, 1.0)[1:3]))
        if not self._single:
            self._choice = Choice(fitting, lambda name: self._strategies[name].plays)

    # -- How it is solved ---------------------------------------------------------------------------------------------

    def _alone(self, task: Task, started: float) -> Result:
        """With the only strategy there is."""
        result, work = self._run(self._strategies[self._single], task, self.time_limit)
        self.last_cost = perf_counter() - started if self._cost == "seconds" else work
        return result

    def _compete(self, task: Task, started: float) -> Result:
        """With the strategy that is chosen, then with others if it fails."""
        began = perf_counter()
        choice = self._choice
        assert choice is not None
        price = 1.0 if self._cost == "work" else self._price
        name, budget = choice.suggest(lambda name: self._outlook(name, price))
        champion = choice.champion
        if name == champion:
            budget = _TOO_LONG * choice.mean(name) if len(choice.names) > 1 else inf
        limit = self.time_limit
        if self._cost == "work":
            task.work = budget
        elif budget < inf:
            limit = min(inf if limit is None else limit, budget)
        result, work = self._run(self._strategies[name], task, limit)
        solved = result.status in _SETTLED
        unusable = result.iterations == 0 and result.status in _REFUSED and choice.mean(name) == inf
        if not solved:
            result, more = self._finish(name, result, champion, task, started)
            work += more
            self._suspicious = name == champion
        seconds = perf_counter() - began
        if name == champion or not self._prices:
            self._prices.append(seconds / max(work, SOLVE))
        choice.update(seconds if self._cost == "seconds" else work, solved)
        self.last_cost = perf_counter() - started if self._cost == "seconds" else work
        if unusable:
            choice.give_up(name)
        return result

    def _outlook(self, name: str, price: float) -> Outlook:
        """In units of cost."""
        assert self._family is not None
        expected = self._strategies[name].outlook(self._family, self._stream.generation, self._stream.repeats)
        return Outlook(price * expected.least, price * expected.usual, price * expected.made, expected.serves)

    @property
    def _price(self) -> float:
        """Seconds for a unit of work."""
        return sorted(self._prices)[len(self._prices) // 2] if self._prices else 0.0

    def _run(self, strategy: Strategy, task: Task, limit: float | None) -> tuple[Result, float]:
        """One strategy on one system, with a first guess where that pays; the Result and its work."""
        task.time_limit = limit
        family, warm = task.family, self._warm
        if warm is None or strategy.exact or task.x0 is not None or task.b.ndim > 1:
            return strategy.solve(task), strategy.work
        began = perf_counter()
        task.x0 = warm.guess(task.system, task.b, family.definite)
        price = perf_counter() - began
        result = strategy.solve(task)
        if task.x0 is None:
            return result, strategy.work + warm.products * family.product
        guess = warm.products * family.product + 8 * warm.keep * family.n
        if result.iterations and not strategy.exact:
            if self._cost == "work":
                price = guess / ((strategy.work - SOLVE) / result.iterations)
            else:
                price /= result.solve_seconds / result.iterations
            drop = log(float(result.history[0]) / max(result.residual_norm, 1e-300))
            warm.judge(price, result.iterations, drop)
        return result, strategy.work + guess

    def _finish(self, name: str, result: Result, champion: str, task: Task, started: float) -> tuple[Result, float]:
        """The champion, and in the end what `solve` finds, each from where the one before has left off."""
        family, work = task.family, 0.0
        story = f"{name} was given up ({result.status.name}{': ' + result.reason if result.reason else ''})"

        def time_left() -> float | None:
            return None if self.time_limit is None else self.time_limit - (perf_counter() - started)

        left = time_left()
        if champion not in ("", name) and (left is None or left > 0):
            finish = replace(task, x0=result.x, work=inf)
            second, work = self._run(self._strategies[champion], finish, left)
            result = replace(joined(result, second), reason=f"{story}; {champion} went on from there; {second.reason}")
            story = result.reason
        left = time_left()
        if result.status not in _SETTLED and (left is None or left > 0):
            M = self._M if self._M is None or isinstance(self._M, str) else copy(self._M)
            last = solve(
                task.system, task.b, x0=result.x, rtol=self.rtol, atol=self.atol, M=M, time_limit=left, throw=False
            )
            work += SOLVE + last.matvecs * family.product + last.preconditioner_applies * 20.0 * family.n
            work += last.iterations * family.iteration(20.0)
            work += family.factorisation if "direct" in last.method else 0.0
            result = replace(joined(result, last), reason=f"{story}; {last.method} went on from there; {last.reason}")
        return result, work

    # -- To save ------------------------------------------------------------------------------------------------------

    def _settings(self) -> dict[str, Any]:
        return {
            "names": self._names,
            "rtol": self.rtol,
            "atol": self.atol,
            "cost": self._cost,
            "seed": self._seed,
            "warm_start": self._warm is not None,
        }

    def state_dict(self) -> dict[str, Any]:
        """Arrays and scalars, in dicts and lists, from which the same choices follow (with work as cost).

        Factors and hierarchies are not in it, but the entries of the matrices that they were made of.
        """
        return {
            "format_version": 1,
            "settings": self._settings(),
            "systems": self.systems,
            "context_size": self._context_size,
            "stream": self._stream.state_dict(),
            "family": None if self._family is None else asdict(self._family),
            "suspicious": self._suspicious,
            "choice": None if self._choice is None else self._choice.state_dict(),
            "strategies": {name: strategy.state_dict() for name, strategy in self._strategies.items()},
            "warm_start": None if self._warm is None else self._warm.state_dict(),
            "prices": list(self._prices),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Raises
        ------
        ValueError
            If it is not the state of a SequenceSolver that was made with the same arguments.
        """
        if state.get("format_version") != 1 or "settings" not in state:
            raise ValueError("state: is not one of SequenceSolver, or of a later version")
        own = self._settings()
        for name, value in own.items():
            if state["settings"].get(name) != value:
                raise ValueError(
                    f"state: was saved with {name} {state['settings'].get(name)!r}, this solver has {value!r}"
                )
        self._start()
        self.systems = int(state["systems"])
        self._context_size = state["context_size"]
        self._stream.load_state_dict(state["stream"])
        self._suspicious = bool(state["suspicious"])
        self._prices.extend(state["prices"])
        self._family = None if state["family"] is None else Family(**state["family"])
        if state["choice"] is not None:
            self._choice = Choice(list(state["choice"]["arms"]), lambda name: self._strategies[name].plays)
            self._choice.load_state_dict(state["choice"])
        if self._warm is not None:
            self._warm.load_state_dict(state["warm_start"])
        system = None
        if self._stream.known:
            negative = self._family is not None and self._family.negative
            system = self._stream.negated if negative else self._stream.system
        for name, strategy in self._strategies.items():
            strategy.load_state_dict(state["strategies"][name], system, self._family, self._stream.generation)

    def __str__(self) -> str:
        lines = [f"SequenceSolver, {self.systems} systems so far, cost in {self._cost}"]
        if self._choice is not None:
            for name in sorted(self._choice.names, key=self._choice.mean):
                mean = self._choice.mean(name)
                lines.append(f"  {name:13s} {'not known' if mean == inf else f'{mean:.3g} a system of late'}")
        return "\n".join(lines)
