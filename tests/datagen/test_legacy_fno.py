"""The published Darcy script's scheme: its interpolations, its scheme, and what is wrong with it."""

import numpy as np
import pytest
import scipy.sparse.linalg as sparse_linalg
from scipy.interpolate import RectBivariateSpline

from datagen.family import Sample, build
from datagen.legacy_fno import darcy_system


def pressure(family, coefficient):
    system = family.system(Sample({"coefficient": coefficient}))
    return system.to_field(sparse_linalg.spsolve(system.A.tocsr().tocsc(), system.b))


def transcribed(a_cells, a_at_nodes):
    """The script step by step on (K-2)^2 unknowns, entry by entry; u on the cells by FITPACK's spline."""
    K = len(a_cells)
    A = np.zeros(((K - 2) ** 2, (K - 2) ** 2))
    for i in range(1, K - 1):
        for j in range(1, K - 1):
            row = (i - 1) * (K - 2) + j - 1
            for p, q in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                face = (a_at_nodes[i, j] + a_at_nodes[p, q]) / 2 * (K - 1) ** 2
                A[row, row] += face
                if 0 < p < K - 1 and 0 < q < K - 1:
                    A[row, (p - 1) * (K - 2) + q - 1] -= face
    nodes, cells = np.linspace(0, 1, K), (np.arange(K) + 0.5) / K
    u = np.zeros((K, K))
    u[1:-1, 1:-1] = np.linalg.solve(A, np.ones(len(A))).reshape(K - 2, K - 2)
    return RectBivariateSpline(nodes, nodes, u, kx=3, ky=3, s=0)(cells, cells)


def test_the_scheme_of_the_script_with_an_independent_spline():
    """A cubic coefficient, which not-a-knot splines reproduce wherever they are evaluated, ends included."""
    K = 14

    def a(x, y):
        return 2 + x**3 - y**2 * x + y**3

    nodes, cells = np.linspace(0, 1, K), (np.arange(K) + 0.5) / K
    a_cells, a_nodes = a(cells[:, None], cells), a(nodes[:, None], nodes)
    found = pressure(build("darcy", grid=K, legacy_fno=True), a_cells)
    np.testing.assert_allclose(found, transcribed(a_cells, a_nodes), rtol=1e-10)
    # Arithmetic averages, not harmonic ones: those differ by (a')^2 h^2 / a, here 1e-3.
    assert abs(found - pressure(build("darcy", grid=K), a_cells)).max() > 1e-5


def test_for_a_smooth_coefficient_it_converges_with_second_order_to_what_finite_volumes_do():
    differences = []
    for n in (24, 48, 96):
        old, new = build("darcy", grid=n, legacy_fno=True), build("darcy", grid=n)
        x, y = new.mesh.points()
        a = np.exp(np.sin(3 * x) * np.cos(2 * y))
        differences.append(np.sqrt(np.mean((pressure(old, a) - pressure(new, a)) ** 2)))
    assert 1.9 <= np.log2(differences[1] / differences[2]) <= 2.1, differences


def test_some_published_labels_are_negative_and_none_of_ours():
    """Of 200 draws on 16 x 16 15 % had one; of 60 draws none would with probability 6e-5."""
    old, new = build("darcy", grid=16, legacy_fno=True), build("darcy", grid=16)
    negative = []
    for seed in range(60):
        a = new.sample(np.random.default_rng(seed)).fields["coefficient"]
        negative.append(pressure(old, a).min() < 0)
        assert pressure(new, a).min() > 0
    assert any(negative)


def test_vectors_and_fields_are_inverse():
    system = darcy_system(np.ones((30, 30)), 1.0)
    x = np.random.default_rng(81).standard_normal(28 * 28)
    # The inverse interpolation has condition 10 per axis.
    np.testing.assert_allclose(system.to_vector(system.to_field(x)), x, atol=1e-12)


@pytest.mark.parametrize("parameters", [{"dimension": 3, "grid": 8}, {"grid": (8, 9)}, {"grid": 3}])
def test_grids_that_the_script_does_not_know_are_refused(parameters):
    with pytest.raises(ValueError, match="legacy_fno needs two dimensions"):
        build("darcy", legacy_fno=True, **parameters)


def test_the_lognormal_coefficient_of_the_script_has_the_standard_deviation_of_the_docstring():
    """Its field is tau^(alpha - 1) sum over (j, k) != 0 of (pi^2 (j^2 + k^2) + tau^2)^(-alpha / 2) xi phi."""
    j = np.arange(1500.0)
    squares = np.pi**2 * (j[:, None] ** 2 + j**2) + 9
    variance = 9 * ((squares**-2.0).sum() - 9.0**-2)
    assert np.sqrt(variance) == pytest.approx(0.2921, abs=5e-5)
    field = build("darcy", coefficient="lognormal", log_standard_deviation=0.2921)._field()
    assert field.sigma == pytest.approx(3.0, rel=1e-3)
