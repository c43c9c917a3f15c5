r"""scOT, the scalable operator transformer of Poseidon [1]_: a U-shaped Swin V2 transformer of fields and a lead time.

The field is cut into patches, each a token. Down to ever fewer and wider tokens and up again, with

.. math::
    s_i &= E_i(h_i), & h_{i+1} &= \mathrm{merge}(s_i + h_i), \\
    g_i &= D_i(\tilde g_i), & \tilde g_{i-1} &= \mathrm{unmerge}(g_i) + R_{i-1}(s_{i-1}),
    \qquad \tilde g_{\mathrm{last}} = R_{\mathrm{last}}(s_{\mathrm{last}})

where encoder and decoder stages :math:`E_i, D_i` are transformer blocks and :math:`R_i` the convolution blocks of the
skip connections; the last tokens become patches again. The lead time enters through every norm.

State-dict keys, arguments and the function are those of the authors' code (github.com/camlab-ethz/poseidon at
b8fa28f), whose weights load; where that code is limited to square grids of the configured size, this goes on.

References
----------
.. [1] M. Herde, B. Raonić, T. Rohner, R. Käppeli, R. Molinaro, E. de Bézenac, S. Mishra, Poseidon: efficient foundation
   models for PDEs, NeurIPS 2024, arXiv:2405.19101, section 2 and appendix A.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from operators.layers.channel_linear import ChannelLinear
from operators.layers.conditional_norm import ConditionalLayerNorm, UnconditionalLayerNorm
from operators.layers.patches import PatchEmbedding, PatchMerging, PatchRecovery, PatchUnmerging
from operators.layers.recompute import recomputed
from operators.layers.resample import fourier_resample
from operators.layers.residual_blocks import ConvNeXtBlock, ResNetBlock
from operators.layers.window_attention import Pair, WindowAttention


def drop_path(x: Tensor, rate: float) -> Tensor:
    """Zero whole samples at random, and scale the others so that the mean stays.

    Parameters
    ----------
    x : Tensor, shape (batch, ...)
    rate : float
        Share of the samples that become zero.
    """
    kept = torch.rand(len(x), *[1] * (x.ndim - 1), device=x.device) >= rate
    return x * (kept / (1.0 - rate)).to(x.dtype)


class Dense(nn.Module):
    """A linear layer and dropout, under the name that the published weights have.

    Parameters
    ----------
    in_channels, out_channels : int
    dropout : float
    """

    def __init__(self, in_channels: int, out_channels: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dense = ChannelLinear(in_channels, out_channels)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., in_channels)`` to ``(..., out_channels)``."""
        y: Tensor = self.dense(x)
        return functional.dropout(y, self.dropout, self.training) if self.dropout else y


class ScOTBlock(nn.Module):
    r"""A transformer block of Swin V2, with its norms after what they norm.

    .. math:: h &= x + \mathrm{norm}_1(W \mathrm{attention}(x)) \\
              y &= h + \mathrm{norm}_2(W_2\, \mathrm{gelu}(W_1 h))

    Parameters
    ----------
    channels, heads : int
    window : pair of int
    shifted : bool
        Whether the windows are shifted by half their size.
    mlp_ratio : float
        Hidden width of the perceptron, over `channels`.
    bias : bool
        Of queries and values.
    norm : callable
        Makes a norm of a number of channels.
    attention_dropout, hidden_dropout, drop_path : float
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        window: Pair,
        shifted: bool,
        mlp_ratio: float,
        bias: bool,
        norm: Callable[[int], nn.Module],
        attention_dropout: float,
        hidden_dropout: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.shifted = shifted
        self.drop_path = drop_path
        self.attention = nn.ModuleDict(
            {
                "self": WindowAttention(channels, heads, window, bias, attention_dropout),
                "output": Dense(channels, channels, attention_dropout),
            }
        )
        self.layernorm_before = norm(channels)  # a name from pre-norm days: it norms what attention gives
        self.intermediate = Dense(channels, int(mlp_ratio * channels))
        self.output = Dense(int(mlp_ratio * channels), channels, hidden_dropout)
        self.layernorm_after = norm(channels)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Map tokens ``(batch, height, width, channels)`` to the same shape."""
        attended = self.attention["output"](self.attention["self"](x, self.shifted))
        x = x + self._drop(self.layernorm_before(attended, time))
        widened = functional.gelu(self.intermediate(x))
        return x + self._drop(self.layernorm_after(self.output(widened), time))

    def _drop(self, x: Tensor) -> Tensor:
        return drop_path(x, self.drop_path) if self.drop_path and self.training else x


