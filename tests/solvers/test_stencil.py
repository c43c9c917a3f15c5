"""StencilOperator against dense matrices assembled entry by entry from its definition."""

import itertools

import numpy as np
import pytest
import scipy.sparse as sp

from solvers import StencilOperator, gallery


def dense(offsets, coefficients, shape, periodic, mask=None):
    """The definition, one entry at a time: A[i, i + o] += c_o[i], wrapped on periodic axes."""
    n = int(np.prod(shape))
    A = np.zeros((n, n), dtype=np.result_type(*coefficients))
    for offset, c in zip(offsets, coefficients, strict=True):
        for point in itertools.product(*map(range, shape)):
            target = [i + o for i, o in zip(point, offset, strict=True)]
            target = [t % s if p else t for t, s, p in zip(target, shape, periodic, strict=True)]
            if all(0 <= t < s for t, s in zip(target, shape, strict=True)):
                A[np.ravel_multi_index(point, shape), np.ravel_multi_index(target, shape)] += c[point]
            else:
                assert c[point] == 0
    if mask is not None:
        A = A[mask.ravel()][:, mask.ravel()]
    return A


def random_stencil(rng, shape, periodic, dtype=np.float64, mask=None, reach=1):
    """Every offset within reach with random coefficients, zero where they would point outside."""
    offsets = list(itertools.product(range(-reach, reach + 1), repeat=len(shape)))
    coefficients = []
    for offset in offsets:
        c = rng.standard_normal(shape).astype(dtype)
        if np.dtype(dtype).kind == "c":
            c = (c + 1j * rng.standard_normal(shape)).astype(dtype)
        index = np.indices(shape)
        target = [i + o for i, o in zip(index, offset, strict=True)]
        inside = np.ones(shape, dtype=bool)
        for axis, size in enumerate(shape):
            if periodic[axis]:
                target[axis] = target[axis] % size
            else:
                inside &= (target[axis] >= 0) & (target[axis] < size)
        if mask is not None:
            clipped = tuple(np.clip(t, 0, s - 1) for t, s in zip(target, shape, strict=True))
            inside &= mask & mask[clipped]
        coefficients.append(np.where(inside, c, 0).astype(dtype))
    boundary = [("periodic", "periodic") if p else ("dirichlet", "neumann") for p in periodic]
    return StencilOperator(offsets, coefficients, shape=shape, spacing=1.0, boundary=boundary, mask=mask), coefficients


CASES = [
    ((7,), (False,)),
    ((7,), (True,)),
    ((1,), (False,)),
    ((4, 5), (False, False)),
    ((4, 5), (True, False)),
    ((4, 5), (False, True)),
    ((3, 4), (True, True)),
    ((1, 4), (False, False)),
    ((2, 2), (True, True)),
    ((3, 4, 5), (False, True, False)),
    ((3, 2, 4), (True, True, True)),
]


