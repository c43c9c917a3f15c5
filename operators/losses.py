r"""Losses: how far a predicted field is from the true one.

A loss is a function ``(prediction, target, periodic) -> (samples, channels)``: one number for every sample and channel,
so that no sample outweighs another by its size and no channel by its units. Training averages over both. Configs name
losses; other distributions add theirs through the entry-point group ``southwell.losses``.

`periodic` says of each grid axis whether its ends are joined; only losses with derivatives look at it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from solvers.registry import Registry

losses: Registry = Registry("loss", group="southwell.losses")


def _ratio(error: Tensor, size: Tensor) -> Tensor:
    # No constant is added below: predicting zero must cost exactly 1. A target that is zero everywhere is compared
    # with the smallest normal number, so its error is 0 where it is met and enormous where it is not.
    return error / size.clamp_min(torch.finfo(size.dtype).tiny)


@losses.register("relative_l2")
def relative_l2(prediction: Tensor, target: Tensor, periodic: Sequence[bool] | None = None) -> Tensor:
    r"""Relative error in the discrete L2 norm, for each sample and channel.

    .. math:: \frac{\|p - y\|_2}{\|y\|_2}, \qquad \|y\|_2^2 = \sum_{x \in \text{grid}} y(x)^2

    Parameters
    ----------
    prediction, target : Tensor, shape (samples, channels, *grid)
    periodic : sequence of bool, optional
        Of no effect.

    Returns
    -------
    Tensor, shape (samples, channels)
        Dimensionless: 0 for the truth, 1 for a prediction of zero.

    Examples
    --------
    >>> target = torch.randn(2, 3, 8, 8)
    >>> relative_l2(1.5 * target, target).mean()
    tensor(0.5000)
    """
    axes = tuple(range(2, target.ndim))
    return _ratio(torch.linalg.vector_norm(prediction - target, dim=axes), torch.linalg.vector_norm(target, dim=axes))


def _derivative(field: Tensor, axis: int, periodic: bool) -> Tensor:
    """Second-order finite difference along one axis of unit length (spacing 1 / points)."""
    points = field.shape[axis]
    if points < 3:
        raise ValueError(f"relative_h1 needs at least 3 points on each axis for its differences, got {points}")
    if periodic:
        return (field.roll(-1, axis) - field.roll(1, axis)) * (points / 2)
    (difference,) = torch.gradient(field, spacing=1.0 / points, dim=axis, edge_order=2)
    return difference


def _h1_norm(field: Tensor, periodic: Sequence[bool]) -> Tensor:
    axes = tuple(range(2, field.ndim))
    parts = [field, *(_derivative(field, axis, joined) for axis, joined in zip(axes, periodic, strict=True))]
    # A norm of norms, not the root of a sum: its gradient is defined (zero) where the error vanishes.
    norms = torch.stack([torch.linalg.vector_norm(part, dim=axes) for part in parts])
    return torch.linalg.vector_norm(norms, dim=0)


@losses.register("relative_h1")
def relative_h1(prediction: Tensor, target: Tensor, periodic: Sequence[bool] | None = None) -> Tensor:
    r"""Relative error in the discrete H1 norm (values and first derivatives), for each sample and channel.

    .. math:: \frac{\|p - y\|_{H^1}}{\|y\|_{H^1}}, \qquad
              \|y\|_{H^1}^2 = \sum_x \Bigl( y(x)^2 + \sum_a (D_a y(x))^2 \Bigr)

    ``D_a`` are second-order finite differences with respect to coordinates in which every axis has length 1 and
    spacing ``1 / points`` (cells, or the points of a period): central inside, wrapped around on periodic axes,
    one-sided three-point formulas at the ends of the others. (neuraloperator's H1 loss wraps around by default
    whatever the problem.)

    Parameters
    ----------
    prediction, target : Tensor, shape (samples, channels, *grid)
        At least 3 points on each axis.
    periodic : sequence of bool, optional
        One an axis; none is periodic if left out.

    Returns
    -------
    Tensor, shape (samples, channels)
        Dimensionless.

    Raises
    ------
    ValueError
        If an axis has fewer than 3 points.

    Examples
    --------
    >>> target = torch.randn(2, 3, 8, 8)
    >>> relative_h1(torch.zeros_like(target), target).mean()
    tensor(1.)
    """
    joined = [False] * (target.ndim - 2) if periodic is None else periodic
    return _ratio(_h1_norm(prediction - target, joined), _h1_norm(target, joined))


@losses.register("mse")
def mse(prediction: Tensor, target: Tensor, periodic: Sequence[bool] | None = None) -> Tensor:
    r"""Mean squared error over the grid, for each sample and channel.

    .. math:: \frac1N \sum_{x \in \text{grid}} (p(x) - y(x))^2

    Parameters
    ----------
    prediction, target : Tensor, shape (samples, channels, *grid)
    periodic : sequence of bool, optional
        Of no effect.

    Returns
    -------
    Tensor, shape (samples, channels)
        In the square of the fields' units; in training these are standard deviations of the training data.

    Examples
    --------
    >>> mse(torch.ones(1, 1, 4), torch.zeros(1, 1, 4))
    tensor([[1.]])
    """
    return (prediction - target).square().mean(dim=tuple(range(2, target.ndim)))
