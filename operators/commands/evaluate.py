"""``southwell-evaluate``: measure trained operators on a dataset's test split, beside naive predictors.

southwell-evaluate checkpoint=runs/tfno/best.pt dataset.path=data/darcy64
southwell-evaluate checkpoint=runs/tfno/best.pt dataset.path=data/darcy64 hybrid=true
southwell-evaluate checkpoint=[runs/fno/best.pt,runs/tfno/best.pt] dataset.path=data/darcy64 out=runs/comparison
"""

from pathlib import Path
from typing import Any

from datagen.commands.cli import run


def evaluate_command(config: dict[str, Any]) -> None:
    """Plain configuration in, a report's folder out; see ``configs/evaluate.yaml`` for the keys."""
    # torch takes seconds to import, and --help or a misspelt key should not wait for it.
    from datagen.store import open_store
    from operators.evaluation import default_folder, evaluate

    given = config["checkpoint"]
    checkpoints = [Path(path) for path in (given if isinstance(given, list) else [given])]
    out = Path(config["out"]) if config["out"] else default_folder(checkpoints)
    content = evaluate(
        checkpoints,
        open_store(config["dataset"]["path"]),
        out,
        config["device"],
        config["certify"],
        config["metrics"],
        config["lead_time"],
        config["hybrid"],
    )
    for name, result in content["results"].items():
        print(f"{name}: test relative L2 {100 * result['relative_l2']['mean']:.2f} %")
    for name, entry in content["operators"].items():
        whose = f"{name}: " if len(content["operators"]) > 1 else ""
        if "certified" in entry:
            done = entry["certified"]
            print(
                f"{whose}certified: {done['certified']} of {done['samples']} solutions, the worst relative residual is "
                f"{done['worst_relative_residual']:.1e}"
            )
        for row in entry.get("hybrid", {}).get("breakeven", []):
            pays = f"after {row['solves']:,} solves" if row["solves"] else "never"
            print(f"{whose}as a first guess at rtol {row['rtol']:.0e} it has paid {pays}")
    print(f"report: {out / 'report.md'}")


def main() -> None:
    """Console entry point."""
    run(evaluate_command, "evaluate")


if __name__ == "__main__":
    main()
