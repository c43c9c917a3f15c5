"""Checks of stored evolutions, for `datagen.validate`: frames against the equation, what it conserves, and its bounds.

**The bound.** A chosen sample is integrated again, from each stored frame to the next, by scipy's DOP853 with an
independently written right-hand side (`datagen.evolution_schemes`). The stored frame was reached from a state that
differs from the one stored by its rounding, ``eps/2`` of the stored precision, by steps that may leave the family's
`accuracy`, and was rounded itself. So

    |stored - again| <= A (accuracy + 4 eps) max |u|

in each channel, the maximum that of the frame started from or of the result. A, 1 or more, is what is left at the end
of the interval of a difference at its beginning: where A = 1 does not do, it is measured by a second solution from a
start moved by a millionth, up or down at random at each point. In chaos A is large where frames lie far apart; an
interval whose bound exceeds a tenth is not compared, and a note says so. All intervals together are the whole
trajectory: the first frame is compared with the stored initial field. Of families whose independent scheme steps by
itself (`TRAJECTORIES`), the whole evolution is made again from the stored inputs, and compared in each frame with the
bound for A = 1, the maximum that of all frames. Where such a scheme can start from any frame (`RESTARTS`), it goes from
each to the next, and A is measured as above.

**Frames that repeat.** A frame that is equal to an earlier one, or constant in space where the one before is not, is
suspect, chosen or not: a solution at rest repeats itself to rounding, a copied frame does too. The equation decides:
where ``|du/dt|`` times the interval is below the rounding the repetition is right, otherwise the interval is integrated
again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import solve_ivp

from datagen.evolution_schemes import (
    EVOLUTIONS,
    FRAME_CHECKS,
    RESTARTS,
    TRAJECTORIES,
    RightHandSide,
    independent_right_hand_side,
    independent_start,
)
from datagen.evolve.family import EvolvingFamily
from datagen.family import Sample

Array = NDArray[Any]

_PERTURBATION = 1e-6
_TOLERANCE = 1e-9  # of DOP853: a thousandth of the perturbation, and far below every accuracy
_MOST_EVALUATIONS = 200_000
_CHUNK = 1 << 16  # values integrated side by side
_LOOSEST = 0.1
_MOST_REPEATS = 20  # frames that repeat others, integrated again at most


class EvolutionCheck:
    """The checks of one dataset's evolutions, sample by sample, and what only all samples together show.

    Attributes
    ----------
    worst : float
        Largest ratio of a difference to its bound, over all intervals that were integrated again.
    """

    def __init__(self, family: EvolvingFamily) -> None:
        self.family = family
        self.known = any(type(family) in schemes for schemes in (EVOLUTIONS, TRAJECTORIES, RESTARTS))
        self.worst = 0.0
        self._moving: set[str] = set()
        self._repeats = self._unjudged = self._too_far = self._unfinished = 0

    def check(self, sample: Sample, solution: Mapping[str, Array], records: Mapping[str, float]) -> Iterator[str]:
        """Faults of one sample's frames; nothing is integrated but what leads to frames that repeat others."""
        self._moving |= {name for name, frames in solution.items() if np.any(frames != frames[0])}
        yield from frame_faults(self.family, sample, solution, records)
        if type(self.family) in FRAME_CHECKS:
            yield from FRAME_CHECKS[type(self.family)](self.family, sample, solution)
        states, eps = _states(self.family, solution)
        for frame, how in repeated_frames(solution).items():
            repeats_the_last = np.array_equal(states[frame], states[frame - 1])
            if repeats_the_last and at_rest(self.family, sample, states[frame], frame, eps):
                continue
            if not self.known or self._repeats >= _MOST_REPEATS:
                self._unjudged += 1
                continue
            self._repeats += 1
            for fault in self._compare(sample, states, [frame - 1], eps):
                yield f"frame {frame} {how}, and the equation says otherwise: {fault}"

    def integrate_again(self, sample: Sample, solution: Mapping[str, Array]) -> Iterator[str]:
        """Faults of one sample's frames that integrating from each to the next shows."""
        states, eps = _states(self.family, solution)
        if self.known and np.isfinite(states).all():
            yield from self._compare(sample, states, range(len(states) - 1), eps)

    def _compare(self, sample: Sample, states: Array, frames: Sequence[int], eps: float) -> list[str]:
        if type(self.family) in TRAJECTORIES:
            found = compare_trajectory(self.family, sample, states, eps)
        elif type(self.family) in RESTARTS:
            found = compare_restarts(self.family, sample, states, frames, eps)
        else:
            found = compare_intervals(self.family, sample, states, np.array(frames), eps)
        self.worst = max(self.worst, found.worst)
        self._too_far += found.too_far
        self._unfinished += found.unfinished
        return found.faults

    def nothing_evolves(self) -> list[str]:
        """Output fields that no sample moves."""
        still = [f.name for f in self.family.role("output") if f.name not in self._moving]
        return [f"output {name!r} is the same in all frames of every sample, though it is to evolve" for name in still]

    def notes(self) -> list[str]:
        """What could not be checked, and why."""
        notes = [] if self.known else [f"no independent scheme for {self.family.name!r}: nothing was integrated again"]
        for number, why in (
            (self._unjudged, "frames that repeat others or are constant in space were not checked"),
            (self._too_far, "intervals were not compared: errors grow too much from one frame to the next"),
            (self._unfinished, "intervals were not compared: they are too stiff to be integrated explicitly"),
        ):
            notes += [f"{number:,} {why}"] * (number > 0)
        return notes


