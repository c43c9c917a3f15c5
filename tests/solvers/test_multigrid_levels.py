"""The compiled hierarchy against sparse matrices: interpolation, Galerkin products, the whole cycle, own levels."""

import numpy as np
import pytest
import scipy.sparse as sp

from solvers import Multigrid, gallery
from solvers.rows import LANES

PROBLEMS = [
    ((64,), "dirichlet"),
    ((65,), "periodic"),
    ((31, 33), "dirichlet"),
    ((32, 41), "neumann"),
    ((150, 71), "dirichlet"),
    ((150, 71), "periodic"),
    ((16, 32), "periodic"),
    ((17, 34), [("periodic", "periodic"), ("dirichlet", "neumann")]),
    ((9, 12, 10), "dirichlet"),
    ((12, 13, 14), "periodic"),
    ((6, 5, 4, 7), "dirichlet"),
]


def problem(shape, boundary):
    return gallery.diffusion(np.exp(np.random.default_rng(1).standard_normal(shape)), boundary=boundary)


def blocks_of(smoother, shape, periodic):
    """The unknowns that a smoother solves for at once, colour by colour: an independent reading of its definition.

    Along each axis a point is even (0), at the seam of an odd periodic axis (1), or odd (2).
    """
    index = np.indices(shape)
    number = np.arange(np.prod(shape)).reshape(shape)
    axes = range(len(shape))
    kind = [
        np.where((index[a] == shape[a] - 1) & (periodic[a] and shape[a] % 2 == 1), 1, 2 * (index[a] % 2)) for a in axes
    ]

    def groups(keys, blocks):
        return [[block for block, k in zip(blocks, keys, strict=True) if k == key] for key in sorted(set(keys))]

    flat = [k.ravel() for k in kind]
    points = [[i] for i in number.ravel()]
    if smoother == "red-black":
        keys = [
            (*(-1 if k == 1 else 0 for k in point), sum(k == 2 for k in point) % 2) for point in zip(*flat, strict=True)
        ]
        return groups(keys, points)
    if smoother == "colours":
        return groups([point[::-1] for point in zip(*flat, strict=True)], points)
    colours = []
    for axis in smoother:
        lines = np.moveaxis(number, axis, -1).reshape(-1, shape[axis])
        starts = lines[:, 0]
        others = [flat[other][starts] for other in axes if other != axis]
        colours += groups([key[::-1] for key in zip(*others, strict=True)], list(lines))
    return colours


class SparseCycle:
    """The same cycle from sparse matrices and dense blocks, as a textbook has it."""

    def __init__(self, M, presweeps=1, postsweeps=1, gamma=1):
        self.matrices = [operator.tocsr() for operator in M.operators]
        self.interpolations = M.interpolations
        self.sweeps = (presweeps, postsweeps)
        self.gamma = gamma
        self.smoothers = []
        for matrix, operator, smoother in zip(self.matrices, M.operators, M.smoothers, strict=False):
            dense = matrix.toarray()
            inverses = []
            for blocks in blocks_of(smoother, operator.grid_shape, operator.periodic):
                B = np.zeros_like(dense)
                for block in blocks:
                    B[np.ix_(block, block)] = np.linalg.inv(dense[np.ix_(block, block)])
                inverses.append(sp.csr_array(B))
            self.smoothers.append(inverses)
        self.coarsest = np.linalg.pinv(self.matrices[-1].toarray(), rcond=1e-10)

    def __call__(self, b, level=0, x=None):
        if level == len(self.interpolations):
            return self.coarsest @ b
        A, P, inverses = self.matrices[level], self.interpolations[level], self.smoothers[level]
        x = np.zeros_like(b) if x is None else x
        for B in inverses * self.sweeps[0]:
            x = x + B @ (b - A @ x)
        correction = None
        for _ in range(self.gamma):
            correction = self(P.T @ (b - A @ x), level + 1, correction)
        x = x + P @ correction
        for B in inverses[::-1] * self.sweeps[1]:
            x = x + B @ (b - A @ x)
        return x


