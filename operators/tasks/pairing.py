"""Which frames of a trajectory are learned from: pairs of an earlier and a later one, or chains of equal steps."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solvers.registry import near_names

PAIRINGS = ("all2all", "one_step", "from_initial")


@dataclass(frozen=True)
class Pairing:
    r"""Chains of frames of one trajectory; a chain of one step is a pair.

    Of the K snapshots ``0, stride, 2 stride, ...`` (the first `frames` of them), the transition ``d >= 0`` from the
    snapshot ``i`` makes the chain ``i, i + d, ..., i + steps d``, as far as there are snapshots:

    - "all2all": every i and every d. One step: ``K (K + 1) / 2`` pairs, those of lead time 0 among them. An evolution
      without memory obeys ``S(t + s) = S(t) S(s)`` and ``S(0) = 1``, so that all pairs are examples of one operator
      (Herde et al., Poseidon, NeurIPS 2024, section 2). Several steps: d > 0.
    - "one_step": d = 1. One step: ``K - 1`` pairs.
    - "from_initial": i = start, d > 0. One step: ``K - 1 - start`` pairs.

    `transitions` keeps only those d.

    Parameters
    ----------
    times : sequence of float
        Of all frames of the trajectory, increasing.
    kind : {"all2all", "one_step", "from_initial"}
    stride : int
        Frames from a snapshot to the next.
    frames : int, optional
        How many snapshots; all there are if left out.
    start : int
        The snapshot that "from_initial" starts from.
    transitions : sequence of int, optional
        Allowed numbers of snapshots from one end of a step to the other.
    steps : int
        Of a chain.

    Raises
    ------
    ValueError
        If a value is out of range, no chain is left, or steps should be equal and the times are not evenly spaced.

    Examples
    --------
    >>> Pairing(range(21), "all2all", stride=2).chains.shape  # 11 snapshots
    (66, 2)
    >>> Pairing(range(4), "one_step").chains.tolist()
    [[0, 1], [1, 2], [2, 3]]
    >>> Pairing(range(5), "all2all", transitions=[1, 2], steps=2).chains.tolist()
    [[0, 1, 2], [0, 2, 4], [1, 2, 3], [2, 3, 4]]
    """

    times: Sequence[float]
    kind: str = "all2all"
    stride: int = 1
    frames: int | None = None
    start: int = 0
    transitions: Sequence[int] | None = None
    steps: int = 1

    def __post_init__(self) -> None:
        if self.kind not in PAIRINGS:
            raise ValueError(f"unknown pairing {self.kind!r}. {near_names(str(self.kind), list(PAIRINGS))}")
        if self.stride < 1 or self.steps < 1:
            raise ValueError(f"stride and steps must be at least 1, got stride {self.stride} and steps {self.steps}")
        there = len(range(0, len(self.times), self.stride))
        if there < 2:
            raise ValueError(f"no pair is left of {len(self.times)} frames with stride {self.stride}")
        if self.frames is not None and not 2 <= self.frames <= there:
            raise ValueError(
                f"frames must be from 2 to the {there} snapshots that {len(self.times)} frames have with stride "
                f"{self.stride}, got {self.frames}"
            )
        if self.start and self.kind != "from_initial":
            raise ValueError(f"start={self.start} is for pairing from_initial; got pairing {self.kind}")
        if self.transitions is not None and (self.kind == "one_step" or min(self.transitions, default=-1) < 0):
            raise ValueError(
                "transitions must be numbers of snapshots that are not negative, and pairing one_step has its own; got "
                f"{list(self.transitions)} with pairing {self.kind}"
            )
        if not 0 <= self.start < len(self.snapshots) or not len(self.chains):
            raise ValueError(
                f"no chain of {self.steps} steps is left of {len(self.snapshots)} snapshots with pairing {self.kind}, "
                f"start {self.start} and transitions {'any' if self.transitions is None else list(self.transitions)}"
            )
        if self.steps > 1 and not self.even:
            raise ValueError(f"steps={self.steps} needs evenly spaced times, got {list(self.times)}")

    @property
    def snapshots(self) -> NDArray[np.int64]:
        """The frames that take part."""
        return np.arange(0, len(self.times), self.stride)[: self.frames]

    @property
    def chains(self) -> NDArray[np.int64]:
        """Frames of each chain, shape (chains, steps + 1), ordered by the first frame and then by the step."""
        count = len(self.snapshots)
        least = 0 if self.kind == "all2all" and self.steps == 1 else 1
        allowed = [1] if self.kind == "one_step" else range(least, count)
        wanted = [d for d in allowed if d >= least and (self.transitions is None or d in self.transitions)]
        firsts = [self.start] if self.kind == "from_initial" else range(count)
        found = [
            [i + step * d for step in range(self.steps + 1)]
            for i in firsts
            for d in wanted
            if i + self.steps * d < count
        ]
        return self.snapshots[np.array(found, dtype=np.int64).reshape(-1, self.steps + 1)]

    @property
    def lead_times(self) -> NDArray[np.float64]:
        """Physical time of one step of each chain, shape (chains,)."""
        times, chains = np.asarray(self.times, dtype=float), self.chains
        return times[chains[:, 1]] - times[chains[:, 0]]

    @property
    def even(self) -> bool:
        """Whether the snapshots are evenly spaced in time (to rounding of stored times)."""
        gaps = np.diff(np.asarray(self.times, dtype=float)[self.snapshots])
        return bool(np.ptp(gaps) <= 1e-5 * gaps.max())

    @property
    def spacing(self) -> float:
        """Physical time from the first snapshot to the second."""
        first, second = self.snapshots[:2]
        return float(self.times[second]) - float(self.times[first])
