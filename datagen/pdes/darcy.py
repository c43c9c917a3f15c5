"""Darcy flow: the pressure of a fluid in a porous medium."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from datagen import legacy_fno
from datagen.discretise import Boundary, Dirichlet, diffusion
from datagen.family import Family, Field, LinearSystem, Sample, register
from datagen.fields import GaussianRandomField
from datagen.grids import Grid, as_shape

COEFFICIENTS = ("binary", "lognormal")


@register("darcy")
@dataclass(frozen=True)
class Darcy(Family):
    """Steady Darcy flow with a random permeability,

        -div(a grad u) = f  in (0, 1)^d,    u = 0 on the boundary,

    dimensionless, on a cell-centred grid (values at ``(i + 1/2) / n``), discretised by flux-form finite volumes with
    harmonic face averages (`datagen.discretise.diffusion`): second order where a is smooth.

    The permeability comes from a Gaussian field g with covariance ``(-Laplacian + tau^2)^(-alpha)`` under zero Neumann
    conditions: binary, ``a = high`` where g >= 0 and ``low`` elsewhere, or lognormal, ``a = exp(g)`` with g scaled to
    the standard deviation asked for.

    Follows Li et al. 2021 (Fourier Neural Operator, section 5.2 and appendix A.3.2: 12 and 3, tau = 3, alpha = 2), with
    three differences. Their generator interpolates the coefficient by splines, which overshoot at the jumps, and
    averages it arithmetically, so that their labels are another problem's; its published script has 4 where the paper
    says 3; and it draws another field at every resolution. As it does, we leave the constant mode out
    (``zero_mean``).

    ``legacy_fno`` repeats the numerical scheme of that script (`datagen.legacy_fno`), in two dimensions and with as
    many cells along both; ``pde=darcy_legacy_fno`` adds its 12 and 4 (``low=3``: the paper's). These labels are for
    comparison: some of them are negative, and where the coefficient jumps they are of first order at best. The random
    field has the script's law, drawn in our order; its lognormal coefficient has ``log_standard_deviation`` 0.2921.

    Your own permeability: put an array of the grid's shape into a `Sample` and hand it to `system`.

    Parameters
    ----------
    grid : int or sequence of int
        Cells per axis.
    dimension : int
        1, 2 or 3.
    coefficient : str
        "binary" or "lognormal".
    low, high : float
        The two values of the binary coefficient.
    log_standard_deviation : float
        Of ``log a``, averaged over the domain (lognormal only).
    alpha, tau : float
        Smoothness (more than d/2) and inverse correlation length of g.
    zero_mean : bool
        Whether g lacks the constant mode.
    source : float
        f.
    legacy_fno : bool
        Whether to solve as the published script does.

    Notes
    -----
    Good values: the defaults; lognormal with standard deviation 1 (contrast about 100) and ``tau`` 3 to 10.

    Truth: the sine series for a = 1; manufactured solutions with smooth a show order 2 in 1 to 3 dimensions; maximum
    principle and conservation; an independent assembly (`datagen.steady_assemblies`).

    Examples
    --------
    >>> family = Darcy(grid=16)
    >>> sample = family.sample(np.random.default_rng(7))
    >>> np.unique(sample.fields["coefficient"])
    array([ 3., 12.])
    >>> system = family.system(sample)
    >>> system.A.shape
    (256, 256)
    """

    grid: int | tuple[int, ...] = 64
    dimension: int = 2
    coefficient: str = "binary"
    low: float = 3.0
    high: float = 12.0
    log_standard_deviation: float = 1.0
    alpha: float = 2.0
    tau: float = 3.0
    zero_mean: bool = True
    source: float = 1.0
    legacy_fno: bool = False

    title: ClassVar[str] = "Darcy flow, -div(a grad u) = f, u = 0 on the boundary"
    fields: ClassVar[tuple[Field, ...]] = (
        Field("coefficient", "input", "dimensionless", "permeability a"),
        Field("pressure", "output", "dimensionless", "pressure u"),
    )

    def __post_init__(self) -> None:
        if self.dimension not in (1, 2, 3):
            raise ValueError(f"darcy: dimension must be 1, 2 or 3, got {self.dimension!r}")
        shape = as_shape(self.grid, self.dimension, "darcy: grid")
        if not isinstance(self.grid, int):
            object.__setattr__(self, "grid", shape)
        if self.coefficient not in COEFFICIENTS:
            raise ValueError(f"darcy: coefficient must be {' or '.join(COEFFICIENTS)}, got {self.coefficient!r}")
        for name in ("low", "high", "log_standard_deviation"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"darcy: {name} must be positive and finite, got {value!r}")
        if not math.isfinite(self.source):
            raise ValueError(f"darcy: source must be finite, got {self.source!r}")
        if self.legacy_fno and not (self.dimension == 2 and shape[0] == shape[1] >= 4):
            raise ValueError(
                "darcy: legacy_fno needs two dimensions and the same number of cells along both, at least 4; "
                f"got {self.grid!r} in {self.dimension}"
            )
        self._field().with_standard_deviation(1.0)  # checks alpha and tau

    def _field(self) -> GaussianRandomField:
        field = GaussianRandomField(
            self.alpha, self.tau, basis="neumann", lengths=self.mesh.lengths, zero_mean=self.zero_mean
        )
        return field if self.coefficient == "binary" else field.with_standard_deviation(self.log_standard_deviation)

    @cached_property
    def mesh(self) -> Grid:
        """Cells of the unit box."""
        return Grid(as_shape(self.grid, self.dimension), (1.0,) * self.dimension)

    @property
    def boundary(self) -> Boundary:
        """Zero pressure on every side."""
        return ((Dirichlet(0.0), Dirichlet(0.0)),) * self.dimension

    def sample(self, rng: np.random.Generator) -> Sample:
        """Draw a permeability field."""
        field = self._field().sample(rng.spawn(1)[0], self.mesh)
        if self.coefficient == "binary":
            values = np.where(field >= 0, self.high, self.low)
        else:
            values = np.exp(field)
        return Sample({"coefficient": values})

    def system(self, sample: Sample) -> LinearSystem:
        """The finite-volume system of a permeability field; symmetric positive definite (not so with legacy_fno)."""
        mesh, coefficient = self.mesh, self.values(sample, "coefficient")
        if self.legacy_fno:
            return legacy_fno.darcy_system(coefficient, self.source)
        operator, load = diffusion(coefficient, mesh, self.boundary)
        load += self.source
        return LinearSystem(operator, load.reshape(-1), lambda x: x.reshape(mesh.shape))

    def quality(self, sample: Sample, solution: Mapping[str, NDArray[Any]]) -> dict[str, float]:
        """Range of the pressure, and the relative mismatch of outflow and source (zero for an exact solve).

        Summing the equation over all cells leaves the flux through the boundary, which must carry all that the source
        supplies.
        """
        if self.legacy_fno:
            system = self.system(sample)
            supplied = float(system.b.sum())
            left = float((system.A @ system.to_vector(solution["pressure"])).sum())
        else:
            a, u = sample.fields["coefficient"], np.asarray(solution["pressure"], dtype=np.float64)
            supplied = self.source * self.mesh.size
            # Half a cell from the centre to the wall: a flux 2 a u / h, over the area of a face, in cell volumes.
            left = sum(
                float(np.vdot(np.take(a, side, axis).astype(np.float64), np.take(u, side, axis))) * 2 / h**2
                for axis, h in enumerate(self.mesh.spacing)
                for side in (0, -1)
            )
        mismatch = left - supplied
        return {
            **super().quality(sample, solution),
            "conservation_error": abs(mismatch) / abs(supplied) if supplied else abs(mismatch),
        }
