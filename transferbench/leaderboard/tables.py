"""Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(header: Sequence[str], lines: Iterable[Sequence[str]], numbers_from: int = 0) -> str:
    """A Markdown table; columns from `numbers_from` on are aligned to the right."""
    rule = ["---" if place < numbers_from else "---:" for place in range(len(header))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [list(header), rule, *map(list, lines)])
