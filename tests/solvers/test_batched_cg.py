"""Batched conjugate gradients: every system of a batch behaves as it would alone."""

import numpy as np
import pytest

from solvers import Status, cg, gallery

torch = pytest.importorskip("torch")

from solvers.autograd import batched_cg  # noqa: E402

TYPES = [np.float32, np.float64, np.complex64, np.complex128]


def definite(n, count, dtype=np.float64, condition=100.0, seed=0):
    """Random matrices with given spectra, shape (count, n, n)."""
    rng = np.random.default_rng(seed)
    matrices = rng.standard_normal((count, n, n))
    if np.dtype(dtype).kind == "c":
        matrices = matrices + 1j * rng.standard_normal((count, n, n))
    Q = np.linalg.qr(matrices)[0]
    spectrum = np.geomspace(1.0, condition, n)
    return ((Q * spectrum) @ Q.conj().swapaxes(1, 2)).astype(dtype)


def product(A):
    matrices = torch.tensor(A)
    return lambda v: torch.einsum("bij,bj->bi", matrices, v)


@pytest.mark.parametrize("dtype", TYPES)
def test_iterates_are_those_of_cg_one_by_one(dtype):
    A = definite(30, 4, dtype)
    b = np.random.default_rng(1).standard_normal((4, 30)).astype(dtype)
    tolerance = 1e-4 if np.finfo(dtype).eps > 1e-10 else 1e-8
    result = batched_cg(product(A), torch.tensor(b), rtol=tolerance)
    assert result.converged
    assert result.x.dtype == torch.tensor(b).dtype
    for i in range(4):
        alone = cg(A[i], b[i], rtol=tolerance)
        # Rounding may move the end by an iteration, or by two in single precision.
        assert abs(alone.iterations - int(result.iterations[i])) <= 2
        steps = min(alone.iterations, int(result.iterations[i]), 8)
        np.testing.assert_allclose(result.history[:steps, i].numpy(), alone.history[:steps], rtol=1e-3)
        residual = np.linalg.norm(b[i] - A[i] @ result.x[i].numpy())
        assert residual <= 1.01 * tolerance * np.linalg.norm(b[i])
        # The stated norm is the true one; two ways of summing differ by some eps of ||A|| ||x||.
        bound = 100 * np.finfo(dtype).eps * 100 * np.linalg.norm(result.x[i].numpy())
        assert abs(residual - float(result.residual_norms[i])) <= bound


def test_systems_end_on_their_own():
    """A diagonal with k distinct entries takes k iterations, whatever the others do."""
    d = torch.ones(3, 12, dtype=torch.float64)
    d[1, ::2] = 2.0
    d[2] = torch.arange(1.0, 13.0)
    result = batched_cg(lambda v: d * v, torch.ones(3, 12, dtype=torch.float64), rtol=1e-12)
    assert result.converged
    assert result.iterations.tolist() == [1, 2, 12]
    assert torch.isnan(result.history[2:, 0]).all()
    assert torch.isfinite(result.history[:, 2]).all()


def test_fields_of_any_shape_and_a_preconditioner():
    stencil = gallery.poisson((8, 9))
    scale = np.random.default_rng(2).uniform(0.1, 10.0, (5, 8, 9))
    A = torch.tensor(stencil.tocsr().toarray())
    s = torch.tensor(scale)

    def apply(v):  # S A S, which M = S^-2 sets right
        return s * (A @ (s * v).reshape(5, -1).T).T.reshape(5, 8, 9)

    b = torch.ones(5, 8, 9, dtype=torch.float64)
    plain = batched_cg(apply, b, rtol=1e-8)
    better = batched_cg(apply, b, rtol=1e-8, M=lambda r: r / s**2)
    assert plain.converged
    assert better.converged
    assert better.x.shape == b.shape
    assert int(better.iterations.max()) < int(plain.iterations.min())
    torch.testing.assert_close(better.x, plain.x, rtol=1e-4, atol=1e-4 * float(plain.x.abs().max()))


def test_a_status_for_each_system():
    d = torch.tensor(
        [[1.0, 2.0, 3.0], [1.0, 1.0, -5.0], [1.0, 1.0, 1.0], [1.0, 2.0, 3.0], [torch.nan, 1.0, 1.0]],
        dtype=torch.float64,
    )
    b = torch.ones(5, 3, dtype=torch.float64)
    b[2], b[3, 1] = 0.0, torch.inf
    result = batched_cg(lambda v: d * v, b)
    assert [s.name for s in result.statuses] == [
        "CONVERGED",
        "INDEFINITE_OPERATOR",
        "CONVERGED",
        "NONFINITE_INPUT",
        "NONFINITE_OUTPUT",
    ]
    assert torch.isfinite(result.x).all()
    assert not result.x[2].any()
    assert result.iterations[2] == 0
    assert result.status is Status.NONFINITE_INPUT
    assert "NONFINITE_INPUT" in str(result)
    assert torch.isinf(result.residual_norms[3])


