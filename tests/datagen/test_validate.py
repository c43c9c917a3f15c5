"""Validation finds what is wrong, even where whoever broke the data also mended the hashes."""

import json
import shutil
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest

from datagen.commands.data import main as data_command
from datagen.family import Sample, build
from datagen.files import json_bytes, sha256_of_file
from datagen.generate import generate
from datagen.store import Spec
from datagen.validate import _Repeats, independent_system, validate

FIELD = "t0_fields/pressure"


@pytest.fixture(scope="module", params=["binary", "lognormal"])
def dataset(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / request.param
    spec = Spec(
        pde={"name": "darcy", "grid": 24, "coefficient": request.param},
        seed=11,
        samples={"train": 6, "validation": 2, "test": 2},
        shard_size=3,
        solver={"method": "direct", "rtol": 1e-8},
    )
    return generate(spec, folder, executor="serial")


@pytest.fixture
def copy(dataset, tmp_path):
    return Path(shutil.copytree(dataset, tmp_path / "copy"))


def tamper(folder, change, shard="train/shard-00000"):
    """Change a shard and mend its hashes in sidecar and manifest."""
    path = folder / f"{shard}.hdf5"
    with h5py.File(path, "r+") as file:
        change(file)
    sidecar = json.loads(path.with_suffix(".json").read_text())
    manifest = json.loads((folder / "manifest.json").read_text())
    sidecar["sha256"] = sha256_of_file(path)
    for entry in manifest["shards"]:
        if entry["file"] == f"{shard}.hdf5":
            entry["sha256"] = sidecar["sha256"]
    path.with_suffix(".json").write_bytes(json_bytes(sidecar))
    (folder / "manifest.json").write_bytes(json_bytes(manifest))


@pytest.mark.parametrize("coefficient", ["binary", "lognormal"])
@pytest.mark.parametrize(("dimension", "grid"), [(1, 9), (2, [7, 10]), (3, [4, 5, 6])])
def test_the_independent_scheme_is_the_same_scheme(coefficient, dimension, grid):
    family = build("darcy", grid=grid, dimension=dimension, coefficient=coefficient)
    sample = family.sample(np.random.default_rng(2))
    system = family.system(sample)
    A, b = independent_system(family, sample)
    # The two assemblies differ by the order of a handful of additions and divisions.
    np.testing.assert_allclose(A.toarray(), system.A.tocsr().toarray(), rtol=1e-13, atol=1e-13 * abs(A).max())
    np.testing.assert_array_equal(b, system.b)


def test_a_sound_dataset_passes_and_its_bound_is_close(dataset):
    report = validate(dataset, resolve=10, seed=1)
    assert report.sound, report.problems
    assert (report.samples, report.resolved) == (10, 10)
    assert not report.notes
    # The bound is not so loose that it would let much through: rounding reaches a good part of it.
    assert 0.05 < report.worst <= 1


def test_one_value_off_by_a_millionth_is_found(copy):
    def change(file):
        file[FIELD][1, 10, 10] *= np.float32(1 + 2e-6)

    tamper(copy, change)
    report = validate(copy, resolve=0)
    assert [p.split(":")[0] for p in report.problems] == ["train[1]"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f["t0_fields/coefficient"].__setitem__((2, 3, 3), 7.0), "residual"),
        (lambda f: f[FIELD].__setitem__((0, 0, 0), np.nan), "not finite"),
        (lambda f: f[FIELD].__setitem__(slice(None), f[FIELD][()][::-1]), "residual"),
        (lambda f: f["quality/relative_residual"].__setitem__(0, 1e-3), "exceeds the tolerance"),
        (lambda f: f["cost/iterations"].__setitem__(0, -1), "cost/iterations"),
        (lambda f: f.__delitem__(FIELD), "lacks t0_fields/pressure"),
        (lambda f: f.__delitem__("quality"), "lacks quality"),
        (lambda f: (f.move(FIELD, "old"), f.create_dataset(FIELD, data=np.zeros((3, 24, 23), "f4"))), "shape"),
        (lambda f: (f.move(FIELD, "old"), f.create_dataset(FIELD, data=f["old"][()].astype("f8"))), "float32"),
        (lambda f: f["t0_fields/coefficient"].__setitem__((0, 1, 1), -1.0), "residual"),
    ],
)
def test_wrong_content_with_mended_hashes_is_found(copy, change, words):
    tamper(copy, change)
    report = validate(copy, resolve=0)
    assert any(words in problem for problem in report.problems), report.problems


def test_a_consistent_sample_that_its_seed_does_not_give_is_found(copy):
    def change(file):  # one sample stored twice: solves its equation, passes every residual
        for name in ("coefficient", "pressure"):
            file[f"t0_fields/{name}"][1] = file[f"t0_fields/{name}"][0]

    tamper(copy, change)
    report = validate(copy, resolve=10)
    assert any("same inputs as train[0]" in problem for problem in report.problems)
    assert any("its seed gives another 'coefficient'" in problem for problem in report.problems)


def test_hashes_are_checked(copy):
    path = copy / "test/shard-00000.hdf5"
    with h5py.File(path, "r+") as file:
        file.attrs["dataset_name"] = "other"
    assert sum("SHA-256" in problem for problem in validate(copy, resolve=0).problems) == 2


