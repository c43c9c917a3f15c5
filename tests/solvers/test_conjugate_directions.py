"""Conjugate directions: the error never grows, whatever is proposed; good proposals are used, bad ones replaced."""

import numpy as np
import pytest
import scipy.sparse as sp

from solvers import Jacobi, Multigrid, Status, cg, conjugate_directions, gallery

RTOL = 1e-8


def darcy(n=16, seed=0):
    return gallery.diffusion(np.exp(np.random.default_rng(seed).normal(size=(n, n))))


def adversary(r):
    """All but orthogonal to the residual, just enough along it to be taken."""
    rng = np.random.default_rng(int(1e6 * abs(r[0])) % 1000)
    across = rng.normal(size=r.size)
    across -= (across @ r) / (r @ r) * r
    return 2e-3 * r / np.linalg.norm(r) - across / np.linalg.norm(across)


PROPOSALS = {
    "the residual": lambda r: r.copy(),
    "random": lambda r: np.random.default_rng(int(1e6 * abs(r[0])) % 1000).normal(size=r.size),
    "signs": np.sign,
    "its cube": lambda r: r**3,
    "uphill": lambda r: -r,
    "one unknown": lambda r: np.eye(r.size)[np.argmax(np.abs(r))],
    "an adversary": adversary,
    "zero": np.zeros_like,
    "not a number": lambda r: np.full_like(r, np.nan),
    "infinite": lambda r: np.full_like(r, np.inf),
    "always the same": np.ones_like,
    "huge": lambda r: 1e200 * r,
    "tiny": lambda r: 1e-200 * r,
}


@pytest.mark.parametrize("memory", [1, 2, 5])
@pytest.mark.parametrize("name", PROPOSALS)
def test_the_error_never_grows_in_the_norm_of_A_and_the_method_converges(name, memory):
    A = darcy()
    dense = A.tocsr().toarray()
    b = np.random.default_rng(1).normal(size=A.shape[0])
    exact = np.linalg.solve(dense, b)
    energies = [float(exact @ dense @ exact)]

    def watch(x):
        energies.append(float((x - exact) @ dense @ (x - exact)))

    result = conjugate_directions(A, b, PROPOSALS[name], memory=memory, rtol=RTOL, callback=watch)
    assert result.converged, result
    assert np.linalg.norm(b - dense @ result.x) <= 1.001 * RTOL * np.linalg.norm(b)
    # Rounding of x alone makes 1e-30 of the first energy at this condition number.
    assert np.all(np.diff(energies) <= 1e-25 * energies[0])


def test_a_constant_preconditioner_as_proposal_makes_it_conjugate_gradients():
    A, b = darcy(40), np.ones(1600)
    M = Jacobi().setup(A)
    ours = conjugate_directions(A, b, M.matvec, memory=1, rtol=RTOL, M=M)  # its turns are the same steps
    theirs = cg(A, b, rtol=RTOL, M=M)
    assert ours.iterations == theirs.iterations
    shared = slice(0, 20)  # later their roundings have grown apart
    np.testing.assert_allclose(ours.history[shared], theirs.history[shared], rtol=1e-6)


def test_the_fallback_alone_is_conjugate_gradients_with_its_preconditioner():
    A, b = darcy(40), np.ones(1600)
    ours = conjugate_directions(A, b, np.zeros_like, memory=1, rtol=RTOL, M=Multigrid())
    theirs = cg(A, b, rtol=RTOL, M=Multigrid())
    assert ours.iterations == theirs.iterations
    assert f"the fallback took {ours.iterations} of {ours.iterations} steps" in ours.reason


def test_directions_are_conjugate_to_as_many_as_are_remembered():
    A, rng = darcy(), np.random.default_rng(2)
    iterates = [np.zeros(A.shape[0])]
    conjugate_directions(
        A,
        np.ones(A.shape[0]),
        lambda r: r + 0.3 * np.linalg.norm(r) * rng.normal(size=r.size) / 16,
        memory=3,
        maxiter=8,
        callback=lambda x: iterates.append(x),
    )
    p = np.diff(iterates, axis=0)
    gram = p @ (A @ p.T)
    gram /= np.sqrt(np.outer(np.diag(gram), np.diag(gram)))
    near = np.abs(gram[np.abs(np.subtract.outer(range(8), range(8))) <= 3])
    assert np.max(near[near < 0.5]) < 1e-10  # rounding over the share of the proposal that is left
    assert np.max(np.abs(gram[0, 4:])) > 1e-6


def test_exact_proposals_take_one_iteration_and_guesses_are_kept():
    A = darcy()
    inverse = np.linalg.inv(A.tocsr().toarray())
    b = np.ones((A.shape[0], 2)) * [1.0, 1e-200]
    x0 = np.full(b.shape, 1.0)
    x0[:, 1] = 0.0
    result = conjugate_directions(A, b, lambda r: inverse @ r, x0, rtol=RTOL)
    assert result.converged
    assert result.iterations == 1
    assert np.all(x0[:, 0] == 1.0)


def test_the_proposer_cannot_change_the_residual():
    def spoil(r):
        r[:] = 0.0
        return r

    with pytest.raises(ValueError, match="read-only"):
        conjugate_directions(darcy(), np.ones(256), spoil)


@pytest.mark.parametrize(
    ("A", "status"),
    [
        (sp.diags_array([1.0, 2.0, -1.0]).tocsr(), Status.INDEFINITE_OPERATOR),
        (sp.diags_array([1.0, 2.0, 0.0]).tocsr(), Status.INCONSISTENT),
        (sp.diags_array([1.0, np.nan, 1.0]).tocsr(), Status.NONFINITE_INPUT),
    ],
)
def test_matrices_that_are_not_positive_definite_end_as_what_they_are(A, status):
    result = conjugate_directions(A, np.ones(3), lambda r: r, rtol=RTOL)
    assert result.status is status
    assert np.all(np.isfinite(result.x))


def test_neumann_problems_take_proposals_with_a_constant_part():
    A = gallery.poisson((20, 20), boundary="neumann")
    b = np.random.default_rng(0).normal(size=400)
    b -= b.mean()
    result = conjugate_directions(A, b, lambda r: r + r.max(), null_space="constant", rtol=RTOL)
    assert result.converged
    assert abs(result.x.mean()) < 1e-12 * np.abs(result.x).max()


def test_bad_arguments_get_a_sentence():
    A, b = darcy(), np.ones(256)
    with pytest.raises(TypeError, match="propose: expected a callable"):
        conjugate_directions(A, b, "multigrid")
    with pytest.raises(ValueError, match="memory: expected a positive"):
        conjugate_directions(A, b, lambda r: r, memory=0)
    with pytest.raises(ValueError, match=r"propose: expected a direction of shape \(256,\), got \(255,\)"):
        conjugate_directions(A, b, lambda r: r[1:])
    with pytest.raises(TypeError, match="propose: expected float64 numbers, got complex128"):
        conjugate_directions(A, b, lambda r: 1j * r)
