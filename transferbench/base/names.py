"""Ids as file names, and names of folders as ids."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from transferbench.base.errors import InputError
from transferbench.base.spelling import composed

_LONGEST = 180
"""Bytes of a name, at most: file systems take 255, and an ending and a temporary file's mark come on top."""


def file_stem(id: str) -> str:
    """An id as the name of a file: letters, digits and `_.@+-` stay, anything else becomes `_`, no leading dot.

    A long one is cut, and ends in digits of its hash.
    """
    return _short(re.sub(r"[^\w.@+-]", "_", id).lstrip(".") or "_")


def short_network(id: str) -> str:
    """A network's id for people: of a configuration of transformers its type alone (`transformers:224:vit`)."""
    return re.sub(r'(transformers:\d+:)\{.*"model_type":"([\w-]+)".*\}', r"\1\2", id)


def victim_name(folder: Path) -> str:
    """The id of a victim that is trained into a folder: the folder's name, less what an id may not contain.

    `.` and `..` have the name of the folder that they are. InputError where no letter or digit is left.
    """
    name = composed(Path(os.path.abspath(folder)).name)
    # Letters and decimal digits: what every regular expression engine takes for a part of a word.
    known = "".join(c if c.isalpha() or c.isdecimal() or c in "_.@+-" else "\0" for c in name)
    valid = re.sub("\0+", "_", known)
    if valid != name:
        valid = valid.strip("_")
    valid = valid.lstrip(".")
    if not any(c.isalnum() for c in valid):
        raise InputError(f"--out {folder}: the victim gets the folder's name, and {name!r} has no letter or digit")
    return _short(valid)


def _short(name: str) -> str:
    content = name.encode(errors="surrogateescape")
    if len(content) <= _LONGEST:
        return name
    return f"{content[: _LONGEST - 9].decode(errors='ignore')}-{hashlib.sha256(content).hexdigest()[:8]}"
