"""Registries: configs name registered things, they never carry import paths.

A registry maps a name to a class or function. Southwell's own entries come in through a decorator; a user's come in
the same way, or through the entry-point group of the registry, which is read the first time an unknown name is asked
for.
"""

import difflib
import functools
import inspect
import types
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import entry_points
from numbers import Integral, Real
from typing import Any, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T", bound=Callable[..., Any])


def near_names(name: str, known: list[str]) -> str:
    """Sentence fragment that offers the names closest to a misspelt one, and lists all when they are few.

    Parameters
    ----------
    name : str
        As it was given.
    known : list of str
    """
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(repr(n) for n in near)}? " if near else ""
    return f"{hint}Known: {', '.join(sorted(known)) or 'none'}."


class Registry(Generic[T]):
    """Named classes or functions of one kind.

    Parameters
    ----------
    kind : str
        What the entries are, for messages: "PDE family", "model".
    group : str, optional
        Entry-point group through which other distributions add entries.

    Examples
    --------
    >>> shapes = Registry("shape")
    >>> @shapes.register("square")
    ... def square(side: float = 1.0) -> float:
    ...     return side**2
    >>> shapes.build("square", side=3.0)
    9.0
    >>> shapes.build("sqare")
    Traceback (most recent call last):
        ...
    ValueError: unknown shape 'sqare'. Did you mean 'square'? Known: square.
    """

    def __init__(self, kind: str, group: str | None = None) -> None:
        self.kind = kind
        self.group = group
        self._entries: dict[str, T] = {}
        self._broken: dict[str, str] = {}
        self._discovered = group is None

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that adds an entry; a name can be taken only once."""

        def add(entry: T) -> T:
            if name in self._entries and self._entries[name] is not entry:
                raise ValueError(f"{self.kind} {name!r} is registered already, by {self._entries[name]!r}")
            self._entries[name] = entry
            return entry

        return add

    def _discover(self) -> None:
        """Load the entry points of other distributions (once, and only when a name is not one of ours)."""
        if self._discovered:
            return
        self._discovered = True
        for point in entry_points(group=self.group or ""):
            if point.name in self._entries:
                continue
            try:
                self._entries[point.name] = point.load()
            except Exception as error:  # whatever somebody's module does at its import; others' names are not its fault
                self._broken[point.name] = f"{self.kind} {point.name!r} ({point.value}) cannot be imported: {error!r}"

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            self._discover()
        if name in self._broken:
            raise ValueError(self._broken[name])
        if name not in self._entries:
            raise ValueError(f"unknown {self.kind} {name!r}. {near_names(str(name), list(self._entries))}")
        return self._entries[name]

    def __contains__(self, name: str) -> bool:
        if name not in self._entries:
            self._discover()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        self._discover()
        return iter(sorted(self._entries))

    def build(self, name: str, /, *args: Any, **arguments: Any) -> Any:
        """Call the entry with arguments, naming those it does not know.

        Raises
        ------
        ValueError
            If the name is unknown, or an argument is unknown or missing.
        """
        entry = self[name]
        signature = _signature(entry)
        parameters = signature.parameters
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
            known = [n for n, p in parameters.items() if p.kind is not inspect.Parameter.POSITIONAL_ONLY]
            for argument in arguments:
                if argument not in known:
                    raise ValueError(
                        f"{self.kind} {name!r} has no argument {argument!r}. {near_names(argument, known)}"
                    )
        try:
            signature.bind(*args, **arguments)
        except TypeError as error:
            raise ValueError(f"{self.kind} {name!r}: {error}") from None
        hints = _hints(entry)
        for argument, value in arguments.items():
            if argument in hints:
                hint = hints[argument]
                expected = hint.__name__ if isinstance(hint, type) else str(hint).replace("collections.abc.", "")
                if not fits(value, hint):
                    raise ValueError(f"{self.kind} {name!r}: {argument} must be {expected}, got {value!r}")
                try:
                    arguments[argument] = as_annotated(value, hint)
                except OverflowError:
                    raise ValueError(f"{self.kind} {name!r}: {argument} must be {expected}, got {value!r}") from None
        return entry(*args, **arguments)


# Remembered: a solve of a small system takes a few times what looking them up does.
@functools.lru_cache(maxsize=256)
def _signature(entry: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(entry)


@functools.lru_cache(maxsize=256)
def _hints(entry: Callable[..., Any]) -> dict[str, Any]:
    """Annotations of a function's or class's arguments; none where they cannot be resolved."""
    function = entry.func if isinstance(entry, functools.partial) else entry
    try:
        return get_type_hints(function.__init__ if inspect.isclass(function) else function)
    except (NameError, TypeError):
        return {}


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain value, as a config holds them, fits an annotation; annotations of other things always do.

    Parameters
    ----------
    value : object
    hint : type or typing construct
        int, float, str, bool, None, their unions, and lists, tuples and sequences of them are compared.

    Examples
    --------
    >>> fits(3, float), fits("abc", int), fits(True, int), fits([8, 8], Sequence[int]), fits(None, float | None)
    (True, False, False, True, True)
    >>> fits([1.0, 2.0], tuple[float, float]), fits([1.0], tuple[float, float])
    (True, False)
    """
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, option) for option in inner)
    if hint is type(None):
        return value is None
    if hint in (int, float):
        return isinstance(value, Integral if hint is int else Real) and not isinstance(value, bool)
    if hint in (str, bool):
        return isinstance(value, hint)
    if origin in (list, tuple, Sequence):
        items = [option for option in inner if option is not Ellipsis]
        if origin is tuple and Ellipsis not in inner and items:
            return isinstance(value, (list, tuple)) and len(value) == len(items) and all(map(fits, value, items))
        return isinstance(value, (list, tuple)) and (
            not items or all(any(fits(v, item) for item in items) for v in value)
        )
    return True


def as_annotated(value: Any, hint: Any) -> Any:
    """A value that fits an annotation, with whole numbers as floats where only floats are asked for.

    ``length=1`` and ``length=1.0`` are then one and the same spec, to the last byte.

    Parameters
    ----------
    value : object
        One that `fits`.
    hint : type or typing construct

    Examples
    --------
    >>> as_annotated(1, float), as_annotated(1, int | float), as_annotated([1, 2.5], tuple[float, ...] | None)
    (1.0, 1, [1.0, 2.5])
    """
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        exact = [option for option in inner if isinstance(option, type) and type(value) is option]
        chosen = next((option for option in (exact or inner) if fits(value, option)), None)
        return value if chosen is None else as_annotated(value, chosen)
    if hint is float and isinstance(value, Integral):
        return float(value)
    if origin in (list, tuple, Sequence) and inner and isinstance(value, (list, tuple)):
        items = inner if origin is tuple and Ellipsis not in inner else (inner[0],) * len(value)
        return type(value)(as_annotated(v, item) for v, item in zip(value, items, strict=True))
    return value
