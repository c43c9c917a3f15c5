"""Gaussian random fields: the formula, the resolution, the boundary."""

import numpy as np
import pytest
from scipy.special import gamma, kv

from datagen.fields import BASES, GaussianRandomField, resolved_modes
from datagen.grids import Grid


def matern(r, alpha, tau, sigma, dimension):
    """Covariance of sigma^2 (-Laplacian + tau^2)^(-alpha) on all of R^d (Lindgren, Rue, Lindstroem 2011)."""
    nu = alpha - dimension / 2
    variance = sigma**2 * gamma(nu) / (gamma(alpha) * (4 * np.pi) ** (dimension / 2) * tau ** (2 * nu))
    scaled = np.maximum(tau * np.asarray(r, dtype=float), 1e-12)
    return variance * 2 ** (1 - nu) / gamma(nu) * scaled**nu * kv(nu, scaled)


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_band_limited_fields_agree_pointwise_at_shared_points(basis, dimension):
    # Cells of an odd refinement: centre i of the coarse grid is centre 3 i + 1 of the fine one.
    lengths = (2.0, 1.0, 0.5)[:dimension]
    field = GaussianRandomField(alpha=2.2, tau=4.0, basis=basis, lengths=lengths, modes=5)
    coarse = field.sample(np.random.default_rng(11), Grid((8,) * dimension, lengths))
    fine = field.sample(np.random.default_rng(11), Grid((24,) * dimension, lengths))
    np.testing.assert_allclose(coarse, fine[(slice(1, None, 3),) * dimension], rtol=0, atol=1e-12 * abs(coarse).max())


@pytest.mark.parametrize("basis", BASES)
def test_every_resolution_shares_the_coefficients_of_its_wavenumbers(basis):
    # Without a band limit: project the fine field on the coarse grid's modes by quadrature; on cells the discrete
    # inner products of the resolved trigonometric modes are exact, so the coarse field must come back.
    grid, finer = Grid((12, 16), (1.0, 1.0)), Grid((36, 48), (1.0, 1.0))
    field = GaussianRandomField(alpha=2.0, tau=3.0, basis=basis)
    modes = [resolved_modes(basis, n, "cell") - (basis == "dirichlet") for n in grid.shape]
    from datagen.fields import _basis_matrix

    def project(values, on):
        for axis, count in enumerate(modes):
            matrix = _basis_matrix(basis, count, on, axis, np.dtype(float))
            values = np.tensordot(values, matrix, axes=(0, 0)) / on.shape[axis]
        return values

    coarse = project(field.sample(np.random.default_rng(3), grid), grid)
    fine = project(field.sample(np.random.default_rng(3), finer), finer)
    np.testing.assert_allclose(coarse, fine, atol=1e-13)


