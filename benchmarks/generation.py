"""Making Darcy data: whole pipelines against scipy and PyAMG, tolerances, two workers, memory.

python -m benchmarks.generation

Every pipeline starts from the same seeds, so from the same fields, and ends with solutions of the same system. What
Navier-Stokes data cost beside FNO's published scheme is in `benchmarks.navier_stokes`.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter, process_time, sleep, time
from typing import Any

import numpy as np
import pyamg
import scipy.sparse as sp
import scipy.sparse.linalg as sla
from threadpoolctl import threadpool_limits

from benchmarks.harness import Answer, Entry, main, triad
from datagen.family import seed_sequence
from datagen.plan import ShardSolver, planned
from datagen.shard import OF_A_SHARD, STAGES, make_shard, solve_sample
from datagen.store import Spec

RTOL = 1e-8


def spec_of(n: int, samples: int, rtol: float = RTOL, shard: int = 100) -> Spec:
    """The published Darcy problem on cells, planned."""
    counts = {"train": samples, "validation": 0, "test": 0}
    return planned(Spec({"name": "darcy", "grid": n}, 0, counts, shard, {"method": "auto", "rtol": rtol}))


def southwell(spec: Spec, count: int) -> Answer:
    """Draw, discretise, solve and check, as for a shard."""
    solver = ShardSolver(spec)
    solved = [solve_sample(spec, "train", index, solver) for index in range(count)]
    iterations = round(np.mean([s.costs["iterations"] for s in solved]))
    return Answer(np.concatenate([s.solution["pressure"].ravel() for s in solved]), iterations, method=solved[0].method)


def coefficients(spec: Spec, count: int) -> list[np.ndarray]:
    """The fields of the first samples, drawn from their seeds."""
    family = spec.family
    seeds = [seed_sequence(spec.seed, family.name, "train", index, 0) for index in range(count)]
    return [family.sample(np.random.default_rng(seed)).rounded(spec.dtype).fields["coefficient"] for seed in seeds]


def assembled(a: np.ndarray) -> tuple[sp.csr_array, np.ndarray]:
    """The five-point matrix of -div(a grad u), harmonic faces, u = 0 on the walls, by scipy's diagonals."""
    n = a.shape[0]
    r = 1 / a.astype(np.float64)
    x_face, y_face = np.zeros((n + 1, n)), np.zeros((n, n + 1))
    x_face[1:-1], y_face[:, 1:-1] = 2 / (r[:-1] + r[1:]), 2 / (r[:, :-1] + r[:, 1:])
    diagonal = x_face[:-1] + x_face[1:] + y_face[:, :-1] + y_face[:, 1:]
    for side in (0, -1):
        diagonal[side] += 2 / r[side]
        diagonal[:, side] += 2 / r[:, side]
    down, right = x_face[1:-1].ravel(), y_face[:, 1:].ravel()[:-1]
    A = sp.diags_array([diagonal.ravel(), -down, -down, -right, -right], offsets=[0, n, -n, 1, -1], format="csr")
    return sp.csr_array(A * float(n) ** 2), np.ones(n * n)


def scipy_direct(spec: Spec, count: int) -> Answer:
    """The same fields, scipy's matrix, spsolve."""
    systems = (assembled(a) for a in coefficients(spec, count))
    return Answer(np.concatenate([sla.spsolve(A.tocsc(), b) for A, b in systems]))


def pyamg_cg(spec: Spec, count: int) -> Answer:
    """The same fields, scipy's matrix, CG with PyAMG's Ruge-Stueben hierarchy."""
    solutions, iterations = [], []
    for a in coefficients(spec, count):
        A, b = assembled(a)
        residuals: list[float] = []
        hierarchy = pyamg.ruge_stuben_solver(sp.csr_matrix(A))
        solutions.append(hierarchy.solve(b, tol=RTOL, maxiter=100, accel="cg", residuals=residuals))
        iterations.append(len(residuals) - 1)
    return Answer(np.concatenate(solutions), round(np.mean(iterations)))


