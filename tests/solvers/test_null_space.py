"""Singular systems: minimum-norm and least-squares solutions against the pseudo-inverse."""

import numpy as np
import pytest

from solvers import (
    AMG,
    Factorisation,
    Jacobi,
    RecycleSpace,
    Status,
    cg,
    deflated_cg,
    direct,
    gallery,
    gcrodr,
    gmres,
    solve,
)
from solvers.system import System

A = gallery.diffusion(gallery.jumps((9, 8), 5.0), boundary="neumann")
PINV = np.linalg.pinv(A.tocsr().toarray(), rcond=1e-10)
B = np.random.default_rng(0).standard_normal(72)
METHODS = {
    "cg": cg,
    "cg + Jacobi": lambda *a, **k: cg(*a, M=Jacobi(), **k),
    "cg + AMG": lambda *a, **k: cg(*a, M=AMG(), **k),
    "gmres": lambda *a, **k: gmres(*a, restart=72, **k),
    "gmres + AMG": lambda *a, **k: gmres(*a, M=AMG(), **k),
    "gcrodr": lambda *a, **k: gcrodr(*a, restart=20, k=6, recycle=RecycleSpace(np.eye(72, 6)), **k),
    "gcrodr + Jacobi": lambda *a, **k: gcrodr(*a, M=Jacobi(), restart=20, k=6, **k),
    "deflated_cg": lambda *a, **k: deflated_cg(*a, deflation=np.column_stack([np.ones(72), np.eye(72, 4)]), **k),
    "direct": direct,
    "direct, dense": lambda A, *a, **k: direct(A.tocsr().toarray(), *a, **k),
    "solve": lambda *a, **k: solve(*a, throw=False, **k),
}
# ||error|| <= ||residual|| / smallest nonzero eigenvalue, which is above 0.1; rtol 1e-11 and ||b|| about 8
CLOSE = {"rtol": 0, "atol": 1e-8}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("x0", [None, np.linspace(5.0, 7.0, 72)], ids=["from zero", "from a guess with a mean"])
def test_consistent_ends_at_the_minimum_norm_solution(name, x0):
    b = B - B.mean()
    result = METHODS[name](A, b, x0=x0, rtol=1e-11, null_space="constant")
    assert result.converged
    np.testing.assert_allclose(result.x, PINV @ b, **CLOSE)
    assert abs(result.x.sum()) < 1e-10  # 72 roundings of numbers of size 10


@pytest.mark.parametrize("name", METHODS)
def test_inconsistent_ends_at_the_least_squares_solution_of_smallest_norm(name):
    b = B + 0.3
    result = METHODS[name](A, b, rtol=1e-11, null_space="constant")
    assert result.status is Status.INCONSISTENT
    assert not result.converged
    assert result.info < 0
    np.testing.assert_allclose(result.x, PINV @ b, **CLOSE)
    # the smallest residual that any x has
    assert result.residual_norm == pytest.approx(abs(b.sum()) / np.sqrt(72), rel=1e-10)


@pytest.mark.parametrize("method", [cg, gmres, direct])
def test_first_guess_that_solves_loses_its_part_in_the_null_space(method):
    b = B - B.mean()
    result = method(A, b, x0=PINV @ b + 3.0, rtol=1e-9, null_space="constant")
    assert result.iterations == 0
    np.testing.assert_allclose(result.x, PINV @ b, **CLOSE)


@pytest.mark.parametrize("method", [cg, gmres, direct])
def test_threshold_of_inconsistency_is_the_tolerance(method):
    b = B - B.mean()
    part = np.ones(72) / np.sqrt(72) * np.linalg.norm(b)
    assert method(A, b + 0.9e-6 * part, rtol=1e-6, null_space="constant").status is Status.CONVERGED
    assert method(A, b + 1.1e-6 * part, rtol=1e-6, null_space="constant").status is Status.INCONSISTENT
    assert method(A, 5 * part, null_space="constant").status is Status.INCONSISTENT  # all of b is out of range


