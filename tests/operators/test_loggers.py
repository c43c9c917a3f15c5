"""Loggers: what is read back from their files is what was logged, once, whatever interrupts it."""

import json
import struct
import sys
import time
from pathlib import Path

import pytest

from operators import run_folder
from operators.loggers import loggers, open_loggers
from operators.trainer import train

CONFIG = {"seed": 3, "model": {"name": "tfno", "rank": 0.1}}


def tensorboard_scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every scalar event of every file, by TensorBoard's own reader, without its sampling."""
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        accumulator = accumulators.EventAccumulator(str(path), size_guidance={"tensors": 0, "scalars": 0}).Reload()
        for tag in accumulator.Tags()["scalars"]:
            found.setdefault(tag, []).extend((event.step, event.value) for event in accumulator.Scalars(tag))
    return found


def wandb_records(folder: Path):
    """Records of every offline run in a folder: protocol buffers in LevelDB's log format, 32 KiB blocks."""
    messages = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        data, position, content = path.read_bytes(), 7, b""
        while position + 7 <= len(data):
            left = 32768 - position % 32768
            if left < 7:
                position += left
                continue
            _, length, kind = struct.unpack("<IHB", data[position : position + 7])
            content += data[position + 7 : position + 7 + length]
            position += 7 + length
            if kind in (1, 4):  # whole, or the last piece
                record = messages.Record()
                record.ParseFromString(content)
                content = b""
                yield record


def wandb_history(folder: Path) -> list[tuple[int, dict[str, float]]]:
    runs = len(list(folder.glob("wandb/offline-run-*")))
    for _ in range(600):  # wandb's process may be a little behind ours
        if sum(record.WhichOneof("record_type") == "exit" for record in wandb_records(folder)) == runs:
            break
        time.sleep(0.1)
    rows = []
    for record in wandb_records(folder):
        if record.WhichOneof("record_type") == "history":
            items = ((item.key or item.nested_key[0], json.loads(item.value_json)) for item in record.history.item)
            rows.append((record.history.step.num, {key: value for key, value in items if not key.startswith("_")}))
    return rows


def rows(first: int, last: int):
    return [(step, {"train_loss": 1.0 / step, "seconds": 0.5 * step}) for step in range(first, last + 1)]


def write(name, out, entries, config=CONFIG, **arguments):
    with open_loggers({name: arguments}, out, config) as log:
        for step, metrics in entries:
            log(step, metrics)


def test_tensorboard_holds_what_was_logged_and_a_resumed_run_adds_what_is_missing(tmp_path):
    pytest.importorskip("tensorboard")
    write("tensorboard", tmp_path, rows(1, 3))
    # Resumed: the whole history again, epoch 3 repeated after a crash, and what follows.
    write("tensorboard", tmp_path, [*rows(1, 3), *rows(3, 5)])
    scalars = tensorboard_scalars(tmp_path / "tensorboard")
    assert scalars.keys() == {"train_loss", "seconds"}
    assert [step for step, _ in scalars["train_loss"]] == [1, 2, 3, 4, 5]
    # Events hold single precision.
    assert [value for _, value in scalars["train_loss"]] == pytest.approx([1 / s for s in range(1, 6)], rel=1e-6)
    write("tensorboard", tmp_path, rows(1, 5))
    assert tensorboard_scalars(tmp_path / "tensorboard") == scalars


def test_tensorboard_goes_on_after_a_file_that_was_cut(tmp_path):
    pytest.importorskip("tensorboard")
    write("tensorboard", tmp_path, rows(1, 3))
    (path,) = (tmp_path / "tensorboard").glob("events*")
    path.write_bytes(path.read_bytes()[:-9])  # a metric of step 3: cut by a kill
    write("tensorboard", tmp_path, rows(1, 4))
    steps = [step for step, _ in tensorboard_scalars(tmp_path / "tensorboard")["train_loss"]]
    assert steps == [1, 2, 3, 4]


def test_wandb_is_offline_and_a_resumed_run_keeps_its_id_and_adds_what_is_missing(tmp_path):
    pytest.importorskip("wandb")
    out = tmp_path / "rank=0.1"
    write("wandb", out, rows(1, 3), project="darcy")
    write("wandb", out, [*rows(1, 3), *rows(3, 5)], project="darcy")
    assert wandb_history(out) == rows(1, 5)
    runs = [r.run for r in wandb_records(out) if r.WhichOneof("record_type") == "run"]
    assert len(runs) == 2
    (identity,) = {run.run_id for run in runs}
    assert {(run.project, run.display_name) for run in runs} == {("darcy", "rank=0.1")}
    assert json.loads((out / "wandb" / "southwell.json").read_text()) == {"id": identity, "last_step": 5}
    config = {item.key: json.loads(item.value_json) for item in runs[0].config.update if item.key in CONFIG}
    assert config == CONFIG


def train_after_a_crash(first, second, make_config, make_store, monkeypatch):
    """Three epochs with the second loggers, after a crash in the second epoch with the first ones."""
    original = run_folder.save_checkpoint

    def crash(path, content):
        if path.name == "last.pt" and len(content["history"]) == 2:
            raise OSError("no space left on device")
        original(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "save_checkpoint", crash)
        with pytest.raises(OSError, match="no space"):
            train(make_config(trainer={"epochs": 3}, logger=first), make_store())
    return train(make_config(trainer={"epochs": 3}, logger=second), make_store())


def test_several_loggers_in_one_training_that_is_stopped_and_resumed(make_config, make_store, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    pytest.importorskip("wandb")
    out, chosen = tmp_path / "run", {"tensorboard": {}, "wandb": {"project": "test"}}
    result = train_after_a_crash(chosen, chosen, make_config, make_store, monkeypatch)
    scalars, history = tensorboard_scalars(out / "tensorboard"), wandb_history(out)
    assert [step for step, _ in history] == [1, 2, 3]
    for name in ("train_loss", "validation_loss"):
        expected = [row[name] for row in result.history]
        assert [step for step, _ in scalars[name]] == [1, 2, 3]
        assert [value for _, value in scalars[name]] == pytest.approx(expected, rel=1e-6)
        assert [metrics[name] for _, metrics in history] == expected


@pytest.mark.parametrize(
    ("first", "second", "logged"), [({}, {"tensorboard": None}, 3), ({"tensorboard": {}}, None, 2)]
)
def test_a_logger_may_join_and_leave_between_two_calls(
    first, second, logged, make_config, make_store, tmp_path, monkeypatch
):
    pytest.importorskip("tensorboard")
    assert train_after_a_crash(first, second, make_config, make_store, monkeypatch).finished
    steps = [step for step, _ in tensorboard_scalars(tmp_path / "run" / "tensorboard")["train_loss"]]
    assert steps == [*range(1, logged + 1)]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"tensorbord": {}}, "unknown logger 'tensorbord'. Did you mean 'tensorboard'"),
        ({"wandb": {"projekt": "x"}}, "has no argument 'projekt'. Did you mean 'project'"),
        ({"wandb": {"mode": "dryrun"}}, "logger.wandb.mode must be 'offline' or 'online', got 'dryrun'"),
    ],
)
def test_what_does_not_fit_is_a_sentence(chosen, message, tmp_path):
    with pytest.raises(ValueError, match=message), open_loggers(chosen, tmp_path, CONFIG):
        pass


@pytest.mark.parametrize(("name", "library"), [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb")])
def test_a_missing_library_names_its_extra(name, library, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ValueError, match=rf"logger={name} needs .*pip install \"southwell\[loggers\]\""):
        loggers.build(name, tmp_path, CONFIG)
