"""Metrics against dense formulas, Parseval's identity and grid refinement."""

from importlib.metadata import EntryPoint

import numpy as np
import pytest
import torch

from operators.losses import losses
from operators.metrics import (
    METRICS,
    correlation_time,
    definitions,
    measure,
    metric,
    metrics,
    rollout_errors,
    spectrum,
    summarise,
)

RELATIVE = ["relative_l1", "median_relative_l1", "relative_l2", "relative_h1", "nrmse"]


@pytest.fixture
def fields():
    generator = np.random.default_rng(0)
    prediction, target = 2 + generator.normal(size=(2, 7, 2, 6, 5))
    return prediction, target


def test_predicting_zero_and_the_mean():
    target = 3 + np.random.default_rng(0).normal(size=(5, 2, 8, 9))
    zero = measure(np.zeros_like(target), target, None, [*RELATIVE, "correlation"])
    for name in RELATIVE:
        np.testing.assert_allclose(zero[name], 1, rtol=1e-14, err_msg=name)
    np.testing.assert_array_equal(zero["correlation"], 0)
    mean = np.broadcast_to(target.mean(axis=(2, 3), keepdims=True), target.shape)
    of_mean = measure(mean, target, None, ["vrmse", "conservation_error"])
    np.testing.assert_allclose(of_mean["vrmse"], 1, rtol=1e-14)
    np.testing.assert_allclose(of_mean["conservation_error"], 0, atol=1e-15)
    perfect = measure(target, target, None, sorted(metrics))
    for name, values in perfect.items():
        np.testing.assert_allclose(values, name == "correlation", atol=1e-15, err_msg=name)


def test_dense_formulas(fields):
    p, y = fields
    found = measure(p, y, None, sorted(metrics))
    e, grid = p - y, (2, 3)
    edge = np.zeros((6, 5), dtype=bool)
    for i in range(6):
        for j in range(5):
            edge[i, j] = i in (0, 5) or j in (0, 4)
    expected = {
        "mse": np.mean(e**2, axis=grid),
        "rmse": np.sqrt(np.mean(e**2, axis=grid)),
        "nrmse": np.sqrt(np.mean(e**2, axis=grid) / np.mean(y**2, axis=grid)),
        "vrmse": np.sqrt(np.mean(e**2, axis=grid) / np.var(y, axis=grid)),
        "relative_l1": np.abs(e).sum(axis=grid) / np.abs(y).sum(axis=grid),
        "relative_l2": np.sqrt((e**2).sum(axis=grid) / (y**2).sum(axis=grid)),
        "maximum_error": np.abs(e).max(axis=grid),
        "conservation_error": np.abs(p.mean(axis=grid) - y.mean(axis=grid)),
        "boundary_error": np.sqrt((e[..., edge] ** 2).mean(axis=-1)),
        "correlation": np.array([[np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(*s, strict=True)]
                                 for s in zip(p, y, strict=True)]),
    }  # fmt: skip
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-12, err_msg=name)
    one_sided = measure(p, y, (True, False), ["boundary_error"])["boundary_error"]
    np.testing.assert_allclose(one_sided, np.sqrt((e[..., [0, -1]] ** 2).mean(axis=grid)), rtol=1e-13)


@pytest.mark.parametrize("grid", [(9,), (32,), (8, 7), (30, 6), (5, 6, 4)])
@pytest.mark.parametrize("joined", [True, False, "first"])
def test_bands_add_up_to_the_mean_square(grid, joined):
    periodic = tuple(joined is True or (joined == "first" and axis == 0) for axis in range(len(grid)))
    generator = np.random.default_rng(1)
    prediction, target = generator.normal(size=(2, 3, 2, *grid))
    found = measure(prediction, target, periodic, ["mse", "spectral_low", "spectral_middle", "spectral_high"])
    bands = sum(found[f"spectral_{band}"] ** 2 for band in ("low", "middle", "high"))
    np.testing.assert_allclose(bands, found["mse"], rtol=1e-12)
    energy = spectrum(torch.from_numpy(target), periodic).sum(dim=-1).numpy()
    np.testing.assert_allclose(energy, (target**2).mean(axis=tuple(range(2, target.ndim))), rtol=1e-12)


