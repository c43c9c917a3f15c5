"""Evaluation: a trained operator and naive predictors on a dataset's test split; numbers, pictures and a report."""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from datagen.files import json_bytes, read_json, write_atomically
from datagen.store import Store
from operators.baselines import Baseline, Predict, ridge, training_mean
from operators.data import load_split, periodic_axes
from operators.hybrid import certify
from operators.metrics import measure, summarise
from operators.plots import loss_curve, samples, save_figure
from operators.predict import Predictor, load
from operators.run_folder import flatten

logger = logging.getLogger(__name__)

SHOWN_SAMPLES = 3
CERTIFIED_RTOL = 1e-8
COLUMNS = {  # metric and summary -> heading of the report's table
    ("relative_l2", "mean"): "relative L2",
    ("relative_l2", "median"): "median",
    ("relative_l2", "max"): "worst",
    ("relative_h1", "mean"): "relative H1",
    ("mse", "mean"): "mean squared error",
}

Fields = NDArray[np.float32]


def evaluate(
    checkpoint: str | Path,
    store: Store,
    out: str | Path | None = None,
    device: str = "auto",
    certified_samples: int = 0,
) -> dict[str, Any]:
    """Measure a checkpoint on a dataset's test split, beside naive predictors, and write it all down.

    Parameters
    ----------
    checkpoint : path
        ``best.pt`` of a run.
    store : Store
        Its fields must be the checkpoint's; its grid may be another than trained on. Naive predictors are fitted on
        its own training and validation splits, and left out where it has none.
    out : path, optional
        Folder for ``metrics.json``, ``report.md``, ``loss.png`` and ``samples.png``; ``evaluation`` beside the
        checkpoint if left out.
    device : str
        "auto", "cpu" or "cuda".
    certified_samples : int
        How many test samples to finish by a solver and certify (`operators.hybrid.certify`).

    Returns
    -------
    dict
        The content of ``metrics.json``: under ``results``, for each predictor, every metric's mean, median and max over
        samples, and the seconds it took; under ``certified`` what the prediction saved the solver.

    Raises
    ------
    ValueError
        If the dataset does not fit the checkpoint, or ``out`` holds the evaluation of another checkpoint or dataset.
    """
    checkpoint = Path(checkpoint)
    out = checkpoint.parent / "evaluation" if out is None else Path(out)
    predictor = load(checkpoint, device)
    predictor.check_store(store)
    if certified_samples and not store.family.made_by_solving:
        raise ValueError(
            f"certify={certified_samples}: the samples of {store.path} come from a file, and there is no equation to "
            "certify predictions against; leave certify out"
        )
    if certified_samples and store.evolves:
        raise ValueError(
            f"certify={certified_samples}: only predictions of steady families can be finished by a linear solver, and "
            f"{store.path} holds {store.family.name}, which evolves in time; leave certify out"
        )
    _refuse_another_evaluation(out, checkpoint, store)

    test = load_split(store, "test")
    inputs, truth = test.inputs.numpy(), test.outputs.numpy()
    results: dict[str, dict[str, Any]] = {}

    def add(name: str, predict: Predict, fit_seconds: float | None) -> NDArray[np.floating]:
        started = time.perf_counter()
        prediction = predict(inputs)
        seconds = time.perf_counter() - started
        values = measure(prediction, truth, periodic_axes(store))
        results[name] = {metric: summarise(each) for metric, each in values.items()}
        results[name] |= {"fit_seconds": fit_seconds, "predict_seconds": seconds}
        logger.info("%s: relative L2 %.4f", name, results[name]["relative_l2"]["mean"])
        return prediction

    trained_seconds = sum(row["seconds"] for row in predictor.history)
    prediction = add(predictor.model_name, predictor.predict, trained_seconds)
    for baseline, seconds in _baselines(store):
        add(baseline.name, baseline.predict, seconds)

    content: dict[str, Any] = {
        "format_version": 1,
        "checkpoint": str(checkpoint),
        "dataset": str(store.path),
        "model": predictor.model_name,
        "parameters": predictor.parameter_count,
        "trained_grid": list(predictor.grid),
        "grid": list(store.shape),
        "samples": dict(store.sizes),
        "epochs": len(predictor.history),
        "results": results,
    }
    if certified_samples:
        content["certified"] = _certify(predictor, store, certified_samples)
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "metrics.json", json_bytes(content))
    save_figure(loss_curve(predictor.history), out / "loss.png")
    shown = slice(0, SHOWN_SAMPLES)
    figure = samples(inputs[shown], truth[shown], prediction[shown], predictor.inputs, predictor.outputs)
    save_figure(figure, out / "samples.png")
    write_atomically(out / "report.md", _report(content, predictor).encode())
    return content


def _refuse_another_evaluation(out: Path, checkpoint: Path, store: Store) -> None:
    path = out / "metrics.json"
    if not path.exists():
        return
    before = read_json(path)
    if Path(before["checkpoint"]).resolve() != checkpoint.resolve() or before["dataset"] != str(store.path):
        raise ValueError(
            f"{out} holds the evaluation of {before['checkpoint']} on {before['dataset']}; choose another out"
        )


