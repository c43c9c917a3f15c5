"""Recomputation: the same numbers as without, made once, and nothing loaded for it."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from operators.layers.recompute import recomputed


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Dropout(0.5), nn.Linear(8, 4)).double()


@pytest.mark.parametrize("autocast", [False, True])
def test_gradients_are_those_of_the_function_itself(autocast):
    torch.manual_seed(0)
    layers = nn.ModuleList([small(), small()]).to(torch.float32 if autocast else torch.float64)
    x = torch.randn(5, 4, dtype=torch.float32 if autocast else torch.float64, requires_grad=True)
    results = []
    for wrap in (lambda layer, x: layer(x), recomputed):
        torch.manual_seed(1)  # dropout
        with torch.autocast("cpu", enabled=autocast, dtype=torch.bfloat16):
            y = x
            for layer in layers:
                y = wrap(layer, y)
        gradients = torch.autograd.grad(y.float().square().sum(), [x, *layers.parameters()])
        results.append([y, *gradients, torch.rand(2)])  # whoever draws next finds the numbers that follow
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_gradients_of_gradients():
    torch.manual_seed(0)
    weight = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)

    def function(x, weight):
        return recomputed(lambda x: (x @ weight).sin() * x, x)

    assert torch.autograd.gradcheck(function, (x, weight))
    assert torch.autograd.gradgradcheck(function, (x, weight))


def test_two_passes_through_one_graph():
    x = torch.randn(3, requires_grad=True)
    y = recomputed(lambda x: x.exp().sin(), x).sum()
    first = torch.autograd.grad(y, x, retain_graph=True)
    assert torch.equal(*first, *torch.autograd.grad(y, x))


def test_layers_are_computed_again_once_and_the_last_first():
    calls = []

    def layer(number):
        def function(x):
            calls.append(number)
            return x.sin().sin()

        return function

    x = torch.ones(2, requires_grad=True)
    y = x
    for number in range(3):
        y = recomputed(layer(number), y)
    assert calls == [0, 1, 2]
    y.sum().backward()
    assert calls == [0, 1, 2, 2, 1, 0]


def test_it_loads_no_compiler():
    code = (
        "import sys, torch\n"
        "from operators.layers.recompute import recomputed\n"
        "x = torch.ones(2, requires_grad=True)\n"
        "recomputed(torch.sin, x).sum().backward()\n"
        "sys.exit('torch._dynamo' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
