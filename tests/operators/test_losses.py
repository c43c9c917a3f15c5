"""Losses against closed forms."""

import itertools

import numpy as np
import pytest
import torch

from operators.losses import configured, losses, mse, relative_h1, relative_l1_by_group, relative_l2


@pytest.mark.parametrize("name", ["relative_l1", "relative_l2", "relative_h1"])
@pytest.mark.parametrize("grid", [(9,), (8, 7), (5, 6, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_costs_exactly_one_and_the_truth_nothing(name, grid, dtype):
    torch.manual_seed(0)
    target = 1e-3 * torch.randn(4, 2, *grid, dtype=dtype)
    assert torch.equal(losses[name](torch.zeros_like(target), target), torch.ones(4, 2, dtype=dtype))
    assert torch.equal(losses[name](target, target), torch.zeros(4, 2, dtype=dtype))


def test_each_sample_and_channel_is_measured_by_itself():
    target = torch.ones(3, 2, 8)
    prediction = target.clone()
    prediction[1, 0] *= 1.5  # one sample's one channel, at whatever scale the others are
    target[:, 1] *= 1e4
    prediction[:, 1] *= 1e4
    expected = torch.zeros(3, 2)
    expected[1, 0] = 0.5
    torch.testing.assert_close(relative_l2(prediction, target), expected)


def sine_case(n: int, periodic: bool):
    """Fields on cell centres and the exact ratio of H1 norms over the unit square."""
    x = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    k = 2 * np.pi if periodic else np.pi
    target = torch.sin(k * x)[:, None] * torch.cos(k * x)[None, :]
    error = 0.3 * torch.sin(2 * k * x)[:, None] * torch.cos(k * x)[None, :]
    # Means of sin^2 and cos^2 over whole half periods are 1/2, so all parts share the factor 1/4.
    exact = 0.3 * np.sqrt((1 + (2 * k) ** 2 + k**2) / (1 + 2 * k**2))
    return (target + error)[None, None], target[None, None], exact


@pytest.mark.parametrize("periodic", [True, False])
def test_h1_of_sines_converges_with_order_two(periodic):
    errors = []
    for n in (128, 256, 512, 1024):
        prediction, target, exact = sine_case(n, periodic)
        errors.append(abs(relative_h1(prediction, target, (periodic, periodic)).item() - exact))
    orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    # Second-order differences everywhere, ends included. The ends weigh one order more, with larger constants: they
    # bend the observed order by 0.08 on the coarsest pair, half of that on each finer one.
    assert np.all(np.abs(orders - 2) < 0.1), orders


def test_h1_differences_are_one_sided_where_ends_are_not_joined():
    n = 10
    x = ((torch.arange(n, dtype=torch.float64) + 0.5) / n)[None, None]
    target = torch.ones_like(x)
    # The error x has derivative 1 everywhere, and linear functions are differentiated exactly, ends included.
    open_ends = relative_h1(target + x, target, (False,))
    assert open_ends.item() == pytest.approx(np.sqrt((x**2).mean().item() + 1), rel=1e-12)
    # Wrapped around, it falls by 1 - 1/n over one spacing: two wrong derivatives of (2/n - 1) * n / 2.
    joined = relative_h1(target + x, target, (True,))
    derivative = ((n - 2) + 2 * ((2 / n - 1) * n / 2) ** 2) / n
    assert joined.item() == pytest.approx(np.sqrt((x**2).mean().item() + derivative), rel=1e-12)


def test_h1_differentiates_parabolas_exactly_up_to_the_ends():
    # What second-order formulas do and first-order ends do not (the norm alone would hide them at order two).
    n = 9
    x = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    target = torch.ones(1, 1, n, dtype=torch.float64)
    exact = np.sqrt((x**4).mean().item() + (4 * x**2).mean().item())
    assert relative_h1(target + x**2, target, (False,)).item() == pytest.approx(exact, rel=1e-12)


def test_h1_needs_three_points():
    with pytest.raises(ValueError, match="at least 3 points"):
        relative_h1(torch.ones(1, 1, 8, 2), torch.ones(1, 1, 8, 2))


@pytest.mark.parametrize("name", ["relative_l1", "relative_l2", "relative_h1", "mse"])
def test_gradients(name):
    torch.manual_seed(0)
    target = torch.randn(2, 2, 5, 4, dtype=torch.float64)
    prediction = torch.randn_like(target).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: losses[name](p, target, (True, False)), prediction)
    # At the truth the norm has no gradient; training must go on from there, so it is zero and not NaN.
    exact = target.clone().requires_grad_()
    losses[name](exact, target).sum().backward()
    assert torch.equal(exact.grad, torch.zeros_like(target))


def test_mse_is_the_mean_square():
    generator = np.random.default_rng(0)
    prediction, target = generator.normal(size=(2, 3, 2, 6, 5))
    ours = mse(torch.from_numpy(prediction), torch.from_numpy(target))
    np.testing.assert_allclose(ours, ((prediction - target) ** 2).mean(axis=(2, 3)), rtol=1e-13)


def test_unknown_losses_are_named():
    with pytest.raises(ValueError, match="Did you mean 'relative_l2'"):
        losses["relative_l3"]


@pytest.mark.parametrize("name", ["relative_l1", "relative_l2", "relative_h1"])
def test_a_target_of_zeros_is_compared_with_ones(name):
    target = torch.zeros(2, 1, 6, 5)
    prediction = target.clone()
    prediction[1] = 0.25
    prediction.requires_grad_()
    loss = losses[name](prediction, target)
    torch.testing.assert_close(loss, torch.tensor([[0.0], [0.25]]))
    loss.sum().backward()
    assert torch.isfinite(prediction.grad).all()


def poseidon_loss(prediction, target, slices):
    """The loss of the released scOT, written down again: mean over groups of L1 means over L1 means of the labels."""
    total = 0.0
    for a, b in itertools.pairwise(slices):
        error = np.abs(prediction[:, a:b] - target[:, a:b]).mean()
        total += error / (np.abs(target[:, a:b]).mean() + 1e-10)
    return total / (len(slices) - 1)


def test_grouped_l1_is_poseidons():
    generator = np.random.default_rng(0)
    prediction, target = generator.normal(size=(2, 5, 4, 6, 7)) * np.array([1, 1e3, 1e-2, 5])[:, None, None]
    ours = relative_l1_by_group(torch.from_numpy(prediction), torch.from_numpy(target), groups=[[0], [1, 2], [3]])
    assert ours.shape == (1, 3)
    assert ours.mean().item() == pytest.approx(poseidon_loss(prediction, target, [0, 1, 3, 4]), rel=1e-13)
    whole = relative_l1_by_group(torch.from_numpy(prediction), torch.from_numpy(target))
    assert whole.item() == pytest.approx(poseidon_loss(prediction, target, [0, 4]), rel=1e-13)


def test_grouped_l1_bears_a_sample_at_rest():
    target = torch.ones(3, 2, 8)
    target[1] = 0
    prediction = (target + 0.1).requires_grad_()
    loss = relative_l1_by_group(prediction, target, groups=[[0, 1]]).mean()
    assert loss.item() == pytest.approx(0.15, rel=1e-6)
    loss.backward()
    assert torch.isfinite(prediction.grad).all()
    nothing = relative_l1_by_group(torch.zeros(2, 1, 4), torch.zeros(2, 1, 4))
    assert nothing.item() == 0


@pytest.mark.parametrize("groups", [[[0]], [[0], [0, 1]], [[0, 1], []], [[0, 1, 2]], []])
def test_groups_hold_every_channel_once(groups):
    with pytest.raises(ValueError, match="each of the 2 channels 0 to 1 once"):
        relative_l1_by_group(torch.ones(1, 2, 4), torch.ones(1, 2, 4), groups=groups)


def test_losses_are_configured_by_name_and_arguments():
    target = torch.randn(3, 3, 8)
    assert configured("mse") is losses["mse"]
    assert configured({"name": "mse"})(0 * target, target).shape == (3, 3)
    grouped = configured({"name": "relative_l1_by_group", "groups": [[2], [0, 1]]})
    assert torch.equal(grouped(0 * target, target, (True,)), torch.ones(1, 2))
    with pytest.raises(ValueError, match=r"no argument 'group'\. Did you mean 'groups'"):
        configured({"name": "relative_l1_by_group", "group": [[0]]})
    with pytest.raises(ValueError, match="groups must be"):
        configured({"name": "relative_l1_by_group", "groups": 3})
    with pytest.raises(ValueError, match="no argument 'periodic'"):
        configured({"name": "relative_h1", "periodic": [True]})
    with pytest.raises(ValueError, match="a name with arguments"):
        configured({"groups": [[0]]})
    with pytest.raises(ValueError, match="unknown loss 'l2'"):
        configured({"name": "l2"})
