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
from operators.predict import Predictor, read_inputs, read_outputs

Fields = NDArray[np.floating]

CHUNK_VALUES = 2**22
"""Grid values of one channel that are held at a time: 16 MiB in single precision."""

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
        In time: the truth at the frame before the one that is asked for.
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


def chunks(store: Store, split: str) -> Iterator[tuple[int, int]]:
    """First and last (exclusive) sample of pieces of a split that fit `CHUNK_VALUES`."""
    size = max(1, CHUNK_VALUES // math.prod(store.shape))
    total = store.sizes[split]
    for start in range(0, total, size):
        yield start, min(start + size, total)


def visited(times: NDArray[np.floating], step: float) -> list[int]:
    """The frames of a dataset that lie one, two, ... steps after its first.

    Raises
    ------
    ValueError
        If there is none at a whole number of steps.

    Examples
    --------
    >>> visited(np.array([0.0, 0.1, 0.2, 0.3, 0.4]), 0.2)
    [2, 4]
    """
    frames, last = [], float(times[-1] - times[0])
    for number in range(1, math.floor(last / step * (1 + 1e-6)) + 1):
        frame = int(np.argmin(np.abs(times - times[0] - number * step)))
        if abs(times[frame] - times[0] - number * step) > 1e-5 * step:
            break
        frames.append(frame)
    if not frames:
        raise ValueError(
            f"the operator steps by {step:g} in time, but no frame of the dataset is that much later than its first: "
            f"its frames are {(times[1] - times[0]) if len(times) > 1 else 0:g} apart and end at {times[-1]:g}"
        )
    return frames


def of_operator(name: str, predictor: Predictor, store: Store, lead_time: float | None) -> list[Contender]:
    """A trained operator as it can be used on a dataset.

    A static one maps inputs to outputs (the last frame of what evolves). One that steps in time is rolled out from the
    first frame; where it takes a lead time it also predicts every frame directly from the first; and its single steps,
    each from the truth, tell how much of a rollout's error comes from feeding predictions back.

    Parameters
    ----------
    name : str
    predictor : Predictor
    store : Store
    lead_time : float, optional
        Of one step of a rollout, in physical time; what the operator was trained for if left out.
    """
    seconds = sum(row["seconds"] for row in predictor.history)
    if predictor.step is None:
        last = [len(store.times) - 1] if store.evolves else [0]
        return [Contender(name, last, lambda chunk: _once(predictor.predict, chunk.inputs[name]), seconds)]
    step = predictor.step if lead_time is None else lead_time
    frames = visited(store.times, step)
    ahead = np.full(len(frames), step)

    def single_steps(chunk: Chunk) -> Iterator[Fields]:
        for _ in frames:
            current = np.array(chunk.inputs[name])
            assert chunk.before is not None
            for output, place in predictor.state.items():
                current[:, place] = chunk.before[:, output]
            yield predictor.predict(current, step)

    found = [Contender(name, frames, lambda chunk: predictor.frames(chunk.inputs[name], ahead), seconds)]
    if predictor.takes_lead_time:
        found.append(
            Contender(
                f"{name}, direct", frames, lambda chunk: predictor.frames(chunk.inputs[name], ahead, direct=True), None
            )
        )
    return [*found, Contender(f"{name}, single steps", frames, single_steps, None)]


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
        found.append(Contender("persistence", frames, lambda chunk: _persist(predictor, chunk, name, frames), 0.0, True))
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
    for start, stop in chunks(store, "train"):
        yield read_outputs(predictor, store, "train", start, stop, frame)


def _ridge(predictor: Predictor, store: Store) -> Baseline:
    values = (len(predictor.inputs) + len(predictor.outputs)) * math.prod(store.shape)
    train, validation = store.sizes["train"], store.sizes["validation"]
    fitting = max(1, RIDGE_BYTES // (8 * values))

    def pair(split: str, count: int) -> tuple[Fields, Fields]:
        return read_inputs(predictor, store, split, 0, count), read_outputs(predictor, store, split, 0, count)

    linear = ridge(pair("train", min(train, fitting)), pair("validation", min(validation, fitting)))
    if fitting < train and "first" not in linear.name:
        return Baseline(f"{linear.name}, first {fitting} samples", linear.predict)
    return linear
