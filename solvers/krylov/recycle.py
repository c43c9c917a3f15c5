r"""A subspace that goes from one system to the next, and the account of whether it pays.

It is a pair of bases with

.. math:: A U = C, \qquad C^H C = I,

of which U lives in solution space: for another A, or another preconditioner, C is made anew by as many products as U
has columns, and nothing else changes. `gcrodr` and `deflated_cg` remove what U spans from the residual and put the
directions that slow them down into it.

Source: M. L. Parks, E. de Sturler, G. Mackey, D. D. Johnson and S. Maiti, Recycling Krylov subspaces for sequences of
linear systems, SIAM J. Sci. Comput. 28 (2006); M. E. Kilmer and E. de Sturler, Recycling subspace
information for diffuse optical tomography, same journal 27 (2006), theorem 3.2 on why it survives small changes of A.
"""

from math import log
from typing import Any

import numpy as np
from scipy.linalg import qr
from scipy.linalg.lapack import get_lapack_funcs

from solvers.result import Result, Status
from solvers.system import System, norm, working_dtype

_LOSS = 0.02  # share of the products without the space that trying it again and again may lose
_ASK_AGAIN = 64  # solves with the space after which one without it shows what it still spares


class RecycleSpace:
    r"""What a method knows of one system that may help with the next.

    Give the same object to the solves of a sequence, one after the other. Each takes what the one before has left,
    and leaves its own. An account in products with A decides whether that goes on. The first solve, without a space,
    shows how many products a factor of e in the residual costs. A solve with the space adds what it has spared, its
    set-up paid, to a balance that halves each time. A negative balance is a debt: the solves that follow go without,
    and each pays off 2 % of its own products; then it is tried again. Each 64th solve goes without in any case, so that
    the reference follows the sequence. No clock is asked.

    Parameters
    ----------
    vectors : array, shape (n, k), optional
        A first space, in solution space; columns may be dependent or worse. What is NaN or adds nothing is left out. It
        is used at once, and the solve after that one goes without, to show what it has spared.

    Attributes
    ----------
    products : float or None
        Products for a factor of e in the residual, without the space.
    balance : float
        Products that the space has spared of late, or still has to make good.

    Raises
    ------
    ValueError, TypeError
        If `vectors` is not an array of columns of numbers.

    Examples
    --------
    >>> from solvers import gallery, gcrodr
    >>> space = RecycleSpace()
    >>> products = [
    ...     gcrodr(A, b, rtol=1e-6, recycle=space).matvecs
    ...     for A, b, _ in gallery.helmholtz_sequence(length=3, shape=(30, 30))
    ... ]
    >>> products[1] < products[0] / 2, products[2] < products[0] / 2
    (True, True)
    """

    def __init__(self, vectors: Any = None) -> None:
        self.U = self.C = np.zeros((0, 0))  # row j is the j-th vector; C may be that of an earlier A, or have no rows
        if vectors is not None:
            array = np.asarray(vectors)
            try:
                dtype = working_dtype(array.dtype)
            except TypeError as error:
                raise TypeError(f"vectors: {error}") from None
            if array.ndim != 2:
                raise ValueError(f"vectors: expected columns, shape (n, k), got shape {array.shape}")
            self.U = np.array(array.T, dtype=dtype, order="C")
        self.products: float | None = None
        self.balance = 0.0
        self._solves = 0  # with the space, since the last one without
        self._used = False
        self._resting: tuple[np.ndarray, np.ndarray] | None = None  # in a solve without it

    # -- For the methods --------------------------------------------------------------------------------------------

    def enter(self, system: System, most: int) -> None:
        """Make ``A U = C`` hold for this A with at most `most` vectors, or leave both empty."""
        n, dtype = system.shape[0], system.dtype
        if self.U.size and self.U.shape[1] != n:  # another family of systems, of which the account says nothing
            self.load_state_dict(RecycleSpace().state_dict())
        fits = self.U.size > 0 and not (self.U.dtype.kind == "c" and dtype.kind != "c")
        wanted = self.balance >= 0 and self._solves < _ASK_AGAIN
        self._used = bool(fits and wanted and most)
        if not self._used:
            self._resting = (self.U, self.C)
            self.clear(n, dtype)
            return
        self.U, self.C = self.U[:most].astype(dtype, copy=False), self.C[:most].astype(dtype, copy=False)
        holds, first = self._still_holds(system)
        if not holds:
            self.renew(system, first)

    def clear(self, n: int, dtype: np.dtype) -> None:
        """Forget the vectors."""
        self.U = self.C = np.zeros((0, n), dtype=dtype)

    def _still_holds(self, system: System) -> tuple[bool, np.ndarray | None]:
        """Does ``A U = C`` hold in the first column, and in a sum of all? Two products instead of one a column.

        A change of A within the square root of eps does no harm, and one that U does not feel is none for it. If the
        first product says no, it is returned to be used.
        """
        if not len(self.C) == len(self.U) > 0:
            return False, None
        tolerance = float(np.sqrt(np.finfo(self.C.dtype).eps))
        first = np.array(system.matvec(self.U[0]))
        if not norm(first - self.C[0]) <= tolerance:
            return False, first
        signs = np.where(np.arange(len(self.U)) % 4 < 2, 1, -1).astype(self.U.dtype)
        rest = system.matvec(signs @ self.U) - signs @ self.C
        return norm(rest) <= tolerance * np.sqrt(len(self.U)), first

    def renew(self, system: System, first: np.ndarray | None = None) -> None:
        """C = A U, orthonormal, by a product for each column; U follows, and loses what is not independent in C.

        With unit columns and C = Q R, R = X S Y', the new bases are Q X and U Y / S. Singular values below the square
        root of eps of the largest belong to directions in which A U = C would not hold to half the digits.
        """
        eps = float(np.finfo(self.U.dtype).eps)
        C = np.empty_like(self.U)
        for i, u in enumerate(self.U):
            C[i] = first if i == 0 and first is not None else system.matvec(u)
        before, after = np.array([norm(u) for u in self.U]), np.array([norm(c) for c in C])
        sound = (before > 0) & (before < np.inf) & (after > 0) & (after < np.inf)  # NaN is not below infinity
        if sound.any():  # a null vector of A has rounding for an image
            sound &= after > C.shape[1] * eps * np.max(after[sound] / before[sound]) * before
        if not sound.any():
            self.clear(C.shape[1], C.dtype)
            return
        if not sound.all():
            self.U, C = self.U[sound], C[sound]
        scale = (1.0 / after[sound, None]).astype(C.real.dtype)
        C *= scale
        Q, R = qr(C.T, mode="economic", overwrite_a=True, check_finite=False)
        X, values, Yh = np.linalg.svd(R)
        good = values > np.sqrt(eps) * values[0]
        self.C = np.ascontiguousarray(X[:, good].T) @ Q.T
        self.U = (Yh[good].conj() / values[good, None] * scale.T) @ self.U

    def judge(self, result: Result) -> None:
        """Book the products of a solve that has ended."""
        if self._resting is not None and not len(self.U):  # it went without, and has left nothing better
            self.U, self.C = self._resting
        self._resting = None
        if result.status is Status.NONFINITE_INPUT or result.iterations + result.matvecs == 0:
            return
        first = np.atleast_1d(result.history[0])
        last = np.maximum(np.atleast_1d(result.residual_norms), np.finfo(float).eps * first)  # beyond it lies chance
        folds = sum(max(log(a / b), 0.0) for a, b in zip(first, last, strict=True) if 0 < a < np.inf and b < np.inf)
        if not self._used:
            self._solves = 0
            self.balance += min(_LOSS * result.matvecs, max(-self.balance, 0.0))
            if folds > 1:
                rate = result.matvecs / folds
                self.products = rate if self.products is None else (self.products + rate) / 2
            return
        self._solves += 1
        if self.products is None:
            self._solves = _ASK_AGAIN  # the next one shows what to compare with
            return
        self.balance = self.balance / 2 + self.products * folds - result.matvecs

    # -- For the user -----------------------------------------------------------------------------------------------

    @property
    def vectors(self) -> np.ndarray:
        """The space, shape (n, k), one vector a column."""
        return self.U.T.copy()

    def state_dict(self) -> dict[str, Any]:
        """Arrays and scalars, all that the next solve depends on."""
        return {
            "vectors": self.U.copy(),
            "images": self.C.copy(),
            "products": self.products,
            "balance": self.balance,
            "solves": self._solves,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What `state_dict` returned."""
        self.U, self.C = np.array(state["vectors"]), np.array(state["images"])
        self.products = None if state["products"] is None else float(state["products"])
        self.balance, self._solves = float(state["balance"]), int(state["solves"])

    def __str__(self) -> str:
        size = f"{len(self.U)} vectors of {self.U.shape[1]}" if len(self.U) else "empty"
        if self.products is None:
            return f"recycle space, {size}"
        account = f"has {'spared' if self.balance >= 0 else 'lost'} {abs(self.balance):.0f} products of late"
        return f"recycle space, {size}; {account}, {self.products:.2g} products a factor of e without it"


def dominant_subspace(S: np.ndarray, k: int, tolerance: float) -> np.ndarray:
    """Orthonormal basis of the invariant subspace of S for its k eigenvalues of largest modulus.

    Parameters
    ----------
    S : ndarray, shape (m, m)
    k : int
    tolerance : float
        An S that is Hermitian to this relative accuracy is treated as such, at a fraction of the work.

    Returns
    -------
    ndarray, shape (m, k) or, where k would split a conjugate pair of a real matrix, (m, k + 1)
        From a Schur form (LAPACK gees, reordered by trsen), so that it is as orthonormal where eigenvectors are nearly
        parallel, and real for a real S.

    Examples
    --------
    >>> S = np.array([[0.0, -2.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 1.0]])  # eigenvalues 2i, -2i, 1
    >>> dominant_subspace(S, 1, 1e-8).shape
    (3, 2)
    """
    m = len(S)
    k = min(k, m)
    if np.linalg.norm(S - S.conj().T) <= tolerance * np.linalg.norm(S):
        values, vectors = np.linalg.eigh(S)
        return vectors[:, np.argsort(-np.abs(values), kind="stable")[:k]]
    gees, trsen = get_lapack_funcs(("gees", "trsen"), (S,))
    if S.dtype.kind == "c":
        T, _, values, Q, *_ = gees(lambda _: False, S)
    else:
        T, _, real, imaginary, Q, *_ = gees(lambda *_: False, S)
        values = real + 1j * imaginary
    chosen = np.zeros(m, dtype=bool)
    chosen[np.argsort(-np.abs(values), kind="stable")[:k]] = True
    if S.dtype.kind != "c":
        upper = np.flatnonzero(imaginary > 0)  # of a pair, which lies in neighbouring places
        chosen[upper] = chosen[upper + 1] = chosen[upper] | chosen[upper + 1]
    _, Q, *_ = trsen(chosen, T, Q, job="N")
    return np.asarray(Q[:, : np.count_nonzero(chosen)])
