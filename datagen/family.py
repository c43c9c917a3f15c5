"""What a PDE family is, and the registry of all of them.

A family is a frozen dataclass of physical parameters and a grid. ``sample(rng)`` draws the data of one problem,
``system(sample)`` discretises it. Southwell's own live in `datagen.pdes`, one a file; others come in through
`register` or the entry-point group ``southwell.pdes``.
"""

import importlib
import math
import pkgutil
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from datagen.discretise import Boundary
from datagen.grids import Grid
from solvers.registry import Registry

ROLES = ("input", "output", "constant")
_SMALLEST, _LARGEST = 1e-100, 1e100  # of parameters


@dataclass(frozen=True)
class Field:
    """A named quantity of a family.

    Parameters
    ----------
    name : str
        As in data files.
    role : str
        "input" (drawn), "output" (solved for) or "constant" (the same in every sample).
    units : str
        "dimensionless" where the equation is.
    description : str
        One line.
    """

    name: str
    role: str
    units: str
    description: str

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"Field {self.name!r}: role must be one of {', '.join(ROLES)}, got {self.role!r}")


@dataclass(frozen=True)
class Sample:
    """The data of one problem: input fields of the grid's shape, and scalars, by name.

    Parameters
    ----------
    fields : mapping of str to ndarray
        Of the grid's shape.
    scalars : mapping of str to float
    """

    fields: Mapping[str, NDArray[Any]]
    scalars: Mapping[str, float] = field(default_factory=dict)

    def rounded(self, dtype: Any) -> "Sample":
        """The same sample with its values as they will be stored.

        Systems are built from rounded samples, so that a stored solution solves the stored problem.
        """
        with np.errstate(over="ignore"):  # what does not fit is infinite then, and a failed draw
            return Sample(
                {name: np.asarray(values).astype(dtype) for name, values in self.fields.items()},
                {name: float(np.asarray(value).astype(dtype)) for name, value in self.scalars.items()},
            )


def _ravel(values: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(values).ravel()


@dataclass(frozen=True)
class LinearSystem:
    """``A x = b`` with the way between vectors of unknowns and fields.

    Attributes
    ----------
    A : StencilOperator, sparse array or LinearOperator of shape (n, n)
    b : ndarray, shape (n,)
    to_field : callable
        ``(n,) -> grid shape``.
    to_vector : callable
        ``grid shape -> (n,)``; the inverse of `to_field` on the unknowns.
    null_space : None, "constant" or ndarray (n, k)
        As the solvers take it.
    """

    A: Any
    b: NDArray[Any]
    to_field: Callable[[NDArray[Any]], NDArray[Any]]
    to_vector: Callable[[NDArray[Any]], NDArray[Any]] = _ravel
    null_space: Any = None

    def __post_init__(self) -> None:
        self.b.flags.writeable = False


class Family(ABC):
    """Base of all families; subclasses are frozen dataclasses registered by name.

    Class attributes ``fields`` (tuple of `Field`) and ``title`` (one line) are declared once and used by store,
    validation, data loading and hybrid solves. ``made_by_solving`` is false where samples were read from a file.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    fields: ClassVar[tuple[Field, ...]]
    made_by_solving: ClassVar[bool] = True
    # Of difficulty, where there is no configs/pde/NAME.yaml to declare them: datagen.difficulty.
    levels: ClassVar[Mapping[str, Mapping[str, Mapping[str, Any]]]] = {}
    # Whether it is an `EvolvingFamily` (datagen.evolve), whose outputs have a frame a time.
    evolves: ClassVar[bool] = False

    @property
    @abstractmethod
    def mesh(self) -> Grid:
        """The grid on which the fields live."""

    @property
    @abstractmethod
    def boundary(self) -> Boundary:
        """Boundary conditions per axis."""

    @abstractmethod
    def sample(self, rng: np.random.Generator) -> Sample:
        """Draw the data of one problem."""

    def system(self, sample: Sample) -> LinearSystem:
        """Discretise one problem; steady families have it."""
        raise TypeError(f"{self.name} evolves in time: it has evolve(state, times), and no steady system")

    def quality(self, sample: Sample, solution: Mapping[str, NDArray[Any]]) -> dict[str, float]:
        """Numbers stored beside a sample that tell whether its solution is sound; by default its range."""
        return {
            f"{name}_{word}": float(extreme(values))
            for name, values in solution.items()
            for word, extreme in (("minimum", np.min), ("maximum", np.max))
        }

    def values(self, sample: Sample, name: str) -> NDArray[np.float64]:
        """An input field of a sample in double precision, after its shape was looked at: it may be a user's own array.

        Raises
        ------
        ValueError
            If the sample lacks it, or it has another shape than the grid, or is not finite.
        """
        if name not in sample.fields:
            raise ValueError(f"{self.name}: the sample lacks field {name!r}, it has {', '.join(sorted(sample.fields))}")
        found = np.asarray(sample.fields[name], dtype=np.float64)
        if found.shape != self.mesh.shape:
            raise ValueError(
                f"{self.name}: field {name!r} must have the grid's shape {self.mesh.shape}, got {found.shape}"
            )
        if not np.all(np.isfinite(found)):
            raise ValueError(f"{self.name}: field {name!r} must be finite everywhere")
        return found

    @property
    def times(self) -> NDArray[np.float64]:
        """The times of the stored frames; a steady solution has one."""
        return np.zeros(1)

    def varies_in_time(self, field: Field) -> bool:
        """Whether a field is stored with a frame a time: the outputs of evolutions are."""
        return self.evolves and field.role == "output"

    def stored_shape(self, field: Field) -> tuple[int, ...]:
        """Shape of one sample of a field in a data file: ``grid``, or ``(frames, *grid)``."""
        return (len(self.times), *self.mesh.shape) if self.varies_in_time(field) else self.mesh.shape

    @property
    def fixed(self) -> tuple[str, ...]:
        """Inputs and scalars that these parameters make the same in every sample, though others would not."""
        return ()

    def role(self, role: str) -> tuple[Field, ...]:
        """The declared fields of one role, in order."""
        return tuple(f for f in self.fields if f.role == role)

    def parameters(self) -> dict[str, Any]:
        """Registry name and arguments, plain values: `build` makes the family again from them."""
        return {"name": self.name, **asdict(self)}  # type: ignore[call-overload]


families: Registry[type[Family]] = Registry("PDE family", "southwell.pdes")


def register(name: str) -> Callable[[type[Family]], type[Family]]:
    """Class decorator that adds a family under a name.

    Parameters
    ----------
    name : str
        As it is asked for, ``pde=name``; a name can be taken only once.
    """

    def add(family: type[Family]) -> type[Family]:
        family.name = name
        return families.register(name)(family)

    return add


def load_families() -> Registry[type[Family]]:
    """The registry with Southwell's own families in it."""
    package = importlib.import_module("datagen.pdes")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"datagen.pdes.{module.name}")
    return families


