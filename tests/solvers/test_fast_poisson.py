"""Fast Poisson: against dense inverses, scipy's transforms and exact solutions; bounds of spectral equivalence."""

from itertools import product

import numpy as np
import pytest
import scipy.fft
import scipy.sparse as sp

from solvers import FastPoisson, StencilOperator, cg, gallery, gmres, minres, preconditioners, solve
from solvers.kronecker_sum import KroneckerSum, Tridiagonal
from solvers.precondition.fast_poisson import preconditioner, transforms
from solvers.precondition.fast_poisson.average import average
from solvers.precondition.fast_poisson.lines import Lines
from solvers.precondition.fast_poisson.transforms import Classical, Eigenvectors, butterflies, transform
from solvers.random_field import RandomField

D, N, P = "dirichlet", "neumann", "periodic"
PAIRS = [(D, D), (N, N), (N, D), (D, N), (P, P)]


@pytest.fixture(params=["fast transforms", "products", "odd-even reduction"])
def way(request, monkeypatch):
    """Every way of solution, whatever the estimates say of the small grids here."""
    monkeypatch.setattr(transforms, "_FLOP", 1.0 if request.param == "fast transforms" else 0.0)
    monkeypatch.setattr(preconditioner, "_REDUCTION_PAYS", 0 if request.param == "odd-even reduction" else np.inf)
    return request.param


def as_matrix(M, dtype=float):
    return np.stack([M.matvec(e) for e in np.eye(M.shape[0], dtype=dtype)], axis=1)


def pseudo_inverse(A):
    return np.linalg.pinv(A.tocsr().toarray().astype(float), rcond=1e-9, hermitian=True)


def lognormal(shape, deviation=1.0, seed=0):
    return np.exp(deviation * RandomField(shape, 1.0, np.random.default_rng(seed)).values())


def check(A, rtol=1e-11):
    """M is the pseudo-inverse of A, symmetric, positive on the range of A; 1e-11 is eps times condition numbers."""
    M = FastPoisson().setup(A)
    expected, got = pseudo_inverse(A), as_matrix(M)
    scale = max(np.max(np.abs(expected)), 1e-300)
    assert M.exact
    assert np.max(np.abs(got - expected)) <= rtol * scale, str(M)
    assert np.max(np.abs(got - got.T)) <= 1e-13 * scale
    assert np.min(np.linalg.eigvalsh((got + got.T) / 2)) >= -1e-13 * scale
    return M


# -- The exact inverse ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 8, 13, 24])
@pytest.mark.parametrize("pair", PAIRS)
def test_every_pair_of_sides_along_the_axis_of_the_tridiagonal_systems(pair, n):
    check(gallery.poisson((n,), 0.3, [pair]))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 8, 13])
@pytest.mark.parametrize("sides", list(product(PAIRS, PAIRS)))
def test_every_pair_of_sides_along_two_axes(sides, n):
    check(gallery.poisson((5, n), (1.0, 0.7), sides))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("shape", "sides"),
    [
        ((3, 4, 5), [(D, D), (D, D), (D, D)]),
        ((4, 5, 3), [(D, N), (P, P), (N, N)]),
        ((5, 4, 6), [(P, P), (P, P), (P, P)]),
        ((4, 6, 5), [(N, N), (N, D), (P, P)]),
        ((1, 7, 2), [(D, D), (N, N), (D, N)]),
        ((3, 1, 5), [(P, P), (P, P), (D, D)]),
        ((2, 3, 2, 4), [(D, D), (P, P), (N, N), (N, D)]),
    ],
)
def test_three_dimensions_and_more(shape, sides):
    check(gallery.poisson(shape, np.linspace(1.0, 1.5, len(shape)), sides))


