"""Sequences of similar systems: every method by itself, and what `SequenceSolver` makes of them.

    python -m benchmarks.sequences acceptance --minutes 10   # auto against the best strategy in hindsight, 300 systems
    python -m benchmarks.sequences table --minutes 10        # the honest table, 100 systems for each cell
    python -m benchmarks.sequences published --minutes 10    # the mis-assembled matrices of published speed-ups
    python -m benchmarks.sequences show                      # the tables of what is there
    python -m benchmarks.sequences document                  # picture and short table of docs/sequences.md

Each cell (sequence, seed, tolerance) is a file in results/sequences/; a command goes on where the last one stopped, and
begins no cell after its minutes. Both wall and CPU time are recorded, and the latter compared: on a shared machine
stalls of a few milliseconds, longer than many a solve, do not count in it. SequenceSolver itself goes by the clock on
the wall. Peers take turns of 20 systems, so that what disturbs the machine disturbs all alike.

A solve may take a second. One that has not met the tolerance then is *capped*: it counts as the second and what `solve`
takes to finish it, and its true cost is higher: such totals are lower bounds. A peer with four capped solves is stopped
there, and what is missing is taken to cost as much as the mean of what it did.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from time import perf_counter, process_time, strftime
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

from benchmarks.harness import RESULTS, machine
from benchmarks.misassembled import misassembled_sequence
from solvers import (
    ILU,
    SSOR,
    IncompleteCholesky,
    RecycleSpace,
    Result,
    SequenceSolver,
    cg,
    deflated_cg,
    gallery,
    gcrodr,
    gmres,
    gmres_dr,
    minres,
    sine_modes,
    solve,
)
from solvers.ordering import order

FOLDER = RESULTS / "sequences"
CAP = 1.0  # seconds
MOST_CAPPED = 4
TURN = 20  # systems
SHAPE = (100, 100)

Systems = Callable[[], Iterator[tuple[Any, np.ndarray, np.ndarray]]]
Solve = Callable[[Any, np.ndarray, np.ndarray], Result]


@dataclass
class Peer:
    """A method and the systems it gets, which are made anew for it, so that nothing is remembered in them."""

    solve: Solve
    systems: Iterator[tuple[Any, np.ndarray, np.ndarray]]
    sort_seconds: float = 0.0
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    products: list[int] = field(default_factory=list)
    applications: list[int] = field(default_factory=list)
    capped: int = 0
    residual: float = 0.0
    solver: SequenceSolver | None = None

    def go_on(self, count: int, rtol: float) -> None:
        """Solve the next systems."""
        for A, b, context in islice(self.systems, count):
            if self.capped >= MOST_CAPPED:
                return
            began, began_cpu = perf_counter(), process_time()
            try:
                result = self.solve(A, b, context)
            except ValueError:  # not for matrices of this kind
                self.capped = MOST_CAPPED
                return
            seconds, cpu = perf_counter() - began, process_time() - began_cpu
            if not result.converged:
                began, began_cpu = perf_counter(), process_time()
                result = solve(A, b, x0=result.x, rtol=rtol, throw=False)
                seconds = max(seconds, CAP) + perf_counter() - began
                cpu = max(cpu, CAP) + process_time() - began_cpu
                self.capped += 1
            self.seconds.append(seconds)
            self.cpu.append(cpu)
            self.products.append(result.matvecs)
            self.applications.append(result.preconditioner_applies)
            self.residual = max(self.residual, float(np.linalg.norm(b - A @ result.x) / np.linalg.norm(b)))

    def summary(self, length: int) -> dict[str, Any] | None:
        """What is stored; None if it could solve nothing."""
        if not self.seconds:
            return None
        share = length / len(self.seconds)
        return {
            "seconds": share * sum(self.seconds),
            "cpu": share * sum(self.cpu),
            "cpu_median": float(np.median(self.cpu)),
            "systems": len(self.seconds),
            "products": share * sum(self.products),
            "applications": share * sum(self.applications),
            "capped": self.capped,
            "residual": self.residual,
            "sort_seconds": self.sort_seconds,
        } | ({} if self.solver is None else {"method": self.solver.method})


def measure(peers: dict[str, Peer], length: int, rtol: float) -> dict[str, Any]:
    """All peers in turns, there and back again, since the caches are warm for who follows a similar one."""
    row = list(peers.values())
    with threadpool_limits(1):
        for start in range(0, length, TURN):
            for peer in row:
                peer.go_on(min(TURN, length - start), rtol)
            row.reverse()
    return {name: peer.summary(length) for name, peer in peers.items()}


def warm_up(systems: Systems, rtol: float, solves: dict[str, Callable[[], Solve]]) -> None:
    """Load what is compiled; on three systems."""
    for make in solves.values():
        method = make()
        for A, b, context in islice(systems(), 3):
            try:
                method(A, b, context)
            except ValueError:
                break


def in_order(systems: Systems, length: int) -> tuple[Systems, float]:
    """The systems along a short tour through their contexts, and the seconds that finding it took."""
    contexts = np.array([context for _, _, context in systems()])
    began = perf_counter()
    tour = order(contexts)
    seconds = perf_counter() - began

    def along() -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
        everything = list(systems())
        return iter([everything[i] for i in tour[:length]])

    return along, seconds


# -- Acceptance: auto against the best in hindsight -------------------------------------------------------------------

STRATEGIES = (
    *("auto", "multigrid", "amg", "fast-poisson", "direct", "lagged", "gmres", "gcrodr", "deflated-cg", "ssor-cg"),
    *("cg", "minres", "bicgstab"),
)


def acceptance(sequence: str, seed: int, rtol: float = 1e-7, length: int = 300) -> dict[str, Any]:
    """Every strategy of SequenceSolver by itself, and auto."""
    systems = partial(gallery.sequences[sequence], length=length, shape=SHAPE, seed=seed)

    def make(method: str) -> SequenceSolver:
        return SequenceSolver(method, rtol=rtol, time_limit=CAP)

    warm_up(systems, rtol, {method: lambda method=method: make(method).solve for method in STRATEGIES})
    peers = {}
    for method in STRATEGIES:
        solver = make(method)
        peers[method] = Peer(solver.solve, systems(), solver=solver if method == "auto" else None)
    return measure(peers, length, rtol)


# -- The honest table -------------------------------------------------------------------------------------------------


def table(sequence: str, seed: int, rtol: float, length: int = 100) -> dict[str, Any]:
    """Published and obvious methods, each with its usual preconditioner, and auto."""
    systems = partial(gallery.sequences[sequence], length=length, shape=SHAPE, seed=seed)
    symmetric = not sequence.startswith("convection")
    definite = symmetric and not sequence.startswith("helmholtz")
    limits = {"rtol": rtol, "time_limit": CAP}

    def recycled() -> Solve:
        space = RecycleSpace()
        return lambda A, b, _: gcrodr(A, b, M=ILU(), restart=40, k=20, recycle=space, **limits)

    makers: dict[str, Callable[[], Solve]] = {
        "GMRES(40)": lambda: lambda A, b, _: gmres(A, b, M=ILU(), restart=40, **limits),
        "GMRES-DR(40, 20)": lambda: lambda A, b, _: gmres_dr(A, b, M=ILU(), restart=40, k=20, **limits),
        "GCRO-DR(40, 20)": recycled,
        "GCRO-DR(40, 20), sorted": recycled,
    }
    if definite:
        modes = sine_modes(SHAPE, 20)
        makers["CG + IC(0)"] = lambda: lambda A, b, _: cg(A, b, M=IncompleteCholesky(), **limits)
        makers["CG + IC(0), 20 sine modes deflated"] = lambda: (
            lambda A, b, _: deflated_cg(A, b, deflation=modes, M=IncompleteCholesky(), **limits)
        )
    elif symmetric:
        makers["MINRES"] = lambda: lambda A, b, _: minres(A, b, **limits)
    for method in ("direct", "lagged", "auto"):
        makers[method] = lambda method=method: SequenceSolver(method, **limits).solve
    if sequence == "heat":  # each system needs the solution of the one before
        del makers["GCRO-DR(40, 20), sorted"]
    warm_up(systems, rtol, makers)
    peers = {name: Peer(make(), systems()) for name, make in makers.items() if "sorted" not in name}
    if "GCRO-DR(40, 20), sorted" in makers:
        along, seconds = in_order(systems, length)
        peers["GCRO-DR(40, 20), sorted"] = Peer(recycled(), along(), sort_seconds=seconds)
    solver = SequenceSolver(**limits)
    peers["auto"] = Peer(solver.solve, systems(), solver=solver)
    return measure(peers, length, rtol)


# -- The published matrices -------------------------------------------------------------------------------------------


def published(points: int, seed: int, preconditioner: str, rtol: float = 1e-5, length: int = 10) -> dict[str, Any]:
    """GMRES(40), capped at 10,000 iterations as published, without a limit of time; GCRO-DR and GMRES-DR; auto."""
    systems = partial(misassembled_sequence, length, points, seed)

    def M() -> Any:
        return SSOR(1.0) if preconditioner == "SOR" else None

    def recycled() -> Solve:
        space = RecycleSpace()
        return lambda A, b, _: gcrodr(A, b, M=M(), rtol=rtol, restart=40, k=20, recycle=space, maxiter=250)

    makers: dict[str, Callable[[], Solve]] = {
        "GMRES(40)": lambda: lambda A, b, _: gmres(A, b, M=M(), rtol=rtol, restart=40, maxiter=250),
        "GMRES-DR(40, 20)": lambda: lambda A, b, _: gmres_dr(A, b, M=M(), rtol=rtol, restart=40, k=20, maxiter=250),
        "GCRO-DR(40, 20)": recycled,
        "direct": lambda: SequenceSolver("direct", rtol=rtol).solve,
        "auto": lambda: SequenceSolver(rtol=rtol).solve,
    }
    outcome: dict[str, Any] = {}
    warm_up(partial(misassembled_sequence, 3, 24, 0), rtol, makers)
    along, sort_seconds = in_order(systems, length)
    for name, make in makers.items():
        outcome[name] = _without_cap(make(), systems())
    outcome["GCRO-DR(40, 20), sorted"] = _without_cap(recycled(), along()) | {"sort_seconds": sort_seconds}
    return outcome


def _without_cap(method: Solve, systems: Iterator[tuple[Any, np.ndarray, np.ndarray]]) -> dict[str, Any]:
    seconds, cpu, products, residuals, capped, names = 0.0, 0.0, 0, [], 0, set()
    with threadpool_limits(1):
        for A, b, context in systems:
            began, began_cpu = perf_counter(), process_time()
            result = method(A, b, context)
            seconds, cpu = seconds + perf_counter() - began, cpu + process_time() - began_cpu
            products += result.matvecs
            capped += not result.converged
            residuals.append(float(np.linalg.norm(b - A @ result.x) / np.linalg.norm(b)))
            names.add(result.method)
    return {
        "seconds": seconds,
        "cpu": cpu,
        "systems": len(residuals),
        "products": products,
        "capped": capped,
        "residual": max(residuals),
        "method": ", ".join(sorted(names)),
    }


# -- Cells ------------------------------------------------------------------------------------------------------------


def cells(part: str, seeds: list[int]) -> Iterator[tuple[str, dict[str, Any], Callable[[], dict[str, Any]]]]:
    """Name of the file, the facts, and how to measure it; one seed after the other."""
    for seed in seeds:
        if part == "acceptance":
            for sequence in gallery.sequences:
                facts = {"sequence": sequence, "seed": seed, "rtol": 1e-7, "length": 300, "shape": list(SHAPE)}
                yield f"acceptance-{sequence}-{seed}", facts, partial(acceptance, sequence, seed)
        elif part == "table":
            for rtol in (1e-3, 1e-5, 1e-8):
                for sequence in gallery.sequences:
                    facts = {"sequence": sequence, "seed": seed, "rtol": rtol, "length": 100, "shape": list(SHAPE)}
                    yield f"table-{sequence}-{rtol:.0e}-{seed}", facts, partial(table, sequence, seed, rtol)
        else:
            for points in (48, 98):
                for preconditioner in ("none", "SOR"):
                    name = f"mis-assembled, n = {points * points}, {preconditioner}"
                    facts = {"sequence": name, "seed": seed, "rtol": 1e-5, "length": 10}
                    yield (
                        f"published-{points}-{preconditioner}-{seed}",
                        facts,
                        partial(published, points, seed, preconditioner),
                    )


def run(part: str, seeds: list[int], minutes: float, folder: Path = FOLDER) -> None:
    """Measure the cells that are missing, for so many minutes."""
    folder.mkdir(parents=True, exist_ok=True)
    began = perf_counter()
    facts_of_machine = machine()
    for name, facts, measurement in cells(part, seeds):
        path = folder / f"{name}.json"
        if path.exists():
            continue
        if perf_counter() - began > 60 * minutes:
            print("time is up; the same command goes on from here")
            return
        started = perf_counter()
        report = {"format_version": 1, "created": strftime("%Y-%m-%dT%H:%M:%S%z"), "part": part, **facts}
        report |= {"machine": facts_of_machine, "peers": measurement()}
        partly = path.with_suffix(".partial")
        partly.write_text(json.dumps(report, indent=1) + "\n")
        partly.replace(path)
        print(f"{name}: {perf_counter() - started:.0f} s", flush=True)


# -- Tables -----------------------------------------------------------------------------------------------------------


def show(folder: Path = FOLDER) -> str:
    """Markdown of all cells that are there; means over the seeds."""
    groups: dict[tuple[str, str, float], list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        report = json.loads(path.read_text())
        groups.setdefault((report["part"], report["sequence"], report["rtol"]), []).append(report)
    lines = []
    for part in ("acceptance", "table", "published"):
        rows = [key for key in groups if key[0] == part]
        if not rows:
            continue
        lines += [
            f"## {part}",
            "",
            "| sequence | rtol | peer | CPU s | over the best | wall s | products, A | M | capped | true residual |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        for key in sorted(rows, key=lambda key: (key[1], -key[2])):
            lines += _rows(key, groups[key])
        lines.append("")
    return "\n".join(lines)


def summary(folder: Path = FOLDER) -> str:
    """Markdown of the acceptance runs: the best single strategy, auto, and GMRES(40) with ILU(0), CPU seconds."""
    lines = ["| sequence | best single strategy | auto | over the best | GMRES(40), ILU |", "|---|---|---|---:|---:|"]
    for report in _acceptance(folder):
        cpu = {name: peer["cpu"] for name, peer in report["peers"].items() if peer}
        best = min((name for name in cpu if name != "auto"), key=cpu.__getitem__)
        capped = ">= " if report["peers"]["gmres"]["capped"] else ""
        chosen = f"{report['peers']['auto']['method']} {cpu['auto']:.3g}"
        lines.append(
            f"| {_named(report)} | {best} {cpu[best]:.3g} | {chosen} | {cpu['auto'] / cpu[best]:.2f} | "
            f"{capped}{cpu['gmres']:.3g} |"
        )
    return "\n".join(lines)


def _named(report: dict[str, Any]) -> str:
    return f"{report['sequence']}, seed {report['seed']}"


def _acceptance(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("acceptance-*.json"))]


def picture(folder: Path = FOLDER) -> Figure:
    """CPU seconds of every strategy on every sequence of the acceptance runs."""
    reports = _acceptance(folder)
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.add_subplot()
    for row, report in enumerate(reports):
        for name, peer in report["peers"].items():
            if peer and name != "auto":
                axes.plot(peer["cpu"], row, "o", color="0.6", markerfacecolor="none" if peer["capped"] else "0.6")
        for name, label, style in (("gmres", "GMRES(40), ILU", "sb"), ("auto", "auto", "Dr")):
            axes.plot(report["peers"][name]["cpu"], row, style, label=None if row else label)
    axes.set(xscale="log", xlabel="CPU seconds for 300 systems; hollow: a lower bound, some solves were capped")
    axes.set_yticks(range(len(reports)), [_named(report) for report in reports])
    axes.grid(axis="x", alpha=0.3)
    axes.legend()
    return figure


def _rows(key: tuple[str, str, float], reports: list[dict[str, Any]]) -> list[str]:
    _, sequence, rtol = key
    peers = [name for name, peer in reports[0]["peers"].items() if peer is not None]
    total = {name: [r["peers"][name]["cpu"] for r in reports if r["peers"].get(name)] for name in peers}
    best = min(np.mean(total[name]) for name in peers if name != "auto")
    lines = []
    for name in sorted(peers, key=lambda name: np.mean(total[name])):
        cells = [r["peers"][name] for r in reports if r["peers"].get(name)]
        mean = {
            key: np.mean([c.get(key, 0) for c in cells])
            for key in ("seconds", "products", "applications", "sort_seconds")
        }
        capped = sum(c["capped"] for c in cells)
        systems = sum(c["systems"] for c in cells)
        bound = ">= " if capped else ""
        spread = f" (sd {np.std(total[name], ddof=1):.2g})" if len(cells) > 1 else ""
        sort = f" + {mean['sort_seconds']:.2g} to sort" if mean["sort_seconds"] else ""
        what = f" ({cells[-1]['method']})" if name == "auto" and cells[-1].get("method") else ""
        fields = [
            sequence,
            f"{rtol:.0e}",
            f"{name}{what}",
            f"{bound}{np.mean(total[name]):.3g}{spread}{sort}",
            f"{bound}{np.mean(total[name]) / best:.2f}",
            f"{mean['seconds']:.3g}",
            f"{bound}{mean['products']:.0f}",
            f"{mean['applications']:.0f}",
            f"{capped} of {systems}" if capped else "",
            f"{max(c['residual'] for c in cells):.1e}",
        ]
        lines.append(f"| {' | '.join(fields)} |")
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="sequences of similar systems")
    parser.add_argument("part", choices=("acceptance", "table", "published", "show", "document"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--minutes", type=float, default=50.0)
    arguments = parser.parse_args()
    if arguments.part == "document":
        picture().savefig(RESULTS.parents[1] / "docs" / "images" / "sequences.png", dpi=110)
        print(summary())
    else:
        if arguments.part != "show":
            run(arguments.part, arguments.seeds, arguments.minutes)
        print(show())
