"""Deflated CG: what is left when the subspace is gone, and how well the subspace is found."""

import numpy as np
import pytest
from scipy.linalg import subspace_angles

from solvers import IncompleteCholesky, RecycleSpace, Status, cg, deflated_cg, gallery, sine_modes
from solvers.system import System

LOW = np.array([1e-3, 2e-3, 5e-3, 1e-2])
HIGH = np.linspace(1.0, 20.0, 96)


def hermitian(values, kind, seed=0):
    """A matrix with these eigenvalues, and its eigenvectors."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((len(values), len(values)))
    if kind == "complex":
        X = X + 1j * rng.standard_normal(X.shape)
    X = np.linalg.qr(X)[0]
    A = (X * values) @ X.conj().T
    return (A + A.conj().T) / 2, X


@pytest.mark.parametrize("deflation", [None, np.zeros((400, 0)), np.zeros((400, 3))])
@pytest.mark.parametrize("M", [None, IncompleteCholesky])
def test_without_a_subspace_it_is_cg(deflation, M):
    A = gallery.diffusion(gallery.jumps((20, 20)))
    b = np.sin(np.arange(400.0))
    ours = deflated_cg(A, b, rtol=1e-10, deflation=deflation, M=M and M())
    np.testing.assert_array_equal(ours.history, cg(A, b, rtol=1e-10, M=M and M()).history)


@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("recycle", [False, True])
def test_an_invariant_subspace_leaves_the_rest_of_the_spectrum(kind, recycle):
    """In coordinates of eigenvectors the residual outside the subspace is that of CG on the other eigenvalues."""
    A, X = hermitian(np.r_[LOW, HIGH], kind)
    W = X[:, :4] @ np.random.default_rng(1).standard_normal((4, 4))
    b = X @ np.ones(100)
    ours = deflated_cg(A, b, rtol=1e-10, deflation=RecycleSpace(W) if recycle else W)
    rest = cg(np.diag(HIGH), np.ones(96), rtol=1e-10 * np.sqrt(100 / 96))  # the same residual norm
    assert ours.converged
    assert abs(ours.iterations - rest.iterations) <= 1
    count = min(ours.iterations, rest.iterations)
    # from the first iteration on; two orders of rounding for a basis that is not exact
    np.testing.assert_allclose(ours.history[1:count], rest.history[1:count], rtol=1e-5)
    assert cg(A, b, rtol=1e-10).iterations > 1.5 * ours.iterations


@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_energy_falls_and_residuals_stay_orthogonal(kind, preconditioned):
    """For any subspace: the error's energy norm is minimised, W'r = 0, in spite of 500 iterations' rounding."""
    A, _ = hermitian(np.geomspace(1e-5, 1.0, 200), kind, seed=2)
    W = np.linalg.qr(np.random.default_rng(3).standard_normal((200, 5)))[0]
    M = np.diag(np.linspace(0.5, 2.0, 200)) if preconditioned else None
    b = np.ones(200, dtype=A.dtype)
    x = np.linalg.solve(A, b)
    xs = []
    deflated_cg(A, b, rtol=1e-8, deflation=W, M=M, callback=xs.append, maxiter=500)
    assert len(xs) > 200
    energy = [np.sqrt(np.vdot(x - y, A @ (x - y)).real) for y in xs]
    assert np.all(np.diff(energy) <= 1e-6 * energy[0])  # cond(A) eps is 1e-11, its root 3e-6
    inside = [np.linalg.norm(W.conj().T @ (b - A @ y)) / np.linalg.norm(b - A @ y) for y in xs]
    assert np.max(inside) < 1e-4


def test_what_comes_back_is_projected_out_again():
    """Images of a matrix that differs by 1e-9, which counts as unchanged: W'r then grows, unless it is taken out."""
    A, _ = hermitian(np.geomspace(1e-4, 1.0, 300), "real", seed=2)
    other, _ = hermitian(np.random.default_rng(7).standard_normal(300), "real", seed=5)
    space = RecycleSpace(np.linalg.qr(np.random.default_rng(3).standard_normal((300, 5)))[0])
    space.enter(System.of(A), 5)
    space.products = 100.0
    result = deflated_cg(A + 1e-9 * other, np.ones(300), rtol=1e-10, deflation=space, directions=0, k=5)
    assert result.matvecs <= result.iterations + 5  # nothing was made anew
    assert result.converged


def test_the_first_step_is_the_projection():
    A, X = hermitian(np.r_[LOW, HIGH], "real")
    b = A @ X[:, :4] @ np.ones(4)
    result = deflated_cg(A, b, deflation=X[:, :4], rtol=1e-9)
    assert result.converged
    assert result.iterations == 0
    np.testing.assert_allclose(result.x, X[:, :4] @ np.ones(4), rtol=1e-6, atol=1e-9)


def test_dependent_and_broken_vectors_are_left_out():
    A, X = hermitian(np.r_[LOW, HIGH], "real")
    b = X @ np.ones(100)
    W = np.column_stack([X[:, :4], X[:, 1], X[:, :4] @ np.ones(4), np.zeros(100), np.full(100, np.nan)])
    plain, doubled = (deflated_cg(A, b, deflation=V, rtol=1e-10) for V in (X[:, :4], W))
    assert doubled.converged
    np.testing.assert_allclose(doubled.history[: plain.iterations], plain.history[: plain.iterations], rtol=1e-4)


