"""Tours through parameters: greedy by definition, along a true Hilbert curve, and never longer than the given order."""

import tracemalloc
from itertools import permutations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from solvers import ordering
from solvers.ordering import order, tour_length

CDIST = {"euclidean": "euclidean", "manhattan": "cityblock", "chebyshev": "chebyshev"}


def cities(n, seed, shape=(3, 4)):
    return np.random.default_rng(seed).standard_normal((n, *shape))


def by_definition(D):
    tour = [0]
    while len(tour) < len(D):
        left = [j for j in range(len(D)) if j not in tour]
        tour.append(min(left, key=lambda j: D[tour[-1], j]))
    return np.array(tour)


@pytest.mark.parametrize("distance", CDIST)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int64])
@pytest.mark.parametrize("shape", [(), (1,), (3, 4), (5, 7)])
def test_greedy_by_definition(distance, dtype, shape):
    X = (10 * cities(60, 0, shape)).astype(dtype)
    D = cdist(X.reshape(60, -1).astype(float), X.reshape(60, -1).astype(float), CDIST[distance])
    # With whole numbers the nearest is not unique; the first one counts for both.
    np.testing.assert_array_equal(order(X, distance), by_definition(D.astype(np.float32)))


@pytest.mark.parametrize("distance", CDIST)
def test_distances_of_several_arrays_are_added(distance):
    """As the published Helmholtz order has it: the field's norm plus the wavenumber's difference."""
    fields, numbers = cities(50, 1), 3 * np.random.default_rng(2).random(50)
    D = cdist(fields.reshape(50, -1), fields.reshape(50, -1), CDIST[distance]) + np.abs(numbers[:, None] - numbers)
    tour = order((fields, numbers), distance)
    np.testing.assert_array_equal(tour, by_definition(D))
    assert tour_length((fields, numbers), tour, distance) == pytest.approx(D[tour[:-1], tour[1:]].sum(), rel=1e-12)


def test_near_neighbours_far_from_the_origin_are_told_apart():
    """|x|^2 + |y|^2 - 2 x'y of numbers near 1e6 would leave no digit of distances near 1e-2."""
    X = 1e6 + 1e-2 * cities(40, 3, (50,))
    exact = by_definition(cdist(X, X))
    np.testing.assert_array_equal(order(X), exact)


@pytest.mark.parametrize("width", [16, 33, 700])
def test_distance_matrix_of_more_rows_than_a_tile(width):
    X = cities(1100, 4, (width,))
    for distance, name in CDIST.items():
        D = ordering._distances([X], np.arange(1100), distance)
        # Single precision; and a distance of zero is the root of a few roundings of |x|^2, which is 700.
        np.testing.assert_allclose(D, cdist(X, X, name), rtol=1e-6, atol=1e-5)


def test_blocks_of_columns_give_the_same(monkeypatch):
    X = cities(30, 5, (200,))
    whole = ordering._squared_distances(X)
    monkeypatch.setattr(ordering, "_BLOCK", 30)
    np.testing.assert_allclose(ordering._squared_distances(X), whole, rtol=1e-5, atol=1e-5)


def test_never_longer_than_the_given_order():
    assert list(order(np.array([0.0, -1.1, 1.0, 3.0]))) == [0, 1, 2, 3]  # greedy: 0, 1, 3, -1.1
    for seed in range(40):
        walk = np.cumsum(np.random.default_rng(seed).standard_normal((30, 2)), axis=0)
        tour = order(walk)
        assert sorted(tour) == list(range(30))
        assert tour_length(walk, tour) <= tour_length(walk)


@pytest.mark.parametrize("distance", CDIST)
def test_within_the_theorem_of_the_shortest_tour(distance):
    """Rosenkrantz, Stearns and Lewis (1977): closed tours, so that of 7 cities at most (ceil(log2 7) + 1) / 2 = 2."""
    X = cities(7, 6, (2,))
    D = cdist(X, X, CDIST[distance])
    best = min(sum(D[a, b] for a, b in zip((0, *p), (*p, 0), strict=True)) for p in permutations(range(1, 7)))
    assert tour_length(X, order(X, distance), distance) <= 2 * best


@pytest.mark.parametrize(("axes", "bits"), [(1, 5), (2, 1), (2, 5), (3, 3), (4, 3), (5, 2)])
def test_hilbert_visits_every_point_and_never_jumps(axes, bits):
    points = np.indices((2**bits,) * axes).reshape(axes, -1)
    place = ordering._hilbert(points, bits)
    np.testing.assert_array_equal(np.sort(place), np.arange(points.shape[1]))
    along = points[:, np.argsort(place)]
    np.testing.assert_array_equal(np.abs(np.diff(along, axis=1)).sum(axis=0), 1)


