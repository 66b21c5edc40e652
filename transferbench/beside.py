"""What is written is written beside its place and moved there whole, or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """The text as a UTF-8 file, newlines as they are; a reader sees the old file or the new one."""
    writing = path.with_name(f"{path.name}.writing")
    writing.write_text(text, encoding="utf-8", newline="")
    writing.replace(path)


@contextmanager
def temporary(place: Path) -> Iterator[Path]:
    """A new folder in `place`, or in the nearest folder above it that exists; gone after the block."""
    nearest = place
    while not nearest.exists():
        nearest = nearest.parent
    made = Path(tempfile.mkdtemp(prefix=".download-", dir=nearest))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
