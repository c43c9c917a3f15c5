r"""Deflated conjugate gradients: CG in the complement of a subspace that is solved for exactly.

With the columns of W such that :math:`W^H A W = I`, every residual stays orthogonal to W and every direction is
A-orthogonal to it,

.. math:: p \leftarrow z - W (A W)^H z + \beta p,

so that CG sees the spectrum of A without what W spans: with k eigenvectors the condition number is
:math:`\lambda_n / \lambda_{k+1}`.

Source: Y. Saad, M. Yeung, J. Erhel and F. Guyomarc'h, A deflated version of the conjugate gradient algorithm, SIAM J.
Sci. Comput. 21 (2000): def-CG with and without a preconditioner, and harmonic Ritz vectors for several systems.

Storage: 5 n-vectors, 2 more with a preconditioner; with a subspace of dimension k, 4 k + 1 more; where it is to be
improved, 2 k + 2 `directions` more. Work per iteration: that of CG, and 2 k inner products and updates. Set-up for
another A: k products and a QR factorisation.
"""

from math import isfinite, sqrt
from numbers import Integral
from typing import Any

import numpy as np

from solvers.geometry import checked_shape, checked_spacing
from solvers.krylov.arnoldi import small_dtype
from solvers.krylov.best import Best
from solvers.krylov.cg import wrong_curvature
from solvers.krylov.controls import Callback, Controls
from solvers.krylov.driver import Correction, Outcome, run
from solvers.krylov.recycle import RecycleSpace
from solvers.krylov.updates import axpy, reduce_residual
from solvers.result import Result, Status

_REPROJECT = 50  # iterations after which rounding has brought back what was projected out


def deflated_cg(
    A: Any,
    b: Any,
    x0: Any = None,
    *,
    deflation: RecycleSpace | np.ndarray | None = None,
    k: int = 10,
    directions: int = 30,
    rtol: float = 1e-5,
    atol: float = 0.0,
    maxiter: int | None = None,
    M: Any = None,
    callback: Callback | None = None,
    null_space: Any = None,
    time_limit: float | None = None,
) -> Result:
    r"""Solve ``A x = b`` for symmetric (Hermitian) positive definite A by deflated conjugate gradients.

    .. math:: \|b - A x\|_2 \le \max(\mathrm{rtol}\,\|b\|_2, \mathrm{atol})

    Parameters
    ----------
    A, b, x0, rtol, atol, maxiter, M, callback, null_space, time_limit
        As for `cg`.
    deflation : array of shape (n, k), RecycleSpace, or None
        The columns of an array are the subspace, and stay it: `sine_modes` is a good one for diffusion on a box. A
        `RecycleSpace`, given to all solves of a sequence, is improved by each and judged. None is `cg`.
    k : int
        Vectors to keep in a `RecycleSpace`.
    directions : int
        Search directions, the first of a solve, in which better vectors are looked for: two or three times k. With 0
        a `RecycleSpace` stays as it is.

    Returns
    -------
    Result
        As of `cg`; ``matvecs`` holds the products of the set-up. INDEFINITE_OPERATOR also where ``W'A W`` is not
        positive definite.

    Notes
    -----
    The vectors kept are the harmonic Ritz vectors of A, in the span of W and the directions, with the smallest harmonic
    Ritz values, as Saad et al. choose them.

    Where an iteration without deflation is cheap, as on small grids, fewer iterations may still take longer: each moves
    2 k more vectors.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import cg, gallery
    >>> A = gallery.diffusion(gallery.jumps((40, 40)))
    >>> fixed = deflated_cg(A, np.ones(1600), deflation=sine_modes((40, 40), 20), rtol=1e-8)
    >>> fixed.iterations < 0.7 * cg(A, np.ones(1600), rtol=1e-8).iterations
    True
    """
    for name, number in (("k", k), ("directions", directions)):
        if not isinstance(number, Integral) or number < 0:
            raise ValueError(f"{name}: expected a whole number that is not negative, got {number!r}")
    recycled = isinstance(deflation, RecycleSpace)
    try:
        space = deflation if isinstance(deflation, RecycleSpace) else RecycleSpace(deflation)
    except (ValueError, TypeError) as error:
        raise type(error)(f"deflation, {error}") from None
    n = np.shape(b)[0] if np.ndim(b) else 1
    if not recycled and len(space.U) and space.U.shape[1] != n:
        raise ValueError(f"deflation: expected {n} rows, as b has, got shape {space.U.shape[::-1]}")
    controls = Controls(rtol, atol, maxiter, callback, time_limit)
    entered = False

    def iterate(problem: Correction) -> Outcome:
        nonlocal entered
        to_keep = 0
        if not entered:  # further columns and rounds find A U = C as the first one left it
            space.enter(problem.system, min(int(k), n) if recycled else n)
            entered = True
            to_keep = min(int(k), n) if recycled and directions else 0
        return _iterate(problem, space, to_keep, min(int(directions), n))

    result = run(iterate, "deflated_cg", A, b, x0, controls, budget=10 * n, M=M, null_space=null_space, symmetric=True)
    if entered and recycled:
        space.judge(result)
    return result


