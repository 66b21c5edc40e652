"""Sphinx's configuration of the documentation site (docs/site/build.py runs it; `make docs`)."""

from __future__ import annotations

import re
from importlib import metadata
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx import addnodes

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "transferbench"
author = "The transferbench developers"
release = metadata.version("transferbench")
extensions = ["myst_parser", "sphinx.ext.autodoc"]
# Copied as they are, by build.py; a board's notes are a section of its leaderboard.md.
exclude_patterns = ["model_cards/**", "leaderboards/*/notes.md"]
root_doc = "index"

# Headings are linked as code hosts do: [text](page.md#a-heading).
myst_heading_anchors = 4
highlight_language = "none"

# Docstrings of the public API; values and types stay as they are written.
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100

# Furo brings its own fonts, scripts and styles: no page asks another host for anything.
html_theme = "furo"
html_title = f"transferbench {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
# Summaries are read from the pages, which a browser refuses to a site that was opened from disk.
html_show_search_summary = False

_CODE = re.compile(r"(`+[^`]*`+)")


def _as_restructured_text(app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text with `code`: nothing else in them is markup."""
    text = ""
    for part in _CODE.split("\n".join(lines)):
        if part.startswith("`"):
            text += f"``{part.strip('`')}``"
            continue
        # Code that touches a word needs a mark in reStructuredText: `name`s.
        text += "\\ " if text.endswith("`") and part[:1].isalnum() else ""
        text += re.sub(r"([\\*|_])", r"\\\1", part)
    lines[:] = text.split("\n")


def _plain_types(app: Sphinx, what: str, name: str, obj: object, options: Any, given: str, returned: str) -> Any:
    """Signatures with the types alone: `Annotated[int, Ge(1)]` -> `int`, what a value may be is in the docstring."""
    return given and _without_annotations(given), returned


def _without_annotations(text: str) -> str:
    before, found, rest = text.partition("Annotated[")
    if not found:
        return text
    depth, comma = 0, None
    for at, letter in enumerate(rest):
        if letter == "," and depth == 0 and comma is None:
            comma = at
        depth += (letter in "[({") - (letter in "])}")
        if depth < 0:
            return before + _without_annotations(rest[:comma]) + _without_annotations(rest[at + 1 :])
    return text


def _plain_source(app: Sphinx, docname: str, source: list[str]) -> None:
    """Drawings that code hosts render by a script of another host are shown as their text."""
    source[0] = source[0].replace("```mermaid\n", "```text\n")


def _links_to_files(app: Sphinx, doctree: nodes.document) -> None:
    """A link to a file that is no page leads to the file in its own place, where build.py copies it."""
    for node in list(doctree.findall(addnodes.download_reference)):
        link = nodes.reference("", "", *node.children, refuri=node["reftarget"], internal=True)
        node.replace_self(link)


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _as_restructured_text)
    app.connect("autodoc-process-signature", _plain_types)
    app.connect("source-read", _plain_source)
    # Before Sphinx's own collector of downloads, whose priority is 500.
    app.connect("doctree-read", _links_to_files, priority=100)
