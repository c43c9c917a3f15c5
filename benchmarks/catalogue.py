"""The catalogue of PDE families, docs/pdes.md: their declarations, their docstrings, and a picture of each.

    python -m benchmarks.catalogue            # the page and all pictures: two minutes
    python -m benchmarks.catalogue kdv wave   # the page, and the pictures of these (names as in pde=...)
    python -m benchmarks.catalogue --text     # the page alone

Nothing is written twice. What a family takes is found by building it: the dimensions and sides that it does not refuse,
the densities that it says are conserved. Its equation, scheme, source, good values and what it is tested against are
the paragraphs of its docstring. Pictures show the first samples of one seed, as `southwell-generate` makes them.
"""

import argparse
import io
import re
from collections.abc import Iterator
from functools import cache
from inspect import getdoc
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_module
from matplotlib.figure import Figure
from numpy.typing import NDArray
from omegaconf import OmegaConf
from PIL import Image
from threadpoolctl import threadpool_limits

from datagen.difficulty import at_level
from datagen.discretise import boundary_names
from datagen.evolve import EvolvingFamily
from datagen.family import Family, build, load_families
from datagen.pdes import helmholtz, imported
from datagen.plots import colour_scale, draw, label
from datagen.shard import solve_sample
from datagen.store import Spec, estimated_bytes

ROOT = Path(__file__).parents[1]
PAGE, PICTURES, OPTIONS = ROOT / "docs" / "pdes.md", ROOT / "docs" / "images" / "pdes", ROOT / "configs" / "pde"
MARK = "<!-- from here on written by python -m benchmarks.catalogue -->\n"
SEED = 1931
SOLVER = {"method": "auto", "rtol": 1e-6}
SIDES = dict.fromkeys((*imported.SIDE_NAMES, *helmholtz.CONDITIONS))  # all that some family or other knows
SIDE_OPTIONS = ("sides", "condition")
WHERE = {"cell": "cells", "node": "nodes, both ends among them", "periodic-node": "points"}
CELLS = 32  # per axis, of the families that are built to see what they take: enough for the default wavenumber
MOST_BYTES = 50e6  # of a small dataset
FRAMES = 11  # of a small dataset
PICTURE_BYTES = 60_000


# -- What there is ----------------------------------------------------------------------------------------------------


@cache
def written(name: str) -> dict[str, Any]:
    """What the file of ``pde=name`` says."""
    with initialize_config_module("configs", version_base="1.3"):
        values = OmegaConf.to_container(compose("generate", [f"pde={name}", "out=x"]).pde)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def option(name: str) -> dict[str, Any]:
    """What ``pde=name`` stands for: the registry name of a family, and its arguments."""
    return at_level(written(name))[0]


def families() -> list[str]:
    """Southwell's own families that are made by solving: steady ones, then by who integrates them."""
    registry = load_families()
    own = [name for name in registry if registry[name].__module__.startswith("datagen.") and name in options()]
    return sorted((name for name in own if registry[name].made_by_solving), key=lambda name: (_kind(name), name))


def options() -> list[str]:
    """Names that ``pde=`` takes."""
    return sorted(path.stem for path in OPTIONS.glob("*.yaml"))


def variants(family: str) -> list[str]:
    """Options that are this family, its own first."""
    return [family, *(name for name in options() if name != family and option(name)["name"] == family)]


# -- What is declared -------------------------------------------------------------------------------------------------


def _kind(name: str) -> tuple[int, str]:
    family = load_families()[name]
    return (1, family.integrator) if issubclass(family, EvolvingFamily) else (0, "steady")


def accepted(arguments: dict[str, Any], **changes: Any) -> Family | None:
    """The family with few cells and other arguments; None if it refuses them."""
    small = {"grid": CELLS} if isinstance(arguments["grid"], int) else {}
    try:
        return build(**{**arguments, **small, **changes})
    except ValueError:
        return None


def dimensions(name: str) -> list[int]:
    """In which the family exists, in any of its variants."""
    found = set()
    for variant in map(option, variants(name)):
        tries = [{"dimension": d} for d in (1, 2, 3)] if "dimension" in variant else [{}]
        found |= {family.mesh.dimension for family in (accepted(variant, **one) for one in tries) if family}
    return sorted(found)


def with_sides(name: str) -> dict[str, Family]:
    """The family with each condition that its sides may have; one family for all if they cannot be chosen."""
    default = option(name)
    for key in SIDE_OPTIONS:
        if key in default:
            return {side: family for side in SIDES if (family := accepted(default, **{key: side})) is not None}
    family = accepted(default)
    assert family is not None
    return {", ".join(dict.fromkeys(side for pair in boundary_names(family.boundary) for side in pair)): family}


