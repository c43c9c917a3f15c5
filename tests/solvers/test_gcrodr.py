"""GCRO-DR: what it equals in one system, what it carries to the next, and that nothing it is handed makes it lie."""

import numpy as np
import pytest
from scipy.linalg import block_diag, eig, subspace_angles

from solvers import ILU, Jacobi, RecycleSpace, Status, gallery, gcrodr, gmres, gmres_dr
from solvers.krylov.recycle import dominant_subspace
from solvers.system import System


def general(n, kind, seed=0):
    """A well-conditioned matrix that is far from normal, and a right-hand side."""
    rng = np.random.default_rng(seed)
    A = np.diag(np.linspace(0.1, 10, n)) + 0.3 * rng.standard_normal((n, n)) / np.sqrt(n)
    b = rng.standard_normal(n)
    if kind == "complex":
        A = A + 0.3j * rng.standard_normal((n, n)) / np.sqrt(n)
        b = b + 1j * rng.standard_normal(n)
    return A, b


def drifting(length=6, shape=(30, 30), **arguments):
    return [(A.tocsr(), b) for A, b, _ in gallery.helmholtz_sequence(length=length, shape=shape, **arguments)]


def assert_pair(space, A, M=None, tolerance=1e-9):
    """A U = C with orthonormal C: what all rests on. Both are carried by recurrences over the cycles of a solve."""
    U, C = space.U.T, space.C.T
    AU = A @ U
    assert U.shape[1] > 0
    assert np.linalg.norm(AU - C) <= tolerance * np.linalg.norm(AU)
    assert np.linalg.norm(C.conj().T @ C - np.eye(C.shape[1])) <= tolerance


# -- One system --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize(("restart", "k"), [(12, 4), (20, 3), (9, 7)])
def test_in_one_system_it_is_gmres_dr(kind, restart, k):
    A, b = general(120, kind)
    ours = gcrodr(A, b, restart=restart, k=k, rtol=1e-9, maxiter=60)
    other = gmres_dr(A, b, restart=restart, k=k, rtol=1e-9, maxiter=60)
    assert ours.converged
    assert ours.matvecs == other.matvecs
    # The same minimisation by other recurrences; what rounding does to both grows from cycle to cycle.
    np.testing.assert_allclose(ours.history, other.history, rtol=1e-4)


def test_in_an_indefinite_system_it_is_gmres_dr():
    A = gallery.helmholtz((20, 20), wavenumber=0.6)
    ours, other = gcrodr(A, np.ones(400), rtol=1e-8), gmres_dr(A, np.ones(400), rtol=1e-8, restart=40, k=20)
    assert ours.converged
    assert ours.matvecs == other.matvecs
    np.testing.assert_allclose(ours.history, other.history, rtol=1e-4)


@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("recycle", [False, True])
def test_without_kept_vectors_it_is_gmres(kind, recycle):
    A, b = general(80, kind)
    arguments = {"restart": 9, "rtol": 1e-9, "maxiter": 60}
    ours = gcrodr(A, b, k=0, recycle=RecycleSpace() if recycle else None, **arguments)
    np.testing.assert_allclose(ours.history, gmres(A, b, **arguments).history, rtol=1e-9)


@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_the_pair_holds_after_many_cycles(kind, preconditioned):
    A, b = general(200, kind)
    M = np.linalg.inv(np.diag(np.diag(A)) + np.triu(A, 1)) if preconditioned else None
    space = RecycleSpace()
    for _ in range(3):
        assert gcrodr(A, b, restart=10, k=4, rtol=1e-11, M=M, recycle=space, maxiter=200).converged
        assert_pair(space, A)


def test_residual_is_the_true_one_after_each_cycle():
    A, b = general(150, "real")
    xs = []
    result = gcrodr(A, b, restart=12, k=4, rtol=1e-10, callback=xs.append, maxiter=100)
    assert result.converged
    ends = 12 + 8 * np.arange(len(xs) - 1)
    true = [np.linalg.norm(b - A @ x) for x in xs[:-1]]
    np.testing.assert_allclose(result.history[ends], true, rtol=1e-6)
    assert np.all(np.diff(result.history) <= 1e-9 * result.history[0])