def _iterate(problem: Correction, space: RecycleSpace, to_keep: int, directions: int) -> Outcome:
    """Deflated CG from d = 0, and better vectors for the next system."""
    kept = len(space.U)
    found = _Directions(kept, directions if to_keep else 0, problem.r)
    try:
        found.begin(space)
    except np.linalg.LinAlgError:
        reason = "W'A W is not positive definite for the deflation space W"
        return np.zeros_like(problem.r), Status.INDEFINITE_OPERATOR, reason
    outcome = _conjugate_gradients(problem, found)
    if found.count > kept:
        _improve(space, found.Z[: found.count], found.AZ[: found.count], to_keep)
    return outcome


class _Directions:
    """Rows Z and A Z, A-orthonormal: those of the deflation space W, and then the first search directions."""

    def __init__(self, kept: int, directions: int, r: np.ndarray) -> None:
        self.Z = np.empty((kept + directions, r.size), dtype=r.dtype)
        self.AZ = np.empty_like(self.Z)
        self.count = kept

    def begin(self, space: RecycleSpace) -> None:
        """From A U = C, and L L' = U'C: W and A W are U and C times the inverse of L'."""
        if self.count:
            L = np.linalg.cholesky((space.U.conj() @ space.C.T).astype(small_dtype(self.Z.dtype)))
            inverse = np.linalg.inv(L).conj().astype(self.Z.dtype)
            np.matmul(inverse, space.U, out=self.Z[: self.count])
            np.matmul(inverse, space.C, out=self.AZ[: self.count])

    def add(self, p: np.ndarray, q: np.ndarray, curvature: float) -> None:
        """A search direction p and q = A p, as long as there is room."""
        if self.count < len(self.Z):
            scale = p.real.dtype.type(1.0 / sqrt(curvature))
            np.multiply(scale, p, out=self.Z[self.count])
            np.multiply(scale, q, out=self.AZ[self.count])
            self.count += 1


def _conjugate_gradients(problem: Correction, found: _Directions) -> Outcome:
    """The iteration of `cg`, with W taken out of the residual and of z."""
    W, AW = found.Z[: found.count], found.AZ[: found.count]
    precondition, budget = problem.precondition_and_product(), problem.budget
    r, norm, target = problem.r, problem.norm, problem.target
    real = r.real.dtype.type
    eps = float(np.finfo(real).eps)
    d = np.zeros_like(r)
    start, rr = norm, float(np.vdot(r, r).real)

    def project() -> float:
        """Take W out of the residual; its squared norm."""
        share = (W @ r.conj()).conj()
        np.add(d, share @ W, out=d)
        np.subtract(r, share @ AW, out=r)
        return float(np.vdot(r, r).real)

    if len(W):
        rr = project()
        norm = sqrt(rr)
        if norm <= target:
            return d, None, ""
    best = Best(norm)
    p = np.zeros_like(r)
    rz_old, p_size, largest_curvature = 1.0, 0.0, 0.0
    iteration = 0
    while budget[0] > 0:
        budget[0] -= 1
        iteration += 1
        z, rz = (r, rr) if precondition is None else precondition(r, norm)
        if not rz > 0.0:
            if not isfinite(rz):
                return best.of(d, norm), Status.NONFINITE_OUTPUT, "M returned NaN or infinity"
            reason = f"r'M r = {rz:.3e} for a residual r that is not zero"
            return best.of(d, norm), Status.INDEFINITE_PRECONDITIONER, reason
        if len(W):
            z = z - (AW @ z.conj()).conj() @ W
        beta = rz / rz_old
        p_size = rz + beta * beta * p_size  # see `cg`
        q, curvature = problem.system.advance(z, beta, p)
        relative = curvature / p_size
        doubtful = relative <= eps * largest_curvature
        if not curvature > 0.0:
            return best.of(d, norm), *wrong_curvature(p, q, curvature, largest_curvature * p_size)
        largest_curvature = max(largest_curvature, relative)
        found.add(p, q, curvature)
        alpha = rz / curvature
        rr = float(reduce_residual(real(alpha), q, r))
        new_norm = sqrt(rr)
        if doubtful and not new_norm < norm:
            return best.of(d, norm), *wrong_curvature(p, q, curvature, largest_curvature * p_size)
        best.before_step(d, norm, new_norm)
        axpy(real(alpha), p, d)
        norm, rz_old = new_norm, rz
        if len(W) and iteration % _REPROJECT == 0:
            rr = project()
            norm = sqrt(rr)
        if not isfinite(norm):
            return best.of(d, norm), Status.NONFINITE_OUTPUT, "the product with A overflowed"
        stop = problem.record(norm) or problem.report(d)
        if norm <= target:
            return d, None, ""
        if stop is not None:
            return best.of(d, norm), stop, ""
        if norm > start / eps:
            reason = f"the residual grew by more than 1/eps = {1 / eps:.0e}"
            return best.of(d, norm), Status.BREAKDOWN, reason
    return best.of(d, norm), Status.MAX_ITERATIONS, "maxiter reached"


