"""The log of a training as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transferbench.base import atomic_files


def write(path: Path, log: Sequence[Mapping[str, Any]]) -> None:
    """One column for every part of the loss in any phase; cells are empty where a phase has no such part."""
    columns = list(dict.fromkeys(name for row in log for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(log)
    atomic_files.write_text(path, text.getvalue())
