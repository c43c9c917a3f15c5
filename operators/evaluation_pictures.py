"""The pictures of an evaluation, drawn from its numbers and from the few samples that are shown."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datagen.store import Store
from operators.contenders import Contender
from operators.plots import comparison, error_histogram, loss_curve, palette, per_cent, samples, save_figure, spectra
from operators.predict import Predictor, read_inputs, read_outputs
from operators.rollout_plots import rollout_curves, trajectory
from operators.tally import Tally


def draw_all(
    out: Path,
    content: Mapping[str, Any],
    operators: Mapping[str, Predictor],
    contenders: Sequence[Contender],
    tallies: Mapping[str, Tally],
    store: Store,
) -> dict[str, str]:
    """Draw and write every picture.

    Parameters
    ----------
    out : Path
        The folder.
    content : mapping
        Of ``metrics.json``.
    operators, contenders, tallies, store
        As in `operators.evaluation.evaluate`.

    Returns
    -------
    dict
        File name -> what it shows, in the order of the report.
    """
    naive = [one.name for one in contenders if one.naive]
    colours = palette(list(operators), naive)
    errors = {n: tallies[n].values["relative_l2"].mean(axis=1) for n in (*operators, *naive)}
    drawn: dict[str, str] = {}

    def save(figure: Any, name: str, says: str) -> None:
        save_figure(figure, out / name)
        drawn[name] = says

    if len(operators) > 1:
        captions = {name: f"{p.parameter_count:,} parameters" for name, p in operators.items()}
        save(comparison(errors, captions, colours), "comparison.png", "errors side by side")
    for name, predictor in operators.items():
        suffix = "" if len(operators) == 1 else f"-{_file_name(name)}"
        ranked = content["operators"][name]["ranked_samples"]
        save(
            _ranked_samples(predictor, tallies[name], store, ranked, errors[name]),
            f"samples{suffix}.png",
            f"{name}: best, median and worst sample",
        )
        if "rollout" in content and predictor.step is not None:
            save(
                _trajectory(name, predictor, contenders, store, ranked["median"]),
                f"trajectory{suffix}.png",
                f"{name}: rollout of the median sample",
            )
    save(error_histogram(errors, colours), "errors.png", "errors of the samples")
    energies = content["spectra"]
    pairs = {n: (np.array(energies[n]["prediction"]), np.array(energies[n]["error"])) for n in operators}
    channels = next(iter(operators.values())).outputs
    save(spectra(np.array(energies["truth"]), pairs, colours, channels), "spectra.png", "energy spectra")
    if "rollout" in content:
        times = {c.name: np.array(content["rollout"][c.name]["times"]) for c in contenders}
        curves = {
            metric: {c.name: tallies[c.name].curve(metric).mean(axis=2) for c in contenders}
            for metric in ("relative_l2", "correlation")
        }
        threshold = content["rollout"]["threshold"]
        figure = rollout_curves(times, curves["relative_l2"], curves["correlation"], colours, threshold)
        save(figure, "rollout.png", "error and correlation over time")
    for name, predictor in operators.items():
        suffix = "" if len(operators) == 1 else f"-{_file_name(name)}"
        save(loss_curve(predictor.history), f"loss{suffix}.png", f"{name}: training")
    return drawn


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in name).strip("-")


def _final(predictor: Predictor, tally: Tally, store: Store, inputs: np.ndarray) -> np.ndarray:
    """The prediction that was measured: of operators in time the last frame of the rollout."""
    if predictor.step is None:
        return predictor.predict(inputs)
    times = store.times[[0, *tally.frames]]
    *_, last = predictor.frames(inputs, np.diff(times))
    return last


def _ranked_samples(
    predictor: Predictor, tally: Tally, store: Store, ranked: Mapping[str, int], errors: np.ndarray
) -> Any:
    inputs, truth = [], []
    for index in ranked.values():
        inputs.append(read_inputs(predictor, store, "test", index, index + 1)[0])
        truth.append(read_outputs(predictor, store, "test", index, index + 1, tally.frames[-1])[0])
    shown = np.stack(inputs)
    captions = [f"{word}: sample {index}\nrelative L2 {per_cent(errors[index])}" for word, index in ranked.items()]
    prediction = _final(predictor, tally, store, shown)
    return samples(shown, np.stack(truth), prediction, predictor.inputs, predictor.outputs, captions)


def _trajectory(
    name: str, predictor: Predictor, contenders: Sequence[Contender], store: Store, index: int
) -> Any:
    frames = next(c.frames for c in contenders if c.name == name)
    inputs = read_inputs(predictor, store, "test", index, index + 1)
    times = store.times[[0, *frames]]
    states = [predictor.initial_state(inputs)[0, 0]]
    states += [state[0, 0] for state in predictor.frames(inputs, np.diff(times))]
    truth = [read_outputs(predictor, store, "test", index, index + 1, frame)[0, 0] for frame in (0, *frames)]
    return trajectory(times, np.stack(truth), np.stack(states), predictor.outputs[0], f"{name}, test sample {index}")
