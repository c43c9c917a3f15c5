"""Formats of others: read back by their own readers' rules, bit by bit, and refused when not what they say.

The readers here are written from the documented slicing rules of the peers (docs/formats.md names them) and share
nothing with `datagen.interchange`.
"""

import errno
import json
import pickle
import shutil
import types
import zipfile
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import torch

from datagen.commands.data import main as data_command
from datagen.family import Sample, families
from datagen.generate import generate
from datagen.interchange import FORMATS, export, import_file, write_file
from datagen.interchange.samples import NOTE, Samples, Wanted, box_of
from datagen.pdes.darcy import Darcy
from datagen.pdes.imported import Imported
from datagen.store import Spec, open_store
from datagen.validate import validate
from operators.evaluation import evaluate
from operators.trainer import train


def made(fields, grid, dtype="float32", frame_times=None, count=6, **box):
    """Samples of noise; where frames start at time 0, the first frame is the initial field, as in our datasets."""
    rng = np.random.default_rng(5)
    declared = [{"name": name, "role": role, "units": "m", "description": f"field {name}"} for name, role in fields]
    about = Imported(grid, declared, frame_times=frame_times, **box)
    arrays = {name: rng.standard_normal((count, *about.shape(name))).astype(dtype) for name, _ in fields}
    for name, role in fields:
        if role == "output" and frame_times and frame_times[0] == 0 and f"initial_{name}" in arrays:
            arrays[name][:, 0] = arrays[f"initial_{name}"]
    return Samples(about, count, dtype, lambda name, start, stop: arrays[name][start:stop]), arrays


BOX = {"lengths": (1.0, 2.0), "centring": "cell", "sides": [("dirichlet", "neumann"), ("periodic", "periodic")]}
CASES = {
    "one to one, 2D": ([("a", "input"), ("u", "output")], (6, 7), "float32", None, BOX),
    "one to one, 1D, double": ([("a", "input"), ("u", "output")], (9,), "float64", None, {"centring": "node"}),
    "two to three, 3D": (
        [("a", "input"), ("b", "input"), ("u", "output"), ("v", "output"), ("w", "output")],
        (3, 4, 5),
        "float32",
        None,
        {},
    ),
    "with a constant field": ([("mask", "constant"), ("a", "input"), ("u", "output")], (4, 4), "float32", None, {}),
    "evolution, 1D": ([("initial_u", "input"), ("u", "output")], (8,), "float32", (0.0, 0.5, 1.0), {}),
    "evolution, 1D, from after 0": ([("initial_u", "input"), ("u", "output")], (8,), "float32", (0.25, 0.5), {}),
    "evolution, 2D, driven": (
        [("initial_u", "input"), ("k", "input"), ("u", "output")],
        (5, 6),
        "float32",
        (0.0, 0.1, 0.2, 0.3),
        {},
    ),
    "flow": (
        [(f"{start}velocity_{x}", role) for start, role in (("initial_", "input"), ("", "output")) for x in "xy"],
        (5, 4),
        "float64",
        (0.0, 1.0),
        {},
    ),
}
# The single-file layout holds nothing else: tensor and nu in 2D, or one scalar in 1D through time.
SINGLE = {"one to one, 2D", "evolution, 1D", "evolution, 1D, from after 0"}


@pytest.fixture
def case(request):
    fields, grid, dtype, frame_times, box = CASES[request.param]
    return made(fields, grid, dtype, frame_times, **box)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("case", CASES, indirect=True)
def test_what_is_written_is_read_back_bit_by_bit(case, layout, tmp_path, request):
    samples, arrays = case
    path = tmp_path / f"data{FORMATS[layout].SUFFIX}"
    if layout == "pdebench" and request.node.callspec.params["case"] not in SINGLE:
        with pytest.raises(ValueError, match="Use format=pdebench_grouped"):
            write_file(samples, path, layout)
        assert not list(tmp_path.iterdir()), "a refused export left a file"
        return
    write_file(samples, path, layout)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    with FORMATS[layout].read(path, Wanted()) as found:
        assert (found.about, found.count, found.dtype) == (samples.about, samples.count, samples.dtype)
        for name, values in arrays.items():
            for start, stop in ((0, 6), (2, 3), (4, 6)):
                part = found.read(name, start, stop)
                assert part.dtype == values.dtype
                np.testing.assert_array_equal(part, values[start:stop], err_msg=name)


