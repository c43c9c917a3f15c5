"""Samples of several datasets of one family: each has its equation, the whole has none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from datagen.family import build, register
from datagen.pdes.imported import Imported


@register("mixed")
@dataclass(frozen=True)
class Mixed(Imported):
    """Samples taken from datasets of one family at several levels of difficulty, as `southwell-data mix` copies them.

    Fields, grid, sides and times are those of every part. Parameters differ from part to part, so that there is no one
    equation to draw from or to solve: samples are as they are, and each says by ``provenance/part`` and
    ``provenance/part_sample`` where it was made.

    Parameters
    ----------
    grid, declared, lengths, centring, sides, frame_times, source, sha256, layout
        As `Imported` takes them.
    parts : sequence of mapping
        One a dataset, the hard one first, whose validation and test splits are the whole's: its ``name``, its ``spec``,
        the ``sha256`` of its manifest and the ``samples`` of its training split that were taken, the first.

    Raises
    ------
    ValueError
        If an entry does not fit.

    Examples
    --------
    >>> fields = [{"name": "rain", "role": "input"}, {"name": "flood", "role": "output"}]
    >>> parts = [{"name": "storms", "spec": {}, "sha256": "", "samples": 80}]
    >>> Mixed(grid=[32, 16], declared=fields, parts=parts).parts[0]["samples"]
    80
    """

    parts: Sequence[Mapping[str, Any]] = ()

    title: ClassVar[str] = "samples of several datasets"

    @property
    def fixed(self) -> tuple[str, ...]:
        """What is the same in every sample of every part."""
        fixed = [set(build(**part["spec"]["pde"]).fixed) for part in self.parts]
        return tuple(sorted(set.intersection(*fixed))) if fixed else ()

    def part_of(self, split: str, index: int) -> int:
        """Number of the part that a sample comes from: all but training samples are of the first."""
        ends = np.cumsum([part["samples"] for part in self.parts])
        return int(np.searchsorted(ends, index, side="right")) if split == "train" else 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for part in self.parts:
            if not isinstance(part, Mapping) or set(part) != {"name", "spec", "sha256", "samples"}:
                raise ValueError(f"mixed: parts must hold mappings of name, spec, sha256 and samples, got {part!r}")


def origins(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Specs of the datasets in which the training samples of a dataset were made: its own, or those of its parts.

    Parameters
    ----------
    spec : mapping
        As in ``spec.json``.
    """
    parts = spec.get("pde", {}).get("parts")
    if parts is None:
        return [spec]
    return [origin for part in parts if part["samples"] for origin in origins(part["spec"])]
