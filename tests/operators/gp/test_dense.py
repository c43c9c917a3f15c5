"""Scattered observations and unknown coefficients, against regression in weight space and exact solutions."""

import numpy as np
import pytest
import scipy.linalg

from operators.gp import (
    AllenCahn,
    GaussianMixture,
    Observations,
    Poisson,
    Problem,
    Product,
    Reaction,
    StudentMixture,
    laplacian,
    partial,
    solve,
)
from operators.gp.conditioning import DensePosterior, factorise
from operators.gp.dense import solve_dense
from operators.gp.evidence import climb
from operators.gp.functionals import Functionals, at, image, joint_covariance
from operators.gp.knowledge import Knowledge, as_observations

# -- Conditioning ----------------------------------------------------------------------------------------------------


def features(x, period=12.0, count=60, rho=1.2, order=0):
    """A squared exponential kernel on [0, 2] as a Fourier series with random coefficients."""
    s = np.arange(count) / period
    density = np.sqrt(np.pi) / rho * np.exp(-((np.pi * s / rho) ** 2))
    deviation = np.sqrt(density / period * np.where(s == 0, 1, 2)) * (2 * np.pi * s) ** order
    phase = 2 * np.pi * np.outer(x, s) + order * np.pi / 2
    return np.hstack([deviation * np.cos(phase), deviation * np.sin(phase)])


def test_the_posterior_is_that_of_weight_space_regression():
    """With u = sum of w_m b_m and w ~ N(0, I), the same posterior comes from normal equations for w."""
    rng = np.random.default_rng(1)
    x, seen = np.linspace(0, 2, 9), rng.uniform(0, 2, 7)
    rows = np.vstack([features(x, order=2) + x[:, None] * features(x), features(seen)])
    noise = np.concatenate([np.full(9, 0.02), rng.uniform(0.01, 0.1, 7)])
    data = rng.standard_normal(16)
    equation = Functionals(x[:, None], (((2,), np.ones(9)), ((0,), x)))
    kernel = GaussianMixture(1.0, 0.0, 1.2)
    posterior = DensePosterior(kernel, [equation, at(seen[:, None])], data, noise, nugget=1e-15)

    precision = np.eye(rows.shape[1]) + rows.T @ (rows / noise[:, None] ** 2)
    weights = np.linalg.solve(precision, rows.T @ (data / noise**2))
    wanted = np.linspace(0, 2, 13)
    for order in (0, 1, 2):
        mean = posterior.mean(wanted[:, None], (order,))
        # The kernel's precision, 1e-15, times the condition number of the scaled covariance, about 1e4.
        np.testing.assert_allclose(
            mean, features(wanted, order=order) @ weights, rtol=0, atol=1e-8 * np.abs(mean).max()
        )
    variance = np.einsum("ni,ij,nj->n", features(wanted), np.linalg.inv(precision), features(wanted))
    np.testing.assert_allclose(posterior.std(wanted[:, None]), np.sqrt(variance), rtol=1e-7)
    covariance = rows @ rows.T + np.diag(noise**2)
    evidence = -0.5 * (data @ np.linalg.solve(covariance, data) + np.linalg.slogdet(2 * np.pi * covariance)[1])
    assert posterior.log_evidence == pytest.approx(evidence, rel=1e-8)


@pytest.mark.parametrize("kernel", [GaussianMixture(2.0, [0, 1.0], 1.5), StudentMixture(2.0, [0, 0.5], 1.5)])
def test_derivatives_of_the_mean_are_its_differences(kernel):
    rng = np.random.default_rng(0)
    plane = Product(kernel, kernel)
    x = rng.random((30, 2))
    posterior = DensePosterior(plane, [at(x)], np.sin(3 * x[:, 0]) * x[:, 1], np.full(30, 0.01))
    there, h = rng.random((5, 2)), 1e-4
    for axis in (0, 1):
        orders, step = tuple(np.eye(2, dtype=int)[axis]), h * np.eye(2)[axis]
        slope = (posterior.mean(there + step, (0, 0)) - posterior.mean(there - step, (0, 0))) / (2 * h)
        np.testing.assert_allclose(posterior.mean(there, orders), slope, rtol=1e-5, atol=1e-5)
        second = (posterior.mean(there + step, orders) - posterior.mean(there - step, orders)) / (2 * h)
        twice = tuple(2 * order for order in orders)
        # One-sided third derivatives of Matern-5/2 bend the difference by h.
        np.testing.assert_allclose(posterior.mean(there, twice), second, rtol=1e-4, atol=2e-2)


