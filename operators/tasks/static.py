"""The static task: input fields to output fields, one example a sample."""

from torch import Tensor

from datagen.store import Store
from operators.data import Batch, Channel, Fields, GaussianNormaliser, channels, fits_in_memory
from operators.operator import Operator
from operators.tasks.protocol import Loss


class StaticExamples:
    """Samples of one split: their input fields, and their output fields as targets.

    Parameters
    ----------
    inputs, targets : Fields
    """

    def __init__(self, inputs: Fields, targets: Fields) -> None:
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.inputs)

    def batch(self, indices: Tensor) -> Batch:
        """Samples of the given indices."""
        return Batch(self.inputs[indices], self.targets[indices])


class StaticTask:
    r"""Learn the map from a sample's input fields to its output fields. Of evolutions, that is the last frame.

    .. math:: \min_\theta \frac1N \sum_i \ell(G_\theta(a_i), u_i)

    Parameters
    ----------
    store : Store
    memory_gb : float
        A split that needs more than this stays on disk and is read batch by batch.
    """

    conditioned_on_time = False

    def __init__(self, store: Store, memory_gb: float = 4.0) -> None:
        self.store, self.memory_gb = store, memory_gb
        self._examples: dict[str, StaticExamples] = {}
        self.inputs: list[Channel] = channels(store, "input")
        self.outputs: list[Channel] = channels(store, "output")

    def examples(self, split: str) -> StaticExamples:
        """The samples of a split."""
        if split not in self._examples:
            inputs, outputs = [c.name for c in self.inputs], [c.name for c in self.outputs]
            keep = fits_in_memory(self.store, split, len(inputs) + len(outputs), self.memory_gb)
            last = -1 if self.store.evolves else None
            self._examples[split] = StaticExamples(
                Fields(self.store, split, inputs, keep=keep), Fields(self.store, split, outputs, frame=last, keep=keep)
            )
        return self._examples[split]

    def normalisers(self) -> tuple[GaussianNormaliser, GaussianNormaliser]:
        """Of inputs and outputs, over all training samples."""
        training = self.examples("train")
        return GaussianNormaliser.measure(training.inputs.chunks()), GaussianNormaliser.measure(
            training.targets.chunks()
        )

    def loss(self, model: Operator, batch: Batch, loss: Loss) -> Tensor:
        """The loss of the prediction against the targets."""
        return loss(self.predict(model, batch), model.scale(batch.targets))

    def predict(self, model: Operator, batch: Batch) -> Tensor:
        """The predicted output fields."""
        return model.scaled(batch.inputs)
