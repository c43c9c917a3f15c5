r"""Fluxes between cells: limited slopes and the HLLC solution of the Riemann problem, for gases and for shallow water.

A gas or a layer of water has, in cell c, a density (depth) rho, velocities v and a pressure p, kept as rows of one
array w over all cells of a grid, ghost cells included. Along an axis the cells that follow each other lie a fixed
`stride` apart, so one loop over flat positions serves every axis of every grid: face c lies between c and c + stride.

**Reconstruction.** Each row is continued to the faces of its cell with the monotonised central slope of van Leer 1977
(J. Comput. Phys. 23, p. 276),

    w_face = w_c +- theta/2 sign(a) min(2 |a|, 2 |b|, |a + b| / 2) if a b > 0, else w_c,
    a = w_c - w_{c-1},    b = w_{c+1} - w_c,

which never leaves the range of the two neighbours, so densities and pressures stay positive; theta is 1, or 0 at faces
of cells where a step must be repeated at first order (`FiniteVolume`).

**Riemann problem.** With the outer speeds of Einfeldt 1988 (SIAM J. Numer. Anal. 25, p. 294, eq. 4.5 and 5.10) and the
contact of Toro, Spruce and Speares 1994 (Shock Waves 4, p. 25), see Toro 2009, Riemann Solvers, section 10.4:
stationary contacts and shear waves are exact, and densities and pressures stay positive (Batten et al. 1997, SIAM J.
Sci. Comput. 18, p. 1553).

The loops run over blocks of `LANES` faces whose intermediate values lie in one small array: with constant distances
between its rows the compiler sees that nothing overlaps, and writes vector instructions.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[Any]
LANES = 64  # arrays hold so many columns more than the grid has cells

# Rows of the small array.
_RHO_L, _RHO_R, _U_L, _U_R, _P_L, _P_R, _MASS, _MOMENTUM, _ENERGY, _CONTACT, _V_L, _V_R = range(12)
_H_L, _H_R, _ETA_L, _ETA_R, _ABOVE = _RHO_L, _RHO_R, _P_L, _P_R, _ENERGY
_TINY = 1e-300  # keeps quotients of dry faces finite: they are zero


@njit(inline="always")
def _half_slope(a, b):  # type: ignore[no-untyped-def]
    """Half the limited slope of a cell whose differences to its neighbours are a and b."""
    limit, centre = min(abs(a), abs(b)), 0.25 * (a + b)
    size = min(limit, abs(centre))
    return (size if centre > 0 else -size) if a * b > 0 else 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def _reconstruct(w, row, start, stride, block, left, right):  # type: ignore[no-untyped-def]
    """Values of one row at both sides of the faces of a block."""
    below = w[row, start - stride : start - stride + LANES]
    here = w[row, start : start + LANES]
    there = w[row, start + stride : start + stride + LANES]
    beyond = w[row, start + 2 * stride : start + 2 * stride + LANES]
    theta_here = w[-1, start : start + LANES]
    theta_there = w[-1, start + stride : start + stride + LANES]
    for i in range(LANES):
        theta = min(theta_here[i], theta_there[i])
        jump = there[i] - here[i]
        block[left, i] = here[i] + theta * _half_slope(here[i] - below[i], jump)
        block[right, i] = there[i] - theta * _half_slope(jump, beyond[i] - there[i])


@njit(cache=True, nogil=True, error_model="numpy")
def _carry(block, v, momentum, energy, with_energy):  # type: ignore[no-untyped-def]
    """A tangential velocity comes from the side that the contact leaves behind, with its momentum and energy."""
    for i in range(LANES):
        velocity = block[_V_L, i] if block[_CONTACT, i] >= 0 else block[_V_R, i]
        v[i] = velocity * block[_MASS, i]
        if with_energy:
            block[_ENERGY, i] += 0.5 * velocity * velocity * block[_MASS, i]


@njit(cache=True, nogil=True, error_model="numpy")
def euler_fluxes(w, f, axis, stride, gamma):  # type: ignore[no-untyped-def]
    """Fluxes f of mass, momenta and energy through all faces along an axis; w is density, velocities, pressure, theta.

    With S_L, S_R the outer speeds, the contact moves at

        S = (p_R - p_L + rho_L u_L (S_L - u_L) - rho_R u_R (S_R - u_R)) / (rho_L (S_L - u_L) - rho_R (S_R - u_R)),

    and on the side K from which it moves away,

        F = F_K + s (U* - U_K),    rho* = rho_K (S_K - u_K) / (S_K - S),
        s = min(S_L, 0) on the left, max(S_R, 0) on the right

    (Toro 2009, eq. 10.37-10.39).
    """
    pressure, size = w.shape[0] - 2, w.shape[1] - LANES
    block = np.empty((12, LANES))
    for start in range(stride, size - 2 * stride, LANES):
        _reconstruct(w, 0, start, stride, block, _RHO_L, _RHO_R)
        _reconstruct(w, 1 + axis, start, stride, block, _U_L, _U_R)
        _reconstruct(w, pressure, start, stride, block, _P_L, _P_R)
        for i in range(LANES):
            rho_l, u_l, p_l = block[_RHO_L, i], block[_U_L, i], block[_P_L, i]
            rho_r, u_r, p_r = block[_RHO_R, i], block[_U_R, i], block[_P_R, i]
            root_l, root_r = math.sqrt(rho_l), math.sqrt(rho_r)
            share = 1 / (root_l + root_r)
            square_l, square_r = gamma * p_l / rho_l, gamma * p_r / rho_r
            mean = (root_l * u_l + root_r * u_r) * share
            spread = 0.5 * root_l * root_r * (share * (u_r - u_l)) ** 2
            speed = math.sqrt((root_l * square_l + root_r * square_r) * share + spread)
            s_l = min(u_l - math.sqrt(square_l), mean - speed)
            s_r = max(u_r + math.sqrt(square_r), mean + speed)
            m_l, m_r = rho_l * (s_l - u_l), rho_r * (s_r - u_r)  # what the outer waves sweep up
            contact = (p_r - p_l + m_l * u_l - m_r * u_r) / (m_l - m_r)
            left = contact >= 0
            rho, u, p = (rho_l if left else rho_r), (u_l if left else u_r), (p_l if left else p_r)
            outer, m = (s_l if left else s_r), (m_l if left else m_r)
            s = min(s_l, 0.0) if left else max(s_r, 0.0)
            star = m / (outer - contact)
            energy = p / (gamma - 1) + 0.5 * rho * u * u
            energy_star = star * (energy / rho + (contact - u) * (contact + p / m))
            mass = rho * u + s * (star - rho)
            block[_MASS, i] = mass
            block[_MOMENTUM, i] = rho * u * u + p + s * (star * contact - rho * u)
            block[_ENERGY, i] = u * (energy + p) + s * (energy_star - energy)
            block[_CONTACT, i] = contact
        for other in range(1, pressure):
            if other != 1 + axis:
                _reconstruct(w, other, start, stride, block, _V_L, _V_R)
                _carry(block, f[other, start : start + LANES], _MOMENTUM, _ENERGY, True)
        f[0, start : start + LANES] = block[_MASS]
        f[1 + axis, start : start + LANES] = block[_MOMENTUM]
        f[pressure, start : start + LANES] = block[_ENERGY]


@njit(cache=True, nogil=True, error_model="numpy")
def euler_primitive(u, w, gamma):  # type: ignore[no-untyped-def]
    """Density, velocities and pressure of conserved quantities; returns in how many cells they are not admissible.

    Admissible are finite densities and pressures above zero.
    """
    last, size = u.shape[0] - 1, u.shape[1] - LANES
    block = np.zeros((3, LANES))
    for start in range(0, size, LANES):
        density = u[0, start : start + LANES]
        for i in range(LANES):
            block[0, i] = 0.0
            block[1, i] = 1 / density[i]
        w[0, start : start + LANES] = density
        for row in range(1, last):
            momentum, velocity = u[row, start : start + LANES], w[row, start : start + LANES]
            for i in range(LANES):
                velocity[i] = momentum[i] * block[1, i]
                block[0, i] += momentum[i] * momentum[i] * block[1, i]
        energy, pressure = u[last, start : start + LANES], w[last, start : start + LANES]
        for i in range(LANES):
            p = (gamma - 1) * (energy[i] - 0.5 * block[0, i])
            block[2, i] += 0.0 if (p > 0) & (p < np.inf) & (density[i] > 0) & (density[i] < np.inf) else 1.0
            pressure[i] = p
    return int(block[2].sum())


@njit(cache=True, nogil=True, error_model="numpy")
def shallow_water_fluxes(w, f, axis, stride, gravity):  # type: ignore[no-untyped-def]
    """Fluxes f of depth and momenta through all faces along an axis; w is depth h, velocities, surface eta, theta.

    The bottom b is handled by the hydrostatic reconstruction of Audusse et al. 2004 (SIAM J. Sci. Comput. 25, p. 2050,
    section 3.2): depth and surface are reconstructed, ``b_L = eta_L - h_L`` follows, the Riemann problem is solved
    between the depths ``d = eta - max(b_L, b_R)`` above the higher bottom, and the cells on both sides see

        F + g/2 (h_L^2 - d_L^2) + g h_c (b_L - b_c)    below,    F + g/2 (h_R^2 - d_R^2) + g h_c (b_R - b_c)    above

    as flux of normal momentum: together with the pressure on the bottom of the cell, half of it at each of its faces.
    For a surface at rest the sums of each cell vanish, for a flat bottom both are F. F is that of HLL, with the
    tangential momentum carried by the flow of mass (Toro 2001, Shock-Capturing Methods for Free-Surface Shallow Flows,
    section 10.4-10.5).
    """
    surface, size = w.shape[0] - 2, w.shape[1] - LANES
    block = np.empty((12, LANES))
    for start in range(stride, size - 2 * stride, LANES):
        _reconstruct(w, 0, start, stride, block, _H_L, _H_R)
        _reconstruct(w, 1 + axis, start, stride, block, _U_L, _U_R)
        _reconstruct(w, surface, start, stride, block, _ETA_L, _ETA_R)
        depth_here, depth_there = w[0, start : start + LANES], w[0, start + stride : start + stride + LANES]
        eta_here, eta_there = w[surface, start : start + LANES], w[surface, start + stride : start + stride + LANES]
        for i in range(LANES):  # depths of the cells, and how far the bottom at the face is above that of the cell
            rise_l = (block[_ETA_L, i] - block[_H_L, i]) - (eta_here[i] - depth_here[i])
            rise_r = (block[_ETA_R, i] - block[_H_R, i]) - (eta_there[i] - depth_there[i])
            block[_V_L, i] = gravity * depth_here[i] * rise_l
            block[_V_R, i] = gravity * depth_there[i] * rise_r
        for i in range(LANES):
            h_l, u_l, eta_l = block[_H_L, i], block[_U_L, i], block[_ETA_L, i]
            h_r, u_r, eta_r = block[_H_R, i], block[_U_R, i], block[_ETA_R, i]
            bottom = max(eta_l - h_l, eta_r - h_r)
            d_l, d_r = max(eta_l - bottom, 0.0), max(eta_r - bottom, 0.0)
            root_l, root_r = math.sqrt(d_l), math.sqrt(d_r)
            mean = (root_l * u_l + root_r * u_r) / (root_l + root_r + _TINY)
            speed = math.sqrt(0.5 * gravity * (d_l + d_r))
            s_l = min(min(u_l - math.sqrt(gravity * d_l), mean - speed), 0.0)
            s_r = max(max(u_r + math.sqrt(gravity * d_r), mean + speed), 0.0)
            q_l, q_r = d_l * u_l, d_r * u_r
            k_l, k_r = 0.5 * gravity * d_l * d_l, 0.5 * gravity * d_r * d_r
            share = 1 / (s_r - s_l + _TINY)
            mass = (s_r * q_l - s_l * q_r + s_l * s_r * (d_r - d_l)) * share
            flux = (s_r * (q_l * u_l + k_l) - s_l * (q_r * u_r + k_r) + s_l * s_r * (q_r - q_l)) * share
            block[_MASS, i] = block[_CONTACT, i] = mass
            block[_MOMENTUM, i] = flux + (0.5 * gravity * h_l * h_l - k_l) + block[_V_L, i]
            block[_ABOVE, i] = flux + (0.5 * gravity * h_r * h_r - k_r) + block[_V_R, i]
        for other in range(1, surface):
            if other != 1 + axis:
                _reconstruct(w, other, start, stride, block, _V_L, _V_R)
                _carry(block, f[other, start : start + LANES], _MOMENTUM, _ENERGY, False)
        f[0, start : start + LANES] = block[_MASS]
        f[1 + axis, start : start + LANES] = block[_MOMENTUM]
        f[-1, start : start + LANES] = block[_ABOVE]


@njit(cache=True, nogil=True, error_model="numpy")
def shallow_water_primitive(u, w):  # type: ignore[no-untyped-def]
    """Depth, velocities and surface of depth, momenta and bottom; returns how many depths are not above zero."""
    last, size = u.shape[0] - 1, u.shape[1] - LANES
    block = np.zeros((2, LANES))
    for start in range(0, size, LANES):
        depth, bottom = u[0, start : start + LANES], u[last, start : start + LANES]
        eta = w[last, start : start + LANES]
        for i in range(LANES):
            block[0, i] = 1 / depth[i]
            block[1, i] += 0.0 if (depth[i] > 0) & (depth[i] < np.inf) else 1.0
            eta[i] = depth[i] + bottom[i]
        w[0, start : start + LANES] = depth
        for row in range(1, last):
            momentum, velocity = u[row, start : start + LANES], w[row, start : start + LANES]
            for i in range(LANES):
                velocity[i] = momentum[i] * block[0, i]
    return int(block[1].sum())


@njit(cache=True, nogil=True, error_model="numpy")
def _fastest(w, elastic, factor, inverse_spacing):  # type: ignore[no-untyped-def]
    """The largest ``sum over axes of (|v_a| + c) / h_a`` of all cells, ``c^2 = factor w[elastic] / w[0]``.

    Where elastic is 0, ``c^2 = factor w[0]``.
    """
    block = np.zeros((2, LANES))
    total = inverse_spacing.sum()
    for start in range(0, w.shape[1] - LANES, LANES):
        density, pressure = w[0, start : start + LANES], w[elastic, start : start + LANES]
        for i in range(LANES):
            square = pressure[i] / density[i] if elastic > 0 else density[i]
            block[0, i] = total * math.sqrt(factor * square)
        for axis in range(inverse_spacing.size):
            velocity, inverse = w[1 + axis, start : start + LANES], inverse_spacing[axis]
            for i in range(LANES):
                block[0, i] += abs(velocity[i]) * inverse
        for i in range(LANES):
            block[1, i] = max(block[1, i], block[0, i])
    return block[1].max()


@dataclass(frozen=True)
class EulerLaw:
    """Gas dynamics: u holds mass, momenta and energy per volume, w density, velocities, pressure and theta."""

    dimension: int
    gamma: float

    @property
    def rows(self) -> tuple[int, int, int]:
        """Rows of u, w and f."""
        return self.dimension + 2, self.dimension + 3, self.dimension + 2

    def conserved(self, primitive: Array) -> Array:
        """u of density, velocities and pressure, ``(rows, *grid)``."""
        density, velocity, pressure = primitive[0], primitive[1:-1], primitive[-1]
        energy = pressure / (self.gamma - 1) + 0.5 * density * np.sum(velocity**2, axis=0)
        return np.concatenate([density[None], density * velocity, energy[None]])

    def recovered(self, u: Array) -> Array:
        """Density, velocities and pressure of u, ``(rows, *grid)``."""
        density, velocity = u[0], u[1:-1] / u[0]
        pressure = (self.gamma - 1) * (u[-1] - 0.5 * np.sum(u[1:-1] * velocity, axis=0))
        return np.concatenate([density[None], velocity, pressure[None]])

    def recovered_rate(self, primitive: Array, rate: Array) -> Array:
        """The time derivative of density, velocities and pressure, from that of u."""
        velocity, momenta = primitive[1:-1], rate[1:-1]
        energy = rate[-1] - np.sum(velocity * momenta, axis=0) + 0.5 * np.sum(velocity**2, axis=0) * rate[0]
        accelerations = (momenta - velocity * rate[0]) / primitive[0]
        return np.concatenate([rate[:1], accelerations, (self.gamma - 1) * energy[None]])

    def primitive(self, u: Array, w: Array) -> int:
        """Fill w from u; the number of cells without positive density and pressure."""
        return int(euler_primitive(u, w, self.gamma))

    def admissible(self, w: Array) -> NDArray[np.bool_]:
        """Which columns have positive, finite density and pressure."""
        return (w[0] > 0) & (w[0] < np.inf) & (w[-2] > 0) & (w[-2] < np.inf)

    def fluxes(self, w: Array, f: Array, axis: int, stride: int) -> None:
        """`euler_fluxes`."""
        euler_fluxes(w, f, axis, stride, self.gamma)

    def rows_above(self, axis: int) -> list[int]:
        """Both sides of a face see the same fluxes."""
        return list(range(self.rows[0]))

    def fastest(self, w: Array, inverse_spacing: Array) -> float:
        """``|v| + c`` with ``c^2 = gamma p / rho``."""
        return float(_fastest(w, len(w) - 2, self.gamma, inverse_spacing))


@dataclass(frozen=True)
class ShallowWaterLaw:
    """Shallow water: u holds depth, momenta and the bottom, which stays; w depth, velocities, surface and theta.

    f has one row more than u: the flux of normal momentum that the cell above a face sees.
    """

    dimension: int
    gravity: float

    @property
    def rows(self) -> tuple[int, int, int]:
        """Rows of u, w and f."""
        return self.dimension + 2, self.dimension + 3, self.dimension + 3

    def conserved(self, primitive: Array) -> Array:
        """u of depth, velocities and bottom, ``(rows, *grid)``."""
        return np.concatenate([primitive[:1], primitive[0] * primitive[1:-1], primitive[-1:]])

    def recovered(self, u: Array) -> Array:
        """Depth, velocities and bottom of u, ``(rows, *grid)``."""
        return np.concatenate([u[:1], u[1:-1] / u[0], u[-1:]])

    def recovered_rate(self, primitive: Array, rate: Array) -> Array:
        """The time derivative of depth, velocities and bottom, from that of u."""
        return np.concatenate([rate[:1], (rate[1:-1] - primitive[1:-1] * rate[0]) / primitive[0], rate[-1:]])

    def primitive(self, u: Array, w: Array) -> int:
        """Fill w from u; the number of cells without positive depth."""
        return int(shallow_water_primitive(u, w))

    def admissible(self, w: Array) -> NDArray[np.bool_]:
        """Which columns have positive, finite depth."""
        return (w[0] > 0) & (w[0] < np.inf)

    def fluxes(self, w: Array, f: Array, axis: int, stride: int) -> None:
        """`shallow_water_fluxes`."""
        shallow_water_fluxes(w, f, axis, stride, self.gravity)

    def rows_above(self, axis: int) -> list[int]:
        """The last row of f in place of the normal momentum."""
        return [self.rows[2] - 1 if row == 1 + axis else row for row in range(self.rows[0])]

    def fastest(self, w: Array, inverse_spacing: Array) -> float:
        """``|v| + c`` with ``c^2 = g h``."""
        return float(_fastest(w, 0, self.gravity, inverse_spacing))
