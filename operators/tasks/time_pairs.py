"""The task of evolutions: from the state at one time to the state a lead time later."""

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from datagen.interchange.samples import INITIAL
from datagen.store import Store
from operators.data import Batch, Channel, Fields, GaussianNormaliser, channels, fits_in_memory
from operators.operator import Operator
from operators.tasks.pairing import Pairing
from operators.tasks.protocol import Loss


class Trajectories:
    """The evolving fields of one split, by sample and frame.

    Where the stored frames begin after time 0, the initial fields are frame 0.

    Parameters
    ----------
    store : Store
    split : str
    names : sequence of str
        Evolving fields: the channels.
    leading : bool
        Whether the initial fields stand before the stored frames.
    keep : bool
        Whether to hold all of them in memory.
    """

    def __init__(self, store: Store, split: str, names: Sequence[str], leading: bool, keep: bool) -> None:
        self.stored = Fields(store, split, names, frame="all", keep=keep)
        self.initial = Fields(store, split, [INITIAL + name for name in names], keep=keep) if leading else None

    def __len__(self) -> int:
        return len(self.stored)

    def at(self, samples: Tensor, frames: Tensor) -> Tensor:
        """One frame of each sample: ``(batch,), (batch,) -> (batch, channels, *grid)``."""
        if self.initial is None:
            return self.stored.at(samples, frames)
        first = frames == 0
        states = self.stored.at(samples, (frames - 1).clamp_min(0))
        states[first] = self.initial[samples[first]]
        return states

    def measured(self, frames: Tensor) -> GaussianNormaliser:
        """Mean and standard deviation of each channel over all samples and the given frames."""
        if self.initial is None:
            return GaussianNormaliser.measure(chunk[:, :, frames] for chunk in self.stored.chunks())
        whole = (
            torch.cat([self.initial[torch.arange(len(chunk)) + start][:, :, None], chunk], dim=2)
            for start, chunk in _numbered(self.stored)
        )
        return GaussianNormaliser.measure(chunk[:, :, frames] for chunk in whole)


def _numbered(fields: Fields) -> Iterator[tuple[int, Tensor]]:
    """The chunks of all samples, each with the number of its first."""
    start = 0
    for chunk in fields.chunks():
        yield start, chunk
        start += len(chunk)


class PairExamples:
    """Chains of frames of every sample: example ``e`` is chain ``e % chains`` of sample ``e // chains``.

    Parameters
    ----------
    states : Trajectories
    fixed : Fields or None
        Input fields that do not evolve.
    scalars : Tensor, shape (samples, scalars)
        Numbers of each sample, constant input channels.
    chains : Tensor, shape (chains, steps + 1)
    lead_times : Tensor, shape (chains,), or None
    every_step : bool
        Whether targets are the states after every step, ``(batch, steps, channels, *grid)``, or after the last.
    """

    def __init__(
        self,
        states: Trajectories,
        fixed: Fields | None,
        scalars: Tensor,
        chains: Tensor,
        lead_times: Tensor | None,
        every_step: bool,
    ) -> None:
        self.states, self.fixed, self.scalars = states, fixed, scalars
        self.chains, self.lead_times, self.every_step = chains, lead_times, every_step

    def __len__(self) -> int:
        return len(self.states) * len(self.chains)

    def batch(self, indices: Tensor) -> Batch:
        """Examples of the given indices."""
        samples, number = indices // len(self.chains), indices % len(self.chains)
        frames = self.chains[number]
        parts = [self.states.at(samples, frames[:, 0])]
        if self.fixed is not None:
            parts.append(self.fixed[samples])
        if self.scalars.shape[1]:
            numbers = self.scalars[samples]
            parts.append(
                numbers.reshape(*numbers.shape, *[1] * (parts[0].ndim - 2)).expand(-1, -1, *parts[0].shape[2:])
            )
        if self.every_step:
            targets = torch.stack([self.states.at(samples, step) for step in frames[:, 1:].unbind(1)], dim=1)
        else:
            targets = self.states.at(samples, frames[:, -1])
        lead_time = None if self.lead_times is None else self.lead_times[number]
        return Batch(torch.cat(parts, dim=1), targets, lead_time)


