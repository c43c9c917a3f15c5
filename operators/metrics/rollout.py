"""Errors of rollouts: predictions that are fed back as the next input, step after step."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from operators.metrics.measuring import measure

Array = NDArray[np.floating]


def rollout_errors(
    prediction: Array, target: Array, name: str = "nrmse", periodic: Sequence[bool] | None = None
) -> NDArray[np.float64]:
    """A metric of each step of a rollout.

    Parameters
    ----------
    prediction, target : ndarray, shape (samples, steps, channels, *grid)
    name : str
        Of a metric or loss.
    periodic : sequence of bool, optional
        Of each grid axis.

    Returns
    -------
    ndarray, shape (samples, steps, channels)

    Raises
    ------
    ValueError
        If the shapes differ, the metric is unknown, or has no meaning on this grid.

    Examples
    --------
    >>> truth = np.ones((1, 3, 1, 8))
    >>> rollout_errors(truth * np.array([1.0, 1.1, 1.3])[None, :, None, None], truth).round(3).ravel()
    array([0. , 0.1, 0.3])
    """
    if prediction.shape != target.shape or target.ndim < 4:
        raise ValueError(
            f"a rollout has the shape (samples, steps, channels, *grid): prediction has {prediction.shape}, the truth "
            f"{target.shape}"
        )
    samples, steps = target.shape[:2]
    frames = (samples * steps, *target.shape[2:])
    values = measure(prediction.reshape(frames), target.reshape(frames), periodic, [name])
    if name not in values:
        raise ValueError(f"metric {name!r} has no meaning on a grid of {target.shape[3:]} points, periodic {periodic}")
    return values[name].reshape(samples, steps, -1)


def correlation_time(correlations: Array, times: Sequence[float], threshold: float = 0.8) -> NDArray[np.float64]:
    r"""How long predictions stay correlated with the truth: the time at which the correlation falls below a threshold.

    .. math:: t_c = \min \{ t : \rho(t) < \rho_0 \}

    with :math:`\rho` linear between steps, from 1 at the time of the initial state. A rollout that stays above has the
    last time: a lower bound.

    Parameters
    ----------
    correlations : ndarray, shape (samples, steps, channels)
        As `rollout_errors` gives them for the metric ``"correlation"``. NaN counts as lost.
    times : sequence of float, length steps + 1
        Of the initial state and of each step; increasing.
    threshold : float
        Usually 0.8 (Lippe et al., PDE-Refiner, 2023) or 0.95 (Kochkov et al., 2021).

    Returns
    -------
    ndarray, shape (samples, channels)

    Raises
    ------
    ValueError
        If the times do not fit or the threshold is not between 0 and 1.

    Examples
    --------
    >>> correlation_time(np.array([0.9, 0.7, 0.9]).reshape(1, 3, 1), [0, 1, 2, 3])
    array([[1.5]])
    """
    at = np.asarray(times, dtype=float)
    values = np.nan_to_num(np.asarray(correlations, dtype=float), nan=-1.0)
    if values.ndim != 3 or at.shape != (values.shape[1] + 1,) or not np.all(np.diff(at) > 0):
        raise ValueError(
            f"correlations (samples, steps, channels) have shape {values.shape}: times must be {values.shape[1:2]} + 1 "
            f"increasing numbers, that of the initial state first; got {times!r}"
        )
    if not 0 < threshold < 1:
        raise ValueError(f"threshold must be between 0 and 1, got {threshold!r}")
    curve = np.concatenate([np.ones_like(values[:, :1]), values], axis=1)
    below = curve < threshold
    first = np.where(below.any(axis=1), below.argmax(axis=1), len(at) - 1)  # (samples, channels)
    before, after = (np.take_along_axis(curve, step[:, None], axis=1)[:, 0] for step in (first - 1, first))
    fall = np.where(below.any(axis=1), (before - threshold) / np.where(before > after, before - after, 1.0), 1.0)
    return at[first - 1] + fall * (at[first] - at[first - 1])
