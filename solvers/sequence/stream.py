"""The system at hand, and whether its matrix is that of the last one."""

from typing import Any

import numpy as np

from solvers.matrix_state import matrix_of_state, matrix_state, same_values, sample
from solvers.stencil import StencilOperator
from solvers.system import System

Signature = tuple[str, int, str, int]  # kind of A, unknowns, type of the numbers, right-hand sides


class Stream:
    """Systems one after the other.

    Attributes
    ----------
    generation : int
        A number that changes when A does.
    repeats : int
        Systems so far with this A.
    known : bool
        There is a system, or there was one whose matrix could be saved.

    Examples
    --------
    >>> stream = Stream()
    >>> for A in (np.eye(2), np.eye(2), 2 * np.eye(2)):
    ...     _ = stream.meet(A, np.ones(2))
    ...     print(stream.generation, stream.repeats)
    1 1
    1 2
    2 1
    >>> stream.meet(np.eye(3), np.ones(3))
    'this is a ndarray of 3 unknowns, float64, the last one was a ndarray of 2 unknowns, float64: all is learned anew'
    """

    def __init__(self) -> None:
        self.generation = self.repeats = 0
        self._signature: Signature | None = None
        self._system: System | None = None
        self._minus: System | None = None
        self._as_given: Any = None
        self._sample = np.empty(0)

    @property
    def known(self) -> bool:
        return self._system is not None

    @property
    def system(self) -> System:
        """As given."""
        assert self._system is not None
        return self._system

    @property
    def negated(self) -> System:
        """That of -A."""
        if self._minus is None:
            self._minus = self.system.negated()
        return self._minus

    def meet(self, A: Any, b: np.ndarray) -> str:
        """Make A the present system; a sentence if it is of another kind than the last one.

        Raises
        ------
        ValueError, TypeError
            If A is no system for b; then nothing is changed.
        """
        kind, before = _signature(A, b), self._signature
        if kind == before and self._as_given is not None and self._is_the_last(A):
            self.repeats += 1
            if not (self.known and isinstance(A, StencilOperator)):
                # What a System remembers, and a grid found in it, is of the numbers that A held then.
                self._system, self._minus = System.of(A, size=b.shape[0], dtype=b.dtype), None
            return ""
        self._system, self._minus = System.of(A, size=b.shape[0], dtype=b.dtype), None
        self._signature = kind
        self._as_given, self._sample = A, sample(A)
        self.generation, self.repeats = self.generation + 1, 1
        if before in (None, kind):
            return ""
        return f"this is {_in_words(kind)}, the last one was {_in_words(before)}: all is learned anew"

    def _is_the_last(self, A: Any) -> bool:
        """Whether A is that of the last system, as far as what was set up for it goes: residuals are true anyway."""
        if A is self._as_given:
            return np.array_equal(sample(A), self._sample)
        return same_values(A, self._as_given)

    def state_dict(self) -> dict[str, Any]:
        """Scalars, and the entries of A if it shows them; of others the next one is taken to be new."""
        return {
            "generation": self.generation,
            "repeats": self.repeats,
            "signature": None if self._signature is None else list(self._signature),
            "matrix": None if self._as_given is None else matrix_state(self._as_given),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.__init__()  # type: ignore[misc]
        self.generation, self.repeats = int(state["generation"]), int(state["repeats"])
        if state["signature"] is not None:
            name, n, dtype, columns = state["signature"]
            self._signature = (str(name), int(n), str(dtype), int(columns))
            if state["matrix"] is not None:
                self._as_given = matrix_of_state(state["matrix"])
                self._sample = sample(self._as_given)
                self._system = System.of(self._as_given, dtype=np.dtype(dtype))


def _signature(A: Any, b: np.ndarray) -> Signature:
    own = getattr(A, "dtype", None)
    dtype = np.result_type(np.float64 if own is None else own, b.dtype)
    return type(A).__name__, b.shape[0], dtype.char, 1 if b.ndim == 1 else b.shape[1]


def _in_words(kind: Signature | None) -> str:
    assert kind is not None
    name, n, dtype, columns = kind
    several = f" with {columns} right-hand sides" if columns > 1 else ""
    return f"a {name} of {n} unknowns, {np.dtype(dtype)}{several}"
