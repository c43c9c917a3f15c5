r"""Adapters: fine-tuning of a few new weights beside frozen ones, by the library peft (extra ``southwell[adapters]``).

A linear layer :math:`W` of the trained network becomes :math:`W + \Delta W` with

- ``lora``: :math:`\Delta W = (\alpha / r) B A`, both of rank r, B zero at first [1]_;
- ``eva``: the same, A being the r leading right singular vectors of the layer's inputs on training data [2]_;
- ``randlora``: a sum of :math:`B_j \Lambda_j A_j \Gamma_j` of full rank, with random B and A that stay, and diagonal
  matrices that are learned [3]_.

The layers in `trained` are learned as a whole: embedding and recovery, which are new where channels are. Checkpoints
hold what was learned and where the frozen weights are; `operators.load` puts both together, as one network without
adapters.

References
----------
.. [1] E. J. Hu et al., LoRA: low-rank adaptation of large language models, ICLR 2022, section 4.1.
.. [2] F. Paischer et al., Parameter efficient fine-tuning via explained variance adaptation, arXiv:2410.07170.
.. [3] P. Albert et al., RandLoRA: full-rank parameter-efficient fine-tuning of large models, ICLR 2025.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from solvers.registry import Registry, near_names

adapters: Registry = Registry("adapter")


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise ValueError("adapters need the library peft: pip install 'southwell[adapters]'") from None
    return peft


@adapters.register("lora")
def lora(targets: Sequence[str], rank: int = 8, alpha: float = 16.0, dropout: float = 0.0) -> Any:
    """The configuration of LoRA, as peft takes it.

    Parameters
    ----------
    targets : sequence of str
        Last parts of the names of linear layers: "query", "value".
    rank : int
        r.
    alpha : float
        Of the factor ``alpha / r``.
    dropout : float
        Of the inputs of A, in training.
    """
    return _peft().LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=list(targets))


@adapters.register("eva")
def eva(targets: Sequence[str], rank: int = 8, alpha: float = 16.0, dropout: float = 0.0, batches: int = 8) -> Any:
    """The configuration of LoRA that begins with the principal directions of its inputs.

    Parameters
    ----------
    targets, rank, alpha, dropout
        As for `lora`. The rank is the same in every layer: it is not redistributed.
    batches : int
        Of training data, at most, that the directions are computed of.
    """
    if batches < 1:
        raise ValueError(f"adapter.batches must be at least 1, got {batches}")
    return lora(targets, rank, alpha, dropout)


@adapters.register("randlora")
def randlora(targets: Sequence[str], rank: int = 8, alpha: float = 160.0, dropout: float = 0.0, seed: int = 0) -> Any:
    """The configuration of RandLoRA.

    Parameters
    ----------
    targets : sequence of str
        As for `lora`.
    rank : int
        Of each of the random matrices; a smaller one means more learned weights.
    alpha : float
        Of the factor; the paper has 20 times the rank.
    dropout : float
    seed : int
        Of the random matrices.
    """
    return _peft().RandLoraConfig(
        r=rank,
        randlora_alpha=alpha,
        randlora_dropout=dropout,
        target_modules=list(targets),
        projection_prng_key=seed,
    )


def adapt(model: nn.Module, adapter: Mapping[str, Any], batches: Iterable[Sequence[Tensor]] | None = None) -> None:
    """Put adapters into a network and freeze all but them and the layers in `trained`, in place.

    Parameters
    ----------
    model : torch.nn.Module
    adapter : mapping
        A configuration's ``adapter`` group: a registered ``name``, ``targets``, ``trained`` and further arguments.
    batches : iterable of sequences of Tensor, optional
        Arguments of the network, of training data, for ``eva``; without, its directions are drawn as LoRA's (where a
        checkpoint will be loaded).

    Raises
    ------
    ValueError
        If peft is not there, or a name or argument is unknown.
    """
    peft, arguments = _peft(), dict(adapter)
    name, trained = arguments.pop("name"), list(arguments.pop("trained", ()))
    config = adapters.build(name, **arguments)
    linear = sorted({n.rsplit(".", 1)[-1] for n, layer in model.named_modules() if isinstance(layer, nn.Linear)})
    for target in arguments["targets"]:
        if target not in linear:
            raise ValueError(f"adapter.targets: no linear layer is called {target!r}. {near_names(target, linear)}")
    parts = [part for part, _ in model.named_children()]
    for part in trained:
        if part not in parts:
            raise ValueError(f"adapter.trained: {part!r} is no part of the model. {near_names(part, parts)}")
    directions = None
    if name == "eva" and batches is not None:
        seen = islice(batches, arguments.get("batches", 8))
        directions = _principal_directions(model, arguments["targets"], config.r, seen)
    peft.inject_adapter_in_model(config, model)
    if directions is not None:
        with torch.no_grad():
            for layer, vectors in directions.items():
                model.get_parameter(f"{layer}.lora_A.default.weight").copy_(vectors)
    for part in trained:
        model.get_submodule(part).requires_grad_(True)


def _principal_directions(model: nn.Module, targets: Sequence[str], rank: int, batches: Any) -> dict[str, Tensor]:
    """The leading principal directions of the inputs of each target, (rank, inputs), by the layer's name.

    Eigenvectors of the covariance, exactly; it takes ``inputs^2`` numbers a layer. Those of peft are incremental, of
    random sketches, and go through the data again and again until they change little, which may be never.
    """
    layers = {n: layer for n, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    layers = {name: layer for name, layer in layers.items() if name.rsplit(".", 1)[-1] in targets}
    sums: dict[str, list[Any]] = {}

    def observe(name: str, inputs: Tensor) -> None:
        x = inputs.detach().flatten(0, -2).double()
        before = sums.get(name, [0, 0.0, 0.0])
        sums[name] = [before[0] + len(x), before[1] + x.sum(dim=0), before[2] + x.T @ x]

    handles = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: observe(name, inputs[0]))
        for name, layer in layers.items()
    ]
    with torch.no_grad():
        for arguments in batches:
            model.eval()(*arguments)
    for handle in handles:
        handle.remove()
    found = {}
    for name, (count, total, squares) in sums.items():
        mean = total / count
        _, vectors = torch.linalg.eigh(squares / count - torch.outer(mean, mean))  # ascending
        leading = vectors.T.flip(0)[:rank]
        found[name] = functional.pad(leading, (0, 0, 0, rank - len(leading))).float()  # a layer may be narrower
    return found


def learned(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of a network's state dict all but the frozen weights; random matrices that all layers share once.

    Parameters
    ----------
    model : torch.nn.Module
    state : mapping
    """
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    shared = {name for name in state if name.endswith((".randlora_A.default", ".randlora_B.default"))}
    once = {name.rsplit(".", 2)[-2]: name for name in sorted(shared, reverse=True)}
    return {n: value for n, value in state.items() if n not in frozen and (n not in shared or n in once.values())}


