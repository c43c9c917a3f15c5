"""PETSc's solvers (hypre's BoomerAMG among them) as peers: in a process of their own, which runs Debian's Python.

    apt-get install python3-petsc4py libopenblas0-pthread

`Petsc` starts the process, hands it systems and asks it to solve them; it inherits the core and the thread limits of
the caller, measures itself by the same clocks, and takes its turn like every other peer. `reference_seconds`, the same
numpy code in both processes, shows that neither is at a disadvantage.

This file runs on both sides, under two versions of numpy: it imports nothing else at its top.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

PYTHON = "/usr/bin/python3"
# Where Debian keeps the build for real numbers.
PACKAGES = "/usr/lib/petscdir/petsc3.18/x86_64-linux-gnu-real/lib/python3/dist-packages"

_CG = {"ksp_type": "cg", "ksp_norm_type": "unpreconditioned"}
_BOOMER = {**_CG, "pc_type": "hypre", "pc_hypre_type": "boomeramg"}
OPTIONS = {
    "hypre BoomerAMG + cg": _BOOMER,
    "hypre BoomerAMG, strong threshold 0.5 + cg": {**_BOOMER, "pc_hypre_boomeramg_strong_threshold": "0.5"},
    "hypre BoomerAMG, HMIS and ext+i + cg": {
        **_BOOMER,
        "pc_hypre_boomeramg_coarsen_type": "HMIS",
        "pc_hypre_boomeramg_interp_type": "ext+i",
    },
    "hypre BoomerAMG, PMIS, ext+i, 4 a row + cg": {
        **_BOOMER,
        "pc_hypre_boomeramg_coarsen_type": "PMIS",
        "pc_hypre_boomeramg_interp_type": "ext+i",
        "pc_hypre_boomeramg_P_max": "4",
    },
}


def available() -> bool:
    """Whether Debian's petsc4py is here."""
    return Path(PYTHON).exists() and Path(PACKAGES).is_dir()


def reference_seconds() -> float:
    """CPU time of ten updates ``a = b + 3 c`` of eight megabytes each: the least of five."""
    b, c = np.ones(1_000_000), np.ones(1_000_000)
    a = np.empty_like(b)
    best = float("inf")
    for _ in range(5):
        started = process_time()
        for _ in range(10):
            np.multiply(c, 3.0, out=a)
            np.add(a, b, out=a)
        best = min(best, process_time() - started)
    return best


class Petsc:
    """The process, with one system in it.

    Parameters
    ----------
    A : csr_array, shape (n, n)
    b : ndarray, shape (n,)
        The matrix is handed over, and PETSc's own copy assembled, before anything is timed.
    """

    def __init__(self, A: Any, b: np.ndarray) -> None:
        self._folder = tempfile.TemporaryDirectory()
        path = Path(self._folder.name) / "system.npz"
        indptr, indices = A.indptr.astype(np.int32), A.indices.astype(np.int32)
        np.savez(path, indptr=indptr, indices=indices, data=A.data, b=b)
        self._process = subprocess.Popen(
            [PYTHON, str(Path(__file__).resolve()), str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": PACKAGES, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        self.facts = self._answer()

    def solve(self, options: dict[str, str], rtol: float) -> dict[str, Any]:
        """Set up and solve; returns x, iterations, seconds (wall, CPU)."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"options": options, "rtol": rtol}) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        return {**answer, "x": np.load(answer["path"])}

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the PETSc process ended with code {self._process.wait()}")
        return dict(json.loads(line))


def serve(path: Path) -> None:
    """The other side: read a system, answer one request a line."""
    import petsc4py

    petsc4py.init([])
    from petsc4py import PETSc

    with np.load(path) as system:
        n = system["b"].size
        A = PETSc.Mat().createAIJ((n, n), csr=(system["indptr"], system["indices"], system["data"]))
        b = PETSc.Vec().createWithArray(system["b"].copy())
    A.setOption(PETSc.Mat.Option.SPD, True)
    A.assemble()
    facts = {
        "petsc": ".".join(map(str, PETSc.Sys.getVersion())),
        "numpy": np.__version__,
        "reference_seconds": reference_seconds(),
    }
    print(json.dumps(facts), flush=True)
    for count, line in enumerate(sys.stdin):
        request = json.loads(line)
        names = PETSc.Options()
        for name, value in request["options"].items():
            names[name] = value
        x = b.duplicate()
        began, began_cpu = perf_counter(), process_time()
        ksp = PETSc.KSP().create()
        ksp.setOperators(A)
        ksp.setTolerances(rtol=request["rtol"], atol=0.0, max_it=1000)
        ksp.setFromOptions()
        ksp.solve(b, x)
        seconds = perf_counter() - began, process_time() - began_cpu
        out = path.with_name(f"x{count % 2}.npy")
        np.save(out, x.getArray())
        print(json.dumps({"path": str(out), "iterations": ksp.getIterationNumber(), "seconds": seconds}), flush=True)
        ksp.destroy()
        for name in request["options"]:
            names.delValue(name)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
