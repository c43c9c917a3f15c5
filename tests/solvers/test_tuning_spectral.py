"""Spectral estimates of the relaxation factor, and what is learned on top: against Young's theory and exact spectra."""

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as sla

from solvers import SSOR, cg, gallery, sor
from solvers.tuning import FixedOmega, JacobiRadius, LearnedOmega, SpectralOmega, young_omega
from solvers.tuning.interpolant import Interpolant
from solvers.tuning.learned import OFFSETS, _learn, _probabilities

CASES = {
    "Poisson": gallery.poisson((40, 25)),
    "1D": gallery.poisson((60,)),
    "anisotropic": gallery.anisotropic((20, 20), 30.0),
    "jumps": gallery.diffusion(gallery.jumps((24, 24), contrast=100.0)),
    "3D": gallery.poisson((8, 9, 10)),
    "random, no grid": sp.csr_array(
        sp.diags_array(np.linspace(3.0, 9.0, 300)) - 0.2 * (lambda R: R + R.T)(sp.random_array((300, 300), rng=1))
    ),
}


def jacobi_eigenvalues(A):
    """All eigenvalues of I - D^-1 A, by the dense symmetric eigensolver."""
    matrix = (A.tocsr() if hasattr(A, "tocsr") else A).toarray()
    root = 1 / np.sqrt(np.diag(matrix))
    return np.linalg.eigvalsh(np.eye(len(matrix)) - root[:, None] * matrix * root)


def shifted(A, shift):
    return sp.csr_array(A + shift * sp.eye_array(A.shape[0]))


# -- Radius and formula ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_the_radius_is_an_upper_bound_within_half_a_per_cent_of_its_distance_from_one(name):
    A = CASES[name]
    exact = jacobi_eigenvalues(A)[-1]
    found = JacobiRadius()(A)
    # Without a grid there are other eigenvalues right beside the largest, and the bound is one for clusters of them.
    below = 0.01 if "no grid" in name else 1e-6
    assert -below * (1 - exact) <= found - exact <= 0.006 * (1 - exact)


def test_the_radius_agrees_with_arpack_on_a_large_grid():
    A = gallery.poisson((150, 120)).tocsr()
    J = sp.eye_array(A.shape[0]) - A / 4.0
    exact = float(sla.eigsh(J, k=1, which="LA", return_eigenvectors=False)[0])
    radius = JacobiRadius()
    assert 0 <= radius(A) - exact <= 0.006 * (1 - exact)
    assert radius.products < 400


@pytest.mark.parametrize("points", [10, 31, 63])
def test_textbook_omega_for_poisson(points):
    omega = SpectralOmega(gallery.poisson((points, points))).suggest()
    assert abs(omega - 2 / (1 + np.sin(np.pi / (points + 1)))) < 1e-3


def test_youngs_factor_has_the_smallest_spectral_radius():
    """And at omega* the radius is omega* - 1, beyond it omega - 1 (Young 1954)."""
    A = gallery.poisson((6, 7)).tocsr().toarray()
    D, L, U = np.diag(np.diag(A)), np.tril(A, -1), np.triu(A, 1)

    def radius(omega):
        return np.abs(np.linalg.eigvals(np.linalg.solve(D + omega * L, (1 - omega) * D - omega * U))).max()

    star = young_omega(jacobi_eigenvalues(sp.csr_array(A))[-1])
    # A double eigenvalue at omega*: rounding of 1e-16 moves it by 1e-8.
    assert abs(radius(star) - (star - 1)) < 1e-6
    assert abs(radius(star + 0.1) - (star + 0.1 - 1)) < 1e-10
    assert min(radius(star - 0.02), radius(star + 0.02)) > radius(star) + 0.01


def test_a_shift_costs_one_product_and_another_matrix_a_new_estimate():
    A = gallery.poisson((30, 30)).tocsr()
    radius = JacobiRadius()
    radius(A)
    first = radius.products
    assert first < 120
    for shift, most in ((0.3, 1), (2.0, 1), (-0.01, 8)):
        before = radius.products
        exact = (4 * np.cos(np.pi / 31)) / (4 + shift)
        assert abs(radius(shifted(A, shift)) - exact) <= 0.006 * (1 - exact)
        assert radius.products <= before + most
    for other in (gallery.diffusion(gallery.jumps((30, 30), contrast=50.0)), gallery.poisson((12, 12))):
        before = radius.products
        exact = jacobi_eigenvalues(other)[-1]
        assert abs(radius(other) - exact) <= 0.006 * (1 - exact)
        assert radius.products > before + 1


