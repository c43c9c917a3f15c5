"""Incompressible flow on a staggered (marker-and-cell) grid: geometry, sides, obstacles, and one stage of the momentum.

Source: F. H. Harlow and J. E. Welch, Numerical calculation of time-dependent viscous incompressible flow of fluid with
free surface, Phys. Fluids 8 (1965) 2182. The pressure lives in the cells, and the velocity component along an axis on
the faces normal to it:

              v[i, j+1]
          +------+------+
    u[i,j]    p[i, j]    u[i+1, j]         (div w)[i, j] = (u[i+1, j] - u[i, j] + v[i, j+1] - v[i, j]) / h
          +------+------+
              v[i, j]

Both components are kept in one array ``(2, nx + 5, ny + 5)``, two ghosts below and three above, a face having the index
of the cell above it. A face is *open* if there is fluid on both sides of it, and only open faces move (and those of an
outflow). Elsewhere the array holds what a neighbour sees: on a wall the wall's velocity; *behind* a wall, half a cell
beyond it, twice the speed of the wall, from which the neighbour takes its own value. That is the mirror image which
makes the mean of both the speed of the wall, so there is no slip.
"""

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from solvers.stencil import StencilOperator

Array = NDArray[Any]
BELOW, ABOVE = 2, 3  # ghosts


@njit(cache=True, nogil=True)
def _stage(w, start, p, behind, is_open, strides, first, last, h, nu, dt, keep, flux, out):  # type: ignore[no-untyped-def]
    """``out = keep start + (1 - keep) (w + dt (-div(w w) + nu lap w - grad p))`` at open faces, `start` elsewhere.

    All arrays are flat, ``(2, points)`` or ``(points,)``; faces from `first` to before `last` are written. Along axis d
    the component c is carried through the middle between faces k and k + s (s the stride of d) by the mean of two
    normal velocities, its value there being third order and upwind: ``(-c[k-s] + 5 c[k] + 2 c[k+s]) / 6`` from below.
    In these sums ``c - m c[k]`` is what point k sees behind a wall (m = 1), see above.
    """
    spread = nu / (h * h)
    for n in range(w.shape[0]):
        c, m, o = w[n], behind[n], out[n, first:last]
        s = strides[n]
        p_below, p_here, here = p[first - s : last - s], p[first:last], c[first:last]
        for k in range(last - first):
            o[k] = (p_below[k] - p_here[k]) / h - 2 * w.shape[0] * spread * here[k]
        for d in range(w.shape[0]):
            s, a = strides[d], first - strides[d]
            b = (
                a if d == n else a + s - strides[n]
            )  # the normal velocity left of the middle; the other is that at k + s
            left, right, f = w[d, b : b + last - a], w[d, a + s : last + s], flux[: last - a]
            c0, c1, c2, c3 = c[a - s : last - s], c[a:last], c[a + s : last + s], c[a + 2 * s : last + 2 * s]
            m0, m1, m2, m3 = m[a - s : last - s], m[a:last], m[a + s : last + s], m[a + 2 * s : last + 2 * s]
            for k in range(last - a):
                speed = (left[k] + right[k]) / (24 * h)
                forward = 2 * c2[k] - c0[k] + c1[k] * (5 + m0[k] - 2 * m2[k])
                backward = 2 * c1[k] - c3[k] + c2[k] * (5 + m3[k] - 2 * m1[k])
                f[k] = speed * (forward + backward) + abs(speed) * (forward - backward)
            beyond = flux[s : last - a]
            c0, c2, m0, m2 = c0[s:], c2[s:], m0[s:], m2[s:]
            for k in range(last - first):
                o[k] += f[k] - beyond[k] + spread * (c0[k] + c2[k] - (m0[k] + m2[k]) * here[k])
        before, moves = start[n, first:last], is_open[n, first:last]
        for k in range(last - first):
            o[k] = before[k] + (1 - keep) * (here[k] - before[k] + dt * o[k]) * moves[k]


