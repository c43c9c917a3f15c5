"""Predictions in physical units, naive predictors, and the report of an evaluation."""

import json

import numpy as np
import pytest
import torch

from operators.baselines import PENALTIES, ridge, training_mean
from operators.checkpoint import load_checkpoint, save_checkpoint
from operators.data import Channel
from operators.evaluation import evaluate
from operators.plots import loss_curve, samples
from operators.predict import load
from operators.trainer import train


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.fixture
def trained(run_folder, make_config, make_store):
    """One short run, shared by the tests of this module."""
    return train(make_config(out=str(run_folder / "run"), trainer={"epochs": 3}), make_store()).out / "best.pt"


def test_predictions_are_numpy_in_physical_units(trained, make_store):
    predictor = load(trained, "cpu")
    fields = make_store().read("test", "source")[:, None]
    prediction = predictor.predict(fields)
    assert isinstance(prediction, np.ndarray)
    assert prediction.shape == (6, 1, 16, 16)
    # Written out by hand from the checkpoint's numbers.
    numbers = load_checkpoint(trained)["normalisers"]
    mean_in, std_in = (numbers["inputs"][key].item() for key in ("mean", "standard_deviation"))
    mean_out, std_out = (numbers["outputs"][key].item() for key in ("mean", "standard_deviation"))
    with torch.no_grad():
        raw = predictor.operator.module(torch.from_numpy((fields - mean_in) / std_in)).numpy()
    np.testing.assert_allclose(prediction, raw * std_out + mean_out, rtol=1e-5)
    # The truth is near 5 in metres: normalised numbers would be near 0.
    assert abs(prediction.mean() - 5) < 1


def test_predictions_do_not_depend_on_batches_or_input_type(trained, make_store):
    predictor = load(trained, "cpu")
    fields = make_store().read("test", "source")[:, None]
    one_by_one = predictor.predict(fields, batch_size=1)
    # Matrix products of other sizes may round differently in single precision.
    np.testing.assert_allclose(predictor.predict(fields, batch_size=4), one_by_one, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(predictor.predict(fields.astype(float)), predictor.predict(fields))
    transposed = np.asfortranarray(fields)
    np.testing.assert_array_equal(predictor.predict(transposed), predictor.predict(fields))
    assert predictor.predict(fields[:0]).shape == (0, 1, 16, 16)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 2, 16, 16), r"takes \(\[samples,\] 1 input channels \(source\), and 2 grid axes\)"),
        ((2, 16, 16), "2 grid axes"),
        ((2, 1, 16, 16, 16), "2 grid axes"),
    ],
)
def test_fields_that_do_not_fit_are_a_sentence(shape, message, trained):
    with pytest.raises(ValueError, match=message):
        load(trained, "cpu").predict(np.zeros(shape))


def test_fields_that_are_not_finite_are_refused(trained):
    with pytest.raises(ValueError, match="not finite"):
        load(trained, "cpu").predict(np.full((1, 1, 16, 16), np.nan))


def test_a_model_of_a_later_argument_is_named(trained, tmp_path):
    content = load_checkpoint(trained)
    content["model"]["arguments"]["dropout"] = 0.1
    content.pop("format_version")
    save_checkpoint(tmp_path / "other.pt", content)
    with pytest.raises(ValueError, match="model 'tfno' has no argument 'dropout'"):
        load(tmp_path / "other.pt")


def test_training_mean_is_the_mean():
    outputs = np.random.default_rng(0).normal(size=(9, 2, 4, 5)).astype(np.float32)
    prediction = training_mean([outputs[:4], outputs[4:]]).predict(np.zeros((3, 1, 4, 5)))
    np.testing.assert_allclose(prediction, np.stack([outputs.astype(float).mean(0)] * 3), rtol=1e-12)


@pytest.mark.parametrize("samples", [20, 60])
def test_ridge_solves_the_penalised_normal_equations(samples):
    # 20 samples are fewer than the 36 input values (dual form), 60 are more (primal form): one answer by either.
    generator = np.random.default_rng(1)
    x = generator.normal(size=(samples + 10, 1, 6, 6)) * 3 + 2
    y = (x.reshape(len(x), -1) @ generator.normal(size=(36, 8))).reshape(len(x), 2, 4) + 7
    y += generator.normal(size=y.shape)
    train_set, validation = (x[:samples], y[:samples]), (x[samples:], y[samples:])
    predictor = ridge(train_set, validation)

    centre, mean, scale = train_set[0].mean(0), train_set[1].mean(0), train_set[0].std()
    X = ((train_set[0] - centre) / scale).reshape(samples, -1)
    Y = (train_set[1] - mean).reshape(samples, -1)
    level = np.trace(X @ X.T) / min(X.shape)
    V = ((validation[0] - centre) / scale).reshape(10, -1)
    best, error = None, np.inf
    for penalty in PENALTIES:
        weights = np.linalg.solve(X.T @ X + penalty * level * np.eye(36), X.T @ Y)
        guess = (V @ weights).reshape(validation[1].shape) + mean
        relative = np.linalg.norm((guess - validation[1]).reshape(10, -1), axis=1)
        relative = (relative / np.linalg.norm(validation[1].reshape(10, -1), axis=1)).mean()
        if relative < error:
            best, error = guess, relative
    # Normal equations with a penalty of 1e-8 are solved to about 1e-8 of their condition.
    np.testing.assert_allclose(predictor.predict(validation[0]), best, rtol=1e-6, atol=1e-6)


