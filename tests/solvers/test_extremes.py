"""Scales at the edge of what a number can be: a Status, finite x, and no warning of numpy's (which are errors here)."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp

from solvers import (
    Jacobi,
    Status,
    bicgstab,
    cg,
    deflated_cg,
    direct,
    flexible_cg,
    gcrodr,
    gmres,
    gmres_dr,
    minres,
    solve,
)

METHODS = [cg, flexible_cg, deflated_cg, minres, gmres, gmres_dr, gcrodr, bicgstab]


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
@pytest.mark.parametrize("size", [1e-36, 1e-30, 1e30, 1e36])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_single_precision_matrix_of_any_size(method, size, preconditioned):
    A = (np.array([[2.0, 1.0, 0.0], [1.0, 3.0, 1.0], [0.0, 1.0, 4.0]]) * size).astype(np.float32)
    b = np.array([1.0, 2.0, 3.0], dtype=np.float32)
    result = method(A, b, rtol=1e-3, M=Jacobi() if preconditioned else None)
    assert np.isfinite(result.x).all()
    true = np.linalg.norm(b - A.astype(float) @ result.x.astype(float))
    # x is of the size 1/size: 1e36 is within the range of single precision, 1e-36 near its end.
    assert not result.converged or true <= 1.01e-3 * np.linalg.norm(b)
    if 1e-31 < size < 1e31:
        assert result.converged


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
def test_x_that_overflows_where_A_does_not_see_it(method):
    """A column of zeros: x may grow there without the residual knowing."""
    rng = np.random.default_rng(3)
    for _ in range(20):
        A = sp.csc_array(np.eye(2, k=1) * 1e-12)
        b = rng.standard_normal(2) * 1e-20
        assert np.isfinite(method(A, b, maxiter=2000).x).all()


def test_nothing_but_a_null_space():
    result = direct(np.zeros((1, 1)), np.ones(1), null_space="constant")
    assert result.status is Status.INCONSISTENT
    assert solve(np.zeros((1, 1)), np.ones(1), throw=False).x == 0
    assert solve(np.zeros((3, 3)), np.zeros(3)).converged
