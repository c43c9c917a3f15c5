"""Boundary value problems on boxes: an operator, a right-hand side, boundary data, and a tensor grid of nodes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from operators.gp.derivatives import gradient
from operators.gp.terms import LinearOperator, PointFunction, checked_values, laplacian, partial

Array = NDArray[np.floating]
Face = tuple[int, int]
Boundary = float | PointFunction | Mapping[Face, float | PointFunction]


@dataclass(frozen=True)
class Reaction:
    """A nonlinear term of the values alone, ``R(u)``, and its derivative.

    Attributes
    ----------
    value : callable
        ``R(u)``, of arrays, elementwise.
    slope : callable
        ``dR/du``, of arrays, elementwise.
    """

    value: Callable[[Array], Array]
    slope: Callable[[Array], Array]


class Problem:
    """A boundary value problem ``L u + R(u) = f`` in a box, with values of u given on its faces.

    Parameters
    ----------
    domain : sequence of (float, float)
        Ends of the box, a pair per axis.
    operator : LinearOperator
        L, see `operators.gp.terms`.
    rhs : float or callable
        f, a number or a function of points ``(n, d)`` that returns ``(n,)``.
    boundary : float, callable or mapping
        Values of u on the faces: one number or function of points for all of them, or one for each, by
        ``(axis, side)``, side 0 the lower and 1 the upper end.
    nodes : int or sequence of int
        Nodes per axis, both ends included.
    reaction : Reaction, optional
        R; the problem is linear without it.
    faces : sequence of (int, int), optional
        The faces ``(axis, side)`` where values of u are given; all by default.
    parameters : mapping, optional
        Values of the parameters that the operator names. `operators.gp.solve` starts from them where it infers them.

    Attributes
    ----------
    axes : tuple of ndarray
        Coordinates of the nodes, axis by axis, equally spaced.

    Raises
    ------
    ValueError, TypeError
        If something does not fit: with which argument, what was expected, what was got.

    Examples
    --------
    >>> wave = partial(0, 2) - partial(2, 0)  # in (x, t): no data at the final time
    >>> problem = Problem([(0, 1), (0, 2)], wave, 0.0, 0.0, [40, 80], faces=[(0, 0), (0, 1), (1, 0)])
    >>> problem
    Problem(domain=((0.0, 1.0), (0.0, 2.0)), nodes=(40, 80))
    """

    def __init__(
        self,
        domain: Sequence[tuple[float, float]],
        operator: LinearOperator,
        rhs: float | PointFunction,
        boundary: Boundary,
        nodes: int | Sequence[int],
        *,
        reaction: Reaction | None = None,
        faces: Sequence[Face] | None = None,
        parameters: Mapping[str, float] | None = None,
    ) -> None:
        self.domain = as_domain(domain)
        self.dimension = len(self.domain)
        self.operator = operator
        if operator.dimension != self.dimension:
            raise ValueError(f"operator has orders for {operator.dimension} axes, and domain has {self.dimension}")
        self.nodes = _as_nodes(nodes, self.dimension)
        self.rhs = rhs
        self.reaction = reaction
        self.parameters = dict(parameters or {})
        if missing := operator.parameters - set(self.parameters):
            raise ValueError(f"parameters must give values for {sorted(missing)}, which the operator names")
        everywhere = [(axis, side) for axis in range(self.dimension) for side in (0, 1)]
        self.faces = tuple(everywhere if faces is None else faces)
        if unknown := [face for face in self.faces if face not in everywhere]:
            raise ValueError(f"faces must be pairs (axis, side) of a box in {self.dimension} dimensions, got {unknown}")
        self.boundary = self._as_boundary(boundary)
        self.axes = tuple(np.linspace(lo, hi, n) for (lo, hi), n in zip(self.domain, self.nodes, strict=True))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(domain={self.domain}, nodes={self.nodes})"

    @property
    def linear(self) -> bool:
        """Whether there is no reaction."""
        return self.reaction is None

    def points(self) -> Array:
        """All nodes, of shape ``(N, d)``, in C order of the grid."""
        return tensor_points(self.axes)

    def right_hand_side(self, points: Array) -> Array:
        """f at points, checked.

        Parameters
        ----------
        points : ndarray
            ``(n, d)``.
        """
        return checked_values(self.rhs, points, "rhs")

    def boundary_values(self, face: Face, points: Array) -> Array:
        """Given values of u at points of a face, checked.

        Parameters
        ----------
        face : (int, int)
            One of `faces`.
        points : ndarray
            ``(n, d)``, on it.
        """
        return checked_values(self.boundary[face], points, f"boundary on the face {face}")

    def face_points(self, face: Face, axes: Sequence[Array] | None = None) -> Array:
        """Points of a tensor grid on a face.

        Parameters
        ----------
        face : (int, int)
            Axis and side.
        axes : sequence of ndarray, optional
            Coordinates per axis; those of the nodes by default.

        Returns
        -------
        ndarray
            ``(n, d)``.
        """
        axis, side = face
        chosen = list(self.axes if axes is None else axes)
        chosen[axis] = np.array([self.domain[axis][side]])
        return tensor_points(chosen)

    def _as_boundary(self, boundary: Boundary) -> dict[Face, float | PointFunction]:
        """One number or function for each face that has data, and no two that differ where faces meet."""
        if boundary is None:
            raise ValueError(f"boundary is missing: values of u on the faces {list(self.faces)} of the box")
        if not isinstance(boundary, Mapping):
            return dict.fromkeys(self.faces, boundary)
        if missing := [face for face in self.faces if face not in boundary]:
            raise ValueError(f"boundary is missing on the faces {missing}; it was given on {list(boundary)}")
        if excess := [face for face in boundary if face not in self.faces]:
            raise ValueError(
                f"boundary is given on {excess}, where this problem takes no data; it does on {list(self.faces)}"
            )
        given = {face: boundary[face] for face in self.faces}
        self._check_meeting(given)
        return given

    def _check_meeting(self, boundary: Mapping[Face, float | PointFunction]) -> None:
        """Faces share edges: what two functions say there must be one value."""
        for first in self.faces:
            for second in self.faces:
                if second[0] <= first[0]:
                    continue
                axes = [np.linspace(lo, hi, 9) for lo, hi in self.domain]
                for axis, side in (first, second):
                    axes[axis] = np.array([self.domain[axis][side]])
                edge = tensor_points(axes)
                one, other = (checked_values(boundary[face], edge, f"boundary on {face}") for face in (first, second))
                gap = np.abs(one - other)
                if gap.max() > 1e-8 * max(1.0, np.abs(one).max()):
                    at = edge[gap.argmax()]
                    raise ValueError(
                        f"boundary is incompatible: at {at} the faces {first} and {second} meet, and say "
                        f"{one[gap.argmax()]:.6g} and {other[gap.argmax()]:.6g}"
                    )


class Poisson(Problem):
    """Poisson's equation ``u_xx + u_yy + ... = f`` in one to three dimensions.

    Parameters
    ----------
    domain : sequence of (float, float)
        A pair per axis.
    rhs : float or callable
        f, of points ``(n, d)``.
    boundary : float, callable or mapping
        u on the faces, see `Problem`.
    nodes : int or sequence of int
        Per axis.

    Examples
    --------
    >>> problem = Poisson([(0, 1)], lambda x: -np.sin(x[:, 0]), lambda x: np.sin(x[:, 0]), 20)
    >>> problem.linear
    True
    """

    def __init__(
        self,
        domain: Sequence[tuple[float, float]],
        rhs: float | PointFunction,
        boundary: Boundary,
        nodes: int | Sequence[int],
    ) -> None:
        super().__init__(domain, laplacian(len(as_domain(domain))), rhs, boundary, nodes)


class Helmholtz(Problem):
    """The Helmholtz equation ``laplacian u + k^2 u = f``; the parameter ``wavenumber`` is k.

    Parameters
    ----------
    domain : sequence of (float, float)
        A pair per axis.
    wavenumber : float
        k, radians per unit of length. Near an eigenvalue of the box the problem is ill-posed.
    rhs : float or callable
        f, of points ``(n, d)``.
    boundary : float, callable or mapping
        u on the faces, see `Problem`.
    nodes : int or sequence of int
        Per axis.
    """

    def __init__(
        self,
        domain: Sequence[tuple[float, float]],
        wavenumber: float,
        rhs: float | PointFunction,
        boundary: Boundary,
        nodes: int | Sequence[int],
    ) -> None:
        d = len(as_domain(domain))
        operator = laplacian(d) + partial(*[0] * d).named("wavenumber", 2)
        super().__init__(domain, operator, rhs, boundary, nodes, parameters={"wavenumber": float(wavenumber)})


class Advection(Problem):
    """Transport ``u_t + c . grad u = f`` in ``(x, ..., t)``, time the last axis; the parameter ``speed`` is c.

    Data are given at the first time and where the flow enters, nowhere else.

    Parameters
    ----------
    domain : sequence of (float, float)
        A pair per axis of space, then one of time.
    speed : float or sequence of float
        c, per axis of space. One number stands for all, and can be inferred.
    boundary : float, callable or mapping
        u at the first time and on the inflow faces, as a function of points ``(x, ..., t)``.
    nodes : int or sequence of int
        Per axis, time last.
    rhs : float or callable
        f.

    Examples
    --------
    >>> Advection([(0, 1), (0, 1)], 200.0, lambda p: np.sin(p[:, 0] - 200 * p[:, 1]), [20, 200]).faces
    ((1, 0), (0, 0))
    """

    def __init__(
        self,
        domain: Sequence[tuple[float, float]],
        speed: float | Sequence[float],
        boundary: Boundary,
        nodes: int | Sequence[int],
        rhs: float | PointFunction = 0.0,
    ) -> None:
        d = len(as_domain(domain))
        if d < 2:
            raise ValueError("domain must have an axis of space and then one of time")
        speeds = np.broadcast_to(np.asarray(speed, float), d - 1)
        operator = partial(*_unit(d, d - 1))
        faces = [(d - 1, 0)]
        parameters: dict[str, float] = {}
        if np.ndim(speed) == 0:
            parameters["speed"] = float(speeds[0])
        for axis, c in enumerate(speeds):
            along = partial(*_unit(d, axis))
            operator = operator + (along.named("speed") if parameters else float(c) * along)
            if c != 0:
                faces.append((axis, 0 if c > 0 else 1))
        super().__init__(domain, operator, rhs, boundary, nodes, faces=faces, parameters=parameters)


class ReactionDiffusion(Problem):
    """Steady reaction and diffusion, ``D laplacian u + R(u) = f``; the parameter ``diffusivity`` is D.

    Parameters
    ----------
    domain : sequence of (float, float)
        A pair per axis.
    diffusivity : float
        D, positive.
    reaction : Reaction
        R and its derivative.
    rhs : float or callable
        f, of points ``(n, d)``.
    boundary : float, callable or mapping
        u on the faces, see `Problem`.
    nodes : int or sequence of int
        Per axis.
    """

    def __init__(
        self,
        domain: Sequence[tuple[float, float]],
        diffusivity: float,
        reaction: Reaction,
        rhs: float | PointFunction,
        boundary: Boundary,
        nodes: int | Sequence[int],
    ) -> None:
        operator = laplacian(len(as_domain(domain))).named("diffusivity")
        given = {"diffusivity": float(diffusivity)}
        super().__init__(domain, operator, rhs, boundary, nodes, reaction=reaction, parameters=given)


class AllenCahn(Problem):
    """The steady Allen-Cahn equation of Fang et al. 2024, ``laplacian u + u (u^2 - 1) = f``.

    Parameters
    ----------
    domain : sequence of (float, float)
        A pair per axis.
    rhs : float or callable
        f, of points ``(n, d)``.
    boundary : float, callable or mapping
        u on the faces, see `Problem`.
    nodes : int or sequence of int
        Per axis.
    """

    def __init__(
        self,
        domain: Sequence[tuple[float, float]],
        rhs: float | PointFunction,
        boundary: Boundary,
        nodes: int | Sequence[int],
    ) -> None:
        cubic = Reaction(lambda u: u * (u**2 - 1), lambda u: 3 * u**2 - 1)
        super().__init__(domain, laplacian(len(as_domain(domain))), rhs, boundary, nodes, reaction=cubic)


class Diffusion(Problem):
    """Diffusion with a variable coefficient, ``-div(D a grad u) = f``; the parameter ``diffusivity`` is D.

    Parameters
    ----------
    domain : sequence of (float, float)
        A pair per axis.
    coefficient : float or callable
        a, positive: a function of points ``(n, d)`` that returns ``(n,)``, smooth on the scale of the nodes.
    rhs : float or callable
        f, of points ``(n, d)``.
    boundary : float, callable or mapping
        u on the faces, see `Problem`.
    nodes : int or sequence of int
        Per axis.
    slope : callable, optional
        Gradient of a, of points ``(n, d)``, returning ``(n, d)``. By default eighth-order differences of a, at a
        fiftieth of the nodes' spacing, which are right to about 12 digits where the nodes resolve a.
    diffusivity : float
        D.
    """

    def __init__(
        self,
        domain: Sequence[tuple[float, float]],
        coefficient: float | PointFunction,
        rhs: float | PointFunction,
        boundary: Boundary,
        nodes: int | Sequence[int],
        *,
        slope: PointFunction | None = None,
        diffusivity: float = 1.0,
    ) -> None:
        box = as_domain(domain)
        d = len(box)
        operator = (coefficient if callable(coefficient) else float(coefficient)) * -laplacian(d)
        if callable(coefficient):
            steps = [(hi - lo) / (n - 1) / 50 for (lo, hi), n in zip(box, _as_nodes(nodes, d), strict=True)]
            for axis in range(d):
                along = _component(slope, axis) if slope else gradient(coefficient, box, axis, steps[axis])
                operator = operator - along * partial(*_unit(d, axis))
        super().__init__(
            domain, operator.named("diffusivity"), rhs, boundary, nodes, parameters={"diffusivity": float(diffusivity)}
        )
        if callable(coefficient):
            values = checked_values(coefficient, self.points(), "coefficient")
            if values.min() <= 0:
                raise ValueError(f"coefficient must be positive, got {values.min():.3g} at a node")


def as_domain(domain: Any) -> tuple[tuple[float, float], ...]:
    """Pairs of ends, checked; one pair of numbers is a domain of one axis.

    Parameters
    ----------
    domain : sequence
    """
    array = np.asarray(domain, float)
    if array.shape == (2,):
        array = array[None]
    if array.ndim != 2 or array.shape[1] != 2 or not 1 <= len(array) <= 3:
        raise ValueError(f"domain must be a pair of ends per axis, of one to three axes, got {domain!r}")
    if not np.all(np.isfinite(array)) or np.any(array[:, 1] <= array[:, 0]):
        raise ValueError(f"domain must have finite ends, the lower first, got {domain!r}")
    return tuple((float(lo), float(hi)) for lo, hi in array)


def tensor_points(axes: Sequence[Array]) -> Array:
    """Points of a tensor grid, ``(N, d)``, in C order.

    Parameters
    ----------
    axes : sequence of ndarray
        Coordinates, axis by axis.
    """
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))


def _as_nodes(nodes: int | Sequence[int], dimension: int) -> tuple[int, ...]:
    """A count per axis, checked."""
    counts = (nodes,) * dimension if isinstance(nodes, (int, np.integer)) else tuple(nodes)
    if len(counts) != dimension or any(not isinstance(n, (int, np.integer)) or n < 4 for n in counts):
        raise ValueError(f"nodes must be a count per axis ({dimension}), at least 4 each, got {nodes!r}")
    return tuple(int(n) for n in counts)


def _unit(dimension: int, axis: int) -> tuple[int, ...]:
    """One derivative along an axis."""
    return tuple(int(a == axis) for a in range(dimension))


def _component(slope: PointFunction, axis: int) -> PointFunction:
    return lambda points: np.asarray(slope(points), float)[:, axis]
