"""Spectral weights: TensorLy's ranks, and every form of storage against the tensor it stands for."""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from operators.layers.fourier import analyse, analyse_by_fft, kept_wavenumbers, synthesise, synthesise_by_fft
from operators.layers.spectral_convolution import SpectralConvolution
from operators.layers.spectral_weights import spectral_weight
from operators.layers.tensor_ranks import cp_rank, tt_ranks, tucker_ranks
from operators.models import FNO

SHAPE = (32, 32, 16, 9)  # of the published models: 32 channels, 16 x 16 modes
FORMS = [None, "tucker", "cp", "tt"]


def parameter_count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_ranks_are_tensorlys():
    # tensorly.validate_{tucker,cp,tt}_rank, as read off its 0.10.0.
    assert [tucker_ranks(SHAPE, r) for r in (0.42, 0.1, 0.05, 0.01)] == [
        (26, 26, 13, 7), (18, 18, 9, 5), (15, 15, 7, 4), (9, 9, 4, 2),
    ]  # fmt: skip
    assert tucker_ranks((64, 64, 64, 33), 0.1) == (36, 36, 36, 19)
    assert [cp_rank(SHAPE, r) for r in (0.42, 0.1, 0.05, 0.01)] == [696, 166, 83, 17]
    assert tt_ranks(SHAPE, 0.1) == (1, 22, 17, 9, 1)


@pytest.mark.parametrize("rank", [1.0, 0.3, 0.01])
@pytest.mark.parametrize("shape", [SHAPE, (8, 8, 20), (6, 6, 5, 5, 4), (16, 12, 9)])
def test_fractions_solve_the_equations_of_the_rules(shape, rank):
    """The number of parameters is what was asked for, up to rounding each rank by at most a half."""
    dense = math.prod(shape)
    terms = cp_rank(shape, rank)
    assert abs(terms * sum(shape) - rank * dense) <= sum(shape) / 2 or terms == 1
    ranks = tucker_ranks(shape, rank)

    def parameters(ranks):
        return math.prod(ranks) + sum(i * r for i, r in zip(shape, ranks, strict=True))

    assert parameters([max(0, r - 0.5) for r in ranks]) <= rank * dense or min(ranks) == 1
    assert parameters([r + 0.5 for r in ranks]) >= rank * dense
    train = tt_ranks(shape, rank)

    def train_parameters(half):
        inner = [r + half for r in train[1:-1]]
        return sum(a * i * b for a, i, b in zip([1, *inner], shape, [*inner, 1], strict=True))

    assert train_parameters(-0.5) <= rank * dense or min(train[1:-1]) == 1
    assert train_parameters(0.5) >= rank * dense


@pytest.mark.parametrize(
    ("form", "rank", "published"),
    [("tucker", 0.1, 140_521), ("cp", 0.1, 132_673), ("tt", 0.1, 134_761), ("dense", 1.0, 1_192_801)],
)
def test_parameter_counts_are_the_published_ones(form, rank, published):
    assert parameter_count(FNO((16, 16), 1, 1, 32, factorization=form, rank=rank)) == published


def rebuilt(weight: torch.nn.Module) -> torch.Tensor:
    """The dense tensor, by one sum over all ranks as the definition has it."""
    letters = "ioklmn"
    if hasattr(weight, "tensor"):
        return torch.view_as_complex(weight.tensor)
    factors = [torch.view_as_complex(f) for f in weight.factors]
    axes = letters[: len(factors)]
    if hasattr(weight, "core"):
        names = axes.upper()
        terms = ",".join(a + b for a, b in zip(axes, names, strict=True))
        return torch.einsum(f"{names},{terms}->{axes}", torch.view_as_complex(weight.core), *factors)
    if hasattr(weight, "weights"):
        return torch.einsum(
            f"R,{','.join(a + 'R' for a in axes)}->{axes}", torch.view_as_complex(weight.weights), *factors
        )
    ranks = "ABCDEFG"
    terms = ",".join(f"{ranks[n]}{a}{ranks[n + 1]}" for n, a in enumerate(axes))
    return torch.einsum(f"{terms}->{axes}", *factors)


