"""Rollouts of operators whose action is known exactly: frames, times, errors, correlations and reports follow from it.

A wave ``cos(k x + phase)`` that lags by an angle d has the correlation ``cos d`` with the truth and the relative L2
error ``2 sin(d / 2)``, whatever its phase and amplitude.
"""

import json

import numpy as np
import pytest

import operators
from operators.checkpoint import load_checkpoint, save_checkpoint
from operators.evaluation import CORRELATED, evaluate
from operators.predict import load

POINTS, SHIFT, STEP = 32, 2, 0.25
ROUNDING = 2e-5  # of ten steps in single precision


@pytest.fixture
def undrawn(monkeypatch):
    """Evaluations without pictures, which take most of their time."""
    monkeypatch.setattr("operators.evaluation.draw_all", lambda *arguments: {})


def lag(frames, wavenumber=2, points_a_frame=1.0):
    """Angle by which a wave is behind after so many frames."""
    return 2 * np.pi * wavenumber * points_a_frame * np.asarray(frames) / POINTS


# --------------------------------------------------------------------------------------------------------- predictions


def test_rollout_of_the_exact_shift_is_the_truth(make_checkpoint, make_waves):
    store = make_waves()
    truth = store.read("test", "u")[:, :, None]
    predictor = operators.load(make_checkpoint(mean=3.0, deviation=2.0), "cpu")
    frames, times = predictor.rollout(truth[:, 0], 10)
    assert frames.dtype == np.float32
    np.testing.assert_allclose(times, store.times, rtol=1e-12)
    np.testing.assert_allclose(frames, truth, atol=ROUNDING)
    np.testing.assert_array_equal(frames[:, 0], truth[:, 0])
    # One sample without the axis of samples; float64; longer than any data.
    alone = predictor.rollout(truth[2, 0].astype(float), 16)
    assert alone.frames.shape == (17, 1, POINTS)
    np.testing.assert_allclose(alone.frames[:11], frames[2], atol=ROUNDING)
    np.testing.assert_allclose(alone.frames[16], truth[2, 0], atol=ROUNDING)  # 32 points: once around
    assert predictor.rollout(truth[:, 0], 0).frames.shape == (7, 1, 1, POINTS)
    assert predictor.rollout(truth[:, 0], 0).times.tolist() == [0.0]


def test_lead_times_are_physical_and_scaled_for_the_model(make_checkpoint, make_waves):
    truth = make_waves().read("test", "u")[:, :, None]
    # The model sees time / 0.5, and moves by 4 points in a unit of that: 2 a frame of 0.25.
    time = {"conditioned": True, "step": 0.25, "scale": 0.5}
    predictor = load(make_checkpoint("timed_shift", {"points": 4.0}, time=time), "cpu")
    np.testing.assert_allclose(predictor.predict(truth[:, 0], lead_time=0.75), truth[:, 3], atol=ROUNDING)
    np.testing.assert_allclose(predictor.predict(truth[:, 0]), truth[:, 1], atol=ROUNDING)  # its step
    np.testing.assert_array_equal(predictor.predict(truth[:, 0], 0.0).round(4), truth[:, 0].round(4))
    each = np.arange(7) * STEP  # another one a sample, whatever the batches
    expected = np.stack([truth[i, i] for i in range(7)])
    for size in (1, 3, None):
        np.testing.assert_allclose(predictor.predict(truth[:, 0], each, batch_size=size), expected, atol=ROUNDING)
    # Step after step, by uneven steps, and directly: an exact evolution operator agrees with itself.
    uneven = [0.25, 0.5, 1.0]
    for direct in (False, True):
        frames, times = predictor.rollout(truth[:, 0], 3, uneven, direct=direct)
        assert times.tolist() == [0.0, 0.25, 0.75, 1.75]
        np.testing.assert_allclose(frames, truth[:, [0, 1, 3, 7]], atol=ROUNDING)


