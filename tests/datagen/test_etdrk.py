"""The spectral engine: phi functions, transforms without aliasing, order, times, refusals."""

from dataclasses import replace

import mpmath
import numpy as np
import pytest

from datagen.evolve import ETDRK4, Fourier
from datagen.evolve.etdrk import phi_functions
from datagen.evolve.work import counted
from datagen.grids import Grid
from datagen.pdes.burgers import Burgers


def test_phi_functions_against_sixty_digits():
    radii = np.array([1e-12, 1e-6, 1e-3, 0.1, 0.5, 0.99, 1.0, 1.01, 2.0, 5.0, 30.0])
    turns = np.exp(1j * np.pi * np.array([0.5, 0.7, 1.0, 1.3, -0.5]))  # the left half plane, with its boundary
    z = np.outer(radii, turns).ravel()
    with mpmath.workdps(60):
        for j, found in enumerate(phi_functions(z), start=1):
            for w, value in zip(z, found, strict=True):
                exact = mpmath.mpc(complex(w))
                phi = mpmath.exp(exact)
                for i in range(j):
                    phi = (phi - 1 / mpmath.factorial(i)) / exact
                # |phi_j| falls like 1/|z|; three divisions and as many subtractions leave a few roundings.
                assert abs(complex(phi) - value) < 1e-15 / max(1, abs(w)), (j, w)


@pytest.mark.parametrize("degree", [2, 3])
@pytest.mark.parametrize(("shape", "lengths"), [((9,), (2.0,)), ((8, 7), (1.0, 3.0)), ((6, 5, 8), (1.0, 2.0, 0.5))])
def test_products_have_no_aliasing(shape, lengths, degree):
    """Against numpy's complex transforms on a grid so fine that nothing can alias."""
    fourier = Fourier(Grid(shape, lengths, "periodic-node"), degree)
    c = fourier.coefficients(np.random.default_rng(8).standard_normal(shape))
    found = fourier.coefficients(fourier.values(c) ** degree)
    fine = tuple(8 * n for n in shape)
    full = np.fft.fftn(fourier.values(c, fine) ** degree) / np.prod(fine)
    axes = [np.r_[0 : h + 1, m - h : m] for h, m in zip(fourier.highest, fine, strict=True)]
    axes[-1] = np.arange(fourier.highest[-1] + 1)
    np.testing.assert_allclose(found, full[np.ix_(*axes)], atol=1e-15 * abs(full).max() * 50)


def test_coefficients_do_not_depend_on_the_grid_and_derivatives_are_exact():
    grid = Grid((16, 12), (2.0, 3.0), "periodic-node")
    fourier = Fourier(grid)

    def field(x, y):
        return np.sin(2 * np.pi * 5 * x / 2) * np.cos(2 * np.pi * 3 * y / 3) + 0.5

    c = fourier.coefficients(field(*grid.points()))
    finer = Grid((45, 32), grid.lengths, "periodic-node")
    np.testing.assert_allclose(fourier.coefficients(field(*finer.points())), c, atol=1e-15)
    np.testing.assert_allclose(fourier.values(c, finer.shape), field(*finer.points()), atol=1e-14)
    x, y = finer.points()
    slope = 2 * np.pi * 5 / 2 * np.cos(2 * np.pi * 5 * x / 2) * np.cos(2 * np.pi * 3 * y / 3)
    np.testing.assert_allclose(fourier.values(fourier.derivative(0) * c, finer.shape), slope, atol=1e-12)
    square = (2 * np.pi * 5 / 2) ** 2 + (2 * np.pi * 3 / 3) ** 2
    np.testing.assert_allclose(
        fourier.values(fourier.laplacian * c, finer.shape), -square * (field(x, y) - 0.5), atol=1e-11
    )


@pytest.mark.parametrize("shape", [(8,), (7, 9), (6, 5, 8)])
def test_hermitian_is_the_projection_on_real_fields(shape):
    fourier = Fourier(Grid(shape, (1.0,) * len(shape), "periodic-node"))
    rng = np.random.default_rng(12)
    c = rng.standard_normal((2, *fourier.modes)) + 1j * rng.standard_normal((2, *fourier.modes))
    expected = fourier.coefficients(fourier.values(c, shape))
    np.testing.assert_allclose(fourier.hermitian(c.copy()), expected, atol=1e-15 * 50)


@pytest.mark.parametrize("rate", [-1.0, -30.0, 2.0, 5j])
def test_fourth_order(rate):
    """v' = r v - v^2 (Bernoulli): v = r / (1 + (r / v_0 - 1) exp(-r t)); stiff, unstable and oscillating."""
    start, errors, steps = 0.7, [], (8, 16, 32, 64) if rate != -30.0 else (64, 128, 256)
    exact = rate / (1 + (rate / start - 1) * np.exp(-rate))
    for count in steps:
        found = ETDRK4(1 / count).integrate(np.array([rate]), lambda v: -(v**2), np.array([start + 0j]), [1.0])
        errors.append(abs(found[0][0] - exact))
    if rate == -30.0:
        # At t = 1 the stiff solution is e^-30: its *relative* error is what the nonlinear part left of its transient.
        errors = [e / abs(exact) for e in errors]
    order = np.log2(errors[-2] / errors[-1])
    # Halving the step a few times still leaves h^5 terms of some per cent.
    assert 3.8 <= order <= 4.3, (order, errors)


