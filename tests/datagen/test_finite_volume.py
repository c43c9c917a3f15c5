"""The finite-volume engine, with the law of gases: steps, boundaries, conservation, symmetry, positivity."""

import numpy as np
import pytest

from datagen.evolve.finite_volume import FiniteVolume, Outflow, Wall
from datagen.evolve.hllc import EulerLaw, _half_slope

OPEN, CLOSED = (Outflow(), Outflow()), (Wall(), Wall())


def gas(shape, seed=0):
    """Jumps in every cell: density and pressure in [0.1, 1], velocities in [-1, 1]."""
    rng = np.random.default_rng(seed)
    state = rng.uniform(0.1, 1, (len(shape) + 2, *shape))
    state[1:-1] = rng.uniform(-1, 1, (len(shape), *shape))
    return EulerLaw(len(shape), 1.4), state


def run(law, state, times, boundary, solver=None, spacing=None):
    solver = solver or FiniteVolume()
    spacing = spacing or [1 / n for n in state.shape[1:]]
    return [law.recovered(u) for u in solver.integrate(law, law.conserved(state), times, spacing, boundary)]


def test_slopes_are_central_where_smooth_and_stay_between_the_neighbours():
    slope = _half_slope.py_func
    assert slope(1.0, 1.5) == pytest.approx(0.5 * (1.0 + 1.5) / 2)  # half of the central difference
    assert slope(1.0, 9.0) == 1.0  # the value at the face is the neighbour's, not beyond it
    assert slope(-9.0, -1.0) == -1.0
    assert slope(1.0, -1.0) == slope(0.0, 3.0) == 0.0


@pytest.mark.parametrize("shape", [(40,), (12, 20), (6, 8, 10)])
def test_what_is_conserved_stays_to_rounding(shape):
    law, state = gas(shape)
    before = law.conserved(state)
    over_grid = tuple(range(1, before.ndim))
    scale = abs(before).sum(over_grid)
    for boundary, rows in (("periodic", slice(None)), (CLOSED, [0, -1])):  # walls take momentum
        after = FiniteVolume().integrate(law, before, [0.3], [1 / n for n in shape], [boundary] * len(shape))[0]
        # Each of some hundred stages rounds every cell once: errors far below 1000 eps of the total.
        drift = abs(after.sum(over_grid) - before.sum(over_grid)) / scale
        assert drift[rows].max() < 1000 * np.finfo(float).eps
        assert abs(after - before).max() > 0.1


def test_any_axis_is_like_any_other():
    law, state = gas((24, 24))
    turned = state[[0, 2, 1, 3]].transpose(0, 2, 1)
    for boundary in ("periodic", OPEN, CLOSED):
        a, b = (run(law, s, [0.2], [boundary] * 2)[0] for s in (state, turned))
        # Bit for bit: the two changes of a cell are added before anything else.
        np.testing.assert_array_equal(a[[0, 2, 1, 3]].transpose(0, 2, 1), b)
    line, plane, box = gas((32,)), gas((32, 3)), gas((2, 2, 32))
    expected = run(*line, [0.1], ["periodic"])[0]
    plane[1][[0, 1, 3]] = line[1][:, :, None]
    plane[1][2] = 0
    box[1][[0, 3, 4]] = line[1][:, None, None]
    box[1][[1, 2]] = 0
    # A step of its own, since the rule adds up speeds along the axes.
    for (law, state), rows, cell in ((plane, [0, 1, 3], (slice(None), 1)), (box, [0, 3, 4], (1, 1))):
        solver = FiniteVolume(step=1 / 32 / 32)
        expected = run(*line, [0.1], ["periodic"], FiniteVolume(step=1 / 32 / 32))[0]
        found = run(law, state, [0.1], ["periodic"] * (state.ndim - 1), solver, [1 / 32] * (state.ndim - 1))[0]
        # Sums of axes that add zeros are the same; energies include squares of zeros.
        np.testing.assert_allclose(found[(rows, *cell)], expected, rtol=0, atol=1e-13)


def test_mirror_images_evolve_into_mirror_images():
    law, state = gas((30, 4))
    mirror = state[:, ::-1] * np.array([1, -1, 1, 1])[:, None, None]
    a, b = (run(law, s, [0.2], ["periodic", OPEN])[0] for s in (state, mirror))
    np.testing.assert_allclose(a[:, ::-1] * np.array([1, -1, 1, 1])[:, None, None], b, rtol=0, atol=1e-12)