def _states(family: EvolvingFamily, solution: Mapping[str, Array]) -> tuple[Array, float]:
    """Stored frames as states ``(frames, channels, *grid)`` in double precision, and the eps of the stored one."""
    arrays = [np.asarray(solution[f.name]) for f in family.role("output")]
    eps = float(np.finfo(arrays[0].dtype).eps)
    return np.stack(arrays, axis=1).astype(np.float64), eps


def frame_faults(
    family: EvolvingFamily, sample: Sample, solution: Mapping[str, Array], records: Mapping[str, float]
) -> Iterator[str]:
    """What is wrong with the stored frames of one sample, as far as no integration is needed to see it."""
    outputs = family.role("output")
    states, eps = _states(family, solution)
    start = independent_start(family, family.initial(sample))
    allowed = eps / 2 * abs(start) + 1e-13 * np.max(abs(start))
    for channel, output in enumerate(outputs):
        off = float(np.max(abs(states[0, channel] - start[channel]) - allowed[channel]))
        if off > 0:
            yield f"the first frame of {output.name!r} is not the stored initial field: {off:.3g} beyond rounding"
    for name, quantity in family.conservation(sample, states).items():
        bound, drift = quantity.tolerance + quantity.rounding(eps), quantity.drift
        worst = int(np.argmax(drift / bound))
        if not drift[worst] <= bound[worst]:
            yield (
                f"the mean of {name} in frame {worst} differs from that of the first by {drift[worst]:.3g}, relative, "
                f"and may by {bound[worst]:.3g}"
            )
        recorded = records.get(f"quality/{name}_drift", 0.0)
        if not recorded <= quantity.tolerance:
            yield f"its recorded drift of {name}, {recorded:.3g}, exceeds the tolerance {quantity.tolerance:g}"
    bounds = family.bounds(sample)
    for channel, output in enumerate(outputs):
        low, high = bounds.get(output.name, (-np.inf, np.inf))
        found = float(states[:, channel].min()), float(states[:, channel].max())
        slack = eps * max(abs(found[0]), abs(found[1]))
        if found[0] < low - slack or found[1] > high + slack:
            yield f"{output.name!r} reaches from {found[0]:.4g} to {found[1]:.4g}, beyond {low:.4g} to {high:.4g}"


def repeated_frames(solution: Mapping[str, Array]) -> dict[int, str]:
    """Frames that look like another, or like nothing: ``{frame: how}``."""
    arrays = list(solution.values())
    found: dict[int, str] = {}
    seen: dict[bytes, int] = {}
    constant_before = True
    for k in range(len(arrays[0])):
        content = b"".join(array[k].tobytes() for array in arrays)
        first = seen.setdefault(content, k)
        constant = any(float(np.ptp(array[k])) == 0 for array in arrays)
        if first < k:
            found[k] = f"repeats frame {first}"
        elif constant and not constant_before:
            found[k] = "is constant in space"
        constant_before = constant
    return found


