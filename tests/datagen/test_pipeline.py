"""From spec to dataset: the same bytes however they were made, and nothing half-written."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
from threadpoolctl import threadpool_info

from datagen import files, generate, store
from datagen.executors import executors
from datagen.folder import merge, prepare_folder, shard_defect, shard_locks
from datagen.plan import ShardSolver, planned
from datagen.shard import solve_sample
from datagen.store import DamagedShard, Spec, open_shard, open_store
from datagen.validate import validate

SPEC = dict(
    pde={"name": "darcy", "grid": 12},
    seed=3,
    samples={"train": 7, "validation": 2, "test": 2},
    shard_size=2,
    solver={"method": "direct", "rtol": 1e-8},
)


def array_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every array of every shard."""
    hashes = {}
    for path in sorted(folder.glob("*/*.hdf5")):
        with h5py.File(path) as file:

            def visit(name, entry, path=path):
                if isinstance(entry, h5py.Dataset):
                    hashes[f"{path.relative_to(folder)}:{name}"] = hashlib.sha256(entry[()].tobytes()).hexdigest()

            file.visititems(visit)
    return hashes


def whole_bytes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file but the sidecars, which hold measured seconds."""
    paths = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != ".lock"]
    paths = [p for p in paths if not (p.suffix == ".json" and p.name.startswith("shard"))]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "datagen.commands.generate", *words]


COMMAND_WORDS = [
    "pde.grid=12",
    "seed=3",
    "samples.train=7",
    "samples.validation=2",
    "samples.test=2",
    "shard.size=2",
    "solver=direct",
    "solver.rtol=1e-8",
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "serial"
    generate.generate(Spec(**SPEC), folder, executor="serial")
    return folder


@pytest.fixture
def copy(dataset, tmp_path):
    import shutil

    return Path(shutil.copytree(dataset, tmp_path / "copy"))


def test_bytes_do_not_depend_on_executor_workers_or_order(dataset, tmp_path):
    parallel = tmp_path / "parallel"
    subprocess.run(command(*COMMAND_WORDS, "executor=processes", "executor.workers=2", f"out={parallel}"), check=True)
    assert array_hashes(parallel) == array_hashes(dataset)
    assert whole_bytes(parallel) == whole_bytes(dataset)

    shared = tmp_path / "shared"
    for index in (2, 0, 1):
        with pytest.raises(ValueError, match="not complete"):
            merge(prepare_folder(Spec(**SPEC), shared) or shared)
        generate.generate(Spec(**SPEC), shared, executor="serial", shard_index=index, shard_count=3)
    with pytest.raises(ValueError, match="southwell-data merge"):
        open_store(shared)
    subprocess.run([sys.executable, "-m", "datagen.commands.data", "merge", f"out={shared}"], check=True)
    assert whole_bytes(shared) == whole_bytes(dataset)
    assert (shared / "train/shard-00000.hdf5").read_bytes() == (dataset / "train/shard-00000.hdf5").read_bytes()


@pytest.mark.slow  # evolutions have the same test, which is quicker
def test_kill_and_repeat_gives_the_same_bytes(tmp_path):
    # Enough work that a run is still going when the third of its shards is seen.
    words = [*COMMAND_WORDS, "samples.train=240", "pde.grid=24"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(*words, f"out={whole}"), check=True, stdout=subprocess.DEVNULL)
    for stop in (signal.SIGKILL, signal.SIGTERM):
        time.sleep(1.5)  # workers of a killed run notice within half a second, and may still finish a shard
        process = subprocess.Popen(
            command(*words, "executor.workers=2", f"out={killed}"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        before = len(list(killed.glob("*/*.json")))
        deadline = time.monotonic() + 60
        while len(list(killed.glob("*/*.json"))) < before + 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(stop)
        code = process.wait(timeout=30)
        assert code == (-signal.SIGKILL if stop == signal.SIGKILL else 128 + signal.SIGTERM)
        done = len(list(killed.glob("*/*.json")))
        assert before < done < 122, "the run was not interrupted midway"
        assert not (killed / "manifest.json").exists()
        if stop == signal.SIGTERM:
            assert not list(killed.rglob("*.partial"))
    stamps = {p: p.stat().st_mtime_ns for p in killed.glob("*/*.hdf5")}
    subprocess.run(command(*words, f"out={killed}"), check=True, stdout=subprocess.DEVNULL)
    assert whole_bytes(killed) == whole_bytes(whole)
    complete = [p for p in stamps if p.with_suffix(".json").stat().st_mtime_ns < max(stamps.values())]
    assert complete
    assert all(p.stat().st_mtime_ns == stamps[p] for p in complete), "finished shards were made again"


def test_workers_of_a_killed_run_do_not_linger(tmp_path):
    process = subprocess.Popen(
        command(*COMMAND_WORDS, "samples.train=3000", "executor.workers=2", f"out={tmp_path / 'out'}"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out").glob("train/*.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    assert children
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{child}/cmdline").exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = [c for c in children if Path(f"/proc/{c}").exists() and b"spawn" in Path(f"/proc/{c}/cmdline").read_bytes()]
    assert not left


def test_a_sample_does_not_depend_on_how_many_there_are():
    few, many = Spec(**SPEC), Spec(**{**SPEC, "samples": {"train": 70, "validation": 9, "test": 2}, "shard_size": 5})
    one, other = solve_sample(few, "train", 6), solve_sample(many, "train", 6)
    np.testing.assert_array_equal(one.sample.fields["coefficient"], other.sample.fields["coefficient"])
    np.testing.assert_array_equal(one.solution["pressure"], other.solution["pressure"])
    elsewhere = solve_sample(few, "test", 1).sample.fields["coefficient"]
    assert not np.array_equal(solve_sample(few, "train", 1).sample.fields["coefficient"], elsewhere)


def test_what_is_read_is_what_was_solved(dataset):
    data = open_store(dataset)
    assert data.shape == (12, 12)
    assert data.boundary == (("dirichlet", "dirichlet"),) * 2
    assert data.sizes == {"train": 7, "validation": 2, "test": 2}
    solved = solve_sample(Spec(**SPEC), "train", 5)
    np.testing.assert_array_equal(data.read("train", "coefficient")[5], solved.sample.fields["coefficient"])
    np.testing.assert_array_equal(data.read("train", "pressure", 5, 6)[0], solved.solution["pressure"].astype("f4"))
    assert data.read("train", "pressure").dtype == np.float32
    assert data.read("test", "pressure", 1, 1).shape == (0, 12, 12)
    assert np.all(data.record("train", "quality/relative_residual") <= 1e-8)
    assert np.all(data.record("train", "cost/work") > 0)
    for words in (("train", "velocity"), ("tests", "pressure")):
        with pytest.raises(ValueError, match=r"Did you mean|Known"):
            data.read(*words)
    with pytest.raises(ValueError, match="out of range"):
        data.read("train", "pressure", 0, 8)


def test_the_well_layout(dataset):
    """What The Well's loader and format check ask of a file (its documented format, checked entry by entry)."""
    with h5py.File(dataset / "train/shard-00000.hdf5") as file:
        assert file.attrs["grid_type"] == "cartesian"
        assert file.attrs["n_spatial_dims"] == 2
        assert file.attrs["n_trajectories"] == 2
        assert {"t0_fields", "t1_fields", "t2_fields", "scalars", "dimensions", "boundary_conditions"} <= set(file)
        assert list(file["dimensions"].attrs["spatial_dims"]) == ["x", "y"]
        assert file["dimensions/time"].attrs["time_varying"]
        for name in ("x", "y"):
            assert file["dimensions"][name].dtype == np.float32
            assert not file["dimensions"][name].attrs["time_varying"]
        assert set(file["t0_fields"].attrs["field_names"]) == {"coefficient", "pressure"}
        for name in ("coefficient", "pressure"):
            entry = file["t0_fields"][name]
            assert entry.shape == (2, 12, 12)
            assert entry.attrs["sample_varying"]
            assert not entry.attrs["time_varying"]
            assert list(entry.attrs["dim_varying"]) == [True, True]
        group = file["boundary_conditions/x_wall"]
        assert group.attrs["bc_type"] == "WALL"
        assert group["mask"].shape == (12,)
        assert group["values"].shape == (2,)


