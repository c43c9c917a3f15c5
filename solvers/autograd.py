r"""A solve that torch can differentiate, by the adjoint equation; and conjugate gradients for a batch on any device.

For :math:`x = A^{-1} b` and a cotangent :math:`g` of x, the gradients are

.. math:: A^H \lambda = g, \qquad \bar b = \lambda, \qquad \bar A = -\lambda x^H,

the latter on the stored entries of A only. Forward and adjoint solve run in `solvers.solve`, with its proof by the
true residual; nothing of the iteration is recorded. The backward pass is made of the same function, so it can be
differentiated in turn.

Source: M. B. Giles, Collected matrix derivative results for forward and reverse mode algorithmic differentiation
(2008), section 2.3.

Storage: A, its adjoint if A is not symmetric, x, and what the preconditioner holds. Work: one solve forward, one
backward; factors and hierarchies are set up once for both where A is symmetric or factorised.
"""

from copy import copy
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from solvers.api import plan
from solvers.api import solve as solve_arrays
from solvers.batched_cg import BatchedResult, batched_cg
from solvers.direct import Factorisation
from solvers.precondition import preconditioners
from solvers.stencil import StencilOperator
from solvers.system import System

__all__ = ["BatchedResult", "batched_cg", "solve"]


def solve(
    A: torch.Tensor,
    b: torch.Tensor,
    *,
    pattern: Any = None,
    method: str = "auto",
    rtol: float | None = None,
    atol: float = 0.0,
    maxiter: int | None = None,
    M: Any = None,
    null_space: Any = None,
    backward_rtol: float | None = None,
) -> torch.Tensor:
    r"""Solve ``A x = b``, differentiably in the values of A and in b, to any order.

    The solve itself runs on the CPU, in the precision of A and b; x comes back on the device of b.

    Parameters
    ----------
    A : Tensor
        Dense, sparse COO or sparse CSR, shape (n, n). With `pattern`, only its values: shape (nnz,) in the order of a
        sparse matrix's ``data``, or (number of offsets, \*grid) as a StencilOperator's ``coefficients``.
    b : Tensor, shape (n,) or (n, k)
    pattern : sparse matrix or array, or StencilOperator, optional
        Where the values in A belong. Its own values are not used.
    method, atol, maxiter
        As for `solvers.solve`.
    rtol : float, optional
        Forward tolerance, ``||b - A x|| <= max(rtol ||b||, atol)``; default 1e-10 in double precision, 1e-5 in single.
    M : object or str, optional
        Preconditioner of the forward solve. The adjoint solve takes its adjoint: for a registered name or a
        preconditioner object one that is set up for the adjoint matrix, for an operator its ``rmatvec``. The same M
        serves both where A is symmetric.
    null_space : "constant" or array of shape (n, k), optional
        As for `cg`. x is the solution of smallest norm, and gradients are those of the pseudo-inverse for changes of A
        that keep this null space.
    backward_rtol : float, optional
        Tolerance of the adjoint solve relative to its own right-hand side, however small that is; default rtol.

    Returns
    -------
    Tensor, of the shape of b

    Raises
    ------
    ConvergenceError
        If a tolerance is missed, forward or backward.
    TypeError, ValueError
        If an argument has the wrong type, shape or range.

    Examples
    --------
    >>> A = torch.tensor([[4.0, 1.0], [1.0, 3.0]], dtype=torch.float64, requires_grad=True)
    >>> b = torch.tensor([5.0, 4.0], dtype=torch.float64, requires_grad=True)
    >>> x = solve(A, b)
    >>> x.sum().backward()
    >>> torch.allclose(b.grad, torch.linalg.solve(A.detach().T, torch.ones(2, dtype=torch.float64)))
    True
    >>> torch.allclose(A.grad, -torch.outer(b.grad, x.detach()))
    True
    """
    for name, value in (("A", A), ("b", b)):
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}; solvers.solve takes arrays")
    if b.layout is not torch.strided:
        raise TypeError("b: expected a dense tensor; pass b.to_dense()")
    entries = _Entries(A, pattern)
    if rtol is None:
        single = torch.result_type(entries.values, b) in (torch.float32, torch.complex64)
        rtol = 1e-5 if single else 1e-10
    pair = _AdjointPair(
        entries,
        b,
        method,
        M,
        null_space,
        {"rtol": rtol, "atol": atol, "maxiter": maxiter},
        {"rtol": rtol if backward_rtol is None else backward_rtol, "maxiter": maxiter},
    )
    x: torch.Tensor = _Solve.apply(entries.values, b, pair, False, pair.forward)
    return x


