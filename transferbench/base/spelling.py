"""Spellings of one name: Unicode's composed form, numbers with and without leading zeros."""

from __future__ import annotations

import re
import unicodedata


def composed(name: str) -> str:
    """The name in Unicode's composed form (NFC): macOS stores `é` as two code points, other systems as one."""
    return unicodedata.normalize("NFC", name)


def number(name: str) -> int | None:
    """The value of a name that is a plain non-negative integer (`7`, `007`), else None."""
    return int(name) if re.fullmatch("[0-9]+", name) else None
