"""What the pictures show is what is stored, with names, units and times where they belong."""

import io
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from datagen import plots
from datagen.commands.data import main as data_command
from datagen.interchange import import_file, write_file
from datagen.interchange.samples import Samples
from datagen.pdes.imported import Imported
from datagen.store import open_store


def stored(folder, grid, frame_times=None, count=4):
    """A dataset of noise: one input in metres, one output in pascals."""
    rng = np.random.default_rng(2)
    declared = [{"name": "depth", "role": "input", "units": "m"}, {"name": "load", "role": "output", "units": "Pa"}]
    about = Imported(grid, declared, lengths=[2.0] * len(grid), frame_times=frame_times)
    arrays = {f.name: rng.uniform(1, 2, (count, *about.shape(f.name))).astype("f4") for f in about.fields}
    samples = Samples(about, count, "float32", lambda name, start, stop: arrays[name][start:stop])
    write_file(samples, folder / "d.npz", "npz")
    import_file(folder / "d.npz", folder / "data", "npz")
    return open_store(folder / "data")


def panels(figure):
    """The panels, without the colour bars."""
    return [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]


def test_images_show_the_stored_values(tmp_path):
    store = stored(tmp_path, (5, 7))
    figure = plots.contact_sheet(store, "train", 1, 3)
    shown = panels(figure)
    assert len(shown) == 4
    assert len(figure.axes) == 8  # each with its colour bar
    assert [axes.get_title() for axes in shown] == ["depth [m]", "load [Pa]", "", ""]
    for row in range(2):
        for column, name in enumerate(("depth", "load")):
            image = shown[2 * row + column].images[0]
            # First axis to the right, second upwards.
            np.testing.assert_array_equal(image.get_array().T, store.read("train", name, 1 + row, 2 + row)[0])
            assert image.origin == "lower"
            assert tuple(image.get_extent()) == (0, 2, 0, 2)
            both = store.read("train", name, 1, 3)
            assert image.get_clim() == (both.min(), both.max())


def test_curves_and_middle_slices(tmp_path):
    (tmp_path / "one").mkdir()
    line = panels(plots.contact_sheet(stored(tmp_path / "one", (6,)), "train", 0, 1))[0].lines[0]
    np.testing.assert_allclose(line.get_xdata(), (np.arange(6) + 0.5) / 3)
    store = stored(tmp_path, (4, 5, 6))
    figure = plots.contact_sheet(store, "train", 0, 1)
    cut = store.read("train", "depth", 0, 1)[0, :, :, 3]
    np.testing.assert_array_equal(panels(figure)[0].images[0].get_array().T, cut)
    assert f"slice at z = {store.family.mesh.coordinates(2)[3]:.3g}" in figure.get_suptitle()


def test_frames_and_animation(tmp_path):
    store = stored(tmp_path, (5, 7), frame_times=[0.0, 0.5, 1.0, 2.0, 4.0])
    shown = panels(plots.contact_sheet(store, "train", 0, 1))
    assert [axes.get_title() for axes in shown[1:]] == [f"load [Pa], t = {t}" for t in ("0", "0.5", "2", "4")]
    np.testing.assert_array_equal(shown[3].images[0].get_array().T, store.read("train", "load", 0, 1)[0, 3])
    movie = Image.open(io.BytesIO(plots.gif(store, "train", 2)))
    frames = []
    for number in range(movie.n_frames):
        movie.seek(number)
        frames.append(np.asarray(movie.convert("RGB")))
    assert len(frames) == 5
    # Noise: from frame to frame every cell has another colour, and the panel is more than a quarter of the picture.
    for before, after in pairwise(frames):
        assert np.mean(np.any(before != after, axis=-1)) > 0.25


def test_values_of_both_signs_and_constants_have_a_scale():
    assert plots.colour_scale([np.array([-1.0, 3.0, np.nan])]) == (-3, 3)
    assert plots.colour_scale([np.array([-0.01, 3.0])]) == (-0.01, 3)
    assert plots.colour_scale([np.array([2.0, 2.0])]) == (1.5, 2.5)


def test_the_command_writes_both(tmp_path, capsys):
    store = stored(tmp_path, (6,), frame_times=[0.0, 1.0])
    place = tmp_path / "sheet.png"
    words = [f"out={place}", "samples=2", "first=1", f"animation={tmp_path / 'movie.gif'}"]
    data_command(["show", str(store.path), *words])
    assert Image.open(place).format == "PNG"
    assert Image.open(tmp_path / "movie.gif").n_frames == 2
    assert "samples 1 to 2 of train" in capsys.readouterr().out
    (tmp_path / "many").mkdir()
    many = stored(tmp_path / "many", (3,), count=40)
    with pytest.raises(ValueError, match="at most 32"):
        plots.contact_sheet(many, "train", 0, 40)
