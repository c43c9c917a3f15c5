"""Lagged preconditioners: what is kept, when it is renewed, and that the answer never depends on it."""

import copy

import numpy as np
import pytest
import scipy.sparse as sp

from solvers import AMG, ILU, Factorisation, Lagged, Multigrid, Status, cg, flexible_cg, gallery, gmres, minres

SHAPE = (24, 24)
N = 24 * 24


def field(seed):
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(np.random.default_rng(seed).standard_normal(SHAPE), 3, mode="wrap")
    return smooth / smooth.std()


def drifting(count, step):
    """Lognormal coefficients that change by `step` from matrix to matrix."""
    for t in range(count):
        yield gallery.diffusion(np.exp(field(0) + step * t * field(1)))


def solves(M, matrices, method=cg, rtol=1e-8):
    """Iterations of each solve; each one checked."""
    b = np.random.default_rng(7).standard_normal(N)
    counts = []
    for A in matrices:
        result = method(A, b, rtol=rtol, M=M)
        assert result.converged
        assert np.linalg.norm(b - A @ result.x) <= 1.001 * rtol * np.linalg.norm(b)
        counts.append(result.iterations)
    return counts


@pytest.mark.parametrize("inner", ["direct", "ic", "amg", "multigrid", Factorisation(), AMG(), Multigrid(), ILU()])
def test_slow_drift_keeps_one_setup(inner):
    M = Lagged(inner)
    counts = solves(M, drifting(12, 0.002))
    assert M.refreshes == 1
    assert M.age == 11
    assert max(counts) <= counts[0] + 5
    assert "1 set-up so far, the last 11 matrices ago" in str(M)


def test_faster_drift_renews_now_and_then():
    M = Lagged("direct")
    counts = solves(M, drifting(40, 0.06))
    assert 2 <= M.refreshes <= 20
    # A solve takes at most: what was worth keeping, the rest of a round, and a fresh start.
    assert max(counts) <= Factorisation().setup(gallery.poisson(SHAPE)).setup_applies + 5


@pytest.mark.parametrize("method", [cg, gmres, flexible_cg, minres])
def test_a_jump_is_mended_inside_the_solve(method):
    """The contrast turns around: old factors are worth nothing, and the solve itself finds that out."""
    matrices = [gallery.diffusion(np.exp(sign * 3 * field(3))) for sign in (1, 1, -1)]
    M = Lagged("direct")
    counts = solves(M, matrices, method)
    assert M.refreshes == 2
    assert M.fresh
    assert counts[0] <= 2
    price = Factorisation().setup(matrices[0]).setup_applies
    cycle = 20 if method is gmres else 1
    assert price - cycle <= counts[2] <= price + 6 + cycle


def test_an_old_preconditioner_that_is_wrong_is_renewed_not_blamed():
    """The factors of -A make M negative definite for A: no fault of the user's."""
    A = gallery.poisson(SHAPE).tocsr()
    M = Lagged("direct")
    b = np.ones(N)
    assert gmres(-A, b, M=M).converged
    result = cg(A, b, M=M)
    assert result.status is Status.CONVERGED
    assert M.refreshes == 2


def test_other_sizes_and_types_start_afresh():
    M = Lagged("direct")
    assert cg(gallery.poisson((9,)), np.ones(9), M=M).converged
    assert cg(gallery.poisson((11,)), np.ones(11), M=M).converged
    assert cg(gallery.poisson((11,)).tocsr().astype(complex), np.ones(11) + 1j, M=M).converged
    assert M.refreshes == 3


def test_decisions_are_the_same_each_time():
    first, second = Lagged("direct"), Lagged("direct")
    assert solves(first, drifting(25, 0.05)) == solves(second, drifting(25, 0.05))
    assert first.refreshes == second.refreshes


def test_independent_matrices_cost_hardly_more_than_fresh_factors():
    """Of 40 matrices that have nothing in common, lagging is tried on the first few and then ever more rarely."""
    M = Lagged("direct")
    counts = solves(M, [gallery.diffusion(np.exp(3 * field(seed))) for seed in range(40)])
    tried = sum(count > 5 for count in counts)
    assert 1 <= tried <= 6
    assert M.refreshes == 40


def test_cost_in_seconds():
    M = Lagged("direct", cost="seconds")
    solves(M, drifting(10, 0.05))
    assert 1 <= M.refreshes <= 10


def test_many_right_hand_sides():
    M = Lagged("direct")
    b = np.random.default_rng(0).standard_normal((N, 3))
    for A in drifting(4, 0.01):
        assert cg(A, b, rtol=1e-8, M=M).converged
    assert M.refreshes == 1


def test_a_matrix_that_the_inner_one_refuses():
    """In the middle of a solve the old one is kept; at the start it is an error, as without lagging."""
    M = Lagged("ic")
    A = gallery.poisson(SHAPE).tocsr()
    assert cg(A, np.ones(N), M=M).converged
    indefinite = A - 2.0 * sp.eye_array(N)
    before = str(M)
    assert not M.refresh(sp.csr_array(-A))
    assert str(M) == before
    result = gmres(indefinite, np.ones(N), M=M, maxiter=3)
    assert np.isfinite(result.x).all()
    with pytest.raises(ValueError, match="positive diagonal"):
        Lagged("ic").setup(-A)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="cost: expected 'work' or 'seconds'"):
        Lagged("direct", cost="time")
    with pytest.raises(ValueError, match="inner: expected"):
        Lagged(np.eye(3))
    with pytest.raises((KeyError, ValueError), match="direkt"):
        Lagged("direkt")


@pytest.mark.parametrize("inner", ["direct", "multigrid"])
@pytest.mark.parametrize("stop", [1, 7, 20])
def test_a_saved_state_goes_on_as_if_nothing_had_happened(inner, stop):
    matrices = list(drifting(30, 0.06))
    whole, first, second = Lagged(inner), Lagged(inner), Lagged(inner)
    counts = solves(whole, matrices)
    solves(first, matrices[:stop])
    state = copy.deepcopy(first.state_dict())
    solves(first, matrices[stop : stop + 3])  # which must not reach into the state
    second.load_state_dict(state)
    assert solves(second, matrices[stop:]) == counts[stop:]
    assert second.refreshes == whole.refreshes
    with pytest.raises(ValueError, match="state: is not one of Lagged"):
        second.load_state_dict({})


def test_factors_of_somebody_else_are_taken_over():
    first, second = drifting(2, 0.002)
    factors = Factorisation().setup(first)
    M = Lagged("direct")
    M.adopt(factors, first, factors.seconds)
    (count,) = solves(M, [second])
    assert M.refreshes == 0
    assert M.age == 1
    assert 1 < count < 10  # near, and not the same