# -- Spaces that are known exactly -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["real", "complex"])
def test_a_space_that_holds_the_solution_takes_no_iteration(kind):
    A, b = general(60, kind)
    x0 = np.ones(60)
    error = np.linalg.solve(A, b - A @ x0)
    vectors = np.column_stack([np.eye(60, 2), error])
    result = gcrodr(A, b, x0, restart=10, k=4, rtol=1e-10, recycle=RecycleSpace(vectors))
    assert result.converged
    assert result.iterations == 0
    np.testing.assert_allclose(result.x, np.linalg.solve(A, b), rtol=1e-8)


@pytest.mark.parametrize("kind", ["real", "complex"])
def test_an_invariant_space_leaves_the_rest_of_the_matrix(kind):
    """A is block diagonal in an orthonormal basis: without the first block GMRES sees the second one alone."""
    rng = np.random.default_rng(3)
    hard = np.diag([1e-3, -2e-3, 5e-3, 1e-2])
    easy, b = general(56, kind)
    X = np.linalg.qr(rng.standard_normal((60, 60)) + (1j * rng.standard_normal((60, 60)) if kind == "complex" else 0))[
        0
    ]
    A = X @ block_diag(hard, easy) @ X.conj().T
    mixed = X[:, :4] @ rng.standard_normal((4, 4))
    rhs = X @ np.concatenate([np.ones(4), b])
    whole = gcrodr(A, rhs, restart=44, k=4, rtol=1e-12, maxiter=1, recycle=RecycleSpace(mixed))
    rest = gmres(easy, b, restart=40, rtol=1e-12, maxiter=1)
    # the first entries are the norms of two different right-hand sides; the last is recomputed
    count = min(len(whole.history), len(rest.history)) - 1
    assert count > 20
    np.testing.assert_allclose(whole.history[1:count], rest.history[1:count], rtol=1e-6)


def test_deflation_across_systems_is_that_of_the_eigenvectors():
    """After one solve of diag(few small, many large) the second one goes on as if the small ones were not there."""
    d = np.r_[np.arange(1, 11) / 1000, np.linspace(1, 10, 290)]
    space = RecycleSpace()
    rng = np.random.default_rng(0)
    gcrodr(np.diag(d), rng.standard_normal(300), restart=40, k=20, rtol=1e-12, recycle=space)
    b = rng.standard_normal(300)
    again = gcrodr(np.diag(d), b, restart=60, k=20, rtol=1e-6, recycle=space)
    assert max(subspace_angles(np.eye(300, 10), space.U.T)) < 1e-3
    # CG's bound for the spectrum [1, 10] without the ten small eigenvalues; GMRES's residual is no larger.
    q = (np.sqrt(10) - 1) / (np.sqrt(10) + 1)
    bound = int(np.ceil(np.log(1e-6 / 2 / np.sqrt(10)) / np.log(q)))
    assert again.iterations <= bound
    assert gmres(np.diag(d), b, restart=60, rtol=1e-6, maxiter=20).iterations > 4 * bound


# -- Spaces that are no good -------------------------------------------------------------------------------------------

A0, B0 = general(60, "real")
GOOD = np.linalg.qr(np.random.default_rng(5).standard_normal((60, 3)))[0]


