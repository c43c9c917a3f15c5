"""Predictions of a trained operator, in physical units: ``load(checkpoint).predict(fields)`` and ``.rollout(...)``."""

import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from datagen.interchange.samples import INITIAL
from operators.checkpoint import load_checkpoint, rebuild_operator
from operators.data import Channel
from operators.devices import choose_device
from operators.mixture import of_part

Fields = NDArray[np.float32]

BATCH_VALUES = 2**18
"""Grid values of one channel that are computed at a time: with 32 hidden channels, 32 MiB an activation."""

LARGEST_VALUE = float(np.finfo(np.float32).max)


class Rollout(NamedTuple):
    """Predicted states of one or many trajectories.

    Attributes
    ----------
    frames : ndarray, shape ([samples,] steps + 1, output channels, *grid)
        The first is the initial state.
    times : ndarray, shape (steps + 1,)
        Physical, from 0, the time of the initial state.
    """

    frames: Fields
    times: NDArray[np.float64]


class Predictor:
    """A trained operator with its normalisers, the names of its channels and what it was trained to do.

    Parameters
    ----------
    content : mapping
        A checkpoint's, as `operators.checkpoint.load_checkpoint` returns it.
    device : str
        "auto", "cpu" or "cuda".

    Attributes
    ----------
    operator : Operator
        From physical fields to physical fields.
    model_name, task_name : str
        As registered.
    inputs, outputs : list of Channel
    grid : tuple of int
        The grid it was trained on. Others are accepted where the model takes them.
    takes_lead_time : bool
        Whether it is told how far ahead to predict.
    step : float or None
        Of operators in time, the lead time of one step of a rollout, in physical time.
    time_scale : float
        Physical time of the lead time 1 that the model sees.
    lead_times : (float, float) or None
        Range of physical lead times that it was trained on, where that is known; others warn.
    from_initial : bool
        Whether it was trained to predict from one frame alone, the `first_frame` of its dataset.
    state : dict of int to int
        Output channel -> input channel that holds the same quantity: where a rollout feeds it back.
    history : list of dict
        Of its training, one entry an epoch.
    config : str
        Of its training, as YAML.
    spec : dict
        Of the dataset it was trained on.
    """

    def __init__(self, content: Mapping[str, Any], device: str = "auto") -> None:
        self.device = choose_device(device)
        self.operator = rebuild_operator(content).to(self.device)
        missing = {"dataset", "config", "history"} - content.keys()
        if missing:
            raise ValueError(
                f"the checkpoint does not say what it was trained on: it lacks {', '.join(sorted(missing))}"
            )
        self.model_name: str = content["model"]["name"]
        self.inputs = [Channel(**channel) for channel in content["channels"]["inputs"]]
        self.outputs = [Channel(**channel) for channel in content["channels"]["outputs"]]
        self.task_name: str = content["task"]["name"]
        arguments = content["task"]["arguments"]
        self.grid = tuple(content["dataset"]["grid"])
        self.dataset_path: str = content["dataset"]["path"]
        self.spec: dict[str, Any] = json.loads(content["dataset"]["spec"])
        time = content.get("time") or {"conditioned": False, "step": None, "scale": 1.0}
        self.takes_lead_time: bool = time["conditioned"]
        self.step: float | None = time["step"]
        self.time_scale: float = time["scale"]
        self.lead_times: tuple[float, float] | None = tuple(time["lead_times"]) if time.get("lead_times") else None
        self.from_initial: bool = arguments.get("pairing") == "from_initial"
        self.first_frame: int = arguments.get("start", 0) * arguments.get("stride", 1) if self.from_initial else 0
        names = [channel.name for channel in self.inputs]
        # The later of two entries for one output holds: a frame of its own name goes before the initial field.
        self.state = {
            number: names.index(name)
            for number, channel in enumerate(self.outputs)
            for name in (INITIAL + channel.name, channel.name)
            if name in names
        }
        masked = [number for number, c in enumerate(self.outputs) if c.name in arguments.get("masked", ())]
        self._masked = {number: self.state[number] for number in masked}
        self.history: list[dict[str, float]] = content["history"]
        self.config: str = content["config"]

    @property
    def parameter_count(self) -> int:
        """Trainable real numbers."""
        return sum(p.numel() for p in self.operator.parameters())

    def predict(
        self,
        fields: NDArray[np.floating],
        lead_time: float | NDArray[np.floating] | None = None,
        batch_size: int | None = None,
    ) -> Fields:
        """Predict the output fields.

        Parameters
        ----------
        fields : ndarray, shape ([samples,] input channels, *grid)
            In physical units, channels in the order of `inputs`, of any real type; any grid that the model takes.
        lead_time : float or ndarray, shape (samples,), optional
            How far ahead to predict, in physical time; only for operators that take one, and then `step` if left out.
        batch_size : int, optional
            Samples computed at a time; by default as many as have about `BATCH_VALUES` grid points.

        Returns
        -------
        ndarray, shape ([samples,] output channels, *grid)
            In physical units, channels in the order of `outputs`, of single precision; without the axis of samples
            where `fields` came without.

        Raises
        ------
        ValueError
            If channels or axes do not fit, a value is not finite, or a lead time is negative or not taken.
        """
        fields, alone = self.checked(fields, "fields")
        lead_times = self._lead_times(lead_time, len(fields))
        prediction = self._predict(fields, lead_times, batch_size)
        return prediction[0] if alone else prediction

    def rollout(
        self,
        initial: NDArray[np.floating],
        steps: int,
        lead_time: float | Sequence[float] | None = None,
        *,
        direct: bool | None = None,
        batch_size: int | None = None,
    ) -> Rollout:
        r"""Predict a trajectory.

        One step after the other, each from the state that the last one predicted,

        .. math:: u_{k+1} = G(u_k, \tau_k), \qquad t_{k+1} = t_k + \tau_k,

        or, directly, every state from the initial one, ``u_k = G(u_0, t_k)``. Inputs that are no part of the state
        (coefficients, sources) stay what they are.

        Parameters
        ----------
        initial : ndarray, shape ([samples,] input channels, *grid)
            As `predict` takes it: the state at time 0, and what else drives it.
        steps : int
            0 or more; 0 gives the initial state.
        lead_time : float or sequence of float, optional
            ``tau``, in physical time: one for all steps, or one for each; `step` if left out.
        direct : bool, optional
            Predict every state from the initial one, for operators that take a lead time; left out, what the operator
            was trained for: directly if it was from the initial state alone.
        batch_size : int, optional
            As for `predict`.

        Returns
        -------
        Rollout
            Frames and times. An unstable rollout ends in values that are not finite; it is not an error.

        Raises
        ------
        ValueError
            If this operator does not step in time, or an argument does not fit.
        """
        initial, alone = self.checked(initial, "initial")
        lead_times = self.steps_of(steps, lead_time)
        times = np.concatenate([[0.0], np.cumsum(lead_times)])
        frames = np.empty((len(initial), len(times), len(self.outputs), *initial.shape[2:]), dtype=np.float32)
        frames[:, 0] = self.initial_state(initial)
        for number, frame in enumerate(self.frames(initial, lead_times, direct=direct, batch_size=batch_size), 1):
            frames[:, number] = frame
        return Rollout(frames[0] if alone else frames, times)

    def frames(
        self,
        initial: NDArray[np.floating],
        lead_times: Sequence[float] | NDArray[np.floating],
        *,
        direct: bool | None = None,
        batch_size: int | None = None,
    ) -> Iterator[Fields]:
        """The states of a rollout one after the other, without the initial one: (samples, output channels, *grid).

        Never more than one of them is in memory. Arguments as for `rollout`.
        """
        self._check_steps_in_time()
        direct = self.from_initial if direct is None else direct
        if direct and not self.takes_lead_time:
            raise ValueError(
                "direct=True: this operator was trained for one fixed step and takes no lead time; it can only be "
                "rolled out step by step"
            )
        current = np.array(initial, dtype=np.float32)
        elapsed = 0.0
        for lead_time in lead_times:
            elapsed += float(lead_time)
            ahead = self._lead_times(elapsed if direct else float(lead_time), len(current))
            state = self._predict(current, ahead, batch_size)
            if not direct:
                for output, place in self.state.items():
                    current[:, place] = state[:, output]
            yield state

    def initial_state(self, initial: NDArray[np.floating]) -> Fields:
        """The output channels as they are at time 0, out of input fields of shape (samples, input channels, *grid)."""
        self._check_steps_in_time()
        return np.asarray(initial[:, [self.state[number] for number in range(len(self.outputs))]], dtype=np.float32)

    def steps_of(self, steps: int, lead_time: float | Sequence[float] | None = None) -> NDArray[np.float64]:
        """The lead time of each step of a rollout, shape (steps,), after it was looked at.

        Raises
        ------
        ValueError
            If steps or a lead time are negative, or their numbers differ.
        """
        self._check_steps_in_time()
        if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 0:
            raise ValueError(f"steps must be a whole number that is not negative, got {steps!r}")
        given = _numbers(self.step if lead_time is None else lead_time)
        if given.ndim > 1 or (given.ndim == 1 and len(given) != steps):
            raise ValueError(f"lead_time must be one number, or {steps} (one a step), got an array of {given.shape}")
        for value in np.atleast_1d(given):
            self._lead_times(float(value), 1)
        return np.array(np.broadcast_to(given, (int(steps),)))

    def _check_steps_in_time(self) -> None:
        if self.step is None:
            raise ValueError(
                f"this operator was trained with task {self.task_name}, which does not step in time, so it cannot be "
                "rolled out; train one with task=time_pairs"
            )
        lacking = [c.name for number, c in enumerate(self.outputs) if number not in self.state]
        if lacking:
            raise ValueError(
                f"this operator predicts {', '.join(lacking)}, which its inputs "
                f"({', '.join(c.name for c in self.inputs)}) do not hold: it cannot be rolled out"
            )

    def checked(self, fields: Any, name: str, first: int = 0) -> tuple[NDArray[Any], bool]:
        """Input fields with an axis of samples, and whether they came without it.

        Parameters
        ----------
        fields : array_like
            As `predict` takes them.
        name : str
            Of the argument, for messages.
        first : int
            The number of the first sample, for messages.

        Raises
        ------
        ValueError
            If channels or axes do not fit, or a value is not a real number that single precision can hold.
        """
        fields = np.asarray(fields)
        alone = self.check_shape(fields, name)
        batched = fields[None] if alone else fields
        for number, channel in enumerate(self.inputs):
            values = batched[:, number]
            largest = np.abs(values).max(axis=tuple(range(1, values.ndim)), initial=0)
            bad = np.flatnonzero(~(largest <= LARGEST_VALUE))  # so that nan is bad
            if bad.size:
                kind = "too large for single precision" if np.all(np.isfinite(values[bad[0]])) else "not finite"
                where = "" if alone else f" in sample {first + bad[0]} ({bad.size} such samples)"
                raise ValueError(f"{name}: channel {channel.name!r} holds values that are {kind}{where}")
        return batched, alone

    def check_shape(self, fields: NDArray[Any], name: str) -> bool:
        """Whether input fields are one sample without the axis of samples; raises if they are of no shape that fits."""
        axes = len(self.grid)
        if fields.dtype.kind not in "fiub":
            raise ValueError(f"{name} must hold real numbers, got an array of dtype {fields.dtype}")
        if fields.ndim not in (axes + 1, axes + 2) or fields.shape[-axes - 1] != len(self.inputs):
            names = ", ".join(channel.name for channel in self.inputs)
            raise ValueError(
                f"{name} has shape {fields.shape}, but this operator takes ([samples,] {len(self.inputs)} input "
                f"channels ({names}), and {axes} grid axes)"
            )
        return fields.ndim == axes + 1

    def _lead_times(self, lead_time: Any, samples: int) -> NDArray[np.float64] | None:
        """Physical lead times a sample, or None where the operator takes none."""
        if lead_time is None:
            return np.full(samples, self.step) if self.takes_lead_time else None
        given = _numbers(lead_time)
        if given.shape not in ((), (samples,)):
            raise ValueError(f"lead_time must be one number, or {samples} (one a sample), got shape {given.shape}")
        if not (np.all(np.isfinite(given)) and np.all(given >= 0)):
            raise ValueError(f"lead_time must be finite and not negative, got {lead_time!r}")
        if self.takes_lead_time:
            self._warn_outside(given)
            return np.broadcast_to(given, (samples,))
        if self.step is None:
            raise ValueError(f"this operator was trained with task {self.task_name} and takes no lead time")
        if not np.allclose(given, self.step, rtol=1e-6, atol=0.0):
            raise ValueError(f"this operator was trained for the lead time {self.step:g} alone, got {lead_time!r}")
        return None

    def _warn_outside(self, given: NDArray[np.float64]) -> None:
        """Say so where a lead time is outside of what was trained on, to rounding of stored times."""
        if self.lead_times is None or given.size == 0:
            return
        shortest, longest = self.lead_times
        room = 1e-5 * longest
        if given.min() < shortest - room or given.max() > longest + room:
            asked = f"{given.min():.4g}" if given.ndim == 0 else f"{given.min():.4g} to {given.max():.4g}"
            warnings.warn(
                f"lead time {asked} was asked for, but this operator was trained on {shortest:.4g} to {longest:.4g}: "
                "what it says of others is extrapolation. Take several steps (rollout), or train on longer ones",
                stacklevel=4,
            )

    def _predict(self, fields: NDArray[Any], lead_times: NDArray[np.float64] | None, batch_size: int | None) -> Fields:
        points = math.prod(fields.shape[2:])
        size = max(1, BATCH_VALUES // max(points, 1)) if batch_size is None else batch_size
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
            raise ValueError(f"batch_size must be a whole number of at least 1, got {batch_size!r}")
        predictions = np.empty((len(fields), len(self.outputs), *fields.shape[2:]), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(fields), size):
                part = slice(start, start + size)
                batch = torch.from_numpy(np.array(fields[part], dtype=np.float32)).to(self.device)
                ahead = None
                if lead_times is not None:
                    ahead = torch.from_numpy((lead_times[part] / self.time_scale).astype(np.float32)).to(self.device)
                predictions[part] = self.operator(batch, ahead).cpu().numpy()
        for output, place in self._masked.items():  # never learned: they stay what they were
            predictions[:, output] = fields[:, place]
        return predictions


def _numbers(lead_time: Any) -> NDArray[np.float64]:
    try:
        return np.asarray(lead_time, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"lead_time must be a number, or one for each, got {lead_time!r}") from None


def load(path: str | Path, device: str = "auto", part: int | None = None) -> Predictor:
    """Rebuild a trained operator from its checkpoint alone.

    Parameters
    ----------
    path : path
        ``best.pt`` or ``last.pt`` of a run.
    device : str
        "auto", "cpu" or "cuda".
    part : int, optional
        Of an operator trained on a mixture: which of the datasets, counted from 0, it shall predict.

    Raises
    ------
    ValueError
        If there is no such checkpoint, it is damaged, of a later format, or of a model, task or GPU that is not here
        (`operators.checkpoint.load_checkpoint`), or it is of a mixture and `part` is none of it.

    Examples
    --------
    >>> load("runs/tfno/best.pt")
    Traceback (most recent call last):
        ...
    ValueError: no checkpoint at runs/tfno/best.pt; southwell-train leaves best.pt and last.pt in its out folder
    """
    return Predictor(of_part(load_checkpoint(path), part), device)
