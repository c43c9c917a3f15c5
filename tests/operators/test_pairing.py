"""Which frames make pairs: counts that are known, and every chain once."""

from itertools import product

import numpy as np
import pytest

from operators.tasks.pairing import Pairing


@pytest.mark.parametrize(
    ("frames", "arguments", "count"),
    [
        (21, {"stride": 2}, 66),  # Poseidon's pretraining: 11 snapshots
        (21, {"stride": 2, "frames": 8}, 36),  # Poseidon's fine-tuning: 8 snapshots
        (21, {}, 231),
        (11, {"transitions": [1]}, 10),
        (11, {"transitions": [0, 1]}, 21),
        (11, {"kind": "one_step"}, 10),
        (11, {"kind": "from_initial"}, 10),
        (11, {"kind": "from_initial", "start": 4}, 6),
        (11, {"kind": "from_initial", "transitions": [10, 3]}, 2),
        (11, {"kind": "one_step", "steps": 4}, 7),
        (11, {"steps": 5}, 6 + 1),  # d = 1 from 0 ... 5, d = 2 from 0
        (2, {}, 3),
    ],
)
def test_counts(frames, arguments, count):
    assert len(Pairing(range(frames), **arguments).chains) == count


@pytest.mark.parametrize("count", [2, 5, 11, 51])
def test_all2all_has_every_pair_once(count):
    pairs = [tuple(pair) for pair in Pairing(range(count)).chains.tolist()]
    assert pairs == [(i, j) for i, j in product(range(count), repeat=2) if i <= j]
    assert len(pairs) == count * (count + 1) // 2


def test_chains_are_equal_steps_within_the_snapshots():
    pairing = Pairing(np.linspace(0, 3, 25), "all2all", stride=3, frames=7, transitions=[1, 2, 3], steps=3)
    chains = pairing.chains
    assert np.ptp(np.diff(chains, axis=1), axis=1).max() == 0
    assert set(chains.flat) <= set(pairing.snapshots.tolist()) == {0, 3, 6, 9, 12, 15, 18}
    expected = [(i, d) for i in range(7) for d in (1, 2, 3) if i + 3 * d < 7]
    assert [(c[0] // 3, (c[1] - c[0]) // 3) for c in chains] == expected
    np.testing.assert_allclose(pairing.lead_times, [3 / 24 * 3 * d for _, d in expected])
    assert pairing.spacing == pytest.approx(3 / 8)


def test_uneven_times_have_their_own_lead_times():
    pairing = Pairing([0.0, 0.1, 0.4, 1.0], "one_step")
    np.testing.assert_allclose(pairing.lead_times, [0.1, 0.3, 0.6])
    assert not pairing.even
    with pytest.raises(ValueError, match="evenly spaced"):
        Pairing([0.0, 0.1, 0.4, 1.0], "one_step", steps=2)
    # Times stored in single precision are evenly spaced still.
    assert Pairing(np.linspace(0, 50, 51).astype(np.float32), steps=2).even


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"kind": "all_to_all"}, "unknown pairing 'all_to_all'. Did you mean 'all2all'"),
        ({"stride": 0}, "stride and steps must be at least 1"),
        ({"steps": 0}, "stride and steps must be at least 1"),
        ({"frames": 6}, "from 2 to the 5 snapshots"),
        ({"frames": 1}, "from 2 to the 5 snapshots"),
        ({"stride": 2, "frames": 4}, "from 2 to the 3 snapshots"),
        ({"start": 1}, "start=1 is for pairing from_initial"),
        ({"kind": "from_initial", "start": -1}, "no chain"),
        ({"kind": "from_initial", "start": 4}, "no chain"),
        ({"transitions": [7]}, "no chain of 1 steps is left of 5 snapshots"),
        ({"transitions": []}, "transitions must be"),
        ({"transitions": [-1]}, "transitions must be"),
        ({"kind": "one_step", "transitions": [2]}, "one_step has its own"),
        ({"steps": 5}, "no chain of 5 steps"),
        ({"stride": 5}, "no pair is left of 5 frames with stride 5"),
    ],
)
def test_what_does_not_fit_is_a_sentence(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        Pairing(range(5), **arguments)
