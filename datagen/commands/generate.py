"""``southwell-generate``: make a PDE dataset, or go on with one.

southwell-generate pde=darcy pde.grid=64 samples.train=1000 seed=7 out=data/darcy64
"""

import logging
import time
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from datagen.commands.cli import run
from datagen.commands.own_families import offer_own_families
from datagen.difficulty import at_level
from datagen.draw import with_inputs
from datagen.evolve.family import EvolvingFamily
from datagen.evolve.implicit import TOLERANCE
from datagen.evolve.implicit_family import ImplicitFamily
from datagen.executors import available_cores
from datagen.generate import check_share, estimate, generate
from datagen.shard import OF_A_SHARD, STAGES
from datagen.store import Shard, Spec

log = logging.getLogger(__name__)
_LOG_SECONDS = 30.0
UNTOUCHED_SOLVER = {"method": "auto", "rtol": 1e-6}  # configs/solver/auto.yaml


class _Progress:
    """A bar where a person watches; a log line every 30 s where none does; and what to say at the end."""

    def __init__(self, samples: int) -> None:
        # Shards come in bursts, so the rate is that of the whole run.
        self.bar = tqdm(total=samples, unit=" samples", disable=None, smoothing=0)
        self.total, self.made, self.found, self.bytes = samples, 0, 0, 0
        self.failures: Counter[str] = Counter()
        self.residuals: list[np.ndarray] = []
        self.seconds: Counter[str] = Counter()
        self.started = self.last = time.monotonic()

    def found_shard(self, shard: Shard, sidecar: dict[str, Any]) -> None:
        """One that an earlier run has made."""
        count = shard.stop - shard.start
        self.found += count
        if not self.bar.disable:
            self.bar.initial += count  # of which the rate takes no notice
        self.bar.update(count)
        self._note(sidecar)

    def made_shard(self, shard: Shard, sidecar: dict[str, Any]) -> None:
        """One that this run has made."""
        count = shard.stop - shard.start
        self.made += count
        self.bar.update(count)
        self._note(sidecar)
        if self.failures:
            self.bar.set_postfix(failed_draws=self.failures.total())
        if self.bar.disable and time.monotonic() - self.last > _LOG_SECONDS:
            self.last = time.monotonic()
            log.info(self.sentence(time.monotonic() - self.started))

    def sentence(self, seconds: float) -> str:
        """How far it is, how fast, and how long it will take yet."""
        done, rate = self.found + self.made, self.made / seconds
        left = timedelta(seconds=round((self.total - done) / rate)) if rate else "unknown time"
        failed = f", {self.failures.total():,} failed draws" if self.failures else ""
        return f"{done:,} of {self.total:,} samples, {rate:.3g} samples/s, {left} left{failed}"

    def _note(self, sidecar: dict[str, Any]) -> None:
        self.bytes += sidecar["bytes"]
        self.residuals.append(np.array(sidecar.get("relative_residuals", []), dtype=np.float32))
        self.seconds.update({stage: sidecar["seconds"].get(stage, 0.0) for stage in (*STAGES, *OF_A_SHARD)})
        for reasons in sidecar["failed_attempts"].values():
            self.failures.update(reason.split(":")[0] for reason in reasons)

    def table(self) -> str:
        """What the dataset (or this job's share of it) is, in a few lines."""
        done, failed = self.found + self.made, self.failures.total()
        why = ", ".join(f"{count:,} {reason}" for reason, count in self.failures.most_common())
        lines = [
            f"made          {self.made:,} now, {self.found:,} were there",
            f"failed draws  {failed:,} of {done + failed:,}" + (f", drawn anew: {why}" if failed else ""),
        ]
        residuals = np.concatenate(self.residuals) if self.residuals else np.empty(0)
        if residuals.size:
            median, most, worst = np.quantile(residuals, [0.5, 0.9, 1.0])
            lines.append(f"residuals     relative: median {median:.1e}, 90 % below {most:.1e}, worst {worst:.1e}")
        stages = ", ".join(f"{stage} {seconds:.3g}" for stage, seconds in self.seconds.items() if seconds)
        lines.append(f"core seconds  {stages}")
        lines.append(f"size          {self.bytes / 1e6:,.1f} MB, {self.bytes / max(done, 1) / 1e3:,.1f} kB a sample")
        return "\n".join(f"  {line}" for line in lines)


