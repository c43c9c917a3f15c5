r"""Losses: how far a predicted field is from the true one.

A loss is a function ``(prediction, target, periodic) -> (samples, channels)``: one number for every sample and channel,
so that no sample outweighs another by its size and no channel by its units. Training averages over both. (One, the
relative L1 loss by channel groups, has one number a batch and group instead.) Configs name losses, ``loss:
relative_l1``, with arguments where a loss has some, ``loss: {name: relative_l1_by_group, groups: [[0], [1, 2]]}``;
other distributions add theirs through the entry-point group ``southwell.losses``.

`periodic` says of each grid axis whether its ends are joined; only losses with derivatives look at it.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from operators.distributed import batch_mean
from solvers.registry import Registry, fits, near_names

Loss = Callable[..., Tensor]
losses: Registry[Loss] = Registry("loss", group="southwell.losses")


def configured(chosen: str | Mapping[str, Any]) -> Loss:
    """The loss that a configuration names.

    Parameters
    ----------
    chosen : str or mapping
        A registered name, or ``name`` and arguments.

    Returns
    -------
    callable
        ``(prediction, target, periodic) -> Tensor``.

    Raises
    ------
    ValueError
        If the name or an argument is unknown, or a value does not fit; the message lists what there is.

    Examples
    --------
    >>> loss = configured({"name": "relative_l1_by_group", "groups": [[0], [1, 2]]})
    >>> loss(torch.zeros(4, 3, 8), torch.ones(4, 3, 8))
    tensor([[1., 1.]])
    """
    if isinstance(chosen, str):
        return losses[chosen]
    arguments = dict(chosen)
    if "name" not in arguments:
        raise ValueError(f"loss must be a registered name, or a name with arguments, got {dict(chosen)!r}")
    name = str(arguments.pop("name"))
    loss = losses[name]
    known = dict(list(inspect.signature(loss).parameters.items())[3:])  # after the fields and `periodic`
    for argument, value in arguments.items():
        if argument not in known:
            raise ValueError(f"loss {name!r} has no argument {argument!r}. {near_names(argument, list(known))}")
        if not fits(value, known[argument].annotation):
            raise ValueError(f"loss {name!r}: {argument} must be {known[argument].annotation}, got {value!r}")
    return partial(loss, **arguments)


def _points(field: Tensor) -> int:
    return math.prod(field.shape[2:])


def _ratio(error: Tensor, size: Tensor, size_of_one: float) -> Tensor:
    # No constant is added below: predicting zero must cost exactly 1. A field that starts at rest is zero everywhere,
    # and then there is nothing to be relative to: its error is compared with a field of ones, finite and 0 where it is
    # met. In training, one is a standard deviation.
    return error / torch.where(size > 0, size, size_of_one)


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
        Dimensionless: 0 for the truth, 1 for a prediction of zero. A target that is zero everywhere counts as one of
        ones below the line: what is left is the error in the fields' units.

    Examples
    --------
    >>> target = torch.randn(2, 3, 8, 8)
    >>> relative_l2(1.5 * target, target).mean()
    tensor(0.5000)
    """
    axes = tuple(range(2, target.ndim))
    error, size = (torch.linalg.vector_norm(field, dim=axes) for field in (prediction - target, target))
    return _ratio(error, size, _points(target) ** 0.5)


@losses.register("relative_l1")
def relative_l1(prediction: Tensor, target: Tensor, periodic: Sequence[bool] | None = None) -> Tensor:
    r"""Relative error in the discrete L1 norm, for each sample and channel.

    .. math:: \frac{\|p - y\|_1}{\|y\|_1}, \qquad \|y\|_1 = \sum_{x \in \text{grid}} |y(x)|

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
    >>> relative_l1(1.5 * target, target).mean()
    tensor(0.5000)
    """
    axes = tuple(range(2, target.ndim))
    return _ratio((prediction - target).abs().sum(dim=axes), target.abs().sum(dim=axes), _points(target))


@losses.register("relative_l1_by_group")
def relative_l1_by_group(
    prediction: Tensor,
    target: Tensor,
    periodic: Sequence[bool] | None = None,
    groups: Sequence[Sequence[int]] | None = None,
) -> Tensor:
    r"""Relative L1 error of a whole batch, one ratio a group of channels: the loss of Poseidon.

    .. math:: \ell_g = \frac{\sum_{s} \sum_{c \in g} \sum_x |p_{sc}(x) - y_{sc}(x)|}
                           {\sum_{s} \sum_{c \in g} \sum_x |y_{sc}(x)| + 10^{-10} N_g}

    with the sums over the samples s of the batch and ``N_g`` the values of a group in it. The components of a vector
    belong in one group: the small one then does not weigh as much as the large one. As the ratio is the batch's, a
    sample that is zero everywhere (a fluid still at rest) does no harm; it also depends on which samples meet in a
    batch, so it is not the mean of a loss a sample. Under ``torchrun`` the batch is that of all ranks; computed in
    parts (``trainer.accumulate``), each part is a batch of its own, and they do not average to the whole.

    Parameters
    ----------
    prediction, target : Tensor, shape (samples, channels, *grid)
    periodic : sequence of bool, optional
        Of no effect.
    groups : sequence of sequences of int, optional
        Indices of the channels of each group, every channel in one group: ``[[0], [1, 2], [3]]`` for density,
        velocity and pressure. All channels are one group if left out.

    Returns
    -------
    Tensor, shape (1, groups)
        Dimensionless.

    Raises
    ------
    ValueError
        If the groups do not hold every channel once.

    References
    ----------
    Herde et al., Poseidon, NeurIPS 2024 (arXiv 2405.19101); the released code compares normalised variables.

    Examples
    --------
    >>> target = torch.ones(5, 3, 4, 4)
    >>> prediction = target.clone()
    >>> prediction[:, 1] = 0
    >>> relative_l1_by_group(prediction, target, groups=[[0], [1, 2]])
    tensor([[0.0000, 0.5000]])
    """
    channels = target.shape[1]
    chosen = [list(range(channels))] if groups is None else [list(group) for group in groups]
    if sorted(c for group in chosen for c in group) != list(range(channels)) or not all(chosen):
        raise ValueError(
            f"relative_l1_by_group: groups must hold each of the {channels} channels 0 to {channels - 1} once, got "
            f"{chosen}"
        )
    axes = (0, *range(2, target.ndim))
    error = (prediction - target).abs().mean(dim=axes)
    # Below the line stands the whole batch: the mean of the ranks' ratios, by their samples, is then its ratio.
    size = batch_mean(target.abs().mean(dim=axes), len(target))
    ratios = [error[group].mean() / (size[group].mean() + 1e-10) for group in chosen]
    return torch.stack(ratios)[None]


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
    return _ratio(_h1_norm(prediction - target, joined), _h1_norm(target, joined), _points(target) ** 0.5)


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
