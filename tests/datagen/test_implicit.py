"""The implicit integrators against their stability functions, exact solutions, and solvers of all kinds."""

from dataclasses import fields
from functools import partial
from importlib.resources import files

import numpy as np
import pytest
from omegaconf import OmegaConf

from datagen.evolve.implicit import IMPLICIT_EULER, IMPLICIT_MIDPOINT, SDIRK2, Implicit, StepSolver
from datagen.evolve.work import counted
from datagen.family import LinearSystem
from datagen.pdes.heat import Heat
from datagen.pdes.wave import Wave
from solvers import SequenceSolver, cg, gallery, solve

METHODS = [SDIRK2, IMPLICIT_MIDPOINT, IMPLICIT_EULER]
DIRECT = {"method": "direct"}


def euler_step(matrix, source=lambda t: 0.0):
    """Of ``u' = matrix(t) u + source(t)``; states of shape (1, n)."""

    def step(state, t, d):
        A = np.eye(state.size) - d * matrix(t + d)
        return LinearSystem(A, state[0] + d * source(t + d), lambda x: x[None], np.ravel)

    return step


def one_step(method, z):
    """The stability function R(z), from the method itself."""
    step = euler_step(lambda t: np.array([[z]]))
    return float(Implicit(method, 1.0, DIRECT).integrate(step, np.ones((1, 1)), [1.0])[0][0, 0])


@pytest.mark.parametrize("z", [-1e-2, -1.0, -30.0, 0.4])
def test_stability_functions(z):
    # TR-BDF2 (Bank et al. 1985): a trapezoidal step of length g, then BDF2 over the whole; with g = 2 - sqrt(2) both
    # implicit parts have the same matrix.
    g = 2 - np.sqrt(2)
    middle = (1 + g * z / 2) / (1 - g * z / 2)
    tr_bdf2 = (middle / (g * (2 - g)) - (1 - g) ** 2 / (g * (2 - g))) / (1 - (1 - g) / (2 - g) * z)
    assert one_step(SDIRK2, z) == pytest.approx(tr_bdf2, rel=1e-9)  # the tolerance of the solves
    assert one_step(IMPLICIT_MIDPOINT, z) == pytest.approx((1 + z / 2) / (1 - z / 2), rel=1e-9)
    assert one_step(IMPLICIT_EULER, z) == pytest.approx(1 / (1 - z), rel=1e-9)


def test_what_is_stiff_is_damped_or_not_as_the_docstring_says():
    assert abs(one_step(SDIRK2, -1e8)) < 1e-7
    assert abs(one_step(IMPLICIT_EULER, -1e8)) < 1e-7
    assert one_step(IMPLICIT_MIDPOINT, -1e8) == pytest.approx(-1, abs=1e-7)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_order_where_everything_depends_on_time(method):
    """``u = Q(t) (1, 2)``, Q a rotation by sin t, with damping: ``u' = (cos t J - I/2) u + g`` and a source for g."""

    def exact(t):
        s = np.sin(t)
        return np.array([np.cos(s) - 2 * np.sin(s), np.sin(s) + 2 * np.cos(s)]) + t**3

    J = np.array([[0.0, -1.0], [1.0, 0.0]])

    def matrix(t):
        return np.cos(t) * J - np.eye(2) / 2

    def source(t):
        rotated = exact(t) - t**3
        return np.cos(t) * J @ rotated + 3 * t**2 - matrix(t) @ exact(t)

    errors = []
    for step in (0.05, 0.025):
        states = Implicit(method, step, DIRECT).integrate(euler_step(matrix, source), exact(0.0)[None], [1.0, 2.3])
        errors.append(max(np.max(np.abs(u[0] - exact(t))) for u, t in zip(states, (1.0, 2.3), strict=True)))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(method.order, abs=0.1)


