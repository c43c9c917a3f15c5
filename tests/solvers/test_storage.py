"""The storage that each method claims in its header, against the memory that it takes."""

import sys
import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sp

import solvers
from solvers import Status

N = 100_000


# n-vectors at the peak besides A, b and M, and how many more a preconditioner makes; the headers say the same.
# From a first guess up to two more are there.
@pytest.mark.parametrize(
    ("name", "parameters", "claim", "with_M", "said"),
    [
        ("cg", {}, 5, 2, "Storage: 5 n-vectors"),
        ("flexible_cg", {"m": 3}, 2 * 3 + 5, 1, "Storage: 2 m + 5 n-vectors"),
        ("flexible_cg", {"m": 7}, 2 * 7 + 5, 1, "Storage: 2 m + 5 n-vectors"),
        ("minres", {}, 8, 4, "Storage: 8 n-vectors"),
        ("gmres", {"restart": 8, "maxiter": 3}, 8 + 8, 0, "Storage: restart + 8 n-vectors"),
        ("gmres", {"restart": 15, "maxiter": 3}, 15 + 8, 0, "Storage: restart + 8 n-vectors"),
        ("gmres_dr", {"restart": 14, "k": 4, "maxiter": 4}, 14 + 4 + 6, 0, "Storage: restart + k + 6 n-vectors"),
        ("gcrodr", {"restart": 14, "k": 4, "maxiter": 4}, 14 + 4 * 4 + 5, 14, "Storage: restart + 4 k + 5 n-vectors"),
        ("deflated_cg", {}, 5, 2, "Storage: 5 n-vectors"),
        ("deflated_cg", {"deflation": np.eye(N, 4)}, 5 + 4 * 4 + 1, 2, "with a subspace of dimension k, 4 k + 1 more"),
        ("bicgstab", {}, 11, 0, "Storage: 11 n-vectors"),
        ("chebyshev", {}, 5, 2, "Storage: 5 n-vectors"),
    ],
)
@pytest.mark.parametrize("preconditioned", [False, True])
def test_storage(name, parameters, claim, with_M, said, preconditioned):
    d = np.geomspace(1.0, 1e4, N)
    b = np.ones(N)
    arguments = {"rtol": 1e-9, "maxiter": 40, "M": (lambda r: r / (d + 10)) if preconditioned else None, **parameters}
    run = getattr(solvers, name)
    run(lambda v: d * v, b, **arguments)  # compiles what compiles
    tracemalloc.start()
    try:
        result = run(lambda v: d * v, b, **arguments)
        vectors = tracemalloc.get_traced_memory()[1] / (8 * N)
    finally:
        tracemalloc.stop()
    assert result.iterations > 10
    assert result.status in (Status.CONVERGED, Status.MAX_ITERATIONS)
    # A tenth of a vector for all that is small. Of the n-vectors none is claimed that is not there, one apart: the best
    # iterate is kept only once the residual has risen.
    assert vectors <= claim + (with_M if preconditioned else 0) + 0.1
    assert vectors >= claim + (with_M if preconditioned else 0) - 1.1
    assert said in sys.modules[run.__module__].__doc__


@pytest.mark.parametrize(
    ("name", "claim", "copies_of_A", "said"),
    [
        ("jacobi", 7, 0, "Storage: 7 n-vectors"),
        ("gauss_seidel", 4 + 2.5, 1, "Storage and work: as of `sor`"),
        ("sor", 4 + 2.5, 1, "A once more and 2.5 n-vectors"),
    ],
)
def test_storage_of_methods_that_need_the_entries(name, claim, copies_of_A, said):
    A = sp.diags_array([np.full(N - 1, -1.0), np.full(N, 3.0), np.full(N - 1, -1.0)], offsets=[-1, 0, 1]).tocsr()
    of_A = (A.data.nbytes + A.indices.nbytes + A.indptr.nbytes) / (8 * N)
    run = getattr(solvers, name)
    run(A, np.ones(N), rtol=0, maxiter=20)
    b = np.ones(N)
    tracemalloc.start()
    try:
        run(A, b, rtol=0, maxiter=20)
        vectors = tracemalloc.get_traced_memory()[1] / (8 * N)
    finally:
        tracemalloc.stop()
    assert claim + copies_of_A * of_A - 1.1 <= vectors <= claim + copies_of_A * of_A + 0.1
    assert said in sys.modules[run.__module__].__doc__
