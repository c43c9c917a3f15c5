"""Waves against standing and travelling ones, what an interface and a side send back, and energy."""

import numpy as np
import pytest
from scipy.sparse.linalg import expm_multiply

from datagen.evolve.implicit import Implicit
from datagen.evolve.work import counted
from datagen.family import Sample
from datagen.implicit_checks import wave_balance, wave_states
from datagen.pdes.wave import Wave

pi = np.pi


def seed(number=23):
    return np.random.default_rng(number)


def order(errors):
    return float(np.log2(errors[-2] / errors[-1]))


# ------------------------------------------------------------------------------------------------------ standing waves


@pytest.mark.parametrize(
    ("dimension", "sides", "numbers"),
    [
        (1, "dirichlet", (2,)),
        (1, "neumann", (2,)),
        (2, ("dirichlet", "neumann"), (1, 2)),
        (3, ("neumann", "dirichlet", "dirichlet"), (1, 1, 1)),
    ],
)
def test_standing_waves_at_second_order(dimension, sides, numbers):
    """``u = cos(w t) phi``, then ``v`` too; `exact` is that formula."""
    errors = []
    for grid in (17, 33):
        family = Wave(grid, dimension, sides)
        phi, square = np.ones(family.mesh.shape), 0.0
        for x, number, (side, _) in zip(family.mesh.points(), numbers, family.conditions, strict=True):
            phi, square = (
                phi * (np.sin if side == "dirichlet" else np.cos)(pi * number * x),
                square + (pi * number) ** 2,
            )
        omega = 1.3 * np.sqrt(square)
        speed = np.full(family.mesh.shape, 1.3)
        velocity = 0.4 * omega * phi
        sample = Sample({"speed": speed, "initial_displacement": phi, "initial_velocity": velocity})
        times = [0.0, 0.3, 0.8]
        truth = np.stack(
            [
                [
                    (np.cos(omega * t) + 0.4 * np.sin(omega * t)) * phi,
                    (0.4 * np.cos(omega * t) - np.sin(omega * t)) * omega * phi,
                ]
                for t in times
            ]
        )
        np.testing.assert_allclose(family.exact(sample, times), truth, atol=1e-11)
        states = family.evolve(family.initial(sample), times, sample)
        errors.append(np.max(np.abs(states - truth)))
    assert order(errors) == pytest.approx(2, abs=0.15)


def test_a_free_box_drifts():
    """The mode without a frequency: ``u = 2 + 3 t``."""
    family = Wave(9, 2, "neumann")
    ones = np.ones((9, 9))
    sample = Sample({"speed": ones, "initial_displacement": 2 * ones, "initial_velocity": 3 * ones})
    truth = np.stack([[(2 + 3 * t) * ones, 3 * ones] for t in (0.5, 1.0)])
    np.testing.assert_allclose(family.exact(sample, [0.5, 1.0]), truth, atol=1e-13)
    np.testing.assert_allclose(family.evolve(family.initial(sample), [0.5, 1.0], sample), truth, atol=1e-8)


# ----------------------------------------------------------------------------------------------------- travelling waves


def pulse(s, width=0.05):
    return np.exp(-(s**2) / (2 * width**2))


def slope(s, width=0.05):
    return -s / width**2 * pulse(s, width)


def test_dalembert_and_the_walls_that_send_back():
    """Two halves of a pulse; a held side turns the sign, a free one does not (image method)."""
    errors = []
    for grid in (201, 401):
        family = Wave(grid, 1, [("dirichlet", "neumann")])
        x = family.mesh.coordinates(0)
        sample = Sample({"speed": np.full(grid, 0.8), "initial_displacement": pulse(x - 0.45)})
        times = np.array([0.2, 0.9])
        travelled = 0.8 * times[:, None]
        truth = pulse(x - 0.45 - travelled) + pulse(x - 0.45 + travelled)
        truth += -pulse(x + 0.45 - travelled) + pulse(x - 1.55 + travelled)
        states = family.evolve(family.initial(sample), times, sample)
        errors.append(np.max(np.abs(states[:, 0] - truth / 2)))
    assert errors[-1] < 5e-3
    assert order(errors) == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize(("first", "second"), [(1.0, 0.6), (0.6, 1.2)])
