"""Parameter groups: which weights of a model get which learning rate and decay, and which an optimizer sets apart.

A *grouping* is a registered rule from a model to torch's parameter groups, ``optimizer.groups`` of a configuration.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from operators.layers.spectral_convolution import SpectralConvolution
from solvers.registry import Registry

Groups = list[dict[str, Any]]

groupings: Registry = Registry("parameter grouping", group="southwell.groupings")

# Orthogonalising a matrix of few rows or columns only normalises them: lifting and projection are left to AdamW.
SMALLEST_MATRIX = 8


def complex_parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    """Parameters whose last axis is (real, imaginary): the weights of spectral convolutions, however factorised.

    They are told by the layer that owns them, as any other weight may have a last axis of 2.

    Parameters
    ----------
    module : Module

    Examples
    --------
    >>> from operators.models import FNO
    >>> model = FNO(n_modes=(4, 4), in_channels=1, out_channels=1, hidden_channels=8, n_layers=2)
    >>> [tuple(parameter.shape) for parameter in complex_parameters(model)]
    [(8, 8, 4, 3, 2), (8, 8, 4, 3, 2)]
    """
    for layer in module.modules():
        if isinstance(layer, SpectralConvolution):
            yield from layer.weight.parameters()


def matrix_parameters(module: nn.Module) -> Iterator[Tensor]:
    """Weights of linear layers and convolutions, as matrices of at least 8 rows and columns.

    A convolution is the matrix from its patches to its output channels. Spectral weights are no matrices: they hold
    one for each wavenumber, and wavenumbers do not mix.

    Parameters
    ----------
    module : Module
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, _ConvNd)):
            rows, columns = layer.weight.shape[0], layer.weight[0].numel()
            if min(rows, columns) >= SMALLEST_MATRIX:
                yield layer.weight


def trainable(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """Those that are not frozen.

    Parameters
    ----------
    parameters : iterable of Parameter
    """
    return [parameter for parameter in parameters if parameter.requires_grad]


@groupings.register("uniform")
def uniform(module: nn.Module, lr: float, weight_decay: float) -> Groups:
    """One rate and one decay for all parameters.

    Parameters
    ----------
    module : Module
    lr, weight_decay : float
    """
    return [{"params": module.parameters(), "lr": lr, "weight_decay": weight_decay}]


@groupings.register("poseidon")
def poseidon(
    module: nn.Module,
    lr: float,
    weight_decay: float,
    embedding_recovery_lr: float | None = None,
    time_lr: float | None = None,
) -> Groups:
    """Poseidon's groups: embedding and recovery, time conditioning, and the rest with and without decay [1]_.

    1. parameters with "embeddings" or "patch_recovery" in their name: `embedding_recovery_lr`, with decay;
    2. of the others, those of norms conditioned on time (layers whose class says ``time_conditioning = True``):
       `time_lr`, no decay;
    3. the rest, at `lr`: no decay for layer norms and for names with "bias" in them (which in scOT is also the whole
       perceptron ``continuous_position_bias_mlp``, as in the official code), decay for what is left.

    Parameters
    ----------
    module : Module
    lr, weight_decay : float
    embedding_recovery_lr, time_lr : float, optional
        By default `lr`. Poseidon fine-tunes at 5e-5, and these two at 5e-4.

    References
    ----------
    .. [1] M. Herde et al., Poseidon: efficient foundation models for PDEs, NeurIPS 2024, arXiv:2405.19101,
       and its ``scOT/trainer.py``.
    """
    owners = {
        id(parameter): layer for layer in module.modules() for parameter in layer.parameters(recurse=False)
    }  # of shared parameters the last owner, as they have one name
    conditioned = {
        id(parameter)
        for layer in module.modules()
        if getattr(type(layer), "time_conditioning", False)
        for parameter in layer.parameters()
    }
    faster = {"lr": lr if embedding_recovery_lr is None else embedding_recovery_lr, "weight_decay": weight_decay}
    timed = {"lr": lr if time_lr is None else time_lr, "weight_decay": 0.0}
    groups: dict[str, dict[str, Any]] = {
        "embedding_recovery": {**faster, "params": []},
        "time_conditioning": {**timed, "params": []},
        "decayed": {"lr": lr, "weight_decay": weight_decay, "params": []},
        "undecayed": {"lr": lr, "weight_decay": 0.0, "params": []},
    }
    for name, parameter in module.named_parameters():
        if "embeddings" in name or "patch_recovery" in name:
            key = "embedding_recovery"
        elif id(parameter) in conditioned:
            key = "time_conditioning"
        elif isinstance(owners[id(parameter)], nn.LayerNorm) or "bias" in name:
            key = "undecayed"
        else:
            key = "decayed"
        groups[key]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]


def set_apart(groups: Groups, flag: str, chosen: Iterable[Tensor]) -> Groups:
    """Split every group by whether its parameters are among those chosen, and say so under the key `flag`.

    Parameters
    ----------
    groups : list of dict
    flag : str
        The key, true in the groups of what is chosen.
    chosen : iterable of Parameter
    """
    marked = {id(parameter) for parameter in chosen}
    split = []
    for group in groups:
        for value in (True, False):
            parameters = [parameter for parameter in group["params"] if (id(parameter) in marked) is value]
            if parameters:
                split.append({**group, "params": parameters, flag: value})
    return split


SET_APART: dict[str, tuple[str, Callable[[nn.Module], Iterator[Tensor]]]] = {
    "complex_adamw": ("complex_pairs", complex_parameters),
    "muon": ("use_muon", matrix_parameters),
}
"""Optimizers that treat some parameters otherwise: the key their groups carry, and which parameters those are."""
