"""The benchmark of sequences: what is capped is charged and told, no cell is measured twice, faults are as said."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from solvers import cg, gallery, gmres

sys.path.insert(0, str(Path(__file__).parents[2]))
sequences, misassembled = (importlib.import_module(f"benchmarks.{name}") for name in ("sequences", "misassembled"))
sys.path.pop(0)


def stream(length=6):
    return gallery.darcy_sequence(length=length, shape=(12, 12))


def test_capped_solves_count_as_the_cap_and_a_finish():
    rtol = 1e-8
    sound = sequences.Peer(lambda A, b, _: cg(A, b, rtol=rtol), stream())
    lame = sequences.Peer(lambda A, b, _: cg(A, b, rtol=rtol, maxiter=2), stream())
    report = sequences.measure({"sound": sound, "lame": lame}, 6, rtol)
    assert report["sound"]["capped"] == 0
    assert report["sound"]["systems"] == 6
    assert report["lame"]["capped"] == report["lame"]["systems"] == sequences.MOST_CAPPED
    assert report["lame"]["seconds"] >= 6 * sequences.CAP  # of four, taken to be six
    assert report["lame"]["cpu"] >= 6 * sequences.CAP
    assert report["lame"]["residual"] <= rtol  # that of the finish


def test_what_is_not_for_these_matrices_is_left_out():
    def refuses(A, b, context):
        raise ValueError("not this one")

    assert sequences.measure({"no": sequences.Peer(refuses, stream())}, 6, 1e-5)["no"] is None


def test_a_cell_is_measured_once(tmp_path, monkeypatch):
    calls = []

    def cells(part, seeds):
        for seed in seeds:
            facts = {"sequence": "made up", "seed": seed, "rtol": 1e-5, "length": 1}
            peer = {
                **{"seconds": 1.0 + seed, "cpu": 1.0 + seed, "systems": 1, "products": 3, "applications": 0},
                **{"capped": seed, "residual": 1e-6, "sort_seconds": 0.0},
            }
            yield f"cell-{seed}", facts, lambda peer=peer: calls.append(1) or {"a": peer, "b": peer | {"cpu": 4.0}}

    monkeypatch.setattr(sequences, "cells", cells)
    sequences.run("table", [0], 1.0, tmp_path)
    sequences.run("table", [0, 1], 1.0, tmp_path)
    assert len(calls) == 2
    assert json.loads((tmp_path / "cell-1.json").read_text())["peers"]["a"]["seconds"] == 2.0
    text = sequences.show(tmp_path)
    assert "| made up | 1e-05 | a | >= 1.5 (sd 0.71) | >= 1.00 | 1.5 | >= 3 | 0 | 1 of 2 | 1.0e-06 |" in text
    sequences.run("table", [2], 0.0, tmp_path)  # no time
    assert len(calls) == 2


def test_the_faults_of_the_published_matrices():
    """-a of the neighbour, except in the row before, where it is that of the point two columns further left."""
    points = 7
    ((A, b, context),) = misassembled.misassembled_sequence(1, points, seed=3)
    A, a = A.toarray(), np.exp(context.reshape(points + 2, points + 2))
    assert b[0] == pytest.approx(1.0 / 64.0)
    for row in range(points):
        for column in range(points):
            here = A[row * points + column].reshape(points, points)
            expected = np.zeros((points, points))
            expected[row, column] = 4 * a[row + 1, column + 1]
            if column > 0:
                expected[row, column - 1] = -a[row + 1, column]
            if column < points - 1:
                expected[row, column + 1] = -a[row + 1, column + 2]
            if row < points - 1:
                expected[row + 1, column] = -a[row + 2, column + 1]
            if row > 0:
                flat = row * points + column - 2  # which for the first two columns lies in the row before that
                expected[row - 1, column] = -a[flat // points, flat % points + 1]
            np.testing.assert_allclose(here, expected, rtol=1e-14)


def test_published_matrices_are_indefinite_and_hard_for_gmres():
    """The audit of the published code found negative eigenvalues, and 7504 iterations of GMRES(40) on the mean."""
    (A, b, _), *_ = misassembled.misassembled_sequence(2, 48, seed=0)
    assert np.linalg.eigvals(A.toarray()).real.min() < 0
    assert gmres(A, b, rtol=1e-5, restart=40, maxiter=250).iterations > 1000


def test_the_field_is_periodic_and_of_the_published_size():
    fields = np.stack([misassembled.periodic_field(32, np.random.default_rng(seed)) for seed in range(400)])
    # the sum over all wavenumbers, by which the field is normalised in the paper's code; 0.03: 400 draws
    k = np.fft.fftfreq(32, 1 / 32)
    variance = 7.0**3 * ((4 * np.pi**2 * (k[:, None] ** 2 + k**2) + 49.0) ** -2.5).sum() - 7.0**3 * 49.0**-2.5
    assert fields.std() == pytest.approx(np.sqrt(variance), rel=0.03)
    step, seam = np.diff(fields, axis=1), fields[:, 0] - fields[:, -1]
    assert seam.std() == pytest.approx(step.std(), rel=0.1)
