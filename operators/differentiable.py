r"""Matrices of diffusion as functions of their coefficient, for torch to differentiate: what `solvers.autograd` solves.

With them a PDE is a layer: coefficient field in, solution out, proved to a tolerance on the way, and gradients through
it by the adjoint equation. `docs/tutorials/learn-a-coefficient.md` learns a field from a few values of u.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from solvers import StencilOperator


def diffusion_values(coefficient: Tensor, pattern: StencilOperator) -> Tensor:
    r"""Stencil coefficients of ``-div(a grad u)``, cell-centred, as differentiable functions of a.

    Between cells i and j, h apart, and between a cell and a wall on which u is given,

    .. math:: -a_{ij} = \frac{2 a_i a_j}{(a_i + a_j) h^2}, \qquad a_{i,\mathrm{wall}} = \frac{2 a_i}{h^2},

    and the diagonal is the sum of all: the matrix that `datagen.discretise.diffusion` makes, as it is in the systems of
    Darcy flow.

    Parameters
    ----------
    coefficient : Tensor, shape (*grid)
        a, positive.
    pattern : StencilOperator
        Of the same family, for any coefficient: its offsets, spacing and sides count, its values do not. Sides are
        "dirichlet", "neumann" or periodic.

    Returns
    -------
    Tensor, shape (offsets, *grid)
        To give to `solvers.autograd.solve` as ``A`` with this pattern.

    Raises
    ------
    ValueError
        If the coefficient has another shape, or the pattern is no cell-centred stencil of ``2 d + 1`` points.

    Examples
    --------
    >>> import numpy as np
    >>> from datagen.family import build
    >>> family = build("darcy", grid=4)
    >>> sample = family.sample(np.random.default_rng(0))
    >>> A = family.system(sample).A
    >>> values = diffusion_values(torch.tensor(sample.fields["coefficient"]), A)
    >>> torch.allclose(values, torch.tensor(A.coefficients))
    True
    """
    grid, d = pattern.grid_shape, len(pattern.grid_shape)
    if tuple(coefficient.shape) != tuple(grid):
        raise ValueError(f"coefficient must have the grid's shape {tuple(grid)}, got {tuple(coefficient.shape)}")
    unit = [tuple(int(i == axis) for i in range(d)) for axis in range(d)]
    needed = {(0,) * d, *unit, *(tuple(-i for i in e) for e in unit)}
    masked = pattern.mask is not None
    if {tuple(offset) for offset in pattern.offsets} != needed or "node" in pattern.centring or masked:
        raise ValueError(
            f"pattern must be a cell-centred stencil of the {2 * d + 1} points {sorted(needed)} without a mask, got "
            f"{sorted(pattern.offsets)}, centring {pattern.centring}, {'a' if masked else 'no'} mask"
        )
    found: dict[tuple[int, ...], Tensor] = {}
    diagonal = torch.zeros_like(coefficient)
    for axis, (e, h) in enumerate(zip(unit, pattern.spacing, strict=True)):
        a = coefficient.movedim(axis, -1)
        ahead = a.roll(-1, -1)
        flux = 2 * a * ahead / (a + ahead) / h**2  # of a cell and the next, the last with the first
        if not pattern.periodic[axis]:
            flux = pad(flux[..., :-1], (0, 1))
        behind = flux.roll(1, -1)
        walls = a.new_zeros(grid[axis])  # sides on which u is given, of the first cell and of the last
        walls[0] += pattern.boundary[axis][0] == "dirichlet"
        walls[-1] += pattern.boundary[axis][1] == "dirichlet"
        diagonal = diagonal + (flux + behind + 2 * a * walls / h**2).movedim(-1, axis)
        found[e], found[tuple(-i for i in e)] = -flux.movedim(-1, axis), -behind.movedim(-1, axis)
    found[(0,) * d] = diagonal
    return torch.stack([found[tuple(offset)] for offset in pattern.offsets])