def test_a_wall_is_a_mirror():
    """A box between walls and its mirror image, side by side in a periodic box of twice the length."""
    law, state = gas((20, 4))
    mirror = state[:, ::-1] * np.array([1, -1, 1, 1])[:, None, None]
    twice = np.concatenate([state, mirror], axis=1)
    half = run(law, state, [0.3], [CLOSED, "periodic"], spacing=[0.05, 0.25])[0]
    both = run(law, twice, [0.3], ["periodic", "periodic"], spacing=[0.05, 0.25])[0]
    np.testing.assert_allclose(half, both[:, :20], rtol=0, atol=1e-12)


def test_waves_leave_through_open_sides():
    """A weak sound wave that runs to the right, of size 1e-4: what comes back is of first order in the wave's slope."""
    law, x = EulerLaw(1, 1.4), (np.arange(100) + 0.5) / 100
    pulse = 1e-4 * np.exp(-(((x - 0.5) / 0.1) ** 2))
    sound = np.sqrt(1.4)
    state = np.stack([1 + pulse, sound * pulse, 1 + 1.4 * pulse])
    rest = np.array([1, 0, 1.0])[:, None]
    gone = abs(run(law, state, [1.5 / sound], [OPEN])[0] - rest).max()
    kept = abs(run(law, state, [1.5 / sound], [CLOSED])[0] - rest).max()
    assert gone < 1e-2 * kept


def test_stationary_contacts_and_shear_layers_do_not_move():
    law, state = gas((16, 16))
    state[1], state[3] = 0, 0.7
    state[0], state[2] = state[0, :, :1], state[2, :, :1]  # jumps of density and tangential velocity along x only
    np.testing.assert_allclose(run(law, state, [1.0], ["periodic"] * 2)[0], state, rtol=0, atol=1e-13)
    # In motion they are smeared, and pressure and velocity stay what they are all the same.
    state[1], state[2] = 0.5, -0.3
    moved = run(law, state, [1.0], ["periodic"] * 2)[0]
    np.testing.assert_allclose(moved[1:], state[1:], rtol=0, atol=1e-12)
    assert abs(moved[0] - state[0]).max() > 0.1


def test_a_moving_frame_changes_little_and_less_on_finer_grids():
    """Galileo: the same flow from a frame that moves by the box once. Upwinding sees the frame at second order."""

    def smooth(n):
        x, y = np.meshgrid(*[(np.arange(n) + 0.5) / n] * 2, indexing="ij")
        wave = np.sin(2 * np.pi * x) * np.cos(2 * np.pi * y)
        return np.stack([1 + 0.2 * wave, 0.1 * np.cos(2 * np.pi * y), 0.1 * np.sin(2 * np.pi * x), np.ones_like(x)])

    law, differences = EulerLaw(2, 1.4), []
    for n in (32, 64):
        state = smooth(n)
        moving = state + np.array([0, 2.0, -1.0, 0])[:, None, None]
        at_rest, carried = (run(law, s, [1.0], ["periodic"] * 2)[0] for s in (state, moving))
        differences.append(abs(carried[0] - at_rest[0]).mean())
    # Grids that just resolve the wave: well above the 1 of a first-order scheme.
    assert np.log2(differences[0] / differences[1]) > 1.5, differences


def test_rotated_flow_is_the_rotated_flow():
    law, state = gas((20, 20))
    quarter = np.stack([state[0], -state[2], state[1], state[3]]).transpose(0, 2, 1)[:, ::-1]  # (x, y) -> (-y, x)
    a, b = (run(law, s, [0.2], ["periodic"] * 2)[0] for s in (state, quarter))
    expected = np.stack([a[0], -a[2], a[1], a[3]]).transpose(0, 2, 1)[:, ::-1]
    np.testing.assert_allclose(b, expected, rtol=0, atol=1e-12)


def test_the_step_is_of_second_order_and_the_rate_is_what_it_integrates():
    law, x = EulerLaw(1, 1.4), (np.arange(32) + 0.5) / 32
    state = np.stack([1 + 0.1 * np.sin(2 * np.pi * x), 0.2 * np.cos(2 * np.pi * x), np.ones_like(x)])
    u, grid = law.conserved(state), dict(spacing=[1 / 32], boundary=["periodic"])
    reference, steps = u, 400
    for _ in range(steps):  # classical Runge-Kutta
        h = 0.2 / steps
        k1 = FiniteVolume().rate(law, reference, **grid)
        k2 = FiniteVolume().rate(law, reference + h / 2 * k1, **grid)
        k3 = FiniteVolume().rate(law, reference + h / 2 * k2, **grid)
        k4 = FiniteVolume().rate(law, reference + h * k3, **grid)
        reference = reference + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    errors = [
        abs(FiniteVolume(step=0.2 / n).integrate(law, u, [0.2], **grid)[0] - reference).max() for n in (40, 80, 160)
    ]
    # Corners of the limiter keep it from being exactly 2.
    assert 1.8 < np.log2(errors[0] / errors[2]) / 2 < 2.3, errors


