"""PDE families of other distributions, offered on the command line as Southwell's own are: ``pde=NAME pde.grid=32``."""

import dataclasses
from importlib.metadata import entry_points
from importlib.resources import files
from typing import Any

from datagen.commands.cli import REFUSED, fail
from datagen.family import Family, families


def offer_own_families() -> None:
    """Put a group option ``pde=NAME`` for every entry point of ``southwell.pdes`` beside those in ``configs/pde``.

    Its keys are the parameters of the family and their defaults; those without a default have to be given.
    """
    from hydra.core.config_store import ConfigStore

    for point in entry_points(group=families.group or ""):
        if files("configs").joinpath("pde", f"{point.name}.yaml").is_file():
            continue  # ours: a name belongs to who has it first
        try:
            family = point.load()
        except Exception as error:  # whatever somebody's module does at its import
            fail(f"PDE family {point.name!r} ({point.value}) cannot be imported: {error!r}", REFUSED)
        if not (isinstance(family, type) and issubclass(family, Family) and dataclasses.is_dataclass(family)):
            fail(f"PDE family {point.name!r} ({point.value}) must be a dataclass derived from datagen.Family", REFUSED)
        node = {"name": point.name, **defaults(family), **levels(family)}
        ConfigStore.instance().store(name=point.name, group="pde", node=node)


def defaults(family: type[Family]) -> dict[str, Any]:
    """Parameters of a family and their defaults; "???" is what Hydra takes for one that is missing."""
    values: dict[str, Any] = {}
    for parameter in dataclasses.fields(family):  # type: ignore[arg-type]
        if not parameter.init:
            continue
        if parameter.default is not dataclasses.MISSING:
            values[parameter.name] = parameter.default
        elif parameter.default_factory is not dataclasses.MISSING:
            values[parameter.name] = parameter.default_factory()
        else:
            values[parameter.name] = "???"
    return values


def levels(family: type[Family]) -> dict[str, Any]:
    """The levels of difficulty that a family declares, none of them chosen; nothing where it declares none."""
    if not family.levels:
        return {}
    declared = {axis: {name: dict(values) for name, values in names.items()} for axis, names in family.levels.items()}
    return {"level": dict.fromkeys(declared), "levels": declared}