@pytest.mark.parametrize(
    ("shape", "sides", "line"),
    [
        ((12, 14, 15), [(D, N), (D, N), (D, N)], 0),
        ((12, 211, 15), [(N, N), (D, N), (D, D)], 1),  # a prime, and eigenvectors neither even nor odd
        ((12, 15, 211), [(N, N), (P, P), (N, D)], 2),
    ],
)
def test_any_axis_may_be_that_of_the_tridiagonal_systems(shape, sides, line):
    A = gallery.poisson(shape, boundary=sides)
    M = FastPoisson().setup(A)
    assert M._line == line
    r = np.random.default_rng(0).standard_normal(A.shape[0])
    np.testing.assert_allclose(A @ M.matvec(r), r, atol=1e-10)  # eps times a condition number of 2e4


@pytest.mark.parametrize("n", [5, 6, 11, 70])
@pytest.mark.parametrize("pair", PAIRS)
def test_odd_even_reduction(monkeypatch, n, pair):
    """For odd and even numbers of lines, more of them than a tile of the transposition, and a reaction term."""
    monkeypatch.setattr(preconditioner, "_REDUCTION_PAYS", 0)
    base = gallery.poisson((n, 9 if n < 70 else 5), (1.0, 0.7), [(D, D), pair])
    assert "odd-even" in str(check(base))
    coefficients = base.coefficients.copy()
    coefficients[0] += 0.3
    check(StencilOperator(base.offsets, coefficients, base.grid_shape, 1.0, boundary=base.boundary))


@pytest.mark.parametrize("ratio", [1e-6, 1e-3, 1.0, 4.0, 1e3, 1e6])
def test_no_digits_are_lost_to_anisotropy(ratio):
    """The residual is that of rounding, eps times the largest entry of A times x, whichever axis is the strong one."""
    A = gallery.diffusion(np.ones((150, 101)), weights=(1.0, ratio))
    r = np.sin(np.pi * np.arange(1, 151) / 151)[:, None] * np.sin(np.pi * np.arange(1, 102) / 102)
    M = FastPoisson().setup(A)
    assert ("odd-even" in str(M)) is (ratio < 10)
    z = M.matvec(r.ravel())
    expected = r.ravel() / np.sum(A.matvec(r.ravel()) * r.ravel()) * np.sum(r**2)  # an eigenvector
    condition = 4 * (1 + ratio) * np.linalg.norm(z) / np.linalg.norm(r)
    assert np.linalg.norm(z - expected) <= 10 * np.finfo(float).eps * condition * np.linalg.norm(z)


@pytest.mark.parametrize("shape", [(31, 43), (64, 50), (419, 40), (16, 256), (20, 30, 18)])
def test_the_same_as_scipy_with_dirichlet_sides(shape):
    spacing = np.linspace(0.5, 1.0, len(shape))
    M = FastPoisson().setup(gallery.poisson(shape, spacing))
    eigenvalues = sum(
        (2 / h * np.sin(np.pi * (index + 1) / (2 * (n + 1)))) ** 2
        for index, n, h in zip(np.indices(shape), shape, spacing, strict=True)
    )
    b = np.random.default_rng(0).standard_normal(shape)
    expected = scipy.fft.idstn(scipy.fft.dstn(b, type=1) / eigenvalues, type=1)
    np.testing.assert_allclose(M.matvec(b.ravel()), expected.ravel(), atol=1e-12 * np.max(np.abs(expected)))


@pytest.mark.usefixtures("way")
def test_a_manufactured_solution_with_four_kinds_of_sides():
    """Products of eigenfunctions of the continuous problem are eigenvectors of the discrete one, exactly."""
    n, m = 24, 35
    x, y = (np.arange(n) + 0.5) / n, np.arange(m) / m
    u = np.outer(np.cos(2.5 * np.pi * x), np.sin(6 * np.pi * y))  # no flux at 0, zero at 1; period 1
    A = gallery.poisson((n, m), (1 / n, 1 / m), [(N, D), (P, P)])
    eigenvalue = (2 * n * np.sin(2.5 * np.pi / (2 * n))) ** 2 + (2 * m * np.sin(6 * np.pi / (2 * m))) ** 2
    np.testing.assert_allclose(FastPoisson().setup(A).matvec(eigenvalue * u.ravel()), u.ravel(), atol=1e-12)


