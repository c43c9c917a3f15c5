"""Bandits that tune a parameter: against the problems they claim to solve, solved by others, and the theorems."""

import numpy as np
import pytest
import scipy.optimize

from solvers.tuning import (
    BinnedTsallisINF,
    ChebyshevContextual,
    FixedOmega,
    Guard,
    LearnedOmega,
    SpectralOmega,
    TsallisINF,
    best_fixed,
    best_per_instance,
)
from solvers.tuning.chebyshev_contextual import bounded_least_squares, chebyshev_polynomials, inverse_gap_weights
from solvers.tuning.tsallis_inf import tsallis_probabilities

ARMS = np.linspace(1.0, 1.95, 20)
POLICIES = {
    "Tsallis-INF": lambda seed: TsallisINF(ARMS, seed=seed),
    "reduced variance": lambda seed: TsallisINF(ARMS, reduced_variance=True, seed=seed),
    "binned": lambda seed: BinnedTsallisINF(ARMS, (0.0, 1.0), seed=seed),
    "ChebCB": lambda seed: ChebyshevContextual(ARMS, (0.0, 1.0), seed=seed),
    "ChebCB, theory": lambda seed: ChebyshevContextual(ARMS, (0.0, 1.0), constants="theory", seed=seed),
    "LearnedOmega, no matrix": lambda seed: LearnedOmega((0.0, 1.0), seed=seed),
}


def cost(omega, context, noise):
    """Iterations with a best factor that depends on the context."""
    return 20.0 + 200.0 * abs(omega - 1.2 - 0.6 * context) + np.floor(8.0 * noise)


def play(policy, rounds, seed=0, first=0):
    """Choices and costs on a stream that depends on the seed alone."""
    stream = np.random.default_rng(seed).random((first + rounds, 2))[first:]
    chosen, paid = [], []
    for context, noise in stream:
        chosen.append(policy.suggest(float(context)))
        paid.append(cost(chosen[-1], context, noise))
        policy.update(paid[-1])
    return np.array(chosen), np.array(paid)


# -- Tsallis-INF -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eta", [0.05, 0.5, 2.0])
def test_probabilities_solve_the_stated_minimisation(eta):
    """The KKT conditions: k_i - (2 / eta) / sqrt(p_i) the same for all i; and scipy finds nothing better."""
    rng = np.random.default_rng(3)
    for losses in (10.0 * rng.random(4), 300.0 * rng.random(20), np.array([0.0, 1e6]), np.zeros(3)):
        p = tsallis_probabilities(losses, eta)
        assert abs(p.sum() - 1.0) < 1e-9
        assert (p > 0).all()
        gradient = losses - 2.0 / (eta * np.sqrt(p))
        scale = np.abs(losses).max() + 2.0 / (eta * np.sqrt(p.min()))
        np.testing.assert_allclose(gradient, gradient[0], atol=1e-12 * scale)

    def objective(p):
        return losses @ p - 4.0 / eta * np.sqrt(p).sum()

    losses = np.array([0.0, 0.7, 3.0])
    best = scipy.optimize.minimize(
        objective,
        np.full(3, 1 / 3),
        bounds=[(1e-9, 1.0)] * 3,
        constraints={"type": "eq", "fun": lambda p: p.sum() - 1.0},
        options={"ftol": 1e-14},
    )
    ours = tsallis_probabilities(losses, eta)
    assert objective(ours) <= objective(best.x) + 1e-10
    np.testing.assert_allclose(ours, best.x, atol=1e-4)  # the objective is flat, half the digits are the most


def published_newton(losses, eta):
    """The iteration of the published code: 20 steps from -1."""
    x = -1.0
    for _ in range(20):
        p = 4.0 / (eta * (losses - x)) ** 2
        x -= (p.sum() - 1.0) / (eta * (p**1.5).sum())
    return p


