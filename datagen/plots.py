"""Pictures of stored samples. Functions return figures or the bytes of a file, and never open a window."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datagen.family import Field
from datagen.grids import Grid
from datagen.store import Store

FRAMES_SHOWN = 4
MAX_SAMPLES = 32
_DIVERGING, _SEQUENTIAL = "RdBu_r", "viridis"


def contact_sheet(store: Store, split: str = "train", start: int = 0, stop: int = 4) -> Any:
    """One row a sample: inputs, then outputs, each field with one scale for all rows.

    Fields in one dimension are drawn as curves, in two as images (first axis to the right, second upwards), in more as
    the middle slice of the axes after the second. Of an evolution, `FRAMES_SHOWN` frames of every output are drawn,
    evenly spaced from the first (the initial field, where that is an input) to the last. Fields of both signs are
    coloured symmetrically about zero.

    Parameters
    ----------
    store : Store
    split : str
    start, stop : int
        The samples.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If there are no such samples, or too many for one sheet.
    """
    from matplotlib.figure import Figure

    _check(store, split, start, stop)
    times = store.times
    columns, names = [], {field.name for field in store.fields}
    for field in store.fields:
        values = store.read(split, field.name, start, stop).astype(np.float64)
        if values.ndim == 1 + len(store.shape):
            columns.append((label(field), field, values))
            continue
        chosen = np.unique(np.linspace(0, values.shape[1] - 1, FRAMES_SHOWN).round().astype(int))
        if f"initial_{field.name}" in names and times[0] == 0:
            chosen = chosen[1:]  # the first is drawn as an input
        columns += [(f"{label(field)}, t = {times[i]:.4g}", field, values[:, i]) for i in chosen]
    scales = {field.name: colour_scale([v for _, f, v in columns if f is field]) for _, field, _ in columns}
    height = 2.6 if len(store.shape) > 1 else 2.2
    figure = Figure(figsize=(3.1 * len(columns), height * (stop - start)), layout="constrained")
    axes = figure.subplots(stop - start, len(columns), squeeze=False)
    for row in range(stop - start):
        for place, (title, field, values) in zip(axes[row], columns, strict=True):
            drawn = draw(place, store.family.mesh, values[row], scales[field.name])
            place.set_title(title if row == 0 else "", fontsize=9)
            if len(store.shape) > 1:
                figure.colorbar(drawn, ax=place, shrink=0.85).ax.tick_params(labelsize=7)
        axes[row][0].set_ylabel(f"{split} {start + row}", fontsize=9)
    slices = _sliced(store)
    figure.suptitle(f"{store.family.title}{f'; {slices}' if slices else ''}", fontsize=10)
    return figure


def gif(store: Store, split: str = "train", index: int = 0, frames_per_second: int = 8) -> bytes:
    """An animation of the outputs of one sample through all its frames, as the bytes of a GIF file.

    Parameters
    ----------
    store : Store
    split : {"train", "validation", "test"}
    index : int
        Of the sample.
    frames_per_second : int

    Raises
    ------
    ValueError
        If the dataset has no frames.
    """
    import tempfile
    from pathlib import Path

    from matplotlib.animation import FuncAnimation, PillowWriter
    from matplotlib.figure import Figure

    _check(store, split, index, index + 1)
    if not store.evolves:
        raise ValueError(f"the samples of {store.path} are steady: there is nothing to animate")
    outputs = [field for field in store.fields if field.role == "output"]
    movies = [store.read(split, field.name, index, index + 1)[0].astype(np.float64) for field in outputs]
    times = store.times
    figure = Figure(figsize=(4.2 * len(outputs), 3.6), layout="constrained")
    panels = figure.subplots(1, len(outputs), squeeze=False)[0]
    mesh = store.family.mesh
    drawn = [draw(place, mesh, movie[0], colour_scale([movie])) for place, movie in zip(panels, movies, strict=True)]
    if len(store.shape) > 1:
        for place, image in zip(panels, drawn, strict=True):
            figure.colorbar(image, ax=place, shrink=0.85)

    def show(frame: int) -> list[Any]:
        for place, field, movie, artist in zip(panels, outputs, movies, drawn, strict=True):
            values = plane(movie[frame])
            if values.ndim == 1:
                artist.set_ydata(values)
            else:
                artist.set_data(values.T)
            place.set_title(f"{label(field)}, t = {times[frame]:.4g}", fontsize=10)
        return drawn

    animation = FuncAnimation(figure, show, frames=len(times), blit=False)
    # matplotlib's writers want a path.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "samples.gif"
        animation.save(path, writer=PillowWriter(fps=frames_per_second), dpi=80)
        return path.read_bytes()


def png(figure: Any) -> bytes:
    """A figure as the bytes of a PNG file.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    return buffer.getvalue()


