"""SOR on shifted Laplacians: the experiment of Khodak et al., Learning to relax (arXiv 2310.02246), section 4.

    python -m benchmarks.shifted_laplacian --processes 2

A_t = A + c_t I with the 5-point Laplacian A on 10 x 10 points (diagonal 4), c_t = -0.15 + 0.6 Beta(2, 6) (low variance)
or Beta(1/2, 3/2) (high variance); b_t standard normal, drawn again until ||b|| <= sqrt(100); x_0 = 0. The cost is the
number of sweeps after which ||r|| <= 1e-8 ||b||, at most 10,000. Contexts are the c_t, learners are told [-0.15, 0.65].

For each trial all arms are run on all systems once, and the policies that choose from them are replayed on that table;
the others are run. Partial results, one a trial, are in results/shifted_laplacian/; the same command goes on from them.
"""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp
from numba import njit

from benchmarks.harness import RESULTS
from benchmarks.tuning import ARMS, bandits, collect, curves, parser, part, replay, summary, write
from solvers import cg, gallery
from solvers.stationary.lexicographic import SortedRows, _sweep
from solvers.tuning import Guard, LearnedOmega, Policy, SpectralOmega, best_fixed, best_per_instance, young_omega

VARIANCES = {"low variance": (2.0, 6.0), "high variance": (0.5, 1.5)}
INTERVAL = (-0.15, 0.65)
SIDE = 10
RTOL, MAXITER = 1e-8, 10_000
LAPLACIAN = gallery.poisson((SIDE, SIDE)).tocsr()
ROWS = SortedRows(LAPLACIAN)


@njit(nogil=True)  # not cached, as in benchmarks.harness
def _counts(indptr, diagonal, indices, data, shifts, b, omegas, rtol, most, counts):  # type: ignore[no-untyped-def]
    """Sweeps to the tolerance for every system and factor; `most` where they do not suffice.

    A sweep finds the residual before it, so the one that finds it small enough is not counted.
    """
    shifted = data.copy()
    x, lower = np.empty(b.shape[1]), np.empty(b.shape[1])
    for t in range(shifts.size):
        for i in range(diagonal.size):
            shifted[diagonal[i]] = data[diagonal[i]] + shifts[t]
        for a in range(omegas.shape[1]):
            x[:] = 0.0
            lower[:] = 0.0
            target = _sweep(indptr, diagonal, indices, shifted, b[t], omegas[t, a], x, lower) * rtol * rtol
            sweeps = 1
            while sweeps < most:
                if _sweep(indptr, diagonal, indices, shifted, b[t], omegas[t, a], x, lower) <= target:
                    break
                sweeps += 1
            counts[t, a] = sweeps


def sweeps(shifts: np.ndarray, b: np.ndarray, omegas: np.ndarray, most: int = MAXITER) -> np.ndarray:
    """Costs of systems (systems,), (systems, n) with factors (systems, arms), shape (systems, arms)."""
    counts = np.empty(omegas.shape, dtype=np.int64)
    _counts(ROWS.indptr, ROWS.diagonal, ROWS.indices, ROWS.data, shifts, b, omegas, RTOL, most, counts)
    return counts


