"""The task of evolutions: what its batches hold, what its losses differentiate, and training on generated families."""

import pickle
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import nn

from datagen.generate import generate
from datagen.store import Spec, open_store
from operators.data import GaussianNormaliser
from operators.losses import configured, relative_l2
from operators.operator import Operator
from operators.tasks import tasks
from operators.trainer import train

TIMES = np.linspace(0.0, 2.0, 5)


@dataclass
class DecayStore:
    """Two decaying fields ``u_t = -r u`` and ``v_t = -c(x) v``, r a scalar and c a field of the sample."""

    times: np.ndarray = field(default_factory=lambda: TIMES)
    sizes: dict = field(default_factory=lambda: {"train": 6, "validation": 3, "test": 2})
    initial: bool = True
    forbidden: tuple = ()

    path, evolves, shape, boundary = "memory", True, (8, 6), (("periodic", "periodic"), ("wall", "wall"))

    def __post_init__(self):
        from datagen.family import Field

        starts = [Field(f"initial_{n}", "input", "m", "") for n in "uv"] if self.initial else []
        self.fields = (
            Field("rate", "input", "1/s", "c"),
            *starts,
            Field("u", "output", "m", ""),
            Field("mask", "constant", "", ""),
            Field("v", "output", "m", ""),
        )
        self.spec = {"pde": {"name": "decay"}}
        self.arrays, self.scalars = {}, {}
        for number, (split, count) in enumerate(self.sizes.items()):
            generator = np.random.default_rng(number)
            rate = generator.uniform(0.5, 2, size=(count, *self.shape))
            r = generator.uniform(0.5, 2, size=count)
            u, v = 3 + generator.normal(size=(2, count, *self.shape))
            t = np.asarray(self.times)[:, None, None]
            frames = {
                "u": u[:, None] * np.exp(-r[:, None, None, None] * t),
                "v": v[:, None] * np.exp(-rate[:, None] * t),
            }
            self.arrays[split] = {"rate": rate, "initial_u": u, "initial_v": v, **frames}
            self.arrays[split] = {k: a.astype(np.float32) for k, a in self.arrays[split].items()}
            self.scalars[split] = {"r": r}

    def read(self, split, name, start=0, stop=None, frame=None):
        assert split not in self.forbidden, f"the {split} split must not be read here"
        found = self.arrays[split][name][start:stop]
        return found if frame is None else found[:, frame]

    def record_names(self, group):
        return sorted(self.scalars["train"])

    def record(self, split, name, start=0, stop=None):
        return self.scalars[split][name.removeprefix("scalars/")][start:stop]


class Decay(nn.Module):
    """The exact evolution of `DecayStore`, for channels u, v, rate, r and times in units of `scale`."""

    conditioned_on_time = True

    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x, time):
        t = self.scale * time.reshape(-1, 1, 1, 1)
        return x[:, :2] * torch.exp(-t * x[:, [3, 2]])


def identity(channels):
    return GaussianNormaliser(torch.zeros(channels), torch.ones(channels))


def operator(module, inputs=4, outputs=2):
    return Operator(module, identity(inputs), identity(outputs))


@pytest.mark.parametrize("memory_gb", [4.0, 0.0])
@pytest.mark.parametrize(
    "arguments", [{}, {"stride": 2}, {"pairing": "from_initial", "start": 1}, {"transitions": [2]}]
)
def test_an_example_is_a_pair_of_a_sample(memory_gb, arguments):
    store = DecayStore()
    task = tasks.build("time_pairs", store, memory_gb=memory_gb, **arguments)
    assert [c.name for c in task.inputs] == ["u", "v", "rate", "r"]
    assert [c.name for c in task.outputs] == ["u", "v"]
    assert task.conditioned_on_time
    examples = task.examples("train")
    pairs = task.pairing.chains
    assert len(examples) == 6 * len(pairs)
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(0))
    batch = examples.batch(order)
    arrays = store.arrays["train"]
    for place, example in enumerate(order.tolist()):
        sample, (i, j) = example // len(pairs), pairs[example % len(pairs)]
        for channel, name in enumerate("uv"):
            np.testing.assert_array_equal(batch.inputs[place, channel], arrays[name][sample, i])
            np.testing.assert_array_equal(batch.targets[place, channel], arrays[name][sample, j])
        np.testing.assert_array_equal(batch.inputs[place, 2], arrays["rate"][sample])
        np.testing.assert_allclose(batch.inputs[place, 3], store.scalars["train"]["r"][sample], rtol=1e-7)
        assert batch.lead_time[place].item() == pytest.approx((TIMES[j] - TIMES[i]) / 2.0)
    again = pickle.loads(pickle.dumps(examples)).batch(order)
    assert torch.equal(again.inputs, batch.inputs)
    assert torch.equal(again.targets, batch.targets)


