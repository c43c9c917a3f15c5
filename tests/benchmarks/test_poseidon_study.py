"""The study of pretraining: its counts, its gains, and what waits for what."""

import pytest

pytest.importorskip("hydra")
study = pytest.importorskip("benchmarks.poseidon_study")


def test_efficiency_is_exact_for_power_laws():
    # err = 3 n^(-1/2): the error 3 / 8 needs 64 trajectories, a quarter of 256.
    curve = {n: 3 * n**-0.5 for n in (16, 64, 256)}
    assert study.efficiency(curve, 3 / 8, 256) == "4"
    assert study.efficiency(curve, 3 / 32**0.5, 256) == "8"  # between two sizes
    assert study.efficiency(curve, 1.0, 256) == "> 16"
    assert study.efficiency(curve, 0.01, 256) == "< 1"


def test_rates_are_chosen_by_validation_before_runs_depend_on_them(tmp_path):
    ours = study.Study(study.Scale(), tmp_path, tmp_path / "result.json")
    choices = list(ours.choices())
    assert ours.ready() == [run for run in choices if run.model != "finetuned"]  # no pretrained scOT yet
    ours.keep("pretrained", {"validation": 0.1})
    assert ours.ready() == choices
    for run in choices:
        ours.keep(run.name, {"validation": abs(run.lr - 3e-3), "direct": 0.5})
    best = {"fno": 3e-3, "scot": 3e-3, "finetuned": 3e-3}
    assert {model: ours.chosen("wave", model) for model in best} == best
    left = ours.ready()
    assert len(left) == len(ours.planned()) - len(best) * len(study.FAMILIES)  # those of seed 0 at 64 are done
    assert left[0].size == 16
    assert "84 runs" in ours.count()
    assert "| FNO | 0.003 |" in study.tables(ours)
