"""Independent assemblies of the steady families, for `datagen.validate`: the same schemes from incidence matrices.

Nothing here is shared with `datagen.discretise` or the families' `system`. Each assembly takes a family and a stored
sample and returns A and b with ``A u = b`` for **all** values u that the file holds, output field after output field:
where the file repeats what was given (boundary nodes, holes), the row has one entry and says so, ``u = given``.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray
from scipy.interpolate import make_interp_spline

from datagen.family import Family, Sample
from datagen.pdes.darcy import Darcy
from datagen.pdes.helmholtz import Helmholtz
from datagen.pdes.poisson import Poisson
from datagen.pdes.thermal_plate import ThermalPlate

System = tuple[sparse.csr_array, NDArray[np.float64]]


def _pairs(shape: tuple[int, ...], axis: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Flat indices of all neighbours along an axis: lower ones, upper ones."""
    index = np.moveaxis(np.arange(np.prod(shape)).reshape(shape), axis, 0)
    return index[:-1].ravel(), index[1:].ravel()


def _ends(shape: tuple[int, ...], axis: int) -> NDArray[np.int64]:
    """Flat indices of the first and the last values along an axis."""
    index = np.moveaxis(np.arange(np.prod(shape)).reshape(shape), axis, 0)
    return np.concatenate([index[0].ravel(), index[-1].ravel()])


def _graph_laplacian(
    size: int, pairs: tuple[NDArray[np.int64], NDArray[np.int64]], conductance: NDArray[np.float64]
) -> sparse.csr_array:
    """``D' diag(conductance) D``, D the incidence matrix of the pairs."""
    links = np.arange(len(conductance))
    ones = np.ones(len(links))
    rows, columns = np.concatenate([links, links]), np.concatenate(pairs)
    D = sparse.csr_array((np.concatenate([-ones, ones]), (rows, columns)), shape=(len(links), size))
    return sparse.csr_array(D.T @ sparse.diags_array(conductance) @ D)


def _series_conductance(
    coefficient: NDArray[np.float64], pairs: tuple[NDArray[np.int64], NDArray[np.int64]], spacing: float
) -> NDArray[np.float64]:
    """Of two half cells in series, per volume: ``1 / (h/2/a_1 + h/2/a_2) / h``."""
    a = coefficient.ravel()
    return np.asarray(1 / (spacing / 2 / a[pairs[0]] + spacing / 2 / a[pairs[1]]) / spacing)


def poisson_system(family: Poisson, sample: Sample) -> System:
    """All nodes; those of the boundary keep the stored g."""
    mesh = family.mesh
    given = {name: np.asarray(values, dtype=np.float64) for name, values in sample.fields.items()}
    a = given.get("coefficient", np.ones(mesh.shape))
    L = sparse.csr_array((mesh.size, mesh.size))
    on_boundary = np.zeros(mesh.size, dtype=bool)
    for axis, h in enumerate(mesh.spacing):
        pairs = _pairs(mesh.shape, axis)
        L = L + _graph_laplacian(mesh.size, pairs, _series_conductance(a, pairs, h))
        on_boundary[_ends(mesh.shape, axis)] = True
    g = np.where(on_boundary, given["boundary_value"].ravel(), 0.0)
    b = np.where(on_boundary, g, given["source"].ravel() - L @ g)
    return _with_given(L, on_boundary), b


def helmholtz_system(family: Helmholtz, sample: Sample) -> System:
    """All cells; a complex system as the real one of twice the size, ``[[Re A, -Im A], [Im A, Re A]]``.

    On an impedance side the value on the face follows from two expressions of the flux that leaves the cell:
    ``(u - u_F) / (h/2) = -i k_F u_F``.
    """
    mesh = family.mesh
    k = np.asarray(sample.fields["wavenumber"], dtype=np.float64)
    f = np.asarray(sample.fields["source"], dtype=np.float64).ravel()
    total = sparse.csr_array((mesh.size, mesh.size), dtype=complex)
    diagonal = -(k.ravel() ** 2).astype(complex)
    for axis, h in enumerate(mesh.spacing):
        pairs = _pairs(mesh.shape, axis)
        total = total + _graph_laplacian(mesh.size, pairs, np.full(len(pairs[0]), 1 / h**2))
        if family.condition == "dirichlet":
            np.add.at(diagonal, _ends(mesh.shape, axis), 2 / h**2)
            continue
        along = np.moveaxis(k, axis, 0)
        k_face = np.concatenate(
            [(along[0] + (along[0] - along[1]) / 2).ravel(), (along[-1] * 1.5 - along[-2] / 2).ravel()]
        )
        face_value = 1 / (1 - 0.5j * h * np.clip(k_face, 0, None))
        np.add.at(diagonal, _ends(mesh.shape, axis), (1 - face_value) / (h / 2) / h)
    total = sparse.csr_array(total + sparse.diags_array(diagonal))
    if family.condition == "dirichlet":
        return sparse.csr_array(total.real), f
    real = sparse.block_array([[total.real, -total.imag], [total.imag, total.real]], format="csr")
    return sparse.csr_array(real), np.concatenate([f, np.zeros(mesh.size)])


