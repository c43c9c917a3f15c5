r"""Metrics of fields as they are on the grid.

In the formulas p is the prediction, y the truth, ``mean_x`` the mean over the grid. Each function takes ``(prediction,
target, periodic)``, fields of shape (samples, channels, \*grid), and returns one number a sample and channel.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from operators.losses import mse, relative_h1, relative_l1, relative_l2
from operators.metrics.definition import Metric, metrics

Periodic = Sequence[bool] | None
Function = Callable[[Tensor, Tensor, Periodic], Tensor]


def defined(name: str, formula: str, over_samples: str = "mean", needs: str = "") -> Callable[[Function], Function]:
    """Decorator that registers a function as a metric with its formula.

    Parameters
    ----------
    name : str
    formula : str
        What reports print.
    over_samples : {"mean", "median", "root mean square", "largest"}
        How the numbers of the samples become one.
    needs : str
        What of the grid it cannot do without.
    """

    def add(function: Function) -> Function:
        words = {"largest": "largest over samples"}.get(over_samples, f"{over_samples} over samples")
        metrics.register(name)(Metric(name, f"{formula}, {words}", function, over_samples, needs))
        return function

    return add


defined("relative_l2", "||p - y||_2 / ||y||_2")(relative_l2)
defined("relative_l1", "||p - y||_1 / ||y||_1")(relative_l1)
defined("median_relative_l1", "||p - y||_1 / ||y||_1", "median")(relative_l1)
defined("mse", "mean_x (p - y)^2")(mse)
defined("relative_h1", "||p - y||_H1 / ||y||_H1, values and first differences", needs="three points an axis")(
    relative_h1
)


def _grid_axes(field: Tensor) -> tuple[int, ...]:
    return tuple(range(2, field.ndim))


def _norm(field: Tensor) -> Tensor:
    """Root of the mean square: no square of a small number underflows on the way."""
    points = math.prod(field.shape[2:])
    return torch.linalg.vector_norm(field, dim=_grid_axes(field)) / points**0.5


def _over(error: Tensor, size: Tensor) -> Tensor:
    """The error relative to a size; to 1 in the fields' units where the size is zero."""
    return error / torch.where(size > 0, size, 1.0)


@defined("rmse", "sqrt(mean_x (p - y)^2)")
def rmse(prediction: Tensor, target: Tensor, periodic: Periodic = None) -> Tensor:
    r"""Root of the mean squared error, in the fields' units.

    .. math:: \sqrt{\tfrac1N \textstyle\sum_x (p - y)^2}

    Parameters
    ----------
    prediction, target : Tensor, shape (samples, channels, *grid)
    periodic : sequence of bool, optional
        Of each grid axis; of no effect.

    Examples
    --------
    >>> rmse(torch.full((1, 1, 4), 3.0), torch.zeros(1, 1, 4))
    tensor([[3.]])
    """
    return _norm(prediction - target)


@defined("nrmse", "sqrt(mean_x (p - y)^2) / sqrt(mean_x y^2)")
def nrmse(prediction: Tensor, target: Tensor, periodic: Periodic = None) -> Tensor:
    r"""PDEBench's normalised RMSE; of one frame it is the relative L2 error.

    .. math:: \sqrt{\tfrac1N \textstyle\sum_x (p - y)^2} \Big/ \sqrt{\tfrac1N \textstyle\sum_x y^2}

    PDEBench (Takamoto et al., NeurIPS 2022) averages it over samples, channels and frames, each frame by its own norm.

    Parameters
    ----------
    prediction, target : Tensor, shape (samples, channels, *grid)
    periodic : sequence of bool, optional
        Of each grid axis; of no effect.

    Examples
    --------
    >>> nrmse(torch.zeros(1, 1, 4), torch.arange(4.0)[None, None])
    tensor([[1.]])
    """
    return _over(_norm(prediction - target), _norm(target))


@defined("vrmse", "sqrt(mean_x (p - y)^2 / mean_x (y - mean_x y)^2)")
def vrmse(prediction: Tensor, target: Tensor, periodic: Periodic = None) -> Tensor:
    r"""Root of the mean squared error over the variance in space: 1 for a prediction of the truth's mean.

    .. math:: \sqrt{\frac{\sum_x (p - y)^2}{\sum_x (y - \bar y)^2}}, \qquad \bar y = \tfrac1N \textstyle\sum_x y

    The Well (Ohana et al., NeurIPS 2024) adds 1e-7 to the variance, which then depends on the units; nothing is added
    here, and where the truth is constant in space the RMSE is all there is to say.

    Parameters
    ----------
    prediction, target : Tensor, shape (samples, channels, *grid)
    periodic : sequence of bool, optional
        Of each grid axis; of no effect.

    Examples
    --------
    >>> vrmse(torch.full((1, 1, 3), 1.0), torch.arange(3.0)[None, None])
    tensor([[1.]])
    """
    deviation = target - target.mean(dim=_grid_axes(target), keepdim=True)
    return _over(_norm(prediction - target), _norm(deviation))


