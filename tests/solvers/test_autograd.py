"""The differentiable solve against finite differences, against torch's own dense solve, and at its edges."""

import sys

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as sla

from solvers import AMG, ConvergenceError, Jacobi, StencilOperator, gallery

torch = pytest.importorskip("torch")

from solvers.autograd import solve  # noqa: E402


@pytest.fixture
def rng():
    return np.random.default_rng(4)


def tensor(array, grad=True):
    return torch.tensor(array, requires_grad=grad)


def dense(rng, n, dtype=float, symmetric=False):
    """Diagonally dominant, so that every entry may be perturbed."""
    A = rng.standard_normal((n, n)) / n
    if dtype is complex:
        A = A + 1j * rng.standard_normal((n, n)) / n
    if symmetric:
        A = A + A.conj().T
    return A + 4 * np.eye(n)


@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.parametrize("columns", [None, 2])
@pytest.mark.parametrize("symmetric", [True, False])
def test_first_and_second_derivatives_of_a_dense_matrix(rng, dtype, columns, symmetric):
    A = tensor(dense(rng, 4, dtype, symmetric))
    b = tensor(rng.standard_normal((4,) if columns is None else (4, columns)).astype(dtype))
    assert torch.autograd.gradcheck(solve, (A, b))
    assert torch.autograd.gradgradcheck(solve, (A, b))


@pytest.mark.parametrize(
    "method", ["cg", "minres", "gmres", "bicgstab", "gmres_dr", "flexible_cg", "gcrodr", "deflated_cg", "direct"]
)
def test_derivatives_with_every_method(rng, method):
    A = tensor(dense(rng, 4, symmetric=True))
    b = tensor(rng.standard_normal(4))
    # Only symmetric changes: the methods for symmetric matrices see no other.
    assert torch.autograd.gradcheck(lambda A, b: solve((A + A.T) / 2, b, method=method, rtol=1e-13), (A, b))