def separable(kinds, shape, seed=0):
    """Kronecker sum of random tridiagonal matrices, a periodic one where the kind says so."""
    rng = np.random.default_rng(seed)
    zero = (0,) * len(shape)
    fields = {zero: np.zeros(shape)}
    for axis, (n, pair) in enumerate(zip(shape, kinds, strict=True)):
        a = rng.uniform(0.5, 2.0, n + 1)
        if pair == (P, P):
            a[-1] = a[0]
        along = [-1 if other == axis else 1 for other in range(len(shape))]
        fields[zero] = fields[zero] + (a[1:] + a[:-1]).reshape(along)
        for step, links in ((1, -a[1:].copy()), (-1, -a[:-1].copy())):
            if pair != (P, P):
                links[-1 if step == 1 else 0] = 0.0
            offset = tuple(step * (other == axis) for other in range(len(shape)))
            fields[offset] = np.broadcast_to(links.reshape(along), shape)
    return StencilOperator(list(fields), list(fields.values()), shape, 1.0, boundary=list(kinds), centring="node")


@pytest.mark.parametrize("kinds", [[(D, D)] * 2, [(P, P), (D, D)], [(D, D), (P, P)], [(P, P)] * 2])
def test_separable_coefficients_are_solved_exactly(kinds):
    """Eigenvectors that no formula gives, and cyclic systems."""
    check(separable(kinds, (6, 9)))
    check(separable([*kinds, (D, D)], (4, 3, 5)))


@pytest.mark.parametrize("n", [8, 9])
def test_robin_sides_and_a_reaction_term(n):
    """Other ends than the classical ones; the same at both ends, so that even and odd eigenvectors are found apart."""
    T = Tridiagonal(np.array([1.3, *[2.0] * (n - 2), 1.3]), np.full(n - 1, -1.0))
    assert Classical.of(T, np.dtype(float)) is None
    along = transform(T, np.dtype(float))
    assert "halves" in along.name
    np.testing.assert_allclose(np.sort(along.eigenvalues), np.linalg.eigvalsh(T.toarray()), atol=1e-13)
    base = gallery.poisson((n, n))
    coefficients = base.coefficients.copy()
    for axis in range(2):
        for end in (0, -1):
            coefficients[(0, *[end if other == axis else slice(None) for other in range(2)])] -= 0.7
    coefficients[0] += 0.25
    A = StencilOperator(base.offsets, coefficients, (n, n), 1.0, boundary="robin")
    M = check(A)
    assert "halves" in str(M)


@pytest.mark.parametrize("kind", ["DST-I", "DST-II", "DCT-II", "DST-IV", "DCT-IV", "FFT"])
@pytest.mark.parametrize("n", [3, 4, 7, 12])
def test_closed_forms_are_eigenvectors(kind, n):
    """T V = V Lambda and V'V = I, in the basis of whole lines."""
    ends = {"DST-I": (2, 2), "DST-II": (3, 3), "DCT-II": (1, 1), "DST-IV": (3, 1), "DCT-IV": (1, 3), "FFT": (2, 2)}
    first, last = ends[kind]
    T = Tridiagonal(np.array([first, *[2.0] * (n - 2), last], float), np.full(n - 1, -1.0), -1.0 * (kind == "FFT"))
    assert Classical.of(T, np.dtype(float)).kind == kind
    squares, bases = transforms._waves(kind, n)
    along = Eigenvectors(4 * squares, bases, np.dtype(float))
    V = np.empty((n, n, 1))
    along.inverse(np.eye(n)[:, :, None], V)  # row k is mode k
    V = V[:, :, 0].T
    np.testing.assert_allclose(V.T @ V, np.eye(n), atol=1e-14)
    np.testing.assert_allclose(T.toarray() @ V, V * along.eigenvalues, atol=1e-14)