def test_indefinite_preconditioner_is_named():
    b = torch.ones(2, 4, dtype=torch.float64)
    signs = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    d = torch.arange(1.0, 5.0, dtype=torch.float64)
    result = batched_cg(lambda v: d * v, b, M=lambda r: signs * r)
    assert result.statuses == (Status.CONVERGED, Status.INDEFINITE_PRECONDITIONER)


def test_float32_recurrence_is_not_believed():
    """scipy's cg calls 5e-4 a success of 1e-7 here (classical.md B5); no x in float32 is that good."""
    A = torch.tensor(gallery.poisson((60, 60)).tocsr().toarray().astype(np.float32))
    b = torch.ones(2, 3600)
    result = batched_cg(lambda v: v @ A, b, rtol=1e-9)
    true = torch.linalg.vector_norm((b - result.x @ A).double(), dim=1)
    assert set(result.statuses) == {Status.STAGNATED}
    torch.testing.assert_close(true, result.residual_norms.double(), rtol=1e-2, atol=0)


def test_maxiter_and_the_best_iterate():
    A = definite(40, 3, condition=1e6)
    b = torch.ones(3, 40, dtype=torch.float64)
    result = batched_cg(product(A), b, rtol=1e-12, maxiter=5)
    assert set(result.statuses) == {Status.MAX_ITERATIONS}
    assert result.iterations.tolist() == [5, 5, 5]
    residual = torch.linalg.vector_norm(b - product(A)(result.x), dim=1)
    assert bool((residual <= torch.nan_to_num(result.history, nan=np.inf).amin(dim=0) * (1 + 1e-8)).all())
    nothing = batched_cg(product(A), b, maxiter=0)
    assert set(nothing.statuses) == {Status.MAX_ITERATIONS}
    assert not nothing.x.any()
    last = int(batched_cg(product(A), b, rtol=1e-6).iterations.max())
    assert batched_cg(product(A), b, rtol=1e-6, maxiter=last).converged


def test_first_guess():
    A = definite(20, 2)
    x = torch.ones(2, 20, dtype=torch.float64)
    b = product(A)(x)
    exact = batched_cg(product(A), b, x.clone(), rtol=1e-10)
    assert exact.converged
    assert exact.iterations.tolist() == [0, 0]
    near = batched_cg(product(A), b, x + 1e-6, rtol=1e-10)
    assert near.converged
    assert int(near.iterations.max()) < int(batched_cg(product(A), b, rtol=1e-10).iterations.min())


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_right_hand_sides_of_any_size(size):
    A = definite(10, 2)
    b = torch.ones(2, 10, dtype=torch.float64)
    b[1] *= size
    result = batched_cg(product(A), b, rtol=1e-8)
    assert result.converged
    assert result.iterations[0] <= result.iterations[1] + 1
    single = batched_cg(lambda v: 3 * v, torch.full((1, 5), 1e-30))
    assert single.converged
    assert torch.allclose(single.x, torch.full((1, 5), 1e-30) / 3, rtol=1e-5, atol=0)


def test_inputs_are_neither_changed_nor_recorded():
    A = definite(10, 2)
    b = torch.ones(2, 10, dtype=torch.float64, requires_grad=True)
    x0 = torch.zeros(2, 10, dtype=torch.float64)
    result = batched_cg(product(A), b, x0)
    assert not result.x.requires_grad
    assert bool((b == 1).all())
    assert not x0.any()


@pytest.mark.parametrize(
    ("b", "keywords", "message"),
    [
        (np.ones((2, 3)), {}, "b: expected a torch.Tensor"),
        (torch.ones(3), {}, "b: expected shape"),
        (torch.ones(2, 3, dtype=torch.int64), {}, "b: expected float32"),
        (torch.ones(2, 3), {"x0": torch.ones(2, 4)}, "x0: expected a tensor like b"),
        (torch.ones(2, 3), {"rtol": -1.0}, "rtol"),
        (torch.ones(2, 3), {"M": lambda r: r[:, :2]}, "M: expected"),
    ],
)
def test_bad_arguments_are_named(b, keywords, message):
    with pytest.raises((TypeError, ValueError), match=message):
        batched_cg(lambda v: 2 * v, b, **keywords)
    with pytest.raises(ValueError, match="apply_A: expected"):
        batched_cg(lambda v: v[0], torch.ones(2, 3))


@pytest.mark.gpu
def test_on_a_gpu():
    d = torch.arange(1.0, 101.0, device="cuda").expand(8, 100)
    result = batched_cg(lambda v: d * v, torch.ones(8, 100, device="cuda"))
    assert result.converged
    assert result.x.is_cuda
