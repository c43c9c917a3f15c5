"""Direct solution: exactness, refinement, reuse, singular matrices."""

import numpy as np
import pytest
import scipy.linalg as sla
import scipy.sparse as sp

from solvers import Factorisation, Status, cg, direct, gallery


def forms(A):
    return [A, A.toarray()]


@pytest.mark.parametrize("form", [0, 1], ids=["sparse", "dense"])
@pytest.mark.parametrize(
    "A",
    [
        gallery.poisson((9, 11)).tocsr(),
        gallery.helmholtz((9, 11), wavenumber=1.3).tocsr(),
        gallery.convection_diffusion((9, 11), velocity=[3.0, -1.0]).tocsr(),
        sp.csr_array(sla.hilbert(5) + 1j * np.triu(np.ones((5, 5)))),
    ],
    ids=["definite", "indefinite", "nonsymmetric", "complex"],
)
def test_solution_has_a_residual_near_rounding(A, form):
    x = np.random.default_rng(0).standard_normal(A.shape[0])
    result = direct(forms(A)[form], A @ x, rtol=1e-14)
    assert result.converged
    # condition numbers below 1e4
    np.testing.assert_allclose(result.x, x, atol=1e-9)


def test_choice_of_the_dense_factorisation():
    H = gallery.poisson((6,)).tocsr().toarray()
    assert direct(H, np.ones(6)).reason == "dense Cholesky"
    indefinite = np.array([[1.0, 2.0], [2.0, 1.0]])  # symmetric with a positive diagonal, eigenvalues 3 and -1
    result = direct(indefinite, np.ones(2))
    assert result.reason == "dense LU"
    np.testing.assert_allclose(result.x, 1 / 3)


def test_hilbert_matrix_is_refined_to_a_small_residual():
    H = sla.hilbert(10)  # condition number 1.6e13
    b = H @ np.ones(10)
    result = direct(H, b, rtol=1e-16, maxiter=20)
    # eps ||H|| ||x|| is 6e-16
    assert np.linalg.norm(b - H @ result.x) < 2e-15


def test_float32_factors_are_refined_in_their_own_precision():
    A = gallery.poisson((20, 20)).tocsr().astype(np.float32)
    b = A @ np.ones(400, dtype=np.float32)
    result = direct(A, b, rtol=1e-6)
    assert result.x.dtype == np.float32
    assert result.converged


@pytest.mark.parametrize("form", [0, 1], ids=["sparse", "dense"])
@pytest.mark.parametrize(
    ("A", "b"),
    [
        (np.zeros((2, 2)), np.ones(2)),
        (np.ones((3, 3)), np.array([1.0, 2.0, 3.0])),
        (np.array([[0.0, 1.0], [0.0, 0.0]]), np.ones(2)),
        (gallery.poisson((6, 6), boundary="neumann").tocsr().toarray(), np.arange(36.0)),
    ],
)
def test_singular_matrices_end_in_a_status(A, b, form):
    result = direct([sp.csr_array(A), A][form], b)
    assert result.status in (Status.BREAKDOWN, Status.STAGNATED)
    assert "singular" in result.reason
    assert np.isfinite(result.x).all()
    assert result.residual_norm <= np.linalg.norm(b)


def test_matrices_singular_by_structure_end_in_a_status():
    """SuperLU crashes on some of these ("failed to factorize matrix", BLAS messages), so it must not see them."""
    rng = np.random.default_rng(7)
    for _ in range(30):
        A = sp.csr_array(sp.random_array((200, 200), density=0.015, rng=rng))
        result = direct(A, np.ones(200))
        assert result.status is Status.BREAKDOWN
        assert not result.x.any()


def test_indefinite_zero_diagonal_needs_pivoting():
    A = sp.csr_array(np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 2.0], [0.0, 2.0, 1e-14]]))
    x = np.array([1.0, 2.0, 3.0])
    result = direct(A, A @ x, rtol=1e-12)
    assert result.converged


def test_tiny_pivot_of_an_indefinite_matrix_is_not_divided_by():
    """Without pivoting the first solve of this one loses x[0] altogether, and refinement has to find it."""
    for n in (1, 5):
        A = sp.csr_array(np.kron(np.eye(n), np.array([[1e-20, 1.0], [1.0, 1e-20]])))
        result = direct(A, np.ones(2 * n), rtol=1e-14)
        assert result.iterations == 1
        np.testing.assert_allclose(result.x, 1.0)


def test_factorisation_is_reused():
    A = gallery.convection_diffusion((8, 9), velocity=[1.0, 2.0])
    factors = Factorisation().setup(A)
    X = np.random.default_rng(1).standard_normal((72, 3))
    np.testing.assert_allclose(factors.solve(A @ X), X, atol=1e-12)  # condition number about 50
    np.testing.assert_allclose(factors.solve(A @ X[:, 0]), X[:, 0], atol=1e-12)
    factors.setup(2.0 * A.tocsr())
    np.testing.assert_allclose(factors.solve(A @ X), X / 2, atol=1e-12)
    assert "sparse LU" in str(factors)
    assert 0 < factors.pivot_ratio <= 1


def test_factorisation_is_the_exact_preconditioner():
    A = gallery.diffusion(gallery.jumps((10, 10), 100.0))
    result = cg(A, np.ones(100), M=Factorisation(), rtol=1e-10)
    assert result.iterations == 1
    nearby = gallery.diffusion(gallery.jumps((10, 10), 110.0))
    assert cg(nearby, np.ones(100), M=Factorisation().setup(A), rtol=1e-8).iterations < 10


def test_singular_factorisation_says_so():
    factors = Factorisation().setup(np.zeros((3, 3)))
    assert factors.singular
    assert factors.pivot_ratio == 0.0
    assert np.isnan(factors.solve(np.ones(3))).all()
    assert "singular" in str(factors)