@pytest.mark.parametrize("kind", ["real", "complex"])
def test_recycled_vectors_become_the_lowest_eigenvectors(kind):
    A, X = hermitian(np.r_[LOW, HIGH], kind)
    rng = np.random.default_rng(4)
    space = RecycleSpace()
    iterations = [
        deflated_cg(A, rng.standard_normal(100), rtol=1e-8, deflation=space, k=4, directions=30).iterations
        for _ in range(6)
    ]
    # The residual of an inner eigenvalue is that of the angle squared: less is not seen in the iterations.
    assert np.max(subspace_angles(space.U.T, X[:, :4])) < 1e-2
    rest = cg(np.diag(HIGH), rng.standard_normal(96), rtol=1e-8).iterations
    assert iterations[0] > 2 * rest
    assert iterations[-1] <= rest + 3


@pytest.mark.parametrize("M", [None, IncompleteCholesky])
@pytest.mark.parametrize("drift", [0.0, 0.05])
def test_a_sequence_takes_fewer_and_fewer_iterations(M, drift):
    space = RecycleSpace()
    ratios = []
    for A, b, _ in gallery.darcy_sequence(length=6, shape=(30, 30), drift=drift):
        result = deflated_cg(A, b, rtol=1e-8, deflation=space, k=10, directions=30, M=M and M())
        assert result.converged
        ratios.append(result.iterations / cg(A, b, rtol=1e-8, M=M and M()).iterations)
    assert ratios[0] == 1
    assert max(ratios[3:]) < 0.7


def test_a_space_that_stays_as_it_is():
    """With no directions to look in, the vectors are those given, C is made once for each matrix, and pauses end."""
    A = gallery.poisson((20, 20))
    W = sine_modes((20, 20), 6)
    space = RecycleSpace(W)
    rng = np.random.default_rng(0)
    first = deflated_cg(A, rng.standard_normal(400), deflation=space, directions=0, k=6)
    again = deflated_cg(A, rng.standard_normal(400), deflation=RecycleSpace(W), directions=0, k=6)
    assert again.matvecs - again.iterations == first.matvecs - first.iterations == 6 + 1
    space.products, space._solves = 10.0, 1
    third = deflated_cg(A, rng.standard_normal(400), deflation=space, directions=0, k=6)
    assert third.matvecs - third.iterations == 2 + 1
    space.balance = -0.1
    paused = deflated_cg(A, b := rng.standard_normal(400), deflation=space, directions=0, k=6)
    np.testing.assert_array_equal(paused.history, cg(A, b).history)
    assert np.max(subspace_angles(space.vectors, W)) < 1e-8


@pytest.mark.parametrize(
    ("shape", "spacing"), [(12, 1.0), ((7, 9), (1.0, 1.0)), ((8, 5), (0.1, 0.3)), ((4, 5, 3), 1.0)]
)
def test_sine_modes_are_the_lowest_eigenvectors(shape, spacing):
    A = gallery.poisson(shape, spacing).tocsr().toarray()
    values = np.linalg.eigvalsh(A)
    W = sine_modes(shape, 5, spacing)
    np.testing.assert_allclose(W.T @ W, np.eye(5), atol=1e-12)
    np.testing.assert_allclose(A @ W, W * np.diag(W.T @ A @ W), atol=1e-10 * values[-1])
    np.testing.assert_allclose(np.diag(W.T @ A @ W), values[:5], rtol=1e-10)


def test_sine_modes_serve_other_coefficients():
    shape = (40, 40)
    A = gallery.diffusion(np.exp(0.3 * np.random.default_rng(0).standard_normal(shape)))
    b = np.ones(1600)
    fixed = deflated_cg(A, b, rtol=1e-8, deflation=sine_modes(shape, 20))
    assert fixed.converged
    assert fixed.matvecs < 0.75 * cg(A, b, rtol=1e-8).matvecs


def test_an_indefinite_matrix_is_named():
    A = np.diag(np.r_[-1.0, np.arange(1.0, 40.0)])
    result = deflated_cg(A, np.ones(40), deflation=np.eye(40, 3))
    assert result.status is Status.INDEFINITE_OPERATOR
    assert "W'A W" in result.reason
    hidden = deflated_cg(A, np.ones(40), deflation=np.eye(40)[:, 5:8])
    assert hidden.status is Status.INDEFINITE_OPERATOR


def test_singular_system_with_its_null_space():
    A = gallery.poisson((15, 15), boundary="neumann")
    b = np.sin(np.arange(225.0))
    b -= b.mean()
    W = np.column_stack([np.ones(225), np.cos(np.pi * (np.arange(225) % 15 + 0.5) / 15)])  # the null vector among them
    result = deflated_cg(A, b, deflation=W, null_space="constant", rtol=1e-10)
    assert result.converged
    assert abs(result.x.mean()) < 1e-10


def test_single_precision():
    A = gallery.poisson((20, 20)).tocsr().astype(np.float32)
    space = RecycleSpace()
    for seed in range(3):
        b = np.random.default_rng(seed).standard_normal(400).astype(np.float32)
        result = deflated_cg(A, b, rtol=1e-4, deflation=space)
        assert result.x.dtype == np.float32
        assert result.converged


def test_arguments():
    for arguments in ({"k": -1}, {"directions": 1.5}):
        with pytest.raises(ValueError, match="expected a whole number"):
            deflated_cg(np.eye(3), np.ones(3), **arguments)
    with pytest.raises(ValueError, match="deflation, vectors: expected columns"):
        deflated_cg(np.eye(3), np.ones(3), deflation=np.ones(3))
    with pytest.raises(ValueError, match="deflation: expected 3 rows"):
        deflated_cg(np.eye(3), np.ones(3), deflation=np.ones((4, 1)))
    with pytest.raises(ValueError, match="count: expected a whole number"):
        sine_modes((3, 3), 10)
