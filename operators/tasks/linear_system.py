"""The task of linear systems: from a residual to a direction in which to search for the solution, without labels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datagen.family import SPLITS
from datagen.store import Store
from operators.data import Batch, Channel, GaussianNormaliser
from operators.operator import Operator
from operators.tasks.protocol import Loss
from operators.tasks.residuals import cg_residuals, ritz_residuals
from solvers import StencilOperator, solve
from solvers.registry import near_names
from solvers.system import System

RESIDUALS = {"cg": cg_residuals, "ritz": ritz_residuals}


def stencil_product(stencil: Tensor, offsets: Sequence[Sequence[int]], field: Tensor) -> Tensor:
    r"""``(A u)_i = sum_o c_o(i) u_{i + o}`` for a batch of operators and fields.

    Parameters
    ----------
    stencil : Tensor, shape (batch, offsets, *grid)
        Coefficients; zero where a neighbour is outside of the grid and the axis is not periodic, as in a
        `StencilOperator`.
    offsets : sequence of integer sequences
    field : Tensor, shape (batch, 1, *grid)

    Returns
    -------
    Tensor, shape (batch, 1, *grid)

    Examples
    --------
    >>> second_difference = torch.tensor([[[0.0, -1, -1], [2, 2, 2], [-1, -1, 0]]])
    >>> stencil_product(second_difference, [(-1,), (0,), (1,)], torch.tensor([[[1.0, 2.0, 4.0]]]))
    tensor([[[ 0., -1.,  6.]]])
    """
    axes = tuple(range(2, field.ndim))
    # Rolled values that come around the end of an axis meet a coefficient of zero, unless they should.
    shifted = (field.roll([-step for step in offset], axes) for offset in offsets)
    return torch.stack([c * u[:, 0] for c, u in zip(stencil.unbind(1), shifted, strict=True)]).sum(dim=0)[:, None]


def diagonal_over_mean(stencil: Tensor, offsets: Sequence[Sequence[int]]) -> Tensor:
    """The diagonals of a batch of operators, each over its mean.

    Parameters
    ----------
    stencil : Tensor, shape (batch, offsets, *grid)
    offsets : sequence of integer sequences

    Returns
    -------
    Tensor, shape (batch, 1, *grid)
    """
    centre = stencil[:, [[tuple(offset) for offset in offsets].index((0,) * (stencil.ndim - 2))]]
    return centre / centre.mean(dim=tuple(range(1, centre.ndim)), keepdim=True)


@dataclass(frozen=True)
class SystemBatch(Batch):
    """Residuals, as inputs and as targets, and the stencils of their systems.

    Parameters
    ----------
    stencil : Tensor, shape (batch, offsets, *grid)
    energy : Tensor, shape (batch,), optional
        ``r^T A^-1 r``, the square of the error's A-norm, where the loss needs it.
    """

    stencil: Tensor | None = None
    energy: Tensor | None = None


class SystemExamples:
    """Residuals of the systems of one split: example ``e`` is residual ``e % each`` of sample ``e // each``.

    They are made when first asked for, from the seed, the split and the sample alone, and kept where `keep` says so.

    Parameters
    ----------
    task : LinearSystemTask
    split : str
    keep : bool
    """

    def __init__(self, task: "LinearSystemTask", split: str, keep: bool) -> None:
        if not task.store.sizes.get(split):
            raise ValueError(f"dataset {task.store.path} has no {split} samples; it has {dict(task.store.sizes)}")
        self.task, self.split, self.keep = task, split, keep
        self._made: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return self.task.store.sizes[self.split] * self.task.each

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": {}}  # loader workers make their own

    def system(self, sample: int) -> tuple[Tensor, Tensor, Tensor]:
        """Stencil ``(offsets, *grid)``, residuals ``(each, 1, *grid)`` and their energies ``(each,)`` of one sample."""
        if sample in self._made:
            return self._made[sample]
        made = self.task.make(self.split, sample)
        if self.keep:
            self._made[sample] = made
        return made

    def batch(self, indices: Tensor) -> SystemBatch:
        """Residuals of the given indices."""
        samples = (indices // self.task.each).tolist()
        systems = {sample: self.system(sample) for sample in sorted(set(samples))}
        stencil = torch.stack([systems[sample][0] for sample in samples])
        numbers = (indices % self.task.each).tolist()
        residuals = torch.stack([systems[s][1][number] for s, number in zip(samples, numbers, strict=True)])
        energies = torch.stack([systems[s][2][number] for s, number in zip(samples, numbers, strict=True)])
        inputs = [residuals]
        if self.task.diagonal:
            inputs.append(self.task.diagonal_of(stencil))
        if self.task.stencil:
            inputs.append(self.task.coefficients_of(stencil))
        return SystemBatch(torch.cat(inputs, dim=1), residuals, None, stencil, energies)


class LinearSystemTask:
    r"""Learn search directions for ``A x = b`` from residuals alone: the deep conjugate direction method's training.

    For the residual r the model proposes a direction :math:`d = G_\theta(r)`, and the loss compares r with what the
    best step along d takes from it,

    .. math:: \min_\theta \frac1N \sum_r \ell(\alpha A d, r), \qquad \alpha = \frac{d^T r}{d^T A d},

    where :math:`\alpha` is the step of exact line search, which makes the error least in the norm of A. With
    ``loss=mse`` this is the published loss :math:`\|r - \alpha A d\|_2^2 / \|r\|_2^2`, with ``loss=relative_l2`` its
    root. It is 0 for :math:`d = A^{-1} r` at any scale, and it can exceed 1: the step lessens the error, not always the
    residual. With ``norm="energy"`` the same losses are of what the step leaves of the error e in the norm of A, which
    the step makes least, and which bounds the rate of conjugate directions:

    .. math:: \frac{\|e - \alpha d\|_A}{\|e\|_A} = \sqrt{1 - \frac{(d^T r)^2}{d^T A d \; r^T A^{-1} r}} .

    The systems are those of the dataset's samples (`Family.system`), of symmetric positive definite matrices; stored
    solutions are not looked at. Residuals have mean square 1. Input and output have the grid of the unknowns, which may
    be smaller than that of the fields.

    Parameters
    ----------
    store : Store
        Of a steady family that is made by solving and has `StencilOperator` systems.
    memory_gb : float
        Systems and residuals of a split that need more than this are made anew whenever they are asked for.
    residuals : {"cg", "ritz"}
        Where residuals come from: `operators.tasks.residuals`.
    each : int
        Residuals of each system.
    depth : int
        For "cg" the most iterations before a residual is taken; for "ritz" the number of Lanczos vectors.
    diagonal : bool
        Whether the model sees the diagonal of A, over its mean, as a second channel. The published one sees r alone.
    stencil : bool
        Whether the model sees A: after these its coefficients, by rising offset, over the largest one.
    norm : {"residual", "energy"}
        In which the loss measures what a step leaves. For "energy" each residual's system is solved once.
    seed : int
        Of the residuals.

    Raises
    ------
    ValueError
        If the dataset has no such systems, or an argument does not fit.

    References
    ----------
    Kaneda et al., A deep conjugate direction method for iteratively solving linear systems, ICML 2023.
    """

    conditioned_on_time = False

    def __init__(
        self,
        store: Store,
        memory_gb: float = 4.0,
        residuals: str = "cg",
        each: int = 4,
        depth: int = 30,
        diagonal: bool = False,
        stencil: bool = False,
        norm: str = "residual",
        seed: int = 0,
    ) -> None:
        if norm not in ("residual", "energy"):
            raise ValueError(f"norm must be 'residual' or 'energy', got {norm!r}")
        if residuals not in RESIDUALS:
            raise ValueError(f"unknown residuals {residuals!r}. {near_names(str(residuals), list(RESIDUALS))}")
        for name, value, least in (("each", each, 1), ("depth", depth, 1), ("seed", seed, 0)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if store.evolves or not store.family.made_by_solving:
            what = "evolve in time" if store.evolves else "come from a file"
            raise ValueError(
                f"task linear_system learns from the systems of steady families, but the samples of {store.path} {what}"
            )
        self.store, self.memory_gb, self.each, self.depth = store, memory_gb, each, depth
        self.residuals, self.diagonal, self.seed = RESIDUALS[residuals], diagonal, seed
        self.stencil, self.norm = stencil, norm
        A = self._operator(store.family.system(store.sample("train", 0)).A)
        self.offsets, self.grid = A.offsets, A.grid_shape
        self.inputs = [Channel("residual", "", "of mean square 1")]
        if diagonal:
            self.inputs.append(Channel("diagonal", "", "of the matrix, over its mean"))
        if stencil:
            self.inputs += [Channel(f"coefficient {o}", "", "of the matrix, scaled") for o in sorted(self.offsets)]
        self.outputs = [Channel("direction", "", "of search, at any scale")]
        self._examples: dict[str, SystemExamples] = {}

    def _operator(self, A: Any) -> StencilOperator:
        if not isinstance(A, StencilOperator) or A.dtype.kind != "f":
            raise ValueError(
                f"task linear_system needs systems that are real stencils on a grid, but those of {self.store.path} "
                f"are {type(A).__name__} of dtype {A.dtype}"
            )
        if not System(A).symmetric:
            raise ValueError(
                f"task linear_system needs symmetric positive definite systems; those of {self.store.path} are not "
                "symmetric"
            )
        return A

    def make(self, split: str, sample: int) -> tuple[Tensor, Tensor, Tensor]:
        """Stencil ``(offsets, *grid)``, residuals ``(each, 1, *grid)`` and their energies, in single precision."""
        system = self.store.family.system(self.store.sample(split, sample))
        A = self._operator(system.A)
        if A.offsets != self.offsets or A.grid_shape != self.grid:
            raise ValueError(f"{self.store.path}: the system of {split} sample {sample} has another stencil or grid")
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(SPLITS.index(split), sample)))
        found = self.residuals(system, self.each, self.depth, rng)
        found *= math.sqrt(found.shape[1]) / np.linalg.norm(found, axis=1, keepdims=True)
        fields = np.stack([A.to_field(r) for r in found])[:, None]
        energies = np.ones(len(found))
        if self.norm == "energy":
            energies = np.array([r @ solve(A, r, rtol=1e-10, null_space=system.null_space).x for r in found])
        values = (A.coefficients, fields, energies)
        stencil, residuals, products = (torch.tensor(value, dtype=torch.float32) for value in values)
        return stencil, residuals, products

    def coefficients_of(self, stencil: Tensor) -> Tensor:
        """Matrices ``(batch, offsets, *grid)`` as channels by rising offset, each over its largest coefficient."""
        stencil = stencil[:, sorted(range(len(self.offsets)), key=lambda number: self.offsets[number])]
        return stencil / stencil.abs().amax(dim=tuple(range(1, stencil.ndim)), keepdim=True)

    def diagonal_of(self, stencil: Tensor) -> Tensor:
        """`diagonal_over_mean` of matrices with the offsets of this dataset's."""
        return diagonal_over_mean(stencil, self.offsets)

    def examples(self, split: str) -> SystemExamples:
        """Residuals of all systems of a split."""
        if split not in self._examples:
            values = self.store.sizes.get(split, 0) * (len(self.offsets) + self.each) * math.prod(self.grid)
            self._examples[split] = SystemExamples(self, split, keep=4.0 * values <= 1e9 * self.memory_gb)
        return self._examples[split]

    def normalisers(self) -> tuple[GaussianNormaliser, GaussianNormaliser]:
        """Of the residual none: its mean square is 1 and its sign must not be lost; of the diagonal its statistics."""
        mean, deviation = torch.zeros(1), torch.ones(1)
        channels = len(self.inputs)
        if self.diagonal:
            training = self.examples("train")
            stencils = (training.system(sample)[0][None] for sample in range(self.store.sizes["train"]))
            measured = GaussianNormaliser.measure(self.diagonal_of(stencil) for stencil in stencils)
            mean = torch.cat([mean, measured.mean])
            deviation = torch.cat([deviation, measured.standard_deviation])
        others = channels - len(mean)  # coefficients stay what they are: those that are zero must
        mean, deviation = torch.cat([mean, torch.zeros(others)]), torch.cat([deviation, torch.ones(others)])
        return GaussianNormaliser(mean, deviation), GaussianNormaliser(torch.zeros(1), torch.ones(1))

    def loss(self, model: Operator, batch: Batch, loss: Loss) -> Tensor:
        """The loss of what the best step along the proposed direction takes from the residual."""
        return loss(self.predict(model, batch), model.scale(batch.targets))

    def predict(self, model: Operator, batch: Batch) -> Tensor:
        r"""What the step takes from the residual, :math:`\alpha A d`, shape (samples, 1, \*grid).

        With ``norm="energy"`` the residual times what the step takes from the norm of the error, as a share: its
        distance from the residual is then, relatively, what is left.
        """
        assert isinstance(batch, SystemBatch)
        assert batch.stencil is not None
        r, d = batch.targets, model(batch.inputs)
        # Points outside of a mask need no care: r is zero there, and every coefficient that leads there.
        Ad = stencil_product(batch.stencil, self.offsets, d)
        axes = tuple(range(1, d.ndim))
        energy = (d * Ad).sum(dim=axes, keepdim=True)
        # A direction without energy is zero (or in the null space): the best step along it is none.
        along = (d * r).sum(dim=axes, keepdim=True)
        step = along / torch.where(energy > 0, energy, torch.inf)
        if self.norm == "residual":
            return step * Ad
        assert batch.energy is not None
        left = 1 - step * along / batch.energy.reshape(energy.shape)
        return r * (1 - left.clamp_min(1e-12).sqrt())