def test_bands_part_at_4_and_12():
    n = 64
    x, y = np.meshgrid(np.arange(n) / n, np.arange(n) / n, indexing="ij")
    for (kx, ky), band in {
        (0, 0): "low", (3, 2): "low", (2, 3): "low", (0, 4): "middle", (4, 0): "middle", (3, 3): "middle",
        (11, 4): "middle", (12, 0): "high", (9, 9): "high", (0, 32): "high", (0, 3): "low",
    }.items():  # fmt: skip
        wave = np.cos(2 * np.pi * (kx * x + ky * y))[None, None]
        found = measure(wave, 0 * wave, (True, True), ["spectral_low", "spectral_middle", "spectral_high", "rmse"])
        size = found.pop("rmse")
        for name, value in found.items():
            expected = size if name == f"spectral_{band}" else 0
            np.testing.assert_allclose(value, expected, atol=1e-13, err_msg=f"{kx, ky} {name}")


def test_an_axis_that_is_not_periodic_is_mirrored():
    # A parabola is smooth but its ends do not meet: taken as periodic it leaks into short waves.
    x = (np.arange(1024) + 0.5) / 1024
    field = (x**2)[None, None]
    high = {
        joined: measure(field, 0 * field, (joined,), ["spectral_high"])["spectral_high"].item()
        for joined in (True, False)
    }
    # x^2 = 1/3 + sum_m 4 (-1)^m / (pi m)^2 cos(pi m x), whose m is 2 |k|; the jump's waves fall like 1 / k only.
    from_cosines = np.sqrt(sum(0.5 * (4 / (np.pi * m) ** 2) ** 2 for m in range(24, 10000)))
    assert high[False] == pytest.approx(from_cosines, rel=1e-2)  # aliasing: 24 of 1024 modes
    assert high[True] > 10 * high[False]
    # cos(pi m x) is one wave of m / 2 cycles.
    mode = np.cos(np.pi * 7 * x)[None, None]
    shells = spectrum(torch.from_numpy(mode), (False,))[0, 0].numpy()
    np.testing.assert_allclose(shells, 0.5 * (np.arange(len(shells)) == 3), atol=1e-14)


def smooth(n, shift):
    x = np.arange(n) / n
    return (np.sin(2 * np.pi * x + shift)[:, None] + 0.5 * np.cos(4 * np.pi * x - shift) + 0.3)[None, None]


@pytest.mark.parametrize("name", [*RELATIVE, "vrmse", "correlation", "spectral_low", "rmse"])
def test_grid_refinement_leaves_metrics(name):
    coarse, fine = (measure(smooth(n, 0.4), smooth(n, 0.1), (True, True), [name])[name].item() for n in (64, 128))
    # Sums of squares of waves are exact on both grids; |y| has kinks, and H1 has differences of order 2.
    rough = name in ("relative_l1", "median_relative_l1", "relative_h1")
    assert fine == pytest.approx(coarse, rel=5e-3 if rough else 1e-12)


def test_scale_and_units_do_not_matter_to_relative_metrics(fields):
    p, y = fields
    for name in (*RELATIVE, "vrmse", "correlation"):
        here, there = (measure(c * p, c * y, None, [name])[name] for c in (1.0, 1e-100))
        np.testing.assert_allclose(there, here, rtol=1e-10, err_msg=name)


def test_metrics_do_not_depend_on_their_batches(monkeypatch, fields):
    prediction, target = (f.astype(np.float32) for f in fields)
    whole = measure(prediction, target)
    assert set(whole) == set(METRICS)
    monkeypatch.setattr("operators.metrics.measuring.BATCH_VALUES", 3 * 2 * 6 * 5)
    parts = measure(prediction, target)
    for name, values in whole.items():
        np.testing.assert_array_equal(values, parts[name])
    with pytest.raises(ValueError, match="prediction has shape"):
        measure(prediction[:3], target)


def test_metrics_without_a_meaning_are_left_out(fields):
    prediction, target = fields
    assert "relative_h1" not in measure(prediction[..., :2], target[..., :2])
    assert "boundary_error" not in measure(prediction, target, (True, True))
    assert "boundary_error" in measure(prediction, target, (True, False))
    with pytest.raises(ValueError, match="no boundary"):
        metric("boundary_error")(torch.ones(1, 1, 3), torch.ones(1, 1, 3), (True,))


