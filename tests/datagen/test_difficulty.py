"""Levels of difficulty: their parameters are what is drawn, and their names go with every sample."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import yaml

import configs
from datagen.commands import generate as command
from datagen.commands.data import info
from datagen.commands.generate import generate_command
from datagen.commands.own_families import levels
from datagen.difficulty import at_level, check_level
from datagen.family import Family, build, load_families
from datagen.store import Spec, open_store
from datagen.validate import validate

FILES = {
    path.stem: yaml.safe_load(path.read_text()) for path in sorted(Path(configs.__file__).parent.glob("pde/*.yaml"))
}
DECLARED = {
    name: pde for name, pde in FILES.items() if "levels" in pde and (pde["name"] in load_families() or name != "flow")
}
CONFIG = {
    "seed": 3,
    "samples": {"train": 3, "validation": 1, "test": 1},
    "shard": {"size": 2, "index": None, "count": None},
    "solver": {"method": "direct", "rtol": 1e-8},
    "store": {"dtype": "float32"},
    "executor": {"name": "serial", "workers": 1},
    "inputs": None,
    "dry_run": False,
}
DARCY = FILES["darcy"] | {"grid": 8}


@pytest.mark.parametrize("name", DECLARED)
def test_every_level_in_configs_is_one_that_the_family_takes(name):
    pde = DECLARED[name]
    assert set(pde["level"]) == set(pde["levels"])
    assert at_level(pde) == ({key: pde[key] for key in pde if key not in ("level", "levels")}, None)
    for axis, names in pde["levels"].items():
        built = {level: build(**at_level(pde | {"level": {axis: level}})[0]) for level in names}
        assert len(set(map(repr, built.values()))) == len(names), f"two levels of {axis} are the same"
        for level, family in built.items():
            for parameter, value in names[level].items():
                assert np.array_equal(getattr(family, parameter), value)


def test_a_level_is_its_parameters_and_its_name(tmp_path):
    asked = DARCY | {"level": {"contrast": "high", "scale": "fine"}}
    generate_command(CONFIG | {"pde": asked, "out": tmp_path / "level"})
    by_hand = {key: value for key, value in DARCY.items() if key not in ("level", "levels")}
    generate_command(CONFIG | {"pde": by_hand | {"high": 1200.0, "tau": 20.0}, "out": tmp_path / "hand"})
    level, hand = open_store(tmp_path / "level"), open_store(tmp_path / "hand")
    assert {**level.spec, "level": None} == {**hand.spec, "level": None}
    assert level.spec["level"] == {"contrast": "high", "scale": "fine"}
    for split in level.sizes:
        for name in ("coefficient", "pressure"):
            np.testing.assert_array_equal(level.read(split, name), hand.read(split, name))
        assert set(level.record(split, "provenance/level")) == {b"contrast=high,scale=fine"}
    assert "level" not in hand.record_names("provenance")
    assert "level       contrast=high, scale=fine" in info(tmp_path / "level")
    assert validate(tmp_path / "level").sound


def test_a_wrong_name_in_a_file_is_found(tmp_path, monkeypatch):
    asked = DARCY | {"level": {"contrast": "high", "scale": None}}
    monkeypatch.setattr("datagen.shard.label", lambda level: "contrast=low")
    generate_command(CONFIG | {"pde": asked, "out": tmp_path / "d"})
    assert any("provenance/level must be contrast=high" in fault for fault in validate(tmp_path / "d").problems)


@pytest.mark.parametrize(
    ("level", "words"),
    [
        ({"contrats": "high"}, "pde.level.contrats: darcy has no such axis. Did you mean 'contrast'"),
        ({"scale": "fien"}, "pde.level.scale='fien' is no level of darcy. Did you mean 'fine'"),
        ("high", "as pde.level.contrast=low pde.level.scale=coarse does; got 'high'"),
    ],
)
def test_unknown_levels_are_refused_with_what_there_is(level, words):
    with pytest.raises(ValueError, match=words):
        at_level(DARCY | {"level": level})


def test_a_level_and_what_it_sets_are_not_both_taken():
    chosen = {"contrast": "high"}
    command._refuse_both(DARCY, chosen, ["pde.low=5", "pde.level.contrast=high"])  # the other one is free
    with pytest.raises(ValueError, match=r"pde\.high=5 and pde\.level\.contrast=high, which sets it to 1200"):
        command._refuse_both(DARCY, chosen, ["pde.high=5", "pde.level.contrast=high"])


def test_axes_that_set_one_parameter_are_refused():
    both = DARCY | {"levels": {"a": {"x": {"tau": 5.0}}, "b": {"y": {"tau": 6.0}}}, "level": {"a": "x", "b": "y"}}
    with pytest.raises(ValueError, match=r"pde\.level\.b and pde\.level\.a both set pde\.tau"):
        at_level(both)
    with pytest.raises(ValueError, match="must name a level of an axis, and burgers has none"):
        at_level({"name": "burgers", "level": "hard"})


@pytest.mark.parametrize("declared", [["a"], {"a": {}}, {"a": 3}, {"a": {"x": {}}}, {"a": {"x": 3}}])
def test_levels_of_another_form_are_refused(declared):
    with pytest.raises(ValueError, match=r"levels of darcy: .* must be a mapping from"):
        at_level(DARCY | {"levels": declared, "level": {"a": "x"}})


@pytest.mark.parametrize("level", [{}, "high", {"a": 3}, {"a" * 40: "b" * 40}])
def test_a_spec_refuses_what_is_no_level(level):
    with pytest.raises(ValueError, match="level must hold names of levels by axis"):
        check_level(level)
    with pytest.raises(ValueError, match="level must hold"):
        Spec({"name": "darcy", "grid": 8}, 0, CONFIG["samples"], 2, CONFIG["solver"], level=level)


def test_a_spec_with_a_level_survives_its_json():
    spec = Spec({"name": "darcy", "grid": 8}, 0, CONFIG["samples"], 2, CONFIG["solver"], level={"scale": "fine"})
    assert Spec.from_dict(spec.as_dict()) == spec
    assert "level" not in Spec({"name": "darcy"}, 0, CONFIG["samples"], 2, CONFIG["solver"]).as_dict()


def test_a_family_of_another_package_declares_its_own():
    @dataclass(frozen=True)
    class Decay(Family):
        levels: ClassVar = {"rate": {"slow": {"rate": 1.0}}}

    assert levels(Decay) == {"level": {"rate": None}, "levels": {"rate": {"slow": {"rate": 1.0}}}}
    assert levels(Family) == {}
