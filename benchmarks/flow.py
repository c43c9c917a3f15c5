"""Incompressible flow: published truths, and what a sample of each difficulty costs.

    python -m benchmarks.flow                 # all of it, forty minutes on one core; goes on where it stopped
    python -m benchmarks.flow cavity wake     # some of it: cavity, wake, order, cost, solvers
    python -m benchmarks.flow --quick         # coarse grids and short times: a minute, says nothing of the results

- cavity: u and v on the middle lines of the lid-driven cavity at Re = 100, 400, 1000, steady, 128^2 cells, against the
  tables of Ghia, Ghia and Shin 1982 (J. Comput. Phys. 48, p. 387).
- wake: the frequency of the wake of a cylinder in a channel at Re = 100 and the pressure drop across it, benchmark 2D-2
  of Schaefer and Turek 1996 (Benchmark computations of laminar flow around a cylinder, Strouhal number 0.295 to 0.305,
  pressure drop 2.46 to 2.50); the cylinder is a staircase of cells here.
- order: Taylor-Green vortices that are carried along, errors on finer grids and with smaller steps.
- cost: seconds for a sample of 20 snapshots at 128^2 in the nine cells of the published table (Choudhary et al. 2025,
  arXiv 2512.00564, obstacles none, one, 2 to 10; Re 100 to 1000, 2000 to 4000, 8000 to 10,000), once with the end times
  of the published generator, which depend on Re, and once with one end time for all.
- solvers: a hundred steps with the pressure systems solved in other ways.

One core, CPU seconds. Results, with what the machine was doing, go to ``benchmarks/results/flow.json``, one part after
the other.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.harness import FORMAT_VERSION, RESULTS, machine
from datagen.evolve.projection import Projection
from datagen.evolve.staggered import Staggered
from datagen.evolve.work import counted
from datagen.family import Sample, seed_sequence
from datagen.pdes.flow import Flow

# Tables I and II of Ghia et al.; u at (1/2, y) and v at (x, 1/2). The entry of Re = 400 at x = 0.9063, -0.23827, is a
# misprint (its neighbours are -0.44993 and -0.22847, the flow smooth, and -0.38 what everyone finds): left out.
GHIA_Y = (
    0.0547,
    0.0625,
    0.0703,
    0.1016,
    0.1719,
    0.2813,
    0.4531,
    0.5,
    0.6172,
    0.7344,
    0.8516,
    0.9531,
    0.9609,
    0.9688,
    0.9766,
)
GHIA_U = {
    100: (
        -0.03717,
        -0.04192,
        -0.04775,
        -0.06434,
        -0.10150,
        -0.15662,
        -0.21090,
        -0.20581,
        -0.13641,
        0.00332,
        0.23151,
        0.68717,
        0.73722,
        0.78871,
        0.84123,
    ),
    400: (
        -0.08186,
        -0.09266,
        -0.10338,
        -0.14612,
        -0.24299,
        -0.32726,
        -0.17119,
        -0.11477,
        0.02135,
        0.16256,
        0.29093,
        0.55892,
        0.61756,
        0.68439,
        0.75837,
    ),
    1000: (
        -0.18109,
        -0.20196,
        -0.22220,
        -0.29730,
        -0.38289,
        -0.27805,
        -0.10648,
        -0.06080,
        0.05702,
        0.18719,
        0.33304,
        0.46604,
        0.51117,
        0.57492,
        0.65928,
    ),
}
GHIA_X = (
    0.0625,
    0.0703,
    0.0781,
    0.0938,
    0.1563,
    0.2266,
    0.2344,
    0.5,
    0.8047,
    0.8594,
    0.9063,
    0.9453,
    0.9531,
    0.9609,
    0.9688,
)
GHIA_V = {
    100: (.09233, .10091, .10890, .12317, .16077, .17507, .17527, .05454,
          -.24533, -.22445, -.16914, -.10313, -.08864, -.07391, -.05906),
    400: (.18360, .19713, .20920, .22965, .28124, .30203, .30174, .05186,
          -.38598, -.44993, np.nan, -.22847, -.19254, -.15663, -.12146),
    1000: (.27485, .29012, .30353, .32627, .37095, .33075, .32235, .02526,
           -.31966, -.42665, -.51550, -.39188, -.33714, -.27669, -.21388),
}  # fmt: skip
# Smallest u, largest and smallest v on the same lines at Re = 1000, by Chebyshev polynomials: Botella and Peyret 1998
# (Comput. Fluids 27, p. 421). The table's own extremes differ from these by 0.006, 0.006 and 0.012.
BOTELLA_PEYRET = (-0.3885698, 0.3769447, -0.5270771)

GEOMETRY = {"none": (0, 0), "one": (1, 1), "many": (2, 10)}
PHYSICS = {"low": (100.0, 1000.0), "medium": (2000.0, 4000.0), "high": (8000.0, 10000.0)}
PUBLISHED = {  # seconds a sample, OpenFOAM's icoFoam, figure FPO_Simulation_Cost of the project's site
    "none": {"low": 170.7, "medium": 263.1, "high": 350.4},
    "one": {"low": 609.5, "medium": 731.1, "high": 942.8},
    "many": {"low": 1550.9, "medium": 1599.2, "high": 1653.3},
}
_SHORT = 10.0  # one end time for all cells


def published_end(reynolds: float) -> float:
    """End time of the published generator, in crossings of the box at the largest speed of the inlet."""
    for least, crossings in ((5000, 40), (4000, 30), (2500, 20), (1000, 10), (500, 5), (400, 4), (300, 3), (200, 2)):
        if reynolds >= least:
            return crossings
    return 1.0


# -- Truths -----------------------------------------------------------------------------------------------------------


def cavity(quick: bool) -> dict[str, Any]:
    """Largest differences from the tables, in speeds of the lid."""
    cells, found = (32 if quick else 128), {}
    for reynolds in (100,) if quick else (100, 400, 1000):
        flow = Staggered(np.ones((cells, cells), dtype=bool), 1 / cells, 1 / reynolds, lid=1.0)
        w, change, time, seconds = flow.rest(), np.inf, 0.0, process_time()
        while change > 1e-6 and time < 200:
            (after, _), time = Projection(1.2).integrate(flow, w, [2.0])[0], time + 2.0
            w, change = after, float(np.max(np.abs(after - w))) / 2.0
        i, j = flow.cells
        middle, centres = i.start + cells // 2, (np.arange(cells) + 0.5) / cells
        u = np.interp(GHIA_Y, np.concatenate([[0], centres, [1]]), np.concatenate([[0], w[0, middle, j], [1]]))
        v = np.interp(GHIA_X, np.concatenate([[0], centres, [1]]), np.concatenate([[0], w[1, i, middle], [0]]))
        extremes = float(np.min(w[0, middle, j])), float(np.max(w[1, i, middle])), float(np.min(w[1, i, middle]))
        found[str(reynolds)] = {
            "extremes": extremes, "extremes_of_botella_and_peyret": BOTELLA_PEYRET if reynolds == 1000 else None,
            "largest_u_difference": float(np.max(np.abs(u - GHIA_U[reynolds]))),
            "largest_v_difference": float(np.nanmax(np.abs(v - GHIA_V[reynolds]))),
            "time": time, "last_change_per_time": change, "cpu_seconds": process_time() - seconds,
        }  # fmt: skip
    return {"cells": cells, **found}


def wake(quick: bool) -> dict[str, Any]:
    """Strouhal number from the lift's sign changes, as seen by v behind the cylinder, and the pressure drop."""
    rows = 41 if quick else 123
    h, end = 0.41 / rows, 2.0 if quick else 8.0
    columns = round(2.2 / h)
    x, y = np.meshgrid((np.arange(columns) + 0.5) * h, (np.arange(rows) + 0.5) * h, indexing="ij")
    fluid = (x - 0.2) ** 2 + (y - 0.2) ** 2 > 0.05**2
    inlet = 6.0 * y[0] * (0.41 - y[0]) / 0.41**2
    flow, seconds = Staggered(fluid, h, 0.001, inlet=inlet), process_time()
    times = np.arange(1, round(end / 0.005) + 1) * 0.005
    probe = flow.cells[0].start + round(0.35 / h), flow.cells[1].start + round(0.2 / h)
    v, drop, w = [], [], flow.rest()
    for begin in range(0, len(times), 100):
        part = times[begin : begin + 100] - begin * 0.005
        states = Projection().integrate(flow, w, list(part))
        w, row = states[-1][0], round(0.2 / h - 0.5)
        v += [velocity[1][probe] for velocity, _ in states]
        drop += [p[round(0.15 / h) - 1, row] - p[round(0.25 / h), row] for _, p in states]
    late = len(v) // 2
    signal = np.array(v[late:]) - np.mean(v[late:])
    up = np.flatnonzero((signal[:-1] < 0) & (signal[1:] >= 0))
    crossings = up - signal[up] / (signal[up + 1] - signal[up])
    period = float(np.mean(np.diff(crossings))) * 0.005 if len(crossings) > 1 else float("nan")
    return {
        "cells": [columns, rows], "cells_across": 0.1 / h, "strouhal": 0.1 / period, "published": [0.295, 0.305],
        "periods": len(crossings) - 1, "pressure_drop": [float(min(drop[late:])), float(max(drop[late:]))],
        "published_pressure_drop": [2.46, 2.50], "cpu_seconds": process_time() - seconds,
    }  # fmt: skip