class ScOTStage(nn.Module):
    """Transformer blocks of one resolution, and the way to the next.

    Parameters
    ----------
    blocks : sequence of ScOTBlock
    downsample : PatchMerging, optional
    upsample : PatchUnmerging, optional
    """

    def __init__(
        self,
        blocks: Sequence[ScOTBlock],
        downsample: PatchMerging | None = None,
        upsample: PatchUnmerging | None = None,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample
        self.upsample = upsample

    def forward(self, x: Tensor, time: Tensor, checkpointing: bool, grid: Pair | None = None) -> tuple[Tensor, Tensor]:
        """Apply the blocks, and what leads on.

        Parameters
        ----------
        x : Tensor, shape (batch, height, width, channels)
        time : Tensor, shape (batch, 1)
        checkpointing : bool
            See `ScOT`.
        grid : pair of int, optional
            Tokens of the next stage, which `upsample` needs.

        Returns
        -------
        here, next : Tensor
            Tokens after the blocks, and those of the next stage; the last stage has the same for both.
        """
        here = x
        for block in self.blocks:
            here = recomputed(block, here, time) if checkpointing else block(here, time)
        if self.downsample is not None:
            return here, self.downsample(here + x, time)
        if self.upsample is not None:
            return here, self.upsample(here, grid, time)
        return here, here


class SkipConnection(nn.ModuleList):
    """Convolution blocks one after the other; none is the identity."""

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Map tokens ``(batch, height, width, channels)`` to the same shape."""
        for block in self:
            x = block(x, time)
        return x


class ScOTStages(nn.Module):
    """The stages of the encoder or the decoder, in the order of their execution.

    Parameters
    ----------
    stages : sequence of ScOTStage
    """

    def __init__(self, stages: Sequence[ScOTStage]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(stages)

    def __iter__(self) -> Iterator[ScOTStage]:
        return cast(Iterator[ScOTStage], iter(self.layers))


def _pair(value: int | Sequence[int], name: str) -> Pair:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(f"{name} must be a positive number, or one for each of the two axes, got {value}")
    return pair[0], pair[1]


class ScOT(nn.Module):
    """The scalable operator transformer: fields and a lead time to fields, on two-dimensional grids.

    Arguments have the names of the authors' configuration, but for ``in_channels`` (there ``num_channels``) and
    ``out_channels`` (``num_out_channels``).

    Fields on another grid than `image_size` are resampled to it by `fourier_resample` and the answer back. Where sizes
    do not divide, zeros are padded at the end of an axis: fields to whole patches, tokens to whole windows, and to an
    even number before they are merged; what was padded is cropped at the same place on the way up.

    Parameters
    ----------
    in_channels, out_channels : int
    image_size : int, pair of int, or None
        The grid that the transformer sees. None: that of each input, without resampling.
    patch_size : int or pair of int
        Grid points of a token.
    embed_dim : int
        Channels of the finest tokens; they double with each stage.
    depths : sequence of int
        Transformer blocks of each stage of the encoder, the finest first; the decoder has as many.
    num_heads : sequence of int
        Attention heads of each stage.
    skip_connections : sequence of int
        Convolution blocks on the skip connection of each stage; with 0 it is the identity.
    window_size : int or pair of int
        Tokens of an attention window, on stages that have so many.
    mlp_ratio : float
        Hidden width of the blocks' perceptrons, over their channels.
    qkv_bias : bool
        Whether queries and values have a bias.
    hidden_dropout_prob, attention_probs_dropout_prob : float
    drop_path_rate : float
        Probability with which the last block is left out for a sample in training; it grows linearly from 0.
    use_absolute_embeddings : bool
        Whether each token's place has trainable numbers; needs an `image_size` that patches divide.
    initializer_range : float
        Standard deviation of the initial weights.
    layer_norm_eps : float
    residual_model : {"convnext", "resnet"}
        The blocks of the skip connections.
    use_conditioning : bool
        Whether norms depend on the lead time.
    learn_residual : bool
        Whether the input's first channels are added to the answer; needs conditioning.
    checkpointing : bool
        Keep of each transformer block only its input for the gradient, and compute the rest again: less memory for a
        third more time.

    Attributes
    ----------
    lead_times : (float, float) or None
        Range of lead times that the weights were trained on; outside of it, evaluation warns.
    rebuilt_as : (str, dict) or None
        Registered name and arguments that build this network, where they are not those that it was asked for by.

    Raises
    ------
    ValueError
        If an argument is out of range, or an input does not fit.

    Examples
    --------
    Poseidon-T:

    >>> with torch.device("meta"):
    ...     model = ScOT(4, 4, image_size=128, embed_dim=48, depths=[4] * 4, num_heads=[3, 6, 12, 24])
    >>> sum(p.numel() for p in model.parameters())
    20774444

    One of a few thousand parameters, on a grid that nothing divides:

    >>> model = ScOT(1, 2, embed_dim=8, depths=[1, 1], num_heads=[1, 2], skip_connections=[1, 0], window_size=4)
    >>> model(torch.zeros(3, 1, 25, 38), torch.tensor([0.0, 0.5, 1.0])).shape
    torch.Size([3, 2, 25, 38])
    """

    conditioned_on_time = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        image_size: int | Sequence[int] | None = None,
        patch_size: int | Sequence[int] = 4,
        embed_dim: int = 48,
        depths: Sequence[int] = (4, 4, 4, 4),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        skip_connections: Sequence[int] = (2, 2, 2, 0),
        window_size: int | Sequence[int] = 16,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        hidden_dropout_prob: float = 0.0,
        attention_probs_dropout_prob: float = 0.0,
        drop_path_rate: float = 0.0,
        use_absolute_embeddings: bool = False,
        initializer_range: float = 0.02,
        layer_norm_eps: float = 1e-5,
        residual_model: str = "convnext",
        use_conditioning: bool = True,
        learn_residual: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        counts = {"in_channels": in_channels, "out_channels": out_channels, "embed_dim": embed_dim}
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        stages = len(depths)
        lists = {"num_heads": (num_heads, 1), "skip_connections": (skip_connections, 0), "depths": (depths, 1)}
        for name, (values, least) in lists.items():
            if len(values) != stages or not values or min(values) < least:
                raise ValueError(
                    f"{name} must list a number of at least {least} for each stage, as many as depths={list(depths)}, "
                    f"got {list(values)}"
                )
        if residual_model not in ("convnext", "resnet"):
            raise ValueError(f"residual_model must be 'convnext' or 'resnet', got {residual_model!r}")
        if learn_residual and not (use_conditioning and in_channels >= out_channels):
            raise ValueError(
                "learn_residual adds the input to the answer: it needs use_conditioning=true and at least as many "
                f"in_channels as out_channels, got {in_channels} and {out_channels}"
            )
        rates = {"hidden_dropout_prob": hidden_dropout_prob, "drop_path_rate": drop_path_rate}
        for name, rate in (rates | {"attention_probs_dropout_prob": attention_probs_dropout_prob}).items():
            if not 0.0 <= rate < 1.0:
                raise ValueError(f"{name} must be a probability in [0, 1), got {rate}")
        patch, window = _pair(patch_size, "patch_size"), _pair(window_size, "window_size")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.image_size = None if image_size is None else _pair(image_size, "image_size")
        self.use_conditioning = use_conditioning
        self.learn_residual = learn_residual
        self.checkpointing = checkpointing
        self.lead_times: tuple[float, float] | None = None
        self.rebuilt_as: tuple[str, dict[str, Any]] | None = None
        places = None
        if use_absolute_embeddings:
            if self.image_size is None or any(n % p for n, p in zip(self.image_size, patch, strict=True)):
                raise ValueError(f"use_absolute_embeddings needs an image_size that {patch} divides, got {image_size}")
            places = (self.image_size[0] // patch[0], self.image_size[1] // patch[1])

        # The norms between stages have the default epsilon whatever is asked for: so they are in the authors' code.
        norm: type[nn.Module] = ConditionalLayerNorm if use_conditioning else UnconditionalLayerNorm
        inner_norm = partial(norm, eps=layer_norm_eps)
        widths = [embed_dim * 2**stage for stage in range(stages)]
        blocks = 2 * sum(depths)
        drop_paths = iter([drop_path_rate * block / max(blocks - 1, 1) for block in range(blocks)])

        def stage_blocks(stage: int, shifts: Sequence[bool]) -> list[ScOTBlock]:
            return [
                ScOTBlock(
                    widths[stage],
                    num_heads[stage],
                    window,
                    shifted,
                    mlp_ratio,
                    qkv_bias,
                    inner_norm,
                    attention_probs_dropout_prob,
                    hidden_dropout_prob,
                    next(drop_paths),
                )
                for shifted in shifts
            ]

        # The decoder is the encoder's mirror image: of an even number of blocks, its first is shifted.
        shifts = [[bool(block % 2) for block in range(depth)] for depth in depths]
        self.embeddings = PatchEmbedding(in_channels, embed_dim, patch, norm, places, hidden_dropout_prob)
        encoder, decoder = [], []
        for stage, width in enumerate(widths):
            merging = PatchMerging(width, norm) if stage < stages - 1 else None
            encoder.append(ScOTStage(stage_blocks(stage, shifts[stage]), downsample=merging))
        for stage in reversed(range(stages)):
            unmerging = PatchUnmerging(widths[stage], norm) if stage > 0 else None
            decoder.append(ScOTStage(stage_blocks(stage, shifts[stage][::-1]), upsample=unmerging))
        self.encoder, self.decoder = ScOTStages(encoder), ScOTStages(decoder)
        residual: Callable[[int], nn.Module] = (
            partial(ConvNeXtBlock, norm=inner_norm) if residual_model == "convnext" else ResNetBlock
        )
        self.residual_blocks = nn.ModuleList(
            SkipConnection(residual(width) for _ in range(count))
            for width, count in zip(widths, skip_connections, strict=True)
        )
        self.patch_recovery = PatchRecovery(embed_dim, out_channels, patch)
        self.apply(partial(_initialise, standard_deviation=initializer_range))

    def forward(
        self, x: Tensor, time: Tensor | None = None, pixel_mask: Tensor | None = None, labels: Tensor | None = None
    ) -> Tensor:
        """Apply the operator.

        Parameters
        ----------
        x : Tensor, shape (batch, in_channels, height, width)
            Normalised fields.
        time : Tensor, shape (batch,), optional
            Lead times, in units that make the longest 1 (Poseidon: of 20 snapshots). By default 1, as for steady
            problems.
        pixel_mask : Tensor of bool, shape (batch, out_channels) or that of the answer, optional
            Channels or points where the answer is known.
        labels : Tensor, shape of the answer, optional
            What is known there.

        Returns
        -------
        Tensor, shape (batch, out_channels, height, width)
        """
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"expected input of shape (batch, {self.in_channels} channels, height, width), got {tuple(x.shape)}"
            )
        lead = self._lead_times(x, time)
        given = (x.shape[2], x.shape[3])
        grid = self.image_size or given
        x = fourier_resample(x, grid)
        recompute = self.checkpointing and self.training and torch.is_grad_enabled()
        tokens = self.embeddings(x, lead)
        skips = []
        for stage, connection in zip(self.encoder, self.residual_blocks, strict=True):
            encoded, tokens = stage(tokens, lead, recompute)
            skips.append(connection(encoded, lead))
        tokens = skips.pop()
        for stage in self.decoder:
            skip = skips.pop() if skips else None
            _, tokens = stage(tokens, lead, recompute, None if skip is None else (skip.shape[1], skip.shape[2]))
            if skip is not None:
                tokens = tokens + skip
        y = self.patch_recovery(tokens, grid)
        if self.learn_residual:
            y = y + x[:, : self.out_channels]
        y = fourier_resample(y, given)
        return y if pixel_mask is None else self._overwritten(y, pixel_mask, labels)

    def _lead_times(self, x: Tensor, time: Tensor | None) -> Tensor:
        """Lead times as ``(batch, 1)``."""
        if time is None:
            return x.new_ones(len(x), 1)
        if time.numel() != len(x):
            raise ValueError(f"time must hold one lead time for each of {len(x)} samples, got {tuple(time.shape)}")
        if not self.use_conditioning and not bool((time == 1).all()):
            raise ValueError("this model was built with use_conditioning=false: the only lead time it knows is 1")
        if self.lead_times is not None and not self.training:
            shortest, longest = self.lead_times
            if not bool(((time >= shortest) & (time <= longest)).all()):
                warnings.warn(
                    f"lead times from {float(time.min()):.3g} to {float(time.max()):.3g} were asked for, but this "
                    f"model was trained on {shortest:g} to {longest:g}: what it says of others is extrapolation. "
                    "Take several steps, or fine-tune on longer ones",
                    stacklevel=3,
                )
        return time.reshape(-1, 1).to(x)

    @staticmethod
    def _overwritten(y: Tensor, pixel_mask: Tensor, labels: Tensor | None) -> Tensor:
        if labels is None or labels.shape != y.shape or pixel_mask.shape not in (y.shape, y.shape[:2]):
            raise ValueError(
                f"pixel_mask says where the answer of shape {tuple(y.shape)} is known: it must have that shape or "
                f"{tuple(y.shape[:2])}, got {tuple(pixel_mask.shape)}, and needs labels of the answer's shape, got "
                f"{None if labels is None else tuple(labels.shape)}"
            )
        return torch.where(pixel_mask if pixel_mask.ndim == 4 else pixel_mask[:, :, None, None], labels.to(y), y)


def _initialise(module: nn.Module, standard_deviation: float) -> None:
    """Normal weights and no biases; transposed convolutions keep torch's own, as in the authors' code."""
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        nn.init.normal_(module.weight, std=standard_deviation)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