def build(name: str, **parameters: Any) -> Family:
    """Make a family from its registered name and parameters.

    Parameters
    ----------
    name : str
    parameters
        Fields of the family's dataclass; those left out have their defaults.

    Raises
    ------
    ValueError
        If the name or a parameter is unknown, or a value does not fit.

    Examples
    --------
    >>> build("darcy", grid=32).mesh.shape
    (32, 32)
    """
    for key, value in parameters.items():
        _refuse_absurd(name, key, value)
    family: Family = load_families().build(name, **parameters)
    return family


def _refuse_absurd(name: str, key: str, value: Any) -> None:
    """Refuse numbers whose squares and cubes leave double precision, before anybody computes with them."""
    if isinstance(value, (list, tuple)):
        for entry in value:
            _refuse_absurd(name, key, entry)
        return
    if not isinstance(value, (int, float)) or (isinstance(value, float) and not math.isfinite(value)):
        return  # which the family itself looks at
    if value != 0 and not _SMALLEST <= abs(value) <= _LARGEST:
        shown = f"{value:g}" if isinstance(value, float) else f"{str(value)[:20]}..."
        raise ValueError(
            f"{name}: {key} must be 0 or between {_SMALLEST:g} and {_LARGEST:g} in size, to be computed with in double "
            f"precision; got {shown}. Choose units in which it is moderate"
        )


SPLITS = ("train", "validation", "test")


def seed_sequence(root: int, family: str, split: str, index: int, attempt: int) -> np.random.SeedSequence:
    """The seed of one attempt at one sample: ``SeedSequence(root, spawn_key=(family, split, index, attempt))``.

    It does not depend on how many samples there are, how they are cut into shards or who computes them.

    Parameters
    ----------
    root : int
        Seed of the dataset.
    family : str
        Registered name.
    split : {"train", "validation", "test"}
    index : int
        Place within the split.
    attempt : int
        0, and one more for every failed draw of this sample.
    """
    key = (zlib.crc32(family.encode()), SPLITS.index(split), index, attempt)
    return np.random.SeedSequence(root, spawn_key=key)
