"""`solve` on grids: exact solutions, dense formulas, and what it refuses."""

import numpy as np
import pytest

from operators.gp import (
    Advection,
    AllenCahn,
    Diffusion,
    GaussianMixture,
    Helmholtz,
    Poisson,
    Problem,
    Product,
    Reaction,
    ReactionDiffusion,
    StudentMixture,
    laplacian,
    partial,
    solve,
)
from operators.gp.evidence_of_modes import _estimated_log_determinant, log_evidence
from operators.gp.frequencies import choose_kernel
from operators.gp.galerkin import Galerkin
from operators.gp.modes import modes
from operators.gp.modes_posterior import ModesPosterior
from operators.gp.newton import Linearised
from operators.gp.problems import tensor_points


def of_x(function):
    return lambda p: function(p[:, 0])


def of_xy(function):
    return lambda p: function(p[:, 0], p[:, 1])


def error(solution, exact):
    """Relative L2 on points that are no nodes."""
    count = {1: 401, 2: 73, 3: 19}[solution.problem.dimension]
    axes = [np.linspace(lo, hi, count) for lo, hi in solution.problem.domain]
    truth = exact(tensor_points(axes)).reshape([count] * len(axes))
    return np.linalg.norm(solution.on_grid(axes) - truth) / np.linalg.norm(truth)


def product(p):
    return np.sin(9 * p[:, 0]) * np.cos(7 * p[:, 1] + 0.3)


def cube(p):
    return np.sin(4 * p[:, 0]) * np.cos(3 * p[:, 1]) * np.exp(p[:, 2])


BOX = [(0.0, 1.0), (-0.5, 1.0)]
WAVE = of_x(lambda x: np.sin(40 * x) + x)
VARYING = of_xy(lambda x, y: 1.5 + np.sin(9 * x) * np.cos(7 * y))


def varying_source(p):
    """-div(a grad u), a as above, u the product; by hand."""
    x, y = p.T
    a, u = VARYING(p), product(p)
    a_x, a_y = 9 * np.cos(9 * x) * np.cos(7 * y), -7 * np.sin(9 * x) * np.sin(7 * y)
    u_x, u_y = 9 * np.cos(9 * x) * np.cos(7 * y + 0.3), -7 * np.sin(9 * x) * np.sin(7 * y + 0.3)
    return -(a * (-81 - 49) * u + a_x * u_x + a_y * u_y)


