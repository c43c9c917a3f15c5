"""The folder of a dataset: begun, shared among writers, found whole or not, and finished by `merge`.

The sidecars are the truth: a shard counts as done if its sidecar says so and its file has the sidecar's hash. So
resuming is only a matter of looking which shards are whole, and a manifest can be written by anyone at any time.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from datagen.files import is_locked, json_bytes, locked, read_json, sha256_of_file, write_atomically
from datagen.shard import require_few_failures
from datagen.store import FORMAT_VERSION, Shard, Spec

# What others read in sidecars, besides hash and status.
_SIDECAR = {"failed_attempts": dict, "totals": dict, "bytes": int, "code_version": str, "seconds": dict}


def shard_defect(spec: Spec, shard: Shard, folder: Path) -> str | None:
    """Why a shard is not whole, or None if it is: its sidecar decides, and its file must have the sidecar's hash.

    A missing shard is "missing"; anything else is a sentence.
    """
    path = folder / shard.sidecar
    if not path.exists():
        return "missing"
    try:
        sidecar = read_json(path)
    except ValueError as error:
        return str(error)
    if sidecar.get("status") != "complete":
        return f"{path} does not say that the shard is complete"
    lacking = sorted(key for key, kind in _SIDECAR.items() if not isinstance(sidecar.get(key), kind))
    if not lacking and not all(isinstance(reasons, list) for reasons in sidecar["failed_attempts"].values()):
        lacking = ["failed_attempts"]
    if lacking:
        return f"{path} is damaged: it does not say what it should of {', '.join(lacking)}"
    if sidecar.get("spec_sha256") != spec.digest:
        return f"{path} belongs to another spec"
    file = folder / shard.file
    if not file.exists():
        return f"{file} is gone though its sidecar is there"
    if sha256_of_file(file) != sidecar.get("sha256"):
        return f"{file} does not have the SHA-256 in its sidecar: it is corrupted"
    return None


@contextmanager
def shard_locks(folder: Path, shards: Iterable[Shard]) -> Iterator[None]:
    """Hold the locks of shards, so that jobs of one dataset may run side by side and none does another's work.

    Raises
    ------
    ValueError
        If another process holds one of them.
    """
    by_index = {shard.index: shard for shard in shards}
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / ".lock", by_index))
        except BlockingIOError as error:
            shard = by_index[error.args[1]]
            raise ValueError(
                f"shard {shard.index} ({shard.file}) of {folder} is being written by another process; wait for it, "
                "or give this job other shards with shard.index and shard.count"
            ) from None
        yield


def prepare_folder(spec: Spec, folder: Path) -> None:
    """Make the dataset's folder and write its spec, or check that the spec there is the same one.

    Another spec gives way if nothing was made of it and nobody is at it: a first try with parameters that do not work
    must not stand in the way of the second.

    Raises
    ------
    ValueError
        If the folder holds something else, with the keys that differ.
    """
    path = folder / "spec.json"
    if path.exists():
        found = read_json(path)
        wanted = json.loads(json_bytes(spec.as_dict()))
        if found != wanted and _nothing_made(folder) and not is_locked(folder / ".lock"):
            write_atomically(path, json_bytes(wanted))
        elif found != wanted:
            asked = [words for words in _differences(found, wanted) if not words.startswith("solver.plan ")]
            differing = ", ".join(asked or _differences(found, wanted))  # the plan follows from what was asked for
            raise ValueError(
                f"{folder} holds a dataset of another spec ({differing}). Choose another out=, or delete the folder."
            )
        return
    if folder.exists() and (not folder.is_dir() or any(p.name != ".lock" for p in folder.iterdir())):
        raise ValueError(f"out={folder} exists and is not a Southwell dataset; choose another place")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json_bytes(spec.as_dict()))


def _nothing_made(folder: Path) -> bool:
    """Whether a dataset's folder holds its spec alone."""
    return all(path.is_dir() or path.name in ("spec.json", ".lock") for path in folder.rglob("*"))


def _differences(found: Any, wanted: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted(found.keys() | wanted.keys()):
            if found.get(key) != wanted.get(key):
                yield from _differences(found.get(key), wanted.get(key), f"{prefix}{key}.")
    else:
        yield f"{prefix[:-1]} is {found!r} there and {wanted!r} here"


def failed_draws(sidecar: Mapping[str, Any]) -> list[str]:
    """Reasons of the failed draws of a shard."""
    return [reason for failures in sidecar["failed_attempts"].values() for reason in failures]


def merge(folder: str | Path, fresh: Mapping[int, int] | None = None) -> dict[str, Any]:
    """Write ``manifest.json`` of a dataset whose shards are all whole, in place; returns the manifest.

    Parameters
    ----------
    folder : path
        The dataset.
    fresh : dict, optional
        Bytes of shards, by index, that the caller has just had written: they need not be read and hashed once more.

    Raises
    ------
    ValueError
        If there is no dataset, or shards are missing or damaged (they are named).
    RuntimeError
        If more than 5 % of all draws failed (`require_few_failures`).
    """
    folder = Path(folder)
    if not (folder / "spec.json").exists():
        raise ValueError(f"{folder} is not a Southwell dataset: it has no spec.json")
    spec = Spec.from_dict(read_json(folder / "spec.json"))
    known = fresh or {}

    def defect_of(shard: Shard) -> str | None:
        file = folder / shard.file
        as_written = shard.index in known and file.exists() and file.stat().st_size == known[shard.index]
        return None if as_written else shard_defect(spec, shard, folder)

    defects = {shard: defect_of(shard) for shard in spec.shards}
    broken = {shard: defect for shard, defect in defects.items() if defect is not None}
    if broken:
        (folder / "manifest.json").unlink(missing_ok=True)
        names = "; ".join(
            f"shard {shard.index}{'' if defect == 'missing' else f' ({defect})'}"
            for shard, defect in list(broken.items())[:20]
        )
        raise ValueError(
            f"{folder} is not complete: {len(broken)} of {len(spec.shards)} shards are missing or damaged ({names}"
            f"{', ...' if len(broken) > 20 else ''}). Repeat the command that makes them, then merge."
        )
    # Of each sidecar what the manifest needs: there may be ten thousand, with numbers for every sample.
    kept = ("code_version", "totals", "sha256", "failed_attempts")
    read = (read_json(folder / shard.sidecar) for shard in spec.shards)
    sidecars = [{key: sidecar[key] for key in kept} for sidecar in read]
    require_few_failures(spec, [reason for sidecar in sidecars for reason in failed_draws(sidecar)])
    manifest = {
        "format_version": FORMAT_VERSION,
        "spec_sha256": spec.digest,
        "code_version": sorted({sidecar["code_version"] for sidecar in sidecars}),
        "totals": {name: sum(s["totals"][name] for s in sidecars) for name in sidecars[0]["totals"]},
        "failed_attempts": sum(len(failed_draws(sidecar)) for sidecar in sidecars),
        "shards": [
            {
                "file": shard.file,
                "split": shard.split,
                "samples": [shard.start, shard.stop],
                "sha256": sidecar["sha256"],
            }
            for shard, sidecar in zip(spec.shards, sidecars, strict=True)
        ],
    }
    content = json_bytes(manifest)
    path = folder / "manifest.json"
    if not path.exists() or path.read_bytes() != content:
        write_atomically(path, content)
    return manifest
