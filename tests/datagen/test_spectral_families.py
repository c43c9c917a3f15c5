"""The periodic families against exact solutions, independent discretisations, and what they conserve."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.linalg import toeplitz
from scipy.special import ellipj, ellipk

from datagen.evolve import ETDRK4
from datagen.family import Sample
from datagen.pdes.advection import Advection
from datagen.pdes.allen_cahn import AllenCahn
from datagen.pdes.burgers import Burgers
from datagen.pdes.fitzhugh_nagumo import FitzHughNagumo
from datagen.pdes.gray_scott import GrayScott
from datagen.pdes.kdv import KdV
from datagen.pdes.kuramoto_sivashinsky import KuramotoSivashinsky
from datagen.pdes.navier_stokes import NavierStokes

pi = np.pi


def order(solve, exact, steps):
    """Observed order of the last halving of the step."""
    errors = [float(np.max(np.abs(solve(h) - exact))) for h in steps]
    return float(np.log2(errors[-2] / errors[-1])), errors


# ----------------------------------------------------------------------------------------------------- one dimension


def test_burgers_agrees_with_cole_hopf_where_the_shock_is_sharpest():
    """The benchmark of Raissi et al. 2019: nu = 0.01/pi, -sin(pi x) on [-1, 1], here moved by 1."""
    family = Burgers(nu=0.01 / pi, grid=2048, length=2.0)
    sample = Sample({"initial_u": np.sin(pi * family.mesh.coordinates(0))})
    states = family.evolve(family.initial(sample), [0.99], solver=ETDRK4(1 / 5000))
    np.testing.assert_allclose(states, family.exact(sample, [0.99]), rtol=0, atol=1e-10)
    # The default rule: an error of the step of 6e-11 at this grid.
    np.testing.assert_allclose(family.evolve(family.initial(sample), [0.99]), states, rtol=0, atol=1e-10)


def one_wave(family, times, mean, depth=0.6):
    """u = m + 2 nu k e sin(k z) / (1 + e cos(k z)), e = depth exp(-nu k^2 t), z = x - m t: -2 nu (log phi)_x.

    phi = 1 + e cos(k z) solves the heat equation.
    """
    k, t = 2 * pi / family.length, np.asarray(times)[:, None]
    z, e = family.mesh.coordinates(0) - mean * t, depth * np.exp(-family.nu * k**2 * t)
    return (mean + 2 * family.nu * k * e * np.sin(k * z) / (1 + e * np.cos(k * z)))[:, None]


@pytest.mark.parametrize("mean", [0.0, 0.7])
def test_burgers_closed_form(mean):
    family = Burgers(nu=0.05, grid=128, length=2.0)
    start, *truth = one_wave(family, [0.0, 0.3, 1.1], mean)
    sample = Sample({"initial_u": start[0]})
    # To rounding: quotients of sums of a thousand terms.
    np.testing.assert_allclose(family.exact(sample, [0.3, 1.1]), truth, rtol=0, atol=1e-13)
    np.testing.assert_allclose(family.evolve(start, [0.3, 1.1], solver=ETDRK4(1e-3)), truth, rtol=0, atol=1e-11)


def test_burgers_order_and_mean():
    family = Burgers(nu=0.02, grid=128, standard_deviation=0.5, alpha=4.0)
    sample = family.sample(np.random.default_rng(61))
    start, exact = family.initial(sample), family.exact(sample, [0.5])[0]
    found, errors = order(lambda h: family.evolve(start, [0.5], solver=ETDRK4(h))[0], exact, [1 / 50, 1 / 100, 1 / 200])
    assert 3.7 <= found <= 4.3, errors
    assert abs(family.evolve(start, [0.5]).mean() - start.mean()) < 1e-15


@pytest.mark.parametrize("modulus", [0.6, 0.9, 0.999])
def test_cnoidal_wave(modulus):
    family = KdV(grid=256, length=20.0)
    wave = family.cnoidal_wave([0.0, 2.0, 4.0], modulus=modulus, waves=2, trough=-0.1, shift=3.0)
    np.testing.assert_allclose(family.evolve(wave[0], [2.0, 4.0]), wave[1:], rtol=0, atol=1e-8)


def test_cnoidal_wave_of_other_coefficients_solves_the_equation():
    family = KdV(convection=-2.0, dispersion=0.3, grid=128, length=7.0)
    wave = family.cnoidal_wave([0.0, 0.5], modulus=0.8, waves=1, trough=0.2)
    np.testing.assert_allclose(family.evolve(wave[0], [0.5])[0], wave[1], rtol=0, atol=1e-9)
    with pytest.raises(ValueError, match="modulus must lie between"):
        family.cnoidal_wave([0.0], modulus=1.0)


def test_kdv_order_and_invariants():
    family = KdV(grid=128, length=20.0)
    wave = family.cnoidal_wave([0.0, 1.0], modulus=0.95, waves=2)
    # A wave that is not steady has invariants to lose.
    start = wave[0] + 0.2 * np.cos(2 * pi * family.mesh.coordinates(0) / 20.0)

    def invariants(u):
        c = np.fft.rfft(u[0])
        slope = np.fft.irfft(1j * 2 * pi / 20.0 * np.arange(c.size) * c, u.size)
        return np.array([u.mean(), (u**2).mean(), (slope**2 / 2 - u[0] ** 3).mean()])

    at_start, losses = invariants(start), []
    for h in (1 / 100, 1 / 200):
        losses.append(abs(invariants(family.evolve(start, [1.0], solver=ETDRK4(h))[0]) - at_start))
    assert max(loss[0] for loss in losses) < 1e-15
    # Together, since a drift may pass through zero; of the order of the method or better.
    drifts = [loss[1] + loss[2] for loss in losses]
    assert np.log2(drifts[0] / drifts[1]) > 3.7, losses
    found, errors = order(
        lambda h: family.evolve(wave[0], [1.0], solver=ETDRK4(h))[0], wave[1], [1 / 50, 1 / 100, 1 / 200]
    )
    assert 3.7 <= found <= 4.6, errors


def test_kuramoto_sivashinsky_small_waves_grow_at_their_rates():
    family = KuramotoSivashinsky(grid=64, length=32.0)
    x, kappa = family.mesh.coordinates(0), 2 * pi * np.array([1, 3, 5, 7]) / 32.0
    start = 1e-7 * sum(np.cos(k * x) for k in kappa)[None]
    expected = 1e-7 * sum(np.exp((k**2 - k**4) * 4.0) * np.cos(k * x) for k in kappa)
    # Waves interact at the square of their size: (1e-7 * 4)^2 times a growth of e^2.
    np.testing.assert_allclose(family.evolve(start, [4.0])[0, 0], expected, rtol=0, atol=5e-12)


def differentiation_matrix(n, length):
    """Trefethen, Spectral Methods in MATLAB (2000), chapter 3: the derivative of the interpolant on an even grid."""
    j = np.arange(1, n)
    column = np.concatenate([[0], 0.5 * (-1.0) ** j / np.tan(j * pi / n)])
    return 2 * pi / length * toeplitz(column, column[np.r_[0, n - 1 : 0 : -1]])


def right_hand_side(family, n, length):
    """The equations in physical space, by matrices, aliased: right where the solution is resolved."""
    D = differentiation_matrix(n, length)
    D2 = D @ D
    if isinstance(family, Burgers):
        return lambda t, u: -u * (D @ u) + family.nu * (D2 @ u)
    if isinstance(family, KdV):
        return lambda t, u: -family.convection * u * (D @ u) - family.dispersion * (D @ (D2 @ u))
    if isinstance(family, KuramotoSivashinsky):
        return lambda t, u: -u * (D @ u) - D2 @ u - D2 @ (D2 @ u)
    if isinstance(family, AllenCahn):
        return lambda t, u: family.diffusivity * (D2 @ u) + family.rate * (u - u**3)

    def two(t, state):
        a, b = state[:n], state[n:]
        if isinstance(family, GrayScott):
            eaten = a * b**2
            first = family.diffusivity_a * (D2 @ a) - eaten + family.feed * (1 - a)
            return np.concatenate([first, family.diffusivity_b * (D2 @ b) + eaten - (family.feed + family.kill) * b])
        first = family.diffusivity_u * (D2 @ a) + a - a**3 - family.threshold - b
        return np.concatenate([first, family.diffusivity_v * (D2 @ b) + a - b])

    return two


ONE_DIMENSION = [
    (Burgers(nu=0.05, grid=64, alpha=6.0), 0.3),
    (KdV(convection=2.0, dispersion=0.5, grid=48, length=10.0, alpha=8.0, tau=2.0), 0.5),
    (KuramotoSivashinsky(grid=48, length=22.0, alpha=8.0, tau=1.0), 5.0),
    (AllenCahn(diffusivity=0.01, rate=2.0, grid=64, dimension=1, alpha=8.0, standard_deviation=0.5), 1.5),
    (GrayScott(diffusivity_a=2e-3, diffusivity_b=1e-3, grid=64, dimension=1, alpha=8.0, tau=4.0, contrast=1.0), 20.0),
    (FitzHughNagumo(diffusivity_u=0.01, diffusivity_v=0.02, grid=48, dimension=1, alpha=8.0), 3.0),
]


@pytest.mark.parametrize(("family", "end"), ONE_DIMENSION, ids=lambda value: getattr(value, "name", ""))
def test_an_independent_discretisation_and_integrator_agree(family, end):
    start = family.initial(family.sample(np.random.default_rng(1903)))
    n = family.mesh.shape[0]
    independent = solve_ivp(
        right_hand_side(family, n, family.length), (0, end), start.ravel(), "DOP853", rtol=1e-11, atol=1e-12
    )
    found = family.evolve(start, [end])[0].ravel()
    # The rules of the step leave errors of up to 1e-6 (see the docstrings); a wrong sign or factor leaves 1e-1.
    np.testing.assert_allclose(found, independent.y[:, -1], rtol=0, atol=2e-6)


@pytest.mark.parametrize(("family", "end"), ONE_DIMENSION, ids=lambda value: getattr(value, "name", ""))
def test_fourth_order_of_every_family(family, end):
    start = family.initial(family.sample(np.random.default_rng(1903)))
    # In steps of the rule KdV's short waves turn by radians, and KS's decay at once: the asymptotic range lies below.
    step = family.longest_step(start) / {"kdv": 8, "kuramoto_sivashinsky": 4}.get(family.name, 1)
    exact = family.evolve(start, [end], solver=ETDRK4(step / 8))[0]
    found, errors = order(lambda h: family.evolve(start, [end], solver=ETDRK4(h))[0], exact, [step, step / 2])
    # Against a run of a quarter of the finer step, which moves the order by log2(1 - 4^-4) = 0.006.
    assert 3.6 <= found <= 4.6, (found, errors)


# ------------------------------------------------------------------------------------------------- reaction, diffusion


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_uniform_allen_cahn_states_follow_the_ordinary_equation(dimension):
    """u' = r (u - u^3): u = u_0 e^{rt} / sqrt(1 + u_0^2 (e^{2rt} - 1))."""
    family = AllenCahn(rate=1.5, grid=6, dimension=dimension)
    start = np.full((1, *family.mesh.shape), 0.2)
    growth = np.exp(1.5 * 2.0)
    found = family.evolve(start, [2.0])[0]
    np.testing.assert_allclose(found, 0.2 * growth / np.sqrt(1 + 0.04 * (growth**2 - 1)), rtol=0, atol=1e-5)
    np.testing.assert_allclose(found, found.flat[0], rtol=1e-13)


