"""A temporary folder beside the place where something shall be: it is moved there whole, or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
