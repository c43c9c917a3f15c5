"""Independent assemblies of the steady families, for `datagen.validate`: the same schemes from incidence matrices.

Nothing here is shared with `datagen.discretise` or the families' `system`. Each assembly takes a family and a stored
sample and returns A and b with ``A u = b`` for **all** values u that the file holds, output field after output field:
where the file repeats what was given (boundary nodes, holes), the row says so, ``u = given``.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray

from datagen.family import Family, Sample
from datagen.pdes.poisson import Poisson

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
    keep = sparse.diags_array((~on_boundary).astype(float))
    g = np.where(on_boundary, given["boundary_value"].ravel(), 0.0)
    b = np.where(on_boundary, g, given["source"].ravel() - L @ g)
    return sparse.csr_array(keep @ L @ keep + sparse.diags_array(on_boundary.astype(float))), b


STEADY: dict[type[Family], Callable[[Any, Sample], System]] = {Poisson: poisson_system}
