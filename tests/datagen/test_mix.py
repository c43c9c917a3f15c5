"""Mixtures: the samples that were asked for, unchanged, and the hard dataset's validation and test."""

import json
import re

import numpy as np
import pytest

from datagen.commands.data import info, main
from datagen.files import json_bytes, read_json
from datagen.generate import generate
from datagen.mix import by_budget, by_fraction, check_fit, costs, ladder, mix
from datagen.store import Spec, open_store
from datagen.validate import validate
from operators.evaluation import _other_parameters
from operators.tasks import tasks

SOLVER = {"method": "cg", "rtol": 1e-8}


def made(folder, pde, seed, train, others, dtype="float32", level=None, solver=SOLVER):
    sizes = {"train": train, "validation": others, "test": others}
    return open_store(generate(Spec(pde, seed, sizes, 4, solver, dtype, level=level), folder, executor="serial"))


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A hard and an easy dataset of one family."""
    folder = tmp_path_factory.mktemp("data")
    darcy = {"name": "darcy", "grid": 8}
    hard = made(folder / "hard", darcy | {"high": 1200.0}, 0, 10, 3, level={"contrast": "high"})
    return hard, made(folder / "easy", darcy, 1, 12, 2)


def test_samples_are_the_first_of_each_and_the_test_is_the_hard_ones(stores, tmp_path):
    hard, easy = stores
    mix(stores, [3, 7], tmp_path / "m")
    mixed = open_store(tmp_path / "m")
    assert mixed.sizes == {"train": 10, "validation": 3, "test": 3}
    for name in ("coefficient", "pressure"):
        expected = np.concatenate([hard.read("train", name, 0, 3), easy.read("train", name, 0, 7)])
        np.testing.assert_array_equal(mixed.read("train", name), expected)
        for split in ("validation", "test"):
            np.testing.assert_array_equal(mixed.read(split, name), hard.read(split, name))
    np.testing.assert_array_equal(mixed.record("train", "provenance/part"), [0] * 3 + [1] * 7)
    np.testing.assert_array_equal(mixed.record("train", "provenance/part_sample"), [*range(3), *range(7)])
    assert list(mixed.record("train", "provenance/level")) == [b"contrast=high"] * 3 + [b""] * 7
    for unit in ("work", "seconds"):
        expected = np.concatenate([costs(hard, unit)[:3], costs(easy, unit)[:7]])
        np.testing.assert_array_equal(costs(mixed, unit), expected)
    assert validate(tmp_path / "m").problems == []
    assert "3 training samples of hard, darcy (contrast=high), seed 0" in info(tmp_path / "m")


def test_statistics_are_of_the_training_split(stores, tmp_path):
    mix(stores, [2, 2], tmp_path / "m")
    mixed = open_store(tmp_path / "m")
    normaliser, _ = tasks.build("static", mixed, memory_gb=1.0).normalisers()
    training = mixed.read("train", "coefficient").astype(float)
    assert float(normaliser.mean[0]) == pytest.approx(training.mean(), rel=1e-6)
    assert float(normaliser.standard_deviation[0]) == pytest.approx(training.std(), rel=1e-6)


def test_bytes_depend_on_the_words_alone_and_what_is_broken_is_made_again(stores, tmp_path):
    for name in ("one", "two"):
        mix(stores, [3, 5], tmp_path / name)
    content = (tmp_path / "one/manifest.json").read_bytes()
    assert content == (tmp_path / "two/manifest.json").read_bytes()
    (tmp_path / "one/train/shard-00001.hdf5").write_bytes(b"cut short")
    (tmp_path / "one/manifest.json").unlink()
    mix(stores, [3, 5], tmp_path / "one")
    assert content == (tmp_path / "one/manifest.json").read_bytes()
    with pytest.raises(ValueError, match="holds a dataset of another spec"):
        mix(stores, [4, 5], tmp_path / "one")


def test_mixtures_by_fraction_are_nested():
    mixtures = [by_fraction(800, alpha) for alpha in np.linspace(0, 1, 97)]
    hard, easy = np.array(mixtures).T
    assert np.all(hard + easy == 800)
    assert np.all(np.diff(hard) >= 0)
    assert (hard[0], hard[-1]) == (0, 800)
    # the published fractions of 800 are whole numbers
    assert [by_fraction(800, a)[0] for a in (0.00125, 0.005, 0.025, 0.075, 0.15, 0.85)] == [1, 4, 20, 60, 120, 680]


def test_a_budget_buys_as_many_as_it_can():
    rng = np.random.default_rng(0)
    hard, easy = rng.integers(50, 99, 40), rng.integers(1, 9, 900)
    before = [0, 0]
    for budget in (1, 100, 777.7, 2000):
        counts = by_budget([hard, easy], budget, [0.7, 0.3])
        for cost, count, share in zip((hard, easy), counts, (0.7, 0.3), strict=True):
            assert cost[:count].sum() <= share * budget < cost[: count + 1].sum()
        assert counts >= before  # nested
        before = counts
    assert by_budget([np.full(10, 0.1), np.full(10, 0.1)], 1.0, [0.3, 0.7]) == [3, 7]  # where 0.1 + 0.1 + 0.1 > 0.3
    with pytest.raises(ValueError, match=r"dataset 2 has 900 training samples, which cost .* generate more"):
        by_budget([hard, easy], 1e5, [0.0, 1.0])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: by_fraction(10, 1.5), "alpha must be the share of hard samples"),
        (lambda: by_fraction(10, float("nan")), "alpha must be"),
        (lambda: by_fraction(0, 0.5), "samples must be a whole number of at least 1"),
        (lambda: ladder(3, -1), "extra must be a whole number of at least 0"),
        (lambda: by_budget([np.ones(3)], -1.0, [1.0]), "budget must be positive"),
        (lambda: by_budget([np.ones(3)], 1.0, [0.9]), "shares must be 1 parts of the budget"),
        (lambda: by_budget([np.ones(3)], 1.0, [0.5, 0.5]), "shares must be 1 parts"),
        (lambda: by_budget([np.ones(3), np.ones(3)], 1.0, [1.5, -0.5]), "shares must be 2 parts"),
    ],
)
def test_nonsense_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_what_does_not_fit_together_is_refused(stores, tmp_path):
    hard, easy = stores
    others = {
        "the grid is": made(tmp_path / "grid", {"name": "darcy", "grid": 9}, 1, 2, 0),
        "store.dtype is float64 there": made(tmp_path / "dtype", {"name": "darcy", "grid": 8}, 1, 2, 0, "float64"),
        "the family is poisson there and darcy here": made(tmp_path / "pde", {"name": "poisson", "grid": 8}, 1, 2, 0),
    }
    for words, other in others.items():
        with pytest.raises(ValueError, match=f"does not fit together with .*{words}"):
            check_fit([hard, other])
    with pytest.raises(ValueError, match="is given twice"):
        check_fit([hard, easy, easy])
    with pytest.raises(ValueError, match="12 training samples, and the mixture needs 13"):
        mix(stores, [1, 13], tmp_path / "m")
    with pytest.raises(ValueError, match="would have no training samples"):
        mix(stores, [0, 0], tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_times_must_be_the_same(tmp_path):
    burgers = {"name": "burgers", "grid": 16, "nu": 0.1, "frames": 3, "final_time": 0.1}
    solver = {"method": "auto", "rtol": 1e-6}
    short, long = (
        made(tmp_path / str(time), burgers | {"final_time": time}, 0, 2, 1, solver=solver) for time in (0.1, 0.2)
    )
    with pytest.raises(ValueError, match=r"the list of times is \[0.0, 0.1, 0.2\] there and \[0.0, 0.05, 0.1\] here"):
        check_fit([short, long])
    thick = made(tmp_path / "thick", burgers | {"nu": 0.2}, 1, 2, 0, solver=solver)
    mix([short, thick], [1, 2], tmp_path / "m")
    mixed = open_store(tmp_path / "m")
    assert mixed.evolves
    np.testing.assert_array_equal(mixed.times, short.times)
    np.testing.assert_array_equal(mixed.read("train", "u", 1, 3), thick.read("train", "u"))
    assert validate(tmp_path / "m").problems == []


def test_a_mixture_may_be_mixed_again_but_not_with_its_own_parts(stores, tmp_path):
    hard, easy = stores
    mix(stores, [3, 2], tmp_path / "m")
    third = made(tmp_path / "third", {"name": "darcy", "grid": 8, "high": 120.0}, 2, 4, 0)
    mix([open_store(tmp_path / "m"), third], [5, 4], tmp_path / "again")
    again = open_store(tmp_path / "again")
    np.testing.assert_array_equal(again.read("train", "pressure", 0, 3), hard.read("train", "pressure", 0, 3))
    np.testing.assert_array_equal(again.read("test", "pressure"), hard.read("test", "pressure"))
    with pytest.raises(ValueError, match="part of a mixture that is given"):
        check_fit([easy, open_store(tmp_path / "m")])


def test_the_command(stores, tmp_path, capsys):
    hard, easy = stores
    words = ["mix", str(hard.path), f"with={easy.path}", f"out={tmp_path / 'm'}"]
    main([*words, "samples=10", "alpha=0.2"])
    assert "2 training samples of" in capsys.readouterr().out
    assert [part["samples"] for part in open_store(tmp_path / "m").spec["pde"]["parts"]] == [2, 8]
    budget = 2.5 * costs(hard)[:2].sum()
    main([*words[:-1], f"out={tmp_path / 'b'}", f"budget={budget}", "shares=0.4,0.6"])
    assert read_json(tmp_path / "b/spec.json")["pde"]["parts"][0]["samples"] == 2
    for wrong, said in (
        (["samples=10"], "needs alpha= too"),
        (["samples=10", "extra=3"], "needs one of .* got fraction and ladder"),
        ([], "got none of them"),
        (["budget=10", "shares=0.5,0.5", "unit=euro"], "unit must be work or seconds"),
    ):
        with pytest.raises(SystemExit) as stop:
            main([*words[:-1], f"out={tmp_path / 'x'}", *wrong])
        assert stop.value.code == 2
        assert re.search(said, capsys.readouterr().err)
    assert not (tmp_path / "x").exists()


def test_samples_of_a_mixture_are_held_to_the_equations_of_their_parts(stores, tmp_path):
    mix(stores, [3, 7], tmp_path / "m")
    path = tmp_path / "m/spec.json"
    assert validate(tmp_path / "m").worst > 1e-4  # residuals were computed
    # The easy samples, said to have been solved to a tolerance that their labels do not meet
    content = json.loads(path.read_text())
    content["pde"]["parts"][1]["spec"]["solver"]["rtol"] = 1e-14
    path.write_bytes(json_bytes(content))
    manifest = read_json(tmp_path / "m/manifest.json")
    digest = Spec.from_dict(content).digest
    (tmp_path / "m/manifest.json").write_bytes(json_bytes(manifest | {"spec_sha256": digest}))
    problems = validate(tmp_path / "m").problems
    for index in range(10):
        said = any(f"train[{index}]: its recorded relative residual" in problem for problem in problems)
        assert said == (index >= 3)


def test_an_evaluation_says_in_which_parameters_the_parts_differed(stores, tmp_path):
    hard, _ = stores
    mix(stores, [3, 7], tmp_path / "m")
    mixed = open_store(tmp_path / "m").spec
    assert _other_parameters(mixed, hard.spec) == {"high": [[1200.0, 12.0], 1200.0]}
    assert _other_parameters(hard.spec, hard.spec) == {}
    mix(stores, [0, 7], tmp_path / "easy alone")
    assert _other_parameters(open_store(tmp_path / "easy alone").spec, hard.spec) == {"high": [12.0, 1200.0]}