@pytest.mark.parametrize(("shape", "boundary"), PROBLEMS)
def test_galerkin_operators_are_the_sparse_triple_product(shape, boundary):
    A = problem(shape, boundary)
    M = Multigrid("point", dtype="float64").setup(A)
    matrices = [operator.tocsr() for operator in M.operators]
    assert abs(matrices[0] - A.tocsr()).max() == 0
    for fine, P, coarse in zip(matrices[:-1], M.interpolations, matrices[1:], strict=True):
        # Some tens of products are added in another order.
        assert abs(coarse - P.T @ fine @ P).max() <= 1e-13 * abs(fine).max()


@pytest.mark.parametrize(("shape", "boundary"), PROBLEMS)
def test_constants_are_interpolated_where_the_operator_annihilates_them(shape, boundary):
    A = problem(shape, boundary)
    M = Multigrid("point", dtype="float64").setup(A)
    for operator, P in zip(M.operators, M.interpolations, strict=False):
        matrix = operator.tocsr()
        sums = np.abs(matrix.sum(axis=1))
        one = P.sum(axis=1)
        # The neighbours' weights enter those of points between four or more: look two points into the inside.
        inside = sums <= 1e-12 * abs(matrix).max()
        for _ in range(2):
            inside = inside & ~((abs(matrix) > 0).astype(float) @ (~inside).astype(float) > 0)
        np.testing.assert_allclose(one[inside], 1.0, atol=1e-10)
        assert one.max() <= 1 + 1e-10


def test_interpolation_carries_the_flux_across_a_jump():
    # Between coarse points left and right of a face between conductivities 1 and 100 the flux is continuous.
    A = gallery.diffusion(np.where(np.arange(81) < 41, 1.0, 100.0))
    P = Multigrid("point", dtype="float64").setup(A).interpolations[0].toarray()
    left, right = (
        1.0,
        2 * 100 / 101,
    )  # links 40-39... harmonic means on both sides of point 40, odd neighbours 39 and 41
    assert P[39, 19] == pytest.approx(0.5)
    links = A.tocsr()
    for i in (39, 41):
        weights = -links[[i]].toarray()[0, [i - 1, i + 1]] / links[i, i]
        np.testing.assert_allclose(P[i, [(i - 1) // 2, (i + 1) // 2]], weights, rtol=1e-14)
    assert (left, right) == pytest.approx((-links[39, 40], -links[40, 41]))


CYCLES = [
    ({"presweeps": before, "postsweeps": after, **ours}, {"presweeps": before, "postsweeps": after, **reference})
    for before, after, ours, reference in [
        (1, 1, {}, {}),
        (2, 2, {}, {}),
        (2, 1, {}, {}),
        (1, 0, {}, {}),
        (1, 1, {"cycle": "W"}, {"gamma": 2}),
    ]
]


@pytest.mark.parametrize(("shape", "boundary"), [p for p in PROBLEMS if np.prod(p[0]) < 3000])
@pytest.mark.parametrize(("ours", "reference"), CYCLES)
def test_the_compiled_cycle_is_the_textbook_cycle(shape, boundary, ours, reference):
    A = problem(shape, boundary)
    M = Multigrid("point", dtype="float64", **ours).setup(A)
    b = np.random.default_rng(0).standard_normal(A.shape[0])
    b -= b.mean()  # for the singular ones
    expected = SparseCycle(M, **reference)(b)
    if "dirichlet" not in str(A.boundary):
        expected -= expected.mean()
    # The same operations in another order, a few hundred on each number.
    np.testing.assert_allclose(M.matvec(b), expected, atol=1e-11 * np.abs(expected).max())


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1), (1, 0)])
@pytest.mark.parametrize("boundary", ["dirichlet", "periodic", "neumann"])
@pytest.mark.parametrize("shape", [(18, 21), (17, 24)])
def test_the_compiled_line_cycle_is_the_textbook_cycle(shape, boundary, axes):
    A = problem(shape, boundary)
    M = Multigrid(axes, dtype="float64").setup(A)
    b = np.random.default_rng(0).standard_normal(A.shape[0])
    b -= b.mean()
    expected = SparseCycle(M)(b)
    if boundary != "dirichlet":
        expected -= expected.mean()
    np.testing.assert_allclose(M.matvec(b), expected, atol=1e-11 * np.abs(expected).max())


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (2, 0)])
@pytest.mark.parametrize("boundary", ["dirichlet", "periodic"])
def test_the_compiled_line_cycle_in_three_dimensions(boundary, axes):
    A = problem((8, 6, 7), boundary)
    M = Multigrid(axes, dtype="float64").setup(A)
    b = np.random.default_rng(0).standard_normal(A.shape[0])
    b -= b.mean()
    expected = SparseCycle(M)(b)
    if boundary != "dirichlet":
        expected -= expected.mean()
    np.testing.assert_allclose(M.matvec(b), expected, atol=1e-11 * np.abs(expected).max())


