"""Which examples make up each step, and who reads them."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from operators.data import Batch
from operators.tasks.protocol import Examples


def epoch_batches(examples: Examples | int, batch_size: int, seed: int, epoch: int) -> list[Tensor]:
    """Indices of the examples of each batch of one epoch, in random order.

    A pure function of seed and epoch: the same for any number of workers, and after a resume.

    Parameters
    ----------
    examples : Examples or int
        Which may draw themselves (``drawn(seed, epoch)``, as mixtures do), or how many there are to be seen once.
    batch_size : int
        The last batch may be smaller.
    seed, epoch : int

    Examples
    --------
    >>> [len(batch) for batch in epoch_batches(10, 4, seed=0, epoch=3)]
    [4, 4, 2]
    """
    if hasattr(examples, "drawn"):
        order = examples.drawn(seed, epoch)
    else:
        generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch,)))
        order = generator.permutation(examples if isinstance(examples, int) else len(examples))
    return list(torch.from_numpy(order).split(batch_size))


class Loader:
    """Reads batches in a given order, here or ahead of time in other processes; the same batches either way.

    Parameters
    ----------
    examples : Examples
    workers : int
        Processes; 0 reads in this one.
    pin_memory : bool
        Whether batches go on to a GPU.
    """

    def __init__(self, examples: Examples, workers: int, pin_memory: bool) -> None:
        self.examples, self._order = examples, _Order()
        self._loader: DataLoader[Any] | None = None
        if workers > 0:
            # Its own generator: the loader draws a seed for its workers, and torch's stream belongs to the model.
            self._loader = DataLoader(
                _Reading(examples),
                sampler=self._order,
                batch_size=None,
                num_workers=workers,
                persistent_workers=True,
                pin_memory=pin_memory,
                generator=torch.Generator(),
            )

    def batches(self, parts: Sequence[Tensor]) -> Iterator[Batch]:
        """The batches of these indices, in this order."""
        if self._loader is None:
            for part in parts:
                yield self.examples.batch(part)
            return
        self._order.parts = parts
        for item in self._loader:
            if isinstance(item, Exception):
                raise item
            yield item


class _Order:
    """What a persistent loader shall read next."""

    def __init__(self) -> None:
        self.parts: Sequence[Tensor] = ()

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)


class _Reading(Dataset[Any]):
    """Examples as torch's loader takes them. Errors are handed over: raised in a worker they would be wrapped."""

    def __init__(self, examples: Examples) -> None:
        self.examples = examples

    def __getitem__(self, indices: Tensor) -> Batch | Exception:
        try:
            return self.examples.batch(indices)
        except (ValueError, OSError) as error:
            return error