def test_another_spec_in_the_same_folder_is_refused(copy):
    before = whole_bytes(copy)
    with pytest.raises(ValueError, match=r"seed is 3 there and 4 here"):
        generate.generate(Spec(**{**SPEC, "seed": 4}), copy, executor="serial")
    with pytest.raises(ValueError, match=r"pde\.grid is 12 there and 13 here"):
        generate.generate(Spec(**{**SPEC, "pde": {"name": "darcy", "grid": 13}}), copy, executor="serial")
    assert whole_bytes(copy) == before


def test_a_spec_of_which_nothing_was_made_gives_way(tmp_path, monkeypatch):
    other = Spec(**{**SPEC, "seed": 4, "solver": {"method": "auto", "rtol": 1e-6}})
    with monkeypatch.context() as patch:
        patch.setattr(generate, "make_shard", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            generate.generate(other, tmp_path / "data", executor="serial")
    # Not while somebody may be at it: this lock is of another process.
    held = "import fcntl, sys; f = open(sys.argv[1], 'ab'); fcntl.lockf(f, fcntl.LOCK_EX, 1, 2); print('', flush=True)"
    held += "; input()"
    words = [sys.executable, "-c", held, str(tmp_path / "data/.lock")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        with pytest.raises(ValueError, match="another spec"):
            generate.generate(Spec(**SPEC), tmp_path / "data", executor="serial")
        process.communicate(b"\n")
    generate.generate(Spec(**SPEC), tmp_path / "data", executor="serial")
    assert validate(tmp_path / "data", resolve=2).sound


def test_a_plan_is_not_taken_over_from_another_spec(tmp_path):
    auto = {"method": "auto", "rtol": 1e-6}
    prepare_folder(Spec(**{**SPEC, "solver": {**auto, "plan": "direct"}}), tmp_path / "data")
    same, other = Spec(**{**SPEC, "solver": auto}), Spec(**{**SPEC, "solver": auto, "seed": 4})
    assert planned(same, tmp_path / "data").solver["plan"] == "direct"
    assert planned(other).solver["plan"] != "direct"
    assert planned(other, tmp_path / "data") == planned(other)


@pytest.mark.parametrize(
    ("pde", "words"),
    [
        ({"name": "burgers", "grid": 8, "standard_deviation": 1e60}, "initial_u as drawn is not finite"),
        ({"name": "darcy", "grid": 8, "high": 1e60}, "coefficient as drawn is not finite"),
        ({"name": "euler", "grid": 4, "speed": 1e12}, "'pressure' of the state must be positive"),
    ],
)
def test_draws_that_cannot_be_stored_or_evolved_are_failed_draws(pde, words):
    spec = Spec(**{**SPEC, "pde": pde})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeError, match=words):
            solve_sample(spec, "train", 0)


def test_whole_numbers_and_floats_are_one_spec(tmp_path):
    shared = dict(seed=1, samples={"train": 2, "validation": 0, "test": 0}, shard_size=1)
    pde = {"name": "advection", "grid": 8, "frames": 2}
    specs = [
        Spec({**pde, "length": length, "velocity": velocity}, solver={"method": "auto", "rtol": 1e-6}, **shared)
        for length, velocity in ((1, [2]), (1.0, [2.0]))
    ]
    assert specs[0].digest == specs[1].digest
    folder = generate.generate(specs[0], tmp_path / "data", executor="serial")
    named, found = [], []
    generate.generate(
        specs[1], folder, executor="serial", on_damage=named.append, on_found=lambda *shard: found.append(shard)
    )
    assert (len(found), named) == (2, [])
    with pytest.raises(ValueError, match=r"length must be .*got 1000"):
        Spec({**pde, "length": 10**400}, solver={"method": "auto", "rtol": 1e-6}, **shared)


@pytest.mark.parametrize(
    ("pde", "words"),
    [
        ({"name": "euler", "gamma": float("inf")}, "gamma must be more than 1 and finite"),
        ({"name": "euler", "density": [1.0]}, "density must be tuple"),
        ({"name": "euler", "pressure": [1.0, 2.0, 3.0]}, "pressure must be tuple"),
        ({"name": "euler", "pressure": [2.0, 1.0]}, "pressure must be two numbers that increase"),
        ({"name": "shallow_water", "radius": []}, "radius must be tuple"),
        ({"name": "advection", "tau": float("inf")}, "tau must be finite"),
    ],
)
def test_ranges_and_infinite_parameters_are_refused_by_name(pde, words):
    with pytest.raises(ValueError, match=words):
        Spec(**{**SPEC, "pde": pde})


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match="not a Southwell dataset"):
        generate.generate(Spec(**SPEC), tmp_path, executor="serial")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_second_writer_of_the_same_shard_is_refused_and_jobs_run_side_by_side(tmp_path):
    spec, folder = Spec(**SPEC), tmp_path / "data"
    prepare_folder(spec, folder)
    with shard_locks(folder, [spec.shards[1]]):
        refused = subprocess.run(command(*COMMAND_WORDS, f"out={folder}"), capture_output=True, text=True)
        assert refused.returncode == 2
        assert "being written by another process" in refused.stderr
        assert not list(folder.glob("*/*.hdf5"))
        beside = command(*COMMAND_WORDS, f"out={folder}", "shard.index=0", "shard.count=2", "executor=serial")
        subprocess.run(beside, check=True, stdout=subprocess.DEVNULL)
    assert shard_defect(spec, spec.shards[0], folder) is None
    assert shard_defect(spec, spec.shards[1], folder) == "missing"


