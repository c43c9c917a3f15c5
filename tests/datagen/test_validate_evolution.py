"""Validation of evolutions: the second right-hand side is the same equation, and what is falsified is found."""

import h5py
import numpy as np
import pytest

from datagen.commands.data import main as data_command
from datagen.evolution_schemes import TRAJECTORIES, independent_right_hand_side, independent_start
from datagen.evolve import ETDRK4
from datagen.family import build
from datagen.files import json_bytes, read_json, sha256_of_file
from datagen.generate import generate
from datagen.store import Spec
from datagen.validate import validate
from datagen.validate_evolution import compare_intervals, repeated_frames
from datagen.well_format import well_faults

SOLVER = {"method": "auto", "rtol": 1e-8}
SHORT = dict(final_time=0.3, frames=4)
FAMILIES = {
    "advection": {"name": "advection", "grid": [10, 9], "dimension": 2, "velocity": [1.0, -0.5], **SHORT},
    "burgers": {"name": "burgers", "nu": 0.05, "grid": 32, **SHORT},
    "kdv": {"name": "kdv", "grid": 32, "length": 20.0, **SHORT},
    "kuramoto_sivashinsky": {"name": "kuramoto_sivashinsky", "grid": 33, "length": 22.0, **SHORT},
    "allen_cahn": {"name": "allen_cahn", "grid": [8, 6, 7], "dimension": 3, "diffusivity": 0.01, **SHORT},
    "gray_scott": {"name": "gray_scott", "grid": [12, 10], "final_time": 9.0, "frames": 4},
    "fitzhugh_nagumo": {"name": "fitzhugh_nagumo", "grid": 12, **SHORT},
    "navier_stokes": {"name": "navier_stokes", "grid": [12, 10], **SHORT},
    "kolmogorov": {"name": "navier_stokes", "grid": 16, "forcing": "kolmogorov", "waves": 2, "drag": 0.1, **SHORT},
    "inviscid": {"name": "navier_stokes", "grid": 16, "forcing": "none", "nu": 0.0, **SHORT},
}
every_family = pytest.mark.parametrize("pde", FAMILIES.values(), ids=FAMILIES)
# Whose independent scheme steps in time by itself.
STEPPING = {
    "euler": {"name": "euler", "grid": 12, "final_time": 0.1, "frames": 4},
    "shallow_water": {"name": "shallow_water", "grid": 12, "final_time": 0.1, "frames": 4},
    "heat": {"name": "heat", "grid": [9, 12], "walls": [0.0, 1.0], **SHORT},
    "heat_closed": {"name": "heat", "grid": 12, "sides": "neumann", "kappa": "switching", **SHORT},
    "wave": {"name": "wave", "grid": 17, **SHORT},
    "wave_closed": {"name": "wave", "grid": [17, 15], "sides": ["neumann", "dirichlet"], "medium": "smooth", **SHORT},
}


@every_family
def test_the_independent_right_hand_side_is_the_same_equation(pde):
    """On a rough state; apart by rounding of the largest derivative."""
    family = build(**pde)
    fourier = family.fourier
    states = np.random.default_rng(6).standard_normal((2, len(family.role("output")), *family.mesh.shape))
    c = fourier.coefficients(states)
    nonlinear = family.nonlinear(fourier)
    change = family.linear(fourier) * c + (nonlinear(c) if nonlinear else 0)
    expected = fourier.values(change, family.mesh.shape)
    found = independent_right_hand_side(family, family.sample(np.random.default_rng(1)))(np.zeros(2), states)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * abs(expected).max())
    np.testing.assert_allclose(independent_start(family, states), family.resolved(states), atol=1e-14)


def spec_of(pde, train=2, test=1, seed=3):
    samples = {"train": train, "validation": 0, "test": test}
    return Spec(pde, seed=seed, samples=samples, shard_size=2, solver=SOLVER)


def compare(family, solver=None, seed=4, change=lambda states: states, eps=2.3e-16):
    sample = family.sample(np.random.default_rng(seed))
    states = change(family.evolve(family.initial(sample), family.times, sample, solver))
    return compare_intervals(family, sample, states, np.arange(family.frames - 1), eps)


