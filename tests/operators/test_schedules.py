"""Learning-rate schedules: each is its formula, in steps, for every group; and comes back from its state."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from operators.optimizers import Plateau, optimizers, schedulers

STEPS = 100


def rates_of(name, optimizer=None, steps=STEPS, **arguments):
    """Rate of the first group in each step."""
    optimizer = optimizer or optimizers.build("sgd", [nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = schedulers.build(name, optimizer, total_steps=steps, **arguments)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return np.array(rates)


S = np.arange(STEPS)
FORMULAS = {
    "constant": ({"warmup": 0.25}, np.minimum((S + 1) / 25, 1.0)),
    "cosine": (
        {"warmup": 0.1, "final": 0.01},
        np.where(S < 10, (S + 1) / 10, 0.01 + 0.99 * (1 + np.cos(np.pi * (S - 10) / 90)) / 2),
    ),
    "step": ({"warmup": 0.1, "every": 0.3, "factor": 0.5}, np.where(S < 10, (S + 1) / 10, 0.5 ** (S // 30))),
    "plateau": ({"warmup": 0.2}, np.minimum((S + 1) / 20, 1.0)),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_each_is_its_formula(name):
    arguments, expected = FORMULAS[name]
    np.testing.assert_allclose(rates_of(name, **arguments), 2 * expected, rtol=1e-12)


def test_step_is_torchs_steplr_per_epoch():
    # 500 epochs of 7 batches, halved every 100 epochs: FNO's recipe.
    epochs, batches = 500, 7
    rates = rates_of("step", steps=epochs * batches, every=0.2, factor=0.5)
    optimizer = optimizers.build("sgd", [nn.Parameter(torch.zeros(1))], lr=2.0)
    steplr = torch.optim.lr_scheduler.StepLR(optimizer, step_size=100, gamma=0.5)
    expected = []
    for _ in range(epochs):
        expected += [optimizer.param_groups[0]["lr"]] * batches
        optimizer.step()
        steplr.step()
    np.testing.assert_allclose(rates, expected, rtol=1e-12)


def test_a_cosine_may_stop_on_its_way():
    # neuraloperator's examples: 20 epochs with CosineAnnealingLR(T_max=30), once an epoch.
    rates = rates_of("cosine", steps=20, warmup=0.0, length=1.5)
    optimizer = optimizers.build("sgd", [nn.Parameter(torch.zeros(1))], lr=2.0)
    annealing = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=30)
    expected = []
    for _ in range(20):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        annealing.step()
    np.testing.assert_allclose(rates, expected, rtol=1e-12)


def test_one_cycle_peaks_at_the_optimizers_rate():
    rates = rates_of("one_cycle", warmup=0.3)
    assert rates.max() == pytest.approx(2.0)
    assert rates.argmax() == 29  # the last of the 30 steps that rise
    assert rates[-1] < 1e-4 * rates.max()


@pytest.mark.parametrize("name", sorted(schedulers))
def test_groups_keep_the_ratio_of_their_rates(name):
    one, two = (nn.Parameter(torch.zeros(1)) for _ in range(2))
    optimizer = optimizers.build("adamw", [{"params": [one], "lr": 1e-3}, {"params": [two], "lr": 5e-2}])
    scheduler = schedulers.build(name, optimizer, total_steps=20)
    for step in range(20):
        if isinstance(scheduler, Plateau) and step % 5 == 4:
            scheduler.observe(1.0)
        ratio = optimizer.param_groups[1]["lr"] / optimizer.param_groups[0]["lr"]
        assert ratio == pytest.approx(50.0)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("name", ["sgd", "muon", "shampoo", "soap"])
def test_one_cycle_moves_the_momentum_of_those_that_have_one(name):
    if name != "sgd":
        pytest.importorskip("pytorch_optimizer")
    parameter = nn.Parameter(torch.zeros(8, 8))
    groups = [{"params": [parameter], **({"use_muon": True} if name == "muon" else {})}]
    optimizer = optimizers.build(name, groups, lr=1.0)  # sgd without momentum
    schedulers.build("one_cycle", optimizer, total_steps=10)
    group = optimizer.param_groups[0]
    if name == "soap":
        assert group["betas"][0] == pytest.approx(0.95)
    else:
        assert group["momentum"] == {"sgd": 0.0, "shampoo": 0.0, "muon": 0.95}[name]


def plateau(**arguments):
    optimizer = optimizers.build("sgd", [nn.Parameter(torch.zeros(1))], lr=1.0)
    return optimizer, schedulers.build("plateau", optimizer, total_steps=1000, **arguments)


LOSSES = [5.0, 4.0, 4.0, 4.5, 4.1, 3.0, 3.0, 3.1, 3.2, 3.3, 3.05, 2.0, 2.5, 2.5, 2.5, math.nan, 2.5]


@pytest.mark.parametrize("patience", [0, 1, 2])
def test_plateau_is_torchs_reduce_on_plateau(patience):
    optimizer, scheduler = plateau(factor=0.1, patience=patience)
    reference = optimizers.build("sgd", [nn.Parameter(torch.zeros(1))], lr=1.0)
    torchs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        reference, factor=0.1, patience=patience, threshold=0.0, eps=0.0
    )
    for loss in LOSSES:
        for _ in range(3):
            optimizer.step()
            scheduler.step()
        scheduler.observe(loss)
        torchs.step(loss)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(reference.param_groups[0]["lr"])
        assert scheduler.get_last_lr() == [optimizer.param_groups[0]["lr"]]


def test_plateau_may_fall_within_its_warmup():
    optimizer, scheduler = plateau(warmup=0.01, factor=0.5, patience=0)  # 10 steps
    for loss in (1.0, 1.0):
        optimizer.step()
        scheduler.step()
        scheduler.observe(loss)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5 * 3 / 10)


@pytest.mark.parametrize("name", sorted(schedulers))
@pytest.mark.parametrize("stop", [3, 11])
def test_a_schedule_goes_on_from_its_state(name, stop):
    """As the trainer resumes: everything built anew, then both states loaded."""

    def make():
        optimizer = optimizers.build("adamw", [nn.Parameter(torch.zeros(1))], lr=1.0)
        arguments = {"patience": 1} if name == "plateau" else {}
        return optimizer, schedulers.build(name, optimizer, total_steps=20, warmup=0.3, **arguments)

    def advance(optimizer, scheduler, steps):
        seen = []
        for step in steps:
            seen.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["betas"]))
            optimizer.step()
            scheduler.step()
            if isinstance(scheduler, Plateau):
                scheduler.observe(LOSSES[step % len(LOSSES)])
        return seen

    unbroken = advance(*make(), range(20))
    first = make()
    before = advance(*first, range(stop))
    second = make()
    second[0].load_state_dict(first[0].state_dict())
    second[1].load_state_dict(first[1].state_dict())
    assert before + advance(*second, range(stop, 20)) == unbroken


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("constant", {"warmup": 1.0}, r"scheduler.warmup must be a fraction of the steps in \[0, 1\)"),
        ("cosine", {"length": 0.5}, r"scheduler.length must be at least 1"),
        ("cosine", {"warmup": -0.1}, r"scheduler.warmup must be a fraction"),
        ("plateau", {"warmup": 1.5}, r"scheduler.warmup must be a fraction"),
        ("one_cycle", {"warmup": 1.5}, r"scheduler.warmup must be a fraction"),
        ("step", {"every": 0.0}, r"scheduler.every must be a fraction of the steps in \(0, 1\]"),
        ("step", {"factor": 1.5}, r"scheduler.factor must lie in \(0, 1\]"),
        ("plateau", {"factor": 0.0}, r"scheduler.factor must lie in \(0, 1\]"),
        ("plateau", {"patience": -1}, "scheduler.patience must be a number of epochs"),
        ("plateau", {"patience": 1.5}, "patience must be int"),
    ],
)
def test_what_does_not_fit_is_a_sentence(name, arguments, message):
    optimizer = optimizers.build("sgd", [nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(ValueError, match=message):
        schedulers.build(name, optimizer, total_steps=10, **arguments)
