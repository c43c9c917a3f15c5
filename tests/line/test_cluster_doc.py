"""The commands of docs/cluster.md, with fewer samples, and an sbatch that runs arrays here, one job after the other."""

import re
from importlib.util import find_spec

import pytest

from datagen.files import sha256_of_file

SBATCH = """# Runs at once what sbatch would queue; says what it was told.
echo "$@" >> sbatch.log
for word in "$@"; do case $word in
  --array=*) range=${word#--array=};;
  *.sh) script=$word;;
esac; done
[ -z "$range" ] && exec bash $script
for i in $(seq ${range%-*} ${range#*-}); do SLURM_ARRAY_TASK_ID=$i bash $script >&2 || exit 1; done
echo 4711"""


def blocks(shell):
    """The ``bash`` blocks of the page, in order, small: 6 samples, 2 jobs, in this folder."""
    shell.command("dask", "dask")
    shell.tool("sbatch", SBATCH)
    found = [block for _, block in shell.blocks("docs/cluster.md", "bash")]
    assert len(found) == 3
    small = {"samples.train=1000000": "samples.train=6 shard.size=1", "pde.grid=64": "pde.grid=12", "0-63": "0-1"}
    small |= {"shard.count=64": "shard.count=2", "/scratch": str(shell.folder)}
    for big, little in small.items():
        assert any(big in block for block in found), f"{big} is not on the page any more"
        found = [block.replace(big, little) for block in found]
    return found


@pytest.mark.slow
def test_sums_and_arrays(shell):
    sums, slurm, _ = blocks(shell)
    assert "6 samples in 6 shards" in shell.bash(sums)
    shell.bash(slurm)
    assert (shell.folder / "darcy64/manifest.json").exists()
    told = (shell.folder / "sbatch.log").read_text().splitlines()
    assert told == ["--parsable --array=0-1 generate.sh", "--dependency=afterok:4711 merge.sh"]


@pytest.mark.skipif(find_spec("distributed") is None, reason="needs the extra dask")
@pytest.mark.slow
def test_an_address_gives_the_bytes_of_a_job_here(shell):
    *_, dask = blocks(shell)
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shell.bash(dask.replace("8786", str(port)))
    words = re.search(r"southwell-generate (.*?)out=", dask, flags=re.S).group(1).replace("\\\n", " ")
    shell.bash(f"southwell-generate {words} executor=serial out={shell.folder}/here")
    made = sorted((shell.folder / "darcy64-dask").rglob("*.hdf5"))
    assert len(made) == 6
    for path in made:
        assert sha256_of_file(path) == sha256_of_file(
            shell.folder / "here" / path.relative_to(shell.folder / "darcy64-dask")
        )