def test_steady_allen_cahn_states_are_elliptic_sines():
    """D u'' + r (u - u^3) = 0: u = sqrt(2 m / (1 + m)) sn(x sqrt(r / (D (1 + m))) | m)."""
    m, rate, diffusivity, waves = 0.9, 2.0, 1e-3, 2
    length = waves * 4 * ellipk(m) / np.sqrt(rate / (diffusivity * (1 + m)))
    family = AllenCahn(diffusivity=diffusivity, rate=rate, grid=128, length=length, dimension=1)
    x = family.mesh.coordinates(0)
    steady = np.sqrt(2 * m / (1 + m)) * ellipj(x * np.sqrt(rate / (diffusivity * (1 + m))), m)[0]
    # Unstable, but symmetric perturbations (rounding) have no time to grow.
    np.testing.assert_allclose(family.evolve(steady[None], [2.0])[0, 0], steady, rtol=0, atol=1e-11)


def test_allen_cahn_energy_never_grows():
    family = AllenCahn(grid=48, dimension=2, standard_deviation=0.5)
    states = family.evolve(family.initial(family.sample(np.random.default_rng(77))), np.linspace(0, 8, 17))
    fourier = family.fourier
    energies = []
    for state in states:
        c = fourier.coefficients(state)
        gradient = sum((fourier.values(fourier.derivative(axis) * c) ** 2).mean() for axis in range(2))
        energies.append(
            family.diffusivity * gradient / 2 + family.rate * ((1 - fourier.values(c) ** 2) ** 2).mean() / 4
        )
    assert np.all(np.diff(energies) < 0), energies


