"""Input fields that a person gives: solved as they are, recorded by their hash, the same bytes whoever solves them."""

import subprocess
import sys

import numpy as np
import pytest

from datagen.commands.data import info
from datagen.draw import _open, draw, with_inputs
from datagen.family import build
from datagen.generate import generate
from datagen.store import Spec, open_store
from datagen.validate import validate

SAMPLES = {"train": 5, "validation": 2, "test": 2}
SOLVER = {"method": "direct", "rtol": 1e-8}


def coefficients(count=9, grid=(10, 12)):
    """Layers of two materials, as no random field of ours makes them."""
    height = 1 + np.arange(count)
    return np.where(np.arange(grid[1]) < height[:, None, None], 2.0, 9.0) * np.ones((count, *grid))


@pytest.fixture
def spec(tmp_path):
    np.savez_compressed(tmp_path / "layers.npz", coefficient=coefficients())
    return with_inputs(Spec({"name": "darcy", "grid": [10, 12]}, 0, SAMPLES, 2, SOLVER), tmp_path / "layers.npz")


def test_layers_have_the_solution_of_the_transmission_problem(tmp_path):
    """-(a u')' = 1 on an interval of two materials, an interface between cells: harmonic averages are exact there.

    u = A x - x^2 / (2 a) on the left, from the right B (1 - x) - (1 - x)^2 / (2 b); u and a u' continuous at c. The
    scheme's face fluxes are exact, and its cell values are off by a quadratic's h^2 / (8 a) alone.
    """
    grid, cut, a, b = 40, 10, 2.0, 9.0
    values = np.where(np.arange(grid) < cut, a, b)[None]
    np.savez(tmp_path / "one.npz", coefficient=values.repeat(1, axis=0))
    samples = {"train": 1, "validation": 0, "test": 0}
    spec = Spec({"name": "darcy", "grid": grid, "dimension": 1}, 0, samples, 1, {**SOLVER, "rtol": 1e-12}, "float64")
    folder = generate(with_inputs(spec, tmp_path / "one.npz"), tmp_path / "data", executor="serial")
    found, x, c = open_store(folder).read("train", "pressure")[0], (np.arange(grid) + 0.5) / grid, cut / grid
    # Flux q = a u' = q0 - x. Continuity: int_0^1 (q0 - x) / a(x) dx = 0.
    q0 = (c**2 / (2 * a) + (1 - c**2) / (2 * b)) / (c / a + (1 - c) / b)
    exact = np.where(x < c, (q0 * x - x**2 / 2) / a, (-q0 * (1 - x) + (1 - x**2) / 2) / b)
    np.testing.assert_allclose(found, exact, atol=1 / grid**2 / (8 * a) * 1.001)
    assert abs(found - exact).max() > 0


def test_given_rows_are_stored_and_solved(spec, tmp_path):
    folder = generate(spec, tmp_path / "data", executor="serial")
    store = open_store(folder)
    given = coefficients().astype("f4")
    np.testing.assert_array_equal(store.read("train", "coefficient"), given[:5])
    np.testing.assert_array_equal(store.read("validation", "coefficient"), given[5:7])
    np.testing.assert_array_equal(store.read("test", "coefficient"), given[7:])
    report = validate(folder, resolve=9)
    assert report.sound, report.problems
    assert report.resolved == 9
    assert "coefficient from" in info(folder)


def test_inputs_that_are_not_given_are_drawn(tmp_path):
    family = build("poisson", grid=9, coefficient="lognormal")
    np.savez(tmp_path / "mine.npz", source=np.full((3, 9, 9), 2.0))
    plain = Spec(family.parameters(), 4, {"train": 3, "validation": 0, "test": 0}, 2, SOLVER)
    mine, drawn = draw(with_inputs(plain, tmp_path / "mine.npz"), "train", 1), draw(plain, "train", 1)
    assert (mine.fields["source"] == 2).all()
    for name in ("boundary_value", "coefficient"):
        np.testing.assert_array_equal(mine.fields[name], drawn.fields[name])


