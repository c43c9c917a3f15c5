"""All that a training step depends on: how it is built from a configuration, kept in a checkpoint and taken up."""

import json
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import yaml
from torch import nn

from datagen.store import Store
from operators.adapters import adapt, fingerprint, learned
from operators.averaging import WeightAverage
from operators.checkpoint import complete_arguments, stored_normalisers
from operators.data import periodic_axes
from operators.devices import autocast_type, random_state, set_random_state
from operators.distributed import Ranks, distribute, load_optimizer, load_weights, whole
from operators.loader import epoch_batches
from operators.losses import configured, losses
from operators.mixture import Mixture
from operators.models import models
from operators.operator import Operator, input_channels
from operators.optimizers import build_optimizer, is_second_order, schedulers
from operators.settings import Settings
from operators.tasks import Loss, MixtureTask, Task, tasks


@dataclass
class Progress:
    """What the epoch under way has come to: batches and samples done, the sum of samples' losses, seconds."""

    batches: int = 0
    samples: int = 0
    loss: float = 0.0
    seconds: float = 0.0

    def add(self, loss: float, samples: int, seconds: float) -> None:
        """Take in a batch and its mean loss."""
        self.batches += 1
        self.samples += samples
        self.loss += loss * samples
        self.seconds += seconds

    @property
    def mean_loss(self) -> float:
        """Over samples."""
        return self.loss / self.samples