@pytest.mark.parametrize("family", [GrayScott(grid=4), FitzHughNagumo(grid=4)], ids=lambda family: family.name)
def test_uniform_states_follow_ordinary_equations(family):
    def reaction(t, y):
        a, b = y
        if isinstance(family, GrayScott):
            return [-a * b * b + family.feed * (1 - a), a * b * b - (family.feed + family.kill) * b]
        return [a - a**3 - family.threshold - b, a - b]

    times = [1.0, 7.5]
    exact = solve_ivp(reaction, (0, 7.5), [0.5, 0.3], "DOP853", t_eval=times, rtol=1e-12, atol=1e-13).y.T
    start = np.broadcast_to(np.array([0.5, 0.3])[:, None, None], (2, 4, 4))
    found = family.evolve(start, times)
    np.testing.assert_allclose(found, np.broadcast_to(exact[:, :, None, None], found.shape), rtol=0, atol=1e-5)


# ----------------------------------------------------------------------------------------------------- two dimensions


@pytest.mark.parametrize(("dimension", "velocity"), [(1, 0.7), (2, (0.7, -1.3)), (3, (0.7, -1.3, 2.0))])
def test_advection_moves_the_field(dimension, velocity):
    family = Advection(velocity=velocity, grid=(12, 10, 9)[:dimension], length=2.0, dimension=dimension)

    def field(*x):
        return np.prod([np.sin(pi * (axis + 1) * s) + 0.3 for axis, s in enumerate(x)], axis=0)

    x = family.mesh.points()
    moved = field(*(s - c * 3.7 for s, c in zip(x, family.velocities, strict=True)))
    np.testing.assert_allclose(family.evolve(field(*x)[None], [3.7])[0, 0], moved, atol=1e-13)


