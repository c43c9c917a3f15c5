"""Fourier neural operators, dense (FNO) and tensorised (TFNO), in any number of dimensions."""

import warnings
from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from operators.layers.channel_linear import ChannelLinear
from operators.layers.fno_block import FNOBlock
from operators.layers.pointwise import ChannelMLP, append_coordinates, crop_domain, pad_domain


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
        Hidden width of the lifting and projecting perceptrons, over `hidden_channels`; with a lifting ratio of 0 the
        lifting is linear.
    positional_embedding : {"grid", None}
        Whether coordinates are appended to the input. Without them, and without padding, the operator commutes with
        translations of periodic fields.
    non_linearity : {"gelu", "relu", "silu", "tanh", "elu", "leaky_relu"}
    norm : {"instance_norm", "group_norm", "batch_norm", None}
        Two in each Fourier layer; see `operators.layers.norms`.
    use_channel_mlp : bool
        Whether each Fourier layer ends in a perceptron over the channels.
    channel_mlp_expansion : float
        Hidden width of that perceptron, over `hidden_channels`.
    channel_mlp_skip, fno_skip : {"linear", "soft-gating", "identity", None}
        The skip connections around channel perceptron and spectral convolution.
    domain_padding : float, sequence of float or None
        Zeros put on both sides of every axis (of each axis), as a fraction of its points, for fields that are not
        periodic.
    stabilizer : {"tanh", None}
        Whether spectral convolutions see their input through the hyperbolic tangent.
    factorization : {None, "tucker", "cp", "tt"}
        How spectral weights are stored.
    rank : float or sequence of int
        Of the factorisation: the fraction of the dense parameter count, or the ranks.
    separable : bool
        Whether spectral convolutions leave each channel to itself.
    preactivation : bool
        Whether activation and norm come before the spectral convolution; see `operators.layers.fno_block.FNOBlock`.

    Raises
    ------
    ValueError
        If an argument is out of range, or an input does not fit in channels or dimensions.

    Examples
    --------
    >>> import torch
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
        non_linearity: str = "gelu",
        norm: str | None = None,
        use_channel_mlp: bool = True,
        channel_mlp_expansion: float = 0.5,
        channel_mlp_skip: str | None = "soft-gating",
        fno_skip: str | None = "linear",
        domain_padding: float | Sequence[float] | None = None,
        stabilizer: str | None = None,
        factorization: str | None = None,
        rank: float | Sequence[int] = 1.0,
        separable: bool = False,
        preactivation: bool = False,
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
        lifting_channels = int(lifting_channel_ratio * hidden_channels)
        self.lifting: nn.Module = ChannelLinear(embedded_channels, hidden_channels)
        if lifting_channels:
            self.lifting = ChannelMLP(embedded_channels, hidden_channels, lifting_channels, non_linearity)
        self.blocks = nn.ModuleList(
            FNOBlock(
                hidden_channels,
                self.n_modes,
                mlp_channels=round(hidden_channels * channel_mlp_expansion) if use_channel_mlp else None,
                fno_skip=fno_skip,
                channel_mlp_skip=channel_mlp_skip,
                norm=norm,
                non_linearity=non_linearity,
                stabilizer=stabilizer,
                factorization=factorization,
                rank=rank,
                separable=separable,
                preactivation=preactivation,
                last=layer == n_layers - 1,
            )
            for layer in range(n_layers)
        )
        projection_channels = int(projection_channel_ratio * hidden_channels)
        self.projection = ChannelMLP(hidden_channels, out_channels, projection_channels, non_linearity)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the operator.

        Parameters
        ----------
        x : Tensor, shape (batch, in_channels, *grid)
            Any grid; one with fewer points than modes uses the modes it has, with a warning.

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
        self._warn_of_modes_beyond(x.shape[1:-1])
        for block in self.blocks:
            x = block(x)
        if any(widths):
            x = crop_domain(x, widths)
        return self.projection(x).movedim(-1, 1)

    def _warn_of_modes_beyond(self, grid: Sequence[int]) -> None:
        carried = [min(m, n) for m, n in zip(self.n_modes, grid, strict=True)]
        if carried != list(self.n_modes):
            warnings.warn(
                f"n_modes={list(self.n_modes)}, but a grid of {' x '.join(map(str, grid))} points carries {carried} "
                "modes; the weights of those above are not used on it",
                stacklevel=3,
            )


TFNO = partial(FNO, factorization="tucker", rank=0.1)
"""Tensorised FNO: an `FNO` whose spectral weights are in Tucker form, with a tenth of the dense parameters."""
