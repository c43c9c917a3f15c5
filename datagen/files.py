"""Files that are either whole or absent, and hashes of what is in them."""

import errno
import hashlib
import json
import os
import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def sync_folder(folder: Path) -> None:
    """Make renames within a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def blamed_on(path: Path) -> Iterator[None]:
    """Errors of the system (a full disk, say) say which file could not be written."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"could not write {path}: {error.strerror}") from error


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write beside the place, fsync, rename, fsync the folder: after a crash the old file or the new one is there.

    Raises
    ------
    OSError
        With the path and what the system said (a full disk, say); the partial file is removed.
    """
    with written_atomically(path) as partial, blamed_on(path), open(partial, "wb") as stream:
        stream.write(content)


@contextmanager
def written_atomically(path: Path) -> Iterator[Path]:
    """A place beside a path to write to; when the block ends it is fsynced and renamed, after an error it is removed.

    After a crash the old file or the new one is there.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with written_atomically(Path(folder, "note")) as partial:
    ...         _ = partial.write_text("whole")
    ...     [p.name for p in Path(folder).iterdir()]
    ['note']
    """
    # Named by process: a worker that has not noticed yet that its run was killed must not share the file.
    writer = f"{platform.node().split('.')[0]}-{os.getpid()}"
    partial = path.with_name(f"{path.name}.{writer}.partial")
    try:
        yield partial
        with blamed_on(path):
            with open(partial, "rb") as stream:
                os.fsync(stream.fileno())
            os.replace(partial, path)
            sync_folder(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def remove_partials(paths: Iterable[Path]) -> None:
    """Remove what interrupted writes of these files have left beside them; looks once into each folder."""
    names: dict[Path, set[str]] = {}
    for path in paths:
        names.setdefault(path.parent, set()).add(path.name)
    for folder, ours in names.items():
        for partial in folder.glob("*.partial"):
            if partial.name.rsplit(".", 2)[0] in ours:
                partial.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, places: Iterable[int] = (0,)) -> Iterator[None]:
    """Hold OS locks, one byte of a lock file each; the kernel releases them if this process dies.

    POSIX record locks: one file however many locks, and they work on network file systems too. Processes exclude each
    other; threads of one process do not.

    Raises
    ------
    BlockingIOError
        If another process holds one of them; its ``args[1]`` is the place.
    """
    import fcntl  # not on Windows, where the rest of this module works

    with open(path, "ab") as stream:
        for place in places:
            try:
                fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN):
                    raise
                raise BlockingIOError(error.errno, place) from None
        yield


def is_locked(path: Path) -> bool:
    """Whether another process holds any of the `locked` places of a lock file."""
    import fcntl

    if not path.exists():
        return False
    with open(path, "ab") as stream:
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)  # all places
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            return True
    return False


def json_bytes(value: Any) -> bytes:
    """Canonical JSON: sorted keys, one value a line, no NaN."""
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of Southwell's, naming it where it is damaged: every one of them is an object."""
    try:
        content = json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}); it is damaged, or not Southwell's") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} does not hold a JSON object; it is damaged, or not Southwell's")
    return content


def sha256(content: bytes | memoryview) -> str:
    """Hexadecimal SHA-256 of bytes."""
    return hashlib.sha256(content).hexdigest()


def sha256_of_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
