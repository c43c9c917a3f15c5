"""Sweeps: a folder for each job under every launcher, resumed by the same command, summarised by one more."""

import csv
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra

import datagen.store
from datagen.commands.sweeps import hydras_folder, job_folder, swept_keys
from datagen.generate import generate
from datagen.store import Spec
from operators.commands import runs as runs_module
from operators.commands import train
from operators.runs import as_markdown, summarise

ROOT = Path(__file__).parents[2]
SMALL = [
    "dataset.path=data/a", "model.n_modes=[4,4]", "model.hidden_channels=4", "model.n_layers=1", "trainer.epochs=2",
    "trainer.device=cpu", "scheduler=constant",
]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["seed=1,2"], []),  # no sweep without -m
        (["-m", "seed=1,2", "model.n_modes=[8,8]"], ["seed"]),
        (["--multirun", "model.n_modes=[8,8],[16,16]", "+extra=1,2"], ["model.n_modes", "extra"]),
        (["-m", "model=fno,tfno", "seed=range(0,3)", "experiment=glob(*)"], ["model", "seed", "experiment"]),
        (["-m", "dataset.path='a,b'", "~scheduler", "seed=((", "--cfg", "job"], []),  # Hydra says what is wrong
    ],
)
def test_what_is_swept_is_read_as_hydra_reads_it(words, expected):
    assert swept_keys(words) == expected


def test_folders_are_named_by_what_is_swept():
    overrides = ["model=tfno", "+model.n_modes=[8,8]", "dataset.path='data/a b'", "trainer.epochs=3"]
    assert job_folder("runs", overrides, ["model", "model.n_modes"]) == "runs/model=tfno,model.n_modes=[8,8]"
    assert job_folder("runs", overrides, ["dataset.path"]) == "runs/dataset.path=data_a_b"
    assert hydras_folder(["-m", "out=r", "seed=1,2", "hydra.sweep.dir=x"], ["seed"]) == []
    assert hydras_folder(["-m", "out=a,b"], ["out"]) == []
    assert hydras_folder(["-m", "out=it's", "seed=1,2"], ["seed"])[0] == r"hydra.sweep.dir='it\'s'"
    assert hydras_folder(["-m", "out='${seed}'", "seed=1,2"], ["seed"])[0] == "hydra.sweep.dir='.'"


