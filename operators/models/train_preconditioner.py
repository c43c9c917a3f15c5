r"""Train the interpolation network of `deep_conjugate_directions`.

python -m operators.models.train_preconditioner --minutes 20 --out interpolation.safetensors

The loss is what conjugate gradients with the cycle leave of the error in the norm of A, per iteration,

.. math:: \frac{1}{2 k} \log \frac{\|e_k\|_A^2}{\|e_0\|_A^2} ,

k steps on from the residual that a real run with the classical cycle, for a white right-hand side, has reached after a
random number of iterations. Every minute the network is put into the suite's compiled multigrid and solves the
validation systems, which no training step sees, on grids of other sizes; the best of all, the untrained one among
them, is what is kept.
"""

import argparse
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import Tensor

from operators.models.deep_conjugate_directions import FORMAT, LearnedMultigrid, layers_of
from operators.models.interpolation_network import InterpolationNetwork
from operators.models.multigrid_torch import OFFSETS, Hierarchy, hierarchy, shifted, summed
from operators.models.preconditioner_systems import TRAINING, families
from solvers import Multigrid, StencilOperator, cg
from solvers.precondition.multigrid.operator import SymmetricStencil

VALIDATION = {"rotated": 2, "oblique": 5, "turning": 3, "turning with obstacles": 5, "regions": 3}
# Two levels down the coarse systems are solved exactly, which a W-cycle all but does.
_EXACT = 300


def stencil_tensor(A: StencilOperator) -> Tensor:
    """All nine coefficients, shape (9, *grid), the largest diagonal entry 1."""
    zero = np.zeros(A.grid_shape)
    stencil = dict(zip(A.offsets, A.coefficients, strict=True))
    fields = np.stack([stencil.get(offset, zero) for offset in OFFSETS]).astype(float)
    return torch.from_numpy(fields / fields[OFFSETS.index((0, 0))].max())


def product(stencils: Tensor, x: Tensor) -> Tensor:
    """A x for stencils (batch, 9, *grid) and fields (batch, *grid)."""
    return summed(stencils[:, k] * shifted(x, offset) for k, offset in enumerate(OFFSETS))


def error_left(stencils: Tensor, cycles: Hierarchy, error: Tensor, steps: int) -> Tensor:
    """``||e_k||_A^2 / ||e_0||_A^2`` after k steps of conjugate gradients with the cycle, shape (batch,)."""

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(dim=(1, 2), keepdim=True)

    r = product(stencils, error)
    first, e, p = dot(error, r), error, torch.zeros_like(error)
    before = torch.ones_like(first)
    for _ in range(steps):
        z = cycles.apply(r)
        now = dot(r, z)
        p = z + now / before * p
        before, q = now, product(stencils, p)
        alpha = now / dot(p, q)
        e, r = e - alpha * p, r - alpha * q
    return (dot(e, r) / first)[:, 0, 0].clamp_min(1e-14)


