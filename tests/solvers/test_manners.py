"""What holds for every method: the conventions of signatures, inputs and results."""

import time

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from solvers import (
    AMG,
    Factorisation,
    Jacobi,
    Result,
    Status,
    bicgstab,
    cg,
    chebyshev,
    deflated_cg,
    direct,
    flexible_cg,
    gallery,
    gauss_seidel,
    gcrodr,
    gmres,
    gmres_dr,
    jacobi,
    minres,
    solve,
    sor,
    ssor,
)

CYCLIC = [gmres, gmres_dr, gcrodr]  # maxiter and callback count cycles, as scipy's gmres does
SHORT = [cg, flexible_cg, deflated_cg, minres, bicgstab]
SWEEPING = [gauss_seidel, jacobi, sor, ssor]  # need the entries of A, and take no preconditioner
MATRIX_FREE = [*SHORT, *CYCLIC, chebyshev]
ITERATIVE = [*MATRIX_FREE, *SWEEPING]
METHODS = [*ITERATIVE, direct]
A = gallery.poisson((7, 8))
B = np.random.default_rng(1).standard_normal(56)


def methods(which=METHODS):
    return pytest.mark.parametrize("method", which, ids=lambda method: method.__name__)


def true_residual(A, x, b):
    return float(np.linalg.norm(np.asarray(b, dtype=np.complex128) - A @ np.asarray(x, dtype=np.complex128)))


@methods()
@pytest.mark.parametrize("rtol", [1e-2, 1e-6, 1e-12])
def test_converged_means_the_true_residual(method, rtol):
    result = method(A, B, rtol=rtol)
    assert result.converged
    assert result.info == 0
    residual = true_residual(A.tocsr(), result.x, B)
    assert residual <= rtol * np.linalg.norm(B) * (1 + 1e-12)  # the same product, in complex arithmetic
    # recomputed in another order: a few roundings of |A| |x|, which is of the size of 100 here
    assert result.residual_norm == pytest.approx(residual, abs=1e-13)
    assert result.history[-1] == result.residual_norm
    assert result.history[0] == pytest.approx(np.linalg.norm(B))
    assert len(result.history) == result.iterations + 1


@methods()
@pytest.mark.parametrize("form", ["dense", "csr_matrix", "csc_array", "coo", "stencil", "operator", "callable"])
def test_every_form_of_A(method, form):
    matrix = A.tocsr()
    forms = {
        "dense": matrix.toarray(),
        "csr_matrix": sp.csr_matrix(matrix),
        "csc_array": sp.csc_array(matrix),
        "coo": sp.coo_array(matrix),
        "stencil": A,
        "operator": aslinearoperator(matrix),
        "callable": lambda x: matrix @ x,
    }
    if method not in MATRIX_FREE and form in ("operator", "callable"):
        with pytest.raises(ValueError, match=r"needs its (entries|diagonal)"):
            method(forms[form], B)
        return
    result = method(forms[form], B, rtol=1e-10)
    assert result.converged
    # cond(A) is about 30 here, so the error is at most 30 times the residual
    np.testing.assert_allclose(result.x, np.linalg.solve(matrix.toarray(), B), rtol=0, atol=1e-8)


@methods()
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_dtype_is_kept(method, dtype):
    rng = np.random.default_rng(2)
    C = rng.standard_normal((20, 20))
    if np.dtype(dtype).kind == "c":
        C = C + 1j * rng.standard_normal((20, 20))
    H = (C @ C.conj().T + 20 * np.eye(20)).astype(dtype)
    b = (H @ np.ones(20)).astype(dtype)
    result = method(H, b, rtol=1e-4, **({"omega": 0.3} if method is jacobi else {}))  # it is not diagonally dominant
    assert result.x.dtype == dtype
    assert result.converged
    # cond(H) < 20 and rtol 1e-4
    np.testing.assert_allclose(result.x, np.ones(20), atol=2e-3)


@methods()
def test_whole_numbers_become_float64(method):
    result = method(np.array([[2, 1], [1, 2]]), [3, 3])
    assert result.x.dtype == np.float64
    np.testing.assert_allclose(result.x, 1.0, rtol=1e-4)  # rtol 1e-5 and cond 3


@methods()
def test_zero_right_hand_side_gives_zero_at_once(method):
    b = np.zeros(56)
    result = method(A, b, x0=np.ones(56))
    assert result.converged
    assert result.iterations == 0
    assert not result.x.any()
    assert not np.shares_memory(result.x, b)  # scipy 1.17 returns b itself


@methods()
def test_exact_first_guess_takes_no_iteration(method):
    x0 = np.array([1.0, 2.0])
    result = method(np.eye(2), x0, x0=x0, rtol=0.0, atol=0.0)  # NaN in scipy 1.17
    assert result.converged
    assert result.iterations == 0
    np.testing.assert_array_equal(result.x, x0)
    assert not np.shares_memory(result.x, x0)


