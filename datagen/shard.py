"""One sample drawn and solved, and one shard of them written.

A shard is a pure function of the spec and its index: whoever makes it, and whenever, the bytes are the same. A sample
that cannot be solved as asked is drawn anew; why is kept beside it, and where that happens too often the dataset stops.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datagen.difficulty import LABEL_TYPE, label
from datagen.draw import attempts, draw
from datagen.evolve.family import EvolvingFamily
from datagen.evolve.work import counted
from datagen.family import Family, LinearSystem, Sample
from datagen.files import json_bytes, write_atomically
from datagen.plan import ShardSolver
from datagen.shard_file import write_as_filled
from datagen.shard_image import ShardImage
from datagen.store import FORMAT_VERSION, Shard, Spec, code_version
from solvers import Result

TOLERATED_SHARE, TOLERATED = 0.05, 4  # failed draws: of all draws of a dataset, and however many draws there are
STAGES = ("draw", "discretise", "solve", "check")  # of a sample
OF_A_SHARD = ("store", "store beside")  # what its worker waits for, and what a second thread does meanwhile


@dataclass(frozen=True)
class Solved:
    """A sample with its certified solution.

    Attributes
    ----------
    sample : Sample
    solution : mapping
        Output fields by name.
    method : str
        Who solved it.
    costs, quality : mapping
        Numbers by name, the same names for all samples of a family; "work" is deterministic: passes over the unknowns.
    attempt : int
        Which draw it is; those before it failed.
    failures : tuple of str
        Why, one a failed draw.
    seconds : mapping
        By stage, those that failed included.
    """

    sample: Sample
    solution: Mapping[str, NDArray[Any]]
    method: str
    costs: Mapping[str, int]
    quality: Mapping[str, float]
    attempt: int
    failures: tuple[str, ...]
    seconds: Mapping[str, float]


class FailedDraw(Exception):
    """A sample that cannot be solved as the spec asks, and why."""


# What solving a sample gives: output fields, who solved, costs, quality.
Outcome = tuple[Mapping[str, NDArray[Any]], str, dict[str, int], dict[str, float]]
SpentOn = Callable[[str], None]


def solve_sample(spec: Spec, split: str, index: int, solver: Callable[[LinearSystem], Result] | None = None) -> Solved:
    """Draw and solve one sample; one that cannot be solved as asked is drawn anew, and the failure kept.

    Parameters
    ----------
    spec, split, index
        Which sample.
    solver : callable, optional
        The one of its shard, for steady families; by default a fresh one.

    Raises
    ------
    RuntimeError
        If ten draws in a row fail: then it is not the draw. Given inputs (``spec.inputs``) have one attempt.
    """
    family = spec.family
    solver = ShardSolver(spec) if solver is None else solver
    failures: list[str] = []
    seconds = dict.fromkeys(STAGES, 0.0)
    clock = time.perf_counter()

    def spent_on(stage: str) -> None:
        nonlocal clock
        clock, before = time.perf_counter(), clock
        seconds[stage] += clock - before

    for attempt in attempts(spec):
        sample = draw(spec, split, index, attempt)
        spent_on("draw")
        try:
            _require_finite(spec, sample)
            if isinstance(family, EvolvingFamily):
                outcome = _evolve(spec, family, sample, spent_on)
            else:
                outcome = _solve(family, sample, solver, spent_on)
        except FailedDraw as failure:
            failures.append(str(failure))
            continue
        except (ValueError, ArithmeticError) as error:
            # The parameters were looked at before: it is the draw, if it was drawn.
            if spec.inputs is not None:
                raise
            failures.append(f"{type(error).__name__}: {error}")
            continue
        return Solved(sample, *outcome, attempt, tuple(failures), seconds)
    raise RuntimeError(
        f"sample {index} of split {split!r} failed in {len(failures)} draws, last with {failures[-1].rstrip('. ')}. "
        "Try other parameters of the PDE or a finer grid, and for steady ones another solver.method or solver.rtol."
    )


def _require_finite(spec: Spec, sample: Sample) -> None:
    for name, values in sample.fields.items():
        if not np.isfinite(values).all():
            raise FailedDraw(f"FloatingPointError: {name} as drawn is not finite, or does not fit into {spec.dtype}")


def _solve(family: Family, sample: Sample, solver: Callable[[LinearSystem], Result], spent_on: SpentOn) -> Outcome:
    """Solve the linear system of a steady sample to the spec's tolerance."""
    system = family.system(sample)
    spent_on("discretise")
    result = solver(system)
    spent_on("solve")
    if not result.converged:
        raise FailedDraw(f"{result.status.name}: {result.reason}")
    solution = _as_fields(family, system, result)
    norm = float(np.linalg.norm(system.b))
    costs = {
        "iterations": result.iterations,
        "matvecs": result.matvecs,
        "preconditioner_applies": result.preconditioner_applies,
        # By the operator or by the preconditioner (or factor).
        "work": (result.matvecs + result.preconditioner_applies) * result.x.size,
    }
    residual = {"relative_residual": result.residual_norm / norm if norm else 0.0}
    quality = {**residual, **family.quality(sample, solution)}
    spent_on("check")
    return solution, result.method, costs, quality


