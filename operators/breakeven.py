r"""What a trained operator is worth to a solver: iterations and seconds with and without it, and when it has paid.

An operator costs the seconds D that its dataset took and the seconds T of its training. If a certified solve takes t_0
without it, by the best classical way, and t_1 with it, prediction included, it has paid after

.. math:: N = \frac{D + T}{t_0 - t_1}

solves: the break-even number, infinite where :math:`t_1 \ge t_0`. It depends on the tolerance, and on what "best" is:
the baselines here are conjugate gradients with Jacobi's preconditioner and with multigrid, and what `solvers.solve`
chooses by itself, for steps in time each from the slope of the step before.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from datagen.files import read_json
from datagen.store import Store
from operators.hybrid import Certified, certify
from operators.hybrid_steps import CertifiedSteps
from operators.predict import Predictor
from solvers import Multigrid, solve

TOLERANCES = (1e-2, 1e-4, 1e-6, 1e-8)
SAMPLES = 10


def measure(
    predictor: Predictor, store: Store, samples: int = SAMPLES, tolerances: Sequence[float] = TOLERANCES
) -> dict[str, Any]:
    """Certify the first test samples at several tolerances by several solvers, and find the break-even numbers.

    Parameters
    ----------
    predictor : Predictor
    store : Store
        Of a steady family, or one with implicit steps.
    samples : int
        How many test samples; all there are, if fewer.
    tolerances : sequence of float
        Relative to the right-hand side.

    Returns
    -------
    dict
        ``samples``; ``data_seconds``, ``training_seconds`` (None where nothing is known); ``rows``, one a tolerance and
        solver: mean ``iterations`` and median ``seconds`` of a sample ``with`` and ``without`` the prediction, and how
        many were ``certified``; ``breakeven``, one a tolerance: the best way with and without, and ``solves``, None
        where the operator never pays.
    """
    count = min(samples, store.sizes["test"])
    drawn = [store.sample("test", index) for index in range(count)]
    rows: list[dict[str, Any]] = []
    for name, arguments in _ways(store, drawn[0]).items():
        certify(predictor, store.family, drawn[0], max(tolerances), **arguments)  # what compiles once is not counted
        for rtol in tolerances:
            runs = [certify(predictor, store.family, sample, rtol, **arguments) for sample in drawn]
            rows.append({"solver": name, "rtol": rtol, **_row(runs)})
    if not store.evolves:
        rows += [_own_choice(store, drawn, rtol) for rtol in tolerances]
    data, training = data_seconds(store), math.fsum(row["seconds"] for row in predictor.history) or None
    return {
        "samples": count,
        "data_seconds": data,
        "training_seconds": training,
        "rows": rows,
        "breakeven": [_breakeven(rows, rtol, data, training) for rtol in tolerances],
    }


def data_seconds(store: Store) -> float | None:
    """Seconds that a dataset's training and validation samples took, out of its sidecars; None where none are written.

    Parameters
    ----------
    store : Store
    """
    found = [
        read_json(path) for split in ("train", "validation") for path in sorted((store.path / split).glob("*.json"))
    ]
    seconds = [sidecar.get("seconds", {}).get("total") for sidecar in found]
    return math.fsum(seconds) if seconds and None not in seconds else None


def _ways(store: Store, sample: Any) -> dict[str, dict[str, Any]]:
    """Solvers that finish a prediction."""
    if store.evolves:
        return {"cg": {}, "cg + multigrid": {"M": "multigrid"}}
    ways: dict[str, dict[str, Any]] = {"cg + jacobi": {"M": "jacobi"}}
    try:
        Multigrid().setup(store.family.system(sample).A)
    except (ValueError, TypeError):
        return ways
    return ways | {"cg + multigrid": {"M": "multigrid"}}


def _row(runs: Sequence[Certified | CertifiedSteps]) -> dict[str, Any]:
    with_it, without = np.mean([run.iterations for run in runs], axis=0)
    seconds = [run.seconds for run in runs]
    return {
        "certified": sum(run.converged for run in runs),
        "iterations": {"with": float(with_it), "without": float(without)},
        "seconds": {
            "with": statistics.median(pair[0] for pair in seconds),
            "without": statistics.median(pair[1] for pair in seconds),
        },
    }


def _own_choice(store: Store, samples: Sequence[Any], rtol: float) -> dict[str, Any]:
    """`solvers.solve` by its own choice, from zero."""
    systems = [store.family.system(sample) for sample in samples]

    def run(system: Any) -> Any:
        return solve(system.A, system.b, rtol=rtol, null_space=system.null_space, throw=False)

    run(systems[0])
    results = [run(system) for system in systems]
    return {
        "solver": f"auto ({results[0].method})",
        "rtol": rtol,
        "certified": sum(r.converged for r in results),
        "iterations": {"with": None, "without": float(np.mean([r.iterations for r in results]))},
        "seconds": {
            "with": None,
            "without": statistics.median(r.setup_seconds + r.solve_seconds for r in results),
        },
    }


def _breakeven(
    rows: Sequence[Mapping[str, Any]], rtol: float, data: float | None, training: float | None
) -> dict[str, Any]:
    """The best ways at a tolerance, and after how many solves the operator has paid."""
    here = [row for row in rows if row["rtol"] == rtol]
    total = max(row["certified"] for row in here)
    sound = [row for row in here if row["certified"] == total]
    best = min(sound, key=lambda row: row["seconds"]["without"])
    hybrid = min(
        (row for row in sound if row["seconds"]["with"] is not None),
        key=lambda row: row["seconds"]["with"],
        default=None,
    )
    found: dict[str, Any] = {
        "rtol": rtol,
        "without": {"solver": best["solver"], "seconds": best["seconds"]["without"]},
        "with": None if hybrid is None else {"solver": hybrid["solver"], "seconds": hybrid["seconds"]["with"]},
        "solves": None,
    }
    if hybrid is not None and data is not None and training is not None:
        saved = best["seconds"]["without"] - hybrid["seconds"]["with"]
        found["solves"] = math.ceil((data + training) / saved) if saved > 0 else None
    return found


def section(measured: Mapping[str, Any]) -> list[str]:
    """The part of a report, in Markdown.

    Parameters
    ----------
    measured : mapping
        As `measure` returns it.
    """

    def cell(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    count = measured["samples"]
    lines = [
        f"### As a first guess of a solver, {count} test samples",
        "",
        "| rtol | solver | iterations with | without | ms with | ms without | certified |",
        "|---:|---|---:|---:|---:|---:|---:|",
    ]
    for row in sorted(measured["rows"], key=lambda row: -row["rtol"]):
        its, seconds = row["iterations"], row["seconds"]
        cells = [f"{row['rtol']:.0e}", row["solver"], cell(its["with"], ".1f"), cell(its["without"], ".1f")]
        for word in ("with", "without"):
            cells.append(cell(None if seconds[word] is None else 1e3 * seconds[word], ".3g"))
        lines.append(f"| {' | '.join(cells)} | {row['certified']} of {count} |")
    data, training = (measured[key] for key in ("data_seconds", "training_seconds"))
    lines += [
        "",
        "Mean iterations and median milliseconds of a sample, set-up of the preconditioner and prediction included. "
        f"The dataset took {cell(data, '.3g')} s, the training {cell(training, '.3g')} s. Break-even:",
        "",
    ]
    for entry in measured["breakeven"]:
        ms = 1e3 * entry["without"]["seconds"]
        says = f"- rtol {entry['rtol']:.0e}: the best way without it is {entry['without']['solver']}, {ms:.3g} ms"
        if entry["with"] is not None:
            says += f"; with it {entry['with']['solver']}, {1e3 * entry['with']['seconds']:.3g} ms"
        known = data is not None and training is not None
        pays = f"it has paid after {entry['solves']:,} solves" if entry["solves"] else "it never pays"
        lines.append(f"{says}: {pays if known else 'what it cost is not known'}.")
    return [*lines, ""]