def test_an_evolution_starts_from_a_given_field(tmp_path):
    x = np.arange(64) / 64
    np.savez(tmp_path / "sine.npz", initial_u=np.sin(2 * np.pi * x) * np.array([[1.0], [0.5]]))
    samples = {"train": 2, "validation": 0, "test": 0}
    pde = {"name": "burgers", "grid": 64, "nu": 0.1, "frames": 3}
    spec = with_inputs(Spec(pde, 0, samples, 2, {"method": "auto", "rtol": 1e-6}), tmp_path / "sine.npz")
    store = open_store(generate(spec, tmp_path / "data", executor="serial"))
    exact = store.family.exact(store.sample("train", 1), [0.5, 1.0])
    # Single precision of values up to 0.5, and the scheme's stated 2e-9.
    np.testing.assert_allclose(store.read("train", "u")[1, 1:], exact[:, 0], atol=1e-7)


def test_another_file_is_not_taken_for_the_first(spec, tmp_path):
    folder = generate(spec, tmp_path / "data", executor="serial")
    np.savez(tmp_path / "layers.npz", coefficient=coefficients()[::-1])
    changed = Spec.from_dict(spec.as_dict())
    _open.cache_clear()  # another process has not looked at it before
    with pytest.raises(ValueError, match="another file than the dataset was begun with"):
        draw(changed, "train", 0)
    assert "not made again" in " ".join(validate(folder).notes)
    with pytest.raises(ValueError, match="another spec"):
        generate(with_inputs(spec, tmp_path / "layers.npz"), folder, executor="serial")


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"permeability": np.ones((9, 10, 12))}, "'permeability' is not an input of darcy. Known: coefficient"),
        ({"pressure": np.ones((9, 10, 12))}, "'pressure' is not an input"),
        ({"coefficient": np.ones((9, 12, 10))}, "must be real numbers (n, 10, 12), got float64 of shape (9, 12, 10)"),
        ({"coefficient": np.ones((8, 10, 12))}, "has 8 rows"),
        ({"coefficient": np.ones((9, 10, 12), complex)}, "must be real numbers"),
        ({"coefficient": np.array([None] * 9)}, "pickled Python objects"),
        ({}, "holds no arrays"),
        ({"coefficient": np.full((9, 10, 12), np.nan)}, "row 0 of 'coefficient' is not finite"),
        ({"coefficient": -np.ones((9, 10, 12))}, "coefficient"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(tmp_path, arrays, sentence):
    np.savez(tmp_path / "bad.npz", **arrays)
    spec = Spec({"name": "darcy", "grid": [10, 12]}, 0, SAMPLES, 2, SOLVER)
    with pytest.raises(ValueError) as error:
        generate(with_inputs(spec, tmp_path / "bad.npz"), tmp_path / "data", executor="serial")
    assert sentence in str(error.value)


def test_the_command_takes_them(spec, tmp_path):
    words = ["pde.grid=[10,12]", "samples.train=5", "samples.validation=2", "samples.test=2", "shard.size=2"]
    words += ["solver=direct", "solver.rtol=1e-8", "executor.workers=2"]
    words += [f"inputs={tmp_path / 'layers.npz'}", f"out={tmp_path / 'data'}"]
    done = subprocess.run([sys.executable, "-m", "datagen.commands.generate", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    store = open_store(tmp_path / "data")
    assert store.spec["inputs"]["fields"] == ["coefficient"]
    # The bytes do not depend on who computes them.
    serial = generate(spec, tmp_path / "serial", executor="serial")
    for shard in store.shards("train"):
        assert (serial / shard.file).read_bytes() == (store.path / shard.file).read_bytes()
    assert (serial / "manifest.json").read_bytes() == (store.path / "manifest.json").read_bytes()