@pytest.mark.parametrize(
    ("A", "message"),
    [(np.diag([1.0, -1.0]), "some of it is not positive"), (sla.aslinearoperator(np.eye(2)), "shows none")],
)
def test_matrices_without_a_positive_diagonal_are_refused(A, message):
    for policy in (SpectralOmega(), LearnedOmega(None)):
        with pytest.raises(ValueError, match=message):
            policy.suggest(A=A)


def test_one_unknown_and_a_diagonal_matrix():
    for A in (np.array([[3.0]]), np.diag([1.0, 2.0, 3.0])):
        assert SpectralOmega(A).suggest() == pytest.approx(1.0, abs=1e-6)


# -- Interpolation ---------------------------------------------------------------------------------------------------


def test_interpolation_is_accurate_where_it_says_so_and_asks_seldom():
    """g of A + c I over c: log sqrt(1 - mu^2), singular at the left end like a logarithm."""
    rng = np.random.default_rng(6)

    def g(x):
        shift = -0.15 + 0.4 * (x + 1)
        return 0.5 * np.log(1 - (4 * np.cos(np.pi / 11) / (4 + shift)) ** 2)

    for points in (2 * rng.random(3000) - 1, np.sin(np.linspace(0, 30, 3000))):
        f, asked = Interpolant(), 0
        for x in points:
            value = f(float(x))
            if value == value:
                assert abs(value - g(x)) < 0.01
            else:
                asked += 1
                f.add(float(x), g(x))
        assert asked < 120


def test_points_that_come_in_a_row_do_not_push_one_along():
    f = Interpolant()
    for x in np.linspace(0.0, 0.02, 400):
        f.add(float(x), 2 * float(x))
    for x in (0.0, 0.003, 0.0111, 0.02, 0.0205):
        assert f(x) == pytest.approx(2 * x, abs=1e-3)


def test_extrapolation_in_time_follows_a_drift_and_not_noise():
    f = Interpolant(time=True)
    f.add(0.0, 1.0)
    f.add(1.0, 1.01)
    assert f(3.0) == pytest.approx(1.03)
    assert np.isnan(f(4.0))  # further than twice the distance of the two
    f.add(2.0, 1.5)
    assert np.isnan(f(3.0))  # steep


# -- The learned factor ----------------------------------------------------------------------------------------------


def stream(kind, count, seed):
    """Systems and contexts: shifts that are drawn, that drift, and none."""
    A = gallery.poisson((9, 9)).tocsr()
    rng = np.random.default_rng(seed)
    shifts = {
        "drawn": 0.6 * rng.beta(0.5, 1.5, count) - 0.1,
        "drifting": 0.2 + 0.25 * np.sin(np.linspace(0, 12, count)),
        "constant": np.zeros(count),
    }[kind]
    for shift in shifts:
        yield shifted(A, shift), rng.standard_normal(81), float(shift)


def total(policy, systems, context, method="sor"):
    """Iterations and products."""
    paid = 0
    for A, b, c in systems:
        omega = policy.suggest(c if context else None, A)
        if method == "sor":
            cost = sor(A, b, omega=omega, rtol=1e-8).iterations
        else:
            cost = cg(A, b, rtol=1e-8, M=SSOR(omega)).iterations
        policy.update(cost)
        paid += cost
    return paid + policy.products


@pytest.mark.parametrize("kind", ["drawn", "drifting", "constant"])
@pytest.mark.parametrize("context", [True, False])
def test_learned_omega_is_as_good_as_youngs_factor_for_each_matrix(kind, context):
    """Products charged, at most 3 % above after 1000 systems; where every matrix must be looked at, one product each.

    The asymptotic factor itself comes free of charge here.
    """
    exact = 0
    for A, b, c in stream(kind, 1000, seed=21):
        exact += sor(A, b, omega=young_omega(4 * np.cos(np.pi / 10) / (4 + c)), rtol=1e-8).iterations
    policy = LearnedOmega((-0.1, 0.5) if context else None, seed=5)
    looks = 1000 if kind == "drawn" and not context else 0
    assert total(policy, stream(kind, 1000, seed=21), context) <= 1.03 * exact + looks
    if not looks:
        assert policy.products < 200


def stretched_elements(points):
    """Bilinear finite elements, five times stronger along one axis: a 9-point stencil, not consistently ordered."""
    e = np.ones(points)
    K = sp.diags_array([-e[1:], 2 * e, -e[1:]], offsets=[-1, 0, 1])
    M = sp.diags_array([e[1:], 4 * e, e[1:]], offsets=[-1, 0, 1]) / 6
    return sp.csr_array(5 * sp.kron(K, M) + sp.kron(M, K))


