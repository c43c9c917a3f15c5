r"""Mixtures of datasets of one family: few hard samples and many easier ones, or what a budget buys of each.

The first dataset is the hard one. Its validation and test splits, whole and in order, are those of every mixture: what
is tested on was fixed before anything was mixed, and no easier sample is in it. Of a training split a mixture has the
first samples. Samples of a dataset are drawn independently, so that the first n are as good as any n, and

- mixtures of growing :math:`\alpha`, budget or ladder are nested: what was there of a class before is there still;
- the same words make the same bytes.

A mixture is a dataset of its own, with copies of the samples: it trains, moves and lives as any other does, and needs
its sources no more. It costs their bytes a second time, and the time to read and write them (a second for some hundred
megabytes). References into other folders would cost nothing, and are what Southwell's readers refuse by principle.

Statistics of a mixture are those of its training split: `southwell-train` measures normalisers on nothing else.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datagen.difficulty import LABEL_TYPE
from datagen.discretise import boundary_names
from datagen.family import SPLITS, build
from datagen.files import json_bytes, read_json, sha256, sha256_of_file
from datagen.interchange.folder import write_folder
from datagen.interchange.samples import Samples
from datagen.pdes.imported import Imported
from datagen.pdes.mixed import Mixed, origins
from datagen.store import Spec, Store

Array = NDArray[Any]
UNITS = ("work", "seconds")

# -- How many of each -------------------------------------------------------------------------------------------------


def by_fraction(samples: int, alpha: float) -> list[int]:
    """Hard and easier samples of a mixture of fixed size: ``round(alpha samples)`` and the rest.

    Parameters
    ----------
    samples : int
        Of both together.
    alpha : float
        Share of the hard ones, from 0 to 1.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> [by_fraction(800, alpha) for alpha in (0, 0.00125, 0.1, 1)]
    [[0, 800], [1, 799], [80, 720], [800, 0]]
    """
    _require_count("samples", samples, 1)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be the share of hard samples, from 0 to 1, got {alpha!r}")
    hard = math.floor(alpha * samples + 0.5)
    return [hard, samples - hard]


def by_budget(costs: Sequence[Array], budget: float, shares: Sequence[float]) -> list[int]:
    """Samples of each class that its share of a budget buys: the first n, the most with ``sum(cost) <= share budget``.

    Parameters
    ----------
    costs : sequence of ndarray (samples,)
        Of the training samples of each class, in one unit.
    budget : float
    shares : sequence of float
        Parts of the budget, not negative, that add up to 1.

    Raises
    ------
    ValueError
        If an argument is out of range, or a class has too few samples for its share.

    Examples
    --------
    >>> hard, easy = np.full(10, 5.0), np.full(50, 1.0)
    >>> by_budget([hard, easy], 40, [0.5, 0.5])
    [4, 20]
    """
    if not (math.isfinite(budget) and budget > 0):
        raise ValueError(f"budget must be positive and finite, got {budget!r}")
    if len(shares) != len(costs) or min(shares) < 0 or not math.isclose(sum(shares), 1, rel_tol=1e-9):
        raise ValueError(
            f"shares must be {len(costs)} parts of the budget, one a dataset, that add up to 1; got "
            f"{', '.join(f'{share:g}' for share in shares)}"
        )
    counts = []
    for number, (cost, share) in enumerate(zip(costs, shares, strict=True)):
        # Shares are rounded: what costs exactly its share is bought.
        paid, allowed = np.cumsum(cost, dtype=np.float64), share * budget * (1 + 1e-12)
        count = int(np.searchsorted(paid, allowed, side="right"))
        if count == len(cost) and allowed - (paid[-1] if count else 0) >= max(cost, default=0) > 0:
            raise ValueError(
                f"dataset {number + 1} has {len(cost)} training samples, which cost {paid[-1]:.6g}, and its share of "
                f"the budget is {share * budget:.6g}: generate more, or lower budget or its share"
            )
        counts.append(count)
    return counts


def ladder(base: int, extra: int) -> list[int]:
    """A base of hard samples, and easier ones beside it.

    Parameters
    ----------
    base, extra : int

    Raises
    ------
    ValueError
        If a number is negative.

    Examples
    --------
    >>> ladder(200, 3200)
    [200, 3200]
    """
    return [_require_count("base", base, 0), _require_count("extra", extra, 0)]


def _require_count(name: str, value: int, least: int) -> int:
    if value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return value


# -- What they cost ---------------------------------------------------------------------------------------------------


def costs(store: Store, unit: str = "work", split: str = "train") -> Array:
    """What each sample of a split cost, shape ``(samples,)``.

    Parameters
    ----------
    store : Store
    unit : {"work", "seconds"}
        Counted passes over unknowns, the same on every machine; or measured seconds, of the run that made the dataset.
    split : str

    Raises
    ------
    ValueError
        If the dataset does not say.
    """
    if unit not in UNITS:
        raise ValueError(f"unit must be {' or '.join(UNITS)}, got {unit!r}")
    if unit == "work":
        if store.sizes[split] and "work" not in store.record_names("cost"):
            raise ValueError(f"{store.path} does not say what its samples cost: there is no cost/work in it")
        return store.record(split, "cost/work")
    found = _seconds(store, split)
    if found is None:
        raise ValueError(f"{store.path} does not say how many seconds its samples took; take unit=work")
    return found


def _seconds(store: Store, split: str) -> Array | None:
    """Measured seconds from the sidecars; None if they are not there."""
    pieces: list[float] = []
    for shard in store.shards(split):
        path = store.path / shard.sidecar
        measured = read_json(path).get("seconds", {}).get("samples", []) if path.exists() else []
        if len(measured) != shard.stop - shard.start:
            return None
        pieces += measured
    return np.array(pieces)


# -- The mixture ------------------------------------------------------------------------------------------------------


def check_fit(stores: Sequence[Store]) -> None:
    """Refuse datasets whose samples are not of one kind.

    Parameters
    ----------
    stores : sequence of Store
        The hard one first.

    Raises
    ------
    ValueError
        With what differs.
    """
    first = stores[0]
    ours = _kind(first)
    known = _origins(first)
    for store in stores[1:]:
        theirs = _kind(store)
        differing = [f"{key} is {theirs[key]} there and {ours[key]} here" for key in ours if theirs[key] != ours[key]]
        if differing:
            raise ValueError(f"{store.path} does not fit together with {first.path}: {'; '.join(differing)}")
        if known & _origins(store):
            raise ValueError(f"{store.path} is given twice, or part of a mixture that is given: samples would repeat")
        known |= _origins(store)


def _origins(store: Store) -> set[str]:
    """Digests of the specs of the datasets that a store's samples were made in."""
    return {sha256(json_bytes(spec)) for spec in origins(store.spec)}


