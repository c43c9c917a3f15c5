"""The solver of Fang et al. 2024 (GP-HM, ICLR, arXiv 2311.04465) as its authors run it: Adam on everything at once.

Unknown are the values U at the nodes, the weights, frequencies and widths of the mixtures, and the precisions tau and v
of boundary data and equation. Adam maximises

    J = -1/2 log det K - 1/2 u^T K^-1 u + lambda_b (N_b/2 log tau - tau/2 |u_b - g|^2)
        + N/2 log v - v/2 |L u + R(u) - f|^2

with derivatives ``d^m U = K^(m) K^-1 U`` along each axis, and ``K = K_1 x K_2``. Here Gram matrices are Toeplitz, so
that a step of 400 nodes takes milliseconds; the objective, its start and its optimiser are theirs. It is here for
comparison: the other modes find the same solutions in closed form, better and far faster.
"""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.gp.judge import residual
from operators.gp.kernels import AxisKernel, GaussianMixture, Product, StudentMixture
from operators.gp.problems import Problem
from operators.gp.solution import Diagnostics, Solution
from operators.gp.toeplitz import InverseTimes, inverse, multiply

Array = NDArray[np.floating]
JITTER = 1e-6
LEARNING_RATE = 0.01
BOUNDARY_WEIGHT = 200.0
COMPONENTS = 30
ITERATIONS = 100_000
CHECKPOINTS = 20


