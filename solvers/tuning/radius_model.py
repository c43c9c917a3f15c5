r"""The Jacobi radius of every matrix of a stream, from as few looks at the matrices as pay.

A look is an estimate by `JacobiRadius`: one product for a matrix with the eigenvectors of the last, dozens for another.
What is modelled is :math:`g = \log\sqrt{1 - \mu^2}`, which is smooth where :math:`\mu` and Young's factor bend sharply,
as a function of a place: a context, or the number of the system in its stream.

- Where the places looked at so far say what g is (`Interpolant`) no look is needed. Whether they are right is looked at
  after ever more systems while they are, and, for a context, for at most one product in a thousand iterations. A cost
  that surprises brings the next look forward.
- Elsewhere there is a look, unless looks take more products than they spare iterations, as for independent matrices
  without a context: then the mean g of those seen is taken, and one product in a hundred iterations finds out whether
  that has changed.
"""

from collections.abc import Callable
from math import log
from typing import Any

from solvers.tuning.interpolant import Interpolant
from solvers.tuning.protocol import Saved
from solvers.tuning.spectral import JacobiRadius, young_omega

_TOLERANCE = 0.02  # of a g that is not looked at
_LONGEST = 255  # systems between two looks at what is known
_TO_VERIFY, _TO_EXPLORE = 0.001, 0.01  # products, of the cost so far
_CHEAP = 2.0  # products are never too dear for a look
_LEAST = 0.03  # of the cost is not too much for all looks
_TRIAL = 5  # systems before it is asked whether looks pay
_MEMORY = 32  # systems, or looks, over which that is averaged


class RadiusModel(Saved):
    """g of one matrix after another.

    Parameters
    ----------
    time : bool
        The place is the number of a system, not a context.

    Attributes
    ----------
    products : int
        Products with matrices so far.

    Examples
    --------
    >>> from solvers import gallery
    >>> import numpy as np
    >>> model = RadiusModel(time=True)
    >>> A = gallery.poisson((20, 20))
    >>> for system in range(100):
    ...     g = model(system, A)
    ...     model.charge(60.0)
    >>> bool(abs(g - np.log(np.sin(np.pi / 21))) < 0.005), model.products < 50
    (True, True)
    """

    _saved = (
        *("_radius", "_known", "_systems", "_spent", "_since", "_pause", "_surprised"),
        *("_looks", "_usual", "_worth", "_each", "_price"),
    )
    _fixed = ("_time",)

    def __init__(self, time: bool) -> None:
        self._time = time
        self._radius = JacobiRadius()
        self._known = Interpolant(time)
        self._systems, self._spent = 0, 0.0
        self._since, self._pause = 0, 0  # systems since the last look, and until the next
        self._surprised = False
        self._looks, self._usual = 0, 0.0  # their number, the mean g that they saw
        self._worth = 0.3  # the part of the cost of a system that a look spares; to begin with a guess
        self._each = self._price = 0.0  # mean products for a look, and for a system

    @property
    def products(self) -> int:
        return self._radius.products

    def __call__(
        self, place: float, A: Any, loss: Callable[[float, float], float] = lambda used, g: abs(used - g)
    ) -> float:
        """g of A, which is at this place.

        Parameters
        ----------
        place : float
        A : array, sparse matrix or array, or StencilOperator
        loss : callable
            ``loss(used, g)``: the part by which a cost grows if the first is taken for the second.
        """
        expected = self._known(place)
        known = expected == expected
        self._since += 1
        if not self._surprised:
            if known and (self._since <= self._pause or not (self._time or self._affordable(_TO_VERIFY))):
                self._price -= self._price / min(self._systems + 1, _MEMORY)
                return expected
            if not (known or self._looks_pay or self._affordable(_TO_EXPLORE)):
                return self._usual
        g, products = self._look(A)
        if known:
            right = abs(expected - g) <= _TOLERANCE
            self._pause = min(2 * self._pause + 1, _LONGEST) if right else self._pause // 2
        if self._looks:  # the first takes far more than those that follow
            self._each += (min(products, 8) - self._each) / min(self._looks, 8)
            self._price += (products - self._price) / min(self._systems, _MEMORY)
            self._worth += (loss(self._usual, g) - self._worth) / min(self._looks + 8, _MEMORY)
        self._looks += 1
        self._usual += (g - self._usual) / min(self._looks, _MEMORY)
        self._since, self._surprised = 0, False
        self._known.add(place, g)
        return g

    def charge(self, cost: float, surprising: bool = False) -> None:
        """What the system cost, and whether more or less than what its g would have one expect."""
        self._systems += 1
        self._spent += cost
        if surprising:
            self._pause, self._surprised = 0, True

    def _affordable(self, share: float) -> bool:
        return self._radius.products <= share * self._spent

    @property
    def _looks_pay(self) -> bool:
        if self._systems < _TRIAL or self._each <= _CHEAP:
            return True
        return self._price * self._systems <= max(self._worth, _LEAST) * self._spent

    def _look(self, A: Any) -> tuple[float, int]:
        """g of A, and the products it took."""
        before = self._radius.products
        sine = 2.0 / young_omega(self._radius(A)) - 1.0  # sqrt(1 - mu^2)
        return log(max(sine, 1e-8)), self._radius.products - before