@pytest.mark.parametrize("reduced", [False, True])
def test_probabilities_sum_to_one_on_adversarial_streams_where_the_published_newton_diverges(reduced):
    """The arm that is likeliest costs most; then all cost 1e6 times as much. Checked each round."""
    policy = TsallisINF(ARMS, reduced_variance=reduced, seed=5)
    published = 0.0
    with np.errstate(all="ignore"):
        for t in range(4000):
            policy.suggest()
            assert abs(policy.probabilities.sum() - 1.0) < 1e-9
            p = published_newton(policy.estimates, 2.0 / np.sqrt(t + 1.0))
            published = max(published, abs(p.sum() - 1.0))
            bad = policy.probabilities[policy._played] >= np.median(policy.probabilities)
            policy.update((100.0 if bad else 1.0) * (1e6 if t > 2000 else 1.0))
    assert published > 1e3


def test_regret_on_a_stochastic_bandit_is_below_the_bound_and_below_uniform():
    """Zimmert and Seldin, theorem 1: for losses in [0, 1] at most 4 sqrt(d T) + 1 in expectation."""
    d, T, runs = 10, 4000, 8
    means = np.full(d, 0.6)
    means[7] = 0.4
    for reduced in (False, True):
        regrets = []
        for seed in range(runs):
            rng = np.random.default_rng(seed)
            policy = TsallisINF(np.arange(d), reduced_variance=reduced, seed=seed)
            total = 0.0
            for _ in range(T):
                arm = int(policy.suggest())
                policy.update(1.0 + float(rng.random() < means[arm]))  # one less is the loss
                total += means[arm] - means[7]
            regrets.append(total)
        # Losses are divided by their running mean of about one half, so that K is about two of these units.
        assert np.mean(regrets) < 4 * np.sqrt(d * T) + 1
        assert np.mean(regrets) < 0.5 * (means.mean() - means[7]) * T


@pytest.mark.parametrize("reduced", [False, True])
def test_estimates_are_unbiased_by_enumeration(reduced):
    """Over all arms that could have been drawn, weighted with their probabilities, the estimate grows by the loss."""
    policy = TsallisINF(ARMS[:5], reduced_variance=reduced, seed=2)
    play(policy, 300)
    policy.suggest()
    before, state = policy.estimates, policy.state_dict()
    assert ((state["rounds"] * policy.probabilities >= 16).any() and reduced) or not reduced
    costs = np.array([30.0, 50.0, 20.0, 80.0, 25.0])
    scale = state["total"] / state["rounds"] - 1.0
    growth = np.zeros(5)
    for arm in range(5):
        policy.load_state_dict(state | {"played": arm})
        policy.update(costs[arm])
        # The scale follows the costs; what is unbiased is the estimate at a fixed scale.
        own = policy.state_dict()
        estimate = (own["sums"] - own["weights"]) / scale + own["shifts"]
        growth += state["probabilities"][arm] * (estimate - before)
    np.testing.assert_allclose(growth, (costs - 1.0) / scale, rtol=1e-9)


def test_reduced_variance_has_less_variance():
    """Of the growth of the estimate of the likeliest arm, with losses about one half."""
    spread = {}
    for reduced in (False, True):
        policy = TsallisINF(ARMS[:5], reduced_variance=reduced, seed=2)
        policy.load_state_dict(
            policy.state_dict() | {"rounds": 1000, "total": 21000.0, "probabilities": np.full(5, 0.2), "played": 0}
        )
        state = policy.state_dict()
        moments = np.zeros(2)
        for arm in range(5):
            policy.load_state_dict(state | {"played": arm})
            policy.update(11.0)  # half the mean
            own = policy.state_dict()
            growth = ((own["sums"] - own["weights"]) / 20.0 + own["shifts"])[0]
            moments += 0.2 * np.array([growth, growth**2])
        spread[reduced] = moments[1] - moments[0] ** 2
    assert spread[True] < 0.05 * spread[False]


def test_costs_in_seconds_and_costs_of_one_iteration_are_no_trouble():
    for scale in (1e-4, 1.0):
        policy = TsallisINF([1.0, 2.0, 3.0], seed=1)
        for _ in range(2000):
            policy.update(scale * (1.0 if policy.suggest() == 2.0 else 3.0))
        assert policy.probabilities.argmax() == 1
    policy = TsallisINF([1.0, 2.0], seed=1)
    for _ in range(50):
        policy.suggest()
        policy.update(1)
    np.testing.assert_allclose(policy.probabilities, 0.5)


