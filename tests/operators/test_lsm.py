"""Latent spectral models: published parameter counts and key names, and the formulas written out in numpy."""

import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.special import ndtr, softmax

import operators.layers.neural_spectral_block as block_module
from operators.layers.neural_spectral_block import (
    NeuralSpectralBlock,
    from_patches,
    multiply_last,
    project,
    to_patches,
)
from operators.models import LSM


def parameter_count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("width", "channels", "dimensions", "published"),
    [
        (32, (2, 1), 2, 4_812_833),  # airfoil
        (32, (1, 1), 2, 4_812_801),  # elasticity on a grid
        (48, (2, 1), 2, 10_804_913),  # pipe
        (64, (1, 1), 2, 19_187_457),  # Darcy
        (64, (10, 1), 2, 19_188_033),  # Navier-Stokes
        (32, (1, 4), 3, 13_457_828),  # plasticity
    ],
)
def test_parameter_counts_are_those_of_the_published_models(width, channels, dimensions, published):
    with torch.device("meta"):
        assert parameter_count(LSM(*channels, dimensions, width=width)) == published


def test_key_names_are_those_of_the_published_model():
    keys = {f"{layer}.{kind}" for layer in ("fc0", "fc1", "fc2", "outc.conv") for kind in ("weight", "bias")}
    for scale in range(1, 6):
        keys |= {f"process{scale}.{name}" for name in ("weights", "latent")}
        keys |= {f"process{scale}.{a}_attn.{b}" for a in ("encoder", "decoder") for b in ("weight", "bias")}
    stages = ["inc", *(f"down{i}.maxpool_conv.1" for i in range(1, 5)), *(f"up{i}.conv" for i in range(1, 5))]
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    for stage in stages:
        keys |= {f"{stage}.double_conv.{i}.weight" for i in (0, 3)}
        keys |= {f"{stage}.double_conv.{i}.{name}" for i in (1, 4) for name in norm}
    assert set(LSM(1, 1, width=8).state_dict()) == keys


