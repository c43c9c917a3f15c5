"""PDEBench's single files: a ``tensor`` with ``nu`` or through time, and its flows with one array a channel."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from datagen.interchange import FORMATS, write_file
from datagen.interchange.samples import NOTE, Wanted, box_of


def pdebench_single(path, every=1, every_time=1, every_sample=1):
    """``FNODatasetSingle``: (samples, *grid, time, channels), from names that do not end in h5."""
    assert path.name[-2:] != "h5"
    with h5py.File(path) as file:
        tensor = np.array(file["tensor"], dtype=np.float32)
        if tensor.ndim == 3:
            grid = np.array(file["x-coordinate"], dtype=np.float32)[::every]
            assert file["t-coordinate"].shape[0] == tensor.shape[1] + 1
            return np.moveaxis(tensor[::every_sample, ::every_time, ::every], 1, -1)[..., None], grid
        nu = np.array(file["nu"], dtype=np.float32)[::every_sample, None, ::every, ::every]
        data = np.concatenate([nu, tensor[::every_sample, :, ::every, ::every]], axis=1)
        x, y = (np.array(file[f"{name}-coordinate"], dtype=np.float32) for name in "xy")
        grid = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1)[::every, ::every]
        return np.moveaxis(data, 1, -1)[..., None], grid


def test_pdebench_reads_the_darcy_layout(made, tmp_path):
    samples, arrays = made([("a", "input"), ("u", "output")], (6, 8))
    data, grid = pdebench_single(write_file(samples, tmp_path / "d.hdf5", "pdebench"), every=2, every_sample=3)
    np.testing.assert_array_equal(data[..., 0, 0], arrays["a"][::3, ::2, ::2])
    np.testing.assert_array_equal(data[..., 1, 0], arrays["u"][::3, ::2, ::2])
    np.testing.assert_allclose(grid[1, 2], [2.5 / 6, 4.5 / 8], rtol=1e-6)  # cell centres, in single precision


def test_pdebench_reads_an_evolution(made, tmp_path):
    samples, arrays = made([("initial_u", "input"), ("u", "output")], (8,), frame_times=(0.5, 1.0, 1.5))
    data, grid = pdebench_single(write_file(samples, tmp_path / "d.hdf5", "pdebench"), every=2, every_time=2)
    assert data.shape == (6, 4, 2, 1)
    np.testing.assert_array_equal(data[..., 0, 0], arrays["initial_u"][:, ::2])
    np.testing.assert_array_equal(data[..., 1, 0], arrays["u"][:, 1, ::2])
    np.testing.assert_allclose(grid, (np.arange(8) + 0.5)[::2] / 8, rtol=1e-6)


def test_their_darcy_files_are_read(theirs, reads, tmp_path):
    a, u, _ = theirs
    with h5py.File(tmp_path / "darcy.hdf5", "w") as file:
        file["tensor"], file["nu"] = u[:, None], a
        file["x-coordinate"], file["y-coordinate"] = (np.arange(6) + 0.5) / 6, (np.arange(5) + 0.5) / 2.5 - 1
    wanted = Wanted(("permeability",), ("pressure",))
    reads("pdebench", tmp_path / "darcy.hdf5", {"permeability": a, "pressure": u}, wanted)
    with FORMATS["pdebench"].read(tmp_path / "darcy.hdf5", Wanted()) as found:
        assert found.about.lengths == (1.0, 2.0)
        assert found.about.centring == "cell"
    with pytest.raises(ValueError, match="not those of a uniform grid"):
        box_of([np.array([0.0, 0.1, 0.3])])


def test_their_compressible_flows_are_read(theirs, reads, tmp_path):
    movie = theirs[2]
    with h5py.File(tmp_path / "cfd.hdf5", "w") as file:
        file["density"], file["Vx"], file["Vy"] = movie, movie + 1, movie + 2
        for name, count in (("x", 6), ("y", 5), ("t", 4)):
            file[f"{name}-coordinate"] = np.arange(float(count))
    reads("pdebench", tmp_path / "cfd.hdf5", {"density": movie})


def test_their_incompressible_flows_are_read(theirs, reads, tmp_path):
    a, u, movie = theirs
    path = tmp_path / "incompressible.hdf5"
    with h5py.File(path, "w") as file:
        file["velocity"], file["particles"] = np.stack([-movie, movie], axis=-1), 2 * movie[..., None]
        file["force"], file["t"] = np.stack([u, a], axis=-1), np.tile([0.0, 0.1, 0.3], (7, 1))
    reads("pdebench", path, {"velocity_1": movie, "force_0": u, "force_1": a})
    with FORMATS["pdebench"].read(path, Wanted()) as found:
        np.testing.assert_allclose(found.about.times, [0, 0.1, 0.3])
        np.testing.assert_array_equal(found.read("initial_velocity_1", 0, 7), movie[:, 0])


ONES = np.ones((4, 3, 3), "f4")


def write_malformed(name, file, good):
    """Into a file with coordinates: one of many broken or hostile contents."""
    folder = Path(file.filename).parent
    if name in ("external link", "soft link", "shape", "note", "no nu", "objects", "external storage", "virtual"):
        file["tensor"] = ONES[:, None]
    if name == "external link":
        file["nu"] = h5py.ExternalLink(str(good), "nu")
    elif name == "soft link":
        file["nu"] = h5py.SoftLink("/tensor")
    elif name == "external storage":
        (folder / "secret").write_bytes(bytes(144))
        file.create_dataset("nu", (4, 3, 3), "f4", external=[(str(folder / "secret"), 0, 144)])
    elif name == "virtual":
        layout = h5py.VirtualLayout((4, 3, 3), "f4")
        layout[:] = h5py.VirtualSource(str(good), "nu", (4, 3, 3))
        file.create_virtual_dataset("nu", layout)
    elif name == "objects":
        file.create_dataset("nu", (4, 3, 3), dtype=h5py.string_dtype())
    elif name == "absurd":
        file.create_dataset("tensor", (10**9, 1, 3, 3), "f4", chunks=(1, 1, 3, 3))
        file.create_dataset("nu", (10**9, 3, 3), "f4", chunks=(1, 3, 3))
    elif name == "shape":
        file["nu"] = ONES[:, :2]
    elif name == "note":
        file["nu"] = ONES
        file.attrs[NOTE] = json.dumps({"grid": [9, 9], "declared": [{"name": "../a", "role": "input"}]})
    elif name == "note of another field":
        file["tensor"] = ONES
        roles = {"initial_u": "input", "k": "input", "u": "output"}
        declared = [{"name": field, "role": role} for field, role in roles.items()]
        file.attrs[NOTE] = json.dumps({"grid": [3], "declared": declared, "frame_times": [0, 1, 2]})


MALFORMED = {
    "external link": "'nu' is a link",
    "soft link": "'nu' is a link",
    "external storage": "in other files",
    "virtual": "in other files",
    "objects": "real numbers, got type object",
    "absurd": "but the file holds 0 of them",
    "shape": "nu must be",
    "note": "letters, digits and underscores",
    "note of another field": "'k' of the file does not have the shape",
    "no nu": "has no 'nu'",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_files_are_refused_in_a_sentence(made, refuses, name, tmp_path):
    samples, _ = made([("a", "input"), ("u", "output")], (16, 16), count=20)
    good = write_file(samples, tmp_path / "good.hdf5", "pdebench")
    with h5py.File(tmp_path / "bad.hdf5", "w") as file:
        file["x-coordinate"], file["y-coordinate"] = np.arange(3.0), np.arange(3.0)
        write_malformed(name, file, good)
    named = name != "note of another field"
    refuses("pdebench", tmp_path / "bad.hdf5", MALFORMED[name], names_the_file=named)
