"""Samples to write in every format, and datasets to export."""

import numpy as np
import pytest

from datagen.generate import generate
from datagen.interchange import FORMATS, import_file, write_file
from datagen.interchange.samples import Samples, Wanted
from datagen.pdes.imported import Imported
from datagen.store import Spec
from operators.trainer import train


@pytest.fixture(scope="session")
def made():
    """What makes samples of noise."""
    return _made


def _made(fields, grid, dtype="float32", frame_times=None, count=6, **box):
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
# Fields and roles, grid, dtype, times of frames, box.
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


@pytest.fixture(params=CASES)
def case(request):
    """A name, and samples with their arrays."""
    fields, grid, dtype, frame_times, box = CASES[request.param]
    return request.param, *_made(fields, grid, dtype, frame_times, **box)


@pytest.fixture(scope="session")
def darcy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "darcy"
    samples = {"train": 9, "validation": 2, "test": 2}
    solver = {"method": "direct", "rtol": 1e-8}
    return generate(Spec({"name": "darcy", "grid": 12}, 3, samples, 4, solver), folder, executor="serial")


@pytest.fixture(scope="session")
def burgers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "burgers"
    pde = {"name": "burgers", "grid": 32, "nu": 0.1, "frames": 5, "final_time": 0.5}
    samples = {"train": 5, "validation": 1, "test": 1}
    return generate(Spec(pde, 3, samples, 2, {"method": "auto", "rtol": 1e-6}), folder, executor="serial")


@pytest.fixture(scope="session")
def trained_one_epoch():
    """Whether a small FNO trains on a dataset."""
    return _trained_one_epoch


def _trained_one_epoch(store, out):
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


@pytest.fixture
def refuses(tmp_path, capfd):
    """That a bad file ends an import in a sentence which names it, before anything of a dataset is finished."""

    def check(layout, path, words, wanted=None, names_the_file=True):
        with pytest.raises(ValueError, match=words) as error:
            import_file(path, tmp_path / "out", layout, wanted or Wanted())
        assert str(path) in str(error.value) or not names_the_file
        assert "weights_only" not in str(error.value)
        assert not (tmp_path / "out/manifest.json").exists()
        assert "code ran" not in capfd.readouterr().out

    return check


@pytest.fixture
def broken(tmp_path):
    """A file of a format that was cut off in the middle, or that is a text."""

    def make(layout, how):
        samples, _ = _made([("a", "input"), ("u", "output")], (16, 16), count=20)
        suffix = FORMATS[layout].SUFFIX
        good = write_file(samples, tmp_path / f"good{suffix}", layout)
        path = tmp_path / f"bad{suffix}"
        if how == "truncated":
            path.write_bytes(good.read_bytes()[: int(0.6 * good.stat().st_size)])
        else:
            path.write_text("not what the name says\n" * 100)
        return path

    return make


@pytest.fixture
def theirs():
    """Arrays of seven samples for files as the peers write them: two fields, and one of three frames."""
    rng = np.random.default_rng(1)
    a, u = rng.standard_normal((2, 7, 6, 5)).astype("f4")
    return a, u, rng.standard_normal((7, 3, 6, 5)).astype("f4")


@pytest.fixture
def reads():
    """That a file of seven samples on 6 x 5 points, without a note of ours, gives these arrays."""

    def check(layout, path, expected, wanted=None):
        with FORMATS[layout].read(path, wanted or Wanted()) as found:
            assert found.count == 7
            assert found.about.mesh.shape == (6, 5)
            for name, values in expected.items():
                np.testing.assert_array_equal(found.read(name, 1, 5), values[1:5])

    return check
