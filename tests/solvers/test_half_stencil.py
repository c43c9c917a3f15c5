"""Merged passes give what the separate operations give."""

import numpy as np
import pytest

from solvers import Multigrid, StencilOperator, cg, gallery
from solvers.half_stencil import HalfStencil
from solvers.system import System


@pytest.mark.parametrize("shape", [(7,), (5000,), (3, 4), (70, 61), (2, 900), (900, 2), (13, 12, 14), (3, 3, 3)])
@pytest.mark.parametrize(
    ("precision", "of_p"), [(np.float32, np.float64), (np.float64, np.float64), (np.float32, np.float32)]
)
def test_advance_is_update_product_and_inner_product(shape, precision, of_p):
    rng = np.random.default_rng(0)
    A = gallery.diffusion(np.exp(rng.standard_normal(shape)))
    half = HalfStencil.of(A)
    z, p = rng.standard_normal((2, A.shape[0]))
    z, p = z.astype(precision), p.astype(of_p)
    expected = z + 0.7 * p.astype(np.float64)
    q = np.empty(p.size)
    curvature = half.advance(z, 0.7, p, q)
    assert p.dtype == of_p
    # A fused multiply and add rounds once where numpy rounds twice.
    rounding = np.finfo(of_p).eps * 4
    np.testing.assert_allclose(p, expected, rtol=0, atol=rounding * np.abs(expected).max())
    p = p.astype(np.float64)  # which A multiplies exactly, whatever its precision
    dense = A.tocsr() @ p
    np.testing.assert_allclose(q, dense, rtol=0, atol=1e-14 * np.abs(dense).max())  # seven products
    assert curvature == pytest.approx(p @ dense, rel=1e-12)  # a sum of thousands of terms in another order


def test_nine_points_and_unevenly_spaced_offsets():
    A = Multigrid("point", dtype="float64").setup(gallery.diffusion(np.exp(np.indices((40, 50))[0] / 20))).operators[1]
    shuffled = [3, 0, 8, 5, 1, 2, 7, 4, 6]
    B = StencilOperator([A.offsets[k] for k in shuffled], A.coefficients[shuffled], A.grid_shape, 1.0)
    z, q = np.random.default_rng(0).standard_normal(A.shape[0]), np.empty(A.shape[0])
    for operator in (A, B):
        half = HalfStencil.of(operator)
        if half is None:
            # The Galerkin products of opposite links are the same number: never refused here.
            pytest.fail("a symmetric operator was refused")
        p = np.zeros_like(z)
        half.advance(z, 0.0, p, q)
        np.testing.assert_allclose(q, A.tocsr() @ z, atol=1e-13 * np.abs(z).max())


def test_what_it_is_not_made_for():
    A = gallery.poisson((6, 7))
    mask = np.ones((6, 7), dtype=bool)
    assert HalfStencil.of(gallery.convection_diffusion((6, 7), (1.0, 0.0))) is None
    assert HalfStencil.of(gallery.poisson((6, 7), boundary="periodic")) is None
    assert HalfStencil.of(StencilOperator(A.offsets, A.coefficients, (6, 7), 1.0, mask=mask)) is None
    assert HalfStencil.of(StencilOperator(A.offsets, A.coefficients.astype(np.float32), (6, 7), 1.0)) is None
    # One coefficient off by one rounding.
    coefficients = A.coefficients.copy()
    k = A.offsets.index((0, 1))
    coefficients[k, 3, 3] = np.nextafter(coefficients[k, 3, 3], 0)
    assert HalfStencil.of(StencilOperator(A.offsets, coefficients, (6, 7), 1.0)) is None


def test_the_true_residual_in_one_pass():
    for shape in ((9,), (71, 64), (12, 13, 14)):
        A = gallery.diffusion(np.exp(np.random.default_rng(4).standard_normal(shape)))
        x, b = np.random.default_rng(5).standard_normal((2, A.shape[0]))
        system = System.of(A)
        expected = b - A.tocsr() @ x
        np.testing.assert_allclose(system.residual(b, x), expected, rtol=0, atol=1e-14 * np.abs(expected).max())
        assert system.products == 1


def test_a_direction_has_the_precision_that_its_system_multiplies():
    A = gallery.poisson((20, 30))
    z = np.ones(600, np.float32)
    assert System.of(A).direction(z).dtype == np.float32
    assert System.of(A.tocsr(), dtype=np.float64).direction(z).dtype == np.float64
    wide = System.of(A).direction(z.astype(np.float64), z)
    assert wide.dtype == np.float64
    assert wide.ctypes.data != z.ctypes.data


def test_a_system_advances_alike_whatever_its_form():
    A = gallery.diffusion(np.exp(np.random.default_rng(1).standard_normal((30, 41))))
    z, start = np.random.default_rng(2).standard_normal((2, A.shape[0]))
    results = []
    for form in (A, A.tocsr(), A.tocsr().toarray(), A.matvec):
        system, p = System.of(form, size=A.shape[0], dtype=z.dtype), start.copy()
        q, curvature = system.advance(z, 0.3, p)
        results.append((p, np.array(q), curvature))
        assert system.products == 1
    for p, q, curvature in results[1:]:
        np.testing.assert_allclose(p, results[0][0], atol=1e-14)
        np.testing.assert_allclose(q, results[0][1], atol=1e-12)
        assert curvature == pytest.approx(results[0][2], rel=1e-12)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_cg_counts_and_history_are_those_of_the_separate_operations(precision):
    A = gallery.diffusion(np.exp(np.random.default_rng(3).standard_normal((60, 70))))
    b = np.ones(A.shape[0])
    M = Multigrid(dtype=precision).setup(A)
    merged = cg(A, b, rtol=1e-8, M=M)
    separate = cg(A.tocsr(), b, rtol=1e-8, M=M.matvec)
    assert merged.iterations == separate.iterations
    assert merged.matvecs == separate.matvecs
    assert merged.preconditioner_applies == separate.preconditioner_applies
    # r'z is added up in another order, for a float32 cycle from the rounded r: 1e-7 a step.
    np.testing.assert_allclose(merged.history, separate.history, rtol=1e-4)


def test_merged_product_of_multigrid_is_the_inner_product():
    A = gallery.diffusion(np.exp(np.random.default_rng(4).standard_normal((50, 33))))
    r = 1e-7 * np.random.default_rng(5).standard_normal(A.shape[0])
    for precision, tolerance in (("float32", 1e-6), ("float64", 1e-12)):  # rounding of r and z
        M = Multigrid(dtype=precision).setup(A)
        z, product = M.matvec_and_product(r, float(np.linalg.norm(r)))
        assert z.dtype == np.dtype(precision)
        np.testing.assert_allclose(z, M.matvec(r), rtol=1e-6)
        assert product == pytest.approx(float(r @ M.matvec(r)), rel=tolerance)
