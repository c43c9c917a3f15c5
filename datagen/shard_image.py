"""The bytes of a shard: samples in The Well's layout, with our groups provenance, cost and quality beside it.

See `datagen.store` for the layout, and https://polymathic-ai.org/the_well/data_format.
"""

import io
from collections.abc import Iterator, Mapping
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from datagen.discretise import boundary_names
from datagen.family import Family
from datagen.files import json_bytes
from datagen.store import FORMAT_VERSION, Shard, Spec, code_version

# Others: WALL.
_WELL_BOUNDARY = {"periodic": "PERIODIC", **dict.fromkeys(("outflow", "inflow", "absorbing", "unknown"), "OPEN")}


def shard_image(
    spec: Spec,
    shard: Shard,
    fields: Mapping[str, NDArray[Any]],
    scalars: Mapping[str, NDArray[Any]],
    records: Mapping[str, Mapping[str, NDArray[Any]]],
) -> memoryview:
    """The HDF5 file of a shard, in memory.

    Parameters
    ----------
    spec, shard
        What it is a shard of.
    fields : mapping
        By declared name, each ``(samples, *grid)``, outputs of evolutions ``(samples, frames, *grid)``; cast to the
        spec's dtype.
    scalars : mapping
        By name, each ``(samples,)``.
    records : mapping
        Groups "provenance", "cost" and "quality": arrays ``(samples,)`` by name.
    """
    family, count = spec.family, shard.stop - shard.start
    mesh = family.mesh
    buffer = io.BytesIO()
    # In memory first: bytes can be hashed and written atomically, and a full disk cannot leave a broken HDF5 file.
    with h5py.File(buffer, "w", libver="v110") as file:

        def dataset(path: str, values: NDArray[Any], **attributes: Any) -> None:
            entry = file.create_dataset(path, data=np.ascontiguousarray(values), track_times=False)
            for key, value in attributes.items():
                entry.attrs[key] = value

        file.attrs["format_version"] = FORMAT_VERSION
        file.attrs["dataset_name"] = family.name
        file.attrs["grid_type"] = "cartesian"
        file.attrs["n_spatial_dims"] = mesh.dimension
        file.attrs["n_trajectories"] = count
        file.attrs["simulation_parameters"] = _strings([])

        file.create_group("dimensions").attrs["spatial_dims"] = _strings(mesh.axis_names)
        dataset("dimensions/time", family.times.astype(np.float32), sample_varying=np.False_, time_varying=np.True_)
        for axis, name in enumerate(mesh.axis_names):
            coordinates = mesh.coordinates(axis).astype(np.float32)
            dataset(f"dimensions/{name}", coordinates, sample_varying=np.False_, time_varying=np.False_)

        for place, kind, mask, values in well_boundaries(family):
            group = file.create_group(place)
            group.attrs["associated_dims"] = _strings([place.split("/")[1].split("_")[0]])
            group.attrs["associated_fields"] = _strings([])
            group.attrs["bc_type"] = kind
            group.attrs["sample_varying"] = np.False_
            group.attrs["time_varying"] = np.False_
            dataset(f"{place}/mask", mask)
            dataset(f"{place}/values", values)

        file.create_group("scalars").attrs["field_names"] = _strings(scalars)
        for name, values in scalars.items():
            dataset(f"scalars/{name}", values, sample_varying=np.True_, time_varying=np.False_)

        file.create_group("t0_fields").attrs["field_names"] = _strings(fields)
        for field in family.fields:
            dataset(
                f"t0_fields/{field.name}",
                fields[field.name].astype(spec.dtype, copy=False),
                dim_varying=np.ones(mesh.dimension, dtype=bool),
                sample_varying=np.True_,
                time_varying=np.bool_(family.varies_in_time(field)),
                units=field.units,
                description=field.description,
            )
        for group_name in ("t1_fields", "t2_fields"):
            file.create_group(group_name).attrs["field_names"] = _strings([])

        for group_name, arrays in records.items():
            for name, values in arrays.items():
                dataset(f"{group_name}/{name}", values)
        file["provenance"].attrs["spec"] = json_bytes(spec.as_dict()).decode()
        file["provenance"].attrs["split"] = shard.split
        file["provenance"].attrs["code_version"] = code_version()
    return buffer.getbuffer()


def well_boundaries(family: Family) -> Iterator[tuple[str, str, NDArray[np.bool_], NDArray[np.float32]]]:
    """Groups of ``boundary_conditions``: path, type, mask of an axis' points, and a value for each of these.

    The values are zeros: The Well has one of them a side, and ours are fields, or drawn; the inputs hold them.

    Parameters
    ----------
    family : Family
    """
    mesh = family.mesh
    for axis, (name, sides) in enumerate(zip(mesh.axis_names, boundary_names(family.boundary), strict=True)):
        kinds = [_WELL_BOUNDARY.get(side, "WALL") for side in sides]
        for kind in dict.fromkeys(kinds):
            mask = np.zeros(mesh.shape[axis], dtype=bool)
            mask[[0, -1]] = [side == kind for side in kinds]
            yield f"boundary_conditions/{name}_{kind.lower()}", kind, mask, np.zeros(int(mask.sum()), np.float32)


def _strings(names: Any) -> NDArray[Any]:
    return np.array(list(names), dtype=h5py.string_dtype())