@methods()
def test_inputs_are_neither_changed_nor_aliased(method):
    b, x0 = B.copy(), np.ones(56)
    kept = b.copy(), x0.copy()
    result = method(A, b, x0=x0, rtol=1e-10)
    np.testing.assert_array_equal(b, kept[0])
    np.testing.assert_array_equal(x0, kept[1])
    assert not np.shares_memory(result.x, b)
    assert not np.shares_memory(result.x, x0)


@methods()
@pytest.mark.parametrize("size", [1e-310, 1e-200, 1e-30, 1e200, 1e300])
def test_right_hand_sides_of_any_size(method, size):
    result = method(A, B * size, rtol=1e-10)
    assert result.converged
    reference = method(A, B, rtol=1e-10)
    # A denormal b has lost digits before we see it: 1e-310 keeps 14 of 16.
    np.testing.assert_allclose(result.x / size, reference.x, rtol=1e-9 if size > 1e-308 else 1e-8, atol=1e-12)


@methods()
def test_scaling_by_a_power_of_two_changes_no_bit(method):
    one, other = method(A, B, rtol=1e-8), method(A, B * 2.0**-700, rtol=1e-8)
    np.testing.assert_array_equal(other.x * 2.0**700, one.x)


@methods()
def test_many_right_hand_sides_are_the_single_ones(method):
    rng = np.random.default_rng(3)
    many = np.stack([B, np.zeros(56), rng.standard_normal(56)], axis=1)
    result = method(A, many, rtol=1e-9)
    assert result.x.shape == (56, 3)
    for column in range(3):
        np.testing.assert_array_equal(result.x[:, column], method(A, many[:, column].copy(), rtol=1e-9).x)
    assert result.converged
    assert result.residual_norm == max(result.residual_norms)
    assert len(result.statuses) == 3
    assert result.history.shape == (result.iterations + 1, 3)


@methods()
def test_one_column_keeps_its_shape(method):
    assert method(A, B[:, None]).x.shape == (56, 1)


@methods()
def test_a_bad_column_does_not_spoil_the_others(method):
    many = np.stack([B, np.full(56, np.nan), B], axis=1)
    result = method(A, many, rtol=1e-9)
    assert result.statuses == (Status.CONVERGED, Status.NONFINITE_INPUT, Status.CONVERGED)
    assert result.status is Status.NONFINITE_INPUT
    assert not result.converged
    assert np.isfinite(result.x).all()
    assert "b holds 56 non-finite" in result.reason


@methods()
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nonfinite_input_is_refused_by_name(method, bad):
    matrix = A.tocsr()
    spoilt_matrix, spoilt = matrix.copy(), B.copy()
    spoilt_matrix.data[3] = bad
    spoilt[7] = bad
    for result, name in [
        (method(spoilt_matrix, B), "A holds"),
        (method(matrix, spoilt), "b holds 1 non-finite value"),
        (method(matrix, B, x0=spoilt), "x0 holds 1 non-finite"),
    ]:
        assert result.status is Status.NONFINITE_INPUT
        assert result.info < 0
        assert name in result.reason
        assert np.isfinite(result.x).all()


@methods(MATRIX_FREE)
@pytest.mark.parametrize("M", [AMG, Jacobi, Factorisation])
def test_nothing_is_set_up_for_a_nonfinite_matrix(method, M):
    matrix = gallery.poisson((7, 8), boundary="neumann").tocsr()
    matrix.data[3] = np.nan
    result = method(matrix, B, M=M(), x0="Mb", null_space="constant")
    assert result.status is Status.NONFINITE_INPUT
    assert not result.x.any()


@methods(MATRIX_FREE)
def test_nan_from_the_operator_never_reaches_x(method):
    matrix = A.tocsr()
    calls = []

    def fails_later(x):
        calls.append(1)
        return matrix @ x if len(calls) < 4 else np.full(56, np.nan)

    result = method(fails_later, B, rtol=1e-12)
    assert result.status is Status.NONFINITE_OUTPUT
    assert np.isfinite(result.x).all()


@methods(MATRIX_FREE)
def test_nan_from_the_preconditioner_never_reaches_x(method):
    result = method(A, B, M=lambda r: r * np.nan)
    assert result.status is Status.NONFINITE_OUTPUT
    assert np.isfinite(result.x).all()


@methods([*SHORT, gmres])
def test_maxiter(method):
    result = method(A, B, rtol=1e-12, maxiter=3, **({"restart": 1} if method is gmres else {}))
    assert result.status is Status.MAX_ITERATIONS
    assert result.iterations == result.info == 3
    assert result.residual_norm < np.linalg.norm(B)
    none = method(A, B, maxiter=0)
    assert none.status is Status.MAX_ITERATIONS
    assert none.info > 0
    assert not none.x.any()


@methods(ITERATIVE)
def test_convergence_in_the_last_iteration_counts(method):
    needed = 1 if method in CYCLIC else method(A, B, rtol=1e-8).iterations
    extra = {"restart": 56} if method in CYCLIC else {}
    assert method(A, B, rtol=1e-8, maxiter=needed, **extra).converged  # scipy's cg reports a failure here


