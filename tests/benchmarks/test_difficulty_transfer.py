"""The study of difficulty: its mixtures are what it says, nothing is trained twice, ratios follow from power laws."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from operators.trainer import TrainingResult

sys.path.insert(0, str(Path(__file__).parents[2]))
study = importlib.import_module("benchmarks.difficulty_transfer")
sys.path.pop(0)


@pytest.mark.parametrize("name", study.STUDIES)
def test_mixtures_are_those_of_the_study(name):
    about = study.STUDIES[name]
    mixtures = about.mixtures()
    assert mixtures[f"hard-{about.samples}"] == ("hard", [about.samples, 0])
    for easier in about.easier:
        mine = [counts for kind, counts in mixtures.values() if kind == easier]
        assert {tuple(c) for c in mine if sum(c) == about.samples} == {
            (round(a * about.samples), about.samples - round(a * about.samples)) for a in about.alphas
        }
        assert {(about.base, n) for n in about.extras} <= set(map(tuple, mine))
        assert about.needed(easier) == max(easy for _, easy in mine)
        assert about.needed("hard") == about.samples
    specs = [study.spec(name, one) for one in about.classes]
    assert len({spec.seed for spec in specs}) == len(specs)  # or classes would share their random numbers
    assert [spec.samples["test"] for spec in specs] == [about.held[1], *[0] * len(about.easier)]
    assert specs[0].family.role("output")
    assert set(about.measured) <= {field.name for field in specs[0].family.role("output")}


def test_equal_errors_on_power_laws():
    """Hard samples alone reach ``e = c^-1/2``: a mixture of error e is worth the cost ``e^-2``, whatever it costs."""
    costs = np.array([3.0, 10.0, 20.0, 90.0])
    for error in (0.2, 0.3, 0.5):
        assert study.equal_error_cost(costs, costs**-0.5, error) == pytest.approx(error**-2, rel=1e-12)
    shuffled = [2, 0, 3, 1]
    assert study.equal_error_cost(costs[shuffled], costs[shuffled] ** -0.5, 0.3) == pytest.approx(0.3**-2)
    assert study.equal_error_cost(costs, costs**-0.5, 0.7) is None  # dearer than the worst: no extrapolation
    assert study.equal_error_cost(costs, costs**-0.5, 0.05) is None
    # A point that is worse than a cheaper one says nothing of what has to be bought.
    assert study.equal_error_cost([*costs, 15.0], [*costs**-0.5, 0.9], 0.25) == pytest.approx(16.0)


def test_the_published_factor_does_not_follow_from_the_published_table():
    """The largest factor that one hard sample in ten can give is that of the cheapest cell."""
    seconds = [170.7, 263.1, 350.4, 609.5, 731.1, 942.8, 1550.9, 1599.2]  # the hard cell takes 1653.3
    factors = [study.published_ratio(1653.3, one, 0.1) for one in seconds]
    assert max(factors) == pytest.approx(5.18, abs=0.01)
    # and 8.9 needs an easy sample at this share of a hard one
    assert study.published_ratio(1.0, 0.0137, 0.1) == pytest.approx(8.9, rel=1e-2)


def test_a_cell_is_trained_once_and_the_table_is_of_its_formulas(monkeypatch, tmp_path):
    calls = []

    def trained(name, model, mixture, seed, device):
        calls.append((model, mixture, seed))
        hard, easy = study.STUDIES[name].mixtures()[mixture][1]
        cost = 4.0 * hard + easy
        worth = 4.0 * hard + 2.0 * easy  # an easier sample is worth twice what it costs
        error = worth**-0.5 * (1 + 0.01 * (seed - 0.5))
        test = {"relative_l1": error, "relative_l2": error}
        return {"counts": [hard, easy], "cost": {"work": cost, "seconds": cost}, "test": test}

    monkeypatch.setattr(study, "trained", trained)
    monkeypatch.setattr(study, "MODELS", {"fno": "difficulty_transfer"})
    names = list(study.STUDIES["tiny"].mixtures())
    for part in (1, 0):
        study.run_missing("tiny", [0], 1.0, "cpu", (part, 2), tmp_path)
    study.run_missing("tiny", [0, 1], 1.0, "cpu", (0, 1), tmp_path)
    assert sorted(calls) == sorted(("fno", name, seed) for seed in (0, 1) for name in names)
    study.run_missing("tiny", [2], 0.0, "cpu", (0, 1), tmp_path)  # no time
    assert len(calls) == 2 * len(names)
    lines = {tuple(line.split(" | ")[1:4]): line for line in study.table("tiny", tmp_path).splitlines()}
    # 4 hard and 4 easy: worth 24 at a cost of 20, where hard ones alone cost 24; an easy one is worth half a hard one
    assert "| 20.41 (sd 0.14) % |" in lines["easy", "4", "4"]
    assert lines["easy", "4", "4"].endswith("| 1.20 | 0.50 | 2 |")
    # 4 hard and 8 easy: worth 32 at 24, and 32 is what 8 hard ones cost
    assert lines["easy", "4", "8"].endswith("| 1.33 | 0.50 | 2 |")
    assert study.picture("tiny", tmp_path).axes


def test_an_interrupted_training_is_no_result(monkeypatch, tmp_path):
    monkeypatch.setattr(
        study, "mixture", lambda *words: type("Store", (), {"path": tmp_path, "evolves": False, "sizes": {"train": 8}})
    )
    monkeypatch.setattr(study, "train", lambda config, store: TrainingResult(tmp_path, False, []))
    with pytest.raises(SystemExit):
        study.run_missing("tiny", [0], 1.0, "cpu", (0, 1), tmp_path / "results")
    assert not list(tmp_path.rglob("*.json"))


def test_the_cost_table_reads_what_the_data_cost(tmp_path):
    one = {"level": {"geometry": "none"}, "work": 2e6, "seconds_median": 0.25}
    classes = {"hard": one | {"level": {"geometry": "many"}, "work": 5e6}, "easy": one}
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny/data.json").write_text(json.dumps({"classes": classes}))
    assert "| easy | geometry none | 2 | 0.25 | 2.50 |" in study.cost_table("tiny", tmp_path)
