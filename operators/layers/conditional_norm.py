r"""Layer normalisation whose gain and shift may depend on the lead time.

.. math:: y = (w_1 t + w_0) \odot \frac{x - \mu(x)}{\sqrt{\sigma^2(x) + \varepsilon}} + (b_1 t + b_0)

over the channels of each token, with the biased variance. The official scOT computes the variance as
:math:`E[x^2] - E[x]^2`, which in single precision loses all digits once the mean is some thousand deviations; torch's
kernel sums deviations from the mean. Both are the same function.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class ConditionalLayerNorm(nn.Module):
    """Layer normalisation with gain and shift affine in the lead time.

    Its state has the names ``weight.weight``, ``weight.bias``, ``bias.weight``, ``bias.bias``: gain and shift are each
    a linear layer of one input.

    Parameters
    ----------
    channels : int
    eps : float
        Added to the variance.

    Examples
    --------
    >>> norm = ConditionalLayerNorm(8)
    >>> norm(torch.randn(3, 4, 4, 8), torch.tensor([[0.0], [0.5], [1.0]])).shape
    torch.Size([3, 4, 4, 8])

    References
    ----------
    .. [1] M. Herde et al., Poseidon: efficient foundation models for PDEs, NeurIPS 2024, arXiv:2405.19101, equation 5.
    """

    time_conditioning = True  # read by the parameter grouping "poseidon"

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Linear(1, channels)
        self.bias = nn.Linear(1, channels)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Normalise.

        Parameters
        ----------
        x : Tensor, shape (batch, *grid, channels)
        time : Tensor, shape (batch, 1)
        """
        channels = x.shape[-1:]
        gain, shift = self.weight(time), self.bias(time)
        if len(x) == 1:  # torch's kernel takes one gain
            return functional.layer_norm(x, channels, gain[0], shift[0], self.eps)
        each = (len(x), *[1] * (x.ndim - 2), -1)
        return torch.addcmul(shift.view(each), gain.view(each), functional.layer_norm(x, channels, eps=self.eps))


class UnconditionalLayerNorm(nn.LayerNorm):
    """`torch.nn.LayerNorm` called like `ConditionalLayerNorm`: the time is not looked at."""

    def forward(self, x: Tensor, time: Tensor) -> Tensor:  # type: ignore[override]
        """Normalise ``(batch, *grid, channels)``."""
        return super().forward(x)