def solve_adam(
    problem: Problem,
    *,
    observations: Any = None,
    unknowns: Sequence[str] | None = None,
    kernel: Any = "student",
    max_frequency: float | None = None,
    iterations: int = ITERATIONS,
    boundary_weight: float = BOUNDARY_WEIGHT,
    checkpoint: str | Path | None = None,
    callback: Callable[[int, Solution], object] | None = None,
) -> Solution:
    """Solve as the authors of GP-HM do: learning rate 0.01, 30 components an axis, jitter 1e-6, values from 0.

    Parameters
    ----------
    problem : Problem
        Linear or not, in any dimension.
    observations, unknowns
        None: the published algorithm takes neither.
    kernel : str
        "gaussian" or "student", the family of the mixtures.
    max_frequency : float, optional
        The frequencies begin equally spaced from 0 to this, in cycles per unit of length. The authors set it by hand
        for each problem, knowing the solution; by default nine tenths of the Nyquist frequency of each axis.
    iterations : int
        Steps of Adam.
    boundary_weight : float
        lambda_b; the authors' 200, or 500 for advection.
    checkpoint : path, optional
        A file to write the state to, twenty times a run, and to go on from where it exists.
    callback : callable, optional
        Told the step and the solution so far, twenty times a run.

    Returns
    -------
    Solution
        Of the last step: ``diagnostics.residual`` judges it, no known solution. No evidence; standard deviations are
        those of u between nodes whose values are known.

    Raises
    ------
    ValueError
        If there are observations or unknowns, or the kernel is not one of the two names.

    Examples
    --------
    >>> from operators.gp import Poisson
    >>> wave = lambda x: np.sin(6 * x[:, 0])
    >>> problem = Poisson([(0, 1)], lambda x: -36 * wave(x), wave, 20)
    >>> solve_adam(problem, iterations=200).diagnostics.iterations
    200
    """
    if observations is not None or unknowns:
        raise ValueError("mode='adam' is the published algorithm, without observations and unknowns: take another mode")
    if kernel not in ("gaussian", "student"):
        raise ValueError(f"mode='adam' learns its kernel: kernel must be 'gaussian' or 'student', got {kernel!r}")
    if not isinstance(iterations, int) or iterations < 1:
        raise ValueError(f"iterations must be a number of steps of Adam, at least 1, got {iterations!r}")
    began = time.perf_counter()
    state = _State(problem, kernel, max_frequency, boundary_weight)
    if checkpoint is not None and Path(checkpoint).exists():
        state.load(Path(checkpoint))
    every = max(iterations // CHECKPOINTS, 1)
    history = state.history
    while state.step < iterations:
        objective = state.improve()
        if not math.isfinite(objective):
            raise FloatingPointError(f"Adam diverged at step {state.step}: the objective is {objective}")
        if state.step % every == 0 or state.step == iterations:
            history.append({"step": state.step, "objective": objective})
            if checkpoint is not None:
                state.save(Path(checkpoint))
            if callback is not None:
                callback(state.step, state.solution(time.perf_counter() - began))
    return state.solution(time.perf_counter() - began)


class _State:
    """What Adam changes, Adam, and the objective."""

    def __init__(self, problem: Problem, family: str, max_frequency: float | None, boundary_weight: float) -> None:
        self.problem, self.family, self.boundary_weight = problem, family, boundary_weight
        self.step = 0
        self.history: list[dict[str, Any]] = []
        shape = problem.nodes
        points = problem.points()
        self.lags = [torch.from_numpy(axis - axis[0]) for axis in problem.axes]
        self.terms = [
            (term.orders, torch.from_numpy(term.at(points, problem.parameters).reshape(shape)))
            for term in problem.operator.terms
        ]
        self.f = torch.from_numpy(problem.right_hand_side(points).reshape(shape))
        self.faces = []
        for face in problem.faces:
            values = problem.boundary_values(face, problem.face_points(face))
            self.faces.append((face, torch.from_numpy(values)))

        def free(value: Any) -> Tensor:
            return torch.as_tensor(value, dtype=torch.float64).clone().requires_grad_()

        self.u = free(torch.zeros(shape))
        self.mixtures = []
        for axis, lags in enumerate(self.lags):
            nyquist = (shape[axis] - 1) / (2 * float(lags[-1]))
            top = 0.9 * nyquist if max_frequency is None else max_frequency
            spread = torch.linspace(0, 1, COMPONENTS, dtype=torch.float64) * top
            equal = torch.full((COMPONENTS,), -math.log(COMPONENTS))
            self.mixtures.append((free(equal), free(torch.zeros(COMPONENTS)), free(spread)))
        self.log_tau, self.log_v = free(0.0), free(0.0)
        free_ones = [self.u, *(p for mixture in self.mixtures for p in mixture), self.log_tau, self.log_v]
        self.adam = torch.optim.Adam(free_ones, lr=LEARNING_RATE, fused=True)

    def improve(self) -> float:
        """One step of Adam; the objective before it."""
        self.adam.zero_grad()
        objective = self.objective()
        (-objective).backward()
        self.adam.step()
        self.step += 1
        return float(objective.detach())

    def objective(self) -> Tensor:
        """J."""
        u, n = self.u, self.u.numel()
        quadratic, columns, total = u, [], u.new_zeros(())
        for axis, mixture in enumerate(self.mixtures):
            taken = {0} | {orders[axis] for orders, _ in self.terms}
            columns.append({m: kernel_column(self.family, self.lags[axis], mixture, m) for m in taken})
            columns[axis][0] = columns[axis][0] + _jitter(u.shape[axis])
        # K^-1 along one axis serves all derivatives along it.
        inverted = []
        for axis in range(u.ndim):
            x, log_determinant = _along(InverseTimes.apply, columns[axis][0], u, axis)
            inverted.append(x)
            total = total - 0.5 * n / u.shape[axis] * log_determinant
        quadratic = inverted[0]
        for axis in range(1, u.ndim):
            quadratic, _ = _along(InverseTimes.apply, columns[axis][0], quadratic, axis)
        total = total - 0.5 * (u * quadratic).sum()

        wrong = -self.f
        for orders, coefficient in self.terms:
            wrong = wrong + coefficient * self._derivative(u, inverted, columns, orders)
        if self.problem.reaction is not None:
            wrong = wrong + _Elementwise.apply(u, self.problem.reaction)
        total = total + 0.5 * n * self.log_v - 0.5 * torch.exp(self.log_v) * (wrong**2).sum()

        misfit, count = u.new_zeros(()), 0
        for (axis, side), given in self.faces:
            there = u.select(axis, -side).reshape(-1)
            misfit, count = misfit + ((there - given) ** 2).sum(), count + len(given)
        return total + self.boundary_weight * 0.5 * (count * self.log_tau - torch.exp(self.log_tau) * misfit)

    def _derivative(
        self, u: Tensor, inverted: list[Tensor], columns: list[dict[int, Tensor]], orders: tuple[int, ...]
    ) -> Tensor:
        """``d^orders U``, along one axis after the other."""
        untouched = True
        for axis, m in enumerate(orders):
            if m == 0:
                continue
            if not untouched:
                x, _ = _along(InverseTimes.apply, columns[axis][0], u, axis)
            else:
                x = inverted[axis]
            u, untouched = _along(multiply, columns[axis][m], x, axis, -1 if m % 2 else 1), False
        return u

    def solution(self, seconds: float) -> Solution:
        """What there is now."""
        factors: list[AxisKernel] = []
        for log_w, log_ls, mu in self.mixtures:
            w, ls, frequencies = (p.detach().numpy().copy() for p in (log_w.exp(), log_ls.exp(), mu.abs()))
            if self.family == "gaussian":
                factors.append(GaussianMixture(w, frequencies, np.sqrt(ls)))
            else:
                factors.append(StudentMixture(w, frequencies, ls))
        posterior = GridInterpolant(factors, self.problem.axes, self.u.detach().numpy().copy())
        diagnostics = Diagnostics(
            method=f"Adam on values and kernel together ({self.family} mixtures, Fang et al. 2024)",
            kernel=factors[0] if len(factors) == 1 else Product(*factors),
            residual=residual(self.problem, posterior),
            nugget=JITTER,
            iterations=self.step,
            converged=False,
            seconds=seconds,
            std_method="between nodes, whose values count as known",
            history=list(self.history),
            notes=["Adam has no test of convergence: judge by the residual"],
        )
        return Solution(self.problem, posterior, None, diagnostics)

    def save(self, path: Path) -> None:
        """Write the state, whole or not at all."""
        state = {
            "format_version": 1,
            "about": self._about(),
            "step": self.step,
            "history": self.history,
            "values": [p.detach() for p in self.adam.param_groups[0]["params"]],
            "adam": self.adam.state_dict(),
        }
        beside = path.with_name(path.name + ".part")
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, beside)
        beside.replace(path)

    def load(self, path: Path) -> None:
        """Go on from a state that `save` wrote, of the same problem."""
        state = torch.load(path, weights_only=True)
        if state.get("about") != self._about():
            raise ValueError(
                f"checkpoint {path} is of another problem or kernel, {state.get('about')}; this one is "
                f"{self._about()}: take another file, or remove it"
            )
        with torch.no_grad():
            for p, value in zip(self.adam.param_groups[0]["params"], state["values"], strict=True):
                p.copy_(value)
        self.adam.load_state_dict(state["adam"])
        self.step, self.history[:] = state["step"], state["history"]

    def _about(self) -> dict[str, Any]:
        """What tells one run from another: the f and boundary data too."""
        data = [float(self.f.sum()), float((self.f**2).sum()), *(float(given.sum()) for _, given in self.faces)]
        return {"problem": repr(self.problem), "kernel": self.family, "weight": self.boundary_weight, "data": data}


