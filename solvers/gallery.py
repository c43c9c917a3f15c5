"""Model problems for examples, tests and benchmarks: small, classical, in any dimension.

All are second-order finite-volume or finite-difference operators returned as `StencilOperator`; ``.tocsr()`` gives the
sparse matrix. An axis with Dirichlet conditions on both sides holds the interior nodes (the boundary value sits one
spacing away); every other axis is cell-centred (a Dirichlet value sits on the face, half a spacing away).

`sequences` names streams of similar systems, as a dataset or a time integration makes them.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from scipy.fft import dstn, idstn

from solvers.geometry import Boundary, checked_boundary, checked_shape, checked_spacing
from solvers.random_field import RandomField
from solvers.registry import Registry
from solvers.stencil import StencilOperator

# One system of a sequence: A, b, and its context, a short vector of what distinguishes it from the others.
Similar = tuple[StencilOperator, np.ndarray, np.ndarray]


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
            # The harmonic mean, the same bit by bit from both sides, without products that could overflow.
            less, more = np.minimum(a, neighbour), np.maximum(a, neighbour)
            link = factor * 2 * less * (more / (less + more))
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

    Parameters
    ----------
    shape : int or sequence of int
        Points per axis.
    spacing : float or sequence of float
        Between points, one for all axes or one an axis.
    boundary : name or (low, high) pairs
        As `diffusion` takes it.

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

    Parameters
    ----------
    shape : int or sequence of int
        Points per axis.
    contrast : float
        The other value; 1 is the first.
    blocks : int
        Squares per axis.

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

    Parameters
    ----------
    shape : int or sequence of int
        Points per axis.
    ratio : float
        Coefficient of the first axis; the others have 1.

    Examples
    --------
    >>> anisotropic((2, 2), ratio=10.0).diagonal()
    array([22., 22., 22., 22.])
    """
    grid = checked_shape(shape)  # type: ignore[arg-type]
    return diffusion(np.ones(grid), weights=[ratio] + [1.0] * (len(grid) - 1))


def convection_diffusion(
    shape: int | Sequence[int],
    velocity: Sequence[float | np.ndarray],
    diffusivity: float = 1.0,
    spacing: float | Sequence[float] = 1.0,
) -> StencilOperator:
    r"""Steady transport :math:`-\kappa\nabla^2 u + v\cdot\nabla u`, first-order upwind; Dirichlet; nonsymmetric.

    Upwinding keeps it an M-matrix at every cell Péclet number :math:`|v| h/\kappa`. Each component of the velocity is a
    number or a field ``(*grid)``.

    Parameters
    ----------
    shape : int or sequence of int
        Points per axis.
    velocity : sequence of float or ndarray
        v, one component an axis.
    diffusivity : float
        The constant :math:`\kappa`.
    spacing : float or sequence of float
        Between points, one for all axes or one an axis.

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
    for axis, (component, step) in enumerate(zip(velocity, base.spacing, strict=True)):
        v = np.broadcast_to(component, grid) / step
        coefficients[0] += np.abs(v)
        for direction in (-1, 1):
            neighbour = base.offsets.index(tuple(direction * (other == axis) for other in range(len(grid))))
            upwind = (coefficients[neighbour] != 0) & (v * direction < 0)
            coefficients[neighbour][upwind] -= np.abs(v[upwind])
    return StencilOperator(
        base.offsets, coefficients, grid, base.spacing, boundary=base.boundary, centring=base.centring
    )


def helmholtz(
    shape: int | Sequence[int], wavenumber: float | np.ndarray, spacing: float | Sequence[float] = 1.0
) -> StencilOperator:
    r"""The Helmholtz operator :math:`-\nabla^2 u - k^2 u`; Dirichlet; symmetric, indefinite for large k.

    Indefinite as soon as :math:`k^2` exceeds the smallest eigenvalue of `poisson`. The wavenumber k is a number or a
    field ``(*grid)``.

    Parameters
    ----------
    shape : int or sequence of int
        Points per axis.
    wavenumber : float or ndarray
        k.
    spacing : float or sequence of float
        Between points, one for all axes or one an axis.

    Examples
    --------
    >>> helmholtz((2,), wavenumber=1.0).tocsr().toarray()
    array([[ 1., -1.],
           [-1.,  1.]])
    """
    base = poisson(shape, spacing)
    coefficients = base.coefficients.copy()
    coefficients[0] -= np.square(wavenumber)
    return StencilOperator(
        base.offsets, coefficients, base.grid_shape, base.spacing, boundary=base.boundary, centring=base.centring
    )


# -- Sequences of similar systems ------------------------------------------------------------------------------------
#
# All live on the interior nodes of the unit cube, Dirichlet, with the spacing 1 / (points + 1). One seed gives the same
# fields, wavenumber by wavenumber, on every grid, and a shorter sequence is the beginning of a longer one.


def _unit_cube(shape: int | Sequence[int], length: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Points and spacing per axis, after a look at the length."""
    if not isinstance(length, int | np.integer) or length < 1:
        raise ValueError(f"length: expected a positive whole number of systems, got {length!r}")
    grid = checked_shape(shape)  # type: ignore[arg-type]
    return grid, tuple(1.0 / (points + 1) for points in grid)


