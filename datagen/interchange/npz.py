"""NumPy's ``.npz``: one array a field, by its name; no pickle.

    <input>         (samples, *grid)
    <output>        (samples, *grid), of an evolution (samples, frames, *grid)
    time            float64 (frames,), of an evolution
    southwell       a string: JSON that holds roles, units, box and sides

Members are not compressed, so that ``numpy.load(..., mmap_mode=None)`` and our own reader take them a piece at a time.
"""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from datagen.archives import member, names, open_archive
from datagen.interchange.samples import NOTE, Array, Samples, Wanted, note_of, read_note, stored_dtype

TITLE = "NumPy's .npz: one array (samples, *grid) a field"
SUFFIX = ".npz"
TIME = "time"


def write(samples: Samples, path: Path, place: Path) -> None:
    """Write the file; ``place`` is where it will be named ``path``."""
    about = samples.about
    with zipfile.ZipFile(place, "w", zipfile.ZIP_STORED) as archive:

        def put(name: str, dtype: Any, shape: tuple[int, ...], pieces: Iterator[Array]) -> None:
            # No date: the same samples give the same bytes.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as stream:
                header = {"descr": npy.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
                npy.write_array_header_1_0(stream, header)
                for piece in pieces:
                    stream.write(np.ascontiguousarray(piece, dtype=dtype).tobytes())

        for field in about.fields:
            shape = (samples.count, *about.shape(field.name))
            pieces = (samples.read(field.name, start, stop) for start, stop in samples.pieces())
            put(field.name, samples.dtype, shape, pieces)
        if about.frame_times is not None:
            put(TIME, "f8", (len(about.frame_times),), iter([np.array(about.frame_times)]))
        note = np.array(note_of(about))
        put(NOTE, note.dtype, (), iter([note]))


@contextmanager
def read(path: Path, wanted: Wanted) -> Iterator[Samples]:
    """Samples of such a file."""
    with open_archive(path) as archive:
        try:
            yield _samples(archive, path, wanted)
        except (zipfile.BadZipFile, EOFError) as error:
            raise ValueError(f"{path} is damaged: {error}") from None


def _samples(archive: zipfile.ZipFile, path: Path, wanted: Wanted) -> Samples:
    held = names(archive)
    if NOTE in held and not wanted.names_fields:
        note = member(archive, NOTE, path)
        if note.shape != () or note.dtype.kind != "U":
            raise ValueError(f"{path}: its note on Southwell's fields must be a string")
        about = wanted.amend(read_note(str(np.frombuffer(note.stream.read(), note.dtype)[0]), path))
    else:
        if not (wanted.inputs and wanted.outputs):
            raise ValueError(
                f"{path} does not say which arrays are inputs and which outputs: give inputs=NAME,... outputs=NAME,... "
                f"(it holds {', '.join(held[:20])})"
            )
        shape = member(archive, wanted.inputs[0], path).shape
        times = None
        if TIME in held:
            listed = member(archive, TIME, path)
            if len(listed.shape) != 1 or listed.dtype.kind not in "iuf":
                raise ValueError(
                    f"{path}: {TIME} must be a list of numbers, got {listed.dtype} of shape {listed.shape}"
                )
            times = [float(t) for t in listed.rows(0, listed.shape[0])]
        about = wanted.describe(wanted.inputs, wanted.outputs, shape[1:], times)
    found = {field.name: member(archive, field.name, path) for field in about.fields}
    counts = {name: entry.shape[0] if entry.shape else 0 for name, entry in found.items()}
    count = next(iter(counts.values()))
    for name, entry in found.items():
        if entry.shape != (count, *about.shape(name)):
            raise ValueError(f"{path}: array {name!r} must be {(count, *about.shape(name))}, got {entry.shape}")
    dtype = stored_dtype([entry.dtype for entry in found.values()], path)
    return Samples(about, count, dtype, lambda name, start, stop: found[name].rows(start, stop))
