"""Who solves the systems of implicit time steps: the default against CG, `solve` and `SequenceSolver`.

python -m benchmarks.time_steps
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.harness import Answer, Entry, main
from datagen.evolve.implicit import StepSolver
from datagen.evolve.implicit_family import ImplicitFamily
from datagen.evolve.work import counted
from datagen.pdes.heat import Heat
from datagen.pdes.wave import Wave
from solvers import SequenceSolver

RTOL = 1e-10


def trajectory(name: str, family: ImplicitFamily, share: int) -> Entry:
    """The first part of one trajectory, one over `share` of its time."""
    sample = family.sample(np.random.default_rng(1))
    start, times = family.initial(sample), family.times[: 1 + (family.frames - 1) // share]

    def states(solver: Any) -> Answer:
        with counted() as work:
            x = family.evolve(start, times, sample, solver)
        return Answer(x.ravel(), work.iterations)

    reference = states({"rtol": 1e-11}).x
    scale = float(np.max(np.abs(reference)))
    with counted() as work:
        family.evolve(start, times, sample)
    return Entry(
        name=name,
        problem=f"{family.title}, {family.parameters()}, one sample, t to {times[-1]:g}, systems to rtol {RTOL:g}",
        peers={
            "the default": lambda: states(StepSolver(RTOL)),
            "cg": lambda: states({"method": "cg", "rtol": RTOL}),
            "solve": lambda: states({"rtol": RTOL}),
            "SequenceSolver, work": lambda: states(SequenceSolver(rtol=RTOL, cost="work")),
            "SequenceSolver, seconds": lambda: states(SequenceSolver(rtol=RTOL)),
        },
        error=lambda x: float(np.max(np.abs(x - reference))) / scale,
        tolerance=1e-6,
        agreement=1e-6,
        facts={"unknowns": family.mesh.size, "steps": work.steps, "solves": work.solves, "rtol": RTOL},
    )


def _wave(grid: int, dimension: int) -> Wave:
    """With steps twice as long as the family's default."""
    return Wave(grid, dimension, start="plucked", pulse_width=0.05, courant=0.7)


def entries() -> Sequence[Entry]:
    """Heat, mild and stiff, and waves, at two resolutions."""
    cases: list[Entry] = []
    for n, share in ((64, 1), (256, 4)):
        cases += [
            trajectory(f"heat {n}^2", Heat(n), share),
            trajectory(f"heat {n}^2, kappa constant", Heat(n, kappa="constant"), share),
            trajectory(f"heat {n}^2, kappa switching", Heat(n, kappa="switching"), share),
            trajectory(f"heat {n}^2, a constant", Heat(n, coefficient="constant"), share),
            trajectory(f"heat {n}^2, stiff", Heat(n, diffusivity=0.1, log_standard_deviation=1.0), share),
            trajectory(f"wave {n}^2", _wave(n + 1, 2), share),
        ]
    return [*cases, trajectory("heat 32^3", Heat(32, 3), 2), trajectory("wave 33^3", _wave(33, 3), 1)]


if __name__ == "__main__":
    main(entries, "time_steps")