def test_bands_of_draws_from_the_prior_hold_what_they_say():
    """u, f and noise drawn from the model: errors over standard deviations are standard normal."""
    rng = np.random.default_rng(0)
    kernel, problem = GaussianMixture(1.0, [0.0, 1.0], 1.0), Poisson([(0, 2)], 0.0, 0.0, 12)
    inner, wanted, seen = problem.points()[1:-1], np.linspace(0, 2, 41)[:, None], rng.uniform(0, 2, (6, 1))
    groups = [image(problem.operator, inner, {}), at(seen), at(wanted)]
    root = scipy.linalg.cholesky(joint_covariance(kernel, groups) + 1e-9 * np.eye(57), lower=True)
    scores = []
    for _ in range(60):
        draw = root @ rng.standard_normal(57)
        draw[10:16] += 0.1 * rng.standard_normal(6)
        posterior = DensePosterior(kernel, groups[:2], draw[:16], np.r_[np.full(10, 1e-4), np.full(6, 0.1)])
        scores.append((draw[16:] - posterior.mean(wanted, (0,))) / posterior.std(wanted))
    # A draw has about three free numbers (ends, and one between): 180 independent squares, deviation sqrt(2 / 180).
    assert np.mean(np.square(scores)) == pytest.approx(1, abs=4 * np.sqrt(2 / 180))
    assert 0.90 < np.mean(np.abs(scores) < 1.96) < 0.99


def test_the_nugget_is_raised_step_by_step_and_reported():
    singular = np.ones((40, 40))
    factor, nugget, raised = factorise(singular.copy(), np.zeros(40), nugget=1e-19)
    assert raised > 0
    assert nugget == pytest.approx(1e-19 * 10.0**raised)
    np.testing.assert_allclose(factor @ factor.T, singular + nugget * np.eye(40), rtol=0, atol=1e-13)
    with pytest.raises(ValueError, match="not positive definite, even with a nugget"):
        factorise(-np.ones((3, 3)) + 2 * np.eye(3), np.zeros(3))
    with pytest.raises(ValueError, match="not finite"):
        factorise(np.full((3, 3), np.nan), np.zeros(3))


# -- With a problem --------------------------------------------------------------------------------------------------


def wave(points):
    return np.sin(3 * points[:, 0]) * np.cos(2 * points[:, 1]) + 0.3 * (points[:, 0] ** 2 - points[:, 1] ** 2)


def wave_laplacian(points):
    return -13 * np.sin(3 * points[:, 0]) * np.cos(2 * points[:, 1])


def test_observations_stand_in_for_missing_boundary_data():
    """No value on any side: f and 40 noisy readings; and with all sides given, readings are hardly needed."""
    rng = np.random.default_rng(0)
    x, y = rng.random((40, 2)), rng.random((200, 2))
    seen = Observations(x, wave(x) + 0.02 * rng.standard_normal(40), 0.02)
    problem = Problem([(0, 1), (0, 1)], laplacian(2), wave_laplacian, 0.0, 9, faces=[])
    solution = solve(problem, observations=seen)
    error = np.abs(solution(y) - wave(y))
    assert np.sqrt(np.mean(error**2)) < 0.02  # better than a reading
    # About eight free numbers, the harmonic polynomials that the readings see: mean square scores of 1 +- sqrt(2 / 8).
    assert np.mean((error / solution.std(y)) ** 2) < 1 + 4 * np.sqrt(2 / 8)
    assert solution.diagnostics.residual < 1e-3
    given = solve(Poisson([(0, 1), (0, 1)], wave_laplacian, wave, 9), observations=seen)
    assert np.abs(given(y) - wave(y)).max() < 1e-4
    assert given.std(y).max() < 0.1 * solution.std(y).max()


@pytest.mark.parametrize("noise", [0.01, None])
def test_an_unknown_coefficient_is_what_least_squares_finds(noise):
    """D u'' = -sin 3x: u = sin(3x) / 9D + a + b x, of which a smooth prior leaves a, b and 1/D to least squares."""
    x = np.linspace(0, 2, 30)
    readings = np.sin(3 * x) / (9 * 0.25) + 0.01 * np.random.default_rng(3).standard_normal(30)
    columns = np.column_stack([np.sin(3 * x) / 9, np.ones(30), x])
    (inverse, *_), covariance = np.linalg.lstsq(columns, readings)[0], np.linalg.inv(columns.T @ columns)
    expected, spread = 1 / inverse, 0.01 * np.sqrt(covariance[0, 0]) / inverse**2
    operator = partial(2).named("tension")
    problem = Problem(
        [(0, 2)], operator, lambda p: -np.sin(3 * p[:, 0]), 0.0, 16, faces=[], parameters={"tension": 1.0}
    )
    found = solve(problem, observations=(x[:, None], readings, noise), unknowns=["tension"]).unknowns["tension"]
    assert abs(found.value - expected) < 0.3 * spread  # the prior's pull on a and b
    # The noise itself, where it is inferred from 30 readings, is known to one part in sqrt(60), and rounding of widths.
    assert found.std == pytest.approx(spread, rel=0.1 if noise else 0.4)


