"""Diffusion whose strong direction is not an axis: model problems with 9-point stencils."""

from collections.abc import Sequence

import numpy as np

from solvers.geometry import checked_spacing
from solvers.stencil import StencilOperator


def oblique_diffusion(
    tensor: Sequence[np.ndarray],
    spacing: float | Sequence[float] = 1.0,
    twist: float = 0.25,
    solid: np.ndarray | None = None,
) -> StencilOperator:
    r"""Anisotropic diffusion :math:`-\nabla\cdot(K \nabla u)` with a full tensor in two dimensions; Dirichlet.

    The unknowns are the interior nodes. In each square of four nodes K is the mean of theirs, and the energy there is

    .. math:: K_{xx} (X^2 + t Z^2) + K_{yy} (Y^2 + t Z^2) + 2 K_{xy} X Y,

    X and Y the mean differences along the axes over the spacings, :math:`Z = u_{00} - u_{10} - u_{01} + u_{11}` over
    them. A is symmetric positive definite for every K that is.

    Parameters
    ----------
    tensor : three ndarrays, shape (*grid)
        Kxx, Kyy and Kxy.
    spacing : float or sequence of float
    twist : float
        t: 1/4 for finite differences (the 5-point stencil where Kxy = 0), 1/12 for bilinear finite elements.
    solid : ndarray of bool, shape (*grid), optional
        Obstacles: nodes without unknowns. Squares that touch them conduct nothing, so that their walls are insulated.

    Raises
    ------
    ValueError
        If the tensor is not two-dimensional and positive definite.

    Examples
    --------
    >>> one = np.ones((3, 3))
    >>> A = oblique_diffusion((one, one, 0.0 * one), twist=1 / 12)  # the 9-point stencil of bilinear elements
    >>> 3 * A.tocsr().toarray()[4].reshape(3, 3)
    array([[-1., -1., -1.],
           [-1.,  8., -1.],
           [-1., -1., -1.]])
    """
    xx, yy, xy = (np.asarray(part, dtype=float) for part in tensor)
    if xx.ndim != 2 or xx.shape != yy.shape or xx.shape != xy.shape:
        raise ValueError(
            f"tensor: expected three fields of one two-dimensional shape, got {xx.shape}, {yy.shape} and {xy.shape}"
        )
    if not (np.all(xx > 0) and np.all(xx * yy > xy**2)):
        raise ValueError("tensor: expected a positive definite one everywhere: Kxx > 0 and Kxx Kyy > Kxy^2")
    hx, hy = checked_spacing(spacing, 2)
    shape = xx.shape

    def squares(field: np.ndarray) -> np.ndarray:
        wide = np.pad(field, 1, mode="edge")
        return 0.25 * (wide[1:, 1:] + wide[:-1, 1:] + wide[1:, :-1] + wide[:-1, :-1])

    along_x, along_y, across = squares(xx) / hx**2, squares(yy) / hy**2, squares(xy) / (hx * hy)
    if solid is not None:
        wall = np.pad(solid, 1)
        touched = wall[1:, 1:] | wall[:-1, 1:] | wall[1:, :-1] | wall[:-1, :-1]
        along_x, along_y, across = (np.where(touched, 0.0, part) for part in (along_x, along_y, across))
    # The energy as that of conductors along the sides and the diagonals of each square.
    rest = (twist - 0.25) * (along_x + along_y)
    conductors = {
        ((0, 0), (1, 0)): 0.5 * along_x + rest,
        ((0, 1), (1, 1)): 0.5 * along_x + rest,
        ((0, 0), (0, 1)): 0.5 * along_y + rest,
        ((1, 0), (1, 1)): 0.5 * along_y + rest,
        ((0, 0), (1, 1)): 0.5 * across - rest,
        ((1, 0), (0, 1)): -0.5 * across - rest,
    }
    stencil = {(i, j): np.zeros(shape) for i in (-1, 0, 1) for j in (-1, 0, 1)}
    n, m = shape
    for (p, q), g in conductors.items():
        at_p, at_q = (g[1 - i : 1 - i + n, 1 - j : 1 - j + m] for i, j in (p, q))
        step = (q[0] - p[0], q[1] - p[1])
        stencil[0, 0] += at_p + at_q
        stencil[step] -= at_p
        stencil[-step[0], -step[1]] -= at_q
    for (i, j), field in stencil.items():
        if i:
            field[0 if i < 0 else -1] = 0
        if j:
            field[:, 0 if j < 0 else -1] = 0
    mask = None
    if solid is not None:
        mask = ~solid & (stencil[0, 0] > 0)
        stencil = {o: np.where(mask, field, 0.0) for o, field in stencil.items()}
    used = [o for o, field in stencil.items() if o == (0, 0) or np.any(field)]
    return StencilOperator(used, [stencil[o] for o in used], shape, (hx, hy), boundary="dirichlet", mask=mask)


def tensor_of(angle: np.ndarray | float, ratio: np.ndarray | float, shape: Sequence[int]) -> tuple[np.ndarray, ...]:
    """Kxx, Kyy and Kxy of the tensor with eigenvalues 1 along `angle` (from the first axis) and 1 / `ratio` across it.

    Parameters
    ----------
    angle : float or ndarray, radians
    ratio : float or ndarray
    shape : sequence of int

    Examples
    --------
    >>> xx, yy, xy = tensor_of(np.pi / 4, 100.0, (2, 2))
    >>> [float(part[0, 0].round(3)) for part in (xx, yy, xy)]
    [0.505, 0.505, 0.495]
    """
    c, s, weak = np.cos(angle), np.sin(angle), 1.0 / np.asarray(ratio, dtype=float)
    parts = (c**2 + weak * s**2, s**2 + weak * c**2, (1 - weak) * c * s)
    return tuple(np.broadcast_to(part, tuple(shape)).astype(float) for part in parts)