def test_direct_and_step_by_step_differ_as_they_should(make_checkpoint, make_waves):
    truth = make_waves().read("test", "u")[:, :, None]
    # Every call doubles: ten calls, or one.
    predictor = load(make_checkpoint("timed_shift", {"growth": 2.0}), "cpu")
    np.testing.assert_allclose(predictor.rollout(truth[:, 0], 10).frames[:, 10], 2**10 * truth[:, 10], rtol=1e-2)
    np.testing.assert_allclose(
        predictor.rollout(truth[:, 0], 10, direct=True).frames[:, 10], 2 * truth[:, 10], atol=1e-4
    )
    # Trained from the initial state alone: directly unless it is told otherwise.
    arguments = {"pairing": "from_initial"}
    only = load(make_checkpoint("timed_shift", {"growth": 2.0}, task_arguments=arguments), "cpu")
    np.testing.assert_allclose(only.rollout(truth[:, 0], 10).frames[:, 10], 2 * truth[:, 10], atol=1e-4)


def test_inputs_that_are_no_state_stay(make_checkpoint):
    predictor = load(make_checkpoint("adding", inputs=("u", "fixed"), outputs=("u",)), "cpu")
    initial = np.stack([np.full((2, 8), 5.0), np.arange(16.0).reshape(2, 8)], axis=1)
    frames = predictor.rollout(initial, 3).frames
    np.testing.assert_allclose(frames[:, 3, 0], 5 + 3 * np.arange(16.0).reshape(2, 8), rtol=1e-6)
    assert initial[0, 0, 0] == 5.0  # the argument is not changed


def test_masked_outputs_stay_what_they_were(make_checkpoint):
    names = ("u", "p")
    predictor = load(make_checkpoint(inputs=names, outputs=names, task_arguments={"masked": ["p"]}), "cpu")
    initial = np.random.default_rng(0).normal(size=(3, 2, POINTS)).astype(np.float32)
    frames = predictor.rollout(initial, 2).frames
    np.testing.assert_array_equal(frames[:, 2, 1], initial[:, 1])
    np.testing.assert_allclose(frames[:, 2, 0], np.roll(initial[:, 0], 2 * SHIFT, axis=-1), atol=ROUNDING)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda p, u: p.rollout(u, -1), "steps must be a whole number that is not negative, got -1"),
        (lambda p, u: p.rollout(u, 1.5), "steps must be a whole number that is not negative, got 1.5"),
        (lambda p, u: p.rollout(u, True), "steps must be a whole number"),
        (lambda p, u: p.rollout(u, 3, [0.25, 0.25]), "lead_time must be one number, or 3"),
        (lambda p, u: p.rollout(u, 3, 0.5), "trained for the lead time 0.25 alone, got 0.5"),
        (lambda p, u: p.rollout(u, 3, -0.25), "lead_time must be finite and not negative"),
        (lambda p, u: p.rollout(u, 3, direct=True), "takes no lead time; it can only be rolled out step by step"),
        (lambda p, u: p.rollout(u[:, [0, 0]], 3), r"initial has shape \(7, 2, 32\), but this operator takes"),
        (lambda p, u: p.rollout(u * np.nan, 3), "initial: channel 'u' holds values that are not finite in sample 0"),
        (lambda p, u: p.predict(u, np.inf), "lead_time must be finite"),
        (lambda p, u: p.predict(u, "soon"), "lead_time must be a number, or one for each, got 'soon'"),
        (lambda p, u: p.rollout(u, 2, "soon"), "lead_time must be a number, or one for each, got 'soon'"),
        (lambda p, u: p.predict(u, [0.25, 0.25]), r"lead_time must be one number, or 7 \(one a sample\)"),
        (lambda p, u: p.predict(u, batch_size=0), "batch_size must be a whole number of at least 1, got 0"),
        (lambda p, u: p.predict(u * 1j), "fields must hold real numbers, got an array of dtype complex128"),
        (lambda p, u: p.predict(u * 1e300), "channel 'u' holds values that are too large for single precision"),
    ],
)
def test_bad_arguments_are_sentences(call, sentence, make_checkpoint, make_waves):
    with pytest.raises(ValueError, match=sentence):
        call(load(make_checkpoint(), "cpu"), make_waves().read("test", "u").astype(float)[:, :1])