def _as_fields(family: Family, system: LinearSystem, result: Result) -> dict[str, NDArray[Any]]:
    """The solution as the family's output fields; several share one leading axis."""
    values = system.to_field(result.x)
    outputs = family.role("output")
    return {outputs[0].name: values} if len(outputs) == 1 else {f.name: v for f, v in zip(outputs, values, strict=True)}


def _evolve(spec: Spec, family: EvolvingFamily, sample: Sample, spent_on: SpentOn) -> Outcome:
    """Evolve a sample to the times of the family's frames, alone: the steps of a batch depend on all its members."""
    try:
        with counted() as work:
            states = family.evolve(family.initial(sample), list(family.times), sample, family.solver(spec.solver))
    except FloatingPointError as error:
        raise FailedDraw(f"{type(error).__name__}: {error}") from None
    finally:
        spent_on("solve")
    solution = {f.name: states[:, i] for i, f in enumerate(family.role("output"))}
    for name, values in solution.items():
        if not max(values.max(), -values.min()) <= np.finfo(spec.dtype).max:
            raise FailedDraw(f"FloatingPointError: {name} is not finite, or does not fit into {spec.dtype}")
        low, high = family.bounds(sample).get(name, (-np.inf, np.inf))
        if values.min() < low or values.max() > high:
            raise FailedDraw(
                f"BoundViolated: {name} reaches from {values.min():.4g} to {values.max():.4g}, and cannot leave "
                f"{low:.4g} to {high:.4g}: the grid does not resolve it"
            )
    for name, quantity in family.conservation(sample, states).items():
        drift = float(np.max(quantity.drift))
        if not drift <= quantity.tolerance:
            raise FailedDraw(
                f"NotConserved: the mean of {name} changes by {drift:.3g}, relative, and may by {quantity.tolerance:g}"
            )
    passed = work.values or work.evaluations * states[0].size
    costs = {"steps": work.steps, "evaluations": work.evaluations, "work": passed}
    if work.solves:
        costs |= {"solves": work.solves, "iterations": work.iterations}
    if work.products:
        costs |= {"matvecs": work.products, "unknowns": states[0].size}
    quality = family.quality(sample, solution)
    stored = {name: values.astype(spec.dtype) for name, values in solution.items()}
    spent_on("check")
    return stored, family.integrator, costs, quality


def require_few_failures(spec: Spec, failures: Sequence[str]) -> None:
    """Stop a dataset of which more than 5 % of all draws fail: what is left would be a selection.

    With N samples and F failed draws, ``F > 0.05 (N + F)``, and F > 4, since of a handful of draws the share says
    little. N is that of the whole dataset and F can only grow, so whoever sees enough failures, in his shard, in his
    job's shards or in all of them, knows that the end would be the same. The verdict depends on the spec alone, not on
    the order of the shards, the workers or the jobs.

    Raises
    ------
    RuntimeError
        With the reasons, the most frequent first.
    """
    samples, failed = sum(spec.samples.values()), len(failures)
    if failed <= TOLERATED or failed <= TOLERATED_SHARE * (samples + failed):
        return
    kinds = Counter(reason.split(":")[0] for reason in failures)
    examples = {reason.split(":")[0]: reason for reason in reversed(failures)}
    raise RuntimeError(
        f"{failed} draws failed, more than {TOLERATED_SHARE:.0%} of all draws for {samples:,} samples: "
        + "; ".join(f"{count} times {examples[kind].rstrip('. ')}" for kind, count in kinds.most_common(3))
        + ". Choose parameters of the PDE, a grid or a solver that suit each other."
    )


