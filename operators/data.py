"""Training data: fields of a store as tensors, their normalisation, and the order in which batches are drawn."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from datagen.store import Store
from operators.mixture import Mixture


@dataclass(frozen=True)
class Channel:
    """One channel of a model's input or output.

    Parameters
    ----------
    name, units, description : str
        As the PDE family declares them.
    """

    name: str
    units: str = ""
    description: str = ""

    def to_dict(self) -> dict[str, str]:
        """Plain values, for a checkpoint."""
        return asdict(self)


@dataclass(frozen=True)
class Batch:
    """What a task gives the training loop: examples on the CPU, in physical units and single precision.

    Parameters
    ----------
    inputs : Tensor, shape (batch, in_channels, *grid)
    targets : Tensor, shape (batch, out_channels, *grid)
        For unrolled training ``(batch, steps, out_channels, *grid)``.
    lead_time : Tensor, shape (batch,), optional
        Time from input to target, in units of the task's time scale.
    """

    inputs: Tensor
    targets: Tensor
    lead_time: Tensor | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def average(self, costs: Tensor) -> Tensor:
        """The mean of what a loss says of these examples, in double precision.

        Parameters
        ----------
        costs : Tensor, shape (batch, channels)
        """
        return costs.mean(dtype=torch.float64)

    def _map(self, move: Callable[[Tensor], Tensor]) -> Self:
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return type(self)(**{name: move(t) if isinstance(t, Tensor) else t for name, t in tensors.items()})

    def to(self, device: torch.device | str) -> Self:
        """The same batch on a device; pinned memory is copied while the device computes."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """The same batch in pinned memory, from which a GPU copies faster."""
        return self._map(Tensor.pin_memory)


@dataclass(frozen=True)
class Split:
    """One split of a dataset, in memory.

    Parameters
    ----------
    inputs : Tensor, shape (samples, input channels, *grid)
    outputs : Tensor, shape (samples, output channels, *grid)
    """

    inputs: Tensor
    outputs: Tensor

    def __len__(self) -> int:
        return len(self.inputs)


def channels(store: Store, role: str) -> list[Channel]:
    """Channels of one role, in the order of the store's fields.

    Fields of role "constant" are the same for every sample: they carry nothing to learn from and are no channels.

    Parameters
    ----------
    store : Store
    role : {"input", "output"}

    Raises
    ------
    ValueError
        If the store has none.
    """
    found = [Channel(f.name, f.units or "", f.description or "") for f in store.fields if f.role == role]
    if not found:
        roles = ", ".join(f"{f.name} ({f.role})" for f in store.fields)
        raise ValueError(f"dataset {store.path} has no field of role {role!r} to learn from; its fields: {roles}")
    return found


def periodic_axes(store: Store | Mixture) -> tuple[bool, ...]:
    """Whether each grid axis is periodic.

    Parameters
    ----------
    store : Store or Mixture
    """
    return tuple(all(side == "periodic" for side in sides) for sides in store.boundary)


CHUNK_BYTES = 2**24
"""Read at a time where a whole split passes by: large enough for a disk, small beside any memory."""


class Fields:
    """Some fields of one split as the channels of a tensor, in single precision.

    Parameters
    ----------
    store : Store
    split : {"train", "validation", "test"}
    names : sequence of str
        Fields of the store, in the order of the channels.
    frame : int, "all" or None
        Of fields that vary in time: the frame to read, or all of them. None for fields that do not.
    keep : bool
        Whether to read them now and hold them in memory, or to read from the store what is asked for each time.

    Raises
    ------
    ValueError
        If the split is empty, or (when it is read) a field holds a value that is not finite.
    """

    def __init__(
        self, store: Store, split: str, names: Sequence[str], frame: int | str | None = None, keep: bool = True
    ) -> None:
        if not store.sizes.get(split):
            raise ValueError(f"dataset {store.path} has no {split} samples; it has {dict(store.sizes)}")
        self.store, self.split, self.names = store, split, list(names)
        self.samples: int = store.sizes[split]
        self.frame: int | None = None if isinstance(frame, str) else frame
        frames = (len(store.times),) if frame == "all" else ()
        self.shape = (len(self.names), *frames, *store.shape)
        self._kept: Tensor | None = None
        if keep:
            kept = torch.empty(self.samples, *self.shape)
            for part in self._ranges():
                kept[part] = self._read(part.start, part.stop)
            self._kept = kept

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, indices: Tensor) -> Tensor:
        """Samples of the given indices: ``(batch, channels, *grid)``, or ``(batch, channels, frames, *grid)``."""
        if self._kept is not None:
            return self._kept[indices]
        result = torch.empty(len(indices), *self.shape)
        order = indices.argsort()  # by place on disk, runs of neighbours in one piece
        ordered = indices[order].tolist()
        start = 0
        while start < len(ordered):
            stop = start + 1
            while stop < len(ordered) and ordered[stop] == ordered[stop - 1] + 1:
                stop += 1
            result[order[start:stop]] = self._read(ordered[start], ordered[stop - 1] + 1)
            start = stop
        return result

    def at(self, indices: Tensor, frames: Tensor) -> Tensor:
        """One frame of each sample, where all are at hand (``frame="all"``); only these are read.

        Parameters
        ----------
        indices, frames : Tensor, shape (batch,)

        Returns
        -------
        Tensor, shape (batch, channels, *grid)
        """
        if self._kept is not None:
            return self._kept[indices, :, frames]
        result = torch.empty(len(indices), self.shape[0], *self.shape[2:])
        pairs = list(zip(indices.tolist(), frames.tolist(), strict=True))
        for place in sorted(range(len(pairs)), key=pairs.__getitem__):
            sample, frame = pairs[place]
            result[place] = self._read(sample, sample + 1, frame)[0]
        return result

    def chunks(self) -> Iterator[Tensor]:
        """All samples in order, some at a time."""
        for part in self._ranges():
            yield self._read(part.start, part.stop) if self._kept is None else self._kept[part]

    def _ranges(self) -> Iterator[slice]:
        step = max(1, CHUNK_BYTES // (4 * math.prod(self.shape)))
        for start in range(0, self.samples, step):
            yield slice(start, min(start + step, self.samples))

    def _read(self, start: int, stop: int, frame: int | None = None) -> Tensor:
        frame = self.frame if frame is None else frame
        parts = [_finite(self.store, self.split, name, start, stop, frame) for name in self.names]
        return torch.from_numpy(np.stack(parts, axis=1))


def _finite(store: Store, split: str, name: str, start: int, stop: int, frame: int | None) -> NDArray[np.float32]:
    """Values of one field, in single precision, all of them finite."""
    array = np.asarray(store.read(split, name, start, stop, frame=frame), dtype=np.float32)
    bad = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))
    if bad.size:
        raise ValueError(
            f"dataset {store.path}: {split} sample {start + bad[0]} of field {name!r} is not finite "
            f"({bad.size} such samples); check the dataset with southwell-data validate"
        )
    return array


def fits_in_memory(store: Store, split: str, values: int, memory_gb: float) -> bool:
    """Whether some values of each sample (fields, times their frames) of a split fit a budget in single precision.

    Parameters
    ----------
    store : Store
    split : str
    values : int
        Numbers kept at each grid point of a sample.
    memory_gb : float
        Budget in units of 1e9 bytes.
    """
    return 4.0 * store.sizes.get(split, 0) * values * math.prod(store.shape) <= 1e9 * memory_gb


def load_split(store: Store, split: str) -> Split:
    """Read a split into memory, in single precision. Of evolutions, the outputs are the last frame.

    Parameters
    ----------
    store : Store
    split : {"train", "validation", "test"}

    Raises
    ------
    ValueError
        If the split is empty, or a field holds a value that is not finite.
    """
    last = -1 if store.evolves else None
    inputs = Fields(store, split, [c.name for c in channels(store, "input")])
    outputs = Fields(store, split, [c.name for c in channels(store, "output")], frame=last)
    everything = torch.arange(len(inputs))
    return Split(inputs[everything], outputs[everything])


class GaussianNormaliser(nn.Module):
    r"""Shift and scale each channel to mean 0 and standard deviation 1 over samples and grid.

    .. math:: \hat y = (y - \mu_c) / \sigma_c

    A channel that is constant up to rounding has no scale of its own: ``sigma = 1`` there, so it becomes zero.

    Parameters
    ----------
    mean, standard_deviation : Tensor, shape (channels,)

    Examples
    --------
    >>> normaliser = GaussianNormaliser.fit(torch.tensor([[[1.0, 3.0]], [[5.0, 7.0]]]))
    >>> normaliser(torch.tensor([[[4.0, 4.0]]]))
    tensor([[[0., 0.]]])
    """

    mean: Tensor
    standard_deviation: Tensor

    def __init__(self, mean: Tensor, standard_deviation: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("standard_deviation", standard_deviation)

    @classmethod
    def fit(cls, fields: Tensor) -> "GaussianNormaliser":
        """Measure mean and standard deviation. Give it training data only.

        Parameters
        ----------
        fields : Tensor, shape (samples, channels, *grid)
        """
        return cls.measure([fields])

    @classmethod
    def measure(cls, chunks: Iterable[Tensor]) -> "GaussianNormaliser":
        r"""Measure mean and standard deviation of data that passes by once, in double precision.

        Each chunk has its own mean ``m`` and sum of squared deviations ``S``; two such are joined by [1]_

        .. math:: S_{ab} = S_a + S_b + (m_b - m_a)^2 \frac{n_a n_b}{n_a + n_b}.

        Parameters
        ----------
        chunks : iterable of Tensor, shape (samples, channels, *grid)

        References
        ----------
        .. [1] T. F. Chan, G. H. Golub and R. J. LeVeque, Algorithms for computing the sample variance, The American
           Statistician 37 (1983), p. 242-247, eq. 2.1.
        """
        count, dtype = 0, torch.float32
        mean = squares = torch.zeros(())
        for chunk in chunks:
            # One channel at a time: a double copy of all the data may not fit.
            columns = chunk.detach().movedim(1, 0).flatten(1)
            new, dtype = columns.shape[1], chunk.dtype
            its_mean = torch.stack([channel.mean(dtype=torch.float64) for channel in columns])
            its_squares = torch.stack(
                [(channel.double() - m).square().sum() for channel, m in zip(columns, its_mean, strict=True)]
            )
            if count == 0:
                count, mean, squares = new, its_mean, its_squares
                continue
            difference, total = its_mean - mean, count + new
            mean = mean + difference * (new / total)
            squares = squares + its_squares + difference.square() * (count * new / total)
            count = total
        deviation = (squares / count).sqrt()
        rounding = 10 * torch.finfo(dtype).eps * mean.abs()
        deviation = torch.where(deviation > rounding, deviation, torch.ones_like(deviation))
        return cls(mean.to(dtype), deviation.to(dtype))

    def _columns(self, fields: Tensor) -> tuple[Tensor, Tensor]:
        shape = (-1, *([1] * (fields.ndim - 2)))
        return self.mean.reshape(shape), self.standard_deviation.reshape(shape)

    def forward(self, fields: Tensor) -> Tensor:
        """Physical units to normalised."""
        mean, deviation = self._columns(fields)
        return (fields - mean) / deviation

    def inverse(self, fields: Tensor) -> Tensor:
        """Normalised to physical units."""
        mean, deviation = self._columns(fields)
        return fields * deviation + mean

    def scale(self, fields: Tensor) -> Tensor:
        """Physical units to standard deviations, *not* shifted: relative errors stay what they were."""
        return fields / self._columns(fields)[1]

    def scaled_mean(self, dimensions: int) -> Tensor:
        """What `scale` makes of the mean, shape (1, channels, 1, ..., 1) with as many axes as asked for."""
        return self.scale(self.mean.reshape(1, -1, *[1] * (dimensions - 2)))