def test_what_is_read_from_disk_is_what_is_in_memory():
    kept, streamed = (tasks.build("time_pairs", DecayStore(), memory_gb=gb, steps=2) for gb in (4.0, 0.0))
    indices = torch.arange(len(kept.examples("train")))
    one, other = kept.examples("train").batch(indices), streamed.examples("train").batch(indices)
    assert torch.equal(one.inputs, other.inputs)
    assert torch.equal(one.targets, other.targets)
    assert one.targets.shape[1:3] == (2, 2)
    # Single precision in other pieces: rounding of the sums.
    for ours, theirs in zip(kept.normalisers(), streamed.normalisers(), strict=True):
        torch.testing.assert_close(ours.mean, theirs.mean)
        torch.testing.assert_close(ours.standard_deviation, theirs.standard_deviation)


def test_only_the_snapshots_asked_for_are_read():
    store = DecayStore()
    task = tasks.build("time_pairs", store, memory_gb=0.0, pairing="one_step")
    store.arrays["train"]["u"][:, 3] = np.nan
    task.examples("train").batch(torch.tensor([0, 1]))  # frames 0, 1, 2 of sample 0
    with pytest.raises(ValueError, match="train sample 0 of field 'u' is not finite"):
        task.examples("train").batch(torch.tensor([2]))


@pytest.mark.parametrize("leading", [False, True])
def test_statistics_are_those_of_the_training_snapshots(leading, monkeypatch):
    monkeypatch.setattr("operators.data.CHUNK_BYTES", 4000)  # pieces of two samples
    store = DecayStore(times=TIMES[1:] if leading else TIMES, forbidden=("validation", "test"))
    inputs, outputs = tasks.build("time_pairs", store, stride=2).normalisers()
    arrays = store.arrays["train"]
    for place, name in enumerate("uv"):
        frames = arrays[name]
        if leading:
            frames = np.concatenate([arrays[f"initial_{name}"][:, None], frames], axis=1)
        values = frames[:, ::2].astype(float)
        for normaliser in (inputs, outputs):
            assert normaliser.mean[place].item() == pytest.approx(values.mean(), rel=1e-6)
            assert normaliser.standard_deviation[place].item() == pytest.approx(values.std(), rel=1e-6)
    assert inputs.mean[2].item() == pytest.approx(arrays["rate"].mean(), rel=1e-6)
    assert inputs.standard_deviation[3].item() == pytest.approx(store.scalars["train"]["r"].std(), rel=1e-6)
    assert len(outputs.mean) == 2


def test_initial_fields_lead_frames_that_begin_later():
    whole, late = DecayStore(), DecayStore(times=TIMES[1:])
    one, other = (tasks.build("time_pairs", store) for store in (whole, late))
    assert len(one.examples("train")) == len(other.examples("train")) == 6 * 15
    indices = torch.arange(90)
    a, b = one.examples("train").batch(indices), other.examples("train").batch(indices)
    assert torch.equal(a.inputs, b.inputs)
    assert torch.equal(a.lead_time, b.lead_time)
    # Without them the trajectory begins at the first frame.
    assert len(tasks.build("time_pairs", DecayStore(times=TIMES[1:], initial=False)).examples("train")) == 6 * 10


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"steps": 2},
        {"steps": 4},
        {"steps": 3, "pushforward": True},
        {"time_scale": 7.0},
        {"pairing": "from_initial"},
    ],
)
def test_the_exact_evolution_costs_nothing(arguments):
    task = tasks.build("time_pairs", DecayStore(), **arguments)
    model = operator(Decay(task.time_scale))
    for split in ("train", "validation"):
        examples = task.examples(split)
        batch = examples.batch(torch.arange(len(examples)))
        if split == "train":
            cost = task.loss(model, batch, relative_l2)
        else:
            cost = relative_l2(task.predict(model, batch), model.scale(batch.targets))
        assert cost.shape == (len(examples), 2)
        assert cost.max() < 1e-5  # rounding of exp and of stored frames in single precision


