"""Every steady family through the whole pipeline: written, checked by its independent scheme, written again."""

import subprocess
import sys
from importlib.resources import files

import h5py
import numpy as np
import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from datagen.commands.data import info
from datagen.difficulty import at_level
from datagen.family import build
from datagen.files import json_bytes, read_json, sha256_of_file
from datagen.generate import generate
from datagen.store import Spec, open_store
from datagen.validate import independent_system, unknowns, validate

FAMILIES = {
    "darcy": {"name": "darcy", "grid": 12},
    "darcy, legacy": {"name": "darcy", "grid": 16, "low": 4.0, "legacy_fno": True},
    "poisson": {"name": "poisson", "grid": 13},
    "poisson, 3D, lognormal": {
        "name": "poisson",
        "grid": [5, 7, 6],
        "dimension": 3,
        "coefficient": "lognormal",
        "variables": "all",
    },
    "helmholtz": {"name": "helmholtz", "grid": [16, 20], "wavenumber": 12.0},
    "helmholtz, 1D": {"name": "helmholtz", "grid": 40, "dimension": 1},
    "helmholtz, impedance": {"name": "helmholtz", "grid": [16, 20], "wavenumber": 12.0, "condition": "impedance"},
    "helmholtz, impedance, 3D": {
        "name": "helmholtz",
        "grid": [7, 6, 8],
        "wavenumber": 5.0,
        "condition": "impedance",
        "dimension": 3,
    },
    "thermal plate": {"name": "thermal_plate", "grid": [20, 32]},
    "thermal plate, slot across cells": {"name": "thermal_plate", "grid": [11, 13], "slot": [0.3, 0.5]},
}
every_family = pytest.mark.parametrize("pde", FAMILIES.values(), ids=FAMILIES)


def spec_of(pde, dtype="float32"):
    solver = {"method": "auto", "rtol": 1e-8}
    return Spec(pde, seed=5, samples={"train": 4, "validation": 1, "test": 1}, shard_size=2, solver=solver, dtype=dtype)


def real(values):
    """A complex vector as its real and imaginary parts, one after the other."""
    return np.concatenate([values.real, values.imag]) if np.iscomplexobj(values) else values


@every_family
def test_the_independent_scheme_is_the_same_scheme(pde):
    """On every field of unknowns u, and on what u holds besides (boundary nodes, holes), A u - b is the family's."""
    family = build(**pde)
    rng = np.random.default_rng(71)
    sample = family.sample(rng)
    system = family.system(sample)
    A, b = independent_system(family, sample)
    n = system.b.size
    x = rng.standard_normal(n)
    if np.iscomplexobj(system.b):
        x = x + 1j * rng.standard_normal(n)
    field, outputs = np.asarray(system.to_field(x)), family.role("output")
    u, size = unknowns(
        family, {f.name: v for f, v in zip(outputs, field if len(outputs) > 1 else [field], strict=True)}
    )
    residual = b - A @ u
    scale = float(np.max(abs(A) @ size + abs(b)))
    solved = np.diff(A.indptr) > 1
    assert solved.sum() == real(x).size
    # Unknowns are in C order in both, so the rows that are solved for are the family's rows.
    np.testing.assert_allclose(residual[solved], real(system.b - system.A @ x), atol=1e-13 * scale)
    np.testing.assert_allclose(residual[~solved], 0, atol=1e-14 * size.max())


def shards_of(folder, spec):
    return [sha256_of_file(folder / shard.file) for shard in spec.shards]


@every_family
def test_written_sound_and_a_lost_shard_is_made_again_with_the_same_bytes(pde, tmp_path):
    spec = spec_of(pde)
    serial = generate(spec, tmp_path / "serial", executor="serial")
    report = validate(serial, resolve=6)
    assert report.sound, report.problems
    assert (report.samples, report.resolved, report.notes) == (6, 6, [])
    assert 0.01 < report.worst <= 1  # the bound is not so loose that it would let much through
    for field in build(**pde).fields:
        assert field.name in info(serial)

    before = shards_of(serial, spec)
    (serial / spec.shards[0].file).unlink()
    generate(spec, serial, executor="serial")
    assert shards_of(serial, spec) == before


