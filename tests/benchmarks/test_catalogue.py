"""docs/pdes.md holds every family of the registry, as the families declare and describe themselves today."""

import importlib
import re
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from PIL import Image

from datagen.commands.generate import generate_command
from datagen.family import build, load_families

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "pdes.md").read_text()
# Other tests and distributions register families of their own.
FAMILIES = [
    name
    for name, family in ((name, load_families()[name]) for name in load_families())
    if family.made_by_solving and family.__module__.startswith("datagen.pdes.")
]
every_family = pytest.mark.parametrize("name", FAMILIES)


@pytest.fixture(scope="module")
def catalogue():
    """The script, imported as its command does."""
    sys.path.insert(0, str(ROOT))
    try:
        yield importlib.import_module("benchmarks.catalogue")
    finally:
        sys.path.pop(0)


def section(name):
    found = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", PAGE, flags=re.M | re.S)
    assert found is not None, f"docs/pdes.md lacks {name}; run python -m benchmarks.catalogue"
    return found[1]


@every_family
def test_every_family_has_a_row_and_a_section_as_it_declares_them(catalogue, name):
    assert catalogue.row(name) in PAGE.splitlines()
    assert section(name).strip() == catalogue.section(name).removeprefix(f"## {name}").strip()
    assert build(name).title[1:] in section(name)


def test_the_page_has_nothing_else_and_the_families_in_order(catalogue):
    assert sorted(catalogue.families()) == FAMILIES
    assert re.findall(r"^## (.*)$", PAGE, flags=re.M) == catalogue.families()
    assert re.findall(r"^\| \[(\w+)\]", PAGE, flags=re.M) == catalogue.families()


def test_every_option_of_pde_has_a_picture_on_the_page_and_no_picture_is_left_over(catalogue):
    shown = re.findall(r"!\[(\w+)\]\(images/pdes/(\w+)\.png\)", PAGE)
    pictures = ROOT / "docs" / "images" / "pdes"
    assert sorted(shown) == [(name, name) for name in catalogue.options()]
    assert sorted(path.stem for path in pictures.iterdir()) == catalogue.options()
    for name in catalogue.options():
        path = pictures / f"{name}.png"
        assert path.stat().st_size <= 60_000, path
        with Image.open(path) as image:
            low, high = image.convert("L").getextrema()
            assert image.width >= 300, path
            assert high - low > 100, f"{path} shows nothing"


@every_family
def test_its_command_composes(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^southwell-generate (.*)$", section(name), flags=re.M)
    assert len(commands) == 1
    words = commands[0].split()
    with initialize_config_module("configs", version_base="1.3"):
        config = compose("generate", [*words, "dry_run=true"])
    assert config.pde.name == name
    # As told, but for the five samples that a dry run makes: two frames, early ones.
    if "frames" in config.pde:
        config.pde.frames, config.pde.final_time = 2, config.pde.final_time / 100
    config.samples.train = 2
    generate_command(OmegaConf.to_container(config))
    assert re.match(r"[\d,]+ samples in \d+ shards, [\d.]+ MB", capsys.readouterr().out)
    assert list(tmp_path.iterdir()) == []


@every_family
def test_its_docstring_says_what_one_has_to_know(catalogue, name):
    parts = catalogue.docstring(name)
    about, notes = parts[""], parts["Notes"]
    assert re.search(r"^    \S.*=", about, flags=re.M), "no equation in a block of its own"
    assert re.search(r"dimensionless|degrees|metres", about), "no units"
    assert re.search(r"\b(cell|node)-centred grid|\bat the points `|averages over cells|grid of nodes", about), (
        "no grid"
    )
    assert re.search(r"\b(17|18|19|20)\d\d\b", about), "no source"
    assert re.search(r"^Good values\b.*\w", notes, flags=re.M)
    assert re.search(r"^Truth: \w|^Truth: `", notes, flags=re.M)
    assert {"Parameters", "Examples"} <= parts.keys()


def test_what_is_found_by_building_is_what_is_true(catalogue):
    """Read off the equations by a person: the probing must neither miss nor invent."""
    assert catalogue.dimensions("burgers") == [1]
    assert catalogue.dimensions("navier_stokes") == [2]
    assert catalogue.dimensions("euler") == [1, 2, 3]
    assert catalogue.dimensions("shallow_water") == [1, 2]
    assert set(catalogue.with_sides("euler")) == {"periodic", "outflow", "wall"}
    assert set(catalogue.with_sides("helmholtz")) == {"dirichlet", "impedance"}
    assert set(catalogue.with_sides("thermal_plate")) == {"dirichlet, neumann"}
    assert "| mass, energy (wall); mass, momentum_x, momentum_y, energy (periodic) |" in catalogue.row("euler")
    assert "| flux |" in catalogue.row("darcy")
