"""Evolutions through the whole pipeline: the same bytes however made, failures counted, read, and trained on."""

import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np
import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from datagen import generate as generating
from datagen import shard_image
from datagen.commands.data import info
from datagen.difficulty import at_level
from datagen.evolution_schemes import TRAJECTORIES
from datagen.evolve import ETDRK4, Conserved, EvolvingFamily, UnstableStep
from datagen.evolve.work import Work, count, counted
from datagen.family import Field, Sample, build, families
from datagen.files import read_json
from datagen.folder import merge
from datagen.generate import generate
from datagen.grids import Grid
from datagen.shard import require_few_failures, solve_sample
from datagen.store import Spec, open_store
from datagen.validate import validate
from operators.data import load_split

TINY = {
    "advection": ["dimension=3", "grid=[8,7,6]", "velocity=[1.0,0.5,-0.3]", "frames=3"],
    "burgers": ["nu=0.05", "grid=32", "final_time=0.3", "frames=4"],
    "kdv": ["grid=32", "length=20", "final_time=0.5", "frames=3"],
    "kuramoto_sivashinsky": ["grid=32", "length=22", "final_time=2", "frames=3"],
    "allen_cahn": ["grid=[16,12]", "final_time=2", "frames=3"],
    "gray_scott": ["grid=16", "final_time=20", "frames=3"],
    "fitzhugh_nagumo": ["dimension=1", "grid=24", "final_time=1", "frames=3"],
    "navier_stokes": ["grid=16", "final_time=2", "frames=3"],
    "heat": ["grid=[12,10]", "walls=[0.0,1.0]", "final_time=0.4", "frames=3"],
    "wave": ["grid=17", "sides=[[neumann,absorbing],dirichlet]", "final_time=0.5", "frames=3"],
}
BURGERS = {"name": "burgers", "nu": 0.05, "grid": 32, "final_time": 0.3, "frames": 4}
# Stiff enough for lagged factors, which learn from system to system and must not from sample to sample.
HEAT = {"name": "heat", "grid": 12, "diffusivity": 1.0, "sides": "neumann", "final_time": 0.4, "frames": 3}
WAVE = {"name": "wave", "grid": 17, "sides": "neumann", "final_time": 0.5, "frames": 3}
SOLVER = {"method": "auto", "rtol": 1e-8}
WORDS = ["pde=burgers", *(f"pde.{word}" for word in TINY["burgers"]), "seed=3", "samples.test=1"]


def spec_of(pde=BURGERS, train=5, validation=1, test=1, shard_size=2, dtype="float32", seed=3):
    samples = {"train": train, "validation": validation, "test": test}
    return Spec(pde, seed=seed, samples=samples, shard_size=shard_size, solver=SOLVER, dtype=dtype)


def shard_bytes(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted([*folder.glob("*/*.hdf5"), folder / "manifest.json", folder / "spec.json"])
    }


@pytest.mark.parametrize("name", TINY)
def test_every_yaml_composes_holds_the_defaults_and_makes_sound_data(name, tmp_path):
    with initialize_config_module(version_base="1.3", config_module="configs"):
        plain = OmegaConf.to_container(compose("generate", [f"pde={name}", "out=x"]).pde)
        small = compose("generate", [f"pde={name}", *(f"pde.{word}" for word in TINY[name]), "out=x"])
    assert build(**at_level(plain)[0]) == build(name)
    spec = spec_of(at_level(OmegaConf.to_container(small.pde))[0], train=2, validation=0)
    folder = generate(spec, tmp_path / "data", executor="serial")
    report = validate(folder, resolve=3)
    assert report.sound, report.problems
    assert (report.samples, report.resolved, report.notes) == (3, 3, [])
    assert 1e-4 < report.worst <= 1  # compared, and not with a bound that lets everything through
    text = info(folder)
    assert f"frames      {spec.family.frames}, from t = 0 to {spec.family.final_time:g}" in text
    assert spec.family.integrator in text

    before = shard_bytes(folder)
    (folder / spec.shards[0].file).unlink()
    generate(spec, folder, executor="serial")
    assert shard_bytes(folder) == before


