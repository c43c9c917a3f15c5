"""The words of ``southwell-data`` that write files: ``export``, ``import`` and ``show``; all take ``key=value``."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from datagen.files import write_atomically
from datagen.interchange import FORMATS, Wanted, export, import_file
from datagen.store import Store
from solvers.registry import near_names

REQUIRED = object()


def _whole(word: str) -> int:
    return int(word)


def _names(word: str) -> tuple[str, ...]:
    return tuple(word.split(","))


def _numbers(word: str) -> tuple[float, ...]:
    return tuple(float(part) for part in word.split(","))


# Per command and key: how a word is read, and what holds where it is not given.
KEYS: Mapping[str, Mapping[str, tuple[Callable[[str], Any], Any]]] = {
    "export": {"format": (str, REQUIRED), "out": (Path, REQUIRED), "split": (str, "train")},
    "import": {
        "format": (str, REQUIRED),
        "out": (Path, REQUIRED),
        "samples.train": (_whole, None),
        "samples.validation": (_whole, 0),
        "samples.test": (_whole, None),
        "test": (Path, None),
        "shard.size": (_whole, 100),
        "store.dtype": (str, None),
        "inputs": (_names, ()),
        "outputs": (_names, ()),
        "dimension": (_whole, None),
        "lengths": (_numbers, None),
        "centring": (str, None),
        "boundary": (_names, None),
    },
    "show": {
        "out": (Path, None),
        "split": (str, "train"),
        "samples": (_whole, 4),
        "first": (_whole, 0),
        "animation": (Path, None),
    },
}
FORMATS_HELP = "\n".join(f"  {name:<18}{module.TITLE}" for name, module in FORMATS.items())
KEYS_HELP = {
    "export": "format=NAME out=FILE [split=train]\n\nFormats:\n" + FORMATS_HELP,
    "import": """format=NAME out=FOLDER [...]

  samples.train= samples.validation= samples.test=
                         the file's first samples are for training (the rest by default), the next for validation
                         (0), the next for the test (0)
  test=FILE              a second file, whose samples are for the test
  inputs= outputs=       names, with commas: of the file's variables (npz, fno_mat), or for its channels
  dimension=             axes of the grid (neuraloperator, where it cannot be told)
  lengths=               of the box: one number, or one per axis
  centring=              cell, node or periodic-node
  boundary=              periodic, dirichlet, neumann, robin, wall, outflow, absorbing or unknown: one for all sides, or
                         one per axis
  shard.size=100  store.dtype=  samples a shard; float32 or float64 (what the file has)

Formats:
"""
    + FORMATS_HELP,
    "show": """[out=FILE.png] [split=train] [samples=4] [first=0] [animation=FILE.gif]

  a contact sheet: one row a sample, inputs then outputs; of evolutions also frames along the time, and with
  animation= all of them""",
}


def settings(command: str, words: Sequence[str]) -> dict[str, Any]:
    """Words ``key=value`` as values.

    Raises
    ------
    ValueError
        If a key is unknown, twice there or missing, or its value cannot be read.

    Examples
    --------
    >>> settings("export", ["format=npz", "out=x.npz"])["split"]
    'train'
    >>> settings("export", ["fromat=npz", "out=x.npz"])
    Traceback (most recent call last):
        ...
    ValueError: southwell-data export has no key 'fromat'. Did you mean 'format'? Known: format, out, split.
    """
    known = KEYS[command]
    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not value:
            raise ValueError(f"southwell-data {command}: words are key=value, got {word!r}")
        if key not in known:
            raise ValueError(f"southwell-data {command} has no key {key!r}. {near_names(key, list(known))}")
        if key in found:
            raise ValueError(f"southwell-data {command}: {key} is given twice")
        try:
            found[key] = known[key][0](value)
        except ValueError:
            raise ValueError(f"southwell-data {command}: {key}={value} is no number, nor numbers with commas") from None
    values = {key: found.get(key, default) for key, (_, default) in known.items()}
    missing = [key for key, value in values.items() if value is REQUIRED]
    if missing:
        formats = f" Formats: {', '.join(FORMATS)}." if "format" in missing else ""
        raise ValueError(f"southwell-data {command} needs {' and '.join(f'{key}=' for key in missing)}.{formats}")
    return values


def export_command(path: Path, words: Sequence[str]) -> None:
    """One split of a dataset to a file of another format."""
    chosen = settings("export", words)
    store = Store(path)
    out = export(store, chosen["out"], chosen["format"], chosen["split"])
    size = out.stat().st_size / 1e6
    print(f"{store.sizes[chosen['split']]:,} samples of {path} ({chosen['split']}) in {out}, {size:,.1f} MB")


def import_command(path: Path, words: Sequence[str]) -> None:
    """A file of another format to a dataset."""
    chosen = settings("import", words)
    wanted = Wanted(
        chosen["inputs"],
        chosen["outputs"],
        chosen["dimension"],
        chosen["lengths"],
        chosen["centring"],
        chosen["boundary"],
    )
    with tqdm(unit="sample", disable=None) as bar:
        spec = import_file(
            path,
            chosen["out"],
            chosen["format"],
            wanted,
            train=chosen["samples.train"],
            validation=chosen["samples.validation"],
            test=chosen["samples.test"],
            test_file=chosen["test"],
            shard_size=chosen["shard.size"],
            dtype=chosen["store.dtype"],
            on_shard=bar.update,
        )
    counts = ", ".join(f"{split} {count:,}" for split, count in spec.samples.items())
    print(f"{chosen['out']}: {counts}; fields {', '.join(f'{f.name} ({f.role})' for f in spec.family.fields)}")
    if not spec.samples["validation"]:
        print("note: no validation samples, which southwell-train needs: import again with samples.validation=N")


def show_command(path: Path, words: Sequence[str]) -> None:
    """Pictures of samples."""
    from datagen import plots  # matplotlib takes a second

    chosen = settings("show", words)
    store, split = Store(path), chosen["split"]
    out = chosen["out"] or Path(f"{path.resolve().name}-{split}.png")
    animation = chosen["animation"]
    for place, suffix in ((out, ".png"), (animation, ".gif")):
        if place is not None and place.suffix != suffix:
            raise ValueError(f"{place} must end in {suffix}")
        if place is not None and not place.resolve().parent.is_dir():
            raise ValueError(f"{place}: its folder does not exist")
    first = chosen["first"]
    sheet = plots.png(plots.contact_sheet(store, split, first, first + chosen["samples"]))
    frames = None if animation is None else plots.gif(store, split, first)  # both drawn before anything is written
    write_atomically(out, sheet)
    print(f"samples {first} to {first + chosen['samples'] - 1} of {split} in {out}")
    if frames is not None:
        write_atomically(animation, frames)
        print(f"sample {first} of {split} through time in {animation}")
