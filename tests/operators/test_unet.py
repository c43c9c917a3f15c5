"""U-Net: parameter counts by hand, an evaluation in numpy, and what symmetry says of it."""

import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage

from operators.layers.boundary import crop, extend
from operators.models import UNet


def parameter_count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_parameter_count_is_pdebenchs():
    # PDEBench's UNet2d(in_channels=10, out_channels=1, init_features=32), whose layers its source lists one by one:
    # encoder, bottleneck and decoder convolutions, norms, transposed convolutions, head.
    encoder = sum(9 * (a * b + b * b) + 4 * b for a, b in [(10, 32), (32, 64), (64, 128), (128, 256), (256, 512)])
    decoder = sum(4 * 2 * b * b + b + 9 * (2 * b * b + b * b) + 4 * b for b in (256, 128, 64, 32))
    assert parameter_count(UNet(10, 1, width=32)) == encoder + decoder + 33


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("levels", [1, 3])
def test_parameter_count_is_the_documented_one(dimensions, levels):
    c, o, w, d = 3, 2, 6, dimensions
    widths = [c, *(w * 2**level for level in range(levels + 1))]
    expected = sum(3**d * (a * b + b * b) + 4 * b for a, b in itertools.pairwise(widths))
    expected += sum(2**d * 2 * b * b + b + 3 ** (d + 1) * b * b + 4 * b for b in widths[1:-1])
    assert parameter_count(UNet(c, o, d, width=w, levels=levels)) == expected + (w + 1) * o


MODES = {"zero": {"mode": "constant", "cval": 0.0}, "periodic": {"mode": "wrap"}, "replicate": {"mode": "nearest"}}


@pytest.mark.parametrize("boundary", ["zero", "periodic", "replicate"])
@pytest.mark.parametrize("grid", [(8,), (4, 8), (4, 4, 2)])
def test_output_equals_an_evaluation_in_numpy(grid, boundary):
    """Two levels written out with scipy's correlation, reshaped maxima and Kronecker products."""
    torch.manual_seed(0)
    d = len(grid)
    model = UNet(2, 3, d, width=4, levels=1, activation="tanh", boundary=boundary).double().train()
    x = torch.randn(2, 2, *grid, dtype=torch.float64)
    parameters = {name: p.detach().numpy() for name, p in model.named_parameters()}

    def stage(u, name):
        for convolution, norm in ((0, 1), (3, 4)):
            kernel = parameters[f"{name}.{convolution}.weight"]
            u = np.stack([
                [sum(ndimage.correlate(a, k, **MODES[boundary]) for a, k in zip(sample, kernels, strict=True))
                 for kernels in kernel]
                for sample in u
            ])  # fmt: skip
            over = (0, *range(2, 2 + d))
            u = (u - u.mean(over, keepdims=True)) / np.sqrt(u.var(over, keepdims=True) + 1e-5)
            shape = (-1,) + (1,) * d
            u = np.tanh(u * parameters[f"{name}.{norm}.weight"].reshape(shape) +
                        parameters[f"{name}.{norm}.bias"].reshape(shape))  # fmt: skip
        return u

    fine = stage(x.numpy(), "encoder.0")
    pairs = fine.reshape(2, 4, *(n for points in grid for n in (points // 2, 2)))
    coarse = stage(pairs.max(axis=tuple(range(3, 3 + 2 * d, 2))), "encoder.1")
    kernel = parameters["upsampling.0.weight"]
    up = np.stack([
        [sum(np.kron(a, k) for a, k in zip(sample, kernel[:, out], strict=True)) for out in range(4)]
        for sample in coarse
    ]) + parameters["upsampling.0.bias"].reshape(-1, *[1] * d)  # fmt: skip
    u = stage(np.concatenate([up, fine], axis=1), "decoder.0")
    head = parameters["head.weight"].reshape(3, 4)
    expected = np.einsum("oc,bc...->bo...", head, u) + parameters["head.bias"].reshape(-1, *[1] * d)
    with torch.no_grad():
        # Rounding of double precision through seven convolutions.
        np.testing.assert_allclose(model(x).numpy(), expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("grid", [(1,), (5,), (16,), (3, 3), (7, 20), (16, 16), (1, 9), (5, 3, 6)])
@pytest.mark.parametrize("boundary", ["zero", "periodic", "replicate"])
@pytest.mark.parametrize("norm", ["batch", "group", "layer", None])
def test_any_grid(grid, boundary, norm):
    model = UNet(2, 3, len(grid), width=3, levels=3, norm=norm, boundary=boundary)
    output = model(torch.randn(2, 2, *grid))
    output.square().sum().backward()
    assert output.shape == (2, 3, *grid)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("grid", [(16,), (8, 16), (8, 8, 4)])
def test_commutes_with_translations_of_periodic_fields(grid):
    # By multiples of 2^levels points, the only ones that the strided layers commute with.
    torch.manual_seed(0)
    model = UNet(1, 1, len(grid), width=4, levels=2, norm="layer", boundary="periodic").double()
    x = torch.randn(2, 1, *grid, dtype=torch.float64)
    shifts, axes = [4] * len(grid), list(range(2, 2 + len(grid)))
    with torch.no_grad():
        torch.testing.assert_close(model(x.roll(shifts, axes)), model(x).roll(shifts, axes), rtol=1e-11, atol=1e-11)
        broken = UNet(1, 1, len(grid), width=4, levels=2, norm="layer", boundary="zero").double()
        assert (broken(x.roll(shifts, axes)) - broken(x).roll(shifts, axes)).abs().max() > 1e-3


@pytest.mark.parametrize("boundary", ["zero", "periodic", "replicate"])
def test_continuation_is_numpys_and_is_cropped_again(boundary):
    mode = {"zero": "constant", "periodic": "wrap", "replicate": "edge"}[boundary]
    x = torch.randn(2, 3, 4, 5)
    widths = [(3, 9), (0, 11)]  # more than the grid has
    extended = extend(x, widths, boundary)
    np.testing.assert_array_equal(extended.numpy(), np.pad(x.numpy(), [(0, 0), (0, 0), *widths], mode=mode))
    torch.testing.assert_close(crop(extended, widths), x, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dimensions": 4}, "dimensions must be 1, 2 or 3"),
        ({"levels": 0}, "levels must be at least 1"),
        ({"norm": "instance"}, "norm must be"),
        ({"activation": "sine"}, "activation must be one of"),
        ({"boundary": "circular"}, "boundary must be"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        UNet(1, 1, **arguments)


def test_input_that_does_not_fit_is_refused():
    model = UNet(2, 1, width=2)
    with pytest.raises(ValueError, match="2 channels"):
        model(torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match="2 grid axes"):
        model(torch.zeros(1, 2, 8))
    with pytest.raises(ValueError, match="a single point on the coarsest"):
        model(torch.zeros(1, 2, 9, 9))
    assert model.eval()(torch.zeros(1, 2, 9, 9)).shape == (1, 1, 9, 9)
