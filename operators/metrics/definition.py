"""What a metric is, and the registry of all of them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from operators.losses import losses
from solvers.registry import Registry, near_names

OVER_SAMPLES: dict[str, Callable[[NDArray[np.float64]], float]] = {
    "mean": lambda each: float(np.mean(each)),
    "median": lambda each: float(np.median(each)),
    "root mean square": lambda each: float(np.sqrt(np.mean(np.square(each)))),
    "largest": lambda each: float(np.max(each)),
}


@dataclass(frozen=True)
class Metric:
    """One number a sample and channel, and the one number that is made of them.

    Parameters
    ----------
    name : str
    definition : str
        The formula on one line, with p the prediction and y the truth: printed beside the numbers in reports.
    of_fields : callable
        ``(prediction, target, periodic) -> Tensor (samples, channels)``.
    over_samples : {"mean", "median", "root mean square", "largest"}
        How the samples are summed up.
    needs : str
        "", "three points an axis" or "a boundary" (an axis that is not periodic): where there is none of it the metric
        has no meaning.
    """

    name: str
    definition: str
    of_fields: Callable[..., Tensor]
    over_samples: str = "mean"
    needs: str = ""

    def __call__(self, prediction: Tensor, target: Tensor, periodic: Sequence[bool] | None = None) -> Tensor:
        """The metric of each sample and channel, shape (samples, channels)."""
        found = self.of_fields(prediction, target, periodic)
        if found.shape != target.shape[:2]:
            raise ValueError(
                f"metric {self.name!r} gave shape {tuple(found.shape)}, but a metric is one number a sample and "
                f"channel, {tuple(target.shape[:2])} here; {self.name!r} can be a loss only"
            )
        return found

    def summary(self, values: NDArray[np.float64]) -> float:
        """One number of the values ``(samples, channels)``: channels are averaged first, then `over_samples`."""
        return OVER_SAMPLES[self.over_samples](np.asarray(values).mean(axis=1))

    def applies(self, grid: Sequence[int], periodic: Sequence[bool] | None = None) -> bool:
        """Whether the metric has a meaning on a grid with these axes."""
        if self.needs == "three points an axis":
            return min(grid) >= 3
        return self.needs != "a boundary" or periodic is None or not all(periodic)


metrics: Registry[Metric] = Registry("metric")


def metric(name: str) -> Metric:
    """A metric by its name: a registered one, or any registered loss.

    Parameters
    ----------
    name : str

    Raises
    ------
    ValueError
        If there is no such metric or loss; the message lists what there is.

    Examples
    --------
    >>> metric("vrmse").definition
    'sqrt(mean_x (p - y)^2 / mean_x (y - mean_x y)^2), mean over samples'
    >>> metric("vmrse")
    Traceback (most recent call last):
        ...
    ValueError: unknown metric 'vmrse'. Did you mean 'vrmse'...? Known: boundary_error, ...
    """
    if name in metrics:
        return metrics[name]
    if name in losses:
        loss = losses[name]
        lines = (loss.__doc__ or "as its author defines it").strip().splitlines()
        return Metric(name, f"{lines[0].rstrip('.')}, mean over samples", loss)
    raise ValueError(f"unknown metric {name!r}. {near_names(str(name), sorted({*metrics, *losses}))}")


def definitions(names: Iterable[str]) -> dict[str, str]:
    """The formula of each metric, for a report.

    Parameters
    ----------
    names : iterable of str

    Examples
    --------
    >>> definitions(["relative_l1", "maximum_error"])["maximum_error"]
    'max_x |p - y|, largest over samples'
    """
    return {name: metric(name).definition for name in names}
