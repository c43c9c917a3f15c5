"""The thermal plate: bounds, a second discretisation, and heat that is neither made nor lost."""

import numpy as np
import pytest
import scipy.sparse as sparse
import scipy.sparse.linalg as sparse_linalg

from datagen.family import Sample, build


def temperature(family, sample):
    system = family.system(sample)
    return system.to_field(sparse_linalg.spsolve(system.A.tocsr().tocsc(), system.b))


def one_degree(family):
    """Conductivity 1, 0 degrees on the left, 1 on the right."""
    edges = np.zeros(family.mesh.shape)
    edges[-1] = 1.0
    return Sample({"conductivity": family.plate.astype(float), "edge_temperature": edges})


def conductance(family):
    sample = one_degree(family)
    return family.quality(sample, {"temperature": temperature(family, sample)})["heat_flow"]


def energy_of_linear_elements(family):
    """Energy of piecewise linear finite elements on the cells of the plate, halved along a diagonal.

    It is the conductance from above (Dirichlet's principle). Each right triangle couples the ends of its legs with 1/2,
    whatever their equal length; the angle opposite the diagonal is right, so the diagonal itself couples nothing.
    """
    cells = family.plate
    node = np.arange((cells.shape[0] + 1) * (cells.shape[1] + 1)).reshape(cells.shape[0] + 1, -1)
    i, j = np.nonzero(cells)
    legs = [(node[i, j], node[i + 1, j]), (node[i, j + 1], node[i + 1, j + 1])]
    legs += [(node[i, j], node[i, j + 1]), (node[i + 1, j], node[i + 1, j + 1])]
    rows, columns = (np.concatenate(ends) for ends in zip(*legs, strict=True))
    W = sparse.csr_array((np.full(rows.size, 0.5), (rows, columns)), shape=(node.size, node.size))
    L = sparse.csr_array(sparse.diags_array((W + W.T).sum(axis=1)) - W - W.T)
    T = np.zeros(node.size)
    T[node[-1]] = 1
    free = np.setdiff1d(np.concatenate([rows, columns]), np.concatenate([node[0], node[-1]]))
    T[free] = sparse_linalg.spsolve(L[free][:, free].tocsc(), -(L @ T)[free])
    return T @ (L @ T)


def test_conductance_lies_between_rayleighs_bounds_and_meets_finite_elements_at_the_order_of_the_corners():
    families = [build("thermal_plate", grid=(20 * n, 32 * n)) for n in (1, 2, 4)]
    volumes = np.array([conductance(family) for family in families])
    elements = np.array([energy_of_linear_elements(family) for family in families])
    # Insulating cuts along the flow lower it to that of the strips beside the slot, perfect conductors across raise it.
    assert np.all(volumes > (1.6 - 0.8) / 1.0)
    assert np.all(volumes < 1 / (0.9 / 1.6 + 0.1 / 0.8))
    assert np.all(volumes < elements)
    for values in (volumes, elements):
        first, second = np.diff(values)
        # Corners of 270 degrees: u ~ r^(2/3), an energy error of order 4/3; the grids are coarse.
        assert np.log2(first / second) == pytest.approx(4 / 3, abs=0.08)
    # What both converge to, extrapolated at that order, is the same to a hundredth of what they differ by.
    limits = [v[2] + (v[2] - v[1]) / (2 ** (4 / 3) - 1) for v in (volumes, elements)]
    assert abs(limits[0] - limits[1]) < 0.01 * (elements[2] - volumes[2])


