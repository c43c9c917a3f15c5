"""neuraloperator's ``.pt``: a dictionary of tensors x and y."""

import pickle

import numpy as np
import pytest
import torch

from datagen.interchange import FORMATS, write_file
from datagen.interchange.samples import Wanted


def test_neuraloperator_reads_tensors(made, tmp_path):
    samples, arrays = made([("a", "input"), ("u", "output")], (6, 7))
    data = torch.load(write_file(samples, tmp_path / "d.pt", "neuraloperator"), weights_only=True)
    # PTDataset with channels_squeezed: a channel axis is put after the samples.
    np.testing.assert_array_equal(data["x"].unsqueeze(1).numpy()[:, 0], arrays["a"])
    np.testing.assert_array_equal(data["y"].unsqueeze(1).numpy()[:, 0], arrays["u"])
    samples, arrays = made([("a", "input"), ("b", "input"), ("u", "output")], (5,))
    data = torch.load(write_file(samples, tmp_path / "e.pt", "neuraloperator"), weights_only=True)
    assert data["x"].shape == (6, 2, 5)
    assert data["y"].shape == (6, 1, 5)
    np.testing.assert_array_equal(data["x"][:, 1].numpy(), arrays["b"])


def test_their_files_are_read(theirs, reads, tmp_path):
    a, u, movie = theirs
    torch.save({"x": torch.from_numpy(a > 0), "y": torch.from_numpy(u)}, tmp_path / "squeezed.pt")
    reads("neuraloperator", tmp_path / "squeezed.pt", {"y": u})
    with FORMATS["neuraloperator"].read(tmp_path / "squeezed.pt", Wanted()) as found:
        assert set(np.unique(found.read("x", 0, 7))) == {False, True}
        assert found.dtype == "float32"
    content = {"x": torch.from_numpy(a)[:, None], "y": torch.from_numpy(movie)}
    torch.save(content, tmp_path / "channels.pt", _use_new_zipfile_serialization=False)  # as before torch 1.6
    reads("neuraloperator", tmp_path / "channels.pt", {"x": a})


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


def with_torch(content):
    return lambda path: torch.save(content, path)


ONES = torch.ones(4, 3, 3)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (with_torch({"x": Evil(), "y": ONES}), "pickled objects, which could run code"),
        (
            lambda path: path.write_bytes(pickle.dumps({"x": Evil(), "y": 1})),
            "pickled objects|not a file that torch.save",
        ),
        (with_torch([torch.ones(4, 3)]), "dictionary of tensors x and y, got list"),
        (with_torch({"x": ONES}), "y is missing"),
        (with_torch({"x": ONES, "y": torch.ones(5, 3, 3)}), "x has 4 samples and y has 5"),
        (with_torch({"x": ONES, "y": ONES.to(torch.complex64)}), "real numbers, got type complex64"),
    ],
    ids=["pickle", "raw pickle", "list", "no y", "counts", "complex"],
)
def test_malformed_files_are_refused_in_a_sentence(refuses, write, words, tmp_path):
    write(tmp_path / "bad.pt")
    refuses("neuraloperator", tmp_path / "bad.pt", words)
