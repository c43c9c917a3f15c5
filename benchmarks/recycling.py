"""Recycling in sequences of systems: `gcrodr` against scipy's `gcrotmk`, and deflated CG against CG.

python -m benchmarks.recycling

The numbers beside the times are products with A, or with M where that is what can be counted, over the whole sequence.
"""

from collections.abc import Callable, Sequence

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as sla

from benchmarks.harness import Answer, Entry, main
from solvers import ILU, RecycleSpace, Result, cg, deflated_cg, gallery, gcrodr, gmres_dr, sine_modes

Systems = list[tuple[sp.csr_array, np.ndarray]]


def largest_residual(systems: Systems) -> Callable[[np.ndarray], float]:
    """All solutions, one after the other -> the largest ||b - A x|| / ||b||."""

    def error(x: np.ndarray) -> float:
        parts = np.split(x, len(systems))
        return max(
            float(np.linalg.norm(b - A @ part) / np.linalg.norm(b)) for (A, b), part in zip(systems, parts, strict=True)
        )

    return error


def all_of(results: Sequence[Result]) -> Answer:
    """One answer of the results of a sequence."""
    return Answer(np.concatenate([result.x for result in results]), sum(result.matvecs for result in results))


def scipy_gcrotmk(systems: Systems, preconditioners: list[ILU], rtol: float, carry: bool) -> Answer:
    """GCROT(20, 10), each system by itself or with the vectors of the one before."""
    solutions, count, CU = [], [0], []  # type: ignore[var-annotated]
    for (A, b), M in zip(systems, preconditioners, strict=True):

        def apply(r: np.ndarray, M: ILU = M) -> np.ndarray:
            count[0] += 1
            return M.matvec(r)

        operator = sla.LinearOperator(A.shape, matvec=apply, dtype=float)
        x, _ = sla.gcrotmk(A, b, rtol=rtol, m=20, k=10, M=operator, CU=CU if carry else None, discard_C=True)
        solutions.append(x)
    return Answer(np.concatenate(solutions), count[0])


def waves(drift: float, length: int = 20, rtol: float = 1e-7) -> Entry:
    """Indefinite Helmholtz systems with ILU(0), the same objects for all."""
    stream = gallery.helmholtz_sequence(length=length, shape=(50, 50), wavenumber=10.0, drift=drift, seed=0)
    systems = [(A.tocsr(), b) for A, b, _ in stream]
    preconditioners = [ILU().setup(A) for A, _ in systems]

    def ours(method: Callable[..., Result], space: RecycleSpace | None = None) -> Answer:
        arguments = {"rtol": rtol, "restart": 30, "k": 10, **({} if space is None else {"recycle": space})}
        return all_of([method(A, b, M=M, **arguments) for (A, b), M in zip(systems, preconditioners, strict=True)])

    kind = "independent" if drift == 1.0 else f"{100 * drift:g} % drift"
    return Entry(
        name=f"Helmholtz 50 x 50, {kind}, {length} systems",
        problem=(
            f"-Laplace u - k^2 u = 1, k = 10 (1 + 0.1 g), g a Gaussian random field, {kind}; 50 x 50 interior nodes of "
            f"the unit square, Dirichlet; ILU(0) set up beforehand, the same objects for all peers; rtol {rtol:g}"
        ),
        peers={
            "southwell gcrodr(30, 10), recycled": lambda: ours(gcrodr, RecycleSpace()),
            "southwell gcrodr(30, 10), cold": lambda: ours(gcrodr),
            "southwell gmres_dr(30, 10)": lambda: ours(gmres_dr),
            "scipy gcrotmk(20, 10)": lambda: scipy_gcrotmk(systems, preconditioners, rtol, carry=False),
            "scipy gcrotmk(20, 10), CU carried over": lambda: scipy_gcrotmk(systems, preconditioners, rtol, carry=True),
            "scipy splu, no ILU": lambda: Answer(np.concatenate([sla.splu(A.tocsc()).solve(b) for A, b in systems])),
        },
        error=largest_residual(systems),
        tolerance=rtol * (1 + 1e-6),
        agreement=1e-4,  # the smallest eigenvalue is about a thousandth of the largest
        facts={"unknowns": 2500, "rtol": rtol, "systems": length, "drift": drift},
    )


def darcy(length: int = 10, rtol: float = 1e-8, k: int = 20) -> Entry:
    """Definite systems without a preconditioner: what a deflation space saves CG, and what it costs."""
    shape = (98, 98)
    systems = [(A.tocsr(), b) for A, b, _ in gallery.darcy_sequence(length=length, shape=shape, seed=0)]
    modes = sine_modes(shape, k)

    def recycled() -> Answer:
        space = RecycleSpace()
        return all_of([deflated_cg(A, b, rtol=rtol, deflation=space, k=k, directions=60) for A, b in systems])

    return Entry(
        name=f"Darcy 98 x 98, 5 % drift, {length} systems",
        problem=(
            "-div(a grad u) = 1, a = exp(g), g a Gaussian random field, 5 % drift; 98 x 98 interior nodes of the unit "
            f"square, Dirichlet; no preconditioner; rtol {rtol:g}"
        ),
        peers={
            "southwell cg": lambda: all_of([cg(A, b, rtol=rtol) for A, b in systems]),
            f"southwell deflated_cg, {k} recycled": recycled,
            f"southwell deflated_cg, {k} sine modes": lambda: all_of(
                [deflated_cg(A, b, rtol=rtol, deflation=modes) for A, b in systems]
            ),
        },
        error=largest_residual(systems),
        tolerance=rtol * (1 + 1e-6),
        agreement=1e-4,
        facts={"unknowns": 9604, "rtol": rtol, "systems": length, "drift": 0.05},
    )


def entries() -> list[Entry]:
    """Systems that recycling is for, systems that have little in common, and definite ones."""
    return [waves(0.05), waves(1.0), darcy()]


if __name__ == "__main__":
    main(entries, "recycling")