def _empty_image(spec: Spec, shard: Shard, first: Solved) -> ShardImage:
    """The file of a shard, with a place for what its first sample has and all others will have."""
    provenance = {"sample": np.int64, "attempt": np.int64, "solver": "S32"} | (
        {"level": LABEL_TYPE} if spec.level else {}
    )
    records: dict[str, dict[str, Any]] = {
        "provenance": provenance,
        "cost": dict.fromkeys(first.costs, np.int64),
        "quality": dict.fromkeys(first.quality, np.float64),
    }
    return ShardImage(spec, shard, dict.fromkeys(first.sample.scalars, np.float64), records)


def _records(spec: Spec, shard: Shard, solved: Sequence[Solved]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """What fills the image besides the fields: scalars, and groups of records, column by column."""

    def columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {name: [row[name] for row in rows] for name in rows[0]}

    provenance: dict[str, Any] = {
        "sample": range(shard.start, shard.stop),
        "attempt": [s.attempt for s in solved],
        "solver": [s.method.encode()[:32] for s in solved],
    }
    if spec.level:
        provenance["level"] = label(spec.level).encode()
    records = {
        "provenance": provenance,
        "cost": columns([s.costs for s in solved]),
        "quality": columns([s.quality for s in solved]),
    }
    return columns([s.sample.scalars for s in solved]), records


def make_shard(spec: Spec, shard: Shard, folder: Path) -> dict[str, Any]:
    """Compute a shard and write it and its sidecar; returns the sidecar.

    Parameters
    ----------
    spec : Spec
    shard : Shard
    folder : Path
        Of the dataset.
    """
    started = time.perf_counter()
    solver = ShardSolver(spec)
    samples = (solve_sample(spec, shard.split, index, solver) for index in range(shard.start, shard.stop))
    first = next(samples)
    computing = time.perf_counter() - started
    image = _empty_image(spec, shard, first)
    solved: list[Solved] = []

    def filled() -> Iterator[int]:
        nonlocal computing
        began = time.perf_counter()
        for one in chain([first], samples):
            for name, values in {**one.sample.fields, **one.solution}.items():
                image.fields[name][len(solved)] = values
            # What the image holds need not be held twice; without it a record takes some hundred bytes.
            solved.append(replace(one, sample=Sample({}, one.sample.scalars), solution={}))
            if one.failures:
                require_few_failures(spec, [reason for s in solved for reason in s.failures])
            computing += time.perf_counter() - began
            yield len(solved)
            began = time.perf_counter()
        image.fill(*_records(spec, shard, solved))

    (folder / shard.split).mkdir(exist_ok=True)
    digest, beside = write_as_filled(folder / shard.file, image, filled())
    sidecar = {
        "format_version": FORMAT_VERSION,
        "status": "complete",
        "spec_sha256": spec.digest,
        "shard": shard.index,
        "split": shard.split,
        "samples": [shard.start, shard.stop],
        "seed": {"root": spec.seed, "spawn_key": ["family", "split", "sample", "attempt"]},
        "failed_attempts": {str(shard.start + i): list(s.failures) for i, s in enumerate(solved) if s.failures},
        "totals": {name: sum(int(s.costs[name]) for s in solved) for name in solved[0].costs},
        "relative_residuals": [
            float(f"{s.quality['relative_residual']:.3g}") for s in solved if "relative_residual" in s.quality
        ],
        "bytes": image.size,
        "sha256": digest,
        "code_version": code_version(),
        "seconds": {
            "total": time.perf_counter() - started,
            "store": time.perf_counter() - started - computing,
            "store beside": beside,
            **{stage: sum(s.seconds[stage] for s in solved) for stage in STAGES},
            "samples": [round(sum(s.seconds.values()), 6) for s in solved],
        },
    }
    write_atomically(folder / shard.sidecar, json_bytes(sidecar))
    return sidecar
