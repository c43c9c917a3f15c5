"""Reading, normalising and ordering training data."""

import numpy as np
import pytest
import torch

from operators.data import GaussianNormaliser, channels, load_split, periodic_axes
from operators.loader import epoch_batches


def test_normaliser_has_the_moments_of_its_data():
    generator = np.random.default_rng(0)
    fields = generator.normal(size=(7, 3, 5, 6)) * np.array([1, 1e-6, 1e5])[:, None, None] + 3
    normaliser = GaussianNormaliser.fit(torch.from_numpy(fields))
    np.testing.assert_allclose(normaliser.mean, fields.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(normaliser.standard_deviation, fields.std(axis=(0, 2, 3)), rtol=1e-9)
    normalised = normaliser(torch.from_numpy(fields))
    # One pass more of rounding in double precision; the second channel loses 6 digits to its mean of 3.
    np.testing.assert_allclose(normalised.mean(dim=(0, 2, 3)), 0, atol=1e-8)
    np.testing.assert_allclose(normalised.square().mean(dim=(0, 2, 3)), 1, atol=1e-8)
    np.testing.assert_allclose(normaliser.inverse(normalised), fields, rtol=1e-12)


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, 1e6])
@pytest.mark.parametrize("jitter", [False, True])
def test_constant_channels_become_zero_and_come_back(value, jitter):
    fields = np.full((50, 1, 33), value, dtype=np.float32)
    if jitter and value:
        fields[::2] = np.nextafter(fields[::2], np.float32(np.inf))  # the last bit is rounding, not a signal
    normaliser = GaussianNormaliser.fit(torch.from_numpy(fields))
    assert normaliser.standard_deviation.item() == 1.0
    normalised = normaliser(torch.from_numpy(fields))
    np.testing.assert_allclose(normalised, 0, atol=1e-6 * abs(value))
    np.testing.assert_allclose(normaliser.inverse(normalised), value, rtol=1e-6)


def test_scaling_keeps_relative_errors():
    torch.manual_seed(0)
    fields = 5 + torch.randn(10, 2, 8)
    normaliser = GaussianNormaliser.fit(fields)
    ratio = normaliser.scale(fields) / fields
    torch.testing.assert_close(ratio, (1 / normaliser.standard_deviation)[None, :, None].expand(10, 2, 8))


def test_normaliser_is_rebuilt_from_its_state():
    normaliser = GaussianNormaliser.fit(torch.randn(4, 2, 8))
    again = GaussianNormaliser(**normaliser.state_dict())
    x = torch.randn(1, 2, 8)
    assert torch.equal(again(x), normaliser(x))


@pytest.mark.parametrize(("samples", "batch"), [(10, 4), (8, 8), (3, 10), (1, 1)])
def test_an_epoch_holds_every_sample_once(samples, batch):
    batches = epoch_batches(samples, batch, seed=1, epoch=2)
    assert sorted(torch.cat(batches).tolist()) == list(range(samples))
    assert all(len(b) == batch for b in batches[:-1])


def test_the_order_is_a_function_of_seed_and_epoch_alone():
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - the global state must not matter
    order = torch.cat(epoch_batches(100, 7, seed=1, epoch=2))
    torch.manual_seed(9)
    np.random.seed(9)  # noqa: NPY002
    assert torch.equal(order, torch.cat(epoch_batches(100, 32, seed=1, epoch=2)))
    assert not torch.equal(order, torch.cat(epoch_batches(100, 7, seed=1, epoch=3)))
    assert not torch.equal(order, torch.cat(epoch_batches(100, 7, seed=2, epoch=2)))
    # Not seed + epoch in disguise.
    assert not torch.equal(order, torch.cat(epoch_batches(100, 7, seed=2, epoch=1)))


def test_channels_follow_roles_and_constants_are_none(make_store):
    store = make_store()
    assert [c.name for c in channels(store, "input")] == ["source"]
    assert [c.units for c in channels(store, "output")] == ["m"]
    split = load_split(store, "train")
    assert split.inputs.shape == (24, 1, 16, 16)
    assert split.inputs.dtype == torch.float32
    np.testing.assert_array_equal(split.outputs[:, 0], store.read("train", "solution"))
    assert periodic_axes(store) == (True, True)
    store.boundary = (("dirichlet", "neumann"), ("periodic", "periodic"))
    assert periodic_axes(store) == (False, True)


def test_bad_data_is_named(make_store):
    store = make_store()
    store.arrays["train"]["solution"][5, 3, 3] = np.nan
    with pytest.raises(ValueError, match="train sample 5 of field 'solution' is not finite"):
        load_split(store, "train")
    store.sizes["validation"] = 0
    with pytest.raises(ValueError, match="has no validation samples"):
        load_split(store, "validation")
    store.fields = store.fields[:2]
    with pytest.raises(ValueError, match="no field of role 'output'"):
        channels(store, "output")