@pytest.mark.parametrize("method", [cg, gmres, direct])
def test_null_space_of_several_columns(method):
    """Two grids that do not touch: one constant for each, given in a basis that is not orthogonal."""
    two = np.zeros((40, 40))
    two[:20, :20] = gallery.poisson((20,), boundary="neumann").tocsr().toarray()
    two[20:, 20:] = gallery.poisson((4, 5), boundary="periodic").tocsr().toarray()
    basis = np.zeros((40, 2))
    basis[:, 0] = 3.0
    basis[:20, 1] = -1.0
    b = np.random.default_rng(2).standard_normal(40)
    result = method(two, b, rtol=1e-11, null_space=basis)
    assert result.status is Status.INCONSISTENT
    # smallest nonzero eigenvalue 0.025
    np.testing.assert_allclose(result.x, np.linalg.pinv(two, rcond=1e-10) @ b, rtol=0, atol=1e-7)


@pytest.mark.parametrize("method", [cg, gmres, direct])
def test_hermitian_with_a_complex_null_space(method):
    rng = np.random.default_rng(3)
    q = rng.standard_normal(15) + 1j * rng.standard_normal(15)
    q /= np.linalg.norm(q)
    P = np.eye(15) - np.outer(q, q.conj())
    C = rng.standard_normal((15, 15)) + 1j * rng.standard_normal((15, 15))
    H = P @ (C @ C.conj().T + np.eye(15)) @ P
    H = (H + H.conj().T) / 2
    b = P @ (rng.standard_normal(15) + 1j * rng.standard_normal(15))
    result = method(H, b, rtol=1e-10, null_space=q)
    assert result.converged
    np.testing.assert_allclose(result.x, np.linalg.pinv(H, rcond=1e-10) @ b, atol=1e-8)  # cond < 100


def test_periodic_transport_is_nonsymmetric_with_a_shared_null_space():
    """Upwind transport on a ring plus diffusion: constants are in the null spaces of A and of A'."""
    n = 30
    ring = 3.0 * np.eye(n) - 2.0 * np.roll(np.eye(n), -1, axis=1) - np.roll(np.eye(n), 1, axis=1)
    b = np.random.default_rng(4).standard_normal(n)
    for method in (gmres, direct):
        result = method(
            ring, b - b.mean(), rtol=1e-11, null_space="constant", **({"restart": n} if method is gmres else {})
        )
        assert result.converged
        np.testing.assert_allclose(result.x, np.linalg.pinv(ring, rcond=1e-10) @ (b - b.mean()), atol=1e-8)


def test_what_is_no_null_space_is_refused():
    with pytest.raises(ValueError, match="does not annihilate"):
        cg(gallery.poisson((9, 8)), B, null_space="constant")
    with pytest.raises(ValueError, match="does not annihilate"):
        cg(A.matvec, B, null_space=np.arange(72.0))
    with pytest.raises(ValueError, match="dependent"):
        cg(A, B, null_space=np.ones((72, 2)))
    with pytest.raises(ValueError, match="zero"):
        cg(A, B, null_space=np.zeros(72))
    with pytest.raises(ValueError, match="NaN"):
        cg(A, B, null_space=np.full(72, np.nan))
    scaled = np.diag(np.linspace(1, 2, 72)) @ A.tocsr().toarray()  # annihilates constants from the right only
    with pytest.raises(ValueError, match="A' does not"):
        gmres(scaled, B, null_space="constant")


def test_basis_is_orthonormal():
    Q = System(A).null_space_basis(np.full(72, 1e-200))
    np.testing.assert_allclose(Q.T @ Q, 1.0, rtol=1e-14)


def test_auto_sees_the_constants_by_itself():
    result = solve(A, B - B.mean(), rtol=1e-11)
    np.testing.assert_allclose(result.x, PINV @ B, **CLOSE)
    assert "annihilates the constants" in result.reason


def test_factors_are_reused_with_a_null_space():
    factors = Factorisation("constant").setup(A)
    np.testing.assert_allclose(factors.solve(B), PINV @ B, **CLOSE)
    np.testing.assert_allclose(factors.solve(np.stack([B, 2 * B], 1)), PINV @ np.stack([B, 2 * B], 1), **CLOSE)
