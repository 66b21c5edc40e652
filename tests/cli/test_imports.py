"""What a command imports: listing and help are instant."""

from __future__ import annotations

import subprocess
import sys

import pytest

WORDS = [
    *("--help", "compare --help", "plan-n --help"),
    *("list methods", "list attacks", "list models", "list suites"),
]


@pytest.mark.parametrize("words", WORDS)
def test_help_and_lists_import_nothing_heavy(words: str) -> None:
    code = (
        "import sys\nfrom transferbench.cli import main as cli\n"
        f"try:\n    status = cli.main({words.split()!r})\nexcept SystemExit as stop:\n    status = stop.code\n"
        "heavy = {'torch', 'pandas', 'robustbench', 'matplotlib', 'sklearn'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_leaderboard_imports_no_torch() -> None:
    code = (
        "import sys\nfrom transferbench.leaderboard import build, page, rows, statistics\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_status_of_a_run_imports_no_torch() -> None:
    code = "import sys\nfrom transferbench.workflows import run_status\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_comparing_and_planning_import_no_torch() -> None:
    code = (
        "import sys\nfrom transferbench.python import example_plans, victim_comparisons\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
