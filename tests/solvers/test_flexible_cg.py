"""Flexible CG: equal to cg where nothing varies, better where something does."""

import numpy as np
import pytest

from solvers import AMG, Jacobi, Status, cg, flexible_cg, gallery

A = gallery.diffusion(gallery.jumps((30, 30), 100.0))
B = np.random.default_rng(0).standard_normal(900)


@pytest.mark.parametrize("m", [1, 3, 8])
@pytest.mark.parametrize("M", [None, Jacobi()], ids=["plain", "jacobi"])
def test_with_a_constant_preconditioner_it_is_cg(m, M):
    ours, plain = [], []
    flexible_cg(A, B, m=m, M=M, rtol=1e-8, maxiter=20, callback=ours.append)
    cg(A, B, M=M, rtol=1e-8, maxiter=20, callback=plain.append)
    # Notay 2000, section 2; rounding grows with the condition number, here 1e4
    np.testing.assert_allclose(ours, plain, rtol=1e-8, atol=1e-9 * np.abs(plain).max())


def test_hermitian():
    rng = np.random.default_rng(1)
    C = rng.standard_normal((25, 25)) + 1j * rng.standard_normal((25, 25))
    H = C @ C.conj().T + 10 * np.eye(25)
    x = rng.standard_normal(25) + 1j * rng.standard_normal(25)
    result = flexible_cg(H, H @ x, rtol=1e-12)
    assert result.converged
    np.testing.assert_allclose(result.x, x, atol=1e-10)  # cond(H) about 20


def test_directions_are_orthogonal_to_the_last_m():
    rng = np.random.default_rng(2)
    iterates = [np.zeros(900)]

    def varying(r):
        return r * rng.uniform(0.5, 2.0, 900)

    flexible_cg(A, B, m=4, M=varying, rtol=1e-10, maxiter=5, callback=iterates.append)
    steps = np.diff(iterates, axis=0)
    gram = steps @ (A.tocsr() @ steps.T)
    off = gram - np.diag(np.diag(gram))
    assert np.max(np.abs(off) / np.sqrt(np.outer(np.diag(gram), np.diag(gram)))) < 1e-10  # rounding


def test_survives_a_preconditioner_that_varies():
    M = AMG().setup(A)

    def varying():
        rng = np.random.default_rng(3)
        return lambda r: M.matvec(r) * (1.0 + 0.3 * rng.standard_normal(900) * (rng.random() < 0.5))

    flexible = flexible_cg(A, B, M=varying(), rtol=1e-10, maxiter=400)
    fixed = cg(A, B, M=varying(), rtol=1e-10, maxiter=400)
    assert flexible.converged
    assert flexible.iterations * 1.2 < fixed.iterations or not fixed.converged


def test_energy_decreases_with_any_descent_direction():
    rng = np.random.default_rng(4)
    x = rng.standard_normal(900)
    errors = [x @ (A @ x)]

    def random_but_downhill(r):
        z = rng.standard_normal(900)
        return z * np.sign(z @ r)

    flexible_cg(
        A,
        A @ x,
        M=random_but_downhill,
        rtol=1e-8,
        maxiter=50,
        callback=lambda y: errors.append((y - x) @ (A @ (y - x))),
    )
    assert len(errors) == 51
    assert np.all(np.diff(errors) < 0)


def test_signs_are_named():
    assert flexible_cg(-np.eye(4), np.ones(4)).status is Status.INDEFINITE_OPERATOR
    assert flexible_cg(np.eye(4), np.ones(4), M=lambda r: -r).status is Status.INDEFINITE_PRECONDITIONER
    assert flexible_cg(gallery.poisson((30,), boundary="neumann"), B[:30]).status is Status.INCONSISTENT
    for m in (0, 1.5):
        with pytest.raises(ValueError, match="m: expected"):
            flexible_cg(A, B, m=m)