def at_rest(family: EvolvingFamily, sample: Sample, state: Array, frame: int, eps: float) -> bool:
    """Whether the equation itself says that nothing visible has happened to a state in the interval before a frame."""
    change = independent_right_hand_side(family, sample)
    if change is None:
        return False
    begin, end = family.times[frame - 1 : frame + 1]
    moved = (end - begin) * change(np.array([begin]), state[None])[0]
    size = np.max(abs(state), axis=tuple(range(1, state.ndim)), keepdims=True)
    return bool(np.all(abs(moved) <= 8 * eps * size))


@dataclass
class Comparison:
    """What integrating intervals again has found.

    Attributes
    ----------
    worst : float
        Largest ratio of a difference to its bound.
    faults : list of str
    too_far : int
        Intervals whose ends lie too far apart to compare.
    unfinished : int
        Intervals that DOP853 could not follow within its number of evaluations.
    """

    worst: float = 0.0
    faults: list[str] = field(default_factory=list)
    too_far: int = 0
    unfinished: int = 0


class _NotFollowed(Exception):
    """DOP853 gave up, or took too many evaluations."""


def compare_trajectory(family: EvolvingFamily, sample: Sample, states: Array, eps: float) -> Comparison:
    """Evolve again from the stored inputs, and compare all frames; arguments as of `compare_intervals`."""
    comparison = Comparison()
    try:
        again = TRAJECTORIES[type(family)](family, sample, list(family.times))
    except FloatingPointError as error:
        comparison.faults.append(f"its inputs cannot be evolved again: {error}")
        return comparison
    differences = _channel_maximum(states - again)
    bounds = (family.accuracy + 4 * eps) * np.max(_channel_maximum(again), axis=0) + np.finfo(float).tiny
    comparison.worst = float(np.max(differences / bounds))
    for frame, channel in np.argwhere(differences > bounds):
        comparison.faults.append(
            f"frame {frame} of {family.role('output')[channel].name!r} is not where the equation leads: it differs by "
            f"{differences[frame, channel]:.3g}, and may by {bounds[channel]:.3g}"
        )
    return comparison


def compare_restarts(
    family: EvolvingFamily, sample: Sample, states: Array, intervals: Sequence[int], eps: float
) -> Comparison:
    """Go from frames to the next ones by a scheme that steps by itself; arguments as of `compare_intervals`."""
    comparison, advance = Comparison(), RESTARTS[type(family)](family, sample)
    for k in intervals:
        begin, end = (float(t) for t in family.times[k : k + 2])
        try:
            again = advance(states[k], begin, end)[None]
            differences = _channel_maximum(states[k + 1][None] - again)[0]
            sizes = np.maximum(_channel_maximum(states[k][None]), _channel_maximum(again))[0] + np.finfo(float).tiny
            relative = family.accuracy + 4 * eps
            if np.any(differences > relative * sizes):
                size, signs = _perturbation(states[k][None])
                moved = advance(states[k] + (size * signs)[0], begin, end)
                relative *= max(1.0, float(np.max(abs(moved - again) / size)))
        except FloatingPointError as error:
            comparison.faults.append(f"frame {k} leads to no frame {k + 1}: {error}")
            continue
        if relative > _LOOSEST:
            comparison.too_far += 1
            continue
        comparison.worst = max(comparison.worst, float(np.max(differences / (relative * sizes))))
        for channel in np.flatnonzero(differences > relative * sizes):
            comparison.faults.append(
                f"frame {k + 1} of {family.role('output')[channel].name!r} is not where the equation leads from frame "
                f"{k}: it differs by {differences[channel]:.3g}, and may by {relative * sizes[channel]:.3g}"
            )
    return comparison


