"""What southwell-generate tells the person who waits for it."""

import io
import re

import numpy as np
import pytest

from datagen.commands import generate as command
from datagen.plan import ShardSolver
from datagen.store import Spec, open_store

CONFIG = {
    "pde": {"name": "darcy", "grid": 12},
    "seed": 3,
    "samples": {"train": 9, "validation": 2, "test": 2},
    "shard": {"size": 3, "index": None, "count": None},
    "solver": {"method": "direct", "rtol": 1e-8},
    "store": {"dtype": "float32"},
    "executor": {"name": "serial", "workers": 1},
    "inputs": None,
    "dry_run": False,
}


def told(capsys, folder, **changes):
    command.generate_command({**CONFIG, "out": folder, **changes})
    return capsys.readouterr().out


def test_the_table_says_what_is_in_the_dataset(tmp_path, capsys):
    first = told(capsys, tmp_path / "d", shard={"size": 3, "index": 0, "count": 2})
    assert "made          8 now, 0 were there" in first  # the shards 0, 2 and 4 of 3, 3, 3, 2 and 2 samples
    text = told(capsys, tmp_path / "d")
    assert text.startswith(f"13 samples in {tmp_path / 'd'} (5 shards, ")
    assert "made          5 now, 8 were there" in text
    assert "failed draws  0 of 13" in text
    data = open_store(tmp_path / "d")
    residuals = np.concatenate([data.record(split, "quality/relative_residual") for split in data.sizes])
    words = re.search(r"median (\S+), 90 % below (\S+), worst (\S+)\n", text).groups()
    # Two digits are shown of residuals whose third is rounded.
    np.testing.assert_allclose([float(w) for w in words], np.quantile(residuals, [0.5, 0.9, 1.0]), rtol=0.06)
    size = sum(path.stat().st_size for path in (tmp_path / "d").rglob("*.hdf5"))
    assert f"{size / 1e6:,.1f} MB" in text


def test_failed_draws_are_counted_by_their_reasons(tmp_path, capsys, monkeypatch):
    import dataclasses

    from solvers import Status

    honest, calls = ShardSolver.__call__, []

    def sometimes(self, system):
        calls.append(1)
        status = {2: Status.STAGNATED, 3: Status.BREAKDOWN, 7: Status.STAGNATED}.get(len(calls), Status.CONVERGED)
        return dataclasses.replace(honest(self, system), status=status, reason="told to: fail")

    monkeypatch.setattr(ShardSolver, "__call__", sometimes)
    text = told(capsys, tmp_path / "d")
    assert "failed draws  3 of 16, drawn anew: 2 STAGNATED, 1 BREAKDOWN\n" in text


def test_rate_and_time_left_are_of_what_this_run_makes(monkeypatch):
    progress = command._Progress(100)
    spec = Spec({"name": "darcy", "grid": 8}, 0, {"train": 100, "validation": 0, "test": 0}, 20, CONFIG["solver"])
    sidecar = {"bytes": 5, "relative_residuals": [1e-9], "seconds": {"solve": 2.0}, "failed_attempts": {}}
    progress.found_shard(spec.shards[0], sidecar)
    assert progress.sentence(1.0) == "20 of 100 samples, 0 samples/s, unknown time left"
    progress.made_shard(spec.shards[1], {**sidecar, "failed_attempts": {"3": ["STAGNATED: so"]}})
    # 20 made in 4 s are 5 a second; 60 are left. Those that were found say nothing of the speed.
    assert progress.sentence(4.0) == "40 of 100 samples, 5 samples/s, 0:00:12 left, 1 failed draws"


@pytest.mark.parametrize("watched", [True, False])
def test_a_line_every_half_minute_where_nobody_watches(monkeypatch, caplog, watched):
    monkeypatch.setattr(command, "_LOG_SECONDS", -1.0)
    caplog.set_level("INFO", logger=command.log.name)
    bar = command.tqdm
    monkeypatch.setattr(command, "tqdm", lambda **k: bar(**{**k, "disable": not watched, "file": io.StringIO()}))
    progress = command._Progress(20)
    spec = Spec({"name": "darcy", "grid": 8}, 0, {"train": 20, "validation": 0, "test": 0}, 20, CONFIG["solver"])
    sidecar = {"bytes": 5, "relative_residuals": [1e-9], "seconds": {"solve": 2.0}, "failed_attempts": {}}
    progress.made_shard(spec.shards[0], sidecar)
    progress.bar.close()
    assert ("20 of 20 samples" in caplog.text) == (not watched)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        *(({group: None}, f"{group} must hold keys and values") for group in ("pde", "samples", "shard", "store")),
        ({"out": None}, "out must be given"),
        ({"dry_run": "maybe"}, "dry_run must be true or false"),
        ({"shard": {"size": 3, "index": "a", "count": 3}}, "shard.index must be a whole number"),
        ({"shard": {"size": 3, "index": 0, "count": 0}}, "shard.count must be a whole number of at least 1"),
    ],
)
def test_nonsense_is_refused_by_its_key_and_leaves_nothing(tmp_path, monkeypatch, changes, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=words):
        command.generate_command({**CONFIG, "out": "d", **changes})
    assert not list(tmp_path.iterdir())


def test_the_untouched_solver_is_that_of_the_configuration():
    from importlib.resources import files

    import yaml

    assert yaml.safe_load(files("configs").joinpath("solver/auto.yaml").read_text()) == command.UNTOUCHED_SOLVER


@pytest.mark.parametrize(
    ("name", "solver", "words"),
    [
        ("burgers", {"method": "auto", "rtol": 1e-9}, r"solver\.rtol would change nothing: .*etdrk4.* pde\.step"),
        ("advection", {"method": "cg", "M": "amg", "rtol": 1e-6}, r"solver\.M, solver\.method would change nothing"),
        ("euler", {"method": "direct", "rtol": 1e-6}, r"solver\.method would .* pde\.courant"),
        ("heat", {"method": "auto", "rtol": 1e-9}, r"solver\.rtol=1e-09 would change nothing: .* solved to 1e-12"),
    ],
)
def test_keys_of_the_solver_that_would_change_nothing_are_refused(tmp_path, name, solver, words):
    config = {**CONFIG, "pde": {"name": name, "grid": 8}, "solver": solver, "out": tmp_path / "d"}
    with pytest.raises(ValueError, match=words):
        command.generate_command(config)
    assert not list(tmp_path.iterdir())


def test_who_solves_the_steps_may_be_chosen(tmp_path, capsys):
    pde = {"name": "heat", "grid": 6, "final_time": 0.1, "frames": 2}
    told(capsys, tmp_path / "d", pde=pde, solver={"method": "cg", "rtol": 1e-6})
    told(capsys, tmp_path / "e", pde=pde, solver={"method": "auto", "rtol": 1e-13})
