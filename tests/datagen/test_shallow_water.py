"""Shallow water against Stoker's dam, lakes at rest, an independent code, and what it conserves."""

import numpy as np
import pytest
from scipy.optimize import brentq

from datagen.evolve.finite_volume import FiniteVolume
from datagen.family import Sample
from datagen.finite_volume_checks import BOUND, evolve
from datagen.pdes.shallow_water import ShallowWater


def stoker(upper, lower, xi, gravity):
    """Depth and velocity along x / t where a dam between two depths of water at rest breaks (Stoker 1957, 10.8)."""

    def mismatch(h):
        fan = 2 * (np.sqrt(gravity * upper) - np.sqrt(gravity * h))
        return fan - (h - lower) * np.sqrt(gravity / 2 * (h + lower) / (h * lower))

    h = brentq(mismatch, lower, upper, rtol=1e-14)
    u = 2 * (np.sqrt(gravity * upper) - np.sqrt(gravity * h))
    bore = h * u / (h - lower)
    fan_u = 2 / 3 * (xi + np.sqrt(gravity * upper))
    fan_h = (2 * np.sqrt(gravity * upper) - xi) ** 2 / (9 * gravity)
    edges = [xi < -np.sqrt(gravity * upper), xi < u - np.sqrt(gravity * h), xi < bore]
    return np.stack([np.select(edges, [upper, fan_h, h], lower), np.select(edges, [0, fan_u, u], 0)])


@pytest.mark.parametrize(("lower", "gravity"), [(1.0, 1.0), (0.05, 9.81)])
def test_stokers_dam(lower, gravity):
    errors, time = [], 0.8 / np.sqrt(gravity)
    for grid in (100, 200, 400):
        family = ShallowWater(dimension=1, grid=grid, gravity=gravity)
        x = family.mesh.coordinates(0) - 2.5
        state = np.stack([np.where(x < 0, 2.0, lower), np.zeros(grid)])
        found, exact = family.evolve(state, [time])[0], stoker(2.0, lower, x / time, gravity)
        assert found[0].min() > 0
        errors.append(abs(found - exact).mean(1) / abs(exact).mean(1))
    # One at the bore, on average: the place of a thin one within its cell tells.
    orders = np.log2(errors[0] / errors[2]) / 2
    assert ((orders > 0.7) & (orders < 1.3)).all(), errors
    assert errors[-1].max() < 0.02, errors


def lake(family, seed=1):
    """A sample of still water over the family's bottom."""
    sample = family.sample(np.random.default_rng(seed))
    depth = family.outer - sample.fields["bottom"]
    still = {f"initial_{f.name}": np.zeros_like(depth) for f in family.role("output")[1:]}
    return Sample({"initial_depth": depth, **still, "bottom": sample.fields["bottom"]})


@pytest.mark.parametrize("sides", ["periodic", "wall", "outflow"])
@pytest.mark.parametrize("dimension", [1, 2])
def test_a_lake_stays_at_rest(sides, dimension):
    family = ShallowWater(setup="smooth", dimension=dimension, grid=32, sides=sides, bottom_height=0.9)
    sample = lake(family)
    assert np.ptp(sample.fields["bottom"]) > 0.3
    start = family.initial(sample)
    # Some hundred steps of rounding in the sums of g h^2.
    np.testing.assert_allclose(family.evolve(start, [5.0], sample)[0], start, rtol=0, atol=1e-13)
    # Even where the bottom jumps, and rises above the surface within reconstructed cells.
    rough = np.random.default_rng(2).uniform(0, 0.99, family.mesh.shape)
    sample = Sample({"initial_depth": 1 - rough, "bottom": rough})
    start[0], start[1:] = 1 - rough, 0
    np.testing.assert_allclose(family.evolve(start, [1.0], sample)[0], start, rtol=0, atol=1e-13)


def test_smooth_waves_over_a_bottom_show_order_two():
    """Against the same problem on 8 times as many cells, averaged: depth and momentum are averages over cells."""

    def problem(grid):
        family = ShallowWater(setup="smooth", dimension=1, grid=grid, length=1.0, sides="periodic")
        edges = np.linspace(0, 2 * np.pi, grid + 1)
        h = 2 * np.pi / grid
        bottom = 0.3 - 0.2 * np.diff(np.sin(edges)) / h  # averages of 0.3 - 0.2 cos
        surface = 1.0 - 0.05 * np.diff(np.cos(edges)) / h  # averages of 1 + 0.05 sin
        sample = Sample({"initial_depth": surface - bottom, "initial_velocity_x": 0 * bottom, "bottom": bottom})
        depth, velocity = family.evolve(family.initial(sample), [0.3], sample)[0]
        return np.stack([depth, depth * velocity])

    fine, errors = problem(1024), []
    for grid in (32, 64, 128):
        errors.append(abs(problem(grid) - fine.reshape(2, grid, -1).mean(2)).mean(1))
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    assert ((orders > 1.7) & (orders < 2.6)).all(), orders


