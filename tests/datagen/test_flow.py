"""Incompressible flow on the staggered grid: exact solutions, published tables, identities, and an independent code."""

import numpy as np
import pytest

from datagen.evolve import projection
from datagen.evolve.projection import Projection
from datagen.evolve.staggered import Staggered
from datagen.evolve.work import counted
from datagen.family import Sample, build
from datagen.flow_checks import FlowScheme
from datagen.obstacles import mask_fault, squares
from datagen.pdes.flow import Flow
from datagen.shard import solve_sample
from datagen.store import Spec
from datagen.validate_evolution import EvolutionCheck

SMALL = {"grid": 24, "obstacle_size": 0.125, "final_time": 0.5, "frames": 3}


def box(problem: str, n: int = 24, viscosity: float = 0.01, fluid: np.ndarray | None = None) -> Staggered:
    y = (np.arange(n) + 0.5) / n
    sides = {"channel": {"inlet": 4 * y * (1 - y)}, "cavity": {"lid": 1.0}, "periodic": {"periodic": True}}
    return Staggered(np.ones((n, n), bool) if fluid is None else fluid, 1 / n, viscosity, **sides[problem])


def with_square(n: int = 24) -> np.ndarray:
    fluid = np.ones((n, n), dtype=bool)
    fluid[8:12, 10:14] = False
    return fluid


def random_flow(flow: Staggered) -> np.ndarray:
    """Divergence-free, with all there is to an array: sides, obstacles, outflow."""
    w = flow.rest()
    w += 0.3 * np.random.default_rng(5).standard_normal(w.shape) * flow.open
    return projection._March(flow, flow.with_ghosts(w), projection.Pressure(flow, {"rtol": 1e-13})).u


def vortices(n: int, viscosity: float, t: float) -> tuple[Staggered, np.ndarray]:
    """Taylor-Green vortices carried along with (1, 1/2): an exact solution of the equations."""
    flow, k = box("periodic", n, viscosity), 2 * np.pi
    decay, edges, centres = np.exp(-2 * k**2 * viscosity * t), np.arange(n) / n, (np.arange(n) + 0.5) / n
    w = flow.rest()
    w[0][flow.cells] = 1 + decay * np.outer(np.sin(k * (edges - t)), np.cos(k * (centres - t / 2)))
    w[1][flow.cells] = 0.5 - decay * np.outer(np.cos(k * (centres - t)), np.sin(k * (edges - t / 2)))
    return flow, flow.with_ghosts(w)


# -- The scheme -------------------------------------------------------------------------------------------------------


def test_order_two_in_space_of_vortices_that_are_carried_along() -> None:
    errors = []
    for n in (24, 48):
        flow, start = vortices(n, 0.01, 0.0)
        end, exact = Projection().integrate(flow, start, [0.25])[0][0], vortices(n, 0.01, 0.25)[1]
        errors.append(np.max(np.abs(end - exact)))
    assert np.log2(errors[0] / errors[1]) > 1.9


def test_order_two_in_time_of_velocity_and_pressure() -> None:
    flow, start = vortices(24, 0.002, 0.0)

    def at(steps: int) -> tuple[np.ndarray, np.ndarray]:
        return Projection(step=0.2 / steps, solver={"rtol": 1e-12}).integrate(flow, start, [0.2])[0]

    truth = at(320)
    errors = np.array([[np.max(np.abs(a - b)) for a, b in zip(at(n), truth, strict=True)] for n in (10, 20)])
    assert np.all(np.log2(errors[0] / errors[1]) > 1.9)


def test_the_cavity_of_ghia_ghia_and_shin() -> None:
    """Table I at Re = 100: within 1 % of the lid's speed, here on 32^2 cells (on 128^2: benchmarks.flow)."""
    y = [0.0547, 0.1719, 0.2813, 0.4531, 0.5, 0.6172, 0.7344, 0.8516, 0.9531, 0.9766]
    u = [-0.03717, -0.10150, -0.15662, -0.21090, -0.20581, -0.13641, 0.00332, 0.23151, 0.68717, 0.84123]
    flow = box("cavity", 32)
    w = Projection().integrate(flow, flow.rest(), [12.0])[0][0]
    i, j = flow.cells
    nodes = np.concatenate([[0], (np.arange(32) + 0.5) / 32, [1]])
    found = np.interp(y, nodes, [0, *w[0, i.start + 16, j], 1])
    assert np.max(np.abs(found - u)) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("reynolds", [400, 1000])
