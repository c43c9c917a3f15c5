"""Which solver for the samples of a dataset: compared on a few of them, by work that is counted, never by a clock.

With ``solver.method=auto`` every way of `SequenceSolver` that may win is tried on three training samples, drawn by
their own seeds. What it costs is the numbers that it reads and writes (`solvers.sequence.family`), so that every job
of one spec, on whatever machine, comes to the same choice. The choice is written into the spec.

Ways that carry something from system to system (old factors, a subspace, a relaxation factor) must be clearly cheaper
to be chosen: the last bits of a sample then depend on those before it in its shard.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datagen.family import Family, LinearSystem
from datagen.files import read_json
from solvers import Result, SequenceSolver, solve
from solvers.api import joined
from solvers.gallery import poisson
from solvers.sequence.family import Family as Facts
from solvers.sequence.strategies import NAMES, strategies
from solvers.sequence.strategy import Task
from solvers.system import System

if TYPE_CHECKING:
    from datagen.store import Spec

PROBES = 3
STATEFUL = ("lagged", "gcrodr", "deflated-cg", "ssor-cg")
_CLEARLY = 0.9  # of the work of the best other way
_HOPELESS = 4.0  # times the best so far: ways that are expected to cost that are not tried
_PATIENCE = 1.5  # times the best so far, after which a try ends


def check_solver(options: Mapping[str, Any]) -> None:
    """Refuse solver options of a dataset that do not fit, on a small Poisson problem, before anything is written.

    Parameters
    ----------
    options : mapping
        ``method``, ``rtol``, ``atol``, ``maxiter``, ``M``, ``plan``: as `solvers.solve` takes them, M by its name.

    Raises
    ------
    ValueError
    """
    unknown = set(options) - {"method", "rtol", "atol", "maxiter", "M", "plan"}
    if unknown:
        raise ValueError(f"solver.{min(unknown)} is not an argument that a dataset's solver takes")
    plan = options.get("plan")
    if plan is not None and (options.get("method") != "auto" or plan not in NAMES):
        raise ValueError(f"solver.plan is written by the plan stage for method=auto, got {plan!r}")
    sequence = options.get("method") == "sequence"
    for name in ("maxiter", "M"):
        if sequence and name in options:
            raise ValueError(f"solver.{name} is not for method=sequence, which chooses by itself; leave it out")
    try:
        rest = {name: value for name, value in options.items() if name not in ("plan", *("method",) * sequence)}
        if sequence:
            SequenceSolver(**rest)
        else:
            solve(poisson((8, 8)), np.ones(64), throw=False, **rest)
    except (TypeError, ValueError) as error:
        raise ValueError(f"solver: {error}") from None


def planned(spec: "Spec", folder: Path | None = None) -> "Spec":
    """The spec with its solver chosen: what the dataset in the folder says, if there is one, or else the best here.

    Only ``method=auto`` of a steady family with nothing else fixed (maxiter, M) is open to a choice.

    Parameters
    ----------
    spec : Spec
    folder : path, optional
        Of the dataset.

    Examples
    --------
    >>> from datagen.store import Spec
    >>> samples = {"train": 100, "validation": 10, "test": 10}
    >>> spec = Spec({"name": "darcy", "grid": 64}, 0, samples, 100, {"method": "auto", "rtol": 1e-6})
    >>> planned(spec).solver["plan"]
    'multigrid'
    """
    steady = type(spec.family).system is not Family.system
    if not steady or spec.solver.get("method") != "auto" or set(spec.solver) - {"method", "rtol", "atol"}:
        return spec
    choice = None
    if folder is not None and (folder / "spec.json").exists():
        choice = _chosen_before(spec, folder / "spec.json")
    if choice is None:
        costs = work_of_a_sample(spec)
        independent = {name: cost for name, cost in costs.items() if name not in STATEFUL}
        best = min(independent, key=independent.__getitem__, default=None)
        choice = min(costs, key=costs.__getitem__, default=None)
        if choice is None:
            return spec  # `solve` has ways of its own
        if best is not None and costs[choice] > _CLEARLY * costs[best]:
            choice = best
    return replace(spec, solver={**spec.solver, "plan": choice})


def _chosen_before(spec: "Spec", path: Path) -> str | None:
    """What the plan stage chose for this very spec, if it is the one in the file; for another one it says nothing."""
    found = read_json(path)
    solver = found.get("solver")
    choice = solver.pop("plan", None) if isinstance(solver, dict) else None
    return choice if found == spec.as_dict() else None


def work_of_a_sample(spec: "Spec") -> dict[str, float]:
    """Numbers read or written for a sample, averaged over a shard, by each way that solved all probes and may win.

    Ways are tried in the order of what is expected of them; one that turns out to cost more than `_PATIENCE` times the
    best so far is given up.

    Parameters
    ----------
    spec : Spec
    """
    systems, sizes = [], []
    for index in range(PROBES):
        given = _probe(spec, index)
        if not _is_open(given):
            return {}
        systems.append((System.of(given.A, size=given.b.size, dtype=given.b.dtype), given.b))
        sizes.append(given.b.size)
    facts = Facts.of(systems[0][0], 1)
    if facts.negative:
        systems = [(system.negated(), -b) for system, b in systems]
    usual = {}
    for name, way in strategies(None, "work", 0).items():
        if way.fits(facts):
            expected = way.outlook(facts, 1, 1)
            usual[name] = expected.usual + expected.made / spec.shard_size
    costs: dict[str, float] = {}
    for name in sorted(usual, key=usual.__getitem__):
        best = min(costs.values(), default=inf)
        if usual[name] > _HOPELESS * best:
            break
        found = _try(name, spec, systems, facts, best)
        if found < inf:
            costs[name] = found
    return costs


def _probe(spec: "Spec", index: int) -> LinearSystem:
    """The system of a training sample: of its first draw that has one, as in the dataset.

    Raises
    ------
    ValueError
        If given inputs do not fit.
    RuntimeError
        If no draw has one.
    """
    from datagen.draw import attempts, draw  # which need the spec, which needs this file

    why: Exception = ValueError("what was drawn is not finite")
    for attempt in attempts(spec):
        sample = draw(spec, "train", index, attempt)
        if not all(np.isfinite(values).all() for values in sample.fields.values()):
            continue
        try:
            return spec.family.system(sample)
        except (ValueError, ArithmeticError) as error:
            if spec.inputs is not None:
                raise
            why = error
    raise RuntimeError(
        f"sample {index} of split 'train' failed in {len(attempts(spec))} draws, last with {type(why).__name__}: "
        f"{str(why).rstrip('. ')}. Try other parameters of the PDE or a finer grid."
    )


def _try(name: str, spec: "Spec", systems: list[tuple[System, Any]], facts: Facts, best: float) -> float:
    """Work of a sample of a shard, by one way on its own; infinite if it fails or takes too long."""
    way = strategies(None, "work", 0)[name]
    works: list[float] = []
    rtol, atol = float(spec.solver["rtol"]), float(spec.solver.get("atol", 0.0))
    for generation, (system, b) in enumerate(systems):
        allowed = inf if best == inf or (name in STATEFUL and not works) else _PATIENCE * best
        result = way.solve(Task(system, b, facts, generation, rtol, atol, work=allowed))
        if not result.converged:
            return inf
        works.append(way.work)
        if way.work > allowed:
            return inf
    rest = sum(works[1:]) / (len(works) - 1)
    return (works[0] + (spec.shard_size - 1) * rest) / spec.shard_size


def _is_open(system: LinearSystem) -> bool:
    """Whether a sequence can solve it: of null spaces it knows the constants."""
    return system.null_space is None or isinstance(system.null_space, str)


class ShardSolver:
    """Solves the systems of one shard, one after the other, as its spec says; what it learns ends with the shard.

    So the bytes of a shard are a function of the spec and its index. Where the way that was chosen fails, `solve`
    goes on by itself: a sample must not be left out of a dataset because it is hard.

    Parameters
    ----------
    spec : Spec
    """

    def __init__(self, spec: "Spec") -> None:
        options = dict(spec.solver)
        plan = "sequence" if options["method"] == "sequence" else options.pop("plan", None)
        self._otherwise = options
        self._first: Callable[[LinearSystem], Result] | None = None
        if plan is not None:
            self._otherwise = {**options, "method": "auto"}
            tolerances = {key: value for key, value in options.items() if key != "method"}
            self._first = _way(plan, tolerances)

    def __call__(self, system: LinearSystem) -> Result:
        """Solve the next system."""
        if self._first is None or not _is_open(system):
            return solve(system.A, system.b, throw=False, null_space=system.null_space, **self._otherwise)
        result = self._first(system)
        if result.converged:
            return result
        rest = solve(system.A, system.b, throw=False, null_space=system.null_space, x0=result.x, **self._otherwise)
        return joined(result, rest)


# What needs nothing of a SequenceSolver, not even its first look at the family of systems.
_DIRECTLY = {"multigrid": {"method": "cg", "M": "multigrid"}, "direct": {"method": "direct"}}


def _way(plan: str, tolerances: dict[str, Any]) -> Callable[[LinearSystem], Result]:
    """One system after the other by the way that was planned."""
    if plan in _DIRECTLY:
        fixed = {**_DIRECTLY[plan], **tolerances}
        return lambda system: solve(system.A, system.b, throw=False, null_space=system.null_space, **fixed)
    name = "auto" if plan == "sequence" else plan
    sequence = SequenceSolver(name, cost="work", warm_start=name in ("auto", *STATEFUL), **tolerances)
    return lambda system: sequence.solve(system.A, system.b)