def compare_intervals(
    family: EvolvingFamily, sample: Sample, states: Array, intervals: NDArray[np.int64], eps: float
) -> Comparison:
    """Integrate from frames to the next ones, and compare.

    Parameters
    ----------
    family : EvolvingFamily
        With an independent right-hand side.
    sample : Sample
        As stored.
    states : ndarray, shape ``(frames, channels, *grid)``
        As stored, in double precision.
    intervals : ndarray of int
        The frames to start from.
    eps : float
        Of the stored precision.
    """
    change = independent_right_hand_side(family, sample)
    assert change is not None
    comparison = Comparison()
    together = max(1, _CHUNK // states[0].size)
    chunks = [intervals[i : i + together] for i in range(0, len(intervals), together)]
    while chunks:
        chunk = chunks.pop(0)
        starts = states[chunk]
        try:
            again = _integrate(change, family.times, chunk, starts)
            differences = _channel_maximum(states[chunk + 1] - again)
            sizes = np.maximum(_channel_maximum(starts), _channel_maximum(again)) + np.finfo(float).tiny
            relative = np.full((len(chunk), 1), family.accuracy + 4 * eps)
            doubtful = np.flatnonzero(np.any(differences > relative * sizes, axis=1))
            if doubtful.size:
                relative[doubtful, 0] *= _growth(
                    change, family.times, chunk[doubtful], starts[doubtful], again[doubtful]
                )
        except _NotFollowed:
            if len(chunk) == 1:
                comparison.unfinished += 1
            else:  # one of them may hold the others up
                chunks = [chunk[i : i + 1] for i in range(len(chunk))] + chunks
            continue
        comparable = relative[:, 0] <= _LOOSEST
        comparison.too_far += int(np.sum(~comparable))
        bounds = relative * sizes
        for row, channel in np.argwhere((differences > bounds) & comparable[:, None]):
            comparison.faults.append(
                f"frame {chunk[row] + 1} of {family.role('output')[channel].name!r} is not where the equation leads "
                f"from frame {chunk[row]}: it differs by {differences[row, channel]:.3g}, and may by "
                f"{bounds[row, channel]:.3g}"
            )
        ratios = (differences / bounds)[comparable]
        comparison.worst = max(comparison.worst, float(ratios.max(initial=0.0)))
    return comparison


def _channel_maximum(states: Array) -> Array:
    """``max |u|`` over the grid, of states ``(batch, channels, *grid)``."""
    return np.max(abs(states), axis=tuple(range(2, states.ndim)))


def _integrate(change: RightHandSide, times: NDArray[np.float64], frames: NDArray[np.int64], starts: Array) -> Array:
    """The states one interval after the times of the given frames."""
    evaluations = 0

    def rhs(t: float, flat: Array) -> Array:
        nonlocal evaluations
        evaluations += 1
        if evaluations > _MOST_EVALUATIONS or not np.isfinite(flat).all():
            raise _NotFollowed
        return change(times[frames] + t, flat.reshape(starts.shape)).ravel()

    duration = float(times[frames[0] + 1] - times[frames[0]])
    size = np.max(abs(starts), axis=tuple(range(1, starts.ndim)), keepdims=True)
    absolute = np.broadcast_to(_TOLERANCE * size + np.finfo(float).tiny, starts.shape).ravel()
    with np.errstate(all="ignore"):
        solved = solve_ivp(rhs, (0, duration), starts.ravel(), "DOP853", [duration], rtol=_TOLERANCE, atol=absolute)
    if not solved.success or not np.isfinite(solved.y).all():
        raise _NotFollowed
    return solved.y[:, -1].reshape(starts.shape)


def _growth(
    change: RightHandSide, times: NDArray[np.float64], frames: NDArray[np.int64], starts: Array, ends: Array
) -> NDArray[np.float64]:
    """By how much a perturbation of each start has grown at its end, relative to the channels; at least 1."""
    size, signs = _perturbation(starts)
    moved = _integrate(change, times, frames, starts + size * signs)
    return np.maximum(1.0, np.max(abs(moved - ends) / size, axis=tuple(range(1, starts.ndim))))


def _perturbation(starts: Array) -> tuple[Array, Array]:
    """Sizes, by channel, and random signs of what starts ``(batch, channels, *grid)`` are moved by."""
    size = _PERTURBATION * np.max(abs(starts), axis=tuple(range(2, starts.ndim)), keepdims=True)
    size = np.where(size > 0, size, np.maximum(np.max(size, axis=1, keepdims=True), np.finfo(float).tiny))
    return size, np.random.default_rng(0).choice([-1.0, 1.0], starts.shape[1:])
