"""Evaluation: trained operators and naive predictors on a dataset's test split; numbers, pictures and a report.

The test split streams by once, in pieces, past everybody who takes part (`operators.contenders`); of each prediction
only numbers are kept (`operators.tally`), so that memory does not grow with the split.
"""

import csv
import io
import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datagen.evolve.implicit_family import ImplicitFamily
from datagen.files import json_bytes, read_json, write_atomically
from datagen.pdes.mixed import origins
from datagen.store import Store
from operators import breakeven
from operators.checkpoint import load_checkpoint
from operators.contenders import Chunk, Contender, baselines, chunks, of_operator
from operators.data import periodic_axes
from operators.evaluation_pictures import draw_all
from operators.hybrid import certify
from operators.metrics import METRICS, applicable, correlation_time, definitions, metric, summarise
from operators.mixture import of_part, part_of
from operators.predict import Predictor
from operators.reading import Reader, check_store
from operators.report import report
from operators.tally import CURVES, Energy, Tally

logger = logging.getLogger(__name__)

FORMAT_VERSION = 2
LOG_EVERY_SECONDS = 30.0
CERTIFIED_RTOL = 1e-8
CORRELATED = 0.8
"""A rollout is called correlated while its correlation with the truth is at least this (Lippe et al. 2023)."""


def evaluate(
    checkpoint: str | Path | Sequence[str | Path],
    store: Store,
    out: str | Path | None = None,
    device: str = "auto",
    certified_samples: int = 0,
    metrics: str | Sequence[str] | None = None,
    lead_time: float | None = None,
    hybrid: bool = False,
) -> dict[str, Any]:
    """Measure one or several checkpoints on a dataset's test split, beside naive predictors, and write it all down.

    Operators that step in time are rolled out from the first frame through all others; the metrics are those of the
    last frame, and error and correlation are reported at every one.

    Parameters
    ----------
    checkpoint : path or sequence of paths
        ``best.pt`` of a run, or of several that predict the same fields: one table compares them.
    store : Store
        Its fields must be the checkpoints'; its grid may be another than trained on. Naive predictors are fitted on
        its own training and validation splits, and left out where it has none.
    out : path, optional
        Folder for ``report.md``, ``metrics.json``, ``errors.csv`` (of every sample) and pictures. Left out, it is
        ``evaluation`` beside the checkpoint, or ``comparison`` in the folder that holds all runs.
    device : str
        "auto", "cpu" or "cuda".
    certified_samples : int
        How many test samples to finish by a solver and certify (`operators.hybrid.certify`).
    metrics : str or sequence of str, optional
        Registered metrics or losses to report; `operators.metrics.METRICS` if left out.
    lead_time : float, optional
        Of one step of a rollout, in physical time; by default what the operator was trained for.
    hybrid : bool
        Whether to measure what predictions save a solver at several tolerances, and after how many solves the operator
        has paid (`operators.breakeven`); of as many test samples as ``certified_samples`` says, or 10.

    Returns
    -------
    dict
        The content of ``metrics.json``: under ``results``, for each predictor, every metric's mean, median and max over
        samples, its own summary, and the seconds it took; under ``rollout``, in time, its curves; under ``operators``
        what each checkpoint is, and what its predictions saved the solver.

    Raises
    ------
    ValueError
        If the dataset does not fit a checkpoint, the checkpoints do not fit each other, a metric is unknown, or ``out``
        holds the evaluation of other checkpoints or another dataset.
    """
    paths = [Path(p) for p in ([checkpoint] if isinstance(checkpoint, (str, Path)) else checkpoint)]
    out = default_folder(paths) if out is None else Path(out)
    if isinstance(metrics, str):
        metrics = [metrics]
    names = dict.fromkeys(("relative_l2", *(METRICS if metrics is None else metrics)))
    periodic = periodic_axes(store)
    measured = applicable(names, store.shape, periodic)
    operators = _operators(paths, store, device)
    _check_certifiable(certified_samples, hybrid, store)
    _refuse_another_evaluation(out, paths, store)
    if not store.sizes.get("test"):
        raise ValueError(f"dataset {store.path} has no test samples; it has {dict(store.sizes)}")

    readers = {name: Reader(store, "test", p.inputs, p.outputs) for name, p in operators.items()}
    ours = [one for name, p in operators.items() for one in of_operator(name, p, readers[name], lead_time)]
    final = _last_common_frame(ours)
    ours = [Contender(c.name, [f for f in c.frames if f <= final], c.predictions, c.fit_seconds) for c in ours]
    # Naive predictors answer at as many frames as the operator that is asked most often.
    steps = {one.name: one.frames for one in ours if one.name in operators}
    lead = max(steps, key=lambda name: len(steps[name]))
    contenders = [*ours, *baselines(operators[lead], store, lead, steps[lead])]
    tallies = {c.name: Tally(measured, c.frames, periodic, spectral=c.name in operators) for c in contenders}
    truth = Energy(periodic)
    _stream(contenders, tallies, readers, operators, lead, truth)

    content = _content(paths, operators, contenders, tallies, store, measured)
    content["spectra"] = _spectra(tallies, truth, operators)
    if operators[lead].step is not None:
        content["rollout"] = _rollout(contenders, tallies, readers[lead].times, operators[lead].first_frame)
    for name, predictor in operators.items():
        if certified_samples:
            content["operators"][name]["certified"] = _certify(predictor, store, certified_samples)
        if hybrid:
            worth = breakeven.measure(predictor, store, certified_samples or breakeven.SAMPLES)
            content["operators"][name]["hybrid"] = worth
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "errors.csv", _errors_of_samples(tallies, operators))
    pictures = draw_all(out, content, operators, contenders, tallies, readers)
    write_atomically(out / "metrics.json", json_bytes(_plain(content)))
    write_atomically(out / "report.md", report(_plain(content), operators, pictures, metrics).encode())
    return content


