"""Singular systems that fall apart: whatever b is, the status is the truth and x the best there is."""

import numpy as np
import pytest
import scipy.sparse as sp

from solvers import Status, StencilOperator, gallery, solve
from solvers.pieces import floating_pieces, null_vectors

RTOL = 1e-8


def neumann(n):
    return gallery.poisson((n, n), boundary="neumann").tocsr()


def scaled_neumann():
    """Singular, but constants are not what it annihilates."""
    D = sp.diags_array(np.exp(np.random.default_rng(3).normal(size=400)))
    return D @ neumann(20) @ D


SINGULAR = {
    "two domains": lambda: sp.block_diag([neumann(20), neumann(31)]),
    "two domains, one held": lambda: sp.block_diag([neumann(20), gallery.poisson((31, 31)).tocsr()]),
    "a row of zeros": lambda: sp.block_diag([gallery.poisson((31, 31)).tocsr(), sp.csr_array((1, 1))]),
    "all of it": lambda: sp.block_diag([sp.csr_array((2, 2)), neumann(9), neumann(12), sp.csr_array((1, 1))]),
    "a scaled domain": scaled_neumann,
}


@pytest.mark.parametrize("name", SINGULAR)
@pytest.mark.parametrize("columns", [None, 3])
def test_consistent_systems_are_solved_and_others_called_inconsistent(name, columns):
    A = sp.csr_array(SINGULAR[name]())
    rng = np.random.default_rng(0)
    shape = (A.shape[0],) if columns is None else (A.shape[0], columns)
    b = A @ rng.normal(size=shape)
    result = solve(A, b, rtol=RTOL)
    # 1.001: the norm here and the solver's differ by rounding
    assert np.all(np.linalg.norm(b - A @ result.x, axis=0) <= 1.001 * RTOL * np.linalg.norm(b, axis=0))

    b = rng.normal(size=shape)
    result = solve(A, b, rtol=RTOL, throw=False)
    assert result.status is Status.INCONSISTENT
    dense = A.toarray()
    best = np.linalg.lstsq(dense, b, rcond=1e-10)[0]
    smallest = np.linalg.norm(b - dense @ best, axis=0)
    residual = np.linalg.norm(b - dense @ result.x, axis=0)
    np.testing.assert_allclose(residual, smallest, rtol=1e-6)  # squares of what is above the least are 1e-12 of it
    np.testing.assert_allclose(result.residual_norms, residual, rtol=1e-6)
    np.testing.assert_allclose(result.residual_norm, residual.max(), rtol=1e-6)


def test_only_the_columns_that_need_it_are_inconsistent():
    A = sp.csr_array(sp.block_diag([gallery.poisson((12, 12)).tocsr(), sp.csr_array((1, 1))]))
    b = np.ones((145, 2))
    b[-1, 0] = 0.0
    result = solve(A, b, rtol=RTOL, throw=False)
    assert result.statuses == (Status.CONVERGED, Status.INCONSISTENT)
    assert result.x[-1].tolist() == [0.0, 0.0]


def test_cells_cut_off_by_obstacles():
    mask = np.random.default_rng(1).random((40, 40)) < 0.55  # many cells without a neighbour
    links = {(-1, 0): (1, 0), (0, -1): (0, 1)}
    offsets, coefficients = [(0, 0)], [np.zeros(mask.shape)]
    for offset in [*links, *links.values()]:
        joined = mask & np.roll(mask, tuple(-step for step in offset), axis=(0, 1))
        axis = 0 if offset[0] else 1
        edge = [slice(None), slice(None)]
        edge[axis] = 0 if sum(offset) < 0 else -1
        joined[tuple(edge)] = False
        offsets.append(offset)
        coefficients.append(-joined.astype(float))
        coefficients[0] += joined
    A = StencilOperator(offsets, coefficients, mask.shape, 1.0, boundary="neumann", mask=mask)
    assert len(floating_pieces(A.tocsr())) > 64  # with all, no dense array of null vectors is made
    b = A @ np.random.default_rng(2).normal(size=A.shape[0])
    result = solve(A, b, rtol=RTOL)
    assert np.linalg.norm(b - A @ result.x) <= 1.001 * RTOL * np.linalg.norm(b)


def test_a_first_guess_is_taken_and_kept():
    A = sp.csr_array(SINGULAR["all of it"]())
    b = A @ np.random.default_rng(0).normal(size=A.shape[0])
    x0 = np.full(A.shape[0], 7.0)
    result = solve(A, b, x0=x0, rtol=RTOL)
    assert np.linalg.norm(b - A @ result.x) <= 1.001 * RTOL * np.linalg.norm(b)
    assert np.all(x0 == 7.0)


def test_pieces_that_are_held_do_not_float():
    held, free = gallery.poisson((5,)).tocsr(), neumann(3)
    assert floating_pieces(held) == []
    (piece,) = floating_pieces(sp.csr_array(sp.block_diag([held, free, held])))
    assert piece.tolist() == list(range(5, 14))


def test_null_vectors_are_those_of_the_eigendecomposition():
    Q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(60, 60)))
    for zeros in (0, 1, 3):
        eigenvalues = np.concatenate([np.zeros(zeros), [-1.0, -0.5], np.linspace(0.1, 2, 58 - zeros)])
        found = null_vectors(sp.csr_array(Q @ np.diag(eigenvalues) @ Q.T))
        if zeros == 0:
            assert found is None
            continue
        assert found.shape == (60, zeros)
        # The projections agree to rounding over the gap, 0.1.
        np.testing.assert_allclose(found @ found.T, Q[:, :zeros] @ Q[:, :zeros].T, atol=1e-11)