@njit(cache=True, nogil=True)
def _subtract_gradient(w, p, is_open, strides, first, last, factor):  # type: ignore[no-untyped-def]
    """``w -= factor (p[k] - p[k - s])`` at open faces."""
    for n in range(w.shape[0]):
        s = strides[n]
        for k in range(first, last):
            w[n, k] -= factor * is_open[n, k] * (p[k] - p[k - s])


@njit(cache=True, nogil=True)
def _fastest(w, below, nx, ny):  # type: ignore[no-untyped-def]
    """Largest ``|u| + |v|`` of a cell, of the larger speeds of two faces each; infinite if one is not finite."""
    largest = 0.0
    for i in range(below, below + nx):
        for j in range(below, below + ny):
            speed = max(abs(w[0, i, j]), abs(w[0, i + 1, j])) + max(abs(w[1, i, j]), abs(w[1, i, j + 1]))
            if not speed <= largest:
                largest = speed if math.isfinite(speed) else math.inf
    return largest


class Staggered:
    """A box of square cells with its sides, its obstacles, and what flows in it.

    Walls all around at rest, unless something else is said.

    Parameters
    ----------
    fluid : ndarray of bool, shape (nx, ny)
        False in obstacles.
    h : float
        Side of a cell.
    viscosity : float
    periodic : bool
        Around both axes.
    lid : float
        Speed, along the first axis, of the wall at the upper end of the second.
    inlet : ndarray, shape (ny,), optional
        Normal velocity at the lower end of the first axis, through which fluid enters. At the upper end it leaves, by
        ``u_t + U u_x = 0`` with U the mean velocity (Orlanski 1976, J. Comput. Phys. 21, p. 251), the sum over the
        outlet held at that of the inlet.

    Examples
    --------
    A fluid at rest under a lid that has begun to move:

    >>> box = Staggered(np.ones((8, 8), dtype=bool), h=1 / 8, viscosity=0.01, lid=1.0)
    >>> w = box.rest()
    >>> change = box.rate(w)
    >>> box.cell_means(change)[0, 3, 5:]  # only the cells below the lid have felt it, through viscosity
    array([0.  , 0.  , 1.28])
    """

    def __init__(
        self,
        fluid: NDArray[np.bool_],
        h: float,
        viscosity: float,
        *,
        periodic: bool = False,
        lid: float = 0.0,
        inlet: Array | None = None,
    ) -> None:
        self.fluid, self.h, self.viscosity, self.periodic, self.inlet, self._lid = (
            fluid, h, viscosity, periodic, inlet, lid
        )  # fmt: skip
        self.shape = nx, ny = fluid.shape
        self.padded = (nx + BELOW + ABOVE, ny + BELOW + ABOVE)
        self.strides = np.array([self.padded[1], 1])
        self.cells = slice(BELOW, BELOW + nx), slice(BELOW, BELOW + ny)
        # From the first face of the box to behind its last in flat order; is_open leaves out the ghosts among them.
        self._first = int(BELOW * self.strides.sum())
        self._last = int((BELOW + np.array(self.shape)) @ self.strides)
        ghosts = [(BELOW, ABOVE)] * 2
        solid = np.pad(~fluid, ghosts, mode="wrap") if periodic else np.pad(~fluid, ghosts, constant_values=True)
        inside = np.zeros(self.padded, dtype=bool)
        inside[self.cells] = True
        before = [np.roll(solid, 1, axis) for axis in range(2)]
        self.open = np.array([~solid & ~below & inside for below in before], dtype=float)
        self.behind = np.array([solid & below for below in before], dtype=float)
        self._moves, self._fixed = self.open.copy(), np.zeros((2, *self.padded))
        self._outlet = BELOW + nx  # index of the outlet's faces
        if inlet is not None:
            self.behind[0, :BELOW] = self.behind[:, self._outlet + 1 :] = self.behind[1, self._outlet] = 0
            self._fixed[0, : BELOW + 1, self.cells[1]] = inlet
            self._leaves = fluid[-1].astype(float)
            self._moves[0, self._outlet, self.cells[1]] = self._leaves
            self._fixed[0, self._outlet, self.cells[1]] = self._leaves * (np.sum(inlet) / np.sum(self._leaves))
            self._mean_velocity = float(np.mean(inlet))
        self._fixed[0, BELOW + 1 : BELOW + nx, BELOW + ny :] = 2 * lid
        self._flux, self._padded_p = np.zeros(math.prod(self.padded)), np.zeros(self.padded)
        self._nothing = np.zeros((2, *self.padded))

    def rest(self) -> Array:
        """Velocities ``(2, nx + 5, ny + 5)``: zero at open faces, as given at sides, the outflow even."""
        return self.with_ghosts(self._fixed.copy())

    def with_ghosts(self, w: Array) -> Array:
        """The same array, its ghosts filled: around periodic axes, and beyond the outflow with what flows out."""
        for axis, n in enumerate(self.shape if self.periodic else ()):
            along = np.moveaxis(w, axis + 1, 0)
            along[:BELOW], along[n + BELOW :] = along[n : n + BELOW], along[BELOW : BELOW + ABOVE]
        if self.inlet is not None:
            w[0, self._outlet + 1 :], w[1, self._outlet :] = w[0, self._outlet], w[1, self._outlet - 1]
        return w

    def _pressure_ghosts(self, p: Array) -> Array:
        """A field in the cells with the ghosts that differences across periodic sides need, flat."""
        self._padded_p[self.cells] = p
        if self.periodic:
            self._padded_p[BELOW - 1, self.cells[1]], self._padded_p[self.cells[0], BELOW - 1] = p[-1], p[:, -1]
        return self._padded_p.reshape(-1)

    def stage(self, w: Array, start: Array, p: Array, dt: float, keep: float, out: Array) -> Array:
        """``keep start + (1 - keep) (w + dt (rate(w) - grad p))``, written into `out`, another array."""
        flat, pressure = (2, -1), self._pressure_ghosts(p)
        _stage(
            w.reshape(flat), start.reshape(flat), pressure, self.behind.reshape(flat), self.open.reshape(flat),
            self.strides, self._first, self._last, self.h, self.viscosity, dt, keep, self._flux, out.reshape(flat),
        )  # fmt: skip
        if self.inlet is not None:
            rows, i = self.cells[1], self._outlet
            change = -self._mean_velocity / self.h * (w[0, i, rows] - w[0, i - 1, rows]) * self._leaves
            change -= self._leaves * (np.sum(change) / np.sum(self._leaves))
            out[0, i, rows] = keep * start[0, i, rows] + (1 - keep) * (w[0, i, rows] + dt * change)
        return self.with_ghosts(out)

    def rate(self, w: Array) -> Array:
        """``-div(w w) + nu lap w`` at open faces, and the change of the outflow; zero at walls."""
        change = self.stage(w, w, self._nothing[0][self.cells], 1.0, 0.0, w.copy())
        return change - w

    def divergence(self, w: Array) -> Array:
        """Of a velocity, shape (nx, ny)."""
        (i, j), (u, v) = self.cells, w
        above = slice(i.start + 1, i.stop + 1), slice(j.start + 1, j.stop + 1)
        return np.asarray((u[above[0], j] - u[i, j] + v[i, above[1]] - v[i, j]) / self.h)

    def subtract_gradient(self, w: Array, p: Array, factor: float) -> Array:
        """``w - factor grad p`` at open faces, in place."""
        flat, pressure = (2, -1), self._pressure_ghosts(p)
        _subtract_gradient(
            w.reshape(flat), pressure, self.open.reshape(flat), self.strides, self._first, self._last, factor / self.h
        )
        return self.with_ghosts(w)

    def fastest(self, w: Array) -> float:
        """Largest ``|u| + |v|`` of a cell, or the lid's speed if that is more; infinite if a velocity is not finite."""
        return max(float(_fastest(w, BELOW, *self.shape)), abs(self._lid))

    def pressure_operator(self, masked: bool) -> StencilOperator:
        """``-div grad``, no flow through closed faces: symmetric, positive semidefinite, its null space the constants.

        Its unknowns are the cells of fluid if `masked`. Otherwise all cells, those of obstacles each by itself: that is
        the same system for b = 0 there, without the time to gather unknowns.
        """
        i, j = self.cells
        below = [self.open[axis, i, j] / self.h**2 for axis in range(2)]
        above = [np.roll(links, -1, axis) for axis, links in enumerate(below)]
        diagonal = below[0] + below[1] + above[0] + above[1] + ~self.fluid * (4 / self.h**2)
        return StencilOperator(
            [(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)],
            [diagonal, -below[0], -above[0], -below[1], -above[1]],
            self.shape,
            self.h,
            "periodic" if self.periodic else "neumann",
            "cell",
            mask=self.fluid if masked and not self.fluid.all() else None,
        )

    # -- Between faces and cells ------------------------------------------------------------------------------------

    def cell_means(self, w: Array) -> Array:
        """The means of the two faces of each cell, shape (2, nx, ny): second order, and zero in obstacles."""
        i, j = self.cells
        u = w[0, i, j] + w[0, i.start + 1 : i.stop + 1, j]
        v = w[1, i, j] + w[1, i, j.start + 1 : j.stop + 1]
        return np.stack([u, v]) / 2

    def from_cell_means(self, means: Array) -> Array:
        """The velocity whose cell means these are, divergence-free where that is possible: the inverse of `cell_means`.

        Along a line of cells the means and one face tell all faces, ``u_{i+1} = 2 c_i - u_i``. With sides the first
        face is known. Around a periodic axis of even size alternating parts, ``(-1)^i``, are lost in the means, and are
        found again in the divergence (but for one number, the checkerboard); there must be no obstacles then.
        """
        w = self.rest()
        alternating = [(-1.0) ** np.arange(n) for n in self.shape]
        for axis, n in enumerate(self.shape):
            lines = np.moveaxis(means[axis], axis, 0)
            faces = np.moveaxis(w[axis], axis, 0)[BELOW : BELOW + n + 1, self.cells[1 - axis]]
            signs = (-1.0) ** np.arange(n + 1)[:, None]
            found = np.cumsum(np.concatenate([faces[:1], -2 * signs[:-1] * lines]), axis=0) * signs
            if self.periodic:
                found += signs * (found[-1] / 2 if n % 2 else -np.mean((signs * found)[:-1], axis=0))
            moves = np.moveaxis(self._moves[axis], axis, 0)[BELOW : BELOW + n + 1, self.cells[1 - axis]]
            faces[...] = np.where(moves > 0, found, faces)
        self.with_ghosts(w)
        if self.periodic and self.fluid.all():
            (x, y), D = alternating, self.divergence(w) * self.h / 2
            even_x, even_y = (n % 2 == 0 for n in self.shape)
            both = float(x @ D @ y) / D.size / 2 if even_x and even_y else 0.0
            w[0][self.cells] += even_x * np.outer(x, x @ D / len(x) - y * both)
            w[1][self.cells] += even_y * np.outer(D @ y / len(y) - x * both, y)
        return self.with_ghosts(w)

    def interpolated(self, means: Array) -> Array:
        """A velocity from any cell means: each face takes the mean of its two cells, the outflow that of its one."""
        padded = np.zeros((2, *self.padded))
        padded[:, *self.cells] = means
        padded = self.with_ghosts(padded)
        w = self.rest()
        for axis in range(2):
            faces = (padded[axis] + np.roll(padded[axis], 1, axis)) / 2
            w[axis] = np.where(self.open[axis] > 0, faces, w[axis])
        return self.with_ghosts(w)
