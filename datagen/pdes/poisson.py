"""Poisson's equation: the potential of a charge, the deflection of a membrane, a stationary temperature."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.polynomial.chebyshev import chebvander
from numpy.typing import NDArray

from datagen.discretise import Boundary, Dirichlet, diffusion_on_nodes
from datagen.family import Family, Field, LinearSystem, Sample, register
from datagen.fields import GaussianRandomField
from datagen.grids import Grid, as_shape

COEFFICIENTS = ("constant", "lognormal")
VARIABLES = ("first", "all")


@register("poisson")
@dataclass(frozen=True)
class Poisson(Family):
    """Poisson's equation with random right-hand side and random boundary values,

        -div(a grad u) = f  in (0, 1)^d,    u = g on the boundary,

    dimensionless, d = 1, 2 or 3, Dirichlet conditions on every side, on a node-centred grid with both ends included
    (values at ``i / (n - 1)``), discretised by flux-form finite volumes (`datagen.discretise.diffusion_on_nodes`):
    second order.

    f, and g on each of the 2 d sides, are series of Chebyshev polynomials with independent coefficients,
    ``sum over j < terms of c_j T_j(2 x - 1)``, ``c_j ~ U(-1, 1)``. With ``variables="first"`` all of them are functions
    of the first coordinate alone, so that the two sides normal to it have constant values; with "all" they are sums of
    products ``c_jk... T_j(2 x - 1) T_k(2 y - 1) ...`` in all the coordinates of the box or side. Where sides meet, the
    stored g is their mean; the scheme does not see these nodes.

    The coefficient is 1, or lognormal, ``a = exp(z)``, z a Gaussian field with covariance proportional to
    ``(-Laplacian + tau^2)^(-alpha)`` under zero Neumann conditions.

    Follows Wang et al. 2024 (SKR, ICLR, arXiv 2401.09516: 6 terms, functions of x alone), with two differences. They
    solve by quadratic finite elements on an unstructured mesh, and theirs is ``+Laplacian u = f``. In their set, as in
    ours with ``coefficient="constant"``, all systems share one matrix, and with ``variables="first"`` in two dimensions
    the solutions lie in a space of 20 dimensions (6 of f, 12 of two sides, 2 constants): a direct solver's factors or
    linear regression reproduce them all. ``coefficient="lognormal"`` has another matrix every time.

    Your own f, g or a: put arrays of the grid's shape into a `Sample` and hand it to `system`, as in the example.

    Parameters
    ----------
    grid : int or sequence of int
        Nodes per axis, both ends included; at least 3.
    dimension : int
        1, 2 or 3.
    coefficient : str
        "constant" (then there is no field of that name) or "lognormal".
    terms : int
        Chebyshev polynomials per variable.
    variables : str
        "first" or "all".
    log_standard_deviation : float
        Of ``log a``, averaged over the domain (lognormal only).
    alpha, tau : float
        Smoothness (more than d/2) and inverse correlation length of ``log a``.

    Notes
    -----
    Good values: the defaults are the published set; ``coefficient="lognormal", variables="all"`` is a harder one.

    Truth: manufactured solutions with varying a show order 2 in 1 to 3 dimensions; without a source the extremes lie on
    the boundary; an independent assembly (`datagen.steady_assemblies`).

    Examples
    --------
    >>> family = Poisson(grid=17)
    >>> [field.name for field in family.fields]
    ['source', 'boundary_value', 'potential']
    >>> x, y = family.mesh.points()
    >>> mine = Sample({"source": np.full((17, 17), -4.0), "boundary_value": x**2 + y**2})
    >>> system = family.system(mine)
    >>> u = system.to_field(np.linalg.solve(system.A.tocsr().toarray(), system.b))
    >>> bool(np.allclose(u, x**2 + y**2))
    True
    """

    grid: int | tuple[int, ...] = 65
    dimension: int = 2
    coefficient: str = "constant"
    terms: int = 6
    variables: str = "first"
    log_standard_deviation: float = 1.0
    alpha: float = 2.0
    tau: float = 3.0

    title: ClassVar[str] = "Poisson, -div(a grad u) = f, u = g on the boundary"
    fields: ClassVar[tuple[Field, ...]] = (
        Field("coefficient", "input", "dimensionless", "coefficient a"),
        Field("source", "input", "dimensionless", "right-hand side f"),
        Field("boundary_value", "input", "dimensionless", "g on the boundary nodes, zero inside"),
        Field("potential", "output", "dimensionless", "solution u"),
    )

    def __post_init__(self) -> None:
        if self.dimension not in (1, 2, 3):
            raise ValueError(f"poisson: dimension must be 1, 2 or 3, got {self.dimension!r}")
        shape = as_shape(self.grid, self.dimension, "poisson: grid")
        if min(shape) < 3:
            raise ValueError(f"poisson: grid must have at least 3 nodes along every axis, got {self.grid!r}")
        if not isinstance(self.grid, int):
            object.__setattr__(self, "grid", shape)
        for name, known in (("coefficient", COEFFICIENTS), ("variables", VARIABLES)):
            if getattr(self, name) not in known:
                raise ValueError(f"poisson: {name} must be {' or '.join(known)}, got {getattr(self, name)!r}")
        if not 1 <= self.terms <= 100:
            raise ValueError(f"poisson: terms must be from 1 to 100, got {self.terms!r}")
        if not (np.isfinite(self.log_standard_deviation) and self.log_standard_deviation > 0):
            raise ValueError(
                f"poisson: log_standard_deviation must be positive and finite, got {self.log_standard_deviation!r}"
            )
        self._field()  # checks alpha and tau
        if self.coefficient == "constant":
            object.__setattr__(self, "fields", type(self).fields[1:])

    def _field(self) -> GaussianRandomField:
        field = GaussianRandomField(self.alpha, self.tau, basis="neumann", lengths=self.mesh.lengths)
        return field.with_standard_deviation(self.log_standard_deviation)

    @property
    def mesh(self) -> Grid:
        """Nodes of the unit box, both ends included."""
        return Grid(as_shape(self.grid, self.dimension), (1.0,) * self.dimension, "node")

    @property
    def boundary(self) -> Boundary:
        """Dirichlet on every side; the values are the sample's."""
        return ((Dirichlet(0.0), Dirichlet(0.0)),) * self.dimension

    def sample(self, rng: np.random.Generator) -> Sample:
        """Draw a source, boundary values and, if it varies, a coefficient.

        The Chebyshev coefficients do not depend on the grid: every resolution sees the same functions.
        """
        coefficient_rng = rng.spawn(1)[0]
        mesh = self.mesh
        axes = [mesh.coordinates(axis) for axis in range(mesh.dimension)]
        source = self._series(rng, axes)
        boundary_value, sides_that_meet = np.zeros(mesh.shape), np.zeros(mesh.shape)
        for axis in range(mesh.dimension):
            for end in (slice(0, 1), slice(-1, None)):
                side = tuple(end if i == axis else slice(None) for i in range(mesh.dimension))
                on_side = [x[end] if i == axis else x for i, x in enumerate(axes)]
                boundary_value[side] += self._series(rng, on_side, normal=axis)
                sides_that_meet[side] += 1
        fields = {"source": source, "boundary_value": boundary_value / np.maximum(sides_that_meet, 1)}
        if self.coefficient == "lognormal":
            fields["coefficient"] = np.exp(self._field().sample(coefficient_rng, mesh))
        return Sample(fields)

    def _series(
        self, rng: np.random.Generator, axes: list[NDArray[np.float64]], normal: int | None = None
    ) -> NDArray[np.float64]:
        """A random Chebyshev series on the product of the axes; of the normal coordinate only if that is the first."""
        variables = [0] if self.variables == "first" else [i for i in range(len(axes)) if i != normal]
        series: NDArray[np.float64] = rng.uniform(-1, 1, (self.terms,) * len(variables))
        for axis in variables:
            # tensordot moves the axis it contracts to the end, so that all of them come back into order.
            series = np.tensordot(series, chebvander(2 * axes[axis] - 1, self.terms - 1), axes=(0, 1))
        along = [len(x) if axis in variables else 1 for axis, x in enumerate(axes)]
        return np.broadcast_to(series.reshape(along), [len(x) for x in axes])

    def system(self, sample: Sample) -> LinearSystem:
        """The finite-volume system of the interior nodes; symmetric positive definite."""
        mesh = self.mesh
        interior = (slice(1, -1),) * mesh.dimension
        source, boundary_value = self.values(sample, "source"), self.values(sample, "boundary_value")
        varies = self.coefficient != "constant"
        coefficient = self.values(sample, "coefficient") if varies else np.ones(mesh.shape)
        operator, load = diffusion_on_nodes(coefficient, mesh, boundary_value)

        def to_field(x: NDArray[Any]) -> NDArray[Any]:
            field = boundary_value.astype(x.dtype)
            field[interior] = x.reshape(load.shape)
            return field

        return LinearSystem(
            operator, (source[interior] + load).ravel(), to_field, lambda field: np.asarray(field)[interior].ravel()
        )
