"""Black-box multigrid for operators on structured grids.

`operator` takes A apart, `layout` says where numbers lie, `colours` and `schedule` what a cycle does, `galerkin` makes
interpolation and coarse operators, `cycle` runs, `hierarchy` puts them together, `preconditioner` is what users see.
"""

from solvers.precondition.multigrid.preconditioner import Multigrid

__all__ = ["Multigrid"]
