"""From a prediction to a certified solution: the operator guesses, the solver finishes and proves.

The prediction becomes the first guess of an iterative solver. As it comes from a network it may be off in scale, so it
is multiplied by the factor that minimises the energy of the error,

    x0 = s u,    s = <u, b> / <u, A u>    (A symmetric positive definite),

after which ``||x - x0||_A <= ||x - 0||_A``: in the norm that conjugate gradients minimise, the guess is never worse
than no guess. (Hegedues 1991; the tolerance stays tied to ``||b||``, so a good guess is not punished.)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from datagen.family import Family, LinearSystem, Sample
from solvers import Result, solve


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
        From the prediction; ``result.converged`` is the certificate (true residual against ``rtol ||b||``).
    from_zero : Result
        The same solver without the prediction.
    solution : dict
        Output fields by name, of the certified solution.
    prediction : dict
        Output fields by name, as predicted.
    scale : float
        s, by which the prediction was multiplied.
    prediction_residual : float
        ``||b - A u|| / ||b||`` of the prediction as it came. Often above 1 for a prediction that looks right: the
        residual weighs errors of short wavelength by the square of their wavenumber.
    prediction_error : float
        Relative L2 distance of the prediction from the certified solution.
    energy_error : float
        ``||x - s u||_A / ||x||_A``: at most 1; the part of the way that is left when the solver starts.
    """

    result: Result
    from_zero: Result
    solution: Mapping[str, NDArray[Any]]
    prediction: Mapping[str, NDArray[Any]]
    scale: float
    prediction_residual: float
    prediction_error: float
    energy_error: float

    @property
    def saved_iterations(self) -> int:
        """Iterations that the prediction saved; negative if it cost some."""
        return self.from_zero.iterations - self.result.iterations

    def __str__(self) -> str:
        share = self.saved_iterations / max(self.from_zero.iterations, 1)
        return (
            f"{self.result.status.name}, residual {self.result.residual_norm:.3g}: {self.result.iterations} iterations "
            f"from the prediction (error {100 * self.prediction_error:.2f} %), {self.from_zero.iterations} from zero: "
            f"{self.saved_iterations} saved ({100 * share:.0f} %)"
        )


def certify(
    model: Predicts,
    family: Family,
    sample: Sample,
    rtol: float = 1e-8,
    *,
    method: str = "cg",
    M: Any = "jacobi",
    maxiter: int | None = None,
) -> Certified:
    """Predict the solution of a sample, finish it with a solver, and say what the prediction saved.

    Parameters
    ----------
    model : Predicts
        A loaded operator (`operators.predict.load`), or anything with its `predict`.
    family : Family
        Steady; makes the linear system.
    sample : Sample
        The inputs.
    rtol : float
        ``||b - A x|| <= rtol ||b||``.
    method, M, maxiter
        As `solvers.solve` takes them; an iterative method.

    Returns
    -------
    Certified

    Raises
    ------
    ConvergenceError
        If the solver does not reach the tolerance, with or without the prediction.
    ValueError
        If the prediction does not have the shape of the family's output, or is not finite.
    """
    system = family.system(sample)
    fields = np.stack([np.asarray(sample.fields[f.name]) for f in family.fields if f.role == "input"])
    predicted = np.asarray(model.predict(fields[None]))[0]
    outputs = [f.name for f in family.role("output")]
    expected = (len(outputs), *family.mesh.shape)
    if predicted.shape != expected:
        raise ValueError(
            f"the model predicted an array of shape {predicted.shape}, family {family.name} has {expected}"
        )
    if not np.all(np.isfinite(predicted)):
        raise ValueError("the model predicted values that are not finite; no guess can be made of them")
    prediction = dict(zip(outputs, predicted, strict=True))

    u = system.to_vector(predicted[0] if len(outputs) == 1 else predicted).astype(np.float64)
    b_norm = float(np.linalg.norm(system.b))
    scale, Au = _energy_scale(system, u)
    arguments: dict[str, Any] = dict(rtol=rtol, M=M, maxiter=maxiter, null_space=system.null_space)
    result = solve(system.A, system.b, method, x0=scale * u, **arguments)
    from_zero = solve(system.A, system.b, method, **arguments)

    x = result.x
    error = x - scale * u
    energy = float(np.vdot(x, system.A @ x).real)
    field = system.to_field(x)
    return Certified(
        result=result,
        from_zero=from_zero,
        solution={outputs[0]: field} if len(outputs) == 1 else dict(zip(outputs, field, strict=True)),
        prediction=prediction,
        scale=scale,
        prediction_residual=float(np.linalg.norm(system.b - Au)) / b_norm if b_norm else 0.0,
        prediction_error=_ratio(float(np.linalg.norm(x - u)), float(np.linalg.norm(x))),
        energy_error=_ratio(max(float(np.vdot(error, system.A @ error).real), 0.0), energy) ** 0.5,
    )


def _energy_scale(system: LinearSystem, u: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """s = <u, b> / <u, A u>, and A u; zero where u has no energy (the guess is then zero too)."""
    Au = system.A @ u
    energy = float(np.vdot(u, Au).real)
    return (float(np.vdot(u, system.b).real) / energy if energy > 0 else 0.0), Au


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else 0.0
