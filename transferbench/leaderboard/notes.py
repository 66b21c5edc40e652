"""What a board shows and what not, in its author's words: `notes.md` in the board's folder, paragraphs and lists.

leaderboard.md and the page have it behind the table of methods. It is the one part of a board that is not made from
records; a new publication keeps it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from transferbench.base.errors import InputError

FILE = "notes.md"
TITLE = "What this board shows, and what not"
_OTHER = re.compile(r"\s*(#|<|\||>|```|!\[|[0-9]+\. )")


class NotesPart(NamedTuple):
    """A paragraph, or the items of a list."""

    is_list: bool
    items: list[str]


def read(folder: Path) -> str:
    """The text; empty where the folder has none. InputError for a file that cannot be read, and for other Markdown."""
    path = folder / FILE
    if not path.is_file():
        return ""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    for number, line in enumerate(text.splitlines(), 1):
        if _OTHER.match(line):
            raise InputError(f"{path}, line {number}: paragraphs and lists of `- ` only, not {line.strip()[:20]!r}")
    return text


def blocks(text: str) -> list[NotesPart]:
    """The text's paragraphs and lists, lines joined, marks of code taken off."""
    found: list[NotesPart] = []
    for part in re.split(r"\n\s*\n", text.replace("`", "")):
        items = re.split(r"(?:^|\n)- ", part.strip())
        is_list = part.lstrip().startswith("- ")
        found.append(NotesPart(is_list, [" ".join(item.split()) for item in items if item.strip()]))
    return [block for block in found if block.items]


def section(text: str) -> str:
    """The section of leaderboard.md; empty without a text."""
    return f"## {TITLE}\n\n{text}" if text else ""