def test_learned_omega_finds_what_youngs_formula_misses():
    """Where it does not hold the correction finds a factor that is nearly the best of its candidates."""
    A = stretched_elements(20)
    rng = np.random.default_rng(14)
    systems = [(A, rng.standard_normal(400), 0.0) for _ in range(500)]
    star = young_omega(JacobiRadius()(A))
    costs = []
    for offset in OFFSETS:
        omega = min(2 - (2 - star) * np.exp((star - 1) * offset), 1.995)
        costs.append(total(FixedOmega(omega), systems[:40], False) / 40)
    assert min(costs) < 0.93 * costs[0]
    learned = total(LearnedOmega(None, seed=2), systems, False) / 500
    assert learned < 0.97 * costs[0]
    assert learned < 1.04 * min(costs)


def test_looks_that_cost_more_than_they_spare_are_given_up():
    """Independent coefficients and no context: an estimate for each takes more products than CG iterations."""
    systems = [(A.tocsr(), b, 0.0) for A, b, _ in gallery.darcy_sequence(120, (20, 20), drift=1.0, seed=6)]
    fixed = min(total(FixedOmega(omega), systems, False, "cg") for omega in (1.4, 1.6, 1.8))
    learned = LearnedOmega(None, seed=3)
    spectral = SpectralOmega()
    assert total(learned, systems, False, "cg") < 1.25 * fixed  # five looks at first, which 120 systems must pay for
    assert total(spectral, systems, False, "cg") > 1.8 * fixed
    assert learned.products < 0.15 * spectral.products


@pytest.mark.parametrize("context", [True, False])
def test_a_hard_phase_after_a_long_easy_one_is_noticed(context):
    """Where the easy systems have taught that the factor does not matter."""
    A = gallery.poisson((16, 16)).tocsr()
    rng = np.random.default_rng(4)
    shifts = np.concatenate([60.0 + 0.1 * rng.random(300), np.linspace(60.0, 0.0, 60), np.zeros(140)])
    systems = [(shifted(A, shift), rng.standard_normal(256), shift) for shift in shifts]
    exact = 0
    for matrix, b, shift in systems:
        star = young_omega(4 * np.cos(np.pi / 17) / (4 + shift))
        exact += sor(matrix, b, omega=star, rtol=1e-8).iterations
    policy = LearnedOmega((0.0, 60.0) if context else None, seed=1)
    assert total(policy, systems, context) < 1.08 * exact


def test_weighting_excludes_what_cannot_be_best():
    theta = np.concatenate([np.zeros(4), np.full(OFFSETS.size - 1, 0.2)])
    tight = 1e-6 * np.eye(theta.size)
    np.testing.assert_array_equal(_probabilities(theta, tight, 0.8, 1.0, 40.0), np.eye(OFFSETS.size)[0])
    loose = _probabilities(theta, 100 * np.eye(theta.size), 0.8, 1.0, 40.0)
    np.testing.assert_allclose(loose[1:], 1 / (OFFSETS.size + 40.0 * 0.8 * 0.2))
    assert np.isclose(loose.sum(), 1.0)


def test_recursive_least_squares_is_the_weighted_ridge_regression():
    rng = np.random.default_rng(2)
    theta, covariance = np.zeros(12), np.diag(np.full(12, 10.0))
    rows, values, weights = [], [], []
    for _ in range(80):
        g, played, cost = -3 * rng.random(), int(rng.integers(9)), float(rng.integers(2, 60))
        row = np.zeros(12)
        row[:4] = g ** np.arange(4)
        if played:
            row[3 + played] = 0.7
        size = np.exp(np.clip(row @ theta, 0, 20))
        rows.append(row)
        values.append(np.log(cost))
        weights.append(1 / (0.03**2 + 0.1 / size**2))
        _learn(theta, covariance, g, 0.7, played, cost)
    F, W = np.array(rows), np.diag(weights)
    expected = np.linalg.solve(F.T @ W @ F + 0.1 * np.eye(12), F.T @ W @ np.array(values))
    np.testing.assert_allclose(theta, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("context", [True, False])
def test_interrupting_and_resuming_gives_the_same_choices(context):
    def choices(policy, systems):
        chosen = []
        for A, b, c in systems:
            chosen.append(policy.suggest(c if context else None, A))
            policy.update(sor(A, b, omega=chosen[-1], rtol=1e-8).iterations)
        return chosen

    def fresh():
        return LearnedOmega((-0.1, 0.5) if context else None, seed=8)

    systems = list(stream("drawn", 120, seed=3))
    whole = choices(fresh(), systems)
    assert choices(fresh(), systems) == whole
    first = fresh()
    assert choices(first, systems[:47]) == whole[:47]
    state = first.state_dict()
    second = fresh()
    second.load_state_dict(state)
    assert choices(second, systems[47:]) == whole[47:]
    assert second.products > state["model/radius/products"] or context
    with pytest.raises(ValueError, match="saved with seed 8"):
        LearnedOmega((-0.1, 0.5) if context else None, seed=9).load_state_dict(state)