class TimePairsTask:
    r"""Learn the evolution operator: from the state at one time, and a lead time, to the state that much later.

    .. math:: \min_\theta \frac1N \sum_{s} \sum_{(i, j)} \ell\bigl(G_\theta(u_s(t_i), a_s, t_j - t_i), u_s(t_j)\bigr)

    over samples s and the pairs of frames that `operators.tasks.pairing.Pairing` makes. Input channels are the output
    fields at the earlier time, then the input fields that do not evolve (coefficients, sources: all but
    ``initial_...``), then the sample's scalars as constants; outputs are the output fields at the later time. With
    ``steps`` m > 1 the operator is trained on what it does to its own answers, :math:`u^{(k)} = G_\theta(u^{(k - 1)},
    a, t)`, against every :math:`u(t_i + k t)`:

    - unrolled: the mean of the losses of all m steps, with the gradient through all of them;
    - pushforward: the mean of the losses of the first and of the last step, with no gradient from a step to the one
      before: the operator learns to bear its own errors, at the memory of two steps (Brandstetter, Worrall and Welling,
      Message passing neural PDE solvers, ICLR 2022, section 3.1, where the two are added). The first step is needed: an
      operator that answers with the mean from the start gives its last step nothing to learn from.

    Validation and test examples are chains of the same steps, compared at their end. Where the equation's coefficients
    depend on time (heat with a diffusivity that varies in time), a state and a lead time do not determine what
    follows: learn such families ``from_initial``.

    Parameters
    ----------
    store : Store
        Of a family that evolves.
    memory_gb : float
        A split that needs more than this stays on disk and is read batch by batch.
    pairing : {"all2all", "one_step", "from_initial"}
    stride, frames, start, transitions, steps
        As `Pairing` takes them.
    pushforward : bool
        With several steps: the first and the last count, each with the gradient through itself alone.
    time_scale : float, optional
        Lead times are given to the model in units of this; by default the time from the first frame to the last.
    masked : sequence of str
        Output fields that are not learned (a pressure that is zero by convention): their prediction is replaced by the
        truth before losses compare, as Poseidon does, and in rollouts they stay what they were.
    shifted : bool
        Whether the training loss compares fully normalised fields, mean subtracted, as Poseidon's does, instead of
        fields in units of their standard deviation. Validation compares the latter.

    Raises
    ------
    ValueError
        If the family is steady, or an argument does not fit.
    """

    def __init__(
        self,
        store: Store,
        memory_gb: float = 4.0,
        pairing: str = "all2all",
        stride: int = 1,
        frames: int | None = None,
        start: int = 0,
        transitions: Sequence[int] | None = None,
        steps: int = 1,
        pushforward: bool = False,
        time_scale: float | None = None,
        masked: Sequence[str] = (),
        shifted: bool = False,
    ) -> None:
        if not store.evolves:
            raise ValueError(
                f"task time_pairs learns evolutions, but the samples of {store.path} are steady; use task=static, "
                "where a model that is conditioned on time is given lead time 1"
            )
        self.store, self.memory_gb = store, memory_gb
        self.outputs: list[Channel] = channels(store, "output")
        names = [channel.name for channel in self.outputs]
        given = [Channel(f.name, f.units or "", f.description or "") for f in store.fields if f.role == "input"]
        initial = {INITIAL + name for name in names}
        self._fixed = [channel for channel in given if channel.name not in initial]
        self._scalars = [Channel(name, "", "scalar of the sample") for name in store.record_names("scalars")]
        self.inputs: list[Channel] = [*self.outputs, *self._fixed, *self._scalars]
        stored = [float(t) for t in store.times]
        self._leading = stored[0] > 0 and initial <= {channel.name for channel in given}
        times = [0.0, *stored] if self._leading else stored
        self.pairing = Pairing(times, pairing, stride, frames, start, transitions, steps)
        self.steps, self.pushforward, self.shifted = steps, pushforward, shifted
        if pushforward and steps == 1:
            raise ValueError("pushforward=true trains on the first and the last of several steps: give steps=2 or more")
        if time_scale is not None and not (math.isfinite(time_scale) and time_scale > 0):
            raise ValueError(f"time_scale must be positive and finite, got {time_scale!r}")
        self.time_scale = times[-1] - times[0] if time_scale is None else time_scale
        for name in masked:
            if name not in names:
                raise ValueError(f"masked: {name!r} is no output of {store.path}, which has {', '.join(names)}")
        if set(masked) == set(names):
            raise ValueError(f"masked={list(masked)} leaves no output to learn")
        self._masked = [names.index(name) for name in masked]
        # One fixed step is no news to the model.
        self.conditioned_on_time = pairing != "one_step" or not self.pairing.even
        self._examples: dict[str, PairExamples] = {}

    @property
    def time(self) -> dict[str, Any]:
        """For rollouts: whether the operator is told lead times, a step, the scale of time, the range trained on."""
        shortest = min((d for d in self.pairing.transitions or () if d > 0), default=1)  # that was trained on
        step = self.pairing.spacing * shortest
        lead = self.pairing.lead_times
        return {
            "conditioned": self.conditioned_on_time,
            "step": step,
            "scale": self.time_scale,
            "lead_times": [float(lead.min()), float(lead.max())],
        }

    def examples(self, split: str) -> PairExamples:
        """The chains of all samples of a split; targets of training have every step, others the last."""
        if split not in self._examples:
            kept = len(self.pairing.times) * len(self.outputs) + len(self._fixed)
            keep = fits_in_memory(self.store, split, kept, self.memory_gb)
            names = [channel.name for channel in self.outputs]
            fixed = [channel.name for channel in self._fixed]
            lead = torch.tensor(self.pairing.lead_times / self.time_scale, dtype=torch.float32)
            self._examples[split] = PairExamples(
                Trajectories(self.store, split, names, self._leading, keep),
                Fields(self.store, split, fixed, keep=keep) if fixed else None,
                self._read_scalars(split),
                torch.from_numpy(self.pairing.chains),
                lead if self.conditioned_on_time else None,
                every_step=split == "train" and self.steps > 1,
            )
        return self._examples[split]

    def _read_scalars(self, split: str) -> Tensor:
        columns = [torch.tensor(self.store.record(split, f"scalars/{c.name}")) for c in self._scalars]
        return torch.stack(columns, dim=1).float() if columns else torch.empty(self.store.sizes[split], 0)

    def normalisers(self) -> tuple[GaussianNormaliser, GaussianNormaliser]:
        """Of inputs and outputs: states over all training samples and snapshots, the same for both."""
        training = self.examples("train")
        state = training.states.measured(torch.from_numpy(self.pairing.snapshots))
        parts = [state]
        if training.fixed is not None:
            parts.append(GaussianNormaliser.measure(training.fixed.chunks()))
        if self._scalars:
            parts.append(GaussianNormaliser.fit(training.scalars[:, :, None]))
        together = (torch.cat([getattr(p, name) for p in parts]) for name in ("mean", "standard_deviation"))
        return GaussianNormaliser(*together), state

    def loss(self, model: Operator, batch: Batch, loss: Loss) -> Tensor:
        """The loss of one step, or of several as `steps` and `pushforward` say, shape (samples, channels)."""
        if self.steps == 1:
            return self._compared(model, model.normalised(batch.inputs, batch.lead_time), batch.targets, loss)
        costs, inputs = [], batch.inputs
        for number, target in enumerate(batch.targets.unbind(1), 1):
            counts = not self.pushforward or number in (1, self.steps)
            with nullcontext() if counts else torch.no_grad():
                answer = model.normalised(inputs, batch.lead_time)
            if counts:
                costs.append(self._compared(model, answer, target, loss))
            state = model.output_normaliser.inverse(answer)
            inputs = self._advanced(inputs, state.detach() if self.pushforward else state)
        return torch.stack(costs).mean(dim=0)

    def predict(self, model: Operator, batch: Batch) -> Tensor:
        """The operator's answer after all its steps."""
        inputs = batch.inputs
        for _ in range(self.steps - 1):
            inputs = self._advanced(inputs, model(inputs, batch.lead_time))
        return self._unmasked(model.scaled(inputs, batch.lead_time), model.scale(batch.targets))

    def _advanced(self, inputs: Tensor, state: Tensor) -> Tensor:
        """The inputs of the next step: the predicted state, and what does not evolve."""
        count = len(self.outputs)
        return torch.cat([self._unmasked(state, inputs[:, :count]), inputs[:, count:]], dim=1)

    def _unmasked(self, prediction: Tensor, known: Tensor) -> Tensor:
        """The prediction with its masked channels replaced by what is known."""
        if not self._masked:
            return prediction
        prediction = prediction.clone()
        prediction[:, self._masked] = known[:, self._masked]
        return prediction

    def _compared(self, model: Operator, answer: Tensor, target: Tensor, loss: Loss) -> Tensor:
        """The loss of a normalised answer."""
        mean, truth = model.output_normaliser.scaled_mean(answer.ndim), model.scale(target)
        if self.shifted:
            return loss(self._unmasked(answer, truth - mean), truth - mean)
        return loss(self._unmasked(answer + mean, truth), truth)
