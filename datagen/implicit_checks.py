"""An independent code of the implicit families' schemes, for `datagen.validate`: incidence matrices and sparse LU.

Nothing here is shared with `datagen.discretise`, the families' systems or `datagen.evolve`. In space the balances are
assembled from incidence matrices; in time the families' methods are written as textbooks have them, on slopes: SDIRK2
for heat,

    k_1 = F(t + g h, u + g h k_1),    k_2 = F(t + h, u + (1 - g) h k_1 + g h k_2),    g = 1 - 1/sqrt(2),
    u <- u + (1 - g) h k_1 + g h k_2,

and the midpoint rule for waves, ``(1 - h/2 A) s <- (1 + h/2 A) s`` with displacement and velocity in one vector; from
each frame to the next as few equal steps as the family's longest allows. Systems are solved by SuperLU, to rounding:
between the two codes is what the tolerance of the family's solves leaves, ``accuracy``. That the methods meet the
equations at second order is for the tests, which integrate the same balances to tight tolerances.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray
from scipy.sparse.linalg import splu

from datagen.family import Sample
from datagen.pdes.heat import Heat
from datagen.pdes.wave import Wave

Array = NDArray[Any]
_G = 1 - 1 / math.sqrt(2)


@dataclass(frozen=True)
class HeatBalance:
    """``u' = kappa(t) (load - L u) + source`` over the cells, in vectors."""

    L: sparse.csr_array
    load: Array
    source: Array
    kappa: Callable[[float], float]
    start: Array


def heat_balance(family: Heat, sample: Sample) -> HeatBalance:
    """The balances of a sample's cells."""
    shape, size = family.mesh.shape, family.mesh.size
    given = {name: np.asarray(values, dtype=np.float64).ravel() for name, values in sample.fields.items()}
    a = given.get("diffusivity", np.full(size, family.diffusivity))
    L, load = sparse.csr_array((size, size)), np.zeros(size)
    for axis, name in enumerate(family.mesh.axis_names):
        side = family.sides if isinstance(family.sides, str) else family.sides[axis]
        h = 1 / shape[axis]
        number = np.moveaxis(np.arange(size).reshape(shape), axis, 0)
        lower, upper = number, np.roll(number, -1, axis=0)
        if side != "periodic":
            lower, upper = lower[:-1], upper[:-1]
        # Two half cells in series between two centres.
        resistance = h / 2 / a[lower.ravel()] + h / 2 / a[upper.ravel()]
        L = L + _laplacian(size, lower.ravel(), upper.ravel(), 1 / resistance / h)
        if side == "dirichlet":
            for end, cells in (("low", number[0].ravel()), ("high", number[-1].ravel())):
                inflow = np.zeros(size)
                inflow[cells] = a[cells] / (h / 2) / h
                load += inflow * sample.scalars.get(f"wall_{name}_{end}", family.walls[0])
                L = L + sparse.diags_array(inflow)

    def kappa(t: float) -> float:
        p, logarithm = 2 * np.pi * t / family.period, 0.0
        if family.kappa == "switching":
            s = np.sin(p + sample.scalars["kappa_phase"])
            return float(0.1 * s if s > 0 else -10 * s)
        for name, value in sample.scalars.items():
            if name.startswith("kappa_cos_"):
                logarithm += value * np.cos(int(name[10:]) * p)
            elif name.startswith("kappa_sin_"):
                logarithm += value * np.sin(int(name[10:]) * p)
        return float(np.exp(logarithm))

    source = given.get("source", np.zeros(size))
    return HeatBalance(sparse.csr_array(L), load, source, kappa, given["initial_temperature"])


def heat_states(family: Heat, sample: Sample, times: Sequence[float]) -> Array:
    """Temperatures at increasing times, shape ``(times, 1, *grid)``, by SDIRK2."""
    balance = heat_balance(family, sample)
    one, solvers = sparse.eye_array(family.mesh.size, format="csc"), _Factors()

    def slope(t: float, d: float, r: Array) -> Array:
        """k of ``k = F(t, r + d k)``."""
        kappa = balance.kappa(t)
        solve = solvers(d * kappa, lambda s: one + s * balance.L)
        return solve(kappa * (balance.load - balance.L @ r) + balance.source)

    def step(u: Array, t: float, h: float) -> Array:
        first = slope(t + _G * h, _G * h, u)
        second = slope(t + h, _G * h, u + (1 - _G) * h * first)
        return u + h * ((1 - _G) * first + _G * second)

    states = _stepped(step, balance.start, times, family.step)
    return states.reshape(len(times), 1, *family.mesh.shape)


