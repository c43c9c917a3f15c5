r"""First guesses from earlier solutions: the best combination of the last few, if that pays.

With the last solutions as the columns of X, the guess is :math:`x_0 = X y` with

.. math:: X^H A X y = X^H b \quad\text{(A definite: least energy of the error)}, \qquad
          \min_y \|b - A X y\| \quad\text{(otherwise).}

Where A is that of the last systems their right-hand sides are A X, and no product is needed.

Source: P. F. Fischer, Projection techniques for iterative solution of Ax = b with successive right-hand sides, Comput.
Methods Appl. Mech. Engrg. 163 (1998).

Storage: 2 `keep` n-vectors. Work: at most `keep` products, keep (keep + 2) inner products and as many updates.
"""

from math import log
from typing import Any

import numpy as np

from solvers.system import System, norm

_TRIALS = 3  # guesses before it is asked whether they pay
_PAUSE, _LONGEST_PAUSE = 16, 256  # systems without a guess, if they do not; it doubles


class WarmStart:
    """The last few solutions, and whether they are worth what a guess from them costs.

    Parameters
    ----------
    keep : int
        How many.

    Attributes
    ----------
    products : int
        That the last guess took.

    Examples
    --------
    >>> A = System(np.diag([1.0, 2.0, 4.0]))
    >>> warm = WarmStart()
    >>> warm.guess(A, np.ones(3), definite=True) is None
    True
    >>> warm.learn(np.array([1.0, 0.5, 0.25]), np.ones(3))
    >>> warm.guess(A, 2 * np.ones(3), definite=True)
    array([2. , 1. , 0.5])
    """

    def __init__(self, keep: int = 3) -> None:
        self.keep = keep
        self.products = 0
        self._solutions: list[np.ndarray] = []
        self._images: list[np.ndarray | None] = []  # A x for the A of the last system; None where that is not known
        self._gains: list[float] = []
        self._pause = 0
        self._next_pause = _PAUSE
        self._drop = 0.0  # logarithm of how far the last guess lowered the residual

    def another_matrix(self) -> None:
        """The next systems have another A: what is known of products with it is void."""
        self._images = [None] * len(self._solutions)

    def guess(self, system: System, b: np.ndarray, definite: bool) -> np.ndarray | None:
        """A first guess ``(n,)`` for the right-hand side ``(n,)``, or None."""
        self._drop, self.products = 0.0, 0
        if self._pause:
            self._pause -= 1
            return None
        if b.ndim != 1 or not self._solutions or self._solutions[0].shape != b.shape:
            return None
        dtype = system.dtype
        X = [x.astype(dtype, copy=False) for x in self._solutions]
        for place, x in enumerate(X):
            if self._images[place] is None:
                self._images[place] = np.array(system.matvec(x))
                self.products += 1
        Y = [np.asarray(y, dtype=dtype) for y in self._images]
        left = X if definite else Y
        gram = np.array([[np.vdot(u, y) for y in Y] for u in left])
        lengths, sizes = np.array([norm(u) for u in left]), np.array([norm(y) for y in Y])
        if not (np.isfinite(gram).all() and lengths.all() and sizes.all()):
            return None
        share = np.array([np.vdot(u, b) for u in left]) / lengths
        scaled = np.linalg.lstsq(gram / np.outer(lengths, sizes), share, rcond=1e-13)[0]
        coefficients = (scaled / sizes).astype(dtype)
        x0, rest = np.zeros(b.shape, dtype), b.astype(dtype)
        for c, x, image in zip(coefficients, X, Y, strict=True):
            x0 += c * x
            rest -= c * image
        before, after = norm(np.ascontiguousarray(b, dtype=dtype)), norm(rest)
        if not after < before:
            self._gains.append(-float(self.products))
            self._ask()
            return None
        self._drop = log(before / max(after, 1e-16 * before))
        return x0

    def judge(self, price: float, iterations: int, drop: float) -> None:
        """After a solve from a guess: did it spare more than it cost?

        Parameters
        ----------
        price : float
            What the guess cost, in iterations of the method.
        iterations : int
            That the solve took from the guess.
        drop : float
            Logarithm of how far they lowered the residual.
        """
        if not self._drop:
            return
        spared = self._drop * iterations / drop if drop > 0 else float(iterations)
        self._gains.append(spared - price)
        self._drop = 0.0
        self._ask()

    def _ask(self) -> None:
        if len(self._gains) < _TRIALS:
            return
        if sum(self._gains) <= 0:
            self._pause = self._next_pause
            self._next_pause = min(2 * self._next_pause, _LONGEST_PAUSE)
            self._gains = []
        else:
            self._next_pause = _PAUSE
            self._gains = self._gains[1:]

    def learn(self, x: np.ndarray, image: np.ndarray | None) -> None:
        """Keep a solution, and A x if it is known."""
        if x.ndim != 1 or self._pause > self.keep:  # forgotten before anybody asks
            return
        if self._solutions and self._solutions[0].shape != x.shape:
            self._solutions, self._images = [], []
        self._solutions = [*self._solutions, x.copy()][-self.keep :]
        self._images = [*self._images, None if image is None else image.copy()][-self.keep :]

    def state_dict(self) -> dict[str, Any]:
        """Arrays and scalars."""
        return {
            "solutions": [x.copy() for x in self._solutions],
            "images": [None if y is None else y.copy() for y in self._images],
            "gains": list(self._gains),
            "pause": self._pause,
            "next_pause": self._next_pause,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What `state_dict` returned."""
        self._solutions = [np.array(x) for x in state["solutions"]]
        self._images = [None if y is None else np.array(y) for y in state["images"]]
        self._gains = [float(gain) for gain in state["gains"]]
        self._pause, self._next_pause = int(state["pause"]), int(state["next_pause"])
