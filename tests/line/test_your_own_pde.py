"""A family from a separate package, word for word as docs/your-own-pde.md has it."""

import pytest

from datagen.store import open_store

GENERATE = "southwell-generate pde=decay samples.train=6 samples.validation=2 samples.test=2"


@pytest.fixture
def installed(shell):
    """A shell with the package of the page."""
    (_, module), (_, project) = (shell.blocks("docs/your-own-pde.md", kind)[0] for kind in ("python", "toml"))
    assert len(module.splitlines()) + len(project.splitlines()) < 60
    shell.install(project, my_pdes=module)
    return shell


def test_the_package_of_the_page_makes_a_dataset(installed):
    words = "pde.grid=12 pde.rate=25 shard.size=4 solver.rtol=1e-8 executor.workers=1 out=data/decay"
    installed.bash(f"{GENERATE} {words}")
    text = installed.bash("southwell-data validate data/decay 2>&1")
    assert "no independent scheme for family 'decay'" in text
    assert "10 samples checked, 10 solved again" in text
    # This process does not have the package: the dataset says what is missing.
    with pytest.raises(ValueError, match="unknown PDE family 'decay'"):
        open_store(installed.folder / "data/decay")

    assert "pde.rate" in installed.bash(f"{GENERATE} pde.rat=25 out=data/other", code=2)


def test_the_check_of_the_page_shows_second_order(installed):
    _, (_, check) = installed.blocks("docs/your-own-pde.md", "python")
    (_, coarse), (_, fine) = (line.split() for line in installed.python(check).splitlines())
    # h^2 (1 + O(h^2)), h = 1/16: within a few percent of 4.
    assert float(coarse) / float(fine) == pytest.approx(4, rel=0.05)


def test_a_package_that_cannot_be_imported_is_named(installed):
    (installed.site / "my_pdes.py").write_text("import there_is_no_such_module\n")
    said = installed.bash(f"{GENERATE} out=data/decay", code=2)
    assert "PDE family 'decay' (my_pdes:Decay) cannot be imported" in said