def test_the_midpoint_rule_keeps_what_is_quadratic_and_the_other_methods_do_not():
    step = euler_step(lambda t: (1 + t) * np.array([[0.0, -3.0], [3.0, 0.0]]))
    lengths = [
        np.linalg.norm(
            Implicit(method, 0.1, {"rtol": 1e-14, **DIRECT}).integrate(step, np.array([[0.6, 0.8]]), [2.0])[0]
        )
        for method in METHODS
    ]
    assert lengths[1] == pytest.approx(1, abs=1e-13)
    assert lengths[0] < 0.99
    assert lengths[2] < 0.9


def test_times_are_hit_with_equal_steps_and_one_matrix():
    calls = []

    def step(state, t, d):
        calls.append((t, d))
        return LinearSystem(np.eye(1), state[0], lambda x: x[None], np.ravel)

    times = np.linspace(0, 1, 11)  # whose differences differ by rounding
    integrator = Implicit(IMPLICIT_EULER, 0.034, DIRECT)
    with counted() as work:
        states = integrator.integrate(step, np.ones((1, 1)), times)
    assert len(states) == 11
    assert work.steps == work.solves == len(calls) == 30
    assert len({d for _, d in calls}) == 1
    assert [t + d for t, d in calls[2::3]] == pytest.approx(times[1:], abs=1e-15)
    with counted() as work:
        assert integrator.integrate(step, np.ones((1, 1)), [0.0, 1e-12])[1] == 1
    assert work.steps == 1  # short as it is
    # Intervals of different lengths have their own steps, none longer than what was asked for.
    calls.clear()
    integrator.integrate(step, np.ones((1, 1)), [0.1, 0.11, 0.3])
    assert {round(d, 12) for _, d in calls} == {round(0.1 / 3, 12), 0.01, round(0.19 / 6, 12)}


def test_any_solver_gives_the_same_states_and_is_counted():
    family = Heat(grid=12, final_time=0.4, frames=3, step=0.02)
    sample = family.sample(np.random.default_rng(5))
    solvers = {
        "default": None,
        "keywords": {"method": "cg", "M": "jacobi"},
        "auto": {},
        "callable": partial(cg, rtol=1e-10),
        "raises": partial(solve, rtol=1e-10),
        "stream": SequenceSolver(rtol=1e-10, cost="work"),
    }
    states = {}
    for name, solver in solvers.items():
        with counted() as work:
            states[name] = family.evolve(family.initial(sample), family.times, sample, Implicit(solver=solver))
        assert (work.steps, work.solves) == (20, 40), name
        assert work.evaluations >= 40, name
        # 40 solves, each to 1e-10 of a right-hand side of size 1 on 144 cells
        np.testing.assert_allclose(states[name], states["default"], rtol=0, atol=40 * 1e-10 * 12, err_msg=name)
    # From a spec: whatever it asks for, to a tolerance that leaves nothing of 40 solves; what it asks for is done.
    for arguments in (
        {"method": "auto", "rtol": 1e-3},
        {"method": "direct", "rtol": 1e-8},
        {"method": "cg", "M": "jacobi", "rtol": 1e-8, "maxiter": 300},
    ):
        found = family.evolve(family.initial(sample), family.times, sample, family.solver(arguments))
        np.testing.assert_allclose(found, states["default"], rtol=0, atol=40 * 1e-12 * 12, err_msg=str(arguments))
    with pytest.raises(FloatingPointError, match=r"MAX_ITERATIONS \(cg"):
        family.evolve(family.initial(sample), [0.4], sample, family.solver({"method": "cg", "maxiter": 1}))
    # Handed to the family itself, without an Implicit around it, a solver does the same.
    direct = family.evolve(family.initial(sample), family.times, sample, solvers["keywords"])
    np.testing.assert_array_equal(direct, states["keywords"])


def test_a_solve_starts_from_the_slopes_of_the_last_step():
    """Where the slopes do not change the guess is the solution."""
    iterations = []

    def solver(A, b, x0):
        result = cg(A, b, x0, rtol=1e-10)
        iterations.append(result.iterations)
        return result

    A = gallery.poisson((6, 6)).tocsr().toarray()
    start = np.random.default_rng(3).standard_normal((1, 36))
    drift = np.random.default_rng(4).standard_normal(36)

    def step(state, t, d):  # u' = drift + A (start + drift t - u), solved by u = start + drift t
        b = state[0] + d * (drift + A @ (start[0] + drift * (t + d)))
        return LinearSystem(np.eye(36) + d * A, b, lambda x: x[None], np.ravel)

    states = Implicit(SDIRK2, 0.1, solver).integrate(step, start, [1.0])
    np.testing.assert_allclose(states[0][0], start[0] + drift, atol=1e-8)
    assert min(iterations[:2]) > 0
    assert max(iterations[2:]) <= 1  # rounding may leave one to do


