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
OPERATORS = (PREDICTION, "tab:orange", "tab:green", "tab:purple", "tab:cyan", "tab:pink", "tab:olive")
BASELINES = ("0.4", "0.62", "tab:brown")
"""Colours of naive predictors: dull, so that operators stand out."""

CHANNELS_SHOWN = 4


def new_figure(width: float, height: float) -> Any:
    """An empty figure.

    Parameters
    ----------
    width, height : float
        In inches.
    """
    # Figure itself, not pyplot: no global state, no display, and matplotlib is imported only where a plot is made.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as PNG, atomically.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    path : Path
    """
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
    when: tuple[str, str] = ("", ""),
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
    when : pair of str
        What to write after the names of inputs and of outputs: their times.

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
        source_title, title = label(input_channels[source]) + when[0], label(output_channels[channel]) + when[1]
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


def _draw_images(
    figure: Any, row: Any, source: Array, exact: Array, guess: Array, source_title: str, title: str
) -> None:
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
    """Draw a field in two dimensions, its first axis to the right, the second upwards.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    field : ndarray, shape (*grid)
        Of further axes the middle slice is drawn.
    scale : pair of float
        Values of the first and last colour; colours diverge where they are opposite.
    """
    low, high = scale
    drawn = axes.imshow(
        plane(field).T, origin="lower", vmin=low, vmax=high, cmap="RdBu_r" if low == -high else "viridis"
    )
    axes.set_xticks([])
    axes.set_yticks([])
    return drawn


def label(channel: Channel) -> str:
    """Name of a channel with its units, where it has any.

    Parameters
    ----------
    channel : Channel

    Examples
    --------
    >>> label(Channel("pressure", "Pa")), label(Channel("u", "dimensionless"))
    ('pressure [Pa]', 'u')
    """
    return (
        channel.name if channel.units in ("", "dimensionless", "1", "unknown") else f"{channel.name} [{channel.units}]"
    )


def palette(operators: Sequence[str], naive: Sequence[str] = ()) -> dict[str, str]:
    """One colour a predictor, the same in all pictures of an evaluation.

    Parameters
    ----------
    operators, naive : sequence of str
        Names of operators, and of naive predictors.
    """
    found = {name: OPERATORS[number % len(OPERATORS)] for number, name in enumerate(operators)}
    return found | {name: BASELINES[number % len(BASELINES)] for number, name in enumerate(naive)}


def error_histogram(errors: Mapping[str, Array], colours: Mapping[str, str]) -> Any:
    """How the relative L2 errors of the samples are distributed, a histogram and its median a predictor.

    Parameters
    ----------
    errors : mapping of str to ndarray, shape (samples,)
        By the predictor's name. Errors that are zero or not finite have no place on the logarithmic axis; how many
        they are is said in the legend.
    colours : mapping of str to str
        As `palette` gives them.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = new_figure(7.5, 4.4)
    axes = figure.subplots()
    drawn = {name: each[np.isfinite(each) & (each > 0)] for name, each in errors.items()}
    pooled = np.concatenate(list(drawn.values()))
    low, high = (pooled.min(), pooled.max()) if pooled.size else (0.1, 1.0)
    bins = int(np.clip(3 * max(map(len, errors.values())) ** 0.5, 12, 48))
    edges = np.geomspace(low / 1.05, high * 1.05, bins + 1)
    for name, each in drawn.items():
        left_out = len(errors[name]) - len(each)
        words = f"{name}, median {per_cent(np.median(each))}" if each.size else name
        words += f" ({left_out} not drawn: zero or not finite)" if left_out else ""
        axes.hist(each, edges, histtype="stepfilled", color=colours[name], alpha=0.35)
        axes.hist(each, edges, histtype="step", color=colours[name], linewidth=1.4, label=words)
        if each.size:
            axes.axvline(np.median(each), color=colours[name], linewidth=1.2, linestyle="--")
    _percent_axis(axes)
    axes.set_xlabel("relative L2 error of a sample")
    axes.set_ylabel("samples")
    axes.grid(True, which="both", alpha=0.2)
    figure.legend(loc="outside upper center", fontsize=9, ncols=1 if len(drawn) < 4 else 2, frameon=False)
    return figure


