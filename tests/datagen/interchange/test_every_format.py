"""What holds of every format: bit by bit there and back, in little memory, whole or not at all."""

import errno
import types

import numpy as np
import pytest

from datagen.interchange import FORMATS, export, import_file, write_file
from datagen.interchange.samples import Samples, Wanted
from datagen.store import open_store
from datagen.validate import validate
from operators.evaluation import evaluate

# The single-file layout holds nothing else: tensor and nu in 2D, or one scalar in 1D through time.
SINGLE = {"one to one, 2D", "evolution, 1D", "evolution, 1D, from after 0"}


@pytest.mark.parametrize("layout", FORMATS)
def test_what_is_written_is_read_back_bit_by_bit(case, layout, tmp_path):
    name, samples, arrays = case
    path = tmp_path / f"data{FORMATS[layout].SUFFIX}"
    if layout == "pdebench" and name not in SINGLE:
        with pytest.raises(ValueError, match="Use format=pdebench_grouped"):
            write_file(samples, path, layout)
        assert not list(tmp_path.iterdir()), "a refused export left a file"
        return
    write_file(samples, path, layout)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    with FORMATS[layout].read(path, Wanted()) as found:
        assert (found.about, found.count, found.dtype) == (samples.about, samples.count, samples.dtype)
        for field, values in arrays.items():
            for start, stop in ((0, 6), (2, 3), (4, 6)):
                part = found.read(field, start, stop)
                assert part.dtype == values.dtype
                np.testing.assert_array_equal(part, values[start:stop], err_msg=field)


@pytest.mark.parametrize("layout", FORMATS)
def test_a_dataset_goes_out_and_comes_back_and_trains(darcy, trained_one_epoch, layout, tmp_path):
    path = export(open_store(darcy), tmp_path / f"d{FORMATS[layout].SUFFIX}", layout)
    import_file(path, tmp_path / "back", layout, validation=2, test=1, shard_size=4)
    before, after = open_store(darcy), open_store(tmp_path / "back")
    assert after.sizes == {"train": 6, "validation": 2, "test": 1}
    assert after.boundary == before.boundary
    assert after.fields == before.fields
    for name in ("coefficient", "pressure"):
        whole = before.read("train", name)
        for split, rows in (("train", slice(0, 6)), ("validation", slice(6, 8)), ("test", slice(8, 9))):
            found = after.read(split, name)
            assert found.dtype == whole.dtype
            np.testing.assert_array_equal(found, whole[rows])
    report = validate(tmp_path / "back")
    assert report.sound, report.problems
    assert "no independent scheme" in report.notes[0]
    assert trained_one_epoch(after, tmp_path / "run")
    with pytest.raises(ValueError, match="come from a file, and there is no equation"):
        evaluate(tmp_path / "run/best.pt", after, certified_samples=1)


@pytest.mark.parametrize("layout", FORMATS)
def test_an_evolution_goes_out_and_comes_back_and_trains(burgers, trained_one_epoch, layout, tmp_path):
    path = export(open_store(burgers), tmp_path / f"d{FORMATS[layout].SUFFIX}", layout)
    import_file(path, tmp_path / "back", layout, validation=1, shard_size=3)
    before, after = open_store(burgers), open_store(tmp_path / "back")
    np.testing.assert_array_equal(after.times, before.times)
    assert after.boundary == (("periodic", "periodic"),)
    np.testing.assert_array_equal(after.read("train", "u"), before.read("train", "u", 0, 4))
    # Where there are frames only, the initial field is the first of them: what the scheme represents of what was drawn.
    frames_only = layout in ("pdebench", "pdebench_grouped", "poseidon")
    start = before.read("train", "u", 0, 4, frame=0) if frames_only else before.read("train", "initial_u", 0, 4)
    np.testing.assert_array_equal(after.read("train", "initial_u"), start)
    report = validate(tmp_path / "back")
    assert report.sound, report.problems
    assert trained_one_epoch(after, tmp_path / "run")


@pytest.mark.parametrize("layout", ["pdebench", "pdebench_grouped", "poseidon", "npz"])
def test_memory_does_not_grow_with_the_samples(made, layout, tmp_path, monkeypatch):
    monkeypatch.setattr("datagen.interchange.samples.PIECE_BYTES", 3 * 2 * 6 * 7 * 4)  # three samples of two fields
    samples, _ = made([("a", "input"), ("u", "output")], (6, 7), count=20)
    asked = []

    def read(name, start, stop):
        asked.append(stop - start)
        return samples.read(name, start, stop)

    path = tmp_path / f"d{FORMATS[layout].SUFFIX}"
    write_file(Samples(samples.about, 20, "float32", read), path, layout)
    assert max(asked) == 3
    assert sum(asked) == 40
    with FORMATS[layout].read(path, Wanted()) as found:
        np.testing.assert_array_equal(found.read("u", 0, 20), samples.read("u", 0, 20))


def test_a_full_disk_leaves_nothing(darcy, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("datagen.files.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        export(open_store(darcy), tmp_path / "d.npz", "npz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("layout", FORMATS)
def test_too_small_a_disk_is_refused_before_anything_is_written(darcy, tmp_path, monkeypatch, layout):
    # HDF5 ends the process (signal 11) when the disk fills up while it writes.
    monkeypatch.setattr("datagen.interchange.shutil.disk_usage", lambda path: types.SimpleNamespace(free=100))
    with pytest.raises(OSError, match=r"may need [\d,]+ bytes"):
        export(open_store(darcy), tmp_path / f"x{FORMATS[layout].SUFFIX}", layout)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("layout", FORMATS)
def test_a_full_disk_is_not_blamed_on_the_file_that_is_imported(darcy, tmp_path, monkeypatch, layout):
    file = export(open_store(darcy), tmp_path / f"x{FORMATS[layout].SUFFIX}", layout)

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("datagen.interchange.folder.write_as_filled", full)
    with pytest.raises(OSError, match="No space left"):
        import_file(file, tmp_path / "data", layout)


@pytest.mark.parametrize("layout", FORMATS)
def test_a_file_that_was_cut_off_is_refused(broken, refuses, layout):
    refuses(layout, broken(layout, "truncated"), "truncated|damaged")


# pdebench_grouped and poseidon open HDF5 as pdebench does.
@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ("pdebench", "not a readable HDF5 file"),
        ("neuraloperator", "pickled objects|not a file that torch.save"),
        ("fno_mat", "not a MATLAB file"),
        ("npz", r"not an \.npz archive"),
    ],
)
def test_a_file_of_something_else_is_refused(broken, refuses, layout, words):
    refuses(layout, broken(layout, "text"), words)