@pytest.mark.parametrize("pde", [BURGERS, HEAT, WAVE], ids=lambda pde: pde["name"])
def test_bytes_do_not_depend_on_processes_or_on_jobs_and_their_order(pde, tmp_path):
    spec = spec_of(pde)
    serial = shard_bytes(generate(spec, tmp_path / "serial", executor="serial"))
    assert shard_bytes(generate(spec, tmp_path / "parallel", executor="processes", workers=2)) == serial
    shared = tmp_path / "shared"
    for index in (1, 2, 0):
        generate(spec, shared, executor="serial", shard_index=index, shard_count=3)
    merge(shared)
    assert shard_bytes(shared) == serial
    # Nor does a sample depend on those beside it: 0.5-fold steps of a faster one would show in the last bits.
    other = spec_of(pde, train=2, shard_size=7)
    alone = open_store(generate(other, tmp_path / "alone", executor="serial"))
    for field in spec.family.role("output"):
        np.testing.assert_array_equal(
            alone.read("train", field.name), open_store(shared).read("train", field.name, 0, 2)
        )
    # And a half that was lost comes back, by whatever number of processes.
    for shard in spec.shards[1::2]:
        (shared / shard.file).unlink()
    generate(spec, shared, executor="processes", workers=2)
    assert shard_bytes(shared) == serial


