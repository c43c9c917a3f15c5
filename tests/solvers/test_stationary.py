"""Stationary methods against dense formulas, PyAMG, and the theory of Young, Kahan, Ostrowski and Chebyshev."""

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp
import scipy.sparse.linalg as sla

from solvers import (
    Status,
    StencilOperator,
    cg,
    chebyshev,
    gallery,
    gauss_seidel,
    jacobi,
    sor,
    ssor,
)
from solvers.stationary.lexicographic import Rows
from solvers.stationary.red_black import RedBlack, is_two_coloured

SWEEPS = {"gauss_seidel": gauss_seidel, "sor": sor, "ssor": ssor, "jacobi": jacobi}
RNG = np.random.default_rng(11)


def parts(A):
    return np.diag(np.diag(A)), np.tril(A, -1), np.triu(A, 1)


def iteration_matrix(name, A, omega):
    """I - M A of each method."""
    D, L, U = parts(A)
    if name == "jacobi":
        M = omega * np.linalg.inv(D)
    elif name in ("sor", "gauss_seidel"):
        M = omega * np.linalg.inv(D + omega * L)
    else:
        M = omega * (2 - omega) * np.linalg.inv(D + omega * U) @ D @ np.linalg.inv(D + omega * L)
    return np.eye(len(A)) - M @ A, M


def dominant(n, dtype):
    """Nonsymmetric, diagonally dominant, with entries everywhere."""
    A = RNG.standard_normal((n, n)) * (RNG.random((n, n)) < 0.4)
    if np.dtype(dtype).kind == "c":
        A = A + 1j * RNG.standard_normal((n, n)) * (RNG.random((n, n)) < 0.4)
    return (A + np.diag(1.5 * np.abs(A).sum(axis=1) + 1)).astype(dtype)


