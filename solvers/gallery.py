"""Model problems for examples, tests and benchmarks: small, classical, in any dimension.

All are second-order finite-volume or finite-difference operators returned as `StencilOperator`; ``.tocsr()`` gives the
sparse matrix. An axis with Dirichlet conditions on both sides holds the interior nodes (the boundary value sits one
spacing away); every other axis is cell-centred (a Dirichlet value sits on the face, half a spacing away).
"""

from collections.abc import Sequence

import numpy as np

from solvers.geometry import Boundary, checked_boundary, checked_shape, checked_spacing
from solvers.stencil import StencilOperator


def diffusion(
    coefficient: np.ndarray,
    spacing: float | Sequence[float] = 1.0,
    boundary: Boundary | Sequence[Sequence[str]] = "dirichlet",
    weights: Sequence[float] | None = None,
) -> StencilOperator:
    r"""Variable-coefficient diffusion :math:`-\nabla\cdot(a \nabla u)` with harmonic face averages.

    The flux between neighbours i and j is :math:`2 a_i a_j / (a_i + a_j)\,(u_j - u_i)/h`, which is exact in one
    dimension for a coefficient that is constant in each cell (Patankar, Numerical Heat Transfer, 1980, section 4.2-3).

    Parameters
    ----------
    coefficient : ndarray, shape (*grid), positive
    spacing : float or sequence of float
    boundary : name or (low, high) pairs
        "dirichlet", "neumann" or "periodic".
    weights : sequence of float, optional
        A factor per axis, for anisotropy along the axes.

    Returns
    -------
    StencilOperator
        Symmetric; positive definite if a side is Dirichlet, otherwise with the constants as null space.

    Examples
    --------
    >>> import numpy as np
    >>> diffusion(np.array([1.0, 1.0, 3.0])).tocsr().toarray()
    array([[ 2. , -1. ,  0. ],
           [-1. ,  2.5, -1.5],
           [ 0. , -1.5,  4.5]])
    """
    a = np.asarray(coefficient, dtype=np.result_type(coefficient, np.float32))
    steps = checked_spacing(spacing, a.ndim)
    sides = checked_boundary(boundary, a.ndim)
    if not np.all(a > 0):
        raise ValueError("coefficient: expected positive numbers everywhere; diffusion of zero or less is no diffusion")
    if any(name == "robin" for pair in sides for name in pair):
        raise ValueError("boundary: the model problems know 'dirichlet', 'neumann' and 'periodic', not 'robin'")
    diagonal = np.zeros_like(a)
    offsets, coefficients = [], []
    for axis, (step, pair) in enumerate(zip(steps, sides, strict=True)):
        factor = (1.0 if weights is None else weights[axis]) / step**2
        # A Dirichlet value on a face is half a spacing away, so its link is twice as strong.
        half_cell = 1.0 if pair == ("dirichlet", "dirichlet") else 2.0
        for side, direction in enumerate((-1, 1)):
            neighbour = np.roll(a, -direction, axis=axis)
            link = factor * 2 * a * neighbour / (a + neighbour)
            edge: list[slice | int] = [slice(None)] * a.ndim
            edge[axis] = 0 if direction < 0 else -1
            at = tuple(edge)
            if pair[side] != "periodic":
                link[at] = 0
            diagonal += link
            if pair[side] == "dirichlet":
                diagonal[at] += factor * half_cell * a[at]
            offsets.append(tuple(direction if other == axis else 0 for other in range(a.ndim)))
            coefficients.append(-link)
    return StencilOperator(
        [(0,) * a.ndim, *offsets],
        [diagonal, *coefficients],
        shape=a.shape,
        spacing=steps,
        boundary=sides,
        centring=["node" if pair == ("dirichlet", "dirichlet") else "cell" for pair in sides],
    )


