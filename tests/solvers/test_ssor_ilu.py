"""SSOR, ILU(0), IC(0) and SuperLU's ILU against dense formulas, and against what theory says of M-matrices."""

import numpy as np
import pytest
import scipy.sparse as sp

from solvers import ILU, SSOR, IncompleteCholesky, cg, gallery, gmres, preconditioners

JUMPS = gallery.diffusion(gallery.jumps((9, 8), 1e3)).tocsr()
TRANSPORT = gallery.convection_diffusion((9, 8), velocity=(3.0, -2.0)).tocsr()


def hermitian(n=60, seed=0):
    """Hermitian, positive definite by diagonal dominance, sparse."""
    rng = np.random.default_rng(seed)
    A = sp.random_array((n, n), density=0.08, rng=rng) + 1j * sp.random_array((n, n), density=0.08, rng=rng)
    A = A + A.conj().T
    A = A - sp.diags_array(A.diagonal())
    return sp.csr_array(A + sp.diags_array(1.0 + np.asarray(abs(A).sum(axis=1))))


def as_matrix(M, n, dtype=float):
    return np.stack([M.matvec(e) for e in np.eye(n, dtype=dtype)], axis=1)


def adjoint_matrix(M, n, dtype=float):
    return np.stack([M.rmatvec(e) for e in np.eye(n, dtype=dtype)], axis=1)


@pytest.mark.parametrize("omega", [0.3, 1.0, 1.7])
@pytest.mark.parametrize("A", [JUMPS, TRANSPORT, hermitian()], ids=["symmetric", "nonsymmetric", "Hermitian"])
def test_ssor_is_its_formula(A, omega):
    dense = A.toarray()
    D, L, U = np.diag(np.diag(dense)), np.tril(dense, -1), np.triu(dense, 1)
    expected = omega * (2 - omega) * np.linalg.inv(D + omega * U) @ D @ np.linalg.inv(D + omega * L)
    M = SSOR(omega).setup(A)
    np.testing.assert_allclose(as_matrix(M, len(dense), dense.dtype), expected, rtol=1e-11, atol=1e-15)
    np.testing.assert_allclose(adjoint_matrix(M, len(dense), dense.dtype), expected.conj().T, rtol=1e-11, atol=1e-15)


def test_ssor_is_a_forward_and_a_backward_sweep_of_pyamg():
    relaxation = pytest.importorskip("pyamg.relaxation.relaxation")
    r = np.random.default_rng(0).standard_normal(72)
    x = np.zeros(72)
    relaxation.gauss_seidel(sp.csr_matrix(JUMPS), x, r, sweep="symmetric")
    np.testing.assert_allclose(SSOR().setup(JUMPS).matvec(r), x, rtol=1e-11)


def factors(M):
    """L D U as M holds them."""
    pattern = M._pair._pattern if isinstance(M, IncompleteCholesky) else M._apply.__self__._pattern
    scale = M._pair.scale if isinstance(M, IncompleteCholesky) else M._apply.__self__.scale
    eye = np.eye(pattern.shape[0])
    return eye + np.tril(pattern.toarray(), -1), np.diag(1 / scale), eye + np.triu(pattern.toarray(), 1)


@pytest.mark.parametrize(
    ("kind", "A"),
    [
        (ILU, JUMPS),
        (ILU, TRANSPORT),
        (ILU, hermitian()),
        (IncompleteCholesky, JUMPS),
        (IncompleteCholesky, hermitian()),
    ],
)
def test_incomplete_factors_agree_with_A_on_its_pattern(kind, A):
    """The property that defines ILU(0) and IC(0); it does not hold of any other factors on this pattern."""
    L, D, U = factors(kind().setup(A))
    difference = (L @ D @ U - A.toarray())[A.toarray() != 0]
    assert np.max(np.abs(difference)) <= 1e-12 * np.max(np.abs(A.data))  # some roundings
    if kind is IncompleteCholesky:
        np.testing.assert_allclose(U, L.conj().T, rtol=1e-12, atol=1e-14)
        assert np.all(np.diag(D).real > 0)


@pytest.mark.parametrize("kind", [ILU, IncompleteCholesky, lambda: ILU(drop_tol=0.0, fill_factor=50)])
def test_without_fill_to_drop_the_factors_are_exact(kind):
    A = gallery.poisson((50,)).tocsr()
    b = np.random.default_rng(0).standard_normal(50)
    np.testing.assert_allclose(A @ kind().setup(A).matvec(b), b, atol=1e-11)
    assert cg(A, b, rtol=1e-10, M=kind()).iterations <= 2


