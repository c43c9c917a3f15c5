"""Links, names and docstrings of the documentation lead somewhere; the site, where Sphinx is there to build it."""

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MADE = ("_build", "api", "project")  # by the build
PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), ROOT / "benchmarks" / "README.md", *(ROOT / "docs").rglob("*.md")]
    if path.relative_to(ROOT).parts[1:2] not in [(folder,) for folder in MADE]
)
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())


@pytest.fixture(scope="module")
def reference():
    """docs/reference.py, which is no package."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["reference"] = module  # where dataclasses look for their annotations
    spec.loader.exec_module(module)
    yield module
    del sys.modules["reference"]


# -- Docstrings ------------------------------------------------------------------------------------------------------


def test_every_public_name_is_documented_with_its_arguments(reference):
    assert reference.faults() == []


def test_what_users_import_is_public(reference):
    called = {name.called for name in reference.public_names()}
    for name in ("solvers.solve", "solvers.cg", "solvers.Multigrid", "solvers.preconditioners", "datagen.Family"):
        assert name in called
    for name in (
        "datagen.store.open_store",
        "operators.predict.load",
        "operators.losses.losses",
        "solvers.gallery.poisson",
    ):
        assert name in called
    assert len(called) == len(reference.public_names()), "a name is public twice"
    assert not any(".commands" in name for name in called)


def test_a_name_without_docstring_or_arguments_is_found(reference):
    def silent(a): ...

    def vague(a, b):
        """It is about a.

        Parameters
        ----------
        a : int
        """

    def told(a, *, b, **others):
        """It.

        Parameters
        ----------
        a, b : int
            Both.
        """

    class Half:
        """A class with parameters.

        Attributes
        ----------
        known : int
        """

        @property
        def known(self): ...

        def unknown(self): ...

    assert list(reference.undocumented("silent", silent)) == ["silent has no docstring"]
    assert list(reference.undocumented("Half", Half)) == ["Half.unknown has no docstring"]
    assert list(reference.incomplete(vague)) == [
        "no section Parameters (or Attributes) of its docstring says what b is"
    ]
    assert list(reference.incomplete(told)) == []


# -- Links and names -------------------------------------------------------------------------------------------------


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub and MyST make them."""
    titles = re.findall(r"^#+ (.*)$", prose(page), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def dead_links(page: Path) -> Sequence[str]:
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        place = (page.parent / file).resolve() if file else page
        inside = place.is_relative_to(ROOT) or not page.is_relative_to(ROOT)
        if not inside or not place.exists() or (anchor and anchor not in anchors(place)):
            dead.append(target)
    return dead


@every_page
def test_links_lead_somewhere(page):
    assert dead_links(page) == []


def test_a_dead_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One thing\n[a](page.md#one-thing) [b](#one-thing) [c](page.md#other) [d](none.md)\n")
    assert dead_links(page) == ["page.md#other", "none.md"]


@every_page
def test_names_of_ours_in_pages_exist(page, reference):
    text = page.read_text()
    named = set(re.findall(r"`((?:solvers|datagen|operators)(?:\.\w+)+)", text))
    named |= {
        f"{module}.{name.strip()}"
        for module, names in re.findall(r"^\W*from ((?:solvers|datagen|operators)[\w.]*) import ([\w, ]+)", text, re.M)
        for name in names.split(",")
    }
    files = {
        name
        for name in named
        if (ROOT / (name.rpartition(".")[0].replace(".", "/") + "." + name.rpartition(".")[2])).exists()
    }
    assert [name for name in sorted(named - files) if not reference.exists(name)] == []


def test_names_of_ours_in_docstrings_exist(reference):
    wrong = []
    for path in reference.modules():
        for line in Path(sys.modules[path].__file__).read_text().splitlines():
            for name in re.findall(r"`((?:solvers|datagen|operators)(?:\.\w+)+)`", line):
                wrong += [f"{path}: {name}"] if not reference.exists(name) else []
    assert wrong == []


def test_every_page_is_in_the_index():
    listed = set(re.findall(r"^([\w/-]+)$", (ROOT / "docs" / "index.md").read_text(), flags=re.M))
    pages = {
        path.relative_to(ROOT / "docs").with_suffix("").as_posix() for path in PAGES if ROOT / "docs" in path.parents
    }
    assert pages - {"index"} <= listed


# -- The site --------------------------------------------------------------------------------------------------------


@pytest.fixture
def build(tmp_path):
    """Build the site from a copy of docs/; returns the exit code and what was said."""
    for package in ("sphinx", "myst_parser", "numpydoc", "furo"):
        pytest.importorskip(package, reason="needs the extra docs")
    source = tmp_path / "docs"
    shutil.copytree(ROOT / "docs", source, ignore=shutil.ignore_patterns(*MADE, "__pycache__"))
    for path in ROOT.iterdir():
        if path.name != "docs" and not path.name.startswith("."):
            (tmp_path / path.name).symlink_to(path)

    def run():
        words = ["-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", str(source), str(tmp_path / "site")]
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True)
        return done.returncode, done.stderr

    run.source, run.site = source, tmp_path / "site"
    return run


@pytest.mark.slow
def test_the_site_builds_without_a_warning(build):
    code, said = build()
    assert code == 0, said
    for page in ("index", "pdes", "tutorials/one-system", "api/solvers.krylov.cg", "project/benchmarks"):
        assert (build.site / f"{page}.html").stat().st_size > 5000
    assert 'href="solvers.krylov.cg.html#solvers.cg"' in (build.site / "api/solvers.html").read_text()


@pytest.mark.slow
def test_the_build_fails_on_what_leads_nowhere_and_on_what_is_not_documented(build):
    page = build.source / "cluster.md"
    page.write_text(page.read_text() + "\n[one](none.md), [two](pdes.md#none), [three](../solvers/none.py)\n")
    conf = build.source / "conf.py"
    spoilt = """
import solvers.gallery

solvers.gallery.poisson.__doc__ = "See `solvers.none`."
few = {name: text for name, text in reference.pages().items() if name in (*reference.ROOMS, "solvers.gallery")}
reference.pages = lambda: few
"""
    conf.write_text(conf.read_text() + spoilt)
    code, said = build()
    assert code != 0
    for words in ("none.md", "'none'", "../solvers/none.py", "solvers.none", "solvers.gallery.poisson: no section"):
        assert words in said