def poisson(
    shape: int | Sequence[int],
    spacing: float | Sequence[float] = 1.0,
    boundary: Boundary | Sequence[Sequence[str]] = "dirichlet",
) -> StencilOperator:
    r"""Minus the Laplacian, :math:`-\nabla^2 u`, with the 3-, 5- or 7-point stencil.

    With Dirichlet sides its eigenvalues are :math:`\sum_a \frac{4}{h_a^2}\sin^2\frac{\pi k_a}{2(n_a+1)}`,
    :math:`k_a = 1..n_a`.

    Examples
    --------
    >>> poisson((2, 2)).tocsr().toarray()
    array([[ 4., -1., -1.,  0.],
           [-1.,  4.,  0., -1.],
           [-1.,  0.,  4., -1.],
           [ 0., -1., -1.,  4.]])
    """
    return diffusion(np.ones(checked_shape(shape)), spacing, boundary)  # type: ignore[arg-type]


def jumps(shape: int | Sequence[int], contrast: float = 4.0, blocks: int = 4) -> np.ndarray:
    """Chequerboard coefficient field: 1 and `contrast` in `blocks` squares per axis.

    Examples
    --------
    >>> jumps((4,), contrast=10.0, blocks=2)
    array([ 1.,  1., 10., 10.])
    """
    grid = checked_shape(shape)  # type: ignore[arg-type]
    block = sum(index * blocks // size for index, size in zip(np.indices(grid), grid, strict=True))
    return np.where(np.asarray(block) % 2 == 0, 1.0, contrast)


def anisotropic(shape: int | Sequence[int], ratio: float = 100.0) -> StencilOperator:
    r"""Diffusion `ratio` times stronger along the first axis than along the others; Dirichlet.

    Examples
    --------
    >>> anisotropic((2, 2), ratio=10.0).diagonal()
    array([22., 22., 22., 22.])
    """
    grid = checked_shape(shape)  # type: ignore[arg-type]
    return diffusion(np.ones(grid), weights=[ratio] + [1.0] * (len(grid) - 1))


def convection_diffusion(
    shape: int | Sequence[int], velocity: Sequence[float], diffusivity: float = 1.0, spacing: float = 1.0
) -> StencilOperator:
    r"""Steady transport :math:`-\kappa\nabla^2 u + v\cdot\nabla u`, first-order upwind; Dirichlet; nonsymmetric.

    Upwinding keeps it an M-matrix at every cell Péclet number :math:`|v| h/\kappa`.

    Examples
    --------
    >>> convection_diffusion((3,), velocity=[1.0]).tocsr().toarray()
    array([[ 3., -1.,  0.],
           [-2.,  3., -1.],
           [ 0., -2.,  3.]])
    """
    grid = checked_shape(shape)  # type: ignore[arg-type]
    if len(velocity) != len(grid):
        raise ValueError(f"velocity: expected one component for each of the {len(grid)} axes, got {len(velocity)}")
    base = diffusion(np.full(grid, float(diffusivity)), spacing)
    coefficients = base.coefficients.copy()
    coefficients[0] += sum(abs(v) for v in velocity) / spacing
    for axis, v in enumerate(velocity):
        upwind = base.offsets.index(tuple((-1 if v > 0 else 1) * (other == axis) for other in range(len(grid))))
        inside = coefficients[upwind] != 0
        coefficients[upwind][inside] -= abs(v) / spacing
    return StencilOperator(
        base.offsets, coefficients, grid, base.spacing, boundary=base.boundary, centring=base.centring
    )


def helmholtz(shape: int | Sequence[int], wavenumber: float, spacing: float = 1.0) -> StencilOperator:
    r"""The Helmholtz operator :math:`-\nabla^2 u - k^2 u`; Dirichlet; symmetric, indefinite for large k.

    Indefinite as soon as :math:`k^2` exceeds the smallest eigenvalue of `poisson`.

    Examples
    --------
    >>> helmholtz((2,), wavenumber=1.0).tocsr().toarray()
    array([[ 1., -1.],
           [-1.,  1.]])
    """
    base = poisson(shape, spacing)
    coefficients = base.coefficients.copy()
    coefficients[0] -= wavenumber**2
    return StencilOperator(
        base.offsets, coefficients, base.grid_shape, base.spacing, boundary=base.boundary, centring=base.centring
    )