# -- ChebCB ----------------------------------------------------------------------------------------------------------


def test_features_are_chebyshev_polynomials_on_the_interval():
    x = np.linspace(-1, 1, 41)
    ours = np.array([chebyshev_polynomials(value, 6) for value in x])
    np.testing.assert_allclose(ours, np.cos(np.arange(6) * np.arccos(x)[:, None]), atol=1e-13)
    policy = ChebyshevContextual(ARMS, (-0.15, 0.65))
    policy.suggest(0.05)  # a quarter of the way: -1/2
    np.testing.assert_allclose(policy._features, np.cos(np.arange(6) * np.arccos(-0.5)), atol=1e-12)


def test_bounded_least_squares_agrees_with_scipy():
    rng = np.random.default_rng(8)
    met = 0
    for _ in range(200):
        x = rng.random(12 + rng.integers(30)) * 2 - 1
        F = np.array([chebyshev_polynomials(value, 6) for value in x])
        y = rng.standard_normal(len(x)) + 2 * F @ rng.standard_normal(6)
        bounds = rng.random(6) * 3
        ours, hit = bounded_least_squares(F.T @ F, F.T @ y, bounds)
        exact = scipy.optimize.lsq_linear(F, y, (-bounds, bounds), method="bvls", tol=1e-14)
        assert (np.abs(ours) <= bounds * (1 + 1e-14)).all()
        # The normal equations have the square of the condition number, below 1e3 for these points.
        np.testing.assert_allclose(ours, exact.x, atol=1e-6)
        assert hit == bool((np.abs(exact.x) > bounds * (1 - 1e-9)).any())
        met += hit
    assert met > 50
    F, y = np.ones((1, 6)), np.array([3.0])  # one sample: the shortest solution
    np.testing.assert_allclose(bounded_least_squares(F.T @ F, F.T @ y, np.full(6, 9.0))[0], 0.5, atol=1e-3)


@pytest.mark.parametrize("constants", ["published", "theory"])
def test_chebyshev_contextual_does_what_its_docstring_says(constants):
    """All that it keeps against a straightforward computation from the whole history with scipy's least squares."""
    policy = ChebyshevContextual(ARMS[::4], (0.0, 1.0), constants=constants, seed=4)
    history = []
    checked = {}
    m = 6
    for t, (context, noise) in enumerate(np.random.default_rng(1).random((120, 2)), start=1):
        omega = policy.suggest(context)
        predicted, old_scale = policy._predicted, policy._scale
        paid = cost(omega, context, 20 * noise) * (3 if t == 60 else 1)  # a new largest cost, and other bounds
        policy.update(paid)
        history.append((omega, np.cos(np.arange(m) * np.arccos(2 * context - 1)), paid, predicted, old_scale))
        costs = np.array([entry[2] for entry in history])
        K = costs.max()
        CL = K if constants == "published" else K - costs.min()
        N = 2 + 4 * CL / K * (1 + np.log(m))
        assert np.isclose(policy._scale, K * N)
        alpha = (np.pi + 2 / np.pi * np.log(2 * m + 1)) / (2 * K * N * (m + 1)) * CL
        for arm, factor in enumerate(ARMS[::4] if t in (59, 60, 120) else ()):
            own = [entry for entry in history if entry[0] == factor]
            if len(own) < m:
                continue
            F, y = np.array([e[1] for e in own]), np.array([(e[2] - 1) / (K * N) for e in own])
            bounds = np.r_[1 / N, 2 * CL / (K * N * np.arange(1, m))]
            best = scipy.optimize.lsq_linear(F, y, (-bounds, bounds), method="bvls", tol=1e-14).x
            theta = policy._coefficients[arm] / (K * N)
            assert (np.abs(theta) <= bounds * (1 + 1e-12)).all()
            # Values, not coefficients: six samples at random places determine these badly.
            np.testing.assert_allclose(F @ theta, F @ best, atol=1e-6)
            checked[t] = checked.get(t, 0) + 1
    assert checked[59] >= 3
    assert checked[120] >= 3
    if constants == "published":
        R = sum((entry[3] - entry[2] / (K * N)) ** 2 for entry in history)
        rate = 2 * t * np.sqrt(5 * t / (R + 2 * alpha**2 * t))
        assert rate <= policy._gamma * (1 + 1e-9)  # less the misfit where a bound mattered
        assert policy._gamma <= 3 * rate
    else:
        assert policy._gamma <= 2 * np.sqrt(5 * t / (2 * alpha**2 * t))


