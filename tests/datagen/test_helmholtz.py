"""The Helmholtz family: resonances, plane waves, manufactured waves."""

import numpy as np
import pytest
import scipy.sparse.linalg as sparse_linalg

from datagen.family import Sample, build


def waves(family, k, source):
    """u for a real or complex source: the family's is real, the problem linear."""
    if np.iscomplexobj(source):
        return waves(family, k, source.real) + 1j * waves(family, k, source.imag)
    system = family.system(Sample({"wavenumber": k, "source": source}))
    field = system.to_field(sparse_linalg.spsolve(system.A.tocsr().tocsc(), system.b))
    return field if family.condition == "dirichlet" else field[0] + 1j * field[1]


def order(errors):
    return np.log2(errors[-2] / errors[-1])


@pytest.mark.parametrize(("dimension", "sizes"), [(1, (40, 80, 160)), (2, (24, 48, 96)), (3, (12, 24))])
def test_second_order_in_a_varying_medium_with_dirichlet_sides(dimension, sizes):
    """u = prod sin(pi x), k^2 = 60 (1 + x / 2): beyond the first resonance pi^2 d."""
    errors = []
    for n in sizes:
        family = build("helmholtz", grid=n, dimension=dimension, wavenumber=8.0)
        x = family.mesh.points()
        u, k_squared = np.prod(np.sin(np.pi * np.array(x)), axis=0), 60 * (1 + x[0] / 2)
        found = waves(family, np.sqrt(k_squared), (dimension * np.pi**2 - k_squared) * u)
        errors.append(np.sqrt(np.mean((found - u) ** 2)))
    assert 1.9 <= order(errors) <= 2.1, errors


@pytest.mark.parametrize(("dimension", "sizes"), [(1, (80, 160)), (2, (32, 64, 128)), (3, (12, 24))])
def test_second_order_in_a_varying_medium_with_impedance_sides(dimension, sizes):
    """u = exp(i phi), phi = K sum(x^2 - x): d phi/dn = K on every side, where k = K; inside k is larger.

    f = (|grad phi|^2 - i div grad phi - k^2) u. The normal derivative of k on the sides is not zero, so that taking k
    there from the cell would cost an order.
    """
    K, errors = 6.0, []
    for n in sizes:
        family = build("helmholtz", grid=n, dimension=dimension, condition="impedance", wavenumber=K)
        x = np.array(family.mesh.points())
        u = np.exp(1j * K * np.sum(x**2 - x, axis=0))
        k = K * (1 + 0.3 * np.prod(np.sin(np.pi * x), axis=0))
        f = (K**2 * np.sum((2 * x - 1) ** 2, axis=0) - 2j * K * dimension - k**2) * u
        errors.append(np.sqrt(np.mean(abs(waves(family, k, f) - u) ** 2)))
    assert 1.9 <= order(errors) <= 2.1, errors


def test_a_pulse_radiates_as_on_the_whole_line():
    """In one dimension the impedance condition is exact: u = integral of i/(2k) exp(i k |x - s|) f(s) ds."""
    k, errors = 25.0, []
    for n in (100, 200, 400):
        family = build("helmholtz", grid=n, dimension=1, condition="impedance", wavenumber=k)
        s = (np.arange(20000) + 0.5) / 20000
        x = family.mesh.coordinates(0)

        def bump(s):  # at the ends e^-98: nothing
            return np.exp(-(((s - 0.5) / 0.05) ** 2))

        exact = 1j / (2 * k) * np.exp(1j * k * abs(x[:, None] - s)) @ bump(s) / s.size
        errors.append(np.sqrt(np.mean(abs(waves(family, np.full(n, k), bump(x)) - exact) ** 2)))
    assert 1.9 <= order(errors) <= 2.1, errors


def test_waves_of_the_grid_are_too_short_by_what_the_docstring_says():
    n, k = 200, 30.0
    family = build("helmholtz", grid=n, dimension=1, condition="impedance", wavenumber=k)
    source = np.zeros(n)
    source[20] = 1.0
    u = waves(family, np.full(n, k), source)
    # To the right of the source there is one wave going right, but for reflections of relative size (k h)^2 / 16.
    phase = np.unwrap(np.angle(u[30:]))
    kh = k / n
    advance = (phase[-1] - phase[0]) / (phase.size - 1)
    assert advance / kh - 1 == pytest.approx(kh**2 / 24, rel=0.1)


def test_resonances_are_where_they_should_be():
    """(m^2 + n^2) pi^2 of the Laplacian: k just below and above the first gives solutions of opposite sign."""
    family = build("helmholtz", grid=32, wavenumber=5.0)
    ones = np.ones((32, 32))
    low, high = (waves(family, np.sqrt(2 * np.pi**2 * factor) * ones, ones) for factor in (0.9, 1.1))
    assert low.min() > 0 > high.max()


def test_impedance_sides_only_let_energy_out():
    family = build("helmholtz", grid=(14, 11, 12), dimension=3, condition="impedance", wavenumber=8.0)
    A = family.system(family.sample(np.random.default_rng(51))).A.tocsr().toarray()
    np.testing.assert_array_equal(A, A.T)
    lost = np.diag(A.imag).reshape(14, 11, 12)
    np.testing.assert_array_equal(A.imag, np.diag(lost.ravel()))
    assert np.all(lost[1:-1, 1:-1, 1:-1] == 0)
    assert np.all(lost[0] < 0)


def test_what_is_drawn():
    family = build("helmholtz", grid=48, source_width=0.04)
    rng = np.random.default_rng(52)
    samples = [family.sample(rng) for _ in range(200)]
    x, y = family.mesh.points()
    logarithms = []
    for sample in samples:
        f = sample.fields["source"]
        assert f.mean() == pytest.approx(1.0, rel=1e-6)  # the trapezoidal rule on a bump that ends inside is exact
        centre = (f * x).mean(), (f * y).mean()
        assert all(0.25 <= c <= 0.75 for c in centre)
        assert (f * (x - centre[0]) ** 2).mean() == pytest.approx(0.04**2, rel=1e-3)
        logarithms.append(np.log(sample.fields["wavenumber"] / family.wavenumber))
    # About 3 modes of the smooth field count: the variance of 200 has relative error sqrt(2 / 600) = 6 %, twice s's.
    assert np.std(logarithms) == pytest.approx(0.2, rel=0.1)
    assert family.fields[2].name == "wave"
    assert [f.name for f in build("helmholtz", condition="impedance").role("output")] == ["wave_real", "wave_imaginary"]


def test_vectors_and_fields_are_inverse():
    family = build("helmholtz", grid=24, condition="impedance")
    system = family.system(family.sample(np.random.default_rng(53)))
    x = np.exp(1j * np.arange(576.0))
    np.testing.assert_array_equal(system.to_vector(system.to_field(x)), x)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"dimension": 0}, "dimension must be 1, 2 or 3"),
        ({"condition": "neumann"}, "dirichlet or impedance"),
        ({"wavenumber": -1.0}, "wavenumber must be positive"),
        ({"wavenumber": 90.0}, "needs a grid of at least 86 cells"),
        ({"source_width": float("nan")}, "source_width"),
        ({"alpha": 0.9}, "alpha"),
    ],
)
def test_bad_parameters_are_refused(parameters, words):
    with pytest.raises(ValueError, match=words):
        build("helmholtz", **parameters)
