"""``southwell-gp``: every option solves, files are written, bad input is refused; expressions are nothing else."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from operators.commands.gp import KEYS, gp_command, problem_of
from operators.gp.expressions import function_of_points, number

ROOT = Path(__file__).parents[3]
OPTIONS = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "configs" / "gp" / "pde").glob("*.yaml")}


def test_there_is_an_option_for_every_problem():
    assert set(OPTIONS) == set(KEYS)
    assert all(problem_of(option).dimension == len(option["domain"]) for option in OPTIONS.values())


def test_solution_and_picture_are_written(tmp_path, capsys):
    pde = OPTIONS["poisson"] | {"nodes": 60, "rhs": "-400 * sin(20 * x)", "boundary": "sin(20 * x)"}
    out, plot = tmp_path / "u.npz", tmp_path / "u.png"
    gp_command({"pde": pde, "kernel": "gaussian", "mode": None, "out": out, "plot": plot})
    with np.load(out) as found:
        np.testing.assert_allclose(found["u"], np.sin(20 * found["axis_0"]), atol=1e-8)
        assert found["std"].shape == (60,)
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "residual between the nodes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rhs": "__import__('os')"}, "holds"),
        ({"rhs": "x.real"}, "holds"),
        ({"rhs": "sin(x, x=1)"}, "holds"),
        ({"rhs": "sin("}, "must be an expression"),
        ({"rhs": "y"}, "holds 'y'"),
        ({"domain": [0, 1]}, "list of pairs"),
        ({"wave": 1}, "has the keys"),
        ({"name": "burgers"}, "must be one of"),
    ],
)
def test_bad_configuration_gets_a_sentence(change, message):
    with pytest.raises(ValueError, match=message):
        problem_of(OPTIONS["poisson"] | change)


def test_expressions_are_numpys():
    points = np.random.default_rng(0).uniform(size=(5, 3))
    x, y, z = points.T
    found = function_of_points("-2*sin(pi*x)**2 / (1 + y) + maximum(z, t) - exp(-e)", 3, "rhs")(points)
    np.testing.assert_array_equal(found, -2 * np.sin(np.pi * x) ** 2 / (1 + y) + z - np.exp(-np.e))
    assert number("2*pi", "end") == 2 * np.pi


@pytest.mark.slow
@pytest.mark.parametrize("option", KEYS)
def test_every_option_runs_from_the_command_line(option, tmp_path):
    command = [sys.executable, "-m", "operators.commands.gp", f"pde={option}"]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "gp.npz").exists()
    assert (tmp_path / "gp.png").exists()