@defined("maximum_error", "max_x |p - y|", over_samples="largest")
def maximum_error(prediction: Tensor, target: Tensor, periodic: Periodic = None) -> Tensor:
    r"""Largest error, in the fields' units.

    .. math:: \max_x |p(x) - y(x)|

    Parameters
    ----------
    prediction, target : Tensor, shape (samples, channels, *grid)
    periodic : sequence of bool, optional
        Of each grid axis; of no effect.

    Examples
    --------
    >>> maximum_error(torch.tensor([[[1.0, -5.0]]]), torch.zeros(1, 1, 2))
    tensor([[5.]])
    """
    return (prediction - target).abs().amax(dim=_grid_axes(target))


@defined("correlation", "sum_x (p - mean p)(y - mean y) / (||p - mean p||_2 ||y - mean y||_2)")
def correlation(prediction: Tensor, target: Tensor, periodic: Periodic = None) -> Tensor:
    r"""Pearson's correlation over the grid: 1 for the truth up to shift and positive scale, 0 where one is constant.

    .. math:: \frac{\sum_x (p - \bar p)(y - \bar y)}{\|p - \bar p\|_2 \, \|y - \bar y\|_2}

    Parameters
    ----------
    prediction, target : Tensor, shape (samples, channels, *grid)
    periodic : sequence of bool, optional
        Of each grid axis; of no effect.

    Examples
    --------
    >>> y = torch.arange(4.0)[None, None]
    >>> correlation(5 - 2 * y, y).round(decimals=3)
    tensor([[-1.]])
    """
    axes = _grid_axes(target)
    p = prediction - prediction.mean(dim=axes, keepdim=True)
    y = target - target.mean(dim=axes, keepdim=True)
    # Each is scaled by itself: the product of two small norms would underflow.
    sizes = [torch.linalg.vector_norm(f, dim=axes, keepdim=True) for f in (p, y)]
    return (_over(p, sizes[0]) * _over(y, sizes[1])).sum(dim=axes)


@defined("boundary_error", "sqrt(mean over boundary points (p - y)^2), axes that are not periodic", needs="a boundary")
def boundary_error(prediction: Tensor, target: Tensor, periodic: Periodic = None) -> Tensor:
    r"""RMSE over the points at the boundary, the first and last along every axis that is not periodic.

    .. math:: \sqrt{\tfrac1{|B|} \textstyle\sum_{x \in B} (p - y)^2}

    A corner counts once. (PDEBench's counts it once an axis, and takes the ends of periodic axes too.)

    Parameters
    ----------
    prediction, target : Tensor, shape (samples, channels, *grid)
    periodic : sequence of bool, optional
        Of each grid axis; none of them if left out.

    Raises
    ------
    ValueError
        If every axis is periodic: there is no boundary.

    Examples
    --------
    >>> target = torch.zeros(1, 1, 4, 3)
    >>> prediction = target.clone()
    >>> prediction[..., 0, 0] = 2.0
    >>> boundary_error(prediction, target, (False, True))  # 6 points, one of them off by 2
    tensor([[0.8165]])
    """
    axes = _grid_axes(target)
    joined = [False] * len(axes) if periodic is None else list(periodic)
    if all(joined):
        raise ValueError("boundary_error: every axis is periodic, so that there is no boundary")
    at_boundary = torch.zeros(target.shape[2:], dtype=torch.bool, device=target.device)
    for axis, is_joined in enumerate(joined):
        if not is_joined:
            at_boundary.movedim(axis, 0)[[0, -1]] = True
    return (prediction - target)[..., at_boundary].square().mean(dim=-1).sqrt()


@defined("conservation_error", "|mean_x p - mean_x y|", over_samples="root mean square")
def conservation_error(prediction: Tensor, target: Tensor, periodic: Periodic = None) -> Tensor:
    r"""Error of the mean over the grid: of mass, momentum, energy, where the field is a density of one.

    .. math:: \Bigl| \tfrac1N \textstyle\sum_x p - \tfrac1N \textstyle\sum_x y \Bigr|

    With the root mean square over samples this is PDEBench's conserved RMSE.

    Parameters
    ----------
    prediction, target : Tensor, shape (samples, channels, *grid)
    periodic : sequence of bool, optional
        Of each grid axis; of no effect.

    Examples
    --------
    >>> conservation_error(torch.tensor([[[1.0, 3.0]]]), torch.tensor([[[3.0, 2.0]]]))
    tensor([[0.5000]])
    """
    axes = _grid_axes(target)
    return (prediction - target).mean(dim=axes).abs()