def conserved(family: Family) -> list[str]:
    """Names of what is conserved; "flux" if a steady family records what it lost of it with every sample."""
    if not isinstance(family, EvolvingFamily):
        solved = solve_sample(Spec(family.parameters(), SEED, _samples(1), 1, SOLVER), "train", 0)
        return ["flux"] if "conservation_error" in solved.quality else []
    sample = family.sample(np.random.default_rng(SEED))
    return list(family.conserved(family.initial(sample)[None], sample))


def row(name: str) -> str:
    """The declarations of a family as a row of the table."""
    by_sides = with_sides(name)
    kept: dict[str, list[str]] = {}
    for side, family in by_sides.items():
        if quantities := conserved(family):
            kept.setdefault(", ".join(quantities), []).append(side)
    each = len(by_sides) > 1 and list(kept.values()) != [list(by_sides)]
    keeps = "; ".join(f"{what} ({', '.join(sides)})" if each else what for what, sides in kept.items())
    evolves, who = _kind(name)
    columns = (
        f"[{name}](#{name})",
        f"in time, {who}" if evolves else who,
        ", ".join(map(str, dimensions(name))),
        ", ".join(by_sides),
        keeps,
        " ".join(_truth(name).removeprefix("Truth: ").split()).rstrip(".").replace("|", "\\|"),
    )
    return f"| {' | '.join(columns)} |"


# -- The page ---------------------------------------------------------------------------------------------------------


def docstring(name: str) -> dict[str, str]:
    """Sections of a family's docstring as Markdown, by title; "" is what stands before the first."""
    text = re.sub(r"``(.+?)``", r"`\1`", getdoc(load_families()[name]) or "", flags=re.S)
    first, *rest = re.split(r"^(\w+)\n-{3,}\n", text, flags=re.M)
    return {"": first.strip(), **{title: body.strip() for title, body in zip(rest[::2], rest[1::2], strict=True)}}


def _truth(name: str) -> str:
    found = re.search(r"^Truth:.*?(?=\n\n|\Z)", docstring(name)["Notes"], flags=re.M | re.S)
    assert found is not None, f"{name}: the docstring's Notes do not say what it is tested against (Truth: ...)"
    return found.group()