@pytest.mark.parametrize("name", ["poisson, 3D, lognormal", "helmholtz, impedance", "thermal plate"])
def test_workers_write_the_same_bytes(name, tmp_path):
    spec = spec_of(FAMILIES[name])
    serial = generate(spec, tmp_path / "serial", executor="serial")
    parallel = generate(spec, tmp_path / "parallel", executor="processes", workers=2)
    assert shards_of(parallel, spec) == shards_of(serial, spec)


@every_family
def test_one_value_that_is_off_is_found(pde, tmp_path):
    """In every output field, with the hashes mended."""
    spec = spec_of(pde, "float64")
    folder = generate(spec, tmp_path / "data", executor="serial")
    shard = spec.shards[0]
    for field in build(**pde).role("output"):
        with h5py.File(folder / shard.file, "r+") as file:
            values = file[f"t0_fields/{field.name}"][()]
            middle = (1, *(n // 2 for n in values.shape[1:]))
            changed = values.copy()
            changed[middle] += 1e-5 * abs(values).max()
            file[f"t0_fields/{field.name}"][...] = changed
        mend(folder, shard)
        assert [p.split(":")[0] for p in validate(folder, resolve=0).problems] == ["train[1]"]
        with h5py.File(folder / shard.file, "r+") as file:
            file[f"t0_fields/{field.name}"][...] = values
    mend(folder, shard)
    assert validate(folder, resolve=0).sound


def mend(folder, shard):
    sidecar, manifest = read_json(folder / shard.sidecar), read_json(folder / "manifest.json")
    sidecar["sha256"] = sha256_of_file(folder / shard.file)
    for entry in manifest["shards"]:
        if entry["file"] == shard.file:
            entry["sha256"] = sidecar["sha256"]
    (folder / shard.sidecar).write_bytes(json_bytes(sidecar))
    (folder / "manifest.json").write_bytes(json_bytes(manifest))


@every_family
def test_the_store_gives_back_the_system_that_was_solved(pde, tmp_path):
    spec = spec_of(pde, "float64")
    data = open_store(generate(spec, tmp_path / "data", executor="serial"))
    system = data.family.system(data.sample("train", 3))
    outputs = [data.read("train", field.name, 3, 4)[0] for field in data.family.role("output")]
    x = system.to_vector(outputs[0] if len(outputs) == 1 else np.stack(outputs))
    assert np.linalg.norm(system.b - system.A @ x) <= 1.01e-8 * np.linalg.norm(system.b)


@pytest.mark.parametrize("name", ["darcy", "poisson", "helmholtz", "thermal_plate"])
def test_the_yaml_of_a_family_holds_its_defaults(name):
    written = OmegaConf.to_container(OmegaConf.load(str(files("configs") / "pde" / f"{name}.yaml")))
    assert build(**at_level(written)[0]) == build(name)


def test_the_yaml_of_the_legacy_mode_is_darcys_with_two_changes():
    with initialize_config_module(version_base="1.3", config_module="configs"):
        written = OmegaConf.to_container(compose("generate", ["pde=darcy_legacy_fno", "out=x"]).pde)
    assert build(**at_level(written)[0]) == build("darcy", low=4.0, legacy_fno=True)


def test_the_command_writes_a_complex_family(tmp_path):
    words = ["pde=helmholtz", "pde.grid=16", "pde.wavenumber=10", "pde.condition=impedance", "samples.train=2"]
    words += ["samples.validation=1", "samples.test=1", f"out={tmp_path / 'data'}"]
    subprocess.run([sys.executable, "-m", "datagen.commands.generate", *words], check=True, capture_output=True)
    assert validate(tmp_path / "data").sound