SIDECARS = {"sidecar": "{", "empty sidecar": "{}", "list": "[]", "null": "null"}


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", *SIDECARS, "incomplete sidecar"])
def test_a_corrupted_shard_is_named_and_made_again(copy, dataset, damage):
    path = copy / "train/shard-00001.hdf5"
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "truncate":
        path.write_bytes(content[:100])
    elif damage == "remove":
        path.unlink()
    elif damage == "incomplete sidecar":
        sidecar = json.loads(path.with_suffix(".json").read_text())
        del sidecar["failed_attempts"]
        path.with_suffix(".json").write_text(json.dumps(sidecar))
    else:
        path.with_suffix(".json").write_text(SIDECARS[damage])
    assert not validate(copy, resolve=0).sound
    with pytest.raises(ValueError, match="shard 1 "):
        merge(copy)
    named = []
    generate.generate(Spec(**SPEC), copy, executor="serial", on_damage=named.append)
    assert len(named) == 1
    assert "shard 1 " in named[0]
    assert whole_bytes(copy) == whole_bytes(dataset)


@pytest.mark.parametrize("content", ["[]", "null", "{}", '{"shards": [1]}', '{"shards": null}'])
@pytest.mark.parametrize("name", ["manifest.json", "spec.json"])
def test_a_damaged_manifest_or_spec_is_refused_in_a_sentence(copy, name, content):
    (copy / name).write_text(content)
    with pytest.raises(ValueError, match=r"manifest|spec|format_version"):
        open_store(copy)
    if name == "spec.json":
        with pytest.raises(ValueError, match=r"spec|format_version"):
            merge(copy)
    else:
        merge(copy)  # writes it anew
        assert validate(copy, resolve=0).sound


