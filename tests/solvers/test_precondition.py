"""Preconditioners: the protocol, symmetry, definiteness, convergence independent of size."""

import numpy as np
import pytest
import scipy.sparse.linalg as sla

from solvers import (
    AMG,
    ILU,
    SSOR,
    Factorisation,
    IncompleteCholesky,
    Jacobi,
    Multigrid,
    Preconditioner,
    cg,
    gallery,
    preconditioners,
)
from solvers.registry import Registry

JUMPS = gallery.diffusion(gallery.jumps((15, 17), 1e3))
ALL = {
    "jacobi": Jacobi,
    "ruge_stuben": lambda: AMG("ruge_stuben"),
    "smoothed_aggregation": lambda: AMG("smoothed_aggregation"),
    "direct": Factorisation,
    "ssor": SSOR,
    "ilu": ILU,
    "ic": IncompleteCholesky,
    "multigrid": lambda: Multigrid(dtype="float64"),
}
every = pytest.mark.parametrize("build", ALL.values(), ids=ALL)


def as_matrix(M, n):
    return np.stack([M.matvec(e) for e in np.eye(n)], axis=1)


@every
def test_protocol(build):
    M = build()
    assert M.shape is None
    assert "not set up" in str(M)
    assert M.setup(JUMPS) is M
    assert isinstance(M, Preconditioner)
    assert M.shape == JUMPS.shape
    assert M.symmetric
    assert M.positive
    assert "255" in str(M) or "15 x 17" in str(M)


@every
def test_symmetric_positive_definite_for_such_a_matrix(build):
    matrix = as_matrix(build().setup(JUMPS), 255)
    # a few hundred roundings of its largest entry
    assert np.max(np.abs(matrix - matrix.T)) <= 1e-13 * np.max(np.abs(matrix))
    assert np.min(np.linalg.eigvalsh((matrix + matrix.T) / 2)) > 0


@every
def test_linear_and_leaves_its_argument_alone(build):
    M = build().setup(JUMPS)
    x, y = np.random.default_rng(0).standard_normal((2, 255))
    kept = x.copy()
    together = M.matvec(2.0 * x - y)
    # rounding, relative to the size of the result
    np.testing.assert_allclose(together, 2.0 * M.matvec(x) - M.matvec(y), atol=1e-12 * np.max(np.abs(together)))
    np.testing.assert_array_equal(x, kept)
    assert not np.shares_memory(M.matvec(x), x)


@every
def test_lowers_the_condition_number(build):
    A = JUMPS.tocsr().toarray()
    eigenvalues = np.sort(np.linalg.eigvals(as_matrix(build().setup(JUMPS), 255) @ A).real)
    # the diagonal mends the contrast but not the grid, sweeps and incomplete factors the grid a little (the condition
    # number falls by a factor); multigrid and the factors mend both
    factor = 1.0 if build is Jacobi else 0.1 if build in (SSOR, ILU, IncompleteCholesky) else 0.01
    assert eigenvalues[-1] / eigenvalues[0] < factor * np.linalg.cond(A)


@every
def test_serves_scipy_too(build):
    M = sla.aslinearoperator(build().setup(JUMPS))
    _, info = sla.cg(JUMPS.tocsr(), np.ones(255), M=M, rtol=1e-8)
    assert info == 0


@every
def test_setup_once_for_each_matrix(build):
    M = build().setup(JUMPS)
    before = M.matvec(np.ones(255))
    M.setup(gallery.diffusion(7.0 * gallery.jumps((15, 17), 1e3)))
    np.testing.assert_allclose(M.matvec(np.ones(255)), before / 7.0, rtol=1e-10)  # the same up to the factor


@pytest.mark.parametrize("coarsening", ["ruge_stuben", "smoothed_aggregation"])
def test_amg_iterations_do_not_grow_with_the_grid(coarsening):
    counts = [
        cg(gallery.poisson((n, n)), np.ones(n * n), M=AMG(coarsening), rtol=1e-8).iterations for n in (24, 48, 96)
    ]
    plain = [cg(gallery.poisson((n, n)), np.ones(n * n), rtol=1e-8).iterations for n in (24, 48, 96)]
    assert plain[-1] > 3 * plain[0]
    assert counts[-1] <= counts[0] + 5
    assert counts[-1] < 20


@pytest.mark.parametrize("coarsening", ["ruge_stuben", "smoothed_aggregation"])
def test_amg_is_the_same_each_time(coarsening):
    """PyAMG begins its eigenvalue estimates from numpy's global random numbers: data would differ from run to run."""
    np.random.seed(1)  # noqa: NPY002
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first = AMG(coarsening).setup(JUMPS).matvec(np.ones(255))
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002  (the user's stream goes on)
    np.random.seed(2)  # noqa: NPY002
    np.testing.assert_array_equal(AMG(coarsening).setup(JUMPS).matvec(np.ones(255)), first)


def test_amg_kinds_of_matrix():
    assert "ruge_stuben" in str(AMG().setup(gallery.poisson((20, 20))))
    rng = np.random.default_rng(1)
    C = rng.standard_normal((300, 300))
    assert "smoothed_aggregation" in str(AMG().setup(C @ C.T + 300 * np.eye(300)))
    hermitian = gallery.poisson((20, 20)).tocsr().astype(complex)
    result = cg(hermitian, np.ones(400) + 1j, M=AMG(), rtol=1e-8)
    assert result.converged
    assert result.iterations < 25


def test_amg_in_single_precision():
    A = gallery.poisson((40, 40)).tocsr().astype(np.float32)
    result = cg(A, np.ones(1600, dtype=np.float32), M=AMG(), rtol=1e-4)
    assert result.converged
    assert result.x.dtype == np.float32


def test_amg_near_null_space_has_to_fit():
    with pytest.raises(ValueError, match="near_null_space"):
        AMG("smoothed_aggregation", near_null_space=np.ones(7)).setup(JUMPS)
    with pytest.raises(ValueError, match="coarsening"):
        AMG("geometric")
    M = AMG("smoothed_aggregation", near_null_space=np.ones(255)).setup(JUMPS)
    default = AMG("smoothed_aggregation").setup(JUMPS)
    np.testing.assert_array_equal(M.matvec(np.ones(255)), default.matvec(np.ones(255)))


def test_what_shows_no_entries_is_refused():
    operator = sla.aslinearoperator(JUMPS.tocsr())
    for M in (Jacobi(), AMG(), Factorisation()):
        with pytest.raises(ValueError, match="shows n"):
            M.setup(sla.LinearOperator(operator.shape, matvec=operator.matvec, dtype=float))


def test_jacobi_refuses_a_zero_on_the_diagonal():
    with pytest.raises(ValueError, match="1 zeros on its diagonal, the first in row 1"):
        Jacobi().setup(np.diag([1.0, 0.0]))


def test_jacobi_knows_its_signs():
    assert not Jacobi().setup(np.diag([1.0, -2.0])).positive
    assert not Jacobi().setup(np.diag([1.0 + 1j, 2.0])).symmetric


def test_a_class_or_a_name_in_place_of_an_object_is_named():
    with pytest.raises(TypeError, match=r"AMG\(\)"):
        cg(JUMPS, np.ones(255), M=AMG)
    with pytest.raises(TypeError, match="solve"):
        cg(JUMPS, np.ones(255), M="amg")


def test_registry_reads_the_entry_points_of_others():
    assert isinstance(preconditioners, Registry)
    assert preconditioners.group == "southwell.preconditioners"
    assert {"amg", "direct", "jacobi"} <= set(preconditioners)
