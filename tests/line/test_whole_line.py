"""From a seed to a certified solution, by the commands alone, small."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
MODEL = ["model=tfno", "model.n_modes=[6,6]", "model.hidden_channels=8", "model.n_layers=2", "model.rank=0.5"]


def southwell(room: str, command: str, *words: str, cwd: Path) -> str:
    arguments = [sys.executable, "-m", f"{room}.commands.{command}", *words]
    import os

    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(arguments, capture_output=True, text=True, cwd=cwd, env=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A dataset of 16x16 Darcy samples, a finer one of the same problem, and a trained operator."""
    place = tmp_path_factory.mktemp("line")
    counts = ["samples.train=64", "samples.validation=16", "samples.test=16", "seed=5", "executor=serial"]
    southwell("datagen", "generate", "pde.grid=16", *counts, "out=data/coarse", cwd=place)
    southwell("datagen", "generate", "pde.grid=32", *counts, "samples.train=8", "out=data/fine", cwd=place)
    train = ["dataset.path=data/coarse", *MODEL, "trainer.epochs=30", "optimizer.lr=1e-2", "out=runs/tfno"]
    southwell("operators", "train", *train, cwd=place)
    return place


def test_data_is_sound(place):
    assert "no faults found" in southwell("datagen", "data", "validate", "data/coarse", cwd=place)


def test_training_learned_something(place):
    words = ["checkpoint=runs/tfno/best.pt", "dataset.path=data/coarse", "certify=3"]
    printed = southwell("operators", "evaluate", *words, cwd=place)
    metrics = json.loads((place / "runs/tfno/evaluation/metrics.json").read_text())
    results = metrics["results"]
    # 64 samples and seconds of training: better than predicting the mean, which is what learning means here.
    assert results["tfno"]["relative_l2"]["mean"] < 0.8 * results["training mean"]["relative_l2"]["mean"]
    certified = metrics["operators"]["tfno"]["certified"]
    assert certified["samples"] == 3
    assert certified["worst_relative_residual"] <= 1e-8
    assert "report.md" in printed.splitlines()[-1]
    report = (place / "runs/tfno/evaluation/report.md").read_text()
    for words in ("samples.png", "loss.png", "ridge", "training mean", "ertified"):
        assert words in report
    for name in ("samples.png", "loss.png"):
        assert (place / "runs/tfno/evaluation" / name).stat().st_size > 5000


def test_evaluation_at_another_resolution(place):
    words = ["checkpoint=runs/tfno/best.pt", "dataset.path=data/fine", "out=finer"]
    southwell("operators", "evaluate", *words, cwd=place)
    finer = json.loads((place / "finer/metrics.json").read_text())["results"]["tfno"]["relative_l2"]["mean"]
    coarse = json.loads((place / "runs/tfno/evaluation/metrics.json").read_text())["results"]["tfno"]["relative_l2"]
    assert finer < 2 * coarse["mean"]


def test_prediction_from_files(place):
    sys.path.insert(0, str(ROOT))
    from datagen.store import open_store

    inputs = open_store(place / "data/coarse").read("test", "coefficient")[:, None]
    np.save(place / "a.npy", inputs)
    southwell("operators", "predict", "checkpoint=runs/tfno/best.pt", "input=a.npy", "output=u.npy", cwd=place)
    assert np.load(place / "u.npy").shape == (16, 1, 16, 16)


def test_a_dataset_of_other_axes_is_refused_by_the_checkpoint(place):
    words = [
        "pde.grid=8",
        "pde.dimension=3",
        "samples.train=2",
        "samples.validation=1",
        "samples.test=1",
        "executor=serial",
        "out=data/cube",
    ]
    southwell("datagen", "generate", *words, cwd=place)
    with pytest.raises(AssertionError, match="2 grid axes"):
        southwell("operators", "evaluate", "checkpoint=runs/tfno/best.pt", "dataset.path=data/cube", cwd=place)
