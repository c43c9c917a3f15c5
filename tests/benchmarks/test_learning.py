"""The benchmarks of learned operators: their data, what they leave to do, and what their tables say."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module

from datagen.pdes.navier_stokes import NavierStokes

sys.path.insert(0, str(Path(__file__).parents[2]))
patched_tfno, darcy_models, neuralop_darcy = (
    importlib.import_module(f"benchmarks.{name}") for name in ("patched_tfno", "darcy_models", "neuralop_darcy")
)
sys.path.pop(0)


def test_vortices_of_one_wavenumber_decay():
    # Every sum of waves of one |kappa| is an exact solution: it is carried along its own lines and decays.
    family = NavierStokes(nu=1e-2, forcing="none", grid=16, final_time=2.0)
    x, y = family.mesh.points()
    wave = np.sin(2 * np.pi * (2 * x + y)) + 0.3 * np.cos(2 * np.pi * (x - 2 * y))
    last = patched_tfno.vorticity(family, torch.from_numpy(wave[None]), steps=20)[0].numpy()
    np.testing.assert_allclose(last, wave * np.exp(-1e-2 * 5 * (2 * np.pi) ** 2 * 2.0), atol=1e-12)


def test_samples_of_the_patches_are_those_of_the_family():
    family = NavierStokes(grid=32, final_time=0.5, alpha=6.0)
    fields = np.stack([family.sample(np.random.default_rng(seed)).fields["initial_vorticity"] for seed in range(2)])
    exact = family.evolve(fields[:, None], [0.5])[:, 0, 0]
    last = patched_tfno.vorticity(family, torch.from_numpy(fields), steps=16).numpy()
    # The two drop waves above different wavenumbers, 10 and 15, of which smooth fields have next to nothing.
    assert np.linalg.norm(last - exact) < 1e-5 * np.linalg.norm(exact)
    half = patched_tfno.vorticity(family, torch.from_numpy(fields), steps=8).numpy()
    quarter = patched_tfno.vorticity(family, torch.from_numpy(fields), steps=4).numpy()
    order = np.log2(np.linalg.norm(quarter - last) / np.linalg.norm(half - last))
    assert 3.7 < order < 4.5  # (2^8 - 1) / (2^4 - 1) in place of 2^4 at order 4: 4.09


def report(runs):
    costs = dict.fromkeys(darcy_models.MODELS, 0.1) | {"LSM": 0.25}
    return {"samples": {"train": 100}, "batch": 16, "step_seconds": costs, "runs": runs}


def test_models_train_for_equal_times():
    left = darcy_models.missing(report([]), 35.0, ["FNO", "LSM"])
    # 7 steps an epoch: 0.7 s and 1.75 s
    assert left == [(label, seed, epochs) for seed in (0, 1, 2) for label, epochs in (("FNO", 50), ("LSM", 20))]


def test_no_model_is_trained_twice_for_one_budget():
    run = {"model": "FNO", "seed": 0, "budget": 35.0, "epochs": 50, "parameters": 1192801, "error": 0.021}
    left = darcy_models.missing(report([run]), 35.0, ["FNO", "LSM"])
    assert len(left) == 5
    assert ("FNO", 0, 50) not in left
    assert len(darcy_models.missing(report([run]), 70.0, ["FNO"])) == 3
    text = darcy_models.table(report([run, run | {"seed": 1, "error": 0.023}]))
    assert "| FNO | 1,192,801 | 100 | 50 | 2.20 (2.10 to 2.30) | 2 |" in text


@pytest.mark.parametrize("model", ["fno", "tfno"])
def test_the_recipe_of_neuraloperator_takes_either_model(model):
    with initialize_config_module(version_base="1.3", config_module="configs"):
        config = compose("train", ["experiment=neuralop_darcy", f"model={model}", "dataset.path=x", "out=y"])
    assert config.model.name == model
    assert (config.optimizer.name, config.optimizer.lr, config.loss) == ("complex_adamw", 8e-3, "relative_h1")
    assert (config.trainer.epochs, config.trainer.batch_size, config.scheduler.length) == (20, 32, 1.5)
    assert config.trainer.gradient_clip is None


def test_the_table_of_neuraloperators_files_compares_with_the_larger():
    model = "FNO, 8 x 8 modes"
    runs = []
    for side, errors, seconds in (("southwell", (0.099, 0.13), 10.0), ("neuraloperator", (0.09, 0.13), 20.0)):
        facts = {"model": model, "side": side, "parameters": 340833, "cpu": seconds, "wall": 2 * seconds}
        runs += [{**facts, "seed": seed, "error_16": errors[0], "error_32": errors[1]} for seed in range(3)]
    lines = neuralop_darcy.table({"runs": runs}).splitlines()
    assert len(lines) == 2 + 4  # the other model has no runs
    # 0.099 over the published 0.101, 0.13 over theirs, since it is above the published 0.126
    assert lines[-1] == "| | southwell over the larger of the others | | 0.980 | 1.000 | 0.50 | 0.50 |"


def test_the_table_of_patches_compares_means():
    runs = [
        {"side": side, "seed": seed, "parameters": 520761, "error": error + 0.001 * seed, "wall": 30.0}
        for side, error in (("TFNO", 0.02), ("MG-TFNO", 0.0206))
        for seed in (0, 1)
    ]
    found = {"device": "a GPU", "scale": {"epochs": 10}, "memory_mb": {"TFNO": 1000.0, "MG-TFNO": 200.0}, "runs": runs}
    *_, last = patched_tfno.table(found).splitlines()
    assert last == f"| MG-TFNO | 520,761 | 2.060, 2.160 | {0.0211 / 0.0205:.3f} | 200 | 0.200 | 3.00 |"
