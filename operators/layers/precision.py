"""Layers that keep single precision inside mixed-precision training."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

Forward = TypeVar("Forward", bound=Callable[..., Any])


def in_single_precision(forward: Forward) -> Forward:
    """Decorator of a module's forward: half-precision tensors come in as float32, and autocast is off inside.

    For what loses its digits in half precision, such as Fourier transforms: a coefficient is a difference of sums over
    the whole grid, and bfloat16 has 8 bits for both.

    Parameters
    ----------
    forward : callable
        ``forward(self, *tensors)``.

    Examples
    --------
    >>> class Sum(torch.nn.Module):
    ...     @in_single_precision
    ...     def forward(self, x):
    ...         return x @ x.T
    >>> with torch.autocast("cpu", dtype=torch.bfloat16):
    ...     Sum()(torch.ones(2, 2, dtype=torch.bfloat16)).dtype
    torch.float32
    """

    @wraps(forward)
    def wide(self: Any, *arguments: Any, **named: Any) -> Any:
        kinds = {a.device.type for a in (*arguments, *named.values()) if isinstance(a, Tensor)}
        if not any(torch.is_autocast_enabled(kind) for kind in kinds):
            return forward(self, *arguments, **named)
        (kind,) = kinds
        with torch.autocast(kind, enabled=False):
            return forward(self, *map(_single, arguments), **{name: _single(value) for name, value in named.items()})

    return wide  # type: ignore[return-value]


def _single(value: Any) -> Any:
    half = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if half else value
