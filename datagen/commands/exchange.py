"""The words of ``southwell-data`` that write: ``export``, ``import``, ``mix``, ``show``; all take ``key=value``."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from datagen.files import write_atomically
from datagen.interchange import FORMATS, Wanted, export, import_file
from datagen.mix import UNITS, by_budget, by_fraction, check_fit, costs, ladder, mix
from datagen.store import Store
from solvers.registry import near_names

REQUIRED = object()


def _whole(word: str) -> int:
    return int(word)


def _names(word: str) -> tuple[str, ...]:
    return tuple(word.split(","))


def _paths(word: str) -> tuple[Path, ...]:
    return tuple(map(Path, word.split(",")))


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
    "mix": {
        "with": (_paths, ()),
        "out": (Path, REQUIRED),
        "samples": (_whole, None),
        "alpha": (float, None),
        "base": (_whole, None),
        "extra": (_whole, None),
        "budget": (float, None),
        "shares": (_numbers, None),
        "unit": (str, None),
        "shard.size": (_whole, None),
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
    "mix": """with=EASIER[,...] out=FOLDER [...]

PATH is the hard dataset: its validation and test splits are the mixture's. Of training splits the first samples are
copied.

  samples=N alpha=A      N samples, of which the share A is hard; nested over A
  base=B extra=N         B hard samples and N easier ones
  budget=C shares=S,...  what a budget buys: shares of it for the hard dataset and for those of with=, 1 together
  unit=work              of the budget: counted work, or seconds, as measured when the datasets were made
  shard.size=            samples a shard (as in the hard dataset)""",
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


def mix_command(path: Path, words: Sequence[str]) -> None:
    """A hard dataset and easier ones to a mixture."""
    chosen = settings("mix", words)
    if not chosen["with"]:
        raise ValueError("southwell-data mix needs with=, the dataset of easier samples, or several with commas")
    stores = [Store(place) for place in (path, *chosen["with"])]
    check_fit(stores)
    counts = _counts(chosen, stores)
    with tqdm(unit="sample", disable=None) as bar:
        spec = mix(stores, counts, chosen["out"], shard_size=chosen["shard.size"], on_shard=bar.update)
    sizes = ", ".join(f"{split} {count:,}" for split, count in spec.samples.items())
    print(f"{chosen['out']}: {sizes}; validation and test are those of {path}")
    for store, count in zip(stores, counts, strict=True):
        print(f"  {count:,} training samples of {store.path}{_paid(store, count)}")
    seeds = [store.spec["seed"] for store in stores if store.family.made_by_solving]
    if len(set(seeds)) < len(seeds):
        print(
            "note: datasets of one seed: sample i of one is drawn from the same random numbers as sample i of another"
        )
    if not spec.samples["validation"]:
        print("note: no validation samples, which southwell-train needs: generate the hard dataset with some")


MIXTURES = {"fraction": ("samples", "alpha"), "ladder": ("base", "extra"), "budget": ("budget", "shares", "unit")}


def _counts(chosen: Mapping[str, Any], stores: Sequence[Store]) -> list[int]:
    """Training samples of each dataset, by the one kind of mixture that is asked for."""
    asked = [kind for kind, keys in MIXTURES.items() if any(chosen[key] is not None for key in keys)]
    kinds = "samples= and alpha=, base= and extra=, or budget= and shares="
    if len(asked) != 1:
        raise ValueError(f"southwell-data mix needs one of {kinds}; got {' and '.join(asked) or 'none of them'}")
    missing = [key for key in MIXTURES[asked[0]] if chosen[key] is None and key != "unit"]
    if missing:
        raise ValueError(f"southwell-data mix needs {' and '.join(f'{key}=' for key in missing)} too")
    if asked == ["budget"]:
        unit = chosen["unit"] or "work"
        return by_budget([costs(store, unit) for store in stores], chosen["budget"], chosen["shares"])
    if len(stores) > 2:
        raise ValueError(f"with= names {len(stores) - 1} datasets; more than one is for budget= and shares=")
    if asked == ["ladder"]:
        return ladder(chosen["base"], chosen["extra"])
    return by_fraction(chosen["samples"], chosen["alpha"])


def _paid(store: Store, count: int) -> str:
    """What the first samples of a dataset cost, as far as it says."""
    said = []
    for unit in UNITS:
        with suppress(ValueError):
            said.append(f"{costs(store, unit)[:count].sum():.4g} {unit}")
    return f", {' and '.join(said)}" if said else ""


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