def _kind(store: Store) -> dict[str, Any]:
    """What samples have to agree in: the fields and their grid, not the parameters that make them easy or hard."""
    family = build(**origins(store.spec)[0]["pde"])
    return {
        "the family": family.name,
        "the grid": family.mesh.shape,
        "the list of fields": [(field.name, field.role, field.units) for field in family.fields],
        "the list of scalars": store.record_names("scalars"),
        "the box": family.mesh.lengths,
        "the centring": family.mesh.centring,
        "the condition at the sides": boundary_names(family.boundary),
        "the list of times": [float(t) for t in family.times],
        "store.dtype": store.spec["dtype"],
    }


class Taken:
    """Runs of samples of several stores, one after the other, as if they were of one.

    Parameters
    ----------
    runs : sequence of (int, str, int)
        Number of the store, split, and how many of its first samples.
    stores : sequence of Store
    """

    def __init__(self, runs: Sequence[tuple[int, str, int]], stores: Sequence[Store]) -> None:
        self.runs, self.stores = [run for run in runs if run[2]], stores
        self.count = sum(count for _, _, count in self.runs)

    def read(self, name: str, start: int, stop: int) -> Array:
        """Values of a field of some samples."""
        pieces, first = [], 0
        for number, split, count in self.runs:
            low, high = max(start - first, 0), min(stop - first, count)
            if low < high:
                pieces.append(self.stores[number].read(split, name, low, high))
            first += count
        return np.concatenate(pieces)

    def column(self, of: Callable[[Store, str, int], Array]) -> Array:
        """Something of every sample: ``of(store, split, count)`` of each run."""
        return np.concatenate([of(self.stores[number], split, count) for number, split, count in self.runs])

    def columns(self) -> dict[str, Array]:
        """What all stores record of their samples, and where each sample comes from."""
        found = {}
        for group in ("scalars", "cost", "quality"):
            for name in sorted(set.intersection(*(set(_names(store, group)) for store in self.stores))):
                place = f"{group}/{name}"
                found[place] = self.column(partial(_recorded, place))
        found["provenance/part"] = np.concatenate([np.full(count, number) for number, _, count in self.runs])
        found["provenance/part_sample"] = self.column(lambda store, split, count: np.arange(count))
        if any("level" in _names(store, "provenance") for store in self.stores):
            found["provenance/level"] = self.column(_levels)
        return found

    def seconds(self) -> Array | None:
        """Measured seconds of every sample, if all stores have them."""
        pieces = [_seconds(self.stores[number], split) for number, split, _ in self.runs]
        known = [piece for piece in pieces if piece is not None]
        if len(known) < len(pieces):
            return None
        return np.concatenate([piece[:count] for piece, (_, _, count) in zip(known, self.runs, strict=True)])


