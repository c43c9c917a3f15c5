"""U-Net, the plain convolutional baseline, in one, two or three dimensions."""

import torch
from torch import Tensor, nn

from operators.layers.boundary import PADDING_MODES, check_boundary, crop, extend, to_multiple
from operators.layers.by_dimension import BATCH_NORM, CONVOLUTION, MAX_POOL, TRANSPOSED_CONVOLUTION
from operators.layers.pointwise import make_activation


def _norm(kind: str | None, dimensions: int, channels: int) -> nn.Module:
    if kind == "batch":
        return BATCH_NORM[dimensions](channels)
    if kind == "group":  # at most 8 groups, and as many as divide the channels
        return nn.GroupNorm(next(groups for groups in range(8, 0, -1) if channels % groups == 0), channels)
    if kind == "layer":  # all channels and points of a sample together
        return nn.GroupNorm(1, channels)
    if kind is None:
        return nn.Identity()
    raise ValueError(f"norm must be 'batch', 'group', 'layer' or null, got {kind!r}")


class UNet(nn.Module):
    r"""U-Net [1]_: an encoder that halves the grid, a decoder that doubles it, and a skip between them at every level.

    Level ``l`` works on ``w_l = width * 2**l`` channels by two convolutions over ``3^d`` points, each with norm and
    activation. On the way down the maximum over ``2^d`` points is taken; on the way up a transposed convolution with
    stride 2 doubles the grid, and what the encoder had at that level is appended to its channels. With batch norm and
    "tanh" it is the U-Net of PDEBench [2]_.

    Any grid is taken: it is continued (`boundary`) to a multiple of ``2**levels``, and the output is cropped.

    Parameters
    ----------
    in_channels, out_channels : int
    dimensions : {1, 2, 3}
        Axes of the grid.
    width : int
        Channels of the finest level.
    levels : int
        How often the grid is halved.
    norm : {"batch", "group", "layer", None}
        After each convolution: over batch and points; over points and groups of channels (8 where they divide the
        channels); over points and channels; none, and a bias in its place.
    activation : {"gelu", "relu", "silu", "tanh", "elu", "leaky_relu"}
    boundary : {"zero", "periodic", "replicate"}
        How fields go on beyond the grid, for convolutions too.

    Raises
    ------
    ValueError
        If an argument is out of range, or an input does not fit in channels or dimensions.

    Notes
    -----
    With ``c`` input and ``o`` output channels, ``L`` levels and a norm there are

    .. math:: \sum_{l=0}^{L} \bigl[3^d (w_{l-1} w_l + w_l^2) + 4 w_l\bigr]
              + \sum_{l=0}^{L-1} \bigl[2^d w_{l+1} w_l + w_l + 3^{d+1} w_l^2 + 4 w_l\bigr] + (w_0 + 1)\, o

    parameters, where ``w_{-1} = c``.

    Examples
    --------
    >>> model = UNet(1, 1, width=32)
    >>> sum(p.numel() for p in model.parameters())
    7762465
    >>> model(torch.zeros(2, 1, 20, 37)).shape
    torch.Size([2, 1, 20, 37])

    References
    ----------
    .. [1] O. Ronneberger, P. Fischer, T. Brox, U-Net: convolutional networks for biomedical image segmentation,
       MICCAI 2015, arXiv:1505.04597.
    .. [2] M. Takamoto et al., PDEBench: an extensive benchmark for scientific machine learning, NeurIPS 2022,
       arXiv:2210.07182.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        dimensions: int = 2,
        width: int = 32,
        levels: int = 4,
        norm: str | None = "batch",
        activation: str = "gelu",
        boundary: str = "zero",
    ) -> None:
        super().__init__()
        counts = {"in_channels": in_channels, "out_channels": out_channels, "width": width, "levels": levels}
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if dimensions not in CONVOLUTION:
            raise ValueError(f"dimensions must be 1, 2 or 3, got {dimensions}")
        check_boundary(boundary)

        self.in_channels = in_channels
        self.dimensions = dimensions
        self.norm = norm
        self.boundary = boundary

        def stage(channels_in: int, channels_out: int) -> nn.Sequential:
            layers: list[nn.Module] = []
            for channels in (channels_in, channels_out):
                layers += [
                    CONVOLUTION[dimensions](
                        channels,
                        channels_out,
                        kernel_size=3,
                        padding=1,
                        padding_mode=PADDING_MODES[boundary],
                        bias=norm is None,
                    ),
                    _norm(norm, dimensions, channels_out),
                    make_activation(activation),
                ]
            return nn.Sequential(*layers)

        widths = [width * 2**level for level in range(levels + 1)]
        self.encoder = nn.ModuleList(
            stage(before, channels) for before, channels in zip([in_channels, *widths[:-1]], widths, strict=True)
        )
        self.upsampling = nn.ModuleList(
            TRANSPOSED_CONVOLUTION[dimensions](2 * channels, channels, kernel_size=2, stride=2)
            for channels in widths[:-1]
        )
        self.decoder = nn.ModuleList(stage(2 * channels, channels) for channels in widths[:-1])
        self.head = CONVOLUTION[dimensions](width, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the network.

        Parameters
        ----------
        x : Tensor, shape (batch, in_channels, *grid)

        Returns
        -------
        Tensor, shape (batch, out_channels, *grid)
        """
        if x.ndim != self.dimensions + 2 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"expected input of shape (batch, {self.in_channels} channels, and {self.dimensions} grid axes as "
                f"dimensions={self.dimensions} says), got {tuple(x.shape)}"
            )
        multiple = 2 ** len(self.decoder)
        widths = to_multiple(x.shape[2:], [multiple] * self.dimensions)
        x = extend(x, widths, self.boundary)
        if self.norm == "batch" and self.training and x.shape[0] * x[0, 0].numel() == multiple**self.dimensions:
            raise ValueError(
                f"one sample of {tuple(x.shape[2:])} points has a single point on the coarsest of {len(self.decoder)} "
                "levels, of which batch norm can take no statistics; train with larger batches, fewer levels or "
                "norm='group'"
            )
        skips = []
        for level, stage in enumerate(self.encoder):
            x = stage(MAX_POOL[self.dimensions](x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for stage, double in zip(reversed(self.decoder), reversed(self.upsampling), strict=True):
            x = stage(torch.cat([double(x), skips.pop()], dim=1))
        return crop(self.head(x), widths)
