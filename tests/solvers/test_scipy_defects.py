"""Known defects of scipy 1.17's iterative solvers, each as a test that ours pass and scipy's fail.

The list is that of ``specs/classical.md``, B5. A test is run on both: on scipy's it must fail (a strict xfail, while
scipy is 1.17), so none of them is empty. What they ask is what anybody may ask of a solver: x is finite, info = 0 only
if the true residual meets the tolerance, a breakdown does not look like a run that only needs more iterations.
"""

import numpy as np
import pytest
import scipy
import scipy.sparse as sp
import scipy.sparse.linalg as theirs

import solvers as ours
from solvers import Status, gallery


def both(*names):
    """Run on our methods of these names, and on scipy's, which must fail."""
    fails = pytest.mark.xfail(scipy.__version__.startswith("1.17"), reason="a defect of scipy 1.17", strict=True)
    return pytest.mark.parametrize(
        "method",
        [pytest.param(getattr(ours, name), id=f"southwell {name}") for name in names]
        + [pytest.param(getattr(theirs, name), id=f"scipy {name}", marks=fails) for name in names],
    )


# What fails in scipy also warns.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def relative_residual(A, x, b):
    return np.linalg.norm(b - A @ x) / np.linalg.norm(b)


def poisson_1d(n):
    return sp.diags_array([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], offsets=[-1, 0, 1]).tocsr()


def neumann_1d(n):
    A = poisson_1d(n).tolil()
    A[0, 0] = A[n - 1, n - 1] = 1.0
    return A.tocsr()


@both("cg")
@pytest.mark.parametrize(
    ("A", "b"), [(np.diag([1.0, -1.0]), np.ones(2)), (np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([1.0, 0.0]))]
)
def test_indefinite_matrix_gives_no_nan_and_a_negative_info(method, A, b):
    x, info = method(A, b)
    assert np.isfinite(x).all()
    assert info < 0


@both("cg")
def test_residual_of_the_recurrence_is_no_success(method):
    """Single precision, 100 x 100: scipy says 0 at a true residual of 5e-4."""
    A = gallery.poisson((100, 100)).tocsr().astype(np.float32)
    A.data /= A.diagonal()[0] / 4
    b = np.ones(10_000, dtype=np.float32)
    x, info = method(A, b, rtol=1e-7)
    true = relative_residual(A.astype(float), x.astype(float), b.astype(float))
    assert info != 0 or true <= 1e-6  # ten times the tolerance: the residual itself rounds


@both("cg")
def test_inconsistent_neumann_problem_does_not_explode(method):
    A, b = neumann_1d(50), np.arange(1.0, 51.0)
    x, info = method(A, b)
    assert np.isfinite(x).all()
    assert info < 0  # more iterations are of no use
    assert np.linalg.norm(b - A @ x) <= np.linalg.norm(b)  # x is no worse than nothing


@both("minres")
@pytest.mark.parametrize("n", [2, 50])
def test_breakdown_is_no_success(method, n):
    """scipy's minres says 0 with x of norm 1e15 and a residual of up to 33 times b."""
    A, b = (np.diag([1.0, 0.0]), np.ones(2)) if n == 2 else (neumann_1d(n), np.arange(1.0, n + 1))
    _, info = method(A, b, rtol=1e-8)
    assert info < 0


@both("minres")
@pytest.mark.parametrize("condition", [1e4, 1e6])
def test_tolerance_is_on_the_true_residual(method, condition):
    """scipy's minres measures against ||A|| ||x||: 0 at a residual of 1.5e-4 and 1.2e-2, asked for 1e-8."""
    rng = np.random.default_rng(0)
    Q = np.linalg.qr(rng.standard_normal((100, 100)))[0]
    A = (Q * np.geomspace(1, condition, 100)) @ Q.T
    b = np.ones(100)
    x, info = method((A + A.T) / 2, b, rtol=1e-8, maxiter=2000)
    assert info != 0 or relative_residual(A, x, b) <= 1.001e-8


@both("minres")
def test_tolerance_of_a_warm_start_is_relative_to_b(method):
    """From near the solution scipy's minres stops at 1.5e-7, asked for 1e-8."""
    A, exact = poisson_1d(40), np.arange(1.0, 41.0)
    b = A @ exact
    x, info = method(A, b, x0=exact + 1e-3 * np.sin(exact), rtol=1e-8)
    assert info == 0
    assert relative_residual(A, x, b) <= 1.001e-8


@both("cg")
def test_convergence_in_the_last_iteration_allowed_is_convergence(method):
    A, b = poisson_1d(40), np.arange(40.0)
    x, info = method(A, b, maxiter=40)
    assert relative_residual(A, x, b) <= 1e-5
    assert info == 0


@both("cg", "gmres")
def test_exact_first_guess_with_a_tolerance_of_zero(method):
    A, exact = poisson_1d(40), np.arange(1.0, 41.0)
    x, info = method(A, A @ exact, x0=exact, rtol=0.0)
    np.testing.assert_array_equal(x, exact)
    assert info == 0


@both("cg", "gmres", "bicgstab")
def test_zero_right_hand_side_is_not_aliased(method):
    b = np.zeros(40)
    x, info = method(poisson_1d(40), b)
    assert info == 0
    assert not np.shares_memory(x, b)


@both("cg", "gmres", "bicgstab", "minres")
def test_several_right_hand_sides(method):
    A, b = poisson_1d(12), np.random.default_rng(0).standard_normal((12, 3))
    x, info = method(A, b, rtol=1e-10)
    assert info == 0
    np.testing.assert_allclose(A @ x, b, atol=1e-8)


@both("gmres")
def test_hopeless_system_is_told_from_a_slow_one(method):
    """A nilpotent matrix: scipy says 20 of its 20 cycles were used, as if more would help; x is 2.5e16."""
    A, b = np.array([[0.0, 1.0], [0.0, 0.0]]), np.ones(2)
    x, info = method(A, b, rtol=1e-8)
    assert info < 0 or np.linalg.norm(x) < 1e6


def test_what_ours_say_of_these():
    """The sentences behind the signs above."""
    assert ours.cg(np.diag([1.0, -1.0]), np.ones(2)).status is Status.INDEFINITE_OPERATOR
    assert ours.minres(np.diag([1.0, 0.0]), np.ones(2)).status is Status.INCONSISTENT
    assert ours.cg(neumann_1d(50), np.arange(1.0, 51.0)).status is Status.INCONSISTENT
    told = ours.cg(neumann_1d(50), np.arange(1.0, 51.0), null_space="constant")
    assert told.status is Status.INCONSISTENT
    assert abs(told.x.mean()) <= 1e-12 * np.abs(told.x).max()