def test_an_interface_reflects_and_transmits_what_it_should(first, second):
    """An incident wave ``f(t - x/c_1)``: reflected R f, transmitted (1 + R) f, R = (c_1 - c_2)/(c_1 + c_2)."""
    R = (first - second) / (first + second)
    errors, reflected, transmitted = [], [], []
    for grid in (300, 600):  # the interface half-way between two nodes
        family = Wave(grid, 1, "absorbing")
        x = family.mesh.coordinates(0)
        left = x < 0.5

        def truth(t, x=x, left=left):
            # with s = c_1 t + 0.25, the place of the crest were there no interface
            s = first * t + 0.25
            beyond = 0.5 + (x - 0.5) * first / second
            incident, back, through = x - s, 1 - x - s, beyond - s
            u = np.where(left, pulse(incident) + R * pulse(back), (1 + R) * pulse(through))
            v = -first * np.where(left, slope(incident) + R * slope(back), (1 + R) * slope(through))
            return np.stack([u, v])

        u, v = truth(0.0)
        speed = np.where(left, first, second)
        sample = Sample({"speed": speed, "initial_displacement": u, "initial_velocity": v})
        end = 0.45 / first
        states = family.evolve(family.initial(sample), [end], sample)[0]
        errors.append(np.max(np.abs(states - truth(end))[0]))
        reflected.append(states[0][left][np.argmax(np.abs(states[0][left]))])
        transmitted.append(states[0][~left].max())
    assert reflected[-1] == pytest.approx(R, abs=5e-3)
    assert transmitted[-1] == pytest.approx(1 + R, abs=5e-3)
    assert order(errors) == pytest.approx(2, abs=0.2)


def test_an_absorbing_side_sends_nothing_back_at_normal_incidence():
    left = []
    for grid in (101, 201):
        family = Wave(grid, 1, "absorbing")
        x = family.mesh.coordinates(0)
        sample = Sample({"speed": np.ones(grid), "initial_displacement": pulse(x - 0.5)})
        states = family.evolve(family.initial(sample), [0.0, 1.2], sample)
        energy = family.energy(states, sample)
        left.append(float(np.sqrt(energy[1] / energy[0])))
    assert left[-1] < 2e-3
    assert order(left) == pytest.approx(2, abs=0.25)


def test_an_absorbing_side_sends_back_what_theory_says_at_an_angle():
    """Across a free channel, mode 16: each wavenumber k of a packet meets the side at its own angle.

    cos w = k / |(k, 16 pi)| ; the energy that is left is the packet's, weighted with ((1 - cos w)/(1 + cos w))^2.
    """
    family = Wave((257, 129), 2, ["absorbing", "neumann"])
    across = 16 * pi
    long = 8 * (np.arange(2048) / 2048) - 4  # a line long enough for the packet's spectrum
    packet = np.exp(-((long - 0.45) ** 2) / (2 * 0.08**2)) * np.exp(1j * 50 * (long - 0.45))
    k = 2 * pi * np.fft.fftfreq(2048, 8 / 2048)
    omega = np.sqrt(k**2 + across**2)
    spectrum = np.fft.fft(packet)
    x, y = family.mesh.points()

    def on_grid(values):
        return np.interp(x, long, np.fft.ifft(values).real) * np.cos(across * y)

    fields = {"initial_displacement": on_grid(spectrum), "initial_velocity": on_grid(-1j * omega * spectrum)}
    sample = Sample({"speed": np.ones(family.mesh.shape), **fields})
    cosine = np.abs(k) / omega
    weight = np.abs(omega * spectrum) ** 2
    # What meets the far side comes back through the near one: only the first meeting has happened at this time.
    expected = np.sum(weight * ((1 - cosine) / (1 + cosine)) ** 2) / np.sum(weight)
    energy = family.energy(family.evolve(family.initial(sample), [0.0, 1.4], sample), sample)
    assert energy[1] / energy[0] == pytest.approx(expected, rel=0.1)


