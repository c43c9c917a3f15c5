"""Certified steps in time: an operator guesses what a step leads to, a solver finishes every system and proves it.

An implicit method is a sequence of systems ``y = r + d F(t + d, y)`` (`ImplicitFamily.step_system`). Integrators start
each from the slope of the step before, which is hard to beat where steps are short; it is what the prediction is
compared with here, beside zero.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datagen.evolve.implicit import Implicit
from datagen.evolve.implicit_family import ImplicitFamily
from datagen.family import LinearSystem, Sample
from operators.guesses import Array, Work, first_guess, input_fields
from solvers import Result, Status, solve


@dataclass(frozen=True)
class CertifiedSteps:
    """A trajectory every system of which is proved to the tolerance, and what the predictions were worth.

    Attributes
    ----------
    result : Result
        Of the system that ended worst: its status is that of the whole.
    solution : dict
        Output fields by name, ``(frames, *grid)`` at the family's times; fewer frames where a system could not be
        solved, which ends the trajectory.
    guided, warm, from_zero : Work
        All systems from the best point between the integrator's guess and the prediction; from the integrator's guess
        alone, the slope of the step before; from zero.
    predict_seconds : float
        Wall time of the predictions and of making first guesses of them; not in `guided`.
    prediction_error : float
        Relative L2 distance of the predicted from the certified state, mean over systems; NaN where a prediction was
        not finite.
    unusable : int
        Predictions of which no guess could be made, as they were not finite.
    relative_residual : float
        The largest ``||b - A x|| / ||b||`` of all systems.
    """

    result: Result
    solution: Mapping[str, NDArray[Any]]
    guided: Work
    warm: Work
    from_zero: Work
    predict_seconds: float
    prediction_error: float
    unusable: int
    relative_residual: float

    @property
    def converged(self) -> bool:
        """Whether all of the trajectory is certified."""
        return self.result.converged

    @property
    def iterations(self) -> tuple[int, int]:
        """With the predictions, and without, from the integrator's guesses."""
        return self.guided.iterations, self.warm.iterations

    @property
    def saved_iterations(self) -> int:
        """Iterations that the predictions saved against the integrator's own guesses; negative if they cost some."""
        return self.warm.iterations - self.guided.iterations

    @property
    def seconds(self) -> tuple[float, float]:
        """Wall time with the predictions, their own included, and without, from the integrator's guesses."""
        return self.predict_seconds + self.guided.seconds, self.warm.seconds

    def __str__(self) -> str:
        frames = len(next(iter(self.solution.values())))
        says = f"{self.result.status.name}: {frames} frames, {self.guided.solves} systems, "
        if not self.converged:
            return f"{says}not certified after the last, {self.result.status.value} ({self.result.reason})"
        return (
            f"{says}{self.guided.iterations} iterations with the predictions (error "
            f"{100 * self.prediction_error:.2f} %), {self.warm.iterations} from the last step's slope, "
            f"{self.from_zero.iterations} from zero: {self.saved_iterations} saved"
        )


