"""Several datasets as one: what a mixture is trained on, and how one part is taken out of a checkpoint again."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from datagen import store as datasets
from datagen.store import Store
from solvers.registry import fits


@dataclass(frozen=True)
class Mixture:
    """Datasets that are learned together, each with its share of the training examples.

    Parameters
    ----------
    stores : sequence of Store
        On one grid, with any fields: `operators.tasks.mixture.MixtureTask` says how they meet.
    weights : sequence of float, optional
        How much of an epoch is drawn of each, relative to the others; by default as many examples as it has.

    Attributes
    ----------
    path : str
        Of all of them, for messages.
    shape : tuple of int
        Their common grid.
    boundary : tuple of pairs of str
        An axis is periodic where it is in all of them.
    sizes : dict
        Samples of each split, of all together.
    spec : dict
        Of all of them, and the weights.

    Raises
    ------
    ValueError
        If there are fewer than two, grids differ, or the weights do not fit.
    """

    stores: Sequence[Store]
    weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if len(self.stores) < 2:
            raise ValueError(f"a mixture needs two datasets or more, got {len(self.stores)}")
        shapes = {str(store.path): "x".join(map(str, store.shape)) for store in self.stores}
        if len(shapes) < len(self.stores):
            raise ValueError(f"a mixture names one dataset twice: {self.path}; give it a larger weight instead")
        if len(set(shapes.values())) > 1:
            grids = ", ".join(f"{path} {shape}" for path, shape in shapes.items())
            raise ValueError(f"the datasets of a mixture must be on one grid, got {grids}; generate them on one")
        if self.weights is not None:
            numbers = all(fits(w, float) and math.isfinite(w) and w > 0 for w in self.weights)
            if len(self.weights) != len(self.stores) or not numbers:
                raise ValueError(
                    f"dataset.weights must hold a positive number for each of the {len(self.stores)} datasets, got "
                    f"{list(self.weights)}"
                )

    @property
    def path(self) -> str:
        return ", ".join(str(store.path) for store in self.stores)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stores[0].shape

    @property
    def boundary(self) -> tuple[tuple[str, str], ...]:
        sides = zip(*(store.boundary for store in self.stores), strict=True)
        same = [axis[0] if len(set(axis)) == 1 else ("mixed", "mixed") for axis in sides]
        return tuple(same)

    @property
    def sizes(self) -> dict[str, int]:
        splits = dict.fromkeys(split for store in self.stores for split in store.sizes)
        return {split: sum(store.sizes.get(split, 0) for store in self.stores) for split in splits}

    @cached_property
    def spec(self) -> dict[str, Any]:
        weights = None if self.weights is None else [float(w) for w in self.weights]
        return {"mixture": [store.spec for store in self.stores], "weights": weights}


def open_datasets(group: Mapping[str, Any]) -> Store | Mixture:
    """The dataset, or the mixture of datasets, that a configuration's ``dataset`` group names.

    Parameters
    ----------
    group : mapping
        ``path``, a folder or a list of them, and of several ``weights``.

    Raises
    ------
    ValueError
        If one cannot be opened, or they do not fit each other.
    """
    paths, weights = group["path"], group.get("weights")
    if isinstance(paths, str):
        if weights is not None:
            raise ValueError(f"dataset.weights={weights} is for a mixture; dataset.path={paths} is one dataset")
        return datasets.open_store(paths)
    return Mixture([datasets.open_store(str(path)) for path in paths], weights)


class PartOfMixture(nn.Module):
    """An operator of a mixture as one of its parts sees it: with the channels of one dataset.

    Channels that the dataset does not have are zero (their mean), and what is predicted of them is left out.

    Parameters
    ----------
    module : torch.nn.Module
        Of all channels.
    inputs, outputs : sequence of int
        Where the dataset's channels are among them.
    in_channels : int
        How many inputs `module` takes, a lead time that is a channel not among them.
    """

    def __init__(self, module: nn.Module, inputs: Sequence[int], outputs: Sequence[int], in_channels: int) -> None:
        super().__init__()
        self.module = module
        self.inputs, self.outputs, self.in_channels = list(inputs), list(outputs), in_channels
        self.conditioned_on_time = bool(getattr(module, "conditioned_on_time", False))

    def forward(self, x: Tensor, *time: Tensor) -> Tensor:
        """Map ``(batch, inputs, *grid)`` to ``(batch, outputs, *grid)``."""
        count = len(self.inputs)
        whole = spread(x[:, :count], self.inputs, self.in_channels)
        answer: Tensor = self.module(torch.cat([whole, x[:, count:]], dim=1), *time)
        return answer[:, self.outputs]


def spread(fields: Tensor, places: Sequence[int], count: int) -> Tensor:
    """Channels put at their places among `count`, zeros elsewhere.

    Parameters
    ----------
    fields : Tensor, shape (batch, channels, *grid)
    places : sequence of int
    count : int

    Returns
    -------
    Tensor, shape (batch, count, *grid)

    Examples
    --------
    >>> spread(torch.ones(1, 2, 1), [2, 0], 3).flatten()
    tensor([1., 0., 1.])
    """
    whole = fields.new_zeros(len(fields), count, *fields.shape[2:])
    whole[:, list(places)] = fields
    return whole


def of_part(content: Mapping[str, Any], part: int | None) -> dict[str, Any]:
    """The content of a mixture's checkpoint as if it had been trained on one part alone.

    Parameters
    ----------
    content : mapping
        As `operators.checkpoint.load_checkpoint` returns it; one of no mixture is given back as it is.
    part : int or None
        Which dataset, counted from 0 in the order of ``dataset.path``.

    Raises
    ------
    ValueError
        If it is a mixture and there is no such part, or none of a single dataset was asked for.
    """
    parts = content.get("mixture")
    if not parts:
        if part is not None:
            raise ValueError(f"part={part!r} is for operators of a mixture; this one was trained on one dataset")
        return dict(content)
    if part is None or not fits(part, int) or not 0 <= part < len(parts):
        listed = ", ".join(f"{number}: {each['dataset']['path']}" for number, each in enumerate(parts))
        raise ValueError(
            "this operator was trained on a mixture, and predicts in the units of one of its datasets: say which with "
            f"part=, one of {listed}; got {part!r}"
        )
    return {**content, **parts[part], "mixture": None}


def part_of(content: Mapping[str, Any], spec: Mapping[str, Any]) -> int | None:
    """The part of a mixture's checkpoint that was trained on a dataset, or on another one of its family.

    Parameters
    ----------
    content : mapping
    spec : mapping
        Of the dataset.

    Returns
    -------
    int or None
        None where the checkpoint is of no mixture, or where no part or several fit.
    """
    specs = [json.loads(part["dataset"]["spec"]) for part in content.get("mixture") or ()]
    for what in (lambda s: s, lambda s: s["pde"], lambda s: s["pde"]["name"]):
        found = [number for number, each in enumerate(specs) if what(each) == what(_plain(spec))]
        if len(found) == 1:
            return found[0]
    return None


def _plain(spec: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(spec, default=str))
    return plain
