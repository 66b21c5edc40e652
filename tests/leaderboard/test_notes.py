"""notes.md: what a board shows and what not, behind the table of methods of leaderboard.md and of the page."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from transferbench.base.errors import InputError
from transferbench.leaderboard import build, notes, page
from transferbench.results.records import read_all

BOARDS = sorted(path.parent for path in (Path(__file__).parents[2] / "leaderboards").glob("*/records"))


@pytest.mark.parametrize("folder", BOARDS, ids=lambda path: path.name)
def test_every_committed_board_says_what_it_shows_and_every_figure_stands_in_its_tables(folder: Path) -> None:
    text = notes.read(folder)
    assert "Not shown:" in text
    figures = set(re.findall(r"\d+\.\d\d", text))
    assert len(figures) > 10
    tables = (folder / "leaderboard.md").read_text().replace(text, "")
    assert figures <= set(re.findall(r"\d+\.\d\d", tables))


def test_they_stand_behind_the_methods_of_the_board_and_of_the_page_escaped(tmp_path: Path) -> None:
    folder = tmp_path / "board"
    (folder / "records").mkdir(parents=True)
    for path in sorted((BOARDS[0] / "records").glob("*.json"))[:2]:
        shutil.copy(path, folder / "records")
    records = read_all(folder)
    build.rebuild(folder)
    page.write(folder, records)
    plain = (folder / "leaderboard.md").read_text()
    assert notes.TITLE not in plain
    assert notes.TITLE not in (folder / "index.html").read_text()
    (folder / notes.FILE).write_text("Shown `here` & 1 < 2\nto all:\n\n- one\n  goes on\n- two\n")
    assert any("leaderboard.md: differs" in line for line in build.check(folder))
    build.rebuild(folder)
    page.write(folder, records)
    said = (folder / "leaderboard.md").read_text()
    assert f"## {notes.TITLE}\n\nShown `here` & 1 < 2\nto all:\n\n- one\n  goes on\n- two\n\n## " in said
    assert said.index("| method |") < said.index(notes.TITLE) < said.index("## Every victim")
    html = (folder / "index.html").read_text()
    assert "<p>Shown here &amp; 1 &lt; 2 to all:</p>" in html
    assert "<ul><li>one goes on</li><li>two</li></ul>" in html
    assert html.index('id="methods"') < html.index(notes.TITLE) < html.index('id="victims"')
    assert build.check(folder) == []


@pytest.mark.parametrize("line", ["# Title", "<b>", "| a | b |", "![x](y)", "1. first", "```"])
def test_other_markdown_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    (tmp_path / notes.FILE).write_text(f"one\n\n{line}\n")
    with pytest.raises(InputError, match=r"notes\.md, line 3: paragraphs and lists"):
        notes.read(tmp_path)