class GridInterpolant:
    """The process given its values U at the nodes of a grid: ``mean(x) = k_1(x_1)^T K_1^-1 U K_2^-1 k_2(x_2)``.

    Parameters
    ----------
    factors : sequence of AxisKernel
        One an axis.
    axes : sequence of ndarray
        Equally spaced coordinates.
    values : ndarray
        U, of the grid's shape.
    """

    def __init__(self, factors: Sequence[Any], axes: Sequence[Array], values: Array) -> None:
        self.factors, self.axes = factors, axes
        self._inverses = []
        self._weights = values
        for axis, (factor, x) in enumerate(zip(factors, axes, strict=True)):
            column = factor.derivative(x - x[0], 0)
            column[0] += JITTER
            inverted, _ = inverse(column)
            self._inverses.append(inverted)
            self._weights = np.moveaxis(np.tensordot(inverted, self._weights, (1, axis)), 0, axis)

    def mean(self, points: Array, orders: tuple[int, ...]) -> Array:
        """Of a derivative at points.

        Parameters
        ----------
        points : ndarray
            ``(n, d)``.
        orders : tuple of int
        """
        tables = [factor.matrix(points[:, a], self.axes[a], orders[a]) for a, factor in enumerate(self.factors)]
        total = tables[-1] @ np.moveaxis(self._weights, -1, 0).reshape(len(self.axes[-1]), -1)
        for table in reversed(tables[:-1]):
            total = np.einsum("nkj,nj->nk", total.reshape(len(points), -1, table.shape[1]), table)
        return total.reshape(len(points))

    def mean_on_grid(self, axes: Sequence[Array], orders: tuple[int, ...]) -> Array:
        """The same on a tensor grid.

        Parameters
        ----------
        axes : sequence of ndarray
        orders : tuple of int
        """
        total = self._weights
        for a, factor in enumerate(self.factors):
            table = factor.matrix(np.asarray(axes[a]), self.axes[a], orders[a])
            total = np.moveaxis(np.tensordot(table, total, (1, a)), 0, a)
        return total

    def std(self, points: Array) -> Array:
        """``k(x, x) - k(x)^T K^-1 k(x)``, and its root.

        Parameters
        ----------
        points : ndarray
            ``(n, d)``.
        """
        explained, prior = np.ones(len(points)), 1.0
        for a, factor in enumerate(self.factors):
            table = factor.matrix(points[:, a], self.axes[a])
            explained = explained * np.einsum("ni,ij,nj->n", table, self._inverses[a], table, optimize=True)
            prior *= factor.variance()
        return np.sqrt(np.maximum(prior - explained, 0.0))


