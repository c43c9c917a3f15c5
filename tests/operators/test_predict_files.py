"""Predictions from file to file equal those in memory, whatever the format and the pieces."""

import zipfile

import numpy as np
import pytest

from operators.predict import load
from operators.predict_files import check_paths, predict_file

POINTS = 32


@pytest.fixture
def predictor(make_checkpoint):
    return load(make_checkpoint(), "cpu")


@pytest.fixture
def states():
    return np.random.default_rng(5).normal(size=(7, 1, POINTS)).astype(np.float32)


def saved(path, array):
    np.save(path, array)
    return path


@pytest.mark.parametrize("pieces", [1, 3, 100])
def test_arrays_pass_in_pieces(pieces, predictor, states, tmp_path, monkeypatch):
    monkeypatch.setattr("operators.predict_files.PIECE_VALUES", pieces * POINTS)
    source = saved(tmp_path / "a.npy", states)
    said = predict_file(predictor, source, tmp_path / "u.npy")
    assert said == "u, shape (7, 1, 32)"
    np.testing.assert_array_equal(np.load(tmp_path / "u.npy"), predictor.predict(states))
    said = predict_file(predictor, source, tmp_path / "r.npy", steps=4)
    assert said == "u, shape (7, 5, 1, 32), times 0 to 1"
    np.testing.assert_array_equal(np.load(tmp_path / "r.npy"), predictor.rollout(states, 4).frames)
    assert {path.name for path in tmp_path.iterdir()} == {"run", "a.npy", "u.npy", "r.npy"}  # nothing partial is left


def test_every_shape_that_fits_is_taken(predictor, states, tmp_path):
    expected = predictor.predict(states)
    for array, shape in [
        (states, (7, 1, POINTS)),
        (states[:, 0], (7, 1, POINTS)),  # one channel: its axis may be left out
        (states[3], (1, 1, POINTS)),  # and so this is one sample with its axis of samples
        (states[3, 0], (1, POINTS)),
        (states[:0], (0, 1, POINTS)),
        (states.astype(float)[::-1][::-1], (7, 1, POINTS)),
        (np.asfortranarray(states), (7, 1, POINTS)),
    ]:
        predict_file(predictor, saved(tmp_path / "a.npy", array), tmp_path / "u.npy")
        found = np.load(tmp_path / "u.npy")
        assert found.shape == shape
        wanted = expected if len(array) == 7 else expected[3]
        np.testing.assert_allclose(found.reshape(-1, POINTS), wanted[: len(found)].reshape(-1, POINTS), atol=1e-6)


def test_archives_hold_an_array_a_channel(make_checkpoint, tmp_path):
    predictor = load(make_checkpoint("adding", inputs=("u", "fixed"), outputs=("u",)), "cpu")
    fields = np.random.default_rng(0).normal(size=(5, 2, 8)).astype(np.float32)
    np.savez(tmp_path / "a.npz", fixed=fields[:, 1], u=fields[:, 0], other=np.zeros(3))  # in any order, among others
    predict_file(predictor, tmp_path / "a.npz", tmp_path / "u.npz", steps=2, lead_time=0.25)
    with np.load(tmp_path / "u.npz") as found:
        assert set(found.files) == {"u", "times"}
        np.testing.assert_allclose(found["times"], [0, 0.25, 0.5])
        assert found["u"].shape == (5, 3, 8)
        np.testing.assert_allclose(found["u"][:, 2], fields[:, 0] + 2 * fields[:, 1], atol=1e-6)
    # A number a sample in place of a field.
    np.savez(tmp_path / "numbers.npz", fixed=np.arange(5.0), u=fields[:, 0])
    predict_file(predictor, tmp_path / "numbers.npz", tmp_path / "n.npy")
    np.testing.assert_allclose(np.load(tmp_path / "n.npy")[:, 0], fields[:, 0] + np.arange(5)[:, None], atol=1e-6)
    np.savez(tmp_path / "misfit.npz", fixed=np.arange(8.0), u=fields[:, 0])
    with pytest.raises(ValueError, match=r"one shape \(5, 8\), or be a number a sample of shape \(5,\); got u"):
        predict_file(predictor, tmp_path / "misfit.npz", tmp_path / "m.npy")
    # One sample; and one array of all channels.
    np.savez(tmp_path / "one.npz", fixed=fields[0, 1], u=fields[0, 0])
    predict_file(predictor, tmp_path / "one.npz", tmp_path / "v.npz")
    with np.load(tmp_path / "v.npz") as found:
        np.testing.assert_allclose(found["u"], fields[0].sum(axis=0), atol=1e-6)
    np.savez(tmp_path / "all.npz", fields)
    predict_file(predictor, tmp_path / "all.npz", tmp_path / "w.npy")
    np.testing.assert_allclose(np.load(tmp_path / "w.npy")[:, 0], fields.sum(axis=1), atol=1e-6)