def test_lines_are_dense_solutions_block_by_block(monkeypatch):
    """More lanes than fit in a block, of which one is singular."""
    rng = np.random.default_rng(1)
    for corner in (0.0, -1.0):
        T = Tridiagonal(np.array([1 - corner, 2, 2, 2, 1 - corner]), np.full(4, -1.0), corner)
        shifts = rng.permutation(np.concatenate([[0.0], rng.uniform(0.1, 5.0, 60)]))
        monkeypatch.setattr("solvers.precondition.fast_poisson.lines._BLOCK", 1)
        lines = Lines(T, shifts, np.dtype(float))
        f = rng.standard_normal((5, 61))
        expected = [np.linalg.pinv(T.toarray() + s * np.eye(5), rcond=1e-10) @ f[:, k] for k, s in enumerate(shifts)]
        np.testing.assert_array_equal(lines.singular, np.flatnonzero(shifts == 0))
        np.testing.assert_allclose(lines.solve(f.copy()), np.stack(expected, axis=1), atol=1e-12)


def test_estimate_of_pocketfft():
    assert butterflies(2**3 * 3 * 5 * 7) == 840 * 21
    assert butterflies(2 * 257) > 5 * butterflies(2 * 256)


# -- Precision and singular systems -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("sides", [D, N, P, [(P, P), (D, N)]])
def test_single_precision_is_kept(sides):
    A = gallery.poisson((21, 30), boundary=sides)
    single = StencilOperator(A.offsets, A.coefficients.astype(np.float32), A.grid_shape, 1.0, boundary=A.boundary)
    M = FastPoisson().setup(single)
    r = np.random.default_rng(0).standard_normal(630).astype(np.float32)
    z = M.matvec(r)
    assert z.dtype == np.float32
    assert M.exact
    expected = pseudo_inverse(A) @ r
    # condition number 2000 at most, eps 6e-8
    assert np.linalg.norm(z - expected) <= 1e-4 * np.linalg.norm(expected)
    result = cg(single, r - r.mean(), rtol=1e-4, M=FastPoisson(), null_space="constant" if sides in (N, P) else None)
    assert result.converged
    assert result.x.dtype == np.float32
    assert result.iterations <= 2


@pytest.mark.parametrize("sides", [N, P, [(N, N), (P, P)]])
def test_singular_systems(sides):
    A = gallery.poisson((17, 12), boundary=sides)
    M = check(A)
    assert "semidefinite" in str(M)
    b = np.random.default_rng(0).standard_normal(204)
    assert abs(M.matvec(b + 5.0).mean()) <= 1e-13
    for method in (cg, minres, gmres):
        result = method(A, b - b.mean(), rtol=1e-10, M=M, null_space="constant")
        assert result.converged
        assert result.iterations <= 2
        np.testing.assert_allclose(result.x, pseudo_inverse(A) @ b, atol=1e-8)


@pytest.mark.parametrize("method", [cg, minres, gmres])
def test_the_preconditioned_methods_find_the_solution_of_A(method):
    """M may only change the way there."""
    A = gallery.diffusion(lognormal((19, 23), 0.5))
    b = np.random.default_rng(0).standard_normal(A.shape[0])
    for M in (FastPoisson("sqrt"), FastPoisson("none")):
        result = method(A, b, rtol=1e-11, M=M)
        assert result.converged
        np.testing.assert_allclose(result.x, np.linalg.solve(A.tocsr().toarray(), b), atol=1e-7)


# -- Variable coefficients --------------------------------------------------------------------------------------------


def preconditioned_spectrum(A, M):
    matrix = as_matrix(M)
    root = np.linalg.cholesky((matrix + matrix.T) / 2)
    return np.linalg.eigvalsh(root.T @ A.tocsr().toarray() @ root)


