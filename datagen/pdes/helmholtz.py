"""The Helmholtz equation: waves of one frequency in a medium that varies."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datagen.discretise import Boundary, Dirichlet, Neumann, Robin, diffusion
from datagen.family import Family, Field, LinearSystem, Sample, register
from datagen.fields import GaussianRandomField
from datagen.grids import Grid, as_shape
from solvers.stencil import StencilOperator

CONDITIONS = ("dirichlet", "impedance")
POINTS_PER_WAVELENGTH = 6


@register("helmholtz")
@dataclass(frozen=True)
class Helmholtz(Family):
    """Time-harmonic waves ``u exp(-i omega t)`` from a source, with a random wavenumber field k,

        -div grad u - k^2 u = f  in (0, 1)^d,

    dimensionless, d = 1, 2 or 3, on a cell-centred grid (values at ``(i + 1/2) / n``), second order. On all sides

    - "dirichlet": ``u = 0``; u is real, the matrix symmetric and, beyond the first resonance
      (``k^2 > d pi^2`` for constant k), indefinite;
    - "impedance": ``du/dn - i k u = 0``, which lets plane waves out that meet the side at a right angle; u is complex
      and stored as two real fields, the matrix complex symmetric. k on a side is extrapolated linearly from two cells.

    The medium is ``k = wavenumber exp(z)``, z a Gaussian field with covariance proportional to
    ``(-Laplacian + tau^2)^(-alpha)`` under zero Neumann conditions. The source is a bump of integral 1,
    ``f = exp(-|x - c|^2 / (2 w^2)) / (2 pi w^2)^(d/2)``, its centre c uniform in the middle half of the box.

    The set of Wang et al. 2024 (SKR, ICLR, arXiv 2401.09516) goes by the same name, but its shipped script takes k from
    U(0, 1), below any resonance, and has a random field under the Laplacian; we follow the equation of the paper, with
    a k that makes waves, and a source.

    The scheme's waves are too short by the relative amount ``(k h)^2 / 24`` along an axis, so that over one unit of
    length the phase is off by ``k^3 h^2 / 24``: for small errors of the phase the grid must grow like ``k^(3/2)``.
    Grids with fewer than 6 points per wavelength ``2 pi / wavenumber`` are refused.

    Your own k or f: put arrays of the grid's shape into a `Sample` and hand it to `system`.

    Parameters
    ----------
    grid : int or sequence of int
        Cells per axis.
    dimension : int
        1, 2 or 3.
    condition : str
        "dirichlet" (output field ``wave``) or "impedance" (output fields ``wave_real``, ``wave_imaginary``).
    wavenumber : float
        k where z = 0; ``wavenumber / (2 pi)`` waves fit into the box.
    log_standard_deviation : float
        Of ``log k``, averaged over the domain.
    alpha, tau : float
        Smoothness (more than d/2) and inverse correlation length of ``log k``.
    source_width : float
        w.

    Notes
    -----
    Good values: the defaults (3 waves, 20 points each); wavenumber 40 on 192 cells is a hard one. With "dirichlet" a
    sample can lie near a resonance: its solution is large, and sensitive to k in the same measure.

    Truth: manufactured solutions with varying k show order 2 for both conditions; in one dimension the radiation
    integral of the whole line; the resonances of the box; an independent assembly (`datagen.steady_assemblies`).

    Examples
    --------
    >>> family = Helmholtz(grid=32, condition="impedance")
    >>> system = family.system(family.sample(np.random.default_rng(5)))
    >>> system.A.dtype, system.A.shape
    (dtype('complex128'), (1024, 1024))
    >>> system.to_field(system.b).shape
    (2, 32, 32)
    """

    grid: int | tuple[int, ...] = 64
    dimension: int = 2
    condition: str = "dirichlet"
    wavenumber: float = 20.0
    log_standard_deviation: float = 0.2
    alpha: float = 3.0
    tau: float = 3.0
    source_width: float = 0.05

    title: ClassVar[str] = "Helmholtz, -div grad u - k^2 u = f"
    fields: ClassVar[tuple[Field, ...]] = (
        Field("wavenumber", "input", "dimensionless", "wavenumber k"),
        Field("source", "input", "dimensionless", "source f"),
        Field("wave", "output", "dimensionless", "solution u"),
    )

    def __post_init__(self) -> None:
        if self.dimension not in (1, 2, 3):
            raise ValueError(f"helmholtz: dimension must be 1, 2 or 3, got {self.dimension!r}")
        shape = as_shape(self.grid, self.dimension, "helmholtz: grid")
        if not isinstance(self.grid, int):
            object.__setattr__(self, "grid", shape)
        if self.condition not in CONDITIONS:
            raise ValueError(f"helmholtz: condition must be {' or '.join(CONDITIONS)}, got {self.condition!r}")
        for name in ("wavenumber", "log_standard_deviation", "source_width"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"helmholtz: {name} must be positive and finite, got {value!r}")
        self._field()  # checks alpha and tau
        needed = math.ceil(POINTS_PER_WAVELENGTH * self.wavenumber / (2 * math.pi))
        if min(shape) < needed:
            raise ValueError(
                f"helmholtz: wavenumber {self.wavenumber:g} needs a grid of at least {needed} cells per axis "
                f"({POINTS_PER_WAVELENGTH} per wavelength), got {self.grid!r}"
            )
        if self.condition == "impedance":
            real = Field("wave_real", "output", "dimensionless", "real part of the solution u")
            imaginary = Field("wave_imaginary", "output", "dimensionless", "imaginary part of the solution u")
            object.__setattr__(self, "fields", (*type(self).fields[:2], real, imaginary))

    def _field(self) -> GaussianRandomField:
        field = GaussianRandomField(self.alpha, self.tau, basis="neumann", lengths=self.mesh.lengths)
        return field.with_standard_deviation(self.log_standard_deviation)

    @property
    def mesh(self) -> Grid:
        """Cells of the unit box."""
        return Grid(as_shape(self.grid, self.dimension), (1.0,) * self.dimension)

    @property
    def boundary(self) -> Boundary:
        """The same condition on every side; the Robin coefficient of an impedance side is ``-i k``, of the sample."""
        side: Any = Dirichlet(0.0) if self.condition == "dirichlet" else Robin(0.0)
        return ((side, side),) * self.dimension

    def sample(self, rng: np.random.Generator) -> Sample:
        """Draw a medium and the place of a source."""
        mesh = self.mesh
        logarithm = self._field().sample(rng.spawn(1)[0], mesh)
        centre = rng.uniform(0.25, 0.75, self.dimension)
        squares = sum((x - c) ** 2 for x, c in zip(mesh.points(), centre, strict=True))
        bump = np.exp(-squares / (2 * self.source_width**2)) / (2 * np.pi * self.source_width**2) ** (
            self.dimension / 2
        )
        return Sample({"wavenumber": self.wavenumber * np.exp(logarithm), "source": bump})

    def system(self, sample: Sample) -> LinearSystem:
        """The system of a medium and a source: real symmetric, or complex symmetric with impedance sides."""
        mesh = self.mesh
        k, source = self.values(sample, "wavenumber"), self.values(sample, "source")
        if self.condition == "dirichlet":
            operator = diffusion(np.ones(mesh.shape), mesh, self.boundary)[0]
            operator = _with_diagonal(operator, -(k**2))
            return LinearSystem(operator, source.ravel(), lambda x: x.reshape(mesh.shape))

        operator = diffusion(np.ones(mesh.shape), mesh, ((Neumann(), Neumann()),) * mesh.dimension)[0]
        operator = _with_diagonal(operator, impedance(k, mesh) - k**2)
        return LinearSystem(
            operator,
            source.ravel().astype(np.complex128),
            lambda x: np.stack([x.real, x.imag]).reshape(2, *mesh.shape),
            lambda field: (np.asarray(field)[0] + 1j * np.asarray(field)[1]).ravel(),
        )


def impedance(k: NDArray[np.float64], mesh: Grid) -> NDArray[np.complex128]:
    """What ``du/dn = i k u`` on all sides adds to the diagonal, shape mesh.shape.

    The half cell of conductance ``c = 2 / h`` in series with the side's transfer coefficient ``t = -i k`` lets the flux
    ``c t / (c + t) u`` out.

    Parameters
    ----------
    k : ndarray, of the grid's shape
        Wavenumber.
    mesh : Grid
    """
    added = np.zeros(mesh.shape, dtype=np.complex128)
    for axis, h in enumerate(mesh.spacing):
        for first, second in ((0, 1), (-1, -2)):
            side = (slice(None),) * axis + (first,)
            inner = (slice(None),) * axis + (second,)
            transfer = -1j * np.maximum((3 * k[side] - k[inner]) / 2, 0)
            added[side] += 2 / h * transfer / (2 / h + transfer) / h
    return added


def _with_diagonal(operator: StencilOperator, added: ArrayLike) -> StencilOperator:
    """The operator with something added to its diagonal."""
    coefficients = operator.coefficients.astype(np.result_type(operator.dtype, np.asarray(added)))
    coefficients[operator.offsets.index((0,) * len(operator.grid_shape))] += added
    return StencilOperator(
        operator.offsets,
        coefficients,
        shape=operator.grid_shape,
        spacing=operator.spacing,
        boundary=operator.boundary,
        centring=operator.centring,
    )
