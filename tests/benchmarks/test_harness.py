"""The benchmark harness refuses wrong answers, and writes what its README says."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "harness.py"


@pytest.fixture(scope="module")
def harness():
    spec = importlib.util.spec_from_file_location("southwell_benchmark_harness", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def entry(harness, second, **changes):
    exact = np.array([1.0, 2.0])
    fields = {
        "name": "two numbers",
        "problem": "know them",
        "peers": {"first": lambda: harness.Answer(exact, 4), "second": lambda: harness.Answer(second, 2)},
        "error": lambda x: float(np.linalg.norm(x - exact)),
        "tolerance": 1e-3,
        "agreement": 1e-3,
    }
    return harness.Entry(**(fields | changes))


def test_wrong_or_differing_answers_are_not_timed(harness):
    with pytest.raises(ValueError, match="'second' has error"):
        harness.check(entry(harness, np.array([1.0, 2.1])))
    with pytest.raises(ValueError, match="differs from the first"):
        harness.check(entry(harness, np.array([1.0, 2.1]), tolerance=1.0))
    with pytest.raises(ValueError, match="error nan"):
        harness.check(entry(harness, np.array([1.0, np.nan])))


def test_peers_take_turns_and_iterations_share_the_time(harness):
    order = []

    def peer(name, iterations):
        def solve():
            order.append(name)
            return harness.Answer(np.ones(2), iterations)

        return solve

    peers = {"a": peer("a", 10), "b": peer("b", 5)}
    one = entry(harness, None, peers=peers, error=lambda x: 0.0, per_iteration=True)
    report = harness.measure(one, 5)
    assert order == ["a", "b"] + ["a", "b", "b", "a"] * 2 + ["a", "b"]
    assert report["unit"] == "seconds per iteration"
    assert all(len(report["peers"][name]["cpu"]) == 5 for name in peers)


def test_json_has_the_schema_of_the_readme(harness, tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "stream_triad", lambda: 1e10)
    report = harness.run([entry(harness, np.array([1.0, 2.0]))], tmp_path / "new" / "out.json")
    assert json.loads((tmp_path / "new" / "out.json").read_text()) == report
    assert report["format_version"] == 1
    readme = (PATH.parent / "README.md").read_text()
    for level in (report, report["machine"], report["entries"][0], report["entries"][0]["peers"]["first"]):
        for key in level:
            assert key in readme
    assert "| two numbers | second |" in harness.table(report)
    with pytest.raises(ValueError, match="at least 5"):
        harness.run([], tmp_path / "few.json", rounds=3)
    with pytest.raises(ValueError, match="share a name"):
        harness.run([entry(harness, np.ones(2))] * 2, tmp_path / "twice.json")


def test_triad_is_a_plausible_bandwidth(harness):
    # below a floppy disk or above any memory it would be a unit mistake
    assert 1e8 < harness.stream_triad(megabytes=6) < 1e13