@pytest.fixture
def command(monkeypatch, make_store, tmp_path):
    """Run a command in this process and an empty folder, on a dataset in memory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datagen.store, "open_store", lambda path: make_store(path=path))

    def run(module, *arguments):
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # `cli.run` sets it, for a process of its own
        monkeypatch.setattr(sys, "argv", [module.__name__.rpartition(".")[2], *arguments])
        GlobalHydra.instance().clear()
        before = logging.root.handlers[:]
        try:
            module.main()
        finally:
            logging.root.handlers[:] = before  # Hydra installs its own

    return run


def written(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*.pt")}


def test_the_basic_launcher_and_the_same_command_again(command, tmp_path, caplog):
    words = ["-m", *SMALL, "model.rank=0.1,0.3", "seed=1,2", "out=runs/rank"]
    command(train, *words)
    folders = {f"model.rank={rank},seed={seed}" for rank in ("0.1", "0.3") for seed in (1, 2)}
    assert {p.name for p in Path("runs/rank").iterdir()} == {*folders, "multirun.yaml"}
    assert {p.name for p in tmp_path.iterdir()} == {"runs"}  # nothing of Hydra's elsewhere
    for folder in folders:
        config = yaml.safe_load(Path("runs/rank", folder, "config.yaml").read_text())
        assert f"model.rank={config['model']['rank']},seed={config['seed']}" == folder
        assert config["out"] == f"runs/rank/{folder}"
    before = written(tmp_path)
    assert len(before) == 8
    (tmp_path / "runs/rank/model.rank=0.1,seed=2/last.pt").unlink()  # as if one had not begun
    with caplog.at_level("INFO"):
        command(train, *words)
    after = written(tmp_path)
    changed = {name for name in after if before.get(name) != after[name]}
    assert {Path(name).parent.name for name in changed} == {"model.rank=0.1,seed=2"}


def test_an_out_of_ones_own_is_left_alone(command, tmp_path):
    command(train, "-m", *SMALL, "model.rank=0.2,0.5", "out=runs/${model.rank}")
    assert {p.name for p in Path("runs").iterdir()} == {"0.2", "0.5", "multirun.yaml"}
    assert Path("runs/0.2/best.pt").exists()
    assert {p.name for p in tmp_path.iterdir()} == {"runs"}
    command(train, "-m", *SMALL, "trainer.epochs=1", "out=one,two")
    assert Path("one/best.pt").exists()
    assert Path("two/best.pt").exists()


def test_a_job_that_fails_is_named_and_the_others_go_on(command, capsys):
    with pytest.raises(SystemExit) as end:
        command(train, "-m", *SMALL, "model.rank=7,0.1,9", "out=runs")
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert "error: runs/model.rank=7: rank must be a fraction" in error
    assert "error: runs/model.rank=9: rank must be a fraction" in error
    assert "error: 2 of the sweep's jobs failed" in error
    assert Path("runs/model.rank=0.1/best.pt").exists()


def test_a_sweep_does_not_go_into_a_run(command, capsys):
    make_run(Path("runs"), [])
    with pytest.raises(SystemExit):
        command(train, "-m", *SMALL, "seed=1,2", "out=runs")
    assert capsys.readouterr().err.count("out=runs is the folder of a run; a sweep needs one of its own") == 1


def test_what_no_job_can_do_is_said_once(command, capsys):
    with pytest.raises(SystemExit) as end:
        command(train, "-m", *SMALL, "seed=1,2")
    assert end.value.code == 2
    assert capsys.readouterr().err.count("out must be given") == 1


# ---------------------------------------------------------------------------------------- launchers with processes


def in_processes(launcher: str, folder: Path) -> None:
    """A sweep in a process of its own, twice: the second time nothing is left to do."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HYDRA_FULL_ERROR": "0"}
    samples = {"train": 8, "validation": 4, "test": 2}
    spec = Spec({"name": "darcy", "grid": 8}, 3, samples, 8, {"method": "auto", "rtol": 1e-6})
    generate(spec, folder / "data/a", executor="serial")
    words = ["-m", *SMALL, f"hydra/launcher={launcher}", "model.rank=0.1,0.3", "out=runs"]
    if launcher == "joblib":
        words.append("hydra.launcher.n_jobs=2")
    seen = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-m", "operators.commands.train", *words],
            cwd=folder, env=environment, capture_output=True, text=True, timeout=500,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        seen.append(written(folder))
    assert seen[0] == seen[1]
    assert {Path(name).parent.as_posix() for name in seen[0]} == {"runs/model.rank=0.1", "runs/model.rank=0.3"}
    assert {p.name for p in folder.iterdir()} == {"data", "runs"}
    assert [row["finished"] for row in summarise(folder / "runs")] == ["yes", "yes"]