def _require_effect(spec: Spec, solver: dict[str, Any]) -> None:
    """Refuse keys of `solver` that were set and would change nothing.

    Raises
    ------
    ValueError
    """
    family, asked = spec.family, {key for key in solver if solver[key] != UNTOUCHED_SOLVER.get(key)}
    if not isinstance(family, EvolvingFamily) or not asked:
        return
    names = ", ".join(f"solver.{key}" for key in sorted(asked))
    if family.solver(solver) is None:
        own = [f"pde.{key}" for key in ("step", "courant") if key in spec.pde]
        knob = f"; its steps are set by {' and '.join(own)}" if own else ""
        raise ValueError(
            f"{names} would change nothing: pde={family.name} solves no linear systems ({family.integrator}){knob}"
        )
    if asked == {"rtol"} and isinstance(family, ImplicitFamily) and solver["rtol"] > TOLERANCE:
        raise ValueError(
            f"solver.rtol={solver['rtol']:g} would change nothing: the systems of the steps of pde={family.name} are "
            f"solved to {TOLERANCE:g}, since the errors of many steps add up; give a smaller one, or leave it out"
        )


def _refuse_both(pde: dict[str, Any], level: dict[str, str], words: Sequence[str]) -> None:
    """Refuse a parameter among the words of the command line that the level asked for sets too.

    Raises
    ------
    ValueError
    """
    given = {word.partition("=")[0].lstrip("+"): word for word in words}
    for axis, name in level.items():
        for key, value in pde["levels"][axis][name].items():
            word = given.get(f"pde.{key}")
            if word is not None:
                raise ValueError(f"{word} and pde.level.{axis}={name}, which sets it to {value}: leave one of them out")


def _words() -> Sequence[str]:
    """The words of the command line, where there is one."""
    from hydra.core.hydra_config import HydraConfig

    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def generate_command(config: dict[str, Any]) -> None:
    """Plain configuration in, dataset out; see ``configs/generate.yaml`` for the keys."""
    for group in ("pde", "samples", "shard", "store", "solver", "executor"):
        if not isinstance(config[group], dict):
            raise ValueError(f"{group} must hold keys and values, got {config[group]!r}")
    if config["out"] is None:
        raise ValueError("out must be given: out=FOLDER")
    if not isinstance(config["dry_run"], bool):
        raise ValueError(f"dry_run must be true or false, got {config['dry_run']!r}")
    index, count = config["shard"]["index"], config["shard"]["count"]
    check_share(index, count)
    pde, level = at_level(config["pde"])
    _refuse_both(config["pde"], level or {}, _words())
    spec = Spec(
        pde=pde,
        seed=config["seed"],
        samples=config["samples"],
        shard_size=config["shard"]["size"],
        solver=config["solver"],
        dtype=config["store"]["dtype"],
        level=level,
    )
    if config["inputs"] is not None:
        spec = with_inputs(spec, str(config["inputs"]))
    _require_effect(spec, config["solver"])
    folder = Path(str(config["out"]))
    workers = available_cores() if config["executor"]["workers"] is None else config["executor"]["workers"]
    if config["dry_run"]:
        print(estimate(spec).sentence(workers))
        return
    mine = spec.shards if count is None or index is None else spec.shards[index::count]
    progress = _Progress(sum(shard.stop - shard.start for shard in mine))
    started = time.perf_counter()
    try:
        generate(
            spec,
            folder,
            executor=config["executor"]["name"],
            workers=workers,
            address=config["executor"].get("address"),
            shard_index=index,
            shard_count=count,
            on_damage=log.warning,
            on_shard=progress.made_shard,
            on_found=progress.found_shard,
        )
    finally:
        progress.bar.close()
    seconds = time.perf_counter() - started
    rate = f", {progress.made / seconds:.3g} samples/s" if progress.made else ""
    print(f"{progress.found + progress.made:,} samples in {folder} ({len(mine)} shards, {seconds:.1f} s{rate})")
    print(progress.table())
    if count is not None:
        print(f"job {index} of {count}: when all jobs are done, run: southwell-data merge out={folder}")


def main() -> None:
    """Console entry point."""
    offer_own_families()
    run(generate_command, "generate", job_folders=True)


if __name__ == "__main__":
    main()