@pytest.mark.parametrize("name", SWEEPS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
@pytest.mark.parametrize("form", [np.asarray, sp.csr_array, sp.csc_matrix])
def test_iterates_are_those_of_the_dense_formula(name, dtype, form):
    A = dominant(17, dtype)
    b = RNG.standard_normal(17).astype(dtype)
    omega = 1.0 if name == "gauss_seidel" else 0.8
    G, M = iteration_matrix(name, A, omega)
    x = np.zeros(17, dtype=dtype)
    options = {} if name == "gauss_seidel" else {"omega": omega}
    for sweeps in range(1, 6):
        x = G @ x + M @ b
        result = SWEEPS[name](form(A), b, rtol=0, maxiter=sweeps, **options)
        assert result.x.dtype == dtype
        # Some dozens of roundings of numbers of the size of x.
        np.testing.assert_allclose(result.x, x, rtol=0, atol=100 * np.finfo(dtype).eps * np.abs(x).max())
        assert result.iterations == sweeps


@pytest.mark.parametrize("name", SWEEPS)
@pytest.mark.parametrize("form", ["dense", "csr", "stencil"])
def test_history_is_of_true_residuals(name, form):
    stencil = gallery.diffusion(gallery.jumps((9, 7)))
    A = {"dense": stencil.tocsr().toarray(), "csr": stencil.tocsr(), "stencil": stencil}[form]
    b = RNG.standard_normal(63)
    iterates = []
    history = SWEEPS[name](A, b, rtol=0, maxiter=12, callback=lambda x: iterates.append(x) and None).history
    residuals = [np.linalg.norm(b), *(np.linalg.norm(b - stencil @ x) for x in iterates)]
    np.testing.assert_allclose(history, residuals, rtol=1e-10)


@pytest.mark.parametrize("points", [15, 31, 47])
def test_sor_at_youngs_omega_has_the_textbook_rate(points):
    """The spectral radius is omega - 1, with a Jordan block: ||e_k|| behaves like k (omega - 1)^k (Young 1971, 7.2)."""
    A = gallery.poisson((points, points))
    omega = 2 / (1 + np.sin(np.pi / (points + 1)))
    b = RNG.standard_normal(points**2)
    for form in (A, A.tocsr()):
        history = sor(form, b, omega=omega, rtol=0, maxiter=6 * points).history
        k = np.arange(len(history))[3 * points :]
        measured = np.polyfit(k, np.log(history[3 * points :] / k), 1)[0]
        # Two sweeps in a hundred: other eigenvalues lie on the same circle and beat against each other.
        assert measured == pytest.approx(np.log(omega - 1), rel=0.06)


def test_gauss_seidel_is_twice_as_fast_as_jacobi():
    """Young: rho(GS) = rho(J)^2 for a consistently ordered matrix, rho(J) = cos(pi h) for Poisson."""
    A, n = gallery.poisson((20, 20)), 400
    rho = np.cos(np.pi / 21)
    b = RNG.standard_normal(n)
    rates = {}
    for method in (jacobi, gauss_seidel):
        for form in (A, A.tocsr()):
            history = method(form, b, rtol=0, maxiter=400).history
            rates[method.__name__] = (history[400] / history[300]) ** 0.01
            expected = rho if method is jacobi else rho**2
            assert rates[method.__name__] == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("omega", [0.5, 1.0, 1.6, 1.95])
@pytest.mark.parametrize("form", ["csr", "stencil"])
def test_energy_of_the_error_falls_for_definite_matrices(omega, form):
    """Ostrowski and Reich: SOR converges, monotonically in the norm of A, for 0 < omega < 2."""
    A = gallery.diffusion(gallery.jumps((12, 9), 100.0))
    dense = A.tocsr().toarray()
    b = RNG.standard_normal(108)
    exact = np.linalg.solve(dense, b)
    for method in (sor, ssor):
        energies = []
        sweeps = {"callback": lambda x, e=energies: e.append((exact - x) @ dense @ (exact - x)) and None}
        method(A if form == "stencil" else A.tocsr(), b, omega=omega, rtol=1e-12, maxiter=60, **sweeps)
        assert len(energies) >= 50
        assert np.all(np.diff(energies) <= 1e-12 * energies[0])


def colour_permutation(shape):
    """Red points in C order, then black ones."""
    colour = np.indices(shape).sum(axis=0).reshape(-1) % 2
    return np.argsort(colour, kind="stable")


@pytest.mark.parametrize(
    "shape", [(8,), (9,), (1, 7), (7, 1), (6, 9), (9, 6), (5, 5), (4, 5, 6), (5, 3, 3), (2, 2, 2), (3, 2, 4, 3)]
)
@pytest.mark.parametrize("kind", ["variable", "constant", "nonsymmetric"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_red_black_is_pyamg_on_the_permuted_matrix(shape, kind, dtype):
    relaxation = pytest.importorskip("pyamg.relaxation.relaxation")
    if kind == "constant":
        A = gallery.poisson(shape, spacing=[0.5 + axis for axis in range(len(shape))])
    elif kind == "variable":
        A = gallery.diffusion(1.0 + RNG.random(shape))
    else:
        A = gallery.convection_diffusion(shape, velocity=[1.0 + axis for axis in range(len(shape))])
    A = StencilOperator(
        A.offsets, A.coefficients.astype(dtype), A.grid_shape, A.spacing, boundary=A.boundary, centring=A.centring
    )
    assert is_two_coloured(A)
    assert (RedBlack(A).constant is not None) == (
        kind != "variable" and not (kind == "nonsymmetric" and np.prod(shape) > 1)
    ) or (kind == "nonsymmetric" and max(shape) == 1)
    n = A.shape[0]
    b = RNG.standard_normal(n).astype(dtype)
    order = colour_permutation(shape)
    permuted = sp.csr_matrix(A.tocsr()[order][:, order])
    x = np.zeros(n, dtype=dtype)
    relaxation.sor(permuted, x, b[order], omega=dtype(1.3), iterations=4)
    ours = sor(A, b, omega=1.3, rtol=0, maxiter=4)
    np.testing.assert_allclose(ours.x[order], x, rtol=0, atol=200 * np.finfo(dtype).eps * np.abs(x).max())


@pytest.mark.parametrize("shape", [(40, 40), (63, 64), (100, 100), (14, 15, 16)])
@pytest.mark.parametrize("above", [0.0, 0.01])
def test_red_black_takes_as_many_sweeps_as_the_natural_order(shape, above):
    """The eigenvalues are the same; the transient differs: at most 12 % more sweeps to 1e-8 at Young's omega.

    Below it one real eigenvalue decides, and how much of it the first residual holds: up to 30 % more or fewer.
    """
    A = gallery.diffusion(np.exp(0.5 * RNG.standard_normal(shape)))
    scale = sp.diags_array(1 / np.sqrt(A.diagonal()))
    radius = 1 - sla.eigsh(scale @ A.tocsr() @ scale, k=1, sigma=0, return_eigenvectors=False)[0]
    omega = 2 / (1 + np.sqrt(1 - radius**2)) + above
    b = RNG.standard_normal(A.shape[0])
    natural = sor(A.tocsr(), b, omega=omega, rtol=1e-8)
    coloured = sor(A, b, omega=omega, rtol=1e-8)
    assert natural.converged
    assert coloured.converged
    assert coloured.iterations <= 1.12 * natural.iterations


def test_natural_order_is_pyamg():
    relaxation = pytest.importorskip("pyamg.relaxation.relaxation")
    A = gallery.convection_diffusion((23, 17), velocity=(2.0, -1.0)).tocsr()
    b = RNG.standard_normal(A.shape[0])
    for omega in (0.7, 1.0, 1.6):
        x = np.zeros(A.shape[0])
        relaxation.sor(sp.csr_matrix(A), x, b, omega=omega, iterations=3)
        np.testing.assert_allclose(sor(A, b, omega=omega, rtol=0, maxiter=3).x, x, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("make", ["periodic", "mask", "wide", "complex"])
def test_what_has_not_two_colours_is_swept_in_the_order_of_its_rows(make):
    A = gallery.poisson((6, 5), boundary="periodic") if make == "periodic" else gallery.poisson((6, 5))
    coefficients, offsets, mask = np.array(A.coefficients), list(A.offsets), None
    coefficients[offsets.index((0, 0))] += 1.0
    if make == "mask":
        mask = np.ones((6, 5), dtype=bool)
        mask[2, 3] = False
        for k, offset in enumerate(offsets):
            coefficients[k][~np.roll(mask, [-step for step in offset], (0, 1)) | ~mask] = 0
    if make == "wide":
        offsets.append((1, 1))
        extra = np.zeros((1, 6, 5))
        extra[0, :-1, :-1] = -0.1
        coefficients = np.concatenate([coefficients, extra])
    if make == "complex":
        coefficients = coefficients + 0.1j * coefficients
    S = StencilOperator(offsets, coefficients, (6, 5), A.spacing, boundary=A.boundary, centring=A.centring, mask=mask)
    assert not is_two_coloured(S)
    b = RNG.standard_normal(S.shape[0])
    np.testing.assert_array_equal(sor(S, b, rtol=0, maxiter=3).x, sor(S.tocsr(), b, rtol=0, maxiter=3).x)


# -- Chebyshev -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("condition", [2.0, 50.0, 1e3])
def test_chebyshev_keeps_its_bound_and_reaches_it(condition):
    """|| e_k ||_A <= 2 c^k / (1 + c^2k) || e_0 ||_A, with equality on an error at the ends of the spectrum."""
    values = np.linspace(1.0, condition, 200)
    c = (np.sqrt(condition) - 1) / (np.sqrt(condition) + 1)
    b = RNG.standard_normal(200)
    exact = b / values
    energies = []
    chebyshev(
        np.diag(values), b, bounds=(1.0, condition), rtol=1e-13, maxiter=60,
        callback=lambda x: energies.append(np.sqrt(np.sum(values * (exact - x) ** 2))) and None,
    )  # fmt: skip
    k = np.arange(1, len(energies) + 1)
    bound = 2 * c**k / (1 + c ** (2 * k)) * np.sqrt(np.sum(values * exact**2))
    assert np.all(energies <= bound * (1 + 1e-9) + 1e-13 * energies[0])
    ends = np.diag([1.0, condition])
    rest = []
    chebyshev(ends, np.ones(2), bounds=(1.0, condition), rtol=0, maxiter=5, callback=lambda x: rest.append(x) and None)
    for k, x in enumerate(rest, start=1):
        error = np.array([1.0, 1 / condition]) - x
        expected = 2 * c**k / (1 + c ** (2 * k)) * np.array([1.0, 1 / condition])
        np.testing.assert_allclose(np.abs(error), expected, rtol=1e-6)


@pytest.mark.parametrize("M", [None, "jacobi"])
def test_chebyshev_finds_its_bounds(M):
    A = gallery.diffusion(np.exp(RNG.standard_normal((30, 31))))
    b = RNG.standard_normal(A.shape[0])
    inverse = 1 / A.diagonal()
    result = chebyshev(A, b, rtol=1e-8, M=(lambda r: inverse * r) if M else None)
    best = cg(A, b, rtol=1e-8, M=(lambda r: inverse * r) if M else None)
    assert result.converged
    # Chebyshev's bound for the true interval, and as much again for finding its lower end.
    matrix = A.tocsr().toarray() * (np.sqrt(np.outer(inverse, inverse)) if M else 1.0)
    values = scipy.linalg.eigvalsh(matrix)
    bound = np.log(2e8) / -np.log((np.sqrt(values[-1] / values[0]) - 1) / (np.sqrt(values[-1] / values[0]) + 1))
    assert best.iterations < result.iterations <= 2 * bound
    phases = sp.diags_array(np.exp(1j * np.arange(A.shape[0])))  # a unitary transformation: the spectrum of A
    hermitian = chebyshev(phases @ A.tocsr() @ phases.conj(), phases @ b.astype(complex), rtol=1e-8)
    assert hermitian.converged
    np.testing.assert_allclose(phases.conj() @ hermitian.x, result.x, rtol=1e-4, atol=1e-5 * np.abs(result.x).max())


def test_upper_bound_is_safe_and_close():
    from solvers.krylov.driver import Correction
    from solvers.stationary.chebyshev import spectral_bounds
    from solvers.system import System

    for seed in range(10):
        rng = np.random.default_rng(seed)
        values = np.sort(rng.uniform(0.01, 1.0, 400)) ** rng.uniform(0.3, 3)
        b = rng.standard_normal(400)
        problem = Correction(System(np.diag(values)), b, 1.0, 0.0, None, lambda _: None, lambda _: None, [1])
        low, high = spectral_bounds(problem)
        assert values[0] * (1 - 1e-10) <= low
        assert values[-1] <= high <= 1.2 * values[-1]


def test_chebyshev_names_what_is_wrong():
    A = np.diag(np.linspace(1.0, 10.0, 30))
    b = np.ones(30)
    assert chebyshev(-A, b).status is Status.INDEFINITE_OPERATOR
    assert chebyshev(A, b, M=lambda r: -r).status is Status.INDEFINITE_PRECONDITIONER
    diverged = chebyshev(A, b, bounds=(1.0, 3.0), rtol=1e-10)
    assert diverged.status is Status.BREAKDOWN
    assert "upper bound" in diverged.reason
    assert chebyshev(2 * np.eye(5), np.ones(5), bounds=(2.0, 2.0), rtol=1e-14).iterations <= 2
    assert chebyshev(np.eye(1), np.ones(1)).converged
    for bounds in [(0.0, 1.0), (2.0, 1.0), (1.0, np.inf), (np.nan, 1.0)]:
        with pytest.raises(ValueError, match="bounds: expected"):
            chebyshev(A, b, bounds=bounds)


# -- Honesty ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SWEEPS)
def test_divergence_ends_in_time_and_without_nan(name):
    A = np.array([[1.0, 3.0], [3.0, 1.0]])
    result = SWEEPS[name](A, np.ones(2), maxiter=10_000)
    assert result.status is Status.BREAKDOWN
    assert "diverge" in result.reason
    assert np.isfinite(result.x).all()
    assert result.residual_norm <= np.sqrt(2) * (1 + 1e-12)


@pytest.mark.parametrize("name", SWEEPS)
def test_zero_on_the_diagonal_is_named(name):
    A = sp.csr_array([[0.0, 1.0], [1.0, 0.0]])
    if name in ("jacobi", "ssor"):
        with pytest.raises(ValueError, match="zeros on its diagonal, the first in row 0"):
            SWEEPS[name](A, np.ones(2))
    else:
        result = SWEEPS[name](A, np.ones(2))
        assert result.status is Status.BREAKDOWN
        assert "row 0 has a zero on the diagonal" in result.reason


@pytest.mark.parametrize("name", SWEEPS)
def test_bad_arguments_are_named(name):
    with pytest.raises(ValueError, match=r"needs its|shows no"):
        SWEEPS[name](lambda v: 2 * v, np.ones(3))
    if name != "gauss_seidel":
        for omega in (0.0, 2.0, -1.0, np.nan, "fast"):
            with pytest.raises(ValueError, match="omega: expected a number between 0 and 2"):
                SWEEPS[name](np.eye(3), np.ones(3), omega=omega)


@pytest.mark.parametrize("name", [*SWEEPS, "chebyshev"])
def test_singular_problems_with_their_null_space(name):
    A = gallery.poisson((8, 7), boundary="neumann")
    b = RNG.standard_normal(56)
    b -= b.mean()
    method = {**SWEEPS, "chebyshev": chebyshev}[name]
    options = {"omega": 0.9} if name == "jacobi" else {}
    for form in (A, A.tocsr()):
        result = method(form, b, rtol=1e-8, null_space="constant", maxiter=20_000, **options)
        assert result.converged
        np.testing.assert_allclose(result.x, np.linalg.pinv(A.tocsr().toarray()) @ b, atol=1e-5)


@pytest.mark.parametrize("indices", [np.int32, np.int64])
def test_rows_in_any_order_and_duplicates(indices):
    """Entry (0, 1) is there twice, rows are not sorted; what is given is not changed."""
    data = np.array([0.5, 4.0, 0.5, 3.0, 1.0])
    A = sp.csr_array((data, np.array([1, 0, 1, 1, 0], dtype=indices), np.array([0, 3, 5], dtype=indices)), (2, 2))
    result = sor(A, np.array([5.0, 4.0]), omega=1.0, rtol=1e-12)
    np.testing.assert_allclose(result.x, [1.0, 1.0], rtol=1e-11)
    np.testing.assert_array_equal(A.data, data)


def test_spectral_radius_decides():
    """Jacobi on a definite matrix that is not dominant diverges undamped and converges damped."""
    A = np.full((5, 5), 0.8) + 0.2 * np.eye(5)
    largest = scipy.linalg.eigvalsh(A)[-1]
    assert jacobi(A, np.ones(5) + np.arange(5)).status is Status.BREAKDOWN
    assert jacobi(A, np.ones(5) + np.arange(5), omega=1.9 / largest, maxiter=2000).converged


def test_arrangements_say_where_the_first_zero_is():
    assert Rows(sp.csr_array([[1.0, 0.0], [0.0, 0.0]])).zero_row == 1