def constant_sequence(
    length: int = 300, shape: int | Sequence[int] = (100, 100), drift: float = 0.05, seed: int = 0
) -> Iterator[Similar]:
    """One Darcy matrix (lognormal coefficient), each time with another right-hand side, which drifts.

    The matrix is the same object each time; the context is that of the right-hand side.

    Parameters
    ----------
    length : int
        Systems.
    shape : int or sequence of int
        Points per axis.
    drift : float in [0, 1]
        Relative change of the random source from one system to the next; 1 makes them independent.
    seed : int

    Examples
    --------
    >>> systems = list(constant_sequence(length=3, shape=(8, 8)))
    >>> systems[0][0] is systems[2][0], systems[0][1].shape
    (True, (64,))
    """
    grid, spacing = _unit_cube(shape, length)
    rng = np.random.default_rng(seed)
    A = diffusion(np.exp(RandomField(grid, 1.0, rng).values()), spacing)
    source = RandomField(grid, drift, rng)
    for _ in range(length):
        yield A, 1.0 + source.values().ravel(), source.context
        source.advance()


def darcy_sequence(
    length: int = 300,
    shape: int | Sequence[int] = (100, 100),
    drift: float = 0.05,
    seed: int = 0,
    contrast: float | None = None,
) -> Iterator[Similar]:
    r"""Darcy flow :math:`-\nabla\cdot(a \nabla u) = 1`: a = exp g, or 3 and 3 `contrast` by the sign of g.

    Parameters
    ----------
    length : int
        Systems.
    shape : int or sequence of int
        Points per axis.
    drift : float in [0, 1]
        Relative change of the random field g from one system to the next; 1 makes them independent.
    seed : int
    contrast : float, optional
        Of a binary coefficient; left out, the coefficient is lognormal.

    Examples
    --------
    >>> (A, b, context), *_ = darcy_sequence(length=2, shape=(5, 6, 7), contrast=4.0)
    >>> A.shape, b.shape, context.shape
    ((210, 210), (210,), (4096,))
    """
    grid, spacing = _unit_cube(shape, length)
    field = RandomField(grid, drift, np.random.default_rng(seed))
    for _ in range(length):
        g = field.values()
        a = np.exp(g) if contrast is None else np.where(g > 0.0, 3.0 * contrast, 3.0)
        yield diffusion(a, spacing), np.ones(a.size), field.context
        field.advance()


def helmholtz_sequence(
    length: int = 300,
    shape: int | Sequence[int] = (100, 100),
    drift: float = 0.05,
    seed: int = 0,
    wavenumber: float = 12.0,
    deviation: float = 0.1,
) -> Iterator[Similar]:
    r"""Waves in a random medium, :math:`-\nabla^2 u - k^2 u = 1` with k = `wavenumber` (1 + `deviation` g): indefinite.

    Parameters
    ----------
    length : int
        Systems.
    shape : int or sequence of int
        Points per axis.
    drift : float in [0, 1]
        Relative change of the random field g from one system to the next; 1 makes them independent.
    seed : int
    wavenumber, deviation : float

    Examples
    --------
    >>> A, b, context = next(helmholtz_sequence(shape=(20, 20)))
    >>> values = np.linalg.eigvalsh(A.tocsr().toarray())
    >>> bool(values[0] < 0 < values[-1])
    True
    """
    grid, spacing = _unit_cube(shape, length)
    field = RandomField(grid, drift, np.random.default_rng(seed))
    for _ in range(length):
        k = wavenumber * (1.0 + deviation * field.values())
        yield helmholtz(grid, k, spacing), np.ones(k.size), field.context
        field.advance()


