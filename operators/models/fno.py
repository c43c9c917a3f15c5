"""Fourier neural operators, dense (FNO) and tensorised (TFNO), in any number of dimensions."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from operators.layers.pointwise import ChannelMLP, SoftGate, append_coordinates, crop_domain, pad_domain
from operators.layers.spectral_convolution import SpectralConvolution


def _skip(kind: str, channels: int, argument: str) -> nn.Module:
    if kind == "linear":
        return nn.Linear(channels, channels, bias=False)
    if kind == "soft-gating":
        return SoftGate(channels)
    if kind == "identity":
        return nn.Identity()
    raise ValueError(f"{argument} must be 'linear', 'soft-gating' or 'identity', got {kind!r}")


class FNOBlock(nn.Module):
    r"""One Fourier layer: spectral convolution, channel perceptron, and a skip around each.

    .. math:: h &= \sigma(\mathrm{Spectral}(x) + b + \mathrm{skip}_1(x)) \\
              y &= \sigma(\mathrm{MLP}(h) + \mathrm{skip}_2(x))

    with ``sigma`` = GELU, left out in the last block.

    Parameters
    ----------
    channels : int
    n_modes, factorization, rank
        See `SpectralConvolution`.
    mlp_channels : int
        Hidden width of the perceptron.
    fno_skip, channel_mlp_skip : {"linear", "soft-gating", "identity"}
    activate : bool
        False in the last block.
    """

    def __init__(
        self,
        channels: int,
        n_modes: Sequence[int],
        mlp_channels: int,
        fno_skip: str,
        channel_mlp_skip: str,
        factorization: str | None,
        rank: float | Sequence[int],
        activate: bool,
    ) -> None:
        super().__init__()
        self.convolution = SpectralConvolution(channels, channels, n_modes, factorization, rank)
        self.skip = _skip(fno_skip, channels, "fno_skip")
        self.mlp = ChannelMLP(channels, channels, mlp_channels)
        self.mlp_skip = _skip(channel_mlp_skip, channels, "channel_mlp_skip")
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, *grid, channels)`` to the same shape."""
        if isinstance(self.skip, nn.Linear):
            onto = functional.linear(x, self.skip.weight, self.convolution.bias)
        else:
            onto = self.skip(x) + self.convolution.bias
        hidden = self.convolution(x, onto)
        if self.activate:
            hidden = functional.gelu(hidden)
        if isinstance(self.mlp_skip, SoftGate):
            y = torch.addcmul(self.mlp(hidden), self.mlp_skip.weight, x)
        else:
            y = self.mlp(hidden) + self.mlp_skip(x)
        return functional.gelu(y) if self.activate else y


