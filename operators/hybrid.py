"""From a prediction to a certified solution: the operator guesses, the solver finishes and proves.

The prediction u becomes the first guess of an iterative solver. As it comes from a network it may be off, so what is
taken is the point on the line from the guess w that there would be without it to u at which the energy of the error is
least,

    x0 = w + s (u - w),    s = <u - w, b - A w> / <u - w, A (u - w)>    (A symmetric positive definite),

after which ``||x - x0||_A <= ||x - w||_A``: in the norm that conjugate gradients minimise, the prediction is never
worse than none. (Hegedues 1991 with w = 0; the tolerance stays tied to ``||b||``, so a good guess is not punished.)

Of a steady system w is zero. Of a step in time it is what an integrator guesses (`operators.hybrid_steps`). An operator
of ``task=linear_system`` goes on proposing directions until the end (`operators.directions`).
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from datagen.evolve.family import EvolvingFamily
from datagen.evolve.implicit_family import ImplicitFamily
from datagen.family import Family, LinearSystem, Sample
from operators.directions import Directions
from operators.guesses import Array, first_guess, input_fields
from operators.hybrid_steps import CertifiedSteps, certify_steps
from solvers import Result, conjugate_directions, solve
from solvers.precondition import preconditioners


class Predicts(Protocol):
    """What `certify` needs of a model: `operators.predict.Predictor` has it."""

    def predict(self, fields: NDArray[np.floating]) -> NDArray[np.floating]:
        """``(samples, input channels, *grid) -> (samples, output channels, *grid)``, physical units."""


@dataclass(frozen=True)
class Certified:
    """A solution proved to the tolerance, and what the prediction was worth.

    Attributes
    ----------
    result : Result
        From the prediction; ``result.converged`` is the certificate (true residual against ``rtol ||b||``). Where it is
        false, ``result.status`` says why, and `solution` is the best iterate.
    from_zero : Result
        The same solver without the prediction.
    solution : dict
        Output fields by name, of ``result.x``.
    prediction : dict
        Output fields by name, as predicted.
    scale : float
        s, by which the prediction was multiplied; 0 where no guess could be made of it, as it is not finite or has no
        energy.
    prediction_residual : float
        ``||b - A u|| / ||b||`` of the prediction as it came. Often above 1 for a prediction that looks right: the
        residual weighs errors of short wavelength by the square of their wavenumber.
    prediction_error : float
        Relative L2 distance of the prediction from the certified solution; NaN where nothing is certified.
    energy_error : float
        ``||x - s u||_A / ||x||_A``: at most 1; the part of the way that is left when the solver starts. NaN where
        nothing is certified.
    predict_seconds : float
        Wall time of the prediction and of making the first guess of it.
    relative_residual : float
        ``||b - A x|| / ||b||`` of the solution.
    """

    result: Result
    from_zero: Result
    solution: Mapping[str, NDArray[Any]]
    prediction: Mapping[str, NDArray[Any]]
    scale: float
    prediction_residual: float
    prediction_error: float
    energy_error: float
    predict_seconds: float
    relative_residual: float

    @property
    def converged(self) -> bool:
        """Whether the solution is certified."""
        return self.result.converged

    @property
    def iterations(self) -> tuple[int, int]:
        """With the prediction, and without."""
        return self.result.iterations, self.from_zero.iterations

    @property
    def saved_iterations(self) -> int:
        """Iterations that the prediction saved; negative if it cost some."""
        return self.from_zero.iterations - self.result.iterations

    @property
    def seconds(self) -> tuple[float, float]:
        """Wall time with the prediction, its own included, and without: set-up of the preconditioner and solve."""
        with_it, without = (r.setup_seconds + r.solve_seconds for r in (self.result, self.from_zero))
        return self.predict_seconds + with_it, without

    def __str__(self) -> str:
        says = f"{self.result.status.name}, residual {self.result.residual_norm:.3g}: "
        if not self.converged:
            return f"{says}not certified, {self.result.status.value} ({self.result.reason})"
        share = self.saved_iterations / max(self.from_zero.iterations, 1)
        guess = f"error {100 * self.prediction_error:.2f} %" if math.isfinite(self.prediction_error) else "not finite"
        return (
            f"{says}{self.result.iterations} iterations "
            f"from the prediction ({guess}), {self.from_zero.iterations} from zero: "
            f"{self.saved_iterations} saved ({100 * share:.0f} %)"
        )


def certify(
    model: Predicts,
    family: Family,
    sample: Sample,
    rtol: float = 1e-8,
    *,
    method: str = "cg",
    M: Any = "auto",
    maxiter: int | None = None,
) -> Certified | CertifiedSteps:
    """Predict the solution of a sample, finish it with a solver, and say what the prediction saved.

    Parameters
    ----------
    model : Predicts
        A loaded operator (`operators.predict.load`), or anything with its `predict`. For a family in time, one that
        was trained with ``task=time_pairs``. One of ``task=linear_system`` proposes every direction of search.
    family : Family
        Steady, or with implicit steps (`ImplicitFamily`); makes the linear systems.
    sample : Sample
        The inputs.
    rtol : float
        ``||b - A x|| <= rtol ||b||``, of every system.
    method, M, maxiter
        As `solvers.solve` takes them; an iterative method. M "auto" is "jacobi" for steady systems, and none for steps
        in time, whose matrices are near the identity. An operator of ``task=linear_system`` has methods of its own:
        `conjugate_directions`, and `cg` without it.

    Returns
    -------
    Certified, or CertifiedSteps for a family in time
        Never raises for want of convergence, or for a prediction of no use: look at ``result.status`` and
        ``result.reason``.

    Raises
    ------
    ValueError
        If the family makes no linear systems, or the model's fields or the shape of its prediction are not the
        family's.
    """
    if isinstance(family, ImplicitFamily):
        return certify_steps(model, family, sample, rtol, method=method, M=None if M == "auto" else M, maxiter=maxiter)
    evolves = isinstance(family, EvolvingFamily)
    if evolves or not family.made_by_solving:
        what = "evolves in time without linear systems" if evolves else "was read from a file"
        raise ValueError(
            f"family {family.name} {what}: there is nothing that a linear solver could certify. Steady families, and "
            "those with implicit steps (heat, wave), have such systems"
        )
    # Two alike: what the first solve learns of its matrix would make the second one quicker.
    system, without = family.system(sample), family.system(sample)
    arguments: dict[str, Any] = dict(rtol=rtol, maxiter=maxiter, null_space=system.null_space)
    arguments["M"] = "jacobi" if isinstance(M, str) and M == "auto" else M  # a name is set up anew in each solve
    outputs = [f.name for f in family.role("output")]

    began = time.perf_counter()
    propose = None
    if getattr(model, "task_name", "") == "linear_system":
        propose = Directions(model, system.A)  # type: ignore[arg-type]
        u = propose(system.b).astype(np.float64)
        predicted = _fields(system, u, outputs)
    else:
        predicted = _predicted(model, family, sample, outputs)
        values = np.stack([predicted[name] for name in outputs])
        u = system.to_vector(values[0] if len(outputs) == 1 else values).astype(np.float64)
    guess, scale = first_guess(system, u)
    predict_seconds = time.perf_counter() - began

    if propose is not None:
        own = preconditioners.build(arguments["M"]) if isinstance(arguments["M"], str) else arguments["M"]
        result = conjugate_directions(system.A, system.b, propose, guess, **{**arguments, "M": own})
        method = "cg"
    else:
        result = solve(system.A, system.b, method, x0=guess, throw=False, **arguments)
    from_zero = solve(without.A, without.b, method, throw=False, **arguments)
    if not np.isfinite(u).all():
        said = "the prediction is not finite, so the solver started from zero"
        result = replace(result, reason="; ".join(filter(None, [result.reason, said])))

    with np.errstate(over="ignore", invalid="ignore"):  # of predictions that are absurdly large
        distance, energy = _distances(system, result, u, scale)
        residual = float(np.linalg.norm(system.b - system.A @ u)) if np.isfinite(u).all() else math.nan
    b_norm = float(np.linalg.norm(system.b))
    return Certified(
        result=result,
        from_zero=from_zero,
        solution=_fields(system, result.x, outputs),
        prediction=predicted,
        scale=scale,
        prediction_residual=_ratio(residual, b_norm),
        prediction_error=distance,
        energy_error=energy,
        predict_seconds=predict_seconds,
        relative_residual=_ratio(result.residual_norm, b_norm),
    )


def _predicted(
    model: Predicts, family: Family, sample: Sample, outputs: Sequence[str]
) -> dict[str, NDArray[np.floating]]:
    """The model's output fields by name, after their shape was looked at."""
    fields = input_fields(model, family, sample)
    predicted = np.asarray(model.predict(fields[None]))[0]
    expected = (len(outputs), *family.mesh.shape)
    if predicted.shape != expected:
        raise ValueError(
            f"the model predicted an array of shape {predicted.shape}, family {family.name} has {expected}"
        )
    return dict(zip(outputs, predicted, strict=True))


def _fields(system: LinearSystem, x: Array, outputs: Sequence[str]) -> dict[str, Array]:
    field = system.to_field(x)
    return {outputs[0]: field} if len(outputs) == 1 else dict(zip(outputs, field, strict=True))


def _distances(system: LinearSystem, result: Result, u: Array, scale: float) -> tuple[float, float]:
    """Relative L2 error of the prediction, and relative energy error of the guess, against a certified solution."""
    if not result.converged or not np.isfinite(u).all():
        return math.nan, 1.0 if result.converged else math.nan
    x = result.x
    error = x - scale * u
    energies = [max(float(np.vdot(v, system.A @ v).real), 0.0) for v in (error, x)]
    return _ratio(float(np.linalg.norm(x - u)), float(np.linalg.norm(x))), _ratio(*energies) ** 0.5


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else 0.0