def test_a_static_operator_cannot_be_rolled_out(make_checkpoint):
    predictor = load(make_checkpoint(task="static"), "cpu")
    with pytest.raises(ValueError, match="trained with task static, which does not step in time"):
        predictor.rollout(np.zeros((1, 1, POINTS)), 3)
    with pytest.raises(ValueError, match="trained with task static and takes no lead time"):
        predictor.predict(np.zeros((1, 1, POINTS)), 0.25)


def test_not_finite_values_are_named_by_channel_and_sample(make_checkpoint):
    predictor = load(make_checkpoint("adding", inputs=("u", "fixed"), outputs=("u",)), "cpu")
    fields = np.zeros((5, 2, 8))
    fields[3, 1, 2], fields[4, 1, 2] = np.inf, np.nan
    with pytest.raises(ValueError, match=r"fields: channel 'fixed' .* not finite in sample 3 \(2 such samples\)"):
        predictor.predict(fields)


# ---------------------------------------------------------------------------------------------------------- evaluation


def test_the_exact_operator_has_no_error_and_stays_correlated(make_checkpoint, make_waves, tmp_path, undrawn):
    content = evaluate(make_checkpoint(), make_waves(), tmp_path / "out", "cpu")
    assert content["results"]["shift"]["relative_l2"]["max"] < ROUNDING
    assert content["rollout"]["shift"]["correlation_time"]["min"] == pytest.approx(2.5)  # all there is
    assert content["rollout"]["shift"]["times"] == pytest.approx(list(STEP * np.arange(1, 11)))
    assert "2.5 (the end)" in (tmp_path / "out/report.md").read_text()


def test_errors_and_correlation_time_of_an_operator_that_is_too_fast(make_checkpoint, make_waves, tmp_path):
    content = evaluate(make_checkpoint(arguments={"points": SHIFT + 1.0}), make_waves(), tmp_path / "out", "cpu")
    frames = np.arange(1, 11)
    angle = lag(frames)
    rollout = content["rollout"]["shift"]
    np.testing.assert_allclose(rollout["relative_l2"]["mean"], abs(2 * np.sin(angle / 2)), atol=ROUNDING)
    np.testing.assert_allclose(rollout["correlation"]["median"], np.cos(angle), atol=ROUNDING)
    # Linear between frames: it falls below 0.8 between the first (cos 0.39) and the second (cos 0.79).
    before, after = np.cos(lag(1)), np.cos(lag(2))
    expected = STEP * (1 + (before - CORRELATED) / (before - after))
    assert rollout["correlation_time"]["median"] == pytest.approx(expected, abs=1e-4)
    # Single steps are one point behind each time.
    single = content["rollout"]["shift, single steps"]["relative_l2"]["mean"]
    np.testing.assert_allclose(single, 2 * np.sin(lag(1) / 2), atol=ROUNDING)
    # Persistence is behind by as much as the wave moves.
    persistence = content["rollout"]["persistence"]["relative_l2"]["median"]
    np.testing.assert_allclose(persistence, abs(2 * np.sin(lag(frames, points_a_frame=SHIFT) / 2)), atol=ROUNDING)
    # The table is of the last frame.
    last = content["results"]["shift"]["relative_l2"]
    assert last["mean"] == pytest.approx(abs(2 * np.sin(angle[-1] / 2)), abs=ROUNDING)
    report = (tmp_path / "out/report.md").read_text()
    assert f"| shift | {100 * last['mean']:.2f} % |" in report
    assert f"{expected:.3g} |" in report
    for picture in ("rollout.png", "trajectory.png", "samples.png", "spectra.png", "errors.png"):
        assert (tmp_path / "out" / picture).read_bytes().startswith(b"\x89PNG")
        assert f"({picture})" in report


def test_the_training_mean_is_that_of_each_frame(make_checkpoint, make_waves, tmp_path, undrawn):
    store = make_waves()
    content = evaluate(make_checkpoint(), store, tmp_path / "out", "cpu")
    train, truth = store.read("train", "u").astype(float), store.read("test", "u").astype(float)
    error = np.linalg.norm(train.mean(axis=0) - truth, axis=-1) / np.linalg.norm(truth, axis=-1)
    found = content["rollout"]["training mean"]["relative_l2"]
    np.testing.assert_allclose(found["mean"], error.mean(axis=0)[1:], rtol=1e-5)
    np.testing.assert_allclose(found["median"], np.median(error, axis=0)[1:], rtol=1e-5)


