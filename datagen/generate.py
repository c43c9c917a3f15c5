"""From a spec to a dataset: plan, shards, merge.

A shard is a pure function of the spec and its index. Whoever computes it, in whatever order and after however many
interruptions, gets the same bytes; so resuming is only a matter of looking which shards are whole.
"""

import errno
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from datagen.draw import draw
from datagen.evolve.family import EvolvingFamily
from datagen.evolve.work import counted
from datagen.executors import chosen_executor
from datagen.family import Family, LinearSystem, Sample
from datagen.files import (
    is_locked,
    json_bytes,
    locked,
    read_json,
    remove_partials,
    sha256,
    sha256_of_file,
    write_atomically,
)
from datagen.plan import ShardSolver, planned
from datagen.store import FORMAT_VERSION, Shard, Spec, code_version, estimated_bytes, shard_image
from solvers import Result

ATTEMPTS = 10
TOLERATED_SHARE, TOLERATED = 0.05, 4  # failed draws: of all draws of a dataset, and however many draws there are
# What others read in sidecars, besides hash and status.
_SIDECAR = {"failed_attempts": dict, "totals": dict, "bytes": int, "code_version": str, "seconds": dict}
STAGES = ("draw", "discretise", "solve", "check")  # of a sample; "store" follows, once a shard


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

    attempts = ATTEMPTS if spec.inputs is None else 1
    for attempt in range(attempts):
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
        except ValueError as error:  # the parameters were looked at before: it is the draw, if it was drawn
            if spec.inputs is not None:
                raise
            failures.append(f"{type(error).__name__}: {error}")
            continue
        return Solved(sample, *outcome, attempt, tuple(failures), seconds)
    raise RuntimeError(
        f"sample {index} of split {split!r} failed in {attempts} draws, last with {failures[-1].rstrip('. ')}. "
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
    costs = {"steps": work.steps, "evaluations": work.evaluations, "work": work.evaluations * states[0].size}
    if work.solves:
        costs |= {"solves": work.solves, "iterations": work.iterations}
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


def make_shard(spec: Spec, shard: Shard, folder: Path) -> dict[str, Any]:
    """Compute a shard and write it and its sidecar; returns the sidecar."""
    started = time.perf_counter()
    family, count = spec.family, shard.stop - shard.start
    fields = {f.name: np.empty((count, *family.stored_shape(f)), spec.dtype) for f in family.fields}
    solver = ShardSolver(spec)
    solved: list[Solved] = []
    for row in range(count):
        one = solve_sample(spec, shard.split, shard.start + row, solver)
        for name, values in {**one.sample.fields, **one.solution}.items():
            fields[name][row] = values
        # What the shard holds need not be held twice; without it a record takes some hundred bytes.
        solved.append(replace(one, sample=Sample({}, one.sample.scalars), solution={}))
        if one.failures:
            require_few_failures(spec, [reason for s in solved for reason in s.failures])
    scalars = {name: np.array([s.sample.scalars[name] for s in solved]) for name in solved[0].sample.scalars}
    costs = {name: np.array([s.costs[name] for s in solved], dtype=np.int64) for name in solved[0].costs}
    quality = {name: np.array([s.quality[name] for s in solved]) for name in solved[0].quality}
    records: dict[str, dict[str, NDArray[Any]]] = {
        "provenance": {
            "sample": np.arange(shard.start, shard.stop),
            "attempt": np.array([s.attempt for s in solved]),
            "solver": np.array([s.method.encode()[:32] for s in solved], dtype="S32"),
        },
        "cost": costs,
        "quality": quality,
    }
    computed = time.perf_counter()
    image = shard_image(spec, shard, fields, scalars, records)
    (folder / shard.split).mkdir(exist_ok=True)
    write_atomically(folder / shard.file, image)
    sidecar = {
        "format_version": FORMAT_VERSION,
        "status": "complete",
        "spec_sha256": spec.digest,
        "shard": shard.index,
        "split": shard.split,
        "samples": [shard.start, shard.stop],
        "seed": {"root": spec.seed, "spawn_key": ["family", "split", "sample", "attempt"]},
        "failed_attempts": {str(shard.start + i): list(s.failures) for i, s in enumerate(solved) if s.failures},
        "totals": {name: int(values.sum()) for name, values in costs.items()},
        "relative_residuals": [float(f"{residual:.3g}") for residual in quality.get("relative_residual", ())],
        "bytes": len(image),
        "sha256": sha256(image),
        "code_version": code_version(),
        "seconds": {
            "total": time.perf_counter() - started,
            "store": time.perf_counter() - computed,
            **{stage: sum(s.seconds[stage] for s in solved) for stage in STAGES},
            "samples": [round(sum(s.seconds.values()), 6) for s in solved],
        },
    }
    write_atomically(folder / shard.sidecar, json_bytes(sidecar))
    return sidecar


def shard_defect(spec: Spec, shard: Shard, folder: Path) -> str | None:
    """Why a shard is not whole, or None if it is: its sidecar decides, and its file must have the sidecar's hash.

    A missing shard is "missing"; anything else is a sentence.
    """
    path = folder / shard.sidecar
    if not path.exists():
        return "missing"
    try:
        sidecar = read_json(path)
    except ValueError as error:
        return str(error)
    if sidecar.get("status") != "complete":
        return f"{path} does not say that the shard is complete"
    lacking = sorted(key for key, kind in _SIDECAR.items() if not isinstance(sidecar.get(key), kind))
    if not lacking and not all(isinstance(reasons, list) for reasons in sidecar["failed_attempts"].values()):
        lacking = ["failed_attempts"]
    if lacking:
        return f"{path} is damaged: it does not say what it should of {', '.join(lacking)}"
    if sidecar.get("spec_sha256") != spec.digest:
        return f"{path} belongs to another spec"
    file = folder / shard.file
    if not file.exists():
        return f"{file} is gone though its sidecar is there"
    if sha256_of_file(file) != sidecar.get("sha256"):
        return f"{file} does not have the SHA-256 in its sidecar: it is corrupted"
    return None


@contextmanager
def shard_locks(folder: Path, shards: Iterable[Shard]) -> Iterator[None]:
    """Hold the locks of shards, so that jobs of one dataset may run side by side and none does another's work.

    Raises
    ------
    ValueError
        If another process holds one of them.
    """
    by_index = {shard.index: shard for shard in shards}
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / ".lock", by_index))
        except BlockingIOError as error:
            shard = by_index[error.args[1]]
            raise ValueError(
                f"shard {shard.index} ({shard.file}) of {folder} is being written by another process; wait for it, "
                "or give this job other shards with shard.index and shard.count"
            ) from None
        yield


