"""Metrics of a set of predictions: losses over all samples, in physical units, and their summaries."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from operators.losses import losses

METRICS = ("relative_l2", "relative_h1", "mse")
"""Registered losses that evaluation reports, in the order of its tables."""

BATCH = 64  # samples measured at a time: keeps the temporary derivatives of large test sets small


def measure(
    prediction: NDArray[np.floating], target: NDArray[np.floating], periodic: Sequence[bool] | None = None
) -> dict[str, NDArray[np.float64]]:
    """Every metric for every sample and channel.

    Parameters
    ----------
    prediction, target : ndarray, shape (samples, channels, *grid)
        In physical units.
    periodic : sequence of bool, optional
        Of each grid axis.

    Returns
    -------
    dict of str to ndarray, shape (samples, channels)
        Computed in double precision. `relative_h1` is left out on grids with fewer than 3 points on an axis.

    Raises
    ------
    ValueError
        If the shapes differ.

    Examples
    --------
    >>> target = np.random.default_rng(0).normal(size=(5, 1, 16, 16))
    >>> summarise(measure(np.zeros_like(target), target)["relative_l2"])
    {'mean': 1.0, 'median': 1.0, 'max': 1.0}
    """
    if prediction.shape != target.shape:
        raise ValueError(f"prediction has shape {prediction.shape}, the truth {target.shape}")
    names = [name for name in METRICS if name != "relative_h1" or min(target.shape[2:]) >= 3]
    parts: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
    for start in range(0, len(target), BATCH):
        p = torch.from_numpy(np.array(prediction[start : start + BATCH], dtype=np.float64))
        y = torch.from_numpy(np.array(target[start : start + BATCH], dtype=np.float64))
        for name in names:
            parts[name].append(losses[name](p, y, periodic).numpy())
    return {name: np.concatenate(values) for name, values in parts.items()}


def summarise(values: NDArray[np.float64]) -> dict[str, float]:
    """Mean, median and largest over samples (channels averaged first).

    Parameters
    ----------
    values : ndarray, shape (samples, channels)
    """
    each = values.mean(axis=1)
    return {"mean": float(each.mean()), "median": float(np.median(each)), "max": float(each.max())}
