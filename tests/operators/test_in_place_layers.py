"""Layers that write over what nobody needs, or sum slab by slab: values, gradients and gradients of gradients."""

import pytest
import torch

import operators.layers.pointwise as pointwise
from operators.layers.fourier import kept_wavenumbers, synthesise
from operators.layers.pointwise import gated_sum
from operators.models import FNO


@pytest.mark.parametrize("grid", [(7,), (8, 6), (4, 5, 6)])
def test_synthesis_onto_a_field_that_becomes_the_result(grid):
    torch.manual_seed(0)
    kept = kept_wavenumbers(grid, [4] * len(grid))
    modes = torch.Size(map(len, kept)).numel()
    spectrum = torch.randn(2, modes, 3, dtype=torch.complex128, requires_grad=True)
    field = torch.randn(2, *grid, 3, dtype=torch.float64, requires_grad=True)
    onto = field * 1.0
    result = synthesise(spectrum, grid, kept, onto, overwrite=True)
    assert result.data_ptr() == onto.data_ptr()
    assert torch.equal(result, synthesise(spectrum, grid, kept, field))

    def overwriting(spectrum, field):
        return synthesise(spectrum, grid, kept, field * 1.0, overwrite=True)

    torch.autograd.gradcheck(overwriting, (spectrum, field))
    torch.autograd.gradgradcheck(overwriting, (spectrum, field))


def test_a_field_that_is_no_contiguous_block_is_left_as_it_is():
    kept = kept_wavenumbers((4, 4), (4, 4))
    onto = torch.zeros(3).expand(1, 4, 4, 3)
    result = synthesise(torch.ones(1, 12, 3, dtype=torch.complex64), (4, 4), kept, onto, overwrite=True)
    assert result.abs().max() > 0
    assert not onto.any()


def test_gated_sum_has_the_gradients_of_its_formula(monkeypatch):
    monkeypatch.setattr(pointwise, "_GATE_SLAB", 9)  # several slabs, the last one shorter
    torch.manual_seed(0)
    y, x = (torch.randn(2, 4, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    gate = torch.randn(3, dtype=torch.float64, requires_grad=True)
    assert torch.equal(gated_sum(y, gate, x), torch.addcmul(y, gate, x))
    torch.autograd.gradcheck(gated_sum, (y, gate, x))
    torch.autograd.gradgradcheck(gated_sum, (y, gate, x))
    free = y * 1.0
    assert gated_sum(free, gate, x, overwrite=True).data_ptr() == free.data_ptr()
    assert gated_sum(y, gate, x, overwrite=True).data_ptr() != y.data_ptr()

    def overwriting(y, gate, x):
        return gated_sum(y * 1.0, gate, x, overwrite=True)

    torch.autograd.gradcheck(overwriting, (y, gate, x))


def test_an_fno_gives_its_input_back_unchanged_and_the_same_answer_twice():
    torch.manual_seed(0)
    model, x = FNO((8, 8), 2, 1, 16), torch.randn(3, 2, 32, 32)
    before = x.clone()
    first = model(x)
    first.sum().backward()
    with torch.no_grad():
        assert torch.equal(model(x), first)
    assert torch.equal(x, before)