def test_times_are_hit_and_work_is_counted():
    law, state = gas((10,))
    solver = FiniteVolume(step=1e-3)
    states = run(law, state, [0.0, 0.0105, 0.02], ["periodic"], solver)
    np.testing.assert_allclose(states[0], state, rtol=1e-14)
    assert solver.work.steps == 11 + 10
    assert solver.work.evaluations == 2 * 21
    assert solver.work.riemann_problems == 2 * 21 * 10
    again = FiniteVolume(step=1e-3)
    np.testing.assert_array_equal(run(law, state, [0.0105, 0.02], ["periodic"], again)[1], states[2])


def test_unstable_steps_are_refused_before_they_are_taken():
    law, state = gas((16, 16))
    solver = FiniteVolume(step=0.05)
    with pytest.raises(ValueError, match=r"Courant number .* unstable: step must be at most"):
        run(law, state, [1.0], ["periodic"] * 2, solver)
    assert solver.work.steps == 0
    # An interval shorter than the step is one step of its own length.
    run(law, state, [0.001], ["periodic"] * 2, solver)
    assert solver.work.steps == 1


@pytest.mark.parametrize("arguments", [dict(courant=0.0), dict(courant=1.1), dict(step=0.0), dict(step=np.nan)])
def test_solvers_that_make_no_sense_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        FiniteVolume(**arguments)


def test_first_order_where_positivity_needs_it():
    """Gases that part at five times the sound: the pressure between them falls to a thousandth."""
    law, n = EulerLaw(1, 1.4), 100
    state = np.stack([np.ones(n), np.where(np.arange(n) < n // 2, -10.0, 10.0), np.full(n, 0.4)])
    solver = FiniteVolume()
    states = run(law, state, [0.01, 0.02], [OPEN], solver)
    assert solver.work.first_order_cells > 0
    assert all(s[[0, 2]].min() > 0 for s in states)
    # Repairs conserve: in a periodic box, where the gases meet again, the totals stay, wherever its seam is.
    u = law.conserved(state)
    after, rolled = (
        FiniteVolume().integrate(law, np.roll(u, shift, 1), [0.02], [1 / n], ["periodic"])[0]
        for shift in (0, n // 2 + 1)
    )
    np.testing.assert_allclose(after.sum(1), u.sum(1), rtol=0, atol=1e-13 * abs(u).sum())
    np.testing.assert_array_equal(np.roll(after, n // 2 + 1, 1), rolled)


@pytest.mark.parametrize("shape", [(50,), (12, 12), (6, 6, 6)])
@pytest.mark.parametrize("boundary", ["periodic", OPEN, CLOSED])
def test_densities_and_pressures_over_three_decades_stay_positive(shape, boundary):
    """Cells next to each other at up to 30 times the speed of sound of the colder one."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        law, state = gas(shape, seed)
        state[[0, -1]] = 10 ** rng.uniform(-2, 1, (2, *shape))
        state[1:-1] *= 3
        final = run(law, state, [0.1], [boundary] * len(shape))[0]
        assert np.isfinite(final).all()
        assert final[[0, -1]].min() > 0


class ThickGas(EulerLaw):
    """A gas that is admissible only above a pressure of 0.3, which no repair can keep where it expands."""

    def admissible(self, w):
        return w[-2] > 0.3

    def primitive(self, u, w):
        super().primitive(u, w)
        return int((~self.admissible(w)).sum())


def test_what_cannot_stay_positive_is_said():
    law, n = ThickGas(1, 1.4), 20
    state = np.stack([np.ones(n), np.where(np.arange(n) < n // 2, -1.0, 1.0), np.full(n, 0.4)])
    with pytest.raises(FloatingPointError, match=r"would not stay positive at t = .*, with steps down to"):
        run(law, state, [0.1], [OPEN])
    with pytest.raises(FloatingPointError, match=r"would not stay positive at t = .* with a step of 0\.001"):
        run(law, state, [0.1], [OPEN], FiniteVolume(step=0.001))
    with pytest.raises(ValueError, match="positive in density"):
        run(law, np.where(state == 0.4, 0.2, state), [0.1], [OPEN])
    with pytest.raises(ValueError, match="times must be numbers that increase"):
        run(law, state, [0.1, 0.1], [OPEN])
