"""The commands as a person meets them: help, misspelt keys, refusals, sweeps, a config directory of one's own."""

import importlib
import logging
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra

from datagen.commands.solve import read_matrix, read_vector
from datagen.family import load_families

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
PRIMARY = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
GROUPS = sorted(
    (path.parent.relative_to(CONFIGS).as_posix(), path.stem)
    for path in CONFIGS.rglob("*.yaml")
    if path.parent != CONFIGS and not {"hydra", "gp"} & {*path.relative_to(CONFIGS).parts}
)  # every primary overrides hydra's; southwell-gp has a folder, and pdes, of its own


def southwell(command: str, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    room = "datagen" if command in ("generate", "data", "solve") else "operators"
    arguments = [sys.executable, "-m", f"{room}.commands.{command}", *words]
    return subprocess.run(arguments, capture_output=True, text=True, cwd=cwd, env=environment())


def environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Run a command in this process, which must refuse it; returns what it wrote on standard error."""
    handler = signal.getsignal(signal.SIGTERM)
    handlers, level = list(logging.root.handlers), logging.root.level

    def run(command: str, words: list[str]) -> str:
        room = "datagen" if command in ("generate", "data", "solve") else "operators"
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [f"southwell-{command}", *words])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        with pytest.raises(SystemExit) as stop:
            importlib.import_module(f"{room}.commands.{command}").main()
        captured = capsys.readouterr()
        assert stop.value.code == 2, captured.err
        return captured.err

    yield run
    GlobalHydra.instance().clear()
    signal.signal(signal.SIGTERM, handler)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.mark.parametrize("name", PRIMARY)
def test_primary_configs_compose(name):
    with initialize_config_module("configs", version_base="1.3"):
        compose(name)


@pytest.mark.parametrize(("group", "option"), GROUPS)
def test_every_group_option_composes_with_the_primaries_that_have_its_group(group, option):
    users = [name for name in PRIMARY if f"- {group}:" in (CONFIGS / f"{name}.yaml").read_text()]
    assert users, f"no primary config uses group {group}"
    composed = 0
    with initialize_config_module("configs", version_base="1.3"):
        for name in users:
            # Experiments belong to one primary: they override groups that others do not have.
            text = (CONFIGS / group / f"{option}.yaml").read_text()
            if group == "experiment" and "/model" in text and name != "train":
                continue
            compose(name, overrides=[f"{group}={option}"])
            composed += 1
    assert composed


@pytest.mark.parametrize("pde", sorted(path.stem for path in (CONFIGS / "gp" / "pde").glob("*.yaml")))
def test_every_problem_of_the_gaussian_process_composes(pde):
    with initialize_config_module("configs.gp", version_base="1.3"):
        assert compose("gp", overrides=[f"pde={pde}"]).pde.name == pde


@pytest.mark.parametrize("command", ["generate", "solve", "train", "evaluate", "predict"])
def test_help_and_cfg_job(command):
    shown = southwell(command, "--help")
    assert shown.returncode == 0
    assert "Config" in shown.stdout
    if command == "generate":
        families = load_families()
        for name in families:
            assert (name in shown.stdout) == families[name].made_by_solving  # others come from a file
    if command == "train":  # the same for all, and a process each
        job = southwell(command, "--cfg", "job")
        assert job.returncode == 0
        assert "out:" in job.stdout


@pytest.mark.parametrize(
    ("command", "words", "near"),
    [
        ("generate", ["out=x", "samples.trian=10"], "samples.train"),
        ("generate", ["out=x", "pde.gird=32"], "pde.grid"),
        ("generate", ["out=x", "sede=1"], "seed"),
        ("generate", ["out=x", "pde=darci"], "darcy"),
        ("generate", ["out=x", "executor.wokers=2"], "executor.workers"),
        ("train", ["out=x", "dataset.path=y", "trainer.epoch=2"], "trainer.epochs"),
        ("train", ["out=x", "dataset.path=y", "model=fno", "model.hiden_channels=8"], "model.hidden_channels"),
        ("train", ["out=x", "dataset.path=y", "model=tfo"], "tfno"),
        ("solve", ["matrx=A.mtx"], "matrix"),
        ("evaluate", ["chekpoint=a", "dataset.path=b"], "checkpoint"),
    ],
)
def test_misspelt_keys_end_with_the_near_names(tmp_path, refused, command, words, near):
    text = refused(command, words)
    assert text.startswith("error: ")
    assert near in text
    assert not list(tmp_path.iterdir()), "a refused command left something behind"


@pytest.mark.parametrize(
    ("command", "words", "sentence"),
    [
        ("generate", [], "out=..."),
        ("generate", ["out=d", "pde.grid=0"], "at least 2"),
        ("generate", ["out=d", "pde.grid=-4"], "at least 2"),
        ("generate", ["out=d", "pde.grid=many"], "grid must be int | tuple[int, ...], got 'many'"),
        ("generate", ["out=d", "samples.train=0"], "samples.train"),
        ("generate", ["out=d", "samples.test=-1"], "samples.test"),
        ("generate", ["out=d", "samples.train=1.5"], "samples.train"),
        ("generate", ["out=d", "shard.size=0"], "shard.size"),
        ("generate", ["out=d", "shard.index=1"], "go together"),
        ("generate", ["out=d", "shard.index=3", "shard.count=3"], "0 to shard.count - 1"),
        ("generate", ["out=d", "executor.workers=0"], "executor.workers"),
        ("generate", ["out=d", "executor.workers=-1"], "executor.workers"),
        ("generate", ["out=d", "executor.name=slurm"], "processes"),
        ("generate", ["out=d", "pde.name=naver_stoks"], "unknown PDE family"),
        ("generate", ["out=d", "pde=burgers", "pde.frames=1"], "frames must be at least 2"),
        ("generate", ["out=d", "solver.method=sors"], "method"),
        ("generate", ["out=d", "solver.rtol=2"], "rtol"),
        ("generate", ["out=d", "solver=cg", "solver.M=ilut"], "ilut"),
        ("generate", ["out=d", "+solver.maxiter=many"], "maxiter"),
        ("generate", ["out=d", "+solver.time_limit=1"], "time_limit"),
        ("generate", ["out=d", "pde.tau=long"], "tau must be float, got 'long'"),
        ("generate", ["out=d", "store.dtype=int8"], "float32"),
        ("train", ["out=d", "dataset.path=nowhere"], "no dataset at nowhere"),
        ("evaluate", ["checkpoint=nowhere.pt", "dataset.path=nowhere"], "nowhere"),
        ("solve", ["matrix=nowhere.mtx"], "no such file"),
        ("predict", ["checkpoint=nowhere.pt", "input=a.npy", "output=u.npy"], "no such file"),
    ],
)
def test_bad_input_is_refused_in_a_sentence_and_nothing_is_left(tmp_path, refused, command, words, sentence):
    text = refused(command, words)
    assert text.startswith("error: ")
    assert sentence in text
    assert not list(tmp_path.iterdir()), "a refused command left something behind"


def test_a_refusal_from_a_real_process_is_one_line_and_code_2(tmp_path):
    result = southwell("generate", "out=d", "pde.grid=0", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr == "error: darcy: grid must be at least 2 along every axis, got 0\n"


def test_dry_run_says_samples_hours_and_bytes_and_writes_nothing(tmp_path):
    result = southwell("generate", "out=d", "pde.grid=16", "samples.train=1000", "dry_run=true", cwd=tmp_path)
    assert result.returncode == 0
    for words in ("1,200 samples", "12 shards", "MB", "hours"):
        assert words in result.stdout
    assert not list(tmp_path.iterdir())


def test_sweeps_and_an_own_config_directory(tmp_path):
    own = tmp_path / "own"
    (own / "pde").mkdir(parents=True)
    (own / "pde" / "fine_darcy.yaml").write_text("defaults: [darcy, _self_]\ngrid: 10\ntau: 6.0\n")
    counts = ["samples.train=2", "samples.validation=0", "samples.test=1", "executor=serial"]
    result = southwell(
        "generate",
        "-m",
        "--config-dir",
        str(own),
        "pde=fine_darcy",
        "seed=1,2",
        "out=data/${seed}",
        *counts,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert {p.name for p in (tmp_path / "data").iterdir()} == {"1", "2", "multirun.yaml"}  # Hydra's record of the sweep
    assert "tau=6.0" in southwell("data", "info", "data/2", cwd=tmp_path).stdout
    assert {p.name for p in tmp_path.iterdir()} == {"own", "data"}


def test_solve_reads_its_formats_and_writes_a_true_solution(tmp_path):
    A = scipy.sparse.diags_array([-1.0, 2.5, -1.0], offsets=[-1, 0, 1], shape=(30, 30), format="csr")
    b = np.linspace(1, 2, 30)
    scipy.io.mmwrite(tmp_path / "A.mtx", A)
    scipy.sparse.save_npz(tmp_path / "A.npz", A)
    np.save(tmp_path / "A.npy", A.toarray())
    np.save(tmp_path / "b.npy", b)
    np.savez(tmp_path / "b.npz", b)
    np.savetxt(tmp_path / "b.txt", b)
    scipy.io.mmwrite(tmp_path / "b.mtx", b[:, None])
    for name in ("A.mtx", "A.npz", "A.npy"):
        matrix = read_matrix(tmp_path / name)
        np.testing.assert_array_equal(matrix if isinstance(matrix, np.ndarray) else matrix.toarray(), A.toarray())
    for name in ("b.npy", "b.npz", "b.txt", "b.mtx"):
        np.testing.assert_allclose(read_vector(tmp_path / name, "rhs"), b, rtol=1e-15)
    result = southwell("solve", "matrix=A.mtx", "rhs=b.npz", "out=x.npy", "rtol=1e-10", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "CONVERGED" in result.stdout
    assert np.linalg.norm(b - A @ np.load(tmp_path / "x.npy")) <= 1e-10 * np.linalg.norm(b)
    np.save(tmp_path / "bad.npy", np.array([1.0, np.nan, 2.0]))
    assert southwell("solve", "matrix=A.mtx", "rhs=bad.npy", cwd=tmp_path).returncode == 2
    np.save(tmp_path / "object.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    refused = southwell("solve", "matrix=A.mtx", "rhs=object.npy", cwd=tmp_path)
    assert refused.returncode == 2
    assert "allow_pickle" in refused.stderr
    indefinite = southwell("solve", "matrix=I.mtx", "rhs=b.npy", "method=cg", cwd=tmp_path)
    assert indefinite.returncode == 2
    scipy.io.mmwrite(tmp_path / "I.mtx", scipy.sparse.diags_array([1.0, -1.0] * 15).tocsr())
    indefinite = southwell("solve", "matrix=I.mtx", "rhs=b.npy", "method=cg", cwd=tmp_path)
    assert indefinite.returncode == 1
    assert "INDEFINITE" in indefinite.stdout
    assert "NOT a solution" in indefinite.stdout


def test_a_shadowed_configs_package_is_explained(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "__init__.py").write_text("")
    result = southwell("generate", "out=d", cwd=tmp_path)
    assert result.returncode == 2
    assert "shadows" in result.stderr
