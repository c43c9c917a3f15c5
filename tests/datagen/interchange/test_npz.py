"""``.npz``: arrays by the fields' names."""

import json
import zipfile

import numpy as np
import pytest

from datagen.interchange import FORMATS, write_file
from datagen.interchange.samples import NOTE, Wanted


def test_numpy_reads_arrays(made, tmp_path):
    samples, arrays = made([("a", "input"), ("u", "output")], (6, 7))
    with np.load(write_file(samples, tmp_path / "d.npz", "npz"), allow_pickle=False) as data:
        for name, values in arrays.items():
            np.testing.assert_array_equal(data[name], values)
        assert json.loads(str(data[NOTE]))["grid"] == [6, 7]


def test_their_files_are_read(theirs, reads, tmp_path):
    a, u, _ = theirs
    np.savez_compressed(tmp_path / "mine.npz", permeability=a.astype("f8"), head=u)
    wanted = Wanted(("permeability",), ("head",), lengths=(3.0,))
    reads("npz", tmp_path / "mine.npz", {"permeability": a, "head": u}, wanted)
    with FORMATS["npz"].read(tmp_path / "mine.npz", wanted) as found:
        assert found.dtype == "float64"


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


ONES = np.ones((4, 3, 3), "f4")


def bomb(path):
    """A header that promises ten thousand times what follows it."""
    np.savez_compressed(path, a=np.zeros((4, 300, 300), "f4"), u=ONES)
    size = (4, 30000, 30000)
    with zipfile.ZipFile(path) as archive:
        content = archive.read("a.npy")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", content.replace(b"(4, 300, 300), }", b"%s, }" % str(size).encode()))
        archive.writestr("u.npy", content)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: np.savez(path, a=np.array([Evil(), None], dtype=object), u=ONES), "pickled Python objects"),
        (lambda path: np.savez(path, a=ONES, u=ONES[:, :2]), r"'u' must be \(4, 3, 3\), got \(4, 2, 3\)"),
        (bomb, "its size does not fit"),
    ],
    ids=["objects", "shape", "bomb"],
)
def test_malformed_files_are_refused_in_a_sentence(refuses, write, words, tmp_path):
    write(tmp_path / "bad.npz")
    refuses("npz", tmp_path / "bad.npz", words, Wanted(("a",), ("u",)))