def test_ridge_penalty_does_not_see_the_test_inputs():
    # Noise fitted exactly by a small penalty is punished on validation data.
    generator = np.random.default_rng(2)
    x, y = generator.normal(size=(40, 1, 50)), 1 + generator.normal(size=(40, 1, 50))
    name = ridge((x[:30], y[:30]), (x[30:], y[30:])).name
    assert float(name.split("penalty ")[1].rstrip(")")) >= 10


def test_evaluation_writes_the_whole_report(trained, make_store, tmp_path):
    out = tmp_path / "evaluation"
    store = make_store()
    content = evaluate(trained, store, out, "cpu")
    names = list(content["results"])
    assert names[0] == "tfno"
    assert names[1] == "training mean"
    assert names[2].startswith("ridge regression (penalty")

    # The two figures that anyone can check by hand.
    truth = store.arrays["test"]["solution"].astype(float)
    prediction = load(trained, "cpu").predict(store.read("test", "source")[:, None])[:, 0]
    mean = store.arrays["train"]["solution"].astype(float).mean(axis=0)

    def relative(guess):
        return np.linalg.norm((guess - truth).reshape(6, -1), axis=1) / np.linalg.norm(truth.reshape(6, -1), axis=1)

    assert content["results"]["tfno"]["relative_l2"]["mean"] == pytest.approx(relative(prediction).mean(), rel=1e-6)
    assert content["results"]["tfno"]["relative_l2"]["max"] == pytest.approx(relative(prediction).max(), rel=1e-6)
    assert content["results"]["training mean"]["relative_l2"]["mean"] == pytest.approx(relative(mean).mean(), rel=1e-6)
    assert json.loads((out / "metrics.json").read_text())["results"].keys() == content["results"].keys()

    report = (out / "report.md").read_text()
    assert report.startswith("# tfno on screened_poisson\n")
    for expected in (
        f"| tfno | {100 * relative(prediction).mean():.2f} % |",
        "| training mean |",
        "6 samples on a 16 x 16 grid. source -> solution.",
        "24 training samples",
        "![tfno: best, median and worst sample](samples.png)",
        "  model=tfno \\\n  model.n_modes=[6,6] \\",
        f"southwell-evaluate checkpoint={trained} dataset.path=memory",
    ):
        assert expected in report, expected
    for picture in ("loss.png", "samples.png", "errors.png", "spectra.png"):
        assert (out / picture).read_bytes().startswith(b"\x89PNG")
    # The same again is the same; another dataset's numbers must not take their place.
    assert evaluate(trained, store, out, "cpu")["results"].keys() == content["results"].keys()
    with pytest.raises(ValueError, match="choose another out"):
        evaluate(trained, make_store(path="elsewhere"), out, "cpu")


def test_evaluation_on_another_grid(trained, make_store, tmp_path):
    fine = make_store(shape=(24, 20), sizes={"train": 0, "validation": 0, "test": 4})
    content = evaluate(trained, fine, tmp_path, "cpu")
    assert list(content["results"]) == ["tfno"]  # nothing to fit naive predictors on
    report = (tmp_path / "report.md").read_text()
    assert "4 samples on a 24 x 20 grid (trained on 16 x 16)" in report
    assert "Naive predictors are left out" in report
    # Band-limited data: a finer grid shows the same error function, up to the aliasing of GELU.
    coarse = evaluate(trained, make_store(), tmp_path / "coarse", "cpu")["results"]["tfno"]["relative_l2"]["mean"]
    assert content["results"]["tfno"]["relative_l2"]["mean"] == pytest.approx(coarse, rel=0.5)