# ------------------------------------------------------------------------------------------------- before it begins


def default_folder(paths: Sequence[Path]) -> Path:
    """Where the report goes: ``evaluation`` beside a checkpoint, ``comparison`` beside the runs of several.

    Parameters
    ----------
    paths : sequence of Path
        Of the checkpoints.
    """
    if len(paths) == 1:
        return paths[0].parent / "evaluation"
    return Path(os.path.commonpath([path.parent.absolute().parent for path in paths])) / "comparison"


def _operators(paths: Sequence[Path], store: Store, device: str) -> dict[str, Predictor]:
    """The predictors by name: one is named after its model, several after the folders of their runs."""
    if not paths:
        raise ValueError("checkpoint must name at least one file, got an empty list")
    contents = [load_checkpoint(path) for path in paths]
    loaded = [Predictor(of_part(content, part_of(content, store.spec)), device) for content in contents]
    if len(paths) == 1:
        names = [loaded[0].model_name]
    else:
        folders = [path.parent.name for path in paths]
        names = folders if len(set(folders)) == len(folders) else [str(path) for path in paths]
    if len(set(names)) < len(names):
        raise ValueError(f"checkpoint names one file twice: {', '.join(map(str, paths))}")
    for predictor in loaded:
        check_store(predictor, store)
    return dict(zip(names, loaded, strict=True))


def _check_certifiable(count: int, hybrid: bool, store: Store) -> None:
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise ValueError(f"certify must be a whole number that is not negative, got {count!r}")
    if not isinstance(hybrid, bool):
        raise ValueError(f"hybrid must be true or false, got {hybrid!r}")
    asked = f"certify={count}" if count else "hybrid=true"
    if (count or hybrid) and not store.family.made_by_solving:
        raise ValueError(
            f"{asked}: the samples of {store.path} come from a file, and there is no equation to "
            "certify predictions against; leave it out"
        )
    if (count or hybrid) and store.evolves and not isinstance(store.family, ImplicitFamily):
        raise ValueError(
            f"{asked}: only predictions of steady families, and of those with implicit steps, can be finished by a "
            f"linear solver, and {store.path} holds {store.family.name}, which evolves in time without; leave it out"
        )