def _names(store: Store, group: str) -> list[str]:
    """Records of a group; a dataset of a file may have none."""
    try:
        return store.record_names(group)
    except ValueError:
        return []


def _recorded(place: str, store: Store, split: str, count: int) -> Array:
    return store.record(split, place, 0, count)


def _levels(store: Store, split: str, count: int) -> Array:
    if "level" not in _names(store, "provenance"):
        return np.full(count, b"", LABEL_TYPE)
    return store.record(split, "provenance/level", 0, count)


def mix(
    stores: Sequence[Store],
    counts: Sequence[int],
    folder: str | Path,
    *,
    shard_size: int | None = None,
    on_shard: Callable[[int], None] = lambda count: None,
) -> Spec:
    """Write a mixture; the same call completes an interrupted one.

    Parameters
    ----------
    stores : sequence of Store
        The hard one first: its validation and test splits are the mixture's.
    counts : sequence of int
        Training samples of each, the first ones.
    folder : path
    shard_size : int, optional
        As the hard dataset's if left out.
    on_shard : callable
        Told of the samples of each shard that is written.

    Raises
    ------
    ValueError
        If datasets do not fit together, one has too few samples, none is left, or the folder holds something else.
    """
    check_fit(stores)
    for store, count in zip(stores, counts, strict=True):
        if count > store.sizes["train"]:
            raise ValueError(
                f"{store.path} has {store.sizes['train']} training samples, and the mixture needs {count} of them: "
                f"generate it with samples.train={count} (of the same seed, the first stay what they are)"
            )
    if not sum(counts):
        raise ValueError("the mixture would have no training samples")
    hard = stores[0]
    runs = [(number, "train", count) for number, count in enumerate(counts)]
    runs += [(0, split, hard.sizes[split]) for split in SPLITS[1:]]
    taken = Taken(runs, stores)
    parts = [
        {
            "name": store.path.resolve().name,
            "spec": store.spec,
            "sha256": sha256_of_file(store.path / "manifest.json"),
            "samples": count,
        }
        for store, count in zip(stores, counts, strict=True)
    ]
    about = Mixed(**{**_imported(hard), "parts": parts})
    samples = Samples(about, taken.count, hard.spec["dtype"], taken.read, taken.columns(), taken.seconds())
    sizes = {"train": sum(counts), **{split: hard.sizes[split] for split in SPLITS[1:]}}
    size = hard.spec["shard_size"] if shard_size is None else shard_size
    return write_folder(samples, Path(folder), sizes, size, hard.spec["dtype"], on_shard)


def _imported(store: Store) -> dict[str, Any]:
    """What a mixture has of its first part's family: fields, grid, sides, times."""
    about = asdict(Imported.of(store.family))
    return {key: value for key, value in about.items() if key not in ("parts", "source", "sha256", "layout")}