class TrainingState:
    """A task, an operator that learns it, and what the next step depends on.

    Built in the order in which random numbers are drawn.

    Parameters
    ----------
    config : mapping
        As `operators.trainer.train` takes it.
    settings : Settings
        Its ``trainer`` group.
    store : Store or Mixture
    ranks : Ranks
    before : mapping, optional
        Content of the ``last.pt`` to go on from.

    Attributes
    ----------
    history : list of dict
        Finished epochs.
    progress : Progress
        Of the epoch under way.
    steps_per_epoch : int

    Raises
    ------
    ValueError
        If parts of the configuration do not fit each other, the dataset or the checkpoint.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        settings: Settings,
        store: Store | Mixture,
        ranks: Ranks,
        before: Mapping[str, Any] | None = None,
    ) -> None:
        self.config, self.store, self.ranks, self.device = config, store, ranks, ranks.device
        half = autocast_type(settings.precision, self.device)
        periodic = periodic_axes(store)
        self.loss: Loss = partial(configured(config["loss"]), periodic=periodic)
        self.relative_l2: Loss = partial(losses["relative_l2"], periodic=periodic)

        self.task_name, self.task_arguments = _named(config.get("task", {"name": "static"}))
        memory = {key: value for key, value in config["dataset"].items() if key == "memory_gb"}
        self.task: Task = (
            MixtureTask(self.task_name, store, **memory, **self.task_arguments)
            if isinstance(store, Mixture)
            else tasks.build(self.task_name, store, **memory, **self.task_arguments)
        )
        self.model_name, given = _named(config["model"])
        given["in_channels"] = input_channels(
            self.model_name, len(self.task.inputs), self.task.conditioned_on_time, given
        )
        given["out_channels"] = len(self.task.outputs)
        self.model: nn.Module = models.build(self.model_name, **given).to(self.device)
        # Weights that came from elsewhere are in the checkpoint from now on, but for those that an adapter freezes.
        self.base: dict[str, Any] = {"name": self.model_name, "arguments": given}
        self.model_name, given = getattr(self.model, "rebuilt_as", None) or (self.model_name, given)
        self.model_arguments = complete_arguments(self.model_name, given)
        self._check_model_fits(given["in_channels"])
        if before is not None:
            self._check_checkpoint_fits(before)
        inputs, outputs = self.task.normalisers() if before is None else stored_normalisers(before)
        self.training, self.validation = self.task.examples("train"), self.task.examples("validation")
        self.adapter: dict[str, Any] | None = config.get("adapter")
        if self.adapter:
            self._adapt(Operator(self.model, inputs, outputs).to(self.device), settings.batch_size, before)
        self.parameters = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        if not ranks.first:  # from here on other random numbers than the first rank's (dropout)
            seeds = np.random.SeedSequence(config["seed"], spawn_key=(ranks.rank,)).generate_state(1, np.uint64)
            torch.manual_seed(int(seeds[0]))

        distribute(self.model, settings.distributed, ranks)
        if settings.compile:
            self.model.compile()
        self.operator = Operator(self.model, inputs, outputs, half).to(self.device)
        self.average = None if settings.ema is None else WeightAverage(self.model, settings.ema)
        self.optimizer = build_optimizer(self.model, **config["optimizer"])
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=half is torch.float16)
        if is_second_order(self.optimizer) and (ranks.size > 1 or self.scaler.is_enabled()):
            where = "on several ranks" if ranks.size > 1 else "with trainer.precision=16"
            raise ValueError(
                f"optimizer {config['optimizer']['name']!r} differentiates the gradient, which does not work {where}; "
                "use one process and precision 32 or bf16, or another optimizer"
            )
        self.steps_per_epoch = math.ceil(len(self.training) / settings.batch_size)
        name, chosen = _named(config["scheduler"])
        self.scheduler = schedulers.build(name, self.optimizer, settings.epochs * self.steps_per_epoch, **chosen)
        self.history: list[dict[str, float]] = []
        self.progress = Progress()
        if before is not None:
            self._take_up(before)

    def _adapt(self, operator: Operator, batch_size: int, before: Mapping[str, Any] | None) -> None:
        """Freeze the model but for an adapter, which may look at training data first."""
        assert self.adapter is not None
        if self.base["name"] == self.model_name:
            raise ValueError(
                f"adapter={self.adapter['name']} freezes the model's weights, so they must come from a file: "
                f"model=pretrained or model=poseidon, got model={self.model_name}"
            )
        if before is None:
            order = epoch_batches(self.training, batch_size, self.config["seed"], 0)
            seen = (self.training.batch(indices).to(self.device) for indices in order)
            adapt(self.model, self.adapter, (operator.arguments(b.inputs, b.lead_time) for b in seen))
        else:
            adapt(self.model, self.adapter)
        self.frozen = fingerprint(self.model)
        if before is not None and before["model"].get("frozen") != self.frozen:
            raise ValueError(
                f"{self.config['out']} was trained from other weights than those that are now at "
                f"{self.base['arguments'].get('path')}: put them back, or choose another out"
            )

    def _check_model_fits(self, in_channels: int) -> None:
        """One sample of zeros, before the data is read: a misfit is a sentence at once."""
        grid = self.store.shape
        sample = torch.zeros(1, in_channels, *grid, device=self.device)
        time = [torch.ones(1, device=self.device)] if getattr(self.model, "conditioned_on_time", False) else []
        with torch.no_grad():
            shape = tuple(self.model.eval()(sample, *time).shape)
        expected = (1, len(self.task.outputs), *grid)
        if shape != expected:
            raise ValueError(
                f"model {self.model_name!r} maps {tuple(sample.shape)} to {shape}, but the dataset's outputs need "
                f"{expected}"
            )
        nothing = torch.zeros(expected, device=self.device)
        self.loss(nothing, nothing)  # its arguments too: groups of channels, say

    def _check_checkpoint_fits(self, before: Mapping[str, Any]) -> None:
        out = self.config["out"]
        if before["dataset"]["spec"] != self._spec():
            raise ValueError(
                f"{out} was trained on another dataset than what is now at {self.store.path} (their specs differ). "
                "Choose another out, or delete the folder to start over"
            )
        name, arguments = before["model"]["name"], before["model"]["arguments"]
        if (name, arguments) != (self.model_name, self.model_arguments):
            raise ValueError(
                f"last.pt in {out} holds another model than its config.yaml asks for: {name!r} with {arguments}. "
                "Choose another out, or delete the folder to start over"
            )

        if not before["training"]:
            raise ValueError(f"last.pt in {out} holds no state to resume from: it is another file under that name")

    def averaged(self) -> AbstractContextManager[None]:
        """With averaged weights in the model, where they are averaged."""
        return nullcontext() if self.average is None else self.average.in_place()

    def content(self, resumable: bool) -> dict[str, Any]:
        """Content of a checkpoint (`operators.checkpoint`); every rank must call it.

        Parameters
        ----------
        resumable : bool
            With all that the next step depends on, as in ``last.pt``.
        """
        with self.averaged():
            weights = {name: value.clone() for name, value in whole(self._weights()).items()}
        model = {"name": self.model_name, "arguments": self.model_arguments, "state": weights}
        if self.adapter:
            model |= {"adapter": self.adapter, "base": self.base, "frozen": self.frozen}
        return {
            "model": model,
            "task": {"name": self.task_name, "arguments": self.task_arguments},
            "time": getattr(self.task, "time", None),  # of tasks that step in time: what a rollout needs to know
            "mixture": self.task.content() if isinstance(self.task, MixtureTask) else None,
            "normalisers": {
                "inputs": self.operator.input_normaliser.state_dict(),
                "outputs": self.operator.output_normaliser.state_dict(),
            },
            "channels": {
                "inputs": [channel.to_dict() for channel in self.task.inputs],
                "outputs": [channel.to_dict() for channel in self.task.outputs],
            },
            "dataset": {
                "path": str(self.store.path),
                "spec": self._spec(),
                "grid": list(self.store.shape),
                "sizes": dict(self.store.sizes),
            },
            "config": yaml.safe_dump(dict(self.config), sort_keys=False),
            "history": self.history,
            "training": self._training() if resumable else {},
        }

    def _weights(self) -> dict[str, Any]:
        """What a checkpoint holds of the model: all of it, or what is learned beside frozen weights."""
        state = self.model.state_dict()
        return learned(self.model, state) if self.adapter else state

    def _training(self) -> dict[str, Any]:
        state = {
            "optimizer": whole(self.optimizer.state_dict()),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": self.ranks.gather(random_state(self.device)),
            "progress": asdict(self.progress),
        }
        if self.average is not None:  # the checkpoint's model then is the average
            state |= {"weights": whole(self._weights()), "averaged_steps": self.average.steps}
        return state

    def _take_up(self, before: Mapping[str, Any]) -> None:
        training, weights = before["training"], before["model"]["state"]
        if self.average is not None:
            load_weights(self.model, weights, partly=bool(self.adapter))
            self.average = WeightAverage(self.model, self.average.decay, training["averaged_steps"])
            weights = training["weights"]
        load_weights(self.model, weights, partly=bool(self.adapter))
        load_optimizer(self.optimizer, training["optimizer"])
        self.scheduler.load_state_dict(training["scheduler"])
        self.scaler.load_state_dict(training.get("scaler", {}))
        random = training["random"]
        if self.ranks.rank < len(random):  # more ranks than there were draw what they have been seeded with
            set_random_state(random[self.ranks.rank], self.device)
        self.history = before["history"]
        self.progress = Progress(**training.get("progress", {}))

    def _spec(self) -> str:
        return json.dumps(self.store.spec, sort_keys=True, default=str)


def _named(group: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A registered name and its arguments."""
    arguments = dict(group)
    return arguments.pop("name"), arguments