@pytest.mark.parametrize(("grid", "slot"), [((20, 32), (0.1, 0.8)), ((23, 17), (0.4, 0.3))])
def test_maximum_principle_conservation_and_the_slot(grid, slot):
    family = build("thermal_plate", grid=grid, slot=slot)
    sample = family.sample(np.random.default_rng(61))
    T = temperature(family, sample)
    quality = family.quality(sample, {"temperature": T})
    left, right = sample.fields["edge_temperature"][0, 0], sample.fields["edge_temperature"][-1, 0]
    assert left < quality["temperature_minimum"] < quality["temperature_maximum"] < right
    assert quality["conservation_error"] < 1e-11
    assert quality["heat_flow"] > 0
    assert np.all(T[~family.plate] == 0)
    assert np.all((sample.fields["conductivity"] == 0) == ~family.plate)
    # What is written into the slot, or into inner edge temperatures, does not matter.
    filled = Sample({name: values.copy() for name, values in sample.fields.items()})
    filled.fields["conductivity"][~family.plate] = 7.0
    filled.fields["edge_temperature"][1:-1] = 50.0
    np.testing.assert_array_equal(temperature(family, filled), T)
    # A wrong solution loses heat.
    assert (
        family.quality(sample, {"temperature": T + np.linspace(0, 1, T.shape[0])[:, None]})["conservation_error"] > 1e-3
    )


def test_turned_around_the_temperature_changes_sign_and_the_same_edges_give_a_constant():
    family = build("thermal_plate", grid=(20, 32))
    sample = family.sample(np.random.default_rng(62))
    k, edges = sample.fields["conductivity"], sample.fields["edge_temperature"]
    T = temperature(family, sample)
    turned = temperature(family, Sample({"conductivity": k[::-1], "edge_temperature": -edges[::-1]}))
    np.testing.assert_allclose(turned, -T[::-1], atol=1e-11)
    warm = temperature(family, Sample({"conductivity": k, "edge_temperature": np.full(k.shape, 20.0)}))
    np.testing.assert_allclose(warm, np.where(family.plate, 20.0, 0.0), rtol=1e-11)
    # Only ratios of conductivities count.
    np.testing.assert_allclose(
        temperature(family, Sample({"conductivity": 3 * k, "edge_temperature": edges})), T, atol=1e-11
    )


def test_what_is_drawn():
    family = build("thermal_plate", grid=(20, 32), left=(-3.0, -1.0), right=(5.0, 9.0))
    rng = np.random.default_rng(63)
    samples = [family.sample(rng) for _ in range(300)]
    for row, low, high in ((0, -3.0, -1.0), (-1, 5.0, 9.0)):
        edge = np.array([sample.fields["edge_temperature"][row] for sample in samples])
        assert np.all(edge == edge[:, :1])
        assert low <= edge.min()
        assert edge.max() <= high
        # A uniform mean of 300 is off by width / sqrt(12 * 300); four of those.
        assert edge.mean() == pytest.approx((low + high) / 2, abs=4 * (high - low) / 60)
    assert not any(np.any(sample.fields["edge_temperature"][1:-1]) for sample in samples)
    logarithms = np.log([sample.fields["conductivity"][family.plate] for sample in samples])
    # Over the plate, not the whole rectangle; about 5 modes count, so 1500 numbers: 4 % of the variance, twice s's.
    assert logarithms.std() == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"lengths": (1.0,)}, "lengths must be two finite numbers"),
        ({"slot": (0.1, 1.6)}, "slot must be smaller than the plate"),
        ({"slot": (0.01, 0.01), "grid": (10, 16)}, "lies between the cells"),
        ({"slot": (0.98, 0.8), "grid": (10, 16)}, "no cell between the slot"),
        ({"left": (1.0, 0.0)}, "left must be the lowest and the highest"),
        ({"log_standard_deviation": -1.0}, "log_standard_deviation"),
        ({"tau": float("inf")}, "tau"),
    ],
)
def test_bad_parameters_are_refused(parameters, words):
    with pytest.raises(ValueError, match=words):
        build("thermal_plate", **parameters)


def test_own_conductivities_are_looked_at():
    family = build("thermal_plate", grid=(20, 32))
    sample = one_degree(family)
    sample.fields["conductivity"][3, 3] = 0.0
    with pytest.raises(ValueError, match="positive"):
        family.system(sample)