def vortices(n: int, viscosity: float, t: float) -> tuple[Staggered, np.ndarray]:
    """Taylor-Green vortices carried along with the velocity (1, 1/2), the exact solution at a time."""
    flow, k, decay = Staggered(np.ones((n, n), bool), 1 / n, viscosity, periodic=True), 2 * np.pi, 0.0
    decay = np.exp(-2 * k**2 * viscosity * t)
    edges, centres, w = np.arange(n) / n, (np.arange(n) + 0.5) / n, flow.rest()
    w[0][flow.cells] = 1 + decay * np.outer(np.sin(k * (edges - t)), np.cos(k * (centres - t / 2)))
    w[1][flow.cells] = 0.5 - decay * np.outer(np.cos(k * (centres - t)), np.sin(k * (edges - t / 2)))
    return flow, flow.with_ghosts(w)


def order(quick: bool) -> dict[str, Any]:
    """Errors of the velocity in the maximum norm, and orders between neighbours."""
    found: dict[str, Any] = {}
    sizes = (16, 32) if quick else (32, 64, 128)
    for viscosity in (1e-2, 1e-3):
        errors = []
        for n in sizes:
            flow, start = vortices(n, viscosity, 0.0)
            (end, _), (_, exact) = Projection().integrate(flow, start, [0.5])[0], vortices(n, viscosity, 0.5)
            errors.append(float(np.max(np.abs(end - exact))))
        orders = [float(o) for o in np.log2(np.array(errors[:-1]) / errors[1:])]
        found[f"space, viscosity {viscosity:g}"] = {"cells": sizes, "errors": errors, "orders": orders}
    flow, start = vortices(32 if quick else 64, 1e-3, 0.0)
    steps = (10, 20, 40, 80)

    def at(count: int) -> np.ndarray:
        return Projection(step=0.1 / count, solver={"rtol": 1e-11}).integrate(flow, start, [0.1])[0][0]

    reference = at(640)
    errors = [float(np.max(np.abs(at(count) - reference))) for count in steps]
    orders = [float(o) for o in np.log2(np.array(errors[:-1]) / errors[1:])]
    return {**found, "time": {"steps": steps, "errors": errors, "orders": orders}}


