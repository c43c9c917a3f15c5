"""Datasets of others: reading and writing their formats.

Every format is a module with a ``TITLE``, a ``SUFFIX``, ``write(samples, path, place)`` and ``read(path, wanted)``;
`datagen.interchange.samples.Samples` is what goes in and comes out. ``docs/formats.md`` has every layout byte by byte.

A file is read as data only: no pickle, no links out of it, nothing larger than what it stores.
"""

import errno
import math
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType

import numpy as np

from datagen.files import written_atomically
from datagen.interchange import fno_mat, neuraloperator, npz, pdebench, pdebench_grouped, poseidon
from datagen.interchange.folder import followed_by, provenance, split_sizes, stored, write_folder
from datagen.interchange.samples import Samples, Wanted
from datagen.store import DTYPES, Spec, Store
from solvers.registry import near_names

FORMATS: dict[str, ModuleType] = {
    "pdebench": pdebench,
    "pdebench_grouped": pdebench_grouped,
    "neuraloperator": neuraloperator,
    "poseidon": poseidon,
    "fno_mat": fno_mat,
    "npz": npz,
}


def format_named(name: str) -> ModuleType:
    """The module of a format.

    Parameters
    ----------
    name : str
        A key of `FORMATS`.

    Raises
    ------
    ValueError
        If there is none of that name; it lists them.
    """
    if name not in FORMATS:
        raise ValueError(f"unknown format {name!r}. {near_names(name, list(FORMATS))}")
    return FORMATS[name]


def write_file(samples: Samples, path: str | Path, layout: str) -> Path:
    """Write samples in a format; the file is there whole or not at all.

    Parameters
    ----------
    samples : Samples
    path : path
    layout : str
        Name of a format.

    Raises
    ------
    ValueError
        If the format cannot hold these fields; it says which can.
    OSError
        If the disk is full; nothing is left.

    Examples
    --------
    Two squares and their halves, as neither a PDE nor a solver would make them:

    >>> import tempfile
    >>> import numpy as np
    >>> from datagen.pdes.imported import Imported
    >>> fields = [{"name": "whole", "role": "input"}, {"name": "half", "role": "output"}]
    >>> arrays = {"whole": np.ones((3, 4, 4), "f4"), "half": np.full((3, 4, 4), 0.5, "f4")}
    >>> samples = Samples(Imported([4, 4], fields), 3, "float32", lambda name, start, stop: arrays[name][start:stop])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_file(samples, Path(folder) / "squares.npz", "npz")
    ...     sorted(np.load(path))
    ['half', 'southwell', 'whole']
    """
    module, path = format_named(layout), Path(path)
    if not path.parent.is_dir():
        raise ValueError(f"out={path}: its folder does not exist")
    if path.is_dir():
        raise ValueError(f"out={path} is a folder; name a file, {path / ('data' + module.SUFFIX)} for example")
    # HDF5 does not survive a disk that fills up under it (it may end the process), so look before. No layout takes more
    # than all fields, and one more, in all frames; files have a head besides.
    largest = max(math.prod(samples.about.shape(field.name)) for field in samples.about.fields)
    values = samples.count * largest * (len(samples.about.fields) + 1)
    needed = values * np.dtype(samples.dtype).itemsize + 1_000_000
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{path} may need {needed:,} bytes, and its disk has {free:,} free")
    with written_atomically(path) as place:
        module.write(samples, path, place)
    return path


def export(store: Store, path: str | Path, layout: str, split: str = "train") -> Path:
    """Write one split of a dataset in another format.

    Parameters
    ----------
    store : Store
    path : path
        Of the file to write.
    layout : str
        Name of a format.
    split : {"train", "validation", "test"}

    Raises
    ------
    ValueError
        If the split is empty, or the format cannot hold its fields.
    """
    return write_file(stored(store, split), path, layout)


def import_file(
    path: str | Path,
    folder: str | Path,
    layout: str,
    wanted: Wanted | None = None,
    *,
    train: int | None = None,
    validation: int = 0,
    test: int | None = None,
    test_file: str | Path | None = None,
    shard_size: int = 100,
    dtype: str | None = None,
    on_shard: Callable[[int], None] = lambda count: None,
) -> Spec:
    """Make a Southwell dataset of a file.

    Parameters
    ----------
    path, folder : path
        The file, and the dataset.
    layout : str
        Name of a format.
    wanted : Wanted, optional
        What the file does not say itself.
    train, validation, test : int
        The file's first samples are for training, the next for validation, the next for the test; ``train=None`` takes
        all that the others leave.
    test_file : path, optional
        A second file of the same kind, whose first samples (``test=None``: all of them) are for the test.
    shard_size : int
        Samples a shard.
    dtype : str, optional
        Of the stored fields; by default what holds the file's values exactly.
    on_shard : callable
        Told how many samples were written.

    Raises
    ------
    ValueError
        If the file is not what the format says, or holds what data files must not.
    """
    module, path = format_named(layout), Path(path)
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype must be {' or '.join(DTYPES)}, got {dtype!r}")
    for place in (path, test_file):
        if place is not None and not Path(place).is_file():
            raise ValueError(f"{place}: there is no such file")
    with ExitStack() as files:
        samples = files.enter_context(module.read(path, wanted or Wanted()))
        if test_file is None:
            sizes = split_sizes(samples.count, train, validation, test or 0)
        else:
            other = files.enter_context(module.read(Path(test_file), wanted or Wanted()))
            sizes = {**split_sizes(samples.count, train, validation, 0), "test": other.count if test is None else test}
            if not 0 <= sizes["test"] <= other.count:
                raise ValueError(f"samples.test={test} cannot be taken from {test_file}, which has {other.count}")
            samples = followed_by(samples, sizes["train"] + sizes["validation"], other, Path(test_file))
        about = provenance(samples.about, [path] if test_file is None else [path, Path(test_file)], layout)
        whole = Samples(about, samples.count, samples.dtype, samples.read)
        return write_folder(whole, Path(folder), sizes, shard_size, dtype or samples.dtype, on_shard)
