"""Mixtures: every dataset is learned as if it were alone, in its own units; draws, resumption, and what comes of it."""

import numpy as np
import pytest
import torch

from operators.checkpoint import load_checkpoint
from operators.losses import relative_l1, relative_l1_by_group, relative_l2
from operators.mixture import Mixture, open_datasets, part_of
from operators.models import FNO, models
from operators.operator import Operator
from operators.predict import load
from operators.tasks import MixtureTask, TimePairsTask
from operators.trainer import train

FNO_1D = {"name": "fno", "n_modes": [6], "hidden_channels": 8, "n_layers": 2}


class Renamed:
    """A store whose evolving field has another name, unit and offset, and a second one that evolves beside it."""

    def __init__(self, store, path="others"):
        self.store, self.path = store, path
        field = type(store.fields[0])
        self.fields = (
            field("initial_v", "input"),
            field("initial_w", "input"),
            field("fixed", "input"),
            field("v", "output"),
            field("w", "output"),
        )
        self.spec = {"pde": {"name": path}}

    def __getattr__(self, name):
        return getattr(self.store, name)

    def read(self, split, name, start=0, stop=None, frame=None):
        if name == "fixed":
            return self.store.read(split, name, start, stop)
        wave = self.store.read(split, name.replace("v", "u").replace("w", "u"), start, stop, frame)
        return 100 + 7 * wave if name.endswith("v") else -0.5 * wave


@pytest.fixture
def stores(make_waves):
    others = make_waves(frames=7, forced=True, spacing=1.5, sizes={"train": 3, "validation": 2, "test": 2})
    return [make_waves(frames=5), Renamed(others)]


@pytest.fixture
def make_task(stores):
    def make(weights=None, name="time_pairs", **arguments):
        return MixtureTask(name, Mixture(stores, weights), **arguments)

    return make


class Mixing(torch.nn.Module):
    """Every output depends on every input, on the lead time and on the place."""

    conditioned_on_time = True

    def __init__(self, in_channels=3, out_channels=3):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(out_channels, in_channels))

    def forward(self, fields, time):
        mixed = torch.einsum("oi,bi...->bo...", self.weight, fields)
        return mixed.roll(1, -1) * (1 + time.reshape(-1, 1, 1))


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("loss", [relative_l2, relative_l1])
def test_each_example_costs_what_it_costs_in_a_task_of_its_dataset_alone(shifted, loss, stores, make_task):
    task = make_task(shifted=shifted)
    assert [c.name for c in task.inputs] == ["u", "v", "w", "fixed"]
    assert [c.name for c in task.outputs] == ["u", "v", "w"]
    module = Mixing(4, 3)
    model = Operator(module, *task.normalisers())
    examples = task.examples("train")
    firsts = [0, len(TimePairsTask(stores[0]).examples("train"))]
    for store, first, inputs, outputs in zip(stores, firsts, [[0], [1, 2, 3]], [[0], [1, 2]], strict=True):
        alone = TimePairsTask(store, shifted=shifted)
        alone.conditioned_on_time = True
        part = Mixing()
        part.weight = torch.nn.Parameter(module.weight[outputs][:, inputs])
        indices = torch.arange(0, len(alone.examples("train")), 3)
        expected = alone.loss(Operator(part, *alone.normalisers()), alone.examples("train").batch(indices), loss)
        found = task.loss(model, examples.batch(first + indices), loss)
        assert found.mean(dim=1).allclose(expected.mean(dim=1), rtol=1e-4)  # single precision around the mean 100
    # In one batch with others, in any order: the same numbers.
    indices = torch.tensor([firsts[1] + 5, 2, firsts[1], 7])
    together = task.loss(model, examples.batch(indices), loss)
    for index, cost in zip(indices, together, strict=True):
        assert cost.allclose(task.loss(model, examples.batch(index[None]), loss)[0], rtol=1e-5)


