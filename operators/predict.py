"""Predictions of a trained operator, in physical units: ``load(checkpoint).predict(fields)``."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from datagen.store import Store
from operators.checkpoint import load_checkpoint, rebuild_model
from operators.data import Channel, GaussianNormaliser, channels
from operators.devices import choose_device


class Predictor:
    """A trained operator with its normalisers and the names of its channels.

    Parameters
    ----------
    content : mapping
        A checkpoint's, as `operators.checkpoint.load_checkpoint` returns it.
    device : str
        "auto", "cpu" or "cuda".

    Attributes
    ----------
    model : torch.nn.Module
        Acts on normalised fields.
    inputs, outputs : list of Channel
    grid : tuple of int
        The grid it was trained on. Others are accepted.
    history : list of dict
        Of its training, one entry an epoch.
    config : str
        Of its training, as YAML.
    spec : dict
        Of the dataset it was trained on.
    """

    def __init__(self, content: Mapping[str, Any], device: str = "auto") -> None:
        self.device = choose_device(device)
        self.model = rebuild_model(content).to(self.device)
        self.model_name: str = content["model"]["name"]
        self.inputs = [Channel(**channel) for channel in content["channels"]["inputs"]]
        self.outputs = [Channel(**channel) for channel in content["channels"]["outputs"]]
        normalisers = content["normalisers"]
        self.input_normaliser = GaussianNormaliser(**normalisers["inputs"]).to(self.device)
        self.output_normaliser = GaussianNormaliser(**normalisers["outputs"]).to(self.device)
        self.grid = tuple(content["dataset"]["grid"])
        self.dataset_path: str = content["dataset"]["path"]
        self.spec: dict[str, Any] = json.loads(content["dataset"]["spec"])
        self.history: list[dict[str, float]] = content["history"]
        self.config: str = content["config"]

    @property
    def parameter_count(self) -> int:
        """Trainable real numbers."""
        return sum(p.numel() for p in self.model.parameters())

    def predict(self, fields: NDArray[np.floating], batch_size: int = 32) -> NDArray[np.float32]:
        """Predict the output fields.

        Parameters
        ----------
        fields : ndarray, shape (samples, input channels, *grid)
            In physical units, channels in the order of `inputs`; any grid of as many axes as trained on.
        batch_size : int
            Samples computed at a time.

        Returns
        -------
        ndarray, shape (samples, output channels, *grid)
            In physical units, channels in the order of `outputs`.

        Raises
        ------
        ValueError
            If channels or axes do not fit, or a value is not finite.
        """
        fields = np.asarray(fields)
        if fields.ndim != len(self.grid) + 2 or fields.shape[1] != len(self.inputs):
            names = ", ".join(channel.name for channel in self.inputs)
            raise ValueError(
                f"fields has shape {fields.shape}, but this operator takes (samples, {len(self.inputs)} input channels "
                f"({names}), and {len(self.grid)} grid axes)"
            )
        if not np.isfinite(fields).all():
            raise ValueError("fields holds values that are not finite")
        predictions = np.empty((len(fields), len(self.outputs), *fields.shape[2:]), dtype=np.float32)
        with torch.no_grad():
            for start in range(0, len(fields), batch_size):
                batch = torch.from_numpy(np.ascontiguousarray(fields[start : start + batch_size], dtype=np.float32))
                output = self.model(self.input_normaliser(batch.to(self.device)))
                predictions[start : start + batch_size] = self.output_normaliser.inverse(output).cpu().numpy()
        return predictions

    def check_store(self, store: Store) -> None:
        """Raise unless a dataset has this operator's channels, in order, and as many axes.

        Raises
        ------
        ValueError
        """
        ours, theirs = _names(self.inputs, self.outputs), _names(channels(store, "input"), channels(store, "output"))
        if ours != theirs:
            raise ValueError(f"the checkpoint maps {ours}, but dataset {store.path} has {theirs}")
        if len(store.shape) != len(self.grid):
            raise ValueError(
                f"the checkpoint was trained on {len(self.grid)} grid axes, but dataset {store.path} has "
                f"{len(store.shape)}"
            )


def _names(inputs: Sequence[Channel], outputs: Sequence[Channel]) -> str:
    return " -> ".join("(" + ", ".join(channel.name for channel in part) + ")" for part in (inputs, outputs))


def load(path: str | Path, device: str = "auto") -> Predictor:
    """Rebuild a trained operator from its checkpoint alone.

    Parameters
    ----------
    path : path
        ``best.pt`` or ``last.pt`` of a run.
    device : str
        "auto", "cpu" or "cuda".

    Raises
    ------
    ValueError
        See `operators.checkpoint.load_checkpoint`.
    """
    return Predictor(load_checkpoint(path), device)
