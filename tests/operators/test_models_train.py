"""Every kind of model through the trainer, its checkpoint and the predictor, on an operator known exactly."""

import numpy as np
import pytest

from operators.baselines import training_mean
from operators.predict import load
from operators.trainer import train

MODELS = {
    "tt": {"name": "tfno", "n_modes": [6, 6], "hidden_channels": 8, "n_layers": 2, "factorization": "tt", "rank": 0.5},
    "separable": {
        "name": "fno",
        "n_modes": [6, 6],
        "hidden_channels": 8,
        "n_layers": 2,
        "separable": True,
        "norm": "group_norm",
    },
    "multigrid": {
        "name": "multigrid_fno",
        "n_modes": [6, 6],
        "hidden_channels": 8,
        "n_layers": 2,
        "rank": 0.5,
        "patches_at_once": 8,
    },
    "unet": {"name": "unet", "width": 8, "levels": 2, "boundary": "periodic"},
    "lsm": {"name": "lsm", "width": 8, "n_heads": 4},
}


@pytest.mark.parametrize("kind", MODELS)
def test_it_learns_more_than_the_mean(kind, make_config, make_store):
    store = make_store(sizes={"train": 48, "validation": 8, "test": 6})
    config = make_config(model=MODELS[kind], trainer={"epochs": 6})
    result = train(config, store)
    predictor = load(result.out / "best.pt", "cpu")
    inputs, truth = (store.arrays["test"][name][:, None] for name in ("source", "solution"))

    def error(prediction):
        return np.linalg.norm(prediction - truth) / np.linalg.norm(truth)

    mean = training_mean(store.arrays["train"]["solution"][:, None])
    # Six epochs of ten batches. Less than the mean's error asks for the shape of the fields, not for accuracy.
    assert error(predictor.predict(inputs)) < 0.7 * error(mean.predict(inputs))
