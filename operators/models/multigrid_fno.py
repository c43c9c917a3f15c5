"""Multi-grid (tensorised) Fourier neural operator: one FNO on all patches of a field."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from operators.layers.boundary import check_boundary
from operators.layers.grid_transfer import prolong, restrict
from operators.layers.multigrid_patches import (
    check_patches,
    coordinate_channels,
    make_patches,
    patch_coordinates,
    patch_widths,
    stitch_patches,
)
from operators.models.fno import FNO


class MultigridFNO(nn.Module):
    """MG-TFNO [1]_: a tensorised FNO that maps patches of a field, each with coarser views of what surrounds it.

    The field is cut into ``2**levels`` patches along each axis (`operators.layers.multigrid_patches`), one FNO is
    applied to all of them as a batch, and what it makes of them is put together again. The same number of modes reaches
    up to wavenumbers higher by that factor than an FNO's on the whole field.

    Patches need not be in memory together. With `patches_at_once`, as many are mapped at a time, and in training each
    such group is computed again when its gradient is: gradients are those of all patches at once, memory that of one
    group, and the time of a step a third longer.

    Parameters
    ----------
    n_modes, in_channels, out_channels, hidden_channels, n_layers, norm, factorization, rank, separable
        Of the FNO; see `FNO`.
    levels : int
        How often the grid is halved along each axis; at least 1.
    padding_fraction : float
        Points by which patches are widened on both sides, as a fraction of the whole axis.
    boundary : {"periodic", "replicate", "zero"}
        How fields go on beyond the grid.
    positional_embedding : {"grid", None}
        Whether coordinates of its points are appended to a patch: where they lie in the whole field (by their cosine
        and sine where it is periodic) and in the patch.
    patches_at_once : int or None
        Patches mapped at a time, over all samples of a batch; None for all.
    coarse_solution : bool
        Whether a second FNO with the same arguments first maps whole fields, on every ``2**levels``-th point of each
        axis. What it finds is interpolated, becomes further input of the patches, and they correct it: the two grids
        of multigrid. The published operator has no such thing. Where a solution depends on the whole field, as after a
        long time, patches alone are slow to learn it.

    Raises
    ------
    ValueError
        If an argument is out of range, or an input does not fit in channels, dimensions or by the length of an axis.

    Examples
    --------
    >>> model = MultigridFNO(n_modes=(8, 8), in_channels=1, out_channels=1, hidden_channels=16, levels=2)
    >>> model(torch.zeros(3, 1, 32, 48)).shape
    torch.Size([3, 1, 32, 48])

    References
    ----------
    .. [1] J. Kossaifi, N. Kovachki, K. Azizzadenesheli, A. Anandkumar, Multi-grid tensorized Fourier neural operator,
       TMLR 2024, arXiv:2310.00120.
    """

    def __init__(
        self,
        n_modes: Sequence[int],
        in_channels: int,
        out_channels: int,
        hidden_channels: int,
        n_layers: int = 4,
        levels: int = 1,
        padding_fraction: float = 0.05,
        boundary: str = "periodic",
        positional_embedding: str | None = "grid",
        patches_at_once: int | None = None,
        norm: str | None = None,
        factorization: str | None = "tucker",
        rank: float | Sequence[int] = 0.1,
        separable: bool = False,
        coarse_solution: bool = False,
    ) -> None:
        super().__init__()
        for name, value in {"levels": levels, "patches_at_once": patches_at_once, "in_channels": in_channels}.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 <= padding_fraction <= 1:
            raise ValueError(f"padding_fraction must be between 0 and 1, got {padding_fraction}")
        if positional_embedding not in ("grid", None):
            raise ValueError(f"positional_embedding must be 'grid' or null, got {positional_embedding!r}")
        if patches_at_once is not None and norm == "batch_norm":
            raise ValueError(
                "norm='batch_norm' needs all patches together; leave out patches_at_once, or choose another"
            )
        check_boundary(boundary)
        self.in_channels = in_channels
        self.levels = levels
        self.padding_fraction = padding_fraction
        self.boundary = boundary
        self.positional_embedding = positional_embedding
        self.patches_at_once = patches_at_once
        coordinates = coordinate_channels(len(n_modes), boundary) if positional_embedding else 0
        channels = in_channels + (out_channels if coarse_solution else 0)

        def make(channels: int, embedding: str | None) -> FNO:
            return FNO(
                n_modes,
                channels,
                out_channels,
                hidden_channels,
                n_layers,
                positional_embedding=embedding,
                norm=norm,
                factorization=factorization,
                rank=rank,
                separable=separable,
            )

        self.fno = make((levels + 1) * channels + coordinates, None)
        self.coarse = make(in_channels, positional_embedding) if coarse_solution else None

    def forward(self, x: Tensor) -> Tensor:
        """Apply the operator.

        Parameters
        ----------
        x : Tensor, shape (batch, in_channels, *grid)
            Every axis a multiple of ``2**levels``.

        Returns
        -------
        Tensor, shape (batch, out_channels, *grid)
        """
        dimensions = len(self.fno.n_modes)
        if x.ndim != dimensions + 2 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"expected input of shape (batch, {self.in_channels} channels, and {dimensions} grid axes as "
                f"n_modes={list(self.fno.n_modes)} has), got {tuple(x.shape)}"
            )
        grid = x.shape[2:]
        widths = patch_widths(grid, self.padding_fraction)
        count = len(x) * 2 ** (self.levels * dimensions)
        at_once = self.patches_at_once or count
        coarse = None
        if self.coarse is not None:
            check_patches(grid, self.levels)
            coarse = _apply(self.coarse, restrict(x, 2**self.levels, self.boundary), at_once < count)
            coarse = prolong(coarse, grid, self.boundary)
            x = torch.cat([x, coarse], dim=1)
        patches = make_patches(x, self.levels, widths, self.boundary)
        if self.positional_embedding:
            coordinates = patch_coordinates(grid, self.levels, widths, self.boundary, x)
            patches = torch.cat([patches, coordinates.repeat(len(x), *[1] * (dimensions + 1))], dim=1)
        mapped = torch.cat([_apply(self.fno, group, at_once < count) for group in patches.split(at_once)])
        fine = stitch_patches(mapped, self.levels, widths)
        return fine if coarse is None else coarse + fine


def _apply(module: nn.Module, x: Tensor, again: bool) -> Tensor:
    """What a module makes of x; in training computed once more for its gradient, if asked for, to keep less."""
    repeat = again and torch.is_grad_enabled()
    result: Tensor = checkpoint(module, x, use_reentrant=False) if repeat else module(x)
    return result
