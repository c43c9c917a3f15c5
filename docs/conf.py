"""How Sphinx builds the site: ``make docs``. Every warning is an error there; `reference.py` says what is public."""

import os
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT)]
import reference  # noqa: E402

logger = logging.getLogger(__name__)

project = "Southwell"
author = "The Southwell developers"
copyright = "2026, The Southwell developers"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "numpydoc"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3  # pdes.md#darcy, as on GitHub
html_theme = "furo"
html_title = "Southwell"
templates_path: list[str] = []
default_role = "named"
add_module_names = True
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
maximum_signature_line_length = 100
numpydoc_show_class_members = False  # autodoc shows them
numpydoc_validation_checks: set[str] = set()  # reference.faults is ours
suppress_warnings = ["config.cache", "ref.citation"]  # a source need not be cited in the text


# -- Docstrings as we write them -------------------------------------------------------------------------------------

_SECTION = re.compile(r"^-{3,}$")
_LIST_OR_DIRECTIVE = re.compile(r"^(\.\. |[-*+] |\d+\. |>>> |:\w+)|::$")


def house_style(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Equations and tables are indented, as in Markdown: literal blocks. ``*grid`` is no emphasis, |u| a modulus."""
    lines[:] = [re.sub(r"(?<=[ (,])\*(?=\w)(?!\w[^*]*\w\*(?!\w)|\w\*)", r"\\*", line) for line in outside_code(lines)]
    inline = [not line.startswith((" ", ".. ")) and line.count("`") % 2 == 0 for line in lines]  # no block, no formula
    lines[:] = [line.replace("|", r"\|") if plain else line for line, plain in zip(lines, inline, strict=True)]
    before = ""  # the last line that was not blank
    out: list[str] = []
    for line in lines:
        indented = line.startswith("    ")
        begins = indented and before and not before.startswith(" ") and bool(out) and not out[-1].strip()
        if begins and not _LIST_OR_DIRECTIVE.search(before) and not _SECTION.match(before):
            out += ["::", ""]
        if line.strip():
            before = line
        out.append(line)
    lines[:] = out


def outside_code(lines: list[str]) -> list[str]:
    """The lines, with ``*`` and ``|`` hidden where they stand in code."""
    hide = str.maketrans("*|", "\0\1")
    return [re.sub(r"``[^`]*``|`[^`]*`", lambda code: code[0].translate(hide), line) for line in lines]


def show_stars(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """What `outside_code` hid."""
    lines[:] = [line.translate(str.maketrans("\0\1", "*|")) for line in lines]


# -- References ------------------------------------------------------------------------------------------------------


def named(
    role: str, raw: str, text: str, line: int, inliner: Any, options: Any = None, content: Any = None
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """A word in single backticks: code, and a link if it is the name of something that has a page."""
    shown = nodes.literal(raw, text, classes=["xref", "py"])
    if not re.fullmatch(r"[A-Za-z_][\w.]*(\(\))?", text):
        return [shown], []
    context = inliner.document.settings.env.ref_context
    reference_to = addnodes.pending_xref(
        raw,
        shown,
        refdomain="py",
        reftype="obj",
        reftarget=text.removesuffix("()"),
        refdoc=inliner.document.settings.env.docname,
        refexplicit=False,
        refwarn=True,
    )
    reference_to["py:module"], reference_to["py:class"] = context.get("py:module"), context.get("py:class")
    return [reference_to], []


def find_elsewhere(app: Sphinx, env: Any, node: addnodes.pending_xref, shown: nodes.Element) -> nodes.Node | None:
    """Links by the name in the defining module, or by the last part alone; a dotted name of ours must exist."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"]
    public = reference.targets().get(target)
    if public is not None:
        domain = env.get_domain("py")
        return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", public, node, shown)
    if target.split(".")[0] in reference.ROOMS and "." in target and not reference.exists(target):
        logger.warning("reference to nothing: %s", target, location=node, type="ref", subtype="named")
    return shown


# -- Pages -----------------------------------------------------------------------------------------------------------


def write_reference(app: Sphinx) -> None:
    """The pages of the API reference, beside the others; an unchanged one keeps its date, and is not built again."""
    folder = Path(app.srcdir) / "api"
    folder.mkdir(exist_ok=True)
    texts = {f"{name}.rst": text for name, text in reference.pages().items()}
    for path in folder.iterdir():
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        if not (folder / name).exists() or (folder / name).read_text() != text:
            (folder / name).write_text(text)
    for fault in reference.faults():
        logger.warning("%s", fault, type="docstring")


# What stands elsewhere in the repository and is a page of the site too.
PROJECT = {
    "README.md": "project/readme.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "benchmarks/README.md": "project/benchmarks.md",
}


def write_project(app: Sphinx) -> None:
    """Copies of `PROJECT`, made anew in every build."""
    for original, copy in PROJECT.items():
        place = Path(app.srcdir) / copy
        place.parent.mkdir(exist_ok=True)
        text = (ROOT / original).read_text()
        if not place.exists() or place.read_text() != text:
            place.write_text(text)


def links_into_the_repository(app: Sphinx, docname: str, source: list[str]) -> None:
    """Links that leave ``docs/`` work on GitHub as they are; here they lead to a copy, or stay text if to a folder.

    One to a file becomes a download by itself, and one to nothing is warned of.
    """
    path = Path(docname)
    original = next((Path(o) for o, copy in PROJECT.items() if copy == f"{docname}.md"), Path("docs") / f"{docname}.md")
    here = (ROOT / original).parent

    def replaced(link: re.Match[str]) -> str:
        mark, text, target, anchor = link.groups()
        place = Path(os.path.normpath(here / target))
        if target.startswith(("http:", "https:", "mailto:")) or not target or not place.exists():
            return link[0]
        if not place.is_relative_to(ROOT):
            return link[0]  # leaves the repository: MyST says so
        inside = place.relative_to(ROOT).as_posix()
        if place.is_dir():
            return text
        if inside in PROJECT:
            inside = f"docs/{PROJECT[inside]}"
        return f"{mark}[{text}]({(Path('../' * len(path.parts)) / inside).as_posix()}{anchor or ''})"

    mark = r"(?<!!)" if path.parts[0] != "project" else "!?"  # of copies, pictures move too
    source[0] = re.sub(rf"({mark})\[([^\]]+)\]\(([^)\s#]*)(#[^)\s]*)?\)", replaced, source[0])


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.add_role("named", named)
    app.connect("builder-inited", write_reference)
    app.connect("builder-inited", write_project)
    app.connect("source-read", links_into_the_repository)
    app.connect("autodoc-process-docstring", house_style, priority=400)  # before numpydoc, which has 500
    app.connect("autodoc-process-docstring", show_stars, priority=600)
    app.connect("missing-reference", find_elsewhere)