@pytest.mark.parametrize("shape", [(12, 15), (25, 20)])
@pytest.mark.parametrize("sides", [D, [(D, N), (P, P)], [(N, N), (D, D)]])
def test_condition_is_at_most_the_contrast(shape, sides):
    """A and A_0 are sums over the same links, see `average`; those to boundary values, which are no links of A, too."""
    a = np.where(RandomField(shape, 1.0, np.random.default_rng(3)).values() > 0, 12.0, 3.0)
    A = gallery.diffusion(a, boundary=sides)
    M = FastPoisson("none").setup(A)
    assert not M.exact
    spectrum = preconditioned_spectrum(A, M)
    # the geometric means of two axes differ a little, and so the largest over the smallest ratio exceeds 4
    assert spectrum[-1] / spectrum[0] <= M.contrast
    assert M.contrast <= 4.0 * 1.2
    assert spectrum[0] < 1 < spectrum[-1]  # centred


@pytest.mark.parametrize("contrast", [4.0, 25.0])
def test_iterations_on_binary_fields_are_bounded_by_the_contrast(contrast):
    """Chebyshev's bound: the A-norm of the error falls by 2 ((sqrt k - 1) / (sqrt k + 1))^m, whatever the grid."""
    rate = (np.sqrt(contrast) - 1) / (np.sqrt(contrast) + 1)
    for n in (32, 64, 128):
        a = np.where(RandomField((n, n), 1.0, np.random.default_rng(n)).values() > 0, contrast, 1.0)
        A = gallery.diffusion(a)
        # from the A-norm of the error to the norm of the residual: at most sqrt(cond(A)), below n sqrt(contrast)
        bound = np.log(1e-8 / (2 * n * np.sqrt(contrast))) / np.log(rate)
        result = cg(A, np.ones(n * n), rtol=1e-8, M=FastPoisson())
        assert result.converged
        assert result.iterations <= bound


def test_auto_scales_smooth_fields_and_not_those_that_jump():
    for n in (48, 96):
        smooth = gallery.diffusion(lognormal((n, n), 1.0))
        jumps = gallery.diffusion(gallery.jumps((n, n), 4.0))
        b = np.ones(n * n)
        for A, expected in ((smooth, True), (jumps, False)):
            M = FastPoisson().setup(A)
            assert M.scaled is expected
            counts = {s: cg(A, b, rtol=1e-8, M=FastPoisson(s)).iterations for s in ("auto", "sqrt", "none")}
            assert counts["auto"] == min(counts["sqrt"], counts["none"])
            assert not expected or 2 * counts["auto"] <= counts["none"]


def test_iterations_on_smooth_fields_do_not_grow_with_the_grid():
    counts = [
        cg(gallery.diffusion(lognormal((n, n))), np.ones(n * n), rtol=1e-8, M=FastPoisson()).iterations
        for n in (32, 64, 128)
    ]
    assert max(counts) <= min(counts) + 3


@pytest.mark.parametrize("scaling", ["none", "sqrt"])
@pytest.mark.parametrize("sides", [D, [(D, N), (P, P)], [(N, D), (D, D)]])
def test_symmetric_positive_definite_for_variable_coefficients(scaling, sides):
    A = gallery.diffusion(lognormal((9, 12), 2.0), boundary=sides, weights=(10.0, 1.0))
    matrix = as_matrix(FastPoisson(scaling).setup(A))
    assert np.max(np.abs(matrix - matrix.T)) <= 1e-13 * np.max(np.abs(matrix))
    assert np.min(np.linalg.eigvalsh((matrix + matrix.T) / 2)) > 0