def quiet(**parameters):
    return NavierStokes(forcing="none", length=2 * pi, **parameters)


def test_waves_of_one_wavelength_decay_without_interaction():
    """J(psi, w) = 0 for any sum of waves with |kappa|^2 = 25, though none of its parts is: Taylor-Green and more."""
    family = quiet(nu=0.02, grid=24)
    x, y = family.mesh.points()
    waves = [(5, 0), (0, 5), (3, 4), (4, 3), (3, -4), (-4, 3)]
    rng = np.random.default_rng(90)
    start = sum(a * np.cos(p * x + q * y + s) for (p, q), a, s in zip(waves, *rng.uniform(0.5, 2, (2, 6)), strict=True))
    found = family.evolve(start[None], [0.5, 1.0])[:, 0]
    np.testing.assert_allclose(found, start * np.exp(-0.02 * 25 * np.array([0.5, 1.0]))[:, None, None], atol=1e-12)


@pytest.mark.parametrize("forcing", ["fno", "kolmogorov"])
def test_flow_from_rest_follows_its_forcing(forcing):
    """One wave: w = f (1 - exp(-s t)) / s with s = nu kappa^2 + drag, until it becomes unstable."""
    family = NavierStokes(nu=0.01, forcing=forcing, amplitude=0.3, waves=3, drag=0.2, grid=16, length=2.0)
    x, y = family.mesh.points()
    if forcing == "fno":
        square, force = 2 * pi**2, 0.3 * (np.sin(pi * (x + y)) + np.cos(pi * (x + y)))
    else:
        square, force = 9 * pi**2, -0.3 * 3 * pi * np.cos(3 * pi * y)
    rate = 0.01 * square + 0.2
    found = family.evolve(np.zeros((1, 16, 16)), [1.5])[0, 0]
    np.testing.assert_allclose(found, force * (1 - np.exp(-rate * 1.5)) / rate, atol=1e-13)


