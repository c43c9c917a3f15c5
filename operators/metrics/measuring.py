"""Metrics of a set of predictions, in physical units, and their summaries."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from operators.metrics.definition import metric

METRICS = (
    "relative_l2",
    "relative_h1",
    "mse",
    "relative_l1",
    "nrmse",
    "vrmse",
    "maximum_error",
    "correlation",
    "boundary_error",
    "conservation_error",
    "spectral_low",
    "spectral_middle",
    "spectral_high",
)
"""What evaluation reports, in the order of its tables."""

BATCH_VALUES = 2**18  # measured at a time: temporary derivatives and transforms stay small, and near the processor


def applicable(names: Iterable[str], grid: Sequence[int], periodic: Sequence[bool] | None = None) -> list[str]:
    """Those of the metrics that have a meaning on a grid: no H1 norm of two points, no boundary error of a torus.

    Parameters
    ----------
    names : iterable of str
    grid : sequence of int
    periodic : sequence of bool, optional

    Examples
    --------
    >>> applicable(["mse", "boundary_error", "relative_h1"], (2, 8), (True, True))
    ['mse']
    """
    return [name for name in names if metric(name).applies(grid, periodic)]


def measure(
    prediction: NDArray[np.floating],
    target: NDArray[np.floating],
    periodic: Sequence[bool] | None = None,
    names: Iterable[str] = METRICS,
) -> dict[str, NDArray[np.float64]]:
    """Metrics for every sample and channel.

    Parameters
    ----------
    prediction, target : ndarray, shape (samples, channels, *grid)
        In physical units.
    periodic : sequence of bool, optional
        Of each grid axis.
    names : iterable of str
        Registered metrics or losses.

    Returns
    -------
    dict of str to ndarray, shape (samples, channels)
        Computed in double precision. Those without a meaning on this grid are left out (`applicable`).

    Raises
    ------
    ValueError
        If the shapes differ, or a metric is unknown.

    Examples
    --------
    >>> target = np.random.default_rng(0).normal(size=(5, 1, 16, 16))
    >>> summarise(measure(np.zeros_like(target), target)["relative_l2"])
    {'mean': 1.0, 'median': 1.0, 'max': 1.0}
    """
    if prediction.shape != target.shape:
        raise ValueError(f"prediction has shape {prediction.shape}, the truth {target.shape}")
    chosen = [metric(name) for name in applicable(names, target.shape[2:], periodic)]
    parts: dict[str, list[NDArray[np.float64]]] = {one.name: [] for one in chosen}
    step = max(1, BATCH_VALUES // max(1, math.prod(target.shape[1:])))
    for start in range(0, len(target), step):
        p = torch.from_numpy(np.array(prediction[start : start + step], dtype=np.float64))
        y = torch.from_numpy(np.array(target[start : start + step], dtype=np.float64))
        for one in chosen:
            parts[one.name].append(one(p, y, periodic).numpy())
    return {name: np.concatenate(values) for name, values in parts.items()}


def summarise(values: NDArray[np.float64]) -> dict[str, float]:
    """Mean, median and largest over samples (channels averaged first).

    Parameters
    ----------
    values : ndarray, shape (samples, channels)
    """
    each = values.mean(axis=1)
    return {"mean": float(each.mean()), "median": float(np.median(each)), "max": float(each.max())}