def prepare_folder(spec: Spec, folder: Path) -> None:
    """Make the dataset's folder and write its spec, or check that the spec there is the same one.

    Another spec gives way if nothing was made of it and nobody is at it: a first try with parameters that do not work
    must not stand in the way of the second.

    Raises
    ------
    ValueError
        If the folder holds something else, with the keys that differ.
    """
    path = folder / "spec.json"
    if path.exists():
        found = read_json(path)
        wanted = json.loads(json_bytes(spec.as_dict()))
        if found != wanted and _nothing_made(folder) and not is_locked(folder / ".lock"):
            write_atomically(path, json_bytes(wanted))
        elif found != wanted:
            asked = [words for words in _differences(found, wanted) if not words.startswith("solver.plan ")]
            differing = ", ".join(asked or _differences(found, wanted))  # the plan follows from what was asked for
            raise ValueError(
                f"{folder} holds a dataset of another spec ({differing}). Choose another out=, or delete the folder."
            )
        return
    if folder.exists() and (not folder.is_dir() or any(p.name != ".lock" for p in folder.iterdir())):
        raise ValueError(f"out={folder} exists and is not a Southwell dataset; choose another place")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json_bytes(spec.as_dict()))


def _nothing_made(folder: Path) -> bool:
    """Whether a dataset's folder holds its spec alone."""
    return all(path.is_dir() or path.name in ("spec.json", ".lock") for path in folder.rglob("*"))