def convection_diffusion_sequence(
    length: int = 300, shape: int | Sequence[int] = (100, 100), drift: float = 1.0, seed: int = 0
) -> Iterator[Similar]:
    r"""Transport :math:`-\nabla^2 u + v\cdot\nabla u = 1`, v = (60, 40, ...) each modulated by 50 % at random; upwind.

    Parameters
    ----------
    length : int
        Systems.
    shape : int or sequence of int
        Points per axis.
    drift : float in [0, 1]
        Relative change of the random fields that modulate v from one system to the next; 1 makes them independent.
    seed : int

    Examples
    --------
    >>> A, b, context = next(convection_diffusion_sequence(shape=(9, 9)))
    >>> A.shape, context.shape
    ((81, 81), (512,))
    """
    grid, spacing = _unit_cube(shape, length)
    rng = np.random.default_rng(seed)
    fields = [RandomField(grid, drift, rng) for _ in grid]
    for _ in range(length):
        velocity = [(60.0 if axis == 0 else 40.0) * (1.0 + 0.5 * field.values()) for axis, field in enumerate(fields)]
        A = convection_diffusion(grid, velocity, spacing=spacing)
        yield A, np.ones(A.shape[0]), np.concatenate([field.context for field in fields])
        for field in fields:
            field.advance()


def heat_sequence(
    length: int = 300,
    shape: int | Sequence[int] = (100, 100),
    drift: float = 0.05,
    seed: int = 0,
    step: float = 1e-3,
) -> Iterator[Similar]:
    r"""Implicit Euler steps of :math:`u_t = \kappa(t) \nabla^2 u + f`.

    .. math:: (I - \tau\kappa_t\nabla^2)\, u_{t+1} = u_t + \tau f_t

    The conductivity :math:`\kappa = e^g` drifts, the source is a bump that goes round (after Khodak et al., Learning to
    relax, arXiv 2310.02246, section 4). The states on the right-hand sides are exact, by sine transforms; the context
    is :math:`\kappa_t`.

    Parameters
    ----------
    length : int
        Systems.
    shape : int or sequence of int
        Points per axis.
    drift : float in [0, 1]
        Relative change of the random exponent g from one system to the next; 1 makes them independent.
    seed : int
    step : float
        The time step :math:`\tau`.

    Examples
    --------
    >>> (A, b, kappa), (_, following, _) = heat_sequence(length=2, shape=(10, 10))
    >>> u = np.linalg.solve(A.tocsr().toarray(), b)
    >>> bool(np.linalg.norm(following - u) < 0.1 * np.linalg.norm(u))  # u itself, and one step of the source
    True
    """
    grid, spacing = _unit_cube(shape, length)
    rng = np.random.default_rng(seed)
    laplacian = poisson(grid, spacing)
    x = np.stack(np.meshgrid(*[np.arange(1, points + 1) / (points + 1) for points in grid], indexing="ij"))
    eigenvalues = sum(
        (2.0 * np.sin(np.pi * ((index + 1) / (points + 1)) / 2.0) / h) ** 2
        for index, points, h in zip(np.indices(grid), grid, spacing, strict=True)
    )
    g, phase = rng.standard_normal(), rng.random()
    u = _bump(x, np.full(len(grid), 0.5), 0.25)
    for t in range(length):
        kappa = np.exp(g)
        angle = 2.0 * np.pi * (phase + 8.0 * step * t)
        centre = np.full(len(grid), 0.5) + 0.25 * np.resize([np.cos(angle), np.sin(angle)], len(grid))
        b = u + step * 32.0 * _bump(x, centre, 0.125)
        coefficients = step * kappa * laplacian.coefficients
        coefficients[laplacian.offsets.index((0,) * len(grid))] += 1.0
        A = StencilOperator(
            laplacian.offsets, coefficients, grid, spacing, boundary=laplacian.boundary, centring=laplacian.centring
        )
        yield A, b.ravel(), np.array([kappa])
        u = idstn(dstn(b, type=1) / (1.0 + step * kappa * eigenvalues), type=1)
        g = np.sqrt(1.0 - drift**2) * g + drift * rng.standard_normal()


def _bump(x: np.ndarray, centre: np.ndarray, radius: float) -> np.ndarray:
    """exp(1 - 1 / (1 - s)), s the squared distance from the centre over the squared radius; zero where s >= 1."""
    s = sum((x[a] - centre[a]) ** 2 for a in range(len(x))) / radius**2
    inside = np.minimum(s, 1.0 - 1e-9)
    return np.where(s < 1.0, np.exp(1.0 - 1.0 / (1.0 - inside)), 0.0)


sequences: Registry = Registry("sequence")
for name, sequence in {
    "constant": constant_sequence,
    "darcy-lognormal-drifting": darcy_sequence,
    "darcy-lognormal-independent": partial(darcy_sequence, drift=1.0),
    "darcy-binary-drifting": partial(darcy_sequence, contrast=4.0),
    "darcy-binary-independent": partial(darcy_sequence, drift=1.0, contrast=4.0),
    "helmholtz-drifting": helmholtz_sequence,
    "convection-diffusion-independent": convection_diffusion_sequence,
    "heat": heat_sequence,
}.items():
    sequences.register(name)(sequence)
