"""Latent spectral model: a U-Net whose skips pass through neural spectral blocks, in one, two or three dimensions."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from operators.layers.boundary import crop, extend
from operators.layers.by_dimension import BATCH_NORM, CONVOLUTION, LINEAR_INTERPOLATION, MAX_POOL
from operators.layers.channel_linear import channel_linear
from operators.layers.neural_spectral_block import NeuralSpectralBlock
from operators.layers.pointwise import append_coordinates
from operators.layers.slabs import by_slabs

HALVINGS = 4


class DoubleConvolution(nn.Module):
    """Twice: convolution over 3 points an axis without bias, batch norm, ReLU.

    Parameters
    ----------
    dimensions : int
    in_channels, out_channels, middle_channels : int
    """

    def __init__(self, dimensions: int, in_channels: int, out_channels: int, middle_channels: int) -> None:
        super().__init__()
        self.double_conv = nn.Sequential(
            CONVOLUTION[dimensions](in_channels, middle_channels, kernel_size=3, padding=1, bias=False),
            BATCH_NORM[dimensions](middle_channels),
            nn.ReLU(inplace=True),
            CONVOLUTION[dimensions](middle_channels, out_channels, kernel_size=3, padding=1, bias=False),
            BATCH_NORM[dimensions](out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, in_channels, *grid)`` to ``(batch, out_channels, *grid)``."""
        return self.double_conv(x)


