"""Models and optimizers of other distributions, offered as Southwell's own are: ``model=NAME optimizer=NAME``."""

import inspect
from collections.abc import Callable
from importlib.metadata import entry_points
from importlib.resources import files
from typing import Any

from datagen.commands.cli import REFUSED, fail

# Config group -> entry-point group, and the arguments that the trainer gives by itself.
GROUPS = {
    "model": ("southwell.models", ("in_channels", "out_channels")),
    "optimizer": ("southwell.optimizers", ("params", "parameters")),
}


def offer_own_options() -> None:
    """Put a group option for every entry point beside those in ``configs/model`` and ``configs/optimizer``.

    Its keys are the arguments of the class or function and their defaults; those without a default have to be given.
    """
    from hydra.core.config_store import ConfigStore

    for group, (entry_group, given) in GROUPS.items():
        for point in entry_points(group=entry_group):
            if files("configs").joinpath(group, f"{point.name}.yaml").is_file():
                continue  # ours: a name belongs to who has it first
            try:
                entry = point.load()
            except Exception as error:  # whatever somebody's module does at its import
                fail(f"{group} {point.name!r} ({point.value}) cannot be imported: {error!r}", REFUSED)
            if not callable(entry):
                fail(f"{group} {point.name!r} ({point.value}) must be a class or a function, got {entry!r}", REFUSED)
            node = {"name": point.name, **defaults(entry, given)}
            ConfigStore.instance().store(name=point.name, group=group, node=node)


def defaults(entry: Callable[..., Any], given: tuple[str, ...]) -> dict[str, Any]:
    """Arguments and their defaults; "???" is what Hydra takes for one that is missing.

    Examples
    --------
    >>> def model(in_channels, width, layers=4, shape=(8, 8), activation=max): ...
    >>> defaults(model, ("in_channels",))
    {'width': '???', 'layers': 4, 'shape': [8, 8]}
    """
    values: dict[str, Any] = {}
    for name, parameter in inspect.signature(entry).parameters.items():
        named = parameter.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        default = parameter.default
        if not named or name in given:
            continue
        if default is inspect.Parameter.empty:
            values[name] = "???"
        elif default is None or isinstance(default, (bool, int, float, str, list, tuple)):
            values[name] = list(default) if isinstance(default, tuple) else default
        # others are no plain values: they stay what they are, and are no keys
    return values
