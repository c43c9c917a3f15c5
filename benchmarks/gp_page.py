"""The figures of docs/gp.md, from the results of the four benchmarks that it names.

    python -m benchmarks.gp_page

What stands between ``<!-- name -->`` and ``<!-- end -->`` is written anew; a result that is not there leaves it alone.
"""

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.gp import table
from benchmarks.harness import RESULTS

PAGE = Path(__file__).parents[1] / "docs" / "gp.md"


def fusion(found: dict[str, Any]) -> str:
    """The plate, in a sentence."""
    return (
        f"Root mean square error over the plate: {found['rmse_readings_alone']:.3f} from the readings alone under the "
        f"same prior, {found['rmse_with_equation']:.3f} with the equation, where the standard deviation is "
        f"{found['mean_std']:.3f} on average."
    )


def coefficient(found: dict[str, Any]) -> str:
    """The wave, in a sentence."""
    return (
        f"Found: c = {found['value']:.3f} with a standard deviation of {found['std']:.3f}, from a first guess of "
        f"{found['first_guess']}; the truth is {found['truth']}. The wave itself is known to {found['rmse']:.3f} (root "
        f"mean square), a good part of a reading's noise of {found['noise']} less."
    )


def calibration(found: dict[str, Any]) -> str:
    """Coverage, a row a case."""
    lines = ["| case | draws | 95 % band of u holds | 95 % interval of the coefficient holds |", "|---|---|---|---|"]
    for name, case in found.items():
        inside = case.get("coverage_of_95_of_the_coefficient")
        last = "" if inside is None else f"{100 * inside:.0f} %"
        lines.append(f"| {name} | {case['draws']} | {100 * case['coverage_of_95']:.1f} % | {last} |")
    return "\n".join(lines)


def adam(found: dict[str, Any]) -> str:
    """The published algorithm, a row a run."""
    lines = [
        "| row | steps | smallest error of the checkpoints | error of the last | residual of the last | CPU s "
        "| authors' smallest | authors' s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, run in found.items():
        lines.append(
            f"| {name} | {run['checkpoints'][-1]['step']:,} of {run['iterations']:,} | {run['smallest_error']:.1e} | "
            f"{run['last_error']:.1e} | {run['last_residual']:.1e} | {run['cpu_seconds']:.0f} | "
            f"{run['authors_smallest_error']:.1e} | {run['authors_seconds']} |"
        )
    return "\n".join(lines)


def residual(found: dict[str, Any]) -> str:
    """Rank correlations, a row a problem."""
    lines = ["| problem | rank correlation of residual and error, nine bands |", "|---|---|"]
    return "\n".join(lines + [f"| {name} | {one['spearman']:.2f} |" for name, one in found.items()])


def main() -> None:
    """Write the page."""
    parts: dict[str, str] = {}

    def read(name: str) -> dict[str, Any]:
        path = RESULTS / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else {}

    examples = read("gp_examples")
    for name, make in (("fusion", fusion), ("coefficient", coefficient), ("calibration", calibration)):
        if name in examples:
            parts[name] = make(examples[name])
    if results := read("gp"):
        parts["results"] = table(results)
    if runs := read("gp_adam"):
        parts["adam"] = adam(runs)
    if judged := read("gp_residual"):
        parts["residual"] = residual(judged)
    text = PAGE.read_text()
    for name, part in parts.items():
        block = re.compile(rf"<!-- {name} -->.*?<!-- end -->", flags=re.S)
        text = block.sub(lambda _, name=name, part=part: f"<!-- {name} -->\n{part}\n<!-- end -->", text)
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
