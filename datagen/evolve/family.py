"""What all families that evolve in time have in common, whatever integrates them."""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from datagen.family import Family, Sample

Array = NDArray[Any]
MAX_FRAMES, MAX_STEPS = 1_000_000, 100_000_000  # of a sample


class UnstableStep(FloatingPointError):
    """A step is refused before it is taken: longer than the scheme can bear, or so short that it leads nowhere."""


@dataclass(frozen=True)
class Conserved:
    """A density whose mean over the grid does not change in time.

    Attributes
    ----------
    density : ndarray, shape ``(..., *grid)``
        A polynomial of degree 4 or less in the stored fields, or, of shape ``(...)``, what does not change itself.
    tolerance : float
        By how much the scheme may change its mean from the first frame to any other, relative to the mean of
        ``|density|`` in the first: rounding by default. Where the density has differences of the fields in it, more
        than what the rounding of stored fields does to it.
    """

    density: Array
    tolerance: float = 1e-12

    @property
    def drift(self) -> NDArray[np.float64]:
        """``|mean(q_t) - mean(q_0)| / mean |q_0|`` of a density q in frames ``(frames, ...)``, shape ``(frames,)``.

        The scale is the mean of ``|q_0|``, since the mean of q may be zero; the drift of what is zero at first is
        relative to 1.
        """
        means = self.density.mean(axis=tuple(range(1, self.density.ndim)))
        return np.asarray(np.abs(means - means[0]) / self._scale)

    def rounding(self, eps: float) -> NDArray[np.float64]:
        """By how much storing the frames may change their means, relative to the same scale, shape ``(frames,)``.

        Rounding changes a monomial of degree 4 by ``4 eps / 2`` of itself, here and in the first frame.
        """
        sizes = np.abs(self.density).mean(axis=tuple(range(1, self.density.ndim)))
        return np.asarray(2 * eps * (1 + sizes / self._scale))

    @property
    def _scale(self) -> float:
        scale = float(np.mean(np.abs(self.density[0])))
        return scale if scale > 0 else 1.0


class EvolvingFamily(Family):
    """Base of families whose output fields evolve from their input fields; subclasses are frozen dataclasses.

    A sample's data are its initial fields, and whatever else drives it (coefficients, scalars). States have the shape
    ``(channels, *grid)``, one channel an output field in the order declared. A dataset holds `frames` states from time
    0, the initial one, to `final_time`.

    A family gives `initial`, `evolve`, and the fields

        final_time : float    of the last frame, positive
        frames : int          2 or more

    and, where there is something to say, `conserved`, `bounds`, `resolved` and `accuracy`: `southwell-data validate`
    holds every frame to them.
    """

    evolves: ClassVar[bool] = True
    # What the default step may leave, relative to the largest value of a channel: from a frame to the next if
    # validation integrates from each frame (EVOLUTIONS), at any time if from the first (TRAJECTORIES).
    accuracy: ClassVar[float] = 1e-5
    # Who steps in time, as written into the files.
    integrator: ClassVar[str] = "own"
    final_time: float
    frames: int

    @property
    def times(self) -> NDArray[np.float64]:
        """The times of the stored frames, evenly spaced, shape ``(frames,)``."""
        return np.linspace(0.0, self.final_time, self.frames)

    @abstractmethod
    def initial(self, sample: Sample) -> Array:
        """The state at time 0, shape ``(channels, *grid)``."""

    @abstractmethod
    def evolve(self, state: Array, times: Sequence[float], sample: Sample | None = None, solver: Any = None) -> Array:
        """The states at the given times of the solution that starts at time 0.

        Parameters
        ----------
        state : ndarray, shape ``([batch,] channels, *grid)``
            At time 0.
        times : sequence of float
            Increasing, not negative.
        sample : Sample, optional
            Its coefficients and scalars, for families whose equation depends on them.
        solver : optional
            Who steps in time, or solves the systems of implicit steps; by default the family's own.

        Returns
        -------
        ndarray, shape ``([batch,] times, channels, *grid)``

        Raises
        ------
        ValueError
            If the state is not finite or of another shape, or the times do not increase.
        FloatingPointError
            If the solution stops being finite; `UnstableStep` if that is known before.
        """

    def solver(self, arguments: Mapping[str, Any]) -> Any:
        """What `evolve` takes as its solver, from the `solver` entries of a spec (method, rtol, ...).

        None, the family's own, where no linear systems are solved.
        """
        return None

    def resolved(self, state: Array) -> Array:
        """What the scheme represents of a state, which the first frame shows: all of it by default."""
        return state

    def channel(self, states: Array, index: int) -> Array:
        """One channel of states ``(..., channels, *grid)``, shape ``(..., *grid)``."""
        return np.take(states, index, axis=-1 - self.mesh.dimension)

    def conserved(self, states: Array, sample: Sample | None = None) -> Mapping[str, Conserved | Array]:
        """Conserved densities of states ``(..., channels, *grid)`` of a sample, by name; none by default.

        An array alone is a density that is conserved to rounding.
        """
        return {}

    def conservation(self, sample: Sample, states: Array) -> dict[str, Conserved]:
        """What `conserved` says of all frames of a sample, ``(frames, channels, *grid)``."""
        found = self.conserved(states, sample)
        return {name: q if isinstance(q, Conserved) else Conserved(np.asarray(q)) for name, q in found.items()}

    def bounds(self, sample: Sample) -> dict[str, tuple[float, float]]:
        """Lowest and highest value that an output field may take, by its name, with what the scheme may add to them.

        A maximum principle, say. A sample that leaves them fails, and is drawn anew; none by default.
        """
        return {}

    def quality(self, sample: Sample, solution: Mapping[str, Array]) -> dict[str, float]:
        """Range of each output field over all frames, and the largest relative drift of each conserved mean."""
        states = np.stack([np.asarray(solution[f.name], dtype=float) for f in self.role("output")], axis=1)
        numbers = super().quality(sample, solution)
        for name, quantity in self.conservation(sample, states).items():
            numbers[f"{name}_drift"] = float(np.max(quantity.drift))
        return numbers

    def _check_times(self) -> None:
        """Refuse a final time or a number of frames that does not fit, by name."""
        if not (math.isfinite(self.final_time) and self.final_time > 0):
            raise ValueError(f"{self.name}: final_time must be positive and finite, got {self.final_time!r}")
        if not 2 <= self.frames <= MAX_FRAMES:
            raise ValueError(
                f"{self.name}: frames must be at least 2, the first and the last state, and at most {MAX_FRAMES:,}, "
                f"got {self.frames!r}"
            )

    def _check_step(self, step: float, key: str) -> None:
        """Refuse a step with which a sample would take more steps than anybody waits for, by the key that sets it."""
        if self.final_time / step > MAX_STEPS:
            raise ValueError(
                f"{self.name}: {key} gives steps of {step:.3g}, {self.final_time / step:.3g} of them until final_time="
                f"{self.final_time:g}, and at most {MAX_STEPS:,} are taken; make {key} larger or final_time shorter"
            )
