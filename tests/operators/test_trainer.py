"""Training: exact resume, clean ends, honest choice of the best, and refusals."""

import csv
import io
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from operators import run_folder, trainer
from operators.checkpoint import FORMAT_VERSION, load_checkpoint, rebuild_model, save_checkpoint
from operators.data import load_split
from operators.losses import relative_l2
from operators.models import models
from operators.predict import load
from operators.trainer import TrainingDiverged, train


class NoisyModel(nn.Module):
    """Draws random numbers in training (dropout) and keeps running means (batch norm)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, 6, 1), nn.BatchNorm2d(6), nn.Dropout(0.3), nn.Conv2d(6, out_channels, 1)
        )

    def forward(self, x):
        return self.layers(x)


@pytest.fixture(autouse=True)
def _noisy_model(monkeypatch):
    monkeypatch.setitem(models._entries, "noisy", NoisyModel)


def assert_same(a, b, place="checkpoint"):
    """Equal to the last bit, tensors and plain values alike; seconds aside."""
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype, place
        assert torch.equal(a, b), place
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), place
        for key in a.keys() - {"seconds"}:
            assert_same(a[key], b[key], f"{place}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), place
        for number, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{place}[{number}]")
    else:
        assert a == b, place


def assert_same_run(first: Path, second: Path):
    for name in ("best.pt", "last.pt"):
        a, b = load_checkpoint(first / name), load_checkpoint(second / name)
        a.pop("config"), b.pop("config")  # they differ in `out`
        assert_same(a, b, name)


def terminate_in_epoch(monkeypatch, number):
    """Send this process SIGTERM as an epoch (counted from 1) begins."""
    original = trainer.epoch_batches

    def epoch_batches(samples, batch_size, seed, epoch):
        if epoch + 1 == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(samples, batch_size, seed, epoch)

    monkeypatch.setattr(trainer, "epoch_batches", epoch_batches)


VARIANTS = {
    "tfno": {},
    "noise": {"model": {"name": "noisy"}},
    "one_cycle": {"scheduler": {"name": "one_cycle"}, "optimizer": {"name": "adam", "lr": 1e-2}},
    "momentum": {"optimizer": {"name": "sgd", "lr": 1e-2, "momentum": 0.9}, "loss": "relative_h1"},
    "plateau": {"scheduler": {"name": "plateau", "patience": 0}, "optimizer": {"name": "complex_adamw", "lr": 1e-1}},
    "step": {"scheduler": {"name": "step"}, "optimizer": {"name": "soap", "precondition_frequency": 3}},
    "second_order": {"optimizer": {"name": "adahessian", "lr": 1e-2}},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_stopped_after_epoch_3_and_resumed_equals_an_unbroken_one(
    variant, make_config, make_store, tmp_path, monkeypatch
):
    changes = VARIANTS[variant]
    if variant in ("step", "second_order"):
        pytest.importorskip("pytorch_optimizer")
    unbroken = train(make_config(out=str(tmp_path / "unbroken"), **changes), make_store())
    assert unbroken.finished

    config = make_config(out=str(tmp_path / "broken"), **changes)
    with monkeypatch.context() as patch:
        terminate_in_epoch(patch, 4)
        stopped = train(config, make_store())
    assert not stopped.finished
    assert len(load_checkpoint(tmp_path / "broken" / "last.pt")["history"]) == 3
    torch.manual_seed(12345)  # whatever the process drew in between
    resumed = train(config, make_store())
    assert resumed.finished
    assert_same_run(tmp_path / "unbroken", tmp_path / "broken")


def test_the_comparison_of_runs_sees_one_bit(make_config, make_store, tmp_path):
    train(make_config(out=str(tmp_path / "a")), make_store())
    train(make_config(out=str(tmp_path / "b"), seed=1), make_store())
    with pytest.raises(AssertionError):
        assert_same_run(tmp_path / "a", tmp_path / "b")


def test_a_crash_between_best_and_last_repeats_the_epoch(make_config, make_store, tmp_path, monkeypatch):
    train(make_config(out=str(tmp_path / "unbroken")), make_store())
    original, config = run_folder.save_checkpoint, make_config(out=str(tmp_path / "crashed"))

    def crash(path, content):
        if path.name == "last.pt" and len(content["history"]) == 3:
            raise OSError("no space left on device")
        original(path, content)

    monkeypatch.setattr(run_folder, "save_checkpoint", crash)
    with pytest.raises(OSError, match="no space"):
        train(config, make_store())
    monkeypatch.setattr(run_folder, "save_checkpoint", original)
    train(config, make_store())
    assert_same_run(tmp_path / "unbroken", tmp_path / "crashed")


def test_sigterm_in_the_first_epoch_leaves_a_run_that_starts_over(make_config, make_store, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        terminate_in_epoch(patch, 1)
        assert not train(make_config(), make_store()).finished
    assert signal.getsignal(signal.SIGTERM) is before
    assert train(make_config(), make_store()).finished


def test_a_finished_run_is_left_alone(make_config, make_store, caplog):
    first = train(make_config(), make_store())
    contents = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in first.out.iterdir() if p.name != "metrics.csv"}
    with caplog.at_level("INFO"):
        again = train(make_config(), make_store())
    assert "nothing to do" in caplog.text
    assert again.finished
    assert again.history == first.history
    assert contents == {
        p: (p.stat().st_mtime_ns, p.read_bytes()) for p in first.out.iterdir() if p.name != "metrics.csv"
    }


def test_another_configuration_in_the_same_folder_is_refused_by_its_keys(make_config, make_store):
    train(make_config(trainer={"epochs": 1}), make_store())
    with pytest.raises(ValueError, match=r"model\.rank was 0\.5, now 0\.25; seed was 0, now 1\. Choose another out"):
        train(make_config(trainer={"epochs": 1}, seed=1, model={"rank": 0.25}), make_store())
    with pytest.raises(ValueError, match="trained on another dataset"):
        train(make_config(trainer={"epochs": 1}), make_store(seed=5))
    # Where it runs is no part of what it is.
    assert train(make_config(trainer={"epochs": 1, "device": "auto"}), make_store()).finished


def test_training_never_reads_the_test_split(make_config, make_store):
    assert train(make_config(), make_store(forbidden=("test",))).finished


def test_normalisers_see_training_data_only(make_config, make_store, tmp_path):
    store = make_store()
    train(make_config(out=str(tmp_path / "a"), trainer={"epochs": 1}), store)
    store.arrays["validation"]["source"] *= 7
    store.arrays["validation"]["solution"] += 7
    train(make_config(out=str(tmp_path / "b"), trainer={"epochs": 1}), store)
    a, b = (load_checkpoint(tmp_path / name / "last.pt") for name in "ab")
    assert_same(a["normalisers"], b["normalisers"])
    assert_same(a["model"], b["model"])
    # By hand, in double precision; the buffers are single.
    values = store.arrays["train"]["solution"].astype(float)
    assert a["normalisers"]["outputs"]["mean"].item() == pytest.approx(values.mean(), rel=1e-6)
    assert a["normalisers"]["outputs"]["standard_deviation"].item() == pytest.approx(values.std(), rel=1e-6)


def test_best_is_the_epoch_of_least_validation_error_in_physical_units(make_config, make_store):
    # A rate this large makes the error go up and down, so that the best is not simply the last.
    result = train(make_config(optimizer={"lr": 0.1}, scheduler={"name": "constant"}), make_store())
    recorded = [row["validation_relative_l2"] for row in result.history]
    assert recorded.index(min(recorded)) < len(recorded) - 1
    best = load(result.out / "best.pt", "cpu")
    validation = load_split(make_store(), "validation")
    prediction = torch.from_numpy(best.predict(validation.inputs.numpy()))
    # Training measures in standard deviations, prediction in physical units: single precision apart.
    assert relative_l2(prediction, validation.outputs).mean().item() == pytest.approx(min(recorded), rel=1e-5)
    assert result.best["validation_relative_l2"] == min(recorded)
    assert len(best.history) == recorded.index(min(recorded)) + 1


def test_it_learns_the_solution_operator(make_config, make_store):
    # u - 0.01 Laplacian u = 5 + f is diagonal in wavenumber: a Fourier layer can hold it exactly.
    config = make_config(trainer={"epochs": 25}, model={"positional_embedding": None, "rank": 1.0})
    result = train(config, make_store(sizes={"train": 64, "validation": 8, "test": 8}))
    store = make_store(sizes={"train": 64, "validation": 8, "test": 8})
    test = load_split(store, "test")
    predictor = load(result.out / "best.pt", "cpu")
    prediction = torch.from_numpy(predictor.predict(test.inputs.numpy()))
    fluctuation = relative_l2(prediction - 5, test.outputs - 5).mean().item()
    assert fluctuation < 0.1  # predicting the mean leaves 1
    # The same weights on a grid twice as fine meet the same operator.
    fine = load_split(make_store(shape=(32, 32), sizes={"train": 64, "validation": 8, "test": 8}), "test")
    prediction = torch.from_numpy(predictor.predict(fine.inputs.numpy()))
    assert relative_l2(prediction - 5, fine.outputs - 5).mean().item() < 1.2 * fluctuation


def test_metrics_csv_has_one_line_an_epoch(make_config, make_store):
    result = train(make_config(), make_store())
    with (result.out / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert set(rows[0]) == {
        "epoch", "train_loss", "validation_loss", "validation_relative_l2", "learning_rate", "seconds",
    }  # fmt: skip
    assert float(rows[-1]["learning_rate"]) == pytest.approx(0.0, abs=1e-12)  # the cosine ends at zero
    assert float(rows[2]["train_loss"]) == result.history[2]["train_loss"]
    assert (result.out / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert yaml.safe_load((result.out / "config.yaml").read_text()) == make_config()
    assert not list(result.out.glob("*.partial"))


@pytest.mark.parametrize("model", [{"name": "tfno"}, {"name": "noisy"}])
def test_a_loss_that_is_not_finite_is_named_early(model, make_config, make_store):
    given = {**make_config()["model"], **model} if model["name"] == "tfno" else model
    config = make_config(model=given, optimizer={"name": "sgd", "lr": 1e30}, scheduler={"name": "constant"})
    with pytest.raises(
        TrainingDiverged, match=r"in epoch 1, batch \d, at learning rate 1e\+30 \(step \d\)\. Try a smaller"
    ) as e:
        train(config, make_store())
    assert isinstance(e.value, FloatingPointError)  # a failure that the commands end with a sentence
    assert not (Path(config["out"]) / "last.pt").exists()


def test_the_callers_random_state_is_left_alone(make_config, make_store):
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    train(make_config(trainer={"epochs": 1}), make_store())
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainer": {"epochs": 0}}, "trainer.epochs must be a whole number of at least 1"),
        ({"trainer": {"gradient_clip": -1.0}}, "gradient_clip must be a positive norm"),
        ({"model": {"n_modes": [4]}}, "1 grid axes"),
        ({"model": {"hiden": 4}}, "has no argument 'hiden'"),
        ({"model": {"name": "gnot"}}, "unknown model 'gnot'"),
        ({"optimizer": {"name": "adamv"}}, "unknown optimizer 'adamv'"),
        ({"scheduler": {"name": "cosine", "warmup": 1.0}}, r"scheduler.warmup must be a fraction"),
        ({"loss": "l2"}, "unknown loss 'l2'"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(changes, message, make_config, make_store):
    config = make_config(**changes)
    with pytest.raises(ValueError, match=message):
        train(config, make_store())
    assert not Path(config["out"]).exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to run on")
def test_a_gpu_that_is_not_there_is_a_sentence(make_config, make_store):
    with pytest.raises(ValueError, match="torch sees no GPU"):
        train(make_config(trainer={"device": "cuda"}), make_store())


def test_a_checkpoint_alone_rebuilds_its_model(make_config, make_store):
    result = train(make_config(trainer={"epochs": 1}), make_store())
    content = load_checkpoint(result.out / "best.pt")
    assert content["format_version"] == FORMAT_VERSION
    assert content["model"]["arguments"]["lifting_channel_ratio"] == 2  # defaults are written out
    assert content["channels"]["outputs"] == [{"name": "solution", "units": "m", "description": ""}]
    assert content["training"] == {}
    assert yaml.safe_load(content["config"]) == make_config(trainer={"epochs": 1})
    x = torch.randn(1, 1, 16, 16)
    assert torch.equal(rebuild_model(content)(x), load(result.out / "best.pt", "cpu").operator.module(x))


class Malicious:
    """Would run code if it were unpickled."""

    def __reduce__(self):
        return (os.system, ("true",))


def test_checkpoints_that_are_not_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "none.pt")
    path = tmp_path / "x.pt"
    torch.save({"format_version": 1, "model": Malicious()}, path)
    with pytest.raises(ValueError, match="more than tensors and plain values"):
        load_checkpoint(path)
    path.write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        load_checkpoint(path)
    buffer = io.BytesIO()
    torch.save({"format_version": 1}, buffer)
    for content in (b"", b"text", buffer.getvalue()[:-100]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
            load_checkpoint(path)
    flipped = bytearray(buffer.getvalue())
    flipped[flipped.index(b"format_version")] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(ValueError, match="checksum"):
        load_checkpoint(path)
    torch.save({"weights": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="not a Southwell checkpoint"):
        load_checkpoint(path)
    torch.save({"format_version": FORMAT_VERSION + 1}, path)
    with pytest.raises(ValueError, match="upgrade southwell"):
        load_checkpoint(path)
    torch.save({"format_version": "1.0"}, path)
    with pytest.raises(ValueError, match=r"format_version '1\.0', which no version of southwell writes"):
        load_checkpoint(path)
    torch.save({"format_version": FORMAT_VERSION}, path)
    with pytest.raises(ValueError, match="holds no operator: it lacks channels, model, normalisers"):
        load(path, "cpu")


def test_a_checkpoint_of_another_version_of_its_model_is_a_sentence(make_config, make_store):
    result = train(make_config(trainer={"epochs": 1}), make_store())
    content = load_checkpoint(result.out / "best.pt")
    state = content["model"]["state"]
    state["lifting.second.weights"] = state.pop("lifting.second.weight")
    with pytest.raises(ValueError, match=r"are not those of model 'tfno' as it is here: Missing key.*second\.weight"):
        rebuild_model(content)
    content["model"]["name"] = "tfno2"
    with pytest.raises(ValueError, match=r"unknown model 'tfno2'\. Did you mean 'tfno'"):
        rebuild_model(content)


def test_saving_leaves_the_old_checkpoint_whole_if_it_fails(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "a.pt", {"value": 1})
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path / "a.pt", {"value": 2})
    assert load_checkpoint(tmp_path / "a.pt")["value"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


def test_a_second_trainer_in_the_same_folder_is_refused(make_config, make_store, tmp_path):
    config = make_config()
    out = Path(config["out"])
    out.mkdir(parents=True)
    hold = (
        "import sys, pathlib; from datagen.files import locked\n"
        f"with locked(pathlib.Path({str(out)!r}) / '.lock'):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    # POSIX locks exclude processes, so another one has to hold it.
    holder = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match="another process is training"):
        train(config, make_store())
    holder.kill()
    holder.wait()
    assert train(config, make_store()).finished


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_out_that_is_something_else_is_refused(kind, make_config, make_store, tmp_path):
    out = tmp_path / "thesis"
    if kind == "file":
        out.write_text("precious")
    else:
        out.mkdir()
        (out / "chapter.tex").write_text("precious")
    with pytest.raises(ValueError, match=r"is a file|holds no run"):
        train(make_config(out=str(out)), make_store())
    left = [path.name for path in tmp_path.rglob("*")]
    assert left == (["thesis"] if kind == "file" else ["thesis", "chapter.tex"])
