"""Black-box multigrid for operators on structured grids.

`layout` says where numbers lie, `schedule` what a cycle does, `setup` makes interpolation and coarse operators, `cycle`
runs, `hierarchy` puts them together, `preconditioner` is what users see.
"""

from solvers.precondition.multigrid.preconditioner import Multigrid

__all__ = ["Multigrid"]
