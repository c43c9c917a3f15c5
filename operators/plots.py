"""Pictures of training and predictions. Functions return a `matplotlib.figure.Figure` and never open a window."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datagen.files import write_atomically
from datagen.plots import colour_scale, plane
from operators.data import Channel

Array = NDArray[np.floating]

TRUTH, PREDICTION, ERROR = "black", "tab:blue", "tab:red"
BASELINES = ("0.45", "tab:brown", "0.7")
"""Colours of naive predictors: dull, so that the operator stands out."""

CHANNELS_SHOWN = 4


def new_figure(width: float, height: float) -> Any:
    """An empty figure of a size in inches."""
    # Figure itself, not pyplot: no global state, no display, and matplotlib is imported only where a plot is made.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as PNG, atomically."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_atomically(path, buffer.getvalue())


def loss_curve(history: Sequence[Mapping[str, float]]) -> Any:
    """Training and validation loss over epochs, on a logarithmic axis.

    Parameters
    ----------
    history : sequence of mapping
        Rows of ``metrics.csv``.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = new_figure(6, 4)
    axes = figure.subplots()
    epochs = [row["epoch"] for row in history]
    for key, label in [("train_loss", "training (mean over the epoch)"), ("validation_loss", "validation")]:
        axes.semilogy(epochs, [row[key] for row in history], marker="o", markersize=3, label=label)
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    return figure


def samples(
    inputs: Array,
    truth: Array,
    prediction: Array,
    input_channels: Sequence[Channel],
    output_channels: Sequence[Channel],
    captions: Sequence[str] | None = None,
) -> Any:
    """One row a sample and output channel: input, truth, prediction and error.

    Truth and prediction share one scale; the error's is symmetric about zero. Of fields in one dimension curves are
    drawn, truth and prediction in one panel; of fields in three the middle slice of the last axis. Of more output
    channels than `CHANNELS_SHOWN` the first are drawn.

    Parameters
    ----------
    inputs, truth, prediction : ndarray, shape (samples, channels, *grid)
        In physical units; a few samples.
    input_channels, output_channels : sequence of Channel
    captions : sequence of str, optional
        What to write beside each sample.

    Returns
    -------
    matplotlib.figure.Figure
    """
    count, shown = len(truth), min(len(output_channels), CHANNELS_SHOWN)
    line = truth.ndim == 3
    figure = new_figure(13, 2.6 * count * shown) if line else new_figure(14, 3.1 * count * shown)
    rows = figure.subplots(count * shown, 3 if line else 4, squeeze=False)
    for number, row in enumerate(rows):
        sample, channel = divmod(number, shown)
        source = min(channel, len(input_channels) - 1)
        caption = "" if captions is None else captions[sample]
        row[0].set_ylabel(caption, fontsize=10)
        source_title, title = label(input_channels[source]), label(output_channels[channel])
        exact, guess = truth[sample, channel], prediction[sample, channel]
        if line:
            _draw_curves(row, inputs[sample, source], exact, guess, source_title, title)
        else:
            _draw_images(figure, row, inputs[sample, source], exact, guess, source_title, title)
    return figure


def _draw_curves(row: Any, source: Array, exact: Array, guess: Array, source_title: str, title: str) -> None:
    x = np.arange(len(exact)) / len(exact)
    row[0].plot(x, source, color="0.35")
    row[0].set_title(source_title, fontsize=10)
    row[1].plot(x, exact, color=TRUTH, linewidth=2, label="truth")
    row[1].plot(x, guess, color=PREDICTION, linewidth=1.3, linestyle="--", label="prediction")
    row[1].set_title(title, fontsize=10)
    row[1].legend(fontsize=8, framealpha=0.6)
    row[2].plot(x, guess - exact, color=ERROR)
    row[2].axhline(0, color="0.7", linewidth=0.8, zorder=0)
    row[2].set_title(f"{title}: prediction - truth", fontsize=10)
    for axes in row:
        axes.grid(True, alpha=0.25)
        axes.tick_params(labelsize=8)


