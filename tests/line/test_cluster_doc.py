"""The commands of docs/cluster.md, with fewer samples, and an sbatch that runs arrays here, one job after the other."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from datagen.files import sha256_of_file

ROOT = Path(__file__).parents[2]
SBATCH = """#!/bin/bash
# Runs at once what sbatch would queue; says what it was told.
echo "$@" >> sbatch.log
for word in "$@"; do case $word in
  --array=*) range=${word#--array=};;
  *.sh) script=$word;;
esac; done
[ -z "$range" ] && exec bash $script
for i in $(seq ${range%-*} ${range#*-}); do SLURM_ARRAY_TASK_ID=$i bash $script >&2 || exit 1; done
echo 4711
"""


def blocks(tmp_path):
    """The ``bash`` blocks of the page, in order, small: 6 samples, 2 jobs, in this folder."""
    text = (ROOT / "docs/cluster.md").read_text()
    found = re.findall(r"^```bash\n(.*?)^```", text, flags=re.M | re.S)
    assert len(found) == 3
    small = {"samples.train=1000000": "samples.train=6 shard.size=1", "pde.grid=64": "pde.grid=12", "0-63": "0-1"}
    small |= {"shard.count=64": "shard.count=2", "/scratch": str(tmp_path)}
    for big, little in small.items():
        assert any(big in block for block in found), f"{big} is not on the page any more"
        found = [block.replace(big, little) for block in found]
    return found


@pytest.fixture
def shell(tmp_path):
    """Run a block with the commands of this checkout on the path."""
    tools = tmp_path / "bin"
    tools.mkdir()
    modules = {"southwell-generate": "datagen.commands.generate", "southwell-data": "datagen.commands.data"}
    for name, module in {**modules, "dask": "dask"}.items():
        (tools / name).write_text(f'#!/bin/bash\nexec {sys.executable} -m {module} "$@"\n')
    (tools / "sbatch").write_text(SBATCH)
    for tool in tools.iterdir():
        tool.chmod(0o755)
    python_path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": python_path}

    def run(block):
        script = ["bash", "-euo", "pipefail", "-m", "-c", block]  # -m: jobs have numbers, as where a person types
        result = subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    return run


def test_sums_and_arrays(tmp_path, shell):
    sums, slurm, _ = blocks(tmp_path)
    assert "6 samples in 6 shards" in shell(sums)
    shell(slurm)
    assert (tmp_path / "darcy64/manifest.json").exists()
    told = (tmp_path / "sbatch.log").read_text().splitlines()
    assert told == ["--parsable --array=0-1 generate.sh", "--dependency=afterok:4711 merge.sh"]


@pytest.mark.skipif(find_spec("distributed") is None, reason="needs the extra dask")
def test_an_address_gives_the_bytes_of_a_job_here(tmp_path, shell):
    *_, dask = blocks(tmp_path)
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shell(dask.replace("8786", str(port)))
    words = re.search(r"southwell-generate (.*?)out=", dask, flags=re.S).group(1).replace("\\\n", " ")
    shell(f"southwell-generate {words} executor=serial out={tmp_path}/here")
    made = sorted((tmp_path / "darcy64-dask").rglob("*.hdf5"))
    assert len(made) == 6
    for path in made:
        assert sha256_of_file(path) == sha256_of_file(tmp_path / "here" / path.relative_to(tmp_path / "darcy64-dask"))