class FNO(nn.Module):
    """Fourier neural operator [1]_: lift, apply Fourier layers, project; works on any grid with the same weights.

    Argument names, defaults and initial distributions are those of neuraloperator 2.x, and so is the function: with
    the same weights the outputs agree to rounding (see `SpectralConvolution` for the grids on which its 2.0.0 does
    otherwise).

    Parameters
    ----------
    n_modes : sequence of int
        Fourier modes kept of each axis; its length is the number of dimensions.
    in_channels, out_channels, hidden_channels : int
    n_layers : int
        Fourier layers.
    lifting_channel_ratio, projection_channel_ratio : float
        Hidden width of the lifting and projecting perceptrons, over `hidden_channels`.
    positional_embedding : {"grid", None}
        Whether coordinates are appended to the input. Without them, and without padding, the operator commutes with
        translations of periodic fields.
    channel_mlp_expansion : float
        Hidden width of each layer's channel perceptron, over `hidden_channels`.
    fno_skip, channel_mlp_skip : {"linear", "soft-gating", "identity"}
        The skip connections around spectral convolution and channel perceptron.
    factorization : {None, "tucker"}
        How spectral weights are stored.
    rank : float or sequence of int
        Of the factorisation: the fraction of the dense parameter count, or the ranks.
    domain_padding : float, sequence of float or None
        Zeros put on both sides of every axis (of each axis), as a fraction of its points, for fields that are not
        periodic.

    Raises
    ------
    ValueError
        If an argument is out of range, or an input does not fit in channels or dimensions.

    Examples
    --------
    >>> model = FNO(n_modes=(16, 16), in_channels=1, out_channels=1, hidden_channels=32)
    >>> sum(p.numel() for p in model.parameters())
    1192801
    >>> model(torch.zeros(2, 1, 20, 24)).shape
    torch.Size([2, 1, 20, 24])

    References
    ----------
    .. [1] Z. Li et al., Fourier neural operator for parametric partial differential equations, ICLR 2021,
       arXiv:2010.08895.
    .. [2] J. Kossaifi et al., A library for learning neural operators, arXiv:2412.10354.
    """

    def __init__(
        self,
        n_modes: Sequence[int],
        in_channels: int,
        out_channels: int,
        hidden_channels: int,
        n_layers: int = 4,
        lifting_channel_ratio: float = 2,
        projection_channel_ratio: float = 2,
        positional_embedding: str | None = "grid",
        channel_mlp_expansion: float = 0.5,
        fno_skip: str = "linear",
        channel_mlp_skip: str = "soft-gating",
        factorization: str | None = None,
        rank: float | Sequence[int] = 1.0,
        domain_padding: float | Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if isinstance(n_modes, int) or not n_modes or min(n_modes) < 1:
            raise ValueError(f"n_modes must list a positive number of modes for each axis, got {n_modes}")
        counts = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "hidden_channels": hidden_channels,
            "n_layers": n_layers,
        }
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if positional_embedding not in ("grid", None):
            raise ValueError(f"positional_embedding must be 'grid' or None, got {positional_embedding!r}")
        dimensions = len(n_modes)
        if domain_padding is None:
            padding = [0.0] * dimensions
        elif isinstance(domain_padding, Sequence):
            padding = [float(fraction) for fraction in domain_padding]
        else:
            padding = [float(domain_padding)] * dimensions
        if len(padding) != dimensions or min(padding) < 0:
            raise ValueError(
                f"domain_padding must be one fraction >= 0, or one for each of {dimensions} axes, got {domain_padding}"
            )

        self.n_modes = tuple(n_modes)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.positional_embedding = positional_embedding
        self.domain_padding = padding
        embedded_channels = in_channels + (dimensions if positional_embedding else 0)
        self.lifting = ChannelMLP(embedded_channels, hidden_channels, int(lifting_channel_ratio * hidden_channels))
        self.blocks = nn.ModuleList(
            FNOBlock(
                hidden_channels,
                self.n_modes,
                mlp_channels=round(hidden_channels * channel_mlp_expansion),
                fno_skip=fno_skip,
                channel_mlp_skip=channel_mlp_skip,
                factorization=factorization,
                rank=rank,
                activate=layer < n_layers - 1,
            )
            for layer in range(n_layers)
        )
        self.projection = ChannelMLP(hidden_channels, out_channels, int(projection_channel_ratio * hidden_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the operator.

        Parameters
        ----------
        x : Tensor, shape (batch, in_channels, *grid)
            Any grid; one with fewer points than modes uses the modes it has.

        Returns
        -------
        Tensor, shape (batch, out_channels, *grid)
        """
        if x.ndim != len(self.n_modes) + 2 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"expected input of shape (batch, {self.in_channels} channels, and {len(self.n_modes)} grid axes as "
                f"n_modes={list(self.n_modes)} has), got {tuple(x.shape)}; n_modes needs one entry for each grid axis"
            )
        x = x.movedim(1, -1)
        if self.positional_embedding:
            x = append_coordinates(x)
        x = self.lifting(x)
        widths = [round(fraction * n) for fraction, n in zip(self.domain_padding, x.shape[1:-1], strict=True)]
        if any(widths):
            x = pad_domain(x, widths)
        for block in self.blocks:
            x = block(x)
        if any(widths):
            x = crop_domain(x, widths)
        return self.projection(x).movedim(-1, 1)


TFNO = partial(FNO, factorization="tucker", rank=0.1)
"""Tensorised FNO: an `FNO` whose spectral weights are in Tucker form, with a tenth of the dense parameters."""