# The peers' readers --------------------------------------------------------------------------------------------------


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


def test_pdebench_reads_the_darcy_layout(tmp_path):
    samples, arrays = made([("a", "input"), ("u", "output")], (6, 8))
    data, grid = pdebench_single(write_file(samples, tmp_path / "d.hdf5", "pdebench"), every=2, every_sample=3)
    np.testing.assert_array_equal(data[..., 0, 0], arrays["a"][::3, ::2, ::2])
    np.testing.assert_array_equal(data[..., 1, 0], arrays["u"][::3, ::2, ::2])
    np.testing.assert_allclose(grid[1, 2], [2.5 / 6, 4.5 / 8], rtol=1e-6)  # cell centres, in single precision


def test_pdebench_reads_an_evolution(tmp_path):
    samples, arrays = made([("initial_u", "input"), ("u", "output")], (8,), frame_times=(0.5, 1.0, 1.5))
    data, grid = pdebench_single(write_file(samples, tmp_path / "d.hdf5", "pdebench"), every=2, every_time=2)
    assert data.shape == (6, 4, 2, 1)
    np.testing.assert_array_equal(data[..., 0, 0], arrays["initial_u"][:, ::2])
    np.testing.assert_array_equal(data[..., 1, 0], arrays["u"][:, 1, ::2])
    np.testing.assert_allclose(grid, (np.arange(8) + 0.5)[::2] / 8, rtol=1e-6)


def test_pdebench_reads_groups(tmp_path):
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


def test_neuraloperator_reads_tensors(tmp_path):
    samples, arrays = made([("a", "input"), ("u", "output")], (6, 7))
    data = torch.load(write_file(samples, tmp_path / "d.pt", "neuraloperator"), weights_only=True)
    # PTDataset with channels_squeezed: a channel axis is put after the samples.
    np.testing.assert_array_equal(data["x"].unsqueeze(1).numpy()[:, 0], arrays["a"])
    np.testing.assert_array_equal(data["y"].unsqueeze(1).numpy()[:, 0], arrays["u"])
    samples, arrays = made([("a", "input"), ("b", "input"), ("u", "output")], (5,))
    data = torch.load(write_file(samples, tmp_path / "e.pt", "neuraloperator"), weights_only=True)
    assert data["x"].shape == (6, 2, 5)
    assert data["y"].shape == (6, 1, 5)
    np.testing.assert_array_equal(data["x"][:, 1].numpy(), arrays["b"])


def test_poseidon_reads_its_variables(tmp_path):
    flow, arrays = made(*CASES["flow"][:2], frame_times=(0.0, 1.0))
    with h5py.File(write_file(flow, tmp_path / "flow.nc", "poseidon")) as file:
        # Sample 3, frame 1: velocity[i, t, 0:2] is two fields.
        frame = file["velocity"][3, 1, 0:2]
        np.testing.assert_array_equal(frame, [arrays["velocity_x"][3, 1], arrays["velocity_y"][3, 1]])
        assert [d.label or d[0].name for d in file["velocity"].dims] == ["/sample", "/time", "/channel", "/x", "/y"]
    driven, arrays = made(*CASES["evolution, 2D, driven"][:2], frame_times=(0.0, 0.1))
    with h5py.File(write_file(driven, tmp_path / "wave.nc", "poseidon")) as file:
        np.testing.assert_array_equal(file["solution"][2, 1].reshape(1, 5, 6)[0], arrays["u"][2, 1])
        np.testing.assert_array_equal(file["k"][2], arrays["k"][2])
    steady, arrays = made([("a", "input"), ("u", "output")], (6, 7))
    with h5py.File(write_file(steady, tmp_path / "steady.nc", "poseidon")) as file:
        np.testing.assert_array_equal(file["solution"][4, 0], arrays["a"][4])
        np.testing.assert_array_equal(file["solution"][4, 1], arrays["u"][4])


