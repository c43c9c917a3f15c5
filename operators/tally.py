"""Errors of predictions, gathered while a test split streams by: numbers of each sample, fields of none."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from operators.metrics import measure, spectrum

CURVES = ("relative_l2", "correlation")
"""Metrics that are measured at every frame of a rollout; the others at its last."""

SPECTRUM_VALUES = 2**18  # transformed at a time, in double precision

Fields = NDArray[np.floating]


class Tally:
    """Metrics of one predictor, sample by sample and, in time, frame by frame.

    Parameters
    ----------
    metrics : sequence of str
        Measured at the last frame.
    frames : sequence of int
        That it will be asked for; the last is the one that metrics and spectra are taken of.
    periodic : sequence of bool
        Of each grid axis.
    spectral : bool
        Whether to gather the spectrum of its error.
    """

    def __init__(
        self, metrics: Sequence[str], frames: Sequence[int], periodic: Sequence[bool], spectral: bool = False
    ) -> None:
        self.metrics = tuple(metrics)
        self.frames = tuple(frames)
        self.periodic = tuple(periodic)
        self.seconds = 0.0
        self.energy = Energy(periodic) if spectral else None
        self.error_energy = Energy(periodic) if spectral else None
        self._final: dict[str, list[NDArray[np.float64]]] = {}
        self._curves: dict[str, dict[int, list[NDArray[np.float64]]]] = {
            name: {frame: [] for frame in self.frames} for name in CURVES
        }

    def add(self, frame: int, prediction: Fields, truth: Fields) -> None:
        """Measure predictions of some more samples at one frame.

        Parameters
        ----------
        frame : int
        prediction, truth : ndarray, shape (samples, channels, *grid)
        """
        final = frame == self.frames[-1]
        names = dict.fromkeys((*CURVES, *self.metrics)) if final else CURVES
        values = measure(prediction, truth, self.periodic, names)
        for name in CURVES:
            self._curves[name][frame].append(values[name])
        if final:
            for name in self.metrics:
                if name in values:  # others have no meaning on this grid
                    self._final.setdefault(name, []).append(values[name])
            if self.energy is not None and self.error_energy is not None:
                self.energy.add(prediction)
                self.error_energy.add(np.asarray(prediction, dtype=np.float64) - truth)

    @property
    def values(self) -> dict[str, NDArray[np.float64]]:
        """Every metric at the last frame, shape (samples, channels)."""
        return {name: np.concatenate(parts) for name, parts in self._final.items()}

    def curve(self, name: str) -> NDArray[np.float64]:
        """A metric of `CURVES` at every frame, shape (samples, frames, channels)."""
        return np.stack([np.concatenate(self._curves[name][frame]) for frame in self.frames], axis=1)


class Energy:
    """The mean spectrum (`operators.metrics.spectrum`) of fields that stream by, without those that are not finite.

    Parameters
    ----------
    periodic : sequence of bool
        Of each grid axis.

    Examples
    --------
    >>> energy, x = Energy([True]), np.arange(8) / 8
    >>> energy.add(2 * np.cos(2 * np.pi * x)[None, None])
    >>> energy.mean.round(12)[0, :3]
    array([0., 2., 0.])
    """

    def __init__(self, periodic: Sequence[bool]) -> None:
        self.periodic = tuple(periodic)
        self.samples = 0
        self._sum: NDArray[np.float64] | None = None

    def add(self, fields: Fields) -> None:
        """Take in some more fields, shape (samples, channels, *grid)."""
        step = max(1, SPECTRUM_VALUES // max(1, int(np.prod(fields.shape[1:]))))
        for start in range(0, len(fields), step):
            part = np.array(fields[start : start + step], dtype=np.float64)
            sound = np.isfinite(part).reshape(len(part), -1).all(axis=1)
            part[~sound] = 0.0
            summed = spectrum(torch.from_numpy(part), self.periodic).sum(dim=0).numpy()
            self._sum = summed if self._sum is None else self._sum + summed
            self.samples += int(sound.sum())

    @property
    def mean(self) -> NDArray[np.float64]:
        """Shape (channels, wavenumbers)."""
        if self._sum is None:
            raise ValueError("no fields were added: there is no spectrum of none")
        return self._sum / max(self.samples, 1)