def draw(systems: int, variance: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Shifts (systems,) and right-hand sides (systems, n)."""
    shifts = -0.15 + 0.6 * rng.beta(*VARIANCES[variance], size=systems)
    b = rng.standard_normal((systems, SIDE * SIDE))
    while (outside := np.linalg.norm(b, axis=1) > SIDE).any():
        b[outside] = rng.standard_normal((int(outside.sum()), SIDE * SIDE))
    return shifts, b


def shifted(shift: float) -> sp.csr_array:
    """A + shift I."""
    data = LAPLACIAN.data.copy()
    data[ROWS.diagonal.astype(np.intp)] += shift
    return sp.csr_array((data, LAPLACIAN.indices, LAPLACIAN.indptr), shape=LAPLACIAN.shape)


def run(policy: Policy, shifts: np.ndarray, b: np.ndarray, context: bool = True) -> dict[str, Any]:
    """A policy that is not bound to the arms; products are charged as sweeps, stopped solves are finished by cg."""
    paid = np.empty(len(shifts))
    guard = Guard()
    for t, shift in enumerate(shifts):
        A, before = shifted(shift), policy.products
        omega = policy.suggest(float(shift) if context else None, A)
        cost = guard.run(partial(_attempt, shift, b[t], omega), partial(_rescue, A, b[t]))
        policy.update(cost)
        paid[t] = cost + policy.products - before
    return summary(paid, products=policy.products, stopped=guard.stopped)


def _attempt(shift: float, b: np.ndarray, omega: float, limit: float) -> tuple[float, bool]:
    most = int(min(limit, MAXITER))
    # One sweep more than may be charged: whether it was needed tells a stopped solve from a finished one.
    cost = int(sweeps(np.array([shift]), b[None], np.array([[omega]]), most + 1)[0, 0])
    return (float(cost), True) if cost <= most else (float(most), False)


def _rescue(A: sp.csr_array, b: np.ndarray) -> float:
    return float(cg(A, b, rtol=RTOL).iterations)


def trial(variance: str, number: int, systems: int, seed: int) -> dict[str, Any]:
    """All policies on the same draws."""
    place = list(VARIANCES).index(variance)
    shifts, b = draw(systems, variance, np.random.default_rng([seed, place, number]))
    costs = sweeps(shifts, b, np.broadcast_to(ARMS, (systems, ARMS.size)).copy())
    policies: dict[str, Any] = {}
    for omega in (1.0, 1.2, 1.4, 1.6, 1.8):
        policies[f"omega = {omega}"] = summary(costs[:, int(np.abs(ARMS - omega).argmin())])
    arm, _ = best_fixed(costs)
    policies["best fixed"] = summary(costs[:, arm], omega=float(ARMS[arm]))
    seeds = 1000 * seed + number
    for name, policy in bandits(INTERVAL, 5, seeds).items():
        policies[name] = summary(replay(policy, costs, shifts))
    policies["SpectralOmega"] = run(SpectralOmega(), shifts, b, context=False)
    policies["LearnedOmega, no context"] = run(LearnedOmega(None, seed=seeds), shifts, b, context=False)
    policies["LearnedOmega"] = run(LearnedOmega(INTERVAL, seed=seeds), shifts, b)
    best = costs.min(axis=1)
    assert best.sum() == best_per_instance(costs)
    policies["best arm per system"] = summary(best)
    radii = 4.0 * np.cos(np.pi / (SIDE + 1)) / (4.0 + shifts)
    star = np.array([[young_omega(mu)] for mu in radii])
    policies["omega*(A)"] = summary(sweeps(shifts, b, star)[:, 0])
    return {"variance": variance, "trial": number, "systems": systems, "seed": seed, "policies": policies}


def _part(task: tuple[str, int], systems: int, seed: int) -> dict[str, Any]:
    variance, number = task
    name = f"{variance.split()[0]}-{systems}-seed{seed}-{number:02d}.json"
    compute: Callable[[], dict[str, Any]] = partial(trial, variance, number, systems, seed)
    return part(RESULTS / "shifted_laplacian" / name, compute)


def main() -> None:
    """Run what is missing, and write table and plots."""
    options = parser("SOR on shifted Laplacians", trials=20).parse_args()
    tasks = [(variance, number) for number in range(options.trials) for variance in VARIANCES]
    with ProcessPoolExecutor(options.processes) as pool:
        parts = list(pool.map(partial(_part, systems=options.systems, seed=options.seed), tasks))
    rows, figures = [], {}
    for variance in VARIANCES:
        own = collect([one for one in parts if one["variance"] == variance], variance)
        rows += own
        label = variance.split()[0]
        fixed = "omega = 1.6" if label == "low" else "omega = 1.8"
        figures[label] = curves(own, options.systems, fixed, f"shifted Laplacian, {variance}")
    write("shifted_laplacian", rows, figures, systems=options.systems, seed=options.seed)


if __name__ == "__main__":
    main()
