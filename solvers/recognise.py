"""Seeing a structured grid in a sparse matrix.

The columns of a matrix on a grid in C order lie on a few diagonals; their distances from the main one are sums of the
strides of the grid, which give its shape.
"""

from typing import Any

from solvers.stencil import StencilOperator


def recognise(A: Any) -> StencilOperator | None:
    return None
