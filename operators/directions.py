"""A trained operator as what `solvers.conjugate_directions` asks: from a residual to a direction in which to search."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from operators.predict import Predictor, load
from operators.tasks.linear_system import diagonal_over_mean
from solvers import StencilOperator


class Directions:
    r"""``propose(r)``: the direction that an operator of ``task=linear_system`` finds for a residual.

    The residual is divided by its root mean square, as in training, and computed in single precision; the size of the
    direction has no meaning. One that is not finite is given as it is: `solvers.conjugate_directions` replaces it, and
    says so.

    Parameters
    ----------
    model : Predictor, or path of a checkpoint
        Trained with ``task=linear_system``.
    A : StencilOperator
        Whose residuals will come. It may have another grid, and other coefficients, than those trained on; what the
        directions are then worth, the solver finds out.

    Raises
    ------
    ValueError
        If the model was trained for another task or number of axes, or A is no real stencil on a grid.

    Examples
    --------
    >>> from solvers import conjugate_directions, gallery
    >>> A = gallery.poisson((64, 64))
    >>> conjugate_directions(A, np.ones(4096), Directions("runs/dcdm_2d/best.pt", A))
    Traceback (most recent call last):
        ...
    ValueError: no checkpoint at runs/dcdm_2d/best.pt; southwell-train leaves best.pt and last.pt in its out folder
    """

    def __init__(self, model: Predictor | str | Path, A: StencilOperator) -> None:
        self.model = load(model) if isinstance(model, (str, Path)) else model
        self.A = A
        if self.model.task_name != "linear_system":
            raise ValueError(
                f"directions come from an operator of task=linear_system, but this one was trained with "
                f"task={self.model.task_name}"
            )
        if not isinstance(A, StencilOperator) or np.dtype(A.dtype).kind != "f":
            raise ValueError(
                f"A must be a real StencilOperator, so that its residuals are fields on a grid; got "
                f"{type(A).__name__} of dtype {getattr(A, 'dtype', 'unknown')}"
            )
        if len(A.grid_shape) != len(self.model.grid):
            raise ValueError(
                f"this operator was trained on grids of {len(self.model.grid)} axes, and A has "
                f"{len(A.grid_shape)}: {A.grid_shape}"
            )
        self._beside = torch.empty(1, 0, *A.grid_shape)  # channels that do not depend on the residual
        if len(self.model.inputs) > 1:
            stencil = torch.tensor(A.coefficients, dtype=torch.float32)[None]
            self._beside = diagonal_over_mean(stencil, A.offsets)
        self._beside = self._beside.to(self.model.device)

    def __call__(self, r: NDArray[Any]) -> NDArray[np.float32]:
        """The direction for a residual, both of shape ``(n,)``."""
        size = float(np.linalg.norm(r)) / max(r.size, 1) ** 0.5
        field = self.A.to_field(np.asarray(r) / (size if size > 0 else 1.0))
        with torch.inference_mode():
            residual = torch.as_tensor(field, dtype=torch.float32, device=self.model.device)[None, None]
            direction = self.model.operator(torch.cat([residual, self._beside], dim=1))
        return np.asarray(self.A.to_vector(direction[0, 0].cpu().numpy()))
