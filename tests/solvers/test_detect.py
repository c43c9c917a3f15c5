"""A grid is found in a sparse matrix exactly where there is one."""

import numpy as np
import pytest
import scipy.sparse as sp

from solvers import StencilOperator, gallery
from solvers.detect import detect

PERIODIC = ("periodic", "periodic")


def full_stencil(shape, seed=0):
    """All 3^d neighbours, random coefficients."""
    from itertools import product

    rng = np.random.default_rng(seed)
    offsets = list(product((-1, 0, 1), repeat=len(shape)))
    fields = []
    for offset in offsets:
        field = rng.uniform(0.5, 1, shape)
        for axis, step in enumerate(offset):
            if step:
                field[(slice(None),) * axis + (-1 if step > 0 else 0,)] = 0
        fields.append(field)
    return StencilOperator(offsets, fields, shape, 1.0, boundary="dirichlet", centring="node")


def same(found, A):
    """Shape, sides and every entry."""
    return (
        found is not None
        and found.grid_shape == A.grid_shape
        and found.boundary == A.boundary
        and found.offsets == tuple(sorted(A.offsets))
        and (found.tocsr() != A.tocsr()).nnz == 0
    )


@pytest.mark.parametrize("boundary", ["dirichlet", "neumann", "periodic"])
@pytest.mark.parametrize("shape", [(50,), (20, 31), (31, 20), (64, 64), (5, 90), (90, 5), (9, 8, 7), (6, 17, 5)])
def test_diffusion_operators_are_found(shape, boundary):
    A = gallery.diffusion(np.exp(np.random.default_rng(1).standard_normal(shape)), boundary=boundary)
    assert same(detect(A.tocsr()), A)


@pytest.mark.parametrize("sides", [[PERIODIC, ("dirichlet", "neumann")], [("neumann", "neumann"), PERIODIC]])
def test_mixed_sides_are_found(sides):
    A = gallery.diffusion(np.exp(np.random.default_rng(2).standard_normal((24, 17))), boundary=sides)
    assert same(detect(A.tocsr()), A)


@pytest.mark.parametrize("shape", [(40,), (19, 26), (8, 9, 11)])
def test_full_stencils_are_found(shape):
    A = full_stencil(shape)
    assert same(detect(A.tocsr()), A)


def test_finite_elements_on_triangles_are_found():
    # Seven points: the diagonal neighbours of one direction alone.
    A = full_stencil((22, 13))
    keep = [k for k, offset in enumerate(A.offsets) if offset not in ((1, -1), (-1, 1))]
    B = StencilOperator([A.offsets[k] for k in keep], A.coefficients[keep], A.grid_shape, 1.0, centring="node")
    assert same(detect(B.tocsr()), B)


def test_order_duplicates_stored_zeros_and_formats_do_not_matter():
    A = gallery.diffusion(np.exp(np.random.default_rng(3).standard_normal((30, 22))))
    csr = A.tocsr()
    coo = csr.tocoo()
    rng = np.random.default_rng(4)
    order = rng.permutation(coo.nnz)
    halves = np.concatenate([coo.data[order] / 2, coo.data[order] / 2])
    rows, columns = (np.concatenate([i[order], i[order]]) for i in coo.coords)
    # A stored zero far from everything.
    rows, columns, halves = np.append(rows, 3), np.append(columns, 555), np.append(halves, 0.0)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=csr.shape[0]))])
    by_row = np.argsort(rows, kind="stable")
    scrambled = sp.csr_array((halves[by_row], columns[by_row], indptr), shape=csr.shape)
    assert not scrambled.has_sorted_indices
    assert same(detect(scrambled), A)
    assert same(detect(csr.tocsc()), A)
    assert same(detect(sp.csr_matrix(csr)), A)
    assert scrambled.nnz == 2 * coo.nnz + 1  # the user's matrix is as it was


def test_missing_entries_and_single_precision():
    a = np.exp(np.random.default_rng(5).standard_normal((28, 33))).astype(np.float32)
    A = gallery.diffusion(a).tocsr()
    A[100, 101] = A[101, 100] = 0
    A.eliminate_zeros()
    found = detect(A)
    assert found is not None
    assert found.dtype == np.float32
    assert (found.tocsr() != A).nnz == 0


@pytest.mark.parametrize("row", [0, 25, 317, 611])
@pytest.mark.parametrize("jump", [2, 3, 45, -40, 300])
def test_one_entry_too_far_is_seen(row, jump):
    A = gallery.poisson((24, 26)).tocsr().tolil()
    column = (row + jump) % 624
    A[row, column] = 1.0
    assert detect(A.tocsr()) is None