def command(name: str) -> list[str]:
    """Words of ``southwell-generate`` for a dataset of at most `MOST_BYTES`."""
    frames = {"frames": FRAMES} if "frames" in option(name) else {}
    for train in (100, 10):
        samples = _samples(train, max(train // 10, 1))
        if estimated_bytes(Spec({**option(name), **frames}, 0, samples, 100, SOLVER)) <= MOST_BYTES:
            break
    settings = {f"pde.{key}": value for key, value in frames.items()} | {f"samples.{k}": n for k, n in samples.items()}
    return [f"pde={name}", *(f"{key}={value}" for key, value in settings.items()), f"out=data/{name}"]


def section(name: str) -> str:
    """A family: what it is, its picture, its docstring, how to make data, and its variants."""
    family, doc = build(**option(name)), docstring(name)
    fields = "; ".join(
        f"{role}s {', '.join(f'`{f.name}` ({_said(f)})' for f in family.role(role))}" for role in ("input", "output")
    )
    size = " x ".join(map(str, family.mesh.shape))
    when = f", {len(family.times)} frames from t = 0 to {family.times[-1]:g}" if family.evolves else ""
    notes = doc["Notes"].replace(_truth(name), "").strip()
    parts = [
        f"## {name}",
        f"**{family.title[0].upper()}{family.title[1:]}**",
        _shown(name),
        doc[""],
        re.sub(r"\n{3,}", "\n\n", notes),
        f"By default: {fields}; a grid of {size} {WHERE[family.mesh.centring]}{when}.",
        f"```sh\nsouthwell-generate {' '.join(command(name))}\n```",
        *levels(name),
    ]
    for variant in variants(name)[1:]:
        says = (OPTIONS / f"{variant}.yaml").read_text().splitlines()[0].removeprefix("#").strip()
        parts += [f"`pde={variant}`: {says}", _shown(variant)]
    return "\n\n".join(parts)


def levels(name: str) -> Iterator[str]:
    """The levels of difficulty that a family declares, one axis a line."""
    declared = written(name).get("levels", {})
    if declared:
        axes = "; ".join(_axis(axis, names) for axis, names in declared.items())
        yield f"Levels of difficulty ([how they are chosen and mixed](difficulty.md)): {axes}."


def page() -> str:
    """All that is written by this script: the table and the sections."""
    names = families()
    head = (
        "| family | kind | dimensions | sides | conserved | tested against |",
        "|---|---|---|---|---|---|",
    )
    table = "\n".join((*head, *map(row, names)))
    return "\n\n".join((table, *map(section, names))) + "\n"


def _axis(axis: str, names: dict[str, dict[str, Any]]) -> str:
    values = {name: ", ".join(f"{key} = {value}" for key, value in sets.items()) for name, sets in names.items()}
    return f"`pde.level.{axis}=` {', '.join(f'{name} ({said})' for name, said in values.items())}"


def _said(field: Any) -> str:
    units = "" if field.units == "dimensionless" else f", {field.units}"
    return f"{field.description}{units}"


def _shown(name: str) -> str:
    return f"![{name}](images/pdes/{name}.png)"


def _samples(train: int, others: int = 0) -> dict[str, int]:
    return {"train": train, "validation": others, "test": others}


# -- Pictures ---------------------------------------------------------------------------------------------------------

Panel = tuple[str, NDArray[Any], tuple[float, float]]  # title, values, colour scale


def panels(spec: Spec) -> Iterator[Panel]:
    """What there is to see of a family on a plane: fields of a sample, or of two; or a field as time goes on."""
    family = spec.family
    outputs, inputs = family.role("output"), family.role("input")
    if not isinstance(family, EvolvingFamily):
        for index in range(1 if len(family.fields) > 2 else 2):
            solved = solve_sample(spec, "train", index)
            for field in (*inputs, *outputs):
                values = solved.sample.fields.get(field.name, solved.solution.get(field.name))
                yield label(field), values, colour_scale([values])
        return
    solved, shown = solve_sample(spec, "train", 0), outputs[0]
    frames = solved.solution[shown.name][1:]
    scale = colour_scale([frames])
    given = [f for f in inputs if not f.name.startswith("initial_")]
    start = [f for f in inputs if f.name.startswith("initial_")][:1]
    for field in (*given, *start):
        values = solved.sample.fields[field.name]
        yield label(field), values, colour_scale([values])
    for time, values in zip(family.times[1:], frames, strict=True):
        yield f"{label(shown)}, t = {time:.3g}", values, scale


def picture(name: str) -> bytes:
    """The PNG of ``pde=name``, at seed `SEED`; evolutions in one dimension as images over space and time."""
    pde = option(name)
    line = build(**pde).mesh.dimension == 1
    if "frames" in pde:
        pde = {**pde, "frames": 129 if line else 4}
    spec = Spec(pde, SEED, _samples(3), 3, SOLVER)
    if line and spec.family.evolves:
        return _space_time(spec)
    shown = list(panels(spec))
    width, height = spec.family.mesh.lengths[:2]
    figure = Figure(figsize=(1.75 * len(shown), 0.55 + 1.6 * min(height / width, 1.4)), layout="constrained")
    for axes, (title, values, scale) in zip(figure.subplots(1, len(shown)), shown, strict=True):
        draw(axes, spec.family.mesh, values, scale)
        axes.set_title(title, fontsize=7)
        axes.set_xlabel(f"{np.min(values):.3g} to {np.max(values):.3g}", fontsize=7)
    return _png(figure)


def _space_time(spec: Spec) -> bytes:
    """The first output of three samples, x to the right and t upwards."""
    family = spec.family
    field = family.role("output")[0]
    movies = [solve_sample(spec, "train", index).solution[field.name] for index in range(3)]
    low, high = colour_scale(movies)
    figure = Figure(figsize=(7.0, 2.3), layout="constrained")
    places = figure.subplots(1, 3, sharey=True)
    for axes, movie in zip(places, movies, strict=True):
        image = axes.imshow(
            movie,
            origin="lower",
            extent=(0, family.mesh.lengths[0], 0, family.times[-1]),
            aspect="auto",
            vmin=low,
            vmax=high,
            cmap="RdBu_r" if low == -high else "viridis",
        )
        axes.set_xlabel("x", fontsize=7)
        axes.tick_params(labelsize=6)
    places[0].set_ylabel("t", fontsize=7)
    bar = figure.colorbar(image, ax=places, shrink=0.9)
    bar.ax.tick_params(labelsize=6)
    bar.set_label(label(field), fontsize=7)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    """A file of at most `PICTURE_BYTES`: with as many colours as that allows."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=100)
    image = Image.open(drawn).convert("RGB")
    for colours in (256, 128, 64, 32):
        reduced = io.BytesIO()
        image.quantize(colours, Image.Quantize.MAXCOVERAGE).save(reduced, "PNG", optimize=True)
        if reduced.tell() <= PICTURE_BYTES:
            break
    return reduced.getvalue()


def main() -> None:
    """Write the page, and pictures."""
    parser = argparse.ArgumentParser(description="docs/pdes.md, the catalogue of PDE families")
    parser.add_argument("options", nargs="*", help="as in pde=...; all if none is named")
    parser.add_argument("--text", action="store_true", help="no pictures")
    arguments = parser.parse_args()
    with threadpool_limits(1):
        PAGE.write_text(PAGE.read_text().partition(MARK)[0] + MARK + "\n" + page())
        PICTURES.mkdir(parents=True, exist_ok=True)
        every = [variant for name in families() for variant in variants(name)]
        for name in [] if arguments.text else arguments.options or every:
            content = picture(name)
            (PICTURES / f"{name}.png").write_bytes(content)
            print(f"{name}: {len(content) / 1e3:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
