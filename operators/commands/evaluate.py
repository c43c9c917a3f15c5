"""``southwell-evaluate``: measure a trained operator on a dataset's test split, beside naive predictors.

southwell-evaluate checkpoint=runs/tfno/best.pt dataset.path=data/darcy64
"""

from pathlib import Path
from typing import Any

from datagen.commands.cli import run


def evaluate_command(config: dict[str, Any]) -> None:
    """Plain configuration in, a report's folder out; see ``configs/evaluate.yaml`` for the keys."""
    # torch takes seconds to import, and --help or a misspelt key should not wait for it.
    from datagen.store import open_store
    from operators.evaluation import evaluate

    out = Path(config["out"]) if config["out"] else Path(config["checkpoint"]).parent / "evaluation"
    store = open_store(config["dataset"]["path"])
    content = evaluate(config["checkpoint"], store, out, config["device"], config["certify"])
    for name, result in content["results"].items():
        print(f"{name}: test relative L2 {100 * result['relative_l2']['mean']:.2f} %")
    if "certified" in content:
        certified = content["certified"]
        print(
            f"certified: {certified['samples']} solutions to relative residual "
            f"{certified['worst_relative_residual']:.1e} or less"
        )
    print(f"report: {out / 'report.md'}")


def main() -> None:
    """Console entry point."""
    run(evaluate_command, "evaluate")


if __name__ == "__main__":
    main()
