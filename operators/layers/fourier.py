r"""Truncated discrete Fourier transforms as real matrix products.

A spectral convolution keeps a few wavenumbers of each axis, so most of what an FFT computes is thrown away and its
full-size spectra, shifts and zero fills cost more than the arithmetic. Here, on a CPU, each axis is transformed by one
matrix product straight to the wavenumbers that are kept. Other devices use fast transforms, which were not measured
against it. For real input on ``n`` points, with ``norm="forward"``,

.. math:: \hat u_k = \frac1n \sum_j u_j e^{-2\pi i k j / n}, \qquad u_j = \sum_k \hat u_k e^{2\pi i k j / n},

the last axis keeps ``0 <= k <= modes // 2`` (the rest follows by symmetry) and every other axis the centred
``-(modes // 2) <= k < (modes + 1) // 2``. Within the transforms complex numbers are a real axis of length 2, before the
wavenumbers: ``(batch, 2, wavenumbers_1, ..., wavenumbers_d, channels)``, flattened where a matrix product wants it.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


def kept_wavenumbers(points: Sequence[int], modes: Sequence[int]) -> list[range]:
    """Wavenumbers of each axis that are kept *and* that the grid can represent.

    Parameters
    ----------
    points : sequence of int
        Grid points of each axis.
    modes : sequence of int
        Fourier modes to keep of each axis, counted over negative and positive wavenumbers.

    Returns
    -------
    list of range
        Consecutive wavenumbers of each axis; those of the last start at 0.

    Examples
    --------
    >>> kept_wavenumbers((64, 64), (16, 16))
    [range(-8, 8), range(0, 9)]
    >>> kept_wavenumbers((9, 9), (16, 16))  # a coarse grid carries fewer
    [range(-4, 5), range(0, 5)]
    """
    leading = [
        range(max(-(m // 2), -(n // 2)), min((m + 1) // 2, (n + 1) // 2))
        for n, m in zip(points[:-1], modes[:-1], strict=True)
    ]
    return [*leading, range(min(modes[-1], points[-1]) // 2 + 1)]


def _constant(matrix: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    # Built outside inference mode: an inference tensor in the cache could never take part in training again.
    with torch.inference_mode(False):
        return matrix.to(dtype=dtype, device=device, copy=True)


def _phase(points: int, wavenumbers: range) -> Tensor:
    """Angles ``2 pi k j / n``, shape (wavenumbers, points), reduced modulo ``n`` in integers to keep every digit."""
    with torch.inference_mode(False):
        k = torch.arange(wavenumbers.start, wavenumbers.stop)
        return (2 * math.pi / points) * ((k[:, None] * torch.arange(points)) % points).to(torch.float64)


@lru_cache(maxsize=256)
def _real_axis(points: int, wavenumbers: range, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Analysis ``(2 K, n)`` and synthesis ``(n, 2 K)`` matrices of the last axis, whose samples are real."""
    phase = _phase(points, wavenumbers)
    analysis = torch.cat([phase.cos(), -phase.sin()]) / points
    # Wavenumbers k and -k are conjugate: each counts twice, but 0 and (for even n) n / 2 are their own partners.
    weight = torch.full((len(wavenumbers), 1), 2.0, dtype=torch.float64)
    weight[0] = 1.0
    if 2 * (len(wavenumbers) - 1) == points:
        weight[-1] = 1.0
    synthesis = torch.cat([weight * phase.cos(), -weight * phase.sin()]).T
    return _constant(analysis, dtype, device), _constant(synthesis.contiguous(), dtype, device)


