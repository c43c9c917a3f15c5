"""GMRES: optimality, restarts, breakdown."""

import numpy as np
import pytest
import scipy.sparse.linalg as sla

from solvers import AMG, Status, gallery, gmres

RNG_MATRIX = np.random.default_rng(0).standard_normal((30, 30)) + 8 * np.eye(30)


@pytest.mark.parametrize("A", [RNG_MATRIX, RNG_MATRIX + 1j * RNG_MATRIX.T], ids=["real", "complex"])
def test_residuals_are_the_smallest_over_the_krylov_space(A):
    b = np.random.default_rng(1).standard_normal(30)
    history = gmres(A, b, rtol=1e-13, restart=30).history
    K = b[:, None] / np.linalg.norm(b)
    for k in range(1, 12):
        # Orthonormal Krylov basis by QR: the powers themselves are too nearly dependent.
        AK = A @ K
        y = np.linalg.lstsq(AK, b, rcond=None)[0]
        smallest = np.linalg.norm(b - AK @ y)
        assert history[k] == pytest.approx(smallest, rel=1e-8)  # cond(A) about 5
        K = np.linalg.qr(np.column_stack([K, AK[:, -1]]))[0]


def test_residual_never_grows():
    for seed in range(5):
        A = np.random.default_rng(seed).standard_normal((40, 40))
        history = gmres(A, np.ones(40), rtol=1e-10, restart=7, maxiter=20).history
        # the last entry of a cycle is an estimate, the next cycle begins from the truth: rounding
        assert np.all(np.diff(history) <= 1e-12 * history[0])


def test_cycles_are_those_of_scipy():
    b = np.random.default_rng(2).standard_normal(30)
    A = np.random.default_rng(3).standard_normal((30, 30)) + 5 * np.eye(30)
    ours, theirs = [], []
    gmres(A, b, rtol=1e-12, restart=4, maxiter=5, callback=lambda x: ours.append(x))
    sla.gmres(A, b, rtol=1e-12, restart=4, maxiter=5, callback=lambda x: theirs.append(x.copy()), callback_type="x")
    assert len(ours) == 5  # a callback and a unit of maxiter for each cycle, as in scipy
    np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-10)


def test_complex_with_right_preconditioner():
    rng = np.random.default_rng(4)
    A = rng.standard_normal((25, 25)) + 1j * rng.standard_normal((25, 25)) + 12 * np.eye(25)
    x = rng.standard_normal(25) + 1j * rng.standard_normal(25)
    M = np.linalg.inv(A + 0.1 * rng.standard_normal((25, 25)))
    result = gmres(A, A @ x, M=M, rtol=1e-12)
    assert result.converged
    np.testing.assert_allclose(result.x, x, atol=1e-10)  # cond(A) about 10
    # right preconditioning: the history holds true residuals, whatever the size of M
    scaled = gmres(A, A @ x, M=1e-6 * M, rtol=1e-12)
    np.testing.assert_allclose(scaled.history[:-1], result.history[:-1], rtol=1e-6)


def test_exact_preconditioner_needs_one_iteration():
    result = gmres(RNG_MATRIX, np.ones(30), M=np.linalg.inv(RNG_MATRIX), rtol=1e-10)
    assert result.iterations == 1


def test_amg_serves_convection_diffusion():
    A = gallery.convection_diffusion((60, 60), velocity=[0.5, 0.3])
    plain = gmres(A, np.ones(3600), rtol=1e-8)
    with_amg = gmres(A, np.ones(3600), rtol=1e-8, M=AMG())
    assert with_amg.converged
    assert with_amg.iterations * 5 < plain.iterations


@pytest.mark.parametrize(
    ("A", "b", "statuses"),
    [
        (np.zeros((2, 2)), np.ones(2), [Status.BREAKDOWN]),
        (np.array([[0.0, 1.0], [0.0, 0.0]]), np.ones(2), [Status.BREAKDOWN]),
        (np.ones((4, 4)), np.arange(4.0), [Status.BREAKDOWN]),
        # here a vanishing product is one rounding, not zero
        (np.diag([1.0, 1.0, 0.0])[[1, 0, 2]], np.array([1.0, 0.0, 1.0]), [Status.BREAKDOWN, Status.STAGNATED]),
    ],
)
def test_singular_matrix_ends_without_success(A, b, statuses):
    result = gmres(A, b, rtol=1e-10)
    assert result.status in statuses
    assert np.isfinite(result.x).all()
    assert result.residual_norm <= np.linalg.norm(b)


def test_rotation_stagnates_unless_the_cycle_is_long_enough():
    """The cyclic shift gains nothing until the last of n steps (Brown, SIAM J. Sci. Stat. Comput. 12, 1991)."""
    shift = np.roll(np.eye(12), 1, axis=0)
    b = np.eye(12)[0]
    stuck = gmres(shift, b, restart=11)
    assert stuck.status is Status.STAGNATED
    assert "larger restart" in stuck.reason
    assert gmres(shift, b, restart=12).iterations == 12


def test_lucky_breakdown_is_a_success():
    result = gmres(np.diag([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 1.0, 0.0, 0.0]), rtol=1e-14)
    assert result.converged
    assert result.iterations == 2


def test_restart_must_be_a_positive_whole_number():
    for restart in (0, -3, 2.5):
        with pytest.raises(ValueError, match="restart"):
            gmres(np.eye(2), np.ones(2), restart=restart)


def test_float32_ends_honestly():
    A = gallery.poisson((20, 20)).tocsr().astype(np.float32)
    result = gmres(A, np.ones(400, dtype=np.float32), rtol=1e-9, restart=50)
    assert result.x.dtype == np.float32
    assert result.status is Status.STAGNATED
    assert gmres(A, np.ones(400, dtype=np.float32), rtol=1e-4, restart=50).converged
