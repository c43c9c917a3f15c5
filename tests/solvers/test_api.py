"""solve(): what it chooses, that it falls back, and that it is never wrong about success."""

import sys
import time

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import aslinearoperator

from solvers import AMG, ConvergenceError, Jacobi, Status, StencilOperator, cg, gallery, preconditioners, solve
from solvers.api import elimination_work
from solvers.system import System

RNG = np.random.default_rng(0)


def check(A, b, result, rtol):
    assert result.converged
    assert np.linalg.norm(b - A @ result.x) <= rtol * np.linalg.norm(b) * (1 + 1e-10)


def shuffled(A):
    """The same matrix in an order that hides its grid."""
    order = RNG.permutation(A.shape[0])
    return A.tocsr()[order][:, order]


@pytest.mark.parametrize(
    ("A", "expected"),
    [
        (gallery.poisson((20, 20)).tocsr(), "direct"),
        (gallery.poisson((150, 150)).tocsr(), "cg + FastPoisson"),
        (gallery.poisson((16, 16, 16)), "cg + FastPoisson"),
        (gallery.diffusion(gallery.jumps((150, 150))).tocsr(), "cg + Multigrid"),
        (gallery.diffusion(gallery.jumps((16, 16, 16))), "cg + Multigrid"),
        (shuffled(gallery.poisson((150, 150))), "cg + AMG"),
        (gallery.helmholtz((150, 150), wavenumber=0.6).tocsr(), "direct"),
        (gallery.convection_diffusion((30, 30), velocity=[1.0, 1.0]).tocsr(), "direct"),
        (RNG.standard_normal((20, 20)), "direct"),
    ],
    ids=["small", "2D", "3D", "2D jumps", "3D jumps", "no grid", "indefinite", "nonsymmetric", "dense"],
)
def test_choice(A, expected):
    b = RNG.standard_normal(A.shape[0])
    result = solve(A, b, rtol=1e-8)
    check(A, b, result, 1e-8)
    assert result.method == expected
    assert result.reason.startswith(expected)


def test_choice_for_operators_without_entries():
    A = gallery.poisson((20, 20)).tocsr()
    b = np.ones(400)
    assert solve(lambda x: A @ x, b).method == "cg"
    N = gallery.convection_diffusion((10, 10), velocity=[1.0, 0.0]).tocsr()
    assert solve(aslinearoperator(N).matvec, np.ones(100)).method == "gmres"


def test_indefinite_without_entries_falls_back_to_minres():
    H = gallery.helmholtz((9, 9), wavenumber=0.5).tocsr()  # one negative eigenvalue: cg takes some steps to meet it
    b = np.random.default_rng(5).standard_normal(81)
    result = solve(lambda x: H @ x, b, rtol=1e-8)
    assert result.method == "minres"
    assert "that ended as INDEFINITE_OPERATOR" in result.reason
    check(H, b, result, 1e-8)
    assert len(result.history) == result.iterations + 1
    # minres goes on from where cg ended, and never raises the residual
    joint = cg(lambda x: H @ x, b, rtol=1e-8).iterations
    assert joint > 0
    assert np.all(result.history[joint + 1 :] <= result.history[joint] * (1 + 1e-12))


def test_indefinite_with_a_positive_diagonal_falls_back():
    """Neither the diagonal nor the sum of the entries gives it away, so cg is tried first, and found out."""
    A = gallery.poisson((120, 120)).tocsr() + sp.diags_array(np.where(np.arange(14400) % 997 == 5, -3.9, 0.0))
    assert A.sum() > 0
    assert np.linalg.eigvalsh(A[:200][:, :200].toarray())[0] < 0
    result = solve(A, np.ones(14400), rtol=1e-8)
    check(A, np.ones(14400), result, 1e-8)
    assert "cg + AMG" in result.reason
    assert result.method != "cg + AMG"


def test_consistent_singular_system_of_unknown_null_space():
    v = np.arange(1.0, 6.0)
    A = np.outer(v, v)
    result = solve(A, 3.0 * v, rtol=1e-10)
    check(A, 3.0 * v, result, 1e-10)
    assert "BREAKDOWN" in result.reason