def test_a_dataset_that_does_not_fit_is_refused_before_it_is_read(trained, make_store, tmp_path):
    other = make_store(forbidden=("train", "validation", "test"))
    other.fields = (other.fields[2].__class__("density", "input"), *other.fields[1:])
    with pytest.raises(ValueError, match=r"maps \(source\) -> \(solution\), but dataset memory has \(density\)"):
        evaluate(trained, other, tmp_path / "x", "cpu")
    line = make_store(shape=(16,))
    line.forbidden = ("train", "validation", "test")
    with pytest.raises(ValueError, match="trained on 2 grid axes, but dataset memory has 1"):
        evaluate(trained, line, tmp_path / "x", "cpu")
    assert not (tmp_path / "x").exists()


def test_truth_and_prediction_share_a_scale():
    generator = np.random.default_rng(0)
    truth, guess = generator.normal(size=(2, 3, 1, 8, 6))
    figure = samples(truth, truth, 3 * guess, [Channel("a")], [Channel("u", "m")])
    panels = [axes for axes in figure.axes if axes.images]
    assert len(panels) == 12
    for row in range(3):
        _source, exact, predicted, error = (axes.images[0] for axes in panels[4 * row : 4 * row + 4])
        assert exact.get_clim() == predicted.get_clim()
        # Both signs: symmetric about zero.
        assert exact.get_clim()[1] == max(abs(truth[row]).max(), abs(3 * guess[row]).max())
        assert exact.get_clim()[0] == -exact.get_clim()[1]
        assert error.get_clim()[0] == -error.get_clim()[1]
        np.testing.assert_array_equal(error.get_array(), (3 * guess - truth)[row, 0].T)
    assert panels[1].get_title() == "u [m]: truth"
    assert sum(len(axes.images) == 0 for axes in figure.axes) == 12  # a colour bar for each


def test_samples_in_one_dimension_are_curves_and_in_three_middle_slices():
    generator = np.random.default_rng(0)
    line, cube = generator.normal(size=(2, 1, 9)), generator.normal(size=(2, 1, 5, 4, 6))
    figure = samples(line, line, 2 * line, [Channel("a")], [Channel("u")], ["first", "second"], (", t = 0", ", t = 1"))
    assert [axes.get_title() for axes in figure.axes[:3]] == ["a, t = 0", "u, t = 1", "u, t = 1: prediction - truth"]
    assert figure.axes[3].get_ylabel() == "second"
    np.testing.assert_array_equal(figure.axes[4].lines[1].get_ydata(), 2 * line[1, 0])
    np.testing.assert_array_equal(figure.axes[5].lines[0].get_ydata(), line[1, 0])
    panels = [axes for axes in samples(cube, cube, cube, [Channel("a")], [Channel("u")]).axes if axes.images]
    np.testing.assert_array_equal(panels[0].images[0].get_array(), cube[0, 0, :, :, 3].T)


def test_every_output_channel_has_its_row():
    fields = np.random.default_rng(0).normal(size=(3, 2, 4, 4))
    figure = samples(fields, fields, fields, [Channel("a"), Channel("b")], [Channel("u"), Channel("v")])
    titles = [axes.get_title() for axes in figure.axes if axes.images]
    assert titles[::4] == ["a", "b"] * 3
    assert titles[1::4] == ["u: truth", "v: truth"] * 3


def test_loss_curve_shows_both_losses():
    history = [{"epoch": e, "train_loss": 1 / e, "validation_loss": 2 / e} for e in (1.0, 2.0, 3.0)]
    axes = loss_curve(history).axes[0]
    np.testing.assert_allclose(axes.lines[1].get_ydata(), [2, 1, 2 / 3])
    assert axes.get_yscale() == "log"


def test_certified_samples_are_counted_and_reported(trained, make_store, tmp_path, monkeypatch):
    # The family behind a real store is a discretised PDE; here one whose matrix is known: 2 I, so that the first guess
    # 5, once scaled, and any solver's answer can be checked by hand.
    import scipy.sparse

    from datagen.family import LinearSystem, Sample

    class Doubling:
        name = "doubling"
        made_by_solving = True
        fields = make_store().fields
        mesh = type("Mesh", (), {"shape": (16, 16)})

        def role(self, role):
            return tuple(f for f in self.fields if f.role == role)

        def system(self, sample):
            b = 2.0 * sample.fields["source"].ravel().astype(float)
            return LinearSystem(scipy.sparse.eye_array(256, format="csr") * 2.0, b, lambda x: x.reshape(16, 16))

    store = make_store()
    store.family = Doubling()
    store.sample = lambda split, index: Sample({"source": store.read(split, "source", index, index + 1)[0]})
    certified = evaluate(trained, store, tmp_path, "cpu", certified_samples=99)["operators"]["tfno"]["certified"]
    assert certified["samples"] == 6  # all there are
    assert certified["worst_relative_residual"] <= 1e-8
    assert certified["mean_iterations_from_zero"] == 1.0  # conjugate gradients on a multiple of the identity
    assert "Certified: 6 test samples" in (tmp_path / "report.md").read_text()