def evaluate(state: dict[str, np.ndarray], x: np.ndarray, patch: list[int], heads: int) -> np.ndarray:
    """The published model in evaluation mode, as its formulas say, one sample and one patch at a time."""
    d = x.ndim - 2

    def column(vector):
        return vector.reshape(-1, *[1] * d)

    def pointwise(u, name):  # (channels, *grid)
        weight = state[f"{name}.weight"]
        return np.einsum("oc,c...->o...", weight.reshape(weight.shape[:2]), u) + column(state[f"{name}.bias"])

    def double_convolution(u, name):
        for convolution, norm in ((0, 1), (3, 4)):
            kernels = state[f"{name}.double_conv.{convolution}.weight"]
            u = np.stack([
                sum(ndimage.correlate(a, k, mode="constant") for a, k in zip(u, kernel, strict=True))
                for kernel in kernels
            ])  # fmt: skip
            weight, bias, mean, variance = (
                column(state[f"{name}.double_conv.{norm}.{key}"])
                for key in ("weight", "bias", "running_mean", "running_var")
            )
            u = np.maximum(0.0, (u - mean) / np.sqrt(variance + 1e-5) * weight + bias)
        return u

    def twice_as_fine(u):
        for axis in range(1, d + 1):
            n = u.shape[axis]
            places = np.arange(2 * n) * (n - 1) / (2 * n - 1)
            left = np.minimum(places.astype(int), n - 1)
            right = np.minimum(left + 1, n - 1)
            share = (places - left).reshape(-1, *[1] * (d - axis))
            u = (1 - share) * u.take(left, axis) + share * u.take(right, axis)
        return u

    def block(u, name):
        c = len(u)
        latent, weights = state[f"{name}.latent"], state[f"{name}.weights"]
        n = weights.shape[1] // 2
        result = np.empty_like(u)
        for corner in itertools.product(*(range(0, n, p) for n, p in zip(u.shape[1:], patch, strict=True))):
            here = (slice(None), *(slice(i, i + p) for i, p in zip(corner, patch, strict=True)))
            points = u[here].reshape(c, -1)
            both = pointwise(u[here], f"{name}.encoder_attn").reshape(2 * c, -1)
            keys, values = (both[i::2].reshape(heads, c // heads, -1) for i in (0, 1))
            query = pointwise(u[here], f"{name}.decoder_attn").reshape(heads, c // heads, -1)
            new = np.empty((heads, c // heads, points.shape[1]))
            for h in range(heads):
                tokens = softmax(latent[h] @ keys[h], axis=-1) @ values[h].T + latent[h]  # (tokens, channels)
                for j in range(c // heads):
                    z, w = tokens[:, j].copy(), weights[h * (c // heads) + j]
                    for k in range(n):
                        tokens[:, j] += w[k] * np.sin(np.pi * k / n * z) + w[n + k] * np.cos(np.pi * k / n * z)
                new[h] = (softmax(query[h].T @ tokens.T, axis=-1) @ tokens).T
            result[here] = u[here] + new.reshape(u[here].shape)
        return result

    grid = x.shape[2:]
    coordinates = np.stack(np.meshgrid(*[np.linspace(0, 1, n) for n in grid], indexing="ij"))
    outputs = []
    for sample in x:
        u = pointwise(np.concatenate([sample, coordinates]), "fc0")
        u = np.pad(u, [(0, 0), *((0, -n % (16 * p)) for n, p in zip(grid, patch, strict=True))])
        scales = [double_convolution(u, "inc")]
        for i in range(1, 5):
            pairs = scales[-1].reshape(-1, *(m for n in scales[-1].shape[1:] for m in (n // 2, 2)))
            scales.append(double_convolution(pairs.max(tuple(range(2, 2 * d + 1, 2))), f"down{i}.maxpool_conv.1"))
        u = block(scales[4], "process5")
        for i in range(1, 5):
            skip = block(scales[4 - i], f"process{5 - i}")
            u = double_convolution(np.concatenate([skip, twice_as_fine(u)]), f"up{i}.conv")
        u = pointwise(u, "outc.conv")[(slice(None), *(slice(n) for n in grid))]
        hidden = pointwise(u, "fc1")
        outputs.append(pointwise(hidden * ndtr(hidden), "fc2"))  # GELU
    return np.stack(outputs)


@pytest.mark.parametrize(
    ("grid", "patch_size", "patch"),
    [
        ((37,), None, [3]),
        ((16, 18), None, [1, 2]),
        ((20, 16), 2, [2, 2]),
        ((5, 33), [1, 2], [1, 2]),
        ((16, 3, 9), None, [1, 1, 1]),
    ],
)
def test_output_equals_the_formulas_in_numpy(grid, patch_size, patch):
    torch.manual_seed(0)
    model = LSM(2, 3, len(grid), width=4, n_tokens=3, n_basis=5, n_heads=2, patch_size=patch_size).double().eval()
    # Far from the initial values, where tokens are nearly zero and every softmax nearly uniform.
    state = {
        key: torch.rand_like(value) + 0.5 if key.endswith("running_var") else 0.5 * torch.randn_like(value)
        for key, value in model.state_dict().items()
        if value.is_floating_point()
    }
    model.load_state_dict(state, strict=False)
    x = torch.randn(2, 2, *grid, dtype=torch.float64)
    expected = evaluate({key: value.numpy() for key, value in state.items()}, x.numpy(), patch, heads=2)
    with torch.no_grad():
        output = model(x).numpy()
        single = model.float()(x.float()).numpy()
    scale = np.abs(expected).max()
    # Rounding of double precision, and of single (6e-8) through some twenty layers of sums.
    assert np.abs(output - expected).max() <= 1e-12 * scale
    assert np.abs(single - expected).max() <= 1e-5 * scale


@pytest.mark.parametrize(("grid", "patch"), [((12,), (3,)), ((4, 6), (2, 3)), ((4, 2, 6), (1, 2, 3))])
def test_patches_are_cut_and_put_together_again(grid, patch):
    x = torch.randn(2, 3, *grid)
    patches = to_patches(x, patch)
    torch.testing.assert_close(from_patches(patches, patch, grid), x, rtol=0, atol=0)
    first = x[0][(slice(None), *(slice(p) for p in patch))].flatten(1).T
    torch.testing.assert_close(patches[:, 0], first, rtol=0, atol=0)


@pytest.mark.parametrize("grid", [(1,), (17,), (1, 40), (33, 16), (16, 2, 17)])
def test_any_grid_trains(grid):
    model = LSM(1, 2, len(grid), width=4, n_heads=2)
    output = model(torch.randn(2, 1, *grid))
    output.square().sum().backward()
    assert output.shape == (2, 2, *grid)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("dimensions", [1, 2])
def test_gradients_against_finite_differences(dimensions):
    """Of the block, whose series has a gradient written by hand."""
    torch.manual_seed(0)
    block = NeuralSpectralBlock(dimensions, channels=4, n_basis=3, n_tokens=2, n_heads=2).double()
    patch = (2, 3)[:dimensions]
    x = torch.randn(2, 4, *(2 * p for p in patch), dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in block.named_parameters()]

    def function(x, *parameters):
        return torch.func.functional_call(block, dict(zip(names, parameters, strict=True)), (x, patch))

    parameters = tuple(torch.randn_like(p).requires_grad_() for p in block.parameters())
    assert torch.autograd.gradcheck(function, (x, *parameters), fast_mode=True)


def test_initial_weights_are_the_published_ones():
    torch.manual_seed(0)
    block = LSM(1, 1, width=8).process3  # 32 channels
    for parameter in (block.weights, block.latent):
        # Uniform on [0, 1 / channels): the mean of at least 128 numbers, to three standard errors of it.
        assert parameter.min() >= 0
        assert parameter.max() < 1 / 32
        assert abs(parameter.mean().item() - 1 / 64) < 3 / 32 / np.sqrt(12 * parameter.numel())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 12}, "multiple of n_heads"),
        ({"n_tokens": 0}, "n_tokens must be at least 1"),
        ({"dimensions": 4}, "dimensions must be 1, 2 or 3"),
        ({"patch_size": [2]}, "patch_size must be"),
        ({"patch_size": 0}, "patch_size must be"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        LSM(1, 1, **arguments)


def test_input_that_does_not_fit_is_refused():
    model = LSM(2, 1, width=8)
    with pytest.raises(ValueError, match="2 channels"):
        model(torch.zeros(1, 1, 16, 16))
    with pytest.raises(ValueError, match="2 grid axes"):
        model(torch.zeros(1, 2, 16))
    with pytest.raises(ValueError, match="a single point on the coarsest scale"):
        model(torch.zeros(1, 2, 9, 16))


@pytest.mark.parametrize("transposed", ["", "a", "b", "ab"])
@pytest.mark.parametrize("onto", [None, (2, 3, 4, 9), (2, 3, 1, 9), (2, 1, 4, 1)])
def test_products_of_matrices_on_the_last_axis(transposed, onto):
    """Values, gradients and gradients of gradients, whatever lies transposed in memory, which gradients then do too."""
    torch.manual_seed(0)
    a, b = (
        torch.randn(2, *(shape[::-1] if name in transposed else shape), 9, dtype=torch.float64)
        for name, shape in (("a", (3, 5)), ("b", (5, 4)))
    )
    onto = None if onto is None else torch.randn(onto, dtype=torch.float64)
    operands = [t.requires_grad_() for t in (a, b, onto) if t is not None]

    def product(a, b, *onto):
        a, b = (t.transpose(1, 2) if name in transposed else t for name, t in (("a", a), ("b", b)))
        return multiply_last(a, b, *onto)

    left, right = (t.transpose(1, 2) if name in transposed else t for name, t in (("a", a), ("b", b)))
    expected = torch.einsum("hikn,hkjn->hijn", left, right) + (0 if onto is None else onto)
    torch.testing.assert_close(product(*operands), expected)
    assert torch.autograd.gradcheck(product, operands, fast_mode=True)
    assert torch.autograd.gradgradcheck(product, operands, fast_mode=True)
    gradients = torch.autograd.grad(product(*operands).sum(), (a, b))
    assert all(gradient.is_contiguous() for gradient in gradients)


@pytest.mark.parametrize("channels", [6, 70])  # few and many are multiplied in different ways
def test_projections_have_the_gradients_of_their_formula(channels):
    torch.manual_seed(0)
    operands = [torch.randn(n, channels, dtype=torch.float64, requires_grad=True) for n in (7, 2, 3, 4)]
    for found, weight in zip(project(*operands), operands[1:], strict=True):
        torch.testing.assert_close(found, weight @ operands[0].T)
    assert torch.autograd.gradcheck(project, operands, fast_mode=True)


@pytest.mark.parametrize("grid", [(8, 12), (4, 4)])
def test_both_ways_of_a_block_agree(grid, monkeypatch):
    """Autocast, compilers and other devices have plain operations."""
    torch.manual_seed(0)
    block = NeuralSpectralBlock(2, 8, n_basis=3, n_tokens=2, n_heads=4).double()
    x = torch.randn(2, 8, *grid, dtype=torch.float64, requires_grad=True)
    results = []
    for by_library in (False, True):
        monkeypatch.setattr(block_module, "by_library", lambda _, by_library=by_library: by_library)
        y = block(x, (2, 4))
        results.append([y, *torch.autograd.grad(y.square().sum(), [x, *block.parameters()])])
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)


def test_a_model_trains_under_autocast():
    torch.manual_seed(0)
    model = LSM(1, 1, width=8, n_heads=2)
    x = torch.randn(3, 1, 32, 32)
    full = model(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model(x)
        low.float().square().mean().backward()
    assert all(torch.isfinite(p.grad).all() and p.grad.dtype == torch.float32 for p in model.parameters())
    assert (low - full).norm() <= 0.1 * full.norm()  # 2^-9 a product, through some forty layers