def test_channels_that_a_dataset_lacks_have_no_gradient_and_no_error(make_task):
    task = make_task()
    model = Operator(Mixing(4, 3), *task.normalisers())
    batch = task.examples("train").batch(torch.arange(4))  # of the first dataset, whose only channel is u
    task.loss(model, batch, relative_l1_by_group).sum().backward()
    gradient = model.module.weight.grad
    assert gradient[0, 0].abs() > 0
    assert torch.equal(gradient[1:], torch.zeros_like(gradient[1:]))
    assert torch.equal(gradient[:, 1:], torch.zeros_like(gradient[:, 1:]))
    # Predicting zero instead of shifted fields costs 1, however few of the channels are there.
    zero = torch.zeros_like(batch.targets)
    assert batch.average(relative_l2(zero, batch.targets)).item() == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize("weights", [None, [1.0, 1.0], [3, 1]])
def test_an_epoch_draws_its_shares_and_every_example_equally_often(weights, make_task):
    examples = make_task(weights).examples("train")
    sizes, total = examples.counts, sum(examples.counts)
    drawn = [examples.drawn(seed=5, epoch=epoch) for epoch in range(9)]
    shares = np.array(sizes if weights is None else weights, float)
    expected = total * shares / shares.sum()
    everything = np.concatenate(drawn)
    for number, (size, count) in enumerate(zip(sizes, expected, strict=True)):
        mine = everything[(everything >= examples.firsts[number]) & (everything < examples.firsts[number + 1])]
        assert abs(len(mine) / 9 - count) <= 0.5
        often = np.bincount(mine - examples.firsts[number], minlength=size)
        assert often.max() - often.min() <= 1
    assert len(drawn[0]) == len(examples)
    assert not np.array_equal(np.sort(drawn[0])[:: len(sizes)], drawn[0][:: len(sizes)])  # mixed, in random order
    assert np.array_equal(drawn[4], make_task(weights).examples("train").drawn(5, 4))
    assert not np.array_equal(drawn[4], examples.drawn(6, 4))


def test_a_steady_dataset_beside_evolutions_has_lead_time_1(stores, make_waves):
    class Steady(Renamed):
        evolves, times = False, np.zeros(1)

        def __init__(self, store):
            super().__init__(store, "steady")
            field = type(store.fields[0])
            self.fields = (field("fixed", "input"), field("p", "output"))

        def read(self, split, name, start=0, stop=None, frame=None):
            return self.store.read(split, "u" if name == "p" else name, start, stop, frame=None if name != "p" else 2)

    steady = Steady(make_waves(forced=True))
    task = MixtureTask("time_pairs", Mixture([stores[0], steady]))
    batch = task.examples("train").batch(torch.tensor([len(TimePairsTask(stores[0]).examples("train")) + 1]))
    assert batch.lead_time.tolist() == [1.0]
    assert [c.name for c in task.outputs] == ["u", "p"]
    assert batch.weight.tolist() == [[0.0, 2.0]]


