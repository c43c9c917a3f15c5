"""AdamW that counts a complex number as one number."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class ComplexAdamW(Optimizer):
    r"""AdamW whose second moment of a complex weight is that of its modulus.

    With the gradient :math:`g = \partial L / \partial \Re w + i\, \partial L / \partial \Im w` of step ``t``, in
    complex arithmetic,

    .. math:: m &\leftarrow \beta_1 m + (1 - \beta_1) g, \qquad
              v \leftarrow \beta_2 v + (1 - \beta_2) |g|^2 \\
              w &\leftarrow (1 - \eta \lambda) w
                - \eta \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \varepsilon}

    so that a step does not depend on which axes of the complex plane the weight is written in: multiply a weight and
    its gradients by ``exp(i a)``, and every step is multiplied by it too. `torch.optim.AdamW` scales real and
    imaginary parts each by itself and has no such symmetry.

    It is the rule of neuraloperator's ``AdamW`` [1]_ (``g * conj(g)``, eps 1e-6), with two differences, both towards
    `torch.optim.AdamW`, with which it agrees where a group is real: there `eps` is added before the bias of ``v`` is
    corrected, so that in the first steps it is up to 1 / sqrt(1 - beta2) = 32 times as large, and the weights decay
    after the step.

    Parameters
    ----------
    params : iterable of Parameter, or of groups
        Of a group with ``complex_pairs`` true, the last axis of every parameter holds real and imaginary part.
        `operators.optimizers.build_optimizer` makes such a group of a model's spectral weights.
    lr : float
        ``eta``.
    betas : (float, float)
    eps : float
    weight_decay : float
        ``lambda``, decoupled [2]_.

    Raises
    ------
    ValueError
        If a number is out of range, or a parameter of complex pairs has another last axis than 2.

    Examples
    --------
    >>> weight = torch.nn.Parameter(torch.tensor([[1.0, 0.0]]))
    >>> optimizer = ComplexAdamW([{"params": [weight], "complex_pairs": True}], lr=0.1)
    >>> weight.grad = torch.tensor([[3.0, 4.0]])
    >>> optimizer.step()
    >>> weight.data  # a step of length 0.1 along (3, 4); Adam would go by (0.1, 0.1)
    tensor([[ 0.9400, -0.0800]])

    References
    ----------
    .. [1] neuraloperator 2.0.0, ``neuralop/training/adamw.py``.
    .. [2] I. Loshchilov and F. Hutter, Decoupled weight decay regularization, ICLR 2019, arXiv:1711.05101,
       algorithm 2.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        for name, value in (("lr", lr), ("eps", eps), ("weight_decay", weight_decay)):
            if not value >= 0.0:
                raise ValueError(f"optimizer.{name} must not be negative, got {value}")
        if not all(0.0 <= beta < 1.0 for beta in betas):
            raise ValueError(f"optimizer.betas must lie in [0, 1), got {list(betas)}")
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "complex_pairs": False}
        super().__init__(params, defaults)
        for group in self.param_groups:
            for parameter in group["params"]:
                if group["complex_pairs"] and parameter.shape[-1:] != (2,):
                    raise ValueError(
                        "a parameter of complex pairs must have the last axis (real, imaginary), got shape "
                        f"{tuple(parameter.shape)}"
                    )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step.

        Parameters
        ----------
        closure : callable, optional
            Evaluates the model again and returns the loss.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        square = _modulus_squared(gradient) if group["complex_pairs"] else gradient.square()
        if not state:
            state.update(step=0, exp_avg=torch.zeros_like(gradient), exp_avg_sq=torch.zeros_like(square))
        state["step"] += 1
        beta1, beta2 = group["betas"]
        state["exp_avg"].lerp_(gradient, 1.0 - beta1)
        state["exp_avg_sq"].lerp_(square, 1.0 - beta2)
        scale = math.sqrt(1.0 - beta2 ** state["step"])
        denominator = state["exp_avg_sq"].sqrt().div_(scale).add_(group["eps"])
        parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
        # A modulus has length 1 along the last axis and meets both parts by broadcasting.
        size = group["lr"] / (1.0 - beta1 ** state["step"])
        parameter.addcdiv_(state["exp_avg"], denominator, value=-size)


def _modulus_squared(pairs: Tensor) -> Tensor:
    """``|z|^2``, shape (..., 1), of complex numbers as real pairs (..., 2)."""
    return pairs.square().sum(dim=-1, keepdim=True)
