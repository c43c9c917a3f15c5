"""Conjugate gradients: what theory says of it, and the known defects of other codes."""

import itertools

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as sla

from solvers import AMG, Status, cg, gallery, preconditioners


def spd(n, seed, condition=1e3):
    """Symmetric positive definite with eigenvalues spread over 1 to `condition`."""
    Q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))
    H = Q * np.geomspace(1.0, condition, n) @ Q.T
    return (H + H.T) / 2


def test_energy_of_the_error_decreases_monotonically():
    H = spd(60, 0)
    x = np.random.default_rng(1).standard_normal(60)
    energies = [x @ H @ x]
    cg(H, H @ x, rtol=1e-8, callback=lambda y: energies.append((y - x) @ H @ (y - x)))
    # Hestenes and Stiefel 1952, theorem 6:3; at most rounding of the energy itself above zero
    assert len(energies) > 20
    assert all(b < a for a, b in itertools.pairwise(energies))


def test_iterates_are_those_of_scipy():
    H = spd(40, 2, condition=50.0)
    b = np.random.default_rng(3).standard_normal(40)
    ours, theirs = [], []
    cg(H, b, rtol=1e-10, maxiter=15, callback=lambda x: ours.append(x))
    sla.cg(H, b, rtol=1e-10, maxiter=15, callback=lambda x: theirs.append(x.copy()))
    # The same recurrence; rounding grows by about the condition number in 15 steps.
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_as_many_iterations_as_distinct_eigenvalues():
    Q, _ = np.linalg.qr(np.random.default_rng(4).standard_normal((50, 50)))
    H = Q * np.repeat([1.0, 2.0, 5.0, 7.0, 20.0], 10) @ Q.T
    result = cg(H, np.ones(50), rtol=1e-11)
    assert result.converged
    assert result.iterations == 5


def test_convergence_is_as_fast_as_the_chebyshev_bound():
    H = spd(200, 5, condition=400.0)
    x = np.random.default_rng(6).standard_normal(200)
    errors = [np.sqrt(x @ H @ x)]
    cg(H, H @ x, rtol=1e-6, callback=lambda y: errors.append(np.sqrt((y - x) @ H @ (y - x))))
    rate = (np.sqrt(400.0) - 1) / (np.sqrt(400.0) + 1)
    for k, error in enumerate(errors):
        assert error <= 2 * rate**k * errors[0] * (1 + 1e-6)  # Saad 2003, (6.128); 1e-6 for rounding


def test_exact_preconditioner_needs_one_iteration():
    H = spd(30, 7)
    result = cg(H, np.ones(30), M=np.linalg.inv(H), rtol=1e-8)
    assert result.converged
    assert result.iterations == 1


def test_preconditioner_leaves_the_solution_unchanged():
    A = gallery.diffusion(gallery.jumps((20, 20), 1e3))
    b = np.random.default_rng(8).standard_normal(400)
    exact = sla.spsolve(A.tocsr().tocsc(), b)
    for M in (None, "jacobi", "amg"):
        result = cg(A, b, M=None if M is None else preconditioners.build(M), rtol=1e-12)
        # ||error|| <= ||residual|| / smallest eigenvalue (about 0.04, the coefficient is at least 1)
        np.testing.assert_allclose(result.x, exact, rtol=0, atol=1e-12 * np.linalg.norm(b) / 0.02)


def test_hermitian_positive_definite():
    rng = np.random.default_rng(9)
    C = rng.standard_normal((25, 25)) + 1j * rng.standard_normal((25, 25))
    H = C @ C.conj().T + 10 * np.eye(25)
    x = rng.standard_normal(25) + 1j * rng.standard_normal(25)
    result = cg(H, H @ x, rtol=1e-12)
    assert result.converged
    np.testing.assert_allclose(result.x, x, atol=1e-10)  # cond(H) is about 20


# -- Signs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("A", "b"),
    [
        (np.diag([1.0, -1.0]), np.ones(2)),  # NaN with info 20 in scipy 1.17
        (np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([1.0, 0.0])),  # the same
        (-np.eye(3), np.ones(3)),
        (np.diag([6.0, -5, 2, 7, -1, 10, 4, -3, -8, 9]), np.arange(10.0)),
    ],
)
def test_indefinite_operator_is_named(A, b):
    result = cg(A, b, rtol=1e-10)
    assert result.status is Status.INDEFINITE_OPERATOR
    assert result.info < 0
    assert np.isfinite(result.x).all()
    assert np.linalg.norm(b - A @ result.x) <= np.linalg.norm(b)


def test_indefinite_preconditioner_is_named():
    result = cg(spd(10, 10), np.ones(10), M=np.diag([1.0] * 9 + [-100.0]))
    assert result.status is Status.INDEFINITE_PRECONDITIONER
    assert np.isfinite(result.x).all()


def test_nonsymmetric_operator_is_named_and_never_a_success():
    for seed in range(20):
        A = np.random.default_rng(seed).standard_normal((12, 12))
        result = cg(A, np.ones(12), rtol=1e-10)
        if result.converged:
            assert np.linalg.norm(np.ones(12) - A @ result.x) <= 1e-10 * np.sqrt(12)
        else:
            assert result.status is Status.INDEFINITE_OPERATOR
            assert "not symmetric" in result.reason
    A = gallery.convection_diffusion((10, 10), velocity=[5.0, 1.0])
    for form in (A, A.tocsr(), A.matvec):
        result = cg(form, np.ones(100), rtol=1e-10)
        assert not result.converged
        assert "not symmetric" in result.reason