# -- Levels made elsewhere --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "boundary"), PROBLEMS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_from_levels_of_a_setup_is_that_setup(shape, boundary, dtype):
    A = problem(shape, boundary)
    M = Multigrid("point", dtype=dtype).setup(A)
    # The coarsest inverse was made before the levels were rounded, unless the set-up was in single precision too: then
    # take them from a double hierarchy.
    single = dtype == "float32" and boundary == "dirichlet" and len(shape) > 1
    levels = M if single else Multigrid("point", dtype="float64").setup(A)
    again = Multigrid.from_levels(levels.operators, levels.interpolations, levels.smoothers, dtype=dtype)
    r = np.random.default_rng(0).standard_normal(A.shape[0])
    assert np.array_equal(again.matvec(r), M.matvec(r))


def test_from_levels_runs_lines_and_other_interpolation():
    A = gallery.poisson((33, 33))
    M = Multigrid("point", dtype="float64").setup(A)
    # Bilinear interpolation, and coarse operators that are no Galerkin products.
    coarse = gallery.poisson((17, 17), spacing=1.0)
    i = np.arange(33)
    axis = sp.csr_array(np.maximum(0, 1 - np.abs(i[:, None] - 2 * np.arange(17)) / 2))
    own = Multigrid.from_levels([A, coarse], [sp.kron(axis, axis)], [(1,)], dtype="float64")
    r = np.random.default_rng(0).standard_normal(A.shape[0])
    expected = SparseCycle(own)(r)
    np.testing.assert_allclose(own.matvec(r), expected, atol=1e-11 * np.abs(expected).max())
    assert own.smoothers == [(1,)]
    assert M.smoothers[0] == "red-black"


def test_levels_that_do_not_fit_are_refused():
    M = Multigrid("point").setup(gallery.poisson((33, 30)))
    operators, interpolations = M.operators, M.interpolations
    with pytest.raises(ValueError, match="one between each two"):
        Multigrid.from_levels(operators, interpolations[:-1])
    with pytest.raises(ValueError, match="expected 17 x 15"):
        Multigrid.from_levels([operators[0], *operators[2:]], interpolations[1:])
    with pytest.raises(ValueError, match="expected shape"):
        Multigrid.from_levels(operators[:2], [interpolations[0].T])
    with pytest.raises(ValueError, match="keep its value"):
        Multigrid.from_levels(operators[:2], [2 * interpolations[0]])
    with pytest.raises(ValueError, match="couples diagonal neighbours"):
        Multigrid.from_levels(operators, interpolations, ["red-black"] * len(interpolations))
    with pytest.raises(ValueError, match="one for each"):
        Multigrid.from_levels(operators, interpolations, ["point"])


@pytest.mark.parametrize(("shape", "boundary"), [*PROBLEMS, ((300, 421), "dirichlet"), ((40, 41, 65), "neumann")])
def test_runs_of_points_begin_on_whole_vectors(shape, boundary):
    # No result depends on it: without it every second load would cross a cache line, and a cycle take a fifth longer.
    M = Multigrid().setup(problem(shape, boundary))
    hierarchy = M._hierarchy
    assert hierarchy.arena.ctypes.data % 64 == 0
    for layout, places in zip(hierarchy.plan.layouts, hierarchy.plan.places, strict=True):
        assert not any(number % LANES for number in (layout.split_size, layout.natural_size, *places.values()))
        # Rows of 33 of 100,000 points have no memory to spare for it.
        if layout.points < 2**16 or len(shape) == 2:
            rows = (*layout.split_rows, *layout.natural_rows, layout.half_width)
            assert not any(number % LANES for number in rows)
        else:
            assert layout.half_width == 35
