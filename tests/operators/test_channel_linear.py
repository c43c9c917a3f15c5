"""Linear maps over channels: the same numbers and gradients by either library."""

import pytest
import torch
from torch.nn import functional

from operators.layers.channel_linear import ChannelLinear, channel_linear


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


def test_it_can_be_differentiated_twice():
    torch.manual_seed(0)
    x = torch.randn(2, 40, 40, 8, requires_grad=True)
    weight = torch.randn(8, 8, requires_grad=True)
    results = []
    for linear in (channel_linear, functional.linear):
        (first,) = torch.autograd.grad(linear(x, weight).tanh().sum(), x, create_graph=True)
        results.append(torch.autograd.grad(first.square().sum(), [x, weight]))
    for ours, theirs in zip(*results, strict=True):
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def test_autocast_reaches_it():
    layer, x = ChannelLinear(8, 8), torch.randn(1, 40, 40, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert layer.weight.grad.dtype == torch.float32
