r"""First guesses from earlier solutions: the best combination of the last few, if that pays.

With the last solutions as columns of V, the guess is :math:`x_0 = V y` with

.. math:: V^H A V y = V^H b \quad\text{(A definite: least energy of the error)}, \qquad
          \min_y \|b - A V y\| \quad\text{(otherwise).}

Source: P. F. Fischer, Projection techniques for iterative solution of Ax = b with successive right-hand sides, Comput.
Methods Appl. Mech. Engrg. 163 (1998).

Storage: 2 keep n-vectors. Work: `keep` products, 2 keep^2 inner products.
"""

from math import log
from typing import Any

import numpy as np

from solvers.system import System, norm

_TRIALS = 3  # guesses before it is asked whether they pay
_PAUSE = 20  # systems without a guess, if they do not


class WarmStart:
    """The last few solutions, and whether they are worth their products.

    Parameters
    ----------
    keep : int
        How many.

    Examples
    --------
    >>> A = System(np.diag([1.0, 2.0, 4.0]))
    >>> warm = WarmStart()
    >>> warm.guess(A, np.ones(3)) is None
    True
    >>> warm.learn(np.array([1.0, 0.5, 0.25]))
    >>> warm.guess(A, 2 * np.ones(3))
    array([2. , 1. , 0.5])
    """

    def __init__(self, keep: int = 3) -> None:
        self.keep = keep
        self._solutions: list[np.ndarray] = []
        self._gains: list[float] = []
        self._pause = 0
        self._drop = 0.0  # logarithm of how far the last guess lowered the residual

    def guess(self, system: System, b: np.ndarray) -> np.ndarray | None:
        """A first guess of the shape of b, or None. Takes one product for each solution that is kept."""
        self._drop = 0.0
        if b.ndim != 1 or not self._solutions or self._solutions[0].shape != b.shape:
            return None
        if self._pause:
            self._pause -= 1
            return None
        V = np.linalg.qr(np.stack(self._solutions, axis=1).astype(system.dtype))[0]
        AV = np.stack([np.array(system.matvec(np.ascontiguousarray(v))) for v in V.T], axis=1)
        if not np.isfinite(AV).all():
            return None
        left = V if system.maybe_definite else AV
        y = np.linalg.lstsq(left.conj().T @ AV, left.conj().T @ b.astype(system.dtype), rcond=None)[0]
        before, after = norm(np.ascontiguousarray(b, dtype=system.dtype)), float(np.linalg.norm(b - AV @ y))
        if not 0 < after < before:
            return V @ y if after == 0 < before else None
        self._drop = log(before / after)
        return np.asarray(V @ y)

    def judge(self, products: float, iterations: int, still_to_drop: float) -> None:
        """After a solve from a guess: did it spare more than it cost?

        Parameters
        ----------
        products : float
            What the guess cost, in iterations of the method.
        iterations : int
            That the solve took from the guess.
        still_to_drop : float
            Logarithm of how far they lowered the residual.
        """
        if not self._drop:
            return
        spared = self._drop * iterations / still_to_drop if still_to_drop > 0 else iterations
        self._gains.append(spared - products)
        if len(self._gains) >= _TRIALS:
            if sum(self._gains[-_TRIALS:]) <= 0:
                self._pause = _PAUSE
            self._gains = self._gains[-_TRIALS + 1 :]

    def learn(self, x: np.ndarray) -> None:
        """Keep a solution."""
        if x.ndim == 1:
            if self._solutions and self._solutions[0].shape != x.shape:
                self._solutions = []
            self._solutions = [*self._solutions, x.copy()][-self.keep :]

    def state_dict(self) -> dict[str, Any]:
        """Arrays and scalars."""
        return {"solutions": [x.copy() for x in self._solutions], "gains": list(self._gains), "pause": self._pause}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What `state_dict` returned."""
        self._solutions = [np.array(x) for x in state["solutions"]]
        self._gains, self._pause = [float(gain) for gain in state["gains"]], int(state["pause"])