def test_inverse_gap_weights():
    scores = np.array([0.3, 0.1, 0.9, 0.1])
    p = inverse_gap_weights(scores, 10.0)
    np.testing.assert_allclose(p[[0, 2, 3]], 1 / (4 + 10 * (scores[[0, 2, 3]] - 0.1)))
    assert np.isclose(p.sum(), 1.0)
    np.testing.assert_allclose(inverse_gap_weights(scores, 0.0), 0.25)


def test_the_context_is_put_to_use():
    """The best fixed arm pays for the spread of the best factor over the contexts, ChebCB need not."""
    stream = np.random.default_rng(0).random((3000, 2))
    costs = np.array([[cost(omega, context, noise) for omega in ARMS] for context, noise in stream])
    _, paid = play(ChebyshevContextual(ARMS, (0.0, 1.0), seed=1), 3000)
    _, fixed = best_fixed(costs)
    assert best_per_instance(costs) < paid.sum() < 0.7 * fixed
    _, binned = play(BinnedTsallisINF(ARMS, (0.0, 1.0), seed=1), 3000)
    assert paid.sum() < binned.sum() < fixed * 1.2


# -- The protocol ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", POLICIES)
def test_the_same_seed_repeats_and_a_saved_state_goes_on(name):
    whole = POLICIES[name](3)
    chosen, _ = play(whole, 400)
    again, _ = play(POLICIES[name](3), 400)
    np.testing.assert_array_equal(chosen, again)
    other, _ = play(POLICIES[name](4), 400)
    assert (chosen != other).any()
    for interrupted in (1, 157):
        policy = POLICIES[name](3)
        play(policy, interrupted)
        state = policy.state_dict()
        assert all(isinstance(v, np.ndarray | np.generic | int | float | bool | tuple) for v in state.values())
        play(policy, 50, first=interrupted)  # a state is a copy
        fresh = POLICIES[name](3)
        fresh.load_state_dict(state)
        later, _ = play(fresh, 400 - interrupted, first=interrupted)
        np.testing.assert_array_equal(later, chosen[interrupted:])
        for key, value in vars(whole).items():
            if isinstance(value, int | float | np.ndarray):
                np.testing.assert_array_equal(getattr(fresh, key), value, err_msg=key)


@pytest.mark.parametrize("name", POLICIES)
def test_a_state_between_suggestion_and_cost(name, tmp_path):
    """Through a file, as a generator of datasets would save it."""
    policy = POLICIES[name](9)
    play(policy, 30)
    policy.suggest(0.3)
    np.savez(tmp_path / "state.npz", **policy.state_dict())
    fresh = POLICIES[name](9)
    with np.load(tmp_path / "state.npz") as state:
        fresh.load_state_dict(dict(state))
    for both in (policy, fresh):
        both.update(77.0)
    np.testing.assert_array_equal(play(policy, 60)[0], play(fresh, 60)[0])


def test_states_of_others_are_refused():
    state = TsallisINF(ARMS, seed=1).state_dict()
    with pytest.raises(ValueError, match="saved with arms"):
        TsallisINF(ARMS[:3], seed=1).load_state_dict(state)
    with pytest.raises(ValueError, match="saved with seed 1"):
        TsallisINF(ARMS, seed=2).load_state_dict(state)
    with pytest.raises(ValueError, match="not one of ChebyshevContextual"):
        ChebyshevContextual(ARMS, (0, 1)).load_state_dict(state)


