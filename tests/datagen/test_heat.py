"""The heat equation against exact solutions, an independent integration, and what it must not do."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import sparse
from scipy.integrate import quad, solve_ivp

from datagen.evolve.implicit import IMPLICIT_EULER, Implicit
from datagen.family import Sample
from datagen.implicit_checks import heat_balance, heat_states
from datagen.pdes.heat import Heat

pi = np.pi


def seed(number=17):
    return np.random.default_rng(number)


def mode(family, numbers):
    """A product of eigenfunctions, its eigenvalue, and that of the discrete Laplacian, for -Laplacian."""
    field, continuous, discrete = np.ones(family.mesh.shape), 0.0, 0.0
    for axis, (number, side) in enumerate(zip(numbers, family.conditions, strict=True)):
        kappa = (2 if side == "periodic" else 1) * pi * number
        x, h = family.mesh.points()[axis], family.mesh.spacing[axis]
        field = field * (np.sin if side == "dirichlet" else np.cos)(kappa * x)
        continuous += kappa**2
        discrete += (2 / h * np.sin(kappa * h / 2)) ** 2
    return field, continuous, discrete


BOXES = [
    (1, "dirichlet", (2,)),
    (1, "neumann", (3,)),
    (2, ("periodic", "dirichlet"), (1, 2)),
    (2, "neumann", (1, 2)),
    (3, ("dirichlet", "neumann", "periodic"), (1, 1, 1)),
]


@pytest.mark.parametrize(("dimension", "sides", "numbers"), BOXES)
def test_order_in_time_and_in_space(dimension, sides, numbers):
    """Separable: ``exp(-lambda int kappa) phi``, with lambda of the grid (error of the step alone) and of the box."""

    def family(grid):
        return Heat(grid, dimension, sides, coefficient="constant", diffusivity=0.05, final_time=1.0)

    scalars = family(8).sample(seed()).scalars
    errors = []
    for step in (0.02, 0.01):  # which divide the times
        coarse = family(9)
        field, _, discrete = mode(coarse, numbers)
        sample = Sample({"initial_temperature": field}, scalars)
        states = coarse.evolve(coarse.initial(sample), [0.3, 1.0], sample, Implicit(step=step))
        amplitude = np.exp(-0.05 * discrete * coarse.kappa_integral(sample, [0.3, 1.0]))
        errors.append(np.max(np.abs(states[:, 0] - np.multiply.outer(amplitude, field))))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.1)

    errors = []
    for grid in (12, 24):
        finer = family(grid)
        field, continuous, _ = mode(finer, numbers)
        sample = Sample({"initial_temperature": field}, scalars)
        states = finer.evolve(finer.initial(sample), [1.0], sample, Implicit(step=0.005))
        exact = np.exp(-0.05 * continuous * finer.kappa_integral(sample, [1.0])[0]) * field
        np.testing.assert_allclose(finer.exact(sample, [1.0])[0, 0], exact, atol=1e-14)
        errors.append(np.max(np.abs(states[0, 0] - exact)))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.15)


def test_exact_holds_for_what_is_drawn():
    """Half the spacing and half the step: a quarter of the error, whatever was drawn."""
    errors = []
    for grid, step in ((16, 0.04), (32, 0.02), (64, 0.01)):
        family = Heat(grid, coefficient="constant", walls=(0.7, 0.7), initial_alpha=4.0, final_time=2.0, frames=3)
        x, y = family.mesh.points()
        waves = np.sin(pi * x) * np.sin(2 * pi * y) + 0.3 * np.sin(2 * pi * x) * np.sin(pi * y)
        sample = Sample({"initial_temperature": 0.7 + waves}, family.sample(seed()).scalars)
        states = family.evolve(family.initial(sample), family.times, sample, Implicit(step=step))
        errors.append(np.max(np.abs(states - family.exact(sample, family.times))))
    assert np.log2(errors[1] / errors[2]) == pytest.approx(2, abs=0.1)
    np.testing.assert_allclose(family.exact(sample, [0.0])[0], family.initial(sample), atol=1e-13)


def test_order_with_a_coefficient_that_varies():
    """A stationary u of our choice, its source by hand: a = exp(x + y/2), u = sin(pi x) sin(pi y)."""
    errors = []
    for grid in (16, 32):
        family = Heat(grid, kappa="constant", diffusivity=1.0, source_deviation=1.0, final_time=1.0)
        x, y = family.mesh.points()
        a, u = np.exp(x + y / 2), np.sin(pi * x) * np.sin(pi * y)
        slopes = pi * np.cos(pi * x) * np.sin(pi * y) + pi / 2 * np.sin(pi * x) * np.cos(pi * y)
        source = -a * (slopes - 2 * pi**2 * u)
        sample = Sample({"initial_temperature": u, "diffusivity": a, "source": source})
        states = family.evolve(family.initial(sample), [1.0], sample)
        errors.append(np.max(np.abs(states[0, 0] - u)))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize("sides", ["neumann", "periodic", ("neumann", "periodic")])
def test_heat_is_neither_made_nor_lost_whatever_the_solver_leaves(sides):
    family = Heat(16, sides=sides)
    sample = family.sample(seed())
    states = family.evolve(family.initial(sample), family.times, sample, {"method": "cg", "rtol": 1e-3})
    heat = family.conserved(states)["heat"].density.mean(axis=(1, 2))
    # Rounding: 200 solves, each within some 1e-16 of the mean.
    np.testing.assert_allclose(heat, heat[0], rtol=0, atol=1e-13)
    # With a source the mean grows by its mean.
    family = Heat(16, sides=sides, source_deviation=1.0)
    sample = family.sample(seed())
    states = family.evolve(family.initial(sample), family.times, sample)
    supplied = family.times * sample.fields["source"].mean()
    np.testing.assert_allclose(states.mean(axis=(1, 2, 3)), states[0].mean() + supplied, rtol=0, atol=1e-12)
    assert family.conserved(states) == {}
    assert Heat(16).conserved(states) == {}


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_maximum_principle(dimension):
    """Kept by steps up to the bound of the docstring from the worst start, and by implicit Euler; not by long steps."""
    family = Heat({1: 64, 2: 16, 3: 8}[dimension], dimension, walls=(0.0, 1.0), kappa="constant")
    drawn = family.sample(seed())
    start = seed().integers(0, 2, family.mesh.shape).astype(float)
    walls = {name: float(end) for name, end in zip(drawn.scalars, seed(3).integers(0, 2, 6), strict=False)}
    sample = Sample({"initial_temperature": start, "diffusivity": drawn.fields["diffusivity"]}, walls)
    assert family.extremes(sample) == (0.0, 1.0)
    assert family.bounds(sample) == {"temperature": (-0.5, 1.5)}
    A = family.step_system(family.initial(sample), 0.0, 1.0, sample).A
    bound = (1 + np.sqrt(2)) / (A.diagonal().max() - 1)

    def overshoot(step, method=None):
        integrator = Implicit(method, step)
        states = family.evolve(family.initial(sample), bound * np.arange(1, 41), sample, integrator)
        return family.quality(sample, {"temperature": states[:, 0]})["overshoot"]

    assert overshoot(bound) < 1e-8  # the solver's part
    bound *= 50
    assert 1e-3 < overshoot(bound) < 0.5
    assert overshoot(bound, IMPLICIT_EULER) < 1e-8


@pytest.mark.parametrize("kappa", ["random", "switching", "constant"])
def test_kappa_is_positive_and_its_integral_that_of_quadrature(kappa):
    family = Heat(8, kappa=kappa, period=1.3)
    sample = family.sample(seed())
    times = np.linspace(0, 4, 9)
    values = family.kappa_at(sample, np.linspace(0, 4, 401))
    assert np.all(values >= 0)
    zeros = [t for k in range(8) if 0 < (t := (k * pi - sample.scalars.get("kappa_phase", 0)) * 1.3 / (2 * pi)) < 4]
    integrals = [
        quad(lambda t: float(family.kappa_at(sample, t)), 0, end, points=zeros, limit=400, epsabs=1e-12)[0]
        for end in times[1:]
    ]
    np.testing.assert_allclose(family.kappa_integral(sample, times), [0.0, *integrals], atol=1e-9)


def test_random_kappa_has_the_deviation_asked_for_and_its_scalars_tell_it():
    family = Heat(4, 1, kappa_deviation=0.8)
    samples = [family.sample(seed(i)) for i in range(2000)]
    logarithms = np.log([family.kappa_at(sample, 0.37) for sample in samples])
    assert np.std(logarithms) == pytest.approx(0.8, rel=0.08)  # 5 standard errors
    assert abs(np.mean(logarithms)) < 5 * 0.8 / np.sqrt(2000)
    # Drawn before and apart from the fields: the same at every resolution.
    assert Heat(32, 1, kappa_deviation=0.8).sample(seed(0)).scalars == samples[0].scalars


CASES = [
    Heat(16, walls=(-1.0, 1.0)),
    Heat(16, sides="neumann", source_deviation=0.5, kappa="constant"),
    Heat((8, 10, 6), 3, ("dirichlet", "periodic", "neumann"), coefficient="constant"),
    Heat(40, 1, "periodic"),
]


def integrated(family, sample, times):
    """The independently assembled balances, by scipy's BDF with orders up to 5, anew at every time asked for."""
    balance = heat_balance(family, sample)
    u, states = balance.start, [balance.start]
    for begin, end in pairwise(times):
        u = solve_ivp(
            lambda t, u: balance.kappa(t) * (balance.load - balance.L @ u) + balance.source,
            (begin, end),
            u,
            method="BDF",
            jac=lambda t, u: sparse.csc_matrix(-balance.kappa(t) * balance.L),
            rtol=1e-9,
            atol=1e-9 * np.max(np.abs(balance.start)),
        ).y[:, -1]
        states.append(u)
    return np.reshape(states, (len(times), 1, *family.mesh.shape))


