"""The preconditioner of an earlier matrix, for a stream of matrices that differ a little.

Factors of a 2D matrix of 10,000 rows cost as much as 40 applications; if those of an earlier matrix need 5 iterations
more than fresh ones would, they are worth keeping. Whether they still are is seen from the iterations alone:

- before a solve: if the last one took more applications than one with fresh factors, by more than a set-up costs;
- not at all for a while, if that of the last matrix was of no use for the next: for 1, 3, 7, ... matrices, up to 63;
- inside a solve: as soon as it has taken so many. Then the method stops where it is, the inner preconditioner is set up
  for the matrix at hand, and the method goes on from there (see `solvers.krylov.driver`). No solve therefore costs
  more than about twice what fresh factors would have cost.

The second rule is that of the ski rental problem (A. Karlin, M. Manasse, L. Rudolph, D. Sleator, Competitive snoopy
caching, Algorithmica 3 (1988)): rent until the rents add up to the price, then buy.

Storage and work of one application: those of the inner preconditioner, and the entries of its matrix, to save them.
"""

from copy import copy
from time import perf_counter
from typing import Any, Self

import numpy as np

from solvers.matrix_state import matrix_of_state, matrix_state
from solvers.precondition.protocol import preconditioners
from solvers.system import System

_LONGEST_PAUSE = 63
_USUAL_PRICE = 20.0  # of a set-up in applications, where the inner preconditioner does not say
_SAVED = (
    *("refreshes", "age", "fresh", "_applies", "_fresh_applies", "_seconds", "_began", "_last"),
    *("_pause", "_next_pause", "_matrix"),
)


@preconditioners.register("lagged")
class Lagged:
    """An inner preconditioner that is set up again only when it stops paying.

    Give the same object to the solves of a stream, one after the other; each solve tells it its matrix.

    Parameters
    ----------
    inner : object or str
        A preconditioner that has not been set up, or the name of a registered one.
    cost : {"work", "seconds"}
        What a set-up costs in iterations: the stated ratio of the inner kind, so that decisions are the same on every
        machine, or the ratio of measured seconds.

    Attributes
    ----------
    refreshes : int
        Set-ups of the inner preconditioner so far.
    age : int
        Matrices seen since the last one.
    fresh : bool
        The last one was for the matrix at hand, or cannot be made.

    Raises
    ------
    ValueError
        If `cost` is neither of these, or the name is not registered.

    Examples
    --------
    >>> from solvers import cg, gallery
    >>> M = Lagged("direct")
    >>> for step in range(20):
    ...     A = gallery.diffusion(1.0 + 0.01 * step * gallery.jumps((40, 40)))
    ...     assert cg(A, np.ones(1600), M=M).converged
    >>> M.refreshes
    1
    """

    def __init__(self, inner: Any = "direct", cost: str = "work") -> None:
        if cost not in ("work", "seconds"):
            raise ValueError(f"cost: expected 'work' or 'seconds', got {cost!r}")
        self._template = preconditioners.build(inner) if isinstance(inner, str) else inner
        if not hasattr(self._template, "setup"):
            raise ValueError(f"inner: expected a preconditioner object or its name, got {type(inner).__name__}")
        self.cost = cost
        self.refreshes = self.age = 0
        self.shape: tuple[int, int] | None = None
        self.dtype = np.dtype(float)
        self.symmetric = self.positive = False
        self._inner: Any = None
        self._applies = 0  # since this matrix came, or since it was set up for this matrix
        self._fresh_applies: int | None = None  # that a solve took right after a set-up
        self.fresh = False
        self._seconds = self._began = self._last = 0.0
        self._pause = self._next_pause = 0  # matrices for which nothing is kept
        self._matrix: dict[str, Any] | None = None  # that the inner preconditioner was set up for

    def setup(self, A: Any) -> Self:
        """Say what the next matrix is: keep what there is, or set up anew.

        Raises
        ------
        ValueError
            If the inner preconditioner refuses the matrix.
        """
        system = System.of(A)
        fits = self._inner is not None and system.shape == self.shape and system.dtype == self.dtype
        if self._applies and self.fresh:
            self._fresh_applies = self._applies
        paid = not self._applies or self.fresh or self._applies - self._expected <= self._price
        self._pause -= self._pause > 0
        if not fits or not paid or self._pause:
            self._refresh(system)
        else:
            self.age += 1
            self.fresh = False
            self._applies = 0
        return self

    @property
    def _expected(self) -> int:
        """Applications that a solve takes with a fresh set-up."""
        return self._fresh_applies or 0

    @property
    def _price(self) -> float:
        """A set-up in applications, each with the rest of an iteration."""
        if self.cost == "work":
            return float(getattr(self._inner, "setup_applies", _USUAL_PRICE))
        each = (self._last - self._began) / max(self._applies - 1, 1)
        return self._seconds / each if each > 0 else float("inf")

    @property
    def worn_out(self) -> bool:
        """This solve has taken so many applications that a set-up would have been cheaper."""
        return not self.fresh and self._applies - self._expected > self._price

    def refresh(self, A: Any) -> bool:
        """Set up for A in the middle of a solve; False, and everything as it was, if the inner one refuses A."""
        age = self.age
        try:
            self._refresh(System.of(A))
        except ValueError:
            self.fresh = True  # do not ask again for this matrix
            return False
        if age == 1:
            self._next_pause = min(2 * self._next_pause + 1, _LONGEST_PAUSE)
            self._pause = self._next_pause + 1
        else:
            self._next_pause = 0
        return True

    def _refresh(self, system: System) -> None:
        started = perf_counter()
        inner = copy(self._template).setup(system)
        self._seconds = perf_counter() - started
        self._keep(inner, system)
        self.refreshes += 1
        self.fresh = True

    def _keep(self, inner: Any, system: System) -> None:
        self._inner = inner
        self._matrix = matrix_state(system.original)
        self.shape, self.dtype = system.shape, system.dtype
        self.symmetric, self.positive = inner.symmetric, inner.positive
        self.age = self._applies = 0

    def adopt(self, inner: Any, A: Any, seconds: float) -> None:
        """Go on with a preconditioner that somebody else has set up for A, in so many seconds."""
        self._seconds = seconds
        self._keep(inner, System.of(A))
        self.fresh = False

    def matvec(self, r: np.ndarray) -> np.ndarray:
        """What the inner preconditioner makes of r."""
        if self.cost == "seconds":
            self._last = perf_counter()
            if not self._applies:
                self._began = self._last
        self._applies += 1
        return np.asarray(self._inner.matvec(r))

    def state_dict(self) -> dict[str, Any]:
        """Arrays and scalars, the entries of the matrix of the last set-up among them."""
        return {name: getattr(self, name) for name in _SAVED}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned; sets the inner preconditioner up again.

        Raises
        ------
        ValueError
            If the state is not one of this class.
        """
        if set(state) != set(_SAVED):
            raise ValueError(f"state: is not one of Lagged, which has {', '.join(_SAVED)}")
        if state["_matrix"] is not None:
            system = System.of(matrix_of_state(state["_matrix"]))
            self._keep(copy(self._template).setup(system), system)
        for name in _SAVED:
            setattr(self, name, state[name])

    def __str__(self) -> str:
        if self._inner is None:
            return f"Lagged {type(self._template).__name__}, not set up"
        return (
            f"Lagged, {self.refreshes} set-up{'s' if self.refreshes != 1 else ''} so far, the last {self.age} "
            f"matri{'ces' if self.age != 1 else 'x'} ago: {self._inner}"
        )
