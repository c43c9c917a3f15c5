"""CG with an SSOR preconditioner in a heat equation: the experiment of Khodak et al., arXiv 2310.02246, section 4.

    python -m benchmarks.heat_omega --processes 2                 # n_x = 25, 50, 100
    python -m benchmarks.heat_omega --points 25 50 100 200        # and larger

u_t = kappa(t) Laplace(u) + f on the unit square, zero on its sides, (n_x - 1)^2 unknowns, Crank-Nicolson with the
step 1e-3 for 0 <= t <= 5, kappa(t) = max(0.1 sin 2 pi t, -10 sin 2 pi t), f a bump of height 32 and radius 1/8 that
goes round, u(0) a bump of radius 1/4 in the middle. Each step is solved to ||r|| <= 1e-8 ||b|| from the u before it;
the cost is the number of iterations. Contexts are kappa(t) at the beginning of a step, learners are told [0, 10].

The states come from sine transforms, so that all policies meet the same systems. Every arm is run on every step once,
and the policies that choose from the arms are replayed on that table; the others are run, and timed. Partial results
(500 steps of the table, or one run of a policy) are in results/heat_omega/; the same command goes on from them.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.fft import dstn, idstn
from threadpoolctl import threadpool_limits

from benchmarks.harness import RESULTS
from benchmarks.tuning import ARMS, bandits, collect, curves, parser, part, replay, summary, write
from solvers import SSOR, Result, cg, gallery
from solvers.tuning import Guard, LearnedOmega, Policy, SpectralOmega, young_omega

STEP = 1e-3
RTOL = 1e-8
INTERVAL = (0.0, 10.0)
BLOCK = 500  # steps of the table in one partial result
System = tuple[sp.csr_array, np.ndarray, np.ndarray, float]


def kappa(t: float) -> float:
    """The diffusion coefficient."""
    return max(0.1 * np.sin(2 * np.pi * t), -10.0 * np.sin(2 * np.pi * t))


def bump(x: np.ndarray, centre: tuple[float, float], radius: float) -> np.ndarray:
    """exp(1 - 1 / (1 - s)), s the squared distance from the centre over the squared radius; zero where s >= 1."""
    s = ((x[0] - centre[0]) ** 2 + (x[1] - centre[1]) ** 2) / radius**2
    return np.where(s < 1.0, np.exp(1.0 - 1.0 / (1.0 - np.minimum(s, 1.0 - 1e-9))), 0.0)


def systems(points: int, steps: int, first: int = 0) -> Iterator[System]:
    """A, b, the state before the step and kappa at its beginning, for every step from `first` on."""
    shape = (points - 1, points - 1)
    laplacian = gallery.poisson(shape, 1.0 / points).tocsr()
    identity = (laplacian.indices == np.repeat(np.arange(laplacian.shape[0]), np.diff(laplacian.indptr))).astype(float)
    x = np.stack(np.meshgrid(*[np.arange(1, points) / points] * 2, indexing="ij"))
    eigenvalues = sum((2.0 * points * np.sin(np.pi * (k + 1) / (2 * points))) ** 2 for k in np.indices(shape))
    u = bump(x, (0.5, 0.5), 0.25)
    for step in range(steps):
        middle = (step + 0.5) * STEP
        half = 0.5 * STEP * kappa(middle)
        angle = 16.0 * np.pi * middle
        f = 32.0 * bump(x, (0.5 + np.cos(angle) / 4.0, 0.5 + np.sin(angle) / 4.0), 0.125)
        image = (1.0 - half * eigenvalues) * dstn(u, type=1) + STEP * dstn(f, type=1)
        if step >= first:
            A = sp.csr_array((identity + half * laplacian.data, laplacian.indices, laplacian.indptr), laplacian.shape)
            yield A, idstn(image, type=1).ravel(), u.ravel(), kappa(step * STEP)
        u = idstn(image / (1.0 + half * eigenvalues), type=1)


def radius(A: sp.csr_array, points: int) -> float:
    """The Jacobi radius, from Fourier analysis."""
    diagonal = float(A.diagonal()[0])
    return (diagonal - 1.0) * np.cos(np.pi / points) / diagonal


def solve(A: sp.csr_array, b: np.ndarray, u: np.ndarray, omega: float | None, maxiter: int | None = None) -> Result:
    """One step; without omega by plain CG."""
    return cg(A, b, u, rtol=RTOL, maxiter=maxiter, M=None if omega is None else SSOR(omega))


def block(points: int, steps: int, first: int) -> dict[str, Any]:
    """The costs of all arms, of plain CG and of omega*(A) for some steps."""
    arms, plain, star, contexts = [], [], [], []
    with threadpool_limits(1):
        for A, b, u, context in systems(points, min(first + BLOCK, steps), first):
            arms.append([solve(A, b, u, omega).iterations for omega in ARMS])
            plain.append(solve(A, b, u, None).iterations)
            star.append(solve(A, b, u, young_omega(radius(A, points))).iterations)
            contexts.append(context)
    return {"first": first, "arms": arms, "cg": plain, "star": star, "contexts": contexts}


def run(kind: str, seed: int, points: int, steps: int) -> dict[str, Any]:
    """A policy that is not bound to the arms, with the time it takes beside that of the solves."""
    (policy, context), (warm, _) = live(kind, seed), live(kind, seed)
    for A, b, u, c in systems(points, 3):  # so that no compiler is timed
        warm.update(solve(A, b, u, warm.suggest(c if context else None, A)).iterations)
    guard = Guard()
    paid: list[float] = []
    learning = solving = 0.0
    with threadpool_limits(1):
        for A, b, u, c in systems(points, steps):
            before, began = policy.products, perf_counter()
            omega = policy.suggest(c if context else None, A)
            learning += perf_counter() - began
            began = perf_counter()
            cost = guard.run(partial(_attempt, A, b, u, omega), partial(_rescue, A, b, u))
            solving += perf_counter() - began
            began = perf_counter()
            policy.update(cost)
            learning += perf_counter() - began
            paid.append(cost + policy.products - before)
    facts = {"products": policy.products, "stopped": guard.stopped}
    return summary(np.array(paid), learning_seconds=learning, solving_seconds=solving, **facts)


def _attempt(A: sp.csr_array, b: np.ndarray, u: np.ndarray, omega: float, limit: float) -> tuple[float, bool]:
    result = solve(A, b, u, omega, None if np.isinf(limit) else int(limit))
    return float(result.iterations), result.converged


def _rescue(A: sp.csr_array, b: np.ndarray, u: np.ndarray) -> float:
    return float(solve(A, b, u, 1.0).iterations)


def live(kind: str, seed: int) -> tuple[Policy, bool]:
    """The policies that are run, and whether they are told the context."""
    if kind == "SpectralOmega":
        return SpectralOmega(), False
    context = kind == "LearnedOmega"
    return LearnedOmega(INTERVAL if context else None, seed=seed), context


def _part(task: tuple[Any, ...], steps: int, seed: int) -> dict[str, Any]:
    points, kind, number = task
    folder = RESULTS / "heat_omega"
    compute: Callable[[], dict[str, Any]]
    if kind == "table":
        return part(folder / f"{points}-{steps}-table-{number:05d}.json", partial(block, points, steps, number))
    short = kind.replace(", ", "-").replace(" ", "-")
    compute = partial(run, kind, 1000 * seed + number, points, steps)
    return part(folder / f"{points}-{steps}-seed{seed}-{short}-{number}.json", compute)


def assemble(points: int, parts: dict[tuple[Any, ...], dict[str, Any]], trials: int, seed: int) -> list[dict[str, Any]]:
    """What each policy paid in each trial at one n_x."""
    blocks = [one for task, one in parts.items() if task[:2] == (points, "table")]
    costs = np.concatenate([np.array(one["arms"], dtype=float) for one in blocks])
    contexts = np.concatenate([one["contexts"] for one in blocks])
    common = {"CG": summary(np.concatenate([one["cg"] for one in blocks]))}
    for omega in (1.0, 1.3, 1.5, 1.75, 1.95):
        common[f"omega = {omega}"] = summary(costs[:, int(np.abs(ARMS - omega).argmin())])
    common["best fixed"] = summary(costs[:, costs.sum(axis=0).argmin()])
    last = {
        "best arm per system": summary(costs.min(axis=1)),
        "omega*(A)": summary(np.concatenate([one["star"] for one in blocks])),
    }
    trialled = []
    for number in range(trials):
        policies = dict(common)
        for name, policy in bandits(INTERVAL, 6, 1000 * seed + number).items():
            policies[name] = summary(replay(policy, costs, contexts))
        policies["SpectralOmega"] = parts[points, "SpectralOmega", 0]
        for name in ("LearnedOmega, no context", "LearnedOmega"):
            policies[name] = parts[points, name, number]
        trialled.append({"policies": policies | last})
    return trialled


def main() -> None:
    """Run what is missing, and write table and plots."""
    options = parser("CG + SSOR in a heat equation", trials=3)
    options.add_argument("--points", type=int, nargs="+", default=[25, 50, 100], help="n_x")
    arguments = options.parse_args()
    steps, trials = arguments.systems, arguments.trials
    tasks: list[tuple[Any, ...]] = []
    for points in arguments.points:
        tasks += [(points, "table", first) for first in range(0, steps, BLOCK)]
        tasks += [(points, "SpectralOmega", 0)]
        tasks += [(points, name, k) for name in ("LearnedOmega", "LearnedOmega, no context") for k in range(trials)]
    with ProcessPoolExecutor(arguments.processes) as pool:
        done = pool.map(partial(_part, steps=steps, seed=arguments.seed), tasks)
        parts = dict(zip(tasks, done, strict=True))
    rows, figures, shares = [], {}, {}
    for points in arguments.points:
        variant = f"n_x = {points}"
        own = collect(assemble(points, parts, trials, arguments.seed), variant)
        rows += own
        figures[str(points)] = curves(own, steps, "best fixed", f"heat equation, n_x = {points}")
        times = [parts[points, "LearnedOmega", k] for k in range(trials)]
        shares[points] = sum(t["learning_seconds"] for t in times) / sum(t["solving_seconds"] for t in times)
    write("heat_omega", rows, figures, steps=steps, seed=arguments.seed, learning_share=shares)
    for points, share in shares.items():
        print(f"n_x = {points}: LearnedOmega takes {100 * share:.2f} % of the time of the solves")


if __name__ == "__main__":
    main()
