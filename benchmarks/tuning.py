"""What both experiments with learned relaxation factors share: policies, replays, partial results, table and plot."""

import argparse
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.harness import RESULTS, machine
from solvers.tuning import BinnedTsallisINF, ChebyshevContextual, Policy, TsallisINF

ARMS = np.linspace(1.0, 1.95, 20)
POINTS = 100  # of a curve
PLOTTED = ("Tsallis-INF", "Tsallis-INF-CB", "ChebCB", "LearnedOmega", "omega*(A)")


def bandits(interval: tuple[float, float], bins: int, seed: int) -> dict[str, Policy]:
    """The policies that choose from the arms."""
    return {
        "Tsallis-INF": TsallisINF(ARMS, seed=seed),
        "Tsallis-INF, reduced variance": TsallisINF(ARMS, reduced_variance=True, seed=seed),
        "Tsallis-INF-CB": BinnedTsallisINF(ARMS, interval, bins=bins, seed=seed),
        "ChebCB": ChebyshevContextual(ARMS, interval, seed=seed),
        "ChebCB, theory's constants": ChebyshevContextual(ARMS, interval, constants="theory", seed=seed),
    }


def replay(policy: Policy, costs: np.ndarray, contexts: np.ndarray) -> np.ndarray:
    """What each system costs a policy that chooses from the arms, whose costs ``(systems, arms)`` are all known."""
    paid = np.empty(len(costs))
    for t, (row, context) in enumerate(zip(costs, contexts, strict=True)):
        arm = int(np.abs(ARMS - policy.suggest(float(context))).argmin())
        paid[t] = row[arm]
        policy.update(float(paid[t]))
    return paid


def summary(paid: np.ndarray, **facts: Any) -> dict[str, Any]:
    """Total and curve of cumulative costs, with whatever else there is to say."""
    at = np.linspace(0, len(paid), POINTS + 1).astype(int)[1:] - 1
    return {"total": float(paid.sum()), "curve": [round(float(value), 1) for value in np.cumsum(paid)[at]], **facts}


def part(path: Path, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A partial result: read where there is one, otherwise computed and written whole or not at all."""
    if path.exists():
        return json.loads(path.read_text())
    result = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(result) + "\n")
    os.replace(beside, path)
    return result


def collect(parts: Sequence[dict[str, Any]], variant: str) -> list[dict[str, Any]]:
    """One row a policy: mean and standard deviation of its totals over the trials, and how it compares with omega*.

    Every part holds ``policies``, a `summary` by name; ratios are taken trial by trial, on the same draws.
    """
    rows = []
    for name in parts[0]["policies"]:
        entries = [one["policies"][name] for one in parts if name in one["policies"]]
        totals = np.array([entry["total"] for entry in entries])
        ratios = np.array([one["policies"][name]["total"] / one["policies"]["omega*(A)"]["total"] for one in parts])
        rows.append(
            {
                "policy": name,
                "variant": variant,
                "trials": len(entries),
                "total": float(totals.mean()),
                "spread": float(totals.std(ddof=1)) if len(totals) > 1 else 0.0,
                "times_omega_star": float(ratios.mean()),
                "largest_times_omega_star": float(ratios.max()),
                "products": float(np.mean([entry.get("products", 0) for entry in entries])),
                "curve": np.mean([entry["curve"] for entry in entries], axis=0).round(1).tolist(),
            }
        )
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: policy, variant, total, spread."""
    lines = [
        "| policy | variant | total | spread | times omega*(A) | largest | products in it |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['policy']} | {row['variant']} | {row['total']:,.0f} | {row['spread']:,.0f} | "
            f"{row['times_omega_star']:.3f} | {row['largest_times_omega_star']:.3f} | {row['products']:,.0f} |"
        )
    return "\n".join(lines)


def curves(rows: Sequence[dict[str, Any]], systems: int, fixed: str, title: str) -> Figure:
    """The published picture: systems that remain over the iterations spent."""
    figure = Figure(figsize=(7.0, 5.0), layout="constrained")
    axes = figure.add_subplot()
    remaining = systems - np.linspace(0, systems, POINTS + 1)
    for row in rows:
        if row["policy"] in (*PLOTTED, fixed):
            axes.plot([0.0, *row["curve"]], remaining, label=row["policy"])
    axes.set_xlabel("total iterations")
    axes.set_ylabel("systems remaining")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def write(name: str, rows: Sequence[dict[str, Any]], figures: dict[str, Figure], **facts: Any) -> None:
    """The result as JSON with what it was measured on, its plots beside it, its table to the terminal."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    report = {"format_version": 1, "machine": machine(), **facts, "rows": list(rows)}
    (RESULTS / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    for label, figure in figures.items():
        figure.savefig(RESULTS / f"{name}-{label}.png", dpi=150)
    print(table(rows))


def parser(description: str, trials: int) -> argparse.ArgumentParser:
    """The options that both experiments have."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--trials", type=int, default=trials)
    options.add_argument("--processes", type=int, default=1)
    options.add_argument("--systems", type=int, default=5000)
    options.add_argument("--seed", type=int, default=0, help="of the draws and the policies")
    return options
