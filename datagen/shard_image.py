"""The bytes of a shard: samples in The Well's layout, with our groups provenance, cost and quality beside it.

See `datagen.store` for the layout, and https://polymathic-ai.org/the_well/data_format.
"""

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
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


class ShardImage:
    """The HDF5 file of a shard: what HDF5 writes around the values, and the arrays that hold them.

    HDF5 lays the file out and reserves the place of each array, which is then filled and written without it: nothing is
    held twice, and a disk that fills up meets our own writes, not HDF5's, which would crash.

    Parameters
    ----------
    spec, shard
        What it is a shard of.
    scalars : mapping
        Type of the scalars by name.
    records : mapping
        Groups "provenance", "cost" and "quality": types by name.

    Attributes
    ----------
    fields : dict
        By declared name, to be filled: ``(samples, *grid)``, outputs of evolutions ``(samples, frames, *grid)``.
    starts : dict
        Where in the file the fields begin, by name; before everything else that is to be filled.
    size : int
        Bytes of the file.
    """

    def __init__(
        self, spec: Spec, shard: Shard, scalars: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]]
    ) -> None:
        types = tuple(
            (group, tuple((name, np.dtype(kind).str) for name, kind in kinds.items()))
            for group, kinds in {"scalars": scalars, **records}.items()
        )
        self._layout = _layout(json_bytes(spec.as_dict()), shard.split, shard.stop - shard.start, types)
        self._arrays = {start: np.empty(*of) for start, of in self._layout.reserved.items()}
        self.starts, self.size = self._layout.fields, self._layout.frame.end
        self.fields = {name: self._arrays[start] for name, start in self.starts.items()}

    def fill(self, scalars: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]]) -> None:
        """Put in everything but the fields: by their names columns ``(samples,)``.

        Parameters
        ----------
        scalars : mapping
        records : mapping
            By groups.
        """
        for group, columns in {"scalars": scalars, **records}.items():
            for name, column in columns.items():
                self._arrays[self._layout.columns[group][name]][:] = column

    def pieces(self, start: int = 0) -> Iterator[tuple[int, memoryview]]:
        """The file from some place on: arrays as they are now, between them what HDF5 wrote; and where each begins.

        Parameters
        ----------
        start : int
            The beginning of the file, or the end of a field.
        """
        for place, values in sorted(self._arrays.items()):
            if place >= start:
                yield start, self._layout.frame.content(start, place)
                yield place, values.reshape(-1).view(np.uint8).data
                start = place + values.nbytes
        yield start, self._layout.frame.content(start, self.size)


@dataclass(frozen=True)
class _Layout:
    """A file without its values: what HDF5 wrote; by where they begin, shapes and types of the arrays; and whose."""

    frame: "_Frame"
    reserved: dict[int, tuple[tuple[int, ...], np.dtype[Any]]]
    fields: dict[str, int]
    columns: dict[str, dict[str, int]]


@lru_cache(maxsize=8)
def _layout(
    spec_text: bytes, split: str, count: int, types: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
) -> _Layout:
    """The same for all shards of a split but the last: making it takes longer than storing a hundred small samples."""
    spec = Spec.from_dict(json.loads(spec_text))
    family = spec.family
    mesh, frame = family.mesh, _Frame()
    arrays: dict[int, tuple[tuple[int, ...], np.dtype[Any]]] = {}
    reserved = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    reserved.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    reserved.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    with h5py.File(frame, "w", libver="v110") as file:

        def dataset(path: str, values: NDArray[Any], **attributes: Any) -> None:
            entry = file.create_dataset(path, data=np.ascontiguousarray(values), track_times=False)
            for key, value in attributes.items():
                entry.attrs[key] = value

        def place(path: str, shape: tuple[int, ...], dtype: np.dtype[Any], **attributes: Any) -> int:
            entry = file.create_dataset(path, shape, dtype, track_times=False, dcpl=reserved)
            for key, value in attributes.items():
                entry.attrs[key] = value
            start = int(entry.id.get_offset())
            arrays[start] = shape, dtype
            return start

        file.create_group("t0_fields").attrs["field_names"] = _strings([field.name for field in family.fields])
        fields = {
            field.name: place(
                f"t0_fields/{field.name}",
                (count, *family.stored_shape(field)),
                np.dtype(spec.dtype),
                dim_varying=np.ones(mesh.dimension, dtype=bool),
                sample_varying=np.True_,
                time_varying=np.bool_(family.varies_in_time(field)),
                units=field.units,
                description=field.description,
            )
            for field in family.fields
        }
        for group_name in ("t1_fields", "t2_fields"):
            file.create_group(group_name).attrs["field_names"] = _strings([])

        names = [name for group, kinds in types if group == "scalars" for name, _ in kinds]
        file.create_group("scalars").attrs["field_names"] = _strings(names)
        varying = {"sample_varying": np.True_, "time_varying": np.False_}
        columns = {
            group: {
                name: place(f"{group}/{name}", (count,), np.dtype(kind), **(varying if group == "scalars" else {}))
                for name, kind in kinds
            }
            for group, kinds in types
        }
        provenance = file.require_group("provenance").attrs
        provenance["spec"] = json_bytes(spec.as_dict()).decode()
        provenance["split"] = split
        provenance["code_version"] = code_version()

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

        for where, kind, mask, values in well_boundaries(family):
            group = file.create_group(where)
            group.attrs["associated_dims"] = _strings([where.split("/")[1].split("_")[0]])
            group.attrs["associated_fields"] = _strings([])
            group.attrs["bc_type"] = kind
            group.attrs["sample_varying"] = np.False_
            group.attrs["time_varying"] = np.False_
            dataset(f"{where}/mask", mask)
            dataset(f"{where}/values", values)
    return _Layout(frame, arrays, fields, columns)


class _Frame(io.RawIOBase):
    """A file as HDF5 wants one, that keeps what is written and no more: the places of the arrays take no memory."""

    def __init__(self) -> None:
        super().__init__()
        self.end = self._position = 0
        self._written: list[tuple[int, bytes]] = []

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.end}[whence]
        return self._position

    def write(self, content: Any) -> int:
        self._written.append((self._position, bytes(content)))
        self.end = max(self.end, self._position + len(content))
        return len(content)

    def truncate(self, size: int | None = None) -> int:
        self.end = self._position if size is None else size
        return self.end

    def readinto(self, buffer: Any) -> int:
        buffer[:] = self.content(self._position, self._position + len(buffer))
        return len(buffer)

    def content(self, start: int, stop: int) -> memoryview:
        """The bytes of a range; zeros where nothing was written."""
        content = bytearray(stop - start)
        for offset, piece in self._written:
            first, last = max(offset, start), min(offset + len(piece), stop)
            if first < last:
                content[first - start : last - start] = piece[first - offset : last - offset]
        return memoryview(content)


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
