"""``southwell-data``: look at a dataset, check it, complete it, or exchange it with others.

southwell-data info PATH        what it is
southwell-data validate PATH    check every sample by an independent scheme; exit code 1 if anything is wrong
southwell-data merge PATH       complete a dataset whose shards several jobs wrote, in place
southwell-data show PATH        draw samples, and of evolutions an animation
southwell-data mix HARD with=EASIER samples=800 alpha=0.1 out=FOLDER
southwell-data export PATH format=pdebench out=FILE.hdf5 split=test
southwell-data import FILE format=fno_mat out=FOLDER samples.validation=100 samples.test=100
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from datagen.commands.cli import FAILED, REFUSED, check_configs, fail, handle_termination, said
from datagen.commands.exchange import KEYS_HELP, export_command, import_command, mix_command, show_command
from datagen.difficulty import label
from datagen.evolve.family import EvolvingFamily
from datagen.files import read_json
from datagen.folder import merge
from datagen.store import Store
from datagen.validate import validate

WRITERS = {"export": export_command, "import": import_command, "mix": mix_command, "show": show_command}
_COUNTS = ("iterations", "steps", "evaluations", "work")


def _frames(store: Store) -> str:
    times, steps = store.times, np.diff(store.times)
    even = f" in steps of {steps[0]:g}" if np.ptp(steps) < 1e-6 * times[-1] else ""
    return f"  frames      {len(times)}, from t = {times[0]:g} to {times[-1]:g}{even}"


def info(path: Path) -> str:
    """What a dataset is, for people."""
    store = Store(path)
    family, spec = store.family, store.spec
    size = sum((path / entry["file"]).stat().st_size for entry in store.manifest["shards"])
    lines = [
        f"{path}: {family.name}, {family.title}",
        f"  grid        {' x '.join(map(str, store.shape))}, {family.mesh.centring}-centred, "
        f"box {' x '.join(f'{length:g}' for length in family.mesh.lengths)}",
        *([_frames(store)] if store.family.evolves else []),
        f"  samples     {', '.join(f'{split} {count:,}' for split, count in store.sizes.items())}",
        *(_made(store) if family.made_by_solving else _read(store)),
        f"  size        {size / 1e6:,.1f} MB in {len(store.manifest['shards'])} shards of {spec['dtype']}",
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
    if not family.made_by_solving:
        return "\n".join(lines)
    solvers = np.concatenate([store.record(split, "provenance/solver") for split in store.sizes])
    by = f" (by {', '.join(sorted(name.decode() for name in set(solvers)))})"
    for name, meaning in _record_meanings(store).items():
        values = np.concatenate([store.record(split, f"quality/{name}") for split in store.sizes])
        lines.append(f"  {meaning}: median {np.median(values):.2e}, worst {values.max():.2e}{by}")
    return "\n".join(lines)


def _made(store: Store) -> list[str]:
    """How samples that were drawn and solved were made."""
    spec, totals, family = store.spec, store.manifest["totals"], store.family
    solver = ", ".join(f"{k}={v}" for k, v in spec["solver"].items())
    if isinstance(family, EvolvingFamily):
        own = family.solver(spec["solver"]) is None
        solver = family.integrator if own else f"{family.integrator}, {solver}"
    sidecars = [read_json(store.path / shard.sidecar) for split in store.sizes for shard in store.shards(split)]
    seconds = sum(sidecar["seconds"]["total"] for sidecar in sidecars)
    given = spec.get("inputs")
    return [
        *([f"  inputs      {', '.join(given['fields'])} from {given['file']}"] if given else []),
        f"  parameters  {', '.join(f'{k}={v}' for k, v in spec['pde'].items() if k not in ('name', 'grid'))}",
        *([f"  level       {label(spec['level']).replace(',', ', ')}"] if "level" in spec else []),
        f"  seed        {spec['seed']}",
        f"  solver      {solver}",
        f"  cost        {seconds:,.1f} core seconds, "
        f"{', '.join(f'{number:,} {name}' for name, number in totals.items() if name in _COUNTS)}, "
        f"{store.manifest['failed_attempts']} failed draws replaced",
    ]


def _read(store: Store) -> list[str]:
    """Where samples that were read come from."""
    pde = store.spec["pde"]
    if "parts" in pde:
        return [f"  part        {_part(part)}" for part in pde["parts"]]
    sides = ", ".join(name if name == other else f"{name} and {other}" for name, other in store.boundary)
    return [
        f"  file        {pde['source']}, {pde['layout']}, sha256 {pde['sha256'][:16]}...",
        f"  sides       {sides}",
    ]


def _part(part: Mapping[str, Any]) -> str:
    spec = part["spec"]
    level = f" ({label(spec['level'])})" if "level" in spec else ""
    return f"{part['samples']:,} training samples of {part['name']}, {spec['pde']['name']}{level}, seed {spec['seed']}"


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
    parser = argparse.ArgumentParser(prog="southwell-data", description=__doc__.split("\n")[0].split(": ")[1])
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
    for name, text in (
        ("show", "draw samples"),
        ("export", "write one split in another format"),
        ("import", "make a dataset of a file of another format"),
        ("mix", "make a dataset of a hard one and easier ones"),
    ):
        usage = f"southwell-data {name} {'FILE' if name == 'import' else 'PATH'} {KEYS_HELP[name]}"
        command = commands.add_parser(
            name, help=text, usage=usage, description=text, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        command.add_argument("path", type=_path, help="the file" if name == "import" else "folder of the dataset")
        command.add_argument("words", nargs="*", metavar="key=value", help="see above")
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
    elif options.command in WRITERS:
        WRITERS[options.command](options.path, options.words)
    else:
        samples = sum(Store(options.path).sizes.values())
        with tqdm(total=samples + min(options.resolve, samples), unit=" samples", disable=None) as bar:
            report = validate(options.path, resolve=options.resolve, seed=options.seed, on_sample=bar.update)
        for note in report.notes:
            print(f"note: {note}")
        for problem in report.problems:
            print(f"WRONG: {problem}", file=sys.stderr)
        error = "residual" if not Store(options.path).evolves else "difference"
        certified = (
            f", {report.resolved} solved again; largest {error} is {report.worst:.2g} of what tolerance and rounding "
            "allow"
        )
        if not (report.resolved or report.worst):
            certified = ""  # samples of a file
        print(
            f"{options.path}: {report.samples:,} samples checked{certified}; "
            + ("no faults found" if report.sound else f"{len(report.problems)} FAULTS")
        )
        if not report.sound:
            raise SystemExit(FAILED)


if __name__ == "__main__":
    main()
