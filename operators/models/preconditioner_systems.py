"""The systems on which the learned preconditioner is trained, validated and measured: two-dimensional, definite.

Each family draws a system of any size from a random generator. Random fields are drawn by wavenumber, obstacles in the
unit square: a seed gives the same medium on every grid.
"""

import numpy as np
from scipy.fft import idctn
from scipy.sparse.csgraph import connected_components

from solvers import StencilOperator, gallery
from solvers.oblique import oblique_diffusion, tensor_of
from solvers.registry import Registry

families: Registry = Registry("family of systems")
_WAVES = 48


def random_field(n: int, rng: np.random.Generator, length: float = 0.3) -> np.ndarray:
    """Gaussian field of mean 0 and mean square 1 on n x n points; spectrum ``(pi^2 k^2 + 1 / length^2)^-2``."""
    wavenumber = np.pi**2 * sum(index.astype(float) ** 2 for index in np.indices((_WAVES, _WAVES)))
    amplitude = rng.standard_normal((_WAVES, _WAVES)) / (wavenumber + length**-2)
    amplitude[0, 0] = 0
    amplitude /= np.sqrt(np.sum(amplitude**2))
    waves = np.zeros((n, n))
    kept = min(n, _WAVES)
    waves[:kept, :kept] = n * amplitude[:kept, :kept]
    return np.asarray(idctn(waves, norm="ortho"))


def obstacles(n: int, rng: np.random.Generator, count: int = 8) -> np.ndarray:
    """Where discs and boxes lie in the unit square."""
    x, y = np.meshgrid(*[(np.arange(n) + 0.5) / n] * 2, indexing="ij")
    solid = np.zeros((n, n), dtype=bool)
    for _ in range(count):
        (cx, cy), (a, b) = rng.random(2), rng.uniform(0.03, 0.12, 2)
        box = rng.random() < 0.5
        solid |= (abs(x - cx) < a) & (abs(y - cy) < b) if box else (x - cx) ** 2 + (y - cy) ** 2 < a**2
    return solid


def around(A: StencilOperator, solid: np.ndarray) -> StencilOperator:
    """The same diffusion around insulated obstacles: their points are no unknowns, links to them are cut."""
    zero = (0,) * solid.ndim
    stencil = {offset: field.copy() for offset, field in zip(A.offsets, A.coefficients, strict=True)}
    for offset, field in stencil.items():
        if offset != zero:
            cut = (field != 0) & (solid | np.roll(solid, [-step for step in offset], axis=range(solid.ndim)))
            stencil[zero][cut] += field[cut]
            field[cut] = 0
    return without_pockets(masked(A, stencil, ~solid))


def masked(A: StencilOperator, stencil: dict[tuple[int, ...], np.ndarray], mask: np.ndarray) -> StencilOperator:
    """A on fewer points, with other coefficients."""
    fields = [np.where(mask, field, 0.0) for field in stencil.values()]
    return StencilOperator(
        list(stencil), fields, A.grid_shape, A.spacing, boundary=A.boundary, centring=A.centring, mask=mask
    )


def without_pockets(A: StencilOperator) -> StencilOperator:
    """A without what obstacles enclose, where nothing holds the constants."""
    matrix = A.tocsr()
    count, piece = connected_components(matrix)
    held = np.bincount(piece, A @ np.ones(A.shape[0]), count) > 1e-12 * np.bincount(piece, A.diagonal(), count)
    if held.all():
        return A
    stencil = dict(zip(A.offsets, A.coefficients, strict=True))
    return masked(A, stencil, A.to_field(held[piece].astype(float)) > 0)


@families.register("poisson")
def poisson(n: int, rng: np.random.Generator) -> StencilOperator:
    """The 5-point Laplacian."""
    return gallery.poisson((n, n))


@families.register("pressure")
def pressure(n: int, rng: np.random.Generator) -> StencilOperator:
    """Pressure around obstacles in a channel: walls, and an outflow on one side."""
    sides = [("neumann", "neumann"), ("neumann", "dirichlet")]
    return around(gallery.diffusion(np.ones((n, n)), 1.0, sides), obstacles(n, rng))


@families.register("darcy")
def darcy(n: int, rng: np.random.Generator) -> StencilOperator:
    """Lognormal permeability."""
    return gallery.diffusion(np.exp(1.5 * random_field(n, rng)))


@families.register("jumps")
def jumps(n: int, rng: np.random.Generator) -> StencilOperator:
    """Permeabilities of 1 and 1000, and obstacles."""
    return around(gallery.diffusion(np.where(random_field(n, rng) > 0, 1e3, 1.0)), obstacles(n, rng))


@families.register("anisotropic")
def anisotropic(n: int, rng: np.random.Generator) -> StencilOperator:
    """100 times stronger along the first axis, or the second."""
    A = gallery.diffusion(np.ones((n, n)), weights=[100.0, 1.0] if rng.random() < 0.5 else [1.0, 100.0])
    return A


@families.register("regions")
def regions(n: int, rng: np.random.Generator) -> StencilOperator:
    """100 times stronger along the first axis in some regions, along the second in others."""
    first = random_field(n, rng) > 0
    return oblique_diffusion((np.where(first, 1.0, 0.01), np.where(first, 0.01, 1.0), np.zeros((n, n))))


@families.register("rotated")
def rotated(n: int, rng: np.random.Generator) -> StencilOperator:
    """100 times stronger along a diagonal than across it; 9-point finite differences."""
    return oblique_diffusion(tensor_of(np.pi / 4 if rng.random() < 0.5 else -np.pi / 4, 100.0, (n, n)))


@families.register("oblique")
def oblique(n: int, rng: np.random.Generator) -> StencilOperator:
    """100 times stronger along one direction, whichever; finite differences or bilinear elements."""
    angle, twist = np.pi * rng.random(), (1 / 4, 1 / 12)[int(rng.integers(2))]
    return oblique_diffusion(tensor_of(angle, 100.0, (n, n)), twist=twist)


@families.register("turning")
def turning(n: int, rng: np.random.Generator) -> StencilOperator:
    """100 times stronger along a direction that turns from place to place."""
    return oblique_diffusion(tensor_of(np.pi / 2 * random_field(n, rng), 100.0, (n, n)))


@families.register("turning with obstacles")
def turning_obstacles(n: int, rng: np.random.Generator) -> StencilOperator:
    """The same around obstacles, 10 to 1000 times stronger, with jumps of up to 1000."""
    ratio, contrast = 10 ** rng.uniform(1, 3), 10 ** rng.uniform(0, 3)
    where = random_field(n, rng) > 0
    xx, yy, xy = tensor_of(np.pi / 2 * random_field(n, rng), ratio, (n, n))
    factor = np.where(where, contrast, 1.0)
    return without_pockets(oblique_diffusion((factor * xx, factor * yy, factor * xy), solid=obstacles(n, rng)))


# What is drawn for training, and how often; the others have nothing to learn from.
TRAINING = {"rotated": 1.0, "oblique": 2.5, "turning": 2.0, "turning with obstacles": 2.5, "regions": 2.0}