def _baselines(store: Store) -> list[tuple[Baseline, float]]:
    """Naive predictors fitted on the dataset's own splits, with the seconds that took."""
    if not store.sizes.get("train") or not store.sizes.get("validation"):
        logger.warning("%s has no training and validation data: naive predictors are left out", store.path)
        return []
    train, validation = load_split(store, "train"), load_split(store, "validation")
    started = time.perf_counter()
    mean = training_mean(train.outputs.numpy())
    fitted_mean = time.perf_counter()
    linear = ridge(
        (train.inputs.numpy(), train.outputs.numpy()), (validation.inputs.numpy(), validation.outputs.numpy())
    )
    return [(mean, fitted_mean - started), (linear, time.perf_counter() - fitted_mean)]


def _certify(predictor: Predictor, store: Store, count: int) -> dict[str, Any]:
    """Finish the first test samples by conjugate gradients, from the prediction and from zero."""
    residuals, guided, unguided = [], [], []
    for index in range(min(count, store.sizes["test"])):
        sample = store.sample("test", index)
        done = certify(predictor, store.family, sample, CERTIFIED_RTOL)
        residuals.append(done.result.residual_norm / float(np.linalg.norm(store.family.system(sample).b)))
        guided.append(done.result.iterations)
        unguided.append(done.from_zero.iterations)
    return {
        "samples": len(residuals),
        "rtol": CERTIFIED_RTOL,
        "worst_relative_residual": max(residuals),
        "mean_iterations_from_prediction": float(np.mean(guided)),
        "mean_iterations_from_zero": float(np.mean(unguided)),
    }


def command_line(config: Mapping[str, Any]) -> str:
    """The `southwell-train` command that has every value of a configuration written out.

    Examples
    --------
    >>> print(command_line({"model": {"name": "tfno", "n_modes": [8, 8]}, "out": "runs/a"}))
    southwell-train \\
      model=tfno \\
      model.n_modes=[8,8] \\
      out=runs/a
    """
    words = []
    for key, value in flatten(config).items():
        if value is None:
            text = "null"
        elif isinstance(value, list):
            text = json.dumps(value, separators=(",", ":"))
        else:
            text = str(value)
        words.append(f"{key.removesuffix('.name')}={text}")
    return " \\\n  ".join(["southwell-train", *words])


def _table(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    headings = ["predictor", *COLUMNS.values(), "seconds to fit", "seconds to predict"]
    lines = ["| " + " | ".join(headings) + " |", "|---" + "|---:" * (len(headings) - 1) + "|"]
    for name, result in results.items():
        cells = [name]
        for metric, summary in COLUMNS:
            value = result.get(metric, {}).get(summary)
            cells.append("-" if value is None else f"{value:.3g}" if metric == "mse" else f"{100 * value:.2f} %")
        cells += [f"{result['fit_seconds']:.1f}", f"{result['predict_seconds']:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _grid(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _certified(content: Mapping[str, Any]) -> list[str]:
    if "certified" not in content:
        return []
    c = content["certified"]
    guided, unguided = c["mean_iterations_from_prediction"], c["mean_iterations_from_zero"]
    return [
        f"Certified: {c['samples']} test samples, finished by conjugate gradients from the prediction, satisfy their "
        f"equations to a relative residual of {c['worst_relative_residual']:.1e} or less (asked: {c['rtol']:.0e}). "
        f"That took {guided:.1f} iterations on average, against {unguided:.1f} from zero.",
        "",
    ]


def _report(content: Mapping[str, Any], predictor: Predictor) -> str:
    samples = content["samples"]
    trained = "" if content["grid"] == content["trained_grid"] else f" (trained on {_grid(content['trained_grid'])})"
    best = min(predictor.history, key=lambda row: row["validation_loss"])
    fitted = len(content["results"]) > 1
    lines = [
        f"# {content['model']} on {predictor.spec.get('pde', {}).get('name', content['dataset'])}",
        "",
        f"Test split of `{content['dataset']}`: {samples.get('test', 0)} samples on a {_grid(content['grid'])} grid"
        f"{trained}. {', '.join(c.name for c in predictor.inputs)} -> {', '.join(c.name for c in predictor.outputs)}.",
        "",
        *_table(content["results"]),
        "",
        "Relative errors are per sample, ||prediction - truth|| / ||truth|| over the grid (H1: values and first "
        "differences), in physical units; the first column is their mean.",
        (
            f"The naive predictors were fitted on this dataset's {samples.get('train', 0)} training samples, the ridge "
            f"penalty chosen on its {samples.get('validation', 0)} validation samples."
            if fitted
            else "Naive predictors are left out: this dataset has no training and validation data."
        ),
        "",
        f"The model has {content['parameters']:,} parameters. The checkpoint is from epoch {len(predictor.history)}; "
        f"the least validation loss until then, {best['validation_loss']:.4g}, is that of epoch {int(best['epoch'])}.",
        "",
        *_certified(content),
        "![samples](samples.png)",
        "",
        "![loss](loss.png)",
        "",
        "## How to reproduce",
        "",
        "```bash",
        command_line(yaml.safe_load(predictor.config)),
        f"southwell-evaluate checkpoint={content['checkpoint']} dataset.path={content['dataset']}",
        "```",
        "",
    ]
    return "\n".join(lines)
