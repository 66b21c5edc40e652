"""The documentation site's own check finds what it is there for; `make docs` builds and checks the site."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_site", ROOT / "docs" / "site" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def site(folder: Path, body: str = "", style: str = "") -> Path:
    (folder / "docs").mkdir()
    (folder / "style.css").write_text(style)
    (folder / "index.html").write_text(f'<link rel="stylesheet" href="style.css"><h1 id="top">x</h1>{body}')
    (folder / "docs" / "page.html").write_text(
        '<a href="../index.html#top">up</a><a href="https://elsewhere.org">x</a>'
    )
    return folder


def test_a_site_of_its_own_files_has_nothing_wrong(build: ModuleType, tmp_path: Path) -> None:
    body = '<a href="docs/page.html">p</a><a href="#top">t</a><a href="docs/../index.html">i</a>'
    body += '<img src="data:image/png;base64,AA">'
    assert list(build.check(site(tmp_path, body, "@font-face { src: url(data:font/woff2;base64,AA) }"))) == []


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ('<script src="https://cdn.org/x.js"></script>', "fetch https://cdn.org/x.js"),
        ('<script src="//cdn.org/x.js"></script>', "fetch //cdn.org/x.js"),
        ('<link rel="preconnect" href="https://fonts.org">', "fetch https://fonts.org"),
        ('<img src="https://shields.org/badge.svg">', "fetch https://shields.org/badge.svg"),
        ('<div style="background: url(https://a.org/b.png)"></div>', "fetch https://a.org/b.png"),
        ("<style>@import 'https://a.org/b.css';</style>", "fetch https://a.org/b.css"),
        ('<iframe src="https://a.org"></iframe>', "fetch https://a.org"),
        ('<img src="no.png">', "no.png is not there"),
        ('<a href="docs/no.html">x</a>', "docs/no.html leads nowhere"),
        ('<a href="docs/page.html#no">x</a>', "docs/page.html#no: there is no such place"),
        ('<a href="docs">x</a>', "docs leads nowhere"),
    ],
)
def test_what_a_site_must_not_have(build: ModuleType, tmp_path: Path, body: str, complaint: str) -> None:
    (found,) = build.check(site(tmp_path, body))
    assert found.startswith("index.html: ")
    assert complaint in found


def test_style_sheets_are_checked(build: ModuleType, tmp_path: Path) -> None:
    (found,) = build.check(site(tmp_path, style='@import "https://fonts.org/a.css"; a { color: red }'))
    assert found == "style.css: it would fetch https://fonts.org/a.css"


def test_every_page_of_docs_is_in_the_contents(build: ModuleType) -> None:
    named = {name for names in build.CONTENTS.values() for name in names}
    written = {f"docs/{path.stem}" for folder in ("docs", "docs/site") for path in (ROOT / folder).glob("*.md")}
    assert written <= named
    assert all(
        (ROOT / f"{name}.md").is_file() or (ROOT / "docs" / "site" / f"{name.partition('/')[2]}.md").is_file()
        for name in named
    )


def test_the_folder_that_stands_is_kept_where_the_build_fails(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("before")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(SystemExit, match="not built"):
        build.build(tmp_path / "site")
    assert (tmp_path / "site" / "index.html").read_text() == "before"
