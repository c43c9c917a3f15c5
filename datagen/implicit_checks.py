"""Independent integrations of the families that are implicit in time, for `datagen.validate`.

Nothing here is shared with `datagen.discretise`, the families' systems or `datagen.evolve`: the balances are assembled
from incidence matrices, and in time they are integrated by scipy, to a tolerance far below the families' steps. What is
left between these states and a family's is the error of its steps and of its solver. The grid's error is in both.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.sparse.linalg import expm_multiply

from datagen.family import Family, Sample
from datagen.pdes.heat import Heat
from datagen.pdes.wave import Wave

Array = NDArray[Any]
_TOLERANCE = 1e-9


def heat_states(family: Heat, sample: Sample, times: Sequence[float]) -> Array:
    """Temperatures at increasing times, shape ``(times, 1, *grid)``, by scipy's BDF with orders up to 5."""
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
    source = given.get("source", np.zeros(size))

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

    # Where kappa has corners the integration starts anew.
    ends = sorted({0.0, *map(float, times), *_corners(family, sample, times)})
    u = given["initial_temperature"]
    found = {0.0: u}
    for begin, until in pairwise(ends):
        solution = solve_ivp(
            lambda t, u: kappa(t) * (load - L @ u) + source,
            (begin, until),
            u,
            method="BDF",
            jac=lambda t, u: sparse.csc_matrix(-kappa(t) * L),
            rtol=_TOLERANCE,
            atol=_TOLERANCE * float(np.max(np.abs(given["initial_temperature"]))),
        )
        if not solution.success:
            raise FloatingPointError(
                f"heat: scipy's integration from {begin:g} to {until:g} failed: {solution.message}"
            )
        found[until] = u = solution.y[:, -1]
    return np.stack([found[float(t)].reshape(1, *shape) for t in times])


def _corners(family: Heat, sample: Sample, times: Sequence[float]) -> list[float]:
    """Times at which a switching kappa is zero."""
    if family.kappa != "switching":
        return []
    first = -sample.scalars["kappa_phase"] / (2 * np.pi) * family.period
    count = int(2 * (max(times) - first) / family.period) + 1
    zeros = first + family.period / 2 * np.arange(count + 1)
    return [float(t) for t in zeros if 0 < t < max(times)]


def wave_states(family: Wave, sample: Sample, times: Sequence[float]) -> Array:
    """Displacements and velocities at increasing times, ``(times, 2, *grid)``: exponentials of ``(u, v)' = A (u, v)``.

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
    state, now, states = np.concatenate(start), 0.0, []
    for time in times:
        if time > now:
            state = expm_multiply(A * (time - now), state, traceA=float(A.trace()) * (time - now))
            now = time
        states.append(state.reshape(2, *shape))
    return np.stack(states)


def _laplacian(size: int, lower: Array, upper: Array, weight: Array) -> sparse.csr_array:
    """``D' diag(weight) D``, D the incidence matrix of the links ``lower - upper``."""
    links, ones = np.arange(len(weight)), np.ones(len(weight))
    entries = (np.concatenate([ones, -ones]), (np.concatenate([links, links]), np.concatenate([lower, upper])))
    D = sparse.csr_array(entries, shape=(len(weight), size))
    return sparse.csr_array(D.T @ sparse.diags_array(weight) @ D)


# (family, sample, times) -> states, of the shape of `evolve`'s
EVOLVING: dict[type[Family], Callable[[Any, Sample, Sequence[float]], Array]] = {Heat: heat_states, Wave: wave_states}
