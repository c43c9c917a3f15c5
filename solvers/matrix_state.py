"""Matrices as plain arrays and strings, to save and to restore, and whether two of them are the same."""

from typing import Any

import numpy as np
import scipy.sparse as sp

from solvers.stencil import StencilOperator

_SAMPLE = 64  # entries by which different matrices are told apart without a look at all of them


def matrix_state(A: Any) -> dict[str, Any] | None:
    """What is needed to make A again, copied where it could be changed; None for an A that shows no entries.

    Examples
    --------
    >>> from solvers import gallery
    >>> again = matrix_of_state(matrix_state(gallery.poisson((3, 4))))
    >>> same_values(again, gallery.poisson((3, 4))), same_values(again, gallery.poisson((4, 3)))
    (True, False)
    """
    if isinstance(A, StencilOperator):
        return {
            "kind": "stencil",
            "offsets": np.array(A.offsets),
            "coefficients": A.coefficients,  # read-only
            "shape": list(A.grid_shape),
            "spacing": list(A.spacing),
            "boundary": [list(pair) for pair in A.boundary],
            "centring": list(A.centring),
            "mask": None if A.mask is None else A.mask.copy(),
        }
    if sp.issparse(A):
        A = sp.csr_array(A)
        parts = {"data": A.data.copy(), "indices": A.indices.copy(), "indptr": A.indptr.copy()}
        return {"kind": "sparse", **parts, "shape": list(A.shape)}
    if isinstance(A, np.ndarray):
        return {"kind": "dense", "entries": A.copy()}
    return None


def matrix_of_state(state: dict[str, Any]) -> Any:
    """A matrix of which `matrix_state` has been taken: a StencilOperator, a CSR array or an ndarray."""
    if state["kind"] == "dense":
        return np.array(state["entries"])
    if state["kind"] == "sparse":
        parts = tuple(np.array(state[name]) for name in ("data", "indices", "indptr"))
        return sp.csr_array(parts, shape=tuple(state["shape"]))
    return StencilOperator(
        [tuple(map(int, offset)) for offset in state["offsets"]],
        np.array(state["coefficients"]),
        shape=tuple(state["shape"]),
        spacing=tuple(state["spacing"]),
        boundary=[tuple(pair) for pair in state["boundary"]],
        centring=list(state["centring"]),
        mask=state["mask"],
    )


def same_values(A: Any, B: Any) -> bool:
    """Whether two matrices of the same kind agree entry by entry; False where nobody can tell.

    Examples
    --------
    >>> same_values(np.eye(3), np.eye(3)), same_values(np.eye(3), 2 * np.eye(3)), same_values(abs, max)
    (True, False, False)
    """
    if isinstance(A, StencilOperator) and isinstance(B, StencilOperator):
        alike = A.offsets == B.offsets and A.grid_shape == B.grid_shape and A.boundary == B.boundary
        if A.mask is None or B.mask is None:
            alike = alike and A.mask is B.mask
        else:
            alike = alike and _equal(A.mask, B.mask)
        return alike and _equal(A.coefficients, B.coefficients)
    if sp.issparse(A) and sp.issparse(B) and A.format == B.format and hasattr(A, "indptr"):
        return (
            A.shape == B.shape
            and _equal(A.data, B.data)
            and all(np.array_equal(getattr(A, name), getattr(B, name)) for name in ("indptr", "indices"))
        )
    return isinstance(A, np.ndarray) and isinstance(B, np.ndarray) and _equal(A, B)


def sample(A: Any) -> np.ndarray:
    """A few entries, by which a matrix that was changed in its place is usually found out."""
    if isinstance(A, StencilOperator):
        return np.empty(0)  # cannot be changed
    entries = A.data if sp.issparse(A) and hasattr(A, "data") else A
    if not isinstance(entries, np.ndarray):
        return np.empty(0)
    return entries.reshape(-1)[:: max(entries.size // _SAMPLE, 1)].copy()


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    if a.shape != b.shape:
        return False
    step = max(a.size // _SAMPLE, 1)
    flat, other = a.reshape(-1), b.reshape(-1)
    return np.array_equal(flat[::step], other[::step]) and np.array_equal(flat, other)