@pytest.mark.parametrize("dimension", [1, 2])
def test_dense_and_axis_by_axis_find_the_same(dimension):
    """One conditions on nodes, the other on integrals: of a smooth u both leave nothing open."""

    def exact(points):
        return np.exp(points[:, 0]) * np.cos(2 * points[:, -1])

    def source(points):
        x, y = points[:, 0], points[:, -1]
        if dimension == 1:
            return np.exp(x) * (-3 * np.cos(2 * x) - 4 * np.sin(2 * x))
        return -3 * np.exp(x) * np.cos(2 * y)

    problem = Poisson([(0, 1)] * dimension, source, exact, 13)
    axis_by_axis = solve(problem)
    factors = [GaussianMixture(1.0, 0.0, 1.0)] * dimension
    dense = solve_dense(problem, kernel=Product(*factors))
    y = np.random.default_rng(0).random((50, dimension))
    np.testing.assert_allclose(dense(y), axis_by_axis(y), atol=2e-6)  # the nugget, 1e-13, lets errors of its root in
    np.testing.assert_allclose(dense(y), exact(y), atol=2e-6)
    assert dense.std(y).max() < 1e-5


def test_frequencies_that_f_shows_are_in_the_prior():
    """sin 100x: one component an axis reaches 2 %."""

    def fast(points):
        return np.sin(100 * points[:, 0])

    x = np.random.default_rng(0).uniform(0, 2, (10, 1))
    problem = Poisson([(0, 2)], lambda p: -1e4 * fast(p), fast, 120)
    solution = solve_dense(problem, observations=(x, fast(x), 0.01))
    y = np.linspace(0, 2, 100)[:, None]
    assert np.abs(solution(y) - fast(y)).max() < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("guess", [0.05, 2.0])
def test_a_coefficient_of_a_nonlinear_equation_is_found(guess):
    def exact(points):
        return np.sin(4 * points[:, 0])

    bistable = Reaction(lambda u: u - u**3, lambda u: 1 - 3 * u**2)
    operator = laplacian(1).named("diffusivity")
    problem = Problem(
        [(0, 1)],
        operator,
        lambda p: (1 - 16 * 0.5) * exact(p) - exact(p) ** 3,
        0.0,
        12,
        reaction=bistable,
        faces=[],
        parameters={"diffusivity": guess},
    )
    rng = np.random.default_rng(0)
    x = rng.random((20, 1))
    found = solve(problem, observations=(x, exact(x) + 0.02 * rng.standard_normal(20), 0.02), unknowns=["diffusivity"])
    D = found.unknowns["diffusivity"]
    assert abs(D.value - 0.5) < 4 * D.std  # of four draws in ten thousand, none
    assert D.std < 0.05


def test_a_nonlinear_equation_is_linearised_until_its_mean_stays():
    def exact(points):
        return np.sin(4 * points[:, 0])

    problem = AllenCahn([(0, 1)], lambda p: -16 * exact(p) + exact(p) * (exact(p) ** 2 - 1), exact, 16)
    x = np.linspace(0.05, 0.95, 10)[:, None]
    solution = solve_dense(problem, observations=(x, exact(x), 1e-3))
    assert solution.diagnostics.converged
    y = np.linspace(0, 1, 50)[:, None]
    assert np.abs(solution(y) - exact(y)).max() < 1e-6
    assert solution.diagnostics.residual < 1e-4


def test_a_part_of_the_data_keeps_its_kinds():
    rng = np.random.default_rng(0)
    x = rng.random((3000, 2))
    problem = Poisson([(0, 1), (0, 1)], wave_laplacian, wave, [41, 31])
    whole = Knowledge.of(problem, as_observations(problem, (x, wave(x), 0.1)))
    assert len(whole) == 41 * 31 + 3000
    part = whole.thinned(400)
    assert 200 <= len(part) <= 500
    assert min(len(part.inner), len(part.outer), len(part.points)) > 20
    np.testing.assert_array_equal(part.values, wave(part.points))
    np.testing.assert_allclose(part.outer_values, wave(part.outer))
    assert set(part.outer[:, 0]) >= {0.0, 1.0}
    assert whole.thinned(10_000) is whole


