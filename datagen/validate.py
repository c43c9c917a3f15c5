"""Independent checks of a written dataset: is every stored number what it claims to be?

Nothing here is shared with the code that made the data, except the random draw, which has to be the same. The equation
is assembled anew from incidence matrices (`independent_system`), the residual of every stored sample is bounded, and a
random subset is drawn again from its seeds and solved by a sparse factorisation. Evolutions: `validate_evolution`.

**The bound.** The solver left a residual ``||b - A u|| <= rtol ||b||`` for the float64 solution u, of which the file
holds ``u (1 + delta)`` with ``|delta| <= eps/2`` of the stored precision. So every component of the stored solution's
residual r obeys

    |r_i| <= rtol ||b||_2 + (eps/2) (|A| |u|)_i + 16 eps64 (|A| |u| + |b|)_i,

the last term being the rounding of this check itself. Inputs bring no error: systems are built from stored inputs.
Where the file repeats what was given (boundary nodes, holes) there is no solver, and the first term is absent. A
complex u is stored as two real fields, and checked as the real system of twice the size.
"""

import warnings
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray
from scipy.sparse import linalg as sparse_linalg

from datagen.draw import draw
from datagen.evolve.family import EvolvingFamily
from datagen.family import SPLITS, Family, Sample
from datagen.files import read_json, sha256, sha256_of_file
from datagen.folder import shard_defect
from datagen.grids import Grid
from datagen.pdes.darcy import Darcy
from datagen.pdes.mixed import Mixed
from datagen.steady_assemblies import STEADY, legacy_fno_system, legacy_fno_values
from datagen.store import DamagedShard, Shard, Spec, Store, open_shard, read_array
from datagen.validate_evolution import EvolutionCheck
from datagen.validate_records import extreme_faults, file_faults, lacking_records, manifest_faults
from datagen.well_format import well_faults

System = tuple[sparse.csr_array, NDArray[np.float64]]
_independent: dict[type[Family], Callable[[Any, Sample], System]] = {}


def _gradient(points: int, spacing: float) -> sparse.csr_array:
    """Differences of neighbouring cells over their distance, with a zero ghost value half a cell outside each end.

    Shape ``(points + 1, points)``: one row a face.
    """
    rows = sparse.diags_array([np.ones(points), -np.ones(points)], offsets=[0, -1], shape=(points + 1, points))
    distance = np.full(points + 1, spacing)
    distance[[0, -1]] = spacing / 2
    return sparse.csr_array(sparse.diags_array(1 / distance) @ rows)


def dirichlet_diffusion(coefficient: NDArray[np.float64], mesh: Grid) -> sparse.csr_array:
    """``-div(a grad u)``, u = 0 on the boundary, as ``sum over axes of  D' W D``: flux over face, then divergence.

    D is the difference along an axis (Kronecker product of identities and `_gradient`), W holds face coefficients
    times the share of the face's control length in the cell volume.

    Parameters
    ----------
    coefficient : ndarray, of the grid's shape
        a.
    mesh : Grid
    """
    total = sparse.csr_array((mesh.size, mesh.size))
    for axis, (points, spacing) in enumerate(zip(mesh.shape, mesh.spacing, strict=True)):
        difference: Any = sparse.eye_array(1)
        for other, count in enumerate(mesh.shape):
            factor = _gradient(points, spacing) if other == axis else sparse.eye_array(count)
            difference = sparse.kron(difference, factor, format="csr")
        resistance = 1 / np.moveaxis(coefficient, axis, 0)
        # A face lies in series between two half cells; at the boundary there is only one.
        face = np.empty((points + 1, *resistance.shape[1:]))
        face[1:-1] = (resistance[:-1] + resistance[1:]) / 2
        face[0], face[-1] = resistance[0], resistance[-1]
        length = np.full(points + 1, 1.0)
        length[[0, -1]] = 0.5
        weight = np.moveaxis(length.reshape(-1, *[1] * (face.ndim - 1)) / face, 0, axis).ravel()
        total = total + difference.T @ sparse.diags_array(weight) @ difference
    return sparse.csr_array(total)


def _darcy_system(family: Darcy, sample: Sample) -> System:
    if family.legacy_fno:
        return legacy_fno_system(family, sample)
    coefficient = np.asarray(sample.fields["coefficient"], dtype=np.float64)
    return dirichlet_diffusion(coefficient, family.mesh), np.full(family.mesh.size, float(family.source))


_independent[Darcy] = _darcy_system
_independent.update(STEADY)


def independent_system(family: Family, sample: Sample) -> System | None:
    """The linear system of a sample, assembled without `datagen.discretise`; None for families not known here.

    Parameters
    ----------
    family : Family
    sample : Sample
    """
    assemble = _independent.get(type(family))
    return None if assemble is None else assemble(family, sample)