# -- Costs ------------------------------------------------------------------------------------------------------------


def cost(quick: bool, geometry: str, physics: str, end: str) -> dict[str, Any]:
    """CPU seconds and counts for one cell of the table: the median over samples."""
    samples, seconds, works, ends = (1 if quick else 3), [], [], []
    for index in range(samples):
        family = Flow(
            grid=64 if quick else 128,
            obstacles=GEOMETRY[geometry],
            reynolds=PHYSICS[physics],
            frames=21,
            final_time=1.0,
        )
        sample = family.sample(np.random.default_rng(seed_sequence(1931, "flow", "train", index, 0)))
        final = published_end(sample.scalars["reynolds"]) if end == "published" else _SHORT
        ends.append(final)
        times = list(np.linspace(0, final / (20 if quick else 1), 21))
        begin = process_time()
        with counted() as work:
            family.evolve(family.initial(sample), times, sample)
        seconds.append(process_time() - begin)
        works.append(work)
    return {
        "cpu_seconds": seconds, "median_cpu_seconds": statistics.median(seconds), "end_times": ends,
        "steps": [w.steps for w in works], "solves": [w.solves for w in works],
        "iterations": [w.iterations for w in works], "work": [w.values for w in works],
    }  # fmt: skip


def solvers(quick: bool) -> dict[str, Any]:
    """A hundred steps past ten obstacles with other solvers of the pressure: CPU seconds and iterations a solve."""
    family = Flow(grid=64 if quick else 128, obstacles=(10, 10), reynolds=(5000.0, 5000.0), final_time=10.0)
    sample: Sample = family.sample(np.random.default_rng(7))
    flow, start, found = family.flow(sample), family.initial(sample), {}
    step = 0.5 * flow.h / 3
    ways: dict[str, Any] = {
        "default": None, "cg + multigrid by name": {"method": "cg", "M": "multigrid"},
        "cg + learned multigrid by name": {"method": "cg", "M": "deep_conjugate_directions"},
        "cg + amg": {"method": "cg", "M": "amg"}, "cg + fast-poisson": {"method": "cg", "M": "fast-poisson"},
        "direct": {"method": "direct"}, "sequence": {"method": "sequence"}, "cg": {"method": "cg", "maxiter": 5000},
    }  # fmt: skip
    for name, way in ways.items():
        try:
            family.evolve(start, [step], sample, Projection(step=step, solver=way))  # loads and compiles what it needs
            begin = process_time()
            with counted() as work:
                family.evolve(start, [step * (10 if quick else 100)], sample, Projection(step=step, solver=way))
        except (FloatingPointError, ValueError) as error:
            found[name] = {"failed": str(error)}
            continue
        found[name] = {
            "cpu_seconds": process_time() - begin, "iterations_per_solve": work.iterations / work.solves,
            "matvecs": work.products,
        }  # fmt: skip
    return found


