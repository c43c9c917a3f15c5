"""What all policies share: one protocol, checks at the door, random numbers that can be resumed, and states to save.

A policy chooses a parameter for each system of a stream and learns from nothing but what the solve then cost.
"""

from math import isfinite
from numbers import Real
from typing import Any, ClassVar, Protocol

import numpy as np
from numba import njit

_BLOCK = 1024  # random numbers drawn at once


class Policy(Protocol):
    """A rule that chooses a parameter for each system of a stream and learns from its cost.

    Attributes
    ----------
    probabilities : ndarray, shape (arms,)
        With which the last suggestion was drawn from the arms it was drawn from.
    products : int
        Products with a matrix that the policy has taken so far, for those that look at matrices: to be charged, one
        for an iteration.

    Examples
    --------
    >>> from solvers.tuning import TsallisINF
    >>> policy: Policy = TsallisINF([1.0, 1.5, 1.9], seed=7)
    >>> for system in range(100):
    ...     omega = policy.suggest()
    ...     policy.update(cost=10.0 + 20.0 * abs(omega - 1.5))
    >>> bool(policy.probabilities.argmax() == 1)
    True
    """

    probabilities: np.ndarray
    products: int

    def suggest(self, context: Any = None, A: Any = None) -> float:
        """The parameter for the next system.

        Parameters
        ----------
        context : float or array of shape (1,), optional
            A number that says in what the system differs from the others; policies without use for it ignore it.
        A : array, sparse matrix or array, or StencilOperator, optional
            The matrix, for policies that look at it.
        """

    def update(self, cost: float) -> None:
        """What the system cost with the last suggestion: iterations, work or seconds, all of one kind."""

    def state_dict(self) -> dict[str, Any]:
        """Arrays and scalars from which `load_state_dict` goes on with the same choices."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""


class Saved:
    """States of the attributes named in `_saved`, as copies.

    The values are arrays, numbers and other `Saved` objects, whose entries carry the name and a slash before theirs;
    `_fixed` names those that must agree with what the object was made with.
    """

    _saved: ClassVar[tuple[str, ...]] = ()
    _fixed: ClassVar[tuple[str, ...]] = ()

    def state_dict(self) -> dict[str, Any]:
        """Arrays and scalars from which `load_state_dict` goes on with the same choices."""
        state: dict[str, Any] = {}
        for name in (*self._fixed, *self._saved):
            key, value = name.lstrip("_"), getattr(self, name)
            if isinstance(value, Saved):
                state |= {f"{key}/{inner}": v for inner, v in value.state_dict().items()}
            else:
                state[key] = value.copy() if isinstance(value, np.ndarray) else value
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Raises
        ------
        ValueError
            If the state is not that of an object made with the same arguments.
        """
        own = self.state_dict()
        if set(own) != set(state):
            wrong = ", ".join(sorted(set(own) ^ set(state)))
            raise ValueError(f"state: is not one of {type(self).__name__}, or of another version: {wrong}")
        for name in self._fixed:
            key = name.lstrip("_")
            if not np.array_equal(own[key], state[key]):
                raise ValueError(f"state: was saved with {key} {state[key]}, this policy has {own[key]}")
        for name in self._saved:
            key, value = name.lstrip("_"), getattr(self, name)
            if isinstance(value, Saved):
                value.load_state_dict({k[len(key) + 1 :]: v for k, v in state.items() if k.startswith(f"{key}/")})
            elif isinstance(value, np.ndarray):
                setattr(self, name, np.array(state[key], dtype=value.dtype))
            else:
                setattr(self, name, type(value)(state[key]))


class Draws:
    """Uniform random numbers by their position: number t of a seed is the same whenever it is asked for.

    Examples
    --------
    >>> Draws(7)(5000) == Draws(7)(5000)
    True
    """

    def __init__(self, seed: int) -> None:
        if not isinstance(seed, int | np.integer) or isinstance(seed, bool) or seed < 0:
            raise ValueError(f"seed: expected a whole number that is not negative, got {seed!r}")
        self.seed = int(seed)
        self._block, self._numbers = -1, np.empty(0)

    def __call__(self, t: int) -> float:
        block, place = divmod(t, _BLOCK)
        if block != self._block:
            generator = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(block,)))
            self._block, self._numbers = block, generator.random(_BLOCK)
        return float(self._numbers[place])

    def choice(self, t: int, probabilities: np.ndarray) -> int:
        """An index with these probabilities."""
        return _pick(probabilities, self(t))


@njit(cache=True, nogil=True)
def _pick(probabilities, u):  # type: ignore[no-untyped-def]
    """The first place at which the cumulative probability exceeds u."""
    rest = u * probabilities.sum()
    last = 0
    for i in range(probabilities.size):
        if probabilities[i] > 0.0:
            last = i
        rest -= probabilities[i]
        if rest < 0.0:
            return i
    return last


def checked_arms(arms: Any) -> np.ndarray:
    """The parameters to choose from, shape (arms,).

    Raises
    ------
    ValueError
        If there are none, or they are not numbers.
    """
    values = np.array(arms, dtype=float)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"arms: expected a list of at least one parameter to choose from, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"arms: expected finite numbers, got {values}")
    return values


def checked_interval(interval: Any) -> tuple[float, float]:
    """Where the contexts lie.

    Raises
    ------
    ValueError
        If these are not two finite numbers, the smaller one first.
    """
    values = np.asarray(interval, dtype=float)
    if values.shape != (2,) or not np.isfinite(values).all() or not values[0] < values[1]:
        raise ValueError(f"interval: expected two numbers (low, high) with low < high, got {interval!r}")
    return float(values[0]), float(values[1])


def scaled_context(context: Any, interval: tuple[float, float]) -> float:
    """A context as a number that is -1 at one end of the interval and 1 at the other.

    Raises
    ------
    ValueError
        If it is missing, is not one finite number, or has another length.
    """
    if not isinstance(context, float):
        values = np.asarray(np.nan if context is None else context, dtype=float)
        if values.size != 1 or values.ndim > 1:
            raise ValueError(f"context: expected one number or an array of length 1, got shape {values.shape}")
        context = values.reshape(-1)[0]
    context = float(context)  # numpy's own numbers are slow
    if not isfinite(context):
        raise ValueError(f"context: expected a finite number from {interval[0]:g} to {interval[1]:g}, got {context}")
    low, high = interval
    return 2.0 * (context - low) / (high - low) - 1.0


def checked_cost(cost: Any, suggested: bool) -> float:
    """A cost, where there was a suggestion that it belongs to.

    Raises
    ------
    ValueError
        If it is not a finite number that is not negative.
    RuntimeError
        If nothing was suggested since the last update.
    """
    if not isinstance(cost, Real) or not isfinite(cost) or cost < 0:
        raise ValueError(
            f"cost: expected a finite number that is not negative, got {cost!r}; charge a solve that failed with what "
            "it and the method that finished it took"
        )
    if not suggested:
        raise RuntimeError("update: there is no suggestion that this cost could belong to; call suggest first")
    return float(cost)