def test_summaries():
    values = np.array([[0.0, 2.0], [3.0, 5.0], [0.0, 0.0]])
    assert summarise(values) == {"mean": pytest.approx(5 / 3), "median": 1.0, "max": 4.0}
    assert metric("relative_l1").summary(values) == pytest.approx(5 / 3)
    assert metric("median_relative_l1").summary(values) == 1.0
    assert metric("maximum_error").summary(values) == 4.0
    assert metric("conservation_error").summary(values) == pytest.approx(np.sqrt(17 / 3))


def test_every_metric_has_a_formula_that_says_how_samples_are_summed_up():
    for name, formula in definitions(metrics).items():
        assert "over samples" in formula, name
        assert "p" in formula, name
    assert definitions(["mse"]) == {"mse": "mean_x (p - y)^2, mean over samples"}


def test_unknown_metrics_list_what_there_is():
    with pytest.raises(ValueError, match=r"unknown metric 'psnr'.*Known: boundary_error, .*vrmse\."):
        measure(np.ones((1, 1, 4)), np.ones((1, 1, 4)), None, ["psnr"])
    with pytest.raises(ValueError, match="can be a loss only"):
        measure(np.ones((2, 3, 4)), np.ones((2, 3, 4)), None, ["relative_l1_by_group"])


def cubic(prediction, target, periodic=None):
    """Mean cubed error."""
    return (prediction - target).abs().pow(3).mean(dim=tuple(range(2, target.ndim)))


def test_losses_of_other_distributions_are_metrics(monkeypatch):
    point = EntryPoint(name="cubic", value=f"{__name__}:cubic", group="southwell.losses")
    monkeypatch.setattr(EntryPoint, "load", lambda self: cubic)
    monkeypatch.setattr("solvers.registry.entry_points", lambda group: [point] if group == point.group else [])
    monkeypatch.setattr(losses, "_discovered", False)
    monkeypatch.setattr(losses, "_entries", dict(losses._entries))
    assert losses["cubic"] is cubic
    found = measure(np.full((2, 1, 4), 2.0), np.zeros((2, 1, 4)), None, ["cubic"])
    np.testing.assert_array_equal(found["cubic"], 8)
    assert metric("cubic").definition == "Mean cubed error, mean over samples"


def test_rollout_errors_are_each_steps():
    generator = np.random.default_rng(0)
    prediction, target = generator.normal(size=(2, 3, 5, 2, 8))
    found = rollout_errors(prediction, target, "relative_l1", (True,))
    assert found.shape == (3, 5, 2)
    for step in range(5):
        alone = measure(prediction[:, step], target[:, step], (True,), ["relative_l1"])["relative_l1"]
        np.testing.assert_allclose(found[:, step], alone, rtol=1e-14)
    with pytest.raises(ValueError, match="samples, steps, channels"):
        rollout_errors(prediction[:, :2], target)
    with pytest.raises(ValueError, match="no meaning"):
        rollout_errors(prediction, target, "boundary_error", (True,))


def test_correlation_time_of_two_waves_that_drift_apart():
    # sin(x) and sin(x + w t) have the correlation cos(w t): it reaches 0.8 at arccos(0.8) / w.
    x, times = 2 * np.pi * np.arange(32) / 32, np.linspace(0, 1, 101)
    phase = np.array([1.0, 2.0, 0.1])[:, None] * times[1:]
    prediction = np.sin(x + phase[..., None])[:, :, None]
    target = np.broadcast_to(np.sin(x), prediction.shape)
    found = correlation_time(rollout_errors(prediction, target, "correlation", (True,)), times)
    exact = np.minimum(np.arccos(0.8) / np.array([1.0, 2.0, 0.1]), 1.0)[:, None]  # the last never falls so far
    # Linear interpolation of cos over steps of 0.02 in phase is off by 0.02^2 / 8, over a slope of 0.6.
    np.testing.assert_allclose(found, exact, atol=1e-4)


def test_correlation_time_of_the_lost():
    lost = correlation_time(np.array([[[np.nan], [1.0]], [[-1.0], [1.0]]]), [0.0, 1.0, 2.0], threshold=0.5)
    np.testing.assert_allclose(lost, [[0.25], [0.25]])  # from 1 to -1 in one step
    with pytest.raises(ValueError, match="increasing"):
        correlation_time(np.ones((1, 2, 1)), [0, 2, 1])
    with pytest.raises(ValueError, match="threshold"):
        correlation_time(np.ones((1, 2, 1)), [0, 1, 2], threshold=1.5)
