"""A model, a loss, an optimizer and a preconditioner from separate packages, as docs/your-own-model.md has them."""

import re

import numpy as np
import pytest
import torch

PAGE = "docs/your-own-model.md"
GENERATE = "southwell-generate pde=darcy pde.grid=12 samples.validation=4 samples.test=4 seed=3 executor=serial"
TRAIN = (
    "southwell-train dataset.path=data model=near_and_far model.width=8 model.layers=2 loss=relative_huber "
    "optimizer=lion optimizer.lr=5e-3 trainer.batch_size=8 out=run"
)


@pytest.fixture
def installed(shell):
    """A shell with both packages of the page, and a dataset of 24 samples of 12 x 12 cells."""
    modules, projects = (shell.blocks(PAGE, kind) for kind in ("python", "toml"))
    shell.install(projects[0][1], my_operators=modules[0][1])
    shell.install(projects[1][1], my_preconditioners=modules[1][1])
    return shell


def test_they_train_and_another_process_predicts(installed):
    installed.bash(f"{GENERATE} samples.train=24 solver=cg solver.M=neumann out=data")
    assert "no faults found" in installed.bash("southwell-data validate data")
    installed.bash(f"{TRAIN} trainer.epochs=4")
    content = torch.load(installed.folder / "run/best.pt", weights_only=True)
    assert content["model"]["name"] == "near_and_far"
    assert content["model"]["arguments"]["width"] == 8
    state = torch.load(installed.folder / "run/last.pt", weights_only=True)["training"]["optimizer"]["state"]
    assert all("momentum" in each for each in state.values())  # Lion's own, from which a run goes on
    losses = [float(line.split(",")[1]) for line in (installed.folder / "run/metrics.csv").read_text().split()[1:]]
    assert losses[-1] < losses[0]

    np.save(installed.folder / "a.npy", np.full((3, 1, 16, 16), 5.0, dtype=np.float32))
    installed.bash("southwell-predict checkpoint=run/best.pt input=a.npy output=u.npy")
    predicted = np.load(installed.folder / "u.npy")
    assert predicted.shape == (3, 1, 16, 16)
    np.testing.assert_array_equal(predicted[0], predicted[2])


@pytest.mark.slow
def test_they_go_on_are_evaluated_and_certified_and_missed_where_they_are_not(installed):
    np.save(installed.folder / "a.npy", np.ones((1, 1, 32, 32), dtype=np.float32))
    (_, commands), *_ = installed.blocks(PAGE, "sh")
    said = installed.bash(commands.replace("pip install .\n", ""))
    # Learning means here: half of what the mean of the training data leaves, or less.
    errors = [float(error) for error in re.findall(r"relative L2 (\S+) %", said)]
    assert errors[1] < 0.5 * errors[2]
    assert np.isfinite(np.load(installed.folder / "u.npy")).all()
    run = "checkpoint=runs/near_and_far/best.pt"
    installed.bash(f"southwell-evaluate {run} dataset.path=data/darcy32 certify=2 out=certified")
    assert "ertified" in (installed.folder / "certified/report.md").read_text()
    assert "model.width" in installed.bash(f"{TRAIN.replace('model.width', 'model.widht')} trainer.epochs=2", code=2)
    assert "optimizer" in installed.bash(f"{TRAIN.replace('=lion', '=lino')} trainer.epochs=2", code=2)

    # A process without the package: the checkpoint says which name is missing.
    installed.environment["PYTHONPATH"] = installed.environment["PYTHONPATH"].replace(str(installed.site), "")
    said = installed.bash(f"southwell-predict {run} input=a.npy output=u.npy", code=2)
    assert "unknown model 'near_and_far'" in said


def test_a_package_that_cannot_be_imported_is_named(installed):
    (installed.site / "my_operators.py").write_text("import there_is_no_such_module\n")
    said = installed.bash("southwell-train dataset.path=data out=run", code=2)
    assert "model 'near_and_far' (my_operators:NearAndFar) cannot be imported" in said
    said = installed.bash("python -c \"from operators.losses import losses; losses['relative_huber']\"", code=1)
    assert "loss 'relative_huber' (my_operators:relative_huber) cannot be imported" in said


def test_a_preconditioner_by_its_name_finishes_what_it_is_given(installed):
    script = """
import numpy as np
from solvers import gallery, solve
A, b = gallery.diffusion(gallery.jumps((40, 40))), np.ones(1600)
plain, ours = (solve(A, b, method="cg", M=M, rtol=1e-8) for M in (None, "neumann"))
print(ours.method, ours.iterations < plain.iterations, np.linalg.norm(b - A @ ours.x) <= 1e-8 * 40)
"""
    assert installed.python(script).split() == ["cg", "+", "Neumann", "True", "True"]