@pytest.mark.parametrize(
    ("vectors", "rank"),
    [
        (np.zeros((60, 3)), 0),
        (np.full((60, 3), np.nan), 0),
        (np.column_stack([GOOD, np.full(60, np.nan), np.full(60, np.inf)]), 3),
        (np.column_stack([GOOD, GOOD]), 3),
        (np.column_stack([GOOD, GOOD @ [1.0, 2.0, -1.0], np.zeros(60)]), 3),
        (np.column_stack([GOOD, GOOD[:, 0] + 1e-13 * np.arange(60)]), 3),
        (GOOD * np.array([1e-200, 1.0, 1e200]), 3),
        (GOOD[:, :0], 0),
        (GOOD.astype(np.float32), 3),
        (np.ones((59, 2)), 0),
        (np.ones((60, 2)) * 1j, 0),
    ],
)
def test_degenerate_spaces_are_truncated(vectors, rank):
    space = RecycleSpace(vectors)
    result = gcrodr(A0, B0, restart=12, k=6, rtol=1e-10, recycle=space, maxiter=200)
    assert result.converged
    np.testing.assert_allclose(result.x, np.linalg.solve(A0, B0), rtol=1e-6)
    # each independent vector takes the place of one step in the first cycle
    steps = gcrodr(A0, B0, restart=12, k=6, rtol=1e-10, recycle=RecycleSpace(vectors), maxiter=1).iterations
    assert steps == 12 - rank
    assert_pair(space, A0)


def test_null_vectors_of_A_are_left_out():
    """The image of one is rounding: a unit vector of C made of it would be noise, and U as large as 1/eps."""
    X = np.linalg.qr(np.random.default_rng(1).standard_normal((60, 60)))[0]
    A = X @ np.diag(np.r_[0.0, np.linspace(1.0, 60.0, 59)]) @ X.T
    space = RecycleSpace(X[:, :4])
    space.enter(System.of(A), 10)
    assert space.vectors.shape == (60, 3)
    assert_pair(space, A)
    assert np.max(np.abs(X[:, 0] @ space.U.T)) < 1e-10


def test_a_change_that_the_first_vector_does_not_feel_is_noticed():
    A, b = general(60, "real")
    space = RecycleSpace()
    gcrodr(A, b, restart=12, k=4, recycle=space)
    v = space.U[2] - space.U[0] * (space.U[0] @ space.U[2]) / (space.U[0] @ space.U[0])
    changed = A + np.outer(np.ones(60), v)
    np.testing.assert_allclose(changed @ space.U[0], A @ space.U[0], atol=1e-10)
    space.enter(System.of(changed), 4)
    assert_pair(space, changed)


def test_images_that_are_wrong_do_not_make_x_wrong(monkeypatch):
    """C of another matrix, passed off as that of this one: the residual tells, and C is made anew."""
    (A, b), (other, _) = drifting(2, drift=0.3)
    space = RecycleSpace()
    gcrodr(other, b, rtol=1e-8, recycle=space)
    monkeypatch.setattr(RecycleSpace, "_still_holds", lambda *_: (True, None))
    result = gcrodr(A, b, rtol=1e-8, recycle=space)
    assert result.converged
    assert np.linalg.norm(b - A @ result.x) <= 1.0001e-8 * np.linalg.norm(b)
    assert_pair(space, A)


def test_a_matrix_changed_in_place_is_noticed():
    A, b = drifting(1)[0]
    space = RecycleSpace()
    gcrodr(A, b, rtol=1e-6, recycle=space)
    A.data *= 1.5
    result = gcrodr(A, b, rtol=1e-6, recycle=space)
    assert result.converged
    assert_pair(space, A)


# -- The work ----------------------------------------------------------------------------------------------------------


def test_products_of_the_set_up_are_counted():
    systems = drifting(2)
    space = RecycleSpace()
    gcrodr(*systems[0], rtol=1e-6, recycle=space)
    A, b = systems[1]
    calls = []
    result = gcrodr(lambda v: (calls.append(1), A @ v)[1], b, rtol=1e-6, recycle=space)
    assert result.matvecs == len(calls)
    cycles = int(np.ceil(result.iterations / 20))
    assert result.matvecs >= result.iterations + 20 + cycles


