"""Stationary heat conduction in a plate with a slot."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from datagen.discretise import Boundary, Dirichlet, Neumann, diffusion
from datagen.family import Family, Field, LinearSystem, Sample, register
from datagen.fields import GaussianRandomField
from datagen.grids import Grid, as_shape


@register("thermal_plate")
@dataclass(frozen=True)
class ThermalPlate(Family):
    """Stationary temperature of a plate with a slot in its middle,

        -div(k grad T) = 0  in the plate,    T given on the left and the right edge,
        k dT/dn = 0  on the lower and the upper edge and around the slot,

    in two dimensions; x (the first axis) from left to right. T in degrees Celsius, lengths in metres, k in W/(m K). On
    a cell-centred grid over the whole rectangle (values at ``(i + 1/2) h``), of which the cells with their centre in
    the slot are left out; flux-form finite volumes (`datagen.discretise.diffusion` with a mask): second order for
    smooth T, less around the slot's corners, where the gradient of T is infinite (``r^(-1/3)``). In the slot k and T
    are stored as 0: k = 0 is what tells a learner where it is.

    The two edges have independent uniform temperatures. The conductivity is lognormal, ``k = exp(z)``, z a Gaussian
    field with covariance proportional to ``(-Laplacian + tau^2)^(-alpha)`` under zero Neumann conditions of the
    rectangle. The input field ``edge_temperature`` holds the temperature of the edge in the first and the last cell of
    each row and 0 between them.

    Follows the thermal set of Wang et al. 2024 (SKR, ICLR, arXiv 2401.09516: left edge U(-100, 0), right U(0, 100)) on
    the rectangle 1 by 1.6 with a slot 0.1 by 0.8 of MATLAB's example "Heat Transfer in Block with Cavity", with three
    differences. Their conductivity is constant, so that all systems share one matrix and the solutions are combinations
    of two; their script prescribes a heat flux on one of the edges; and they use quadratic finite elements.

    Your own conductivity or edge temperatures, which may vary along the edge: put arrays of the grid's shape into a
    `Sample` and hand it to `system`. Conductivities in the slot, and edge temperatures in inner cells, do not matter.

    Parameters
    ----------
    grid : int or sequence of int
        Cells per axis of the whole rectangle.
    lengths : sequence of float
        Width and height of the plate.
    slot : sequence of float
        Width and height of the slot, less than the plate's. Multiples of two cells are met exactly.
    left, right : sequence of float
        Lowest and highest temperature of each edge.
    log_standard_deviation : float
        Of ``log k``, averaged over the rectangle.
    alpha, tau : float
        Smoothness (more than 1) and inverse correlation length (1/m) of ``log k``.

    Notes
    -----
    Good values: the defaults; multiples of 20 by 32 cells, which meet the slot exactly.

    Truth: the conductance of the plate lies between Rayleigh's bounds and meets that of finite elements at the order of
    the corners; maximum principle, conservation of heat and symmetry; an independent assembly
    (`datagen.steady_assemblies`).

    Examples
    --------
    >>> family = ThermalPlate(grid=(20, 32))
    >>> system = family.system(family.sample(np.random.default_rng(5)))
    >>> system.A.shape  # 20 * 32 cells less 2 * 16 of the slot
    (608, 608)
    """

    grid: int | tuple[int, ...] = (40, 64)
    lengths: tuple[float, ...] = (1.0, 1.6)
    slot: tuple[float, ...] = (0.1, 0.8)
    left: tuple[float, ...] = (-100.0, 0.0)
    right: tuple[float, ...] = (0.0, 100.0)
    log_standard_deviation: float = 0.5
    alpha: float = 2.0
    tau: float = 3.0

    title: ClassVar[str] = "Thermal plate with a slot, -div(k grad T) = 0, T given on two edges"
    fields: ClassVar[tuple[Field, ...]] = (
        Field("conductivity", "input", "W/(m K)", "conductivity k, 0 in the slot"),
        Field(
            "edge_temperature", "input", "degC", "temperature of the left and the right edge in the cells beside them"
        ),
        Field("temperature", "output", "degC", "temperature T, 0 in the slot"),
    )

    def __post_init__(self) -> None:
        shape = as_shape(self.grid, 2, "thermal_plate: grid")
        if not isinstance(self.grid, int):
            object.__setattr__(self, "grid", shape)
        for name in ("lengths", "slot", "left", "right"):
            pair = tuple(float(value) for value in getattr(self, name))
            if len(pair) != 2 or not all(math.isfinite(value) for value in pair):
                raise ValueError(f"thermal_plate: {name} must be two finite numbers, got {getattr(self, name)!r}")
            object.__setattr__(self, name, pair)
        for name in ("left", "right"):
            lowest, highest = getattr(self, name)
            if lowest > highest:
                raise ValueError(
                    f"thermal_plate: {name} must be the lowest and the highest temperature, got {getattr(self, name)!r}"
                )
        if not all(0 < s < length for s, length in zip(self.slot, self.lengths, strict=True)):
            raise ValueError(
                f"thermal_plate: slot must be smaller than the plate, lengths={self.lengths}, got {self.slot!r}"
            )
        if not (math.isfinite(self.log_standard_deviation) and self.log_standard_deviation > 0):
            raise ValueError(
                "thermal_plate: log_standard_deviation must be positive and finite, "
                f"got {self.log_standard_deviation!r}"
            )
        self._field()  # checks alpha and tau
        plate = self.plate
        if plate.all():
            raise ValueError(
                f"thermal_plate: the slot {self.slot} lies between the cells of grid {self.grid!r}; refine it"
            )
        if not (plate[[0, -1]].all() and plate[:, [0, -1]].all()):
            raise ValueError(
                f"thermal_plate: grid {self.grid!r} has no cell between the slot {self.slot} and the edges; refine it"
            )

    def _field(self) -> GaussianRandomField:
        field = GaussianRandomField(self.alpha, self.tau, basis="neumann", lengths=self.lengths)
        return field.with_standard_deviation(self.log_standard_deviation)

    @property
    def mesh(self) -> Grid:
        """Cells of the whole rectangle."""
        return Grid(as_shape(self.grid, 2), self.lengths)

    @property
    def plate(self) -> NDArray[np.bool_]:
        """Which cells are not in the slot, shape mesh.shape."""
        inside = np.ones(self.mesh.shape, dtype=bool)
        for x, length, slot in zip(self.mesh.points(), self.lengths, self.slot, strict=True):
            inside &= abs(x - length / 2) < slot / 2
        return ~inside

    @property
    def boundary(self) -> Boundary:
        """Temperatures, which are the sample's, on the left and the right; insulated above and below."""
        return ((Dirichlet(0.0), Dirichlet(0.0)), (Neumann(0.0), Neumann(0.0)))

    def sample(self, rng: np.random.Generator) -> Sample:
        """Draw a conductivity and two edge temperatures."""
        conductivity = np.exp(self._field().sample(rng.spawn(1)[0], self.mesh))
        edge_temperature = np.zeros(self.mesh.shape)
        edge_temperature[0], edge_temperature[-1] = (rng.uniform(low, high) for low, high in (self.left, self.right))
        return Sample({"conductivity": np.where(self.plate, conductivity, 0.0), "edge_temperature": edge_temperature})

    def system(self, sample: Sample) -> LinearSystem:
        """The finite-volume system of the plate's cells; symmetric positive definite."""
        given = self.values(sample, "edge_temperature")
        boundary = ((Dirichlet(given[0]), Dirichlet(given[-1])), (Neumann(0.0), Neumann(0.0)))
        operator, load = diffusion(self.values(sample, "conductivity"), self.mesh, boundary, mask=self.plate)
        return LinearSystem(operator, operator.to_vector(load), operator.to_field, operator.to_vector)

    def quality(self, sample: Sample, solution: Mapping[str, NDArray[Any]]) -> dict[str, float]:
        """Range of the temperature in the plate, the heat that flows from right to left, and how much of it is lost.

        ``heat_flow`` is the heat that enters through the right edge, per metre of thickness (W/m), and
        ``conservation_error`` the difference from what leaves through the left edge, relative to the larger of the two:
        zero for an exact solve.
        """
        T = np.asarray(solution["temperature"], dtype=np.float64)
        k, given = self.values(sample, "conductivity"), self.values(sample, "edge_temperature")
        width, height = self.mesh.spacing
        enters, leaves = (
            height * float(np.sum(sign * k[row] * (given[row] - T[row]) / (width / 2)))
            for row, sign in ((-1, 1.0), (0, -1.0))
        )
        largest = max(abs(enters), abs(leaves))
        return {
            "temperature_minimum": float(T[self.plate].min()),
            "temperature_maximum": float(T[self.plate].max()),
            "heat_flow": enters,
            "conservation_error": abs(enters - leaves) / largest if largest else 0.0,
        }