def label(field: Field) -> str:
    """Name of a field with its units, where it has any.

    Parameters
    ----------
    field : Field

    Examples
    --------
    >>> label(Field("pressure", "output", "Pa", "")), label(Field("u", "output", "dimensionless", ""))
    ('pressure [Pa]', 'u')
    """
    return field.name if field.units in ("", "1", "dimensionless", "unknown") else f"{field.name} [{field.units}]"


def plane(values: NDArray[Any]) -> NDArray[Any]:
    """Values on at most two axes: the middle slice of each further one.

    Parameters
    ----------
    values : ndarray
        On one axis or more.

    Examples
    --------
    >>> plane(np.arange(24).reshape(2, 3, 4))
    array([[ 2,  6, 10],
           [14, 18, 22]])
    """
    while values.ndim > 2:
        values = values[..., values.shape[-1] // 2]
    return values


def draw(axes: Any, mesh: Grid, values: NDArray[Any], scale: tuple[float, float]) -> Any:
    """Draw one field of one sample with a colour scale (or limits of the ordinate); returns what was drawn.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    mesh : Grid
    values : ndarray
        On one or two axes.
    scale : (float, float)
        Lowest and highest value shown.
    """
    low, high = scale
    if values.ndim == 1:
        (curve,) = axes.plot(mesh.coordinates(0), values)
        margin = 0.05 * (high - low)
        axes.set_ylim(low - margin, high + margin)
        axes.tick_params(labelsize=7)
        return curve
    width, height = mesh.lengths[:2]
    colours = _DIVERGING if low == -high else _SEQUENTIAL
    image = axes.imshow(
        plane(values).T, origin="lower", extent=(0, width, 0, height), vmin=low, vmax=high, cmap=colours
    )
    axes.set_xticks([])
    axes.set_yticks([])
    return image


def colour_scale(values: list[NDArray[Any]]) -> tuple[float, float]:
    """Lowest and highest of the finite values, symmetric about zero where both signs weigh.

    Parameters
    ----------
    values : list of ndarray
    """
    finite = np.concatenate([v[np.isfinite(v)].ravel() for v in values])
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if low < 0 < high and min(-low, high) > 0.1 * max(-low, high):
        high = max(-low, high)
        low = -high
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _sliced(store: Store) -> str:
    names = store.family.mesh.axis_names[2:]
    middles = [store.family.mesh.coordinates(axis)[store.shape[axis] // 2] for axis in range(2, len(store.shape))]
    return ", ".join(f"slice at {name} = {x:.3g}" for name, x in zip(names, middles, strict=True))


def _check(store: Store, split: str, start: int, stop: int) -> None:
    store.shards(split)  # names the splits there are
    if not 0 <= start < stop <= store.sizes[split]:
        raise ValueError(
            f"samples {start} to {stop - 1} are not there: split {split!r} of {store.path} has {store.sizes[split]}"
        )
    if stop - start > MAX_SAMPLES:
        raise ValueError(f"samples={stop - start} do not fit on one sheet; at most {MAX_SAMPLES} do")
