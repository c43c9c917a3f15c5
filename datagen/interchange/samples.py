"""What all formats have in common: samples of named fields, read a piece at a time."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datagen.files import json_bytes
from datagen.pdes.imported import Imported

Array = NDArray[Any]
PIECE_BYTES = 2**23  # of all fields, read at once; writers hold two or three times as much
# The key under which every format carries what it has no words for: names, units, roles, box, sides, times.
NOTE = "southwell"
# An input of this name is its output's frame before the first.
INITIAL = "initial_"
_NOTED = ("grid", "declared", "lengths", "centring", "sides", "frame_times")


@dataclass(frozen=True)
class Samples:
    """Samples of one kind, of which only the pieces asked for are in memory.

    Parameters
    ----------
    about : Imported
        Fields, grid, sides, times.
    count : int
        How many samples.
    dtype : str
        "float32" or "float64".
    read : callable
        ``(name, start, stop)`` to the values of a field, ``(stop - start, *grid)``; outputs of an evolution are
        ``(stop - start, frames, *grid)``.
    columns : mapping of str to ndarray (count,)
        What else is known of each sample, by its place in a shard: "scalars/reynolds", "cost/work", ...
    seconds : ndarray (count,), optional
        Measured, of making each.
    """

    about: Imported
    count: int
    dtype: str
    read: Callable[[str, int, int], Array]
    columns: Mapping[str, Array] = field(default_factory=dict)
    seconds: Array | None = None

    def stacked(self, names: Sequence[str], start: int, stop: int, axis: int) -> Array:
        """Several fields as channels along an axis."""
        return np.stack([self.read(name, start, stop) for name in names], axis=axis)

    def trajectory(self, name: str, start: int, stop: int) -> Array:
        """An output of an evolution, with its initial field as frame 0 where `leads` says so."""
        frames = self.read(name, start, stop)
        if not leads(self.about):
            return frames
        return np.concatenate([self.read(INITIAL + name, start, stop)[:, None], frames], axis=1)

    def pieces(self) -> Iterator[tuple[int, int]]:
        """Ranges of samples whose arrays take about 32 MB each."""
        values = sum(int(np.prod(self.about.shape(field.name))) for field in self.about.fields)
        step = max(1, PIECE_BYTES // (values * np.dtype(self.dtype).itemsize))
        for start in range(0, self.count, step):
            yield start, min(start + step, self.count)


def named(about: Imported) -> tuple[list[str], list[str]]:
    """Names of what is given, drawn or constant, and of the outputs."""
    given = [field.name for field in about.fields if field.role != "output"]
    return given, [field.name for field in about.role("output")]


def leads(about: Imported) -> bool:
    """Whether the initial fields stand before the stored frames: all outputs have one, and the times start after 0."""
    inputs = {field.name for field in about.role("input")}
    initial = all(INITIAL + field.name in inputs for field in about.role("output"))
    return about.frame_times is not None and about.frame_times[0] > 0 and initial


def trajectory_times(about: Imported) -> list[float]:
    """Times of the frames of `Samples.trajectory`."""
    return [*([0.0] if leads(about) else []), *(about.frame_times or ())]


def initial_or_other(about: Imported) -> tuple[list[str], list[str]]:
    """Names of the inputs that are initial fields of outputs, and of the others."""
    inputs, outputs = named(about)
    starts = [INITIAL + name for name in outputs]
    return [name for name in inputs if name in starts], [name for name in inputs if name not in starts]


def note_of(about: Imported) -> str:
    """What the format has no words for, as JSON."""
    values = about.parameters()
    return json_bytes({key: values[key] for key in _NOTED}).decode()


def read_note(text: Any, path: Path) -> Imported:
    """The inverse of `note_of`; what the text says is checked as any bad input is."""
    if not isinstance(text, str) or len(text) > 1_000_000:
        raise ValueError(f"{path}: its note on Southwell's fields must be a string of JSON")
    try:
        return Imported(**json.loads(text))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: its note on Southwell's fields is damaged: {error}") from None


@dataclass(frozen=True)
class Wanted:
    """What a person says of a file that does not say it itself.

    Parameters
    ----------
    inputs, outputs : tuple of str
        Names: of the file's variables where it has names, given to its channels where it has none.
    dimension : int, optional
        Axes of the grid.
    lengths : tuple of float, optional
    centring : str, optional
    sides : tuple of str, optional
        One condition an axis, or one for all.
    """

    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    dimension: int | None = None
    lengths: tuple[float, ...] | None = None
    centring: str | None = None
    sides: tuple[str, ...] | None = None

    @property
    def names_fields(self) -> bool:
        """Whether fields are named here; then a note in the file does not count."""
        return bool(self.inputs or self.outputs)

    def describe(
        self,
        inputs: Sequence[str],
        outputs: Sequence[str],
        grid: Sequence[int],
        times: Sequence[float] | None = None,
        coordinates: Sequence[Array] | None = None,
    ) -> Imported:
        """Fields of a file without a note, named as here or else as given."""
        chosen = [("input", self.inputs or inputs, inputs), ("output", self.outputs or outputs, outputs)]
        for role, names, found in chosen:
            if len(names) != len(found):
                raise ValueError(f"{role}s={','.join(names)} names {len(names)} fields, and the file has {len(found)}")
        declared = [{"name": name, "role": role} for role, names, _ in chosen for name in names]
        box = {} if coordinates is None else box_of(coordinates)
        return self.amend(Imported(grid=tuple(grid), declared=declared, frame_times=times, **box))

    def describe_evolution(
        self,
        outputs: Sequence[str],
        grid: Sequence[int],
        times: Sequence[float],
        coordinates: Sequence[Array] | None = None,
        others: Sequence[str] = (),
    ) -> Imported:
        """Fields of a file without a note that holds frames: frame 0 of every output is its initial field, an input.

        Further inputs are those named here of the ``others`` that the file holds.
        """
        names = self.outputs or tuple(outputs)
        starts = tuple(INITIAL + name for name in names)
        beside = tuple(name for name in self.inputs if name not in starts)
        if not set(beside) <= set(others):
            raise ValueError(
                f"inputs={','.join(self.inputs)}: frame 0 of the outputs is an input by itself, and the file holds "
                f"{', '.join(others) or 'no other inputs'}"
            )
        if len(names) != len(outputs):
            raise ValueError(f"outputs={','.join(names)} names {len(names)} fields, and the file has {len(outputs)}")
        inputs = (*starts, *beside)
        return replace(self, inputs=inputs, outputs=names).describe(inputs, names, grid, times, coordinates)

    def amend(self, about: Imported) -> Imported:
        """The person knows better than the file how long the box is, how its values lie and what holds at its sides."""
        axes = len(about.grid)
        changes: dict[str, Any] = {}
        if self.lengths is not None:
            changes["lengths"] = self.lengths * axes if len(self.lengths) == 1 else self.lengths
        if self.centring is not None:
            changes["centring"] = self.centring
        if self.sides is not None:
            sides = self.sides * axes if len(self.sides) == 1 else self.sides
            changes["sides"] = [(side, side) for side in sides]
        return replace(about, **changes) if changes else about


def box_of(coordinates: Sequence[Array]) -> dict[str, Any]:
    """Lengths and centring that coordinates imply: node-centred if every axis starts at 0, cell-centred otherwise.

    Raises
    ------
    ValueError
        If an axis is not uniform.

    Examples
    --------
    >>> box_of([np.array([0.125, 0.375, 0.625, 0.875])])
    {'lengths': (1.0,), 'centring': 'cell'}
    >>> box_of([np.array([0.0, 0.5, 1.0])])
    {'lengths': (1.0,), 'centring': 'node'}
    """
    spacings = []
    for x in coordinates:
        steps = np.diff(np.asarray(x, dtype=np.float64))
        # Coordinates are often stored in single precision, whose rounding is of the size of the largest of them.
        slack = 4 * np.finfo(np.float32).eps * float(np.max(abs(x)))
        if steps.size == 0 or not (steps.min() > 0 and np.ptp(steps) <= 2 * slack):
            raise ValueError("its coordinates are not those of a uniform grid, and Southwell's grids are uniform")
        spacings.append(float(steps.mean()))
    node = all(x[0] == 0 for x in coordinates)
    lengths = [h * (len(x) - 1 if node else len(x)) for h, x in zip(spacings, coordinates, strict=True)]
    # Eight digits: single precision's.
    return {"lengths": tuple(float(f"{v:.7g}") for v in lengths), "centring": "node" if node else "cell"}


def stored_dtype(dtypes: Sequence[Any], path: Path) -> str:
    """The precision that holds all values of arrays exactly, as far as doubles can.

    Raises
    ------
    ValueError
        If an array holds anything but real numbers.
    """
    found = [np.dtype(dtype) for dtype in dtypes]
    for dtype in found:
        if dtype.kind not in "biuf" or dtype.itemsize > 8:
            raise ValueError(f"{path}: fields must be arrays of real numbers, got type {dtype}")
    narrow = all(dtype.itemsize <= (4 if dtype.kind == "f" else 2) for dtype in found)
    return "float32" if narrow else "float64"
