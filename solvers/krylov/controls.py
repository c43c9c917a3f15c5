"""The arguments that all methods take, checked at the door."""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from numbers import Integral, Real
from time import perf_counter
from typing import Any

import numpy as np
import scipy.sparse as sp

from solvers.system import working_dtype

Callback = Callable[[np.ndarray], Any]


@dataclass
class Controls:
    """The arguments that all methods take, checked.

    Raises
    ------
    ValueError, TypeError
        With a sentence that names the argument.
    """

    rtol: float = 1e-5
    atol: float = 0.0
    maxiter: int | None = None
    callback: Callback | None = None
    time_limit: float | None = None
    started: float = field(default_factory=perf_counter)

    def __post_init__(self) -> None:
        for name in ("rtol", "atol"):
            value = getattr(self, name)
            if not isinstance(value, Real) or not float(value) >= 0:
                raise ValueError(f"{name}: expected a number that is zero or positive, got {value!r}")
        if self.maxiter is not None and (not isinstance(self.maxiter, Integral) or self.maxiter < 0):
            raise ValueError(f"maxiter: expected None or a whole number that is not negative, got {self.maxiter!r}")
        if self.callback is not None and not callable(self.callback):
            raise TypeError(f"callback: expected a callable that takes x, got {type(self.callback).__name__}")
        limit = self.time_limit
        if limit is not None and (not isinstance(limit, Real) or not float(limit) > 0):
            raise ValueError(f"time_limit: expected None or a positive number of seconds, got {limit!r}")

    @property
    def deadline(self) -> float:
        """The `perf_counter` time at which to stop."""
        return inf if self.time_limit is None else self.started + self.time_limit


def right_hand_side(b: Any) -> np.ndarray:
    """`b` as an array of numbers, shape (n,) or (n, k).

    Raises
    ------
    ValueError, TypeError
        With a sentence that says what b must be.
    """
    if sp.issparse(b):
        raise TypeError("b: is a sparse matrix; pass b.toarray()")
    array = np.asarray(b)
    try:
        working_dtype(array.dtype)
    except TypeError as error:
        raise TypeError(f"b: {error}") from None
    if array.ndim not in (1, 2):
        raise ValueError(f"b: expected shape (n,) or (n, k), got {array.shape}; flatten fields in C order")
    if array.size == 0:
        raise ValueError(f"b: is empty, of shape {array.shape}")
    return array