@pytest.mark.parametrize("grid", [(300,), (20, 23), (9, 10, 11)])
def test_features_keep_distances_of_smooth_fields(grid):
    """Parseval: for fields of the lowest wavenumbers the reduced distance is the true one; otherwise it is less."""
    rng = np.random.default_rng(7)
    x = np.stack(np.meshgrid(*[2 * np.pi * np.arange(m) / m for m in grid], indexing="ij"))
    smooth = np.zeros((6, *grid))
    for field in smooth:
        for _ in range(5):
            k = rng.integers(-2, 3, size=len(grid))
            field += rng.standard_normal() * np.cos(np.tensordot(k, x, axes=1) + rng.random())
    reduced = ordering._features(smooth.astype(np.float64))
    assert reduced.shape[1] < smooth[0].size
    flat = smooth.reshape(6, -1)
    np.testing.assert_allclose(cdist(reduced, reduced), cdist(flat, flat), rtol=1e-10, atol=1e-10)
    rough = ordering._features(smooth + rng.standard_normal(smooth.shape))
    noisy = ordering._features(rng.standard_normal((6, *grid)))
    assert np.isfinite(rough).all()
    assert np.all(np.linalg.norm(noisy, axis=1) < np.sqrt(np.prod(grid)))


@pytest.fixture
def _many_from_500(monkeypatch):
    monkeypatch.setattr(ordering, "_ALL_PAIRS", 500)
    monkeypatch.setattr(ordering, "_CELL", 100)
    monkeypatch.setattr(ordering, "_BLOCK", 20_000)


@pytest.mark.usefixtures("_many_from_500")
@pytest.mark.parametrize("distance", CDIST)
def test_many_points_of_a_square(distance):
    """The greedy tour of all pairs is what the cells approximate."""
    X = np.random.default_rng(8).random((2000, 2))
    tour = order(X, distance)
    assert sorted(tour) == list(range(2000))
    np.testing.assert_array_equal(tour, order(X.copy(), distance))
    D = ordering._distances([X], np.arange(2000), distance)
    greedy = tour_length(X, ordering._greedy(D), distance)
    assert tour_length(X, tour, distance) <= 1.2 * greedy  # an end of each of 20 cells is lost
    assert tour_length(X, tour, distance) < 0.05 * tour_length(X, None, distance)


@pytest.mark.usefixtures("_many_from_500")
def test_a_drifting_sequence_that_was_shuffled_is_found_again():
    rng = np.random.default_rng(9)
    modes = np.cos(np.pi * np.outer(np.arange(24) / 24, np.arange(4)))
    xi, fields = rng.standard_normal((4, 4)), []
    for _ in range(1500):
        fields.append(modes @ xi @ modes.T)
        xi = np.sqrt(1 - 0.05**2) * xi + 0.05 * rng.standard_normal((4, 4))
    fields = np.array(fields, dtype=np.float32)
    shuffled = rng.permutation(1500)
    tour = order(fields[shuffled])
    assert tour_length(fields[shuffled], tour) < 2 * tour_length(fields)
    assert tour_length(fields[shuffled], tour) < 0.15 * tour_length(fields[shuffled])
    np.testing.assert_array_equal(order(fields), order(fields))
    assert tour_length(fields, order(fields)) <= tour_length(fields)


@pytest.mark.usefixtures("_many_from_500")
def test_reads_a_memory_map_in_blocks(tmp_path):
    fields = np.lib.format.open_memmap(tmp_path / "fields.npy", mode="w+", dtype=np.float32, shape=(1200, 64, 64))
    fields[:] = np.random.default_rng(10).standard_normal(fields.shape, dtype=np.float32)
    order(fields[:600])  # compiles
    tracemalloc.start()
    try:
        tour = order(fields)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sorted(tour) == list(range(1200))
    assert peak < fields.nbytes / 2


def test_equal_and_few_systems():
    np.testing.assert_array_equal(order(np.zeros((5, 3, 3))), np.arange(5))
    np.testing.assert_array_equal(order(np.zeros((1, 3))), [0])
    assert tour_length(np.zeros((1, 3))) == 0.0


@pytest.mark.usefixtures("_many_from_500")
def test_many_equal_systems():
    np.testing.assert_array_equal(order(np.ones((700, 20, 20))), np.arange(700))


def test_arguments():
    with pytest.raises(ValueError, match="expected 'euclidean', 'manhattan' or 'chebyshev', got 'cosine'"):
        order(np.zeros((3, 2)), "cosine")
    with pytest.raises(ValueError, match="system in each row"):
        order(np.zeros((0, 2)))
    with pytest.raises(ValueError, match="the first in system 1"):
        order(np.array([[1.0], [np.nan], [np.inf]]))
    with pytest.raises(ValueError, match=r"parameters\[1\]: expected 3 systems"):
        order((np.zeros((3, 2)), np.zeros(4)))
    with pytest.raises(ValueError, match="empty tuple"):
        order(())
    with pytest.raises(TypeError, match="expected real numbers"):
        order(np.zeros(3) * 1j)
    with pytest.raises(ValueError, match="permutation: expected each of 0 to 2 once"):
        tour_length(np.zeros(3), [0, 1, 1])
