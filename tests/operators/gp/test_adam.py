"""The published algorithm: its algebra against numpy's, its gradient against differences, runs against themselves."""

import numpy as np
import pytest
import scipy.linalg
import torch

from operators.gp import AllenCahn, GaussianMixture, Poisson, StudentMixture
from operators.gp.adam import GridInterpolant, _State, kernel_column, solve_adam
from operators.gp.toeplitz import InverseTimes, inverse, multiply


def wave(points):
    return np.sin(6 * points[:, 0])


def line(nodes=20):
    return Poisson([(0, 1)], lambda x: -36 * wave(x), wave, nodes)


@pytest.mark.parametrize("n", [2, 3, 17])
def test_toeplitz_algebra_is_that_of_dense_matrices(n):
    rng = np.random.default_rng(n)
    column = np.exp(-0.3 * np.arange(n)) + 0.1 * (np.arange(n) == 0)
    dense = scipy.linalg.toeplitz(column)
    inverted, log_determinant = inverse(column)
    np.testing.assert_allclose(inverted @ dense, np.eye(n), atol=1e-13)
    assert log_determinant == pytest.approx(np.linalg.slogdet(dense)[1], abs=1e-12)
    x = rng.standard_normal((n, 3))
    c = rng.standard_normal(n)
    result = multiply(torch.from_numpy(c), torch.from_numpy(x))
    np.testing.assert_allclose(result.numpy(), scipy.linalg.toeplitz(c) @ x, atol=1e-12)
    skew = multiply(torch.from_numpy(c), torch.from_numpy(x), -1)
    np.testing.assert_allclose(skew.numpy(), scipy.linalg.toeplitz(c, np.r_[c[0], -c[1:]]) @ x, atol=1e-12)
    tensors = torch.from_numpy(column).requires_grad_(), torch.from_numpy(x).requires_grad_()
    assert torch.autograd.gradcheck(InverseTimes.apply, tensors)


def test_a_matrix_that_is_not_positive_definite_has_no_inverse():
    assert np.isnan(inverse(np.array([1.0, 2.0, 0.0]))[1])


