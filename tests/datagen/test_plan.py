"""The plan stage: a choice by counted work, the same for every job, written into the spec, and what follows from it."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest

from datagen import plan
from datagen.family import Sample, build, families, seed_sequence
from datagen.files import sha256_of_file
from datagen.folder import merge, prepare_folder
from datagen.generate import generate
from datagen.pdes.darcy import Darcy
from datagen.plan import ShardSolver, planned, work_of_a_sample
from datagen.shard import solve_sample
from datagen.store import Spec, open_store
from datagen.validate import validate
from solvers import SequenceSolver, Status

SPEC = dict(
    pde={"name": "darcy", "grid": 20, "coefficient": "lognormal"},
    seed=8,
    samples={"train": 7, "validation": 1, "test": 2},
    shard_size=3,
    solver={"method": "auto", "rtol": 1e-8},
)


def shard_hashes(folder, spec):
    return [sha256_of_file(folder / shard.file) for shard in spec.shards]


def test_the_choice_costs_least_by_the_count_of_solvers_that_run_alone():
    """The work in the plan is what SequenceSolver counts when each way solves the probes by itself."""
    spec = Spec(**{**SPEC, "pde": {"name": "helmholtz", "grid": 24}})
    costs = work_of_a_sample(spec)
    probes = []
    for index in range(plan.PROBES):
        rng = np.random.default_rng(seed_sequence(spec.seed, "helmholtz", "train", index, 0))
        probes.append(spec.family.system(spec.family.sample(rng).rounded(spec.dtype)))
    for name in ("direct", "lagged"):
        alone = SequenceSolver(name, rtol=1e-8, cost="work", warm_start=False)
        works = []
        for system in probes:
            assert alone.solve(system.A, system.b).converged
            works.append(alone.last_cost)
        assert costs[name] == pytest.approx((works[0] + 2 * np.mean(works[1:])) / 3, rel=1e-12)
    assert planned(spec).solver["plan"] == min(costs, key=costs.get) == "direct"


def test_close_systems_are_given_to_what_carries_over(monkeypatch):
    """Where the matrices of a family differ by little, factors of one serve the next, and the plan finds that."""
    spec = Spec(**{**SPEC, "pde": {"name": "helmholtz", "grid": 48}, "shard_size": 50})
    rng = np.random.default_rng(0)
    first = spec.family.sample(rng)
    near = lambda self, rng: replace(  # noqa: E731
        first,
        fields={n: v * (1 + 1e-3 * rng.standard_normal()) for n, v in first.fields.items()},
    )
    assert planned(spec).solver["plan"] == "direct"
    monkeypatch.setattr(type(spec.family), "sample", near)
    assert planned(spec).solver["plan"] == "lagged"


@pytest.mark.parametrize(
    ("costs", "choice"),
    [
        ({"direct": 1.0, "lagged": 0.95}, "direct"),  # not clearly cheaper
        ({"direct": 1.0, "lagged": 0.85}, "lagged"),
        ({"direct": 1.0, "multigrid": 0.99}, "multigrid"),
        ({"lagged": 5.0}, "lagged"),
        ({}, None),
    ],
)
def test_what_carries_over_must_be_clearly_cheaper(monkeypatch, costs, choice):
    monkeypatch.setattr(plan, "work_of_a_sample", lambda spec: costs)
    assert planned(Spec(**SPEC)).solver.get("plan") == choice


def test_the_plan_does_not_look_at_a_clock(monkeypatch):
    spec = Spec(**{**SPEC, "pde": {"name": "helmholtz", "grid": 24}})  # where factors may lag
    chosen, works = planned(spec), work_of_a_sample(spec)
    assert "lagged" in works
    ticks = iter(np.random.default_rng(1).exponential(50.0, 10**6).cumsum().tolist())
    for module in ("strategy", "solver", "factors", "warm_start"):
        monkeypatch.setattr(f"solvers.sequence.{module}.perf_counter", lambda: next(ticks), raising=False)
    assert work_of_a_sample(spec) == works
    assert planned(spec) == chosen


def test_what_is_fixed_is_not_planned():
    for solver in ({"method": "direct", "rtol": 1e-6}, {"method": "auto", "rtol": 1e-6, "M": "jacobi"}):
        spec = Spec(**{**SPEC, "solver": solver})
        assert planned(spec) is spec


@pytest.mark.parametrize("solver", ["auto", "sequence"])
def test_every_executor_order_and_restart_gives_the_same_bytes(tmp_path, solver):
    spec = Spec(**{**SPEC, "solver": {"method": solver, "rtol": 1e-8}})
    whole = generate(spec, tmp_path / "serial", executor="serial")
    settled = Spec.from_dict(open_store(whole).spec)
    assert ("plan" in settled.solver) == (solver == "auto")
    expected = shard_hashes(whole, settled)

    workers = generate(spec, tmp_path / "workers", executor="processes", workers=2)
    assert shard_hashes(workers, settled) == expected

    jobs = tmp_path / "jobs"
    for index in (2, 0, 1):
        generate(spec, jobs, executor="serial", shard_index=index, shard_count=3)
    merge(jobs)
    assert (jobs / "manifest.json").read_bytes() == (whole / "manifest.json").read_bytes()

    lost = settled.shards[1]
    (whole / lost.file).unlink()
    generate(spec, whole, executor="serial")
    assert shard_hashes(whole, settled) == expected
    assert validate(whole).sound


def test_a_dataset_goes_on_with_the_choice_that_it_was_begun_with(tmp_path, monkeypatch):
    """Another machine or version may count otherwise; the shards that are there are not made anew for that."""
    spec = Spec(**SPEC)
    folder = generate(spec, tmp_path / "data", executor="serial", shard_index=0, shard_count=2)
    begun = json.loads((folder / "spec.json").read_text())
    monkeypatch.setattr(plan, "work_of_a_sample", lambda spec: {"direct": 1.0})
    assert planned(spec).solver["plan"] == "direct"
    generate(spec, folder, executor="serial")
    assert json.loads((folder / "spec.json").read_text()) == begun
    other = Spec(**{**SPEC, "seed": 9})
    with pytest.raises(ValueError, match=r"another spec \(seed is 8 there and 9 here"):
        generate(other, folder, executor="serial")


def test_a_hard_sample_is_finished_by_other_means_not_left_out():
    """The way that was planned fails: `solve` goes on, and the draw is the same."""
    easy = Spec(**SPEC)
    # CG with Jacobi breaks down on an indefinite Helmholtz matrix, as a plan from three easier probes might.
    hard = Spec(**{**SPEC, "pde": {"name": "helmholtz", "grid": 24, "wavenumber": 25.0}})
    hard = replace(hard, solver={**easy.solver, "plan": "cg"})
    assert solve_sample(hard, "train", 0).attempt == 0
    system = hard.family.system(hard.family.sample(np.random.default_rng(6)).rounded("float32"))
    result = ShardSolver(hard)(system)
    assert result.status is Status.CONVERGED
    assert np.linalg.norm(system.b - system.A @ result.x) <= 1e-8 * np.linalg.norm(system.b)
    assert "direct" in result.method
    assert result.preconditioner_applies > 0  # of the first try


def test_one_sequence_serves_each_shard(tmp_path, monkeypatch):
    made = []

    class Counted(SequenceSolver):
        def __init__(self, *words, **options):
            super().__init__(*words, **options)
            made.append(self)

    spec = Spec(**{**SPEC, "solver": {"method": "sequence", "rtol": 1e-6}})
    monkeypatch.setattr(plan, "SequenceSolver", Counted)
    generate(spec, tmp_path / "data", executor="serial")
    used = [solver.systems for solver in made if solver.systems]  # others were made to check a spec
    assert used == [shard.stop - shard.start for shard in spec.shards]


@pytest.mark.parametrize(
    ("solver", "words"),
    [
        ({"method": "sequence", "rtol": 1e-6, "maxiter": 3}, "maxiter"),
        ({"method": "auto", "rtol": 1e-6, "plan": "quickest"}, r"solver\.plan"),
        ({"method": "direct", "rtol": 1e-6, "plan": "cg"}, r"solver\.plan"),
        ({"method": "sequence", "rtol": 1e-6, "M": "ilu"}, r"solver\.M is not for method=sequence"),
    ],
)
def test_bad_solvers_are_refused(solver, words):
    with pytest.raises(ValueError, match=words):
        Spec(**{**SPEC, "solver": solver})


def test_without_a_folder_nothing_is_written(tmp_path):
    spec = Spec(**SPEC)
    assert planned(spec, tmp_path / "none").solver["plan"] in work_of_a_sample(spec)
    assert not list(tmp_path.iterdir())
    prepare_folder(planned(spec), tmp_path / "none")
    assert build(**SPEC["pde"]) == Spec.from_dict(json.loads((tmp_path / "none/spec.json").read_text())).family


def test_every_registered_preconditioner_may_make_a_dataset():
    """A check of the options on something that has no grid would refuse multigrid."""
    for M in ("multigrid", "fast-poisson", "amg", "ilu", "ssor", "jacobi"):
        plan.check_solver({"method": "cg", "rtol": 1e-6, "M": M})


@dataclass(frozen=True)
class FailsAtFirst(Darcy):
    """Whose first draws of the first samples have no system."""

    def sample(self, rng):
        return Sample(Darcy.sample(self, rng).fields, {"luck": float(rng.uniform())})

    def system(self, sample):
        if sample.scalars["luck"] < self.source:
            raise ZeroDivisionError("out of luck")
        return Darcy.system(self, Sample(sample.fields))


@pytest.mark.parametrize("share", [0.6, 1.0])
def test_draws_that_fail_are_drawn_anew_for_the_plan_too(share, monkeypatch, tmp_path):
    monkeypatch.setattr(FailsAtFirst, "name", "fails_at_first")
    monkeypatch.setitem(families._entries, "fails_at_first", FailsAtFirst)
    pde = {"name": "fails_at_first", "grid": 6, "source": share}
    spec = Spec(pde, 0, {"train": 3, "validation": 0, "test": 0}, 3, {"method": "auto", "rtol": 1e-6})
    if share < 1:
        assert planned(spec).solver["plan"]
        return
    with pytest.raises(RuntimeError, match="failed in 10 draws, last with ZeroDivisionError: out of luck"):
        generate(spec, tmp_path / "data", executor="serial")
    assert not list(tmp_path.iterdir())