def test_m_matrices_need_no_shift_and_others_get_one():
    """Meijerink and van der Vorst 1977; the other matrix is Kershaw's, whose IC(0) has a negative pivot."""
    rng = np.random.default_rng(1)
    for _ in range(10):
        A = sp.random_array((80, 80), density=0.06, rng=rng)
        A = A + A.T
        A = A - sp.diags_array(A.diagonal())
        A = sp.csr_array(sp.diags_array(1e-6 + np.asarray(A.sum(axis=1))) - A)
        assert IncompleteCholesky().setup(A).shift == 0.0
    kershaw = np.array([[3.0, -2, 0, 2], [-2, 3, -2, 0], [0, -2, 3, -2], [2, 0, -2, 3]])
    assert np.min(np.linalg.eigvalsh(kershaw)) > 0
    M = IncompleteCholesky().setup(sp.csr_array(kershaw))
    assert M.shift > 0
    assert M.positive
    assert "raised" in str(M)
    assert np.min(np.linalg.eigvalsh(as_matrix(M, 4))) > 0
    assert cg(kershaw, np.ones(4), rtol=1e-10, M=M).converged


@pytest.mark.parametrize("kind", [ILU, lambda: ILU(drop_tol=1e-3), SSOR])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_adjoint_identity_and_dtype(kind, dtype):
    rng = np.random.default_rng(2)
    A = TRANSPORT.astype(dtype)
    if np.dtype(dtype).kind == "c":
        A = A + sp.diags_array((1j * rng.random(72)).astype(dtype))
    x, y = rng.standard_normal((2, 72)).astype(dtype)
    M = kind().setup(A)
    assert M.matvec(x).dtype == dtype
    assert not M.symmetric
    # <M x, y> = <x, M' y> to some roundings
    difference = abs(np.vdot(y, M.matvec(x)) - np.vdot(M.rmatvec(y), x))
    assert difference <= 200 * np.finfo(dtype).eps * np.linalg.norm(M.matvec(x)) * np.linalg.norm(y)
    assert gmres(A, x, rtol=1e-4, M=kind()).converged


@pytest.mark.parametrize(("shape", "omega"), [((40, 40), 1.85), ((80, 80), 1.92)])
def test_ssor_with_a_good_omega_takes_the_root_of_the_condition(shape, omega):
    """Axelsson 1994, section 7.4: iterations grow with the root of those without, n^(1/4) instead of n^(1/2)."""
    A = gallery.poisson(shape)
    b = np.random.default_rng(0).standard_normal(A.shape[0])
    plain, swept = (cg(A, b, rtol=1e-8, M=M).iterations for M in (None, SSOR(omega)))
    assert swept <= 4 * np.sqrt(plain)


@pytest.mark.parametrize("indices", [np.int32, np.int64])
def test_rows_in_any_order_duplicates_and_wide_indices(indices):
    """Entry (0, 1) is there twice, rows are not sorted."""
    data = np.array([0.5, 4.0, 0.5, 3.0, 1.0])
    A = sp.csr_array((data, np.array([1, 0, 1, 1, 0], dtype=indices), np.array([0, 3, 5], dtype=indices)), (2, 2))
    before = A.data.copy()
    for M in (SSOR(), ILU(), IncompleteCholesky()):
        M.setup(A)
        np.testing.assert_array_equal(A.data, before)
    np.testing.assert_allclose(IncompleteCholesky().setup(A).matvec(np.array([5.0, 4.0])), [1.0, 1.0], rtol=1e-14)


@pytest.mark.parametrize(
    ("kind", "A", "message"),
    [
        (SSOR, np.array([[0.0, 1.0], [1.0, 2.0]]), "zeros on its diagonal, the first in row 0"),
        (ILU, sp.csr_array([[1.0, 1.0], [1.0, 0.0]]), "row 1"),
        (ILU, sp.csr_array([[1.0, 1.0], [1.0, 1.0]]), "pivot of ILU.0. in row 1"),
        (IncompleteCholesky, TRANSPORT, "needs a symmetric"),
        (IncompleteCholesky, -JUMPS, "positive diagonal"),
        (lambda: ILU(drop_tol=1e-3), sp.csr_array([[1.0, 1.0], [1.0, 1.0]]), "singular"),
    ],
)
def test_bad_matrices_are_named_and_leave_nothing_behind(kind, A, message):
    M = kind()
    with pytest.raises(ValueError, match=message):
        M.setup(A)
    assert M.shape is None
    for name in ("ssor", "ilu", "ic"):
        with pytest.raises(ValueError, match="needs its entries"):
            cg(lambda v: 2 * v, np.ones(3), M=preconditioners.build(name))


@pytest.mark.parametrize(
    "build", [lambda: SSOR(0.0), lambda: SSOR(2.0), lambda: ILU(drop_tol=-1), lambda: ILU(0.1, 0.5)]
)
def test_bad_parameters_are_named(build):
    with pytest.raises(ValueError, match="expected"):
        build()


def test_size_one():
    for M in (SSOR(), ILU(), IncompleteCholesky()):
        np.testing.assert_allclose(M.setup(np.array([[4.0]])).matvec(np.array([2.0])), [0.5])