@pytest.mark.parametrize("scaling", ["none", "sqrt"])
def test_variable_coefficients_without_dirichlet_sides(scaling):
    A = gallery.diffusion(lognormal((16, 18), 0.5), boundary=[(N, N), (P, P)])
    b = np.random.default_rng(0).standard_normal(288)
    b -= b.mean()
    result = cg(A, b, rtol=1e-10, M=FastPoisson(scaling), null_space="constant")
    assert result.converged
    assert result.iterations < 40
    np.testing.assert_allclose(result.x, pseudo_inverse(A) @ b, atol=1e-7)


def test_sides_are_recognised_in_the_row_sums():
    a = lognormal((30, 30), 0.3)
    for sides, expected in [(D, [1, 1]), ([(N, D), (D, D)], [0, 2]), (N, [0, 0])]:
        T = average(gallery.diffusion(a, boundary=sides)).operator.axes[0]
        np.testing.assert_allclose(T.row_sums[[0, -1]], np.array(expected) * -T.links[0], atol=1e-10)


def test_a_problem_held_on_a_part_of_a_side_stays_definite():
    """No side is Dirichlet as a whole, so that the constants alone would make a semidefinite M."""
    base = gallery.diffusion(lognormal((12, 12), 0.3), boundary="neumann")
    coefficients = base.coefficients.copy()
    coefficients[0, :3, 0] += 1.0
    A = StencilOperator(base.offsets, coefficients, (12, 12), 1.0, boundary="robin")
    M = FastPoisson().setup(A)
    assert np.min(np.linalg.eigvalsh(as_matrix(M))) > 0
    assert cg(A, np.ones(144), rtol=1e-8, M=M).converged


def test_nine_points_and_transport():
    """Diagonal neighbours count for both axes; of transport the symmetric part does."""
    offsets = list(product((-1, 0, 1), repeat=2))
    fields = []
    for offset in offsets:
        field = np.full((20, 20), 8 / 3 if offset == (0, 0) else -1 / 3)
        for axis, step in enumerate(offset):
            if step:
                field[tuple((-1 if step > 0 else 0) if a == axis else slice(None) for a in range(2))] = 0.0
        fields.append(field)
    A = StencilOperator(offsets, fields, (20, 20), 1.0, boundary="dirichlet", centring="node")
    M = FastPoisson("none").setup(A)
    spectrum = preconditioned_spectrum(A, M)
    assert spectrum[-1] / spectrum[0] < 4  # symbols 8/3 - ... and 2 c (2 - cos - cos) with c = 1 differ by at most 3
    B = gallery.convection_diffusion((30, 30), velocity=[0.05, 0.02])
    assert gmres(B, np.ones(900), rtol=1e-8, M=FastPoisson()).converged


# -- Recognition, manners, solve() ------------------------------------------------------------------------------------


def test_constant_coefficients_are_told_from_nearly_constant_ones():
    A = gallery.poisson((8, 9))
    for offset in range(5):
        coefficients = A.coefficients.copy()
        coefficients[offset, 4, 5] *= 1 + 1e-12
        changed = StencilOperator(A.offsets, coefficients, (8, 9), 1.0, centring="node")
        assert KroneckerSum.of(changed) is None
        coefficients[offset, 4, 5] = A.coefficients[offset, 4, 5] * (1 + 1e-15)
        changed = StencilOperator(A.offsets, coefficients, (8, 9), 1.0, centring="node")
        assert KroneckerSum.of(changed) is not None
    coefficients = A.coefficients.copy()
    coefficients[1, 1:] *= 1.5  # constant, not symmetric
    assert KroneckerSum.of(StencilOperator(A.offsets, coefficients, (8, 9), 1.0, centring="node")) is None
    for value in (np.nan, np.inf):
        for place in ((0, 0), (3, 3)):
            coefficients = A.coefficients.copy()
            coefficients[(0, *place)] = value
            assert KroneckerSum.of(StencilOperator(A.offsets, coefficients, (8, 9), 1.0, centring="node")) is None


def test_from_a_sparse_matrix():
    A = gallery.poisson((20, 31), boundary=[(N, D), (D, D)])
    M = FastPoisson().setup(A.tocsr())
    assert M.exact
    np.testing.assert_allclose(A @ M.matvec(np.ones(620)), 1.0, atol=1e-11)


