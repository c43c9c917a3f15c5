"""Modes against the kernels they come from, and Kronecker sums against dense matrices."""

import numpy as np
import pytest

from operators.gp.kernels import GaussianMixture, StudentMixture
from operators.gp.kronecker import KroneckerSum, along_all
from operators.gp.modes import differentiate_series, gauss_legendre, harmonic_features, legendre, modes

GAUSSIAN = GaussianMixture([1.0, 0.5], [0.0, 3.0], [1.0, 2.0])
STUDENT = StudentMixture([1.0, 0.5], [0.0, 3.0], [1.0, 2.0])
LOW, HIGH = -1.0, 2.0
X = np.linspace(LOW, HIGH, 31)


@pytest.mark.parametrize(("i", "j"), [(0, 0), (1, 0), (2, 2)])
def test_features_and_modes_have_the_covariances_of_the_kernel(i, j):
    truth = GAUSSIAN.matrix(X, X, i, j)
    features = harmonic_features(GAUSSIAN, LOW, HIGH)
    scale = np.abs(truth).max()
    np.testing.assert_allclose(features.at(X, i) @ features.at(X, j).T, truth, rtol=0, atol=1e-13 * scale)
    found = modes(GAUSSIAN, LOW, HIGH, 40)
    series = (found.at(X, i) * found.deviations**2) @ found.at(X, j).T
    # A derivative costs a polynomial of degree 120 up to four digits at the ends.
    np.testing.assert_allclose(series, truth, rtol=0, atol=1e-12 * 1e2 ** (i + j) * scale)


@pytest.mark.parametrize("kernel", [GAUSSIAN, STUDENT], ids=["gaussian", "student"])
def test_modes_are_orthonormal_with_exact_derivatives(kernel):
    found = modes(kernel, LOW, HIGH, 60)
    np.testing.assert_allclose(found.test.T @ found.values, np.eye(found.count), rtol=0, atol=1e-12)
    by_rule = found.test.T @ found.at(found.rule[0], 1)
    np.testing.assert_allclose(found.galerkin(1), by_rule, rtol=0, atol=1e-11 * np.abs(by_rule).max())
    assert np.all(np.diff(found.deviations) <= 0)


def test_a_student_mixture_is_nearly_its_modes():
    found = modes(STUDENT, LOW, HIGH, 100)
    # What polynomials of degree 100 miss of a kernel whose fifth derivative jumps.
    np.testing.assert_allclose(
        (found.at(X) * found.deviations**2) @ found.at(X).T, STUDENT.matrix(X, X), rtol=0, atol=2e-5
    )


def test_rules_are_exact_to_rounding_where_numpys_are_not():
    points, weights = gauss_legendre(200, -1, 1)
    values = legendre(points, 199)
    np.testing.assert_allclose((weights[:, None] * values).T @ values, np.eye(199), rtol=0, atol=3e-14)
    series = np.random.default_rng(0).normal(size=(12, 2))
    by_numpy = [np.polynomial.legendre.legder(c) for c in (series * np.sqrt(np.arange(12) + 0.5)[:, None]).T]
    ours = differentiate_series(series)[:-1] * np.sqrt(np.arange(11) + 0.5)[:, None]
    np.testing.assert_allclose(ours, np.array(by_numpy).T, rtol=1e-12, atol=1e-12)


def test_a_kernel_of_too_many_harmonics_is_refused():
    with pytest.raises(ValueError, match="inverse_lengths of their own"):
        harmonic_features(GaussianMixture([1.0, 1.0], [0.0, 1e4], 1e-3), 0, 1)


@pytest.mark.parametrize("shape", [(7,), (5, 6), (3, 4, 5)])
@pytest.mark.parametrize("kind", ["symmetric", "general", "defective"])
def test_kronecker_sums_are_inverted_as_dense_matrices(shape, kind):
    rng = np.random.default_rng(1)
    factors = [rng.normal(size=(n, n)) for n in shape]
    if kind == "symmetric":
        factors = [f + f.T for f in factors]
    if kind == "defective":  # Jordan blocks have one eigenvector: only triangular forms can do it
        factors = [np.eye(n) + np.triu(np.ones((n, n)), 1) for n in shape]
    dense = 0.3 * np.eye(int(np.prod(shape)))
    for axis in range(len(shape)):
        term = np.eye(1)
        for other, n in enumerate(shape):
            term = np.kron(term, factors[axis] if other == axis else np.eye(n))
        dense += term
    ours, right = KroneckerSum(factors, 0.3), rng.normal(size=shape)
    assert ours.triangular == (kind == "defective")
    condition = np.linalg.cond(dense)
    for found, matrix in ((ours.solve(right), dense), (ours.solve_transposed(right), dense.T)):
        truth = np.linalg.solve(matrix, right.ravel())
        assert np.linalg.norm(found.ravel() - truth) < 1e-14 * condition * np.linalg.norm(truth)
    assert ours.log_determinant() == pytest.approx(np.linalg.slogdet(dense)[1], abs=1e-11)
    identity = [np.eye(n) for n in shape]
    np.testing.assert_array_equal(along_all(identity, right), right)