def test_a_spec_whose_groups_are_none_is_refused_in_a_sentence(copy):
    spec = json.loads((copy / "spec.json").read_text())
    for group in ("pde", "samples", "solver"):
        (copy / "spec.json").write_text(json.dumps({**spec, group: None}))
        with pytest.raises(ValueError, match=group):
            open_store(copy)


def test_nobody_reads_flipped_bits(copy):
    path = copy / "train/shard-00001.hdf5"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    data = open_store(copy)
    assert data.read("train", "pressure", 0, 2).shape == (2, 12, 12)
    with pytest.raises(DamagedShard, match=r"shard-00001\.hdf5 .* corrupted"):
        data.read("train", "pressure", 2, 3)
    path.unlink()
    with pytest.raises(DamagedShard, match="missing"):
        open_store(copy).read("train", "pressure")


def test_a_full_disk_leaves_nothing_that_counts_as_done(tmp_path, monkeypatch):
    spec, folder = Spec(**SPEC), tmp_path / "data"
    prepare_folder(spec, folder)
    real = os.fsync
    calls = []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == 6:  # the second shard's file (file and folder for shard and sidecar, then this one)
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match=r"could not write .*No space left"):
        generate.generate(spec, folder, executor="serial")
    monkeypatch.undo()
    assert not list(folder.rglob("*.partial"))
    done = [shard for shard in spec.shards if shard_defect(spec, shard, folder) is None]
    assert len(done) < len(spec.shards)
    assert not (folder / "manifest.json").exists()
    generate.generate(spec, folder, executor="serial")
    assert validate(folder).sound