def test_the_same_matrix_needs_no_set_up():
    A, b = drifting(1)[0]
    space = RecycleSpace()
    gcrodr(A, b, rtol=1e-6, recycle=space)
    for matrix in (A, A.copy(), lambda v: A @ v):  # it is not the object that counts
        result = gcrodr(matrix, np.cos(np.arange(b.size)), rtol=1e-6, recycle=space)
        cycles = int(np.ceil(result.iterations / 20))
        assert result.converged
        assert result.matvecs <= result.iterations + cycles + 3  # two to see that A U = C still, one to check x


def test_several_right_hand_sides_share_the_space():
    A, b = drifting(1)[0]
    many = np.column_stack([b, np.cos(np.arange(b.size)), np.sin(np.arange(b.size))])
    apart, together = gcrodr(A, many, rtol=1e-6), gcrodr(A, many, rtol=1e-6, recycle=RecycleSpace())
    assert apart.converged
    assert together.converged
    assert together.matvecs < 0.7 * apart.matvecs


@pytest.mark.parametrize("seed", range(3))
def test_recycling_pays_in_drifting_indefinite_systems(seed):
    """Waves with k0 = 12 on 40 x 40 nodes, 5 % drift: at most 0.35 of GMRES-DR's products in the same memory."""
    space, cold, recycled = RecycleSpace(), 0, 0
    for A, b, _ in gallery.helmholtz_sequence(length=24, shape=(40, 40), drift=0.05, seed=seed, wavenumber=12.0):
        alone = gmres_dr(A, b, rtol=1e-6, restart=40, k=20)
        result = gcrodr(A, b, rtol=1e-6, restart=40, k=20, recycle=space)
        assert alone.converged
        assert result.converged
        cold, recycled = cold + alone.matvecs, recycled + result.matvecs
    assert recycled <= 0.35 * cold


@pytest.mark.parametrize("seed", range(3))
def test_recycling_costs_little_where_it_does_not_pay(seed):
    """Independent convection-diffusion systems: the account stops what does not pay."""
    space, cold, recycled = RecycleSpace(), 0, 0
    for A, b, _ in gallery.convection_diffusion_sequence(length=40, shape=(40, 40), seed=seed):
        alone = gmres_dr(A, b, rtol=1e-6, restart=40, k=20)
        result = gcrodr(A, b, rtol=1e-6, restart=40, k=20, recycle=space)
        assert alone.converged
        assert result.converged
        cold, recycled = cold + alone.matvecs, recycled + result.matvecs
    assert recycled <= 1.05 * cold


def test_what_was_lost_is_paid_off_by_solves_without_the_space():
    systems = [(A, b) for A, b, _ in gallery.convection_diffusion_sequence(length=3, shape=(30, 30))]
    space = RecycleSpace()
    first, second = (gcrodr(A, b, rtol=1e-6, recycle=space) for A, b in systems[:2])
    folds = [np.log(result.history[0] / result.residual_norm) for result in (first, second)]
    debt = second.matvecs - first.matvecs * folds[1] / folds[0]
    assert debt > 10
    assert space.balance == pytest.approx(-debt)
    A, b = systems[2]
    paused = gcrodr(A, b, rtol=1e-6, recycle=space)
    np.testing.assert_array_equal(paused.history, gcrodr(A, b, rtol=1e-6).history)
    assert space.balance == pytest.approx(-debt + 0.02 * paused.matvecs)


def test_the_reference_is_renewed():
    """After 64 solves with the space, and after the first one with vectors of the user's, one goes without."""
    systems = drifting(3)
    for space in (RecycleSpace(), RecycleSpace(np.linalg.qr(np.random.default_rng(0).standard_normal((900, 5)))[0])):
        gcrodr(*systems[0], rtol=1e-6, recycle=space)
        if space.products is not None:
            for _ in range(64):
                gcrodr(*systems[0], rtol=1e-6, recycle=space)
        before = space.products
        cold, with_it = gcrodr(*systems[1], rtol=1e-6), gcrodr(*systems[1], rtol=1e-6, recycle=space)
        np.testing.assert_array_equal(with_it.history, cold.history)
        assert space.products != before
        assert gcrodr(*systems[2], rtol=1e-6, recycle=space).matvecs < cold.matvecs / 2


