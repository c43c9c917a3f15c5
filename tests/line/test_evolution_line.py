"""Evolutions from a seed to an operator that steps in time, by the commands alone, small."""

import csv
import logging
import shlex
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra

from datagen.commands import generate
from datagen.store import open_store
from operators.checkpoint import load_checkpoint
from operators.commands import evaluate, predict, train

COUNTS = ["samples.train=12", "samples.validation=3", "samples.test=2", "shard.size=5", "seed=5", "executor=serial"]
MODEL = ["model=fno", "model.hidden_channels=8", "model.n_layers=2", "optimizer.lr=5e-3", "trainer.device=cpu"]
FAMILIES = {
    "burgers": ["pde.grid=32", "pde.nu=0.05", "pde.frames=5"],
    "navier_stokes": ["pde.grid=16", "pde.final_time=8", "pde.frames=5"],
}
MODES = {"burgers": "model.n_modes=[8]", "navier_stokes": "model.n_modes=[6,6]"}


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Run a command in this process as its console script does, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    handlers, level, on_term = logging.root.handlers[:], logging.root.level, signal.getsignal(signal.SIGTERM)

    def run(module, *words):
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        monkeypatch.setattr(sys, "argv", [f"southwell-{module.__name__.rpartition('.')[2]}", *words])
        GlobalHydra.instance().clear()
        module.main()

    yield run
    GlobalHydra.instance().clear()
    signal.signal(signal.SIGTERM, on_term)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def losses(run):
    with (Path(run) / "metrics.csv").open() as file:
        return [float(row["train_loss"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("family", ["burgers", pytest.param("navier_stokes", marks=pytest.mark.slow)])
def test_generate_then_train_on_pairs(family, command, capsys):
    command(generate, f"pde={family}", *FAMILIES[family], *COUNTS, "out=data")
    words = ["dataset.path=data", "task=time_pairs", *MODEL, MODES[family], "trainer.epochs=3", "trainer.batch_size=12"]
    command(train, *words, "out=all")
    assert "best.pt is from epoch" in capsys.readouterr().out
    assert losses("all")[-1] < losses("all")[0]
    content = load_checkpoint("all/best.pt")
    assert content["task"]["name"] == "time_pairs"
    name = {"burgers": "u", "navier_stokes": "vorticity"}[family]
    assert [c["name"] for c in content["channels"]["inputs"]] == [name]
    assert content["time"]["conditioned"]

    # On its own answers, by pushforward or unrolled, with one step of fixed length; a loss with arguments.
    pushforward = str(family == "burgers").lower()
    loss = "loss={name: relative_l1_by_group, groups: [[0]]}"
    words += ["trainer.epochs=8", "task.pairing=one_step", "task.steps=2", loss]
    command(train, *words, f"task.pushforward={pushforward}", "out=steps")
    assert losses("steps")[-1] < losses("steps")[0]
    assert not load_checkpoint("steps/best.pt")["time"]["conditioned"]

    # Measured in one report, whose command is that of the run; and rolled out beyond the data.
    command(evaluate, "checkpoint=[all/best.pt,steps/best.pt]", "dataset.path=data", "out=compared")
    printed = capsys.readouterr().out
    for name_of_row in ("all", "all, direct", "all, single steps", "steps", "persistence", "training mean"):
        assert f"{name_of_row}: test relative L2" in printed
    text = (
        Path("compared/report.md").read_text().split("```bash\n")[1].split("southwell-evaluate")[0].replace("\\\n", " ")
    )
    first, second = (shlex.split(part) for part in text.split("southwell-train")[1:])
    command(train, *first)  # refused if one key differed; finished already as none does
    command(train, *second)
    command(predict, "checkpoint=steps/best.pt", "input=data", "steps=6", "output=rolled.npz")
    with np.load("rolled.npz") as rolled:
        assert rolled[name].shape == (2, 7, *open_store("data").shape)
        np.testing.assert_array_equal(rolled[name][:, 0], open_store("data").read("test", name, frame=0))
        np.testing.assert_allclose(np.diff(rolled["times"]), open_store("data").times[1], rtol=1e-6)
    with pytest.raises(SystemExit) as end:  # before there is a run that could not be taken up again
        command(train, *words, "loss={name: relative_l1_by_group, groups: [[0], [1]]}", "out=wrong")
    assert end.value.code == 2
    assert "each of the 1 channels 0 to 0 once" in capsys.readouterr().err
    assert not Path("wrong").exists()
