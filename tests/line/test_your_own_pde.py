"""A family from a separate package, word for word as docs/your-own-pde.md has it."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from datagen.store import open_store

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/your-own-pde.md").read_text()


def block(kind: str, number: int = 0) -> str:
    """A fenced block of the page."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, flags=re.S | re.M)[number]


@pytest.fixture
def installed(tmp_path):
    """The package as pip would leave it: the module, and the metadata that pyproject.toml asks for."""
    module, project = block("python"), block("toml")
    assert len(module.splitlines()) + len(project.splitlines()) < 60
    metadata = tomllib.loads(project)["project"]
    site = tmp_path / "site"
    info = site / f"{metadata['name'].replace('-', '_')}-{metadata['version']}.dist-info"
    info.mkdir(parents=True)
    (site / "my_pdes.py").write_text(module)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {metadata['name']}\nVersion: {metadata['version']}\n")
    lines = []
    for group, points in metadata["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return site


def run(site, *words):
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment, cwd=site.parent)
    return done.returncode, done.stdout, done.stderr


GENERATE = ("-m", "datagen.commands.generate", "pde=decay", "samples.train=6", "samples.validation=2", "samples.test=2")


def test_the_package_of_the_page_makes_a_dataset(installed, tmp_path):
    words = ("pde.grid=12", "pde.rate=25", "shard.size=4", "solver.rtol=1e-8", "executor.workers=1", "out=data/decay")
    code, _, errors = run(installed, *GENERATE, *words)
    assert code == 0, errors
    code, text, errors = run(installed, "-m", "datagen.commands.data", "validate", "data/decay")
    assert code == 0, errors
    assert "no independent scheme for family 'decay'" in text
    assert "10 samples checked, 10 solved again" in text
    # This process does not have the package: the dataset says what is missing.
    with pytest.raises(ValueError, match="unknown PDE family 'decay'"):
        open_store(tmp_path / "data/decay")

    code, _, errors = run(installed, *GENERATE, "pde.rat=25", "out=data/other")
    assert code == 2
    assert "pde.rate" in errors


def test_the_check_of_the_page_shows_second_order(installed):
    code, text, errors = run(installed, "-c", block("python", 1))
    assert code == 0, errors
    (_, coarse), (_, fine) = (line.split() for line in text.splitlines())
    # h^2 (1 + O(h^2)), h = 1/16: within a few percent of 4.
    assert float(coarse) / float(fine) == pytest.approx(4, rel=0.05)


def test_a_package_that_cannot_be_imported_is_named(installed):
    (installed / "my_pdes.py").write_text("import there_is_no_such_module\n")
    code, _, errors = run(installed, *GENERATE, "out=data/decay")
    assert code == 2
    assert "PDE family 'decay' (my_pdes:Decay) cannot be imported" in errors
