"""Every parameter of every family with hostile values: refused by its name, or fit to compute with; nothing else."""

import dataclasses
import math
import warnings

import pytest

from datagen import generate
from datagen.family import load_families
from datagen.shard import solve_sample
from datagen.store import Spec

SMALL = {
    "darcy": {"grid": 6, "dimension": 1},
    "poisson": {"grid": 7, "dimension": 1},
    "helmholtz": {"grid": 8, "wavenumber": 5.0, "dimension": 1},
    "thermal_plate": {"grid": [10, 16]},
    "advection": {"grid": 8},
    "burgers": {"grid": 16},
    "kdv": {"grid": 16},
    "kuramoto_sivashinsky": {"grid": 16},
    "allen_cahn": {"grid": 8, "dimension": 1},
    "gray_scott": {"grid": 8, "dimension": 1},
    "fitzhugh_nagumo": {"grid": 8, "dimension": 1},
    "navier_stokes": {"grid": 8},
    "heat": {"grid": 6, "dimension": 1},
    "wave": {"grid": 9},
    "euler": {"grid": 6, "dimension": 1},
    "shallow_water": {"grid": 6, "dimension": 1},
    "flow": {"grid": 8, "obstacles": [0, 0]},
}
NAN, INF = math.nan, math.inf
HOSTILE = [NAN, INF, -INF, -1, 0.0, 1e308, -1e308, 1e-308, 1e12, -1e12, 99999999999, 10**400, True]
HOSTILE += ["x", [], None, {}, [NAN], [1e308], [-1, -1], [INF, INF], [10**400, 1]]
# Whatever a family makes of its other parameters, these are never right.
NEVER = [NAN, INF, -INF, 1e308, -1e308, 1e-308, 10**400, {}, [NAN], [1e308], [INF, INF], [10**400, 1]]


def spec_of(pde):
    return Spec(pde, 0, {"train": 1, "validation": 0, "test": 0}, 1, {"method": "auto", "rtol": 1e-6})


def refused(pde):
    """The sentence, or None."""
    try:
        spec_of(pde).sample_bytes()
    except ValueError as error:
        return str(error)
    return None


def test_all_families_are_here():
    assert set(load_families()) - {"imported", "mixed"} == set(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_hostile_values_are_refused_by_name(name):
    for parameter in dataclasses.fields(load_families()[name]):
        if not parameter.init:
            continue
        for value in HOSTILE:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                refusal = refused({"name": name, **SMALL[name], parameter.name: value})
            if refusal is None:
                assert not any(value is bad for bad in NEVER), f"{name}: {parameter.name}={value} was taken"
            else:
                assert parameter.name in refusal, (parameter.name, value)
                assert len(refusal) < 500


@pytest.mark.parametrize(
    ("pde", "words"),
    [
        ({"name": "darcy", "grid": 99999999999}, "grid must have at most .* takes 8e.13 GB of memory"),
        ({"name": "burgers", "frames": 99999999999}, "frames must be at least 2, .* at most 1,000,000"),
        ({"name": "heat", "final_time": 1e12}, "step gives steps of 0.04, .* at most"),
        ({"name": "wave", "courant": 1e-9}, "courant gives steps of"),
        ({"name": "kdv", "step": 1e-9}, "step gives steps of 1e-09"),
        ({"name": "kdv", "step": NAN}, "step must be positive and finite"),
        ({"name": "euler", "courant": 1.1}, "courant must be more than 0 and at most 1, beyond which .* unstable"),
        ({"name": "shallow_water", "courant": NAN}, "courant must be"),
        ({"name": "navier_stokes", "nu": -1e-3}, "nu must not be negative"),
        ({"name": "burgers", "nu": -1e-3}, "nu must be positive"),
        ({"name": "darcy", "alpha": 1e12}, "alpha=1e.12 and tau=3 .* double precision"),
        ({"name": "heat", "initial_alpha": 1e9}, "initial_alpha"),
        ({"name": "burgers", "tau": 0.0}, "burgers: tau = 0"),
        ({"name": "navier_stokes", "alpha": 1.0}, "navier_stokes: alpha must be more than half the dimension"),
        ({"name": "imported", "grid": [4], "declared": [], "frame_times": [0.0, 2.0, 1.0]}, "frame_times|one field"),
    ],
)
def test_the_sentence_says_what_is_wrong(pde, words):
    with pytest.raises(ValueError, match=words):
        spec_of(pde)


@pytest.mark.parametrize("pde", [{"name": "darcy", "grid": 100_000}, {"name": "burgers", "frames": 900_000}])
def test_what_does_not_fit_into_memory_is_refused_before_anything_is_written(pde, tmp_path, monkeypatch):
    honest = generate.os.sysconf
    monkeypatch.setattr(generate.os, "sysconf", lambda key: 10**6 if key == "SC_PHYS_PAGES" else honest(key))  # 4 GB
    spec = dataclasses.replace(spec_of(pde), shard_size=100, samples={"train": 100, "validation": 0, "test": 0})
    with pytest.raises(ValueError, match=r"GB of memory, .* pde\.grid=.* smaller shard\.size"):
        generate.generate(spec, tmp_path / "data", executor="serial")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "pde",
    [
        {"name": "darcy", "coefficient": "lognormal", "log_standard_deviation": 1e12},
        {"name": "navier_stokes", "amplitude": 1e20, "final_time": 1.0, "frames": 2},
        {"name": "shallow_water", "gravity": 1e25, "frames": 2},
    ],
)
def test_what_no_number_can_hold_fails_in_a_sentence(pde):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeError, match="failed in 10 draws"):
            solve_sample(spec_of({**SMALL[pde["name"]], **pde}), "train", 0)
