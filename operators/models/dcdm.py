"""The network of the deep conjugate direction method, in one, two or three dimensions."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from operators.layers.by_dimension import AVERAGE_POOL, CONVOLUTION


class DCDM(nn.Module):
    r"""The network of the deep conjugate direction method [1]_: from a residual to a direction in which to search.

    Two levels of ``3^d`` convolutions over 16 channels, zero beyond the grid, with biases. With :math:`\sigma` for
    ReLU, and residual blocks :math:`B(a) = a + \sigma C \sigma C a` whose skip goes around the last activation too,

    .. math::
        a = \sigma C \, C_1 \frac{r}{\|r\|_2}, \quad
        b = \sigma C \, B^{m} a, \quad
        c = B^{k} \, \mathrm{pool}(b), \quad
        q = C_{1 \times 1} \, B^{m + 1} (\mathrm{repeat}(c) + b),

    where pool takes the mean of ``2^d`` points and repeat gives each of them its value. The size of r is divided out,
    as biases and ReLU would make the direction depend on it; that of q does not matter, since line search follows.

    A direction hears of residuals 22 points away (``fine_blocks=1, coarse_blocks=3``) or 34 (2 and 5), and no further.

    Parameters
    ----------
    in_channels, out_channels : int
        1 and 1: the residual alone is seen, and nothing of the matrix.
    dimensions : {1, 2, 3}
        Axes of the grid; 3 is published.
    width : int
        Channels inside.
    fine_blocks, coarse_blocks : int
        m and k. 1 and 3 are published for 64^3, 2 and 5 for 128^3 (and used for 256^3).

    Raises
    ------
    ValueError
        If an argument is out of range, or an input does not fit in channels or dimensions.

    Notes
    -----
    With ``f = 3^d w^2 + w`` parameters of a convolution between ``w`` channels there are
    ``(3^d w + w) + (4 m + 2 k + 4) f + w + 1``. Weights begin as Keras has them: Glorot's uniform law, biases zero.

    Odd grids are no multiple of 2: the mean at their end is over the points that there are.

    Examples
    --------
    >>> published = {64: DCDM(dimensions=3), 128: DCDM(dimensions=3, fine_blocks=2, coarse_blocks=5)}
    >>> [sum(p.numel() for p in network.parameters()) for network in published.values()]
    [97457, 152881]
    >>> DCDM(dimensions=2)(torch.ones(2, 1, 20, 37)).shape
    torch.Size([2, 1, 20, 37])

    References
    ----------
    .. [1] A. Kaneda, O. Akar, J. Chen, V. A. T. Kala, D. Hyde, J. Teran, A deep conjugate direction method for
       iteratively solving linear systems, ICML 2023, arXiv:2205.10763. The order of layers is that of the released
       code (ayano721/2023_DCDM, ``src/train_N64.py`` and ``src/train_N128.py``).
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        dimensions: int = 2,
        width: int = 16,
        fine_blocks: int = 1,
        coarse_blocks: int = 3,
    ) -> None:
        super().__init__()
        if (in_channels, out_channels) != (1, 1):
            raise ValueError(
                f"dcdm maps a residual to a direction, one channel to one; got in_channels={in_channels} and "
                f"out_channels={out_channels} (train it with task=linear_system, task.diagonal=false)"
            )
        if dimensions not in CONVOLUTION:
            raise ValueError(f"dimensions must be 1, 2 or 3, got {dimensions}")
        for name, value, least in (
            ("width", width, 1),
            ("fine_blocks", fine_blocks, 0),
            ("coarse_blocks", coarse_blocks, 0),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        self.dimensions = dimensions

        def convolution(channels: int = width) -> nn.Module:
            return CONVOLUTION[dimensions](channels, width, kernel_size=3, padding=1)

        def blocks(count: int) -> nn.Sequential:
            return nn.Sequential(*(_Block(convolution(), convolution()) for _ in range(count)))

        self.first = nn.Sequential(convolution(1), convolution(), nn.ReLU())
        self.down = nn.Sequential(*blocks(fine_blocks), convolution(), nn.ReLU())
        self.coarse = blocks(coarse_blocks)
        self.up = blocks(fine_blocks + 1)
        self.head = CONVOLUTION[dimensions](width, 1, kernel_size=1)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
            else:
                nn.init.zeros_(parameter)

    def forward(self, r: Tensor) -> Tensor:
        """Apply the network.

        Parameters
        ----------
        r : Tensor, shape (batch, 1, *grid)
            Residuals of any size.

        Returns
        -------
        Tensor, shape (batch, 1, *grid)
            Directions; their size has no meaning.
        """
        if r.ndim != self.dimensions + 2 or r.shape[1] != 1:
            raise ValueError(
                f"expected residuals of shape (batch, 1, and {self.dimensions} grid axes as dimensions="
                f"{self.dimensions} says), got {tuple(r.shape)}"
            )
        axes = tuple(range(1, r.ndim))
        size = torch.linalg.vector_norm(r, dim=axes, keepdim=True)
        fine = self.down(self.first(r / torch.where(size > 0, size, 1.0)))
        coarse = self.coarse(AVERAGE_POOL[self.dimensions](fine, 2, ceil_mode=True, count_include_pad=False))
        for axis, points in enumerate(fine.shape[2:], start=2):
            coarse = coarse.repeat_interleave(2, axis).narrow(axis, 0, points)
        direction: Tensor = self.head(self.up(coarse + fine))
        return direction


class _Block(nn.Module):
    """``a + relu(C relu(C a))``."""

    def __init__(self, inner: nn.Module, outer: nn.Module) -> None:
        super().__init__()
        self.inner, self.outer = inner, outer

    def forward(self, a: Tensor) -> Tensor:
        result: Tensor = a + functional.relu(self.outer(functional.relu(self.inner(a))))
        return result
