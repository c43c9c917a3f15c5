"""From a spec to a dataset: plan, shards, merge.

A shard is a pure function of the spec and its index. Whoever computes it, in whatever order and after however many
interruptions, gets the same bytes; so resuming is only a matter of looking which shards are whole.
"""

import errno
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from datagen.executors import chosen_executor
from datagen.files import json_bytes, read_json, remove_partials
from datagen.folder import failed_draws, merge, prepare_folder, shard_defect, shard_locks
from datagen.plan import planned
from datagen.shard import make_shard, require_few_failures, solve_sample
from datagen.store import Shard, Spec, estimated_bytes


@lru_cache(maxsize=1)
def _spec_of(text: bytes) -> Spec:
    return Spec.from_dict(json.loads(text))


def _task(arguments: tuple[bytes, int, str]) -> tuple[int, dict[str, Any]]:
    """What a worker runs: everything it needs in plain values."""
    text, index, folder = arguments
    spec = _spec_of(text)
    return index, make_shard(spec, spec.shards[index], Path(folder))


def check_share(shard_index: int | None, shard_count: int | None) -> None:
    """Refuse a job's number, or a number of jobs, that does not fit.

    Parameters
    ----------
    shard_index, shard_count : int or None
        Both or neither; ``0 <= shard_index < shard_count``.

    Raises
    ------
    ValueError
    """
    if (shard_index is None) != (shard_count is None):
        raise ValueError("shard.index and shard.count go together: this job's number, and how many jobs there are")
    for name, value, least in (("shard.index", shard_index, 0), ("shard.count", shard_count, 1)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    if shard_index is not None and shard_count is not None and shard_index >= shard_count:
        raise ValueError(f"shard.index must be from 0 to shard.count - 1 = {shard_count - 1}, got {shard_index}")


def generate(
    spec: Spec,
    folder: str | Path,
    *,
    executor: str = "processes",
    workers: int = 1,
    address: str | None = None,
    shard_index: int | None = None,
    shard_count: int | None = None,
    on_damage: Callable[[str], None] = lambda sentence: None,
    on_shard: Callable[[Shard, dict[str, Any]], None] = lambda shard, sidecar: None,
    on_found: Callable[[Shard, dict[str, Any]], None] = lambda shard, sidecar: None,
) -> Path:
    """Make a dataset, or go on with one: compute the shards that are missing or damaged, then merge.

    Parameters
    ----------
    spec : Spec
    folder : path
        The dataset.
    executor : str
        "serial", "processes" or "dask".
    workers : int
        Worker processes.
    address : str, optional
        Of a Dask scheduler, for "dask"; without it that starts a cluster of `workers` on this machine.
    shard_index, shard_count : int, optional
        Take only the shards ``shard_index, shard_index + shard_count, ...``; then `merge` is left to the caller, after
        the last job. Jobs may run side by side, on one machine or many.
    on_damage : callable
        Told of each damaged shard, in a sentence, before it is made anew.
    on_shard, on_found : callable
        Told of each shard, with its sidecar: `on_shard` when it is done, `on_found` if it was there already.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ValueError
        If the folder holds another spec, a shard has another writer, or an argument does not fit.
    OSError
        If the disk is full; no half-written shard counts as done.
    RuntimeError
        If a sample fails ten times, or more than 5 % of all draws fail (`require_few_failures`).
    """
    folder = Path(folder)
    check_share(shard_index, shard_count)
    execute = chosen_executor(executor, workers, address)
    _require_memory(spec)
    with threadpool_limits(limits=1):  # as the workers have: the same bits, so the same choice
        spec = planned(spec, folder)
    prepare_folder(spec, folder)
    mine = spec.shards if shard_count is None else spec.shards[shard_index::shard_count]
    pending, fresh, failures = [], {}, []
    for shard in mine:
        defect = shard_defect(spec, shard, folder)
        if defect is None:
            sidecar = read_json(folder / shard.sidecar)
            failures += failed_draws(sidecar)
            on_found(shard, sidecar)
            continue
        if defect != "missing":
            on_damage(f"shard {shard.index} is damaged and will be made again: {defect}")
        pending.append(shard)
    require_few_failures(spec, failures)
    if pending:
        _require_space(spec, pending, folder)
        with shard_locks(folder, pending):
            # Whoever held the locks before may have finished some meanwhile.
            pending = [shard for shard in pending if shard_defect(spec, shard, folder) is not None]
            for shard in pending:
                (folder / shard.sidecar).unlink(missing_ok=True)
            places = [folder / name for shard in pending for name in (shard.file, shard.sidecar)]
            remove_partials(places)
            text = json_bytes(spec.as_dict())
            tasks = [(text, shard.index, str(folder.absolute())) for shard in pending]
            outcomes = execute(_task, tasks, workers)
            try:
                for index, sidecar in outcomes:
                    fresh[index] = sidecar["bytes"]
                    on_shard(spec.shards[index], sidecar)
                    failures += failed_draws(sidecar)
                    require_few_failures(spec, failures)
            finally:
                outcomes.close()  # type: ignore[attr-defined]
                remove_partials(places)
    if shard_count is None:
        merge(folder, fresh)
    return folder


def _require_memory(spec: Spec) -> None:
    """Refuse, before anything is computed or written, shards that do not fit into this machine's memory."""
    if not hasattr(os, "sysconf"):
        return
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    rows = min(spec.shard_size, max(spec.samples.values()))
    # The fields of a shard, and two samples in double precision: the first, and the one that is made.
    needed = rows * spec.sample_bytes() + 2 * spec.sample_bytes() * (8 // np.dtype(spec.dtype).itemsize)
    if needed > total:
        family = spec.family
        grid = " x ".join(map(str, family.mesh.shape))
        frames = f" and pde.frames={len(family.times)}" if family.evolves else ""
        sample = f"a sample of pde.grid={grid}{frames} is {spec.sample_bytes() / 1e9:,.3g} GB"
        raise ValueError(
            f"a shard of {rows} samples takes {needed / 1e9:,.3g} GB of memory, and this machine has "
            f"{total / 1e9:,.3g} GB: {sample}. Choose a smaller one, or a smaller shard.size"
        )


def _require_space(spec: Spec, shards: list[Shard], folder: Path) -> None:
    samples = sum(shard.stop - shard.start for shard in shards)
    needed = samples * (spec.sample_bytes() + 200) + 24_000 * len(shards)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"{samples:,} samples need about {needed / 1e6:,.0f} MB, and the disk of {folder} has {free / 1e6:,.0f} MB "
            "free; nothing was computed",
        )


@dataclass(frozen=True)
class Estimate:
    """What a dataset would take.

    Attributes
    ----------
    samples, shards, bytes : int
    core_hours : float
        CPU time of drawing, solving and checking.
    measured : int
        Samples that were made and thrown away for it.
    """

    samples: int
    shards: int
    bytes: int
    core_hours: float
    measured: int

    def sentence(self, workers: int) -> str:
        """For people."""
        return (
            f"{self.samples:,} samples in {self.shards:,} shards, {self.bytes / 1e6:,.1f} MB, about "
            f"{self.core_hours:.3g} core hours, {self.core_hours / workers:.3g} hours with {workers} workers "
            f"(from {self.measured} samples made and thrown away)"
        )


def estimate(spec: Spec, measured: int = 5) -> Estimate:
    """Samples, bytes and hours of a spec, from a few training samples solved here and now; writes nothing.

    Parameters
    ----------
    spec : Spec
    measured : int
        Training samples to solve, at most.
    """
    _require_memory(spec)
    measured = min(measured, spec.samples["train"])
    with threadpool_limits(limits=1):  # before anything else: threads of BLAS that were busy once wait busily
        spec = planned(spec)
        solve_sample(spec, "train", 0)  # compiles and imports what the first solve compiles and imports
        began = time.process_time()
        for index in range(measured):
            solve_sample(spec, "train", index)
        seconds = (time.process_time() - began) / measured
    samples = sum(spec.samples.values())
    hours = samples * seconds / 3600
    return Estimate(samples, len(spec.shards), estimated_bytes(spec), hours, measured)
