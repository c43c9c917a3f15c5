"""Several ranks train as one process does: the same losses and weights, the same ends, one folder."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import operators
from operators import trainer
from operators.checkpoint import load_checkpoint
from operators.distributed import distribute, set_idle, started
from operators.losses import losses, relative_l2
from operators.mixture import Mixture
from operators.models import models
from operators.trainer import train


class Normed(nn.Module):
    """A model with batch norm."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, 6, 1),
            nn.BatchNorm2d(6),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Conv2d(6, out_channels, 1),
        )

    def forward(self, x):
        return self.layers(x)


@pytest.fixture(autouse=True)
def _normed(monkeypatch):
    monkeypatch.setitem(models._entries, "normed", Normed)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def on_ranks(size, work):
    """Run ``work(rank)`` in forked processes with torchrun's environment. Returns how each ended: 0, or its error.

    Forks, as importing torch takes longer than all of these trainings.
    """
    context = multiprocessing.get_context("fork")
    said = context.SimpleQueue()
    port = free_port()

    def process(rank):
        os.environ.update(
            RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
        )
        try:
            work(rank)
            said.put((rank, ""))
        except Exception as error:
            traceback.print_exc()
            said.put((rank, f"{type(error).__name__}: {error}"))

    processes = [context.Process(target=process, args=(rank,)) for rank in range(size)]
    for each in processes:
        each.start()
    for each in processes:
        each.join(300)
        if each.is_alive():
            each.kill()
            pytest.fail("a rank hangs")
    ends = {}
    while not said.empty():
        rank, end = said.get()
        ends[rank] = end
    return [ends[rank] for rank in range(size)]


# 21 samples in batches of 5: the last has one sample, so that ranks have none of it. 7 validation samples.
SIZES = {"train": 21, "validation": 7, "test": 1}
SGD = {"name": "sgd", "lr": 1e-2, "momentum": 0.9}  # Adam divides by the gradient: it shows rounding where that is zero
SCOT = {
    "name": "scot",
    "embed_dim": 8,
    "depths": [1, 1],
    "num_heads": [1, 2],
    "skip_connections": [1, 0],
    "patch_size": 2,
    "window_size": 4,
}
CASES = {
    "ddp": (2, {}),
    "ddp of batch norms": (2, {"model": {"name": "normed"}}),
    "ddp in parts": (3, {"trainer": {"accumulate": 2, "ema": 0.9}}),
    "mixture": (2, {"trainer": {"epochs": 2}}),
    "ddp of a loss a batch": (2, {"loss": {"name": "relative_l1_by_group", "groups": [[0]]}}),
    "fsdp": (2, {"trainer": {"distributed": "fsdp"}}),
    "fsdp of a transformer": (2, {"trainer": {"distributed": "fsdp", "epochs": 2}, "model": SCOT}),
    "ddp of recomputed layers": (2, {"model": SCOT | {"checkpointing": True}}),
    "fsdp of recomputed layers": (
        2,
        {"trainer": {"distributed": "fsdp", "epochs": 2}, "model": SCOT | {"checkpointing": True}},
    ),
    "fsdp in parts": (3, {"trainer": {"distributed": "fsdp", "accumulate": 2, "ema": 0.9}}),
}


@pytest.mark.parametrize("case", CASES)
def test_ranks_train_as_one_process_does(case, make_config, make_store, tmp_path):
    size, changes = CASES[case]
    trainer_settings = {"epochs": 3, **changes.get("trainer", {})}
    config = make_config(**{"optimizer": SGD, **changes, "trainer": trainer_settings}, out=str(tmp_path / "one"))

    def dataset():
        one = make_store(sizes=SIZES)
        # A mixture draws by itself, with shares that are no whole batches.
        return Mixture([one, make_store(sizes=SIZES, seed=1, path="other")], [2, 1]) if case == "mixture" else one

    alone = train({**config, "trainer": {**config["trainer"], "accumulate": 1}}, dataset())
    shared = {**config, "out": str(tmp_path / "ranks")}
    assert on_ranks(size, lambda rank: train(shared, dataset())) == [""] * size
    a, b = (load_checkpoint(tmp_path / name / "last.pt") for name in ("one", "ranks"))
    for ours, theirs in zip(alone.history, b["history"], strict=True):
        for key in ("train_loss", "validation_loss", "learning_rate"):
            # 15 steps of single precision, sums in another order: each rounds to 6e-8.
            assert theirs[key] == pytest.approx(ours[key], rel=1e-5), key
    for name, weight in a["model"]["state"].items():
        torch.testing.assert_close(b["model"]["state"][name], weight, rtol=1e-4, atol=1e-6, msg=name)
    assert {p.name for p in (tmp_path / "ranks").iterdir()} == {
        ".lock", "config.yaml", "metrics.csv", "best.pt", "last.pt", "loss.png",
    }  # fmt: skip