# --------------------------------------------------------------------------------------------------------------- energy


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_energy_stays_or_falls(dimension):
    grid = {1: 101, 2: 33, 3: 13}[dimension]
    kinds = {"dirichlet": "dirichlet", "mixed": [("dirichlet", "neumann")] * dimension}
    for start, sides in zip(("struck", "plucked"), kinds.values(), strict=True):
        family = Wave(grid, dimension, sides, start=start, pulse_width=0.1)
        sample = family.sample(seed())
        with counted() as work:
            states = family.evolve(family.initial(sample), family.times, sample)
        energy = family.conserved(states, sample)["energy"].density
        # A solve leaves 1e-12 of the right-hand side, twice that of the energy.
        np.testing.assert_allclose(energy, energy[0], rtol=2e-12 * work.steps)
        # With steps far too long for accuracy, too.
        states = family.evolve(family.initial(sample), [1.0, 2.0], sample, Implicit(step=0.5))
        np.testing.assert_allclose(family.energy(states, sample), energy[0], rtol=1e-8)
    family = Wave(grid, dimension, [("neumann", "absorbing")] * dimension, pulse_width=0.1)
    sample = family.sample(seed())
    step = family.longest_step(sample)
    states = family.evolve(family.initial(sample), step * np.arange(int(2 / step)), sample)
    energy = family.energy(states, sample)
    assert np.all(np.diff(energy) < 1e-9 * energy[0])
    assert energy[-1] < 0.9 * energy[0]
    assert family.conserved(states, sample) == {}
    quality = family.quality(sample, {"displacement": states[:, 0], "velocity": states[:, 1]})
    assert quality["energy_gain"] < 1e-9
    assert quality["energy_ratio"] == pytest.approx(energy[-1] / energy[0])


def test_energy_is_the_integral():
    """Of ``u = sin(pi x) sin(pi y), v = 2 u``, c = 1.5: 1/2 (4/4 + 2.25 * 2 pi^2 / 4)."""
    family = Wave(65, 2, "dirichlet")
    x, y = family.mesh.points()
    u = np.sin(pi * x) * np.sin(pi * y)
    sample = Sample({"speed": np.full((65, 65), 1.5), "initial_displacement": u})
    exact = 0.5 * (1 + 2.25 * pi**2 / 2)
    assert float(family.energy(np.stack([u, 2 * u]), sample)) == pytest.approx(exact, rel=1e-3)


# ------------------------------------------------------------------------------------------------- independent, samples


@pytest.mark.parametrize(
    "family",
    [
        Wave(33, pulse_width=0.08),
        Wave(81, 1, "neumann", "smooth"),
        Wave((13, 15, 17), 3, ["dirichlet", ("neumann", "absorbing"), "absorbing"], "smooth", pulse_width=0.1),
    ],
    ids=lambda family: f"{family.dimension}D",
)
def test_an_independent_integration_is_met_at_second_order(family):
    sample = family.sample(seed())
    times = [0.25, 0.5]
    A, start = wave_balance(family, sample)
    independent = np.stack([expm_multiply(A * t, start, traceA=float(A.trace()) * t) for t in times])
    independent = independent.reshape(2, 2, *family.mesh.shape)
    step = family.longest_step(sample) / 8  # the shortest waves of the grid are to be resolved
    errors = [
        np.max(np.abs(family.evolve(family.initial(sample), times, sample, Implicit(step=h)) - independent))
        for h in (step, step / 2)
    ]
    assert errors[-1] < 5e-3 * np.max(np.abs(independent))
    assert order(errors) == pytest.approx(2, abs=0.2)
    # The independent code takes the same steps as the family: nothing is between them but what the solves leave.
    same = family.evolve(family.initial(sample), times, sample)
    np.testing.assert_allclose(wave_states(family, sample, times), same, rtol=0, atol=1e-9 * np.max(np.abs(same)))