# -- All parts, one after the other -----------------------------------------------------------------------------------


def parts() -> dict[str, Callable[[bool], dict[str, Any]]]:
    """Name of a part -> what computes it."""

    def cell(geometry: str, physics: str, end: str) -> Callable[[bool], dict[str, Any]]:
        return lambda quick: cost(quick, geometry, physics, end)

    table = {
        f"cost {end}: {geometry}, {physics}": cell(geometry, physics, end)
        for end in ("common", "published") for geometry in GEOMETRY for physics in PHYSICS
    }  # fmt: skip
    return {"cavity": cavity, "wake": wake, "order": order, "solvers": solvers, **table}


def summary(results: dict[str, Any]) -> dict[str, Any]:
    """Ratios of the hardest and the easiest cell, ours and the published ones."""
    found: dict[str, Any] = {"published": PUBLISHED["many"]["high"] / PUBLISHED["none"]["low"]}
    for end in ("common", "published"):
        cells = [results.get(f"cost {end}: {cell}") for cell in ("many, high", "none, low")]
        if cells[0] and cells[1]:
            hard, easy = (cell["median_cpu_seconds"] for cell in cells)
            found[f"ours, {end} end times"] = hard / easy
    return found


def main() -> None:
    """Compute what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="parts, by the beginnings of their names; all if none is given")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS / "flow.json")
    arguments = parser.parse_args()
    out = arguments.out.with_stem(arguments.out.stem + "-quick") if arguments.quick else arguments.out
    report = json.loads(out.read_text()) if out.exists() else {"format_version": FORMAT_VERSION, "results": {}}
    with threadpool_limits(1):
        for name, compute in parts().items():
            if name in report["results"] or not (
                not arguments.names or any(name.startswith(wanted) for wanted in arguments.names)
            ):
                continue
            report["results"][name] = {**compute(arguments.quick), "machine": machine()}
            report["hard_to_easy"] = summary(report["results"])
            out.write_text(json.dumps(report, indent=1) + "\n")
            shown = {k: v for k, v in report["results"][name].items() if k != "machine"}
            print(f"{name}: {json.dumps(shown)}", flush=True)
    print(json.dumps(report.get("hard_to_easy", {})))


if __name__ == "__main__":
    main()
