"""Layers whose intermediate results are computed again for the gradients, and so need not be kept."""

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from operators.devices import random_state, set_random_state


class _Place:
    """Stands for a tensor that autograd would have kept."""


def recomputed(function: Callable[..., Any], *inputs: Tensor) -> Any:
    """Apply a function, and apply it again when gradients are wanted.

    Both times with the same random numbers, and under the same autocast. `torch.utils.checkpoint` does the same, but
    loads torch's compiler when it is first used, 65 MB that a small model's whole training may not need; it serves
    where the compiler is at work.

    Parameters
    ----------
    function : callable
        Of tensors; it may use parameters besides. It does the same operations each time.
    *inputs : Tensor

    Returns
    -------
    object
        ``function(*inputs)``.

    Examples
    --------
    >>> x = torch.ones(3, requires_grad=True)
    >>> recomputed(lambda x: x.exp().sin().sum(), x).backward()
    >>> torch.allclose(x.grad, torch.ones(3).exp().cos() * torch.ones(3).exp())
    True
    """
    if not torch.is_grad_enabled():
        return function(*inputs)
    if torch.compiler.is_compiling():
        return checkpoint(function, *inputs, use_reentrant=False)
    device = inputs[0].device
    state = random_state(device)
    half = torch.is_autocast_enabled(device.type), torch.get_autocast_dtype(device.type)
    places: list[ref[_Place]] = []  # in the order in which tensors are kept, which is the same the second time
    made: WeakKeyDictionary[_Place, Tensor] = WeakKeyDictionary()

    def stand_in(_: Tensor) -> _Place:
        place = _Place()
        places.append(ref(place))
        return place

    def make() -> None:
        waiting = iter(places)

        def fill(tensor: Tensor) -> Tensor:
            place = next(waiting)()
            if place is not None:  # otherwise what needed it is gone
                made[place] = tensor.detach()
            return tensor.detach()

        now = random_state(device)
        set_random_state(state, device)
        try:
            with (
                torch.enable_grad(),
                torch.autocast(device.type, enabled=half[0], dtype=half[1]),
                saved_tensors_hooks(fill, lambda tensor: tensor),
            ):
                function(*(tensor.detach().requires_grad_(tensor.requires_grad) for tensor in inputs))
        finally:
            set_random_state(now, device)

    def find(place: _Place) -> Tensor:
        if place not in made:
            make()
        return made[place]

    with saved_tensors_hooks(stand_in, find):
        return function(*inputs)
