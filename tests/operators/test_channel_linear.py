"""Linear maps over channels: the same numbers and gradients by either library."""

import numpy as np
import pytest
import torch
from torch.nn import functional

import operators.layers.channel_linear as module
from operators.layers.channel_linear import FEWEST_PRODUCTS, ChannelLinear, channel_linear


@pytest.mark.parametrize("grid", [(3000,), (40, 60), (11, 12, 13), (4, 5, 6, 7), (5, 5)])
@pytest.mark.parametrize(("channels_in", "channels_out"), [(32, 16), (3, 40), (16, 1), (1, 8)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("contiguous", [True, False])
def test_output_and_gradients_are_those_of_a_linear_map(grid, channels_in, channels_out, bias, contiguous):
    torch.manual_seed(0)
    layer = ChannelLinear(channels_in, channels_out, bias=bias)
    x = torch.randn(2, *grid, channels_in) if contiguous else torch.randn(2, channels_in, *grid).movedim(1, -1)
    x.requires_grad_()
    y = layer(x)
    weights = torch.randn_like(y)
    gradients = torch.autograd.grad((y * weights).sum(), [x, *layer.parameters()])
    exact = [t.detach().double().requires_grad_() for t in (x, *layer.parameters())]
    expected = functional.linear(*exact)
    expected_gradients = torch.autograd.grad((expected * weights.double()).sum(), exact)
    for ours, truth in zip([y, *gradients], [expected, *expected_gradients], strict=True):
        assert ours.shape == truth.shape
        # Single precision: sums of up to 6,000 terms, whose rounding grows like the root of their number at most here.
        assert (ours - truth).abs().max() <= 1e-5 * truth.abs().max()


@pytest.mark.parametrize(("points", "channels_in", "channels_out"), [(16, 384, 192), (17, 192, 384), (1024, 64, 64)])
def test_few_points_with_many_channels(points, channels_in, channels_out):
    """Every way to the weight's gradient, from a gradient that is expanded and one that is transposed."""
    torch.manual_seed(0)
    x = torch.randn(points, channels_in, requires_grad=True)
    weight, bias = torch.randn(channels_out, channels_in, requires_grad=True), torch.randn(channels_out)
    assert x.numel() * channels_out >= FEWEST_PRODUCTS
    for gradient in (torch.ones(()).expand(points, channels_out), torch.randn(channels_out, points).t()):
        ours = torch.autograd.grad(channel_linear(x, weight, bias), [x, weight], gradient)
        exact = gradient.double() @ weight.double(), gradient.double().t() @ x.double()
        for one, truth in zip(ours, exact, strict=True):
            assert (one - truth).abs().max() <= 1e-5 * truth.abs().max()


def strided(rng, *shape):
    """Random numbers of that shape, and any strides."""
    steps = [int(rng.integers(1, 3)) for _ in shape]
    order = [int(axis) for axis in rng.permutation(len(shape))]
    whole = torch.from_numpy(rng.standard_normal([shape[axis] * steps[axis] for axis in order]).astype("f4"))
    return whole.permute(*np.argsort(order).tolist())[tuple(slice(None, None, step) for step in steps)]


@pytest.mark.parametrize("seed", range(12))
def test_strides_do_not_matter(seed):
    """oneDNN takes a bias for contiguous whatever its stride: that once gave a model wrong answers without a word."""
    rng = np.random.default_rng(seed)
    channels_in, channels_out = (int(rng.choice([1, 16, 96, 384])) for _ in range(2))
    points = -(-FEWEST_PRODUCTS // (channels_in * channels_out))
    given = strided(rng, 2, points, channels_in), strided(rng, channels_out, channels_in), strided(rng, channels_out)
    gradient = strided(rng, 2, points, channels_out)
    results = []
    for linear, dtype in ((channel_linear, torch.float32), (functional.linear, torch.float64)):
        own = [t.to(dtype) if dtype == torch.float64 else t.detach() for t in given]
        own = [t.requires_grad_() for t in own]
        y = linear(*own)
        results.append([y, *torch.autograd.grad(y, own, gradient.to(dtype))])
        with torch.no_grad():
            results[-1].append(linear(*own))
    for ours, truth in zip(*results, strict=True):
        # Sums of up to half a million terms in single precision.
        assert (ours - truth).abs().max() <= 3e-5 * truth.abs().max()


def test_only_what_is_asked_for_is_computed_and_nothing_is_without_gradients():
    x, weight = torch.randn(64, 192), torch.randn(192, 192, requires_grad=True)
    (found,) = torch.autograd.grad(channel_linear(x, weight).sum(), weight)
    assert (found - x.sum(0)).abs().max() <= 1e-4
    assert channel_linear(x, weight).requires_grad
    with torch.no_grad():
        assert not channel_linear(x, weight).requires_grad
    with torch.inference_mode():
        assert channel_linear(x, weight).is_inference()


def test_onednn_gets_matrices_for_which_it_is_fast():
    """A weight that is every second column of another one: the encoder of a latent spectral model has such."""
    whole = torch.randn(64, 128)
    assert module.dense(whole) is whole
    assert module.dense(whole.t()).data_ptr() == whole.data_ptr()
    for strided in (whole[:, ::2], whole[:, :100], whole[::2].t()):
        assert module.dense(strided).is_contiguous()
        assert torch.equal(module.dense(strided), strided)
    x, weight = torch.randn(512, 64), whole[:, ::2]
    assert (channel_linear(x, weight) - x @ weight.t()).abs().max() <= 1e-4


def test_without_onednn_it_is_a_plain_linear_map(monkeypatch):
    def missing(*_):
        raise AttributeError

    module._is_there.cache_clear()
    monkeypatch.setattr(module, "_product", missing)
    x, weight = torch.randn(64, 192), torch.randn(192, 192)
    assert torch.equal(channel_linear(x, weight), functional.linear(x, weight))
    module._is_there.cache_clear()


def test_it_can_be_differentiated_twice():
    torch.manual_seed(0)
    x = torch.randn(2, 80, 80, 16, requires_grad=True)
    weight = torch.randn(16, 16, requires_grad=True)
    results = []
    for linear in (channel_linear, functional.linear):
        (first,) = torch.autograd.grad(linear(x, weight).tanh().sum(), x, create_graph=True)
        results.append(torch.autograd.grad(first.square().sum(), [x, weight]))
    for ours, theirs in zip(*results, strict=True):
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def test_autocast_reaches_it():
    layer, x = ChannelLinear(16, 16), torch.randn(2, 80, 80, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert layer.weight.grad.dtype == torch.float32
