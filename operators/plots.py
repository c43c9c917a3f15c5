"""Pictures of training and predictions. Functions return a `matplotlib.figure.Figure` and never open a window."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datagen.files import write_atomically
from operators.data import Channel


def _figure(**arguments: Any) -> Any:
    # Figure itself, not pyplot: no global state, no display, and matplotlib is imported only where a plot is made.
    from matplotlib.figure import Figure

    return Figure(layout="constrained", **arguments)


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as PNG, atomically."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_atomically(path, buffer.getvalue())


def loss_curve(history: Sequence[Mapping[str, float]]) -> Any:
    """Training and validation loss over epochs, on a logarithmic axis.

    Parameters
    ----------
    history : sequence of dict
        Rows of ``metrics.csv``.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = _figure(figsize=(6, 4))
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
    inputs: NDArray[np.floating],
    truth: NDArray[np.floating],
    prediction: NDArray[np.floating],
    input_channels: Sequence[Channel],
    output_channels: Sequence[Channel],
) -> Any:
    """One row a sample: input, truth, prediction and error of the first channels.

    Truth and prediction share one scale; the error's is symmetric about zero. Of fields in one dimension curves are
    drawn, of fields in three the middle slice of the last axis.

    Parameters
    ----------
    inputs, truth, prediction : ndarray, shape (samples, channels, *grid)
        In physical units; a few samples.
    input_channels, output_channels : sequence of Channel

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = _figure(figsize=(14, 3.2 * len(truth)))
    grid = figure.subplots(len(truth), 4, squeeze=False)
    for row, source, exact, guess in zip(grid, inputs[:, 0], truth[:, 0], prediction[:, 0], strict=True):
        low, high = min(exact.min(), guess.min()), max(exact.max(), guess.max())
        error = guess - exact
        largest = float(np.abs(error).max()) or 1.0
        panels = [
            (_label(input_channels[0]), source, {}),
            (f"{_label(output_channels[0])}: truth", exact, {"vmin": low, "vmax": high}),
            (f"{_label(output_channels[0])}: prediction", guess, {"vmin": low, "vmax": high}),
            ("prediction - truth", error, {"vmin": -largest, "vmax": largest, "cmap": "RdBu_r"}),
        ]
        for axes, (title, field, scale) in zip(row, panels, strict=True):
            _draw(figure, axes, field, scale)
            axes.set_title(title, fontsize=10)
    return figure


def _label(channel: Channel) -> str:
    units = channel.units if channel.units not in ("", "dimensionless", "1") else ""
    return f"{channel.name} [{units}]" if units else channel.name


def _draw(figure: Any, axes: Any, field: NDArray[np.floating], scale: dict[str, Any]) -> None:
    if field.ndim == 1:
        axes.plot(np.arange(len(field)) / len(field), field)
        axes.set_ylim(scale.get("vmin"), scale.get("vmax"))
        return
    while field.ndim > 2:
        field = field[..., field.shape[-1] // 2]
    # First grid axis to the right, second upwards, as x and y are drawn.
    image = axes.imshow(field.T, origin="lower", **scale)
    axes.set_xticks([])
    axes.set_yticks([])
    figure.colorbar(image, ax=axes)
