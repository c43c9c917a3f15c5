"""What the trainer group promises: exact resume after a kill, streaming, workers, precision, averages, early ends."""

import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from operators import trainer
from operators.averaging import WeightAverage
from operators.checkpoint import load_checkpoint
from operators.data import Fields, GaussianNormaliser, load_split
from operators.loader import Loader, epoch_batches
from operators.losses import losses, relative_l2
from operators.models import models
from operators.predict import load
from operators.settings import Settings
from operators.tasks import StaticTask
from operators.trainer import TrainingDiverged, train


class Dropping(nn.Module):
    """Draws random numbers in training (dropout) and keeps running means (batch norm)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, 6, 1), nn.BatchNorm2d(6), nn.Dropout(0.3), nn.Conv2d(6, out_channels, 1)
        )

    def forward(self, x):
        return self.layers(x)


@pytest.fixture(autouse=True)
def _dropping(monkeypatch):
    monkeypatch.setitem(models._entries, "dropping", Dropping)


def assert_same(a, b, place="checkpoint"):
    """Equal to the last bit, tensors and plain values alike; seconds aside."""
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype, place
        assert torch.equal(a, b), place
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), place
        for key in a.keys() - {"seconds", "config"}:
            assert_same(a[key], b[key], f"{place}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), place
        for number, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{place}[{number}]")
    else:
        assert a == b, place


def assert_same_run(first: Path, second: Path):
    for name in ("best.pt", "last.pt"):
        assert_same(load_checkpoint(first / name), load_checkpoint(second / name), name)


def in_a_process_of_its_own(work):
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    return process.exitcode


def killed_at_step(number, config, store):
    """Train in another process that gets SIGKILL as its step of this number (counted from 1) begins."""

    def work():
        done, original = [], trainer._Training._step

        def step(self, parts, size):
            done.append(1)
            if len(done) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(self, parts, size)

        trainer._Training._step = step
        train(config, store)

    return in_a_process_of_its_own(work)


VARIANTS = {
    "tfno": {},
    "random numbers": {"model": {"name": "dropping"}},
    "average": {"trainer": {"ema": 0.9}},
    "parts and workers from disk": {
        "trainer": {"accumulate": 2, "loader_workers": 2},
        "dataset": {"memory_gb": 0.0},
        "model": {"name": "dropping"},
    },
    "plateau": {"scheduler": {"name": "plateau", "patience": 0}},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_killed_within_an_epoch_and_repeated_a_run_has_the_bits_of_an_unbroken_one(
    variant, make_config, make_store, tmp_path
):
    changes = VARIANTS[variant]
    settings = {"epochs": 3, "checkpoint_minutes": 0, **changes.get("trainer", {})}
    unbroken = make_config(**{**changes, "trainer": settings}, out=str(tmp_path / "unbroken"))
    broken = {**unbroken, "out": str(tmp_path / "broken")}
    assert train(unbroken, make_store()).finished
    # 24 samples in batches of 5: step 3 is within epoch 1; 5 steps later, within epoch 2 or 3.
    assert killed_at_step(3, broken, make_store()) == -signal.SIGKILL
    assert load_checkpoint(tmp_path / "broken" / "last.pt")["training"]["progress"]["batches"] == 2
    assert killed_at_step(7, broken, make_store()) == -signal.SIGKILL
    last = load_checkpoint(tmp_path / "broken" / "last.pt")
    assert (len(last["history"]), last["training"]["progress"]["batches"]) == (1, 3)
    torch.manual_seed(99)  # whatever the process drew in between
    assert train(broken, make_store()).finished
    assert_same_run(tmp_path / "unbroken", tmp_path / "broken")
    assert not list((tmp_path / "broken").glob("*.partial"))


def test_sigterm_within_an_epoch_keeps_its_batches(make_config, make_store, tmp_path, monkeypatch):
    train(make_config(out=str(tmp_path / "unbroken")), make_store())
    original, config = trainer._Training._step, make_config(out=str(tmp_path / "broken"))
    steps = []

    def step(self, parts, size):
        steps.append(1)
        if len(steps) == 8:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, parts, size)

    monkeypatch.setattr(trainer._Training, "_step", step)
    stopped = train(config, make_store())
    assert (stopped.finished, stopped.stopped, len(stopped.history)) == (False, "SIGTERM", 1)
    assert load_checkpoint(tmp_path / "broken" / "last.pt")["training"]["progress"]["batches"] == 3
    assert train(config, make_store()).finished
    assert len(steps) == 25  # none was computed twice
    assert_same_run(tmp_path / "unbroken", tmp_path / "broken")


def test_a_time_budget_stops_cleanly_and_the_same_call_goes_on(make_config, make_store, tmp_path):
    train(make_config(out=str(tmp_path / "unbroken"), trainer={"epochs": 2}), make_store())
    # A budget of no time at all: each call does one step.
    config = make_config(out=str(tmp_path / "broken"), trainer={"epochs": 2, "max_minutes": 0.0})
    first = train(config, make_store())
    assert (first.finished, first.stopped) == (False, "time")
    best = load(tmp_path / "broken" / "best.pt", "cpu")  # there is something to evaluate
    prediction = torch.from_numpy(best.predict(load_split(make_store(), "validation").inputs.numpy()))
    truth = load_split(make_store(), "validation").outputs
    recorded = best.history[0]["validation_relative_l2"]
    assert relative_l2(prediction, truth).mean().item() == pytest.approx(recorded, rel=1e-5)
    results = [train(config, make_store()) for _ in range(9)]
    assert not any(result.finished for result in results)  # the tenth step was the last, its epoch's end is to come
    assert train(make_config(out=str(tmp_path / "broken"), trainer={"epochs": 2}), make_store()).finished
    assert_same_run(tmp_path / "unbroken", tmp_path / "broken")


@pytest.mark.parametrize("workers", [1, 2])
def test_the_result_does_not_depend_on_who_reads(workers, make_config, make_store, tmp_path):
    model = {"name": "dropping"}  # whose random numbers a loader must not touch
    train(make_config(out=str(tmp_path / "a"), model=model), make_store())
    changes = {"trainer": {"loader_workers": workers}, "dataset": {"memory_gb": 0.0}}
    train(make_config(out=str(tmp_path / "b"), model=model, **changes), make_store())
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_workers_hand_over_what_is_wrong_with_the_data(make_config, make_store):
    store = make_store()
    task = StaticTask(store, memory_gb=0.0)
    store.arrays["train"]["solution"][5] = np.nan
    loader = Loader(task.examples("train"), workers=1, pin_memory=False)
    with pytest.raises(ValueError, match=r"^dataset memory: train sample 5 of field 'solution' is not finite"):
        list(loader.batches(epoch_batches(24, 4, 0, 0)))


def test_streamed_fields_are_those_in_memory_and_read_no_more_than_asked_for(make_store):
    store = make_store()
    reads, original = [], store.read

    def read(split, name, start=0, stop=None, frame=None):
        reads.append((start, stop))
        return original(split, name, start, stop, frame)

    kept = Fields(store, "train", ["source", "solution"])
    store.read = read
    streamed = Fields(store, "train", ["source", "solution"], keep=False)
    assert reads == []
    indices = torch.tensor([7, 3, 4, 20, 5])
    assert torch.equal(streamed[indices], kept[indices])
    assert sorted(set(reads)) == [(3, 6), (7, 8), (20, 21)]  # neighbours in one piece
    assert torch.equal(torch.cat(list(streamed.chunks())), kept[torch.arange(24)])


def test_normalisers_measured_in_passing_have_the_moments_of_the_whole(make_store):
    generator = np.random.default_rng(3)
    fields = torch.from_numpy(generator.normal(size=(50, 2, 9)) * np.array([[1.0], [1e-4]]) + 7)
    passing = GaussianNormaliser.measure(fields.split([1, 13, 30, 6]))
    np.testing.assert_allclose(passing.mean, fields.mean(dim=(0, 2)), rtol=1e-14)
    # Chan's update is exact; each of its terms rounds once: a few units of the last digit of squares of 1e-8, whose
    # deviations from a mean of 7 carry 1e-12 of rounding.
    np.testing.assert_allclose(passing.standard_deviation, fields.std(dim=(0, 2), correction=0), rtol=1e-10)


def test_parts_of_a_batch_add_up_to_its_step(make_config, make_store, tmp_path):
    # SGD: Adam divides by the gradient, and would show rounding where that is nearly zero.
    optimizer = {"name": "sgd", "lr": 1e-2}
    whole = train(make_config(out=str(tmp_path / "a"), optimizer=optimizer), make_store())
    parts = train(
        make_config(out=str(tmp_path / "b"), optimizer=optimizer, trainer={"accumulate": 3, "batch_size": 5}),
        make_store(),
    )
    for a, b in zip(whole.history, parts.history, strict=True):
        # 25 steps of single precision: sums in another order, each rounding 6e-8.
        assert b["train_loss"] == pytest.approx(a["train_loss"], rel=1e-5)
        assert b["validation_loss"] == pytest.approx(a["validation_loss"], rel=1e-5)


def test_half_precision_reaches_linear_layers_but_not_spectral_ones(make_config, make_store, monkeypatch):
    from operators.layers.pointwise import ChannelMLP
    from operators.layers.spectral_convolution import SpectralConvolution

    seen = {ChannelMLP: set(), SpectralConvolution: set()}

    def watch(module, inputs, output):
        if type(module) in seen:
            seen[type(module)].add((module.training, output.dtype))

    handle = nn.modules.module.register_module_forward_hook(watch)
    try:
        half = train(make_config(trainer={"precision": "bf16"}), make_store())
    finally:
        handle.remove()
    assert (True, torch.bfloat16) in seen[ChannelMLP]
    assert {dtype for _, dtype in seen[SpectralConvolution]} == {torch.float32}
    assert {dtype for training, dtype in seen[ChannelMLP] if not training} == {torch.float32}  # validation
    weights = load_checkpoint(half.out / "best.pt")["model"]["state"]
    assert {value.dtype for value in weights.values()} == {torch.float32}
    assert half.history[-1]["train_loss"] < half.history[0]["train_loss"]


@pytest.mark.slow  # compiles for half a minute
def test_a_compiled_model_learns_what_a_plain_one_does(make_config, make_store, tmp_path):
    optimizer = {"name": "sgd", "lr": 1e-2}
    plain = train(make_config(out=str(tmp_path / "a"), optimizer=optimizer), make_store())
    compiled = train(make_config(out=str(tmp_path / "b"), optimizer=optimizer, trainer={"compile": True}), make_store())
    for a, b in zip(plain.history, compiled.history, strict=True):
        assert b["train_loss"] == pytest.approx(a["train_loss"], rel=1e-5)
    assert load_checkpoint(compiled.out / "best.pt")["model"]["state"].keys() == (
        load_checkpoint(plain.out / "best.pt")["model"]["state"].keys()
    )


def test_the_average_is_its_formula():
    torch.manual_seed(4)
    model = nn.Linear(3, 2)
    average, decay = WeightAverage(model, 0.8), 0.8
    expected = model.weight.detach().clone()
    for step in range(30):
        with torch.no_grad():
            model.weight += torch.randn(2, 3)
        average.update()
        d = min(decay, (1 + step) / (10 + step))
        expected = d * expected + (1 - d) * model.weight.detach()
    torch.testing.assert_close(average.weights["weight"], expected)
    trained = model.weight.detach().clone()
    with average.in_place():
        torch.testing.assert_close(model.weight.detach(), expected)
    assert torch.equal(model.weight, trained)


def test_averaged_weights_are_what_is_validated_and_stored(make_config, make_store):
    config = make_config(trainer={"ema": 0.95}, optimizer={"lr": 3e-2}, scheduler={"name": "constant"})
    result = train(config, make_store())
    last = load_checkpoint(result.out / "last.pt")
    assert not torch.equal(
        last["model"]["state"]["lifting.first.weight"], last["training"]["weights"]["lifting.first.weight"]
    )
    validation = load_split(make_store(), "validation")
    prediction = torch.from_numpy(load(result.out / "last.pt", "cpu").predict(validation.inputs.numpy()))
    error = relative_l2(prediction, validation.outputs).mean().item()
    assert error == pytest.approx(result.history[-1]["validation_relative_l2"], rel=1e-5)


def test_patience_ends_a_run_that_gets_no_better(make_config, make_store, monkeypatch, caplog):
    sequence = iter([0.5, 0.3, 0.4, 0.35, 0.3, 0.2])

    def validate(self):
        value = next(sequence)
        return {"validation_loss": value, "validation_relative_l2": value}

    monkeypatch.setattr(trainer._Training, "_validate", validate)
    config = make_config(trainer={"epochs": 6, "patience": 3})
    result = train(config, make_store())
    assert (result.finished, len(result.history), result.best["epoch"]) == (True, 5, 2)  # an equal loss is no better
    with caplog.at_level("INFO"):
        assert train(config, make_store()).history == result.history
    assert "nothing to do" in caplog.text


def test_a_loss_gone_nan_is_named_and_the_last_good_state_kept(make_config, make_store, monkeypatch):
    calls = []

    def failing(prediction, target, periodic=None):
        if prediction.requires_grad:  # a step, not a validation
            calls.append(1)
        factor = float("nan") if len(calls) == 8 else 1.0  # the third of the second epoch, of 5 each
        return factor * relative_l2(prediction, target)

    monkeypatch.setitem(losses._entries, "failing", failing)
    config = make_config(loss="failing")
    message = r"loss is nan .* in epoch 2, batch 3, at learning rate 0\.00\d+ \(step 8\).*last\.pt holds the last state"
    with pytest.raises(TrainingDiverged, match=message):
        train(config, make_store())
    last = load_checkpoint(Path(config["out"]) / "last.pt")
    assert len(last["history"]) == 1
    assert all(value.isfinite().all() for value in last["model"]["state"].values())
    assert load(Path(config["out"]) / "best.pt", "cpu")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": 16}, "trainer.precision=16 is for GPUs"),
        ({"precision": "fp8"}, "trainer.precision must be one of 32, bf16, 16, got 'fp8'"),
        ({"distributed": "zero"}, "trainer.distributed must be one of ddp, fsdp"),
        ({"accumulate": 0}, "trainer.accumulate must be a whole number of at least 1, got 0"),
        ({"patience": 1.5}, "trainer.patience must be a whole number of at least 1, got 1.5"),
        ({"ema": 1.0}, r"trainer.ema must be a decay in \[0, 1\)"),
        ({"max_minutes": -1}, "trainer.max_minutes must not be negative"),
        ({"loader_workers": -1}, "trainer.loader_workers must not be negative"),
        ({"loader_workers": 1.5}, "trainer.loader_workers must be int, got 1.5"),
        ({"compile": "yes"}, "trainer.compile must be bool, got 'yes'"),
        ({"device": "gpu"}, "device must be auto, cpu or cuda, got 'gpu'"),
        ({"epoch": 3}, "trainer has no setting 'epoch'. Did you mean 'epochs'"),
    ],
)
def test_settings_that_make_no_sense_are_sentences(settings, message, make_config, make_store):
    config = make_config(trainer=settings)
    with pytest.raises(ValueError, match=message):
        train(config, make_store())
    assert not Path(config["out"]).exists()


def test_every_setting_is_in_the_yaml():
    import yaml

    import configs

    path = Path(configs.__file__).parent / "trainer" / "standard.yaml"
    assert Settings.of(yaml.safe_load(path.read_text())) == Settings()


def test_how_a_run_computes_may_change_between_calls_and_what_it_computes_may_not(make_config, make_store):
    train(make_config(trainer={"epochs": 1}), make_store())
    same = {"epochs": 1, "loader_workers": 1, "max_minutes": 5, "checkpoint_minutes": 1, "precision": 32}
    assert train(make_config(trainer=same, dataset={"memory_gb": 0.0}), make_store()).finished
    with pytest.raises(ValueError, match=r"trainer\.ema was None, now 0\.9; trainer\.precision was 32, now 'bf16'"):
        train(make_config(trainer={"epochs": 1, "ema": 0.9, "precision": "bf16"}), make_store())
    with pytest.raises(ValueError, match=r"task\.name was 'static', now 'other'"):
        train(make_config(trainer={"epochs": 1}, task={"name": "other"}), make_store())


def test_a_last_checkpoint_of_another_model_is_refused(make_config, make_store, tmp_path):
    train(make_config(out=str(tmp_path / "a"), trainer={"epochs": 2}), make_store())
    config = make_config(out=str(tmp_path / "b"), trainer={"epochs": 2}, model={"hidden_channels": 6})
    train(config, make_store())
    (tmp_path / "b" / "last.pt").write_bytes((tmp_path / "a" / "last.pt").read_bytes())
    with pytest.raises(ValueError, match=r"last\.pt in .* holds another model"):
        train(config, make_store())
    best = tmp_path / "a" / "best.pt"
    (tmp_path / "a" / "last.pt").write_bytes(best.read_bytes())
    with pytest.raises(ValueError, match="holds no state to resume from"):
        train(make_config(out=str(tmp_path / "a"), trainer={"epochs": 2}), make_store())
