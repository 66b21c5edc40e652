"""Builds the documentation site into a folder, and checks it: `python docs/site/build.py [FOLDER]`, or `make docs`.

The pages are the repository's own Markdown files, which also read well on a code host; the site has the same tree, so
that relative links are the same, and boards' pages are copied as they are. Nothing is fetched. Every warning of Sphinx
(a link to a page or heading that is not there, a docstring that cannot be read) ends the build, as does a page that
would ask another host for anything, or that links to a file or heading that the site lacks.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
FILES = ("CITATION.cff", "LICENSE", "docs/*.ipynb", "docs/*.png", "leaderboards", "model_cards")
"""What is copied beside the pages."""
CONTENTS = {
    "Begin": ("docs/tutorial", "docs/which-number", "docs/glossary", "docs/python", "docs/python-reference"),
    "What is measured": ("docs/protocol", "docs/attacks", "docs/methods", "leaderboards/README"),
    "Your own": ("docs/models", "docs/datasets", "docs/suites", "docs/extending", "docs/plugin-reference"),
    "Running": ("docs/cluster", "docs/performance", "docs/performance-gpu"),
    "The project": ("docs/architecture", "CONTRIBUTING", "CHANGELOG"),
}
"""The pages in the order of the navigation. Sphinx warns of a page that is in none."""


def build(out: Path) -> None:
    """Write the site. SystemExit with what is wrong; then what was in the folder before is still there."""
    with TemporaryDirectory() as folder:
        source, site = Path(folder) / "source", Path(folder) / "site"
        _stage(source)
        words = ("-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q", "-E", "-d", f"{folder}/doctrees")
        done = subprocess.run([sys.executable, *words, "-c", str(HERE), str(source), str(site)], check=False)
        if done.returncode:
            sys.exit("the site was not built: see Sphinx's warnings above")
        for path in _files(source):
            (site / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / path, site / path)
        problems = sorted(check(site))
        if problems:
            sys.exit("\n".join(problems) + "\nthe site was not built")
        shutil.rmtree(out, ignore_errors=True)
        shutil.move(site, out)


def _stage(source: Path) -> None:
    """The repository's pages and files in a folder of their own, with the navigation."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
    for path in pages:
        target = source / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    for pattern in FILES:
        for path in ROOT.glob(pattern):
            target = source / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, target, ignore=shutil.ignore_patterns("exports"))
            else:
                shutil.copyfile(path, target)
    for path in HERE.glob("*.md"):
        shutil.copyfile(path, source / "docs" / path.name)
    readme = source / "README.md"
    readme.rename(source / "index.md")
    with (source / "index.md").open("a", encoding="utf-8") as file:
        for caption, names in CONTENTS.items():
            file.write("\n```{toctree}\n:hidden:\n:caption: " + caption + "\n\n" + "\n".join(names) + "\n```\n")
    boards = sorted(path.parent.name for path in source.glob("leaderboards/*/leaderboard.md"))
    with (source / "leaderboards" / "README.md").open("a", encoding="utf-8") as file:
        file.write("\n## The boards' pages\n\n")
        file.writelines(
            f"- [{name}]({name}/index.html), to sort and filter\n"
            for name in boards
            if (source / "leaderboards" / name / "index.html").is_file()
        )
        file.write("\n```{toctree}\n:hidden:\n\n" + "\n".join(f"{name}/leaderboard" for name in boards) + "\n```\n")


def _files(source: Path) -> Iterator[Path]:
    """What is copied: everything that is no page; of the boards and cards, to which boards' pages lead, all."""
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        if path.is_file() and (path.suffix != ".md" or relative.parts[0] in ("leaderboards", "model_cards")):
            yield relative


class _Page(HTMLParser):
    """Addresses in a page: those that a browser fetches by itself, those that a reader may follow, and places."""

    FETCHED = ("src", "srcset", "data", "poster", "background")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.followed: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.places |= {given[name] for name in ("id", "name") if name in given}
        self.fetched += [given[name] for name in self.FETCHED if name in given]
        self.fetched += _of_style(given.get("style", ""))
        if tag == "link" and given.get("rel", "") not in ("canonical", "author"):
            self.fetched.append(given.get("href", ""))
        elif "href" in given:
            self.followed.append(given["href"])

    def handle_data(self, data: str) -> None:
        if self.lasttag == "style":
            self.fetched += _of_style(data)


def _of_style(text: str) -> list[str]:
    """The addresses in a style sheet."""
    return [url or name for url, name in re.findall(r"url\(\s*[\"']?([^)\"']+)|@import\s+[\"']([^\"']+)", text)]


def check(site: Path) -> Iterator[str]:
    """What is wrong with a site: addresses of other hosts that a page fetches, links that lead nowhere."""
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        name = path.relative_to(site)
        for address in page.fetched:
            if _is_elsewhere(address):
                yield f"{name}: it would fetch {address}"
            elif not _leads_to_a_file(path, address):
                yield f"{name}: {address} is not there"
        for address in page.followed:
            if _is_elsewhere(address):
                continue
            target = _target(path, address)
            place = unquote(urlsplit(address).fragment)
            if not target.is_file():
                yield f"{name}: the link {address} leads nowhere"
            elif place and target in pages and place not in pages[target].places:
                yield f"{name}: {address}: there is no such place"
    for path in sorted(site.rglob("*.css")):
        for address in _of_style(path.read_text(encoding="utf-8")):
            if _is_elsewhere(address):
                yield f"{path.relative_to(site)}: it would fetch {address}"


def _is_elsewhere(address: str) -> bool:
    parts = urlsplit(address)
    return bool(parts.netloc) or parts.scheme in ("http", "https", "mailto")


def _leads_to_a_file(page: Path, address: str) -> bool:
    return urlsplit(address).scheme == "data" or _target(page, address).is_file()


def _target(page: Path, address: str) -> Path:
    """The file that a relative address names; a folder's is its index."""
    name = unquote(urlsplit(address).path)
    target = (page.parent / name).resolve() if name else page
    return target / "index.html" if target.is_dir() else target


if __name__ == "__main__":
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "site")