def test_matreader_reads_variables(tmp_path):
    steady, arrays = made([("a", "input"), ("u", "output")], (6, 7))
    data = scipy.io.loadmat(write_file(steady, tmp_path / "d.mat", "fno_mat"))
    np.testing.assert_array_equal(data["coeff"], arrays["a"])
    np.testing.assert_array_equal(data["sol"], arrays["u"])
    evolving, arrays = made([("initial_u", "input"), ("u", "output")], (5, 4), frame_times=(0.5, 1.0, 2.0))
    data = scipy.io.loadmat(write_file(evolving, tmp_path / "e.mat", "fno_mat"))
    np.testing.assert_array_equal(data["a"], arrays["initial_u"])
    np.testing.assert_array_equal(data["u"][..., 2], arrays["u"][:, 2])  # time last
    np.testing.assert_array_equal(data["t"], [[0.5, 1.0, 2.0]])


def test_numpy_reads_arrays(tmp_path):
    samples, arrays = made([("a", "input"), ("u", "output")], (6, 7))
    with np.load(write_file(samples, tmp_path / "d.npz", "npz"), allow_pickle=False) as data:
        for name, values in arrays.items():
            np.testing.assert_array_equal(data[name], values)
        assert json.loads(str(data[NOTE]))["grid"] == [6, 7]


# Files of others, which carry no note of ours ------------------------------------------------------------------------


@pytest.fixture
def foreign(tmp_path):
    """Files as the peers write them, and what should come out."""
    rng = np.random.default_rng(1)
    a, u = rng.standard_normal((2, 7, 6, 5)).astype("f4")
    movie = rng.standard_normal((7, 3, 6, 5)).astype("f4")

    class Files:
        pass

    files = Files()
    files.a, files.u, files.movie, files.folder = a, u, movie, tmp_path
    scipy.io.savemat(tmp_path / "darcy.mat", {"coeff": a, "sol": u, "Kcoeff": a}, do_compression=True)
    scipy.io.savemat(tmp_path / "flow.mat", {"a": a, "u": np.moveaxis(movie, 1, -1), "t": [[1.0, 2.0, 3.0]]})
    with h5py.File(tmp_path / "darcy73.mat", "w", userblock_size=512) as file:  # MATLAB's axes run the other way
        file["coeff"], file["sol"] = a.T, u.T
        file.create_dataset("#refs#/cell", (1,), dtype=h5py.ref_dtype)
    torch.save({"x": torch.from_numpy(a > 0), "y": torch.from_numpy(u)}, tmp_path / "squeezed.pt")
    content = {"x": torch.from_numpy(a)[:, None], "y": torch.from_numpy(movie)}
    torch.save(content, tmp_path / "channels.pt", _use_new_zipfile_serialization=False)  # as before torch 1.6
    np.savez_compressed(tmp_path / "mine.npz", permeability=a.astype("f8"), head=u)
    with h5py.File(tmp_path / "darcy.hdf5", "w") as file:
        file["tensor"], file["nu"] = u[:, None], a
        file["x-coordinate"], file["y-coordinate"] = (np.arange(6) + 0.5) / 6, (np.arange(5) + 0.5) / 2.5 - 1
    with h5py.File(tmp_path / "cfd.hdf5", "w") as file:
        file["density"], file["Vx"], file["Vy"] = movie, movie + 1, movie + 2
        file["x-coordinate"], file["y-coordinate"], file["t-coordinate"] = (
            np.arange(6.0),
            np.arange(5.0),
            np.arange(4.0),
        )
    with h5py.File(tmp_path / "swe.h5", "w") as file:
        for number in range(7):
            file[f"{number:04d}/data"] = movie[number, ..., None]
            file[f"{number:04d}/grid/x"], file[f"{number:04d}/grid/y"] = np.arange(6.0), np.arange(5.0)
            file[f"{number:04d}/grid/t"] = np.array([0.0, 0.1, 0.2])
            file[f"{number:04d}"].attrs["config"] = "sim:\n  seed: 3\n"
    with h5py.File(tmp_path / "ns.nc", "w") as file:
        file["velocity"] = np.stack([movie, -movie], axis=2)
    with h5py.File(tmp_path / "wave.nc", "w") as file:
        file["solution"], file["c"] = movie, a
    with h5py.File(tmp_path / "incompressible.hdf5", "w") as file:
        file["velocity"], file["particles"] = np.stack([-movie, movie], axis=-1), 2 * movie[..., None]
        file["force"], file["t"] = np.stack([u, a], axis=-1), np.tile([0.0, 0.1, 0.3], (7, 1))
    with h5py.File(tmp_path / "poisson.nc", "w") as file:
        file["source"], file["solution"] = a, u
    with h5py.File(tmp_path / "airfoil.nc", "w") as file:
        file["solution"] = np.stack([a, u], axis=1)
    return files


