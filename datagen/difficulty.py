"""Named levels of difficulty: parameters of a PDE family, by axis and name.

A family's file in ``configs/pde`` declares them as data, an axis a mapping from names to the parameters they set:

    level: {geometry: null, physics: null}
    levels:
      geometry:
        none: {obstacles: 0}
        many: {obstacles: [2, 10]}
      physics:
        low: {reynolds: [100, 1000]}
        high: {reynolds: [8000, 10000]}

``pde.level.geometry=many`` chooses a level of one axis, and a level of each axis together is their product. With
``-m pde.level.geometry=none,many pde.level.physics=low,high`` a sweep makes all of them, a folder each. A family of
another package has its ``levels`` as a class attribute of that form.

What was chosen is kept beside the parameters: in ``spec.json``, and as ``provenance/level`` of every sample.
"""

from collections.abc import Mapping
from typing import Any

from solvers.registry import near_names

Levels = Mapping[str, Mapping[str, Mapping[str, Any]]]
LONGEST_LABEL = 64  # bytes
LABEL_TYPE = f"S{LONGEST_LABEL}"  # of provenance/level


def at_level(pde: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str] | None]:
    """The parameters of a family at the level that is asked for, and that level by axis (None: no level).

    What a level sets replaces what the parameters say; `southwell-generate` refuses to be told both.

    Parameters
    ----------
    pde : mapping
        ``name`` and parameters of a family; under ``levels`` what it declares, under ``level`` what is chosen: the name
        of a level an axis, None where the parameters hold as they are.

    Raises
    ------
    ValueError
        If an axis or a name is unknown, or two axes set the same parameter.

    Examples
    --------
    >>> contrast = {"low": {"high": 12.0}, "large": {"high": 1200.0}}
    >>> pde = {"name": "darcy", "grid": 32, "high": 12.0, "levels": {"contrast": contrast}}
    >>> at_level(pde | {"level": {"contrast": "large"}})
    ({'name': 'darcy', 'grid': 32, 'high': 1200.0}, {'contrast': 'large'})
    >>> at_level(pde | {"level": {"contrast": None}})
    ({'name': 'darcy', 'grid': 32, 'high': 12.0}, None)
    >>> at_level(pde | {"level": {"contrast": "lrage"}})
    Traceback (most recent call last):
        ...
    ValueError: pde.level.contrast='lrage' is no level of darcy. Did you mean 'large'? Known: large, low.
    """
    parameters = {key: value for key, value in pde.items() if key not in ("level", "levels")}
    name, levels, asked = parameters.get("name"), pde.get("levels") or {}, pde.get("level") or {}
    _check_declared(name, levels)
    if not isinstance(asked, Mapping):
        example = " ".join(f"pde.level.{axis}={next(iter(names))}" for axis, names in levels.items())
        known = f"as {example} does" if example else f"and {name} has none"
        raise ValueError(f"pde.level must name a level of an axis, {known}; got {asked!r}")
    chosen: dict[str, str] = {}
    set_by: dict[str, str] = {}
    for axis, level in asked.items():
        if axis not in levels:
            raise ValueError(f"pde.level.{axis}: {name} has no such axis. {near_names(str(axis), list(levels))}")
        if level is None:
            continue
        if level not in levels[axis]:
            raise ValueError(
                f"pde.level.{axis}={level!r} is no level of {name}. {near_names(str(level), list(levels[axis]))}"
            )
        for parameter, value in levels[axis][level].items():
            if parameter in set_by:
                raise ValueError(f"pde.level.{axis} and pde.level.{set_by[parameter]} both set pde.{parameter}")
            set_by[parameter] = axis
            parameters[parameter] = value
        chosen[axis] = level
    return parameters, chosen or None


def label(level: Mapping[str, str] | None) -> str:
    """A level in one word, as samples carry it; nothing where there is none.

    Parameters
    ----------
    level : mapping of str to str, optional
        Names of levels by axis.

    Examples
    --------
    >>> label({"physics": "low", "geometry": "many"})
    'geometry=many,physics=low'
    """
    return ",".join(f"{axis}={name}" for axis, name in sorted((level or {}).items()))


def check_level(level: Any) -> dict[str, str]:
    """A level as a spec holds it: axis to name, and short enough for a record.

    Parameters
    ----------
    level : mapping of str to str

    Raises
    ------
    ValueError
    """
    fits = isinstance(level, Mapping) and level and all(type(word) is str for pair in level.items() for word in pair)
    if not fits or len(label(level).encode()) > LONGEST_LABEL:
        raise ValueError(
            f"level must hold names of levels by axis, at most {LONGEST_LABEL} bytes of them together, got {level!r}"
        )
    return dict(level)


def _check_declared(name: Any, levels: Any) -> None:
    """Levels may come from somebody's own file."""
    form = "levels of {}: {} must be a mapping {}, got {!r}"
    if not isinstance(levels, Mapping):
        raise ValueError(form.format(name, "they", "from axes to their levels", levels))
    for axis, names in levels.items():
        if not isinstance(names, Mapping) or not names:
            raise ValueError(form.format(name, axis, "from names to parameters", names))
        for level, parameters in names.items():
            if not isinstance(parameters, Mapping) or not parameters:
                raise ValueError(form.format(name, f"{axis}.{level}", "from parameters to values", parameters))