def test_layers_have_speeds_and_depths_in_their_ranges():
    family = Wave(401, 1, layers=5, speeds=(0.4, 2.0))
    for number in range(20):
        speed = family.sample(seed(number)).fields["speed"]
        changes = np.flatnonzero(np.diff(speed))
        assert len(changes) == 4
        assert 0.4 <= speed.min() <= speed.max() <= 2.0
        # A third of a fifth, but for half a node at either end.
        assert np.min(np.diff([-0.5, *changes + 0.5, 400.5])) / 400 >= 1 / 15 - 1 / 400
    smooth = Wave(33, medium="smooth", speeds=(0.4, 2.0)).sample(seed()).fields["speed"]
    assert 0.4 < smooth.min() < smooth.max() < 2.0


def test_interfaces_undulate_in_two_dimensions():
    speed = Wave(65, undulation=0.05, layers=2).sample(seed()).fields["speed"]
    depths = np.array([np.count_nonzero(column == column[0]) for column in speed.T]) / 64
    assert 0.005 < np.std(depths) < 0.15  # one path of a field with deviation 0.05, less its mean
    flat = Wave(65, undulation=0.0, layers=2).sample(seed()).fields["speed"]
    assert np.all(flat == flat[:, :1])


def test_all_resolutions_see_the_same_problem():
    coarse, fine = (Wave(grid, 1, pulses=2).sample(seed()) for grid in (65, 129))
    for name, values in coarse.fields.items():
        np.testing.assert_allclose(values, fine.fields[name][::2], rtol=0, atol=1e-14)


def test_a_medium_is_struck_or_plucked():
    struck, plucked = (Wave(33, start=start) for start in ("struck", "plucked"))
    first, second = (family.initial(family.sample(seed())) for family in (struck, plucked))
    np.testing.assert_array_equal(first[1], second[0])
    assert not np.any(first[0])
    assert not np.any(second[1])
    assert 0.9 < first[1].max() <= 1
    assert [f.name for f in struck.role("input")] == ["speed", "initial_velocity"]
    assert [f.name for f in plucked.role("input")] == ["speed", "initial_displacement"]


def test_held_sides_are_held():
    family = Wave(9, 2, "dirichlet")
    sample = Sample({"speed": np.ones((9, 9)), "initial_displacement": np.ones((9, 9))})
    states = family.evolve(family.initial(sample), [0.0, 0.3], sample)
    edge = np.ones((9, 9), dtype=bool)
    edge[1:-1, 1:-1] = False
    assert np.all(states[:, :, edge] == 0)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        (dict(grid=2), "grid must be at least 3"),
        (dict(sides="open"), "sides must be one of"),
        (dict(sides=["neumann"]), "sides must be one of"),
        (dict(sides=[("neumann", "neumann", "neumann"), "neumann"]), "sides must be one of"),
        (dict(medium="marble"), "medium must be layered or smooth"),
        (dict(speeds=(0.0, 1.0)), "speeds must be the lowest and the highest"),
        (dict(layers=0), "layers must be an integer"),
        (dict(pulse_width=0.2), "pulse_width must be at most 0.125"),
        (dict(undulation=-1.0), "undulation must be finite and not negative"),
        (dict(courant=np.inf), "courant must be positive and finite"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(parameters, sentence):
    with pytest.raises(ValueError, match=sentence):
        Wave(**parameters)


def test_samples_that_do_not_fit_are_refused():
    family = Wave(9, 2, "neumann")
    sample = Wave(9).sample(seed())
    start = family.initial(sample)
    with pytest.raises(ValueError, match="field 'speed' must be positive everywhere"):
        family.evolve(start, [0.1], Sample({"speed": np.zeros((9, 9))}))
    with pytest.raises(ValueError, match=r"state must have the shape \(2, 9, 9\)"):
        family.evolve(start[:1], [0.1], sample)
    with pytest.raises(ValueError, match="exact solution for constant speed"):
        family.exact(sample, [0.1])
    with pytest.raises(ValueError, match="conserved needs the sample"):
        family.conserved(start)
    with pytest.raises(ValueError, match="lacks 'initial_displacement' and 'initial_velocity'"):
        family.initial(Sample({"speed": np.ones((9, 9))}))
    with pytest.raises(ValueError, match="'initial_displacement' must have the grid's shape"):
        family.initial(Sample({"initial_displacement": np.zeros(9)}))
