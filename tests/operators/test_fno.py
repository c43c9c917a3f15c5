"""FNO and TFNO: published parameter counts, the peer's outputs, and what theory says of the operator."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from operators.convert import from_neuraloperator
from operators.models import FNO, TFNO, models

GOLDEN = Path(__file__).parent / "golden"


def parameter_count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("modes", "hidden", "rank", "published"),
    [
        # neuraloperator's documentation and model zoo; complex numbers count as two.
        (16, 32, None, 1_192_801),
        (16, 32, 0.42, 520_761),
        (16, 32, 0.1, 140_521),
        (16, 32, 0.05, 72_417),
        (16, 32, 0.01, 23_601),
        (8, 32, None, 340_833),
        (8, 24, None, 191_881),
    ],
)
def test_parameter_counts_are_the_published_ones(modes, hidden, rank, published):
    factorization = {} if rank is None else {"factorization": "tucker", "rank": rank}
    model = FNO((modes, modes), 1, 1, hidden, **factorization)
    assert parameter_count(model) == published


def test_large_published_counts_follow_without_allocating():
    with torch.device("meta"):
        assert parameter_count(FNO((64, 64), 2, 1, 64)) == 69_257_025
        assert parameter_count(TFNO((64, 64), 2, 1, 64)) == 7_203_033


FILES = {version: GOLDEN / f"neuraloperator_{version}.npz" for version in ("1.0.2", "2.0.0")}


def golden(version: str, case: str) -> tuple[dict, dict[str, torch.Tensor], torch.Tensor, np.ndarray]:
    """Arguments, state dict, input and output of the peer."""
    with np.load(FILES[version]) as file:
        arrays = {key.removeprefix(f"{case}/"): file[key] for key in file.files if key.startswith(f"{case}/")}
    shapes = json.loads(str(arrays["shapes"]))
    ends = np.cumsum([math.prod(shape) for shape in shapes.values()])
    parts = np.split(arrays["state"], ends[:-1])
    state = {key: torch.from_numpy(v).reshape(shapes[key]) for key, v in zip(shapes, parts, strict=True)}
    state = {key: torch.view_as_complex(v) if "convs" in key and "weight" in key else v for key, v in state.items()}
    return json.loads(str(arrays["arguments"])), state, torch.from_numpy(arrays["input"]), arrays["output"]


def cases() -> list[tuple[str, str]]:
    return [(v, c) for v, path in FILES.items() for c in sorted({k.split("/")[0] for k in np.load(path).files})]


# What tensors alone do not say of a model.
UNSAID = {"positional_embedding", "non_linearity", "norm", "domain_padding", "stabilizer", "preactivation",
          "fno_skip", "channel_mlp_skip"}  # fmt: skip


@pytest.mark.parametrize(("version", "case"), cases())
@pytest.mark.filterwarnings("ignore:n_modes")
def test_outputs_equal_neuraloperator_on_the_same_weights(version, case):
    arguments, state, x, expected = golden(version, case)
    model = from_neuraloperator(state, **{k: v for k, v in arguments.items() if k in UNSAID})
    assert parameter_count(model) == parameter_count(FNO(**arguments))
    with torch.no_grad():
        output = model(x).numpy()
    # Single precision through 2 layers of sums of up to 256 terms: a few tens of units of 6e-8.
    assert np.abs(output - expected).max() <= 3e-6 * np.abs(expected).max()


def random_model(n_modes, seed=0, **arguments):
    torch.manual_seed(seed)
    return FNO(n_modes, 1, 2, 6, n_layers=3, **arguments).double()


def band_limited(grid: tuple[int, ...], highest: int = 2) -> torch.Tensor:
    """A trigonometric polynomial of the given degree, sampled at j / n."""
    generator = np.random.default_rng(3)
    axes = np.meshgrid(*[np.arange(n) / n for n in grid], indexing="ij")
    field = np.zeros(grid)
    for _ in range(6):
        wavenumber = generator.integers(-highest, highest + 1, size=len(grid))
        phase = generator.uniform(0, 2 * np.pi)
        field += np.cos(2 * np.pi * sum(k * x for k, x in zip(wavenumber, axes, strict=True)) + phase)
    return torch.from_numpy(field)[None, None]


@pytest.mark.parametrize("factorization", [None, "tucker"])
@pytest.mark.parametrize(
    ("grid", "modes"), [((16,), (6,)), ((10, 12), (4, 6)), ((9, 7), (5, 4)), ((6, 8, 5), (4, 4, 4))]
)
def test_commutes_with_translations_without_the_grid(grid, modes, factorization):
    model = random_model(modes, positional_embedding=None, factorization=factorization, rank=0.5)
    x = torch.randn(2, 1, *grid, dtype=torch.float64)
    shifts, axes = [3, 2, 1][: len(grid)], list(range(2, 2 + len(grid)))
    with torch.no_grad():
        shifted_after = torch.roll(model(x), shifts, axes)
        shifted_before = model(torch.roll(x, shifts, axes))
    # Rounding of double precision only.
    torch.testing.assert_close(shifted_before, shifted_after, rtol=1e-11, atol=1e-11)


def test_the_grid_embedding_breaks_translation():
    model = random_model((4, 4))
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        assert (model(torch.roll(x, 1, 2)) - torch.roll(model(x), 1, 2)).abs().max() > 1e-3


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_a_block_on_band_limited_fields_does_not_depend_on_the_grid(dimensions):
    # One spectral convolution and pointwise *linear* maps make no new wavenumbers, so a finer grid only adds points.
    torch.manual_seed(0)
    model = random_model((6,) * dimensions, positional_embedding=None)
    block = model.blocks[-1]
    coarse, fine = (8, 10, 8)[:dimensions], (16, 20, 16)[:dimensions]

    def spectral(grid):
        x = band_limited(grid).movedim(1, -1).expand(1, *grid, 6)
        with torch.no_grad():
            return block.convolution(x.contiguous(), torch.zeros(1, *grid, 6, dtype=torch.float64))

    sub = (slice(None), *([slice(None, None, 2)] * dimensions))
    torch.testing.assert_close(spectral(fine)[sub], spectral(coarse), rtol=1e-12, atol=1e-12)


def test_whole_model_converges_under_refinement():
    # GELU makes all wavenumbers, but smooth ones: aliasing falls faster than any power of the grid.
    model = random_model((6, 6), positional_embedding=None)
    with torch.no_grad():
        finest = model(band_limited((128, 128)))
        errors = [
            (model(band_limited((n, n))) - finest[..., :: 128 // n, :: 128 // n]).abs().max() for n in (8, 16, 32)
        ]
    assert errors[1] < errors[0] / 10
    assert errors[2] < errors[1] / 10


def test_modes_that_a_grid_does_not_carry_are_left_out_with_a_warning():
    model = FNO((16, 6), 1, 1, 4, n_layers=1, domain_padding=[0.0, 0.25])
    with pytest.warns(UserWarning, match=r"n_modes=\[16, 6\], but a grid of 9 x 6 points carries \[9, 6\] modes"):
        model(torch.zeros(1, 1, 9, 4))


@pytest.mark.filterwarnings("ignore:n_modes")
@pytest.mark.parametrize("grid", [(3, 3), (2, 5), (4, 7), (1, 1), (9, 9), (17, 5)])
@pytest.mark.parametrize("factorization", [None, "tucker"])
def test_grids_with_fewer_points_than_modes(grid, factorization):
    # Weights beyond what the grid carries must not matter; those it carries must meet their own wavenumbers.
    model = random_model((16, 16), factorization=factorization, rank=0.5)
    x = torch.randn(2, 1, *grid, dtype=torch.float64)
    output = model(x)
    assert output.shape == (2, 2, *grid)
    assert torch.isfinite(output).all()


def test_odd_grid_matches_a_plain_fft_implementation():
    # Written out with torch.fft, one wavenumber at a time, on odd axes where the peer's 2.0.0 goes wrong.
    torch.manual_seed(1)
    convolution = FNO((16, 6), 1, 1, 4, n_layers=1).double().blocks[0].convolution
    n1, n2 = 9, 7
    x = torch.randn(2, n1, n2, 4, dtype=torch.float64)
    weight = torch.view_as_complex(convolution.weight.tensor)
    transformed = torch.fft.rfftn(x, dim=(1, 2))
    result = torch.zeros(2, n1, n2 // 2 + 1, 4, dtype=torch.complex128)
    for k1 in range(-4, 5):
        for k2 in range(4):
            result[:, k1, k2] = transformed[:, k1, k2] @ weight[:, :, k1 + 8, k2]
    expected = torch.fft.irfftn(result, s=(n1, n2), dim=(1, 2))
    with torch.no_grad():
        output = convolution(x, torch.zeros_like(x))
    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("grid", "modes"), [((7,), (4,)), ((4, 5), (4, 4)), ((3, 4, 4), (2, 3, 4))])
@pytest.mark.parametrize("factorization", [None, "tucker"])
def test_gradients_against_finite_differences(grid, modes, factorization):
    torch.manual_seed(0)
    model = FNO(modes, 1, 1, 2, n_layers=2, factorization=factorization, rank=0.6, domain_padding=0.25).double()
    names = [name for name, _ in model.named_parameters()]
    x = torch.randn(2, 1, *grid, dtype=torch.float64, requires_grad=True)

    def function(x, *parameters):
        return torch.func.functional_call(model, dict(zip(names, parameters, strict=True)), (x,))

    parameters = tuple(p.detach().clone().requires_grad_() for p in model.parameters())
    assert torch.autograd.gradcheck(function, (x, *parameters), fast_mode=True)


@pytest.mark.parametrize("batch", [1, 64])
def test_tucker_orders_of_contraction_agree_with_the_dense_tensor(batch):
    # A batch of 1 is contracted factor by factor, one of 64 with the weights multiplied out (ranks near full).
    torch.manual_seed(2)
    tucker = FNO((4, 4), 1, 1, 6, n_layers=1, factorization="tucker", rank=[6, 6, 4, 3]).double().blocks[0].convolution
    dense = FNO((4, 4), 1, 1, 6, n_layers=1).double().blocks[0].convolution
    core, *factors = (torch.view_as_complex(t) for t in (tucker.weight.core, *tucker.weight.factors))
    full = torch.einsum("abcd,ia,ob,kc,ld->iokl", core, *factors)
    with torch.no_grad():
        dense.weight.tensor.copy_(torch.view_as_real(full))
        x = torch.randn(batch, 8, 8, 6, dtype=torch.float64)
        torch.testing.assert_close(
            tucker(x, torch.zeros_like(x)), dense(x, torch.zeros_like(x)), rtol=1e-12, atol=1e-12
        )


def test_initial_weights_have_the_prescribed_variance():
    # E|w|^2 = 2 / (in + out) for dense entries; the mean square of 2.9e5 / 2 complex entries is within 1 %.
    torch.manual_seed(0)
    convolution = FNO((16, 16), 1, 1, 32, n_layers=1).blocks[0].convolution
    square = (convolution.weight.tensor**2).sum(-1).mean().item()
    assert square == pytest.approx(2 / 64, rel=0.01)


def test_evaluating_in_inference_mode_does_not_spoil_training():
    # The transform matrices are cached; made in inference mode they could not be used by autograd afterwards.
    model = FNO((3, 3), 1, 1, 2, n_layers=1)
    x = torch.randn(1, 1, 11, 13)
    with torch.inference_mode():
        model(x)
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_registry_names_models_and_misspelt_arguments():
    model = models.build("tfno", n_modes=[4, 4], in_channels=1, out_channels=1, hidden_channels=4)
    assert parameter_count(model) < parameter_count(FNO((4, 4), 1, 1, 4))
    with pytest.raises(ValueError, match="Did you mean 'hidden_channels'"):
        models.build("fno", n_modes=[4, 4], in_channels=1, out_channels=1, hiden_channels=4)
    with pytest.raises(ValueError, match=r"unknown model 'tfn'.*Known: .*fno,.* tfno"):
        models.build("tfn")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_modes": 4}, "n_modes must list"),
        ({"n_modes": [4, 0]}, "n_modes must list"),
        ({"hidden_channels": 0}, "hidden_channels must be at least 1"),
        ({"factorization": "svd"}, "factorization must be null"),
        ({"factorization": "tucker", "rank": 0.0}, "rank must be a fraction"),
        ({"factorization": "tucker", "rank": [4, 4, 4]}, "give one rank an axis"),
        ({"fno_skip": "none"}, "fno_skip must be"),
        ({"domain_padding": [0.1]}, "domain_padding must be"),
        ({"positional_embedding": "sine"}, "positional_embedding must be"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message):
    good = {"n_modes": [4, 4], "in_channels": 1, "out_channels": 1, "hidden_channels": 4}
    with pytest.raises(ValueError, match=message):
        FNO(**(good | arguments))


def test_input_that_does_not_fit_is_refused():
    model = FNO((4, 4), 2, 1, 4)
    with pytest.raises(ValueError, match="2 channels"):
        model(torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match="2 grid axes"):
        model(torch.zeros(1, 2, 8, 8, 8))