def kernel_column(family: str, lags: Tensor, mixture: tuple[Tensor, Tensor, Tensor], order: int) -> Tensor:
    """A derivative of the mixture at lags ``z >= 0``, differentiable in its parameters.

    Parameters
    ----------
    family : str
        "gaussian": ``exp(-ls z^2)``; "student": Matern-5/2 of ``sqrt(5) ls z``; as in the authors' code.
    lags : tensor
        ``(n,)``, not negative.
    mixture : (tensor, tensor, tensor)
        Logarithms of the weights and of ls, and the frequencies.
    order : int
        At most 4.

    Returns
    -------
    tensor
        ``(n,)``.
    """
    log_w, log_ls, mu = mixture
    z, ls, a = lags[:, None], torch.exp(log_ls), 2 * math.pi * mu
    envelope = gaussian_envelope(z, ls, order) if family == "gaussian" else matern_envelope(z, ls, order)
    total = torch.zeros_like(z * a)
    for k in range(order + 1):  # Leibniz
        total = total + math.comb(order, k) * envelope[k] * a ** (order - k) * torch.cos(
            a * z + (order - k) * math.pi / 2
        )
    return total @ torch.exp(log_w)


def gaussian_envelope(z: Tensor, ls: Tensor, order: int) -> list[Tensor]:
    """``exp(-ls z^2)`` and its derivatives, by Hermite's recursion.

    Parameters
    ----------
    z, ls : tensor
    order : int
    """
    p, decay = -2 * ls * z, torch.exp(-ls * z**2)
    h = [torch.ones_like(p), p]
    for n in range(1, order):
        h.append(p * h[n] - 2 * n * ls * h[n - 1])
    return [each * decay for each in h[: order + 1]]


def matern_envelope(z: Tensor, ls: Tensor, order: int) -> list[Tensor]:
    """Matern-5/2 and its derivatives to the fourth, from the right at 0, where the first and third are 0.

    Parameters
    ----------
    z, ls : tensor
    order : int
    """
    if order > 4:
        raise ValueError(f"the student family has derivatives to order 4, the operator takes {order}: take 'gaussian'")
    al = math.sqrt(5) * ls
    s = al * z
    decay = torch.exp(-s)
    polynomials = (1 + s + s**2 / 3, -s * (1 + s) / 3, -(1 + s - s**2) / 3, s * (3 - s) / 3, (3 - 5 * s + s**2) / 3)
    return [al**k * polynomials[k] * decay for k in range(order + 1)]


class _Elementwise(torch.autograd.Function):
    """R(u) of a reaction that is written for numpy arrays."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, reaction: Any) -> Tensor:
        values = u.detach().numpy()
        ctx.slope = torch.as_tensor(np.broadcast_to(reaction.slope(values), values.shape).copy())
        return torch.as_tensor(np.array(reaction.value(values), float))

    @staticmethod
    def backward(ctx: Any, of_value: Tensor) -> tuple[Tensor, None]:
        return of_value * ctx.slope, None


def _along(function: Any, column: Tensor, u: Tensor, axis: int, *more: Any) -> Any:
    """A function of a column and a matrix, along an axis of an array."""
    moved = u.movedim(axis, 0)
    result = function(column, moved.reshape(len(moved), -1), *more)
    if isinstance(result, tuple):
        return result[0].reshape(moved.shape).movedim(0, axis), result[1]
    return result.reshape(moved.shape).movedim(0, axis)


def _jitter(n: int) -> Tensor:
    return torch.cat([torch.tensor([JITTER], dtype=torch.float64), torch.zeros(n - 1, dtype=torch.float64)])