@methods(ITERATIVE)
def test_callback_gets_fresh_copies_and_can_stop(method):
    seen = []

    def callback(x):
        seen.append(x)
        return len(seen) == 2

    result = method(
        A,
        B,
        rtol=1e-12,
        callback=callback,
        **({"restart": 3, "k": 1} if method in (gmres_dr, gcrodr) else {"restart": 3} if method is gmres else {}),
    )
    assert result.status is Status.USER_STOP
    assert len(seen) == 2
    assert not np.array_equal(seen[0], seen[1])  # scipy's cg hands over the same array each time
    seen[1][:] = np.nan
    assert np.isfinite(result.x).all()
    np.testing.assert_allclose(np.linalg.norm(B - A @ result.x), result.residual_norm)


@methods(MATRIX_FREE)
def test_time_limit(method):
    matrix = A.tocsr()

    def slow(x):
        time.sleep(0.02)
        return matrix @ x

    result = method(slow, B, rtol=1e-12, time_limit=0.05)
    assert result.status is Status.TIME_LIMIT
    # one more product for the check, and the scheduler's whims
    assert result.solve_seconds < 1.0


@methods(MATRIX_FREE)
def test_first_guess_Mb(method):
    M = np.linalg.inv(A.tocsr().toarray())
    result = method(A, B, x0="Mb", M=M, rtol=1e-10)
    assert result.converged
    assert result.iterations == 0


@methods(MATRIX_FREE)
@pytest.mark.parametrize("form", ["object", "array", "sparse", "operator", "callable"])
def test_every_form_of_M(method, form):
    inverse = 1.0 / A.diagonal()
    M = {
        "object": Jacobi(),
        "array": np.diag(inverse),
        "sparse": sp.diags_array(inverse),
        "operator": LinearOperator(A.shape, matvec=lambda r: inverse * np.ravel(r), dtype=float),
        "callable": lambda r: inverse * r,
    }[form]
    result = method(A, B, M=M, rtol=1e-10)
    assert result.converged
    assert result.preconditioner_applies > 0
    # cond(A) is about 30
    np.testing.assert_allclose(result.x, direct(A, B).x, atol=1e-8)


@methods([*MATRIX_FREE, direct])
def test_products_are_counted(method):
    matrix, count = A.tocsr(), []

    class Counted(LinearOperator):
        def __init__(self):
            super().__init__(float, matrix.shape)

        def _matvec(self, x):
            count.append(1)
            return matrix @ x

    if method is direct:
        assert method(matrix, B, rtol=1e-8).matvecs == 1  # the check at the end
        return
    result = method(Counted(), B, rtol=1e-8)
    assert result.matvecs == len(count)
    assert result.matvecs >= result.iterations + 1  # at least one to check


@methods()
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.eye(3)[:2], np.ones(2)), ValueError, "square"),
        ((np.eye(3), np.ones(2)), ValueError, "does not fit the 2 rows of b"),
        ((np.ones((0, 0)), np.ones(0)), ValueError, "empty"),
        ((np.eye(3), np.ones((3, 0))), ValueError, "empty"),
        ((np.eye(3), np.ones((3, 1, 1))), ValueError, r"\(n,\) or \(n, k\)"),
        ((np.eye(3), 1.0), ValueError, r"\(n,\) or \(n, k\)"),
        ((np.eye(3), np.array([1, 2, None])), TypeError, "b: expected numbers"),
        ((np.eye(3, dtype=object), np.ones(3)), TypeError, "A: expected numbers"),
        ((np.eye(3), ["a", "b", "c"]), TypeError, "b: expected numbers"),
        ((np.eye(3), sp.csr_array(np.ones((3, 1)))), TypeError, "sparse"),
        (("A", np.ones(3)), TypeError, "A: expected an array"),
        ((np.eye(3), np.ones(3), np.ones(2)), ValueError, "x0: expected the shape of b"),
        ((np.eye(3), np.ones(3), "b"), ValueError, "x0: expected None, 'Mb'"),
    ],
)
def test_bad_arguments_are_named(method, arguments, error, message):
    with pytest.raises(error, match=message):
        method(*arguments)


@methods()
@pytest.mark.parametrize(
    ("keyword", "value", "error"),
    [
        ("rtol", -1.0, ValueError),
        ("rtol", np.nan, ValueError),
        ("atol", None, ValueError),
        ("maxiter", -1, ValueError),
        ("maxiter", 1.5, ValueError),
        ("callback", 3, TypeError),
        ("time_limit", 0.0, ValueError),
        ("null_space", "ones", ValueError),
        ("null_space", np.ones((5, 1)), ValueError),
    ],
)
def test_bad_keywords_are_named(method, keyword, value, error):
    with pytest.raises(error, match=keyword):
        method(A, B, **{keyword: value})


def test_complex_product_for_a_real_vector_is_refused():
    with pytest.raises(ValueError, match="make b complex"):
        gmres(lambda x: 1j * x, np.ones(3))
    assert gmres(lambda x: 1j * x, np.ones(3, dtype=complex)).converged


@methods([*METHODS, solve])
def test_unpacks_and_indexes_as_scipy_does(method):
    result = method(A, B)
    x, info = result
    assert x is result.x
    assert info == result[1] == 0
    assert len(result) == 2
    assert isinstance(result, Result)
