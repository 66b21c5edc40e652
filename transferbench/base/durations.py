"""Durations as people say them."""

from __future__ import annotations

_UNITS = (("days", 86400.0), ("h", 3600.0), ("min", 60.0))


def duration(seconds: float) -> str:
    """`8 s`, `4 min`, `2.5 h`, `3.1 days`: one unit, two digits where it is below ten."""
    for name, size in _UNITS:
        if seconds >= 1.5 * size:
            amount = seconds / size
            return f"{amount:.1f} {name}" if amount < 10 and name != "min" else f"{amount:.0f} {name}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