class _Entries:
    """The values of A as a tensor, and where they belong."""

    def __init__(self, A: torch.Tensor, pattern: Any) -> None:
        self.stencil = pattern if isinstance(pattern, StencilOperator) else None
        self.rows: torch.Tensor | None = None  # None: all, A is dense
        self.columns: torch.Tensor | None = None
        if pattern is not None:
            self._from_pattern(A, pattern)
        elif A.layout is torch.strided:
            self._check_square(A)
            self.values = A
        elif A.layout is torch.sparse_coo:
            self._check_square(A)
            A = A.coalesce()
            self.rows, self.columns = A.indices()
            self.values = A.values()
        elif A.layout is torch.sparse_csr:
            self._check_square(A)
            lengths = A.crow_indices().diff()
            self.rows = torch.repeat_interleave(torch.arange(A.shape[0], device=lengths.device), lengths)
            self.columns = A.col_indices()
            self.values = A.values()
        else:
            raise TypeError(f"A: expected a dense, sparse COO or sparse CSR tensor, got {A.layout}; convert it first")

    def _check_square(self, A: torch.Tensor) -> None:
        if A.ndim != 2 or A.shape[0] != A.shape[1]:
            raise ValueError(f"A: expected shape (n, n), or the values of a pattern; got {tuple(A.shape)}")
        self.size = A.shape[0]

    def _from_pattern(self, A: torch.Tensor, pattern: Any) -> None:
        if not (self.stencil is not None or sp.issparse(pattern)):
            raise TypeError(
                f"pattern: expected a sparse matrix or a StencilOperator, got {type(pattern).__name__}; leave it out "
                "where A is the matrix itself"
            )
        if pattern.shape[0] != pattern.shape[1]:
            raise ValueError(f"pattern: expected a square matrix, got shape {pattern.shape}")
        if self.stencil is None:
            places = pattern.tocoo()
            expected: tuple[int, ...] = (places.nnz,)
            rows, columns = places.row, places.col
        else:
            expected = (len(self.stencil.offsets), *self.stencil.grid_shape)
            rows, columns = _places(self.stencil)
        if tuple(A.shape) != expected or A.layout is not torch.strided:
            raise ValueError(
                f"A: with this pattern expected its values, a dense tensor of shape {expected}, got {tuple(A.shape)}"
            )
        self.size = pattern.shape[0]
        self.values = A
        self.rows = torch.as_tensor(rows.astype(np.int64), device=A.device)
        self.columns = torch.as_tensor(columns.astype(np.int64), device=A.device)

    def matrix(self) -> Any:
        """The matrix as `solvers.solve` takes it."""
        values = self.values.detach().cpu().resolve_conj().resolve_neg().numpy()
        if self.stencil is not None:
            s = self.stencil
            return StencilOperator(
                s.offsets, values, s.grid_shape, s.spacing, boundary=s.boundary, centring=s.centring, mask=s.mask
            )
        if self.rows is None or self.columns is None:
            return values
        return sp.csr_array((values, (self.rows.cpu().numpy(), self.columns.cpu().numpy())), (self.size, self.size))

    def outer(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """``left right^H`` on the entries of A, summed over right-hand sides."""
        left, right = (v.to(self.values.device).reshape(self.size, -1) for v in (left, right))
        if self.rows is None or self.columns is None:
            product = left @ right.mH
        elif self.stencil is None:
            product = (left[self.rows] * right[self.columns].conj()).sum(dim=1)
        else:
            inside = (self.columns >= 0)[:, None]
            product = torch.where(inside, left[self.rows] * right[self.columns.clamp(min=0)].conj(), 0).sum(dim=1)
            product = product.reshape(self.values.shape)
        return product if self.values.is_complex() else product.real


def _places(stencil: StencilOperator) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of every coefficient; column -1 where it has no row, or no neighbour."""
    grid = np.full(stencil.grid_shape, -1)
    grid[... if stencil.mask is None else stencil.mask] = np.arange(stencil.shape[0]).reshape(
        stencil.grid_shape if stencil.mask is None else -1
    )
    columns = []
    for offset in stencil.offsets:
        neighbour = np.roll(grid, [-step for step in offset], range(len(offset)))
        neighbour[grid < 0] = -1
        for axis, step in enumerate(offset):
            if step and not stencil.periodic[axis]:
                beyond = slice(max(grid.shape[axis] - step, 0), None) if step > 0 else slice(0, -step)
                neighbour[(slice(None),) * axis + (beyond,)] = -1
        columns.append(neighbour.reshape(-1))
    return np.tile(np.maximum(grid, 0).reshape(-1), len(columns)), np.concatenate(columns)


class _AdjointPair:
    """A and its adjoint, each with what is needed to solve with it."""

    def __init__(
        self,
        entries: _Entries,
        b: torch.Tensor,
        method: str,
        M: Any,
        null_space: Any,
        forward: dict[str, Any],
        backward: dict[str, Any],
    ) -> None:
        self.entries, self.method, self.forward, self.backward = entries, method, forward, backward
        self.system = System(entries.matrix(), size=b.shape[0] if b.ndim else None, dtype=_numpy_dtype(b))
        if null_space is None and self.system.finite and self.system.annihilates_constants and self.system.symmetric:
            null_space = "constant"
        self.null_space = null_space
        self.basis = self.system.null_space_basis(null_space) if self.system.finite else None
        if isinstance(M, str):
            M = preconditioners.build(M)
        if M is None and method == "auto" and self.system.finite:
            first = plan(self.system, 1 if b.ndim == 1 else b.shape[1], None)[0]
            # The factors serve the adjoint too; as a method of its own, "direct" would forget them.
            M = Factorisation(null_space) if first.method == "direct" else first.M
        self.M = M
        self._adjoint: tuple[System, Any] | None = None

    def adjoint(self) -> tuple[System, Any]:
        """The adjoint matrix and its preconditioner, when first needed."""
        if self._adjoint is None:
            if self.system.symmetric:
                self._adjoint = self.system, self.M
            else:
                matrix = self.system.matrix
                assert matrix is not None  # tensors show their entries
                self._adjoint = System(matrix.conj().T, dtype=self.system.dtype), _adjoint_preconditioner(self.M)
        return self._adjoint

    def solve(self, b: torch.Tensor, adjoint: bool, controls: dict[str, Any]) -> torch.Tensor:
        """x, or the solution with the adjoint of A, on the device of b."""
        system, M = self.adjoint() if adjoint else (self.system, self.M)
        rhs = b.detach().cpu().resolve_conj().resolve_neg().numpy()
        result = solve_arrays(system, rhs, self.method, M=M, null_space=self.null_space, **controls)
        return torch.as_tensor(result.x, device=b.device)


def _adjoint_preconditioner(M: Any) -> Any:
    """What approximates the inverse of A' if M approximates that of A, which is not symmetric."""
    if M is None:
        return None
    if isinstance(M, np.ndarray) or sp.issparse(M):
        return M.conj().T
    if hasattr(M, "rmatvec"):
        return M.rmatvec
    if hasattr(M, "setup"):  # one like it, for the adjoint matrix
        fresh = copy(M)
        fresh.shape = None
        return fresh
    raise TypeError(
        f"M: the adjoint solve needs its adjoint, and {type(M).__name__} has none, while A is not symmetric; give a "
        "registered name, a preconditioner object, a matrix, or a LinearOperator with rmatvec"
    )


def _numpy_dtype(b: torch.Tensor) -> np.dtype:
    return np.dtype(torch.empty(0, dtype=b.dtype).numpy().dtype)


class _Solve(torch.autograd.Function):
    """``A^-1 b``, or ``A^-H b``; each is the other's derivative."""

    @staticmethod
    def forward(
        ctx: Any, values: torch.Tensor, b: torch.Tensor, pair: _AdjointPair, adjoint: bool, controls: dict[str, Any]
    ) -> torch.Tensor:
        x = pair.solve(b, adjoint, controls)
        ctx.save_for_backward(values, x)
        ctx.pair, ctx.adjoint, ctx.real_b = pair, adjoint, not b.is_complex()
        return x

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (g,) = cotangents
        values, x = ctx.saved_tensors
        if ctx.pair.basis is not None:  # x has no part in the null space, whatever is asked of one
            Q = torch.as_tensor(ctx.pair.basis, device=g.device)
            g = g - Q @ (Q.mH @ g)
        other = _Solve.apply(values, g, ctx.pair, not ctx.adjoint, ctx.pair.backward)
        left, right = (x, other) if ctx.adjoint else (other, x)
        grad_values = -ctx.pair.entries.outer(left, right) if ctx.needs_input_grad[0] else None
        grad_b = None
        if ctx.needs_input_grad[1]:
            grad_b = other.real if ctx.real_b else other
        return grad_values, grad_b, None, None, None
