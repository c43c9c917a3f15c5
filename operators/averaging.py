"""Exponential moving average of a model's weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    r"""The moving average of a model's parameters over optimizer steps.

    .. math:: \bar\theta_t = d_t \bar\theta_{t-1} + (1 - d_t) \theta_t, \qquad
              d_t = \min\Bigl(d, \frac{1 + t}{10 + t}\Bigr)

    The smaller decay of early steps forgets the initial weights. Buffers (running means of batch norms) are averages
    already, and are the model's.

    Parameters
    ----------
    model : torch.nn.Module
    decay : float
        ``d`` in [0, 1): about ``1 / (1 - d)`` steps are averaged.
    steps : int
        ``t``, of a model whose weights are an average already.

    Examples
    --------
    >>> model = nn.Linear(1, 1, bias=False)
    >>> average = WeightAverage(model, decay=0.0)
    >>> _ = nn.init.constant_(model.weight, 3.0)
    >>> average.update()
    >>> average.weights["weight"].item()
    3.0
    """

    def __init__(self, model: nn.Module, decay: float, steps: int = 0) -> None:
        self.model, self.decay, self.steps = model, decay, steps
        self.weights = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after an optimizer step."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        current = [p.detach() for p in self.model.parameters()]
        torch._foreach_lerp_(list(self.weights.values()), current, 1.0 - decay)

    @contextmanager
    @torch.no_grad()
    def in_place(self) -> Iterator[None]:
        """The model with averaged weights, for the time of a block."""
        parameters = dict(self.model.named_parameters())
        trained = {name: p.detach().clone() for name, p in parameters.items()}
        self._write(parameters, self.weights)
        try:
            yield
        finally:
            self._write(parameters, trained)

    @staticmethod
    def _write(parameters: dict[str, nn.Parameter], values: dict[str, Tensor]) -> None:
        for name, parameter in parameters.items():
            parameter.data.copy_(values[name])
