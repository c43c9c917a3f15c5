"""The task of a mixture: one operator for several datasets, each in units of its own."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.data import Batch, Channel, GaussianNormaliser
from operators.mixture import Mixture, spread
from operators.operator import Operator
from operators.tasks.protocol import Loss
from operators.tasks.static import StaticTask
from operators.tasks.time_pairs import TimePairsTask


@dataclass(frozen=True)
class MixtureBatch(Batch):
    """Examples of several datasets, inputs normalised and targets in standard deviations of their own dataset.

    Parameters
    ----------
    mean : Tensor, shape (batch, out_channels, 1, ..., 1)
        Of each example's dataset, in its standard deviations.
    weight : Tensor, shape (batch, out_channels)
        Of each channel's loss: 0 where the dataset does not have it, and the others make up for it.
    """

    mean: Tensor | None = None
    weight: Tensor | None = None

    def average(self, costs: Tensor) -> Tensor:
        """The mean cost of an example: over the channels that it has."""
        return self.weighted(costs).mean(dtype=torch.float64)

    def weighted(self, costs: Tensor) -> Tensor:
        """Costs whose plain mean is that; those of a loss that is no number a channel are left as they are."""
        assert self.weight is not None
        return costs * self.weight if costs.shape == self.weight.shape else costs


class Part:
    """One dataset of a mixture: its task, its statistics, and where its channels are among all.

    Parameters
    ----------
    task : StaticTask or TimePairsTask
        Of one dataset.
    inputs, outputs : sequence of str
        Names of all channels of the mixture.
    arguments : mapping
        Of the task, ``masked`` among them where some of its outputs are not learned.
    """

    def __init__(
        self,
        task: StaticTask | TimePairsTask,
        inputs: Sequence[str],
        outputs: Sequence[str],
        arguments: Mapping[str, Any],
    ) -> None:
        self.task, self.arguments = task, dict(arguments)
        masked = self.arguments.get("masked", ())
        self.inputs = [inputs.index(channel.name) for channel in task.inputs]
        self.outputs = [outputs.index(channel.name) for channel in task.outputs]
        self.in_channels, self.out_channels = len(inputs), len(outputs)
        self.input_normaliser, self.output_normaliser = task.normalisers()
        learned = [place for place, c in zip(self.outputs, task.outputs, strict=True) if c.name not in masked]
        self.weight = torch.zeros(len(outputs))
        self.weight[learned] = len(outputs) / len(learned)

    def batch(self, split: str, indices: Tensor) -> MixtureBatch:
        """Examples of a split in the channels of the mixture."""
        batch = self.task.examples(split).batch(indices)
        dimensions = batch.inputs.ndim
        mean = self.output_normaliser.scaled_mean(dimensions).expand(len(batch), -1, *[1] * (dimensions - 2))
        return MixtureBatch(
            spread(self.input_normaliser(batch.inputs), self.inputs, self.in_channels),
            spread(self.output_normaliser.scale(batch.targets), self.outputs, self.out_channels),
            torch.ones(len(batch)) if batch.lead_time is None else batch.lead_time,
            spread(mean, self.outputs, self.out_channels),
            self.weight.expand(len(batch), -1),
        )

    def content(self) -> dict[str, Any]:
        """What a checkpoint of this dataset alone would say of it (`operators.checkpoint`)."""
        store = self.task.store
        name = "time_pairs" if isinstance(self.task, TimePairsTask) else "static"
        return {
            "part": {"inputs": self.inputs, "outputs": self.outputs, "in_channels": self.in_channels},
            "time": getattr(self.task, "time", None),
            "task": {"name": name, "arguments": self.arguments},
            "normalisers": {
                "inputs": self.input_normaliser.state_dict(),
                "outputs": self.output_normaliser.state_dict(),
            },
            "channels": {
                "inputs": [channel.to_dict() for channel in self.task.inputs],
                "outputs": [channel.to_dict() for channel in self.task.outputs],
            },
            "dataset": {
                "path": str(store.path),
                "spec": json.dumps(store.spec, sort_keys=True, default=str),
                "grid": list(store.shape),
                "sizes": dict(store.sizes),
            },
        }


class MixtureExamples:
    """The examples of one split of all datasets, numbered through.

    Parameters
    ----------
    parts : sequence of Part
    split : str
    weights : sequence of float, optional
        As `operators.mixture.Mixture` takes them.
    """

    def __init__(self, parts: Sequence[Part], split: str, weights: Sequence[float] | None) -> None:
        self.parts, self.split = parts, split
        self.counts = [len(part.task.examples(split)) for part in parts]
        self.firsts = np.concatenate([[0], np.cumsum(self.counts)])
        shares = np.asarray(self.counts if weights is None or split != "train" else weights, dtype=float)
        self.drawn_of_each = np.maximum(1, np.rint(sum(self.counts) * shares / shares.sum())).astype(int)

    def __len__(self) -> int:
        return int(self.drawn_of_each.sum())

    def drawn(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """The examples of an epoch in their order: a function of seed and epoch alone.

        Each dataset is passed through in one random order after the other, of which every epoch takes its share up to
        where the next goes on: all examples of a dataset are seen equally often, to one pass.

        Parameters
        ----------
        seed, epoch : int
        """
        found: list[NDArray[np.int64]] = []
        for number, (size, count) in enumerate(zip(self.counts, self.drawn_of_each, strict=True)):
            begin, end = epoch * int(count), (epoch + 1) * int(count)
            for turn in range(begin // size, (end - 1) // size + 1):
                generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(turn, number)))
                once = generator.permutation(size)[max(begin - turn * size, 0) : end - turn * size]
                found.append(self.firsts[number] + once)
        order = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch,)))
        return order.permutation(np.concatenate(found))

    def batch(self, indices: Tensor) -> MixtureBatch:
        """Examples of the given indices."""
        owner = np.searchsorted(self.firsts, indices.numpy(), side="right") - 1
        present = np.unique(owner)
        pieces, places = [], []
        for number in present:
            place = torch.from_numpy(np.flatnonzero(owner == number))
            pieces.append(self.parts[number].batch(self.split, indices[place] - int(self.firsts[number])))
            places.append(place)
        back = torch.cat(places).argsort()

        def joined(name: str) -> Tensor:
            return torch.cat([getattr(piece, name) for piece in pieces])[back]

        return MixtureBatch(*(joined(name) for name in ("inputs", "targets", "lead_time", "mean", "weight")))


class MixtureTask:
    r"""Learn one operator of several datasets.

    .. math:: \min_\theta \sum_d \frac{w_d}{\sum_e w_e} \frac1{N_d} \sum_{i \le N_d}
              \ell\bigl(\mu_d + \sigma_d G_\theta((a_i - \mu_d') / \sigma_d', t_i), u_i\bigr)

    The channels are those of all datasets, by name; what a dataset does not have is zero at the input and does not
    count at the output. Each dataset is normalised by its own mean and standard deviation, and losses are in the
    latter, as for a dataset alone; lead times are in units of each dataset's own time scale. Of steady datasets beside
    evolutions, inputs lead to outputs at the lead time 1.

    Parameters
    ----------
    name : {"time_pairs", "static"}
        The task that each of the datasets has.
    mixture : Mixture
    memory_gb : float
        For all of them: each keeps its data in memory if that needs less than its equal part.
    **arguments
        Of the task. Masked outputs are masked where a dataset has them.

    Raises
    ------
    ValueError
        If there is no such task of mixtures, a name of `masked` is in no dataset, or chains of several steps are asked
        for.
    """

    def __init__(self, name: str, mixture: Mixture, memory_gb: float = 4.0, **arguments: Any) -> None:
        if name not in ("time_pairs", "static"):
            raise ValueError(f"a mixture of datasets is for task time_pairs or static, got task {name!r}")
        if arguments.get("steps", 1) != 1:
            raise ValueError(f"steps={arguments['steps']} is for one dataset: on a mixture, operators learn one step")
        self.mixture, self.shifted = mixture, bool(arguments.get("shifted", False))
        memory, masked = memory_gb / len(mixture.stores), list(arguments.pop("masked", ()))
        built: list[StaticTask | TimePairsTask] = []
        each: list[dict[str, Any]] = []
        for store in mixture.stores:
            if name == "static" or not store.evolves:
                each.append(arguments if name == "static" else {})
                built.append(StaticTask(store, memory, **each[-1]))
            else:
                there = {field.name for field in store.fields}
                each.append({**arguments, "masked": [m for m in masked if m in there]})
                built.append(TimePairsTask(store, memory, **each[-1]))
        self.outputs = _union([task.outputs for task in built])
        names = [channel.name for channel in self.outputs]
        unknown = [one for one in masked if one not in names]
        if unknown:
            raise ValueError(f"masked: {unknown[0]!r} is no output of {mixture.path}, which have {', '.join(names)}")
        inputs = _union([task.inputs for task in built])
        states = [channel for channel in self.outputs if channel.name in {c.name for c in inputs}]
        self.inputs = _union([states, inputs])  # states first, as for one dataset
        # Steps of one length in one dataset may be of another in the next.
        self.conditioned_on_time = name == "time_pairs"
        for task in built:
            task.conditioned_on_time = self.conditioned_on_time
        channels = [channel.name for channel in self.inputs], names
        self.parts = [Part(task, *channels, given) for task, given in zip(built, each, strict=True)]
        self._examples: dict[str, MixtureExamples] = {}

    def examples(self, split: str) -> MixtureExamples:
        """The examples of all datasets."""
        if split not in self._examples:
            self._examples[split] = MixtureExamples(self.parts, split, self.mixture.weights)
        return self._examples[split]

    def normalisers(self) -> tuple[GaussianNormaliser, GaussianNormaliser]:
        """None: batches are normalised, each example by its own dataset's."""
        inputs, outputs = (
            GaussianNormaliser(torch.zeros(len(channels)), torch.ones(len(channels)))
            for channels in (self.inputs, self.outputs)
        )
        return inputs, outputs

    def content(self) -> list[dict[str, Any]]:
        """Of every part what a checkpoint says of it."""
        return [part.content() for part in self.parts]

    def loss(self, model: Operator, batch: Batch, loss: Loss) -> Tensor:
        """The loss of each example over the channels of its dataset, shape (samples, channels)."""
        assert isinstance(batch, MixtureBatch)
        assert batch.mean is not None
        if not self.shifted:
            return batch.weighted(loss(self.predict(model, batch), batch.targets))
        answer, truth = model.normalised(batch.inputs, self._lead(batch)), batch.targets - batch.mean
        return batch.weighted(loss(self._known(answer, truth, batch), truth))

    def predict(self, model: Operator, batch: Batch) -> Tensor:
        """The predicted fields in standard deviations of their datasets; what is not learned is the truth."""
        assert isinstance(batch, MixtureBatch)
        assert batch.mean is not None
        answer = model.normalised(batch.inputs, self._lead(batch)) + batch.mean
        return self._known(answer, batch.targets, batch)

    def _lead(self, batch: MixtureBatch) -> Tensor | None:
        return batch.lead_time if self.conditioned_on_time else None

    @staticmethod
    def _known(answer: Tensor, truth: Tensor, batch: MixtureBatch) -> Tensor:
        assert batch.weight is not None
        learned = (batch.weight > 0).reshape(*batch.weight.shape, *[1] * (answer.ndim - 2))
        return torch.where(learned, answer, truth)


def _union(lists: Sequence[Sequence[Channel]]) -> list[Channel]:
    """All channels once, by name, in the order in which they come."""
    found: dict[str, Channel] = {}
    for channel in chain(*lists):
        found.setdefault(channel.name, channel)
    return list(found.values())
