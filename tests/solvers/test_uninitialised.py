"""No result depends on what happened to be in memory: `numpy.empty` is filled with NaN, and everything is as before."""

import numpy as np
import pytest

from solvers import gallery, preconditioners, solve
from solvers.api import methods


def spoiling(original):
    """The same function, its floating-point arrays full of NaN."""

    def create(*arguments, **options):
        array = original(*arguments, **options)
        if array.dtype.kind in "fc":
            array.fill(np.nan)
        return array

    return create


@pytest.fixture
def spoiled(monkeypatch):
    """Arrays that are created without values hold the worst ones."""
    for name in ("empty", "empty_like"):
        monkeypatch.setattr(np, name, spoiling(getattr(np, name)))


PROBLEMS = {
    "stencil": gallery.diffusion(1.0 + np.random.default_rng(0).random((60, 61))),
    "matrix": gallery.diffusion(1.0 + np.random.default_rng(0).random((20, 21))).tocsr(),
    "constant": gallery.poisson((60, 61)),
}


@pytest.mark.parametrize("method", list(methods))
@pytest.mark.parametrize("problem", PROBLEMS)
def test_methods(method, problem, spoiled):
    A = PROBLEMS[problem]
    result = methods[method](A, np.ones(A.shape[0]), rtol=1e-3, maxiter=2000)
    assert np.isfinite(result.history).all()
    assert result.converged or method in ("jacobi", "gauss_seidel", "ssor")  # too slow for the larger grids


@pytest.mark.parametrize("name", list(preconditioners))
@pytest.mark.parametrize("problem", PROBLEMS)
def test_preconditioners(name, problem, spoiled):
    A = PROBLEMS[problem]
    M = preconditioners.build(name)
    assert solve(A, np.ones(A.shape[0]), "cg", M=M, rtol=1e-8).converged
    assert np.isfinite(M.matvec(np.ones(A.shape[0]))).all()


@pytest.mark.parametrize("problem", PROBLEMS)
def test_auto(problem, spoiled):
    A = PROBLEMS[problem]
    assert solve(A, np.ones(A.shape[0]), rtol=1e-8).converged