FAMILIES = [
    ShallowWater(grid=32),
    ShallowWater(grid=(24, 32), setup="smooth", sides=("periodic", "wall"), bottom_height=0.8, standard_deviation=0.3),
    ShallowWater(grid=40, setup="smooth", sides="periodic"),
    ShallowWater(grid=40, dimension=1, setup="smooth", sides="periodic", bottom_height=0.5),
    ShallowWater(grid=40, dimension=1, inner=2.0, outer=1e-4),
]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f"{f.setup} {f.dimension} {f.sides}")
def test_independent_code_agrees(family):
    sample = family.sample(np.random.default_rng(12))
    found = family.evolve(family.initial(sample), [0.3, 1.0], sample)
    assert found[:, 0].min() > 0
    expected = evolve(family, sample, [0.3, 1.0])
    axes = (0, *range(2, found.ndim))
    assert (abs(found - expected).mean(axes) <= BOUND * (abs(expected).mean(axes) + 1e-3)).all()


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f"{f.setup} {f.dimension} {f.sides}")
def test_conserved_densities_keep_their_means(family):
    sample = family.sample(np.random.default_rng(3))
    states = family.evolve(family.initial(sample), [0.0, 1.0], sample)
    quantities = family.conserved(states, sample)
    mass = set() if family.sides == "outflow" else {"mass"}
    flat = family.sides == "periodic" and family.bottom_height == 0
    assert set(quantities) == mass | ({"momentum_x", "momentum_y"} if flat else set())
    for density in quantities.values():
        before, after = density.density.reshape(2, -1).mean(1)
        assert abs(after - before) < 1e-13


def test_radial_dam_breaks_are_drawn_as_declared():
    family = ShallowWater(grid=50)
    areas = []
    for seed in range(60):
        sample = family.sample(np.random.default_rng(seed))
        depth = sample.fields["initial_depth"]
        np.testing.assert_allclose([depth.min(), depth.max()], [1, 2], rtol=1e-14)
        assert set(sample.fields) == {"initial_depth", "initial_velocity_x", "initial_velocity_y"}
        areas.append((depth - 1).sum() * 0.1**2)
    radii = np.sqrt(np.array(areas) / np.pi)
    # Circles on subcells of 0.025: their areas are known to a few of them.
    assert 0.29 < radii.min() < 0.36
    assert 0.64 < radii.max() < 0.71
    assert abs(radii.mean() - 0.5) < 4 * 0.4 / np.sqrt(12 * 60)
    fine = ShallowWater(grid=100).sample(np.random.default_rng(7)).fields["initial_depth"]
    coarse = family.sample(np.random.default_rng(7)).fields["initial_depth"]
    assert abs(fine.reshape(50, 2, 50, 2).mean((1, 3)) - coarse).sum() < 0.05 * (coarse - 1).sum()


def test_a_radial_dam_break_stays_round():
    """The same along an axis and along the diagonal, to the error of the scheme; transposed bit for bit."""
    family = ShallowWater(grid=100)
    start = np.stack([family.dam(0.5), *np.zeros((2, 100, 100))])
    depth, u, v = family.evolve(start, [1.0])[0]
    np.testing.assert_array_equal(depth, depth.T)
    np.testing.assert_array_equal(u, v.T)
    x, y = (p - 2.5 for p in family.mesh.points())
    radius, angle = np.hypot(x, y), np.abs(np.mod(np.arctan2(y, x) + np.pi / 4, np.pi / 2) - np.pi / 4)
    means = []
    for sector in (angle < np.pi / 16, angle > 3 * np.pi / 16):
        ring = [(sector & (radius >= r) & (radius < r + 0.1)) for r in np.arange(0.3, 2.2, 0.1)]
        means.append([depth[cells].mean() for cells in ring])
    assert np.abs(np.subtract(*means)).max() < 0.1 * np.ptp(depth)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(setup="tsunami"), "setup must be one of radial_dam_break, smooth"),
        (dict(dimension=3), "dimension must be 1 or 2"),
        (dict(bottom_height=1.0), r"bottom_height must lie in \[0, 1\)"),
        (dict(radius=(0.7, 0.3)), "radius must be two positive numbers that increase"),
        (dict(gravity=0.0), "gravity must be positive"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ShallowWater(**arguments)


def test_dry_beds_and_other_bottoms_are_refused():
    family = ShallowWater(grid=8)
    state = np.zeros((3, 8, 8))
    with pytest.raises(ValueError, match="'depth' of the state must be positive"):
        family.evolve(state, [1.0])
    state[0] = 1
    with pytest.raises(ValueError, match="field 'bottom' must have the grid's shape"):
        family.evolve(state, [1.0], Sample({"bottom": np.zeros(8)}))
    solver = FiniteVolume(step=1.0)
    with pytest.raises(ValueError, match="unstable"):
        family.evolve(state, [1.0], solver=solver)