def test_too_small_a_disk_is_refused_before_computing(tmp_path, monkeypatch):
    import shutil

    monkeypatch.setattr(generate.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6, 1000))
    with pytest.raises(OSError, match="nothing was computed"):
        generate.generate(Spec(**SPEC), tmp_path / "data", executor="serial")
    assert not list((tmp_path / "data").rglob("*.hdf5"))


def test_failed_draws_are_replaced_and_recorded(tmp_path, monkeypatch):
    import dataclasses

    from solvers import Status

    honest = ShardSolver.__call__
    calls = []

    def sometimes(self, system):
        result = honest(self, system)
        calls.append(1)
        if len(calls) in (2, 3):
            return dataclasses.replace(result, status=Status.MAX_ITERATIONS, reason="told to fail")
        return result

    monkeypatch.setattr(ShardSolver, "__call__", sometimes)
    generate.generate(Spec(**SPEC), tmp_path / "data", executor="serial")
    data = open_store(tmp_path / "data")
    assert list(data.record("train", "provenance/attempt")) == [0, 2, 0, 0, 0, 0, 0]
    sidecar = json.loads((tmp_path / "data/train/shard-00000.json").read_text())
    assert len(sidecar["failed_attempts"]["1"]) == 2
    assert "told to fail" in sidecar["failed_attempts"]["1"][0]
    assert validate(tmp_path / "data", resolve=100).sound  # the attempt is part of the seed, and is stored