def worst_residual(spec: Spec, count: int) -> Callable[[np.ndarray], float]:
    """Largest relative residual, by the peers' matrices."""
    systems = [assembled(a) for a in coefficients(spec, count)]

    def error(x: np.ndarray) -> float:
        parts = zip(systems, x.reshape(count, -1), strict=True)
        return max(float(np.linalg.norm(b - A @ u) / np.linalg.norm(b)) for (A, b), u in parts)

    return error


def pipeline(n: int, count: int) -> Entry:
    """Seeds in, solutions out."""
    spec = spec_of(n, count)
    return Entry(
        name=f"{count} Darcy samples {n}^2",
        problem=(
            f"-div(a grad u) = 1 on {n} x {n} cells, u = 0 on the walls, harmonic faces; a = 12 or 3 by the sign of a "
            f"Gaussian field with covariance (-lap + 9)^-2; field, matrix and solve to rtol {RTOL:g}, one core"
        ),
        peers={
            "southwell": lambda: southwell(spec, count),
            "scipy: spsolve": lambda: scipy_direct(spec, count),
            "PyAMG: Ruge-Stueben + cg": lambda: pyamg_cg(spec, count),
        },
        error=worst_residual(spec, count),
        tolerance=1.1 * RTOL,
        agreement=1e-4,  # the residual is 1e-8, the condition number up to 1e6
        facts={"unknowns": count * n * n, "samples": count, "rtol": RTOL},
    )


def tolerances(n: int, count: int) -> Entry:
    """The same samples to looser and tighter labels; the error is that of the label."""
    truth = southwell(spec_of(n, count, 1e-10), count).x  # at 421^2 rounding allows little more
    specs = {f"southwell, rtol {rtol:g}": spec_of(n, count, rtol) for rtol in (1e-6, 1e-8, 1e-4, 1e-2)}
    return Entry(
        name=f"{count} Darcy samples {n}^2, tolerance of the label",
        problem="as above; error: relative l2 distance of the labels from those of rtol 1e-10",
        peers={name: lambda spec=spec: southwell(spec, count) for name, spec in specs.items()},  # type: ignore[misc]
        error=lambda x: float(np.linalg.norm(x - truth) / np.linalg.norm(truth)),
        tolerance=0.1,
        agreement=0.1,
        facts={"unknowns": count * n * n, "samples": count},
    )


# -- Whole shards: what is not the solver, two workers, memory --------------------------------------------------------


def timed_shard(n: int, count: int, begin: float = 0.0) -> dict[str, Any]:
    """Make one shard, at a given time; what it took."""
    spec = _shard_spec(n, count)
    with tempfile.TemporaryDirectory() as folder:
        sleep(max(begin - time(), 0.0))
        started, started_cpu = perf_counter(), process_time()
        sidecar = make_shard(spec, spec.shards[0], Path(folder))
        spent = perf_counter() - started, process_time() - started_cpu
    return {"spent": spent, "residuals": sidecar["relative_residuals"], "seconds": sidecar["seconds"]}


@cache
def _shard_spec(n: int, count: int) -> Spec:
    return spec_of(n, count, shard=count)


def timed_triad(n: int, count: int, begin: float = 0.0) -> dict[str, Any]:
    """The same for so many STREAM triads of n numbers, long enough that two of them are at it at the same time."""
    a, b, c = _triad_arrays(n)
    sleep(max(begin - time(), 0.0))
    started = perf_counter()
    for _ in range(count):
        triad(a, b, c, 3.0)
    seconds = perf_counter() - started
    return {"spent": (seconds, seconds)}


@cache
def _triad_arrays(n: int) -> tuple[np.ndarray, ...]:
    return np.zeros(n), np.ones(n), np.ones(n)