def test_a_run_is_resumed_with_the_same_bits_and_predicts_in_the_units_of_each_part(
    stores, make_config, tmp_path, make_waves
):
    changes = dict(model=FNO_1D, task={"name": "time_pairs"}, loss="relative_l1")
    config = make_config(**changes, trainer={"epochs": 3, "batch_size": 20}, out=str(tmp_path / "whole"))
    whole = train(config, Mixture(stores, [1, 2]))
    assert whole.finished
    broken = {**config, "out": str(tmp_path / "broken")}
    for _ in range(50):
        stop_soon = {**broken, "trainer": {**config["trainer"], "max_minutes": 0.0, "checkpoint_minutes": 0.0}}
        if train(stop_soon, Mixture(stores, [1, 2])).finished:
            break
    first, second = (load_checkpoint(tmp_path / name / "last.pt") for name in ("whole", "broken"))
    for name, value in first["model"]["state"].items():
        assert torch.equal(value, second["model"]["state"][name]), name
    with pytest.raises(ValueError, match="another dataset"):
        train(broken, Mixture(stores[::-1], [1, 2]))

    best = tmp_path / "whole" / "best.pt"
    with pytest.raises(ValueError, match=r"trained on a mixture.*0: waves, 1: others"):
        load(best)
    with pytest.raises(ValueError, match="got 2"):
        load(best, part=2)
    predictor = load(best, part=1)
    assert [c.name for c in predictor.inputs] == ["v", "w", "fixed"]
    assert [c.name for c in predictor.outputs] == ["v", "w"]
    assert predictor.step == pytest.approx(1.5)
    # The answer in physical units gives the validation error that training reports.
    totals = []
    for number, store in enumerate(stores):
        one, alone = load(best, part=number), TimePairsTask(store)
        alone.conditioned_on_time = True
        examples = alone.examples("validation")
        batch = examples.batch(torch.arange(len(examples)))
        answer = torch.from_numpy(one.predict(batch.inputs.numpy(), batch.lead_time.numpy() * one.time_scale))
        deviation = alone.normalisers()[1]
        totals.append(relative_l2(deviation.scale(answer), deviation.scale(batch.targets)).mean(dim=1))
    expected = torch.cat(totals).mean().item()
    assert whole.best["validation_relative_l2"] == pytest.approx(expected, rel=1e-4)


def test_the_part_of_a_dataset_is_found_by_its_spec_or_its_family():
    import json

    def part(**pde):
        return {"dataset": {"spec": json.dumps({"pde": pde, "seed": 1})}}

    content = {"mixture": [part(name="euler", setup="a"), part(name="euler", setup="b"), part(name="ns")]}
    assert part_of(content, {"pde": {"name": "euler", "setup": "b"}, "seed": 9}) == 1
    assert part_of(content, {"pde": {"name": "ns", "nu": 2}, "seed": 1}) == 2
    assert part_of(content, {"pde": {"name": "euler", "setup": "c"}, "seed": 1}) is None
    assert part_of({}, {"pde": {"name": "ns"}}) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda stores: Mixture(stores[:1]), "two datasets or more, got 1"),
        (lambda stores: Mixture([stores[0], stores[0]]), "names one dataset twice"),
        (lambda stores: Mixture(stores, [1.0]), "a positive number for each of the 2 datasets"),
        (lambda stores: Mixture(stores, [1.0, 0.0]), "a positive number for each"),
        (lambda stores: MixtureTask("linear_system", Mixture(stores)), "task time_pairs or static"),
        (lambda stores: MixtureTask("time_pairs", Mixture(stores), steps=2), "operators learn one step"),
        (lambda stores: MixtureTask("time_pairs", Mixture(stores), masked=["q"]), "'q' is no output of waves, others"),
        (lambda stores: open_datasets({"path": "a", "weights": [1]}), "is one dataset"),
        (lambda stores: open_datasets({"path": ["/no/a", "/no/b"]}), "no dataset at /no/a"),
    ],
)
def test_what_does_not_fit_is_a_sentence(change, message, stores):
    with pytest.raises(ValueError, match=message):
        change(stores)


def test_grids_must_agree(make_waves):
    fine = make_waves(shape=(64,), path="fine")
    with pytest.raises(ValueError, match="waves 32, fine 64"):
        Mixture([make_waves(), fine])


# ------------------------------------------------------------------------------------------- pretrained operators


