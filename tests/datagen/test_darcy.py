"""The Darcy family: what it draws, and that its solutions are solutions."""

import numpy as np
import pytest
import scipy.sparse.linalg as sparse_linalg

from datagen.discretise import Dirichlet, diffusion
from datagen.family import Sample, build, seed_sequence
from datagen.grids import Grid


def pressure(family, sample):
    system = family.system(sample)
    return system.to_field(sparse_linalg.spsolve(system.A.tocsr().tocsc(), system.b))


def test_constant_coefficient_converges_to_the_series_solution():
    """a = 1, f = 1 on the unit square: u(x, y) = sum over odd m, n of 16 sin sin / (pi^4 m n (m^2 + n^2))."""
    errors = []
    for n in (16, 32, 64):
        family = build("darcy", grid=n)
        found = pressure(family, Sample({"coefficient": np.ones((n, n))}))
        odd = np.arange(1, 2000, 2)
        x = family.mesh.coordinates(0)
        sines = np.sin(np.pi * np.outer(x, odd))
        weights = 16 / (np.pi**4 * np.outer(odd, odd) * (odd[:, None] ** 2 + odd**2))
        errors.append(np.sqrt(np.mean((found - sines @ weights @ sines.T) ** 2)))
    order = np.log2(errors[1] / errors[2])
    assert 1.9 <= order <= 2.1, errors


def test_binary_values_and_shares():
    family = build("darcy", grid=48)
    rng = np.random.default_rng(31)
    fields = np.stack([family.sample(rng).fields["coefficient"] for _ in range(200)])
    assert set(np.unique(fields)) == {3.0, 12.0}
    # By symmetry of the Gaussian field both values have share 1/2; its few large modes make shares of single samples
    # vary by about 0.15, the mean of 200 by 0.011: four of those.
    assert abs((fields == 12.0).mean() - 0.5) < 0.045


def test_lognormal_standard_deviation():
    family = build("darcy", grid=48, coefficient="lognormal", log_standard_deviation=0.7)
    rng = np.random.default_rng(32)
    logs = np.log(np.stack([family.sample(rng).fields["coefficient"] for _ in range(400)]))
    # The variance estimate of a field with about 10 modes that count has relative error sqrt(2 / 4000) = 2 %.
    assert logs.std() == pytest.approx(0.7, rel=0.06)


def test_a_coarser_grid_sees_the_same_permeability():
    """Cells of an odd refinement share centres: thresholding the same field but for its cut-off modes."""

    def draw(grid):
        rng = np.random.default_rng(seed_sequence(5, "darcy", "train", 0, 0))
        return build("darcy", grid=grid).sample(rng).fields["coefficient"]

    coarse, fine = draw(32), draw(96)[1::3, 1::3]
    assert (coarse != fine).mean() < 0.03  # only along the interfaces, where the cut-off modes decide


@pytest.mark.parametrize("coefficient", ["binary", "lognormal"])
@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_maximum_principle_symmetry_and_conservation(dimension, coefficient):
    family = build("darcy", grid=10, dimension=dimension, coefficient=coefficient)
    sample = family.sample(np.random.default_rng(4))
    u = pressure(family, sample)
    assert u.min() > 0
    quality = family.quality(sample, {"pressure": u})
    assert quality["conservation_error"] < 1e-11
    assert quality["pressure_minimum"] == u.min()
    doubled = Sample({"coefficient": 2 * sample.fields["coefficient"]})
    np.testing.assert_allclose(pressure(family, doubled), u / 2, rtol=1e-11)
    # Quarter turns of the square commute with solving.
    if dimension == 2:
        turned = Sample({"coefficient": np.rot90(sample.fields["coefficient"])})
        np.testing.assert_allclose(pressure(family, turned), np.rot90(u), rtol=1e-11)


def test_conservation_error_sees_a_wrong_solution():
    family = build("darcy", grid=10)
    sample = family.sample(np.random.default_rng(4))
    u = pressure(family, sample)
    assert family.quality(sample, {"pressure": 1.01 * u})["conservation_error"] == pytest.approx(0.01, rel=1e-6)


def test_families_come_from_their_parameters_and_unknown_ones_are_named():
    family = build("darcy", grid=(8, 12), tau=5.0)
    assert build(**family.parameters()) == family
    with pytest.raises(ValueError, match=r"unknown PDE family 'darci'\. Did you mean 'darcy'"):
        build("darci")
    with pytest.raises(ValueError, match=r"no argument 'taw'\. Did you mean 'tau'"):
        build("darcy", taw=3.0)


def test_seeds_are_a_function_of_what_they_name():
    one = seed_sequence(7, "darcy", "train", 3, 0).generate_state(4)
    again = seed_sequence(7, "darcy", "train", 3, 0).generate_state(4)
    np.testing.assert_array_equal(one, again)
    others = [
        seed_sequence(8, "darcy", "train", 3, 0),
        seed_sequence(7, "heat", "train", 3, 0),
        seed_sequence(7, "darcy", "test", 3, 0),
        seed_sequence(7, "darcy", "train", 4, 0),
        seed_sequence(7, "darcy", "train", 3, 1),
    ]
    assert all((other.generate_state(4) != one).any() for other in others)


def test_entry_points_add_families(monkeypatch):
    from datagen import family as module
    from solvers import registry

    class Point:
        name = "laplace"

        @staticmethod
        def load():
            return Laplace

    class Laplace:
        def __init__(self, grid: int = 8) -> None:
            self.mesh = Grid((grid,), (1.0,))
            self.operator = diffusion(np.ones(grid), self.mesh, [(Dirichlet(), Dirichlet())])

    monkeypatch.setattr(registry, "entry_points", lambda group: [Point] if group == "southwell.pdes" else [])
    monkeypatch.setattr(module.families, "_discovered", False)
    monkeypatch.setattr(module.families, "_entries", dict(module.families._entries))
    assert build("laplace", grid=4).mesh.shape == (4,)