CASES = {
    "poisson 1d": (lambda: Poisson([(0, 2)], of_x(lambda x: -1600 * np.sin(40 * x)), WAVE, 60), WAVE),
    "poisson 2d": (lambda: Poisson(BOX, lambda p: -130 * product(p), product, 30), product),
    "poisson 3d": (lambda: Poisson([(0, 1)] * 3, lambda p: -24 * cube(p), cube, 12), cube),
    "helmholtz": (lambda: Helmholtz(BOX, 20.0, lambda p: 270 * product(p), product, 30), product),
    "allen-cahn": (
        lambda: AllenCahn(BOX, lambda p: -130 * product(p) + product(p) ** 3 - product(p), product, 30),
        product,
    ),
    "diffusion": (lambda: Diffusion(BOX, VARYING, varying_source, product, 30), product),
    "mixed derivative": (
        lambda: Problem(
            BOX,
            laplacian(2) + 0.5 * partial(1, 1),
            of_xy(lambda x, y: -(25 + 6) * np.sin(3 * x + 4 * y)),
            of_xy(lambda x, y: np.sin(3 * x + 4 * y)),
            20,
        ),
        of_xy(lambda x, y: np.sin(3 * x + 4 * y)),
    ),
    "advection": (
        lambda: Advection([(0, 1), (0, 1)], -20.0, of_xy(lambda x, t: np.sin(2 * (x + 20 * t))), [20, 40]),
        of_xy(lambda x, t: np.sin(2 * (x + 20 * t))),
    ),
    "heat": (
        lambda: Problem(
            [(0, 1), (0, 1)],
            partial(0, 1) - 0.1 * partial(2, 0),
            0.0,
            of_xy(lambda x, t: np.sin(3 * x) * np.exp(-0.9 * t)),
            20,
            faces=[(0, 0), (0, 1), (1, 0)],
        ),
        of_xy(lambda x, t: np.sin(3 * x) * np.exp(-0.9 * t)),
    ),
    "reaction 1d": (
        lambda: ReactionDiffusion(
            [(0, 1)],
            0.5,
            Reaction(lambda u: -np.exp(u), lambda u: -np.exp(u)),
            of_x(lambda x: -50 * np.sin(10 * x) - np.exp(np.sin(10 * x))),
            of_x(lambda x: np.sin(10 * x)),
            30,
        ),
        of_x(lambda x: np.sin(10 * x)),
    ),
    "layer without a source": (
        lambda: Problem([(0, 1)], 0.05 * partial(2) + partial(1), 0.0, of_x(lambda x: np.exp(-20 * x)), 60),
        of_x(lambda x: np.exp(-20 * x)),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_exact_solutions_are_found_between_the_nodes(name):
    make, exact = CASES[name]
    solution = solve(make())
    # Bands are widened to a residual of 1e-9; a residual bounds the error only up to the inverse's norm.
    assert error(solution, exact) < 1e-8
    assert solution.diagnostics.residual < 1e-6
    assert solution.diagnostics.converged


@pytest.mark.parametrize("name", ["poisson 1d", "allen-cahn", "advection"])
def test_a_student_mixture_does_it_to_fewer_digits(name):
    make, exact = CASES[name]
    assert error(solve(make(), kernel="student"), exact) < 1e-4


def test_zero_and_constant_solutions():
    assert np.all(solve(Poisson([(0, 1)], 0.0, 0.0, 10)).u == 0)
    flat = solve(Poisson(BOX, 0.0, 3.0, 12))
    np.testing.assert_allclose(flat.u, 3.0, rtol=1e-11)
    assert flat.diagnostics.residual < 1e-9


def test_derivatives_and_values_at_the_nodes():
    solution = solve(CASES["poisson 2d"][0]())
    points = solution.problem.points()
    np.testing.assert_allclose(solution.u.ravel(), solution(points), atol=1e-12)
    x, y = points.T
    slope = -63 * np.cos(9 * x) * np.sin(7 * y + 0.3)
    np.testing.assert_allclose(solution.derivative(points, (1, 1)), slope, atol=1e-7)
    with pytest.raises(ValueError, match="must lie in the box"):
        solution(np.array([[2.0, 0.0]]))


def test_the_same_solution_in_other_units():
    """Lengths and values scaled by powers of two: nothing absolute is in the way."""
    length, size = 2.0**-20, 2.0**30
    unit = solve(Poisson([(0, 1)], of_x(lambda x: -400 * np.sin(20 * x)), of_x(lambda x: np.sin(20 * x)), 40))
    scaled = solve(
        Poisson(
            [(0, length)],
            of_x(lambda x: -400 * size / length**2 * np.sin(20 * x / length)),
            of_x(lambda x: size * np.sin(20 * x / length)),
            40,
        )
    )
    np.testing.assert_allclose(scaled.u / size, unit.u, atol=1e-11)


# -- Uncertainty against dense formulas ------------------------------------------------------------------------------


def dense_density(system, posterior):
    """log N(data; 0, J (V + n) J^T) with J written out: boundary data first, then the projected equation."""
    shape = tuple(m.count for m in system.modes)
    columns = []
    for k in range(int(np.prod(shape))):
        unit = np.zeros(shape)
        unit.flat[k] = 1.0
        first, second = system.axes
        boundary = np.tensordot(first.at_ends, unit, (1, 0)).ravel()
        rest = first.free.T @ unit @ second.at_ends.T
        columns.append(np.concatenate([boundary, rest.ravel(), system.apply(unit).ravel()]))
    J = np.array(columns).T
    data = J @ posterior.found.ravel()
    covariance = J @ np.diag((posterior.prior + posterior.relative_noise).ravel()) @ J.T * posterior.variance_scale
    _, logdet = np.linalg.slogdet(covariance)
    return -0.5 * (data @ np.linalg.solve(covariance, data) + logdet + len(data) * np.log(2 * np.pi))


@pytest.mark.parametrize("name", ["poisson", "varying", "advection"])
def test_evidence_is_the_density_of_the_data(name):
    kernel = Product(GaussianMixture(1.0, 0.3, 0.7), GaussianMixture(2.0, 0.2, 0.5))
    problem = {
        "poisson": lambda: Poisson(BOX, -1.0, 0.5, 8),
        "varying": lambda: Diffusion(BOX, of_xy(lambda x, y: 2 + np.sin(3 * x * y)), 1.0, 0.0, 8),
        "advection": lambda: Advection(BOX, 2.0, 0.3, 8),
    }[name]()
    # Few modes: with all of them the covariance written out is singular in double precision.
    some = []
    for factor, (low, high) in zip(kernel.factors, problem.domain, strict=True):
        m = modes(factor, low, high, 8)
        some.append(type(m)(low, high, m.deviations[:6], m.series[:, :6]))
    solution_system = Galerkin(problem, some)
    found = np.random.default_rng(2).normal(size=(6, 6))
    posterior = ModesPosterior(some, found, noise=0.5, amplitude=1.3)
    ours = log_evidence(posterior, solution_system, Linearised(solution_system, None))
    assert ours.method == "exact"
    assert ours.value == pytest.approx(dense_density(solution_system, posterior), rel=1e-8)


def test_the_estimated_determinant_is_within_its_error():
    problem = Diffusion(BOX, of_xy(lambda x, y: 2 + np.sin(3 * x * y)), 1.0, 0.0, 12)
    kernel = Product(GaussianMixture(1.0, 1.0, 2.0), GaussianMixture(1.0, 1.0, 2.0))
    system = Galerkin(problem, [modes(k, *pair, 12) for k, pair in zip(kernel.factors, problem.domain, strict=True)])
    operator = Linearised(system, None)
    columns = [
        operator.near.solve(operator.apply(unit.reshape(system.shape))).ravel() for unit in np.eye(system.unknowns())
    ]
    truth = np.linalg.slogdet(np.array(columns))[1]
    value, standard_error = _estimated_log_determinant(operator, system.shape)
    assert abs(value - truth) < 4 * standard_error
    # Random signs: the variance is that of the entries off the diagonal, and far below the determinant itself.
    assert standard_error < 0.2 * abs(truth)


def test_standard_deviations_are_those_of_the_formula():
    kernel = GaussianMixture(1.0, 1.0, 2.0)
    some = modes(kernel, 0.0, 1.0, 10)
    posterior = ModesPosterior([some], np.ones(some.count), noise=0.2, amplitude=1.0)
    n = 0.2**2 / some.count
    assert posterior.relative_noise == pytest.approx(n)
    x = np.linspace(0, 1, 7)[:, None]
    phi, v = some.at(x[:, 0]), some.deviations**2
    # The coefficients are observed with noise n: the posterior covariance by the dense formula.
    prior = (phi * v) @ phi.T
    cross = phi * v
    truth = np.diag(prior - cross @ np.diag(1 / (v + n)) @ cross.T)
    np.testing.assert_allclose(posterior.std(x) ** 2, truth, rtol=1e-9)


@pytest.mark.parametrize("nodes", [20, 40])
def test_deviations_say_how_large_errors_are_where_u_is_not_smooth(nodes):
    """|x|^3, which no band holds: the root mean square of the deviation is the error's, within a factor of ten."""
    exact = of_x(lambda x: np.abs(x) ** 3)
    solution = solve(Poisson([(-1, 1)], of_x(lambda x: 6 * np.abs(x)), exact, nodes))
    x = np.linspace(-1, 1, 301)[:, None]
    wrong, said = np.sqrt(np.mean((solution(x) - exact(x)) ** 2)), np.sqrt(np.mean(solution.std(x) ** 2))
    assert said / 10 < wrong < 10 * said


# -- What it refuses -------------------------------------------------------------------------------------------------

FAST = of_x(lambda x: np.sin(100 * x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: solve(Poisson([(0, 6)], lambda p: -1e4 * FAST(p), FAST, 120)),
            r"it takes at least 1\d\d \(two a period",
        ),
        (lambda: solve(Poisson([(0, 1)], 0.0, 0.0, 20), kernel=GaussianMixture(1.0, 15.0)), "at least 31 nodes"),
        (lambda: solve(Problem([(0, 1)], partial(4), 0.0, 0.0, 20), kernel="student"), "axis 0"),
        (
            lambda: solve(Problem([(0, 1)], partial(3), 0.0, 0.0, 20, faces=[(0, 0)]), kernel=StudentMixture(1.0)),
            "boundary data are missing",
        ),
        (lambda: solve(Advection(BOX, 1.0, 0.0, 9), kernel=GaussianMixture(1.0)), "1 coordinates"),
        (lambda: solve(Problem([(0, 1)], partial(2), 0.0, 0.0, 20, faces=[(0, 0)])), "boundary data are missing"),
        (lambda: solve(Problem(BOX, partial(1, 0) + partial(0, 1), 0.0, 0.0, 9)), "boundary data are incompatible"),
        (lambda: Poisson([(0, 1)], 0.0, None, 20), "boundary is missing"),
        (lambda: Poisson([(0, 1)], 0.0, {(0, 0): 1.0}, 20), r"missing on the faces \[\(0, 1\)\]"),
        (
            lambda: Poisson(BOX, 0.0, {(0, 0): 0.0, (0, 1): 0.0, (1, 0): 1.0, (1, 1): 0.0}, 20),
            "boundary is incompatible: at",
        ),
        (lambda: solve(Poisson([(0, 1)], of_x(lambda x: 1 / (x - 2 * x + x)), 0.0, 20)), "rhs must be finite"),
        (lambda: solve(Poisson([(0, 1)], lambda p: p, 0.0, 20)), r"returns \(n,\)"),
        (lambda: Poisson([(1, 0)], 0.0, 0.0, 20), "lower first"),
        (lambda: Poisson([(0, 1)], 0.0, 0.0, 3), "at least 4"),
        (lambda: Diffusion([(0, 1)], of_x(lambda x: x - 0.5), 0.0, 0.0, 20), "coefficient must be positive"),
        (lambda: solve(AllenCahn(BOX, 0.0, 0.0, 9), mode="closed_form"), "take mode='newton'"),
        (lambda: solve(Poisson([(0, 1)], 0.0, 0.0, 9), mode="magic"), "mode must be one of"),
        (lambda: solve(Poisson([(0, 1)], 0.0, 0.0, 9), kernel="matern"), "kernel must be"),
        (lambda: solve("poisson"), "must be a Problem"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_bad_input_gets_a_sentence(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_frequencies_are_those_of_the_data_and_nothing_else():
    """Only right-hand side and boundary values are called, and the band is theirs."""
    kernel = choose_kernel(Poisson([(0, 2 * np.pi)], of_x(lambda x: -900 * np.sin(30 * x)), FAST, 200))
    assert 30 / (2 * np.pi) < kernel.factors[0].frequencies.max() < 7
    # No source: all there is are boundary values, along the other axis.
    plane = choose_kernel(Poisson([(0, 2 * np.pi)] * 2, 0.0, of_xy(lambda x, y: np.sin(40 * x) + 0 * y), 120))
    assert plane.factors[0].frequencies.max() > 40 / (2 * np.pi) > 4 * plane.factors[1].frequencies.max()