def _differences(found: Any, wanted: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted(found.keys() | wanted.keys()):
            if found.get(key) != wanted.get(key):
                yield from _differences(found.get(key), wanted.get(key), f"{prefix}{key}.")
    else:
        yield f"{prefix[:-1]} is {found!r} there and {wanted!r} here"


@lru_cache(maxsize=1)
def _spec_of(text: bytes) -> Spec:
    return Spec.from_dict(json.loads(text))


def _task(arguments: tuple[bytes, int, str]) -> tuple[int, dict[str, Any]]:
    """What a worker runs: everything it needs in plain values."""
    text, index, folder = arguments
    spec = _spec_of(text)
    return index, make_shard(spec, spec.shards[index], Path(folder))


def check_share(shard_index: int | None, shard_count: int | None) -> None:
    """Refuse a job's number, or a number of jobs, that does not fit.

    Raises
    ------
    ValueError
    """
    if (shard_index is None) != (shard_count is None):
        raise ValueError("shard.index and shard.count go together: this job's number, and how many jobs there are")
    for name, value, least in (("shard.index", shard_index, 0), ("shard.count", shard_count, 1)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    if shard_index is not None and shard_count is not None and shard_index >= shard_count:
        raise ValueError(f"shard.index must be from 0 to shard.count - 1 = {shard_count - 1}, got {shard_index}")


def generate(
    spec: Spec,
    folder: str | Path,
    *,
    executor: str = "processes",
    workers: int = 1,
    address: str | None = None,
    shard_index: int | None = None,
    shard_count: int | None = None,
    on_damage: Callable[[str], None] = lambda sentence: None,
    on_shard: Callable[[Shard, dict[str, Any]], None] = lambda shard, sidecar: None,
    on_found: Callable[[Shard, dict[str, Any]], None] = lambda shard, sidecar: None,
) -> Path:
    """Make a dataset, or go on with one: compute the shards that are missing or damaged, then merge.

    Parameters
    ----------
    spec : Spec
    folder : path
        The dataset.
    executor : str
        "serial", "processes" or "dask".
    workers : int
        Worker processes.
    address : str, optional
        Of a Dask scheduler, for "dask"; without it that starts a cluster of `workers` on this machine.
    shard_index, shard_count : int, optional
        Take only the shards ``shard_index, shard_index + shard_count, ...``; then `merge` is left to the caller, after
        the last job. Jobs may run side by side, on one machine or many.
    on_damage : callable
        Told of each damaged shard, in a sentence, before it is made anew.
    on_shard, on_found : callable
        Told of each shard, with its sidecar: `on_shard` when it is done, `on_found` if it was there already.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ValueError
        If the folder holds another spec, a shard has another writer, or an argument does not fit.
    OSError
        If the disk is full; no half-written shard counts as done.
    RuntimeError
        If a sample fails ten times, or more than 5 % of all draws fail (`require_few_failures`).
    """
    folder = Path(folder)
    check_share(shard_index, shard_count)
    execute = chosen_executor(executor, workers, address)
    spec = planned(spec, folder)
    prepare_folder(spec, folder)
    mine = spec.shards if shard_count is None else spec.shards[shard_index::shard_count]
    pending, fresh, failures = [], {}, []
    for shard in mine:
        defect = shard_defect(spec, shard, folder)
        if defect is None:
            sidecar = read_json(folder / shard.sidecar)
            failures += _failures(sidecar)
            on_found(shard, sidecar)
            continue
        if defect != "missing":
            on_damage(f"shard {shard.index} is damaged and will be made again: {defect}")
        pending.append(shard)
    require_few_failures(spec, failures)
    if pending:
        _require_space(spec, pending, folder)
        with shard_locks(folder, pending):
            # Whoever held the locks before may have finished some meanwhile.
            pending = [shard for shard in pending if shard_defect(spec, shard, folder) is not None]
            for shard in pending:
                (folder / shard.sidecar).unlink(missing_ok=True)
            places = [folder / name for shard in pending for name in (shard.file, shard.sidecar)]
            remove_partials(places)
            text = json_bytes(spec.as_dict())
            tasks = [(text, shard.index, str(folder.absolute())) for shard in pending]
            outcomes = execute(_task, tasks, workers)
            try:
                for index, sidecar in outcomes:
                    fresh[index] = sidecar["bytes"]
                    on_shard(spec.shards[index], sidecar)
                    failures += _failures(sidecar)
                    require_few_failures(spec, failures)
            finally:
                outcomes.close()  # type: ignore[attr-defined]
                remove_partials(places)
    if shard_count is None:
        merge(folder, fresh)
    return folder


def _failures(sidecar: Mapping[str, Any]) -> list[str]:
    """Reasons of the failed draws of a shard."""
    return [reason for failures in sidecar["failed_attempts"].values() for reason in failures]


def _require_space(spec: Spec, shards: list[Shard], folder: Path) -> None:
    samples = sum(shard.stop - shard.start for shard in shards)
    needed = samples * (spec.sample_bytes() + 200) + 24_000 * len(shards)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"{samples:,} samples need about {needed / 1e6:,.0f} MB, and the disk of {folder} has {free / 1e6:,.0f} MB "
            "free; nothing was computed",
        )


def merge(folder: str | Path, fresh: Mapping[int, int] | None = None) -> dict[str, Any]:
    """Write ``manifest.json`` of a dataset whose shards are all whole, in place; returns the manifest.

    Parameters
    ----------
    folder : path
        The dataset.
    fresh : dict, optional
        Bytes of shards, by index, that the caller has just had written: they need not be read and hashed once more.

    Raises
    ------
    ValueError
        If there is no dataset, or shards are missing or damaged (they are named).
    RuntimeError
        If more than 5 % of all draws failed (`require_few_failures`).
    """
    folder = Path(folder)
    if not (folder / "spec.json").exists():
        raise ValueError(f"{folder} is not a Southwell dataset: it has no spec.json")
    spec = Spec.from_dict(read_json(folder / "spec.json"))
    known = fresh or {}

    def defect_of(shard: Shard) -> str | None:
        file = folder / shard.file
        as_written = shard.index in known and file.exists() and file.stat().st_size == known[shard.index]
        return None if as_written else shard_defect(spec, shard, folder)

    defects = {shard: defect_of(shard) for shard in spec.shards}
    broken = {shard: defect for shard, defect in defects.items() if defect is not None}
    if broken:
        (folder / "manifest.json").unlink(missing_ok=True)
        names = "; ".join(
            f"shard {shard.index}{'' if defect == 'missing' else f' ({defect})'}"
            for shard, defect in list(broken.items())[:20]
        )
        raise ValueError(
            f"{folder} is not complete: {len(broken)} of {len(spec.shards)} shards are missing or damaged ({names}"
            f"{', ...' if len(broken) > 20 else ''}). Repeat the command that makes them, then merge."
        )
    sidecars = [read_json(folder / shard.sidecar) for shard in spec.shards]
    require_few_failures(spec, [reason for sidecar in sidecars for reason in _failures(sidecar)])
    manifest = {
        "format_version": FORMAT_VERSION,
        "spec_sha256": spec.digest,
        "code_version": sorted({sidecar["code_version"] for sidecar in sidecars}),
        "totals": {name: sum(s["totals"][name] for s in sidecars) for name in sidecars[0]["totals"]},
        "failed_attempts": sum(len(_failures(sidecar)) for sidecar in sidecars),
        "shards": [
            {
                "file": shard.file,
                "split": shard.split,
                "samples": [shard.start, shard.stop],
                "sha256": sidecar["sha256"],
            }
            for shard, sidecar in zip(spec.shards, sidecars, strict=True)
        ],
    }
    content = json_bytes(manifest)
    path = folder / "manifest.json"
    if not path.exists() or path.read_bytes() != content:
        write_atomically(path, content)
    return manifest


@dataclass(frozen=True)
class Estimate:
    """What a dataset would take."""

    samples: int
    shards: int
    bytes: int
    core_hours: float
    measured: int

    def sentence(self, workers: int) -> str:
        """For people."""
        return (
            f"{self.samples:,} samples in {self.shards:,} shards, {self.bytes / 1e6:,.1f} MB, about "
            f"{self.core_hours:.3g} core hours, {self.core_hours / workers:.3g} hours with {workers} workers "
            f"(from {self.measured} samples made and thrown away)"
        )


def estimate(spec: Spec, measured: int = 5) -> Estimate:
    """Samples, bytes and hours of a spec, from a few training samples solved here and now; writes nothing."""
    spec = planned(spec)
    measured = min(measured, spec.samples["train"])
    with threadpool_limits(limits=1):
        solve_sample(spec, "train", 0)  # compiles and imports what the first solve compiles and imports
        began = time.process_time()
        for index in range(measured):
            solve_sample(spec, "train", index)
        seconds = (time.process_time() - began) / measured
    samples = sum(spec.samples.values())
    hours = samples * seconds / 3600
    return Estimate(samples, len(spec.shards), estimated_bytes(spec), hours, measured)