@lru_cache(maxsize=256)
def _complex_axis(points: int, wavenumbers: range, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Analysis ``(2 K, n 2)`` and synthesis ``(n 2, 2 K)`` matrices of an axis whose samples are complex.

    A point's real and imaginary part are neighbours (they come so from the axis after it), a wavenumber's are not.
    """
    phase = _phase(points, wavenumbers)
    cosine, sine = phase.cos(), phase.sin()
    # (cos - i sin)(re + i im): rows are the result's parts, the last axis the operand's parts.
    rows_real = torch.stack([cosine, sine], dim=-1).flatten(1)
    rows_imaginary = torch.stack([-sine, cosine], dim=-1).flatten(1)
    analysis = torch.cat([rows_real, rows_imaginary]) / points
    # The inverse of a unitary matrix is its adjoint, here with the 1/n left out (norm="forward").
    synthesis = (analysis * points).T
    return _constant(analysis, dtype, device), _constant(synthesis.contiguous(), dtype, device)


def analyse(x: Tensor, wavenumbers: Sequence[range]) -> Tensor:
    """Fourier coefficients of a real field at the given wavenumbers.

    Parameters
    ----------
    x : Tensor, shape (batch, *grid, channels)
        Real samples.
    wavenumbers : sequence of range
        As `kept_wavenumbers` returns them, one range an axis.

    Returns
    -------
    Tensor, shape (batch, modes, channels), complex
        `modes` are the wavenumbers of all axes in C order.

    Examples
    --------
    >>> x = torch.randn(3, 8, 6, 2, dtype=torch.float64)
    >>> ours = analyse(x, kept_wavenumbers((8, 6), (8, 6)))
    >>> full = torch.fft.rfftn(x, dim=(1, 2), norm="forward")
    >>> torch.allclose(ours, torch.fft.fftshift(full, dim=1).flatten(1, 2))
    True
    """
    if x.device.type != "cpu":
        return analyse_by_fft(x, wavenumbers)
    batch, *grid, channels = x.shape
    matrix, _ = _real_axis(grid[-1], wavenumbers[-1], x.dtype, x.device)
    spectrum = _left_multiply(matrix, x.reshape(-1, grid[-1], channels))
    width = len(wavenumbers[-1]) * channels
    for points, kept in zip(grid[-2::-1], wavenumbers[-2::-1], strict=True):
        matrix, _ = _complex_axis(points, kept, x.dtype, x.device)
        spectrum = _left_multiply(matrix, spectrum.reshape(-1, 2 * points, width))
        width *= len(kept)
    return torch.view_as_complex(spectrum.view(batch, 2, -1, channels).movedim(1, -1).contiguous())


def synthesise(
    spectrum: Tensor, grid: Sequence[int], wavenumbers: Sequence[range], onto: Tensor, overwrite: bool = False
) -> Tensor:
    """Real field with the given Fourier coefficients (and no others), added to another field.

    Parameters
    ----------
    spectrum : Tensor, shape (batch, modes, channels), complex
        As `analyse` returns it. As in every real inverse transform, the imaginary part of a coefficient that is its own
        conjugate partner on the last axis is of no effect.
    grid : sequence of int
        Points of each axis; it need not be the grid that was analysed.
    wavenumbers : sequence of range
        One range an axis.
    onto : Tensor, shape (batch, *grid, channels)
        What the field is added to: the last product accumulates onto it, which saves a pass through memory.
    overwrite : bool
        Whether `onto` may become the result, if nobody needs it: not even its own gradient.

    Returns
    -------
    Tensor, shape (batch, *grid, channels)
    """
    if spectrum.device.type != "cpu":
        return synthesise_by_fft(spectrum, grid, wavenumbers, onto)
    _, modes, channels = spectrum.shape
    width, parts = modes * channels, torch.view_as_real(spectrum).movedim(-1, 1)
    for points, kept in zip(grid[:-1], wavenumbers[:-1], strict=True):
        _, matrix = _complex_axis(points, kept, parts.dtype, parts.device)
        width //= len(kept)
        parts = _left_multiply(matrix, parts.reshape(-1, 2 * len(kept), width))
    _, matrix = _real_axis(grid[-1], wavenumbers[-1], parts.dtype, parts.device)
    parts = parts.reshape(-1, 2 * len(wavenumbers[-1]), channels)
    if overwrite and onto.is_contiguous() and not torch.compiler.is_compiling():
        result: Tensor = _AddProduct.apply(onto, matrix, parts)
        return result
    return torch.baddbmm(onto.reshape(-1, grid[-1], channels), matrix.expand(len(parts), *matrix.shape), parts).reshape(
        onto.shape
    )


class _AddProduct(torch.autograd.Function):
    """``onto += matrix @ parts`` in place; of autograd's own operations a view of `onto` would cost it a copy."""

    @staticmethod
    def forward(ctx: Any, onto: Tensor, matrix: Tensor, parts: Tensor) -> Tensor:
        ctx.mark_dirty(onto)
        ctx.matrix = matrix
        onto.view(len(parts), -1, onto.shape[-1]).baddbmm_(matrix.expand(len(parts), *matrix.shape), parts)
        return onto

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, Tensor]:
        points, channels = len(ctx.matrix), gradients[0].shape[-1]
        return gradients[0], None, _left_multiply(ctx.matrix.T, gradients[0].reshape(-1, points, channels))


def _left_multiply(matrix: Tensor, batch: Tensor) -> Tensor:
    # bmm with a broadcast view: `torch.matmul` would first copy the batch into another layout.
    return torch.bmm(matrix.expand(len(batch), *matrix.shape), batch)


def analyse_by_fft(x: Tensor, wavenumbers: Sequence[range]) -> Tensor:
    """What `analyse` does, by a fast Fourier transform of which the kept wavenumbers are picked.

    Parameters
    ----------
    x, wavenumbers
        As `analyse` takes them.
    """
    dimensions = len(wavenumbers)
    spectrum = torch.fft.rfftn(x, dim=list(range(1, dimensions + 1)), norm="forward")
    spectrum = spectrum.narrow(dimensions, 0, len(wavenumbers[-1]))
    for axis, kept in enumerate(wavenumbers[:-1], start=1):
        spectrum = spectrum.index_select(axis, _places(kept, x.shape[axis], x.device))
    return spectrum.flatten(1, dimensions)


def synthesise_by_fft(spectrum: Tensor, grid: Sequence[int], wavenumbers: Sequence[range], onto: Tensor) -> Tensor:
    """What `synthesise` does, by a fast Fourier transform of the coefficients among zeros.

    Parameters
    ----------
    spectrum, grid, wavenumbers, onto
        As `synthesise` takes them.
    """
    coefficients = spectrum.reshape(len(spectrum), *map(len, wavenumbers), spectrum.shape[-1])
    for axis, (points, kept) in enumerate(zip(grid[:-1], wavenumbers[:-1], strict=True), start=1):
        shape = [*coefficients.shape]
        shape[axis] = points
        places = _places(kept, points, spectrum.device)
        coefficients = coefficients.new_zeros(shape).index_copy(axis, places, coefficients)
    # The last axis is filled up with zeros by the transform.
    return onto + torch.fft.irfftn(coefficients, s=list(grid), dim=list(range(1, len(grid) + 1)), norm="forward")


@lru_cache(maxsize=256)
def _places(wavenumbers: range, points: int, device: torch.device) -> Tensor:
    """Where wavenumbers, negative ones too, are in the output of a fast Fourier transform."""
    with torch.inference_mode(False):
        return torch.arange(wavenumbers.start, wavenumbers.stop, device=device) % points
