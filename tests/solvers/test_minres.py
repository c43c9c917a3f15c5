"""MINRES: optimality, the true residual, singular systems."""

import numpy as np
import pytest
import scipy.sparse.linalg as sla

from solvers import AMG, Jacobi, Status, gallery, minres


def indefinite(n, seed, condition=30.0, dtype=float):
    rng = np.random.default_rng(seed)
    C = rng.standard_normal((n, n)) + (1j * rng.standard_normal((n, n)) if dtype is complex else 0.0)
    Q, _ = np.linalg.qr(C)
    eigenvalues = np.geomspace(1.0, condition, n) * np.where(np.arange(n) % 3 == 0, -1.0, 1.0)
    H = (Q * eigenvalues) @ Q.conj().T
    return (H + H.conj().T) / 2


@pytest.mark.parametrize("dtype", [float, complex])
def test_residuals_are_the_smallest_over_the_krylov_space(dtype):
    H = indefinite(30, 0, dtype=dtype)
    b = np.random.default_rng(1).standard_normal(30)
    history = minres(H, b, rtol=1e-12).history
    K = b[:, None] / np.linalg.norm(b)
    for k in range(1, 12):
        HK = H @ K
        smallest = np.linalg.norm(b - HK @ np.linalg.lstsq(HK, b, rcond=None)[0])
        assert history[k] == pytest.approx(smallest, rel=1e-8)  # cond(H) = 30
        K = np.linalg.qr(np.column_stack([K, HK[:, -1]]))[0]


def test_preconditioned_residuals_are_the_smallest_in_the_norm_of_M():
    """With M = L L', MINRES on A with M is plain MINRES on L' A L: the iterates are L times its iterates."""
    H = indefinite(25, 2)
    L = np.tril(np.random.default_rng(3).standard_normal((25, 25))) + 6 * np.eye(25)
    b = np.random.default_rng(4).standard_normal(25)
    ours, plain = [], []
    result = minres(H, b, M=L @ L.T, rtol=1e-10, maxiter=15, callback=ours.append)
    minres(L.T @ H @ L, L.T @ b, rtol=1e-10, maxiter=15, callback=plain.append)
    np.testing.assert_allclose(ours, [L @ y for y in plain], rtol=1e-6, atol=1e-9)
    # what the history holds is the 2-norm of the residual of A x = b, not the norm that is minimised
    true = [np.linalg.norm(b - H @ x) for x in ours]
    np.testing.assert_allclose(result.history[1:], true, rtol=1e-8)


@pytest.mark.parametrize("build", [None, Jacobi, AMG])
def test_true_residual_meets_the_tolerance_where_scipys_does_not(build):
    A = gallery.diffusion(gallery.jumps((30, 30), 1e4))
    b = np.random.default_rng(5).standard_normal(900)
    M = None if build is None else build().setup(A)
    x, info = sla.minres(A.tocsr(), b, M=None if M is None else sla.aslinearoperator(M), rtol=1e-8)
    assert info == 0  # scipy 1.17 says done at a residual that is measured against ||A|| ||x||, in another norm ...
    assert np.linalg.norm(b - A @ x) > 1e-8 * np.linalg.norm(b)
    result = minres(A, b, M=M, rtol=1e-8)
    assert result.converged
    assert np.linalg.norm(b - A @ result.x) <= 1e-8 * np.linalg.norm(b)


def test_two_iterations_for_two_eigenvalues():
    Q, _ = np.linalg.qr(np.random.default_rng(6).standard_normal((40, 40)))
    H = Q * np.repeat([-2.0, 3.0], 20) @ Q.T
    result = minres(H, np.ones(40), rtol=1e-10)
    assert result.converged
    assert result.iterations == 2


def test_positive_definite_preconditioner_of_another_operator():
    """Helmholtz below the tenth eigenvalue, with multigrid for the Laplacian: iterations independent of the grid."""
    counts = []
    for n in (20, 40, 80):
        k = 7.0 / (n + 1)  # k^2 = 49 on the unit square: one eigenvalue, 2 pi^2, lies below
        H = gallery.helmholtz((n, n), wavenumber=k)
        M = AMG().setup(gallery.poisson((n, n)))
        result = minres(H, np.ones(n * n), M=M, rtol=1e-8)
        assert result.converged
        counts.append(result.iterations)
    assert counts[-1] <= counts[0] + 3


@pytest.mark.parametrize("shape", [(50,), (20, 20)])
def test_inconsistent_system_ends_at_a_least_squares_solution(shape):
    A = gallery.poisson(shape, boundary="neumann")
    b = np.random.default_rng(7).standard_normal(A.shape[0])
    least = abs(b.sum()) / np.sqrt(b.size)  # the part of b along the constants
    result = minres(A, b, rtol=1e-8)
    assert result.status is Status.INCONSISTENT
    # || A'r || is at sqrt(eps), so the residual is least to first order in that: to eps
    assert result.residual_norm == pytest.approx(least, rel=1e-6)
    assert np.abs(result.x).max() < 1e4
    assert minres(A, b - b.mean(), rtol=1e-8).converged


@pytest.mark.parametrize("diagonal", [[1.0, 0.0, 0.0], [1.0, 2.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
def test_small_singular_systems(diagonal):
    result = minres(np.diag(diagonal), np.ones(3), rtol=1e-8)
    assert result.status is Status.INCONSISTENT
    assert np.abs(result.x).max() < 10
    assert result.residual_norm == pytest.approx(np.sqrt(diagonal.count(0.0)), rel=1e-6)


def test_bad_conditioning_is_not_taken_for_singularity():
    for condition in (1e6, 1e9):
        H = indefinite(40, 8, condition)
        result = minres(H, H @ np.ones(40), rtol=1e-9, maxiter=10_000)
        assert result.converged


def test_indefinite_preconditioner_is_named():
    H = indefinite(20, 9)
    for M in (-np.eye(20), np.diag([1.0] * 19 + [-50.0]), np.zeros((20, 20))):
        result = minres(H, np.ones(20), M=M)
        assert result.status is Status.INDEFINITE_PRECONDITIONER
        assert np.isfinite(result.x).all()


def test_nonsymmetric_operator_is_named():
    A = gallery.convection_diffusion((12, 12), velocity=[5.0, 2.0])
    result = minres(A, np.ones(144), rtol=1e-10)
    assert not result.converged
    assert "not symmetric" in result.reason