class Down(nn.Module):
    """Maximum over 2 points an axis, then two convolutions.

    Parameters
    ----------
    dimensions : int
    in_channels, out_channels : int
    """

    def __init__(self, dimensions: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        # The key names of published weights have the convolutions in second place.
        self.maxpool_conv = nn.ModuleDict({"1": DoubleConvolution(dimensions, in_channels, out_channels, out_channels)})

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, in_channels, *grid)`` to ``(batch, out_channels, *grid / 2)``."""
        return self.maxpool_conv["1"](MAX_POOL[x.ndim - 2](x, 2))


class Up(nn.Module):
    """Linear interpolation to twice the points, corners on corners; the skip's channels put first; two convolutions.

    Parameters
    ----------
    dimensions : int
    in_channels : int
        Those of the skip and of the coarse level together.
    out_channels : int
    """

    def __init__(self, dimensions: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = DoubleConvolution(dimensions, in_channels, out_channels, in_channels // 2)

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        """Map ``(batch, c, *grid / 2)`` and ``(batch, in_channels - c, *grid)`` to ``(batch, out_channels, *grid)``."""
        mode = LINEAR_INTERPOLATION[skip.ndim - 2]
        fine = functional.interpolate(coarse, size=skip.shape[2:], mode=mode, align_corners=True)
        # Joined with channels last: of fields that differ in that torch makes one with channels first, and convolutions
        # then bring every field into another order and back.
        return self.conv(torch.cat([skip.movedim(1, -1), fine.movedim(1, -1)], dim=-1).movedim(-1, 1))


class LSM(nn.Module):
    """Latent spectral model [1]_: a U-Net of five scales whose skips are neural spectral blocks.

    The published model, key for key of its state dict (`operators.convert.from_lsm`), for any grid. Coordinates
    (0 to 1, both ends included) are appended to the input, and every axis of ``n`` points is continued by zeros to 16
    patches of ``ceil(n / 16)`` points, as the published scripts choose by hand; 16, 8, 4, 2 and 1 patches an axis make
    the five scales. What a patch is therefore depends on the grid: a model is one for the grid it was trained on. It
    runs on others, without the promise that a Fourier neural operator makes of them.

    Parameters
    ----------
    in_channels, out_channels : int
    dimensions : {1, 2, 3}
        Axes of the grid.
    width : int
        Channels of the finest scale, a multiple of `n_heads`; the others have 2, 4, 8 and 8 times as many.
    n_tokens : int
        Tokens of each patch and head.
    n_basis : int
        Sines, and cosines, of the series on each token.
    n_heads : int
    patch_size : int, sequence of int or None
        Points of a patch along every axis (each axis); None chooses ``ceil(n / 16)``. Axes are continued to a multiple
        of 16 patches.

    Raises
    ------
    ValueError
        If an argument is out of range, or an input does not fit in channels or dimensions.

    Examples
    --------
    >>> model = LSM(in_channels=2, out_channels=1, width=32)
    >>> sum(p.numel() for p in model.parameters())
    4812833
    >>> LSM(1, 1, width=8)(torch.zeros(2, 1, 21, 33)).shape
    torch.Size([2, 1, 21, 33])

    References
    ----------
    .. [1] H. Wu, T. Hu, H. Luo, J. Wang, M. Long, Solving high-dimensional PDEs with latent spectral models, ICML 2023,
       arXiv:2301.12664.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        dimensions: int = 2,
        width: int = 32,
        n_tokens: int = 4,
        n_basis: int = 12,
        n_heads: int = 8,
        patch_size: int | Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        counts = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "width": width,
            "n_tokens": n_tokens,
            "n_basis": n_basis,
            "n_heads": n_heads,
        }
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if dimensions not in CONVOLUTION:
            raise ValueError(f"dimensions must be 1, 2 or 3, got {dimensions}")
        if width % n_heads:
            raise ValueError(f"width must be a multiple of n_heads, got width={width}, n_heads={n_heads}")
        patch = [patch_size] * dimensions if isinstance(patch_size, int) else patch_size
        if patch is not None and (len(patch) != dimensions or min(patch) < 1):
            raise ValueError(
                f"patch_size must be a number of points, one for each of {dimensions} axes, or null, got {patch_size}"
            )

        self.in_channels = in_channels
        self.dimensions = dimensions
        self.patch_size = patch
        widths = [width, 2 * width, 4 * width, 8 * width, 8 * width]
        # Named as in the published model, so that weights go either way.
        self.inc = DoubleConvolution(dimensions, width, width, width)
        for scale in range(1, HALVINGS + 1):
            self.add_module(f"down{scale}", Down(dimensions, widths[scale - 1], widths[scale]))
        for scale in range(1, HALVINGS + 1):
            skip, next_skip = widths[HALVINGS - scale], widths[max(HALVINGS - scale - 1, 0)]
            self.add_module(f"up{scale}", Up(dimensions, 2 * skip, next_skip))
        self.outc = nn.ModuleDict({"conv": CONVOLUTION[dimensions](width, width, kernel_size=1)})
        for scale, channels in enumerate(widths, start=1):
            self.add_module(f"process{scale}", NeuralSpectralBlock(dimensions, channels, n_basis, n_tokens, n_heads))
        self.fc0 = nn.Linear(in_channels + dimensions, width)
        self.fc1 = nn.Linear(width, 128)
        self.fc2 = nn.Linear(128, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the model.

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
        grid = x.shape[2:]
        across = 2**HALVINGS
        patch = self.patch_size or [-(-n // across) for n in grid]
        widths = [(0, -n % (across * p)) for n, p in zip(grid, patch, strict=True)]
        x = append_coordinates(x.movedim(1, -1), endpoint=True)
        x = channel_linear(x, self.fc0.weight, self.fc0.bias).movedim(-1, 1)
        x = extend(x, widths, "zero")
        if self.training and x.shape[0] * x[0, 0].numel() == across**self.dimensions:
            raise ValueError(
                f"one sample of {tuple(x.shape[2:])} points has a single point on the coarsest scale, of which batch "
                "norm can take no statistics; train with larger batches or a larger patch_size"
            )

        scales = [self.inc(x)]
        for scale in range(1, HALVINGS + 1):
            scales.append(self.get_submodule(f"down{scale}")(scales[-1]))
        processed = [self.get_submodule(f"process{i}")(field, patch) for i, field in enumerate(scales, start=1)]
        x = processed.pop()
        for scale in range(1, HALVINGS + 1):
            x = self.get_submodule(f"up{scale}")(x, processed.pop())
        x = crop(self.outc["conv"](x), widths).movedim(1, -1)
        last = [*self.fc1.parameters(), *self.fc2.parameters()]
        return by_slabs(self._project, last, self.fc1.out_features, x).movedim(-1, 1)

    def _project(self, x: Tensor) -> Tensor:
        hidden = functional.gelu(channel_linear(x, self.fc1.weight, self.fc1.bias))
        return channel_linear(hidden, self.fc2.weight, self.fc2.bias)
