"""Pictures of predictions in time: error curves, and the frames of one trajectory."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datagen.plots import colour_scale
from operators.data import Channel
from operators.plots import BASELINES, image, label, new_figure, positive

Array = NDArray[np.floating]

FRAMES_SHOWN = 5


def rollout_curves(
    times: Mapping[str, Array],
    errors: Mapping[str, Array],
    correlations: Mapping[str, Array],
    colours: Mapping[str, str],
    threshold: float,
) -> Any:
    """Error and correlation over time: the median of each predictor, and of one or two operators 80 % of the samples.

    Parameters
    ----------
    times : mapping of str to ndarray, shape (frames,)
        By the predictor's name.
    errors, correlations : mapping of str to ndarray, shape (samples, frames)
        Relative L2 errors, and Pearson correlations with the truth.
    colours : mapping of str to str
        As `operators.plots.palette` gives them; of names that are not in it (another use of an operator, "tfno,
        direct") the operator's, drawn dotted.
    threshold : float
        Of the correlation time; a line is drawn at it.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = new_figure(11, 4.6)
    left, right = figure.subplots(1, 2)
    operators = sum(colour not in BASELINES for colour in colours.values())
    for name in errors:
        owner = name if name in colours else name.rpartition(", ")[0]
        naive = colours[owner] in BASELINES
        kind = "--" if naive else "-" if owner == name else "-." if name.endswith("direct") else ":"
        style: dict[str, Any] = dict(color=colours[owner], linestyle=kind, linewidth=1.3 if naive else 1.8)
        if len(times[name]) < 40:
            style |= dict(marker="o", markersize=3)
        for axes, values in ((left, positive(errors[name])), (right, correlations[name])):
            low, middle, high = _quantiles(values)
            axes.plot(times[name], middle, label=name, **style)
            if owner == name and not naive and operators < 3:  # more bands hide each other
                axes.fill_between(times[name], low, high, color=colours[owner], alpha=0.15, linewidth=0)
    left.set_yscale("log")
    left.set_ylabel("relative L2 error")
    right.set_ylabel("correlation with the truth")
    right.axhline(threshold, color="0.6", linewidth=0.8)
    right.annotate(f" {threshold:g}", (1.0, threshold), xycoords=("axes fraction", "data"), fontsize=8, va="center")
    low, high = right.get_ylim()
    right.set_ylim(max(low, -1.05), min(high, 1.05))
    for axes in (left, right):
        axes.set_xlabel("time")
        axes.grid(True, which="both", alpha=0.2)
    handles, names = left.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=min(len(names), 3), fontsize=9, frameon=False)
    return figure


def _quantiles(values: Array) -> Array:
    """The 10, 50 and 90 % quantiles over the samples whose values are finite; nan where none is."""
    found = np.full((3, values.shape[1]), np.nan)
    for frame, each in enumerate(values.T):
        finite = each[np.isfinite(each)]
        if finite.size:
            found[:, frame] = np.quantile(finite, [0.1, 0.5, 0.9])
    return found


def trajectory(times: Array, truth: Array, prediction: Array, channel: Channel, title: str = "") -> Any:
    """Truth, prediction and error of one channel of one trajectory.

    In one dimension as images over position and time; in more, a column for each of `FRAMES_SHOWN` evenly spaced times.

    Parameters
    ----------
    times : ndarray, shape (frames,)
    truth, prediction : ndarray, shape (frames, *grid)
    channel : Channel
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    error = prediction - truth
    scale = colour_scale([truth])  # a prediction that blew up must not hide the truth
    largest = float(np.abs(error[np.isfinite(error)]).max(initial=0.0)) or 1.0
    rows = [
        ("truth", truth, scale),
        ("prediction", prediction, scale),
        ("prediction - truth", error, (-largest, largest)),
    ]
    if truth.ndim == 2:
        figure = new_figure(12, 3.8)
        half = (times[-1] - times[0]) / max(len(times) - 1, 1) / 2 or 0.5  # frames lie in the middle of their rows
        for axes, (words, field, (low, high)) in zip(figure.subplots(1, 3), rows, strict=True):
            drawn = axes.imshow(
                field,
                origin="lower",
                aspect="auto",
                extent=(0, 1, times[0] - half, times[-1] + half),
                vmin=low,
                vmax=high,
                cmap="RdBu_r" if low == -high else "viridis",
                interpolation="nearest",
            )
            figure.colorbar(drawn, ax=axes)
            axes.set_title(f"{label(channel)}: {words}", fontsize=10)
            axes.set_xlabel("position / length")
            axes.set_ylabel("time")
    else:
        chosen = np.unique(np.linspace(0, len(times) - 1, min(FRAMES_SHOWN, len(times))).round().astype(int))
        figure = new_figure(2.7 * len(chosen) + 1, 7.6)
        for row, (words, field, scale) in zip(figure.subplots(3, len(chosen), squeeze=False), rows, strict=True):
            for axes, frame in zip(row, chosen, strict=True):
                drawn = image(axes, field[frame], scale)
                if words == "truth":
                    axes.set_title(f"t = {times[frame]:.4g}", fontsize=10)
            row[0].set_ylabel(f"{label(channel)}: {words}", fontsize=10)
            figure.colorbar(drawn, ax=list(row), shrink=0.85).ax.tick_params(labelsize=8)
    figure.suptitle(title, fontsize=10)
    return figure
