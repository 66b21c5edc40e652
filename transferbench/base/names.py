"""Ids as file names."""

from __future__ import annotations

import re


def file_stem(id: str) -> str:
    """An id as the name of a file: letters, digits and `_.@+-` stay, anything else becomes `_`, no leading dot."""
    return re.sub(r"[^\w.@+-]", "_", id).lstrip(".") or "_"