def unknowns(family: Family, stored: Mapping[str, NDArray[Any]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The vector that the independent system is about, and the size that the rounding of each entry is relative to.

    Parameters
    ----------
    family : Family
    stored : mapping of str to ndarray
        Output fields by name.
    """
    outputs = [np.asarray(stored[f.name], dtype=np.float64) for f in family.role("output")]
    if isinstance(family, Darcy) and family.legacy_fno:
        return legacy_fno_values(outputs[0])
    u = np.stack(outputs).ravel()
    return u, abs(u)


@dataclass
class Report:
    """What validation found.

    Attributes
    ----------
    samples : int
        Samples read and checked.
    resolved : int
        Samples drawn and solved again.
    worst : float
        Largest ratio of a residual component to its bound, or, of evolutions, of a difference to its bound where an
        interval was integrated again; at most 1 in a sound dataset.
    problems : list of str
        A sentence each.
    notes : list of str
        What could not be checked, and why.
    """

    samples: int = 0
    resolved: int = 0
    worst: float = 0.0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether no problem was found."""
        return not self.problems


class _Repeats:
    """Samples with the same inputs, found by 64 bits of their hash: 24 bytes of memory a sample."""

    def __init__(self) -> None:
        self._hashes, self._places = array("Q"), array("Q")

    def add(self, sample: Sample, split: str, index: int) -> None:
        """Take note of one sample."""
        content = b"".join(sample.fields[name].tobytes() for name in sorted(sample.fields))
        content += np.array([sample.scalars[name] for name in sorted(sample.scalars)]).tobytes()
        self._hashes.append(int(sha256(content)[:16], 16))
        self._places.append(index * len(SPLITS) + SPLITS.index(split))

    def problems(self) -> Iterator[str]:
        """A sentence for each sample that repeats an earlier one."""
        hashes = np.array(self._hashes, dtype=np.uint64)
        order = np.argsort(hashes, kind="stable")
        again = np.flatnonzero(np.diff(hashes[order], prepend=hashes[order[:1]] + np.uint64(1)) == 0)
        for first, second in ((order[i - 1], order[i]) for i in again):
            yield f"{self._place(second)} has the same inputs as {self._place(first)}"

    def _place(self, number: int) -> str:
        index, split = divmod(self._places[number], len(SPLITS))
        return f"{SPLITS[split]}[{index}]"


def validate(
    path: str | Path,
    *,
    resolve: int = 10,
    seed: int | None = None,
    on_sample: Callable[[int], Any] = lambda count: None,
) -> Report:
    """Check a dataset: hashes, format, finite values, residuals or frames, records, repeats, and a subset solved again.

    Parameters
    ----------
    path : path
        The dataset.
    resolve : int
        How many samples to draw again from their seeds and solve by sparse LU, or integrate from frame to frame.
    seed : int, optional
        Chooses that subset; by default it is another one every time.
    on_sample : callable
        Told of each sample that was looked at, and of each that was made again.

    Raises
    ------
    ValueError
        If there is no finished dataset.
    """
    store = Store(path)
    spec = Spec.from_dict(store.spec)
    report = Report()
    listed = {entry.get("file"): entry for entry in store.manifest["shards"]}
    sidecars: list[dict[str, Any]] = []  # what of them the manifest is held against
    repeats = _Repeats()
    varying: dict[str, set[str]] = {f.name: set() for f in spec.family.role("input")}
    origins = [_Origin.of(one) for one in _specs(spec)]
    for shard in spec.shards:
        defect, sidecar = shard_defect(spec, shard, store.path), None
        if defect is None:
            sidecar = read_json(store.path / shard.sidecar)
            sidecars.append({key: sidecar[key] for key in ("totals", "failed_attempts")})
        else:
            missing = f"the sidecar of {store.path / shard.file} is missing"
            report.problems.append(missing if defect == "missing" else defect)
        report.problems += _check_files(store, spec, shard, listed.get(shard.file, {}), sidecar)
        try:
            for index, sample, solution, records in _samples(store, spec, shard):
                report.samples += 1
                place = f"{shard.split}[{index}]"
                part = spec.family.part_of(shard.split, index) if isinstance(spec.family, Mixed) else 0
                origins[part].samples += 1
                _check_sample(report, origins[part].spec, place, sample, solution, records, origins[part].evolution)
                for name, values in {**sample.fields, **sample.scalars}.items():
                    if len(varying.setdefault(name, set())) < 2:
                        varying[name].add(sha256(np.ascontiguousarray(values).tobytes()))
                repeats.add(sample, shard.split, index)
                on_sample(1)
        except DamagedShard as error:
            if str(error) not in report.problems:
                report.problems.append(str(error))
    report.problems += repeats.problems()
    report.problems += manifest_faults(store, spec, sidecars)
    constant = {f.name for f in spec.family.role("constant")} | set(spec.family.fixed)
    constant |= set(spec.inputs["fields"]) if spec.inputs else set()  # what a person gives is his own choice
    for name, found in varying.items():
        if report.samples > 1 and len(found) == 1 and name not in constant:
            report.problems.append(f"input {name!r} is the same in every sample, though it is declared as drawn")
    if isinstance(spec.family, Mixed):
        report.notes.append("no sample was made again: validate the datasets that it was mixed from")
    elif not spec.family.made_by_solving:
        report.notes.append(f"no independent scheme: {spec.family.title}, which no equation made; values were checked")
        return report
    if any(origin.evolution is None and type(origin.spec.family) not in _independent for origin in origins):
        name = origins[0].spec.family.name
        report.notes.append(f"no independent scheme for family {name!r}: residuals were not checked")
    if not isinstance(spec.family, Mixed):
        _resolve_subset(report, store, spec, resolve, seed, origins[0].evolution, on_sample)
    for evolution in (origin.evolution for origin in origins if origin.evolution is not None and origin.samples):
        report.problems += evolution.nothing_evolves()
        report.notes += [note for note in evolution.notes() if note not in report.notes]
        report.worst = max(report.worst, evolution.worst)
    return report


@dataclass
class _Origin:
    """What samples are checked against: the spec that they were made by; of evolutions, what is found on the way."""

    spec: Spec
    evolution: EvolutionCheck | None
    samples: int = 0

    @classmethod
    def of(cls, spec: Spec) -> "_Origin":
        return cls(spec, EvolutionCheck(spec.family) if isinstance(spec.family, EvolvingFamily) else None)


def _specs(spec: Spec) -> list[Spec]:
    """The spec itself, or those of a mixture's parts."""
    if not isinstance(spec.family, Mixed):
        return [spec]
    return [Spec.from_dict(part["spec"]) for part in spec.family.parts]


def _check_files(
    store: Store, spec: Spec, shard: Shard, listed: Mapping[str, Any], sidecar: Mapping[str, Any] | None
) -> Iterator[str]:
    file = store.path / shard.file
    if not file.exists():
        yield f"{file} is missing"
        return
    if sha256_of_file(file) != listed.get("sha256"):
        yield f"{file} does not have the SHA-256 in manifest.json"
    try:
        with open_shard(file) as content:
            faults = [f"{file} is not in The Well's format: {fault}" for fault in well_faults(content)]
            yield from faults or file_faults(store, spec, shard, content, sidecar)
    except DamagedShard as error:
        yield str(error)


def _samples(
    store: Store, spec: Spec, shard: Shard
) -> Iterator[tuple[int, Sample, dict[str, NDArray[Any]], dict[str, float]]]:
    """Each sample of a shard with its solution and records, from the file itself."""
    path, family, count = store.path / shard.file, spec.family, shard.stop - shard.start
    if not path.exists():
        return
    with open_shard(path) as file:
        for f in family.fields:
            nothing = read_array(file, f"t0_fields/{f.name}", (count, *family.stored_shape(f)), path, slice(0, 0))
            if nothing.dtype != np.dtype(spec.dtype):
                raise DamagedShard(f"{path}: field {f.name!r} must be {spec.dtype}, got {nothing.dtype}")
        times = read_array(file, "dimensions/time", (len(family.times),), path)
        if not np.array_equal(times, family.times.astype(np.float32)):
            raise DamagedShard(f"{path}: dimensions/time does not hold the times of the spec")
        names = [f"{group}/{name}" for group in ("cost", "quality") if group in file for name in file[group]]
        solved = family.made_by_solving and not family.evolves
        if solved and "quality/relative_residual" not in names:
            raise DamagedShard(f"{path} lacks quality/relative_residual")
        records = {name: read_array(file, name, (count,), path) for name in names}
        scalars = {name: read_array(file, f"scalars/{name}", (count,), path) for name in file["scalars"]}
        for row in range(count):
            arrays = {
                f.name: read_array(file, f"t0_fields/{f.name}", (count, *family.stored_shape(f)), path, (row,))
                for f in family.fields
            }
            inputs = {f.name: arrays[f.name] for f in family.fields if f.role != "output"}
            outputs = {f.name: arrays[f.name] for f in family.role("output")}
            sample = Sample(inputs, {name: float(values[row]) for name, values in scalars.items()})
            yield shard.start + row, sample, outputs, {k: float(v[row]) for k, v in records.items()}


def _check_sample(
    report: Report,
    spec: Spec,
    place: str,
    sample: Sample,
    solution: dict[str, NDArray[Any]],
    records: dict[str, float],
    evolution: EvolutionCheck | None,
) -> None:
    for name, values in {**sample.fields, **solution}.items():
        if not np.all(np.isfinite(values)):
            report.problems.append(f"{place}: field {name!r} holds values that are not finite")
            return
    for name, value in records.items():
        if not np.isfinite(value) or (name.startswith("cost/") and value < 0):
            report.problems.append(f"{place}: its record {name} is {value}")
    lacking = lacking_records(spec, sample, solution, records)
    if lacking:
        report.problems.append(f"{place}: there is no record of its {lacking}")
    report.problems += [f"{place}: {fault}" for fault in extreme_faults(spec, solution, records)]
    if evolution is not None:
        report.problems += [f"{place}: {fault}" for fault in evolution.check(sample, solution, records)]
        return
    if not spec.family.made_by_solving:
        return
    rtol = float(spec.solver["rtol"])
    residual = records["quality/relative_residual"]
    if not 0 <= residual <= rtol:
        report.problems.append(f"{place}: its recorded relative residual {residual:.3g} exceeds the tolerance {rtol:g}")
    try:
        system = independent_system(spec.family, sample)
    except (ValueError, ZeroDivisionError) as error:
        report.problems.append(f"{place}: no system can be built from its inputs: {error}")
        return
    if system is None:
        return
    A, b = system
    u, size = unknowns(spec.family, solution)
    magnitude = abs(A) @ size
    stored, working = np.finfo(spec.dtype).eps / 2, np.finfo(np.float64).eps
    # Rows of one entry state what was given (boundary nodes, holes): no solver's tolerance applies to them.
    solved = np.diff(A.indptr) > 1
    tolerance = np.where(solved, rtol * np.linalg.norm(b[solved]), 0.0)
    bound = tolerance + stored * magnitude + 16 * working * (magnitude + abs(b)) + np.finfo(np.float64).tiny
    ratio = float(np.max(abs(b - A @ u) / bound))
    report.worst = max(report.worst, ratio)
    if not ratio <= 1:
        report.problems.append(f"{place}: its residual is {ratio:.3g} times what tolerance and rounding allow")


def _resolve_subset(
    report: Report,
    store: Store,
    spec: Spec,
    count: int,
    seed: int | None,
    evolution: EvolutionCheck | None,
    on_sample: Callable[[int], Any],
) -> None:
    """Draw samples again from their seeds, compare the inputs bit by bit, and solve them in another way.

    Steady ones by sparse LU, evolutions from each frame to the next by `compare_intervals`.
    """
    places = [(split, index) for split in SPLITS for index in range(spec.samples[split])]
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(places), size=min(count, len(places)), replace=False)
    for split, index in (places[i] for i in sorted(chosen)):
        place = f"{split}[{index}]"
        try:
            attempt = int(store.record(split, "provenance/attempt", index, index + 1)[0])
            stored = {f.name: store.read(split, f.name, index, index + 1)[0] for f in spec.family.fields}
        except (DamagedShard, OSError) as error:
            report.problems.append(f"{place} cannot be read: {error}")
            continue
        if not 0 <= attempt < 1000:
            report.problems.append(f"{place}: its recorded attempt is {attempt}")
            continue
        try:
            sample = draw(spec, split, index, attempt)
        except ValueError as error:  # a file of given inputs that was moved or changed
            report.notes.append(f"samples were not made again: {error}")
            return
        report.resolved += 1
        on_sample(1)
        for name, values in sample.fields.items():
            if not np.array_equal(values, stored[name]):
                report.problems.append(f"{place}: its seed gives another {name!r} than the one stored")
        if evolution is not None:
            solution = {f.name: stored[f.name] for f in spec.family.role("output")}
            report.problems += [f"{place}: {fault}" for fault in evolution.integrate_again(sample, solution)]
            continue
        system = independent_system(spec.family, sample)
        if system is None:
            continue
        A, b = system
        with warnings.catch_warnings():
            warnings.simplefilter("error", sparse_linalg.MatrixRankWarning)
            factor = sparse_linalg.splu(sparse.csc_array(A))
        expected = factor.solve(b)
        inverse = sparse_linalg.LinearOperator(
            A.shape, matvec=factor.solve, rmatvec=lambda y, lu=factor: lu.solve(y, "T"), dtype=A.dtype
        )
        # ||u - u*||_inf <= ||A^-1||_inf ||r||_inf = ||A^-T||_1 ||r||_inf; the estimate is rarely short by a factor 3.
        inverse_norm = 3 * sparse_linalg.onenormest(inverse.T)
        found, size = unknowns(spec.family, stored)
        allowed = float(spec.solver["rtol"]) * np.linalg.norm(b) * inverse_norm
        allowed += (np.finfo(spec.dtype).eps + 1e-12) * float(max(np.max(abs(expected)), np.max(size)))
        difference = float(np.max(abs(found - expected)))
        if not difference <= allowed:
            report.problems.append(f"{place}: solved again, it differs by {difference:.3g}, and may by {allowed:.3g}")
