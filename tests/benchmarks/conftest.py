"""Collects what the benchmarks measured and writes docs/performance.md at the end of a whole run."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).parent.parent.parent / "docs" / "performance.md"
TABLES: dict[str, list[list[str]]] = {}
HEADERS: dict[str, list[str]] = {}
INTRODUCTIONS: dict[str, str] = {}

torch.set_num_threads(1)


@pytest.fixture
def note() -> Callable[..., None]:
    """`note(title, introduction, header, row)` adds a row to a table of the page."""

    def add(title: str, introduction: str, header: list[str], row: list[str]) -> None:
        HEADERS[title], INTRODUCTIONS[title] = header, introduction
        TABLES.setdefault(title, []).append(row)

    return add


def _machine() -> str:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "pyautoattack", "numpy"))
    name = names[0] if names else platform.machine()
    return f"{name} ({torch.backends.cpu.get_cpu_capability()}), one thread, {packages}"


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write the tables that were measured; those of other benchmarks stay as they are, with their own machine."""
    if exitstatus != 0 or not TABLES or session.config.getoption("-k"):
        return
    sections = _sections(PAGE.read_text(encoding="utf-8")) if PAGE.is_file() else {}
    for title, rows in TABLES.items():
        table = [HEADERS[title], ["---"] + ["---:"] * (len(HEADERS[title]) - 1), *rows]
        lines = "\n".join("| " + " | ".join(cells) + " |" for cells in table)
        sections[title] = f"{INTRODUCTIONS[title]}\n\n{lines}\n\nMachine: {_machine()}."
    parts = [
        "# Performance",
        "Written by `make bench`. Ratios of CPU time within one process, ours and the reference in turn after a "
        "warm-up; allocator settings untouched; no torch.compile. Pass counts are exact; `make test` asserts them.",
        *(f"## {title}\n\n{text}" for title, text in sections.items()),
    ]
    PAGE.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _sections(page: str) -> dict[str, str]:
    """The page's sections by title."""
    parts = (part.partition("\n") for part in page.split("\n## ")[1:])
    return {title: text.strip() for title, _, text in parts}
