"""The evolution equations written a second time, for `datagen.validate`: right-hand sides on values, plain `numpy.fft`.

Nothing here is shared with `datagen.evolve` or the families. A scheme takes a family and a stored sample and returns
``f(times, states)`` with ``du/dt = f``, states ``(batch, channels, *grid)`` and their times ``(batch,)``, which any
integrator of ordinary equations can follow; validation uses scipy's DOP853.

The equations are the spatially discrete ones that the families state, so that what is left is the error of the step
in time: derivatives of the trigonometric polynomials of ``|k_i| < n_i / 2``, products formed on so many points that
nothing is aliased, and cut off to these wavenumbers again.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datagen import finite_volume_checks, flow_checks, implicit_checks
from datagen.evolve.family import EvolvingFamily
from datagen.evolve.spectral import SpectralFamily
from datagen.family import Family, Sample
from datagen.grids import Grid
from datagen.pdes.advection import Advection
from datagen.pdes.allen_cahn import AllenCahn
from datagen.pdes.burgers import Burgers
from datagen.pdes.euler import Euler
from datagen.pdes.fitzhugh_nagumo import FitzHughNagumo
from datagen.pdes.flow import Flow
from datagen.pdes.gray_scott import GrayScott
from datagen.pdes.heat import Heat
from datagen.pdes.kdv import KdV
from datagen.pdes.kuramoto_sivashinsky import KuramotoSivashinsky
from datagen.pdes.navier_stokes import NavierStokes
from datagen.pdes.shallow_water import ShallowWater
from datagen.pdes.wave import Wave

Array = NDArray[Any]
RightHandSide = Callable[[NDArray[np.float64], Array], Array]


class Periodic:
    """Transforms of values on a periodic grid, without Nyquist modes, and products of so many factors."""

    def __init__(self, mesh: Grid, factors: int = 2) -> None:
        self.shape, self.axes = mesh.shape, tuple(range(-mesh.dimension, 0))
        *others, last = mesh.shape
        modes = [*(np.fft.fftfreq(n, 1 / n) for n in others), np.fft.rfftfreq(last, 1 / last)]
        index = np.meshgrid(*modes, indexing="ij")
        self.kept = np.all([abs(k) < n / 2 for k, n in zip(index, mesh.shape, strict=True)], axis=0)
        self.ik = [2j * np.pi / length * k for k, length in zip(index, mesh.lengths, strict=True)]
        self.laplacian = np.sum([d**2 for d in self.ik], axis=0).real
        # A product of p factors of |k| < n/2 reaches p n/2; what it folds back must stay above n/2.
        self.fine = tuple(-(-(factors + 1) * n // 2) for n in mesh.shape)
        self.places: Any = (..., *np.ix_(*(k.astype(int) % m for k, m in zip(modes, self.fine, strict=True))))

    def hat(self, values: Array) -> Array:
        """Transform of values on the grid."""
        return np.fft.rfftn(values, axes=self.axes, norm="forward") * self.kept

    def back(self, transform: Array) -> Array:
        """Values on the grid."""
        return np.fft.irfftn(transform, self.shape, axes=self.axes, norm="forward")

    def on_fine(self, transform: Array) -> Array:
        """Values on the points for products."""
        padded = np.zeros((*transform.shape[: -len(self.axes)], *self.fine[:-1], self.fine[-1] // 2 + 1), complex)
        padded[self.places] = transform
        return np.fft.irfftn(padded, self.fine, axes=self.axes, norm="forward")

    def from_fine(self, values: Array) -> Array:
        """Transform of values on the points for products, cut off."""
        return np.fft.rfftn(values, axes=self.axes, norm="forward")[self.places] * self.kept


def advection(family: Advection, sample: Sample) -> RightHandSide:
    """``-c . grad u``."""
    box = Periodic(family.mesh)
    slope = -sum(c * d for c, d in zip(np.broadcast_to(family.velocity, len(box.ik)), box.ik, strict=True))
    return lambda t, u: box.back(slope * box.hat(u))


def burgers(family: Burgers, sample: Sample) -> RightHandSide:
    """``-u u_x + nu u_xx``."""
    box = Periodic(family.mesh)

    def change(t: Array, u: Array) -> Array:
        c = box.hat(u)
        steepening = box.from_fine(-box.on_fine(c) * box.on_fine(box.ik[0] * c))
        return box.back(steepening + family.nu * box.laplacian * c)

    return change


def kdv(family: KdV, sample: Sample) -> RightHandSide:
    """``-convection u u_x - dispersion u_xxx``."""
    box = Periodic(family.mesh)

    def change(t: Array, u: Array) -> Array:
        c = box.hat(u)
        steepening = box.from_fine(-family.convection * box.on_fine(c) * box.on_fine(box.ik[0] * c))
        return box.back(steepening - family.dispersion * box.ik[0] ** 3 * c)

    return change


def kuramoto_sivashinsky(family: KuramotoSivashinsky, sample: Sample) -> RightHandSide:
    """``-u u_x - u_xx - u_xxxx``."""
    box = Periodic(family.mesh)

    def change(t: Array, u: Array) -> Array:
        c = box.hat(u)
        steepening = box.from_fine(-box.on_fine(c) * box.on_fine(box.ik[0] * c))
        return box.back(steepening - (box.laplacian + box.laplacian**2) * c)

    return change


def allen_cahn(family: AllenCahn, sample: Sample) -> RightHandSide:
    """``diffusivity lap u + rate (u - u^3)``."""
    box = Periodic(family.mesh, factors=3)

    def change(t: Array, u: Array) -> Array:
        c = box.hat(u)
        cube = box.from_fine(box.on_fine(c) ** 3)
        return box.back(family.diffusivity * box.laplacian * c + family.rate * (c - cube))

    return change


def gray_scott(family: GrayScott, sample: Sample) -> RightHandSide:
    """``diffusivity_a lap a - a b^2 + feed (1 - a)`` and ``diffusivity_b lap b + a b^2 - (feed + kill) b``."""
    box = Periodic(family.mesh, factors=3)

    def change(t: Array, state: Array) -> Array:
        a, b = box.hat(state[:, 0]), box.hat(state[:, 1])
        eaten = box.from_fine(box.on_fine(a) * box.on_fine(b) ** 2)
        da = family.diffusivity_a * box.laplacian * a - eaten - family.feed * a
        db = family.diffusivity_b * box.laplacian * b + eaten - (family.feed + family.kill) * b
        return np.stack([box.back(da) + family.feed, box.back(db)], axis=1)

    return change


def fitzhugh_nagumo(family: FitzHughNagumo, sample: Sample) -> RightHandSide:
    """``diffusivity_u lap u + u - u^3 - k - v`` and ``diffusivity_v lap v + u - v``."""
    box = Periodic(family.mesh, factors=3)

    def change(t: Array, state: Array) -> Array:
        u, v = box.hat(state[:, 0]), box.hat(state[:, 1])
        du = family.diffusivity_u * box.laplacian * u + u - box.from_fine(box.on_fine(u) ** 3) - v
        dv = family.diffusivity_v * box.laplacian * v + u - v
        return np.stack([box.back(du) - family.threshold, box.back(dv)], axis=1)

    return change


def navier_stokes(family: NavierStokes, sample: Sample) -> RightHandSide:
    """``-u . grad w + nu lap w - drag w + f``, the velocity ``(psi_y, -psi_x)`` of ``-lap psi = w``."""
    box = Periodic(family.mesh)
    dx, dy = box.ik
    inverse = np.zeros_like(box.laplacian)
    inverse[box.laplacian < 0] = -1 / box.laplacian[box.laplacian < 0]
    x, y = (s * 2 * np.pi / family.length for s in family.mesh.points())
    wave, a = family.waves, family.amplitude
    force = {
        "fno": a * (np.sin(x + y) + np.cos(x + y)),
        "kolmogorov": -a * 2 * np.pi * wave / family.length * np.cos(wave * y),
        "none": np.zeros(family.mesh.shape),
    }[family.forcing]
    f = box.hat(force)

    def change(t: Array, state: Array) -> Array:
        w = box.hat(state[:, 0])
        psi = inverse * w
        carried = box.on_fine(dy * psi) * box.on_fine(dx * w) - box.on_fine(dx * psi) * box.on_fine(dy * w)
        return box.back(family.nu * box.laplacian * w - family.drag * w + f - box.from_fine(carried))[:, None]

    return change


EVOLUTIONS: dict[type[Family], Callable[[Any, Sample], RightHandSide]] = {
    Advection: advection,
    Burgers: burgers,
    KdV: kdv,
    KuramotoSivashinsky: kuramoto_sivashinsky,
    AllenCahn: allen_cahn,
    GrayScott: gray_scott,
    FitzHughNagumo: fitzhugh_nagumo,
    NavierStokes: navier_stokes,
}

# (family, sample, times) -> states ``(times, channels, *grid)``: whole evolutions, of families whose independent scheme
# steps in time by itself.
TRAJECTORIES: dict[type[Family], Callable[[Any, Sample, Sequence[float]], Array]] = {
    Euler: finite_volume_checks.evolve,
    ShallowWater: finite_volume_checks.evolve,
    Heat: implicit_checks.heat_states,
    Wave: implicit_checks.wave_states,
}

# (family, sample) -> ((state, begin, end) -> the state at the end), states ``(channels, *grid)``: of families whose
# independent scheme steps in time by itself, and can start from any frame.
RESTARTS: dict[type[Family], Callable[[Any, Sample], Callable[[Array, float, float], Array]]] = {
    Flow: lambda family, sample: flow_checks.FlowScheme(family, sample).advance,
}

# (family, sample, output fields) -> faults of frames that can be seen without a step in time.
FRAME_CHECKS: dict[type[Family], Callable[[Any, Sample, Mapping[str, Array]], Iterator[str]]] = {
    Flow: flow_checks.frame_faults,
}


def independent_right_hand_side(family: EvolvingFamily, sample: Sample) -> RightHandSide | None:
    """The right-hand side of a sample's evolution, without `datagen.evolve`; None for families not known here."""
    scheme = EVOLUTIONS.get(type(family))
    return None if scheme is None else scheme(family, sample)


def independent_start(family: EvolvingFamily, state: Array) -> Array:
    """The state that the first frame shows: of spectral families without the Nyquist modes of even grids."""
    if not isinstance(family, SpectralFamily):
        return family.resolved(state)
    box = Periodic(family.mesh)
    return box.back(box.hat(state))
