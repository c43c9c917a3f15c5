"""The command lines: every YAML composes, and train, evaluate, predict run on what it says."""

import inspect
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

import configs
import datagen.store
from operators.commands import evaluate, predict, train
from operators.loggers import loggers
from operators.losses import configured
from operators.models import models
from operators.optimizers import build_optimizer, optimizers, schedulers
from operators.settings import Settings
from operators.tasks import tasks

FOLDER = Path(configs.__file__).parent
GROUPS = {group: sorted(p.stem for p in (FOLDER / group).glob("*.yaml")) for group in (
    "dataset", "task", "model", "optimizer", "scheduler", "trainer", "logger", "experiment",
)}  # fmt: skip
NEEDED = {
    "train": ["out=o", "dataset.path=d"],
    "evaluate": ["checkpoint=c", "dataset.path=d"],
    "predict": ["checkpoint=c", "input=i.npy", "output=o.npy"],
    "convert": ["source=lsm", "input=i.pt", "output=o.pt"],
}


def composed(name: str, *overrides: str) -> dict:
    with initialize_config_module("configs", version_base="1.3"):
        return OmegaConf.to_container(compose(name, [*NEEDED[name], *overrides]), resolve=True)


@pytest.mark.parametrize("name", NEEDED)
def test_primary_configs_compose(name):
    assert composed(name)


@pytest.mark.parametrize(("group", "option"), [(g, o) for g, options in GROUPS.items() for o in options])
def test_every_option_composes_and_fits_what_it_names(group, option):
    if group == "experiment" and option != "demo":
        pytest.skip("another command's experiment")
    config = composed("train", f"{group}={option}")
    model = {**config["model"], "in_channels": 1, "out_channels": 1}
    if option in ("poseidon", "pretrained"):  # which are read from where the user says
        assert fits_signature(models[option], model)
        return
    if option == "learned_multigrid":  # which sees a residual and the 5 coefficients of a stencil
        model["in_channels"] = 6
    with torch.device("meta"):  # the largest has 600 million parameters
        built = models.build(model.pop("name"), **model)
    optimizer = build_optimizer(built, **config["optimizer"])
    chosen = dict(config["scheduler"])
    assert schedulers.build(chosen.pop("name"), optimizer, 10, **chosen)
    if group in ("model", "optimizer", "scheduler"):
        assert option.startswith(config[group]["name"])  # scot_t is a scot


def fits_signature(function, arguments):
    given = {key: value for key, value in arguments.items() if key != "name"}
    return inspect.signature(function).bind(**given) is not None


def test_every_registered_name_has_its_yaml():
    sizes = {"scot_t", "scot_s", "scot_b", "scot_l"}
    assert set(GROUPS["model"]) - sizes == set(models)
    assert set(GROUPS["logger"]) == {"csv", *loggers}
    assert set(GROUPS["optimizer"]) == set(optimizers)
    assert set(GROUPS["scheduler"]) == set(schedulers)
    assert set(GROUPS["task"]) == set(tasks)


@pytest.mark.parametrize("name", GROUPS["task"])
def test_task_files_hold_every_argument_with_its_default(name):
    arguments = dict(list(inspect.signature(tasks[name]).parameters.items())[2:])  # after the store and the budget
    written = composed("train", f"task={name}")["task"]
    assert written.pop("name") == name
    defaults = {key: list(p.default) if isinstance(p.default, tuple) else p.default for key, p in arguments.items()}
    assert written == defaults


def test_groups_of_parameters_by_the_command_line():
    config = composed("train", "+optimizer.groups.name=poseidon", "+optimizer.groups.time_lr=1e-4")
    assert config["optimizer"]["groups"] == {"name": "poseidon", "time_lr": 1e-4}
    model = models.build("fno", n_modes=[4, 4], in_channels=1, out_channels=1, hidden_channels=8)
    assert len(build_optimizer(model, **config["optimizer"]).param_groups) == 2  # decayed and not


def test_loggers_add_up():
    assert composed("train")["logger"] == {}  # metrics.csv alone
    assert composed("train", "logger=tensorboard")["logger"].keys() == {"tensorboard"}
    both = composed("train", "logger=[tensorboard,wandb]", "logger.wandb.project=darcy")["logger"]
    assert both.keys() == {"tensorboard", "wandb"}
    assert both["wandb"] == {"project": "darcy", "name": None, "mode": "offline"}


@pytest.mark.parametrize("option", ["poseidon_pretrain", "poseidon_finetune"])
def test_the_recipes_of_poseidon_fit_what_they_name(option):
    path = ["model.path=p"] if option == "poseidon_finetune" else []
    config = composed("train", f"experiment={option}", *path)
    assert Settings.of(config["trainer"]).gradient_clip == 5.0
    task, loss = config["task"], configured(config["loss"])
    assert fits_signature(tasks[task.pop("name")], {"store": None, **task})
    assert loss(torch.ones(2, 3, 4), torch.ones(2, 3, 4)).tolist() == [[0.0]]
    scot = models.build("scot", 1, 1, embed_dim=8, depths=[1], num_heads=[1], skip_connections=[0])
    rates = {group["lr"] for group in build_optimizer(scot, **config["optimizer"]).param_groups}
    assert rates == ({5e-5, 5e-4} if "fine" in option else {1e-3})


def test_an_experiment_wins_over_the_primary_config():
    demo = composed("train", "experiment=demo")
    plain = composed("train")
    assert demo != plain
    assert demo["model"]["name"] == "tfno"
    # ... and the command line over both.
    assert composed("train", "experiment=demo", "trainer.epochs=77")["trainer"]["epochs"] == 77


