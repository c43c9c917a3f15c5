"""Prediction to certified solution: the certificate is true whatever the prediction, and a guess is never a burden."""

import numpy as np
import pytest

from datagen.family import build
from operators.data import Channel
from operators.hybrid import certify
from solvers import Status, solve


class Oracle:
    """Predicts the solution plus an error of a given kind and relative size, or something else entirely."""

    def __init__(self, family, change):
        self.family, self.change = family, change

    def predict(self, fields):
        from datagen.family import Sample

        system = self.family.system(Sample({"coefficient": fields[0, 0]}))
        x = solve(system.A, system.b, "direct", rtol=1e-10).x
        return system.to_field(self.change(x))[None, None]


@pytest.fixture(scope="module")
def problem():
    family = build("darcy", grid=32)
    return family, family.sample(np.random.default_rng(8))


CHANGES = {
    "exact": lambda x: x,
    "scaled": lambda x: 1e3 * x,
    "noisy": lambda x: x * (1 + 0.03 * np.random.default_rng(1).standard_normal(x.size)),
    "smooth error": lambda x: x + 0.03 * np.linalg.norm(x) / 32 * np.sin(np.linspace(0, np.pi, x.size)),
    "zero": lambda x: 0 * x,
    "opposite": lambda x: -x,
    "noise": lambda x: np.random.default_rng(2).standard_normal(x.size),
    "huge": lambda x: 1e30 * np.random.default_rng(2).standard_normal(x.size),
}


@pytest.mark.parametrize("name", CHANGES)
def test_certificate_is_true_and_the_guess_is_never_worse_than_none(problem, name):
    family, sample = problem
    certified = certify(Oracle(family, CHANGES[name]), family, sample, 1e-8)
    system = family.system(sample)
    x = system.to_vector(certified.solution["pressure"])
    assert certified.result.converged
    assert np.linalg.norm(system.b - system.A @ x) <= 1e-8 * np.linalg.norm(system.b) * (1 + 1e-12)
    assert certified.energy_error <= 1 + 1e-9
    # In the energy norm a scaled guess is at least as near as zero; CG's count then differs by rounding's few.
    assert certified.saved_iterations >= -3
    truth = solve(system.A, system.b, "direct", rtol=1e-10).x
    np.testing.assert_allclose(x, truth, atol=1e-6 * abs(truth).max())


def test_exact_and_scaled_predictions_need_next_to_nothing(problem):
    family, sample = problem
    for name in ("exact", "scaled"):
        certified = certify(Oracle(family, CHANGES[name]), family, sample, 1e-8)
        assert certified.result.iterations <= 1
        assert certified.saved_iterations > 20
    assert certified.scale == pytest.approx(1e-3)
    assert certified.prediction_error == pytest.approx(999, rel=1e-6)


def test_errors_are_measured_against_the_certified_solution(problem):
    family, sample = problem
    certified = certify(Oracle(family, lambda x: 1.05 * x), family, sample, 1e-10)
    assert certified.prediction_error == pytest.approx(0.05, rel=1e-6)
    assert certified.prediction_residual == pytest.approx(0.05, rel=1e-6)
    assert "saved" in str(certified)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_prediction_that_is_not_finite_is_said_and_left_out(problem, value):
    family, sample = problem
    certified = certify(Oracle(family, lambda x: np.where(np.arange(x.size) == 5, value, x)), family, sample)
    assert certified.converged
    assert "prediction is not finite" in certified.result.reason
    assert certified.scale == 0.0
    assert certified.saved_iterations == 0
    assert np.isnan(certified.prediction_error)
    assert "nan" not in str(certified)


def test_predictions_of_another_shape_or_family_are_refused(problem):
    family, sample = problem

    class Wrong:
        def predict(self, fields):
            return np.zeros((1, 2, 32, 32))

    with pytest.raises(ValueError, match=r"shape \(2, 32, 32\)"):
        certify(Wrong(), family, sample)
    Wrong.outputs = [Channel("potential")]
    with pytest.raises(ValueError, match="predicts potential, and family darcy has pressure"):
        certify(Wrong(), family, sample)
    Wrong.outputs, Wrong.inputs = [Channel("pressure")], [Channel("source")]
    with pytest.raises(ValueError, match="needs source, and samples of family darcy have coefficient"):
        certify(Wrong(), family, sample)


class Anything:
    """Predicts ones."""

    def predict(self, fields):
        return np.ones((len(fields), 1, *fields.shape[2:]))


def test_an_indefinite_matrix_is_not_certified_and_says_so():
    family = build("helmholtz", grid=24)
    certified = certify(Anything(), family, family.sample(np.random.default_rng(0)))
    assert not certified.converged
    assert certified.result.status in (Status.INDEFINITE_OPERATOR, Status.INDEFINITE_PRECONDITIONER)
    assert np.isnan(certified.prediction_error)
    assert "not certified" in str(certified)
    (field,) = certified.solution.values()
    assert np.isfinite(field).all()