def _refuse_another_evaluation(out: Path, paths: Sequence[Path], store: Store) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"out={out} is a file; name a folder")
    path = out / "metrics.json"
    if not path.exists():
        return
    before = read_json(path)
    found = [entry["checkpoint"] for entry in before.get("operators", {}).values()] or [before.get("checkpoint", "?")]
    same = {Path(p).resolve() for p in found} == {p.resolve() for p in paths}
    if not same or before.get("dataset") != str(store.path):
        raise ValueError(
            f"{out} holds the evaluation of {', '.join(found)} on {before.get('dataset')}; choose another out"
        )


def _last_common_frame(contenders: Sequence[Contender]) -> int:
    """The last frame that all predict: what they are compared by."""
    common = set(contenders[0].frames).intersection(*(one.frames for one in contenders))
    if not common:
        raise ValueError(
            "the checkpoints have no frame in common that all of them predict: "
            + "; ".join(f"{one.name} predicts frames {', '.join(map(str, one.frames))}" for one in contenders)
        )
    return max(common)


# ------------------------------------------------------------------------------------------------------- the measuring


def _stream(
    contenders: Sequence[Contender],
    tallies: Mapping[str, Tally],
    readers: Mapping[str, Reader],
    operators: Mapping[str, Predictor],
    lead: str,
    truth: Energy,
) -> None:
    """Let the test split pass by once."""
    frames = sorted({frame for one in contenders for frame in one.frames})
    spoke = time.monotonic()
    for start, stop in chunks(readers[lead]):
        chunk = Chunk({n: reader.inputs(start, stop, operators[n].first_frame) for n, reader in readers.items()})
        answers = {one.name: one.predictions(chunk) for one in contenders}
        before: dict[str, Any] = {}  # the truth where each of them was last asked: single steps start from it
        for frame in frames:
            exact = readers[lead].outputs(start, stop, frame)
            for one in contenders:
                if frame in one.frames:
                    chunk.before, before[one.name] = before.get(one.name), exact
                    started = time.perf_counter()
                    prediction = next(answers[one.name])
                    tallies[one.name].seconds += time.perf_counter() - started
                    tallies[one.name].add(frame, prediction, exact)
            if frame == frames[-1]:
                truth.add(exact)
        if time.monotonic() - spoke > LOG_EVERY_SECONDS:
            spoke = time.monotonic()
            logger.info("%d of %d test samples", stop, len(readers[lead]))


def _content(
    paths: Sequence[Path],
    operators: Mapping[str, Predictor],
    contenders: Sequence[Contender],
    tallies: Mapping[str, Tally],
    store: Store,
    measured: Sequence[str],
) -> dict[str, Any]:
    results = {}
    outputs = [channel.name for channel in next(iter(operators.values())).outputs]
    for contender in contenders:
        tally = tallies[contender.name]
        rows: dict[str, Any] = {}
        for name, values in tally.values.items():
            rows[name] = {**summarise(values), "summary": metric(name).summary(values)}
            if len(outputs) > 1:
                rows[name]["channels"] = {
                    channel: metric(name).summary(values[:, [number]]) for number, channel in enumerate(outputs)
                }
        results[contender.name] = rows | {"fit_seconds": contender.fit_seconds, "predict_seconds": tally.seconds}
        logger.info("%s: relative L2 %.4f", contender.name, rows["relative_l2"]["mean"])
    return {
        "format_version": FORMAT_VERSION,
        "dataset": str(store.path),
        "grid": list(store.shape),
        "samples": dict(store.sizes),
        "operators": {
            name: {
                "checkpoint": str(path),
                "model": predictor.model_name,
                "task": predictor.task_name,
                "parameters": predictor.parameter_count,
                "trained_grid": list(predictor.grid),
                "epochs": len(predictor.history),
                "other_parameters": _other_parameters(predictor.spec, store.spec),
                "ranked_samples": _ranked(tallies[name]),
            }
            for path, (name, predictor) in zip(paths, operators.items(), strict=True)
        },
        "metrics": definitions(measured),
        "results": results,
    }


