"""The report of an evaluation, as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from datagen.pdes.mixed import origins
from operators.breakeven import section
from operators.predict import Predictor
from operators.run_folder import flatten

RELATIVE = ("relative_l2", "relative_l1", "median_relative_l1", "relative_h1", "nrmse")
"""Metrics that are shown in per cent."""

COLUMNS = ("relative_h1", "vrmse", "mse")
"""Shown beside the relative L2 error where nothing was asked for; the others are in ``metrics.json``."""


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
    # A loss is no group of options: one with arguments is one word.
    whole = {key: value for key, value in config.items() if key == "loss" and isinstance(value, Mapping)}
    for key, value in flatten({k: v for k, v in config.items() if k not in whole}).items():
        words.append(f"{key.removesuffix('.name')}={_hydra(value)}")
    words += [f"'{key}={_hydra(value)}'" for key, value in whole.items()]
    return " \\\n  ".join(["southwell-train", *words])


def _hydra(value: Any) -> str:
    """A value as Hydra's command line reads it.

    Examples
    --------
    >>> _hydra({"name": "relative_l1_by_group", "groups": [[0], [1, 2]]})
    '{name:relative_l1_by_group,groups:[[0],[1,2]]}'
    """
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_hydra(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_hydra, value)) + "]"
    return "null" if value is None else str(value)


def report(
    content: Mapping[str, Any],
    operators: Mapping[str, Predictor],
    pictures: Mapping[str, str],
    columns: Sequence[str] | None = None,
) -> str:
    """The whole text.

    Parameters
    ----------
    content : mapping
        Of ``metrics.json``.
    operators : mapping of str to Predictor
    pictures : mapping of str to str
        File name -> what it shows.
    columns : sequence of str, optional
        Metrics shown beside the relative L2 error; `COLUMNS` if left out.
    """
    first = next(iter(operators.values()))
    problem = origins(first.spec)[0].get("pde", {}).get("name", content["dataset"])
    title = " and ".join(operators) if len(operators) < 3 else f"{len(operators)} operators"
    shown = [name for name in (COLUMNS if columns is None else columns) if name in content["metrics"]]
    shown = [name for name in shown if name != "relative_l2"]
    lines = [
        f"# {title} on {problem}",
        "",
        *_what(content, operators),
        "",
        *_table(content, shown),
        "",
        *_explained(content, shown),
        "",
        *_channels(content["results"], operators),
        *_rollout(content),
        *(line for name, predictor in operators.items() for line in _operator(name, predictor, content)),
    ]
    for name, says in pictures.items():
        lines += [f"![{says}]({name})", ""]
    lines += ["## How to reproduce", "", "```bash"]
    lines += [command_line(yaml.safe_load(predictor.config)) for predictor in operators.values()]
    found = [entry["checkpoint"] for entry in content["operators"].values()]
    checkpoint = found[0] if len(found) == 1 else f"[{','.join(found)}]"
    lines += [f"southwell-evaluate checkpoint={checkpoint} dataset.path={content['dataset']}", "```", ""]
    return "\n".join(lines)


def _grid(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _what(content: Mapping[str, Any], operators: Mapping[str, Predictor]) -> list[str]:
    trained = {_grid(entry["trained_grid"]) for entry in content["operators"].values()} - {_grid(content["grid"])}
    elsewhere = f" (trained on {' and '.join(sorted(trained))})" if trained else ""
    first = next(iter(operators.values()))
    names = [", ".join(channel.name for channel in part) for part in (first.inputs, first.outputs)]
    in_time = ""
    if "rollout" in content:
        first_time, last_time = content["rollout"]["first_time"], content["rollout"]["last_time"]
        in_time = f" From time {first_time:g} to {last_time:g}, of which the table is."
    return [
        f"Test split of `{content['dataset']}`: {content['samples'].get('test', 0)} samples on a "
        f"{_grid(content['grid'])} grid{elsewhere}. {' -> '.join(names)}.{in_time}"
    ]


def _number(value: float | None, relative: bool) -> str:
    if value is None:
        return "not finite"
    return f"{100 * value:.2f} %" if relative else f"{value:.3g}"


def _table(content: Mapping[str, Any], shown: Sequence[str]) -> list[str]:
    headings = ["predictor", "relative L2", "median", "worst", *map(_title, shown)]
    headings += ["parameters", "seconds to fit", "seconds to predict"]
    lines = ["| " + " | ".join(headings) + " |", "|---" + "|---:" * (len(headings) - 1) + "|"]
    for name, result in content["results"].items():
        cells = [name, *(_number(result["relative_l2"][word], True) for word in ("mean", "median", "max"))]
        cells += [_number(result[metric]["summary"], metric in RELATIVE) for metric in shown]
        operator, fit = content["operators"].get(name), result["fit_seconds"]
        cells.append(f"{operator['parameters']:,}" if operator else "-")
        cells += ["-" if fit is None else f"{fit:.1f}", f"{result['predict_seconds']:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _title(metric: str) -> str:
    """A metric's name as it is written in text.

    Examples
    --------
    >>> _title("relative_h1"), _title("vrmse"), _title("maximum_error")
    ('relative H1', 'VRMSE', 'maximum error')
    """
    words = metric.split("_")
    return " ".join(
        word.upper() if word in ("l1", "l2", "h1", "mse", "rmse", "nrmse", "vrmse") else word for word in words
    )


def _explained(content: Mapping[str, Any], shown: Sequence[str]) -> list[str]:
    """The formulas, and what the naive predictors are."""
    samples, names = content["samples"], list(content["results"])
    lines = ["In physical units, with p the prediction and y the truth:", ""]
    lines += [f"- {_title(name)}: {content['metrics'][name]}" for name in ("relative_l2", *shown)]
    lines.append("")
    if any(name.startswith("ridge") for name in names):
        lines.append(
            f"The naive predictors were fitted on this dataset's {samples.get('train', 0)} training samples, the ridge "
            f"penalty chosen on its {samples.get('validation', 0)} validation samples."
        )
    elif "training mean" in names:
        lines.append(f"The training mean is that of this dataset's {samples.get('train', 0)} samples at each time.")
    else:
        lines.append("Naive predictors are left out: this dataset has no training and validation data.")
    if "persistence" in names:
        lines.append("Persistence is the initial state at all times.")
    return lines


def _channels(results: Mapping[str, Mapping[str, Any]], operators: Mapping[str, Predictor]) -> list[str]:
    """Relative L2 errors by channel, where there are several."""
    outputs = [channel.name for channel in next(iter(operators.values())).outputs]
    if len(outputs) < 2:
        return []
    lines = [
        "Relative L2 error by channel:",
        "",
        "| predictor | " + " | ".join(outputs) + " |",
        "|---" + "|---:" * len(outputs) + "|",
    ]
    for name, result in results.items():
        cells = [_number(result["relative_l2"]["channels"][channel], True) for channel in outputs]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return [*lines, ""]


def _rollout(content: Mapping[str, Any]) -> list[str]:
    if "rollout" not in content:
        return []
    rollout = content["rollout"]
    lines = [
        "| predictor | frames | relative L2 at the first | halfway | at the last | mean over time | correlated until |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name in content["results"]:
        entry = rollout[name]
        curve = entry["relative_l2"]["median"]
        until, last = "-", entry["times"][-1]
        if "correlation_time" in entry:
            lasting = entry["correlation_time"]["median"]
            until = f"{lasting:.3g}" if lasting < last * (1 - 1e-9) else f"{last:.3g} (the end)"
        finite = [value for value in curve if value is not None]
        mean = sum(finite) / len(curve) if len(finite) == len(curve) else None
        cells = [_number(value, True) for value in (curve[0], curve[(len(curve) - 1) // 2], curve[-1], mean)]
        lines.append(f"| {name} | {len(curve)} | {' | '.join(cells)} | {until} |")
    return [
        *lines,
        "",
        "Medians over the samples. A rollout feeds predictions back; single steps each start from the truth; a direct "
        "prediction is one step from the first frame. Correlated until: the time at which Pearson's correlation with "
        f"the truth falls below {rollout['threshold']:g}.",
        "",
    ]


def _operator(name: str, predictor: Predictor, content: Mapping[str, Any]) -> list[str]:
    entry = content["operators"][name]
    who = "The model" if len(content["operators"]) == 1 else f"{name} ({entry['model']})"
    says = f"{who} has {entry['parameters']:,} parameters."
    if predictor.history:  # else it was stopped in its first epoch
        best = min(predictor.history, key=lambda row: row["validation_loss"])
        says += (
            f" The checkpoint is from epoch {len(predictor.history)}; the least validation loss until then, "
            f"{best['validation_loss']:.4g}, is that of epoch {int(best['epoch'])}."
        )
    if entry["other_parameters"]:
        changes = [f"{key} = {before} instead of {now}" for key, (before, now) in entry["other_parameters"].items()]
        says += f" It was trained on data with {', '.join(changes)}."
    lines = [says, ""]
    if "certified" in entry:
        c = entry["certified"]
        guided, unguided = c["mean_iterations_from_prediction"], c["mean_iterations_from_zero"]
        without = "from the slopes of the steps before" if "rollout" in content else "from zero"
        all_of_them = "" if c["certified"] == c["samples"] else f"; only {c['certified']} of them reached it"
        lines += [
            f"Certified: {c['samples']} test samples, finished by conjugate gradients from the prediction, satisfy "
            f"their equations to a relative residual of {c['worst_relative_residual']:.1e} or less (asked: "
            f"{c['rtol']:.0e}{all_of_them}). That took {guided:.1f} iterations on average, against {unguided:.1f} "
            f"{without}.",
            "",
        ]
    if "hybrid" in entry:
        lines += section(entry["hybrid"])
    return lines
