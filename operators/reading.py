"""What an operator is asked, and what it should answer: its input and output fields out of a dataset."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from datagen.interchange.samples import INITIAL
from datagen.store import Store
from operators.data import Channel, channels

if TYPE_CHECKING:
    from operators.predict import Predictor

Fields = NDArray[np.float32]


class Reader:
    """The channels of an operator in one split of a dataset, some samples at a time.

    Frames of what evolves are counted from the state at time 0, be it the first of the stored frames or, where these
    begin later, the initial fields. Steady fields are the same at every frame, and so are the scalars of a sample,
    which are constant over the grid.

    Parameters
    ----------
    store : Store
    split : str
    inputs, outputs : sequence of Channel
        Of the operator.

    Attributes
    ----------
    times : ndarray, shape (frames,)
        Of the frames; one, 0, where nothing evolves.
    """

    def __init__(self, store: Store, split: str, inputs: Sequence[Channel], outputs: Sequence[Channel]) -> None:
        self.store, self.split = store, split
        self._inputs, self._outputs = [c.name for c in inputs], [c.name for c in outputs]
        fields = {field.name for field in store.fields}
        self._fields = fields
        self._evolving = {field.name for field in store.fields if store.evolves and field.role == "output"}
        stored = np.asarray(store.times, dtype=float) if store.evolves else np.zeros(1)
        self._leading = stored[0] > 0 and all(INITIAL + name in fields for name in self._evolving)
        self.times = np.concatenate([[0.0], stored]) if self._leading else stored

    def __len__(self) -> int:
        return self.store.sizes.get(self.split, 0)

    def inputs(self, start: int, stop: int, frame: int = 0) -> Fields:
        """Input fields of some samples, ``(samples, input channels, *grid)``; of what evolves the given frame.

        Raises
        ------
        ValueError
            If a value is not finite.
        """
        return self._stacked(self._inputs, start, stop, frame)

    def outputs(self, start: int, stop: int, frame: int = -1) -> Fields:
        """Output fields of some samples, ``(samples, output channels, *grid)``; of what evolves the given frame.

        Raises
        ------
        ValueError
            If a value is not finite.
        """
        return self._stacked(self._outputs, start, stop, frame)

    def _stacked(self, names: Sequence[str], start: int, stop: int, frame: int) -> Fields:
        parts = [self._channel(name, start, stop, frame % len(self.times)) for name in names]
        return np.stack(parts, axis=1)

    def _channel(self, name: str, start: int, stop: int, frame: int) -> Fields:
        if name not in self._fields:
            numbers = self.store.record(self.split, f"scalars/{name}", start, stop)
            shape = (len(numbers), *self.store.shape)
            values = np.broadcast_to(numbers.reshape(-1, *[1] * (len(shape) - 1)), shape)
        elif name not in self._evolving:
            values = self.store.read(self.split, name, start, stop)
        elif self._leading and frame == 0:
            values = self.store.read(self.split, INITIAL + name, start, stop)
        else:
            values = self.store.read(self.split, name, start, stop, frame=frame - self._leading)
        array = np.asarray(values, dtype=np.float32)
        bad = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))
        if bad.size:
            raise ValueError(
                f"dataset {self.store.path}: {self.split} sample {start + bad[0]} of {name!r} is not finite "
                f"({bad.size} such samples); check the dataset with southwell-data validate"
            )
        return array


def check_store(predictor: "Predictor", store: Store) -> None:
    """Raise unless a dataset has an operator's channels, in order, and as many axes.

    Parameters
    ----------
    predictor : Predictor
    store : Store

    Raises
    ------
    ValueError
    """
    if predictor.task_name == "linear_system":
        raise ValueError(
            "the checkpoint was trained with task linear_system: it predicts directions for a solver to search in, "
            "and what they are worth is measured by solving, not on fields"
        )
    if predictor.step is None:
        theirs = _names(channels(store, "input"), channels(store, "output"))
        fits = theirs == _names(predictor.inputs, predictor.outputs)
    else:
        # Inputs are a frame of what evolves, and whatever else of a sample the task takes.
        inputs, outputs = channels(store, "input"), channels(store, "output")
        theirs = _names(inputs, outputs)
        fits = [c.name for c in outputs] == [c.name for c in predictor.outputs]
        known = {channel.name for channel in (*inputs, *outputs)}
        unknown = {channel.name for channel in predictor.inputs} - known
        fits = fits and (not unknown or unknown <= set(store.record_names("scalars")))
    if not fits:
        raise ValueError(
            f"the checkpoint maps {_names(predictor.inputs, predictor.outputs)}, but dataset {store.path} has {theirs}"
        )
    if len(store.shape) != len(predictor.grid):
        raise ValueError(
            f"the checkpoint was trained on {len(predictor.grid)} grid axes, but dataset {store.path} has "
            f"{len(store.shape)}"
        )
    if predictor.step is not None and not store.evolves:
        raise ValueError(
            f"the checkpoint was trained to step in time (task {predictor.task_name}), but the samples of {store.path} "
            "are steady"
        )


def _names(inputs: Sequence[Channel], outputs: Sequence[Channel]) -> str:
    return " -> ".join("(" + ", ".join(channel.name for channel in part) + ")" for part in (inputs, outputs))
