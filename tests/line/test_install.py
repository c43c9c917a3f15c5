"""What a user installs: a wheel in a clean environment, outside the repository; and what the README has them type."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def clean_environment(**extra: str) -> dict[str, str]:
    dropped = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    return {**{k: v for k, v in os.environ.items() if k not in dropped}, **extra}


def tracked() -> list[str]:
    """Files in git."""
    return subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    place, source = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("source")
    # From a copy: setuptools would put into the wheel what earlier builds have left in the tree's build/lib.
    for name in tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    words = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(place), str(source)]
    subprocess.run(words, check=True)
    (path,) = place.glob("southwell-*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_holds_every_yaml_and_marker_in_git_and_nothing_else(wheel):
    packages = ("solvers/", "datagen/", "operators/", "configs/")
    wanted = {
        p for p in tracked() if p.startswith(packages) and p.endswith((".py", ".yaml", "py.typed", ".safetensors"))
    }
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == wanted


@pytest.mark.slow
def test_every_console_script_runs_from_a_clean_environment(wheel, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    bin_folder = tmp_path / "venv" / "bin"
    install = [bin_folder / "python", "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel]
    subprocess.run(install, check=True, env=clean_environment())
    work = tmp_path / "work"
    work.mkdir()

    def run(script: str, *words: str) -> str:
        result = subprocess.run(
            [bin_folder / script, *words], capture_output=True, text=True, cwd=work, env=clean_environment()
        )
        assert result.returncode == 0, f"{script} {words}: {result.stderr}"
        return result.stdout

    for script in PROJECT["scripts"]:
        assert "usage" in run(script, "--help").lower() or "Config" in run(script, "--help")
    run("southwell-generate", "pde.grid=12", "samples.train=8", "samples.validation=2", "samples.test=2", "out=data")
    assert "no faults found" in run("southwell-data", "validate", "data")
    small = ["model.n_modes=[4,4]", "model.hidden_channels=4", "model.n_layers=1", "trainer.epochs=1"]
    run("southwell-train", "dataset.path=data", *small, "out=run")
    run("southwell-evaluate", "checkpoint=run/best.pt", "dataset.path=data")
    write = (
        "import numpy as np, scipy.io, scipy.sparse as sp; np.save('a.npy', np.ones((1, 1, 12, 12)));"
        "scipy.io.mmwrite('A.mtx', sp.eye_array(5).tocsr())"
    )
    subprocess.run([bin_folder / "python", "-c", write], check=True, cwd=work, env=clean_environment())
    run("southwell-predict", "checkpoint=run/best.pt", "input=a.npy", "output=u.npy")
    assert "CONVERGED" in run("southwell-solve", "matrix=A.mtx")
    names = "solvers, datagen, operators, configs"
    places = f"import {names}; print([module.__file__ for module in ({names})])"
    printed = subprocess.run(
        [bin_folder / "python", "-c", places],
        capture_output=True,
        text=True,
        check=True,
        cwd=work,
        env=clean_environment(),
    ).stdout
    assert str(ROOT) not in printed
    light = "import sys, solvers; print(sorted({'torch', 'pyamg', 'h5py', 'hydra', 'matplotlib'} & set(sys.modules)))"
    printed = subprocess.run(
        [bin_folder / "python", "-c", light],
        capture_output=True,
        text=True,
        check=True,
        cwd=work,
        env=clean_environment(),
    ).stdout
    assert printed.strip() == "[]", "import solvers must need numpy, scipy and numba only"


def readme_commands() -> list[str]:
    """The ``bash`` blocks of the README, in order, but for cloning and make, which fresh-clone covers."""
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / "README.md").read_text(), flags=re.M | re.S)
    keep = [block for block in blocks if not re.search(r"^(git clone|make |pip install|cd )", block, flags=re.M)]
    assert keep, "the README shows no commands"
    return keep


@pytest.mark.slow
def test_every_readme_command_runs_in_order(tmp_path):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    script = "set -euo pipefail\n" + "\n".join(readme_commands())
    result = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, env=clean_environment(PATH=path)
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_import_solvers_is_light():
    light = "import sys, solvers; print(sorted({'torch', 'pyamg', 'h5py', 'hydra', 'matplotlib'} & set(sys.modules)))"
    printed = subprocess.run(
        [sys.executable, "-c", light],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=clean_environment(PYTHONPATH=str(ROOT)),
    ).stdout
    assert printed.strip() == "[]"
