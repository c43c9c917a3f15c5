"""`southwell-data export`, `import` and `show`: what an import leaves behind, and what is refused."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest

from datagen.commands.data import main as data_command
from datagen.family import Sample, families
from datagen.generate import generate
from datagen.interchange import export, import_file, write_file
from datagen.pdes.darcy import Darcy
from datagen.store import Spec, open_store
from datagen.validate import validate


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


def test_training_and_test_samples_may_come_in_two_files(darcy, made, tmp_path):
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


def test_what_a_killed_import_has_left_is_removed(darcy, tmp_path):
    file = export(open_store(darcy), tmp_path / "x.npz", "npz")
    whole = import_file(file, tmp_path / "data", "npz")
    shard = tmp_path / "data" / whole.shards[0].file
    shard.unlink()
    shard.with_name(f"{shard.name}.host-1.partial").write_bytes(b"half")
    import_file(file, tmp_path / "data", "npz")
    assert shard.exists()
    assert not list(tmp_path.rglob("*.partial"))
