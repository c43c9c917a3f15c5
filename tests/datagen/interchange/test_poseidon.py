"""Poseidon's NetCDF-like files."""

import h5py
import numpy as np

from datagen.interchange import write_file
from datagen.interchange.samples import Wanted


def test_poseidon_reads_its_variables(made, tmp_path):
    velocities = [
        (f"{start}velocity_{x}", role) for start, role in (("initial_", "input"), ("", "output")) for x in "xy"
    ]
    flow, arrays = made(velocities, (5, 4), frame_times=(0.0, 1.0))
    with h5py.File(write_file(flow, tmp_path / "flow.nc", "poseidon")) as file:
        # Sample 3, frame 1: velocity[i, t, 0:2] is two fields.
        frame = file["velocity"][3, 1, 0:2]
        np.testing.assert_array_equal(frame, [arrays["velocity_x"][3, 1], arrays["velocity_y"][3, 1]])
        assert [d.label or d[0].name for d in file["velocity"].dims] == ["/sample", "/time", "/channel", "/x", "/y"]
    driven, arrays = made([("initial_u", "input"), ("k", "input"), ("u", "output")], (5, 6), frame_times=(0.0, 0.1))
    with h5py.File(write_file(driven, tmp_path / "wave.nc", "poseidon")) as file:
        np.testing.assert_array_equal(file["solution"][2, 1].reshape(1, 5, 6)[0], arrays["u"][2, 1])
        np.testing.assert_array_equal(file["k"][2], arrays["k"][2])
    steady, arrays = made([("a", "input"), ("u", "output")], (6, 7))
    with h5py.File(write_file(steady, tmp_path / "steady.nc", "poseidon")) as file:
        np.testing.assert_array_equal(file["solution"][4, 0], arrays["a"][4])
        np.testing.assert_array_equal(file["solution"][4, 1], arrays["u"][4])


def put(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
    return path


def test_their_files_are_read(theirs, reads, tmp_path):
    a, u, movie = theirs
    reads("poseidon", put(tmp_path / "ns.nc", velocity=np.stack([movie, -movie], axis=2)), {"velocity_0": movie})
    wave = put(tmp_path / "wave.nc", solution=movie, c=a)
    reads("poseidon", wave, {"solution": movie, "c": a}, Wanted(("c",)))
    reads("poseidon", put(tmp_path / "poisson.nc", source=a, solution=u), {"source": a, "solution": u})
    airfoil = put(tmp_path / "airfoil.nc", solution=np.stack([a, u], axis=1))
    reads("poseidon", airfoil, {"input": a, "output": u})
