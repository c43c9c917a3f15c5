"""The ``.mat`` files of FNO (Li et al. 2021, arXiv 2010.08895), as its ``MatReader`` reads them.

Version 5, of steady problems with one input and one output, as their Darcy sets:

    coeff           (samples, *grid)      the input            sol    (samples, *grid)     the output

of evolutions with one output, as their Navier-Stokes sets, and of anything else by the fields' own names:

    a               (samples, *grid)      the initial field    u      (samples, *grid, frames)    time last
    t               (1, frames)

A variable of version 5 is limited to 2 GB; it is read by mapping, or whole if it is compressed. Version 7.3 is HDF5,
the axes in reverse (MATLAB stores columns); it is read a piece at a time, and not written.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from datagen.interchange import hdf5
from datagen.interchange.matlab5 import Damaged, Variable, variables
from datagen.interchange.samples import INITIAL, NOTE, Array, Samples, Wanted, named, note_of, read_note, stored_dtype
from datagen.pdes.imported import Imported

TITLE = "FNO's MATLAB files: coeff and sol, or a, u and t (time last)"
SUFFIX = ".mat"
MAX_BYTES = 2**31 - 1


def _variables(about: Imported) -> dict[str, str]:
    """Variable of each field."""
    inputs, outputs = named(about)
    if len(inputs) == len(outputs) == 1:
        if about.frame_times is None:
            return {inputs[0]: "coeff", outputs[0]: "sol"}
        if inputs[0] == INITIAL + outputs[0]:
            return {inputs[0]: "a", outputs[0]: "u"}
    return {field.name: field.name for field in about.fields}


def write(samples: Samples, path: Path, place: Path) -> None:
    """Write the file; ``place`` is where it will be named ``path``."""
    import scipy.io

    about = samples.about
    names = _variables(about)
    for name in names:
        size = samples.count * int(np.prod(about.shape(name))) * np.dtype(samples.dtype).itemsize
        if size > MAX_BYTES:
            raise ValueError(
                f"field {name!r} takes {size:,} bytes, and a variable of a .mat file of version 5 at most "
                f"{MAX_BYTES:,}; use another format"
            )

    class OneAtATime(dict[str, Any]):
        """Variables, of which savemat has one in memory."""

        def items(self) -> Iterator[tuple[str, Any]]:  # type: ignore[override]
            for field, variable in names.items():
                values = samples.read(field, 0, samples.count)
                evolves = len(about.shape(field)) > len(about.grid)
                yield variable, np.moveaxis(values, 1, -1) if evolves else values
            if about.frame_times is not None:
                yield "t", np.array([about.frame_times])
            yield NOTE, note_of(about)

    with open(place, "wb") as stream:
        scipy.io.savemat(stream, OneAtATime(), format="5", appendmat=False, long_field_names=True)


@contextmanager
def read(path: Path, wanted: Wanted) -> Iterator[Samples]:
    """Samples of such a file, of version 5 or 7.3."""
    if h5py.is_hdf5(path):
        with hdf5.opened(path) as file:
            yield _samples(path, wanted, list(file), lambda name: _reversed(file, name), lambda: _string(file))
        return
    try:
        held = variables(path)
        yield _samples(path, wanted, list(held), lambda name: _whole(path, held, name), lambda: held[NOTE].text())
    except Damaged as error:
        raise ValueError(
            f"{path} is not a MATLAB file of version 5 or 7.3, or is damaged or truncated: {error}"
        ) from None


class Reversed:
    """A variable of version 7.3 in MATLAB's order of axes."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        self.dataset = dataset
        self.shape = tuple(reversed(dataset.shape))
        self.dtype = dataset.dtype

    def __getitem__(self, rows: slice) -> Array:
        return np.transpose(self.dataset[..., rows])


def _reversed(file: h5py.File, name: str) -> Reversed:
    return Reversed(hdf5.array(file, name))


def _string(file: h5py.File) -> str:
    values = np.asarray(hdf5.array(file, NOTE)[...]).ravel(order="F")
    return "".join(map(chr, values))


def _whole(path: Path, held: Mapping[str, Variable], name: str) -> Array:
    if name not in held:
        raise ValueError(f"{path} has no variable {name!r}; it holds {', '.join(list(held)[:20])}")
    if held[name].kind != "numbers":
        raise ValueError(
            f"{path}: variable {name!r} must be an array of real numbers, got a MATLAB {held[name].kind} of shape "
            f"{held[name].shape}"
        )
    return held[name].array()


def _samples(
    path: Path, wanted: Wanted, held: Sequence[str], variable: Callable[[str], Any], note: Callable[[], str]
) -> Samples:
    if NOTE in held and not wanted.names_fields:
        about = wanted.amend(read_note(note(), path))
        names = _variables(about)
    else:
        inputs, outputs = wanted.inputs or _usual(held, ("coeff", "a")), wanted.outputs or _usual(held, ("sol", "u"))
        if not (inputs and outputs):
            raise ValueError(
                f"{path} has no coeff and sol, nor a and u, as FNO's files do: give inputs=NAME,... outputs=NAME,... "
                f"(it holds {', '.join(list(held)[:20])})"
            )
        shape, result = variable(inputs[0]).shape, variable(outputs[0]).shape
        times = None
        if "t" in held and len(result) == len(shape) + 1:
            times = [float(t) for t in np.ravel(variable("t")[:])]
        about = wanted.describe(inputs, outputs, shape[1:], times)
        names = {field.name: field.name for field in about.fields}
    found = {field: variable(name) for field, name in names.items()}
    count = next(iter(found.values())).shape[0]
    for field, array in found.items():
        expected = (count, *about.shape(field))
        if len(about.shape(field)) > len(about.grid):
            expected = (count, *about.grid, about.shape(field)[0])
        if array.shape != expected:
            raise ValueError(f"{path}: variable {names[field]!r} must be {expected}, got {array.shape}")

    def values(name: str, start: int, stop: int) -> Array:
        rows = np.asarray(found[name][start:stop])
        return np.moveaxis(rows, -1, 1) if rows.ndim > len(about.grid) + 1 else rows

    return Samples(about, count, stored_dtype([v.dtype for v in found.values()], path), values)


def _usual(held: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name in held)[:1]