def velocity_flux(n, nu, drag, force):
    """w_t = -div(u w) + nu lap w - drag w + f on the torus of length 2 pi: complex transforms, padded to 2 n."""
    k = np.fft.fftfreq(n, 1 / n)
    kx, ky = k[:, None], k[None, :]
    square = kx**2 + ky**2
    inverse = np.where(square > 0, 1 / np.where(square > 0, square, 1), 0)
    kept = (abs(kx) < n / 2) & (abs(ky) < n / 2)
    places = np.ix_(k.astype(int) % (2 * n), k.astype(int) % (2 * n))

    def values(c):
        padded = np.zeros((2 * n, 2 * n), complex)
        padded[places] = c
        return np.fft.ifft2(padded).real * (2 * n) ** 2

    def rhs(t, flat):
        w = flat.view(complex).reshape(n, n)
        product = values(w)
        fluxes = [np.fft.fft2(values(s * inverse * w) * product)[places] / (2 * n) ** 2 for s in (1j * ky, -1j * kx)]
        change = -(1j * kx * fluxes[0] + 1j * ky * fluxes[1]) - (nu * square + drag) * w + np.fft.fft2(force) / n**2
        return (change * kept).ravel().view(float)

    return rhs, kept


def test_navier_stokes_agrees_with_an_independent_scheme_and_integrator():
    n = 24
    family = NavierStokes(
        nu=0.02, forcing="kolmogorov", amplitude=1.0, waves=2, drag=0.1, grid=n, length=2 * pi, tau=2.0, alpha=4.0
    )
    start = 20 * family.initial(family.sample(np.random.default_rng(5)))
    _, y = family.mesh.points()
    rhs, kept = velocity_flux(n, 0.02, 0.1, -2 * np.cos(2 * y))
    coefficients = np.fft.fft2(start[0]) / n**2 * kept
    end = solve_ivp(rhs, (0, 1.0), coefficients.ravel().view(float), "DOP853", rtol=1e-9, atol=1e-10).y[:, -1]
    expected = np.fft.ifft2(end.copy().view(complex).reshape(n, n)).real * n**2
    assert np.max(np.abs(expected - start[0])) > 1  # it has moved
    found, errors = order(
        lambda h: family.evolve(start, [1.0], solver=ETDRK4(h))[0, 0], expected, [1 / 200, 1 / 400, 1 / 800]
    )
    # 6e-8 is left of values up to 8, and it falls by 16 from step to step.
    assert errors[-1] < 2e-7
    assert 3.7 <= found <= 4.3, errors


def test_inviscid_flow_conserves_energy_and_enstrophy():
    family = quiet(nu=0.0, grid=32, tau=2.0, alpha=4.0, standard_deviation=1.0)
    start = family.initial(family.sample(np.random.default_rng(44)))

    def invariants(w):
        return np.array([(w**2).mean(), (family.velocity(w) ** 2).mean()])

    at_start, losses = invariants(start), []
    for h in (1 / 20, 1 / 40, 1 / 80):
        losses.append(abs(invariants(family.evolve(start, [1.0], solver=ETDRK4(h))[0]) / at_start - 1))
    assert np.all(losses[-1] < 1e-6), losses
    assert np.all(np.log2(losses[-2] / losses[-1]) > 3.7), losses


