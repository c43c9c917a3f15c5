"""Finite volumes: exactness, order, symmetry, conservation, for every boundary type and dimension."""

import numpy as np
import pytest
import scipy.sparse.linalg as sparse_linalg

from datagen.discretise import PERIODIC, Dirichlet, Neumann, Robin, diffusion, diffusion_on_nodes, is_singular
from datagen.grids import Grid

pi = np.pi


def solve(coefficient, source, grid, boundary, reaction=0.0):
    A, load = diffusion(coefficient, grid, boundary, reaction=reaction)
    x, info = sparse_linalg.cg(A.tocsr(), (source + load).ravel(), rtol=1e-11)
    assert info == 0
    return x.reshape(grid.shape)


def manufactured(dimension, boundary_kind):
    """u, a and f = -div(a grad u) + u for a smooth variable coefficient, and the boundary conditions u fulfils.

    Along the first axis the conditions are of the wanted kind, along the others Dirichlet.
    u = sin(pi x / 2 + 0.4) * prod sin(pi y + 0.3), a = 1 + 0.5 sin(2 pi x) * prod cos(y), in one formula by factors.
    """
    if boundary_kind == "periodic":
        first = (lambda x: np.sin(2 * pi * x + 0.3), lambda x: 2 * pi * np.cos(2 * pi * x + 0.3), (2 * pi) ** 2)
    else:
        first = (lambda x: np.sin(pi * x / 2 + 0.4), lambda x: pi / 2 * np.cos(pi * x / 2 + 0.4), (pi / 2) ** 2)
    other = (lambda y: np.sin(pi * y + 0.3), lambda y: pi * np.cos(pi * y + 0.3), pi**2)
    factors = [first] + [other] * (dimension - 1)
    a_factors = [(lambda x: 2 + np.sin(2 * pi * x), lambda x: 2 * pi * np.cos(2 * pi * x))]
    a_factors += [(lambda y: 1 + 0.3 * y * y, lambda y: 0.6 * y)] * (dimension - 1)

    def product(values):
        return np.prod(np.broadcast_arrays(*values), axis=0)

    def u(*x):
        return product([f[0](t) for f, t in zip(factors, x, strict=True)])

    def a(*x):
        return product([f[0](t) for f, t in zip(a_factors, x, strict=True)])

    def slope(function_factors, axis, x):
        return product([f[1 if i == axis else 0](t) for i, (f, t) in enumerate(zip(function_factors, x, strict=True))])

    def f(*x):
        laplacian = -sum(k[2] for k in factors) * u(*x)
        gradients = sum(slope(a_factors, i, x) * slope(factors, i, x) for i in range(dimension))
        return -(a(*x) * laplacian + gradients) + u(*x)

    def boundary(grid):
        sides = []
        for axis in range(dimension):
            if axis == 0 and boundary_kind == "periodic":
                sides.append(PERIODIC)
                continue
            pair = []
            for end, normal in ((0.0, -1.0), (grid.lengths[axis], 1.0)):
                points = [grid.coordinates(i) for i in range(dimension)]
                points[axis] = np.array([end])
                x = np.meshgrid(*points, indexing="ij")
                value = np.squeeze(u(*x), axis)
                flux = np.squeeze(normal * a(*x) * slope(factors, axis, x), axis)
                kind = boundary_kind if axis == 0 else "dirichlet"
                if kind == "dirichlet":
                    pair.append(Dirichlet(value))
                elif kind == "neumann":
                    pair.append(Neumann(flux))
                else:
                    pair.append(Robin(1.5, 1.5 * value + flux))
            sides.append(tuple(pair))
        return sides

    return u, a, f, boundary


