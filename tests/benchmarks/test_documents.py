"""Tables in the documentation are those that the scripts make of the committed results."""

import importlib
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def benchmarks():
    """The package, imported as its commands do."""
    sys.path.insert(0, str(ROOT))
    try:
        yield lambda name: importlib.import_module(f"benchmarks.{name}")
    finally:
        sys.path.pop(0)


def test_which_solver(benchmarks):
    report = json.loads((ROOT / "benchmarks" / "results" / "which_solver.json").read_text())
    assert benchmarks("which_solver").table(report) in (ROOT / "docs" / "which-solver.md").read_text()


@pytest.mark.parametrize("name", ["shifted_laplacian", "heat_omega"])
def test_learned_omega(benchmarks, name):
    rows = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())["rows"]
    assert benchmarks("tuning").table(rows) in (ROOT / "docs" / "learned-omega.md").read_text()


def test_sequences(benchmarks):
    assert benchmarks("sequences").summary() in (ROOT / "docs" / "sequences.md").read_text()


def test_optimizers(benchmarks):
    report = json.loads((ROOT / "benchmarks" / "results" / "optimizers.json").read_text())
    assert benchmarks("optimizers").table(report) in (ROOT / "docs" / "optimizers.md").read_text()


def test_label_tolerance(benchmarks):
    page = (ROOT / "docs" / "label-tolerance.md").read_text()
    assert benchmarks("label_tolerance").label_table() in page
    assert benchmarks("label_tolerance").operator_table() in page


def test_models(benchmarks):
    report = json.loads((ROOT / "benchmarks" / "results" / "neuralop_darcy.json").read_text())
    assert benchmarks("neuralop_darcy").table(report) in (ROOT / "docs" / "models.md").read_text()


@pytest.mark.parametrize(("name", "page"), [("learned_multigrid", "learned-multigrid"), ("dcdm", "closing-the-loop")])
def test_learned_preconditioners(benchmarks, name, page):
    report = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
    table = benchmarks(name).table(report)
    assert table[table.index("| ") :].split("\n\n")[0] in (ROOT / "docs" / f"{page}.md").read_text()


@pytest.mark.parametrize("study", ["flow", "flow_few"])
def test_difficulty(benchmarks, study):
    assert benchmarks("difficulty_transfer").table(study) in (ROOT / "docs" / "difficulty.md").read_text()