@pytest.mark.parametrize("family", CASES, ids=lambda family: f"{family.dimension}D {family.sides}")
def test_an_independent_integration_is_met_at_second_order(family):
    sample = family.sample(seed())
    times = family.times[::4]
    independent = integrated(family, sample, times)
    errors = [
        np.max(np.abs(family.evolve(family.initial(sample), times, sample, Implicit(step=step)) - independent))
        for step in (0.02, 0.01)
    ]
    assert errors[0] < 1e-3 * np.max(np.abs(independent))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.1)
    # The independent code takes the same steps as the family: nothing is between them but what the solves leave.
    same = family.evolve(family.initial(sample), times, sample)
    np.testing.assert_allclose(heat_states(family, sample, times), same, rtol=0, atol=1e-9 * np.max(np.abs(same)))


def test_an_independent_integration_is_met_where_kappa_has_corners():
    family = Heat(16, kappa="switching")
    sample = family.sample(seed())
    corners = (np.arange(1, 6) * pi - sample.scalars["kappa_phase"]) * family.period / (2 * pi)
    times = np.sort([*family.times, *corners[(corners > 0) & (corners < family.final_time)]])
    independent = integrated(family, sample, times)[np.isin(times, family.times)]
    states = family.evolve(family.initial(sample), family.times, sample, Implicit(step=0.002))
    # In a step with a corner the integral of kappa is off by the jump of the slope, 10 pi, times h^2 / 8: 1.6e-5 each.
    np.testing.assert_allclose(states, independent, rtol=0, atol=4 * 1.6e-5 * np.max(np.abs(independent)))