def test_the_cavity_at_higher_reynolds_numbers(reynolds: int) -> None:
    y = [0.0625, 0.1719, 0.2813, 0.5, 0.7344, 0.9531]
    table = {
        400: [-0.09266, -0.24299, -0.32726, -0.11477, 0.16256, 0.55892],
        1000: [-0.20196, -0.38289, -0.27805, -0.06080, 0.18719, 0.46604],
    }
    flow = box("cavity", 128, 1 / reynolds)
    w = Projection(1.2).integrate(flow, flow.rest(), [60.0])[0][0]
    i, j = flow.cells
    nodes = np.concatenate([[0], (np.arange(128) + 0.5) / 128, [1]])
    found = np.interp(y, nodes, [0, *w[0, i.start + 64, j], 1])
    assert np.max(np.abs(found - table[reynolds])) < 0.01


@pytest.mark.parametrize("problem", ["channel", "cavity", "periodic"])
def test_the_pressure_operator_is_minus_divergence_of_gradient(problem: str) -> None:
    fluid = with_square()
    flow = box(problem, fluid=fluid)
    p = np.random.default_rng(1).standard_normal(flow.shape) * fluid
    w = flow.subtract_gradient(np.zeros((2, *flow.padded)), p, 1.0)
    expected = flow.divergence(w)
    for masked in (True, False):
        A = flow.pressure_operator(masked)
        found = A.to_field(A @ A.to_vector(p))
        np.testing.assert_allclose(found, expected, atol=1e-10)
    ones = flow.pressure_operator(True) @ np.ones(fluid.sum())
    assert np.max(np.abs(ones)) < 1e-10


@pytest.mark.parametrize("problem", ["channel", "cavity"])
def test_the_divergence_is_at_the_tolerance_after_every_step(problem: str) -> None:
    flow = box(problem, fluid=with_square(), viscosity=1e-3)
    pressure = projection.Pressure(flow)
    march = projection._March(flow, flow.rest(), pressure)
    for _ in range(20):
        march.step(0.01)
        rms = np.sqrt(np.mean(flow.divergence(march.u)[flow.fluid] ** 2))
        assert rms <= 1.01 * projection.TOLERANCE  # 1 % for the rounding of the sum
    assert np.max(np.abs(march.u[0, 10:14, 12:16])) == 0  # inside the square nothing moves


def test_a_symmetric_channel_stays_symmetric() -> None:
    """Mirrored across the middle, u is even and v odd; the asymmetry that tolerances leave grows only in wakes."""
    flow = box("channel", fluid=with_square(), viscosity=1e-2)
    w, p = Projection(solver={"rtol": 1e-11}).integrate(flow, flow.rest(), [1.0])[0]
    u, v = flow.cell_means(w)
    assert np.max(np.abs(u)) > 1  # it goes around the square faster than it came in
    for odd, field in ((False, u), (True, v), (False, p)):
        assert np.max(np.abs(field - (-1 if odd else 1) * field[:, ::-1])) < 1e-8


def test_what_comes_in_goes_out_and_slows_to_poiseuille() -> None:
    """Far behind the inlet the flow of an empty channel is a parabola again, of the same flux."""
    flow = box("channel", 16, 0.1)
    w, p = Projection().integrate(flow, flow.rest(), [4.0])[0]
    flux = w[0, :, flow.cells[1]].sum(axis=1)[2:19]
    assert np.ptp(flux) < 1e-6 * flux[0]
    assert np.max(np.abs(w[0, 10, flow.cells[1]] - flow.inlet)) < 1 / 16**2  # second order at walls
    np.testing.assert_allclose(np.diff(p[8:12].mean(axis=1)) * 16, -8 * 0.1, rtol=0.01)  # -p_x = 8 nu


@pytest.mark.parametrize("problem", ["channel", "cavity", "periodic"])
@pytest.mark.parametrize("n", [24, 25])
def test_faces_are_found_again_from_the_means_of_cells(problem: str, n: int) -> None:
    fluid = None if problem == "periodic" or n == 25 else with_square()
    flow = box(problem, n, fluid=fluid)
    w = random_flow(flow)
    if problem == "periodic" and n % 2 == 0:  # the checkerboard, the one part that is lost
        sign = (-1.0) ** np.add.outer(np.arange(n), np.arange(n))
        i, j = flow.cells
        amount = np.mean(sign * (w[0, i, j] - w[1, i, j])) / 2
        w[0, i, j] -= amount * sign
        w[1, i, j] += amount * sign
        w = flow.with_ghosts(w)
    found = flow.from_cell_means(flow.cell_means(w))
    inside = np.abs(found - w)[:, 2 : n + 3, 2 : n + 3]
    assert np.max(inside) < 1e-10


def test_momentum_is_conserved_and_energy_lost_in_a_periodic_box() -> None:
    family = Flow(problem="periodic", obstacles=(0, 0), grid=24, reynolds=(1e4, 1e4))
    sample = family.sample(np.random.default_rng(2))
    states = family.evolve(family.initial(sample), [0.0, 0.5, 1.0], sample)
    energy = (states[:, :2] ** 2).sum(axis=1).mean(axis=(1, 2))
    assert np.all(np.diff(energy) < 0)
    assert 0.9 < energy[0] < 1
    assert np.max(np.abs(states[:, :2].mean(axis=(2, 3)) - states[0, :2].mean(axis=(1, 2)))) < 1e-14


