"""Training data: splits of a store as tensors, their normalisation, and the order in which batches are drawn."""

from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn

from datagen.store import Store


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


def periodic_axes(store: Store) -> tuple[bool, ...]:
    """Whether each grid axis is periodic."""
    return tuple(all(side == "periodic" for side in sides) for sides in store.boundary)


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
    if not store.sizes.get(split):
        raise ValueError(f"dataset {store.path} has no {split} samples; it has {dict(store.sizes)}")

    def stacked(role: str) -> Tensor:
        arrays = []
        frame = -1 if store.evolves and role == "output" else None
        for channel in channels(store, role):
            array = np.asarray(store.read(split, channel.name, frame=frame), dtype=np.float32)
            bad = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))
            if bad.size:
                raise ValueError(
                    f"dataset {store.path}: {split} sample {bad[0]} of field {channel.name!r} is not finite "
                    f"({bad.size} such samples); check the dataset with southwell-data validate"
                )
            arrays.append(array)
        return torch.from_numpy(np.stack(arrays, axis=1))

    return Split(stacked("input"), stacked("output"))


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
        by_channel = fields.detach().movedim(1, 0).flatten(1)
        # Two passes in double precision, one channel at a time (a double copy of all the data may not fit).
        mean = torch.stack([channel.mean(dtype=torch.float64) for channel in by_channel])
        deviation = torch.stack(
            [(channel.double() - m).square().mean().sqrt() for channel, m in zip(by_channel, mean, strict=True)]
        )
        rounding = 10 * torch.finfo(fields.dtype).eps * mean.abs()
        deviation = torch.where(deviation > rounding, deviation, torch.ones_like(deviation))
        return cls(mean.to(fields.dtype), deviation.to(fields.dtype))

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


def epoch_batches(samples: int, batch_size: int, seed: int, epoch: int) -> list[Tensor]:
    """Sample indices of each batch of one epoch, in random order.

    A pure function of seed and epoch: the same for any number of workers, and after a resume.

    Parameters
    ----------
    samples, batch_size : int
        The last batch may be smaller.
    seed, epoch : int

    Examples
    --------
    >>> [len(batch) for batch in epoch_batches(10, 4, seed=0, epoch=3)]
    [4, 4, 2]
    """
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch,)))
    return list(torch.from_numpy(generator.permutation(samples)).split(batch_size))
