"""Optimizers, parameter groups and learning-rate schedules by name.

Other distributions add optimizers through the entry-point group ``southwell.optimizers``: anything called as
``optimizer(parameters, **arguments)``, where parameters may be torch's parameter groups.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import Optimizer

from operators.optimizers.complex_adamw import ComplexAdamW
from operators.optimizers.groups import (
    SET_APART,
    complex_parameters,
    groupings,
    matrix_parameters,
    set_apart,
    trainable,
)
from operators.optimizers.library import adahessian, adamp, muon, shampoo, soap
from operators.optimizers.schedules import Plateau, schedulers
from solvers.registry import Registry, fits

optimizers: Registry = Registry("optimizer", group="southwell.optimizers")
optimizers.register("adamw")(torch.optim.AdamW)
optimizers.register("adam")(torch.optim.Adam)
optimizers.register("sgd")(torch.optim.SGD)
optimizers.register("complex_adamw")(ComplexAdamW)
optimizers.register("soap")(soap)
optimizers.register("muon")(muon)
optimizers.register("adahessian")(adahessian)
optimizers.register("adamp")(adamp)
optimizers.register("shampoo")(shampoo)


NEED_WHOLE_WEIGHTS = ("soap", "adamp", "adahessian", "shampoo")  # of the library's


def build_optimizer(
    module: nn.Module, name: str, *, groups: Mapping[str, Any] | None = None, **arguments: Any
) -> Optimizer:
    """The optimizer of a model's trainable parameters.

    Parameters
    ----------
    module : Module
    name : str
        Registered name.
    groups : mapping, optional
        ``name`` of a registered grouping and its arguments, which gives groups of parameters their own learning rates
        and decay. Without it, all have those of the optimizer.
    **arguments
        Of the optimizer. A grouping needs ``lr``; ``weight_decay`` is 0 if not given.

    Raises
    ------
    ValueError
        If a name or argument is unknown, there is nothing to train, or the optimizer cannot train sharded weights.

    Examples
    --------
    >>> from operators.models import FNO
    >>> model = FNO(n_modes=(4, 4), in_channels=1, out_channels=1, hidden_channels=8, n_layers=2)
    >>> optimizer = build_optimizer(model, "complex_adamw", lr=1e-3)
    >>> [(group["complex_pairs"], len(group["params"])) for group in optimizer.param_groups]
    [(True, 2), (False, 22)]
    """
    _refuse_out_of_range(arguments)
    if groups is None:
        parameters: list[Any] = [{"params": trainable(module.parameters())}]
    else:
        if "lr" not in arguments or "name" not in groups:
            missing = "optimizer.groups.name" if "name" not in groups else "optimizer.lr"
            raise ValueError(f"{missing} must be given where there are parameter groups")
        given = {"lr": arguments["lr"], "weight_decay": arguments.get("weight_decay", 0.0), **groups}
        made = groupings.build(given.pop("name"), module, **given)
        parameters = [{**group, "params": trainable(group["params"])} for group in made]
    for group in parameters:
        _refuse_out_of_range(group)
    if not any(group["params"] for group in parameters):
        raise ValueError(f"nothing to train: {type(module).__name__} has no parameter that requires a gradient")
    if name in NEED_WHOLE_WEIGHTS and any(isinstance(parameter, DTensor) for parameter in module.parameters()):
        raise ValueError(
            f"optimizer {name!r} needs whole weights, which trainer.distributed=fsdp has not; use ddp, or one of "
            "adamw, adam, sgd, complex_adamw, muon"
        )
    if name in SET_APART:
        flag, chosen = SET_APART[name]
        parameters = set_apart(parameters, flag, chosen(module))
    optimizer: Optimizer = optimizers.build(name, parameters, **arguments)
    return optimizer


def _refuse_out_of_range(arguments: Mapping[str, Any]) -> None:
    """Checks of what all optimizers mean alike, as not all of them check (and some raise what is no ValueError)."""
    expected = {
        **dict.fromkeys(("lr", "weight_decay", "eps"), ("a number of at least 0", 0.0, math.inf, float)),
        **dict.fromkeys(("betas", "momentum"), ("in [0, 1)", 0.0, 1.0, float)),
        **dict.fromkeys(
            ("precondition_frequency", "update_period"), ("a whole number of at least 1", 1, math.inf, int)
        ),
    }
    for name in expected.keys() & arguments.keys():
        words, least, below, kind = expected[name]
        value = arguments[name]
        for number in value if isinstance(value, (list, tuple)) else [value]:
            if not (fits(number, kind) and least <= number < below):
                raise ValueError(f"optimizer.{name} must be {words}, got {value!r}")


def is_second_order(optimizer: Optimizer) -> bool:
    """Whether the optimizer differentiates the gradient again; see `backward`.

    Parameters
    ----------
    optimizer : Optimizer
        One that does has the attribute ``second_order = True``.
    """
    return bool(getattr(optimizer, "second_order", False))


@contextmanager
def attention_for(optimizer: Optimizer) -> Iterator[None]:
    """Within it, attention is computed so that the optimizer can differentiate it as often as it needs.

    The fused kernels of `scaled_dot_product_attention` have no second derivative: a second-order optimizer gets the
    plain formula, whatever backend the model would choose.

    Parameters
    ----------
    optimizer : Optimizer
    """
    if is_second_order(optimizer):
        with sdpa_kernel(SDPBackend.MATH):
            yield
    else:
        yield


def backward(loss: Tensor, optimizer: Optimizer) -> None:
    """Add the loss's gradient to the parameters': with its graph, where the optimizer is of second order.

    The next ``optimizer.zero_grad()`` frees that graph.

    Parameters
    ----------
    loss : Tensor
        A scalar, computed under `attention_for`.
    optimizer : Optimizer
    """
    if not is_second_order(optimizer):
        loss.backward()
        return
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    gradients = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            # A copy, as clipping changes it in place and the graph may need the original.
            parameter.grad = gradient.clone() if parameter.grad is None else parameter.grad + gradient


__all__ = [
    "ComplexAdamW",
    "Plateau",
    "attention_for",
    "backward",
    "build_optimizer",
    "complex_parameters",
    "groupings",
    "is_second_order",
    "matrix_parameters",
    "optimizers",
    "schedulers",
]