@pytest.mark.parametrize("kind", ["dirichlet", "neumann", "robin", "periodic"])
@pytest.mark.parametrize(("dimension", "sizes"), [(1, (32, 64, 128)), (2, (16, 32, 64)), (3, (8, 12, 24))])
def test_second_order_on_a_manufactured_smooth_coefficient(dimension, sizes, kind):
    u, a, f, boundary = manufactured(dimension, kind)
    errors = []
    for n in sizes:
        # Unequal counts, so that an axis mix-up cannot hide; all double from one grid to the next.
        grid = Grid(tuple(n + n // 4 * axis for axis in range(dimension)), (1.0,) * dimension)
        x = grid.points()
        found = solve(a(*x), f(*x), grid, boundary(grid), reaction=1.0)
        errors.append(np.sqrt(np.mean((found - u(*x)) ** 2)))
    order = np.log2(errors[-2] / errors[-1])
    # The scheme's error is C h^2 + O(h^3): the window is the one the order is claimed in.
    assert 1.9 <= order <= 2.1, f"expected order 2, got {order:.2f} (errors {errors})"


def test_jump_normal_to_the_flow_is_exact():
    # One dimension, a = 1 | 100, u(0) = 0, u(1) = 1, no source: harmonic averages give the exact piecewise line.
    grid = Grid((10,), (1.0,))
    a = np.where(grid.coordinates(0) < 0.5, 1.0, 100.0)
    found = solve(a, np.zeros(10), grid, [(Dirichlet(0.0), Dirichlet(1.0))])
    flux = 1 / (0.5 / 1 + 0.5 / 100)
    x = grid.coordinates(0)
    exact = np.where(x < 0.5, flux * x, 1 - flux * (1 - x) / 100)
    np.testing.assert_allclose(found, exact, rtol=1e-12)


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_symmetric_m_matrix_and_conservation(dimension):
    rng = np.random.default_rng(5)
    shape = (5, 4, 3)[:dimension]
    grid = Grid(shape, (1.0, 2.0, 0.5)[:dimension])
    a = np.exp(rng.standard_normal(shape))
    sides = [(Dirichlet(), Neumann()), PERIODIC, (Robin(2.0), Dirichlet())][:dimension]
    A = diffusion(a, grid, sides)[0].tocsr().toarray()
    np.testing.assert_allclose(A, A.T, rtol=1e-15)
    assert np.all(A - np.diag(np.diag(A)) <= 0)
    assert np.linalg.eigvalsh(A).min() > 0
    assert np.all(np.linalg.inv(A) >= -1e-15)  # the discrete maximum principle
    closed = diffusion(a, grid, [(Neumann(), Neumann()), PERIODIC, PERIODIC][:dimension])[0].tocsr().toarray()
    # Nothing leaves a closed box: columns sum to zero, to the rounding of their entries.
    assert abs(closed.sum(axis=0)).max() < 1e-14 * abs(closed).max()


def test_singular_boundaries_are_told():
    assert is_singular([(Neumann(), Neumann()), PERIODIC])
    assert not is_singular([(Neumann(), Neumann()), PERIODIC], reaction=1.0)
    assert not is_singular([(Neumann(), Robin(1.0))])


@pytest.mark.parametrize(
    ("coefficient", "boundary", "words"),
    [
        (np.ones((3, 4)), [PERIODIC, PERIODIC], "shape"),
        (-np.ones((4, 4)), [PERIODIC, PERIODIC], "positive"),
        (np.full((4, 4), np.nan), [PERIODIC, PERIODIC], "finite"),
        (np.ones((4, 4)), [PERIODIC], "one entry per axis"),
        (np.ones((4, 4)), [PERIODIC, "open"], "periodic"),
        (np.ones((4, 4)), [PERIODIC, (Robin(-1.0), Dirichlet())], "transfer"),
    ],
)
def test_bad_input_is_refused(coefficient, boundary, words):
    with pytest.raises(ValueError, match=words):
        diffusion(coefficient, Grid((4, 4), (1.0, 1.0)), boundary)


@pytest.mark.parametrize(("dimension", "sizes"), [(1, (33, 65, 129)), (2, (17, 33, 65)), (3, (9, 17, 33))])
def test_second_order_on_nodes_with_boundary_values(dimension, sizes):
    u, a, f, _ = manufactured(dimension, "dirichlet")  # its f holds + u, which this operator has not
    interior = (slice(1, -1),) * dimension
    errors = []
    for n in sizes:
        # Unequal counts of intervals, all of which double from one grid to the next.
        grid = Grid(tuple(n + (n - 1) // 4 * axis for axis in range(dimension)), (1.0,) * dimension, "node")
        x = grid.points()
        A, load = diffusion_on_nodes(a(*x), grid, u(*x))
        found, info = sparse_linalg.cg(A.tocsr(), ((f(*x) - u(*x))[interior] + load).ravel(), rtol=1e-11)
        assert info == 0
        errors.append(np.sqrt(np.mean((found - u(*x)[interior].ravel()) ** 2)))
    order = np.log2(errors[-2] / errors[-1])
    assert 1.9 <= order <= 2.1, f"expected order 2, got {order:.2f} (errors {errors})"


def test_the_operator_on_nodes_is_a_symmetric_m_matrix_and_takes_no_corner_values():
    rng = np.random.default_rng(8)
    grid = Grid((5, 6, 4), (1.0, 2.0, 0.5), "node")
    a, g = np.exp(rng.standard_normal(grid.shape)), rng.standard_normal(grid.shape)
    operator, load = diffusion_on_nodes(a, grid, g)
    A = operator.tocsr().toarray()
    np.testing.assert_allclose(A, A.T, rtol=1e-14)
    assert np.all(np.linalg.inv(A) >= 0)
    # Constants are in the null space of the scheme: boundary value 1 balances u = 1.
    np.testing.assert_allclose(
        A.sum(axis=1), diffusion_on_nodes(a, grid, np.ones(grid.shape))[1].ravel(), rtol=1e-10, atol=1e-9
    )
    for where in (np.s_[0, 0, :], np.s_[-1, :, 0], np.s_[1:-1, 1:-1, 1:-1]):
        g[where] = np.nan
    assert np.isfinite(load).all()
    np.testing.assert_array_equal(diffusion_on_nodes(a, grid, g)[1], load)


def test_second_order_around_a_hole():
    """u = cos 4 pi x cos 4 pi y has no flux through the edges of [1/4, 3/4]^2, nor through y = 0 and y = 1."""
    errors = []
    for n in (24, 48, 96):
        grid = Grid((n, n), (1.0, 1.0))
        x, y = grid.points()
        mask = np.maximum(abs(x - 0.5), abs(y - 0.5)) > 0.25
        u = np.cos(4 * pi * x) * np.cos(4 * pi * y)
        side = Dirichlet(np.cos(4 * pi * grid.coordinates(1)))
        a = np.where(mask, 1.0, 0.0)
        A, load = diffusion(a, grid, [(side, side), (Neumann(), Neumann())], mask=mask)
        found = A.to_field(sparse_linalg.spsolve(A.tocsr().tocsc(), A.to_vector(32 * pi**2 * u + load)))
        errors.append(np.sqrt(np.mean((found - u)[mask] ** 2)))
    order = np.log2(errors[1] / errors[2])
    assert 1.9 <= order <= 2.1, errors


def test_a_mask_cuts_and_conserves():
    rng = np.random.default_rng(6)
    grid = Grid((6, 5), (1.0, 2.0))
    mask = np.ones(grid.shape, dtype=bool)
    mask[2:4, 1:3] = False
    mask[0, 0] = False
    a = np.exp(rng.standard_normal(grid.shape))
    A, load = diffusion(a, grid, [(Neumann(2.0), Neumann()), PERIODIC], mask=mask)
    dense = A.tocsr().toarray()
    assert dense.shape == (25, 25)
    np.testing.assert_allclose(dense, dense.T, rtol=1e-14)
    assert abs(dense.sum(axis=0)).max() < 1e-13 * abs(dense).max()
    assert load[0, 0] == 0
    assert np.all(load[0, 1:] > 0)
    for bad in (np.ones(grid.shape), np.ones((5, 6), dtype=bool)):
        with pytest.raises(ValueError, match="mask must be booleans"):
            diffusion(a, grid, [PERIODIC, PERIODIC], mask=bad)


@pytest.mark.parametrize(
    ("grid", "coefficient", "words"),
    [
        (Grid((4, 4), (1.0, 1.0)), np.ones((4, 4)), "node-centred"),
        (Grid((4, 2), (1.0, 1.0), "node"), np.ones((4, 2)), "at least 3"),
        (Grid((4, 4), (1.0, 1.0), "node"), np.ones((4, 5)), "shape"),
        (Grid((4, 4), (1.0, 1.0), "node"), -np.ones((4, 4)), "positive"),
    ],
)
def test_bad_input_on_nodes_is_refused(grid, coefficient, words):
    with pytest.raises(ValueError, match=words):
        diffusion_on_nodes(coefficient, grid, np.zeros(grid.shape))


@pytest.mark.parametrize("reaction", [0.0, 2.0])
@pytest.mark.parametrize("sides", [(Dirichlet(1.0), Neumann()), (Neumann(), Neumann()), (Robin(3.0), Dirichlet(0.0))])
@pytest.mark.parametrize("shape", [(6, 9), (70, 71)])  # less than a block of the compiled loops, and several
def test_what_is_known_of_the_row_sums_is_what_the_operator_makes_of_ones(sides, reaction, shape):
    grid = Grid(shape, (1.0, 2.0))
    a = np.exp(np.random.default_rng(0).normal(size=grid.shape))
    operator, _ = diffusion(a, grid, [sides, (Neumann(), Neumann())], reaction=reaction)
    sums = operator @ np.ones(operator.shape[0])
    size = np.abs(operator.diagonal()).max()  # sums are wrong by a few roundings of it
    assert operator.row_sums.finite
    assert operator.row_sums.largest == pytest.approx(np.abs(sums).max(), abs=1e-13 * size)
    assert operator.row_sums.total == pytest.approx(sums.sum(), abs=1e-14 * size * grid.size)