def test_a_split_of_a_dataset_is_read_by_its_names(make_checkpoint, make_waves, tmp_path, monkeypatch):
    predictor = load(make_checkpoint("adding", inputs=("u", "fixed"), outputs=("u",)), "cpu")
    store = make_waves(forced=True, largest_read=2)
    store.shards = lambda split: []
    monkeypatch.setattr("operators.predict_files.open_store", lambda path: store)
    monkeypatch.setattr("operators.predict_files.PIECE_VALUES", 2 * POINTS)
    (tmp_path / "data").mkdir()
    predict_file(predictor, tmp_path / "data", tmp_path / "u.npy", split="test", steps=3)
    found = np.load(tmp_path / "u.npy")
    store.largest_read = 10
    expected = store.read("test", "u")[:, 0] + 3 * store.read("test", "fixed")
    np.testing.assert_allclose(found[:, 3, 0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"direct": True}, "direct=True says how to roll out, which steps=... asks for"),
        ({"steps": -2}, "steps must be a whole number that is not negative, got -2"),
        ({"steps": 2, "lead_time": 7.0}, "trained for the lead time 0.25 alone"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1"),
    ],
)
def test_bad_arguments_are_sentences_and_leave_nothing(arguments, sentence, predictor, states, tmp_path):
    source = saved(tmp_path / "a.npy", states)
    with pytest.raises(ValueError, match=sentence):
        predict_file(predictor, source, tmp_path / "u.npy", **arguments)
    assert {path.name for path in tmp_path.iterdir()} == {"run", "a.npy"}


def test_bad_files_are_sentences_and_leave_nothing(predictor, states, tmp_path, monkeypatch):
    def refused(source, sentence):
        before = {path.name for path in tmp_path.iterdir()}
        with pytest.raises(ValueError, match=sentence):
            predict_file(predictor, source, tmp_path / "u.npz")
        assert {path.name for path in tmp_path.iterdir()} == before

    refused(saved(tmp_path / "two.npy", states[:, [0, 0]]), r"two.npy has shape \(7, 2, 32\), but this operator takes")
    refused(saved(tmp_path / "words.npy", np.array(["a", "b"])), "must hold real numbers")
    code = np.array([{"a": 1}], dtype=object)
    np.save(tmp_path / "code.npy", code, allow_pickle=True)
    refused(tmp_path / "code.npy", "could not be read as arrays of numbers: .*Python objects")
    np.savez(tmp_path / "code.npz", u=code)
    refused(tmp_path / "code.npz", "could not be read as arrays of numbers: .*allow_pickle")
    (tmp_path / "short.npy").write_bytes((tmp_path / "two.npy").read_bytes()[:200])
    refused(tmp_path / "short.npy", "could not be read as arrays of numbers")
    (tmp_path / "bad.npz").write_bytes(b"PK no archive")
    refused(tmp_path / "bad.npz", "could not be read as arrays of numbers")
    np.savez(tmp_path / "other.npz", v=states[:, 0], w=states[:, 0])
    refused(tmp_path / "other.npz", r"must hold an array for each input channel \(u\), .* it holds v, w")
    with zipfile.ZipFile(tmp_path / "empty.npz", "w"):
        pass
    refused(tmp_path / "empty.npz", "it holds none")
    # A value that is not finite is named by its place in the file, in whichever piece it is.
    monkeypatch.setattr("operators.predict_files.PIECE_VALUES", 2 * POINTS)
    states[5, 0, 3] = np.nan
    refused(saved(tmp_path / "nan.npy", states), r"channel 'u' holds values that are not finite in sample 5")


def test_paths_are_looked_at_before_anything_is_loaded(tmp_path):
    source = saved(tmp_path / "a.npy", np.zeros(3))
    (tmp_path / "a.txt").touch()
    for given, output, sentence in [
        (tmp_path / "b.npy", "u.npy", "there is no such file or dataset"),
        (tmp_path / "a.txt", "u.npy", "must be a .npy or .npz file, or the folder of a dataset"),
        (source, "u.txt", "must end in .npy or .npz"),
        (source, "a.npy", "is the input file"),
        (source, "no/u.npy", "its folder does not exist"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            check_paths(given, tmp_path / output)
    (tmp_path / "u.npy").mkdir()
    with pytest.raises(ValueError, match="is a folder"):
        check_paths(source, tmp_path / "u.npy")
