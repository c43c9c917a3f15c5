"""Memory of the commands' processes."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource
import numpy as np
{first}
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        blocks = [np.ones(2**18) for _ in range(10)]  # of 2 MB
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


def faults(first: str, **environment: str) -> int:
    script = SCRIPT.format(first=first)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    return int(run.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_freed_memory_is_not_handed_out_anew():
    ours = "from operators.commands.memory import keep_freed_memory; keep_freed_memory()"
    blocks = 20 * 10 * 2**21 // 4096  # pages, if every block is new
    if faults("") < blocks // 2:
        pytest.skip("this allocator keeps what is freed")
    assert faults(ours) < blocks // 20
    assert faults(ours, MALLOC_TRIM_THRESHOLD_="1000") > blocks // 2  # the user's word counts