def thermal_plate_system(family: ThermalPlate, sample: Sample) -> System:
    """All cells; those of the slot, where the stored conductivity is zero, keep temperature zero."""
    mesh = family.mesh
    k = np.asarray(sample.fields["conductivity"], dtype=np.float64).ravel()
    there = k > 0
    L = sparse.csr_array((mesh.size, mesh.size))
    for axis, h in enumerate(mesh.spacing):
        lower, upper = _pairs(mesh.shape, axis)
        both = there[lower] & there[upper]
        pairs = lower[both], upper[both]
        L = L + _graph_laplacian(mesh.size, pairs, _series_conductance(k, pairs, h))
    edges, h = _ends(mesh.shape, 0), mesh.spacing[0]
    half_cell = np.zeros(mesh.size)
    half_cell[edges] = k[edges] / (h / 2) / h
    b = half_cell * np.asarray(sample.fields["edge_temperature"], dtype=np.float64).ravel()
    return sparse.csr_array(L + sparse.diags_array(half_cell + ~there)), b


def legacy_fno_nodes(points: int, cells_to_nodes: bool) -> NDArray[np.float64]:
    """Not-a-knot cubic spline interpolation along one axis, by B-splines: ``B(target) B(source)^-1``."""
    nodes, cells = np.linspace(0, 1, points), (np.arange(points) + 0.5) / points
    source, target = (cells, nodes) if cells_to_nodes else (nodes, cells)
    return np.asarray(make_interp_spline(source, np.eye(points), k=3)(target))


def legacy_fno_system(family: Darcy, sample: Sample) -> System:
    """All nodes, those of the boundary zero; `legacy_fno_values` says what the stored pressure is there."""
    coefficient = np.asarray(sample.fields["coefficient"], dtype=np.float64)
    K = len(coefficient)
    S = legacy_fno_nodes(K, cells_to_nodes=True)
    a = (S @ coefficient @ S.T).ravel()
    L = sparse.csr_array((K * K, K * K))
    on_boundary = np.zeros(K * K, dtype=bool)
    for axis in (0, 1):
        pairs = _pairs((K, K), axis)
        L = L + _graph_laplacian(K * K, pairs, (a[pairs[0]] + a[pairs[1]]) / 2 * (K - 1) ** 2)
        on_boundary[_ends((K, K), axis)] = True
    return _with_given(L, on_boundary), np.where(on_boundary, 0.0, float(family.source))


def legacy_fno_values(pressure: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodal values whose spline has the stored values on the cells, and the magnitude that rounding is relative to."""
    P = np.linalg.inv(legacy_fno_nodes(len(pressure), cells_to_nodes=False))
    return (P @ pressure @ P.T).ravel(), (abs(P) @ abs(pressure) @ abs(P).T).ravel()


def _with_given(L: sparse.csr_array, given: NDArray[np.bool_]) -> sparse.csr_array:
    """L among the values that are not given, and one on the diagonal of those that are."""
    keep = sparse.diags_array((~given).astype(float))
    A = sparse.csr_array(keep @ L @ keep + sparse.diags_array(given.astype(float)))
    A.eliminate_zeros()
    return A


STEADY: dict[type[Family], Callable[[Any, Sample], System]] = {
    Poisson: poisson_system,
    Helmholtz: helmholtz_system,
    ThermalPlate: thermal_plate_system,
}
