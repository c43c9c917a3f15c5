"""Training through the solver: the matrix against the discretisation's own, gradients, a coefficient learned back."""

import numpy as np
import pytest
import torch

from datagen.discretise import Dirichlet, Neumann, diffusion
from datagen.family import build
from datagen.grids import Grid
from operators.differentiable import diffusion_values
from solvers import gallery
from solvers.autograd import solve

SIDES = {
    "dirichlet": (Dirichlet(0.0), Dirichlet(0.0)),
    "mixed": (Neumann(0.0), Dirichlet(0.0)),
    "neumann": (Neumann(0.0), Neumann(0.0)),
    "periodic": "periodic",
}


@pytest.mark.parametrize("sides", [("dirichlet",), ("mixed", "periodic"), ("dirichlet", "mixed", "neumann")])
def test_the_values_are_the_discretisations(sides):
    grid = Grid((5, 4, 3)[: len(sides)], (1.0, 2.0, 0.5)[: len(sides)])
    boundary = [SIDES[side] for side in sides]
    a = np.exp(np.random.default_rng(0).normal(size=grid.shape))
    pattern = diffusion(np.ones(grid.shape), grid, boundary)[0]  # of another coefficient
    expected = diffusion(a, grid, boundary)[0]
    values = diffusion_values(torch.tensor(a), pattern)
    assert expected.offsets == pattern.offsets
    np.testing.assert_allclose(values.numpy(), expected.coefficients, rtol=1e-13)


def test_gradients_through_the_solve_are_right():
    family = build("darcy", grid=4)
    system = family.system(family.sample(np.random.default_rng(0)))
    a = torch.tensor(np.exp(np.random.default_rng(1).normal(size=(4, 4))), requires_grad=True)
    b = torch.tensor(system.b)
    assert torch.autograd.gradcheck(lambda a: solve(diffusion_values(a, system.A), b, pattern=system.A), (a,))


def test_a_coefficient_is_learned_from_values_of_u():
    """Sixteen unknowns of log a, from u at 40 cells without noise: nothing but the truth explains them."""
    family = build("darcy", grid=12)
    system = family.system(family.sample(np.random.default_rng(0)))
    x, y = (torch.tensor(each) for each in family.mesh.points())
    modes = torch.stack([torch.cos(torch.pi * i * x) * torch.cos(torch.pi * j * y) for i in range(4) for j in range(4)])
    rng = np.random.default_rng(5)
    truth = torch.tensor(0.4 * rng.normal(size=16))
    b = torch.tensor(system.b)
    seen = torch.tensor(rng.choice(144, 40, replace=False))

    def pressure(weights):
        a = torch.exp(torch.tensordot(weights, modes, dims=1))
        return solve(diffusion_values(a, system.A), b, pattern=system.A)

    observed = pressure(truth)[seen]
    weights = torch.zeros(16, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=60, line_search_fn="strong_wolfe", tolerance_change=1e-14)

    def misfit():
        optimizer.zero_grad()
        loss = ((pressure(weights)[seen] - observed) / observed.abs().mean()).square().sum()
        loss.backward()
        return loss

    before = misfit().item()
    optimizer.step(misfit)
    assert misfit().item() < 1e-6 * before
    # The least sensitive combination of modes comes last; 60 steps leave some per cent of it.
    assert torch.linalg.norm(weights - truth) < 0.1 * torch.linalg.norm(truth)


def test_other_patterns_are_refused():
    with pytest.raises(ValueError, match=r"grid's shape \(4, 4\), got \(3, 4\)"):
        diffusion_values(torch.ones(3, 4), gallery.poisson((4, 4)))
    nodes = build("poisson", grid=6)
    with pytest.raises(ValueError, match="cell-centred stencil of the 5 points"):
        diffusion_values(torch.ones(4, 4), nodes.system(nodes.sample(np.random.default_rng(0))).A)
