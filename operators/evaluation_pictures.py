"""The pictures of an evaluation, drawn from its numbers and from the few samples that are shown."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from operators.contenders import Contender
from operators.plots import comparison, error_histogram, loss_curve, palette, per_cent, samples, save_figure, spectra
from operators.predict import Predictor
from operators.reading import Reader
from operators.rollout_plots import rollout_curves, trajectory
from operators.tally import Tally

Fields = NDArray[np.floating]


def draw_all(
    out: Path,
    content: Mapping[str, Any],
    operators: Mapping[str, Predictor],
    contenders: Sequence[Contender],
    tallies: Mapping[str, Tally],
    readers: Mapping[str, Reader],
) -> dict[str, str]:
    """Draw and write every picture.

    Parameters
    ----------
    out : Path
        The folder.
    content : mapping
        Of ``metrics.json``.
    operators, contenders, tallies, readers
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
            _ranked_samples(predictor, tallies[name], readers[name], ranked, errors[name]),
            f"samples{suffix}.png",
            f"{name}: best, median and worst sample",
        )
        if "rollout" in content and predictor.step is not None:
            save(
                _trajectory(name, predictor, tallies[name], readers[name], ranked["median"]),
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
        if predictor.history:
            save(loss_curve(predictor.history), f"loss{suffix}.png", f"{name}: training")
    return drawn


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in name).strip("-")


def _states(predictor: Predictor, tally: Tally, reader: Reader, inputs: Fields) -> Iterator[Fields]:
    """The predictions that were measured, frame by frame."""
    if predictor.step is None:
        yield predictor.predict(inputs)
    else:
        yield from predictor.frames(inputs, np.diff(reader.times[[predictor.first_frame, *tally.frames]]))


def _ranked_samples(
    predictor: Predictor, tally: Tally, reader: Reader, ranked: Mapping[str, int], errors: Fields
) -> Any:
    places = list(ranked.values())
    inputs = np.concatenate([reader.inputs(i, i + 1, predictor.first_frame) for i in places])
    truth = np.concatenate([reader.outputs(i, i + 1, tally.frames[-1]) for i in places])
    *_, prediction = _states(predictor, tally, reader, inputs)
    captions = [f"{word}: sample {i}\nrelative L2 {per_cent(errors[i])}" for word, i in ranked.items()]
    when = ("", "")
    if predictor.step is not None:
        first, last = (f"{reader.times[frame]:.4g}" for frame in (predictor.first_frame, tally.frames[-1]))
        when = (f", t = {first}", f", t = {last}")
    return samples(inputs, truth, prediction, predictor.inputs, predictor.outputs, captions, when)


def _trajectory(name: str, predictor: Predictor, tally: Tally, reader: Reader, index: int) -> Any:
    frames = [predictor.first_frame, *tally.frames]
    inputs = reader.inputs(index, index + 1, predictor.first_frame)
    states = [predictor.initial_state(inputs)[0, 0]]
    states += [state[0, 0] for state in _states(predictor, tally, reader, inputs)]
    truth = [reader.outputs(index, index + 1, frame)[0, 0] for frame in frames]
    title = f"{name}, test sample {index}"
    return trajectory(reader.times[frames], np.stack(truth), np.stack(states), predictor.outputs[0], title)
