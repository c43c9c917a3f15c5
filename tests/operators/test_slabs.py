"""Chains of pointwise layers in slabs: the numbers, the gradients and the gradients of gradients of the whole."""

import pytest
import torch
from torch import nn

from operators.layers import slabs


@pytest.fixture(autouse=True)
def _several_slabs(monkeypatch):
    monkeypatch.setattr(slabs, "SLAB", 2**8)


class Chain(nn.Module):
    """A chain of two fields with parameters, one of them frozen, that counts how often it is called."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 8), nn.Linear(8, 2)
        self.second.bias.requires_grad_(False)
        self.calls = 0

    def forward(self, x, y):
        self.calls += 1
        return self.second(self.first(x).tanh()) * y


@pytest.fixture
def case():
    torch.manual_seed(0)
    chain = Chain().double()
    # 9 lines of 5 points, not contiguous: the last slab of 6 lines is a short one.
    x = torch.randn(3, 3, 3, 5, dtype=torch.float64).movedim(1, -1).requires_grad_()
    y = torch.randn(3, 3, 5, 2, dtype=torch.float64)
    return chain, x, y


def test_numbers_and_gradients_are_those_of_the_whole(case):
    chain, x, y = case
    trained = [x, *(p for p in chain.parameters() if p.requires_grad)]
    whole = chain(x, y)
    chain.calls = 0
    pieces = slabs.by_slabs(chain, chain.parameters(), 8, x, y)
    assert chain.calls == 2  # in slabs, else this tests nothing
    weights = torch.randn_like(whole)
    expected = torch.autograd.grad(whole, trained, weights)
    found = torch.autograd.grad(pieces, trained, weights)
    assert chain.calls == 4
    for ours, truth in zip([pieces, *found], [whole, *expected], strict=True):
        # The same operations on parts; sums over 45 points in another order.
        torch.testing.assert_close(ours, truth, rtol=1e-12, atol=1e-13)


def test_gradients_of_gradients(case):
    chain, x, y = case
    y.requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x, y: slabs.by_slabs(chain, chain.parameters(), 8, x, y), (x, y))


def test_only_the_inputs_are_kept_for_the_gradients(case):
    chain, x, y = case
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        slabs.by_slabs(chain, chain.parameters(), 8, x, y)
    assert sum(t.numel() for t in kept) == x.numel() + y.numel() + sum(p.numel() for p in chain.parameters())


def test_frozen_chains_still_pass_gradients_on(case):
    chain, x, y = case
    chain.requires_grad_(False)
    (found,) = torch.autograd.grad(slabs.by_slabs(chain, chain.parameters(), 8, x, y).sum(), x)
    (expected,) = torch.autograd.grad(chain(x, y).sum(), x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)