def test_new_channels_replace_the_layers_that_depend_on_them_and_nothing_else(make_config, make_store, tmp_path):
    scot = {
        "name": "scot",
        "embed_dim": 8,
        "depths": [1, 1],
        "num_heads": [1, 2],
        "skip_connections": [1, 0],
        "window_size": 4,
    }
    train(make_config(model=scot, trainer={"epochs": 1, "batch_size": 12}), make_store())
    path = str(tmp_path / "run" / "best.pt")
    before = load_checkpoint(path)["model"]["state"]
    same = models.build("pretrained", path=path, in_channels=1, out_channels=1)
    assert all(torch.equal(value, before[name]) for name, value in same.state_dict().items())
    other = models.build("pretrained", path=path, in_channels=3, out_channels=2)
    changed = {name for name, value in other.state_dict().items() if value.shape != before[name].shape}
    assert changed == {
        "embeddings.patch_embeddings.projection.weight",
        "patch_recovery.projection.weight",
        "patch_recovery.projection.bias",
        "patch_recovery.mixup.weight",
    }
    assert all(torch.equal(value, before[n]) for n, value in other.state_dict().items() if n not in changed)
    # Training goes on from there, and its checkpoint needs the first one no more.
    config = make_config(
        model={"name": "pretrained", "path": path},
        optimizer={"lr": 0.0, "groups": {"name": "poseidon", "embedding_recovery_lr": 0.0, "time_lr": 0.0}},
        trainer={"epochs": 1, "batch_size": 12},
        out=str(tmp_path / "tuned"),
    )
    train(config, make_store(seed=1))
    (tmp_path / "run" / "best.pt").unlink()
    after = load_checkpoint(tmp_path / "tuned" / "best.pt")["model"]
    assert after["name"] == "scot"
    assert all(torch.equal(value, before[name]) for name, value in after["state"].items())
    assert load(tmp_path / "tuned" / "best.pt").predict(np.zeros((1, 16, 16))).shape == (1, 16, 16)


def test_a_network_whose_lead_time_is_a_channel_is_taken_on_too(stores, make_config, tmp_path):
    train(make_config(model=FNO_1D, task={"name": "time_pairs"}, trainer={"epochs": 1}), Mixture(stores))
    path = str(tmp_path / "run" / "best.pt")
    model = {"name": "pretrained", "path": path}
    tuned = make_config(model=model, task={"name": "time_pairs"}, trainer={"epochs": 1}, out=str(tmp_path / "tuned"))
    train(tuned, stores[0])
    after = load_checkpoint(tmp_path / "tuned" / "best.pt")["model"]
    assert (after["name"], after["arguments"]["in_channels"], after["arguments"]["out_channels"]) == ("fno", 2, 1)


def test_a_model_with_other_weights_for_other_channels_is_refused(make_checkpoint, monkeypatch):
    class Deeper(FNO):
        def __init__(self, in_channels, out_channels):
            super().__init__([4], in_channels, out_channels, hidden_channels=4, n_layers=in_channels)

    monkeypatch.setitem(models._entries, "shift", Deeper)
    with pytest.raises(ValueError, match="'shift' has other weights for other channels"):
        models.build("pretrained", path=str(make_checkpoint()), in_channels=2, out_channels=1)


# --------------------------------------------------------------------------------------- lead times outside of range


def test_a_lead_time_outside_of_what_was_trained_on_warns(make_checkpoint, recwarn):
    time = {"conditioned": True, "step": 0.25, "scale": 0.5, "lead_times": [0.0, 0.5]}
    predictor = load(make_checkpoint("timed_shift", time=time))
    field = np.zeros((1, 32), np.float32)
    for inside in (0.0, 0.5, 0.5 * (1 + 1e-7)):
        predictor.predict(field, inside)
    predictor.rollout(field, 5)
    assert not recwarn.list
    with pytest.warns(UserWarning, match="lead time 0.75 was asked for, but this operator was trained on 0 to 0.5"):
        predictor.predict(field, 0.75)
    with pytest.warns(UserWarning, match="extrapolation"):
        predictor.rollout(field, 3, direct=True)


def test_training_records_the_range_of_its_lead_times(stores):
    assert TimePairsTask(stores[0]).time["lead_times"] == [0.0, 1.0]
    one = TimePairsTask(stores[0], pairing="all2all", transitions=[1, 2]).time["lead_times"]
    assert one == [0.25, 0.5]