def test_the_default_changes_solver_where_the_bound_of_the_condition_says_so_and_repeats_itself():
    b = np.random.default_rng(8).standard_normal(400)
    laplacian = gallery.poisson((20, 20)).tocsr()
    identity = gallery.poisson((20, 20)).tocsr() * 0
    identity.setdiag(1.0)
    for scale, quick in ((5.0, True), (500.0, False)):  # bounds 1 + 8 scale
        A = (identity + scale * laplacian).tocsr()
        result = StepSolver()(A, b)
        assert result.converged
        assert (result.method == "cg") == quick
        np.testing.assert_allclose(A @ result.x, b, atol=1e-9 * np.linalg.norm(b))
    family = Heat(grid=24, diffusivity=0.5, kappa="switching", final_time=0.4, frames=3)
    sample = family.sample(np.random.default_rng(5))
    first, second = (family.evolve(family.initial(sample), family.times, sample) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_failures_are_named():
    family = Heat(grid=32, diffusivity=1.0, final_time=0.1, frames=2, step=0.02)
    sample = family.sample(np.random.default_rng(5))
    start = family.initial(sample)
    with pytest.raises(FloatingPointError, match=r"in the step of 0\.02 from t = 0 ended as MAX_ITERATIONS"):
        family.evolve(start, [0.1], sample, {"method": "cg", "maxiter": 2})
    with pytest.raises(FloatingPointError, match="ended as MAX_ITERATIONS"):
        family.evolve(start, [0.1], sample, partial(solve, method="cg", maxiter=2))
    with pytest.raises(TypeError, match=r"must return a solvers\.Result, got tuple"):
        family.evolve(start, [0.1], sample, lambda A, b, x0: (b, 0))
    with pytest.raises(TypeError, match="solver must be a mapping"):
        family.evolve(start, [0.1], sample, 3)
    infinite = euler_step(lambda t: -np.eye(1), source=lambda t: np.inf if t > 2.5 else 0.0)
    with pytest.raises(FloatingPointError, match="in the step of 1 from t = 2 ended as NONFINITE_INPUT"):
        Implicit(IMPLICIT_EULER, 1.0, DIRECT).integrate(infinite, np.ones((1, 1)), [5.0])
    overflowing = euler_step(lambda t: np.zeros((1, 1)))
    with pytest.raises(FloatingPointError, match="no longer finite at t = 2"), np.errstate(over="ignore"):
        Implicit(IMPLICIT_MIDPOINT, 1.0, lambda A, b, x0: cg(A, 3 * b)).integrate(
            overflowing, np.full((1, 1), 1e307), [2.0]
        )


@pytest.mark.parametrize("times", [[], [1.0, 1.0], [-1.0], [0.0, np.nan]])
def test_times_must_increase(times):
    with pytest.raises(ValueError, match="times must be numbers that increase"):
        Implicit(SDIRK2, 0.1).integrate(euler_step(lambda t: np.eye(1)), np.ones((1, 1)), times)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="step must be positive and finite"):
        Implicit(step=-1.0)
    with pytest.raises(ValueError, match="give a method and a step"):
        Implicit().integrate(euler_step(lambda t: np.eye(1)), np.ones((1, 1)), [1.0])


@pytest.mark.parametrize("family", [Heat, Wave])
def test_the_configs_hold_the_defaults(family):
    written = OmegaConf.to_container(OmegaConf.load(str(files("configs") / "pde" / f"{family.name}.yaml")))
    assert written.pop("name") == family.name
    assert set(written) == {f.name for f in fields(family)}
    assert family(**written) == family()
