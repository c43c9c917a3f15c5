"""What of Southwell is public, what its docstrings have to say, and the pages of the API reference.

Needs no Sphinx: `conf.py` builds the pages with it, and `tests/line/test_docs.py` asks it for faults in every run.
"""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatch
from functools import cache
from types import ModuleType
from typing import Any

from solvers.registry import Registry

ROOMS = ("solvers", "datagen", "operators")
# A name that one of these packages hands on is public, and called by the first of them that has it.
FACES = ("solvers", "solvers.tuning", "datagen", "datagen.evolve", "operators.models", "operators.tasks")
# Of these modules every name is public that does not begin with an underscore (and is in __all__, where there is one).
OPEN = (
    "solvers.autograd",
    "solvers.batched_cg",
    "solvers.gallery",
    "solvers.oblique",
    "solvers.ordering",
    "solvers.plots",
    "solvers.registry",
    "solvers.system",
    "datagen.*",
    "operators.*",
)
# Machinery of one room, which nobody else is to call: it needs docstrings, but no pages.
INNER = (
    "*.commands*",
    "datagen.archives",
    "datagen.draw",
    "datagen.evolution_schemes",
    "datagen.evolve.hllc",
    "datagen.evolve.work",
    "datagen.files",
    "datagen.folder",
    "datagen.finite_volume_checks",
    "datagen.implicit_checks",
    "datagen.interchange.*",
    "datagen.legacy_fno",
    "datagen.pdes.euler_data",
    "datagen.shard",
    "datagen.steady_assemblies",
    "datagen.validate_*",
    "datagen.well_format",
    "operators.contenders",
    "operators.evaluation_pictures",
    "operators.loader",
    "operators.models.interpolation_network",
    "operators.models.learned_kernels",
    "operators.models.multigrid_torch",
    "operators.models.preconditioner_systems",
    "operators.models.train_preconditioner",
    "operators.predict_files",
    "operators.reading",
    "operators.report",
    "operators.rollout_plots",
    "operators.run_folder",
    "operators.tally",
    "operators.training_state",
)


@dataclass(frozen=True)
class Name:
    """A public function, class, registry or constant: what it is called, and the module that makes it."""

    called: str
    module: str
    value: Any


@cache
def modules() -> tuple[str, ...]:
    """Every module that has no underscore before its name, imported."""
    found = []
    for room in ROOMS:
        package = importlib.import_module(room)
        found.append(room)
        found += [module.name for module in pkgutil.walk_packages(package.__path__, f"{room}.")]
    return tuple(name for name in found if not any(part.startswith("_") for part in name.split(".")))


