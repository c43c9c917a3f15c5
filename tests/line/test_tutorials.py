"""The tutorials say what is true: their commands and scripts run in order, in an empty folder."""

import doctest
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TUTORIALS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs" / "tutorials").glob("*.md"))


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS)
def test_every_block_of_a_tutorial_runs(shell, page):
    for kind, block in shell.blocks(page, "bash", "python"):
        shell.bash(block) if kind == "bash" else shell.python(block)


@pytest.mark.parametrize("page", [page for page in TUTORIALS if "```pycon" in (ROOT / page).read_text()])
def test_every_session_of_a_tutorial_says_what_the_page_says(shell, page, monkeypatch):
    session = "\n".join(block for _, block in shell.blocks(page, "pycon"))
    monkeypatch.chdir(shell.folder)
    test = doctest.DocTestParser().get_doctest(session, {}, page, page, 0)
    said: list[str] = []
    results = doctest.DocTestRunner().run(test, out=said.append)
    assert not results.failed, "".join(said)


def test_every_tutorial_has_something_to_run(shell):
    for page in TUTORIALS:
        assert shell.blocks(page, "bash", "python", "pycon"), f"{page} shows nothing to run"