@pytest.mark.parametrize("order", range(5))
@pytest.mark.parametrize("family", ["gaussian", "student"])
def test_the_trained_kernel_is_the_one_that_predicts(family, order):
    w, ls, mu = np.array([0.3, 1.2]), np.array([0.5, 4.0]), np.array([0.0, 2.0])
    kernel = GaussianMixture(w, mu, np.sqrt(ls)) if family == "gaussian" else StudentMixture(w, mu, ls)
    lags = np.linspace(0, 2, 15)
    mixture = tuple(torch.from_numpy(p) for p in (np.log(w), np.log(ls), mu))
    column = kernel_column(family, torch.from_numpy(lags), mixture, order)
    expected = kernel.derivative(lags, order)
    np.testing.assert_allclose(column.numpy(), expected, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("family", ["gaussian", "student"])
def test_the_gradient_of_the_objective_is_that_of_differences(family):
    problem = AllenCahn([(0, 1), (0, 2)], lambda p: p[:, 0], lambda p: p[:, 1], [7, 9])
    state = _State(problem, family, None, 200.0)
    parameters = state.adam.param_groups[0]["params"]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in parameters:
            p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    gradient = torch.autograd.grad(state.objective(), parameters)
    for p, slope in zip(parameters, gradient, strict=True):
        move = torch.randn(p.shape, generator=generator, dtype=torch.float64)
        values = []
        for side in (1e-5, -1e-5):
            with torch.no_grad():
                p.add_(side * move)
                values.append(float(state.objective()))
                p.sub_(side * move)
        # Differences of values near 1e5 over 2e-5: rounding of 1e-6, and h^2 times third derivatives.
        assert (values[0] - values[1]) / 2e-5 == pytest.approx(float((slope * move).sum()), rel=1e-5, abs=1e-4)


def test_the_objective_is_its_formula_with_dense_matrices():
    problem = line(12)
    state = _State(problem, "gaussian", 5.0, 200.0)
    rng = np.random.default_rng(0)
    with torch.no_grad():
        state.u.copy_(torch.from_numpy(rng.standard_normal(12)))
        state.log_tau.fill_(0.7)
        state.log_v.fill_(-1.0)
    x = problem.axes[0]
    kernel = GaussianMixture(np.full(30, 1 / 30), np.linspace(0, 5, 30), 1.0)
    gram = kernel.matrix(x, x) + 1e-6 * np.eye(12)
    u = state.u.detach().numpy()
    residual = kernel.matrix(x, x, 2) @ np.linalg.solve(gram, u) + 36 * wave(x[:, None])
    misfit = u[[0, -1]] - wave(x[[0, -1], None])
    expected = -0.5 * np.linalg.slogdet(gram)[1] - 0.5 * u @ np.linalg.solve(gram, u)
    expected += 200 * (0.7 - np.exp(0.7) / 2 * misfit @ misfit) - 6.0 - np.exp(-1) / 2 * residual @ residual
    assert float(state.objective().detach()) == pytest.approx(expected, rel=1e-7)  # jitter: condition numbers of 1e7


def test_a_killed_run_goes_on_with_the_same_bits(tmp_path):
    whole = solve_adam(line(), kernel="student", iterations=40)
    told = []

    class Killed(Exception):
        pass

    def kill(step, solution):
        told.append((step, solution.diagnostics.iterations))
        if step == 20:
            raise Killed

    with pytest.raises(Killed):
        solve_adam(line(), kernel="student", iterations=40, checkpoint=tmp_path / "c.pt", callback=kill)
    assert told == [(step, step) for step in range(2, 21, 2)]
    resumed = solve_adam(line(), kernel="student", iterations=40, checkpoint=tmp_path / "c.pt")
    np.testing.assert_array_equal(resumed.u, whole.u)
    assert resumed.diagnostics.history == whole.diagnostics.history
    with pytest.raises(ValueError, match="of another problem"):
        solve_adam(line(21), kernel="student", iterations=40, checkpoint=tmp_path / "c.pt")


def test_adam_improves_the_objective():
    history = solve_adam(line(), iterations=100).diagnostics.history
    assert [entry["step"] for entry in history] == list(range(5, 101, 5))
    assert history[-1]["objective"] > history[0]["objective"]


def test_the_interpolant_in_two_dimensions():
    x, y = np.linspace(0, 1, 9), np.linspace(0, 2, 11)
    values = np.sin(x)[:, None] * y
    factors = [GaussianMixture(1.0, 0.0, 2.0), GaussianMixture(1.0, 0.0, 1.0)]
    process = GridInterpolant(factors, [x, y], values)
    points = np.array([[0.3, 0.7], [0.9, 1.9], [0.5, 1.0]])
    # The jitter smooths: values near 2 are known to 1e-3.
    np.testing.assert_allclose(process.mean(points, (0, 0)), np.sin(points[:, 0]) * points[:, 1], atol=2e-3)
    np.testing.assert_allclose(process.mean(points, (1, 0)), np.cos(points[:, 0]) * points[:, 1], atol=2e-2)
    grid = process.mean_on_grid([points[:, 0], points[:, 1]], (0, 1))
    np.testing.assert_allclose(np.diag(grid), process.mean(points, (0, 1)), atol=1e-12)
    assert process.std(np.array([[x[3], y[4]]]))[0] < 2e-3  # a node: the jitter's root
    assert process.std(points).max() < 1e-2


def test_what_the_published_algorithm_does_not_take_is_refused():
    with pytest.raises(ValueError, match="without observations and unknowns"):
        solve_adam(line(), observations=(np.zeros((1, 1)), np.zeros(1), 0.1))
    with pytest.raises(ValueError, match="kernel must be 'gaussian' or 'student'"):
        solve_adam(line(), kernel=GaussianMixture(1.0))
    with pytest.raises(ValueError, match="iterations must be"):
        solve_adam(line(), iterations=0)