@pytest.mark.parametrize("make", [TsallisINF, lambda arms: ChebyshevContextual(arms, (0, 1))])
@pytest.mark.parametrize("arms", [[], np.ones((2, 2)), [1.0, np.nan]])
def test_arms_that_are_none_are_refused(make, arms):
    with pytest.raises(ValueError, match="arms: expected"):
        make(arms)


@pytest.mark.parametrize("name", [n for n in POLICIES if n not in ("Tsallis-INF", "reduced variance")])
def test_bad_contexts_are_refused(name):
    policy = POLICIES[name](0)
    for context in ([0.1, 0.2], [], np.ones((1, 1)), None, np.nan, np.inf):
        with pytest.raises(ValueError, match="context: expected"):
            policy.suggest(context)
    assert policy.suggest(np.array([0.5])) in ARMS
    assert policy.suggest(7.0) in ARMS  # beyond the interval: its end


@pytest.mark.parametrize("name", [*POLICIES, "fixed"])
def test_bad_costs_are_refused_and_change_nothing(name):
    policy = FixedOmega(1.5) if name == "fixed" else POLICIES[name](0)
    with pytest.raises(RuntimeError, match="call suggest first"):
        policy.update(3.0)
    policy.suggest(0.5)
    before = policy.state_dict()
    for value in (np.nan, np.inf, -1.0, "3", None, 1j):
        with pytest.raises(ValueError, match="cost: expected a finite number"):
            policy.update(value)
    for key, value in policy.state_dict().items():
        np.testing.assert_array_equal(value, before[key])
    policy.update(3)
    with pytest.raises(RuntimeError, match="call suggest first"):
        policy.update(3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TsallisINF(ARMS, seed=-1), "seed: expected"),
        (lambda: ChebyshevContextual(ARMS, (1.0, 1.0)), "interval: expected"),
        (lambda: ChebyshevContextual(ARMS, (0.0, np.inf)), "interval: expected"),
        (lambda: ChebyshevContextual(ARMS, (0, 1), constants="best"), "constants: expected"),
        (lambda: ChebyshevContextual(ARMS, (0, 1), degrees=0), "degrees: expected"),
        (lambda: BinnedTsallisINF(ARMS, (0, 1), bins=0), "bins: expected"),
        (lambda: LearnedOmega((3.0, 1.0)), "interval: expected"),
        (lambda: LearnedOmega(None).suggest(0.5), "made for a stream without"),
        (lambda: SpectralOmega().suggest(), "has seen no matrix"),
        (lambda: Guard(factor=1.0), "factor: expected"),
        (lambda: Guard(window=2), "window: expected"),
        (lambda: best_fixed(np.empty((0, 3))), "costs: expected"),
        (lambda: best_per_instance(np.array([[1.0, np.nan]])), "costs: expected"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_hindsight():
    costs = np.array([[3, 1, 9], [3, 8, 1], [3, 2, 9]])
    assert best_fixed(costs) == (0, 9.0)
    assert best_per_instance(costs) == 4.0


def test_a_guarded_solve_charges_both_and_a_bad_arm_costs_a_bounded_multiple():
    """Nobody pays more than the limit and the rescue, whatever the arm would have cost."""
    guard = Guard(factor=3.0)
    asked = []

    def attempt(true_cost):
        def run(limit):
            asked.append(limit)
            return (true_cost, True) if true_cost <= limit else (limit, False)

        return run

    for k in range(30):
        assert guard.run(attempt(10.0 + k % 3), lambda: 40.0) == 10.0 + k % 3
    assert asked[0] == np.inf
    assert guard.limit == 36.0
    assert guard.run(attempt(1e9), lambda: 40.0) == 76.0
    assert guard.stopped == 1
    # One dear solve does not move the limit, ever dearer systems do.
    assert guard.limit == 36.0
    for _ in range(10):
        guard.run(attempt(100.0), lambda: 40.0)
    assert guard.limit > 100.0
    fresh = Guard(factor=3.0)
    fresh.load_state_dict(guard.state_dict())
    assert fresh.limit == guard.limit
