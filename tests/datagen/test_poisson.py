"""The Poisson family: what it draws, and that its solutions are solutions."""

import numpy as np
import pytest
import scipy.sparse.linalg as sparse_linalg
from numpy.polynomial import chebyshev

from datagen.family import Sample, build


def potential(family, sample):
    system = family.system(sample)
    return system.to_field(sparse_linalg.spsolve(system.A.tocsr().tocsc(), system.b))


def test_second_order_with_own_arrays_and_a_varying_coefficient():
    """u = sin(2x + y), a = exp(x y): -div(a grad u) = a (5 sin(2x + y) - (2y + x) cos(2x + y))."""
    errors = []
    for n in (17, 33, 65):
        family = build("poisson", grid=(n, 2 * n - 1), coefficient="lognormal")
        x, y = family.mesh.points()
        u, a = np.sin(2 * x + y), np.exp(x * y)
        f = a * (5 * u - (2 * y + x) * np.cos(2 * x + y))
        found = potential(family, Sample({"coefficient": a, "source": f, "boundary_value": u}))
        np.testing.assert_array_equal(found[0], u[0])
        errors.append(np.sqrt(np.mean((found - u) ** 2)))
    assert 1.9 <= np.log2(errors[1] / errors[2]) <= 2.1, errors


def test_chebyshev_coefficients_are_uniform_and_functions_of_x_alone():
    family = build("poisson", grid=12)
    rng = np.random.default_rng(41)
    samples = [family.sample(rng) for _ in range(300)]
    x = family.mesh.coordinates(0)
    rows = []
    for sample in samples:
        f, g = sample.fields["source"], sample.fields["boundary_value"]
        assert np.all(f == f[:, :1])
        for vertical in (g[0, 1:-1], g[-1, 1:-1]):
            assert np.all(vertical == vertical[0])
        assert not np.any(g[1:-1, 1:-1])
        rows += [f[:, 0]]
        # The corners of g are means; the series has 6 terms, the 10 inner values leave no doubt.
        for horizontal in (g[1:-1, 0], g[1:-1, -1]):
            fit, residues = chebyshev.chebfit(2 * x[1:-1] - 1, horizontal, 5, full=True)
            assert residues[0][0] < 1e-20
            assert np.all(abs(fit) <= 1 + 1e-9)
        # Where two sides meet there is their mean; fit is that of the upper side.
        for end, corner in ((-1, g[0, -1]), (1, g[-1, -1])):
            assert corner == pytest.approx((chebyshev.chebval(end, fit) + g[0 if end < 0 else -1, 5]) / 2)
    coefficients = chebyshev.chebfit(2 * x - 1, np.array(rows).T, 5)
    assert np.all(abs(coefficients) <= 1 + 1e-12)
    # U(-1, 1) has variance 1/3; the mean of 1800 squares, of variance 4/45, is off by 0.007: four of those.
    assert (coefficients**2).mean() == pytest.approx(1 / 3, abs=0.028)
    # Their mean is off by sqrt(1/3 / 1800) = 0.0136; four of those.
    assert abs(coefficients.mean()) < 0.055


def test_sides_of_a_square_are_series_in_their_own_variable():
    family = build("poisson", grid=12, variables="all")
    rng = np.random.default_rng(47)
    inner = 2 * family.mesh.coordinates(0)[1:-1] - 1
    fits = []
    for _ in range(100):
        g = family.sample(rng).fields["boundary_value"]
        for side in (g[0], g[-1], g[:, 0], g[:, -1]):
            fits.append(chebyshev.chebfit(inner, side[1:-1], 5))
    assert np.all(np.abs(fits) <= 1 + 1e-9)
    # 2400 of them: as above, four times sqrt(4 / 45 / 2400).
    assert np.square(fits).mean() == pytest.approx(1 / 3, abs=0.025)


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_products_of_polynomials_in_all_variables(dimension):
    family = build("poisson", grid=9, dimension=dimension, variables="all", terms=3)
    sample = family.sample(np.random.default_rng(42))
    f, g = sample.fields["source"], sample.fields["boundary_value"]
    for axis in range(dimension):
        # Third differences of polynomials of degree 2 vanish, along every axis; second ones do not.
        assert abs(np.diff(f, 3, axis=axis)).max() < 1e-12
        assert abs(np.diff(f, 2, axis=axis)).min() > 1e-6
        side = np.take(g, 0, axis=axis)[(slice(1, -1),) * (dimension - 1)]
        assert np.ptp(side) > 0 or dimension == 1
        for along in range(dimension - 1):
            assert abs(np.diff(side, 3, axis=along)).max() < 1e-12