def example(
    name: str, n: int, depth: int, network: InterpolationNetwork, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """A system's stencil, and the error that a real run has reached; the system is `depth` levels below a finer one."""
    A = families[name](n * 2**depth, rng)
    if depth:
        operators = LearnedMultigrid.of(layers_of(network.state_dict())).setup(A).operators
        A = operators[depth]
        diagonal = A.coefficients[A.offsets.index((0, 0))]
        there = diagonal > 1e-9 * diagonal.max()
        A = StencilOperator(
            A.offsets,
            A.coefficients,
            A.grid_shape,
            A.spacing,
            boundary=A.boundary,
            mask=there,
        )
    b = rng.standard_normal(A.shape[0])
    M = Multigrid("point").setup(A)
    exact = cg(A, b, rtol=1e-12, M=M, maxiter=1000).x
    early = cg(A, b, rtol=1e-12, M=M, maxiter=int(rng.integers(12))).x
    error = A.to_field(exact - early)
    return stencil_tensor(A), torch.from_numpy(error / max(np.sqrt(np.sum(error**2)), 1e-300))


def iterations(A: StencilOperator, b: np.ndarray, M: Multigrid) -> float:
    """Iterations of cg to 1e-8, with the fraction of the last one that was needed; 400 if it takes more."""
    found = cg(A, b, rtol=1e-8, M=M, maxiter=400)
    if not found.converged:
        return 400.0
    last, before = found.history[-1], found.history[-2] if len(found.history) > 1 else 1.0
    target = 1e-8 * float(np.linalg.norm(b))
    return found.iterations - 1 + min(1.0, math.log(before / target) / math.log(before / last))


class Validation:
    """Systems that training does not see, and how many iterations the classical cycle takes for them."""

    def __init__(self, seed: int = 1_000_003, sizes: tuple[int, ...] = (63, 128, 257)) -> None:
        self.systems = []
        for name, count in VALIDATION.items():
            for number in range(count):
                rng = np.random.default_rng([seed, number])
                A = families[name](sizes[number % len(sizes)], rng)
                self.systems.append((name, A, rng.standard_normal(A.shape[0])))
        self.classical = self.counts(None)

    def counts(self, network: InterpolationNetwork | None) -> list[float]:
        """Iterations for each system, with the same W-cycle and smoother; the classical ones if there is no network."""
        found = []
        for _, A, b in self.systems:
            way: Any = {"smoother": SymmetricStencil.of(A).strong_axes or "point", "cycle": "W"}
            ours = network is not None and LearnedMultigrid.of(layers_of(network.state_dict()), **way)
            try:
                found.append(iterations(A, b, (ours or Multigrid(**way)).setup(A)))
            except ValueError:  # a coarse operator was not definite
                found.append(400.0)
        return found

    def score(self, network: InterpolationNetwork) -> tuple[float, dict[str, float]]:
        """Mean logarithm of the iterations over those of the classical cycle, and the mean ratio by family."""
        logs: dict[str, list[float]] = {}
        for (name, _, _), ours, theirs in zip(self.systems, self.counts(network), self.classical, strict=True):
            logs.setdefault(name, []).append(math.log(ours / theirs))
        means = {name: float(np.mean(values)) for name, values in logs.items()}
        return float(np.mean(list(means.values()))), {name: math.exp(value) for name, value in means.items()}


def train(
    minutes: float, out: Path, seed: int = 0, hidden: int = 8, n: int = 56, batch: int = 4, steps: int = 4,
    learning_rate: float = 5e-3,
) -> None:  # fmt: skip
    """Train for `minutes` of processor time and write the best network."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = InterpolationNetwork(hidden)
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    validation = Validation()
    kept, best = {k: v.clone() for k, v in network.state_dict().items()}, 0.0
    names, shares = list(TRAINING), np.array(list(TRAINING.values()))
    start, step, checked = time.process_time(), 0, 0.0
    while True:
        used = (time.process_time() - start) / (60 * minutes)
        if used - checked > 0.05 or used >= 1:
            checked = used
            score, ratios = validation.score(network)
            print(
                f"{100 * used:.0f} % step {step} score {score:.3f}",
                {k: round(v, 2) for k, v in ratios.items()},
                flush=True,
            )
            if score < best:
                best, kept = score, {k: v.clone() for k, v in network.state_dict().items()}
            command = f"python -m operators.models.train_preconditioner --minutes {minutes:g} --seed {seed}"
            command += f" --hidden {hidden} --n {n} --batch {batch} --steps {steps} --learning-rate {learning_rate:g}"
            seconds = time.process_time() - start
            save(kept, out, command=command, seconds=f"{seconds:.0f}", score=f"{best:.4f}")
            if used >= 1:
                return
        for group in optimizer.param_groups:
            group["lr"] = 1e-5 + learning_rate * 0.5 * (1 + math.cos(math.pi * used)) * min(1.0, (step + 1) / 30)
        # A batch has one size, and one kind of stencil: with five points the relaxation is red-black.
        size = int(rng.integers(n - 8, n + 9))
        compact = rng.random() < 0.15
        chosen = ["regions"] * batch if compact else rng.choice(names, batch, p=shares / shares.sum())
        examples = []
        for name in chosen:
            depth = 0 if compact else int(rng.integers(1 if name == "regions" else 0, 3))
            while True:
                try:
                    examples.append(example(str(name), size, depth, network, rng))
                    break
                except ValueError:  # a coarse operator that is semidefinite to rounding
                    continue
        stencils, errors = (torch.stack(parts) for parts in zip(*examples, strict=True))
        cycles = hierarchy(stencils, network.weights, network.operator, coarsest=_EXACT)
        loss = error_left(stencils, cycles, errors, steps).log().mean() / (2 * steps)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        if torch.isfinite(norm):
            optimizer.step()
        step += 1


def save(state: dict[str, Tensor], out: Path, **facts: str) -> None:
    """Write a checkpoint that `LearnedMultigrid` reads."""
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(out.name + ".part")
    metadata = {"format_version": FORMAT, "dimensions": "2", **facts}
    save_file({name: value.numpy().astype(np.float32) for name, value in state.items()}, beside, metadata)
    beside.replace(out)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--out", type=Path, default=Path("interpolation.safetensors"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hidden", type=int, default=8)
    parser.add_argument("--n", type=int, default=56)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=5e-3)
    train(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