def test_linear_equations_are_exact_in_one_step():
    linear = np.array([-1e6, -3.0, 2j])
    found = ETDRK4().integrate(linear, None, np.ones(3, complex), [0.0, 2.0])
    np.testing.assert_allclose(found[0], 1)
    np.testing.assert_allclose(found[1], np.exp(2 * linear), rtol=1e-15)


def test_states_are_at_the_requested_times():
    linear, nonlinear, start = np.array([-0.5]), lambda v: np.cos(v), np.array([1.0])
    solver = ETDRK4(0.01)
    times = [0.0, 0.013, 0.4, 0.77, 1.0]
    together = solver.integrate(linear, nonlinear, start, times)
    for time, state in zip(times, together, strict=True):
        # Each alone, in other steps: they differ by the error of the method, 1e-2^4 and a constant below 1.
        np.testing.assert_allclose(solver.integrate(linear, nonlinear, start, [time])[0], state, atol=1e-9)
    assert together[0] is start


def test_the_step_follows_its_rule():
    seen = []

    def rule(v):
        return 0.1 if v[0] < 2 else 0.01

    def nonlinear(v):
        seen.append(float(v[0]))
        return np.ones_like(v)

    end = ETDRK4().integrate(np.zeros(1), nonlinear, np.zeros(1), [5.0], rule=rule)
    np.testing.assert_allclose(end[0], 5.0, rtol=1e-13)
    # 32 steps of 0.1 (the rule is asked after 16, at 1.6, and after 32, at 3.2), then 180 of 0.01; four stages each.
    assert len(seen) == 4 * (32 + 180)


def test_what_does_not_fit_is_refused():
    linear, start = np.zeros(1), np.ones(1)
    for times in ([], [1.0, 1.0], [-1.0, 1.0], [np.nan], [2.0, 1.0]):
        with pytest.raises(ValueError, match="times must be numbers that increase"):
            ETDRK4(0.1).integrate(linear, np.negative, start, times)
    with pytest.raises(ValueError, match="give a step"):
        ETDRK4().integrate(linear, np.negative, start, [1.0])
    with pytest.raises(ValueError, match="step must be positive"):
        ETDRK4(0.0)
    with pytest.raises(ValueError, match="periodic-node"):
        Fourier(Grid((4,), (1.0,)))
    with pytest.raises(FloatingPointError, match="no longer finite soon after t"):
        ETDRK4(0.1).integrate(linear, lambda v: v**2, start, [3.0])  # v = 1 / (1 - t)


def test_steps_leave_what_they_may_whatever_the_rule_allows():
    """v' = i k v + v - |v|^2 v from a small start: its growth sets in late, and the rule knows nothing of it."""
    linear = np.array([5j])

    def nonlinear(v):
        return 8 * v - 8 * abs(v) ** 2 * v

    def exact(t):
        size = 1 / np.sqrt(1 + (1e6 - 1) * np.exp(-16 * t))
        return size * np.exp(5j * t)

    times = np.linspace(0.25, 2.0, 8)
    found = {}
    for allowed in (1e-3, 1e-6, 1e-9):
        with counted() as work:
            states = ETDRK4().integrate(
                linear,
                nonlinear,
                np.array([1e-3 + 0j]),
                times,
                rule=lambda v: 0.25,
                measure=lambda v, w, allowed=allowed: float(np.max(abs(v - w) / abs(w))) / allowed,
            )
        error = max(abs(state[0] - exact(t)) / abs(exact(t)) for state, t in zip(states, times, strict=True))
        found[allowed] = error, work.evaluations
        # What each of the eight intervals leaves adds up, and growth makes no relative error larger.
        assert error < 8 * allowed
    # By fourth order a thousandth takes 5.6 times the steps.
    assert found[1e-9][1] < 8 * found[1e-6][1]
    without = ETDRK4().integrate(linear, nonlinear, np.array([1e-3 + 0j]), times, rule=lambda v: 0.25)
    assert max(abs(state[0] - exact(t)) for state, t in zip(without, times, strict=True)) > 0.01


def test_a_longest_step_may_be_given():
    family = Burgers(nu=0.1, grid=16, step=0.002)
    start = family.initial(family.sample(np.random.default_rng(3)))
    with counted() as work:
        family.evolve(start, [1.0])
    assert work.steps >= 500
    with counted() as free:
        replace(family, step=None).evolve(start, [1.0])
    assert free.steps < 250