def test_conditioned_operators_are_also_measured_directly(make_checkpoint, make_waves, tmp_path, undrawn):
    checkpoint = make_checkpoint("timed_shift", {"growth": 1.1})
    content = evaluate(checkpoint, make_waves(), tmp_path / "out", "cpu")
    frames = np.arange(1, 11)
    np.testing.assert_allclose(content["rollout"]["timed_shift"]["relative_l2"]["mean"], 1.1**frames - 1, rtol=1e-3)
    np.testing.assert_allclose(content["rollout"]["timed_shift, direct"]["relative_l2"]["mean"], 0.1, rtol=1e-3)
    # By steps of two frames: five calls.
    content = evaluate(checkpoint, make_waves(), tmp_path / "longer", "cpu", lead_time=0.5)
    assert content["rollout"]["timed_shift"]["times"] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.5])
    np.testing.assert_allclose(content["results"]["timed_shift"]["relative_l2"]["mean"], 1.1**5 - 1, rtol=1e-3)


def test_an_operator_from_a_later_frame_alone_starts_there(make_checkpoint, make_waves, tmp_path):
    arguments = {"pairing": "from_initial", "start": 2, "stride": 2}
    checkpoint = make_checkpoint("timed_shift", {"points": SHIFT + 1.0}, task_arguments=arguments)
    content = evaluate(checkpoint, make_waves(), tmp_path / "out", "cpu")
    assert set(content["results"]) == {"timed_shift", "persistence", "training mean"}
    rollout = content["rollout"]["timed_shift"]
    assert rollout["times"] == pytest.approx(list(STEP * np.arange(5, 11)))  # after frame 4, at time 1
    np.testing.assert_allclose(rollout["relative_l2"]["mean"], 2 * np.sin(lag(np.arange(1, 7)) / 2), atol=ROUNDING)


def test_stored_frames_may_begin_after_time_zero(make_checkpoint, make_waves, tmp_path, undrawn):
    content = evaluate(make_checkpoint(), make_waves(later=True), tmp_path / "out", "cpu")
    assert content["rollout"]["shift"]["times"] == pytest.approx(list(STEP * np.arange(1, 12)))
    assert content["results"]["shift"]["relative_l2"]["max"] < ROUNDING


def test_a_coefficient_is_read_beside_the_state(make_checkpoint, make_waves, tmp_path, undrawn):
    checkpoint = make_checkpoint("adding", inputs=("u", "fixed"), outputs=("u",))
    content = evaluate(checkpoint, make_waves(forced=True), tmp_path / "out", "cpu")
    store = make_waves(forced=True)
    truth = store.read("test", "u").astype(float)
    guess = truth[:, 0] + 10 * np.arange(7)[:, None]  # the coefficient of sample i is i
    error = np.linalg.norm(guess - truth[:, 10], axis=1) / np.linalg.norm(truth[:, 10], axis=1)
    assert content["results"]["adding"]["relative_l2"]["mean"] == pytest.approx(error.mean(), rel=1e-4)
    assert content["operators"]["adding"]["ranked_samples"] == {
        "best": int(error.argmin()),
        "median": int(np.argsort(error)[3]),
        "worst": int(error.argmax()),
    }


def test_rollouts_that_blow_up_are_reported_not_raised(make_checkpoint, make_waves, tmp_path):
    out = tmp_path / "out"
    evaluate(make_checkpoint(arguments={"growth": 1e10}), make_waves(), out, "cpu")
    written = json.loads((out / "metrics.json").read_text())
    assert written["results"]["shift"]["relative_l2"]["mean"] is None
    assert written["rollout"]["shift"]["relative_l2"]["mean"][0] == pytest.approx(1e10, rel=1e-4)
    assert "not finite" in (out / "report.md").read_text()