def spectra(
    truth: Array,
    predictions: Mapping[str, tuple[Array, Array]],
    colours: Mapping[str, str],
    channels: Sequence[Channel],
) -> Any:
    """Energy over wavenumbers of the truth, of predictions, and of their errors; one panel a channel.

    Where an error's curve meets the truth's, the prediction holds nothing that is true.

    Parameters
    ----------
    truth : ndarray, shape (channels, wavenumbers)
        Mean over samples of `operators.metrics.spectrum`.
    predictions : mapping of str to pairs of ndarray, shape (channels, wavenumbers)
        Of each operator its prediction's and its error's.
    colours : mapping of str to str
        As `palette` gives them.
    channels : sequence of Channel

    Returns
    -------
    matplotlib.figure.Figure
    """
    shown = min(len(channels), CHANNELS_SHOWN)
    figure = new_figure(max(7.0, 4.6 * shown), 4.6)
    panels = figure.subplots(1, shown, squeeze=False)[0]
    waves = np.arange(truth.shape[1])
    for number, axes in enumerate(panels):
        # The shell 0 <= |k| < 1 holds the mean, and has no place on a logarithmic axis.
        axes.loglog(waves[1:], positive(truth[number, 1:]), color=TRUTH, linewidth=2, label="truth")
        for name, (prediction, error) in predictions.items():
            axes.loglog(waves[1:], positive(prediction[number, 1:]), color=colours[name], linestyle="--", label=name)
            axes.loglog(
                waves[1:], positive(error[number, 1:]), color=colours[name], linestyle=":", label=f"error of {name}"
            )
        axes.set_title(label(channels[number]), fontsize=10)
        axes.set_xlabel("wavenumber, cycles along the box")
        axes.grid(True, which="both", alpha=0.2)
    panels[0].set_ylabel("energy")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", fontsize=9, ncols=min(len(names), 3), frameon=False)
    return figure


def comparison(errors: Mapping[str, Array], captions: Mapping[str, str], colours: Mapping[str, str]) -> Any:
    """Errors of several predictors side by side: median, 10 to 90 % of the samples, and the worst.

    Parameters
    ----------
    errors : mapping of str to ndarray, shape (samples,)
        Relative L2 errors by the predictor's name.
    captions : mapping of str to str
        What to write beside a name (parameters, say), for those that have some.
    colours : mapping of str to str
        As `palette` gives them.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = new_figure(8, 1.2 + 0.55 * len(errors))
    axes = figure.subplots()
    for row, (name, each) in enumerate(errors.items()):
        finite = each[np.isfinite(each)]
        if not finite.size:
            continue
        low, middle, high = np.quantile(finite, [0.1, 0.5, 0.9])
        axes.plot([low, high], [row, row], color=colours[name], linewidth=5, alpha=0.45, solid_capstyle="round")
        axes.plot(middle, row, "o", color=colours[name], markersize=8)
        axes.plot(finite.max(), row, "x", color=colours[name], markersize=7)
        axes.annotate(per_cent(middle), (middle, row), (0, 9), textcoords="offset points", fontsize=8, ha="center")
    _percent_axis(axes)
    axes.set_yticks(range(len(errors)), [f"{n}\n{captions[n]}" if n in captions else n for n in errors], fontsize=9)
    axes.set_ylim(len(errors) - 0.5, -0.6)
    axes.set_xlabel("relative L2 error: median (dot), 10 to 90 % of the samples (bar), worst (cross)")
    axes.grid(True, which="both", axis="x", alpha=0.25)
    return figure


def per_cent(share: float | np.floating[Any]) -> str:
    """A share in per cent, to three digits.

    Parameters
    ----------
    share : float

    Examples
    --------
    >>> per_cent(0.01234), per_cent(12.5)
    ('1.23 %', '1.25e+03 %')
    """
    return f"{100 * share:.3g} %"


def _percent_axis(axes: Any) -> None:
    """A logarithmic abscissa in per cent, its labels at 1, 2 and 5 times powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 300 * low else (1.0,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: per_cent(x)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def positive(values: Array) -> Array:
    """Values that a logarithmic axis can show; nan in place of the others.

    Parameters
    ----------
    values : ndarray
    """
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)
