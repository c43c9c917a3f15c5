"""A shard on its way to the disk: written and hashed beside the computing that fills it."""

import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import numpy as np

from datagen.files import blamed_on, written_atomically
from datagen.shard_image import ShardImage

_PIECE = 8 * 2**20  # bytes that are worth a message to the other thread, and to the disk


def write_as_filled(path: Path, image: ShardImage, filling: Iterable[int]) -> tuple[str, float]:
    """Write an image to its place, atomically, while it is filled; returns its SHA-256, and a thread's CPU seconds.

    A second thread writes what is final, and hashes it as far as that goes in the order of the file, which is the field
    that comes first. Left for the end are the hash of the others, the records, and waiting for the disk.

    Parameters
    ----------
    path : Path
    image : ShardImage
    filling : iterable of int
        Fills the image as it is iterated; says how many rows of its fields are final. At its end everything is.

    Raises
    ------
    OSError
        With the path and what the system said (a full disk, say); nothing is left behind.

    Examples
    --------
    >>> import tempfile
    >>> from datagen.store import Spec
    >>> samples = {"train": 2, "validation": 0, "test": 0}
    >>> spec = Spec({"name": "darcy", "grid": 8}, 0, samples, 2, {"method": "auto", "rtol": 1e-6})
    >>> image = ShardImage(spec, spec.shards[0], {}, {})
    >>> def rows():
    ...     for row in range(2):
    ...         image.fields["coefficient"][row] = image.fields["pressure"][row] = row
    ...         yield row + 1
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "shard.hdf5")
    ...     digest, seconds = write_as_filled(path, image, rows())
    ...     hashlib.sha256(path.read_bytes()).hexdigest() == digest
    True
    """
    digest = hashlib.sha256()
    fields = {image.starts[name]: values for name, values in image.fields.items()}
    leading = min(fields)
    row_bytes = sum(values[0].nbytes for values in fields.values())

    def store(first: int, last: int) -> None:
        with blamed_on(path):
            for start, values in fields.items():
                _write(file, start + first * values[0].nbytes, values[first:last].reshape(-1).view(np.uint8).data)
        digest.update(fields[leading][first:last].data)

    def store_and_sync(first: int, last: int) -> None:
        store(first, last)
        with blamed_on(path):
            os.fsync(file)  # or all would be left for the end

    def store_rest() -> None:
        with blamed_on(path):
            for start, piece in image.pieces():
                if start not in fields:
                    _write(file, start, piece)
            os.fsync(file)

    _, head = next(image.pieces())
    digest.update(head)
    with written_atomically(path) as partial, _opened(partial, path) as file, ThreadPoolExecutor(1) as beside:
        storing: Future[None] | None = None
        stored = final = 0
        for final in filling:
            if (final - stored) * row_bytes >= _PIECE:
                if storing is not None:
                    storing.result()  # raises what went wrong
                storing, stored = beside.submit(store_and_sync, stored, final), final
        if final != len(fields[leading]):
            raise ValueError(f"filling ended with {final} of {len(fields[leading])} rows")
        if storing is not None:
            storing.result()
        store(stored, final)
        storing = beside.submit(store_rest)
        for _, piece in image.pieces(leading + fields[leading].nbytes):
            digest.update(piece)
        storing.result()
        seconds = beside.submit(time.thread_time).result()
    return digest.hexdigest(), seconds


@contextmanager
def _opened(partial: Path, path: Path) -> Iterator[FileIO]:
    with blamed_on(path):
        file = FileIO(partial, "w")
    with file:
        yield file


def _write(file: FileIO, start: int, content: memoryview) -> None:
    """All of it: the system may take less at a time. One thread at a time writes."""
    file.seek(start)
    while content:
        content = content[file.write(content) :]
