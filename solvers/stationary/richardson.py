r"""Richardson's iteration with a preconditioner, which is what `jacobi` and `ssor` are.

.. math:: d \leftarrow d + M r, \qquad r \leftarrow r - A M r

Source: Y. Saad, Iterative Methods for Sparse Linear Systems, 2nd ed. (2003), section 4.2.

Storage: 5 n-vectors (d, r, M r, A M r, best d). Work per iteration: one product with A and one with M.
"""

from math import isfinite

import numpy as np

from solvers.krylov.best import Best
from solvers.krylov.driver import Correction, Outcome
from solvers.krylov.updates import axpy
from solvers.result import Status
from solvers.system import norm as euclidean_norm


def richardson(problem: Correction) -> Outcome:
    """Iterate from d = 0 until the recurrent residual is small enough."""
    matvec, precondition, r, norm = problem.system.matvec, problem.precondition, problem.r, problem.norm
    one = r.real.dtype.type(1)
    limit = norm / float(np.finfo(r.dtype).eps)
    d = np.zeros_like(r)
    best = Best(norm)
    while problem.budget[0] > 0:
        problem.budget[0] -= 1
        z = r.copy() if precondition is None else precondition(r)
        q = matvec(np.ascontiguousarray(z))
        axpy(-one, q, r)
        new_norm = euclidean_norm(r)
        best.before_step(d, norm, new_norm)
        axpy(one, z, d)
        norm = new_norm
        if not isfinite(norm) or norm > limit:
            return (
                best.of(d, norm if isfinite(norm) else limit),
                Status.BREAKDOWN,
                (f"the residual grew by more than {limit / problem.norm:.0e}: the iteration diverges for this A"),
            )
        stop = problem.record(norm) or problem.report(d)
        if norm <= problem.target:
            return d, None, ""
        if stop is not None:
            return best.of(d, norm), stop, ""
    return best.of(d, norm), Status.MAX_ITERATIONS, "maxiter reached"
