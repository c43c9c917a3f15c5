"""Set-up in single precision: it makes as good a hierarchy where it is chosen, and is not chosen elsewhere."""

import numpy as np
import pytest

from solvers import Multigrid, StencilOperator, cg, gallery
from solvers.precondition.multigrid.operator import SymmetricStencil
from solvers.precondition.multigrid.preconditioner import _is_easy


def easy(A):
    return _is_easy(A, SymmetricStencil.of(A))


def lognormal(shape, deviation=1.0, seed=0, **options):
    field = np.random.default_rng(seed).standard_normal(shape)
    for axis in range(field.ndim):  # neighbours alike
        field = (field + np.roll(field, 1, axis) + np.roll(field, 2, axis)) / np.sqrt(3)
    return gallery.diffusion(np.exp(deviation * field / field.std()), **options)


EASY = {
    "Poisson": lambda: gallery.poisson((230, 301)),
    "lognormal": lambda: lognormal((250, 220)),
    "lognormal 3D": lambda: lognormal((34, 29, 40)),
    "jumps of 1,000": lambda: gallery.diffusion(gallery.jumps((199, 210), contrast=1e3)),
    "a reaction holds the constants": lambda: reaction((150, 160), 1e-3),
    "one side holds them": lambda: lognormal(
        (130, 140), boundary=[("dirichlet", "neumann"), ("neumann", "neumann")]
    ),
}  # fmt: skip


def reaction(shape, share):
    """An insulated box with a reaction, a share of the largest diagonal entry."""
    A = gallery.poisson(shape, boundary="neumann")
    coefficients = A.coefficients.copy()
    middle = A.offsets.index((0,) * len(shape))
    coefficients[middle] += share * coefficients[middle].max()
    return StencilOperator(A.offsets, coefficients, shape, A.spacing, A.boundary, A.centring)


@pytest.mark.parametrize("name", EASY)
def test_it_costs_no_iteration(name):
    A = EASY[name]()
    assert easy(A)
    b = np.random.default_rng(1).standard_normal(A.shape[0])
    single, double = (cg(A, b, rtol=1e-9, M=Multigrid(dtype=dtype).setup(A)) for dtype in ("float32", "float64"))
    assert single.converged
    assert single.iterations <= double.iterations


@pytest.mark.parametrize("seed", range(3))
def test_one_dimension_is_solved_as_exactly_as_the_cycle_rounds(seed):
    # Two steps in exact arithmetic; a third mends the rounding of the cycle. A set-up in single precision took four.
    A = gallery.diffusion(np.exp(np.random.default_rng(seed).standard_normal(3000)))
    for b in (np.ones(3000), np.random.default_rng(seed + 10).standard_normal(3000)):
        assert cg(A, b, rtol=1e-8, M=Multigrid().setup(A)).iterations <= 3


HARD = {
    "jumps of 1e6": lambda: gallery.diffusion(gallery.jumps((90, 80), contrast=1e6)),
    "nothing holds the constants": lambda: gallery.poisson((60, 70), boundary="neumann"),
    "next to nothing holds them": lambda: reaction((60, 70), 1e-9),
    "periodic": lambda: gallery.poisson((40, 50), boundary=[("periodic", "periodic"), ("dirichlet", "dirichlet")]),
}


@pytest.mark.parametrize("name", HARD)
def test_what_needs_double_precision_gets_it(name):
    A = HARD[name]()
    assert not easy(A)
    assert_rounded_from_double(A)


def island_beside_a_held_block():
    """Both of the contrast 3,000. The block makes up for the island in the sum of all row sums."""
    a = np.ones((380, 380))
    a[29:293, 142:191] = a[:, :83] = 3020
    return gallery.diffusion(a)


def test_an_island_is_found_on_the_coarsest_grid():
    A = island_beside_a_held_block()
    assert easy(A)  # as far as the finest grid shows
    assert_rounded_from_double(A)
    for b in (np.ones(A.shape[0]), np.random.default_rng(0).standard_normal(A.shape[0])):
        single, double = (cg(A, b, rtol=1e-8, M=Multigrid(dtype=dtype).setup(A)) for dtype in ("float32", "float64"))
        assert single.iterations <= double.iterations + 1  # the rounding of the cycle; two more with the wrong island


def assert_rounded_from_double(A):
    """The hierarchy is the double one rounded, number by number."""
    single, double = (Multigrid("point", dtype=dtype).setup(A) for dtype in ("float32", "float64"))
    for one, other in zip(single.operators[1:], double.operators[1:], strict=True):
        scale = np.max(np.abs(other.coefficients))
        assert (
            np.max(np.abs(one.coefficients - other.coefficients)) <= 2.0**-24 * scale
        )  # half a unit in the last place


def test_memory_that_was_used_before_leaves_no_trace():
    """Easy, hard, and others of the same shape take turns in the same memory: the cycle of each stays what it was."""
    shape = (75, 83)
    kinds = [
        lognormal(shape, seed=1),
        gallery.diffusion(gallery.jumps(shape, contrast=1e6)),
        lognormal(shape, seed=2, boundary=[("neumann", "dirichlet"), ("dirichlet", "neumann")]),
        gallery.poisson(shape, boundary="neumann"),
    ]
    r = np.random.default_rng(3).standard_normal(kinds[0].shape[0])
    first = [Multigrid("point").setup(A).matvec(r) for A in kinds]
    for order in ([3, 2, 1, 0], [1, 0, 0, 3, 2], [2, 2, 0, 1, 3]):
        for k in order:
            assert np.array_equal(Multigrid("point").setup(kinds[k]).matvec(r), first[k])


def test_an_indefinite_coarse_operator_in_single_precision_is_looked_at_again_in_double(monkeypatch):
    A = lognormal((60, 70))
    seen = []
    coarsen = Multigrid._coarsen

    def spy(self, stencil, chosen, dtype):
        seen.append(dtype.name)
        return "not definite" if dtype == np.float32 else coarsen(self, stencil, chosen, dtype)

    monkeypatch.setattr(Multigrid, "_coarsen", spy)
    assert Multigrid().setup(A).positive
    assert seen == ["float32", "float64"]
