"""The Dask executor: the same bytes, whoever dies meanwhile, and nothing left behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from datagen.files import sha256_of_file
from datagen.generate import generate
from datagen.store import Spec

pytest.importorskip("distributed")
psutil = pytest.importorskip("psutil")  # distributed brings it

ROOT = Path(__file__).parents[2]
SPEC = {
    "pde": {"name": "darcy", "grid": 16},
    "seed": 4,
    "samples": {"train": 24, "validation": 1, "test": 1},
    "shard_size": 2,
    "solver": {"method": "auto", "rtol": 1e-8},
}


def workers_of(process):
    """Those that multiprocessing has spawned, apart from its resource tracker."""
    return [child for child in process.children(recursive=True) if any("spawn_main" in w for w in child.cmdline())]


def hashes(folder):
    return {p.relative_to(folder).as_posix(): sha256_of_file(p) for p in folder.rglob("*.hdf5")}


def test_a_worker_is_killed_and_the_bytes_are_those_of_one_process(tmp_path, monkeypatch):
    spec = Spec(**SPEC)
    monkeypatch.setattr("datagen.dask_executor._AHEAD", 5)  # fewer than there are shards
    killed = []

    def kill_one(shard, sidecar):
        if not killed:
            victim = workers_of(psutil.Process())[0].pid
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)

    distributed = generate(spec, tmp_path / "dask", executor="dask", workers=2, on_shard=kill_one)
    assert killed
    assert not psutil.pid_exists(killed[0])
    serial = generate(spec, tmp_path / "serial", executor="serial")
    assert len(hashes(serial)) == len(spec.shards)
    assert hashes(distributed) == hashes(serial)
    assert (distributed / "manifest.json").read_bytes() == (serial / "manifest.json").read_bytes()
    assert not workers_of(psutil.Process())


# Where the tests run in the background, interrupts are ignored; here they are as in a terminal.
MAIN = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
MAIN += "from datagen.commands.generate import main; main()"


@pytest.mark.parametrize(
    ("executor", "sign"),
    [
        pytest.param("dask", signal.SIGTERM, marks=pytest.mark.slow),
        ("dask", signal.SIGKILL),
        pytest.param("dask", signal.SIGINT, marks=pytest.mark.slow),
        ("processes", signal.SIGINT),
    ],
)
def test_an_ended_command_leaves_no_worker(tmp_path, executor, sign):
    """And Ctrl-C, which a terminal sends to the workers too, is answered in one sentence."""
    words = ["pde.grid=16", "samples.train=3000", "shard.size=5", f"executor={executor}", "executor.workers=1", "out=d"]
    command = [sys.executable, "-c", MAIN, *words]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        until = time.monotonic() + 300
        while not list(tmp_path.glob("d/train/*.json")):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < until
            time.sleep(0.1)
        workers = workers_of(psutil.Process(process.pid))
        assert workers
        (os.killpg if sign == signal.SIGINT else os.kill)(process.pid, sign)
        process.wait(300)
        gone, alive = psutil.wait_procs(workers, timeout=120)
        assert gone
        assert not alive
    finally:
        process.kill()
    if sign != signal.SIGKILL:
        assert process.returncode == 128 + sign
        assert "Traceback" not in (tmp_path / "log").read_text()
    if sign == signal.SIGINT:
        assert (tmp_path / "log").read_text() == "error: interrupted; repeat the command to go on\n"


def test_an_address_that_does_not_answer_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("datagen.dask_executor._ANSWER_SECONDS", 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(OSError, match=f"no Dask scheduler answers at executor.address={address}"):
        generate(Spec(**SPEC), tmp_path / "d", executor="dask", address=address)
    assert not list((tmp_path / "d").rglob("*.hdf5"))


def test_shards_are_made_by_the_workers_of_an_address(tmp_path):
    from distributed import LocalCluster

    few = Spec(**{**SPEC, "samples": {"train": 4, "validation": 0, "test": 1}})
    with LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster:
        made = generate(few, tmp_path / "dask", executor="dask", address=cluster.scheduler_address)
    assert hashes(made) == hashes(generate(few, tmp_path / "serial", executor="serial"))