def test_a_peak_without_bound_is_said_to_be_unbounded():
    peak = climb(lambda v: -2 * (v[0] - 1) ** 2 + np.tanh(v[1]), np.zeros(2), np.ones(2))
    assert list(peak.bounded) == [True, False]
    assert peak.position[0] == pytest.approx(1, abs=0.02)
    assert peak.covariance[0, 0] == pytest.approx(0.25, rel=0.05)


# -- Bad input -------------------------------------------------------------------------------------------------------

LINE = Poisson([(0, 1)], 0.0, 0.0, 8)
POINTS = np.linspace(0.1, 0.9, 4)[:, None]


@pytest.mark.parametrize(
    ("observations", "words"),
    [
        ((POINTS, np.zeros(3), 0.1), "a value for each of the 4 points"),
        ((POINTS[:, 0], np.zeros(4), 0.1), r"points of shape \(n, 1\)"),
        ((POINTS + 1, np.zeros(4), 0.1), "must lie in the box"),
        ((POINTS, np.full(4, np.nan), 0.1), "finite points and values"),
        ((POINTS, np.zeros(4), 0.0), "standard deviation"),
        ((POINTS, np.zeros(4), -np.ones(4)), "standard deviation"),
        ((POINTS, np.zeros(4)), r"\(points, values, noise\)"),
        ((np.zeros((5001, 1)), np.zeros(5001), 0.1), "at most 5000"),
    ],
)
def test_observations_that_do_not_fit_are_refused(observations, words):
    with pytest.raises(ValueError, match=words):
        solve_dense(LINE, observations=observations)


def test_unknowns_kernels_and_sizes_that_do_not_fit_are_refused():
    named = Problem([(0, 1)], partial(2).named("D"), 1.0, 0.0, 8, parameters={"D": 1.0})
    seen = (POINTS, np.zeros(4), 0.1)
    with pytest.raises(ValueError, match=r"names of the problem's parameters, \['D'\]"):
        solve_dense(named, observations=seen, unknowns=["E"])
    with pytest.raises(ValueError, match="without observations"):
        solve_dense(named, unknowns=["D"])
    fourth = Problem([(0, 1)], partial(4), 1.0, 0.0, 8)
    with pytest.raises(ValueError, match="not smooth enough"):
        solve_dense(fourth, observations=seen, kernel=StudentMixture(1.0))
    with pytest.raises(ValueError, match="of 1 coordinates, and the domain has 2"):
        solve_dense(Poisson([(0, 1), (0, 1)], 0.0, 0.0, 8), kernel=GaussianMixture(1.0))
    with pytest.raises(ValueError, match="together must be at most"):
        solve_dense(Poisson([(0, 1), (0, 1)], 0.0, 0.0, 110), observations=(np.full((1, 2), 0.5), np.zeros(1), 0.1))


# -- Calibration -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_95_percent_bands_hold_the_truth_in_90_to_99_percent():
    """A hundred draws of the noise, kernel parameters chosen anew from each; the truth is no draw from any prior."""
    rng = np.random.default_rng(0)
    x, y = rng.random((60, 2)), rng.random((300, 2))
    problem = Problem([(0, 1), (0, 1)], laplacian(2), wave_laplacian, 0.0, 10, faces=[])
    inside = []
    for seed in range(100):
        readings = wave(x) + 0.05 * np.random.default_rng(seed).standard_normal(60)
        solution = solve(problem, observations=(x, readings, 0.05))
        inside.append(np.mean(np.abs(solution(y) - wave(y)) < 1.96 * solution.std(y)))
    assert 0.90 < np.mean(inside) < 0.99


@pytest.mark.slow
def test_intervals_of_a_coefficient_hold_the_truth():
    x = np.linspace(0, 2, 30)
    operator = partial(2).named("tension")
    problem = Problem(
        [(0, 2)], operator, lambda p: -np.sin(3 * p[:, 0]), 0.0, 16, faces=[], parameters={"tension": 1.0}
    )
    scores = []
    for seed in range(100):
        readings = np.sin(3 * x) / (9 * 0.25) + 0.01 * np.random.default_rng(seed).standard_normal(30)
        found = solve(problem, observations=(x[:, None], readings, 0.01), unknowns=["tension"]).unknowns["tension"]
        scores.append((found.value - 0.25) / found.std)
    # Of 100 independent intervals of 95 %, at least 88 hold the truth with probability 0.998.
    assert 0.88 <= np.mean(np.abs(scores) < 1.96) <= 1.0
    assert np.std(scores) == pytest.approx(1, abs=0.25)
