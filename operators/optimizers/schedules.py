"""Learning-rate schedules by name. All count optimizer steps, not epochs, and scale every group's own rate."""

import math
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from solvers.registry import Registry

schedulers: Registry = Registry("scheduler")


def _after_warmup(
    optimizer: Optimizer, total_steps: int, warmup: float, factor: Callable[[int, float], float]
) -> LRScheduler:
    """Rates rise linearly in the first ``w = warmup * total_steps`` steps, then follow ``factor(step, w)``."""
    warm = _warm_steps(total_steps, warmup)
    return LambdaLR(optimizer, lambda step: min((step + 1) / warm, 1.0) if step < warm else factor(step, warm))


def _warm_steps(total_steps: int, warmup: float) -> float:
    if not 0.0 <= warmup < 1.0:
        raise ValueError(f"scheduler.warmup must be a fraction of the steps in [0, 1), got {warmup}")
    return warmup * total_steps


@schedulers.register("constant")
def constant(optimizer: Optimizer, total_steps: int, warmup: float = 0.0) -> LRScheduler:
    """Keep the optimizer's rate, after a linear warm-up.

    Parameters
    ----------
    optimizer : Optimizer
    total_steps : int
    warmup : float in [0, 1)
        Fraction of the steps that warm up: step ``s`` has ``(s + 1) / (warmup * total_steps)`` of the rate.

    Examples
    --------
    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    >>> schedulers.build("constant", optimizer, total_steps=100, warmup=0.1).get_last_lr()
    [0.1]
    """
    return _after_warmup(optimizer, total_steps, warmup, lambda step, warm: 1.0)


@schedulers.register("cosine")
def cosine(
    optimizer: Optimizer, total_steps: int, warmup: float = 0.05, final: float = 0.0, length: float = 1.0
) -> LRScheduler:
    r"""Linear warm-up, then half a cosine down.

    With ``w = warmup * total_steps`` the rate of step ``s`` is the optimizer's, times

    .. math:: \min\Bigl(\frac{s + 1}{w}, 1\Bigr) \text{ for } s < w, \qquad
              f + (1 - f) \frac{1 + \cos(\pi (s - w) / (\ell S - w))}{2} \text{ after.}

    Parameters
    ----------
    optimizer : Optimizer
    total_steps : int
        ``S``, all optimizer steps of the run.
    warmup : float in [0, 1)
        Fraction of the steps that warm up.
    final : float
        ``f``, the last rate over the largest.
    length : float
        ``l``, at least 1: where the cosine ends, over all steps. Recipes that train 20 epochs with torch's
        ``CosineAnnealingLR(T_max=30)``, as neuraloperator's examples do, have 1.5, and stop at a quarter of the rate.

    Examples
    --------
    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    >>> schedulers.build("cosine", optimizer, total_steps=10, warmup=0.2).get_last_lr()
    [0.5]
    """
    if not length >= 1.0:
        raise ValueError(f"scheduler.length must be at least 1, got {length}")

    def factor(step: int, warm: float) -> float:
        progress = min((step - warm) / (length * total_steps - warm), 1.0)
        return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * progress))

    return _after_warmup(optimizer, total_steps, warmup, factor)


@schedulers.register("step")
def step(
    optimizer: Optimizer, total_steps: int, warmup: float = 0.0, every: float = 0.2, factor: float = 0.5
) -> LRScheduler:
    """Multiply the rate by a factor every so many steps (StepLR, the recipe of FNO, LSM and neuraloperator).

    Step ``s`` has ``factor ** floor(s / p)`` of the rate, with the period ``p = round(every * total_steps)``.

    Parameters
    ----------
    optimizer : Optimizer
    total_steps : int
    warmup : float in [0, 1)
        Fraction of the steps that warm up.
    every : float in (0, 1]
        The period, as a fraction of all steps: a recipe that halves every 100 of 500 epochs has 0.2.
    factor : float in (0, 1]

    Examples
    --------
    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    >>> scheduler = schedulers.build("step", optimizer, total_steps=10, every=0.2)
    >>> for _ in range(4):
    ...     optimizer.step()
    ...     scheduler.step()
    >>> scheduler.get_last_lr()
    [0.25]
    """
    if not 0.0 < every <= 1.0:
        raise ValueError(f"scheduler.every must be a fraction of the steps in (0, 1], got {every}")
    _check_factor(factor)
    period = max(1, round(every * total_steps))
    return _after_warmup(optimizer, total_steps, warmup, lambda step, warm: factor ** (step // period))


@schedulers.register("one_cycle")
def one_cycle(optimizer: Optimizer, total_steps: int, warmup: float = 0.3) -> LRScheduler:
    """Leslie Smith's one-cycle policy (torch's ``OneCycleLR``): up to the optimizer's rate and down to nearly nothing.

    The momentum (or first beta), where every parameter has one, goes the other way: from 0.95 to 0.85 and back.

    Parameters
    ----------
    optimizer : Optimizer
    total_steps : int
    warmup : float
        Fraction of the steps in which the rate rises.
    """
    _warm_steps(total_steps, warmup)
    groups = optimizer.param_groups
    has_momentum = all("betas" in group for group in groups) or all(group.get("momentum") for group in groups)
    return OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in groups],
        total_steps=total_steps,
        pct_start=warmup,
        cycle_momentum=has_momentum and bool({"betas", "momentum"} & optimizer.defaults.keys()),
    )


class Plateau(LRScheduler):
    """Multiply the rate by a factor where the validation loss has stopped falling, after a linear warm-up.

    It is lowered when none of the last `patience` + 1 epochs has brought a validation loss below the least before
    them; the count then starts over. (torch's ``ReduceLROnPlateau`` with threshold 0 and a warm-up.)

    Parameters
    ----------
    optimizer : Optimizer
    total_steps : int
    warmup : float in [0, 1)
        Fraction of the steps that warm up.
    factor : float in (0, 1]
    patience : int
        Epochs without a new least loss that are borne.
    """

    def __init__(
        self, optimizer: Optimizer, total_steps: int, warmup: float = 0.0, factor: float = 0.5, patience: int = 5
    ) -> None:
        _check_factor(factor)
        if patience < 0:
            raise ValueError(f"scheduler.patience must be a number of epochs, got {patience}")
        self.warm = _warm_steps(total_steps, warmup)
        self.factor, self.patience = factor, patience
        self.least, self.waited, self.scale = math.inf, 0, 1.0
        super().__init__(optimizer)

    def get_lr(self) -> list[Any]:
        """Rate of each group in the step to come."""
        warming = min((self.last_epoch + 1) / self.warm, 1.0) if self.last_epoch < self.warm else 1.0
        return [base * self.scale * warming for base in self.base_lrs]

    def observe(self, validation_loss: float) -> None:
        """Take note of an epoch's validation loss, and lower the rates at once where it is time to."""
        if validation_loss < self.least:
            self.least, self.waited = validation_loss, 0
            return
        self.waited += 1
        if self.waited > self.patience:
            self.scale, self.waited = self.scale * self.factor, 0
            self._last_lr = self.get_lr()
            for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
                group["lr"] = rate


schedulers.register("plateau")(Plateau)


def _check_factor(factor: float) -> None:
    if not 0.0 < factor <= 1.0:
        raise ValueError(f"scheduler.factor must lie in (0, 1], got {factor}")
