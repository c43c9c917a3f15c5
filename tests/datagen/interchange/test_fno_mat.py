"""FNO's MATLAB files, of version 5 and 7.3."""

import h5py
import numpy as np
import pytest
import scipy.io

from datagen.interchange import FORMATS, import_file, write_file
from datagen.interchange.samples import Wanted
from datagen.store import open_store
from datagen.validate import validate


def test_matreader_reads_variables(made, tmp_path):
    steady, arrays = made([("a", "input"), ("u", "output")], (6, 7))
    data = scipy.io.loadmat(write_file(steady, tmp_path / "d.mat", "fno_mat"))
    np.testing.assert_array_equal(data["coeff"], arrays["a"])
    np.testing.assert_array_equal(data["sol"], arrays["u"])
    evolving, arrays = made([("initial_u", "input"), ("u", "output")], (5, 4), frame_times=(0.5, 1.0, 2.0))
    data = scipy.io.loadmat(write_file(evolving, tmp_path / "e.mat", "fno_mat"))
    np.testing.assert_array_equal(data["a"], arrays["initial_u"])
    np.testing.assert_array_equal(data["u"][..., 2], arrays["u"][:, 2])  # time last
    np.testing.assert_array_equal(data["t"], [[0.5, 1.0, 2.0]])


def test_their_files_are_read(theirs, reads, tmp_path):
    a, u, movie = theirs
    scipy.io.savemat(tmp_path / "darcy.mat", {"coeff": a, "sol": u, "Kcoeff": a}, do_compression=True)
    reads("fno_mat", tmp_path / "darcy.mat", {"coeff": a, "sol": u})
    with h5py.File(tmp_path / "darcy73.mat", "w", userblock_size=512) as file:  # MATLAB's axes run the other way
        file["coeff"], file["sol"] = a.T, u.T
        file.create_dataset("#refs#/cell", (1,), dtype=h5py.ref_dtype)
    reads("fno_mat", tmp_path / "darcy73.mat", {"coeff": a, "sol": u})
    scipy.io.savemat(tmp_path / "flow.mat", {"a": a, "u": np.moveaxis(movie, 1, -1), "t": [[1.0, 2.0, 3.0]]})
    reads("fno_mat", tmp_path / "flow.mat", {"a": a, "u": movie}, Wanted(sides=("periodic",)))
    with FORMATS["fno_mat"].read(tmp_path / "flow.mat", Wanted(sides=("periodic",))) as found:
        assert list(found.about.times) == [1, 2, 3]
        assert found.about.sides == (("periodic", "periodic"),) * 2


def test_an_evolution_of_theirs_becomes_a_dataset(theirs, trained_one_epoch, tmp_path):
    a, _, movie = theirs
    scipy.io.savemat(tmp_path / "flow.mat", {"a": a, "u": np.moveaxis(movie, 1, -1), "t": [[1.0, 2.0, 3.0]]})
    import_file(tmp_path / "flow.mat", tmp_path / "data", "fno_mat", Wanted(sides=("periodic",)), validation=2)
    store = open_store(tmp_path / "data")
    assert list(store.times) == [1, 2, 3]
    np.testing.assert_array_equal(store.read("validation", "u"), movie[5:])
    np.testing.assert_array_equal(store.read("validation", "u", frame=-1), movie[5:, -1])
    assert validate(tmp_path / "data").sound
    assert trained_one_epoch(store, tmp_path / "run")


ONES = np.ones((4, 3, 3), "f4")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"coeff": np.array([ONES, "x"], dtype=object), "sol": ONES}, "MATLAB cell"),
        ({"coeff": {"inner": ONES}, "sol": ONES}, "MATLAB struct"),
        ({"coeff": ONES, "sol": ONES[:3]}, r"'sol' must be \(4, 3, 3\), got \(3, 3, 3\)"),
        ({"k": ONES, "v": ONES}, "it holds k, v"),
    ],
    ids=["cell", "struct", "shape", "names"],
)
def test_malformed_files_are_refused_in_a_sentence(refuses, content, words, tmp_path):
    scipy.io.savemat(tmp_path / "bad.mat", content)
    refuses("fno_mat", tmp_path / "bad.mat", words)
