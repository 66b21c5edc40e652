"""Names are untrusted: each output format gets its own escaping, in one place."""

from __future__ import annotations

import html
import re

_CONTROL = re.compile(r"[\x00-\x1f\x7f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def csv_cell(value: object) -> object:
    """Text that a spreadsheet would run as a formula gets a leading apostrophe; control characters go."""
    if not isinstance(value, str):
        return value
    text = _CONTROL.sub(" ", value)
    risky = text[:1] in ("=", "+", "-", "@") and not re.fullmatch(r"[+-]?\d+(\.\d+)?", text)
    return f"'{text}" if risky else text


def plain(value: object) -> str:
    """Text without control characters and without those that turn the direction of what follows (HTML is escaped by
    its template)."""
    return _CONTROL.sub(" ", str(value))


def markdown_cell(value: object) -> str:
    """Text that stays inside its cell of a Markdown table and cannot become HTML, a link or emphasis."""
    text = html.escape(_CONTROL.sub(" ", str(value)), quote=False)
    return re.sub(r"([\\`*_{}\[\]|])", r"\\\1", text)