@pytest.mark.parametrize(("shape", "row", "column"), [((24, 26), 25, 26), ((6, 9, 12), 101, 113)])
def test_an_entry_from_the_end_of_a_line_to_the_next_line_is_no_neighbour_along_it(shape, row, column):
    # At a distance of the stencil, but not a step of it: a step to the next line (plane) around the one before.
    A = gallery.poisson(shape).tocsr().tolil()
    A[row, column] = A[column, row] = -0.5
    found = detect(A.tocsr())
    assert (found.tocsr() != A.tocsr()).nnz == 0
    assert found.periodic[-1 if len(shape) == 2 else 1]
    place = np.unravel_index(row, shape)
    straight = (0, 1) if len(shape) == 2 else (0, 1, 0)
    assert found.coefficients[found.offsets.index(straight)][place] == 0


def test_what_is_no_grid():
    rng = np.random.default_rng(6)
    A = gallery.poisson((20, 20)).tocsr()
    shuffled = rng.permutation(400)
    assert detect(A[shuffled][:, shuffled]) is None
    assert detect(sp.random_array((500, 500), density=0.02, rng=rng, format="csr")) is None
    assert detect(sp.eye_array(30).tocsr()) is None
    assert detect(A[:, :-1]) is None
    assert detect(A.toarray()) is None
    assert detect(sp.csr_array((0, 0))) is None
    assert detect(sp.csr_array(A.astype(np.int64))) is None


def test_an_edge_of_sides_of_two_kinds_keeps_their_names():
    A = gallery.diffusion(np.ones((12, 15)), boundary=[("neumann", "dirichlet"), ("dirichlet", "neumann")])
    assert detect(A.tocsr()).boundary == A.boundary


def symmetric_stencil(shape, seed=0):
    """All 3^d neighbours, each pair of opposite coefficients equal bit by bit."""
    A = full_stencil(shape, seed).tocsr()
    return sp.csr_array(A + A.T)


@pytest.mark.parametrize("shape", [(40,), (19, 26), (3, 50), (50, 3), (8, 9, 11), (3, 4, 5)])
def test_half_of_a_symmetric_stencil_says_everything(shape):
    A = symmetric_stencil(shape)
    found = detect(A)
    assert "half" in vars(found)
    assert "coefficients" not in vars(found)
    x = np.random.default_rng(1).standard_normal(A.shape[0])
    np.testing.assert_allclose(found @ x, A @ x, rtol=0, atol=1e-13)  # some roundings of numbers near 5
    assert "coefficients" not in vars(found)  # not needed for a product
    again = StencilOperator(found.offsets, found.coefficients, shape, 1.0, found.boundary, "node")  # checks all
    assert (again.tocsr() != A).nnz == 0
    assert (found.tocsr() != A).nnz == 0


@pytest.mark.parametrize("shape", [(60,), (12, 15), (5, 6, 7)])
def test_a_last_bit_is_asymmetry_and_kept(shape):
    A = symmetric_stencil(shape)
    entries = A.tocoo()
    off_diagonal = np.flatnonzero(entries.row != entries.col)
    for k in np.random.default_rng(2).choice(off_diagonal, 20):
        B = A.copy()
        B.data[k] = np.nextafter(B.data[k], np.inf)
        found = detect(B)
        assert found.half is None
        assert (found.tocsr() != B).nnz == 0


@pytest.mark.parametrize("make", [symmetric_stencil, lambda shape: full_stencil(shape).tocsr()])
def test_row_sums_are_gathered_on_the_way(make):
    A = make((13, 3000))  # lines longer than a block
    sums = A.sum(axis=1)
    facts = detect(A).row_sums
    assert facts.finite
    np.testing.assert_allclose([facts.largest, facts.total], [np.max(np.abs(sums)), sums.sum()], rtol=1e-12)
    A.data[777] = np.nan
    assert not detect(A).row_sums.finite


def test_row_sums_of_complex_and_single_precision():
    A = gallery.diffusion(np.exp(np.random.default_rng(5).standard_normal((30, 20)))).tocsr()
    for B in ((A * (2 + 1j)).tocsr(), A.astype(np.float32)):
        sums = B.sum(axis=1)
        facts = detect(B).row_sums
        expected = [np.max(np.abs(sums)), sums.sum().real]
        np.testing.assert_allclose([facts.largest, facts.total], expected, rtol=1e-5)  # single precision's rounding


def moved_to_the_next_row(A, row):
    """A with the last entry of a row, unchanged in its column, first in the next row."""
    A = A.copy()
    A.indptr[row + 1] -= 1
    return A


def test_rows_of_different_lengths_that_follow_each_other_like_equal_ones():
    # The columns alone, read through, look like rows of as many entries each.
    superdiagonal = sp.diags_array([np.arange(1.0, 60)], offsets=[1], shape=(60, 60)).tocsr()
    for A in (moved_to_the_next_row(superdiagonal, 30), moved_to_the_next_row(gallery.poisson((30, 41)).tocsr(), 415)):
        found = detect(A)
        assert found is None or (found.tocsr() != A).nnz == 0