@pytest.mark.parametrize(
    "parameters",
    [
        {"problem": "channel", "obstacles": (2, 3)},
        {"problem": "cavity", "obstacles": (1, 1)},
        {"problem": "periodic", "obstacles": (0, 0)},
        {"problem": "periodic", "obstacles": (0, 0), "grid": (25, 16)},
        {"problem": "channel", "obstacles": (0, 0), "grid": (40, 24)},
    ],
)
def test_an_independent_code_of_the_scheme_agrees(parameters: dict) -> None:
    family = Flow(**{**SMALL, **parameters})
    sample = family.sample(np.random.default_rng(3))
    scheme, start = FlowScheme(family, sample), family.initial(sample)
    states = family.evolve(start, [0.25, 0.5], sample, {"rtol": 1e-11})
    # Pressures to 1e-11; the means of a periodic box of even sizes do not tell its checkerboard, here some 1e-7.
    lost = 2e-6 if family.problem == "periodic" and family.grid == 24 else 0.0
    np.testing.assert_allclose(scheme.start(sample), start, atol=1e-8)
    np.testing.assert_allclose(scheme.advance(states[0], 0.25, 0.5), states[1], atol=1e-8 + lost)
    again = family.evolve(states[0], [0.25], sample, {"rtol": 1e-11})[0]  # from a frame as from the start
    np.testing.assert_allclose(again, states[1], atol=1e-8 + lost)


@pytest.mark.parametrize(
    "solver",
    [
        {"method": "direct"},
        {"method": "cg", "M": "multigrid"},
        {"method": "cg", "M": "amg"},
        {"method": "sequence"},
        {},
    ],
)
def test_every_solver_of_the_pressure_gives_the_same_flow(solver: dict) -> None:
    family = Flow(**SMALL)
    sample = family.sample(np.random.default_rng(4))
    start = family.initial(sample)
    with counted() as work:
        found = family.evolve(start, [0.1], sample, {"rtol": 1e-9, **solver})
    np.testing.assert_allclose(found, family.evolve(start, [0.1], sample, {"rtol": 1e-12}), atol=1e-6)
    assert work.solves == work.steps + 3
    assert work.products > 0


def test_a_lid_that_has_just_begun_to_move_sets_the_step() -> None:
    """At rest nothing moves but the lid; without its speed the first step would be as long as viscosity allows."""
    flow = box("cavity", 16, 1e-4)
    with counted() as work:
        w = Projection(1.0).integrate(flow, flow.rest(), [1.0])[0][0]
    assert work.steps >= 16
    assert np.max(np.abs(flow.cell_means(w))) < 1


def test_a_step_that_is_too_long_and_a_flow_that_runs_away_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = box("cavity", 16)
    with pytest.raises(FloatingPointError, match="unstable"):
        Projection(step=0.5).integrate(flow, flow.rest(), [1.0])
    monkeypatch.setattr(projection, "_RUNAWAY", 0.1)
    with pytest.raises(FloatingPointError, match="run away at t"):
        Projection().integrate(flow, flow.rest(), [1.0])


# -- Obstacles --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [32, 64, 100])
def test_squares_keep_their_distances(n: int) -> None:
    for seed in range(10):
        mask = squares(np.random.default_rng(seed), 5, 0.125, (n, n), inflow=True)
        side = round(0.125 * n)
        assert mask.sum() == 5 * side**2
        x, y = np.nonzero(mask)
        assert x.min() >= side - 1
        assert x.max() < n - side + 1
        assert y.min() >= side // 2 - 1
        assert y.max() < n - side // 2 + 1
        assert mask_fault(mask.astype(float), inflow=True) == ""


def test_places_do_not_depend_on_the_grid() -> None:
    coarse, fine = (squares(np.random.default_rng(1), 6, 0.125, (n, n), inflow=True) for n in (64, 128))
    np.testing.assert_array_equal(fine, np.kron(coarse, np.ones((2, 2), bool)))


