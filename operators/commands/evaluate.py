"""``southwell-evaluate``: measure a trained operator on a dataset's test split, beside naive predictors.

southwell-evaluate checkpoint=runs/tfno/best.pt dataset.path=data/darcy64
"""

from pathlib import Path
from typing import Any

from datagen.commands.cli import run
from datagen.store import open_store
from operators.evaluation import evaluate


def evaluate_command(config: dict[str, Any]) -> None:
    """Plain configuration in, a report's folder out; see ``configs/evaluate.yaml`` for the keys."""
    out = Path(config["out"]) if config["out"] else Path(config["checkpoint"]).parent / "evaluation"
    content = evaluate(config["checkpoint"], open_store(config["dataset"]["path"]), out, config["device"])
    for name, result in content["results"].items():
        print(f"{name}: test relative L2 {100 * result['relative_l2']['mean']:.2f} %")
    print(f"report: {out / 'report.md'}")


def main() -> None:
    """Console entry point."""
    run(evaluate_command, "evaluate")


if __name__ == "__main__":
    main()
