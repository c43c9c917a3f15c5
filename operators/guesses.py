"""What `operators.hybrid` and `operators.hybrid_steps` share: inputs of a model, first guesses, and counted work."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datagen.evolve.family import EvolvingFamily
from datagen.family import Family, LinearSystem, Sample
from datagen.interchange.samples import INITIAL
from solvers import Result

Array = NDArray[Any]


@dataclass
class Work:
    """What some solves took together.

    Parameters
    ----------
    solves, iterations, matvecs : int
    seconds : float
        Wall time, set-up of preconditioners included.
    """

    solves: int = 0
    iterations: int = 0
    matvecs: int = 0
    seconds: float = 0.0

    def run(self, solve: Callable[[], Result]) -> Result:
        """Do one, and count it."""
        began = time.perf_counter()
        result = solve()
        self.seconds += time.perf_counter() - began
        self.solves += 1
        self.iterations += result.iterations
        self.matvecs += result.matvecs
        return result


def first_guess(system: LinearSystem, u: Array, w: Array | None = None) -> tuple[Array, float]:
    """The point ``x0 = w + s (u - w)`` of least energy of the error, and s.

    Parameters
    ----------
    system : LinearSystem
        Symmetric positive definite.
    u : ndarray, shape (n,)
        A prediction. One that is not finite, or no other than w, gives ``s = 0``.
    w : ndarray, shape (n,), optional
        The guess that there would be without it; zero if left out.
    """
    base = np.zeros_like(u) if w is None else w
    if not np.isfinite(u).all():
        return np.zeros(len(u)) if w is None else w, 0.0
    way = u - base
    residual = system.b if w is None else system.b - system.A @ w
    with np.errstate(over="ignore", invalid="ignore"):
        energy = float(np.vdot(way, system.A @ way).real)
        s = float(np.vdot(way, residual).real) / energy if energy > 0 else 0.0
        guess = base + s * way
    return (guess, s) if np.isfinite(guess).all() else (base, 0.0)


def input_fields(model: Any, family: Family, sample: Sample, state: Array | None = None) -> Array:
    """The input channels of a model for a sample of a family, ``(input channels, *grid)``.

    Parameters
    ----------
    model : Any
        With `inputs` and `outputs` as a Predictor has them, which are compared with the family's by name; without, the
        input fields are given in the family's order.
    family : Family
    sample : Sample
    state : ndarray, shape (output channels, *grid), optional
        Of what evolves, at the time from which to predict; the initial one if left out.

    Raises
    ------
    ValueError
        If the model predicts other fields than the family has, or needs one that it has not.
    """
    outputs = [f.name for f in family.role("output")]
    theirs = [channel.name for channel in getattr(model, "outputs", [])] or outputs
    if theirs != outputs:
        raise ValueError(
            f"the model predicts {', '.join(theirs)}, and family {family.name} has {', '.join(outputs)}: it was "
            "trained on another family"
        )
    known: dict[str, Any] = {**sample.scalars, **sample.fields}
    if isinstance(family, EvolvingFamily):
        current = family.initial(sample) if state is None else state
        for number, name in enumerate(outputs):
            known[name] = known[INITIAL + name] = current[number]
    names = [channel.name for channel in getattr(model, "inputs", [])] or [f.name for f in family.role("input")]
    lacking = [name for name in names if name not in known]
    if lacking:
        raise ValueError(
            f"the model needs {', '.join(lacking)}, and samples of family {family.name} have "
            f"{', '.join(sorted(known))}: it was trained on another family"
        )
    shape = family.mesh.shape
    return np.stack([np.broadcast_to(np.asarray(known[name]), shape) for name in names])