@pytest.mark.parametrize("form", ["stencil", "CSR"])
@pytest.mark.parametrize("sides", [D, N])
def test_solve_takes_it_where_one_application_solves(form, sides):
    A = gallery.poisson((70, 64), boundary=sides)
    b = np.random.default_rng(0).standard_normal(A.shape[0])
    b -= b.mean()
    result = solve(A if form == "stencil" else A.tocsr(), b, rtol=1e-8)
    assert result.method == "cg + FastPoisson"
    assert result.iterations == 0
    assert (result.matvecs, result.preconditioner_applies) == (1 if sides == D else 3, 1)
    assert "70 x 64" in result.reason
    assert np.linalg.norm(b - A @ result.x) <= 1e-8 * np.linalg.norm(b)


def test_solve_goes_on_from_a_first_guess_and_with_several_columns():
    A = gallery.poisson((60, 60))
    b = np.random.default_rng(0).standard_normal((3600, 3))
    result = solve(A, b, x0=np.ones_like(b), rtol=1e-10)
    assert result.method == "cg + FastPoisson"
    assert result.iterations <= 2
    np.testing.assert_allclose(A.tocsr() @ result.x, b, atol=1e-8)


def test_solve_leaves_indefinite_and_variable_operators_to_others():
    for A in (gallery.helmholtz((60, 60), 0.5), gallery.diffusion(gallery.jumps((60, 60)))):
        result = solve(A, np.ones(3600), rtol=1e-6)
        assert result.converged
        assert "FastPoisson" not in result.method


def test_protocol():
    M = preconditioners.build("fast-poisson")
    assert isinstance(M, FastPoisson)
    assert "not set up" in str(M)
    with pytest.raises(ValueError, match="call setup"):
        M.matvec(np.ones(3))
    A = gallery.poisson((11, 6))
    assert M.setup(A) is M
    assert (M.shape, M.dtype, M.symmetric, M.positive) == (A.shape, A.dtype, True, True)
    r = np.random.default_rng(0).standard_normal(66)
    kept, first = r.copy(), M.matvec(r)
    np.testing.assert_array_equal(r, kept)
    assert not np.shares_memory(first, M.matvec(r))
    np.testing.assert_array_equal(first, M.matvec(r))
    M.setup(gallery.diffusion(np.full((11, 6), 2.0)))  # for another matrix
    np.testing.assert_allclose(M.matvec(r), first / 2, rtol=1e-13)


@pytest.mark.parametrize(
    ("A", "error", "message"),
    [
        (sp.random_array((50, 50), density=0.2, rng=0), ValueError, "none was recognised"),
        (gallery.helmholtz((20, 20), 0.5), ValueError, "positive definite"),
        (gallery.helmholtz((20, 20), 0.5 + 0.1 * lognormal((20, 20))), None, ""),
        (-1.0 * gallery.poisson((20, 20)).tocsr(), ValueError, "positive definite"),
        (-1.0 * gallery.diffusion(lognormal((20, 20))).tocsr(), ValueError, "negative sign"),
        (gallery.poisson((20, 20)).tocsr().astype(complex), TypeError, "real"),
        (
            StencilOperator([(0, 0)], np.ones((1, 4, 4)), (4, 4), 1.0, mask=np.eye(4, dtype=bool)),
            ValueError,
            "mask",
        ),
    ],
)
def test_what_it_cannot_do_is_named(A, error, message):
    if error is None:
        assert not FastPoisson().setup(A).exact  # the average of an indefinite operator may still be definite
        return
    M = FastPoisson()
    with pytest.raises(error, match=message):
        M.setup(A)
    assert M.shape is None


def test_bad_parameters_are_named():
    with pytest.raises(ValueError, match="scaling"):
        FastPoisson("root")