FOREIGN = {
    "darcy.mat": ("fno_mat", Wanted(), {"coeff": "a", "sol": "u"}),
    "flow.mat": ("fno_mat", Wanted(sides=("periodic",)), {"a": "a", "u": "movie"}),
    "darcy73.mat": ("fno_mat", Wanted(), {"coeff": "a", "sol": "u"}),
    "squeezed.pt": ("neuraloperator", Wanted(), {"y": "u"}),
    "channels.pt": ("neuraloperator", Wanted(), {"x": "a"}),
    "mine.npz": ("npz", Wanted(("permeability",), ("head",), lengths=(3.0,)), {"permeability": "a", "head": "u"}),
    "darcy.hdf5": ("pdebench", Wanted(("permeability",), ("pressure",)), {"permeability": "a", "pressure": "u"}),
    "cfd.hdf5": ("pdebench", Wanted(), {"density": "movie"}),
    "swe.h5": ("pdebench_grouped", Wanted(outputs=("height",)), {"height": "movie"}),
    "ns.nc": ("poseidon", Wanted(), {"velocity_0": "movie"}),
    "wave.nc": ("poseidon", Wanted(("c",)), {"solution": "movie", "c": "a"}),
    "incompressible.hdf5": ("pdebench", Wanted(), {"velocity_1": "movie", "force_0": "u", "force_1": "a"}),
    "poisson.nc": ("poseidon", Wanted(), {"source": "a", "solution": "u"}),
    "airfoil.nc": ("poseidon", Wanted(), {"input": "a", "output": "u"}),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_files_of_others_are_read(foreign, name):
    layout, wanted, expected = FOREIGN[name]
    with FORMATS[layout].read(foreign.folder / name, wanted) as found:
        assert found.count == 7
        assert found.about.mesh.shape == (6, 5)
        for field, array in expected.items():
            np.testing.assert_array_equal(found.read(field, 1, 5), getattr(foreign, array)[1:5])


def test_what_files_say_of_their_box_is_understood(foreign):
    with FORMATS["pdebench"].read(foreign.folder / "darcy.hdf5", Wanted()) as found:
        assert found.about.lengths == (1.0, 2.0)
        assert found.about.centring == "cell"
    with FORMATS["fno_mat"].read(foreign.folder / "flow.mat", Wanted(sides=("periodic",))) as found:
        assert list(found.about.times) == [1, 2, 3]
        assert found.about.sides == (("periodic", "periodic"),) * 2
    with FORMATS["pdebench"].read(foreign.folder / "incompressible.hdf5", Wanted()) as found:
        np.testing.assert_allclose(found.about.times, [0, 0.1, 0.3])
        np.testing.assert_array_equal(found.read("initial_velocity_1", 0, 7), foreign.movie[:, 0])
    with FORMATS["neuraloperator"].read(foreign.folder / "squeezed.pt", Wanted()) as found:
        assert set(np.unique(found.read("x", 0, 7))) == {False, True}
        assert found.dtype == "float32"
    with FORMATS["npz"].read(foreign.folder / "mine.npz", Wanted(("permeability",), ("head",))) as found:
        assert found.dtype == "float64"
    with pytest.raises(ValueError, match="not those of a uniform grid"):
        box_of([np.array([0.0, 0.1, 0.3])])


# Imported datasets ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def darcy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "darcy"
    samples = {"train": 9, "validation": 2, "test": 2}
    solver = {"method": "direct", "rtol": 1e-8}
    return generate(Spec({"name": "darcy", "grid": 12}, 3, samples, 4, solver), folder, executor="serial")


@pytest.fixture(scope="module")
def burgers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "burgers"
    pde = {"name": "burgers", "grid": 32, "nu": 0.1, "frames": 5, "final_time": 0.5}
    samples = {"train": 5, "validation": 1, "test": 1}
    return generate(Spec(pde, 3, samples, 2, {"method": "auto", "rtol": 1e-6}), folder, executor="serial")


def trained_one_epoch(store, out):
    config = {
        "seed": 0,
        "loss": "relative_l2",
        "out": str(out),
        "dataset": {"path": str(store.path)},
        "model": {"name": "fno", "n_modes": [4] * len(store.shape), "hidden_channels": 4, "n_layers": 1},
        "optimizer": {"name": "adam", "lr": 1e-3},
        "scheduler": {"name": "constant"},
        "trainer": {"epochs": 1, "batch_size": 4, "gradient_clip": None, "device": "cpu"},
    }
    return train(config, store).finished


@pytest.mark.parametrize("layout", FORMATS)
def test_a_dataset_goes_out_and_comes_back_and_trains(darcy, layout, tmp_path):
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
def test_an_evolution_goes_out_and_comes_back_and_trains(burgers, layout, tmp_path):
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


def test_an_evolution_of_others_becomes_a_dataset(foreign, tmp_path):
    import_file(foreign.folder / "flow.mat", tmp_path / "data", "fno_mat", Wanted(sides=("periodic",)), validation=2)
    store = open_store(tmp_path / "data")
    assert list(store.times) == [1, 2, 3]
    np.testing.assert_array_equal(store.read("validation", "u"), foreign.movie[5:])
    np.testing.assert_array_equal(store.read("validation", "u", frame=-1), foreign.movie[5:, -1])
    assert validate(tmp_path / "data").sound
    assert trained_one_epoch(store, tmp_path / "run")


def test_scalars_go_out_as_inputs_of_one_value(tmp_path, monkeypatch):
    @dataclass(frozen=True)
    class Viscous(Darcy):
        def sample(self, rng):
            return Sample(Darcy.sample(self, rng).fields, {"viscosity": float(rng.uniform(1, 2))})

    monkeypatch.setattr(Viscous, "name", "viscous")
    monkeypatch.setitem(families._entries, "viscous", Viscous)
    samples, solver = {"train": 3, "validation": 0, "test": 0}, {"method": "direct", "rtol": 1e-8}
    folder = generate(Spec({"name": "viscous", "grid": 6}, 0, samples, 2, solver), tmp_path / "d", executor="serial")
    store = open_store(folder)
    with np.load(export(store, tmp_path / "d.npz", "npz")) as data:
        assert data["viscosity"].shape == (3, 6, 6)
        expected = store.record("train", "scalars/viscosity").astype("f4")
        np.testing.assert_array_equal(data["viscosity"], np.broadcast_to(expected[:, None, None], (3, 6, 6)))
        assert len(set(expected)) == 3


@pytest.mark.parametrize("layout", ["pdebench", "pdebench_grouped", "poseidon", "npz"])
def test_memory_does_not_grow_with_the_samples(layout, tmp_path, monkeypatch):
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


def test_an_imported_dataset_says_where_its_samples_are_from(darcy, tmp_path, capsys):
    path = export(open_store(darcy), tmp_path / "d.npz", "npz", split="test")
    data_command(["import", str(path), "format=npz", f"out={tmp_path / 'back'}", "samples.validation=1"])
    store = open_store(tmp_path / "back")
    for call in (lambda: store.family.sample(np.random.default_rng(0)), lambda: store.family.system(None)):
        with pytest.raises(TypeError, match=r"come from the file d\.npz"):
            call()
    capsys.readouterr()
    data_command(["info", str(tmp_path / "back")])
    text = capsys.readouterr().out
    for words in ("imported", "d.npz", "sha256", "dirichlet", "pressure", "train 1, validation 1"):
        assert words in text
    # Bytes that were changed afterwards are found.
    shard = tmp_path / "back/train/shard-00000.hdf5"
    with h5py.File(shard, "r+") as file:
        file["t0_fields/pressure"][0, 0, 0] = np.nan
    assert len(validate(tmp_path / "back").problems) == 3  # two hashes, and a value that is not finite


def test_training_and_test_samples_may_come_in_two_files(darcy, tmp_path):
    store = open_store(darcy)
    train_file = export(store, tmp_path / "train.pt", "neuraloperator", "train")
    test_file = export(store, tmp_path / "test.pt", "neuraloperator", "test")
    words = [f"out={tmp_path / 'back'}", "samples.validation=3", "shard.size=4", f"test={test_file}"]
    data_command(["import", str(train_file), "format=neuraloperator", *words])
    back = open_store(tmp_path / "back")
    assert back.sizes == {"train": 6, "validation": 3, "test": 2}
    for name in ("coefficient", "pressure"):
        np.testing.assert_array_equal(back.read("train", name), store.read("train", name, 0, 6))
        np.testing.assert_array_equal(back.read("validation", name), store.read("train", name, 6, 9))
        np.testing.assert_array_equal(back.read("test", name), store.read("test", name))
    assert back.family.source == "train.pt, test.pt"
    other, _ = made([("a", "input"), ("u", "output")], (12, 12))
    write_file(other, tmp_path / "other.pt", "neuraloperator")
    with pytest.raises(ValueError, match="holds other samples than the first file"):
        import_file(train_file, tmp_path / "no", "neuraloperator", test_file=tmp_path / "other.pt")


def test_an_import_that_was_cut_off_is_completed(darcy, tmp_path):
    path = export(open_store(darcy), tmp_path / "d.npz", "npz")
    import_file(path, tmp_path / "whole", "npz", shard_size=2)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    (tmp_path / "cut/manifest.json").unlink()
    for name in ("train/shard-00003.hdf5", "train/shard-00004.json"):
        (tmp_path / "cut" / name).unlink()
    written = []
    import_file(path, tmp_path / "cut", "npz", shard_size=2, on_shard=written.append)
    assert written == [2, 1]
    for file in (tmp_path / "whole").rglob("*.*"):
        other = tmp_path / "cut" / file.relative_to(tmp_path / "whole")
        assert file.is_dir() or file.name == ".lock" or other.read_bytes() == file.read_bytes()
    with pytest.raises(ValueError, match="another spec"):
        import_file(path, tmp_path / "cut", "npz", shard_size=3)


# What is refused -----------------------------------------------------------------------------------------------------


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


def write_malformed(name, path, good):
    """One of many broken or hostile files."""
    a = np.ones((4, 3, 3), "f4")
    if name.startswith("truncated"):
        path.write_bytes(good.read_bytes()[: int(0.6 * good.stat().st_size)])
    elif name.startswith("text"):
        path.write_text("not what the name says\n" * 100)
    elif name == "pickle .pt":
        torch.save({"x": Evil(), "y": torch.ones(4, 3, 3)}, path)
    elif name == "raw pickle .pt":
        path.write_bytes(pickle.dumps({"x": Evil(), "y": 1}))
    elif name == "list .pt":
        torch.save([torch.ones(4, 3)], path)
    elif name == "no y .pt":
        torch.save({"x": torch.ones(4, 3, 3)}, path)
    elif name == "counts .pt":
        torch.save({"x": torch.ones(4, 3, 3), "y": torch.ones(5, 3, 3)}, path)
    elif name == "complex .pt":
        torch.save({"x": torch.ones(4, 3, 3), "y": torch.ones(4, 3, 3, dtype=torch.complex64)}, path)
    elif name == "objects .npz":
        np.savez(path, a=np.array([Evil(), None], dtype=object), u=a)
    elif name == "shape .npz":
        np.savez(path, a=a, u=a[:, :2])
    elif name == "bomb .npz":
        np.savez_compressed(path, a=np.zeros((4, 300, 300), "f4"), u=a)
        size = (4, 30000, 30000)
        with zipfile.ZipFile(path) as archive:
            content = archive.read("a.npy")
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.npy", content.replace(b"(4, 300, 300), }", b"%s, }" % str(size).encode()))
            archive.writestr("u.npy", content)
    elif name == "cell .mat":
        scipy.io.savemat(path, {"coeff": np.array([a, "x"], dtype=object), "sol": a})
    elif name == "struct .mat":
        scipy.io.savemat(path, {"coeff": {"inner": a}, "sol": a})
    elif name == "shape .mat":
        scipy.io.savemat(path, {"coeff": a, "sol": a[:3]})
    elif name == "names .mat":
        scipy.io.savemat(path, {"k": a, "v": a})
    else:
        with h5py.File(path, "w") as file:
            x = np.arange(3.0)
            file["x-coordinate"], file["y-coordinate"] = x, x
            if name == "external link":
                file["tensor"], file["nu"] = a[:, None], h5py.ExternalLink(str(good), "nu")
            elif name == "soft link":
                file["tensor"], file["nu"] = a[:, None], h5py.SoftLink("/tensor")
            elif name == "external storage":
                (path.parent / "secret").write_bytes(bytes(144))
                file["tensor"] = a[:, None]
                file.create_dataset("nu", (4, 3, 3), "f4", external=[(str(path.parent / "secret"), 0, 144)])
            elif name == "virtual":
                file["tensor"] = a[:, None]
                layout = h5py.VirtualLayout((4, 3, 3), "f4")
                layout[:] = h5py.VirtualSource(str(good), "nu", (4, 3, 3))
                file.create_virtual_dataset("nu", layout)
            elif name == "objects":
                file["tensor"] = a[:, None]
                file.create_dataset("nu", (4, 3, 3), dtype=h5py.string_dtype())
            elif name == "absurd":
                file.create_dataset("tensor", (10**9, 1, 3, 3), "f4", chunks=(1, 1, 3, 3))
                file.create_dataset("nu", (10**9, 3, 3), "f4", chunks=(1, 3, 3))
            elif name == "shape":
                file["tensor"], file["nu"] = a[:, None], a[:, :2]
            elif name == "note":
                file["tensor"], file["nu"] = a[:, None], a
                note = {"grid": [9, 9], "declared": [{"name": "../a", "role": "input"}]}
                file.attrs[NOTE] = json.dumps(note)
            elif name == "note of another field":
                file["tensor"] = np.ones((4, 3, 3), "f4")
                roles = {"initial_u": "input", "k": "input", "u": "output"}
                declared = [{"name": field, "role": role} for field, role in roles.items()]
                note = {"grid": [3], "declared": declared, "frame_times": [0, 1, 2]}
                file.attrs[NOTE] = json.dumps(note)
            elif name == "no nu":
                file["tensor"] = a[:, None]