def test_places_are_drawn_evenly() -> None:
    """One square: the mean place is the middle, with the spread of an even law; 400 draws, four standard errors."""
    corners = [np.argwhere(squares(np.random.default_rng(s), 1, 0.25, (32, 32), False))[0] for s in range(400)]
    low, high = 4, 20  # half a side from walls
    spread = (high - low) / np.sqrt(12)
    assert np.all(np.abs(np.mean(corners, axis=0) - (low + high) / 2) < 4 * spread / np.sqrt(400))


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ((slice(10, 12), slice(None)), "block the channel"),
        ((slice(0, 2), slice(5, 8)), "overlaps the inlet"),
        ((slice(-1, None), slice(5, 8)), "overlaps the outlet"),
        ((slice(None), slice(None)), "no fluid"),
    ],
)
def test_obstacles_that_leave_no_flow_are_refused(where: tuple[slice, slice], sentence: str) -> None:
    obstacle = np.zeros((24, 24))
    obstacle[where] = 1
    with pytest.raises(ValueError, match=sentence):
        Flow(grid=24, obstacle_size=0.125).initial(Sample({"obstacle": obstacle}, {"reynolds": 100.0}))


def test_fluid_that_is_shut_in_and_masks_of_other_numbers_are_refused() -> None:
    ring = np.zeros((24, 24))
    ring[8:14, 8:14] = 1
    ring[10:12, 10:12] = 0
    assert "4 cells of fluid are shut in" in mask_fault(ring, inflow=True)
    assert "must be 1 in solid cells" in mask_fault(ring * 0.5, inflow=False)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"problem": "pipe"}, "problem must be"),
        ({"obstacles": (3, 2)}, "fewest and the most"),
        ({"obstacles": (1, 400)}, "no more than"),
        ({"obstacle_size": 0.6}, "does not fit"),
        ({"obstacle_size": 0.02}, "cells of this grid"),
        ({"problem": "periodic"}, "no obstacles"),
        ({"reynolds": (100.0, 10.0)}, "reynolds must be"),
        ({"reynolds": (0.0, 10.0)}, "reynolds must be"),
        ({"courant": 2.0}, "courant must be"),
        ({"grid": 4}, "at least 8"),
        ({"frames": 1}, "frames must be"),
    ],
)
def test_parameters_that_do_not_fit_are_refused_by_name(parameters: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        build("flow", **{**SMALL, **parameters})


# -- Samples ----------------------------------------------------------------------------------------------------------


def spec(**parameters: object) -> Spec:
    family = {"name": "flow", **SMALL, **parameters}
    return Spec(family, 0, {"train": 2, "validation": 0, "test": 0}, 2, {"method": "auto", "rtol": 1e-6})


def test_a_sample_holds_what_it_cost_and_passes_its_checks() -> None:
    made = spec(obstacles=(1, 2))
    solved = solve_sample(made, "train", 0)
    assert set(solved.costs) == {"steps", "evaluations", "work", "solves", "iterations", "matvecs", "unknowns"}
    assert solved.costs["unknowns"] == 3 * 24 * 24
    assert solved.quality["divergence"] <= 1e-6
    assert solve_sample(made, "train", 0).costs == solved.costs  # deterministic, unlike seconds
    check = EvolutionCheck(made.family)
    stored = {name: np.array(values) for name, values in solved.solution.items()}
    assert not list(check.check(solved.sample, stored, solved.quality))
    assert not list(check.integrate_again(solved.sample, stored))
    assert 0 < check.worst < 1


@pytest.mark.parametrize("how", ["swapped", "scaled", "noise", "wall", "pressure"])
def test_validation_sees_frames_that_are_wrong(how: str) -> None:
    made = spec(frames=4)
    solved = solve_sample(made, "train", 1)
    stored = {name: np.array(values) for name, values in solved.solution.items()}
    if how == "swapped":
        for values in stored.values():
            values[[1, 2]] = values[[2, 1]]
    elif how == "scaled":
        stored["velocity_y"][2] *= 1.01
    elif how == "noise":
        stored["velocity_x"][2, 12, 12] += 1e-2
    elif how == "wall":
        stored["velocity_x"][1:][:, solved.sample.fields["obstacle"] > 0] = 1e-3
    else:
        stored["pressure"][3] = stored["pressure"][2]
    check = EvolutionCheck(made.family)
    cheap = list(check.check(solved.sample, stored, solved.quality))
    faults = cheap + list(check.integrate_again(solved.sample, stored))
    assert faults
    assert cheap or how in ("swapped", "pressure")  # divergence and obstacles are looked at in every sample


def test_a_run_that_diverges_is_a_recorded_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = Projection.integrate, []

    def once(self: Projection, flow: Staggered, start: np.ndarray, times: list) -> list:
        calls.append(len(times))
        if len(calls) == 2:  # the first call makes the initial state
            raise FloatingPointError("the flow has run away")
        return real(self, flow, start, times)

    monkeypatch.setattr(Projection, "integrate", once)
    solved = solve_sample(spec(), "train", 0)
    assert solved.attempt == 1
    assert "run away" in solved.failures[0]


def test_what_is_the_same_in_every_sample_is_declared() -> None:
    assert build("flow", **SMALL, obstacles=(0, 0), reynolds=(500.0, 500.0)).fixed == ("obstacle", "reynolds")
    assert build("flow", **SMALL).fixed == ()
