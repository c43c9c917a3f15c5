"""Chains of pointwise layers, a slab of points at a time.

What acts on each point by itself can be done for some thousand points from the first layer to the last while they are
in the cache, and done again for the gradients, instead of sending every intermediate field of the whole batch to
memory and back. Where those fields are wider than what goes in and comes out that saves most of the memory and, on a
CPU, time as well: a fresh block of 16 MB costs its system 4,096 page faults, four milliseconds, which is more than
what is computed in it. Where they are not, doing the chain twice was measured to cost more than it saves.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from operators.devices import by_library

# Numbers of the widest field in a slab: 2 MB in single precision, and so much work that the tenth of a millisecond that
# Python and autograd take for a slab does not count. Half and twice as many were measured to be as fast.
SLAB = 2**19


class _Slabs(torch.autograd.Function):
    """A chain over slabs; its inputs are saved, and the chain is done again for the gradients."""

    @staticmethod
    def forward(ctx: Any, chain: Callable[..., Tensor], rows: int, count: int, *tensors: Tensor) -> Tensor:
        ctx.chain, ctx.rows, ctx.count = chain, rows, count
        ctx.save_for_backward(*tensors)
        pieces = zip(*(field.split(rows) for field in tensors[:count]), strict=True)
        first = chain(*next(pieces))
        result = first.new_empty(len(tensors[0]), *first.shape[1:])
        result[:rows] = first
        for start, slab in enumerate(pieces, start=1):
            result[start * rows : (start + 1) * rows] = chain(*slab)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        tensors, count = ctx.saved_tensors, ctx.count
        fields, parameters = tensors[:count], tensors[count:]
        wanted = ctx.needs_input_grad[3:]
        if torch.is_grad_enabled():  # gradients of gradients: the chain as autograd sees it
            chosen = [tensor for tensor, needed in zip(tensors, wanted, strict=True) if needed]
            found = iter(torch.autograd.grad(ctx.chain(*fields), chosen, gradient, create_graph=True))
            return (None, None, None, *(next(found) if needed else None for needed in wanted))
        by_field = [torch.empty_like(f) if needed else None for f, needed in zip(fields, wanted[:count], strict=True)]
        of_parameters = [p for p, needed in zip(parameters, wanted[count:], strict=True) if needed]
        totals = [torch.zeros_like(p) for p in of_parameters]
        for start in range(0, len(gradient), ctx.rows):
            chosen_rows = slice(start, start + ctx.rows)
            slab = [
                f[chosen_rows].detach().requires_grad_(by is not None) for f, by in zip(fields, by_field, strict=True)
            ]
            with torch.enable_grad():
                result = ctx.chain(*slab)
            inputs = [piece for piece in slab if piece.requires_grad] + of_parameters
            found = iter(torch.autograd.grad(result, inputs, gradient[chosen_rows]))
            for by in by_field:
                if by is not None:
                    by[chosen_rows] = next(found)
            for total, part in zip(totals, found, strict=True):
                total += part
        of = iter(totals)
        return (None, None, None, *by_field, *(next(of) if needed else None for needed in wanted[count:]))


def by_slabs(chain: Callable[..., Tensor], parameters: Iterable[Tensor], width: int, *fields: Tensor) -> Tensor:
    """Apply a chain of pointwise layers, slab by slab on a CPU if there are several.

    Parameters
    ----------
    chain : callable
        Maps fields ``(..., channels)`` to a field with the same leading axes, each point by itself.
    parameters : iterable of Tensor
        What `chain` uses besides, for the gradients.
    width : int
        Channels of the widest field in the chain.
    *fields : Tensor, shape (..., channels)
        With the same leading axes.

    Returns
    -------
    Tensor, shape (..., channels)
        ``chain(*fields)``.

    Examples
    --------
    >>> by_slabs(torch.add, [], 1, torch.ones(2, 3, 1), torch.ones(2, 3, 1)).shape
    torch.Size([2, 3, 1])
    """
    leading = fields[0].shape[:-1]
    line = leading[-1]
    rows = max(SLAB // (line * width), 1)
    x = fields[0]
    if by_library(x) or leading.numel() <= rows * line:
        return chain(*fields)
    lines = [field.reshape(-1, line, field.shape[-1]) for field in fields]
    result: Tensor = _Slabs.apply(chain, rows, len(lines), *lines, *parameters)
    return result.reshape(*leading, -1)