@every_family
def test_a_finer_step_agrees_much_better(pde):
    """So what is compared is the error of the step: the two integrate the same ordinary equations."""
    family = build(**pde)
    rule = family.longest_step(family.initial(family.sample(np.random.default_rng(4))))
    if not np.isfinite(rule):
        assert compare(family).worst < 1e-3
        return
    step = min(rule, family.times[1])  # which `evolve` takes where the rule allows more
    coarse, fine = compare(family).worst, compare(family, ETDRK4(step / 4)).worst
    assert coarse <= 1
    # Down to the 1e-9 of DOP853, relative to the accuracy.
    assert fine < max(coarse / 50, 20 * 1e-9 / family.accuracy)


@pytest.mark.parametrize(("grid", "nu"), [(8, 0.01), (12, 0.01), (17, 0.01), (32, 0.01), (64, 0.0035), (64, 0.001)])
@pytest.mark.parametrize("frames", [3, 6, 21])
def test_shocks_that_no_grid_resolves_are_followed_as_accurately(grid, nu, frames):
    """Of the semi-discrete equation the step may leave no more than the family's accuracy, on coarse grids too."""
    family = build("burgers", grid=grid, nu=nu, frames=frames)
    for seed in range(3):
        assert compare(family, seed=seed).worst <= 1


UNRESOLVED = {
    "12 points": dict(grid=12, nu=1e-4, final_time=10.0, frames=11),
    "rare frames": dict(grid=16, nu=1e-4, final_time=8.0, frames=5),
    "inviscid": dict(grid=16, nu=0.0, final_time=6.0, frames=7),
    "strong vortices": dict(grid=24, nu=0.0, standard_deviation=8.0, forcing="none", final_time=0.5, frames=2),
    "forced, from rest": dict(
        grid=16, nu=1e-4, forcing="kolmogorov", amplitude=1.0, drag=0.1, length=6.28, final_time=4.0, frames=5
    ),
}


@pytest.mark.parametrize("flow", UNRESOLVED.values(), ids=UNRESOLVED)
def test_flows_that_no_grid_resolves_are_followed_as_accurately(flow):
    """And an error of 1e-4 of the largest vorticity, at one point of the first frame after the initial one, is found.

    Where errors grow in an interval, by up to ten in the last two, ten times that.
    """
    family = build("navier_stokes", **flow)
    for seed in range(2):
        assert compare(family, seed=seed).worst <= 1

    def disturb(states):
        states[1, 0, 3, 4] += (1e-4 if family.frames > 5 else 1e-3) * abs(states[1]).max()
        return states

    assert any("frame 1 of 'vorticity'" in fault for fault in compare(family, change=disturb).faults)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("kdv", dict(grid=64, length=25.0, alpha=2.0, final_time=0.5, frames=3)),
        ("kuramoto_sivashinsky", dict(grid=48, length=20.0, alpha=1.0, final_time=1.0, frames=2)),
    ],
)
def test_rough_initial_fields_are_followed_as_accurately(name, parameters):
    """The order of the steps is lower there, as the linear part turns or damps their short waves by much in a step."""
    family = build(name, **parameters)
    for seed in range(3):
        assert compare(family, seed=seed).worst <= 1


def mend(folder, spec, change, shard=0):
    """Change a shard and mend its hashes in sidecar and manifest."""
    shard = spec.shards[shard]
    with h5py.File(folder / shard.file, "r+") as file:
        change(file)
    sidecar, manifest = read_json(folder / shard.sidecar), read_json(folder / "manifest.json")
    sidecar["sha256"] = sha256_of_file(folder / shard.file)
    for entry in manifest["shards"]:
        if entry["file"] == shard.file:
            entry["sha256"] = sidecar["sha256"]
    (folder / shard.sidecar).write_bytes(json_bytes(sidecar))
    (folder / "manifest.json").write_bytes(json_bytes(manifest))