class Linear(nn.Module):
    """``u -> w u``, without a lead time."""

    def __init__(self, w=0.9):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w))

    def forward(self, x):
        return self.w * x[:, :2]


def squares(prediction, target):
    return (prediction - target).square().mean(dim=(2, 3))


@pytest.mark.parametrize("steps", [2, 3])
def test_gradients_of_unrolled_and_pushforward_training(steps):
    """With the map u -> w u the derivatives of (w^k u - y_k)^2 are known: through all steps, or each through one."""
    w = 0.9
    for pushforward in (False, True):
        task = tasks.build("time_pairs", DecayStore(), pairing="one_step", steps=steps, pushforward=pushforward)
        assert not task.conditioned_on_time
        batch = task.examples("train").batch(torch.arange(4))
        assert batch.lead_time is None
        module = Linear(w)
        cost = task.loss(operator(module), batch, squares).mean()
        cost.backward()
        u, y = batch.inputs[:, :2].double(), batch.targets.double()
        errors = [w**k * u - y[:, k - 1] for k in range(1, steps + 1)]
        if pushforward:
            expected = (errors[0].square().mean() + errors[-1].square().mean()) / 2
            # The state w^(steps-1) u that enters the last step is data.
            slope = (errors[0] * u + errors[-1] * w ** (steps - 1) * u).mean()
        else:
            expected = torch.stack([e.square().mean() for e in errors]).mean()
            slope = torch.stack([(2 * e * k * w ** (k - 1) * u).mean() for k, e in enumerate(errors, 1)]).mean()
        assert cost.item() == pytest.approx(expected.item(), rel=1e-5)
        assert module.w.grad.item() == pytest.approx(slope.item(), rel=1e-4)


def test_normalisers_are_undone_between_steps():
    task = tasks.build("time_pairs", DecayStore(), pairing="one_step", steps=3)

    class Fixed(nn.Module):
        def forward(self, x):
            return x[:, :2]  # the identity of normalised fields, and so of physical ones: their statistics are the same

    model = Operator(Fixed(), *task.normalisers())
    batch = task.examples("validation").batch(torch.arange(5))
    torch.testing.assert_close(task.predict(model, batch), model.scale(batch.inputs[:, :2]))


@pytest.mark.parametrize("pushforward", [False, True])
def test_training_steps_go_through_physical_units(pushforward):
    task = tasks.build("time_pairs", DecayStore(), steps=3, pushforward=pushforward)
    inputs, outputs = task.normalisers()

    class NormalisedDecay(Decay):
        def forward(self, x, time):
            return outputs(super().forward(inputs.inverse(x), time))

    batch = task.examples("train").batch(torch.arange(12))
    cost = task.loss(Operator(NormalisedDecay(task.time_scale), inputs, outputs), batch, relative_l2)
    assert cost.max() < 1e-5  # rounding in single precision


def test_masked_channels_cost_nothing_and_keep_their_value():
    task = tasks.build("time_pairs", DecayStore(), pairing="one_step", steps=2, masked=["v"])
    batch = task.examples("train").batch(torch.arange(3))
    seen = []

    class Spy(nn.Module):
        def forward(self, x):
            seen.append(x.detach().clone())
            return x[:, :2] + 100

    cost = task.loss(operator(Spy()), batch, squares)
    assert torch.equal(cost[:, 1], torch.zeros(3))
    assert (cost[:, 0] > 1).all()
    assert torch.equal(seen[1][:, 1], batch.inputs[:, 1])  # v as it was
    torch.testing.assert_close(seen[1][:, 0], batch.inputs[:, 0] + 100)
    assert torch.equal(seen[1][:, 2:], batch.inputs[:, 2:])
    validation = task.examples("validation").batch(torch.arange(3))
    assert torch.equal(task.predict(operator(Spy()), validation)[:, 1], validation.targets[:, 1])