def test_conditioning_beyond_rounding_is_no_reason_to_give_up():
    """A curvature below eps times the largest is doubtful, but a step that lowers the residual is taken."""
    result = cg(np.diag([1.0, 2.0**-60]), np.ones(2), rtol=1e-10)  # powers of two: no rounding in the way
    assert result.converged
    np.testing.assert_allclose(result.x, [1.0, 2.0**60])


# -- The truth about the residual -------------------------------------------------------------------------------------


def test_float32_residual_of_the_recurrence_is_not_believed():
    A = gallery.poisson((100, 100)).tocsr().astype(np.float32)
    b = np.ones(10_000, dtype=np.float32)
    x, info = sla.cg(A, b, rtol=1e-7)
    theirs = np.linalg.norm(b - A.astype(float) @ x.astype(float)) / 100
    assert info == 0  # scipy says done ...
    assert theirs > 1e-4  # ... and is not
    result = cg(A, b, rtol=1e-7)
    assert result.status is Status.STAGNATED
    assert result.x.dtype == np.float32
    assert np.linalg.norm(b - A.astype(float) @ result.x.astype(float)) / 100 < theirs
    assert cg(A, b, rtol=1e-3).converged


def test_restart_from_the_true_residual_gains_digits():
    """The recurrence of a first round in float32 ends two digits short; a second round from the truth finds them."""
    A = gallery.poisson((30, 30)).tocsr().astype(np.float32)
    b = A @ np.ones(900, dtype=np.float32)
    result = cg(A, b, rtol=3e-6)
    residual = np.linalg.norm(b.astype(float) - A.astype(float) @ result.x.astype(float))
    assert result.converged
    # float32 products: the residual itself is known to eps |A| |x| sqrt(n), about 3e-5
    assert residual <= 3e-6 * np.linalg.norm(b) + 3e-5


def test_tolerance_of_zero_ends_in_stagnation_near_rounding():
    H = spd(30, 11)
    result = cg(H, np.ones(30), rtol=0.0)
    assert result.status is Status.STAGNATED
    # eps ||A|| ||x|| is about 2e-13 here
    assert result.residual_norm < 1e-11
    assert result.iterations < 300


def test_failure_returns_the_best_iterate():
    """With jumps in the coefficient the residual goes up and down; what is returned is the lowest."""
    A = gallery.diffusion(gallery.jumps((20, 20), 1e4))
    b = np.ones(400)
    inner = 0
    for maxiter in range(5, 100):
        result = cg(A, b, rtol=1e-12, maxiter=maxiter)
        assert result.status is Status.MAX_ITERATIONS
        # the history holds the residuals of the recurrence, which are still the true ones here
        assert result.residual_norm == pytest.approx(np.min(result.history), rel=1e-6)
        # the last entry is that of the x that is returned: had it been the last iterate, it would not be there before
        inner += bool(np.argmin(result.history) not in (0, maxiter))
    assert inner > 10


def test_warm_start_is_measured_against_b():
    """A tolerance relative to the first residual would make a good first guess worthless."""
    A = gallery.poisson((30, 30))
    b = np.ones(900)
    x = cg(A, b, rtol=1e-9).x
    assert cg(A, b, x0=x, rtol=1e-8).iterations == 0
    assert cg(A, b, x0=x * (1 + 1e-4), rtol=1e-8).iterations < cg(A, b, rtol=1e-8).iterations


# -- Singular systems -------------------------------------------------------------------------------------------------


def test_singular_without_a_null_space_is_named():
    A = gallery.poisson((50,), boundary="neumann")
    b = np.random.default_rng(14).standard_normal(50)
    x, _ = sla.cg(A.tocsr(), b)
    assert not np.linalg.norm(x) < 1e10  # scipy 1.17 runs away
    result = cg(A, b)
    assert result.status is Status.INCONSISTENT
    assert "null_space" in result.reason
    assert result.residual_norm <= np.linalg.norm(b)
    zero = cg(np.zeros((1, 1)), np.ones(1))
    assert zero.status is Status.INCONSISTENT
    np.testing.assert_array_equal(zero.x, 0.0)


@pytest.mark.parametrize("M", [None, AMG("ruge_stuben"), AMG("smoothed_aggregation")], ids=["plain", "rs", "sa"])
def test_many_right_hand_sides_share_one_setup(M):
    A = gallery.poisson((12, 12))
    result = cg(A, np.random.default_rng(15).standard_normal((144, 4)), M=M, rtol=1e-8)
    assert result.converged
    assert result.method == ("cg" if M is None else "cg + AMG")


def test_sparse_matrix_with_int64_indices():
    A = gallery.poisson((10,)).tocsr()
    A.indices, A.indptr = A.indices.astype(np.int64), A.indptr.astype(np.int64)
    assert cg(sp.csr_array(A), np.ones(10)).converged
