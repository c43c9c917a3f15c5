"""Who is compared in an evaluation: trained operators, and the naive predictors they have to beat.

All of them answer the same question, chunk of samples by chunk of samples: from the input fields of a chunk, what are
its output fields at these frames? Of steady data there is one frame, and one answer.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datagen.store import Store
from operators.baselines import Baseline, Predict, ridge, training_mean
from operators.predict import Predictor
from operators.reading import Reader

Fields = NDArray[np.floating]

CHUNK_VALUES = 2**20
"""Grid values of one channel that are held at a time: 4 MiB in single precision."""

RIDGE_BYTES = 2**29
"""Ridge regression holds its training samples in memory, in double precision: as many as fit into this."""


@dataclass
class Chunk:
    """Some samples of a split.

    Attributes
    ----------
    inputs : ndarray, shape (samples, input channels, *grid)
        Of each operator by its name.
    before : ndarray, shape (samples, output channels, *grid), or None
        In time: the truth at the frame asked for before this one; None if this is the first.
    """

    inputs: dict[str, Fields]
    before: Fields | None = None


@dataclass(frozen=True)
class Contender:
    """A predictor that takes part.

    Attributes
    ----------
    name : str
    frames : sequence of int
        Of the dataset, those that it predicts, increasing.
    predictions : callable
        From a chunk to its output fields ``(samples, output channels, *grid)``, frame by frame.
    fit_seconds : float or None
        What it took to train or fit it.
    naive : bool
        Whether it is a baseline.
    """

    name: str
    frames: Sequence[int]
    predictions: Callable[[Chunk], Iterator[Fields]]
    fit_seconds: float | None = None
    naive: bool = False


def chunks(reader: Reader) -> Iterator[tuple[int, int]]:
    """First and last (exclusive) sample of pieces of a split that fit `CHUNK_VALUES`."""
    size = max(1, CHUNK_VALUES // math.prod(reader.store.shape))
    for start in range(0, len(reader), size):
        yield start, min(start + size, len(reader))


def visited(times: NDArray[np.floating], step: float, first: int = 0) -> list[int]:
    """The frames of a dataset that lie one, two, ... steps after its first, or after another.

    Raises
    ------
    ValueError
        If there is none at a whole number of steps.

    Examples
    --------
    >>> visited(np.array([0.0, 0.1, 0.2, 0.3, 0.4]), 0.2)
    [2, 4]
    """
    later = np.asarray(times) - times[first]
    frames: list[int] = []
    for number in range(1, math.floor(later[-1] / step * (1 + 1e-6)) + 1):
        frame = int(np.argmin(np.abs(later - number * step)))
        if abs(later[frame] - number * step) > 1e-5 * step:  # stored times are of single precision
            break
        frames.append(frame)
    if not frames:
        raise ValueError(
            f"the operator steps by {step:g} in time, but no frame of the dataset is that much later than time "
            f"{times[first]:g}; its times are {', '.join(f'{t:g}' for t in times[:4])}, ... {times[-1]:g}"
        )
    return frames


def of_operator(name: str, predictor: Predictor, reader: Reader, lead_time: float | None) -> list[Contender]:
    """A trained operator as it can be used on a dataset.

    A static one maps inputs to outputs (the last frame of what evolves). One that steps in time is rolled out from the
    first frame; its single steps, each from the truth, tell how much of a rollout's error comes from feeding
    predictions back; and where it takes a lead time it also predicts every frame directly from the first, which is all
    that one trained from the initial state alone is asked for.

    Parameters
    ----------
    name : str
    predictor : Predictor
    reader : Reader
        Of its channels.
    lead_time : float, optional
        Of one step of a rollout, in physical time; what the operator was trained for if left out.
    """
    seconds = sum(row["seconds"] for row in predictor.history)
    if predictor.step is None:
        last = [len(reader.times) - 1]
        return [Contender(name, last, lambda chunk: _once(predictor.predict, chunk.inputs[name]), seconds)]
    ((step, *_),) = [predictor.steps_of(1, lead_time)]
    frames = visited(reader.times, step, predictor.first_frame)
    ahead = np.full(len(frames), step)

    def rolled(chunk: Chunk) -> Iterator[Fields]:
        return predictor.frames(chunk.inputs[name], ahead, direct=False)

    def direct(chunk: Chunk) -> Iterator[Fields]:
        return predictor.frames(chunk.inputs[name], ahead, direct=True)

    def single_steps(chunk: Chunk) -> Iterator[Fields]:
        for _ in frames:
            current = np.array(chunk.inputs[name])
            if chunk.before is not None:
                for output, place in predictor.state.items():
                    current[:, place] = chunk.before[:, output]
            yield predictor.predict(current, step)

    if predictor.from_initial:
        return [Contender(name, frames, direct, seconds)]
    found = [Contender(name, frames, rolled, seconds), Contender(f"{name}, single steps", frames, single_steps)]
    return [*found, Contender(f"{name}, direct", frames, direct)] if predictor.takes_lead_time else found


def baselines(predictor: Predictor, store: Store, name: str, frames: Sequence[int]) -> list[Contender]:
    """Naive predictors, fitted on the dataset's own training and validation splits where it has them.

    In time: the initial state, and the mean of the training data at each frame. Else: the mean, and ridge regression.

    Parameters
    ----------
    predictor : Predictor
        Whose inputs and outputs they have.
    store : Store
    name : str
        By which chunks hold the inputs of that operator.
    frames : sequence of int
        Of the dataset.
    """
    found = []
    if predictor.step is not None:
        found.append(
            Contender("persistence", frames, lambda chunk: _persist(predictor, chunk, name, frames), naive=True)
        )
    if not store.sizes.get("train") or not store.sizes.get("validation"):
        return found
    started = time.perf_counter()
    means = [training_mean(_outputs(predictor, store, frame)) for frame in frames]
    fit_seconds = time.perf_counter() - started
    found.append(
        Contender(
            "training mean",
            frames,
            lambda chunk: (mean.predict(chunk.inputs[name]) for mean in means),
            fit_seconds,
            True,
        )
    )
    if predictor.step is None:
        started = time.perf_counter()
        linear = _ridge(predictor, store)
        fit_seconds = time.perf_counter() - started
        found.append(
            Contender(linear.name, frames, lambda chunk: _once(linear.predict, chunk.inputs[name]), fit_seconds, True)
        )
    return found


def _once(predict: Predict, inputs: Fields) -> Iterator[Fields]:
    yield predict(inputs)  # when it is asked for, and its seconds are counted


def _persist(predictor: Predictor, chunk: Chunk, name: str, frames: Sequence[int]) -> Iterator[Fields]:
    initial = predictor.initial_state(chunk.inputs[name])
    for _ in frames:
        yield initial


def _outputs(predictor: Predictor, store: Store, frame: int) -> Iterator[Fields]:
    training = Reader(store, "train", predictor.inputs, predictor.outputs)
    for start, stop in chunks(training):
        yield training.outputs(start, stop, frame)


def _ridge(predictor: Predictor, store: Store) -> Baseline:
    values = (len(predictor.inputs) + len(predictor.outputs)) * math.prod(store.shape)
    fitting = max(1, RIDGE_BYTES // (8 * values))

    def pair(split: str) -> tuple[Fields, Fields]:
        reader = Reader(store, split, predictor.inputs, predictor.outputs)
        count = min(len(reader), fitting)
        return reader.inputs(0, count), reader.outputs(0, count)

    linear = ridge(pair("train"), pair("validation"))
    if fitting < store.sizes["train"] and "first" not in linear.name:
        return Baseline(f"{linear.name}, first {fitting} samples", linear.predict)
    return linear
