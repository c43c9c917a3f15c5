"""Fourier analysis: tridiagonal systems along the first axis for the modes of all others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from solvers.kronecker_sum import Tridiagonal
from solvers.precondition.fast_poisson.lines import Lines
from solvers.precondition.fast_poisson.transforms import Transform


@dataclass(frozen=True)
class _Step:
    """A transform, the shapes of what goes in and of what comes out, and room for that if it is larger."""

    transform: Transform
    entry: tuple[int, int, int]
    leave: tuple[int, int, int]
    work: np.ndarray | None


class Modes:
    r"""Solves :math:`T \otimes I + I \otimes p(K)` with K the Kronecker sum of the other axes and p a polynomial.

    Parameters
    ----------
    T : Tridiagonal
        Of the first axis.
    others : sequence of Tridiagonal
        Of the other axes, in their order.
    transforms : sequence of Transform
        That diagonalise them.
    dtype : numpy.dtype
    polynomial : callable, optional
        p, applied to the eigenvalues of K; p(x) = x by default.

    Attributes
    ----------
    singular : ndarray of int
        Modes with a singular system, of which the pseudo-inverse is taken.

    Raises
    ------
    ValueError
        If the operator is indefinite.
    """

    def __init__(
        self,
        T: Tridiagonal,
        others: Sequence[Tridiagonal],
        transforms: Sequence[Transform],
        dtype: np.dtype,
        polynomial: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        shape = [T.diagonal.size, *(other.diagonal.size for other in others)]
        # From the last axis to the first, so that real and imaginary parts, where there are any, lie last and the
        # products of the axes before are those of large matrices.
        self._steps: list[_Step] = []
        eigenvalues, after, size = np.zeros(1), 1, prod(shape)
        for position in range(len(others), 0, -1):
            along = transforms[position - 1]
            before, modes = prod(shape[:position]), len(along.eigenvalues)
            eigenvalues = np.add.outer(along.eigenvalues, np.repeat(eigenvalues, along.pieces)).reshape(-1)
            entry, leave = (before, shape[position], after), (before, modes, after * along.pieces)
            work = None if prod(leave) == size else np.empty(prod(leave), dtype=dtype)
            self._steps.append(_Step(along, entry, leave, work))
            after, size = modes * after * along.pieces, prod(leave)
        self._lines = Lines(T, eigenvalues if polynomial is None else polynomial(eigenvalues), dtype)
        self.singular = self._lines.singular

    def solve(self, f: np.ndarray, out: np.ndarray) -> None:
        """The solution for the right-hand side f, contiguous fields; f is left alone unless it is `out`."""
        path, source = [out], f
        for step in self._steps:
            target = path[-1] if step.work is None else step.work
            step.transform.forward(source.reshape(step.entry), target.reshape(step.leave))
            source = target
            path.append(target)
        if not self._steps and f is not out:
            np.copyto(out, f)
        self._lines.solve(path[-1].reshape(len(f), -1))
        for step, y, target in zip(self._steps[::-1], path[:0:-1], path[-2::-1], strict=True):
            step.transform.inverse(y.reshape(step.leave), target.reshape(step.entry))