MALFORMED = {
    "truncated .hdf5": ("pdebench", "truncated"),
    "truncated .h5": ("pdebench_grouped", "truncated"),
    "truncated .nc": ("poseidon", "truncated"),
    "truncated .pt": ("neuraloperator", "truncated"),
    "truncated .mat": ("fno_mat", "damaged|truncated"),
    "truncated .npz": ("npz", "truncated"),
    "text .hdf5": ("pdebench", "not a readable HDF5 file"),
    "text .pt": ("neuraloperator", "pickled objects|not a file that torch.save"),
    "text .mat": ("fno_mat", "not a MATLAB file"),
    "text .npz": ("npz", r"not an \.npz archive"),
    "pickle .pt": ("neuraloperator", "pickled objects, which could run code"),
    "raw pickle .pt": ("neuraloperator", "pickled objects|not a file that torch.save"),
    "list .pt": ("neuraloperator", "dictionary of tensors x and y, got list"),
    "no y .pt": ("neuraloperator", "y is missing"),
    "counts .pt": ("neuraloperator", "x has 4 samples and y has 5"),
    "complex .pt": ("neuraloperator", "real numbers, got type complex64"),
    "objects .npz": ("npz", "pickled Python objects"),
    "shape .npz": ("npz", r"'u' must be \(4, 3, 3\), got \(4, 2, 3\)"),
    "bomb .npz": ("npz", "its size does not fit"),
    "cell .mat": ("fno_mat", "MATLAB cell"),
    "struct .mat": ("fno_mat", "MATLAB struct"),
    "shape .mat": ("fno_mat", r"'sol' must be \(4, 3, 3\), got \(3, 3, 3\)"),
    "names .mat": ("fno_mat", "it holds k, v"),
    "external link": ("pdebench", "'nu' is a link"),
    "soft link": ("pdebench", "'nu' is a link"),
    "external storage": ("pdebench", "in other files"),
    "virtual": ("pdebench", "in other files"),
    "objects": ("pdebench", "real numbers, got type object"),
    "absurd": ("pdebench", "but the file holds 0 of them"),
    "shape": ("pdebench", "nu must be"),
    "note": ("pdebench", "letters, digits and underscores"),
    "note of another field": ("pdebench", "'k' of the file does not have the shape"),
    "no nu": ("pdebench", "has no 'nu'"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_files_are_refused_in_a_sentence(name, tmp_path, capfd):
    layout, words = MALFORMED[name]
    samples, _ = made([("a", "input"), ("u", "output")], (16, 16), count=20)
    good = write_file(samples, tmp_path / f"good{FORMATS[layout].SUFFIX}", layout)
    path = tmp_path / f"bad{FORMATS[layout].SUFFIX}"
    write_malformed(name, path, good)
    named = Wanted(("a",), ("u",)) if name in ("shape .npz", "objects .npz", "bomb .npz") else Wanted()
    with pytest.raises(ValueError, match=words) as error:
        import_file(path, tmp_path / "out", layout, named)
    assert str(path) in str(error.value) or name == "note of another field"
    assert "weights_only" not in str(error.value)
    assert not (tmp_path / "out/manifest.json").exists()
    assert "code ran" not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["export", "{data}", "format=hdf", "out={tmp}/x"], "unknown format 'hdf'. Known: fno_mat, neuraloperator"),
        (["export", "{data}", "out={tmp}/x"], "needs format=. Formats: pdebench"),
        (["export", "{data}", "format=npz", "out={tmp}/no/x.npz"], "folder does not exist"),
        (["export", "{data}", "format=npz", "out={tmp}/x.npz", "splt=test"], "Did you mean 'split'"),
        (["export", "{data}", "format=npz", "out={tmp}/x.npz", "split=tset"], "Did you mean 'test'"),
        (["export", "{data}", "format=pdebench", "out={tmp}/x.h5"], "must end in .hdf5"),
        (["export", "{data}", "format=npz", "--out", "{tmp}/x.npz"], None),
        (["import", "{tmp}/none.npz", "format=npz", "out={tmp}/y"], "no such file"),
        (["import", "{file}", "format=npz", "out={tmp}/y", "samples.test=9"], "cannot be cut from a file of 9 samples"),
        (["import", "{file}", "format=npz", "out={tmp}/y", "samples.test=many"], "is no number"),
        (["import", "{file}", "format=npz", "out={tmp}/y", "boundary=walls"], "dirichlet, neumann, robin"),
        (["import", "{file}", "format=npz", "out={tmp}/y", "lengths=1,2,3"], "lengths must have one entry per axis"),
        (["import", "{file}", "format=npz", "out={tmp}/y", "store.dtype=float16"], "float32 or float64"),
        (["import", "{file}", "format=npz", "out={tmp}/y", "inputs=b", "outputs=pressure"], "has no array 'b'"),
        (["show", "{data}", "out={tmp}/x.jpg"], "must end in .png"),
        (["show", "{data}", "out={tmp}/x.png", "first=8"], "samples 8 to 11 are not there"),
        (["show", "{data}", "out={tmp}/x.png", "animation={tmp}/x.gif"], "steady: there is nothing to animate"),
    ],
)
def test_commands_refuse_in_a_sentence(darcy, tmp_path, capsys, words, sentence):
    export(open_store(darcy), tmp_path / "good.npz", "npz")
    places = {"data": darcy, "tmp": tmp_path, "file": tmp_path / "good.npz"}
    with pytest.raises(SystemExit) as stop:
        data_command([word.format(**places) for word in words])
    assert stop.value.code == 2
    if sentence is not None:
        assert sentence in capsys.readouterr().err
    left = {p.name for p in Path(tmp_path).iterdir()} - {"good.npz"}
    assert not left


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

    monkeypatch.setattr("datagen.interchange.folder.write_atomically", full)
    with pytest.raises(OSError, match="No space left"):
        import_file(file, tmp_path / "data", layout)


def test_what_a_killed_import_has_left_is_removed(darcy, tmp_path):
    file = export(open_store(darcy), tmp_path / "x.npz", "npz")
    whole = import_file(file, tmp_path / "data", "npz")
    shard = tmp_path / "data" / whole.shards[0].file
    shard.unlink()
    shard.with_name(f"{shard.name}.host-1.partial").write_bytes(b"half")
    import_file(file, tmp_path / "data", "npz")
    assert shard.exists()
    assert not list(tmp_path.rglob("*.partial"))