def test_failure_raises_with_the_best_iterate():
    A, b = np.array([[0.0, 1.0], [0.0, 0.0]]), np.ones(2)
    with pytest.raises(ConvergenceError, match="throw=False") as caught:
        solve(A, b)
    assert np.isfinite(caught.value.result.x).all()
    assert caught.value.result.residual_norm <= np.sqrt(2)
    assert not solve(A, b, throw=False).converged


def test_nonfinite_is_refused_without_a_computation():
    for A, b, name in [(np.diag([1.0, np.nan]), np.ones(2), "A"), (np.eye(2), np.array([1.0, np.inf]), "b")]:
        result = solve(A, b, throw=False)
        assert result.status is Status.NONFINITE_INPUT
        assert f"{name} holds" in result.reason


@pytest.mark.parametrize("method", ["cg", "gmres", "direct"])
def test_named_method(method):
    A = gallery.poisson((10, 10))
    result = solve(A, np.ones(100), method, rtol=1e-8)
    assert result.method == method
    assert result.converged


def test_unknown_names_list_what_there_is():
    with pytest.raises(ValueError, match="'cg'"):
        solve(np.eye(2), np.ones(2), "cgg")
    with pytest.raises(ValueError, match="'jacobi'"):
        solve(np.eye(2), np.ones(2), M="jakobi")
    with pytest.raises(ValueError, match="takes no preconditioner"):
        solve(np.eye(2), np.ones(2), "direct", M=Jacobi())


@pytest.mark.parametrize("M", ["jacobi", "amg", "direct", Jacobi(), AMG()])
def test_preconditioner_by_name_or_object(M):
    result = solve(gallery.poisson((15, 15)), np.ones(225), M=M)
    assert result.converged
    assert result.method.startswith("cg + ")
    assert result.preconditioner_applies > 0


def test_a_registered_preconditioner_of_ones_own():
    class Halve(Jacobi):
        def matvec(self, r):
            return 0.5 * super().matvec(r)

    preconditioners.register("halved jacobi of a test")(Halve)
    assert solve(gallery.poisson((5, 5)), np.ones(25), M="halved jacobi of a test").method == "cg + Halve"


def test_nonsymmetric_with_a_preconditioner_takes_gmres():
    A = gallery.convection_diffusion((10, 10), velocity=[1.0, 1.0])
    assert solve(A, np.ones(100), M="jacobi").method == "gmres + Jacobi"


def test_maxiter_of_the_user_is_kept():
    A = gallery.diffusion(gallery.jumps((150, 150)))
    result = solve(A, np.ones(22500), rtol=1e-10, maxiter=2, throw=False)
    assert result.status is Status.MAX_ITERATIONS
    assert result.iterations == 2


def test_time_limit_holds_for_all_attempts_together():
    A = gallery.poisson((10, 10)).tocsr()

    def slow(x):
        time.sleep(0.01)
        return A @ x

    started = time.perf_counter()
    result = solve(slow, np.ones(100), rtol=1e-12, time_limit=0.05, throw=False)
    assert result.status is Status.TIME_LIMIT
    assert time.perf_counter() - started < 2.0  # a few products more, and the scheduler


def test_many_right_hand_sides_favour_factors():
    A = gallery.diffusion(gallery.jumps((110, 110))).tocsr()
    assert solve(A, np.ones((12100, 1))).method == "cg + Multigrid"
    result = solve(A, RNG.standard_normal((12100, 20)))
    assert result.method == "direct"
    assert result.converged


