"""The Well's own reader on our files, where it is installed (extra `peers`)."""

import numpy as np
import pytest

from datagen.generate import generate
from datagen.store import Spec, open_store

the_well = pytest.importorskip("the_well.data", reason="pip install 'southwell[peers]'")

SOLVER = {"method": "auto", "rtol": 1e-8}
FAMILIES = {
    "burgers": {"name": "burgers", "nu": 0.05, "grid": 32, "final_time": 0.3, "frames": 4},
    "gray_scott": {"name": "gray_scott", "grid": [12, 10], "final_time": 9.0, "frames": 4},
    "allen_cahn": {"name": "allen_cahn", "grid": [8, 6, 7], "dimension": 3, "final_time": 0.3, "frames": 4},
}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_well_reads_what_our_reader_reads(name, tmp_path):
    spec = Spec(FAMILIES[name], 1, {"train": 3, "validation": 0, "test": 1}, 2, SOLVER)
    ours = open_store(generate(spec, tmp_path / "data", executor="serial"))
    theirs = the_well.WellDataset(path=str(tmp_path / "data/train"), n_steps_input=1, n_steps_output=3)
    family = ours.family
    outputs, inputs = ([f.name for f in family.role(role)] for role in ("output", "input"))
    assert len(theirs) == 3
    assert theirs.metadata.dataset_name == name
    assert theirs.metadata.n_spatial_dims == family.mesh.dimension
    assert theirs.metadata.spatial_resolution == ours.shape
    assert theirs.metadata.field_names[0] == outputs
    assert theirs.metadata.constant_field_names[0] == inputs
    assert theirs.metadata.boundary_condition_types == ["PERIODIC"]
    for index in range(3):
        read = theirs[index]
        frames = np.concatenate([read["input_fields"].numpy(), read["output_fields"].numpy()])  # (time, *grid, channel)
        for channel, field in enumerate(outputs):
            np.testing.assert_array_equal(frames[..., channel], ours.read("train", field, index, index + 1)[0])
        for channel, field in enumerate(inputs):
            constant = read["constant_fields"].numpy()[..., channel]
            np.testing.assert_array_equal(constant, ours.read("train", field, index, index + 1)[0])
        np.testing.assert_allclose(
            read["output_time_grid"].numpy() - read["input_time_grid"].numpy(), ours.times[1:], rtol=1e-6
        )
        grid = read["space_grid"].numpy()
        for axis, points in enumerate(family.mesh.points()):
            np.testing.assert_allclose(grid[..., axis], points, rtol=1e-6)
