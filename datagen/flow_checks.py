"""An independent code of the staggered-grid scheme, for `datagen.validate`: whole arrays, sparse LU, nothing shared.

Line by line it is what the docstrings of `datagen.evolve.staggered` and `datagen.evolve.projection` say: third-order
upwind values, mirror images behind walls, three Runge-Kutta stages and one pressure system a step, equal steps to the
next frame. It starts from stored frames, each of which holds all there is to know, and so shows for every interval by
itself whether its end is where the equation leads.

The two codes differ by the tolerance of the pressure systems, here solved to rounding, and by the rounding of the
frames, both of which the flow amplifies until the next frame.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import splu

from datagen.family import Sample
from datagen.pdes.flow import Flow

Array = NDArray[Any]
_G = 3  # layers of ghosts


class FlowScheme:
    """The scheme for one sample.

    Parameters
    ----------
    family : Flow
    sample : Sample
        With the obstacles, or nothing in periodic boxes, and the Reynolds number.
    """

    def __init__(self, family: Flow, sample: Sample) -> None:
        self.family, self.problem, self.courant = family, family.problem, family.courant
        self.nx, self.ny = nx, ny = family.mesh.shape
        self.h, self.nu = 1.0 / ny, 1.0 / sample.scalars["reynolds"]
        self.solid = np.asarray(sample.fields.get("obstacle", np.zeros((nx, ny))), dtype=float) > 0.5
        mode = "wrap" if self.problem == "periodic" else "constant"
        values = {} if mode == "wrap" else {"constant_values": True}
        around = np.pad(self.solid, _G, mode=mode, **values)  # type: ignore[call-overload]
        # u[i, j] is left of cell (i, j), v[i, j] below it; both with _G ghosts on all sides and one face more.
        left, below = np.pad(around, ((1, 0), (0, 0)), mode="edge"), np.pad(around, ((0, 0), (1, 0)), mode="edge")
        right, above = np.pad(around, ((0, 1), (0, 0)), mode="edge"), np.pad(around, ((0, 0), (0, 1)), mode="edge")
        self.open_u, self.in_wall_u = ~left & ~right, left & right
        self.open_v, self.in_wall_v = ~below & ~above, below & above
        if self.problem == "channel":
            self.in_wall_u[:_G] = self.in_wall_u[_G + nx + 1 :] = False
            self.in_wall_v[_G + nx :] = False
            y = (np.arange(ny) + 0.5) / ny
            self.profile = 4 * y * (1 - y)
        self.wall_u, self.wall_v = np.zeros(self.in_wall_u.shape), np.zeros(self.in_wall_v.shape)
        if self.problem == "cavity":
            self.wall_u[:, _G + ny :] = 1.0
        self._factor()

    def _factor(self) -> None:
        """LU of ``-div grad`` on the cells of fluid, the first of which is held at zero."""
        number = np.full((self.nx, self.ny), -1)
        number[~self.solid] = np.arange(np.sum(~self.solid))
        rows, columns = [], []
        for axis in range(2):
            neighbour = np.roll(number, -1, axis)
            if self.problem != "periodic":
                neighbour[(slice(None),) * axis + (-1,)] = -1
            linked = (number >= 0) & (neighbour >= 0)
            rows += [number[linked], neighbour[linked]]
            columns += [neighbour[linked], number[linked]]
        i, j = np.concatenate(rows), np.concatenate(columns)
        links = sp.csr_array((np.full(i.size, 1 / self.h**2), (i, j)), shape=(number.max() + 1,) * 2)
        A = sp.diags_array(links.sum(axis=1)) - links
        self._lu = splu(
            sp.csc_array(A[1:, 1:]), "MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
        )

    def potential(self, divergence: Array) -> Array:
        """q of ``div grad q = divergence``, its mean over the fluid zero."""
        q = np.zeros((self.nx, self.ny))
        found = np.concatenate([[0.0], self._lu.solve(-divergence[~self.solid][1:])])
        q[~self.solid] = found - found.mean()
        return q

    # -- Velocities: u (nx + 1, ny), v (nx, ny + 1) --------------------------------------------------------------------

    def _surrounded(self, u: Array, v: Array) -> tuple[Array, Array]:
        if self.problem == "periodic":
            return (
                np.pad(np.pad(u[:-1], ((_G, _G + 1), (0, 0)), mode="wrap"), ((0, 0), (_G, _G)), mode="wrap"),
                np.pad(np.pad(v[:, :-1], ((0, 0), (_G, _G + 1)), mode="wrap"), ((_G, _G), (0, 0)), mode="wrap"),
            )
        if self.problem == "channel":
            u = np.pad(u, ((_G, _G), (0, 0)), mode="edge")
            v = np.pad(np.pad(v, ((0, _G), (0, 0)), mode="edge"), ((_G, 0), (0, 0)))
            return np.pad(u, ((0, 0), (_G, _G))), np.pad(v, ((0, 0), (_G, _G)))
        return np.pad(u, _G), np.pad(v, _G)

    def _force(self, u: Array, v: Array) -> tuple[Array, Array]:
        """``-div(w w) + nu lap w`` where faces are open, and the change of the outflow."""
        U, V = self._surrounded(u, v)
        fu = self._component(U, self.in_wall_u, self.wall_u, V)[_G:-_G, _G:-_G]
        fv = self._component(V.T, self.in_wall_v.T, self.wall_v.T, U.T).T[_G:-_G, _G:-_G]
        fu, fv = fu * self.open_u[_G:-_G, _G:-_G], fv * self.open_v[_G:-_G, _G:-_G]
        if self.problem == "channel":
            out = -self.profile.mean() * (u[-1] - u[-2]) / self.h
            fu[-1] = out - out.mean()
        return fu, fv

    def _component(self, C: Array, inside: Array, wall: Array, T: Array) -> Array:
        """Of a component C on faces across the first axis, T the other velocity.

        C is (nx + 1 + 2 G, ny + 2 G), T (nx + 2 G, ny + 1 + 2 G).
        """
        force = np.zeros_like(C)
        for axis in range(2):
            c, m, g = (np.moveaxis(x, axis, 0) for x in (C, inside, 2 * wall))
            n = len(c)
            below, here, above, beyond = (slice(1 + shift, n - 2 + shift) for shift in (-1, 0, 1, 2))
            if axis == 0:
                speed = (c[here] + c[above]) / 2
            else:  # of the corners below and above a face, that above has the higher index
                corners = T.T[2 : n - 1]
                speed = np.zeros((n - 3, c.shape[1]))
                speed[:, 1:-1] = (corners[:, :-1] + corners[:, 1:]) / 2
            rising = c[here] + (_seen(c, m, g, here, above) - c[here]) / 3
            rising += (c[here] - _seen(c, m, g, here, below)) / 6
            falling = c[above] + (_seen(c, m, g, above, here) - c[above]) / 3
            falling += (c[above] - _seen(c, m, g, above, beyond)) / 6
            flux = speed * np.where(speed > 0, rising, falling)
            left, middle, right = (slice(2 + shift, n - 2 + shift) for shift in (-1, 0, 1))
            second = _seen(c, m, g, middle, right) - 2 * c[middle] + _seen(c, m, g, middle, left)
            np.moveaxis(force, axis, 0)[middle] += self.nu * second / self.h**2 - np.diff(flux, axis=0) / self.h
        return force

    def _divergence(self, u: Array, v: Array) -> Array:
        return (np.diff(u, axis=0) + np.diff(v, axis=1)) / self.h

    def _without_gradient(self, u: Array, v: Array, p: Array, factor: float) -> tuple[Array, Array]:
        gx, gy = np.zeros_like(u), np.zeros_like(v)
        gx[1:-1], gy[:, 1:-1] = np.diff(p, axis=0), np.diff(p, axis=1)
        gx[0] = gx[-1] = p[0] - p[-1]
        gy[:, 0] = gy[:, -1] = p[:, 0] - p[:, -1]
        factor /= self.h
        return u - factor * gx * self.open_u[_G:-_G, _G:-_G], v - factor * gy * self.open_v[_G:-_G, _G:-_G]

    def _courant_rate(self, u: Array, v: Array) -> float:
        fastest = np.max(np.maximum(abs(u[:-1]), abs(u[1:])) + np.maximum(abs(v[:, :-1]), abs(v[:, 1:])))
        fastest = max(float(fastest), 1.0) if self.problem == "cavity" else float(fastest)  # the lid's speed
        return float(fastest / (self.courant * self.h) + 8 * self.nu / (2.4 * self.h**2))

    # -- What is asked for ---------------------------------------------------------------------------------------------

    def start(self, sample: Sample) -> Array:
        """The state at time 0."""
        u, v = np.zeros((self.nx + 1, self.ny)), np.zeros((self.nx, self.ny + 1))
        if self.problem == "periodic":
            psi = np.pad(
                np.asarray(sample.fields["initial_stream_function"], dtype=float), ((0, 1), (0, 1)), mode="wrap"
            )
            u, v = np.diff(psi, axis=1) / self.h, -np.diff(psi, axis=0) / self.h
        if self.problem == "channel":
            u[0], u[-1] = self.profile, self.profile.mean()
        u, v = self._without_gradient(u, v, self.potential(self._divergence(u, v)), 1.0)
        return self._state(u, v)

    def advance(self, state: Array, begin: float, end: float) -> Array:
        """The state at a later time."""
        u, v = self.faces(state)
        u, v = self._without_gradient(u, v, self.potential(self._divergence(u, v)), 1.0)
        p = self.potential(self._divergence(*self._force(u, v)))
        now = begin
        while now < end:
            steps = max(1, math.ceil((end - now) * self._courant_rate(u, v) - 1e-9))
            dt = (end - now) / steps
            first, keep = (u, v), (0.0, 3 / 4, 1 / 3)
            x, y = u, v
            for share in keep:
                fx, fy = self._force(x, y)
                x, y = self._without_gradient(x + dt * fx, y + dt * fy, p, dt)
                x, y = share * first[0] + (1 - share) * x, share * first[1] + (1 - share) * y
            q = self.potential(self._divergence(x, y) / dt)
            u, v = self._without_gradient(x, y, q, dt)
            p = p + q
            if not (np.isfinite(u).all() and np.max(abs(u)) < 1e3):
                raise FloatingPointError(f"the flow runs away at t = {now:.4g}")
            now = end if steps == 1 else now + dt
        return self._state(u, v)

    def _state(self, u: Array, v: Array) -> Array:
        p = self.potential(self._divergence(*self._force(u, v)))
        return np.stack([(u[:-1] + u[1:]) / 2, (v[:, :-1] + v[:, 1:]) / 2, p])

    def faces(self, state: Array) -> tuple[Array, Array]:
        """Velocities on faces whose means are those of a state."""
        if self.problem == "periodic":
            return self._periodic_faces(state)
        u, v = np.zeros((self.nx + 1, self.ny)), np.zeros((self.nx, self.ny + 1))
        if self.problem == "channel":
            u[0] = self.profile
        for i in range(self.nx):
            u[i + 1] = 2 * state[0, i] - u[i]
        for j in range(self.ny):
            v[:, j + 1] = 2 * state[1, :, j] - v[:, j]
        open_u, open_v = self.open_u[_G:-_G, _G:-_G].copy(), self.open_v[_G:-_G, _G:-_G]
        if self.problem == "channel":
            open_u[[0, -1]] = True
        return u * open_u, v * open_v

    def _periodic_faces(self, state: Array) -> tuple[Array, Array]:
        """By Fourier modes: ``2 c = (1 + e^{i k h}) u``, and where that is zero by the divergence."""
        x, y = (np.exp(2j * np.pi * np.fft.fftfreq(n)) for n in (self.nx, self.ny))
        x, y = x[:, None], y[None]
        c, d = np.fft.fft2(state[0]), np.fft.fft2(state[1])
        lost_x, lost_y = abs(1 + x) < 1e-9, abs(1 + y) < 1e-9
        u = np.where(lost_x, 0, 2 * c / np.where(lost_x, 1, 1 + x))
        v = np.where(lost_y, 0, 2 * d / np.where(lost_y, 1, 1 + y))
        u = np.where(lost_x, v * (y - 1) / 2, u)
        v = np.where(lost_y & ~lost_x, u * (x - 1) / 2, v)
        u, v = np.fft.ifft2(u).real, np.fft.ifft2(v).real
        return np.concatenate([u, u[:1]]), np.concatenate([v, v[:, :1]], axis=1)


def _seen(c: Array, inside: Array, twice: Array, point: slice, other: slice) -> Array:
    """What points see at others: their mirror images where those are behind a wall."""
    return np.where(inside[other], twice[other] - c[point], c[other])


def frame_faults(family: Flow, sample: Sample, solution: Mapping[str, Array]) -> Iterator[str]:
    """What is wrong with frames that can be seen without a step: flow in obstacles, divergence, pressure.

    Parameters
    ----------
    family : Flow
    sample : Sample
    solution : mapping of str to ndarray
        Output fields, ``(frames, *grid)``.
    """
    try:
        scheme = FlowScheme(family, sample)
    except (ValueError, RuntimeError, KeyError) as error:
        yield f"no flow can be made of its obstacles: {error}"
        return
    names = [f.name for f in family.role("output")]
    states = np.stack([np.asarray(solution[name], dtype=float) for name in names], axis=1)
    eps = float(np.finfo(np.asarray(solution[names[0]]).dtype).eps)
    for name, channel in zip(names, np.moveaxis(states, 1, 0), strict=True):
        if np.any(channel[:, scheme.solid]):
            yield f"{name!r} is not zero in obstacles"
    size = float(np.max(abs(states[:, :2]))) or 1.0
    # Differences of two faces, each a sum of up to n rounded means; the solver's tolerance; and its worst cell.
    allowed = (8 * eps * math.sqrt(max(scheme.nx, scheme.ny)) * size + 1e-4 * scheme.h) / scheme.h
    for frame, state in enumerate(states):
        divergence = float(np.max(abs(scheme._divergence(*scheme.faces(state)))[~scheme.solid]))
        if not divergence <= allowed:
            yield f"frame {frame} is not free of divergence: {divergence:.3g}, and may have {allowed:.3g}"
        mean = abs(float(np.mean(state[2][~scheme.solid])))
        if not mean <= 4 * eps * (1 + np.max(abs(state[2]))):
            yield f"frame {frame}: the mean of its pressure is {mean:.3g}, and must be zero"
