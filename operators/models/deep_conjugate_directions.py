"""A learned preconditioner: multigrid whose interpolation and coarse operators come from a network that sees A.

Linear in the residual, without biases, symmetric positive definite: `cg` takes it. The network runs once for each
matrix (`setup`); what it gives goes into the suite's compiled multigrid, so that a learned cycle costs what a classical
one costs. The successor of the deep conjugate direction method (Kaneda et al., ICML 2023) that its own authors' line of
work points to (Lan et al., A neural-preconditioned Poisson solver for mixed Dirichlet and Neumann boundary conditions,
ICML 2024): a network that does not see the matrix does not leave the grid that it was trained on.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from safetensors import SafetensorError, safe_open

from operators.models.learned_kernels import FEATURES, correct_weights, take_off_twist, weight_tables
from solvers.precondition.multigrid import Multigrid
from solvers.precondition.multigrid.colours import Smoother
from solvers.precondition.multigrid.galerkin import interpolate, workspace_size
from solvers.precondition.multigrid.hierarchy import fill_operator_ghosts, fill_weight_ghosts, galerkin_operator
from solvers.precondition.multigrid.operator import SymmetricStencil
from solvers.precondition.multigrid.schedule import Plan
from solvers.stencil import StencilOperator

DEFAULT = Path(__file__).with_name("deep_conjugate_directions.safetensors")
FORMAT = "1"
Layers = Mapping[str, tuple[np.ndarray, np.ndarray]]
OUTPUTS = {"sides": 1, "middles": 2, "squares": 1}
# Numbers of unknowns from which more is gained than it costs by a W-cycle, and by lines or the network for a diagonal
# direction, measured on the families of `preconditioner_systems`: below, calls for levels that lie in the cache and the
# set-up are most of the time.
_WORTH_TWO_VISITS, _WORTH_LEARNING = 100_000, 10_000


class LearnedMultigrid(Multigrid):
    """The multigrid of the suite with interpolation and coarse operators that a network has mended.

    One object is the preconditioner `M` of `cg` and the proposal of `conjugate_directions`: calling it is `matvec`.
    Where A couples points along the axes only, equally or one of them everywhere, black-box multigrid has nothing to
    learn, and the hierarchy is the classical one (``learned`` is then False). So it is where the network's coarse
    operator comes out indefinite, and by default where the network was measured to gain nothing: with one oblique
    direction that is no diagonal of the grid, or on a small grid.

    Parameters
    ----------
    checkpoint : path, optional
        A file that ``python -m operators.models.train_preconditioner`` or ``southwell-train model=learned_multigrid``
        wrote (.safetensors or .pt); if None, the one of the suite.
    smoother, dtype
        As for `Multigrid`, but where A couples obliquely "auto" relaxes lines only if the strong direction turns from
        axis to axis, on more than 10,000 points without a mask; the network leaves less for them to do.
    cycle : "auto", "V" or "W"
        "auto" is a W-cycle where A couples obliquely or its direction turns and there are more than 100,000 unknowns,
        and where the network has mended a diagonal direction; elsewhere a V-cycle. With a cycle that is asked for, the
        network is used wherever there is anything to learn.

    Attributes
    ----------
    learned : bool
        Whether the network had a hand in the hierarchy.

    Raises
    ------
    ValueError
        If the checkpoint is none, or holds numbers that are not finite; in `setup`, besides what `Multigrid` refuses,
        if A does not live on a two-dimensional grid.

    Notes
    -----
    Whatever the network says, interpolation is of full rank, relaxation that of the classical cycle, and Galerkin
    operators of a definite A are definite. Only the twist that is taken off coarse operators (see
    `interpolation_network`) has no such proof; it is bounded by what the sides of a square couple, and `cg` says
    INDEFINITE_PRECONDITIONER if it should ever be too much.

    Examples
    --------
    Diffusion along a direction that turns from place to place:

    >>> from solvers import Multigrid, cg
    >>> from operators.models.preconditioner_systems import families
    >>> A = families["turning"](200, np.random.default_rng(0))
    >>> b = np.ones(A.shape[0])
    >>> learned, classical = (cg(A, b, rtol=1e-8, M=M).iterations for M in (LearnedMultigrid(), Multigrid()))
    >>> learned < 0.6 * classical
    True
    """

    def __init__(
        self,
        checkpoint: str | Path | None = None,
        smoother: Literal["auto", "point"] | Sequence[int] = "auto",
        cycle: Literal["auto", "V", "W"] = "auto",
        dtype: Literal["float32", "float64"] = "float32",
    ) -> None:
        if cycle not in ("auto", "V", "W"):
            raise ValueError(f"cycle: expected 'auto', 'V' or 'W', got {cycle!r}")
        super().__init__(smoother, "V" if cycle == "auto" else cycle, dtype=dtype)
        path = DEFAULT if checkpoint is None else Path(checkpoint)
        self._use(read(path, path.stat().st_mtime_ns if path.exists() else 0), cycle == "auto")

    @classmethod
    def of(cls, layers: Layers, **parameters: Any) -> Self:
        """With the weights of a network at hand.

        Parameters
        ----------
        layers : mapping
            See `layers_of`.
        **parameters
            Those of `Multigrid`.
        """
        self = cls.__new__(cls)
        Multigrid.__init__(self, **parameters)
        self._use(_in_precisions(layers), "cycle" not in parameters)
        return self

    def _use(self, layers: Mapping[np.dtype, Layers], any_cycle: bool) -> None:
        self._layers, self._any_cycle = layers, any_cycle
        self.learned = False
        self._may_learn = True

    def __call__(self, r: np.ndarray) -> np.ndarray:
        """The proposal for `conjugate_directions`: one cycle from zero."""
        return self.matvec(r)

    def setup(self, A: Any) -> Self:
        """Build the hierarchy for A: a StencilOperator on a two-dimensional grid, or a sparse matrix that is one."""
        try:
            super().setup(A)
        except ValueError:
            if not self.learned:
                raise
            self.positive = False
        if self.learned and not self.positive:
            self._may_learn = False
            try:
                super().setup(A)
            finally:
                self._may_learn = True
        return self

    def _smoother_for(self, operator: StencilOperator, stencil: SymmetricStencil) -> Smoother:
        if len(stencil.shape) != 2:
            raise ValueError(
                f"A: the learned multigrid was trained for two dimensions, and the grid {stencil.shape} has "
                f"{len(stencil.shape)}; use M='multigrid'"
            )
        classical = super()._smoother_for(operator, stencil)
        # Where A couples along the axes only, equally or one of them everywhere, lines or points do all there is to do.
        oblique = any(all(offset) for offset in stencil.links)
        turns = len(stencil.strong_axes) > 1
        self.learned = self._may_learn and (oblique or turns)
        unknowns = stencil.diagonal.size
        if self._any_cycle:
            diagonal = oblique and unknowns >= _WORTH_LEARNING and _along_a_diagonal(stencil)
            self.learned = self.learned and (turns or diagonal)
            self.cycle = "W" if diagonal or (unknowns >= _WORTH_TWO_VISITS and (oblique or turns)) else "V"
        lines = turns and unknowns >= _WORTH_LEARNING and operator.mask is None
        return "point" if self.smoother == "auto" and oblique and not lines else classical

    def _next_level(self, chosen: Plan, arena: np.ndarray, level: int) -> float:
        if not self.learned or any(chosen.layouts[level].folds):
            return super()._next_level(chosen, arena, level)
        layers = self._layers[arena.dtype]
        workspace = arena.size - workspace_size(chosen)
        for black_box, ours in weight_tables(chosen, level):
            interpolate(arena, workspace, *black_box)
            correct_weights(arena, *ours, *layers["sides" if ours[-1] >= 0 else "middles"])
            fill_weight_ghosts(chosen, arena, level)
        smallest = galerkin_operator(chosen, arena, level)
        layout, places = chosen.layouts[level + 1], chosen.places[level + 1]
        if min(layout.shape) > 1:
            where = places["diagonal"], places["links"], layout.split_size
            take_off_twist(arena, layout.split_rows, layout.half_width, layout.shape[-1], *where, *layers["squares"])
            fill_operator_ghosts(chosen, arena, level + 1)
        return smallest


def _along_a_diagonal(stencil: SymmetricStencil) -> bool:
    r"""Whether A, seen as :math:`-\nabla \cdot K \nabla`, is strongest along a diagonal of the grid, to 6 degrees.

    A link a at offset k is worth :math:`-a (k \cdot \xi)^2` for a wave: :math:`K_{xx} - K_{yy}` is the difference
    of those along the axes, :math:`K_{xy}` that of those along the diagonals, and the strong direction is at the angle
    :math:`\tan 2 \phi = 2 K_{xy} / (K_{xx} - K_{yy})`.
    """
    sample = slice(None, None, max(1, stencil.diagonal.size // 500) | 1)
    first, second, along, across = (
        stencil.links[k].reshape(-1)[sample] if k in stencil.links else np.zeros(1)
        for k in ((1, 0), (0, 1), (1, 1), (1, -1))
    )
    return bool(np.median(np.abs(first - second)) < 2 * np.tan(np.pi / 15) * np.median(np.abs(along - across)))


def preconditioner(A: Any, checkpoint: str | Path | None = None) -> LearnedMultigrid:
    """The learned multigrid for A, ready for use as `M` of `cg` and as `propose` of `conjugate_directions`.

    Parameters
    ----------
    A : StencilOperator, sparse matrix or array
        Symmetric positive definite, on a grid of two dimensions, coupling next neighbours.
    checkpoint : path, optional
        See `LearnedMultigrid`.

    Returns
    -------
    LearnedMultigrid

    Raises
    ------
    ValueError, TypeError
        As `LearnedMultigrid` and `Multigrid` say.

    Examples
    --------
    >>> from solvers import cg, conjugate_directions
    >>> from operators.models.preconditioner_systems import families
    >>> A = families["rotated"](100, np.random.default_rng(0))
    >>> M, b = preconditioner(A), np.ones(A.shape[0])
    >>> cg(A, b, rtol=1e-8, M=M).converged, conjugate_directions(A, b, M, memory=1, rtol=1e-8).converged
    (True, True)
    """
    return LearnedMultigrid(checkpoint).setup(A)


def layers_of(state: Mapping[str, Any]) -> Layers:
    """The perceptrons of an `InterpolationNetwork` as the kernels take them: weights with their biases below.

    Parameters
    ----------
    state : mapping
        Its state dict, of tensors or arrays.

    Raises
    ------
    ValueError
        If they are not those of such a network, or not finite.
    """
    names = {f"{name}.{layer}.{kind}" for name in OUTPUTS for layer in (0, 2) for kind in ("weight", "bias")}
    if set(state) != names:
        raise ValueError(
            f"checkpoint: expected the weights {sorted(names)} of an interpolation network, got {sorted(state)}"
        )
    found = {}
    for name, outputs in OUTPUTS.items():
        w, b, v, c = (
            np.asarray(state[f"{name}.{layer}.{kind}"], dtype=float) for layer in (0, 2) for kind in ("weight", "bias")
        )
        hidden = len(b)
        if w.shape != (hidden, FEATURES) or v.shape != (outputs, hidden) or c.shape != (outputs,):
            raise ValueError(
                f"checkpoint: the network {name!r} has weights of shapes {w.shape} and {v.shape}; expected "
                f"{FEATURES} features and {outputs} outputs"
            )
        found[name] = (np.vstack([w.T, b]), np.vstack([v.T, c]))
        if not all(np.isfinite(part).all() for part in found[name]):
            raise ValueError(f"checkpoint: the weights of {name!r} are not finite; its training has diverged")
    return found


def _in_precisions(layers: Layers) -> dict[np.dtype, Layers]:
    """Layers for hierarchies of either precision."""
    return {
        np.dtype(dtype): {name: (first.astype(dtype), second.astype(dtype)) for name, (first, second) in layers.items()}
        for dtype in ("float32", "float64")
    }


@lru_cache(maxsize=8)
def read(path: Path, modified: int) -> dict[np.dtype, Layers]:
    """The perceptrons of a checkpoint, in both precisions of a hierarchy.

    Parameters
    ----------
    path : Path
    modified : int
        Its time stamp, which tells new contents from those that are kept.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is none, or it is something else.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"checkpoint: there is no file {path}; python -m operators.models.train_preconditioner writes one"
        )
    if path.suffix == ".pt":
        from operators.checkpoint import load_checkpoint  # not at import: it needs torch and this package

        model = load_checkpoint(path)["model"]
        if model["name"] != "learned_multigrid":
            raise ValueError(f"checkpoint: {path} holds a model {model['name']!r}; expected 'learned_multigrid'")
        return _in_precisions(layers_of({key.removeprefix("network."): v for key, v in model["state"].items()}))
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format_version") != FORMAT or metadata.get("dimensions") != "2":
                raise ValueError(
                    f"checkpoint: {path} is no interpolation network for two dimensions of format {FORMAT}: its "
                    f"metadata are {metadata}"
                )
            return _in_precisions(layers_of({name: file.get_tensor(name) for name in file.keys()}))  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"checkpoint: {path} is no safetensors file ({error})") from None
