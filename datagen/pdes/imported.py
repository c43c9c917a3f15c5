"""Samples that were read from somebody's file: what they are is known, where they come from is a name and a hash."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NoReturn

import numpy as np
from numpy.typing import NDArray

from datagen.discretise import PERIODIC, boundary_names
from datagen.family import Family, Field, LinearSystem, Sample, register
from datagen.grids import CENTRINGS, Grid


@dataclass(frozen=True)
class Stated:
    """A condition at a side that is known by its name alone.

    Parameters
    ----------
    kind : str
        Its name: "dirichlet", "wall", ...
    """

    kind: str


SIDE_NAMES = ("dirichlet", "neumann", "robin", "wall", "outflow", "absorbing", PERIODIC, "unknown")
MAX_FIELDS, MAX_DIMENSION = 100, 8


@register("imported")
@dataclass(frozen=True)
class Imported(Family):
    """Fields on one grid, with names, units and roles, whose values come from a file and from no equation.

    `southwell-data import` writes datasets of this family. They train and evaluate as others do, but there is nothing
    to draw, to solve or to check a residual against: `sample` and `system` say so.

    Parameters
    ----------
    grid : sequence of int
        Values per axis.
    declared : sequence of mapping
        Per field its name, role, units and description, as `datagen.family.Field` takes them.
    lengths : sequence of float, optional
        Of the box, per axis; 1 where the file does not say.
    centring : str
        "cell", "node" or "periodic-node".
    sides : sequence of pairs of str, optional
        Conditions per axis, at its lower and its upper end: "dirichlet", "neumann", "robin", "wall", "outflow",
        "absorbing", "periodic" or "unknown".
    frame_times : sequence of float, optional
        Of the frames, where output fields are ``(frames, *grid)``: two or more; None for a steady problem.
    source, sha256 : str
        Name and hash of the file.
    layout : str
        Its format.

    Raises
    ------
    ValueError
        If an entry does not fit.

    Examples
    --------
    >>> heights = [{"name": "rain", "role": "input"}, {"name": "flood", "role": "output", "units": "m"}]
    >>> family = Imported(grid=[32, 16], declared=heights, source="flood.npz")
    >>> family.mesh.spacing
    (0.03125, 0.0625)
    >>> family.sample(np.random.default_rng(0))
    Traceback (most recent call last):
        ...
    TypeError: imported: the samples of this dataset come from the file flood.npz; none can be drawn or solved for anew
    """

    grid: Sequence[int]
    declared: Sequence[Mapping[str, str]]
    lengths: Sequence[float] | None = None
    centring: str = "cell"
    sides: Sequence[Sequence[str]] | None = None
    frame_times: Sequence[float] | None = None
    source: str = ""
    sha256: str = ""
    layout: str = ""

    title: ClassVar[str] = "samples from a file"
    made_by_solving: ClassVar[bool] = False

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        grid = tuple(self.grid)
        if not 1 <= len(grid) <= MAX_DIMENSION or not all(_whole(n) and n >= 1 for n in grid):
            raise ValueError(f"imported: grid must be 1 to {MAX_DIMENSION} positive integers, got {self.grid!r}")
        put("grid", grid)
        put("lengths", (1.0,) * len(grid) if self.lengths is None else tuple(float(x) for x in self.lengths))
        if self.centring not in CENTRINGS:
            raise ValueError(f"imported: centring must be one of {', '.join(CENTRINGS)}, got {self.centring!r}")
        put("fields", _fields(self.declared))
        put("declared", tuple(asdict(field) for field in self.fields))
        unstated = (("unknown", "unknown"),) * len(grid)
        sides = unstated if self.sides is None else tuple(tuple(pair) for pair in self.sides)
        fits = all(len(pair) == 2 and set(pair) <= set(SIDE_NAMES) for pair in sides) and all(
            (pair[0] == PERIODIC) == (pair[1] == PERIODIC) for pair in sides
        )
        if len(sides) != len(grid) or not fits:
            raise ValueError(
                f"imported: sides must be {len(grid)} pairs (one per axis) of {', '.join(SIDE_NAMES)}, an axis being "
                f"periodic at both ends or at none; got {self.sides!r}"
            )
        put("sides", sides)
        if self.frame_times is not None:
            times = tuple(float(t) for t in self.frame_times)
            if len(times) < 2 or not np.all(np.isfinite(times)) or np.any(np.diff(times) <= 0):
                raise ValueError(f"imported: frame_times must be two or more, finite, and increase, got {times!r}")
            put("frame_times", times)
        put("evolves", self.frame_times is not None)
        self.mesh  # noqa: B018  checks lengths

    @classmethod
    def of(cls, family: Family, **changes: Any) -> "Imported":
        """What another family says of its fields, grid and sides, without its equation."""
        if isinstance(family, cls) and not changes:
            return family
        times = [float(t) for t in family.times] if family.evolves else None
        values: dict[str, Any] = {
            "grid": family.mesh.shape,
            "declared": [asdict(field) for field in family.fields],
            "lengths": family.mesh.lengths,
            "centring": family.mesh.centring,
            "sides": [[_known(name) for name in pair] for pair in boundary_names(family.boundary)],
            "frame_times": times,
        }
        return cls(**{**values, **changes})

    @property
    def mesh(self) -> Grid:
        """The grid of the file's arrays."""
        return Grid(tuple(self.grid), tuple(self.lengths or ()), self.centring)

    @property
    def boundary(self) -> Any:
        """The conditions stated for the file; "unknown" where none were."""
        return tuple(
            PERIODIC if pair[0] == PERIODIC else (Stated(pair[0]), Stated(pair[1])) for pair in self.sides or ()
        )

    @property
    def times(self) -> NDArray[np.float64]:
        """The times of the frames; a steady problem has one."""
        return np.zeros(1) if self.frame_times is None else np.array(self.frame_times)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of one sample of a field: the grid, with the frames before it for outputs of an evolution."""
        return next(self.stored_shape(field) for field in self.fields if field.name == name)

    def sample(self, rng: np.random.Generator) -> Sample:
        """There is none to draw."""
        self._refuse()

    def system(self, sample: Sample) -> LinearSystem:
        """There is none to solve."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise TypeError(
            f"imported: the samples of this dataset come from the file {self.source}; none can be drawn or solved for "
            "anew"
        )


def _known(name: str) -> str:
    """The name of a condition; those of somebody's own family may be others than ours."""
    return name if name in SIDE_NAMES else "unknown"


def _whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _fields(declared: Any) -> tuple[Field, ...]:
    known = ("name", "role", "units", "description")
    fields = []
    for entry in declared:
        if not isinstance(entry, Mapping) or not set(entry) <= set(known) or not {"name", "role"} <= set(entry):
            raise ValueError(f"imported: declared must hold mappings of {', '.join(known)}, got {entry!r}")
        if not all(isinstance(value, str) for value in entry.values()):
            raise ValueError(f"imported: declared must hold strings, got {entry!r}")
        # Names become paths in the data files.
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,59}", entry["name"]):
            raise ValueError(
                f"imported: a field's name must be letters, digits and underscores, got {entry['name'][:80]!r}"
            )
        fields.append(Field(**{"units": "unknown", "description": "", **entry}))
    names = [field.name for field in fields]
    if len(set(names)) < len(names) or len(names) > MAX_FIELDS:
        raise ValueError(f"imported: field names must differ, and be at most {MAX_FIELDS}; got {names[:MAX_FIELDS]}")
    if not any(field.role == "input" for field in fields) or not any(field.role == "output" for field in fields):
        raise ValueError("imported: at least one field must be an input and one an output")
    return tuple(fields)
