"""scipy's own tests of its iterative solvers, run on ours by putting our names in their place.

Left out, each for a choice of ours:

- `test_show`, which is about what tfqmr prints, and `test_precond_inverse` for more than ours.
- `test_maxiter` for gmres, `TestGMRES.test_callback*`: scipy's callback types; "legacy" changes the meaning of maxiter,
  "pr_norm" hands over the norm of the preconditioned residual. Our callback gets x after each cycle.
- `TestGMRES.test_defective_precond_breakdown` asks for an exact zero in x[0], where ours has one rounding of 1.0: the
  same case is below with that tolerance.
"""

import importlib.util
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import scipy.sparse.linalg._isolve as isolve

from solvers import Status, bicgstab, cg, gmres, minres

OURS = (cg, gmres, bicgstab, minres)


def _their_module():
    path = Path(isolve.__file__).parent / "tests" / "test_iterative.py"
    if not path.exists():
        pytest.skip("this scipy is installed without its tests", allow_module_level=True)
    spec = importlib.util.spec_from_file_location("scipy_test_iterative_on_southwell", path)
    module = importlib.util.module_from_spec(spec)
    # their marker `fail_slow` belongs to a plugin that we do not have
    unknown_marker = {"fail_slow": lambda seconds: lambda function: function}
    with (
        mock.patch.multiple(isolve, **{method.__name__: method for method in OURS}),
        mock.patch.dict(vars(pytest.mark), unknown_marker),
    ):
        spec.loader.exec_module(module)
    return module


theirs = _their_module()
CASES = [case for case in theirs.cases if case.solver in OURS]


@pytest.mark.parametrize("case", [case for case in CASES if case.solver is not gmres], ids=lambda case: case.name)
def test_their_maxiter(case):
    theirs.test_maxiter(case)


@pytest.mark.parametrize("name", ["test_convergence", "test_precond_dummy", "test_x0_equals_Mb"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_their_cases(name, case):
    getattr(theirs, name)(case)


@pytest.mark.parametrize("solver", OURS, ids=lambda solver: solver.__name__)
@pytest.mark.parametrize(
    "name",
    ["test_atol", "test_zero_rhs", "test_x0_working", "test_x0_solves_problem_exactly", "test_positional_error"],
)
def test_their_solver_tests(name, solver):
    getattr(theirs, name)(solver)


@pytest.mark.parametrize("case", theirs.IterativeParams().cases, ids=lambda case: case.name)
def test_cases_that_are_too_hard_for_their_minres(case):
    """scipy leaves its minres out in single precision and on 2D Poisson; ours takes all that is symmetric."""
    A = case.A if isinstance(case.A, np.ndarray) else case.A.toarray()
    if not np.array_equal(A, A.conj().T):
        pytest.skip("not symmetric")
    theirs.test_convergence(theirs.SingleTest(case.A, case.b, minres, case.name))


def test_atol_in_minres_too():
    """scipy's minres has no atol, so its test turns away whatever goes by that name."""
    with mock.patch.object(theirs, "minres", None):
        theirs.test_atol(minres)


@pytest.mark.parametrize("atol", ["legacy", None, -1])
@pytest.mark.parametrize("solver", OURS, ids=lambda solver: solver.__name__)
def test_their_invalid_atol(solver, atol):
    with pytest.raises(ValueError, match="atol"):
        solver([[1.0]], [1.0], atol=atol)


@pytest.mark.parametrize("name", ["poisson1d", "poisson2d"])
def test_their_inverse_preconditioner(name):
    (case,) = [case for case in theirs.IterativeParams().cases if case.name == name]
    with mock.patch.object(theirs, "_SOLVERS", list(OURS)):
        theirs.test_precond_inverse(case)


def test_their_error_does_not_grow_after_breakdown():
    """Marked as an expected failure in scipy (gh-18697)."""
    theirs.test_maxiter_worsening(gmres)


@pytest.mark.parametrize(
    "name",
    [
        "test_basic",
        "test_abi",
        "test_atol_legacy",
        "test_defective_matrix_breakdown",
    ],
)
def test_their_gmres(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        getattr(theirs.TestGMRES(), name)()


def test_defective_preconditioner_to_rounding():
    M = np.diag([1.0, 1.0, 0.0])
    A, b = np.diag([2.0, 3.0, 4.0]), np.array([0.0, 1.0, 1.0])
    result = gmres(A, b, x0=np.array([1.0, 0.0, 0.0]), M=M, rtol=1e-15)
    assert result.status is Status.BREAKDOWN
    # One rounding of x0[0] = 1, times the entry 2 of A.
    np.testing.assert_allclose(M @ A @ result.x, M @ b, atol=4 * np.finfo(float).eps)
