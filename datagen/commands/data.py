"""``southwell-data``: look at a dataset, check it, or complete it.

southwell-data info PATH        what it is
southwell-data validate PATH    check every sample by an independent scheme; exit code 1 if anything is wrong
southwell-data merge PATH       complete a dataset whose shards several jobs wrote, in place
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from datagen.commands.cli import FAILED, REFUSED, check_configs, fail, handle_termination, said
from datagen.evolve.family import EvolvingFamily
from datagen.files import read_json
from datagen.generate import merge
from datagen.store import Store
from datagen.validate import validate

_COUNTS = ("iterations", "steps", "evaluations")


def _frames(store: Store) -> str:
    times = store.times
    return f"  frames      {len(times)}, from t = 0 to {times[-1]:g} in steps of {times[1]:g}"


def info(path: Path) -> str:
    """What a dataset is, for people."""
    store = Store(path)
    family, spec = store.family, store.spec
    sidecars = [read_json(path / shard.sidecar) for split in store.sizes for shard in store.shards(split)]
    seconds = sum(sidecar["seconds"]["total"] for sidecar in sidecars)
    size = sum((path / entry["file"]).stat().st_size for entry in store.manifest["shards"])
    solver = ", ".join(f"{k}={v}" for k, v in spec["solver"].items())
    if isinstance(family, EvolvingFamily):
        own = family.solver(spec["solver"]) is None
        solver = family.integrator if own else f"{family.integrator}, {solver}"
    lines = [
        f"{path}: {family.name}, {family.title}",
        f"  grid        {' x '.join(map(str, store.shape))}, {family.mesh.centring}-centred, "
        f"box {' x '.join(f'{length:g}' for length in family.mesh.lengths)}",
        *([_frames(store)] if store.family.evolves else []),
        f"  samples     {', '.join(f'{split} {count:,}' for split, count in store.sizes.items())}",
        f"  parameters  {', '.join(f'{k}={v}' for k, v in spec['pde'].items() if k not in ('name', 'grid'))}",
        f"  seed        {spec['seed']}",
        f"  solver      {solver}",
        f"  size        {size / 1e6:,.1f} MB in {len(store.manifest['shards'])} shards of {spec['dtype']}",
        f"  cost        {seconds:,.1f} core seconds, "
        f"{', '.join(f'{n:,} {name}' for name, n in store.manifest['totals'].items() if name in _COUNTS)}, "
        f"{store.manifest['failed_attempts']} failed draws replaced",
        f"  spec        sha256 {store.manifest['spec_sha256'][:16]}..., "
        f"Southwell {', '.join(store.manifest['code_version'])}",
        "  fields",
    ]
    for field in store.fields:
        values = store.read("train", field.name, 0, min(100, store.sizes["train"])).astype(np.float64)
        lines.append(
            f"    {field.name:<14} {field.role:<7} {field.units:<14} mean {values.mean():.4g}, std {values.std():.4g}, "
            f"range {values.min():.4g} to {values.max():.4g}  ({field.description})"
        )
    solvers = np.concatenate([store.record(split, "provenance/solver") for split in store.sizes])
    by = f" (by {', '.join(sorted(name.decode() for name in set(solvers)))})"
    for name, meaning in _record_meanings(store).items():
        values = np.concatenate([store.record(split, f"quality/{name}") for split in store.sizes])
        lines.append(f"  {meaning}: median {np.median(values):.2e}, worst {values.max():.2e}{by}")
    return "\n".join(lines)


def _record_meanings(store: Store) -> dict[str, str]:
    """The records of quality that are errors, and what to call them."""
    if not store.family.evolves:
        return {"relative_residual": "residuals   relative, of the float64 solutions"}
    drifts = [name for name in store.record_names("quality") if name.endswith("_drift")]
    return {name: f"conserved   relative drift of the mean of {name.removesuffix('_drift')}" for name in drifts}


def _path(word: str) -> Path:
    """``PATH``, or ``out=PATH`` as the other commands write it."""
    return Path(word.removeprefix("out=").removeprefix("path="))


def main(arguments: list[str] | None = None) -> None:
    """Console entry point."""
    check_configs()
    handle_termination()
    parser = argparse.ArgumentParser(prog="southwell-data", description="Look at a dataset, check it, or complete it.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("info", "print what a dataset is"),
        ("validate", "check every sample by an independent scheme, and solve a random subset again"),
        ("merge", "complete a dataset whose shards several jobs wrote, in place"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("path", type=_path, help="folder of the dataset (PATH or out=PATH)")
        if name == "validate":
            command.add_argument("--resolve", type=int, default=10, metavar="N", help="samples to solve again (10)")
            command.add_argument("--seed", type=int, help="choose the same samples to solve again every time")
    options = parser.parse_args(arguments)
    try:
        _dispatch(options)
    except ValueError as error:
        fail(str(error), REFUSED)
    except (OSError, RuntimeError) as error:
        fail(said(error), FAILED)


def _dispatch(options: Any) -> None:
    if options.command == "info":
        print(info(options.path))
    elif options.command == "merge":
        manifest = merge(options.path)
        print(f"{options.path} is complete: {len(manifest['shards'])} shards")
    else:
        report = validate(options.path, resolve=options.resolve, seed=options.seed)
        for note in report.notes:
            print(f"note: {note}")
        for problem in report.problems:
            print(f"WRONG: {problem}", file=sys.stderr)
        error = "residual" if not Store(options.path).evolves else "difference"
        print(
            f"{options.path}: {report.samples:,} samples checked, {report.resolved} solved again; largest {error} is "
            f"{report.worst:.2g} of what tolerance and rounding allow; "
            + ("no faults found" if report.sound else f"{len(report.problems)} FAULTS")
        )
        if not report.sound:
            raise SystemExit(FAILED)


if __name__ == "__main__":
    main()
