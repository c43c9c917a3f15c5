"""Optimizers and learning-rate schedules by name.

Every schedule counts optimizer steps, not epochs. Other distributions add optimizers through the entry-point group
``southwell.optimizers``: anything called as ``optimizer(parameters, **arguments)``.
"""

import math

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from solvers.registry import Registry

optimizers: Registry = Registry("optimizer", group="southwell.optimizers")
optimizers.register("adamw")(torch.optim.AdamW)
optimizers.register("adam")(torch.optim.Adam)
optimizers.register("sgd")(torch.optim.SGD)

schedulers: Registry = Registry("scheduler")


@schedulers.register("cosine")
def cosine(optimizer: Optimizer, total_steps: int, warmup: float = 0.05, final: float = 0.0) -> LRScheduler:
    r"""Linear warm-up, then half a cosine down.

    With ``w = warmup * total_steps`` the rate of step ``s`` is the optimizer's, times

    .. math:: \min\Bigl(\frac{s + 1}{w}, 1\Bigr) \text{ for } s < w, \qquad
              f + (1 - f) \frac{1 + \cos(\pi (s - w) / (S - w))}{2} \text{ after.}

    Parameters
    ----------
    optimizer : Optimizer
    total_steps : int
        ``S``, all optimizer steps of the run.
    warmup : float in [0, 1)
        Fraction of the steps that warm up.
    final : float
        ``f``, the last rate over the largest.

    Examples
    --------
    >>> parameters = [torch.nn.Parameter(torch.zeros(1))]
    >>> optimizer = optimizers.build("sgd", parameters, lr=1.0)
    >>> schedulers.build("cosine", optimizer, total_steps=10, warmup=0.2).get_last_lr()
    [0.5]
    """
    if not 0.0 <= warmup < 1.0:
        raise ValueError(f"scheduler.warmup must be a fraction of the steps in [0, 1), got {warmup}")
    warm = warmup * total_steps

    def factor(step: int) -> float:
        if step < warm:
            return min((step + 1) / warm, 1.0)
        progress = min((step - warm) / (total_steps - warm), 1.0)
        return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)


@schedulers.register("one_cycle")
def one_cycle(optimizer: Optimizer, total_steps: int, warmup: float = 0.3) -> LRScheduler:
    """Leslie Smith's one-cycle policy (torch's ``OneCycleLR``): up to the optimizer's rate and down to nearly nothing.

    The momentum (or first beta) goes the other way, from 0.95 to 0.85 and back.

    Parameters
    ----------
    optimizer : Optimizer
    total_steps : int
    warmup : float
        Fraction of the steps in which the rate rises.
    """
    peaks = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(optimizer, max_lr=peaks, total_steps=total_steps, pct_start=warmup)


@schedulers.register("constant")
def constant(optimizer: Optimizer, total_steps: int) -> LRScheduler:
    """Keep the optimizer's rate."""
    return LambdaLR(optimizer, lambda step: 1.0)
