"""``southwell-generate``: make a PDE dataset, or go on with one.

southwell-generate pde=darcy pde.grid=64 samples.train=1000 seed=7 out=data/darcy64
"""

import logging
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from datagen.commands.cli import run
from datagen.commands.own_families import offer_own_families
from datagen.draw import with_inputs
from datagen.executors import available_cores
from datagen.generate import estimate, generate
from datagen.store import Shard, Spec

log = logging.getLogger(__name__)
_LOG_SECONDS = 30.0


class _Progress:
    """A bar where a person watches; a log line every 30 s where none does."""

    def __init__(self, samples: int) -> None:
        self.bar = tqdm(total=samples, unit="sample", disable=None)
        self.done = self.failed = 0
        self.last = time.monotonic()

    def __call__(self, shard: Shard, sidecar: dict[str, Any]) -> None:
        self.done += shard.stop - shard.start
        self.failed += sum(len(failures) for failures in sidecar["failed_attempts"].values())
        self.bar.update(shard.stop - shard.start)
        if self.bar.disable and time.monotonic() - self.last > _LOG_SECONDS:
            self.last = time.monotonic()
            log.info("%s of %s samples", f"{self.done:,}", f"{self.bar.total:,}")


def generate_command(config: dict[str, Any]) -> None:
    """Plain configuration in, dataset out; see ``configs/generate.yaml`` for the keys."""
    spec = Spec(
        pde=config["pde"],
        seed=config["seed"],
        samples=config["samples"],
        shard_size=config["shard"]["size"],
        solver=config["solver"],
        dtype=config["store"]["dtype"],
    )
    if config["inputs"] is not None:
        spec = with_inputs(spec, str(config["inputs"]))
    folder = Path(str(config["out"]))
    workers = available_cores() if config["executor"]["workers"] is None else config["executor"]["workers"]
    if config["dry_run"]:
        print(estimate(spec).sentence(workers))
        return
    index, count = config["shard"]["index"], config["shard"]["count"]
    mine = spec.shards if count is None or index is None else spec.shards[index::count]
    progress = _Progress(sum(shard.stop - shard.start for shard in mine))
    started = time.perf_counter()
    try:
        generate(
            spec,
            folder,
            executor=config["executor"]["name"],
            workers=workers,
            shard_index=index,
            shard_count=count,
            on_damage=log.warning,
            on_shard=progress,
        )
    finally:
        progress.bar.close()
    seconds = time.perf_counter() - started
    failed = f", {progress.failed} failed draws replaced" if progress.failed else ""
    print(f"{progress.done:,} samples in {folder} ({len(mine)} shards, {seconds:.1f} s{failed})")
    if count is not None:
        print(f"job {index} of {count}: when all jobs are done, run: southwell-data merge out={folder}")


def main() -> None:
    """Console entry point."""
    offer_own_families()
    run(generate_command, "generate")


if __name__ == "__main__":
    main()
