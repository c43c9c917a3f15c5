"""GMRES-DR: the space it minimises over, the vectors it keeps, what deflation buys."""

import numpy as np
import pytest
from scipy.linalg import eig, subspace_angles

from solvers import Status, gallery, gmres, gmres_dr
from solvers.krylov.gmres_dr import harmonic_ritz_basis

SLOW = np.diag(np.r_[np.arange(1, 11) / 100, np.arange(11, 301)])


def krylov(A, v, count):
    K = v[:, None] / np.linalg.norm(v)
    while K.shape[1] < count:
        K = np.linalg.qr(np.column_stack([K, A @ K[:, -1]]))[0]
    return K


def smallest_residual(A, r, W):
    AW = A @ W
    return np.linalg.norm(r - AW @ np.linalg.lstsq(AW, r, rcond=None)[0])


@pytest.mark.parametrize("kind", ["real", "complex"])
def test_second_cycle_minimises_over_harmonic_ritz_vectors_and_krylov_space(kind):
    """The dense truth: k harmonic Ritz vectors of the first space (Morgan 2002, section 2.2), then Krylov vectors."""
    rng = np.random.default_rng(0)
    n, m, k = 60, 12, 4
    A = np.diag(np.linspace(0.1, 10, n)) + 0.3 * rng.standard_normal((n, n)) / np.sqrt(n)
    if kind == "complex":
        A = A + 0.3j * rng.standard_normal((n, n)) / np.sqrt(n)
    b = rng.standard_normal(n).astype(A.dtype)
    history = gmres_dr(A, b, restart=m, k=k, rtol=1e-14, maxiter=2).history

    K = krylov(A, b, m)
    assert history[m] == pytest.approx(smallest_residual(A, b, K), rel=1e-6)
    values, vectors = eig((A @ K).conj().T @ (A @ K), (A @ K).conj().T @ K)
    order = np.argsort(np.abs(values))
    kept = k
    if (
        kind == "real"
        and np.isclose(values[order[k - 1]], np.conj(values[order[k]]))
        and abs(values[order[k]].imag) > 0
    ):
        kept = k + 1
    Y = K @ vectors[:, order[:kept]]
    if kind == "real":
        Y = np.linalg.svd(np.column_stack([Y.real, Y.imag]), full_matrices=False)[0][:, :kept]
    r = b - A @ K @ np.linalg.lstsq(A @ K, b, rcond=None)[0]
    for j in range(1, m - kept + 1):
        W = np.column_stack([Y, krylov(A, r, j)])
        # two nested QR factorisations of nearly dependent vectors
        assert history[m + j] == pytest.approx(smallest_residual(A, r, W), rel=1e-5)


def test_without_kept_vectors_it_is_gmres():
    A = np.random.default_rng(1).standard_normal((50, 50)) + 9 * np.eye(50)
    b = np.ones(50)
    np.testing.assert_array_equal(
        gmres_dr(A, b, restart=7, k=0, rtol=1e-10).history, gmres(A, b, restart=7, rtol=1e-10).history
    )


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_conjugate_pairs_are_never_split(seed, k):
    H = np.triu(np.random.default_rng(seed).standard_normal((11, 10)), -1)
    P = harmonic_ritz_basis(H, k)
    assert P.dtype == np.float64
    assert P.shape[1] in (k, k + 1)
    # An invariant subspace of the harmonic problem, to rounding: what is real and invariant splits no pair.
    S = np.linalg.solve(H[:-1].T, H.T @ H)
    assert np.max(subspace_angles(P, S @ P)) < 1e-6
    values = np.abs(np.linalg.eigvals(S))
    inside = np.abs(np.linalg.eigvals(np.linalg.lstsq(P, S @ P, rcond=None)[0]))
    np.testing.assert_allclose(np.sort(inside), np.sort(values)[: P.shape[1]], rtol=1e-6)


def test_deflation_outlives_the_restarts():
    deflated = gmres_dr(SLOW, np.ones(300), rtol=1e-8, restart=30, k=10)
    full = gmres(SLOW, np.ones(300), rtol=1e-8, restart=300)
    forgetful = gmres(SLOW, np.ones(300), rtol=1e-8, restart=30, maxiter=30)
    assert deflated.converged
    assert deflated.iterations < 1.3 * full.iterations
    assert not forgetful.converged


def test_cheaper_cycles_after_the_first():
    result = gmres_dr(SLOW, np.ones(300), rtol=1e-13, restart=30, k=10, maxiter=4)
    assert result.iterations == 30 + 3 * 20
    assert result.matvecs <= result.iterations + 4 + 1  # a check after each cycle, and the last


def test_residual_never_grows_and_the_history_is_true():
    A = gallery.helmholtz((15, 15), wavenumber=0.6)
    xs = []
    result = gmres_dr(A, np.ones(225), rtol=1e-9, restart=25, k=7, callback=xs.append)
    assert result.converged
    assert np.all(np.diff(result.history) <= 1e-10 * result.history[0])
    ends = [25 + 18 * i for i in range(len(xs) - 1)]
    true = [np.linalg.norm(np.ones(225) - A @ x) for x in xs[:-1]]
    np.testing.assert_allclose(result.history[ends], true, rtol=1e-6)


def test_right_preconditioning_with_inverse():
    A = np.random.default_rng(2).standard_normal((60, 60)) + 9 * np.eye(60)
    M = np.linalg.inv(np.triu(A))
    result = gmres_dr(A, np.ones(60), M=M, restart=8, k=3, rtol=1e-11)
    assert result.converged
    np.testing.assert_allclose(result.x, np.linalg.solve(A, np.ones(60)), atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_single_precision(dtype):
    A = SLOW.astype(dtype)
    if np.dtype(dtype).kind == "c":
        A += 0.01j * np.eye(300, dtype=dtype)
    result = gmres_dr(A, np.ones(300, dtype=dtype), rtol=1e-3, restart=30, k=10)
    assert result.x.dtype == dtype
    assert result.converged


def test_small_and_singular_systems():
    assert gmres_dr(np.eye(1), np.ones(1)).converged
    assert gmres_dr(np.diag([1.0, 2.0]), np.ones(2)).converged
    for singular in (np.zeros((2, 2)), np.ones((4, 4)), np.diag([0.0, 1.0, 2.0, 3.0])):
        result = gmres_dr(singular, np.arange(1.0, len(singular) + 1), restart=4, k=1)
        assert result.status in (Status.BREAKDOWN, Status.STAGNATED)
        assert np.isfinite(result.x).all()


def test_arguments():
    for arguments in ({"restart": 1}, {"k": -1}, {"restart": 5, "k": 4}, {"k": 1.5}):
        with pytest.raises(ValueError, match="expected a whole number"):
            gmres_dr(np.eye(3), np.ones(3), **arguments)