@pytest.mark.parametrize(
    ("basis", "alpha", "shape", "error"),
    # What single precision leaves of the share of the higher modes, rms relative to the field: 6e-8 times 2 to 70 %.
    [("neumann", 2.0, (150, 131), 2e-8), ("dirichlet", 1.05, (150, 131), 5e-7), ("periodic", 3.0, (80, 9, 70), 1e-7)],
)
def test_large_fields_are_the_sum_of_their_modes(basis, alpha, shape, error):
    grid = Grid(shape, (1.0,) * len(shape))
    field = GaussianRandomField(alpha, 3.0, basis=basis, lengths=grid.lengths)
    drawn = field.sample(np.random.default_rng(8), grid)
    modes = [resolved_modes(basis, n, "cell") for n in shape]
    index = np.indices((max(modes),) * len(shape)).reshape(len(shape), -1)
    order = np.lexsort((*index[::-1], index.max(axis=0)))
    expected = np.zeros((max(modes),) * len(shape))
    expected[tuple(index[:, order])] = np.random.default_rng(8).standard_normal(order.size)
    expected = expected[tuple(slice(n) for n in modes)] * np.sqrt(field.eigenvalues(modes))
    for axis, count in enumerate(modes):
        x, j = grid.coordinates(axis)[:, None], np.arange(count)
        if basis == "periodic":
            k = 2 * np.pi * ((j + 1) // 2)
            functions = np.where(j % 2 == 1, np.cos(k * x), np.sin(k * x)) + (j == 0)
        else:
            functions = np.cos(np.pi * j * x) if basis == "neumann" else np.sin(np.pi * (j + 1) * x)
        functions[:, j > 0 if basis != "dirichlet" else j >= 0] *= np.sqrt(2)
        expected = np.tensordot(expected, functions, axes=(0, 1))
    difference = np.sqrt(np.mean((drawn - expected) ** 2)) / expected.std()
    assert 0 < difference < error  # not zero, or they are not summed in single precision
    # As accurate for numbers that single precision cannot hold.
    huge = GaussianRandomField(alpha, 3.0, 1e100, basis=basis, lengths=grid.lengths).sample(
        np.random.default_rng(8), grid
    )
    np.testing.assert_allclose(huge / 1e100, drawn, rtol=0, atol=2 * error * drawn.std() * 10)


@pytest.mark.parametrize(("dimension", "alpha"), [(1, 1.0), (1, 2.0), (2, 2.0), (3, 2.5)])
def test_pointwise_variance_is_the_matern_one_far_from_the_boundary(dimension, alpha):
    # A box many correlation lengths wide; what is left is the boundary's image (e^-tau) and the modes cut off.
    tau, sigma = 25.0, 1.7
    count = {1: 4096, 2: 512, 3: 96}[dimension]
    lengths = (1.0,) * dimension
    field = GaussianRandomField(alpha, tau, sigma, basis="periodic", lengths=lengths)
    variance = field.variance(Grid((count + 1,) * dimension, lengths))
    assert np.ptp(variance) < 1e-12 * variance.max()  # stationary
    tail = {(1, 1.0): 4e-3, (1, 2.0): 1e-6, (2, 2.0): 1e-3, (3, 2.5): 2e-2}[dimension, alpha]
    np.testing.assert_allclose(variance.flat[0], matern(0.0, alpha, tau, sigma, dimension), rtol=tail)


@pytest.mark.parametrize("basis", BASES)
def test_sample_covariance_matches_the_formula(basis):
    # Empirical covariance over draws, against Matern at the centre of a wide box. 4,000 draws: a covariance estimate
    # has standard error at most sqrt(2 / 4000) = 2.2 % of the variance; four of them for 8 lags.
    alpha, tau, draws = 2.0, 20.0, 4000
    grid = Grid((33, 33), (1.0, 1.0))
    field = GaussianRandomField(alpha, tau, basis=basis)
    rng = np.random.default_rng(20261124)
    values = np.stack([field.sample(rng, grid)[16, 12:21] for _ in range(draws)])
    empirical = values[:, 4] @ values / draws
    lags = abs(np.arange(9) - 4) / 33
    expected = matern(lags, alpha, tau, 1.0, 2)
    # 33 points resolve wavenumbers to 16 * 2 pi = 100 = 5 tau: the tail beyond carries 1 / (1 + 25) of the variance.
    np.testing.assert_allclose(empirical, expected, atol=(4 * 0.022 + 1 / 26) * expected[4])


def test_bases_obey_their_boundary_conditions():
    grid = Grid((65,), (1.0,), "node")
    rng = np.random.default_rng(17)
    smooth = dict(alpha=6.0, tau=5.0, lengths=(1.0,), modes=8)
    dirichlet = GaussianRandomField(basis="dirichlet", **smooth).sample(rng, grid)
    assert abs(dirichlet[[0, -1]]).max() < 1e-14 * abs(dirichlet).max() + 1e-18
    neumann = GaussianRandomField(basis="neumann", **smooth).sample(rng, grid)
    inner = abs(np.diff(neumann)).max()
    assert abs(neumann[1] - neumann[0]) < 0.15 * inner  # a zero slope at the end: a half-step times the curvature
    periodic = GaussianRandomField(basis="periodic", **smooth).sample(rng, grid)
    assert periodic[0] == pytest.approx(periodic[-1], abs=1e-12 * abs(periodic).max())


def test_standard_deviation_is_the_one_asked_for_and_does_not_depend_on_the_grid():
    field = GaussianRandomField(2.0, 3.0, zero_mean=True).with_standard_deviation(1.5)
    for n in (64, 128):
        variance = field.variance(Grid((n, n), (1.0, 1.0))).mean()
        # What is missing is the tail beyond the grid's modes, about tau^2-free 1 / (pi n)^2 of 1 / (4 pi tau^2) * ...
        assert np.sqrt(variance) == pytest.approx(1.5, rel=2e-3)


def test_zero_mean_leaves_only_the_constant_out():
    grid = Grid((32, 32), (1.0, 1.0))
    field = GaussianRandomField(2.0, 3.0, zero_mean=True)
    draw = field.sample(np.random.default_rng(9), grid)
    assert abs(draw.mean()) < 1e-14
    whole = GaussianRandomField(2.0, 3.0).sample(np.random.default_rng(9), grid)
    np.testing.assert_allclose(whole - whole.mean(), draw, atol=1e-14)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(alpha=1.0, tau=3.0), "half the dimension"),
        (dict(alpha=2.0, tau=-1.0), "tau"),
        (dict(alpha=2.0, tau=0.0), "zero_mean"),
        (dict(alpha=2.0, tau=3.0, basis="fourier"), "basis"),
        (dict(alpha=2.0, tau=3.0, sigma=0.0), "sigma"),
        (dict(alpha=float("nan"), tau=3.0), "alpha"),
    ],
)
def test_bad_parameters_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        GaussianRandomField(**arguments)
