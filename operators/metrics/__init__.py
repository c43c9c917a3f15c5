"""Metrics: what is reported of a set of predictions, each by a registered name and with its formula.

    measure(prediction, truth, periodic)    every metric of every sample and channel
    metric("vrmse").definition              the formula, for reports
    rollout_errors, correlation_time        of predictions that are fed back

Every loss is a metric too; `operators.losses` has those that training minimises.
"""

from operators.metrics import fields, spectral  # noqa: F401 - they register what they hold
from operators.metrics.definition import Metric, definitions, metric, metrics
from operators.metrics.measuring import METRICS, applicable, measure, summarise
from operators.metrics.rollout import correlation_time, rollout_errors
from operators.metrics.spectral import spectrum

__all__ = [
    "METRICS",
    "Metric",
    "applicable",
    "correlation_time",
    "definitions",
    "measure",
    "metric",
    "metrics",
    "rollout_errors",
    "spectrum",
    "summarise",
]