def _improve(space: RecycleSpace, Z: np.ndarray, AZ: np.ndarray, k: int) -> None:
    r"""Put the k harmonic Ritz vectors with the smallest harmonic Ritz values in the span of Z into the space.

    They solve :math:`G y = \theta F y` with :math:`G = (A Z)^H A Z` and :math:`F = Z^H A Z`, the identity as long as
    rounding leaves the directions conjugate. Directions that have become dependent are left out through the eigenvalues
    of G.
    """
    double = small_dtype(Z.dtype)
    G, F = (AZ.conj() @ AZ.T).astype(double), (Z.conj() @ AZ.T).astype(double)
    values, X = np.linalg.eigh(G)
    good = values > sqrt(np.finfo(Z.dtype).eps) * values[-1]
    B = X[:, good] / np.sqrt(values[good])  # A Z B is orthonormal
    S = B.conj().T @ F @ B
    P = (B @ np.linalg.eigh((S + S.conj().T) / 2)[1][:, -k:]).T.astype(Z.dtype)
    space.U, space.C = P @ Z, P @ AZ


def sine_modes(shape: int | tuple[int, ...], count: int, spacing: float | tuple[float, ...] = 1.0) -> np.ndarray:
    r"""The lowest eigenvectors of `gallery.poisson` with Dirichlet sides, products of sines.

    .. math:: \prod_a \sin \frac{\pi k_a i_a}{n_a + 1}, \qquad i_a = 1..n_a

    Their span is near that of the lowest eigenvectors of any diffusion operator on the same interior nodes, better so
    the smoother its coefficient: a subspace for `deflated_cg` that no solve has to find. For other boundary conditions,
    for holes in the grid and for jumps by orders of magnitude it is of little use.

    Parameters
    ----------
    shape : int or tuple of int
        Interior nodes per axis.
    count : int
        How many, by growing eigenvalue.
    spacing : float or tuple of float
        Per axis; only ratios matter.

    Returns
    -------
    ndarray, shape (n, count)
        Orthonormal columns.

    Examples
    --------
    >>> from solvers import gallery
    >>> W = sine_modes((9, 7), 5)
    >>> AW = np.column_stack([gallery.poisson((9, 7)) @ w for w in W.T])
    >>> bool(np.allclose(AW, W * np.sum(W * AW, axis=0)))
    True
    """
    grid = checked_shape(shape)  # type: ignore[arg-type]
    n = int(np.prod(grid))
    if not isinstance(count, Integral) or not 0 <= count <= n:
        raise ValueError(f"count: expected a whole number from 0 to the {n} nodes of the grid, got {count!r}")
    wavenumbers = [np.arange(1, points + 1) for points in grid]
    eigenvalues = np.zeros(grid)
    for axis, (k, h) in enumerate(zip(wavenumbers, checked_spacing(spacing, len(grid)), strict=True)):
        share = (np.sin(np.pi * k / (2 * (len(k) + 1))) / h) ** 2
        eigenvalues += share.reshape([-1 if other == axis else 1 for other in range(len(grid))])
    lowest = np.unravel_index(np.argsort(eigenvalues, axis=None, kind="stable")[:count], grid)
    modes = np.ones((1, int(count)))
    for k, chosen in zip(wavenumbers, lowest, strict=True):
        points = len(k)
        axis_modes = sqrt(2 / (points + 1)) * np.sin(np.pi * np.outer(k, k[chosen]) / (points + 1))
        modes = (modes[:, None, :] * axis_modes[None, :, :]).reshape(-1, int(count))
    return modes
