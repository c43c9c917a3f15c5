"""Prediction to certified solution: the certificate is true whatever the prediction, and a guess is never a burden."""

import numpy as np
import pytest

from datagen.family import build
from operators.hybrid import certify
from solvers import solve


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


def test_unusable_predictions_are_refused(problem):
    family, sample = problem
    with pytest.raises(ValueError, match="not finite"):
        certify(Oracle(family, lambda x: np.nan * x), family, sample)

    class Wrong:
        def predict(self, fields):
            return np.zeros((1, 2, 32, 32))

    with pytest.raises(ValueError, match=r"shape \(2, 32, 32\)"):
        certify(Wrong(), family, sample)
