"""The Well's file format, checked without The Well: what its loader and its format check ask of a file.

After https://polymathic-ai.org/the_well/data_format and the package's own check (the_well 1.x,
``scripts/check_thewell_formatting.py``), entry by entry. Files may hold other groups besides.
"""

from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

BOUNDARY_TYPES = ("WALL", "OPEN", "PERIODIC")
_ROOT = {"dataset_name": str, "grid_type": str, "n_spatial_dims": np.integer, "n_trajectories": np.integer}


def well_faults(file: h5py.File) -> Iterator[str]:
    """Every way in which an open file departs from the format, in a sentence."""
    for name, kind in _ROOT.items():
        if not isinstance(file.attrs.get(name), kind):
            found = file.attrs.get(name)
            yield f"root attribute {name!r} must be {'a string' if kind is str else 'an integer'}, got {found!r}"
            return
    for name in ("dimensions", "boundary_conditions", "scalars", "t0_fields", "t1_fields", "t2_fields"):
        if not isinstance(file.get(name), h5py.Group):
            yield f"group /{name} is missing"
            return
    dimensions = file["dimensions"]
    axes = _names(dimensions, "spatial_dims")
    if axes is None or len(axes) != file.attrs["n_spatial_dims"]:
        yield "attribute 'spatial_dims' of /dimensions must name n_spatial_dims axes"
        return
    for name in ("time", *axes):
        if not isinstance(dimensions.get(name), h5py.Dataset) or dimensions[name].ndim != 1:
            yield f"/dimensions/{name} must be an array of one axis"
            return
    yield from _parameters(file)
    yield from _entry(file, dimensions["time"], ())
    if not dimensions["time"].attrs.get("time_varying"):
        yield "/dimensions/time must have time_varying true"
    for name in axes:
        yield from _entry(file, dimensions[name], dimensions[name].shape)
    yield from _listed(file, "scalars", 0)
    for order in range(3):
        yield from _listed(file, f"t{order}_fields", order)
    for name, group in file["boundary_conditions"].items():
        yield from _boundary(file, name, group, axes)


def _names(group: h5py.Group, attribute: str) -> list[str] | None:
    """A list of strings that a group has as an attribute."""
    values = group.attrs.get(attribute)
    if not isinstance(values, np.ndarray) or values.ndim != 1:
        return None
    return list(values) if all(isinstance(value, str) for value in values) else None


def _parameters(file: h5py.File) -> Iterator[str]:
    names = _names(file, "simulation_parameters")
    if names is None:
        yield "root attribute 'simulation_parameters' must be a list of strings"
    for name in names or ():
        if name not in file.attrs or name not in file["scalars"]:
            yield f"simulation parameter {name!r} must also be a root attribute and an entry of /scalars"


def _entry(file: h5py.File, entry: Any, tail: tuple[int, ...]) -> Iterator[str]:
    """The attributes and the shape ``(samples if they vary, times if they vary, *tail)`` of an entry."""
    expected: tuple[int, ...] = ()
    lengths = {"sample_varying": int(file.attrs["n_trajectories"]), "time_varying": len(file["dimensions/time"])}
    for attribute, length in lengths.items():
        varying = entry.attrs.get(attribute)
        if not isinstance(varying, np.bool_):
            yield f"attribute {attribute!r} of {entry.name} must be a boolean, got {varying!r}"
            return
        expected += (length,) * bool(varying)
    found = (entry["mask"] if isinstance(entry, h5py.Group) else entry).shape
    if found != expected + tail:
        yield f"{entry.name} must have the shape {expected + tail}, got {found}"


def _listed(file: h5py.File, group_name: str, order: int) -> Iterator[str]:
    """Scalars or fields: a group and the names of all its entries."""
    group = file[group_name]
    names = _names(group, "field_names")
    if names is None or set(names) != set(group):
        yield f"attribute 'field_names' of /{group_name} must list its entries, {sorted(group)}"
        return
    axes = _names(file["dimensions"], "spatial_dims") or []
    for name in names:
        entry = group[name]
        tail: tuple[int, ...] = ()
        if not isinstance(entry, h5py.Dataset):
            yield f"{entry.name} must be an array"
            continue
        if group_name != "scalars":
            along = entry.attrs.get("dim_varying")
            if not isinstance(along, np.ndarray) or along.dtype != bool or along.shape != (len(axes),):
                yield f"attribute 'dim_varying' of {entry.name} must be {len(axes)} booleans, got {along!r}"
                continue
            kept = [len(file["dimensions"][axis]) for axis, varies in zip(axes, along, strict=True) if varies]
            tail = (*kept, *(len(axes),) * order)
        yield from _entry(file, entry, tail)


def _boundary(file: h5py.File, name: str, group: Any, axes: list[str]) -> Iterator[str]:
    """A boundary condition: which points, of which axes, of which type."""
    if not isinstance(group, h5py.Group) or not {"mask", "values"} <= set(group):
        yield f"/boundary_conditions/{name} must be a group with mask and values"
        return
    kind = group.attrs.get("bc_type")
    if kind not in BOUNDARY_TYPES:
        yield f"attribute 'bc_type' of {group.name} must be one of {', '.join(BOUNDARY_TYPES)}, got {kind!r}"
    along = _names(group, "associated_dims")
    if along is None or not set(along) <= set(axes):
        yield f"attribute 'associated_dims' of {group.name} must name axes, got {along!r}"
        return
    if _names(group, "associated_fields") is None:
        yield f"attribute 'associated_fields' of {group.name} must be a list of strings"
    mask = group["mask"]
    if mask.dtype != bool:
        yield f"{mask.name} must be boolean"
        return
    yield from _entry(file, group, tuple(len(file["dimensions"][axis]) for axis in along))
    if group["values"].shape != (int(np.sum(mask[()])),):
        yield f"{group['values'].name} must have a value for each point of the mask"