def test_commands_print_and_exit_as_they_should(copy, capsys):
    data_command(["info", str(copy)])
    text = capsys.readouterr().out
    for words in ("darcy", "24 x 24", "train 6", "seed        11", "coefficient", "pressure", "worst"):
        assert words in text
    data_command(["validate", f"out={copy}"])
    assert "no faults found" in capsys.readouterr().out
    tamper(copy, lambda f: f[FIELD].__setitem__((0, 0, 0), 1.0))
    with pytest.raises(SystemExit) as stop:
        data_command(["validate", str(copy)])
    assert stop.value.code == 1
    assert "WRONG: train[0]" in capsys.readouterr().err
    (copy / "train/shard-00001.json").unlink()
    with pytest.raises(SystemExit) as stop:
        data_command(["merge", str(copy)])
    assert stop.value.code == 2
    assert "shard 1" in capsys.readouterr().err
    for words in (["info", str(copy / "nothing")], ["validate", str(copy / "train")]):
        with pytest.raises(SystemExit) as stop:
            data_command(words)
        assert stop.value.code == 2
        assert "error: " in capsys.readouterr().err


def _shifted(name):
    def change(file):
        values = file[name][()]
        file[name][...] = values + 1

    return change


def _deleted(name):
    def change(file):
        del file[name]

    return change


def _attribute(place, name, value):
    def change(file):
        file[place].attrs[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_shifted("provenance/sample"), "provenance/sample must be 0 to 2"),
        (_deleted("provenance/sample"), "lacks provenance/sample"),
        (_deleted("provenance/solver"), "lacks provenance/solver"),
        (_shifted("provenance/attempt"), "does not count the failed draws"),
        (_shifted("cost/work"), "sums of its costs"),
        (_deleted("cost/matvecs"), "sums of its costs"),
        (_shifted("dimensions/y"), "does not hold the coordinates of the grid"),
        (_shifted("boundary_conditions/x_wall/values"), "x_wall/values is not that of the family's sides"),
        (
            lambda f: f["boundary_conditions/x_wall/mask"].__setitem__(slice(0, 2), [False, True]),
            "x_wall/mask is not that",
        ),
        (_attribute("boundary_conditions/x_wall", "bc_type", "OPEN"), "of another type than WALL"),
        (lambda f: f.move("boundary_conditions/y_wall", "boundary_conditions/y_open"), "y_wall is missing"),
        (_shifted("quality/pressure_minimum"), "its recorded minimum of 'pressure'"),
        (_shifted("quality/pressure_maximum"), "its recorded maximum of 'pressure'"),
        (_deleted("quality/conservation_error"), "no record of its conservation_error"),
        (_attribute("/", "dataset_name", "darcie"), "'dataset_name' of / "),
        (_attribute("provenance", "split", "test"), "'split' of /provenance"),
        (_attribute("provenance", "spec", "{}"), "'spec' of /provenance"),
        (_attribute(FIELD, "units", "Pa"), "'units' of /t0_fields/pressure"),
    ],
)
def test_what_a_file_says_of_itself_is_held_against_the_rest(copy, change, words):
    tamper(copy, change)
    report = validate(copy, resolve=0)
    assert any(words in problem for problem in report.problems), report.problems


def test_shards_that_changed_places_are_found_without_drawing_again(copy):
    first, second = copy / "train/shard-00000.hdf5", copy / "train/shard-00001.hdf5"
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    tamper(copy, lambda file: None)
    tamper(copy, lambda file: None, "train/shard-00001")
    assert any("provenance/sample" in problem for problem in validate(copy, resolve=0).problems)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("failed_attempts", 7, "counts 7 failed draws"),
        ("totals", {"work": 1}, "has the totals"),
        ("shards", [{"file": "train/shard-00000.hdf5"}], "does not list the shards"),
    ],
)
def test_a_manifest_that_does_not_add_up_is_found(copy, key, value, words):
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_bytes(json_bytes({**manifest, key: value}))
    assert any(words in problem for problem in validate(copy, resolve=0).problems)


def test_failed_draws_that_a_sidecar_makes_up_are_found(copy):
    path = copy / "train/shard-00000.json"
    sidecar = json.loads(path.read_text())
    for failed in ({"0": ["because"]}, {"77": ["because"]}, {"0": 3}):
        path.write_bytes(json_bytes({**sidecar, "failed_attempts": failed}))
        report = validate(copy, resolve=0)
        assert any("failed" in problem for problem in report.problems), report.problems


def test_of_each_sample_a_few_bytes_are_kept():
    """To find repeats among ten thousand samples, in the order in which they were met."""
    repeats, rng = _Repeats(), np.random.default_rng(1)
    tracemalloc.start()
    for index in range(10_000):
        repeats.add(Sample({"a": rng.standard_normal(4)}, {"s": float(index)}), "train", index)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 40 * 10_000  # arrays grow by an eighth
    assert list(repeats.problems()) == []
    twin = Sample({"a": np.ones(4)}, {"s": 1.0})
    for split, index in (("validation", 3), ("test", 5), ("test", 6)):
        repeats.add(twin, split, index)
    found = list(repeats.problems())
    assert found == ["test[5] has the same inputs as validation[3]", "test[6] has the same inputs as test[5]"]
