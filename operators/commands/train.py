"""``southwell-train``: train an operator on a dataset, or go on with its training.

southwell-train dataset.path=data/darcy64 model=tfno model.rank=0.1 trainer.epochs=10 out=runs/tfno

On several GPUs or machines: ``torchrun --nproc-per-node 8 -m operators.commands.train`` and the same words. Every
process computes its share of ``trainer.batch_size``; `out` must be a folder that all machines see.
"""

import os
import signal
from typing import Any

from datagen.commands.cli import run
from operators.commands.own_options import offer_own_options


def train_command(config: dict[str, Any]) -> None:
    """Plain configuration in, a run's folder out; see ``configs/train.yaml`` for the keys."""
    # torch takes seconds to import, and --help or a misspelt key should not wait for it.
    from operators.mixture import open_datasets
    from operators.trainer import train

    result = train(config, open_datasets(config["dataset"]))
    if result.stopped == "SIGTERM":
        raise SystemExit(128 + signal.SIGTERM)
    if os.environ.get("RANK", "0") != "0":
        return
    if not result.history:
        print(f"{result.out}: no epoch was finished in trainer.max_minutes; best.pt is what there is after that time")
        return
    best = result.best
    print(
        f"{result.out}: best.pt is from epoch {int(best['epoch'])} of {len(result.history)}, "
        f"validation relative L2 {100 * best['validation_relative_l2']:.2f} %"
    )


def main() -> None:
    """Console entry point."""
    offer_own_options()
    run(train_command, "train", job_folders=True)


if __name__ == "__main__":
    main()