def test_every_resolution_sees_the_same_functions():
    for variables in ("first", "all"):
        coarse, fine = (
            build("poisson", grid=n, variables=variables, coefficient="lognormal").sample(np.random.default_rng(43))
            for n in (33, 65)
        )
        for name in ("source", "boundary_value"):
            every_other = fine.fields[name][::2, ::2]
            np.testing.assert_allclose(coarse.fields[name], every_other, atol=1e-13)
        # The coefficient's cut-off modes differ: those beyond 33 carry little of log a.
        assert abs(np.log(coarse.fields["coefficient"] / fine.fields["coefficient"][::2, ::2])).mean() < 0.03


def test_the_published_set_spans_20_dimensions():
    """6 of f, 6 of each horizontal side, a constant on each vertical one: recycling.md's count, and the docstring's."""
    family = build("poisson", grid=17)
    rng = np.random.default_rng(44)
    interior = np.array([potential(family, family.sample(rng))[1:-1, 1:-1].ravel() for _ in range(40)])
    singular = np.linalg.svd(interior, compute_uv=False)
    assert singular[19] > 1e-8 * singular[0] > 1e4 * singular[20]


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_without_a_source_extremes_lie_on_the_boundary(dimension):
    family = build("poisson", grid=9, dimension=dimension, coefficient="lognormal", variables="all")
    sample = family.sample(np.random.default_rng(45))
    g = sample.fields["boundary_value"]
    quiet = Sample({**sample.fields, "source": np.zeros_like(g)})
    u = potential(family, quiet)
    inner = u[(slice(1, -1),) * dimension]
    assert g.min() <= inner.min() <= inner.max() <= g.max()
    # Doubling a leaves u, doubling g doubles it.
    same = potential(family, Sample({**quiet.fields, "coefficient": 2 * sample.fields["coefficient"]}))
    np.testing.assert_allclose(same, u, atol=1e-12)
    np.testing.assert_allclose(potential(family, Sample({**quiet.fields, "boundary_value": 2 * g})), 2 * u, atol=1e-12)


def test_vectors_and_fields_are_inverse():
    family = build("poisson", grid=(5, 7))
    system = family.system(family.sample(np.random.default_rng(46)))
    x = np.arange(15.0)
    np.testing.assert_array_equal(system.to_vector(system.to_field(x)), x)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"dimension": 4}, "dimension must be 1, 2 or 3"),
        ({"grid": 2}, "at least 3"),
        ({"coefficient": "binary"}, "constant or lognormal"),
        ({"variables": "second"}, "first or all"),
        ({"terms": 0}, "terms must be from 1 to 100"),
        ({"log_standard_deviation": 0.0}, "log_standard_deviation"),
        ({"alpha": 1.0}, "alpha"),
    ],
)
def test_bad_parameters_are_refused(parameters, words):
    with pytest.raises(ValueError, match=words):
        build("poisson", **parameters)


def test_own_arrays_are_looked_at():
    family = build("poisson", grid=5)
    good = {"source": np.zeros((5, 5)), "boundary_value": np.zeros((5, 5))}
    for change, words in (
        ({"source": np.zeros((5, 4))}, r"'source' must have the grid's shape \(5, 5\), got \(5, 4\)"),
        ({"boundary_value": np.full((5, 5), np.nan)}, "'boundary_value' must be finite"),
    ):
        with pytest.raises(ValueError, match=words):
            family.system(Sample({**good, **change}))
    with pytest.raises(ValueError, match="lacks field 'boundary_value', it has source"):
        family.system(Sample({"source": good["source"]}))