@pytest.fixture
def command(monkeypatch, make_store, tmp_path):
    """Run a command as its console script does, in an empty folder, on a dataset in memory."""
    monkeypatch.chdir(tmp_path)
    stores = {"data/a": make_store(path="data/a"), "data/fine": make_store(path="data/fine", shape=(24, 24))}
    monkeypatch.setattr(datagen.store, "open_store", lambda path: stores[path])

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


SMALL = ["model.n_modes=[6,6]", "model.hidden_channels=8", "model.n_layers=2", "trainer.epochs=2", "trainer.device=cpu"]


def test_train_evaluate_predict(command, make_store, tmp_path, capsys):
    command(train, "dataset.path=data/a", "model=tfno", "model.rank=0.5", *SMALL, "out=runs/tfno")
    assert "runs/tfno: best.pt is from epoch 2 of 2, validation relative L2" in capsys.readouterr().out
    assert {p.name for p in Path("runs/tfno").iterdir()} == {
        ".lock", "config.yaml", "metrics.csv", "best.pt", "last.pt", "loss.png",
    }  # fmt: skip
    assert {p.name for p in tmp_path.iterdir()} == {"runs"}  # no folders of Hydra's own

    command(evaluate, "checkpoint=runs/tfno/best.pt", "dataset.path=data/a")
    printed = capsys.readouterr().out
    assert "training mean: test relative L2" in printed
    assert "report: runs/tfno/evaluation/report.md" in printed
    assert Path("runs/tfno/evaluation/metrics.json").exists()
    command(evaluate, "checkpoint=runs/tfno/best.pt", "dataset.path=data/fine", "out=fine", "device=cpu")
    assert "24 x 24 grid (trained on 16 x 16)" in Path("fine/report.md").read_text()

    fields = make_store().read("test", "source")
    np.save("a.npy", fields)
    np.save("b.npy", fields[:, None])
    command(predict, "checkpoint=runs/tfno/best.pt", "input=a.npy", "output=u.npy")
    command(predict, "checkpoint=runs/tfno/last.pt", "input=b.npy", "output=v.npy")
    assert np.load("u.npy").shape == (6, 1, 16, 16)
    np.testing.assert_array_equal(np.load("u.npy"), np.load("v.npy"))  # best is last here


def test_the_report_reproduces_the_run(command, capsys):
    command(train, "dataset.path=data/a", "model=fno", *SMALL, "out=runs/fno")
    command(evaluate, "checkpoint=runs/fno/best.pt", "dataset.path=data/a")
    block = Path("runs/fno/evaluation/report.md").read_text().split("```bash\n")[1].split("\n```")[0]
    words = block.replace("\\\n", " ").split("southwell-evaluate")[0].split()
    assert words[0] == "southwell-train"
    command(train, *words[1:])  # refused if one key differed; finished already as none does
    assert "best.pt is from epoch 2 of 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        (train, ["dataset.path=data/a"], "out must be given: out=..."),
        (train, ["dataset.path=data/a", "out=o", "model.ranks=0.1"], "Did you mean model.rank"),
        (train, ["dataset.path=data/a", "out=o", "model=tfn"], "tfno"),
        (train, ["dataset.path=data/a", "out=o", "model.n_modes=[4]"], "1 grid axes"),
        (evaluate, ["checkpoint=none.pt", "dataset.path=data/a"], "no checkpoint at none.pt"),
        (predict, ["checkpoint=none.pt", "input=a.npy", "output=u.npy"], "input=a.npy: there is no such file"),
        (predict, ["checkpoint=none.pt", "input=empty.npy", "output=u.txt"], "must end in .npy"),
        (predict, ["checkpoint=none.pt", "input=empty.npy", "output=empty.npy"], "is the input file"),
        (predict, ["checkpoint=none.pt", "input=empty.npy", "output=no/u.npy"], "folder does not exist"),
    ],
)
def test_bad_input_ends_with_a_sentence_and_code_2(module, arguments, message, command, capsys):
    Path("empty.npy").touch()
    with pytest.raises(SystemExit) as end:
        command(module, *arguments)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert error.count("error:") == 1


def test_a_time_budget_is_no_failure_and_the_same_words_go_on(command, capsys):
    words = ["dataset.path=data/a", *SMALL, "trainer.max_minutes=0", "out=run"]
    command(train, *words)
    assert "run: no epoch was finished in trainer.max_minutes" in capsys.readouterr().out
    command(evaluate, "checkpoint=run/best.pt", "dataset.path=data/a")  # there is something to evaluate
    command(train, *words[:-2], "trainer.max_minutes=null", "out=run")
    assert "run: best.pt is from epoch 2 of 2" in capsys.readouterr().out


def test_a_file_that_is_no_array_is_a_sentence(command, capsys):
    command(train, "dataset.path=data/a", *SMALL, "out=run")
    Path("bad.npy").write_bytes(b"not an array")
    with pytest.raises(SystemExit) as end:
        command(predict, "checkpoint=run/best.pt", "input=bad.npy", "output=u.npy")
    assert end.value.code == 2
    assert "input=bad.npy could not be read as arrays of numbers" in capsys.readouterr().err


def test_folders_may_have_names_that_yaml_reads_as_numbers(command):
    command(train, "dataset.path=data/a", *SMALL, "out=7")
    assert Path("7/best.pt").exists()
    command(evaluate, "checkpoint=7/best.pt", "dataset.path=data/a", "out=nan")
    assert Path("nan/report.md").exists()
