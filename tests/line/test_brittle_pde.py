"""A family of another package, some of whose samples fail: the same bytes whoever makes them and whatever happens."""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from datagen.files import read_json, sha256_of_file

ROOT = Path(__file__).parents[2]
MODULE = '''"""Diffusion that fails in three of a hundred draws, in three different ways."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from datagen import Family, Field, GaussianRandomField, Grid, LinearSystem, Sample, register
from datagen.discretise import Dirichlet, diffusion


@register("brittle")
@dataclass(frozen=True)
class Brittle(Family):
    """-Laplacian c = s on cells of the unit square, c = 0 on its sides."""

    grid: int = 10
    share: float = 0.03

    title: ClassVar[str] = "Diffusion, of which some samples fail"
    fields: ClassVar[tuple[Field, ...]] = (
        Field("source", "input", "mol/(m^2 s)", "release s"),
        Field("concentration", "output", "mol/m^2", "concentration c"),
    )
    mesh = property(lambda self: Grid((self.grid, self.grid), (1.0, 1.0)))
    boundary = property(lambda self: ((Dirichlet(0.0), Dirichlet(0.0)),) * 2)

    def sample(self, rng):
        source = GaussianRandomField(2.0, 5.0).sample(rng.spawn(1)[0], self.mesh)
        luck = rng.uniform()
        if luck < self.share / 3:
            source[0, 0] = np.nan
        return Sample({"source": source}, {"luck": luck})

    def system(self, sample):
        luck = sample.scalars["luck"]
        if self.share / 3 <= luck < 2 * self.share / 3:
            raise ValueError("brittle: out of luck")
        A, load = diffusion(np.ones(self.mesh.shape), self.mesh, self.boundary)
        if 2 * self.share / 3 <= luck < self.share:
            raise ZeroDivisionError("brittle: divided by nothing")
        return LinearSystem(A, (sample.fields["source"] + load).ravel(), lambda c: c.reshape(self.mesh.shape))
'''
WORDS = ("samples.train=150", "samples.validation=10", "samples.test=10", "shard.size=10", "seed=5")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The package as pip would leave it."""
    site = tmp_path_factory.mktemp("brittle") / "site"
    info = site / "brittle_pdes-0.1.dist-info"
    info.mkdir(parents=True)
    (site / "brittle_pdes.py").write_text(MODULE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brittle-pdes\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[southwell.pdes]\nbrittle = brittle_pdes:Brittle\n")
    return site


def started(site, *words, **keywords):
    path = os.pathsep.join([str(site), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *words]
    return subprocess.Popen(
        command,
        cwd=site.parent,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **keywords,
    )


def run(site, *words, **keywords):
    process = started(site, *words, **keywords)
    text, _ = process.communicate()
    return process.returncode, text


def generate(site, folder, *words, **keywords):
    return run(site, "datagen.commands.generate", "pde=brittle", *WORDS, f"out={folder}", *words, **keywords)


def bytes_of(folder):
    return {p.relative_to(folder).as_posix(): sha256_of_file(p) for p in folder.rglob("*.hdf5")} | {
        name: sha256_of_file(folder / name) for name in ("manifest.json", "spec.json")
    }


@pytest.fixture(scope="module")
def serial(site):
    code, text = generate(site, site.parent / "serial", "executor=serial")
    assert code == 0, text
    assert "drawn anew" in text
    failed = [
        reason
        for path in (site.parent / "serial").glob("*/*.json")
        for reasons in read_json(path)["failed_attempts"].values()
        for reason in reasons
    ]
    assert failed
    return site.parent / "serial"


@pytest.mark.slow
def test_what_was_drawn_anew_is_sound(site, serial):
    code, text = run(site, "datagen.commands.data", "validate", str(serial), "--resolve", "170")
    assert code == 0, text
    assert "170 samples checked, 170 solved again" in text


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["processes", "dask"])
def test_every_executor_gives_the_same_bytes(site, serial, executor):
    if executor == "dask":
        pytest.importorskip("distributed")
    code, text = generate(site, site.parent / executor, f"executor={executor}", "executor.workers=2")
    assert code == 0, text
    assert bytes_of(site.parent / executor) == bytes_of(serial)


@pytest.mark.slow
def test_jobs_in_any_order_give_the_same_bytes(site, serial):
    folder = site.parent / "jobs"
    jobs = list(range(4))
    random.Random(3).shuffle(jobs)
    for done, index in enumerate(jobs):
        code, text = generate(site, folder, "executor=serial", f"shard.index={index}", "shard.count=4")
        assert code == 0, text
        code, text = run(site, "datagen.commands.data", "merge", f"out={folder}")
        assert (code == 0) == (done == 3), text
        assert ("are missing or damaged" in text) == (done < 3)
    assert bytes_of(folder) == bytes_of(serial)


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_to_the_same_bytes(site, serial):
    folder = site.parent / "killed"
    for number in (1, 4, 9):
        words = ("datagen.commands.generate", "pde=brittle", *WORDS, f"out={folder}", "executor.workers=2")
        process = started(site, *words, start_new_session=True)
        until = time.monotonic() + 300
        while len(list(folder.glob("*/*.json"))) < number and process.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    code, text = generate(site, folder, "executor=serial")
    assert code == 0, text
    assert bytes_of(folder) == bytes_of(serial)
    assert not list(folder.rglob("*.partial"))


@pytest.mark.slow
def test_a_file_that_may_not_be_written_ends_the_run_in_a_sentence(site, serial):
    """As a full disk does, but at any size: writes beyond 20 kB fail, while a shard takes 30."""
    folder = site.parent / "full"

    def small():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    code, text = generate(site, folder, "executor=serial", preexec_fn=small)
    assert code == 1
    assert "error: could not write" in text
    assert "Traceback" not in text
    assert not list(folder.rglob("*.partial"))
    code, text = generate(site, folder, "executor=serial")
    assert code == 0, text
    assert bytes_of(folder) == bytes_of(serial)


@pytest.mark.slow
def test_too_many_failures_stop_every_executor_with_the_same_reason(site):
    sentences = set()
    for executor in ("serial", "processes"):
        folder = site.parent / f"hopeless-{executor}"
        code, text = generate(site, folder, f"executor={executor}", "pde.share=0.3")
        assert code == 1
        assert "draws failed, more than 5% of all draws" in text
        assert "brittle: out of luck" in text
        sentences.add(text.count("error:"))
    assert sentences == {1}