def test_too_few_iterations_are_not_certified(problem):
    family, sample = problem
    certified = certify(Anything(), family, sample, maxiter=3)
    assert certified.result.status is Status.MAX_ITERATIONS
    assert not certified.converged
    system = family.system(sample)
    x = system.to_vector(certified.solution["pressure"])
    assert np.linalg.norm(system.b - system.A @ x) == pytest.approx(certified.result.residual_norm, rel=1e-9)


def test_families_without_linear_systems_are_refused():
    family = build("burgers", grid=16, nu=0.1)
    with pytest.raises(ValueError, match="burgers evolves in time without linear systems"):
        certify(Anything(), family, family.sample(np.random.default_rng(0)))


# -------------------------------------------------------------------------------------------------- steps in time


class Clairvoyant:
    """Knows the heat equation with a constant coefficient: cosine modes decay, each by its own rate."""

    def __init__(self, family, sample, change=lambda u, exact: exact, step=None):
        self.family, self.sample, self.change = family, sample, change
        self.takes_lead_time, self.step = step is None, step or 0.1
        self.inputs, self.outputs = [Channel("temperature")], [Channel("temperature")]
        self.asked = 0

    def predict(self, fields, lead_time=None):
        from datagen import Sample

        self.asked += 1
        now = Sample({"initial_temperature": fields[0, 0]}, self.sample.scalars)
        ahead = self.step if lead_time is None else lead_time
        return self.change(fields, self.family.exact(now, [ahead]))


HEAT = {"grid": 24, "coefficient": "constant", "kappa": "constant", "sides": "neumann", "final_time": 0.8, "frames": 5}


@pytest.fixture(scope="module")
def heat():
    family = build("heat", **HEAT, diffusivity=0.1, step=0.1)
    return family, family.sample(np.random.default_rng(3))


def test_steps_are_the_familys_own_whatever_is_predicted(heat):
    family, sample = heat
    truth = family.evolve(family.initial(sample), family.times, sample)[:, 0]
    changes = {
        "exact": lambda u, exact: exact,
        "noise": lambda u, exact: exact + np.random.default_rng(0).normal(size=exact.shape),
        "not finite": lambda u, exact: np.nan * exact,
        "nothing": lambda u, exact: 0 * exact,
        "huge": lambda u, exact: -1e200 * exact,
    }
    for name, change in changes.items():
        certified = certify(Clairvoyant(family, sample, change), family, sample, 1e-11)
        assert certified.converged, name
        assert certified.guided.solves == certified.warm.solves == 16  # 8 steps of two stages
        # 16 systems to 1e-11 each.
        np.testing.assert_allclose(certified.solution["temperature"], truth, atol=1e-9)
        assert certified.relative_residual <= 1.001e-11
        assert certified.unusable == (16 if name == "not finite" else 0)
        # On the line between two guesses: never farther than the integrator's own, in the norm that CG minimises.
        assert certified.saved_iterations >= -3 * certified.guided.solves, name


def test_a_good_prediction_saves_iterations_against_the_integrators_guess(heat):
    family, sample = heat
    certified = certify(Clairvoyant(family, sample), family, sample, 1e-3)
    assert certified.guided.iterations < certified.warm.iterations < certified.from_zero.iterations
    assert certified.prediction_error < 0.05
    assert f"{certified.saved_iterations} saved" in str(certified)


def test_one_lead_time_is_taken_as_a_slope(heat):
    family, sample = heat
    short = Clairvoyant(family, sample, step=1e-4)
    certified = certify(short, family, sample, 1e-8)
    assert short.asked == 16
    assert certified.converged
    # Its slope is the equation's at the beginning, as that of an explicit Euler step: of first order, so no worse.
    assert certified.prediction_error < 0.2


def test_a_step_that_cannot_be_solved_ends_the_trajectory_and_says_so(heat):
    family, sample = heat
    certified = certify(Clairvoyant(family, sample), family, sample, 1e-10, maxiter=1)
    assert certified.result.status is Status.MAX_ITERATIONS
    assert not certified.converged
    assert len(certified.solution["temperature"]) == 1  # the initial state is all that is known
    assert "not certified" in str(certified)


def test_steps_need_a_model_in_time_with_the_same_fields(heat):
    family, sample = heat
    with pytest.raises(ValueError, match="does not step in time"):
        certify(Anything(), family, sample)
    other = Clairvoyant(family, sample)
    other.outputs = [Channel("displacement")]
    with pytest.raises(ValueError, match="predicts displacement, and family heat has temperature"):
        certify(other, family, sample)


def test_waves_have_two_channels():
    family = build("wave", grid=12, final_time=0.5, frames=3)
    sample = family.sample(np.random.default_rng(0))

    class Still(Clairvoyant):
        def predict(self, fields, lead_time=None):
            return fields[:, :2]

    model = Still(family, sample)
    model.inputs = model.outputs = [Channel(f.name) for f in family.role("output")]
    certified = certify(model, family, sample, 1e-11)
    truth = family.evolve(family.initial(sample), family.times, sample)
    for number, values in enumerate(certified.solution.values()):
        np.testing.assert_allclose(values, truth[:, number], atol=1e-8 * np.abs(truth).max())