@pytest.mark.parametrize(("shape", "periodic"), CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_matvec_adjoint_csr_and_diagonal_follow_the_definition(shape, periodic, dtype):
    rng = np.random.default_rng(3)
    A, coefficients = random_stencil(rng, shape, periodic, dtype)
    reference = dense(A.offsets, coefficients, shape, periodic)
    # The same numbers are only placed and, where offsets coincide, added: at most 3**3 terms of rounding.
    tolerance = 30 * np.finfo(dtype).eps
    matrix = A.tocsr()
    np.testing.assert_allclose(matrix.toarray(), reference, atol=tolerance)
    assert matrix.nnz == np.count_nonzero(reference)  # an entry that two offsets share is stored once
    x, y = rng.standard_normal((2, A.shape[0])).astype(dtype)
    # 27 products of size one are added: a few tens of eps.
    tolerance = 200 * np.finfo(dtype).eps
    assert (A @ x).dtype == dtype
    np.testing.assert_allclose(A @ x, reference @ x, atol=tolerance)
    np.testing.assert_allclose(A.rmatvec(y), reference.conj().T @ y, atol=tolerance)
    np.testing.assert_allclose(A.T @ y, reference.T @ y, atol=tolerance)
    np.testing.assert_allclose(A.H.tocsr().toarray(), reference.conj().T, atol=tolerance)
    np.testing.assert_allclose(A @ np.stack([x, y], 1), reference @ np.stack([x, y], 1), atol=tolerance)
    np.testing.assert_allclose(A.diagonal(), np.diag(reference), atol=tolerance)


def test_more_points_than_one_block_of_the_kernel():
    rng = np.random.default_rng(4)
    A, _ = random_stencil(rng, (60, 70), (False, True))
    x = rng.standard_normal(A.shape[0])
    # The CSR form is checked entry by entry above; nine products of size one.
    np.testing.assert_allclose(A @ x, A.tocsr() @ x, atol=1e-13)


@pytest.mark.parametrize("periodic", [(False, False), (True, False), (True, True)])
def test_mask_leaves_only_its_points_as_unknowns(periodic):
    rng = np.random.default_rng(5)
    mask = rng.random((6, 7)) < 0.7
    A, coefficients = random_stencil(rng, mask.shape, periodic, mask=mask)
    reference = dense(A.offsets, coefficients, mask.shape, periodic, mask)
    assert A.shape == (mask.sum(), mask.sum())
    x = rng.standard_normal(A.shape[0])
    np.testing.assert_allclose(A @ x, reference @ x, atol=1e-13)  # nine products of size one
    np.testing.assert_allclose(A.tocsr().toarray(), reference, atol=1e-14)
    np.testing.assert_allclose(A.rmatvec(x), reference.T @ x, atol=1e-13)
    np.testing.assert_array_equal(A.diagonal(), np.diag(reference))
    np.testing.assert_array_equal(A.to_vector(A.to_field(x)), x)
    assert not A.to_field(x)[~mask].any()


def test_reach_of_two():
    rng = np.random.default_rng(7)
    A, coefficients = random_stencil(rng, (6, 5), (True, False), reach=2)
    reference = dense(A.offsets, coefficients, (6, 5), (True, False))
    np.testing.assert_allclose(A.tocsr().toarray(), reference, atol=1e-14)
    x = rng.standard_normal(30)
    np.testing.assert_allclose(A @ x, reference @ x, atol=1e-12)  # 25 products of size one


def test_eigenvalues_of_poisson_are_the_known_ones():
    shape, spacing = (5, 4, 3), (0.5, 1.0, 2.0)
    A = gallery.poisson(shape, spacing)
    one_axis = [
        4 / h**2 * np.sin(np.pi * np.arange(1, n + 1) / (2 * (n + 1))) ** 2 for n, h in zip(shape, spacing, strict=True)
    ]
    expected = np.sort(sum(np.meshgrid(*one_axis, indexing="ij")).ravel())
    # eigvalsh is backward stable: a few eps times the norm, which is about 20 here.
    np.testing.assert_allclose(np.linalg.eigvalsh(A.tocsr().toarray()), expected, atol=1e-13 * 20)


@pytest.mark.parametrize("boundary", ["dirichlet", "neumann", "periodic"])
@pytest.mark.parametrize("shape", [(9,), (6, 5), (4, 3, 5)])
def test_recognised_again_from_csr(shape, boundary):
    rng = np.random.default_rng(11)
    A = gallery.diffusion(rng.uniform(1, 2, shape), boundary=boundary)
    again = StencilOperator.from_csr(A.tocsr(), shape, spacing=A.spacing, centring=A.centring)
    assert again.boundary == A.boundary
    assert (again.tocsr() != A.tocsr()).nnz == 0


def test_sides_are_told_apart_by_the_sums_of_their_rows():
    mixed = [("dirichlet", "neumann"), ("neumann", "dirichlet"), ("periodic", "periodic")]
    A = gallery.poisson((4, 5, 6), boundary=mixed)
    assert StencilOperator.from_csr(A.tocsr(), (4, 5, 6)).boundary == tuple(mixed)


def test_what_is_no_stencil_is_refused():
    A = gallery.poisson((5, 6)).tocsr().tolil()
    A[2, 17] = 1.0
    with pytest.raises(ValueError, match=r"entry \(2, 17\)"):
        StencilOperator.from_csr(A.tocsr(), (5, 6))
    with pytest.raises(ValueError, match="further apart"):
        StencilOperator.from_csr(gallery.poisson((5, 6)).tocsr(), (6, 5))  # the right size in the wrong order
    with pytest.raises(ValueError, match=r"\(30, 30\)"):
        StencilOperator.from_csr(sp.eye_array(29), (5, 6))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"coefficients": [np.ones(3), np.ones(3)]}, "points outside the grid"),
        ({"coefficients": [np.ones(3)]}, "one array for each"),
        ({"coefficients": [np.ones(4), np.ones(4)]}, "shape"),
        ({"offsets": [(0,), (0,)]}, "only once"),
        ({"offsets": [(0, 0), (1, 0)]}, "tuples of 1 integers"),
        ({"spacing": -1.0}, "positive"),
        ({"boundary": "open"}, "pair of names"),
        ({"boundary": [("periodic", "neumann")]}, "one side only"),
        ({"centring": "face"}, "'cell' or 'node'"),
        ({"shape": (0,)}, "positive number"),
        ({"mask": np.ones(3)}, "bool array"),
        ({"mask": np.zeros(3, dtype=bool)}, "no point"),
        ({"mask": np.array([True, False, True])}, "outside the grid or the mask"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    arguments = {
        "offsets": [(0,), (1,)],
        "coefficients": [np.ones(3), np.array([1.0, 1.0, 0.0])],
        "shape": (3,),
        "spacing": 1.0,
    }
    StencilOperator(**arguments)
    with pytest.raises(ValueError, match=message):
        StencilOperator(**(arguments | change))


def test_coefficients_cannot_change_behind_the_operator():
    c = np.ones(3)
    A = StencilOperator([(0,)], [c], shape=(3,), spacing=1.0)
    c[0] = 7.0
    assert A.diagonal()[0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        A.coefficients[0, 0] = 2.0
    assert A.H.coefficients.flags.writeable is False


def test_object_coefficients_are_refused():
    with pytest.raises(TypeError, match="float32, float64"):
        StencilOperator([(0,)], [np.array([1, 2, None])], shape=(3,), spacing=1.0)
