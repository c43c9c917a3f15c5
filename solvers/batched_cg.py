r"""Conjugate gradients for a batch of systems at once, in torch, on any device.

Each system runs its own recurrence; they share the calls. A system that has ended keeps its x while the others go on.
The method, its checks and its verdict are those of `solvers.krylov.cg` and its driver.

Source: M. R. Hestenes and E. Stiefel, J. Res. Nat. Bur. Standards 49 (1952).

Storage: 7 vectors of the batch (x, best x, r, p, A p, b, one more with M). Work per iteration: one product with A for
the whole batch, 2 inner products and 4 updates; one number goes from the device to the host.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from solvers.krylov.controls import Controls
from solvers.result import Status

_STATUSES = list(Status)
_RUNNING = -1


@dataclass(frozen=True)
class BatchedResult:
    """Solutions of a batch of systems, with the truth about each.

    Attributes
    ----------
    x : Tensor, shape (batch, ...)
        Solutions; where a system failed, its best iterate.
    statuses : tuple of Status
        One for each system.
    iterations : Tensor of int64, shape (batch,)
    residual_norms : Tensor, shape (batch,)
        True ``||b - A x||`` of each system, recomputed at exit; infinite where b is not finite.
    history : Tensor, shape (most iterations + 1, batch)
        Residual norms; NaN after the end of a system.
    matvecs : int
        Products with A, each for the whole batch.
    """

    x: torch.Tensor
    statuses: tuple[Status, ...]
    iterations: torch.Tensor
    residual_norms: torch.Tensor
    history: torch.Tensor
    matvecs: int

    @property
    def status(self) -> Status:
        """The worst of all."""
        return Status.worst(list(self.statuses))

    @property
    def converged(self) -> bool:
        """True if every system meets its tolerance."""
        return self.status is Status.CONVERGED

    def __str__(self) -> str:
        counts = {s: self.statuses.count(s) for s in Status if s in self.statuses}
        lines = [
            f"{self.status.name}: {self.status.value}",
            f"  systems    {len(self.statuses)}: " + ", ".join(f"{n} {s.name}" for s, n in counts.items()),
            f"  residual   {float(self.residual_norms.max()):.3e} (true ||b - A x||, largest)",
            f"  work       {int(self.iterations.min())} to {int(self.iterations.max())} iterations, "
            f"{self.matvecs} products with A for the batch on {self.x.device}",
        ]
        return "\n".join(lines)


@torch.no_grad()
def batched_cg(
    apply_A: Callable[[torch.Tensor], torch.Tensor],
    b: torch.Tensor,
    x0: torch.Tensor | None = None,
    *,
    rtol: float = 1e-5,
    atol: float = 0.0,
    maxiter: int | None = None,
    M: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> BatchedResult:
    r"""Solve ``A_i x_i = b_i`` for a batch of symmetric (Hermitian) positive definite systems.

    System i is CONVERGED if and only if its true residual, recomputed from x, satisfies

    .. math:: \|b_i - A_i x_i\|_2 \le \max(\mathrm{rtol}\,\|b_i\|_2, \mathrm{atol}).

    Parameters
    ----------
    apply_A : callable
        Takes a tensor of the shape of b and returns all products ``A_i v_i``; must not mix systems.
    b : Tensor, shape (batch, ...)
        Right-hand sides, of float32, float64, complex64 or complex128; a system may be a field of any shape.
    x0 : Tensor of the shape of b, optional
        First guesses; zero if None.
    rtol, atol : float
    maxiter : int, optional
        Most iterations; default 10 times the unknowns of a system.
    M : callable, optional
        Applies approximate inverses, symmetric positive definite, as `apply_A` does with the matrices.

    Returns
    -------
    BatchedResult

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, shape or range.

    Examples
    --------
    >>> diagonals = torch.tensor([[1.0, 2.0, 4.0], [1.0, 1.0, -1.0]], dtype=torch.float64)
    >>> result = batched_cg(lambda v: diagonals * v, torch.ones(2, 3, dtype=torch.float64))
    >>> result.x[0], [status.name for status in result.statuses]
    (tensor([1.0000, 0.5000, 0.2500], dtype=torch.float64), ['CONVERGED', 'INDEFINITE_OPERATOR'])
    """
    if not isinstance(b, torch.Tensor):
        raise TypeError(f"b: expected a torch.Tensor, got {type(b).__name__}")
    if b.dtype not in (torch.float32, torch.float64, torch.complex64, torch.complex128):
        raise TypeError(f"b: expected float32, float64, complex64 or complex128, got {b.dtype}; convert it first")
    if b.ndim < 2 or not b.numel():
        raise ValueError(f"b: expected shape (batch, ...) with at least one unknown, got {tuple(b.shape)}")
    if x0 is not None and (x0.shape != b.shape or x0.dtype != b.dtype or x0.device != b.device):
        raise ValueError(
            f"x0: expected a tensor like b, {tuple(b.shape)} of {b.dtype} on {b.device}; got {tuple(x0.shape)} of "
            f"{x0.dtype} on {x0.device}"
        )
    controls = Controls(rtol, atol, maxiter)
    most = 10 * b[0].numel() if controls.maxiter is None else int(controls.maxiter)
    return _Batch(apply_A, b, x0, M, controls).run(most)


class _Batch:
    """The state of all systems; what has ended is masked, not removed, so that A may depend on the place."""

    def __init__(self, apply_A: Any, b: torch.Tensor, x0: torch.Tensor | None, M: Any, controls: Controls) -> None:
        self.shape, self.count = b.shape, b.shape[0]
        self.apply_A, self.M, self.matvecs = apply_A, M, 0
        b = b.reshape(self.count, -1)
        self.status = torch.full((self.count,), _RUNNING, device=b.device)
        finite = torch.isfinite(b).all(dim=1)
        if x0 is not None:
            x0 = x0.reshape(self.count, -1)
            finite &= torch.isfinite(x0).all(dim=1)
        self._end(~finite, Status.NONFINITE_INPUT)
        # Divided by a power of two near its largest entry, each system is safe from overflow and underflow of squares.
        largest = b.abs().amax(dim=1)
        self.scale = torch.exp2(torch.floor(torch.log2(torch.where(finite & (largest > 0), largest, 1))))
        self.b = torch.where(finite[:, None], b / self.scale[:, None], 0)
        self.x = torch.zeros_like(b) if x0 is None else torch.where(finite[:, None], x0 / self.scale[:, None], 0)
        self.x[largest == 0] = 0
        self.tolerance = torch.maximum(controls.rtol * _norm(self.b), controls.atol / self.scale)
        self.eps = torch.finfo(b.dtype).eps

    def _product(self, v: torch.Tensor) -> torch.Tensor:
        self.matvecs += 1
        y = self.apply_A(v.reshape(self.shape))
        if not isinstance(y, torch.Tensor) or y.shape != self.shape or y.dtype != v.dtype:
            got = f"{tuple(y.shape)} of {y.dtype}" if isinstance(y, torch.Tensor) else type(y).__name__
            raise ValueError(f"apply_A: expected a tensor of shape {tuple(self.shape)} of {v.dtype}, got {got}")
        return y.reshape(self.count, -1)

    def _precondition(self, r: torch.Tensor) -> torch.Tensor:
        if self.M is None:
            return r
        z: torch.Tensor = self.M(r.reshape(self.shape))
        if z.shape != self.shape or z.dtype != r.dtype:
            raise ValueError(
                f"M: expected a tensor of shape {tuple(self.shape)} of {r.dtype}, got {tuple(z.shape)} of {z.dtype}"
            )
        return z.reshape(self.count, -1)

    def _end(self, which: torch.Tensor, status: Status) -> None:
        """End those of `which` that still run."""
        self.status[which & (self.status == _RUNNING)] = _STATUSES.index(status)

    def _residual(self) -> torch.Tensor:
        return self.b - self._product(self.x) if self.x.any() else self.b.clone()

    def run(self, most: int) -> BatchedResult:
        """Rounds of refinement, each a run of CG on the systems that miss their tolerance."""
        history = []
        iterations = torch.zeros_like(self.status)
        r = self._residual()
        true = _norm(r)
        self._end(~torch.isfinite(true), Status.NONFINITE_OUTPUT)
        history.append(torch.where(torch.isfinite(true), true, torch.inf))
        while True:
            self._end(true <= self.tolerance, Status.CONVERGED)
            if most == 0:
                self._end(self.status == _RUNNING, Status.MAX_ITERATIONS)
            if not (self.status == _RUNNING).any():
                break
            begun = self.status == _RUNNING
            before, x_before = true, self.x.clone()
            pending = self._iterate(r, true, most, history, iterations)
            r = self._residual()
            now = _norm(r)
            better = torch.isfinite(now) & (now < before)
            self.x = torch.where((better | ~begun)[:, None], self.x, x_before)
            if not bool((better | ~begun).all()):
                r = self._residual()
            true = torch.where(begun, torch.where(better, now, before), true)
            history[-1] = torch.where(begun & ~torch.isnan(history[-1]), true, history[-1])
            self._end(true <= self.tolerance, Status.CONVERGED)
            for status, which in pending.items():
                self._end(which & begun, status)
            if len(history) > most:
                self._end(begun, Status.MAX_ITERATIONS)
            self._end(begun & ~(now <= 0.5 * before), Status.STAGNATED)
        refused = self.status == _STATUSES.index(Status.NONFINITE_INPUT)
        return BatchedResult(
            x=(self.x * self.scale[:, None]).reshape(self.shape),
            statuses=tuple(_STATUSES[i] for i in self.status.tolist()),
            iterations=iterations,
            residual_norms=torch.where(refused, torch.inf, true * self.scale),
            history=torch.stack(history) * self.scale,
            matvecs=self.matvecs,
        )

    def _iterate(
        self, r: torch.Tensor, norm: torch.Tensor, most: int, history: list[torch.Tensor], iterations: torch.Tensor
    ) -> dict[Status, torch.Tensor]:
        """CG from self.x with residuals r on the running systems; leaves the best iterates in self.x.

        Returns why systems had to end before their recurrence said done.
        """
        running = self.status == _RUNNING
        start, best_norm = norm, norm.clone()
        x, best = self.x.clone(), self.x
        # Below eps of where it began the recurrence is worthless: look at the truth.
        target = torch.maximum(self.tolerance, self.eps * start)
        p = torch.zeros_like(r)
        rz_old = torch.ones_like(norm)
        failed: dict[Status, torch.Tensor] = {}

        def fail(which: torch.Tensor, status: Status) -> torch.Tensor:
            which = which & running
            failed[status] = failed.get(status, torch.zeros_like(which)) | which
            return running & ~which

        while bool(running.any()) and len(history) <= most:
            z = self._precondition(r)
            rz = _dot(r, z)
            running = fail(~torch.isfinite(rz), Status.NONFINITE_OUTPUT)
            running = fail(rz <= 0, Status.INDEFINITE_PRECONDITIONER)
            p = z + _column(rz / rz_old) * p
            q = self._product(p)
            curvature = _dot(p, q)
            running = fail(~torch.isfinite(curvature), Status.NONFINITE_OUTPUT)
            running = fail(curvature <= 0, Status.INDEFINITE_OPERATOR)
            alpha = torch.where(running, rz / curvature, 0)
            move = running[:, None]
            x = torch.where(move, x + _column(alpha) * p, x)
            r = torch.where(move, r - _column(alpha) * q, r)
            p = torch.where(move, p, 0)
            norm = torch.where(running, _norm(r), norm)
            rz_old = torch.where(running, rz, 1)
            running = fail(~torch.isfinite(norm), Status.NONFINITE_OUTPUT)
            iterations += running
            history.append(torch.where(running, norm, torch.nan))
            better = running & (norm < best_norm)
            best_norm = torch.where(better, norm, best_norm)
            best = torch.where(better[:, None], x, best)
            running = fail(norm > start / self.eps, Status.BREAKDOWN)
            running = running & (norm > target)
        self.x = best
        return failed


def _dot(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Inner product of each system, real."""
    return torch.linalg.vecdot(x, y).real


def _norm(x: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(x, dim=1)


def _column(v: torch.Tensor) -> torch.Tensor:
    return v[:, None]