def test_state_goes_on_where_it_was():
    systems = drifting(4)
    one = RecycleSpace()
    for A, b in systems[:2]:
        gcrodr(A, b, rtol=1e-6, recycle=one)
    other = RecycleSpace()
    other.load_state_dict(one.state_dict())
    for A, b in systems[2:]:
        first, second = (gcrodr(A, b, rtol=1e-6, recycle=space) for space in (one, other))
        np.testing.assert_array_equal(first.x, second.x)
        assert first.matvecs == second.matvecs
    for name, value in one.state_dict().items():
        np.testing.assert_array_equal(value, other.state_dict()[name])


# -- Preconditioning ---------------------------------------------------------------------------------------------------


def test_a_preconditioner_swapped_in_mid_sequence():
    systems = drifting(8)
    space = RecycleSpace()
    for (A, b), M in zip(systems, [None, Jacobi(), ILU(), None, ILU(), Jacobi(), ILU(), None], strict=True):
        result = gcrodr(A, b, rtol=1e-7, M=M, recycle=space)
        alone = gcrodr(A, b, rtol=1e-7, M=M)
        assert result.converged
        assert np.linalg.norm(b - A @ result.x) <= 1.0001e-7 * np.linalg.norm(b)
        assert_pair(space, A)
        if space.balance:  # not the first one
            assert result.iterations < 0.6 * alone.iterations


@pytest.mark.parametrize("kind", ["real", "complex"])
def test_with_a_preconditioner_it_keeps_the_harmonic_ritz_vectors_of_A(kind):
    """The dense truth after one cycle: (A Z)' A Z y = theta (A Z)' Z y over Z = M K(A M, b)."""
    A, b = general(60, kind)
    M = np.diag(1.0 / np.linspace(1.0, 3.0, 60))
    space = RecycleSpace()
    gcrodr(A, b, restart=10, k=4, M=M, rtol=1e-14, maxiter=1, recycle=space)
    K = [b / np.linalg.norm(b)]
    for _ in range(9):
        w = A @ M @ K[-1]
        for _ in range(2):
            w = w - np.array(K).T @ (np.array(K).conj() @ w)
        K.append(w / np.linalg.norm(w))
    Z = M @ np.array(K).T
    values, Y = eig((A @ Z).conj().T @ A @ Z, (A @ Z).conj().T @ Z)
    order = np.argsort(np.abs(values))
    kept = space.U.shape[0]
    assert kept in ((4, 5) if kind == "real" else (4,))
    vectors = Z @ Y[:, order[:kept]]
    if kind == "real":
        vectors = np.linalg.svd(np.column_stack([vectors.real, vectors.imag]), full_matrices=False)[0][:, :kept]
    assert np.max(subspace_angles(vectors, space.U.T)) < 1e-6


def test_a_preconditioner_that_changes_in_every_iteration():
    A, b = drifting(1)[0]
    count = [0]

    def M(r):
        count[0] += 1
        return r / (4.0 + count[0] % 3)

    space = RecycleSpace()
    for _ in range(2):
        result = gcrodr(A, b, rtol=1e-7, M=M, recycle=space)
        assert result.converged
        assert_pair(space, A)


@pytest.mark.parametrize("damping", [0.0, 1.0])
def test_complex_helmholtz(damping):
    space, work = RecycleSpace(), []
    for A, b in drifting(4):
        shifted = A + 1j * damping * np.mean(np.abs(A.diagonal())) / 400 * np.eye(A.shape[0])
        result = gcrodr(shifted, b.astype(complex), rtol=1e-6, recycle=space)
        assert result.converged
        assert_pair(space, shifted)
        work.append(result.matvecs)
    assert max(work[1:]) < 0.5 * work[0]