def test_kill_9_and_the_same_command_give_the_same_bytes(tmp_path):
    words = [*WORDS, "samples.train=150", "samples.validation=1", "shard.size=2", "executor=serial"]
    command = [sys.executable, "-m", "datagen.commands.generate", *words]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen([*command, f"out={killed}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while len(list(killed.glob("*/*.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 3 <= len(list(killed.glob("*/*.json"))) < 77, "the run was not interrupted midway"
    assert not (killed / "manifest.json").exists()
    subprocess.run([*command, f"out={killed}"], check=True, stdout=subprocess.DEVNULL)
    generate(Spec.from_dict(read_json(killed / "spec.json")), whole, executor="serial")
    assert shard_bytes(killed) == shard_bytes(whole)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return generate(spec_of(), tmp_path_factory.mktemp("data") / "burgers", executor="serial")


def test_frames_are_read_all_or_one(dataset):
    data = open_store(dataset)
    family = data.family
    np.testing.assert_allclose(data.times, [0, 0.1, 0.2, 0.3])
    assert data.read("train", "u").shape == (5, 4, 32)
    assert data.read("train", "initial_u").shape == (5, 32)
    assert data.read("train", "u", 1, 1).shape == (0, 4, 32)
    assert data.read("train", "u", 1, 1, frame=0).shape == (0, 32)
    for frame in (0, 2, -1, -4):
        np.testing.assert_array_equal(data.read("train", "u", 1, 4, frame=frame), data.read("train", "u")[1:4, frame])
    sample = data.sample("train", 3)
    again = family.evolve(family.initial(sample), data.times)[:, 0]
    np.testing.assert_array_equal(data.read("train", "u", 3, 4)[0], again.astype("f4"))
    for arguments, words in (
        (("train", "initial_u", 0, 1, 0), "does not vary in time"),
        (("train", "u", 0, 1, 4), "frame 4 is out of range: the dataset has 4"),
        (("train", "u", 0, 1, -5), "frame -5 is out of range"),
        (("train", "v"), "no field"),
    ):
        with pytest.raises(ValueError, match=words):
            data.read(*arguments)


def test_costs_and_quality_are_of_the_sample(dataset):
    data = open_store(dataset)
    steps, evaluations = (data.record("train", f"cost/{name}") for name in ("steps", "evaluations"))
    # Four a step, and those of the steps with which it was looked whether the step is short enough.
    assert np.all(evaluations >= 4 * steps)
    assert np.all(evaluations <= 8 * steps)
    np.testing.assert_array_equal(data.record("train", "cost/work"), evaluations * 32)
    assert np.all(data.record("train", "quality/u_drift") < 1e-14)
    u = data.read("train", "u")
    np.testing.assert_allclose(data.record("train", "quality/u_maximum"), u.max(axis=(1, 2)), rtol=1e-6)
    # The rule: 0.25 min(h, 3 nu / max |u|) / max |u|, at most as long, of a field that decays.
    fastest = abs(u).max(axis=(1, 2)).astype(float)
    longest = 0.25 * np.minimum(1 / 32, 3 * data.family.nu / fastest) / fastest
    # Twice as many where those steps leave more than promised, as at the shocks of this coarse grid.
    assert np.all(steps <= 2 * np.ceil(0.1 / longest + 1) * 3)
    assert np.all(steps >= 3)


def test_costs_of_implicit_steps_are_those_of_their_solves(tmp_path):
    data = open_store(generate(spec_of(HEAT), tmp_path / "data", executor="serial"))
    cost = {name: data.record("train", f"cost/{name}") for name in ("steps", "solves", "iterations", "evaluations")}
    np.testing.assert_array_equal(cost["steps"], 10)  # of 0.04, two stages each
    np.testing.assert_array_equal(cost["solves"], 20)
    assert np.all(cost["evaluations"] >= cost["solves"] + cost["iterations"])
    assert np.all(data.record("train", "quality/heat_drift") < 1e-14)
    text = info(tmp_path / "data")
    assert "sdirk2, method=auto, rtol=1e-08" in text
    assert f"{data.manifest['totals']['iterations']:,} iterations" in text


def test_training_data_are_the_initial_field_and_the_last_frame(dataset, tmp_path):
    data = open_store(dataset)
    split = load_split(data, "train")
    np.testing.assert_array_equal(split.inputs[:, 0], data.read("train", "initial_u"))
    np.testing.assert_array_equal(split.outputs[:, 0], data.read("train", "u")[:, -1])


def test_an_epoch_of_training_and_an_evaluation(dataset, tmp_path):
    from operators.commands.train import train_command
    from operators.evaluation import evaluate

    words = ["model=fno", "model.n_modes=[8]", "model.hidden_channels=8", "model.n_layers=1", "trainer.epochs=1"]
    with initialize_config_module(version_base="1.3", config_module="configs"):
        config = OmegaConf.to_container(
            compose("train", [f"dataset.path={dataset}", f"out={tmp_path / 'run'}", *words])
        )
    train_command(config)
    content = evaluate(tmp_path / "run/best.pt", open_store(dataset), tmp_path / "evaluation")
    assert np.isfinite(content["results"]["fno"]["relative_l2"]["mean"])
    with pytest.raises(ValueError, match="burgers, which evolves in time without"):
        evaluate(tmp_path / "run/best.pt", open_store(dataset), tmp_path / "certified", certified_samples=1)


# ---------------------------------------------------------------------------------------------------------- failures


class Failing:
    """Burgers' evolve, which gives up on chosen samples' first draws, told apart by their initial fields."""

    def __init__(self, spec, places, error=None):
        self.evolve, self.error = type(spec.family).evolve, error or FloatingPointError("told to fail")
        self.doomed = {solve_sample(spec, *place).sample.fields["initial_u"].tobytes() for place in places}

    def install(self, monkeypatch):
        failing = self

        def evolve(family, state, times, sample=None, solver=None):
            if sample is not None and sample.fields["initial_u"].tobytes() in failing.doomed:
                raise failing.error
            return failing.evolve(family, state, times, sample, solver)

        monkeypatch.setattr(families["burgers"], "evolve", evolve)


def test_a_draw_that_fails_is_drawn_anew_and_recorded(tmp_path, monkeypatch):
    spec = spec_of()
    Failing(spec, [("train", 1)], UnstableStep("steps of 1e-9 lead nowhere")).install(monkeypatch)
    data = open_store(generate(spec, tmp_path / "data", executor="serial"))
    np.testing.assert_array_equal(data.record("train", "provenance/attempt"), [0, 1, 0, 0, 0])
    sidecar = read_json(tmp_path / "data" / spec.shards[0].sidecar)
    assert sidecar["failed_attempts"] == {"1": ["UnstableStep: steps of 1e-9 lead nowhere"]}
    assert data.manifest["failed_attempts"] == 1
    monkeypatch.undo()
    report = validate(tmp_path / "data", resolve=100)  # the attempt is part of the seed, and is stored
    assert report.sound, report.problems


def test_more_than_five_per_cent_stop_the_run_whatever_the_order(tmp_path, monkeypatch):
    """5 failures among 80 samples are 5 of 85 draws, 5.9 %; 4 never stop, however few the samples."""
    spec = spec_of(train=78, shard_size=10)
    places = [("train", i) for i in (2, 3, 15, 16, 77)]
    Failing(spec, places[:-1]).install(monkeypatch)
    generate(spec, tmp_path / "four", executor="serial")
    monkeypatch.undo()

    Failing(spec, places).install(monkeypatch)
    for name, order in (("forwards", (0, 1, 2)), ("backwards", (2, 1, 0))):
        for index in order:
            generate(spec, tmp_path / name, executor="serial", shard_index=index, shard_count=3)
        with pytest.raises(RuntimeError, match=r"5 draws failed, more than 5% .* 80 samples: 5 times .*told to fail"):
            merge(tmp_path / name)
        assert not (tmp_path / name / "manifest.json").exists()
    with pytest.raises(RuntimeError, match="5 draws failed"):
        generate(spec, tmp_path / "at once", executor="serial")
    # All were seen once the last training shard was there; the others need not be made any more.
    assert not list((tmp_path / "at once").glob("test/*.json"))
    with pytest.raises(RuntimeError, match="5 draws failed"):
        generate(spec, tmp_path / "at once", executor="serial")  # and it says so again
    monkeypatch.undo()


def test_the_five_per_cent_are_exact():
    spec = spec_of(train=1900, validation=0, test=0, shard_size=100)
    require_few_failures(spec, ["FloatingPointError: x"] * 100)  # 100 of 2000 draws
    with pytest.raises(RuntimeError, match="101 draws failed"):
        require_few_failures(spec, ["FloatingPointError: x"] * 101)
    require_few_failures(spec_of(train=1, validation=0, test=0), ["x"] * 4)
    reasons = ["A: first"] * 200 + ["B: second"] * 300 + ["A: other"] * 50
    with pytest.raises(RuntimeError, match=r"550 draws .* 300 times B: second; 250 times A: first"):
        require_few_failures(spec, reasons)


def test_a_family_that_always_fails_stops_at_its_first_sample(tmp_path, monkeypatch):
    def evolve(family, *arguments):
        raise FloatingPointError("told to fail")

    monkeypatch.setattr(families["burgers"], "evolve", evolve)
    with pytest.raises(RuntimeError, match=r"sample 0 .* failed in 10 draws, .*told to fail"):
        generate(spec_of(train=1), tmp_path / "data", executor="serial")


@dataclass(frozen=True)
class Dubious(EvolvingFamily):
    """Two uniform fields whose values are what the test says; a family that is not spectral."""

    kind: str = "sound"
    final_time: float = 1.0
    frames: int = 3

    name: ClassVar[str] = "dubious"
    title: ClassVar[str] = "for tests"
    fields: ClassVar[tuple[Field, ...]] = (
        Field("initial_u", "input", "m", "u at time 0"),
        Field("u", "output", "m", "u"),
    )
    mesh = Grid((4,), (1.0,))
    boundary = ("periodic",)

    def __post_init__(self):
        self._check_times()

    def sample(self, rng):
        return Sample({"initial_u": rng.uniform(1, 2, 4)}, {"rate": rng.uniform(1, 2)})

    def initial(self, sample):
        return np.asarray(sample.fields["initial_u"], float)[None]

    def evolve(self, state, times, sample=None, solver=None):
        times = np.asarray(times)
        count(steps=len(times), evaluations=7)
        moved = np.sin(times * sample.scalars["rate"])[:, None, None] * [1.0, -1.0, 1.0, -1.0]
        return state + {"sound": 1.0, "beyond": 10.0, "huge": 1e39}[self.kind] * moved

    def conserved(self, states, sample=None):
        u = self.channel(states, 0)
        return {"u": u, "total": Conserved(u.sum(axis=-1))}

    def bounds(self, sample: Sample) -> Mapping[str, tuple[float, float]]:
        return {"u": (-1.0, 3.0)}


@pytest.fixture
def dubious(monkeypatch):
    monkeypatch.setitem(families._entries, "dubious", Dubious)
    shard_image._layout.cache_clear()  # a family does not change, but in tests
    yield
    shard_image._layout.cache_clear()


def test_any_evolving_family_with_scalars_goes_through(dubious, tmp_path):
    """No spectral one, no independent scheme: all that can be checked is, and what cannot is said."""
    folder = generate(spec_of({"name": "dubious"}), tmp_path / "data", executor="serial")
    data = open_store(folder)
    assert data.read("train", "u").shape == (5, 3, 4)
    assert data.sample("train", 4).scalars == {"rate": data.record("train", "scalars/rate")[4]}
    np.testing.assert_array_equal(data.record("train", "cost/evaluations"), 7)
    report = validate(folder)
    assert report.sound, report.problems
    assert report.notes == ["no independent scheme for 'dubious': nothing was integrated again"]


def test_the_two_sides_of_an_axis_may_be_of_two_types(dubious, tmp_path, monkeypatch):
    @dataclass(frozen=True)
    class Side:
        kind: str

    monkeypatch.setattr(Dubious, "boundary", ((Side("neumann"), Side("outflow")),))
    folder = generate(spec_of({"name": "dubious"}), tmp_path / "data", executor="serial")
    assert validate(folder).sound
    assert open_store(folder).boundary == (("neumann", "outflow"),)
    with h5py.File(folder / "train/shard-00000.hdf5") as file:
        for name, kind, mask in (("x_wall", "WALL", [1, 0, 0, 0]), ("x_open", "OPEN", [0, 0, 0, 1])):
            group = file[f"boundary_conditions/{name}"]
            assert group.attrs["bc_type"] == kind
            np.testing.assert_array_equal(group["mask"], mask)
            assert group["values"].shape == (1,)


def test_an_independent_scheme_may_step_by_itself(dubious, tmp_path, monkeypatch):
    def again(family, sample, times):
        u = np.asarray(sample.fields["initial_u"], float)
        return np.stack([u + np.sin(t * sample.scalars["rate"]) * np.array([1, -1, 1, -1]) for t in times])[:, None]

    monkeypatch.setitem(TRAJECTORIES, Dubious, again)
    spec = spec_of({"name": "dubious"})
    folder = generate(spec, tmp_path / "data", executor="serial")
    report = validate(folder, resolve=7)
    assert report.sound, report.problems
    assert report.notes == []
    assert 0 < report.worst < 0.01
    monkeypatch.setitem(TRAJECTORIES, Dubious, lambda *a: again(*a) * (1 + 2e-5))  # its accuracy is 1e-5
    faults = validate(folder, resolve=7).problems
    assert len(faults) == 7 * 3
    assert "test[0]: frame 2 of 'u' is not where the equation leads: it differs by" in faults[-1]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("beyond", r"BoundViolated: u reaches from .* cannot leave -1 to 3"),
        ("huge", "does not fit into float32"),
    ],
)
def test_what_leaves_its_bounds_or_its_precision_is_a_failed_draw(dubious, tmp_path, kind, words):
    with pytest.raises(RuntimeError, match=words):
        generate(spec_of({"name": "dubious", "kind": kind}), tmp_path / "data", executor="serial")