def test_poseidons_loss_is_of_shifted_fields():
    task = tasks.build("time_pairs", DecayStore(), shifted=True)
    inputs, outputs = task.normalisers()
    module = Linear()
    model = Operator(module, inputs, outputs)
    batch = task.examples("train").batch(torch.arange(8))
    model.module.conditioned_on_time = False
    batch = type(batch)(batch.inputs, batch.targets)
    found = task.loss(model, batch, configured({"name": "relative_l1_by_group", "groups": [[0, 1]]}))
    prediction = 0.9 * inputs(batch.inputs)[:, :2]
    truth = outputs(batch.targets)
    expected = (prediction - truth).abs().mean() / truth.abs().mean()
    torch.testing.assert_close(found, expected.reshape(1, 1).detach(), check_dtype=False)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"pushforward": True}, "give steps=2 or more"),
        ({"time_scale": 0.0}, "time_scale must be positive"),
        ({"time_scale": float("inf")}, "time_scale must be positive"),
        ({"masked": ["v", "u"]}, "leaves no output to learn"),
        ({"masked": ["w"]}, "'w' is no output"),
        ({"pairing": "all"}, "unknown pairing 'all'"),
        ({"stride": 9}, "no pair"),
        ({"stride": "two"}, "stride must be int"),
        ({"pair": "all2all"}, "no argument 'pair'. Did you mean 'pairing'"),
    ],
)
def test_bad_arguments_are_sentences(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        tasks.build("time_pairs", DecayStore(), **arguments)


def test_steady_data_is_refused(make_store):
    with pytest.raises(ValueError, match="use task=static"):
        tasks.build("time_pairs", make_store())


FAMILIES = {
    "burgers": {"grid": 32, "nu": 0.05, "final_time": 0.5, "frames": 5},
    "shallow_water": {"grid": 16, "final_time": 0.2, "frames": 4},  # starts at rest: velocities are zero at first
    "heat": {"grid": 12, "final_time": 0.4, "frames": 4},  # a coefficient field, and scalars
}
MORE_FAMILIES = {
    "advection": {"grid": 32, "frames": 4},
    "allen_cahn": {"grid": 16, "final_time": 2.0, "frames": 4},
    "euler": {"grid": 16, "final_time": 0.1, "frames": 4},
    "fitzhugh_nagumo": {"dimension": 1, "grid": 24, "final_time": 1.0, "frames": 4},
    "gray_scott": {"grid": 16, "final_time": 20.0, "frames": 4},
    "kdv": {"grid": 32, "length": 20.0, "final_time": 0.5, "frames": 4},
    "kuramoto_sivashinsky": {"grid": 32, "length": 22.0, "final_time": 2.0, "frames": 4},
    "navier_stokes": {"grid": 16, "final_time": 5.0, "frames": 4},
    "wave": {"grid": 17, "final_time": 0.5, "frames": 4},
}


@pytest.mark.parametrize("name", [*FAMILIES, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE_FAMILIES)])
def test_every_evolving_family_can_be_learned(name, tmp_path, make_config):
    pde = {"name": name, **{**FAMILIES, **MORE_FAMILIES}[name]}
    sizes = {"train": 8, "validation": 2, "test": 1}
    solver = {"method": "auto", "rtol": 1e-8}
    spec = Spec(pde, seed=0, samples=sizes, shard_size=11, solver=solver)
    store = open_store(generate(spec, tmp_path / "data", executor="serial"))
    model = {"name": "fno", "n_modes": [6] * len(store.shape), "hidden_channels": 8, "n_layers": 2}
    config = make_config(
        task={"name": "time_pairs"}, model=model, trainer={"epochs": 2, "batch_size": 8}, optimizer={"lr": 5e-3}
    )
    history = train(config, store).history
    assert history[1]["train_loss"] < history[0]["train_loss"]
    assert history[1]["validation_loss"] < 1  # better than predicting zero