def test_a_real_space_serves_a_complex_matrix():
    A, b = drifting(1)[0]
    space = RecycleSpace()
    real = gcrodr(A, b, rtol=1e-6, recycle=space)
    result = gcrodr(A.astype(complex), b * 1j, rtol=1e-6, recycle=space)
    assert result.converged
    assert result.matvecs < real.matvecs / 2


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_single_precision(dtype):
    space = RecycleSpace()
    for A, b in drifting(3, shape=(20, 20)):
        result = gcrodr(A.astype(dtype), b.astype(dtype), rtol=1e-3, recycle=space)
        assert result.x.dtype == dtype
        assert result.converged
        assert_pair(space, A.astype(dtype), tolerance=1e-3)


# -- The small eigenproblem --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["real", "complex", "hermitian", "symmetric"])
@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("seed", range(4))
def test_dominant_subspace_is_invariant_and_splits_no_pair(kind, k, seed):
    rng = np.random.default_rng(seed)
    S = rng.standard_normal((11, 11))
    if kind in ("complex", "hermitian"):
        S = S + 1j * rng.standard_normal((11, 11))
    if kind in ("hermitian", "symmetric"):
        S = S + S.conj().T
    X = dominant_subspace(S, k, 1e-8)
    assert X.dtype == S.dtype
    assert X.shape[1] in ((k, k + 1) if kind == "real" else (k,))
    np.testing.assert_allclose(X.conj().T @ X, np.eye(X.shape[1]), atol=1e-12)
    inside = np.linalg.eigvals(X.conj().T @ S @ X)
    np.testing.assert_allclose(S @ X, X @ (X.conj().T @ S @ X), atol=1e-10)
    largest = np.sort(np.abs(np.linalg.eigvals(S)))[::-1]
    np.testing.assert_allclose(np.sort(np.abs(inside))[::-1], largest[: X.shape[1]], rtol=1e-8)


# -- The end -----------------------------------------------------------------------------------------------------------


def test_stagnation_is_reported():
    shift = np.roll(np.eye(50), 1, axis=0)  # GMRES makes no step at all before the 50th
    result = gcrodr(shift, np.eye(50)[0], restart=10, k=4, recycle=RecycleSpace(np.eye(50)[:, 20:24]))
    assert result.status is Status.STAGNATED
    assert result.matvecs < 200
    slow = np.diag(np.r_[1e-12, np.linspace(1, 2, 40)]) + 1e-9 * np.roll(np.eye(41), 1, axis=0)
    assert gcrodr(slow, np.ones(41), restart=5, k=0, rtol=1e-12, maxiter=10_000).status is Status.STAGNATED


def test_small_and_singular_systems():
    space = RecycleSpace()
    for _ in range(2):
        assert gcrodr(np.eye(1), np.ones(1), recycle=space).converged
        assert gcrodr(np.diag([1.0, 2.0]), np.ones(2), recycle=space).converged
        assert gcrodr(np.diag([1.0, 2.0, 3.0, 4.0]), np.ones(4), recycle=space, rtol=1e-12).converged
    for singular in (np.zeros((2, 2)), np.ones((4, 4)), np.diag([0.0, 1.0, 2.0, 3.0])):
        result = gcrodr(singular, np.arange(1.0, len(singular) + 1), restart=4, k=1, recycle=RecycleSpace())
        assert result.status in (Status.BREAKDOWN, Status.STAGNATED)
        assert np.isfinite(result.x).all()


def test_arguments():
    for arguments in ({"restart": 1}, {"k": -1}, {"restart": 5, "k": 4}, {"k": 1.5, "restart": 9}):
        with pytest.raises(ValueError, match="expected a whole number"):
            gcrodr(np.eye(3), np.ones(3), **arguments)
    with pytest.raises(TypeError, match="expected a RecycleSpace"):
        gcrodr(np.eye(3), np.ones(3), recycle=np.eye(3))
    with pytest.raises(ValueError, match=r"expected columns, shape \(n, k\)"):
        RecycleSpace(np.ones(3))
    with pytest.raises(TypeError, match="vectors: expected numbers"):
        RecycleSpace(np.array([["a"]]))