def two_workers(n: int, count: int) -> Entry:
    """A process alone, and two at the same time, that make shards or stream; the mean of what each takes.

    Both in turn by the same processes: whether two of them share a cache and its way to the memory is for the host of
    a virtual machine to say, and changes from minute to minute.
    """
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))  # for the workers
    pool = ProcessPoolExecutor(2, get_context("spawn"))

    def beside_each_other(work: Callable[..., dict[str, Any]], size: int, times: int, workers: int) -> Answer:
        begin = time() + 0.2  # by then both have their task
        found = list(pool.map(work, [size] * workers, [times] * workers, [begin] * workers))
        wall, cpu = np.mean([each["spent"] for each in found], axis=0)
        residuals = np.array(found[0].get("residuals", [0.0] * count))
        return Answer(residuals + 1.0, seconds=(float(wall), float(cpu)))

    works = {"shard": (timed_shard, n, count), "40 triads of 192 MB": (timed_triad, 8_000_000, 40)}
    for work in works.values():
        for _ in range(2):  # each worker imports, compiles and loads what there is
            beside_each_other(*work, 2)
    return Entry(
        name=f"a shard of {count} Darcy samples {n}^2, and streaming",
        problem="seconds of a process for the same work, alone and with another one beside it",
        peers={
            f"{name}, {workers} at a time": lambda work=work, workers=workers: beside_each_other(*work, workers)  # type: ignore[misc]
            for name, work in works.items()
            for workers in (1, 2)
        },
        error=lambda x: float(x.max() - 1.0),
        tolerance=RTOL,
        agreement=10 * RTOL,  # triads have no residual
        facts={"unknowns": count * n * n, "samples": count},
    )


def shards(n: int, count: int) -> Entry:
    """A shard, written; seconds by stage are medians of three.

    Storing goes on beside the computing, in a second thread: its share of the time is what the first one waits, its
    share of the CPU all that is not spent in the stages.
    """
    with threadpool_limits(limits=1):
        runs = [timed_shard(n, count) for _ in range(4)][1:]
    names = (*STAGES, *OF_A_SHARD)
    stages = {name: float(np.median([run["seconds"][name] for run in runs])) / count for name in names}
    wall, cpu = (float(np.median([run["spent"][k] for run in runs])) / count for k in range(2))
    computing = sum(stages[stage] for stage in STAGES)

    def whole() -> Answer:
        found = timed_shard(n, count)
        return Answer(np.array(found["residuals"]) + 1.0, seconds=found["spent"])

    return Entry(
        name=f"a shard of {count} Darcy samples {n}^2, written",
        problem="draw, discretise, solve, check, and HDF5, SHA-256, write, fsync",
        peers={"southwell": whole},
        error=lambda x: float(x.max() - 1.0),
        tolerance=RTOL,
        agreement=1e-9,
        facts={
            "unknowns": count * n * n,
            "samples": count,
            "seconds_a_sample": stages,
            "store_share_of_time": stages["store"] / wall,
            "share_of_cpu_beside_the_stages": 1 - computing / cpu,
        },
    )


def peak_memory(samples: int) -> float:
    """Bytes that a process of its own has needed at most for so many samples of 256^2, in shards of 50."""
    code = "import sys; from benchmarks.generation import _generate; _generate(int(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(samples)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ)).stdout)


def _generate(samples: int) -> None:
    from datagen.generate import generate

    with tempfile.TemporaryDirectory() as folder:
        generate(spec_of(256, samples, shard=50), Path(folder) / "data", executor="serial")
    # Not getrusage's, which a child inherits from its parent.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(int(peak.split()[1]) * 1024)


def memory() -> Entry:
    """Peak memory of 100 and of 400 samples; the time is of the smaller one, solutions only."""
    spec = spec_of(256, 5)
    return Entry(
        name="5 Darcy samples 256^2",
        problem="as above; the facts hold peak memory of processes that make 100 and 400 such samples, 50 a shard",
        peers={"southwell": lambda: southwell(spec, 5)},
        error=worst_residual(spec, 5),
        tolerance=1.1 * RTOL,
        agreement=1e-9,
        facts={"unknowns": 5 * 256**2, "peak_bytes": {count: peak_memory(count) for count in (100, 400)}},
    )


def entries() -> list[Entry]:
    """All entries of this file: three minutes."""
    return [
        pipeline(421, 10),
        pipeline(64, 20),
        tolerances(421, 3),
        tolerances(64, 40),
        shards(421, 100),
        shards(64, 100),
        two_workers(64, 200),
        two_workers(421, 10),
        memory(),
    ]


if __name__ == "__main__":
    main(entries, "generation")