def fingerprint(model: nn.Module) -> str:
    """SHA-256 of the frozen weights, by which a checkpoint knows them again.

    Parameters
    ----------
    model : torch.nn.Module
    """
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def load_learned(model: nn.Module, entry: Mapping[str, Any]) -> None:
    """Load what a checkpoint learned into an adapted network, and then dissolve the adapters into its weights.

    Parameters
    ----------
    model : torch.nn.Module
        With its frozen weights, after `adapt`.
    entry : mapping
        A checkpoint's ``model``.

    Raises
    ------
    ValueError
        If the frozen weights are others than those it was trained with, or the learned ones do not fit.
    """
    if fingerprint(model) != entry["frozen"]:
        raise ValueError(
            f"the checkpoint holds an adapter alone, of the weights at {entry['base']['arguments'].get('path')}, and "
            "those have changed since: put back the file that it was trained from"
        )
    expected = learned(model, model.state_dict()).keys()
    if expected != entry["state"].keys():
        differing = sorted(expected ^ entry["state"].keys())
        raise ValueError(
            f"the checkpoint's adapter has other weights than {entry['adapter']['name']!r} has here "
            f"({', '.join(differing[:3])}): it was written with another version of peft, or is damaged"
        )
    model.load_state_dict(dict(entry["state"]), strict=False)
    for name, layer in list(model.named_modules()):
        if hasattr(layer, "merge") and hasattr(layer, "get_base_layer"):
            layer.merge()
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer.get_base_layer())
