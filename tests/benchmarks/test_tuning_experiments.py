"""The experiments with learned relaxation factors: their systems, their counts, and that they can be resumed."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse.linalg as sla

from solvers import sor
from solvers.tuning import FixedOmega, young_omega


@pytest.fixture(scope="module")
def experiments():
    """The modules, imported as their commands do."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    try:
        yield [importlib.import_module(f"benchmarks.{name}") for name in ("shifted_laplacian", "heat_omega", "tuning")]
    finally:
        sys.path.pop(0)


def test_the_table_counts_what_sor_does(experiments):
    """Without the sweep that finds the residual of the one before it small enough, as the paper counts."""
    shifted, _, _ = experiments
    shifts, b = shifted.draw(12, "high variance", np.random.default_rng(5))
    omegas = np.broadcast_to([1.0, 1.4, 1.65, 1.95], (12, 4)).copy()
    counts = shifted.sweeps(shifts, b, omegas)
    for t in range(12):
        A = shifted.shifted(shifts[t])
        for a, omega in enumerate(omegas[t]):
            result = sor(A, b[t], omega=omega, rtol=1e-8, maxiter=10_001)
            assert counts[t, a] == result.iterations - 1
            history = result.history[:-1]
            assert (history[: counts[t, a]] > 1e-8 * history[0]).all()


def test_systems_of_the_shifted_laplacian(experiments):
    shifted, _, _ = experiments
    shifts, b = shifted.draw(4000, "low variance", np.random.default_rng(1))
    assert (np.linalg.norm(b, axis=1) <= 10.0).all()
    # Mean and variance of Beta(2, 6), within five standard errors.
    assert abs(shifts.mean() - 0.0) < 5 * 0.6 * np.sqrt(12 / 64 / 9 / 4000)
    A = shifted.shifted(0.25).toarray()
    np.testing.assert_allclose(np.diag(A), 4.25)
    eigenvalues = np.linalg.eigvalsh(np.eye(100) - A / 4.25)
    assert np.isclose(eigenvalues[-1], 4 * np.cos(np.pi / 11) / 4.25)


def test_a_stopped_sweep_is_finished_by_cg_and_both_are_charged(experiments):
    shifted, _, _ = experiments
    rng = np.random.default_rng(2)
    b = rng.standard_normal((60, 100))
    shifts = np.full(60, -0.1)
    dear = int(shifted.sweeps(shifts[-1:], b[-1:], np.array([[1.0]]))[0, 0])

    class Late(FixedOmega):
        """Good for 59 systems, then Gauss-Seidel."""

        calls = 0

        def suggest(self, context=None, A=None):
            self.calls += 1
            super().suggest()
            return 1.75 if self.calls < 60 else 1.0

    result = shifted.run(Late(1.0), shifts, b)
    assert result["stopped"] == 1
    ordinary = shifted.sweeps(shifts, b, np.full((60, 1), 1.75))[:-1].sum()
    assert ordinary < result["total"] < ordinary + dear


def test_heat_states_solve_the_systems(experiments):
    """The state after a step, by sine transforms, is the solution that a direct solver finds."""
    _, heat, _ = experiments
    steps = list(heat.systems(12, 40))
    for (A, b, u, context), (_, _, following, _), t in zip(steps[:-1], steps[1:], np.arange(39), strict=True):
        np.testing.assert_allclose(sla.spsolve(A.tocsc(), b), following, atol=1e-12)
        assert context == heat.kappa(1e-3 * t)
        assert u.shape == (121,)
    (A, b, u, _) = steps[7]
    middle = 7.5e-3
    half = 0.5e-3 * heat.kappa(middle)
    laplacian = (A.toarray() - np.eye(121)) / half
    np.testing.assert_allclose(np.linalg.eigvalsh(laplacian)[0], 2 * (24 * np.sin(np.pi / 24)) ** 2, rtol=1e-9)
    x, y = np.meshgrid(np.arange(1, 12) / 12, np.arange(1, 12) / 12, indexing="ij")
    f = 32 * heat.bump(
        np.stack([x, y]), (0.5 + np.cos(16 * np.pi * middle) / 4, 0.5 + np.sin(16 * np.pi * middle) / 4), 0.125
    )
    np.testing.assert_allclose(b, u - half * laplacian @ u + 1e-3 * f.ravel(), atol=1e-12)
    late = heat.systems(12, 40, 30)
    np.testing.assert_array_equal(next(late)[1], steps[30][1])


def test_the_radius_of_the_heat_matrices(experiments):
    _, heat, _ = experiments
    *_, (A, _, _, _) = heat.systems(9, 600)
    diagonal = A.diagonal()
    exact = np.linalg.eigvalsh(np.eye(64) - A.toarray() / diagonal[0])[-1]
    assert heat.radius(A, 9) == pytest.approx(exact, abs=1e-12)
    assert 1.0 < young_omega(exact) < 2.0


def test_partial_results_are_written_once_and_whole(experiments, tmp_path):
    _, _, tuning = experiments
    path = tmp_path / "folder" / "one.json"
    calls = []

    def compute():
        calls.append(1)
        return {"total": 3.5}

    assert tuning.part(path, compute) == tuning.part(path, compute) == {"total": 3.5}
    assert len(calls) == 1

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tuning.part(tmp_path / "two.json", interrupted)
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_a_trial_is_the_same_each_time_and_compares_on_the_same_draws(experiments):
    shifted, _, tuning = experiments
    first, again = (shifted.trial("low variance", 3, 150, seed=77) for _ in range(2))
    assert first == again
    assert json.loads(json.dumps(first)) == first
    policies = first["policies"]
    assert policies["best arm per system"]["total"] <= policies["best fixed"]["total"]
    for omega in (1.0, 1.2, 1.4, 1.6, 1.8):
        assert policies["best fixed"]["total"] <= policies[f"omega = {omega}"]["total"]
    rows = tuning.collect([first, shifted.trial("low variance", 4, 150, seed=77)], "low variance")
    assert {row["trials"] for row in rows} == {2}
    assert tuning.table(rows).count("\n") == len(rows) + 1
    tuning.curves(rows, 150, "omega = 1.6", "title")
