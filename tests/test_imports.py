"""The import directions of the house, read from the syntax trees: docs/architecture.md draws them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "transferbench"
LEAVES = {"types", "registry", "beside", "checkpoint"}
ALLOWED: dict[str, set[str]] = {
    "types": set(),
    "registry": {"types"},
    "keyed": set(),
    "beside": {"types"},
    "checkpoint": set(),
    "schedules": set(),
    "geometry": {"keyed"},
    "features": set(),
    "heads": {"features"},
    "cards": set(),
    "records": {"cards"},
    "suites": set(),
    "data": {"keyed"},
    "catalogue": {"cards"},
    "victims": {"cards", "features", "catalogue", "heads"},
    "attacks": {"geometry", "features", "keyed"},
    "engine": {"attacks", "geometry", "keyed", "features", "data", "victims", "cards", "records"},
    "methods": {"features", "attacks", "schedules", "cards", "keyed", "geometry", "heads"},
    "loader": {"data", "keyed", "methods"},
    "watch": {"attacks", "data", "keyed"},
    "events": {"train"},
    "train": {"methods", "victims", "data", "cards", "keyed", "schedules", "loader", "watch"},
    "leaderboard": {"cards", "records"},
    "plan": {"suites"},
    "executor": {"train", "engine", "methods", "data", "victims"},
    "worker": {"train", "executor"},
    "workplaces": {"engine", "executor", "worker"},
    "runner": {"train", "engine", "victims", "cards", "executor", "worker", "workplaces"},
    "strips": {"engine", "data", "leaderboard", "plan"},
    "recording": {"engine", "suites", "plan", "data", "cards", "records", "__version__"},
    "pipeline": {"suites", "leaderboard", "plan", "methods", "attacks", "victims", "cards", "records"}
    | {"recording", "runner", "workplaces", "strips"},
    "evaluation": {
        "strips",
        "recording",
        "runner",
        "workplaces",
        "engine",
        "suites",
        "leaderboard",
        "plan",
        "attacks",
        "data",
        "victims",
        "records",
        "catalogue",
    },
    "runs": {"engine"},
    "smoke": {"suites", "attacks", "data", "victims", "records", "catalogue", "engine", "executor"},
    "curve": {"leaderboard"},
    # The second look shares nothing with what it looks at but the store's reader and what says what data are.
    "verify": {"data", "victims", "engine", "records", "__version__"},
    "terminal": {"leaderboard", "records"},
    "api": {"engine", "attacks", "data", "features", "victims"},
}


def rooms(path: Path) -> set[str]:
    """The rooms of ours that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "transferbench":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("transferbench."):
            found.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("transferbench.")}
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room in ("cli", "__init__"):
        return
    imported = rooms(path) - LEAVES - {room}
    assert imported <= ALLOWED[room], f"{room} must not import {sorted(imported - ALLOWED[room])}"
    assert "cli" not in imported


@pytest.mark.parametrize("words", ["--help", "list methods", "list attacks", "list models", "list suites"])
def test_help_and_lists_import_nothing_heavy(words: str) -> None:
    code = (
        "import sys\nfrom transferbench import cli\n"
        f"try:\n    status = cli.main({words.split()!r})\nexcept SystemExit as stop:\n    status = stop.code\n"
        "heavy = {'torch', 'pandas', 'robustbench', 'matplotlib', 'sklearn'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_leaderboard_imports_no_torch() -> None:
    code = (
        "import sys\nfrom transferbench.leaderboard import build, publish, rows, statistics\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