def test_spectra_follow_from_the_waves(make_checkpoint, make_waves, tmp_path, undrawn):
    store = make_waves(wavenumber=3)
    content = evaluate(
        make_checkpoint(arguments={"growth": 1.5}, task="static", inputs=("initial_u",)), store, tmp_path
    )
    # The static operator moves the first frame by one step; the last frame is ten steps on, of the same amplitude.
    energy = np.mean(store.read("test", "u", frame=-1).astype(float) ** 2)
    np.testing.assert_allclose(content["spectra"]["truth"][0][3], energy, rtol=1e-5)
    assert sum(content["spectra"]["truth"][0]) == pytest.approx(energy, rel=1e-5)
    found = content["spectra"]["shift"]
    assert found["prediction"][0][3] == pytest.approx(1.5**2 * energy, rel=1e-4)
    assert sum(found["error"][0]) == pytest.approx(content["results"]["shift"]["mse"]["mean"], rel=1e-4)


def test_the_test_split_streams_and_numbers_do_not_depend_on_its_pieces(
    make_checkpoint, make_waves, tmp_path, monkeypatch, undrawn
):
    checkpoint = make_checkpoint("timed_shift", {"points": SHIFT + 1.0})
    whole = evaluate(checkpoint, make_waves(), tmp_path / "whole", "cpu")
    monkeypatch.setattr("operators.contenders.CHUNK_VALUES", 2 * POINTS)
    pieces = evaluate(checkpoint, make_waves(largest_read=2), tmp_path / "pieces", "cpu")
    for name, rows in whole["results"].items():
        for metric in ("relative_l2", "mse", "vrmse", "correlation"):
            assert pieces["results"][name][metric]["mean"] == pytest.approx(rows[metric]["mean"], abs=1e-6)
        assert pieces["rollout"][name]["relative_l2"]["mean"] == pytest.approx(
            whole["rollout"][name]["relative_l2"]["mean"], abs=1e-6
        )
    np.testing.assert_allclose(pieces["spectra"]["truth"], whole["spectra"]["truth"], atol=1e-9)
    first, second = ((tmp_path / place / "errors.csv").read_text() for place in ("whole", "pieces"))
    assert first.splitlines()[0] == second.splitlines()[0]
    assert len(first.splitlines()) == 8


# ---------------------------------------------------------------------------------------------------------- comparison