def own_names(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Names that a module itself makes and does not hide: functions, classes, registries."""
    for name, value in vars(module).items():
        if name.startswith("_"):
            continue
        if isinstance(value, Registry):
            made_here = any(re.match(rf"{name}\b.*= Registry", line) for line in inspect.getsource(module).splitlines())
        else:
            made_here = callable(value) and getattr(value, "__module__", None) == module.__name__
        if made_here:
            yield name, value


def handed_on(face: str) -> Iterator[tuple[str, Any]]:
    """What a package offers of its modules: its ``__all__``, or what it imports ``as`` itself."""
    module = importlib.import_module(face)
    names = getattr(module, "__all__", None)
    if names is None:
        names = re.findall(r"import \w+ as (\w+)$", inspect.getsource(module), flags=re.M)
    for name in names:
        if not isinstance(getattr(module, name), ModuleType):
            yield name, getattr(module, name)


@cache
def public_names() -> tuple[Name, ...]:
    """Every public name once, module by module."""
    faces = {
        id(value): f"{face}.{name}"
        for face in reversed([face for face in FACES if face in modules()])
        for name, value in handed_on(face)
    }
    found = []
    for path in modules():
        module = importlib.import_module(path)
        is_open = any(fnmatch(path, each) for each in OPEN) and not any(fnmatch(path, each) for each in INNER)
        offered = getattr(module, "__all__", None)
        for name, value in own_names(module):
            if id(value) in faces:
                found.append(Name(faces[id(value)], path, value))
            elif is_open and (offered is None or name in offered):
                found.append(Name(f"{path}.{name}", path, value))
    return tuple(found)


# -- Faults ----------------------------------------------------------------------------------------------------------


def faults() -> list[str]:
    """A sentence for everything that is public and not documented."""
    found = [f"{path}: the module has no docstring" for path in modules() if not importlib.import_module(path).__doc__]
    for path in modules():
        for name, value in own_names(importlib.import_module(path)):
            found += [f"{path}.{fault}" for fault in undocumented(name, value)]
    for name in public_names():
        found += [f"{name.called}: {fault}" for fault in incomplete(name.value)]
    return found


def undocumented(name: str, value: Any) -> Iterator[str]:
    """A function, or a class and its public methods, without a docstring (a base class's counts)."""
    if isinstance(value, Registry):
        return
    if not own_docstring(value):
        yield f"{name} has no docstring"
    if inspect.isclass(value):
        for member, raw in vars(value).items():
            described = isinstance(raw, (classmethod, staticmethod, property)) or inspect.isfunction(raw)
            in_class = re.search(rf"^(\w+, )*{member}(, \w+)* : ", own_docstring(value), flags=re.M)  # an attribute
            if described and not member.startswith("_") and not (in_class or inspect.getdoc(getattr(value, member))):
                yield f"{name}.{member} has no docstring"


def own_docstring(value: Any) -> str:
    """The docstring, unless it is the signature that `dataclass` writes in place of one."""
    text = inspect.getdoc(value) or ""
    return "" if inspect.isclass(value) and text.startswith(f"{value.__name__}(") else text


def incomplete(value: Any) -> Iterator[str]:
    """Arguments of a public function or class that no section of its docstring, or of a base class's, names."""
    if isinstance(value, Registry) or (inspect.isclass(value) and issubclass(value, (BaseException, Enum))):
        return
    about = [each for each in value.__mro__ if ours(each)] if inspect.isclass(value) else [value]
    section = re.compile(r"^(?:Parameters|Attributes)\n-+\n(.*?)(?=\n\n\w+\n---|\Z)", flags=re.M | re.S)
    listed = [block for each in about for block in section.findall(own_docstring(each))]
    names = {word.strip("*` ") for block in listed for line in heads(block) for word in line.split(",")}
    lacking = [name for name in arguments(value) if name not in names]
    if lacking:
        yield f"no section Parameters (or Attributes) of its docstring says what {', '.join(lacking)} is"


def ours(value: Any) -> bool:
    """Whether something was made in one of the rooms."""
    return str(getattr(value, "__module__", "")).split(".")[0] in ROOMS


def heads(block: str) -> Iterator[str]:
    """The lines of a section that begin an entry, up to the colon before its type."""
    for line in block.splitlines():
        if line and not line.startswith(" "):
            yield line.split(" : ")[0]


def arguments(value: Any) -> list[str]:
    """Names that a caller may give; none of a class that takes what torch's or numpy's does."""
    if inspect.isclass(value) and not ours(value.__init__):
        return []
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return []
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return [p.name for p in parameters if p.kind not in variadic and not p.name.startswith("_")]


# -- Pages -----------------------------------------------------------------------------------------------------------


def pages() -> dict[str, str]:
    """Text of every page of the API reference, in reStructuredText, by its name: a page a module, and one a room."""
    by_module: dict[str, list[Name]] = {}
    for name in public_names():
        by_module.setdefault(name.module, []).append(name)
    texts = {module: page(module, names) for module, names in by_module.items() if module not in ROOMS}
    for room in ROOMS:
        texts[room] = room_page(room, [module for module in texts if module.startswith(f"{room}.")])
    return texts


def page(module: str, names: list[Name]) -> str:
    """The page of a module: its docstring, then every public name."""
    parts = [heading(module), f".. automodule:: {module}\n"]
    if any(name.called == module for name in names):  # solvers.direct is a module and its function
        parts[-1] += "   :no-index:\n"
    for name in names:
        if isinstance(name.value, Registry):
            parts.append(registry_entry(name))
        elif inspect.isclass(name.value):
            parts.append(f".. autoclass:: {name.called}\n   :members:\n")
        else:
            parts.append(f".. autofunction:: {name.called}\n")
    return "\n".join(parts)


def room_page(room: str, below: list[str]) -> str:
    """The page of a room: its docstring, what its package hands on, and its modules, each with its first sentence."""
    parts = [heading(room), f".. automodule:: {room}\n"]
    faces = [name for name in public_names() if name.called.rpartition(".")[0] == room and name.module != room]
    if faces:
        parts.append(table(f"From ``{room}`` itself", [(f"`{name.called}`", first(name.value)) for name in faces]))
    rows = [(f":doc:`{module}`", first(importlib.import_module(module))) for module in below]
    parts.append(table("Its modules", rows))
    parts.append(".. toctree::\n   :hidden:\n\n" + "".join(f"   {module}\n" for module in below))
    return "\n".join(parts)


def heading(text: str) -> str:
    return f"{text}\n{'=' * len(text)}\n"


def table(title: str, rows: list[tuple[str, str]]) -> str:
    """Two columns: a link, and what it leads to in a sentence."""
    lines = [f".. rubric:: {title}\n", ".. list-table::\n   :widths: 35 65\n"]
    lines += [f"   * - {left}\n     - {right}" for left, right in rows]
    return "\n".join(lines) + "\n"


def first(value: Any) -> str:
    """The first paragraph of a docstring, on one line, up to the end of its first sentence."""
    if isinstance(value, Registry):
        return f"Every {value.kind} by its name."
    paragraph = re.sub(r" ?\[\d+\]_", "", (inspect.getdoc(value) or "").split("\n\n")[0].replace("\n", " "))
    return re.split(r"(?<=[.;:])\s+(?=[A-Z`])|, *$", paragraph)[0].rstrip(":,;")


def registry_entry(name: Name) -> str:
    """What a registry holds of our own, with links."""
    public = {id(each.value): each.called for each in public_names()}
    entries = []
    for key in name.value:
        entry = name.value[key]
        if ours(entry) or str(getattr(entry, "__module__", "")).split(".")[0] in ("torch", "functools"):
            entries.append(f":py:obj:`{key} <{public[id(entry)]}>`" if id(entry) in public else f"``{key}``")
    how = f"entry points ``{name.value.group}`` or `solvers.registry.Registry.register`"
    return (
        f".. py:data:: {name.called}\n   :type: solvers.registry.Registry\n\n"
        f"   Every {name.value.kind} by its name: {', '.join(entries)}."
        + (f" Others add theirs through {how}.\n" if name.value.group else "\n")
    )


@cache
def targets() -> dict[str, str]:
    """Other ways to name what has a page: by the module that makes it, and by its last part where that is one alone."""
    found: dict[str, str] = {}
    alone: dict[str, list[str]] = {}
    for name in public_names():
        short = name.called.rpartition(".")[2]
        found[f"{name.module}.{short}"] = name.called
        alone.setdefault(short, []).append(name.called)
    found |= {short: called[0] for short, called in alone.items() if len(called) == 1}
    return found


def exists(path: str) -> bool:
    """Whether a dotted name can be imported, or is an attribute of something that can."""
    parts = path.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            if not (hasattr(found, part) or part in getattr(found, "__annotations__", {})):
                return False
            found = getattr(found, part, None)
        return True
    return False
