"""A network between physical fields: what tasks, predictions and evaluations call."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from operators.data import GaussianNormaliser
from operators.models import models


class Operator(nn.Module):
    r"""A module that acts on normalised fields, with the normalisers around it: physical units in and out.

    .. math:: u = \mu_u + \sigma_u \, f\bigl((a - \mu_a) / \sigma_a, \; t\bigr)

    Parameters
    ----------
    module : torch.nn.Module
        ``f``: called ``module(x)`` or, where its class has ``conditioned_on_time = True``, ``module(x, time)``. For
        other modules a lead time becomes one more input channel, constant over the grid.
    input_normaliser, output_normaliser : GaussianNormaliser
    autocast_type : torch.dtype, optional
        Type of half precision that the module computes in while it trains (`torch.autocast`); otherwise float32.

    Examples
    --------
    >>> one = GaussianNormaliser(torch.ones(1), torch.tensor([2.0]))
    >>> operator = Operator(nn.Identity(), one, one)
    >>> operator(torch.full((1, 1, 4), 5.0))
    tensor([[[5., 5., 5., 5.]]])
    >>> operator.scaled(torch.full((1, 1, 4), 5.0))
    tensor([[[2.5000, 2.5000, 2.5000, 2.5000]]])
    """

    def __init__(
        self,
        module: nn.Module,
        input_normaliser: GaussianNormaliser,
        output_normaliser: GaussianNormaliser,
        autocast_type: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.autocast_type = autocast_type
        self.module = module
        self.input_normaliser = input_normaliser
        self.output_normaliser = output_normaliser
        self.conditioned_on_time = bool(getattr(module, "conditioned_on_time", False))

    def forward(self, fields: Tensor, lead_time: Tensor | None = None) -> Tensor:
        """Apply the operator.

        Parameters
        ----------
        fields : Tensor, shape (batch, in_channels, *grid)
            In physical units.
        lead_time : Tensor, shape (batch,), optional
            In units of the task's time scale. A module that is conditioned on time and given none gets ones.

        Returns
        -------
        Tensor, shape (batch, out_channels, *grid)
            In physical units.
        """
        return self.output_normaliser.inverse(self.normalised(fields, lead_time))

    def scaled(self, fields: Tensor, lead_time: Tensor | None = None) -> Tensor:
        """As `forward`, in standard deviations of the training data: equals ``scale(operator(fields))``.

        These are the units in which losses compare. They are *not* shifted, so that relative losses are those of
        physical units, and channels of different units weigh the same.
        """
        return self.normalised(fields, lead_time) + self.output_normaliser.scaled_mean(fields.ndim)

    def scale(self, fields: Tensor) -> Tensor:
        """Output fields from physical units to those of `scaled`."""
        return self.output_normaliser.scale(fields)

    def normalised(self, fields: Tensor, lead_time: Tensor | None = None) -> Tensor:
        """The module's own answer: normalised output of fields in physical units."""
        arguments = self.arguments(fields, lead_time)
        if self.autocast_type is None or not self.training:
            output: Tensor = self.module(*arguments)
            return output
        with torch.autocast(arguments[0].device.type, dtype=self.autocast_type):
            output = self.module(*arguments)
        return output.float()

    def arguments(self, fields: Tensor, lead_time: Tensor | None = None) -> list[Tensor]:
        """What the module is called with: normalised fields, and the lead time as it takes it."""
        x = self.input_normaliser(fields)
        arguments = [x]
        if self.conditioned_on_time:
            arguments.append(torch.ones(len(x), dtype=x.dtype, device=x.device) if lead_time is None else lead_time)
        elif lead_time is not None:
            constant = lead_time.reshape(-1, *[1] * (x.ndim - 1)).expand(-1, 1, *x.shape[2:])
            arguments = [torch.cat([x, constant.to(x.dtype)], dim=1)]
        return arguments


def input_channels(model: str, fields: int, timed: bool, arguments: Mapping[str, Any] | None = None) -> int:
    """How many input channels a registered model needs for a task: the lead time is one, unless it is conditioned.

    Parameters
    ----------
    model : str
        Registered name.
    fields : int
        Channels of the task's inputs.
    timed : bool
        Whether the task's batches have a lead time.
    arguments : mapping, optional
        Of the model, for those that are conditioned on time or not as their arguments say.

    Examples
    --------
    >>> input_channels("tfno", fields=3, timed=True)
    4
    """
    entry: Any = models[model]
    conditioned = getattr(entry.func if isinstance(entry, partial) else entry, "conditioned_on_time", False)
    if callable(conditioned):
        conditioned = conditioned(**(arguments or {}))
    return fields + (1 if timed and not conditioned else 0)
