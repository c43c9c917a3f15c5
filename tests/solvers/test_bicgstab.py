"""BiCGStab: the published recurrence, breakdowns by name, the best iterate."""

import numpy as np
import pytest
import scipy.sparse.linalg as sla

from solvers import Status, bicgstab, gallery

RNG_MATRIX = np.random.default_rng(0).standard_normal((30, 30)) + 8 * np.eye(30)


@pytest.mark.parametrize("A", [RNG_MATRIX, RNG_MATRIX + 1j * RNG_MATRIX.T], ids=["real", "complex"])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_iterates_are_those_of_scipy(A, preconditioned):
    b = np.random.default_rng(1).standard_normal(30).astype(A.dtype)
    M = np.linalg.inv(np.tril(A)) if preconditioned else None
    ours, theirs = [], []
    bicgstab(A, b, M=M, rtol=1e-12, maxiter=8, callback=ours.append)
    sla.bicgstab(A, b, M=M, rtol=1e-12, maxiter=8, callback=lambda x: theirs.append(x.copy()))
    assert len(ours) > 4
    # the same formulas; rounding grows by about the condition number of 5 in each of 8 steps, and by the inner products
    np.testing.assert_allclose(ours[: len(theirs)], theirs[: len(ours)], rtol=1e-7, atol=1e-9)


def test_history_holds_true_residuals_whatever_the_preconditioner():
    b = np.ones(30)
    xs = []
    result = bicgstab(RNG_MATRIX, b, M=1e6 * np.linalg.inv(np.tril(RNG_MATRIX)), rtol=1e-9, callback=xs.append)
    true = [np.linalg.norm(b - RNG_MATRIX @ x) for x in xs]
    np.testing.assert_allclose(result.history[1:], true, rtol=1e-5, atol=1e-12)


def test_two_products_an_iteration():
    A = gallery.convection_diffusion((20, 20), velocity=[1.0, 2.0])
    result = bicgstab(A, np.ones(400), rtol=1e-8)
    assert result.converged
    assert 2 * result.iterations <= result.matvecs <= 2 * result.iterations + 2


@pytest.mark.parametrize(
    ("A", "b", "name"),
    [
        (np.array([[0.0, 1.0], [-1.0, 0.0]]), [1.0, 0.0], "r0'A p = 0"),  # skew: A p is orthogonal to p
        (np.array([[0.0, 1.0], [1.0, 0.0]]), [1.0, 0.0], "r0'A p = 0"),
        # the second factor vanishes: r0 = e1, A e1 = e1 + e2, s = -e2 and A s = -e3 is orthogonal to s
        (np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]), [1.0, 0.0, 0.0], "omega = 0"),
        (np.zeros((2, 2)), [1.0, 1.0], "r0'A p = 0"),
    ],
)
def test_breakdowns_have_names(A, b, name):
    result = bicgstab(A, np.array(b))
    assert result.status is Status.BREAKDOWN
    assert name in result.reason
    assert np.isfinite(result.x).all()
    assert result.residual_norm <= np.linalg.norm(b)


def test_rho_breakdown_has_its_name():
    """In whole numbers: alpha = -1/2, s = (0, -1, 1), omega = -1, r_1 = (0, 0, 1), orthogonal to r_0 = e_1."""
    A = np.array([[-2.0, -2, -2], [-2, -2, -1], [2, -2, -2]])
    result = bicgstab(A, np.array([1.0, 0.0, 0.0]))
    assert result.status is Status.BREAKDOWN
    assert "rho = 0" in result.reason


def test_a_breakdown_on_the_way_down_begins_anew():
    """Two blocks: the first as above, the second converges at once and takes the residual down by half."""
    A = np.zeros((4, 4))
    A[:3, :3] = [[-2.0, -2, -2], [-2, -2, -1], [2, -2, -2]]
    A[3, 3] = -2.0
    result = bicgstab(A, np.array([1.0, 0.0, 0.0, 8.0]), rtol=1e-10)
    assert result.converged


def test_random_matrices_end_honestly():
    for seed in range(40):
        A = np.random.default_rng(seed).standard_normal((15, 15))
        result = bicgstab(A, np.ones(15), rtol=1e-8, maxiter=200)
        residual = np.linalg.norm(np.ones(15) - A @ result.x)
        assert residual <= np.sqrt(15) * (1 + 1e-12)
        assert result.converged == (residual <= 1e-8 * np.sqrt(15))


def test_failure_returns_the_best_iterate():
    A = gallery.convection_diffusion((25, 25), velocity=[8.0, 3.0])
    b = np.random.default_rng(3).standard_normal(625)
    for maxiter in range(3, 25):
        result = bicgstab(A, b, rtol=1e-14, maxiter=maxiter)
        assert result.residual_norm <= np.min(result.history[:-1]) * (1 + 1e-8)
