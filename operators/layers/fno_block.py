"""One layer of a Fourier neural operator."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from operators.layers.channel_linear import ChannelLinear, channel_linear
from operators.layers.norms import make_norm
from operators.layers.pointwise import ChannelMLP, SoftGate, gated_sum, make_activation
from operators.layers.spectral_convolution import SpectralConvolution


def _skip(kind: str | None, channels: int, argument: str) -> nn.Module | None:
    match kind:
        case "linear":
            return ChannelLinear(channels, channels, bias=False)
        case "soft-gating":
            return SoftGate(channels)
        case "identity":
            return nn.Identity()
        case None:
            return None
    raise ValueError(f"{argument} must be 'linear', 'soft-gating', 'identity' or null, got {kind!r}")


class FNOBlock(nn.Module):
    r"""One Fourier layer: spectral convolution, channel perceptron, and a skip around each.

    .. math:: h &= \sigma(N_1(\mathrm{Spectral}(x) + b) + \mathrm{skip}_1(x)) \\
              y &= \sigma(N_2(\mathrm{MLP}(h) + \mathrm{skip}_2(x)))

    with norms ``N`` and an activation ``sigma``, which is left out in the last block. With `preactivation`,

    .. math:: z &= N_1(\sigma(x)) \\
              h &= N_2(\sigma(\mathrm{Spectral}(z) + b + \mathrm{skip}_1(z))) \\
              y &= \mathrm{MLP}(h) + \mathrm{skip}_2(z)

    where the last block leaves out the second ``sigma`` only.

    Parameters
    ----------
    channels : int
    n_modes, factorization, rank, separable
        See `SpectralConvolution`.
    mlp_channels : int or None
        Hidden width of the perceptron, whose activation is GELU; None for no perceptron, ``y = sigma(N_2(h))``.
    fno_skip, channel_mlp_skip : {"linear", "soft-gating", "identity", None}
    norm : {"instance_norm", "group_norm", "batch_norm", None}
        See `operators.layers.norms`.
    non_linearity : str
        See `operators.layers.pointwise.ACTIVATION`.
    stabilizer : {"tanh", None}
        Whether the spectral convolution's input goes through the hyperbolic tangent.
    preactivation : bool
    last : bool
    """

    def __init__(
        self,
        channels: int,
        n_modes: Sequence[int],
        mlp_channels: int | None,
        fno_skip: str | None,
        channel_mlp_skip: str | None,
        norm: str | None,
        non_linearity: str,
        stabilizer: str | None,
        factorization: str | None,
        rank: float | Sequence[int],
        separable: bool,
        preactivation: bool,
        last: bool,
    ) -> None:
        super().__init__()
        if stabilizer not in ("tanh", None):
            raise ValueError(f"stabilizer must be 'tanh' or null, got {stabilizer!r}")
        self.convolution = SpectralConvolution(channels, channels, n_modes, factorization, rank, separable)
        self.skip = _skip(fno_skip, channels, "fno_skip")
        self.mlp = None if mlp_channels is None else ChannelMLP(channels, channels, mlp_channels)
        self.mlp_skip = None if mlp_channels is None else _skip(channel_mlp_skip, channels, "channel_mlp_skip")
        self.norms = nn.ModuleList(make_norm(norm, channels) for _ in range(2))
        self.normalises = norm is not None
        self.activation = make_activation(non_linearity, "non_linearity")
        self.stabilizer = stabilizer
        self.preactivation = preactivation
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, *grid, channels)`` to the same shape."""
        if self.preactivation:
            x = self.norms[0](self.activation(x))
        hidden = self._convolve(x)
        if not self.last:
            hidden = self.activation(hidden)
        if self.preactivation:
            return self._mix(self.norms[1](hidden), x)
        y = self.norms[1](self._mix(hidden, x))
        return y if self.last else self.activation(y)

    def _convolve(self, x: Tensor) -> Tensor:
        convolution = self.convolution
        stable = torch.tanh(x) if self.stabilizer else x
        if self.normalises and not self.preactivation:
            hidden = self.norms[0](convolution(stable, convolution.bias.expand_as(x)))
            return hidden if self.skip is None else hidden + self.skip(x)
        # Skip and bias are one product, which the inverse transform is accumulated onto.
        if isinstance(self.skip, ChannelLinear):
            onto = channel_linear(x, self.skip.weight, convolution.bias)
            return convolution(stable, onto, overwrite=True)
        if self.skip is None:
            onto = convolution.bias.expand_as(x)
        else:
            onto = self.skip(x) + convolution.bias
        return convolution(stable, onto)

    def _mix(self, hidden: Tensor, x: Tensor) -> Tensor:
        if self.mlp is None:
            return hidden
        y = self.mlp(hidden)
        if self.mlp_skip is None:
            return y
        if isinstance(self.mlp_skip, SoftGate):
            return gated_sum(y, self.mlp_skip.weight, x, overwrite=True)
        return y + self.mlp_skip(x)
