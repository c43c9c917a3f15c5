"""The protocol between what is learned (a task) and the loop that learns it (`operators.trainer`)."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from operators.data import Batch, Channel, GaussianNormaliser
from operators.operator import Operator

Loss = Callable[[Tensor, Tensor], Tensor]
"""``loss(prediction, target) -> (samples, channels)``: a registered loss that knows the grid's periodic axes."""


class Examples(Protocol):
    """The examples of one split: a map from indices to batches that reads what it needs when it is asked.

    It can be pickled, and reads the same values in any process: loader workers are given copies.
    """

    def __len__(self) -> int:
        """How many there are."""

    def batch(self, indices: Tensor) -> Batch:
        """Examples of the given indices, shape (batch,), in that order."""


class Task(Protocol):
    """What is learned from a dataset: built as ``tasks.build(name, store, memory_gb=..., **arguments)``.

    Every task takes `memory_gb`: a split that needs more than that stays on disk and is read batch by batch.

    Attributes
    ----------
    inputs, outputs : list of Channel
        Of the operator. A lead time is not among the inputs.
    conditioned_on_time : bool
        Whether batches have a lead time.
    """

    inputs: list[Channel]
    outputs: list[Channel]
    conditioned_on_time: bool

    def examples(self, split: str) -> Examples:
        """The examples of "train", "validation" or "test"."""

    def normalisers(self) -> tuple[GaussianNormaliser, GaussianNormaliser]:
        """Of inputs and outputs, measured on training data only, batch by batch."""

    def loss(self, model: Operator, batch: Batch, loss: Loss) -> Tensor:
        """What a training batch costs, shape (samples, channels): training minimises its mean.

        Fields are compared in the units of `Operator.scaled`.
        """

    def predict(self, model: Operator, batch: Batch) -> Tensor:
        """The operator's answer to a validation or test batch, shape (samples, channels, *grid).

        In the units of `Operator.scaled`: validation computes the loss of it against ``model.scale(batch.targets)``.
        """