def test_a_step_is_an_implicit_euler_step():
    family = Heat(12, walls=(-1.0, 2.0), source_deviation=0.3)
    sample = family.sample(seed())
    start = family.initial(sample)
    system = family.step_system(start, 0.4, 0.1, sample)
    state = system.to_field(np.linalg.solve(system.A.tocsr().toarray(), system.b))
    same = family.evolve(start, [0.0, 0.1], sample, Implicit(IMPLICIT_EULER, 0.1))[1]
    assert state.shape == same.shape == (1, 12, 12)
    assert np.max(np.abs(state - same)) > 1e-4  # another time, another kappa
    system = family.step_system(start, 0.0, 0.1, sample)
    state = system.to_field(np.linalg.solve(system.A.tocsr().toarray(), system.b))
    np.testing.assert_allclose(state, same, atol=1e-8)
    np.testing.assert_array_equal(system.to_field(system.to_vector(state)), state)


@pytest.mark.parametrize("coefficient", ["lognormal", "constant"])
@pytest.mark.parametrize("sides", ["dirichlet", "neumann"])
def test_the_stiffest_steps_are_solved_and_end_in_equilibrium(coefficient, sides):
    """The matrix has entries of 1e9: without walls to fix a level rounding leaves a residual above 1e-10."""
    family = Heat(24, 2, sides, coefficient, diffusivity=1e7, walls=(0.7, 0.7), final_time=0.4, frames=2)
    sample = family.sample(seed())
    states = family.evolve(family.initial(sample), family.times, sample)
    level = 0.7 if sides == "dirichlet" else sample.fields["initial_temperature"].mean()
    np.testing.assert_allclose(states[-1], level, atol=1e-10)