def test_readers_refuse_links_and_objects(tmp_path):
    secret = tmp_path / "secret.hdf5"
    with h5py.File(secret, "w") as file:
        file["x"] = [1.0]
    makers = {
        "external": lambda file: file.__setitem__("t0", h5py.ExternalLink(str(secret), "x")),
        "soft": lambda file: file.__setitem__("t0", h5py.SoftLink("/nowhere")),
        "object": lambda file: file.create_dataset("t0", data=["a", "b"], dtype=h5py.string_dtype()),
        "storage": lambda file: file.create_dataset("t0", (4,), "f8", external=[(str(secret), 0, 32)]),
    }
    for name, make in makers.items():
        path = tmp_path / f"{name}.hdf5"
        with h5py.File(path, "w") as file:
            make(file)
        with pytest.raises(DamagedShard, match="t0"):
            open_shard(path)
    link = tmp_path / "link.hdf5"
    link.symlink_to(secret)
    with pytest.raises(DamagedShard, match="symbolic link"):
        open_shard(link)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"samples": {"train": 0, "validation": 1, "test": 1}}, r"samples\.train"),
        ({"samples": {"train": 1, "validation": -1, "test": 1}}, r"samples\.validation"),
        ({"samples": {"train": 1, "valid": 1, "test": 1}}, "Did you mean 'validation'"),
        ({"shard_size": 0}, r"shard\.size"),
        ({"seed": -1}, "seed"),
        ({"seed": True}, "seed"),
        ({"dtype": "float16"}, "float32 or float64"),
        ({"solver": {"method": "direct", "rtol": 0}}, "rtol"),
        ({"pde": {"name": "darci"}}, "Did you mean 'darcy'"),
        ({"pde": {"name": "darcy", "gird": 12}}, "Did you mean 'grid'"),
        ({"pde": {"name": "darcy", "grid": 0}}, "at least 2"),
        ({"pde": {"name": "darcy", "grid": [12, 12, 12]}}, "one per axis"),
        ({"pde": {"name": "darcy", "alpha": 1.0}}, "alpha"),
        ({"pde": {"name": "darcy", "low": -3.0}}, "low"),
        ({"pde": {"name": "darcy", "coefficient": "ternary"}}, "binary"),
        ({"pde": {}}, r"pde\.name"),
    ],
)
def test_bad_specs_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        Spec(**{**SPEC, **change})


def test_unknown_executor_lists_what_there_is(tmp_path):
    with pytest.raises(ValueError, match="dask, processes, serial"):
        generate.generate(Spec(**SPEC), tmp_path / "data", executor="cluster")
    assert set(executors) == {"dask", "processes", "serial"}


def test_float64_storage_and_lognormal(tmp_path):
    pde = {"name": "darcy", "grid": [10, 14], "coefficient": "lognormal"}
    spec = Spec(**{**SPEC, "pde": pde, "dtype": "float64"})
    generate.generate(spec, tmp_path / "data", executor="serial")
    data = open_store(tmp_path / "data")
    assert data.read("train", "pressure").dtype == np.float64
    report = validate(tmp_path / "data", resolve=4)
    assert report.sound, report.problems
    assert store.estimated_bytes(spec) == pytest.approx(
        sum(p.stat().st_size for p in (tmp_path / "data").glob("*/*.hdf5")), rel=0.5
    )


def test_merge_takes_the_word_of_who_has_just_written_but_looks_at_the_size(copy):
    spec = Spec(**SPEC)
    sizes = {shard.index: (copy / shard.file).stat().st_size for shard in spec.shards}
    path = copy / spec.shards[1].file
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="shard 1 "):
        merge(copy, sizes)


def test_partial_files_of_these_shards_alone_are_removed(tmp_path):
    for name in ("a.hdf5.host-1.partial", "a.json.host-1.partial", "b.hdf5.host-1.partial", "a.hdf5"):
        (tmp_path / name).write_text("x")
    files.remove_partials([tmp_path / "a.hdf5", tmp_path / "a.json", tmp_path / "nowhere" / "c.hdf5"])
    assert {path.name for path in tmp_path.iterdir()} == {"b.hdf5.host-1.partial", "a.hdf5"}


def test_an_estimate_does_not_count_threads_that_wait(monkeypatch):
    """BLAS's own threads, once busy, spin for a while: CPU time that no sample took. Nothing may wake them before."""
    threads = []

    def watched(spec, folder=None):
        threads.extend(pool["num_threads"] for pool in threadpool_info())
        return planned(spec, folder)

    monkeypatch.setattr(generate, "planned", watched)
    generate.estimate(Spec(**SPEC), measured=1)
    assert set(threads) == {1}
