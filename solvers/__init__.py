"""Given A and b: find x, and prove it."""

from solvers.result import ConvergenceError, Result, Status
from solvers.stencil import StencilOperator

__all__ = ["ConvergenceError", "Result", "Status", "StencilOperator"]
