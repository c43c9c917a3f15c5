"""Result, Status and ConvergenceError."""

import numpy as np
import pytest

from solvers import ConvergenceError, Result, Status, cg, gallery
from solvers.plots import convergence


def result(status=Status.CONVERGED, **changes):
    fields = {
        "x": np.zeros(3),
        "status": status,
        "method": "cg",
        "reason": "",
        "iterations": 4,
        "matvecs": 5,
        "preconditioner_applies": 0,
        "residual_norm": 1e-6,
        "history": np.geomspace(1.0, 1e-6, 5),
        "setup_seconds": 0.0,
        "solve_seconds": 0.1,
    }
    return Result(**(fields | changes))


def test_info_is_scipys():
    assert result().info == 0
    for status in (Status.MAX_ITERATIONS, Status.STAGNATED, Status.USER_STOP, Status.TIME_LIMIT):
        assert result(status).info == 4
        assert result(status, iterations=0).info == 1
    negative = [
        result(status).info
        for status in (
            Status.BREAKDOWN,
            Status.INDEFINITE_OPERATOR,
            Status.INDEFINITE_PRECONDITIONER,
            Status.NONFINITE_INPUT,
            Status.NONFINITE_OUTPUT,
            Status.INCONSISTENT,
        )
    ]
    assert all(info < 0 for info in negative)
    assert len(set(negative)) == len(negative)


def test_every_status_says_what_to_try():
    assert len({status.value for status in Status}) == len(Status)
    for status in Status:
        assert status is Status.CONVERGED or len(status.value) > 40


def test_single_right_hand_side_has_arrays_of_one():
    assert result().statuses == (Status.CONVERGED,)
    np.testing.assert_array_equal(result().residual_norms, [1e-6])


def test_print_is_a_diagnostic_without_x():
    text = str(result(Status.STAGNATED, reason="because", x=np.full(3, 0.123456)))
    for part in ("STAGNATED", "loosen rtol", "1.000e-06", "initial 1.000e+00", "4 iterations", "because"):
        assert part in text
    assert "0.123" not in text
    many = cg(gallery.poisson((5,)), np.array([[1.0, np.nan]] * 5))
    assert "1 CONVERGED, 1 NONFINITE_INPUT" in str(many)
    assert "Result NONFINITE_INPUT" in repr(many)


def test_is_frozen():
    with pytest.raises(AttributeError):
        result().status = Status.CONVERGED


def test_error_carries_the_result():
    bad = result(Status.STAGNATED)
    error = ConvergenceError(bad)
    assert error.result is bad
    assert "STAGNATED" in str(error)


def test_convergence_plot_shows_each_history():
    A = gallery.poisson((30,))
    one = cg(A, np.ones(30), rtol=1e-8)
    many = cg(A, np.random.default_rng(0).standard_normal((30, 2)), rtol=1e-8, maxiter=5)
    axes = convergence([one, many], labels=["first", "second"]).axes[0]
    assert len(axes.lines) == 3
    np.testing.assert_allclose(axes.lines[0].get_ydata(), one.history / one.history[0])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["first", "second (MAX_ITERATIONS)"]
    assert len(convergence(one).axes[0].lines) == 1


def test_convergence_plot_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        convergence([])
    with pytest.raises(ValueError, match="labels"):
        convergence([result()], labels=[])