def test_what_is_not_conserved_is_a_failed_draw(dubious, tmp_path, monkeypatch):
    honest = Dubious.evolve
    monkeypatch.setattr(Dubious, "evolve", lambda *a, **k: honest(*a, **k) * np.array([1, 1, 1.001])[:, None, None])
    with pytest.raises(RuntimeError, match=r"NotConserved: the mean of u changes by 0\.001, relative, and may"):
        generate(spec_of({"name": "dubious"}), tmp_path / "data", executor="serial")


# --------------------------------------------------------------------------------------------------- times and steps


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize(
    ("parameter", "value", "words"),
    [("final_time", 0.0, "positive"), ("final_time", float("nan"), "positive"), ("frames", 1, "at least 2")],
)
def test_times_that_do_not_fit_are_named(name, parameter, value, words):
    with pytest.raises(ValueError, match=f"{name}: {parameter} must be {words}"):
        build(name, **{parameter: value})


def test_a_step_that_leads_nowhere_is_refused_before_it_is_taken():
    def runs_away(v):
        return float(1e-9 / np.max(np.abs(v)))

    with counted() as work, pytest.raises(UnstableStep, match="10,000,000 steps: the solution runs away"):
        ETDRK4().integrate(np.array([0.0]), lambda v: v**2, np.array([1.0]), [1.0], rule=runs_away)
    assert work == Work(0, 0)


def test_work_is_counted_by_whoever_listens():
    count(steps=5)  # nobody does
    with counted() as outer:
        ETDRK4(step=0.25).integrate(np.array([-1.0]), lambda v: 0 * v, np.array([1.0]), [1.0])
        with counted() as inner:
            count(steps=1, evaluations=2)
    assert outer == Work(4, 16)
    assert inner == Work(1, 2)


def test_dry_run_says_how_much_evolutions_take():
    spec = spec_of()
    assert spec.sample_bytes() == (1 + 4) * 32 * 4
    assert json.loads(json.dumps(spec.as_dict()))["pde"]["frames"] == 4
    assert generating.estimate(spec).samples == 7
