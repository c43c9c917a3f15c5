"""One harness for all benchmarks: declared entries in, one JSON schema out.

An `Entry` names a problem and the peers that solve it. `run` checks all answers first, then times the peers in turn,
round after round, so that what disturbs the machine disturbs all alike, and records medians of wall and CPU time.
``python -m benchmarks.harness FILE.json`` makes a table of a result. See README.md for the schema.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from time import perf_counter, process_time, strftime
from typing import Any

import numpy as np
from numba import njit
from threadpoolctl import threadpool_info, threadpool_limits

FORMAT_VERSION = 1
PACKAGES = ("southwell", "numpy", "scipy", "numba", "pyamg", "torch")
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Answer:
    """What a peer returns.

    Attributes
    ----------
    x : ndarray
        Its solution.
    iterations : int, optional
        How many it took, if it counts them.
    bytes_moved : float, optional
        Bytes that must go between memory and core, counted from the algorithm, each array once for each pass over it.
    seconds : (float, float), optional
        Wall and CPU time, if the peer runs in a process of its own and measures itself.
    method : str, optional
        What it did, where it chose by itself.
    """

    x: np.ndarray
    iterations: int | None = None
    bytes_moved: float | None = None
    seconds: tuple[float, float] | None = None
    method: str | None = None


@dataclass(frozen=True)
class Entry:
    """One problem and the peers that solve it.

    Attributes
    ----------
    name : str
        Unique; the row of a table.
    problem : str
        In words: equation, coefficient field, right-hand side, unknowns and centring, tolerance.
    peers : dict of str to callable
        Each solves the problem from the same inputs, its own set-up included, and returns an `Answer`. The first is
        what the others are compared with.
    error : callable
        ``error(x)``: the measure that every answer must meet, usually the true relative residual.
    tolerance : float
        Its largest allowed value.
    agreement : float
        Largest allowed relative difference between an answer and that of the first peer.
    facts : dict
        Numbers that a reader needs: unknowns, rtol.
    per_iteration : bool
        Compare seconds for one iteration, not for the whole.
    """

    name: str
    problem: str
    peers: dict[str, Callable[[], Answer]]
    error: Callable[[np.ndarray], float]
    tolerance: float
    agreement: float
    facts: dict[str, Any] = field(default_factory=dict)
    per_iteration: bool = False


@njit  # not cached: the tests load this file under another name, under which the cache would not be found
def triad(a, b, c, s):  # type: ignore[no-untyped-def]
    """a = b + s c"""
    for i in range(a.size):
        a[i] = b[i] + s * c[i]


def stream_triad(megabytes: int = 192) -> float:
    """Bytes per second of ``a = b + s c`` on one core, 24 bytes an element (the write-allocate is not counted)."""
    n = megabytes * 1_000_000 // 24
    a, b, c = np.zeros(n), np.ones(n), np.ones(n)
    best = float("inf")
    for _ in range(6):
        started = perf_counter()
        triad(a, b, c, 3.0)
        best = min(best, perf_counter() - started)
    return 24.0 * n / best


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    commit = ""
    if shutil.which("git"):
        describe = ["git", "describe", "--always", "--dirty"]
        commit = subprocess.run(describe, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "load_average": list(os.getloadavg()),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
        "threads": {pool["internal_api"]: pool["num_threads"] for pool in threadpool_info()},
        "commit": commit,
        "stream_triad_bytes_per_second": stream_triad(),
    }


def check(entry: Entry) -> dict[str, Any]:
    """Solve once with each peer (which also compiles what compiles) and compare the answers.

    Raises
    ------
    ValueError
        If an answer misses the tolerance or disagrees: there is nothing to time then.
    """
    checks: dict[str, Any] = {}
    first: np.ndarray | None = None
    for name, peer in entry.peers.items():
        answer = peer()
        first = answer.x if first is None else first
        error = float(entry.error(answer.x))
        difference = float(np.linalg.norm(answer.x - first) / np.linalg.norm(first))
        if not (error <= entry.tolerance and difference <= entry.agreement):
            raise ValueError(
                f"{entry.name}: the answer of {name!r} has error {error:.2e} (allowed {entry.tolerance:.0e}) and "
                f"differs from the first peer's by {difference:.2e} (allowed {entry.agreement:.0e})"
            )
        checks[name] = {"error": error, "difference": difference, "iterations": answer.iterations}
        if answer.bytes_moved is not None:
            checks[name]["bytes_moved"] = answer.bytes_moved
        if answer.method is not None:
            checks[name]["method"] = answer.method
    return checks


def measure(entry: Entry, rounds: int) -> dict[str, Any]:
    """Check the answers, then time the peers alternately; each round begins with another peer."""
    checks = check(entry)
    names = list(entry.peers)
    wall: dict[str, list[float]] = {name: [] for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            began, began_cpu = perf_counter(), process_time()
            answer = entry.peers[name]()
            spent = answer.seconds or (perf_counter() - began, process_time() - began_cpu)
            share = answer.iterations if entry.per_iteration and answer.iterations else 1
            wall[name].append(spent[0] / share)
            cpu[name].append(spent[1] / share)
    reference = statistics.median(cpu[names[0]])
    return {
        "name": entry.name,
        "problem": entry.problem,
        "facts": entry.facts,
        "unit": "seconds per iteration" if entry.per_iteration else "seconds",
        "peers": {
            name: {
                **checks[name],
                "wall_median": statistics.median(wall[name]),
                "cpu_median": statistics.median(cpu[name]),
                "cpu_min": min(cpu[name]),
                "times_the_first": statistics.median(cpu[name]) / reference,
                "wall": wall[name],
                "cpu": cpu[name],
            }
            for name in names
        },
    }


def run(entries: Sequence[Entry], out: Path, rounds: int = 5) -> dict[str, Any]:
    """Measure all entries on one thread and write the JSON.

    Raises
    ------
    ValueError
        If `rounds` is below 5, two entries share a name, or answers disagree.
    """
    if rounds < 5:
        raise ValueError(f"rounds: expected at least 5, the fewest whose median says anything, got {rounds}")
    if len({entry.name for entry in entries}) != len(entries):
        raise ValueError("entries: two share a name")
    with threadpool_limits(1):
        report = {
            "format_version": FORMAT_VERSION,
            "created": strftime("%Y-%m-%dT%H:%M:%S%z"),
            "rounds": rounds,
            "machine": machine(),
            "entries": [measure(entry, rounds) for entry in entries],
        }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n")
    return report


def table(report: dict[str, Any]) -> str:
    """Markdown table of a report: CPU medians, and how they compare with the first peer."""
    facts = report["machine"]
    lines = [
        f"{facts['cpu']}, one thread, triad {facts['stream_triad_bytes_per_second'] / 1e9:.1f} GB/s, "
        f"medians of {report['rounds']} (CPU time), {report['created'][:10]}, commit {facts['commit']}",
        "",
        "| entry | peer | ms | times the first | iterations | error | bytes per unknown and iteration | GB/s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for entry in report["entries"]:
        for name, peer in entry["peers"].items():
            iterations = peer["iterations"]
            traffic = rate = ""
            if "bytes_moved" in peer:
                runs = iterations if entry["unit"] == "seconds per iteration" else 1
                traffic = f"{peer['bytes_moved'] / (entry['facts']['unknowns'] * iterations):.0f}"
                rate = f"{peer['bytes_moved'] / (runs * peer['cpu_median']) / 1e9:.1f}"
            lines.append(
                f"| {entry['name']} | {name} | {1e3 * peer['cpu_median']:.4g} | {peer['times_the_first']:.2f} | "
                f"{iterations if iterations is not None else ''} | {peer['error']:.1e} | {traffic} | {rate} |"
            )
    return "\n".join(lines)


def main(entries: Callable[[], Sequence[Entry]], name: str) -> None:
    """Command line of a benchmark file: measure its entries and print the table."""
    parser = argparse.ArgumentParser(description=f"measure the entries of benchmarks/{name}.py")
    parser.add_argument("--out", type=Path, default=RESULTS / f"{name}.json")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(table(run(entries(), arguments.out, arguments.rounds)))


if __name__ == "__main__":
    for path in sys.argv[1:]:
        print(table(json.loads(Path(path).read_text())))