def test_velocity_is_divergence_free_and_has_the_vorticity():
    family = NavierStokes(grid=(20, 16), length=3.0)
    w = family.initial(family.sample(np.random.default_rng(3)))
    fourier = family.fourier
    u, v = fourier.coefficients(family.velocity(w))
    dx, dy = fourier.derivative(0), fourier.derivative(1)
    np.testing.assert_allclose(dx * u + dy * v, 0, atol=1e-15)
    np.testing.assert_allclose(fourier.values(dx * v - dy * u, family.mesh.shape), w[0], atol=1e-14)


# ------------------------------------------------------------------------------------------------------- all families

ALL = [*(family for family, _ in ONE_DIMENSION), Advection(grid=16), NavierStokes(grid=16), GrayScott(grid=16)]


@pytest.mark.parametrize("family", ALL, ids=lambda family: family.name)
def test_batches_shapes_times_and_refusals(family):
    start = family.initial(family.sample(np.random.default_rng(8)))
    solver = ETDRK4(family.longest_step(start) if np.isfinite(family.longest_step(start)) else None)
    times = [0.0, 0.1, 0.25]
    one = family.evolve(start, times, solver=solver)
    assert one.shape == (3, len(family.role("output")), *family.mesh.shape)
    resolved = family.fourier.values(family.fourier.coefficients(start), family.mesh.shape)
    np.testing.assert_allclose(one[0], resolved, atol=1e-14)
    two = family.evolve(np.stack([start, 0.5 * start]), times, solver=solver)
    np.testing.assert_allclose(two[0], one, atol=1e-13)
    np.testing.assert_allclose(two[1], family.evolve(0.5 * start, times, solver=solver), atol=1e-13)
    with pytest.raises(ValueError, match="state must have the shape"):
        family.evolve(start[..., :-1], times)
    with pytest.raises(ValueError, match="not finite"):
        family.evolve(np.full_like(start, np.nan), times)
    with pytest.raises(TypeError, match="evolves in time"):
        family.system(family.sample(np.random.default_rng(8)))


@pytest.mark.parametrize("family", ALL, ids=lambda family: family.name)
def test_a_finer_grid_draws_the_same_waves(family):
    finer = replace(family, grid=2 * family.grid)
    coarse = family.initial(family.sample(np.random.default_rng(9)))
    fine = finer.initial(finer.sample(np.random.default_rng(9)))
    if isinstance(family, GrayScott):  # a function of the Gaussian field: compare that
        coarse, fine = (np.sqrt(np.log(1 / (4 * f[1:]))) for f in (coarse, fine))
        assert (
            np.corrcoef(coarse.ravel(), fine[(..., *(slice(None, None, 2),) * family.mesh.dimension)].ravel())[0, 1]
            > 0.99
        )
        return
    shared = finer.fourier.coefficients(fine)
    kept = family.fourier.coefficients(finer.fourier.values(shared, finer.mesh.shape))
    np.testing.assert_allclose(kept, family.fourier.coefficients(coarse), atol=1e-13)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Burgers(nu=0.0), "burgers: nu must be positive"),
        (lambda: Burgers(grid=(8, 8)), "one per axis"),
        (lambda: KdV(dispersion=0.0), "must not be zero"),
        (lambda: KuramotoSivashinsky(length=-1.0), "length must be positive"),
        (lambda: Advection(velocity=(1.0, 2.0)), "velocity must be one finite number or 1"),
        (lambda: AllenCahn(dimension=4), "dimension must be 1, 2 or 3"),
        (lambda: GrayScott(feed=-1.0), "feed must not be negative"),
        (lambda: FitzHughNagumo(diffusivity_v=0.0), "diffusivity_v must be positive"),
        (lambda: NavierStokes(nu=-1.0), "nu must not be negative"),
        (lambda: NavierStokes(forcing="wind"), "forcing must be one of fno, kolmogorov, none"),
    ],
)
def test_parameters_that_do_not_fit_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()