def test_without_pyamg_jacobi_stands_in(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyamg", None)
    monkeypatch.setattr("solvers.api._has_pyamg", lambda: False)
    assert solve(shuffled(gallery.poisson((120, 120))), np.ones(14400)).method == "cg + Jacobi"
    with pytest.raises(ImportError, match="pip install pyamg"):
        AMG().setup(gallery.poisson((5, 5)))


def test_elimination_work_is_that_of_a_band_in_the_better_order():
    A = gallery.poisson((200, 20)).tocsr()
    assert elimination_work(A) == 4000 * 20**2
    order = np.random.default_rng(1).permutation(4000)
    shuffled = sp.csr_array(A[order][:, order])
    # reverse Cuthill-McKee finds the short direction again, to within a factor of two in the width
    assert elimination_work(shuffled) <= 4 * 4000 * 20**2


def test_importing_solvers_needs_numpy_scipy_and_numba_only():
    import subprocess

    code = (
        "import sys\n"
        "for name in ('torch', 'pyamg', 'matplotlib', 'h5py', 'hydra'): sys.modules[name] = None\n"
        "import solvers, solvers.plots, solvers.system\n"
        "solvers.solve(solvers.gallery.poisson((5,)), [1.0] * 5)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_auto_on_systems_that_are_not_definite():
    """Where factors cost seconds, what may take milliseconds gets a chance first; the truth decides all the same."""
    transport = gallery.convection_diffusion((24, 24, 24), velocity=(1.0, 0.5, 0.25))
    b = np.random.default_rng(0).standard_normal(transport.shape[0])
    result = solve(transport, b, rtol=1e-8)
    assert result.method == "bicgstab + ILU"
    assert "M-matrix" in result.reason
    diffusive = gallery.convection_diffusion((160, 160), velocity=(0.02, 0.01))  # more than ILU(0) does in its time
    assert solve(diffusive, np.ones(160**2), rtol=1e-8).method == "gmres + AMG"
    for size in (20, 24):  # the smaller one looks definite at first, which costs a hierarchy
        waves = gallery.helmholtz((size, size, size), wavenumber=0.5)
        assert solve(waves, b[: size**3], rtol=1e-8).method == "minres + Jacobi"
    plane = gallery.helmholtz((60, 60), wavenumber=0.5)
    assert solve(plane, b[:3600], rtol=1e-8).method == "direct"


def test_a_try_that_fails_is_finished_by_factors():
    """So indefinite that MINRES has no chance in its time: direct goes on from its iterate."""
    rng = np.random.default_rng(1)
    A = gallery.helmholtz((18, 18, 18), wavenumber=1.4).tocsr()
    A = A + sp.diags_array(1e-3 * rng.standard_normal(A.shape[0]))
    result = solve(A, rng.standard_normal(A.shape[0]), rtol=1e-11)
    assert result.method == "direct"
    assert "that ended as MAX_ITERATIONS" in result.reason


@pytest.mark.parametrize("form", ["stencil", "csr", "dense", "singular", "triangulated"])
def test_a_negative_definite_matrix_is_solved_as_its_negative(form):
    sides = "neumann" if form == "singular" else "dirichlet"
    A = gallery.diffusion(1.0 + np.random.default_rng(0).random((60, 60)), boundary=sides)
    rng = np.random.default_rng(1)
    exact = rng.standard_normal(3600)
    exact -= exact.mean()
    matrix = -A.tocsr()
    negative = matrix
    if form == "stencil":
        negative = StencilOperator(A.offsets, -A.coefficients, A.grid_shape, A.spacing, A.boundary, A.centring)
    if form == "dense":
        negative = matrix.toarray()
    if form == "triangulated":
        order = rng.permutation(3600)
        matrix = negative = matrix[order][:, order]
    seen = []
    result = solve(negative, matrix @ exact, rtol=1e-10, callback=seen.append)
    assert "negative diagonal" in result.reason
    assert result.method == ("direct" if form in ("dense", "triangulated") else "cg + Multigrid")
    np.testing.assert_allclose(result.x, exact, atol=1e-6)  # cond(A) is 5e3, rtol 1e-10
    if seen:
        np.testing.assert_allclose(seen[-1], exact, atol=1e-6)


def test_m_matrix():
    assert System(gallery.poisson((5, 5))).m_matrix
    assert System(gallery.convection_diffusion((5, 5), velocity=(9.0, -3.0)).tocsr()).m_matrix
    assert not System(gallery.helmholtz((5, 5), wavenumber=1.0)).m_matrix
    assert not System(np.array([[2.0, 1.0], [0.0, 2.0]])).m_matrix  # a positive entry beside the diagonal
    assert not System(np.array([[2.0, -3.0], [0.0, 2.0]])).m_matrix  # a negative row sum