def test_common_batch_norm_is_that_of_the_concatenated_batch(tmp_path):
    torch.manual_seed(2)
    x, weights = torch.randn(5, 3, 4, dtype=torch.float64), torch.randn(5, 3, 4, dtype=torch.float64)
    plain = nn.BatchNorm1d(3).double()
    whole = x.clone().requires_grad_()
    (plain(whole) * weights).sum().backward()

    def work(rank):
        with started("cpu") as ranks:
            norm = nn.BatchNorm1d(3).double()
            distribute(norm, "ddp", ranks)
            mine = x.tensor_split(2)[rank] if rank < 2 else x[:1] + 100  # the third rank only fills its share
            set_idle(norm, rank == 2, ranks)
            mine = mine.clone().requires_grad_()
            their_weights = weights.tensor_split(2)[rank] if rank < 2 else torch.zeros(1, 3, 4)
            (norm(mine) * their_weights).sum().backward()
            torch.save((mine.grad, norm.running_mean, norm.running_var, norm.weight.grad), tmp_path / f"{rank}.pt")

    assert on_ranks(3, work) == ["", "", ""]
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(3)]
    close = dict(rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.cat([parts[0][0], parts[1][0]]), whole.grad, **close)
    for _, mean, variance, _ in parts:
        torch.testing.assert_close(mean, plain.running_mean, **close)
        torch.testing.assert_close(variance, plain.running_var, **close)
    torch.testing.assert_close(parts[0][3] + parts[1][3], plain.weight.grad, **close)


def test_sigterm_to_one_rank_stops_all_and_the_run_goes_on_with_the_same_bits(make_config, make_store, tmp_path):
    changes = {"model": {"name": "normed", "dropout": 0.3}, "trainer": {"epochs": 2}}
    unbroken = make_config(out=str(tmp_path / "unbroken"), **changes)
    broken = {**unbroken, "out": str(tmp_path / "broken")}
    assert on_ranks(2, lambda rank: train(unbroken, make_store())) == ["", ""]

    def terminated(rank):
        original, steps = trainer._Training._step, []

        def step(self, parts, size):
            steps.append(1)
            if rank == 1 and len(steps) == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return original(self, parts, size)

        trainer._Training._step = step
        assert train(broken, make_store()).stopped == "SIGTERM"
        assert len(steps) == 3

    assert on_ranks(2, terminated) == ["", ""]
    assert on_ranks(2, lambda rank: train(broken, make_store())) == ["", ""]
    a, b = (load_checkpoint(tmp_path / name / "last.pt") for name in ("unbroken", "broken"))
    for name, weight in a["model"]["state"].items():
        assert torch.equal(weight, b["model"]["state"][name]), name
    # Dropout draws other numbers on each rank.
    first, second = a["training"]["random"]
    assert not torch.equal(first["torch"], second["torch"])


def test_all_ranks_stop_at_a_loss_gone_nan_on_one(make_config, make_store, monkeypatch):
    def failing(prediction, target, periodic=None):
        factor = float("nan") if os.environ.get("RANK") == "1" else 1.0
        return factor * relative_l2(prediction, target)

    monkeypatch.setitem(losses._entries, "failing", failing)
    ends = on_ranks(2, lambda rank: train(make_config(loss="failing"), make_store()))
    assert all(end.startswith("TrainingDiverged: the training loss is nan") for end in ends)


def test_what_the_first_rank_refuses_stops_the_others(make_config, make_store, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("precious")
    first, second = on_ranks(2, lambda rank: train(make_config(), make_store()))
    assert "holds no run; choose another folder" in first
    assert second == "RuntimeError: rank 0 stopped; its message says why"


def test_an_error_on_one_rank_ends_the_others(make_config, make_store):
    def work(rank):
        store = make_store()
        if rank == 1:
            store.arrays["train"]["solution"][:, 0, 0] = np.nan
        train(make_config(dataset={"memory_gb": 0.0}), store)

    # Streaming: the normalisers of rank 1 meet the damage while rank 0 trains, or waits to.
    first, second = on_ranks(2, work)
    assert "is not finite" in second
    assert first.startswith("RuntimeError")


@pytest.mark.slow  # three starts of torch
def test_torchrun_writes_one_folder(tmp_path):
    command = [sys.executable, "-m", "operators.commands.train"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *command[1:]]
    generate = [sys.executable, "-m", "datagen.commands.generate", "pde=poisson", "pde.grid=16", "samples.train=12"]
    small = ["model.n_modes=[4,4]", "model.hidden_channels=4", "trainer.epochs=2", "trainer.device=cpu"]
    words = [f"dataset.path={tmp_path / 'data'}", "optimizer=sgd", *small]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(operators.__file__).parents[1])}

    def run(*arguments):
        return subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)

    made = run(*generate, "samples.validation=3", "samples.test=0", "seed=1", f"out={tmp_path / 'data'}")
    assert made.returncode == 0, made.stderr
    assert run(*command, *words, "out=one").returncode == 0
    done = run(*torchrun, *words, "out=two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("best.pt is from epoch") == 1
    assert {p.name for p in tmp_path.iterdir()} == {"data", "one", "two"}
    one, two = (load_checkpoint(tmp_path / name / "best.pt")["history"] for name in ("one", "two"))
    assert two[-1]["validation_loss"] == pytest.approx(one[-1]["validation_loss"], rel=1e-5)