def test_real_matrix_and_complex_right_hand_side(rng):
    A, b = tensor(dense(rng, 4)), tensor(rng.standard_normal(4) + 1j * rng.standard_normal(4))
    assert torch.autograd.gradcheck(solve, (A, b))
    A, b = tensor(dense(rng, 4, complex)), tensor(rng.standard_normal(4))
    assert torch.autograd.gradcheck(solve, (A, b))


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("layout", ["coo", "csr"])
def test_gradient_of_a_sparse_tensor_lies_on_its_entries(rng, layout):
    matrix = sp.csr_array(gallery.poisson((3, 4)).tocsr())
    matrix.data = matrix.data + 0.3 * rng.standard_normal(matrix.nnz)
    A = torch.sparse_csr_tensor(
        torch.tensor(matrix.indptr), torch.tensor(matrix.indices), torch.tensor(matrix.data), matrix.shape
    )
    A = (A if layout == "csr" else A.to_sparse_coo()).requires_grad_()
    b = tensor(rng.standard_normal(12))
    solve(A, b).square().sum().backward()
    full, c = tensor(matrix.toarray()), b.detach().clone().requires_grad_()
    torch.linalg.solve(full, c).square().sum().backward()
    assert A.grad.layout == A.layout
    assert (A.grad.coalesce() if layout == "coo" else A.grad).values().numel() == matrix.nnz
    pattern = torch.tensor(matrix.toarray() != 0)
    # Solves to 1e-10, a condition number of some tens.
    torch.testing.assert_close(A.grad.to_dense(), full.grad * pattern, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(b.grad, c.grad, rtol=1e-8, atol=1e-9)


def test_values_of_a_sparse_pattern(rng):
    pattern = sp.random_array((6, 6), density=0.4, rng=1, format="csc") + 3 * sp.eye_array(6, format="csc")
    values = tensor(pattern.tocoo().data)
    b = tensor(rng.standard_normal(6))
    assert torch.autograd.gradcheck(lambda v, b: solve(v, b, pattern=pattern), (values, b))
    assert torch.autograd.gradgradcheck(lambda v, b: solve(v, b, pattern=pattern), (values, b))


@pytest.mark.parametrize("boundary", ["dirichlet", "periodic"])
def test_coefficients_of_a_stencil(rng, boundary):
    pattern = gallery.poisson((4, 3), boundary=boundary)
    coefficients = np.array(pattern.coefficients)
    coefficients[pattern.offsets.index((0, 0))] += 1.0 + rng.random((4, 3))
    inside = torch.tensor(coefficients != 0)
    free, b = tensor(coefficients), tensor(rng.standard_normal(12))

    def of_stencil(c, b):
        return solve(c * inside, b, pattern=pattern)  # what points outside the grid must stay zero

    assert torch.autograd.gradcheck(of_stencil, (free, b))


def test_stencil_with_a_mask_equals_its_matrix(rng):
    mask = np.ones((5, 6), dtype=bool)
    mask[1:3, 2] = False
    whole = gallery.poisson((5, 6))
    coefficients = np.array([np.where(mask, c, 0) for c in whole.coefficients])
    for k, offset in enumerate(whole.offsets):
        coefficients[k][~np.roll(mask, [-o for o in offset], (0, 1))] = 0
    stencil = StencilOperator(
        whole.offsets, coefficients, (5, 6), whole.spacing, boundary=whole.boundary, centring=whole.centring, mask=mask
    )
    b = torch.tensor(rng.standard_normal(28))
    c = tensor(coefficients)
    solve(c, b, pattern=stencil).square().sum().backward()
    full = tensor(stencil.tocsr().toarray())
    torch.linalg.solve(full, b).square().sum().backward()
    # d/dc of the coefficient at point i that looks to j is the gradient of entry (i, j).
    number = np.cumsum(mask.reshape(-1)).reshape(5, 6) - 1
    for k, offset in enumerate(whole.offsets):
        for i in np.ndindex(5, 6):
            j = tuple(np.add(i, offset))
            exists = all(0 <= a < s for a, s in zip(j, (5, 6), strict=True)) and mask[i] and mask[j]
            expected = float(full.grad[number[i], number[j]]) if exists else 0.0
            assert float(c.grad[k][i]) == pytest.approx(expected, rel=1e-8, abs=1e-10)


def test_singular_systems_differentiate_as_the_pseudo_inverse(rng):
    A = gallery.poisson((4, 4), boundary="neumann").tocsr()
    b = rng.standard_normal(16)
    b = tensor(b - b.mean())
    g = torch.tensor(rng.standard_normal(16))  # has a part in the null space, to which x does not react
    x = solve(torch.tensor(A.toarray()), b, rtol=1e-12)
    x.backward(g)
    inverse = torch.tensor(np.linalg.pinv(A.toarray()))
    torch.testing.assert_close(x.detach(), inverse @ b.detach(), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(b.grad, inverse @ g, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("size", [1e-13, 1e-25, 1e-36])
def test_tiny_cotangents_do_not_underflow(rng, size):
    """The square of 1e-25 is zero in single precision, and 1e-13 was all-NaN gradients in jax (#40254)."""
    A = tensor(gallery.poisson((6, 6)).tocsr().toarray().astype(np.float32), grad=False)
    g = rng.standard_normal(36).astype(np.float32)

    def gradients(scale, method):
        values, b = A.clone().requires_grad_(), tensor(np.ones(36, dtype=np.float32))
        solve(values, b, method=method).backward(torch.tensor(g) * scale)
        return b.grad, values.grad

    for method in ("auto", "cg"):
        for tiny, usual in zip(gradients(np.float32(size), method), gradients(np.float32(1.0), method), strict=True):
            assert float(tiny.abs().max()) > 0
            # rtol 1e-5 on either side, and a condition number of 20; what is near 1e-38 has lost digits to rounding
            torch.testing.assert_close(tiny.double() / size, usual.double(), rtol=1e-2, atol=1e-3)


def test_absolute_tolerance_is_of_the_forward_solve_only(rng):
    A, b = tensor(dense(rng, 8, symmetric=True), grad=False), tensor(rng.standard_normal(8))
    solve(A, b, method="cg", atol=1e-3, rtol=1e-12).backward(torch.full((8,), 1e-6, dtype=torch.float64))
    expected = torch.linalg.solve(A, torch.full((8,), 1e-6, dtype=torch.float64))
    torch.testing.assert_close(b.grad, expected, rtol=1e-9, atol=0)


def test_backward_tolerance_is_its_own(rng):
    A, b = tensor(dense(rng, 30, symmetric=True), grad=False), tensor(rng.standard_normal(30))
    g = torch.tensor(rng.standard_normal(30))
    exact = torch.linalg.solve(A, g)
    errors = []
    for backward_rtol in (1e-2, 1e-12):
        b.grad = None
        solve(A, b, method="cg", rtol=1e-10, backward_rtol=backward_rtol).backward(g)
        errors.append(float((b.grad - exact).norm() / exact.norm()))
    assert errors[1] < 1e-11
    assert errors[0] > 1e-8


class Recording:
    """Diagonal, told apart from its adjoint by what it writes down."""

    def __init__(self, diagonal):
        self.shape, self.dtype = (len(diagonal), len(diagonal)), np.dtype(complex)
        self.diagonal, self.calls = diagonal, set()

    def matvec(self, r):
        self.calls.add("M")
        return r / self.diagonal

    def rmatvec(self, r):
        self.calls.add("M'")
        return r / self.diagonal.conj()


def test_adjoint_solve_takes_the_adjoint_preconditioner(rng):
    A = dense(rng, 20, complex) + np.diag(3j * np.arange(20))
    M = Recording(np.diag(A))
    b = tensor(rng.standard_normal(20) + 0j)
    x = solve(tensor(A, grad=False), b, method="gmres", M=M)
    assert M.calls == {"M"}
    x.abs().sum().backward()
    assert M.calls == {"M", "M'"}


@pytest.mark.parametrize("form", ["jacobi", "direct", "amg", "Jacobi()", "AMG()", "matrix", "operator"])
def test_every_form_of_preconditioner_backward(rng, form):
    n = 40
    A = dense(rng, n)
    near = np.linalg.inv(A + 0.1 * np.eye(n))
    objects = {"Jacobi()": Jacobi(), "AMG()": AMG(), "matrix": near, "operator": sla.aslinearoperator(near)}
    M = objects.get(form, form)
    b = tensor(rng.standard_normal(n))
    given = sp.csr_array(A)
    values = tensor(given.data)
    solve(values, b, pattern=given, method="gmres", M=M).sum().backward()
    expected = np.linalg.solve(A.T, np.ones(n))
    np.testing.assert_allclose(b.grad.numpy(), expected, rtol=1e-7)


def test_callable_preconditioner_without_an_adjoint_is_named(rng):
    A, b = tensor(dense(rng, 5), grad=False), tensor(rng.standard_normal(5))
    x = solve(A, b, method="gmres", M=lambda r: r / 4)
    with pytest.raises(TypeError, match="rmatvec"):
        x.sum().backward()


def test_factors_are_made_once_for_both_ways(rng, monkeypatch):
    module = sys.modules["solvers.direct"]  # in the package its name is the function's
    count = []
    splu = module.splu
    monkeypatch.setattr(module, "splu", lambda *a, **k: count.append(1) or splu(*a, **k))
    A = gallery.convection_diffusion((20, 20), velocity=(3.0, 1.0))
    A = A.tocsr() if hasattr(A, "tocsr") else A
    b = tensor(rng.standard_normal(400))
    solve(tensor(A.tocoo().data), b, pattern=A).square().sum().backward()
    assert len(count) == 1
    x = sla.spsolve(A.tocsc(), b.detach().numpy())
    np.testing.assert_allclose(b.grad.numpy(), sla.spsolve(A.T.tocsc(), 2 * x), rtol=1e-6)


def test_missed_tolerance_raises_forward_and_backward(rng):
    A, b = tensor(gallery.poisson((20, 20)).tocsr().toarray(), grad=False), tensor(rng.standard_normal(400))
    with pytest.raises(ConvergenceError):
        solve(A, b, method="cg", maxiter=2)
    x = solve(A, b, method="cg", rtol=0.9, backward_rtol=1e-12, maxiter=3)
    with pytest.raises(ConvergenceError):
        x.sum().backward()


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        ((np.eye(3), torch.ones(3)), {}, "A: expected a torch.Tensor"),
        ((torch.eye(3), np.ones(3)), {}, "b: expected a torch.Tensor"),
        ((torch.ones(3, 4), torch.ones(3)), {}, "A: expected shape"),
        ((torch.ones(5), torch.ones(3)), {"pattern": sp.eye_array(3)}, "A: with this pattern"),
        ((torch.ones(3), torch.ones(3)), {"pattern": "csr"}, "pattern: expected"),
        ((torch.eye(3), torch.eye(3).to_sparse()), {}, "b: expected a dense"),
        ((torch.eye(3), torch.ones(4)), {}, "does not fit"),
    ],
)
def test_bad_arguments_are_named(arguments, keywords, message):
    with pytest.raises((TypeError, ValueError), match=message):
        solve(*arguments, **keywords)


@pytest.mark.gpu
def test_solution_comes_back_on_the_device_of_b():
    A = torch.tensor(gallery.poisson((8, 8)).tocsr().toarray(), device="cuda", requires_grad=True)
    b = torch.ones(64, dtype=torch.float64, device="cuda", requires_grad=True)
    x = solve(A, b)
    x.sum().backward()
    assert x.device == b.device == b.grad.device == A.grad.device
