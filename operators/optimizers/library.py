"""Optimizers of the library pytorch-optimizer (extra ``optimizers``), under the arguments a configuration needs.

All take parameters or parameter groups, as torch's do. Spectral weights are real tensors ``(..., 2)`` to them.
"""

from importlib import import_module
from typing import Any

from torch.optim import Optimizer


def _library(name: str) -> Any:
    """A class of pytorch-optimizer; imported late, as that takes seconds and the library is an extra."""
    try:
        return getattr(import_module("pytorch_optimizer"), name)
    except ModuleNotFoundError as error:
        if error.name != "pytorch_optimizer":
            raise
        raise ValueError(
            f"optimizer {name} is that of the library pytorch-optimizer, which is not installed; "
            'pip install "southwell[optimizers]", or choose optimizer=adamw'
        ) from None


def soap(
    parameters: Any,
    lr: float = 1e-2,
    betas: tuple[float, float] = (0.95, 0.95),
    weight_decay: float = 0.0,
    precondition_frequency: int = 10,
) -> Optimizer:
    """SOAP: Adam in the eigenbasis of Shampoo's preconditioner [1]_.

    Every axis of a weight has its basis, renewed by one QR iteration each `precondition_frequency` steps. The first
    step only measures.

    Parameters
    ----------
    parameters : iterable of Parameter, or of groups
    lr : float
    betas : (float, float)
        Of the moments; the second also of the preconditioner.
    weight_decay : float
        Decoupled.
    precondition_frequency : int

    References
    ----------
    .. [1] N. Vyas et al., SOAP: improving and stabilizing Shampoo using Adam, ICLR 2025, arXiv:2409.11321.
    """
    optimizer: Optimizer = _library("SOAP")(
        parameters, lr=lr, betas=betas, weight_decay=weight_decay, precondition_frequency=precondition_frequency
    )
    return optimizer


def muon(
    parameters: Any,
    lr: float = 1e-2,
    betas: tuple[float, float] = (0.9, 0.95),
    momentum: float = 0.95,
    weight_decay: float = 0.0,
    eps: float = 1e-8,
) -> Optimizer:
    """Muon for matrices [1]_, AdamW for all else.

    A matrix moves along the orthogonal factor of its momentum, scaled by ``0.2 sqrt(max(rows, columns))`` [2]_: its
    entries then move as far as AdamW's do, and one learning rate, and one decay, serve both.

    Parameters
    ----------
    parameters : iterable of groups
        Each with the key ``use_muon``; `operators.optimizers.build_optimizer` makes them, see `matrix_parameters`.
    lr : float
        Of both.
    weight_decay : float
        Of both, decoupled.
    betas : (float, float)
        Of AdamW.
    momentum : float
        Of Muon.
    eps : float
        Of AdamW.

    References
    ----------
    .. [1] K. Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024.
    .. [2] J. Liu et al., Muon is scalable for LLM training, arXiv:2502.16982, section 2.2.
    """
    groups = [
        {"lr": lr, "weight_decay": weight_decay}
        | group
        | (
            {"momentum": momentum, "use_adjusted_lr": True}
            if group["use_muon"]
            else {"betas": tuple(betas), "eps": eps}
        )
        for group in parameters
    ]
    optimizer: Optimizer = _library("Muon")(groups)
    return optimizer


def adahessian(
    parameters: Any,
    lr: float = 0.1,
    betas: tuple[float, float] = (0.9, 0.999),
    weight_decay: float = 0.0,
    hessian_power: float = 1.0,
    update_period: int = 1,
    eps: float = 1e-4,
) -> Optimizer:
    """AdaHessian: Adam with the Hessian's diagonal in place of the gradient's square [1]_.

    The diagonal is Hutchinson's estimate from one random vector, every `update_period` steps: a step costs
    about four of AdamW's (of an FNO, measured) and holds the graph of the gradient. Gradients must come from
    `operators.optimizers.backward`. `eps` is the authors' (the library's 1e-16 lets one small estimate of the
    curvature throw a weight far away), who also average the estimate over each convolution's kernel; the library
    does not.

    Parameters
    ----------
    parameters : iterable of Parameter, or of groups
    lr : float
    betas : (float, float)
        Of the gradient and of the squared diagonal.
    weight_decay : float
        Decoupled.
    hessian_power : float in (0, 1]
        Of the diagonal that a step is divided by: 1 is Newton's method.
    update_period : int
    eps : float
        Added to the diagonal's modulus.

    References
    ----------
    .. [1] Z. Yao et al., ADAHESSIAN: an adaptive second order optimizer for machine learning, AAAI 2021,
       arXiv:2006.00719, algorithm 1.
    """
    optimizer: Optimizer = _library("AdaHessian")(
        parameters,
        lr=lr,
        betas=betas,
        weight_decay=weight_decay,
        hessian_power=hessian_power,
        update_period=update_period,
        eps=eps,
    )
    optimizer.second_order = True  # type: ignore[attr-defined]
    return optimizer


def adamp(
    parameters: Any,
    lr: float = 3e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    weight_decay: float = 0.0,
    delta: float = 0.1,
    wd_ratio: float = 0.1,
) -> Optimizer:
    """AdamP: Adam without the part of a step that only lengthens a scale-invariant weight [1]_.

    Such are weights before a normalisation layer. They are told by a gradient nearly at right angles to the weight
    (cosine below ``delta / sqrt(entries)``), and decay by `wd_ratio` of the rest's.

    Parameters
    ----------
    parameters : iterable of Parameter, or of groups
    lr : float
    betas : (float, float)
    weight_decay : float
        Decoupled.
    delta, wd_ratio : float

    References
    ----------
    .. [1] B. Heo et al., AdamP: slowing down the slowdown for momentum optimizers on scale-invariant weights,
       ICLR 2021, arXiv:2006.08217.
    """
    optimizer: Optimizer = _library("AdamP")(
        parameters, lr=lr, betas=betas, weight_decay=weight_decay, delta=delta, wd_ratio=wd_ratio
    )
    return optimizer


def shampoo(
    parameters: Any,
    lr: float = 0.1,
    weight_decay: float = 0.0,
    precondition_frequency: int = 1,
    eps: float = 1e-6,
) -> Optimizer:
    """Shampoo: a preconditioner for each axis of a weight [1]_.

    The gradient is multiplied along each of its ``k`` axes by the ``-1/(2k)``-th power of the sum of its past outer
    products, renewed every `precondition_frequency` steps; before the first renewal nothing moves. There is no
    momentum: the library's mixes raw gradients with steps already preconditioned, and diverged wherever it was tried.

    Parameters
    ----------
    parameters : iterable of Parameter, or of groups
    lr : float
    weight_decay : float
        Added to the gradient.
    precondition_frequency : int
    eps : float
        The preconditioner's start, times the identity.

    References
    ----------
    .. [1] V. Gupta, T. Koren, Y. Singer, Shampoo: preconditioned stochastic tensor optimization, ICML 2018,
       arXiv:1802.09568, algorithm 2.
    """
    optimizer: Optimizer = _library("Shampoo")(
        parameters,
        lr=lr,
        weight_decay=weight_decay,
        preconditioning_compute_steps=precondition_frequency,
        matrix_eps=eps,
    )
    return optimizer
