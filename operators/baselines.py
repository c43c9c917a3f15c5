"""Naive predictors, to be beaten: the training mean, and ridge regression from all input values to all output values.

A neural operator that does not beat them has not learned the equation.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Predict = Callable[[Array], Array]

LARGEST_SYSTEM = 4000
"""Ridge regression diagonalises one matrix of the smaller of samples and features; at 4000 that takes a minute."""

PENALTIES = np.logspace(-8, 2, 21)
"""Tried ridge penalties, relative to the mean eigenvalue of the Gram matrix."""


@dataclass(frozen=True)
class Baseline:
    """A fitted naive predictor.

    Parameters
    ----------
    name : str
    predict : callable
        Inputs ``(samples, channels, *grid)`` to outputs ``(samples, channels, *grid)``, in physical units.
    """

    name: str
    predict: Predict


def training_mean(outputs: Iterable[Array]) -> Baseline:
    """Predict the mean training output, whatever the input.

    Parameters
    ----------
    outputs : iterable of ndarray, shape (samples, channels, *grid)
        All of the training outputs, some at a time.

    Examples
    --------
    >>> training_mean([np.array([[[1.0]], [[3.0]]]), np.array([[[5.0]]])]).predict(np.zeros((2, 1, 1))).ravel()
    array([3., 3.])
    """
    total, count = np.zeros(()), 0
    for some in outputs:
        total, count = total + some.sum(axis=0, dtype=np.float64), count + len(some)
    mean = total / max(count, 1)
    return Baseline("training mean", lambda inputs: np.broadcast_to(mean, (len(inputs), *mean.shape)))


def ridge(train: tuple[Array, Array], validation: tuple[Array, Array]) -> Baseline:
    r"""Linear regression with a penalty, chosen on validation data.

    With centred inputs ``X`` (samples x features, each channel scaled to unit variance) and outputs ``Y``,

    .. math:: W = \arg\min \|X W - Y\|^2 + \lambda \|W\|^2
                = X^{\mathsf T} (X X^{\mathsf T} + \lambda I)^{-1} Y
                = (X^{\mathsf T} X + \lambda I)^{-1} X^{\mathsf T} Y,

    by the second form where samples are fewer than features and by the third otherwise; one eigendecomposition serves
    every penalty tried. Where both are more than `LARGEST_SYSTEM`, the first `LARGEST_SYSTEM` samples are used.

    Parameters
    ----------
    train, validation : tuple of ndarray
        Inputs and outputs, each ``(samples, channels, *grid)``.

    Returns
    -------
    Baseline
        Its name holds the penalty (relative to the mean eigenvalue) and, if not all were used, the samples.

    Examples
    --------
    A linear map from enough samples is found exactly:

    >>> x = np.random.default_rng(0).normal(size=(50, 1, 4))
    >>> found = ridge((x[:40], 3 * x[:40] + 1), (x[40:45], 3 * x[40:45] + 1))
    >>> bool(np.allclose(found.predict(x[45:]), 3 * x[45:] + 1, atol=1e-5))
    True
    """
    inputs, outputs = (np.asarray(part, dtype=np.float64) for part in train)
    features = int(np.prod(inputs.shape[1:]))
    used = len(inputs)
    if min(used, features) > LARGEST_SYSTEM:
        used = LARGEST_SYSTEM
        inputs, outputs = inputs[:used], outputs[:used]
    centre, mean = inputs.mean(axis=0), outputs.mean(axis=0)
    scale = inputs.std(axis=(0, *range(2, inputs.ndim)), keepdims=True)[0]
    scale = np.where(scale > 0, scale, 1.0)

    def flat(fields: Array) -> NDArray[np.float64]:
        return ((fields - centre) / scale).reshape(len(fields), -1)

    x, y = flat(inputs), (outputs - mean).reshape(used, -1)
    dual = used <= features
    values, vectors = np.linalg.eigh(x @ x.T if dual else x.T @ x)
    values = np.maximum(values, 0.0)  # rounding leaves tiny negative ones
    projected = vectors.T @ (y if dual else x.T @ y)

    checked_inputs, checked_outputs = validation
    checked = (flat(checked_inputs) @ x.T if dual else flat(checked_inputs)) @ vectors
    truth = np.asarray(checked_outputs, dtype=np.float64).reshape(len(checked_inputs), -1)
    sizes = np.maximum(np.linalg.norm(truth, axis=1), np.finfo(float).tiny)

    def validation_error(penalty: float) -> float:
        prediction = checked @ (projected / (values + penalty)[:, None]) + mean.ravel()
        return float((np.linalg.norm(prediction - truth, axis=1) / sizes).mean())

    level = float(values.mean()) or 1.0
    relative = min(PENALTIES, key=lambda p: validation_error(p * level))
    coefficients = vectors @ (projected / (values + relative * level)[:, None])
    weights = x.T @ coefficients if dual else coefficients

    def predict(fields: Array) -> Array:
        return (flat(fields) @ weights).reshape(len(fields), *mean.shape) + mean

    name = f"ridge regression (penalty {relative:.1e})"
    return Baseline(name if used == len(train[0]) else f"{name}, first {used} samples", predict)