def _other_parameters(trained: Mapping[str, Any], here: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Parameters of the equation that the training data had otherwise, with both values; the grid is no such."""
    before, now = ([origin.get("pde", {}) for origin in origins(spec)] for spec in (trained, here))
    keys = sorted({key for pde in (*before, *now) for key in pde} - {"grid"})
    found = {key: [_distinct(key, pdes) for pdes in (before, now)] for key in keys}
    return {key: [was, is_now] for key, (was, is_now) in found.items() if was != is_now}


def _distinct(key: str, pdes: Sequence[Mapping[str, Any]]) -> Any:
    """The value of a parameter; of mixtures in whose parts it differs, all of them."""
    values: list[Any] = []
    for pde in pdes:
        if pde.get(key) not in values:
            values.append(pde.get(key))
    return values[0] if len(values) == 1 else values


def _ranked(tally: Tally) -> dict[str, int]:
    """Which samples have the least, the median and the largest relative L2 error."""
    errors = tally.values["relative_l2"].mean(axis=1)
    order = np.argsort(np.where(np.isnan(errors), np.inf, errors), kind="stable")
    return {"best": int(order[0]), "median": int(order[(len(order) - 1) // 2]), "worst": int(order[-1])}


def _spectra(tallies: Mapping[str, Tally], truth: Energy, operators: Mapping[str, Predictor]) -> dict[str, Any]:
    found: dict[str, Any] = {"truth": truth.mean.tolist()}
    for name in operators:
        energy, error = tallies[name].energy, tallies[name].error_energy
        assert energy is not None
        assert error is not None
        found[name] = {"prediction": energy.mean.tolist(), "error": error.mean.tolist()}
    return found


def _rollout(
    contenders: Sequence[Contender], tallies: Mapping[str, Tally], all_times: NDArray[np.floating], first: int
) -> dict[str, Any]:
    """Curves over time, channels averaged; and for how long predictions stay correlated with the truth."""
    last = float(all_times[contenders[0].frames[-1]])
    most = max(len(contender.frames) for contender in contenders)
    found: dict[str, Any] = {"threshold": CORRELATED, "first_time": float(all_times[first]), "last_time": last}
    for contender in contenders:
        times = all_times[list(contender.frames)]
        curves = {name: tallies[contender.name].curve(name) for name in CURVES}
        entry: dict[str, Any] = {"times": times.tolist()}
        for name, values in curves.items():
            each = values.mean(axis=2)  # (samples, frames)
            entry[name] = {"mean": each.mean(axis=0).tolist(), "median": np.median(each, axis=0).tolist()}
        if len(times) == most:  # a static operator, which predicts the last frame alone, has no curve
            lasting = correlation_time(curves["correlation"], [all_times[first], *times], CORRELATED)
            entry["correlation_time"] = summarise(lasting) | {"min": float(lasting.min())}
        found[contender.name] = entry
    return found


def _certify(predictor: Predictor, store: Store, count: int) -> dict[str, Any]:
    """Finish the first test samples by conjugate gradients, from the prediction and without it."""
    residuals, guided, unguided, certified = [], [], [], 0
    for index in range(min(count, store.sizes["test"])):
        sample = store.sample("test", index)
        done = certify(predictor, store.family, sample, CERTIFIED_RTOL)
        certified += done.converged
        residuals.append(done.relative_residual)
        with_it, without = done.iterations
        guided.append(with_it)
        unguided.append(without)
    return {
        "samples": len(residuals),
        "certified": certified,
        "rtol": CERTIFIED_RTOL,
        "worst_relative_residual": max(residuals),
        "mean_iterations_from_prediction": float(np.mean(guided)),
        "mean_iterations_from_zero": float(np.mean(unguided)),
    }


# ------------------------------------------------------------------------------------------------------- written down


def _errors_of_samples(tallies: Mapping[str, Tally], operators: Mapping[str, Predictor]) -> bytes:
    """Every metric of every test sample, channels averaged, as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    first = tallies[next(iter(operators))].values
    writer.writerow(["operator", "sample", *first])
    for name in operators:
        columns = [values.mean(axis=1) for values in tallies[name].values.values()]
        for sample, row in enumerate(zip(*columns, strict=True)):
            writer.writerow([name, sample, *(f"{value:.8g}" for value in row)])
    return text.getvalue().encode()


def _plain(value: Any) -> Any:
    """Numbers that are not finite as None: JSON has no name for them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