def small_dataset(folder, pde):
    from datagen.generate import generate
    from datagen.store import Spec, open_store

    spec = Spec(pde, 1, {"train": 3, "validation": 1, "test": 2}, 6, {"method": "auto", "rtol": 1e-8})
    return open_store(generate(spec, folder, executor="serial"))


def test_hybrid_says_what_predictions_save_and_when_they_have_paid(tmp_path, make_config):
    store = small_dataset(tmp_path / "data", {"name": "darcy", "grid": 16})
    model = {"name": "tfno", "n_modes": [4, 4], "hidden_channels": 4, "n_layers": 1}
    config = make_config(model=model, trainer={"epochs": 1, "batch_size": 3}, out=str(tmp_path / "run"))
    checkpoint = train(config, store).out / "best.pt"
    measured = evaluate(checkpoint, store, tmp_path / "out", "cpu", hybrid=True)["operators"]["tfno"]["hybrid"]
    assert measured["samples"] == 2
    assert {row["rtol"] for row in measured["rows"]} == {1e-2, 1e-4, 1e-6, 1e-8}
    assert all(row["certified"] == 2 for row in measured["rows"])
    # An independent count: scipy's CG with Jacobi's preconditioner from zero.
    import scipy.sparse.linalg as sla

    def iterations(sample, rtol):
        system, taken = store.family.system(sample), []
        A = system.A.tocsr()
        inverse = sla.LinearOperator(A.shape, matvec=lambda r: r / A.diagonal(), dtype=float)
        sla.cg(A, system.b, rtol=rtol, M=inverse, callback=taken.append)
        return len(taken)

    for row in measured["rows"]:
        if row["solver"] == "cg + jacobi":
            expected = np.mean([iterations(store.sample("test", i), row["rtol"]) for i in range(2)])
            assert row["iterations"]["without"] == pytest.approx(expected, abs=1)
    assert any(row["solver"].startswith("auto") for row in measured["rows"])  # the suite's own choice takes part
    # The break-even number is that of its definition, against the fastest row without the prediction.
    assert measured["data_seconds"] > 0
    for entry in measured["breakeven"]:
        rows = [row for row in measured["rows"] if row["rtol"] == entry["rtol"]]
        without = min(row["seconds"]["without"] for row in rows)
        with_it = min(row["seconds"]["with"] for row in rows if row["seconds"]["with"] is not None)
        cost = measured["data_seconds"] + measured["training_seconds"]
        assert entry["without"]["seconds"] == without
        if with_it < without:
            assert entry["solves"] == int(np.ceil(cost / (without - with_it)))
        else:
            assert entry["solves"] is None
    report = (tmp_path / "out/report.md").read_text()
    assert "As a first guess of a solver, 2 test samples" in report
    assert report.count("- rtol 1e-0") == 4


@pytest.mark.slow
def test_hybrid_of_steps_in_time(tmp_path, make_config):
    pde = {"name": "heat", "grid": 12, "final_time": 0.4, "frames": 3, "step": 0.1}
    store = small_dataset(tmp_path / "data", pde)
    model = {"name": "tfno", "n_modes": [4, 4], "hidden_channels": 4, "n_layers": 1}
    task = {"name": "time_pairs", "pairing": "one_step"}
    config = make_config(model=model, task=task, trainer={"epochs": 1, "batch_size": 3}, out=str(tmp_path / "run"))
    checkpoint = train(config, store).out / "best.pt"
    found = evaluate(checkpoint, store, tmp_path / "out", "cpu", certified_samples=1, hybrid=True)["operators"]["tfno"]
    assert found["certified"]["certified"] == found["certified"]["samples"] == 1
    assert found["certified"]["worst_relative_residual"] <= 1e-8
    assert all(row["certified"] == 1 for row in found["hybrid"]["rows"])
    assert "from the slopes of the steps before" in (tmp_path / "out/report.md").read_text()


def test_what_has_no_linear_systems_is_refused_before_anything_is_measured(tmp_path, make_config):
    store = small_dataset(tmp_path / "data", {"name": "burgers", "grid": 16, "nu": 0.1, "frames": 2, "final_time": 0.1})
    config = make_config(model={"name": "fno", "n_modes": [4], "hidden_channels": 4, "n_layers": 1})
    config["trainer"]["epochs"] = 1
    checkpoint = train(config, store).out / "best.pt"
    with pytest.raises(
        ValueError, match="hybrid=true: only predictions of steady families, and of those with implicit"
    ):
        evaluate(checkpoint, store, tmp_path / "out", "cpu", hybrid=True)
