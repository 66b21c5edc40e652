"""Writes the log of a training as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transferbench.base import atomic_files


def write(path: Path, log: Sequence[Mapping[str, Any]]) -> None:
    """Write one column per key of any row; a cell is empty where a row (of another phase) lacks the key."""
    columns = list(dict.fromkeys(name for row in log for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(log)
    atomic_files.write_text(path, text.getvalue())
