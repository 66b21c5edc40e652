"""What the page's files share: the templates, and where links lead."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from transferbench.base.names import file_stem

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"


@cache
def environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    # Autoescape is on for every template; `select_autoescape` would look at file names.
    return Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)


def page_of(victim: str, up: str = "") -> str:
    return f"{up}pages/{quote(file_stem(victim))}.html"


def card_file(folder: Path, name: str) -> Path | None:
    """A run has its cards in its folder, a published board in model_cards/<board>/ of its repository."""
    folder = folder.resolve()
    places = (folder / "cards" / name, folder.parent.parent / "model_cards" / folder.name / name)
    return next((place for place in places if place.is_file()), None)


def card_link(folder: Path, name: str, up: str = "") -> str:
    file = card_file(folder, name)
    if file is None:
        return ""
    inside = file.parent.name == "cards" and file.parent.parent == folder.resolve()
    place = "cards" if inside else f"../../model_cards/{quote(folder.resolve().name)}"
    return f"{up}{place}/{quote(name)}"