def _draw_images(figure: Any, row: Any, source: Array, exact: Array, guess: Array, source_title: str, title: str) -> None:
    error = guess - exact
    largest = float(np.abs(error[np.isfinite(error)]).max(initial=0.0)) or 1.0
    low, high = colour_scale([exact, guess])
    panels = [
        (source_title, source, colour_scale([source])),
        (f"{title}: truth", exact, (low, high)),
        (f"{title}: prediction", guess, (low, high)),
        (f"{title}: prediction - truth", error, (-largest, largest)),
    ]
    for axes, (words, field, scale) in zip(row, panels, strict=True):
        figure.colorbar(image(axes, field, scale), ax=axes, shrink=0.85).ax.tick_params(labelsize=8)
        axes.set_title(words, fontsize=10)


def image(axes: Any, field: Array, scale: tuple[float, float]) -> Any:
    """Draw a field of two axes (the middle slice of further ones), the first to the right, the second upwards."""
    low, high = scale
    drawn = axes.imshow(
        plane(field).T, origin="lower", vmin=low, vmax=high, cmap="RdBu_r" if low == -high else "viridis"
    )
    axes.set_xticks([])
    axes.set_yticks([])
    return drawn


def label(channel: Channel) -> str:
    """Name of a channel with its units, where it has any."""
    return channel.name if channel.units in ("", "dimensionless", "1", "unknown") else f"{channel.name} [{channel.units}]"


def error_histogram(errors: Mapping[str, Array], quantity: str = "relative L2 error") -> Any:
    """How the errors of the samples are distributed, one histogram a predictor, the first of them the operator.

    Parameters
    ----------
    errors : mapping of str to ndarray, shape (samples,)
        By the predictor's name. Errors that are zero or not finite have no place on the logarithmic axis; how many
        they are is said in the legend.
    quantity : str
        What the errors are.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = new_figure(7, 4)
    axes = figure.subplots()
    drawable = {name: each[np.isfinite(each) & (each > 0)] for name, each in errors.items()}
    pooled = np.concatenate(list(drawable.values()))
    low, high = (pooled.min(), pooled.max()) if pooled.size else (0.1, 1.0)
    edges = np.geomspace(low / 1.05, high * 1.05, 41)
    colours = (PREDICTION, *BASELINES)
    for number, (name, each) in enumerate(drawable.items()):
        colour = colours[min(number, len(colours) - 1)]
        left_out = len(errors[name]) - len(each)
        words = f"{name}, median {np.median(each):.3g}" if each.size else name
        words += f" ({left_out} not drawn: zero or not finite)" if left_out else ""
        axes.hist(each, edges, histtype="stepfilled", color=colour, alpha=0.75 if number == 0 else 0.45, label=words)
        if each.size:
            axes.axvline(np.median(each), color=colour, linewidth=1.2, linestyle="--")
    axes.set_xscale("log")
    axes.set_xlabel(f"{quantity} of a sample")
    axes.set_ylabel("samples")
    axes.margins(y=0.08)
    axes.grid(True, which="both", alpha=0.2)
    figure.legend(loc="outside upper center", fontsize=9, ncols=min(2, len(drawable)), frameon=False)
    return figure


def spectra(truth: Array, prediction: Array, error: Array, channels: Sequence[Channel]) -> Any:
    """Energy over wavenumbers of truth, prediction and their difference, one panel a channel.

    Where the error's curve meets the truth's, the prediction holds nothing that is true.

    Parameters
    ----------
    truth, prediction, error : ndarray, shape (channels, wavenumbers)
        Means over samples of `operators.spectra.energy_spectrum`.
    channels : sequence of Channel

    Returns
    -------
    matplotlib.figure.Figure
    """
    shown = min(len(channels), CHANNELS_SHOWN)
    figure = new_figure(max(6.0, 4.6 * shown), 4)
    for axes, number in zip(figure.subplots(1, shown, squeeze=False)[0], range(shown), strict=True):
        waves = np.arange(1, truth.shape[1])  # the mean has no place on a logarithmic axis
        for values, colour, style, words in (
            (truth, TRUTH, "-", "truth"),
            (prediction, PREDICTION, "--", "prediction"),
            (error, ERROR, "-", "prediction - truth"),
        ):
            axes.loglog(waves, positive(values[number, 1:]), color=colour, linestyle=style, label=words)
        axes.set_title(label(channels[number]), fontsize=10)
        axes.set_xlabel("wavenumber (waves along the box)")
        axes.grid(True, which="both", alpha=0.2)
        if number == 0:
            axes.set_ylabel("energy")
            axes.legend(fontsize=9)
    return figure


def positive(values: Array) -> Array:
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)
