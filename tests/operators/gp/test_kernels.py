"""Kernels: derivatives against autodiff and finite differences, spectra against quadrature."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from operators.gp.kernels import GaussianMixture, Product, StudentMixture, Sum

GAUSSIAN = GaussianMixture([1.0, 0.3, 0.2], [0.0, 1.5, 4.0], [0.8, 0.5, 2.0])
STUDENT = StudentMixture([1.0, 0.3, 0.2], [0.0, 1.5, 4.0], [0.8, 0.5, 2.0])


def envelope(kernel, z, rho):
    if isinstance(kernel, GaussianMixture):
        return torch.exp(-((rho * z) ** 2))
    s = 5**0.5 * rho * z.abs()
    return (1 + s + s**2 / 3) * torch.exp(-s)


def by_autodiff(kernel, lags, order):
    """The formula of the docstring, differentiated by torch."""
    z = torch.tensor(lags, requires_grad=True)
    value = sum(
        w * envelope(kernel, z, rho) * torch.cos(2 * torch.pi * mu * z)
        for w, mu, rho in zip(kernel.weights, kernel.frequencies, kernel.inverse_lengths, strict=True)
    )
    for _ in range(order):
        (value,) = torch.autograd.grad(value.sum(), z, create_graph=True)
    return value.detach().numpy()


@pytest.mark.parametrize("kernel", [GAUSSIAN, STUDENT], ids=["gaussian", "student"])
@pytest.mark.parametrize("order", range(5))
def test_derivatives_are_those_of_autodiff(kernel, order):
    lags = np.linspace(-2, 2, 40)  # 0 is not among them: torch's derivative of abs is wrong there
    truth = by_autodiff(kernel, lags, order)
    # Fourth derivatives reach 1e5; rounding is relative to the largest.
    np.testing.assert_allclose(kernel.derivative(lags, order), truth, rtol=0, atol=1e-13 * np.abs(truth).max())


@pytest.mark.parametrize("kernel", [GAUSSIAN, STUDENT], ids=["gaussian", "student"])
@pytest.mark.parametrize("order", range(4))
def test_derivatives_at_coincident_points_are_limits_of_differences(kernel, order):
    h = 1e-6
    slope = (kernel.derivative(np.array([h]), order) - kernel.derivative(np.array([-h]), order)) / (2 * h)
    scale = np.abs(kernel.derivative(np.linspace(-1, 1, 101), order + 1)).max()
    # The Student's fifth derivative jumps at 0: the difference is off by h times it, 1e-6 * 10 of the scale.
    assert abs(slope[0] - kernel.derivative(np.zeros(1), order + 1)[0]) < 1e-4 * scale


@pytest.mark.parametrize("kernel", [GAUSSIAN, STUDENT], ids=["gaussian", "student"])
def test_the_spectrum_is_the_fourier_transform_of_the_kernel(kernel):
    for z in (0.0, 0.3, 1.1):
        value = (
            2 * quad(lambda s: float(kernel.spectrum(np.array(s))), 0, 60, weight="cos", wvar=2 * np.pi * z)[0]
            if z
            else (2 * quad(lambda s: float(kernel.spectrum(np.array(s))), 0, 60, limit=400)[0])
        )
        # The Student's tail beyond 60 holds 1e-7 of the variance.
        assert abs(value - kernel.derivative(np.array(z))) < 1e-6
    if np.isfinite(kernel.band):
        assert kernel.spectrum(np.array(kernel.band)) < 1e-30


@pytest.mark.parametrize("orders_x", [(0, 0), (2, 0), (1, 2)])
@pytest.mark.parametrize("orders_y", [(0, 0), (0, 2), (1, 1)])
def test_products_and_sums_have_the_derivatives_of_finite_differences(orders_x, orders_y):
    kernel = Sum(Product(GAUSSIAN, STUDENT), Product(STUDENT, GaussianMixture(2.0, 1.0, 0.3)))
    x, y = np.array([[0.3, -0.2]]), np.array([[0.1, 0.4]])

    def differenced(points, other, orders, inner):
        """Central differences of a function of points, along each axis in turn."""
        for axis in range(2):
            if orders[axis]:
                h, shift = 1e-4, np.eye(2)[axis] * 1e-4
                fewer = tuple(o - (a == axis) for a, o in enumerate(orders))
                up, down = (differenced(points + sign * shift, other, fewer, inner) for sign in (1, -1))
                return (up - down) / (2 * h)
        return inner(points, other)

    # One order by differences (error h^2 times two more derivatives, each about 25), the rest analytic.
    for side in ("x", "y"):
        orders = orders_x if side == "x" else orders_y
        if not any(orders):
            continue
        axis = 0 if orders[0] else 1
        one, fewer = tuple(int(a == axis) for a in range(2)), tuple(o - (a == axis) for a, o in enumerate(orders))
        if side == "x":
            value = differenced(x, y, one, lambda p, q: kernel(p, q, fewer, orders_y))  # noqa: B023
        else:
            value = differenced(y, x, one, lambda p, q: kernel(q, p, orders_x, fewer))  # noqa: B023
        np.testing.assert_allclose(value, kernel(x, y, orders_x, orders_y), rtol=1e-4)


def test_gram_matrices_of_derivatives_are_covariances():
    points = np.random.default_rng(0).uniform(size=(12, 2))
    kernel = Product(GAUSSIAN, STUDENT)
    kinds = [(0, 0), (1, 0), (2, 0), (0, 2)]
    gram = np.block([[kernel(points, points, i, j) for j in kinds] for i in kinds])
    np.testing.assert_allclose(gram, gram.T, rtol=1e-12, atol=1e-9)
    scale = np.sqrt(np.diag(gram))
    assert np.linalg.eigvalsh(gram / np.outer(scale, scale)).min() > -1e-12
    for k, i in enumerate(kinds):
        np.testing.assert_allclose(np.diag(gram)[12 * k : 12 * (k + 1)], kernel.variance(i))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianMixture([-1.0]), "weights are variances"),
        (lambda: GaussianMixture([1.0], [-2.0]), "at least 0"),
        (lambda: StudentMixture([np.nan]), "weights must be finite"),
        (lambda: Product(GAUSSIAN, Product(GAUSSIAN)), "one coordinate"),
        (lambda: Sum(GAUSSIAN, Product(GAUSSIAN, GAUSSIAN)), "same points"),
        (lambda: STUDENT.derivative(np.zeros(2), 5), "to order 4"),
        (lambda: GAUSSIAN(np.zeros(3), np.zeros(3)), r"shape \(n, 1\)"),
        (lambda: GAUSSIAN(np.zeros((3, 1)), np.zeros((3, 1)), (1, 0)), "orders must be 1"),
    ],
)
def test_bad_input_gets_a_sentence(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()