def certify_steps(
    model: Any,
    family: ImplicitFamily,
    sample: Sample,
    rtol: float = 1e-8,
    *,
    method: str = "cg",
    M: Any = None,
    maxiter: int | None = None,
) -> CertifiedSteps:
    """Integrate a sample by the family's own method and step, with an operator's predictions as first guesses.

    The operator sees the certified state before each system, never its own prediction: errors do not add up. For the
    system of an implicit Euler step of length d from the state r it is asked for the state d later; where it was
    trained for one lead time T alone, its prediction G(r) gives the slope, and the guess is ``r + d/T (G(r) - r)``.

    Parameters
    ----------
    model : Predictor
        Trained with ``task=time_pairs``; or anything with its `predict`, `inputs`, `outputs`, `state`, `step` and
        `takes_lead_time`.
    family : ImplicitFamily
    sample : Sample
    rtol : float
        ``||b - A x|| <= rtol ||b||``, of every system; the errors of many steps add up.
    method, M, maxiter
        As `solvers.solve` takes them.

    Returns
    -------
    CertifiedSteps
        Never raises for want of convergence.

    Raises
    ------
    ValueError
        If the model does not step in time, or its fields are not the family's.
    """
    if getattr(model, "step", None) is None:
        raise ValueError(
            f"family {family.name} evolves in time, and the model does not step in time: train one with task=time_pairs"
        )
    input_fields(model, family, sample)  # a misfit is a sentence now
    arguments = dict(method=method, rtol=rtol, maxiter=maxiter, M=M, throw=False)
    steps = _Steps(model, family, sample, arguments)
    integrator = Implicit(family.method, family.longest_step(sample), steps.solve)
    frames = []
    try:
        for state in integrator.states(steps.system, family.initial(sample), list(family.times)):
            frames.append(state)
    except FloatingPointError:
        if steps.worst is None or steps.worst.converged:  # else its status says it
            raise
    assert steps.worst is not None
    worst, states = steps.worst, np.stack(frames)
    names = [f.name for f in family.role("output")]
    return CertifiedSteps(
        result=worst,
        solution={name: states[:, number] for number, name in enumerate(names)},
        guided=steps.guided,
        warm=steps.warm,
        from_zero=steps.from_zero,
        predict_seconds=steps.predict_seconds,
        prediction_error=float(np.mean(steps.errors)),
        unusable=steps.unusable,
        relative_residual=steps.largest_residual,
    )


@dataclass
class _Steps:
    """Makes the systems of a trajectory, predicts and solves them, and keeps count."""

    model: Any
    family: ImplicitFamily
    sample: Sample
    arguments: Mapping[str, Any]
    guided: Work = field(default_factory=Work)
    warm: Work = field(default_factory=Work)
    from_zero: Work = field(default_factory=Work)
    predict_seconds: float = 0.0
    errors: list[float] = field(default_factory=list)
    unusable: int = 0
    worst: Result | None = None
    largest_residual: float = 0.0

    def __post_init__(self) -> None:
        self._euler_step = self.family.euler_step(self.sample)

    def system(self, r: Array, t: float, d: float) -> LinearSystem:
        """The system of an implicit Euler step, remembered with what it starts from."""
        self._from, self._length = r, d
        self._system = self._euler_step(r, t, d)
        return self._system

    def solve(self, A: Any, b: Array, x0: Array) -> Result:
        """Solve the system that was made last, from three guesses; x0 is the integrator's."""
        system = self._system
        A @ x0  # what a first product prepares is on nobody's account
        began = time.perf_counter()
        predicted = system.to_vector(self._prediction())
        guess, _ = first_guess(system, predicted, x0)
        self.predict_seconds += time.perf_counter() - began
        null_space = system.null_space
        result = self.guided.run(lambda: solve(A, b, x0=guess, null_space=null_space, **self.arguments))
        self.warm.run(lambda: solve(A, b, x0=x0, null_space=null_space, **self.arguments))
        self.from_zero.run(lambda: solve(A, b, null_space=null_space, **self.arguments))
        self.unusable += not np.isfinite(predicted).all()
        with np.errstate(over="ignore", invalid="ignore"):
            error, size = float(np.linalg.norm(predicted - result.x)), float(np.linalg.norm(result.x))
        self.errors.append(error / size if size else error)
        relative = result.residual_norm / max(float(np.linalg.norm(b)), 1e-300)
        order = list(Status)  # from best to worst
        if self.worst is None or order.index(result.status) > order.index(self.worst.status):
            self.worst = result
        self.largest_residual = max(self.largest_residual, relative)
        return result

    def _prediction(self) -> Array:
        """The state that the model sees at the end of the step."""
        fields = input_fields(self.model, self.family, self.sample, self._from)[None]
        if self.model.takes_lead_time:
            return np.asarray(self.model.predict(fields, self._length)[0], dtype=np.float64)
        predicted = np.asarray(self.model.predict(fields)[0], dtype=np.float64)
        return self._from + self._length / self.model.step * (predicted - self._from)