@pytest.mark.slow  # each job is a process that imports torch
def test_the_joblib_launcher(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    in_processes("joblib", tmp_path)


@pytest.mark.slow
def test_the_submitit_launcher(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    in_processes("submitit_local", tmp_path)


# ------------------------------------------------------------------------------------------------------- summaries


def make_run(folder, losses, seconds=2.0, **config):
    folder.mkdir(parents=True)
    content = {"seed": 0, "loss": "relative_l2", "out": str(folder), "trainer": {"epochs": 3}, **config}
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    if losses:
        lines = ["epoch,train_loss,validation_loss,validation_relative_l2,learning_rate,seconds"]
        lines += [f"{n},0.5,{loss},{loss / 10},0.001,{seconds}" for n, loss in enumerate(losses, start=1)]
        (folder / "metrics.csv").write_text("\n".join(lines) + "\n")


def test_a_summary_has_the_keys_that_differ_and_what_came_of_each(tmp_path):
    make_run(tmp_path / "b", [0.4, 0.2, 0.3], seed=1, model={"name": "fno", "n_modes": [8, 8]})
    make_run(tmp_path / "a", [0.5, 0.3], seed=2, model={"name": "fno", "n_modes": [8, 8]}, logger={"wandb": {}})
    make_run(tmp_path / "deep/c", [], seed=1, model={"name": "tfno", "n_modes": [8, 8], "rank": 0.1})
    make_run(tmp_path / "d", [0.1, 0.2], trainer={"epochs": 9, "patience": 1}, model={"name": "fno", "n_modes": [4]})
    make_run(tmp_path / "b/wandb/inner", [0.0])  # within a run: none of its own
    (tmp_path / "other").mkdir()
    (tmp_path / "other/config.yaml").write_text("name: of another program\n")
    rows = summarise(tmp_path)
    assert [row["run"] for row in rows] == ["d", "b", "a", "deep/c"]
    assert [row["best validation_loss"] for row in rows] == [0.1, 0.2, 0.3, None]
    assert [row["best validation_relative_l2"] for row in rows] == [0.01, 0.02, 0.03, None]
    assert [row["best epoch"] for row in rows] == [1, 2, 2, None]
    assert [row["epochs"] for row in rows] == [2, 3, 2, 0]
    assert [row["seconds"] for row in rows] == [4.0, 6.0, 4.0, 0]
    assert [row["finished"] for row in rows] == ["yes", "yes", "no", "no"]  # d: patience is over
    assert set(list(rows[0])[1:7]) == {
        "model.n_modes", "model.name", "seed", "trainer.epochs", "trainer.patience", "model.rank",
    }  # fmt: skip
    assert [row["model.n_modes"] for row in rows] == ["[4]", "[8, 8]", "[8, 8]", "[8, 8]"]
    assert [row["model.rank"] for row in rows] == [None, None, None, 0.1]


def test_runs_of_several_losses_are_ordered_by_relative_l2(tmp_path):
    make_run(tmp_path / "mse", [0.001], loss="mse")
    make_run(tmp_path / "l2", [0.0005])
    (tmp_path / "mse/metrics.csv").write_text("epoch,validation_loss,validation_relative_l2,seconds\n1,0.0001,0.2,1\n")
    assert [row["run"] for row in summarise(tmp_path)] == ["l2", "mse"]


def test_the_command_writes_the_table_twice(tmp_path, capsys, monkeypatch):
    make_run(tmp_path / "a|b", [0.123456789], seed=1)
    make_run(tmp_path / "c", [0.5], seed=2)
    monkeypatch.setattr(sys, "argv", ["southwell-runs", str(tmp_path)])
    runs_module.main()
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "runs.md").read_text() == as_markdown(summarise(tmp_path))
    assert printed.splitlines()[2].startswith("| a\\|b | 1 | 0.1235 | 0.01235 | 1 | 1 | 2 |")
    with (tmp_path / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["run"], row["seed"], row["best validation_loss"]) for row in rows] == [
        ("a|b", "1", "0.123456789"), ("c", "2", "0.5"),
    ]  # fmt: skip
    runs_module.main()  # its own files are no runs
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "holds no runs"), (":\n- [", "holds no readable run"), ("- 1", "holds no readable run")],
)
def test_folders_without_runs_are_a_sentence(content, message, tmp_path, capsys, monkeypatch):
    if content is not None:
        (tmp_path / "a").mkdir()
        (tmp_path / "a/config.yaml").write_text(content)
    for folder, text in ((tmp_path, message), (tmp_path / "none", "is no folder")):
        monkeypatch.setattr(sys, "argv", ["southwell-runs", str(folder)])
        with pytest.raises(SystemExit) as end:
            runs_module.main()
        assert end.value.code == 2
        assert text in capsys.readouterr().err