def plain_convolution(convolution: SpectralConvolution, x: torch.Tensor) -> torch.Tensor:
    """A spectral convolution by the full FFT and one wavenumber at a time, without its bias."""
    grid, modes, d = x.shape[1:-1], convolution.n_modes, x.ndim - 2
    weight = rebuilt(convolution.weight)
    spectrum = torch.fft.rfftn(x, dim=list(range(1, d + 1)))
    result = torch.zeros_like(spectrum)
    product = "bi,i->bi" if convolution.separable else "bi,io->bo"
    for index in torch.cartesian_prod(*(torch.arange(n) for n in spectrum.shape[1:-1])).reshape(-1, d).tolist():
        # Wavenumbers of the leading axes in FFT order; n / 2 of an even axis is the negative one.
        signed = [k if 2 * k < n else k - n for k, n in zip(index[:-1], grid[:-1], strict=True)]
        stored = [*(k + m // 2 for k, m in zip(signed, modes[:-1], strict=True)), index[-1]]
        if all(0 <= k < m for k, m in zip(stored, [*modes[:-1], modes[-1] // 2 + 1], strict=True)):
            here = (slice(None), *index)
            result[here] = torch.einsum(product, spectrum[here], weight[(..., *stored)])
    return torch.fft.irfftn(result, s=grid, dim=list(range(1, d + 1)))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("batch", [1, 50])  # the order of the products depends on it
@pytest.mark.parametrize(
    ("grid", "modes"),
    [((12,), (6,)), ((9,), (9,)), ((8, 10), (4, 6)), ((7, 5), (5, 5)), ((3, 4), (6, 6)), ((4, 5, 6), (4, 3, 4)),
     ((3, 2, 4, 3), (2, 2, 2, 3))],
)  # fmt: skip
def test_convolution_equals_dense_weights_under_a_plain_fft(form, separable, batch, grid, modes):
    """On even and odd axes, with fewer and with more modes than they carry."""
    torch.manual_seed(0)
    convolution = SpectralConvolution(4, 4, modes, form, rank=0.5, separable=separable).double()
    for parameter in convolution.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(batch, *grid, 4, dtype=torch.float64)
    onto = torch.randn_like(x)
    with torch.no_grad():
        expected = onto + plain_convolution(convolution, x)
        output = convolution(x, onto)
    # Rounding of double precision.
    torch.testing.assert_close(output, expected, rtol=1e-10, atol=1e-10 * expected.abs().max().item())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("grid", "modes"), [((11,), (6,)), ((12, 10), (6, 4)), ((9, 7), (5, 4)), ((4, 5, 6), (4, 3, 4))]
)
def test_a_model_in_double_precision_equals_its_formulas(form, grid, modes):
    """Lifting, Fourier layers with their skips and perceptrons, projection; on even and odd axes."""
    torch.manual_seed(0)
    model = FNO(modes, 2, 3, 4, n_layers=3, factorization=form, rank=0.5).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    p = {key: value for key, value in model.named_parameters() if "weight." not in key}
    x = torch.randn(2, 2, *grid, dtype=torch.float64)

    def gelu(u):
        return u * 0.5 * (1 + torch.erf(u / math.sqrt(2)))

    def perceptron(u, name):
        u = gelu(u @ p[f"{name}.first.weight"].T + p[f"{name}.first.bias"])
        return u @ p[f"{name}.second.weight"].T + p[f"{name}.second.bias"]

    with torch.no_grad():
        axes = torch.meshgrid(*[torch.arange(n, dtype=torch.float64) / n for n in grid], indexing="ij")
        u = torch.stack([*(x[:, c] for c in range(2)), *(a.expand(2, *grid) for a in axes)], dim=-1)
        u = perceptron(u, "lifting")
        for layer in range(3):
            block = f"blocks.{layer}"
            h = plain_convolution(model.blocks[layer].convolution, u) + p[f"{block}.convolution.bias"]
            h = h + u @ p[f"{block}.skip.weight"].T
            h = gelu(h) if layer < 2 else h
            u = perceptron(h, f"{block}.mlp") + u * p[f"{block}.mlp_skip.weight"]
            u = gelu(u) if layer < 2 else u
        expected = perceptron(u, "projection").movedim(-1, 1)
        output = model(x)
    assert (output - expected).abs().max() <= 1e-10 * expected.abs().max()


@pytest.mark.parametrize(
    ("grid", "modes"),
    [((12,), (6,)), ((9,), (9,)), ((8, 10), (4, 6)), ((7, 5), (5, 5)), ((4, 6), (4, 6)), ((4, 5, 6), (4, 3, 4))],
)
def test_fast_transforms_equal_the_matrix_products(grid, modes):
    """Other devices than CPUs use fast ones; both are compared here, with their gradients."""
    torch.manual_seed(0)
    kept = kept_wavenumbers(grid, modes)
    x = torch.randn(3, *grid, 2, dtype=torch.float64, requires_grad=True)
    results = []
    for there, back in ((analyse, synthesise), (analyse_by_fft, synthesise_by_fft)):
        spectrum = there(x, kept)
        y = back(spectrum**2, grid, kept, x)
        results.append([spectrum, y, *torch.autograd.grad((y**3).sum(), x)])
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)


def operations(weight: torch.nn.Module, batch: int) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        weight(torch.randn(40, batch, 32, dtype=torch.complex64), [slice(0, 8), slice(0, 5)])
    return counter.get_total_flops()


@pytest.mark.parametrize("form", ["tucker", "cp", "tt"])
def test_the_cheaper_order_is_taken(form):
    dense = spectral_weight((32, 32, 8, 5), 1.0, None, rank=1.0)
    low, high = (spectral_weight((32, 32, 8, 5), 1.0, form, rank) for rank in (0.02, 1.0))
    # One sample through thin factors is less work than through a dense weight, which is not rebuilt. Many samples are
    # not sent through factors as thick as the dense weight: that would cost two to three times the dense product.
    assert operations(low, 1) < operations(dense, 1)
    assert operations(high, 5000) < 1.5 * operations(dense, 5000)


@pytest.mark.parametrize(("form", "shrinks"), [(None, False), ("tucker", False), ("cp", False), ("tt", True)])
def test_initial_entries_have_the_prescribed_variance(form, shrinks):
    # E|w|^2 = 2 / (in + out), for a tensor train divided by the product of the ranks as published. Entries of one
    # tensor share factors, so the mean is taken over 100 tensors; over ten seeds it was off by 15 % at most.
    torch.manual_seed(0)
    squares = []
    for _ in range(100):
        weight = SpectralConvolution(6, 6, (4, 4), form, rank=0.5).weight
        squares.append((rebuilt(weight).abs() ** 2).mean().item())
    expected = 2 / 12 / (math.prod(tt_ranks((6, 6, 4, 3), 0.5)) if shrinks else 1)
    assert sum(squares) / 100 == pytest.approx(expected, rel=0.25)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("batch", [1, 20])
def test_gradients_against_finite_differences(form, separable, batch):
    torch.manual_seed(0)
    convolution = SpectralConvolution(3, 3, (4, 4), form, rank=0.5, separable=separable).double()
    names = [name for name, _ in convolution.named_parameters()]
    x = torch.randn(batch, 3, 5, 3, dtype=torch.float64, requires_grad=True)

    def function(x, *parameters):
        state = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(convolution, state, (x, x))

    parameters = tuple(p.detach().clone().requires_grad_() for p in convolution.parameters())
    assert torch.autograd.gradcheck(function, (x, *parameters), fast_mode=True)
    assert torch.autograd.gradgradcheck(function, (x, *parameters), fast_mode=True)


def test_frozen_factors_have_no_gradient():
    torch.manual_seed(0)
    weight = spectral_weight((3, 4, 4, 3), 1.0, "tucker", rank=0.5)
    x, kept = torch.randn(12, 2, 3, dtype=torch.complex64), [slice(0, 4), slice(0, 3)]
    weight(x, kept).abs().sum().backward()
    core, last = weight.core.grad, weight.factors[3].grad
    weight.zero_grad()
    weight.factors[2].requires_grad_(False)
    weight(x, kept).abs().sum().backward()
    assert weight.factors[2].grad is None
    assert torch.equal(weight.core.grad, core)
    assert torch.equal(weight.factors[3].grad, last)


def test_autocast_keeps_spectra_in_single_precision():
    """A small wave on a large constant, which a transform in bfloat16 (3 digits) would lose."""
    convolution = SpectralConvolution(2, 2, (4, 4))
    with torch.no_grad():
        convolution.weight.tensor.zero_()
        convolution.weight.tensor[0, 0, ..., 0] = convolution.weight.tensor[1, 1, ..., 0] = 1.0  # the identity
    wave = torch.cos(2 * math.pi * torch.arange(16) / 16)[None, :, None, None].expand(1, 16, 16, 2)
    x = 1024.0 + wave
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = convolution(x, torch.zeros_like(x))
    assert output.dtype == torch.float32
    # Nothing is rounded to bfloat16: 1024 in single precision is right to 6e-5, and sums of 16 such to a few times it.
    assert (output - x).abs().max() <= 5e-4
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = convolution(x.bfloat16(), torch.zeros_like(x, dtype=torch.bfloat16))
    assert half.dtype == torch.float32


@pytest.mark.parametrize("form", FORMS)
def test_a_model_trains_under_autocast(form):
    torch.manual_seed(0)
    model = FNO((6, 6), 1, 1, 8, n_layers=2, factorization=form, rank=0.5)
    x = torch.randn(3, 1, 12, 12)
    full = model(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model(x)
        low.float().square().mean().backward()
    assert all(torch.isfinite(p.grad).all() and p.grad.dtype == torch.float32 for p in model.parameters())
    assert (low - full).abs().max() <= 0.05 * full.abs().max()  # 2^-9 a product, through some ten of them


@pytest.mark.parametrize(
    ("form", "rank", "message"),
    [
        ("tucker", 1.5, "rank must be a fraction"),
        ("cp", 0.0, "rank must be a fraction"),
        ("tt", -0.1, "rank must be a fraction"),
        ("tucker", [5, 4, 4, 3], "for Tucker give one rank an axis"),
        ("cp", [3, 3], "for CP give a list of one"),
        ("tt", [4, 4, 4], "for TT give 5 ranks"),
        ("tt", [2, 4, 4, 4, 1], "for TT give 5 ranks"),
    ],
)
def test_ranks_out_of_range_are_refused(form, rank, message):
    with pytest.raises(ValueError, match=message):
        spectral_weight((4, 4, 4, 3), 1.0, form, rank)


def test_a_separable_convolution_keeps_its_channels():
    with pytest.raises(ValueError, match="as many outputs as inputs"):
        SpectralConvolution(2, 3, (4,), separable=True)
