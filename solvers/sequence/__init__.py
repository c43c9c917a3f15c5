"""Sequences of similar systems, one after the other: keep what helps with the next, drop what does not pay.

>>> from solvers import gallery
>>> from solvers.sequence import SequenceSolver
>>> solver = SequenceSolver(rtol=1e-7, cost="work")
>>> all(solver.solve(A, b, context).converged for A, b, context in gallery.darcy_sequence(length=3, shape=(30, 30)))
True
"""

from solvers.sequence.solver import SequenceSolver

__all__ = ["SequenceSolver"]