def test_a_batch_is_its_members():
    family = Heat(8, final_time=0.2, frames=3)
    sample = family.sample(seed())
    batch = seed().standard_normal((2, 1, 8, 8))
    states = family.evolve(batch, family.times, sample)
    assert states.shape == (2, 3, 1, 8, 8)
    np.testing.assert_array_equal(states[1], family.evolve(batch[1], family.times, sample))


def test_fields_and_scalars_are_those_declared():
    family = Heat(8, source_deviation=1.0, walls=(0.0, 1.0), sides=("dirichlet", "neumann"))
    sample = family.sample(seed())
    assert set(sample.fields) == {f.name for f in family.role("input")}
    walls = [name for name in sample.scalars if name.startswith("wall")]
    assert walls == ["wall_x_low", "wall_x_high"]
    plain = Heat(8, coefficient="constant", kappa="constant")
    assert [f.name for f in plain.role("input")] == ["initial_temperature"]
    assert plain.sample(seed()).scalars == {}
    assert plain.times[0] == 0
    assert plain.times[-1] == plain.final_time
    assert len(plain.times) == plain.frames


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        (dict(dimension=4), "dimension must be 1, 2 or 3"),
        (dict(grid=1), "grid must be at least 2"),
        (dict(sides="open"), "sides must be one of"),
        (dict(sides=("neumann",)), "sides must be one of"),
        (dict(coefficient="binary"), "coefficient must be lognormal or constant"),
        (dict(kappa="sine"), "kappa must be random or switching or constant"),
        (dict(step=0.0), "step must be positive"),
        (dict(frames=1), "frames must be at least 2"),
        (dict(walls=(1.0, 0.0)), "walls must be the lowest and the highest"),
        (dict(source_deviation=-1.0), "source_deviation must be finite and not negative"),
        (dict(alpha=0.5), "alpha must be more than half the dimension"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(parameters, sentence):
    with pytest.raises(ValueError, match=sentence):
        Heat(**parameters)


def test_samples_and_states_that_do_not_fit_are_refused():
    family = Heat(8, final_time=0.1)
    sample = family.sample(seed())
    start = family.initial(sample)
    with pytest.raises(ValueError, match="evolve needs the sample"):
        family.evolve(start, [0.1])
    with pytest.raises(ValueError, match=r"state must have the shape \(1, 8, 8\)"):
        family.evolve(start[0], [0.1], sample)
    with pytest.raises(ValueError, match="state holds values that are not finite"):
        family.evolve(start * np.nan, [0.1], sample)
    with pytest.raises(ValueError, match="lacks scalar 'kappa_cos_1'"):
        family.evolve(start, [0.1], Sample(sample.fields))
    with pytest.raises(ValueError, match="lacks field 'diffusivity'"):
        family.evolve(start, [0.1], Sample({}, sample.scalars))
    with pytest.raises(ValueError, match="coefficient must be positive"):
        family.evolve(start, [0.1], Sample({"diffusivity": -np.ones((8, 8))}, sample.scalars))
    with pytest.raises(ValueError, match="dt must be positive"):
        family.step_system(start, 0.0, 0.0, sample)
    with pytest.raises(ValueError, match="exact solution for coefficient='constant'"):
        family.exact(sample, [0.1])
    warm = Heat(8, coefficient="constant", walls=(0.0, 1.0))
    with pytest.raises(ValueError, match="exact solution for equal walls only"):
        warm.exact(warm.sample(seed()), [0.1])