@pytest.mark.parametrize("pde", [*FAMILIES.values(), *STEPPING.values()], ids=[*FAMILIES, *STEPPING])
def test_one_value_that_is_off_by_some_bounds_is_found(pde, tmp_path):
    """In every output field, in the frames in the middle and at the end; the first is compared with the input."""
    family = build(**pde)
    spec = spec_of(pde, seed=8)
    folder = generate(spec, tmp_path / "data", executor="serial")
    for field in family.role("output"):
        for frame in (0, 2, 3):
            place = (1, frame, *(n // 2 for n in family.mesh.shape))

            def change(file, place=place, name=field.name):
                u = file[f"t0_fields/{name}"]
                # A, the growth over an interval, is up to 7 here, or 1, so this is a few bounds; the first is exact.
                bounds = 3 if type(family) in TRAJECTORIES else 30
                u[place] += bounds * (family.accuracy + 4 * np.finfo("f4").eps) * abs(u[1]).max()

            kept = (folder / spec.shards[0].file).read_bytes()
            mend(folder, spec, change)
            problems = validate(folder, resolve=3).problems
            words = "is not where the equation leads" if frame else "is not the stored initial field"
            assert any(p.startswith("train[1]:") and words in p for p in problems), problems
            assert all(p.startswith("train[1]:") for p in problems), problems
            (folder / spec.shards[0].file).write_bytes(kept)
            mend(folder, spec, lambda file: None)
    assert validate(folder, resolve=3).sound


@pytest.fixture
def burgers(tmp_path):
    spec = spec_of(FAMILIES["burgers"])
    return spec, generate(spec, tmp_path / "burgers", executor="serial")


def put(name, place, value):
    return lambda file: file[name].__setitem__(place, value)


def copy_frame(file):
    file["t0_fields/u"][1, 3] = file["t0_fields/u"][1, 1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (copy_frame, "train[1]: frame 3 repeats frame 1, and the equation says otherwise"),
        (put("t0_fields/u", (1, 2), 0.25), "train[1]: frame 2 is constant in space, and the equation says otherwise"),
        (put("t0_fields/u", (0, 1, 5), np.nan), "not finite"),
        (lambda f: f["t0_fields/u"].__setitem__((1, 3), f["t0_fields/u"][1, 3] + 1e-4), "the mean of u in frame 3"),
        (lambda f: f["t0_fields/u"].__setitem__((1, 3, 4), 9.0), "'u' reaches from"),
        (put("t0_fields/initial_u", (1, 4), 0.3), "the first frame of 'u' is not the stored initial field"),
        (put("quality/u_drift", 0, 1e-3), "its recorded drift of u, 0.001, exceeds the tolerance 1e-12"),
        (put("quality/u_maximum", 0, 3.0), "its recorded maximum of 'u' is 3"),
        (put("cost/steps", 0, -1), "cost/steps"),
        (put("dimensions/time", 3, 0.4), "dimensions/time does not hold the times of the spec"),
        (lambda f: f["t0_fields/u"].attrs.__setitem__("time_varying", np.False_), "must have the shape (2, 32)"),
    ],
)
def test_what_is_wrong_is_found_without_integrating_all(burgers, change, words):
    spec, folder = burgers
    assert validate(folder, resolve=0).sound
    mend(folder, spec, change)
    problems = validate(folder, resolve=0).problems
    assert any(words in problem for problem in problems), problems


def test_all_frames_of_all_samples_alike_are_found(burgers):
    spec, folder = burgers

    def freeze(file):
        file["t0_fields/u"][...] = file["t0_fields/u"][:, :1]

    mend(folder, spec, freeze, 0)
    mend(folder, spec, freeze, 1)
    assert any("the same in all frames of every sample" in problem for problem in validate(folder, resolve=0).problems)


def test_a_solution_at_rest_may_repeat_itself(tmp_path):
    """Two phases fill up to +1 or -1 to the last bit: frames that repeat, and are constant, and are right."""
    pde = {"name": "allen_cahn", "dimension": 1, "grid": 16, "diffusivity": 0.2, "rate": 2.0, "frames": 41}
    spec = spec_of({**pde, "final_time": 40.0})
    folder = generate(spec, tmp_path / "data", executor="serial")
    with h5py.File(folder / spec.shards[0].file) as file:
        frames = file["t0_fields/u"][0]
    assert repeated_frames({"u": frames})  # the case is met
    report = validate(folder, resolve=0)
    assert report.sound, report.problems
    assert not report.notes


def test_frames_too_far_apart_in_chaos_are_not_compared_but_said(monkeypatch):
    """Errors grow by more than ten in 40 units of time, so that of 1 % at the beginning nothing is left to compare."""
    family = build("kuramoto_sivashinsky", grid=24, length=22.0, final_time=40.0, frames=2)
    off = compare(family, change=lambda states: states * np.array([1.0, 1.5])[:, None, None])
    assert (off.too_far, len(off.faults)) == (0, 1)
    monkeypatch.setattr(type(family), "accuracy", 0.01)
    off = compare(family, change=lambda states: states * np.array([1.0, 1.5])[:, None, None])
    assert (off.too_far, off.faults) == (1, [])


def test_the_command_ends_with_a_report_and_its_code(burgers, capsys):
    spec, folder = burgers
    data_command(["validate", str(folder)])
    assert "largest difference is" in capsys.readouterr().out
    mend(folder, spec, copy_frame)
    with pytest.raises(SystemExit) as stop:
        data_command(["validate", str(folder), "--resolve", "0"])
    assert stop.value.code == 1
    assert "WRONG: train[1]: frame 3 repeats frame 1" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- The Well's format rules


@pytest.mark.parametrize("name", ["burgers", "gray_scott", "allen_cahn"])
def test_every_file_has_the_format(name, tmp_path):
    folder = generate(spec_of(FAMILIES[name], train=1), tmp_path / "data", executor="serial")
    with h5py.File(folder / "train/shard-00000.hdf5") as file:
        assert list(well_faults(file)) == []
        for field in build(**FAMILIES[name]).fields:
            assert bool(file[f"t0_fields/{field.name}"].attrs["time_varying"]) == (field.role == "output")
        assert file["dimensions/time"].shape == (4,)


def test_steady_files_have_the_format(tmp_path):
    spec = Spec({"name": "darcy", "grid": 8}, 1, {"train": 2, "validation": 0, "test": 1}, 2, SOLVER)
    folder = generate(spec, tmp_path / "data", executor="serial")
    with h5py.File(folder / "train/shard-00000.hdf5") as file:
        assert list(well_faults(file)) == []


def without(name):
    return lambda file: file.__delitem__(name)


def attribute(path, name, value):
    return lambda file: file[path].attrs.__setitem__(name, value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.attrs.__delitem__("dataset_name"), "'dataset_name' must be a string"),
        (attribute("/", "n_trajectories", "two"), "'n_trajectories' must be an integer"),
        (attribute("/", "grid_type", 3), "'grid_type' must be a string"),
        (attribute("/", "simulation_parameters", np.array(["nu"], h5py.string_dtype())), "parameter 'nu' must also be"),
        (without("t2_fields"), "/t2_fields is missing"),
        (without("dimensions/x"), "/dimensions/x must be an array"),
        (
            attribute("dimensions", "spatial_dims", np.array(["x", "y"], h5py.string_dtype())),
            "must name n_spatial_dims",
        ),
        (attribute("dimensions/time", "time_varying", np.False_), "time"),
        (attribute("dimensions/x", "sample_varying", 0), "'sample_varying' of /dimensions/x must be a boolean"),
        (attribute("t0_fields/u", "dim_varying", np.array([1])), "'dim_varying' of /t0_fields/u must be 1 booleans"),
        (attribute("t0_fields", "field_names", np.array(["u"], h5py.string_dtype())), "must list its entries"),
        (
            attribute("t0_fields/initial_u", "time_varying", np.True_),
            "/t0_fields/initial_u must have the shape (2, 4, 32)",
        ),
        (attribute("boundary_conditions/x_periodic", "bc_type", "periodical"), "'bc_type'"),
        (attribute("boundary_conditions/x_periodic", "associated_dims", "x"), "'associated_dims'"),
        (without("boundary_conditions/x_periodic/mask"), "must be a group with mask and values"),
        (lambda f: f["scalars"].create_dataset("nu", data=[0.1, 0.1]), "'field_names' of /scalars"),
    ],
)
def test_departures_from_the_format_are_named(burgers, change, words):
    spec, folder = burgers
    mend(folder, spec, change)
    problems = validate(folder, resolve=0).problems
    assert any("The Well's format" in problem and words in problem for problem in problems), problems
