"""All strategies there are, by name."""

from typing import Any

from solvers.sequence.adaptive import Recycling, Relaxation
from solvers.sequence.factors import Direct, LaggedFactors
from solvers.sequence.strategy import Strategy

NAMES = (
    *("multigrid", "amg", "fast-poisson", "direct", "lagged", "gmres", "gcrodr"),
    *("deflated-cg", "ssor-cg", "cg", "minres", "bicgstab"),
)
_TAKE_M = ("cg", "minres", "bicgstab", "gmres", "gcrodr", "deflated-cg")


def strategies(M: Any, cost: str, seed: int) -> dict[str, Strategy]:
    """All there are, by name; with an M of the user's those that take one."""
    factors = Direct("direct")
    special: dict[str, Strategy] = {
        "direct": factors,
        "lagged": LaggedFactors("lagged", factors, cost),
        "gcrodr": Recycling("gcrodr", M),
        "deflated-cg": Recycling("deflated-cg", M),
        "ssor-cg": Relaxation("ssor-cg", None, seed),
    }
    names = NAMES if M is None else _TAKE_M
    return {name: special[name] if name in special else Strategy(name, M) for name in names}
