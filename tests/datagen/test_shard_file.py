"""A shard is written and hashed while it is filled: the bytes are those of the arrays, and errors leave nothing."""

import errno
import hashlib
import io

import h5py
import numpy as np
import pytest

from datagen import shard_file
from datagen.files import blamed_on
from datagen.shard_file import write_as_filled
from datagen.shard_image import ShardImage
from datagen.store import Spec

ROWS = 7


def empty(pde=None):
    samples = {"train": ROWS, "validation": 0, "test": 0}
    spec = Spec(pde or {"name": "darcy", "grid": 16}, 3, samples, ROWS, {"method": "auto", "rtol": 1e-6})
    records = {"provenance": {"sample": np.int64, "solver": "S8"}, "cost": {}, "quality": {"q": np.float64}}
    return ShardImage(spec, spec.shards[0], {"s": np.float64}, records)


def filling(image, seen=None):
    rng = np.random.default_rng(0)
    for row in range(ROWS):
        for values in image.fields.values():
            values[row] = rng.standard_normal(values[row].shape)
        if seen is not None:
            seen.append(row)
        yield row + 1
    image.fill(
        {"s": np.arange(ROWS) / 4}, {"provenance": {"sample": range(ROWS), "solver": b"cg"}, "quality": {"q": 2.5}}
    )


@pytest.mark.parametrize("piece", [1, 3000, 2**30])
@pytest.mark.parametrize("pde", [None, {"name": "burgers", "grid": 32, "frames": 3}])
def test_the_file_holds_the_arrays_however_large_the_pieces_are(tmp_path, monkeypatch, piece, pde):
    monkeypatch.setattr(shard_file, "_PIECE", piece)
    image, path = empty(pde), tmp_path / "shard.hdf5"
    digest, _ = write_as_filled(path, image, filling(image))
    content = path.read_bytes()
    assert hashlib.sha256(content).hexdigest() == digest
    assert len(content) == image.size
    assert b"".join(piece for _, piece in image.pieces()) == content
    assert [p.name for p in tmp_path.iterdir()] == ["shard.hdf5"]
    with h5py.File(path) as file:
        for name, values in image.fields.items():
            np.testing.assert_array_equal(file["t0_fields"][name][:], values)
        np.testing.assert_array_equal(file["scalars/s"][:], np.arange(ROWS) / 4)
        np.testing.assert_array_equal(file["provenance/sample"][:], np.arange(ROWS))
        assert set(file["provenance/solver"][:]) == {b"cg"}
        assert set(file["quality/q"][:]) == {2.5}
        assert file.attrs["n_trajectories"] == ROWS


def test_two_images_of_one_shard_are_the_same_bytes(tmp_path):
    digests = set()
    for name in "ab":
        image = empty()
        digests.add(write_as_filled(tmp_path / name, image, filling(image))[0])
    assert len(digests) == 1


class Disk(io.FileIO):
    """Takes so many bytes at a time, and so many times."""

    bytes_at_a_time, times = 10**9, 10**9

    def write(self, content):
        if not self.times:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.times -= 1
        return super().write(content[: self.bytes_at_a_time])


def replace_disk(monkeypatch, **behaviour):
    monkeypatch.setattr(shard_file, "FileIO", type("Disk", (Disk,), behaviour))


def test_a_disk_that_fills_up_ends_the_filling_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_file, "_PIECE", 1)
    replace_disk(monkeypatch, times=5)
    image, seen = empty(), []
    with pytest.raises(OSError, match=r"could not write .*shard\.hdf5: No space left"):
        write_as_filled(tmp_path / "shard.hdf5", image, filling(image, seen))
    assert len(seen) < ROWS
    assert not list(tmp_path.iterdir())


def test_a_system_that_takes_little_at_a_time_gets_all(tmp_path, monkeypatch):
    replace_disk(monkeypatch, bytes_at_a_time=100)
    image, path = empty(), tmp_path / "shard.hdf5"
    digest, _ = write_as_filled(path, image, filling(image))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest


def test_an_image_that_is_not_filled_is_not_kept(tmp_path):
    with pytest.raises(ValueError, match="1 of 7 rows"):
        write_as_filled(tmp_path / "shard.hdf5", empty(), [1])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.EIO, "the inputs cannot be read")])
def test_what_goes_wrong_while_it_is_filled_is_passed_on_as_it_is(tmp_path, error):
    def broken():
        yield 1
        raise error

    with pytest.raises(type(error)) as caught:
        write_as_filled(tmp_path / "shard.hdf5", empty(), broken())
    assert caught.value is error
    assert not list(tmp_path.iterdir())


def test_blame():
    with pytest.raises(OSError, match="could not write here: no") as caught, blamed_on("here"):
        raise OSError(errno.EACCES, "no")
    assert caught.value.errno == errno.EACCES
