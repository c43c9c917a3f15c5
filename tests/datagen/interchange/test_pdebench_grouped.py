"""PDEBench's files of one group a sample."""

import json

import h5py
import numpy as np

from datagen.interchange import write_file
from datagen.interchange.samples import Wanted


def pdebench_grouped(path):
    """``FNODatasetMult``: groups in sorted order, data with time moved before the channels."""
    samples = []
    with h5py.File(path) as file:
        for name in sorted(file.keys()):
            data = np.array(file[name]["data"], dtype=np.float32)
            axes = [np.array(file[name]["grid"][x]) for x in "xyz"[: data.ndim - 2]]
            assert [len(x) for x in axes] == list(data.shape[1:-1])
            assert len(file[name]["grid"]["t"]) == len(data)
            json.loads(file[name].attrs["config"])
            samples.append(np.moveaxis(data, 0, -2))
    return np.stack(samples)


def test_pdebench_reads_groups(made, tmp_path):
    samples, arrays = made([("a", "input"), ("u", "output"), ("v", "output")], (3, 4))
    data = pdebench_grouped(write_file(samples, tmp_path / "d.h5", "pdebench_grouped"))
    # One step of their training loop: frame 0 in, frame 1 out.
    np.testing.assert_array_equal(data[..., 0, 0], arrays["a"])
    assert not data[..., 0, 1].any()
    np.testing.assert_array_equal(data[..., 1, :], np.stack([arrays["u"], arrays["v"]], axis=-1))

    samples, arrays = made([("initial_u", "input"), ("k", "input"), ("u", "output")], (3, 4), frame_times=(0.0, 1.0))
    data = pdebench_grouped(write_file(samples, tmp_path / "e.h5", "pdebench_grouped"))
    np.testing.assert_array_equal(data[..., 0], np.moveaxis(arrays["u"], 1, -1))
    np.testing.assert_array_equal(data[..., 1, 1], arrays["k"])


def test_their_shallow_water_is_read(theirs, reads, tmp_path):
    movie = theirs[2]
    with h5py.File(tmp_path / "swe.h5", "w") as file:
        for number in range(7):
            file[f"{number:04d}/data"] = movie[number, ..., None]
            file[f"{number:04d}/grid/x"], file[f"{number:04d}/grid/y"] = np.arange(6.0), np.arange(5.0)
            file[f"{number:04d}/grid/t"] = np.array([0.0, 0.1, 0.2])
            file[f"{number:04d}"].attrs["config"] = "sim:\n  seed: 3\n"
    reads("pdebench_grouped", tmp_path / "swe.h5", {"height": movie}, Wanted(outputs=("height",)))