def test_several_checkpoints_share_one_table(make_checkpoint, make_waves, tmp_path):
    exact = make_checkpoint(run="exact")
    fast = make_checkpoint(arguments={"points": 3.0}, run="fast")
    static = make_checkpoint(inputs=("initial_u",), task="static", run="static")
    content = evaluate([exact, fast, static], make_waves(), device="cpu")
    out = tmp_path / "comparison"  # beside the runs
    assert list(content["operators"]) == ["exact", "fast", "static"]
    results = {name: content["results"][name]["relative_l2"]["mean"] for name in content["results"]}
    assert results["exact"] < ROUNDING
    assert results["fast"] == pytest.approx(abs(2 * np.sin(lag(10) / 2)), abs=ROUNDING)
    # The static one moves the initial field by one step, where ten are wanted.
    assert results["static"] == pytest.approx(abs(2 * np.sin(lag(9, points_a_frame=SHIFT) / 2)), abs=ROUNDING)
    report = (out / "report.md").read_text()
    for name in ("exact", "fast", "static"):
        assert f"| {name} |" in report
        assert f"(samples-{name}.png)" in report
        assert (out / f"samples-{name}.png").exists()
    assert "(comparison.png)" in report
    assert (out / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert f"checkpoint=[{exact},{fast},{static}]" in report
    # Another set of checkpoints is not written over these.
    with pytest.raises(ValueError, match="choose another out"):
        evaluate([exact, fast], make_waves(), out, "cpu")


def test_what_cannot_be_evaluated_is_a_sentence(make_checkpoint, make_waves, make_store, tmp_path, undrawn):
    waves, checkpoint = make_waves(), make_checkpoint()
    with pytest.raises(ValueError, match=r"unknown metric 'vrms'.*Known: .*vrmse"):
        evaluate(checkpoint, waves, tmp_path / "x", metrics=["vrms"])
    with pytest.raises(ValueError, match="names one file twice"):
        evaluate([checkpoint, checkpoint], waves, tmp_path / "x")
    with pytest.raises(ValueError, match="at least one file"):
        evaluate([], waves, tmp_path / "x")
    with pytest.raises(ValueError, match=r"maps \(u\) -> \(u\), but dataset memory has \(source\) -> \(solution\)"):
        evaluate(checkpoint, make_store(), tmp_path / "x")
    steady = make_waves(evolves=False)
    steady.fields = (steady.fields[0].__class__("u", "input"), steady.fields[0].__class__("u", "output"))
    with pytest.raises(ValueError, match=r"trained to step in time .* but the samples of waves are steady"):
        evaluate(checkpoint, steady, tmp_path / "x")
    with pytest.raises(ValueError, match=r"steps by 0\.25 in time, but no frame of the dataset is that much later"):
        evaluate(checkpoint, make_waves(spacing=0.4), tmp_path / "x")
    with pytest.raises(ValueError, match=r"trained for the lead time 0\.25 alone, got 0\.5"):
        evaluate(checkpoint, waves, tmp_path / "x", lead_time=0.5)
    with pytest.raises(ValueError, match="has no test samples"):
        evaluate(checkpoint, make_waves(sizes={"train": 4, "validation": 2, "test": 0}), tmp_path / "x")
    directions = make_checkpoint(inputs=("residual",), outputs=("direction",), task="linear_system", run="directions")
    with pytest.raises(ValueError, match="predicts directions for a solver to search in"):
        evaluate(directions, make_store(), tmp_path / "x")
    assert not (tmp_path / "x").exists()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file; name a folder"):
        evaluate(checkpoint, waves, tmp_path / "file")


def test_checkpoints_that_do_not_fit_are_sentences(make_checkpoint, tmp_path, monkeypatch):
    content = load_checkpoint(make_checkpoint("adding", inputs=("u", "f"), outputs=("u",)))

    def refused(changes, sentence):
        save_checkpoint(tmp_path / "other.pt", {k: v for k, v in {**content, **changes}.items() if v is not None})
        with pytest.raises(ValueError, match=sentence):
            load(tmp_path / "other.pt", "cpu")

    refused({"model": None, "history": None}, "holds no operator: it lacks model")
    refused({"dataset": None, "history": None}, "does not say what it was trained on: it lacks dataset, history")
    fno = {"n_modes": [4], "in_channels": 2, "out_channels": 1, "hidden_channels": 4, "n_layers": 1}
    refused(
        {"model": {"name": "fno", "arguments": fno, "state": {}}}, "weights are not those of model 'fno' as it is here"
    )
    refused({"model": {"name": "fnoo", "arguments": fno, "state": {}}}, "unknown model 'fnoo'. Did you mean 'fno'")
    refused({"format_version": 99}, "checkpoint format 99; this version reads up to")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match="device=cuda was asked for, but torch sees no GPU"):
        load(make_checkpoint(), "cuda")


def test_an_operator_without_training_data_has_persistence_to_beat(make_checkpoint, make_waves, tmp_path, undrawn):
    store = make_waves(sizes={"train": 0, "validation": 0, "test": 3})
    content = evaluate(make_checkpoint(), store, tmp_path / "out", "cpu")
    assert list(content["results"]) == ["shift", "shift, single steps", "persistence"]
    assert "this dataset has no training and validation data" in (tmp_path / "out/report.md").read_text()


def test_an_equation_with_other_parameters_is_pointed_out(make_checkpoint, make_waves, tmp_path, undrawn):
    store = make_waves()
    store.spec = {"pde": {"name": "waves", "speed": 2.0, "grid": 7}}
    content = evaluate(make_checkpoint(), store, tmp_path / "out")
    assert content["operators"]["shift"]["other_parameters"] == {"speed": [None, 2.0]}
    assert "trained on data with speed = None instead of 2.0." in (tmp_path / "out/report.md").read_text()


def test_metrics_that_were_asked_for_are_the_columns(make_checkpoint, make_waves, tmp_path, undrawn):
    content = evaluate(make_checkpoint(), make_waves(), tmp_path / "out", metrics=["vrmse", "maximum_error"])
    assert set(content["metrics"]) == {"relative_l2", "vrmse", "maximum_error"}
    report = (tmp_path / "out/report.md").read_text()
    assert "| predictor | relative L2 | median | worst | VRMSE | maximum error | parameters |" in report
    assert "- VRMSE: sqrt(mean_x (p - y)^2 / mean_x (y - mean_x y)^2)" in report
