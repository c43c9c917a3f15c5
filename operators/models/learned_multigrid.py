"""Multigrid of the suite with learned interpolation and coarse operators."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from operators.models.learned_kernels import correct_weights, take_off_twist, weight_tables
from solvers.precondition.multigrid import Multigrid
from solvers.precondition.multigrid.colours import Smoother
from solvers.precondition.multigrid.galerkin import interpolate, workspace_size
from solvers.precondition.multigrid.hierarchy import fill_operator_ghosts, fill_weight_ghosts, galerkin_operator
from solvers.precondition.multigrid.operator import SymmetricStencil
from solvers.precondition.multigrid.schedule import Plan

Layers = Mapping[str, tuple[np.ndarray, np.ndarray]]


class LearnedMultigrid(Multigrid):
    def __init__(self, layers: Layers, **parameters: Any) -> None:
        super().__init__(**parameters)
        self.layers = {
            np.dtype(dtype): {
                name: tuple(np.ascontiguousarray(part, dtype=dtype) for part in parts) for name, parts in layers.items()
            }
            for dtype in ("float32", "float64")
        }
        self.learned = True

    def _plan(self, stencil: SymmetricStencil, smoothers: Sequence[Smoother]) -> Plan:
        self.learned = len(stencil.shape) == 2 and (len(stencil.links) > 2 or bool(stencil.strong_axes()))
        return super()._plan(stencil, smoothers)

    def _next_level(self, chosen: Plan, arena: np.ndarray, level: int) -> float:
        if not self.learned or any(chosen.layouts[level].folds):
            return super()._next_level(chosen, arena, level)
        layers = self.layers[arena.dtype]
        workspace = arena.size - workspace_size(chosen)
        for black_box, ours in weight_tables(chosen, level):
            interpolate(arena, workspace, *black_box)
            correct_weights(arena, *ours, *layers["sides" if ours[-1] >= 0 else "middles"])
            fill_weight_ghosts(chosen, arena, level)
        smallest = galerkin_operator(chosen, arena, level)
        layout, places = chosen.layouts[level + 1], chosen.places[level + 1]
        if min(layout.shape) > 1:
            rows = layout.padded_row * 2 * layout.half_width
            where = places["diagonal"], places["links"], layout.split_size
            take_off_twist(arena, rows, layout.half_width, layout.shape[-1], *where, *layers["squares"])
            fill_operator_ghosts(chosen, arena, level + 1)
        return smallest


def layers_of(state: Mapping[str, Any]) -> Layers:
    """The perceptrons of an `InterpolationNetwork` as the kernels take them: weights with their biases below."""
    found = {}
    for name in ("sides", "middles", "squares"):
        parts = []
        for layer in (0, 2):
            weight, bias = (np.asarray(state[f"{name}.{layer}.{kind}"], dtype=float) for kind in ("weight", "bias"))
            parts.append(np.vstack([weight.T, bias]))
        found[name] = (parts[0], parts[1])
    return found
