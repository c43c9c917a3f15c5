"""What System finds out about A."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import aslinearoperator

from solvers import gallery
from solvers.system import System, norm, working_dtype

RNG = np.random.default_rng(0)


def test_symmetry_is_seen_to_rounding():
    A = RNG.standard_normal((30, 30))
    H = A @ A.T
    noisy = H * (1 + 4e-16 * RNG.standard_normal(H.shape))  # two roundings of each entry
    wrong = H.copy()
    wrong[3, 4] += 1e-8
    for form in (np.asarray, sp.csr_array):
        assert System(form(noisy)).symmetric
        assert not System(form(wrong)).symmetric
    assert System(aslinearoperator(noisy)).symmetric
    assert not System(aslinearoperator(A)).symmetric


def test_hermitian_is_symmetric_and_complex_symmetric_is_not():
    C = RNG.standard_normal((9, 9)) + 1j * RNG.standard_normal((9, 9))
    assert System(C + C.conj().T).symmetric
    assert not System(C + C.T).symmetric
    assert System((C + C.conj().T).__matmul__, size=9, dtype=complex).symmetric


def test_positive_diagonal():
    assert System(np.diag([1.0, 2.0])).diagonal_positive
    assert not System(np.diag([1.0, 0.0])).diagonal_positive
    assert not System(np.diag([1.0, 2.0 + 1j])).diagonal_positive
    assert System(lambda x: x, size=3).diagonal_positive is None


def test_signs_of_definiteness():
    assert System(gallery.poisson((5, 5))).maybe_definite
    assert System(gallery.poisson((5, 5), boundary="neumann")).maybe_definite
    assert not System(gallery.helmholtz((9, 9), wavenumber=1.0)).maybe_definite  # 1' A 1 < 0
    assert not System(np.array([[2.0, 1.0], [0.0, 2.0]])).maybe_definite


def test_constants():
    assert System(gallery.poisson((40, 30), boundary="periodic")).annihilates_constants
    assert System(gallery.diffusion(gallery.jumps((40, 30), 1e6), boundary="neumann")).annihilates_constants
    assert not System(gallery.poisson((40, 30))).annihilates_constants


def test_matrix_of_each_form():
    A = gallery.poisson((3, 4))
    assert isinstance(System(A.tocsr().toarray()).matrix, np.ndarray)
    for form in (A, A.tocsr(), sp.csc_matrix(A.tocsr()), sp.coo_array(A.tocsr())):
        assert isinstance(System(form).matrix, sp.csr_array)
    assert System(aslinearoperator(A.tocsr()).matvec, size=12).matrix is None


def test_facts_and_counts_are_kept():
    system = System(np.eye(3))
    assert System.of(system) is system
    assert System.of(system, dtype=np.float32) is system
    assert System.of(system, dtype=complex) is not system
    with pytest.raises(ValueError, match="does not fit"):
        System.of(system, size=4)


def test_dtype_is_the_wider_of_A_and_what_is_asked():
    single = sp.eye_array(3, dtype=np.float32).tocsr()
    assert System(single).dtype == np.float32
    assert System(single, dtype=np.float64).matrix.dtype == np.float64
    assert System(np.eye(3, dtype=int)).dtype == np.float64
    exact = System(np.eye(3), dtype=np.float32, exactly=True)
    assert exact.matvec(np.ones(3, dtype=np.float32)).dtype == np.float32
    with pytest.raises(ValueError, match="is complex while"):
        System(1j * np.eye(3), dtype=np.float64, exactly=True)
    for bad in (np.float16, object, "U1", np.longdouble):
        with pytest.raises(TypeError, match="float32"):
            working_dtype(bad)


def test_products_of_the_wrong_shape_are_refused():
    with pytest.raises(ValueError, match=r"expected a product of shape \(3,\)"):
        System(lambda x: x[:2], size=3).matvec(np.ones(3))


def test_norm_of_any_size():
    for size in (1e-200, 1.0, 1e200):
        assert norm(np.array([3.0, 4.0]) * size) == pytest.approx(5.0 * size, rel=1e-14)
    assert norm(np.array([3.0, 4.0j]) * 1e200) == pytest.approx(5e200, rel=1e-14)