def wave_balance(family: Wave, sample: Sample) -> tuple[sparse.csr_array, Array]:
    """A of ``(u, v)' = A (u, v)`` and the vector of both at time 0.

    Between two neighbouring nodes is a bar whose cross-section is the part of the cells' that lies in the box.
    """
    shape, size, h = family.mesh.shape, family.mesh.size, family.mesh.spacing
    speed = np.asarray(sample.fields["speed"], dtype=np.float64).ravel()
    index = np.indices(shape).reshape(len(shape), -1)
    # Share of a node's cell inside the box along each axis.
    share = np.where((index == 0) | (index == np.array(shape)[:, None] - 1), 0.5, 1.0)
    mass = np.prod(share, axis=0)
    K, damping, held = sparse.csr_array((size, size)), np.zeros(size), np.zeros(size, dtype=bool)
    for axis in range(len(shape)):
        across = mass / share[axis]
        number = np.moveaxis(np.arange(size).reshape(shape), axis, 0)
        lower, upper = number[:-1].ravel(), number[1:].ravel()
        bar = across[lower] / (h[axis] / 2 / speed[lower] ** 2 + h[axis] / 2 / speed[upper] ** 2) / h[axis]
        K = K + _laplacian(size, lower, upper, bar)
        side = family.sides if isinstance(family.sides, str) else family.sides[axis]
        for name, nodes in zip((side, side) if isinstance(side, str) else side, (number[0], number[-1]), strict=True):
            if name == "absorbing":
                damping[nodes.ravel()] += (speed * across)[nodes.ravel()] / h[axis]
            held[nodes.ravel()] |= name == "dirichlet"
    free = sparse.csr_array(sparse.diags_array((~held).astype(float)))
    inverse = free @ sparse.diags_array(1 / mass)
    A = sparse.block_array([[None, free], [-inverse @ K, -inverse @ sparse.diags_array(damping)]], format="csr")
    names = ("initial_displacement", "initial_velocity")
    start = [np.asarray(sample.fields.get(name, np.zeros(shape)), dtype=np.float64).ravel() * ~held for name in names]
    return A, np.concatenate(start)


def wave_states(family: Wave, sample: Sample, times: Sequence[float]) -> Array:
    """Displacements and velocities at increasing times, ``(times, 2, *grid)``, by the midpoint rule."""
    A, start = wave_balance(family, sample)
    one, solvers = sparse.eye_array(start.size, format="csc"), _Factors()

    def step(state: Array, t: float, h: float) -> Array:
        return solvers(h, lambda h: one - h / 2 * A)(state + h / 2 * (A @ state))

    longest = family.courant * min(family.mesh.spacing) / float(np.max(sample.fields["speed"]))
    return _stepped(step, start, times, longest).reshape(len(times), 2, *family.mesh.shape)


def _stepped(step: Callable[[Array, float, float], Array], state: Array, times: Sequence[float], longest: float) -> Any:
    """The states at the times, by steps ``(state, time, length) -> state``."""
    now, states = 0.0, []
    for time in times:
        count = math.ceil((time - now) / longest - 1e-9)
        for i in range(count):
            h = (time - now) / count
            state = step(state, now + i * h, h)
        now = time
        states.append(state)
    return np.stack(states)


class _Factors:
    """Solvers with matrices of one parameter; the last factors stay for a parameter that differs by rounding."""

    def __init__(self) -> None:
        self._parameter, self._solve = math.nan, np.positive

    def __call__(self, parameter: float, matrix: Callable[[float], Any]) -> Callable[[Array], Array]:
        if not abs(parameter - self._parameter) <= 1e-13 * parameter:
            symmetric = {"SymmetricMode": True}
            factors = splu(sparse.csc_matrix(matrix(parameter)), "MMD_AT_PLUS_A", 0.1, options=symmetric)
            self._parameter, self._solve = parameter, factors.solve
        return self._solve


def _laplacian(size: int, lower: Array, upper: Array, weight: Array) -> sparse.csr_array:
    """``D' diag(weight) D``, D the incidence matrix of the links ``lower - upper``."""
    links, ones = np.arange(len(weight)), np.ones(len(weight))
    entries = (np.concatenate([ones, -ones]), (np.concatenate([links, links]), np.concatenate([lower, upper])))
    D = sparse.csr_array(entries, shape=(len(weight), size))
    return sparse.csr_array(D.T @ sparse.diags_array(weight) @ D)
